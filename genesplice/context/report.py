"""The context verdict as tables and as one offline page: the answer, then the evidence."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from genesplice.config import Config
from genesplice.context.perturbation import kept_share
from genesplice.data.bundle import Bundle
from genesplice.evaluate.reliability import ablation_table
from genesplice.model.attention import backend_name
from genesplice.results import Metric, write_metrics
from genesplice.runtime import atomic_file, write_json, write_manifest
from genesplice.show.figures import context_scores, dose_figure, mass_figure, slope_bars
from genesplice.show.report import Part, write_page


class VerdictReport(NamedTuple):
    """Everything that was measured; `verdict` is what `verdict.json` holds."""

    verdict: dict[str, Any]
    metrics: list[Metric]
    predictions: pd.DataFrame
    dose: pd.DataFrame
    mass: pd.DataFrame


def write_report(
    report: VerdictReport,
    bundle: Bundle,
    config: Config,
    out: Path,
    *,
    command: str,
    started: float,
    others: Sequence[Metric] = (),
) -> Path:
    """Write verdict, metrics, manifest, ablation table (JSON and TSV) and the page; its path.

    `others` are records of other stages that the ablation table rests on as well.
    """
    ablations = ablation_table(
        [*report.metrics, *others],
        smallest_effect=config.verdict.smallest_effect,
        context_answer=report.verdict["answer"],
    )
    ablations.to_csv(out / "ablations.tsv", sep="\t", index=False)
    write_json(out / "ablations.json", json.loads(ablations.to_json(orient="records")))
    write_json(out / "verdict.json", report.verdict)
    with atomic_file(out / "metrics.json") as partial:
        write_metrics(partial, report.metrics)
    if len(report.predictions):
        report.predictions.to_parquet(out / "predictions.parquet", index=False)
    write_manifest(
        out, command=command, started=started, config=config.to_dict(),
        seeds={f"verdict_{i}": seed for i, seed in enumerate(config.verdict.seeds)},
        data=bundle.data_sha256, backend=backend_name(),
        extra={"answer": report.verdict["answer"]},
    )  # fmt: skip
    return write_verdict_page(out / "verdict.html", report, ablations, bundle.name)


def write_verdict_page(
    target: Path, report: VerdictReport, ablations: pd.DataFrame | None = None, name: str = ""
) -> Path:
    """Write one self-contained HTML page; `name` is that of the data."""
    verdict, metrics = report.verdict, pd.DataFrame(report.metrics, columns=list(Metric._fields))
    parts: list[Part] = [f"**Note:** {html.escape(text)}" for text in verdict["disagreements"]]
    parts += [
        f"**Note:** Task {html.escape(task)} {html.escape(str(why))}"
        for task, why in verdict["failures"].items()
    ]
    if verdict["slopes"]:
        parts.append(slope_bars(verdict["slopes"], verdict["rule"]["smallest_effect"]))
        parts.append(context_scores(verdict["conditions"], metrics))
    if len(report.dose):
        parts.append(dose_figure(kept_share(report.dose)))
    if len(report.mass):
        parts.append(mass_figure(report.mass))
    parts += ["## Context conditions", condition_table(verdict, metrics)]
    parts += ["## Simulated controls", control_table(verdict["controls"])]
    parts.append(controls_sentence(verdict["controls"]))
    if ablations is not None:
        parts += ["## Hypotheses and their ablations", hypothesis_table(ablations)]
    parts.append(f"{rule_sentence(verdict['rule'])} Cost: {verdict['cpu_seconds']:.0f} s of CPU.")
    title = f"Does longer context help{f' on {name}' if name else ''}?"
    lead = [f"{verdict['answer']}. {verdict['sentence']}"]
    with atomic_file(target) as partial:
        write_page(partial, title, parts, lead=lead)
    return target


def condition_table(verdict: Mapping[str, Any], metrics: pd.DataFrame) -> pd.DataFrame:
    """Every context condition with its input length, whether it counts, and its scores."""
    reasons = {
        (False, False): "yes",
        (True, False): "no: other architecture",
        (True, True): "no: shorter than the context under test",
    }
    rows = []
    for one in verdict["conditions"]:
        row = {
            "condition": one["name"],
            "input length (bp)": f"{one['context_bp']:,}",
            "counts": f"no: {one['reason']}"
            if one.get("reason")
            else reasons[one["is_reference"], one["is_excluded"]],
        }
        if len(metrics):
            own = metrics[(metrics["model"] == one["name"]) & metrics["fold"].isna()]
            row |= own.groupby("metric")["value"].mean().to_dict()
        rows.append(row)
    return pd.DataFrame(rows)


def control_table(controls: Mapping[str, Any]) -> pd.DataFrame:
    """What each simulated control must come out as, and did."""
    columns = {"control": "what decides", "expected": "must be", "answer": "is",
               "sentence": "because"}  # fmt: skip
    return pd.DataFrame(controls["controls"])[list(columns)].rename(columns=columns)


def controls_sentence(controls: Mapping[str, Any]) -> str:
    """What the controls do not show."""
    low, high = controls["element_distance_bp"]
    return (
        f"In simulated controls {controls['smallest_effect']:g} per doubling matters. The planted "
        f"distal element lies {low:,} to {high:,} bp from its genes: that a model finds what acts "
        "from further away is not shown."
    )


def rule_sentence(rule: Mapping[str, Any]) -> str:
    """The rule, and on how many complete runs it was applied."""
    text = (
        f"Rule, fixed before: {rule['smallest_effect']:g} per doubling matters, alpha "
        f"{rule['alpha']:g}, power {rule['power']:g}. Complete runs of each context: "
        f"{rule['n_runs']}."
    )
    if rule["counts_shared_variance"]:
        return text
    return (
        f"{text} With fewer than five, seed variance is taken to be each condition's own; where "
        "neighbouring contexts share it, a wrong yes or no is more likely than alpha."
    )


def hypothesis_table(ablations: pd.DataFrame) -> pd.DataFrame:
    """`genesplice.evaluate.reliability.ablation_table` for a page: the answer first."""
    numbers = ["effect", "ci_low", "ci_high", "cpu_seconds"]
    ablations = ablations.astype(dict.fromkeys(numbers, float))
    was_run = ablations["n_runs"] > 0
    ablation = ablations["ablation"].astype(str).str.removeprefix("genesplice_")
    has_interval = ablations[["ci_low", "ci_high"]].notna().all(axis=1)
    low, high = (ablations[name].map("{:+.4f}".format) for name in ("ci_low", "ci_high"))
    columns = {
        "hypothesis": ablations["hypothesis"],
        "answer": ablations["answer"],
        "ablation": ablation.str.replace("_", " "),
        "metric": ablations["metric"],
        "effect": ablations["effect"].map("{:+.4f}".format).where(was_run, ""),
        "95 % interval": (low + " to " + high).where(has_interval, ""),
        "runs": ablations["n_runs"].astype(str).where(was_run, ""),
        "CPU (s)": ablations["cpu_seconds"].map("{:,.0f}".format)
        .where(ablations["cpu_seconds"].notna(), ""),
    }  # fmt: skip
    return pd.DataFrame(columns)

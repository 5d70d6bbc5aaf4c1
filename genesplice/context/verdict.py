"""Does longer context help here? Controls first, then the conditions, then distance dependence.

The answer comes from the context conditions alone, by the rule of `genesplice.context.rule`.
Perturbation and gradient ask one trained model how far away the sequence lies that it depends on;
where they point another way, that is said with the answer.
"""

import html
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd

from genesplice.config import Config
from genesplice.context import conditions, perturbation
from genesplice.context.controls import check_controls, kept_folder
from genesplice.context.rule import ANSWERS, FEWEST_SLOPES, Decision
from genesplice.data.bundle import Bundle
from genesplice.errors import InputError, require
from genesplice.evaluate.metrics import fold_profiles, score
from genesplice.evaluate.reliability import COST, ablation_table
from genesplice.model.attention import backend_name
from genesplice.results import Metric, metrics_frame, write_metrics
from genesplice.runtime import atomic_file, tell, write_json, write_manifest, write_table
from genesplice.show.figures import context_scores, dose_figure, mass_figure, slope_bars
from genesplice.show.report import Part, write_page
from genesplice.training import sweeps
from genesplice.training.loops import begin_run

FLAT = 1e-3
"""Predicted levels that vary less than this share of the measured ones are constant."""
REFUSED = "refused"
"""The answer where the simulated controls have not passed."""
SAID = ("genesplice", "python", "torch")
"""Versions that are named with a control that was not run again."""


class VerdictReport(NamedTuple):
    """Everything that was measured; `verdict` is what `verdict.json` holds."""

    verdict: dict[str, Any]
    metrics: list[Metric]
    predictions: pd.DataFrame
    dose: pd.DataFrame
    mass: pd.DataFrame


def make_runner(
    config: Config, ray: str | None = None, progress: sweeps.Progress = tell
) -> conditions.Runner:
    """What runs tasks: a pool of processes here, or the Ray cluster at the address `ray`."""
    shared: dict[str, Any] = {"threads": config.verdict.threads, "progress": progress}
    if ray is not None:
        return partial(sweeps.run_tasks_on_ray, address=ray, **shared)
    return partial(sweeps.run_tasks, workers=config.verdict.workers, **shared)


def context_test(
    bundle: Bundle,
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    ray: str | None = None,
    controls: Path | None = None,
    progress: sweeps.Progress = tell,
) -> VerdictReport:
    """Run the simulated controls and the context conditions in `out` and apply the rule.

    Tables of tasks stay in `out`: with `resume` only what is missing is run. Until the controls
    have passed with these settings and versions the answer is `REFUSED` and no condition is run.
    They do not depend on the data: where they have passed before (see `check_controls`), one is
    run again; `controls` is the folder that remembers them, in place of this user's.

    Raises
    ------
    InputError
        If `out` is in use and `resume` is False, or was begun with other settings; a fold or the
        expression does not exist; or too few genes are measured.
    """
    bundle.require_expression(config.finetune.fewest_genes)
    has_columns = bundle.genome.columns is not None or not config.verdict.relatives
    require(has_columns, "verdict.relatives, and no relatives in the data", "either", bundle.path)
    begin_run(out, config, resume, bundle.data_sha256)
    settings, runner = config.verdict, make_runner(config, ray, progress)
    folds = tuple(range(bundle.n_folds)) if settings.folds is None else settings.folds
    for fold in folds:
        bundle.test_genes(fold)  # raises for a fold that is not there
    kept = controls or kept_folder(config)
    truth = check_controls(config, out, runner, kept=kept, progress=progress)
    plan = conditions.plan_conditions(config, bundle, settings.contexts_bp, settings.references)
    if not truth["passed"]:
        wrong = [one for one in truth["controls"] if one["answer"] != one["expected"]]
        words = "{control} {answer} in place of {expected}"
        answers = (words.format(**one) for one in wrong)
        sentence = f"No verdict: the simulated controls did not pass ({', '.join(answers)})."
        decision, empty = Decision(REFUSED, (), sentence), pd.DataFrame()
        verdict = verdict_record(decision, config, plan, truth, sweeps.SweepResult(empty, {}, 0.0))
        return VerdictReport(verdict, [], empty, empty, empty)
    repeats: dict[str, Any] = {"folds": folds, "seeds": settings.seeds}
    tasks = conditions.condition_tasks(
        bundle, config, plan, out / "runs", epochs=settings.epochs, **repeats
    )
    swept = runner(tasks, out / "tasks", "conditions")
    metrics: list[Metric] = []
    untrained = without_learning(swept.table, plan)
    learned = tuple(one for one in plan.conditions if one.name not in untrained)
    try:
        if untrained and len(plan.context_of) - len(untrained) < 2:
            listed = "; ".join(f"{name} {reason}" for name, reason in untrained.items())
            raise InputError(listed, "two context conditions that learned something")
        counted = plan._replace(conditions=learned)
        decision = conditions.judge_conditions(swept.table, bundle, counted, config)
    except InputError as error:
        decision = Decision(ANSWERS[2], (), f"Cannot tell: {error}.")
    if len(swept.table):
        profile = fold_profiles(bundle.observed, bundle.fold_of)
        metrics = score(swept.table, bundle.block_of, train_profile=profile)
    metrics += [
        Metric(f"{s.metric}_per_doubling", s.slope, s.ci_low, s.ci_high, s.n, "context", "test")
        for s in decision.slopes
    ]
    is_condition = swept.table.get("model", pd.Series(dtype=object)).isin(plan.context_of)
    if is_condition.any():
        spent = swept.table[is_condition].groupby("task")[sweeps.CPU_SECONDS].max().sum()
        metrics.append(Metric(COST, float(spent), None, None, 1, "context", "train"))
    steps = conditions.condition_steps(bundle.genome, config, plan, settings.epochs), truth["steps"]
    decision = question_steps(decision, *steps)
    verdict = verdict_record(decision, config, plan, truth, swept, untrained)
    verdict |= dict(zip(("steps", "control_steps"), steps, strict=True))
    dose, mass, blind = pd.DataFrame(), pd.DataFrame(), None
    fold, tested = folds[0], plan.longest
    n_genes = 0 if settings.relatives else settings.perturbation_genes
    model = out / "runs" / f"{tested.name}-fold{fold}-seed{settings.seeds[0]}"
    if n_genes and (model / "model.safetensors").exists():
        progress(f"distance dependence: {n_genes} held-out genes of fold {fold}")
        dose, mass, blind = perturbation.measure_distance(
            bundle, model, tested.context_bp, fold, n_genes
        )
    decision = question_no(decision, blind)
    verdict |= {"answer": decision.answer, "sentence": decision.sentence}
    contexts = min(plan.context_of.values()), tested.context_bp
    verdict |= perturbation.compare_distance_dependence(
        decision.answer, dose, mass, *contexts, blind
    )
    return VerdictReport(verdict, metrics, swept.table, dose, mass)


def without_learning(predictions: pd.DataFrame, plan: conditions.ConditionPlan) -> dict[str, str]:
    """Context conditions that have learned nothing, and why: a slope must not rest on them.

    Their predicted levels are constant over the held-out genes of a run, or further from the
    measured ones than the mean is, over all runs.
    """
    reasons: dict[str, str] = {}
    for name in plan.context_of:
        rows = predictions[predictions["model"] == name] if len(predictions) else predictions
        if rows.empty:
            continue
        levels = rows.groupby(["fold", "seed", "gene_id"])[["observed", "predicted"]].mean()
        runs = levels.groupby(["fold", "seed"])
        spread = runs.std(ddof=0)
        error = (levels["predicted"] - levels["observed"]) ** 2
        total = (levels["observed"] - runs["observed"].transform("mean")) ** 2
        if (spread["predicted"] < FLAT * spread["observed"]).any():
            reasons[name] = "predicts the same level for all genes"
        elif error.sum() > total.sum():
            reasons[name] = "predicts levels worse than their mean does"
    return reasons


def question_steps(decision: Decision, steps: int, control_steps: int) -> Decision:
    """Take a *no* back whose conditions took fewer steps than those that found what was planted."""
    if decision.answer != "no" or steps >= control_steps:
        return decision
    sentence = (
        f"Cannot tell whether longer context helps: the conditions took {steps} steps, and those "
        f"that had to find a planted element took {control_steps} (verdict.epochs)."
    )
    return decision._replace(answer="cannot tell", sentence=sentence)


def question_no(decision: Decision, kept_without_sequence: float | None) -> Decision:
    """Take a *no* back where `BLIND` or more of the predictions is left without any sequence.

    Where that was not measured (None), the sentence says so.
    """
    if decision.answer != "no":
        return decision
    if kept_without_sequence is None:
        sentence = (
            f"{decision.sentence.rstrip('.')}; whether the predictions need any sequence was not "
            "measured (verdict.perturbation_genes, verdict.relatives)."
        )
        return decision._replace(sentence=sentence)
    if kept_without_sequence < perturbation.BLIND:
        return decision
    sentence = (
        f"Cannot tell whether longer context helps: {kept_without_sequence:.1%} of the differences "
        "between predictions is left when all sequence is shuffled, so that no context could have "
        "changed them."
    )
    return decision._replace(answer=ANSWERS[2], sentence=sentence)


def verdict_record(
    decision: Decision,
    config: Config,
    plan: conditions.ConditionPlan,
    controls: dict[str, Any],
    swept: sweeps.SweepResult,
    untrained: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """What `verdict.json` holds; runs are counted as the rule counts them.

    `untrained` conditions, and references that read less than the context under test, are excluded.
    """
    settings, tested = config.verdict, plan.longest.context_bp
    n_runs = min((slope.n_runs for slope in decision.slopes), default=0)
    rule = {name: getattr(settings, name) for name in ("smallest_effect", "alpha", "power")}
    rows = []
    for one in plan.conditions:
        is_short = one.is_reference and one.context_bp < tested
        row = {"is_excluded": is_short or one.name in untrained, "reason": untrained.get(one.name)}
        rows.append(one._asdict() | row)
    rule |= {"n_runs": n_runs, "counts_shared_variance": n_runs >= FEWEST_SLOPES}
    return {
        **decision.to_dict(), "rule": rule, "context_under_test_bp": tested, "conditions": rows,
        "controls": controls, "failures": swept.failures,
        "cpu_seconds": round(swept.cpu_seconds + controls["cpu_seconds"], 1),
        "distance_dependence": None, "disagreements": [],
    }  # fmt: skip


# --- the tables and the page ---


def write_report(
    report: VerdictReport,
    bundle: Bundle,
    config: Config,
    out: Path,
    *,
    others: Sequence[Metric] = (),
    **made_by: Any,
) -> Path:
    """Write verdict, metrics, manifest, ablation table (JSON and TSV) and the page; its path.

    `others` are records of other stages that the ablation table rests on as well; `made_by` is
    `command` and `started` of `write_manifest`.
    """
    answer, smallest = report.verdict["answer"], config.verdict.smallest_effect
    records = [*report.metrics, *others]
    ablations = ablation_table(records, smallest_effect=smallest, context_answer=answer)
    with atomic_file(out / "ablations.tsv") as partial:
        ablations.to_csv(partial, sep="\t", index=False)
    write_json(out / "ablations.json", json.loads(ablations.to_json(orient="records")))
    write_json(out / "verdict.json", report.verdict)
    write_metrics(out / "metrics.json", report.metrics)
    if len(report.predictions):
        write_table(out / "predictions.parquet", report.predictions)
    write_manifest(
        out, **made_by, config=config.to_dict(),
        seeds={f"verdict_{i}": seed for i, seed in enumerate(config.verdict.seeds)},
        data=bundle.data_sha256, backend=backend_name(), extra={"answer": answer},
    )  # fmt: skip
    return write_verdict_page(out / "verdict.html", report, ablations, bundle.name)


def write_verdict_page(
    target: Path, report: VerdictReport, ablations: pd.DataFrame | None = None, name: str = ""
) -> Path:
    """Write one self-contained HTML page; `name` is that of the data."""
    verdict, metrics = report.verdict, metrics_frame(report.metrics)
    parts: list[Part] = [f"**Note:** {html.escape(text)}" for text in verdict["disagreements"]]
    failed = [f"{task} {why}" for task, why in verdict["failures"].items()]
    parts += [f"**Note:** Task {html.escape(text)}" for text in failed]
    if verdict["slopes"]:
        parts.append(slope_bars(verdict["slopes"], verdict["rule"]["smallest_effect"]))
        parts.append(context_scores(verdict["conditions"], metrics))
    if len(report.dose):
        parts.append(dose_figure(perturbation.kept_share(report.dose)))
    if len(report.mass):
        parts.append(mass_figure(report.mass))
    parts += ["## Context conditions", condition_table(verdict, metrics)]
    parts += ["## Simulated controls", control_table(verdict["controls"])]
    parts.append(controls_sentence(verdict["controls"]))
    if ablations is not None:
        parts += ["## Hypotheses and their ablations", hypothesis_table(ablations)]
    parts.append(f"{rule_sentence(verdict['rule'])} Cost: {verdict['cpu_seconds']:.0f} s of CPU.")
    title = f"Does longer context help{f' on {name}' if name else ''}?"
    return write_page(target, title, parts, lead=[verdict["sentence"]])


def condition_table(verdict: Mapping[str, Any], metrics: pd.DataFrame) -> pd.DataFrame:
    """Every context condition with its input length, whether it counts, and its scores."""
    reasons = {
        (False, False): "yes",
        (True, False): "no: other architecture",
        (True, True): "no: shorter than the context under test",
    }
    rows = []
    for one in verdict["conditions"]:
        why = one.get("reason")
        counts = f"no: {why}" if why else reasons[one["is_reference"], one["is_excluded"]]
        length = f"{one['context_bp']:,}"
        row = {"condition": one["name"], "input length (bp)": length, "counts": counts}
        if len(metrics):
            own = metrics[(metrics["model"] == one["name"]) & metrics["fold"].isna()]
            row |= own.groupby("metric")["value"].mean().to_dict()
        rows.append(row)
    return pd.DataFrame(rows)


def control_table(controls: Mapping[str, Any]) -> pd.DataFrame:
    """What each simulated control must come out as, and did, and when it was run."""
    columns = {"control": "what decides", "expected": "must be", "answer": "is", "run": "run",
               "sentence": "because"}  # fmt: skip
    table, reused = pd.DataFrame(controls["controls"]), controls["reused"]
    days = [str(one["made"]["when"])[:10] for one in controls["controls"]]
    is_old = table["control"].isin(reused)
    table["run"] = pd.Series(days).where(is_old, "now")
    return table[list(columns)].rename(columns=columns)


def controls_sentence(controls: Mapping[str, Any]) -> str:
    """Which controls were not run now and where they had passed, and what controls do not show."""
    low, high = controls["element_distance_bp"]
    listed = {one["control"]: one for one in controls["controls"]}
    parts, reused = [], controls["reused"]
    if reused:
        now = ", ".join(f'"{name}"' for name in listed if name not in reused)
        parts.append(
            f"Run again for this verdict: control {now}, the one that had passed longest ago here."
        )
    for name in reused:
        made = listed[name]["made"]
        libraries = ", ".join(f"{one} {made['versions'][one]}" for one in SAID)
        parts.append(
            f'Not run again: control "{name}", which passed on {made["when"][:10]} with the same '
            f"code and settings, {libraries}, on {made['processor']} ({made['system']})."
        )
    parts.append(
        f"In simulated controls {controls['smallest_effect']:g} per doubling matters. The planted "
        f"distal element lies {low:,} to {high:,} bp from its genes: that a model finds what acts "
        "from further away is not shown."
    )
    return " ".join(parts)


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

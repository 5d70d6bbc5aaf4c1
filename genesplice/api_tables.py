"""Tables and explorers that notebooks make of results: of metrics, training, explanations, context.

What needs torch is imported where it is used.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from genesplice.config import Config
from genesplice.data.bundle import Bundle
from genesplice.results import Metric, MotifHit
from genesplice.show.explorers import Explorer, ScanExplorer


def metrics_frame(records: Sequence[Metric] | pd.DataFrame) -> pd.DataFrame:
    """Records as a table, a row each."""
    return pd.DataFrame(records, columns=list(Metric._fields))


def metric_table(
    metrics: Sequence[Metric] | pd.DataFrame, prefix: str, model: str = ""
) -> pd.DataFrame:
    """Records over all folds whose metric begins with `prefix` and whose model contains `model`.

    Columns metric, model, value, ci_low, ci_high and n.
    """
    table = metrics_frame(metrics)
    is_chosen = table["metric"].str.startswith(prefix)
    is_chosen &= table["model"].str.contains(model, regex=False)
    shown = ["metric", "model", "value", "ci_low", "ci_high", "n"]
    return table.loc[is_chosen, shown].reset_index(drop=True)


def pivot_metrics(metrics: Sequence[Metric] | pd.DataFrame, prefix: str = "") -> pd.DataFrame:
    """Metrics (`prefix` cut off) x models, the mean over seeds; differences are left out."""
    table = metrics_frame(metrics)
    pooled = table[table["fold"].isna()] if table["fold"].isna().any() else table
    is_chosen = pooled["metric"].str.startswith(prefix)
    pooled = pooled[is_chosen & ~pooled["metric"].str.endswith("_difference")]
    rows = pooled["metric"].str.removeprefix(prefix).str.strip("_").replace("", "all")
    wide = pooled.assign(metric=rows).pivot_table(
        index="metric", columns="model", values="value", sort=False
    )
    return wide.rename_axis(index=None, columns=None)


def best_simple_model(scores: pd.DataFrame, metric: str = "level_spearman") -> str:
    """Name the best model that is not one of ours."""
    wide = pivot_metrics(scores).T
    return str(wide.loc[~wide.index.str.startswith("genesplice"), metric].idxmax())


def find_rates(bundle: Bundle, config: Config, *, steps: int) -> Any:
    """Try rising learning rates on the training folds: the curve, and the range it proposes."""
    from genesplice.training.comparisons import range_test
    from genesplice.training.corpus import bundle_source

    settings = config.pretrain
    source = bundle_source(bundle, settings.holdout_fold, settings.validation_blocks)
    return range_test(source, config, steps=steps)


def schedule_curves(config: Config) -> pd.DataFrame:
    """Learning rate at each step of pre-training, for every schedule: the columns of a figure."""
    from genesplice.training.schedules import SCHEDULES, schedule_factors

    total, peak = config.pretrain.steps, config.pretrain.learning_rate
    steps = np.unique(np.linspace(0, total - 1, 300).astype(int))
    curves = pd.DataFrame({name: peak * schedule_factors(name, total) for name in SCHEDULES})
    rates = curves.loc[steps].rename_axis("step").reset_index()
    return rates.melt("step", var_name="schedule", value_name="learning_rate")


def best_trials(compared: Any) -> pd.DataFrame:
    """The best trial of every schedule of a `compare_schedules`, and how many it had."""
    trials = compared.trials
    table = trials[trials["is_best"]].set_index("schedule").drop(columns="is_best")
    return table.assign(trials=trials.groupby("schedule").size())


def scan_explorer(scan: Any, bundle: Bundle, **options: Any) -> Explorer:
    """Explore a promoter scan (`scan_promoter`); `options` are those of `ScanExplorer`."""
    scans = scan.table.assign(gene_id=scan.gene_id, position_bp=scan.table["distance_bp"])
    hexamers = pd.DataFrame(scan.hexamers, columns=list(MotifHit._fields))
    hexamers = hexamers.assign(gene_id=scan.gene_id)
    return ScanExplorer(scans, hexamers, names=bundle.names, **options)


def strongest_changes(scan: Any, *, count: int = 8) -> pd.DataFrame:
    """The substitutions of a promoter scan that the model finds least likely."""
    long = scan.table.melt(
        ["distance_bp", "ref"], [f"to_{base}" for base in "ACGT"], "alt", "log ratio"
    )
    long["alt"] = long["alt"].str.removeprefix("to_")
    return long[long["alt"] != long["ref"]].nsmallest(count, "log ratio").reset_index(drop=True)


def substitutions_around(scan: Any, bundle: Bundle, *, count: int, seed: int = 0) -> pd.DataFrame:
    """Random substitutions of a scanned promoter: contig, position (from 1), ref and alt."""
    from genesplice.variants.scan import Region, random_substitutions

    low = int(scan.table["position"].min()) - 1
    region = Region(scan.table["contig"].iloc[0], low, int(scan.table["position"].max()))
    return random_substitutions(bundle.genome, region, count, seed)


def class_results(records: Sequence[Metric]) -> pd.DataFrame:
    """AUROC records of known classes as a table of one metric, "AUROC", a model a class."""
    table = metrics_frame(records)
    is_counted = table["model"] == "count_two_sided"
    name = table["metric"].str.removeprefix("auroc_") + is_counted.map(
        {True: " (counts)", False: ""}
    )
    return table.assign(model=name, metric="AUROC")


def attribution_shares(table: pd.DataFrame) -> pd.DataFrame:
    """Share of absolute attribution by distance from the TSS (rows) and gene (columns).

    `table` is that of `explain_genes`.
    """
    edges = [-4096, -1024, -512, -256, -128, -64, 0, 64, 256, 1024, 4096]
    interval = pd.cut(table["position_bp"], edges, right=False).rename("interval")
    size = table["value"].abs().groupby([table["gene_id"], interval], observed=True).sum()
    share = size.unstack("gene_id")
    return share / share.sum()


def level_errors(predicted: pd.DataFrame, bundle: Bundle, fold: int) -> pd.DataFrame:
    """Observed and predicted level of every measured gene, its error, and if it is held out."""
    observed = bundle.observed.mean(axis=1)
    level = pd.DataFrame(
        {"observed": observed, "predicted": predicted.mean(axis=1)[observed.index]}
    )
    level["error"] = (level["predicted"] - level["observed"]).abs()
    is_test = level.index.isin(bundle.test_genes(fold))
    return level.assign(genes=np.where(is_test, "held out", "trained on"))


def edge_attributions(
    explainer: Any, genes: Sequence[str], *, condition: str | None = None, count: int = 80
) -> tuple[pd.DataFrame, pd.DataFrame, float]:
    """Nodes and edges that the predictions of genes rest on, and what share is unaccounted for.

    The `count` edges of largest attribution into `genes`, which is their `weight`.
    """
    from genesplice.explain.pathways import explain_edges

    found = explain_edges(explainer, genes, condition=condition)
    edges = found.table[found.table["target"].isin(genes)]
    edges = edges[edges["source"] != edges["target"]].rename(columns={"value": "weight"})
    edges = edges.loc[edges["weight"].abs().nlargest(count).index]
    nodes = pd.DataFrame(index=pd.Index(sorted({*edges["source"], *edges["target"]}), name="id"))
    nodes["name"] = nodes.index.map(explainer.bundle.labels)
    return nodes, edges, found.relative_delta


def describe_rule(config: Config) -> pd.Series:
    """What is agreed on before a context verdict."""
    rule = config.verdict
    words = {
        "context lengths (bp)": ", ".join(f"{length:,}" for length in rule.contexts_bp),
        "smallest effect of interest (per doubling)": rule.smallest_effect,
        "probability of a false yes or no": rule.alpha,
        "folds": "all" if rule.folds is None else ", ".join(map(str, rule.folds)),
        "seeds": ", ".join(map(str, rule.seeds)),
        "other architectures": ", ".join(rule.references) or "none in this preset",
    }
    return pd.Series(words, name="agreed on before")


def decide_again(report: Any, bundle: Bundle, config: Config, smallest_effect: float) -> Any:
    """Apply the rule to the predictions of a `context_test` with another smallest effect."""
    from genesplice.context.conditions import judge_conditions, plan_conditions

    settings = config.verdict
    plan = plan_conditions(config, bundle.genome, settings.contexts_bp, settings.references)
    return judge_conditions(
        report.predictions, bundle, plan, config, smallest_effect=smallest_effect
    )


def context_tables(report: Any, decision: Any = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores by context length, and slopes of the data and of every control, for an explorer.

    `decision` is that of `decide_again`; left out, the verdict's own.
    """
    verdict = report.verdict
    slopes = [slope._asdict() for slope in decision.slopes] if decision else verdict["slopes"]
    answer = decision.answer if decision else verdict["answer"]
    parts = [pd.DataFrame(slopes).assign(source="these data", answer=answer)]
    for one in verdict["controls"]["controls"]:
        about = {"source": f"control: {one['control']}", "answer": one["answer"]}
        parts.append(pd.DataFrame(one["slopes"]).assign(**about))
    lengths = {
        one["name"]: one["context_bp"] for one in verdict["conditions"] if not one["is_reference"]
    }
    metrics = metrics_frame(report.metrics)
    is_chosen = metrics["model"].isin(lengths) & metrics["fold"].isna()
    rows = metrics[is_chosen & metrics["metric"].isin([slope["metric"] for slope in slopes])]
    rows = rows.assign(context_bp=rows["model"].map(lengths))
    grouped = rows.groupby(["metric", "context_bp"])[["value", "ci_low", "ci_high"]]
    return grouped.mean().reset_index(), pd.concat(parts, ignore_index=True)

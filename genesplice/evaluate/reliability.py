"""What predictions and differences can be relied on: by stratum, by interval, by ablation.

Intervals of single predictions are split conformal, scaled by the error that is expected of a gene.
That is learned from n calibration genes, which the model was not fitted to: the logarithm of a
gene's mean |observed - predicted| by its predicted level (and its square) and by how far its
predictions differ between conditions. In each condition the errors of these genes, each over what
the other four fifths of them expect of it, are sorted; the half-width is the
ceil((n + 1) coverage)-th of them times what is expected of the gene. A further gene that could as
well have been a calibration gene then lies inside with about that probability. Genes of one block
resemble each other, and weights and mixes are chosen by the same genes, so the coverage of held-out
genes is measured, not assumed.

Source: Lei et al., Distribution-free predictive inference for regression, 2018, sections 2.2, 5.2.

An ablation is the same model with the ingredient in question destroyed. A hypothesis is as good as
its strongest ablation: where the model does not beat one of them, the ingredient has shown nothing.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import t as student

from genesplice.data.bundle import Bundle
from genesplice.data.leakage import COPY, RELATIVE
from genesplice.data.splits import first_of_operon
from genesplice.errors import require
from genesplice.evaluate.bootstrap import N_BOOTSTRAP, make_draws, ratio_draws, to_metric
from genesplice.evaluate.metrics import fold_profiles, score
from genesplice.results import NOT_RUN, Metric, answer_from_interval, metrics_frame, to_metrics

STRATUM_METRICS = ("level_spearman", "profile_r")
SPLIT = "held_out:"
FEWEST_GENES = 10
"""Fewer say nothing: any two genes have a rank correlation of 1 or -1."""
NOMINAL = 0.9
"""Share of held-out measurements that intervals are made to hold."""
SPREAD_PARTS = 5
"""Of the calibration genes, as they lie on the genome: each is scaled by the others."""
FEWEST_FOR_SPREAD = 50
"""With fewer calibration genes every gene is expected to err alike."""


def gene_strata(bundle: Bundle) -> dict[str, pd.Index]:
    """The measured genes of every stratum, by name; each family of strata holds all of them."""
    genes = bundle.expression.var_names
    nearest = bundle.similarity.set_index("gene_id")["similarity"].reindex(genes).to_numpy()
    has_set = genes.isin([gene for members in bundle.gene_sets.values() for gene in members])
    has_edge = genes.isin(bundle.network[["source", "target"]].to_numpy().ravel())
    first = first_of_operon(bundle.genome, bundle.genes, bundle.splits)
    is_first = genes.isin(first.index[first])
    masks = {
        f"nearest_train_below_{RELATIVE}": nearest < RELATIVE,
        f"nearest_train_{RELATIVE}_to_{COPY}": (nearest >= RELATIVE) & (nearest < COPY),
        f"nearest_train_from_{COPY}": nearest >= COPY,
        "in_gene_set": has_set, "in_no_gene_set": ~has_set,
        "in_network": has_edge, "not_in_network": ~has_edge,
        "operon_first": is_first, "operon_inner": ~is_first,
    }  # fmt: skip
    return {name: genes[mask] for name, mask in masks.items()}


def strata_metrics(
    predictions: pd.DataFrame, strata: Mapping[str, pd.Index], blocks: pd.Series, **about: Any
) -> list[Metric]:
    """`STRATUM_METRICS` of every model and seed on the held-out genes of each stratum.

    Records have the split "held_out:NAME", pool all folds, and count in `n` the genes behind them.
    A stratum with fewer than 10 genes in `predictions`, or whose genes do not define a metric, has
    no record. `blocks` and `about` (`train_profile`, `n_bootstrap`, `seed`) are those of `score`.
    """
    metrics: list[Metric] = []
    for name, genes in strata.items():
        part = predictions[predictions["gene_id"].isin(genes)]
        if part["gene_id"].nunique() < FEWEST_GENES:
            continue
        scored = score(part, blocks, by_fold=False, split=SPLIT + name, **about)
        metrics += [metric for metric in scored if metric.metric in STRATUM_METRICS]
    return metrics


def conformal_width(errors: Float[np.ndarray, " genes"], coverage: float = NOMINAL) -> float:
    """The half-width that the absolute `errors` of calibration genes give.

    NaN where they are too few to promise anything: 8 or less at a coverage of 0.9.
    """
    rank = math.ceil((len(errors) + 1) * coverage - 1e-9)
    return float(np.partition(errors, rank - 1)[rank - 1]) if rank <= len(errors) else math.nan


def expected_errors(
    genes: pd.DataFrame, known: pd.DataFrame
) -> tuple[Float[np.ndarray, " genes"], Float[np.ndarray, " known"]]:
    """The error expected of each gene, and of each `known` one by the others, log2(TPM + 1).

    Columns are `level` and `varies`, mean and standard deviation of a gene's predictions, and of
    `known` their mean absolute `error` too.
    """
    count = len(known)
    if count < FEWEST_FOR_SPREAD:
        return np.ones(len(genes)), np.ones(count)
    one, other = (
        np.stack([np.ones(len(t)), t["level"], t["level"] ** 2, t["varies"].fillna(0)], axis=1)
        for t in (known, genes)
    )
    part = np.arange(count) * SPREAD_PARTS // count
    errors = np.log(np.maximum(known["error"], 1e-3)).to_numpy()
    fits = [
        np.linalg.lstsq(one[part != k], errors[part != k], rcond=None)[0]
        for k in range(SPREAD_PARTS + 1)
    ]
    own = np.concatenate([one[part == k] @ fits[k] for k in range(SPREAD_PARTS)])
    # A gene beyond all calibration genes is expected to err as those at the border.
    return np.exp(np.clip(other, one.min(0), one.max(0)) @ fits[-1]), np.exp(own)


def add_intervals(predictions: pd.DataFrame, calibration: pd.DataFrame) -> pd.DataFrame:
    """Return `predictions` with the columns `low` and `high`, log2(TPM + 1).

    Each model, seed and held-out fold is calibrated by its own rows of `calibration`, condition by
    condition; without such rows `low` and `high` are NaN. A mean over seeds is a model of its own,
    calibrated by the mean of what the same seeds predict for the calibration genes.

    Parameters
    ----------
    predictions, calibration
        Tables as in `predictions.parquet`. The `fold` of a calibration gene is the held-out fold
        of the model that predicts it, which is not the gene's own.
    """
    keys, width = ["model", "seed", "fold"], pd.Series(np.nan, index=predictions.index)
    calibration = calibration[calibration["observed"].notna()]
    learned = dict(list(calibration.groupby(keys, observed=True)))
    for key, rows in predictions.groupby(keys, observed=True):
        own = learned.get(key, calibration.iloc[:0])
        error = (own["observed"] - own["predicted"]).abs().astype(np.float64)
        own, about = own.assign(error=error), {"level": ("predicted", "mean")}
        about |= {"varies": ("predicted", "std"), "error": ("predicted", "size")}
        genes = rows.groupby("gene_id", sort=False, observed=True).agg(**about)
        known = own.groupby("gene_id", sort=False, observed=True)
        known = known.agg(**about | {"error": ("error", "mean")})
        expected, by_others = expected_errors(genes, known)
        scaled = error / by_others[known.index.get_indexer(own["gene_id"])]
        halves = {
            name: conformal_width(part.to_numpy())
            for name, part in scaled.groupby(own["condition"], observed=True)
        }
        factor = expected[genes.index.get_indexer(rows["gene_id"])]
        width[rows.index] = rows["condition"].map(halves).astype(np.float64) * factor
    middle = predictions["predicted"].astype(np.float64)
    return predictions.assign(
        low=(middle - width).astype(np.float32), high=(middle + width).astype(np.float32)
    )


def coverage_metrics(
    predictions: pd.DataFrame, blocks: pd.Series, *, seed: int = 0
) -> list[Metric]:
    """How many held-out measurements lie inside their interval, by model, seed and fold.

    `interval_coverage` is the share of measurements (one a gene and condition) with
    low <= observed <= high, `interval_width` the mean of high - low in log2(TPM + 1), and
    `interval_nominal` what the coverage should be. The 95 % intervals resample genome blocks; `n`
    counts genes; `fold` None pools all folds. Models without intervals are left out.

    Parameters
    ----------
    blocks
        Genome block by gene_id.
    """
    table = predictions[predictions["low"].notna() & predictions["observed"].notna()]
    inside = table["observed"].between(table["low"], table["high"]).astype(float)
    width = (table["high"] - table["low"]).astype(float)
    table = table.assign(inside=inside, width=width, entries=1.0)
    metrics = []
    for (model, run_seed), run in table.groupby(["model", "seed"], observed=True):
        genes = run.groupby(["fold", "gene_id"], observed=True)[["inside", "width", "entries"]]
        sums = genes.sum().reset_index()
        for fold in (None, *sorted(sums["fold"].unique().tolist())):
            part = sums if fold is None else sums[sums["fold"] == fold]
            names, block = np.unique(part["gene_id"].map(blocks), return_inverse=True)
            values, entries = part[["inside", "width"]].to_numpy(), part[["entries"] * 2].to_numpy()
            draws = make_draws(len(names), N_BOOTSTRAP, seed)
            coverage, width = ratio_draws(values, entries, block, draws).T
            about: dict[str, Any] = {"model": str(model), "fold": fold, "seed": int(run_seed)}
            about |= {"n_blocks": len(names), "n": len(part)}
            nominal = np.array([NOMINAL])
            metrics += [
                to_metric("interval_coverage", coverage, limits=(0.0, 1.0), **about),
                to_metric("interval_width", width, limits=(0.0, np.inf), **about),
                to_metric("interval_nominal", nominal, **about),
            ]
    return metrics


def strata_table(
    predictions: pd.DataFrame, bundle: Bundle, model: str, other: str, *, seed: int = 0
) -> tuple[list[Metric], pd.DataFrame]:
    """Scores of two models on parts of the held-out genes: the records, and a table.

    A row for every metric and stratum: the number of genes, the model's value with its interval
    (of its first seed), the other's, and the difference.
    """
    both = predictions[predictions["model"].isin([model, other])]
    profile = fold_profiles(bundle.observed, bundle.fold_of)
    records = strata_metrics(
        both, gene_strata(bundle), bundle.block_of, train_profile=profile, seed=seed
    )
    table = metrics_frame(records)
    table["stratum"] = table["split"].str.removeprefix(SPLIT)
    keys = ["metric", "stratum", "n"]
    table = table.drop_duplicates(["model", *keys]).set_index(keys)
    mine, theirs = (table[table["model"] == name] for name in (model, other))
    mine = mine[["value", "ci_low", "ci_high"]].assign(other=theirs["value"])
    return records, mine.assign(gain=mine["value"] - mine["other"])


# --- hypotheses and their ablation controls ---

ABLATION_COLUMNS = (
    "hypothesis", "metric", "model", "ablation", "effect", "ci_low", "ci_high", "n_runs", "seeds",
    "cpu_seconds", "answer",
)  # fmt: skip
COST = "cpu_seconds"
ENOUGH_RUNS, ENOUGH_SEEDS = 3, 2
CONTEXT = "context", ("level_r2", "profile_r")
SHORTER = "the same network with a shorter context"


HYPOTHESES = {
    "longer context": (),
    "hierarchical attention": ("local_only", "permuted_regions"),
    "adaptive schedule": ("constant_rate",),
    "graph attention": ("rewired", "no_network"),
    "pre-training": ("random_encoder", "shuffled_pretraining"),
    "pathway knowledge": ("random_sets", "no_sets"),
    "related genomes": ("exchanged_relatives", "no_relatives"),
}
"""The question itself and the six ingredients, and the ablations of each.

Without ablations the effect is per doubling of context, from records `<metric>_per_doubling`.
"""


def ablation_table(
    metrics: Iterable[Metric] | pd.DataFrame,
    *,
    smallest_effect: float = 0.01,
    context_answer: str | None = None,
) -> pd.DataFrame:
    """One row for each hypothesis, ablation and metric (columns `ABLATION_COLUMNS`).

    The effect is model less ablation: a record `<metric>_difference` of "MODEL - ABLATION" where
    there is one (`evaluate.metrics.paired_difference`), else the mean over the folds and seeds
    that both have. Its 95 % interval is the wider one, at either end, of that record (which genes
    were held out) and of Student's t over runs (how training went; of three runs or more). The
    answer is that of `answer_from_interval`, "cannot tell" with fewer than two seeds and
    three runs, and "not run" where model or ablation has no records. `cpu_seconds` is what the
    runs of model and ablation together took to train, from records of that name, and None where
    one of them lacks them.

    Parameters
    ----------
    metrics
        Records as in metrics.json, or a table of them.
    context_answer
        What the context verdict said at last: where it took a *no* back, so does the row.

    Raises
    ------
    InputError
        If `smallest_effect` is not above 0.
    """
    require(smallest_effect > 0, f"smallest_effect {smallest_effect:g}", "above 0")
    if isinstance(metrics, pd.DataFrame):
        metrics = to_metrics(metrics)
    records, rows = list(metrics), []
    for hypothesis, ablations in HYPOTHESES.items():
        model, of_metrics = ("genesplice", STRATUM_METRICS) if ablations else CONTEXT
        names = [f"{model}_{one}" for one in ablations] or [SHORTER]
        for ablation, name in product(names, of_metrics):
            if ablations:
                effect = _difference(records, model, ablation, name)
                is_open = effect.n_seeds < ENOUGH_SEEDS and effect.n_runs < ENOUGH_RUNS
                cost = _cost(records, model, ablation)
            else:
                effect, cost = _slope(records, model, name), _cost(records, model)
                is_open = context_answer == "cannot tell"
            answer: str = answer_from_interval(effect.low, effect.high, smallest_effect)
            if is_open and (ablations or answer == "no"):
                answer = "cannot tell"
            if effect.value is None:
                answer, cost = NOT_RUN, None
            rows.append((hypothesis, name, model, ablation, *effect, cost, answer))
    return pd.DataFrame(rows, columns=list(ABLATION_COLUMNS))


class _Effect(NamedTuple):
    """A difference with its interval, and the runs and seeds behind it."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n_runs: int = 0
    n_seeds: int = 0


def _difference(records: Sequence[Metric], model: str, ablation: str, name: str) -> _Effect:
    runs = {
        which: {(m.fold, m.seed): m.value for m in records if (m.metric, m.model) == (name, which)}
        for which in (model, ablation)
    }
    common = sorted(set(runs[model]) & set(runs[ablation]), key=str)
    # Folds one by one where they are there; pooled values would count them twice.
    by_fold = [key for key in common if key[0] is not None] or common
    change = np.array([runs[model][key] - runs[ablation][key] for key in by_fold])
    of_pair = f"{name}_difference", f"{model} - {ablation}", None
    paired = [m for m in records if (m.metric, m.model, m.fold) == of_pair]
    if not paired and not by_fold:
        return _Effect()
    value = paired[-1].value if paired else float(change.mean())
    ends = [end for end in paired[-1][2:4] if end is not None] if paired else []
    if len(change) >= (ENOUGH_RUNS if paired else 2):
        half = student.ppf(0.975, len(change) - 1) * change.std(ddof=1) / np.sqrt(len(change))
        ends += [float(value - half), float(value + half)]
    low, high = (min(ends), max(ends)) if ends else (None, None)
    return _Effect(value, low, high, len(by_fold), len({seed for _, seed in by_fold}))


def _slope(records: Sequence[Metric], model: str, name: str) -> _Effect:
    """Change per doubling of context, and the runs of all context conditions."""
    slopes = [m for m in records if (m.metric, m.model) == (f"{name}_per_doubling", model)]
    if not slopes:
        return _Effect()
    runs = {
        (m.model, m.fold, m.seed)
        for m in records
        if m.metric == name and m.model.startswith("context_") and m.fold is not None
    }
    return _Effect(*slopes[-1][1:4], len(runs), len({seed for _, _, seed in runs}))


def _cost(records: Sequence[Metric], *models: str) -> float | None:
    spent = [[m.value for m in records if (m.metric, m.model) == (COST, one)] for one in models]
    return sum(map(sum, spent)) if all(spent) else None


CLAIMS = {"yes": "helps", "no": "does not help", "not run": "not measured"}


def claim_records(
    metrics: list[dict[str, Any]], verdict: dict[str, Any], command: str | list[str]
) -> list[dict[str, Any]]:
    """The table of hypotheses (`ablation_table`) as records, with the command behind each.

    The smallest effect of interest and the answer about context are the verdict's, where there is
    one. `answer` is helps, hurts (below 0, and it may matter), does not help (a gain that matters
    is ruled out), cannot tell or not measured.
    """
    matters = verdict.get("rule", {}).get("smallest_effect", 0.01)
    table = ablation_table(
        [Metric(*(row[name] for name in Metric._fields)) for row in metrics],
        context_answer=verdict.get("answer"),
        smallest_effect=matters,
    ).rename(columns={"effect": "value", "ablation": "control"})
    records: list[dict[str, Any]] = json.loads(table.to_json(orient="records"))
    for row in records:
        row["answer"] = CLAIMS.get(row["answer"], row["answer"])
        if row["answer"] == "does not help" and row["ci_high"] < 0 and row["ci_low"] <= -matters:
            row["answer"] = "hurts"
        row["command"] = None if row["value"] is None else command
    return records

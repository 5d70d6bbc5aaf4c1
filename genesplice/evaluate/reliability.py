"""Where predictions can be relied on: by stratum of held-out genes, and how sure each one is.

Intervals of single predictions are split conformal. In each condition the errors
|observed - predicted| of n calibration genes, which were not learned from, are sorted; the
half-width is the ceil((n + 1) coverage)-th of them. A further gene that could as well have been a
calibration gene then lies inside with at least that probability. Genes of one block resemble each
other, and weights and mixes are chosen by the same genes, so the coverage of held-out genes is
measured, not assumed.

Source: Lei et al., Distribution-free predictive inference for regression, 2018, section 2.2.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from genesplice.data.bundle import Bundle
from genesplice.data.leakage import COPY, RELATIVE
from genesplice.data.splits import first_of_operon
from genesplice.evaluate.bootstrap import N_BOOTSTRAP, make_draws, ratio_draws, to_metric
from genesplice.evaluate.metrics import fold_profiles, score
from genesplice.results import Metric

STRATUM_METRICS = ("level_spearman", "profile_r")
SPLIT = "held_out:"
FEWEST_GENES = 10
"""Fewer say nothing: any two genes have a rank correlation of 1 or -1."""
NOMINAL = 0.9
"""Share of held-out measurements that intervals are made to hold."""
INTERVAL_COLUMNS = ("low", "high")


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
        "in_gene_set": has_set,
        "in_no_gene_set": ~has_set,
        "in_network": has_edge,
        "not_in_network": ~has_edge,
        "operon_first": is_first,
        "operon_inner": ~is_first,
    }
    return {name: genes[mask] for name, mask in masks.items()}


def strata_metrics(
    predictions: pd.DataFrame,
    strata: Mapping[str, pd.Index],
    blocks: pd.Series,
    *,
    train_profile: pd.DataFrame,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> list[Metric]:
    """`STRATUM_METRICS` of every model and seed on the held-out genes of each stratum.

    Records have the split "held_out:NAME", pool all folds, and count in `n` the genes behind them.
    A stratum with fewer than 10 genes in `predictions`, or whose genes do not define a metric, has
    no record. `blocks` and `train_profile` are those of `score`.
    """
    metrics: list[Metric] = []
    for name, genes in strata.items():
        part = predictions[predictions["gene_id"].isin(genes)]
        if part["gene_id"].nunique() < FEWEST_GENES:
            continue
        scored = score(
            part, blocks, train_profile=train_profile, n_bootstrap=n_bootstrap, seed=seed,
            by_fold=False, split=SPLIT + name,
        )  # fmt: skip
        metrics += [metric for metric in scored if metric.metric in STRATUM_METRICS]
    return metrics


def conformal_width(errors: Float[np.ndarray, " genes"], coverage: float = NOMINAL) -> float:
    """The half-width that the absolute `errors` of calibration genes give.

    NaN where they are too few to promise anything: 8 or less at a coverage of 0.9.
    """
    rank = math.ceil((len(errors) + 1) * coverage - 1e-9)
    return float(np.partition(errors, rank - 1)[rank - 1]) if rank <= len(errors) else math.nan


def add_intervals(
    predictions: pd.DataFrame, calibration: pd.DataFrame, coverage: float = NOMINAL
) -> pd.DataFrame:
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
    keys = ["model", "seed", "fold", "condition"]
    errors = (calibration["observed"] - calibration["predicted"]).abs().astype(np.float64)
    grouped = errors.groupby([calibration[key] for key in keys], observed=True)
    widths = {key: conformal_width(part.to_numpy(), coverage) for key, part in grouped}
    width = np.full(len(predictions), np.nan)
    if widths:
        rows = pd.MultiIndex.from_frame(predictions[keys])
        width = pd.Series(widths).reindex(rows).to_numpy(np.float64)
    middle = predictions["predicted"].to_numpy(np.float64)
    return predictions.assign(
        low=(middle - width).astype(np.float32), high=(middle + width).astype(np.float32)
    )


def coverage_metrics(
    predictions: pd.DataFrame,
    blocks: pd.Series,
    *,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
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
    table = predictions[predictions["low"].notna()]
    table = table.assign(
        inside=table["observed"].between(table["low"], table["high"]).astype(float),
        width=(table["high"] - table["low"]).astype(float),
        entries=1.0,
    )
    metrics = []
    for (model, run_seed), run in table.groupby(["model", "seed"], observed=True):
        genes = run.groupby(["fold", "gene_id"], observed=True)[["inside", "width", "entries"]]
        sums = genes.sum().reset_index()
        for fold in (None, *sorted(sums["fold"].unique().tolist())):
            part = sums if fold is None else sums[sums["fold"] == fold]
            names, block = np.unique(part["gene_id"].map(blocks), return_inverse=True)
            values, entries = part[["inside", "width"]].to_numpy(), part[["entries"] * 2].to_numpy()
            draws = make_draws(len(names), n_bootstrap, seed)
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
    table = pd.DataFrame(records, columns=list(Metric._fields))
    table["stratum"] = table["split"].str.removeprefix(SPLIT)
    keys = ["metric", "stratum", "n"]
    table = table.drop_duplicates(["model", *keys]).set_index(keys)
    mine, theirs = (table[table["model"] == name] for name in (model, other))
    mine = mine[["value", "ci_low", "ci_high"]].assign(other=theirs["value"])
    return records, mine.assign(gain=mine["value"] - mine["other"])

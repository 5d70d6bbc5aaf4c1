"""Intervals of single predictions, calibrated on genes that were not learned from.

Split conformal: in each condition the errors |observed - predicted| of n calibration genes are
sorted; the half-width is the ceil((n + 1) coverage)-th of them. A further gene that could as well
have been a calibration gene then lies inside with at least that probability. Genes of one block
resemble each other, and weights and mixes are chosen by the same genes, so the coverage of held-out
genes is measured, not assumed.

Source: Lei et al., Distribution-free predictive inference for regression, 2018, section 2.2.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from genesplice.evaluate.bootstrap import N_BOOTSTRAP, make_draws, ratio_draws, to_metric
from genesplice.results import Metric

NOMINAL = 0.9
"""Share of held-out measurements that intervals are made to hold."""
INTERVAL_COLUMNS = ("low", "high")
RUN = ["model", "seed", "fold"]


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
    calibrated by the mean of what the same seeds say of the calibration genes.

    Parameters
    ----------
    predictions, calibration
        Tables as in `predictions.parquet`. The `fold` of a calibration gene is the held-out fold
        of the model that predicts it, which is not the gene's own.
    """
    keys = [*RUN, "condition"]
    errors = (calibration["observed"] - calibration["predicted"]).abs()
    grouped = errors.groupby([calibration[key] for key in keys], observed=True)
    found = {key: conformal_width(part.to_numpy(np.float64), coverage) for key, part in grouped}
    rows = pd.MultiIndex.from_frame(predictions[keys])
    width = np.full(len(rows), np.nan)
    if found:
        width = pd.Series(found).reindex(rows).to_numpy(np.float64)
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
    has_interval = predictions["low"].notna()
    metrics = []
    for (model, run_seed), run in predictions[has_interval].groupby(
        ["model", "seed"], observed=True
    ):
        told = run.assign(
            inside=run["observed"].between(run["low"], run["high"]).astype(float),
            width=(run["high"] - run["low"]).astype(float),
            entries=1.0,
        )
        genes = told.groupby(["fold", "gene_id"], observed=True)[["inside", "width", "entries"]]
        sums = genes.sum().reset_index()
        folds: list[int | None] = [None, *sorted(sums["fold"].unique().tolist())]
        for fold in folds:
            part = sums if fold is None else sums[sums["fold"] == fold]
            block, number = np.unique(part["gene_id"].map(blocks), return_inverse=True)
            draws = make_draws(len(block), n_bootstrap, seed)
            found = ratio_draws(
                part[["inside", "width"]].to_numpy(),
                part[["entries", "entries"]].to_numpy(),
                number,
                draws,
            )
            about: dict[str, Any] = {"model": str(model), "fold": fold, "seed": int(run_seed)}
            about["n_blocks"] = len(block)
            most = {"coverage": 1.0, "width": np.inf}
            for name, values in zip(most, found.T, strict=True):
                limits = 0.0, most[name]
                metrics.append(
                    to_metric(f"interval_{name}", values, len(part), limits=limits, **about)
                )
            nominal = "interval_nominal", NOMINAL, None, None, len(part), str(model), "test"
            metrics.append(Metric(*nominal, fold, int(run_seed)))
    return metrics

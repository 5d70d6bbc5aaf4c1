"""Ratios of sums over whole resamples of blocks, and the records that are made of them.

Shares, means and recalls are ratios of two sums over units (bases, sites, genes). A resample gives
every block a count, so that both sums become sums over blocks. Two calls with as many blocks and
the same seed draw the same resamples: what they give may be subtracted draw by draw.
"""

import numpy as np
from jaxtyping import Float, Int64

from genesplice.evaluate.bootstrap import interval, make_block_counts
from genesplice.results import Metric

__all__ = ["N_BOOTSTRAP", "make_draws", "ratio_draws", "to_metric"]

N_BOOTSTRAP = 1000
"""Resamples behind an interval unless told otherwise."""


def make_draws(n_blocks: int, n_bootstrap: int, seed: int) -> Int64[np.ndarray, "draws blocks"]:
    """How often each block counts: row 0 once each (the value itself), the others resampled.

    With fewer than two blocks, or no resamples asked for, there is row 0 only: no interval.
    """
    once = np.ones((1, n_blocks), np.int64)
    if n_blocks < 2 or n_bootstrap < 1:
        return once
    return np.concatenate([once, make_block_counts(n_blocks, n_bootstrap, seed)])


def ratio_draws(
    numerator: Float[np.ndarray, "units ratios"],
    denominator: Float[np.ndarray, "units ratios"],
    block: Int64[np.ndarray, " units"],
    draws: Int64[np.ndarray, "draws blocks"],
) -> Float[np.ndarray, "draws ratios"]:
    """Sum of `numerator` over sum of `denominator` in each draw; NaN where the latter is 0.

    Parameters
    ----------
    block
        Column of `draws` that each unit belongs to.
    """
    sums = []
    for values in (numerator, denominator):
        by_block = np.zeros((draws.shape[1], values.shape[1]))
        np.add.at(by_block, block, values)
        sums.append(draws @ by_block)
    above, below = sums
    return np.where(below == 0, np.nan, above / np.where(below == 0, 1, below))


def to_metric(
    metric: str,
    values: Float[np.ndarray, " draws"],
    n: int,
    *,
    n_blocks: int,
    model: str,
    split: str = "test",
    fold: int | None = None,
    seed: int | None = None,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> Metric:
    """Value in row 0, and the interval of the other draws (see `evaluate.bootstrap.interval`)."""
    low, high = interval(values, n_blocks, limits)
    return Metric(metric, float(values[0]), low, high, n, model, split, fold, seed)

"""95 % intervals from resampled blocks: of ratios of sums, of any measure, of the gene metrics.

Genes of one genome block are not independent, so whole blocks are resampled. Shares, means and
recalls are ratios of two sums over units (bases, sites, genes); a resample gives every block a
count, so that both become sums over blocks. Two calls with as many blocks and the same seed draw
the same resamples: what they give may be subtracted draw by draw.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int64, Shaped
from scipy.stats import norm, spearmanr
from scipy.stats import t as student

from genesplice.errors import InputError
from genesplice.results import Metric

N_BOOTSTRAP = 1000
"""Resamples behind an interval unless another number is given."""
FLAT = 1e-4
"""log2(TPM+1): values with a smaller standard deviation have no profile (or no r2)."""
CHUNK = 250
"""Draws whose ranks are in memory together."""
MOST_UNITS = 2000
"""Clusters of sequences are joined to so many units of resampling at most."""
FREE = (-np.inf, np.inf)
"""Limits of what can be any number."""
Draws = Float[np.ndarray, " draws"]
Units = Float[np.ndarray, " units"]
Blocks = Int64[np.ndarray, " units"]
"""The column of `Counts` that each unit belongs to."""
Counts = Int64[np.ndarray, "draws blocks"]
"""How often each block counts in each draw."""


def make_draws(n_blocks: int, n_bootstrap: int, seed: int) -> Counts:
    """How often each block counts: row 0 once each (the value itself), the others resampled.

    With fewer than two blocks, or no resamples asked for, there is row 0 only: no interval.
    """
    once = np.ones((1, n_blocks), np.int64)
    if n_blocks < 2 or n_bootstrap < 1:
        return once
    chance = np.full(n_blocks, 1 / n_blocks)
    drawn = np.random.default_rng(seed).multinomial(n_blocks, chance, size=n_bootstrap)
    return np.concatenate([once, drawn])


def block_labels(genes: pd.Index, blocks: pd.Series) -> np.ndarray:
    """Genome block of each gene.

    Raises
    ------
    InputError
        If a gene has none.
    """
    label = blocks.reindex(genes)
    if label.isna().any():
        raise InputError(f"gene {genes[label.isna().to_numpy()][0]!r} without a block", "a block")
    return label.to_numpy()


def block_sums(
    values: Float[np.ndarray, "units sums"],
    block: Blocks,
    draws: Shaped[np.ndarray, "draws blocks"],
) -> Float[np.ndarray, "draws sums"]:
    """Sums over the units of each draw."""
    sums = np.zeros((draws.shape[1], values.shape[1]))
    np.add.at(sums, block, values)
    return draws @ sums


def ratio_draws(
    numerator: Float[np.ndarray, "units ratios"],
    denominator: Float[np.ndarray, "units ratios"],
    block: Blocks,
    draws: Counts,
) -> Float[np.ndarray, "draws ratios"]:
    """Sum of `numerator` over sum of `denominator` in each draw; NaN where the latter is 0."""
    above, below = (block_sums(values, block, draws) for values in (numerator, denominator))
    return np.where(below == 0, np.nan, above / np.where(below == 0, 1, below))


def interval(
    values: Draws, n_blocks: int, limits: tuple[float, float] = FREE
) -> tuple[float | None, float | None]:
    """95 % interval from a value (first) and what it is in resamples of `n_blocks` blocks.

    The 2.5 % and 97.5 % quantiles, each moved away from the value: resamples of B blocks have
    (B - 1) / B of the variance, and so few blocks ask for Student's t. Without it the intervals
    of nine blocks hold 90 % (a mean of normal blocks). Draws that are NaN are left out; None where
    there are no others. `limits` are the least and the most that the value can be.

    Source: Hesterberg, What teachers should know about the bootstrap, 2015, section 5.4
    (expanded percentile interval).
    """
    drawn = values[1:][np.isfinite(values[1:])]
    if not len(drawn) or n_blocks < 2:
        return None, None
    wider = student.ppf(0.975, n_blocks - 1) / norm.ppf(0.975)
    wider *= np.sqrt(n_blocks / (n_blocks - 1))
    low, high = np.quantile(drawn, [0.025, 0.975])
    ends = values[0] + wider * (np.array([low, high]) - values[0])
    low, high = ends.clip(*limits).tolist()
    return low, high


def resampled(
    measure: Callable[[Int64[np.ndarray, " _"]], float],
    unit: Shaped[np.ndarray, " rows"],
    *,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
    limits: tuple[float, float] = FREE,
) -> tuple[float, float | None, float | None]:
    """`measure` of all rows, and its 95 % interval over resamples of whole units.

    For what is no ratio of sums; each resample calls `measure` with its rows.

    Parameters
    ----------
    measure
        From the indices of rows to a number.
    unit
        What rows stand and fall together: a gene, or the row itself.
    """
    _, number = np.unique(unit, return_inverse=True)
    order = np.argsort(number, kind="stable")
    rows_of = np.split(order, np.cumsum(np.bincount(number))[:-1])
    n_units, value = len(rows_of), measure(np.arange(len(unit)))
    if n_units < 2:
        return value, None, None
    generator = np.random.default_rng(seed)
    picks = (generator.integers(0, n_units, n_units) for _ in range(n_bootstrap))
    drawn = [measure(np.concatenate([rows_of[i] for i in picked])) for picked in picks]
    return value, *interval(np.array([value, *drawn]), n_units, limits)


def to_metric(
    metric: str,
    values: Draws,
    n: int,
    *,
    n_blocks: int,
    model: str,
    split: str = "test",
    limits: tuple[float, float] = FREE,
    **run: int | None,
) -> Metric:
    """Value in row 0, and the interval of the other draws (see `evaluate.bootstrap.interval`).

    `run` is `fold` and `seed`, where there are any.
    """
    low, high = interval(values, n_blocks, limits)
    return Metric(metric, float(values[0]), low, high, n, model, split, **run)


def rank_agreement(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> float:
    """Spearman's correlation; 0 where either is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one, other).statistic)


def pearson_draws(x: Units, y: Units, block: Blocks, draws: Counts) -> Draws:
    """Pearson's r of each draw: 0 where x is flat, NaN where y is."""
    x, y = x - x.mean(), y - y.mean()
    sums = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1).astype(np.float64)
    return _correlation(*block_sums(sums, block, draws).T)


def ranking_draws(
    is_case: Bool[np.ndarray, " units"], score: Units, block: Blocks, draws: Counts
) -> tuple[Draws, Draws]:
    """AUROC and AUPRC (average precision) of each draw; NaN without cases or without others.

    Units of one score share one rank.
    """
    order = np.argsort(-score, kind="stable")
    ordered, case = score[order], is_case[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    parts = []
    for start in range(0, len(draws), CHUNK // 5):
        weight = draws[start : start + CHUNK // 5][:, block[order]].astype(np.float64)
        hits, misses = (np.add.reduceat(weight * one, first, axis=1) for one in (case, ~case))
        above, false = hits.cumsum(1), misses.cumsum(1)
        n_cases, n_others = above[:, -1], false[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = (hits * (n_others[:, None] - false + misses / 2)).sum(1) / n_cases / n_others
            precision = np.nan_to_num(above / (above + false))
            parts.append((auroc, (hits * precision).sum(1) / np.where(n_others, n_cases, np.nan)))
    auroc, auprc = (np.concatenate(part) for part in zip(*parts, strict=True))
    return auroc, auprc


class GeneStatistics(NamedTuple):
    """What the metrics need of each gene.

    Conditions in which the gene was not measured count nowhere. `profile_r` is NaN where the
    observed residual is flat; `moments` holds the number of conditions and the sums over them of
    x, y, x², y², xy, with x the predicted and y the observed residual. Both have no meaning with a
    single condition (`n_conditions` 1).
    """

    observed_level: Float[np.ndarray, " genes"]
    predicted_level: Float[np.ndarray, " genes"]
    profile_r: Float[np.ndarray, " genes"]
    moments: Float[np.ndarray, "genes 6"]
    block: Int64[np.ndarray, " genes"]
    n_conditions: int


def summarise(
    observed: Float[np.ndarray, "genes conditions"],
    predicted: Float[np.ndarray, "genes conditions"],
    condition_mean: Float[np.ndarray, "genes conditions"],
    block: Shaped[np.ndarray, " genes"],
) -> GeneStatistics:
    """Split both tables into level and residual and sum up each gene.

    Parameters
    ----------
    observed
        NaN where a gene was not measured; each gene was somewhere.
    condition_mean
        For each gene the training genes' mean of (observed - level), of the gene's own fold.
    block
        Any labels; they are numbered in sorted order.
    """
    known: dict[str, Any] = {"axis": 1, "where": np.isfinite(observed)}
    y_level, x_level = observed.mean(**known), predicted.mean(**known)
    # The level is that of the measured conditions: theirs is the mean that m has left.
    gap = condition_mean.mean(**known) - condition_mean.mean(axis=1)
    y = observed - (y_level - gap)[:, None] - condition_mean
    x = predicted - (x_level - gap)[:, None] - condition_mean
    products = np.ones_like(x), x, y, x * x, y * y, x * y
    moments = np.stack([product.sum(**known) for product in products], axis=1)
    x_centred, y_centred = (each - each.mean(**known, keepdims=True) for each in (x, y))
    x_std, y_std = x_centred.std(**known), y_centred.std(**known)
    norm = np.where((x_std < FLAT) | (y_std < FLAT), 1, x_std * y_std)
    profile_r = np.where(x_std < FLAT, 0.0, (x_centred * y_centred).mean(**known) / norm)
    profile_r = np.where(y_std < FLAT, np.nan, profile_r)
    _, number = np.unique(block, return_inverse=True)
    return GeneStatistics(
        y_level, x_level, profile_r, moments, number.astype(np.int64), observed.shape[1]
    )


def resampled_metrics(genes: GeneStatistics, counts: Counts) -> Mapping[str, Draws]:
    """Give every metric for every row of `counts`; all ones gives the value itself.

    A metric that a draw does not define (observed levels all the same, no gene with a profile)
    is NaN there. Without two conditions there are no profile metrics.
    """
    draws = counts.astype(np.float64)
    # Levels are centred first: a variance from raw second moments would lose digits.
    y = genes.observed_level - genes.observed_level.mean()
    error = genes.observed_level - genes.predicted_level
    sums = np.stack([np.ones_like(y), y, y * y, error**2], axis=1)
    n, sum_y, sum_yy, sse = block_sums(sums, genes.block, draws).T
    sst = sum_yy - sum_y**2 / np.maximum(n, 1)
    is_defined = sst > n * FLAT**2
    result = {
        "level_spearman": _rank_correlation(genes, draws),
        "level_r2": np.where(is_defined, 1 - sse / np.where(is_defined, sst, 1), np.nan),
    }
    if genes.n_conditions > 1:
        has_profile = np.isfinite(genes.profile_r)[:, None].astype(float)
        r = np.nan_to_num(genes.profile_r)[:, None]
        result["profile_r"] = ratio_draws(r, has_profile, genes.block, counts)[:, 0]
        moments = block_sums(genes.moments, genes.block, draws).T
        result["profile_r_overall"] = _correlation(*moments)
    return result


def _correlation(
    n: np.ndarray, x: np.ndarray, y: np.ndarray, xx: np.ndarray, yy: np.ndarray, xy: np.ndarray
) -> np.ndarray:
    """Pearson r from sums: 0 where x is flat, NaN where y is."""
    n = np.maximum(n, 1)
    var_x, var_y = xx / n - (x / n) ** 2, yy / n - (y / n) ** 2
    is_flat_x, is_flat_y = var_x < FLAT**2, var_y < FLAT**2
    norm = np.sqrt(np.where(is_flat_x | is_flat_y, 1, var_x * var_y))
    r = np.where(is_flat_x, 0.0, (xy / n - x * y / n**2) / norm)
    return np.where(is_flat_y, np.nan, r)


def task_draws(
    observed: Float[np.ndarray, "rows targets"],
    predicted: Float[np.ndarray, "rows targets"],
    block: Int64[np.ndarray, " rows"],
    draws: Counts,
) -> dict[str, Draws]:
    """Metrics of one value a row, or of classes (1 or 0 for each, and their scores), in each draw.

    Values: `spearman`, `pearson`, `r2`. Classes: `auroc` (each against all others, the mean over
    those that are there), `accuracy` and `mcc`, Matthews' correlation, of the class of the highest
    score. A metric that a draw does not define is NaN there.

    Source: Gorodkin, Comparing two K-category assignments by a K-category correlation, 2004.
    """
    n_classes = observed.shape[1]
    if n_classes == 1:
        scale = observed.std() or 1.0
        truth, guess = ((each - observed.mean()) / scale for each in (observed, predicted))
        found = resampled_metrics(summarise(truth, guess, np.zeros_like(truth), block), draws)
        pearson = pearson_draws(guess[:, 0], truth[:, 0], block, draws)
        return {"spearman": found["level_spearman"], "pearson": pearson, "r2": found["level_r2"]}
    chosen = np.eye(n_classes)[predicted.argmax(1)]
    is_right = (chosen * observed).sum(1, keepdims=True)
    sums = block_sums(np.concatenate([is_right, chosen, observed], 1), block, draws)
    right, (guess, truth) = sums[:, 0], np.split(sums[:, 1:], 2, axis=1)
    n = truth.sum(1)
    spread = [n * n - (each * each).sum(1) for each in (guess, truth)]
    is_defined = spread[1] > 0
    norm = np.sqrt(np.where(spread[0] * spread[1] > 0, spread[0] * spread[1], np.inf))
    mcc = np.where(is_defined, (right * n - (guess * truth).sum(1)) / norm, np.nan)
    there = np.flatnonzero((observed.sum(0) > 0) & (observed.sum(0) < len(observed)))
    if n_classes == 2:
        # Both say the same.
        predicted, there = predicted - predicted[:, ::-1], there[-1:]
    areas = [ranking_draws(observed[:, k] > 0, predicted[:, k], block, draws)[0] for k in there]
    auroc = np.mean(areas, axis=0) if areas else np.full(len(draws), np.nan)
    return {"auroc": auroc, "accuracy": right / n, "mcc": mcc}


def task_metrics(
    table: pd.DataFrame,
    ours: str | None = None,
    *,
    n: int | None = None,
    seed: int = 0,
    **about: Any,
) -> list[Metric]:
    """Every model's metrics (see `task_draws`), and where `ours` is named, it minus the others.

    `table` has `model, observed, predicted`, `unit` (what is alike, and resampled together) and,
    of classes, `score:CLASS` for each. `n` is the number to report in place of that of the rows.
    """
    found: dict[str, dict[str, Draws]] = {}
    classes = [name for name in table.columns if name.startswith("score:")]
    for model, part in table.groupby("model", sort=False):
        _, unit = np.unique(part["unit"] % MOST_UNITS, return_inverse=True)
        draws = make_draws(int(unit.max()) + 1, N_BOOTSTRAP, seed)
        truth = [part["observed"] == name.removeprefix("score:") for name in classes]
        observed = np.stack(truth or [part["observed"]], 1).astype(np.float64)
        guess = part[classes or ["predicted"]].to_numpy(np.float64)
        found[str(model)] = task_draws(observed, guess, unit, draws)
    about |= {"n_blocks": draws.shape[1], "seed": seed}
    for other in [name for name in found if ours is not None and name != ours]:
        pairs = ((name, values, found[other][name]) for name, values in found[ours or ""].items())
        found[f"{ours} - {other}"] = {f"{name}_difference": x - y for name, x, y in pairs}
    return [
        to_metric(metric, values, n or len(part), model=model, limits=(-1.0, 1.0), **about)
        for model, by_metric in found.items()
        for metric, values in by_metric.items()
        if np.isfinite(values[0])
    ]


def _rank_correlation(genes: GeneStatistics, draws: np.ndarray) -> np.ndarray:
    """Spearman's rho, ties at their mean rank, recomputed in every draw.

    Levels that differ by rounding alone are one level.
    """
    result, predicted = np.empty(len(draws)), genes.predicted_level
    if predicted.std() < FLAT:
        predicted = np.zeros_like(predicted)
    for start in range(0, len(draws), CHUNK):
        weight = draws[start : start + CHUNK][:, genes.block]
        n = weight.sum(axis=1, keepdims=True)
        x = _mid_ranks(predicted, weight) - (n + 1) / 2
        y = _mid_ranks(genes.observed_level, weight) - (n + 1) / 2
        xy = np.einsum("dg,dg,dg->d", weight, x, y)
        xx = np.einsum("dg,dg,dg->d", weight, x, x)
        yy = np.einsum("dg,dg,dg->d", weight, y, y)
        is_flat = (xx < 0.25) | (yy < 0.25)
        rho = xy / np.sqrt(np.where(is_flat, 1, xx * yy))
        rho = np.where(xx < 0.25, 0.0, rho)
        result[start : start + CHUNK] = np.where(yy < 0.25, np.nan, rho)
    return result


def _mid_ranks(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mean rank (from 1) of each gene where gene g stands there `weight[d, g]` times."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    is_first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    cumulative = np.cumsum(weight[:, order], axis=1)
    last = np.concatenate([np.flatnonzero(is_first)[1:] - 1, [len(values) - 1]])
    up_to = cumulative[:, last]
    before = np.concatenate([np.zeros((len(weight), 1)), up_to[:, :-1]], axis=1)
    group = np.cumsum(is_first) - 1
    ranks = np.empty_like(weight)
    ranks[:, order] = (before + (up_to - before + 1) / 2)[:, group]
    return ranks

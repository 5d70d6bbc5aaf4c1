"""AUROC and Spearman's rho with intervals, by resampling whole units."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.stats import rankdata

from genesplice.evaluate.bootstrap import interval
from genesplice.results import Metric

N_BOOTSTRAP = 300


def auroc(is_case: Bool[np.ndarray, " rows"], value: Float[np.ndarray, " rows"]) -> float:
    """Chance that a case has a higher value than another row; NaN where one kind is missing."""
    cases = int(is_case.sum())
    others = len(is_case) - cases
    if not cases or not others:
        return float("nan")
    ranks = rankdata(value)
    return float((ranks[is_case].sum() - cases * (cases + 1) / 2) / (cases * others))


def spearman(x: Float[np.ndarray, " rows"], y: Float[np.ndarray, " rows"]) -> float:
    """Rank correlation; 0 where one side is all the same."""
    a, b = rankdata(x), rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else 0.0


def resampled(
    measure: Callable[[np.ndarray], float],
    unit: Shaped[np.ndarray, " rows"],
    *,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
    limits: tuple[float, float] = (-1.0, 1.0),
) -> tuple[float, float | None, float | None]:
    """`measure` of all rows, and its 95 % interval over resamples of whole units.

    Parameters
    ----------
    measure
        From the indices of rows to a number.
    unit
        What rows stand and fall together: a gene, or the row itself.
    limits
        The least and the most that `measure` can be.
    """
    _, number = np.unique(unit, return_inverse=True)
    order = np.argsort(number, kind="stable")
    rows_of = np.split(order, np.cumsum(np.bincount(number))[:-1])
    value = measure(np.arange(len(unit)))
    if len(rows_of) < 2:
        return value, None, None
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(n_bootstrap):
        picked = generator.integers(0, len(rows_of), len(rows_of))
        drawn.append(measure(np.concatenate([rows_of[i] for i in picked])))
    return value, *interval(np.array([value, *drawn]), len(rows_of), limits)


def auroc_metric(
    name: str,
    is_case: Bool[np.ndarray, " rows"],
    value: Float[np.ndarray, " rows"],
    unit: Shaped[np.ndarray, " rows"],
    *,
    model: str = "genesplice",
    split: str = "genome",
    seed: int = 0,
) -> list[Metric]:
    """AUROC as a record; none where one of the two kinds is missing. `n` counts the cases."""
    if not is_case.any() or is_case.all():
        return []
    limits = 0.0, 1.0
    found = resampled(lambda i: auroc(is_case[i], value[i]), unit, seed=seed, limits=limits)
    return [Metric(name, *found, int(is_case.sum()), model, split, None, seed)]

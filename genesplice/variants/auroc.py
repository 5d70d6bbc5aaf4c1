"""AUROC and Spearman's rho with intervals, by resampling whole units."""

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.stats import rankdata

from genesplice.evaluate.bootstrap import resampled
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
    measured = resampled(
        lambda rows: auroc(is_case[rows], value[rows]), unit,
        n_bootstrap=N_BOOTSTRAP, seed=seed, limits=(0.0, 1.0),
    )  # fmt: skip
    return [Metric(name, *measured, int(is_case.sum()), model, split, None, seed)]

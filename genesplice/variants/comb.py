"""Many bases of a window hidden at once, far from one another.

Every 32nd base is what pre-training's own score hides. What is told of a base is then not quite
what is told where it is hidden alone; `agreement` measures by how much.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64

from genesplice.results import Metric
from genesplice.variants.likelihood import Hidden, MaskedBases

EVERY_BP = 32


def substitutions(
    score: MaskedBases, rows: Sequence[Hidden]
) -> list[Float[np.ndarray, "strands hidden 4"]]:
    """Log p(base) - log p(the base that is there), for every hidden place; NaN where it is N."""
    found = []
    for row, told in zip(rows, score(rows), strict=True):
        there = row.tokens[row.places]
        own = told[:, np.arange(len(there)), np.minimum(there, 3)]
        change = told - own[..., None]
        change[:, there > 3] = np.nan
        found.append(change)
    return found


def spread_out(
    places: Int64[np.ndarray, " wanted"], length: int, every_bp: int = EVERY_BP
) -> Int64[np.ndarray, " chosen"]:
    """The first of `places`, in their order, that lie `every_bp` or more from all before; sorted.

    Parameters
    ----------
    length
        Of the window that the places are in.
    """
    is_free = np.ones(length, bool)
    chosen = []
    for place in places.tolist():
        if is_free[place]:
            chosen.append(place)
            is_free[max(place - every_bp + 1, 0) : place + every_bp] = False
    return np.array(sorted(chosen), np.int64)


def agreement(
    score: MaskedBases,
    rows: Sequence[Hidden],
    told: Sequence[Float[np.ndarray, "strands _ 4"]],
    *,
    n_places: int = 64,
    seed: int = 0,
) -> list[Metric]:
    """Compare ratios of bases hidden together with those of the same bases hidden alone.

    `llr_shared_mask_r` is the correlation over places and bases, `llr_shared_mask_rmse` the root
    mean square of the difference, in natural log units.
    """
    every = [(i, j) for i, row in enumerate(rows) for j in range(len(row.places))]
    generator = np.random.default_rng(seed)
    picked = generator.permutation(len(every))[:n_places]
    alone = [
        Hidden(rows[i].tokens, rows[i].places[j : j + 1]) for i, j in (every[k] for k in picked)
    ]
    together, apart = [], []
    for (i, j), found in zip((every[k] for k in picked), substitutions(score, alone), strict=True):
        is_change = found[0, 0] != 0
        together.append(told[i][:, j].mean(0)[is_change])
        apart.append(found[:, 0].mean(0)[is_change])
    x, y = np.concatenate(together), np.concatenate(apart)
    is_there = np.isfinite(x)
    x, y = x[is_there], y[is_there]
    if len(x) < 3 or x.std() == 0 or y.std() == 0:
        return []
    values = {
        "llr_shared_mask_r": float(np.corrcoef(x, y)[0, 1]),
        "llr_shared_mask_rmse": float(np.sqrt(np.mean((x - y) ** 2))),
    }
    return [
        Metric(name, value, None, None, len(x), "genesplice", "genome", None, seed)
        for name, value in values.items()
    ]

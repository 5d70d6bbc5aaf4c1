r"""Whether vectors of genes that belong together lie together.

=================  =================================================================================
`retrieval_at_K`   of the mates of each held-out gene (other held-out genes of its group), how many
                   are among its K nearest by cosine; K mates at most can be, and only so many are
                   asked for. 1 is perfect; guessing gives about K / number of held-out genes.
`alignment`        mean of :math:`|x - y|^2` over positive pairs of unit vectors, from 0 (good) to 4
`uniformity`       :math:`\log` of the mean of :math:`e^{-2 |x - y|^2}` over all pairs of unit
                   vectors, from 0 where all are the same to about -4 where they spread out (good)
=================  =================================================================================

Neighbours in an operon share sequence where windows overlap: hold retrieval against an encoder
with random weights, never against 0.

Source: Wang & Isola 2020 (alignment with alpha = 2, uniformity with t = 2). Intervals are 95 %
percentile intervals over resampled genome blocks; what a gene is compared with stays as it is.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64

from genesplice.errors import InputError
from genesplice.evaluate.resampling import N_BOOTSTRAP, make_draws, ratio_draws, to_metric
from genesplice.results import Metric

__all__ = ["alignment", "mate_pairs", "retrieval_at_k", "uniformity"]

TEMPERATURE = 2.0


def retrieval_at_k(
    vectors: pd.DataFrame,
    groups: pd.Series,
    genes: pd.Index,
    *,
    k: int = 10,
    blocks: pd.Series | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
    model: str = "genesplice",
    fold: int | None = None,
) -> Metric:
    """Share of mates found among the `k` nearest, over all of `genes` that have mates.

    Genes equally near are in random order: what a tie would find is counted by its expectation, so
    that vectors which are all the same are no better than guessing. `n` is the number of mates
    that were asked for.

    Parameters
    ----------
    vectors
        One row per gene_id; a vector of zeros has cosine 0 with everything.
    groups
        Operon (or any group) by gene_id; a missing value is a group of its own.
    genes
        Held-out genes: those that ask, and those among which is sought.
    blocks
        Genome block by gene_id. None, or one block: no interval.

    Raises
    ------
    InputError
        If a gene has no vector or no block, `k` is below 1, a value is not finite, or no two genes
        are of one group.
    """
    if k < 1:
        raise InputError(f"k {k}", "at least 1")
    unit = _unit_vectors(vectors, genes)
    one, two = mate_pairs(groups, genes)
    if not len(one):
        raise InputError(f"no two of {len(genes)} genes in one group", "groups of several genes")
    n_mates = np.bincount(np.concatenate([one, two]), minlength=len(genes))
    asks = np.flatnonzero(n_mates)
    is_mate = np.zeros((len(genes), len(genes)), bool)
    is_mate[one, two] = is_mate[two, one] = True
    found = np.array([_expected_hits(unit, row, is_mate[row], k) for row in asks.tolist()])
    wanted = np.minimum(n_mates[asks], k)
    block, draws = _blocks_of(genes[asks], blocks, n_bootstrap, seed)
    values = ratio_draws(found[:, None], wanted[:, None].astype(np.float64), block, draws)[:, 0]
    return to_metric(
        f"retrieval_at_{k}", values, int(wanted.sum()), model=model, fold=fold, seed=seed
    )


def mate_pairs(
    groups: pd.Series, genes: pd.Index
) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " pairs"]]:
    """All pairs of `genes` of one group, as two lists of places in `genes`, the first lower."""
    label = pd.factorize(groups.reindex(genes))[0]
    ones, twos = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for rows in pd.Series(np.arange(len(genes))).groupby(label).indices.values():
        if label[rows[0]] >= 0:
            first, second = np.triu_indices(len(rows), 1)
            ones.append(np.asarray(rows, np.int64)[first])
            twos.append(np.asarray(rows, np.int64)[second])
    return np.concatenate(ones), np.concatenate(twos)


def alignment(
    one: Float[np.ndarray, "pairs width"],
    two: Float[np.ndarray, "pairs width"],
    *,
    blocks: np.ndarray | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
    model: str = "genesplice",
    fold: int | None = None,
) -> Metric:
    """Mean squared distance of positive pairs, each scaled to length 1 (zeros stay zeros).

    Parameters
    ----------
    one, two
        Row by row two views of one place, or two mates (see `mate_pairs`).
    blocks
        Genome block of each pair. None, or one block: no interval.

    Raises
    ------
    InputError
        If there is no pair, or a value is not finite.
    """
    if not len(one) or not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise InputError(f"{len(one)} pairs", "at least one, of finite vectors")
    squared = ((_normalise(one) - _normalise(two)) ** 2).sum(axis=1, keepdims=True)
    labels = None if blocks is None else pd.Series(blocks)
    block, draws = _blocks_of(pd.RangeIndex(len(one)), labels, n_bootstrap, seed)
    values = ratio_draws(squared, np.ones_like(squared), block, draws)[:, 0]
    return to_metric("alignment", values, len(one), model=model, fold=fold, seed=seed)


def uniformity(
    vectors: pd.DataFrame,
    genes: pd.Index,
    *,
    blocks: pd.Series | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
    model: str = "genesplice",
    fold: int | None = None,
) -> Metric:
    """Log of the mean Gaussian potential of all pairs of `genes`; `n` is the number of pairs.

    A resample that draws two blocks a and b times counts the pairs between them a * b times, and
    those within one a * a times; a gene is never paired with itself.

    Parameters
    ----------
    blocks
        Genome block by gene_id. None, or one block: no interval.

    Raises
    ------
    InputError
        If there are fewer than two genes, one without a vector or block, or a value that is not
        finite.
    """
    if len(genes) < 2:
        raise InputError(f"{len(genes)} genes", "at least 2")
    unit = _unit_vectors(vectors, genes)
    block, draws = _blocks_of(genes, blocks, n_bootstrap, seed)
    member = np.zeros((len(genes), draws.shape[1]))
    member[np.arange(len(genes)), block] = 1
    length = (unit**2).sum(axis=1)
    squared = np.maximum(length[:, None] + length - 2 * unit @ unit.T, 0)
    potential = np.exp(-TEMPERATURE * squared)
    np.fill_diagonal(potential, 0)
    of_blocks = member.T @ potential @ member
    n_of_blocks = member.T @ (1 - np.eye(len(genes))) @ member
    sums, counts = (
        np.einsum("da,ab,db->d", draws, table, draws) for table in (of_blocks, n_of_blocks)
    )
    values = np.log(np.where(counts > 0, sums, np.nan) / np.where(counts > 0, counts, 1))
    n_pairs = len(genes) * (len(genes) - 1) // 2
    return to_metric("uniformity", values, n_pairs, model=model, fold=fold, seed=seed)


def _expected_hits(
    unit: Float[np.ndarray, "genes width"], row: int, is_mate: np.ndarray, k: int
) -> float:
    """Mates among the `k` nearest of one gene; where ties straddle the k-th, their fair share."""
    near = unit @ unit[row]
    others = np.arange(len(unit)) != row
    near, is_mate = near[others], is_mate[others]
    if len(near) <= k:
        return float(is_mate.sum())
    # Rounding must not tell equal vectors apart.
    last = np.partition(near, -k)[-k]
    is_tied = np.abs(near - last) < 1e-12
    is_nearer = (near > last) & ~is_tied
    share = (k - is_nearer.sum()) / is_tied.sum()
    return float((is_nearer & is_mate).sum() + share * (is_tied & is_mate).sum())


def _unit_vectors(vectors: pd.DataFrame, genes: pd.Index) -> Float[np.ndarray, "genes width"]:
    missing = genes.difference(vectors.index)
    if len(missing):
        raise InputError(f"gene {missing[0]!r} without a vector", "a vector for each gene")
    values = vectors.loc[genes].to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError("a vector with a value that is not finite", "finite numbers")
    return _normalise(values)


def _normalise(values: Float[np.ndarray, "rows width"]) -> Float[np.ndarray, "rows width"]:
    values = values.astype(np.float64)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(length > 0, length, 1)


def _blocks_of(
    rows: pd.Index, blocks: pd.Series | None, n_bootstrap: int, seed: int
) -> tuple[Int64[np.ndarray, " rows"], Int64[np.ndarray, "draws blocks"]]:
    """Number of each row's block, and the resamples of these blocks."""
    if blocks is None:
        return np.zeros(len(rows), np.int64), make_draws(1, 0, seed)
    label = blocks.reindex(rows)
    if label.isna().any():
        raise InputError(f"gene {label.index[label.isna()][0]!r} without a block", "a block each")
    names, number = np.unique(label.to_numpy(), return_inverse=True)
    return number.astype(np.int64), make_draws(len(names), n_bootstrap, seed)

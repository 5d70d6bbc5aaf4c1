r"""Whether vectors of genes that belong together lie together.

=================  =================================================================================
`retrieval_at_K`   of the mates of each held-out gene (other held-out genes of its group), how many
                   are among its K nearest by cosine; K mates at most can be, and only so many are
                   asked for. 1 is perfect; guessing gives about K / number of held-out genes.
`alignment`        mean of :math:`|x - y|^2` over pairs of mates, from 0 (good) to 4
`uniformity`       :math:`\log` of the mean of :math:`e^{-2 |x - y|^2}` over all pairs of unit
                   vectors, from 0 where all are the same to about -4 where they spread out (good)
=================  =================================================================================

Neighbours in an operon share sequence where windows overlap: such pairs are not shown to one
another, and retrieval is held against an encoder with random weights, never against 0.

Source: Wang & Isola 2020 (alignment with alpha = 2, uniformity with t = 2). Intervals are 95 %
percentile intervals over resampled genome blocks; what a gene is compared with stays as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int64

from genesplice.data.bundle import Bundle
from genesplice.errors import InputError, require
from genesplice.evaluate import bootstrap
from genesplice.results import Metric

TEMPERATURE = 2.0
RIDGES = (np.inf, 10.0, 1.0, 0.1, 0.01)
CHOSEN_AT = 10
Unit = Float[np.ndarray, "genes width"]
Pairs = Bool[np.ndarray, "genes genes"]
LIMITS = {"retrieval": (0.0, 1.0), "alignment": (0.0, 4.0), "uniformity": (-np.inf, 0.0)}


def retrieval_metrics(
    vectors: Mapping[str, pd.DataFrame],
    groups: pd.Series,
    genes: pd.Index,
    *,
    blocks: pd.Series | None = None,
    is_shown: Pairs | None = None,
    ks: Sequence[int] = (1, 10),
    references: Sequence[str] = (),
    n_bootstrap: int = bootstrap.N_BOOTSTRAP,
    seed: int = 0,
    fold: int | None = None,
) -> list[Metric]:
    """All of the above for each model's vectors, on the same genes and resamples.

    `alignment` is that of the mates. `n` counts the mates that were asked for, or the pairs.

    Parameters
    ----------
    vectors
        By model name, one row per gene_id; a vector of zeros has cosine 0 with everything.
    groups
        Operon (or any group) by gene_id; a missing value is a group of its own.
    genes
        Held-out genes: those that ask, and those among which is sought.
    blocks
        Genome block by gene_id. None, or one block: no interval.
    is_shown
        Which genes each gene is shown (see `do_not_overlap`); pairs that are not shown are no
        mates. None: all.
    references
        Names of models; for every other one `retrieval_at_K_difference` to each follow, under the
        model's name "A - reference".

    Raises
    ------
    InputError
        If a gene has no vector or no block, a K is below 1, a value is not finite, a reference is
        not among the models, or no two genes are of one group.
    """
    require(min(ks, default=1) >= 1, f"k {min(ks, default=1)}", "at least 1")
    are_known = set(references) <= set(vectors)
    require(are_known, f"references {list(references)}", f"among {sorted(vectors)}")
    is_mate = mates(groups, genes)
    if is_shown is not None:
        is_mate &= is_shown
    one, two = np.nonzero(np.triu(is_mate))
    require(len(one), f"no two of {len(genes)} genes in one group", "groups of several genes")
    label = np.zeros(len(genes)) if blocks is None else bootstrap.block_labels(genes, blocks)
    names, block = np.unique(label, return_inverse=True)
    draws = bootstrap.make_draws(len(names), n_bootstrap, seed)
    n_asked = {"alignment": len(one), "uniformity": len(genes) * (len(genes) - 1) // 2}
    values: dict[str, dict[str, np.ndarray]] = {}
    for name, table in vectors.items():
        unit = _unit_vectors(table, genes)
        values[name] = by_metric = {}
        for k in ks:
            hits, asked = expected_hits(unit, is_mate, k, is_shown)
            ratio = bootstrap.ratio_draws(hits[:, None], asked[:, None], block, draws)
            by_metric[f"retrieval_at_{k}"] = ratio[:, 0]
            n_asked[f"retrieval_at_{k}"] = int(asked.sum())
        squared = ((unit[one] - unit[two]) ** 2).sum(axis=1, keepdims=True)
        ratio = bootstrap.ratio_draws(squared, np.ones_like(squared), block[one], draws)
        by_metric["alignment"] = ratio[:, 0]
        by_metric["uniformity"] = uniformity_draws(unit, block, draws)
    compared = [name for name in vectors if name not in references]
    for reference, name in product(references, compared):
        values[f"{name} - {reference}"] = {
            f"{metric}_difference": values[name][metric] - values[reference][metric]
            for metric in (f"retrieval_at_{k}" for k in ks)
        }
    about: dict[str, Any] = {"n_blocks": draws.shape[1], "fold": fold, "seed": seed}
    metrics = []
    for name, by_metric in values.items():
        for metric, drawn in by_metric.items():
            n, kind = n_asked[metric.removesuffix("_difference")], metric.split("_")[0]
            limits = bootstrap.FREE if metric.endswith("_difference") else LIMITS[kind]
            metrics.append(
                bootstrap.to_metric(metric, drawn, n, model=name, limits=limits, **about)
            )
    return metrics


def mates(groups: pd.Series, genes: pd.Index) -> Pairs:
    """Which other genes are of the same group."""
    label = pd.factorize(groups.reindex(genes))[0]
    is_mate = (label[:, None] == label) & (label >= 0)
    np.fill_diagonal(is_mate, False)
    return is_mate


def expected_hits(
    unit: Unit, is_mate: Pairs, k: int, is_shown: Pairs | None = None
) -> tuple[Float[np.ndarray, " genes"], Float[np.ndarray, " genes"]]:
    """Mates among the `k` nearest of each gene, and how many were asked for (0 without mates).

    Genes equally near are in random order: what a tie would find is counted by its expectation, so
    that vectors which are all the same are no better than guessing (scikit-learn's neighbours know
    neither that nor pairs that are not shown). Among fewer than `k` all are found. `is_shown` says
    which genes a gene is shown; None: all.
    """
    n = len(unit)
    n_mates = np.minimum(is_mate.sum(axis=1), k).astype(np.float64)
    near = unit @ unit.T
    np.fill_diagonal(near, -2)
    if is_shown is not None:
        near[~is_shown] = -2
    # Rounding must not tell equal vectors apart.
    last = np.partition(near, -min(k, n), axis=1)[:, [-min(k, n)]]
    is_tied = np.abs(near - last) < 1e-12
    is_nearer = (near > last) & ~is_tied
    share = (k - is_nearer.sum(axis=1)) / is_tied.sum(axis=1)
    return (is_nearer & is_mate).sum(axis=1) + share * (is_tied & is_mate).sum(axis=1), n_mates


def uniformity_draws(
    unit: Unit, block: Int64[np.ndarray, " genes"], draws: Int64[np.ndarray, "draws blocks"]
) -> bootstrap.Draws:
    """`uniformity` in each draw.

    A resample that draws two blocks a and b times counts the pairs between them a * b times, and
    those within one a * a times; a gene is never paired with itself.
    """
    member = np.zeros((len(unit), draws.shape[1]))
    member[np.arange(len(unit)), block] = 1
    length = (unit**2).sum(axis=1)
    squared = np.maximum(length[:, None] + length - 2 * unit @ unit.T, 0)
    potential = np.exp(-TEMPERATURE * squared)
    np.fill_diagonal(potential, 0)
    of_blocks = member.T @ potential @ member
    n_of_blocks = member.T @ (1 - np.eye(len(unit))) @ member
    sums, counts = (
        np.einsum("da,ab,db->d", draws, table, draws) for table in (of_blocks, n_of_blocks)
    )
    return np.log(np.where(counts > 0, sums, np.nan) / np.where(counts > 0, counts, 1))


def do_not_overlap(bundle: Bundle, genes: pd.Index, window_bp: int) -> Pairs:
    """Which pairs of genes have windows of `window_bp` round their TSS that share no base."""
    table = bundle.genes.set_index("gene_id").loc[genes]
    contigs = [bundle.genome.contig(name) for name in table["contig"]]
    turn = np.array([c.length if c.is_circular else 4 * c.length for c in contigs], np.int64)
    number, tss = pd.factorize(table["contig"])[0], table["tss"].to_numpy()
    apart = (tss[:, None] - tss) % turn
    apart = np.minimum(apart, turn - apart)
    return (number[:, None] != number) | (apart >= window_bp)


def whitened(
    vectors: pd.DataFrame,
    training: Sequence[pd.Index],
    groups: pd.Series,
    is_shown: Callable[[pd.Index], Pairs],
) -> pd.DataFrame:
    """Vectors of all genes with what most of them share made small, as training genes have it.

    Hidden states have a large mean in common, and few directions in which nearly all of them
    differ: both would drown every cosine. Columns are centred and scaled; then directions are
    divided by the root of their variance plus a ridge, the one of `RIDGES` (infinite: columns
    alone) that finds most mates among the 10 nearest, in each set of training genes by itself.

    Parameters
    ----------
    vectors
        One row per gene_id.
    training
        Sets of genes, such as the folds that are not held out. No other gene is looked at.
    groups, is_shown
        As in `retrieval_metrics`; the latter for any genes.
    """
    known = vectors.loc[training[0].append(list(training[1:]))]
    centre, spread = known.mean(), known.std(ddof=0).replace(0, 1)
    scaled = ((known - centre) / spread).to_numpy(np.float64)
    variance, directions = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    turned = ((vectors - centre) / spread).to_numpy(np.float64) @ directions
    shown = [is_shown(genes) for genes in training]
    pairs = [mates(groups, genes) & seen for genes, seen in zip(training, shown, strict=True)]
    best, chosen = -1.0, turned
    for ridge in RIDGES:
        shrink = 1.0 if np.isinf(ridge) else (variance.clip(0) + ridge) ** -0.5
        table = pd.DataFrame(turned * shrink, index=vectors.index)
        hits = n_mates = 0.0
        for genes, is_mate, seen in zip(training, pairs, shown, strict=True):
            parts = expected_hits(_unit_vectors(table, genes), is_mate, CHOSEN_AT, seen)
            hits, n_mates = hits + parts[0].sum(), n_mates + parts[1].sum()
        share = hits / n_mates if n_mates else 0.0
        if share > best:
            best, chosen = share, table.to_numpy()
    return pd.DataFrame(chosen, index=vectors.index)


def _unit_vectors(vectors: pd.DataFrame, genes: pd.Index) -> Unit:
    missing = genes.difference(vectors.index)
    if len(missing):
        raise InputError(f"gene {missing[0]!r} without a vector", "a vector for each gene")
    values = vectors.loc[genes].to_numpy(dtype=np.float64)
    is_finite = np.isfinite(values).all()
    require(is_finite, "a vector with a value that is not finite", "finite numbers")
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(length > 0, length, 1)

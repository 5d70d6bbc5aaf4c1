"""Genes and sequences that look alike: the share of its k-mers that one has in common with another.

Memory and time are bounded, whatever the number of genes and of their bases: k-mers are sampled
beyond `MAX_KMERS`, those of very many genes are left out beyond `MAX_MATCHES`, and pairs of genes
are compared some rows at a time.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Int64, UInt, UInt8, UInt32
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from genesplice.data.genome import Genome, Mask, Tokens

Kmers = UInt32[np.ndarray, " _kmers"]

KMER = 14
"""At most 16: a k-mer is a number of 32 bits."""
MAX_KMERS, MAX_MATCHES, MAX_PAIRS = 40_000_000, 500_000_000, 10_000_000
MOST_OWNERS = 8
"""Of a k-mer of more sequences only the first is compared with the others."""
SIMILARITY_MEASURE = (
    f"shared canonical {KMER}-mers of two genes (start to end, both strands, distinct, without N) "
    "over the smaller of their two numbers of them; 90 % identity gives about 0.23, 80 % about 0.04"
)


class Similarity(NamedTuple):
    """For each gene its nearest gene in another fold, and how the number was got.

    `nearest` has `gene_id, nearest_gene_id, similarity`; a gene that shares nothing with any
    other fold has nearest "" and similarity 0. `chance` is the 99th percentile of the same
    number with every gene's sequence reversed (not complemented) on one side.
    """

    nearest: pd.DataFrame
    chance: float
    measure: str


def gene_similarity(genome: Genome, genes: pd.DataFrame, folds: Sequence[int]) -> Similarity:
    """Compare every gene with every gene of the other folds.

    The measure is `SIMILARITY_MEASURE`; it states what was left out. Beyond `MAX_KMERS` bases in
    all genes together only the k-mers whose hash falls in a fixed fraction of its range are used.
    Of the k-mers that most genes have (repeats) as many are left out, of genes' numbers of k-mers
    too, as leave no more than `MAX_MATCHES` pairs of genes that have a k-mer in common, counted
    once a k-mer. `MAX_PAIRS` pairs of genes are in memory at a time.

    Source: Ondov et al. 2016 (Mash); Hera et al. 2023 (FracMinHash containment).
    """
    fold, measure = np.asarray(folds, dtype=np.int64), SIMILARITY_MEASURE
    total = int((genes["end"] - genes["start"]).clip(lower=0).sum())
    scale = max(1, -(-total // MAX_KMERS))
    if scale > 1:
        measure += f"; a {scale}th of all k-mers, by hash"
    own, turned = list[Kmers](), list[Kmers]()
    for interval in zip(*(genes[name] for name in ("contig", "start", "end")), strict=True):
        forward, backward = canonical_kmers(genome.fetch(*interval), scale)
        own.append(forward)
        turned.append(backward)
        genome.forget()
    codes, matrix = _incidence(own)
    most = _most_genes(matrix.getnnz(axis=0))
    if most is not None:
        measure += f"; without the {KMER}-mers of more than {most} genes (repeats)"
        codes, matrix = _without_common(codes, matrix, most)
    rows, size = matrix.tocsr().astype(np.int32), matrix.getnnz(axis=1)
    best, at = _nearest(rows, matrix, size, size, fold)
    del matrix
    other_codes, other = _without_common(*_incidence(turned), most)
    other_size, other = other.getnnz(axis=1), _reordered(other, other_codes, codes)
    by_chance, _ = _nearest(rows, other, size, other_size, fold)
    ids = genes["gene_id"].to_numpy(dtype=object)
    named = np.where(best > 0, ids[at], "").astype(object)
    columns = {"gene_id": ids, "nearest_gene_id": named, "similarity": best.astype(np.float32)}
    nearest = pd.DataFrame(columns)
    return Similarity(nearest, float(np.quantile(by_chance, 0.99)) if len(ids) else 0.0, measure)


def sequence_clusters(
    sequences: Sequence[UInt8[np.ndarray, " _length"]],
    same: Int64[np.ndarray, " sequences"],
    least: float,
) -> Int64[np.ndarray, " sequences"]:
    """Number the clusters: chains of sequences each like the next one, on either strand.

    Alike are those of one number in `same`, and those that share `least` of the k-mers of the one
    that has fewer. Memory and time are linear in the k-mers, however often one of them is there.

    Source: Steinegger and Söding 2018 (Linclust): a k-mer's sequences are compared with the first.
    """
    n = len(sequences)
    scale = max(1, -(-sum(map(len, sequences)) // MAX_KMERS))
    _, matrix = _incidence([canonical_kmers(tokens, scale)[0] for tokens in sequences])
    size, owners = matrix.getnnz(axis=1), matrix.indices.astype(np.int64)
    count = np.diff(matrix.indptr)
    first = np.repeat(owners[matrix.indptr[:-1]], count)
    column = np.repeat(np.arange(len(count)), count)
    is_common = count[column] > MOST_OWNERS
    pairs = [first[is_common] * n + owners[is_common]]
    for apart in range(1, MOST_OWNERS):
        is_pair = (column[:-apart] == column[apart:]) & ~is_common[apart:]
        pairs.append(owners[:-apart][is_pair] * n + owners[apart:][is_pair])
    code, shared = np.unique(np.concatenate(pairs), return_counts=True)
    one, other = np.divmod(code, max(n, 1))
    is_like = shared >= least * np.minimum(size[one], size[other])
    _, leader, number = np.unique(same, return_index=True, return_inverse=True)
    one = np.concatenate([one[is_like], leader[number]])
    other = np.concatenate([other[is_like], np.arange(n)])
    graph = sparse.coo_matrix((np.ones(len(one), np.int8), (one, other)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def canonical_kmers(tokens: Tokens, scale: int = 1) -> tuple[Kmers, Kmers]:
    """The k-mers of a sequence, and those of the sequence read backwards.

    Each is the smaller of itself and its reverse complement. Those with N are left out. With
    `scale` s only those whose hash is in the lowest 1/s.
    """
    if len(tokens) < KMER:
        return np.empty(0, np.uint32), np.empty(0, np.uint32)
    base = (tokens & 3).astype(np.uint32)
    forward, backward = _codes(base, KMER), _codes(3 - base[::-1], KMER)[::-1]
    n_before = np.concatenate([[0], np.cumsum(tokens > 3)])
    is_known = n_before[KMER:] == n_before[:-KMER]
    # The complement of a code is what is left to the highest one.
    highest = np.uint32(4**KMER - 1)
    both = np.minimum(forward, backward), highest - np.maximum(forward, backward)
    first, second = (_sampled(codes[is_known], scale) for codes in both)
    return first, second


def _codes(base: UInt32[np.ndarray, " length"], k: int) -> Kmers:
    """Every k-mer as a number to base 4, made of its halves."""
    if k == 1:
        return base
    half = k // 2
    part = _codes(base, half)
    codes = (part[:-half] << (2 * half)) | part[half:]
    return (codes[:-1] << 2) | base[k - 1 :] if k % 2 else codes


def _sampled(codes: Kmers, scale: int) -> Kmers:
    """Those of low hash: bits mixed by MurmurHash3's finaliser, which wraps on purpose."""
    if scale == 1:
        return codes
    mixed = (codes ^ (codes >> 16)) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * np.uint32(0xC2B2AE35)
    return codes[(mixed ^ (mixed >> 16)) < 2**32 // scale]


def _incidence(sets: list[Kmers]) -> tuple[Kmers, sparse.csc_matrix]:
    """The distinct k-mers, and a row for each set with ones in the columns of what is in it.

    The list is empty afterwards.
    """
    # Sorted with its row beside it a k-mer is a column: a table of k-mers takes more memory.
    n_rows = len(sets)
    pairs = np.repeat(np.arange(n_rows, dtype=np.uint64), [len(one) for one in sets])
    codes = np.concatenate([*sets, np.empty(0, np.uint32)])
    sets.clear()
    pairs |= np.left_shift(codes, 32, dtype=np.uint64)
    pairs.sort()
    pairs = pairs[_is_new(pairs)]
    codes, rows = (pairs >> np.uint64(32)).astype(np.uint32), pairs.astype(np.int32)
    del pairs
    first = np.flatnonzero(_is_new(codes))
    ones, pointer = np.ones(len(rows), np.int8), np.append(first, len(rows))
    return codes[first], sparse.csc_matrix((ones, rows, pointer), shape=(n_rows, len(first)))


def _is_new(ordered: UInt[np.ndarray, " length"]) -> Mask:
    """Which values differ from the one before."""
    is_new = np.ones(len(ordered), dtype=bool)
    is_new[1:] = ordered[1:] != ordered[:-1]
    return is_new


def _reordered(matrix: sparse.csc_matrix, codes: Kmers, columns: Kmers) -> sparse.csc_matrix:
    """The matrix with `columns`, sorted as its own `codes` are; those it lacks are empty."""
    _, own, new = np.intersect1d(codes, columns, assume_unique=True, return_indices=True)
    kept, n_genes = matrix[:, own], np.zeros(len(columns) + 1, np.int64)
    n_genes[new + 1] = kept.getnnz(axis=0)
    content = (kept.data, kept.indices, np.cumsum(n_genes))
    return sparse.csc_matrix(content, shape=(matrix.shape[0], len(columns)))


def _most_genes(n_genes: Int[np.ndarray, " kmers"]) -> int | None:
    """The most genes of a k-mer that may stay, given how many each has; None where all may."""
    n_kmers = np.bincount(n_genes, minlength=1)
    matches = np.cumsum(n_kmers * np.arange(len(n_kmers)) ** 2)
    within = np.searchsorted(matches, MAX_MATCHES, side="right")
    return None if within == len(matches) else int(within) - 1


def _without_common(
    codes: Kmers, matrix: sparse.csc_matrix, most: int | None
) -> tuple[Kmers, sparse.csc_matrix]:
    """Without the columns of more than `most` rows."""
    if most is None:
        return codes, matrix
    kept = np.flatnonzero(matrix.getnnz(axis=0) <= most)
    return codes[kept], matrix[:, kept]


def _nearest(
    queries: sparse.csr_matrix,
    targets: sparse.csc_matrix,
    n_queries: Int[np.ndarray, " genes"],
    n_targets: Int[np.ndarray, " genes"],
    fold: Int64[np.ndarray, " genes"],
) -> tuple[Float[np.ndarray, " genes"], Int64[np.ndarray, " genes"]]:
    """Best containment of each query among targets of another fold, and the first that has it.

    Rows are genes, columns k-mers; `n_` is how many each gene has in all.
    """
    best, at = np.zeros(len(fold)), np.zeros(len(fold), dtype=np.int64)
    columns = targets.T
    # Of many genes nearly all pairs share something: some rows at a time.
    step = max(1, MAX_PAIRS // max(1, len(fold)))
    for start in range(0, len(fold), step):
        shared = queries[start : start + step] @ columns
        n_shared = np.diff(shared.indptr)
        found = np.flatnonzero(n_shared)
        if not len(found):
            continue
        row, col = np.repeat(found + start, n_shared[found]), shared.indices
        value = shared.data / np.minimum(n_queries[row], n_targets[col])
        value[fold[row] == fold[col]] = 0
        begins = shared.indptr[found]
        best[start + found] = np.maximum.reduceat(value, begins)
        is_best = value == best[row]
        at[start + found] = np.minimum.reduceat(np.where(is_best, col, len(fold)), begins)
    return best, at

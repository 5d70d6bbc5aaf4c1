"""What simple methods see of a gene: k-mers, codon use, its regulators, its gene sets.

Every function gives one row per *measured* gene, in the order of `Bundle.observed`, and reads
sequence and annotation only: expression decides neither a value nor which columns there are.
"""

import numpy as np
import pandas as pd
from jaxtyping import Int64, UInt8

from genesplice.data.bundle import Bundle
from genesplice.errors import InputError

KMER = 4
UPSTREAM_BP = 300
MIN_GENES = 10
MIN_TARGETS = 3
STOP_CODONS = frozenset({"TAA", "TAG", "TGA"})


def kmer_codon_features(
    bundle: Bundle, *, k: int = KMER, upstream_bp: int = UPSTREAM_BP
) -> pd.DataFrame:
    """Count k-mers before the TSS and the gene's codon use.

    Columns, all on the sense strand:

    - `kmer:ACGT`: how often, in the `upstream_bp` bases that end right before the TSS. They wrap
      on circular contigs; k-mers with N (also beyond a linear contig's end) are not counted.
    - `codon:ATG`: share of the gene's codons, from its start to its end. All zeros where the gene
      is not one open reading frame (see `gene:is_orf`).
    - `gene:is_orf`: 1 for a gene whose length is a multiple of three, without a stop codon before
      the last one, and whose biotype is neither an RNA nor a pseudogene. Introns, tRNA, rRNA and
      odd lengths give 0. (The standard stop codons: TAA, TAG, TGA.)
    - `gene:log2_length` (bp) and `gene:gc` (of A, C, G, T; 0.5 for a gene of N only).

    Raises
    ------
    InputError
        If `k` is not 1 to 8, or `upstream_bp` is shorter than `k`.
    """
    if not 1 <= k <= 8 or upstream_bp < k:
        raise InputError(f"k={k} and upstream_bp={upstream_bp}", "k of 1 to 8 in upstream_bp >= k")
    genes = bundle.genes.set_index("gene_id").loc[bundle.observed.index]
    kmers = np.zeros((len(genes), 4**k))
    codons = np.zeros((len(genes), 64))
    other = np.zeros((len(genes), 3))
    is_stop = np.array([word in STOP_CODONS for word in _words(3)])
    for row, gene in enumerate(genes.itertuples(index=False)):
        if gene.strand == "+":
            interval = (gene.tss - upstream_bp, gene.tss)
        else:
            interval = (gene.tss + 1, gene.tss + 1 + upstream_bp)
        kmers[row] = _count_kmers(bundle.genome.fetch(gene.contig, *interval, gene.strand), k)
        body = bundle.genome.fetch(gene.contig, gene.start, gene.end, gene.strand)
        bases = np.bincount(body, minlength=5)[:4]
        gc = (bases[1] + bases[2]) / bases.sum() if bases.sum() else 0.5
        if is_orf := body.size % 3 == 0 and body.size > 0 and _is_coding(gene.biotype):
            words = _codons(body)
            is_orf = not is_stop[words[:-1][words[:-1] >= 0]].any()
        if is_orf:
            codons[row] = np.bincount(words[words >= 0], minlength=64) / max(1, (words >= 0).sum())
        other[row] = is_orf, np.log2(max(1, body.size)), gc
    columns = (
        [f"kmer:{word}" for word in _words(k)]
        + [f"codon:{word}" for word in _words(3)]
        + ["gene:is_orf", "gene:log2_length", "gene:gc"]
    )
    values = np.concatenate([kmers, codons, other], axis=1)
    return pd.DataFrame(values, index=bundle.observed.index, columns=columns)


def regulator_features(bundle: Bundle, *, min_targets: int | None = None) -> pd.DataFrame:
    """Mark each gene's regulators: `regulates:NAME` is 1 or 0, `sign:NAME` is 1, -1 or 0.

    The sign is 0 for an edge of both or unknown signs; a regulator without any signed edge has no
    sign column. Regulators need not be genes themselves.

    Parameters
    ----------
    min_targets
        Regulators with fewer measured targets are left out. None: 3, or 1 in a bundle of fewer
        than 100 measured genes.
    """
    genes = bundle.observed.index
    if min_targets is None:
        min_targets = MIN_TARGETS if len(genes) >= 100 else 1
    edges = bundle.network[bundle.network["target"].isin(genes)]
    n_targets = edges.groupby("source", observed=True)["target"].nunique()
    kept = sorted(n_targets.index[n_targets >= min_targets])
    edges = edges[edges["source"].isin(kept)]
    row = genes.get_indexer(edges["target"])
    column = pd.Index(kept).get_indexer(edges["source"])
    is_regulated, sign = np.zeros((len(genes), len(kept))), np.zeros((len(genes), len(kept)))
    is_regulated[row, column] = 1
    np.add.at(sign, (row, column), edges["sign"].to_numpy(dtype=np.float64))
    sign = np.sign(sign)
    has_sign = np.any(sign != 0, axis=0)
    names = [f"regulates:{name}" for name in kept]
    names += [f"sign:{name}" for name, keep in zip(kept, has_sign, strict=True) if keep]
    values = np.concatenate([is_regulated, sign[:, has_sign]], axis=1)
    return pd.DataFrame(values, index=genes, columns=names)


def gene_set_features(
    bundle: Bundle, prefix: str = "", *, min_genes: int | None = None
) -> pd.DataFrame:
    """Mark membership (1 or 0) in each gene set whose name starts with `prefix`.

    Sets with the same measured genes become one column, under the first name; a set of all
    measured genes says nothing and is left out. No such set: a table without columns.

    Parameters
    ----------
    min_genes
        Sets with fewer measured genes are left out. None: 10, or a twentieth of the measured
        genes (at least 2) in a bundle of fewer than 200.
    """
    genes = bundle.observed.index
    if min_genes is None:
        min_genes = min(MIN_GENES, max(2, len(genes) // 20))
    columns: dict[bytes, tuple[str, np.ndarray]] = {}
    for name in sorted(bundle.gene_sets):
        if not name.startswith(prefix):
            continue
        at = genes.get_indexer(pd.Index(bundle.gene_sets[name]))
        is_member = np.zeros(len(genes))
        is_member[at[at >= 0]] = 1
        if min_genes <= is_member.sum() < len(genes):
            columns.setdefault(is_member.tobytes(), (name, is_member))
    names = [name for name, _ in columns.values()]
    values = np.array([values for _, values in columns.values()]).reshape(len(names), len(genes))
    return pd.DataFrame(values.T, index=genes, columns=names)


def _words(k: int) -> list[str]:
    """All words of `k` letters, in the order of their codes."""
    words = [""]
    for _ in range(k):
        words = [word + letter for word in words for letter in "ACGT"]
    return words


def _count_kmers(tokens: UInt8[np.ndarray, " length"], k: int) -> Int64[np.ndarray, " kmers"]:
    pieces = np.lib.stride_tricks.sliding_window_view(tokens, k)
    pieces = pieces[(pieces < 4).all(axis=1)]
    return np.bincount(pieces @ 4 ** np.arange(k - 1, -1, -1), minlength=4**k)


def _codons(tokens: UInt8[np.ndarray, " length"]) -> Int64[np.ndarray, " codons"]:
    """Codes of the codons in reading order; -1 for one with N."""
    pieces = tokens.reshape(-1, 3)
    return np.where((pieces < 4).all(axis=1), pieces @ np.array([16, 4, 1]), -1)


def _is_coding(biotype: str | None) -> bool:
    """Whether a biotype may be protein-coding; an empty or unknown word may."""
    word = str(biotype or "").lower()
    return word == "mrna" or not ("rna" in word or "pseudo" in word)

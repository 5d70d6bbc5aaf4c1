"""What simple methods take from a gene: k-mers, codons, regulators, gene sets, conservation.

Every function gives one row per *measured* gene, in the order of `Bundle.observed`, and reads
sequences and annotation only: expression decides neither a value nor which columns there are.
"""

import numpy as np
import pandas as pd
from jaxtyping import Int64

from genesplice.data.bundle import Bundle
from genesplice.data.coding import coding_positions, coding_sequence, is_open
from genesplice.data.features import (
    gene_bases,
    kmer_codes,
    kmer_features,
    kmer_names,
    site_windows,
    tss_sites,
)
from genesplice.errors import InputError

KMER = 4
UPSTREAM_BP, CONSERVED_BP = 300, 200
MIN_GENES = 10
MIN_TARGETS = 3
REGIONS = ("codon_1", "codon_2", "codon_3", "upstream")


def kmer_codon_features(
    bundle: Bundle, *, k: int = KMER, upstream_bp: int = UPSTREAM_BP
) -> pd.DataFrame:
    """Count k-mers before the TSS and the gene's codon use.

    Columns, all on the sense strand:

    - `kmer:ACGT`: how often, in the `upstream_bp` bases that end right before the TSS. They wrap
      on circular contigs; k-mers with N (also beyond a linear contig's end) are not counted.
    - `codon:ATG`: share of the codons of the spliced coding sequence. All zeros where that is not
      one open reading frame (see `gene:is_orf`).
    - `gene:is_orf`: 1 for a gene with a coding sequence of known genetic code and without a stop
      codon before the last one. RNA genes, pseudogenes and unknown frames give 0.
    - `gene:log2_length` (bp) and `gene:gc` (of A, C, G, T; 0.5 for N only) of the coding sequence,
      or from start to end of a gene that has none.

    Raises
    ------
    InputError
        If `k` is not 1 to 8, or `upstream_bp` is shorter than `k`.
    """
    if not 1 <= k <= 8 or upstream_bp < k:
        raise InputError(f"k={k} and upstream_bp={upstream_bp}", "k of 1 to 8 in upstream_bp >= k")
    genes = bundle.genes.set_index("gene_id").loc[bundle.observed.index]
    upstream = site_windows(bundle.genome, tss_sites(bundle, genes.index), upstream_bp, 0)
    codons, other = np.zeros((len(genes), 64)), np.zeros((len(genes), 3))
    for row, gene in enumerate(genes.itertuples(index=False)):
        body = coding_sequence(bundle.genome, gene)
        if is_orf := is_open(body, gene.genetic_code):
            codes = kmer_codes(body, 3, step=3)
            known = codes[codes >= 0]
            codons[row] = np.bincount(known, minlength=64) / max(1, len(known))
        elif not len(body):
            body = bundle.genome.fetch(gene.contig, gene.start, gene.end, gene.strand)
        bases = np.bincount(body, minlength=5)[:4]
        gc = (bases[1] + bases[2]) / bases.sum() if bases.sum() else 0.5
        other[row] = is_orf, np.log2(max(1, body.size)), gc
    columns = [f"kmer:{name}" for name in kmer_names(k)]
    columns += [f"codon:{name}" for name in kmer_names(3)]
    columns += ["gene:is_orf", "gene:log2_length", "gene:gc"]
    values = np.concatenate([kmer_features(upstream, k), codons, other], axis=1)
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


def conservation_features(bundle: Bundle) -> pd.DataFrame:
    """How much of each gene every relative has, and how much of that is the same.

    Columns `aligned:REGION:NAME` (share of the bases that have a base of the relative) and
    `identity:REGION:NAME` (share of these that are equal; 0 where nothing is aligned), and the
    same over all relatives, `aligned:REGION` and `identity:REGION`. Regions are the three codon
    positions of the coding sequence (of a gene without one: all its bases, three times) and the
    `CONSERVED_BP` bases before the TSS. NAME is a relative, or a group of them where the bundle
    has only a summary. A bundle without relatives: a table without columns.
    """
    if bundle.relatives is None:
        return pd.DataFrame(index=bundle.observed.index)
    genes = bundle.genes.set_index("gene_id").loc[bundle.observed.index]
    bases, starts, sizes = _region_bases(bundle, genes)
    columns: dict[str, np.ndarray] = {}
    total = np.zeros((2, len(sizes)))
    n_relatives = 0
    for name, count, same in bundle.relatives.sources(bundle.genome):
        there, equal = (
            np.add.reduceat(each[bases], starts, dtype=np.float64)[:-1] * (sizes > 0)
            for each in (count, same)
        )
        most = bundle.relatives.size_of(name)
        columns |= _shares(there / most, equal / most, sizes, f":{name}")
        total += there, equal
        n_relatives += most
    columns |= _shares(total[0] / max(1, n_relatives), total[1] / max(1, n_relatives), sizes, "")
    return pd.DataFrame(columns, index=genes.index)


def _region_bases(
    bundle: Bundle, genes: pd.DataFrame
) -> tuple[
    Int64[np.ndarray, " bases"], Int64[np.ndarray, " starts"], Int64[np.ndarray, " regions"]
]:
    """Indices into `Genome.tokens` of all regions of all genes, where each begins, and its size."""
    parts: list[np.ndarray] = []
    for gene in genes.itertuples():
        contig = bundle.genome.contig(gene.contig)
        coding = contig.offset + coding_positions(gene) % contig.length
        whole = gene_bases(bundle.genome, gene)
        parts += [coding[k::3] if len(coding) else whole for k in range(3)]
        before = (-CONSERVED_BP, 0) if gene.strand == "+" else (1, CONSERVED_BP + 1)
        index, is_inside = bundle.genome.indices(
            gene.contig, gene.tss + before[0], gene.tss + before[1]
        )
        parts.append(index[is_inside])
    sizes = np.array([len(part) for part in parts])
    # One more base, which no region has, so that the last region ends before it.
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return np.concatenate([*parts, np.zeros(1, np.int64)]), starts, sizes


def _shares(
    there: np.ndarray, equal: np.ndarray, sizes: np.ndarray, suffix: str
) -> dict[str, np.ndarray]:
    aligned = (there / np.maximum(sizes, 1)).reshape(-1, len(REGIONS))
    identity = (equal / np.where(there > 0, there, 1)).reshape(-1, len(REGIONS))
    found = {f"aligned:{region}{suffix}": aligned[:, i] for i, region in enumerate(REGIONS)}
    return found | {
        f"identity:{region}{suffix}": identity[:, i] for i, region in enumerate(REGIONS)
    }

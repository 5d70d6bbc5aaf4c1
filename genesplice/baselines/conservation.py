"""What relatives say of a gene: which of them have it, and how much of it is the same there.

Every function gives one row per *measured* gene, in the order of `Bundle.observed`. Relatives
bring sequence only, never expression.
"""

import numpy as np
import pandas as pd
from jaxtyping import Int64

from genesplice.data.bundle import Bundle
from genesplice.data.coding import coding_positions
from genesplice.data.features import gene_bases

UPSTREAM_BP = 200
REGIONS = ("codon_1", "codon_2", "codon_3", "upstream")


def conservation_features(bundle: Bundle) -> pd.DataFrame:
    """How much of each gene every relative has, and how much of that is the same.

    Columns `aligned:REGION:NAME` (share of the bases that have a base of the relative) and
    `identity:REGION:NAME` (share of these that are equal; 0 where nothing is aligned), and the
    same over all relatives, `aligned:REGION` and `identity:REGION`. Regions are the three codon
    positions of the coding sequence (of a gene without one: all its bases, three times) and the
    `UPSTREAM_BP` bases before the TSS. NAME is a relative, or a group of them where the bundle
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
        before = (-UPSTREAM_BP, 0) if gene.strand == "+" else (1, UPSTREAM_BP + 1)
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

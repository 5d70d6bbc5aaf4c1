"""What kind of place each base of a genome is: coding, intergenic, RNA gene, promoter."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, UInt8

from genesplice.data.bundle import Bundle
from genesplice.data.genome import Genome
from genesplice.data.windows import annotation_track

__all__ = ["PROMOTER_BP", "RNA_BIOTYPES", "first_of_operon", "region_masks", "upstream_mask"]

RNA_BIOTYPES = frozenset({"tRNA", "rRNA", "Mt_tRNA", "Mt_rRNA"})
PROMOTER_BP = (20, 100)
"""Before the `tss`: from the nearer to the farther base. In a bundle whose `tss` is the start
codon the transcript's leader (about 40 bp in E. coli) lies in between, and so does the -10 box."""


def region_masks(
    bundle: Bundle, track: UInt8[np.ndarray, "2 length"] | None = None
) -> dict[str, Bool[np.ndarray, " length"]]:
    """Masks over `Genome.tokens`: `coding`, `intergenic`, `rna`, `promoter`.

    - `coding`: in a reading frame on one strand, and in no gene on the other.
    - `intergenic`: in no gene on either strand.
    - `rna`: in a tRNA or rRNA gene (see `RNA_BIOTYPES`).
    - `promoter`: the intergenic bases among the `PROMOTER_BP` before an operon's first gene;
      these are intergenic as well.

    Other RNA genes, pseudogenes, genes without a frame and bases of two strands' genes are in none.

    Parameters
    ----------
    track
        `annotation_track` of the bundle, where it has been made already.
    """
    if track is None:
        track = annotation_track(bundle.genome, bundle.genes)
    is_frame = (track >= 1) & (track <= 3)
    intergenic = (track == 0).all(axis=0)
    is_rna = np.zeros(bundle.genome.length, bool)
    rna_genes = bundle.genes[bundle.genes["biotype"].isin(RNA_BIOTYPES)]
    for place in _places(bundle.genome, rna_genes):
        is_rna[place] = True
    first = bundle.genes[first_of_operon(bundle).to_numpy()]
    return {
        "coding": is_frame.any(axis=0) & (track == 0).any(axis=0),
        "intergenic": intergenic,
        "rna": is_rna,
        "promoter": intergenic & upstream_mask(bundle.genome, first, *PROMOTER_BP).any(axis=0),
    }


def first_of_operon(bundle: Bundle) -> pd.Series:
    """Whether each gene of `bundle.genes` is the first of its operon, by gene_id.

    The first is the one farthest upstream on the operon's strand. A gene that is alone in its
    operon is the first. An operon may run across the origin of a circular contig.
    """
    table = bundle.genes.merge(bundle.splits[["gene_id", "operon"]], on="gene_id", how="left")
    keys = ["contig", "strand", "operon"]
    length = table["contig"].map({c.name: c.length for c in bundle.genome.contigs})
    is_circular = table["contig"].map({c.name: c.is_circular for c in bundle.genome.contigs})
    low, high = (table.groupby(keys)["tss"].transform(how) for how in ("min", "max"))
    is_beyond = is_circular & (high - low > length / 2) & (table["tss"] < length / 2)
    along = (table["tss"] + length * is_beyond) * np.where(table["strand"] == "+", 1, -1)
    rank = along.groupby([table[key] for key in keys]).rank(method="first")
    return pd.Series((rank == 1).to_numpy(), index=pd.Index(table["gene_id"]), name="is_first")


def upstream_mask(
    genome: Genome, genes: pd.DataFrame, nearest_bp: int, farthest_bp: int
) -> Bool[np.ndarray, "2 length"]:
    """Bases `nearest_bp` to `farthest_bp` before the TSS (1: next to it), for + and - genes."""
    mask = np.zeros((2, genome.length), bool)
    for strand, sign in (("+", -1), ("-", 1)):
        for gene in genes[genes["strand"] == strand].itertuples():
            contig = genome.contig(gene.contig)
            place = gene.tss + sign * np.arange(nearest_bp, farthest_bp + 1)
            if not contig.is_circular:
                place = place[(place >= 0) & (place < contig.length)]
            mask[int(strand == "-"), contig.offset + place % contig.length] = True
    return mask


def _places(genome: Genome, genes: pd.DataFrame) -> Iterator[Any]:
    """Indices into `Genome.tokens` of each gene's bases."""
    for gene in genes.itertuples():
        contig = genome.contig(gene.contig)
        yield contig.offset + np.arange(gene.start, gene.end) % contig.length

"""What kind of place each base of a genome is: coding, intergenic, RNA gene, promoter."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, UInt8

from genesplice.data.bundle import Bundle
from genesplice.data.genome import Genome
from genesplice.data.leakage import COPY, RELATIVE
from genesplice.data.splits import first_of_operon
from genesplice.data.windows import annotation_track
from genesplice.evaluate.metrics import score
from genesplice.results import Metric

STRATUM_METRICS = ("level_spearman", "profile_r")
SPLIT = "held_out:"
FEWEST_GENES = 10
"""Fewer say nothing: any two genes have a rank correlation of 1 or -1."""


def gene_strata(bundle: Bundle) -> dict[str, pd.Index]:
    """The measured genes of every stratum, by name; each family of strata holds all of them."""
    genes = bundle.expression.var_names
    nearest = bundle.similarity.set_index("gene_id")["similarity"].reindex(genes).to_numpy()
    has_set = genes.isin(
        sorted({gene for members in bundle.gene_sets.values() for gene in members})
    )
    has_edge = genes.isin(sorted({*bundle.network["source"], *bundle.network["target"]}))
    first = first_of_operon(bundle.genome, bundle.genes, bundle.splits)
    is_first = genes.isin(first.index[first])
    masks = {
        f"nearest_train_below_{RELATIVE}": nearest < RELATIVE,
        f"nearest_train_{RELATIVE}_to_{COPY}": (nearest >= RELATIVE) & (nearest < COPY),
        f"nearest_train_from_{COPY}": nearest >= COPY,
        "in_gene_set": has_set,
        "in_no_gene_set": ~has_set,
        "in_network": has_edge,
        "not_in_network": ~has_edge,
        "operon_first": is_first,
        "operon_inner": ~is_first,
    }
    return {name: genes[mask] for name, mask in masks.items()}


def strata_metrics(
    predictions: pd.DataFrame,
    strata: Mapping[str, pd.Index],
    blocks: pd.Series,
    *,
    train_profile: pd.DataFrame,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> list[Metric]:
    """`STRATUM_METRICS` of every model and seed on the held-out genes of each stratum.

    Records have the split "held_out:NAME", pool all folds, and count in `n` the genes behind them.
    A stratum with fewer than 10 genes in `predictions`, or whose genes do not define a metric, has
    no record.

    Parameters
    ----------
    blocks, train_profile
        As for `genesplice.evaluate.metrics.score`.
    """
    metrics: list[Metric] = []
    for name, genes in strata.items():
        part = predictions[predictions["gene_id"].isin(genes)]
        if part["gene_id"].nunique() < FEWEST_GENES:
            continue
        found = score(
            part, blocks, train_profile=train_profile, n_bootstrap=n_bootstrap, seed=seed,
            by_fold=False, split=SPLIT + name,
        )  # fmt: skip
        metrics += [metric for metric in found if metric.metric in STRATUM_METRICS]
    return metrics


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
    first = bundle.genes[first_of_operon(bundle.genome, bundle.genes, bundle.splits).to_numpy()]
    return {
        "coding": is_frame.any(axis=0) & (track == 0).any(axis=0),
        "intergenic": intergenic,
        "rna": is_rna,
        "promoter": intergenic & upstream_mask(bundle.genome, first, *PROMOTER_BP).any(axis=0),
    }


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

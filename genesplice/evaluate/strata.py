"""Held-out genes by what could make them easy: relatives, knowledge, network, operon.

==========================  ====================================================================
`nearest_train_below_0.1`,  likeness of the nearest gene in another fold, as the passport measures
`..._0.1_to_0.5`,           it; from 0.1 on about 85 %, from 0.5 on about 95 % identity
`..._from_0.5`
`in_gene_set`,              a member of any gene set, or of none
`in_no_gene_set`
`in_network`,               an end of any edge, or of none
`not_in_network`
`operon_first`,             the first gene of its operon on the operon's strand (genes that are
`operon_inner`              alone too), or a later one
==========================  ====================================================================
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from genesplice.data.bundle import Bundle
from genesplice.data.passport import COPY, RELATIVE
from genesplice.evaluate.metrics import score
from genesplice.results import Metric

__all__ = ["STRATUM_METRICS", "gene_strata", "strata_metrics"]

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
    is_first = genes.isin(_first_of_operon(bundle))
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


def _first_of_operon(bundle: Bundle) -> pd.Index:
    """The gene of each operon (and strand) that is transcribed first."""
    genes = bundle.genes.merge(bundle.splits[["gene_id", "operon"]], on="gene_id")
    unit = ["operon", "contig", "strand"]
    lengths = {one.name: one.length for one in bundle.genome.contigs if one.is_circular}
    length = genes["contig"].astype(str).map(lengths)
    # An operon across the origin goes on at 0.
    last = genes.groupby(unit, observed=True)["start"].transform("max")
    turn = length.where(last - genes["start"] > length / 2, 0)
    is_minus = genes["strand"].astype(str).isin(["-", "-1"])
    along = np.where(is_minus, -(genes["end"] + turn), genes["start"] + turn)
    order = genes.assign(along=along).sort_values("along", kind="stable")
    return pd.Index(order.drop_duplicates(unit)["gene_id"])


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

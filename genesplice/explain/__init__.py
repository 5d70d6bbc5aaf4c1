"""Which bases, sites, heads and graph neighbours a prediction rests on, each with its checks."""

from genesplice.explain.attention import attention_of
from genesplice.explain.attribution import METHODS, attribution_table, completeness_metrics
from genesplice.explain.faithfulness import (
    Explanation,
    explain_genes,
    faithfulness_metrics,
    randomised,
)
from genesplice.explain.motifs import MotifScanner, motif_sites
from genesplice.explain.mutagenesis import mutate
from genesplice.explain.pathways import explain_edges, pathway_influence
from genesplice.predict.gene_output import Explainer

__all__ = [
    "METHODS",
    "Explainer",
    "Explanation",
    "MotifScanner",
    "attention_of",
    "attribution_table",
    "completeness_metrics",
    "explain_edges",
    "explain_genes",
    "faithfulness_metrics",
    "motif_sites",
    "mutate",
    "pathway_influence",
    "randomised",
]

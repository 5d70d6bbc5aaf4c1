"""Why the model says what it says."""

from genesplice.explain.attribution import integrated_gradients
from genesplice.explain.faithfulness import (
    checked_attributions,
    curve_table,
    curves,
    faithfulness_metrics,
    faithfulness_table,
    judge,
    randomised,
)
from genesplice.explain.methods import METHODS
from genesplice.explain.motifs import MotifScanner
from genesplice.explain.mutagenesis import knock_out, mutate
from genesplice.predict.gene_output import Explainer

__all__ = [
    "METHODS",
    "Explainer",
    "MotifScanner",
    "checked_attributions",
    "curve_table",
    "curves",
    "faithfulness_metrics",
    "faithfulness_table",
    "integrated_gradients",
    "judge",
    "knock_out",
    "mutate",
    "randomised",
]

"""Why the model says what it says."""

from genesplice.explain.attribution import Explainer, integrated_gradients
from genesplice.explain.methods import METHODS
from genesplice.explain.motifs import MotifScanner
from genesplice.explain.mutagenesis import knock_out, mutate

__all__ = ["METHODS", "Explainer", "MotifScanner", "integrated_gradients", "knock_out", "mutate"]

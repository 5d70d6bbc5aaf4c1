"""How well expression is predicted, beside what simple methods reach."""

from genesplice.evaluate.baselines import BASELINES, available_baselines, run_baselines
from genesplice.evaluate.metrics import METRICS, fold_profiles, paired_difference, score

__all__ = [
    "BASELINES",
    "METRICS",
    "available_baselines",
    "fold_profiles",
    "paired_difference",
    "run_baselines",
    "score",
]

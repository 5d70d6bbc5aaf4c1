"""How well expression is predicted, beside what simple methods reach."""

from genesplice.evaluate.metrics import METRICS, fold_profiles, paired_difference, score

__all__ = [
    "METRICS",
    "fold_profiles",
    "paired_difference",
    "score",
]

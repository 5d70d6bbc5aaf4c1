"""What the command measures besides a VCF: known classes, and a measured table."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from genesplice.data.bundle import Bundle
from genesplice.predict.gene_output import Explainer
from genesplice.results import Metric
from genesplice.runtime import atomic_file
from genesplice.variants.annotate import Settings
from genesplice.variants.classes import benchmark_classes, box_levels
from genesplice.variants.levels import LevelModel, Levels
from genesplice.variants.likelihood import MaskedBases
from genesplice.variants.measured import measured_metrics, read_measured, score_measured
from genesplice.variants.models import Models


def class_figures(
    models: Models,
    bundle: Bundle,
    *,
    n_genes: int = 100,
    seed: int = 0,
    vectors: Sequence[Tensor] | None = None,
) -> list[Metric]:
    """AUROCs of known classes: zero-shot, and of promoter boxes by the first expression model.

    Parameters
    ----------
    vectors
        What each expression model says of every gene (`encode_genes`), where it is at hand.
    """
    metrics = []
    if models.masked is not None:
        score = MaskedBases(models.masked)
        metrics += benchmark_classes(score, bundle, n_genes=n_genes, seed=seed)
    if models.levels:
        known = None if vectors is None else vectors[0]
        explainer = Explainer(models.levels[0], bundle, window_bp=4096, vectors=known)
        metrics += box_levels(explainer, n_genes=n_genes, seed=seed)
    return metrics


def measured_figures(
    models: Models, bundle: Bundle, path: Path, out: Path, settings: Settings
) -> list[Metric]:
    """Score a measured table, write it to `out` as TSV, and give its figures."""
    table = read_measured(path)
    masked = None if models.masked is None else MaskedBases(models.masked)
    levels = None
    if models.levels:
        readers = [LevelModel(model, bundle) for model in models.levels]
        levels = Levels(readers, bundle, window_bp=settings.level_window_bp)
    scored = score_measured(table, bundle, masked=masked, levels=levels)
    metrics = measured_metrics(scored, seed=settings.seed)
    with atomic_file(out) as partial:
        scored.to_csv(partial, sep="\t", index=False)
    return metrics

"""Passes over a genome, whose windows begin elsewhere each time."""

import numpy as np

from genesplice.config import FinetuneConfig
from genesplice.data.bundle import Bundle
from genesplice.data.genome import Genome
from genesplice.data.windows import (
    Window,
    WindowBatch,
    annotation_track,
    group_windows,
    make_batch,
    tile_windows,
)

__all__ = ["GenomePasses", "epoch_steps"]


def epoch_steps(genome: Genome, settings: FinetuneConfig) -> int:
    """Optimiser steps of one pass over the genome, wherever its windows begin."""
    edges = 0, settings.core_bp - 1
    return max(len(_groups(genome, settings, offset_bp)) for offset_bp in edges)


class GenomePasses:
    """Batches of windows, each a function of its number alone; `steps` of them make a pass.

    All genes are in a pass, held-out ones too: who learns from it must choose.
    """

    def __init__(self, bundle: Bundle, settings: FinetuneConfig, *, fold: int, seed: int) -> None:
        self.bundle, self.settings, self.fold, self.seed = bundle, settings, fold, seed
        self.steps = epoch_steps(bundle.genome, settings)
        self._track = annotation_track(bundle.genome, bundle.genes)

    def __call__(self, step: int) -> WindowBatch:
        """The windows of one step."""
        epoch, place = divmod(step, self.steps)
        generator = np.random.default_rng([self.seed, self.fold, epoch])
        offset_bp = int(generator.integers(0, self.settings.core_bp))
        groups = _groups(self.bundle.genome, self.settings, offset_bp)
        order = generator.permutation(len(groups))
        chosen = groups[order[place % len(groups)]]
        return make_batch(self.bundle.genome, chosen, self.bundle.genes, self._track)


def _groups(genome: Genome, settings: FinetuneConfig, offset_bp: int) -> list[list[Window]]:
    windows = tile_windows(genome, settings.core_bp, settings.flank_bp, offset_bp=offset_bp)
    return group_windows(windows, settings.batch_windows)

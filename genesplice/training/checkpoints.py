"""Checkpoints that a kill at any moment leaves whole."""

import os
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

__all__ = ["AtomicCheckpointIO", "Checkpoints"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the older checkpoint, then rename.

    Lightning writes into the system's folder for temporary files and moves the file from there:
    where that is another file system the move copies over the older checkpoint, and a kill in
    the middle leaves none.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write all of it to the disk before it takes its name."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        with partial.open("wb") as handle:
            torch.save(checkpoint, handle)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(partial, target)


class Checkpoints(Checkpoint):
    """Save `last.ckpt` every so many minutes, between two optimiser steps.

    In the middle of one, the gradients that were gathered so far would be lost. Lightning calls
    this callback after all others, so that what they keep belongs to the same step.
    """

    def __init__(self, folder: Path, minutes: float) -> None:
        self.path, self.every_s = folder / "last.ckpt", 60 * minutes
        self.saved = 0.0

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Start the clock."""
        self.saved = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save, if it is time."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        # The clocks of several processes differ; all of them must save or none.
        is_due = trainer.strategy.broadcast(time.monotonic() - self.saved >= self.every_s)
        if is_due:
            trainer.save_checkpoint(self.path)
            self.saved = time.monotonic()

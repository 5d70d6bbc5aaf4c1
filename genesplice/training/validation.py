"""Choosing weights by blocks that are neither trained on nor held out."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import lightning
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from genesplice.training.loops import History

__all__ = ["PLATEAU_FACTOR", "PLATEAU_PATIENCE", "Validation"]

PLATEAU_FACTOR = 1 / 3
PLATEAU_PATIENCE = 2


class Validation(lightning.Callback):
    """Measure now and then, remember the best weights, and stop when it gets no better.

    Parameters
    ----------
    measure
        Bits per base on the validation blocks; lower is better.
    averaged
        The weights to measure and to remember are those of the model inside of it.
    every, patience
        Optimiser steps between two looks, and looks without a better one before the end.
    is_plateau
        Multiply the learning rate with `PLATEAU_FACTOR` after `PLATEAU_PATIENCE` looks without a
        better one.
    """

    def __init__(
        self,
        model: nn.Module,
        measure: Callable[[], float],
        averaged: Callable[[], AbstractContextManager[None]],
        history: History,
        *,
        every: int,
        patience: int,
        is_plateau: bool = False,
    ) -> None:
        self.model, self.measure, self.averaged = model, measure, averaged
        self.history, self.every, self.patience = history, every, patience
        self.looked_at = self.in_vain = 0
        self.best: float | None = None
        self.weights: dict[str, Tensor] = {}
        self.is_plateau = is_plateau
        self.plateau: ReduceLROnPlateau | None = None
        self.plateau_state: dict[str, Any] = {}

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """A run that had stopped does not begin again."""
        trainer.should_stop = self.in_vain >= self.patience
        if self.is_plateau:
            (optimizer,) = trainer.optimizers
            self.plateau = ReduceLROnPlateau(
                optimizer, factor=PLATEAU_FACTOR, patience=PLATEAU_PATIENCE - 1, threshold=0
            )
            self.plateau.load_state_dict(self.plateau_state)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Look, if it is time, and at the last step in any case."""
        step = trainer.global_step
        if step == self.looked_at or (step % self.every and step < trainer.max_steps):
            return
        self.looked_at = step
        with self.averaged():
            # All processes must stop at the same step.
            value = trainer.strategy.broadcast(self.measure())
            if self.best is None or value < self.best:
                self.best, self.in_vain = value, 0
                state = self.model.state_dict()
                self.weights = {name: weight.detach().clone() for name, weight in state.items()}
            else:
                self.in_vain += 1
        if self.plateau is not None:
            self.plateau.step(value)
        self.history.add(step - 1, "bits_per_base", "val", value)
        trainer.should_stop = self.in_vain >= self.patience

    def apply(self) -> None:
        """Give the model the best weights, where there was a look."""
        if self.weights:
            self.model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """The best weights so far, and how the search stands."""
        return {
            "looked_at": self.looked_at,
            "in_vain": self.in_vain,
            "best": self.best,
            "weights": self.weights,
            "plateau": {} if self.plateau is None else _plain(self.plateau.state_dict()),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        self.looked_at, self.in_vain = state_dict["looked_at"], state_dict["in_vain"]
        self.best, self.weights = state_dict["best"], dict(state_dict["weights"])
        self.plateau_state = dict(state_dict["plateau"])


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint can hold without being unpickled."""
    return {name: value for name, value in state.items() if isinstance(value, int | float | list)}

"""A running mean of the weights, which is steadier than any single step's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage(lightning.Callback):
    """Exponential mean of a model's weights over the optimiser's steps; kept in checkpoints.

    After step t (from 1) the mean moves towards the weights by 1 - min(decay, (t - 1) / (t + 8)):
    the first step replaces the random weights, and a short run averages over about its last
    ninth instead of mostly over its beginning. Buffers are not averaged.

    Source: Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992; the
    warm-up as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.steps = model, decay, 0
        self.mean: list[Tensor] = []

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begin with the weights as they are, or go on on their device."""
        self.begin()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Take this step's weights in, if the batch ended one."""
        self.update(trainer.global_step)

    def begin(self) -> None:
        """Begin with the weights as they are, or go on on their device."""
        weights = list(self.model.parameters())
        if not self.mean:
            self.mean = [weight.detach().clone() for weight in weights]
        pairs = zip(self.mean, weights, strict=True)
        self.mean = [mean.to(weight.device) for mean, weight in pairs]

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take the weights after `steps` steps in, unless they were."""
        if steps == self.steps:
            return
        self.steps = steps
        share = 1 - min(self.decay, (steps - 1) / (steps + 8))
        for mean, weight in zip(self.mean, self.model.parameters(), strict=True):
            mean.lerp_(weight, share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the mean weights for a while."""
        own = [weight.detach().clone() for weight in self.model.parameters()]
        self.apply()
        try:
            yield
        finally:
            self._set(own)

    def apply(self) -> None:
        """Give the model the mean weights for good."""
        self._set(self.mean)

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for weight, value in zip(self.model.parameters(), values, strict=True):
            weight.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """The mean, and how many steps are in it."""
        return {"steps": self.steps, "mean": self.mean}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.steps, self.mean = state_dict["steps"], list(state_dict["mean"])

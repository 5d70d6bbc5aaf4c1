"""Learning-rate schedules, and the running mean of the weights."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from genesplice.config import did_you_mean
from genesplice.errors import InputError

WARM_UP = 0.1
ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 2500
CYCLES = 4
EXP_RANGE_END = 0.1
RESTARTS = 3
PLATEAU = "plateau"
"""The one that needs a validation loss; to `schedule_factor` it is constant."""


def _constant(progress: float, lowest: float) -> float:
    return 1.0


def _cosine(progress: float, lowest: float) -> float:
    if progress < WARM_UP:
        return progress / WARM_UP
    return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


def _one_cycle(progress: float, lowest: float) -> float:
    if progress < ONE_CYCLE_RISE:
        low, high, part = ONE_CYCLE_START, 1.0, progress / ONE_CYCLE_RISE
    else:
        low, high = 1.0, ONE_CYCLE_END
        part = (progress - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE)
    return low + (high - low) * (1 - math.cos(math.pi * part)) / 2


def _triangle(progress: float) -> tuple[int, float]:
    """Number of the cycle, and how far up it is."""
    cycle = min(int(progress * CYCLES), CYCLES - 1)
    return cycle, 1 - abs(2 * (progress * CYCLES - cycle) - 1)


def _triangular(progress: float, lowest: float) -> float:
    return lowest + (1 - lowest) * _triangle(progress)[1]


def _triangular2(progress: float, lowest: float) -> float:
    cycle, height = _triangle(progress)
    return lowest + (1 - lowest) * height / 2**cycle


def _exp_range(progress: float, lowest: float) -> float:
    return lowest + (1 - lowest) * _triangle(progress)[1] * EXP_RANGE_END**progress


def _warm_restarts(progress: float, lowest: float) -> float:
    # Lengths 1, 2, 4, ...: the run is 2^n - 1 of the first one.
    place = progress * (2**RESTARTS - 1)
    number = min(int(math.log2(place + 1)), RESTARTS - 1)
    part = (place + 1) / 2**number - 1
    return (1 + math.cos(math.pi * part)) / 2


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
    "triangular": _triangular,
    "triangular2": _triangular2,
    "exp_range": _exp_range,
    "warm_restarts": _warm_restarts,
    PLATEAU: _constant,
}


def schedule_factor(name: str, step: int, steps: int, *, lowest: float = 0.1) -> float:
    """What the peak rate is multiplied with at `step` of `steps` (from 0; 0 <= factor <= 1).

    `lowest` is where cycles begin, as a share of the peak rate.

    Raises
    ------
    InputError
        On an unknown name.
    """
    if name not in SCHEDULES:
        raise InputError(f"schedule '{name}'; {did_you_mean(name, SCHEDULES)}")
    return SCHEDULES[name](min((step + 0.5) / max(steps, 1), 1.0), lowest)


def make_schedule(
    optimizer: Optimizer, name: str, steps: int, *later: tuple[int, float], lowest: float = 0.1
) -> LambdaLR:
    """A torch scheduler that is stepped once per optimiser step.

    `later` phases of (steps, share of the peak rate) run through the same shape again.
    """
    schedule_factor(name, 0, steps)
    phases = [(steps, 1.0), *later]

    def factor(step: int) -> float:
        begin = 0
        for length, share in phases:
            if step < begin + length:
                return share * schedule_factor(name, step - begin, length, lowest=lowest)
            begin += length
        length, share = phases[-1]
        return share * schedule_factor(name, length, length, lowest=lowest)

    return LambdaLR(optimizer, factor)


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

"""Learning-rate schedules as plain functions of the step.

A schedule has no state: the rate at a step is the same however often a run was interrupted.
"""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from genesplice.config import did_you_mean
from genesplice.errors import InputError

__all__ = ["SCHEDULES", "make_schedule", "schedule_factor"]

WARM_UP = 0.1
ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 2500


def _constant(progress: float) -> float:
    return 1.0


def _cosine(progress: float) -> float:
    if progress < WARM_UP:
        return progress / WARM_UP
    return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


def _one_cycle(progress: float) -> float:
    if progress < ONE_CYCLE_RISE:
        low, high, part = ONE_CYCLE_START, 1.0, progress / ONE_CYCLE_RISE
    else:
        low, high = 1.0, ONE_CYCLE_END
        part = (progress - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE)
    return low + (high - low) * (1 - math.cos(math.pi * part)) / 2


def _triangular(progress: float) -> float:
    return 1 - abs(2 * progress - 1)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
    "triangular": _triangular,
}


def schedule_factor(name: str, step: int, steps: int) -> float:
    """What the peak rate is multiplied with at `step` of `steps` (from 0; 0 <= factor <= 1).

    `cosine` warms up over the first tenth; `one_cycle` rises over the first 30 %.

    Source: one_cycle after Smith and Topin, Super-convergence, 2018; triangular after Smith,
    Cyclical learning rates, 2017.

    Raises
    ------
    InputError
        On an unknown name.
    """
    if name not in SCHEDULES:
        raise InputError(f"schedule '{name}'; {did_you_mean(name, SCHEDULES)}")
    return SCHEDULES[name](min((step + 0.5) / max(steps, 1), 1.0))


def make_schedule(
    optimizer: Optimizer, name: str, steps: int, *later: tuple[int, float]
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
                return share * schedule_factor(name, step - begin, length)
            begin += length
        length, share = phases[-1]
        return share * schedule_factor(name, length, length)

    return LambdaLR(optimizer, factor)

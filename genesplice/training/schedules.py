r"""Learning-rate schedules as plain functions of the step.

A schedule has no state: the rate at a step is the same however often a run was interrupted.
With p the share of the run that is done, and what the peak rate is multiplied with:

=================  =================================================================================
`constant`         1
`cosine`           rises to 1 over the first tenth, then half a cosine down to 0
`one_cycle`        rises from 1/25 to 1 over the first 30 %, then falls to 1/2500
`triangular`       four times from `lowest` up to 1 and back, in straight lines
`triangular2`      the same, each peak half as far above `lowest` as the one before
`exp_range`        the same, each peak lower as 0.1 to the power of p
`warm_restarts`    three times half a cosine from 1 to 0, each twice as long as the one before
`plateau`          1, and a third of what it was whenever the validation loss gets no better (see
                   `genesplice.training.validation`): it depends on more than the step
=================  =================================================================================

Source: triangular, triangular2 and exp_range: Smith, Cyclical learning rates, 2017; one_cycle:
Smith and Topin, Super-convergence, 2018; warm_restarts: Loshchilov and Hutter, SGDR, 2017.
"""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from genesplice.config import did_you_mean
from genesplice.errors import InputError

__all__ = ["PLATEAU", "SCHEDULES", "make_schedule", "schedule_factor"]

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

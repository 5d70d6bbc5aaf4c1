"""One process or several: which one this is, and what it must share with the others.

Several are started by `torchrun`; each then computes its part of every batch.
"""

import os
from typing import cast

import lightning
import torch
from jaxtyping import Shaped
from torch import Tensor

__all__ = ["gather_rows", "is_first_process", "n_processes", "process_number", "sum_over_processes"]


def n_processes() -> int:
    """How many processes `torchrun` started for this run; 1 without it."""
    is_launched = torch.distributed.is_torchelastic_launched()
    return int(os.environ["WORLD_SIZE"]) if is_launched else 1


def process_number() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ["RANK"]) if torch.distributed.is_torchelastic_launched() else 0


def is_first_process() -> bool:
    """Only this one writes and scores."""
    return process_number() == 0


def gather_rows(
    module: lightning.LightningModule, rows: Shaped[Tensor, "rows *rest"]
) -> Shaped[Tensor, "all_rows *rest"]:
    """Rows of all processes in the order of their numbers; gradients flow back to each."""
    if n_processes() == 1:
        return rows
    found = cast(Tensor, module.all_gather(rows, sync_grads=rows.requires_grad))
    return found.flatten(0, 1)


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum of a value that each process has a part of."""
    if n_processes() > 1:
        value = value.clone()
        torch.distributed.all_reduce(value)
    return value

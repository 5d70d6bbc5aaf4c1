"""The Lightning trainer as this package uses it: quiet, repeatable, with one progress line."""

import json
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from genesplice.config import Config
from genesplice.errors import InputError
from genesplice.runtime import keep_freed_memory, write_json
from genesplice.training.checkpoints import AtomicCheckpointIO, Checkpoints
from genesplice.training.processes import is_first_process, n_processes
from genesplice.training.schedules import make_schedule

__all__ = [
    "GENOME",
    "History",
    "ProgressLines",
    "StepDataset",
    "StepLoader",
    "begin_run",
    "check_run",
    "fit",
    "is_taken",
    "make_optimizer",
    "make_trainer",
]


GENOME = "genome"
SETTINGS, INPUTS = "run.json", "inputs.json"
"""Folder of a run that keeps FASTA files as tokens."""


class StepDataset(Dataset):
    """`steps` batches, each a function of its number alone: resuming needs no state."""

    def __init__(self, steps: int, make: Any) -> None:
        self.steps, self.make = steps, make

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Any:
        if not 0 <= step < self.steps:
            raise IndexError(step)
        return self.make(step)


class _Steps(Sampler[int]):
    """0, 1, … from where it stopped."""

    def __init__(self, steps: int) -> None:
        self.steps, self.handed_out = steps, 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[int]:
        for step in range(self.handed_out, self.steps):
            self.handed_out = step + 1
            yield step


class StepLoader(DataLoader):
    """One batch a step, in order; a resumed trainer gets those that it has not seen."""

    def __init__(self, dataset: StepDataset) -> None:
        self.steps = _Steps(len(dataset))
        super().__init__(dataset, batch_size=None, sampler=self.steps, num_workers=0)

    def state_dict(self) -> dict[str, int]:
        """How many steps were handed out."""
        return {"handed_out": self.steps.handed_out}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after them."""
        self.steps.handed_out = state["handed_out"]


class ProgressLines(lightning.Callback):
    """A line on stderr every few seconds: step, loss, bases per second, time left."""

    def __init__(self, name: str, bases_per_step: int | float, every_s: float = 10.0) -> None:
        self.name, self.bases, self.every_s = name, bases_per_step, every_s
        self.began = self.told = 0.0
        self.first = 0

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Start the clock."""
        self.began = self.told = time.monotonic()
        self.first = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Tell, if it is time."""
        now, step, steps = (
            time.monotonic(),
            trainer.global_step,
            int(trainer.estimated_stepping_batches),
        )
        if now - self.told < self.every_s and step < steps:
            return
        self.told = now
        if not is_first_process():
            return
        pace = (now - self.began) / max(step - self.first, 1)
        loss = float(outputs["loss"] if isinstance(outputs, dict) else outputs)
        print(
            f"{self.name}: step {step}/{steps}, loss {loss:.3f}, "
            f"{self.bases / pace / 1e6:.2f} Mbp/s, {pace * (steps - step):.0f} s left",
            file=sys.stderr,
            flush=True,
        )


class History(lightning.Callback):
    """Everything logged, as rows (step, metric, split, value); kept in checkpoints."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, str, str, float | Tensor]] = []

    def add(self, step: int, metric: str, split: str, value: float | Tensor) -> None:
        """Append one value; one on a GPU is not waited for."""
        self._rows.append((step, metric, split, value))

    @property
    def rows(self) -> list[tuple[int, str, str, float]]:
        """All rows as plain numbers."""
        self._rows = [(step, metric, split, float(v)) for step, metric, split, v in self._rows]
        return self._rows  # type: ignore[return-value]

    def on_before_optimizer_step(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Log the rate of this step."""
        self.add(trainer.global_step, "learning_rate", "train", optimizer.param_groups[0]["lr"])

    def to_frame(self) -> pd.DataFrame:
        """The rows as columns step, metric, split, value."""
        return pd.DataFrame(self.rows, columns=["step", "metric", "split", "value"])

    def state_dict(self) -> dict[str, Any]:
        """Rows so far."""
        return {"rows": list(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Rows of the interrupted run."""
        self._rows = [tuple(row) for row in state_dict["rows"]]


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: float,
    weight_decay: float,
    schedule: str,
    phases: Sequence[tuple[int, float]],
    lowest: float = 0.1,
) -> OptimizerLRSchedulerConfig:
    """AdamW under a schedule that is stepped with every optimiser step.

    Each of the `phases` is (steps, share of `learning_rate`); cycles begin at `lowest` times the
    peak rate.
    """
    optimizer = torch.optim.AdamW(
        parameters, lr=learning_rate, weight_decay=weight_decay, fused=True
    )
    scheduler = make_schedule(optimizer, schedule, 0, *phases, lowest=lowest)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def make_trainer(
    *,
    steps: int,
    checkpoints: Path | None,
    callbacks: list[lightning.Callback],
    checkpoint_minutes: float = 2.0,
    accumulate: int = 1,
    is_distributed: bool = False,
    has_unused_weights: bool = False,
) -> lightning.Trainer:
    """A trainer for `steps` optimiser steps that saves `last.ckpt` into `checkpoints`.

    It does so every `checkpoint_minutes`. None keeps no checkpoint. Gradients are clipped to
    norm 1; bf16 on CUDA, fp32 on CPU.

    Parameters
    ----------
    accumulate
        Batches of one optimiser step.
    is_distributed
        Share the work with the other processes that `torchrun` started.
    has_unused_weights
        Some weights get no gradient, which several processes must know beforehand.
    """
    if checkpoints is not None:
        callbacks = [*callbacks, Checkpoints(checkpoints, checkpoint_minutes)]
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    shared: dict[str, Any] = {"devices": 1}
    if is_distributed and n_processes() > 1:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        strategy = DDPStrategy(find_unused_parameters=has_unused_weights, broadcast_buffers=False)
        shared = {"devices": here, "num_nodes": n_processes() // here, "strategy": strategy}
    return lightning.Trainer(
        accelerator="auto",
        **shared,
        precision="bf16-mixed" if torch.cuda.is_available() else "32-true",
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=1.0,
        logger=False,
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=checkpoints is not None,
        callbacks=callbacks,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        use_distributed_sampler=False,
    )


def fit(
    trainer: lightning.Trainer,
    module: lightning.LightningModule,
    steps: StepDataset,
    checkpoint: str | None,
) -> None:
    """Train on `steps`, from `checkpoint` if there is one; nothing in it is unpickled."""
    keep_freed_memory()
    interrupt = signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        # Lightning's own use of a torch function that torch has since renamed.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
        # A resumed run goes on in its own folder.
        warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty")
        try:
            trainer.fit(module, StepLoader(steps), ckpt_path=checkpoint, weights_only=True)
        except SystemExit:
            # On Ctrl-C Lightning ends the process with code 1 and ignores the next Ctrl-C.
            signal.signal(signal.SIGINT, interrupt)
            raise KeyboardInterrupt from None


def is_taken(out: Path) -> bool:
    """Say whether `out` holds anything but the genome that a run keeps there."""
    return out.exists() and (not out.is_dir() or any(p.name != GENOME for p in out.iterdir()))


def begin_run(
    out: Path,
    config: Config,
    resume: bool,
    inputs: Mapping[str, str] | None = None,
    sections: Sequence[str] = (),
) -> str | None:
    """Make `out` ready for a run; return the checkpoint to go on from, if there is one.

    Of several processes the first one checks and writes.

    Parameters
    ----------
    inputs
        Digests of what the run reads, by name.
    sections
        Of the settings that the run depends on; all unless told otherwise.

    Raises
    ------
    InputError
        If `out` is not empty and `resume` is False, or it was begun with other settings or inputs.
    """
    last = out / "checkpoints" / "last.ckpt"
    if not is_first_process():
        return str(last) if resume and last.exists() else None
    if is_taken(out):
        if not resume:
            raise InputError(f"{out} exists and is not empty", "a new folder, or --resume")
        check_run(out, config, inputs, sections)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / SETTINGS, config.to_dict())
    write_json(out / INPUTS, dict(inputs or {}))
    return str(last) if last.exists() else None


def check_run(
    out: Path,
    config: Config,
    inputs: Mapping[str, str] | None = None,
    sections: Sequence[str] = (),
) -> None:
    """See that the run in `out` was begun with these settings and `inputs` (see `begin_run`).

    Raises
    ------
    InputError
        If it was not.
    """
    settings, digests = out / SETTINGS, out / INPUTS
    if not settings.exists():
        raise InputError(f"no {settings.name} in {out}", "a run to resume")
    before, now = json.loads(settings.read_text()), json.loads(json.dumps(config.to_dict()))
    if any(before.get(name) != now[name] for name in sections or now):
        raise InputError(f"{out} was begun with other settings", f"those in {settings}")
    found = json.loads(digests.read_text()) if digests.exists() else {}
    wanted = dict(inputs or {})
    if found != wanted:
        names = sorted(name for name in found | wanted if found.get(name) != wanted.get(name))
        raise InputError(
            f"{out} was begun with other inputs ({', '.join(names[:5])})", f"those in {digests}"
        )

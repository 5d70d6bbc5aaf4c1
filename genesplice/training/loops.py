"""Passes over a genome, whose windows begin elsewhere each time."""

import json
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import lightning
import numpy as np
import pandas as pd
import torch
from jaxtyping import Shaped
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from genesplice.config import Config, FinetuneConfig
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
from genesplice.errors import InputError
from genesplice.runtime import keep_freed_memory, write_json
from genesplice.training.schedules import make_schedule


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

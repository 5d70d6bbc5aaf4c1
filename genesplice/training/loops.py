"""How training runs: numbered steps, checkpoints that resume bit for bit, callbacks."""

import functools
import json
import logging
import os
import signal
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from genesplice.config import Config
from genesplice.errors import WorkError, require
from genesplice.runtime import (
    INPUTS,
    atomic_file,
    is_taken,
    keep_freed_memory,
    say_seconds,
    tell,
    write_json,
)

Result = TypeVar("Result")
SETTINGS = "run.json"

# --- several processes ---


def n_processes() -> int:
    """How many processes `torchrun` started for this run; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if torch.distributed.is_torchelastic_launched() else 1


def process_number() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ["RANK"]) if torch.distributed.is_torchelastic_launched() else 0


def is_first_process() -> bool:
    """Only this one writes and scores."""
    return process_number() == 0


def first_process_first(work: Callable[[], Result], name: str) -> Result:
    """Do `work` in the first process, then in the others; where it failed there, all end.

    `name` is that of the work among all that is done in this way.

    Raises
    ------
    WorkError
        In another process than the first, if `work` failed there.
    """
    if n_processes() == 1:
        return work()
    if not is_first_process():
        try:
            is_done = _store().get(name) == b"done"
        except torch.distributed.DistError:  # the first process keeps it where nobody else does
            is_done = False
        if not is_done:
            raise WorkError("the first process ended")
        return work()
    state = "failed"
    try:
        result = work()
        state = "done"
    finally:
        _store().set(name, state)
    return result


def is_lost(error: BaseException) -> bool:
    """Say whether an error is that another process does not answer any more."""
    # Gloo's own errors have no class; each begins with the file of its source.
    return isinstance(error, torch.distributed.DistError) or "/gloo/transport/" in str(error)


@functools.cache
def _store() -> torch.distributed.Store:
    """Where the processes of `torchrun` meet."""
    store, _, _ = next(torch.distributed.rendezvous("env://"))
    store.set_timeout(timedelta(days=1))
    return store


# --- what watches a run ---


class StepCallback(Callback, ABC):
    """Calls `after_step` once after every optimiser step, and keeps the time."""

    began = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.began = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Call it, unless gradients are still being gathered."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.after_step(trainer, outputs)

    @abstractmethod
    def after_step(self, trainer: Trainer, outputs: Any) -> None:
        """`outputs` is what the training step of the last batch gave."""


class Checkpoints(StepCallback, Checkpoint):
    """Save `last.ckpt` every so many minutes; Lightning calls this callback after all others."""

    def __init__(self, folder: Path, minutes: float) -> None:
        self.path, self.every_s = folder / "last.ckpt", 60 * minutes

    def after_step(self, trainer: Trainer, outputs: Any) -> None:
        """Save, if it is time."""
        # The clocks of several processes differ; all of them must save or none.
        if trainer.strategy.broadcast(time.monotonic() - self.began >= self.every_s):
            trainer.save_checkpoint(self.path)
            self.began = time.monotonic()


class ProgressLines(StepCallback):
    """A line on stderr every ten seconds: step, loss, bases per second, minutes left."""

    def __init__(self, name: str, bases_per_step: int | float) -> None:
        self.name, self.bases = name, bases_per_step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self.printed, self.first = self.began, trainer.global_step

    def after_step(self, trainer: Trainer, outputs: Any) -> None:
        """Print, if it is time."""
        now, step, steps = time.monotonic(), trainer.global_step, trainer.max_steps
        if not is_first_process() or (now - self.printed < 10 and step < steps):
            return
        self.printed = now
        pace = (now - self.began) / max(step - self.first, 1)
        tell(
            f"{self.name}: step {step}/{steps}, loss {float(outputs['loss']):.3f}, "
            f"{self.bases / pace / 1e3:,.1f} kbp/s, {say_seconds(pace * (steps - step))} left"
        )


class History(Callback):
    """Everything logged, as rows (step, metric, split, value); kept in checkpoints."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, str, str, float | Tensor]] = []

    def add(self, step: int, metric: str, split: str, value: float | Tensor) -> None:
        """Append one value; one on a GPU is not waited for."""
        self._rows.append((step, metric, split, value))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Log the rate of this step."""
        self.add(trainer.global_step, "learning_rate", "train", optimizer.param_groups[0]["lr"])

    def to_frame(self) -> pd.DataFrame:
        """The rows as columns step, metric, split, value."""
        rows = self.state_dict()["rows"]
        return pd.DataFrame(rows, columns=["step", "metric", "split", "value"])

    def state_dict(self) -> dict[str, Any]:
        """Rows so far, as plain numbers."""
        self._rows = [(step, metric, split, float(v)) for step, metric, split, v in self._rows]
        return {"rows": list(self._rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Rows of the interrupted run."""
        self._rows = [tuple(row) for row in state_dict["rows"]]


# --- the trainer ---


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write next to the older checkpoint, then rename.

    Lightning writes into the system's folder for temporary files and moves the file from there:
    where that is another file system the move copies over the older checkpoint, and a kill in
    the middle leaves none.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write all of it to the disk before it takes its name."""
        with atomic_file(Path(path)) as partial, partial.open("wb") as handle:
            torch.save(checkpoint, handle)
            handle.flush()
            os.fsync(handle.fileno())


class StepLoader:
    """`steps` batches, each a function of its number alone; a resumed trainer gets the rest."""

    def __init__(self, steps: int, make: Callable[[int], Any]) -> None:
        self.steps, self.make, self.handed_out = steps, make, 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        for step in range(self.handed_out, self.steps):
            self.handed_out = step + 1
            yield self.make(step)

    def state_dict(self) -> dict[str, int]:
        """How many steps were handed out."""
        return {"handed_out": self.handed_out}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after them."""
        self.handed_out = state["handed_out"]


def choose_accelerator() -> str:
    """Lightning's choice, but never Apple's GPU: it lacks float64, which kernels are solved in."""
    if not torch.cuda.is_available() and torch.backends.mps.is_available():
        try:
            torch.zeros(1, dtype=torch.float64, device="mps")
        except (TypeError, RuntimeError):
            print("This machine's GPU has no float64: training on the CPU.", file=sys.stderr)
            return "cpu"
    return "auto"


def train(
    module: LightningModule,
    steps: int,
    make: Callable[[int], Any],
    callbacks: Sequence[Callback],
    *,
    folder: Path | None = None,
    resume_from: str | None = None,
    checkpoint_minutes: float = 2.0,
    accumulate: int = 1,
    strategy: DDPStrategy | None = None,
) -> None:
    """Train `module` for `steps` optimiser steps on the batches that `make` gives by number.

    Gradients are clipped to norm 1; bf16 on CUDA, fp32 elsewhere.

    Parameters
    ----------
    folder, checkpoint_minutes
        `last.ckpt` is saved there every so often; None keeps none.
    resume_from
        A checkpoint to go on from; nothing in it is unpickled.
    accumulate
        Batches of one optimiser step.
    strategy
        How to share the work with the other processes that `torchrun` started; None does not.

    Raises
    ------
    WorkError
        If another of the processes has ended.
    """
    callbacks = [*callbacks, *([Checkpoints(folder, checkpoint_minutes)] if folder else [])]
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    devices: dict[str, Any] = {"devices": 1}
    if strategy and n_processes() > 1:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        devices = {"devices": here, "num_nodes": n_processes() // here, "strategy": strategy}
    precision: Any = "bf16-mixed" if torch.cuda.is_available() else "32-true"
    trainer = Trainer(
        accelerator=choose_accelerator(), precision=precision, **devices, callbacks=callbacks,
        max_steps=steps, accumulate_grad_batches=accumulate, gradient_clip_val=1.0, logger=False,
        plugins=[AtomicCheckpointIO()], enable_checkpointing=folder is not None,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        limit_val_batches=0, use_distributed_sampler=False,
    )  # fmt: skip
    keep_freed_memory()
    loader, interrupt = StepLoader(steps * accumulate, make), signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        # Lightning's own use of a torch function that torch has since renamed.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
        # A resumed run goes on in its own folder.
        warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty")
        # Nothing of what an encoder returned is changed in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
        try:
            trainer.fit(module, loader, ckpt_path=resume_from, weights_only=True)
        except SystemExit:
            # On Ctrl-C Lightning ends the process with code 1 and ignores the next Ctrl-C.
            signal.signal(signal.SIGINT, interrupt)
            raise KeyboardInterrupt from None
        except RuntimeError as error:
            if n_processes() > 1 and is_lost(error):
                which = f"process {process_number()} of {n_processes()}"
                raise WorkError(f"{which}: another one ended; go on with --resume") from error
            raise


# --- the folder of a run ---


def last_checkpoint(folder: Path) -> str | None:
    """The checkpoint in a folder, if there is one."""
    last = folder / "last.ckpt"
    return str(last) if last.exists() else None


def begin_run(
    out: Path, config: Config, resume: bool, inputs: Mapping[str, str], sections: Sequence[str] = ()
) -> str | None:
    """Make `out` ready for a run; return the checkpoint to go on from, if there is one.

    Of several processes the first one checks and writes.

    Parameters
    ----------
    inputs
        Digests of what the run reads, by name.
    sections
        Of the settings that the run depends on; all, where none is named.

    Raises
    ------
    InputError
        If `out` is not empty and `resume` is False, or it was begun with other settings or inputs.
    """

    def begin() -> None:
        if not is_first_process():
            return
        if is_taken(out):
            require(resume, f"{out} exists and is not empty", "a new folder, or --resume")
            check_run(out, config, inputs, sections)
        out.mkdir(parents=True, exist_ok=True)
        # The settings last: with them a run has begun.
        write_json(out / INPUTS, dict(inputs))
        write_json(out / SETTINGS, config.to_dict())

    first_process_first(begin, f"begin {out}")
    return last_checkpoint(out / "checkpoints")


BESIDE = {
    "pretrain": ("ablations", "distributed"),
    "finetune": ("ablations", "ablation_seeds", "baselines", "folds", "seeds"),
}
"""Settings of what has folders of its own (a run goes on with more of it) or is no matter."""


def _own(settings: Mapping[str, Any], section: str) -> Any:
    """A section of the settings, as far as the run depends on it."""
    found, beside = settings.get(section), BESIDE.get(section)
    return {k: v for k, v in found.items() if k not in beside} if found and beside else found


def check_run(
    out: Path, config: Config, inputs: Mapping[str, str], sections: Sequence[str] = ()
) -> None:
    """See that the run in `out` was begun with these settings and `inputs` (see `begin_run`).

    Raises
    ------
    InputError
        If it was not.
    """
    settings, digests = out / SETTINGS, out / INPUTS
    require(settings.exists(), f"no {settings.name} in {out}", "a run to resume")
    before, now = json.loads(settings.read_text()), json.loads(json.dumps(config.to_dict()))
    is_same = all(_own(before, name) == _own(now, name) for name in sections or now)
    require(is_same, f"{out} was begun with other settings", f"those in {settings}")
    began = json.loads(digests.read_text()) if digests.exists() else {}
    names = sorted(name for name in {**began, **inputs} if began.get(name) != inputs.get(name))
    found = f"{out} was begun with other inputs ({', '.join(names[:5])})"
    require(not names, found, f"those in {digests}")

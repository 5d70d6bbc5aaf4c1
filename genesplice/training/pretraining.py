"""Self-supervised pre-training: masked bases and contrastive views, on DNA alone."""

import shutil
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from genesplice.config import Config
from genesplice.data.bundle import Bundle
from genesplice.data.genome import keep_genome
from genesplice.errors import InputError
from genesplice.model.adapters import read_weights
from genesplice.model.genesplice import GeneSplice, PretrainingModel
from genesplice.results import Metric
from genesplice.runtime import atomic_file
from genesplice.training.ablations import ablate_pretraining
from genesplice.training.batches import StepMaker, bases_per_batch
from genesplice.training.corpus import Source, bundle_source, source_digests
from genesplice.training.evaluation import masked_base_metrics, measure
from genesplice.training.loops import (
    ProgressLines,
    begin_run,
    is_first_process,
    n_processes,
    process_number,
    train,
)
from genesplice.training.pretrain_module import PretrainingModule
from genesplice.training.schedules import PLATEAU, Validation

VALIDATION_WINDOWS = 32


class PretrainingResult(NamedTuple):
    """What a run leaves: the model, its history (step, metric, split, value) and metrics.

    `held_out` says which blocks were not trained on. Of several processes, only the first scores.
    """

    model: PretrainingModel
    history: pd.DataFrame
    metrics: list[Metric]
    held_out: dict[str, Any]


def pretrain(
    bundle: Bundle, config: Config, out: Path, *, resume: bool = False
) -> PretrainingResult:
    """Pre-train an encoder on a bundle's genome, write it to `out` and measure it.

    Sequence of the held-out fold is never read in training. `out` gets `run.json`,
    `model.safetensors`, `history.parquet`, and `checkpoints/` while the run lasts; ablations are
    trained after it, in `out/ablations/NAME`.

    Raises
    ------
    InputError
        If `out` holds a run and `resume` is False, or the run in it had other settings.
    """
    settings = config.pretrain
    source = bundle_source(bundle, settings.holdout_fold, settings.validation_blocks)
    result = pretrain_source(source, config, out, resume=resume, is_scored=not settings.measure)
    ablations: dict[str, PretrainingModel] = {}
    for name in settings.ablations:
        changed, where = ablate_pretraining(source, config, name), out / "ablations" / name
        ablations[name] = pretrain_source(*changed, where, resume=resume, is_scored=False).model
    if not settings.measure or not is_first_process():
        return result
    return result._replace(metrics=measure(result.model, bundle, source, config, ablations))


def pretrain_source(
    source: Source, config: Config, out: Path, *, resume: bool = False, is_scored: bool = True
) -> PretrainingResult:
    """As `pretrain`, on any genome. A finished run is read back and scored, not run again.

    What is measured is the bits per base, or nothing without `is_scored`.

    Under `torchrun`, each process takes its part of every batch, and the first one writes.

    Raises
    ------
    InputError
        As `pretrain`, and if a view finds nothing to pair.
    """
    settings, started = config.pretrain, time.monotonic()
    maker = StepMaker(source, config, process=process_number(), processes=n_processes())
    sections = "model", "pretrain"
    checkpoint = begin_run(out, config, resume, source_digests(source), sections)
    weights, history = out / "model.safetensors", out / "history.parquet"
    if resume and weights.exists():
        model, rows = begin_model(config), pd.read_parquet(history)
        model.load_state_dict(load_file(weights))
    else:
        model, rows = _train(source, config, maker, out / "checkpoints", checkpoint)
        if is_first_process():
            rows.to_parquet(history, index=False)
            keep_genome(out, source.genome)
            with atomic_file(weights) as partial:
                save_file(model.state_dict(), partial)
            shutil.rmtree(out / "checkpoints", ignore_errors=True)
    metrics: list[Metric] = []
    if is_first_process():
        print(f"pretrain: {time.monotonic() - started:.0f} s", file=sys.stderr)
        fold = source.record["fold"]
        if is_scored:
            metrics = masked_base_metrics(
                model,
                source.genome,
                source.held_out,
                window_bp=settings.window_bp,
                fold=fold,
                seed=settings.seed,
                split="test" if fold is not None else "train",
            )
    return PretrainingResult(model, rows, metrics, source.record)


def train_model(source: Source, config: Config) -> tuple[PretrainingModel, pd.DataFrame]:
    """Pre-train as `pretrain_source` does, without a folder: the model and its history.

    Raises
    ------
    InputError
        If a view finds nothing to pair.
    """
    return _train(source, config, StepMaker(source, config))


def begin_model(config: Config) -> PretrainingModel:
    """Fresh weights by the seed."""
    torch.manual_seed(config.pretrain.seed)
    return PretrainingModel(config.model, config.pretrain.contrastive_width)


def _train(
    source: Source,
    config: Config,
    maker: StepMaker,
    checkpoints: Path | None = None,
    resume_from: str | None = None,
) -> tuple[PretrainingModel, pd.DataFrame]:
    """The model with the weights that are to be saved, and its history."""
    settings = config.pretrain
    module = PretrainingModule(begin_model(config), config)
    bases = bases_per_batch(settings) * settings.accumulate
    callbacks: list[lightning.Callback] = [module.history, ProgressLines("pretrain", bases)]

    def measure_bits(step: int) -> float:
        bits, *_ = masked_base_metrics(
            module.measured,
            source.genome,
            source.validation,
            window_bp=settings.window_bp,
            n_windows=VALIDATION_WINDOWS,
            is_strand_averaged=False,
        )
        module.history.add(step - 1, "bits_per_base", "val", bits.value)
        return bits.value

    validation = Validation(
        measure_bits,
        lambda: module.measured.state_dict(),
        lambda step: step % settings.validation_every == 0,
        patience=settings.patience,
        is_plateau=settings.schedule == PLATEAU,
    )
    if source.validation:
        callbacks.append(validation)
    train(
        module,
        settings.steps,
        maker,
        callbacks,
        folder=checkpoints,
        resume_from=resume_from,
        checkpoint_minutes=settings.checkpoint_minutes,
        accumulate=settings.accumulate,
        is_distributed=True,
        has_unused_weights=config.model.arch != "hierarchical"
        or config.model.context_bp is not None
        or (bool(settings.active_views) and settings.views_every > 1),
    )
    module.model.load_state_dict(validation.weights or module.measured.state_dict())
    return module.model, module.history.to_frame()


def load_encoder_weights(model: GeneSplice, directory: Path) -> None:
    """Copy a pre-trained encoder into `model.encoder`.

    Raises
    ------
    InputError
        If the folder holds no pre-trained model or its sizes differ.
    """
    path = directory / "model.safetensors"
    if not path.exists():
        raise InputError(f"no {path.name}", "a folder that pretrain wrote", path=directory)
    prefix, weights = "encoder.", read_weights(path)
    encoder = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    expected = model.encoder.state_dict()
    for name in [*expected, *encoder]:
        shape, own = (tuple(w[name].shape) if name in w else None for w in (encoder, expected))
        if shape != own:
            raise InputError(f"{name} of shape {shape}", f"{own}", path=path)
    model.encoder.load_state_dict(encoder)

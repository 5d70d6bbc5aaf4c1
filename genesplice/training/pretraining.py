"""Self-supervised pre-training: masked bases and contrastive views, on DNA alone.

Bases are hidden in everything that is read, and must be told; stretches of 1,024 bp that belong
together must find each other among all stretches of the batch and of earlier steps.
"""

import shutil
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import pandas as pd
import torch
from jaxtyping import Bool, Float
from lightning.pytorch.utilities.types import OptimizerConfig, OptimizerLRSchedulerConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from genesplice.config import Config
from genesplice.config.model import REGION_BP, SUMMARY_BP
from genesplice.data.bundle import Bundle
from genesplice.errors import InputError
from genesplice.model.genesplice import GeneSplice, PretrainingModel
from genesplice.model.heads import info_nce, masked_base_loss
from genesplice.model.sequence import MASK_TOKEN, EncoderOutput
from genesplice.results import Metric
from genesplice.runtime import atomic_file
from genesplice.training.contrast import Memory, are_related, stretch_vectors
from genesplice.training.loops import (
    History,
    ProgressLines,
    StepDataset,
    begin_run,
    fit,
    gather_rows,
    is_first_process,
    make_optimizer,
    make_trainer,
    n_processes,
    process_number,
    sum_over_processes,
)
from genesplice.training.measuring import masked_base_metrics, measure
from genesplice.training.pretrain_ablations import make_ablation
from genesplice.training.schedules import PLATEAU, WeightAverage
from genesplice.training.source import Source, bundle_source, source_digests
from genesplice.training.validation import Validation
from genesplice.training.views import Keys, Pairs, Rows, StepBatch, StepMaker

VALIDATION_WINDOWS = 32


class PretrainingResult(NamedTuple):
    """What a run leaves: the model, its history (step, metric, split, value) and metrics.

    `held_out` says which blocks were not trained on. Of several processes, only the first scores.
    """

    model: PretrainingModel
    history: pd.DataFrame
    metrics: list[Metric]
    held_out: dict[str, Any]


class PretrainingModule(lightning.LightningModule):
    """The losses and the optimiser; everything random is seeded by the batch's number."""

    def __init__(self, model: PretrainingModel, config: Config, history: History) -> None:
        super().__init__()
        self.model, self.config, self.history = model, config, history
        self.memory = Memory(config.pretrain.queue)
        self.told: dict[str, Tensor] = {}
        if not config.pretrain.active_views:
            self.model.contrastive.requires_grad_(False)

    def on_train_batch_start(self, batch: StepBatch, batch_idx: int) -> None:
        """Seed dropout by the batch, so that a resumed run draws what an unbroken one drew."""
        number = batch.number * n_processes() + process_number()
        torch.manual_seed(self.config.pretrain.seed * 1_000_003 + number)

    def training_step(self, batch: StepBatch, batch_idx: int) -> Float[Tensor, ""]:
        """Weighted sum of masked-base bits and InfoNCE over the views."""
        settings = self.config.pretrain
        encoded = [
            self.model.encode(rows.tokens.masked_fill(rows.is_target, MASK_TOKEN))
            for rows in batch.rows
        ]
        parts = zip(encoded, batch.rows, strict=True)
        bits = torch.stack([self._bits(out, rows, batch) for out, rows in parts]).sum()
        self._tell("bits_per_base", bits)
        # Divided by the number of processes and of batches later, when gradients are averaged.
        loss = settings.masked_weight * bits * n_processes() * settings.accumulate
        if batch.pairs:
            loss = loss + settings.contrastive_weight * self._contrast(encoded, batch)
        if (batch.number + 1) % settings.accumulate == 0:
            self._log()
        return loss

    def _bits(self, encoded: EncoderOutput, rows: Rows, batch: StepBatch) -> Tensor:
        """These rows' share of the step's mean bits over all targets."""
        if encoded.bases is None:
            logits = self.model.base_logits(encoded)
            total = batch.target_weight
            return masked_base_loss(logits, rows.tokens, rows.is_target, rows.weight, total)
        # Only what is asked for is decoded.
        at = rows.is_target
        logits = self.model.masked_bases(encoded.bases[at])[None]
        weight = None if rows.weight is None else rows.weight[at][None]
        return masked_base_loss(
            logits, rows.tokens[at][None], at[at][None], weight, batch.target_weight
        )

    def _contrast(self, encoded: list[EncoderOutput], batch: StepBatch) -> Tensor:
        """Sum of the views' InfoNCE, each times its weight."""
        settings = self.config.pretrain
        total = torch.zeros((), device=self.device)
        found: list[Tensor] = []
        for pairs in batch.pairs:
            one, two = (
                gather_rows(self, side) for side in self._pooled(encoded[pairs.rows], pairs)
            )
            one, two = self.model.contrastive(torch.cat([one, two])).chunk(2)
            keys = Keys(*(gather_rows(self, column) for column in pairs.keys))
            earlier = self.memory.recall(pairs.view, one.device)
            related = are_related(keys, keys)
            value = info_nce(
                one,
                two,
                settings.temperature,
                is_related=related,
                earlier_one=None if earlier is None else earlier.one.to(one),
                earlier_other=None if earlier is None else earlier.two.to(one),
                is_related_earlier=None if earlier is None else are_related(keys, earlier.keys),
            )
            self.memory.store(pairs.view, one.float(), two.float(), keys)
            total = total + settings.active_views[pairs.view] * value
            found.append(_share_found(one.detach(), two.detach(), related))
            if len(batch.pairs) > 1:
                self._tell(f"info_nce_{pairs.view}", value / settings.accumulate)
                self._tell(f"retrieval_at_1_{pairs.view}", found[-1] / settings.accumulate)
        self._tell("info_nce", total / settings.accumulate)
        self._tell("retrieval_at_1", torch.stack(found).mean() / settings.accumulate)
        return total

    def _pooled(self, encoded: EncoderOutput, pairs: Pairs) -> tuple[Tensor, Tensor]:
        summaries = encoded.summaries
        is_real = encoded.is_real.unflatten(1, (summaries.shape[1], -1)).any(-1)
        one, two = (
            self.model.contrastive.pool(
                *stretch_vectors(summaries, is_real, places, REGION_BP // SUMMARY_BP)
            )
            for places in (pairs.one, pairs.two)
        )
        return one, two

    def _tell(self, name: str, value: Tensor) -> None:
        """Add one batch's share of a value of this step."""
        before = self.told.get(name)
        self.told[name] = value.detach() if before is None else before + value.detach()

    def _log(self) -> None:
        # Of the bits every process has a part; of the rest each has all.
        self.told["bits_per_base"] = sum_over_processes(self.told["bits_per_base"])
        for name, value in self.told.items():
            self.history.add(self.global_step, name, "train", value)
        self.told = {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the vectors of earlier steps."""
        checkpoint["memory"] = self.memory.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back."""
        self.memory.load_state_dict(checkpoint["memory"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig | OptimizerConfig:
        """AdamW under the chosen schedule; for `plateau` the validation callback sets the rate."""
        settings = self.config.pretrain
        found = make_optimizer(
            [weight for weight in self.model.parameters() if weight.requires_grad],
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            schedule=settings.schedule,
            phases=((settings.steps, 1.0),),
            lowest=settings.lowest_rate,
        )
        return {"optimizer": found["optimizer"]} if settings.schedule == PLATEAU else found


def _share_found(
    one: Float[Tensor, "pairs width"],
    two: Float[Tensor, "pairs width"],
    is_related: Bool[Tensor, "pairs pairs"],
) -> Float[Tensor, ""]:
    """Share of the pairs whose first end has its second nearest, among those it must find it in."""
    if not len(one):
        return one.new_zeros(())
    place = torch.arange(len(one), device=one.device)
    others = is_related & (place[:, None] != place)
    nearest = (one @ two.T).masked_fill(others, -torch.inf).argmax(1)
    return (nearest == place).float().mean()


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
        ablation, own = make_ablation(source, config, name)
        done = pretrain_source(
            ablation, own, out / "ablations" / name, resume=resume, is_scored=False
        )
        ablations[name] = done.model
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
    model, history = begin_model(config), History()
    weights = out / "model.safetensors"
    if resume and weights.exists():
        model.load_state_dict(load_file(weights))
        rows = pd.read_parquet(out / "history.parquet")
    else:
        _train(model, source, config, maker, history, out, checkpoint)
        rows = history.to_frame()
    if not is_first_process():
        return PretrainingResult(model, rows, [], source.record)
    if not weights.exists():
        rows.to_parquet(out / "history.parquet", index=False)
        with atomic_file(weights) as partial:
            save_file(model.state_dict(), partial)
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    print(f"pretrain: {time.monotonic() - started:.0f} s", file=sys.stderr)
    if not is_scored:
        return PretrainingResult(model, rows, [], source.record)
    fold = source.record["fold"]
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
    model, history = begin_model(config), History()
    _train(model, source, config, StepMaker(source, config), history)
    return model, history.to_frame()


def begin_model(config: Config) -> PretrainingModel:
    """Fresh weights by the seed."""
    torch.manual_seed(config.pretrain.seed)
    return PretrainingModel(config.model, config.pretrain.contrastive_width)


def _train(
    model: PretrainingModel,
    source: Source,
    config: Config,
    maker: StepMaker,
    history: History,
    out: Path | None = None,
    checkpoint: str | None = None,
) -> None:
    """Leave `model` with the weights that are to be saved."""
    settings = config.pretrain
    callbacks: list[lightning.Callback] = [history]
    callbacks.append(ProgressLines("pretrain", maker.bases * settings.accumulate))
    average = WeightAverage(model, settings.ema_decay) if settings.ema_decay else None
    if average is not None:
        callbacks.append(average)

    def measure() -> float:
        metrics = masked_base_metrics(
            model,
            source.genome,
            source.validation,
            window_bp=settings.window_bp,
            n_windows=VALIDATION_WINDOWS,
            is_strand_averaged=False,
        )
        return metrics[0].value

    validation = None
    if source.validation:
        validation = Validation(
            model,
            measure,
            nullcontext if average is None else average.applied,
            history,
            every=settings.validation_every,
            patience=settings.patience,
            is_plateau=settings.schedule == PLATEAU,
        )
        callbacks.append(validation)
    trainer = make_trainer(
        steps=settings.steps,
        checkpoints=None if out is None else out / "checkpoints",
        checkpoint_minutes=settings.checkpoint_minutes,
        callbacks=callbacks,
        accumulate=settings.accumulate,
        is_distributed=True,
        has_unused_weights=config.model.arch != "hierarchical"
        or config.model.context_bp is not None
        or (bool(settings.active_views) and settings.views_every > 1),
    )
    module = PretrainingModule(model, config, history)
    fit(trainer, module, StepDataset(settings.steps * settings.accumulate, maker), checkpoint)
    if average is not None:
        average.apply()
    if validation is not None:
        validation.apply()


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
    weights = load_file(path)
    encoder = {
        k.removeprefix("encoder."): v for k, v in weights.items() if k.startswith("encoder.")
    }
    wanted = model.encoder.state_dict()
    for name in [*wanted, *encoder]:
        found, expected = (tuple(w[name].shape) if name in w else None for w in (encoder, wanted))
        if found != expected:
            raise InputError(f"{name} of shape {found}", f"{expected}", path=path)
    model.encoder.load_state_dict(encoder)

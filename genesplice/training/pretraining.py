"""Self-supervised pre-training: masked bases and contrastive views, on DNA alone.

Bases are hidden in everything that is encoded, and must be predicted; intervals of 1,024 bp that
belong together must find each other among all intervals of the batch and of earlier steps. Each
view keeps the vectors of earlier steps, first in, first out: they are negatives too, at the cost of
a product. They came from slightly older weights, and no gradient goes through them.

Source: Wang et al., Cross-batch memory for embedding learning, 2020.
"""

import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd
import torch
from jaxtyping import Float, Shaped
from lightning import Callback, LightningModule
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import OptimizerConfig, OptimizerLRSchedulerConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from genesplice.config import Config
from genesplice.config.model import REGION_BP, SUMMARY_BP
from genesplice.data.bundle import Bundle
from genesplice.data.knowledge import keep_genome
from genesplice.errors import require
from genesplice.model.adapters import read_weights
from genesplice.model.genesplice import PretrainingModel
from genesplice.model.heads import Vectors, info_nce, masked_base_loss
from genesplice.model.sequence import MASK_TOKEN, ConvBlock, EncoderOutput
from genesplice.results import Metric
from genesplice.runtime import atomic_file, tell, write_table
from genesplice.training import batches, corpus, evaluation, loops, schedules
from genesplice.training.ablations import ablate_pretraining
from genesplice.training.corpus import Source

VALIDATION_WINDOWS = 32
OURS = "genesplice"


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
    settings, config = config.pretrain, corpus.for_genome(config, bundle.genome)
    source = corpus.bundle_source(bundle, settings.holdout_fold, settings.validation_blocks)
    result = pretrain_source(source, config, out, resume=resume, is_scored=not settings.measure)
    models = {OURS: result.model}
    for name in settings.ablations:
        changed, where = ablate_pretraining(source, config, name), out / "ablations" / name
        models[name] = pretrain_source(*changed, where, resume=resume, is_scored=False).model
    if not settings.measure or not loops.is_first_process():
        return result
    return result._replace(metrics=evaluation.measure(models, bundle, source, config))


def pretrain_source(
    source: Source, config: Config, out: Path, *, resume: bool = False, is_scored: bool = True
) -> PretrainingResult:
    """As `pretrain`, on any genome. A finished run is read back and scored, not run again.

    What is measured is the bits per base, or nothing without `is_scored`.
    Under `torchrun`, each process takes its part of every batch, and the first one writes.

    Raises
    ------
    InputError
        As `pretrain`, if a view finds nothing to pair, this machine has too little memory, or
        one process is to share its weights.
    """
    config = corpus.for_genome(config, source.genome)
    is_shared = config.pretrain.distributed == "ddp" or loops.n_processes() > 1
    found = f"{config.pretrain.shown('distributed')} in one process"
    require(is_shared, found, "torchrun with two or more")
    corpus.require_memory(corpus.pretrain_need(config, source.genome))
    started = time.monotonic()
    parts = {"process": loops.process_number(), "processes": loops.n_processes()}
    maker, digests = batches.StepMaker(source, config, **parts), corpus.source_digests(source)
    was_begun = resume and (out / loops.SETTINGS).exists()
    checkpoint = loops.begin_run(out, config, resume, digests, ("model", "pretrain"))
    weights, history = out / "model.safetensors", out / "history.parquet"
    is_first, metrics = loops.is_first_process(), list[Metric]()
    if resume and weights.exists():
        model, rows = begin_model(config), pd.read_parquet(history)
        model.load_state_dict(read_weights(weights))
    else:
        if was_begun and checkpoint is None:
            tell("pretrain: no checkpoint was written yet, it begins at step 0")
        model, rows = train_model(source, config, maker, out / "checkpoints", checkpoint)
        if is_first:
            write_table(history, rows)
            keep_genome(out, source.genome)
            with atomic_file(weights) as partial:
                save_file(model.state_dict(), partial)
            shutil.rmtree(out / "checkpoints", ignore_errors=True)
    if is_first:
        print(f"pretrain: {time.monotonic() - started:.0f} s", file=sys.stderr)
    if is_first and is_scored:
        models = evaluation.with_subsets({OURS: model}, source.genome)
        metrics = evaluation.held_out_bits(models, source, config)
    return PretrainingResult(model, rows, metrics, source.record)


def begin_model(config: Config) -> PretrainingModel:
    """Fresh weights by the seed."""
    torch.manual_seed(config.pretrain.seed)
    return PretrainingModel(config.model, config.pretrain.contrastive_width)


def train_model(
    source: Source,
    config: Config,
    maker: batches.StepMaker | None = None,
    checkpoints: Path | None = None,
    resume_from: str | None = None,
) -> tuple[PretrainingModel, pd.DataFrame]:
    """The model with the weights that are to be saved, and its history.

    Raises
    ------
    InputError
        If a view finds nothing to pair.
    """
    config = corpus.for_genome(config, source.genome)
    settings, maker = config.pretrain, maker or batches.StepMaker(source, config)
    module = PretrainingModule(begin_model(config), config)
    bases = settings.mean_batch_bp * settings.accumulate
    callbacks: list[Callback] = [module.history, loops.ProgressLines("pretrain", bases)]

    def measure_bits(step: int) -> float:
        models = {OURS: module.assemble().to(module.device)}
        sizes: dict[str, Any] = {"window_bp": settings.window_bp, "n_windows": VALIDATION_WINDOWS}
        bits, *_ = evaluation.masked_base_metrics(
            models, source.genome, source.validation, is_strand_averaged=False, **sizes
        )
        module.history.add(step - 1, "bits_per_base", "val", bits.value)
        return bits.value

    validation = schedules.Validation(
        measure_bits,
        lambda: module.measured.state_dict(),
        lambda step: step % settings.validation_every == 0,
        patience=settings.patience,
        is_plateau=settings.schedule == schedules.PLATEAU,
    )
    if source.validation:
        callbacks.append(validation)
    is_cut = config.model.arch != "hierarchical" or config.model.context_bp is not None
    strategy: DDPStrategy = schedules.ShardedStrategy()
    if settings.distributed == "ddp":
        # Some weights get no gradient, which the processes must know beforehand.
        is_seldom = bool(settings.active_views) and settings.views_every > 1
        unused: dict[str, Any] = {"find_unused_parameters": is_cut or is_seldom}
        strategy = DDPStrategy(**unused, broadcast_buffers=False)
    loops.train(
        module,
        settings.steps,
        maker,
        callbacks,
        folder=checkpoints,
        resume_from=resume_from,
        checkpoint_minutes=settings.checkpoint_minutes,
        accumulate=settings.accumulate,
        strategy=strategy,
    )
    return module.assemble(validation.weights), module.history.to_frame()


def load_encoder_weights(encoder: nn.Module, directory: Path) -> None:
    """Copy a pre-trained encoder into one of the same sizes.

    Raises
    ------
    InputError
        If the folder holds no pre-trained model or its sizes differ.
    """
    path = directory / "model.safetensors"
    require(path.exists(), f"no {path.name}", "a folder that pretrain wrote", directory)
    prefix, weights = "encoder.", read_weights(path)
    found = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    expected = encoder.state_dict()
    for name in [*expected, *found]:
        shape, own = (tuple(w[name].shape) if name in w else None for w in (found, expected))
        require(shape == own, f"{name} of shape {shape}", f"{own}", path)
    encoder.load_state_dict(found)


# --- steps ---


class PretrainingModule(LightningModule):
    """The losses and the optimiser; everything random is seeded by the batch's number."""

    def __init__(self, model: PretrainingModel, config: Config) -> None:
        super().__init__()
        self.model, self.config, self.history = model, config, loops.History()
        self.queue = batches.Queue(config.pretrain.queue)
        self.logged: dict[str, Tensor] = {}
        if not config.pretrain.active_views:
            self.model.contrastive.requires_grad_(False)
        decay = config.pretrain.ema_decay
        self.average = schedules.average_weights(model, decay) if decay else None

    @property
    def measured(self) -> PretrainingModel:
        """The weights that are saved and scored: the running mean, where there is one."""
        return self.model if self.average is None else cast(PretrainingModel, self.average.module)

    def assemble(self, weights: Mapping[str, Tensor] | None = None) -> PretrainingModel:
        """A model with the measured weights, or with `weights`; all processes ask for it."""
        weights = weights or self.measured.state_dict()
        model = evaluation.make_untrained(self.config)
        for name, value in model.state_dict().items():
            value.copy_(schedules.whole(weights[name]))
        return model

    def on_train_batch_start(self, batch: batches.StepBatch, batch_idx: int) -> None:
        """Seed dropout by the batch, so that a resumed run draws what an unbroken one drew."""
        number = batch.number * loops.n_processes() + loops.process_number()
        torch.manual_seed(self.config.pretrain.seed * 1_000_003 + number)

    def training_step(self, batch: batches.StepBatch, batch_idx: int) -> Float[Tensor, ""]:
        """Weighted sum of masked-base bits and InfoNCE over the views."""
        settings = self.config.pretrain
        encoded = [
            self.model(rows.tokens.masked_fill(rows.is_target, MASK_TOKEN), rows.columns)
            for rows in batch.rows
        ]
        parts = zip(encoded, batch.rows, strict=True)
        bits = torch.stack([self.bits(out, rows, batch) for out, rows in parts]).sum()
        self._add("bits_per_base", bits)
        # Divided by the number of processes and of batches later, when gradients are averaged.
        loss = settings.masked_weight * bits * loops.n_processes() * settings.accumulate
        if batch.pairs:
            loss = loss + settings.contrastive_weight * self._contrast(encoded, batch)
        if (batch.number + 1) % settings.accumulate == 0:
            self._log()
        return loss

    def bits(self, encoded: EncoderOutput, rows: batches.Rows, batch: batches.StepBatch) -> Tensor:
        """These rows' share of the step's mean bits over all targets."""
        total = batch.target_weight
        shares = rows.shares() if self.config.pretrain.target == "column" else None
        if encoded.bases is None:
            logits = self.model.base_logits(encoded)
            return masked_base_loss(logits, rows.tokens, rows.is_target, rows.weight, total, shares)
        # Only targets are decoded.
        at = rows.is_target
        logits = self.model.masked_bases(encoded.bases[at])[None]
        weight = None if rows.weight is None else rows.weight[at][None]
        shares = None if shares is None else shares[at][None]
        return masked_base_loss(logits, rows.tokens[at][None], at[at][None], weight, total, shares)

    def _contrast(self, encoded: list[EncoderOutput], batch: batches.StepBatch) -> Tensor:
        """Sum of the views' InfoNCE, each times its weight."""
        settings = self.config.pretrain
        total, shares = torch.zeros((), device=self.device), []
        for pairs in batch.pairs:
            ends = self._pool(encoded[pairs.rows], pairs)
            one, two = self.model.contrastive(torch.cat([*map(self._gather, ends)])).chunk(2)
            keys = batches.Keys(*map(self._gather, pairs.keys))
            related, more = batches.are_related(keys, keys), dict[str, Tensor]()
            if earlier := self.queue.get(pairs.view, one.device):
                first, second, shown = earlier
                more = {"earlier_one": first.to(one), "earlier_other": second.to(one)}
                more["is_related_earlier"] = batches.are_related(keys, shown)
            value = info_nce(one, two, settings.temperature, is_related=related, **more)
            self.queue.add(pairs.view, one.float(), two.float(), keys)
            total = total + settings.active_views[pairs.view] * value
            shares.append(batches.retrieval_at_1(one.detach(), two.detach(), related))
            if len(batch.pairs) > 1:
                self._add(f"info_nce_{pairs.view}", value / settings.accumulate)
                self._add(f"retrieval_at_1_{pairs.view}", shares[-1] / settings.accumulate)
        self._add("info_nce", total / settings.accumulate)
        self._add("retrieval_at_1", torch.stack(shares).mean() / settings.accumulate)
        return total

    def _pool(self, encoded: EncoderOutput, pairs: batches.Pairs) -> list[Vectors]:
        """One vector for each end of every pair."""
        summaries, n = encoded.summaries, REGION_BP // SUMMARY_BP
        is_real = encoded.is_real.unflatten(1, (summaries.shape[1], -1)).any(-1)
        return [
            self.model.contrastive.pool(*batches.interval_summaries(summaries, is_real, starts, n))
            for starts in (pairs.one, pairs.two)
        ]

    def _gather(self, rows: Shaped[Tensor, "rows *rest"]) -> Shaped[Tensor, "all_rows *rest"]:
        """Rows of all processes in the order of their numbers; gradients flow back to each."""
        if loops.n_processes() == 1:
            return rows
        return cast(Tensor, self.all_gather(rows, sync_grads=rows.requires_grad)).flatten(0, 1)

    def _add(self, name: str, value: Tensor) -> None:
        """Add one batch's share of a value of this step."""
        before = self.logged.get(name)
        self.logged[name] = value.detach() if before is None else before + value.detach()

    def _log(self) -> None:
        # Of the bits every process has a part; of the rest each has all.
        if loops.n_processes() > 1:
            self.logged["bits_per_base"] = self.logged["bits_per_base"].clone()
            torch.distributed.all_reduce(self.logged["bits_per_base"])
        for name, value in self.logged.items():
            self.history.add(self.global_step, name, "train", value)
        self.logged = {}

    def optimizer_step(self, *arguments: Any, **more: Any) -> None:
        """Take the new weights into the running mean."""
        super().optimizer_step(*arguments, **more)
        if self.average is not None:
            self.average.update_parameters(self.model)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the vectors of earlier steps."""
        checkpoint["queue"] = self.queue.views

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back."""
        self.queue.views = checkpoint["queue"]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig | OptimizerConfig:
        """Muon and AdamW under the chosen schedule; for `plateau` validation sets the rate."""
        settings = self.config.pretrain
        blocks = [one for one in self.model.modules() if isinstance(one, ConvBlock)]
        matrices = [one.weight for block in blocks for one in (block.conv, block.contract)]
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        phases, lowest = [(settings.steps, 1.0)], settings.lowest_rate
        muon = {"matrices": matrices, "scale": settings.muon_scale}
        made = schedules.make_optimizer(
            weights, settings, settings.learning_rate, phases, lowest=lowest, **muon
        )
        return {"optimizer": made["optimizer"]} if settings.schedule == schedules.PLATEAU else made

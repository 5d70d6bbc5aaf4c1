"""The encoder learns expression from sequence alone, before network and gene sets are there.

    windows ─ encoder ─ genes of the batch ─ standardised ─ linear map ─► level, profile

Where graph and gene sets are in the loss from the first step, they explain the training genes by
themselves and leave an encoder that was not pre-trained nothing to learn. A linear map of what it
says of a gene cannot. The map is thrown away; graph, heads and kernel read the encoder's vectors.
"""

from pathlib import Path

import lightning
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genesplice.config import Config
from genesplice.data.windows import WindowBatch
from genesplice.model.genesplice import GeneSplice
from genesplice.model.heads import ExpressionHead, expression_errors
from genesplice.runtime import atomic_file
from genesplice.training.finetune_module import GeneTargets, Looks
from genesplice.training.loops import (
    GenomePasses,
    History,
    ProgressLines,
    StepDataset,
    fit,
    make_optimizer,
    make_trainer,
)

FEWEST_GENES = 16
"""Mean and spread of fewer say little."""


class SequenceModule(lightning.LightningModule):
    """The loss of one fold and seed, with what the encoder last said of every gene.

    Vectors are standardised over the batch's training genes, as in batch normalisation, and so is
    what they are to tell: neither holds how windows differ. Where the batch has few genes, both are
    standardised over all training genes, as they were last read.

    The validation genes are looked at after every pass, by vectors from all over the pass, and the
    encoder before its last step is kept where that was the best: where a pass is one step, the very
    one that was looked at.
    """

    memory: Tensor
    place: Tensor

    def __init__(
        self,
        model: GeneSplice,
        config: Config,
        training: GeneTargets,
        validation: GeneTargets,
        memory: Float[Tensor, "genes features"],
        history: History,
        *,
        seed: int,
        steps_per_pass: int,
    ) -> None:
        super().__init__()
        self.encoder, self.readout = model.encoder, model.readout
        self._read = model.gene_features
        self.config, self.history = config, history
        self.seed, self.steps_per_pass = seed, steps_per_pass
        n_conditions = training.observed.shape[1]
        self.head = ExpressionHead(
            memory.shape[1], n_conditions, config.model.profile_rank, is_linear=True
        )
        self.head.fit(training.observed)
        # It begins at the mean of the training genes.
        for weights in (*self.head.level.parameters(), *self.head.profile.parameters()):
            nn.init.zeros_(weights)
        self.training_genes, self.validation_genes = training, validation
        place = torch.full((len(memory),), -1)
        place[training.rows] = torch.arange(len(training.rows))
        self.register_buffer("memory", memory)
        self.register_buffer("place", place, persistent=False)
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self.looked_at: dict[str, Tensor] = {}

    def on_train_batch_start(self, batch: WindowBatch, batch_idx: int) -> None:
        """Seed dropout by the step; remember the encoder that the next look is at."""
        torch.manual_seed(self.seed * 1_000_003 + self.global_step)
        if (self.global_step + 1) % self.steps_per_pass == 0:
            self.looked_at = {k: v.detach().clone() for k, v in self.encoder.state_dict().items()}

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Float[Tensor, ""]:
        """Loss over the batch's training genes; windows without any add nothing to it."""
        fresh = self._read(
            batch.tokens, batch.phase, batch.window, batch.start, batch.end, batch.strand
        )
        self.memory.index_copy_(0, batch.gene, fresh.detach())
        is_known = self.place[batch.gene] >= 0
        if not is_known.any():
            return 0 * fresh.sum()
        known, mean = fresh[is_known], self.training_genes.observed.to(fresh).mean(0)
        observed = self.training_genes.observed.to(fresh)[self.place[batch.gene[is_known]]]
        if len(known) < FEWEST_GENES:
            self.readout.fit(self.memory[self.training_genes.rows])
            return self._log_errors("train", self.readout.standardise(known), observed)
        standardised = F.batch_norm(known, None, None, training=True)
        return self._log_errors("train", standardised, observed - observed.mean(0) + mean)

    def _log_errors(
        self, split: str, standardised: Float[Tensor, "genes features"], observed: Tensor
    ) -> Float[Tensor, ""]:
        head, level = self.head, observed.mean(1)
        level_error, residual_error = expression_errors(
            head(standardised),
            level,
            observed - level[:, None] - head.condition_mean,
            level_std=head.level_std,
            residual_std=head.residual_std,
        )
        self.history.add(self.global_step, "sequence_level_error", split, level_error.detach())
        self.history.add(
            self.global_step, "sequence_residual_error", split, residual_error.detach()
        )
        return level_error + self.config.finetune.profile_weight * residual_error

    @torch.no_grad()
    def look(self) -> None:
        """After a pass, measure the validation genes and remember the best encoder."""
        genes = self.validation_genes
        if self.global_step % self.steps_per_pass or not len(genes.rows):
            return
        self.readout.fit(self.memory[self.training_genes.rows])
        standardised = self.readout.standardise(self.memory[genes.rows])
        error = float(self._log_errors("val", standardised, genes.observed.to(self.memory)))
        if self.best is None or error < self.best[0]:
            self.best = error, self.looked_at

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keep the best encoder so far."""
        checkpoint["best"] = self.best

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Take it back."""
        self.best = checkpoint["best"]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW under the chosen schedule, for the encoder and the linear map."""
        settings = self.config.finetune
        return make_optimizer(
            [*self.encoder.parameters(), *self.head.parameters()],
            learning_rate=settings.sequence_rate,
            weight_decay=settings.weight_decay,
            schedule=settings.schedule,
            phases=((settings.sequence_epochs * self.steps_per_pass, 1.0),),
        )


def learn_from_sequence(
    model: GeneSplice,
    passes: GenomePasses,
    config: Config,
    training: GeneTargets,
    validation: GeneTargets,
    memory: Float[Tensor, "genes features"],
    out: Path,
    *,
    name: str,
) -> pd.DataFrame:
    """Train `model.encoder` for `finetune.sequence_epochs` passes; the history of its training.

    `out` keeps checkpoints and, at the end, the encoder: a run that was stopped goes on there. Once
    what comes after is finished too, nobody needs it.

    Parameters
    ----------
    training, validation
        Genes to learn from, and to choose the best pass by; all others are read and not used.
    memory
        What the encoder says of every gene now.
    name
        Of the lines of progress.
    """
    settings, finished, told = config.finetune, out / "encoder.safetensors", out / "history.parquet"
    if finished.exists():
        model.encoder.load_state_dict(load_file(finished))
        return pd.read_parquet(told)
    history = History()
    module = SequenceModule(
        model, config, training, validation, memory.clone(), history,
        seed=passes.seed, steps_per_pass=passes.steps,
    )  # fmt: skip
    bases = float(settings.batch_windows * (settings.core_bp + 2 * settings.flank_bp))
    steps, checkpoints = settings.sequence_epochs * passes.steps, out / "checkpoints"
    trainer = make_trainer(
        steps=steps,
        checkpoints=checkpoints,
        checkpoint_minutes=settings.checkpoint_minutes,
        callbacks=[history, ProgressLines(name, bases), Looks()],
    )
    last = checkpoints / "last.ckpt"
    fit(trainer, module, StepDataset(steps, passes), str(last) if last.exists() else None)
    if module.best is not None:
        model.encoder.load_state_dict(module.best[1])
    out.mkdir(parents=True, exist_ok=True)
    rows = history.to_frame()
    rows.to_parquet(told, index=False)
    with atomic_file(finished) as partial:
        save_file({k: v.contiguous() for k, v in model.encoder.state_dict().items()}, partial)
    return rows

"""The losses of fine-tuning, its memory of every gene, and its looks at the validation genes."""

from typing import Any, NamedTuple

import lightning
import torch
from jaxtyping import Float
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch_geometric.data import HeteroData

from genesplice.config import Config
from genesplice.data.windows import WindowBatch
from genesplice.model.genesplice import GeneSplice
from genesplice.model.losses import expression_errors
from genesplice.training.trainer import History, make_optimizer

__all__ = ["FinetuneModule", "GeneTargets", "Looks"]

HEAD_VALIDATION = 20


class GeneTargets(NamedTuple):
    """Rows of the gene table and their measured values, log2(TPM + 1)."""

    rows: Tensor
    observed: Tensor


class FinetuneModule(lightning.LightningModule):
    """Losses, memory and optimiser of one fold and seed."""

    memory: Tensor
    model: GeneSplice

    def __init__(
        self,
        model: GeneSplice,
        config: Config,
        graph: HeteroData,
        training: GeneTargets,
        validation: GeneTargets,
        memory: Float[Tensor, "genes joined"],
        history: History,
        *,
        seed: int,
        steps_per_epoch: int,
    ) -> None:
        super().__init__()
        self.model, self.config, self.history = model, config, history
        self.graph, self.training_genes, self.validation_genes = graph, training, validation
        self.seed, self.steps_per_epoch = seed, steps_per_epoch
        self.register_buffer("memory", memory)
        self.best: tuple[float, dict[str, Tensor]] | None = None

    def on_train_batch_start(self, batch: WindowBatch, batch_idx: int) -> None:
        """Seed dropout by the step."""
        torch.manual_seed(self.seed * 1_000_003 + self.global_step)

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Float[Tensor, ""]:
        """Loss over all training genes; those of this batch, if any, were encoded just now."""
        joined = self.memory
        if len(batch.gene):
            fresh = self.model.gene_vectors(
                batch.tokens, batch.phase, batch.window, batch.start, batch.end, batch.strand
            )
            joined = joined.index_copy(0, batch.gene, fresh)
            self.memory.index_copy_(0, batch.gene, fresh.detach())
        return self.log_errors("train", joined, self.training_genes)

    def look(self) -> None:
        """If it is time, measure the validation genes; remember the best weights."""
        step, alone = self.global_step, self.config.finetune.head_steps
        due = step % HEAD_VALIDATION if step < alone else (step - alone) % self.steps_per_epoch
        if due or not len(self.validation_genes.rows):
            return
        score = self.validate_now()
        if self.best is None or score < self.best[0]:
            state = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
            self.best = (score, state)

    @torch.no_grad()
    def validate_now(self) -> float:
        """Loss on the validation genes, from the memory."""
        self.model.eval()
        loss = self.log_errors("val", self.memory, self.validation_genes)
        self.model.train()
        return float(loss)

    def log_errors(
        self, split: str, joined: Float[Tensor, "genes joined"], target: GeneTargets
    ) -> Float[Tensor, ""]:
        """Loss on `target`, given what was read of all genes; its parts go into the history."""
        head = self.model.expression_head
        level = target.observed.mean(1)
        level_error, residual_error = expression_errors(
            self.model.predict_neural(joined, self.graph, target.rows)[0],
            level,
            target.observed - level[:, None] - head.condition_mean,
            level_std=head.level_std,
            residual_std=head.residual_std,
        )
        self.history.add(self.global_step, "level_error", split, level_error.detach())
        self.history.add(self.global_step, "residual_error", split, residual_error.detach())
        return level_error + self.config.finetune.profile_weight * residual_error

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keep the best weights so far."""
        checkpoint["best"] = self.best

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Take them back."""
        self.best = checkpoint["best"]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW under the chosen schedule."""
        settings = self.config.finetune
        return make_optimizer(
            self.model.parameters(),
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            schedule=settings.schedule,
            phases=(
                (settings.head_steps, 1.0),
                (settings.epochs * self.steps_per_epoch, settings.joint_rate),
            ),
        )


class Looks(lightning.Callback):
    """Looks at the validation genes before a checkpoint is written, which then holds what was seen.

    (A module's own hooks run after all callbacks.)
    """

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After every step."""
        pl_module.look()

"""The losses of fine-tuning, its memory of every gene, and its looks at the validation genes."""

import copy
from typing import Any, NamedTuple

import lightning
import torch
from jaxtyping import Float, Int64
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch_geometric.data import HeteroData

from genesplice.config import Config, FinetuneConfig
from genesplice.data.windows import WindowBatch
from genesplice.model.genesplice import GeneSplice
from genesplice.model.graph import cut_neighbourhood
from genesplice.model.heads import Prediction, expression_errors
from genesplice.training.loops import History, make_optimizer

HEAD_VALIDATION = 20
HIDDEN = 0.5
"""Share of training genes whose expression is hidden and predicted, where the graph tells it."""


class GeneTargets(NamedTuple):
    """Rows of the gene table and their measured values, log2(TPM + 1)."""

    rows: Tensor
    observed: Tensor


def draw_genes(genes: GeneTargets, share: float) -> GeneTargets:
    """A random share of the genes, one at least, in their order; drawn by torch's own state."""
    count = min(max(round(share * len(genes.rows)), 1), len(genes.rows))
    chosen = torch.randperm(len(genes.rows))[:count].sort().values
    return GeneTargets(genes.rows[chosen], genes.observed[chosen])


def hide_measured(graph: HeteroData, rows: Int64[Tensor, " genes"]) -> HeteroData:
    """The graph without the measured expression of `rows`."""
    hidden = copy.copy(graph)
    hidden["gene"].measured = graph["gene"].measured.index_fill(0, rows, 0.0)
    return hidden


def predict_part(
    model: GeneSplice,
    gene_features: Float[Tensor, "genes features"],
    graph: HeteroData,
    rows: Int64[Tensor, " asked"],
    config: FinetuneConfig,
    *,
    most: int | None = None,
) -> Prediction:
    """What the neural path says of `rows`: from the whole graph, or from their part of it.

    `most` edges of a type into one node carry in the latter (see `cut_neighbourhood`).
    """
    if config.graph_genes is not None:
        graph, genes, rows = cut_neighbourhood(graph, rows, len(model.graph.layers), most=most)
        gene_features = gene_features[genes]
    return model.predict_neural(gene_features, graph, rows)[0]


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
        memory: Float[Tensor, "genes features"],
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

    def on_fit_start(self) -> None:
        """What is no part of the model goes where the model is."""
        self.graph = copy.copy(self.graph).to(str(self.device))
        self.training_genes, self.validation_genes = (
            GeneTargets(*(part.to(self.device) for part in genes))
            for genes in (self.training_genes, self.validation_genes)
        )

    def on_train_batch_start(self, batch: WindowBatch, batch_idx: int) -> None:
        """Seed dropout by the step."""
        torch.manual_seed(self.seed * 1_000_003 + self.global_step)

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Float[Tensor, ""]:
        """Loss over the training genes; those of this batch, if any, were encoded just now."""
        gene_features = self.memory
        if len(batch.gene):
            fresh = self.model.gene_features(
                batch.tokens, batch.phase, batch.window, batch.start, batch.end, batch.strand
            )
            gene_features = gene_features.index_copy(0, batch.gene, fresh)
            self.memory.index_copy_(0, batch.gene, fresh.detach())
        graph, target = self.graph, self.training_genes
        if self.config.finetune.graph_genes:
            target = draw_genes(target, self.config.finetune.graph_genes / len(target.rows))
        elif "measured" in graph["gene"]:
            target = draw_genes(target, HIDDEN)
        if "measured" in graph["gene"]:
            graph = hide_measured(graph, target.rows)
        return self.log_errors("train", gene_features, target, graph)

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
        loss = self.log_errors("val", self.memory, self.validation_genes, self.graph)
        self.model.train()
        return float(loss)

    def log_errors(
        self,
        split: str,
        gene_features: Float[Tensor, "genes features"],
        target: GeneTargets,
        graph: HeteroData,
    ) -> Float[Tensor, ""]:
        """Loss on `target`, given what was read of all genes; its parts go into the history."""
        head, settings = self.model.expression_head, self.config.finetune
        most = settings.neighbours if split == "train" else None
        level = target.observed.mean(1)
        level_error, residual_error = expression_errors(
            predict_part(self.model, gene_features, graph, target.rows, settings, most=most),
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

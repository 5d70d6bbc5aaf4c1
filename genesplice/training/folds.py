"""What a fold learns from, and the two stages in which it learns by steps.

    sequence  windows ─ encoder ─ genes of the batch ─ standardised ─ linear map ─► level, profile
    all       features of all genes, those of the batch encoded afresh ─ graph ─ heads ─► the same

Where graph and gene sets are in the loss from the first step, they explain the training genes by
themselves and leave an encoder that was not pre-trained nothing to learn. A linear map of its
features cannot. The map is thrown away; graph, heads and kernel read the encoder's features.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from lightning import Callback, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from genesplice.config import Config, FinetuneConfig
from genesplice.data import windows
from genesplice.data.bundle import Bundle
from genesplice.data.expression import fill_missing
from genesplice.data.genome import Genome
from genesplice.data.windows import Window, WindowBatch
from genesplice.model.genesplice import Features, GeneSplice, Rows
from genesplice.model.graph import cut_neighbourhood
from genesplice.model.heads import ExpressionHead, Prediction
from genesplice.training.loops import History, ProgressLines, train
from genesplice.training.schedules import Validation, make_optimizer

HEAD_VALIDATION = 20
"""Steps between validation passes while the encoder stands still."""
HIDDEN = 0.5
"""Share of training genes whose expression is hidden and predicted, where the graph holds it."""
FEWEST_GENES = 16
"""A batch with fewer has no mean and spread of its own."""
_NO_GENES = torch.zeros(0, dtype=torch.int64)
NO_WINDOWS = WindowBatch(
    torch.zeros(0, 1024, dtype=torch.uint8), torch.zeros(0, 2, 1024, dtype=torch.uint8),
    _NO_GENES, _NO_GENES, _NO_GENES, _NO_GENES, torch.zeros(0, dtype=torch.int8),
    torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 1024, 0, 5, dtype=torch.uint8),
)  # fmt: skip
"""The batch of a step in which the encoder stands still."""


class GeneTargets(NamedTuple):
    """Rows of the gene table and their measured values, log2(TPM + 1)."""

    rows: Rows
    observed: Float[Tensor, "genes conditions"]


@dataclass(frozen=True)
class FoldData:
    """What a fold may read of expression; nothing of its held-out genes.

    `validation` are the genes of validation blocks, drawn from the training blocks, and `training`
    all others; `both` are together, in the order of the bundle, and `block` is where each lies.
    """

    training: GeneTargets
    validation: GeneTargets
    both: GeneTargets
    block: Shaped[np.ndarray, " genes"]
    training_ids: pd.Index
    validation_ids: pd.Index

    @classmethod
    def read(cls, bundle: Bundle, validation_blocks: float, fold: int) -> "FoldData":
        """Set a share of the training blocks aside for validation."""
        ids = bundle.train_genes(fold)
        block = bundle.block_of.loc[ids].to_numpy()
        blocks = np.unique(block)
        order = np.random.default_rng([fold, 11]).permutation(blocks)
        is_validation = np.isin(block, order[: round(validation_blocks * len(blocks))])
        row = pd.Index(bundle.genes["gene_id"])
        parts = ids[~is_validation], ids[is_validation], ids
        measured = fill_missing(bundle.observed.loc[ids])
        values = [measured.loc[part].to_numpy(dtype=np.float32) for part in parts]
        pairs = zip(map(row.get_indexer, parts), values, strict=True)
        training, validation, both = (GeneTargets(*map(torch.from_numpy, pair)) for pair in pairs)
        return cls(training, validation, both, block, parts[0], parts[1])


def epoch_steps(genome: Genome, settings: FinetuneConfig) -> int:
    """Optimiser steps of one pass over the genome, wherever its windows begin."""
    return max(len(_groups(genome, settings, offset)) for offset in (0, settings.core_bp - 1))


class GenomePasses:
    """Batches of windows, each a function of its number alone; `steps` of them make a pass.

    Windows begin elsewhere in each pass. All genes are in a pass, held-out ones too: who learns
    from it must choose.
    """

    def __init__(self, bundle: Bundle, settings: FinetuneConfig, *, fold: int, seed: int) -> None:
        self.bundle, self.settings, self.fold, self.seed = bundle, settings, fold, seed
        self.steps = epoch_steps(bundle.genome, settings)
        self._track = windows.annotation_track(bundle.genome, bundle.genes)

    def __call__(self, step: int) -> WindowBatch:
        """The windows of one step."""
        epoch, position = divmod(step, self.steps)
        generator = np.random.default_rng([self.seed, self.fold, epoch])
        offset_bp = int(generator.integers(0, self.settings.core_bp))
        groups = _groups(self.bundle.genome, self.settings, offset_bp)
        order = generator.permutation(len(groups))
        chosen = groups[order[position % len(groups)]]
        return windows.make_batch(self.bundle.genome, chosen, self.bundle.genes, self._track)


def _groups(genome: Genome, settings: FinetuneConfig, offset_bp: int) -> list[list[Window]]:
    sizes = settings.core_bp, settings.flank_bp
    tiles = windows.tile_windows(genome, *sizes, offset_bp=offset_bp)
    return windows.group_windows(tiles, settings.batch_windows)


class Learner(LightningModule, ABC):
    """What learns by steps of `n_windows` under the settings of fine-tuning.

    With `is_chosen` something is left to choose the best weights by. Dropout is seeded by the step.
    """

    def __init__(
        self, model: Any, config: Config, seed: int, *, is_chosen: bool, n_windows: int = 1
    ) -> None:
        super().__init__()
        self.model, self.config, self.history = model, config, History()
        self.seed, self.is_chosen, self.n_windows = seed, is_chosen, n_windows

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout by the step."""
        torch.manual_seed(self.seed * 1_000_003 + self.global_step)

    @abstractmethod
    def validate(self, step: int) -> float:
        """Loss on what nothing is fitted to."""

    @abstractmethod
    def is_validated(self, step: int) -> bool:
        """Say whether a validation pass follows `step`."""

    def validated_weights(self) -> Mapping[str, Tensor]:
        """The state that `validate` measures, of what `learner` is."""
        return self.model.state_dict()

    def run(
        self,
        steps: int,
        make: Callable[[int], Any],
        learner: nn.Module,
        folder: Path,
        resume_from: str | None,
        name: str,
    ) -> None:
        """Train for `steps` steps; leave `learner` with the weights that validated best."""
        settings = self.config.finetune
        bases = self.n_windows * (settings.core_bp + 2 * settings.flank_bp)
        callbacks: list[Callback] = [self.history, ProgressLines(name, bases)]
        validation = Validation(self.validate, self.validated_weights, self.is_validated)
        if self.is_chosen:
            callbacks.append(validation)
        train(
            self, steps, make, callbacks, folder=folder, resume_from=resume_from,
            checkpoint_minutes=settings.checkpoint_minutes,
        )  # fmt: skip
        if validation.weights:
            learner.load_state_dict(validation.weights)


class Stage(Learner):
    """Targets, gene features as they were last encoded, and the losses of one fold and seed."""

    gene_features: Tensor
    prefix = ""
    """Of the names of its losses."""

    def __init__(
        self,
        model: GeneSplice,
        config: Config,
        data: FoldData,
        features: Features,
        passes: GenomePasses,
    ) -> None:
        is_chosen, n_windows = len(data.validation.rows) > 0, config.finetune.batch_windows
        super().__init__(model, config, passes.seed, is_chosen=is_chosen, n_windows=n_windows)
        self.training_genes, self.validation_genes = data.training, data.validation
        self.passes = passes
        self.register_buffer("gene_features", features.clone())

    def on_fit_start(self) -> None:
        """What is no part of the model goes where the model is."""
        self.training_genes, self.validation_genes = (
            GeneTargets(*(part.to(self.device) for part in genes))
            for genes in (self.training_genes, self.validation_genes)
        )

    def encode(self, batch: WindowBatch) -> Float[Tensor, "batch_genes features"]:
        """Features of the batch's genes, which are kept without their gradient."""
        tokens, phase, gene, *interval = batch
        fresh = self.model.gene_features(tokens, phase, *interval)
        self.gene_features.index_copy_(0, gene, fresh.detach())
        return fresh

    def log_errors(
        self, head: ExpressionHead, split: str, predicted: Prediction, observed: Tensor
    ) -> Float[Tensor, ""]:
        """The loss, scaled as `head` is; its parts go into the history."""
        level_error, residual_error = head.errors(predicted, observed)
        parts = {"level_error": level_error, "residual_error": residual_error}
        for name, value in parts.items():
            self.history.add(self.global_step, self.prefix + name, split, value.detach())
        return level_error + self.config.finetune.profile_weight * residual_error

    def is_validated(self, step: int) -> bool:
        """After every pass."""
        return step % self.passes.steps == 0


class SequenceStage(Stage):
    """The encoder learns from a linear map of its features.

    Features are standardised over the batch's training genes, as in batch normalisation, and so is
    what they predict: neither holds how windows differ. Where the batch has few genes, both are
    standardised over all training genes, as these were last encoded.

    Validation genes are predicted after every pass, from features of all over the pass, and the
    encoder before its last step is kept where that was the best: where a pass is one step, the very
    one that was measured.
    """

    index: Tensor
    prefix = "sequence_"

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        n_genes, n_features = self.gene_features.shape
        rows, observed = self.training_genes
        rank = self.config.model.profile_rank
        self.head = ExpressionHead(n_features, observed.shape[1], rank, is_linear=True)
        self.head.fit(observed)
        # It begins at the mean of the training genes.
        for weights in (*self.head.level.parameters(), *self.head.profile.parameters()):
            nn.init.zeros_(weights)
        index = torch.full((n_genes,), -1)
        index[rows] = torch.arange(len(rows))
        self.register_buffer("index", index, persistent=False)
        self.before_last: dict[str, Tensor] = {}

    def on_train_batch_start(self, batch: WindowBatch, batch_idx: int) -> None:
        """Remember the encoder that is validated next, too."""
        super().on_train_batch_start(batch, batch_idx)
        if self.is_validated(self.global_step + 1):
            state = self.model.encoder.state_dict()
            self.before_last = {k: v.detach().clone() for k, v in state.items()}

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Float[Tensor, ""]:
        """Loss over the batch's training genes; windows without any add nothing to it."""
        fresh, index = self.encode(batch), self.index[batch.gene]
        if not (index >= 0).any():
            return 0 * fresh.sum()
        known, observed = fresh[index >= 0], self.training_genes.observed
        targets = observed[index[index >= 0]]
        if len(known) < FEWEST_GENES:
            standardised = self._standardise(known)
        else:
            standardised = F.batch_norm(known, None, None, training=True)
            targets = targets - targets.mean(0) + observed.mean(0)
        return self.log_errors(self.head, "train", self.head(standardised), targets)

    def _standardise(self, features: Tensor) -> Tensor:
        self.model.readout.fit(self.gene_features[self.training_genes.rows])
        return self.model.readout.standardise(features)

    @torch.no_grad()
    def validate(self, step: int) -> float:
        """Loss on the validation genes, by the features of the pass."""
        rows, observed = self.validation_genes
        predicted = self.head(self._standardise(self.gene_features[rows]))
        return float(self.log_errors(self.head, "val", predicted, observed))

    def validated_weights(self) -> Mapping[str, Tensor]:
        """The encoder before the last step of the pass."""
        return self.before_last

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """For the encoder and the linear map."""
        settings = self.config.finetune
        weights = [*self.model.encoder.parameters(), *self.head.parameters()]
        steps = settings.sequence_epochs * self.passes.steps
        return make_optimizer(weights, settings, settings.sequence_rate, [(steps, 1.0)])


class GraphStage(Stage):
    """Readout, graph and heads learn from all genes, first alone and then with the encoder."""

    def __init__(self, graph: HeteroData, *parts: Any) -> None:
        super().__init__(*parts)
        self.graph = graph

    def on_fit_start(self) -> None:
        """The graph goes with the targets."""
        super().on_fit_start()
        self.graph = copy.copy(self.graph).to(str(self.device))

    def batch(self, step: int) -> WindowBatch:
        """The windows of one step: none while the heads learn alone."""
        alone = self.config.finetune.head_steps
        return NO_WINDOWS if step < alone else self.passes(step - alone)

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Float[Tensor, ""]:
        """Loss over the training genes; those of this batch, if any, are encoded now."""
        features, graph, genes = self.gene_features, self.graph, self.training_genes
        if len(batch.gene):
            fresh = self.encode(batch)
            features = self.gene_features.index_copy(0, batch.gene, fresh)
        settings, is_measured = self.config.finetune, "measured" in graph["gene"]
        if settings.graph_genes:
            genes = draw_genes(genes, settings.graph_genes / len(genes.rows))
        elif is_measured:
            genes = draw_genes(genes, HIDDEN)
        if is_measured:
            graph = hide_measured(graph, genes.rows)
        most = settings.neighbours
        predicted = predict_part(self.model, features, graph, genes.rows, settings, most=most)
        return self.log_errors(self.model.expression_head, "train", predicted, genes.observed)

    @torch.no_grad()
    def validate(self, step: int) -> float:
        """Loss on the validation genes."""
        self.model.eval()
        rows, observed = self.validation_genes
        settings = self.config.finetune
        predicted = predict_part(self.model, self.gene_features, self.graph, rows, settings)
        loss = self.log_errors(self.model.expression_head, "val", predicted, observed)
        self.model.train()
        return float(loss)

    def is_validated(self, step: int) -> bool:
        """After every pass, and now and then before the first one."""
        alone = self.config.finetune.head_steps
        return step % HEAD_VALIDATION == 0 if step < alone else super().is_validated(step - alone)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """A schedule for the heads alone, and one for all."""
        settings = self.config.finetune
        joint = settings.epochs * self.passes.steps, settings.joint_rate
        phases = (settings.head_steps, 1.0), joint
        weights = self.model.parameters()
        return make_optimizer(weights, settings, settings.learning_rate, phases)


def draw_genes(genes: GeneTargets, share: float) -> GeneTargets:
    """A random share of the genes, one at least, in their order; drawn by torch's own state."""
    count = min(max(round(share * len(genes.rows)), 1), len(genes.rows))
    chosen = torch.randperm(len(genes.rows))[:count].sort().values
    return GeneTargets(genes.rows[chosen], genes.observed[chosen])


def hide_measured(graph: HeteroData, rows: Rows) -> HeteroData:
    """The graph without the measured expression of `rows`."""
    hidden = copy.copy(graph)
    hidden["gene"].measured = graph["gene"].measured.index_fill(0, rows, 0.0)
    return hidden


def predict_part(
    model: GeneSplice,
    gene_features: Features,
    graph: HeteroData,
    rows: Rows,
    config: FinetuneConfig,
    *,
    most: int | None = None,
) -> Prediction:
    """Prediction of the neural path for `rows`, from the whole graph or from their part of it.

    `most` edges of a type into one node carry in the latter (see `cut_neighbourhood`).
    """
    if config.graph_genes is not None:
        graph, genes, rows = cut_neighbourhood(graph, rows, len(model.graph.layers), most=most)
        gene_features = gene_features[genes]
    return model.predict_neural(gene_features, graph, rows)[0]

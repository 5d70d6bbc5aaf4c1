"""What a fold learns from: genes and their values, windows of the genome; and its kernel path."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch_geometric.data import HeteroData

from genesplice.baselines.ridge import KernelFit, KernelSettings, choose_kernel, fit_kernel
from genesplice.config import FinetuneConfig
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
from genesplice.model.genesplice import GeneSplice, mix_paths
from genesplice.model.heads import Prediction
from genesplice.model.kernel import TARGETS
from genesplice.runtime import one_thread, side_by_side

MIXTURE_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)

KernelChoice = tuple[KernelSettings, KernelSettings]
"""For level and residual."""


class GeneTargets(NamedTuple):
    """Rows of the gene table and their measured values, log2(TPM + 1)."""

    rows: Int64[Tensor, " genes"]
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
        block = bundle.splits.set_index("gene_id")["block"].loc[ids].to_numpy()
        blocks = np.unique(block)
        order = np.random.default_rng([fold, 11]).permutation(blocks)
        is_validation = np.isin(block, order[: round(validation_blocks * len(blocks))])
        row = pd.Index(bundle.genes["gene_id"])
        parts = ids[~is_validation], ids[is_validation], ids
        training, validation, both = (
            GeneTargets(
                torch.from_numpy(row.get_indexer(part)),
                torch.from_numpy(bundle.observed.loc[part].to_numpy(dtype=np.float32)),
            )
            for part in parts
        )
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
        self._track = annotation_track(bundle.genome, bundle.genes)

    def __call__(self, step: int) -> WindowBatch:
        """The windows of one step."""
        epoch, position = divmod(step, self.steps)
        generator = np.random.default_rng([self.seed, self.fold, epoch])
        offset_bp = int(generator.integers(0, self.settings.core_bp))
        groups = _groups(self.bundle.genome, self.settings, offset_bp)
        order = generator.permutation(len(groups))
        chosen = groups[order[position % len(groups)]]
        return make_batch(self.bundle.genome, chosen, self.bundle.genes, self._track)


def _groups(genome: Genome, settings: FinetuneConfig, offset_bp: int) -> list[list[Window]]:
    windows = tile_windows(genome, settings.core_bp, settings.flank_bp, offset_bp=offset_bp)
    return group_windows(windows, settings.batch_windows)


_NO_GENES = torch.zeros(0, dtype=torch.int64)
NO_WINDOWS = WindowBatch(
    torch.zeros(0, 1024, dtype=torch.uint8),
    torch.zeros(0, 2, 1024, dtype=torch.uint8),
    _NO_GENES,
    _NO_GENES,
    _NO_GENES,
    _NO_GENES,
    torch.zeros(0, dtype=torch.int8),
)
"""The batch of a step in which the encoder stands still."""


# --- the kernel path ---


@torch.no_grad()
def fit_kernel_path(
    model: GeneSplice,
    graph: HeteroData,
    gene_features: Float[Tensor, "all_genes features"],
    genes: GeneTargets,
    blocks: Shaped[np.ndarray, " genes"],
    settings: KernelChoice | None = None,
) -> tuple[KernelChoice, Prediction]:
    """Choose (where there are no `settings`) and solve `model.kernel` on training genes.

    Also gives the prediction for each of these genes by a fit without its block.
    """
    path = model.kernel
    # The sums then come out the same however many threads there are.
    with one_thread():
        standardised, known = model.kernel_inputs(gene_features, graph, genes.rows)
        path.set_support(standardised, known.to(torch.int8))
        parts, _, _ = path.inner_products(standardised, known)
        level = genes.observed.mean(1)
        residual = genes.observed - level[:, None] - model.expression_head.condition_mean
        mean = level.mean()
    targets = {"level": (level - mean)[:, None], "residual": residual}

    def fit(name: str) -> tuple[KernelSettings, KernelFit]:
        if settings is None:
            chosen = choose_kernel(parts, targets[name], blocks, rounds=2)
        else:
            chosen = settings[TARGETS.index(name)]
        return chosen, fit_kernel(parts, targets[name], blocks, chosen)

    fits = side_by_side(fit, TARGETS, gene_features.device)
    for name, (chosen, solved) in zip(TARGETS, fits, strict=True):
        weights = solved.weights[:, 0] if name == "level" else solved.weights
        path.set_solution(
            name, weights, chosen.scale, chosen.mixture, chosen.inverse_length, float(mean)
        )
    (for_level, level_fit), (for_residual, residual_fit) = fits
    return (for_level, for_residual), Prediction(
        level_fit.left_out.float()[:, 0] + mean, residual_fit.left_out.float()
    )


def choose_mix(
    neural: Prediction,
    kernel: Prediction,
    observed: Float[Tensor, "genes conditions"],
    condition_mean: Float[Tensor, " conditions"],
) -> tuple[float, float]:
    """Weights of the kernel path in level and residual with the smallest squared error.

    The genes are training genes that neither prediction was fitted to: validation blocks. Without
    any, each path counts half.
    """
    if not len(observed):
        return 0.5, 0.5
    level = observed.mean(1)
    truths = level, observed - level[:, None] - condition_mean
    chosen = []
    for one, other, truth in zip(neural, kernel, truths, strict=True):
        errors = [float((one + w * (other - one) - truth).square().mean()) for w in MIXTURE_WEIGHTS]
        chosen.append(MIXTURE_WEIGHTS[int(np.argmin(errors))])
    return chosen[0], chosen[1]


def add_kernel_path(
    model: GeneSplice,
    graph: HeteroData,
    gene_features: Float[Tensor, "all_genes features"],
    data: FoldData,
    neural: Prediction | None,
    settings: KernelChoice | None,
) -> tuple[KernelChoice, Prediction]:
    """Solve the kernel path on all training genes; mix it by the validation genes.

    Also gives the mix of `neural` (None where it took no step) with a kernel path that was solved
    without each gene's block, for the validation genes.
    """
    settings, left_out = fit_kernel_path(
        model, graph, gene_features, data.both, data.block, settings
    )
    is_validation = torch.isin(data.both.rows, data.validation.rows)
    kernel = Prediction(*(part[is_validation] for part in left_out))
    if neural is None:
        model.mix.fill_(1.0)
        return settings, kernel
    condition_mean = model.expression_head.condition_mean
    mix = choose_mix(neural, kernel, data.validation.observed, condition_mean)
    model.mix.copy_(torch.tensor(mix))
    return settings, mix_paths(neural, kernel, model.mix)

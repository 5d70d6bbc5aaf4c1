"""The kernel path of a model: solved on training genes, then mixed with the neural path."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch_geometric.data import HeteroData

from genesplice.evaluate.kernel_ridge import (
    KernelFit,
    KernelSettings,
    choose_kernel,
    fit_kernel,
)
from genesplice.model.genesplice import GeneSplice
from genesplice.model.heads import Prediction
from genesplice.model.kernel import TARGETS
from genesplice.threads import one_thread, side_by_side

__all__ = ["KernelFits", "choose_mix", "fit_kernel_path"]

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


class KernelFits(NamedTuple):
    """What was chosen for level and residual, and what is said of each training gene by a fit
    without its block.
    """

    settings: tuple[KernelSettings, KernelSettings]
    left_out: Prediction


@torch.no_grad()
def fit_kernel_path(
    model: GeneSplice,
    graph: HeteroData,
    joined: Float[Tensor, "all_genes joined"],
    rows: Int64[Tensor, " genes"],
    observed: Float[Tensor, "genes conditions"],
    blocks: Shaped[np.ndarray, " genes"],
    *,
    settings: tuple[KernelSettings, KernelSettings] | None = None,
    start: tuple[KernelSettings, KernelSettings] | None = None,
) -> KernelFits:
    """Choose and solve `model.kernel` on the training genes `rows`, whose scales it keeps.

    Parameters
    ----------
    joined
        What was read of every gene.
    settings
        Take these; nothing is chosen.
    start
        Where to begin choosing.
    """
    path, head = model.kernel, model.expression_head
    # The sums then come out the same however many threads there are.
    with one_thread():
        standardised, known = model.kernel_inputs(joined, graph, rows)
        path.remember(standardised, known.to(torch.int8))
        parts, _, _ = path.inner_products(standardised, known)
        level = observed.mean(1)
        residual = observed - level[:, None] - head.condition_mean
        mean = level.mean()
        targets = {"level": (level - mean)[:, None], "residual": residual}

    def fit(name: str) -> tuple[KernelSettings, KernelFit]:
        index, target = TARGETS.index(name), targets[name]
        if settings is not None:
            chosen = settings[index]
        else:
            first, rounds = (None, 2) if start is None else (start[index], 1)
            chosen = choose_kernel(parts, target, blocks, start=first, rounds=rounds)
        return chosen, fit_kernel(parts, target, blocks, chosen)

    fits = side_by_side(fit, TARGETS, joined.device)
    for name, (chosen, found) in zip(TARGETS, fits, strict=True):
        weights = found.weights[:, 0] if name == "level" else found.weights
        path.solve(name, weights, chosen.scale, chosen.share, chosen.sharpness, float(mean))
    (for_level, level_fit), (for_residual, residual_fit) = fits
    return KernelFits(
        (for_level, for_residual),
        Prediction(level_fit.left_out.float()[:, 0] + mean, residual_fit.left_out.float()),
    )


def choose_mix(
    neural: Prediction,
    kernel: Prediction,
    observed: Float[Tensor, "genes conditions"],
    condition_mean: Float[Tensor, " conditions"],
) -> tuple[float, float]:
    """Shares of the kernel path in level and residual with the smallest squared error.

    The genes are training genes that neither prediction was fitted to: validation blocks. Without
    any, each path counts half.
    """
    if not len(observed):
        return 0.5, 0.5
    level = observed.mean(1)
    wanted = level, observed - level[:, None] - condition_mean
    shares = []
    for one, other, truth in zip(neural, kernel, wanted, strict=True):
        errors = [float((one + s * (other - one) - truth).square().mean()) for s in SHARES]
        shares.append(SHARES[int(np.argmin(errors))])
    return shares[0], shares[1]

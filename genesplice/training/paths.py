"""The kernel path of a model: solved on training genes, then mixed with the neural path."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch_geometric.data import HeteroData

from genesplice.evaluate.kernel_ridge import KernelSettings, choose_kernel, fit_kernel
from genesplice.model.genesplice import GeneSplice
from genesplice.model.heads import Prediction
from genesplice.model.kernel import TARGETS
from genesplice.threads import one_thread

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
    with one_thread():
        return _fit(model, graph, joined, rows, observed, blocks, settings, start)


def _fit(
    model: GeneSplice,
    graph: HeteroData,
    joined: Tensor,
    rows: Tensor,
    observed: Tensor,
    blocks: np.ndarray,
    settings: tuple[KernelSettings, KernelSettings] | None,
    start: tuple[KernelSettings, KernelSettings] | None,
) -> KernelFits:
    path, head = model.kernel, model.expression_head
    standardised, known = model.kernel_inputs(joined, graph, rows)
    path.remember(standardised, known.to(torch.int8))
    parts, _, _ = path.inner_products(standardised, known)
    level = observed.mean(1)
    residual = observed - level[:, None] - head.condition_mean
    mean = level.mean()
    chosen, left_out = [], []
    for index, (name, target) in enumerate(
        zip(TARGETS, ((level - mean)[:, None], residual), strict=True)
    ):
        found = (
            settings[index]
            if settings is not None
            else choose_kernel(
                parts,
                target,
                blocks,
                start=None if start is None else start[index],
                rounds=2 if start is None else 1,
            )
        )
        fit = fit_kernel(parts, target, blocks, found)
        weights = fit.weights[:, 0] if name == "level" else fit.weights
        path.solve(name, weights, found.scale, found.share, found.sharpness, float(mean))
        chosen.append(found)
        left_out.append(fit.left_out.float())
    return KernelFits((chosen[0], chosen[1]), Prediction(left_out[0][:, 0] + mean, left_out[1]))


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

r"""Kernel ridge regression whose kernel is chosen by leaving out one genome block at a time.

With :math:`A = (K + \lambda I)^{-1}` and :math:`\alpha = A y`, the errors of a fit without block B
are exactly :math:`A_{BB}^{-1} \alpha_B`: one inverse gives the errors on all blocks.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equations 5.12 and
5.13, with blocks in place of single rows.
"""

import itertools
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from genesplice.errors import InputError
from genesplice.model.kernel import mix_kernel

PENALTIES = tuple(10.0 ** (power / 4) for power in range(25))
"""From 1 to 10^6 in quarter decades; features have unit variance, so this is against n genes."""


class RidgeFit(NamedTuple):
    """Coefficients for features that have mean 0 on the training genes, and what chose them.

    `block_mse` is the mean squared error on left-out blocks at each of `PENALTIES`.
    """

    coefficients: Float[np.ndarray, "features targets"]
    intercept: Float[np.ndarray, " targets"]
    penalty: float
    block_mse: Float[np.ndarray, " penalties"]

    def predict(
        self, features: Float[np.ndarray, "genes features"]
    ) -> Float[np.ndarray, "genes targets"]:
        """Predict all targets."""
        return features @ self.coefficients + self.intercept


def fit_ridge(
    features: Float[np.ndarray, "genes features"],
    targets: list[Float[np.ndarray, "genes _"]],
    blocks: Shaped[np.ndarray, " genes"],
    penalties: tuple[float, ...] = PENALTIES,
) -> list[RidgeFit]:
    r"""Fit each group of targets with the one penalty that predicts left-out blocks best.

    With the centred features :math:`U S V^T`, :math:`d = s^2 / (s^2 + \lambda)` and the smoother
    :math:`H = 1 1^T / n + U\,\mathrm{diag}(d)\,U^T`, the errors of a fit without block B are
    exactly :math:`(I - H_{BB})^{-1} (y - H y)_B`: one decomposition serves all penalties, blocks
    and targets. Neighbouring genes share operons, so leaving out single genes would choose too
    small a penalty.

    Parameters
    ----------
    features
        Standardised; their mean is taken off again.
    blocks
        Block of each gene. With one block only, every gene is its own.

    Raises
    ------
    InputError
        For fewer than three genes.

    Source: Hastie, Tibshirani & Friedman 2009, section 7.10 and exercise 7.3 for single rows.
    """
    n = len(features)
    if n < 3:
        raise InputError(f"{n} training genes", "at least 3")
    left, singular, right = _decompose(features - features.mean(axis=0))
    labels, block = np.unique(blocks, return_inverse=True)
    if len(labels) < 2:
        block = np.arange(n)
    members = [np.flatnonzero(block == label) for label in range(block.max() + 1)]
    stacked = np.concatenate(targets, axis=1)
    mean = stacked.mean(axis=0)
    projected = left.T @ (stacked - mean)
    edges = np.cumsum([0] + [target.shape[1] for target in targets])
    error = np.zeros((len(penalties), len(targets)))
    for row, penalty in enumerate(penalties):
        shrink = singular**2 / (singular**2 + penalty)
        residual = stacked - mean - left @ (shrink[:, None] * projected)
        for genes in members:
            hat = (left[genes] * shrink) @ left[genes].T + 1 / n
            left_out = np.linalg.solve(np.eye(len(genes)) - hat, residual[genes])
            error[row] += np.add.reduceat((left_out**2).sum(axis=0), edges[:-1])
    fits = []
    for group, (start, end) in enumerate(pairwise(edges)):
        penalty = penalties[int(np.argmin(error[:, group]))]
        shrink = singular / (singular**2 + penalty)
        coefficients = right @ (shrink[:, None] * projected[:, start:end])
        intercept = mean[start:end] - features.mean(axis=0) @ coefficients
        block_mse = error[:, group] / (n * (end - start))
        fits.append(RidgeFit(coefficients, intercept, penalty, block_mse))
    return fits


def _decompose(
    centred: Float[np.ndarray, "genes features"],
) -> tuple[
    Float[np.ndarray, "genes rank"],
    Float[np.ndarray, " rank"],
    Float[np.ndarray, "features rank"],
]:
    """Thin singular value decomposition through the smaller of the two Gram matrices."""
    n_genes, n_features = centred.shape
    is_tall = n_features <= n_genes
    values, vectors = np.linalg.eigh(centred.T @ centred if is_tall else centred @ centred.T)
    kept = values > 1e-10 * max(float(values.max(initial=0)), 1e-300)
    singular, vectors = np.sqrt(values[kept]), vectors[:, kept]
    if is_tall:
        return centred @ vectors / singular, singular, vectors
    return vectors, singular, centred.T @ vectors / singular


N_SEARCHED = 1600
ROUNDS = 2
FACTORS = (0.0, 0.25, 4.0)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
STEPS = (1 / 3, 3.0)
SMALLEST_PENALTY, LARGEST_PENALTY = 1e-4, 1e4


class KernelSettings(NamedTuple):
    """What decides a kernel: the weight of each part, and how much of it is stationary.

    `penalty` is against kernels whose diagonal is about 1.
    """

    scale: tuple[float, ...]
    share: float = 0.5
    sharpness: float = 1.0
    penalty: float = 0.3


class KernelFit(NamedTuple):
    """Weights of the training genes, and what fits without its own block say of each."""

    weights: Float[Tensor, "genes targets"]
    left_out: Float[Tensor, "genes targets"]


def make_kernel(
    parts: Float[Tensor, "parts genes genes"], settings: KernelSettings
) -> Float[Tensor, "genes genes"]:
    """The kernel of genes with themselves from their inner products, part by part."""
    scale = torch.tensor(settings.scale, dtype=parts.dtype)
    inner = torch.zeros_like(parts[0])
    for weight, part in zip(scale, parts, strict=True):
        if weight:
            inner = inner.add_(part, alpha=float(weight))
    own = inner.diagonal().clone()
    return mix_kernel(inner, own, own, settings.share, settings.sharpness)


def choose_kernel(
    parts: Float[Tensor, "parts genes genes"],
    targets: Float[Tensor, "genes targets"],
    blocks: Shaped[np.ndarray, " genes"],
    *,
    start: KernelSettings | None = None,
    rounds: int = ROUNDS,
) -> KernelSettings:
    """Change one setting at a time, and keep what predicts left-out blocks better.

    Up to 1,600 genes are searched with; the penalty is chosen again on all.

    Raises
    ------
    InputError
        For fewer than three genes.
    """
    n_genes = len(targets)
    if n_genes < 3:
        raise InputError(f"{n_genes} training genes", "at least 3")
    rows = _some_genes(n_genes)
    small = parts[:, rows][:, :, rows].float().contiguous()
    found = start or KernelSettings((1 / len(parts),) * len(parts))
    wanted, own_blocks = targets[rows].float(), _members(blocks[rows])
    best = _error(small, wanted, own_blocks, found)
    for _ in range(rounds):
        before = best
        # Each change is tried from the best that was found until then.
        for change in _changes(len(parts)):
            tried = change(found)
            error = best if tried == found else _error(small, wanted, own_blocks, tried)
            if error < best:
                found, best = tried, error
        if best > 0.9995 * before:
            break
    everything, all_blocks = parts.float(), _members(blocks)
    ways = [found._replace(penalty=found.penalty * factor) for factor in (0.4, 0.7, 1.0, 1.6)]
    errors = [_error(everything, targets.float(), all_blocks, way) for way in ways]
    return ways[int(np.argmin(errors))]


class _Change(NamedTuple):
    """One setting and what becomes of it."""

    name: str
    value: float
    part: int = 0

    def __call__(self, old: KernelSettings) -> KernelSettings:
        if self.name == "share":
            return old._replace(share=self.value)
        if self.name == "sharpness":
            return old._replace(sharpness=old.sharpness * self.value)
        if self.name == "penalty":
            penalty = float(np.clip(old.penalty * self.value, SMALLEST_PENALTY, LARGEST_PENALTY))
            return old._replace(penalty=penalty)
        scale = list(old.scale)
        # A part that was left out comes back with the mean weight of the others.
        mean = sum(scale) / max(sum(weight > 0 for weight in scale), 1)
        scale[self.part] = (scale[self.part] or mean) * self.value
        total = sum(scale)
        return old if total == 0 else old._replace(scale=tuple(w / total for w in scale))


def _changes(n_parts: int) -> Iterator[_Change]:
    for step in STEPS:
        yield _Change("penalty", step)
    for share in SHARES:
        yield _Change("share", share)
    for step in STEPS:
        yield _Change("sharpness", step)
    for part, factor in itertools.product(range(n_parts), FACTORS):
        yield _Change("scale", factor, part)
    for step in STEPS:
        yield _Change("penalty", step)


def fit_kernel(
    parts: Float[Tensor, "parts genes genes"],
    targets: Float[Tensor, "genes targets"],
    blocks: Shaped[np.ndarray, " genes"],
    settings: KernelSettings,
) -> KernelFit:
    """Solve in float64; targets have mean 0 over the genes."""
    inverse = _inverse(make_kernel(parts.double(), settings), settings.penalty)
    weights = inverse @ targets.double()
    errors = torch.zeros_like(weights)
    for rows in _members(blocks):
        errors[rows] = _block_errors(inverse, weights, rows)
    return KernelFit(weights, targets - errors)


def _error(
    parts: Tensor, targets: Tensor, members: Sequence[Tensor], settings: KernelSettings
) -> float:
    """Mean squared error on left-out blocks; infinite where the kernel cannot be inverted."""
    try:
        inverse = _inverse(make_kernel(parts, settings), settings.penalty)
    except torch.linalg.LinAlgError:
        return float("inf")
    weights = inverse @ targets
    total = sum(float(_block_errors(inverse, weights, rows).square().sum()) for rows in members)
    return total / targets.numel() if np.isfinite(total) else float("inf")


def _inverse(kernel: Tensor, penalty: float) -> Tensor:
    kernel.diagonal().add_(penalty)
    return torch.cholesky_inverse(torch.linalg.cholesky(kernel))


def _block_errors(inverse: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
    return torch.linalg.solve(inverse[rows][:, rows], weights[rows])


def _members(blocks: np.ndarray) -> list[Tensor]:
    """Rows of each block; with one block only, every gene is its own."""
    labels, block = np.unique(blocks, return_inverse=True)
    if len(labels) < 2:
        block = np.arange(len(blocks))
    return [torch.from_numpy(np.flatnonzero(block == b)) for b in range(block.max() + 1)]


def _some_genes(count: int) -> Tensor:
    """Rows of at most `N_SEARCHED` genes, evenly spread over all blocks.

    With fewer but whole blocks the choice rests on the luck of these: on *E. coli* it cost 0.02 to
    0.03 of level_r2 on left-out blocks.
    """
    return torch.arange(0, count, max(1, -(-count // N_SEARCHED)))

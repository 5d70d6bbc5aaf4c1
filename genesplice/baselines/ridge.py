r"""Kernel ridge regression whose kernel is chosen by leaving out one genome block at a time.

With :math:`A = (K + \lambda I)^{-1}` and :math:`\alpha = A y`, the errors of a fit without block B
are exactly :math:`A_{BB}^{-1} \alpha_B`: one inverse gives the errors on all blocks (0.55 s for
1,600 genes in 46 blocks; scikit-learn's KernelRidge under GroupKFold finds the same in 12 s).

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equations 5.12 and
5.13, with blocks in place of single rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch_geometric.data import HeteroData

from genesplice.errors import require
from genesplice.model.genesplice import Features, GeneSplice, Rows
from genesplice.model.heads import Prediction
from genesplice.model.kernel import TARGETS, KernelSettings, mix_kernel
from genesplice.runtime import side_by_side

Blocks = Shaped[np.ndarray, " genes"]
Genes = Float[Tensor, "genes targets"]
Parts = Float[Tensor, "parts genes genes"]

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

    def predict(self, features: Float[np.ndarray, "genes features"]) -> np.ndarray:
        """Predict all targets: genes x targets."""
        return features @ self.coefficients + self.intercept


def fit_ridge(
    features: Float[np.ndarray, "genes features"],
    targets: list[Float[np.ndarray, "genes _"]],
    blocks: Blocks,
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
    require(n >= 3, f"{n} training genes", "at least 3")
    left, singular, right = _decompose(features - features.mean(axis=0))
    members = _members(blocks)
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
) -> tuple[np.ndarray, Float[np.ndarray, " rank"], np.ndarray]:
    """Thin singular value decomposition through the smaller of the two Gram matrices."""
    n_genes, n_features = centred.shape
    is_tall = n_features <= n_genes
    values, vectors = np.linalg.eigh(centred.T @ centred if is_tall else centred @ centred.T)
    kept = values > 1e-10 * max(float(values.max(initial=0)), 1e-300)
    singular, vectors = np.sqrt(values[kept]), vectors[:, kept]
    if is_tall:
        return centred @ vectors / singular, singular, vectors
    return vectors, singular, centred.T @ vectors / singular


SEARCHED = 800, 1600
FACTORS = (0.0, 0.25, 4.0)
MIXTURES = (0.0, 0.25, 0.5, 0.75, 1.0)
STEPS, PENALTY_STEP = (1 / 3, 3.0), 1.5
PENALTY_LIMITS = 1e-4, 1e4


class KernelFit(NamedTuple):
    """Weights of the training genes, and what fits without its own block say of each."""

    weights: Genes
    left_out: Genes


def make_kernel(
    parts: Parts, settings: KernelSettings, dtype: torch.dtype | None = None
) -> Float[Tensor, "genes genes"]:
    """The kernel of genes with themselves from their inner products, part by part, in `dtype`."""
    dtype = dtype or parts.dtype
    scale = torch.tensor(settings.scale, dtype=dtype)
    inner = torch.zeros_like(parts[0], dtype=dtype)
    for weight, part in zip(scale, parts, strict=True):
        if weight:
            inner = inner.add_(part.to(dtype), alpha=float(weight))
    own = inner.diagonal().clone()
    return mix_kernel(inner, own, own, settings.mixture, settings.inverse_length)


def choose_kernel(parts: Parts, targets: Genes, blocks: Blocks) -> KernelSettings:
    """Change one setting at a time, and keep what predicts left-out blocks better.

    All changes are tried on 800 genes and then on 1,600; the penalty is chosen again on all.

    Raises
    ------
    InputError
        For fewer than three genes.
    """
    n_genes = len(targets)
    require(n_genes >= 3, f"{n_genes} training genes", "at least 3")
    chosen = KernelSettings((1 / len(parts),) * len(parts))
    for n_searched in SEARCHED:
        # Evenly spread over all blocks: with fewer but whole ones the choice rests on which these
        # are; on *E. coli* that cost 0.02 to 0.03 of level_r2 on left-out blocks.
        rows = torch.arange(0, n_genes, max(1, -(-n_genes // n_searched)))
        some, own_blocks = targets[rows].float(), _members(blocks[rows])
        small = parts[:, rows][:, :, rows].float().contiguous()
        errors = {chosen: _error(small, some, own_blocks, chosen)}
        for change in _changes(len(parts)):
            tried = _changed(chosen, *change)
            if tried not in errors:
                errors[tried] = _error(small, some, own_blocks, tried)
            if errors[tried] < errors[chosen]:
                chosen = tried
    return _with_best_penalty(parts.float(), targets.float(), _members(blocks), chosen)


def _with_best_penalty(
    parts: Parts, targets: Genes, members: Sequence[np.ndarray], chosen: KernelSettings
) -> KernelSettings:
    """The same settings with more penalty, or else less, as long as that predicts better."""
    begun = _error(parts, targets, members, chosen)

    def walk(step: float) -> KernelSettings:
        best, least = chosen, begun
        while True:
            tried = _changed(best, "penalty", step, 0)
            error = _error(parts, targets, members, tried)
            if error >= least:
                return best
            best, least = tried, error

    more = walk(PENALTY_STEP)
    return more if more != chosen else walk(1 / PENALTY_STEP)


def _changes(n_parts: int) -> list[tuple[str, float, int]]:
    """Settings to try one after the other: name, value or factor, and part."""
    penalties = [("penalty", step, 0) for step in STEPS]
    mixtures = [("mixture", weight, 0) for weight in MIXTURES]
    lengths = [("inverse_length", step, 0) for step in STEPS]
    scales = [("scale", factor, part) for part, factor in product(range(n_parts), FACTORS)]
    return [*penalties, *mixtures, *lengths, *scales, *penalties]


def _changed(old: KernelSettings, name: str, value: float, part: int) -> KernelSettings:
    if name == "mixture":
        return old._replace(mixture=value)
    if name == "inverse_length":
        return old._replace(inverse_length=old.inverse_length * value)
    if name == "penalty":
        return old._replace(penalty=float(np.clip(old.penalty * value, *PENALTY_LIMITS)))
    scale = list(old.scale)
    # A part that was left out comes back with the mean weight of the others.
    mean = sum(scale) / max(sum(weight > 0 for weight in scale), 1)
    scale[part] = (scale[part] or mean) * value
    total = sum(scale)
    return old if total == 0 else old._replace(scale=tuple(w / total for w in scale))


def fit_kernel(parts: Parts, targets: Genes, blocks: Blocks, settings: KernelSettings) -> KernelFit:
    """Solve in float64; targets have mean 0 over the genes."""
    inverse = _inverse(make_kernel(parts, settings, torch.float64), settings.penalty)
    weights = inverse @ targets.double()
    errors = torch.zeros_like(weights)
    for rows in _members(blocks):
        errors[rows] = _block_errors(inverse, weights, rows)
    return KernelFit(weights, targets - errors)


def _error(
    parts: Tensor, targets: Tensor, members: Sequence[np.ndarray], settings: KernelSettings
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


def _block_errors(inverse: Tensor, weights: Tensor, rows: np.ndarray) -> Tensor:
    return torch.linalg.solve(inverse[rows][:, rows], weights[rows])


def _members(blocks: Blocks) -> list[Int64[np.ndarray, " _"]]:
    """Rows of each block; with one block only, every gene is its own."""
    labels, block = np.unique(blocks, return_inverse=True)
    if len(labels) < 2:
        block = np.arange(len(blocks))
    return [np.flatnonzero(block == number) for number in range(block.max() + 1)]


# --- the kernel path of a model ---

KernelChoice = tuple[KernelSettings, KernelSettings]
"""For level and residual."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Two threads gain little on small matrices, and wait for each other on a busy machine.

    The sums then come out the same on every machine of a kind.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def fit_kernel_path(
    model: GeneSplice,
    graph: HeteroData,
    gene_features: Features,
    genes: tuple[Rows, Genes],
    blocks: Blocks,
    settings: KernelChoice | None = None,
) -> tuple[KernelChoice, Prediction]:
    """Choose (where there are no `settings`) and solve `model.kernel` on training genes.

    `genes` are their rows and measured values, log2(TPM + 1). Also gives the prediction for each
    of them by a fit without its block.
    """
    path, (rows, observed) = model.kernel, genes
    # The sums then come out the same however many threads there are.
    with one_thread():
        standardised, known = model.kernel_inputs(gene_features, graph, rows)
        path.set_support(standardised, known.to(torch.int8))
        parts = path.inner_products(standardised, known)
        level, residual = model.expression_head.split(observed)
        mean = level.mean()
    targets = {"level": (level - mean)[:, None], "residual": residual}

    def fit(name: str) -> tuple[KernelSettings, KernelFit]:
        chosen = settings and settings[TARGETS.index(name)]
        chosen = chosen or choose_kernel(parts, targets[name], blocks)
        return chosen, fit_kernel(parts, targets[name], blocks, chosen)

    fits = side_by_side(fit, TARGETS, gene_features.device)
    for name, (chosen, solved) in zip(TARGETS, fits, strict=True):
        weights = solved.weights[:, 0] if name == "level" else solved.weights
        path.set_solution(name, weights, chosen, float(mean))
    (for_level, level_fit), (for_residual, residual_fit) = fits
    return (for_level, for_residual), Prediction(
        level_fit.left_out.float()[:, 0] + mean, residual_fit.left_out.float()
    )


def choose_mix(neural: Prediction, kernel: Prediction, truth: Prediction) -> tuple[float, float]:
    """Weights of the kernel path in level and residual with the smallest squared error.

    The genes are training genes that neither prediction was fitted to: validation blocks. Without
    any, each path counts half.
    """
    if not len(truth.level):
        return 0.5, 0.5
    chosen = []
    for one, other, true in zip(neural, kernel, truth, strict=True):
        errors = [float((one + w * (other - one) - true).square().mean()) for w in MIXTURES]
        chosen.append(MIXTURES[int(np.argmin(errors))])
    return chosen[0], chosen[1]


# --- on bins of the genome, which may be more than fit into memory: from sums by fold ---


def ridge_on_bins(
    parts: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    held_out: Sequence[int],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Coefficients (features, tracks) and intercepts for each fold of `held_out`, from all others.

    The penalty of each track is the one that predicts the fold after the held-out one best, from
    the rest.

    Parameters
    ----------
    parts
        Features (bins, features), targets as the training of each held-out fold sees them (bins,
        held_out, tracks), and the fold of each bin.
    """
    sums: dict[int, tuple[Any, Any]] = {}
    for features, targets, fold in parts:
        x = np.hstack([features, np.ones((len(features), 1))])
        n_tracks = targets.shape[2]
        for one in set(fold.tolist()):
            own, y = x[fold == one], targets[fold == one].reshape((fold == one).sum(), -1)
            gram, cross = sums.get(one, (0.0, 0.0))
            sums[one] = gram + own.T @ own, cross + own.T @ y
    fits = []
    for i, without in enumerate(held_out):
        others = sorted(sums.keys() - {without}, key=lambda one: (one < without, one))
        at = slice(i * n_tracks, (i + 1) * n_tracks)
        pick = {one: (sums[one][0], sums[one][1][:, at]) for one in others}
        gram, cross = pick[others[0]]
        tried = _ridge_from_sums([pick[one] for one in others[1:] or others])
        errors = [(b * (gram @ b - 2 * cross)).sum(0) for b in tried]
        fitted = np.stack(_ridge_from_sums(list(pick.values())))
        best = fitted[np.argmin(errors, axis=0), :, np.arange(n_tracks)].T
        fits.append((best[:-1], best[-1]))
    return fits


def _ridge_from_sums(sums: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """Coefficients at each of `PENALTIES`, the intercept last, of standardised features."""
    gram, cross = (np.sum(part, axis=0) for part in zip(*sums, strict=True))
    n, mean, y_mean = gram[-1, -1], gram[-1, :-1] / gram[-1, -1], cross[-1] / gram[-1, -1]
    centred = gram[:-1, :-1] - n * np.outer(mean, mean)
    spread = np.sqrt(np.maximum(np.diag(centred) / n, 0))
    spread = np.where(spread < 1e-9, np.inf, spread)
    values, vectors = np.linalg.eigh(centred / spread / spread[:, None])
    along = vectors.T @ ((cross[:-1] - n * np.outer(mean, y_mean)) / spread[:, None])
    found = []
    for penalty in PENALTIES:
        b = vectors @ (along / (np.maximum(values, 0)[:, None] + penalty)) / spread[:, None]
        found.append(np.vstack([b, y_mean - mean @ b]))
    return found

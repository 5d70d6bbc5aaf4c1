"""Ridge regression whose penalty is chosen by leaving out one genome block at a time."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from genesplice.errors import InputError

__all__ = ["PENALTIES", "RidgeFit", "fit_ridge"]

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

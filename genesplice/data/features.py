"""Features of sequence: windows around sites, k-mer counts, one-hot letters; and their scale."""

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8

from genesplice.data.genome import Genome
from genesplice.errors import InputError


def site_windows(
    genome: Genome, sites: pd.DataFrame, window_bp: int
) -> UInt8[np.ndarray, "sites length"]:
    """Tokens around each site on its strand, 5' to 3': the site itself is base `window_bp // 2`.

    Round a circular contig, N beyond the ends of a linear one.

    Parameters
    ----------
    sites
        Columns contig, position (0-based), strand, as from `make_probe_sites`.
    """
    before, after = window_bp // 2, window_bp - window_bp // 2
    windows = np.empty((len(sites), window_bp), np.uint8)
    columns = (sites[name].tolist() for name in ("contig", "position", "strand"))
    for row, (contig, position, strand) in enumerate(zip(*columns, strict=True)):
        if strand == "+":
            windows[row] = genome.fetch(contig, position - before, position + after)
        else:
            windows[row] = genome.fetch(contig, position + 1 - after, position + 1 + before, "-")
    return windows


def kmer_features(
    windows: UInt8[np.ndarray, "sites length"], k: int = 4
) -> Float[np.ndarray, "sites kmers"]:
    """How often each of the 4^k words is in each window; words with N are not counted.

    Raises
    ------
    InputError
        If `k` is not 1 to 6, or longer than a window.
    """
    length = windows.shape[1]
    if not 1 <= k <= min(6, length):
        raise InputError(f"k {k} in windows of {length} bp", "1 to 6, and no longer than a window")
    code = np.zeros((len(windows), length - k + 1), np.int64)
    is_known = np.ones(code.shape, bool)
    for offset in range(k):
        base = windows[:, offset : offset + code.shape[1]]
        code = code * 4 + base
        is_known &= base < 4
    row = np.broadcast_to(np.arange(len(windows))[:, None], code.shape)
    cell = (row * 4**k + code)[is_known]
    return np.bincount(cell, minlength=len(windows) * 4**k).reshape(-1, 4**k).astype(np.float64)


def one_hot_features(
    windows: UInt8[np.ndarray, "sites length"],
) -> Float[np.ndarray, "sites channels"]:
    """One column for each base and letter; all four are 0 at an N."""
    return (windows[:, :, None] == np.arange(4)).reshape(len(windows), -1).astype(np.float64)


def standardise(
    values: Float[np.ndarray, "genes features"], is_train: np.ndarray
) -> Float[np.ndarray, "genes features"]:
    """Scale to mean 0 and standard deviation 1 on the training genes; constant there gives 0."""
    mean, scale = values[is_train].mean(axis=0), values[is_train].std(axis=0)
    is_constant = scale < 1e-12
    return np.where(is_constant, 0, (values - mean) / np.where(is_constant, 1, scale))

"""What a probe sees of a site: an encoder's vectors near it, or its bases as they are."""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from genesplice.data.bundle import Bundle
from genesplice.data.genome import Genome
from genesplice.errors import InputError
from genesplice.model.sequence import REGION_BP, EncoderOutput, SequenceEncoder
from genesplice.threads import side_by_side

__all__ = [
    "encoder_features",
    "kmer_features",
    "one_hot_features",
    "reference_features",
    "site_windows",
]

KMER_WINDOW_BP, ONE_HOT_WINDOW_BP = 256, 64
BINS_BP = 128
CODON_BP = 3
BASES_BP = (24, 126)


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


def reference_features(
    genome: Genome, sites: pd.DataFrame
) -> dict[str, Float[np.ndarray, "sites _"]]:
    """`kmers`: 4-mers of 256 bp around each site; `one_hot`: 64 bp around it. On its strand."""
    return {
        "kmers": kmer_features(site_windows(genome, sites, KMER_WINDOW_BP)),
        "one_hot": one_hot_features(site_windows(genome, sites, ONE_HOT_WINDOW_BP)),
    }


@torch.no_grad()
def encoder_features(
    encoder: SequenceEncoder,
    bundle: Bundle,
    sites: pd.DataFrame,
    *,
    window_bp: int = 1024,
    batch_bp: int = 65_536,
) -> Float[np.ndarray, "sites features"]:
    """Vectors of a frozen encoder near each site, read on the site's strand.

    Every site gets a window of its own with the site in its middle, so that it has the same place
    in its bin everywhere. From left to right:

    - the mean over the bins within 128 bp, and the bin that the site begins;
    - where the encoder works at 1 bp, the site's own base, and six means over bases: within 24 and
      within 126 bp, those 0, 1 and 2 beyond a multiple of three from the site. Their plain mean is
      a linear function of them; alone it would blur the reading frame.

    (Ranges chosen by left-out blocks of the training folds, with a quick encoder of E. coli; they
    are no wider than what `reference_features` count k-mers in.) No annotation channel is used. The
    encoder comes back in the mode that it was in; sites that tasks share are read once.

    Parameters
    ----------
    window_bp
        Context and cost grow with it.
    batch_bp
        Bases in a batch of windows.

    Raises
    ------
    InputError
        If `window_bp` is not a multiple of 1,024.
    """
    if window_bp < REGION_BP or window_bp % REGION_BP:
        raise InputError(f"window_bp {window_bp}", f"a multiple of {REGION_BP} bp")
    keys = ["contig", "position", "strand"]
    number = sites.groupby(keys, sort=False).ngroup().to_numpy()
    unique = sites[keys].drop_duplicates()
    device = next(encoder.parameters()).device
    was_training = encoder.training
    encoder.eval()
    size = max(1, batch_bp // window_bp)

    def read(start: int) -> Float[np.ndarray, "batch features"]:
        windows = site_windows(bundle.genome, unique[start : start + size], window_bp)
        with_bases = encoder.base_width > 0
        output = encoder(torch.from_numpy(windows).to(device), with_bases=with_bases)
        return _near_middle(output, encoder.bin_bp).cpu().double().numpy()

    parts = side_by_side(read, range(0, len(unique), size), device)
    encoder.train(was_training)
    width = 2 * encoder.width + (1 + CODON_BP * len(BASES_BP)) * encoder.base_width
    return np.concatenate([np.empty((0, width)), *parts])[number]


def _near_middle(output: EncoderOutput, bin_bp: int) -> Float[Tensor, "batch features"]:
    """The middle of a window of even length, at each resolution."""
    bins, bases = output.bins, output.bases
    middle, reach = bins.shape[1] // 2, max(1, BINS_BP // bin_bp)
    found = [bins[:, middle - reach : middle + reach].mean(1), bins[:, middle]]
    if bases is not None:
        middle = bases.shape[1] // 2
        found.append(bases[:, middle])
        for reach in BASES_BP:
            codons = bases[:, middle - reach : middle + reach].unflatten(1, (-1, CODON_BP))
            found.append(codons.mean(1).flatten(1))
    return torch.cat(found, 1)

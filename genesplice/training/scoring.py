"""How well a pre-trained encoder restores hidden bases."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from genesplice.data.genome import Genome
from genesplice.data.windows import make_random_windows
from genesplice.model.genesplice import PretrainingModel, reverse_complement
from genesplice.model.sequence import MASK_TOKEN
from genesplice.results import Metric
from genesplice.training.masking import mask_bases
from genesplice.training.source import Interval

__all__ = ["base_log_probabilities", "masked_base_metrics"]

BATCH_BP = 65_536


def base_log_probabilities(
    model: PretrainingModel, tokens: UInt8[Tensor, "batch length"], *, is_strand_averaged: bool
) -> Float[Tensor, "batch length 4"]:
    """Log-probabilities of A, C, G, T for every base, as far as the model can see.

    With `is_strand_averaged` the other strand is read too, and the mean of both strands'
    log-probabilities made to add up to 1 again: the answer is then the same on either strand.
    """
    logits = model.base_logits(model.encode(tokens)).float()
    found = F.log_softmax(logits, -1)
    if is_strand_averaged:
        other = model.base_logits(model.encode(reverse_complement(tokens))).float()
        # Read backwards, and A for T, C for G.
        found = F.log_softmax((found + F.log_softmax(other, -1).flip(1, 2)) / 2, -1)
    return found


@torch.no_grad()
def masked_base_metrics(
    model: PretrainingModel,
    genome: Genome,
    intervals: Sequence[Interval],
    *,
    window_bp: int,
    n_windows: int = 64,
    every_bp: int = 32,
    seed: int = 0,
    label: str = "genesplice",
    fold: int | None = None,
    split: str = "test",
    is_strand_averaged: bool = True,
) -> list[Metric]:
    """Bits per base and top-1 of masked single bases, with intervals over windows.

    One base in `every_bp` is masked at random; each is predicted from everything else in its
    window, read on both strands with `is_strand_averaged`. The interval is a bootstrap over
    windows.
    """
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    generator = np.random.default_rng([seed, 7])
    windows = make_random_windows(intervals, window_bp, n_windows, generator)
    tokens = torch.from_numpy(np.stack([genome.fetch(w.contig, w.start, w.end) for w in windows]))
    is_target = mask_bases(tokens, 1 / every_bp, 1, generator)
    bits, right = np.zeros(n_windows), np.zeros(n_windows)
    size = max(1, BATCH_BP // window_bp)
    for rows in (slice(first, first + size) for first in range(0, n_windows, size)):
        hidden = tokens[rows].masked_fill(is_target[rows], MASK_TOKEN).to(device)
        found = base_log_probabilities(model, hidden, is_strand_averaged=is_strand_averaged)
        at = is_target[rows]
        told, wanted = found.cpu()[at].double(), tokens[rows][at].long()
        window = np.arange(n_windows)[rows].repeat(at.sum(1).numpy())
        np.add.at(bits, window, -told.gather(1, wanted[:, None])[:, 0].numpy() / np.log(2))
        np.add.at(right, window, (told.argmax(1) == wanted).numpy())
    count = is_target.sum(1).numpy()
    model.train(was_training)
    totals = np.array([bits, right, count], np.float64)
    draws = totals[:, generator.integers(0, len(windows), (1000, len(windows)))].sum(2)
    n_bases = int(totals[2].sum())
    metrics = []
    for row, name in ((0, "bits_per_base"), (1, "masked_top_1")):
        low, high = np.quantile(draws[row] / draws[2].clip(1), [0.025, 0.975])
        value = float(totals[row].sum() / max(n_bases, 1))
        metrics.append(
            Metric(name, value, float(low), float(high), n_bases, label, split, fold, seed)
        )
    return metrics

"""How well a pre-trained encoder restores hidden bases."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from genesplice.data.genome import Genome
from genesplice.data.windows import Window, make_random_windows
from genesplice.evaluate.count_models import CountModel
from genesplice.evaluate.resampling import N_BOOTSTRAP, make_draws, ratio_draws, to_metric
from genesplice.model.genesplice import PretrainingModel, reverse_complement
from genesplice.model.sequence import MASK_TOKEN
from genesplice.results import Metric
from genesplice.threads import side_by_side
from genesplice.training.masking import mask_bases
from genesplice.training.source import Interval

__all__ = ["base_log_probabilities", "masked_base_metrics"]

BATCH_BP = 65_536
LIMITS = {"bits_per_base": (0.0, np.inf), "masked_top_1": (0.0, 1.0)}


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
    counts: Sequence[CountModel] = (),
    others: Mapping[str, PretrainingModel] | None = None,
    regions: Mapping[str, Bool[np.ndarray, " genome"]] | None = None,
) -> list[Metric]:
    """Bits per base and top-1 of masked single bases, with intervals over blocks.

    One base in `every_bp` is masked at random; each is predicted from everything else in its
    window, read on both strands with `is_strand_averaged`. What is resampled are the `intervals`
    that windows were drawn from, such as held-out blocks; the windows where all lie in one.

    Parameters
    ----------
    counts, others
        Count models, and other encoders by name, that tell the same bases. (Count models see the
        masked neighbours of a masked base too.) For each, `bits_per_base_difference` says how many
        bits fewer (below 0) or more the model `label` needs, resampled together; also by region.
    regions
        Masks over `Genome.tokens` by name: each gives `bits_per_base_NAME` and
        `masked_top_1_NAME` over its bases, where there are any.
    """
    generator = np.random.default_rng([seed, 7])
    windows = make_random_windows(intervals, window_bp, n_windows, generator)
    tokens = torch.from_numpy(np.stack([genome.fetch(w.contig, w.start, w.end) for w in windows]))
    is_target = mask_bases(tokens, 1 / every_bp, 1, generator)
    told = {label: _told(model, tokens, is_target, is_strand_averaged)}
    for name, other in (others or {}).items():
        told[name] = _told(other, tokens, is_target, is_strand_averaged)
    rows, hits = tokens.numpy(), is_target.numpy()
    for counted in counts:
        parts = [counted.probabilities(row)[hit] for row, hit in zip(rows, hits, strict=True)]
        told[counted.name] = np.log2(np.concatenate(parts))
    unit, n_units = _units(windows, intervals, genome)
    block = unit[np.nonzero(hits)[0]]
    place = np.concatenate([_places(genome, w, hit) for w, hit in zip(windows, hits, strict=True)])
    kinds = {"": np.ones(len(place), bool)}
    kinds |= {f"_{name}": mask[place] for name, mask in (regions or {}).items()}
    draws = make_draws(n_units, N_BOOTSTRAP, seed)
    wanted = rows[hits]
    about: dict[str, Any] = {"n_blocks": n_units, "split": split, "fold": fold, "seed": seed}
    metrics, bits = [], {}
    for name, values in told.items():
        cost = -values[np.arange(len(wanted)), wanted]
        found = np.stack([cost, values.argmax(1) == wanted], axis=1)
        for suffix, is_kind in kinds.items():
            if not is_kind.any():
                continue
            here = np.ones((int(is_kind.sum()), 2))
            ratios = ratio_draws(found[is_kind], here, block[is_kind], draws)
            for (metric, limits), ratio in zip(LIMITS.items(), ratios.T, strict=True):
                count: dict[str, Any] = {"n": len(here), "limits": limits}
                metrics.append(to_metric(metric + suffix, ratio, model=name, **count, **about))
            bits[name, suffix] = ratios[:, 0], len(here)
    for name, suffix in [key for key in bits if key[0] != label]:
        (mine, n), pair = bits[label, suffix], f"{label} - {name}"
        less, metric = mine - bits[name, suffix][0], f"bits_per_base_difference{suffix}"
        metrics.append(to_metric(metric, less, n, model=pair, **about))
    return metrics


def _units(
    windows: Sequence[Window], intervals: Sequence[Interval], genome: Genome
) -> tuple[Int64[np.ndarray, " windows"], int]:
    """Which unit of resampling each window belongs to, and how many there are."""
    number = []
    for window in windows:
        length = genome.contig(window.contig).length
        places = (
            i
            for i, (contig, start, end) in enumerate(intervals)
            if contig == window.contig and (window.start - start) % length < end - start
        )
        number.append(next(places))
    found, unit = np.unique(number, return_inverse=True)
    if len(found) > 1:
        return unit.astype(np.int64), len(found)
    return np.arange(len(windows)), len(windows)


@torch.no_grad()
def _told(
    model: PretrainingModel,
    tokens: UInt8[Tensor, "windows length"],
    is_target: Bool[Tensor, "windows length"],
    is_strand_averaged: bool,
) -> Float[np.ndarray, "targets 4"]:
    """log2 of the probabilities at the targets; the model is left in the mode it came in."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    size = max(1, BATCH_BP // tokens.shape[1])

    def tell(first: int) -> Float[np.ndarray, "targets 4"]:
        rows = slice(first, first + size)
        hidden = tokens[rows].masked_fill(is_target[rows], MASK_TOKEN).to(device)
        found = base_log_probabilities(model, hidden, is_strand_averaged=is_strand_averaged)
        return found.cpu()[is_target[rows]].double().numpy() / np.log(2)

    parts = side_by_side(tell, range(0, len(tokens), size), device)
    model.train(was_training)
    return np.concatenate(parts)


def _places(
    genome: Genome, window: Window, hit: Bool[np.ndarray, " length"]
) -> Int64[np.ndarray, " targets"]:
    """Index into `Genome.tokens` of the bases of a window that are asked for."""
    contig = genome.contig(window.contig)
    return contig.offset + (window.start + np.flatnonzero(hit)) % contig.length

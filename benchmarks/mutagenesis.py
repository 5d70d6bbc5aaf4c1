"""In-silico mutagenesis beside encoding the whole window for every substitution."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genesplice.config import ModelConfig
from genesplice.errors import InputError
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.genesplice import make_encoder
from genesplice.model.incremental import IncrementalEncoder

__all__ = ["READS", "measure_mutagenesis"]

READS = {"start": (-16, 64), "gene": (-512, 1088)}
"""What is read, in bp from the TSS: the first codons, or promoter and 1,024 bp of a gene."""
CHANGED_BP = 8
"""Substitutions of one pass lie in this many neighbouring bases."""
BATCHES = (24, 48, 96)
NAIVE_BP = 65_536
"""The largest batch of whole windows that is tried."""


def measure_mutagenesis(task: dict[str, Any]) -> dict[str, float]:
    """Substitutions a second of CPU, spliced and by whole windows, each at its best batch.

    `error` is the largest difference between the two over all that is read, relative to the
    largest value.

    Raises
    ------
    InputError
        If the window is too short for what is read.
    """
    sizes, length = ModelConfig(**task["sizes"]), task["length"]
    low, high = (length // 2 + edge for edge in READS[task["read"]])
    if low < 0 or high > length:
        raise InputError(f"a window of {length} bp", f"at least {2 * (high - length // 2)} bp")
    torch.manual_seed(0)
    encoder = make_encoder(sizes).eval()
    assert isinstance(encoder, HierarchicalEncoder)
    tokens = torch.randint(0, 4, (1, length), dtype=torch.uint8)
    inputs = encoder.channels(tokens, torch.zeros_like(tokens))
    is_real = torch.ones(1, length // sizes.bin_bp, dtype=torch.bool)
    has_bases = sizes.base_width > 0
    bins = low // sizes.bin_bp, -(-high // sizes.bin_bp)
    at = length // 2 - 4 * CHANGED_BP

    def full(bases: Tensor) -> tuple[Tensor, ...]:
        variants = inputs.repeat(len(bases), 1, 1)
        variants[:, at : at + CHANGED_BP, :4] = bases
        real = is_real.expand(len(bases), -1)
        out = encoder.encode(variants, real, with_bases=has_bases)
        part = slice(bins[0] * sizes.bin_bp, bins[1] * sizes.bin_bp)
        read = out.bins[:, bins[0] : bins[1]]
        return (read, out.bases[:, part]) if out.bases is not None else (read,)

    with torch.no_grad():
        spliced = IncrementalEncoder(encoder, inputs, is_real, with_bases=has_bases)

        def touched(bases: Tensor) -> tuple[Tensor, ...]:
            out = spliced.encode(bins, at, bases)
            return (out.bins, out.bases) if out.bases is not None else (out.bins,)

        batches = [n for n in (1, 2, 4, 8, 16) if n * length <= NAIVE_BP] or [1]
        naive = min(_seconds(full, substitutions(tokens, at, n)) for n in batches)
        ours = min(_seconds(touched, substitutions(tokens, at, n)) for n in BATCHES)
        few = substitutions(tokens, at, 4)
        pairs = list(zip(touched(few), full(few), strict=True))
    error = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    return {"per_second": 1 / ours, "naive_per_second": 1 / naive, "error": error}


def substitutions(tokens: Tensor, at: int, count: int) -> Float[Tensor, "variants changed 4"]:
    """The stretch from `at` on with one base changed in each of `count` variants.

    There are 24 of them; more than that repeats them.
    """
    here = tokens[0, at : at + CHANGED_BP].long()
    bases = torch.eye(4)[here].repeat(count, 1, 1)
    for number in range(count):
        place, step = number % CHANGED_BP, number // CHANGED_BP % 3 + 1
        bases[number, place] = torch.eye(4)[(int(here[place]) + step) % 4]
    return bases


def _seconds(work: Callable[[Tensor], Any], bases: Tensor, repeats: int = 5) -> float:
    """Median CPU seconds for each variant, after a first call."""
    work(bases)
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        work(bases)
        taken.append(time.process_time() - began)
    return statistics.median(taken) / len(bases)

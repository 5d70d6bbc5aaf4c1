"""Which bases are hidden from the encoder, and how much each of them counts."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from genesplice.config.training import MaskName


def mask_bases(
    tokens: UInt8[Tensor, "batch length"],
    fraction: float,
    span_bp: int,
    generator: np.random.Generator,
) -> Bool[Tensor, "batch length"]:
    """Choose about `fraction` of the positions, in spans of `span_bp`; never an N."""
    shape = tuple(tokens.shape)
    begins = generator.random(shape) < 1 - (1 - fraction) ** (1 / span_bp)
    chosen = begins.copy()
    for offset in range(1, min(span_bp, shape[1])):
        chosen[:, offset:] |= begins[:, :-offset]
    return torch.from_numpy(chosen) & (tokens < 4)


def mask_bins(
    tokens: UInt8[Tensor, "batch length"],
    fraction: float,
    bin_bp: int,
    generator: np.random.Generator,
) -> Bool[Tensor, "batch length"]:
    """Choose about `fraction` of the bins and hide all of their bases but N.

    Nothing is left inside a bin to copy from: the encoder must tell it from other bins. The last
    bin may be cut short.
    """
    rows, length = tokens.shape
    chosen = generator.random((rows, -(-length // bin_bp))) < fraction
    return torch.from_numpy(np.repeat(chosen, bin_bp, axis=1)[:, :length]) & (tokens < 4)


def make_masks(
    tokens: UInt8[Tensor, "batch length"],
    kinds: Sequence[MaskName],
    generator: np.random.Generator,
    *,
    fraction: float,
    span_bp: int,
    bin_bp: int,
) -> Bool[Tensor, "batch length"]:
    """Choose targets: each row takes one of `kinds`, all equally likely.

    With one kind nothing is drawn for the choice.
    """
    draws = {
        "single": lambda: mask_bases(tokens, fraction, 1, generator),
        "span": lambda: mask_bases(tokens, fraction, span_bp, generator),
        "bin": lambda: mask_bins(tokens, fraction, bin_bp, generator),
    }
    if len(kinds) == 1:
        return draws[kinds[0]]()
    pick = torch.from_numpy(generator.integers(0, len(kinds), len(tokens)))
    chosen = torch.zeros_like(tokens, dtype=torch.bool)
    for index, kind in enumerate(kinds):
        chosen |= draws[kind]() & (pick == index)[:, None]
    return chosen


def base_weights(
    is_repeat: Bool[Tensor, "batch length"], repeat_weight: float
) -> Float[Tensor, "batch length"]:
    """What each base counts in the loss: 1, or `repeat_weight` in a soft-masked repeat.

    Repeats are the same sequence many times over: learned first, and at the cost of the rest.

    Source: Benegas et al., DNA language models are powerful predictors of genome-wide variant
    effects, 2023 (repeats count 0.1).
    """
    return torch.where(is_repeat, repeat_weight, 1.0)

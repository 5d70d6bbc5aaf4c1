"""What every sequence encoder is: channels of one strand in, bins out; and its exact context."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from genesplice.config.model import REGION_BP, SUMMARY_BP
from genesplice.errors import InputError

N_TOKEN = 4
MASK_TOKEN = 5
N_PHASES = 5


class EncoderOutput(NamedTuple):
    """Embeddings of one strand of a window; `is_real` is False for bins of nothing but N.

    `bases` is there only where it was asked for and the encoder works at 1 bp somewhere; `inputs`
    are the channels that all of it was made of.
    """

    bins: Float[Tensor, "batch bins width"]
    summaries: Float[Tensor, "batch summaries width"]
    regions: Float[Tensor, "batch regions width"]
    is_real: Bool[Tensor, "batch bins"]
    bases: Float[Tensor, "batch length base_width"] | None = None
    inputs: Float[Tensor, "batch length channels"] | None = None


class InputChannels(nn.Module):
    """Tokens to channels: A, C, G, T one-hot, N uniform, a masked base zero.

    With `annotation`, four more: coding phase 1-3 and gene body on this strand.
    """

    base_table: Tensor
    phase_table: Tensor

    def __init__(self, annotation: bool = False) -> None:
        super().__init__()
        self.annotation = annotation
        self.count = 4 + (N_PHASES - 1 if annotation else 0)
        table = torch.cat([torch.eye(4), torch.full((1, 4), 0.25), torch.zeros(1, 4)])
        self.register_buffer("base_table", table, persistent=False)
        self.register_buffer("phase_table", torch.eye(N_PHASES)[:, 1:], persistent=False)

    def forward(
        self, tokens: UInt8[Tensor, "batch length"], phase: UInt8[Tensor, "batch length"] | None
    ) -> Float[Tensor, "batch length channels"]:
        """The channels; without `phase` nothing is annotated."""
        bases = F.embedding(tokens.int(), self.base_table)
        if not self.annotation:
            return bases
        if phase is None:
            phase = torch.zeros_like(tokens)
        return torch.cat([bases, F.embedding(phase.int(), self.phase_table)], -1)


class SequenceEncoder(nn.Module, ABC):
    """One strand of a window to one vector a bin.

    Parameters
    ----------
    bin_bp, width
        Bases of a bin and channels of its vector.
    annotation
        Take the coding-phase channels with the bases.
    base_width
        Channels of `EncoderOutput.bases`; 0 where there is nothing at 1 bp.
    """

    def __init__(
        self, *, bin_bp: int, width: int, annotation: bool = False, base_width: int = 0
    ) -> None:
        super().__init__()
        self.bin_bp, self.width, self.base_width = bin_bp, width, base_width
        self.channels = InputChannels(annotation)

    def forward(
        self,
        tokens: UInt8[Tensor, "batch length"],
        phase: UInt8[Tensor, "batch length"] | None = None,
        *,
        with_bases: bool = False,
    ) -> EncoderOutput:
        """Encode `tokens` (0-3 bases, 4 N or padding, 5 masked), read 5' to 3'.

        `with_bases` asks for vectors at 1 bp too.

        Raises
        ------
        InputError
            If the length is not a multiple of 1,024 bp.
        """
        length = tokens.shape[1]
        if length == 0 or length % REGION_BP:
            raise InputError(f"a window of {length} bp", f"a multiple of {REGION_BP} bp")
        is_real = (tokens != N_TOKEN).view(tokens.shape[0], -1, self.bin_bp).any(-1)
        return self.encode(self.channels(tokens, phase), is_real, with_bases=with_bases)

    @abstractmethod
    def encode(
        self,
        inputs: Float[Tensor, "batch length channels"],
        is_real: Bool[Tensor, "batch bins"],
        *,
        with_bases: bool = False,
    ) -> EncoderOutput:
        """Encode channels made by `channels`: where gradients to the bases begin."""


def fill_unknown(
    inputs: Float[Tensor, "batch length channels"], left: int, right: int
) -> Float[Tensor, "batch longer channels"]:
    """Add unknown bases on both ends: uniform over A, C, G, T, no annotation."""
    padded = F.pad(inputs, (0, 0, left, right))
    uniform = torch.full_like(padded[:1, :1, :4], 0.25)
    padded[:, :left, :4] = uniform
    padded[:, padded.shape[1] - right :, :4] = uniform
    return padded


class ContextPlan(NamedTuple):
    """Attention windows with which no path leaves the promised context.

    Half-windows are in tokens of the level. `sees_summaries` / `sees_regions` False: that level
    runs on zeros, so that parameters and cost stay equal while nothing passes through it.
    `region_half` None: global. `receptive_bp` bounds what an output depends on beyond its own bin,
    on each side; None where it is the whole window.
    """

    bin_half: int
    summary_half: int
    region_half: int | None
    sees_summaries: bool
    sees_regions: bool
    receptive_bp: int | None


def plan_context(
    context_bp: int | None,
    *,
    bin_bp: int,
    stem_bp: int,
    bin_layers: int,
    summary_layers: int,
    region_layers: int,
    bin_window: int,
    summary_window: int,
    base_bp: int = 0,
) -> ContextPlan:
    """Spend half of `context_bp` on the levels, finest first.

    Parameters
    ----------
    stem_bp
        Bases beyond its bin that the stem takes in, on one side.
    bin_layers
        All windowed layers on bins, before and after the coarse levels.
    base_bp
        Bases that the base-resolution path adds to that once the bins are done.

    Raises
    ------
    InputError
        If not even one bin on each side fits.
    """
    if context_bp is None:
        return ContextPlan(bin_window, summary_window, None, True, True, None)
    budget = context_bp // 2 - base_bp
    smallest = stem_bp + max(bin_layers, 1) * bin_bp
    if budget < smallest:
        needed = 2 * (smallest + base_bp)
        raise InputError(f"context_bp {context_bp}", f"at least {needed} for this model")
    bin_half = min(bin_window, (budget - stem_bp) // (max(bin_layers, 1) * bin_bp))
    spent = stem_bp + bin_layers * bin_half * bin_bp
    summary_cell, region_cell = SUMMARY_BP - bin_bp, REGION_BP - SUMMARY_BP
    summary_half = (budget - spent - summary_cell) // (summary_layers * SUMMARY_BP)
    if summary_half < 1:
        return ContextPlan(bin_half, summary_window, None, False, False, spent)
    summary_half = min(summary_window, summary_half)
    spent += summary_cell + summary_layers * summary_half * SUMMARY_BP
    region_half = (budget - spent - region_cell) // (region_layers * REGION_BP)
    if region_half < 1:
        return ContextPlan(bin_half, summary_half, None, True, False, spent)
    spent += region_cell + region_layers * region_half * REGION_BP
    return ContextPlan(bin_half, summary_half, region_half, True, True, spent)

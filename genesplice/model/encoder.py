"""Hierarchical attention: bins -> summaries -> regions and back, linear in length.

tokens ─ stem ─ bins ─ windowed ─┬───────────────────────────── + ─ windowed ─► bins
                                 └ merge ─ summaries ─ windowed ─┬───────── + ┘
                                           (128 bp)              └ merge ─ regions ─ global
                                                                          (1,024 bp)
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from genesplice.config.model import REGION_BP, SUMMARY_BP, HierarchyName
from genesplice.model.attention import make_plan, rope
from genesplice.model.chunking import run_in_chunks
from genesplice.model.layers import BasePath, Block, Merge, Stem
from genesplice.model.sequence import EncoderOutput, SequenceEncoder, fill_unknown, plan_context


class Halos(NamedTuple):
    """Bases on each side that a stage computes with its own."""

    up: int
    across: int
    down: int
    bases: int


class HierarchicalEncoder(SequenceEncoder):
    """Encode windows of one strand.

    A window's length must be a multiple of 1,024 bp. Bins are computed `chunk_bp` at a time with
    a halo wide enough that the result does not depend on the chunk.

    Parameters
    ----------
    base_width
        Channels of the base-resolution path; 0 leaves it out.
    hierarchy
        See `ModelConfig`. Permuted regions are in another order at every step of training.
    checkpointing, recompute_above
        In training, recompute all windowed stages in the backward pass and keep their outputs only,
        where the channels of all bins (and bases) are more than `recompute_above`: fewer are
        cheaper to keep than to compute again.
    """

    def __init__(
        self,
        *,
        bin_bp: int,
        width: int,
        heads: int,
        bin_layers: int,
        summary_layers: int,
        region_layers: int,
        decoder_layers: int,
        bin_window: int,
        summary_window: int,
        context_bp: int | None = None,
        hierarchy: HierarchyName = "whole",
        base_width: int = 0,
        annotation: bool = False,
        dropout: float = 0.0,
        chunk_bp: int = 16384,
        checkpointing: bool = False,
        recompute_above: int = 0,
    ) -> None:
        super().__init__(bin_bp=bin_bp, width=width, annotation=annotation, base_width=base_width)
        self.chunk_bp, self.checkpointing = chunk_bp, checkpointing
        self.recompute_above = recompute_above
        self.head_width = width // heads
        self.stem = Stem(bin_bp, width, self.channels.count)
        self.base_path: BasePath | None = None
        if base_width:
            self.base_path = BasePath(self.channels.count, base_width, bin_bp, width)
        below, above = (self.base_path.down_bp, self.base_path.up_bp) if self.base_path else (0, 0)
        self.margins = max(self.stem.left, below), max(self.stem.right, below)
        self.context = plan_context(
            context_bp,
            bin_bp=bin_bp,
            stem_bp=max(self.margins),
            base_bp=above + bin_bp if self.base_path else 0,
            bin_layers=bin_layers + decoder_layers,
            summary_layers=summary_layers,
            region_layers=region_layers,
            bin_window=bin_window,
            summary_window=summary_window,
        )
        if hierarchy == "local_only":
            self.context = self.context._replace(sees_summaries=False, sees_regions=False)
        self.permutes_regions = hierarchy == "permuted_regions"

        def blocks(count: int) -> nn.ModuleList:
            return nn.ModuleList(Block(width, heads, dropout) for _ in range(count))

        self.bin_blocks = blocks(bin_layers)
        self.to_summaries = Merge(width, SUMMARY_BP // bin_bp)
        self.summary_blocks = blocks(summary_layers)
        self.to_regions = Merge(width, REGION_BP // SUMMARY_BP)
        self.region_blocks = blocks(region_layers)
        self.from_regions = nn.Linear(width, width)
        self.from_summaries = nn.Linear(width, width)
        self.decoder_blocks = blocks(decoder_layers)
        self.norm = nn.LayerNorm(width)

    def encode(
        self,
        inputs: Float[Tensor, "batch length channels"],
        is_real: Bool[Tensor, "batch bins"],
        *,
        with_bases: bool = False,
    ) -> EncoderOutput:
        """Up the hierarchy, across the regions and down again."""
        real = is_real.unflatten(1, (-1, SUMMARY_BP // self.bin_bp)).any(-1)
        local, halos = partial(self._in_chunks, real.shape[1]), self.halos
        bins, summaries, *bases = local(self._up, halos.up, inputs, is_real)
        if not self.context.sees_summaries:
            summaries, real = torch.zeros_like(summaries), torch.ones_like(real)
        (summaries,) = local(self._across, halos.across, summaries, real)

        regions = self._globally(summaries, real)
        message = self.from_regions(regions)
        if self.permutes_regions:
            message = message[:, displace(message.shape[1], is_random=self.training)]
        summaries = summaries + _repeat(message, REGION_BP // SUMMARY_BP)

        message = self.from_summaries(summaries)
        (bins,) = local(self._down, halos.down, bins, message, is_real)
        track = None
        if with_bases and bases:
            (track,) = local(self._base_track, halos.bases, *bases, bins)
        return EncoderOutput(bins, summaries, regions, is_real, track, inputs)

    def _up(self, inputs: Tensor, is_real: Tensor) -> tuple[Tensor, ...]:
        """Bins among their neighbours, summaries merged from these and, with a base path, bases."""
        left, right = self.margins
        x, end, real = fill_unknown(inputs, left, right), inputs.shape[1] + left, is_real[..., None]
        bins, bases = self.stem(x[:, left - self.stem.left : end + self.stem.right]), []
        if self.base_path is not None:
            margin = self.base_path.down_bp
            bases = [self.base_path.down(x[:, left - margin : end + margin])]
            bins = bins + self.base_path.to_bins(bases[0])
            bases = [bases[0] * real.repeat_interleave(self.bin_bp, 1)]
        bins = self._mix(bins * real, is_real, self.bin_blocks, self.context.bin_half)
        return bins, self.to_summaries(bins, is_real)[0], *bases

    def _across(self, summaries: Tensor, is_real: Tensor) -> tuple[Tensor]:
        """Summaries among their neighbours."""
        half = self.context.summary_half
        return (self._mix(summaries, is_real, self.summary_blocks, half),)

    def _globally(self, summaries: Tensor, is_real: Tensor) -> Tensor:
        """Regions, each of which attends to all others."""
        regions, real = self.to_regions(summaries, is_real)
        if not self.context.sees_regions:
            regions, real = torch.zeros_like(regions), torch.ones_like(real)
        return self._mix(regions, real, self.region_blocks, self.context.region_half)

    def _down(self, bins: Tensor, message: Tensor, is_real: Tensor) -> tuple[Tensor]:
        """Bins with the message of their summary, among their neighbours once more."""
        real = is_real[..., None]
        bins = (bins + _repeat(message, SUMMARY_BP // self.bin_bp)) * real
        bins = self._mix(bins, is_real, self.decoder_blocks, self.context.bin_half)
        return (self.norm(bins) * real,)

    def _base_track(self, bases: Tensor, bins: Tensor) -> tuple[Tensor]:
        """Bases with the message of their bin; beyond the ends of the window there is nothing."""
        assert self.base_path is not None
        halo = -(-self.base_path.up_bp // self.bin_bp)
        spare = halo * self.bin_bp
        bases = F.pad(bases, (0, 0, spare, spare))
        bases = self.base_path.up(bases, F.pad(bins, (0, 0, halo, halo)))
        spare -= self.base_path.up_bp
        return (bases[:, spare : bases.shape[1] - spare],)

    def _mix(self, x: Tensor, is_real: Tensor, blocks: nn.ModuleList, half: int | None) -> Tensor:
        if len(blocks) == 0:
            return x
        plan, rotations = make_plan(is_real, half), rope(x.shape[1], self.head_width, x.device)
        for block in blocks:
            x = block(x, plan, rotations)
        return x * is_real[..., None]

    @property
    def halos(self) -> Halos:
        """What the outputs of each local stage depend on."""
        bins_bp = self.context.bin_half * self.bin_bp
        return Halos(
            up=max(self.margins) + len(self.bin_blocks) * bins_bp,
            across=len(self.summary_blocks) * self.context.summary_half * SUMMARY_BP,
            down=len(self.decoder_blocks) * bins_bp,
            bases=self.base_path.up_bp if self.base_path else 0,
        )

    def _in_chunks(
        self, n_units: int, stage: Callable[..., tuple[Tensor, ...]], halo_bp: int, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        """Run a local stage about `chunk_bp` at a time, in units of a summary."""
        # Summaries are an eighth as many as bins of 16 bp: longer chunks, fewer halos.
        is_coarse = inputs[0].shape[1] == n_units
        chunk_bp = max(self.chunk_bp // REGION_BP, 1) * REGION_BP * (8 if is_coarse else 1)
        tokens = inputs[0].shape[0] * n_units * (1 if is_coarse else SUMMARY_BP // self.bin_bp)
        is_large = tokens * (self.width + self.bin_bp * self.base_width) > self.recompute_above
        return run_in_chunks(
            stage,
            inputs,
            n_units=n_units,
            chunk=chunk_bp // SUMMARY_BP,
            halo=-(-halo_bp // SUMMARY_BP),
            recompute=self.checkpointing and is_large and torch.is_grad_enabled(),
        )


def displace(n_regions: int, *, is_random: bool) -> Int64[Tensor, " regions"]:
    """For each region another one, each once; always the same unless `is_random`."""
    generator = None if is_random else torch.Generator().manual_seed(n_regions)
    cycle = torch.randperm(n_regions, generator=generator)
    return torch.empty_like(cycle).index_copy(0, cycle, cycle.roll(1))


def _repeat(x: Float[Tensor, "batch tokens width"], factor: int) -> Tensor:
    return x.repeat_interleave(factor, dim=1)

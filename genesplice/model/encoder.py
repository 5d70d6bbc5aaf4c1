"""Hierarchical attention: bins -> summaries -> regions and back, linear in length.

tokens ─ stem ─ bins ─ windowed ─┬───────────────────────────── + ─ windowed ─► bins
                                 └ merge ─ summaries ─ windowed ─┬───────── + ┘
                                           (128 bp)              └ merge ─ regions ─ global
                                                                          (1,024 bp)
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genesplice.config.model import REGION_BP, SUMMARY_BP, ModelConfig
from genesplice.model.attention import plan_context
from genesplice.model.sequence import (
    BasePath,
    EncoderOutput,
    Inputs,
    IsReal,
    Merge,
    SequenceEncoder,
    Stem,
    fill_unknown,
    make_blocks,
    run_blocks,
)

Stage = Callable[..., tuple[Tensor, ...]]
RECOMPUTE_ABOVE = 2**21
"""Measured on a CPU: a third less time without recomputing, at half and at all of this size."""
SHORTEST_CHUNK_BP = 16_384
CHUNK_CHANNELS = 2**17
"""Measured on a CPU: 32 channels in bins of 32 bp train in an eighth less time than at 2**14."""


class HierarchicalEncoder(SequenceEncoder):
    """Encode windows of one strand.

    A window's length must be a multiple of 1,024 bp. Bins are computed `chunk_bp` at a time with
    a halo wide enough that the result does not depend on the chunk.

    Permuted regions (see `ModelConfig.hierarchy`) are in another order at every step of training.

    Attributes
    ----------
    checkpointing, recompute_above
        In training, recompute all windowed stages in the backward pass and keep their outputs only,
        where the channels of all bins (and bases) are more than `recompute_above`: fewer are
        cheaper to keep than to compute again. Off, to be set.
    skips_padding
        What is N in all rows up to the window's end is not computed, with the same result: short
        sequences cost what they are long. Gradients to N are 0. Off, to be set.
    """

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__(sizes, sizes.base_width)
        bin_bp, width = self.bin_bp, self.width
        # A power of two: more of a narrow encoder, or calls cost more than work.
        fitting = CHUNK_CHANNELS * bin_bp // (width + bin_bp * self.base_width)
        self.chunk_bp = max(SHORTEST_CHUNK_BP, 1 << (fitting.bit_length() - 1))
        self.checkpointing, self.recompute_above = False, RECOMPUTE_ABOVE
        self.skips_padding = False
        self.stem = Stem(bin_bp, width, self.channels.count)
        self.base_path: BasePath | None = None
        if self.base_width:
            self.base_path = BasePath(self.channels.count, self.base_width, bin_bp, width)
        below = BasePath.down_bp if self.base_path else 0
        self.margins = max(self.stem.left, below), max(self.stem.right, below)
        base_bp = BasePath.up_bp + bin_bp if self.base_path else 0
        self.context = plan_context(sizes, max(self.margins), base_bp)
        if sizes.hierarchy == "local_only":
            self.context = self.context._replace(sees_summaries=False, sees_regions=False)
        self.permutes_regions = sizes.hierarchy == "permuted_regions"
        self.bin_blocks = make_blocks(sizes, sizes.bin_layers)
        self.to_summaries = Merge(width, SUMMARY_BP // bin_bp)
        self.summary_blocks = make_blocks(sizes, sizes.summary_layers)
        self.to_regions = Merge(width, REGION_BP // SUMMARY_BP)
        self.region_blocks = make_blocks(sizes, sizes.region_layers)
        self.from_regions = nn.Linear(width, width)
        self.from_summaries = nn.Linear(width, width)
        self.decoder_blocks = make_blocks(sizes, sizes.decoder_layers)
        self.norm = nn.LayerNorm(width)

    def encode(self, inputs: Inputs, is_real: IsReal, with_bases: bool = False) -> EncoderOutput:
        """Up the hierarchy, across the regions and down again."""
        context, near_bp = self.context, self.context.bin_half * self.bin_bp
        real = is_real.unflatten(1, (-1, SUMMARY_BP // self.bin_bp)).any(-1)
        n_units = real.shape[1]
        if self.skips_padding and real.any():
            n_units = int(real.any(0).nonzero().max()) + 1
        known, is_known = (x[:, : x.shape[1] // real.shape[1] * n_units] for x in (inputs, is_real))
        spare, is_there = real.shape[1] - n_units, real[:, :n_units]
        local = partial(self._in_chunks, n_units)

        up_bp = max(self.margins) + len(self.bin_blocks) * near_bp
        bins, summaries, *bases = local(self._up, up_bp, known, is_known)
        if not context.sees_summaries:
            summaries, is_there = torch.zeros_like(summaries), torch.ones_like(is_there)
        halo_bp = len(self.summary_blocks) * context.summary_half * SUMMARY_BP
        (summaries,) = local(self._among_summaries, halo_bp, summaries, is_there)

        summaries, is_there = _padded(summaries, spare), _padded(is_there, spare)
        regions = self._across(summaries, is_there)
        message = self.from_regions(regions)
        if self.permutes_regions:
            message = message[:, displace(message.shape[1], is_random=self.training)]
        summaries = summaries + message.repeat_interleave(REGION_BP // SUMMARY_BP, 1)

        message = self.from_summaries(summaries[:, :n_units])
        down_bp = len(self.decoder_blocks) * near_bp
        (bins,) = local(self._down, down_bp, bins, message, is_known)
        track = None
        if with_bases and bases:
            (track,) = local(self._to_bases, BasePath.up_bp, *bases, bins)
            track = _padded(track, spare * SUMMARY_BP)
        bins = _padded(bins, spare * SUMMARY_BP // self.bin_bp)
        return EncoderOutput(bins, summaries, regions, is_real, track, inputs)

    def enter(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """Bins before any attention and, with a base path, bases: what no adapter changes."""
        left, right = self.margins
        x, end = fill_unknown(inputs, left, right), inputs.shape[1] + left
        if self.base_path is None:
            return (self.first_bins(x),)
        bases = self.base_path.down(x[:, left - BasePath.down_bp : end + BasePath.down_bp])
        return self.first_bins(x, bases), bases

    def first_bins(self, padded: Tensor, bases: Tensor | None = None) -> Tensor:
        """Bins before any attention, from channels with `margins` around them, and bases."""
        (left, right), stem = self.margins, self.stem
        bins = stem(padded[:, left - stem.left : padded.shape[1] - right + stem.right])
        if self.base_path is None or bases is None:
            return bins
        return bins + self.base_path.to_bins(bases)

    def _up(self, inputs: Tensor, is_real: Tensor) -> tuple[Tensor, ...]:
        """Bins among their neighbours, summaries merged from these and, with a base path, bases."""
        (bins, *bases), real = self.enter(inputs), is_real[..., None]
        bases = [one * real.repeat_interleave(self.bin_bp, 1) for one in bases]
        bins = run_blocks(bins * real, is_real, self.bin_blocks, self.context.bin_half) * real
        return bins, self.to_summaries(bins, is_real)[0], *bases

    def _among_summaries(self, summaries: Tensor, is_real: Tensor) -> tuple[Tensor]:
        """Summaries among their neighbours."""
        half = self.context.summary_half
        return (run_blocks(summaries, is_real, self.summary_blocks, half) * is_real[..., None],)

    def _across(self, summaries: Tensor, is_real: Tensor) -> Tensor:
        """Regions, each of which attends to all others."""
        regions, real = self.to_regions(summaries, is_real)
        if not self.context.sees_regions:
            regions, real = torch.zeros_like(regions), torch.ones_like(real)
        half = self.context.region_half
        return run_blocks(regions, real, self.region_blocks, half) * real[..., None]

    def _down(self, bins: Tensor, message: Tensor, is_real: Tensor) -> tuple[Tensor]:
        """Bins with the message of their summary, among their neighbours once more."""
        real = is_real[..., None]
        bins = (bins + message.repeat_interleave(SUMMARY_BP // self.bin_bp, 1)) * real
        bins = run_blocks(bins, is_real, self.decoder_blocks, self.context.bin_half) * real
        return (self.norm(bins) * real,)

    def _to_bases(self, bases: Tensor, bins: Tensor) -> tuple[Tensor]:
        """Bases with the message of their bin; beyond the ends of the window there is nothing."""
        assert self.base_path is not None
        halo = -(-BasePath.up_bp // self.bin_bp)
        spare = halo * self.bin_bp
        bases = F.pad(bases, (0, 0, spare, spare))
        bases = self.base_path.up(bases, F.pad(bins, (0, 0, halo, halo)))
        spare -= BasePath.up_bp
        return (bases[:, spare : bases.shape[1] - spare],)

    def _in_chunks(
        self, n_units: int, stage: Stage, halo_bp: int, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        """Run a local stage about `chunk_bp` at a time, in units of a summary."""
        # Summaries are an eighth as many as bins of 16 bp: longer chunks, fewer halos.
        is_coarse = inputs[0].shape[1] == n_units
        chunk_bp = max(self.chunk_bp // REGION_BP, 1) * REGION_BP * (8 if is_coarse else 1)
        tokens = inputs[0].shape[0] * n_units * (1 if is_coarse else SUMMARY_BP // self.bin_bp)
        is_large = tokens * (self.width + self.bin_bp * self.base_width) > self.recompute_above
        if self.checkpointing and is_large and torch.is_grad_enabled():
            stage = partial(checkpoint, stage, use_reentrant=False)
        chunk, halo = chunk_bp // SUMMARY_BP, -(-halo_bp // SUMMARY_BP)
        return run_in_chunks(stage, inputs, n_units=n_units, chunk=chunk, halo=halo)


def _padded(x: Tensor, spare: int) -> Tensor:
    """`spare` more tokens of zeros, or False, at the end."""
    return torch.cat([x, x.new_zeros(len(x), spare, *x.shape[2:])], 1) if spare else x


def displace(n_regions: int, *, is_random: bool) -> Int64[Tensor, " regions"]:
    """For each region another one, each once; always the same unless `is_random`."""
    generator = None if is_random else torch.Generator().manual_seed(n_regions)
    cycle = torch.randperm(n_regions, generator=generator)
    return torch.empty_like(cycle).index_copy(0, cycle, cycle.roll(1))


# --- local stages in chunks with a halo: the same from less memory, and nearer the cache ---


class _Chunk(NamedTuple):
    """Some rows of a batch; units `low … high` of them, which are read, `first … last` are kept."""

    rows: slice
    low: int
    high: int
    first: int
    last: int

    def read(self, x: Tensor, n_units: int) -> Tensor:
        """What is read of `x`, which has a whole number of tokens in each of `n_units`."""
        size = x.shape[1] // n_units
        return x[self.rows, self.low * size : self.high * size]

    def kept(self, x: Tensor, n_units: int) -> Tensor:
        """What is kept of the whole `x`."""
        size = x.shape[1] // n_units
        return x[self.rows, self.first * size : self.last * size]

    def inner(self, x: Tensor) -> Tensor:
        """`x`, computed from what is read, without the halo."""
        size = x.shape[1] // (self.high - self.low)
        return x[:, (self.first - self.low) * size : (self.last - self.low) * size]


def run_in_chunks(
    stage: Stage, inputs: Sequence[Tensor], *, n_units: int, chunk: int, halo: int
) -> tuple[Tensor, ...]:
    """`stage(*inputs)`, of which no output depends on more than `halo` units on each side.

    Parameters
    ----------
    stage
        From tensors (rows, tokens, …) to others; every tensor has a whole number of tokens a unit.
    n_units, chunk, halo
        Units of the whole, of one chunk (or of several rows where these are short), and of its
        neighbours that are computed with it.
    """
    n_rows, rows_each = len(inputs[0]), max(chunk // n_units, 1)
    chunks = []
    for row in range(0, n_rows, rows_each):
        for first in range(0, n_units, chunk):
            last = min(first + chunk, n_units)
            low, high = max(first - halo, 0), min(first + chunk + halo, n_units)
            rows = slice(row, min(row + rows_each, n_rows))
            chunks.append(_Chunk(rows, low, high, first, last))
    if len(chunks) == 1:
        return stage(*inputs)
    # Outputs of all chunks go into one block of memory: allocated one by one between short-lived
    # tensors they would pin half of the heap.
    blocks: list[Tensor] = []
    placed: list[list[Tensor]] = []
    cut = zip(*(_Cut.apply(x, chunks, n_units) for x in inputs), strict=True)
    for one, parts in zip(chunks, cut, strict=True):
        for i, output in enumerate(map(one.inner, stage(*parts))):
            if i == len(blocks):
                length = output.shape[1] // (one.last - one.first) * n_units
                blocks.append(output.new_empty(n_rows, length, *output.shape[2:]))
                placed.append([])
            placed[i].append(_Put.apply(output, _alias(one.kept(blocks[i], n_units))))
    joined = zip(blocks, placed, strict=True)
    return tuple(_Join.apply(_alias(block), chunks, n_units, *parts) for block, parts in joined)


def _alias(x: Tensor) -> Tensor:
    """The same memory as a tensor that autograd does not know as a view."""
    return x.new_empty(0).set_(x.untyped_storage(), x.storage_offset(), x.shape, x.stride())


class _Cut(torch.autograd.Function):
    """Overlapping parts of a tensor; their gradients are added up in one block, not in one each."""

    @staticmethod
    def forward(ctx, x, chunks, n_units):
        ctx.chunks, ctx.n_units, ctx.shape = chunks, n_units, x.shape
        ctx.set_materialize_grads(False)
        return tuple(chunk.read(x, n_units) for chunk in chunks)

    @staticmethod
    def backward(ctx, *grads):
        known = [grad for grad in grads if grad is not None]
        if not known:
            return None, None, None
        total = known[0].new_zeros(ctx.shape)
        for chunk, grad in zip(ctx.chunks, grads, strict=True):
            if grad is not None:
                chunk.read(total, ctx.n_units).add_(grad)
        return total, None, None


class _Put(torch.autograd.Function):
    """A part in its memory of the block."""

    @staticmethod
    def forward(ctx, part, memory):
        ctx.mark_dirty(memory)
        return memory.copy_(part)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class _Join(torch.autograd.Function):
    """The block, once all parts are in it."""

    @staticmethod
    def forward(ctx, block, chunks, n_units, *parts):
        ctx.chunks, ctx.n_units = chunks, n_units
        ctx.mark_dirty(block)
        return block

    @staticmethod
    def backward(ctx, grad):
        return None, None, None, *(chunk.kept(grad, ctx.n_units) for chunk in ctx.chunks)

"""Encode a window once, then again with some bases changed: only what they touch is recomputed.

A changed base touches a few bins, these a window of bins around them, and so on up the levels. At
each layer only tokens within reach of a change are computed; the queries, keys and values of all
others are those of the unchanged window. On the way down only what the readout asks for is made.
The result is that of `encode`, to rounding.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from genesplice.config.model import REGION_BP, SUMMARY_BP
from genesplice.errors import WorkError
from genesplice.model.attention import AttentionPlan, attend, make_plan, rope
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.layers import Block
from genesplice.model.sequence import EncoderOutput, fill_unknown

Span = tuple[int, int]
PER_REGION = REGION_BP // SUMMARY_BP
DENSE_ROWS = 6
"""Half-windows of rows up to which one masked product beats cutting them into blocks."""


class Change(NamedTuple):
    """Tokens low … high of a level, which differ from the unchanged window in each variant."""

    low: int
    high: int
    values: Float[Tensor, "variants tokens width"]


class Clean(NamedTuple):
    """What enters a block of the unchanged window, and what it makes of it."""

    x: Float[Tensor, "1 tokens width"]
    q: Float[Tensor, "1 heads tokens head_width"]
    k: Float[Tensor, "1 heads tokens head_width"]
    v: Float[Tensor, "1 heads tokens head_width"]


class Stack:
    """The blocks of one level over one window: run once in full, then for changes only."""

    def __init__(
        self,
        blocks: nn.ModuleList,
        half: int | None,
        x: Float[Tensor, "1 tokens width"],
        is_real: Bool[Tensor, "1 tokens"],
        head_width: int,
    ) -> None:
        self.blocks: list[Block] = list(blocks)  # type: ignore[arg-type]
        self.half, self.is_real = half, is_real
        self.rotations = rope(x.shape[1], head_width, x.device)
        self.clean: list[Clean] = []
        self._plans: dict[tuple[int, int, int], AttentionPlan] = {}
        self._biases: dict[tuple[Span, Span], Tensor | None] = {}
        for block in self.blocks:
            q, k, v = block.project(x, self.rotations)
            self.clean.append(Clean(x, q, k, v))
            x = finish(block, x, attend(q, k, v, self._plan(0, x.shape[1], 1)))
        self.output = x * is_real[..., None]

    def advance(self, change: Change | None, wanted: Span) -> Change | None:
        """Carry a change through all blocks; None where it does not reach `wanted`."""
        spans = [wanted]
        for _ in self.blocks:
            spans.insert(0, self._around(spans[0]))
        for block, clean, span in zip(self.blocks, self.clean, spans[1:], strict=True):
            if change is None:
                return None
            change = self._block(block, clean, change, span)
        if change is None:
            return None
        low, high, values = change
        return Change(low, high, values * self.is_real[:, low:high, None])

    def _block(self, block: Block, clean: Clean, change: Change, wanted: Span) -> Change | None:
        reached = self._around((change.low, change.high))
        low, high = max(wanted[0], reached[0]), min(wanted[1], reached[1])
        first, last = self._around((low, high))
        from_, to = max(change.low, first), min(change.high, last)
        if low >= high or from_ >= to:
            return None
        values = change.values[:, from_ - change.low : to - change.low]
        q, k, v = block.project(values, self.rotations[from_:to])
        k, v = (
            splice(old, new, first, last, from_, to, dim=2)
            for old, new in ((clean.k, k), (clean.v, v))
        )
        if self.half is not None and high - low > DENSE_ROWS * self.half:
            q = splice(clean.q, q, first, last, from_, to, dim=2)
            mixed = attend(q, k, v, self._plan(first, last, len(values)))
            mixed = mixed[:, :, low - first : high - first]
        else:
            q = splice(clean.q, q, low, high, from_, to, dim=2)
            bias = self._bias((low, high), (first, last))
            mixed = F.scaled_dot_product_attention(
                q, k, v, attn_mask=None if bias is None else bias.to(q.dtype)
            )
        x = splice(clean.x, values, low, high, from_, to)
        return Change(low, high, finish(block, x, mixed))

    def _around(self, span: Span) -> Span:
        length = self.is_real.shape[1]
        if self.half is None:
            return 0, length
        return max(span[0] - self.half, 0), min(span[1] + self.half, length)

    def _bias(self, rows: Span, keys: Span) -> Float[Tensor, "rows keys"] | None:
        """Which keys these rows may hear, as `make_plan` has it; None where it is all."""
        if (rows, keys) not in self._biases:
            at, key = torch.arange(*rows)[:, None], torch.arange(*keys)[None, :]
            allowed = self.is_real[:, keys[0] : keys[1]] | (at == key)
            if self.half is not None:
                allowed = allowed & ((at - key).abs() <= self.half)
            bias = torch.zeros(allowed.shape).masked_fill_(~allowed, -math.inf)
            self._biases[rows, keys] = None if bool(allowed.all()) else bias
        return self._biases[rows, keys]

    def _plan(self, low: int, high: int, variants: int) -> AttentionPlan:
        key = low, high, variants
        if key not in self._plans:
            real = self.is_real[:, low:high].expand(variants, -1)
            self._plans[key] = make_plan(real, self.half)
        return self._plans[key]


def finish(
    block: Block,
    x: Float[Tensor, "variants tokens width"],
    mixed: Float[Tensor, "variants heads tokens head_width"],
) -> Float[Tensor, "variants tokens width"]:
    """What a block does after attention."""
    x = x + block.out(mixed.transpose(1, 2).flatten(2))
    return x + block.contract(block.expand(block.mlp_norm(x)))


def splice(
    old: Tensor, new: Tensor, low: int, high: int, from_: int, to: int, *, dim: int = 1
) -> Tensor:
    """Tokens low … high of `old`, with those of from_ … to replaced by `new`, which they are."""
    parts = []
    if low < min(from_, high):
        parts.append(old.narrow(dim, low, min(from_, high) - low))
    first, last = max(from_, low), min(to, high)
    if first < last:
        parts.append(new.narrow(dim, first - from_, last - first))
    start = max(to, low)
    if start < high:
        parts.append(old.narrow(dim, start, high - start))
    parts = [part.expand(new.shape[0], *part.shape[1:]) for part in parts]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


class SplicedEncoder:
    """One strand of one window under `encoder`, and what changes in it.

    Parameters
    ----------
    inputs
        Channels of the unchanged window.
    bins
        Which bins a later `encode` gives back.

    Raises
    ------
    WorkError
        If the encoder hears regions of other places.
    """

    def __init__(
        self,
        encoder: HierarchicalEncoder,
        inputs: Float[Tensor, "1 length channels"],
        is_real: Bool[Tensor, "1 bins"],
        bins: Span,
        *,
        with_bases: bool = False,
    ) -> None:
        if encoder.permutes_regions:
            raise WorkError("permuted regions: what a change touches is not near it")
        self.encoder, self.is_real, self.bins = encoder, is_real, bins
        self.left, self.right = encoder.margins
        self.padded = fill_unknown(inputs, self.left, self.right)
        self.per_summary = SUMMARY_BP // encoder.bin_bp
        self.up_halo = 0
        if with_bases and encoder.base_path is not None:
            self.up_halo = -(-encoder.base_path.up_bp // encoder.bin_bp)
        self.with_bases = self.up_halo > 0
        self._run()

    def _run(self) -> None:
        encoder, context, real = self.encoder, self.encoder.context, self.is_real
        bins, self.fine = self._enter(self.padded, real)
        heads = encoder.head_width
        self.first = Stack(encoder.bin_blocks, context.bin_half, bins, real, heads)
        self.summary_real = real.unflatten(1, (-1, self.per_summary)).any(-1)
        summaries = encoder.to_summaries(self.first.output, real)[0]
        if not context.sees_summaries:
            summaries = torch.zeros_like(summaries)
            self.summary_real = torch.ones_like(self.summary_real)
        self.summaries = Stack(
            encoder.summary_blocks, context.summary_half, summaries, self.summary_real, heads
        )
        regions, region_real = encoder.to_regions(self.summaries.output, self.summary_real)
        if not context.sees_regions:
            regions, region_real = torch.zeros_like(regions), torch.ones_like(region_real)
        self.regions = Stack(
            encoder.region_blocks, context.region_half, regions, region_real, heads
        )
        self._plan_the_way_down()
        told = self._tell(self.summaries.output, self.regions.output)
        fused = (self.first.output + told) * real[..., None]
        self.last = Stack(encoder.decoder_blocks, context.bin_half, fused, real, heads)
        self.fused = encoder.norm(self.last.output) * real[..., None]

    def _plan_the_way_down(self) -> None:
        """Which tokens of each level the wanted bins can hear."""
        n_bins, half = self.is_real.shape[1], self.encoder.context.bin_half
        low, high = self.bins
        self.wanted = max(low - self.up_halo, 0), min(high + self.up_halo, n_bins)
        halo = half * len(self.encoder.decoder_blocks)
        self.heard = max(self.wanted[0] - halo, 0), min(self.wanted[1] + halo, n_bins)

    def _enter(
        self, x: Float[Tensor, "variants longer channels"], real: Bool[Tensor, "1 bins"]
    ) -> tuple[Tensor, Tensor | None]:
        """Bins before any attention, and vectors at 1 bp folded by bin, from padded channels."""
        encoder, path = self.encoder, self.encoder.base_path
        stop = x.shape[1] - self.right
        bins = encoder.stem(x[:, self.left - encoder.stem.left : stop + encoder.stem.right])
        if path is None:
            return bins * real[..., None], None
        fine = path.down(x[:, self.left - path.down_bp : stop + path.down_bp])
        bins = bins + path.to_bins(fine)
        fine = fine.reshape(*bins.shape[:2], -1) * real[..., None]
        return bins * real[..., None], fine

    def _tell(self, summaries: Tensor, regions: Tensor) -> Tensor:
        """What bins hear from these summaries and regions."""
        told = summaries + _repeat(self.encoder.from_regions(regions), PER_REGION)
        return _repeat(self.encoder.from_summaries(told), self.per_summary)

    def encode(self, low_bp: int, bases: Float[Tensor, "variants changed 4"]) -> EncoderOutput:
        """The wanted bins of each variant, in which `bases` replaces what starts at `low_bp`.

        Bins count from the first wanted one; there are no summaries or regions. Whether a bin is
        real cannot change.
        """
        bin_bp, high_bp = self.encoder.bin_bp, low_bp + bases.shape[1]
        low = max((low_bp - self.right) // bin_bp, 0)
        high = min(-(-(high_bp + self.left) // bin_bp), self.is_real.shape[1])
        x = self.padded[:, low * bin_bp : high * bin_bp + self.left + self.right]
        x = x.repeat(len(bases), 1, 1)
        at = low_bp - low * bin_bp + self.left
        x[:, at : at + bases.shape[1], :4] = bases
        entered, fine = self._enter(x, self.is_real[:, low:high])
        n_bins = self.is_real.shape[1]
        bins = self.first.advance(Change(low, high, entered), (0, n_bins))
        assert bins is not None
        fused = self._come_down(bins, self._go_up(bins))
        first, last = self.bins
        out = self._fused(fused, (first, last), len(bases))
        real = self.is_real[:, first:last].expand(len(bases), -1)
        track = None
        if self.with_bases:
            assert fine is not None
            track = self._bases(Change(low, high, fine), fused)
        empty = out[:, :0]
        return EncoderOutput(out, empty, empty, real, track, self._inputs(low_bp, bases))

    def _inputs(self, low_bp: int, bases: Float[Tensor, "variants changed 4"]) -> Tensor:
        """Channels of the wanted bins, with what was changed in them."""
        first, last = (edge * self.encoder.bin_bp for edge in self.bins)
        x = self.padded[:, self.left + first : self.left + last].repeat(len(bases), 1, 1)
        low, high = max(low_bp, first), min(low_bp + bases.shape[1], last)
        if low < high:
            x[:, low - first : high - first, :4] = bases[:, low - low_bp : high - low_bp]
        return x

    def _go_up(self, bins: Change) -> tuple[Change | None, Change | None]:
        """Summaries and regions that differ."""
        encoder, per = self.encoder, self.per_summary
        if not encoder.context.sees_summaries:
            return None, None
        low, high = _coarse((bins.low, bins.high), per)
        x = splice(self.first.output, bins.values, low * per, high * per, bins.low, bins.high)
        merged = encoder.to_summaries(x, self.is_real[:, low * per : high * per].expand(len(x), -1))
        everywhere = 0, self.summary_real.shape[1]
        summaries = self.summaries.advance(Change(low, high, merged[0]), everywhere)
        assert summaries is not None
        if not encoder.context.sees_regions:
            return summaries, None
        first, last = _coarse((summaries.low, summaries.high), PER_REGION)
        x = splice(
            self.summaries.output, summaries.values, first * PER_REGION, last * PER_REGION,
            summaries.low, summaries.high,
        )  # fmt: skip
        real = self.summary_real[:, first * PER_REGION : last * PER_REGION].expand(len(x), -1)
        merged = encoder.to_regions(x, real)
        heard = _coarse(self.heard, self.per_summary * PER_REGION)
        return summaries, self.regions.advance(Change(first, last, merged[0]), heard)

    def _come_down(
        self, bins: Change, coarse: tuple[Change | None, Change | None]
    ) -> Change | None:
        """Fused bins that differ, among those that are wanted."""
        summaries, regions = coarse
        low, high = self.heard
        spans = [(bins.low, bins.high)]
        if summaries is not None:
            spans.append((summaries.low * self.per_summary, summaries.high * self.per_summary))
        if regions is not None:
            spans.append(self.heard)
        low = max(low, min(span[0] for span in spans))
        high = min(high, max(span[1] for span in spans))
        if low >= high:
            return None
        # Whole regions, so that each level can be cut out of the one above.
        size = self.per_summary * PER_REGION
        first, last = _coarse((low, high), size)
        told = self._tell(
            _patched(self.summaries.output, summaries, first * PER_REGION, last * PER_REGION),
            _patched(self.regions.output, regions, first, last),
        )[:, low - first * size : high - first * size]
        x = _patched(self.first.output, bins, low, high) + told
        x = x * self.is_real[:, low:high, None]
        if not len(self.last.blocks):
            return Change(low, high, x)
        return self.last.advance(Change(low, high, x), self.wanted)

    def _fused(self, change: Change | None, span: Span, variants: int) -> Tensor:
        low, high = span
        if change is None:
            return self.fused[:, low:high].expand(variants, -1, -1)
        real = self.is_real[:, change.low : change.high, None]
        done = Change(change.low, change.high, self.encoder.norm(change.values) * real)
        return _patched(self.fused, done, low, high).expand(variants, -1, -1)

    def _bases(self, fine: Change, fused: Change | None) -> Tensor:
        """Vectors at 1 bp over the wanted bins."""
        path = self.encoder.base_path
        assert path is not None
        assert self.fine is not None
        low, high = self.wanted
        first, last = self.bins
        variants = len(fine.values)
        below = _patched(self.fine, fine, low, high).expand(variants, -1, -1)
        above = self._fused(fused, self.wanted, variants)
        missing = self.up_halo - (first - low), self.up_halo - (high - last)
        below, above = (F.pad(x, (0, 0, *missing)) for x in (below, above))
        out = path.up(below.reshape(variants, -1, path.width), above)
        spare = self.up_halo * self.encoder.bin_bp - path.up_bp
        return out[:, spare : out.shape[1] - spare]


def _patched(
    clean: Float[Tensor, "1 tokens width"], change: Change | None, low: int, high: int
) -> Float[Tensor, "variants wanted width"]:
    if change is None:
        return clean[:, low:high]
    return splice(clean, change.values, low, high, change.low, change.high)


def _coarse(span: Span, factor: int) -> Span:
    return span[0] // factor, -(-span[1] // factor)


def _repeat(x: Tensor, factor: int) -> Tensor:
    return x.repeat_interleave(factor, dim=1)

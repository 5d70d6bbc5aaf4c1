"""Hierarchical attention: bins -> summaries -> regions and back, linear in length.

tokens ─ stem ─ bins ─ windowed ─┬───────────────────────────── + ─ windowed ─► bins
                                 └ merge ─ summaries ─ windowed ─┬───────── + ┘
                                           (128 bp)              └ merge ─ regions ─ global
                                                                          (1,024 bp)
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genesplice.config.model import REGION_BP, SUMMARY_BP, HierarchyName
from genesplice.model.attention import make_plan, rope
from genesplice.model.base_path import BasePath
from genesplice.model.chunking import Cell, Grid, Pieces, Shelf, Stage, around
from genesplice.model.context import plan_context
from genesplice.model.dense import Dense
from genesplice.model.layers import Block, Merge, Stem
from genesplice.model.sequence import EncoderOutput, SequenceEncoder, fill_unknown

# Summaries are an eighth as many as bins of 16 bp: longer chunks, fewer halos.
SUMMARIES_CHUNK = 8


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
        self.from_regions = Dense(width, width)
        self.from_summaries = Dense(width, width)
        self.decoder_blocks = blocks(decoder_layers)
        self.norm = nn.LayerNorm(width)

    def levels(
        self,
        inputs: Float[Tensor, "batch length channels"],
        is_real: Bool[Tensor, "batch bins"],
        *,
        with_bases: bool = False,
    ) -> EncoderOutput:
        """Up the hierarchy and down again, chunk by chunk."""
        grid = Grid(is_real.shape[0], is_real.shape[1], self.bin_bp, self.chunk_bp)
        bins, merged, *bases = self._finer(inputs, is_real, grid)
        summaries, regions = self._coarser(merged.whole(), is_real)
        fused = self._fused(bins, is_real, self.from_summaries(summaries), grid)
        track = None
        if with_bases and bases:
            track = self._bases(bases[0], fused, grid).reshape(len(is_real), -1, self.base_width)
        return EncoderOutput(fused.whole(), summaries, regions, is_real, track)

    def _finer(self, inputs: Tensor, is_real: Tensor, grid: Grid) -> list[Pieces]:
        """Bins before the coarse levels, merged summaries and, with a base path, its vectors.

        Base vectors are folded by bin.
        """
        left, right = self.margins
        padded = fill_unknown(inputs, left, right)
        halo = len(self.bin_blocks) * self.context.bin_half

        def stage(cell: Cell) -> tuple[Tensor, ...]:
            low, high = max(cell.low - halo, 0), min(cell.high + halo, grid.n_bins)
            x = padded[cell.rows, low * self.bin_bp : high * self.bin_bp + left + right]
            real = is_real[cell.rows, low:high, None]
            stop = x.shape[1] - right
            bins = self.stem(x[:, left - self.stem.left : stop + self.stem.right])
            inner = slice(cell.low - low, cell.high - low)
            bases: tuple[Tensor, ...] = ()
            if self.base_path is not None:
                reach = self.base_path.down_bp
                fine = self.base_path.down(x[:, left - reach : stop + reach])
                bins = bins + self.base_path.to_bins(fine)
                bases = ((fine.reshape(*bins.shape[:2], -1) * real)[:, inner],)
            half = self.context.bin_half
            bins = self._mix(bins * real, real[..., 0], self.bin_blocks, half)[:, inner]
            merged = self.to_summaries(bins, real[:, inner, 0])[0]
            return bins, merged, *bases

        return self._by_cell(stage, grid)

    def _coarser(
        self, summaries: Float[Tensor, "batch summaries width"], is_real: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Summaries that have heard of the regions, and the regions."""
        real = is_real.unflatten(1, (-1, SUMMARY_BP // self.bin_bp)).any(-1)
        if not self.context.sees_summaries:
            summaries, real = torch.zeros_like(summaries), torch.ones_like(real)
        half = self.context.summary_half
        grid = Grid(real.shape[0], real.shape[1], SUMMARY_BP, SUMMARIES_CHUNK * self.chunk_bp)
        halo = len(self.summary_blocks) * half

        def stage(cell: Cell) -> tuple[Tensor, ...]:
            low, high = max(cell.low - halo, 0), min(cell.high + halo, grid.n_bins)
            x, known = summaries[cell.rows, low:high], real[cell.rows, low:high]
            mixed = self._mix(x, known, self.summary_blocks, half)
            return (mixed[:, cell.low - low : cell.high - low],)

        mixed = self._by_cell(stage, grid)[0].whole()
        regions, region_real = self.to_regions(mixed, real)
        if not self.context.sees_regions:
            regions, region_real = torch.zeros_like(regions), torch.ones_like(region_real)
        regions = self._mix(regions, region_real, self.region_blocks, self.context.region_half)
        told = self.from_regions(regions)
        if self.permutes_regions:
            told = told[:, self._elsewhere(told.shape[1])]
        return mixed + _repeat(told, REGION_BP // SUMMARY_BP), regions

    def _elsewhere(self, n_regions: int) -> Tensor:
        """For each region another one, each once; the same in every pass but in training."""
        generator = None if self.training else torch.Generator().manual_seed(n_regions)
        cycle = torch.randperm(n_regions, generator=generator)
        return torch.empty_like(cycle).index_copy(0, cycle, cycle.roll(1))

    def _fused(self, bins: Pieces, is_real: Tensor, told: Tensor, grid: Grid) -> Pieces:
        """Bins that have heard from the summaries, `told`, and from each other once more."""
        halo, size = len(self.decoder_blocks) * self.context.bin_half, SUMMARY_BP // self.bin_bp

        def stage(cell: Cell) -> tuple[Tensor, ...]:
            x, skipped = around(bins.rows[cell.row], cell.column, halo)
            low, high = cell.low - skipped, cell.low - skipped + x.shape[1]
            heard = _repeat(told[cell.rows, low // size : -(-high // size)], size)
            x = x + heard[:, low % size : low % size + x.shape[1]]
            real = is_real[cell.rows, low:high]
            x = self._mix(x * real[..., None], real, self.decoder_blocks, self.context.bin_half)
            inner = slice(skipped, skipped + cell.high - cell.low)
            return (self.norm(x[:, inner]) * real[:, inner, None],)

        return self._by_cell(stage, grid)[0]

    def _bases(self, bases: Pieces, fused: Pieces, grid: Grid) -> Tensor:
        """Vectors at 1 bp, folded by bin, after the fused bins were read back."""
        path = self.base_path
        assert path is not None
        halo = -(-path.up_bp // self.bin_bp)

        def stage(cell: Cell) -> tuple[Tensor, ...]:
            (fine, skipped), (above, _) = (
                around(pieces.rows[cell.row], cell.column, halo) for pieces in (bases, fused)
            )
            # Beyond the ends of the window there is nothing.
            missing = halo - skipped, cell.high - cell.low + 2 * halo - fine.shape[1]
            fine, above = (
                F.pad(x, (0, 0, missing[0], missing[1] - missing[0])) for x in (fine, above)
            )
            out = path.up(fine.reshape(fine.shape[0], -1, path.width), above)
            spare = halo * self.bin_bp - path.up_bp
            out = out[:, spare : out.shape[1] - spare]
            return (out.reshape(out.shape[0], cell.high - cell.low, -1),)

        return self._by_cell(stage, grid)[0].whole()

    def _mix(self, x: Tensor, is_real: Tensor, blocks: nn.ModuleList, half: int | None) -> Tensor:
        if len(blocks) == 0:
            return x
        plan = make_plan(is_real, half)
        rotations = rope(x.shape[1], self.head_width, x.device)
        for block in blocks:
            x = block(x, plan, rotations)
        return x * is_real[..., None]

    def _by_cell(self, stage: Stage, grid: Grid) -> list[Pieces]:
        """Run a stage over every cell; one tensor in pieces for each that it returns."""
        channels = self.width + self.bin_bp * self.base_width
        is_large = grid.n_rows * grid.n_bins * channels > self.recompute_above
        keep = self.checkpointing and is_large and torch.is_grad_enabled()
        rows: list[list[tuple[Tensor, ...]]] = []
        shelves: list[Shelf] = []
        for cells in grid.cells():
            rows.append([])
            for cell in cells:
                if not keep:
                    rows[-1].append(stage(cell))
                    continue
                found = checkpoint(stage, cell, use_reentrant=False)
                shelves = shelves or [Shelf(grid) for _ in found]
                kept = (shelf.put(cell, x) for shelf, x in zip(shelves, found, strict=True))
                rows[-1].append(tuple(kept))
        n_outputs = len(rows[0][0])
        return [
            Pieces([[out[i] for out in row] for row in rows], shelves[i] if keep else None)
            for i in range(n_outputs)
        ]


def _repeat(x: Float[Tensor, "batch tokens width"], factor: int) -> Tensor:
    return x.repeat_interleave(factor, dim=1)

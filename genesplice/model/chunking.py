"""A batch in pieces: local stages run chunk by chunk, with a halo of their neighbours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from genesplice.config.model import REGION_BP


class Cell(NamedTuple):
    """Some rows of a batch, and bins low … high of them; `row` and `column` in the grid."""

    rows: slice
    low: int
    high: int
    row: int
    column: int


Stage = Callable[[Cell], tuple[Tensor, ...]]


class Grid:
    """A batch cut into cells of about `chunk_bp`, borders on whole regions.

    Pieces stay apart until the end: cutting them out of one long tensor again would cost its
    whole length in the backward pass, each time.
    """

    def __init__(self, n_rows: int, n_bins: int, bin_bp: int, chunk_bp: int) -> None:
        self.n_rows, self.n_bins = n_rows, n_bins
        self.step = max(chunk_bp // REGION_BP, 1) * REGION_BP // bin_bp
        self.rows = max(chunk_bp // (n_bins * bin_bp), 1)

    def cells(self) -> list[list[Cell]]:
        """Rows of cells."""
        return [
            [
                Cell(slice(first, first + self.rows), low, min(low + self.step, self.n_bins), i, j)
                for j, low in enumerate(range(0, self.n_bins, self.step))
            ]
            for i, first in enumerate(range(0, self.n_rows, self.rows))
        ]


def around(pieces: list[Tensor], at: int, halo: int) -> tuple[Tensor, int]:
    """Piece number `at` with up to `halo` tokens of its neighbours; how many on the left."""
    parts, left = [pieces[at]], 0
    for piece in reversed(pieces[:at]):
        if left == halo:
            break
        parts.insert(0, piece[:, max(piece.shape[1] - (halo - left), 0) :])
        left += parts[0].shape[1]
    right = 0
    for piece in pieces[at + 1 :]:
        if right == halo:
            break
        parts.append(piece[:, : halo - right])
        right += parts[-1].shape[1]
    return (parts[0] if len(parts) == 1 else torch.cat(parts, 1)), left


class Shelf:
    """Pieces that live long, side by side in one block of memory; `whole` costs no copy.

    Allocated one by one between short-lived tensors they would pin half of the heap.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid, self.block = grid, torch.empty(0)

    def put(self, cell: Cell, piece: Tensor) -> Tensor:
        """A copy of `piece` on the shelf."""
        each, rest = divmod(piece.shape[1] * self.grid.n_bins, cell.high - cell.low)
        assert rest == 0
        if self.block.numel() == 0:
            self.block = piece.new_empty(self.grid.n_rows, each, piece.shape[2])
        low = cell.low * piece.shape[1] // (cell.high - cell.low)
        place = self.block[cell.rows, low : low + piece.shape[1]]
        return _Put.apply(piece, _alias(place))


@dataclass(frozen=True)
class Pieces:
    """One tensor in pieces, `rows` as in the grid; on a shelf or not."""

    rows: list[list[Tensor]]
    shelf: Shelf | None = None

    def whole(self) -> Tensor:
        """All pieces as one batch; from a shelf without a copy."""
        if self.shelf is not None:
            return _Whole.apply(_alias(self.shelf.block), *(x for row in self.rows for x in row))
        rows = [row[0] if len(row) == 1 else torch.cat(row, 1) for row in self.rows]
        return rows[0] if len(rows) == 1 else torch.cat(rows)


def _alias(x: Tensor) -> Tensor:
    """The same memory as a tensor that autograd does not know as a view."""
    return x.new_empty(0).set_(x.untyped_storage(), x.storage_offset(), x.shape, x.stride())


class _Put(torch.autograd.Function):
    @staticmethod
    def forward(ctx, piece, place):
        ctx.mark_dirty(place)
        return place.copy_(piece)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx, block, *pieces):
        ctx.shapes = [piece.shape[:2] for piece in pieces]
        ctx.mark_dirty(block)
        return block

    @staticmethod
    def backward(ctx, grad):
        parts, row, low = [], 0, 0
        for n_rows, length in ctx.shapes:
            parts.append(grad[row : row + n_rows, low : low + length])
            low += length
            if low == grad.shape[1]:
                row, low = row + n_rows, 0
        return None, *parts

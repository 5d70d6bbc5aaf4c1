"""Local stages in chunks with a halo: the same result from less memory, and nearer the cache."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


class Chunk(NamedTuple):
    """Some rows of a batch; units `low … high` of them, which are read, `first … last` are kept."""

    rows: slice
    low: int
    high: int
    first: int
    last: int

    def part(self, x: Tensor, n_units: int) -> Tensor:
        """What is read of `x`, which has a whole number of tokens in each of `n_units`."""
        size = x.shape[1] // n_units
        return x[self.rows, self.low * size : self.high * size]

    def inner(self, x: Tensor) -> Tensor:
        """`x`, computed from `part`, without the halo."""
        size = x.shape[1] // (self.high - self.low)
        return x[:, (self.first - self.low) * size : (self.last - self.low) * size]


def make_chunks(n_rows: int, n_units: int, chunk: int, halo: int) -> list[Chunk]:
    """Cut a batch into chunks of `chunk` units, or of several rows where these are short."""
    rows_each = max(chunk // n_units, 1)
    return [
        Chunk(
            slice(row, min(row + rows_each, n_rows)),
            max(first - halo, 0),
            min(first + chunk + halo, n_units),
            first,
            min(first + chunk, n_units),
        )
        for row in range(0, n_rows, rows_each)
        for first in range(0, n_units, chunk)
    ]


def run_in_chunks(
    stage: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[Tensor],
    *,
    n_units: int,
    chunk: int,
    halo: int,
    recompute: bool = False,
) -> tuple[Tensor, ...]:
    """`stage(*inputs)`, of which no output depends on more than `halo` units on each side.

    Parameters
    ----------
    stage
        From tensors (rows, tokens, …) to others; every tensor has a whole number of tokens a unit.
    n_units, chunk, halo
        Units of the whole, of one chunk, and of its neighbours that are computed with it.
    recompute
        Keep the outputs only, and compute all else again in the backward pass.
    """
    chunks = make_chunks(len(inputs[0]), n_units, chunk, halo)
    if len(chunks) == 1:
        return checkpoint(stage, *inputs, use_reentrant=False) if recompute else stage(*inputs)
    parts = zip(*(_Cut.apply(x, chunks, n_units) for x in inputs), strict=True)
    joined: list[_Joined] = []
    for one, part in zip(chunks, parts, strict=True):
        outputs = checkpoint(stage, *part, use_reentrant=False) if recompute else stage(*part)
        joined = joined or [_Joined(len(inputs[0]), n_units) for _ in outputs]
        for whole, output in zip(joined, outputs, strict=True):
            whole.put(one, one.inner(output))
    return tuple(whole.join() for whole in joined)


class _Joined:
    """Outputs of all chunks in one block of memory.

    Allocated one by one between short-lived tensors they would pin half of the heap.
    """

    def __init__(self, n_rows: int, n_units: int) -> None:
        self.n_rows, self.n_units = n_rows, n_units
        self.block = torch.empty(0)
        self.parts: list[Tensor] = []

    def put(self, chunk: Chunk, part: Tensor) -> None:
        size = part.shape[1] // (chunk.last - chunk.first)
        if not self.parts:
            self.block = part.new_empty(self.n_rows, size * self.n_units, *part.shape[2:])
        place = self.block[chunk.rows, chunk.first * size : chunk.last * size]
        self.parts.append(_Put.apply(part, _alias(place)))

    def join(self) -> Tensor:
        return _Join.apply(_alias(self.block), *self.parts)


def _alias(x: Tensor) -> Tensor:
    """The same memory as a tensor that autograd does not know as a view."""
    return x.new_empty(0).set_(x.untyped_storage(), x.storage_offset(), x.shape, x.stride())


class _Cut(torch.autograd.Function):
    """Overlapping parts of a tensor; their gradients are added up in one block, not in one each."""

    @staticmethod
    def forward(ctx, x, chunks, n_units):
        ctx.chunks, ctx.n_units, ctx.shape = chunks, n_units, x.shape
        ctx.set_materialize_grads(False)
        return tuple(chunk.part(x, n_units) for chunk in chunks)

    @staticmethod
    def backward(ctx, *grads):
        known = [grad for grad in grads if grad is not None]
        if not known:
            return None, None, None
        total = known[0].new_zeros(ctx.shape)
        for chunk, grad in zip(ctx.chunks, grads, strict=True):
            if grad is not None:
                chunk.part(total, ctx.n_units).add_(grad)
        return total, None, None


class _Put(torch.autograd.Function):
    @staticmethod
    def forward(ctx, part, place):
        ctx.mark_dirty(place)
        return place.copy_(part)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx, block, *parts):
        ctx.shapes = [part.shape[:2] for part in parts]
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

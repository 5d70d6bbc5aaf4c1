"""flash-attn's kernels behind the plan of `model.attention`: CUDA, fp16 or bf16.

Their layout is (batch, tokens, heads, width); sequences of unequal length lie end to end with
their borders in `cu_seqlens`. A window of (w, w) lets query i see keys i - w … i + w.

Source: Dao, FlashAttention-2, 2023; flash_attn_interface.py of flash-attn 2.7.
"""

import importlib
import importlib.util
from types import ModuleType
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from genesplice.errors import WorkError

__all__ = ["Packing", "flash_attend", "flash_version", "is_flash_able", "make_packing"]

HALF = (torch.float16, torch.bfloat16)


class Packing(NamedTuple):
    """Where the real tokens lie when all rows are laid end to end without the others."""

    place: Int64[Tensor, " real"]
    borders: Int32[Tensor, " rows_and_one"]
    longest: int
    has_gaps: bool


def flash_version() -> str | None:
    """Version of flash-attn, or None where it is not installed."""
    if importlib.util.find_spec("flash_attn") is None:
        return None
    return str(getattr(_module(), "__version__", "unknown"))


def _module() -> ModuleType:
    try:
        return importlib.import_module("flash_attn")
    except ImportError as error:
        raise WorkError(f"flash-attn is installed and does not load: {error}") from error


def make_packing(is_real: Bool[Tensor, "rows tokens"]) -> Packing:
    """Lay out the real tokens; a gap is a token that is not real between two that are."""
    count = is_real.sum(1)
    borders = torch.zeros(len(count) + 1, dtype=torch.int32, device=is_real.device)
    borders[1:] = count.cumsum(0)
    starts = (is_real[:, 1:] & ~is_real[:, :-1]).sum(1) + is_real[:, 0]
    return Packing(
        is_real.flatten().nonzero()[:, 0], borders, int(count.max()), bool((starts > 1).any())
    )


def is_flash_able(q: Float[Tensor, "B H T D"]) -> bool:
    """Whether flash-attn would take these queries."""
    width = q.shape[-1]
    return (
        q.is_cuda
        and q.dtype in HALF
        and width % 8 == 0
        and width <= 256
        and flash_version() is not None
    )


def flash_attend(
    q: Float[Tensor, "B H T D"],
    k: Float[Tensor, "B H T D"],
    v: Float[Tensor, "B H T D"],
    packing: Packing | None,
    half_window: int | None,
) -> Float[Tensor, "B H T D"]:
    """Attention over real tokens; one that is not real gets its own value, which nobody reads.

    `packing` None: all tokens are real. With a window there must be no gaps: laid end to end,
    tokens on both sides of one would come too near.
    """
    window = (-1, -1) if half_window is None else (half_window, half_window)
    rows = [part.transpose(1, 2) for part in (q, k, v)]
    if packing is None:
        return _module().flash_attn_func(*rows, window_size=window).transpose(1, 2)
    if packing.has_gaps and half_window is not None:
        raise ValueError("a windowed plan with gaps goes through SDPA")
    flat = [part.flatten(0, 1)[packing.place].contiguous() for part in rows]
    ends = packing.borders, packing.borders, packing.longest, packing.longest
    mixed = _module().flash_attn_varlen_func(*flat, *ends, window_size=window)
    out = rows[2].flatten(0, 1).index_copy(0, packing.place, mixed)
    return out.view(rows[2].shape).transpose(1, 2)

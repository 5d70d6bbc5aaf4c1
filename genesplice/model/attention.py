"""One attention function for every level: windowed or global, fused wherever it can be.

flash-attn where it is installed (CUDA, fp16 or bf16), else torch's SDPA, else written out.

Letters: B batch, H heads, T tokens, D head width, W half-window, Q queries a block.

flash-attn's layout is (batch, tokens, heads, width); sequences of unequal length lie end to end
with their borders in `cu_seqlens`. A window of (w, w) lets query i see keys i - w … i + w.

Source: Dao, FlashAttention-2, 2023; flash_attn_interface.py of flash-attn 2.7.
"""

import importlib
import importlib.util
import math
from types import ModuleType
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from genesplice.config.model import REGION_BP, SUMMARY_BP, ModelConfig
from genesplice.errors import WorkError, require

Backend = Literal["flash", "sdpa", "reference"]
SMALLEST_BLOCK = 32
HALF = (torch.float16, torch.bfloat16)
Rotations = Float[Tensor, "T half 2"]
Heads = Float[Tensor, "B H T D"]


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


def is_flash_able(q: Heads) -> bool:
    """Whether flash-attn would take these queries."""
    is_shaped = q.shape[-1] % 8 == 0 and q.shape[-1] <= 256
    return q.is_cuda and q.dtype in HALF and is_shaped and flash_version() is not None


def flash_attend(
    q: Heads, k: Heads, v: Heads, packing: Packing | None, half_window: int | None
) -> Heads:
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


class AttentionPlan(NamedTuple):
    """Who may attend to whom; made once for a stage and used by all of its layers.

    `half_window` None means global. `bias` is 0 where a key is allowed and -inf elsewhere, laid
    out per block of `block` queries when windowed; None where nothing is forbidden.
    """

    is_real: Bool[Tensor, "B T"]
    half_window: int | None
    block: int
    bias: Float[Tensor, "..."] | None
    packing: Packing | None = None


def backend_name() -> str:
    """Name of the attention kernel in use, as manifests and reports print it."""
    if torch.cuda.is_available() and flash_version() is not None:
        return f"flash-attn {flash_version()}"
    return "torch SDPA"


def make_plan(is_real: Bool[Tensor, "B T"], half_window: int | None) -> AttentionPlan:
    """Lay out the allowed pairs: |i - j| <= half_window, and real keys only.

    A token that is not real (padding, or nothing but N) is no key for others, and attends to
    itself so that no softmax runs over nothing.
    """
    length = is_real.shape[1]
    all_real = bool(is_real.all())
    packing = make_packing(is_real) if is_real.is_cuda and not all_real else None
    if half_window is None or half_window >= length - 1:
        bias = None
        if not all_real:
            itself = torch.eye(length, dtype=torch.bool, device=is_real.device)
            bias = _to_bias(is_real[:, None, :] | itself)[:, None]
        return AttentionPlan(is_real, None, length, bias, packing)
    block = max(half_window, SMALLEST_BLOCK)
    keys = _key_blocks(is_real[:, None, :, None], half_window, block)[:, 0, :, 0]
    offset = torch.arange(keys.shape[1], device=is_real.device) - half_window
    distance = offset[None, :] - torch.arange(block, device=is_real.device)[:, None]
    allowed = (distance.abs() <= half_window) & keys[:, None, :] | (distance == 0)
    return AttentionPlan(is_real, half_window, block, _to_bias(allowed)[:, None], packing)


def attend(
    q: Heads, k: Heads, v: Heads, plan: AttentionPlan, backend: Backend | None = None
) -> Heads:
    """Softmax attention over the pairs that `plan` allows.

    None takes the fastest backend for where `q` lies. `reference` writes the softmax out over
    all pairs; it is the definition that the fused backends are tested against.
    """
    if backend is None:
        crosses_gaps = plan.half_window is not None and plan.packing and plan.packing.has_gaps
        backend = "flash" if is_flash_able(q) and not crosses_gaps else "sdpa"
    if backend == "reference":
        return _attend_reference(q, k, v, plan)
    if backend == "flash":
        return flash_attend(q, k, v, plan.packing, plan.half_window)
    bias = None if plan.bias is None else plan.bias.to(q.dtype)
    if plan.half_window is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    batch, heads, length, width = q.shape
    n_blocks = -(-length // plan.block)
    padded = F.pad(q, (0, 0, 0, n_blocks * plan.block - length))
    queries = padded.view(batch, heads, n_blocks, plan.block, width).transpose(1, 2)
    queries = queries.reshape(batch * n_blocks, heads, plan.block, width)
    keys, values = (_key_blocks(x, plan.half_window, plan.block) for x in (k, v))
    out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    out = out.view(batch, n_blocks, heads, plan.block, width).transpose(1, 2)
    return out.reshape(batch, heads, n_blocks * plan.block, width)[:, :, :length]


def _key_blocks(x: Tensor, half_window: int, block: int) -> Tensor:
    """(B, H, T, D) -> (B * blocks, H, block + 2 * half_window, D): the keys each block may see.

    Copied so that D is contiguous: the fused kernel takes nothing else.
    """
    n_blocks = -(-x.shape[2] // block)
    right = n_blocks * block - x.shape[2] + half_window
    windows = F.pad(x, (0, 0, half_window, right)).unfold(2, block + 2 * half_window, block)
    return windows.permute(0, 2, 1, 4, 3).flatten(0, 1).contiguous()


def _to_bias(allowed: Bool[Tensor, "..."]) -> Float[Tensor, "..."]:
    return torch.zeros(allowed.shape, device=allowed.device).masked_fill_(~allowed, -math.inf)


def _attend_reference(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan) -> Tensor:
    position = torch.arange(q.shape[2], device=q.device)
    distance = (position[:, None] - position[None, :]).abs()
    allowed = plan.is_real[:, None, None, :] | (distance == 0)
    if plan.half_window is not None:
        allowed = allowed & (distance <= plan.half_window)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return scores.masked_fill(~allowed, -math.inf).softmax(-1) @ v


def rope(length: int, width: int, device: torch.device) -> Rotations:
    """Rotations of rotary position embedding for positions 0 … length - 1: cosine and sine.

    Worked out in float64 on the CPU, for devices that have neither float64 nor complex numbers.

    Source: Su et al., RoFormer, 2021, equation 34 (base 10,000).
    """
    rate = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * rate
    return torch.stack([angle.cos(), angle.sin()], -1).float().to(device)


def rotate(x: Heads, rotations: Rotations) -> Heads:
    """Turn each pair of channels by its position's angle.

    In complex numbers where the device has them: a third of the time of sines and cosines.
    """
    pairs = x.float().unflatten(-1, (-1, 2))
    if x.device.type in ("cpu", "cuda"):
        product = torch.view_as_complex(pairs.contiguous()) * torch.view_as_complex(rotations)
        turned = torch.view_as_real(product)
    else:
        (even, odd), (cos, sin) = pairs.unbind(-1), rotations.unbind(-1)
        turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1)
    return turned.flatten(-2).to(x.dtype)


# --- the exact context ---


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


def plan_context(sizes: ModelConfig, stem_bp: int, base_bp: int = 0) -> ContextPlan:
    """Spend half of `sizes.context_bp` on the levels, finest first.

    Parameters
    ----------
    stem_bp
        Bases beyond its bin that the stem takes in, on one side.
    base_bp
        Bases that the base-resolution path adds to that once the bins are done.

    Raises
    ------
    InputError
        If not even one bin on each side fits.
    """
    bin_bp, summary_window = sizes.bin_bp, sizes.summary_window
    if sizes.context_bp is None:
        return ContextPlan(sizes.bin_window, summary_window, None, True, True, None)
    # All windowed layers on bins, before and after the coarse levels.
    bin_layers = sizes.bin_layers + sizes.decoder_layers
    budget = sizes.context_bp // 2 - base_bp
    smallest = stem_bp + max(bin_layers, 1) * bin_bp
    needed = f"at least {2 * (smallest + base_bp)} for this model"
    require(budget >= smallest, f"context_bp {sizes.context_bp}", needed)
    bin_half = min(sizes.bin_window, (budget - stem_bp) // (max(bin_layers, 1) * bin_bp))
    spent = stem_bp + bin_layers * bin_half * bin_bp
    summary_cell, region_cell = SUMMARY_BP - bin_bp, REGION_BP - SUMMARY_BP
    summary_half = (budget - spent - summary_cell) // (sizes.summary_layers * SUMMARY_BP)
    if summary_half < 1:
        return ContextPlan(bin_half, summary_window, None, False, False, spent)
    summary_half = min(summary_window, summary_half)
    spent += summary_cell + sizes.summary_layers * summary_half * SUMMARY_BP
    region_half = (budget - spent - region_cell) // (sizes.region_layers * REGION_BP)
    if region_half < 1:
        return ContextPlan(bin_half, summary_half, None, True, False, spent)
    spent += region_cell + sizes.region_layers * region_half * REGION_BP
    return ContextPlan(bin_half, summary_half, region_half, True, True, spent)

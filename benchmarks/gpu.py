"""What a GPU reaches in bf16: share of its peak, error of its attention, memory of long windows.

Everything takes the device as a parameter, so that the same code runs on a CPU, where a test reads
it; its numbers mean something on CUDA only.
"""

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.models import make_workload
from genesplice.model.attention import Backend, attend, flash_version, make_plan

__all__ = ["count_per_bp", "measure_gpu"]

COUNTED_BP = 65_536
"""Operations a base are counted on a window of this length: they do not depend on it."""
REPEATS = 7


def measure_gpu(task: dict[str, Any]) -> dict[str, float]:
    """Seconds of training steps, the peak of products, errors of attention, gigabytes.

    `length` and `batch` are those of the step whose share of the peak counts, `long` is the window
    whose memory counts, `size` that of the product, `tokens` and `half_window` those of attention.
    `has_flash` is 1 where flash-attn took part, and only then is there an error of it.
    """
    device = torch.device(task["device"])
    sizes = task.get("sizes", {})
    has_flash = device.type == "cuda" and flash_version() is not None
    plain, flash = (
        attention_error(device, task["tokens"], task["half_window"], backend)
        for backend in ("sdpa", "flash" if has_flash else "sdpa")
    )
    kflop = count_per_bp(min(task["length"], COUNTED_BP), sizes) / 1e3
    seconds = step_seconds(device, task["length"], task["batch"], sizes)
    return {
        "has_flash": float(has_flash),
        "tflops": product_rate(device, task["size"]) / 1e12,
        "kflop_per_bp": kflop,
        "train_seconds": seconds,
        "train_tflops": 3 * kflop * 1e3 * task["length"] * task["batch"] / seconds / 1e12,
        "sdpa_error": plain,
        "flash_error": flash,
        "long_gb": step_memory(device, task["long"], sizes | {"checkpointing": True}) / 1e9,
    }


def _median_seconds(device: torch.device, work: Callable[[], Any]) -> float:
    """Median seconds of the clock; the device has ended its work at both ends of each."""
    taken = []
    for _ in range(REPEATS + 1):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def product_rate(device: torch.device, size: int) -> float:
    """Operations a second of a large product of random bf16 matrices."""
    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    return 2 * size**3 / _median_seconds(device, lambda: left @ right)


def count_per_bp(length: int, sizes: dict[str, Any]) -> float:
    """Operations a base of a forward pass; on the CPU, where all kernels are counted."""
    from benchmarks.measure import count_flops

    model, tokens = make_workload("ours", length, sizes)
    return count_flops(model.eval(), tokens) / length


def _train(model: nn.Module, tokens: Tensor) -> None:
    with torch.autocast(tokens.device.type, torch.bfloat16):
        loss = model(tokens).float().square().mean()
    loss.backward()
    model.zero_grad(set_to_none=False)


def step_seconds(device: torch.device, length: int, batch: int, sizes: dict[str, Any]) -> float:
    """Seconds of a training step in bf16 on `batch` windows."""
    model, tokens = make_workload("ours", length, sizes)
    model, tokens = model.to(device).train(), tokens.to(device).repeat(batch, 1)
    return _median_seconds(device, lambda: _train(model, tokens))


def step_memory(device: torch.device, length: int, sizes: dict[str, Any]) -> float:
    """Bytes of a training step above model and gradients; 0 on a CPU, which does not say."""
    model, tokens = make_workload("ours", length, sizes)
    model, tokens = model.to(device).train(), tokens.to(device)
    _train(model, tokens[:, : min(length, 16_384)])
    gc.collect()
    if device.type != "cuda":
        _train(model, tokens)
        return 0.0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    _train(model, tokens)
    return float(torch.cuda.max_memory_allocated(device) - before)


def attention_error(
    device: torch.device, n_tokens: int, half_window: int, backend: Backend
) -> float:
    """Largest error of bf16 attention, windowed and global, against the softmax in fp32."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 8, n_tokens, 32, device=device) for _ in range(3))
    is_real = torch.ones(1, n_tokens, dtype=torch.bool, device=device)
    errors = []
    with torch.no_grad():
        for window in (half_window, None):
            plan = make_plan(is_real, window)
            truth = attend(q, k, v, plan, "reference")
            found = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), plan, backend)
            errors.append(float((found.float() - truth).abs().max()))
    return max(errors)

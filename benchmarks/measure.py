"""One measurement in a process of its own: `python -m benchmarks.measure '{"kind": …}'`.

One thread, median of process CPU time; memory is the highest resident size beyond what the model
held before (after a first short step that makes gradients and buffers).
"""

import gc
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import measure_gpu
from benchmarks.models import make_workload
from benchmarks.mutagenesis import measure_mutagenesis
from genesplice.model.sequence import InputChannels, Stem

__all__ = ["count_flops", "measure"]

WARM_UP_BP = 16_384


def _median_cpu(work: Callable[[], Any], repeats: int) -> float:
    """Median seconds of CPU over `repeats` calls."""
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _linear_flops(x_shape: Any, weight_shape: Any, *_: Any, **__: Any) -> int:
    rows = int(np.prod(x_shape[:-1]))
    return 2 * rows * weight_shape[0] * weight_shape[1]


def _attention_flops(q: Any, k: Any, *_: Any, **__: Any) -> int:
    return 4 * int(np.prod(q[:-1])) * k[-2] * q[-1]


def count_flops(model: nn.Module, tokens: Tensor) -> int:
    """Operations of a forward pass, whichever kernels multiply."""
    extra = {
        torch.ops.mkldnn._linear_pointwise: _linear_flops,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    }
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=extra) as counter:
        model(tokens)
    return counter.get_total_flops()


def measure_gemm(task: dict[str, Any]) -> dict[str, float]:
    """Highest fp32 GFLOP/s of a large product, over the backends that torch has."""
    size = 2048
    x, weight = torch.randn(size, size), torch.randn(size, size)
    found = {"mkl": lambda: x @ weight.T}
    if torch.backends.mkldnn.is_available():
        found["onednn"] = lambda: torch.ops.mkldnn._linear_pointwise(
            x, weight, None, "none", [], ""
        )
    rates = {}
    for name, work in found.items():
        work()
        rates[name] = 2 * size**3 / _median_cpu(work, 7) / 1e9
    return {"gflops": max(rates.values()), **rates}


def measure_step(task: dict[str, Any]) -> dict[str, float]:
    """Seconds, bytes and operations of one forward pass or training step."""
    model, tokens = make_workload(task["model"], task["length"], task.get("sizes", {}))
    model.train(task["train"])

    def step(window: Tensor) -> None:
        if task["train"]:
            model(window).square().mean().backward()
            model.zero_grad(set_to_none=False)
        else:
            with torch.no_grad():
                model(window)

    step(tokens[:, : min(task.get("warm_up_bp", WARM_UP_BP), task["length"])])
    gc.collect()
    before = _resident_mb()
    seconds = _median_cpu(lambda: step(tokens), task.get("repeats", 3))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    result = {
        "seconds": seconds,
        "us_per_bp": seconds / task["length"] * 1e6,
        "above_mb": peak_mb - before,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    if task.get("flops"):
        result["kflop_per_bp"] = count_flops(model.eval(), tokens) / task["length"] / 1e3
    return result


def measure_stem(task: dict[str, Any]) -> dict[str, float]:
    """Nanoseconds a base of one-hot and stem together, chunk by chunk."""
    stem, channels = Stem(task["bin_bp"], task["width"]), InputChannels()
    tokens = torch.randint(0, 4, (1, 16_384 + stem.left + stem.right), dtype=torch.uint8)

    def work() -> None:
        for _ in range(8):
            stem(channels(tokens, None))

    with torch.no_grad():
        work()
        return {"ns_per_bp": _median_cpu(work, 7) / (8 * 16_384) * 1e9}


def _read_all(read: Callable[[int], Any], count: int) -> None:
    for number in range(count):
        read(number)


def measure_loader(task: dict[str, Any]) -> dict[str, float]:
    """Bases per second of reading random 196-kbp windows, with reverse complement of half."""
    from benchmarks.loaders import KIT, PYFAIDX, make_reader

    length, found = task["length"], {}
    for name, repeats in ((KIT, 200), (PYFAIDX, 4)):
        with make_reader(name, Path(task["folder"])) as read:
            read(0)
            seconds = _median_cpu(partial(_read_all, read, repeats), 5)
            found[name] = length * repeats / seconds
    return {name: rate / 1e6 for name, rate in found.items()}


def measure_api(task: dict[str, Any]) -> dict[str, float]:
    """Vectors of all genes through the public function, and by hand over bare windows."""
    from benchmarks.loaders import measure_public_against_bare

    return measure_public_against_bare(Path(task["folder"]))


KINDS = {
    "gemm": measure_gemm,
    "step": measure_step,
    "stem": measure_stem,
    "loader": measure_loader,
    "api": measure_api,
    "mutagenesis": measure_mutagenesis,
    "gpu": measure_gpu,
}


def measure(task: dict[str, Any]) -> dict[str, float]:
    """Run one task in this process."""
    torch.set_num_threads(1)
    return KINDS[task["kind"]](task)


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))

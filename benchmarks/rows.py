"""Which measurements make which row of the table, with its goal."""

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.models import OURS
from genesplice.errors import WorkError

__all__ = ["LENGTHS", "BenchRow", "Measurements", "run_bench"]

LONG, MEGABASE = 196_608, 1_048_576
NO_GPU, NO_FLASH = "not measured: no CUDA GPU", "not measured: no flash-attn"
LENGTHS = (16_384, 65_536, 262_144, MEGABASE)
CHROMOSOME = 4_641_792
GPU = {"length": LONG, "batch": 8, "long": MEGABASE, "size": 8192, "tokens": 4096,
       "half_window": 32}  # fmt: skip
EQUAL_PARAMETERS = {"dim": 336, "depth": 4}
EQUAL_FLOPS = {"dim": 192, "depth": 4}
TIMEOUT_S = 1200
# Which network, read where: with the base path, as in every preset, and with bins alone.
MUTAGENESIS: dict[str, tuple[str, dict[str, Any]]] = {
    "read at a gene's start": ("start", {"base_width": 64}),
    "read over a gene of 1 kb": ("gene", {"base_width": 64}),
    "bins alone, read at a gene's start": ("start", {}),
    "bins alone, read over a gene of 1 kb": ("gene", {}),
}
MUTAGENESIS_GOALS = {4: 10, 16: 20, 64: 40}

Measurements = dict[str, dict[str, float]]
Teller = Callable[[str], None]


@dataclass(frozen=True)
class BenchRow:
    """One line of the table; `met` is None where nothing could be measured."""

    name: str
    goal: str
    measured: float | None
    unit: str
    peer: float | None = None
    ratio: float | None = None
    met: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """As in `bench.json`."""
        return asdict(self)


def in_child(task: dict[str, Any]) -> dict[str, float]:
    """Run one task in a fresh process.

    Raises
    ------
    WorkError
        If it fails; with the last line that it wrote.
    """
    command = [sys.executable, "-m", "benchmarks.measure", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise WorkError(f"bench {task['kind']}: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _step(length: int, train: bool, **more: Any) -> dict[str, Any]:
    return {"kind": "step", "model": "ours", "length": length, "train": train} | more


def make_tasks(with_peers: bool, folder: str) -> dict[str, dict[str, Any]]:
    """Everything to measure, by name."""
    tasks: dict[str, dict[str, Any]] = {
        "gemm": {"kind": "gemm"},
        "stem": {"kind": "stem", "bin_bp": 16, "width": 256},
        "loader": {"kind": "loader", "length": LONG, "folder": folder},
        "api": {"kind": "api", "folder": folder},
        "forward": _step(LONG, False, repeats=5, flops=True),
        "train": _step(LONG, True, repeats=3),
        "base path forward": _step(LONG, False, flops=True, sizes={"base_width": 64}, repeats=3),
        "base path train": _step(
            LONG, True, sizes={"base_width": 64, "with_bases": True}, repeats=2
        ),
    }
    for length in LENGTHS:
        repeats = max(1, min(5, MEGABASE // length // 2))
        tasks[f"forward {length}"] = _step(length, False, repeats=repeats)
        tasks[f"train {length}"] = _step(length, True, repeats=repeats)
    checkpointed = {"checkpointing": True}
    tasks["megabase checkpoints"] = _step(MEGABASE, True, sizes=checkpointed, repeats=1)
    tasks["chromosome"] = _step(CHROMOSOME, True, sizes=checkpointed, repeats=1)
    for label, (read, sizes) in MUTAGENESIS.items():
        for kb in MUTAGENESIS_GOALS:
            tasks[f"mutagenesis {label} {kb}"] = {
                "kind": "mutagenesis", "length": kb * 1024, "read": read, "sizes": OURS | sizes,
            }  # fmt: skip
    if torch.cuda.is_available():
        tasks["gpu"] = GPU | {"kind": "gpu", "device": "cuda"}
    if with_peers:
        for name, sizes in (("parameters", EQUAL_PARAMETERS), ("flops", EQUAL_FLOPS)):
            peer = {"model": "enformer", "sizes": sizes, "repeats": 1, "warm_up_bp": 32_768}
            tasks[f"enformer {name} forward"] = _step(LONG, False, flops=True, **peer)
            tasks[f"enformer {name} train"] = _step(LONG // 2, True, **peer)
    return tasks


def run_bench(
    *, with_peers: bool = False, tell: Teller = print
) -> tuple[list[BenchRow], Measurements]:
    """Measure everything, one process after another; the rows and what they were made from."""
    found: Measurements = {}
    with tempfile.TemporaryDirectory() as folder:
        tasks = make_tasks(with_peers, folder)
        for number, (name, task) in enumerate(tasks.items(), 1):
            found[name] = in_child(task)
            values = ", ".join(f"{key} {value:.4g}" for key, value in found[name].items())
            tell(f"bench {number}/{len(tasks)} {name}: {values}")
    return make_rows(found), found


def _at_most(name: str, goal: float | int, value: float | None, unit: str, **more: Any) -> BenchRow:
    met = None if value is None else value <= goal
    return BenchRow(name, f"at most {goal:g}", value, unit, met=met, **more)


def _at_least(
    name: str, goal: float | int, value: float | None, unit: str, **more: Any
) -> BenchRow:
    met = None if value is None else value >= goal
    return BenchRow(name, f"at least {goal:g}", value, unit, met=met, **more)


def growth(seconds: dict[int, float]) -> float:
    """Exponent of time over length, by least squares on logarithms."""
    x = [math.log(length) for length in seconds]
    y = [math.log(value) for value in seconds.values()]
    middle, level = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - middle) * (b - level) for a, b in zip(x, y, strict=True))
    return above / sum((a - middle) ** 2 for a in x)


def make_rows(found: Measurements) -> list[BenchRow]:
    """The table of what was measured against what was to be reached."""
    return [
        *_peer_rows(found),
        *_growth_rows(found),
        *_memory_rows(found),
        *_other_rows(found),
        *_mutagenesis_rows(found),
        *_gpu_rows(found),
    ]


def _peer_rows(found: Measurements) -> list[BenchRow]:
    rows = []
    for name, label, goals in (
        ("parameters", "equal parameters", {"forward": 12, "train": 8}),
        ("flops", "equal FLOPs per base", {"forward": 4}),
    ):
        for mode, goal in goals.items():
            title = f"{mode} per bp against enformer-pytorch, {label}"
            peer = found.get(f"enformer {name} {mode}")
            ours = found[mode]["us_per_bp"]
            if peer is None:
                rows.append(BenchRow(title, f"at most 1/{goal}", ours, "µs/bp"))
                continue
            ratio = ours / peer["us_per_bp"]
            rows.append(
                BenchRow(
                    title, f"at most 1/{goal}", ours, "µs/bp", peer["us_per_bp"], ratio,
                    ratio <= 1 / goal,
                )
            )  # fmt: skip
    return rows


def _growth_rows(found: Measurements) -> list[BenchRow]:
    rows = []
    for mode, goal in (("forward", 1.03), ("train", 1.05)):
        seconds = {length: found[f"{mode} {length}"]["seconds"] for length in LENGTHS}
        title = f"growth of {mode} time, 16 kbp to 1 Mbp"
        rows.append(_at_most(title, goal, growth(seconds), "exponent"))
    peak = found["gemm"]["gflops"]
    flops = found["forward"]["kflop_per_bp"] * 1e3
    for mode, times, goal in (("forward", 1, 0.75), ("train", 3, 0.70)):
        rate = times * flops / found[mode]["us_per_bp"] * 1e6 / 1e9
        title = f"share of the run's GEMM peak at {LONG:,} bp, {mode}"
        rows.append(_at_least(title, goal, rate / peak, "share", peer=peak))
    return rows


def _memory_rows(found: Measurements) -> list[BenchRow]:
    plain, kept = found[f"train {MEGABASE}"], found["megabase checkpoints"]
    whole = found["chromosome"]
    return [
        _at_most(
            "training 1 Mbp with checkpoints, above the model", 0.5, kept["above_mb"] / 1e3, "GB",
            peer=plain["above_mb"] / 1e3,
        ),
        _at_most(
            "training 1 Mbp with checkpoints, time against without", 1.4,
            kept["seconds"] / plain["seconds"], "ratio",
        ),
        _at_most(
            "training step on a whole bacterial chromosome", 60, whole["seconds"], "s of CPU"
        ),
        _at_most(
            f"time a base of that step against {LONG:,} bp", 1.1,
            whole["us_per_bp"] / found["train"]["us_per_bp"], "ratio",
        ),
        _at_most(
            "memory of that step above the model", 3, whole["above_mb"] / 1e3, "GB"
        ),
    ]  # fmt: skip


def _other_rows(found: Measurements) -> list[BenchRow]:
    loader, stem = found["loader"], found["stem"]["ns_per_bp"]
    kit, letters = loader["uint8 tokens"], loader["pyfaidx and a dictionary"]
    api, based, alone = found["api"], found["base path train"], found["train"]["us_per_bp"]
    return [
        _at_least("loader, tokens", 2000, kit, "Mbp/s"),
        _at_least(
            "loader against pyfaidx and a dictionary", 1500, kit / letters, "times", peer=letters
        ),
        _at_most("stem", 60, stem, "ns/bp"),
        _at_most(
            "stem as a share of forward", 0.02, stem / 1e3 / found["forward"]["us_per_bp"], "share"
        ),
        _at_most("public function against bare module", 1.03, api["public"] / api["bare"], "ratio"),
        BenchRow(
            "with the base-resolution path (64 channels), forward", "none",
            found["base path forward"]["us_per_bp"], "µs/bp", found["forward"]["us_per_bp"],
        ),
        BenchRow(
            "with the base-resolution path and 1-bp output, train", "at most 2.5",
            based["us_per_bp"], "µs/bp", alone, based["us_per_bp"] / alone,
            based["us_per_bp"] <= 2.5 * alone,
        ),
    ]  # fmt: skip


def _mutagenesis_rows(found: Measurements) -> list[BenchRow]:
    rows, worst = [], 0.0
    for label in MUTAGENESIS:
        for kb, goal in MUTAGENESIS_GOALS.items():
            one = found[f"mutagenesis {label} {kb}"]
            ratio = one["per_second"] / one["naive_per_second"]
            worst = max(worst, one["error"])
            rows.append(
                BenchRow(
                    f"exact in-silico mutagenesis against the best naive, {kb} kb, {label}",
                    f"at least {goal}", one["per_second"], "substitutions/s",
                    one["naive_per_second"], ratio, ratio >= goal,
                )
            )  # fmt: skip
    title = "in-silico mutagenesis, largest relative error against whole windows"
    return [*rows, _at_most(title, 1e-5, worst, "of the largest value")]


def _gpu_rows(found: Measurements) -> list[BenchRow]:
    """Rows that a CUDA GPU fills in; two of them with flash-attn only."""
    share, error, memory = (
        "bf16 with flash-attn, share of the GPU's peak at 196 kbp",
        "bf16 with flash-attn, error against SDPA's own",
        "training 1 Mbp on a GPU",
    )
    goals = {share: "at least 0.4", error: "at most 2", memory: "at most 8 GB"}
    if (gpu := found.get("gpu")) is None:
        return [BenchRow(name, goal, None, NO_GPU) for name, goal in goals.items()]
    gb, peak, ratio = gpu["long_gb"], gpu["tflops"], gpu["flash_error"] / gpu["sdpa_error"]
    reached = gpu["train_tflops"] / peak
    rows = [
        BenchRow(share, goals[share], reached, "share", peer=peak, met=reached >= 0.4),
        BenchRow(error, goals[error], ratio, "ratio", met=ratio <= 2),
        BenchRow(memory, goals[memory], gb, "GB", met=gb <= 8),
    ]
    if gpu["has_flash"]:
        return rows
    return [BenchRow(name, goals[name], None, NO_FLASH) for name in (share, error)] + rows[2:]

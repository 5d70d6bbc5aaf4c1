"""One process that does the same again and again: its memory and open files must stay flat.

`python -m benchmarks.endurance --minutes 10 --out reports/results/reliability.json`

Each round prepares a small simulated organism, pre-trains and fine-tunes on it, predicts, scores
variants and learns a task, all in this process. What the first fifth of the rounds took is how
caches fill; drift is that of the last rounds from the first ones after that.
"""

import argparse
import contextlib
import gc
import io
import os
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

import genesplice.cli
from benchmarks import record
from benchmarks.organism import VERBS, make_organism
from genesplice.runtime import keep_freed_memory

ROUND = ("prepare", "pretrain", "finetune", "variants", "task")
WARM, COMPARED = 0.2, 0.2


def one_round(folder: Path) -> None:
    """All commands, once."""
    for verb in (verb for verb in VERBS if verb.name in ROUND):
        shutil.rmtree(folder / verb.name, ignore_errors=True)
        (folder / verb.name).mkdir()
        sys.argv = ["genesplice", *verb.words(folder, folder / verb.name / "whole")]
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            try:
                genesplice.cli.main()
            except SystemExit as stop:
                if stop.code:
                    raise RuntimeError(said.getvalue()) from None


def main() -> None:
    """Go round for so many minutes; write what was held after each round."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endurance", description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--out", type=Path, help="JSON file whose `loop` is written")
    given = parser.parse_args()
    process, memory, files, began = psutil.Process(), list[float](), list[int](), time.monotonic()
    words = list(sys.argv[1:])
    keep_freed_memory()
    with tempfile.TemporaryDirectory(prefix="endurance-") as scratch:
        folder = Path(scratch)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        make_organism(folder)
        while time.monotonic() - began < 60 * given.minutes:
            one_round(folder)
            gc.collect()
            memory.append(process.memory_full_info().uss / 2**20)
            files.append(process.num_fds())
            print(f"{len(memory)}: {memory[-1]:.1f} MiB, {files[-1]} files", flush=True)
    first, n = round(WARM * len(memory)), max(1, round(COMPARED * len(memory)))

    def drift(values: list[float] | list[int]) -> float:
        start = statistics.median(values[first : first + n])
        return round(statistics.median(values[-n:]) / start - 1, 4)

    found = {
        "minutes": given.minutes, "rounds": len(memory), "commands": list(ROUND),
        "memory_drift": drift(memory), "files_drift": drift(files),
        "memory_mib": [round(value, 1) for value in memory], "open_files": files,
    }  # fmt: skip
    print(
        f"drift of memory {found['memory_drift']:+.2%}, of open files {found['files_drift']:+.2%}"
    )
    if given.out:
        command = shlex.join(["python", "-m", "benchmarks.endurance", *words])
        record(given.out, "loop", found, command)


if __name__ == "__main__":
    main()

"""Speed and memory, beside peers, both sides in one run."""

import json
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.models import require_peers
from benchmarks.page import write_bench_page
from benchmarks.rows import BenchRow, Measurements, make_rows, run_bench
from genesplice.runtime import atomic_file, processor, require_file, write_json

__all__ = ["BenchRow", "Measurements", "make_rows", "record", "run_bench", "write_bench"]


def record(out: Path, name: str, found: Mapping[str, Any], command: str) -> None:
    """Put what one script found under its name into a JSON file, beside what others found."""
    report = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    machine = {"made_by": command, "date": str(date.today()), "processor": processor()}
    out.parent.mkdir(parents=True, exist_ok=True)
    report |= {name: machine | dict(found)}
    parts = [part["made_by"] for key, part in report.items() if key != "made_by"]
    write_json(out, report | {"made_by": "; ".join(parts)})


def write_bench(
    out: Path, *, with_peers: bool, command: str, tell: Callable[[str], None] = print
) -> Path:
    """Measure, and write `out` (JSON) and a page beside it.

    Raises
    ------
    InputError
        If the peers are wanted and not installed, or `out` is a folder.
    """
    require_file(out, overwrite=True)
    if with_peers:
        require_peers()
    rows, found = run_bench(with_peers=with_peers, tell=tell)
    machine = (
        f"{date.today()}: one core of {processor()}, torch {torch.__version__}, fp32, batch 1, "
        "median process CPU time."
    )
    report = {
        "rows": [row.to_dict() for row in rows],
        "measurements": found,
        "machine": machine,
        "made_by": command,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as partial:
        write_json(partial, report)
    with atomic_file(out.with_suffix(".html")) as partial:
        write_bench_page(partial, rows, found, machine)
    return out

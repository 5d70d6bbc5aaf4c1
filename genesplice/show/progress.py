"""What a person reads while notebooks run: which one, which cell, how long, what remains."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from io import TextIOBase
from typing import Any, Protocol, runtime_checkable


def say_seconds(seconds: float | int) -> str:
    """Say a duration the way a clock does: `0:42`, `12:05`, `1:02:05`."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


@runtime_checkable
class Progress(Protocol):
    """What the runner tells while it works."""

    def start(self, names: Sequence[str], expected: Mapping[str, float]) -> None:
        """Begin a run of `names`; `expected` has seconds of those that ran before."""

    def notebook(self, name: str, n_cells: int) -> None:
        """Begin one notebook."""

    def cell(self, number: int, n_cells: int) -> None:
        """Begin one code cell, counted from 1."""

    def end_notebook(self, state: str, seconds: float) -> None:
        """End the current notebook."""

    def note(self, text: str) -> None:
        """Say one line."""

    def stop(self) -> None:
        """End the run."""


class _Clock:
    """Where a run is, and what is left of it."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.expected: dict[str, float] = {}
        self.position = 0
        self.begun = self.notebook_begun = time.monotonic()

    def start(self, names: Sequence[str], expected: Mapping[str, float]) -> None:
        self.names, self.expected, self.position = list(names), dict(expected), 0
        self.begun = time.monotonic()

    def notebook(self, name: str, n_cells: int) -> None:
        self.position += 1
        self.notebook_begun = time.monotonic()

    @property
    def label(self) -> str:
        return f"[{self.position}/{len(self.names)}] {self.names[self.position - 1]}"

    def remaining(self) -> str:
        """Time left, where every notebook to come has run before; else how many there are."""
        to_come = self.names[self.position :]
        current = self.names[self.position - 1]
        if all(name in self.expected for name in [current, *to_come]):
            in_this = self.expected[current] - (time.monotonic() - self.notebook_begun)
            left = max(0.0, in_this) + sum(self.expected[name] for name in to_come)
            return f"about {say_seconds(left)} left"
        n = len(to_come)
        return f"{n} notebook{'s' * (n != 1)} to come" if n else "the last notebook"


class LineProgress:
    """Plain lines, for logs and pipes: cells are told at most every `every_s` seconds."""

    def __init__(self, stream: TextIOBase | None = None, every_s: float = 10.0) -> None:
        self.stream, self.every_s = _text(stream), every_s
        self.clock, self.told = _Clock(), 0.0

    def start(self, names: Sequence[str], expected: Mapping[str, float]) -> None:
        """Begin a run."""
        self.clock.start(names, expected)

    def notebook(self, name: str, n_cells: int) -> None:
        """Say which notebook, how many cells, what remains."""
        self.clock.notebook(name, n_cells)
        self.told = time.monotonic()
        self.note(f"{self.clock.label}: {n_cells} cells, {self.clock.remaining()}")

    def cell(self, number: int, n_cells: int) -> None:
        """Say which cell, unless something was said just now."""
        now = time.monotonic()
        if now - self.told >= self.every_s:
            self.told = now
            elapsed = say_seconds(now - self.clock.notebook_begun)
            left = self.clock.remaining()
            self.note(f"{self.clock.label}: cell {number}/{n_cells}, {elapsed} elapsed, {left}")

    def end_notebook(self, state: str, seconds: float) -> None:
        """Say how it ended and how long it took."""
        self.note(f"{self.clock.label}: {state} in {say_seconds(seconds)}")

    def note(self, text: str) -> None:
        """Print one line."""
        print(text, file=self.stream, flush=True)

    def stop(self) -> None:
        """Nothing is left on screen."""


class RichProgress:
    """A bar of the current notebook's cells and a clock that ticks, on a terminal."""

    def __init__(self, stream: TextIOBase | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self.clock = _Clock()
        self.console = Console(file=_text(stream), highlight=False)
        self.bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("cell {task.fields[number]}/{task.total:.0f}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=self.console,
            refresh_per_second=2,
        )
        self.task = self.bars.add_task("", start=False, visible=False, number=0, left="")

    def start(self, names: Sequence[str], expected: Mapping[str, float]) -> None:
        """Begin a run and show the bar."""
        self.clock.start(names, expected)
        self.bars.start()

    def notebook(self, name: str, n_cells: int) -> None:
        """Begin the bar again."""
        self.clock.notebook(name, n_cells)
        self.bars.reset(
            self.task,
            description=self.clock.label,
            total=n_cells,
            visible=True,
            number=0,
            left=self.clock.remaining(),
        )

    def cell(self, number: int, n_cells: int) -> None:
        """Move the bar to the cells that are behind us."""
        left = self.clock.remaining()
        self.bars.update(self.task, completed=number - 1, total=n_cells, number=number, left=left)

    def end_notebook(self, state: str, seconds: float) -> None:
        """Leave one line about the notebook above the bar."""
        self.bars.update(self.task, visible=False)
        mark = "✓" if state == "done" else "✗"
        self.note(f"{mark} {self.clock.label}: {state} in {say_seconds(seconds)}")

    def note(self, text: str) -> None:
        """Print one line above the bar."""
        self.console.print(text, markup=False)

    def stop(self) -> None:
        """Take the bar away."""
        self.bars.stop()


def make_progress(stream: TextIOBase | None = None) -> Progress:
    """Bars on a terminal, lines elsewhere; `NO_COLOR` and `TERM=dumb` give lines too."""
    target = _text(stream)
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return LineProgress(stream) if plain or not target.isatty() else RichProgress(stream)


def _text(stream: TextIOBase | None) -> Any:
    return stream or sys.stderr

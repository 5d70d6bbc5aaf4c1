"""One notebook through papermill, in this process, and what a person reads meanwhile."""

import asyncio
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from genesplice.show.explorer import HEADLESS_VARIABLE
from genesplice.show.notebooks import (
    NotebookInfo,
    Value,
    is_code,
    one_line,
    read_notebook,
    say_seconds,
)


class Failure(NamedTuple):
    """Where and why a notebook stopped.

    `cell` counts code cells from 1 (None before the first); `kind` is the name of the exception,
    or one of "kernel died", "interrupted", "kernel did not start".
    """

    notebook: str
    cell: int | None
    n_cells: int
    kind: str
    message: str

    @property
    def state(self) -> str:
        """What became of the notebook."""
        return "interrupted" if self.kind == "interrupted" else "failed"

    def __str__(self) -> str:
        where = "before its first cell" if self.cell is None else f"cell {self.cell}/{self.n_cells}"
        return f"{self.notebook}, {where}: {self.message}"


class Progress:
    """A bar of the current notebook's cells and a clock on a terminal; plain lines elsewhere.

    `NO_COLOR` and `TERM=dumb` give lines too; then cells are named at most every `every_s` seconds.
    """

    def __init__(self, stream: Any = None, every_s: float = 10.0) -> None:
        self.stream = stream or sys.stderr
        self.every_s = every_s
        self.names: list[str] = []
        self.expected: dict[str, float] = {}
        self.position, self.begun, self.said = 0, 0.0, 0.0
        is_dumb = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self.is_plain = bool(is_dumb or not self.stream.isatty())
        cells = "cell {task.fields[number]}/{task.total:.0f}"
        texts = "{task.description}", cells, "{task.fields[left]}"
        name, cell, left = (TextColumn(text, markup=False) for text in texts)
        self.bars = Bars(
            name, BarColumn(bar_width=20), cell, TimeElapsedColumn(), left, disable=self.is_plain,
            console=Console(file=self.stream, highlight=False, emoji=False),
        )  # fmt: skip
        self.task = self.bars.add_task("", start=False, visible=False, number=0, left="")

    def start(self, names: Sequence[str], expected: Mapping[str, float]) -> None:
        """Begin a run of `names`; `expected` has seconds of those that ran before."""
        self.names, self.expected, self.position = list(names), dict(expected), 0
        self.bars.start()

    def notebook(self, name: str, n_cells: int) -> None:
        """Begin one notebook."""
        self.position += 1
        self.begun = self.said = time.monotonic()
        shown: dict[str, Any] = {"description": self._label, "number": 0, "left": self._remaining()}
        self.bars.reset(self.task, visible=True, total=n_cells, **shown)
        if self.is_plain:
            self.note(f"{self._label}: {n_cells} cells, {self._remaining()}")

    def cell(self, number: int, n_cells: int) -> None:
        """Begin one code cell, counted from 1."""
        shown: dict[str, Any] = {"number": number, "left": self._remaining()}
        self.bars.update(self.task, completed=number - 1, total=n_cells, **shown)
        now = time.monotonic()
        if self.is_plain and now - self.said >= self.every_s:
            self.said, elapsed = now, say_seconds(now - self.begun)
            where = f"{self._label}: cell {number}/{n_cells}, {elapsed} elapsed"
            self.note(f"{where}, {shown['left']}")

    def text(self, printed: str) -> None:
        """Show the last line that the current cell printed about its progress."""
        lines = [line.strip() for line in printed.replace("\r", "\n").splitlines() if line.strip()]
        if not lines:
            return
        now = time.monotonic()
        if not self.is_plain:
            self.bars.update(self.task, left=lines[-1][:60])
        elif now - self.said >= self.every_s:
            self.said = now
            self.note(f"{self._label}: {lines[-1]}")

    def end_notebook(self, state: str, seconds: float) -> None:
        """Leave one line about the notebook."""
        mark = "" if self.is_plain else "✓ " if state == "done" else "✗ "
        self.bars.update(self.task, visible=False)
        self.note(f"{mark}{self._label}: {state} in {say_seconds(seconds)}")

    def note(self, text: str) -> None:
        """Print one line, above the bar where there is one."""
        self.bars.console.print(text, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Take the bar away."""
        self.bars.stop()

    @property
    def _label(self) -> str:
        return f"[{self.position}/{len(self.names)}] {self.names[self.position - 1]}"

    def _remaining(self) -> str:
        """Time left, where every notebook to come has run before; else how many there are."""
        current, *to_come = self.names[self.position - 1 :]
        if all(name in self.expected for name in [current, *to_come]):
            in_this = max(0.0, self.expected[current] - (time.monotonic() - self.begun))
            left = in_this + sum(self.expected[name] for name in to_come)
            return f"about {say_seconds(left)} left"
        n = len(to_come)
        return f"{n} notebook{'s' * (n != 1)} to come" if n else "the last notebook"


def execute_notebook(
    notebook: NotebookInfo,
    output: Path,
    parameters: Mapping[str, Value],
    *,
    cwd: Path,
    progress: Progress,
) -> tuple[float, Failure | None]:
    """Run `notebook` in a kernel of its own and write it, with its outputs, to `output`.

    What the kernel's process writes past Jupyter (a crash in a library, say) goes to a `.log` of
    the same name. Nothing is raised for a cell that fails, a kernel that dies or Ctrl-C: `output`
    then holds the cells up to there, and its metadata (`genesplice`) what happened. Returned are
    the seconds and, unless it is done, the failure.

    Parameters
    ----------
    parameters
        Checked values; written into a cell behind the one tagged `parameters`.
    cwd
        The folder the kernel works in.
    progress
        Told of each code cell that starts, and what it prints to stderr, as it comes.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    log = output.with_suffix(".log")
    log.unlink(missing_ok=True)
    started, n_cells, position = time.monotonic(), notebook.n_cells + bool(parameters), 0
    kind = ""

    def start_cell(cell: nbformat.NotebookNode, cell_index: int) -> None:
        nonlocal position
        # nbclient's own handler shuts the kernel down, which looks like a kernel that died.
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        if is_code(cell):
            position += 1
            progress.cell(position, n_cells)

    try:
        with _default_interrupt():
            papermill.execute_notebook(
                read_notebook(notebook.path), str(output).replace("{", "{{").replace("}", "}}"),
                parameters=dict(parameters), cwd=str(cwd),
                kernel_name="python3", kernel_manager_class=_kernel_manager(log),
                on_cell_start=start_cell, stderr_file=_Listener(progress.text),
                extra_arguments=["--log-level=40"], progress_bar=False, store_widget_state=False,
            )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        kind, message = error.ename, f"{error.ename}: {error.evalue}".removesuffix(": ")
    except DeadKernelError:
        kind, message = "kernel died", "the kernel died (out of memory, or killed from outside)"
    except KeyboardInterrupt:
        kind = message = "interrupted"
    except RuntimeError as error:  # nbclient's word for a kernel that does not come up
        kind, message = "kernel did not start", str(error)
    if log.exists() and log.stat().st_size == 0:
        log.unlink()
    failure = None
    if kind:
        failure = Failure(notebook.stem, position or None, n_cells, kind, one_line(message))
    seconds = round(time.monotonic() - started, 3)
    # The report shows how it ended.
    executed = read_notebook(output if output.exists() else notebook.path)
    outcome = {"state": failure.state if failure else "done", "seconds": seconds}
    outcome |= {"failure": failure._asdict()} if failure else {}
    executed.metadata["genesplice"] = outcome
    marked = "papermill-error-cell-tag"
    executed.cells = [c for c in executed.cells if marked not in c.metadata.get("tags", [])]
    nbformat.write(executed, output)
    return seconds, failure


class _Listener(io.TextIOBase):
    """A file for papermill that calls a function instead."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self.on_text = on_text

    def write(self, text: str) -> int:
        self.on_text(text)
        return len(text)


def _kernel_manager(log: Path) -> type:
    """Make a kernel manager whose kernels write to a file instead of our terminal.

    The kernel knows that it has no viewer, and plotly keeps its renderer.
    """
    from jupyter_client.manager import AsyncKernelManager

    environment = os.environ | {HEADLESS_VARIABLE: "1", "PLOTLY_RENDERER": "plotly_mimetype"}

    class LoggingManager(AsyncKernelManager):
        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            with log.open("ab") as stream:
                options |= {"env": environment, "stdout": stream, "stderr": stream}
                await super().start_kernel(**options)

    return LoggingManager


@contextmanager
def _default_interrupt() -> Iterator[None]:
    """Put the handler of Ctrl-C back that was there before nbclient set its own."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGINT, before)

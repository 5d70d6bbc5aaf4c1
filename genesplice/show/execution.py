"""One notebook through papermill, in this process, with what went wrong told in one line."""

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import nbformat

from genesplice.show.explorer import HEADLESS_VARIABLE
from genesplice.show.literals import Value
from genesplice.show.parameters import NotebookInfo, read_notebook

State = Literal["done", "failed", "interrupted", "running", "not run"]
OnCell = Callable[[int, int], None]

_MESSAGE_CHARACTERS = 300
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Failure(NamedTuple):
    """Where and why a notebook stopped.

    `cell` counts code cells from 1 (None before the first); `kind` is the name of the exception,
    or one of "timeout", "kernel died", "interrupted", "kernel did not start".
    """

    notebook: str
    cell: int | None
    n_cells: int
    kind: str
    message: str

    def __str__(self) -> str:
        where = "before its first cell" if self.cell is None else f"cell {self.cell}/{self.n_cells}"
        return f"{self.notebook}, {where}: {self.message}"


class Execution(NamedTuple):
    """How the execution of a notebook ended; `failure` is None where it is done."""

    state: State
    seconds: float
    failure: Failure | None


class _Position:
    """Counts code cells while they run, and makes Ctrl-C reach us instead of only the kernel."""

    def __init__(self, n_cells: int, on_cell: OnCell | None) -> None:
        self.n_cells, self.on_cell, self.current = n_cells, on_cell, 0

    def __call__(self, cell: nbformat.NotebookNode, cell_index: int) -> None:
        # nbclient's own handler shuts the kernel down, which looks like a kernel that died.
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        if _is_code(cell):
            self.current += 1
            if self.on_cell:
                self.on_cell(self.current, self.n_cells)


def execute_notebook(
    notebook: NotebookInfo,
    output: Path,
    parameters: Mapping[str, Value],
    *,
    cwd: Path,
    on_cell: OnCell | None = None,
    cell_timeout_s: int | None = None,
) -> Execution:
    """Run `notebook` in a kernel of its own and write it, with its outputs, to `output`.

    What the kernel's process writes past Jupyter (a crash in a library, say) goes to a `.log`
    beside `output`. Nothing is raised for a cell that fails, a kernel that dies, a timeout or
    Ctrl-C: `output` then holds the cells up to there, and its metadata (`genesplice`) what
    happened.

    Parameters
    ----------
    parameters
        Checked values; written into a cell behind the one tagged `parameters`.
    cwd
        The folder the kernel works in.
    on_cell
        Called with the number of the code cell that starts, from 1, and how many there are.
    cell_timeout_s
        Seconds any one cell may take; None for no limit.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    log = output.with_suffix(".log")
    log.unlink(missing_ok=True)
    position = _Position(notebook.n_cells + bool(parameters), on_cell)
    started, failure = time.monotonic(), None
    state: State = "done"

    def fail(kind: str, message: str, cell: int | None = None) -> Failure:
        where = cell or position.current or None
        return Failure(notebook.stem, where, position.n_cells, kind, message)

    try:
        with _kernel_environment(), _default_interrupt():
            papermill.execute_notebook(
                read_notebook(notebook.path),
                str(output).replace("{", "{{").replace("}", "}}"),
                parameters=dict(parameters),
                kernel_name="python3",
                cwd=str(cwd),
                progress_bar=False,
                store_widget_state=False,
                extra_arguments=["--log-level=40"],
                on_cell_start=position,
                kernel_manager_class=_logging_manager(log),
                execution_timeout=cell_timeout_s,
            )
    except papermill.PapermillExecutionError as error:
        text = _one_line(f"{error.ename}: {error.evalue}" if error.evalue else error.ename)
        state, failure = "failed", fail(error.ename, text)
    except CellTimeoutError:
        state, failure = "failed", fail("timeout", f"took longer than {cell_timeout_s} s")
    except DeadKernelError:
        message = "the kernel died (out of memory, or killed from outside)"
        state, failure = "failed", fail("kernel died", message)
    except KeyboardInterrupt:
        state, failure = "interrupted", fail("interrupted", "interrupted")
    except RuntimeError as error:  # nbclient's word for a kernel that does not come up
        state, failure = "failed", fail("kernel did not start", _one_line(str(error)))
    if log.exists() and log.stat().st_size == 0:
        log.unlink()
    seconds = round(time.monotonic() - started, 3)
    _record(output if output.exists() else notebook.path, output, state, seconds, failure)
    return Execution(state, seconds, failure)


def _logging_manager(log: Path) -> type:
    """Make a kernel manager whose kernels write to a file instead of our terminal."""
    from jupyter_client.manager import AsyncKernelManager

    class LoggingManager(AsyncKernelManager):
        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            with log.open("ab") as stream:
                await super().start_kernel(stdout=stream, stderr=stream, **options)

    return LoggingManager


def _is_code(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


def _one_line(text: str) -> str:
    line = (_ANSI.sub("", text).strip().splitlines() or [""])[0]
    return line if len(line) <= _MESSAGE_CHARACTERS else line[: _MESSAGE_CHARACTERS - 1] + "…"


def _record(
    executed: Path, output: Path, state: State, seconds: float, failure: Failure | None
) -> None:
    """Write the end of the execution into the notebook, so that its report can tell it."""
    notebook = read_notebook(executed)
    outcome: dict[str, Any] = {"state": state, "seconds": seconds}
    notebook.metadata["genesplice"] = outcome | ({"failure": failure._asdict()} if failure else {})
    notebook.cells = [
        cell
        for cell in notebook.cells
        if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])
    ]
    nbformat.write(notebook, output)


@contextmanager
def _kernel_environment() -> Iterator[None]:
    """Tell the kernel that nobody looks at it, and keep plotly from choosing another renderer."""
    values = {HEADLESS_VARIABLE: "1", "PLOTLY_RENDERER": "plotly_mimetype"}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _default_interrupt() -> Iterator[None]:
    """Put the handler of Ctrl-C back that was there before nbclient set its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

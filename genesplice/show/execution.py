"""Notebooks through papermill, each in a kernel, and what a person reads meanwhile."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import nbformat
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from genesplice.runtime import THREAD_VARIABLES, atomic_file, say_seconds
from genesplice.show.explorer import HEADLESS_VARIABLE
from genesplice.show.notebooks import Task, is_code, one_line, read_notebook

TRUSTED = 60.0
"""As many seconds of notebooks that are done count as much as what was guessed before any was."""
BAR, TAKEN = 6, 27
"""Characters of a bar; and of bar, cells and clock, with the spaces between all columns."""
NICE = 5
"""How far a kernel stands back that nobody waits for."""


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


class RunResult(NamedTuple):
    """Where a run is and how it ended.

    `page` is the index to open; `failures` is empty where everything is done. The exit code is
    0 then, 130 after Ctrl-C, 2 where all that failed is what was given, and 1 otherwise.
    """

    run_dir: Path
    page: Path
    reports: tuple[Path, ...]
    failures: tuple[Failure, ...]

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        if any(failure.kind == "interrupted" for failure in self.failures):
            return 130
        is_given = bool(self.failures) and all(one.kind == "InputError" for one in self.failures)
        return 2 if is_given else int(bool(self.failures))


class _Clock:
    """When a notebook began, when it was last spoken of, its bar, and what it is at."""

    def __init__(self, bar: TaskID) -> None:
        self.bar, self.begun, self.doing = bar, time.monotonic(), "begins"
        self.said = self.last_word = self.begun


class Progress:
    """Bars of the running notebooks' cells and clocks on a terminal; plain lines elsewhere.

    Each line begins with the number and the name of its notebook, of which several may run, each
    in a thread of its own. `NO_COLOR` and `TERM=dumb` give lines too; then cells of a notebook are
    named at most every `every_s` seconds.
    """

    def __init__(self, stream: Any = None, every_s: float = 10.0) -> None:
        self.stream = stream or sys.stderr
        self.every_s = every_s
        self.running: dict[str, _Clock] = {}
        is_dumb = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self.is_plain = bool(is_dumb or not self.stream.isatty())
        cells = "cell {task.fields[number]}/{task.total:.0f}"
        texts = "{task.description}", cells, "{task.fields[left]}"
        name, cell, left = (TextColumn(text, markup=False) for text in texts)
        self.bars = Bars(
            name, BarColumn(bar_width=BAR), cell, TimeElapsedColumn(), left, disable=self.is_plain,
            console=Console(file=self.stream, highlight=False, emoji=False),
        )  # fmt: skip

    def start(
        self,
        names: Sequence[str],
        expected: Mapping[str, float],
        at_once: int = 1,
        done: Collection[str] = (),
    ) -> None:
        """Begin a run of `names` less those that are `done`, `at_once` side by side at most.

        `expected` has seconds of those that ran before, or what they take as a rule.
        """
        self.names, self.expected, self.at_once = list(names), dict(expected), at_once
        self.to_come = [name for name in names if name not in done]
        self.took = 0.0, 0.0
        """Seconds of the notebooks that are done, and those expected of them."""
        self.bars.start()

    def notebook(self, name: str, n_cells: int) -> None:
        """Begin one notebook."""
        self.to_come.remove(name)
        bar = self.bars.add_task(self._label(name), total=n_cells, number=0, left="")
        self.running[name] = _Clock(bar)
        left = self._remaining()
        self.bars.update(bar, left=self._cut(left))
        if self.is_plain:
            self.note(f"{self._label(name)}: {n_cells} cells, {left}")

    def cell(self, name: str, number: int, n_cells: int) -> None:
        """Begin one code cell of a notebook, counted from 1."""
        clock, left = self.running[name], self._remaining()
        clock.doing, clock.last_word = f"cell {number}/{n_cells}", time.monotonic()
        self.bars.update(
            clock.bar, completed=number - 1, total=n_cells, number=number, left=self._cut(left)
        )
        if self._is_time(clock):
            elapsed = say_seconds(clock.said - clock.begun)
            self.note(f"{self._label(name)}: cell {number}/{n_cells}, {elapsed} elapsed, {left}")

    def text(self, name: str, printed: str) -> None:
        """Show the last line that a notebook's current cell printed about its progress."""
        lines = [line.strip() for line in printed.replace("\r", "\n").splitlines() if line.strip()]
        if not lines:
            return
        clock = self.running[name]
        clock.doing, clock.last_word = lines[-1], time.monotonic()
        self.bars.update(clock.bar, left=self._cut(lines[-1]))
        if self._is_time(clock):
            self.note(f"{self._label(name)}: {lines[-1]}")

    def end_notebook(
        self,
        name: str,
        state: str,
        seconds: float,
        failure: Failure | None = None,
        report: Path | None = None,
    ) -> None:
        """Leave one line about a notebook: why it failed, and where its report is."""
        mark = "" if self.is_plain else "✓ " if state == "done" else "✗ "
        self.bars.remove_task(self.running.pop(name).bar)
        if state == "done" and name in self.expected:
            self.took = self.took[0] + seconds, self.took[1] + self.expected[name]
        why = f" ({failure.message})" if failure and failure.state == "failed" else ""
        where = f": {report}" if report else ""
        self.note(f"{mark}{self._label(name)}: {state} in {say_seconds(seconds)}{why}{where}")

    def still(self) -> str:
        """What the running notebook that spoke last is at; nothing where none runs."""
        clocks = sorted(list(self.running.items()), key=lambda one: one[1].last_word)
        return f"{self._label(clocks[-1][0])}: {clocks[-1][1].doing}" if clocks else ""

    def note(self, text: str) -> None:
        """Print one line, above the bars where there are any."""
        self.bars.console.print(text, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Take the bars away."""
        self.bars.stop()

    def _is_time(self, clock: _Clock) -> bool:
        """Whether a line may be said now; it is taken to be said then."""
        now = time.monotonic()
        is_time = self.is_plain and now - clock.said >= self.every_s
        clock.said = now if is_time else clock.said
        return is_time

    def _cut(self, text: str) -> str:
        """What fits behind the longest name and its clock, so that neither is cut."""
        room = self.bars.console.width - max(len(self._label(name)) for name in self.names) - TAKEN
        return text if len(text) <= room else text[: max(room - 1, 0)] + "…"

    def _label(self, name: str) -> str:
        return f"[{self.names.index(name) + 1}/{len(self.names)}] {name}"

    def _remaining(self) -> str:
        """Time left, where every notebook to come has run before; else how many there are."""
        running, to_come = dict(self.running), list(self.to_come)
        if all(name in self.expected for name in [*running, *to_come]):
            now, (took, guessed) = time.monotonic(), self.took
            gone = {name: now - clock.begun for name, clock in running.items()}
            # As much slower as those that are done, or one that takes longer than it should.
            paces = [(took + TRUSTED) / (guessed + TRUSTED)]
            paces += [gone[name] / max(self.expected[name], 1.0) for name in running]
            expected = {name: max(paces) * self.expected[name] for name in [*running, *to_come]}
            left = [expected[name] - gone[name] for name in running]
            rest = sum(left) + sum(expected[name] for name in to_come)
            seconds = max(*left, rest / self.at_once)
            is_late = seconds < 1 and any(gone[name] > self.expected[name] for name in running)
            return "longer than guessed" if is_late else f"about {say_seconds(seconds)} left"
        if to_come:
            return f"{len(to_come)} notebook{'s' * (len(to_come) != 1)} to come"
        return "the last notebook" if len(running) == 1 else f"the last {len(running)} notebooks"


class Kernels:
    """The kernels of notebooks that run side by side, each in a thread; one call ends them all."""

    def __init__(self) -> None:
        self.is_stopping = False
        self.groups: dict[str, int] = {}
        """Of processes, by the name of the notebook."""

    def stop(self, number: int) -> None:
        """Interrupt (SIGINT, as Ctrl-C does) or end (SIGKILL) them; no further cell is begun."""
        self.is_stopping = True
        for group in list(self.groups.values()):
            with suppress(ProcessLookupError):
                os.killpg(group, number) if os.name == "posix" else os.kill(group, signal.SIGTERM)


class _Stopping(Exception):
    """No further cell is to begin."""


def execute_notebook(
    task: Task, output: Path, cwd: Path, progress: Progress, kernels: Kernels
) -> tuple[float, Failure | None]:
    """Run a task's notebook in a kernel of its own and write it, with its outputs, to `output`.

    What the kernel's process writes past Jupyter (a crash in a library, say) goes to a `.log` of
    the same name. Nothing is raised for a cell that fails, a kernel that dies or is stopped:
    `output` then holds the cells up to there, and its metadata (`genesplice`) what happened.
    Returned are the seconds and, unless it is done, the failure.

    Parameters
    ----------
    task
        Its values are written into a cell behind the one tagged `parameters`; its threads are
        those of the kernel's libraries, unless the environment says how many.
    cwd
        The folder the kernel works in.
    progress
        Told of each code cell that starts, and what it prints to stderr, as it comes.
    kernels
        Where the kernel is kept meanwhile, for whoever wants to stop it.
    """
    import papermill
    from jupyter_core.utils import ensure_event_loop
    from nbclient.exceptions import DeadKernelError

    notebook, output = task.notebook, output.resolve()
    log = output.with_suffix(".log")
    log.unlink(missing_ok=True)
    # papermill writes over its file again and again, and asks for this suffix.
    begun = output.with_name(f".{output.name}")
    begun.unlink(missing_ok=True)
    started, n_cells, position = time.monotonic(), notebook.n_cells + bool(task.values), 0
    kind = message = ""

    def start_cell(cell: nbformat.NotebookNode, cell_index: int) -> None:
        nonlocal position
        if is_code(cell):
            if kernels.is_stopping:
                raise _Stopping
            position += 1
            progress.cell(task.name, position, n_cells)

    def start_kernel(process: int) -> None:
        kernels.groups[task.name] = process
        if task.gives_way and os.name == "posix":
            os.setpriority(os.PRIO_PGRP, process, NICE)

    def is_heard(_: logging.LogRecord) -> bool:
        return not kernels.is_stopping  # papermill tells of kernels that we end

    listener = SimpleNamespace(write=partial(progress.text, task.name), flush=lambda: None)
    logger = logging.getLogger("papermill")
    logger.addFilter(is_heard)
    try:
        papermill.execute_notebook(
            read_notebook(notebook.path), str(begun).replace("{", "{{").replace("}", "}}"),
            parameters=dict(task.values), kernel_name="python3",
            kernel_manager_class=_kernel_manager(log, cwd, task.threads, start_kernel),
            on_cell_start=start_cell, stderr_file=listener,
            extra_arguments=["--log-level=40"], progress_bar=False, store_widget_state=False,
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        kind, message = error.ename, f"{error.ename}: {error.evalue}".removesuffix(": ")
    except DeadKernelError:
        kind, message = "kernel died", "the kernel died (out of memory, or killed from outside)"
    except _Stopping:
        kind = "stopped"
    except RuntimeError as error:  # nbclient's word for a kernel that does not come up
        kind, message = "kernel did not start", str(error)
    finally:
        logger.removeFilter(is_heard)
        kernels.groups.pop(task.name, None)
        ensure_event_loop().close()  # that of this thread
    if kind and kernels.is_stopping:
        kind = message = "interrupted"
    if log.exists() and log.stat().st_size == 0:
        log.unlink()
    failure = None
    if kind:
        failure = Failure(notebook.stem, position or None, n_cells, kind, one_line(message))
    seconds = round(time.monotonic() - started, 3)
    # The report shows how it ended.
    executed = read_notebook(begun if begun.exists() else notebook.path)
    outcome = {"state": failure.state if failure else "done", "seconds": seconds}
    outcome |= {"failure": failure._asdict()} if failure else {}
    executed.metadata["genesplice"] = outcome
    marked = "papermill-error-cell-tag"
    executed.cells = [c for c in executed.cells if marked not in c.metadata.get("tags", [])]
    with atomic_file(output) as whole:
        nbformat.write(executed, whole)
    begun.unlink(missing_ok=True)
    return seconds, failure


def _kernel_manager(
    log: Path, cwd: Path, threads: int | None, on_start: Callable[[int], None]
) -> type:
    """Make a kernel manager whose kernels write to a file instead of our terminal.

    The kernel knows that it has no viewer, and plotly keeps its renderer.
    """
    from jupyter_client.manager import AsyncKernelManager

    share = {} if threads is None else dict.fromkeys(THREAD_VARIABLES, str(threads))
    environment = share | os.environ
    environment |= {HEADLESS_VARIABLE: "1", "PLOTLY_RENDERER": "plotly_mimetype"}

    class LoggingManager(AsyncKernelManager):
        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            with log.open("ab") as stream:
                options |= {"env": environment, "stdout": stream, "stderr": stream}
                await super().start_kernel(**options, cwd=str(cwd))
            on_start(getattr(self.provisioner, "pid", 0))

    return LoggingManager

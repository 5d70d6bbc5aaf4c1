"""The same tasks on a Ray cluster that is there already (extra `cluster`).

Every node must see the data folder under the same path and have this package. Tables come back
through Ray and are written here: a node that is lost loses what runs on it, nothing else.
"""

import multiprocessing
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from genesplice.errors import InputError, WorkError
from genesplice.runtime import atomic_file

ATTEMPTS = 2
CPU_SECONDS = "cpu_seconds"
"""Column of every task's table: what it cost."""

Tell = Callable[[str], None]


class Task(NamedTuple):
    """A named call of an importable function with plain arguments; it gives a table."""

    name: str
    work: Callable[..., pd.DataFrame]
    arguments: Mapping[str, Any]


class SweepResult(NamedTuple):
    """All tables together (column `task` says whose a row is), and why tasks failed, by name."""

    table: pd.DataFrame
    failures: dict[str, str]
    cpu_seconds: float


@dataclass
class Ledger:
    """What is to do, what was done, at what cost; one line of progress for each change."""

    tasks: Sequence[Task]
    folder: Path
    tell: Tell
    label: str = "sweep"
    failures: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    spent: list[float] = field(default_factory=list)

    def path(self, task: Task) -> Path:
        """Where the task's table lies."""
        return self.folder / f"{task.name}.parquet"

    def to_do(self) -> list[Task]:
        """Tasks without a table, in their order; the others' cost counts as spent."""
        missing = [task for task in self.tasks if not self.path(task).exists()]
        done = [task for task in self.tasks if task not in missing]
        for task in done:
            table = pd.read_parquet(self.path(task), columns=[CPU_SECONDS])
            self.spent.append(float(table[CPU_SECONDS].max()))
        if done:
            self.tell(f"{self.label}: {len(done)} of {len(self.tasks)} tasks are there already")
        return missing

    def done(self, task: Task, table: pd.DataFrame) -> None:
        """Write the table and tell the cost so far and to come."""
        with atomic_file(self.path(task)) as partial:
            table.to_parquet(partial, index=False)
        self.spent.append(float(table[CPU_SECONDS].max()))
        left = len(self.tasks) - len(self.spent) - len(self.failures)
        to_come = left * sum(self.spent) / len(self.spent)
        self.tell(
            f"{self.label}: {len(self.spent)}/{len(self.tasks)} {task.name}, "
            f"{sum(self.spent):.0f} s of CPU so far, about {to_come:.0f} s to come"
        )

    def failed(self, task: Task, why: str) -> bool:
        """Note a failure; whether the task is to be tried again."""
        self.attempts[task.name] = self.attempts.get(task.name, 0) + 1
        again = self.attempts[task.name] < ATTEMPTS
        self.tell(f"{self.label}: {task.name} {why}" + ("; once more" if again else "; given up"))
        if not again:
            self.failures[task.name] = why
        return again

    def result(self) -> SweepResult:
        """Everything that is there."""
        tables = [
            pd.read_parquet(self.path(task)).assign(task=task.name)
            for task in self.tasks
            if self.path(task).exists()
        ]
        table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
        return SweepResult(table, dict(self.failures), sum(self.spent))


def check_names(tasks: Sequence[Task]) -> None:
    """Each task needs a name of its own: its table is kept under it."""
    if len({task.name for task in tasks}) < len(tasks):
        raise InputError("two tasks of one name", "names that differ")


def count_workers(workers: int, threads: int) -> int:
    """Processes at once: as asked for, or so many that their threads fill the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return workers or max((cores or 1) // threads, 1)


def execute(task: Task, threads: int) -> pd.DataFrame:
    """Run a task in this process, with `threads` threads; its CPU seconds become a column."""
    import torch

    torch.set_num_threads(threads)
    began = time.process_time()
    table = task.work(**task.arguments)
    return table.assign(**{CPU_SECONDS: time.process_time() - began})


def run_tasks(
    tasks: Sequence[Task],
    folder: Path,
    *,
    workers: int = 0,
    threads: int = 1,
    tell: Tell = print,
    label: str = "sweep",
    preload: Sequence[str] = ("genesplice.training.finetuning",),
) -> SweepResult:
    """Run tasks that have no table in `folder` yet, so many at a time.

    Parameters
    ----------
    workers, threads
        See `count_workers`.
    preload
        Modules that are imported once, before processes are forked for the tasks.

    Raises
    ------
    InputError
        If two tasks have one name.
    """
    check_names(tasks)
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(tasks, folder, tell, label)
    waiting = ledger.to_do()
    running: dict[Connection, tuple[Task, Any]] = {}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    try:
        while waiting or running:
            while waiting and len(running) < count_workers(workers, threads):
                task = waiting.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_serve, args=(theirs, task, threads), daemon=True)
                with _thread_variables(threads):
                    process.start()
                theirs.close()
                running[ours] = task, process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                task, process = running.pop(ready)
                table, why = _receive(ready, process)
                if table is not None:
                    ledger.done(task, table)
                elif ledger.failed(task, why):
                    waiting.append(task)
    finally:
        for _, process in running.values():
            process.kill()
            process.join()
    return ledger.result()


def _serve(pipe: Connection, task: Task, threads: int) -> None:
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        answer: Any = execute(task, threads)
    except BaseException as error:
        traceback.print_exc(file=sys.stderr)
        answer = f"failed: {type(error).__name__}: {error}"
    pipe.send(answer)
    pipe.close()


def _leave_with_parent() -> None:
    """A sweep that is killed takes its tasks with it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _receive(pipe: Connection, process: Any) -> tuple[pd.DataFrame | None, str]:
    """The table, or None and what became of the process."""
    try:
        answer = pipe.recv()
    except (EOFError, OSError):  # also killed while it sent its table
        process.join()
        code = process.exitcode
        answer = f"died (signal {-code})" if code and code < 0 else f"died (exit code {code})"
    pipe.close()
    process.join()
    return (answer, "") if isinstance(answer, pd.DataFrame) else (None, str(answer))


@contextmanager
def _thread_variables(threads: int) -> Iterator[None]:
    """What libraries read when they are loaded, for processes that are started meanwhile."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def run_tasks_on_ray(
    tasks: Sequence[Task],
    folder: Path,
    address: str,
    *,
    threads: int = 1,
    tell: Tell = print,
    label: str = "sweep",
) -> SweepResult:
    """As `genesplice.training.sweeps.run_tasks`, with the processes on the nodes at `address`.

    `address` is what `ray.init` takes: HOST:PORT, or "auto" for the cluster of this machine.

    Raises
    ------
    InputError
        If ray is not installed, or two tasks have one name.
    WorkError
        If there is no cluster at the address.
    """
    ray = _import_ray()
    check_names(tasks)
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(tasks, folder, tell, label)
    waiting = ledger.to_do()
    _check_address(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise WorkError(f"no Ray cluster at {address}: {error}") from error
    try:
        # Ray's own retries know nothing of the ledger.
        remote = ray.remote(num_cpus=threads, max_retries=0)(execute)
        running: dict[Any, Task] = {remote.remote(task, threads): task for task in waiting}
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            task = running.pop(ready)
            try:
                ledger.done(task, ray.get(ready))
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None) or error
                first = str(cause).strip().splitlines()[0] if str(cause).strip() else ""
                if ledger.failed(task, f"failed: {type(cause).__name__}: {first}"):
                    running[remote.remote(task, threads)] = task
    finally:
        ray.shutdown()
    return ledger.result()


def _check_address(address: str) -> None:
    """Ray itself tries for minutes before it says that nobody is there."""
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdigit()):
        return
    try:
        socket.create_connection((host.removeprefix("ray://"), int(port)), timeout=10).close()
    except OSError as error:
        raise WorkError(f"no Ray cluster at {address}: {error.strerror or error}") from error


def _import_ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise InputError("no ray", "pip install 'genesplice[cluster]'") from error
    return ray

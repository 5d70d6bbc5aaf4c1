"""The same work many times: tasks in processes of this machine, or on a Ray cluster.

Each task leaves a table, written as soon as it is there: a sweep that is begun again runs what is
missing, and a worker that is killed (for memory, say) loses its own task, which is run once more.
"""

import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import (
    active_children,
    forkserver,
    get_context,
    parent_process,
    resource_tracker,
)
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import psutil

from genesplice.errors import InputError, WorkError, require
from genesplice.runtime import THREAD_VARIABLES, n_cores, tell, write_table

ATTEMPTS = 2
CPU_SECONDS = "cpu_seconds"
"""Column of every task's table: what it cost."""

Progress = Callable[[str], None]


class Task(NamedTuple):
    """A named call of an importable function with plain arguments; it gives a table."""

    name: str
    work: Callable[..., pd.DataFrame]
    arguments: Mapping[str, Any]


Run = Callable[[Task], pd.DataFrame]


class SweepResult(NamedTuple):
    """All tables together (column `task` says whose a row is), and why tasks failed, by name."""

    table: pd.DataFrame
    failures: dict[str, str]
    cpu_seconds: float


def _sweep(
    tasks: Sequence[Task],
    folder: Path,
    run: Run,
    at_once: int,
    progress: Progress,
    label: str,
    stop: Callable[[], None] = lambda: None,
) -> SweepResult:
    """Run tasks without a table in `folder`, each up to `ATTEMPTS` times; a line for each change.

    Where this is interrupted, `stop` ends what runs.

    Raises
    ------
    InputError
        If two tasks have one name: a table is kept under it.
    """
    paths = {task.name: folder / f"{task.name}.parquet" for task in tasks}
    require(len(paths) == len(tasks), "two tasks of one name", "names that differ")
    folder.mkdir(parents=True, exist_ok=True)
    tables = {name: pd.read_parquet(path) for name, path in paths.items() if path.exists()}
    waiting, failures = [task for task in tasks if task.name not in tables], dict[str, str]()
    is_stopping = threading.Event()
    if tables:
        progress(f"{label}: {len(tables)} of {len(tasks)} tasks are there already")

    def attempt(task: Task) -> pd.DataFrame | str:
        for left in reversed(range(ATTEMPTS)):
            try:
                return run(task)
            except Exception as error:
                why = _reason(error)
            if is_stopping.is_set():
                break
            progress(f"{label}: {task.name} {why}; {'once more' if left else 'given up'}")
        return why

    pool, futures = ThreadPoolExecutor(at_once), dict[Future[pd.DataFrame | str], str]()
    try:
        for task in waiting:
            futures[pool.submit(attempt, task)] = task.name
        for future in as_completed(futures):
            name, answer = futures[future], future.result()
            if isinstance(answer, str):
                failures[name] = answer
                continue
            write_table(paths[name], answer)
            tables[name] = answer
            spent = _cost(tables)
            to_come = (len(tasks) - len(tables) - len(failures)) * spent / len(tables)
            progress(
                f"{label}: {len(tables)}/{len(tasks)} {name}, "
                f"{spent:.0f} s of CPU so far, about {to_come:.0f} s to come"
            )
    except KeyboardInterrupt:
        is_stopping.set()
        pool.shutdown(wait=False, cancel_futures=True)
        while any(future.running() for future in futures):  # one may have been about to start
            stop()
            time.sleep(0.05)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    parts = [tables[name].assign(task=name) for name in paths if name in tables]
    together = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return SweepResult(together, failures, _cost(tables))


def _cost(tables: Mapping[str, pd.DataFrame]) -> float:
    return sum(float(table[CPU_SECONDS].max()) for table in tables.values())


def _reason(error: Exception) -> str:
    """Why a task ended, in one line."""
    if isinstance(error, BrokenProcessPool):
        return "died (its process was killed)"
    cause = getattr(error, "cause", None) or error  # Ray wraps what a task raised.
    first = (str(cause).strip().splitlines() or [""])[0]
    return f"failed: {type(cause).__name__}: {first}"


# --- this machine ---


def count_workers(workers: int, threads: int) -> int:
    """Processes at once: as asked for, or so many that their threads fill the cores."""
    return workers or max(n_cores() // threads, 1)


def execute(task: Task, threads: int) -> pd.DataFrame:
    """Run a task in this process, with `threads` threads; its CPU seconds become a column."""
    import torch

    torch.set_num_threads(threads)
    began = time.process_time()
    try:
        table = task.work(**task.arguments)
    except Exception:
        traceback.print_exc(file=sys.stderr)
        raise
    return table.assign(**{CPU_SECONDS: time.process_time() - began})


def run_tasks(
    tasks: Sequence[Task],
    folder: Path,
    label: str = "sweep",
    *,
    workers: int = 0,
    threads: int = 1,
    progress: Progress = tell,
    preload: Sequence[str] = ("genesplice.training.finetuning",),
) -> SweepResult:
    """Run tasks that have no table in `folder` yet, each in a process of its own.

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
    WorkError
        If this is called from a script that would start itself again.
    """
    _check_script()
    context, others = get_context("forkserver"), set(active_children())
    context.set_forkserver_preload(list(preload))

    def run(task: Task) -> pd.DataFrame:
        # One process a pool: what is killed breaks no other task's pool.
        with ProcessPoolExecutor(1, context, _leave_with_parent) as own:
            return own.submit(execute, task, threads).result()

    with _thread_variables(threads):
        _start_server()
        at_once = count_workers(workers, threads)
        return _sweep(tasks, folder, run, at_once, progress, label, lambda: _end_all(others))


def _start_server() -> None:
    """Start what processes are forked from. None of them receives Ctrl-C: this one ends them."""
    resource_tracker.ensure_running()  # which takes back what is blocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_all(others: Collection[BaseProcess]) -> None:
    """End processes besides `others`, and what they are forked from: it may be loading still."""
    for child in set(active_children()).difference(others):
        child.kill()
    with suppress(psutil.Error):
        for process in psutil.Process().children():
            if forkserver.__name__ in " ".join(process.cmdline()):
                process.kill()


def _check_script() -> None:
    """Each process imports the script that was started: its calls must not be made again there."""
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if path is None or main.__spec__ is not None or not Path(path).is_file():
        return
    if "__name__" not in Path(path).read_text(encoding="utf-8", errors="replace"):
        raise WorkError(
            f"{path} works in several processes, each of which would run it from its first line: "
            'put its calls under `if __name__ == "__main__":`'
        )


def _leave_with_parent() -> None:
    """A sweep that is killed takes its tasks with it."""

    def leave() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


@contextmanager
def _thread_variables(threads: int) -> Iterator[None]:
    """`THREAD_VARIABLES` for processes that are started meanwhile."""
    before = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name in THREAD_VARIABLES:
            del os.environ[name]
        os.environ.update(before)


# --- a cluster ---


def run_tasks_on_ray(
    tasks: Sequence[Task],
    folder: Path,
    label: str = "sweep",
    *,
    address: str,
    threads: int = 1,
    progress: Progress = tell,
) -> SweepResult:
    """As `run_tasks`, on the nodes of a Ray cluster that is there already (extra `cluster`).

    `address` is what `ray.init` takes: HOST:PORT, or "auto" for the cluster of this machine. Every
    node must see the data folder under the same path and have this package. Tables come back
    through Ray and are written here.

    Raises
    ------
    InputError
        If ray is not installed, or two tasks have one name.
    WorkError
        If there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("no ray", "pip install 'genesplice[cluster]'") from error
    host, colon, port = address.rpartition(":")
    try:
        if colon and port.isdigit():
            # Ray itself tries for minutes before it says that nobody is there.
            where = host.removeprefix("ray://"), int(port)
            socket.create_connection(where, timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise WorkError(f"no Ray cluster at {address}: {error}") from error
    try:
        remote = ray.remote(num_cpus=threads, max_retries=0)(execute)

        def run(task: Task) -> pd.DataFrame:
            return ray.get(remote.remote(task, threads))

        return _sweep(tasks, folder, run, max(len(tasks), 1), progress, label)
    finally:
        ray.shutdown()

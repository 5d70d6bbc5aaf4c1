"""The same tasks on a Ray cluster that is there already (extra `cluster`).

Every node must see the data folder under the same path and have this package. Tables come back
through Ray and are written here: a node that is lost loses what runs on it, nothing else.
"""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genesplice.errors import InputError, WorkError
from genesplice.training.sweeps import Ledger, SweepResult, Task, Tell, check_names, execute

__all__ = ["run_tasks_on_ray"]


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

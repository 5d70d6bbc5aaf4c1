"""Tasks that the processes of a sweep can import by name."""

import os
import signal
import time
from pathlib import Path

import pandas as pd


def square(value: int) -> pd.DataFrame:
    return pd.DataFrame({"value": [value], "square": [value**2], "process": [os.getpid()]})


def count_calls(folder: Path, value: int) -> pd.DataFrame:
    (folder / f"{value}-{time.monotonic_ns()}").touch()
    return square(value)


def die_once(folder: Path, value: int) -> pd.DataFrame:
    """The first call is killed as the kernel kills what takes too much memory."""
    mark = folder / f"died-{value}"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return square(value)


def die(value: int) -> pd.DataFrame:
    os.kill(os.getpid(), signal.SIGKILL)
    return square(value)


def fail(value: int) -> pd.DataFrame:
    raise ValueError(f"nothing to be had from {value}")


def threads() -> pd.DataFrame:
    import torch

    return pd.DataFrame(
        {"torch": [torch.get_num_threads()], "variable": [os.environ["OMP_NUM_THREADS"]]}
    )


def slow(folder: Path, value: int, seconds: float) -> pd.DataFrame:
    """Leaves a mark when it starts."""
    (folder / f"started-{value}").touch()
    time.sleep(seconds)
    return square(value)

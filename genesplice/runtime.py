"""What every stage leaves with its results, files that are whole or not there, and threads.

torch is imported where it is used: `genesplice --help` need not wait for it.
"""

import ctypes
import glob
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from genesplice.errors import WorkError, require

RECORDED_PACKAGES = (
    "genesplice", "numpy", "torch", "torch-geometric", "captum", "lightning", "plotly"
)  # fmt: skip
PROJECT_VARIABLE = "GENESPLICE_PROJECT"
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"
)  # fmt: skip
"""What libraries read when they are loaded."""

MANIFEST = "manifest.json"
INPUTS, GENOME = "inputs.json", "genome"
"""Of a run: digests of what it reads, and the folder that keeps FASTA files as tokens."""

SCRATCH, BEFORE = ".scratch", ".before"
"""How scratch folders end, and what holds a folder's former content while it is replaced."""

SECONDS_BETWEEN_LINES = 10
PROBE_BYTES = 1 << 16

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory(is_kept: bool = True) -> bool:
    """Let glibc keep what is freed for the next tensor, or give it back at once.

    A large tensor is otherwise mapped anew each time, and its pages are zeroed one by one: 42 % of
    the processor's time while fine-tuning on a CPU. Says whether it could be asked for.
    """
    libc: Any = ctypes.CDLL(None) if os.name == "posix" else None
    if not hasattr(libc, "mallopt"):
        return False
    n_mapped, spare = (0, 2**31 - 1) if is_kept else (2**16, 2**20)
    wanted = (M_MMAP_MAX, n_mapped), (M_TRIM_THRESHOLD, spare)
    is_set = all(libc.mallopt(*one) for one in wanted)
    if not is_kept:
        libc.malloc_trim(0)
    return is_set


def project_path(path: Path | str) -> Path:
    """Give `path` as seen from the project's folder, where it is relative.

    That is the folder that `genesplice lab` was started in, or the parent of a working directory
    called `notebooks`: JupyterLab starts a kernel in its notebook's folder.
    """
    here = Path.cwd()
    project = os.environ.get(PROJECT_VARIABLE) or (here.parent if here.name == "notebooks" else "")
    return Path(project) / path


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def processor() -> str:
    """The name of the processor, as the system gives it."""
    names = Path("/proc/cpuinfo")
    if names.exists():
        for line in names.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit() -> str | None:
    """The commit of the source tree the package runs from; None for an installed copy."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    answer = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None


def write_json(path: Path, value: Any) -> None:
    """Write JSON next to its target and rename it, so that a reader never sees half a file."""
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(value, indent=1, sort_keys=False, default=str) + "\n")


def write_table(path: Path, table: Any) -> None:
    """Write a data frame as Parquet, without its index, whole or not at all."""
    with atomic_file(path) as partial:
        table.to_parquet(partial, index=False)


def write_manifest(
    directory: Path,
    *,
    name: str = MANIFEST,
    command: str,
    started: float,
    config: Mapping[str, Any] | None = None,
    seeds: Mapping[str, int] | None = None,
    data: Mapping[str, str] | None = None,
    backend: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the manifest `name`: everything needed to make `directory` again.

    Parameters
    ----------
    command
        The command line that made the directory.
    started
        `time.monotonic()` when the work began.
    config
        The configuration as plain values; its digest is recorded too.
    data
        Name of each input and its sha256.
    backend
        The attention backend in use, where a model ran.
    """
    plain = dict(config or {})
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()
    manifest = {
        "command": command, "versions": versions(), "seeds": dict(seeds or {}),
        "config": plain, "config_sha256": digest, "data_sha256": dict(data or {}),
        "git_commit": git_commit(), "backend": backend,
        "seconds": round(time.monotonic() - started, 3), **dict(extra or {}),
    }  # fmt: skip
    write_json(directory / name, manifest)
    return manifest


def _above(path: Path) -> Path:
    """The nearest folder above that exists."""
    return next(parent for parent in path.absolute().parents if parent.exists())


def require_folder(out: Path) -> Path:
    """See that `out` is a folder or can become one: neither it nor what it lies in is a file."""
    there = out if out.exists() else _above(out)
    require(there.is_dir(), f"{there} is a file", "a folder to write to")
    return out


def require_file(out: Path, *, overwrite: bool = False) -> None:
    """See that `out` can become a file, and that none is lost unless it is to be."""
    require_folder(out.parent)
    require(out.is_file() or not out.exists(), f"{out} is a folder", "a file to write")
    require(overwrite or not out.exists(), f"{out} exists", "a new file (or --overwrite)")


def require_free(out: Path, *, overwrite: bool = False) -> None:
    """See that `out` is new, an empty folder or, with `overwrite`, one that a stage wrote.

    Each stage leaves a manifest, and a genome that is kept as tokens its index.
    """
    require_folder(out)
    if out.exists() and any(out.iterdir()):
        require(overwrite, f"{out} exists and is not empty", "a new folder (or --overwrite)")
        path, index = out / MANIFEST, out / "contigs.json"
        is_ours = path.is_file() and '"config_sha256"' in path.read_text(errors="replace")
        wanted = f"a folder with the {MANIFEST} of genesplice: no other is replaced"
        require(is_ours or index.exists(), f"{out} exists, and genesplice did not write it", wanted)


def is_taken(out: Path) -> bool:
    """Say whether `out` holds anything but what a run leaves there before it has begun."""
    return out.exists() and (
        not out.is_dir()
        or any(p.name not in (GENOME, INPUTS) and p.suffix != ".partial" for p in out.iterdir())
    )


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """A folder on the disk of `out`, for what may be larger than memory; gone in the end."""
    with tempfile.TemporaryDirectory(SCRATCH, f".{out.name}.", _above(out)) as scratch:
        yield Path(scratch)


def _tidy(out: Path) -> None:
    """Take away what a killed process left beside `out`; give back what it was about to replace.

    For whoever has claimed `out`: nobody else is writing it.
    """
    folder, name = _above(out), glob.escape(f".{out.name}.")
    for before in folder.glob(f"{name}????????{BEFORE}"):
        if (before / "old").exists() and not out.exists():
            os.replace(before / "old", out)
        shutil.rmtree(before, ignore_errors=True)
    for scratch in folder.glob(f"{name}????????{SCRATCH}"):
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """See before the work that `out` can be written, and that no other process is writing it.

    What a process that was killed there left half-written is taken away. The claim is a lock on a
    file among the temporary ones, which ends with its process. Of several processes of `torchrun`
    the first one claims.

    Raises
    ------
    WorkError
        If nothing can be written there, or another process has claimed it.
    """
    folder = out if out.is_dir() else _above(out)
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
    except OSError as error:
        raise WorkError(f"{out} cannot be written: {folder}: {error.strerror}") from None
    if os.name != "posix" or os.environ.get("RANK", "0") != "0":
        yield
        return
    import fcntl

    digest = hashlib.sha256(os.fsencode(out.resolve())).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"genesplice-{os.getuid()}-{digest}.lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise WorkError(f"{out} is being written by process {lock.read()}") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        _tidy(out)
        yield
        path.unlink(missing_ok=True)


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Give a scratch path next to `target` that is renamed to it only if the body succeeds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_files(folder: Path) -> Iterator[Path]:
    """Give a scratch folder in `folder` whose files move there if the body succeeds, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(SCRATCH, ".", folder) as scratch:
        yield Path(scratch)
        for file in sorted(Path(scratch).iterdir()):
            os.replace(file, folder / file.name)


@contextmanager
def atomic_directory(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a scratch folder next to `target` that becomes `target` only if the body succeeds.

    If it does not, folders above that were made for it are taken away again.

    Raises
    ------
    InputError
        As `require_free`.
    """
    require_free(target, overwrite=overwrite)
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(SCRATCH, f".{target.name}.", target.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        if target.exists():
            old = Path(tempfile.mkdtemp(BEFORE, f".{target.name}.", target.parent))
            os.replace(target, old / "old")
            os.replace(scratch, target)
            shutil.rmtree(old)
        else:
            os.replace(scratch, target)
    finally:
        if scratch.exists():
            shutil.rmtree(scratch, ignore_errors=True)
            # Folders above that are there for nothing now, from the inside out.
            with suppress(OSError):
                for folder in made:
                    folder.rmdir()


Item = TypeVar("Item")
Found = TypeVar("Found")


class Countdown:
    """A line every ten seconds while `total` things are done: how many are, and the time left."""

    def __init__(self, total: int, what: str, say: Callable[[str], None]) -> None:
        self.total, self.what, self.say, self.n_done = total, what, say, 0
        self.started = self.said = time.monotonic()

    def step(self) -> None:
        """One more is done."""
        now, self.n_done = time.monotonic(), self.n_done + 1
        if now - self.said >= SECONDS_BETWEEN_LINES and self.n_done < self.total:
            self.said = now
            left = (now - self.started) / self.n_done * (self.total - self.n_done)
            self.say(f"{self.what}: {self.n_done} of {self.total}, {left:.0f} s left")

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items one by one; each is done when the next is asked for."""
        for item in items:
            yield item
            self.step()


def say_seconds(seconds: float | int) -> str:
    """Say a duration the way a clock does: `0:42`, `12:05`, `1:02:05`."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def tell(text: str) -> None:
    """One line of progress on stderr: in a notebook's run it reaches the terminal, no report."""
    print(text, file=sys.stderr, flush=True)


def n_cores() -> int:
    """Cores that this process may run on."""
    has_own = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_own else os.cpu_count() or 1


def side_by_side(
    work: Callable[[Item], Found], items: Iterable[Item], device: Any = None
) -> list[Found]:
    """`work` on each item, as many at once as torch has threads, each with one of them.

    Threads that share one item of a small network wait for each other at every operation: on two
    cores they are 1.2 to 1.6 times as fast as one, two items at once nearly twice. `work` must not
    change what it shares with its like (module hooks, modes); gradients are kept or not as where
    this is called. What is found comes in the order of the items. On another device than a CPU the
    items are done one by one.
    """
    import torch

    n_threads = torch.get_num_threads()
    if n_threads == 1 or (device is not None and device.type != "cpu"):
        return [work(item) for item in items]
    keeps_gradients, is_inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def alone(item: Item) -> Found:
        # All three are a thread's own.
        torch.set_num_threads(1)
        with torch.inference_mode(is_inference), torch.set_grad_enabled(keeps_gradients):
            return work(item)

    try:
        with ThreadPoolExecutor(n_threads) as pool:
            return list(pool.map(alone, items))
    finally:
        torch.set_num_threads(n_threads)

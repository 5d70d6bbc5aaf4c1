"""Kills and full disks at random moments of every long command, and how many did harm.

`python -m benchmarks.faults --count 220 --out reports/results/reliability.json`

Each command runs on a small simulated organism, in a process forked from this one. It gets
SIGKILL, SIGTERM, Ctrl-C, or a disk on which no file may grow, at a random time or while it writes,
renames or removes a file. Then every file that has its final name must open, no process may be
left, and an earlier result beside it must be untouched. After that the command is given again
(with `--resume`, where it has that; it may be hurt again meanwhile): it must end with the result of
an unbroken run, weights and tables bit for bit, times aside. Faults after which it does not are
lost.
"""

import argparse
import fcntl
import hashlib
import importlib
import json
import multiprocessing
import os
import random
import resource
import select
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

import genesplice.cli
from benchmarks import record
from benchmarks.organism import VERBS, Verb, differences, make_organism, unreadable

KINDS: tuple[signal.Signals | None, ...] = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None)
"""None is a full disk."""
CODES = {signal.SIGKILL: (-9,), signal.SIGTERM: (143, 130), signal.SIGINT: (130,), None: (1,)}
LIMITS = (0, 1_000, 40_000)
"""Bytes that no file may grow beyond on a full disk."""
LONGEST_S, LEAVE_S = 300, 30
WARM = (
    "genesplice.data.prepare", "genesplice.training.pretraining", "genesplice.training.finetuning",
    "genesplice.training.tasks", "genesplice.context.verdict", "genesplice.variants.annotate",
    "genesplice.variants.measured", "genesplice.variants.scan", "genesplice.show.runner",
    "genesplice.evaluate.probes", "genesplice.baselines.methods", "sklearn.ensemble", "papermill",
    "mappy", "anndata", "plotly.graph_objects", "lightning",
)  # fmt: skip
"""Imported once, before processes are forked."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
PIPE_BYTES = 1 << 20


class Moment(NamedTuple):
    """When a fault comes: so many seconds after the start, or at this change of a file."""

    seconds: float
    change: int | None


class Ended(NamedTuple):
    """How a process ended; `is_hit` says whether the fault came before that."""

    code: int
    said: str
    is_hit: bool
    left: int
    seconds: float
    changes: int


def _child(words: Sequence[str], folder: Path, at: int | None, changed: int, said: int) -> None:
    """Be `genesplice WORDS`: a session of its own that tells of its n-th change of a file."""
    changes, code = 0, 0

    def watch(event: str, about: tuple[Any, ...]) -> None:
        nonlocal changes
        is_change = event in CHANGES or (event == "open" and bool((about[2] or 0) & WRITING))
        if is_change and isinstance(about[0], str | Path) and str(about[0]).startswith(str(folder)):
            changes += 1
            if at is None or changes == at:
                os.write(changed, b"x")

    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(said, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        sys.addaudithook(watch)
        sys.argv = ["genesplice", *words]
        genesplice.cli.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 70
    finally:  # a fork must not come back into this script
        sys.stderr.flush()
        os._exit(code)


def start(
    words: Sequence[str], folder: Path, moment: Moment | None, kind: signal.Signals | None
) -> Ended:
    """Run a command in a fork of this process, with a fault at its moment, and wait for its end."""
    (changes_out, changes_in), (said_out, said_in) = os.pipe(), os.pipe()
    fcntl.fcntl(said_in, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    for end in (changes_out, changes_in, said_out):
        os.set_blocking(end, False)
    pid, began = os.fork(), time.monotonic()
    if not pid:
        _child(words, folder, moment.change if moment else None, changes_in, said_in)
    os.close(said_in), os.close(changes_in)
    process, is_hit, changes, relations = psutil.Process(pid), False, 0, list[psutil.Process]()
    while True:
        answer, status = os.waitpid(pid, os.WNOHANG)
        if answer:
            break
        is_change = bool(select.select([changes_out], [], [], 0.002)[0])
        if is_change:
            changes += len(os.read(changes_out, 1 << 16))
        elapsed = time.monotonic() - began
        if moment is not None and not is_hit:
            is_time = is_change if moment.change else elapsed > moment.seconds
            if is_time:
                time.sleep(random.uniform(0, 0.004) if moment.change else 0)
                relations = process.children(recursive=True)
                is_hit = _hurt(pid, kind)
        if elapsed > LONGEST_S:
            os.killpg(pid, signal.SIGKILL)
    seconds = time.monotonic() - began
    _, left = psutil.wait_procs(relations, timeout=LEAVE_S)
    for one in left:
        one.kill()
    said = b""
    while select.select([said_out], [], [], 0)[0] and (part := os.read(said_out, 1 << 16)):
        said += part
    os.close(said_out), os.close(changes_out)
    code = os.waitstatus_to_exitcode(status)
    return Ended(code, said.decode(errors="replace"), is_hit, len(left), seconds, changes)


def _hurt(pid: int, kind: signal.Signals | None) -> bool:
    """Do it; Ctrl-C reaches all processes of a terminal, other signals the one meant."""
    try:
        if kind is None:
            limit = random.choice(LIMITS)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        elif kind is signal.SIGINT:
            os.killpg(pid, kind)
        else:
            os.kill(pid, kind)
    except ProcessLookupError:
        return False
    return True


def apart(work: Callable[..., Any], *words: Any) -> Any:
    """What a call gives, from a fork: this process must stay without threads, or it cannot fork."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=lambda: theirs.send(work(*words)))
    process.start()
    theirs.close()
    found = ours.recv()
    process.join()
    return found


def state_of(folder: Path) -> str:
    """Digest of the names, times and bytes of all files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)} {path.stat().st_mtime_ns}".encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


class Trial(NamedTuple):
    """Faults of one run and its repeats, why it was lost, and scratch files that stayed."""

    faults: list[str]
    problems: list[str]
    left: int


def hurt_and_resume(
    verb: Verb, folder: Path, whole: Ended, kind: signal.Signals | None, say: Callable[[str], None]
) -> Trial:
    """One run with faults, taken up again until it is done, beside the unbroken one."""
    home = folder / verb.name
    out, unbroken, before = home / "out", home / "whole", state_of(home / "whole")
    faults, problems = list[str](), list[str]()
    again: Sequence[str] = ()
    while True:
        is_last = bool(faults) and random.random() < 2 / 3
        at = random.randint(1, max(whole.changes, 1)) if random.random() < 0.6 else None
        moment = None if is_last else Moment(random.uniform(0, whole.seconds), at)
        ended = start([*verb.words(folder, out), *again], home, moment, kind)
        name = "full disk" if kind is None else kind.name
        if not ended.is_hit or ended.code == 0:
            if ended.code:
                problems.append(f"given again it ended with {ended.code}: {ended.said[-1500:]}")
            if faults or problems:
                break
            shutil.rmtree(out, ignore_errors=True)
            continue
        faults.append(name)
        what = f"{name} at {moment}"
        if ended.code not in CODES[kind] or "Traceback" in ended.said:
            problems.append(f"{what}: ended with {ended.code}: {ended.said[-1500:]}")
        if ended.left:
            problems.append(f"{what}: {ended.left} processes were left")
        problems += [f"{what}: {one}" for one in apart(unreadable, out)]
        if before != state_of(unbroken):
            problems.append(f"{what}: the earlier result beside it was changed")
        kind, again = random.choice(KINDS), verb.again(out)
    if not problems:
        problems += apart(differences, unbroken, out)
    scratch = {path for path in home.rglob("*") if path.name[0] == "." or ".partial" in path.name}
    for path in home.iterdir():
        if path != unbroken:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for problem in problems:
        say(f"  {verb.name}: {problem}")
    return Trial(faults, problems, len(scratch))


def hurt(verb: Verb, folder: Path, whole: Ended, count: int) -> dict[str, Any]:
    """At least so many faults of a command: how many did harm, and why."""
    began, trials = time.monotonic(), list[Trial]()
    while sum(len(one.faults) for one in trials) < count:
        trials.append(hurt_and_resume(verb, folder, whole, KINDS[len(trials) % len(KINDS)], tell))
    kinds = Counter(fault for one in trials for fault in one.faults)
    lost = sum(len(one.faults) for one in trials if one.problems)
    sums = {"injected": kinds.total(), "recovered": kinds.total() - lost, "lost": lost}
    tell(f"{verb.name}: " + ", ".join(f"{name} {value}" for name, value in sums.items()))
    return sums | {
        "kinds": dict(sorted(kinds.items())),
        "scratch_left": sum(one.left for one in trials),
        "reasons": [problem for one in trials for problem in one.problems],
        "seconds": round(time.monotonic() - began),
        "made_by": shlex.join(["python", "-m", "benchmarks.faults", *sys.argv[1:]]),
    }


def tell(text: str) -> None:
    """One line, at once."""
    print(text, flush=True)


def main() -> None:
    """Hurt the commands in turn; what was found before of others stays in the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--count", type=int, default=220, help="faults, over all commands")
    parser.add_argument("--only", help="some of them: prepare,scan")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file whose `faults` is written")
    given = parser.parse_args()
    random.seed(given.seed)
    for name in WARM:
        importlib.import_module(name)
    torch.set_num_threads(1)
    table, total = dict[str, dict[str, Any]](), sum(verb.share for verb in VERBS)
    if given.out and given.out.exists():
        table = json.loads(given.out.read_text()).get("faults", {}).get("by_command", {})
    chosen = given.only.split(",") if given.only else [verb.name for verb in VERBS]
    last = max(at for at, verb in enumerate(VERBS) if verb.name in chosen)
    # Not a TemporaryDirectory: a forked command that ends early would take it away.
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        apart(make_organism, folder)
        for verb in VERBS[: last + 1]:
            if verb.name not in chosen and not verb.is_needed:
                continue
            home = folder / verb.name
            home.mkdir()
            whole = start(verb.words(folder, home / "whole"), home, None, None)
            if whole.code:
                raise SystemExit(f"{verb.name} ended with {whole.code}: {whole.said}")
            tell(f"{verb.name}: {whole.seconds:.1f} s unbroken, {whole.changes} changes of files")
            if verb.name in chosen:
                table[verb.name] = hurt(verb, folder, whole, -(-given.count * verb.share // total))
                if given.out:
                    found = {"by_command": table} | sums_of(table)
                    record(given.out, "faults", found, table[verb.name]["made_by"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sums = sums_of(table)
    tell("injected / recovered / lost = {injected} / {recovered} / {lost}".format(**sums))
    raise SystemExit(bool(sums["lost"]))


def sums_of(table: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Faults of all commands."""
    names = ("injected", "recovered", "lost")
    return {name: sum(one[name] for one in table.values()) for name in names}


if __name__ == "__main__":
    main()

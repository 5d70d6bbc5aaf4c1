"""Notebooks run in order, or one over many parameters, each into a report as soon as it is done.

Run directories are made once, never overwritten, and described by their manifest. `manifest.json`
of a run has the fields of every manifest, and `kind` ("run" or "sweep"), `preset`, `given`
(parameters as typed), `state`, `started` (local time), `seconds` (of all notebooks), and
`notebooks`: a list of records with `stem, title, sha256, state, seconds, parameters, message,
headline`.
"""

import contextlib
import datetime
import difflib
import itertools
import json
import re
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from genesplice.errors import InputError, require
from genesplice.results import read_json
from genesplice.runtime import atomic_file, file_sha256, write_json, write_manifest
from genesplice.show.execution import Failure, Progress, execute_notebook
from genesplice.show.notebooks import (
    NotebookInfo,
    Value,
    check_parameters,
    list_notebooks,
    select_notebook,
)
from genesplice.show.report import IndexEntry, read_headline, render_index, render_notebook

Manifest = dict[str, Any]
_RESERVED = {"preset": "--preset", "run_dir": "no value: every run has a folder of its own"}


class RunResult(NamedTuple):
    """Where a run is and how it ended.

    `page` is the index to open; `failures` is empty where everything is done. The exit code is
    0 then, 130 after Ctrl-C, and 1 otherwise.
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
        return int(bool(self.failures))


class Task(NamedTuple):
    """A notebook and its parameters; `name` is its stem, or a combination's name in a sweep."""

    name: str
    notebook: NotebookInfo
    values: dict[str, Value]


def _execute(
    tasks: Sequence[Task],
    run_dir: Path,
    manifest: Manifest,
    out: Path | None,
    cwd: Path,
    progress: Progress,
) -> RunResult:
    """Execute tasks in order; reports and index are written as soon as each one is done.

    A run stops at the first that fails, a sweep goes on.
    """
    failures: list[Failure] = []
    try:
        for task in tasks:
            record = next(one for one in manifest["notebooks"] if one["stem"] == task.name)
            executed = run_dir / f"{task.name}.ipynb"
            executed.with_suffix(".html").unlink(missing_ok=True)
            record |= {"state": "running", "sha256": file_sha256(task.notebook.path)}
            _render(run_dir, manifest, out)
            progress.notebook(task.name, task.notebook.n_cells + bool(task.values))
            seconds, failure = execute_notebook(
                task.notebook, executed, task.values, cwd=cwd, progress=progress
            )
            record |= {"state": "done", "seconds": seconds, "message": None}
            if failure:
                failures.append(failure._replace(notebook=task.name))
                record |= {"state": failure.state, "message": str(failures[-1])}
            _render(run_dir, manifest, out)
            progress.end_notebook(record["state"], seconds)
            if failure and (manifest["kind"] == "run" or failure.kind == "interrupted"):
                break
    finally:
        progress.stop()
    page = _render(run_dir, manifest, out)
    names = [f"{record['stem']}.html" for record in manifest["notebooks"]]
    reports = tuple(page.parent / name for name in names if (run_dir / name).exists())
    return RunResult(run_dir, page, reports, tuple(failures))


def run_notebooks(
    folder: Path,
    out: Path = Path("reports"),
    preset: str | None = None,
    *,
    only: str | None = None,
    parameters: Mapping[str, str] | None = None,
    resume: str | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Run the notebooks of `folder` in order, up to the first that fails, and render them.

    A new run gets `out/runs/<time>-<preset>/`; `out/index.html` and `out/<stem>.html` are copies
    of the latest reports. The kernels work in the parent of `folder`.

    Parameters
    ----------
    preset
        Given to the notebooks that declare `preset`; None is "quick", or what a resumed run had.
    only
        Run this one notebook (`03`); with `resume`, inside that run, on what the others left there.
    parameters
        As typed on the command line; checked before anything runs.
    resume
        A run's path, its name under `out/runs`, or `latest`. Goes on at the first notebook that is
        not done or whose source has changed, with the same preset and parameters.

    Raises
    ------
    InputError
        For an unknown or mistyped parameter, notebook or run; nothing has run then.
    """
    notebooks, given = list_notebooks(folder), dict(parameters or {})
    selected = [select_notebook(notebooks, only)] if only else notebooks
    run_dir, before = find_run(out, resume) if resume else None, None
    if run_dir:
        before = read_manifest(run_dir)
        _check_resumed(before, preset, given, run_dir)
        known = {name for notebook in selected for name in notebook.parameters}
        given, preset = {k: v for k, v in before["given"].items() if k in known}, before["preset"]
    n_done = _count_done(before, notebooks) if before and not only else 0
    preset = preset or "quick"
    typed = _check_all(selected, given, preset)
    run_dir = run_dir or make_run_directory(out / "runs", preset)
    tasks = [_task(n.stem, n, typed[n.stem], preset, run_dir) for n in selected]
    command = ["genesplice", "run", "--preset", preset, *(["--only", only] if only else [])]
    manifest = make_manifest(run_dir, tasks, command, preset=preset, given=given)
    if before:
        manifest |= {name: before[name] for name in ("started", "command", "given")}
        old, new = ({one["stem"]: one for one in m["notebooks"]} for m in (before, manifest))
        done = {notebook.stem: old[notebook.stem] for notebook in selected[:n_done]}
        merged = (old if only else {}) | new | done
        manifest["notebooks"] = [merged[stem] for stem in sorted(merged)]
    progress = progress or Progress()
    progress.start([task.name for task in tasks[n_done:]], expected_seconds(out, preset))
    if n_done:
        going_on = tasks[n_done].name if n_done < len(tasks) else "the reports"
        progress.note(f"{run_dir.name}: {n_done} done before, going on at {going_on}")
    cwd = folder.resolve().parent
    return _execute(tasks[n_done:], run_dir, manifest, out, cwd, progress)


def sweep_notebook(
    notebook: Path,
    grid: Mapping[str, str],
    out: Path = Path("reports"),
    preset: str = "quick",
    *,
    progress: Progress | None = None,
) -> RunResult:
    """Run one notebook once for every combination of `grid` (`{"seed": "0,1,2"}`).

    Each combination works in a folder of its own under `out/sweeps/<time>-<stem>/`; one that fails
    does not stop the others. The index of the sweep lists them all.

    Raises
    ------
    InputError
        For an unknown or mistyped parameter, or no values; nothing has run then.
    """
    info = select_notebook(list_notebooks(notebook.parent), notebook.name)
    axes = [[(name, value) for value in values.split(",")] for name, values in grid.items()]
    require(axes, "no parameter", "at least one, -p name=value,value")
    combinations = [dict(combination) for combination in itertools.product(*axes)]
    typed = [_check_all([info], given, preset)[info.stem] for given in combinations]
    run_dir, width = make_run_directory(out / "sweeps", info.stem), len(str(len(combinations)))
    tasks = []
    for number, (given, values) in enumerate(zip(combinations, typed, strict=True), 1):
        words = [f"{number:0{width}}", *(f"{key}={value}" for key, value in given.items())]
        name = re.sub(r"[^\w.=+-]+", "_", "-".join(words))[:80]
        tasks.append(_task(name, info, values, preset, run_dir / name))
        (run_dir / name).mkdir()
    command = ["genesplice", "sweep", notebook.name, "--preset", preset]
    manifest = make_manifest(run_dir, tasks, command, kind="sweep", preset=preset, given=grid)
    progress = progress or Progress()
    progress.start([task.name for task in tasks], {})
    return _execute(tasks, run_dir, manifest, None, notebook.resolve().parent.parent, progress)


def render_run(run_dir: Path) -> Path:
    """Write the reports and the index of a run again, from its executed notebooks; the index."""
    return _render(run_dir, read_manifest(run_dir), None, again=True)


def _render(run_dir: Path, manifest: Manifest, out: Path | None, again: bool = False) -> Path:
    """Save the manifest, and write the index and those reports that are not there yet.

    Those in `out` are replaced by this run's; reports of other notebooks stay, and are listed with
    the run they came from. Returned is the index: the one in `out` if that is given.
    """
    entries = []
    for record in manifest["notebooks"]:
        executed, report = (run_dir / f"{record['stem']}{suffix}" for suffix in (".ipynb", ".html"))
        is_over = record["state"] not in ("not run", "running") and executed.exists()
        if is_over and (again or not report.exists()):
            render_notebook(executed, report, title=record["title"], run=run_dir.name)
            record["headline"] = read_headline(executed)
        entries.append(IndexEntry(record, report.name if report.exists() else None))
    save_manifest(run_dir, manifest)
    verdict, lead = run_dir / "verdict" / "verdict.json", []
    if verdict.exists():
        lead = [str(json.loads(verdict.read_text(encoding="utf-8"))["sentence"])]
    index = render_index(run_dir / "index.html", entries, manifest, run_dir.name, lead=lead)
    if out is None:
        return index
    for entry in entries:
        if entry.href:
            with atomic_file(out / entry.href) as partial:
                shutil.copyfile(run_dir / entry.href, partial)
        elif manifest["state"] != "running":
            (out / f"{entry.record['stem']}.html").unlink(missing_ok=True)
    listed = {entry.record["stem"]: entry for entry in entries}
    for directory, older in iter_runs(out):
        for record in older["notebooks"]:
            stem, href = record["stem"], f"{record['stem']}.html"
            if stem not in listed and (out / href).exists() and directory != run_dir:
                listed[stem] = IndexEntry(record, href, older=directory.name)
    cards = [listed[name] for name in sorted(listed)]
    with atomic_file(out / "index.html") as partial:
        render_index(partial, cards, manifest, run_dir.name, lead=lead)
    return out / "index.html"


def _check_resumed(
    before: Manifest, preset: str | None, given: Mapping[str, str], run_dir: Path
) -> None:
    began = f"with which {run_dir.name} began"
    kind, old = before["kind"], before["preset"]
    require(kind == "run", f"a {kind}", "a run, which can be resumed", run_dir)
    require(preset in (None, old), f"--preset {preset}", f"{old}, {began}")
    for name, value in given.items():
        old = before["given"].get(name, "nothing")
        require(value == old, f"-p {name}={value}", f"{old}, {began}")


def _count_done(manifest: Manifest, notebooks: Sequence[NotebookInfo]) -> int:
    """How many notebooks, from the first on, are done and the same still; later ones need them."""
    records = {record["stem"]: record for record in manifest["notebooks"]}
    for position, notebook in enumerate(notebooks):
        record = records.get(notebook.stem, {"state": "not run"})
        if record["state"] != "done" or record["sha256"] != file_sha256(notebook.path):
            return position
    return len(notebooks)


def _check_all(
    notebooks: Sequence[NotebookInfo], given: Mapping[str, str], preset: str
) -> dict[str, dict[str, Value]]:
    """Check what was typed, and that every notebook that has a preset knows this one."""
    with_preset = [notebook for notebook in notebooks if "preset" in notebook.parameters]
    if with_preset:
        check_parameters(with_preset, {"preset": preset})
    return check_parameters(notebooks, given, _RESERVED)


def _task(
    name: str, notebook: NotebookInfo, typed: Mapping[str, Value], preset: str, run_dir: Path
) -> Task:
    values: dict[str, Value] = {"preset": preset, "run_dir": str(run_dir.resolve()), **typed}
    return Task(name, notebook, {k: v for k, v in values.items() if k in notebook.parameters})


# --- run directories and their manifests ---


def make_run_directory(parent: Path, label: str) -> Path:
    """Create `parent/<time>-<label>`, with `-2`, `-3` … behind it where that exists already."""
    parent.mkdir(parents=True, exist_ok=True)
    stem = f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{label}"
    for number in itertools.count(1):
        directory = parent / (stem if number == 1 else f"{stem}-{number}")
        with contextlib.suppress(FileExistsError):
            directory.mkdir()
            break
    return directory


def make_manifest(
    directory: Path,
    tasks: Sequence[Task],
    command: Sequence[str],
    *,
    preset: str,
    given: Mapping[str, str],
    kind: str = "run",
) -> Manifest:
    """Write the manifest of a run that is about to start."""
    later = dict.fromkeys(("seconds", "message", "headline"))
    records = [
        {"stem": task.name, "title": task.notebook.title, "state": "not run", **later,
         "sha256": file_sha256(task.notebook.path), "parameters": dict(task.values)}
        for task in tasks
    ]  # fmt: skip
    options = [word for name, value in given.items() for word in ("-p", f"{name}={value}")]
    seed = given.get("seed", "")
    started = f"{datetime.datetime.now():%Y-%m-%dT%H:%M:%S}"
    extra = {"kind": kind, "preset": preset, "given": dict(given), "state": "running"}
    return write_manifest(
        directory, command=shlex.join([*command, *options]), started=time.monotonic(),
        config={"preset": preset, **given},
        seeds={"seed": int(seed)} if seed.lstrip("-").isdigit() else None,
        extra={**extra, "started": started, "notebooks": records},
    )  # fmt: skip


def save_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest, with `state` and `seconds` brought up to date from its notebooks."""
    states = {record["state"] for record in manifest["notebooks"]}
    order = ("running", "interrupted", "failed", "not run", "done")
    state = next((one for one in order if one in states), manifest["state"])
    manifest["state"] = "running" if state == "not run" else state
    seconds = sum(record["seconds"] or 0.0 for record in manifest["notebooks"])
    manifest["seconds"] = round(seconds, 3)
    write_json(directory / "manifest.json", manifest)


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of a run or a sweep.

    Raises
    ------
    InputError
        If `directory` is not one.
    """
    path = directory / "manifest.json"
    if not path.exists():
        raise InputError("no manifest.json", "the folder of a run", path=directory)
    manifest = read_json(path)
    if not isinstance(manifest, dict) or "notebooks" not in manifest:
        raise InputError("no notebooks in it", "the manifest of a run", path=path)
    return manifest


def iter_runs(out: Path) -> Iterator[tuple[Path, Manifest]]:
    """Go through the runs under `out/runs`, the newest first; folders that are none are skipped."""
    found = []
    for path in (out / "runs").glob("*/manifest.json"):
        try:
            found.append((path.parent, read_manifest(path.parent)))
        except InputError:
            continue
    yield from sorted(found, key=lambda run: (run[1].get("started", ""), run[0].name), reverse=True)


def find_run(out: Path, run: str) -> Path:
    """Find a run by its path, its name under `out/runs`, or as `latest`.

    Raises
    ------
    InputError
        If there is no such run; the closest name is offered.
    """
    names = [directory.name for directory, _ in iter_runs(out)]
    if run == "latest" and names:
        return out / "runs" / names[0]
    for candidate in (out / "runs" / run, Path(run)):
        if (candidate / "manifest.json").exists():
            return candidate
    hint = "".join(f"; did you mean {one!r}?" for one in difflib.get_close_matches(run, names, 1))
    listed = f"{len(names)} of them, the latest {names[0]}" if names else "there is none yet"
    raise InputError(f"run {run!r}", f"a run under {out / 'runs'} ({listed}){hint}")


def expected_seconds(out: Path, preset: str) -> dict[str, float]:
    """How long each notebook took the last time it was done with this preset."""
    seconds: dict[str, float] = {}
    for _, manifest in iter_runs(out):
        for record in manifest["notebooks"] if manifest.get("preset") == preset else []:
            if record["state"] == "done" and record["seconds"]:
                seconds.setdefault(record["stem"], float(record["seconds"]))
    return seconds

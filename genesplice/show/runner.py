"""Notebooks run side by side, or one over many parameters, each into a report as soon as it ends.

Run directories are made once, never overwritten, and described by their manifest. `manifest.json`
of a run has the fields of every manifest, and `kind` ("run" or "sweep"), `preset`, `given`
(parameters as typed), `state`, `started` (local time), `seconds` (of all notebooks),
`clock_seconds` (those that a person waited), and `notebooks`: a list of records with `stem, title,
sha256, state, seconds, parameters, message, headline`.
"""

import datetime
import itertools
import re
import shlex
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from genesplice.errors import InputError, did_you_mean, require
from genesplice.results import read_json
from genesplice.runtime import atomic_file, file_sha256, n_cores, write_json, write_manifest
from genesplice.show import notebooks as nb
from genesplice.show.execution import Failure, Kernels, Progress, RunResult, execute_notebook
from genesplice.show.report import IndexEntry, read_headline, render_index, render_notebook

Manifest = dict[str, Any]
AT_ONCE = 2
"""Notebooks side by side, where there are so many cores."""
SECONDS_TO_END = 8.0
"""For a notebook that is interrupted, before its kernel is killed."""


def _execute(
    tasks: Sequence[nb.Task],
    run_dir: Path,
    manifest: Manifest,
    out: Path | None,
    progress: Progress,
    at_once: int,
    has_weights: nb.HasWeights | None = None,
) -> RunResult:
    """Execute tasks that are not done, up to `at_once` side by side (0: `AT_ONCE` or one a core).

    Report and index are written as each one ends. What needs a task that failed is not run.
    """
    at_once = at_once or min(AT_ONCE, n_cores())
    records = {record["stem"]: record for record in manifest["notebooks"]}
    tasks = nb.share_cores(tasks, at_once)
    cwd = tasks[0].notebook.path.resolve().parents[1]
    waiting = [task for task in tasks if records[task.name]["state"] != "done"]
    failures, kernels, pool = list[Failure](), Kernels(), ThreadPoolExecutor(at_once)
    running: dict[Future[tuple[float, Failure | None]], nb.Task] = {}
    preset, begun, before = manifest["preset"], time.monotonic(), manifest.get("clock_seconds", 0.0)
    as_a_rule = {task.name: task.notebook.seconds.get(preset) for task in tasks if out}
    expected = {name: seconds for name, seconds in as_a_rule.items() if seconds}
    here = expected_seconds(out, preset) if out else {}
    done = {task.name for task in tasks if task not in waiting}
    progress.start([task.name for task in tasks], expected | here, at_once, done)
    if any(task.name in expected and task.name not in here for task in waiting):
        progress.note("no times from here yet: what is left is guessed from E. coli on two cores")

    def render() -> Path:
        manifest["clock_seconds"] = round(before + time.monotonic() - begun, 3)
        return _render(run_dir, manifest, out)

    def end(future: Future[tuple[float, Failure | None]]) -> None:
        task, (seconds, failure) = running.pop(future), future.result()
        record = records[task.name]
        record |= {"state": "done", "seconds": seconds, "message": None}
        if failure:
            failures.append(failure._replace(notebook=task.name))
            record |= {"state": failure.state, "message": str(failures[-1])}
        report = render().parent / f"{task.name}.html"
        progress.end_notebook(task.name, record["state"], seconds, failure, report)

    order = nb.Order(tasks, records, has_weights, expected | here)
    try:
        while True:
            for task in (starting := order.ready(waiting)[: at_once - len(running)]):
                waiting.remove(task)
                sha256 = file_sha256(task.notebook.path)
                records[task.name] |= {"state": "running", "sha256": sha256}
                (run_dir / f"{task.name}.html").unlink(missing_ok=True)
            render()
            for task in starting:
                progress.notebook(task.name, task.notebook.n_cells + bool(task.values))
                about = task, run_dir / f"{task.name}.ipynb", cwd, progress, kernels
                running[pool.submit(execute_notebook, *about)] = task
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                end(future)
    except KeyboardInterrupt:
        kernels.stop(signal.SIGINT)
        wait(running, timeout=SECONDS_TO_END)
        kernels.stop(signal.SIGKILL)
        for future in wait(running).done:
            end(future)
        undone = [task.name for task in tasks if records[task.name]["state"] != "done"]
        opened = [name for name in undone if records[name]["state"] == "running"]
        for name in opened or undone[: not failures]:  # what was about to begin, or comes next
            failures.append(Failure(name, None, 0, "interrupted", "interrupted"))
            records[name] |= {"state": failures[-1].state, "message": str(failures[-1])}
    finally:
        kernels.stop(signal.SIGKILL)
        pool.shutdown()
        progress.stop()
    for task in waiting:
        lacking = ", ".join(order.lacking(task))
        records[task.name]["message"] = lacking and f"needs {lacking}"
    page = render()
    names = (f"{record['stem']}.html" for record in manifest["notebooks"])
    reports = tuple(page.parent / name for name in names if (run_dir / name).exists())
    place = {task.name: place for place, task in enumerate(tasks)}
    return RunResult(
        run_dir, page, reports, tuple(sorted(failures, key=lambda one: place[one.notebook]))
    )


def run_notebooks(
    folder: Path,
    out: Path = Path("reports"),
    preset: str | None = None,
    *,
    only: str | None = None,
    parameters: Mapping[str, str] | None = None,
    resume: str | None = None,
    at_once: int = 0,
    progress: Progress | None = None,
    has_weights: nb.HasWeights | None = None,
) -> RunResult:
    """Run the notebooks of `folder` and render them; what needs one that failed is not run.

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
        A run's path, its name under `out/runs`, or `latest`. Goes on with the notebooks that are
        not done, whose source has changed, or that need one of these, with the same preset and
        parameters.
    at_once
        Notebooks side by side, none of which needs another (`NotebookInfo.needs`); 0: `AT_ONCE`,
        if there are as many cores.
    has_weights
        Whether published weights take the place of `Task.replaced`; None: never.

    Raises
    ------
    InputError
        For an unknown or mistyped parameter, notebook or run; nothing has run then.
    """
    notebooks, given = nb.list_notebooks(folder), dict(parameters or {})
    selected = notebooks if only is None else [nb.select_notebook(notebooks, only)]
    run_dir, before = None if resume is None else find_run(out, resume), None
    if run_dir:
        before = read_manifest(run_dir)
        _check_resumed(before, preset, given, run_dir)
        known = {name for notebook in selected for name in notebook.parameters}
        given, preset = {k: v for k, v in before["given"].items() if k in known}, before["preset"]
    done = _find_done(before, notebooks) if before and not only else {}
    preset = preset or "quick"
    typed = nb.check_parameters(selected, given, preset)
    run_dir = run_dir or nb.make_run_directory(out / "runs", preset)
    tasks = [nb.make_task(n.stem, n, typed[n.stem], preset, run_dir) for n in selected]
    command = ["genesplice", "run", "--preset", preset, *(["--only", only] if only else [])]
    manifest = make_manifest(run_dir, tasks, command, preset=preset, given=given)
    if before:
        kept = ("started", "command", "given", "clock_seconds")
        manifest |= {name: before[name] for name in kept if name in before}
        old, new = ({one["stem"]: one for one in m["notebooks"]} for m in (before, manifest))
        merged = (old if only else {}) | new | done
        manifest["notebooks"] = [merged[stem] for stem in sorted(merged)]
    progress = progress or Progress()
    if done:
        going_on = next((task.name for task in tasks if task.name not in done), "the reports")
        progress.note(f"{run_dir.name}: {len(done)} done before, going on at {going_on}")
    return _execute(tasks, run_dir, manifest, out, progress, at_once, has_weights)


def sweep_notebook(
    notebook: Path,
    grid: Mapping[str, str],
    out: Path = Path("reports"),
    preset: str = "quick",
    *,
    at_once: int = 0,
    progress: Progress | None = None,
) -> RunResult:
    """Run one notebook once for every combination of `grid` (`{"seed": "0,1,2"}`).

    Each combination works in a folder of its own under `out/sweeps/<time>-<stem>/`; one that fails
    does not stop the others. The index of the sweep lists them all. `at_once` is as in
    `run_notebooks`.

    Raises
    ------
    InputError
        For an unknown or mistyped parameter, or no values; nothing has run then.
    """
    info = nb.select_notebook(nb.list_notebooks(notebook.parent), notebook.name)
    axes = [[(name, value) for value in values.split(",")] for name, values in grid.items()]
    require(axes, "no parameter", "at least one, -p name=value,value")
    combinations = [dict(combination) for combination in itertools.product(*axes)]
    typed = [nb.check_parameters([info], given, preset)[info.stem] for given in combinations]
    run_dir, width = nb.make_run_directory(out / "sweeps", info.stem), len(str(len(combinations)))
    tasks = []
    for number, (given, values) in enumerate(zip(combinations, typed, strict=True), 1):
        words = [f"{number:0{width}}", *(f"{key}={value}" for key, value in given.items())]
        name = re.sub(r"[^\w.=+-]+", "_", "-".join(words))[:80]
        tasks.append(nb.make_task(name, info, values, preset, run_dir / name))
        (run_dir / name).mkdir()
    command = ["genesplice", "sweep", notebook.name, "--preset", preset]
    manifest = make_manifest(run_dir, tasks, command, kind="sweep", preset=preset, given=grid)
    return _execute(tasks, run_dir, manifest, None, progress or Progress(), at_once)


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
        lead = [str(read_json(verdict)["sentence"])]
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
    return render_index(out / "index.html", cards, manifest, run_dir.name, lead=lead)


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


def _find_done(manifest: Manifest, notebooks: Sequence[nb.NotebookInfo]) -> dict[str, Any]:
    """Records of notebooks that are done and the same still, as all are that they need."""
    records, done = {record["stem"]: record for record in manifest["notebooks"]}, dict[str, Any]()
    for notebook in notebooks:
        record = records.get(notebook.stem, {"state": "not run"})
        is_done = record["state"] == "done" and record["sha256"] == file_sha256(notebook.path)
        if is_done and done.keys() >= set(notebook.needs):
            done[notebook.stem] = record
    return done


# --- run directories and their manifests ---


def make_manifest(
    directory: Path,
    tasks: Sequence[nb.Task],
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
    extra = {"kind": kind, "preset": preset, "given": dict(given), "state": "running",
             "started": datetime.datetime.now().isoformat(timespec="seconds"),
             "notebooks": records}  # fmt: skip
    return write_manifest(
        directory, command=shlex.join([*command, *options]), started=time.monotonic(),
        config={"preset": preset, **given}, extra=extra,
        seeds={"seed": int(seed)} if seed.lstrip("-").isdigit() else None,
    )  # fmt: skip


def save_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest, with `state` and `seconds` brought up to date from its notebooks."""
    states = {record["state"] for record in manifest["notebooks"]}
    order = ("running", "interrupted", "failed", "not run", "done")
    state = next((one for one in order if one in states), manifest["state"])
    manifest["state"] = "running" if state == "not run" else state
    manifest["seconds"] = round(sum(one["seconds"] or 0.0 for one in manifest["notebooks"]), 3)
    write_json(directory / "manifest.json", manifest)


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of a run or a sweep.

    Raises
    ------
    InputError
        If `directory` is not one.
    """
    path = directory / "manifest.json"
    require(path.exists(), "no manifest.json", "the folder of a run", directory)
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
    hint = "; " * bool(near := did_you_mean(run, names, "")) + near
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

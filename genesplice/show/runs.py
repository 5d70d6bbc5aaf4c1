"""Run directories: made once, never overwritten, described by their manifest, published.

`manifest.json` of a run has the fields of every manifest, and `kind` ("run" or "sweep"), `preset`,
`given` (parameters as typed), `state`, `started` (local time), `seconds` (of all notebooks), and
`notebooks`: a list of records with `stem, title, sha256, state, seconds, parameters, message,
headline`.
"""

import datetime
import difflib
import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from genesplice.errors import InputError, WorkError
from genesplice.runtime import file_sha256, write_json, write_manifest
from genesplice.show.notebooks import NotebookInfo, Value

Manifest = dict[str, Any]

_LISTS = ("metrics", "ablations", "variants", "faithfulness", "bench")
_OBJECTS = ("verdict", "reliability")


class Task(NamedTuple):
    """A notebook and its parameters; `name` is its stem, or a combination's name in a sweep."""

    name: str
    notebook: NotebookInfo
    values: dict[str, Value]


def make_run_directory(parent: Path, label: str) -> Path:
    """Create `parent/<time>-<label>`, with `-2`, `-3` … behind it where that exists already."""
    parent.mkdir(parents=True, exist_ok=True)
    stem = f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{label}"
    for number in range(1, 10_000):
        directory = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            directory.mkdir()
        except FileExistsError:
            continue
        return directory
    raise WorkError(f"{parent}: no free name for a run beginning with {stem}")


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
        directory,
        command=shlex.join([*command, *options]),
        started=time.monotonic(),
        config={"preset": preset, **given},
        seeds={"seed": int(seed)} if seed.lstrip("-").isdigit() else None,
        extra={**extra, "started": started, "notebooks": records},
    )


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
    manifest = _read_json(path)
    if not isinstance(manifest, dict) or "notebooks" not in manifest:
        raise InputError("no notebooks in it", "the manifest of a run", path=path)
    return manifest


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"not JSON ({error})", path=path) from None


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
    close = difflib.get_close_matches(run, names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
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


def publish_results(run_dir: Path, results_dir: Path) -> Path:
    """Gather what a run measured into `results_dir/results.json`.

    Read are, anywhere under `run_dir`, the files `metrics.json`, `ablations.json`, `variants.json`,
    `faithfulness.json` and `bench.json` (lists of records, or an object whose `rows` are one) and
    `verdict.json` and `reliability.json` (objects). A record found twice is written once. What no
    file gives is an empty list or object.

    Raises
    ------
    InputError
        If the run is not done, a file holds something else, or two verdicts differ.
    """
    manifest = read_manifest(run_dir)
    if manifest["state"] != "done":
        raise InputError(f"a run that is {manifest['state']}", "one that is done", path=run_dir)
    results: dict[str, Any] = {name: _gather(run_dir, name) for name in (*_LISTS, *_OBJECTS)}
    results["claims"] = results.pop("ablations")
    results_dir.mkdir(parents=True, exist_ok=True)
    write_json(results_dir / "results.json", results | {"made_by": manifest["command"]})
    return results_dir / "results.json"


def _gather(run_dir: Path, name: str) -> list[Any] | dict[str, Any]:
    found: list[Any] = []
    kind, expected = (list, "a list of records") if name in _LISTS else (dict, "an object")
    for path in sorted(run_dir.rglob(f"{name}.json")):
        content = _read_json(path)
        if kind is list and isinstance(content, dict):
            content = content.get("rows")
        if not isinstance(content, kind):
            raise InputError(type(content).__name__, expected, path=path)
        if kind is dict and found and content != found[0]:
            raise InputError(f"a second {name}", "one in a run", path=path)
        found.append(content)
    if kind is dict:
        return found[0] if found else {}
    return list({json.dumps(row, sort_keys=True): row for rows in found for row in rows}.values())

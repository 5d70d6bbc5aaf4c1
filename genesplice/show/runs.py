"""Run directories: made once, never overwritten, described by their manifest, resumable."""

import datetime
import difflib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genesplice.errors import InputError, WorkError
from genesplice.runtime import file_sha256, write_json, write_manifest
from genesplice.show.literals import Value
from genesplice.show.parameters import NotebookInfo

Manifest = dict[str, Any]
"""What `manifest.json` of a run holds: the fields of every manifest, and

`kind` ("run" or "sweep"), `preset`, `given` (parameters as typed), `provided` (values handed to
the notebooks that declare them), `state`, `started` (local time), `seconds` (of all notebooks),
and `notebooks`: a list of records with `stem, title, sha256, state, seconds, parameters, message,
headline`.
"""

_LISTS = ("metrics", "ablations", "variants", "faithfulness", "bench")


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
    notebooks: Mapping[str, NotebookInfo],
    parameters: Mapping[str, Mapping[str, Value]],
    *,
    kind: str,
    command: str,
    preset: str | None,
    given: Mapping[str, str],
    provided: Mapping[str, Value],
) -> Manifest:
    """Write the manifest of a run that is about to start.

    `notebooks` and `parameters` go by the name of the executed file: the stem of the notebook, or
    a combination's name in a sweep.
    """
    records = [
        {
            "stem": name,
            "title": notebook.title,
            "sha256": file_sha256(notebook.path),
            "state": "not run",
            "seconds": None,
            "parameters": dict(parameters[name]),
            "message": None,
            "headline": None,
        }
        for name, notebook in notebooks.items()
    ]
    extra = {
        "kind": kind,
        "preset": preset,
        "given": dict(given),
        "provided": dict(provided),
        "state": "running",
        "started": datetime.datetime.now().isoformat(timespec="seconds"),
        "notebooks": records,
    }
    seeds = {"seed": int(given["seed"])} if given.get("seed", "").lstrip("-").isdigit() else None
    config = {"preset": preset, **given, **provided}
    started = time.monotonic()
    return write_manifest(
        directory, command=command, started=started, config=config, seeds=seeds, extra=extra
    )


def save_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest, with `state` and `seconds` brought up to date from its notebooks."""
    states = [record["state"] for record in manifest["notebooks"]]
    for state in ("running", "interrupted", "failed", "not run", "done"):
        if state in states:
            manifest["state"] = "running" if state == "not run" else state
            break
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
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("no manifest.json", "the folder of a run", path=directory) from None
    except ValueError as error:
        raise InputError(f"not JSON ({error})", path=path) from None
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
    close = difflib.get_close_matches(run, names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    listed = f"{len(names)} of them, the latest {names[0]}" if names else "there is none yet"
    raise InputError(f"run {run!r}", f"a run under {out / 'runs'} ({listed}){hint}")


def first_to_run(manifest: Manifest, notebooks: list[NotebookInfo]) -> int:
    """Position of the notebook at which a resumed run goes on.

    That is the first one that is not done, or whose source has changed since it was: what comes
    behind it may depend on what it makes. Equals `len(notebooks)` where nothing is left to do.
    """
    records = {record["stem"]: record for record in manifest["notebooks"]}
    for position, notebook in enumerate(notebooks):
        record = records.get(notebook.stem)
        if record is None or record["state"] != "done":
            return position
        if record["sha256"] != file_sha256(notebook.path):
            return position
    return len(notebooks)


def expected_seconds(out: Path, preset: str | None) -> dict[str, float]:
    """How long each notebook took the last time it was done with this preset."""
    seconds: dict[str, float] = {}
    for _, manifest in iter_runs(out):
        if manifest.get("preset") != preset:
            continue
        for record in manifest["notebooks"]:
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
    results: dict[str, Any] = {}
    for name in ("metrics", "claims", "verdict", "variants", "faithfulness", "bench"):
        results[name] = _gather(run_dir, "ablations" if name == "claims" else name)
    results["reliability"] = _gather(run_dir, "reliability")
    results["made_by"] = manifest["command"]
    results_dir.mkdir(parents=True, exist_ok=True)
    target = results_dir / "results.json"
    write_json(target, results)
    return target


def _gather(run_dir: Path, name: str) -> list[Any] | dict[str, Any]:
    records: dict[str, Any] = {}
    objects: dict[str, Any] = {}
    for path in sorted(run_dir.rglob(f"{name}.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"not JSON ({error})", path=path) from None
        if name in _LISTS:
            rows = content.get("rows") if isinstance(content, dict) else content
            if not isinstance(rows, list):
                raise InputError(type(content).__name__, "a list of records", path=path)
            records |= {json.dumps(row, sort_keys=True): row for row in rows}
        elif not isinstance(content, dict):
            raise InputError(type(content).__name__, "an object", path=path)
        elif objects and objects != content:
            raise InputError(f"a second {name}", "one in a run", path=path)
        else:
            objects = content
    return list(records.values()) if name in _LISTS else objects

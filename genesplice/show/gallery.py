"""Reports of a whole run: rendered from its executed notebooks, and copied to where people look."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genesplice.show.report import IndexEntry, read_headline, render_index, render_notebook
from genesplice.show.runs import iter_runs, read_manifest, save_manifest


def render_run(run_dir: Path, out: Path | None = None) -> Path:
    """Write the reports and the index of a run again, from its executed notebooks.

    With `out`, its `index.html` and reports are replaced by this run's; reports of notebooks that
    this run did not include stay, and are listed with the run they came from.

    Returns
    -------
    Path
        The index: the one in `out` if that is given.
    """
    manifest = read_manifest(run_dir)
    entries = []
    for record in manifest["notebooks"]:
        executed, report = (run_dir / f"{record['stem']}{suffix}" for suffix in (".ipynb", ".html"))
        if executed.exists() and record["state"] != "not run":
            render_notebook(executed, report, title=record["title"], run=run_dir.name)
            record["headline"] = read_headline(executed)
        entries.append(_entry(record, report if report.exists() else None))
    save_manifest(run_dir, manifest)
    index, lead = run_dir / "index.html", _answer(run_dir)
    render_index(index, entries, manifest, run_dir.name, lead=lead)
    if out is None:
        return index
    for entry in entries:
        if entry.href:
            shutil.copyfile(run_dir / entry.href, out / entry.href)
        else:
            (out / f"{entry.record['stem']}.html").unlink(missing_ok=True)
    listed = _with_older(entries, out, run_dir)
    render_index(out / "index.html", listed, manifest, run_dir.name, lead=lead)
    return out / "index.html"


def _answer(run_dir: Path) -> list[str]:
    """The sentence of the run's context verdict, where it has one."""
    path = run_dir / "verdict" / "verdict.json"
    if not path.exists():
        return []
    return [str(json.loads(path.read_text(encoding="utf-8"))["sentence"])]


def _entry(record: Mapping[str, Any], report: Path | None, older: str | None = None) -> IndexEntry:
    return IndexEntry(record, report.name if report else None, older)


def _with_older(entries: Sequence[IndexEntry], out: Path, run_dir: Path) -> list[IndexEntry]:
    """Add the notebooks that only earlier runs included and whose report still lies in `out`."""
    found = {entry.record["stem"]: entry for entry in entries}
    for directory, manifest in iter_runs(out):
        for record in manifest["notebooks"]:
            report = out / f"{record['stem']}.html"
            if record["stem"] not in found and report.exists() and directory != run_dir:
                found[record["stem"]] = _entry(record, report, older=directory.name)
    return [found[name] for name in sorted(found)]

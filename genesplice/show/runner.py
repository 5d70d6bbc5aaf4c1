"""Notebooks run in order, each into a report; the run can be read, resumed and published."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from genesplice.errors import InputError
from genesplice.show.execution import Failure
from genesplice.show.gallery import render_run
from genesplice.show.literals import Value
from genesplice.show.parameters import (
    NotebookInfo,
    ParameterInfo,
    check_parameters,
    list_notebooks,
    select_notebook,
)
from genesplice.show.progress import Progress, make_progress
from genesplice.show.runs import (
    Manifest,
    expected_seconds,
    find_run,
    first_to_run,
    make_manifest,
    make_run_directory,
    publish_results,
    read_manifest,
    save_manifest,
)
from genesplice.show.session import RunResult, Session, check_all, fill_parameters, spell_options
from genesplice.show.sweep import sweep_notebook

__all__ = [
    "Failure",
    "NotebookInfo",
    "ParameterInfo",
    "RunResult",
    "check_parameters",
    "find_run",
    "list_notebooks",
    "make_progress",
    "publish_results",
    "render_run",
    "run_notebooks",
    "sweep_notebook",
]


def run_notebooks(
    folder: Path,
    out: Path = Path("reports"),
    preset: str | None = None,
    *,
    only: str | None = None,
    parameters: Mapping[str, str] | None = None,
    resume: str | None = None,
    provided: Mapping[str, Value] | None = None,
    cwd: Path | None = None,
    progress: Progress | None = None,
    cell_timeout_s: int | None = None,
) -> RunResult:
    """Run the notebooks of `folder` in order, up to the first that fails, and render them.

    A new run gets `out/runs/<time>-<preset>/`; `out/index.html` and `out/<stem>.html` are copies
    of the latest reports.

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
    provided
        Values such as `data_dir` for the notebooks that declare them; the others go without.
    cwd
        The folder the kernels work in; None is the parent of `folder`.
    cell_timeout_s
        Seconds any one cell may take; None for no limit.

    Raises
    ------
    InputError
        For an unknown or mistyped parameter, notebook or run; nothing has run then.
    """
    notebooks = list_notebooks(folder)
    selected = [select_notebook(notebooks, only)] if only else notebooks
    run_dir = find_run(out, resume) if resume else None
    if run_dir:
        before = read_manifest(run_dir)
        _check_resumed(before, preset, parameters, run_dir)
        given, preset = before["given"], before["preset"]
        provided = {**before["provided"], **(provided or {})}
        scope = selected if only else notebooks
        known = {name for notebook in scope for name in notebook.parameters}
        typed = check_all(scope, {k: v for k, v in given.items() if k in known}, preset)
        start = 0 if only else first_to_run(before, notebooks)
    else:
        before, start = None, 0
        given, preset, provided = dict(parameters or {}), preset or "quick", provided or {}
        typed = check_all(selected, given, preset)
        run_dir = make_run_directory(out / "runs", preset)
    values = {
        notebook.stem: fill_parameters(notebook, typed[notebook.stem], preset, run_dir, provided)
        for notebook in selected
    }
    manifest = make_manifest(
        run_dir,
        {notebook.stem: notebook for notebook in selected},
        values,
        kind="run",
        command=_spell_command(preset, only, given),
        preset=preset,
        given=given,
        provided=provided,
    )
    if before:
        _keep_done(manifest, before, selected[:start], only is not None)
    save_manifest(run_dir, manifest)

    teller = progress or make_progress()
    session = Session(run_dir, manifest, teller, cwd or folder.resolve().parent, cell_timeout_s)
    teller.start([notebook.stem for notebook in selected[start:]], expected_seconds(out, preset))
    if start:
        going_on = selected[start].stem if start < len(selected) else "the reports"
        teller.note(f"{run_dir.name}: {start} done before, going on at {going_on}")
    failures = []
    try:
        for notebook in selected[start:]:
            if failure := session.execute(notebook.stem, notebook, values[notebook.stem]):
                failures.append(failure)
                break
    finally:
        teller.stop()
    return session.result(render_run(run_dir, out), failures)


def _check_resumed(
    before: Manifest, preset: str | None, parameters: Mapping[str, str] | None, run_dir: Path
) -> None:
    if before["kind"] != "run":
        raise InputError(f"a {before['kind']}", "a run, which can be resumed", path=run_dir)
    if preset is not None and preset != before["preset"]:
        raise InputError(
            f"--preset {preset}", f"{before['preset']}, with which {run_dir.name} began"
        )
    for name, value in (parameters or {}).items():
        if before["given"].get(name) != value:
            began = before["given"].get(name, "nothing")
            raise InputError(f"-p {name}={value}", f"{began}, with which {run_dir.name} began")


def _keep_done(
    manifest: Manifest, before: Manifest, done: Sequence[NotebookInfo], only: bool
) -> None:
    """Carry over from `before` what a resumed run does not do again."""
    manifest["started"] = before["started"]
    old = {record["stem"]: record for record in before["notebooks"]}
    if only:
        new = {record["stem"]: record for record in manifest["notebooks"]}
        merged = old | new
        manifest["notebooks"] = [merged[stem] for stem in sorted(merged)]
        manifest["command"] = before["command"]
        return
    kept = {notebook.stem for notebook in done}
    manifest["notebooks"] = [
        old[record["stem"]] if record["stem"] in kept else record
        for record in manifest["notebooks"]
    ]


def _spell_command(preset: str, only: str | None, given: Mapping[str, str]) -> str:
    words = ["genesplice", "run", "--preset", preset, *(["--only", only] if only else [])]
    return shlex.join([*words, *spell_options(given)])

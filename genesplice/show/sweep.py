"""One notebook over every combination of some parameters."""

import itertools
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from genesplice.errors import InputError
from genesplice.show.gallery import render_run
from genesplice.show.literals import Value
from genesplice.show.parameters import list_notebooks, select_notebook
from genesplice.show.progress import Progress, make_progress
from genesplice.show.runs import make_manifest, make_run_directory
from genesplice.show.session import RunResult, Session, check_all, fill_parameters, spell_options


def sweep_notebook(
    notebook: Path,
    grid: Mapping[str, str],
    out: Path = Path("reports"),
    preset: str | None = None,
    *,
    provided: Mapping[str, Value] | None = None,
    cwd: Path | None = None,
    progress: Progress | None = None,
    cell_timeout_s: int | None = None,
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
    preset, provided = preset or "quick", provided or {}
    axes = [[(name, value) for value in values.split(",")] for name, values in grid.items()]
    if not axes:
        raise InputError("no parameter", "at least one, -p name=value,value")
    combinations = [dict(combination) for combination in itertools.product(*axes)]
    typed = [check_all([info], given, preset)[info.stem] for given in combinations]
    sweep_dir = make_run_directory(out / "sweeps", info.stem)
    width = len(str(len(combinations)))
    names = [
        "-".join([f"{number:0{width}}", *(f"{key}={value}" for key, value in given.items())])
        for number, given in enumerate(combinations, 1)
    ]
    names = [re.sub(r"[^\w.=+-]+", "_", name)[:80] for name in names]
    values = {
        name: fill_parameters(info, one, preset, sweep_dir / name, provided)
        for name, one in zip(names, typed, strict=True)
    }
    manifest = make_manifest(
        sweep_dir,
        dict.fromkeys(names, info),
        values,
        kind="sweep",
        command=shlex.join(
            ["genesplice", "sweep", notebook.name, *spell_options(grid), "--preset", preset]
        ),
        preset=preset,
        given=grid,
        provided=provided,
    )
    teller = progress or make_progress()
    folder = cwd or notebook.resolve().parent.parent
    session = Session(sweep_dir, manifest, teller, folder, cell_timeout_s)
    teller.start(names, {})
    failures = []
    try:
        for name in names:
            (sweep_dir / name).mkdir()
            if failure := session.execute(name, info, values[name]):
                failures.append(failure)
                if failure.kind == "interrupted":
                    break
    finally:
        teller.stop()
    return session.result(render_run(sweep_dir), failures)

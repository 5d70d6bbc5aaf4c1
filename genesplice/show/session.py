"""What runs and sweeps share: one notebook executed and recorded at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from genesplice.runtime import file_sha256
from genesplice.show.execution import Failure, execute_notebook
from genesplice.show.literals import Value
from genesplice.show.parameters import NotebookInfo, check_parameters
from genesplice.show.progress import Progress
from genesplice.show.report import read_headline
from genesplice.show.runs import Manifest, save_manifest

_RESERVED = {
    "preset": "--preset",
    "run_dir": "no value: every run has a folder of its own",
}


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


@dataclass
class Session:
    """A run under way: its folder, its manifest, and where it tells how it goes."""

    run_dir: Path
    manifest: Manifest
    teller: Progress
    cwd: Path
    cell_timeout_s: int | None = None

    def execute(
        self, name: str, notebook: NotebookInfo, values: Mapping[str, Value]
    ) -> Failure | None:
        """Execute one notebook as `run_dir/<name>.ipynb` and keep the manifest in step."""
        record = next(one for one in self.manifest["notebooks"] if one["stem"] == name)
        record |= {"state": "running", "sha256": file_sha256(notebook.path)}
        save_manifest(self.run_dir, self.manifest)
        self.teller.notebook(name, notebook.n_cells + bool(values))
        executed = self.run_dir / f"{name}.ipynb"
        execution = execute_notebook(
            notebook,
            executed,
            values,
            cwd=self.cwd,
            on_cell=self.teller.cell,
            cell_timeout_s=self.cell_timeout_s,
        )
        failure = execution.failure
        failure = failure._replace(notebook=name) if failure else None
        record |= {
            "state": execution.state,
            "seconds": execution.seconds,
            "message": str(failure) if failure else None,
            "headline": read_headline(executed),
        }
        save_manifest(self.run_dir, self.manifest)
        self.teller.end_notebook(execution.state, execution.seconds)
        return failure

    def result(self, page: Path, failures: Sequence[Failure]) -> RunResult:
        """Name the reports that lie beside `page`."""
        names = [f"{record['stem']}.html" for record in self.manifest["notebooks"]]
        reports = (page.parent / name for name in names if (self.run_dir / name).exists())
        return RunResult(self.run_dir, page, tuple(reports), tuple(failures))


def check_all(
    notebooks: Sequence[NotebookInfo], given: Mapping[str, str], preset: str
) -> dict[str, dict[str, Value]]:
    """Check what was typed, and that every notebook that has a preset knows this one.

    Raises
    ------
    InputError
        For an unknown or mistyped parameter, and for one that is set in another way.
    """
    for notebook in notebooks:
        if "preset" in notebook.parameters:
            check_parameters([notebook], {"preset": preset})
    return check_parameters(notebooks, given, _RESERVED)


def fill_parameters(
    notebook: NotebookInfo,
    typed: Mapping[str, Value],
    preset: str,
    run_dir: Path,
    provided: Mapping[str, Value],
) -> dict[str, Value]:
    """Give what a notebook is run with: what it declares of preset, run_dir and `provided`."""
    offered = {"preset": preset, "run_dir": str(run_dir.resolve()), **provided}
    return {k: v for k, v in offered.items() if k in notebook.parameters} | dict(typed)


def spell_options(given: Mapping[str, str]) -> list[str]:
    """Write parameters the way they are typed: `-p seed=3`."""
    return [word for name, value in given.items() for word in ("-p", f"{name}={value}")]

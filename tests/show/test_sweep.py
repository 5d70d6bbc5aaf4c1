"""Sweeps: every combination once, in a folder of its own, whatever the others do."""

import io
import json
from pathlib import Path

import pytest
from tiny_notebooks import code, md, write_notebook

from genesplice.errors import InputError
from genesplice.show.execution import Progress
from genesplice.show.runner import read_manifest, sweep_notebook

pytestmark = pytest.mark.slow


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return write_notebook(
        tmp_path / "notebooks" / "02_try.ipynb",
        md("# Try"),
        code('seed: int = 0\nmode: str = "a"\nrun_dir: str = ""', "parameters"),
        code("from pathlib import Path\nassert seed != 2, 'two is bad'"),
        code("Path(run_dir, 'made.txt').write_text(f'{seed}{mode}')"),
    )


def test_every_combination_runs_once_and_a_failure_stops_none(notebook: Path) -> None:
    out = notebook.parent.parent / "reports"
    stream = io.StringIO()
    result = sweep_notebook(
        notebook, {"seed": "1,2", "mode": "x/y,z"}, out, progress=Progress(stream)
    )
    names = ["1-seed=1-mode=x_y", "2-seed=1-mode=z", "3-seed=2-mode=x_y", "4-seed=2-mode=z"]
    manifest = read_manifest(result.run_dir)
    assert [record["stem"] for record in manifest["notebooks"]] == names
    assert [record["state"] for record in manifest["notebooks"]] == ["done"] * 2 + ["failed"] * 2
    assert manifest["kind"] == "sweep"
    assert manifest["command"] == (
        "genesplice sweep 02_try.ipynb --preset quick -p seed=1,2 -p mode=x/y,z"
    )
    assert (result.run_dir / names[0] / "made.txt").read_text() == "1x/y"
    assert (result.run_dir / names[1] / "made.txt").read_text() == "1z"
    assert result.exit_code == 1
    assert [failure.notebook for failure in result.failures] == names[2:]
    assert "two is bad" in result.failures[0].message
    assert result.page == result.run_dir / "index.html"
    assert len(result.reports) == 4
    assert result.page.read_text().count("<h2><a href=") == 4
    assert not (out / "index.html").exists()
    assert "[4/4] 4-seed=2-mode=z: failed" in stream.getvalue()
    json.dumps(manifest)


def test_failures_are_told_in_the_order_of_the_runs_whichever_ended_first(tmp_path: Path) -> None:
    slow_first = write_notebook(
        tmp_path / "notebooks" / "02_try.ipynb",
        md("# Try"),
        code('wait: float = 0\nrun_dir: str = ""', "parameters"),
        code("import time\ntime.sleep(wait)\nassert False, f'waited {wait}'"),
    )
    result = sweep_notebook(
        slow_first, {"wait": "6,0"}, tmp_path / "reports", progress=Progress(io.StringIO())
    )
    names = ["1-wait=6", "2-wait=0"]
    assert [record["stem"] for record in read_manifest(result.run_dir)["notebooks"]] == names
    assert [failure.notebook for failure in result.failures] == names
    assert [failure.kind for failure in result.failures] == ["AssertionError"] * 2


def test_wrong_values_are_refused_before_anything_runs(notebook: Path) -> None:
    for grid, match in (
        ({"seed": "1,x"}, "seed = 'x', expected int"),
        ({"seeed": "1"}, "did you mean 'seed'"),
        ({}, "no parameter, expected at least one"),
        ({"run_dir": "a,b"}, "every run has a folder of its own"),
    ):
        with pytest.raises(InputError, match=match):
            sweep_notebook(notebook, grid, notebook.parent / "reports")
    with pytest.raises(InputError, match=r"notebook .09"):
        sweep_notebook(notebook.with_name("09.ipynb"), {"seed": "1"}, notebook.parent / "reports")
    assert not (notebook.parent / "reports").exists()

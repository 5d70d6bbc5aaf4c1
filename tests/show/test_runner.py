"""Runs of real kernels: order, failure, resume, and what lies on disk afterwards."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from tiny_notebooks import code, md, write_notebook

from genesplice.errors import InputError
from genesplice.runtime import say_seconds
from genesplice.show.execution import Progress
from genesplice.show.runner import read_manifest, run_notebooks

pytestmark = pytest.mark.slow


def run(folder: Path, **options):
    stream = io.StringIO()
    result = run_notebooks(
        folder, folder.parent / "reports", progress=Progress(stream, 0.0), **options
    )
    return result, stream.getvalue()


def printed(path: Path) -> str:
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def states(run_dir: Path) -> list[str]:
    return [record["state"] for record in read_manifest(run_dir)["notebooks"]]


def test_a_notebook_has_its_name_when_it_is_over(tmp_path: Path) -> None:
    look = (
        "from pathlib import Path\nprint(sorted(one.name for one in Path(run_dir).glob('*.ipynb')))"
    )
    folder = tmp_path / "notebooks"
    write_notebook(folder / "01_a.ipynb", code('run_dir: str = ""', "parameters"), code(look))
    write_notebook(folder / "02_b.ipynb", code('run_dir: str = ""', "parameters"), code(look))
    result, _ = run(folder, at_once=1)
    seen = [printed(result.run_dir / f"{stem}.ipynb") for stem in ("01_a", "02_b")]
    assert "'01_a.ipynb'" not in seen[0]
    assert "'02_b.ipynb'" not in seen[1]
    assert "'01_a.ipynb'" in seen[1]
    assert sorted(one.name for one in result.run_dir.glob(".*")) == []


def test_notebooks_run_in_order_with_what_they_declare(folder: Path) -> None:
    result, told = run(folder, parameters={"seed": "3", "scale": "2", "data_dir": "data/x"})
    assert result.exit_code == 0
    assert result.failures == ()
    assert states(result.run_dir) == ["done", "done", "done"]
    assert printed(result.run_dir / "03_third.ipynb") == f"6.0 data/x\n{folder.parent}\n"

    manifest = read_manifest(result.run_dir)
    assert manifest["command"] == (
        "genesplice run --preset quick -p seed=3 -p scale=2 -p data_dir=data/x"
    )
    assert manifest["state"] == "done"
    assert manifest["seeds"] == {"seed": 3}
    assert manifest["notebooks"][0]["parameters"] == {
        "preset": "quick",
        "seed": 3,
        "run_dir": str(result.run_dir),
    }
    assert manifest["notebooks"][2]["parameters"] == {
        "run_dir": str(result.run_dir),
        "data_dir": "data/x",
    }
    assert manifest["seconds"] == pytest.approx(
        sum(record["seconds"] for record in manifest["notebooks"]), abs=1e-3
    )

    reports = folder.parent / "reports"
    assert result.page == reports / "index.html"
    assert result.reports == tuple(
        reports / f"{stem}.html" for stem in ("01_first", "02_second", "03_third")
    )
    for stem in ("01_first", "02_second", "03_third"):
        copied = (reports / f"{stem}.html").read_bytes()
        assert copied == (result.run_dir / f"{stem}.html").read_bytes()
        assert f'href="{stem}.html"' in result.page.read_text()
    assert "[2/3] 02_second: cell 1/3" in told
    assert told.count("done in 0:0") == 3
    for report in result.reports:
        assert any(line.endswith(f": {report}") for line in told.splitlines()), told
    assert not list(folder.glob("*.html"))
    waited = manifest["clock_seconds"]
    assert 0 < waited < manifest["seconds"] + 30
    assert f"{say_seconds(waited)} on the clock" in result.page.read_text()
    again, _ = run(folder, resume="latest")
    assert read_manifest(again.run_dir)["clock_seconds"] >= waited


def test_progress_inside_a_cell_reaches_the_terminal(folder: Path) -> None:
    slow = "import sys\nprint('pretrain: step 3/9', file=sys.stderr, flush=True)"
    write_notebook(folder / "02_second.ipynb", md("# Second"), code(slow))
    _, told = run(folder)
    assert "[2/3] 02_second: pretrain: step 3/9" in told


def test_wrong_parameters_are_refused_before_anything_is_made(folder: Path) -> None:
    for given, match in (
        ({"seeed": "3"}, "unknown parameter 'seeed': did you mean 'seed'"),
        ({"seed": "three"}, "seed = 'three', expected int"),
        ({"preset": "full"}, "expected --preset"),
        ({"run_dir": "x"}, "every run has a folder of its own"),
    ):
        with pytest.raises(InputError, match=match):
            run(folder, parameters=given)
    with pytest.raises(InputError, match="notebook '07', expected one of 01_first"):
        run(folder, only="07")
    assert not (folder.parent / "reports").exists()


def test_a_failure_stops_the_run_and_resume_goes_on_there(folder: Path) -> None:
    good = (folder / "02_second.ipynb").read_bytes()
    write_notebook(
        folder / "02_second.ipynb",
        md("# Second"),
        code('run_dir: str = ""', "parameters"),
        code("print('before the fall')"),
        code("raise ValueError('shapes 3 and 4\\nand more lines')"),
        code("print('never')"),
    )
    broken, told = run(folder, parameters={"seed": "2", "data_dir": "d"})
    assert broken.exit_code == 1
    (failure,) = broken.failures
    assert (failure.cell, failure.n_cells, failure.kind) == (4, 5, "ValueError")
    assert str(failure) == "02_second, cell 4/5: ValueError: shapes 3 and 4"
    assert states(broken.run_dir) == ["done", "failed", "not run"]
    assert read_manifest(broken.run_dir)["state"] == "failed"
    assert "[2/3] 02_second: failed in" in told
    assert not (broken.run_dir / "03_third.html").exists()
    page = (broken.run_dir / "02_second.html").read_text()
    assert "This report is partial" in page
    assert "before the fall" in page
    assert "Cell 4 of 5: <strong>ValueError: shapes 3 and 4</strong>" in page

    (folder / "02_second.ipynb").write_bytes(good)
    first_report = (broken.run_dir / "01_first.ipynb").stat().st_mtime_ns
    resumed, told = run(folder, resume="latest")
    assert resumed.run_dir == broken.run_dir
    assert resumed.exit_code == 0
    assert states(resumed.run_dir) == ["done", "done", "done"]
    assert (resumed.run_dir / "01_first.ipynb").stat().st_mtime_ns == first_report
    assert printed(resumed.run_dir / "03_third.ipynb").startswith("2.0 d\n")
    assert "1 done before, going on at 02_second" in told
    assert "[2/3] 02_second: done" in told
    assert "[3/3] 03_third: done" in told
    manifest = read_manifest(resumed.run_dir)
    assert manifest["given"] == {"seed": "2", "data_dir": "d"}
    assert all(record["message"] is None for record in manifest["notebooks"])

    for wrong, match in (
        ({"preset": "full"}, "--preset full, expected quick"),
        ({"parameters": {"seed": "5"}}, "-p seed=5, expected 2"),
        ({"resume": "yesterday"}, "run 'yesterday', expected a run under"),
    ):
        with pytest.raises(InputError, match=match):
            run(folder, **{"resume": "latest", **wrong})

    notebook = nbformat.read(folder / "03_third.ipynb", as_version=4)
    notebook.cells[-1].source = "print('changed')"
    nbformat.write(notebook, folder / "03_third.ipynb")
    _, told = run(folder, resume=resumed.run_dir.name)
    assert "2 done before, going on at 03_third" in told
    assert printed(resumed.run_dir / "03_third.ipynb").endswith("changed\n")
    _, told = run(folder, resume="latest")
    assert "3 done before, going on at the reports" in told


def test_a_first_run_has_an_estimate_and_later_ones_their_own(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "notebooks" / "01_one.ipynb", md("# One"), code("1"))
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["genesplice"] = {"seconds": {"quick": 7200}}
    nbformat.write(notebook, path)
    guess = "guessed from E. coli"
    _, told = run(path.parent)
    assert guess in told
    assert "[1/1] 01_one: 1 cells, about 2:00:00 left" in told
    _, told = run(path.parent)
    assert guess not in told
    assert "about 0:0" in told
    _, told = run(path.parent, preset="standard")
    assert guess not in told, "nothing is known of this preset"


def test_index_and_reports_are_there_as_soon_as_each_notebook_is_done(folder: Path) -> None:
    """The second notebook finds the first one's report, and itself in the index."""
    source = """
from pathlib import Path
page = Path("reports", "index.html").read_text()
assert 'href="01_first.html"' in page and "✓ done" in page and "… running" in page
assert 'href="02_second.html"' not in page and "– waiting" in page
assert "First" in Path("reports", "01_first.html").read_text()
"""
    stale = folder.parent / "reports" / "02_second.html"
    stale.parent.mkdir()
    stale.write_text("of an earlier run")
    write_notebook(folder / "02_second.ipynb", md("# Second"), code(source), code("1 / 0"))
    result, _ = run(folder)
    (failure,) = result.failures
    assert failure.kind == "ZeroDivisionError"
    assert "1 / 0" in stale.read_text()


def test_only_one_notebook_keeps_the_other_reports(folder: Path) -> None:
    both = [folder / name for name in ("02_second.ipynb", "03_third.ipynb")]
    for path in both:
        path.unlink()
    write_notebook(folder / "02_more.ipynb", md("# More"), code("print('more')"))
    first, _ = run(folder)
    again, _ = run(folder, only="02")
    assert first.run_dir != again.run_dir
    assert [record["stem"] for record in read_manifest(again.run_dir)["notebooks"]] == ["02_more"]
    index = again.page.read_text()
    assert f"from run {first.run_dir.name}" in index
    assert index.index("01_first.html") < index.index("02_more.html")
    inside, _ = run(folder, only="02_more", resume=first.run_dir.name)
    assert inside.run_dir == first.run_dir
    assert states(first.run_dir) == ["done", "done"]


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "kernel died", "kernel died"),
        ("import sys\nsys.exit(3)", "SystemExit", "SystemExit: 3"),
        ("1 +", "SyntaxError", "SyntaxError: invalid syntax"),
    ],
)
def test_every_end_is_told_in_one_line(
    tmp_path: Path, source: str, kind: str, message: str
) -> None:
    folder = tmp_path / "a {curly} folder"
    write_notebook(folder / "01_bad.ipynb", md("# Bad"), code("x = 1"), code(source))
    result, _ = run(folder)
    (failure,) = result.failures
    assert (failure.kind, failure.cell, failure.n_cells) == (kind, 2, 2)
    assert message in failure.message
    assert "\n" not in str(failure)
    assert result.exit_code == 1
    assert message in (result.run_dir / "01_bad.html").read_text()


@pytest.mark.parametrize("hears", [True, False], ids=["at once", "when it is killed"])
def test_ctrl_c_leaves_a_run_that_can_be_resumed(tmp_path: Path, hears: bool) -> None:
    folder = tmp_path / "notebooks"
    marker = tmp_path / "running"
    deaf = "" if hears else "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    source = f"from pathlib import Path\nPath({str(marker)!r}).touch()\nimport time\ntime.sleep(60)"
    write_notebook(folder / "01_long.ipynb", md("# Long"), code("1"), code(deaf + source))
    script = (
        "from pathlib import Path\nfrom genesplice.show.runner import run_notebooks\n"
        f"result = run_notebooks(Path({str(folder)!r}), Path({str(tmp_path / 'reports')!r}))\n"
        "print(result.failures[0])\nraise SystemExit(result.exit_code)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 40
    while not marker.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert out.strip() == "01_long, cell 2/2: interrupted"
    assert "Traceback" not in err
    assert "Task was destroyed" not in err
    assert "Kernel died" not in err
    (run_dir,) = (tmp_path / "reports" / "runs").iterdir()
    assert read_manifest(run_dir)["state"] == "interrupted"

    write_notebook(folder / "01_long.ipynb", md("# Short"), code("print('quick now')"))
    result, _ = run(folder, resume="latest")
    assert result.exit_code == 0
    assert printed(run_dir / "01_long.ipynb") == "quick now\n"


class Stopped(Progress):
    """Ctrl-C just as the first notebook has ended, before another one begins."""

    is_stopped = False

    def end_notebook(self, *about) -> None:
        super().end_notebook(*about)
        if not self.is_stopped:
            self.is_stopped = True
            raise KeyboardInterrupt


def test_ctrl_c_between_two_notebooks_is_no_success(folder: Path) -> None:
    result = run_notebooks(
        folder, folder.parent / "reports", progress=Stopped(io.StringIO(), 0.0), at_once=1
    )
    assert result.exit_code == 130
    assert states(result.run_dir) == ["done", "interrupted", "not run"]
    assert read_manifest(result.run_dir)["state"] == "interrupted"
    again = run_notebooks(folder, folder.parent / "reports", resume="latest")
    assert (again.run_dir, again.exit_code) == (result.run_dir, 0)
    assert set(states(again.run_dir)) == {"done"}


def test_runs_are_never_overwritten(folder: Path) -> None:
    for path in folder.glob("0[23]*"):
        path.unlink()
    shutil.copy(folder / "01_first.ipynb", folder / ".hidden.ipynb")
    made = {run(folder)[0].run_dir for _ in range(2)}
    assert len(made) == 2
    assert all((path / "manifest.json").exists() for path in made)
    assert "GENESPLICE_HEADLESS" not in os.environ
    record = json.loads((made.pop() / "manifest.json").read_text())["notebooks"]
    assert [one["stem"] for one in record] == ["01_first"]

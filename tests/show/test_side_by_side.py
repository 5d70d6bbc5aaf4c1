"""Independent notebooks run side by side; what one needs is done before it."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from tiny_notebooks import code, md, write_notebook

from genesplice.errors import InputError
from genesplice.runtime import THREAD_VARIABLES, n_cores
from genesplice.show.execution import Progress
from genesplice.show.notebooks import Order, Task, list_notebooks, share_cores
from genesplice.show.runner import read_manifest, run_notebooks

MEET = """
import os, time
from pathlib import Path
mine, other = Path({mine!r}), Path({other!r})
mine.write_text(os.environ["OMP_NUM_THREADS"])
late = time.monotonic() + 60
while not other.exists() and time.monotonic() < late:
    time.sleep(0.02)
assert other.exists(), "nobody came"
"""


def write(folder: Path, stem: str, source: str, needs: list[str] | None) -> Path:
    path = write_notebook(folder / f"{stem}.ipynb", md(f"# {stem}"), code(source))
    if needs is not None:
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata["genesplice"] = {"needs": needs}
        nbformat.write(notebook, path)
    return path


def records(run_dir: Path) -> dict[str, dict]:
    return {record["stem"]: record for record in read_manifest(run_dir)["notebooks"]}


def test_notebooks_say_what_they_need(tmp_path: Path) -> None:
    write(tmp_path, "01_a", "1", [])
    write(tmp_path, "02_b", "1", None)
    write(tmp_path, "03_c", "1", ["01"])
    write(tmp_path, "04_d", "1", None)
    assert {one.stem: one.needs for one in list_notebooks(tmp_path)} == {
        "01_a": (),
        "02_b": ("01_a",),
        "03_c": ("01_a",),
        "04_d": ("01_a", "02_b", "03_c"),
    }
    for wrong in ("04", "0", "09"):
        path = write(tmp_path, "02_b", "1", [wrong])
        with pytest.raises(InputError, match=f"needs notebook '{wrong}', expected one of") as error:
            list_notebooks(tmp_path)
        assert str(path) in str(error.value)
        path.unlink()
        write(tmp_path, "00_z", "1", [])  # now there are two that begin with 0


def test_cores_are_shared_by_what_can_run_beside_what(tmp_path: Path) -> None:
    write(tmp_path, "01_a", "1", [])
    (notebook,) = list_notebooks(tmp_path)
    needs = {"1": (), "2": ("1",), "3": ("2",), "4": ("1",), "5": ("3", "4")}
    tasks = share_cores([Task(name, notebook, {}, needs[name]) for name in needs], 2)
    share = max(1, n_cores() // 2)
    assert [task.threads for task in tasks] == [n_cores(), share, share, share, n_cores()]
    # Nobody waits for 4 while 2 and 3 are at work, and 5 waits for it: it does not give way.
    assert not any(task.gives_way for task in tasks)
    last = share_cores([Task(name, notebook, {}, needs[name]) for name in "1234"], 2)
    assert [task.name for task in last if task.gives_way] == ["3", "4"]


@pytest.mark.slow
def test_two_meet_and_a_third_waits_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    folder, marks = tmp_path / "notebooks", [str(tmp_path / "a"), str(tmp_path / "b")]
    write(folder, "01_a", MEET.format(mine=marks[0], other=marks[1]), [])
    write(folder, "02_b", MEET.format(mine=marks[1], other=marks[0]), [])
    told = "import sys\nprint('step 3', file=sys.stderr, flush=True)\nassert 0, 'broken'"
    write(folder, "03_c", told, ["02"])
    write(folder, "04_d", "import os\nprint(os.nice(0))", ["01"])
    write(folder, "05_e", "1", ["03", "04"])
    stream = io.StringIO()
    options = {"at_once": 2, "progress": Progress(stream, 0.0)}
    here = Path.cwd()
    result = run_notebooks(folder, tmp_path / "reports", **options)
    assert Path.cwd() == here
    found = records(result.run_dir)
    states = {stem: record["state"] for stem, record in found.items()}
    assert states == {
        "01_a": "done", "02_b": "done", "03_c": "failed", "04_d": "done", "05_e": "not run"
    }  # fmt: skip
    assert (result.exit_code, [one.notebook for one in result.failures]) == (1, ["03_c"])
    assert found["05_e"]["message"] == "needs 03_c"
    assert "needs 03_c" in result.page.read_text()
    share = str(max(1, n_cores() // 2))
    assert [Path(mark).read_text() for mark in marks] == [share, share]
    lines = stream.getvalue().splitlines()
    assert "[3/5] 03_c: step 3" in lines
    began = {line[:10]: i for i, line in reversed(list(enumerate(lines)))}
    ended = {line[:10]: i for i, line in enumerate(lines) if " done in " in line}
    assert max(began["[1/5] 01_a"], began["[2/5] 02_b"]) < min(ended.values())
    assert ended["[1/5] 01_a"] < began["[4/5] 04_d"]

    before = [(result.run_dir / f"{stem}.ipynb").stat().st_mtime_ns for stem in ("01_a", "04_d")]
    write(folder, "03_c", "print('mended')", ["02"])
    stream.truncate(0)
    again = run_notebooks(folder, tmp_path / "reports", resume="latest", **options)
    assert again.exit_code == 0
    assert "3 done before, going on at 03_c" in stream.getvalue()
    after = [(result.run_dir / f"{stem}.ipynb").stat().st_mtime_ns for stem in ("01_a", "04_d")]
    assert after == before
    assert records(result.run_dir)["05_e"]["message"] is None


@pytest.mark.slow
def test_ctrl_c_ends_two_at_once_even_one_that_does_not_hear_it(tmp_path: Path) -> None:
    folder, marks = tmp_path / "notebooks", [tmp_path / "a", tmp_path / "b"]
    begun = "import os, signal, time\nfrom pathlib import Path\n"
    begun += "Path({!r}).write_text(str(os.getpid()))\n"
    deaf = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    write(folder, "01_a", begun.format(str(marks[0])) + "time.sleep(90)", [])
    write(folder, "02_b", deaf + begun.format(str(marks[1])) + "time.sleep(90)", [])
    write(folder, "03_c", "1", ["01"])
    script = (
        "from pathlib import Path\nfrom genesplice.show.runner import run_notebooks\n"
        f"result = run_notebooks(Path({str(folder)!r}), Path({str(tmp_path / 'r')!r}), at_once=2)\n"
        "print(*sorted(map(str, result.failures)), sep='\\n')\nraise SystemExit(result.exit_code)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while not all(mark.exists() and mark.read_text() for mark in marks):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    words = ["01_a, cell 1/1: interrupted", "02_b, cell 1/1: interrupted"]
    assert out.splitlines() == words
    assert "Traceback" not in err
    assert time.monotonic() - began < 45  # eight seconds for the deaf one, on a busy machine
    for mark in marks:
        with pytest.raises(ProcessLookupError):
            os.kill(int(mark.read_text()), 0)
    (run_dir,) = (tmp_path / "r" / "runs").iterdir()
    states = [record["state"] for record in records(run_dir).values()]
    assert states == ["interrupted", "interrupted", "not run"]
    assert not list(tmp_path.rglob("*.partial"))
    assert "interrupted" in (run_dir / "01_a.html").read_text()


@pytest.mark.slow
def test_published_weights_take_the_place_of_a_notebook(tmp_path: Path) -> None:
    """What only makes weights is not waited for, where those of the same genome are published."""
    folder, marks = tmp_path / "notebooks", [str(tmp_path / "a"), str(tmp_path / "b")]
    write(folder, "01_a", f"open({marks[0]!r}, 'w')", [])
    write(folder, "02_b", "assert 0, 'no weights'", ["01"])
    path = write(folder, "03_c", "1", ["01", "02"])
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["genesplice"]["replaced"] = {"quick": ["02"]}
    nbformat.write(notebook, path)
    asked = []

    def run(preset: str, answer: bool) -> dict[str, str]:
        def has_weights(task: Task) -> bool:
            asked.append((preset, task.name, Path(marks[0]).exists()))
            return answer

        result = run_notebooks(
            folder, tmp_path / "r", preset, at_once=2, has_weights=has_weights,
            progress=Progress(io.StringIO()),
        )  # fmt: skip
        return {stem: record["state"] for stem, record in records(result.run_dir).items()}

    assert run("quick", True) == {"01_a": "done", "02_b": "failed", "03_c": "done"}
    # Asked once, and when the data are there.
    assert asked == [("quick", "03_c", True)]
    assert run("quick", False) == {"01_a": "done", "02_b": "failed", "03_c": "not run"}
    assert run("standard", True) == {"01_a": "done", "02_b": "failed", "03_c": "not run"}
    assert [preset for preset, *_ in asked] == ["quick", "quick"]


def test_what_most_waits_for_begins_first(tmp_path: Path) -> None:
    write(tmp_path, "01_a", "1", [])
    (notebook,) = list_notebooks(tmp_path)
    needs = {"1": (), "2": ("1",), "3": ("1", "2"), "4": ("3",), "6": ("1",), "7": ()}
    replaced = {"3": ("2",)}
    tasks = [
        Task(name, notebook, {}, needs[name], replaced=replaced.get(name, ())) for name in needs
    ]
    states = {name: {"state": "not run"} for name in needs}
    seconds = {"1": 1.0, "2": 30.0, "3": 20.0, "4": 25.0, "6": 40.0}
    order = Order(tasks, states, lambda _: True, seconds)
    assert [task.name for task in order.ready(tasks)] == ["1", "7"]
    states["1"]["state"] = "done"
    assert [task.name for task in order.ready(tasks[1:])] == ["3", "6", "2", "7"]
    order = Order(tasks, states, None, {})
    assert [task.name for task in order.ready(tasks[1:])] == ["2", "6", "7"]
    assert order.lacking(tasks[2]) == ["2"]

"""What is told while notebooks run, on a terminal and in a log."""

import io
import re
from pathlib import Path

import pytest

from genesplice.show.execution import Failure, Progress, RunResult


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def tell(progress, expected: dict[str, float]) -> None:
    progress.start(["01_a", "02_b", "03_c"], expected)
    for name in ("01_a", "02_b", "03_c"):
        progress.notebook(name, 4)
        progress.cell(name, 1, 4)
        progress.cell(name, 2, 4)
        progress.end_notebook(name, "failed" if name == "03_c" else "done", 75.0)
    progress.note("[b]as it is[/b]")
    progress.stop()


def test_lines_say_which_notebook_which_cell_and_what_remains() -> None:
    stream = io.StringIO()
    tell(Progress(stream, every_s=0.0), {})
    assert stream.getvalue().splitlines() == [
        "[1/3] 01_a: 4 cells, 2 notebooks to come",
        "[1/3] 01_a: cell 1/4, 0:00 elapsed, 2 notebooks to come",
        "[1/3] 01_a: cell 2/4, 0:00 elapsed, 2 notebooks to come",
        "[1/3] 01_a: done in 1:15",
        "[2/3] 02_b: 4 cells, 1 notebook to come",
        "[2/3] 02_b: cell 1/4, 0:00 elapsed, 1 notebook to come",
        "[2/3] 02_b: cell 2/4, 0:00 elapsed, 1 notebook to come",
        "[2/3] 02_b: done in 1:15",
        "[3/3] 03_c: 4 cells, the last notebook",
        "[3/3] 03_c: cell 1/4, 0:00 elapsed, the last notebook",
        "[3/3] 03_c: cell 2/4, 0:00 elapsed, the last notebook",
        "[3/3] 03_c: failed in 1:15",
        "[b]as it is[/b]",
    ]


def test_time_left_is_told_once_every_notebook_has_run_before() -> None:
    stream = io.StringIO()
    tell(Progress(stream), {"02_b": 15.0, "03_c": 30.0})
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("2 notebooks to come")
    assert lines[2].endswith("4 cells, about 0:45 left")
    assert lines[4].endswith("4 cells, about 0:54 left"), "75 s for 15 until now"
    assert not any("elapsed" in line for line in lines)


def test_a_terminal_gets_a_bar_and_a_line_for_each_notebook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    stream = Terminal()
    tell(Progress(stream), {})
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "✓ [1/3] 01_a: done in 1:15" in text
    assert "✗ [3/3] 03_c: failed in 1:15" in text
    assert "[b]as it is[/b]" in text


def test_on_80_columns_no_clock_and_no_name_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    stream, names = Terminal(), ["01_data_preparation", "02_contrastive_pretraining"]
    progress = Progress(stream)
    progress.start(names, {})
    for name in names:
        progress.notebook(name, 24)
        progress.cell(name, 12, 24)
    progress.bars.refresh()
    progress.text(names[1], "conditions: 7/24 context_512-fold0, about 1300 s to come")
    progress.stop()
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).splitlines()
    whole = re.compile(r"\[2/2\] 02_contrastive_pretraining \S* cell 12/24 0:00:0\d (.*)")
    shown = [found[1].strip() for line in lines if (found := whole.search(line))]
    assert "the last 2 notebooks" in shown
    assert "conditions: 7/24 con…" in shown
    assert all(len(line) <= 80 for line in lines)


def test_no_colour_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert not Progress(Terminal()).is_plain
    assert Progress(io.StringIO()).is_plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert Progress(Terminal()).is_plain
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert Progress(Terminal()).is_plain


def test_what_a_cell_prints_of_its_progress_is_passed_on() -> None:
    stream = io.StringIO()
    progress = Progress(stream, every_s=0.0)
    progress.start(["01_a"], {})
    progress.notebook("01_a", 2)
    progress.text("01_a", "pretrain: step 1/9\nfold 0\rfold 1\n")
    progress.text("01_a", "\n")
    assert stream.getvalue().splitlines()[1:] == ["[1/1] 01_a: fold 1"]
    slow = Progress(io.StringIO(), every_s=60.0)
    slow.start(["01_a"], {})
    slow.notebook("01_a", 2)
    slow.text("01_a", "step 1\n")
    assert "step 1" not in slow.stream.getvalue()


def test_two_at_once_are_told_apart() -> None:
    stream = io.StringIO()
    progress = Progress(stream, every_s=0.0)
    progress.start(["01_a", "02_b", "03_c"], {"01_a": 100.0, "02_b": 40.0, "03_c": 50.0}, 2)
    progress.notebook("01_a", 2)
    progress.notebook("03_c", 3)
    progress.text("03_c", "step 1\n")
    progress.cell("01_a", 1, 2)
    progress.end_notebook("03_c", "done", 50.0)
    progress.expected = {}
    progress.notebook("02_b", 1)
    assert stream.getvalue().splitlines() == [
        "[1/3] 01_a: 2 cells, about 1:40 left",
        "[3/3] 03_c: 3 cells, about 1:40 left",
        "[3/3] 03_c: step 1",
        "[1/3] 01_a: cell 1/2, 0:00 elapsed, about 1:40 left",
        "[3/3] 03_c: done in 0:50",
        "[2/3] 02_b: 1 cells, the last 2 notebooks",
    ]


def test_time_left_follows_what_notebooks_really_take(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("genesplice.show.execution.time.monotonic", lambda: clock[0])
    stream = io.StringIO()
    progress = Progress(stream, every_s=0.0)
    progress.start(["01_a", "02_b", "03_c"], {"01_a": 100.0, "02_b": 100.0, "03_c": 50.0})
    progress.notebook("01_a", 2)
    clock[0] = 200.0
    progress.end_notebook("01_a", "done", 200.0)
    progress.notebook("02_b", 2)  # about half as fast as was guessed: 260 for 160
    clock[0] = 500.0
    progress.cell("02_b", 2, 2)  # a third as fast: 150 s for what is to come
    failure = Failure("02_b", 2, 2, "ValueError", "ValueError: no such gene")
    progress.end_notebook("02_b", "failed", 300.0, failure)
    progress.notebook("03_c", 1)
    clock[0] = 650.0
    progress.cell("03_c", 1, 1)
    assert stream.getvalue().splitlines() == [
        "[1/3] 01_a: 2 cells, about 4:10 left",
        "[1/3] 01_a: done in 3:20",
        "[2/3] 02_b: 2 cells, about 4:04 left",
        "[2/3] 02_b: cell 2/2, 5:00 elapsed, about 2:30 left",
        "[2/3] 02_b: failed in 5:00 (ValueError: no such gene)",
        "[3/3] 03_c: 1 cells, about 1:21 left",
        "[3/3] 03_c: cell 1/1, 2:30 elapsed, longer than guessed",
    ]


def test_numbers_are_those_of_the_whole_run_after_a_resume() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.start(["01_a", "02_b", "03_c"], {}, done={"01_a"})
    progress.notebook("02_b", 4)
    assert stream.getvalue() == "[2/3] 02_b: 4 cells, 1 notebook to come\n"


def test_what_is_said_again_is_what_runs_not_what_has_ended() -> None:
    progress = Progress(io.StringIO(), every_s=60.0)
    progress.start(["01_a", "02_b", "03_c"], {}, 3)
    assert progress.still() == ""
    for name in ("01_a", "02_b", "03_c"):
        progress.notebook(name, 4)
    assert progress.still() == "[3/3] 03_c: begins"
    progress.cell("01_a", 2, 4)
    progress.text("02_b", "step 1\nstep 2\n")
    assert progress.still() == "[2/3] 02_b: step 2"
    progress.end_notebook("02_b", "done", 5.0)
    assert progress.still() == "[1/3] 01_a: cell 2/4"


def test_exit_codes_of_runs_are_those_of_commands() -> None:
    wrong, broken = (Failure("01_a", 1, 2, kind, "x") for kind in ("InputError", "ValueError"))
    stopped = Failure("02_b", 1, 2, "interrupted", "interrupted")
    codes = {(): 0, (wrong,): 2, (wrong, broken): 1, (broken,): 1, (wrong, stopped): 130}
    for failures, code in codes.items():
        assert RunResult(Path(), Path(), (), failures).exit_code == code

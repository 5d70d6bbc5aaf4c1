"""Every command and every path that it takes: what is wrong is refused at once, nothing lost."""

import inspect
import typing
from pathlib import Path

import pytest
import typer
from command_line import call, refuse

from genesplice import cli
from genesplice.cli.stages import shared
from genesplice.runtime import require_folder

Option = tuple[list[str], str, typing.Any]
"""The words of a command, how it names the option (nothing: by position), and its callback."""


def options(group: typer.Typer, *before: str) -> list[Option]:
    """All options and arguments of the commands of a group whose values are paths."""
    found: list[Option] = []
    for command in group.registered_commands:
        assert command.callback is not None
        words = [*before, command.name or command.callback.__name__]
        hints = typing.get_type_hints(command.callback, include_extras=True)
        for name in inspect.signature(command.callback).parameters:
            kind, about = hints[name].__origin__, hints[name].__metadata__[0]
            if "Path" not in str(kind):
                continue
            # Typer has a name that was given without a default in the default's place.
            flag = about.default if str(about.default).startswith("--") else ""
            is_argument = isinstance(about, typer.models.ArgumentInfo)
            flag = "" if is_argument else flag or f"--{name.replace('_', '-')}"
            found.append((words, flag, about.callback))
    return found


ALL = [*options(cli.app), *options(shared, "bundle")]
WRITES = (cli.claim, cli.claim_folder, cli.claim_file, cli.claim_run, require_folder)


def those(*callbacks: typing.Any) -> typing.Any:
    chosen = [one for one in ALL if one[2] in callbacks]
    return pytest.mark.parametrize(
        ("words", "flag"), [one[:2] for one in chosen], ids=[" ".join(one[0]) for one in chosen]
    )


def say(words: list[str], flag: str, path: Path, *more: str) -> list[str]:
    """A command line with that path, first of all options, and nothing else that it needs."""
    given = [flag, str(path)] if flag else ["data"] * (words[0] == "bundle") + [str(path)]
    return [*words, *given, *more]


def test_every_command_that_writes_is_here():
    written = {" ".join(words) for words, _, callback in ALL if callback in WRITES}
    assert written == {
        "prepare", "bundle export", "bundle open", "baselines", "pretrain", "finetune", "predict",
        "verdict", "controls", "explain", "variants", "scan", "design", "task", "run", "sweep",
        "report",
    }  # fmt: skip


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with a file, neither of which any command may touch."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    return tmp_path / "mine"


def is_untouched(mine: Path) -> bool:
    (left,) = mine.iterdir()
    return left.read_text() == "mine" and list(mine.parent.iterdir()) == [mine]


@those(cli.claim_folder)
def test_a_folder_of_yours_is_never_written_to(words, flag, mine):
    line = refuse(*say(words, flag, mine))
    assert f"{mine} exists and is not empty, expected a new folder (or --overwrite)" in line
    line = refuse(*say(words, flag, mine, "--overwrite"))
    assert f"{mine} exists, and genesplice did not write it" in line
    assert is_untouched(mine)


@those(cli.claim_run)
def test_a_folder_is_gone_on_with_only_where_that_is_asked_for(words, flag, mine):
    line = refuse(*say(words, flag, mine))
    assert f"{mine} exists and is not empty, expected a new folder, or --resume" in line
    assert is_untouched(mine)


def test_controls_go_on_in_folders_of_controls_alone(mine):
    assert f"{mine} without a folder of any seed" in refuse("controls", "--out", mine)
    assert is_untouched(mine)


@those(cli.claim_file)
def test_a_file_of_yours_is_replaced_only_where_that_is_asked_for(words, flag, mine):
    line = refuse(*say(words, flag, mine / "thesis.tex"))
    assert "thesis.tex exists, expected a new file (or --overwrite)" in line
    for more in ([], ["--overwrite"]):
        line = refuse(*say(words, flag, mine, *more))
        assert f"{mine} is a folder, expected a file to write" in line
    assert is_untouched(mine)


@those(*WRITES)
def test_nothing_is_written_in_a_file(words, flag, mine):
    line = refuse(*say(words, flag, mine / "thesis.tex" / "out"))
    assert "thesis.tex is a file, expected a folder to write to" in line
    if ([*words], flag) not in [one[:2] for one in ALL if one[2] == cli.claim_file]:
        line = refuse(*say(words, flag, mine / "thesis.tex"))
        assert "thesis.tex is a file, expected a folder to write to" in line
    assert is_untouched(mine)


# --- what is read ---

OTHERS = [one[:2] for one in ALL if one[2] not in WRITES]
NEEDED = {"--out": "out", "--data": "none", "--model": "none", "--region": "all", "--genes": "all",
          "--gene": "lacZ", "--towards": "up", "--table": "none"}  # fmt: skip
"""Of data, models and tables there are none: what is refused is one of them."""


@pytest.mark.parametrize(("words", "flag"), OTHERS, ids=[" ".join(one) for one, _ in OTHERS])
def test_what_is_not_there_is_refused_in_one_line(words, flag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    command = cli.typer.main.get_command(cli.app)
    for word in words:
        command = command.commands[word]
    known = {name for one in command.params for name in one.opts}
    more = [word for name in NEEDED.keys() & known - {flag} for word in (name, NEEDED[name])]
    if words[-1] == "controls" or flag == "--controls":
        path = tmp_path / "notes.txt"  # a folder that may be new
    else:
        path = Path("nowhere")
    given = [flag, path] if flag else [path, "out"][: 1 + (words[-1] in ("export", "open"))]
    answer = call(*words, *given, *more, *["-p", "seed=1"][: 2 * (words == ["sweep"])])
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("genesplice: ")
    assert answer.err.count("\n") == 1
    assert [one.name for one in tmp_path.iterdir()] == ["notes.txt"]


CHECKED = [one[:2] for one in ALL if one[2] is not None and one[2] not in WRITES]


@pytest.mark.parametrize(("words", "flag"), CHECKED, ids=[f"{a[0]} {b}" for a, b in CHECKED])
def test_files_are_looked_for_before_anything_else(words, flag, tmp_path):
    path = tmp_path / "nowhere"
    assert f"{path}: found no such file, expected a file" in refuse(*words, flag, path)
    path.mkdir()
    if flag not in ("--expression", "--relatives", "--table"):
        assert f"{path}: found a folder, expected a file" in refuse(*words, flag, path)


def test_both_files_of_a_track_are_looked_for(tmp_path):
    (tmp_path / "plus.bw").touch()
    line = refuse("prepare", "--tracks", f"{tmp_path / 'plus.bw'},{tmp_path / 'minus.bw'}")
    assert line.endswith("minus.bw: found no such file, expected a file")

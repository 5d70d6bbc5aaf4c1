"""Every command and every path that it takes: what is wrong is refused at once, nothing lost."""

import inspect
import typing
from pathlib import Path

import pytest
import typer
from command_line import refuse

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
            flags = about.param_decls or [f"--{name.replace('_', '-')}"]
            is_argument = isinstance(about, typer.models.ArgumentInfo)
            found.append((words, "" if is_argument else flags[0], about.callback))
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

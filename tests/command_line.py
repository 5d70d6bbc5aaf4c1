"""The command line, called in the process of the tests."""

import contextlib
import io
import sys
from pathlib import Path
from typing import NamedTuple

from genesplice.cli import main


class Answer(NamedTuple):
    code: int
    out: str
    err: str


def call(*words: str | Path) -> Answer:
    """What `genesplice WORDS` does, in this process."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["genesplice", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = before
    return Answer(code, out.getvalue(), err.getvalue())


def succeed(*words: str | Path) -> Answer:
    answer = call(*words)
    assert answer.code == 0, answer.err
    return answer


def refuse(*words: str | Path) -> str:
    """The one line with which a wrong call is answered, after what was opened for it."""
    answer = call(*words)
    assert answer.code == 2, answer.err
    assert answer.out == ""
    *told, line = answer.err.splitlines()
    assert all(said.startswith(f"{words[0]}: ") for said in told), told
    assert line.startswith("genesplice: ")
    return line

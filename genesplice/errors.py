"""What goes wrong, in one line each. The command line turns these into exit codes."""

import difflib
from collections.abc import Iterable
from pathlib import Path


def printable(text: str) -> str:
    r"""Write what cannot be printed as its code: a line end as \n, a direction as \u202e."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


class GeneSpliceError(Exception):
    """Base of every error that GeneSplice raises on purpose."""

    exit_code = 1


class InputError(GeneSpliceError, ValueError):
    """Input or usage that cannot be accepted (exit code 2).

    Parameters
    ----------
    found, expected
        What was read, and what would have been accepted.
    path, line
        Where it was found; `line` counts from 1.

    What cannot be printed (control characters, marks of direction) is written as its code: the
    message is one line, whatever a file holds, and moves no cursor.
    """

    exit_code = 2

    def __init__(
        self,
        found: str,
        expected: str | None = None,
        *,
        path: str | Path | None = None,
        line: int | None = None,
    ) -> None:
        found, expected = printable(found), expected and printable(expected)
        self.found, self.expected, self.path, self.line = found, expected, path, line
        where = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        what = found if expected is None else f"found {found}, expected {expected}"
        super().__init__(printable(where) + what)


class WorkError(GeneSpliceError, RuntimeError):
    """The input was fine and the work failed all the same (exit code 1)."""


def require(
    is_fine: object,
    found: str,
    expected: str,
    path: str | Path | None = None,
    line: int | None = None,
) -> None:
    """Raise an InputError unless it is fine."""
    if not is_fine:
        raise InputError(found, expected, path=path, line=line)


def did_you_mean(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """`did you mean 'x'?`, whatever the case; else `otherwise`, or the list of what there is."""
    written = {one.lower(): one for one in sorted(known)}
    for close in difflib.get_close_matches(name.lower(), written, n=1):
        return f"did you mean '{written[close]}'?"
    return f"there are: {', '.join(written.values())}" if otherwise is None else otherwise

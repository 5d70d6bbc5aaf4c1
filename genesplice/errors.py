"""What goes wrong, in one line each. The command line turns these into exit codes."""

from pathlib import Path


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
        self.found, self.expected, self.path, self.line = found, expected, path, line
        where = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        what = found if expected is None else f"found {found}, expected {expected}"
        super().__init__(where + what)


class WorkError(GeneSpliceError, RuntimeError):
    """The input was fine and the work failed all the same (exit code 1)."""


def require(is_fine: object, found: str, expected: str, path: str | Path | None = None) -> None:
    """Raise an InputError unless it is fine."""
    if not is_fine:
        raise InputError(found, expected, path=path)

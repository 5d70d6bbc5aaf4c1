"""Checks that every settings class makes, and what a misspelt name may have meant."""

import difflib
from collections.abc import Iterable
from typing import Any

from genesplice.errors import InputError

BIN_SIZES_BP = (4, 8, 16, 32, 128)
SUMMARY_BP = 128
REGION_BP = 1024


def require(condition: bool, found: str, expected: str) -> None:
    """Raise `InputError` unless `condition`."""
    if not condition:
        raise InputError(found, expected)


def require_least(section: str, part: Any, lowest: int, *names: str) -> None:
    """Each of `names` must be at least `lowest`."""
    for name in names:
        value = getattr(part, name)
        require(value >= lowest, f"{section}.{name} {value}", f"at least {lowest}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the list of what there is."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(known)}"

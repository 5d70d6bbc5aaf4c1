"""Opening what users bring: text, plain or compressed, and tables with a header.

Everything that goes wrong here is an `InputError` that names the file, and the line where one
is to blame.
"""

import csv
import gzip
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import pandas as pd

from genesplice.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t", ".tab": "\t"}


def plain_suffix(path: Path) -> str:
    """Give the suffix that says what a file is, compression aside: `x.tsv.gz` is `.tsv`."""
    suffixes = [s.lower() for s in path.suffixes]
    while suffixes and suffixes[-1] in {".gz", ".bgz"}:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@contextmanager
def open_input(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for reading bytes, decompressing gzip and bgzip by their first two bytes.

    Raises
    ------
    InputError
        If there is no such file, it is a folder, it is empty, or the compressed stream is cut
        short or damaged (also while the body of the `with` reads from it).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("a folder" if path.is_dir() else "no such file", "a file", path=path)
    with path.open("rb") as probe:
        magic = probe.read(2)
    if not magic:
        raise InputError("an empty file", "data", path=path)
    try:
        with gzip.open(path, "rb") if magic == GZIP_MAGIC else path.open("rb") as handle:
            yield cast(BinaryIO, handle)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            "a truncated or damaged gzip stream", "a complete file", path=path
        ) from error


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line number (from 1) and text, without the line end; UTF-8, any line end.

    Raises
    ------
    InputError
        As `open_input`, and for bytes that are not UTF-8.
    """
    with open_input(path) as handle:
        for number, raw in enumerate(handle, start=1):
            try:
                yield number, raw.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise InputError(
                    "bytes that are not UTF-8", "text", path=path, line=number
                ) from None


def read_table(path: Path, *, dtype: type | None = str) -> pd.DataFrame:
    """Read a TSV, CSV (either may be gzipped) or Parquet table with a header line.

    Parameters
    ----------
    dtype
        `str` keeps every cell as text (empty cells are ""); None lets pandas decide.

    Raises
    ------
    InputError
        As `open_input`; for a suffix that names no table format, a header without a second
        column or with a name twice, rows of another width, or no rows.
    """
    path = Path(path)
    suffix = plain_suffix(path)
    if suffix in {".parquet", ".pq"}:
        table = _read_parquet(path)
        if dtype is str:
            table = table.astype(object).where(table.notna(), "").astype(str)
    elif suffix in SEPARATORS:
        _check_header(path, SEPARATORS[suffix])
        table = _read_text(path, SEPARATORS[suffix], dtype)
    else:
        raise InputError(
            f"a name ending in {suffix or 'nothing'}", ".tsv, .csv or .parquet", path=path
        )
    if table.empty:
        raise InputError("a header and no rows", "at least one row", path=path)
    return table


def _read_parquet(path: Path) -> pd.DataFrame:
    with open_input(path):
        pass
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Parquet table ({_first_line(error)})", "Parquet", path=path
        ) from error
    if table.index.name is not None or not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index()
    return table


def _check_header(path: Path, separator: str) -> None:
    _, header = next(numbered_lines(path))
    cells = [cell.strip('"') for cell in header.split(separator)]
    if len(cells) < 2:
        shown = header[:60] + ("…" if len(header) > 60 else "")
        kind = "commas" if separator == "," else "tabs"
        raise InputError(
            f"the header {shown!r}", f"two or more columns separated by {kind}", path=path, line=1
        )
    twice = sorted({cell for cell in cells if cells.count(cell) > 1}) if _repeats(cells) else []
    if twice:
        raise InputError(
            f"column {twice[0]!r} more than once", "each column once", path=path, line=1
        )


def _read_text(path: Path, separator: str, dtype: type | None) -> pd.DataFrame:
    try:
        with open_input(path) as handle, warnings.catch_warnings():
            # Rows wider than the header lose cells, and pandas only warns of it.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                handle,
                sep=separator,
                dtype=dtype,
                index_col=False,
                keep_default_na=dtype is not str,
                skip_blank_lines=True,
                low_memory=False,
            )
    except pd.errors.ParserWarning as error:
        raise _wide_row(path, separator) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        wrong = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
        if wrong is None:
            raise InputError(f"no table ({_first_line(error)})", "a table", path=path) from error
        expected, line, found = wrong.groups()
        raise InputError(
            f"{found} columns", f"{expected} as in the header", path=path, line=int(line)
        ) from error
    except UnicodeDecodeError as error:
        raise InputError("bytes that are not UTF-8", "text", path=path) from error


def _wide_row(path: Path, separator: str) -> InputError:
    # A carriage return inside a line would end csv's reading of it.
    widths = (
        (number, len(next(csv.reader([text.replace("\r", " ")], delimiter=separator))))
        for number, text in _filled_lines(path, separator)
    )
    _, expected = next(widths)
    line, found = next((pair for pair in widths if pair[1] > expected), (None, "more"))
    return InputError(f"{found} columns", f"{expected} as in the header", path=path, line=line)


def _filled_lines(path: Path, separator: str) -> Iterator[tuple[int, str]]:
    return (line for line in numbered_lines(path) if line[1].strip() or separator in line[1])


def line_of_row(path: Path, row: int) -> int | None:
    """Line in the file of a row (from 0) of `read_table`; None where there are no lines."""
    separator = SEPARATORS.get(plain_suffix(path))
    if separator is None:
        return None
    return next(
        (number for number, _ in islice(_filled_lines(path, separator), row + 1, None)), None
    )


def find_columns(
    table: pd.DataFrame,
    wanted: Mapping[str, Sequence[str]],
    *,
    path: Path,
    optional: Sequence[str] = (),
) -> dict[str, str]:
    """Find which column of `table` plays each part, by any of its accepted names.

    Parameters
    ----------
    wanted
        Part to its accepted column names, lower case, best first.
    optional
        Parts that may be missing; they are then absent from the answer.

    Raises
    ------
    InputError
        If a required part has no column; the line lists what the header has.
    """
    present = {str(column).strip().lower(): column for column in table.columns}
    found = {}
    for part, names in wanted.items():
        match = next((present[name] for name in names if name in present), None)
        if match is not None:
            found[part] = match
        elif part not in optional:
            header = ", ".join(map(str, table.columns[:8]))
            raise InputError(
                f"no column {part!r} (header: {header})",
                "a column named " + " or ".join(names),
                path=path,
                line=1,
            )
    return found


def _repeats(cells: Sequence[str]) -> bool:
    return len(set(cells)) < len(cells)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__

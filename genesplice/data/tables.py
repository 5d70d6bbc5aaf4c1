"""The text layer under every reader: opening, decompressing, numbered lines, rows of tables.

Everything that goes wrong here is an `InputError` that names the file, and the line where one
is to blame.
"""

import atexit
import csv
import gzip
import io
import itertools
import math
import re
import shutil
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, cast

import numpy as np
import pandas as pd

from genesplice.errors import InputError, require
from genesplice.runtime import tell

GZIP_MAGIC, ZIP_MAGIC = b"\x1f\x8b", b"PK\x03\x04"
SEPARATORS = {".csv": ","} | dict.fromkeys(
    ("", ".tsv", ".txt", ".tab", ".sf", ".gct", ".results", ".counts"), "\t"
)
ID_NAMES = ("gene", "gene_id", "geneid", "id", "name")
Progress = Callable[[str], None]
WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
LINE = "line"
"""Name of the index of a table that was read from text: the lines its rows are on."""


def some(names: Iterable[object], at_most: int = 5) -> str:
    """The first few names, and how many there are if there are more."""
    shown = list(map(str, names))
    more = f", … ({len(shown)} in all)" if len(shown) > at_most else ""
    return ", ".join(shown[:at_most]) + more


def counted(what: str, names: Iterable[object], at_most: int = 5) -> str:
    """What happened to some names, how many and the first of them: "left out: 2 (a, b)"."""
    shown = list(map(str, names))
    more = ", …" if len(shown) > at_most else ""
    return f"{what}: {len(shown)}" + f" ({', '.join(shown[:at_most])}{more})" * bool(shown)


def unique_owners(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Lower-case name to gene_id, of the names that only one gene has."""
    owners: dict[str, set[str]] = defaultdict(set)
    for name, gene_id in pairs:
        owners[name.lower()].add(gene_id)
    return {name: next(iter(ids)) for name, ids in owners.items() if len(ids) == 1}


class LineWidths:
    """Says once where a line of wrapped sequence is shorter, or longer, than those around it."""

    def __init__(self, path: Path) -> None:
        self.path, self.width, self.odd, self.is_said = path, 0, (0, 0), False

    def follow(self, lines: Sequence[str], first: int, *, is_new: bool) -> None:
        """Take the next lines of a record, or the first of a new one; `first` is their number."""
        if is_new:
            self.width, self.odd = 0, (0, 0)
        for line, length in enumerate(map(len, lines), first):
            # The last line of a record may be shorter: an odd one is one that others follow.
            if length and self.odd[0] and not self.is_said:
                self.is_said, (at, found) = True, self.odd
                tell(
                    f"{self.path}:{at}: {found} letters between lines of {self.width}: if "
                    "something is missing there, all behind it is shifted against the annotation"
                )
            self.width = self.width or length
            if length not in (0, self.width) and not self.odd[0]:
                self.odd = line, length


def plain_suffix(path: Path) -> str:
    """Give the suffix that says what a file is, compression aside: `x.tsv.gz` is `.tsv`."""
    suffixes = [s for s in map(str.lower, path.suffixes) if s not in (".gz", ".bgz")]
    return suffixes[-1] if suffixes else ""


_PIPED: dict[Path, Path] = {}


def on_disk(path: Path) -> Path:
    """Give `path`, or of a pipe (/dev/stdin) a copy that can be read again, until the end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        if path not in _PIPED:
            with path.open("rb") as pipe, tempfile.NamedTemporaryFile(delete=False) as copy:
                shutil.copyfileobj(pipe, copy)
            _PIPED[path] = Path(copy.name)
            atexit.register(_PIPED[path].unlink, missing_ok=True)
        return _PIPED[path]
    return path


@contextmanager
def open_input(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for reading bytes, decompressing gzip and bgzip by their first two bytes.

    Raises
    ------
    InputError
        If there is no such file, it is a folder, empty or a zip archive, or the compressed
        stream is cut short or damaged (also while the body of the `with` reads from it).
    """
    plain = on_disk(path)
    require(plain.is_file(), "a folder" if path.is_dir() else "no such file", "a file", path)
    with plain.open("rb") as probe:
        magic = probe.read(4)
    require(magic, "an empty file", "data", path)
    require(magic != ZIP_MAGIC, "a zip archive", "the file in it, plain or gzipped: unzip it", path)
    try:
        with gzip.open(plain) if magic.startswith(GZIP_MAGIC) else plain.open("rb") as handle:
            yield cast(BinaryIO, handle)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        found = "a truncated or damaged gzip stream"
        raise InputError(found, "a complete file", path=path) from error


def readable(path: Path) -> Path:
    """Give `on_disk` of a file that other readers open; refuse what `open_input` refuses."""
    with open_input(path):
        return on_disk(path)


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    r"""Open `path` as UTF-8 whatever the locale, without a byte order mark, lines ending in \n.

    Bytes that are not UTF-8 come as lone surrogates; `check_text` refuses them.
    """
    with open_input(path) as handle:
        yield io.TextIOWrapper(handle, encoding="utf-8-sig", errors="surrogateescape")


def check_text(text: str, path: Path, line: int) -> str:
    """Give `text` back, or raise an `InputError` if it is not UTF-8."""
    if not text.isascii() and any("\udc80" <= letter <= "\udcff" for letter in text):
        raise InputError("bytes that are not UTF-8", "text", path=path, line=line)
    return text


def numbered_lines(path: Path, *, keep_ends: bool = False) -> Iterator[tuple[int, str]]:
    """Yield line number (from 1) and text; UTF-8, any line end.

    Raises
    ------
    InputError
        As `open_input`, and for bytes that are not UTF-8.
    """
    with open_text(path) as handle:
        for number, text in enumerate(handle, start=1):
            yield number, check_text(text if keep_ends else text.rstrip("\n"), path, number)


def bed_rows(path: Path, n_columns: int, expected: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of every line of a BED file that is no comment or header.

    Raises
    ------
    InputError
        For a line of fewer than `n_columns`, or whose start and end are no whole numbers in order.
    """
    for number, text in numbered_lines(path):
        cells = text.split("\t")
        if not text.strip() or text.startswith(("#", "track", "browser")):
            continue
        found = f"{len(cells)} tab-separated columns"
        require(len(cells) >= n_columns, found, expected, path, number)
        is_fine = all(map(WHOLE_NUMBER.fullmatch, cells[1:3])) and int(cells[1]) <= int(cells[2])
        found = f"coordinates {cells[1][:20]!r}-{cells[2][:20]!r}"
        require(is_fine, found, "whole numbers, start <= end", path, number)
        yield number, cells


def table_rows(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of every line that is not blank, quotes taken off."""
    rows = csv.reader((text for _, text in numbered_lines(path, keep_ends=True)),
                      delimiter=separator, strict=True)  # fmt: skip
    try:
        for cells in rows:
            if len(cells) > 1 or (cells and cells[0].strip()):
                yield rows.line_num, cells
    except csv.Error as error:
        raise InputError(f"no table ({error})", "a table", path=path, line=rows.line_num) from error


def even_rows(
    rows: Iterator[tuple[int, list[str]]], width: int, path: Path
) -> Iterator[tuple[int, list[str]]]:
    """Give every row `width` cells: missing ones are empty, empty ones beyond are left out.

    Raises
    ------
    InputError
        For a row with more in it.
    """
    for line, cells in rows:
        if any(cell.strip() for cell in cells[width:]):
            expected = f"{width} as in the header"
            if len(cells) == width + 1:
                expected += " (from R, write it with col.names=NA)"
            raise InputError(f"{len(cells)} columns", expected, path=path, line=line)
        yield line, [*cells[:width], *[""] * (width - len(cells))]


def check_header(header: list[str], path: Path, line: int, separator: str) -> None:
    """Refuse a single column, numbers for names, and a name that is there twice."""
    kind = {",": "commas", ";": "semicolons"}.get(separator, "tabs")
    found = f"the header {header[0][:60] + ('…' if len(header[0]) > 60 else '')!r}"
    require(len(header) >= 2, found, f"two or more columns separated by {kind}", path, line)
    if all(map(is_number, header[1:])):
        expected = "a header: gene, then the name of each sample or column"
        raise InputError(f"no names but {some(header, 4)}", expected, path=path, line=line)
    for cell in header:
        found = f"column {cell!r} more than once"
        require(header.count(cell) == 1, found, "each column once", path, line)


def as_number(text: str) -> float | None:
    """The number that a cell is written as, be it infinite or NaN; None where it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def is_number(text: str) -> bool:
    """Whether a cell is written as a finite number."""
    number = as_number(text)
    return number is not None and math.isfinite(number)


def _separator(path: Path, default: str, blanks: bool) -> str:
    """The one its suffix stands for, unless semicolons (or blanks) separate the header better."""
    lines = (text for _, text in numbered_lines(path) if text.strip() and text[0] != "#")
    header = next(lines, "")
    others = "," * (default == "\t" and not plain_suffix(path)) + ";"
    others += " " * (blanks and default not in header)
    return max(default + others, key=header.count)


def _with_points(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Decimal commas as points, in a table between whose columns are semicolons."""
    has_comma = table.apply(lambda cells: cells.str.fullmatch(r"-?\d+,\d+([eE][-+]?\d+)?"))
    if has_comma.to_numpy().any():
        has_point = table.apply(lambda cells: cells.str.fullmatch(r"-?\d+\.\d+"))
        if has_point.to_numpy().any():
            row, column = np.argwhere(has_point.to_numpy())[0]
            found, line = f"{table.iat[row, column]!r} beside decimal commas", table.index[row]
            raise InputError(found, "one kind of number", path=path, line=int(line))
        table = table.mask(has_comma, table.apply(lambda cells: cells.str.replace(",", ".")))
        table.attrs["separated"] = "columns separated by semicolons, decimal commas"
    return table


def read_table(
    path: Path,
    *,
    names: Callable[[list[str], list[str]], Sequence[str]] | None = None,
    blanks: bool = False,
    row_names: bool = False,
) -> pd.DataFrame:
    """Read a TSV, CSV (either may be compressed) or Parquet table as text, header first.

    Empty cells are "". The index is the line of each row in a text file (see `line_of`). Lines
    before the header that begin with ## or "# ", or of one cell that begins with #, are passed
    over, and the sizes of a GCT. Where semicolons separate the header better than what the
    suffix stands for, they do (decimal commas become points then): `attrs["separated"]` says so.

    Parameters
    ----------
    names
        From the first row, and the comments before it, to the names of the columns if that row
        is none of names, else nothing.
    blanks
        Whether blanks may separate columns.
    row_names
        Whether the header may lack the first column's name, as R's `write.table` leaves it:
        all rows have one cell more, and the header does not begin with one of `ID_NAMES`.

    Raises
    ------
    InputError
        As `open_input`; for a suffix that names no table format, a header without a second
        column, with numbers or with a name twice, rows wider than the header, or no rows.
    """
    suffix = plain_suffix(path)
    if suffix in {".parquet", ".pq"}:
        table = read_parquet(path)
        table = table.astype(object).where(table.notna(), "").astype(str)
    else:
        found = f"a name ending in {suffix or 'nothing'}"
        require(suffix in SEPARATORS, found, ".tsv, .csv or .parquet", path)
        separator = _separator(path, SEPARATORS[suffix], blanks)
        rows, comments = table_rows(path, separator), []
        line, header = next(rows, (1, [""]))
        while header[0].startswith(("##", "# ")) or (len(header) == 1 and header[0][:1] == "#"):
            comments.append(separator.join(header))
            line, header = next(rows, (1, [""]))
        if n_rows := header[0] if suffix == ".gct" else "":
            line, header = next(rows, (line, header))
        if names is not None and (given := names(header, comments)):
            rows, header = itertools.chain([(line, header)], rows), list(given)
        header = [cell.strip() for cell in header]
        while len(header) > 1 and not header[-1]:
            header.pop()
        body, is_from_r = list(rows), row_names and header[0].lower() not in ID_NAMES
        if is_from_r and all(len(cells) == len(header) + 1 and cells[-1] for _, cells in body):
            header = ["", *header]
        check_header(header, path, line, separator)
        is_whole = n_rows in ("", str(len(body)))
        require(is_whole, f"{len(body)} rows", f"{n_rows}, as the file says", path)
        even = list(even_rows(iter(body), len(header), path))
        lines = pd.Index([line for line, _ in even], name=LINE)
        table = pd.DataFrame([cells for _, cells in even], columns=header, index=lines, dtype=str)
        if separator == ";":
            table.attrs["separated"] = "columns separated by semicolons"
            table = _with_points(table, path)
        elif not header[0]:
            table.attrs["separated"] = "ids in the first column, which has no name"
    require(not table.empty, "a header and no rows", "at least one row", path)
    return table


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a Parquet table as it is; an index that means something becomes the first column."""
    file = readable(path)
    try:
        table = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise InputError(f"no Parquet table ({reason})", "Parquet", path=path) from error
    is_named = table.index.name is not None or not isinstance(table.index, pd.RangeIndex)
    return table.reset_index() if is_named else table


def line_of(table: pd.DataFrame | pd.Series, label: object) -> int | None:
    """Line in the file of a row of `read_table`; None where there are no lines."""
    return int(str(label)) if table.index.name == LINE else None


def refuse_empty(table: pd.DataFrame, column: str, what: str, expected: str, path: Path) -> None:
    """Raise an `InputError` with the line of the first blank cell of a column, if there is one."""
    empty = table.index[table[column].str.strip() == ""]
    if len(empty):
        raise InputError(f"an empty {what}", expected, path=path, line=line_of(table, empty[0]))


def refuse_twice(names: pd.Series, what: str, path: Path | None) -> None:
    """Raise an `InputError` for the first name that is there again, with its line if it has one."""
    twice = names[names.duplicated()]
    if len(twice):
        found, line = f"{what} {twice.iloc[0]!r} twice", line_of(twice, twice.index[0])
        raise InputError(found, f"each {what} once", path=path, line=line)


def find_columns(
    table: pd.DataFrame,
    names: Mapping[str, Sequence[str]],
    *,
    path: Path,
    optional: Sequence[str] = (),
) -> dict[str, str]:
    """Find which column of `table` plays each part, by any of its accepted names.

    Parameters
    ----------
    names
        Part to its accepted column names, lower case, best first.
    optional
        Parts that may be missing; they are then absent from the answer.

    Raises
    ------
    InputError
        If a required part has no column (the line lists what the header has), or two.
    """
    lower = [str(column).strip().lower() for column in table.columns]
    columns = {}
    for part, accepted in names.items():
        match = next((name for name in accepted if name in lower), None)
        if match is not None:
            require(lower.count(match) == 1, f"two columns {match!r}", "one of them", path, 1)
            columns[part] = table.columns[lower.index(match)]
        elif part not in optional:
            found = f"no column {part!r} (header: {', '.join(map(str, table.columns[:8]))})"
            expected = f"a column named {' or '.join(accepted)}"
            raise InputError(found, expected, path=path, line=1)
    return columns

"""The table beside a VCF: TSV and Parquet, written as it grows."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genesplice.runtime import atomic_file

TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}


class TableWriter:
    """Appends rows to a TSV and a Parquet file at once; None is an empty cell."""

    def __init__(self, text: Any, parquet: pq.ParquetWriter, names: Sequence[str]) -> None:
        self.text, self.parquet, self.names, self.n_rows = text, parquet, list(names), 0

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows; each has every column."""
        if not rows:
            return
        columns = {name: [row[name] for row in rows] for name in self.names}
        self.parquet.write_table(pa.table(columns, schema=self.parquet.schema))
        for row in rows:
            cells = (_cell(row[name]) for name in self.names)
            self.text.write("\t".join(cells) + "\n")
        self.n_rows += len(rows)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@contextmanager
def write_table(stem: Path, columns: Mapping[str, type]) -> Iterator[TableWriter]:
    """Write `stem` with .tsv and .parquet added; both appear only if the body succeeds.

    Parameters
    ----------
    columns
        Name to int, float, str or bool.
    """
    schema = pa.schema([(name, TYPES[kind]) for name, kind in columns.items()])
    with ExitStack() as stack:
        text_path, parquet_path = (
            stack.enter_context(atomic_file(stem.with_name(stem.name + suffix)))
            for suffix in (".tsv", ".parquet")
        )
        text = stack.enter_context(text_path.open("w"))
        parquet = stack.enter_context(pq.ParquetWriter(parquet_path, schema))
        text.write("\t".join(columns) + "\n")
        yield TableWriter(text, parquet, list(columns))

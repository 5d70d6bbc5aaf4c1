"""Read and write VCF, record by record, leaving every byte that is not ours; tables next to it.

htslib (through pysam) writes bgzip and makes the index. The text stays as it is: htslib would
round the floats of INFO, and refuse plain gzip, undeclared fields and two samples of one name.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pysam

from genesplice.data.tables import numbered_lines
from genesplice.errors import InputError
from genesplice.runtime import atomic_file

FIELDS = {
    "GS_LLR": (
        "llr", "Float", "abstains",
        "Masked-base log-likelihood ratio of ALT to REF, natural log, mean of both strands",
    ),
    "GS_CONS": (
        "conservation", "Float", None,
        "Log ratio of ALT to REF among aligned relatives: counts + 1/4, natural log; of a score of "
        "conservation, minus its mean over the bases that change",
    ),
    "GS_DLEVEL": (
        "dlevel", "Float", "models_disagree",
        "Change of the predicted expression level, log2(TPM+1), of the gene in GS_GENE",
    ),
    "GS_GENE": (
        "gene_id", "String", None, "The gene whose predicted level the allele changes most",
    ),
    "GS_DTRACK": (
        "dtrack", "Float", None,
        "Change of the track in GS_TRACK within 512 bp: log2 ratio of 1 + predicted sums",
    ),
    "GS_TRACK": (
        "track", "String", None, "The track that the allele is predicted to change most",
    ),
    "GS_PCT": (
        "percentile", "Float", "abstains",
        "Share (0 to 100) of matched random variants with a lower GS_LLR",
    ),
    "GS_FLAG": (
        "flag", "String", None, "Why an allele was not scored, one entry an ALT (or one without)",
    ),
}  # fmt: skip
"""The column that each INFO field is read from, its type, the flag under which it is withheld."""
OURS = re.compile(r"##INFO=<ID=(GS_[A-Z_]+),")
CONTIG, LENGTH = re.compile(r"##contig=<(?:.*,)?ID=([^,>]+)"), re.compile(r"[<,]length=(\d+)")
COLUMNS = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO")
NEEDED = ("contig", "position", "ref", "alt")

Row = dict[str, Any]


class Record(NamedTuple):
    """One line of a VCF. `position` is 0-based (-1 before the first base); `line` from 1."""

    line: int
    columns: tuple[str, ...]

    @property
    def contig(self) -> str:
        """CHROM as written."""
        return self.columns[0]

    @property
    def position(self) -> int:
        """POS less one."""
        return int(self.columns[1]) - 1

    @property
    def name(self) -> str:
        """ID."""
        return self.columns[2]

    @property
    def ref(self) -> str:
        """REF as written."""
        return self.columns[3]

    @property
    def alts(self) -> tuple[str, ...]:
        """ALT, one entry an allele; none where it is a dot."""
        return () if self.columns[4] in (".", "") else tuple(self.columns[4].split(","))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a VCF with their numbers; a BCF is refused with what to do about it."""
    try:
        yield from numbered_lines(path)
    except InputError as error:
        if error.found == "bytes that are not UTF-8" and error.line == 1:
            raise InputError(
                "a binary file", "VCF (of a BCF: bcftools view makes one)", path=path
            ) from None
        raise


def read_header(path: Path) -> tuple[list[str], str]:
    """The lines that begin with ##, without those that declare our fields, and the #CHROM line.

    Raises
    ------
    InputError
        If the header does not begin with ##fileformat=VCF, or does not end in a #CHROM line.
    """
    lines = list[str]()
    for number, text in _lines(path):
        is_columns = tuple(text.split()[: len(COLUMNS)]) == COLUMNS
        if number == 1 and not text.startswith("##fileformat=VCF"):
            found = "no ##fileformat line before #CHROM" if is_columns else repr(text[:40])
            expected = "a VCF, whose first line is ##fileformat=VCFv4.2 or the like"
            raise InputError(found, expected, path=path, line=number)
        if text.startswith("##"):
            ours = OURS.match(text)
            if not (ours and ours.group(1) in FIELDS):
                lines.append(text)
            continue
        if tuple(text.split("\t")[: len(COLUMNS)]) == COLUMNS:
            return lines, text
        found = "columns separated by blanks" if is_columns else repr(text[:40])
        expected = f"{' '.join(COLUMNS)}, separated by tabs"
        raise InputError(found, expected, path=path, line=number)
    raise InputError("no #CHROM line", "a VCF header", path=path)


def contig_lengths(path: Path) -> dict[str, tuple[int, int]]:
    """The contigs that the header declares with their lengths: each with length and line."""
    lengths = {}
    for number, text in _lines(path):
        if not text.startswith("##"):
            break
        name, length = CONTIG.match(text), LENGTH.search(text)
        if name and length:
            lengths[name[1]] = int(length[1]), number
    return lengths


def read_records(path: Path) -> Iterator[Record]:
    """Every record, one at a time; blank lines are none.

    Raises
    ------
    InputError
        For a line without eight columns, and a POS that is no number.
    """
    n_columns = len(COLUMNS)
    for number, text in _lines(path):
        columns = tuple(text.split("\t"))
        if text.startswith("#CHROM"):
            n_columns = max(len(columns), len(COLUMNS))
        if text.startswith("#") or not text.strip():
            continue
        if len(columns) != n_columns:
            is_blanks = len(columns) == 1 and len(text.split()) >= len(COLUMNS)
            found = "columns separated by blanks" if is_blanks else f"{len(columns)} columns"
            raise InputError(found, f"{n_columns}, separated by tabs", path=path, line=number)
        if not columns[1].isdecimal() or len(columns[1]) > 18:
            expected = "a whole number below 10^18"
            raise InputError(f"POS {columns[1]!r}", expected, path=path, line=number)
        yield Record(number, columns)


def annotated(record: Record, values: Mapping[str, Sequence[str | None]]) -> str:
    """The record's line with `values` at the end of its INFO; ours from before are gone.

    None is a dot. A field with nothing but dots is left out.
    """
    info = [] if record.columns[7] == "." else record.columns[7].split(";")
    info = [item for item in info if item and item.partition("=")[0] not in FIELDS]
    for name, column in values.items():
        if any(value is not None for value in column):
            info.append(f"{name}=" + ",".join("." if v is None else escape(v) for v in column))
    return "\t".join([*record.columns[:7], ";".join(info) or ".", *record.columns[8:]])


def escape(value: str) -> str:
    """Percent-encode what would end an INFO value."""
    return re.sub(r"[%;=,:\s]", lambda match: f"%{ord(match.group()):02X}", value)


class VcfWriter:
    """Writes header and records, and notices whether they could be indexed."""

    def __init__(self, put: Callable[[bytes], object], header: Sequence[str]) -> None:
        self.put, self.is_sorted = put, True
        self._last, self._seen = ("", -1), set[str]()
        self.put(("\n".join(header) + "\n").encode())

    def write(self, record: Record, values: Mapping[str, Sequence[str | None]]) -> None:
        """Write one record with the values of its alleles."""
        contig, position = record.contig, record.position
        if contig != self._last[0]:
            self.is_sorted &= contig not in self._seen
            self._seen.add(contig)
        else:
            self.is_sorted &= position >= self._last[1]
        self._last = contig, position
        self.put(annotated(record, values).encode() + b"\n")


@contextmanager
def write_vcf(
    path: Path, like: Path, fields: Sequence[str], notes: Sequence[str] = ()
) -> Iterator[VcfWriter]:
    """A writer of `path` with the header of `like`: bgzip where the name ends in .gz or .bgz.

    The file takes its name only if the body succeeds.

    Parameters
    ----------
    fields
        Which of `FIELDS` are declared.
    notes
        More lines for the header, such as `##source=…`.
    """
    lines, columns = read_header(like)
    declared = [
        f"##INFO=<ID={name},Number={'.' if column == 'flag' else 'A'},Type={kind},"
        f'Description="{text}">'
        for name, (column, kind, _, text) in FIELDS.items()
        if name in fields
    ]
    header = [*(line for line in lines if line not in notes), *notes, *declared, columns]
    is_packed = path.suffix in (".gz", ".bgz")
    with (
        atomic_file(path) as partial,
        pysam.BGZFile(str(partial), "wb", None) if is_packed else partial.open("wb") as sink,
    ):
        yield VcfWriter(sink.write, header)


def index(path: Path) -> Path | None:
    """Write the index of a sorted, bgzipped VCF: .tbi, or .csi for positions beyond 2^29.

    None where neither can hold a position.
    """
    before = pysam.set_verbosity(0)
    try:
        for suffix in (".tbi", ".csi"):
            made = path.with_name(path.name + suffix)
            try:
                pysam.tabix_index(str(path), preset="vcf", force=True, csi=suffix == ".csi")
            except OSError:
                made.unlink(missing_ok=True)
            else:
                return made
    finally:
        pysam.set_verbosity(before)
    return None


def table_records(table: pd.DataFrame) -> list[Record]:
    """The rows of a table with contig, position (from 1), ref and alt as records of a VCF.

    Raises
    ------
    InputError
        For a missing column.
    """
    if missing := set(NEEDED) - set(table.columns):
        raise InputError(f"no column {min(missing)}", ", ".join(NEEDED))
    return [
        Record(number, (row.contig, str(row.position), ".", row.ref, row.alt, ".", ".", "."))
        for number, row in enumerate(table.itertuples(), 1)
    ]


def beside(out: Path, suffix: str) -> Path:
    """A file next to a VCF: its name without .vcf and .gz, and `suffix` added."""
    return out.with_name(re.sub(r"(\.vcf)?(\.b?gz)?$", "", out.name, count=1) + suffix)


@contextmanager
def write_table(stem: Path, schema: pa.Schema) -> Iterator[Callable[[Sequence[Row]], None]]:
    """Append rows to `stem`.tsv and .parquet; both appear only if the body succeeds."""
    with ExitStack() as stack:
        text_path, parquet_path = (
            stack.enter_context(atomic_file(stem.with_name(stem.name + suffix)))
            for suffix in (".tsv", ".parquet")
        )
        text = stack.enter_context(text_path.open("w", encoding="utf-8"))
        parquet = stack.enter_context(pq.ParquetWriter(parquet_path, schema))
        text.write("\t".join(schema.names) + "\n")

        def write(rows: Sequence[Row]) -> None:
            table = pa.Table.from_pylist(list(rows), schema=schema)
            parquet.write_table(table)
            table.to_pandas().to_csv(text, sep="\t", header=False, index=False, float_format="%.6g")

        yield write

"""Read and write VCF, record by record, and leave every byte that is not ours as it was.

htslib (through pysam) judges the header, writes bgzip and makes the tabix index. Records stay
text: htslib would round the floats of INFO and refuse fields that the header does not declare.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pysam

from genesplice.data.tables import numbered_lines
from genesplice.errors import InputError
from genesplice.runtime import atomic_file

FIELDS = {
    "GS_LLR": (
        "A", "Float",
        "Masked-base log-likelihood ratio of ALT to REF, natural log, mean of both strands",
    ),
    "GS_DLEVEL": (
        "A", "Float",
        "Change of the predicted expression level, log2(TPM+1), of the gene in GS_GENE",
    ),
    "GS_GENE": ("A", "String", "The gene whose predicted level the allele changes most"),
    "GS_PCT": (
        "A", "Float",
        "Share (0 to 100) of matched random variants with a lower GS_LLR",
    ),
    "GS_FLAG": (".", "String", "Why an allele was not scored, one entry an ALT (or one without)"),
}  # fmt: skip
OURS = re.compile(r"##INFO=<ID=(GS_[A-Z_]+),")
N_COLUMNS = 8


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


def check_header(path: Path) -> None:
    """See whether htslib reads the header.

    Raises
    ------
    InputError
        If there is no such file, or it is no VCF.
    """
    next(_lines(path), None)
    before = pysam.set_verbosity(0)
    try:
        with pysam.VariantFile(str(path)) as handle:
            is_vcf = handle.format == "VCF"
    except (OSError, ValueError, NotImplementedError):
        is_vcf = False
    finally:
        pysam.set_verbosity(before)
    if not is_vcf:
        raise InputError("no VCF header", "VCF 4, plain or bgzip (not BCF)", path=path)


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
        If the header does not end in a #CHROM line of at least eight columns.
    """
    lines = []
    for number, text in _lines(path):
        if text.startswith("##"):
            ours = OURS.match(text)
            if not (ours and ours.group(1) in FIELDS):
                lines.append(text)
            continue
        if text.startswith("#CHROM") and len(text.split("\t")) >= N_COLUMNS:
            return lines, text
        raise InputError(
            repr(text[:40]), "#CHROM and seven more columns, by tabs", path=path, line=number
        )
    raise InputError("no #CHROM line", "a VCF header", path=path)


def read_records(path: Path) -> Iterator[Record]:
    """Every record, one at a time; blank lines are none.

    Raises
    ------
    InputError
        For a line without eight columns, and a POS that is no number.
    """
    n_columns = N_COLUMNS
    for number, text in _lines(path):
        columns = tuple(text.split("\t"))
        if text.startswith("#CHROM"):
            n_columns = len(columns)
        if text.startswith("#") or not text.strip():
            continue
        if len(columns) != n_columns:
            raise InputError(
                f"{len(columns)} columns", f"{n_columns}, by tabs", path=path, line=number
            )
        if not columns[1].isdecimal():
            raise InputError(f"POS {columns[1]!r}", "a whole number", path=path, line=number)
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
        f'##INFO=<ID={name},Number={n},Type={kind},Description="{text}">'
        for name, (n, kind, text) in FIELDS.items()
        if name in fields
    ]
    header = [*(line for line in lines if line not in notes), *notes, *declared, columns]
    is_packed = path.suffix in (".gz", ".bgz")
    with (
        atomic_file(path) as partial,
        pysam.BGZFile(str(partial), "wb", None) if is_packed else partial.open("wb") as sink,
    ):
        yield VcfWriter(sink.write, header)


def index(path: Path) -> Path:
    """Write the tabix index of a sorted, bgzipped VCF and give its path."""
    pysam.tabix_index(str(path), preset="vcf", force=True)
    return path.with_name(path.name + ".tbi")

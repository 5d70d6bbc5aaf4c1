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
    "GS_HAP": (
        "A", "String",
        "Haplotype on which the allele was scored: phase set and number, or all of them",
    ),
    "GS_HAP_N": ("A", "Integer", "Other alleles of that haplotype near by, in both sequences"),
    "GS_FLAG": (".", "String", "Why an allele was not scored, one entry an ALT (or one without)"),
}  # fmt: skip
OURS = re.compile(r"##INFO=<ID=(GS_[A-Z_]+),")
N_COLUMNS = 8


class Record(NamedTuple):
    """One line of a VCF. `position` is 0-based; `line` counts from 1."""

    line: int
    columns: tuple[str, ...]

    @property
    def contig(self) -> str:
        """CHROM as written."""
        return self.columns[0]

    @property
    def position(self) -> int:
        """POS less one; -1 is the telomere before the first base."""
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
    for _ in _lines(path):
        break
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
    """Lines of a VCF; binary formats are named.

    Raises
    ------
    InputError
        As `numbered_lines`; for BCF with what to do about it.
    """
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
        columns = text.split("\t")
        if text.startswith("#CHROM") and len(columns) >= N_COLUMNS:
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
    n_columns = 0
    for number, text in _lines(path):
        if text.startswith("#") or not text.strip():
            n_columns = n_columns or (text.startswith("#CHROM") and len(text.split("\t")))
            continue
        columns = tuple(text.split("\t"))
        if len(columns) != (n_columns or N_COLUMNS):
            raise InputError(
                f"{len(columns)} columns", f"{n_columns or N_COLUMNS}, by tabs",
                path=path, line=number,
            )  # fmt: skip
        if not columns[1].isdecimal():
            raise InputError(f"POS {columns[1]!r}", "a whole number", path=path, line=number)
        yield Record(number, columns)


def annotated(record: Record, values: Mapping[str, Sequence[str | None]]) -> str:
    """The record's line with `values` at the end of its INFO; ours from before are gone.

    None is a dot. A field with nothing but dots is left out.
    """
    info = [] if record.columns[7] == "." else record.columns[7].split(";")
    kept = [item for item in info if item.partition("=")[0] not in FIELDS]
    for name, column in values.items():
        if any(value is not None for value in column):
            kept.append(f"{name}=" + ",".join("." if v is None else escape(v) for v in column))
    text = ";".join(item for item in kept if item) or "."
    return "\t".join([*record.columns[:7], text, *record.columns[8:]])


def escape(value: str) -> str:
    """Percent-encode what would end an INFO value."""
    return re.sub(r"[%;=,:\s]", lambda found: f"%{ord(found.group()):02X}", value)


class VcfWriter:
    """Writes header and records, and notices whether they could be indexed."""

    def __init__(
        self, put: Callable[[bytes], object], header: Sequence[str], fields: Sequence[str]
    ) -> None:
        self.put, self.is_sorted, self.n_records = put, True, 0
        self._last, self._seen = ("", -1), set[str]()
        first, columns = header[:-1], header[-1]
        declared = [
            f'##INFO=<ID={name},Number={n},Type={kind},Description="{text}">'
            for name, (n, kind, text) in FIELDS.items()
            if name in fields
        ]
        self._put("\n".join([*first, *declared, columns]))

    def write(self, record: Record, values: Mapping[str, Sequence[str | None]]) -> None:
        """Write one record with the values of its alleles."""
        contig, position = record.contig, record.position
        if contig != self._last[0]:
            self.is_sorted &= contig not in self._seen
            self._seen.add(contig)
        else:
            self.is_sorted &= position >= self._last[1]
        self._last = contig, position
        self.n_records += 1
        self._put(annotated(record, values))

    def _put(self, text: str) -> None:
        self.put(text.encode() + b"\n")


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
    header = [*(line for line in lines if line not in notes), *notes, columns]
    with atomic_file(path) as partial:
        is_packed = path.suffix in (".gz", ".bgz")
        with pysam.BGZFile(str(partial), "wb", None) if is_packed else partial.open("wb") as sink:
            yield VcfWriter(sink.write, header, fields)


def index(path: Path) -> Path:
    """Write the tabix index of a sorted, bgzipped VCF and give its path."""
    pysam.tabix_index(str(path), preset="vcf", force=True)
    return path.with_name(path.name + ".tbi")

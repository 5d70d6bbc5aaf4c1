"""A VCF through the models and out again: a chunk of records in memory at a time."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from genesplice.data.bundle import Bundle
from genesplice.explain.variants.alleles import Allele
from genesplice.explain.variants.checks import (
    FLAGS,
    ContigNames,
    Survey,
    check_record,
    refuse_another_genome,
    survey,
)
from genesplice.explain.variants.likelihood import (
    ABSTAIN,
    WINDOW_BP,
    Likelihood,
    MaskedBases,
    allele_likelihoods,
)
from genesplice.explain.variants.models import Models
from genesplice.explain.variants.regions import region_of, region_track
from genesplice.explain.variants.table import write_table
from genesplice.explain.variants.vcf import (
    Record,
    check_header,
    index,
    read_header,
    read_records,
    write_vcf,
)
from genesplice.results import Metric

__all__ = ["Annotated", "Settings", "annotate_vcf", "flag_metrics"]

CHUNK = 256
COLUMNS: dict[str, type] = {
    "record": int, "contig": str, "position": int, "id": str, "ref": str, "alt": str,
    "kind": str, "region": str, "flag": str, "llr": float, "llr_forward": float,
    "llr_reverse": float, "strand_spread": float,
}  # fmt: skip

Progress = Callable[[str], None]
Row = dict[str, Any]


class Settings(NamedTuple):
    """How variants are scored; all lengths in bases.

    `abstain` is the least that both strands must differ from 0, in opposite directions, for a
    ratio to be withheld.
    """

    window_bp: int = WINDOW_BP
    max_length_bp: int = 64
    abstain: float = ABSTAIN


class Annotated(NamedTuple):
    """What was written, and how many alleles each flag was given to ("scored" for none)."""

    files: tuple[Path, ...]
    n_records: int
    n_alleles: int
    flags: Counter[str]
    found: Survey


class Annotator:
    """Scores chunks of records; everything that chunks share is made once."""

    def __init__(self, models: Models, bundle: Bundle, settings: Settings) -> None:
        self.bundle, self.settings, self.genome = bundle, settings, bundle.genome
        self.names = ContigNames(bundle.genome, bundle.manifest.get("contig_aliases"))
        self.track = region_track(bundle)
        self.masked = None if models.masked is None else MaskedBases(models.masked)

    @property
    def fields(self) -> list[str]:
        """The INFO fields that are written."""
        return [*(["GS_LLR"] if self.masked else []), "GS_FLAG"]

    @property
    def columns(self) -> dict[str, type]:
        """The columns of the table."""
        return COLUMNS

    def rows(self, records: Sequence[Record], first: int) -> list[list[Row]]:
        """For each record one row an allele (or one where it has none)."""
        checked = [
            check_record(record, self.names, self.settings.max_length_bp) for record in records
        ]
        alleles = [one for found in checked for one in found if isinstance(one, Allele)]
        ratios = iter(self._ratios(alleles))
        table = []
        for number, (record, found) in enumerate(zip(records, checked, strict=True), first):
            rows = []
            for alt, one in zip(record.alts or (".",), found, strict=True):
                row = self._row(number, record, alt, one)
                if isinstance(one, Allele) and self.masked:
                    self._add_ratio(row, next(ratios))
                rows.append(row)
            table.append(rows)
        return table

    def _ratios(self, alleles: Sequence[Allele]) -> list[Likelihood]:
        if self.masked is None:
            return []
        window_bp = self.settings.window_bp
        return allele_likelihoods(self.masked, self.genome, alleles, window_bp=window_bp)

    def _row(self, number: int, record: Record, alt: str, one: Allele | str) -> Row:
        row: Row = dict.fromkeys(self.columns)
        row |= {
            "record": number, "contig": record.contig, "position": record.position + 1,
            "id": record.name, "ref": record.ref, "alt": alt,
        }  # fmt: skip
        if isinstance(one, str):
            return row | {"flag": one}
        return row | {
            "kind": one.kind,
            "region": region_of(self.genome, self.track, one.contig, one.start),
        }

    def _add_ratio(self, row: Row, found: Likelihood) -> None:
        row |= {
            "llr": found.mean, "llr_forward": found.forward, "llr_reverse": found.reverse,
            "strand_spread": found.spread,
        }  # fmt: skip
        if found.abstains(self.settings.abstain):
            row["flag"] = "abstains"


def info(rows: Sequence[Row], fields: Sequence[str]) -> dict[str, list[str | None]]:
    """The INFO values of one record."""
    sources = {"GS_LLR": "llr", "GS_FLAG": "flag"}
    values: dict[str, list[str | None]] = {}
    for field in fields:
        column = [row[sources[field]] for row in rows]
        if field == "GS_LLR":
            column = [
                None if row["flag"] == "abstains" else value
                for row, value in zip(rows, column, strict=True)
            ]
        values[field] = [_text(value) for value in column]
    return values


def _text(value: Any) -> str | None:
    return f"{value:.5g}" if isinstance(value, float) else value


def chunks(records: Iterator[Record], size: int = CHUNK) -> Iterator[list[Record]]:
    """The same records, `size` at a time."""
    while chunk := list(islice(records, size)):
        yield chunk


def beside(out: Path, suffix: str) -> Path:
    """A file next to a VCF: its name without .vcf and .gz, and `suffix` added."""
    name = out.name
    for ending in (".gz", ".bgz", ".vcf"):
        name = name.removesuffix(ending)
    return out.with_name(name + suffix)


def annotate_vcf(
    models: Models,
    bundle: Bundle,
    vcf: Path,
    out: Path,
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Annotated:
    """Write `out`: every record of `vcf` in its order, with INFO fields; and tables beside it.

    The file is read twice: first every REF is compared with the genome, then records are scored.

    Raises
    ------
    InputError
        If `vcf` is no VCF, or more than 5 % of its REFs are not those of the genome.
    """
    tell, settings = progress or (lambda text: None), settings or Settings()
    check_header(vcf)
    read_header(vcf)
    annotator = Annotator(models, bundle, settings)
    found = survey(read_records(vcf), annotator.names)
    refuse_another_genome(found, vcf, bundle.path)
    if found.unknown:
        named = ", ".join(name for name, _ in found.unknown.most_common(3))
        tell(f"variants: contigs that the data do not have: {named}")
    flags, done = Counter[str](), 0
    notes = [f"##source=genesplice {bundle.name}"]
    with (
        write_vcf(out, vcf, annotator.fields, notes) as writer,
        write_table(beside(out, ""), annotator.columns) as table,
    ):
        for chunk in chunks(read_records(vcf)):
            scored = annotator.rows(chunk, done + 1)
            for record, rows in zip(chunk, scored, strict=True):
                writer.write(record, info(rows, annotator.fields))
                flags.update(row["flag"] or "scored" for row in rows)
            table.write([row for rows in scored for row in rows])
            done += len(chunk)
            if done % (8 * CHUNK) == 0:
                tell(f"variants: {done} of {found.n_records} records")
    files = [out, beside(out, ".tsv"), beside(out, ".parquet")]
    if out.suffix in (".gz", ".bgz") and writer.is_sorted:
        files.append(index(out))
    elif not writer.is_sorted:
        tell("variants: not sorted, so there is no index")
    return Annotated(tuple(files), done, sum(flags.values()), flags, found)


def flag_metrics(done: Annotated) -> list[Metric]:
    """Records read, and alleles scored or flagged, each flag by its name."""
    counts = {"records": done.n_records, "scored": done.flags["scored"]}
    counts |= {f"flag:{name}": done.flags[name] for name in FLAGS}
    return [
        Metric(f"variants_{name}", float(count), None, None, done.n_alleles, "genesplice", "input")
        for name, count in counts.items()
    ]

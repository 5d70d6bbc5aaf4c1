"""A VCF through the models and out again: a chunk of records in memory at a time."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from genesplice.config.model import REGION_BP
from genesplice.data.bundle import Bundle
from genesplice.results import Metric
from genesplice.variants.alleles import Allele
from genesplice.variants.checks import (
    FLAGS,
    ContigNames,
    Survey,
    check_record,
    refuse_another_genome,
    survey,
)
from genesplice.variants.haplotypes import Beside, find_sample, with_haplotypes
from genesplice.variants.levels import WINDOW_BP as LEVEL_WINDOW_BP
from genesplice.variants.levels import GeneChange, LevelModel, Levels, strongest
from genesplice.variants.likelihood import (
    ABSTAIN,
    WINDOW_BP,
    Likelihood,
    MaskedBases,
    allele_likelihoods,
)
from genesplice.variants.matched import Matched
from genesplice.variants.models import Models
from genesplice.variants.regions import region_of, region_track
from genesplice.variants.table import write_table
from genesplice.variants.vcf import (
    Record,
    check_header,
    index,
    read_header,
    read_records,
    write_vcf,
)

CHUNK = 256
COLUMNS: dict[str, type] = {
    "record": int, "contig": str, "position": int, "id": str, "ref": str, "alt": str,
    "kind": str, "region": str, "flag": str, "llr": float, "llr_forward": float,
    "llr_reverse": float, "strand_spread": float, "percentile": float,
}  # fmt: skip
HAPLOTYPE_COLUMNS: dict[str, type] = {"haplotype": str, "n_beside": int}
LEVEL_COLUMNS: dict[str, type] = {
    "gene_id": str, "n_genes": int, "dlevel": float, "model_spread": float, "agreement": float,
}  # fmt: skip
GENE_COLUMNS: dict[str, type] = {
    "record": int, "contig": str, "position": int, "ref": str, "alt": str, "gene_id": str,
    "name": str, "distance_bp": int, "level": float, "dlevel": float, "model_spread": float,
    "agreement": float, "condition": str, "dresidual": float,
}  # fmt: skip
MIN_AGREEMENT = 0.75
"""Share of the models that must agree about the sign of a change of level."""

Progress = Callable[[str], None]
Row = dict[str, Any]
Checked = tuple[Record, list[Allele | str], list[Beside | None]]
"""A record, its alleles or why they are none, and what stands beside each."""


class Settings(NamedTuple):
    """How variants are scored; all lengths in bases.

    `abstain` is the least that both strands must differ from 0, in opposite directions, for a
    ratio to be withheld. With `sample` each of its phased alleles is scored beside
    the others of its haplotype.
    """

    window_bp: int = WINDOW_BP
    max_length_bp: int = 64
    abstain: float = ABSTAIN
    level_window_bp: int = LEVEL_WINDOW_BP
    with_percentile: bool = True
    seed: int = 0
    sample: str = ""

    @property
    def reach_bp(self) -> int:
        """How far another allele may lie and still be in a window with one."""
        return max(self.window_bp, self.level_window_bp) // 2 + REGION_BP // 2


class Annotated(NamedTuple):
    """What was written, and how many alleles each flag was given to ("scored" for none)."""

    files: tuple[Path, ...]
    n_records: int
    n_alleles: int
    flags: Counter[str]
    found: Survey
    metrics: tuple[Metric, ...]


class Annotator:
    """Scores chunks of records; everything that chunks share is made once."""

    def __init__(
        self,
        models: Models,
        bundle: Bundle,
        settings: Settings,
        vectors: Sequence[Tensor] | None = None,
    ) -> None:
        self.bundle, self.settings, self.genome = bundle, settings, bundle.genome
        self.names = ContigNames(bundle.genome, bundle.manifest.get("contig_aliases"))
        self.track = region_track(bundle)
        self.masked = self.matched = self.levels = None
        if models.masked is not None:
            self.masked = MaskedBases(models.masked)
            if settings.with_percentile:
                self.matched = Matched(self.masked, self.genome, self.track, seed=settings.seed)
        if models.levels:
            known: Sequence[Tensor | None] = vectors or [None] * len(models.levels)
            readers = [
                LevelModel(model, bundle, vectors=mine)
                for model, mine in zip(models.levels, known, strict=True)
            ]
            self.levels = Levels(readers, bundle, window_bp=settings.level_window_bp)
        self.gene_names = dict(zip(bundle.genes["gene_id"], bundle.genes["name"], strict=True))

    @property
    def fields(self) -> list[str]:
        """The INFO fields that are written."""
        wanted = {
            "GS_LLR": self.masked, "GS_PCT": self.matched, "GS_DLEVEL": self.levels,
            "GS_GENE": self.levels,
        }  # fmt: skip
        scored = [name for name, scorer in wanted.items() if scorer is not None]
        return [*scored, *(("GS_HAP", "GS_HAP_N") if self.settings.sample else ()), "GS_FLAG"]

    @property
    def columns(self) -> dict[str, type]:
        """The columns of the table."""
        more = HAPLOTYPE_COLUMNS if self.settings.sample else {}
        return COLUMNS | more | (LEVEL_COLUMNS if self.levels else {})

    def check(self, record: Record) -> list[Allele | str]:
        """For each ALT the allele, or why there is none."""
        return check_record(record, self.names, self.settings.max_length_bp)

    def read(self, vcf: Path) -> Iterator[Checked]:
        """Every record of a file, checked."""
        sample, records = self.settings.sample, read_records(vcf)
        if sample:
            column = find_sample(vcf, sample)
            yield from with_haplotypes(records, self.check, column, self.settings.reach_bp, vcf)
            return
        for record in records:
            found = self.check(record)
            yield record, found, [None] * len(found)

    def rows(self, checked: Sequence[Checked], first: int) -> tuple[list[list[Row]], list[Row]]:
        """For each record one row an allele (or one where it has none); and the rows of genes."""
        pairs = [
            (one, () if others is None else others.alleles)
            for _, found, beside in checked
            for one, others in zip(found, beside, strict=True)
            if isinstance(one, Allele)
        ]
        alleles, backgrounds = [one for one, _ in pairs], [others for _, others in pairs]
        ratios = iter(self._ratios(alleles, backgrounds))
        changes = iter(self.levels(alleles, backgrounds) if self.levels else [])
        table, genes = [], []
        for number, (record, found, beside) in enumerate(checked, first):
            rows = []
            for alt, one, others in zip(record.alts or (".",), found, beside, strict=True):
                row = self._row(number, record, alt, one)
                if others is not None:
                    row |= {"haplotype": others.name, "n_beside": len(others.alleles)}
                if isinstance(one, Allele) and self.masked:
                    self._add_ratio(row, one, next(ratios))
                if isinstance(one, Allele) and self.levels:
                    genes += self._add_genes(row, next(changes))
                rows.append(row)
            table.append(rows)
        return table, genes

    def _ratios(
        self, alleles: Sequence[Allele], beside: Sequence[Sequence[Allele]]
    ) -> list[Likelihood]:
        if self.masked is None:
            return []
        window_bp = self.settings.window_bp
        return allele_likelihoods(
            self.masked, self.genome, alleles, window_bp=window_bp, beside=beside
        )

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

    def _add_genes(self, row: Row, found: Sequence[GeneChange]) -> list[Row]:
        most = strongest(found)
        row["n_genes"] = len(found)
        if most is not None:
            row |= {
                "gene_id": most.gene_id, "dlevel": most.mean, "model_spread": most.spread,
                "agreement": most.agreement,
            }  # fmt: skip
            if most.agreement < MIN_AGREEMENT:
                row["flag"] = "|".join(filter(None, [row["flag"], "models_disagree"]))
        place = {name: row[name] for name in ("record", "contig", "position", "ref", "alt")}
        return [
            place
            | {
                "gene_id": one.gene_id, "name": str(self.gene_names[one.gene_id]),
                "distance_bp": one.distance_bp, "level": float(np.mean(one.levels)),
                "dlevel": one.mean, "model_spread": one.spread, "agreement": one.agreement,
                "condition": one.condition, "dresidual": one.dresidual,
            }
            for one in found
        ]  # fmt: skip

    def _add_ratio(self, row: Row, allele: Allele, found: Likelihood) -> None:
        row |= {
            "llr": found.mean, "llr_forward": found.forward, "llr_reverse": found.reverse,
            "strand_spread": found.spread,
        }  # fmt: skip
        if self.matched is not None:
            row["percentile"] = self.matched.percentile(allele, row["region"], found.mean)
        if found.abstains(self.settings.abstain):
            row["flag"] = "abstains"


def info(rows: Sequence[Row], fields: Sequence[str]) -> dict[str, list[str | None]]:
    """The INFO values of one record."""
    # What each field is read from, and the flag under which it is withheld.
    sources = {
        "GS_LLR": ("llr", "abstains"), "GS_PCT": ("percentile", "abstains"),
        "GS_DLEVEL": ("dlevel", "models_disagree"), "GS_GENE": ("gene_id", None),
        "GS_HAP": ("haplotype", None), "GS_HAP_N": ("n_beside", None), "GS_FLAG": ("flag", None),
    }  # fmt: skip
    values: dict[str, list[str | None]] = {}
    for field in fields:
        column, withheld = sources[field]
        values[field] = [None if withheld in flags_of(row) else _text(row[column]) for row in rows]
    return values


def flags_of(row: Row) -> list[str]:
    """The flags of an allele."""
    return [] if row["flag"] is None else row["flag"].split("|")


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def chunks(records: Iterator[Checked], size: int = CHUNK) -> Iterator[list[Checked]]:
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
    vectors: Sequence[Tensor] | None = None,
    progress: Progress | None = None,
) -> Annotated:
    """Write `out`: every record of `vcf` in its order, with INFO fields; and tables beside it.

    The file is read twice: first every REF is compared with the genome, then records are scored.

    Parameters
    ----------
    vectors
        What each expression model says of every gene (`encode_genes`), where it is at hand.

    Raises
    ------
    InputError
        If `vcf` is no VCF, or more than 5 % of its REFs are not those of the genome; with a
        sample also as `with_haplotypes`.
    """
    tell, settings = progress or (lambda text: None), settings or Settings()
    check_header(vcf)
    read_header(vcf)
    if settings.sample:
        find_sample(vcf, settings.sample)
    annotator = Annotator(models, bundle, settings, vectors)
    found = survey(read_records(vcf), annotator.names)
    refuse_another_genome(found, vcf, bundle.path)
    if found.unknown:
        named = ", ".join(name for name, _ in found.unknown.most_common(3))
        tell(f"variants: contigs that the data do not have: {named}")
    flags, done = Counter[str](), 0
    notes = [f"##source=genesplice {bundle.name}"]
    n_alleles = 0
    with ExitStack() as stack:
        writer = stack.enter_context(write_vcf(out, vcf, annotator.fields, notes))
        table = stack.enter_context(write_table(beside(out, ""), annotator.columns))
        genes = None
        if annotator.levels:
            genes = stack.enter_context(write_table(beside(out, ".genes"), GENE_COLUMNS))
        for chunk in chunks(annotator.read(vcf)):
            scored, around = annotator.rows(chunk, done + 1)
            for (record, _, _), rows in zip(chunk, scored, strict=True):
                writer.write(record, info(rows, annotator.fields))
                for row in rows:
                    flags.update(flags_of(row) or ["scored"])
                n_alleles += len(rows)
            table.write([row for rows in scored for row in rows])
            if genes is not None:
                genes.write(around)
            done += len(chunk)
            if done % (8 * CHUNK) == 0:
                tell(f"variants: {done} of {found.n_records} records")
    stems = ["", ".genes"] if annotator.levels else [""]
    files = [out, *(beside(out, s + ending) for s in stems for ending in (".tsv", ".parquet"))]
    if out.suffix in (".gz", ".bgz") and writer.is_sorted:
        files.append(index(out))
    elif not writer.is_sorted:
        tell("variants: not sorted, so there is no index")
    measured = tuple(annotator.matched.metrics) if annotator.matched else ()
    return Annotated(tuple(files), done, n_alleles, flags, found, measured)


def flag_metrics(done: Annotated) -> list[Metric]:
    """Records read, alleles without a flag, and those with each; then what else was measured."""
    counts = {"records": done.n_records, "scored": done.flags["scored"]}
    counts |= {f"flag:{name}": done.flags[name] for name in FLAGS}
    counted = [
        Metric(f"variants_{name}", float(count), None, None, done.n_alleles, "genesplice", "input")
        for name, count in counts.items()
    ]
    return [*counted, *done.metrics]

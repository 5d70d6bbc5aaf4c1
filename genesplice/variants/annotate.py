"""Variants through the models: a VCF and back again a chunk at a time, or plain tables."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float, UInt8

from genesplice.data.bundle import Bundle, Progress
from genesplice.data.features import region_masks
from genesplice.data.genome import Genome
from genesplice.data.tables import some
from genesplice.predict.models import Models, open_models
from genesplice.results import Metric
from genesplice.variants import alleles, likelihood, vcf
from genesplice.variants.alleles import Allele
from genesplice.variants.consequence import REGIONS, Consequences, Matched
from genesplice.variants.levels import WINDOW_BP as LEVEL_WINDOW_BP
from genesplice.variants.levels import GeneChange, LevelModel, Levels, TrackChanges, strongest

CHUNK = 256
MIN_AGREEMENT = 0.75
"""Share of the models that must agree about the sign of a change of level."""
TEXT, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()
SITE = [("record", WHOLE), ("contig", TEXT), ("position", WHOLE), ("ref", TEXT), ("alt", TEXT)]
COLUMNS = [
    *SITE[:3], ("id", TEXT), *SITE[3:], ("kind", TEXT), ("region", TEXT), ("consequence", TEXT),
    ("consequence_gene", TEXT), ("flag", TEXT), ("llr", REAL), ("llr_forward", REAL),
    ("llr_reverse", REAL), ("strand_spread", REAL), ("percentile", REAL), ("conservation", REAL),
]  # fmt: skip
CHANGE = [("dlevel", REAL), ("model_spread", REAL), ("agreement", REAL)]
LEVEL_COLUMNS = [("gene_id", TEXT), ("n_genes", WHOLE), *CHANGE]
GENE_COLUMNS = pa.schema([
    *SITE, ("gene_id", TEXT), ("name", TEXT), ("distance_bp", WHOLE), ("level", REAL), *CHANGE,
    ("condition", TEXT), ("dresidual", REAL),
])  # fmt: skip


class Settings(NamedTuple):
    """How variants are scored; all lengths in bases.

    `abstain` is the least that both strands must differ from 0, in opposite directions, for a
    ratio to be withheld, `relatives` what the masked-base model reads of them (see `MaskedBases`).
    """

    window_bp: int = likelihood.WINDOW_BP
    max_length_bp: int = alleles.MAX_LENGTH_BP
    abstain: float = likelihood.ABSTAIN
    level_window_bp: int = LEVEL_WINDOW_BP
    with_percentile: bool = True
    seed: int = 0
    relatives: likelihood.Reading = "all"


class Annotated(NamedTuple):
    """What was written, and how many alleles each flag was given to ("scored" for none).

    `renamed` has the contigs that are called otherwise in the data.
    """

    files: tuple[Path, ...]
    n_records: int
    n_alleles: int
    flags: Counter[str]
    metrics: Sequence[Metric]
    renamed: Mapping[str, str]


class Scores(NamedTuple):
    """One row an allele, one row an allele and gene around it, and records for metrics.json."""

    table: pd.DataFrame
    genes: pd.DataFrame
    metrics: list[Metric]


def region_track(bundle: Bundle) -> UInt8[np.ndarray, " length"]:
    """Index into `REGIONS` for every base of the genome: one class each, promoters first.

    `other` is what `region_masks` has in none: RNA genes, pseudogenes, genes without a reading
    frame, bases of genes on both strands.
    """
    masks = region_masks(bundle)
    track = np.zeros(bundle.genome.length, np.uint8)
    for i, name in enumerate(REGIONS[1:], 1):
        track[masks[name]] = i
    return track


def region_of(genome: Genome, track: UInt8[np.ndarray, " length"], contig: str, start: int) -> str:
    """The class of one base; behind the end of a contig that of the next or last one."""
    own = genome.contig(contig)
    at = start % own.length if own.is_circular else min(start, own.length - 1)
    return REGIONS[track[own.offset + at]]


def ready(
    models: Models, bundle: Bundle, settings: Settings
) -> tuple[likelihood.MaskedBases | None, Levels | None, TrackChanges | None]:
    """The score of each kind of model that there is."""
    level_models = [LevelModel(model, bundle) for model in models.levels]
    masked, tracks, window_bp = models.masked, models.tracks, settings.level_window_bp
    return (
        None if masked is None else likelihood.MaskedBases(masked, settings.relatives),
        Levels(level_models, bundle, window_bp=window_bp) if level_models else None,
        None if tracks is None else TrackChanges(tracks, bundle.genome, window_bp=window_bp),
    )


def column_ratio(bundle: Bundle, allele: Allele) -> float | None:
    """As `Relatives.log_ratio`; None where there are neither relatives nor a score, too."""
    if bundle.conserved_by is None:
        return None
    at, _ = bundle.genome.indices(allele.contig, allele.start, allele.end)
    return bundle.conserved_by.log_ratio(at, allele.ref, allele.alt)


class Scorer:
    """Scores chunks of records; everything that chunks share is made once."""

    def __init__(self, models: Models, bundle: Bundle, settings: Settings) -> None:
        self.settings, self.bundle, self.genome = settings, bundle, bundle.genome
        self.names = alleles.contig_names(bundle)
        self.track = region_track(bundle)
        self.consequences = Consequences(bundle.genome, bundle.genes)
        self.masked, self.levels, self.tracks = ready(models, bundle, settings)
        self.matched = None
        if self.masked and settings.with_percentile:
            self.matched = Matched(self.masked, self.genome, self.track, seed=settings.seed)
        columns = COLUMNS + LEVEL_COLUMNS * bool(self.levels)
        if self.tracks:
            columns += [("track", TEXT), ("dtrack", REAL)]
            columns += [(f"dtrack:{label}", REAL) for label in self.tracks.labels]
        self.columns = pa.schema(columns)
        self.metrics = self.matched.metrics if self.matched else []
        self.fields = ["GS_LLR"] * bool(self.masked) + ["GS_PCT"] * bool(self.matched)
        self.fields += ["GS_CONS"] * (bundle.conserved_by is not None)
        self.fields += ["GS_DLEVEL", "GS_GENE"] * bool(self.levels)
        self.fields += ["GS_DTRACK", "GS_TRACK"] * bool(self.tracks) + ["GS_FLAG"]

    def __call__(
        self, records: Sequence[vcf.Record], first: int = 1
    ) -> tuple[list[list[vcf.Row]], list[vcf.Row]]:
        """For each record one row an allele (or one where it has none); and the rows of genes.

        `first` is the number of the first record.
        """
        checked = [
            alleles.check_record(one, self.names, self.settings.max_length_bp) for one in records
        ]
        valid = [one for found in checked for one in found if isinstance(one, Allele)]
        ratios: Sequence[likelihood.Likelihood | None] = [None] * len(valid)
        if self.masked:
            place = self.masked, self.genome, valid
            ratios = likelihood.allele_likelihoods(*place, window_bp=self.settings.window_bp)
        changes = self.levels(valid) if self.levels else [[]] * len(valid)
        moved = self.tracks(valid) if self.tracks else [np.zeros(0)] * len(valid)
        scores = zip(ratios, changes, moved, strict=True)
        rows, genes = [], list[vcf.Row]()
        for number, (record, found) in enumerate(zip(records, checked, strict=True), first):
            own = []
            for alt, allele in zip(record.alts or (".",), found, strict=True):
                row: vcf.Row = dict.fromkeys(self.columns.names)
                row |= {
                    "record": number, "contig": record.contig, "position": record.position + 1,
                    "id": record.name, "ref": record.ref, "alt": alt,
                }  # fmt: skip
                if isinstance(allele, Allele):
                    genes += self._score(row, allele, *next(scores))
                else:
                    row["flag"] = allele
                own.append(row)
            rows.append(own)
        return rows, genes

    def _score(
        self,
        row: vcf.Row,
        allele: Allele,
        ratio: likelihood.Likelihood | None,
        changes: Sequence[GeneChange],
        moved: Float[np.ndarray, " tracks"],
    ) -> list[vcf.Row]:
        flags = []
        if self.tracks is not None:
            most, labels = int(np.abs(moved).argmax()), self.tracks.labels
            row |= {
                f"dtrack:{one}": value for one, value in zip(labels, moved.tolist(), strict=True)
            }
            row |= {"track": labels[most], "dtrack": float(moved[most])}
        region = region_of(self.genome, self.track, allele.contig, allele.start)
        row |= {"kind": allele.kind, "region": region}
        row["consequence"], row["consequence_gene"] = self.consequences(allele)
        row["conservation"] = column_ratio(self.bundle, allele)
        if ratio is not None:
            row |= {
                "llr": ratio.mean, "llr_forward": ratio.forward, "llr_reverse": ratio.reverse,
                "strand_spread": ratio.spread,
            }  # fmt: skip
            if self.matched is not None:
                row["percentile"] = self.matched.percentile(allele, region, ratio.mean)
            if ratio.abstains(self.settings.abstain):
                flags.append("abstains")
        if self.levels is not None:
            row["n_genes"] = len(changes)
        if (one := strongest(changes)) is not None:
            row |= {"gene_id": one.gene_id} | _change(one)
            if one.agreement < MIN_AGREEMENT:
                flags.append("models_disagree")
        row["flag"] = "|".join(flags) or None
        site = {name: row[name] for name, _ in SITE}
        return [
            site
            | {
                "gene_id": one.gene_id, "name": str(self.bundle.names[one.gene_id]),
                "distance_bp": one.distance_bp, "level": float(np.mean(one.levels)),
                "condition": one.condition, "dresidual": one.dresidual,
            }
            | _change(one)
            for one in changes
        ]  # fmt: skip


def _change(one: GeneChange) -> vcf.Row:
    return {"dlevel": one.mean, "model_spread": one.spread, "agreement": one.agreement}


def info(rows: Sequence[vcf.Row], fields: Sequence[str]) -> dict[str, list[str | None]]:
    """The INFO values of one record."""
    values: dict[str, list[str | None]] = {}
    for field in fields:
        column, _, withheld, _ = vcf.FIELDS[field]
        values[field] = [None if withheld in flags_of(row) else _text(row[column]) for row in rows]
    return values


def flags_of(row: vcf.Row) -> list[str]:
    """The flags of an allele."""
    return [] if row["flag"] is None else row["flag"].split("|")


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _checked(path: Path, bundle: Bundle, progress: Progress) -> alleles.Survey:
    """Read the whole of a VCF, and compare every REF with the genome."""
    vcf.read_header(path)
    found = alleles.survey_file(vcf.read_records(path), bundle, path, vcf.contig_lengths(path))
    if found.unknown:
        named = some((name for name, _ in found.unknown.most_common()), 3)
        progress(f"variants: contigs that the data do not have: {named}")
    if found.renamed:
        named = some((f"{name} is {own}" for name, own in found.renamed.items()), 3)
        progress(f"variants: contigs that the data call otherwise: {named}")
    if found.n_swapped:
        progress(f"variants: records whose REF and ALT look swapped: {found.n_swapped}")
    return found


def annotate_vcf(
    models: Models,
    bundle: Bundle,
    path: Path,
    out: Path,
    *,
    settings: Settings | None = None,
    progress: Progress = lambda text: None,
) -> Annotated:
    """Write `out`: every record of `path` in its order, with INFO fields; and tables next to it.

    The file is read twice: first every REF is compared with the genome, then records are scored.

    Raises
    ------
    InputError
        If `path` is no VCF, declares other lengths of contigs than the genome's, or more than
        5 % of its REFs are not those of the genome.
    """
    checked = _checked(path, bundle, progress)
    scorer = Scorer(models, bundle, settings or Settings())
    flags, done, n_alleles, records = Counter[str](), 0, 0, vcf.read_records(path)
    schemas = {"": scorer.columns} | ({".genes": GENE_COLUMNS} if scorer.levels else {})
    with ExitStack() as stack:
        notes = [f"##source=genesplice {bundle.name}"]
        if scorer.settings.relatives != "all":
            notes.append(f"##GS_LLR=relatives: {scorer.settings.relatives}")
        writer = stack.enter_context(vcf.write_vcf(out, path, scorer.fields, notes))
        write_rows, *write_genes = (
            stack.enter_context(vcf.write_table(vcf.beside(out, stem), schema))
            for stem, schema in schemas.items()
        )
        while chunk := list(islice(records, CHUNK)):
            scored, genes = scorer(chunk, done + 1)
            for record, rows in zip(chunk, scored, strict=True):
                writer.write(record, info(rows, scorer.fields))
            every = [row for rows in scored for row in rows]
            write_rows(every)
            for write in write_genes:
                write(genes)
            flags.update(flag for row in every for flag in flags_of(row) or ["scored"])
            n_alleles, done = n_alleles + len(every), done + len(chunk)
            if done % (8 * CHUNK) == 0:
                progress(f"variants: {done} of {checked.n_records} records")
    if not done:
        progress(f"variants: 0 variants in {path.name}")
    files = [
        out,
        *(vcf.beside(out, s + ending) for s in schemas for ending in (".tsv", ".parquet")),
    ]
    for old in (".tbi", ".csi"):
        out.with_name(out.name + old).unlink(missing_ok=True)
    if not writer.is_sorted:
        progress("variants: not sorted, so there is no index")
    elif out.suffix in (".gz", ".bgz"):
        if made := vcf.index(out):
            files.append(made)
        else:
            progress("variants: a position beyond what an index holds, so there is none")
    return Annotated(tuple(files), done, n_alleles, flags, scorer.metrics, checked.renamed)


def flag_metrics(done: Annotated) -> list[Metric]:
    """Records read, alleles without a flag, and those with each; then what else was measured."""
    counts = {"records": done.n_records, "scored": done.flags["scored"]}
    counts |= {f"flag:{name}": done.flags[name] for name in alleles.FLAGS}
    counted = [
        Metric(f"variants_{name}", float(count), None, None, done.n_alleles, "genesplice", "input")
        for name, count in counts.items()
    ]
    return [*counted, *done.metrics]


def score_variants(
    models: Path | Sequence[Path] | Models,
    bundle: Bundle,
    variants: Path | pd.DataFrame,
    *,
    settings: Settings | None = None,
) -> Scores:
    """Score a VCF, or a table with contig, position (from 1), ref and alt, as plain tables.

    `models` are folders of pretrain or finetune, or what `open_models` made of them.

    Raises
    ------
    InputError
        As `annotate_vcf`; for a column that the table lacks.
    """
    if isinstance(variants, pd.DataFrame):
        records, renamed = vcf.table_records(variants), dict[str, str]()
    else:
        renamed = _checked(variants, bundle, lambda text: None).renamed
        records = list(vcf.read_records(variants))
    scorer = Scorer(open_models(models), bundle, settings or Settings())
    scored, genes = scorer(records)
    rows = [row for own in scored for row in own]
    flags = Counter(flag for row in rows for flag in flags_of(row) or ["scored"])
    done = Annotated((), len(records), len(rows), flags, scorer.metrics, renamed)
    table, around = (
        pa.Table.from_pylist(part, schema=schema).to_pandas()
        for part, schema in ((rows, scorer.columns), (genes, GENE_COLUMNS))
    )
    return Scores(table, around, flag_metrics(done))

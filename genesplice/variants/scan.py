"""Every single-base substitution of a region, or of all contigs, by strided masking; resumable.

Bases are hidden 32 apart, all of one remainder at once: 32 passes score every base on both
strands. The other hidden bases depend on the position alone, so that a score is the same whichever
region it is asked for in, window edges aside (cores lie on a fixed grid).
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pysam
from jaxtyping import UInt8

from genesplice.data.bundle import Bundle, Progress
from genesplice.data.features import find_promoter
from genesplice.data.genome import ALPHABET, Genome
from genesplice.errors import InputError, require
from genesplice.model.genesplice import PretrainingModel
from genesplice.predict.gene_output import resolve_genes
from genesplice.predict.models import Models, claim_parts, open_models
from genesplice.results import Conservation, Metric, MotifHit
from genesplice.runtime import Countdown, tell, write_table
from genesplice.variants import likelihood
from genesplice.variants.alleles import ContigNames, Region

CORE_BP = 6144
FLANK_BP = 1024
WELL_KNOWN = ("lacZ", "araB")
TO_BASES = [f"to_{base}" for base in likelihood.BASES]


def parse_region(
    text: str, names: ContigNames, option: str = "--region", tell: Progress = tell
) -> list[Region]:
    """Read `contig`, `contig:start-end` (1-based, both ends in) or `all`.

    A contig may be called as in a VCF; `tell` gets a line where that is another name.

    Raises
    ------
    InputError
        For an unknown contig, and an interval that is empty or leaves the contig.
    """
    if text == "all":
        return [Region(contig.name, 0, contig.length) for contig in names.genome.contigs]
    name, contig = text, names.find(text)
    low, high = "1", str(contig.length) if contig else ""
    if contig is None:
        name, colon, span = text.rpartition(":")
        low, dash, high = span.replace(",", "").partition("-")
        if not (colon and dash and low.isdecimal() and high.isdecimal()):
            raise InputError(f"{option} {text}", "all, contig, or contig:start-end")
        contig = names.find(name) or names.genome.contig(name)
    if name != contig.name:
        tell(f"{option} {text}: {name} is {contig.name}")
    region = Region(contig.name, int(low) - 1, int(high))
    if not 0 <= region.start < region.end <= contig.length:
        raise InputError(f"{option} {text}", f"start <= end within 1-{contig.length}")
    return [region]


def random_substitutions(genome: Genome, region: Region, count: int, seed: int = 0) -> pd.DataFrame:
    """`count` substitutions at different positions: contig, position (from 1), ref, alt.

    Sorted; every base other than the reference is equally likely.

    Raises
    ------
    InputError
        If the region has fewer known bases.
    """
    generator = np.random.default_rng(seed)
    tokens = genome.fetch(*region)
    known = np.flatnonzero(tokens < 4)
    require(len(known) >= count, f"{len(known)} known bases in {region}", f"{count} or more")
    positions = np.sort(generator.choice(known, count, replace=False))
    ref, step = tokens[positions].astype(int), generator.integers(1, 4, count)
    letters = np.array(list(ALPHABET))
    columns = {"position": region.start + positions + 1, "ref": letters[ref]}
    table = pd.DataFrame(columns | {"alt": letters[(ref + step) % 4]})
    table.insert(0, "contig", region.contig)
    return table


def cores(regions: Sequence[Region]) -> Iterator[Region]:
    """The regions cut where cores are cut."""
    for contig, start, end in regions:
        edges = [start, *range((start // CORE_BP + 1) * CORE_BP, end, CORE_BP), end]
        yield from (Region(contig, *edge) for edge in pairwise(edges))


def _strided(genome: Genome, core: Region) -> tuple[int, list[likelihood.Hidden]]:
    """Where the window of a core begins, and its bases hidden 32 apart.

    All of the core's bases are hidden, asked for or not: scores must not depend on the region.
    """
    low = core.start // CORE_BP * CORE_BP - FLANK_BP
    window = core.contig, low, low + CORE_BP + 2 * FLANK_BP
    tokens, columns = genome.fetch(*window), genome.fetch_columns(*window)
    inner = np.arange(FLANK_BP, FLANK_BP + CORE_BP)
    inner = inner[tokens[inner] < 4]
    turns = (
        inner[(inner + low) % likelihood.STRIDE_BP == turn] for turn in range(likelihood.STRIDE_BP)
    )
    rows = [likelihood.Hidden(tokens, turn, columns) for turn in turns]
    return low, rows


def scan_core(score: likelihood.MaskedBases, genome: Genome, core: Region) -> pd.DataFrame:
    """Ratios of all substitutions of an interval within one core.

    Columns: contig, position (from 1), ref, to_A … to_T (mean of both strands, 0 for the base
    that is there), strand_spread (the largest difference between the strands). No rows for N.
    """
    low, rows = _strided(genome, core)
    start, end = core.start - low, core.end - low
    rows = [row for row in rows if ((row.positions >= start) & (row.positions < end)).any()]
    tokens = genome.fetch(*core)
    change = np.full((2, CORE_BP + 2 * FLANK_BP, 4), np.nan)
    for row, found in zip(rows, likelihood.substitutions(score, rows), strict=True):
        change[:, row.positions] = found
    known = np.flatnonzero(tokens < 4)
    change = change[:, start + known]
    mean = change.mean(0)
    place = {"contig": core.contig, "position": core.start + known + 1}
    table = pd.DataFrame(place | {"ref": np.array(list(likelihood.BASES))[tokens[known]]})
    table[TO_BASES] = mean.astype(np.float32)
    spread = np.abs(change[0] - change[1]).max(1).astype(np.float32)
    return table.assign(strand_spread=spread)


class PromoterScan(NamedTuple):
    """A promoter on the sense strand; entry 0 of all lies `offset_bp` from the TSS.

    `table` has the rows of `scan_core` with the letters of the sense strand, and `distance_bp` from
    the TSS. `hexamers` are found without the model, and count from the TSS. `conservation` is that
    of the bases from the table's first to its last, None where the data have no relatives.
    """

    gene_id: str
    offset_bp: int
    table: pd.DataFrame
    tokens: UInt8[np.ndarray, " length"]
    hexamers: list[MotifHit]
    conservation: Conservation | None


def scan_promoter(
    models: Path | Sequence[Path] | Models | PretrainingModel,
    bundle: Bundle,
    gene: str = "",
    *,
    upstream_bp: int = 200,
    downstream_bp: int = 60,
) -> PromoterScan:
    """Score every substitution of a gene's promoter, by name or id.

    Without a gene the first of `WELL_KNOWN` that the data have, else the most active one.

    Raises
    ------
    InputError
        Without a masked-base model, or for a gene that the data do not have.
    """
    model = models if isinstance(models, PretrainingModel) else open_models(models).masked
    if model is None:
        raise InputError("no masked-base model", "a folder that pretrain wrote")
    known = set(bundle.genes["name"])
    names = [gene] if gene else [name for name in WELL_KNOWN if name in known]
    names = names or [bundle.observed.mean(axis=1).idxmax()]
    (gene_id,) = resolve_genes(bundle, names[:1])
    row = bundle.genes.set_index("gene_id").loc[gene_id]
    contig, tss = bundle.genome.contig(row["contig"]), int(row["tss"])
    is_plus = row["strand"] == "+"
    low, high = (-upstream_bp, downstream_bp) if is_plus else (1 - downstream_bp, upstream_bp + 1)
    low, high = max(tss + low, 0), min(tss + high, contig.length)
    score, region = likelihood.MaskedBases(model), Region(contig.name, low, high)
    parts = [scan_core(score, bundle.genome, core) for core in cores([region])]
    table = pd.concat(parts, ignore_index=True)
    table["distance_bp"] = (table["position"] - 1 - tss) * (1 if is_plus else -1)
    if not is_plus:
        flip = dict(zip(likelihood.BASES, likelihood.BASES[::-1], strict=True))
        names_of = {f"to_{one}": f"to_{other}" for one, other in flip.items()}
        table = table.iloc[::-1].reset_index(drop=True).rename(columns=names_of)
        table["ref"] = table["ref"].map(flip)
    tokens = bundle.genome.fetch(*region, row["strand"])
    offset = low - tss if is_plus else tss - high + 1
    hexamers = [
        hit._replace(start=hit.start + offset, end=hit.end + offset)
        for hit in find_promoter(tokens[:-offset])
    ]
    low, high = int(table["position"].min()) - 1, int(table["position"].max())
    found = bundle.conservation(contig.name, low, high, row["strand"])
    return PromoterScan(gene_id, offset, table, tokens, hexamers, found)


def scan_regions(
    score: likelihood.MaskedBases,
    genome: Genome,
    regions: Sequence[Region],
    parts: Path,
    out: Path,
    *,
    progress: Progress = lambda text: None,
) -> list[Path]:
    """Scan core by core into `parts`, then write the files of `out`.

    A core whose file is there is not scanned again: a run that was stopped goes on.

    `scan.parquet` and `scan.tsv.gz` have the rows of `scan_core`; `mean_llr.bedgraph.gz` the mean
    over the three substitutions of each base. The two texts are bgzip with tabix indices.

    Raises
    ------
    InputError
        If `parts` holds a scan with another model.
    """
    claim_parts(parts, "", [score.model])
    every = list(cores(regions))
    files = []
    for core in Countdown(len(every), f"scan: intervals of {CORE_BP} bp", progress).over(every):
        file = parts / f"{core.contig.replace('/', '_')}_{core.start}_{core.end}.parquet"
        if not file.exists():
            write_table(file, scan_core(score, genome, core))
        files.append(file)
    return _write(files, out)


def scan_metrics(
    score: likelihood.MaskedBases, genome: Genome, regions: Sequence[Region]
) -> list[Metric]:
    """How far ratios of bases hidden together are from those of bases hidden alone."""
    every = list(cores(regions))
    row = _strided(genome, every[len(every) // 2])[1][0]
    if not len(row.positions):
        return []
    return likelihood.agreement(
        score, [row], likelihood.substitutions(score, [row]), n_positions=32
    )


def _write(files: Sequence[Path], out: Path) -> list[Path]:
    names = "scan.parquet", "scan.tsv.gz", "mean_llr.bedgraph.gz"
    table, text, graph = (out / name for name in names)
    schema = pq.read_schema(files[0])
    with (
        pq.ParquetWriter(table, schema) as writer,
        pysam.BGZFile(str(text), "wb", None) as rows,
        pysam.BGZFile(str(graph), "wb", None) as track,
    ):
        rows.write(("#" + "\t".join(schema.names) + "\n").encode())
        for file in files:
            writer.write_table(pq.read_table(file).cast(schema))
            part = pd.read_parquet(file)
            mean = part[TO_BASES].sum(axis=1) / 3
            line = part[["contig"]].assign(s=part["position"] - 1, e=part["position"], v=mean)
            for sink, shown in ((rows, part), (track, line)):
                lines = shown.to_csv(sep="\t", header=False, index=False, float_format="%.5g")
                sink.write(lines.encode())
    place: dict[str, Any] = {"force": True, "seq_col": 0, "start_col": 1, "meta_char": "#"}
    pysam.tabix_index(str(text), end_col=1, **place)
    pysam.tabix_index(str(graph), end_col=2, zerobased=True, **place)
    return [table, text, graph]

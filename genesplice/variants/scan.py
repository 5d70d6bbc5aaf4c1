"""Every single-base substitution of a stretch, or of all contigs; resumable.

Bases are hidden 32 apart, all of one remainder at once: 32 passes read every base on both strands.
What is hidden beside a base depends on its position alone, so that a score is the same whichever
region it is asked for in, window edges aside (cores lie on a fixed grid).
"""

import gzip
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pysam

from genesplice.data.genome import Genome
from genesplice.errors import InputError
from genesplice.results import Metric
from genesplice.runtime import atomic_file
from genesplice.variants.comb import EVERY_BP, agreement, substitutions
from genesplice.variants.likelihood import Hidden, MaskedBases

CORE_BP = 6144
FLANK_BP = 1024
BASES = "ACGT"

Progress = Callable[[str], None]


class Region(NamedTuple):
    """A stretch of a contig, 0-based half-open."""

    contig: str
    start: int
    end: int


def parse_region(text: str, genome: Genome) -> list[Region]:
    """Read `contig`, `contig:start-end` (1-based, both ends in) or `all`.

    Raises
    ------
    InputError
        For an unknown contig, and a stretch that is empty or leaves the contig.
    """
    if text == "all":
        return [Region(c.name, 0, c.length) for c in genome.contigs]
    if text in {c.name for c in genome.contigs}:
        return [Region(text, 0, genome.contig(text).length)]
    name, colon, span = text.rpartition(":")
    low, dash, high = span.replace(",", "").partition("-")
    if not (colon and dash and low.isdecimal() and high.isdecimal()):
        raise InputError(f"--region {text}", "all, contig, or contig:start-end")
    contig = genome.contig(name)
    region = Region(name, int(low) - 1, int(high))
    if not 0 <= region.start < region.end <= contig.length:
        raise InputError(f"--region {text}", f"start <= end within 1-{contig.length}")
    return [region]


def scan_core(score: MaskedBases, genome: Genome, core: Region) -> pd.DataFrame:
    """Ratios of all substitutions of a stretch of at most `CORE_BP`.

    Columns: contig, position (from 1), ref, to_A … to_T (mean of both strands, 0 for the base
    that is there), strand_spread (the largest difference between the strands). No rows for N.
    """
    low = core.start // CORE_BP * CORE_BP - FLANK_BP
    tokens = genome.fetch(core.contig, low, low + CORE_BP + 2 * FLANK_BP)
    places = np.arange(core.start - low, core.end - low)
    places = places[tokens[places] < 4]
    turns = [places[(places + low) % EVERY_BP == turn] for turn in range(EVERY_BP)]
    # All of the core, asked for or not: what is hidden must not depend on the region.
    inner = np.arange(FLANK_BP, FLANK_BP + CORE_BP)
    inner = inner[tokens[inner] < 4]
    rows, kept = [], []
    for turn, mine in enumerate(turns):
        if len(mine):
            hidden = inner[(inner + low) % EVERY_BP == turn]
            rows.append(Hidden(tokens, hidden))
            kept.append(np.isin(hidden, mine))
    change = np.full((2, len(tokens), 4), np.nan)
    for row, is_kept, told in zip(rows, kept, substitutions(score, rows), strict=True):
        change[:, row.places[is_kept]] = told[:, is_kept]
    change = change[:, places]
    mean = change.mean(0)
    return pd.DataFrame(
        {
            "contig": core.contig,
            "position": places + low + 1,
            "ref": [BASES[token] for token in tokens[places]],
            **{f"to_{base}": mean[:, i].astype(np.float32) for i, base in enumerate(BASES)},
            "strand_spread": np.abs(change[0] - change[1]).max(1).astype(np.float32),
        }
    )


def cores(regions: list[Region]) -> Iterator[Region]:
    """The regions cut where cores are cut."""
    for contig, start, end in regions:
        low = start
        while low < end:
            high = min((low // CORE_BP + 1) * CORE_BP, end)
            yield Region(contig, low, high)
            low = high


def scan_regions(
    score: MaskedBases,
    genome: Genome,
    regions: list[Region],
    parts: Path,
    out: Path,
    *,
    progress: Progress | None = None,
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
    tell = progress or (lambda text: None)
    parts.mkdir(parents=True, exist_ok=True)
    _claim(parts, score)
    wanted = list(cores(regions))
    files = []
    for done, core in enumerate(wanted, 1):
        file = parts / f"{core.contig.replace('/', '_')}_{core.start}_{core.end}.parquet"
        if not file.exists():
            with atomic_file(file) as partial:
                scan_core(score, genome, core).to_parquet(partial, index=False)
            if done % 10 == 0 or done == len(wanted):
                tell(f"scan: {done} of {len(wanted)} stretches of {CORE_BP} bp")
        files.append(file)
    return _write(files, out)


def scan_metrics(
    score: MaskedBases, genome: Genome, regions: list[Region], *, seed: int = 0
) -> list[Metric]:
    """How far ratios of bases hidden together are from those of bases hidden alone."""
    every = list(cores(regions))
    core = every[len(every) // 2]
    low = core.start // CORE_BP * CORE_BP - FLANK_BP
    tokens = genome.fetch(core.contig, low, low + CORE_BP + 2 * FLANK_BP)
    inner = np.arange(FLANK_BP, FLANK_BP + CORE_BP)
    inner = inner[(tokens[inner] < 4) & ((inner + low) % EVERY_BP == 0)]
    if not len(inner):
        return []
    row = [Hidden(tokens, inner)]
    return agreement(score, row, substitutions(score, row), n_places=32, seed=seed)


def _claim(parts: Path, score: MaskedBases) -> None:
    digest = hashlib.sha256()
    for name, value in sorted(score.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    note, mine = parts / "scan.txt", f"model {digest.hexdigest()[:16]}"
    if note.exists() and note.read_text() != mine:
        raise InputError(f"a scan with {note.read_text()}", mine, path=parts)
    note.write_text(mine)


def _write(files: list[Path], out: Path) -> list[Path]:
    table, text, graph = (
        out / name for name in ("scan.parquet", "scan.tsv.gz", "mean_llr.bedgraph.gz")
    )
    schema = pq.read_schema(files[0])
    with (
        pq.ParquetWriter(table, schema) as writer,
        pysam.BGZFile(str(text), "wb", None) as rows,
        pysam.BGZFile(str(graph), "wb", None) as track,
    ):
        rows.write(("#" + "\t".join(schema.names) + "\n").encode())
        for file in files:
            part = pd.read_parquet(file)
            writer.write_table(pq.read_table(file).cast(schema))
            shown = part.to_csv(sep="\t", header=False, index=False, float_format="%.5g")
            rows.write(shown.encode())
            mean = part[[f"to_{base}" for base in BASES]].sum(axis=1) / 3
            line = pd.DataFrame(
                {"c": part["contig"], "s": part["position"] - 1, "e": part["position"], "v": mean}
            )
            shown = line.to_csv(sep="\t", header=False, index=False, float_format="%.5g")
            track.write(shown.encode())
    pysam.tabix_index(str(text), force=True, seq_col=0, start_col=1, end_col=1, meta_char="#")
    pysam.tabix_index(
        str(graph), force=True, seq_col=0, start_col=1, end_col=2, zerobased=True, meta_char="#"
    )
    return [table, text, graph]


def read_scan(path: Path) -> pd.DataFrame:
    """The rows of a `scan.tsv.gz`."""
    with gzip.open(path, "rt") as handle:
        names = handle.readline().lstrip("#").rstrip("\n").split("\t")
        return pd.read_csv(handle, sep="\t", names=names)

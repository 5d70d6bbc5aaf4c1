"""Tracks along the genome: coverage (bigWig) and peaks (BED), in bins of 128 bp on disk.

A bin has the mean coverage of its bases, or 1 where it is a peak's and 0 elsewhere. Bases without
an entry count as 0, as tools that write coverage mean it; a block without any entry, and bins of
which most is blacklisted, are missing (NaN): nobody learns from them or is measured there. Values
are kept as they were measured; `scale_targets` scales them by what a fold may see.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int64, Shaped

from genesplice.config.model import SUMMARY_BP
from genesplice.data.alignments import open_bigwig
from genesplice.data.annotation import FileContigs, Unplaced
from genesplice.data.genome import Contig, Genome, Mask
from genesplice.data.tables import bed_rows, counted, plain_suffix, readable
from genesplice.errors import InputError, require
from genesplice.runtime import write_json

BIN_BP = SUMMARY_BP
FILES = ("tracks.npy", "tracks.json")
COVERAGE, PEAKS = "coverage", "peaks"
KINDS = dict.fromkeys((".bw", ".bigwig"), COVERAGE) | dict.fromkeys(
    (".bed", ".narrowpeak", ".broadpeak"), PEAKS
)
SUFFIXES = "a name in .bw, .bigWig, .bed, .narrowPeak or .broadPeak"
CHUNK_BP = BIN_BP << 13
"""Bases of a bigWig that are in memory at a time."""
CLIP = 32.0
"""Times the mean, above which the square root of the excess counts."""
Bins = Int64[np.ndarray, " bins"]
Values = Float[np.ndarray, "tracks bins"]


class Tracks(NamedTuple):
    """`values[t, b]` of bin b, all contigs' one after another (`bin_offsets`); NaN is missing.

    `table` has a row a track: name, kind (coverage or peaks) and strand (+, - or . for both). A
    memory map where it was read from a bundle.
    """

    values: Values
    table: pd.DataFrame

    @property
    def is_peaks(self) -> Bool[np.ndarray, " tracks"]:
        """Which tracks have peaks."""
        return (self.table["kind"] == PEAKS).to_numpy()

    @property
    def other_strand(self) -> Int64[np.ndarray, " tracks"]:
        """What each track is on the other strand: + and - of one name change places."""
        keys = zip(self.table["name"], self.table["strand"], strict=True)
        row, flip = {key: i for i, key in enumerate(keys)}, {"+": "-", "-": "+", ".": "."}
        return np.array([row[name, flip[strand]] for name, strand in row])

    @property
    def labels(self) -> list[str]:
        """Names with their strand, where they have one."""
        pairs = zip(self.table["name"], self.table["strand"], strict=True)
        return [name + strand.strip(".") for name, strand in pairs]


def n_bins(contig: Contig) -> int:
    """Bins of a contig; the last may be shorter."""
    return -(-contig.length // BIN_BP)


def bin_offsets(genome: Genome) -> dict[str, int]:
    """Where the bins of each contig begin."""
    counts = np.cumsum([0, *map(n_bins, genome.contigs)])
    return {contig.name: int(first) for contig, first in zip(genome.contigs, counts, strict=False)}


def bin_blocks(genome: Genome, blocks: pd.DataFrame) -> Bins:
    """The row of `blocks` that each bin lies in; -1 where two folds meet in one bin."""
    parts, fold = [], blocks["fold"].to_numpy()
    for contig in genome.contigs:
        own = np.flatnonzero(blocks["contig"] == contig.name)
        order = own[np.argsort(blocks["start"].to_numpy()[own])]
        starts, first = blocks["start"].to_numpy()[order], np.arange(n_bins(contig)) * BIN_BP
        # Before the first block lies the last one, round the circle.
        low, high = (
            order[np.searchsorted(starts, at, side="right") - 1]
            for at in (first, np.minimum(first + BIN_BP, contig.length) - 1)
        )
        parts.append(np.where(fold[low] == fold[high], low, -1))
    return np.concatenate(parts)


def write_tracks(
    given: Sequence[str | Path],
    genome: Genome,
    blocks: pd.DataFrame,
    folder: Path,
    *,
    blacklist: Path | None = None,
    aliases: Mapping[str, str] | None = None,
) -> list[str]:
    """Bin the files into `folder`, a piece of a contig at a time; what was guessed or left out.

    Parameters
    ----------
    given
        Files; the two strands of one assay are "PLUS.bw,MINUS.bw". A BED file whose lines all have
        a strand becomes two tracks.
    blacklist
        BED of intervals whose bases do not count.
    aliases
        Contigs of other files by their names in the genome.

    Raises
    ------
    InputError
        For a file of neither kind, one that is damaged, two of one name, contigs that are all
        unknown or of another length, values below 0 or that are no numbers, an interval that is
        empty or beyond its contig, and a track without data in a whole fold.
    """
    block_of, offsets = bin_blocks(genome, blocks), bin_offsets(genome)
    clear, notes = np.ones(0, bool), list[str]()
    if blacklist is not None:
        clear = np.ones(genome.length, bool)
        for contig, start, end, _ in _intervals(blacklist, genome, aliases, notes):
            clear[contig.offset + start : contig.offset + end] = False
        notes.append(f"blacklisted bases: {int((~clear).sum())} of {genome.length}")
    files = _planned(given, genome, aliases, notes)
    total = sum(map(n_bins, genome.contigs))
    values = np.lib.format.open_memmap(
        folder / FILES[0], mode="w+", dtype=np.float32, shape=(len(files), total)
    )
    for row, one in zip(values, files, strict=True):
        row[:] = 0
        for contig in genome.contigs:
            at = slice(offsets[contig.name], offsets[contig.name] + n_bins(contig))
            is_clear = clear[contig.offset : contig.offset + contig.length]
            row[at] = one.read(contig, block_of[at], is_clear)
        fold = np.where(block_of < 0, -1, blocks["fold"].to_numpy()[block_of])
        for held_out in np.unique(blocks["fold"]):
            own = row[fold == held_out]
            has_data = (np.isfinite(own) if one.kind == COVERAGE else own > 0).any()
            found = f"track {one.name}{one.strand.strip('.')} without data in fold {held_out}"
            require(has_data and np.nan_to_num(own).any(), found, "data in every fold", one.path)
        empty = np.unique(block_of[np.isnan(row) & (block_of >= 0)])
        lost = [i for i in empty if np.isnan(row[block_of == i]).all()]
        if lost:
            named = blocks["block"].iloc[lost]
            notes.append(counted(f"blocks without data in {one.path.name}, left out", named))
    values.flush()
    columns = ["name", "kind", "strand"]
    write_json(folder / FILES[1], [{key: getattr(one, key) for key in columns} for one in files])
    return notes


def read_tracks(folder: Path) -> Tracks:
    """What `write_tracks` wrote; values are a memory map."""
    table = pd.DataFrame(json.loads((folder / FILES[1]).read_text()))
    return Tracks(np.load(folder / FILES[0], mmap_mode="r"), table)


# --- files ---

Read = Callable[[Contig, Bins, Mask], Float[np.ndarray, " bins"]]


class _Planned(NamedTuple):
    """A track to be: `read` gives the bins of a contig, from their blocks and the clear bases."""

    name: str
    kind: str
    strand: str
    path: Path
    read: Read


def _planned(
    given: Sequence[str | Path], genome: Genome, aliases: Mapping[str, str] | None, notes: list[str]
) -> list[_Planned]:
    planned: list[_Planned] = []
    for value in given:
        paths = [Path(part) for part in str(value).split(",")]
        kinds = [KINDS.get(plain_suffix(path)) for path in paths]
        for path, kind in zip(paths, kinds, strict=True):
            readable(path)
            if kind is None or (len(paths) > 1 and (kind == PEAKS or len(paths) > 2)):
                expected = SUFFIXES if kind is None else "PLUS.bw,MINUS.bw"
                raise InputError(f"a track called {path.name}", expected, path=path)
        name = paths[0].name.split(".", 1)[0]
        if name in {one.name for one in planned}:
            raise InputError(f"two tracks called {name}", "different names", path=paths[0])
        if kinds[0] == COVERAGE:
            for path, strand in zip(paths, "+-" if len(paths) == 2 else ".", strict=True):
                read = _coverage(path, genome, aliases, strand == "-", notes)
                planned.append(_Planned(name, COVERAGE, strand, path, read))
        else:
            peaks = list(_intervals(paths[0], genome, aliases, notes))
            is_stranded = all(strand in ("+", "-") for *_, strand in peaks)
            for strand in "+-" if is_stranded else ".":
                own = [peak for peak in peaks if strand in (".", peak[3])]
                planned.append(_Planned(name, PEAKS, strand, paths[0], _peaks(own)))
    return planned


def _coverage(
    path: Path,
    genome: Genome,
    aliases: Mapping[str, str] | None,
    is_minus: bool,
    notes: list[str],
) -> Read:
    """Means of a bigWig's bins; what is wrong with the file as a whole is said at once."""
    reader, called = open_bigwig(path, genome, aliases, notes)
    whole = reader.info()["summary"]
    sign = -1.0 if is_minus and whole["max"] <= 0 and whole["min"] < 0 else 1.0
    if min(sign * whole["min"], sign * whole["max"]) < 0:
        raise InputError(f"the value {whole['min']:g}", "coverage, 0 or more", path=path)
    if sign < 0:
        notes.append(f"{path.name} has values below 0 only: they are read without their sign")

    def read(contig: Contig, block_of: Bins, clear: Mask) -> Float[np.ndarray, " bins"]:
        sums, count, covered = np.zeros((3, len(block_of)))
        for start in range(0, contig.length if contig.name in called else 0, CHUNK_BP):
            end = min(start + CHUNK_BP, contig.length)
            found = sign * reader.values(called[contig.name], start, end, fillna=None)
            if np.nanmin(found, initial=0) < 0:
                raise InputError("a value below 0", "coverage, 0 or more", path=path)
            kept = clear[start:end] if len(clear) else np.ones(end - start, bool)
            edges, at = np.arange(0, end - start, BIN_BP), start // BIN_BP
            here = slice(at, at + len(edges))
            there = ~np.isnan(found)
            sums[here] = np.add.reduceat(np.where(there & kept, found, 0.0), edges)
            count[here] = np.add.reduceat(kept, edges, dtype=float)
            covered[here] = np.add.reduceat(there, edges, dtype=float)
        size = np.minimum(np.arange(len(sums)) * BIN_BP + BIN_BP, contig.length)
        size = size - np.arange(len(sums)) * BIN_BP
        values = np.where(2 * count >= size, sums / np.maximum(count, 1), np.nan)
        for block in np.unique(block_of):
            if not covered[block_of == block].any():
                values[block_of == block] = np.nan
        return values

    return read


def _peaks(peaks: Iterable[tuple[Contig, int, int, str]]) -> Read:
    """1 where half of the bin, or half of a peak, is in it."""
    on_contig: dict[str, list[tuple[int, int]]] = {}
    for contig, start, end, _ in peaks:
        on_contig.setdefault(contig.name, []).append((start, end))

    def read(contig: Contig, block_of: Bins, clear: Mask) -> Float[np.ndarray, " bins"]:
        values = np.zeros(len(block_of))
        for start, end in on_contig.get(contig.name, ()):
            least, first, last = min(BIN_BP, end - start), start // BIN_BP, (end - 1) // BIN_BP
            if last > first:
                first += 2 * ((first + 1) * BIN_BP - start) < least
                last -= 2 * (end - last * BIN_BP) < least
            values[first : last + 1] = 1
        if len(clear):
            edges = np.arange(0, contig.length, BIN_BP)
            size = np.diff([*edges, contig.length])
            values[2 * np.add.reduceat(clear, edges, dtype=np.int64) < size] = np.nan
        return values

    return read


def _intervals(
    path: Path, genome: Genome, aliases: Mapping[str, str] | None, notes: list[str]
) -> Iterator[tuple[Contig, int, int, str]]:
    """Contig, start, end and strand (empty without one) of every line of a BED file."""
    contigs, lost, n_found = FileContigs(path, genome, aliases), list[Unplaced](), 0
    for line, cells in bed_rows(path, 3, "BED: contig, start, end"):
        try:
            contig = contigs.find(cells[0], line)
        except Unplaced as error:
            lost.append(error)
            continue
        start, end, n_found = int(cells[1]), int(cells[2]), n_found + 1
        expected = f"0 <= start < end <= {contig.length}, the length of {contig.name}"
        require(start < end <= contig.length, f"{start} to {end}", expected, path, line)
        yield contig, start, end, cells[5].strip() if len(cells) > 5 else ""
    notes += contigs.renames()
    if not n_found:
        raise lost[0] if lost else InputError("no interval", "BED", path=path)
    if lost:
        named = dict.fromkeys(error.found for error in lost)
        notes.append(counted(f"lines of {path.name} left out: {len(lost)}; for", named))


# --- targets, and what genes have of them ---


def scale_targets(
    values: Values, is_peaks: Bool[np.ndarray, " tracks"], means: Float[np.ndarray, " tracks"]
) -> Values:
    """Coverage as times the mean, softly clipped at `CLIP`; peaks as they are.

    Above CLIP a value x becomes CLIP - 1 + sqrt(x - CLIP + 1).

    Source: Avsec et al., Effective gene expression prediction from sequence by integrating
    long-range interactions, 2021 (the clip of their training data, at 32); Linder et al., 2025.
    """
    scaled = np.where(is_peaks[:, None], values, values / means[:, None])
    above = np.sqrt(np.maximum(scaled - CLIP, 0) + 1) + CLIP - 1
    return np.where(is_peaks[:, None] | ~(scaled > CLIP), scaled, above).astype(np.float32)


def exon_means(
    values: Shaped[np.ndarray, "tracks bins"], genome: Genome, genes: pd.DataFrame
) -> Float[np.ndarray, "tracks genes"]:
    """Mean of each track over the exons of each gene (the gene, where it has none).

    A bin counts by the bases that it shares with them; NaN where all of them are missing.
    """
    out, offsets = np.full((len(values), len(genes)), np.nan), bin_offsets(genome)
    for name, rows in genes.reset_index(drop=True).groupby("contig").groups.items():
        contig = genome.contig(str(name))
        edges = np.minimum(np.arange(n_bins(contig) + 1) * BIN_BP, contig.length)
        own = values[:, offsets[contig.name] : offsets[contig.name] + n_bins(contig)]
        weighted = np.stack([np.nan_to_num(own), np.isfinite(own)]) * np.diff(edges)
        totals = np.concatenate([np.zeros((2, len(values), 1)), weighted.cumsum(2)], 2)

        def up_to(at: np.ndarray, totals: Any = totals, edges: Any = edges) -> np.ndarray:
            """Totals of all bases before `at`, round the circle."""
            turns, rest = np.divmod(at, edges[-1])
            bins = np.minimum(rest // BIN_BP, len(edges) - 2)
            share = (rest - edges[bins]) / np.diff(edges)[bins]
            step = totals[..., bins + 1] - totals[..., bins]
            return totals[..., -1:] * turns + totals[..., bins] + step * share

        for row in rows:
            gene = genes.iloc[row]
            exons = np.sort(gene["exons"] if len(gene["exons"]) else [gene["start"], gene["end"]])
            sums = (up_to(exons[1::2]) - up_to(exons[::2])).sum(-1)
            out[:, row] = np.where(sums[1] > 0, sums[0] / np.maximum(sums[1], 1e-9), np.nan)
    return out

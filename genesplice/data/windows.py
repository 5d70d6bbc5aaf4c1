"""What a model is given: windows over a genome, and the graph of genes and pathways.

A window has tokens, the coding phase, alignment columns, and the genes whose TSS lies in its core.

Windows start on multiples of 1,024 bp, so that a gene falls into the same bins whichever window
it is read from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int8, Int64, UInt8
from torch import Tensor
from torch_geometric.data import HeteroData

from genesplice.config.model import REGION_BP
from genesplice.data.coding import coding_positions, exons_read
from genesplice.data.genome import Genome, Strand
from genesplice.data.tracks import BIN_BP, Tracks, bin_offsets, n_bins, scale_targets
from genesplice.errors import InputError, require

GENE_BODY = 4


class Window(NamedTuple):
    """An interval to encode; genes with their TSS in the core are predicted from it.

    0-based half-open contig coordinates; on a circular contig they may lie below 0 or beyond
    its length.
    """

    contig: str
    start: int
    end: int
    core_start: int
    core_end: int

    def core_bins(self, genome: Genome) -> tuple[slice, slice]:
        """The bins of the core, and where they are in the window."""
        offset = bin_offsets(genome)[self.contig]
        count, first = n_bins(genome.contig(self.contig)), self.start // BIN_BP
        low = max(self.core_start // BIN_BP, 0)
        high = max(min(-(-self.core_end // BIN_BP), count), low)
        return slice(offset + low, offset + high), slice(low - first, high - first)


class WindowBatch(NamedTuple):
    """Windows of one length, and the genes in their cores.

    `phase[:, 0]` belongs to genes on the + strand and `phase[:, 1]` to those on -, both in +
    coordinates: 0 = no gene, 1-3 = codon position, 4 = in a gene, in no reading frame.
    `gene` is a row of the gene table, `window` a row of `tokens`; `start` and `end` count from
    the window's start and may lie outside of it. `exons` has the number of a gene in the batch,
    start and end of each of its exons (`exons_read`), gene by gene as they are transcribed.
    `columns` are those of the genome (`Genome.fetch_columns`), on the + strand.
    """

    tokens: UInt8[Tensor, "batch length"]
    phase: UInt8[Tensor, "batch 2 length"]
    gene: Int64[Tensor, " genes"]
    window: Int64[Tensor, " genes"]
    start: Int64[Tensor, " genes"]
    end: Int64[Tensor, " genes"]
    strand: Int8[Tensor, " genes"]
    exons: Int64[Tensor, "exons 3"]
    columns: UInt8[Tensor, "batch length groups 5"]


def annotation_track(genome: Genome, genes: pd.DataFrame) -> UInt8[np.ndarray, "2 length"]:
    """Coding phase per base and strand, over all contigs (see `WindowBatch.phase`).

    Coding exons are in the frame of their spliced sequence; introns, untranslated bases and genes
    without a coding sequence count as gene body. Where genes of one strand overlap, the one that
    starts later on the contig is kept.
    """
    track = np.zeros((2, genome.length), np.uint8)
    for gene in genes.itertuples():
        contig, strand = genome.contig(gene.contig), int(gene.strand == "-")
        track[strand, genome.indices(gene.contig, gene.start, gene.end)[0]] = GENE_BODY
        coding = coding_positions(gene)
        track[strand, contig.offset + coding % contig.length] = np.arange(len(coding)) % 3 + 1
    return track


def tile_windows(
    genome: Genome, core_bp: int, flank_bp: int, *, offset_bp: int = 0
) -> list[Window]:
    """Windows whose cores cover every base of every contig once.

    Each reads `flank_bp` beyond its core on both sides: round a circular contig, N beyond the
    ends of a linear one. The first core begins `offset_bp` before the contig (another offset puts
    other bases into a bin together). Round a circle the last core ends where the first began,
    though its window is as long as the others; on a linear contig it may reach beyond the end.

    Raises
    ------
    InputError
        If core or flank is no multiple of 1,024 bp, or the offset not within one core.
    """
    for name, value in (("core_bp", core_bp), ("flank_bp", flank_bp)):
        if value % REGION_BP or value < 0 or (name == "core_bp" and value == 0):
            raise InputError(f"{name} {value}", f"a multiple of {REGION_BP} bp")
    require(0 <= offset_bp < core_bp, f"offset_bp {offset_bp}", f"0 to {core_bp - 1}")
    windows = []
    for contig in genome.contigs:
        core = min(core_bp, -(-contig.length // REGION_BP) * REGION_BP)
        first = -(offset_bp % core)
        last = first + contig.length if contig.is_circular else contig.length
        for start in range(first, last, core):
            end = start + core
            core_end = min(end, last) if contig.is_circular else end
            windows.append(Window(contig.name, start - flank_bp, end + flank_bp, start, core_end))
    return windows


def free_intervals(blocks: pd.DataFrame) -> list[tuple[str, int, int]]:
    """Runs of neighbouring blocks: (contig, start, end)."""
    runs: list[tuple[str, int, int]] = []
    for block in blocks.sort_values(["contig", "start"]).itertuples():
        if runs and runs[-1][0] == block.contig and runs[-1][2] == block.start:
            runs[-1] = (block.contig, runs[-1][1], int(block.end))
        else:
            runs.append((block.contig, int(block.start), int(block.end)))
    return runs


def make_random_windows(
    intervals: Sequence[tuple[str, int, int]],
    window_bp: int,
    count: int,
    generator: np.random.Generator,
) -> list[Window]:
    """Draw windows that lie wholly inside `intervals`, every start equally likely.

    Raises
    ------
    InputError
        If no interval is as long as the window.
    """
    room = np.array([max(end - start - window_bp + 1, 0) for _, start, end in intervals])
    if not room.sum():
        longest = max((end - start for _, start, end in intervals), default=0)
        expected = f"at most the longest interval, {longest} bp"
        raise InputError(f"a window of {window_bp} bp", expected)
    pick = generator.integers(0, room.sum(), count)
    edges = np.cumsum(room)
    which = np.searchsorted(edges, pick, side="right")
    starts = [first for _, first, _ in intervals] + room - edges
    windows = []
    for index, start in zip(which.tolist(), (starts[which] + pick).tolist(), strict=True):
        end = start + window_bp
        windows.append(Window(intervals[index][0], start, end, start, end))
    return windows


def make_batch(
    genome: Genome,
    windows: Sequence[Window],
    genes: pd.DataFrame | None = None,
    track: UInt8[np.ndarray, "2 length"] | None = None,
) -> WindowBatch:
    """Read windows of one length.

    Without `genes` the batch has none; without `track` the phase is 0 everywhere.

    Raises
    ------
    InputError
        If the windows differ in length.
    """
    lengths = sorted({_length(window) for window in windows})
    require(len(lengths) == 1, f"windows of {lengths} bp in one batch", "one length")
    tokens = np.stack([genome.fetch(w.contig, w.start, w.end) for w in windows])
    alignment = np.stack([genome.fetch_columns(w.contig, w.start, w.end) for w in windows])
    phase = np.zeros((len(windows), 2, lengths[0]), np.uint8)
    if track is not None:
        for row, window in enumerate(windows):
            phase[row] = fetch_track(genome, track, window.contig, window.start, window.end)
    columns, exons = [np.zeros(0, np.int64)] * 5, np.zeros((0, 3), np.int64)
    if genes is not None:
        *columns, shift = _genes_in(genome, windows, genes)
        rows = genes.iloc[columns[0]].itertuples()
        edges = [exons_read(gene) + by for gene, by in zip(rows, shift.tolist(), strict=True)]
        number = np.repeat(np.arange(len(edges)), [len(own) for own in edges])
        exons = np.column_stack([number, np.concatenate([exons[:, 1:], *edges])])
    columns[-1] = columns[-1].astype(np.int8)
    return WindowBatch(*map(torch.from_numpy, (tokens, phase, *columns, exons, alignment)))


def _genes_in(
    genome: Genome, windows: Sequence[Window], genes: pd.DataFrame
) -> list[Int64[np.ndarray, " genes"]]:
    """Row of gene and window, start, end, strand, and bases from contig to window, in all cores."""
    contigs, tss = genes["contig"].to_numpy(), genes["tss"].to_numpy()
    starts, ends = genes["start"].to_numpy(), genes["end"].to_numpy()
    strands = np.where(genes["strand"].to_numpy() == "+", 1, -1)
    columns = []
    for row, window in enumerate(windows):
        contig = genome.contig(window.contig)
        position = tss
        if contig.is_circular:
            # Round the circle from where the core begins.
            position = window.core_start + (tss - window.core_start) % contig.length
        inside = (position >= window.core_start) & (position < window.core_end)
        index = np.flatnonzero(inside & (contigs == window.contig))
        shift = position[index] - tss[index] - window.start
        span = starts[index] + shift, ends[index] + shift
        columns.append((index, np.full(len(index), row), *span, strands[index], shift))
    return [np.concatenate(column) for column in zip(*columns, strict=True)]


def fetch_track(
    genome: Genome, track: UInt8[np.ndarray, "2 length"], contig_name: str, start: int, end: int
) -> UInt8[np.ndarray, "2 window"]:
    """Read an interval of `annotation_track`: round a circular contig, 0 beyond a linear one."""
    index, is_inside = genome.indices(contig_name, start, end)
    return np.where(is_inside, track[:, index], np.uint8(0))


def group_windows(windows: Sequence[Window], batch_windows: int) -> list[list[Window]]:
    """Up to `batch_windows` neighbours a group, all of one length; the order is kept."""
    groups: list[list[Window]] = []
    for window in windows:
        same = bool(groups) and _length(window) == _length(groups[-1][0])
        if same and len(groups[-1]) < batch_windows:
            groups[-1].append(window)
        else:
            groups.append([window])
    return groups


def _length(window: Window) -> int:
    return window.end - window.start


def make_graph(
    genes: pd.DataFrame,
    network: pd.DataFrame,
    gene_sets: Mapping[str, Sequence[str]],
    collections: Sequence[str] = ("KEGG", "COG"),
    *,
    smallest_set: int = 1,
    largest_set: int | None = None,
) -> HeteroData:
    """Build the graph that `genesplice.model.graph` reads.

    Nodes: `gene` (every row of `genes`, in that order), `effector` (regulators that are no genes:
    metabolites, complexes) and `pathway` (gene sets whose name starts with one of `collections`
    and a colon, and that have `smallest_set` to `largest_set` genes). Edges: (gene | effector)
    regulates gene, with `edge_attr` one-hot over activates, represses, both or unknown; gene
    member_of pathway, and pathway contains gene.
    Each node type carries its names as `ids`. Empty networks and sets give empty edges.
    """
    row = {gene_id: i for i, gene_id in enumerate(genes["gene_id"])}
    most = len(genes) if largest_set is None else largest_set
    pathways = sorted(
        name
        for name, members in gene_sets.items()
        if name.split(":", 1)[0] in collections
        and smallest_set <= sum(gene_id in row for gene_id in members) <= most
    )
    known = network[network["target"].isin(row)]
    by_gene = known["source"].isin(row)
    effectors = sorted(set(known.loc[~by_gene, "source"]))
    effector_row = {name: i for i, name in enumerate(effectors)}

    graph = HeteroData()
    nodes = {"gene": list(genes["gene_id"]), "effector": effectors, "pathway": pathways}
    for kind, ids in nodes.items():
        graph[kind].ids = ids
        graph[kind].num_nodes = len(ids)
    for kind, part, source_row in (
        ("gene", known[by_gene], row),
        ("effector", known[~by_gene], effector_row),
    ):
        edges = graph[kind, "regulates", "gene"]
        edges.edge_index = _edge_index(part["source"].map(source_row), part["target"].map(row))
        sign = part["sign"].to_numpy(dtype=np.int64)
        one_hot = np.stack([sign > 0, sign < 0, sign == 0], axis=1)
        edges.edge_attr = torch.from_numpy(one_hot.astype(np.float32))
    member, pathway = [], []
    for i, name in enumerate(pathways):
        rows = [row[gene_id] for gene_id in gene_sets[name] if gene_id in row]
        member += rows
        pathway += [i] * len(rows)
    graph["gene", "member_of", "pathway"].edge_index = _edge_index(member, pathway)
    graph["pathway", "contains", "gene"].edge_index = _edge_index(pathway, member)
    return graph


def _edge_index(source: Iterable[int], target: Iterable[int]) -> Int64[Tensor, "2 edges"]:
    return torch.tensor([list(source), list(target)], dtype=torch.int64)


# --- windows with tracks ---


class TrackBatch(NamedTuple):
    """Windows, each read on one strand; `bins` is empty where the encoder is to be asked.

    `observed` is scaled, and NaN where nothing is to be learned: in flanks, too.
    """

    tokens: UInt8[Tensor, "batch length"]
    columns: UInt8[Tensor, "batch length groups 5"]
    bins: Float[Tensor, "batch bins width"]
    observed: Float[Tensor, "batch track_bins tracks"]


@dataclass(frozen=True)
class TrackWindows:
    """Batches of one window, each a function of its number; a pass is `len(windows)` of them.

    Parameters
    ----------
    learned
        Bins that are seen; windows without any are left out.
    means
        Of each track's coverage over the training bins.
    cache
        Bins of an encoder for each strand, in + coordinates, where it stands still.
    seed
        Windows begin elsewhere in each pass and are read on either strand; None: neither.
    """

    genome: Genome
    tracks: Tracks
    learned: Bool[np.ndarray, " bins"]
    means: Float[np.ndarray, " tracks"]
    core_bp: int
    flank_bp: int
    cache: Float[np.ndarray, "2 encoder_bins width"] | None = None
    seed: tuple[int, ...] | None = None

    @cached_property
    def windows(self) -> list[Window]:
        """Those that begin with their contigs."""
        return self._from(0)

    def _from(self, offset_bp: int) -> list[Window]:
        sizes = self.core_bp, self.flank_bp
        windows = tile_windows(self.genome, *sizes, offset_bp=offset_bp)
        return [one for one in windows if self.learned[one.core_bins(self.genome)[0]].any()]

    def __call__(self, step: int) -> TrackBatch:
        """The window of one step."""
        epoch, position = divmod(step, len(self.windows))
        if self.seed is None:
            return self.read(self.windows[position], is_reverse=False)
        generator = np.random.default_rng([*self.seed, epoch])
        offset_bp = int(generator.integers(self.core_bp // REGION_BP)) * REGION_BP
        windows, is_reverse = self._from(offset_bp), generator.integers(2, size=len(self.windows))
        chosen = windows[generator.permutation(len(windows))[position % len(windows)]]
        return self.read(chosen, is_reverse=bool(is_reverse[position]))

    def read(self, window: Window, *, is_reverse: bool) -> TrackBatch:
        """Tokens, columns, the encoder's bins and targets, 5' to 3' on the strand that is read."""
        strand: Strand = "-" if is_reverse else "+"
        tokens = self.genome.fetch(window.contig, window.start, window.end, strand)
        columns = self.genome.fetch_columns(window.contig, window.start, window.end, strand)
        (own, at), n = window.core_bins(self.genome), len(tokens) // BIN_BP
        observed = np.full((len(self.tracks.values), n), np.nan, np.float32)
        known = np.where(self.learned[own], self.tracks.values[:, own], np.nan)
        observed[:, at] = scale_targets(known, self.tracks.is_peaks, self.means)
        bins = self._cached(window, n, int(is_reverse))
        if is_reverse:
            observed, bins = observed[self.tracks.other_strand, ::-1], bins[::-1]
        arrays = tokens, columns, bins, observed.T
        return TrackBatch(*(torch.from_numpy(np.ascontiguousarray(one))[None] for one in arrays))

    def _cached(self, window: Window, n: int, strand: int) -> Float[np.ndarray, "bins width"]:
        """The encoder's bins of a window, flanks too; 0 beyond the contig."""
        if self.cache is None:
            return np.zeros((0, 0), np.float32)
        per, first = self.cache.shape[1] // len(self.learned), window.start // BIN_BP
        offset = bin_offsets(self.genome)[window.contig]
        low, high = max(first, 0), min(first + n, n_bins(self.genome.contig(window.contig)))
        bins = np.zeros((n * per, self.cache.shape[2]), np.float32)
        found = self.cache[strand, (offset + low) * per : (offset + high) * per]
        bins[(low - first) * per : (high - first) * per] = found
        return bins

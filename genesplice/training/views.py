"""Which intervals of 1,024 bp belong together, for contrastive learning.

Views of a locus, for any genome:

- `strand`: the window, and the reverse complement of the sequence a small shift away. Every
  interval must find itself on the other strand, at another position of its window.
- `neighbour`: the window, and the one that follows it. Intervals one window apart belong together.

- `orthologue`: the window, and what a relative has in its place, without alignment columns. Every
  interval must find itself in another genome, among its neighbours.

Views made of genes, read on the sense strand:

- `gene`: what lies upstream of the TSS, and the gene's own sequence. They share no base.
- `operon`: what lies upstream of two genes of one operon.
- `regulon`: what lies upstream of two genes with a regulator in common, of different operons.

Only genes whose windows lie in training blocks are paired. Which genes share an operon or a
regulator is knowledge about them: held-out genes are asked afterwards whether the encoder brings
such genes together (retrieval, probes), and the graph predicts their expression from the same
edges. Paired in training, they would leak the answer.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from genesplice.config import PretrainConfig
from genesplice.config.model import REGION_BP, SUMMARY_BP
from genesplice.config.training import GENE_VIEWS, ViewName
from genesplice.data.genome import Genome, N
from genesplice.data.windows import make_random_windows
from genesplice.errors import InputError, require
from genesplice.model.genesplice import reverse_complement
from genesplice.model.sequence import reverse_columns
from genesplice.training.corpus import Interval, Source

SHORTEST_GENE_BP = 128
FEWEST_ALIGNED = 256
TRIES = 16


Reading = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Tokens, which of them are soft-masked, alignment columns, and the span."""


class Side(NamedTuple):
    """One reading of every item (a locus or a pair of genes) of a step."""

    tokens: UInt8[Tensor, "items length"]
    is_repeat: Bool[Tensor, "items length"]
    columns: UInt8[Tensor, "items length groups 5"]


class View(NamedTuple):
    """Which side holds the other ends of what the first one has, and where in them (bp) they begin.

    `spans` is where they lie in the genome; `groups` are numbers of genes, operons or regulators
    that an item shows, -1 where there are fewer.
    """

    name: ViewName
    side: int
    offsets_one: Int64[np.ndarray, " pairs"]
    offsets_two: Int64[np.ndarray, " pairs"]
    spans: Int64[np.ndarray, "items pairs sides 2"]
    groups: Int64[np.ndarray, "items groups"]


class Loci(NamedTuple):
    """Sides of equally many items and length, and the views between them."""

    sides: list[Side]
    views: list[View]


# --- views of a locus ---


def make_loci(
    source: Source,
    settings: PretrainConfig,
    count: int,
    generator: np.random.Generator,
    views: Collection[ViewName],
) -> Loci:
    """Draw `count` loci of the training blocks, each read on a random strand."""
    genome, length, shift = source.genome, settings.window_bp, 0
    if "strand" in views:
        shift = int(generator.integers(0, settings.shift_bp // SUMMARY_BP + 1)) * SUMMARY_BP
    span = locus_bp(length, shift, views)
    windows = make_random_windows(source.training, span, count, generator)
    strands = np.where(generator.random(count) < 0.5, "-", "+")
    pairs = zip(windows, strands, strict=True)
    read = [_read(genome, w.contig, w.start, w.end, strand) for w, strand in pairs]
    whole = Side(*(torch.from_numpy(np.stack(column)) for column in zip(*read, strict=True)))
    first = np.array([_origin(genome, w.contig) + w.start for w in windows])[:, None]

    def part(start: int) -> Side:
        return Side(*(column[:, start : start + length] for column in whole))

    def spans(offsets: np.ndarray, size_bp: int) -> np.ndarray:
        """Where intervals lie in the genome, whichever strand was read."""
        behind = first + span - offsets - size_bp
        start = np.where(strands[:, None] == "-", behind, first + offsets)
        return np.stack([start, start + size_bp], -1)[:, :, None]

    sides, made, no_groups = [part(0)], [], np.empty((count, 0), np.int64)
    if "strand" in views:
        shared = np.arange((length - shift) // REGION_BP) * REGION_BP
        other = part(shift)
        backwards = reverse_complement(other.tokens), other.is_repeat.flip(1)
        sides.append(Side(*backwards, reverse_columns(other.columns)))
        # From the other end of the window: it is read backwards there.
        ends, where = length - shared - REGION_BP, spans(shared + shift, REGION_BP)
        made.append(View("strand", 1, shared + shift, ends, where, no_groups))
    every = np.arange(0, length, REGION_BP)
    if "neighbour" in views:
        sides.append(part(length))
        # Everything in both windows is one locus.
        where = spans(np.zeros(len(every), np.int64), 2 * length)
        made.append(View("neighbour", len(sides) - 1, every, every, where, no_groups))
    if "orthologue" in views:
        sides.append(_relative_side(sides[0], generator))
        where = spans(every, REGION_BP)
        made.append(View("orthologue", len(sides) - 1, every, every, where, no_groups))
    return Loci(sides, made)


def _relative_side(side: Side, generator: np.random.Generator) -> Side:
    """What one group of relatives has in place of each window; nothing is aligned to it.

    The group is drawn for the window, a base from the column of the group: a relative as far away
    as these are. Where it lacks a base there is N, and an interval of which it has less than
    `FEWEST_ALIGNED` bases stays what it is.
    """
    tokens, columns = side.tokens.numpy(), side.columns.numpy()
    group = generator.integers(0, columns.shape[2], len(tokens))
    counts = columns[np.arange(len(tokens)), :, group].cumsum(-1, dtype=np.int64)
    drawn = generator.random(tokens.shape) * counts[..., -1]
    # 0 to 3 for the base; 4, which is N, for a gap and where nothing is aligned.
    bases = (drawn[..., None] >= counts[..., :4]).sum(-1)
    per_interval = (bases < N).reshape(len(tokens), -1, REGION_BP).sum(-1)
    is_kept = np.repeat(per_interval < FEWEST_ALIGNED, REGION_BP, axis=1)
    relative = torch.from_numpy(np.where(is_kept, tokens, bases).astype(np.uint8))
    return Side(relative, side.is_repeat, torch.zeros_like(side.columns))


def locus_bp(length: int, shift: int, views: Collection[ViewName]) -> int:
    """Bases of the genome that the views of one locus are read from."""
    return max(length + shift, 2 * length if "neighbour" in views else 0)


def check_lengths(source: Source, settings: PretrainConfig) -> None:
    """See before a run that its windows fit into the genome.

    Raises
    ------
    InputError
        If no interval that is trained on, chosen by or held out is as long as what is read.
    """
    window_bp, views = settings.window_bp, settings.active_views
    is_fine = "orthologue" not in views or source.genome.columns is not None
    require(is_fine, "pretrain.views orthologue without relatives", "a bundle with relatives")
    shift = settings.shift_bp // SUMMARY_BP * SUMMARY_BP if "strand" in views else 0
    for name, intervals, needed in (
        ("training", source.training, locus_bp(window_bp, shift, views)),
        ("validation", source.validation, window_bp),
        ("held-out", source.held_out, window_bp),
    ):
        longest = max((end - start for _, start, end in intervals), default=0)
        is_fine = longest > 0 or name != "training"
        require(is_fine, "no known bases to train on", "a genome with A, C, G and T")
        found = f"pretrain.window_bp={window_bp}, with which {needed} bp are read at once"
        most = f"at most the longest {name} interval, {longest} bp: a smaller pretrain.window_bp"
        require(longest >= needed or not intervals, found, most)


def _origin(genome: Genome, contig: str) -> int:
    """Where a contig begins, so that no two contigs share a position, round the origin too."""
    return 2 * genome.contig(contig).offset


def _read(
    genome: Genome, contig: str, start: int, end: int, strand: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens of a strand, which of them are soft-masked, and alignment columns."""
    is_repeat = genome.fetch_soft_masked(contig, start, end)[:: -1 if strand == "-" else 1]
    columns = genome.fetch_columns(contig, start, end, strand)
    return genome.fetch(contig, start, end, strand), is_repeat, columns


# --- views of genes ---


class GeneSites:
    """Genes of the training blocks, and how they go together.

    Parameters
    ----------
    source
        With a gene table, where a view of genes is asked for.
    wanted
        Views; those that are not made of genes are left alone.

    Raises
    ------
    InputError
        If a view finds nothing to pair.
    """

    def __init__(self, source: Source, wanted: Iterable[ViewName]) -> None:
        self.genome = source.genome
        self.views = tuple(view for view in GENE_VIEWS if view in set(wanted))
        if not self.views:
            return
        if source.genes is None:
            found = f"pretrain.views {', '.join(self.views)} without genes"
            raise InputError(found, "a gene table")
        table = _training_genes(source.genome, source.genes, source.training)
        self.genes: list[Any] = list(table.itertuples(index=False))
        operon = pd.Series(dtype=object) if source.operon is None else source.operon
        own = table["gene_id"].map(operon).astype(object)
        self.operon = pd.factorize(own.where(own.notna(), table["gene_id"]))[0]
        self.regulators = _regulators(source.network, table)
        self.n_regulators = max((len(one) for one in self.regulators), default=0)
        self.groups = {view: self._make_groups(view) for view in self.views}
        shared = {"gene": "nothing", "operon": "an operon", "regulon": "a regulator"}
        for view, groups in self.groups.items():
            found = f"no pair for pretrain.views {view} among {len(table)} training genes"
            expected = f"genes 1,024 bp apart that share {shared[view]}, or no such view"
            require(groups, found, expected)

    def _make_groups(self, view: ViewName) -> list[list[int]]:
        """Indices of genes that can be paired with each other (with itself: `gene`)."""
        if view == "gene":
            rows = enumerate(self.genes)
            return [[i] for i, gene in rows if gene.end - gene.start >= SHORTEST_GENE_BP]
        members: dict[int, list[int]] = defaultdict(list)
        for index, code in enumerate(self.operon):
            for group in [code] if view == "operon" else self.regulators[index]:
                members[int(group)].append(index)
        return [members[group] for group in sorted(members) if self._has_pair(view, members[group])]

    def _has_pair(self, view: str, members: list[int]) -> bool:
        return any(self._is_apart(view, one, two) for one in members for two in members[:TRIES])

    def _is_apart(self, view: str, one: int, two: int) -> bool:
        """Two promoters that share no base and, of a regulon, are not of one operon."""
        if one == two or (view == "regulon" and self.operon[one] == self.operon[two]):
            return False
        (low, high), (start, end) = (self.genes[index].upstream for index in (one, two))
        return bool(end <= low or high <= start)

    def draw(
        self, view: ViewName, count: int, generator: np.random.Generator, n_parts: int
    ) -> Loci:
        """Draw pairs of `count` different genes, operons or regulators, or of all there are.

        Of these, as many are kept as can be divided by `n_parts`.
        """
        groups = self.groups[view]
        chosen = generator.permutation(len(groups))[:count]
        couples = [self._couple(view, groups[group], generator) for group in chosen]
        ones, twos = ([self._upstream(gene) for gene in end] for end in zip(*couples, strict=True))
        if view == "gene":
            twos = [self._body(gene, generator) for gene, _ in couples]
        kept = len(couples) // n_parts * n_parts
        sides, spans = [], []
        for ends in (ones, twos):
            *read, span = (np.stack(column)[:kept] for column in zip(*ends, strict=True))
            sides.append(Side(*map(torch.from_numpy, read)))
            spans.append(span)
        shown = np.stack([self._groups_of(view, *couple) for couple in couples])[:kept]
        start, where = np.zeros(1, np.int64), np.stack(spans, 1)[:, None]
        return Loci(sides, [View(view, 1, start, start, where, shown)])

    def _couple(self, view: str, members: list[int], generator: np.random.Generator) -> list[int]:
        if view == "gene":
            return [members[0], members[0]]
        drawn = (generator.integers(0, len(members), 2) for _ in range(TRIES))
        tried = ([members[i] for i in pair] for pair in drawn)
        every = ([one, two] for one in members for two in members)
        return next(pair for pair in chain(tried, every) if self._is_apart(view, *pair))

    def _groups_of(self, view: str, one: int, two: int) -> np.ndarray:
        if view == "gene":
            return np.array([one])
        if view == "operon":
            return np.array([self.operon[one]])
        shown = sorted({*self.regulators[one], *self.regulators[two]})
        return np.array(shown + [-1] * (2 * self.n_regulators - len(shown)))

    def _upstream(self, index: int) -> Reading:
        gene = self.genes[index]
        low, high = gene.upstream
        return self._sense(gene, low - gene.origin, high - gene.origin)

    def _body(self, index: int, generator: np.random.Generator) -> Reading:
        gene = self.genes[index]
        spare = max(gene.end - gene.start - REGION_BP, 0)
        start = gene.start + int(generator.integers(0, spare + 1))
        return self._sense(gene, start, min(start + REGION_BP, gene.end))

    def _sense(self, gene: Any, start: int, end: int) -> Reading:
        """What the sense strand has; N without relatives follows what is shorter."""
        tokens, *read = _read(self.genome, gene.contig, start, end, gene.strand)
        rest = REGION_BP - (end - start)
        tokens = np.pad(tokens, (0, rest), constant_values=N)
        is_repeat, columns = (
            np.pad(each, [(0, rest)] + [(0, 0)] * (each.ndim - 1)) for each in read
        )
        return tokens, is_repeat, columns, np.array([gene.origin + start, gene.origin + end])


def _training_genes(genome: Genome, genes: pd.DataFrame, training: list[Interval]) -> pd.DataFrame:
    """Genes that lie in training intervals with what is upstream of them.

    `upstream` is where that is, counted from `origin`, where the contig begins (see `_origin`).
    """
    by_contig: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for name, start, end in sorted(training):
        by_contig[name].append((start, end))
    rows = []
    for gene in genes.itertuples(index=False):
        contig, intervals = genome.contig(gene.contig), by_contig[gene.contig]
        is_ahead = gene.strand == "+"
        low = gene.start - REGION_BP * is_ahead
        high = gene.end + REGION_BP * (not is_ahead)
        for turn in (-contig.length, 0, contig.length) if contig.is_circular else (0,):
            # The last interval that begins before the gene, if it ends behind it.
            index = bisect_right(intervals, (low + turn, np.inf)) - 1
            if index >= 0 and high + turn <= intervals[index][1]:
                break
        else:
            continue
        start, end, origin = gene.start + turn, gene.end + turn, _origin(genome, gene.contig)
        first = origin + (start - REGION_BP if is_ahead else end)
        upstream = (first, first + REGION_BP)
        rows.append((gene.gene_id, gene.contig, start, end, gene.strand, origin, upstream))
    names = ["gene_id", "contig", "start", "end", "strand", "origin", "upstream"]
    return pd.DataFrame(rows, columns=names)


def _regulators(network: pd.DataFrame | None, table: pd.DataFrame) -> list[list[int]]:
    """Numbers of the regulators of every gene of `table`."""
    if network is None:
        return [[] for _ in table.index]
    edges = network[network["target"].isin(table["gene_id"])]
    codes = pd.Series(pd.factorize(edges["source"])[0]).groupby(edges["target"].to_numpy())
    of_gene = {target: sorted(set(part.tolist())) for target, part in codes}
    return [of_gene.get(gene_id, []) for gene_id in table["gene_id"]]

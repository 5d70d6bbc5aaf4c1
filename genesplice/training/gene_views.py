"""Views made of genes, 1,024 bp each, read on the sense strand.

- `gene`: what lies upstream of the TSS, and the gene's own sequence. They share no base.
- `operon`: what lies upstream of two genes of one operon.
- `regulon`: what lies upstream of two genes with a regulator in common, of different operons.

Only genes whose windows lie in training blocks are paired. Which genes share an operon or a
regulator is knowledge about them: held-out genes are asked afterwards whether the encoder brings
such genes together (retrieval, probes), and the graph predicts their expression from the same
edges. Paired in training, they would have been told the answer.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64, UInt8

from genesplice.config.training import GENE_VIEWS, ViewName
from genesplice.data.genome import Genome, N
from genesplice.errors import InputError
from genesplice.training.source import Interval, Source

STRETCH_BP = 1024
SHORTEST_GENE_BP = 128
TRIES = 16


class GenePairs(NamedTuple):
    """Two stretches a pair; `groups` are the genes, operons or regulators it shows, then -1."""

    view: ViewName
    one: UInt8[np.ndarray, "pairs length"]
    two: UInt8[np.ndarray, "pairs length"]
    is_repeat_one: Bool[np.ndarray, "pairs length"]
    is_repeat_two: Bool[np.ndarray, "pairs length"]
    spans: Int64[np.ndarray, "pairs sides 2"]
    groups: Int64[np.ndarray, "pairs groups"]

    def first(self, count: int) -> "GenePairs":
        """The first `count` of them."""
        return GenePairs(self.view, *(column[:count] for column in self[1:]))


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
        self.source = source
        self.views = tuple(view for view in GENE_VIEWS if view in set(wanted))
        if not self.views:
            return
        if source.genes is None:
            raise InputError(
                f"pretrain.views {', '.join(self.views)} without genes", "a gene table"
            )
        table = _training_genes(source.genome, source.genes, source.training)
        self.genes: list[Any] = list(table.itertuples(index=False))
        operon = pd.Series(dtype=object) if source.operon is None else source.operon
        names = operon.reindex(table["gene_id"]).to_numpy(dtype=object)
        self.operon = pd.factorize(np.where(pd.isna(names), table["gene_id"], names))[0]
        self.regulators = _regulators(source.network, table)
        self.n_regulators = max((len(found) for found in self.regulators), default=0)
        self.groups = {view: self._make_groups(view) for view in self.views}
        for view, groups in self.groups.items():
            if not groups:
                raise InputError(
                    f"no pair for pretrain.views {view} among {len(table)} training genes",
                    f"genes 1,024 bp apart that share {_SHARED[view]}, or no such view",
                )

    def _make_groups(self, view: ViewName) -> list[list[int]]:
        if view == "gene":
            rows = enumerate(self.genes)
            return [[i] for i, gene in rows if gene.end - gene.start >= SHORTEST_GENE_BP]
        members: dict[int, list[int]] = defaultdict(list)
        for index, code in enumerate(self.operon):
            for group in [code] if view == "operon" else self.regulators[index]:
                members[int(group)].append(index)
        return [members[group] for group in sorted(members) if self._has_pair(view, members[group])]

    def _has_pair(self, view: str, members: list[int]) -> bool:
        first = members[0]
        return any(self._is_apart(view, first, other) for other in members) or any(
            self._is_apart(view, one, two) for one in members for two in members[:TRIES]
        )

    def _is_apart(self, view: str, one: int, two: int) -> bool:
        """Two promoters that share no base and, of a regulon, are not of one operon."""
        if one == two or (view == "regulon" and self.operon[one] == self.operon[two]):
            return False
        (low, high), (start, end) = (self.genes[index].upstream for index in (one, two))
        return end <= low or high <= start

    def draw(self, view: ViewName, count: int, generator: np.random.Generator) -> GenePairs:
        """Draw pairs of `count` different genes, operons or regulators, or of all there are."""
        groups = self.groups[view]
        chosen = generator.permutation(len(groups))[:count]
        couples = [self._couple(view, groups[group], generator) for group in chosen]
        ones = [self._upstream(one) for one, _ in couples]
        if view == "gene":
            twos = [self._body(gene, generator) for gene, _ in couples]
        else:
            twos = [self._upstream(two) for _, two in couples]
        return GenePairs(
            view,
            np.stack([look.tokens for look in ones]),
            np.stack([look.tokens for look in twos]),
            np.stack([look.is_repeat for look in ones]),
            np.stack([look.is_repeat for look in twos]),
            np.array([[one.span, two.span] for one, two in zip(ones, twos, strict=True)]),
            np.stack([self._groups_of(view, one, two) for one, two in couples]),
        )

    def _couple(
        self, view: str, members: list[int], generator: np.random.Generator
    ) -> tuple[int, int]:
        if view == "gene":
            return members[0], members[0]
        for _ in range(TRIES):
            one, two = (members[i] for i in generator.integers(0, len(members), 2))
            if self._is_apart(view, one, two):
                return one, two
        every = ((one, two) for one in members for two in members)
        return next(couple for couple in every if self._is_apart(view, *couple))

    def _groups_of(self, view: str, one: int, two: int) -> np.ndarray:
        if view == "gene":
            return np.array([one])
        if view == "operon":
            return np.array([self.operon[one]])
        found = sorted({*self.regulators[one], *self.regulators[two]})
        return np.array(found + [-1] * (2 * self.n_regulators - len(found)))

    def _upstream(self, index: int) -> "_Look":
        gene = self.genes[index]
        low, high = gene.upstream
        return self._look(gene, low - gene.place, high - gene.place)

    def _body(self, index: int, generator: np.random.Generator) -> "_Look":
        gene = self.genes[index]
        spare = max(gene.end - gene.start - STRETCH_BP, 0)
        start = gene.start + int(generator.integers(0, spare + 1))
        return self._look(gene, start, min(start + STRETCH_BP, gene.end))

    def _look(self, gene: Any, start: int, end: int) -> "_Look":
        """Read the sense strand; N follows what is shorter."""
        genome = self.source.genome
        tokens = np.full(STRETCH_BP, N, np.uint8)
        is_repeat = np.zeros(STRETCH_BP, bool)
        tokens[: end - start] = genome.fetch(gene.contig, start, end, gene.strand)
        repeats = genome.fetch_soft_masked(gene.contig, start, end)
        is_repeat[: end - start] = repeats[::-1] if gene.strand == "-" else repeats
        return _Look(tokens, is_repeat, (gene.place + start, gene.place + end))


class _Look(NamedTuple):
    """1,024 bases of a sense strand, and the part of the genome they are."""

    tokens: UInt8[np.ndarray, " length"]
    is_repeat: Bool[np.ndarray, " length"]
    span: tuple[int, int]


_SHARED = {"gene": "nothing", "operon": "an operon", "regulon": "a regulator"}


def _training_genes(genome: Genome, genes: pd.DataFrame, training: list[Interval]) -> pd.DataFrame:
    """Genes that lie in training intervals with what is upstream of them.

    `upstream` is where that is, counted from `place`, the contig's place among all contigs.
    """
    by_contig: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for name, start, end in sorted(training):
        by_contig[name].append((start, end))
    rows = []
    for gene in genes.itertuples(index=False):
        contig, intervals = genome.contig(gene.contig), by_contig[gene.contig]
        is_ahead = gene.strand == "+"
        low = gene.start - STRETCH_BP * is_ahead
        high = gene.end + STRETCH_BP * (not is_ahead)
        for turn in (-contig.length, 0, contig.length) if contig.is_circular else (0,):
            # The last interval that begins before the gene, if it ends behind it.
            index = bisect_right(intervals, (low + turn, np.inf)) - 1
            if index >= 0 and high + turn <= intervals[index][1]:
                break
        else:
            continue
        start, end, place = gene.start + turn, gene.end + turn, 2 * contig.offset
        first = start - STRETCH_BP if is_ahead else end
        upstream = (place + first, place + first + STRETCH_BP)
        rows.append((gene.gene_id, gene.contig, start, end, gene.strand, place, upstream))
    names = ["gene_id", "contig", "start", "end", "strand", "place", "upstream"]
    return pd.DataFrame(rows, columns=names)


def _regulators(network: pd.DataFrame | None, table: pd.DataFrame) -> list[list[int]]:
    """Numbers of the regulators of every gene of `table`."""
    found: dict[str, set[int]] = defaultdict(set)
    if network is not None:
        edges = network[network["target"].isin(table["gene_id"])]
        for code, target in zip(pd.factorize(edges["source"])[0], edges["target"], strict=True):
            found[target].add(int(code))
    return [sorted(found[gene_id]) for gene_id in table["gene_id"]]

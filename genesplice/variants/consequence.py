"""What an allele does by the annotation alone, and random variants of the same kind.

A coding sequence is read as it is spliced, by its gene's genetic code, with the allele and without.
Where the same insertion or deletion can be written at several positions, the mildest counts: if one
of them leaves a start codon or a splice site alone, the new sequence has it. Of several genes the
worst counts.
"""

from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64, UInt8

from genesplice.data.coding import coding_sequence, codon_meanings, exons_of, genetic_code
from genesplice.data.genome import Genome, decode, reverse_complement
from genesplice.results import Metric
from genesplice.variants import likelihood
from genesplice.variants.alleles import Allele, Region

ORDER = (
    "splice_region", "nonsense", "frameshift", "stop_lost", "start_lost", "inframe", "missense",
    "coding", "synonymous", "intron", "noncoding", "upstream", "intergenic",
)  # fmt: skip
"""Consequences from the worst on (after Ensembl's order).

- `splice_region`: one of the first or last 2 bases of an intron between coding exons
- `nonsense`: a stop codon where there was none
- `frameshift`: bases more or fewer, not by a multiple of three
- `stop_lost`: the last stop codon is none any more
- `start_lost`: another start codon, which does not read as methionine
- `inframe`: whole codons more or fewer
- `missense`: another amino acid
- `coding`: in a coding sequence of unknown genetic code, or where its frame slips
- `synonymous`: the same amino acids
- `intron`: in an intron between coding exons
- `noncoding`: in a gene, outside of its coding sequence
- `upstream`: at most 200 bases before a start of transcription
- `intergenic`: none of these
"""
UPSTREAM_BP, SPLICE_BP = 200, 2
MIN_INTRON_BP = 4
"""Parts of a coding sequence that are closer than this have no splice sites between them."""


class Coding(NamedTuple):
    """A gene's coding exons as they are transcribed, and their sequence in reading direction."""

    exons: tuple[tuple[int, int], ...]
    bases: str
    has_start: bool
    has_stop: bool


class Consequences:
    """Consequences for all genes of a bundle's table."""

    def __init__(self, genome: Genome, genes: pd.DataFrame) -> None:
        self.genome, self.genes = genome, list(genes.itertuples())
        contigs = [genome.contig(name) for name in genes["contig"]]
        low, high, tss = (genes[name].to_numpy() for name in ("start", "end", "tss"))
        is_plus = (genes["strand"] == "+").to_numpy()
        ahead = np.where(is_plus, low - tss, tss - high + 1)
        length = np.array([contig.length for contig in contigs], np.int64)
        near = (ahead + length // 2) % length - length // 2
        ahead = np.where([contig.is_circular for contig in contigs], near, ahead).clip(0)
        self.spans = np.stack([low - ahead * is_plus, high + ahead * ~is_plus], 1)
        self.reach = self.spans + UPSTREAM_BP * np.stack([-1 * is_plus, 1 * ~is_plus], 1)
        names = genes["contig"].to_numpy()
        self.rows = {c.name: np.flatnonzero(names == c.name) for c in genome.contigs}
        self.coding = lru_cache(1024)(self._coding)

    def __call__(self, allele: Allele) -> tuple[str, str | None]:
        """The worst consequence, and the first gene of the table that it is one for."""
        found = [(len(ORDER) - 1, len(self.genes))]
        for row, first in self._near(allele):
            placed = (
                first._replace(start=first.start + shift, alt=np.roll(first.alt, -shift))
                for shift in range(allele.shift_bp + 1)
            )
            ranks = (min(map(ORDER.index, self._of_gene(row, one))) for one in placed)
            found.append((max(ranks), row))
        rank, row = min(found)
        return ORDER[rank], str(self.genes[row].gene_id) if rank < len(ORDER) - 1 else None

    def _near(self, allele: Allele) -> Iterator[tuple[int, Allele]]:
        """Genes that any placement of an allele reaches, each with the first one beside it."""
        contig, rows = self.genome.contig(allele.contig), self.rows[allele.contig]
        low, high = self.reach[rows].T
        for turn in (-contig.length, 0, contig.length) if contig.is_circular else (0,):
            first = allele._replace(start=allele.start + turn)
            is_near = (first.start <= high) & (first.end + first.shift_bp >= low)
            yield from ((row, first) for row in rows[is_near].tolist())

    def _coding(self, row: int) -> Coding:
        gene = self.genes[row]
        exons = [(start, end) for start, end in exons_of(gene).tolist()]
        bases, table = decode(coding_sequence(self.genome, gene)), genetic_code(gene.genetic_code)
        if table is None or not exons:
            return Coding(tuple(exons), bases, False, False)
        if bases[-3:] not in table.stop_codons:
            # Some files leave the stop codon out of the coding sequence.
            (low, high), is_plus = exons[-1], gene.strand == "+"
            at = high if is_plus else low - 3
            behind = decode(self.genome.fetch(gene.contig, at, at + 3, gene.strand))
            if behind in table.stop_codons:
                exons[-1], bases = (min(low, at), max(high, at + 3)), bases + behind
        ends = bases[:3] in table.start_codons, bases[-3:] in table.stop_codons
        return Coding(tuple(exons), bases, *ends)

    def _of_gene(self, row: int, allele: Allele) -> Iterator[str]:
        """All that is true of one gene."""
        coding, start, end = self.coding(row), allele.start, allele.end
        is_plus, is_insertion = self.genes[row].strand == "+", start == end

        def touches(low: int, high: int) -> bool:
            return start < high and end > low

        yield "intergenic"
        if touches(*self.reach[row].tolist()):
            yield "upstream"
        if touches(*self.spans[row].tolist()):
            yield "noncoding"
        exons = sorted(coding.exons)
        for (_, low), (high, _) in pairwise(exons):
            at_ends = touches(low, low + SPLICE_BP) or touches(high - SPLICE_BP, high)
            at_ends |= is_insertion and start in (low, high)
            if high - low < MIN_INTRON_BP:
                if low < high and touches(low, high):
                    yield "coding"
            elif at_ends or touches(low, high):
                yield "splice_region" if at_ends else "intron"
        if not any(touches(*exon) for exon in exons):
            return
        if allele.growth_bp and not any(low <= start and end <= high for low, high in exons):
            # Bases on both sides of an exon's end are lost; introns have been looked at.
            yield "coding"
            for is_lost, is_left in ((start < exons[0][0], True), (end > exons[-1][1], False)):
                at_start = is_left == is_plus
                if is_lost and (coding.has_start if at_start else coding.has_stop):
                    yield "start_lost" if at_start else "stop_lost"
            return
        new = [self._edited(row, exon, allele) for exon in coding.exons]
        yield from self._changes(row, "".join(new))

    def _edited(self, row: int, exon: tuple[int, int], allele: Allele) -> str:
        """An exon in reading direction, with as much of the allele as lies in it."""
        (low, high), fetch = exon, partial(self.genome.fetch, allele.contig)
        start, end = max(low, allele.start), min(high, allele.end)
        if start > end or (start == end and start in exon):
            tokens = fetch(low, high)
        else:
            new = allele.alt
            if not allele.growth_bp:
                new = new[start - allele.start : end - allele.start]
            tokens = np.concatenate([fetch(low, start), new, fetch(end, high)])
        return decode(tokens if self.genes[row].strand == "+" else reverse_complement(tokens))

    def _changes(self, row: int, new: str) -> Iterator[str]:
        """What another coding sequence is beside the old one."""
        coding, amino_acids = self.coding(row), codon_meanings(self.genes[row].genetic_code)
        growth_bp = len(new) - len(coding.bases)
        if growth_bp % 3:
            yield "frameshift"
            return
        if growth_bp:
            yield "inframe"
        if not amino_acids:
            yield "coding"
            return
        codons, new_codons = (_codons(bases) for bases in (coding.bases, new))
        before, after = (
            [amino_acids.get(codon, "X") for codon in split] for split in (codons, new_codons)
        )
        if coding.has_start:
            if new_codons[:1] != codons[:1] and after[:1] != ["M"]:
                yield "start_lost"
            before[0], after[:1] = "M", ["M"]
        if coding.has_stop and after[-1:] != ["*"]:
            yield "stop_lost"
        inner = -1 if coding.has_stop else None
        if after[:inner].count("*") > before[:inner].count("*"):
            yield "nonsense"
        yield "synonymous" if before == after else "missense"

    def exchanged(self, allele: Allele) -> list[tuple[str, str]]:
        """Amino acids, old and new, that an allele of equal length exchanges.

        A stop is `*`, and whichever codon a gene begins with M.
        """
        found = list[tuple[str, str]]()
        for row, placed in self._near(allele):
            coding, amino_acids = self.coding(row), codon_meanings(self.genes[row].genetic_code)
            new = "".join(self._edited(row, exon, placed) for exon in coding.exons)
            pairs = zip(_codons(coding.bases), _codons(new), strict=True)
            for number, codons in enumerate(pairs):
                old, now = (amino_acids.get(codon, "X") for codon in codons)
                if number == 0 and coding.has_start:
                    old = "M"
                if codons[0] != codons[1] and old != now:
                    found.append((old, now))
        return found


def _codons(bases: str) -> list[str]:
    return [bases[i : i + 3] for i in range(0, len(bases), 3)]


# --- random variants of the same kind, among which a likelihood ratio has its percentile ---

REGIONS = ("other", "intergenic", "coding", "promoter")
N_WINDOWS, N_INDELS = 160, 30
EDGE_BP, MIN_MATCHED, LENGTHS = 128, 20, (1, 5, 64)


def spread_out(
    positions: Int64[np.ndarray, " candidates"], length: int, every_bp: int = likelihood.STRIDE_BP
) -> Int64[np.ndarray, " chosen"]:
    """The first of `positions`, in their order, `every_bp` or more from all before; sorted.

    `length` is that of the window.
    """
    is_free = np.ones(length, bool)
    chosen = []
    for position in positions.tolist():
        if is_free[position]:
            chosen.append(position)
            is_free[max(position - every_bp + 1, 0) : position + every_bp] = False
    return np.array(sorted(chosen), np.int64)


def length_class(allele: Allele) -> str:
    """How many bases more or fewer: 1, 2-5, 6-64."""
    number = min(bisect_left(LENGTHS, abs(allele.growth_bp)), len(LENGTHS) - 1)
    return f"{(0, *LENGTHS)[number] + 1}-{LENGTHS[number]}"


class Matched:
    """Ratios of random variants of the same kind, which percentiles are among.

    A substitution is compared with random ones of the same two bases in the same class of region
    (`REGIONS`), made at once by strided masking; an insertion or deletion with random ones of about
    its length in the same class, made when first asked for: ratios of different kinds differ
    without any function. `track` is the region class of every base of the genome.
    """

    def __init__(
        self,
        score: likelihood.MaskedBases,
        genome: Genome,
        track: UInt8[np.ndarray, " length"],
        *,
        n_windows: int = N_WINDOWS,
        n_indels: int = N_INDELS,
        seed: int = 0,
    ) -> None:
        self.score, self.genome, self.track, self.seed = score, genome, track, seed
        self.n_indels = n_indels
        self.ratios: dict[tuple[str, ...], np.ndarray] = {}
        self.metrics: list[Metric] = []
        self._substitutions(n_windows)

    def percentile(self, allele: Allele, region: str, ratio: float) -> float | None:
        """Share (0 to 100) of the matched variants with a lower ratio, half of those with the same.

        None for changes of several bases at once, and where fewer than 20 could be found.
        """
        if allele.kind in ("mnv", "complex"):
            return None
        key: tuple[str, ...] = region, allele.kind, length_class(allele)
        if allele.kind == "snv":
            key = region, likelihood.BASES[allele.ref[0]], likelihood.BASES[allele.alt[0]]
        elif key not in self.ratios:
            self.ratios[key] = self._indels(*key)
        among = self.ratios.get(key, np.zeros(0))
        if len(among) < MIN_MATCHED:
            return None
        ranks = (np.searchsorted(among, ratio, side) for side in ("left", "right"))
        return float(50 * sum(ranks) / len(among))

    def _windows(self, count: int, generator: np.random.Generator) -> Iterator[Region]:
        """Random windows, none beyond the end of a linear contig."""
        contigs = self.genome.contigs
        lost = [0 if contig.is_circular else likelihood.WINDOW_BP - 1 for contig in contigs]
        room = np.maximum([contig.length for contig in contigs] - np.array(lost), 0)
        if room.sum():
            for i in generator.choice(len(room), count, p=room / room.sum()):
                low = int(generator.integers(room[i]))
                yield Region(contigs[i].name, low, low + likelihood.WINDOW_BP)

    def _classes(self, window: Region) -> UInt8[np.ndarray, " window"]:
        contig = self.genome.contig(window.contig)
        return self.track[contig.offset + np.arange(window.start, window.end) % contig.length]

    def _substitutions(self, n_windows: int) -> None:
        generator = np.random.default_rng([self.seed, 1])
        rows, classes = [], []
        for window in list(self._windows(n_windows, generator)):
            tokens, region = self.genome.fetch(*window), self._classes(window)
            # Close to an end of the window a base has few neighbours.
            order = EDGE_BP + generator.permutation(likelihood.WINDOW_BP - 2 * EDGE_BP)
            # The rarest class first.
            order = order[np.argsort(-region[order], kind="stable")]
            positions = spread_out(order[tokens[order] < 4], likelihood.WINDOW_BP)
            if len(positions):
                columns = self.genome.fetch_columns(*window)
                rows.append(likelihood.Hidden(tokens, positions, columns))
                classes.append(region[positions])
        if not rows:
            return
        changes = likelihood.substitutions(self.score, rows)
        ratios = np.concatenate([change.mean(0) for change in changes])
        region = np.concatenate(classes)
        ref = np.concatenate([row.tokens[row.positions] for row in rows])
        for kind, old, new in np.ndindex(len(REGIONS), 4, 4):
            among = ratios[(region == kind) & (ref == old), new]
            if old != new and len(among):
                pair = likelihood.BASES[old], likelihood.BASES[new]
                self.ratios[REGIONS[kind], *pair] = np.sort(among)
        self.metrics = likelihood.agreement(self.score, rows, changes, seed=self.seed)

    def _indels(self, region: str, kind: str, length: str) -> Float[np.ndarray, " variants"]:
        low, high = (int(x) for x in length.split("-"))
        code = [REGIONS.index(region), low, int(kind == "insertion")]
        generator = np.random.default_rng([self.seed, 2, *code])
        alleles: list[Allele] = []
        for window in list(self._windows(20 * self.n_indels, generator)):
            if len(alleles) == self.n_indels:
                break
            own = np.flatnonzero(self._classes(window) == code[0])
            own = own[(own > 80) & (own < likelihood.WINDOW_BP - 80)]
            size = int(generator.integers(low, min(high, 4 * low) + 1))
            if not len(own):
                continue
            start = window.start + int(generator.choice(own))
            near = self.genome.fetch(window.contig, start - 80, start + 80)
            if (near > 3).any():
                continue
            change = near[80 : 80 + size], near[:0]
            if kind == "insertion":
                # Bases from elsewhere close by: the composition of the locus.
                at = int(generator.integers(0, len(near) - size))
                change = near[:0], near[at : at + size]
            alleles.append(Allele(window.contig, start, *change))
        found = likelihood.allele_likelihoods(self.score, self.genome, alleles)
        return np.sort([one.mean for one in found])

"""How unusual a ratio is among random variants of the same kind.

A substitution is compared with random ones of the same two bases in the same class of region; an
insertion or deletion with random ones of about its length in the same class. Ratios of different
kinds differ for reasons that have nothing to do with function (transitions are likelier
everywhere, coding sequence is easier to tell), and a percentile among equals is free of them.
"""

import numpy as np
from jaxtyping import Float, UInt8

from genesplice.data.genome import Genome
from genesplice.results import Metric
from genesplice.variants.alleles import Allele
from genesplice.variants.comb import agreement, spread_out, substitutions
from genesplice.variants.likelihood import WINDOW_BP, Hidden, MaskedBases, allele_likelihoods
from genesplice.variants.regions import REGIONS

N_WINDOWS = 160
N_INDELS = 30
EDGE_BP = 128
MIN_MATCHED = 20
LENGTHS = (1, 5, 64)


def length_class(allele: Allele) -> str:
    """How many bases more or fewer: 1, 2-5, 6-64."""
    low = 1
    for high in LENGTHS:
        if abs(allele.growth_bp) <= high:
            break
        low = high + 1
    return f"{low}-{high}"


class Matched:
    """Ratios of random variants, by what they are matched on.

    Those of substitutions are made at once, many bases hidden together; those of insertions and
    deletions when they are first asked for.

    Parameters
    ----------
    track
        `regions.region_track` of the genome.
    """

    def __init__(
        self,
        score: MaskedBases,
        genome: Genome,
        track: UInt8[np.ndarray, " length"],
        *,
        n_windows: int = N_WINDOWS,
        n_indels: int = N_INDELS,
        seed: int = 0,
    ) -> None:
        self.score, self.genome, self.track, self.seed = score, genome, track, seed
        self.n_indels = n_indels
        self.found: dict[tuple[str, ...], np.ndarray] = {}
        self.metrics: list[Metric] = []
        self._substitutions(n_windows)

    def percentile(self, allele: Allele, region: str, ratio: float) -> float | None:
        """Share (0 to 100) of the matched variants with a lower ratio, half of those with the same.

        None for changes of several bases at once, and where fewer than 20 could be found.
        """
        if allele.kind in ("mnv", "complex"):
            return None
        if allele.kind == "snv":
            key = region, "ACGT"[allele.ref[0]], "ACGT"[allele.alt[0]]
        else:
            key = region, allele.kind, length_class(allele)
            if key not in self.found:
                self.found[key] = self._indels(*key)
        among = self.found.get(key, np.zeros(0))
        if len(among) < MIN_MATCHED:
            return None
        below, upto = np.searchsorted(among, ratio, "left"), np.searchsorted(among, ratio, "right")
        return float(50 * (below + upto) / len(among))

    def _windows(self, count: int, generator: np.random.Generator) -> list[tuple[str, int]]:
        """Contig and first base of random windows, none beyond the end of a linear contig."""
        room = np.array([
            c.length if c.is_circular else max(c.length - WINDOW_BP + 1, 0)
            for c in self.genome.contigs
        ])  # fmt: skip
        if not room.sum():
            return []
        which = generator.choice(len(room), count, p=room / room.sum())
        return [(self.genome.contigs[i].name, int(generator.integers(room[i]))) for i in which]

    def _places(self, contig: str, low: int) -> np.ndarray:
        where = self.genome.contig(contig)
        return where.offset + (low + np.arange(WINDOW_BP)) % where.length

    def _substitutions(self, n_windows: int) -> None:
        generator = np.random.default_rng([self.seed, 1])
        rows, regions = [], []
        for contig, low in self._windows(n_windows, generator):
            tokens = self.genome.fetch(contig, low, low + WINDOW_BP)
            region = self.track[self._places(contig, low)]
            # Close to an end of the window a base has few neighbours.
            order = EDGE_BP + generator.permutation(WINDOW_BP - 2 * EDGE_BP)
            # The rarest class first.
            order = order[np.argsort(-region[order], kind="stable")]
            places = spread_out(order[tokens[order] < 4], WINDOW_BP)
            if len(places):
                rows.append(Hidden(tokens, places))
                regions.append(region[places])
        told = substitutions(self.score, rows)
        gathered: dict[tuple[str, ...], list[float]] = {}
        for row, region, change in zip(rows, regions, told, strict=True):
            mean = change.mean(0)
            for i, (ref, place) in enumerate(zip(row.tokens[row.places], region, strict=True)):
                for alt in range(4):
                    if alt != ref:
                        key = REGIONS[place], "ACGT"[ref], "ACGT"[alt]
                        gathered.setdefault(key, []).append(mean[i, alt])
        self.found |= {key: np.sort(values) for key, values in gathered.items()}
        self.metrics = agreement(self.score, rows, told, seed=self.seed) if rows else []

    def _indels(self, region: str, kind: str, length: str) -> Float[np.ndarray, " variants"]:
        low, high = (int(x) for x in length.split("-"))
        code = [REGIONS.index(region), low, int(kind == "insertion")]
        generator = np.random.default_rng([self.seed, 2, *code])
        alleles: list[Allele] = []
        for contig, first in self._windows(20 * self.n_indels, generator):
            if len(alleles) == self.n_indels:
                break
            is_there = np.flatnonzero(self.track[self._places(contig, first)] == code[0])
            is_there = is_there[(is_there > 80) & (is_there < WINDOW_BP - 80)]
            size = int(generator.integers(low, min(high, 4 * low) + 1))
            if not len(is_there):
                continue
            start = first + int(generator.choice(is_there))
            near = self.genome.fetch(contig, start - 80, start + 80)
            if (near > 3).any():
                continue
            nothing = np.zeros(0, np.uint8)
            if kind == "insertion":
                # Bases from elsewhere close by: the composition of the place.
                at = int(generator.integers(0, len(near) - size))
                alleles.append(Allele(contig, start, nothing, near[at : at + size]))
            else:
                alleles.append(Allele(contig, start, near[80 : 80 + size], nothing))
        found = allele_likelihoods(self.score, self.genome, alleles)
        return np.sort([one.mean for one in found])

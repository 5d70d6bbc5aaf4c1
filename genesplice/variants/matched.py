"""Random variants of the same kind, among which a likelihood ratio has its percentile."""

from bisect import bisect_left
from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64, UInt8

from genesplice.data.genome import Genome
from genesplice.results import Metric
from genesplice.variants import likelihood
from genesplice.variants.alleles import Allele, Region

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
        room = np.array(
            [
                c.length if c.is_circular else max(c.length - likelihood.WINDOW_BP + 1, 0)
                for c in contigs
            ]
        )
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
                rows.append(
                    likelihood.Hidden(tokens, positions, self.genome.fetch_columns(*window))
                )
                classes.append(region[positions])
        if not rows:
            return
        changes = likelihood.substitutions(self.score, rows)
        table = pd.DataFrame(
            np.concatenate([change.mean(0) for change in changes]), columns=list(likelihood.BASES)
        ).assign(
            region=np.concatenate(classes),
            ref=np.concatenate([row.tokens[row.positions] for row in rows]),
        )
        for (region, ref), part in table.groupby(["region", "ref"]):
            for alt in likelihood.BASES.replace(likelihood.BASES[ref], ""):
                self.ratios[REGIONS[region], likelihood.BASES[ref], alt] = np.sort(
                    part[alt].to_numpy()
                )
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
            nothing, lost = np.zeros(0, np.uint8), near[80 : 80 + size]
            if kind == "insertion":
                # Bases from elsewhere close by: the composition of the locus.
                at = int(generator.integers(0, len(near) - size))
                alleles.append(Allele(window.contig, start, nothing, near[at : at + size]))
            else:
                alleles.append(Allele(window.contig, start, lost, nothing))
        return np.sort(
            [one.mean for one in likelihood.allele_likelihoods(self.score, self.genome, alleles)]
        )

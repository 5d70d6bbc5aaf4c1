r"""Log-likelihood ratio of an allele by a masked-base model, in a window of its own.

- A substitution of one or several bases hides all that differ at once; the ratio is
  :math:`\sum_i \log p(alt_i) - \log p(ref_i)` (GPN's, for a single base).
- For an insertion or deletion both sequences are read, every fourth base hidden at a time, and the
  log-probabilities of what is there added up over all positions where the same change could be
  written and `FLANK_BP` on both sides. The shorter sequence is given as many bases as the longer
  one, once from its left end and once up to its right end, and the mean of both is taken: neither
  the placement in a repeat nor the number of bases is scored.

The ratio is the mean of both strands; where they have different signs, each by more than a
threshold, it is withheld.

**Source** Benegas, Batra & Song 2023 (GPN), for single bases.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64, UInt8

from genesplice.data.genome import Genome
from genesplice.errors import InputError
from genesplice.model.genesplice import PretrainingModel, reverse_complement
from genesplice.model.sequence import MASK_TOKEN, REGION_BP
from genesplice.predict.pretrained import base_log_probabilities
from genesplice.results import Metric
from genesplice.runtime import side_by_side
from genesplice.variants.alleles import Allele, Region

WINDOW_BP = 2048
BATCH_BP = 32_768
FLANK_BP = 8
EVERY_BP = 4
STRIDE_BP = 32
"""Strided masking hides every 32nd base at once, as pre-training's own score does."""
BASES = "ACGT"
REGIONS = ("other", "intergenic", "coding", "promoter")
N_WINDOWS, N_INDELS = 160, 30
EDGE_BP, MIN_MATCHED, LENGTHS = 128, 20, (1, 5, 64)
ABSTAIN = 0.5
"""Natural log units by which both strands must disagree for a ratio to be withheld."""

Fetch = Callable[[int, int], UInt8[np.ndarray, " length"]]


def window_start(position: int, window_bp: int) -> int:
    """First base of the window around `position`: on the 1,024-bp grid, half on each side.

    Raises
    ------
    InputError
        If the window is no multiple of 1,024 bp, or less than 2,048.
    """
    if window_bp % REGION_BP or window_bp < 2 * REGION_BP:
        raise InputError(f"a window of {window_bp} bp", f"a multiple of {REGION_BP}, twice or more")
    return round((position - window_bp / 2) / REGION_BP) * REGION_BP


def edited(
    fetch: Fetch, allele: Allele, new: np.ndarray, low: int, high: int, *, moves_left: bool = False
) -> UInt8[np.ndarray, " window"]:
    """`[low, high)` of a track in which `new` replaces the allele's interval.

    What follows moves and the end is filled up; with `moves_left` what precedes it moves.
    """
    size = high - low
    if moves_left:
        before, after = fetch(allele.start - size, allele.start), fetch(allele.end, high)
        return np.concatenate([before, new, after])[-size:]
    before, after = fetch(low, allele.start), fetch(allele.end, allele.end + size)
    return np.concatenate([before, new, after])[:size]


class Hidden(NamedTuple):
    """A window, and positions whose bases the model must predict; these are still in `tokens`."""

    tokens: UInt8[np.ndarray, " length"]
    positions: Int64[np.ndarray, " hidden"]


class Likelihood(NamedTuple):
    """log p(alt) - log p(ref), natural, by either strand."""

    forward: float
    reverse: float

    @property
    def mean(self) -> float:
        """Of both strands."""
        return (self.forward + self.reverse) / 2

    @property
    def spread(self) -> float:
        """How far apart they are."""
        return abs(self.forward - self.reverse)

    def abstains(self, threshold: float = ABSTAIN) -> bool:
        """Whether the strands disagree about the sign, each by more than `threshold`."""
        low, high = sorted((self.forward, self.reverse))
        return low < -threshold and high > threshold


class MaskedBases:
    """A pre-trained model as a function from hidden bases to their log-probabilities.

    `batch_bp` is the bases of one batch on one strand.
    """

    def __init__(self, model: PretrainingModel, *, batch_bp: int = BATCH_BP) -> None:
        self.model, self.batch_bp = model.eval(), batch_bp
        self.device = next(model.parameters()).device

    @torch.no_grad()
    def __call__(self, rows: Sequence[Hidden]) -> list[Float[np.ndarray, "strands hidden 4"]]:
        """Log-probabilities of A, C, G, T at each row's positions, by the + and by the - strand.

        Both are given in + coordinates. All windows are of one length.
        """
        if not rows:
            return []
        size = max(1, self.batch_bp // len(rows[0].tokens))
        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        return list(chain.from_iterable(side_by_side(self._batch, parts, self.device)))

    def _batch(self, part: Sequence[Hidden]) -> list[np.ndarray]:
        tokens = torch.from_numpy(np.stack([row.tokens for row in part]))
        for row, hidden in zip(tokens, part, strict=True):
            row[torch.from_numpy(hidden.positions)] = MASK_TOKEN
        tokens = tokens.to(self.device)
        forward, reverse = (
            base_log_probabilities(self.model, strand, is_strand_averaged=False)
            for strand in (tokens, reverse_complement(tokens))
        )
        # The - strand backwards, and A for T, C for G.
        both = torch.stack([forward, reverse.flip(1, 2)], 1).cpu().double().numpy()
        return [log_probs[:, row.positions] for log_probs, row in zip(both, part, strict=True)]


def allele_likelihoods(
    score: MaskedBases, genome: Genome, alleles: Sequence[Allele], *, window_bp: int = WINDOW_BP
) -> list[Likelihood]:
    """Score each allele in a window of its own; the alleles of one position share it.

    Nothing else is hidden in that window: a score does not depend on what else is scored.
    """
    window_start(0, window_bp)  # raises for a window that cannot be
    rows: dict[tuple, Hidden] = {}
    keys = []
    for allele in alleles:
        own = dict(_hidden(genome, allele, window_start(allele.start, window_bp), window_bp))
        rows |= own
        keys.append(list(own))
    log_probs = dict(zip(rows, score(list(rows.values())), strict=True))
    return [
        _ratio(allele, [(rows[key], log_probs[key]) for key in own])
        for allele, own in zip(alleles, keys, strict=True)
    ]


def _hidden(
    genome: Genome, allele: Allele, low: int, window_bp: int
) -> Iterator[tuple[tuple, Hidden]]:
    """What must be predicted for one allele: of the reference, then of the alternative."""
    fetch = partial(genome.fetch, allele.contig)
    tokens, at = fetch(low, low + window_bp), allele.start - low
    key = (allele.contig, allele.start, len(allele.ref))
    if allele.growth_bp == 0:
        yield key, Hidden(tokens, np.arange(at, at + len(allele.ref)))
        return
    changed = edited(fetch, allele, allele.alt, low, low + window_bp)
    span, first = _span(allele), at - FLANK_BP
    for new, sequence, missing in zip((None, allele.alt.tobytes()), (tokens, changed),
                                      _missing(allele), strict=True):  # fmt: skip
        for turn in range(EVERY_BP):
            positions = np.arange(first - missing + turn, first + span, EVERY_BP)
            yield (*key, new, span, missing, turn), Hidden(sequence, positions)


def _span(allele: Allele) -> int:
    """Bases that are scored: of the longer sequence, from flank to flank."""
    return 2 * FLANK_BP + allele.shift_bp + max(len(allele.ref), len(allele.alt))


def _missing(allele: Allele) -> tuple[int, int]:
    """Bases by which reference and alternative are shorter than the longer one."""
    return max(allele.growth_bp, 0), max(-allele.growth_bp, 0)


def _ratio(allele: Allele, parts: list[tuple[Hidden, np.ndarray]]) -> Likelihood:
    if allele.growth_bp == 0:
        each, log_probs = np.arange(len(allele.ref)), parts[0][1]
        change = (log_probs[:, each, allele.alt] - log_probs[:, each, allele.ref]).sum(1)
    else:
        halves = parts[:EVERY_BP], parts[EVERY_BP:]
        before, after = (
            _both_ends(half, _span(allele), missing)
            for half, missing in zip(halves, _missing(allele), strict=True)
        )
        change = after - before
    return Likelihood(float(change[0]), float(change[1]))


def _both_ends(
    parts: Sequence[tuple[Hidden, np.ndarray]], span: int, missing: int
) -> Float[np.ndarray, " strands"]:
    """Mean of two sums over `span` bases: from the left flank on, and up to the right flank."""
    values = np.zeros((2, span + missing))
    first = min(int(hidden.positions[0]) for hidden, _ in parts)
    for hidden, log_probs in parts:
        tokens = hidden.tokens[hidden.positions]
        own = log_probs[:, np.arange(len(tokens)), np.minimum(tokens, 3)]
        values[:, hidden.positions - first] = np.where(tokens < 4, own, 0)
    return (values[:, missing:].sum(1) + values[:, :span].sum(1)) / 2


def substitutions(
    score: MaskedBases, rows: Sequence[Hidden]
) -> list[Float[np.ndarray, "strands hidden 4"]]:
    """Log p(base) - log p(reference base) at every hidden position; NaN where it is N."""
    changes = []
    for row, log_probs in zip(rows, score(rows), strict=True):
        ref = row.tokens[row.positions]
        change = log_probs - log_probs[:, np.arange(len(ref)), np.minimum(ref, 3), None]
        change[:, ref > 3] = np.nan
        changes.append(change)
    return changes


def spread_out(
    positions: Int64[np.ndarray, " candidates"], length: int, every_bp: int = STRIDE_BP
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


def agreement(
    score: MaskedBases,
    rows: Sequence[Hidden],
    changes: Sequence[Float[np.ndarray, "strands _ 4"]],
    *,
    n_positions: int = 64,
    seed: int = 0,
) -> list[Metric]:
    """Compare ratios of bases hidden together with those of the same bases hidden alone.

    `llr_shared_mask_r` is the correlation over positions and bases, `llr_shared_mask_rmse` the root
    mean square of the difference, in natural log units.
    """
    every = [(i, j) for i, row in enumerate(rows) for j in range(len(row.positions))]
    picked = np.random.default_rng(seed).permutation(len(every))[:n_positions]
    chosen = [every[k] for k in picked]
    alone = [Hidden(rows[i].tokens, rows[i].positions[j : j + 1]) for i, j in chosen]
    together, apart = [], []
    for (i, j), change in zip(chosen, substitutions(score, alone), strict=True):
        is_change = change[0, 0] != 0
        together.append(changes[i][:, j].mean(0)[is_change])
        apart.append(change[:, 0].mean(0)[is_change])
    x, y = (np.concatenate([*part, np.zeros(0)]) for part in (together, apart))
    x, y = x[np.isfinite(x)], y[np.isfinite(x)]
    if len(x) < 3 or x.std() == 0 or y.std() == 0:
        return []
    values = {"r": np.corrcoef(x, y)[0, 1], "rmse": np.sqrt(np.mean((x - y) ** 2))}
    facts = None, None, len(x), "genesplice", "genome", None, seed
    return [
        Metric(f"llr_shared_mask_{name}", float(value), *facts) for name, value in values.items()
    ]


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
            key = region, BASES[allele.ref[0]], BASES[allele.alt[0]]
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
            [c.length if c.is_circular else max(c.length - WINDOW_BP + 1, 0) for c in contigs]
        )
        if room.sum():
            for i in generator.choice(len(room), count, p=room / room.sum()):
                low = int(generator.integers(room[i]))
                yield Region(contigs[i].name, low, low + WINDOW_BP)

    def _classes(self, window: Region) -> UInt8[np.ndarray, " window"]:
        contig = self.genome.contig(window.contig)
        return self.track[contig.offset + np.arange(window.start, window.end) % contig.length]

    def _substitutions(self, n_windows: int) -> None:
        generator = np.random.default_rng([self.seed, 1])
        rows, classes = [], []
        for window in list(self._windows(n_windows, generator)):
            tokens, region = self.genome.fetch(*window), self._classes(window)
            # Close to an end of the window a base has few neighbours.
            order = EDGE_BP + generator.permutation(WINDOW_BP - 2 * EDGE_BP)
            # The rarest class first.
            order = order[np.argsort(-region[order], kind="stable")]
            positions = spread_out(order[tokens[order] < 4], WINDOW_BP)
            if len(positions):
                rows.append(Hidden(tokens, positions))
                classes.append(region[positions])
        if not rows:
            return
        changes = substitutions(self.score, rows)
        table = pd.DataFrame(
            np.concatenate([change.mean(0) for change in changes]), columns=list(BASES)
        ).assign(
            region=np.concatenate(classes),
            ref=np.concatenate([row.tokens[row.positions] for row in rows]),
        )
        for (region, ref), part in table.groupby(["region", "ref"]):
            for alt in BASES.replace(BASES[ref], ""):
                self.ratios[REGIONS[region], BASES[ref], alt] = np.sort(part[alt].to_numpy())
        self.metrics = agreement(self.score, rows, changes, seed=self.seed)

    def _indels(self, region: str, kind: str, length: str) -> Float[np.ndarray, " variants"]:
        low, high = (int(x) for x in length.split("-"))
        code = [REGIONS.index(region), low, int(kind == "insertion")]
        generator = np.random.default_rng([self.seed, 2, *code])
        alleles: list[Allele] = []
        for window in list(self._windows(20 * self.n_indels, generator)):
            if len(alleles) == self.n_indels:
                break
            own = np.flatnonzero(self._classes(window) == code[0])
            own = own[(own > 80) & (own < WINDOW_BP - 80)]
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
        return np.sort([one.mean for one in allele_likelihoods(self.score, self.genome, alleles)])

r"""How likely a masked-base model finds an allele beside the one that is there.

- One base, or several for as many: all that differ are hidden at once, and
  :math:`\sum_i \log p(alt_i) - \log p(ref_i)` is the ratio (GPN's, for a single base).
- Bases more or fewer: both sequences are read, each base of a stretch hidden in turn (every fourth
  at a time), and the log-probabilities of what stands there added up. The stretch spans all places
  where the same change could be written, and `FLANK_BP` on both sides. The shorter sequence is
  given as many bases as the longer one: from its left end on, and again up to its right end, and
  the mean of both is taken. So neither the placement in a repeat nor the number of bases is what
  is scored.

Each strand is read by itself. The ratio is the mean of both; where they tell different signs, each
by more than a threshold, it is withheld.

**Source** Benegas, Batra & Song 2023 (GPN), for single bases.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from genesplice.config.model import REGION_BP
from genesplice.data.genome import Genome
from genesplice.errors import InputError
from genesplice.model.genesplice import PretrainingModel, reverse_complement
from genesplice.model.sequence import MASK_TOKEN
from genesplice.predict.pretrained import base_log_probabilities
from genesplice.runtime import side_by_side
from genesplice.variants.alleles import Allele
from genesplice.variants.splice import Spliced

WINDOW_BP = 2048
FLANK_BP = 8
EVERY_BP = 4
ABSTAIN = 0.5
"""Natural log units by which both strands must disagree for a ratio to be withheld."""


class Hidden(NamedTuple):
    """A window, and which of its bases the model must tell; these are still in `tokens`."""

    tokens: UInt8[np.ndarray, " length"]
    places: Int64[np.ndarray, " hidden"]


class Likelihood(NamedTuple):
    """log p(alt) - log p(ref), natural, read on either strand."""

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

    Parameters
    ----------
    batch_bp
        Bases of one batch on one strand.
    """

    def __init__(self, model: PretrainingModel, *, batch_bp: int = 32_768) -> None:
        self.model, self.batch_bp = model.eval(), batch_bp
        self.device = next(model.parameters()).device

    @torch.no_grad()
    def __call__(self, rows: Sequence[Hidden]) -> list[Float[np.ndarray, "strands hidden 4"]]:
        """Log-probabilities of A, C, G, T at each row's places, by the + and by the - strand.

        Both are given in + coordinates. All windows are of one length.
        """
        if not rows:
            return []
        size = max(1, self.batch_bp // len(rows[0].tokens))

        def tell(part: Sequence[Hidden]) -> list[np.ndarray]:
            tokens = torch.from_numpy(np.stack([row.tokens for row in part]))
            for row, hidden in zip(tokens, part, strict=True):
                row[torch.from_numpy(hidden.places)] = MASK_TOKEN
            tokens = tokens.to(self.device)
            forward = self._read(tokens)
            # Backwards, and A for T, C for G.
            reverse = self._read(reverse_complement(tokens)).flip(1, 2)
            found = []
            for i, hidden in enumerate(part):
                at = torch.from_numpy(hidden.places).to(self.device)
                both = torch.stack([forward[i, at], reverse[i, at]])
                found.append(both.cpu().numpy().astype(np.float64))
            return found

        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        return list(chain.from_iterable(side_by_side(tell, parts, self.device)))

    def _read(self, tokens: UInt8[Tensor, "batch length"]) -> Float[Tensor, "batch length 4"]:
        return base_log_probabilities(self.model, tokens, is_strand_averaged=False)


def place_window(position: int, window_bp: int) -> int:
    """Where the window around `position` begins: on the 1,024-bp grid, half of it on each side."""
    return round((position - window_bp / 2) / REGION_BP) * REGION_BP


def allele_likelihoods(
    score: MaskedBases,
    genome: Genome,
    alleles: Sequence[Allele],
    *,
    window_bp: int = WINDOW_BP,
    beside: Sequence[Sequence[Allele]] | None = None,
) -> list[Likelihood]:
    """Score each allele in a window of its own; the alleles of one place share it.

    Nothing else is hidden in that window, so that a score does not depend on what is scored
    beside it.

    Parameters
    ----------
    beside
        For each allele those of its haplotype, sorted and without overlaps: they stand in the
        reference and in the alternative, as far as they lie inside the window.

    Raises
    ------
    InputError
        If the window is no multiple of 1,024 bp, or less than 2,048.
    """
    if window_bp % REGION_BP or window_bp < 2 * REGION_BP:
        raise InputError(f"a window of {window_bp} bp", f"a multiple of {REGION_BP}, twice or more")
    rows: dict[tuple[object, ...], Hidden] = {}
    asked = []
    for allele, others in zip(alleles, beside or [()] * len(alleles), strict=True):
        keys, low = [], place_window(allele.start, window_bp)
        inside = [one for one in others if low <= one.start and one.end <= low + window_bp]
        held = Spliced(genome, inside, allele.start) if inside else genome
        background = tuple((one.start, one.end, one.alt.tobytes()) for one in inside)
        for name, row in _rows(held, allele, window_bp):
            key = (*name, background)
            rows.setdefault(key, row)
            keys.append(key)
        asked.append(keys)
    told = dict(zip(rows, score(list(rows.values())), strict=True))
    return [
        _ratio(allele, [(rows[key], told[key]) for key in keys])
        for allele, keys in zip(alleles, asked, strict=True)
    ]


def _rows(
    genome: Genome | Spliced, allele: Allele, window_bp: int
) -> Iterator[tuple[tuple[object, ...], Hidden]]:
    """What must be read for one allele: of the reference, then of the alternative."""
    low = place_window(allele.start, window_bp)
    tokens = genome.fetch(allele.contig, low, low + window_bp)
    at = allele.start - low
    if allele.growth_bp == 0:
        places = np.arange(at, at + len(allele.ref))
        yield (allele.contig, allele.start, len(allele.ref)), Hidden(tokens, places)
        return
    changed = alternative(genome, allele, low, window_bp)
    span, first = _span(allele), at - FLANK_BP
    for name, sequence, length in (
        (None, tokens, len(allele.ref)),
        (allele.alt.tobytes(), changed, len(allele.alt)),
    ):
        more = _more(allele, length)
        for turn in range(EVERY_BP):
            places = np.arange(first - more + turn, first + span, EVERY_BP)
            key = (allele.contig, allele.start, len(allele.ref), name, span, more, turn)
            yield key, Hidden(sequence, places)


def alternative(
    genome: Genome | Spliced, allele: Allele, low: int, window_bp: int
) -> UInt8[np.ndarray, " window"]:
    """The window from `low` on with the allele in it; what follows moves, the end is made up."""
    before = genome.fetch(allele.contig, low, allele.start)
    after = genome.fetch(allele.contig, allele.end, low + window_bp + len(allele.ref))
    return np.concatenate([before, allele.alt, after])[:window_bp]


def _span(allele: Allele) -> int:
    """Bases that are scored: of the longer sequence, from flank to flank."""
    return 2 * FLANK_BP + allele.shift_bp + max(len(allele.ref), len(allele.alt))


def _more(allele: Allele, length: int) -> int:
    """Bases by which an allele of `length` is shorter than the other one."""
    return max(len(allele.ref), len(allele.alt)) - length


def _ratio(allele: Allele, parts: list[tuple[Hidden, np.ndarray]]) -> Likelihood:
    if allele.growth_bp == 0:
        each = np.arange(len(allele.ref))
        told = parts[0][1]
        change = (told[:, each, allele.alt] - told[:, each, allele.ref]).sum(1)
    else:
        half = len(parts) // 2
        before = _both_ends(parts[:half], _span(allele), _more(allele, len(allele.ref)))
        after = _both_ends(parts[half:], _span(allele), _more(allele, len(allele.alt)))
        change = after - before
    return Likelihood(float(change[0]), float(change[1]))


def _both_ends(
    parts: Sequence[tuple[Hidden, np.ndarray]], span: int, more: int
) -> Float[np.ndarray, " strands"]:
    """Mean of two sums over `span` bases: from the left flank on, and up to the right flank."""
    values = np.zeros((2, span + more))
    first = min(int(hidden.places[0]) for hidden, _ in parts)
    for hidden, told in parts:
        tokens = hidden.tokens[hidden.places]
        each = told[:, np.arange(len(tokens)), np.minimum(tokens, 3)]
        values[:, hidden.places - first] = np.where(tokens < 4, each, 0)
    return (values[:, more:].sum(1) + values[:, :span].sum(1)) / 2

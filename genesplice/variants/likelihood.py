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

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8

from genesplice.config.model import RELATIVE_GROUPS
from genesplice.data.genome import Genome
from genesplice.errors import InputError, require
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.genesplice import PretrainingModel, reverse_complement
from genesplice.model.incremental import IncrementalEncoder
from genesplice.model.sequence import MASK_TOKEN, N_TOKEN, REGION_BP, reverse_columns
from genesplice.predict.pretrained import base_log_probabilities
from genesplice.results import Metric
from genesplice.runtime import side_by_side
from genesplice.variants.alleles import NEAR_BP, Allele

WINDOW_BP = 2048
BATCH_BP = 32_768
FLANK_BP = 8
EVERY_BP = 4
STRIDE_BP = 32
"""Strided masking hides every 32nd base at once, as pre-training's own score does."""
BASES = "ACGT"
ABSTAIN = 0.5
"""Natural log units by which both strands must disagree for a ratio to be withheld."""

Bases = UInt8[np.ndarray, " length"]
Columns = UInt8[np.ndarray, "length groups 5"]
Changes = Float[np.ndarray, "strands _ 4"]
"""Of log-probabilities, in the order A, C, G, T."""
Reading = Literal["all", "far", "none", "added"]
Fetch = Callable[[int, int], UInt8[np.ndarray, "length *channels"]]


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
) -> UInt8[np.ndarray, "window *channels"]:
    """`[low, high)` of a track in which `new` replaces the allele's interval.

    What follows moves and the end is filled up; with `moves_left` what precedes it moves.
    """
    size = high - low
    if moves_left:
        before, after = fetch(allele.start - size, allele.start), fetch(allele.end, high)
        return np.concatenate([before, new, after])[-size:]
    before, after = fetch(low, allele.start), fetch(allele.end, allele.end + size)
    return np.concatenate([before, new, after])[:size]


def edited_window(
    genome: Genome, allele: Allele, low: int, high: int, *, moves_left: bool = False
) -> tuple[Bases, Columns]:
    """`edited` bases and alignment columns: of new bases, those of the ones that they replace."""
    fetch, fetch_columns = (
        partial(fetch, allele.contig) for fetch in (genome.fetch, genome.fetch_columns)
    )
    old = fetch_columns(allele.start, allele.end)[: len(allele.alt)]
    new = np.concatenate([old, np.zeros((len(allele.alt) - len(old), *old.shape[1:]), np.uint8)])
    return (
        edited(fetch, allele, allele.alt, low, high, moves_left=moves_left),
        edited(fetch_columns, allele, new, low, high, moves_left=moves_left),
    )


class Hidden(NamedTuple):
    """A window, and positions whose bases the model must predict; these are still in `tokens`."""

    tokens: Bases
    positions: Int64[np.ndarray, " hidden"]
    columns: Columns


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

    Parameters
    ----------
    relatives
        Which of them the model reads: `all`, `far` or `none`. With `added`, what they add: the
        log-probabilities with all of them less those of the genome alone.
    batch_bp
        Bases of one batch on one strand.

    Raises
    ------
    InputError
        If the model reads no relatives and `relatives` is not `all`.
    """

    def __init__(
        self, model: PretrainingModel, relatives: Reading = "all", *, batch_bp: int = BATCH_BP
    ) -> None:
        found = f"relatives {relatives}, and a model that reads none"
        require(relatives == "all" or model.config.relatives, found, "all")
        groups = {"far": (RELATIVE_GROUPS - 1,), "none": ()}.get(relatives)
        self.model = (model if groups is None else model.reading(*groups)).eval()
        self.batch_bp, self.device = batch_bp, next(model.parameters()).device
        is_added = relatives == "added"
        self.less = MaskedBases(model, "none", batch_bp=batch_bp) if is_added else None

    @torch.no_grad()
    def __call__(self, rows: Sequence[Hidden]) -> list[Changes]:
        """Log-probabilities of A, C, G, T at each row's positions, by the + and by the - strand.

        Both are given in + coordinates. All windows are of one length.
        """
        found = self._read(rows)
        if self.less is None:
            return found
        return [one - alone for one, alone in zip(found, self.less(rows), strict=True)]

    def _read(self, rows: Sequence[Hidden]) -> list[Changes]:
        size = max(1, self.batch_bp // len(rows[0].tokens)) if rows else 1
        families: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            families.setdefault(id(row.tokens), []).append(i)
        encoder, parts, whole = self.model.encoder, list[list[int]](), list[int]()
        can_splice = isinstance(encoder, HierarchicalEncoder) and not encoder.permutes_regions
        for family in families.values():
            is_near = all(np.ptp(rows[i].positions) < NEAR_BP for i in family)
            if can_splice and is_near and len(family) > 1:
                parts.append(family)
            else:
                whole += family
        n_spliced = len(parts)
        parts += [whole[i : i + size] for i in range(0, len(whole), size)]

        def score(number: int) -> list[np.ndarray]:
            run = self._spliced if number < n_spliced else self._batch
            return run([rows[i] for i in parts[number]])

        found = chain.from_iterable(side_by_side(score, range(len(parts)), self.device))
        by_row = dict(zip(chain.from_iterable(parts), found, strict=True))
        return [by_row[i] for i in range(len(rows))]

    def _batch(self, part: Sequence[Hidden]) -> list[np.ndarray]:
        """Each row in a pass of its own."""
        tokens = torch.from_numpy(np.stack([row.tokens for row in part]))
        columns = torch.from_numpy(np.stack([row.columns for row in part])).to(self.device)
        for row, hidden in zip(tokens, part, strict=True):
            row[torch.from_numpy(hidden.positions)] = MASK_TOKEN
        tokens = tokens.to(self.device)
        other = reverse_complement(tokens), reverse_columns(columns)
        forward, reverse = (
            base_log_probabilities(self.model, *strand, is_strand_averaged=False)
            for strand in ((tokens, columns), other)
        )
        # The - strand backwards, and A for T, C for G.
        both = torch.stack([forward, reverse.flip(1, 2)], 1).cpu().double().numpy()
        return [log_probs[:, row.positions] for log_probs, row in zip(both, part, strict=True)]

    def _spliced(self, part: Sequence[Hidden]) -> list[np.ndarray]:
        """Rows of one window: it is encoded once, and again around what each row hides."""
        encoder, read = self.model.encoder, (part[0].tokens, part[0].columns)
        tokens, columns = (torch.from_numpy(x)[None].to(self.device) for x in read)
        assert isinstance(encoder, HierarchicalEncoder)
        strands, length, bin_bp = [], tokens.shape[1], encoder.bin_bp
        for is_reverse in (False, True):
            if is_reverse:
                tokens, columns = reverse_complement(tokens), reverse_columns(columns)
            is_real = (tokens != N_TOKEN).view(1, -1, bin_bp).any(-1)
            channels = encoder.channels(tokens, columns=columns)
            window = IncrementalEncoder(encoder, channels, is_real, with_bases=True)
            for row in part:
                at = length - 1 - row.positions[::-1] if is_reverse else row.positions
                low, high = int(at[0]), int(at[-1]) + 1
                bases = channels[:, low:high, :4].clone()
                bases[:, at - low] = 0
                bins = low // bin_bp, -(-high // bin_bp)
                logits = self.model.base_logits(window.encode(bins, low, bases)).float()
                found = F.log_softmax(logits, -1)[0, at - bins[0] * bin_bp]
                strands.append(found.flip(0, 1) if is_reverse else found)
        pairs = zip(strands[: len(part)], strands[len(part) :], strict=True)
        return [torch.stack(pair).cpu().double().numpy() for pair in pairs]


def allele_likelihoods(
    score: MaskedBases, genome: Genome, alleles: Sequence[Allele], *, window_bp: int = WINDOW_BP
) -> list[Likelihood]:
    """Score each allele in a window of its own; the alleles of one position share it.

    Nothing else is hidden in that window: a score does not depend on what else is scored.
    """
    window_start(0, window_bp)  # raises for a window that cannot be
    rows: dict[tuple, Hidden] = {}
    keys, windows = [], dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]()
    for allele in alleles:
        low = window_start(allele.start, window_bp)
        if (allele.contig, low) not in windows:
            interval = allele.contig, low, low + window_bp
            windows[allele.contig, low] = genome.fetch(*interval), genome.fetch_columns(*interval)
        own = dict(_hidden(genome, allele, low, *windows[allele.contig, low]))
        rows |= own
        keys.append(list(own))
    log_probs = dict(zip(rows, score(list(rows.values())), strict=True))
    return [
        _ratio(allele, [(rows[key], log_probs[key]) for key in own])
        for allele, own in zip(alleles, keys, strict=True)
    ]


def _hidden(
    genome: Genome, allele: Allele, low: int, tokens: Bases, columns: Columns
) -> Iterator[tuple[tuple, Hidden]]:
    """What must be predicted for one allele: of the reference, then of the alternative.

    Columns stay with their bases; nothing is aligned to new ones beyond those that they replace.
    """
    at, key = allele.start - low, (allele.contig, allele.start, len(allele.ref))
    if allele.growth_bp == 0:
        yield key, Hidden(tokens, np.arange(at, at + len(allele.ref)), columns)
        return
    span, first = _span(allele), at - FLANK_BP
    pairs = (tokens, columns), edited_window(genome, allele, low, low + len(tokens))
    for new, (sequence, aligned), missing in zip(
        (None, allele.alt.tobytes()), pairs, _missing(allele), strict=True
    ):
        for turn in range(EVERY_BP):
            positions = np.arange(first - missing + turn, first + span, EVERY_BP)
            yield (*key, new, span, missing, turn), Hidden(sequence, positions, aligned)


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


def _both_ends(parts: Sequence[tuple[Hidden, Changes]], span: int, missing: int) -> np.ndarray:
    """Mean of two sums over `span` bases: from the left flank on, and up to the right flank."""
    values = np.zeros((2, span + missing))
    first = min(int(hidden.positions[0]) for hidden, _ in parts)
    for hidden, log_probs in parts:
        tokens = hidden.tokens[hidden.positions]
        own = log_probs[:, np.arange(len(tokens)), np.minimum(tokens, 3)]
        values[:, hidden.positions - first] = np.where(tokens < 4, own, 0)
    return (values[:, missing:].sum(1) + values[:, :span].sum(1)) / 2


def substitutions(score: MaskedBases, rows: Sequence[Hidden]) -> list[Changes]:
    """Log p(base) - log p(reference base) at every hidden position; NaN where it is N."""
    changes = []
    for row, log_probs in zip(rows, score(rows), strict=True):
        ref = row.tokens[row.positions]
        change = log_probs - log_probs[:, np.arange(len(ref)), np.minimum(ref, 3), None]
        change[:, ref > 3] = np.nan
        changes.append(change)
    return changes


def agreement(
    score: MaskedBases,
    rows: Sequence[Hidden],
    changes: Sequence[Changes],
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
    alone = [rows[i]._replace(positions=rows[i].positions[j : j + 1]) for i, j in chosen]
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

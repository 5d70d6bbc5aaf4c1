r"""Count models of a genome: what a table of neighbouring bases knows about a hidden one.

A base's probabilities given its `left` preceding and `right` following bases, counted on both
strands, backed off to ever shorter contexts. With :math:`n_j(x)` the count of base x in the
context of step j, :math:`n_j` their sum and :math:`c_j` a pseudocount,

.. math:: p_j(x) = \lambda_j\, n_j(x) / n_j + (1 - \lambda_j)\, p_{j-1}(x),
          \qquad \lambda_j = n_j / (n_j + c_j), \quad p_{-1} = 1/4.

Step by step the context loses its farthest base on both sides (on one, where the other has none
left): 4+4, 3+3, ..., 0+0. With `right` 0 this is a Markov chain of order `left`.

Source: contexts interpolated as in Salzberg et al. 1998 (Glimmer), with the weights of Dirichlet
smoothing (MacKay & Peto 1995).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from genesplice.data.genome import Genome, reverse_complement
from genesplice.errors import InputError, require

CONTEXTS = ((5, 0), (4, 4))
"""Contexts (left, right) that are reported, where no others are given."""
MAX_BASES = 11
"""Longest context: 4^11 contexts are 134 MB of probabilities."""
PSEUDOCOUNTS = tuple(2.0**power for power in range(-1, 11))
CHUNK_BP = 1 << 20

Interval = tuple[str, int, int]


class CountModel(NamedTuple):
    """Tables of probabilities, from no context at all to the longest.

    A context's row in `tables` is read outwards from the base, two bits a base (A 0 ... T 3): the
    nearest left base first, then the nearest right one, and so on. The row of the next shorter
    context is therefore the same number without its last one or two bases.
    """

    left: int
    right: int
    tables: tuple[Float[np.ndarray, "_ 4"], ...]
    pseudocounts: tuple[float, ...]

    @property
    def name(self) -> str:
        """`count_one_sided` or `count_two_sided`, as the metrics call it."""
        return "count_two_sided" if self.right else "count_one_sided"

    def probabilities(self, tokens: UInt8[np.ndarray, " length"]) -> Float[np.ndarray, "length 4"]:
        """P(A), P(C), P(G), P(T) at every position, from its neighbours and never from itself.

        A position uses the longest context that holds neither an N (any token above 3) nor
        anything beyond the ends of `tokens`.
        """
        probabilities = np.empty((len(tokens), 4))
        contexts = _contexts(tokens, self.left, self.right)
        for table, (code, is_known) in zip(self.tables, contexts, strict=True):
            if is_known.all():
                np.take(table, code, axis=0, out=probabilities)
            else:
                probabilities[is_known] = table[code[is_known]]
        return probabilities


def fit_count_model(
    genome: Genome,
    intervals: Sequence[Interval],
    left: int,
    right: int,
    *,
    pseudocount: float | None = None,
) -> CountModel:
    """Count contexts of A, C, G and T in `intervals`, on both strands.

    Nothing outside of the intervals is read: next to their ends contexts are shorter.

    Parameters
    ----------
    intervals
        (contig, start, end), 0-based half-open.
    pseudocount
        c of every step. None: for each step the one of `PSEUDOCOUNTS` that predicts the counted
        bases best, each from the counts without itself; held-out sequence has no say in it.

    Raises
    ------
    InputError
        If a side is negative, the context longer than `MAX_BASES`, the pseudocount not above 0,
        or there is no base to count.
    """
    if min(left, right) < 0 or left + right > MAX_BASES:
        raise InputError(f"{left} + {right} bases of context", f"0 to {MAX_BASES} in all")
    if pseudocount is not None and pseudocount <= 0:
        raise InputError(f"pseudocount {pseudocount}", "above 0")
    counts = [np.zeros(4 ** (a + b + 1), np.int64) for a, b in _steps(left, right)]
    for contig, start, end in intervals:
        for low in range(start, end, CHUNK_BP):
            high = min(low + CHUNK_BP, end)
            # Chunks overlap by the context, so that cutting an interval up does not change it.
            outer = max(low - left - right, start), min(high + left + right, end)
            tokens = genome.fetch(contig, *outer)
            inner = slice(low - outer[0], high - outer[0])
            _count(tokens, inner, left, right, counts)
            mirrored = slice(len(tokens) - inner.stop, len(tokens) - inner.start)
            _count(reverse_complement(tokens), mirrored, left, right, counts)
    require(counts[0].sum(), "no base to count", "intervals with A, C, G or T")
    tables, pseudocounts = [], []
    shorter = np.full((1, 4), 0.25)
    for count in counts:
        seen = count.reshape(-1, 4)
        shorter = np.repeat(shorter, len(seen) // len(shorter), axis=0)
        chosen = _best_pseudocount(seen, shorter) if pseudocount is None else float(pseudocount)
        shorter = (seen + chosen * shorter) / (seen.sum(axis=1, keepdims=True) + chosen)
        tables.append(shorter)
        pseudocounts.append(chosen)
    return CountModel(left, right, tuple(tables), tuple(pseudocounts))


def _steps(left: int, right: int) -> list[tuple[int, int]]:
    """(left, right) of each context, the shortest first."""
    longest = max(left, right)
    return [(max(left - j, 0), max(right - j, 0)) for j in range(longest, -1, -1)]


def _contexts(
    tokens: UInt8[np.ndarray, " length"], left: int, right: int
) -> Iterator[tuple[Int64[np.ndarray, " length"], Bool[np.ndarray, " length"]]]:
    """Row of every position's context, and whether it is known whole; for each of `_steps`."""
    n = len(tokens)
    padded = np.full(left + n + right, 4, np.uint8)
    padded[left : left + n] = tokens
    code, is_known = np.zeros(n, np.int64), np.ones(n, bool)
    yield code, is_known
    for shorter, longer in zip(_steps(left, right)[:-1], _steps(left, right)[1:], strict=True):
        offsets = [-longer[0]] * (longer[0] > shorter[0]) + [longer[1]] * (longer[1] > shorter[1])
        for offset in offsets:
            neighbour = padded[left + offset : left + offset + n]
            code = code * 4 + np.minimum(neighbour, 3)
            is_known = is_known & (neighbour < 4)
        yield code, is_known


def _count(
    tokens: UInt8[np.ndarray, " length"],
    inner: slice,
    left: int,
    right: int,
    counts: Sequence[Int64[np.ndarray, " _"]],
) -> None:
    """Add the bases of `inner` to the counts of every step, in place."""
    for count, (code, is_known) in zip(counts, _contexts(tokens, left, right), strict=True):
        kept = is_known[inner] & (tokens[inner] < 4)
        cell = code[inner][kept] * 4 + tokens[inner][kept]
        count += np.bincount(cell, minlength=len(count))


def _best_pseudocount(
    seen: Int64[np.ndarray, "contexts 4"], shorter: Float[np.ndarray, "contexts 4"]
) -> float:
    """The one of `PSEUDOCOUNTS` with the fewest bits, each base predicted by all others."""
    total = np.broadcast_to(seen.sum(axis=1, keepdims=True), seen.shape)
    is_seen = seen > 0
    times, others, guess = seen[is_seen], total[is_seen] - 1, shorter[is_seen]
    bits = [-(times * np.log2((times - 1 + c * guess) / (others + c))).sum() for c in PSEUDOCOUNTS]
    return PSEUDOCOUNTS[int(np.argmin(bits))]

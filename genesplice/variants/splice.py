"""A genome with several alleles in it.

Alleles are sorted and do not overlap. What lies between the last of the left ones and the first of
the right ones keeps the genome's coordinates; everything else moves by what is inserted or lost.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8

from genesplice.data.genome import Genome
from genesplice.variants.alleles import Allele

__all__ = ["Spliced", "joined", "moved", "spliced"]

Fetch = Callable[[int, int], UInt8[np.ndarray, " _"]]


class Spliced:
    """Reads like a `Genome`, in which the alleles of one haplotype stand.

    Parameters
    ----------
    anchor
        A place that keeps its coordinate: alleles that begin before it are the left ones.
    """

    def __init__(self, genome: Genome, alleles: Sequence[Allele], anchor: int) -> None:
        self.genome, self.alleles = genome, tuple(alleles)
        self.n_left = sum(one.start < anchor for one in alleles)

    def fetch(self, contig: str, start: int, end: int) -> UInt8[np.ndarray, " length"]:
        """The bases of `[start, end)` of the haplotype, + strand."""

        def old(low: int, high: int) -> UInt8[np.ndarray, " _"]:
            return self.genome.fetch(contig, low, high)

        return spliced(old, [(one, one.alt) for one in self.alleles], self.n_left, start, end)


def spliced(
    fetch: Fetch,
    edits: Sequence[tuple[Allele, UInt8[np.ndarray, " _"]]],
    n_left: int,
    low: int,
    high: int,
) -> UInt8[np.ndarray, " length"]:
    """`[low, high)` of a track in which each allele's stretch is replaced by what is given for it.

    Parameters
    ----------
    fetch
        The unchanged track.
    n_left
        How many alleles are to the left of what keeps its place.
    """
    if not edits:
        return fetch(low, high)
    pivot = edits[n_left - 1][0].end if n_left else edits[0][0].start
    # What is asked for may lie beyond the pivot altogether.
    first, last = min(low, pivot), max(high, pivot)
    at, right = pivot, []
    for allele, new in edits[n_left:]:
        right += [fetch(at, allele.start), new]
        at = allele.end
    right.append(fetch(at, at + max(last - pivot - sum(map(len, right)), 0)))
    at, left = pivot, []
    for allele, new in reversed(edits[:n_left]):
        left += [fetch(allele.end, at), new]
        at = allele.start
    left.append(fetch(at - max(pivot - first - sum(map(len, left)), 0), at))
    before, after = np.concatenate(left[::-1]), np.concatenate(right)
    whole = np.concatenate([before[len(before) - (pivot - first) :], after[: last - pivot]])
    return whole[low - first : high - first]


def moved(alleles: Sequence[Allele], n_left: int, edge: int) -> int:
    """Where an edge between two bases of the genome lies once the alleles are there.

    An edge inside of what is replaced lies behind the new bases.
    """
    grown = 0
    for allele in alleles:
        at = allele.start + grown
        if edge > at:
            edge = max(edge + allele.growth_bp, at + len(allele.alt))
        grown += allele.growth_bp
    return edge - sum(allele.growth_bp for allele in alleles[:n_left])


def joined(allele: Allele, beside: Sequence[Allele]) -> tuple[Allele, ...]:
    """An allele among others, sorted by place."""
    return tuple(sorted((*beside, allele), key=lambda one: (one.start, one.end)))

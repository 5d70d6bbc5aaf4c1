"""What one ALT of a VCF record changes: its kind, its bases, and where else it could stand.

The same insertion or deletion in a repeat can be written at several places. `normalise` finds the
leftmost one and the number of others, so that whatever is computed from both does not depend on
how the file's author wrote it.
"""

import re
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from genesplice.data.genome import Genome, encode
from genesplice.errors import InputError

Kind = Literal["snv", "mnv", "insertion", "deletion", "complex"]
REPEAT_BP = 128
BASES = re.compile(r"[ACGTNacgtn]+")


class Allele(NamedTuple):
    """A change of a contig: `ref` at `start` (0-based) becomes `alt`; common ends are gone.

    A pure insertion or deletion is the leftmost of its equivalent placements, which are those
    0 … `shift_bp` to the right (at most `REPEAT_BP`).
    """

    contig: str
    start: int
    ref: UInt8[np.ndarray, " replaced"]
    alt: UInt8[np.ndarray, " inserted"]
    shift_bp: int = 0

    @property
    def end(self) -> int:
        """Where what is replaced ends (half-open)."""
        return self.start + len(self.ref)

    @property
    def kind(self) -> Kind:
        """One base, as many bases, bases more or bases fewer; complex: anything else."""
        if len(self.ref) == len(self.alt):
            return "snv" if len(self.ref) == 1 else "mnv"
        if not len(self.ref):
            return "insertion"
        return "complex" if len(self.alt) else "deletion"

    @property
    def growth_bp(self) -> int:
        """Bases more than before."""
        return len(self.alt) - len(self.ref)


def kind_of_alt(alt: str) -> Literal["bases", "no_alt", "symbolic", "breakend", "bad_allele"]:
    """What an entry of the ALT column is, by its spelling alone."""
    if alt in (".", ""):
        return "no_alt"
    if alt == "*" or (alt.startswith("<") and alt.endswith(">")):
        return "symbolic"
    if "[" in alt or "]" in alt or alt.startswith(".") or alt.endswith("."):
        return "breakend"
    return "bases" if BASES.fullmatch(alt) else "bad_allele"


def normalise(genome: Genome, contig: str, position: int, ref: str, alt: str) -> Allele:
    """Cut common ends off and move an insertion or deletion to its leftmost place.

    Parameters
    ----------
    position
        Of the first letter of `ref`, 0-based; `ref` must be what the genome has there.

    Raises
    ------
    InputError
        If both alleles are the same, or hold letters that are not DNA.
    """
    old, new = encode(ref), encode(alt)
    if np.array_equal(old, new):
        raise InputError(f"ALT {alt} equal to REF", "another allele")
    shorter = min(len(old), len(new))
    differ = np.flatnonzero(old[::-1][:shorter] != new[::-1][:shorter])
    tail = int(differ[0]) if len(differ) else shorter
    old, new = old[: len(old) - tail], new[: len(new) - tail]
    shorter = min(len(old), len(new))
    differ = np.flatnonzero(old[:shorter] != new[:shorter])
    head = int(differ[0]) if len(differ) else shorter
    return _leftmost(genome, Allele(contig, position + head, old[head:], new[head:]))


def _leftmost(genome: Genome, allele: Allele) -> Allele:
    if allele.kind not in ("insertion", "deletion"):
        return allele
    # Both are a stretch that is there in one of the two sequences and not in the other.
    stretch = allele.ref if len(allele.ref) else allele.alt
    before = genome.fetch(allele.contig, allele.start - REPEAT_BP, allele.start)
    after = genome.fetch(allele.contig, allele.end, allele.end + REPEAT_BP)
    with_it = np.concatenate([before, stretch, after])
    size = len(stretch)
    is_same = (with_it[:-size] == with_it[size:]) & (with_it[:-size] < 4)
    at = REPEAT_BP
    left = int(np.argmin(np.concatenate([is_same[:at][::-1], [False]])))
    right = int(np.argmin(np.concatenate([is_same[at:], [False]])))
    moved = with_it[at - left : at - left + size]
    ref, alt = (moved, allele.alt) if len(allele.ref) else (allele.ref, moved)
    return Allele(allele.contig, allele.start - left, ref, alt, left + right)

"""What one ALT of a VCF record changes, or why that cannot be scored; and VCFs of another genome.

The same insertion or deletion in a repeat can be written at several positions. `normalise` finds
the leftmost one and the number of others, so that whatever is computed from both does not depend
on how the file's author wrote it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from genesplice.data.bundle import Bundle
from genesplice.data.genome import Contig, Genome, encode
from genesplice.data.tables import some
from genesplice.errors import InputError, require
from genesplice.variants.vcf import Record

Kind = Literal["snv", "mnv", "insertion", "deletion", "complex"]
REPEAT_BP = 128
BASES = re.compile(r"[ACGTNacgtn]+")
FLAGS = (
    "unknown_contig", "outside_contig", "no_ref", "ref_mismatch", "no_alt", "symbolic", "breakend",
    "bad_allele", "same_allele", "too_long", "n_in_window", "abstains", "models_disagree",
)  # fmt: skip
"""Why an allele has no score, or not all.

- `unknown_contig`: the data have no contig of that name
- `outside_contig`: REF begins or ends outside of the contig
- `no_ref`: REF is missing
- `ref_mismatch`: REF is not what the genome has there
- `no_alt`: ALT is a dot
- `symbolic`: ALT is <…> or *
- `breakend`: ALT is a breakend
- `bad_allele`: an allele has letters other than A, C, G, T, N
- `same_allele`: ALT is REF
- `too_long`: more bases are replaced or inserted than --max-length
- `n_in_window`: an N in the alleles or close to them
- `abstains`: the strands disagree about the sign: GS_LLR is withheld
- `models_disagree`: the models disagree about the sign: GS_DLEVEL is withheld
"""
NEAR_BP = 64
MAX_LENGTH_BP = 64
MISMATCH_SHARE = 0.05
MIN_MISMATCHES = 3
"""One or two wrong letters in a short file say nothing of the whole file."""


class Region(NamedTuple):
    """An interval of a contig, 0-based half-open."""

    contig: str
    start: int
    end: int


class Allele(NamedTuple):
    """A change of a contig: `ref` at `start` (0-based) becomes `alt`; common ends are gone.

    A pure insertion or deletion is the leftmost of its equivalent placements, which are those
    0 … `shift_bp` to the right (at most `REPEAT_BP`). On a circular contig `start` lies within
    the contig; `end` may lie beyond its origin.
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

    @property
    def undone(self) -> "Allele":
        """No change at its place."""
        return self._replace(ref=self.ref[:0], alt=self.alt[:0], shift_bp=0)


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
    """Cut common ends off and move an insertion or deletion to its leftmost position.

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
    require(not np.array_equal(old, new), f"ALT {alt} equal to REF", "another allele")
    tail = _shared(old[::-1], new[::-1])
    old, new = old[: len(old) - tail], new[: len(new) - tail]
    head = _shared(old, new)
    return _leftmost(genome, Allele(contig, position + head, old[head:], new[head:]))


def _shared(one: np.ndarray, other: np.ndarray) -> int:
    """How many first bases are the same."""
    shorter = min(len(one), len(other))
    differ = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(differ[0]) if len(differ) else shorter


def _leftmost(genome: Genome, allele: Allele) -> Allele:
    if allele.kind not in ("insertion", "deletion"):
        return allele
    # Both are an interval that is there in one of the two sequences and not in the other.
    extra = allele.ref if len(allele.ref) else allele.alt
    before = genome.fetch(allele.contig, allele.start - REPEAT_BP, allele.start)
    after = genome.fetch(allele.contig, allele.end, allele.end + REPEAT_BP)
    longer = np.concatenate([before, extra, after])
    size = len(extra)
    is_same = (longer[:-size] == longer[size:]) & (longer[:-size] < 4)
    left = int(np.argmin(np.concatenate([is_same[:REPEAT_BP][::-1], [False]])))
    right = int(np.argmin(np.concatenate([is_same[REPEAT_BP:], [False]])))
    moved = longer[REPEAT_BP - left : REPEAT_BP - left + size]
    ref, alt = (moved, allele.alt) if len(allele.ref) else (allele.ref, moved)
    contig, start = genome.contig(allele.contig), allele.start - left
    start = start % contig.length if contig.is_circular else start
    return Allele(allele.contig, start, ref, alt, left + right)


class ContigNames:
    """Contigs of a genome by what a VCF may call them.

    The exact name; else the alias of the data's manifest; else, where only one contig answers to
    it, the name without its version (NC_000913 for NC_000913.3) or with `chr` put before it or
    taken away.
    """

    def __init__(self, genome: Genome, aliases: Mapping[str, str] | None = None) -> None:
        self.genome = genome
        self.exact = {contig.name: contig for contig in genome.contigs}
        for old, new in (aliases or {}).items():
            if new in self.exact:
                self.exact.setdefault(old, self.exact[new])
        names = [(bare, contig) for contig in genome.contigs for bare in self._bare(contig.name)]
        count = Counter(bare for bare, _ in names)
        self.loose = {bare: contig for bare, contig in names if count[bare] == 1}

    @staticmethod
    def _bare(name: str) -> set[str]:
        bare = name.lower().removeprefix("chr")
        stem, _, version = bare.rpartition(".")
        return {bare, stem} if stem and version.isdecimal() else {bare}

    def find(self, name: str) -> Contig | None:
        """The contig, or None."""
        loose = (self.loose[bare] for bare in self._bare(name) if bare in self.loose)
        return self.exact.get(name) or next(loose, None)


def contig_names(bundle: Bundle) -> ContigNames:
    """What the contigs of a bundle may be called."""
    return ContigNames(bundle.genome, bundle.manifest.get("contig_aliases"))


def _check_ref(record: Record, names: ContigNames) -> tuple[str | None, Contig | None]:
    """The flag of the whole record, if it has one, and its contig."""
    contig = names.find(record.contig)
    if contig is None:
        return "unknown_contig", None
    ref, low = record.ref, record.position
    if ref in (".", ""):
        return "no_ref", contig
    if kind_of_alt(ref) != "bases":
        return "bad_allele", contig
    if low < 0 or low + len(ref) > contig.length:
        return "outside_contig", contig
    reference, written = names.genome.fetch(contig.name, low, low + len(ref)), encode(ref)
    # An N in REF where the genome has a base is a gap in what is known, no contradiction.
    is_known = (reference < 4) & (written < 4)
    if (reference != written)[is_known].any():
        return "ref_mismatch", contig
    return None if is_known.all() else "n_in_window", contig


def check_record(
    record: Record, names: ContigNames, max_length_bp: int = MAX_LENGTH_BP
) -> list[Allele | str]:
    """For each ALT the allele, or the flag that says why there is none.

    A record without ALT gives one flag.
    """
    flag, contig = _check_ref(record, names)
    if not record.alts:
        return [flag or "no_alt"]

    def check(alt: str) -> Allele | str:
        kind = kind_of_alt(alt)
        if kind != "bases" and flag in (None, "no_ref", "n_in_window"):
            return kind
        if flag is not None or contig is None:
            return flag or "unknown_contig"
        if alt.upper() == record.ref.upper():
            return "same_allele"
        if "N" in (alt + record.ref).upper():
            return "n_in_window"
        allele = normalise(names.genome, contig.name, record.position, record.ref, alt)
        if max(len(allele.ref), len(allele.alt)) > max_length_bp:
            return "too_long"
        low, high = allele.start - NEAR_BP, allele.end + allele.shift_bp + NEAR_BP
        if not contig.is_circular:
            low, high = max(low, 0), min(high, contig.length)
        is_known = (names.genome.fetch(contig.name, low, high) < 4).all()
        return allele if is_known else "n_in_window"

    return [check(alt) for alt in record.alts]


class Survey(NamedTuple):
    """Counts of a whole VCF; `by_contig`, `shifted` and `n_swapped` are of mismatches alone.

    `renamed` has the contigs that are called otherwise in the data; `n_swapped` counts records
    with an ALT that is what the genome has.
    """

    n_records: int
    n_compared: int
    by_contig: Counter[str]
    renamed: dict[str, str]
    shifted: Counter[int]
    n_swapped: int
    unknown: Counter[str]

    @property
    def n_mismatches(self) -> int:
        """REFs that are not what the genome has."""
        return self.by_contig.total()

    @property
    def is_of_another_genome(self) -> bool:
        """More than 5 % of the REFs that can be compared, and no less than three, mismatch."""
        enough = max(MISMATCH_SHARE * self.n_compared, MIN_MISMATCHES - 1)
        return self.n_mismatches > enough

    @property
    def cause(self) -> str:
        """What the mismatches look like."""
        most = max(self.n_swapped, self.shifted[1], self.shifted[-1])
        if self.n_swapped == most >= 0.8 * self.n_mismatches:
            return "their ALT alleles are: REF and ALT look swapped"
        if self.shifted[1] >= 0.8 * self.n_mismatches:
            return "one base further on they match: POS is 0-based, VCF is 1-based"
        if self.shifted[-1] >= 0.8 * self.n_mismatches:
            return "one base before they match: POS is 2-based: one too far right"
        if set(self.by_contig) <= self.renamed.keys():
            names = ", ".join(sorted(self.by_contig)[:3])
            return f"only contigs found under another name mismatch ({names}): contig naming"
        return "the file is likely of another assembly"


def survey(
    records: Iterable[Record],
    names: ContigNames,
    path: Path | None = None,
    lengths: Mapping[str, tuple[int, int]] | None = None,
) -> Survey:
    """Compare every REF with the genome; nothing is kept but counts.

    `lengths` has what a file declares of its contigs: length and line. Under another name (another
    version) a contig may have another length, and its REFs decide.

    Raises
    ------
    InputError
        If a contig of a record is declared to be of another length than that of the genome.
    """
    lengths = lengths or {}
    n_records = n_compared = n_swapped = 0
    by_contig, shifted, unknown = Counter[str](), Counter[int](), Counter[str]()
    renamed = dict[str, str]()
    for record in records:
        n_records += 1
        flag, contig = _check_ref(record, names)
        if contig is None:
            unknown[record.contig] += 1
            continue
        if contig.name != record.contig:
            renamed[record.contig] = contig.name
        length, line = lengths.get(record.contig, (contig.length, None))
        if length != contig.length and contig.name == record.contig:
            found = f"contig {record.contig!r} of {length} bp"
            expected = f"{contig.length} bp, the length of {contig.name} in the data"
            raise InputError(found, f"{expected} (another version?)", path=path, line=line)
        n_compared += flag in (None, "ref_mismatch")
        if flag == "ref_mismatch":
            by_contig[record.contig] += 1
            for shift in (1, -1):
                shifted[shift] += _is_at(names.genome, contig, record.position + shift, record.ref)
            n_swapped += any(
                kind_of_alt(alt) == "bases" and _is_at(names.genome, contig, record.position, alt)
                for alt in record.alts
            )
    return Survey(n_records, n_compared, by_contig, renamed, shifted, n_swapped, unknown)


def survey_file(
    records: Iterable[Record],
    bundle: Bundle,
    path: Path,
    lengths: Mapping[str, tuple[int, int]] | None = None,
) -> Survey:
    """`survey` of all records of a file, which must be of the bundle's genome.

    Raises
    ------
    InputError
        As `survey` and `refuse_another_genome`, and where the data have none of the contigs.
    """
    found = survey(records, contig_names(bundle), path, lengths)
    if found.n_records and found.unknown.total() == found.n_records:
        own = some((contig.name for contig in bundle.genome.contigs), 3)
        what = f"no variant on a contig of {bundle.path}: all are on {some(found.unknown, 3)}"
        raise InputError(what, f"contigs {own}", path=path)
    refuse_another_genome(found, path, bundle.path)
    return found


def _is_at(genome: Genome, contig: Contig, start: int, bases: str) -> bool:
    return np.array_equal(genome.fetch(contig.name, start, start + len(bases)), encode(bases))


def refuse_another_genome(found: Survey, path: Path, data: Path) -> None:
    """Stop where a file is of another genome.

    Raises
    ------
    InputError
        If more than 5 % of the REFs mismatch, with the likely cause.
    """
    wrong = f"{found.n_mismatches} of {found.n_compared} REF alleles that are not those of {data}"
    expected = f"at most {MISMATCH_SHARE:.0%}; {found.cause}"
    require(not found.is_of_another_genome, wrong, expected, path)

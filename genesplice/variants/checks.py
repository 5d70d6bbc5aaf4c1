"""Which alleles can be scored, and why the others cannot; and a VCF of another genome."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genesplice.data.genome import Contig, Genome, encode
from genesplice.errors import InputError
from genesplice.variants.alleles import Allele, kind_of_alt, normalise
from genesplice.variants.vcf import Record

FLAGS = {
    "unknown_contig": "the data have no contig of that name",
    "outside_contig": "REF begins or ends outside of the contig",
    "no_ref": "REF is missing",
    "ref_mismatch": "REF is not what the genome has there",
    "no_alt": "ALT is a dot",
    "symbolic": "ALT is <…> or *",
    "breakend": "ALT is a breakend",
    "bad_allele": "an allele has letters other than A, C, G, T, N",
    "same_allele": "ALT is REF",
    "too_long": "more bases are replaced or inserted than --max-length",
    "n_in_window": "an N in the alleles or close to them",
    "abstains": "the strands disagree about the sign: GS_LLR is withheld",
    "models_disagree": "the models disagree about the sign: GS_DLEVEL is withheld",
}
NEAR_BP = 64
MAX_LENGTH_BP = 64
MISMATCH_SHARE = 0.05
MIN_MISMATCHES = 3
"""One or two wrong letters in a short file say nothing of the whole file."""


class ContigNames:
    """Contigs of a genome by what a VCF may call them.

    The exact name; else the alias of the data's manifest; else, where only one contig answers to
    it, the name without its version (NC_000913 for NC_000913.3) or with `chr` put before it or
    taken away.
    """

    def __init__(self, genome: Genome, aliases: Mapping[str, str] | None = None) -> None:
        self.genome = genome
        self.exact = {contig.name: contig for contig in genome.contigs}
        self.aliases = {
            old: self.exact[new] for old, new in (aliases or {}).items() if new in self.exact
        }
        spoken: dict[str, set[str]] = {}
        for contig in genome.contigs:
            for word in self._words(contig.name):
                spoken.setdefault(word, set()).add(contig.name)
        self.loose = {word: names.pop() for word, names in spoken.items() if len(names) == 1}

    @staticmethod
    def _words(name: str) -> set[str]:
        bare = name.lower().removeprefix("chr")
        stem, _, version = bare.rpartition(".")
        return {bare, stem} if stem and version.isdecimal() else {bare}

    def find(self, name: str) -> Contig | None:
        """The contig, or None."""
        found = self.exact.get(name) or self.aliases.get(name)
        if found is None:
            loose = next((self.loose[w] for w in self._words(name) if w in self.loose), None)
            found = None if loose is None else self.exact[loose]
        return found


def _check_ref(record: Record, names: ContigNames) -> tuple[str | None, Contig | None]:
    """The flag of the whole record, if it has one."""
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
    there = names.genome.fetch(contig.name, low, low + len(ref))
    written = encode(ref)
    # An N in REF where the genome has a base is a gap in what is known, no contradiction.
    is_known = (there < 4) & (written < 4)
    if (there != written)[is_known].any():
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
    found: list[Allele | str] = []
    for alt in record.alts:
        kind = kind_of_alt(alt)
        if kind != "bases" and flag in (None, "no_ref", "n_in_window"):
            found.append(kind)
        elif flag is not None or contig is None:
            found.append(flag or "unknown_contig")
        elif alt.upper() == record.ref.upper():
            found.append("same_allele")
        else:
            found.append(_allele(record, alt, contig, names.genome, max_length_bp))
    return found


def _allele(
    record: Record, alt: str, contig: Contig, genome: Genome, max_length_bp: int
) -> Allele | str:
    if "N" in (alt + record.ref).upper():
        return "n_in_window"
    allele = normalise(genome, contig.name, record.position, record.ref, alt)
    if max(len(allele.ref), len(allele.alt)) > max_length_bp:
        return "too_long"
    low, high = allele.start - NEAR_BP, allele.end + allele.shift_bp + NEAR_BP
    if not contig.is_circular:
        low, high = max(low, 0), min(high, contig.length)
    return "n_in_window" if (genome.fetch(contig.name, low, high) > 3).any() else allele


class Survey(NamedTuple):
    """What a first look at a whole VCF found."""

    n_records: int
    n_compared: int
    n_mismatches: int
    by_contig: Counter[str]
    renamed: frozenset[str]
    shifted: Counter[int]
    unknown: Counter[str]

    @property
    def is_of_another_genome(self) -> bool:
        """More than 5 % of the REFs that can be compared, and no less than three, mismatch."""
        return (
            self.n_mismatches > MISMATCH_SHARE * self.n_compared
            and self.n_mismatches >= MIN_MISMATCHES
        )

    @property
    def cause(self) -> str:
        """What the mismatches look like."""
        for shift, name in ((1, "0-based, VCF is 1-based"), (-1, "2-based: one too far right")):
            if self.shifted[shift] >= 0.8 * self.n_mismatches:
                return (
                    f"one base {'further on' if shift > 0 else 'before'} they match: POS is {name}"
                )
        worst = {name for name, _ in self.by_contig.most_common()}
        if worst <= self.renamed:
            names = ", ".join(sorted(worst)[:3])
            return f"only contigs found under another name mismatch ({names}): contig naming"
        return "the file is likely of another assembly"


def survey(records: Iterable[Record], names: ContigNames) -> Survey:
    """Compare every REF with the genome; nothing is kept but counts."""
    n_records = n_compared = n_mismatches = 0
    by_contig, shifted, unknown = Counter[str](), Counter[int](), Counter[str]()
    renamed = set()
    for record in records:
        n_records += 1
        flag, contig = _check_ref(record, names)
        if contig is None:
            unknown[record.contig] += 1
        elif flag in (None, "ref_mismatch"):
            n_compared += 1
            if contig.name != record.contig:
                renamed.add(record.contig)
        if flag != "ref_mismatch" or contig is None:
            continue
        n_mismatches += 1
        by_contig[record.contig] += 1
        written = encode(record.ref)
        for shift in (1, -1):
            low = record.position + shift
            there = names.genome.fetch(contig.name, low, low + len(written))
            shifted[shift] += bool(np.array_equal(there, written))
    return Survey(
        n_records, n_compared, n_mismatches, by_contig, frozenset(renamed), shifted, unknown
    )


def refuse_another_genome(found: Survey, path: Path, data: Path) -> None:
    """Stop where a file is of another genome.

    Raises
    ------
    InputError
        If more than 5 % of the REFs mismatch, with the likely cause.
    """
    if found.is_of_another_genome:
        raise InputError(
            f"{found.n_mismatches} of {found.n_compared} REF alleles that are not those of {data}",
            f"at most {MISMATCH_SHARE:.0%}; {found.cause}",
            path=path,
        )

"""Which alleles of a VCF stand on one haplotype of a sample.

- `0|1:PS`: phased; haplotypes of one phase set belong together. Without PS the phase set is the
  whole contig (VCF 4.3, section 1.6.2).
- `1`, `1/1` and `1|1`: on every haplotype there is. Such an allele is scored beside what is on all
  of them, and stands beside every phased one.
- `0/1`: unphased; scored alone, and beside nothing.

An allele that cannot be scored stands nowhere. Of alleles that overlap the first one stands.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from genesplice.errors import InputError
from genesplice.variants.alleles import Allele
from genesplice.variants.vcf import N_COLUMNS, Record, read_header

__all__ = ["ALL", "Beside", "calls", "find_sample", "with_haplotypes"]

ALL = "all"
SCANNED_BP = 256
"""How far a record reaches beyond its POS, for the order in which records are let go."""


class Beside(NamedTuple):
    """The haplotype that one allele of a record is scored on, and the other alleles of it near by.

    `name` is `PS|1`, `PS|2`, … with a dot where there is no phase set, or "all".
    """

    name: str
    alleles: tuple[Allele, ...]


class Entry(NamedTuple):
    record: Record
    found: list[Allele | str]
    calls: dict[str, int]


def find_sample(path: Path, name: str) -> int:
    """The column of a sample.

    Raises
    ------
    InputError
        If the file has no sample of that name.
    """
    samples = read_header(path)[1].split("\t")[N_COLUMNS + 1 :]
    if name not in samples:
        shown = ", ".join(samples[:5]) + (", …" if len(samples) > 5 else "")
        raise InputError(f"sample {name!r}", shown or "a VCF with samples", path=path)
    return N_COLUMNS + 1 + samples.index(name)


def calls(record: Record, column: int) -> dict[str, int]:
    """Haplotype to the number of the allele on it (from 1): empty where none is known.

    Raises
    ------
    InputError
        For a genotype that is none.
    """
    if column >= len(record.columns):
        return {}
    names = record.columns[N_COLUMNS].split(":")
    values = dict(zip(names, record.columns[column].split(":"), strict=False))
    genotype = values.get("GT", ".")
    is_phased, parts = "|" in genotype, genotype.lstrip("|/").replace("|", "/").split("/")
    if not all(part == "." or part.isdecimal() for part in parts):
        raise InputError(f"GT {genotype!r}", "such as 0|1", line=record.line)
    numbers = [0 if part == "." else int(part) for part in parts]
    if max(numbers) > len(record.alts):
        raise InputError(
            f"GT {genotype!r}", f"at most {len(record.alts)}, the number of ALTs", line=record.line
        )
    if len(set(numbers)) == 1:
        return {ALL: numbers[0]} if numbers[0] else {}
    if not is_phased:
        return {}
    phase_set = values.get("PS", ".")
    return {f"{phase_set}|{i}": number for i, number in enumerate(numbers, 1) if number}


def with_haplotypes(
    records: Iterable[Record],
    check: Callable[[Record], list[Allele | str]],
    column: int,
    reach_bp: int,
    path: Path,
) -> Iterator[tuple[Record, list[Allele | str], list[Beside | None]]]:
    """Every record in its order, with its alleles and what stands beside each of them.

    Only what lies within `reach_bp` is kept in memory.

    Raises
    ------
    InputError
        If the records are not sorted by place, contig by contig; as `calls`.
    """
    waiting, near = deque[Entry](), deque[Entry]()
    seen: set[str] = set()
    for entry in _entries(records, check, column, path):
        new = entry.record
        last = near[-1].record if near else None
        if last is None or last.contig != new.contig:
            for done in waiting:
                yield (*done[:2], _beside(done, near, reach_bp))
            waiting.clear()
            near.clear()
            if new.contig in seen:
                raise _unsorted(new, path)
            seen.add(new.contig)
        elif new.position < last.position:
            raise _unsorted(new, path)
        while waiting and new.position - waiting[0].record.position > reach_bp:
            done = waiting.popleft()
            yield (*done[:2], _beside(done, near, reach_bp))
        first = (waiting[0] if waiting else entry).record.position
        while near and first - near[0].record.position > reach_bp + SCANNED_BP:
            near.popleft()
        waiting.append(entry)
        near.append(entry)
    for done in waiting:
        yield (*done[:2], _beside(done, near, reach_bp))


def _entries(
    records: Iterable[Record],
    check: Callable[[Record], list[Allele | str]],
    column: int,
    path: Path,
) -> Iterator[Entry]:
    for record in records:
        try:
            mine = calls(record, column)
        except InputError as error:
            raise InputError(error.found, error.expected, path=path, line=record.line) from None
        yield Entry(record, check(record), mine)


def _unsorted(record: Record, path: Path) -> InputError:
    return InputError(
        f"{record.contig}:{record.position + 1} after a later place",
        "records sorted by contig and place, as haplotypes need", path=path, line=record.line,
    )  # fmt: skip


def _beside(entry: Entry, near: Iterable[Entry], reach_bp: int) -> list[Beside | None]:
    """What each allele of an entry is scored beside; None for one without a haplotype."""
    answers: list[Beside | None] = []
    for number, allele in enumerate(entry.found, 1):
        name = next((h for h, carried in entry.calls.items() if carried == number), None)
        if name is None or not isinstance(allele, Allele):
            answers.append(None)
            continue
        kept: list[Allele] = []
        for other in near:
            carried = other.calls.get(name, other.calls.get(ALL, 0))
            one = other.found[carried - 1] if carried and other is not entry else None
            if not isinstance(one, Allele) or abs(one.start - allele.start) > reach_bp:
                continue
            if not any(_overlap(one, x) for x in (allele, *kept)):
                kept.append(one)
        answers.append(Beside(name, tuple(sorted(kept, key=lambda one: (one.start, one.end)))))
    return answers


def _overlap(one: Allele, other: Allele) -> bool:
    """Whether they replace a base in common, or insert at one place or inside of the other."""
    if one.start == other.start:
        return True
    first, second = sorted((one, other), key=lambda x: x.start)
    return second.start < first.end

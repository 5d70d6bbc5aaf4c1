"""What others aligned: MAF files, summaries of aligned relatives, and scores of conservation.

A MAF file (multiz, Cactus' `hal2maf`) has blocks of rows `s SPECIES.CONTIG start size strand
length text`. The reference's rows are those of the genome's contigs; what another species has under
each of their bases is its row of the matrix, as `align_relatives` makes it.

A summary keeps only the columns, in a few megabytes. A score (phyloP, phastCons) is one number a
base, from a bigWig file.
"""

import io
import json
import lzma
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64, UInt8

from genesplice.data.annotation import FileContigs, Unplaced
from genesplice.data.genome import Contig, Genome, N, encode
from genesplice.data.relatives import (
    GAP,
    GROUPS,
    UNALIGNED,
    Relatives,
    group_relatives,
    judged_row,
    turn_columns,
    turned,
)
from genesplice.data.tables import Progress, counted, numbered_lines, some
from genesplice.errors import InputError, WorkError, require
from genesplice.results import Conservation
from genesplice.runtime import atomic_file, file_sha256, write_json

MAF_SUFFIXES = (".maf", ".maf.gz", ".maf.bgz")
ANCESTOR = re.compile(r"Anc\d+$")
"""Names that Cactus gives to genomes that were inferred from the others, this one among them."""
MOST_DIFFERENT = 0.05
"""Share of a row's bases that may be others in the genome (a patched assembly)."""
SCORE_FILES = ("conservation.npy", "conservation.json")
MOST_WITHOUT_SCORE = 0.05
"""Share of the genome that may lie on contigs without a score."""
OUTER_PERCENT, MOST_RANKED = 1.0, 10_000_000
"""A score's usual range leaves out as many on either side, of so many bases evenly spaced."""
CHUNK_BP = 1 << 20


class Row(NamedTuple):
    """A row of a block: where it lies on its own strand, and what of it is under each column."""

    source: str
    start: int
    size: int
    strand: str
    length: int
    letters: UInt8[np.ndarray, " columns"]
    line: int


def read_maf(path: Path, genome: Genome, *, progress: Progress | None = None) -> Relatives:
    """Read an alignment to the genome, plain or compressed.

    Of several rows of a species in a block the one with most equal bases counts, and of several
    blocks over a base the first; both are reported. Ancestors (Anc0, …) are left out.

    Raises
    ------
    InputError
        For a row that is none of MAF's, leaves its contig, or has another number of bases than it
        says; reference bases that are not the genome's (all with the line); a file without the
        genome's contigs, or without another species.
    """
    tell, reference = progress or (lambda text: None), _Reference(genome, path)
    bases: dict[str, np.ndarray] = {}
    lengths: dict[str, dict[str, int]] = defaultdict(dict)
    n_blocks, n_left_out, n_second, n_again = 0, 0, 0, 0
    others, ancestors = dict[str, None](), set[str]()
    for block in _blocks(path):
        n_blocks += 1
        own = [row for row in block if reference.contig_of(row)]
        others |= {f"{row.source} of {row.length} bp": None for row in block if not own}
        n_left_out += not own
        for here in own:
            there, is_base = reference.place(here), here.letters != GAP
            best: dict[str, tuple[int, np.ndarray]] = {}
            for row in block:
                name = row.source.split(".", 1)[0]
                if reference.contig_of(row) or row.source.startswith(reference.prefix or "\0"):
                    continue
                if ANCESTOR.match(name):
                    ancestors.add(name)
                    continue
                lengths[name][row.source] = row.length
                letters = _on_plus(row.letters[is_base], here.strand)
                n_equal = int((letters == genome.tokens[there]).sum())
                n_second += name in best
                if name not in best or n_equal > best[name][0]:
                    best[name] = n_equal, letters
            for name, (_, letters) in best.items():
                if name not in bases:
                    bases[name] = np.full(genome.length, UNALIGNED, np.uint8)
                kept = bases[name][there]
                is_free = kept == UNALIGNED
                n_again += int((~is_free & (letters < GAP)).sum())
                kept[is_free] = letters[is_free]
    if n_left_out == n_blocks:
        expected = "rows 's SPECIES.CONTIG', with contigs and lengths of the genome"
        raise InputError(f"none of its contigs ({some(others) or 'no block'})", expected, path=path)
    require(bases, "no species beside the genome", "one or more", path)
    rows, digest = [], file_sha256(path)
    for name, letters in bases.items():
        size = {"contigs": len(lengths[name]), "length_bp": sum(lengths[name].values())}
        about = {"name": name, "file": path.name, "sha256": digest, **size}
        rows.append(judged_row(about, genome, letters, tell))
    for count, what in (
        (n_left_out, "blocks without the genome's contigs"),
        (n_second, "second rows of a species in a block: the one with most equal bases counts"),
        (n_again, "bases of a relative in a second block: the first one counts"),
        (len(ancestors), f"inferred ancestors, left out: {some(sorted(ancestors))}"),
    ):
        if count:
            tell(f"relatives: {path.name}: {count} {what}")
    return group_relatives(rows, list(bases.values()), path)


class _Reference:
    """The genome in a MAF file: its rows are called as the first one is, PREFIX and contig."""

    def __init__(self, genome: Genome, path: Path) -> None:
        self.genome, self.path = genome, path
        self.contigs = {contig.name: contig for contig in genome.contigs}
        self.prefix: str | None = None

    def contig_of(self, row: Row) -> Contig | None:
        """The contig that a row is of, if it is one of the genome's."""
        if self.prefix is not None:
            own = row.source.startswith(self.prefix)
            return self.contigs.get(row.source[len(self.prefix) :]) if own else None
        for at in (0, *(dot.end() for dot in re.finditer(r"\.", row.source))):
            contig = self.contigs.get(row.source[at:])
            if contig is not None and contig.length == row.length:
                self.prefix = row.source[:at]
                return contig
        return None

    def place(self, row: Row) -> slice:
        """Where the bases of a row are in `Genome.tokens`, if they are the same there."""
        contig = self.contig_of(row)
        assert contig is not None
        found, expected = f"{row.source} of {row.length} bp", f"{contig.length} as the genome"
        require(contig.length == row.length, found, expected, self.path, row.line)
        first = row.start if row.strand == "+" else row.length - row.start - row.size
        there = slice(contig.offset + first, contig.offset + first + row.size)
        letters = _on_plus(row.letters[row.letters != GAP], row.strand)
        own = self.genome.tokens[there]
        n_other = int(((letters != own) & (letters < GAP) & (own < GAP)).sum())
        found = f"{n_other} of {row.size} bases of {row.source} that are others in the genome"
        require(n_other <= MOST_DIFFERENT * row.size, found, "this assembly", self.path, row.line)
        return there


def _on_plus(letters: UInt8[np.ndarray, " n"], strand: str) -> UInt8[np.ndarray, " n"]:
    """What stands under the reference's bases, along its + strand."""
    return letters if strand == "+" else turned(letters)


def _blocks(path: Path) -> Iterator[list[Row]]:
    """The rows of each block."""
    block: list[Row] = []
    for number, text in numbered_lines(path):
        if text.startswith("a") and block:
            yield block
            block = []
        if text.startswith("s"):
            block.append(_row(text, path, number))
            found = f"{len(block[-1].letters)} columns"
            expected = f"{len(block[0].letters)} as the first row of the block"
            require(len(block[-1].letters) == len(block[0].letters), found, expected, path, number)
        elif text[:1] not in ("", "#", "a", "i", "e", "q", "t"):
            found = f"a line that begins with {text[:8]!r}"
            raise InputError(found, "one of MAF's: a, s, i, e, q or #", path=path, line=number)
    if block:
        yield block


def _row(text: str, path: Path, line: int) -> Row:
    cells = text.split()
    is_row = len(cells) == 7 and cells[4] in ("+", "-")
    is_fine = is_row and all(cells[i].isdecimal() for i in (2, 3, 5))
    require(is_fine, f"{text[:40]!r}", "s SOURCE START SIZE STRAND LENGTH LETTERS", path, line)
    source, start, size, length = cells[1], *(int(cells[i]) for i in (2, 3, 5))
    gaps = np.frombuffer(cells[6].encode("ascii", "replace"), np.uint8) == ord("-")
    letters = encode(cells[6].replace("-", "N"), path, line)
    letters[letters == N] = UNALIGNED
    letters[gaps] = GAP
    n_bases = int((~gaps).sum())
    require(n_bases == size, f"{n_bases} bases of {source}", f"{size}, its size", path, line)
    found = f"{source} from {start} to {start + size}"
    require(start + size <= length, found, f"at most {length}, its length", path, line)
    return Row(source, start, size, cells[4], length, letters, line)


# --- summaries ---


def write_summary(relatives: Relatives, genome: Genome, path: Path) -> None:
    """Write columns and table without the relatives themselves: 1 MB for 1 Mbp of a genome.

    Columns are kept as numbers of the distinct ones, the commonest first, each counted from the
    reference's base on: most columns of a conserved base are one number.
    """
    parts: dict[str, np.ndarray] = {"genome": np.array(genome.digest)}
    for group, counts in zip(GROUPS, relatives.columns, strict=True):
        distinct, number, times = np.unique(
            turn_columns(counts, genome.tokens, 1), axis=0, return_inverse=True, return_counts=True
        )
        order = np.argsort(-times, kind="stable")
        rank = np.argsort(order)[number.ravel()].astype(np.uint16)
        parts |= {f"{group}_distinct": distinct[order],
                  f"{group}_low": rank.astype(np.uint8),
                  f"{group}_high": (rank >> 8).astype(np.uint8)}  # fmt: skip
    table = io.StringIO()
    relatives.table.to_csv(table, sep="\t", index=False, float_format="%.6f")
    parts["table"] = np.array(table.getvalue())
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **parts)
    with atomic_file(path) as scratch:
        scratch.write_bytes(lzma.compress(packed.getvalue()))


def read_summary(path: Path, genome: Genome) -> Relatives:
    """Read what `write_summary` wrote.

    Raises
    ------
    InputError
        If there is no such file, it is damaged, or was made for another genome.
    """
    try:
        packed = io.BytesIO(lzma.decompress(Path(path).read_bytes()))
        parts = np.load(packed, allow_pickle=False)
        table = pd.read_csv(io.StringIO(str(parts["table"])), sep="\t", keep_default_na=False)
        if str(parts["genome"]) != genome.digest:
            raise InputError("a summary of another genome's relatives", "this genome's", path=path)
        columns = np.empty((len(GROUPS), genome.length, GAP + 1), np.uint8)
        for row, group in enumerate(GROUPS):
            rank = parts[f"{group}_high"].astype(np.uint16) << 8 | parts[f"{group}_low"]
            columns[row] = turn_columns(parts[f"{group}_distinct"][rank], genome.tokens, -1)
    except InputError:
        raise
    except (OSError, lzma.LZMAError, ValueError, KeyError) as error:
        raise InputError("no summary of relatives", "one that is whole", path=path) from error
    return Relatives(np.empty((0, genome.length), np.uint8), columns, table)


# --- scores of conservation, one number a base ---


class ConservationScore(NamedTuple):
    """`values[i]` is that of base i of `Genome.tokens`, the same on both strands; NaN: none.

    High is conserved. `low` and `high` are the 1st and 99th percentile of the whole genome.
    """

    values: Float[np.ndarray, " length"]
    name: str
    low: float
    high: float

    def conservation(
        self, genome: Genome, contig: str, start: int, end: int, strand: str
    ) -> Conservation:
        """That of an interval, 5' to 3' on its strand; 0 where there is none."""
        index, is_inside = genome.indices(contig, start, end)
        values = np.nan_to_num(np.where(is_inside, self.values[index], np.nan))
        none, turn = np.zeros((end - start, 0), np.uint8), -1 if strand == "-" else 1
        return Conservation({}, none, none, values[::turn], (self.name, self.low, self.high))

    def log_ratio(
        self,
        at: Int64[np.ndarray, " replaced"],
        ref: UInt8[np.ndarray, " replaced"],
        alt: UInt8[np.ndarray, " inserted"],
    ) -> float | None:
        """In place of `Relatives.log_ratio`: minus the mean of bases that change; None of none."""
        found = self.values[at[ref != alt] if len(ref) == len(alt) else at]
        known = found[np.isfinite(found)].astype(np.float64)
        return -float(known.mean()) if len(known) else None


def open_bigwig(
    path: Path, genome: Genome, aliases: Mapping[str, str] | None, notes: list[str]
) -> tuple[Any, dict[str, str]]:
    """A reader, and what the genome's contigs are called in the file; those it lacks are noted.

    Raises
    ------
    InputError
        For a file that is no bigWig or damaged, one whose contigs are all unknown or of another
        length, and values that are no numbers.
    """
    try:
        import pybigtools
    except ImportError as error:
        wanted = "bigWig files are read with pybigtools, which is not installed"
        raise WorkError(f"{wanted}: pip install pybigtools") from error
    try:
        reader = pybigtools.open(str(path))
        lengths, whole = reader.chroms(), reader.info()["summary"]
    except (ValueError, OSError, KeyError, pybigtools.BBIReadError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:80]
        raise InputError(f"no bigWig ({reason})", "a whole bigWig file", path=path) from error
    contigs, called, lost = FileContigs(path, genome, aliases), dict[str, str](), list[Unplaced]()
    for name, length in lengths.items():
        contigs.lengths[name] = length, 0
        try:
            called[contigs.find(name, 0).name] = name
        except Unplaced as error:
            lost.append(error)
    if not called:
        raise lost[0]
    if lost:
        unknown = [name for name in lengths if name not in called.values()]
        notes.append(counted(f"contigs of {path.name} that the genome lacks, left out", unknown))
    notes += contigs.renames()
    require(np.isfinite(whole["sum"]), "values that are no numbers", "a number a base", path)
    return reader, called


def write_conservation(
    path: Path, genome: Genome, folder: Path, aliases: Mapping[str, str] | None
) -> list[str]:
    """Write `SCORE_FILES` from a bigWig, a piece of a contig at a time; what there is to be said.

    Raises
    ------
    InputError
        As `open_bigwig`; for contigs of more than a twentieth of the genome without any value, and
        where the values are all the same.
    """
    notes, name, n_known = list[str](), path.stem, dict[Contig, int]()
    reader, called = open_bigwig(path, genome, aliases, notes)
    values = np.lib.format.open_memmap(
        folder / SCORE_FILES[0], mode="w+", dtype=np.float32, shape=(genome.length,)
    )
    for contig in genome.contigs:
        own = values[contig.offset : contig.offset + contig.length]
        own[:] = np.nan
        for start in range(0, contig.length if contig.name in called else 0, CHUNK_BP):
            end = min(start + CHUNK_BP, contig.length)
            own[start:end] = reader.values(called[contig.name], start, end, fillna=None)
        n_known[contig] = int(np.isfinite(own).sum())
    empty = [contig for contig, count in n_known.items() if not count]
    is_fine = sum(contig.length for contig in empty) <= MOST_WITHOUT_SCORE * genome.length
    expected = f"values on contigs of {1 - MOST_WITHOUT_SCORE:.0%} of the genome"
    require(is_fine, f"no value on {some(contig.name for contig in empty)}", expected, path)
    if empty:
        notes.append(counted(f"contigs without a value of {name}", [one.name for one in empty]))
    some_of = values[:: 1 + genome.length // MOST_RANKED]
    limits = np.percentile(some_of[np.isfinite(some_of)], [OUTER_PERCENT, 100 - OUTER_PERCENT])
    low, high = limits.tolist()
    require(low < high, f"the value {low:g} nearly everywhere", "values that differ", path)
    values.flush()
    write_json(folder / SCORE_FILES[1], {"name": name, "low": low, "high": high})
    known = sum(n_known.values()) / genome.length
    share = f"{known:.1%} of the bases, mostly {low:.3g} to {high:.3g}"
    notes.append(f"conservation: {name} of {share}; baselines and figures read it, no encoder does")
    return notes


def read_conservation(folder: Path) -> ConservationScore:
    """What `write_conservation` wrote; values are a memory map."""
    about = json.loads((folder / SCORE_FILES[1]).read_text())
    return ConservationScore(np.load(folder / SCORE_FILES[0], mmap_mode="r"), **about)

"""A genome as uint8 tokens: contigs one after another, fetched by name on either strand."""

import hashlib
import io
import json
import mmap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from genesplice.config.model import COMPLEMENT_COUNTS
from genesplice.data.archives import as_fasta, is_genbank
from genesplice.data.tables import LineWidths, check_text, open_text, readable, some
from genesplice.errors import InputError, require
from genesplice.runtime import atomic_directory, file_sha256, write_json

ALPHABET = "ACGTN"
N = 4
CHUNK_BYTES = 1 << 24
TOKENS, INDEX = "genome.u8", "contigs.json"
Write = Callable[[bytes], int]
Strand = Literal["+", "-"]
Tokens = UInt8[np.ndarray, " length"]
Mask = Bool[np.ndarray, " length"]
Regions = Int64[np.ndarray, "regions 2"]
Columns = UInt8[np.ndarray, "length groups 5"]
INVALID = 255
IUPAC_AMBIGUOUS = "NRYSWKMBDHV"

_TOKEN_OF_BYTE = np.full(256, INVALID, dtype=np.uint8)
for _token, _letter in enumerate("ACGT"):
    _TOKEN_OF_BYTE[[ord(_letter), ord(_letter.lower())]] = _token
for _letter in IUPAC_AMBIGUOUS:
    _TOKEN_OF_BYTE[[ord(_letter), ord(_letter.lower())]] = N
_BYTE_OF_TOKEN = np.frombuffer(ALPHABET.encode(), dtype=np.uint8)


def encode(sequence: bytes | str, path: Path | None = None, line: int | None = None) -> Tokens:
    """Turn letters into tokens: A 0, C 1, G 2, T 3, and 4 for N and every other IUPAC code.

    Lower case (soft-masked) counts as upper case.

    Raises
    ------
    InputError
        For any other character, with its position (from 1).
    """
    raw = sequence.encode("ascii", "replace") if isinstance(sequence, str) else sequence
    tokens = _TOKEN_OF_BYTE[np.frombuffer(raw, dtype=np.uint8)]
    if tokens.size and tokens.max() == INVALID:
        at = int(np.argmax(tokens == INVALID))
        letter = sequence[at : at + 1] if isinstance(sequence, str) else chr(raw[at])
        found, expected = f"{letter!r} at position {at + 1}", "a DNA letter (A, C, G, T, N, IUPAC)"
        raise InputError(found, expected, path=path, line=line)
    return tokens


def decode(tokens: Tokens) -> str:
    """Turn tokens into upper-case letters of `ALPHABET`."""
    return _BYTE_OF_TOKEN[tokens].tobytes().decode("ascii")


def reverse_columns(columns: Columns) -> Columns:
    """Read alignment columns on the other strand: counts of A are those of T; gaps stay gaps."""
    return np.ascontiguousarray(columns[::-1][..., COMPLEMENT_COUNTS])


def reverse_complement(tokens: Tokens) -> Tokens:
    """Read the other strand; N stays N."""
    # 3 - N wraps round to 255; arithmetic is ten times faster than a table.
    return np.ascontiguousarray(np.minimum(np.uint8(3) - tokens, np.uint8(N))[::-1])


class Contig(NamedTuple):
    """A chromosome or plasmid: its position in `Genome.tokens`, and whether its ends join."""

    name: str
    offset: int
    length: int
    is_circular: bool


@dataclass(frozen=True)
class Genome:
    """All contigs as tokens, one after another.

    `tokens` is read-only and may be a memory map. `soft_masked` holds the lower-case intervals
    of the FASTA file, half-open in the coordinates of `tokens`; they never cross a contig's end.
    `columns`, if any, are how many near, middle and far relatives have A, C, G, T, a gap there.
    """

    tokens: Tokens = field(repr=False)
    contigs: tuple[Contig, ...]
    soft_masked: Regions = field(
        default_factory=lambda: np.empty((0, 2), dtype=np.int64), repr=False
    )
    columns: UInt8[np.ndarray, "groups length 5"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if sum(contig.length for contig in self.contigs) != self.length:
            raise ValueError("contigs of other lengths than the tokens")

    @property
    def length(self) -> int:
        """Bases in all contigs together."""
        return int(self.tokens.shape[0])

    @property
    def description(self) -> str:
        """The first contig, and how many bases there are."""
        more = f" and {len(self.contigs) - 1} more" if len(self.contigs) > 1 else ""
        return f"{self.contigs[0].name}{more} ({self.length:,} bp)"

    @cached_property
    def contig_digests(self) -> frozenset[str]:
        """The sha256 of every contig's tokens, whatever the contigs are called."""
        digests = set()
        for contig in self.contigs:
            tokens = self.tokens[contig.offset : contig.offset + contig.length]
            digests.add(hashlib.sha256(np.ascontiguousarray(tokens).data).hexdigest())
            self.forget()
        return frozenset(digests)

    @property
    def digest(self) -> str:
        """Of all contigs, whichever comes first."""
        return hashlib.sha256("".join(sorted(self.contig_digests)).encode()).hexdigest()

    def forget(self) -> None:
        """Give back the memory of what was read of a memory map; it is read again where needed."""
        owner: object = self.tokens
        while isinstance(owner, np.ndarray):
            owner = owner.base
        if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            owner.madvise(mmap.MADV_DONTNEED)

    def save(self, folder: Path) -> None:
        """Write the files of a bundle; of the tokens a piece is in memory at a time."""
        np.save(folder / "soft_masked.npy", self.soft_masked)
        write_json(folder / INDEX, [contig._asdict() for contig in self.contigs])
        with (folder / "genome.npy").open("wb") as out:
            header = np.lib.format.header_data_from_array_1_0(self.tokens)
            np.lib.format.write_array_header_1_0(out, header)
            for start in range(0, self.length, CHUNK_BYTES):
                out.write(np.ascontiguousarray(self.tokens[start : start + CHUNK_BYTES]).data)
                self.forget()

    @cached_property
    def _by_name(self) -> dict[str, Contig]:
        return {contig.name: contig for contig in self.contigs}

    def contig(self, name: str, what: str = "contig") -> Contig:
        """Look a contig up by its exact name; `what` says in a message where that stands.

        Raises
        ------
        InputError
            If there is none; the message names those there are.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise InputError(f"{what} {name!r}", some(c.name for c in self.contigs)) from None

    def fetch(self, contig: str, start: int, end: int, strand: Strand = "+") -> Tokens:
        """Copy out `[start, end)` of a contig, reverse-complemented on the minus strand.

        Both ends may lie outside the contig: a circular one wraps (as often as it takes), a
        linear one gives N there. The answer always has `end - start` tokens.

        Raises
        ------
        InputError
            If `end < start`, the strand is neither "+" nor "-", or the contig is unknown.
        """
        where = self.contig(contig)
        require(end >= start, f"interval {start}-{end}", "start <= end")
        require(strand in ("+", "-"), f"strand {strand!r}", "'+' or '-'")
        if start >= 0 and end <= where.length:
            tokens = np.array(self.tokens[where.offset + start : where.offset + end])
        else:
            index, is_inside = self.indices(contig, start, end)
            tokens = np.where(is_inside, self.tokens[index], np.uint8(N))
        return reverse_complement(tokens) if strand == "-" else tokens

    def indices(
        self, contig: str, start: int, end: int
    ) -> tuple[Int64[np.ndarray, " length"], Mask]:
        """Where the bases of `[start, end)` are in `tokens`, and which of them there are at all."""
        where = self.contig(contig)
        position = np.arange(start, end)
        is_inside = (position >= 0) & (position < where.length)
        return where.offset + position % where.length, is_inside | where.is_circular

    def fetch_columns(self, contig: str, start: int, end: int, strand: Strand = "+") -> Columns:
        """Alignment columns of what `fetch` reads, 0 beyond a contig; without any, of no group."""
        where = self.contig(contig)
        if self.columns is None:
            return np.zeros((end - start, 0, 5), np.uint8)
        if start >= 0 and end <= where.length:
            found = self.columns[:, where.offset + start : where.offset + end]
        else:
            index, is_inside = self.indices(contig, start, end)
            found = self.columns[:, index] * is_inside[:, None]
        columns = np.ascontiguousarray(found.swapaxes(0, 1))
        return reverse_columns(columns) if strand == "-" else columns

    def fetch_soft_masked(self, contig: str, start: int, end: int) -> Mask:
        """Say which bases of `[start, end)` were lower case; the coordinates are `fetch`'s.

        Outside of a linear contig nothing is.
        """
        index, is_inside = self.indices(contig, start, end)
        # Behind an odd number of edges is inside of an interval.
        n_edges = np.searchsorted(self.soft_masked.reshape(-1), index, side="right")
        return is_inside & (n_edges % 2 == 1)

    def with_circular(self, names: Iterable[str]) -> "Genome":
        """Give the same genome with the named contigs circular as well.

        Raises
        ------
        InputError
            If a name is not a contig.
        """
        circular = {self.contig(name, "--circular").name for name in names}
        contigs = tuple(
            contig._replace(is_circular=contig.is_circular or contig.name in circular)
            for contig in self.contigs
        )
        return replace(self, contigs=contigs)


def read_fasta(path: Path, folder: Path | None = None) -> Genome:
    """Read a FASTA or GenBank file, plain or compressed; every contig is taken as linear.

    A contig is called as its header up to the first blank. In `folder` tokens are memory-mapped.

    Raises
    ------
    InputError
        For an empty, truncated or non-FASTA file, a contig without a name, without sequence or
        named twice, no base but N, and for letters that are not IUPAC DNA (with the line).
    """
    contigs: list[Contig] = []
    if folder is not None:
        with (folder / TOKENS).open("wb") as file:
            masked = _append(path, "", file.write, contigs)
        return Genome(np.memmap(folder / TOKENS, np.uint8, mode="r"), tuple(contigs), masked)
    out = io.BytesIO()
    masked = _append(path, "", out.write, contigs)
    return Genome(np.frombuffer(out.getvalue(), np.uint8), tuple(contigs), masked)


def cache_fasta(
    paths: Sequence[Path], folder: Path, circular: Sequence[str] = ()
) -> tuple[Genome, dict[str, str]]:
    """Turn FASTA files of any size into tokens under `folder`; give them as a memory map.

    What is there from the same files is used again. No more than about `CHUNK_BYTES`, or one line
    of a file, is in memory at a time. With several files a contig is called STEM:NAME, after the
    file's name up to its first dot. With the genome: the file names and their sha256.

    Raises
    ------
    InputError
        As `read_fasta`, and for two files of one name or a circular contig that there is none of.
    """
    stems = [path.name.split(".", 1)[0] for path in paths]
    if len(set(stems)) < len(stems):
        raise InputError(f"two FASTA files named {max(stems, key=stems.count)}", "different names")
    digests = _digests(paths)
    if not is_cached(paths, folder):
        # Written elsewhere and renamed: what is there belongs to files that are whole.
        with atomic_directory(folder, overwrite=True) as scratch:
            contigs: list[Contig] = []
            with (scratch / TOKENS).open("wb") as out:
                masks = [
                    _append(path, f"{stem}:" * (len(paths) > 1), out.write, contigs)
                    for path, stem in zip(paths, stems, strict=True)
                ]
            np.save(scratch / "soft_masked.npy", np.concatenate(masks))
            rows = {"files": digests, "contigs": [contig._asdict() for contig in contigs]}
            write_json(scratch / INDEX, rows)
    genome = Genome(
        np.memmap(folder / TOKENS, np.uint8, mode="r"),
        tuple(Contig(**row) for row in json.loads((folder / INDEX).read_text())["contigs"]),
        np.load(folder / "soft_masked.npy", mmap_mode="r"),
    )
    return genome.with_circular(circular), digests


def is_cached(paths: Sequence[Path], folder: Path) -> bool:
    """Say whether `folder` holds just these files."""
    there = (folder / INDEX).exists()
    return there and json.loads((folder / INDEX).read_text())["files"] == _digests(paths)


def _digests(paths: Sequence[Path]) -> dict[str, str]:
    return {path.name: file_sha256(readable(path)) for path in paths}


def _append(path: Path, prefix: str, write: Write, contigs: list[Contig]) -> Regions:
    """Append a file's contigs and write their tokens; give its lower-case intervals."""
    names: dict[str, int] = {}
    masks, line, widths = [np.empty((0, 2), np.int64)], 1, LineWidths(path)
    is_read = False

    def check_last() -> None:
        if names and not contigs[-1].length:
            name, at = list(names.items())[-1]
            found = f"contig {name!r} without sequence"
            raise InputError(found, "DNA letters", path=path, line=at)

    with open_text(path) as opened:
        handle = as_fasta(path) if is_genbank(path) else opened
        while lines := handle.readlines(CHUNK_BYTES):
            heads = [i for i, text in enumerate(lines) if text.startswith(">")]
            for at, end in pairwise([-1, *heads, len(lines)]):
                if at >= 0:
                    check_last()
                    name = _contig_name(lines[at], names, path, line + at)
                    names[name] = line + at
                    offset = contigs[-1].offset + contigs[-1].length if contigs else 0
                    contigs.append(Contig(prefix + name, offset, 0, False))
                stripped = [text.strip() for text in lines[at + 1 : end]]
                raw = np.frombuffer("".join(stripped).encode("ascii", "replace"), np.uint8)
                tokens = _TOKEN_OF_BYTE[raw]
                if len(raw) and (not names or tokens.max() == INVALID):
                    raise _no_dna(lines[at + 1 : end], bool(names), path, line + at + 1)
                widths.follow(stripped, line + at + 1, is_new=at >= 0)
                if not len(raw):
                    continue
                is_read = is_read or bool((tokens < N).any())
                last = contigs[-1]
                masks.append(runs(raw >= ord("a")) + last.offset + last.length)
                contigs[-1] = last._replace(length=last.length + len(tokens))
                write(tokens.tobytes())
            line += len(lines)
    require(names, "no FASTA record", "at least one contig", path)
    check_last()
    require(is_read, "no base but N", "A, C, G or T", path)
    return _joined(np.concatenate(masks), contigs)


def _contig_name(header: str, names: dict[str, int], path: Path, line: int) -> str:
    name = check_text((header[1:].split(maxsplit=1) or [""])[0], path, line)
    require(name, "a contig without a name", ">NAME", path, line)
    require(name not in names, f"contig {name!r} twice", "each contig once", path, line)
    return name


def _no_dna(lines: Sequence[str], has_record: bool, path: Path, first: int) -> InputError:
    """What is wrong with lines that are known to be no DNA of a record, and where."""
    for line, text in enumerate(lines, first):
        check_text(text, path, line)
        if text.strip() and not has_record:
            expected = "a line that starts with '>'"
            return InputError("no FASTA record", expected, path=path, line=line)
        for letter in text.strip():
            if not letter.isascii() or _TOKEN_OF_BYTE[ord(letter)] == INVALID:
                expected = "DNA (A, C, G, T, N or IUPAC)"
                return InputError(f"the letter {letter!r}", expected, path=path, line=line)
    raise AssertionError("only called where a letter is wrong")


def runs(is_inside: Mask) -> Regions:
    """Half-open intervals where it holds."""
    edges = np.flatnonzero(np.diff(is_inside, prepend=False, append=False))
    return edges.reshape(-1, 2).astype(np.int64)


def _joined(masks: Regions, contigs: list[Contig]) -> Int64[np.ndarray, "joined 2"]:
    """Intervals that were cut by the end of a chunk in one piece again."""
    begins = np.isin(masks[1:, 0], [contig.offset for contig in contigs])
    is_cut = (masks[1:, 0] == masks[:-1, 1]) & ~begins
    first = np.concatenate([[True], ~is_cut])[: len(masks)]
    last = np.concatenate([~is_cut, [True]])[: len(masks)]
    return np.stack([masks[first, 0], masks[last, 1]], 1)


# --- which genome a model was trained on ---

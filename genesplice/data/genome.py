"""A genome as uint8 tokens: contigs one after another, fetched by name on either strand."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from dnaio import FileFormatError
from dnaio.readers import FastaReader
from jaxtyping import Bool, Int64, UInt8

from genesplice.data.tables import numbered_lines, open_input
from genesplice.errors import InputError
from genesplice.runtime import atomic_directory, file_sha256, write_json

ALPHABET = "ACGTN"
N = 4
INVALID = 255
IUPAC_AMBIGUOUS = "NRYSWKMBDHV"

_TOKEN_OF_BYTE = np.full(256, INVALID, dtype=np.uint8)
for _token, _letter in enumerate("ACGT"):
    _TOKEN_OF_BYTE[[ord(_letter), ord(_letter.lower())]] = _token
for _letter in IUPAC_AMBIGUOUS:
    _TOKEN_OF_BYTE[[ord(_letter), ord(_letter.lower())]] = N
_BYTE_OF_TOKEN = np.frombuffer(ALPHABET.encode(), dtype=np.uint8)


def encode(sequence: bytes | str) -> UInt8[np.ndarray, " length"]:
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
        raise InputError(f"{letter!r} at position {at + 1}", "a DNA letter (A, C, G, T, N, IUPAC)")
    return tokens


def decode(tokens: UInt8[np.ndarray, " length"]) -> str:
    """Turn tokens into upper-case letters of `ALPHABET`."""
    return _BYTE_OF_TOKEN[tokens].tobytes().decode("ascii")


def reverse_complement(tokens: UInt8[np.ndarray, " length"]) -> UInt8[np.ndarray, " length"]:
    """Read the other strand; N stays N."""
    # 3 - N wraps round to 255; arithmetic is ten times faster than a table.
    return np.ascontiguousarray(np.minimum(np.uint8(3) - tokens, np.uint8(N))[::-1])


class Contig(NamedTuple):
    """A chromosome or plasmid: its place in `Genome.tokens`, and whether its ends join."""

    name: str
    offset: int
    length: int
    is_circular: bool


@dataclass(frozen=True)
class Genome:
    """All contigs as tokens, one after another.

    `tokens` is read-only and may be a memory map. `soft_masked` holds the lower-case stretches
    of the FASTA file as half-open intervals in the coordinates of `tokens`; they never cross a
    contig's end.
    """

    tokens: UInt8[np.ndarray, " length"] = field(repr=False)
    contigs: tuple[Contig, ...]
    soft_masked: Int64[np.ndarray, "regions 2"] = field(
        default_factory=lambda: np.empty((0, 2), dtype=np.int64), repr=False
    )

    @property
    def length(self) -> int:
        """Bases in all contigs together."""
        return int(self.tokens.shape[0])

    @cached_property
    def _by_name(self) -> dict[str, Contig]:
        return {contig.name: contig for contig in self.contigs}

    def contig(self, name: str) -> Contig:
        """Look a contig up by its exact name.

        Raises
        ------
        InputError
            If there is none; the message names those there are.
        """
        try:
            return self._by_name[name]
        except KeyError:
            names = [contig.name for contig in self.contigs]
            shown = ", ".join(names[:5]) + (f", … ({len(names)} in all)" if len(names) > 5 else "")
            raise InputError(f"contig {name!r}", shown) from None

    def fetch(
        self, contig: str, start: int, end: int, strand: Literal["+", "-"] = "+"
    ) -> UInt8[np.ndarray, " length"]:
        """Copy out `[start, end)` of a contig, reverse-complemented on the minus strand.

        Both ends may lie outside the contig: a circular one wraps (as often as it takes), a
        linear one gives N there. The answer always has `end - start` tokens.

        Raises
        ------
        InputError
            If `end < start`, the strand is neither "+" nor "-", or the contig is unknown.
        """
        where = self.contig(contig)
        if end < start:
            raise InputError(f"interval {start}-{end}", "start <= end")
        if strand not in ("+", "-"):
            raise InputError(f"strand {strand!r}", "'+' or '-'")
        whole = self.tokens[where.offset : where.offset + where.length]
        if start >= 0 and end <= where.length:
            tokens = np.array(whole[start:end])
        elif where.is_circular:
            tokens = np.take(whole, np.arange(start, end), mode="wrap")
        else:
            tokens = np.full(end - start, N, dtype=np.uint8)
            inside = slice(min(max(start, 0), where.length), min(max(end, 0), where.length))
            at = inside.start - start
            tokens[at : at + inside.stop - inside.start] = whole[inside]
        return reverse_complement(tokens) if strand == "-" else tokens

    def fetch_soft_masked(self, contig: str, start: int, end: int) -> Bool[np.ndarray, " length"]:
        """Say which bases of `[start, end)` were lower case; the coordinates are `fetch`'s.

        Outside of a linear contig nothing is.
        """
        where = self.contig(contig)
        is_masked = np.zeros(end - start, dtype=bool)
        if not len(self.soft_masked):
            return is_masked
        turns = range(start // where.length, -(-end // where.length)) if where.is_circular else (0,)
        for turn in turns:
            # Where the contig's first base of this turn lies, and what is read of the turn.
            first = turn * where.length
            low, high = max(start, first), min(end, first + where.length)
            shift = first - where.offset
            inside = slice(
                np.searchsorted(self.soft_masked[:, 1], low - shift, side="right"),
                np.searchsorted(self.soft_masked[:, 0], high - shift, side="left"),
            )
            for begin, stop in self.soft_masked[inside] + shift:
                is_masked[max(begin, low) - start : min(stop, high) - start] = True
        return is_masked

    def with_circular(self, names: Iterable[str]) -> "Genome":
        """Give the same genome with the named contigs circular as well.

        Raises
        ------
        InputError
            If a name is not a contig.
        """
        circular = {self.contig(name).name for name in names}
        contigs = tuple(
            contig._replace(is_circular=contig.is_circular or contig.name in circular)
            for contig in self.contigs
        )
        return replace(self, contigs=contigs)


def read_fasta(path: Path) -> Genome:
    """Read a FASTA file, plain or compressed (gzip, bgzip); every contig is taken as linear.

    A contig's name is the header up to the first blank.

    Raises
    ------
    InputError
        For an empty, truncated or non-FASTA file, a contig without a name, without sequence or
        named twice, and for letters that are not IUPAC DNA (with the line).
    """
    path = Path(path)
    pieces, contigs, masks, offset = [], [], [], 0
    seen: set[str] = set()
    try:
        with open_input(path) as handle, FastaReader(handle) as records:
            for record in records:
                name = record.name.split(maxsplit=1)[0] if record.name.strip() else ""
                if not name:
                    raise InputError("a contig without a name", ">NAME", path=path)
                if name in seen:
                    raise InputError(f"contig {name!r} twice", "each contig once", path=path)
                seen.add(name)
                raw = np.frombuffer(record.sequence.encode("ascii", "replace"), dtype=np.uint8)
                tokens = _TOKEN_OF_BYTE[raw]
                if tokens.size == 0:
                    raise InputError(f"contig {name!r} without sequence", "DNA letters", path=path)
                if tokens.max() == INVALID:
                    raise _bad_letter(path)
                masks.append(_lower_case(raw) + offset)
                pieces.append(tokens)
                contigs.append(Contig(name, offset, tokens.size, False))
                offset += tokens.size
    except (FileFormatError, UnicodeDecodeError) as error:
        raise _no_fasta(path, getattr(error, "line", None)) from error
    if not contigs:
        raise InputError("no FASTA record", "at least one contig", path=path)
    genome = np.concatenate(pieces)
    genome.setflags(write=False)
    return Genome(genome, tuple(contigs), np.concatenate(masks))


def _lower_case(raw: UInt8[np.ndarray, " length"]) -> Int64[np.ndarray, "regions 2"]:
    is_lower = np.concatenate([[False], raw >= ord("a"), [False]])
    edges = np.flatnonzero(is_lower[1:] != is_lower[:-1])
    return edges.reshape(-1, 2).astype(np.int64)


def _bad_letter(path: Path) -> InputError:
    """Find the line to blame; only ever called once a bad letter is known to be there."""
    for number, text in numbered_lines(path):
        if text.startswith((">", ";")):
            continue
        for letter in text.strip():
            if ord(letter) > 255 or _TOKEN_OF_BYTE[ord(letter)] == INVALID:
                return InputError(
                    f"the letter {letter!r}", "DNA (A, C, G, T, N or IUPAC)", path=path, line=number
                )
    return InputError("a letter that is not DNA", "A, C, G, T, N or IUPAC", path=path)


def _no_fasta(path: Path, line: int | None) -> InputError:
    """Say what the reader stumbled over; without a line (from 0) it was a letter beyond ASCII."""
    if line is None:
        for number, text in numbered_lines(path):
            if not text.isascii():
                letter = next(letter for letter in text if not letter.isascii())
                return InputError(
                    f"{letter!r}, which is not ASCII", "ASCII text", path=path, line=number
                )
    at = None if line is None else line + 1
    return InputError("no FASTA record", "a line that starts with '>'", path=path, line=at)


CHUNK_BYTES = 1 << 24
INDEX = "contigs.json"


def cache_fasta(
    paths: Sequence[Path],
    folder: Path,
    circular: Sequence[str] = (),
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[Genome, dict[str, str]]:
    """Turn FASTA files (plain, gzip, bgzip) into tokens under `folder`; give them as a memory map.

    What is there from the same files is used again. No more than about `chunk_bytes`, or one line
    of a file, is in memory at a time. With several files a contig is called STEM:NAME, after the
    file's name up to its first dot. Beside the genome: the file names and their sha256.

    Raises
    ------
    InputError
        For what is no FASTA of DNA, a contig without sequence or named twice, two files of one
        name, or a circular contig that there is none of.
    """
    stems = [path.name.split(".", 1)[0] for path in paths]
    if len(set(stems)) < len(stems):
        raise InputError(f"two FASTA files named {max(stems, key=stems.count)}", "different names")
    digests = _digests(paths)
    index = folder / INDEX
    if not is_cached(paths, folder):
        # Beside it and renamed: what is there belongs to files that are whole.
        with atomic_directory(folder, overwrite=True) as scratch:
            contigs: list[Contig] = []
            masks = [np.empty((0, 2), np.int64)]
            with (scratch / "genome.u8").open("wb") as out:
                for path, stem in zip(paths, stems, strict=True):
                    prefix = f"{stem}:" if len(paths) > 1 else ""
                    _append(path, prefix, out, contigs, masks, chunk_bytes)
            np.save(scratch / "soft_masked.npy", _joined(np.concatenate(masks), contigs))
            rows = [contig._asdict() for contig in contigs]
            write_json(scratch / INDEX, {"files": digests, "contigs": rows})
    genome = Genome(
        np.memmap(folder / "genome.u8", np.uint8, mode="r"),
        tuple(Contig(**row) for row in json.loads(index.read_text())["contigs"]),
        np.load(folder / "soft_masked.npy", mmap_mode="r"),
    )
    return genome.with_circular(circular), digests


def is_cached(paths: Sequence[Path], folder: Path) -> bool:
    """Say whether `folder` holds just these files."""
    index = folder / INDEX
    return index.exists() and json.loads(index.read_text())["files"] == _digests(paths)


def _digests(paths: Sequence[Path]) -> dict[str, str]:
    found = {}
    for path in paths:
        with open_input(path):
            found[path.name] = file_sha256(path)
    return found


def _append(
    path: Path,
    prefix: str,
    out: BinaryIO,
    contigs: list[Contig],
    masks: list[np.ndarray],
    chunk_bytes: int,
) -> None:
    before = len(contigs)

    def write(lines: list[bytes]) -> None:
        raw = np.frombuffer(b"".join(lines).translate(None, b" \t\r\n"), np.uint8)
        if not raw.size:
            return
        if len(contigs) == before:
            raise InputError("no FASTA record", "a line that starts with '>'", path=path, line=1)
        tokens = _TOKEN_OF_BYTE[raw]
        if tokens.max() == INVALID:
            raise _bad_letter(path)
        last = contigs[-1]
        masks.append(_lower_case(raw) + last.offset + last.length)
        contigs[-1] = last._replace(length=last.length + len(tokens))
        out.write(tokens.tobytes())

    def check() -> None:
        if len(contigs) > before and not contigs[-1].length:
            found = f"contig {contigs[-1].name!r} without sequence"
            raise InputError(found, "DNA letters", path=path)

    names = set()
    with open_input(path) as handle:
        while lines := handle.readlines(chunk_bytes):
            sequence: list[bytes] = []
            for line in lines:
                if not line.startswith(b">"):
                    sequence.append(line)
                    continue
                write(sequence)
                check()
                sequence, words = [], line[1:].decode("utf-8", "replace").split(maxsplit=1)
                if not words or line[1:2].isspace():
                    raise InputError("a contig without a name", ">NAME", path=path)
                if words[0] in names:
                    raise InputError(f"contig {words[0]!r} twice", "each contig once", path=path)
                names.add(words[0])
                offset = contigs[-1].offset + contigs[-1].length if contigs else 0
                contigs.append(Contig(prefix + words[0], offset, 0, False))
            write(sequence)
    check()
    if len(contigs) == before:
        raise InputError("no FASTA record", "at least one contig", path=path)


def _joined(masks: np.ndarray, contigs: list[Contig]) -> np.ndarray:
    """Stretches that were cut by the end of a chunk in one piece again."""
    if not len(masks):
        return masks
    begins = np.isin(masks[1:, 0], [contig.offset for contig in contigs])
    is_cut = (masks[1:, 0] == masks[:-1, 1]) & ~begins
    first = np.concatenate([[True], ~is_cut])
    last = np.concatenate([~is_cut, [True]])
    return np.stack([masks[first, 0], masks[last, 1]], 1)

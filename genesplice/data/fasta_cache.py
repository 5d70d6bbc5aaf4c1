"""FASTA files of any size as one memory-mapped genome."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from genesplice.data.genome import _TOKEN_OF_BYTE, INVALID, Contig, Genome, _bad_letter, _lower_case
from genesplice.data.tables import open_input
from genesplice.errors import InputError
from genesplice.runtime import atomic_directory, file_sha256, write_json

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

"""Relatives: genomes of related species, aligned to the reference base by base.

The alignment is a matrix, relatives x positions, of what each relative has at each base of the
reference. Tiles of the reference are mapped with minimap2 (Li 2018) at seeds that are short enough
for four fifths of identity, and the best-matching tile decides where tiles overlap.

Most of what it says is in the columns: how many near, middle and far relatives have A, C, G, T or
a gap at each base.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64, UInt8

from genesplice.data.genome import Contig, Genome, N, Tokens, decode, encode, read_fasta
from genesplice.data.leakage import graded, worst_status
from genesplice.data.tables import Progress
from genesplice.errors import InputError, WorkError, require
from genesplice.results import Conservation
from genesplice.runtime import atomic_file

FILES = ("relatives.npy", "columns.npy", "relatives.tsv")
GAP, UNALIGNED = 4, 5
"""Beside 0 to 3 for A, C, G and T: the relative lacks this base; nothing of it aligns here."""
SUFFIXES = (".fa", ".fna", ".fasta", ".fas")
TILE_BP, TILE_STEP = 1_500, 750
ALIGNER = {"k": 11, "w": 5, "min_chain_score": 25, "min_dp_score": 20,
           "scoring": (1, 1, 3, 1, 13, 1)}  # fmt: skip
"""minimap2's defaults are made for 95 % of identity: they find a third of what these find."""
MAX_CONTIGS, MAX_RELATIVES = 20_000, 3 * 255
MIN_ALIGNED, STRAIN_IDENTITY = 0.05, 0.98
TABLE_COLUMNS = (
    "name", "group", "aligned", "identity", "contigs", "length_bp", "file", "sha256", "note",
)  # fmt: skip
GROUPS = ("near", "middle", "far")
LEFT_OUT = "left out"


class Relatives(NamedTuple):
    """Aligned relatives, the nearest first.

    `bases[r, i]` is what relative r has at base i of `Genome.tokens`, read on the + strand: 0 to 3
    for A, C, G, T, `GAP` or `UNALIGNED`; a summary has no rows. `columns[g, i]` counts the
    relatives of a group (`GROUPS`: a third each, by identity) that have A, C, G, T or a gap there.
    `table` has a row of `TABLE_COLUMNS` for each relative: `aligned` is the share of the
    reference's bases with a base of the relative, `identity` the share of these that are equal,
    `group` one of `GROUPS`, or `LEFT_OUT` for a strain of the reference's own species.
    """

    bases: UInt8[np.ndarray, "relatives length"]
    columns: UInt8[np.ndarray, "groups length 5"]
    table: pd.DataFrame

    def sources(self, genome: Genome) -> Iterator[tuple[str, Tokens, Tokens]]:
        """Each relative, else each group: its name, its bases at each position, and equal ones.

        Both are counts: 0 or 1 of a relative.
        """
        names = self.table["name"][self.table["group"] != LEFT_OUT]
        for row in names.index if len(self.bases) else ():
            is_base = self.bases[row] < GAP
            same = is_base & (self.bases[row] == genome.tokens)
            yield names[row], is_base.astype(np.uint8), same.astype(np.uint8)
        for group, counts in zip(GROUPS, self.columns, strict=True):
            if not len(self.bases) and self.size_of(group):
                reference = np.minimum(genome.tokens, GAP)[:, None]
                same = np.take_along_axis(counts, reference, axis=1)[:, 0]
                same[genome.tokens >= GAP] = 0
                yield group, counts[:, :GAP].sum(axis=1, dtype=np.uint8), same

    def along(self, genome: Genome, n_windows: int = 300) -> pd.DataFrame:
        """How each source is aligned in equal windows over all contigs, one after another.

        Columns name, start (of the window in `Genome.tokens`), aligned (share of its bases, of a
        group the mean of its relatives) and identity (of what is aligned; NaN where nothing is).
        """
        edges = np.linspace(0, genome.length, n_windows + 1).astype(np.int64)[:-1]
        sizes = np.diff([*edges, genome.length])
        rows = []
        for name, count, same in self.sources(genome):
            there, equal = (np.add.reduceat(x, edges, dtype=np.int64) for x in (count, same))
            identity = np.where(there > 0, equal / np.maximum(there, 1), np.nan)
            aligned = there / sizes / self.size_of(name)
            columns = {"start": edges, "aligned": aligned, "identity": identity}
            rows.append(pd.DataFrame(columns).assign(name=name))
        return pd.concat(rows, ignore_index=True)

    def log_ratio(
        self,
        at: Int64[np.ndarray, " replaced"],
        ref: UInt8[np.ndarray, " replaced"],
        alt: UInt8[np.ndarray, " inserted"],
    ) -> float | None:
        """What the columns alone say of a change: log of counts + 1/4, new against old.

        Of substitutions the sum over bases that change; of a deletion the mean over its bases of
        gaps against the base; None of other changes, and where no relative is aligned.

        Parameters
        ----------
        at
            Indices into `Genome.tokens` of the bases that are replaced.
        """
        columns, is_deletion = self.columns[:, at].swapaxes(0, 1), not len(alt)
        if (len(alt) != len(ref) and not is_deletion) or not len(ref):
            return None
        if not columns.any(axis=(1, 2)).all():
            return None
        new = np.full(len(ref), GAP) if is_deletion else np.minimum(alt, GAP)
        row, logs = np.arange(len(ref)), column_log_counts(columns)
        ratios = logs[row, new] - logs[row, np.minimum(ref, GAP)]
        return float(ratios.mean() if is_deletion else ratios[new != ref].sum())

    def conservation(
        self,
        columns: UInt8[np.ndarray, "length groups 5"],
        tokens: Tokens,
    ) -> Conservation | None:
        """How an interval's bases are conserved, from its columns on either strand; None of none.

        `columns` are `Genome.fetch_columns`' and `tokens` `Genome.fetch`'s.
        """
        if not columns.shape[1]:
            return None
        counts = np.concatenate([columns[..., :GAP], np.zeros_like(columns[..., :1])], -1)
        same = np.take_along_axis(counts, np.minimum(tokens, GAP)[:, None, None], axis=2)[..., 0]
        share = columns.sum(axis=1, dtype=np.float64)[:, :GAP] + 0.25
        share /= share.sum(axis=1, keepdims=True)
        information = 2 + (share * np.log2(share)).sum(axis=1)
        sizes = {group: int((self.table["group"] == group).sum()) for group in GROUPS}
        return Conservation(sizes, columns.sum(axis=2, dtype=np.uint8), same, information)

    def size_of(self, source: str) -> int:
        """How many relatives a source of `sources` counts: 1, or, of a summary, the group."""
        return 1 if len(self.bases) else int((self.table["group"] == source).sum())


def column_log_counts(
    columns: UInt8[np.ndarray, "length groups 5"],
) -> Float[np.ndarray, "length 5"]:
    """Log of counts + 1/4 over all groups, of A, C, G, T and gaps."""
    return np.log(columns.sum(axis=1, dtype=np.int64) + 0.25)


def align_relatives(
    folder: Path, genome: Genome, cache: Path, *, progress: Progress | None = None
) -> Relatives:
    """Align each FASTA file of `folder`; what `cache` has from the same files is used again.

    Parameters
    ----------
    folder
        One file a genome, of any number of contigs, plain or compressed.
    cache
        Folder for one aligned row a relative, so that an interrupted run goes on.

    Raises
    ------
    InputError
        If the folder has no FASTA file, two files have the same sequences, one is the reference
        itself, no DNA, or of more than 20,000 contigs.
    WorkError
        If mappy is not installed.
    """
    say = progress or (lambda text: None)
    expected = "a folder of FASTA files, one a genome, or a .maf"
    require(folder.is_dir(), "a file" if folder.exists() else "no such folder", expected, folder)
    files = [f for f in sorted(folder.iterdir()) if _stem(f.name) is not None]
    expected = f"one a genome, named {', '.join('*' + s for s in SUFFIXES)}, plain or .gz"
    require(files, "no FASTA file", expected, folder)
    reference = genome.digest
    rows: list[dict[str, Any]] = []
    aligned: list[np.ndarray] = []
    seen: dict[str, Path] = {reference: Path("the reference")}
    for number, path in enumerate(files, start=1):
        relative = read_fasta(path)
        n_contigs, expected = len(relative.contigs), f"one genome of at most {MAX_CONTIGS}"
        require(n_contigs <= MAX_CONTIGS, f"{n_contigs} contigs", expected, path)
        digest = relative.digest
        twin = seen.get(digest)
        require(twin is None, f"the sequences of {twin}", "each genome once", path)
        seen[digest] = Path(path.name)
        if _stem(path.name) in {row["name"] for row in rows}:
            raise InputError(f"two files named {_stem(path.name)}", "different names", path=folder)
        key = hashlib.sha256(repr((reference, digest, TILE_BP, TILE_STEP, ALIGNER)).encode())
        kept = cache / f"{key.hexdigest()[:32]}.npy"
        if kept.is_file():
            bases = np.load(kept)
        else:
            say(f"relatives: aligning {path.name} ({number} of {len(files)})")
            bases = _align(path, genome)
            with atomic_file(kept) as scratch, scratch.open("wb") as out:
                np.save(out, bases)
        size = {"contigs": len(relative.contigs), "length_bp": relative.length}
        about = {"name": _stem(path.name), "file": path.name, "sha256": digest, **size}
        rows.append(judged_row(about, genome, bases, say))
        aligned.append(bases)
    return group_relatives(rows, aligned, folder)


def group_relatives(
    rows: Sequence[Mapping[str, Any]], aligned: Sequence[Tokens], path: Path
) -> Relatives:
    """The relatives of some rows of `TABLE_COLUMNS`, but for the group, and their bases.

    Raises
    ------
    InputError
        If a group has more relatives than can be counted.
    """
    table = pd.DataFrame(rows).sort_values(["identity", "name"], ascending=[False, True])
    if len(table) > MAX_RELATIVES:
        raise InputError(f"{len(table)} relatives", f"at most {MAX_RELATIVES}", path=path)
    bases = np.stack([aligned[i] for i in table.index])
    table = table.reset_index(drop=True).assign(group=LEFT_OUT)
    kept = table.index[table["identity"] <= STRAIN_IDENTITY]
    for group, members in zip(GROUPS, np.array_split(kept, len(GROUPS)), strict=True):
        table.loc[members, "group"] = group
    columns = np.stack([_count(bases[table["group"] == group]) for group in GROUPS])
    return Relatives(bases, columns, table[list(TABLE_COLUMNS)])


def _stem(name: str) -> str | None:
    """The file's name without what says that it is FASTA; None for other files."""
    plain = name.removesuffix(".gz").removesuffix(".bgz")
    return next((plain.removesuffix(s) for s in SUFFIXES if plain.lower().endswith(s)), None)


def judged_row(
    about: dict[str, Any], genome: Genome, bases: Tokens, say: Progress
) -> dict[str, Any]:
    """A row of `TABLE_COLUMNS` but for the group, said in one line, from a row of the matrix.

    `about` has all but `aligned`, `identity` and `note`.
    """
    is_base = bases < GAP
    identical = int((is_base & (bases == genome.tokens)).sum())
    share, identity = float(is_base.mean()), identical / max(1, int(is_base.sum()))
    note = ""
    if share < MIN_ALIGNED:
        note = f"aligns to less than {MIN_ALIGNED:.0%}"
    elif identity > STRAIN_IDENTITY:
        note = "a strain of the same species: it brings the answer into every column"
    said = f"{share:.0%} of the genome aligned at {identity:.0%} identity{note and ': ' + note}"
    say(f"relatives: {about['name']}: {said}")
    return about | {"aligned": share, "identity": identity, "note": note}


def check_aligner(relatives: Path | str | None) -> None:
    """Say that mappy is not installed, where genomes are to be aligned: before anything is read.

    Raises
    ------
    WorkError
        If it is not.
    """
    is_alignment = relatives is not None and Path(relatives).is_file()
    if relatives is not None and not is_alignment and find_spec("mappy") is None:
        raise WorkError(
            "relatives are aligned with mappy, which is not installed: "
            "pip install 'mappy>=2.28' (extra `relatives`; where there is no wheel it is compiled: "
            "a C compiler and zlib's headers)"
        )


def _align(path: Path, genome: Genome) -> Tokens:
    """One row of the matrix."""
    check_aligner(path.parent)
    import mappy

    index = mappy.Aligner(str(path), **ALIGNER)
    bases = np.full(genome.length, UNALIGNED, np.uint8)

    def map_tiles(job: tuple[Contig, int]) -> list[tuple[int, int, np.ndarray]]:
        contig, first = job
        buffer, found = mappy.ThreadBuffer(), []
        for start in range(first, min(first + 64 * TILE_STEP, contig.length), TILE_STEP):
            end = start + TILE_BP if contig.is_circular else min(start + TILE_BP, contig.length)
            tile = decode(genome.fetch(contig.name, start, end))
            for hit in index.map(tile, buf=buffer):
                if hit.is_primary:
                    found.append((hit.mlen, start + hit.q_st, _project(index, hit)))
        return found

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for contig in genome.contigs:
            jobs = [(contig, first) for first in range(0, contig.length, 64 * TILE_STEP)]
            hits = [hit for hits in pool.map(map_tiles, jobs) for hit in hits]
            write_best(bases[contig.offset : contig.offset + contig.length], hits)
    return bases


def write_best(
    bases: Tokens,
    hits: Iterable[tuple[int, int, UInt8[np.ndarray, " _"]]],
) -> None:
    """Write hits (matches, first base, row) into a contig; where they meet the best one stays.

    A hit that leaves the contig at its end goes on at its beginning.
    """
    for _, start, row in sorted(hits, key=lambda hit: hit[:2]):
        bases[(start + np.arange(len(row))) % len(bases)] = row


def _project(index: Any, hit: Any) -> Tokens:
    """What the relative has at each base of the tile that the hit covers, along the tile."""
    target = encode(index.seq(hit.ctg, hit.r_st, hit.r_en))
    target[target == N] = UNALIGNED
    row = np.full(hit.q_en - hit.q_st, GAP, np.uint8)
    there = here = 0
    for length, kind in hit.cigar:
        if kind in _MATCHED:
            row[here : here + length] = target[there : there + length]
        here += length * (kind in _MATCHED or kind == _ONLY_TILE)
        there += length * (kind != _ONLY_TILE)
    return row if hit.strand == 1 else turned(row)


def turned(row: Tokens) -> Tokens:
    """What a relative has, along the other strand; gaps and what is not aligned stay."""
    return np.where(row < GAP, 3 - row, row)[::-1].astype(np.uint8)


_MATCHED, _ONLY_TILE = (0, 7, 8), 1


def _count(bases: UInt8[np.ndarray, "relatives length"]) -> UInt8[np.ndarray, "length 5"]:
    counts = [(bases == code).sum(axis=0, dtype=np.uint8) for code in range(GAP + 1)]
    return np.stack(counts, axis=1)


def write_relatives(relatives: Relatives, folder: Path) -> None:
    """Write `FILES` of a bundle."""
    np.save(folder / FILES[0], relatives.bases)
    np.save(folder / FILES[1], relatives.columns)
    relatives.table.to_csv(folder / FILES[2], sep="\t", index=False)


def read_relatives(folder: Path) -> Relatives:
    """Read `FILES` of a bundle, as memory maps."""
    bases, columns = (np.load(folder / name, mmap_mode="r") for name in FILES[:2])
    table = pd.read_csv(folder / FILES[2], sep="\t", keep_default_na=False)
    return Relatives(bases, columns, table)


def judge_relatives(leakage: Mapping[str, Any], table: pd.DataFrame) -> dict[str, Any]:
    """The leakage report with a line on `Relatives.table`."""
    check = graded(
        "strains among the relatives", float((table["identity"] > STRAIN_IDENTITY).sum()),
        "relatives", 0.0, float(len(table)), "amber above 0",
        "relatives hold orthologues of held-out genes, never their expression: bits per base with "
        "columns are not those of the genome alone; a strain of the same species would copy the "
        "answer into every column, and is left out of them",
    )  # fmt: skip
    checks = [*leakage["checks"], check._asdict()]
    return {**leakage, "status": worst_status(r["status"] for r in checks), "checks": checks}


def turn_columns(
    counts: UInt8[np.ndarray, "length 5"], tokens: Tokens, way: int
) -> UInt8[np.ndarray, "length 5"]:
    """Count the four bases from the reference's on (`way` 1), or from A on again (-1)."""
    at = (np.arange(GAP) + way * (tokens[:, None] % GAP).astype(np.int8)) % GAP
    return np.column_stack([np.take_along_axis(counts[:, :GAP], at, axis=1), counts[:, GAP:]])

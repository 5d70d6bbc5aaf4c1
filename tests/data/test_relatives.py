"""Aligned relatives: mutated copies of a small genome, of which every base is known."""

import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genesplice.data import relatives as module
from genesplice.data.alignments import read_summary, write_summary
from genesplice.data.bundle import Bundle
from genesplice.data.genome import Contig, Genome, decode, reverse_complement
from genesplice.data.relatives import (
    GAP,
    UNALIGNED,
    Relatives,
    align_relatives,
    write_best,
)
from genesplice.errors import InputError

LENGTH = 24_000
MISSING = slice(15_000, 18_000)
INVERTED = slice(6_000, 9_000)


@pytest.fixture(scope="module")
def genome() -> Genome:
    tokens = np.random.default_rng(5).integers(0, 4, LENGTH).astype(np.uint8)
    tokens[500:510] = 4
    return Genome(tokens, (Contig("a", 0, 20_000, True), Contig("b", 20_000, 4_000, False)))


def make_relative(genome: Genome, changed: float, seed: int) -> tuple[list[str], np.ndarray]:
    """Contigs of a relative, and what it has at each base of the reference.

    One base in `changed` is another, 40 pieces of 1 to 9 bp are lost, as many are inserted, 3 kb
    are missing, 3 kb are inverted, and the circle begins elsewhere.
    """
    rng = np.random.default_rng(seed)
    truth = genome.tokens.copy()
    is_other = rng.random(LENGTH) < changed
    truth[is_other] = (truth[is_other] + rng.integers(1, 4, is_other.sum())) % 4
    truth[500:510] = rng.integers(0, 4, 10)
    for start in rng.integers(200, LENGTH - 200, 40):
        truth[start : start + rng.integers(1, 10)] = GAP
    pieces = [truth[i : i + 1][truth[i : i + 1] < GAP] for i in range(LENGTH)]
    for start in rng.integers(200, LENGTH - 200, 40):
        pieces[start] = np.append(pieces[start], rng.integers(0, 4, rng.integers(1, 10)))
    pieces = [piece.astype(np.uint8) for piece in pieces]
    truth[MISSING] = UNALIGNED
    inverted = reverse_complement(np.concatenate(pieces[INVERTED]))
    circle = [*pieces[: INVERTED.start], inverted, *pieces[INVERTED.stop : MISSING.start]]
    circle += pieces[MISSING.stop : 20_000]
    first = np.roll(np.concatenate(circle), -4_321)
    return [decode(first), decode(reverse_complement(np.concatenate(pieces[20_000:])))], truth


def write(path: Path, contigs: list[str]) -> None:
    text = "".join(f">{i}\n{sequence.lower()}\n" for i, sequence in enumerate(contigs))
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as out:
        out.write(text)


@pytest.fixture(scope="module")
def folder(genome: Genome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mappy")
    out = tmp_path_factory.mktemp("relatives")
    write(out / "Far_relative.fna.gz", make_relative(genome, 0.15, 1)[0])
    write(out / "Near_relative.fa", make_relative(genome, 0.05, 2)[0])
    (out / "README.txt").write_text("no genome")
    return out


@pytest.mark.parametrize(("row", "changed", "seed"), [(0, 0.05, 2), (1, 0.15, 1)])
def test_every_base_is_what_the_relative_has_there(
    genome: Genome, folder: Path, tmp_path: Path, row: int, changed: float, seed: int
) -> None:
    found = align_relatives(folder, genome, tmp_path / "cache")
    assert list(found.table["name"]) == ["Near_relative", "Far_relative"]
    bases, (_, truth) = found.bases[row], make_relative(genome, changed, seed)
    is_base, is_known = bases < GAP, truth < GAP
    # Where an indel lies in a repeat nobody can say which copy of a base was lost.
    edge = np.flatnonzero(np.diff(is_known.astype(int)))
    near_indel = np.zeros(LENGTH, bool)
    near_indel[(edge[:, None] + np.arange(-12, 13)).clip(0, LENGTH - 1).ravel()] = True
    clear = is_base & is_known & ~near_indel
    assert (bases[clear] == truth[clear]).mean() > 0.99
    assert clear[is_known & ~near_indel].mean() > 0.93
    assert clear[INVERTED].mean() > 0.7
    assert (bases[20_000:] == truth[20_000:]).mean() > 0.9
    assert (bases[[*range(200), *range(19_800, 20_000)]] < GAP).mean() > 0.8
    inner = slice(MISSING.start + 50, MISSING.stop - 50)
    assert (bases[inner] == UNALIGNED).mean() > 0.9
    assert found.table["identity"][row] == pytest.approx(1 - changed, abs=0.02)
    assert found.table["aligned"][row] == pytest.approx(is_known.mean(), abs=0.05)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_where_tiles_meet_the_one_with_most_matches_stays(order: list[int]) -> None:
    rows = [(5, 2, [0] * 4), (9, 4, [1] * 4), (7, 7, [2] * 4)]
    hits = [(n, start, np.array(row, np.uint8)) for n, start, row in rows]
    bases = np.full(10, UNALIGNED, np.uint8)
    write_best(bases, [hits[i] for i in order])
    assert bases.tolist() == [2, UNALIGNED, 0, 0, 1, 1, 1, 1, 2, 2]


def test_what_was_aligned_is_read_again(
    genome: Genome, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("os.cpu_count", lambda: 1)
        first = align_relatives(folder, genome, tmp_path)
    lines: list[str] = []
    again = align_relatives(folder, genome, tmp_path, progress=lines.append)
    np.testing.assert_array_equal(first.bases, again.bases)
    assert len(lines) == 2
    assert all("aligned at" in line for line in lines)
    monkeypatch.setattr(module, "TILE_STEP", 600)
    align_relatives(folder, genome, tmp_path, progress=lines.append)
    assert sum("aligning" in line for line in lines) == 2


def test_columns_count_relatives_by_group(genome: Genome, folder: Path, tmp_path: Path) -> None:
    found = align_relatives(folder, genome, tmp_path)
    assert list(found.table["group"]) == ["near", "middle"]
    for at in (0, 7_000, 16_000, 23_000):
        for group, bases in enumerate(found.bases[:, at]):
            assert found.columns[group, at].tolist() == [int(bases == code) for code in range(5)]
    assert not found.columns[2].any()
    for row, (name, is_base, same) in enumerate(found.sources(genome)):
        assert name == found.table["name"][row]
        np.testing.assert_array_equal(is_base, found.bases[row] < GAP)
        np.testing.assert_array_equal(
            same, found.bases[row] == np.where(genome.tokens < 4, genome.tokens, 9)
        )


def test_windows_along_the_genome_are_shares_of_their_bases(
    genome: Genome, folder: Path, tmp_path: Path
) -> None:
    found = align_relatives(folder, genome, tmp_path)
    table = found.along(genome, 7).set_index(["name", "start"])
    assert len(table) == 14
    for row, name in enumerate(found.table["name"]):
        starts = list(table.loc[name].index)
        for start, end in zip(starts, [*starts[1:], LENGTH], strict=True):
            is_base = found.bases[row, start:end] < GAP
            same = (found.bases[row, start:end] == genome.tokens[start:end]) & is_base
            assert table.loc[(name, start), "aligned"] == pytest.approx(is_base.mean())
            expected = same.sum() / is_base.sum()
            assert table.loc[(name, start), "identity"] == pytest.approx(expected)


def test_a_summary_has_the_same_columns(genome: Genome, folder: Path, tmp_path: Path) -> None:
    found = align_relatives(folder, genome, tmp_path)
    write_summary(found, genome, tmp_path / "summary.xz")
    read = read_summary(tmp_path / "summary.xz", genome)
    np.testing.assert_array_equal(read.columns, found.columns)
    assert list(read.table["name"]) == list(found.table["name"])
    for own, kept in zip(found.sources(genome), list(read.sources(genome))[:2], strict=True):
        np.testing.assert_array_equal(own[1], kept[1])
        np.testing.assert_array_equal(own[2], kept[2])
    other = Genome(genome.tokens[::-1].copy(), genome.contigs)
    with pytest.raises(InputError, match=r"summary\.xz.*another genome's"):
        read_summary(tmp_path / "summary.xz", other)
    (tmp_path / "summary.xz").write_bytes(b"cut")
    with pytest.raises(InputError, match=r"summary\.xz.*whole"):
        read_summary(tmp_path / "summary.xz", genome)


@pytest.mark.parametrize(
    ("contigs", "expected"),
    [
        (["MKVLAAGE" * 50], "the letter 'l'"),
        (["ACGT" * 3] * 6, "6 contigs.*at most 5"),
    ],
)
def test_what_is_no_genome_is_refused(
    genome: Genome,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    contigs: list[str],
    expected: str,
) -> None:
    monkeypatch.setattr(module, "MAX_CONTIGS", 5)
    write(tmp_path / "odd.fa", contigs)
    with pytest.raises(InputError, match=rf"odd\.fa.*({expected})"):
        align_relatives(tmp_path, genome, tmp_path / "cache")


def test_the_reference_and_second_copies_are_refused(genome: Genome, tmp_path: Path) -> None:
    pytest.importorskip("mappy")
    reference = [decode(genome.tokens[:20_000]), decode(genome.tokens[20_000:])]
    write(tmp_path / "a.fa", reference[::-1])
    with pytest.raises(InputError, match=r"a\.fa.*the reference"):
        align_relatives(tmp_path, genome, tmp_path / "cache")
    contigs, _ = make_relative(genome, 0.1, 3)
    for name in ("a.fa", "b.fa.gz"):
        write(tmp_path / name, contigs)
    with pytest.raises(InputError, match=r"b\.fa\.gz.*sequences of a\.fa"):
        align_relatives(tmp_path, genome, tmp_path / "cache")
    (tmp_path / "a.fa").unlink()
    (tmp_path / "b.fa.gz").unlink()
    with pytest.raises(InputError, match="no FASTA file"):
        align_relatives(tmp_path, genome, tmp_path / "cache")
    with pytest.raises(InputError, match="no such folder"):
        align_relatives(tmp_path / "none", genome, tmp_path / "cache")


def test_strains_and_strangers_are_said(genome: Genome, tmp_path: Path) -> None:
    pytest.importorskip("mappy")
    write(tmp_path / "strain.fa", make_relative(genome, 0.005, 4)[0])
    stranger = np.random.default_rng(9).integers(0, 4, 20_000).astype(np.uint8)
    write(tmp_path / "stranger.fa", [decode(stranger)])
    lines: list[str] = []
    table = align_relatives(tmp_path, genome, tmp_path / "cache", progress=lines.append).table
    assert "strain of the same species" in table.set_index("name").loc["strain", "note"]
    assert "less than 5%" in table.set_index("name").loc["stranger", "note"]
    assert any("strain of the same species" in line for line in lines)


def test_a_relative_larger_than_the_reference_is_aligned_like_any_other(
    genome: Genome, tmp_path: Path
) -> None:
    pytest.importorskip("mappy")
    contigs, truth = make_relative(genome, 0.1, 6)
    more = np.random.default_rng(8).integers(0, 4, 2 * LENGTH).astype(np.uint8)
    write(tmp_path / "large.fa", [*contigs, decode(more)])
    found = align_relatives(tmp_path, genome, tmp_path / "cache")
    assert found.table.loc[0, "length_bp"] > 2 * LENGTH
    assert found.table.loc[0, "aligned"] == pytest.approx((truth < GAP).mean(), abs=0.06)
    empty = found.bases[0] == UNALIGNED
    assert empty[MISSING].mean() > 0.9
    assert not found.columns[:, empty].any()
    seen = found.conservation(found.columns[:, empty].swapaxes(0, 1), genome.tokens[empty])
    assert seen is not None
    assert not seen.aligned.any()
    assert not seen.information.any()


def test_two_files_of_one_name_are_refused(genome: Genome, tmp_path: Path) -> None:
    pytest.importorskip("mappy")
    for seed, name in ((3, "a.fa"), (4, "a.fna.gz")):
        write(tmp_path / name, make_relative(genome, 0.1, seed)[0])
    with pytest.raises(InputError, match="found two files named a, expected different names"):
        align_relatives(tmp_path, genome, tmp_path / "cache")


def test_columns_alone_score_a_change() -> None:
    columns = np.zeros((3, 4, 5), np.uint8)
    columns[0, 0] = [5, 0, 1, 0, 0]
    columns[2, 0] = [1, 0, 2, 0, 1]
    columns[1, 1] = [0, 4, 0, 0, 3]
    columns[0, 2] = [0, 0, 0, 1, 0]
    relatives = Relatives(np.empty((0, 4), np.uint8), columns, pd.DataFrame())

    def score(at: list[int], ref: list[int], alt: list[int]) -> float | None:
        return relatives.log_ratio(
            np.array(at, np.int64), np.array(ref, np.uint8), np.array(alt, np.uint8)
        )

    assert score([0], [0], [2]) == pytest.approx(np.log(3.25 / 6.25))
    assert score([0, 1], [0, 1], [2, 0]) == pytest.approx(np.log(3.25 / 6.25 * 0.25 / 4.25))
    assert score([0, 1], [0, 1], [0, 0]) == pytest.approx(np.log(0.25 / 4.25))
    lost = (np.log(1.25 / 6.25) + np.log(3.25 / 4.25)) / 2
    assert score([0, 1], [0, 1], []) == pytest.approx(lost)
    assert score([], [], [1]) is None
    assert score([0], [0], [1, 1]) is None
    assert score([2], [3], [1]) == pytest.approx(np.log(0.25 / 1.25))
    assert score([3], [3], [1]) is None


@pytest.mark.skipif("GENESPLICE_RELATIVES" not in os.environ, reason="a folder of the genomes")
def test_a_piece_of_the_summary_is_made_again(ecoli: Bundle, tmp_path: Path) -> None:
    """With the genomes of `data/README.md` in the folder $GENESPLICE_RELATIVES."""
    table = ecoli.relatives.table
    near = table["file"][table["group"] == "near"]
    for name in near:
        (tmp_path / name).symlink_to(Path(os.environ["GENESPLICE_RELATIVES"]) / name)
    n = 60_000
    piece = Genome(np.array(ecoli.genome.tokens[:n]), (Contig("piece", 0, n, False),))
    rows = align_relatives(tmp_path, piece, tmp_path / "cache").bases
    inner = slice(2_000, n - 2_000)
    made = np.stack([(rows == code).sum(axis=0) for code in range(GAP + 1)], axis=1)
    np.testing.assert_array_equal(made[inner], ecoli.relatives.columns[0][inner])

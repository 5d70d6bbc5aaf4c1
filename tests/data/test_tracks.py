"""Coverage and peaks in bins: against written-out loops, on both strands, and what is refused."""

import sys

import numpy as np
import pandas as pd
import pytest
from tiny_files import random_genome, write, write_bigwig
from tiny_inputs import inputs

from genesplice.data.bundle import load_bundle
from genesplice.data.genome import Contig, Genome
from genesplice.data.prepare import prepare_files
from genesplice.data.tracks import (
    BIN_BP,
    CLIP,
    bin_blocks,
    exon_means,
    read_tracks,
    scale_targets,
    write_tracks,
)
from genesplice.data.windows import TrackWindows, Window
from genesplice.errors import InputError, WorkError

LENGTHS = {"chr1": 5000, "chr2": 1300}


def genome() -> Genome:
    tokens = random_genome(sum(LENGTHS.values()), seed=3).tokens
    contigs = (Contig("chr1", 0, 5000, True), Contig("chr2", 5000, 1300, False))
    return Genome(tokens, contigs)


def blocks() -> pd.DataFrame:
    rows = [(0, "chr1", 100, 2500, 0), (1, "chr1", 2500, 5100, 1), (2, "chr2", 0, 1300, 0)]
    return pd.DataFrame(rows, columns=["block", "contig", "start", "end", "fold"])


def bigwig(path, values, lengths=LENGTHS):
    return write_bigwig(path, values, lengths)


def coverage(seed=0, share=0.3):
    rng = np.random.default_rng(seed)
    return {name: np.where(rng.random(n) < share, rng.integers(1, 50, n), np.nan)
            for name, n in LENGTHS.items()}  # fmt: skip


def binned(tmp_path, *given, **options):
    folder = tmp_path / "bins"
    folder.mkdir(exist_ok=True)
    notes = write_tracks(given, genome(), blocks(), folder, **options)
    return read_tracks(folder), notes


def loop_means(values, black=()):
    """The same, base by base: contigs one after another, the last bin of each is shorter."""
    out = []
    for name, n in LENGTHS.items():
        for start in range(0, n, BIN_BP):
            total, count, size = 0.0, 0, 0
            for at in range(start, min(start + BIN_BP, n)):
                size += 1
                if (name, at) in black:
                    continue
                count += 1
                total += 0.0 if np.isnan(values[name][at]) else values[name][at]
            out.append(total / count if 2 * count >= size else np.nan)
    return np.array(out)


# --- what comes out ---


def test_coverage_is_the_mean_of_each_bin(tmp_path):
    values = coverage()
    tracks, notes = binned(tmp_path, bigwig(tmp_path / "a.bw", values))
    np.testing.assert_allclose(tracks.values[0], loop_means(values), rtol=1e-6)
    assert tracks.values.shape == (1, 40 + 11)
    assert isinstance(tracks.values, np.memmap)
    assert tracks.labels == ["a"]
    assert notes == []


def test_pieces_of_a_contig_make_the_whole(tmp_path, monkeypatch):
    values = coverage()
    monkeypatch.setattr("genesplice.data.tracks.CHUNK_BP", 3 * BIN_BP)
    tracks, _ = binned(tmp_path, bigwig(tmp_path / "a.bw", values))
    np.testing.assert_allclose(tracks.values[0], loop_means(values), rtol=1e-6)


def test_blacklisted_bases_do_not_count_and_bins_of_them_are_missing(tmp_path):
    values = coverage()
    black = write(tmp_path / "black.bed", "chr1\t130\t170\nchr2\t0\t70\n")
    peaks = write(tmp_path / "p.bed", "chr1\t0\t600\nchr1\t3000\t3100\nchr2\t5\t900\n")
    tracks, notes = binned(tmp_path, bigwig(tmp_path / "a.bw", values), peaks, blacklist=black)
    gone = {("chr1", at) for at in range(130, 170)} | {("chr2", at) for at in range(70)}
    np.testing.assert_allclose(tracks.values[0], loop_means(values, gone), rtol=1e-6)
    assert np.isnan(tracks.values[0, 40])
    assert np.isnan(tracks.values[1, 40])
    assert not np.isnan(tracks.values[:, :40]).any()
    assert "blacklisted bases: 110 of 6300" in notes


def test_a_block_without_an_entry_is_missing_and_said(tmp_path):
    values = coverage()
    values["chr2"][:] = np.nan
    tracks, notes = binned(tmp_path, bigwig(tmp_path / "a.bw", values))
    assert np.isnan(tracks.values[0, 40:]).all()
    assert not np.isnan(tracks.values[0, :40]).any()
    assert notes == ["blocks without data in a.bw, left out: 1 (2)"]


def test_a_peak_is_where_half_of_the_bin_or_half_of_it_lies(tmp_path):
    rows = [("chr1", 100, 400), ("chr1", 630, 650), ("chr1", 1400, 1480), ("chr1", 4990, 5000),
            ("chr2", 1299, 1300), ("chr1", 3000, 3064)]  # fmt: skip
    text = "".join(f"{c}\t{s}\t{e}\n" for c, s, e in rows)
    tracks, _ = binned(tmp_path, write(tmp_path / "p.bed", "track x\n" + text))
    expected, offsets = np.zeros(51), {"chr1": 0, "chr2": 40}
    for name, start, end in rows:
        for at in range(40 if name == "chr1" else 11):
            inside = len(set(range(start, end)) & set(range(at * BIN_BP, (at + 1) * BIN_BP)))
            if inside and 2 * inside >= min(BIN_BP, end - start):
                expected[offsets[name] + at] = 1
    np.testing.assert_array_equal(tracks.values[0], expected)
    assert expected[1:3].tolist() == [1, 1]
    assert expected[0] == expected[3] == 0


def test_two_strands_are_a_pair_and_the_other_strand_exchanges_them(tmp_path):
    plus, minus = coverage(1), coverage(2)
    negative = {name: -v for name, v in minus.items()}
    pair = f"{bigwig(tmp_path / 'rna.plus.bw', plus)},{bigwig(tmp_path / 'm.bw', negative)}"
    peaks = write(tmp_path / "tss.bed", "chr1\t300\t499\tx\t0\t+\nchr1\t2600\t2800\tx\t0\t-\n"
                  "chr1\t2700\t2999\tx\t0\t+\nchr2\t0\t200\tx\t0\t-\n")  # fmt: skip
    tracks, notes = binned(tmp_path, pair, peaks)
    assert tracks.labels == ["rna+", "rna-", "tss+", "tss-"]
    np.testing.assert_allclose(tracks.values[1], loop_means(minus), rtol=1e-6)
    assert "m.bw has values below 0 only: they are read without their sign" in notes
    # A window that begins before the contig and one that ends beyond it: NaN there.
    learned, means = np.ones(tracks.values.shape[1], bool), np.ones(4)
    windows = TrackWindows(genome(), tracks, learned, means, core_bp=1024, flank_bp=0)
    scaled = scale_targets(tracks.values, tracks.is_peaks, means)
    for name, start, end in (("chr1", -256, 640), ("chr2", 512, 1536)):
        window = Window(name, start, end, start, end)
        forward, backward = (
            windows.read(window, is_reverse=is_reverse).observed[0].numpy().T
            for is_reverse in (False, True)
        )
        for at in range(forward.shape[1]):
            first = start + at * BIN_BP
            where = first // BIN_BP + (0 if name == "chr1" else 40)
            is_there = 0 <= first < LENGTHS[name]
            for i, other in enumerate((1, 0, 3, 2)):
                truth = scaled[i, where] if is_there else np.nan
                np.testing.assert_equal(forward[i, at], truth)
                np.testing.assert_equal(backward[other, -1 - at], truth)


def test_bins_belong_to_blocks_and_to_none_where_folds_meet():
    found = bin_blocks(genome(), blocks())
    for at in range(40):
        inside = {1 if p >= 2500 or p < 100 else 0
                  for p in range(at * BIN_BP, min((at + 1) * BIN_BP, 5000))}  # fmt: skip
        assert found[at] == (inside.pop() if len(inside) == 1 else -1), at
    assert (found[40:] == 2).all()


def test_targets_are_scaled_and_softly_clipped():
    values = np.array([[0, 10, 320, 1000, np.nan], [0, 1, 1, 0, np.nan]])
    found = scale_targets(values, np.array([False, True]), np.array([10.0, 7.0]))
    expected = [0, 1, 32, CLIP - 1 + np.sqrt(100 - CLIP + 1), np.nan]
    np.testing.assert_allclose(found, [expected, values[1]], rtol=1e-6)


def test_means_over_exons_are_those_of_their_bases():
    values = np.random.default_rng(0).random((2, 51))
    values[1, 3] = np.nan
    genes = pd.DataFrame({
        "gene_id": list("abc"), "contig": ["chr1", "chr1", "chr2"], "start": [100, 4950, 1200],
        "end": [700, 5100, 1300], "exons": [(100, 250, 390, 700), (4950, 5100), ()],
    })  # fmt: skip
    found = exon_means(values, genome(), genes)
    bases = [[*range(100, 250), *range(390, 700)], [*range(4950, 5000), *range(100)],
             range(1200, 1300)]  # fmt: skip
    for gene, own in enumerate(bases):
        bins = [at // BIN_BP + (40 if gene == 2 else 0) for at in own]
        expected = [np.nanmean(values[track, bins]) for track in range(2)]
        np.testing.assert_allclose(found[:, gene], expected, rtol=1e-9)


def test_a_bundle_has_tracks_under_other_names_of_contigs(tmp_path):
    values = {"1": np.tile([2.0, np.nan, 4.0], 8000), "spike": np.ones(500)}
    path = bigwig(tmp_path / "a.bw", values, {"1": 24_000, "spike": 500})
    files, said = inputs(tmp_path / "in"), []
    out = tmp_path / "out"
    prepare_files(
        **files, expression_unit="tpm", out=out, block_bp=2000, tracks=[path], progress=said.append
    )
    bundle = load_bundle(out)
    assert bundle.tracks.values.shape == (1, 188)
    assert bundle.tracks.values[0, 50] == pytest.approx(2.0, abs=0.03)
    note = "contigs of a.bw that the genome lacks, left out: 1 (spike)"
    assert note in said
    assert "contigs of a.bw by other names in the genome: 1 (1 is chr1)" in said
    assert note in bundle.manifest["notes"]
    assert bundle.manifest["data_sha256"]["a.bw"]
    assert f"--tracks {path}" in bundle.manifest["command"]
    (out / "tracks.npy").unlink()
    with pytest.raises(InputError, match=r"no tracks\.npy"):
        load_bundle(out)


# --- what is refused ---


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.bed", "chr1\t10\t5001\n", r"p\.bed:1: found 10 to 5001, expected .* 5000, the length"),
        ("p.bed", "chr1\t10\t10\n", r"p\.bed:1: found 10 to 10"),
        ("p.bed", "chr1\t1\n", r"p\.bed:1: found 2 tab-separated columns"),
        ("p.bed", "chr9\t1\t10\n", r"p\.bed:1: found contig 'chr9', which the genome lacks"),
        ("p.bed", "# nothing\n", r"found no interval"),
        ("p.bed", "chr1\t3000\t3200\n", r"track p without data in fold 0"),
        ("p.wig", "x\n", r"expected a name in \.bw, \.bigWig, \.bed"),
        ("p.bw", "chr1\t1\t10\n", r"found no bigWig"),
        ("p.bw", "", r"found an empty file"),
    ],
)
def test_what_is_no_track_is_refused_in_one_line(tmp_path, name, text, message):
    if name.endswith("bw") and text:
        pytest.importorskip("pybigtools")
    with pytest.raises(InputError, match=message) as caught:
        binned(tmp_path, write(tmp_path / name, text))
    assert "\n" not in str(caught.value)


def test_files_of_another_assembly_or_another_kind_of_values_are_refused(tmp_path):
    values = coverage()
    other = bigwig(tmp_path / "other.bw", values, {"chr1": 5001, "chr2": 1300})
    with pytest.raises(InputError, match="contig 'chr1' of 5001 bp, expected 5000 bp, the length"):
        binned(tmp_path, other)
    stranger = bigwig(tmp_path / "s.bw", {"x": np.ones(9)}, {"x": 9})
    with pytest.raises(InputError, match=r"s\.bw: found contig 'x', which the genome lacks"):
        binned(tmp_path, stranger)
    values["chr1"][7] = -3
    with pytest.raises(InputError, match=r"r\.bw: found the value -3, expected coverage, 0 or mor"):
        binned(tmp_path, bigwig(tmp_path / "r.bw", values))
    with pytest.raises(InputError, match="two tracks called a"):
        binned(tmp_path, bigwig(tmp_path / "a.bw", coverage()), tmp_path / "a.bw")
    one_fold = {"chr1": np.where(np.arange(5000) < 2500, np.nan, 1.0)}
    one_fold["chr1"][:100] = np.nan
    with pytest.raises(InputError, match="track f without data in fold 0"):
        binned(tmp_path, bigwig(tmp_path / "f.bw", one_fold))
    with pytest.raises(InputError, match=r"expected PLUS\.bw,MINUS\.bw"):
        binned(tmp_path, f"{tmp_path / 'a.bw'},{write(tmp_path / 'p.bed', 'chr1	0	9')}")


def test_nothing_is_left_of_a_bundle_whose_track_is_wrong(tmp_path, monkeypatch):
    files = inputs(tmp_path / "in")
    monkeypatch.setitem(sys.modules, "pybigtools", None)  # as if it were not installed
    told: list[str] = []
    with pytest.raises(
        InputError, match=r"p\.bw: found no bigWig \(by its first bytes\), expected"
    ):
        prepare_files(
            **files, expression_unit="tpm", out=tmp_path / "out", progress=told.append,
            tracks=[write(tmp_path / "p.bw", "chr1\t5\t9\n")],
        )  # fmt: skip
    monkeypatch.setitem(sys.modules, "mappy", None)
    with pytest.raises(WorkError, match=r"mappy, which is not installed: pip install 'mappy"):
        prepare_files(
            **files, expression_unit="tpm", out=tmp_path / "out", progress=told.append,
            relatives=tmp_path,
        )  # fmt: skip
    assert told == [], "it is said before anything is read"
    with pytest.raises(InputError, match="found 5 to 24001"):
        prepare_files(
            **files, expression_unit="tpm", out=tmp_path / "out", block_bp=2000,
            tracks=[write(tmp_path / "p.bed", "chr1\t5\t24001\n")],
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="--blacklist without --tracks"):
        prepare_files(**files, expression_unit="tpm", out=tmp_path / "out",
                      blacklist=tmp_path / "p.bed")  # fmt: skip

"""Motifs in MEME's minimal format, read, written and refused; hexamers where they were planted."""

import gzip
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_files import refusal, write, write_truncated

from genesplice.data.features import CONSENSUS, find_promoter
from genesplice.data.genome import encode
from genesplice.data.network import read_meme, write_meme

HEAD = "MEME version 4\n\nALPHABET= ACGT\n\nstrands: + -\n\n"
MATRIX = "letter-probability matrix: alength= 4 w= 2\n0.7 0.1 0.1 0.1\n 0\t0 1 0\n"


def motif(name: str = "m", matrix: str = MATRIX) -> str:
    return f"MOTIF {name}\n{matrix}"


def test_rows_are_positions_and_columns_are_acgt(tmp_path):
    text = HEAD + motif("LexA_1 alternative") + "URL http://x\n\n" + motif("b")
    motifs = read_meme(write(tmp_path / "m.meme", text))
    assert list(motifs) == ["LexA_1", "b"]
    np.testing.assert_allclose(motifs["LexA_1"], [[0.7, 0.1, 0.1, 0.1], [0, 0, 1, 0]])


def test_rows_add_up_to_one_beyond_the_digits_written(tmp_path):
    matrix = "letter-probability matrix:\n0.333 0.333 0.333 0.0\n0.25 0.25 0.25 0.26\n"
    got = read_meme(write(tmp_path / "m.meme", HEAD + motif(matrix=matrix)))["m"]
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-15)


def test_background_before_and_text_after_a_matrix_are_no_rows(tmp_path):
    background = "Background letter frequencies\nA 0.25 C 0.25 G 0.25 T 0.25\n\n"
    text = HEAD + background + motif() + "\n--------\n0.1 0.2 0.3 0.4\n" + motif("n")
    motifs = read_meme(write(tmp_path / "m.meme", text))
    assert [len(matrix) for matrix in motifs.values()] == [2, 2]


def test_compressed_motifs_read_the_same(tmp_path):
    path = write(tmp_path / "m.meme.gz", gzip.compress((HEAD + motif()).encode()))
    assert list(read_meme(path)) == ["m"]


matrices = arrays(np.float64, st.tuples(st.integers(1, 9), st.just(4)), elements=st.floats(0.01, 1))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.from_regex(r"[A-Z][A-Za-z0-9_.-]{0,9}", fullmatch=True), matrices))
def test_writing_and_reading_gives_the_motifs_back(tmp_path_factory, raw):
    motifs = {name: m / m.sum(axis=1, keepdims=True) for name, m in raw.items()}
    motifs["last"] = np.eye(4)
    path = tmp_path_factory.mktemp("meme") / "m.meme"
    write_meme(path, motifs)
    got = read_meme(path)
    assert list(got) == list(motifs)
    for name, matrix in motifs.items():
        np.testing.assert_allclose(got[name], matrix, atol=3e-6)


@pytest.mark.parametrize(
    ("text", "line", "found", "expected"),
    [
        ("", None, "an empty file", "data"),
        (motif(), None, "no 'MEME version' line", "MEME motif text"),
        (">m\n0.7 0.1 0.1 0.1\n", None, "no 'MEME version' line", "MEME motif text"),
        (HEAD, None, "no motif", "a letter-probability matrix"),
        (HEAD + "MOTIF m\n", None, "motif 'm' without a matrix", "a letter-probability matrix"),
        (HEAD + "MOTIF\n" + MATRIX, 7, "a motif without a name", "each motif once"),
        (HEAD + motif() + motif(), 11, "motif 'm' twice", "each motif once"),
        (HEAD + MATRIX, 7, "a matrix", "a MOTIF line before it"),
        (HEAD.replace("ACGT", "ACGU"), 3, "alphabet 'ACGU'", "ACGT"),
        (HEAD + motif() + "0.5 0.5 0\n", 11, "the row '0.5 0.5 0'", "four probabilities"),
        (HEAD + motif() + "0.5 0.5 0 0 0\n", 11, "the row '0.5 0.5 0 0 0'", "four probabilities"),
        (HEAD + motif() + "0.5 0.5 0.1 0\n", 11, "the row '0.5 0.5 0.1 0'", "add up to 1"),
        (HEAD + motif() + "7 1 1 1\n", 11, "the row '7 1 1 1'", "add up to 1"),
        (HEAD + motif() + "0.5 x 0.5 0\n", 11, "the row '0.5 x 0.5 0'", "four probabilities"),
        (HEAD + motif() + "-0.1 0.5 0.5 0.1\n", 11, "the row '-0.1 0.5", "four probabilities"),
        (HEAD + motif() + "nan 0.5 0.5 0\n", 11, "the row 'nan 0.5", "four probabilities"),
        (HEAD + motif() + "0,7 0,1 0,1 0,1\n", 11, "the row '0,7 0,1", "four probabilities"),
        (HEAD.encode() + b"MOTIF \xe9\n", 7, "bytes that are not UTF-8", "text"),
    ],
)
def test_bad_motifs_are_refused(tmp_path, text, line, found, expected):
    error = refusal(read_meme, write(tmp_path / "m.meme", text))
    assert (error.line, found in error.found, expected in error.expected) == (line, True, True)


def test_missing_and_truncated_motifs_are_refused(tmp_path):
    assert refusal(read_meme, tmp_path / "no.meme").found == "no such file"
    text = HEAD + "".join(motif(f"m{i * 7919 % 1009}") for i in range(500))
    error = refusal(read_meme, write_truncated(tmp_path / "m.meme.gz", text))
    assert error.found == "a truncated or damaged gzip stream"


@pytest.mark.parametrize(
    ("name", "published"), [("CRP_25-12", "TGTGA.{6}TCACA"), ("LexA_20-6", "CTGTATAT.{4}ACAG")]
)
def test_ecoli_motifs_are_the_published_sites(ecoli, name, published):
    spelled = "".join("ACGT"[i] for i in ecoli.motifs[name].argmax(axis=1))
    assert re.search(published, spelled)
    np.testing.assert_allclose(ecoli.motifs[name].sum(axis=1), 1)


# --- promoters ---


def plant(tokens, *sites):
    for at, letters in sites:
        tokens[at : at + len(letters)] = encode(letters)
    return tokens


def random_tokens(length, seed):
    return np.random.default_rng(seed).integers(0, 4, length).astype(np.uint8)


def starts(hits):
    return [(hit.name, hit.start, hit.end) for hit in hits]


@pytest.mark.parametrize("spacer", range(10, 26))
def test_planted_hexamers_are_found_at_the_spacers_of_promoters_only(spacer):
    tokens = plant(np.full(200, 1, np.uint8), (90, "TTGACA"), (96 + spacer, "TATAAT"))
    hits = find_promoter(tokens)
    if not 15 <= spacer <= 19:
        assert hits == []
        return
    assert starts(hits) == [("-35", 90, 96), ("-10", 96 + spacer, 102 + spacer)]
    assert {hit.strand for hit in hits} == {"+"}
    for hit in hits:
        assert hit.score == pytest.approx(np.log2(4 * np.array(CONSENSUS[hit.name][1])).sum())


@pytest.mark.parametrize(("distance", "is_found"), [(19, 0), (20, 1), (120, 1), (121, 0)])
def test_a_pair_beyond_the_distance_limit_is_no_promoter(distance, is_found):
    tokens = np.full(250, 1, np.uint8)
    plant(tokens, (250 - distance, "TATAAT"), (250 - distance - 23, "TTGACA"))
    assert bool(find_promoter(tokens)) == is_found


def test_of_two_pairs_the_better_one_and_of_equals_the_nearer_one():
    far, near = ((120, "TTGACA"), (143, "TATAAT")), ((180, "TTGACA"), (203, "TATAAT"))
    weak = ((120, "TTGACC"), (143, "TATAAT"))
    for planted in ((far, near), (weak, near)):
        tokens = plant(np.full(250, 1, np.uint8), *planted[0], *planted[1])
        assert find_promoter(tokens)[1].start == 203
    tokens = plant(np.full(250, 1, np.uint8), *far, (180, "TTGACC"), (203, "TATAAT"))
    assert find_promoter(tokens)[1].start == 143


def test_it_is_the_best_pair_in_loops(monkeypatch):
    tokens = random_tokens(80, 4)
    tokens[40] = 4
    best, where = -np.inf, ()
    for i in range(75):
        for spacer in range(15, 20):
            j, bits = i + 6 + spacer, 0.0
            if not 20 <= 80 - j <= 50:
                continue
            for name, start in (("-35", i), ("-10", j)):
                consensus, frequency = CONSENSUS[name]
                for letter, share, token in zip(
                    consensus, frequency, tokens[start : start + 6], strict=True
                ):
                    is_same = token < 4 and "ACGT"[token] == letter
                    share = share if is_same else (1 - share) / 3
                    bits += np.log2(share / 0.25) if token < 4 else -np.inf
            if bits > best:
                best, where = bits, (i, j)
    monkeypatch.setattr("genesplice.data.features.MIN_BITS", -100.0)
    monkeypatch.setattr("genesplice.data.features.DISTANCE_BP", (20, 50))
    hits = find_promoter(tokens)
    assert tuple(hit.start for hit in hits) == where
    assert sum(hit.score for hit in hits) == pytest.approx(best)
    monkeypatch.setattr("genesplice.data.features.MIN_BITS", best + 0.01)
    assert find_promoter(tokens) == []
    monkeypatch.setattr("genesplice.data.features.MIN_BITS", -100.0)
    monkeypatch.setattr("genesplice.data.features.DISTANCE_BP", (0, 50))
    for short in (0, 5, 20, 26):
        assert find_promoter(tokens[:short]) == []


def test_random_sequences_seldom_have_a_promoter():
    assert np.mean([bool(find_promoter(random_tokens(100, seed))) for seed in range(200)]) < 0.5

"""Motifs in MEME's minimal format: what is read, written, and refused."""

import gzip
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_files import refusal, write, write_truncated

from genesplice.data.motifs import read_meme, write_meme

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

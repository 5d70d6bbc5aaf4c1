"""Tokens, strands and circles; FASTA files read whole or in pieces, and those that are refused."""

import gzip
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_files import random_genome, refusal, write

from genesplice.data.genome import (
    Contig,
    Genome,
    cache_fasta,
    decode,
    encode,
    read_fasta,
    reverse_complement,
)
from genesplice.data.splits import make_even_blocks
from genesplice.errors import InputError

dna = st.text("ACGTN", max_size=60)
COMPLEMENT = {"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}


def hand_made(is_circular: bool = False) -> Genome:
    return Genome(
        encode("GGGGG" + "AACCGTN"),
        (Contig("before", 0, 5, False), Contig("c", 5, 7, is_circular)),
    )


def fetched(genome: Genome, *where) -> str:
    return decode(genome.fetch(*where))


# --- letters, tokens, strands ---


def test_tokens_are_the_places_in_the_alphabet():
    assert encode("ACGTN").tolist() == [0, 1, 2, 3, 4]
    assert encode(b"ACGTN").tolist() == [0, 1, 2, 3, 4]
    assert encode("").size == 0


def test_lower_case_counts_as_upper_and_ambiguity_as_n():
    assert decode(encode("acgtn")) == "ACGTN"
    assert decode(encode("RYSWKMBDHVryswkmbdhv")) == "N" * 20


@pytest.mark.parametrize(
    ("sequence", "at"), [("ACGU", 4), ("X", 1), ("AC-GT", 3), ("AC GT", 3), ("ACé", 3), (b"A>", 2)]
)
def test_other_letters_are_refused_with_their_position(sequence, at):
    with pytest.raises(InputError, match=rf"found '.' at position {at}, expected a DNA letter"):
        encode(sequence)


@settings(max_examples=60, deadline=None)
@given(dna)
def test_decoding_undoes_encoding(sequence):
    assert decode(encode(sequence)) == sequence


@settings(max_examples=60, deadline=None)
@given(dna)
def test_reverse_complement_is_complement_read_backwards(sequence):
    expected = "".join(COMPLEMENT[letter] for letter in reversed(sequence))
    assert decode(reverse_complement(encode(sequence))) == expected


@settings(max_examples=60, deadline=None)
@given(dna)
def test_reverse_complement_twice_is_nothing(sequence):
    tokens = encode(sequence)
    assert np.array_equal(reverse_complement(reverse_complement(tokens)), tokens)


# --- fetching ---


def test_fetch_is_half_open_within_its_own_contig():
    assert fetched(hand_made(), "c", 0, 7) == "AACCGTN"
    assert fetched(hand_made(), "c", 1, 4) == "ACC"
    assert fetched(hand_made(), "c", 3, 3) == ""
    assert fetched(hand_made(), "before", 0, 5) == "GGGGG"


def test_fetch_on_the_minus_strand_is_the_reverse_complement():
    assert fetched(hand_made(), "c", 0, 6, "-") == "ACGGTT"
    assert fetched(hand_made(), "c", -1, 2, "-") == "TTN"


def test_linear_contig_gives_n_beyond_its_ends():
    assert fetched(hand_made(), "c", -3, 2) == "NNNAA"
    assert fetched(hand_made(), "c", 5, 9) == "TNNN"
    assert fetched(hand_made(), "c", -2, 9) == "NNAACCGTNNN"
    assert fetched(hand_made(), "c", -5, -2) == "NNN"
    assert fetched(hand_made(), "c", 10, 12) == "NN"


def test_circular_contig_goes_on_at_its_other_end():
    assert fetched(hand_made(True), "c", -3, 2) == "GTNAA"
    assert fetched(hand_made(True), "c", 5, 9) == "TNAA"
    assert fetched(hand_made(True), "c", -7, 14) == "AACCGTN" * 3
    assert fetched(hand_made(True), "c", 14, 16) == "AA"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(-100, 100), st.integers(0, 120), st.integers(0, 39))
def test_fetch_over_the_origin_is_fetch_from_the_rotated_genome(n, start, width, turn):
    genome = random_genome(n, circular=True)
    rotated = Genome(np.roll(genome.tokens, -turn), genome.contigs)
    for strand in "+-":
        expected = rotated.fetch("c0", start - turn, start - turn + width, strand)
        assert np.array_equal(genome.fetch("c0", start, start + width, strand), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(-60, 60), st.integers(0, 90))
def test_linear_fetch_is_a_slice_of_the_padded_contig(start, width):
    padded = "N" * 100 + "AACCGTN" + "N" * 200
    assert fetched(hand_made(), "c", start, start + width) == padded[100 + start :][:width]


def test_fetched_tokens_can_be_written_to_without_touching_the_genome():
    genome = random_genome(50)
    genome.fetch("c0", 0, 50)[:] = 4
    assert genome.tokens.max() < 4


@pytest.mark.parametrize("is_circular", [False, True])
def test_alignment_columns_follow_the_bases_on_both_strands(is_circular):
    rng = np.random.default_rng(0)
    contigs = (Contig("a", 0, 30, False), Contig("b", 30, 50, is_circular))
    counts = rng.integers(0, 9, (2, 80, 5)).astype(np.uint8)
    genome = Genome(rng.integers(0, 4, 80).astype(np.uint8), contigs, columns=counts)
    for start, end in ((3, 20), (-7, 12), (40, 61)):
        forward = genome.fetch_columns("b", start, end)
        for i, position in enumerate(range(start, end)):
            here = is_circular or 0 <= position < 50
            wanted = counts[:, 30 + position % 50] if here else np.zeros((2, 5))
            assert np.array_equal(forward[i], wanted)
        backward = genome.fetch_columns("b", start, end, "-")
        for i in range(end - start):
            for code in range(4):
                assert np.array_equal(
                    backward[i, :, code], forward[end - start - 1 - i, :, 3 - code]
                )
            assert np.array_equal(backward[i, :, 4], forward[end - start - 1 - i, :, 4])
    assert random_genome(40).fetch_columns("c0", 0, 40).shape == (40, 0, 5)


def test_impossible_fetches_are_refused():
    with pytest.raises(InputError, match="interval 5-4, expected start <= end"):
        hand_made().fetch("c", 5, 4)
    with pytest.raises(InputError, match="contig 'C', expected before, c"):
        hand_made().fetch("C", 0, 1)
    with pytest.raises(
        InputError, match=r"contig 'x', expected c0, c1, c2, c3, c4, … \(7 in all\)"
    ):
        random_genome(*[3] * 7).contig("x")


def test_contigs_can_be_made_circular_by_name():
    genome = random_genome(10, 20).with_circular(["c1"])
    assert [contig.is_circular for contig in genome.contigs] == [False, True]
    assert [c.is_circular for c in genome.with_circular([]).contigs] == [False, True]
    with pytest.raises(InputError, match="--circular 'plasmid', expected c0, c1"):
        genome.with_circular(["plasmid"])


# --- FASTA ---


def test_contigs_follow_one_another_and_are_named_up_to_the_first_blank(tmp_path):
    path = write(tmp_path / "g.fa", ">chr1 some words\nACGT\nACG\n\n>chr2\tx\nTTN\n")
    genome = read_fasta(path)
    assert genome.contigs == (Contig("chr1", 0, 7, False), Contig("chr2", 7, 3, False))
    assert genome.length == 10
    assert fetched(genome, "chr1", 0, 7) == "ACGTACG"
    assert fetched(genome, "chr2", 0, 3) == "TTN"


def test_a_description_may_be_of_any_letters_and_begin_with_a_byte_order_mark(tmp_path):
    text = "\ufeff>c Synthetica testis, Île-de-Ré\nACGT\n".encode()
    for content in (text, text.replace("é".encode(), b"\xe9")):
        assert fetched(read_fasta(write(tmp_path / "g.fa", content)), "c", 0, 4) == "ACGT"


def test_lower_case_stretches_are_kept_as_intervals_within_contigs(tmp_path):
    genome = read_fasta(write(tmp_path / "g.fa", ">a\nacGT\nNnA\n>b\ngtC\n>c\nACa\n"))
    assert genome.soft_masked.tolist() == [[0, 2], [5, 6], [7, 9], [12, 13]]


def test_read_genome_cannot_be_written_to(tmp_path):
    genome = read_fasta(write(tmp_path / "g.fa", ">a\nACGT\n"))
    with pytest.raises(ValueError, match="read-only"):
        genome.tokens[0] = 1


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path_factory, content):
    path = write(tmp_path_factory.mktemp("bytes") / "g.fa", content)
    with suppress(InputError):
        assert read_fasta(path).length > 0
        return
    assert str(refusal(read_fasta, path)).startswith(str(path))


# --- the real genome ---


def test_ecoli_is_one_circle_of_4641652_bases(ecoli):
    assert ecoli.genome.contigs == (Contig("NC_000913.3", 0, 4_641_652, True),)
    assert ecoli.genome.length == 4_641_652
    assert set(np.unique(ecoli.genome.tokens).tolist()) == {0, 1, 2, 3}
    gc = np.isin(ecoli.genome.tokens, [1, 2]).mean()
    assert gc == pytest.approx(0.508, abs=0.001)


def test_ecoli_origin_joins_the_published_ends(ecoli):
    assert fetched(ecoli.genome, "NC_000913.3", 0, 20) == "AGCTTTTCATTCTGACTGCA"
    around = fetched(ecoli.genome, "NC_000913.3", 4_641_652 - 10, 4_641_652 + 10)
    assert around == fetched(ecoli.genome, "NC_000913.3", -10, 10)
    assert around.endswith("AGCTTTTCAT")


# --- soft-masked stretches ---


def test_soft_masked_bases_are_those_in_lower_case(tmp_path):
    letters = {"a": "ACGTacgtACGTnnACgt", "b": "acgtACGTAC"}
    path = tmp_path / "x.fa"
    path.write_text("".join(f">{name}\n{text}\n" for name, text in letters.items()))
    genome = read_fasta(path)
    circular = genome.with_circular(["b"])
    for name, text in letters.items():
        for start in range(-5, len(text) + 5):
            for end in range(start, len(text) + 25):
                places = range(start, end)
                expected = [0 <= i < len(text) and text[i].islower() for i in places]
                assert genome.fetch_soft_masked(name, start, end).tolist() == expected
                if name == "b":
                    expected = [text[i % len(text)].islower() for i in places]
                    assert circular.fetch_soft_masked(name, start, end).tolist() == expected


def test_without_lower_case_nothing_is_soft_masked(tmp_path):
    path = tmp_path / "x.fa"
    path.write_text(">a\nACGT\n")
    assert read_fasta(path).fetch_soft_masked("a", -2, 6).tolist() == [False] * 8


TEXT = ">one first\nACGTNNacgtacgt\r\nACGTRYac\n\n>two\nacgtac\nGTAC\n>three\ngg\n"


@pytest.mark.parametrize("chunk_bytes", [1, 7, 30, 1 << 20])
@pytest.mark.parametrize("suffix", [".fa", ".fa.gz"])
def test_pieces_make_the_whole(tmp_path, monkeypatch, chunk_bytes, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(gzip.compress(TEXT.encode()) if suffix.endswith("gz") else TEXT.encode())
    whole = read_fasta(path)
    monkeypatch.setattr("genesplice.data.genome.CHUNK_BYTES", chunk_bytes)
    genome, digests = cache_fasta([path], tmp_path / "cache")
    assert isinstance(genome.tokens, np.memmap)
    assert genome.tokens.tolist() == whole.tokens.tolist()
    assert genome.contigs == whole.contigs
    assert genome.soft_masked.tolist() == whole.soft_masked.tolist()
    assert list(digests) == [path.name]


def resident_kb(path) -> int:
    """How much of a mapped file is in this process's memory."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.endswith(str(path)))
    return next(int(line.split()[1]) for line in lines[at:] if line.startswith("Rss:"))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells")
def test_a_mapped_genome_takes_no_memory_for_what_was_read_before(tmp_path, monkeypatch):
    path = tmp_path / "x.fa"
    path.write_text(f">a\n{'ACGTN' * 100_000}\n>b\n{'ggTa' * 50_000}\n")
    whole, genome = read_fasta(path), read_fasta(path, tmp_path)
    assert genome.contigs == whole.contigs
    assert genome.tokens.sum() == whole.tokens.sum()
    assert resident_kb(tmp_path / "genome.u8") > 600
    genome.forget()
    assert resident_kb(tmp_path / "genome.u8") == 0
    assert genome.digest == whole.digest
    assert resident_kb(tmp_path / "genome.u8") == 0
    monkeypatch.setattr("genesplice.data.genome.CHUNK_BYTES", 70_000)
    for name, each in (("mapped", genome), ("whole", whole)):
        (tmp_path / name).mkdir()
        each.save(tmp_path / name)
    assert resident_kb(tmp_path / "genome.u8") == 0
    np.save(tmp_path / "genome.npy", whole.tokens)
    for name in ("mapped", "whole"):
        assert (tmp_path / name / "genome.npy").read_bytes() == (
            tmp_path / "genome.npy"
        ).read_bytes()
    assert np.load(tmp_path / "mapped" / "soft_masked.npy").tolist() == whole.soft_masked.tolist()


def test_several_genomes_follow_each_other_and_are_used_again(tmp_path):
    for name, text in (("a.fa", ">chr1\nACGT\n"), ("b.fa", ">chr1\nTTTTT\n>chr2\nG\n")):
        (tmp_path / name).write_text(text)
    paths = [tmp_path / "a.fa", tmp_path / "b.fa"]
    genome, _ = cache_fasta(paths, tmp_path / "cache", ["b:chr1"])
    assert [c.name for c in genome.contigs] == ["a:chr1", "b:chr1", "b:chr2"]
    assert [c.is_circular for c in genome.contigs] == [False, True, False]
    assert genome.fetch("b:chr1", -2, 3).tolist() == [3] * 5
    before = (tmp_path / "cache" / "genome.u8").stat().st_mtime_ns
    cache_fasta(paths, tmp_path / "cache")
    assert (tmp_path / "cache" / "genome.u8").stat().st_mtime_ns == before
    paths[1].write_text(">chr1\nCC\n")
    assert cache_fasta(paths, tmp_path / "cache")[0].tokens.tolist() == [0, 1, 2, 3, 1, 1]


def test_what_was_whole_stays_when_the_next_file_is_cut_off(tmp_path, monkeypatch):
    path, cache = tmp_path / "x.fa.gz", tmp_path / "cache"
    path.write_bytes(gzip.compress(TEXT.encode()))
    cache_fasta([path], cache)
    before = {file.name: file.read_bytes() for file in cache.iterdir()}
    path.write_bytes(gzip.compress(random_letters(5000))[:-20])
    monkeypatch.setattr("genesplice.data.genome.CHUNK_BYTES", 100)
    with pytest.raises(InputError, match="truncated or damaged gzip"):
        cache_fasta([path], cache)
    assert {file.name: file.read_bytes() for file in cache.iterdir()} == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cache", "x.fa.gz"]


def random_letters(length):
    letters = np.frombuffer(b"ACGT", np.uint8)
    return b">a\n" + letters[np.random.default_rng(0).integers(0, 4, length)].tobytes() + b"\n"


def test_even_blocks_tile_every_contig_and_weigh_the_same(tmp_path):
    (tmp_path / "x.fa").write_text(f">a\n{'A' * 1000}\n>b\n{'C' * 333}\n")
    genome = read_fasta(tmp_path / "x.fa")
    blocks = make_even_blocks(genome, 50)
    for name, length in (("a", 1000), ("b", 333)):
        here = blocks[blocks["contig"] == name]
        assert here["start"].tolist() == [0, *here["end"].tolist()[:-1]]
        assert here["end"].iloc[-1] == length
    bases = (blocks["end"] - blocks["start"]).groupby(blocks["fold"]).sum()
    assert len(bases) == 5
    assert bases.max() - bases.min() <= 60
    with pytest.raises(InputError, match="2 blocks of about 900 bp"):
        make_even_blocks(genome, 900)


@pytest.mark.parametrize("chunk_bytes", [8, 1 << 20])
def test_a_line_that_lost_letters_is_said(tmp_path, capsys, monkeypatch, chunk_bytes):
    monkeypatch.setattr("genesplice.data.genome.CHUNK_BYTES", chunk_bytes)

    def said(*records: str) -> str:
        for number, lines in enumerate(records):
            (tmp_path / f"{number}.fa").write_text(lines)
        paths = [tmp_path / f"{number}.fa" for number in range(len(records))]
        cache_fasta(paths, tmp_path / "cache")
        return capsys.readouterr().err

    # The last line of a record may be shorter, a record may be one line, blank lines are none.
    assert said(">a\nACGTA\nACGTA\nAC\n>b\nACGTACGTACGT\n>c\nACG\nACG\n\n", ">d\nAC\n") == ""
    cut = ">a\nACGTA\nACG\nACGTA\nACGTA\nAC\nACGTA\n"
    where = f"{tmp_path}/0.fa:3: 3 letters between lines of 5: if something is missing there, "
    assert said(cut) == where + "all behind it is shifted against the annotation\n"
    where = f"{tmp_path}/1.fa:6: 4 letters between lines of 3: "
    assert said(">a\nAC\n", ">a\nAC\nA\n>b\nACG\nACGT\nA\n").startswith(where)

"""A genome that is read in pieces is the genome that is read whole."""

import gzip

import numpy as np
import pytest

from genesplice.data.genome import cache_fasta, read_fasta
from genesplice.data.splits import make_even_blocks
from genesplice.errors import InputError

TEXT = ">one first\nACGTNNacgtacgt\r\nACGTRYac\n\n>two\nacgtac\nGTAC\n>three\ngg\n"


@pytest.mark.parametrize("chunk_bytes", [1, 7, 30, 1 << 20])
@pytest.mark.parametrize("suffix", [".fa", ".fa.gz"])
def test_pieces_make_the_whole(tmp_path, chunk_bytes, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(gzip.compress(TEXT.encode()) if suffix.endswith("gz") else TEXT.encode())
    whole = read_fasta(path)
    genome, digests = cache_fasta([path], tmp_path / "cache", chunk_bytes=chunk_bytes)
    assert isinstance(genome.tokens, np.memmap)
    assert genome.tokens.tolist() == whole.tokens.tolist()
    assert genome.contigs == whole.contigs
    assert genome.soft_masked.tolist() == whole.soft_masked.tolist()
    assert list(digests) == [path.name]


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ACGT\n", "no FASTA record"),
        (">a\nACXT\n", "the letter 'X'"),
        (">a\n>b\nAC\n", "contig 'a' without sequence"),
        (">a\nAC\n>a\nAC\n", "contig 'a' twice"),
        (">\nAC\n", "a contig without a name"),
        ("", "an empty file"),
    ],
)
def test_bad_files_are_refused_and_nothing_is_kept(tmp_path, text, message):
    (tmp_path / "x.fa").write_text(text)
    with pytest.raises(InputError, match=message):
        cache_fasta([tmp_path / "x.fa"], tmp_path / "run" / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["x.fa"]


def test_what_was_whole_stays_when_the_next_file_is_cut_off(tmp_path):
    path, cache = tmp_path / "x.fa.gz", tmp_path / "cache"
    path.write_bytes(gzip.compress(TEXT.encode()))
    cache_fasta([path], cache)
    before = {file.name: file.read_bytes() for file in cache.iterdir()}
    path.write_bytes(gzip.compress(random_letters(5000))[:-20])
    with pytest.raises(InputError, match="truncated or damaged gzip"):
        cache_fasta([path], cache, chunk_bytes=100)
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

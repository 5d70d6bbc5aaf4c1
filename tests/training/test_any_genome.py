"""Pre-training on nothing but FASTA files, through the command."""

import json
import subprocess
import sys

import numpy as np
import pytest
from command_line import call
from tiny_runs import SETTINGS, random_tokens

from genesplice.data.genome import Contig, Genome, decode
from genesplice.training.corpus import genome_source, without_gaps

pytestmark = pytest.mark.slow

WORDS = [
    "model.width=16", "model.heads=2", "model.base_width=0", "model.region_layers=1",
    "model.summary_layers=1", "pretrain.window_bp=2048", "pretrain.batch_windows=2",
    "pretrain.steps=2", "pretrain.contrastive_width=8", "pretrain.block_bp=8000",
]  # fmt: skip


def pretrain(*more):
    words = [word for setting in WORDS for word in ("--set", setting)]
    return subprocess.run(
        [sys.executable, "-m", "genesplice", "pretrain", *words, *map(str, more)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_two_genomes_are_enough(tmp_path):
    generator, files = np.random.default_rng(0), []
    for name, length in (("a.fa", 50_000), ("b.fa", 30_000)):
        letters = decode(generator.integers(0, 4, length).astype(np.uint8))
        (tmp_path / name).write_text(f">chr\n{letters}\n")
        files += ["--fasta", tmp_path / name]
    out = tmp_path / "out"
    answer = pretrain(*files, "--out", out, "--circular", "a:chr")
    assert answer.returncode == 0, answer.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    held_out = manifest["held_out"]
    assert held_out["fold"] == 0
    assert set(manifest["data_sha256"]) == {"a.fa", "b.fa"}
    assert {name for name, _, _ in held_out["intervals"]} <= {"a:chr", "b:chr"}
    bases = sum(end - start for _, start, end in held_out["intervals"])
    assert 0.1 * 80_000 < bases < 0.3 * 80_000
    # A finished run is read back, on the same files only.
    assert "other FASTA files" in pretrain(*files[:2], "--out", out, "--resume").stderr
    refused = pretrain(*files, "--out", out)
    assert refused.returncode == 2
    assert "exists and is not empty" in refused.stderr
    (tmp_path / "a.gff3").write_text("##gff-version 3\n")
    refused = pretrain(*files, "--annotation", tmp_path / "a.gff3", "--out", tmp_path / "none")
    assert "--annotation with 2 FASTA files" in refused.stderr
    assert refused.returncode == 2
    assert "no --data, --fasta" in pretrain("--out", tmp_path / "none").stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("bases", "message"),
    [
        ("ACGT" * 400, "found pretrain.window_bp=2048, with which 2304 bp are read at once, "
         "expected at most the longest training interval, 1600 bp: a smaller pretrain.window_bp"),
        ("N" * 9000, "found no base but N, expected A, C, G or T"),
    ],
)  # fmt: skip
def test_a_genome_without_room_for_a_window_is_refused_and_leaves_nothing(tmp_path, bases, message):
    fasta, out = tmp_path / "x.fa", tmp_path / "out"
    fasta.write_text(f">a\n{bases}\n")
    settings = [*SETTINGS, "pretrain.validation_blocks=0", "pretrain.holdout_fold=none"]
    words = [word for one in settings for word in ("--set", one)]
    answer = call("pretrain", "--fasta", fasta, "--out", out, *words)
    last = answer.err.splitlines()[-1].replace(f"{fasta}: ", "")
    assert (answer.code, last) == (2, f"genesplice: {message}")
    assert not out.exists()


def test_an_annotation_gives_views_of_genes(tmp_path):
    generator = np.random.default_rng(0)
    letters = decode(generator.integers(0, 4, 60_000).astype(np.uint8))
    (tmp_path / "a.fa").write_text(f">chr\n{letters}\n")
    lines = [
        f"chr\tx\tgene\t{start + 1}\t{start + 1500}\t.\t{'+-'[number % 3 // 2]}\t.\tID=g{number}"
        for number, start in enumerate(range(0, 58_000, 1600))
    ]
    gff = tmp_path / "a.gff3"
    gff.write_text("##gff-version 3\n" + "\n".join(lines) + "\n")
    files = "--fasta", tmp_path / "a.fa", "--annotation", gff, "--set", "pretrain.views=gene"
    out = tmp_path / "out"
    answer = pretrain(*files, "--out", out)
    assert answer.returncode == 0, answer.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["data_sha256"]) == {"a.fa", "a.gff3"}
    # Blocks are cut in the 100 bp between genes, never inside of one.
    edges = {edge for _, *ends in manifest["held_out"]["intervals"] for edge in ends}
    assert all(edge % 1600 >= 1500 for edge in edges - {0, 60_000})
    gff.write_text("\n".join(lines).replace("chr\t", "other\t"))
    refused = pretrain(*files, "--out", tmp_path / "none")
    assert refused.returncode == 2
    assert "a.gff3" in refused.stderr
    assert "other" in refused.stderr


@pytest.mark.parametrize("chunk_bp", [700, 5000, 1 << 20])
def test_gaps_are_not_read(chunk_bp):
    tokens = random_tokens(20_000).numpy()
    tokens[0:1200] = tokens[5000:5999] = tokens[8000:9000] = tokens[12_000:19_000] = 4
    genome = Genome(tokens, (Contig("a", 0, 9000, False), Contig("b", 9000, 11_000, False)))
    intervals = [("a", 0, 9000), ("b", 0, 5000), ("b", 9500, 11_000)]
    found = without_gaps(genome, intervals, chunk_bp=chunk_bp)
    assert found == [("a", 1200, 8000), ("b", 0, 3000), ("b", 9500, 11_000)]


def test_windows_are_drawn_between_gaps():
    tokens = random_tokens(20_000).numpy()
    tokens[6000:14_000] = 4
    genome = Genome(tokens, (Contig("a", 0, 20_000, True),))
    source = genome_source(genome, None)
    assert source.training == source.held_out == [("a", 0, 6000), ("a", 14_000, 20_000)]
    assert genome_source(genome, 0, block_bp=2000).training

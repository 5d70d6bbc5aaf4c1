"""Pre-training on nothing but FASTA files, through the command."""

import json
import subprocess
import sys

import numpy as np

from genesplice.data.genome import decode

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
    assert "no --data, --fasta" in pretrain("--out", tmp_path / "none").stderr

"""Killed at any moment and resumed, a run is the run that was not killed."""

import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

from genesplice.training.loops import AtomicCheckpointIO

pytestmark = pytest.mark.slow

# --- checkpoints ---


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_one(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    # Fails in the middle: the first part is on the disk by then.
    with pytest.raises((pickle.PicklingError, AttributeError)):
        AtomicCheckpointIO().save_checkpoint({"weights": torch.ones(9), "bad": lambda: 0}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 2}
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


WRITER = """
import sys, torch
from genesplice.training.loops import AtomicCheckpointIO
path, step = sys.argv[1], 0
while True:
    x = torch.full((400_000,), step)
    AtomicCheckpointIO().save_checkpoint({"step": step, "x": x}, path)
    step += 1
"""


def test_a_kill_while_it_is_written_leaves_a_whole_one(tmp_path):
    path, generator = tmp_path / "last.ckpt", np.random.default_rng(0)
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) as writer:
        while not path.exists() and writer.poll() is None:
            time.sleep(0.01)
        for _ in range(6):
            # Stopped anywhere in a write, what is there can be read.
            time.sleep(float(generator.uniform(0.002, 0.05)))
            writer.send_signal(signal.SIGSTOP)
            state = torch.load(path, weights_only=True)
            assert (state["x"] == state["step"]).all()
            writer.send_signal(signal.SIGCONT)
        writer.kill()
    state = torch.load(path, weights_only=True)
    assert (state["x"] == state["step"]).all()


# --- the command ---

WORDS = [
    "model.width=16", "model.heads=2", "model.base_width=4", "model.region_layers=1",
    "model.summary_layers=1", "model.dropout=0.1", "pretrain.window_bp=2048",
    "pretrain.batch_windows=2", "pretrain.contrastive_width=8", "pretrain.steps=24",
    "pretrain.accumulate=2", "pretrain.views=strand,gene", "pretrain.view_genes=4",
    "pretrain.queue=50", "pretrain.validation_blocks=0.2", "pretrain.validation_every=6",
    "pretrain.checkpoint_minutes=0.00001", "pretrain.measure=false",
]  # fmt: skip


def command(data, out, *more):
    words = [word for setting in WORDS for word in ("--set", setting)]
    return [sys.executable, "-m", "genesplice", "pretrain", "--data", str(data), "--out", str(out),
            *words, *more]  # fmt: skip


def test_killed_at_random_steps_and_resumed_is_the_same_run(tiny_bundle, tmp_path):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    whole, out = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(command(tiny_bundle.path, whole), check=True, **quiet)
    last, weights = out / "checkpoints" / "last.ckpt", out / "model.safetensors"
    generator, kills = np.random.default_rng(int.from_bytes(os.urandom(4), "little")), []
    more: list[str] = []
    for _ in range(2):
        with subprocess.Popen(command(tiny_bundle.path, out, *more), **quiet) as process:
            stamp, left = (
                last.stat().st_mtime_ns if last.exists() else 0,
                generator.integers(1, 9),
            )
            while left and process.poll() is None and not weights.exists():
                if last.exists() and last.stat().st_mtime_ns != stamp:
                    stamp, left = last.stat().st_mtime_ns, left - 1
                time.sleep(0.001)
            time.sleep(float(generator.uniform(0, 0.1)))
            process.kill()
        more = ["--resume"]
        if last.exists():
            kills.append(torch.load(last, weights_only=True)["global_step"])
    assert kills, "killed before its first checkpoint"
    assert 0 < kills[0] < 24
    subprocess.run(command(tiny_bundle.path, out, "--resume"), check=True, **quiet)
    assert weights.read_bytes() == (whole / "model.safetensors").read_bytes()
    for name in ("metrics.json", "run.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    histories = [pd.read_parquet(folder / "history.parquet") for folder in (whole, out)]
    assert histories[0].equals(histories[1])
    assert not (out / "checkpoints").exists()

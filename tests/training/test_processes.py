"""Two processes under torchrun draw the curve that one process draws."""

import json
import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file
from torch.distributed import TCPStore

from genesplice.errors import InputError, WorkError
from genesplice.training.corpus import read_genomes

pytestmark = pytest.mark.slow

RATE = 2e-4
WORDS = [
    "model.width=16", "model.heads=2", "model.base_width=4", "model.region_layers=1",
    "model.summary_layers=1", "model.dropout=0", "pretrain.window_bp=2048",
    "pretrain.batch_windows=4", "pretrain.contrastive_width=8", "pretrain.steps=8",
    "pretrain.accumulate=2", "pretrain.views=strand,gene", "pretrain.view_genes=4",
    "pretrain.contrastive_weight=1", "pretrain.queue=40", "pretrain.checkpoint_minutes=0.0001",
    "pretrain.measure=false", f"pretrain.learning_rate={RATE}", "pretrain.masked_fraction=0.17",
]  # fmt: skip


def pretrain(data, out, *launcher, preset="quick", **environment):
    words = ["--preset", preset, *(word for setting in WORDS for word in ("--set", setting))]
    subprocess.run(
        [sys.executable, "-m", *launcher, "genesplice", "pretrain", "--data", str(data), "--out",
         str(out), *words], check=True, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    return pd.read_parquet(out / "history.parquet").pivot(
        index="step", columns="metric", values="value"
    )


def test_two_processes_draw_the_curve_of_one(tiny_bundle, tmp_path):
    launcher = "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"
    alone = pretrain(tiny_bundle.path, tmp_path / "one")
    shared = pretrain(tiny_bundle.path, tmp_path / "two", *launcher)
    assert list(shared.columns) == list(alone.columns)
    assert len(shared) == len(alone) == 8
    losses = ["bits_per_base", "info_nce", "info_nce_gene", "info_nce_strand"]
    # Sums in another order: equal at first, and then as far apart as rounding grows (AdamW makes
    # a step of any gradient, so that it grows with the rate).
    np.testing.assert_allclose(shared[losses][:3], alone[losses][:3], rtol=2e-6)
    np.testing.assert_allclose(shared[losses], alone[losses], rtol=1e-4)
    # The curve moves by far more than that.
    assert (alone["bits_per_base"].diff().abs().dropna() > 2e-3).all()
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    for name, value in weights[0].items():
        # A gradient of nearly 0 may have either sign: up to two steps of the rate.
        np.testing.assert_allclose(weights[1][name], value, atol=2 * RATE, err_msg=name)
    # One process writes: one record of each score, and one manifest.
    scores = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert [score["metric"] for score in scores] == ["bits_per_base", "masked_top_1"]
    held_out = json.loads((tmp_path / "two" / "manifest.json").read_text())["held_out"]
    blocks = tiny_bundle.blocks.query("fold == 0")["block"].tolist()
    assert (held_out["fold"], held_out["blocks"]) == (0, blocks)


OTHER = {
    "two threads": {"OMP_NUM_THREADS": "2"},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "no vectors": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}


@pytest.mark.parametrize("preset", ["quick", "full"])
def test_one_seed_is_one_result(tiny_bundle, tmp_path, preset):
    for name in ("one", "two"):
        pretrain(tiny_bundle.path, tmp_path / name, preset=preset)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]


def test_threads_and_processors_draw_nearly_the_same_curve(tiny_bundle, tmp_path):
    alone, losses = pretrain(tiny_bundle.path, tmp_path / "one"), ["bits_per_base", "info_nce"]
    before = load_file(tmp_path / "one" / "model.safetensors")
    for name, environment in OTHER.items():
        other = pretrain(tiny_bundle.path, tmp_path / name, **environment)
        # As for two processes: sums in another order.
        np.testing.assert_allclose(other[losses][:3], alone[losses][:3], rtol=2e-6, err_msg=name)
        np.testing.assert_allclose(other[losses], alone[losses], rtol=1e-4, err_msg=name)
        after = load_file(tmp_path / name / "model.safetensors")
        for part, value in before.items():
            np.testing.assert_allclose(after[part], value, atol=2 * RATE, err_msg=f"{name} {part}")


def read_bad_file(queue, folder, meeting, rank):
    os.environ.update(meeting, RANK=rank)
    try:
        read_genomes([folder / "bad.fa"], (), folder / "out", resume=False)
    except (InputError, WorkError) as error:
        queue.put((rank, str(error)))


def test_where_the_first_process_ends_the_others_end(tmp_path):
    """As on two nodes, where nobody but the processes themselves sees that one has ended."""
    (tmp_path / "bad.fa").write_text("this is no FASTA\n")
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    meeting = {
        "TORCHELASTIC_RUN_ID": "1", "TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port),
        "TORCHELASTIC_RESTART_COUNT": "0",
    }  # fmt: skip
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    runs = [
        context.Process(target=read_bad_file, args=(queue, tmp_path, meeting, rank), daemon=True)
        for rank in ("1", "0")
    ]
    for run in runs:
        run.start()
    messages = dict(queue.get(timeout=60) for _ in runs)
    assert "bad.fa" in messages["0"]
    assert messages["1"] == "the first process ended"

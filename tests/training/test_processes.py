"""Two processes under torchrun draw the curve that one process draws."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
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
    "pretrain.ablations=",
]  # fmt: skip
LAUNCHER = "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"


def start(data, out, *launcher, preset="quick", more=(), **environment):
    words = ["--preset", preset, *(word for setting in WORDS for word in ("--set", setting)), *more]
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, "genesplice", "pretrain", "--data", str(data), "--out",
         str(out), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def pretrain(data, out, *launcher, **how):
    process = start(data, out, *launcher, **how)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return pd.read_parquet(out / "history.parquet").pivot(
        index="step", columns="metric", values="value"
    )


@pytest.fixture(scope="module")
def two(tiny_bundle, tmp_path_factory):
    """The folder of an unbroken run of two processes."""
    out = tmp_path_factory.mktemp("unbroken") / "two"
    return out, pretrain(tiny_bundle.path, out, *LAUNCHER)


def test_two_processes_draw_the_curve_of_one(tiny_bundle, two, tmp_path):
    alone = pretrain(tiny_bundle.path, tmp_path / "one")
    folder, shared = two
    assert list(shared.columns) == list(alone.columns)
    assert len(shared) == len(alone) == 8
    losses = ["bits_per_base", "info_nce", "info_nce_gene", "info_nce_strand"]
    # Sums in another order: equal at first, and then as far apart as rounding grows (AdamW makes
    # a step of any gradient, so that it grows with the rate).
    np.testing.assert_allclose(shared[losses][:3], alone[losses][:3], rtol=2e-6)
    np.testing.assert_allclose(shared[losses], alone[losses], rtol=1e-4)
    # The curve moves by far more than that.
    assert (alone["bits_per_base"].diff().abs().dropna() > 2e-3).all()
    weights = [load_file(one / "model.safetensors") for one in (tmp_path / "one", folder)]
    for name, value in weights[0].items():
        # A gradient of nearly 0 may have either sign: up to two steps of the rate.
        np.testing.assert_allclose(weights[1][name], value, atol=2 * RATE, err_msg=name)
    # One process writes: one record of each score, and one manifest.
    scores = json.loads((folder / "metrics.json").read_text())
    assert [score["metric"] for score in scores] == ["bits_per_base", "masked_top_1"]
    held_out = json.loads((folder / "manifest.json").read_text())["held_out"]
    blocks = tiny_bundle.blocks.query("fold == 0")["block"].tolist()
    assert (held_out["fold"], held_out["blocks"]) == (0, blocks)


def kill_after_a_checkpoint(out, find):
    """SIGKILL the process that `find` gives, once there is something to go on from."""
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "last.ckpt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    find().send_signal(signal.SIGKILL)


def told(said):
    lines = [line for line in said.splitlines() if line.startswith("genesplice: ")]
    return [line for line in lines if "no news" not in line]


def test_a_killed_process_ends_the_run_which_then_goes_on_to_the_same_result(
    tiny_bundle, two, tmp_path
):
    out = tmp_path / "two"
    run = start(tiny_bundle.path, out, *LAUNCHER)

    def find():
        children = psutil.Process(run.pid).children()
        return next(one for one in children if one.environ().get("RANK") == "1")

    kill_after_a_checkpoint(out, find)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 1
    # torchrun ends the other one, unless that has found out first.
    assert told(said)[-1] in (
        "genesplice: ended from outside",
        "genesplice: process 0 of 2: another one ended; go on with --resume",
    )
    assert not (out / "model.safetensors").exists()
    curve = pretrain(tiny_bundle.path, out, *LAUNCHER, more=["--resume"])
    pd.testing.assert_frame_equal(curve, two[1])
    weights = [(one / "model.safetensors").read_bytes() for one in (out, two[0])]
    assert weights[0] == weights[1]


def test_on_another_node_a_killed_process_is_told_in_one_line(tiny_bundle, tmp_path):
    """Nobody but the processes themselves sees there that one has ended."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    meeting = {
        "TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "localhost", "MASTER_PORT": port,
    }  # fmt: skip
    runs = [
        start(tiny_bundle.path, tmp_path / "out", **meeting, RANK=rank, GROUP_RANK=rank)
        for rank in "01"
    ]
    kill_after_a_checkpoint(tmp_path / "out", lambda: runs[0])
    ends = [run.communicate(timeout=60) for run in runs]
    assert runs[1].returncode == 1
    assert "Traceback" not in ends[1][1]
    assert told(ends[1][1]) == [
        "genesplice: process 1 of 2: another one ended; go on with --resume"
    ]


OTHER = {
    "two threads": {"OMP_NUM_THREADS": "2"},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "no vectors": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}


@pytest.mark.parametrize("preset", ["quick", "standard", "full"])
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

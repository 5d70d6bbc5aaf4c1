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
import torch
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
    rows = pd.read_parquet(out / "history.parquet")
    rows["metric"] = rows["metric"].mask(rows["split"] == "val", "val_" + rows["metric"])
    return rows.pivot(index="step", columns="metric", values="value")


@pytest.fixture(scope="module")
def alone(tiny_bundle, tmp_path_factory):
    """The folder and the curve of an unbroken run of one process."""
    out = tmp_path_factory.mktemp("unbroken") / "one"
    return out, pretrain(tiny_bundle.path, out)


def shared(how):
    return ["--set", f"pretrain.distributed={how}"]


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def two(request, tiny_bundle, tmp_path_factory):
    """Folder, curve and more words of an unbroken run of two processes."""
    out, more = tmp_path_factory.mktemp("unbroken") / "two", shared(request.param)
    return out, pretrain(tiny_bundle.path, out, *LAUNCHER, more=more), more


def assert_near(folder, curve, wanted_folder, wanted):
    """The same but for sums in another order.

    Equal at first, and then as far apart as rounding grows (AdamW makes a step of any gradient, so
    that it grows with the rate).
    """
    assert list(curve.columns) == list(wanted.columns)
    losses = [name for name in wanted if not name.startswith(("learning_rate", "retrieval"))]
    np.testing.assert_allclose(curve[losses][:3], wanted[losses][:3], rtol=2e-6)
    np.testing.assert_allclose(curve[losses], wanted[losses], rtol=1e-4)
    weights = [load_file(one / "model.safetensors") for one in (wanted_folder, folder)]
    assert list(weights[1]) == list(weights[0])
    for name, value in weights[0].items():
        # A gradient of nearly 0 may have either sign: up to two steps of the rate. Muon has none.
        is_muon = "base_path" in name and name.endswith(("conv.weight", "contract.weight"))
        atol = 1e-6 if is_muon else 2 * RATE
        np.testing.assert_allclose(weights[1][name], value, atol=atol, err_msg=name)


def test_two_processes_draw_the_curve_of_one(tiny_bundle, alone, two):
    folder, curve, _ = two
    assert_near(folder, curve, *alone)
    assert {"info_nce", "info_nce_gene", "info_nce_strand"} < set(curve)
    assert len(curve) == len(alone[1]) == 8
    # The curve moves by far more than the tolerance.
    assert (alone[1]["bits_per_base"].diff().abs().dropna() > 2e-3).all()
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


def second(run):
    """The process that is not the first."""
    children = psutil.Process(run.pid).children()
    return next(one for one in children if one.environ().get("RANK") == "1")


def told(said):
    lines = [line for line in said.splitlines() if line.startswith("genesplice: ")]
    return [line for line in lines if "no news" not in line]


def test_a_killed_process_ends_the_run_which_then_goes_on_to_the_same_result(
    tiny_bundle, two, tmp_path
):
    out, (unbroken, wanted, more) = tmp_path / "two", two
    run = start(tiny_bundle.path, out, *LAUNCHER, more=more)
    kill_after_a_checkpoint(out, lambda: second(run))
    _, said = run.communicate(timeout=60)
    assert run.returncode == 1
    # torchrun ends the other one, unless that has found out first.
    assert told(said)[-1] in (
        "genesplice: ended from outside",
        "genesplice: process 0 of 2: another one ended; go on with --resume",
    )
    assert not (out / "model.safetensors").exists()
    curve = pretrain(tiny_bundle.path, out, *LAUNCHER, more=[*more, "--resume"])
    pd.testing.assert_frame_equal(curve, wanted)
    weights = [(one / "model.safetensors").read_bytes() for one in (out, unbroken)]
    assert weights[0] == weights[1]


def form(value):
    """Names, shapes and types of what is in a checkpoint."""
    if isinstance(value, dict):
        return {name: form(one) for name, one in value.items()}
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape
    return [form(one) for one in value] if isinstance(value, list) else type(value)


def test_one_process_goes_on_where_two_kept_parts_of_the_weights_and_they_where_one_did(
    tiny_bundle, tmp_path
):
    """The best weights so far are in parts, too."""
    words = "pretrain.validation_blocks=0.3", "pretrain.validation_every=1"
    validated = [word for setting in words for word in ("--set", setting)]
    unbroken, data = tmp_path / "unbroken", tiny_bundle.path
    wanted = pretrain(data, unbroken, more=validated)
    ways = {
        "one": ((), [], lambda run: run),
        "two": (LAUNCHER, shared("fsdp"), second),
    }
    forms = {}
    for begins, ends in (("one", "two"), ("two", "one")):
        out, (launcher, more, find) = tmp_path / begins, ways[begins]
        run = start(data, out, *launcher, more=[*validated, *more])
        kill_after_a_checkpoint(out, lambda run=run, find=find: find(run))
        run.communicate(timeout=60)
        kept = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
        best = next(one["weights"] for one in kept["callbacks"].values() if "best" in one)
        parts = "state_dict", "optimizer_states", "lr_schedulers", "loops"
        forms[begins] = [*kept, form(best), *(form(kept[part]) for part in parts)]
        launcher, more, _ = ways[ends]
        curve = pretrain(data, out, *launcher, more=[*validated, *more, "--resume"])
        assert_near(out, curve, unbroken, wanted)
    assert forms["one"] == forms["two"]


KEPT = """
import json, sys
from pathlib import Path

from lightning import Callback
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from genesplice.config import load_preset, override
from genesplice.data.bundle import load_bundle
from genesplice.model.sequence import Block, ConvBlock
from genesplice.training import loops
from genesplice.training.batches import StepMaker
from genesplice.training.corpus import bundle_source
from genesplice.training.pretraining import PretrainingModule, begin_model
from genesplice.training.schedules import ShardedStrategy

class Kept(Callback):
    def on_train_end(self, trainer, module):
        tensors = {"weights": [*module.model.parameters()], "mean": [*module.average.parameters()]}
        states = trainer.optimizers[0].state.values()
        tensors["state"] = [x for state in states for x in state.values() if x.ndim]
        whole, kept = ({name: sum(map(size, some)) for name, some in tensors.items()}
                       for size in (DTensor.numel, lambda x: x.to_local().numel()))
        modules = [*module.model.modules()]
        layers, divided = (sum(isinstance(one, kinds) for one in modules)
                           for kinds in ((Block, ConvBlock), FSDPModule))
        out.write_text(json.dumps([whole, kept, layers, divided]))

data, folder, *words = sys.argv[1:]
config, number = override(load_preset("quick"), words), loops.process_number()
out = Path(folder, f"{number}.json")
source = bundle_source(load_bundle(Path(data)), 0, 0.0)
maker = StepMaker(source, config, process=number, processes=2)
module = PretrainingModule(begin_model(config), config)
loops.train(module, 1, maker, [Kept()], accumulate=2, strategy=ShardedStrategy())
"""


def test_of_weights_their_mean_and_the_state_of_the_optimiser_each_process_keeps_half(
    tiny_bundle, tmp_path
):
    (tmp_path / "kept.py").write_text(KEPT)
    command = [sys.executable, "-m", *LAUNCHER[:-1], str(tmp_path / "kept.py")]
    command += [str(tiny_bundle.path), str(tmp_path), *WORDS]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    first, second = (json.loads((tmp_path / f"{i}.json").read_text()) for i in (0, 1))
    whole, one, layers, divided = first
    assert (second[0], second[2], second[3]) == (whole, layers, divided)
    # Those of a layer come together for themselves, and all others at once.
    assert divided == layers + 1 > 5
    other = second[1]
    assert whole["weights"] == whole["mean"] > 10_000
    for part, size in whole.items():
        assert one[part] + other[part] == size
        assert max(one[part], other[part]) < 0.52 * size


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_on_another_node_a_killed_process_is_told_in_one_line(tiny_bundle, tmp_path, how):
    """Nobody but the processes themselves sees there that one has ended."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    meeting = {
        "TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "localhost", "MASTER_PORT": port,
    }  # fmt: skip
    out, more = tmp_path / "out", shared(how)
    runs = [
        start(tiny_bundle.path, out, more=more, **meeting, RANK=rank, GROUP_RANK=rank)
        for rank in "01"
    ]
    kill_after_a_checkpoint(out, lambda: runs[0])
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


def test_threads_and_processors_draw_nearly_the_same_curve(tiny_bundle, alone, tmp_path):
    for name, environment in OTHER.items():
        curve = pretrain(tiny_bundle.path, tmp_path / name, **environment)
        assert_near(tmp_path / name, curve, *alone)


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

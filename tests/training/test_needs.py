"""What a stage will need is estimated before it, refused where it is too much, and measured."""

import json
import subprocess
import sys

import psutil
import pytest
import torch
from command_line import call, refuse, succeed
from test_cli import everything
from tiny_runs import config, make_source

from genesplice.config import load_preset, override
from genesplice.model.genesplice import PretrainingModel
from genesplice.training.batches import StepMaker
from genesplice.training.corpus import BACKWARD, finetune_need, memory_limit, pretrain_need

# The largest resident size of this very program: that of a child may be its parent's.
PROGRAM = """
import atexit, re
from pathlib import Path
from genesplice.cli import main
status = Path("/proc/self/status")
atexit.register(lambda: print(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]))
main()
"""
MIDDLE = (
    "pretrain.view_windows=24", "pretrain.steps=2", "pretrain.measure=false",
    "finetune.folds=0", "finetune.head_steps=2", "finetune.epochs=1", "finetune.fewest_genes=1",
)  # fmt: skip
BATCH = "a batch (pretrain.batch_windows, pretrain.view_windows, pretrain.window_bp)"


@pytest.mark.parametrize("views", ["strand,gene", "strand,neighbour,gene"])
def test_the_largest_batch_is_that_of_a_contrastive_step(tiny_bundle, views):
    from genesplice.training.corpus import bundle_source

    settings = config(f"pretrain.views={views}", "pretrain.view_genes=4", "pretrain.views_every=3")
    rows = StepMaker(bundle_source(tiny_bundle, 0, 0.0), settings)(0).rows
    assert sum(one.tokens.numel() for one in rows) == settings.pretrain.largest_batch_bp
    plain = config("pretrain.contrastive_weight=0")
    (rows,) = StepMaker(make_source(), plain)(0).rows
    assert rows.tokens.numel() == plain.pretrain.largest_batch_bp


@pytest.mark.parametrize(
    "changes",
    [(), ("model.base_width=0",), ("model.width=128", "model.bin_layers=3"), ("model.bin_bp=8",)],
)
def test_what_the_backward_pass_keeps_is_counted(changes):
    settings = override(load_preset("quick"), [*changes, "pretrain.contrastive_weight=0"])
    model, kept = PretrainingModel(settings.model, 8), dict[int, int]()
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    length = settings.pretrain.largest_batch_bp
    tokens = torch.zeros(1, length, dtype=torch.uint8)

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model.encode(tokens, torch.zeros(1, length, 3, 5, dtype=torch.uint8))
    estimate = pretrain_need(settings, make_source().genome).parts[BATCH] / BACKWARD
    assert out.bins.requires_grad
    assert estimate == pytest.approx(sum(kept.values()), rel=0.15)


def test_windows_that_are_read_at_once_are_those_of_all_threads_and_of_a_batch(tiny_bundle):
    name = "windows (finetune.core_bp, finetune.batch_windows)"

    def need(n_windows, *more):
        sizes = (
            f"finetune.batch_windows={n_windows}",
            "finetune.core_bp=1024",
            "finetune.flank_bp=0",
        )
        settings = config("model.graph_layers=0", *sizes, *more)
        return finetune_need(settings, tiny_bundle).parts[name]

    threads, trains = torch.get_num_threads(), "finetune.epochs=1"
    assert need(6, trains) / need(1, trains) == pytest.approx((threads + 6) / (threads + 1))
    assert need(6) == need(1) < need(1, trains)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_the_estimate_is_near_the_measured_peak(tiny_bundle, tmp_path, stage):
    words = [word for setting in MIDDLE for word in ("--set", setting)]
    command = [sys.executable, "-c", PROGRAM, stage, "--data", str(tiny_bundle.path)]
    ended = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), *words], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    measured = 1024 * int(ended.stdout.split()[-1])
    settings = override(load_preset("quick"), MIDDLE)
    need = {
        "pretrain": lambda: pretrain_need(settings, tiny_bundle.genome),
        "finetune": lambda: finetune_need(settings, tiny_bundle),
    }[stage]()
    assert need.total == pytest.approx(measured, rel=0.4)
    # A batch of the one is most of it, and not of the other: no constant would do.
    assert (need.parts.get(BATCH, 0) > measured / 2) == (stage == "pretrain")


HUGE = ("--set", "model.width=131072", "--set", "finetune.fewest_genes=1")


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_what_does_not_fit_is_refused_before_it_is_begun(tiny_bundle, tmp_path, verb):
    words = ["--data", tiny_bundle.path, "--out", tmp_path / "out", *HUGE]
    line = refuse(verb, *words)
    assert f"found {verb} that needs about " in line
    assert "for weights (model.width)" in line
    assert f"at most {memory_limit() / 1e9:.2g}" in line
    assert everything(tmp_path) == []


def test_doctor_says_what_fits(tiny_bundle):
    words = ["doctor", "--fits", tiny_bundle.path, "--preset", "quick", "--json"]
    checks = {check["name"]: check for check in json.loads(succeed(*words).out)}
    for stage in ("pretrain", "finetune"):
        assert checks[stage]["is_fine"]
        assert checks[stage]["found"].endswith(f" GB, seconds of one core (of "
                                               f"{memory_limit() / 1e9:.2g} GB)")  # fmt: skip
    answer = call(*words[:-1], *HUGE)
    assert answer.code == 1
    assert "note pretrain: about " in answer.out
    assert ", days of one core" in answer.out


def test_the_limit_is_that_of_the_control_groups_above(tmp_path):
    inner = tmp_path / "jobs" / "mine"
    inner.mkdir(parents=True)
    own = tmp_path / "own"
    assert memory_limit(tmp_path, own) == psutil.virtual_memory().total
    own.write_text("1:name=x:/other\n0::/jobs/mine\n")
    (inner / "memory.max").write_text("max\n")
    assert memory_limit(tmp_path, own) == psutil.virtual_memory().total
    (tmp_path / "jobs" / "memory.max").write_text("1000000\n")
    assert memory_limit(tmp_path, own) == 1_000_000
    (inner / "memory.max").write_text("5000\n")
    assert memory_limit(tmp_path, own) == 5000

"""Held out means held out; an interrupted run is the same run."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import genesplice as gs
from genesplice.baselines.ridge import KernelSettings
from genesplice.data.bundle import load_bundle
from genesplice.data.expression import fill_missing
from genesplice.data.simulate import make_bundle
from genesplice.errors import InputError
from genesplice.evaluate.metrics import PREDICTION_COLUMNS
from genesplice.evaluate.reliability import add_intervals
from genesplice.predict.expression import predict_expression
from genesplice.predict.models import load_model
from genesplice.training.finetuning import ENSEMBLE, finetune, finetune_fold, make_model
from genesplice.training.folds import FoldData

pytestmark = pytest.mark.slow

SETTINGS = [
    "model.relatives=false",
    "model.width=16", "model.heads=2", "model.base_width=0", "model.region_layers=1",
    "model.summary_layers=1", "finetune.core_bp=16384", "finetune.flank_bp=1024",
    "finetune.head_steps=4", "finetune.epochs=2", "finetune.folds=0",
    "finetune.checkpoint_minutes=0.0001", "finetune.fewest_genes=1",
]  # fmt: skip


def config(*more):
    return gs.override(gs.load_preset("quick"), [*SETTINGS, *more])


def with_other_labels(bundle, genes):
    """The same bundle with the expression of some genes replaced by noise."""
    expression = bundle.expression.copy()
    column = expression.var_names.get_indexer(genes)
    noise = np.random.default_rng(5).normal(20, 9, (expression.n_obs, len(column)))
    values = np.array(expression.X)
    values[:, column] = noise
    expression.X = values
    return dataclasses.replace(bundle, expression=expression)


@pytest.mark.parametrize("more", [(), ("finetune.sequence_epochs=2", "finetune.epochs=0")])
def test_held_out_labels_change_nothing(tiny_bundle, tmp_path, more):
    settings = config("finetune.validation_blocks=0.4", *more)
    honest = finetune_fold(tiny_bundle, settings, fold=0, seed=0, out=tmp_path / "a")
    other = with_other_labels(tiny_bundle, tiny_bundle.test_genes(0))
    assert not other.observed.equals(tiny_bundle.observed)
    again = finetune_fold(other, settings, fold=0, seed=0, out=tmp_path / "b")
    for name, value in honest.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    reported = ["predicted", "low", "high"]
    assert honest.predictions[reported].equals(again.predictions[reported])
    assert honest.predictions[reported].notna().all(axis=None)
    assert not honest.predictions["observed"].equals(again.predictions["observed"])


def test_training_labels_change_something(tiny_bundle, tmp_path):
    honest = finetune_fold(tiny_bundle, config(), fold=0, seed=0, out=tmp_path / "a")
    other = with_other_labels(tiny_bundle, tiny_bundle.train_genes(0))
    again = finetune_fold(other, config(), fold=0, seed=0, out=tmp_path / "b")
    assert not np.allclose(honest.predictions["predicted"], again.predictions["predicted"])


def test_a_deleted_gene_has_no_target_where_it_is_deleted(tiny_bundle, tmp_path):
    learned, asked = tiny_bundle.train_genes(0)[3], tiny_bundle.test_genes(0)[1]
    expression = tiny_bundle.expression.copy()
    is_first = (expression.obs["condition"] == tiny_bundle.observed.columns[0]).to_numpy()
    values = np.array(expression.X)
    for gene in (learned, asked):
        values[is_first, expression.var_names.get_loc(gene)] = np.nan
    expression.X = values
    bundle = dataclasses.replace(tiny_bundle, expression=expression)
    data = FoldData.read(bundle, 0.4, 0)
    filled = fill_missing(bundle.observed.loc[bundle.train_genes(0)]).to_numpy(np.float32)
    np.testing.assert_array_equal(data.both.observed.numpy(), filled)
    assert np.isfinite(filled).all()
    settings = config("finetune.validation_blocks=0.4")
    result = finetune_fold(bundle, settings, fold=0, seed=0, out=tmp_path / "a")
    table = result.predictions
    assert np.isfinite(table[["predicted", "low", "high"]]).all(axis=None)
    assert set(table["gene_id"][table["observed"].isna()]) == {asked}
    assert np.isfinite(gs.compare(table, bundle, n_bootstrap=0)["value"]).all()


def test_the_table_is_the_contract(tiny_bundle, tmp_path):
    result = finetune(tiny_bundle, config("finetune.seeds=0,1"), tmp_path / "out")
    table = result.predictions
    assert list(table.columns) == [*PREDICTION_COLUMNS, "low", "high"]
    assert set(table["model"]) == {"genesplice", ENSEMBLE}
    table = table[table["model"] == "genesplice"]
    assert set(table["gene_id"]) == set(tiny_bundle.test_genes(0))
    assert not table.duplicated(["gene_id", "condition", "seed"]).any()
    observed = table.query("seed == 0").pivot(
        index="gene_id", columns="condition", values="observed"
    )
    pd.testing.assert_frame_equal(
        observed,
        tiny_bundle.observed.loc[observed.index, observed.columns].astype(np.float32),
        check_names=False,
    )


def test_intervals_come_from_the_validation_genes(tiny_bundle, tmp_path):
    settings = config("finetune.seeds=0,1", "finetune.validation_blocks=0.4")
    result = finetune(tiny_bundle, settings, tmp_path / "out")
    genes = FoldData.read(tiny_bundle, 0.4, 0).validation_ids
    seeds = [pd.read_parquet(tmp_path / f"out/fold0_seed{s}/validation.parquet") for s in (0, 1)]
    for unseen in seeds:
        assert set(unseen["gene_id"]) == set(genes)
        assert set(unseen["fold"]) == {0}
    # The ensemble is calibrated by what its members say together, not by one of them.
    mean = seeds[0].assign(
        model=ENSEMBLE, predicted=(seeds[0]["predicted"] + seeds[1]["predicted"]) / 2
    )
    mean_of_seeds = result.predictions[result.predictions["model"] == ENSEMBLE]
    again = add_intervals(mean_of_seeds, mean)
    for column in ("low", "high"):
        np.testing.assert_allclose(mean_of_seeds[column], again[column], rtol=1e-5)
        assert not np.allclose(
            mean_of_seeds[column],
            add_intervals(mean_of_seeds, seeds[0].assign(model=ENSEMBLE))[column],
        )


def test_without_validation_blocks_there_are_no_intervals(tiny_bundle, tmp_path):
    settings = config("finetune.validation_blocks=0", "finetune.seeds=0,1")
    table = finetune(tiny_bundle, settings, tmp_path / "out").predictions
    assert table[["low", "high"]].isna().all(axis=None)
    assert table["predicted"].notna().all()


def test_validation_genes_are_training_genes(tiny_bundle):
    block = tiny_bundle.splits.set_index("gene_id")["block"]
    for fold in range(tiny_bundle.n_folds):
        data = FoldData.read(tiny_bundle, 0.3, fold)
        training, validation = set(data.training_ids), set(data.validation_ids)
        assert training | validation == set(tiny_bundle.train_genes(fold))
        assert not training & validation
        assert not set(block[data.training_ids]) & set(block[data.validation_ids])
        for ids, (rows, observed) in (
            (data.training_ids, data.training), (data.validation_ids, data.validation)
        ):  # fmt: skip
            assert tiny_bundle.genes["gene_id"].iloc[rows.numpy()].tolist() == list(ids)
            np.testing.assert_allclose(observed, tiny_bundle.observed.loc[ids], rtol=1e-6)
        assert data.block.tolist() == block[tiny_bundle.train_genes(fold)].tolist()


@pytest.mark.parametrize(("head_steps", "epochs", "left"), [(150, 0, 0.02), (40, 120, 0.1)])
def test_it_learns_eight_genes_by_heart(tmp_path, head_steps, epochs, left):
    small = make_bundle(tmp_path / "data", n_genes=10, genome_bp=15_000)
    settings = config(
        f"finetune.head_steps={head_steps}", f"finetune.epochs={epochs}", "finetune.joint_rate=1",
        "model.dropout=0", "model.head_dropout=0", "finetune.weight_decay=0",
        "finetune.validation_blocks=0", "finetune.learning_rate=0.003",
    )  # fmt: skip
    history = finetune_fold(small, settings, fold=0, seed=0, out=tmp_path / "a").history
    for metric in ("level_error", "residual_error"):
        error = history.loc[history["metric"] == metric, "value"].to_numpy()
        assert error[0] > 0.7
        assert error[-5:].mean() < left


def test_the_encoder_stands_still_while_the_heads_learn(tiny_bundle, tmp_path):
    settings = config("finetune.epochs=0")
    torch.manual_seed(0)
    before = make_model(tiny_bundle, settings).state_dict()
    after = finetune_fold(tiny_bundle, settings, fold=0, seed=0, out=tmp_path / "a").model
    changed = {name for name, value in after.state_dict().items() if not value.equal(before[name])}
    assert not any(name.startswith("encoder") for name in changed)
    parts = {"readout", "graph", "expression_head", "kernel", "mix"}
    assert {name.split(".")[0] for name in changed} == parts


def test_without_a_kernel_path_there_is_none(tiny_bundle, tmp_path):
    result = finetune_fold(
        tiny_bundle, config("finetune.kernel=false"), fold=0, seed=0, out=tmp_path / "a"
    )
    assert result.model.kernel.n_support == 0
    assert result.kernel is None
    assert load_model(tmp_path / "a").kernel.n_support == 0


def test_a_kernel_that_was_chosen_before_is_taken(tiny_bundle, tmp_path):
    one, two = (
        finetune_fold(tiny_bundle, config(), fold=0, seed=0, out=tmp_path / str(i), kernel=kernel)
        for i, kernel in enumerate([None, (KernelSettings((1.0,) * 9), KernelSettings((1.0,) * 9))])
    )
    assert two.kernel == (KernelSettings((1.0,) * 9),) * 2
    assert one.kernel != two.kernel
    again = finetune_fold(
        tiny_bundle, config(), fold=0, seed=0, out=tmp_path / "2", kernel=one.kernel
    )
    assert again.predictions.equals(one.predictions)


def test_a_saved_model_predicts_the_same(tiny_bundle, tmp_path):
    result = finetune_fold(tiny_bundle, config(), fold=0, seed=0, out=tmp_path / "a")
    again = load_model(tmp_path / "a")
    assert again.mix.tolist() == result.model.mix.tolist()
    assert again.kernel.n_support == len(tiny_bundle.train_genes(0))
    settings = {"core_bp": 16384, "flank_bp": 1024}
    one, two = (predict_expression(m, tiny_bundle, **settings) for m in (result.model, again))
    pd.testing.assert_frame_equal(one, two)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import genesplice as gs
import torch
torch.set_num_threads({threads})
from test_finetuning import config
from genesplice.training.finetuning import finetune_fold
bundle = gs.load_bundle(Path({data!r}))
finetune_fold(bundle, config(*{more!r}), fold=0, seed=0, out=Path({out!r}), resume=True)
"""


@pytest.mark.parametrize(
    ("more", "checkpoints"),
    [
        ((), "checkpoints"),
        (("finetune.sequence_epochs=2",), "sequence/checkpoints"),
        (("finetune.sequence_epochs=2",), "checkpoints"),
    ],
)
def test_killed_and_resumed_is_the_same_run(tiny_bundle, tmp_path, more, checkpoints):
    unbroken = finetune_fold(tiny_bundle, config(*more), fold=0, seed=0, out=tmp_path / "whole")
    out = tmp_path / "broken"
    script = SCRIPT.format(
        tests=os.path.dirname(__file__),
        data=str(tiny_bundle.path),
        out=str(out),
        more=more,
        threads=torch.get_num_threads(),
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    last = out / checkpoints / "last.ckpt"
    for _ in range(1200):
        if last.exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert last.exists()
    assert not (out / "predictions.parquet").exists()
    resumed = finetune_fold(
        load_bundle(tiny_bundle.path), config(*more), fold=0, seed=0, out=out, resume=True
    )
    for name, value in load_file(tmp_path / "whole" / "model.safetensors").items():
        assert torch.equal(value, load_file(out / "model.safetensors")[name]), name
    assert unbroken.predictions.equals(resumed.predictions)
    assert unbroken.validation.equals(resumed.validation)
    assert unbroken.history.equals(resumed.history)


def test_finished_folds_are_not_run_again(tiny_bundle, tmp_path):
    first = finetune(tiny_bundle, config(), tmp_path / "out")
    weights = tmp_path / "out" / "fold0_seed0" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    second = finetune(tiny_bundle, config(), tmp_path / "out", resume=True)
    assert weights.stat().st_mtime_ns == before
    assert first.predictions.equals(second.predictions)
    with pytest.raises(InputError, match="was begun with other settings"):
        finetune(tiny_bundle, config("finetune.weight_decay=0.5"), tmp_path / "out", resume=True)
    # Another seed, an ablation or other settings of the verdict leave finished folds as they are.
    wider = ("finetune.seeds=0,1", "finetune.ablations=rewired", "verdict.epochs=3")
    third = finetune(tiny_bundle, config(*wider), tmp_path / "out", resume=True)
    assert weights.stat().st_mtime_ns == before
    mine = third.predictions.query("model == 'genesplice' and seed == 0").reset_index(drop=True)
    columns = ["gene_id", "condition", "predicted"]
    kept = first.predictions.query("model == 'genesplice'").reset_index(drop=True)
    pd.testing.assert_frame_equal(mine[columns], kept[columns])
    assert set(third.predictions["model"]) >= {"genesplice_rewired", "genesplice_ensemble"}
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(InputError, match=r"was begun with other inputs \(encoder\)"):
        finetune(tiny_bundle, config(), tmp_path / "out", init=encoder, resume=True)


def test_too_few_genes_are_refused_with_the_number_needed(tiny_bundle, tmp_path):
    n = len(tiny_bundle.observed)
    expected = rf"found {n} measured genes, expected at least {n + 1} \(finetune.fewest_genes\)"
    with pytest.raises(InputError, match=expected):
        finetune(tiny_bundle, config(f"finetune.fewest_genes={n + 1}"), tmp_path / "out")
    assert gs.load_preset("quick").finetune.fewest_genes == 200
    assert not (tmp_path / "out").exists()


def test_a_red_leakage_is_said_first(tiny_bundle, tmp_path, capsys):
    for status in ("red", "amber"):
        leakage = {"status": status, "checks": [{"check": "edges", "status": status}]}
        bundle = dataclasses.replace(tiny_bundle, leakage=leakage)
        with pytest.raises(InputError, match="without a pre-trained encoder"):
            finetune(bundle, config("finetune.delta=true"), tmp_path / "out")
        is_said = "finetune: leakage red (edges): scores on these folds" in capsys.readouterr().err
        assert is_said == (status == "red")


def test_a_used_folder_is_refused(tiny_bundle, tmp_path):
    (tmp_path / "out" / "fold0_seed0").mkdir(parents=True)
    (tmp_path / "out" / "fold0_seed0" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not empty"):
        finetune(tiny_bundle, config(), tmp_path / "out")
    with pytest.raises(InputError, match="fold 9"):
        finetune(tiny_bundle, config("finetune.folds=9"), tmp_path / "other")

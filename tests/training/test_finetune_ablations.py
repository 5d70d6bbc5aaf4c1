"""Ablations lack what they should lack; the ensemble is a mean; no ablation takes the model's place."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_genomes import with_operons

import genesplice as gs
from genesplice.errors import InputError
from genesplice.evaluate.ablations import ablation_table
from genesplice.evaluate.metrics import (
    METRICS,
    differences,
    fold_profiles,
    paired_difference,
    score,
)
from genesplice.predict.expression import pathway_graph
from genesplice.training.finetune_ablations import (
    ENSEMBLE,
    ablation_label,
    add_ensemble,
    make_ablation,
)
from genesplice.training.finetuning import finetune

SETTINGS = [
    "model.width=16", "model.heads=2", "model.base_width=0", "model.region_layers=1",
    "model.summary_layers=1", "finetune.core_bp=65536", "finetune.flank_bp=1024",
    "finetune.head_steps=4", "finetune.seeds=0,1", "finetune.ablations=sequence_only,random_encoder",
]  # fmt: skip


@pytest.fixture(scope="module")
def predictions(tiny_bundle, tmp_path_factory) -> pd.DataFrame:
    config = gs.override(gs.load_preset("quick"), SETTINGS)
    out = tmp_path_factory.mktemp("ablations") / "out"
    table = finetune(tiny_bundle, config, out).predictions
    kept = {str(path.parent.relative_to(out)) for path in out.rglob("model.safetensors")}
    assert kept == {"fold0_seed0", "fold0_seed1"}
    again = finetune(tiny_bundle, config, out, resume=True).predictions
    pd.testing.assert_frame_equal(again, table)
    return table


def test_each_is_trained_on_the_same_genes(predictions, tiny_bundle):
    runs = predictions.groupby(["model", "seed"])["gene_id"].nunique()
    n_genes = len(tiny_bundle.test_genes(0))
    assert runs.to_dict() == {
        ("genesplice", 0): n_genes,
        ("genesplice", 1): n_genes,
        ("genesplice_sequence_only", 0): n_genes,
        ("genesplice_random_encoder", 0): n_genes,
        (ENSEMBLE, 0): n_genes,
    }
    one = predictions.query("model == 'genesplice' and seed == 0")["predicted"].to_numpy()
    other = predictions.query("model == 'genesplice_sequence_only'")["predicted"].to_numpy()
    assert not np.allclose(one, other)


def test_a_ablation_of_what_was_not_used_is_the_model(predictions):
    """Without a pre-trained encoder, an ablation without pre-training is the same run."""
    one = predictions.query("model == 'genesplice' and seed == 0")["predicted"].to_numpy()
    ablation = predictions.query("model == 'genesplice_random_encoder'")["predicted"].to_numpy()
    np.testing.assert_array_equal(one, ablation)


def test_the_ensemble_is_the_mean_over_seeds(predictions):
    keys = ["gene_id", "condition"]
    mine = predictions[predictions["model"] == "genesplice"]
    wanted = mine.groupby(keys)["predicted"].mean()
    found = predictions[predictions["model"] == ENSEMBLE].set_index(keys)["predicted"]
    np.testing.assert_allclose(found.loc[wanted.index], wanted, rtol=1e-5)
    alone = mine[mine["seed"] == 0]
    assert add_ensemble(alone) is alone


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "edges", "sets"),
    [
        ("rewired", True, True),
        ("no_network", False, True),
        ("random_sets", True, True),
        ("no_sets", True, False),
        ("sequence_only", False, False),
        ("random_encoder", True, True),
        ("no_expression", True, True),
    ],
)
def test_a_ablation_has_what_it_should_have(tiny_bundle, name, edges, sets):
    ablation = make_ablation(tiny_bundle, name, 0)
    graph = pathway_graph(ablation, gs.load_preset("quick").model)
    assert (graph["gene", "regulates", "gene"].edge_index.shape[1] > 0) == edges
    assert (graph["pathway", "contains", "gene"].edge_index.shape[1] > 0) == sets
    assert ablation.observed.equals(tiny_bundle.observed)
    assert ablation_label(name) == f"genesplice_{name}"


def test_differences_are_pairwise(predictions, tiny_bundle):
    blocks = tiny_bundle.splits.set_index("gene_id")["block"]
    profiles = fold_profiles(tiny_bundle.observed, tiny_bundle.fold_of)
    simple = gs.run_baselines(tiny_bundle, folds=(0,), models=("mean",))
    table = pd.concat([predictions, simple.astype({"model": str})], ignore_index=True)
    found = differences(table, blocks, train_profile=profiles, n_bootstrap=50)
    pairs = {metric.model for metric in found}
    assert pairs == {
        "genesplice - genesplice_sequence_only",
        "genesplice - genesplice_random_encoder",
        "genesplice - mean",
        f"{ENSEMBLE} - mean",
    }
    wanted = paired_difference(
        table, ENSEMBLE, "mean", blocks, train_profile=profiles, n_bootstrap=50
    )
    assert [m for m in found if m.model == f"{ENSEMBLE} - mean"] == wanted
    assert {metric.metric for metric in wanted} <= {f"{name}_difference" for name in METRICS}


def test_ablations_of_the_encoder_start_from_their_own(tiny_bundle, tmp_path):
    names = ("local_only", "permuted_regions", "constant_rate", "shuffled_pretraining")
    settings = [
        *SETTINGS[:5], "pretrain.steps=4", "pretrain.window_bp=2048", "pretrain.batch_windows=1",
        "pretrain.measure_windows=4", "pretrain.probe_sites=20", "pretrain.learning_rate=0.01",
        "pretrain.ema_decay=0", "pretrain.ablations=local_only,permuted_regions,constant_rate",
        "finetune.core_bp=65536", "finetune.flank_bp=1024", "finetune.head_steps=2",
        "finetune.epochs=0", "finetune.folds=0", f"finetune.ablations={','.join(names)}",
    ]  # fmt: skip
    config, control = gs.override(gs.load_preset("quick"), settings), with_operons(tiny_bundle)
    init = tmp_path / "pretrained"
    gs.pretrain(control, config, init)
    with pytest.raises(InputError, match=r"pretrain.ablations=shuffled_genome"):
        finetune(control, config, tmp_path / "out", init=init)
    assert not (tmp_path / "out").exists()
    shuffled = gs.override(config, ["pretrain.ablations=shuffled_genome"])
    gs.pretrain(control, shuffled, tmp_path / "more")
    shutil.move(tmp_path / "more/ablations/shuffled_genome", init / "ablations")
    table = finetune(control, config, tmp_path / "out", init=init).predictions
    told = {model: part["predicted"].to_numpy() for model, part in table.groupby("model")}
    assert set(told) == {"genesplice", *(ablation_label(name) for name in names)}
    for name in names:
        assert not np.array_equal(told[ablation_label(name)], told["genesplice"]), name
    rows = ablation_table(score_all(control, table))
    ran = set(rows.loc[rows["answer"] != "not run", "ablation"])
    assert ran == {ablation_label(name) for name in names}


def score_all(bundle, predictions):
    blocks = bundle.splits.set_index("gene_id")["block"]
    profiles = fold_profiles(bundle.observed, bundle.fold_of)
    return score(predictions, blocks, train_profile=profiles)

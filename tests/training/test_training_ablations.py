"""Ablations lack what they should lack, read as much, and take nobody's place."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_genomes import with_operons
from tiny_runs import config

import genesplice as gs
from genesplice.config.training import PretrainAblationName
from genesplice.errors import InputError
from genesplice.evaluate.metrics import (
    METRICS,
    differences,
    fold_profiles,
    paired_difference,
    score,
)
from genesplice.evaluate.reliability import ablation_table
from genesplice.predict.expression import pathway_graph
from genesplice.training.ablations import ablate_finetuning, ablate_pretraining
from genesplice.training.corpus import bundle_source
from genesplice.training.finetuning import ENSEMBLE, add_ensemble, finetune
from genesplice.training.pretraining import pretrain

pytestmark = pytest.mark.slow

SETTINGS = [
    "finetune.fewest_genes=1",
    "model.width=16", "model.heads=2", "model.base_width=0", "model.region_layers=1",
    "model.summary_layers=1", "finetune.core_bp=65536", "finetune.flank_bp=1024",
    "finetune.head_steps=4", "finetune.seeds=0,1",
    "finetune.ablations=sequence_only,random_encoder",
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


def test_an_ablation_of_what_was_not_used_is_the_model(predictions):
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
def test_an_ablation_has_what_it_should_have(tiny_bundle, name, edges, sets):
    settings = config("model.neighbour_expression=true")
    ablation, own, init = ablate_finetuning(tiny_bundle, settings, Path("encoder"), name, 0)
    assert own.model.neighbour_expression == (name != "no_expression")
    assert init == (None if name == "random_encoder" else Path("encoder"))
    graph = pathway_graph(ablation, gs.load_preset("quick").model)
    assert (graph["gene", "regulates", "gene"].edge_index.shape[1] > 0) == edges
    assert (graph["pathway", "contains", "gene"].edge_index.shape[1] > 0) == sets
    assert ablation.observed.equals(tiny_bundle.observed)


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
    assert set(told) == {"genesplice", *(f"genesplice_{name}" for name in names)}
    for name in names:
        assert not np.array_equal(told[f"genesplice_{name}"], told["genesplice"]), name
    rows = ablation_table(score_all(control, table))
    ran = set(rows.loc[rows["answer"] != "not run", "ablation"])
    assert ran == {f"genesplice_{name}" for name in names}


def score_all(bundle, predictions):
    blocks = bundle.splits.set_index("gene_id")["block"]
    profiles = fold_profiles(bundle.observed, bundle.fold_of)
    return score(predictions, blocks, train_profile=profiles)


# --- of pre-training ---

NAMES = PretrainAblationName.__args__
MEASURED = ["pretrain.measure_windows=12", "pretrain.probe_sites=40", "pretrain.measure=true"]
MEASURED += ["pretrain.measure_expression=true"]


@pytest.fixture(scope="module")
def source(tiny_bundle):
    return bundle_source(tiny_bundle, 0)


@pytest.mark.parametrize("name", NAMES)
def test_an_ablation_reads_as_many_bases(source, name):
    settings = config("pretrain.steps=300", "pretrain.views_every=3")
    _, ablation = ablate_pretraining(source, settings, name)
    bases, expected = (
        one.pretrain.mean_batch_bp * one.pretrain.steps for one in (ablation, settings)
    )
    assert bases == pytest.approx(expected, rel=0.01)
    assert ablation.pretrain.ablations == ()
    rate, peak = ablation.pretrain.learning_rate, settings.pretrain.learning_rate
    assert rate == peak if name != "constant_rate" else 0.4 * peak < rate < 0.7 * peak


def test_each_leaves_out_what_it_is_named_after(source):
    settings = config()
    made = {name: ablate_pretraining(source, settings, name)[1] for name in NAMES}
    assert not made["masked_only"].pretrain.active_views
    assert made["constant_rate"].pretrain.schedule == "constant"
    assert {name: one.model.arch for name, one in made.items()} == {
        "masked_only": "hierarchical", "constant_rate": "hierarchical",
        "shuffled_genome": "hierarchical", "local_only": "hierarchical",
        "permuted_regions": "hierarchical", "kmer_tokens": "kmer_tokens",
        "dilated_cnn": "dilated_cnn",
    }  # fmt: skip
    other = ("local_only", "permuted_regions")
    assert {
        n: one.model.hierarchy for n, one in made.items() if one.model.hierarchy != "whole"
    } == {name: name for name in other}
    assert made["dilated_cnn"].model.width == settings.model.base_width
    same = [name for name in NAMES if name != "masked_only"]
    assert all(made[name].pretrain.active_views for name in same)


def test_a_shuffled_genome_keeps_dinucleotides_and_held_out_blocks(source):
    shuffled = ablate_pretraining(source, config(), "shuffled_genome")[0].genome
    held_out = np.zeros(source.genome.length, bool)
    for _, start, end in source.held_out:
        held_out[np.arange(start, end) % source.genome.length] = True
    honest = np.array(source.genome.tokens)
    assert (shuffled.tokens[held_out] == honest[held_out]).all()
    assert (shuffled.tokens[~held_out] != honest[~held_out]).mean() > 0.5
    for _, start, end in source.training:
        rows = np.arange(start, end) % source.genome.length
        pairs = [
            np.bincount(tokens[rows[:-1]].astype(int) * 5 + tokens[rows[1:]], minlength=25)
            for tokens in (honest, shuffled.tokens)
        ]
        assert (pairs[0] == pairs[1]).all()


def test_columns_of_a_shuffled_genome_agree_as_often_and_elsewhere(source):
    genome = source.genome
    rng = np.random.default_rng(0)
    columns = rng.integers(0, 3, (3, genome.length, 5)).astype(np.uint8)
    known = dataclasses.replace(genome, columns=columns)
    found = ablate_pretraining(source._replace(genome=known), config(), "shuffled_genome")[0].genome

    def agreeing(one, rows):
        tokens = one.tokens[rows]
        return np.array(one.columns[:, rows, np.minimum(tokens, 3)])

    for _, start, end in source.training:
        rows = np.arange(start, end) % genome.length
        before, after = agreeing(known, rows), agreeing(found, rows)
        assert np.array_equal(
            *(np.sort(one.T.copy().view("u1,u1,u1")[:, 0]) for one in (before, after))
        )
        assert (before != after).mean() > 0.3
        gaps = columns[:, rows, 4], found.columns[:, rows, 4]
        assert np.array_equal(*(one.sum(1) for one in gaps))
    for _, start, end in source.held_out:
        rows = np.arange(start, end) % genome.length
        assert np.array_equal(found.columns[:, rows], columns[:, rows])


def test_ablations_are_trained_and_measured_with_the_model(tiny_bundle, tmp_path):
    control, ablations = with_operons(tiny_bundle), ("kmer_tokens", "dilated_cnn")
    settings = config(*MEASURED, f"pretrain.ablations={','.join(ablations)}", "pretrain.steps=2")
    first = pretrain(control, settings, tmp_path / "out")
    found = {(m.model, m.metric): m.value for m in first.metrics}
    for name in ablations:
        assert (tmp_path / "out" / "ablations" / name / "model.safetensors").exists()
        assert found[name, "bits_per_base"] != found["genesplice", "bits_per_base"]
        assert found[f"genesplice - {name}", "bits_per_base_difference"] == pytest.approx(
            found["genesplice", "bits_per_base"] - found[name, "bits_per_base"], abs=1e-9
        )
        assert (name, "probe_mean") in found
        assert (f"genesplice - {name}", "probe_mean_difference") in found
        assert (f"genesplice - {name}", "retrieval_at_10_difference") in found
        assert (f"genesplice - {name}", "profile_r_difference") in found
    assert ("genesplice - random_weights", "probe_mean_difference") in found
    # A finished run is read back, ablations too.
    again = pretrain(control, settings, tmp_path / "out", resume=True)
    assert again.metrics == first.metrics


def test_ablations_that_nobody_measures_are_refused():
    with pytest.raises(InputError, match="ablations where they are measured"):
        config("pretrain.ablations=masked_only")

"""Vectors of all genes do not depend on how the genome was cut; tables are the contract's."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

import genesplice as gs
from genesplice.config import ModelConfig
from genesplice.data.windows import annotation_track, make_batch, tile_windows
from genesplice.errors import InputError
from genesplice.evaluate.metrics import PREDICTION_COLUMNS
from genesplice.predict.expression import (
    attention_edges,
    bundle_graph,
    encode_genes,
    predict_expression,
    prediction_table,
)
from genesplice.predict.models import load_model
from genesplice.training.finetuning import make_model

pytestmark = pytest.mark.slow

SMALL = ModelConfig(
    width=16, heads=2, bin_window=8, summary_window=4, base_width=4, context_bp=1024, graph_layers=2
)


def make(bundle, **changes):
    torch.manual_seed(0)
    config = dataclasses.replace(
        gs.load_preset("quick"), model=dataclasses.replace(SMALL, **changes)
    )
    model = make_model(bundle, config).eval()
    for name, parameter in model.named_parameters():
        if "identity" not in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.expression_head.fit(torch.from_numpy(bundle.observed.to_numpy(dtype=np.float32)))
    return model


@pytest.fixture(scope="module")
def model(tiny_bundle):
    return make(tiny_bundle)


# --- one pass over the genome ---


def test_vectors_are_those_of_each_window_on_its_own(model, tiny_bundle):
    found = encode_genes(model, tiny_bundle, core_bp=32768, flank_bp=2048)
    track = annotation_track(tiny_bundle.genome, tiny_bundle.genes)
    n_seen = 0
    for window in tile_windows(tiny_bundle.genome, 32768, 2048):
        batch = make_batch(tiny_bundle.genome, [window], tiny_bundle.genes, track)
        tokens, phase, gene, *place = batch
        with torch.no_grad():
            vectors = model.gene_features(tokens, phase, *place)
        torch.testing.assert_close(found[gene], vectors, atol=1e-6, rtol=1e-5)
        n_seen += len(gene)
    assert n_seen == len(tiny_bundle.genes)


@pytest.mark.parametrize(
    ("core_bp", "flank_bp", "batch_windows"), [(8192, 4096, 1), (16384, 8192, 3), (65536, 4096, 2)]
)
def test_the_size_of_the_core_does_not_matter_when_the_context_fits(
    model, tiny_bundle, core_bp, flank_bp, batch_windows
):
    whole = encode_genes(model, tiny_bundle)
    parts = encode_genes(
        model, tiny_bundle, core_bp=core_bp, flank_bp=flank_bp, batch_windows=batch_windows
    )
    assert float(whole.std()) > 0.1
    torch.testing.assert_close(parts, whole, atol=2e-5, rtol=1e-4)


def test_vectors_at_hand_are_taken(model, tiny_bundle):
    vectors = encode_genes(model, tiny_bundle)
    assert vectors.shape == (len(tiny_bundle.genes), len(model.readout.centre))
    found = predict_expression(model, tiny_bundle, vectors=vectors)
    pd.testing.assert_frame_equal(found, predict_expression(model, tiny_bundle))
    other = predict_expression(model, tiny_bundle, vectors=vectors.flip(0))
    assert not np.allclose(found, other)


def test_a_model_is_left_in_the_mode_it_came_in(tiny_bundle):
    model = make(tiny_bundle, dropout=0.5, head_dropout=0.5)
    quiet = encode_genes(model, tiny_bundle)
    for training in (True, False):
        model.train(training)
        assert torch.equal(encode_genes(model, tiny_bundle), quiet)
        predict_expression(model, tiny_bundle)
        assert model.training == training


# --- predictions ---


def test_every_gene_is_predicted_in_every_condition(model, tiny_bundle):
    found = predict_expression(model, tiny_bundle)
    assert list(found.index) == list(tiny_bundle.genes["gene_id"])
    assert found.index.name == "gene_id"
    assert list(found.columns) == list(tiny_bundle.observed.columns)
    assert np.isfinite(found.to_numpy()).all()
    with torch.no_grad():
        vectors = encode_genes(model, tiny_bundle)
        prediction = model(vectors, bundle_graph(model, tiny_bundle))
    np.testing.assert_allclose(found.mean(axis=1), prediction.level + float(
        model.expression_head.condition_mean.mean()), atol=1e-4)  # fmt: skip


def test_expression_itself_is_not_read(model, tiny_bundle):
    silent = tiny_bundle.expression.copy()
    silent.X = np.zeros_like(silent.X)
    found = predict_expression(model, dataclasses.replace(tiny_bundle, expression=silent))
    pd.testing.assert_frame_equal(found, predict_expression(model, tiny_bundle))


def test_a_table_has_one_row_a_gene_and_condition(tiny_bundle):
    observed = tiny_bundle.observed
    genes, conditions = observed.index[[7, 3, 20]], observed.columns[::-1]
    predicted = observed.loc[genes, conditions] + 1
    table = prediction_table(predicted, observed, tiny_bundle.fold_of, model="m", seed=4)
    assert sorted(table.columns) == sorted(PREDICTION_COLUMNS)
    assert list(table.columns) == list(PREDICTION_COLUMNS)
    assert len(table) == 3 * len(conditions)
    assert not table.duplicated(["gene_id", "condition"]).any()
    assert set(table["model"]) == {"m"}
    assert set(table["seed"]) == {4}
    for row in table.itertuples(index=False):
        assert row.fold == tiny_bundle.fold_of[row.gene_id]
        value = observed.loc[row.gene_id, row.condition]
        assert row.observed == pytest.approx(value, rel=1e-6)
        assert row.predicted == pytest.approx(value + 1, rel=1e-6)
    assert table["observed"].dtype == table["predicted"].dtype == np.float32


def test_a_folder_without_a_model_is_refused(model, tiny_bundle, tmp_path):
    with pytest.raises(InputError, match=r"no config.json, expected a folder that finetune wrote"):
        load_model(tmp_path)
    model.save_pretrained(tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert not again.training
    pd.testing.assert_frame_equal(
        predict_expression(again, tiny_bundle), predict_expression(model, tiny_bundle)
    )
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no model.safetensors"):
        load_model(tmp_path / "model")


# --- attention ---


def with_an_effector(bundle):
    """One regulator more that is no gene, and one edge of unknown sign."""
    genes = bundle.genes["gene_id"]
    rows = [("haem", genes[5], -1, "regulates", "x"), (genes[0], genes[5], 0, "regulates", "x")]
    more = pd.DataFrame(rows, columns=bundle.network.columns).astype({"sign": "int8"})
    return dataclasses.replace(bundle, network=pd.concat([bundle.network, more], ignore_index=True))


@pytest.fixture(scope="module")
def edges(tiny_bundle):
    bundle = with_an_effector(tiny_bundle)
    return attention_edges(make(bundle), bundle)


def test_attention_sums_to_one_over_a_target_and_kind(edges):
    total = edges.groupby(["kind", "target"])["weight"].sum()
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert edges["weight"].between(0, 1).all()
    assert edges.groupby(["kind", "target"])["weight"].nunique().max() > 1


def test_the_edges_are_those_of_the_network(edges, tiny_bundle):
    bundle = with_an_effector(tiny_bundle)
    assert list(edges.columns) == ["source", "target", "kind", "sign", "weight"]
    assert set(edges["kind"]) == {"regulates", "effects", "member_of", "contains"}
    keys = ["source", "target", "sign"]
    acting = edges[edges["kind"].isin(["regulates", "effects"])]
    assert {tuple(row) for row in acting[keys].to_numpy()} == {
        tuple(row) for row in bundle.network[keys].to_numpy()
    }
    assert edges.query("kind == 'effects'")["source"].tolist() == ["haem"]
    members = {
        (gene, name)
        for name, genes in bundle.gene_sets.items()
        if name.startswith(("KEGG:", "COG:", "GO:"))
        for gene in genes
    }
    inward = edges.query("kind == 'member_of'")[["source", "target"]].to_numpy()
    outward = edges.query("kind == 'contains'")[["target", "source"]].to_numpy()
    assert {tuple(row) for row in inward} == {tuple(row) for row in outward} == members
    assert not edges[~edges["kind"].isin(["regulates", "effects"])]["sign"].any()


def test_a_model_without_graph_layers_has_no_attention(tiny_bundle):
    found = attention_edges(make(tiny_bundle, graph_layers=0), tiny_bundle)
    assert list(found.columns) == ["source", "target", "kind", "sign", "weight"]
    assert len(found) == 0

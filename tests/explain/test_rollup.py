"""Weights of all levels, rolled up, are those of dense matrices multiplied out."""

import numpy as np
import pytest
import torch
from tiny_models import make_tiny, make_vectors

from genesplice.errors import InputError, WorkError
from genesplice.explain.attention import PATHS, attention_rollout, attention_rows, encode_levels
from genesplice.predict.gene_output import Explainer


def explain(bundle, *settings) -> Explainer:
    model = make_tiny(bundle, *settings)
    vectors = make_vectors(model, bundle)
    return Explainer(model, bundle, window_bp=4096, vectors=vectors)


@pytest.fixture(scope="module")
def explainer(tiny_bundle):
    return explain(tiny_bundle)


def dense(stack):
    """Rollout of a stack as one matrix: rows are its outputs."""
    n = stack.is_real.shape[1]
    whole = torch.eye(n, dtype=torch.float64)
    for layer in range(len(stack.blocks)):
        rows = attention_rows(stack, layer, 0, n).double().mean(0)
        whole = (torch.eye(n, dtype=torch.float64) + rows) / 2 @ whole
    return whole


def merging(merge, x):
    """Merged tokens x parts, by the length of what each part adds; in loops."""
    normed, weight = merge.norm(x)[0], merge.project.weight
    n, width = normed.shape
    out = torch.zeros(n // merge.factor, n, dtype=torch.float64)
    for merged in range(len(out)):
        for part in range(merge.factor):
            token = merged * merge.factor + part
            added = weight[:, part * width : (part + 1) * width] @ normed[token]
            out[merged, token] = float(added.norm())
        out[merged] /= out[merged].sum()
    return out


@torch.no_grad()
def test_it_is_the_product_of_dense_matrices(explainer):
    _, spliced, at = encode_levels(explainer, "g0004")
    encoder, n = explainer.model.encoder, 256
    fused = dense(spliced.last)[at // 16]
    to_summary = merging(encoder.to_summaries, spliced.first.output)
    to_region = merging(encoder.to_regions, spliced.summaries.output)
    first, summaries, regions = map(dense, (spliced.first, spliced.summaries, spliced.regions))
    expected = torch.zeros(3, n, dtype=torch.float64)
    for token in range(n):
        own = spliced.first.output[0, token]
        of_summary = encoder.from_summaries.weight @ spliced.summaries.output[0, token // 8]
        of_region = encoder.from_summaries.weight @ (
            encoder.from_regions.weight @ spliced.regions.output[0, token // 64]
        )
        size = torch.tensor([float(v.norm()) for v in (own, of_summary, of_region)]).double()
        share = fused[token] * size / size.sum()
        expected[0] += share[0] * first[token]
        expected[1] += share[1] * (summaries[token // 8] @ to_summary @ first)
        expected[2] += share[2] * (
            regions[token // 64] @ to_region @ summaries @ to_summary @ first
        )
    table = attention_rollout(explainer, "g0004")
    window = explainer.window("g0004")
    found = np.zeros((3, n))
    place = (table["start_bp"].to_numpy() - window.offset_bp) // 16
    np.add.at(found, (table["path"].map(PATHS.index).to_numpy(), place), table["weight"])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_nothing_is_lost_and_nothing_is_negative(explainer):
    for position in (-700, 0, 300):
        table = attention_rollout(explainer, "g0006", position_bp=position)
        assert table["weight"].sum() == pytest.approx(1, abs=1e-6)
        assert (table["weight"] > 0).all()
        assert set(table["path"]) == set(PATHS)
        assert (table["end_bp"] - table["start_bp"] == 16).all()


def test_what_the_context_shuts_off_is_not_heard(tiny_bundle):
    near = attention_rollout(explain(tiny_bundle, "model.context_bp=450"), "g0004")
    assert set(near["path"]) == {"bins"}
    assert near["weight"].sum() == pytest.approx(1, abs=1e-6)
    assert near[["start_bp", "end_bp"]].abs().to_numpy().max() <= 150 + 16


def test_the_start_hears_itself_most_through_bins(explainer):
    table = attention_rollout(explainer, "g0004")
    local = table[table["path"] == "bins"].set_index("start_bp")["weight"]
    assert abs(local.idxmax() + 8) <= 16


def test_a_position_outside_and_an_encoder_without_levels_are_refused(explainer, tiny_bundle):
    with pytest.raises(InputError, match="position 9000 bp, expected -1790 to 2305"):
        attention_rollout(explainer, "g0004", position_bp=9000)
    flat = explain(tiny_bundle, "model.arch=short_cnn", "model.base_width=0")
    with pytest.raises(WorkError, match="no levels of attention"):
        attention_rollout(flat, "g0004")

"""Rows recomputed under the fused kernel are the softmax, written out; heads are cut exactly."""

import math

import numpy as np
import pytest
import torch
from tiny_models import make_tiny, make_vectors

from genesplice.errors import InputError, WorkError
from genesplice.explain.attention import LEVELS, attention_rows, gene_attention, head_ablation
from genesplice.model.attention import attend, make_plan, rope
from genesplice.model.incremental import IncrementalEncoder
from genesplice.predict.gene_output import Explainer


def explain(bundle, *settings) -> Explainer:
    model = make_tiny(bundle, *settings)
    vectors = make_vectors(model, bundle)
    return Explainer(model, bundle, window_bp=4096, vectors=vectors)


@pytest.fixture(scope="module")
def explainer(tiny_bundle):
    return explain(tiny_bundle)


@pytest.fixture(scope="module")
def stacks(explainer):
    function = explainer.forward_function("g0004")
    inputs = torch.cat([function.bases, function.annotation], -1)
    real = function.is_real.clone()
    real[0, 100:140] = False
    with torch.no_grad():
        spliced = IncrementalEncoder(explainer.model.encoder, inputs, real)
    return dict(
        zip(LEVELS, (spliced.first, spliced.summaries, spliced.regions, spliced.last), strict=True)
    )


def projected(level, layer):
    x = level.states[layer].x
    return level.blocks[layer].project(x, rope(x.shape[1], 8, x.device))


@torch.no_grad()
@pytest.mark.parametrize("level", LEVELS)
def test_rows_are_the_softmax_in_loops(stacks, level):
    stack = stacks[level]
    q, k = (part[0].double() for part in projected(stack, 0)[:2])
    real, n_tokens = stack.is_real[0], stack.is_real.shape[1]
    low = n_tokens // 2 - 1
    found = attention_rows(stack, 0, low, low + 2).double()
    for head in range(2):
        for row in (low, low + 1):
            terms = torch.zeros(n_tokens, dtype=torch.float64)
            for token in range(n_tokens):
                near = stack.half_window is None or abs(token - row) <= stack.half_window
                if (real[token] and near) or token == row:
                    dot = sum(
                        float(a * b) for a, b in zip(q[head, row], k[head, token], strict=True)
                    )
                    terms[token] = math.exp(dot / math.sqrt(q.shape[-1]))
            wanted = terms / terms.sum()
            torch.testing.assert_close(found[head, row - low], wanted, atol=1e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("level", LEVELS)
def test_rows_times_values_are_what_the_kernel_gives(stacks, level):
    stack = stacks[level]
    layer = len(stack.blocks) - 1
    q, k, v = projected(stack, layer)
    mixed = attend(q, k, v, make_plan(stack.is_real, stack.half_window))[0]
    rows = attention_rows(stack, layer, 0, q.shape[2])
    torch.testing.assert_close(rows @ v[0], mixed, atol=1e-5, rtol=1e-5)


def test_rows_that_are_not_there_are_refused(stacks):
    for wrong in ((9, 0, 1), (0, 3, 3), (0, -1, 2), (0, 0, 257)):
        with pytest.raises(InputError, match="1 layers of 256 tokens"):
            attention_rows(stacks["bins"], *wrong)


def test_a_gene_listens_within_reach_and_its_weights_sum_to_one(explainer):
    table = gene_attention(explainer, "g0005")
    sums = table.groupby(["level", "layer", "head"])["weight"].sum()
    assert set(sums.index.get_level_values("level")) == set(LEVELS)
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    bins = table[table["level"] == "bins"]
    assert bins["start_bp"].min() >= -5 * 16
    assert bins["end_bp"].max() <= 5 * 16 + 16
    assert (table[table["level"] == "regions"]["start_bp"].nunique()) == 4


def test_a_silent_head_is_one_whose_values_are_zero(explainer):
    before = {name: value.clone() for name, value in explainer.model.state_dict().items()}
    table = head_ablation(explainer, "g0005")
    for name, value in explainer.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert len(table) == (1 + 1 + 2 + 1) * 2
    assert table["effect"].abs().max() > 1e-4
    function = explainer.forward_function("g0005")
    with torch.no_grad():
        reference = float(function(function.bases))
        block = explainer.model.encoder.decoder_blocks[0]
        kept = block.qkv.weight.clone()
        # Rows of the gene_features projection: queries, keys, values; head by head in each.
        block.qkv.weight[2 * 16 + 8 : 3 * 16] = 0
        wanted = float(function(function.bases)) - reference
        block.qkv.weight.copy_(kept)
    found = table.query("level == 'fused' and head == 1")["effect"].item()
    assert found == pytest.approx(wanted, abs=1e-6)


def test_an_encoder_without_levels_says_so(tiny_bundle):
    for ask in (gene_attention, head_ablation):
        with pytest.raises(WorkError, match="ShortCnn has no levels of attention"):
            ask(explain(tiny_bundle, "model.arch=short_cnn"), "g0005")

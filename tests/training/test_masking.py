"""What is masked, and what it counts."""

import numpy as np
import pytest
import torch
from tiny_runs import random_tokens

from genesplice.model.sequence import N_TOKEN
from genesplice.training.masking import base_weights, make_masks, mask_bases, mask_bins


def runs(is_chosen) -> list[tuple[int, int]]:
    """(start, length) of every stretch of True in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_chosen, [0]])))
    return [(int(a), int(b - a)) for a, b in edges.reshape(-1, 2)]


@pytest.mark.parametrize("span_bp", [1, 4, 16])
@pytest.mark.parametrize("fraction", [0.05, 0.12, 0.5])
def test_about_that_fraction_is_masked(fraction, span_bp):
    tokens = random_tokens(8, 50_000)
    # One base in `span_bp` is drawn on its own.
    spread = (fraction * (1 - fraction) * span_bp / tokens.numel()) ** 0.5
    for choose in (mask_bases, mask_bins):
        chosen = choose(tokens, fraction, span_bp, np.random.default_rng(1))
        assert float(chosen.float().mean()) == pytest.approx(fraction, abs=6 * spread)


@pytest.mark.parametrize("span_bp", [1, 3, 16])
def test_spans_are_at_least_that_long(span_bp):
    chosen = mask_bases(random_tokens(4, 5_000), 0.1, span_bp, np.random.default_rng(2))
    for row in chosen.numpy():
        for start, length in runs(row):
            assert length >= span_bp or start + length == len(row)
        assert min(length for _, length in runs(row)) <= span_bp


def test_bins_are_masked_whole_or_not_at_all():
    chosen = mask_bins(random_tokens(6, 2048), 0.3, 16, np.random.default_rng(2))
    by_bin = chosen.view(6, -1, 16)
    assert torch.equal(by_bin.any(2), by_bin.all(2))
    assert 0.2 < float(by_bin.any(2).float().mean()) < 0.4


@pytest.mark.parametrize("choose", [mask_bases, mask_bins])
def test_an_n_is_never_masked(choose):
    tokens = random_tokens(4, 5_000)
    tokens[:, 1000:3000:3] = N_TOKEN
    tokens[3] = N_TOKEN
    chosen = choose(tokens, 0.9, 8, np.random.default_rng(3))
    assert not chosen[tokens == N_TOKEN].any()
    assert chosen[:3].float().mean() > 0.5


def make(kinds, seed=0, rows=60):
    sizes = {"fraction": 0.2, "span_bp": 5, "bin_bp": 16}
    return make_masks(random_tokens(rows, 2048), kinds, np.random.default_rng(seed), **sizes)


def test_one_kind_is_that_kind():
    tokens = random_tokens(60, 2048)
    expected = mask_bases(tokens, 0.2, 5, np.random.default_rng(0))
    assert torch.equal(make(["span"]), expected)
    assert torch.equal(make(["single"]), mask_bases(tokens, 0.2, 1, np.random.default_rng(0)))
    assert torch.equal(make(["bin"]), mask_bins(tokens, 0.2, 16, np.random.default_rng(0)))


def test_each_row_takes_one_of_the_kinds():
    kinds = []
    for row in make(["single", "span", "bin"]):
        by_bin = row.view(-1, 16)
        lengths = [length for _, length in runs(row.numpy())]
        if torch.equal(by_bin.any(1), by_bin.all(1)):
            kinds.append("bin")
        else:
            kinds.append("span" if min(lengths[:-1]) >= 5 else "single")
    counts = [kinds.count(kind) for kind in ("single", "span", "bin")]
    # 20 rows each, give or take.
    assert all(8 <= count <= 34 for count in counts), counts


def test_a_repeat_counts_less():
    is_repeat = torch.tensor([[True, False, True]])
    found = base_weights(is_repeat, 0.1)
    assert found.dtype == torch.float32
    assert found.tolist() == [[pytest.approx(0.1), 1.0, pytest.approx(0.1)]]

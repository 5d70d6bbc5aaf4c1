"""Left-out blocks against refits; what is chosen on data whose kernel is known."""

import numpy as np
import pytest
import torch

from genesplice.baselines import ridge
from genesplice.baselines.ridge import KernelSettings, choose_kernel, fit_kernel, make_kernel
from genesplice.errors import InputError


def control(n_genes=60, seed=0):
    """Two parts of inner products, and the features they come from."""
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(n_genes, 6, generator=generator, dtype=torch.float64) for _ in "ab"]
    parts = torch.stack([x @ x.T / x.shape[1] for x in features])
    return features, parts


def test_left_out_is_a_fit_without_the_block():
    _, parts = control()
    targets = torch.randn(60, 3, dtype=torch.float64)
    targets -= targets.mean(0)
    blocks = np.repeat(np.arange(6), 10)
    settings = KernelSettings((0.7, 0.3), mixture=0.4, inverse_length=0.8, penalty=0.5)
    found = fit_kernel(parts, targets, blocks, settings)
    kernel = make_kernel(parts, settings)
    for block in range(6):
        out = torch.from_numpy(blocks == block)
        inside = kernel[~out][:, ~out] + 0.5 * torch.eye(50)
        weights = torch.linalg.solve(inside, targets[~out])
        torch.testing.assert_close(found.left_out[out], kernel[out][:, ~out] @ weights)
    whole = torch.linalg.solve(kernel + 0.5 * torch.eye(60), targets)
    torch.testing.assert_close(found.weights, whole)


def test_a_linear_kernel_is_ridge_regression():
    features, parts = control()
    targets = torch.randn(60, 1, dtype=torch.float64)
    targets -= targets.mean(0)
    settings = KernelSettings((1.0, 0.0), mixture=0.0, penalty=0.25)
    weights = fit_kernel(parts, targets, np.arange(60), settings).weights
    x = features[0] / 6**0.5
    by_hand = torch.linalg.solve(x.T @ x + 0.25 * torch.eye(6), x.T @ targets)
    torch.testing.assert_close(x.T @ weights, by_hand)


def test_a_part_that_says_nothing_is_turned_down():
    features, parts = control(300)
    coefficients = torch.randn(
        6, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    noise = torch.randn(300, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    targets = features[0] @ coefficients + 0.1 * noise
    blocks = np.repeat(np.arange(30), 10)
    found = choose_kernel(parts, targets - targets.mean(0), blocks)
    assert found.scale[0] > 10 * found.scale[1]
    assert found.mixture < 1


def left_out_error(parts, targets, blocks, settings) -> float:
    fit = fit_kernel(parts, targets, blocks, settings)
    return float((fit.left_out - targets).square().mean() / targets.square().mean())


def test_a_neighbourhood_is_chosen_where_nothing_is_linear():
    features, parts = control(400)
    targets = torch.cos(2 * features[0][:, :1]) * features[0][:, 1:2]
    targets = targets - targets.mean(0)
    blocks = np.repeat(np.arange(40), 10)
    found = choose_kernel(parts, targets, blocks)
    assert found.mixture > 0
    chosen = left_out_error(parts, targets, blocks, found)
    linear = min(
        left_out_error(parts, targets, blocks, KernelSettings((0.5, 0.5), 0.0, 1.0, penalty))
        for penalty in (0.1, 1.0, 10.0, 100.0, 1000.0)
    )
    assert chosen < linear - 0.05


def test_one_block_leaves_single_genes_out():
    _, parts = control(20)
    targets = torch.randn(20, 1, dtype=torch.float64)
    settings = KernelSettings((0.5, 0.5))
    one = fit_kernel(parts, targets, np.zeros(20), settings)
    each = fit_kernel(parts, targets, np.arange(20), settings)
    torch.testing.assert_close(one.left_out, each.left_out)


def test_a_search_on_some_genes_sees_every_block(monkeypatch):
    """Half of the blocks follow a linear part, half another: a search on few blocks sees one."""
    monkeypatch.setattr(ridge, "SEARCHED", (100,))
    features, parts = control(300)
    blocks = np.repeat(np.arange(30), 10)
    is_late = torch.from_numpy(blocks >= 15)[:, None]
    targets = torch.where(is_late, features[1][:, :1], features[0][:, :1])
    found = choose_kernel(parts, targets - targets.mean(0), blocks)
    assert min(found.scale) > 0.1


@pytest.mark.parametrize("noise", [2.0, 3.0])
def test_no_other_penalty_predicts_all_genes_better(monkeypatch, noise):
    """The few genes that are searched with want another penalty than all of them."""
    monkeypatch.setattr(ridge, "SEARCHED", (40,))
    features, parts = control(400, seed=1)
    generator = torch.Generator().manual_seed(2)
    targets = features[0][:, :1] + noise * torch.randn(
        400, 1, dtype=torch.float64, generator=generator
    )
    targets, blocks = targets - targets.mean(0), np.repeat(np.arange(40), 10)
    found = choose_kernel(parts, targets, blocks)
    least = left_out_error(parts, targets, blocks, found)
    for factor in (1 / 1.5, 1.5):
        other = found._replace(penalty=found.penalty * factor)
        assert left_out_error(parts, targets, blocks, other) > 0.9999 * least  # float32


def test_too_few_genes_are_refused():
    _, parts = control(2)
    with pytest.raises(InputError, match=r"2 training genes.*at least 3"):
        choose_kernel(parts, torch.zeros(2, 1, dtype=torch.float64), np.arange(2))

"""Every method beside an independent account of what it should give."""

import itertools

import numpy as np
import pytest
import torch
from tiny_models import make_tiny, make_vectors
from torch import nn

from genesplice.errors import InputError, WorkError
from genesplice.explain.attribution import METHODS, Settings, attribute, attribute_gene
from genesplice.explain.mutagenesis import VariantOutput
from genesplice.predict.gene_output import Explainer


class Linear(nn.Module):
    """A weighted sum, whose attributions are known."""

    def __init__(self, length: int = 48) -> None:
        super().__init__()
        self.weight = torch.randn(length, 4, generator=torch.Generator().manual_seed(0))

    def forward(self, bases):
        return (bases * self.weight).sum((1, 2))


class Network(nn.Module):
    """Layers that DeepLIFT knows; with `is_hidden`, one that it does not."""

    def __init__(self, is_hidden: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.relu, self.last = nn.Linear(48 * 4, 6), nn.ReLU(), nn.Linear(6, 1)
        self.is_hidden = is_hidden

    def forward(self, bases):
        hidden = self.relu(self.first(bases.flatten(1)))
        if self.is_hidden:
            hidden = hidden.square() * hidden.mean(1, keepdim=True)
        return self.last(hidden)[:, 0]


def one_hot(seed: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.eye(4)[torch.randint(0, 4, (count, 48), generator=generator)]


@pytest.mark.parametrize("method", ["ig", "deeplift", "gradientshap"])
def test_a_sum_is_shared_as_it_is_added_up(method):
    function, bases, references = Linear(), one_hot(1), one_hot(2)
    values, delta, _ = attribute(function, bases, references, method)
    expected = (bases - references) * function.weight
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)
    assert abs(delta) < 1e-4


def test_gradients_of_a_sum_are_its_weights():
    function, bases = Linear(), one_hot(1)
    zeros = torch.zeros_like(bases)
    values, delta, _ = attribute(function, bases, zeros, "inputxgradient")
    torch.testing.assert_close(values, bases * function.weight)
    assert abs(delta) < 1e-4
    values, *_ = attribute(function, bases, zeros, "saliency")
    torch.testing.assert_close(values, bases * function.weight.abs())


def test_several_references_are_averaged_over():
    function, bases, references = Network(False), one_hot(1), one_hot(5, 3)
    together, *_ = attribute(function, bases, references, "ig")
    apart = [attribute(function, bases, one[None], "ig")[0] for one in references]
    torch.testing.assert_close(together, sum(apart) / 3)
    sampled, *_ = attribute(
        function, bases, references, "gradientshap", Settings(steps=1500, batch_steps=50)
    )
    assert np.corrcoef(together.flatten(), sampled.flatten())[0, 1] > 0.99


def test_stretches_are_taken_away_one_by_one():
    function, bases, references = Network(True), one_hot(1), one_hot(2)
    values, *_ = attribute(function, bases, references, "ablation")
    with torch.no_grad():
        for low in (0, 16, 32):
            without = bases.clone()
            without[:, low : low + 16] = references[:, low : low + 16]
            lost = float(function(bases) - function(without))
            assert float(values[:, low : low + 16].sum()) == pytest.approx(lost, abs=1e-5)
            assert values[:, low : low + 16].std() < 1e-6
        values, *_ = attribute(function, bases, references, "occlusion")
        lost = []
        for low in (0, 16):
            without = bases.clone()
            without[:, low : low + 32] = references[:, low : low + 32]
            lost.append(float(function(bases) - function(without)) / 32)
    shares = values[0].sum(-1)
    assert shares[:16].numpy() == pytest.approx(lost[0], abs=1e-5)
    assert shares[16:32].numpy() == pytest.approx(sum(lost) / 2, abs=1e-5)


def test_deeplift_is_refused_where_it_does_not_add_up():
    bases, references = one_hot(1), one_hot(2)
    _, delta, _ = attribute(Network(False), bases, references, "deeplift")
    assert abs(delta) < 1e-5
    with pytest.raises(WorkError, match="DeepLift is not valid for this model"):
        attribute(Network(True), bases, references, "deeplift")


def test_an_unknown_method_is_named():
    with pytest.raises(InputError, match="method 'magic', expected one of ig, saliency"):
        attribute(Linear(), one_hot(0), one_hot(1), "magic")


def test_global_generators_are_left_as_they_were():
    function = Network(True)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, *_ = attribute(function, one_hot(1), one_hot(2, 4), "gradientshap")
    assert torch.equal(torch.rand(1), expected)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    again, *_ = attribute(function, one_hot(1), one_hot(2, 4), "gradientshap")
    assert torch.equal(first, again)


@pytest.fixture(scope="module")
def explainer(tiny_bundle):
    model = make_tiny(tiny_bundle)
    vectors = make_vectors(model, tiny_bundle)
    return Explainer(model, tiny_bundle, window_bp=2048, vectors=vectors)


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"deeplift"}))
def test_each_method_explains_a_gene_and_says_what_is_missing(explainer, method):
    found = attribute_gene(
        explainer, "g0004", method=method, steps=4, n_references=2, batch_steps=4
    )
    assert found.values.shape == (2048,)
    assert np.abs(found.values).max() > 0
    change = found.output - found.baseline_output
    assert found.values.sum() - change == pytest.approx(found.delta, abs=1e-5)
    assert found.method == METHODS[method].label
    assert found.baseline == (METHODS[method].reference or "uniform")


def test_deeplift_does_not_know_this_models_operations(explainer):
    with pytest.raises(WorkError, match="not valid for this model"):
        attribute_gene(explainer, "g0004", method="deeplift")


def test_references(explainer):
    function = explainer.forward_function("g0004")
    assert (function.references("uniform") == 0.25).all()
    assert not function.references("masked").any()
    shuffled = function.references("shuffle", 3)
    own = function.window.tokens[0].tolist()
    pairs = sorted(itertools.pairwise(own))
    for one in shuffled:
        tokens = one.argmax(-1).tolist()
        assert tokens != own
        assert sorted(itertools.pairwise(tokens)) == pairs
    assert torch.equal(shuffled, function.references("shuffle", 3))
    assert not torch.equal(shuffled, function.references("shuffle", 3, seed=1))


@pytest.mark.slow
def test_ablation_is_what_a_changed_window_loses(explainer):
    found = attribute_gene(explainer, "g0004", method="ablation")
    function = explainer.forward_function("g0004")
    output = VariantOutput(function)
    for low in range(900, 1100, 16):
        at = low // 16 * 16
        lost = found.output - float(output(at, torch.full((1, 16, 4), 0.25)))
        assert found.values[at : at + 16].sum() == pytest.approx(lost, abs=2e-5)

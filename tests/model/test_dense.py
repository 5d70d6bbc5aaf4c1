"""The fast path against `nn.Linear` in float64, forward and backward."""

import pytest
import torch
from torch import nn

from genesplice.model import dense
from genesplice.model.dense import Dense, SquaredReluDense, uses_onednn


def reference(layer, x):
    """The same layer in float64 by plain torch: output and all gradients."""
    x = x.detach().double().requires_grad_()
    weight = layer.weight.detach().double().requires_grad_()
    bias = None if layer.bias is None else layer.bias.detach().double().requires_grad_()
    out = nn.functional.linear(x, weight, bias)
    if isinstance(layer, SquaredReluDense):
        out = out.clamp_min(0) ** 2
    (out * torch.linspace(-1, 1, out.numel()).double().view_as(out)).sum().backward()
    return out, x.grad, weight.grad, None if bias is None else bias.grad


def fast(layer, x):
    x = x.detach().requires_grad_()
    out = layer(x)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    return out, x.grad, layer.weight.grad, None if layer.bias is None else layer.bias.grad


@pytest.mark.parametrize("kind", [Dense, SquaredReluDense])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("n", "out"), [(7, 5), (64, 256), (256, 64), (33, 33)])
@pytest.mark.parametrize("shape", [(3,), (2, 50), (1, 1), (2, 3, 17)])
@pytest.mark.parametrize("is_tall", [True, False])
def test_equal_to_linear_and_its_gradients(monkeypatch, kind, bias, n, out, shape, is_tall):
    monkeypatch.setattr(dense, "multiplies_tall", lambda rows, weight: is_tall)
    torch.manual_seed(0)
    layer, x = kind(n, out, bias=bias), torch.randn(*shape, n)
    for found, wanted in zip(fast(layer, x), reference(layer, x), strict=True):
        if wanted is None:
            assert found is None
        else:
            torch.testing.assert_close(found.double(), wanted, atol=1e-4, rtol=1e-4)


def test_a_view_is_as_good_as_a_copy():
    layer, x = Dense(16, 8), torch.randn(4, 16, 10)
    torch.testing.assert_close(layer(x.transpose(1, 2)), layer(x.transpose(1, 2).contiguous()))


@pytest.mark.parametrize("kind", [Dense, SquaredReluDense])
def test_float64_takes_the_plain_way_and_passes_gradcheck(kind):
    layer, x = kind(4, 3).double(), torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert not uses_onednn(x, layer.weight)
    assert torch.autograd.gradcheck(layer, (x,))


def test_no_rows_give_no_rows():
    assert Dense(4, 3)(torch.zeros(0, 4)).shape == (0, 3)


def test_the_fast_way_is_taken_on_cpu():
    layer = Dense(4, 3)
    assert uses_onednn(torch.zeros(2, 4), layer.weight) == torch.backends.mkldnn.is_available()

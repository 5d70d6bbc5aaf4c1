"""Convolutions along the genome: both ways of making their gradients, against float64."""

import copy

import pytest
import torch
from torch import nn

from genesplice.model import base_path


def gradients(layer, x, dtype):
    conv = copy.deepcopy(layer).to(dtype)
    x = x.detach().to(dtype).requires_grad_()
    out = base_path.convolve(x * 1, conv)
    (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)).sum().backward()
    return out, x.grad, conv.weight.grad, conv.bias.grad


@pytest.mark.parametrize("is_tall", [True, False])
@pytest.mark.parametrize(("batch", "length"), [(1, 40), (3, 70)])
@pytest.mark.parametrize(
    ("channels", "width", "kernel", "step", "dilation"),
    [(8, 8, 5, 1, 1), (8, 8, 5, 1, 8), (4, 6, 5, 1, 3), (8, 6, 15, 8, 1), (3, 8, 7, 2, 1)],
)
def test_gradients_are_those_of_a_convolution(
    monkeypatch, is_tall, batch, length, channels, width, kernel, step, dilation
):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, width, (1, kernel), stride=(1, step), dilation=(1, dilation))
    x = torch.randn(batch, length, channels)
    # In float64 nothing but torch's own convolution runs.
    monkeypatch.setattr(base_path, "multiplies_tall", lambda x, weight: False)
    wanted = gradients(conv, x, torch.float64)
    monkeypatch.setattr(base_path, "multiplies_tall", lambda x, weight: is_tall)
    for found, exact in zip(gradients(conv, x, torch.float32), wanted, strict=True):
        torch.testing.assert_close(found.double(), exact, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_window_inside_a_longer_one_has_its_own_gradient(monkeypatch, step, batch):
    monkeypatch.setattr(base_path, "multiplies_tall", lambda x, weight: True)
    conv = nn.Conv2d(8, 8, (1, 5), stride=(1, step), dilation=(1, 2 if step == 1 else 1))
    torch.manual_seed(0)
    whole = torch.randn(batch, 60, 8, requires_grad=True)
    found = []
    for part in (whole[:, 10:50], whole[:, 10:50].clone()):
        conv.zero_grad()
        base_path.convolve(part, conv).square().sum().backward()
        found.append(conv.weight.grad.clone())
    torch.testing.assert_close(*found)

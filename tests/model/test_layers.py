"""Layers against the definitions that they abbreviate, in float64."""

import pytest
import torch
from torch import nn

from genesplice.model.sequence import BasePath, ConvBlock, SquaredReluLinear, Stem


def test_squared_relu_passes_gradcheck():
    layer = SquaredReluLinear(4, 3).double()
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.equal(
        layer(x), nn.functional.linear(x, layer.weight, layer.bias).clamp_min(0) ** 2
    )
    assert torch.autograd.gradcheck(layer, (x,))


@pytest.mark.parametrize("bin_bp", [4, 16])
def test_the_stem_is_a_strided_convolution(bin_bp):
    stem = Stem(bin_bp, 6, channels=5).double()
    x = torch.randn(2, 256 + stem.left + stem.right, 5, dtype=torch.float64)
    kernel = stem.bases.weight.view(-1, 5, stem.kernel_bp)
    hidden = nn.functional.conv1d(x.mT, kernel, stem.bases.bias, stride=stem.stride_bp).mT
    patches = nn.functional.gelu(hidden).reshape(2, 256 // bin_bp, -1)
    torch.testing.assert_close(stem(x), stem.patch(patches))


@pytest.mark.parametrize("dilation", [1, 8])
def test_a_convolution_block_by_loops(dilation):
    block = ConvBlock(3, dilation).double()
    x = torch.randn(1, 60, 3, dtype=torch.float64)
    normed, out = block.norm(x)[0], block(x)[0]
    assert len(out) == 60 - 2 * block.margin_bp
    for i in range(len(out)):
        taps = [block.conv.weight[:, :, 0, k] @ normed[i + k * dilation] for k in range(5)]
        hidden = (sum(taps) + block.conv.bias).clamp_min(0) ** 2
        expected = x[0, i + block.margin_bp] + block.contract(hidden)
        torch.testing.assert_close(out[i], expected)


def test_the_base_path_shortens_by_what_it_promises():
    path = BasePath(4, 3, 16, 8)
    bases = path.down(torch.randn(1, 320 + 2 * path.down_bp, 4))
    assert bases.shape == (1, 320, 3)
    bins = path.to_bins(bases)
    assert bins.shape == (1, 20, 8)
    assert path.up(bases, bins).shape == (1, 320 - 2 * path.up_bp, 3)

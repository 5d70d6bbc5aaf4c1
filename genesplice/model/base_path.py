"""The base-resolution path: narrow dilated convolutions at 1 bp, below and above the bins.

    bases ─ lift ─ convolutions ─┬──────────────────────────────► + ─ convolutions ─► bases
                                 └ patch ─► (into the bins)   ▲
                                            (out of the bins) ┘ unpatch

Nothing is padded inside: every convolution eats its reach from both ends, and the caller hands in
that much more. So chunks and window ends follow one rule.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from genesplice.model.dense import Dense, SquaredReluDense, multiplies_tall

LIFT_BP = 9
KERNEL = 5
DOWN_DILATIONS = (1, 2, 4, 8, 16)
UP_DILATIONS = (32, 8, 2, 1)


def convolve(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Along the length of (batch, length, channels), which stays contiguous in its channels."""
    step, dilation = conv.stride[1], conv.dilation[1]
    dense = step == 1 and x.requires_grad and x.is_contiguous()
    strided = step > 1 and dilation == 1 and x.stride()[1:] == (x.shape[2], 1)
    if (dense or strided) and multiplies_tall(x, conv.weight):
        return _Convolution.apply(x, conv.weight, conv.bias, step, dilation)
    return conv(x.transpose(1, 2)[:, :, None]).squeeze(2).transpose(1, 2)


class _Convolution(torch.autograd.Function):
    """A convolution whose weights get their gradient from products of tall matrices.

    On Intel's processors in 1.8 ms where oneDNN takes 3.7 (64 channels, 4,096 bp). With steps of 8
    bases that gradient was a third of a small encoder's training step, and is a twelfth.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, step, dilation):
        ctx.save_for_backward(x, weight)
        ctx.step, ctx.dilation = step, dilation
        out = F.conv2d(
            x.transpose(1, 2)[:, :, None], weight, bias, stride=(1, step), dilation=(1, dilation)
        )
        return out.squeeze(2).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.ops.aten.convolution_backward(
                grad.transpose(1, 2)[:, :, None], x.transpose(1, 2)[:, :, None], weight, None,
                [1, ctx.step], [0, 0], [1, ctx.dilation], False, [0, 0], 1, [True, False, False],
            )[0].squeeze(2).transpose(1, 2)  # fmt: skip
        if ctx.needs_input_grad[1]:
            if ctx.step == 1:
                product = _product_of_all(x, grad, weight.shape[3], ctx.dilation)
            else:
                product = _product_by_step(x, grad, weight.shape[3], ctx.step)
            width, channels, _, kernel = weight.shape
            grad_weight = product.view(width, kernel, channels).transpose(1, 2)[:, :, None]
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, 1))
        return grad_x, grad_weight, grad_bias, None, None


def _product_of_all(x: Tensor, grad: Tensor, kernel: int, dilation: int) -> Tensor:
    """Gradient (width, kernel x channels) from one copy of all that each output has heard."""
    (batch, length, _), channels = grad.shape, x.shape[2]
    heard = torch.as_strided(
        x, (batch, length, kernel, channels),
        (x.stride(0), channels, dilation * channels, 1), x.storage_offset(),
    )  # fmt: skip
    return grad.flatten(0, 1).t() @ heard.reshape(-1, kernel * channels)


def _product_by_step(x: Tensor, grad: Tensor, kernel: int, step: int) -> Tensor:
    """The same without a copy: a product for each step that the kernel reaches into."""
    channels = x.shape[2]
    product = grad.new_zeros(grad.shape[2], kernel * channels)
    for first in range(0, kernel * channels, step * channels):
        part = product[:, first : first + step * channels]
        for row, out in zip(x, grad, strict=True):
            heard = torch.as_strided(
                row, (len(out), part.shape[1]), (step * channels, 1), row.storage_offset() + first
            )
            part.addmm_(out.t(), heard)
    return product


class ConvBlock(nn.Module):
    """Pre-norm dilated convolution and pointwise perceptron, each added to its input.

    Shortens its input by `reach_bp` on both sides.
    """

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.reach_bp = (KERNEL - 1) // 2 * dilation
        self.conv_norm = nn.LayerNorm(width)
        self.conv = nn.Conv2d(width, width, (1, KERNEL), dilation=(1, dilation))
        self.mlp_norm = nn.LayerNorm(width)
        self.expand = SquaredReluDense(width, 2 * width)
        self.contract = Dense(2 * width, width)

    def forward(
        self, x: Float[Tensor, "batch length width"]
    ) -> Float[Tensor, "batch shorter width"]:
        """Return the inner positions."""
        mixed = F.gelu(convolve(self.conv_norm(x), self.conv))
        x = x[:, self.reach_bp : x.shape[1] - self.reach_bp] + mixed
        return x + self.contract(self.expand(self.mlp_norm(x)))


class BasePath(nn.Module):
    """Convolutions at 1 bp that feed the bins and read them back."""

    def __init__(self, channels: int, width: int, bin_bp: int, bin_width: int) -> None:
        super().__init__()
        self.bin_bp, self.width = bin_bp, width
        self.lift = nn.Conv2d(channels, width, (1, LIFT_BP))
        self.down_blocks = nn.ModuleList(ConvBlock(width, d) for d in DOWN_DILATIONS)
        self.patch = Dense(width * bin_bp, bin_width)
        self.unpatch = Dense(bin_width, width * bin_bp)
        self.up_blocks = nn.ModuleList(ConvBlock(width, d) for d in UP_DILATIONS)
        self.norm = nn.LayerNorm(width)

    @property
    def down_bp(self) -> int:
        """Bases that `down` eats on each side."""
        return (LIFT_BP - 1) // 2 + _reach(DOWN_DILATIONS)

    @property
    def up_bp(self) -> int:
        """Bases that `up` eats on each side."""
        return _reach(UP_DILATIONS)

    def down(
        self, inputs: Float[Tensor, "batch length channels"]
    ) -> Float[Tensor, "batch shorter width"]:
        """Base vectors before the bins, `down_bp` fewer on each side."""
        x = convolve(inputs, self.lift)
        for block in self.down_blocks:
            x = block(x)
        return x

    def to_bins(
        self, bases: Float[Tensor, "batch length width"]
    ) -> Float[Tensor, "batch bins bin_width"]:
        """What each bin hears from its bases."""
        return self.patch(bases.reshape(bases.shape[0], -1, self.width * self.bin_bp))

    def up(
        self,
        bases: Float[Tensor, "batch length width"],
        bins: Float[Tensor, "batch bins bin_width"],
    ) -> Float[Tensor, "batch shorter width"]:
        """Base vectors after the bins, `up_bp` fewer on each side of the same stretch."""
        x = bases + self.unpatch(bins).view(bins.shape[0], -1, self.width)
        for block in self.up_blocks:
            x = block(x)
        return self.norm(x)


def _reach(dilations: Sequence[int]) -> int:
    return sum((KERNEL - 1) // 2 * dilation for dilation in dilations)

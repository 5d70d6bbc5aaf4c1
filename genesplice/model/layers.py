"""The layers that every level is made of.

The base-resolution path, narrow dilated convolutions at 1 bp, lies below and above the bins:

    bases ─ lift ─ convolutions ─┬──────────────────────────────► + ─ convolutions ─► bases
                                 └ patch ─► (into the bins)   ▲
                                            (out of the bins) ┘ unpatch

Nothing is padded inside: stem and convolutions take their margins from the caller.

Linear layers and convolutions are torch's own. Calling oneDNN directly, with a convolution's
backward pass written by hand, took 3 to 10 % off a training step on an AMD EPYC (AVX-512 or AVX2)
and nothing off that of a small encoder: not worth 150 lines.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from genesplice.model.attention import AttentionPlan, Rotations, attend, rotate

LIFT_BP = 9
KERNEL = 5
DOWN_DILATIONS = (1, 2, 4, 8, 16)
UP_DILATIONS = (32, 8, 2, 1)


class SquaredReluLinear(nn.Linear):
    """y = max(x W' + b, 0)^2: a good and cheap activation for a transformer.

    Source: So et al., Primer: searching for efficient transformers, 2021, section 4.
    """

    def forward(self, input: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows out"]:
        """Apply the linear map and the activation."""
        return F.relu(super().forward(input), inplace=True).square()


class Stem(nn.Module):
    """Channels to bins: a strided convolution that sees every base, then one patch a bin.

    Needs `left` bases before its first bin and `right` after its last. The convolution is a linear
    map of overlapping pieces: its gradient is then a product of matrices.
    """

    kernel_bp = 15

    def __init__(self, bin_bp: int, width: int, channels: int = 4) -> None:
        super().__init__()
        self.stride_bp = min(bin_bp, 8)
        hidden = min(width, 64) if bin_bp > self.stride_bp else width
        self.bases = nn.Linear(channels * self.kernel_bp, hidden)
        self.patch = nn.Linear(hidden * (bin_bp // self.stride_bp), width)

    @property
    def left(self) -> int:
        """Bases needed before the first bin."""
        return (self.kernel_bp - self.stride_bp) // 2

    @property
    def right(self) -> int:
        """Bases needed after the last bin."""
        return self.kernel_bp - self.stride_bp - self.left

    def forward(
        self, inputs: Float[Tensor, "batch length channels"]
    ) -> Float[Tensor, "batch bins width"]:
        """Bins of an input that carries `left` and `right` extra bases."""
        pieces = inputs.unfold(1, self.kernel_bp, self.stride_bp).flatten(2)
        hidden = F.gelu(self.bases(pieces))
        return self.patch(hidden.reshape(hidden.shape[0], -1, self.patch.in_features))


class Block(nn.Module):
    """Pre-norm transformer block with rotary positions.

    No dropout inside attention: it would leave the fused kernel.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.expand = SquaredReluLinear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], plan: AttentionPlan, rotations: Rotations
    ) -> Float[Tensor, "batch tokens width"]:
        """Attention, then the two-layer perceptron, each added to its input."""
        q, k, v = self.project(x, rotations)
        mixed = attend(q, k, v, plan).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.out(mixed))
        return x + self.dropout(self.contract(self.expand(self.mlp_norm(x))))

    def project(
        self, x: Float[Tensor, "batch tokens width"], rotations: Rotations
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys (both rotated) and values, each (batch, heads, tokens, head width)."""
        batch, length, _ = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return rotate(q, rotations), rotate(k, rotations), v


class Merge(nn.Module):
    """`factor` neighbouring tokens to one: concatenated, normalised, projected.

    Tokens that are not real count as zero; a merged token is real if any part of it is.
    """

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width * factor, width)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], is_real: Bool[Tensor, "batch tokens"]
    ) -> tuple[Float[Tensor, "batch merged width"], Bool[Tensor, "batch merged"]]:
        """Return the merged tokens and which of them are real."""
        parts = self.norm(x) * is_real[..., None]
        merged_real = is_real.unflatten(1, (-1, self.factor)).any(-1)
        merged = self.project(parts.reshape(*merged_real.shape, -1))
        return merged * merged_real[..., None], merged_real


def _convolve(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Along the length of (batch, length, channels), which stays contiguous in its channels."""
    return conv(x.transpose(1, 2)[:, :, None]).squeeze(2).transpose(1, 2)


class ConvBlock(nn.Module):
    """Pre-norm dilated convolution and pointwise perceptron, each added to its input.

    Shortens its input by `margin_bp` on both sides.
    """

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.margin_bp = _margin((dilation,))
        self.conv_norm = nn.LayerNorm(width)
        self.conv = nn.Conv2d(width, width, (1, KERNEL), dilation=(1, dilation))
        self.mlp_norm = nn.LayerNorm(width)
        self.expand = SquaredReluLinear(width, 2 * width)
        self.contract = nn.Linear(2 * width, width)

    def forward(
        self, x: Float[Tensor, "batch length width"]
    ) -> Float[Tensor, "batch shorter width"]:
        """Return the inner positions."""
        mixed = F.gelu(_convolve(self.conv_norm(x), self.conv))
        x = x[:, self.margin_bp : x.shape[1] - self.margin_bp] + mixed
        return x + self.contract(self.expand(self.mlp_norm(x)))


class BasePath(nn.Module):
    """Convolutions at 1 bp that feed the bins and receive from them."""

    def __init__(self, channels: int, width: int, bin_bp: int, bin_width: int) -> None:
        super().__init__()
        self.bin_bp, self.width = bin_bp, width
        self.lift = nn.Conv2d(channels, width, (1, LIFT_BP))
        self.down_blocks = nn.ModuleList(ConvBlock(width, d) for d in DOWN_DILATIONS)
        self.patch = nn.Linear(width * bin_bp, bin_width)
        self.unpatch = nn.Linear(bin_width, width * bin_bp)
        self.up_blocks = nn.ModuleList(ConvBlock(width, d) for d in UP_DILATIONS)
        self.norm = nn.LayerNorm(width)

    @property
    def down_bp(self) -> int:
        """Bases that `down` shortens its input by on each side."""
        return (LIFT_BP - 1) // 2 + _margin(DOWN_DILATIONS)

    @property
    def up_bp(self) -> int:
        """Bases that `up` shortens its input by on each side."""
        return _margin(UP_DILATIONS)

    def down(
        self, inputs: Float[Tensor, "batch length channels"]
    ) -> Float[Tensor, "batch shorter width"]:
        """Base vectors before the bins, `down_bp` fewer on each side."""
        x = _convolve(inputs, self.lift)
        for block in self.down_blocks:
            x = block(x)
        return x

    def to_bins(
        self, bases: Float[Tensor, "batch length width"]
    ) -> Float[Tensor, "batch bins bin_width"]:
        """Each bin's message from its bases."""
        return self.patch(bases.reshape(bases.shape[0], -1, self.width * self.bin_bp))

    def up(
        self,
        bases: Float[Tensor, "batch length width"],
        bins: Float[Tensor, "batch bins bin_width"],
    ) -> Float[Tensor, "batch shorter width"]:
        """Base vectors after the bins of the same interval, `up_bp` fewer on each side."""
        x = bases + self.unpatch(bins).view(bins.shape[0], -1, self.width)
        for block in self.up_blocks:
            x = block(x)
        return self.norm(x)


def _margin(dilations: Sequence[int]) -> int:
    return sum((KERNEL - 1) // 2 * dilation for dilation in dilations)

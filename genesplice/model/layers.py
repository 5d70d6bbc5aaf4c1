"""The layers that every level is made of."""

import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float
from torch import Tensor, nn

from genesplice.model.attention import AttentionPlan, attend, rotate
from genesplice.model.base_path import convolve
from genesplice.model.dense import Dense, SquaredReluDense


class Stem(nn.Module):
    """Channels to bins: a strided convolution that sees every base, then one patch a bin.

    Reads `left` bases before its first bin and `right` after its last: the caller passes them
    (N where there is no sequence), nothing is padded here.
    """

    kernel_bp = 15

    def __init__(self, bin_bp: int, width: int, channels: int = 4) -> None:
        super().__init__()
        self.stride_bp = min(bin_bp, 8)
        hidden = min(width, 64) if bin_bp > self.stride_bp else width
        self.bases = nn.Conv2d(channels, hidden, (1, self.kernel_bp), stride=(1, self.stride_bp))
        self.patch = Dense(hidden * (bin_bp // self.stride_bp), width)

    @property
    def left(self) -> int:
        """Bases read before the first bin."""
        return (self.kernel_bp - self.stride_bp) // 2

    @property
    def right(self) -> int:
        """Bases read after the last bin."""
        return self.kernel_bp - self.stride_bp - self.left

    def forward(
        self, inputs: Float[Tensor, "batch length channels"]
    ) -> Float[Tensor, "batch bins width"]:
        """Bins of an input that carries `left` and `right` extra bases."""
        hidden = F.gelu(convolve(inputs, self.bases))
        return self.patch(hidden.reshape(hidden.shape[0], -1, self.patch.in_features))


class Block(nn.Module):
    """Pre-norm transformer block with rotary positions.

    No dropout inside attention: it would leave the fused kernel.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = Dense(width, 3 * width, bias=False)
        self.out = Dense(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.expand = SquaredReluDense(width, 4 * width)
        self.contract = Dense(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        plan: AttentionPlan,
        rotations: Complex[Tensor, "tokens half"],
    ) -> Float[Tensor, "batch tokens width"]:
        """Attention, then the two-layer perceptron, each added to its input."""
        q, k, v = self.project(x, rotations)
        mixed = attend(q, k, v, plan).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.out(mixed))
        return x + self.dropout(self.contract(self.expand(self.mlp_norm(x))))

    def project(
        self, x: Float[Tensor, "batch tokens width"], rotations: Complex[Tensor, "tokens half"]
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
        self.project = Dense(width * factor, width)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], is_real: Bool[Tensor, "batch tokens"]
    ) -> tuple[Float[Tensor, "batch merged width"], Bool[Tensor, "batch merged"]]:
        """Return the merged tokens and which of them are real."""
        parts = (self.norm(x) * is_real[..., None]).reshape(
            x.shape[0], -1, self.project.in_features
        )
        merged_real = is_real.view(x.shape[0], -1, self.factor).any(-1)
        return self.project(parts) * merged_real[..., None], merged_real

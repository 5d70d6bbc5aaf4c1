"""What every sequence encoder is and is made of: channels of one strand in, bins out.

The base-resolution path, narrow dilated convolutions at 1 bp, lies below and above the bins:

    bases ─ lift ─ convolutions ─┬──────────────────────────────► + ─ convolutions ─► bases
                                 └ patch ─► (into the bins)   ▲
                                            (out of the bins) ┘ unpatch

Nothing is padded inside: stem and convolutions take their margins from the caller.

Linear layers and convolutions are torch's own. Calling oneDNN directly, with a convolution's
backward pass written by hand, took 3 to 10 % off a training step on an AMD EPYC (AVX-512 or AVX2)
and nothing off that of a small encoder: not worth 150 lines.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from genesplice.config.model import COMPLEMENT_COUNTS, REGION_BP, RELATIVE_GROUPS, ModelConfig
from genesplice.errors import require
from genesplice.model.attention import AttentionPlan, Rotations, attend, make_plan, rope, rotate

N_TOKEN = 4
MASK_TOKEN = 5
N_PHASES = 5
RELATIVE_CHANNELS = 6 * RELATIVE_GROUPS
"""Of each group shares of A, C, G, T and gaps, and how many relatives are aligned."""

Tokens = UInt8[Tensor, "batch length"]
Columns = UInt8[Tensor, "batch length groups 5"]
Inputs = Float[Tensor, "batch length channels"]

LIFT_BP = 5
KERNEL = 5
DOWN_DILATIONS = (1, 4, 16)
UP_DILATIONS = (16, 2)

Bases = Float[Tensor, "batch length base_width"]
Shorter = Float[Tensor, "batch shorter base_width"]
Bins = Float[Tensor, "batch bins width"]
IsReal = Bool[Tensor, "batch bins"]


# --- channels: bases, and what is known of them on the strand that is read ---


class InputChannels(nn.Module):
    """Tokens to channels: A, C, G, T one-hot, N uniform, a masked base zero.

    With `annotation`, four more: coding phase 1-3 and gene body on this strand. With `relatives`,
    six more for each group of relatives: how often A, C, G, T and a gap stand in the alignment
    column, and n / (n + 1) of the n relatives that are aligned there. Of groups that are not in
    `groups_read` they are zero, as where nothing is aligned.
    """

    base_table: Tensor
    phase_table: Tensor
    groups_read: Tensor

    def __init__(self, annotation: bool = False, relatives: bool = False) -> None:
        super().__init__()
        self.annotation, self.relatives = annotation, relatives
        self.count = 4 + (N_PHASES - 1) * annotation + RELATIVE_CHANNELS * relatives
        self.register_buffer("groups_read", torch.ones(RELATIVE_GROUPS), persistent=False)
        table = torch.cat([torch.eye(4), torch.full((1, 4), 0.25), torch.zeros(1, 4)])
        self.register_buffer("base_table", table, persistent=False)
        self.register_buffer("phase_table", torch.eye(N_PHASES)[:, 1:], persistent=False)

    def forward(
        self, tokens: Tokens, phase: Tokens | None = None, columns: Columns | None = None
    ) -> Inputs:
        """The channels; without `phase` nothing is annotated, without `columns` aligned."""
        channels = [F.embedding(tokens.int(), self.base_table)]
        if self.annotation:
            phase = torch.zeros_like(tokens) if phase is None else phase
            channels.append(F.embedding(phase.int(), self.phase_table))
        if self.relatives and columns is not None and columns.shape[2]:
            channels.append(self._frequencies(columns))
        elif self.relatives:
            channels.append(channels[0].new_zeros(*tokens.shape, RELATIVE_CHANNELS))
        return torch.cat(channels, -1)

    def _frequencies(self, columns: Columns) -> Float[Tensor, "batch length relatives"]:
        counts = columns * self.groups_read[:, None]
        aligned = counts.sum(-1, keepdim=True)
        shares = torch.cat([counts / aligned.clamp(min=1), aligned / (aligned + 1)], -1)
        return shares.flatten(2)


def conserved(
    inputs: Float[Tensor, "rows length channels"],
) -> Float[Tensor, "rows length relatives"]:
    """Of every group of relatives: how many are aligned, n / (n + 1), and how many of them agree.

    The channels are those of an encoder that reads relatives. Where a base is hidden or unknown
    none or a quarter agrees.
    """
    groups = inputs[..., -RELATIVE_CHANNELS:].unflatten(-1, (RELATIVE_GROUPS, 6))
    same = (groups[..., :4] * inputs[..., None, :4]).sum(-1)
    return torch.cat([groups[..., 5], same], -1)


def reverse_columns(columns: Columns) -> Columns:
    """Alignment columns of the other strand, 5' to 3'."""
    return columns.flip(1)[..., COMPLEMENT_COUNTS]


def fill_unknown(inputs: Inputs, left: int, right: int) -> Float[Tensor, "batch longer channels"]:
    """Add unknown bases on both ends: uniform over A, C, G, T, no annotation."""
    padded = F.pad(inputs, (0, 0, left, right))
    uniform = torch.full_like(padded[:1, :1, :4], 0.25)
    padded[:, :left, :4] = uniform
    padded[:, padded.shape[1] - right :, :4] = uniform
    return padded


# --- the encoder ---


class EncoderOutput(NamedTuple):
    """Embeddings of one strand of a window; `is_real` is False for bins of nothing but N.

    `bases` is there only where it was asked for and the encoder works at 1 bp somewhere; `inputs`
    are the channels that all of it was made of.
    """

    bins: Bins
    summaries: Float[Tensor, "batch summaries width"]
    regions: Float[Tensor, "batch regions width"]
    is_real: IsReal
    bases: Bases | None = None
    inputs: Inputs | None = None


class SequenceEncoder(nn.Module, ABC):
    """One strand of a window to one vector a bin.

    Parameters
    ----------
    base_width
        Channels of `EncoderOutput.bases`; 0 where there is nothing at 1 bp.
    """

    def __init__(self, sizes: ModelConfig, base_width: int = 0) -> None:
        super().__init__()
        self.bin_bp, self.width, self.base_width = sizes.bin_bp, sizes.width, base_width
        self.channels = InputChannels(sizes.annotation, sizes.relatives)

    def forward(
        self,
        tokens: Tokens,
        phase: Tokens | None = None,
        columns: Columns | None = None,
        *,
        with_bases: bool = False,
    ) -> EncoderOutput:
        """Encode `tokens` (0-3 bases, 4 N or padding, 5 masked), read 5' to 3'.

        `with_bases` asks for vectors at 1 bp too.

        Raises
        ------
        InputError
            If the length is not a multiple of 1,024 bp.
        """
        length = tokens.shape[1]
        is_whole = length > 0 and length % REGION_BP == 0
        require(is_whole, f"a window of {length} bp", f"a multiple of {REGION_BP} bp")
        is_real = (tokens != N_TOKEN).view(tokens.shape[0], -1, self.bin_bp).any(-1)
        inputs = self.channels(tokens, phase, columns)
        return self.encode(inputs, is_real, with_bases=with_bases)

    @abstractmethod
    def encode(self, inputs: Inputs, is_real: IsReal, with_bases: bool = False) -> EncoderOutput:
        """Encode channels made by `channels`: where gradients to the bases begin."""


# --- layers of the transformer ---


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
        self.left = (self.kernel_bp - self.stride_bp) // 2
        self.right = self.kernel_bp - self.stride_bp - self.left
        hidden = min(width, 64) if bin_bp > self.stride_bp else width
        self.bases = nn.Linear(channels * self.kernel_bp, hidden)
        self.patch = nn.Linear(hidden * (bin_bp // self.stride_bp), width)

    def forward(self, inputs: Inputs) -> Bins:
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
        self.heads, self.head_width = heads, width // heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.expand = SquaredReluLinear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Bins, plan: AttentionPlan, rotations: Rotations) -> Bins:
        """Attention, then the two-layer perceptron, each added to its input."""
        q, k, v = self.project(x, rotations)
        return self.finish(x, attend(q, k, v, plan))

    def project(self, x: Bins, rotations: Rotations) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys (both rotated) and values, each (batch, heads, bins, head width)."""
        batch, length, _ = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return rotate(q, rotations), rotate(k, rotations), v

    def finish(self, x: Bins, mixed: Tensor) -> Bins:
        """Add what was attended to (laid out as the values are), then the perceptron."""
        x = x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.contract(self.expand(self.mlp_norm(x))))


def make_blocks(sizes: ModelConfig, count: int) -> nn.ModuleList:
    """So many blocks for one level."""
    return nn.ModuleList(Block(sizes.width, sizes.heads, sizes.dropout) for _ in range(count))


def run_blocks(x: Bins, is_real: IsReal, blocks: nn.ModuleList, half: int | None = None) -> Bins:
    """Tokens of one level through its blocks, `half` to each side or (None) all of them."""
    if not blocks:
        return x
    plan = make_plan(is_real, half)
    heads = cast(Block, blocks[0]).heads
    rotations = rope(x.shape[1], x.shape[2] // heads, x.device)
    for block in blocks:
        x = block(x, plan, rotations)
    return x


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
        self, x: Bins, is_real: IsReal
    ) -> tuple[Float[Tensor, "batch merged width"], Bool[Tensor, "batch merged"]]:
        """Return the merged tokens and which of them are real."""
        parts = self.norm(x) * is_real[..., None]
        merged_real = is_real.unflatten(1, (-1, self.factor)).any(-1)
        merged = self.project(parts.reshape(*merged_real.shape, -1))
        return merged * merged_real[..., None], merged_real


# --- layers at 1 bp ---


def _convolve(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Along the length of (batch, length, channels), which stays contiguous in its channels."""
    return conv(x.transpose(1, 2)[:, :, None]).squeeze(2).transpose(1, 2)


class ConvBlock(nn.Module):
    """A perceptron whose hidden layer is a dilated convolution, pre-norm, added to its input.

    Shortens its input by `margin_bp` on both sides.
    """

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.margin_bp = (KERNEL - 1) // 2 * dilation
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv2d(width, width, (1, KERNEL), dilation=(1, dilation))
        self.contract = nn.Linear(width, width)

    def forward(self, x: Bases) -> Shorter:
        """Return the inner positions."""
        hidden = F.relu(_convolve(self.norm(x), self.conv), inplace=True).square()
        return x[:, self.margin_bp : x.shape[1] - self.margin_bp] + self.contract(hidden)


class BasePath(nn.Module):
    """Convolutions at 1 bp that feed the bins and receive from them.

    `down` shortens its input by `down_bp` on each side, `up` by `up_bp`.
    """

    down_bp = (LIFT_BP - 1) // 2 + (KERNEL - 1) // 2 * sum(DOWN_DILATIONS)
    up_bp = (KERNEL - 1) // 2 * sum(UP_DILATIONS)

    def __init__(self, channels: int, width: int, bin_bp: int, bin_width: int) -> None:
        super().__init__()
        self.bin_bp, self.width = bin_bp, width
        self.lift = nn.Conv2d(channels, width, (1, LIFT_BP))
        self.down_blocks = nn.ModuleList(ConvBlock(width, d) for d in DOWN_DILATIONS)
        self.patch = nn.Linear(width * bin_bp, bin_width)
        self.unpatch = nn.Linear(bin_width, width * bin_bp)
        self.up_blocks = nn.ModuleList(ConvBlock(width, d) for d in UP_DILATIONS)
        self.norm = nn.LayerNorm(width)

    def down(self, inputs: Inputs) -> Shorter:
        """Base vectors before the bins, `down_bp` fewer on each side."""
        return self.down_states(inputs)[-1]

    def down_states(self, inputs: Inputs) -> list[Tensor]:
        """The same with what every layer begins with: the inputs first, the result last."""
        states: list[Tensor] = [inputs]
        for layer, _ in self.down_layers:
            states.append(layer(states[-1]))
        return states

    @property
    def down_layers(self) -> list[tuple[Callable[[Tensor], Tensor], int]]:
        """What `down` runs one after another, and by how much each shortens both sides."""
        margins = [(KERNEL - 1) // 2 * dilation for dilation in DOWN_DILATIONS]
        lift = partial(_convolve, conv=self.lift), (LIFT_BP - 1) // 2
        return [lift, *zip(self.down_blocks, margins, strict=True)]

    def to_bins(self, bases: Bases) -> Bins:
        """Each bin's message from its bases."""
        return self.patch(bases.reshape(bases.shape[0], -1, self.width * self.bin_bp))

    def up(self, bases: Bases, bins: Bins) -> Shorter:
        """Base vectors after the bins of the same interval, `up_bp` fewer on each side."""
        x = bases + self.unpatch(bins).view(bins.shape[0], -1, self.width)
        for block in self.up_blocks:
            x = block(x)
        return self.norm(x)

"""Reference architectures: convolutions, plain attention, k-mer tokens, and Enformer's towers."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genesplice.config.model import REGION_BP, SUMMARY_BP, ModelConfig
from genesplice.model.sequence import (
    Bases,
    Bins,
    ConvBlock,
    EncoderOutput,
    Inputs,
    IsReal,
    SequenceEncoder,
    Stem,
    fill_unknown,
    make_blocks,
    run_blocks,
)


def depth(sizes: ModelConfig) -> int:
    """As many layers as the hierarchical encoder has on all levels."""
    return sizes.bin_layers + sizes.summary_layers + sizes.region_layers + sizes.decoder_layers


class ReferenceEncoder(SequenceEncoder):
    """An encoder that has no summaries and regions: they are means over bins."""

    def output(
        self, bins: Bins, is_real: IsReal, inputs: Inputs, bases: Bases | None = None
    ) -> EncoderOutput:
        """All levels from the bins."""
        bins = bins * is_real[..., None]
        sizes = SUMMARY_BP // self.bin_bp, REGION_BP // self.bin_bp
        summaries, regions = (bins.unflatten(1, (-1, size)).mean(2) for size in sizes)
        return EncoderOutput(bins, summaries, regions, is_real, bases, inputs)


class DilatedCnn(ReferenceEncoder):
    """Dilated convolutions at 1 bp; a bin is the mean of its bases."""

    lift_bp = 9
    dilations: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256)

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__(sizes, sizes.width)
        self.lift = nn.Conv1d(self.channels.count, self.width, self.lift_bp)
        blocks = [ConvBlock(self.width, dilation) for dilation in self.dilations]
        self.margin_bp = self.lift_bp // 2 + sum(block.margin_bp for block in blocks)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(self.width)

    @property
    def receptive_field_bp(self) -> int:
        """Bases that the vector of one base depends on."""
        return 2 * self.margin_bp + 1

    def encode(self, inputs: Inputs, is_real: IsReal, with_bases: bool = False) -> EncoderOutput:
        """Run the convolutions over the whole window."""
        padded = fill_unknown(inputs, self.margin_bp, self.margin_bp)
        x = self.lift(padded.transpose(1, 2)).transpose(1, 2).contiguous()
        for block in self.blocks:
            x = block(x)
        bases = self.norm(x)
        bins = bases.unflatten(1, (-1, self.bin_bp)).mean(2)
        return self.output(bins, is_real, inputs, bases if with_bases else None)


class ShortCnn(DilatedCnn):
    """As `DilatedCnn` without dilation: some 30 bp and no more."""

    dilations = (1, 1, 1, 1, 1)


class PlainAttention(ReferenceEncoder):
    """Bins and one stack of global attention."""

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__(sizes)
        self.stem = Stem(self.bin_bp, self.width, self.channels.count)
        self.blocks = make_blocks(sizes, depth(sizes))
        self.norm = nn.LayerNorm(self.width)

    def encode(self, inputs: Inputs, is_real: IsReal, with_bases: bool = False) -> EncoderOutput:
        """Every bin may look at every other."""
        x = self.stem(fill_unknown(inputs, self.stem.left, self.stem.right)) * is_real[..., None]
        return self.output(self.norm(run_blocks(x, is_real, self.blocks)), is_real, inputs)


class KmerTokens(ReferenceEncoder):
    """Non-overlapping 6-mers, global attention; a bin is the mean over its bases' tokens.

    The embedding of a 6-mer is linear in the product of its bases' channels, so that N and
    gradients have a meaning: one-hot bases select one of 4,096 vectors. A hidden base leaves the
    mean of the four that it could be, and a vector that says which place is hidden: single bases
    can be hidden without their neighbours. Annotation is added after it. Vectors begin as sums of
    a vector for each base in its place: 4,096 vectors of their own must all be met before they say
    anything, which a genome of a few million bases does not last for.

    With `base_width` every token is mapped to a vector for each of its six bases.
    """

    size_bp = 6

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__(sizes, sizes.base_width)
        width, size_bp = self.width, self.size_bp
        self.embed = nn.Linear(4**size_bp, width, bias=False)
        with torch.no_grad():
            self.embed.weight.copy_(_sum_of_bases(size_bp, width))
        self.hidden = nn.Linear(size_bp, width, bias=False)
        nn.init.normal_(self.hidden.weight, std=0.5)
        extra = (self.channels.count - 4) * size_bp
        self.annotate = nn.Linear(extra, width) if extra else None
        self.blocks = make_blocks(sizes, depth(sizes))
        self.norm = nn.LayerNorm(width)
        self.spread = nn.Linear(width, size_bp * self.base_width) if self.base_width else None

    def encode(self, inputs: Inputs, is_real: IsReal, with_bases: bool = False) -> EncoderOutput:
        """Tokens may look at each other; the last one may be cut short by the window."""
        length = inputs.shape[1]
        spare = -length % self.size_bp
        pieces = fill_unknown(inputs, 0, spare).unflatten(1, (-1, self.size_bp))
        is_hidden = pieces[..., :4].sum(-1) == 0
        bases = pieces[..., :4] + 0.25 * is_hidden[..., None]
        product = bases[:, :, 0]
        for i in range(1, self.size_bp):
            product = (product[..., None] * bases[:, :, i, None]).flatten(2)
        x = self.embed(product) + self.hidden(is_hidden.to(product))
        if self.annotate is not None:
            x = x + self.annotate(pieces[..., 4:].flatten(2))
        real = F.pad(is_real.repeat_interleave(self.bin_bp, 1), (0, spare))
        real = real.unflatten(1, (-1, self.size_bp)).any(-1)
        x = self.norm(run_blocks(x * real[..., None], real, self.blocks))
        by_base = x.repeat_interleave(self.size_bp, 1)[:, :length]
        bins = by_base.unflatten(1, (-1, self.bin_bp)).mean(2)
        finest = None
        if self.spread is not None and with_bases:
            finest = self.spread(x).unflatten(2, (self.size_bp, -1)).flatten(1, 2)[:, :length]
        return self.output(bins, is_real, inputs, finest)


def _sum_of_bases(size_bp: int, width: int) -> Float[Tensor, "width kmers"]:
    """For every k-mer, in order of its bases, the sum of random vectors of base and position."""
    vectors = torch.randn(size_bp, 4, width) / size_bp**0.5
    total = vectors[0]
    for vector in vectors[1:]:
        total = (total[:, None] + vector).flatten(0, 1)
    return total.T


class AttentionPool(nn.Module):
    """Two neighbours to one, weighted per channel by a softmax of a linear map of each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.score.weight)

    def forward(self, x: Bins) -> Float[Tensor, "batch half width"]:
        """Halve the length."""
        pairs = x.unflatten(1, (-1, 2))
        return (pairs * self.score(pairs).softmax(2)).sum(2)


class EnformerLike(ReferenceEncoder):
    """Convolution towers to 128 bp, then attention with relative positions.

    Bins finer than 128 bp repeat their summary: Enformer has nothing finer.
    """

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__(sizes)
        width, first = self.width, self.width // 2
        self.stem = nn.Conv1d(self.channels.count, first, 15, padding=7)
        widths = [first + (width - first) * i // 6 for i in range(7)]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(a, b, 5, padding=2) for a, b in zip(widths, [*widths[1:], width], strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(a) for a in widths)
        self.pools = nn.ModuleList(AttentionPool(b) for b in [*widths[1:], width])
        blocks = (RelativeBlock(width, sizes.heads, sizes.dropout) for _ in range(depth(sizes)))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)

    def encode(self, inputs: Inputs, is_real: IsReal, with_bases: bool = False) -> EncoderOutput:
        """Seven times convolve and halve, then attend."""
        x = self.stem(inputs.transpose(1, 2)).transpose(1, 2)
        for convolve, norm, pool in zip(self.convolutions, self.norms, self.pools, strict=True):
            x = pool(convolve(F.gelu(norm(x)).transpose(1, 2)).transpose(1, 2))
        real = is_real.unflatten(1, (-1, SUMMARY_BP // self.bin_bp)).any(-1)
        for block in self.blocks:
            x = block(x, real)
        bins = self.norm(x).repeat_interleave(SUMMARY_BP // self.bin_bp, 1)
        return self.output(bins, is_real, inputs)


def relative_basis(length: int, count: int, device: torch.device) -> Float[Tensor, "offsets count"]:
    """Functions of the offset j - i = -(length - 1) … length - 1: decays and central masks.

    Half of them symmetric, half with the sign of the offset. Half-lives double from 3 tokens to
    the length; masks widen likewise.

    Source: Avsec et al., Enformer, 2021, methods, 'relative positional basis functions' (without
    its gamma functions).
    """
    if count % 4:
        raise ValueError(f"{count} basis functions: a multiple of 4 is needed")
    offset = torch.arange(-(length - 1), length, device=device, dtype=torch.float32)
    steps = torch.linspace(0, 1, count // 4, device=device)
    half_life = 3.0 * (max(length, 6) / 3.0) ** steps
    decay = torch.exp(-math.log(2) * offset.abs()[:, None] / half_life)
    mask = (offset.abs()[:, None] <= half_life).float()
    symmetric = torch.cat([decay, mask], 1)
    return torch.cat([symmetric, symmetric * offset.sign()[:, None]], 1)


def shift_rows(x: Float[Tensor, "B H T offsets"]) -> Float[Tensor, "B H T T"]:
    """From scores by offset (query i, j - i + T - 1) to scores by key (i, j)."""
    batch, heads, length, _ = x.shape
    key = torch.arange(length, device=x.device)
    column = key[None, :] - key[:, None] + length - 1
    return x.gather(3, column.expand(batch, heads, length, length))


class RelativeBlock(nn.Module):
    """Pre-norm block: content scores plus relative-position scores, then a perceptron.

    Written out: there is no fused kernel for Enformer's relative positions.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.n_basis = max(4, width // 4 // 4 * 4)
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.position = nn.Linear(self.n_basis, width, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(heads, 1, self.head_width))
        self.position_bias = nn.Parameter(torch.zeros(heads, 1, self.head_width))
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Bins, is_real: IsReal) -> Bins:
        """Tokens that are not real are no keys; a row without any attends to itself."""
        batch, length, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        basis = relative_basis(length, self.n_basis, x.device)
        relative = self.position(basis).view(-1, self.heads, self.head_width).transpose(0, 1)
        content = (q + self.content_bias) @ k.transpose(2, 3)
        by_offset = (q + self.position_bias) @ relative.transpose(1, 2)
        scores = (content + shift_rows(by_offset)) / math.sqrt(self.head_width)
        allowed = is_real[:, None, :] | torch.eye(length, dtype=torch.bool, device=x.device)
        scores = scores.masked_fill(~allowed[:, None], -math.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.dropout(self.out(mixed))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


REFERENCES: dict[str, type[SequenceEncoder]] = {
    "short_cnn": ShortCnn,
    "dilated_cnn": DilatedCnn,
    "plain_attention": PlainAttention,
    "kmer_tokens": KmerTokens,
    "enformer_like": EnformerLike,
}
"""By `ModelConfig.arch`."""

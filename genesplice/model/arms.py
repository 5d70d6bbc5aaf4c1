"""Reference architectures: what people use instead, behind the same readout, graph and heads.

- `short_cnn`: convolutions that see some 30 bp.
- `dilated_cnn`: dilated convolutions at 1 bp, as GPN (Benegas et al., 2023).
- `plain_attention`: the same bins, every bin attends to every other (no hierarchy).
- `kmer_tokens`: non-overlapping 6-mers with global attention, as the Nucleotide Transformer
  (Dalla-Torre et al., 2024).
- `enformer_like`: convolutions with attention pooling to 128 bp, then attention with relative
  positions (Avsec et al., Enformer, 2021).

None is tuned for speed; each is the plain form of its idea.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from genesplice.model.attention import make_plan, rope
from genesplice.model.base_path import ConvBlock
from genesplice.model.layers import Block, Stem
from genesplice.model.relative import RelativeBlock
from genesplice.model.sequence import (
    REGION_BP,
    SUMMARY_BP,
    EncoderOutput,
    SequenceEncoder,
    fill_unknown,
)

__all__ = ["DilatedCnn", "EnformerLike", "KmerTokens", "PlainAttention", "ShortCnn"]

Channels = Float[Tensor, "batch length channels"]
IsReal = Bool[Tensor, "batch bins"]


def _output(
    bins: Float[Tensor, "batch bins width"],
    is_real: IsReal,
    bin_bp: int,
    bases: Float[Tensor, "batch length base_width"] | None = None,
) -> EncoderOutput:
    """Summaries and regions of an encoder that has no such levels: means over bins."""
    bins = bins * is_real[..., None]

    def mean(size_bp: int) -> Tensor:
        return bins.unflatten(1, (-1, size_bp // bin_bp)).mean(2)

    return EncoderOutput(bins, mean(SUMMARY_BP), mean(REGION_BP), is_real, bases)


class DilatedCnn(SequenceEncoder):
    """Dilated convolutions at 1 bp; a bin is the mean of its bases."""

    lift_bp = 9

    def __init__(
        self,
        *,
        bin_bp: int,
        width: int,
        dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256),
        annotation: bool = False,
    ) -> None:
        super().__init__(bin_bp=bin_bp, width=width, annotation=annotation, base_width=width)
        self.lift = nn.Conv1d(self.channels.count, width, self.lift_bp)
        blocks = [ConvBlock(width, dilation) for dilation in dilations]
        self.reach_bp = self.lift_bp // 2 + sum(block.reach_bp for block in blocks)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)

    def levels(
        self, inputs: Channels, is_real: IsReal, *, with_bases: bool = False
    ) -> EncoderOutput:
        """Run the convolutions over the whole window."""
        padded = fill_unknown(inputs, self.reach_bp, self.reach_bp)
        x = self.lift(padded.transpose(1, 2)).transpose(1, 2).contiguous()
        for block in self.blocks:
            x = block(x)
        bases = self.norm(x)
        bins = bases.unflatten(1, (-1, self.bin_bp)).mean(2)
        return _output(bins, is_real, self.bin_bp, bases if with_bases else None)


class ShortCnn(DilatedCnn):
    """As `DilatedCnn` without dilation: some 30 bp and no more."""

    def __init__(self, *, bin_bp: int, width: int, annotation: bool = False) -> None:
        super().__init__(
            bin_bp=bin_bp, width=width, dilations=(1, 1, 1, 1, 1), annotation=annotation
        )


class PlainAttention(SequenceEncoder):
    """Bins and one stack of global attention."""

    def __init__(
        self,
        *,
        bin_bp: int,
        width: int,
        heads: int,
        layers: int,
        annotation: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(bin_bp=bin_bp, width=width, annotation=annotation)
        self.heads = heads
        self.stem = Stem(bin_bp, width, self.channels.count)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def levels(
        self, inputs: Channels, is_real: IsReal, *, with_bases: bool = False
    ) -> EncoderOutput:
        """Every bin may look at every other."""
        x = self.stem(fill_unknown(inputs, self.stem.left, self.stem.right))
        return _output(self.norm(_mix(x, is_real, self.blocks, self.heads)), is_real, self.bin_bp)


class KmerTokens(SequenceEncoder):
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

    def __init__(
        self,
        *,
        bin_bp: int,
        width: int,
        heads: int,
        layers: int,
        annotation: bool = False,
        base_width: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(bin_bp=bin_bp, width=width, annotation=annotation, base_width=base_width)
        self.heads = heads
        self.embed = nn.Linear(4**self.size_bp, width, bias=False)
        with torch.no_grad():
            self.embed.weight.copy_(_sum_of_bases(self.size_bp, width))
        self.hidden = nn.Linear(self.size_bp, width, bias=False)
        nn.init.normal_(self.hidden.weight, std=0.5)
        extra = (self.channels.count - 4) * self.size_bp
        self.annotate = nn.Linear(extra, width) if extra else None
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.spread = nn.Linear(width, self.size_bp * base_width) if base_width else None

    def levels(
        self, inputs: Channels, is_real: IsReal, *, with_bases: bool = False
    ) -> EncoderOutput:
        """Tokens may look at each other; the last one may be cut short by the window."""
        length = inputs.shape[1]
        padded = fill_unknown(inputs, 0, -length % self.size_bp)
        pieces = padded.unflatten(1, (-1, self.size_bp))
        is_hidden = pieces[..., :4].sum(-1) == 0
        bases = pieces[..., :4] + 0.25 * is_hidden[..., None]
        product = bases[:, :, 0]
        for place in range(1, self.size_bp):
            product = (product[..., None] * bases[:, :, place, None]).flatten(2)
        x = self.embed(product) + self.hidden(is_hidden.to(product))
        if self.annotate is not None:
            x = x + self.annotate(pieces[..., 4:].flatten(2))
        real_bases = is_real.repeat_interleave(self.bin_bp, 1)
        real_tokens = F.pad(real_bases, (0, -length % self.size_bp))
        real_tokens = real_tokens.unflatten(1, (-1, self.size_bp)).any(-1)
        x = self.norm(_mix(x, real_tokens, self.blocks, self.heads))
        by_base = x.repeat_interleave(self.size_bp, 1)[:, :length]
        bins = by_base.unflatten(1, (-1, self.bin_bp)).mean(2)
        finest = None
        if self.spread is not None and with_bases:
            finest = self.spread(x).unflatten(2, (self.size_bp, -1)).flatten(1, 2)[:, :length]
        return _output(bins, is_real, self.bin_bp, finest)


def _sum_of_bases(size_bp: int, width: int) -> Float[Tensor, "width kmers"]:
    """For every k-mer, in order of its bases, the sum of random vectors of base and place."""
    vectors = torch.randn(size_bp, 4, width) / size_bp**0.5
    total = vectors[0]
    for place in vectors[1:]:
        total = (total[:, None] + place).flatten(0, 1)
    return total.T


class AttentionPool(nn.Module):
    """Two neighbours to one, weighted per channel by a softmax of a linear map of each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.score.weight)

    def forward(self, x: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch half width"]:
        """Halve the length."""
        pairs = x.unflatten(1, (-1, 2))
        return (pairs * self.score(pairs).softmax(2)).sum(2)


class EnformerLike(SequenceEncoder):
    """Convolution towers to 128 bp, then attention with relative positions.

    Bins finer than 128 bp repeat their summary: Enformer has nothing finer.
    """

    def __init__(
        self,
        *,
        bin_bp: int,
        width: int,
        heads: int,
        layers: int,
        annotation: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(bin_bp=bin_bp, width=width, annotation=annotation)
        first = width // 2
        self.stem = nn.Conv1d(self.channels.count, first, 15, padding=7)
        widths = [first + (width - first) * i // 6 for i in range(7)]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(a, b, 5, padding=2) for a, b in zip(widths, [*widths[1:], width], strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(a) for a in widths)
        self.pools = nn.ModuleList(AttentionPool(b) for b in [*widths[1:], width])
        self.blocks = nn.ModuleList(RelativeBlock(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def levels(
        self, inputs: Channels, is_real: IsReal, *, with_bases: bool = False
    ) -> EncoderOutput:
        """Seven times convolve and halve, then attend."""
        x = self.stem(inputs.transpose(1, 2)).transpose(1, 2)
        for convolve, norm, pool in zip(self.convolutions, self.norms, self.pools, strict=True):
            x = pool(convolve(F.gelu(norm(x)).transpose(1, 2)).transpose(1, 2))
        real = is_real.unflatten(1, (-1, SUMMARY_BP // self.bin_bp)).any(-1)
        for block in self.blocks:
            x = block(x, real)
        bins = self.norm(x).repeat_interleave(SUMMARY_BP // self.bin_bp, 1)
        return _output(bins, is_real, self.bin_bp)


def _mix(
    x: Float[Tensor, "batch tokens width"],
    is_real: Bool[Tensor, "batch tokens"],
    blocks: nn.ModuleList,
    heads: int,
) -> Float[Tensor, "batch tokens width"]:
    plan = make_plan(is_real, None)
    x = x * is_real[..., None]
    rotations = rope(x.shape[1], x.shape[2] // heads, x.device)
    for block in blocks:
        x = block(x, plan, rotations)
    return x

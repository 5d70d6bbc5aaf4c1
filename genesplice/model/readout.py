"""From a window to its genes: pooled on the sense strand, near the start and along the body."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int8, Int64
from torch import Tensor, nn

from genesplice.config.model import RELATIVE_GROUPS, ModelConfig
from genesplice.model.sequence import EncoderOutput, conserved

N_KMERS = 4**4
N_CODONS = 4**3
UPSTREAM_BP = 300
SMALLEST_SPREAD = 1e-6

Segment = tuple[str, str, int, str, int]
# Intervals in bp from the gene's start or from its end, 5' to 3' on the sense strand.
SEGMENTS: tuple[Segment, ...] = (
    ("upstream", "start", -512, "start", -128),
    ("promoter", "start", -128, "start", 0),
    ("start", "start", -16, "start", 64),
    ("body", "start", 0, "end", 0),
    ("tail", "end", -64, "end", 64),
)
# Of vectors at 1 bp, followed by the three codon positions of the body.
BASE_SEGMENTS: tuple[Segment, ...] = (
    ("promoter", "start", -100, "start", 0),
    ("start", "start", -20, "start", 60),
    ("tail", "end", -60, "end", 60),
)
N_BASE_SEGMENTS = len(BASE_SEGMENTS) + 3


class GeneLoci(NamedTuple):
    """Genes on encoded rows: `start` and `end` in bp along the gene's own strand.

    Both may lie outside of the row; what is outside is not pooled. `exons`, in which codons are
    counted, has gene (ascending), start and end of each; None where every gene is one exon.
    """

    row: Int64[Tensor, " genes"]
    start: Int64[Tensor, " genes"]
    end: Int64[Tensor, " genes"]
    exons: Int64[Tensor, "exons 3"] | None = None


def sense_loci(
    window: Int64[Tensor, " genes"],
    start: Int64[Tensor, " genes"],
    end: Int64[Tensor, " genes"],
    strand: Int8[Tensor, " genes"],
    exons: Int64[Tensor, "exons 3"] | None = None,
    *,
    n_windows: int,
    length: int,
) -> GeneLoci:
    """Genes of windows whose + strands are the first rows, and whose - strands are the others."""
    is_reverse = strand < 0
    row = is_reverse.long() * n_windows + window
    first = torch.where(is_reverse, length - end, start)
    if exons is not None:
        gene, low, high = exons.T
        begin = torch.where(is_reverse[gene], length - high, low)
        exons = torch.stack([gene, begin, begin + high - low], 1)
    return GeneLoci(row, first, first + end - start, exons)


def upstream_kmers(
    inputs: Float[Tensor, "rows length channels"], genes: GeneLoci
) -> Float[Tensor, "genes 256"]:
    """Counts of each 4-mer (AAAA, AAAC, … TTTT) in the 300 bp before the gene's start."""
    before = torch.arange(-UPSTREAM_BP, 0, device=genes.start.device)
    bases = _bases(inputs, genes.row[:, None], genes.start[:, None] + before)
    pairs = _outer(bases[:, :-1], bases[:, 1:])
    # A 4-mer is a pair and the pair two bases on; their sum over positions is a matrix product.
    return (pairs[:, :-2].transpose(1, 2) @ pairs[:, 2:]).flatten(1)


def codon_fractions(
    inputs: Float[Tensor, "rows length channels"], genes: GeneLoci
) -> Float[Tensor, "genes 64"]:
    """Fraction of each codon (AAA, AAC, … TTT) in the gene's exons.

    Codons count from the first base of the first exon and go on across introns; those not wholly
    inside the window are left out.
    """
    gene, position, number = _coding_bases(genes, inputs.shape[1])
    first = (number[: len(number) - 2] % 3 == 0).nonzero()[:, 0]
    first = first[gene[first] == gene[first + 2]]
    gene, row = gene[first], genes.row[gene[first]]
    one, two, three = (_bases(inputs, row, position[first + i]) for i in range(3))
    codons = _outer(_outer(one, two), three)
    total = codons.new_zeros(len(genes.row), N_CODONS).index_add(0, gene, codons)
    return total / torch.bincount(gene, minlength=len(genes.row)).clamp_min(1)[:, None]


def log_length(genes: GeneLoci) -> Float[Tensor, "genes 1"]:
    """log2 of the bases in the gene's exons."""
    gene, low, high = _exons(genes)
    return torch.zeros_like(genes.start).index_add(0, gene, high - low).clamp_min(1).log2()[:, None]


def _exons(genes: GeneLoci) -> tuple[Tensor, Tensor, Tensor]:
    """Gene, start and end of each exon."""
    if genes.exons is None:
        return torch.arange(len(genes.row), device=genes.row.device), genes.start, genes.end
    gene, low, high = genes.exons.T.contiguous()
    return gene, low, high


def _coding_bases(genes: GeneLoci, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the bases of exons inside of the window: gene, position, and number in the sequence."""
    gene, start, end = _exons(genes)
    before = (end - start).cumsum(0) - (end - start)
    before = before - before[torch.searchsorted(gene, gene)]
    low, high = start.clamp(0, length), end.clamp(0, length)
    exon, step = _spread(high - low)
    position = low[exon] + step
    return gene[exon], position, before[exon] + position - start[exon]


def _bases(inputs: Tensor, row: Tensor, position: Tensor) -> Float[Tensor, "... 4"]:
    """Base channels; zero outside of the window."""
    length = inputs.shape[1]
    inside = (position >= 0) & (position < length)
    bases = inputs[..., :4].flatten(0, 1)[row * length + position.clamp(0, length - 1)]
    return bases * inside[..., None]


def _outer(a: Float[Tensor, "... n"], b: Float[Tensor, "... m"]) -> Float[Tensor, "... nm"]:
    return (a[..., :, None] * b[..., None, :]).flatten(-2)


def _spread(count: Int64[Tensor, " items"]) -> tuple[Tensor, Tensor]:
    """For each of `count` entries of every item: the item, and the entry's number in it."""
    item = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    number = torch.arange(len(item), device=item.device) - (count.cumsum(0) - count)[item]
    return item, number


class SegmentWeights(NamedTuple):
    """A sparse matrix (genes * segments) x (rows * tokens); each of its rows sums to 1 or 0."""

    row: Int64[Tensor, " entries"]
    column: Int64[Tensor, " entries"]
    weight: Float[Tensor, " entries"]
    n_rows: int

    def means(self, vectors: Float[Tensor, "rows tokens width"]) -> Float[Tensor, "segments width"]:
        """Weighted sums, in single precision where the encoder works in half of it."""
        weighted = vectors.flatten(0, 1)[self.column] * self.weight[:, None]
        total = weighted.new_zeros(self.n_rows, weighted.shape[1])
        return total.index_add(0, self.row, weighted)


def segment_weights(
    genes: GeneLoci, *, length: int, bin_bp: int, segments: Sequence[Segment] = SEGMENTS
) -> SegmentWeights:
    """Fraction of each of the `segments` of every gene that lies in each bin.

    A segment's part outside the window is left out; with nothing inside, its row is empty.
    """
    anchor = {"start": genes.start, "end": genes.end}
    low = torch.stack([anchor[a] + shift for _, a, shift, _, _ in segments], 1)
    high = torch.stack([anchor[b] + shift for _, _, _, b, shift in segments], 1)
    low, high = low.clamp(0, length).flatten(), high.clamp(0, length).flatten()
    first = low // bin_bp
    row, number = _spread(torch.where(high > low, (high - 1) // bin_bp - first + 1, 0))
    bins = first[row] + number
    overlap = torch.minimum(high[row], (bins + 1) * bin_bp) - torch.maximum(low[row], bins * bin_bp)
    column = genes.row[row // len(segments)] * (length // bin_bp) + bins
    return SegmentWeights(row, column, overlap / (high - low)[row], len(low))


def base_weights(genes: GeneLoci, *, length: int) -> SegmentWeights:
    """As `segment_weights` at 1 bp: `BASE_SEGMENTS`, then codon positions 1, 2, 3 of the body.

    A body's codon positions are those of its exons (see `codon_fractions`).
    """
    near = segment_weights(genes, length=length, bin_bp=1, segments=BASE_SEGMENTS)
    gene, segment = near.row // len(BASE_SEGMENTS), near.row % len(BASE_SEGMENTS)
    body, base, number = _coding_bases(genes, length)
    codon = body * 3 + number % 3
    weight = 1 / torch.bincount(codon, minlength=3 * len(genes.row)).clamp_min(1)
    number = torch.cat([segment, len(BASE_SEGMENTS) + codon % 3])
    row = torch.cat([gene, body]) * N_BASE_SEGMENTS + number
    column = torch.cat([near.column, genes.row[body] * length + base])
    weights = torch.cat([near.weight, weight[codon]])
    return SegmentWeights(row, column, weights, len(genes.row) * N_BASE_SEGMENTS)


def bins_read(genes: GeneLoci, *, length: int, bin_bp: int) -> tuple[int, int]:
    """The bins that pooling genes of one row of `length` bases reads (half-open)."""
    row = genes._replace(row=torch.zeros_like(genes.row))
    at_bins = segment_weights(row, length=length, bin_bp=bin_bp).column
    columns = torch.cat([at_bins, base_weights(row, length=length).column // bin_bp])
    return int(columns.min()), int(columns.max()) + 1


class GeneReadout(nn.Module):
    """Gene features: pooled from the encoder, standardised, projected to one vector a gene.

    The parts, in this order (`parts` has their widths): mean bin vectors of every segment; with
    `base_width`, mean base vectors of promoter, start, end and the three codon positions; 4-mers
    before the start; codon fractions; length; with `sizes.relatives`, how conserved the intervals
    of base vectors are (see `conserved`). Means over a gene differ little from gene to gene
    compared with what all of them share: `fit` takes mean and spread from training genes, and they
    are kept as buffers.

    With `sizes.is_linear` the projection is one linear map; without `sizes.composition`, 4-mers,
    codons and length are left out.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, sizes: ModelConfig, base_width: int) -> None:
        super().__init__()
        width, composition = sizes.width, sizes.composition
        self.parts = {
            "bins": width * len(SEGMENTS),
            "bases": base_width * N_BASE_SEGMENTS,
            "kmers": N_KMERS * composition,
            "codons": N_CODONS * composition,
            "length": int(composition),
        }
        if sizes.relatives:
            self.parts["conservation"] = 2 * RELATIVE_GROUPS * N_BASE_SEGMENTS
        n_features = sum(self.parts.values())
        self.register_buffer("centre", torch.zeros(n_features))
        self.register_buffer("spread", torch.ones(n_features))
        layers: list[nn.Module] = [nn.Linear(n_features, width if sizes.is_linear else 2 * width)]
        if not sizes.is_linear:
            layers += [nn.GELU(), nn.Dropout(sizes.head_dropout), nn.Linear(2 * width, width)]
        self.project = nn.Sequential(nn.Dropout(sizes.head_dropout), *layers)

    @torch.no_grad()
    def fit(self, gene_features: Float[Tensor, "genes features"]) -> None:
        """Take mean and spread of each channel from `pool` of training genes.

        A channel that is the same for all of them becomes 0.
        """
        self.centre.copy_(gene_features.mean(0))
        if len(gene_features) > 1:
            spread = gene_features.std(0)
            is_constant = spread <= SMALLEST_SPREAD * self.centre.abs().clamp_min(1)
            self.spread.copy_(spread.masked_fill(is_constant, torch.inf))

    def pool(self, encoded: EncoderOutput, genes: GeneLoci) -> Float[Tensor, "genes features"]:
        """All parts of the features of each gene, not yet standardised."""
        bins, inputs = encoded.bins, encoded.inputs
        assert inputs is not None
        length, n_genes = inputs.shape[1], len(genes.row)
        weights = segment_weights(genes, length=length, bin_bp=length // bins.shape[1])
        parts = [weights.means(bins).view(n_genes, self.parts["bins"])]
        if self.parts["bases"] or "conservation" in self.parts:
            near = base_weights(genes, length=length)
        if self.parts["bases"]:
            assert encoded.bases is not None
            parts.append(near.means(encoded.bases).view(n_genes, self.parts["bases"]))
        if self.parts["length"]:
            parts += [upstream_kmers(inputs, genes), codon_fractions(inputs, genes)]
            parts.append(log_length(genes).to(inputs))
        if "conservation" in self.parts:
            parts.append(near.means(conserved(inputs)).view(n_genes, self.parts["conservation"]))
        return torch.cat(parts, 1)

    def standardise(
        self, gene_features: Float[Tensor, "genes features"]
    ) -> Float[Tensor, "genes features"]:
        """Mean 0 and spread 1 over the training genes."""
        return (gene_features - self.centre) / self.spread

    def forward(
        self, gene_features: Float[Tensor, "genes features"]
    ) -> Float[Tensor, "genes width"]:
        """One vector a gene from its pooled features."""
        return self.project(self.standardise(gene_features))

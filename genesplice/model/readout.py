"""From a window to its genes: each read on its sense strand, near its start and along its body."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int8, Int64
from torch import Tensor, nn

from genesplice.model.sequence import EncoderOutput

K = 4
N_KMERS = 4**K
UPSTREAM_BP = 300
N_CODONS = 64


def upstream_kmers(
    inputs: Float[Tensor, "rows length channels"],
    window: Int64[Tensor, " genes"],
    start: Int64[Tensor, " genes"],
    end: Int64[Tensor, " genes"],
    strand: Int8[Tensor, " genes"],
    *,
    n_windows: int,
) -> Float[Tensor, "genes 256"]:
    """How often each 4-mer (AAAA, AAAC, … TTTT) lies in the 300 bp before the gene's start.

    Rows are both strands of every window, forward ones first; each gene is read on its own. What
    is outside of the window is not counted.
    """
    row, begin, _ = _on_strand(inputs, window, start, end, strand, n_windows)
    place = begin[:, None] + torch.arange(-UPSTREAM_BP, 0, device=begin.device)
    bases = _at(inputs, row[:, None], place)
    pairs = _outer(bases[:, :-1], bases[:, 1:])
    # A 4-mer is a pair and the pair two bases on; summing over places is a matrix product.
    return (pairs[:, :-2].transpose(1, 2) @ pairs[:, 2:]).flatten(1)


def codon_shares(
    inputs: Float[Tensor, "rows length channels"],
    window: Int64[Tensor, " genes"],
    start: Int64[Tensor, " genes"],
    end: Int64[Tensor, " genes"],
    strand: Int8[Tensor, " genes"],
    *,
    n_windows: int,
) -> Float[Tensor, "genes 64"]:
    """Share of each codon (AAA, AAC, … TTT) between the gene's start and its end.

    Codons count from the gene's first base; those not wholly inside the window are left out.
    """
    row, begin, stop = _on_strand(inputs, window, start, end, strand, n_windows)
    length_bp = stop - begin
    low = (-begin).clamp_min(0).add(2) // 3
    high = torch.minimum(length_bp, inputs.shape[1] - begin) // 3
    count = (high - low).clamp_min(0)
    gene = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    number = torch.arange(len(gene), device=gene.device) - (count.cumsum(0) - count)[gene]
    first = begin[gene] + 3 * (low[gene] + number)
    one, two, three = (_at(inputs, row[gene], first + i) for i in range(3))
    codons = _outer(_outer(one, two), three)
    found = codons.new_zeros(len(count), N_CODONS).index_add(0, gene, codons)
    return found / count.clamp_min(1)[:, None]


def log_length(
    start: Int64[Tensor, " genes"], end: Int64[Tensor, " genes"]
) -> Float[Tensor, "genes 1"]:
    """log2 of the gene's length in bp."""
    return (end - start).clamp_min(1).float().log2()[:, None]


def _on_strand(
    inputs: Tensor, window: Tensor, start: Tensor, end: Tensor, strand: Tensor, n_windows: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Row, first base and end of each gene, read 5' to 3'."""
    reverse, length = strand < 0, inputs.shape[1]
    row = reverse.long() * n_windows + window
    begin = torch.where(reverse, length - end, start)
    return row, begin, begin + end - start


def _at(inputs: Tensor, row: Tensor, place: Tensor) -> Float[Tensor, "... 4"]:
    """Base channels; zero outside of the window."""
    length = inputs.shape[1]
    inside = (place >= 0) & (place < length)
    bases = inputs[..., :4].flatten(0, 1)[row * length + place.clamp(0, length - 1)]
    return bases * inside[..., None]


def _outer(a: Float[Tensor, "... n"], b: Float[Tensor, "... m"]) -> Float[Tensor, "... nm"]:
    return (a[..., :, None] * b[..., None, :]).flatten(-2)


# Intervals in bp from the TSS (start anchor) or from the gene's end, 5' to 3' on the sense strand.
SEGMENTS: tuple[tuple[str, str, int, str, int], ...] = (
    ("upstream", "start", -512, "start", -128),
    ("promoter", "start", -128, "start", 0),
    ("start", "start", -16, "start", 64),
    ("body", "start", 0, "end", 0),
    ("tail", "end", -64, "end", 64),
)
# Where vectors at 1 bp are read, beside the three codon positions of the body.
BASE_SEGMENTS: tuple[tuple[str, str, int, str, int], ...] = (
    ("promoter", "start", -100, "start", 0),
    ("start", "start", -20, "start", 60),
    ("tail", "end", -60, "end", 60),
)
N_BASE_SEGMENTS = len(BASE_SEGMENTS) + 3
SMALLEST_SPREAD = 1e-6


class SegmentWeights(NamedTuple):
    """A sparse matrix (genes * segments) x (strands * batch * bins); its rows sum to 1 or 0."""

    row: Int64[Tensor, " entries"]
    column: Int64[Tensor, " entries"]
    weight: Float[Tensor, " entries"]
    n_rows: int


def segment_weights(
    window: Int64[Tensor, " genes"],
    start: Int64[Tensor, " genes"],
    end: Int64[Tensor, " genes"],
    strand: Int8[Tensor, " genes"],
    *,
    n_windows: int,
    length: int,
    bin_bp: int,
    segments: Sequence[tuple[str, str, int, str, int]] = SEGMENTS,
) -> SegmentWeights:
    """How much of each bin belongs to each of the `segments` of each gene.

    Bins of the reverse complement are numbered after all forward ones, along their own strand.
    A segment's part outside the window is left out; with nothing inside, its row is empty.
    """
    reverse = strand < 0
    begin = torch.where(reverse, length - end, start)
    stop = torch.where(reverse, length - start, end)
    anchor = {"start": begin, "end": stop}
    low = torch.stack([anchor[a] + da for _, a, da, _, _ in segments], 1)
    high = torch.stack([anchor[b] + db for _, _, _, b, db in segments], 1)
    low, high = low.clamp(0, length).flatten(), high.clamp(0, length).flatten()
    first = low // bin_bp
    count = torch.where(high > low, (high - 1) // bin_bp - first + 1, 0)

    row = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    within = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    bins = first[row] + within
    overlap = torch.minimum(high[row], (bins + 1) * bin_bp) - torch.maximum(low[row], bins * bin_bp)
    strand_row = (reverse.long() * n_windows + window).repeat_interleave(len(segments))
    column = strand_row[row] * (length // bin_bp) + bins
    return SegmentWeights(row, column, overlap / (high - low)[row], len(count))


def base_weights(
    window: Int64[Tensor, " genes"],
    start: Int64[Tensor, " genes"],
    end: Int64[Tensor, " genes"],
    strand: Int8[Tensor, " genes"],
    *,
    n_windows: int,
    length: int,
) -> SegmentWeights:
    """As `segment_weights` at 1 bp: `BASE_SEGMENTS`, then codon positions 1, 2, 3 of the body.

    A body's codon positions count from its first base; introns and frameshifts are not known here.
    """
    place = segment_weights(
        window, start, end, strand,
        n_windows=n_windows, length=length, bin_bp=1, segments=BASE_SEGMENTS,
    )  # fmt: skip
    gene, segment = place.row // len(BASE_SEGMENTS), place.row % len(BASE_SEGMENTS)

    reverse = strand < 0
    begin = torch.where(reverse, length - end, start)
    low, high = begin.clamp(0, length), (begin + end - start).clamp(0, length)
    count = high - low
    body = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    within = torch.arange(len(body), device=body.device) - (count.cumsum(0) - count)[body]
    base = low[body] + within
    codon = body * 3 + (base - begin[body]) % 3
    share = 1 / torch.bincount(codon, minlength=3 * len(count)).clamp_min(1)
    row = body * N_BASE_SEGMENTS + len(BASE_SEGMENTS) + codon % 3
    column = (reverse.long() * n_windows + window)[body] * length + base
    return SegmentWeights(
        torch.cat([gene * N_BASE_SEGMENTS + segment, row]),
        torch.cat([place.column, column]),
        torch.cat([place.weight, share[codon]]),
        len(window) * N_BASE_SEGMENTS,
    )


class GeneReadout(nn.Module):
    """What is read of a gene, gene_features; standardised; projected to one vector a gene.

    The parts, in this order (`parts` has their widths): mean bin vectors of every segment; with
    `base_width`, mean base vectors of promoter, start, end and the three codon positions; 4-mers
    before the start; codon shares; length. Averages over a gene differ little from
    gene to gene beside what all of them share: `fit` takes mean and spread from training genes, and
    they are kept as buffers.

    With `is_linear` the projection is one linear map; without `composition`, 4-mers, codons and
    length are left out, and a gene is known by what the encoder says of it alone.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        width: int,
        dropout: float = 0.0,
        base_width: int = 0,
        is_linear: bool = False,
        composition: bool = True,
    ) -> None:
        super().__init__()
        self.parts = {
            "bins": width * len(SEGMENTS),
            "bases": base_width * N_BASE_SEGMENTS,
            "kmers": N_KMERS if composition else 0,
            "codons": N_CODONS if composition else 0,
            "length": int(composition),
        }
        gene_features = sum(self.parts.values())
        self.register_buffer("centre", torch.zeros(gene_features))
        self.register_buffer("spread", torch.ones(gene_features))
        layers: list[nn.Module] = (
            [nn.Linear(gene_features, width)]
            if is_linear
            else [
                nn.Linear(gene_features, 2 * width),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(2 * width, width),
            ]
        )
        self.project = nn.Sequential(nn.Dropout(dropout), *layers)

    @torch.no_grad()
    def fit(self, gene_features: Float[Tensor, "genes features"]) -> None:
        """Take mean and spread of each channel from what `pool` gave for training genes.

        A channel that is the same for all of them says nothing: it becomes 0.
        """
        self.centre.copy_(gene_features.mean(0))
        if len(gene_features) > 1:
            spread = gene_features.std(0)
            is_constant = spread <= SMALLEST_SPREAD * self.centre.abs().clamp_min(1)
            self.spread.copy_(spread.masked_fill(is_constant, torch.inf))

    def pool(
        self,
        encoded: EncoderOutput,
        window: Int64[Tensor, " genes"],
        start: Int64[Tensor, " genes"],
        end: Int64[Tensor, " genes"],
        strand: Int8[Tensor, " genes"],
        *,
        n_windows: int,
    ) -> Float[Tensor, "genes features"]:
        """Everything that is read of each gene; rows are + strands, then - strands."""
        bins, bases, inputs = encoded.bins, encoded.bases, encoded.inputs
        assert inputs is not None
        places, length = (window, start, end, strand), inputs.shape[1]
        size: dict[str, Any] = {"n_windows": n_windows, "length": length}
        at_bins = segment_weights(*places, **size, bin_bp=length // bins.shape[1])
        found = [_means(bins, at_bins, len(SEGMENTS))]
        if self.parts["bases"]:
            assert bases is not None
            found.append(_means(bases, base_weights(*places, **size), N_BASE_SEGMENTS))
        if self.parts["length"]:
            found.append(upstream_kmers(inputs, *places, n_windows=n_windows))
            found.append(codon_shares(inputs, *places, n_windows=n_windows))
            found.append(log_length(start, end).to(inputs))
        return torch.cat(found, 1)

    def standardise(
        self, gene_features: Float[Tensor, "genes features"]
    ) -> Float[Tensor, "genes features"]:
        """Mean 0 and spread 1 over the training genes."""
        return (gene_features - self.centre) / self.spread

    def forward(
        self, gene_features: Float[Tensor, "genes features"]
    ) -> Float[Tensor, "genes width"]:
        """One vector a gene from what `pool` gave."""
        return self.project(self.standardise(gene_features))


def _means(
    vectors: Float[Tensor, "rows tokens width"], weights: SegmentWeights, n_segments: int
) -> Float[Tensor, "genes features"]:
    # In single precision where the encoder works in half of it.
    weighted = vectors.flatten(0, 1)[weights.column] * weights.weight[:, None]
    means = weighted.new_zeros(weights.n_rows, weighted.shape[1])
    means = means.index_add(0, weights.row, weighted)
    return means.view(-1, n_segments * means.shape[1])

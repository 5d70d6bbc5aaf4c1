"""What a gene is made of: 4-mers before its start, its codons and its length, from the channels.

Counts are products of base channels, so that gradients pass: of one-hot bases they are the counts
that anybody would make, an N counts a quarter for each base, a masked base nothing.
"""

import torch
from jaxtyping import Float, Int8, Int64
from torch import Tensor

__all__ = ["N_CODONS", "N_KMERS", "UPSTREAM_BP", "codon_shares", "log_length", "upstream_kmers"]

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

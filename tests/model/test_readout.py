"""A gene's segments against a loop over bases; what is outside the window is left out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genesplice.config import ModelConfig
from genesplice.model.readout import (
    SEGMENTS,
    GeneReadout,
    base_weights,
    segment_weights,
    sense_loci,
)
from genesplice.model.sequence import EncoderOutput, InputChannels

LENGTH, WIDTH = 2048, 4


def make(base_width=0, **changes) -> GeneReadout:
    sizes = ModelConfig(width=WIDTH, heads=2, head_dropout=0.0, **changes)
    return GeneReadout(sizes, base_width)


def weights_of(genes, bin_bp, n_windows=1, length=LENGTH):
    """`genes` are (window, start, end, strand)."""
    return segment_weights(loci(genes, n_windows, length), length=length, bin_bp=bin_bp)


def loci(genes, n_windows=1, length=LENGTH):
    columns = [torch.tensor([gene[i] for gene in genes], dtype=torch.long) for i in range(4)]
    strand = columns.pop().to(torch.int8)
    return sense_loci(*columns, strand, n_windows=n_windows, length=length)


def bins_of(bin_bp, n_windows=1, seed=0, length=LENGTH):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2 * n_windows, length // bin_bp, WIDTH, generator=generator)


def pool(bins, genes, n_windows=1):
    """Segment means of `genes` as the readout makes them."""
    return joined(make(), bins, genes, n_windows)[:, : WIDTH * len(SEGMENTS)].view(
        -1, len(SEGMENTS), WIDTH
    )


def joined(readout, bins, genes, n_windows=1, bases=None):
    length = bases.shape[1] if bases is not None else LENGTH
    inputs = torch.full((len(bins), length, 4), 0.25)
    is_real = torch.ones(bins.shape[:2], dtype=torch.bool)
    encoded = EncoderOutput(bins, bins[:, :0], bins[:, :0], is_real, bases, inputs)
    return readout.pool(encoded, loci(genes, n_windows, length))


def base_by_base(bins, gene, bin_bp, n_windows=1, length=LENGTH) -> np.ndarray:
    """Mean over the bases of every segment of the vector of their bin, in float64."""
    window, start, end, strand = gene
    row = bins[window if strand > 0 else n_windows + window].double().numpy()
    means = np.zeros((len(SEGMENTS), WIDTH))
    for i, (_, first, low, last, high) in enumerate(SEGMENTS):
        found = []
        for place in range(-1000, end - start + 1000):
            # `place` counts from the gene's first base along its own strand.
            anchors = {"start": 0, "end": end - start}
            if not anchors[first] + low <= place < anchors[last] + high:
                continue
            at = start + place if strand > 0 else (length - end) + place
            if 0 <= at < length:
                found.append(row[at // bin_bp])
        if found:
            means[i] = np.mean(found, axis=0)
    return means


@settings(max_examples=40, deadline=None)
@given(
    start=st.integers(-700, LENGTH + 300),
    length=st.integers(1, 1200),
    strand=st.sampled_from([1, -1]),
    bin_bp=st.sampled_from([4, 8, 16, 32, 128]),
)
def test_segments_are_means_over_bases(start, length, strand, bin_bp):
    gene, bins = (0, start, start + length, strand), bins_of(bin_bp)
    found = pool(bins, [gene])[0]
    np.testing.assert_allclose(found, base_by_base(bins, gene, bin_bp), atol=1e-5)


def test_genes_of_several_windows_are_kept_apart():
    genes = [(0, 100, 900, 1), (2, 100, 900, 1), (1, -50, 700, -1), (2, 1500, 2100, -1)]
    bins = bins_of(16, n_windows=3)
    found = pool(bins, genes, n_windows=3)
    for row, gene in enumerate(genes):
        expected = base_by_base(bins, gene, 16, n_windows=3)
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_weights_of_a_segment_sum_to_one_or_there_are_none():
    genes = [(0, 5, 30, 1), (0, 2040, 2500, 1), (0, 5000, 6000, 1), (0, -9, 2100, -1)]
    weights = weights_of(genes, 16)
    total = torch.zeros(weights.n_rows).index_add(0, weights.row, weights.weight)
    assert weights.n_rows == len(genes) * len(SEGMENTS)
    assert ((total - 1).abs() < 1e-5).logical_or(total == 0).all()
    assert (weights.weight > 0).all()
    by_gene = total.view(-1, len(SEGMENTS))
    assert by_gene[0].tolist() == pytest.approx([0, 1, 1, 1, 1])
    assert not by_gene[2].any()


def test_upstream_is_before_the_start_on_either_strand():
    names = [name for name, *_ in SEGMENTS]
    weights = weights_of([(0, 1024, 1424, 1), (0, 1024, 1424, -1)], 16)
    for gene, begin in ((0, 1024), (1, LENGTH - 1424)):
        strand = gene * (LENGTH // 16)
        for name, low, high in (("upstream", -512, -128), ("promoter", -128, 0), ("body", 0, 400)):
            column = weights.column[weights.row == gene * len(SEGMENTS) + names.index(name)]
            places = (column - strand) * 16
            assert int(places.min()) == (begin + low) // 16 * 16
            assert int(places.max()) == (begin + high - 1) // 16 * 16


def test_no_gene_is_no_row():
    weights = weights_of([], 16)
    assert (weights.n_rows, len(weights.row)) == (0, 0)
    readout = make()
    assert readout(joined(readout, bins_of(16), [])).shape == (0, WIDTH)


# --- standardised, then projected ---


def test_fit_standardises_what_it_was_fitted_on():
    readout = make()
    values = torch.randn(40, sum(readout.parts.values())) * 7 + 3
    values[:, 4] = 5
    readout.fit(values)
    scaled = readout.standardise(values)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(scaled.shape[1]), atol=1e-5, rtol=0)
    expected = torch.ones(scaled.shape[1])
    expected[4] = 0
    torch.testing.assert_close(scaled.std(0), expected, atol=1e-5, rtol=0)


def test_what_all_training_genes_share_says_nothing_of_another():
    readout = make()
    values = torch.randn(9, sum(readout.parts.values()))
    values[:, 4] = 5
    readout.fit(values)
    other = values[:1].clone()
    other[:, 4] = -300
    assert torch.equal(readout.standardise(other), readout.standardise(values[:1]))


def test_one_gene_gives_a_centre_and_no_spread():
    readout = make()
    readout.fit(torch.full((1, sum(readout.parts.values())), 2.0))
    assert readout.centre.unique().tolist() == [2]
    assert readout.spread.unique().tolist() == [1]


@torch.no_grad()
def test_a_vector_is_the_projection_of_the_standardised_parts():
    torch.manual_seed(0)
    readout = make().eval()
    readout.fit(torch.randn(9, sum(readout.parts.values())) * 2 + 1)
    values = joined(readout, bins_of(16), [(0, 300, 900, 1), (0, 1000, 1500, -1)])
    expected = readout.project((values - readout.centre) / readout.spread)
    assert torch.equal(readout(values), expected)


def test_scales_are_saved_with_the_weights():
    readout, again = make(), make()
    readout.fit(torch.randn(9, sum(readout.parts.values())))
    again.load_state_dict(readout.state_dict())
    assert torch.equal(again.centre, readout.centre)
    assert torch.equal(again.spread, readout.spread)


def test_gradients_reach_the_bins_of_the_gene_and_no_others():
    bins = bins_of(16).requires_grad_()
    readout = make()
    readout(joined(readout, bins, [(0, 600, 700, 1)])).sum().backward()
    touched = bins.grad.abs().sum(2) > 0
    assert not touched[1].any()
    low, high = (600 - 512) // 16, (700 + 64 - 1) // 16
    assert touched[0, low : high + 1].all()
    assert int(touched[0].sum()) == high - low + 1


# --- at 1 bp ---


@settings(max_examples=30, deadline=None)
@given(
    start=st.integers(-700, LENGTH + 100),
    length=st.integers(1, 900),
    strand=st.sampled_from([1, -1]),
)
def test_bases_are_read_by_codon_position(start, length, strand):
    bases = bins_of(1)
    genes = loci([(0, start, start + length, strand)])
    found = base_weights(genes, length=LENGTH).means(bases)
    row = bases[int(strand < 0)].double().numpy()
    first = start if strand > 0 else LENGTH - start - length
    ranges = [(-100, 0, 1), (-20, 60, 1), (length - 60, length + 60, 1)]
    ranges += [(codon, length, 3) for codon in range(3)]
    for segment, (low, high, step) in enumerate(ranges):
        inside = [first + i for i in range(low, high, step) if 0 <= first + i < LENGTH]
        wanted = row[inside].mean(0) if inside else np.zeros(WIDTH)
        np.testing.assert_allclose(found[segment], wanted, atol=1e-5)


def test_the_parts_follow_each_other():
    genes = [(0, 400, 900, 1), (0, 900, 1500, -1)]
    readout, bins, bases = make(base_width=WIDTH), bins_of(16), bins_of(1)
    values = joined(readout, bins, genes, bases=bases)
    assert values.shape == (2, sum(readout.parts.values()))
    of_bins, of_bases, kmers, codons, length = values.split(list(readout.parts.values()), 1)
    torch.testing.assert_close(of_bins, pool(bins, genes).flatten(1))
    expected = base_weights(loci(genes), length=LENGTH).means(bases)
    torch.testing.assert_close(of_bases, expected.view(2, -1))
    # Every base is unknown here: each 4-mer and codon is as likely as any other.
    torch.testing.assert_close(kmers, torch.full((2, 256), 297 / 256))
    torch.testing.assert_close(codons, torch.full((2, 64), 1 / 64))
    torch.testing.assert_close(length[:, 0], torch.tensor([500.0, 600.0]).log2())
    assert readout(values).shape == (2, WIDTH)


@pytest.mark.parametrize("strand", [1, -1])
def test_conservation_of_a_gene_is_counted_base_by_base(strand):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 4, (2, LENGTH), generator=generator, dtype=torch.uint8)
    columns = torch.randint(0, 5, (2, LENGTH, 3, 5), generator=generator, dtype=torch.uint8)
    inputs = InputChannels(relatives=True)(tokens, columns=columns)
    readout, bins = make(relatives=True), bins_of(16)
    is_real = torch.ones(bins.shape[:2], dtype=torch.bool)
    encoded = EncoderOutput(bins, bins[:, :0], bins[:, :0], is_real, None, inputs)
    gene = (0, 700, 1300, strand)
    found = readout.pool(encoded, loci([gene]))[0, -readout.parts["conservation"] :].view(6, 6)
    row, start = (0, 700) if strand > 0 else (1, LENGTH - 1300)
    segments = [range(start - 100, start), range(start - 20, start + 60)]
    segments += [range(start + 540, start + 660)]
    segments += [range(start + k, start + 600, 3) for k in range(3)]
    for number, segment in enumerate(segments):
        for group in range(3):
            counts = columns[row, list(segment), group].double()
            n = counts.sum(1)
            own = counts[torch.arange(len(segment)), tokens[row, list(segment)].long()]
            aligned, same = (n / (n + 1)).mean(), (own / n.clamp(min=1)).mean()
            assert float(found[number, group]) == pytest.approx(float(aligned), abs=1e-5)
            assert float(found[number, 3 + group]) == pytest.approx(float(same), abs=1e-5)


def test_without_composition_a_gene_is_what_the_encoder_says_of_it():
    whole, alone = make(), make(composition=False)
    n_bins = WIDTH * len(SEGMENTS)
    assert [alone.parts[name] for name in ("kmers", "codons", "length")] == [0, 0, 0]
    assert len(alone.centre) == n_bins
    assert len(whole.centre) == n_bins + 256 + 64 + 1

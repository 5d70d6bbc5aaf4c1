"""4-mers and codons against counts made letter by letter; gradients reach what was counted."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_readout import loci

from genesplice.baselines.features import kmer_codon_features
from genesplice.data.genome import decode
from genesplice.model.genesplice import reverse_complement
from genesplice.model.readout import (
    UPSTREAM_BP,
    GeneLoci,
    base_weights,
    codon_fractions,
    log_length,
    sense_loci,
    upstream_kmers,
)
from genesplice.model.sequence import InputChannels

LENGTH = 1500
KMERS = ["".join(word) for word in itertools.product("ACGT", repeat=4)]
CODONS = ["".join(word) for word in itertools.product("ACGT", repeat=3)]


def strands(seed=0, n_windows=1):
    """Channels of + strands, then - strands, and the letters of each row."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 4, (n_windows, LENGTH), generator=generator, dtype=torch.uint8)
    both = torch.cat([tokens, reverse_complement(tokens)])
    return InputChannels()(both, None), [decode(row.numpy()) for row in both]


def read(function, inputs, genes, n_windows=1):
    return function(inputs, loci(genes, n_windows, inputs.shape[1]))


def on_strand(gene, n_windows=1):
    window, start, end, strand = gene
    if strand > 0:
        return window, start, end
    return n_windows + window, LENGTH - end, LENGTH - start


places = st.tuples(st.integers(-400, LENGTH + 200), st.integers(1, 900), st.sampled_from([1, -1]))


@settings(max_examples=40, deadline=None)
@given(places)
def test_kmers_are_those_before_the_start(place):
    start, length, strand = place
    inputs, letters = strands()
    gene = (0, start, start + length, strand)
    row, begin, _ = on_strand(gene)
    wanted = np.zeros(256)
    for at in range(begin - UPSTREAM_BP, begin - 3):
        if at >= 0 and at + 4 <= LENGTH:
            wanted[KMERS.index(letters[row][at : at + 4])] += 1
    np.testing.assert_allclose(read(upstream_kmers, inputs, [gene])[0], wanted, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(places)
def test_codons_count_from_the_first_base(place):
    start, length, strand = place
    inputs, letters = strands(1)
    gene = (0, start, start + length, strand)
    row, begin, _ = on_strand(gene)
    counts = np.zeros(64)
    for at in range(begin, begin + length - 2, 3):
        if at >= 0 and at + 3 <= LENGTH:
            counts[CODONS.index(letters[row][at : at + 3])] += 1
    shares = read(codon_fractions, inputs, [gene])
    np.testing.assert_allclose(shares[0], counts / max(counts.sum(), 1), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(2, 200), st.integers(-1, 90)), min_size=1, max_size=6),
    st.integers(-300, LENGTH),
    st.sampled_from([1, -1]),
)
def test_codons_go_on_across_introns_and_back_over_a_frameshift(parts, start, strand):
    """Exons of a length and a gap before each; a gap of -1 reads a base twice."""
    inputs, letters = strands(1)
    spans, at = [], start
    for size, gap in parts:
        spans.append((at + gap, at + gap + size))
        at += gap + size
    sense = [base for low, high in spans for base in range(low, high)]
    if strand < 0:
        spans = [(LENGTH - high, LENGTH - low) for low, high in spans]
    exons = torch.tensor([[0, 0, 5], *([1, *span] for span in spans)])
    columns = [[0, 0], [0, min(spans)[0]], [5, max(spans)[1]]]
    both = sense_loci(*map(torch.tensor, columns), torch.tensor([1, strand], dtype=torch.int8),
                      exons, n_windows=1, length=LENGTH)  # fmt: skip
    row = int(strand < 0)
    counts, means = np.zeros(64), [[], [], []]
    for number, base in enumerate(sense):
        if 0 <= base < LENGTH:
            means[number % 3].append(base)
        three = sense[number : number + 3]
        if number % 3 == 0 and len(three) == 3 and min(three) >= 0 and max(three) < LENGTH:
            counts[CODONS.index("".join(letters[row][i] for i in three))] += 1
    shares = codon_fractions(inputs, both)
    np.testing.assert_allclose(shares[1], counts / max(counts.sum(), 1), atol=1e-5)
    assert float(log_length(both)[1]) == pytest.approx(np.log2(len(sense)))
    bases = base_weights(both, length=LENGTH).means(inputs).view(2, -1, 4)[1, -3:]
    for found, wanted in zip(bases, means, strict=True):
        expected = inputs[row, wanted].mean(0) if wanted else torch.zeros(4)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_length_is_in_powers_of_two():
    ends = torch.tensor([0, -7, 5]), torch.tensor([1024, 1, 5])
    found = log_length(GeneLoci(torch.zeros(3, dtype=torch.long), *ends))
    assert found[:, 0].tolist() == [10, 3, 0]


def test_genes_of_several_windows_are_kept_apart():
    inputs, _ = strands(2, n_windows=3)
    genes = [(2, 600, 900, 1), (0, 500, 1200, -1), (1, 700, 1000, -1)]
    together = [read(f, inputs, genes, 3) for f in (upstream_kmers, codon_fractions)]
    for i, (window, *place) in enumerate(genes):
        alone = inputs[[window, 3 + window]]
        for function, found in zip((upstream_kmers, codon_fractions), together, strict=True):
            torch.testing.assert_close(found[i : i + 1], read(function, alone, [(0, *place)]))


def test_it_counts_what_the_baselines_count(tiny_bundle):
    """The same 4-mers and codons as the features of ridge regression, on real coordinates."""
    table = kmer_codon_features(tiny_bundle)
    genome = tiny_bundle.genome
    tokens = torch.from_numpy(np.array(genome.tokens))[None]
    inputs = InputChannels()(torch.cat([tokens, reverse_complement(tokens)]), None)
    kept = tiny_bundle.genes[tiny_bundle.genes["gene_id"].isin(table.index)]
    kept = kept[(kept["start"] > 400) & (kept["end"] < genome.length - 400)]
    genes = [
        (0, int(g.start), int(g.end), 1 if g.strand == "+" else -1)
        for g in kept.itertuples(index=False)
    ]
    wanted = table.loc[kept["gene_id"]]
    kmers = wanted[[c for c in table if c.startswith("kmer:")]].to_numpy()
    np.testing.assert_allclose(read(upstream_kmers, inputs, genes), kmers, atol=1e-3)
    is_orf = wanted["gene:is_orf"].to_numpy() > 0
    codons = wanted[[c for c in table if c.startswith("codon:")]].to_numpy()
    found = read(codon_fractions, inputs, genes).numpy()
    np.testing.assert_allclose(found[is_orf], codons[is_orf], atol=1e-5)
    length = log_length(loci(genes, length=genome.length))
    np.testing.assert_allclose(length[:, 0], wanted["gene:log2_length"], atol=1e-5)


def test_gradients_reach_the_counted_bases_and_no_others():
    inputs, _ = strands()
    inputs.requires_grad_()
    gene = [(0, 600, 660, 1)]
    out = (
        read(upstream_kmers, inputs, gene).square().sum()
        + read(codon_fractions, inputs, gene).square().sum()
    )
    out.backward()
    touched = (inputs.grad.abs().sum(2) > 0).nonzero()
    assert set(touched[:, 0].tolist()) == {0}
    assert touched[:, 1].tolist() == list(range(600 - UPSTREAM_BP, 660))


def test_unknown_bases_are_a_quarter_of_each_and_masked_ones_nothing():
    tokens = torch.full((2, LENGTH), 4, dtype=torch.uint8)
    gene = [(0, 600, 660, 1)]
    unknown = InputChannels()(tokens, None)
    assert float(read(upstream_kmers, unknown, gene).sum()) == pytest.approx(297)
    assert float(read(codon_fractions, unknown, gene)[0].sum()) == pytest.approx(1)
    masked = InputChannels()(torch.full_like(tokens, 5), None)
    assert float(read(upstream_kmers, masked, gene).abs().sum()) == 0
    assert float(read(codon_fractions, masked, gene)[0].abs().sum()) == 0

"""Ablations: what is kept is kept exactly, counted in loops; what is destroyed is gone."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from genesplice.data.bundle import load_bundle
from genesplice.data.genome import decode, encode
from genesplice.data.knowledge import (
    dinucleotide_shuffle,
    exchanged_relatives,
    far_relatives,
    random_gene_sets,
    rewired_network,
    shuffled_inside,
    without_gene_sets,
    without_network,
    without_relatives,
)


def with_edges(bundle, edges):
    table = pd.DataFrame(edges, columns=["source", "target", "sign"]).astype({"sign": "int8"})
    return replace(bundle, network=table.assign(kind="regulates", provenance="made up"))


@pytest.fixture(scope="module")
def tangled(tiny_bundle):
    """400 edges of 12 sources, three signs, with self loops."""
    generator = np.random.default_rng(4)
    genes = tiny_bundle.genes["gene_id"].tolist()
    edges = {}
    while len(edges) < 400:
        source, target = genes[generator.integers(12)], genes[generator.integers(len(genes))]
        edges[source, target] = int(generator.integers(-1, 2))
    edges |= {(gene, gene): 1 for gene in genes[:6]}
    return with_edges(tiny_bundle, [(*pair, sign) for pair, sign in edges.items()])


def degrees(network):
    """Edges out of every source and into every target, by sign, counted one at a time."""
    out, into = Counter(), Counter()
    for edge in network.itertuples():
        out[edge.source, edge.sign, edge.kind] += 1
        into[edge.target, edge.sign, edge.kind] += 1
    return out, into


def pairs(network):
    return list(zip(network["source"], network["target"], strict=True))


# --- network ---


@pytest.mark.parametrize("seed", range(5))
def test_rewiring_keeps_every_degree_by_sign(tangled, seed):
    assert degrees(rewired_network(tangled, seed).network) == degrees(tangled.network)


@pytest.mark.parametrize("seed", range(5))
def test_rewiring_makes_no_edge_twice_and_no_new_self_loop(tangled, seed):
    before, after = pairs(tangled.network), pairs(rewired_network(tangled, seed).network)
    assert len(set(after)) == len(after) == len(before)
    assert {p for p in after if p[0] == p[1]} <= {p for p in before if p[0] == p[1]}


@pytest.mark.slow
def test_more_swaps_would_change_nothing(ecoli):
    """An ablation shares with the network what it shares with its own ablation."""
    once = rewired_network(ecoli, 0)
    twice = rewired_network(once, 1)
    before, one, two = (set(pairs(bundle.network)) for bundle in (ecoli, once, twice))
    assert len(before & two) == pytest.approx(len(before & one), rel=0.1)
    # The largest regulators have so many targets that a quarter comes back by chance.
    assert len(before & one) < 0.3 * len(before)


def test_all_rewirings_of_a_small_network_are_equally_likely(tiny_bundle):
    """Three sources with one target each: six ways, of which each must come up."""
    bundle = with_edges(tiny_bundle, [("a", "x", 1), ("b", "y", 1), ("c", "z", 1)])
    seen = Counter(tuple(rewired_network(bundle, s).network["target"]) for s in range(300))
    assert set(seen) == set(itertools.permutations("xyz"))
    assert chisquare(list(seen.values())).pvalue > 1e-4


def test_edges_of_two_signs_are_not_exchanged(tiny_bundle):
    bundle = with_edges(tiny_bundle, [("a", "x", 1), ("b", "y", -1)])
    assert pairs(rewired_network(bundle, 0).network) == [("a", "x"), ("b", "y")]


def test_an_edge_that_is_there_with_another_sign_is_not_made_again(tiny_bundle):
    edges = [("a", "x", 1), ("b", "y", 1), ("a", "y", -1)]
    assert pairs(rewired_network(with_edges(tiny_bundle, edges), 0).network) == [
        ("a", "x"), ("b", "y"), ("a", "y"),
    ]  # fmt: skip


def test_rows_written_twice_stay_two_edges(tiny_bundle):
    edges = [("a", "x", 1), ("a", "x", 1), ("b", "y", 1), ("c", "z", 1)]
    bundle = with_edges(tiny_bundle, edges)
    for seed in range(10):
        assert degrees(rewired_network(bundle, seed).network) == degrees(bundle.network)


def test_without_network_has_the_same_columns_and_no_edge(tiny_bundle):
    empty = without_network(tiny_bundle).network
    assert len(empty) == 0
    assert (empty.dtypes == tiny_bundle.network.dtypes).all()
    assert len(rewired_network(without_network(tiny_bundle), 0).network) == 0


# --- gene sets ---


def overlaps(sets):
    """How many genes any two sets share, in a double loop."""
    names = sorted(sets)
    return {(a, b): len(set(sets[a]) & set(sets[b])) for a in names for b in names}


@pytest.fixture(scope="module")
def with_sets(tiny_bundle):
    generator = np.random.default_rng(2)
    genes = tiny_bundle.genes["gene_id"].to_numpy()
    sets = {
        f"{collection}:{i}": tuple(generator.permutation(known)[: generator.integers(1, 20)])
        for collection, known in (("KEGG", genes[:40]), ("GO", genes))
        for i in range(8)
    }
    return replace(tiny_bundle, gene_sets=sets)


@pytest.mark.parametrize("seed", range(3))
def test_random_sets_keep_sizes_overlaps_and_coverage(with_sets, seed):
    sets = random_gene_sets(with_sets, seed).gene_sets
    assert list(sets) == list(with_sets.gene_sets)
    assert overlaps(sets) == overlaps(with_sets.gene_sets)
    for collection in ("KEGG", "GO"):
        known = [
            {g for name, genes in s.items() if name.startswith(collection) for g in genes}
            for s in (sets, with_sets.gene_sets)
        ]
        assert known[0] == known[1]


def test_random_sets_of_ecoli_share_with_the_real_ones_what_chance_gives(ecoli):
    real, random = ecoli.gene_sets, random_gene_sets(ecoli, 1).gene_sets
    large = [name for name in real if name.startswith("KEGG") and len(real[name]) >= 20]
    known = {g for name in real if name.startswith("KEGG") for g in real[name]}
    shared = sum(len(set(real[name]) & set(random[name])) for name in large)
    by_chance = sum(len(real[name]) ** 2 / len(known) for name in large)
    assert shared < 1.3 * by_chance
    assert shared < 0.3 * sum(len(real[name]) for name in large)


def test_columns_are_exchanged_on_one_strand_and_keep_how_many_agree(tiny_bundle):
    # Each gene has columns of its own kind: relatives that have the base that many letters on.
    genome = tiny_bundle.genome
    starts = np.arange(8) * 5000 + 1000
    genes = tiny_bundle.genes.head(8).assign(
        start=starts, end=starts + 600 + np.arange(8), strand=list("++++----")
    )
    columns = np.zeros((3, genome.length, 5), np.uint8)
    for number, start in enumerate(starts):
        here = np.arange(start - 300, start + 1000)
        columns[number % 3, here, (genome.tokens[here] + number // 3) % 4] = number + 1
    bundle = replace(tiny_bundle, genes=genes, genome=replace(genome, columns=columns))
    changed = exchanged_relatives(bundle, 0).genome.columns
    owner = []
    for number, gene in enumerate(genes.itertuples()):
        upstream = np.arange(gene.start - 300, gene.start)
        if gene.strand == "-":
            upstream = np.arange(gene.end, gene.end + 300)
        counts = changed[:, [*range(gene.start, gene.end), *upstream]]
        (kind,) = set(counts[counts > 0].tolist())
        other = kind - 1
        owner.append(other)
        assert other != number
        assert genes["strand"].iloc[other] == gene.strand
        shorter = min(gene.end - gene.start, genes["end"].iloc[other] - starts[other])
        assert (counts.sum((0, 2)) > 0).sum() == 300 + shorter
        at = np.arange(gene.start, gene.start + 500)
        at = at + (gene.end - 500 - gene.start) * (gene.strand == "-")
        letters = changed[other % 3, at].argmax(1)
        assert np.array_equal(letters, (genome.tokens[at] + other // 3) % 4)
    assert sorted(owner) == list(range(8))
    assert bundle.genome.columns is columns
    assert without_relatives(bundle).genome.columns is None
    far = far_relatives(bundle).genome.columns
    assert not far[:2].any()
    assert np.array_equal(far[2], columns[2])


def test_without_gene_sets(tiny_bundle):
    assert without_gene_sets(tiny_bundle).gene_sets == {}


# --- sequence ---


def dinucleotides(letters):
    """Counts of neighbouring letters, N included."""
    return Counter(itertools.pairwise(letters))


@given(st.text("ACGTN", max_size=60), st.integers(0, 2**32))
def test_shuffling_keeps_every_dinucleotide_and_every_n(letters, seed):
    shuffled = decode(dinucleotide_shuffle(encode(letters), np.random.default_rng(seed)))
    assert len(shuffled) == len(letters)
    assert [c == "N" for c in shuffled] == [c == "N" for c in letters]
    assert dinucleotides(shuffled) == dinucleotides(letters)
    for run, before in zip(shuffled.split("N"), letters.split("N"), strict=True):
        assert dinucleotides(run) == dinucleotides(before)
        assert run[:1] == before[:1]
        assert run[-1:] == before[-1:]


def test_all_sequences_with_the_same_dinucleotides_are_equally_likely():
    letters = "ACGACTAGCA"
    middle = Counter(itertools.permutations(letters[1:-1]))
    possible = {
        letters[0] + "".join(m) + letters[-1]
        for m in middle
        if dinucleotides(letters[0] + "".join(m) + letters[-1]) == dinucleotides(letters)
    }
    generator = np.random.default_rng(0)
    drawn = Counter(decode(dinucleotide_shuffle(encode(letters), generator)) for _ in range(4000))
    assert set(drawn) == possible
    assert len(possible) > 10
    assert chisquare([drawn[s] for s in sorted(possible)]).pvalue > 1e-4


def test_unknown_bases_stay_and_what_is_between_them_is_shuffled_for_itself():
    bases = encode("AC" * 40 + "N" + "GT" * 30 + "N" + "GGTTGGTTTG")
    tokens = dinucleotide_shuffle(bases, np.random.default_rng(0))
    # ACAC…: there is one sequence with these dinucleotides only.
    assert (tokens[:142] == bases[:142]).all()
    assert set(decode(tokens[142:])) == {"G", "T"}


@given(st.integers(0, 64), st.integers(0, 64), st.integers(0, 100))
def test_what_is_between_stays_and_each_side_is_shuffled_for_itself(left, right, seed):
    tokens = np.random.default_rng(1).integers(0, 5, 64).astype(np.uint8)
    right = max(left, right)
    inside = (np.arange(64) < left) | (np.arange(64) >= right)
    after = shuffled_inside(tokens, inside, np.random.default_rng(seed))
    assert len(after) == 64
    assert (after[left:right] == tokens[left:right]).all()
    for part in (slice(0, left), slice(right, 64)) if left < right else (slice(0, 64),):
        assert dinucleotides(after[part].tolist()) == dinucleotides(tokens[part].tolist())


# --- all of them ---


@pytest.mark.parametrize("make", [rewired_network, random_gene_sets])
def test_a_seed_decides_an_ablation_and_the_original_is_not_touched(tiny_bundle, make):
    before = load_bundle(tiny_bundle.path)
    one, again, other = make(tiny_bundle, 1), make(tiny_bundle, 1), make(tiny_bundle, 2)
    for ablation in (one, again):
        assert ablation.manifest["ablation"]["seed"] == 1
    pd.testing.assert_frame_equal(one.network, again.network)
    assert one.gene_sets == again.gene_sets
    pd.testing.assert_frame_equal(tiny_bundle.network, before.network)
    assert tiny_bundle.gene_sets == before.gene_sets
    assert (tiny_bundle.genome.tokens == before.genome.tokens).all()
    assert "ablation" not in tiny_bundle.manifest
    assert not (one.network.equals(other.network) and one.gene_sets == other.gene_sets)

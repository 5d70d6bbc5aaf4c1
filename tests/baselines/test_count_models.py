"""Tables of contexts against dictionaries that are filled base by base."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_genomes import make_genome

from genesplice.baselines.features import (
    PSEUDOCOUNTS,
    CountModel,
    _best_pseudocount,
    fit_count_model,
)
from genesplice.data.genome import Contig, Genome, reverse_complement
from genesplice.errors import InputError


def steps(left, right):
    """Contexts from none to the longest: one base fewer on each side that has any."""
    found = [(left, right)]
    while found[-1] != (0, 0):
        a, b = found[-1]
        found.append((a - 1 if a else 0, b - 1 if b else 0))
    return found[::-1]


def around(tokens, place, left, right):
    """The bases beside a place, or None where one of them is unknown."""
    if place - left < 0 or place + right >= len(tokens):
        return None
    context = (*tokens[place - left : place], *tokens[place + 1 : place + 1 + right])
    return None if 4 in context else tuple(int(base) for base in context)


def count_by_dictionary(pieces, left, right):
    """Counter of bases by step and context, over both strands of every piece."""
    counts = defaultdict(Counter)
    for piece in pieces:
        for strand in (piece, reverse_complement(piece)):
            for place, base in enumerate(strand):
                for step in steps(left, right):
                    context = around(strand, place, *step)
                    if base < 4 and context is not None:
                        counts[step, context][int(base)] += 1
    return counts


def probability(counts, tokens, place, left, right, pseudocounts):
    """Interpolated from no context at all to the longest that is known."""
    p = np.full(4, 0.25)
    for step, pseudocount in zip(steps(left, right), pseudocounts, strict=True):
        context = around(tokens, place, *step)
        if context is None:
            break
        seen = np.array([counts[step, context][base] for base in range(4)])
        weight = seen.sum() / (seen.sum() + pseudocount)
        share = seen / max(seen.sum(), 1)
        p = weight * share + (1 - weight) * p
    return p


@pytest.mark.parametrize(("left", "right"), [(0, 0), (3, 0), (2, 2), (3, 1), (0, 2)])
def test_the_tables_are_those_of_a_dictionary(left, right):
    genome = make_genome(400, 90, seed=1)
    tokens = np.array(genome.tokens)
    tokens[[37, 38, 120]] = 4
    genome = Genome(tokens, genome.contigs)
    intervals = [("c0", 10, 200), ("c0", 230, 260), ("c1", 0, 90)]
    model = fit_count_model(genome, intervals, left, right)
    counts = count_by_dictionary([genome.fetch(*where) for where in intervals], left, right)
    asked = make_genome(60, seed=2).tokens.copy()
    asked[[11, 40]] = 4
    found = model.probabilities(asked)
    for place in range(len(asked)):
        expected = probability(counts, asked, place, left, right, model.pseudocounts)
        np.testing.assert_allclose(found[place], expected, rtol=1e-12, err_msg=str(place))


def test_cutting_an_interval_up_does_not_change_it(monkeypatch):
    genome = make_genome(700)
    whole = fit_count_model(genome, [("c0", 5, 690)], 3, 2)
    monkeypatch.setattr("genesplice.baselines.features.CHUNK_BP", 64)
    cut = fit_count_model(genome, [("c0", 5, 690)], 3, 2)
    for one, two in zip(whole.tables, cut.tables, strict=True):
        np.testing.assert_array_equal(one, two)


@settings(max_examples=20, deadline=None)
@given(
    bases=st.lists(st.integers(0, 4), min_size=12, max_size=40),
    left=st.integers(0, 3),
    right=st.integers(0, 3),
)
def test_probabilities_add_up_and_never_read_the_base_itself(bases, left, right):
    model = fit_count_model(make_genome(300), [("c0", 0, 300)], left, right)
    tokens = np.array(bases, np.uint8)
    found = model.probabilities(tokens)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    assert (found > 0).all()
    for place in range(len(tokens)):
        other = tokens.copy()
        other[place] = (tokens[place] + 1) % 4
        np.testing.assert_array_equal(model.probabilities(other)[place], found[place])


def test_both_strands_are_told_alike():
    genome = make_genome(3000)
    model = fit_count_model(genome, [("c0", 0, 2000)], 3, 3)
    tokens = genome.fetch("c0", 2000, 2400)
    mirrored = model.probabilities(reverse_complement(tokens))
    np.testing.assert_allclose(mirrored[::-1, ::-1], model.probabilities(tokens), rtol=1e-12)


def test_a_genome_that_repeats_itself_is_told_for_sure():
    motif = np.array([0, 1, 3, 2, 0, 0, 1, 2], np.uint8)
    genome = Genome(np.tile(motif, 500), (Contig("c0", 0, 4000, False),))
    model = fit_count_model(genome, [("c0", 0, 4000)], 4, 4)
    inner = model.probabilities(np.tile(motif, 10))[4:-4]
    told = inner[np.arange(len(inner)), np.tile(motif, 10)[4:-4]]
    assert told.min() > 0.98
    assert model.name == "count_two_sided"
    assert fit_count_model(genome, [("c0", 0, 400)], 2, 0).name == "count_one_sided"


def test_the_pseudocount_predicts_left_out_bases_best():
    generator = np.random.default_rng(0)
    seen = generator.poisson(3.0, (30, 4))
    shorter = generator.dirichlet(np.ones(4), 30)
    bits = []
    for c in PSEUDOCOUNTS:
        total = 0.0
        for row, guess in zip(seen, shorter, strict=True):
            for base in range(4):
                for _ in range(row[base]):
                    left_out = (row[base] - 1 + c * guess[base]) / (row.sum() - 1 + c)
                    total -= np.log2(left_out)
        bits.append(total)
    assert _best_pseudocount(seen, shorter) == PSEUDOCOUNTS[int(np.argmin(bits))]


def test_only_the_intervals_are_read():
    genome = make_genome(600)
    other = np.array(genome.tokens)
    other[200:400] = (other[200:400] + 1) % 4
    intervals = [("c0", 0, 200), ("c0", 400, 600)]
    for one, two in zip(
        fit_count_model(genome, intervals, 4, 4).tables,
        fit_count_model(Genome(other, genome.contigs), intervals, 4, 4).tables,
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)


def test_what_cannot_be_counted_is_refused():
    genome = make_genome(50)
    with pytest.raises(InputError, match=r"-1 \+ 2 bases of context, expected 0 to 11 in all"):
        fit_count_model(genome, [("c0", 0, 50)], -1, 2)
    with pytest.raises(InputError, match=r"8 \+ 4 bases of context"):
        fit_count_model(genome, [("c0", 0, 50)], 8, 4)
    with pytest.raises(InputError, match="no base to count"):
        fit_count_model(genome, [], 1, 1)


def test_an_empty_sequence_has_no_probabilities():
    model = fit_count_model(make_genome(50), [("c0", 0, 50)], 2, 1)
    assert isinstance(model, CountModel)
    assert model.probabilities(np.empty(0, np.uint8)).shape == (0, 4)

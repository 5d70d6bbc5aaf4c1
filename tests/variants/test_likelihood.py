"""Masked-base ratios against loops that spell them out."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_variants import letters, make_masked, other, save_masked

from genesplice.data.genome import encode
from genesplice.errors import InputError
from genesplice.model.genesplice import reverse_complement
from genesplice.predict.pretrained import load_pretrained
from genesplice.variants.alleles import Allele, normalise
from genesplice.variants.annotate import region_track
from genesplice.variants.consequence import EDGE_BP, Matched, length_class, spread_out
from genesplice.variants.likelihood import (
    EVERY_BP,
    FLANK_BP,
    Hidden,
    Likelihood,
    MaskedBases,
    agreement,
    allele_likelihoods,
    substitutions,
    window_start,
)


@pytest.fixture(scope="module")
def model():
    return make_masked()


@pytest.fixture(scope="module")
def score(model):
    return MaskedBases(model)


def strands(model, tokens, positions):
    """Log-probabilities with `positions` hidden, of each strand in + coordinates, one by one."""
    hidden = torch.from_numpy(tokens.copy())[None]
    hidden[0, list(positions)] = 5
    with torch.no_grad():
        plus = F.log_softmax(model.base_logits(model.encode(hidden)), -1)[0]
        minus = F.log_softmax(model.base_logits(model.encode(reverse_complement(hidden))), -1)[0]
    found = np.full((2, len(tokens), 4), np.nan)
    for i in positions:
        for base in range(4):
            found[0, i, base] = plus[i, base]
            found[1, i, base] = minus[len(tokens) - 1 - i, 3 - base]
    return found


def hidden(genome, start: int, length: int, *positions: int) -> Hidden:
    window = "chr", start, start + length
    return Hidden(genome.fetch(*window), np.array(positions), genome.fetch_columns(*window))


def close(found: Likelihood, wanted) -> None:
    np.testing.assert_allclose([found.forward, found.reverse], wanted, rtol=2e-4, atol=2e-4)


def test_substitutions_are_what_a_slow_loop_says(model, score, tiny_bundle):
    genome = tiny_bundle.genome
    starts = [3, 5000, 5001, 119_999, 44_444]
    alleles = [
        normalise(genome, "chr", start, letters(genome, start), other(letters(genome, start), step))
        for start in starts
        for step in (1, 2, 3)
    ]
    found = allele_likelihoods(score, genome, alleles)
    for allele, one in zip(alleles, found, strict=True):
        low = window_start(allele.start, 2048)
        tokens = genome.fetch("chr", low, low + 2048)
        log_probs = strands(model, tokens, [allele.start - low])[:, allele.start - low]
        close(one, log_probs[:, allele.alt[0]] - log_probs[:, allele.ref[0]])
    # Three changes of a base: each ratio is the sum of the two that lead there.
    assert len({round(one.forward, 3) for one in found}) == len(found)


def test_a_score_does_not_depend_on_what_is_scored_beside_it(score, tiny_bundle):
    genome = tiny_bundle.genome
    alleles = [
        normalise(genome, "chr", s, letters(genome, s), other(letters(genome, s)))
        for s in range(7000, 7030)
    ]
    together = allele_likelihoods(score, genome, alleles)
    for i in (0, 13, 29):
        (alone,) = allele_likelihoods(score, genome, [alleles[i]])
        close(together[i], [alone.forward, alone.reverse])


def test_several_bases_are_hidden_together(model, score, tiny_bundle):
    genome = tiny_bundle.genome
    ref = letters(genome, 8000, 3)
    alt = "".join(other(base) for base in ref)
    (found,) = allele_likelihoods(score, genome, [normalise(genome, "chr", 8000, ref, alt)])
    low = window_start(8000, 2048)
    at = 8000 - low
    log_probs = strands(model, genome.fetch("chr", low, low + 2048), range(at, at + 3))
    wanted = np.zeros(2)
    for i in range(3):
        wanted += (
            log_probs[:, at + i, "ACGT".index(alt[i])] - log_probs[:, at + i, "ACGT".index(ref[i])]
        )
    close(found, wanted)


def added_up(model, tokens, first, last):
    """Each base of [first, last) in turn, hidden with every fourth, and read."""
    total = np.zeros((2, last - first))
    for turn in range(EVERY_BP):
        positions = range(first + turn, last, EVERY_BP)
        log_probs = strands(model, tokens, positions)
        for i in positions:
            total[:, i - first] = log_probs[:, i, tokens[i]]
    return total


def test_a_deletion_is_what_a_slow_loop_says(model, score, tiny_bundle):
    genome, start = tiny_bundle.genome, 9000
    allele = normalise(genome, "chr", start, letters(genome, start, 4), letters(genome, start))
    (found,) = allele_likelihoods(score, genome, [allele])
    low = window_start(allele.start, 2048)
    tokens = genome.fetch("chr", low, low + 2048)
    at = allele.start - low
    changed = np.concatenate([tokens[:at], tokens[at + 3 :], genome.fetch("chr", low + 2048,
                                                                          low + 2051)])  # fmt: skip
    first, span = at - FLANK_BP, 2 * FLANK_BP + allele.shift_bp + 3
    before = added_up(model, tokens, first, first + span).sum(1)
    after = added_up(model, changed, first - 3, first + span)
    close(found, (after[:, 3:].sum(1) + after[:, :-3].sum(1)) / 2 - before)


@pytest.mark.parametrize("unit", ["A", "CA", "GAT"])
def test_where_a_repeat_is_shortened_makes_no_difference(score, tiny_bundle, unit):
    genome = tiny_bundle.genome
    tokens = np.array(genome.tokens)
    tokens[6000 : 6000 + 8 * len(unit)] = encode(unit * 8)
    genome = dataclasses.replace(genome, tokens=tokens)
    n = len(unit)
    deletions, insertions = [], []
    for copy in range(7):
        p = 6000 + copy * n
        anchor = letters(genome, p - 1)
        deletions.append(normalise(genome, "chr", p - 1, anchor + letters(genome, p, n), anchor))
        insertions.append(normalise(genome, "chr", p - 1, anchor, anchor + unit))
    for alleles in (deletions, insertions):
        found = allele_likelihoods(score, genome, alleles)
        assert len({(one.forward, one.reverse) for one in found}) == 1
        assert found[0].mean != 0


def test_undoing_an_insertion_has_the_opposite_ratio(score, tiny_bundle):
    genome, p = tiny_bundle.genome, 12_000
    anchor, more = letters(genome, p), "GATTA"
    allele = normalise(genome, "chr", p, anchor, anchor + more)
    tokens = np.insert(np.array(genome.tokens), p + 1, encode(more))
    contigs = (genome.contigs[0]._replace(length=len(tokens)),)
    longer = dataclasses.replace(genome, tokens=tokens, contigs=contigs)
    back = normalise(longer, "chr", p, anchor + more, anchor)
    (there,) = allele_likelihoods(score, genome, [allele])
    (again,) = allele_likelihoods(score, longer, [back])
    close(there, [-again.forward, -again.reverse])


def test_the_other_strand_of_the_genome_has_the_same_scores(score, tiny_bundle):
    # Whole bins on either strand.
    size = 117 * 1024
    genome = dataclasses.replace(
        tiny_bundle.genome,
        tokens=tiny_bundle.genome.tokens[:size],
        contigs=(tiny_bundle.genome.contigs[0]._replace(length=size),),
    )
    flipped = dataclasses.replace(
        genome, tokens=np.where(genome.tokens < 4, 3 - genome.tokens, 4)[::-1].astype(np.uint8)
    )
    # A window that is its own mirror image: in the middle of the circle.
    start = size // 2 - 1
    ref = letters(genome, start)
    one = normalise(genome, "chr", start, ref, other(ref))
    mirror = size - 1 - start
    turned = letters(flipped, mirror)
    two = normalise(flipped, "chr", mirror, turned, "TGCA"["ACGT".index(other(ref))])
    window = 2048
    shift = (window_start(start, window) + window) - (size - window_start(mirror, window))
    assert shift == 0
    (here,), (there,) = (
        allele_likelihoods(score, g, [a]) for g, a in ((genome, one), (flipped, two))
    )
    close(there, [here.reverse, here.forward])
    assert here.mean == pytest.approx(there.mean, abs=1e-4)


def test_strands_that_disagree_withhold_the_answer():
    assert Likelihood(1.0, -1.0).abstains(0.5)
    assert not Likelihood(1.0, -0.4).abstains(0.5)
    assert not Likelihood(-3.0, -1.0).abstains(0.5)
    assert Likelihood(0.1, -0.1).abstains(0.0)
    assert (Likelihood(1.0, -2.0).mean, Likelihood(1.0, -2.0).spread) == (-0.5, 3.0)


def test_no_rows_and_windows_that_cannot_be(score, tiny_bundle):
    assert score([]) == []
    assert allele_likelihoods(score, tiny_bundle.genome, []) == []
    for window in (1000, 1024):
        with pytest.raises(InputError, match=f"a window of {window} bp"):
            allele_likelihoods(score, tiny_bundle.genome, [], window_bp=window)


def test_batches_do_not_change_what_is_log_probs(model, tiny_bundle):
    rows = [hidden(tiny_bundle.genome, s, 1024, 3, 500 + s) for s in range(5)]
    whole, small = (MaskedBases(model, batch_bp=bp)(rows) for bp in (65_536, 1))
    for one, two in zip(whole, small, strict=True):
        assert one.shape == (2, 2, 4)
        np.testing.assert_allclose(one, two, atol=1e-4)
        np.testing.assert_allclose(np.exp(one).sum(-1), 1, atol=1e-5)


def test_a_window_lies_on_the_grid_around_its_variant():
    for position in range(-3000, 9000, 77):
        low = window_start(position, 2048)
        assert low % 1024 == 0
        assert 512 <= position - low <= 1536


# --- the model that pretrain wrote ---


def test_a_pretrained_folder_is_read_whole(tmp_path):
    folder = save_masked(tmp_path / "pre")
    found, wanted = load_pretrained(folder), make_masked()
    assert not found.training
    for name, value in wanted.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


# --- many hidden bases, percentiles ---


@pytest.fixture(scope="module")
def flat():
    return MaskedBases(make_masked("model.base_width=0"))


def test_hidden_bases_keep_their_distance():
    order = np.random.default_rng(0).permutation(500)
    chosen = spread_out(order, 500, 32)
    assert np.diff(chosen).min() >= 32
    assert order[0] in chosen
    # Nothing more would fit.
    assert all(np.abs(chosen - place).min() < 32 for place in range(500) if place not in chosen)


def test_ratios_to_the_base_that_is_there(flat, tiny_bundle):
    row = hidden(tiny_bundle.genome, 0, 2048, 300, 700, 1300)
    tokens = row.tokens
    tokens[700] = 4
    (change,) = substitutions(flat, [row])
    (log_probs,) = flat([row])
    assert np.isnan(change[:, 1]).all()
    for i in (0, 2):
        own = tokens[row.positions[i]]
        assert (change[:, i, own] == 0).all()
        np.testing.assert_allclose(change[:, i] + log_probs[:, i, own, None], log_probs[:, i])
    metrics = {m.metric: m.value for m in agreement(flat, [row], [change])}
    assert metrics["llr_shared_mask_r"] > 0.5
    one = row._replace(positions=row.positions[:1])
    exact = agreement(flat, [one], substitutions(flat, [one]))
    assert {m.metric: round(m.value, 6) for m in exact} == {
        "llr_shared_mask_r": 1, "llr_shared_mask_rmse": 0
    }  # fmt: skip


def test_a_percentile_counts_matched_variants(flat, tiny_bundle):
    track = region_track(tiny_bundle)
    matched = Matched(flat, tiny_bundle.genome, track, n_windows=40)
    key = "coding", "A", "C"
    among = matched.ratios[key]
    assert len(among) > 20
    assert np.array_equal(among, np.sort(among))
    snv = Allele("chr", 5, np.array([0], np.uint8), np.array([1], np.uint8))
    for ratio in (among[3], among.min() - 1, among.max() + 1, np.median(among) + 0.01):
        wanted = 100 * (np.mean(among < ratio) + np.mean(among == ratio) / 2)
        assert matched.percentile(snv, "coding", float(ratio)) == pytest.approx(wanted)
    assert {m.metric for m in matched.metrics} == {"llr_shared_mask_r", "llr_shared_mask_rmse"}
    # Of several bases at once, and of a class that is not there, nothing is said.
    mnv = Allele("chr", 5, np.array([0, 1], np.uint8), np.array([1, 0], np.uint8))
    assert matched.percentile(mnv, "coding", 0.0) is None
    matched.ratios["other", "A", "C"] = np.zeros(3)
    assert matched.percentile(snv, "other", 0.0) is None
    assert EDGE_BP < 1024


@pytest.mark.slow
def test_insertions_are_matched_by_length_when_they_are_asked_for(flat, tiny_bundle):
    track = region_track(tiny_bundle)
    matched = Matched(flat, tiny_bundle.genome, track, n_windows=1, n_indels=20)
    nothing = np.zeros(0, np.uint8)
    allele = Allele("chr", 5, nothing, np.array([0, 1, 2], np.uint8))
    assert not any(key[1] == "insertion" for key in matched.ratios)
    assert matched.percentile(allele, "coding", -1e9) == 0
    assert matched.percentile(allele, "coding", 1e9) == 100
    assert len(matched.ratios["coding", "insertion", "2-5"]) == 20
    names = [length_class(Allele("c", 0, nothing, np.zeros(n, np.uint8))) for n in (1, 2, 5, 6, 64)]
    assert names == ["1-1", "2-5", "2-5", "6-64", "6-64"]

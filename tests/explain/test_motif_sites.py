"""Known motifs are found where they were planted, on either strand, and seldom elsewhere."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genesplice.data.genome import encode, reverse_complement
from genesplice.data.simulate import PROMOTER_MOTIF
from genesplice.explain.motifs import MotifScanner, motif_sites
from genesplice.results import Attribution

MOTIF = "TTGACATATAAT"
SHARP = np.eye(4)[encode(MOTIF)] * 0.96 + 0.01
SOFT = np.random.default_rng(7).dirichlet([0.6] * 4, 10)


def random_tokens(length: int, seed: int = 0, frequencies=(0.25,) * 4) -> np.ndarray:
    return np.random.default_rng(seed).choice(4, length, p=frequencies).astype(np.uint8)


def planted(places: dict[int, str], length: int = 2000) -> np.ndarray:
    tokens = random_tokens(length)
    for start, strand in places.items():
        letters = encode(MOTIF)
        site = letters if strand == "+" else reverse_complement(letters)
        tokens[start : start + len(site)] = site
    return tokens


def found(scanner: MotifScanner, tokens) -> list[tuple[int, int, str, str]]:
    return [(hit.start, hit.end, hit.name, hit.strand) for hit in scanner.scan(tokens)]


STRICT = MotifScanner({"p": SHARP}, false_positive_rate=1e-6)


def test_a_planted_motif_is_found_on_both_strands():
    tokens = planted({100: "+", 777: "-", 1500: "+"})
    assert found(STRICT, tokens) == [
        (100, 112, "p", "+"), (777, 789, "p", "-"), (1500, 1512, "p", "+")
    ]  # fmt: skip


def test_the_first_and_last_place_count():
    assert found(STRICT, planted({0: "+", 1988: "-"})) == [
        (0, 12, "p", "+"), (1988, 2000, "p", "-")
    ]  # fmt: skip
    assert found(STRICT, encode(MOTIF)) == [(0, 12, "p", "+")]


@pytest.mark.parametrize("length", [0, 1, 11])
def test_a_sequence_shorter_than_the_motif_has_no_hit(length):
    assert STRICT.scan(encode(MOTIF)[:length]) == []


@pytest.mark.parametrize("unknown", [4, 5])
@pytest.mark.parametrize("at", [100, 105, 111])
def test_an_unknown_base_blocks_every_window_it_lies_in(at, unknown):
    tokens = planted({100: "+", 112: "-"})
    tokens[at] = unknown
    assert found(STRICT, tokens) == [(112, 124, "p", "-")]


def test_unknown_bases_alone_have_no_hit():
    assert MotifScanner({"p": SOFT}, false_positive_rate=0.5).scan(np.full(50, 4, np.uint8)) == []


def test_scores_are_log_odds_summed_by_hand():
    background = (0.3, 0.2, 0.2, 0.3)
    scanner = MotifScanner({"p": SOFT}, false_positive_rate=0.05, background=background)
    tokens = random_tokens(400, seed=3)
    hits = scanner.scan(tokens)
    assert {hit.strand for hit in hits} == {"+", "-"}
    for hit in hits:
        site = tokens[hit.start : hit.end]
        site = site if hit.strand == "+" else reverse_complement(site)
        bits = 0.0
        for row, base in zip(SOFT, site, strict=True):
            share = (row[base] + 0.01) / (row.sum() + 0.04)
            bits += math.log2(share / background[base])
        assert hit.score == pytest.approx(bits, abs=1e-5)


LOOSE = MotifScanner({"a": SOFT, "b": SHARP}, false_positive_rate=0.02)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), length=st.integers(0, 300))
def test_the_other_strand_has_the_same_hits_mirrored(seed, length):
    tokens = random_tokens(length, seed)
    mirrored = {
        (length - hit.end, length - hit.start, hit.name, "-" if hit.strand == "+" else "+")
        for hit in LOOSE.scan(reverse_complement(tokens))
    }
    assert mirrored == set(found(LOOSE, tokens))


@pytest.mark.parametrize("rate", [1e-2, 1e-3])
@pytest.mark.parametrize("frequencies", [(0.25, 0.25, 0.25, 0.25), (0.35, 0.15, 0.15, 0.35)])
def test_false_positives_are_about_as_many_as_asked_for(rate, frequencies):
    length = 200_000
    scanner = MotifScanner({"p": SOFT}, false_positive_rate=rate, background=frequencies)
    hits = scanner.scan(random_tokens(length, 11, frequencies))
    for strand in "+-":
        count = sum(hit.strand == strand for hit in hits)
        assert count == pytest.approx(rate * length, rel=0.3)


def test_a_lower_rate_keeps_the_best_hits_only():
    tokens = random_tokens(20_000, seed=5)
    many, few = (
        MotifScanner({"p": SOFT}, false_positive_rate=rate).scan(tokens) for rate in (1e-2, 1e-3)
    )
    assert 0 < len(few) < len(many)
    assert set(few) < set(many)
    assert min(hit.score for hit in few) > min(hit.score for hit in many)


def test_hits_of_several_motifs_come_in_order():
    scanner = MotifScanner({"z": SHARP, "a": SOFT}, false_positive_rate=1e-3)
    hits = scanner.scan(planted({100: "+", 500: "-"}))
    assert hits == sorted(hits)
    assert {hit.name for hit in hits} == {"a", "z"}


def test_the_small_control_has_its_promoters_where_they_were_planted(tiny_bundle):
    assert PROMOTER_MOTIF == MOTIF
    scanner = MotifScanner({"promoter": tiny_bundle.motifs["promoter"]}, false_positive_rate=1e-6)
    promoted = set(tiny_bundle.manifest["truth"]["promoter"])
    for gene in tiny_bundle.genes.itertuples():
        upstream = (
            (gene.tss - 200, gene.tss) if gene.strand == "+" else (gene.tss + 1, gene.tss + 201)
        )
        hits = scanner.scan(tiny_bundle.genome.fetch("chr", *upstream, gene.strand))
        places = [(hit.end - 200, hit.strand) for hit in hits]
        assert places == ([(-29, "+")] if gene.gene_id in promoted else []), gene.gene_id


def test_sites_count_from_the_start():
    scanner = MotifScanner({"site": np.eye(4)[encode("TGTGATCACATT")] * 0.96 + 0.01})
    tokens = np.random.default_rng(0).integers(0, 4, 1000).astype(np.uint8)
    tokens[440:452] = encode("TGTGATCACATT")
    found = Attribution("g1", "g1", "level", "m", "b", -500, tokens, np.zeros(1000), 1.0, 0.0, 0.0)
    table = motif_sites([found], scanner.scan, upstream_bp=200, downstream_bp=50)
    assert (-60, -48, "+") in set(zip(table["start"], table["end"], table["strand"], strict=True))
    assert (table["start"] >= -200).all()
    assert (table["end"] <= 50).all()
    near = motif_sites([found], scanner.scan, upstream_bp=40, downstream_bp=50)
    assert -60 not in set(near["start"])

"""Motifs are found where they were planted, and attributions on them scored as they should be."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_genomes import make_genes, make_genome, with_operons

from genesplice.data.coding import coding_sequence
from genesplice.data.features import find_promoter
from genesplice.data.genome import encode, reverse_complement
from genesplice.data.simulate import PROMOTER_MOTIF
from genesplice.data.splits import first_of_operon
from genesplice.explain.motifs import (
    HEXAMERS,
    MotifScanner,
    measure_known_sites,
    motif_counts,
    motif_sites,
    regulator_motifs,
    regulator_targets,
    site_scores,
    site_table,
)
from genesplice.results import Attribution, Conservation

pytestmark = pytest.mark.slow

MOTIF = "TTGACATATAAT"
SHARP = np.eye(4)[encode(MOTIF)] * 0.96 + 0.01
SOFT = np.random.default_rng(7).dirichlet([0.6] * 4, 10)


def random_tokens(length: int, seed: int = 0, frequencies=(0.25,) * 4) -> np.ndarray:
    return np.random.default_rng(seed).choice(4, length, p=frequencies).astype(np.uint8)


def plant(tokens, at, letters):
    tokens[at : at + len(letters)] = encode(letters)
    return tokens


def attribution(gene_id, tokens, values, offset_bp):
    return Attribution(
        gene_id, gene_id, "level", "m", "b", offset_bp, tokens, values, 1.0, 0.0, 0.0
    )


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
    found = attribution("g1", tokens, np.zeros(1000), -500)
    table = motif_sites([found], scanner.scan, upstream_bp=200, downstream_bp=50)
    assert (-60, -48, "+") in set(zip(table["start"], table["end"], table["strand"], strict=True))
    assert (table["start"] >= -200).all()
    assert (table["end"] <= 50).all()
    near = motif_sites([found], scanner.scan, upstream_bp=40, downstream_bp=50)
    assert -60 not in set(near["start"])


@pytest.mark.parametrize("strand", "+-")
def test_coding_exons_of_spliced_genes_stand_among_the_sites(strand):
    genome = make_genome(2000)
    genes = make_genes(("a", "c0", 600, 800, strand, "x"), ("b", "c0", 600, 800, strand, "x"))
    exons = [(610, 625), (660, 700), (720, 784)][:: 1 if strand == "+" else -1]
    genes["exons"] = [sum(exons, ()), (600, 798)]
    window = (500, 1300) if strand == "+" else (100, 900)
    tokens = genome.fetch("c0", *window, strand)
    found = [attribution(name, tokens, np.zeros(800), -100) for name in "ab"]
    span = {"upstream_bp": 90, "downstream_bp": 500}
    table = motif_sites(found, lambda tokens: [], **span, genes=genes)
    assert list(zip(table["gene_id"], table["name"], strict=True)) == [
        ("a", "exon 1"), ("a", "exon 2"), ("a", "exon 3")
    ]  # fmt: skip
    read = [tokens[low + 100 : high + 100] for low, high in table[["start", "end"]].to_numpy()]
    wanted = coding_sequence(genome, next(genes.itertuples()))
    np.testing.assert_array_equal(np.concatenate(read), wanted)
    span["downstream_bp"] = (70, 130)[strand == "-"]
    near = motif_sites(found[:1], lambda tokens: [], **span, genes=genes)
    assert near["end"].tolist() == [table["end"][0], span["downstream_bp"]]


def test_regulators_are_matched_by_gene_name(tiny_bundle):
    targets = regulator_targets(tiny_bundle)
    truth = tiny_bundle.manifest["truth"]["targets"]
    assert set(targets) == {"syn0", "syn1"}
    for i in (0, 1):
        wanted = {gene for gene, edge in truth.items() if edge["regulator"] == f"g000{i}"}
        assert set(targets[f"syn{i}"]) == wanted - {f"g000{i}"}
    matrix = np.full((6, 4), 0.25)
    motifs = {"Syn0_6-1": matrix, "Syn0_6-2": matrix, "Nobody_6-1": matrix}
    named = dataclasses.replace(tiny_bundle, motifs=motifs)
    assert {name: set(found) for name, found in regulator_motifs(named).items()} == {
        "syn0": {"Syn0_6-1", "Syn0_6-2"}
    }


def test_sites_are_counted_with_shuffles():
    motif = "TGTGATCACATT"
    scanner = MotifScanner(
        {"reg": np.eye(4)[encode(motif)] * 0.96 + 0.01}, false_positive_rate=1e-6
    )
    sequences = {f"g{i}": random_tokens(300, i) for i in range(30)}
    for i in range(12):
        plant(sequences[f"g{i}"], 100 + i, motif)
    targets = {"reg": [f"g{i}" for i in range(16)] + ["unknown"], "idle": ["unknown"]}
    table = motif_counts(
        sequences, targets, {"reg": scanner.scan, "idle": scanner.scan}, n_shuffles=10
    )
    (row,) = table.itertuples()
    assert (row.regulator, row.n_targets, row.found) == ("reg", 16, 12)
    assert row.null_low <= row.expected <= row.null_high < 3
    assert row.elsewhere == 0
    pd.testing.assert_frame_equal(
        table, motif_counts(sequences, targets, {"reg": scanner.scan}, n_shuffles=10)
    )


def test_attribution_on_hexamers_is_scored_like_any_site():
    genes = []
    for i in range(15):
        tokens = random_tokens(600, i)
        plant(plant(tokens, 300 - 50, "TTGACA"), 300 - 27, "TATAAT")
        values = np.random.default_rng(i).normal(size=600)
        for start in (300 - 50, 300 - 27):
            values[start : start + 6] *= 8
        genes.append(attribution(f"g{i}", tokens, values, -300))
    targets = {"hexamers": [one.gene_id for one in genes]}
    table = site_table(genes, targets, {"hexamers": find_promoter}, upstream_bp=100)
    assert site_scores(table)["auroc"].item() > 0.9
    shuffled = [g._replace(values=np.random.default_rng(7).permutation(g.values)) for g in genes]
    table = site_table(shuffled, targets, {"hexamers": find_promoter}, upstream_bp=100)
    assert abs(site_scores(table)["auroc"].item() - 0.5) < 0.2


SITE_LETTERS = "TGTGATCACATTCG"


def explained(gene_id, on_sites, seed):
    """300 bp upstream with both hexamers and the site; attribution is on them or anywhere."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, 4, 400).astype(np.uint8)
    values = generator.random(400) * 0.1
    places = [(165, "TTGACA"), (188, "TATAAT")] + [(60, SITE_LETTERS)] * gene_id.startswith("t")
    for at, word in places:
        tokens[at : at + len(word)] = encode(word)
        if on_sites:
            values[at : at + len(word)] += 1
    return attribution(gene_id, tokens, values, -300)


@pytest.fixture(scope="module")
def regulated(tiny_bundle):
    """A regulator with twelve targets and a motif."""
    genes = tiny_bundle.genes.iloc[:1].assign(gene_id="boss", name="Boss")
    network = tiny_bundle.network.iloc[:12].assign(
        source="boss", target=[f"t{i}" for i in range(12)]
    )
    motifs = {"Boss_14-1": np.eye(4)[encode(SITE_LETTERS)] * 0.96 + 0.01}
    return dataclasses.replace(tiny_bundle, genes=genes, network=network, motifs=motifs)


def test_sites_and_hexamers_are_separated_from_the_rest(regulated):
    genes = [f"t{i}" for i in range(12)] + [f"u{i}" for i in range(12)]
    found, control = (
        [explained(gene, on_sites, number) for number, gene in enumerate(genes)]
        for on_sites in (True, False)
    )
    metrics, table = measure_known_sites(regulated, found, control)
    values = {(m.model, m.metric): m for m in metrics}
    for metric in ("hexamer_auroc", "motif_auroc", "motif_auroc:boss"):
        assert values["genesplice", metric].value > 0.95
        assert abs(values["permuted_weights", metric].value - 0.5) < 0.2
    assert values["genesplice", "hexamer_auroc"].n == 24
    assert values["genesplice", "motif_auroc:boss"].n == 12
    assert set(table["regulator"]) == {"boss", "-10 and -35 hexamers"}
    assert (table["auroc"] > table["control"] + 0.3).all()
    boss = table.set_index("regulator").loc["boss"]
    assert boss["found"] == 12
    assert boss["expected"] < 3
    assert values["genesplice", "motif_auroc_enriched"].value == boss["auroc"]


def test_sites_are_scored_by_their_columns_beside_the_attribution(regulated):
    genes = [f"t{i}" for i in range(12)] + [f"u{i}" for i in range(12)]
    found = []
    for number, gene in enumerate(genes):
        blind, seeing = explained(gene, False, number), explained(gene, True, number)
        bits = Conservation({}, np.zeros((400, 3)), np.zeros((400, 3)), seeing.values)
        by_group = np.random.default_rng(number).normal(size=(400, 3)) * 0.01
        by_group[:, 1] -= seeing.values
        found.append(blind._replace(by_group=by_group, conservation=bits))
    metrics, table = measure_known_sites(regulated, found, found)
    values = {(m.model, m.metric): m.value for m in metrics}
    for metric in ("hexamer_auroc", "motif_auroc:boss"):
        assert values["column", metric] > 0.95
        assert values["genesplice_columns", metric] > 0.95
        assert abs(values["genesplice", metric] - 0.5) < 0.2
    boss = table.set_index("regulator").loc["boss"]
    assert boss["column"] == values["column", "motif_auroc:boss"]
    assert boss["control"] == boss["auroc"]
    assert {"found", "expected"} <= set(table.columns)
    _, table = measure_known_sites(regulated, [one._replace(by_group=None) for one in found], found)
    assert "genesplice_columns" not in table
    assert "column" in table


def test_what_grows_towards_the_start_points_at_nothing(regulated):
    """Attribution that depends on the distance alone, and sites close to the start."""
    genes = [f"t{i}" for i in range(12)] + [f"u{i}" for i in range(40)]
    found = []
    for number, gene in enumerate(genes):
        one = explained(gene, False, number)
        tokens = one.tokens.copy()
        if gene.startswith("t"):
            tokens[260 : 260 + len(SITE_LETTERS)] = encode(SITE_LETTERS)
        ramp = np.linspace(0.1, 2.0, 400) ** 3 + one.values
        found.append(one._replace(tokens=tokens, values=ramp))
    metrics, _ = measure_known_sites(regulated, found, found)
    values = {m.metric: m.value for m in metrics}
    assert abs(values["motif_auroc:boss"] - 0.5) < 0.2
    assert abs(values["hexamer_auroc"] - 0.5) < 0.2


def test_genes_inside_of_an_operon_are_not_asked(tiny_bundle):
    bundle = with_operons(tiny_bundle)
    first, genes = (
        first_of_operon(bundle.genome, bundle.genes, bundle.splits),
        bundle.genes["gene_id"].tolist(),
    )
    found = [explained(gene, True, number) for number, gene in enumerate(genes)]
    _, table = measure_known_sites(bundle, found, found)
    n_targets = table.set_index("regulator").loc[HEXAMERS, "n_targets"]
    assert n_targets <= int(first.sum()) < len(genes)


def test_what_is_too_seldom_is_not_scored(regulated):
    genes = [f"t{i}" for i in range(6)]
    found = [explained(gene, True, number) for number, gene in enumerate(genes)]
    metrics, table = measure_known_sites(regulated, found, found)
    assert metrics == []
    assert table.empty


SITE = "TGTGATCACATT"
SCANNER = MotifScanner({"reg": np.eye(4)[encode(SITE)] * 0.96 + 0.01}, false_positive_rate=1e-6)


def genes(contrast: float, count: int = 30) -> list[Attribution]:
    """Genes with one site at -60; its bases have attributions larger by `contrast`."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        tokens = rng.integers(0, 4, 1024).astype(np.uint8)
        tokens[512 - 60 : 512 - 48] = encode(SITE)
        values = rng.normal(size=1024) * 10.0 ** rng.integers(-3, 3)
        values[512 - 60 : 512 - 48] *= 1 + contrast
        found.append(attribution(f"g{i}", tokens, values, -512))
    return found


TARGETS = {"reg": [f"g{i}" for i in range(30)]}


def scores(contrast: float, **options):
    table = site_table(genes(contrast), TARGETS, {"reg": SCANNER.scan})
    return site_scores(table, **options)


def test_planted_sites_stand_out_and_others_do_not():
    (found,) = scores(5.0).itertuples()
    # The motif is found on both strands: one site.
    assert sum(len(SCANNER.scan(one.tokens[212:512])) for one in genes(5.0)) > 30
    assert (found.regulator, found.n_targets, found.n_sites) == ("reg", 30, 30)
    assert found.auroc > 0.97
    assert found.ci_low <= found.auroc <= found.ci_high
    (chance,) = scores(0.0).itertuples()
    assert chance.ci_low < 0.5 < chance.ci_high


def test_a_model_that_weighs_letters_alone_points_at_no_site():
    """The site is rich in A and T; whatever lies on these has three times the attribution."""
    weight = np.array([3.0, 1.0, 1.0, 3.0])
    biased = [one._replace(values=one.values * weight[one.tokens]) for one in genes(0.0)]
    table = site_table(biased, TARGETS, {"reg": SCANNER.scan})
    (found,) = site_scores(table).itertuples()
    (even,) = scores(0.0).itertuples()
    assert found.auroc == pytest.approx(even.auroc, abs=0.03)
    assert found.ci_low < 0.5 < found.ci_high
    marked = [one._replace(values=one.values * weight[one.tokens]) for one in genes(5.0)]
    (learned,) = site_scores(site_table(marked, TARGETS, {"reg": SCANNER.scan})).itertuples()
    assert learned.auroc > 0.97


def test_values_are_means_over_stretches_that_avoid_the_site():
    # Of one gene nobody can say what is usual.
    table = site_table(genes(5.0, 1), TARGETS, {"reg": SCANNER.scan}, n_random=4)
    first = genes(5.0)[0]
    mine = table[table["gene_id"] == "g0"]
    assert mine["is_site"].tolist() == [True] + [False] * 4
    site = np.abs(first.values[512 - 60 : 512 - 48]).mean()
    assert mine["value"].iloc[0] == pytest.approx(site)
    upstream = np.abs(first.values[512 - 300 : 512])
    means = [upstream[i : i + 12].mean() for i in range(289) if i + 12 <= 240 or i >= 252]
    for value in mine["value"].iloc[1:]:
        assert np.isclose(means, value).any()


def test_the_area_is_a_share_of_pairs():
    table = site_table(genes(1.0), TARGETS, {"reg": SCANNER.scan})
    found = site_scores(table)["auroc"].item()
    rank = table.groupby("gene_id")["value"].rank(pct=True)
    sites, others = rank[table["is_site"]], rank[~table["is_site"]]
    pairs = [(a > b) + 0.5 * (a == b) for a in sites for b in others]
    assert found == pytest.approx(np.mean(pairs))


def test_few_targets_are_left_out_and_unknown_genes_ignored():
    assert scores(5.0, min_targets=31).empty
    table = site_table(
        genes(5.0), {"reg": ["g1", "nobody"], "other": ["g2"]}, {"reg": SCANNER.scan}
    )
    assert set(table["gene_id"]) == {"g1"}

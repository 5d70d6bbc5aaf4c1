"""The leakage report: planted leaks are caught, and a clean control is not red."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_files import gene_table, random_genome, spaced_genes, write

from genesplice.data.genome import Genome, decode, encode, reverse_complement
from genesplice.data.leakage import evidence_of, make_leakage_report, windows_across_folds
from genesplice.data.network import NETWORK_COLUMNS, gene_aliases, read_network
from genesplice.data.similarity import KMER, canonical_kmers, gene_similarity

COPIES, RELATIVES = "copies in other folds", "relatives in other folds"
OPERONS, WINDOWS = "operon mates in other folds", "windows that hold genes of other folds"
EDGES, SETS = "edges whose evidence is expression", "gene sets whose evidence is expression"
SAMPLES, BALANCE = "duplicated samples", "measured genes in the smallest fold"

GENOME = random_genome(200_000)
GENES = spaced_genes(GENOME, 5000, length=800)
IDS = GENES["gene_id"].tolist()
FOLDS = np.repeat(np.arange(5), 8)
SPLITS = pd.DataFrame({"gene_id": IDS, "block": FOLDS, "fold": FOLDS, "operon": IDS})


def expression(n_samples=12, ids=IDS, seed=0):
    generator = np.random.default_rng(seed)
    values = generator.uniform(0, 12, len(ids)) + generator.normal(0, 1, (n_samples, len(ids)))
    obs = pd.DataFrame({"condition": [f"c{i // 2}" for i in range(n_samples)]})
    obs.index = pd.Index([f"s{i}" for i in range(n_samples)])
    return ad.AnnData(values.astype(np.float32), obs, pd.DataFrame(index=pd.Index(ids)))


def network(*provenance):
    edges = [(IDS[0], IDS[i + 1], 1, "regulates", words) for i, words in enumerate(provenance)]
    return pd.DataFrame(edges, columns=list(NETWORK_COLUMNS))


def leakage(genome=GENOME, genes=GENES, splits=SPLITS, data=None, edges=(), sets=None, **kwargs):
    data = expression() if data is None else data
    near = gene_similarity(genome, genes, splits["fold"].tolist())
    parts = data, network(*edges), sets or {}, splits
    return make_leakage_report(genome, genes, *parts, similarity=near, **kwargs)


def check(made, name):
    return next(record for record in made["checks"] if record["check"] == name)


def judged(made, name):
    record = check(made, name)
    return record["value"], record["status"]


def copied(pairs, change=0.0, is_turned=False):
    """The genome with the bases of one gene written over another, changed at some places."""
    generator = np.random.default_rng(7)
    tokens = GENOME.tokens.copy()
    rows = list(GENES.itertuples())
    for source, target in pairs:
        bases = GENOME.fetch("c0", rows[source].start, rows[source].end)
        hit = generator.random(len(bases)) < change
        bases = np.where(hit, (bases + generator.integers(1, 4, len(bases))) % 4, bases)
        bases = bases.astype(np.uint8)
        tokens[rows[target].start : rows[target].end] = (
            reverse_complement(bases) if is_turned else bases
        )
    return Genome(tokens, GENOME.contigs)


# --- a clean control ---


def test_clean_control_is_green_in_every_check():
    made = leakage(
        edges=["ChIP-seq", "binding of TFs"], gene_set_evidence="orthology", window_bp=12_000
    )
    assert {record["check"]: record["status"] for record in made["checks"]} == dict.fromkeys(
        [COPIES, RELATIVES, OPERONS, WINDOWS, EDGES, SETS, SAMPLES, BALANCE], "green"
    )
    assert made["status"] == "green"
    assert made["similarity_by_chance"] < 0.02
    assert made["window_bp"] == 12_000
    assert 0 < check(made, WINDOWS)["value"] < 0.25


def test_synthetic_control_is_not_red(tiny_bundle):
    assert tiny_bundle.leakage["status"] != "red"
    red = [record for record in tiny_bundle.leakage["checks"] if record["status"] == "red"]
    assert red == []


def test_status_is_that_of_the_worst_check():
    assert leakage(edges=["?"])["status"] == "amber"
    assert leakage(edges=["?", "co-expression"])["status"] == "red"


# --- copied genes ---


@pytest.mark.parametrize("is_turned", [False, True])
def test_gene_copied_across_folds_is_caught_on_either_strand(is_turned):
    genome = copied([(3, 30), (5, 20)], is_turned=is_turned)
    similarity = gene_similarity(genome, GENES, FOLDS.tolist())
    nearest = similarity.nearest.set_index("gene_id")
    for one, other in ((3, 30), (5, 20)):
        for gene, mate in ((IDS[one], IDS[other]), (IDS[other], IDS[one])):
            assert nearest.loc[gene, "nearest_gene_id"] == mate
            assert nearest.loc[gene, "similarity"] == 1
    made = leakage(genome)
    assert judged(made, COPIES) == (0.1, "red")
    assert made["status"] == "red"


def test_a_single_copy_is_amber():
    assert judged(leakage(copied([(3, 30)])), COPIES) == (0.05, "amber")


def test_copy_within_a_fold_leaks_nothing():
    made = leakage(copied([(0, 7), (9, 11)]))
    assert judged(made, COPIES) == (0, "green")
    assert judged(made, RELATIVES) == (0, "green")


def test_only_measured_genes_count():
    genome = copied([(3, 30), (5, 20)])
    measured = expression(ids=[gene for i, gene in enumerate(IDS) if i not in (3, 30, 5, 20)])
    assert judged(leakage(genome, data=measured), COPIES) == (0, "green")


def test_copy_that_drifted_by_a_tenth_is_a_relative_and_no_copy():
    made = leakage(copied([(i, 39 - i) for i in range(6)], change=0.1))
    assert judged(made, COPIES)[1] == "green"
    value, status = judged(made, RELATIVES)
    assert value == pytest.approx(0.3, abs=0.05)
    assert status == "red"


@pytest.mark.parametrize(("identity", "stated"), [(0.9, 0.23), (0.8, 0.04)])
def test_similarity_falls_with_identity_as_the_measure_says(identity, stated):
    pairs = [(i, 39 - i) for i in range(16)]
    nearest = gene_similarity(copied(pairs, 1 - identity), GENES, FOLDS.tolist()).nearest
    mates = nearest.iloc[[row for pair in pairs for row in pair]]
    assert mates["similarity"].mean() == pytest.approx(stated, abs=0.05)


def test_short_gene_inside_a_long_one_is_fully_similar():
    tokens = random_genome(9000).tokens.copy()
    tokens[6000:6200] = tokens[1300:1500]
    genome = Genome(tokens, random_genome(9000).contigs)
    genes = gene_table(genome, (1000, 3000, "+"), (6000, 6200, "-"), (8000, 8300, "+"))
    nearest = gene_similarity(genome, genes, [0, 1, 1]).nearest
    assert nearest["similarity"].tolist() == [1, 1, 0]
    assert nearest["nearest_gene_id"].tolist() == ["g1", "g0", ""]


def test_chance_is_small_for_random_bases_and_one_where_all_is_the_same():
    assert gene_similarity(GENOME, GENES, FOLDS.tolist()).chance < 0.02
    same = Genome(np.zeros(200_000, np.uint8), GENOME.contigs)
    assert gene_similarity(same, GENES, FOLDS.tolist()).chance == 1


# --- k-mers ---


def slow_kmers(text: str) -> set[str]:
    turn = str.maketrans("ACGT", "TGCA")
    return {min(word, word[::-1].translate(turn)) for word in kmer_texts(text)}


def kmer_texts(text: str) -> list[str]:
    words = (text[i : i + KMER] for i in range(len(text) - KMER + 1))
    return [word for word in words if "N" not in word]


@settings(max_examples=60, deadline=None)
@given(st.text("ACGT", max_size=60), st.text("ACGTN", max_size=30))
def test_kmers_are_without_n_and_blind_to_strand(left, right):
    text = left + right
    for codes, read in zip(canonical_kmers(encode(text)), (text, text[::-1]), strict=True):
        spelled = ["".join("ACGT"[code >> 2 * i & 3] for i in reversed(range(KMER)))
                   for code in codes.tolist()]  # fmt: skip
        assert set(spelled) == slow_kmers(read)
        assert len(spelled) == len(kmer_texts(read))
    turned = canonical_kmers(reverse_complement(encode(text)))
    for one, other in zip(turned, canonical_kmers(encode(text)), strict=True):
        assert np.array_equal(one[::-1], other)


def test_scaled_kmers_are_the_same_share_of_any_sequence():
    for direction in (0, 1):
        codes = canonical_kmers(GENOME.tokens[:50_000])[direction]
        some = canonical_kmers(GENOME.tokens[:50_000], scale=10)[direction]
        assert set(some.tolist()) < set(codes.tolist())
        assert len(some) / len(codes) == pytest.approx(0.1, abs=0.01)
        inner = canonical_kmers(GENOME.tokens[10_000:20_000], scale=10)[direction]
        assert set(inner.tolist()) <= set(some.tolist())


# --- bounded memory and time ---


def slow_nearest(sets, others):
    """Every pair of genes, one at a time: best containment and the first gene that has it."""
    best = []
    for i, one in enumerate(sets):
        pairs = [(len(one & other) / max(1, min(len(one), len(other))), -j)
                 for j, other in enumerate(others) if FOLDS[i] != FOLDS[j]]  # fmt: skip
        best.append(max(pairs))
    return [share for share, _ in best], [IDS[-j] if share else "" for share, j in best]


def gene_kmers(genome, is_reversed=False):
    texts = (decode(genome.fetch("c0", gene.start, gene.end)) for gene in GENES.itertuples())
    return [slow_kmers(text[::-1] if is_reversed else text) for text in texts]


MANY = copied([(0, 10), (0, 20), (1, 30), (2, 3), (8, 39)], change=0.05)


@pytest.mark.parametrize("max_pairs", [1, 100, 1_000_000])
def test_nearest_genes_are_those_of_every_pair_however_many_are_in_memory(max_pairs, monkeypatch):
    monkeypatch.setattr("genesplice.data.similarity.MAX_PAIRS", max_pairs)
    similarity = gene_similarity(MANY, GENES, FOLDS.tolist())
    sets = gene_kmers(MANY)
    shares, ids = slow_nearest(sets, sets)
    assert similarity.nearest["similarity"].tolist() == pytest.approx(shares, abs=1e-6)
    assert similarity.nearest["nearest_gene_id"].tolist() == ids
    by_chance, _ = slow_nearest(sets, gene_kmers(MANY, is_reversed=True))
    assert similarity.chance == pytest.approx(np.quantile(by_chance, 0.99))


def test_kmers_of_very_many_genes_are_left_out_and_nothing_else(monkeypatch):
    tokens, generator = MANY.tokens.copy(), np.random.default_rng(3)
    repeat = generator.integers(0, 4, 300).astype(np.uint8)
    for gene in GENES.itertuples():
        tokens[gene.end - 300 : gene.end] = repeat
    genome = Genome(tokens, MANY.contigs)
    everything = gene_similarity(genome, GENES, FOLDS.tolist())
    assert everything.nearest["similarity"].min() > 0.3
    assert "repeats" not in everything.measure
    # Of the repeat each k-mer has 40 ** 2 pairs of genes.
    monkeypatch.setattr("genesplice.data.similarity.MAX_MATCHES", 100_000)
    bounded = gene_similarity(genome, GENES, FOLDS.tolist())
    assert "without the 14-mers of more than 39 genes" in bounded.measure
    assert bounded.chance < 0.02
    kept = [one - slow_kmers(decode(repeat)) for one in gene_kmers(genome)]
    shares, ids = slow_nearest(kept, kept)
    assert bounded.nearest["similarity"].tolist() == pytest.approx(shares, abs=1e-6)
    assert bounded.nearest["nearest_gene_id"].tolist() == ids


def test_kmers_beyond_the_budget_are_sampled_by_hash_and_the_measure_says_so(monkeypatch):
    whole = gene_similarity(MANY, GENES, FOLDS.tolist())
    monkeypatch.setattr("genesplice.data.similarity.MAX_KMERS", 8000)
    similarity = gene_similarity(MANY, GENES, FOLDS.tolist())
    assert "a 4th of all k-mers" in similarity.measure
    one, other = (made.nearest["similarity"] for made in (whole, similarity))
    is_copy = one > 0.2
    assert is_copy.sum() == 7
    assert np.allclose(one[is_copy], other[is_copy], atol=0.15)
    assert not np.array_equal(one, other)


# --- operons, windows ---


def test_operon_cut_in_two_is_red():
    operon = np.array(IDS, dtype=object)
    operon[[7, 8]] = "torn"
    operon[[10, 11]] = "whole"
    made = leakage(splits=SPLITS.assign(operon=operon))
    assert judged(made, OPERONS) == (0.05, "red")
    assert made["status"] == "red"


def slow_across(genome, genes, splits, window_bp):
    """Every pair of genes, one at a time."""
    fold = splits.set_index("gene_id")["fold"]
    n = 0
    for a in genes.itertuples():
        contig = genome.contig(a.contig)
        for b in genes.itertuples():
            apart = abs(a.tss % contig.length - b.tss % contig.length)
            if contig.is_circular:
                apart = min(apart, contig.length - apart)
            is_other = a.contig == b.contig and fold[a.gene_id] != fold[b.gene_id]
            if is_other and apart <= window_bp / 2:
                n += 1
                break
    return n / len(genes)


places = st.tuples(st.integers(0, 1899), st.integers(3, 300), st.sampled_from("+-"))


@settings(max_examples=60, deadline=None)
@given(st.lists(places, min_size=1, max_size=10), st.booleans(), st.integers(0, 5000), st.data())
def test_windows_that_hold_other_folds_against_every_pair(places, is_circular, window, data):
    genome = random_genome(1900, 2000, circular=is_circular)
    rows = [(s, s + n if is_circular else min(1900, s + n), strand, f"c{i % 2}")
            for i, (s, n, strand) in enumerate(places)]  # fmt: skip
    genes = gene_table(genome, *rows)
    folds = data.draw(st.lists(st.integers(0, 2), min_size=len(genes), max_size=len(genes)))
    splits = pd.DataFrame({"gene_id": genes["gene_id"], "fold": folds})
    expected = slow_across(genome, genes, splits, window)
    assert windows_across_folds(genome, genes, splits, window) == pytest.approx(expected)


def test_wider_windows_hold_more_genes_of_other_folds():
    shares = [
        windows_across_folds(GENOME, GENES, SPLITS, bp) for bp in (0, 12_000, 50_000, 400_000)
    ]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert judged(leakage(window_bp=400_000), WINDOWS) == (1, "amber")


# --- edges and gene sets ---


@pytest.mark.parametrize(
    "words", ["Gene expression analysis (GEA)", "IEP", "RNA-seq", "iModulon 4", "Microarray"]
)
def test_edge_whose_evidence_is_expression_is_red(words):
    assert judged(leakage(edges=["ChIP", "motif", "binding", words]), EDGES) == (0.25, "red")


@pytest.mark.parametrize(
    ("declared", "evidence"),
    [
        ("", "unknown"),
        ("chip_edges.tsv", "unknown"),
        ("sequence_network.tsv", "unknown"),
        ("my expression_data", "unknown"),
        ("HepG2 ChIP", "binding"),
        ("ChIP-seq, DAP-seq", "binding"),
        ("GSEA", "unknown"),
        ("GENE EXPRESSION", "expression"),
        ("RegulonDB (curated), release 12", "curated"),
        ("orthologues of another species", "orthology"),
        ("IDA; ISS", "curated"),
        ("ISS|IBA", "orthology"),
        ("ChIP; ", "unknown"),
        ("ChIP; curated; co-expression; motif", "expression"),
        ("motif; binding", "binding"),
        ("hep", "expression"),
    ],
)
def test_evidence_is_what_is_declared_in_whole_words_and_the_worst_of_several(declared, evidence):
    assert evidence_of(declared) == evidence


@pytest.mark.parametrize("name", ["chip_edges.tsv", "expression.tsv", "sequence_network.csv"])
def test_the_name_of_a_file_is_no_evidence(tmp_path, name):
    separator = "," if name.endswith("csv") else "\t"
    text = f"source,target\n{IDS[0]},{IDS[1]}\n".replace(",", separator)
    edges = read_network(write(tmp_path / name, text), GENES, gene_aliases(GENES)).edges
    near = gene_similarity(GENOME, GENES, SPLITS["fold"].tolist())
    found = make_leakage_report(GENOME, GENES, expression(), edges, {}, SPLITS, similarity=near)
    assert judged(found, EDGES) == (0, "amber")
    assert "100% of the edges do not declare what they rest on" in check(found, EDGES)["why"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("RegulonDB (curated)", "50% of the edges are curated"),
        ("edges.tsv", "50% of the edges do not declare"),
        ("", "50% of the edges do not declare"),
    ],
)
def test_edge_that_is_curated_or_declares_nothing_is_amber(words, sentence):
    made = leakage(edges=["ChIP", words])
    assert judged(made, EDGES) == (0, "amber")
    assert sentence in check(made, EDGES)["why"]


def test_edges_that_declare_binding_and_sequence_are_green():
    assert judged(leakage(edges=["ChIP", "motif"]), EDGES) == (0, "green")


def test_no_edges_are_green():
    assert judged(leakage(), EDGES) == (0, "green")
    assert check(leakage(), EDGES)["why"].endswith("there are no edges")


@pytest.mark.parametrize(
    ("evidence", "status"),
    [
        ("orthology (eggNOG)", "green"),
        ("orthology and expression", "red"),
        ("planted", "green"),
        ("", "amber"),
        ("IDA; IEA", "amber"),
        ("co-expression modules", "red"),
        ("iModulons", "red"),
    ],
)
def test_gene_sets_are_judged_by_their_evidence(evidence, status):
    made = leakage(sets={"S:1": IDS[:3]}, gene_set_evidence=evidence)
    assert judged(made, SETS) == (float(status == "red"), status)
    assert judged(leakage(gene_set_evidence=evidence), SETS) == (0, "green")


# --- samples and balance ---


def test_duplicated_samples_are_caught_and_named():
    data = expression(n_samples=40)
    data.X[7] = data.X[2] + 1e-4
    made = leakage(data=data)
    assert judged(made, SAMPLES) == (0.05, "amber")
    assert "1 pairs, 1 across conditions (s2 = s7)" in check(made, SAMPLES)["why"]
    data.X[[9, 11, 13]] = data.X[20]
    assert judged(leakage(data=data), SAMPLES) == (0.15, "red")


def test_samples_with_a_deleted_gene_are_compared_too():
    data = expression(n_samples=40)
    data.X[7] = data.X[2] + 1e-4
    data.X[[2, 7, 9], [3, 3, 5]] = np.nan
    made = leakage(data=data)
    assert judged(made, SAMPLES) == (0.05, "amber")
    assert "(s2 = s7)" in check(made, SAMPLES)["why"]


def test_noisy_replicates_and_flat_samples_are_no_duplicates():
    data = expression()
    data.X[5] = data.X[4] + np.random.default_rng(0).normal(0, 0.3, data.n_vars)
    data.X[7] = 3
    data.X[8] = 3
    assert judged(leakage(data=data), SAMPLES) == (0, "green")


@pytest.mark.parametrize(
    ("left", "status"), [(8, "green"), (5, "green"), (3, "amber"), (1, "amber"), (0, "red")]
)
def test_small_fold_of_measured_genes_is_told(left, status):
    rows = [i for i in range(40) if not left <= i < 8]
    value, got = judged(leakage(data=expression(ids=[IDS[i] for i in rows])), BALANCE)
    assert got == status
    assert value == pytest.approx(left / len(rows), abs=1e-4)


# --- the real leakage ---


def test_ecoli_leakage_is_not_red_and_names_what_is_known(ecoli):
    assert ecoli.leakage["status"] == "amber"
    by_name = {record["check"]: record for record in ecoli.leakage["checks"]}
    assert by_name[OPERONS]["value"] == 0
    assert 0.005 < by_name[COPIES]["value"] < 0.05
    assert "pal__lyx_ale2__1 = pal__lyx_ale4__1" in by_name[SAMPLES]["why"]


def test_ecoli_finds_the_two_copies_of_elongation_factor_tu(ecoli):
    ids = ecoli.genes.set_index("name")["gene_id"]
    nearest = ecoli.similarity.set_index("gene_id")
    fold = ecoli.fold_of
    assert fold[ids["tufA"]] != fold[ids["tufB"]]
    assert nearest.loc[ids["tufA"], "nearest_gene_id"] == ids["tufB"]
    assert nearest.loc[ids["tufB"], "nearest_gene_id"] == ids["tufA"]
    assert nearest.loc[[ids["tufA"], ids["tufB"]], "similarity"].min() > 0.7

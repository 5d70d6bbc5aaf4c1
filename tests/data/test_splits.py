"""Folds: cut between operons only, every gene in one, and the same for the same seed."""

from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from tiny_files import gene_table, random_genome, refusal, spaced_genes, write

from genesplice.data.splits import choose_operons, make_blocks, make_operons, read_operons
from genesplice.errors import InputError


@st.composite
def controls(draw):
    """Genes that overlap, nest and cross the origin, in operons that are drawn too."""
    length = draw(st.integers(20_000, 40_000))
    is_circular = draw(st.booleans())
    places = []
    for _ in range(draw(st.integers(25, 45))):
        start = draw(st.integers(0, length - 10))
        room = 900 if is_circular else min(900, length - start)
        end = start + draw(st.integers(3, room))
        places.append((start, end, draw(st.sampled_from("+-"))))
    return length, is_circular, places, draw(st.sampled_from([0, 50, 400]))


def build(control):
    length, is_circular, places, gap = control
    genome = random_genome(length, circular=is_circular)
    genes = gene_table(genome, *places)
    return genome, genes, make_operons(genes, gap)


def blocks_of(genome, genes, operons, **kwargs):
    """The split; genomes whose operons leave too few positions to cut are passed over."""
    with suppress(InputError):
        return make_blocks(genome, genes, operons, **kwargs)
    reject()


def even_control(length=60_000, n_contigs=1, circular=True, every=1000):
    genome = random_genome(*[length] * n_contigs, circular=circular)
    genes = spaced_genes(genome, every)
    return genome, genes, make_operons(genes)


# --- operons ---

NAMES = {f"g{i}": f"g{i}" for i in range(5)} | {"thra": "g0"}


@pytest.mark.parametrize(
    ("text", "groups", "said"),
    [
        ("gene\toperon\ng0\tx\ng1\tx\ng2\ty\nno\tx\n", {"x": "g0 g1", "y": "g2"}, "2 of 3 genes"),
        ("thrA,g1\n\n# g2,g3\ng3 g4 g9\n", {"g0": "g0 g1", "g3": "g3 g4"}, "no genes: 1 (g9)"),
        ("x\tg0\nx\tg1\n", {"x": "g0 g1"}, "1 of 2 genes"),
        ("g0\tg0\ng1\tg0\ng2\tg2\n", {"g0": "g0 g1", "g2": "g2"}, "2 of 3 genes"),
    ],
)
def test_operons_are_read_from_pairs_and_lists(tmp_path, text, groups, said):
    operons, told = read_operons(write(tmp_path / "o.tsv", text), NAMES)
    assert operons == {gene: name for name, ids in groups.items() for gene in ids.split()}
    assert said in told


def test_bad_tables_of_operons_are_refused(tmp_path):
    bad = write(tmp_path / "o.tsv", "g0\tg1\nlac\t1\t+\tg2\n")
    error = refusal(read_operons, bad, NAMES)
    assert (error.line, error.found) == (2, "3 of 4 cells that are no genes (lac, 1, +)")
    assert refusal(read_operons, write(bad, "a\tb\n"), NAMES).found == "no gene in any line"


def test_spliced_genomes_have_no_operons_unless_asked_for(tmp_path):
    genome = random_genome(5000)
    genes = gene_table(genome, (0, 99, "+"), (120, 300, "+"))
    found, told = choose_operons(None, genes, NAMES)
    assert found["g0"] == found["g1"]
    assert told == (
        "operons: neighbours on one strand with a gap below 50 bp (0 of 2 coding genes are spliced)"
    )
    spliced = genes.assign(exons=[(0, 30, 60, 99), (120, 300)])
    none = ({}, "operons: none (1 of 2 coding genes are spliced)")
    assert choose_operons(None, spliced, NAMES) == none
    assert choose_operons("distance", spliced, NAMES)[0] == found
    assert choose_operons("none", genes, NAMES) == ({}, "operons: none")
    path = write(tmp_path / "o.tsv", "g0\tx\n")
    assert choose_operons(str(path), genes, NAMES)[0] == {"g0": "x"}


def test_neighbours_on_one_strand_below_the_gap_are_one_operon():
    genome = random_genome(5000)
    genes = gene_table(
        genome, (0, 100, "+"), (149, 300, "+"), (350, 500, "+"), (510, 600, "-"), (610, 700, "+")
    )
    operons = make_operons(genes)
    assert operons.index.tolist() == ["g0", "g1", "g2", "g3", "g4"]
    assert operons["g0"] == operons["g1"]
    assert len({operons["g1"], operons["g2"], operons["g3"], operons["g4"]}) == 4


def test_gap_is_measured_on_the_own_strand():
    genome = random_genome(5000)
    genes = gene_table(genome, (0, 100, "+"), (60, 120, "-"), (130, 300, "+"), (140, 300, "-"))
    operons = make_operons(genes)
    assert operons["g0"] == operons["g2"] != operons["g1"] == operons["g3"]


def test_overlapping_and_nested_genes_are_together_however_small_the_gap():
    genome = random_genome(5000)
    genes = gene_table(genome, (0, 1000, "+"), (100, 200, "+"), (990, 1100, "+"), (1100, 1200, "+"))
    operons = make_operons(genes, max_gap_bp=1)
    assert operons.nunique() == 1
    assert make_operons(genes, max_gap_bp=0).nunique() == 2


def test_genes_of_two_contigs_are_never_one_operon():
    genome = random_genome(200, 200)
    genes = gene_table(genome, (0, 100, "+", "c0"), (0, 100, "+", "c1"))
    assert make_operons(genes).nunique() == 2


# --- blocks ---


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(controls(), st.integers(0, 20), st.integers(2, 5))
def test_no_operon_lies_on_a_cut_and_every_gene_is_in_one_fold(control, seed, n_folds):
    genome, genes, operons = build(control)
    blocks, splits = blocks_of(genome, genes, operons, block_bp=2500, n_folds=n_folds, seed=seed)
    assert splits["gene_id"].tolist() == genes["gene_id"].tolist()
    assert set(splits["fold"]) == set(blocks["fold"]) == set(range(n_folds))
    assert splits.groupby("operon")["block"].nunique().max() == 1
    assert splits["operon"].tolist() == operons.loc[genes["gene_id"]].tolist()
    length = genome.length
    cuts = set((blocks["start"] % length).tolist()) - {0}
    covered = np.zeros(length, dtype=bool)
    for gene in genes.itertuples():
        covered[np.arange(gene.start + 1, gene.end) % length] = True
    assert not any(covered[cut] for cut in cuts)
    fold_of_block = blocks.set_index("block")["fold"]
    for row, gene in zip(splits.itertuples(), genes.itertuples(), strict=True):
        assert row.fold == fold_of_block[row.block]
        block = blocks.iloc[row.block]
        inside = [block["start"] <= gene.start + k <= gene.end + k <= block["end"]
                  for k in (0, length)]  # fmt: skip
        assert any(inside)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(controls(), st.integers(0, 20))
def test_blocks_tile_the_contig_once(control, seed):
    genome, genes, operons = build(control)
    blocks, _ = blocks_of(genome, genes, operons, block_bp=2500, n_folds=3, seed=seed)
    assert blocks["block"].tolist() == list(range(len(blocks)))
    assert blocks["start"].tolist()[1:] == blocks["end"].tolist()[:-1]
    assert blocks["end"].iloc[-1] - blocks["start"].iloc[0] == genome.length
    assert genome.contigs[0].is_circular or blocks["start"].iloc[0] == 0


def test_operon_and_gene_across_the_origin_stay_whole():
    genome = random_genome(60_000, circular=True)
    inner = [(s, s + 300, "+") for s in range(1500, 58_000, 1000)]
    genes = gene_table(genome, (59_700, 60_200, "+"), (100, 400, "-"), (500, 900, "+"), *inner)
    operons = {"g0": "around", "g2": "around"}
    blocks, splits = make_blocks(genome, genes, operons, 5000)
    first = blocks["start"].iloc[0]
    assert 900 <= first <= 1500
    assert blocks["end"].iloc[-1] == first + 60_000
    by_gene = splits.set_index("gene_id")
    assert by_gene.loc[["g0", "g1", "g2"], "block"].tolist() == [len(blocks) - 1] * 3


def test_gene_without_an_operon_is_its_own():
    genome, genes, _ = even_control()
    _, splits = make_blocks(genome, genes, {"g0": "", "g1": "op"}, 4000)
    assert splits["operon"].tolist() == ["g0", "op", *genes["gene_id"][2:]]


def test_same_operon_name_on_two_strands_is_two_operons():
    genome, genes, _ = even_control()
    named = dict.fromkeys(genes["gene_id"], "everything")
    with pytest.raises(InputError, match="1 blocks with genes"):
        make_blocks(genome, genes.assign(strand="+"), named, 4000)
    two = {"g0": "same", "g41": "same"}
    assert genes.set_index("gene_id").loc[["g0", "g41"], "strand"].tolist() == ["+", "-"]
    blocks, _ = make_blocks(genome, genes, two, 4000)
    assert len(blocks) == 15


def test_cuts_are_the_free_places_nearest_to_equal_blocks():
    genome, genes, operons = even_control()
    blocks, _ = make_blocks(genome, genes, operons, 10_000)
    assert blocks["start"].tolist() == list(range(0, 60_000, 10_000))
    blocks, _ = make_blocks(genome, genes, operons, 7000)
    assert np.abs(blocks["start"] - np.arange(9) * 60_000 / 9).max() <= 500
    assert (blocks["start"] % 1000 == 0).all()


def test_folds_are_even_in_genes():
    genome, genes, operons = even_control(200_000)
    _, splits = make_blocks(genome, genes, operons, 5000)
    sizes = splits["fold"].value_counts()
    assert sorted(sizes.index) == [0, 1, 2, 3, 4]
    assert sizes.max() - sizes.min() <= 5


# --- seeds ---


def test_seed_decides_the_deal_and_nothing_else():
    genome, genes, operons = even_control(200_000)
    first, again, other = (
        make_blocks(genome, genes, operons, 5000, seed=seed) for seed in (3, 3, 4)
    )
    for one, two in zip(first, again, strict=True):
        pd.testing.assert_frame_equal(one, two)
    assert first[0].drop(columns="fold").equals(other[0].drop(columns="fold"))
    assert not first[0]["fold"].equals(other[0]["fold"])


def test_order_of_the_operon_table_does_not_matter():
    genome, genes, operons = even_control()
    one = make_blocks(genome, genes, operons, 4000)
    two = make_blocks(genome, genes, dict(reversed(list(operons.items()))), 4000)
    for left, right in zip(one, two, strict=True):
        pd.testing.assert_frame_equal(left, right)


# --- whole contigs ---


def test_many_contigs_are_dealt_whole_and_few_are_not():
    genome, genes, operons = even_control(10_000, n_contigs=12)
    blocks, splits = make_blocks(genome, genes, operons, 4000)
    assert (blocks.groupby("contig")["fold"].nunique() == 1).all()
    assert splits["fold"].nunique() == 5
    blocks, _ = make_blocks(genome, genes, operons, 4000, mode="block")
    assert (blocks.groupby("contig")["fold"].nunique() > 1).any()
    genome, genes, operons = even_control(30_000, n_contigs=4)
    blocks, _ = make_blocks(genome, genes, operons, 4000)
    assert (blocks.groupby("contig")["fold"].nunique() > 1).any()


def test_contigs_without_genes_are_blocks_too():
    genome = random_genome(60_000, 3000, circular=False)
    genes = spaced_genes(random_genome(60_000), 1000)
    blocks, splits = make_blocks(genome, genes, {}, 4000)
    assert blocks.iloc[-1][["contig", "start", "end"]].tolist() == ["c1", 0, 3000]
    assert splits["block"].max() < len(blocks) - 1


# --- what is refused ---


def test_too_few_places_to_cut_are_refused():
    genome, genes, operons = even_control()
    with pytest.raises(InputError, match=r"3 blocks with genes .* expected at least 5"):
        make_blocks(genome, genes, operons, 20_000)
    with pytest.raises(InputError, match=r"1 blocks with genes \(contigs .* one per fold"):
        make_blocks(genome, genes, operons, 2000, mode="contig")
    for kwargs in ({"n_folds": 1}, {"block_bp": 0}):
        with pytest.raises(InputError, match="expected at least 2 folds and 1 bp"):
            make_blocks(genome, genes, operons, **kwargs)


# --- the real genome ---


def test_ecoli_has_five_even_folds_that_tear_no_operon(ecoli):
    assert ecoli.n_folds == 5
    assert ecoli.splits["gene_id"].tolist() == ecoli.genes["gene_id"].tolist()
    assert ecoli.splits.groupby("operon")["block"].nunique().max() == 1
    share = ecoli.splits["fold"].value_counts(normalize=True)
    assert share.between(0.17, 0.23).all()
    splits = ecoli.splits.set_index("gene_id")
    assert splits.loc[["b0342", "b0343", "b0344"], "operon"].nunique() == 1
    sizes = ecoli.blocks["end"] - ecoli.blocks["start"]
    assert sizes.sum() == 4_641_652
    assert sizes.between(80_000, 120_000).all()


def test_ecoli_folds_come_back_from_its_seed(ecoli):
    operons = ecoli.splits.set_index("gene_id")["operon"]
    seed = ecoli.manifest["seeds"]["folds"]
    blocks, splits = make_blocks(ecoli.genome, ecoli.genes, operons, seed=seed)
    pd.testing.assert_frame_equal(blocks, ecoli.blocks)
    pd.testing.assert_frame_equal(splits, ecoli.splits)

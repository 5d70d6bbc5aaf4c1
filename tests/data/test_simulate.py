"""Simulated data: what the manifest says was planted is there, and nothing else is."""

import numpy as np
import pandas as pd
import pytest

from genesplice.data.bundle import load_bundle
from genesplice.data.genome import decode, encode
from genesplice.data.prepare import prepare_files
from genesplice.data.simulate import (
    CONTROLS,
    DOMAIN_BP,
    ELEMENT_BP,
    ELEMENT_DISTANCE_BP,
    PROMOTER_BP,
    PROMOTER_MOTIF,
    PROMOTER_REPEAT,
    PROMOTER_UPSTREAM_BP,
    REGULATOR_MOTIF,
    make_bundle,
    make_control,
    make_own_files,
)
from genesplice.errors import InputError


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """Enough genes and conditions to see each planted effect."""
    out = tmp_path_factory.mktemp("controls") / "big"
    return make_bundle(out, seed=3, n_genes=200, n_conditions=30, genome_bp=300_000)


def upstream(bundle, gene, last_bp, width):
    """`width` bases on the gene's strand; the last lies `last_bp` before the TSS."""
    if gene.strand == "+":
        end = gene.tss - last_bp + 1
        return decode(bundle.genome.fetch(gene.contig, end - width, end, "+"))
    start = gene.tss + last_bp
    return decode(bundle.genome.fetch(gene.contig, start, start + width, "-"))


def profiles(bundle):
    """Observed values less each gene's own mean."""
    return bundle.observed.sub(bundle.observed.mean(axis=1), axis=0)


def test_control_has_the_size_it_was_asked_for(tmp_path):
    bundle = make_bundle(tmp_path / "w", 1, 30, 5, 3, 40_000, is_circular=False)
    assert bundle.genome.length == 40_000
    assert not bundle.genome.contigs[0].is_circular
    assert len(bundle.genes) == 30
    assert bundle.expression.shape == (15, 29)
    assert bundle.observed.shape == (29, 5)
    assert bundle.n_folds == 5


def test_genes_do_not_overlap_and_lie_on_both_strands(tiny_bundle):
    genes = tiny_bundle.genes
    assert (genes["start"].to_numpy()[1:] > genes["end"].to_numpy()[:-1]).all()
    assert genes["end"].max() <= tiny_bundle.genome.length
    assert set(genes["strand"]) == {"+", "-"}


@pytest.mark.parametrize(
    ("key", "motif", "last_bp"),
    [("promoter", PROMOTER_MOTIF, 30), ("targets", REGULATOR_MOTIF, 60)],
)
def test_motifs_stand_before_the_tss_on_the_genes_strand_and_nowhere_else(big, key, motif, last_bp):
    planted = set(big.manifest["truth"][key])
    found = {
        gene.gene_id
        for gene in big.genes.itertuples()
        if upstream(big, gene, last_bp, len(motif)) == motif
    }
    assert found == planted
    assert 0.2 < len(planted) / 200 < 0.6


def test_promoter_raises_the_level_by_three(big):
    level = big.observed.mean(axis=1)
    has_promoter = level.index.isin(big.manifest["truth"]["promoter"])
    difference = level[has_promoter].median() - level[~has_promoter].median()
    assert difference == pytest.approx(3, abs=0.1)


def test_targets_follow_their_regulator_with_their_sign(big):
    values = profiles(big)
    pathway = set(big.manifest["truth"]["pathway"])
    for target, edge in big.manifest["truth"]["targets"].items():
        if not {target, edge["regulator"]} & pathway:
            r = np.corrcoef(values.loc[target], values.loc[edge["regulator"]])[0, 1]
            assert edge["sign"] * r > 0.9


def test_pathway_moves_together_and_decoys_do_not(big):
    values = profiles(big).drop(index=["g0000", "g0001", *big.manifest["truth"]["targets"]])

    def coherence(name):
        members = [gene for gene in big.gene_sets[name] if gene in values.index]
        r = np.corrcoef(values.loc[members])
        return np.mean(r[np.triu_indices_from(r, k=1)])

    assert coherence("KEGG:ko00001") > 0.9
    pathway = set(big.gene_sets["KEGG:ko00001"])
    for name in ("GO:0000001", "COG:Decoy"):
        assert len(big.gene_sets[name]) == len(pathway)
        assert coherence(name) < 0.4


def test_network_and_truth_agree(big):
    truth = big.manifest["truth"]["targets"]
    edges = big.network.set_index("target")
    assert len(edges) == len(truth) == 50
    for target, edge in truth.items():
        assert edges.loc[target, ["source", "sign"]].tolist() == [edge["regulator"], edge["sign"]]
    assert set(edges["source"]) == {"g0000", "g0001"}
    assert set(edges["sign"]) == {1, -1}


def test_last_gene_is_annotated_and_not_measured(tiny_bundle):
    last = tiny_bundle.genes["gene_id"].iloc[-1]
    assert last not in tiny_bundle.expression.var_names
    assert set(tiny_bundle.genes["gene_id"]) - set(tiny_bundle.expression.var_names) == {last}


def test_replicates_differ_by_the_noise_only(big):
    data = big.expression.to_df()
    one, two = data.iloc[0::2].to_numpy(), data.iloc[1::2].to_numpy()
    assert (one - two).std() == pytest.approx(0.15 * np.sqrt(2), rel=0.1)


def test_motifs_spell_what_was_planted(tiny_bundle):
    for name, motif in (("promoter", PROMOTER_MOTIF), ("regulator", REGULATOR_MOTIF)):
        matrix = tiny_bundle.motifs[name]
        assert matrix.argmax(axis=1).tolist() == encode(motif).tolist()
        np.testing.assert_allclose(matrix.sum(axis=1), 1)


def test_seed_decides_everything(tmp_path):
    one, two, other = (
        make_bundle(tmp_path / f"w{i}", seed, 20, 3, 1, 20_000) for i, seed in enumerate((5, 5, 6))
    )
    assert one.data_sha256 == two.data_sha256
    assert one.manifest["truth"] == two.manifest["truth"]
    assert one.data_sha256["genome.npy"] != other.data_sha256["genome.npy"]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_genes": 9}, "9 genes in 120000 bp, expected 10 or more, 1,000 bp each"),
        ({"n_genes": 121}, "121 genes in 120000 bp"),
        ({"n_conditions": 1}, "1 conditions x 2 replicates, expected at least 2 x 1"),
        ({"n_replicates": 0}, "8 conditions x 0 replicates"),
    ],
)
def test_controls_that_do_not_fit_are_refused(tmp_path, sizes, message):
    with pytest.raises(InputError, match=message):
        make_bundle(tmp_path / "w", **sizes)
    assert list(tmp_path.iterdir()) == []


N_DOMAINS = 20


@pytest.fixture(scope="module")
def controls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    return {kind: make_control(folder / kind, kind, 3, N_DOMAINS) for kind in CONTROLS}


def test_controls_of_one_seed_differ_in_expression_alone(controls):
    first = controls["distal"]
    for kind, control in controls.items():
        np.testing.assert_array_equal(control.genome.tokens, first.genome.tokens)
        assert control.genes.equals(first.genes)
        assert control.network.equals(first.network)
        assert control.manifest["truth"]["kind"] == kind
        assert control.manifest["truth"]["context"] == CONTROLS[kind]
        assert kind == "distal" or not np.allclose(control.observed, first.observed)


def test_islands_stand_in_the_middle_of_their_domains_and_nowhere_else(controls):
    control = controls["distal"]
    found = []
    for domain in range(N_DOMAINS):
        middle = domain * DOMAIN_BP + DOMAIN_BP // 2
        island = control.genome.tokens[middle - ELEMENT_BP // 2 : middle + ELEMENT_BP // 2]
        if set(decode(np.asarray(island))) == {"C", "G"}:
            found.append(domain)
    assert found == control.manifest["truth"]["elements"]
    assert len(found) == N_DOMAINS // 2


def test_genes_keep_their_distance_from_the_island(controls):
    genes = controls["distal"].genes
    middle = genes["start"] // DOMAIN_BP * DOMAIN_BP + DOMAIN_BP // 2
    low, high = middle - ELEMENT_BP // 2, middle + ELEMENT_BP // 2
    gap = np.maximum(genes["start"] - high, low - genes["end"])
    assert gap.min() == ELEMENT_DISTANCE_BP[0]
    reach = np.maximum((genes["start"] - middle).abs(), (genes["end"] - middle).abs())
    assert reach.max() == ELEMENT_DISTANCE_BP[1] < DOMAIN_BP // 2


def test_promoters_stand_before_the_tss_on_the_genes_strand(controls):
    control = controls["promoter"]
    found = []
    for gene in control.genes.itertuples():
        if gene.strand == "+":
            low = gene.tss - PROMOTER_UPSTREAM_BP
        else:
            low = gene.tss + 1 + PROMOTER_UPSTREAM_BP - PROMOTER_BP
        element = control.genome.fetch(gene.contig, low, low + PROMOTER_BP, gene.strand)
        if decode(element) == PROMOTER_REPEAT * (PROMOTER_BP // len(PROMOTER_REPEAT)):
            found.append(gene.gene_id)
    assert found == control.manifest["truth"]["promoters"]
    assert len(found) == len(control.genes) // 2


def groups(control, kind):
    truth, genes = control.manifest["truth"], control.genes.set_index("gene_id")
    ids = control.observed.index
    if kind == "distal":
        return np.isin(genes.loc[ids, "start"] // DOMAIN_BP, truth["elements"])
    if kind == "promoter":
        return np.isin(ids, truth["promoters"])
    return np.array([truth["edges"][gene]["sign"] > 0 for gene in ids])


@pytest.mark.parametrize("kind", CONTROLS)
@pytest.mark.parametrize("group", ["distal", "promoter", "network"])
def test_each_control_is_decided_by_its_own_part_alone(controls, kind, group):
    level = controls[kind].observed.mean(axis=1).to_numpy()
    is_high = groups(controls[kind], group)
    difference = level[is_high].mean() - level[~is_high].mean()
    if kind == group:
        assert difference == pytest.approx(3, abs=0.2 + (kind == "network"))
        assert level[is_high].std() < 1
    else:
        assert abs(difference) < 1.2


def test_levels_of_all_controls_spread_alike(controls):
    spread = {kind: control.observed.mean(axis=1).std() for kind, control in controls.items()}
    assert min(spread.values()) > 0.7 * max(spread.values())


def test_every_domain_is_a_block(controls):
    blocks = controls["distal"].blocks
    assert len(blocks) == N_DOMAINS
    assert ((blocks["end"] - blocks["start"]) - DOMAIN_BP).abs().max() <= DOMAIN_BP // 4


def test_seed_of_a_control_decides_everything(tmp_path):
    one, two, other = (
        make_control(tmp_path / f"w{i}", "distal", s, 10) for i, s in enumerate((0, 0, 1))
    )
    assert one.data_sha256 == two.data_sha256
    assert one.data_sha256["genome.npy"] != other.data_sha256["genome.npy"]


def test_unknown_and_tiny_genomes_are_refused(tmp_path):
    with pytest.raises(InputError, match="9 domains, expected at least 10"):
        make_control(tmp_path / "w", "distal", 0, 9)
    assert list(tmp_path.iterdir()) == []


def test_small_files_are_read_as_they_were_made(tmp_path):
    files = [make_own_files(tmp_path) for _ in range(2)][1]
    rows = pd.read_csv(files.pop("table"), sep="\t")
    read, made = prepare_files(**files, out=tmp_path / "data"), load_bundle(tmp_path / "made_up")
    np.testing.assert_array_equal(read.genome.tokens, made.genome.tokens)
    assert read.genome.contigs == made.genome.contigs
    same = ["gene_id", "name", "start", "end", "strand", "tss"]
    pd.testing.assert_frame_equal(read.genes[same], made.genes[same])
    observed = read.observed.loc[made.observed.index, made.observed.columns]
    np.testing.assert_allclose(observed, made.observed, atol=1e-3)
    assert read.tracks.labels == ["binding"]
    truth = made.genes[made.genes["gene_id"].isin(made.manifest["truth"]["promoter"])]
    for gene in truth.itertuples():
        low = gene.tss - 41 if gene.strand == "+" else gene.tss + 30
        assert decode(read.genome.fetch("chr", low, low + 12, gene.strand)) == PROMOTER_MOTIF
        assert read.tracks.values[0, (low + 6) // 128] == 1
    assert read.tracks.values.sum() <= 2 * len(truth)
    has_motif = rows["sequence"].str[40:52] == PROMOTER_MOTIF
    assert has_motif.sum() == len(rows) // 2
    apart = rows["strength"][has_motif].mean() - rows["strength"][~has_motif].mean()
    assert abs(apart - 3) < 0.5

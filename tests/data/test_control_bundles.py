"""Simulated controls: what is written in the truth is in the sequence and in the expression."""

import numpy as np
import pytest

from genesplice.data.genome import decode
from genesplice.data.simulate import (
    CONTROLS,
    DOMAIN_BP,
    ELEMENT_BP,
    ELEMENT_DISTANCE_BP,
    PROMOTER_BP,
    PROMOTER_REPEAT,
    PROMOTER_UPSTREAM_BP,
    make_control,
)
from genesplice.errors import InputError

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


def test_seed_decides_everything(tmp_path):
    one, two, other = (
        make_control(tmp_path / f"w{i}", "distal", s, 10) for i, s in enumerate((0, 0, 1))
    )
    assert one.data_sha256 == two.data_sha256
    assert one.data_sha256["genome.npy"] != other.data_sha256["genome.npy"]


def test_unknown_and_tiny_genomes_are_refused(tmp_path):
    with pytest.raises(InputError, match="9 domains, expected at least 10"):
        make_control(tmp_path / "w", "distal", 0, 9)
    assert list(tmp_path.iterdir()) == []

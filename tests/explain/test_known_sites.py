"""Attribution on known sites: found where it was put, at chance where it was not."""

import dataclasses

import numpy as np
import pytest
from tiny_genomes import with_operons

from genesplice.data.genome import encode
from genesplice.data.splits import first_of_operon
from genesplice.errors import InputError
from genesplice.explain.motifs import HEXAMERS, known_site_scores, known_sites, measure_known_sites
from genesplice.predict.gene_output import is_group, resolve_genes
from genesplice.results import Attribution

WORD = "TGTGATCACATTCG"


def explained(gene_id, on_sites, seed):
    """300 bp before the start with both boxes and the word; attribution is on them or anywhere."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, 4, 400).astype(np.uint8)
    values = generator.random(400) * 0.1
    places = [(165, "TTGACA"), (188, "TATAAT")] + [(60, WORD)] * gene_id.startswith("t")
    for at, word in places:
        tokens[at : at + len(word)] = encode(word)
        if on_sites:
            values[at : at + len(word)] += 1
    return Attribution(
        gene_id, gene_id, "level", "ig", "uniform", -300, tokens, values, 0.0, 0.0, 0.0
    )


@pytest.fixture(scope="module")
def regulated(tiny_bundle):
    """A regulator with twelve targets and a motif."""
    genes = tiny_bundle.genes.iloc[:1].assign(gene_id="boss", name="Boss")
    network = tiny_bundle.network.iloc[:12].assign(
        source="boss", target=[f"t{i}" for i in range(12)]
    )
    motifs = {"Boss_14-1": np.eye(4)[encode(WORD)] * 0.96 + 0.01}
    return dataclasses.replace(tiny_bundle, genes=genes, network=network, motifs=motifs)


def test_sites_and_boxes_are_told_from_the_rest(regulated):
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


def test_what_grows_towards_the_start_points_at_nothing(regulated):
    """Attribution that depends on the distance alone, and sites close to the start."""
    genes = [f"t{i}" for i in range(12)] + [f"u{i}" for i in range(40)]
    found = []
    for number, gene in enumerate(genes):
        one = explained(gene, False, number)
        tokens = one.tokens.copy()
        if gene.startswith("t"):
            tokens[260 : 260 + len(WORD)] = encode(WORD)
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
    scores = known_site_scores(known_sites(bundle, found), found)
    (boxes,) = (s for s in scores if s.regulator == HEXAMERS)
    assert boxes.n_targets <= int(first.sum()) < len(genes)


def test_what_is_too_seldom_is_not_scored(regulated):
    genes = [f"t{i}" for i in range(6)]
    found = [explained(gene, True, number) for number, gene in enumerate(genes)]
    metrics, table = measure_known_sites(regulated, found, found)
    assert metrics == []
    assert table.empty


def test_genes_are_named_one_by_one_or_by_fold(tiny_bundle):
    everything = tiny_bundle.genes["gene_id"].tolist()
    assert resolve_genes(tiny_bundle, ["all"]) == everything
    fold = resolve_genes(tiny_bundle, [" Fold:1"])
    assert fold == tiny_bundle.test_genes(1).tolist()
    other = tiny_bundle.test_genes(0)[0]
    assert resolve_genes(tiny_bundle, [other, "fold:1", fold[-1]]) == [other, *fold]
    assert is_group("fold:1")
    assert is_group("b1, all")
    assert not is_group("b1,foldase")
    for wrong in ("fold:9", "fold:x"):
        with pytest.raises(InputError):
            resolve_genes(tiny_bundle, [wrong])

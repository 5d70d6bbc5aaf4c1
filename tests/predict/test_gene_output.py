"""One gene's neighbourhood says the same as the whole graph."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import SMALL, make_tiny

import genesplice as gs
from genesplice.errors import InputError
from genesplice.model.incremental import GeneAmongOthers
from genesplice.model.readout import codon_fractions
from genesplice.predict.expression import bundle_graph, encode_genes
from genesplice.predict.gene_output import (
    Explainer,
    SingleGenePredictor,
    is_group,
    resolve_genes,
    single_gene_subgraph,
)
from genesplice.training.finetuning import make_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tangled(tiny_bundle):
    """Every kind of edge: a gene that regulates itself, loops, an effector, shared pathways."""
    ids = tiny_bundle.genes["gene_id"].tolist()
    more = pd.DataFrame(
        [(ids[0], ids[0], 1), (ids[1], ids[0], -1), (ids[0], ids[1], 1), (ids[1], ids[5], 0),
         ("magnesium", ids[0], 1), ("magnesium", ids[7], -1), (ids[9], ids[1], 1)],
        columns=["source", "target", "sign"],
    )  # fmt: skip
    network = pd.concat([tiny_bundle.network, more.assign(kind="TF", provenance="here")])
    sets = {**tiny_bundle.gene_sets, "KEGG:a": tuple(ids[:8]), "KEGG:b": tuple(ids[5:20])}
    return dataclasses.replace(
        tiny_bundle, network=network.drop_duplicates(["source", "target"]), gene_sets=sets
    )


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_each_variant_is_predicted_as_by_the_whole_graph(tangled, layers):
    model = make_tiny(tangled, f"model.graph_layers={layers}")
    graph = bundle_graph(model, tangled)
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(len(tangled.genes), len(model.readout.centre), generator=generator)
    for row in (0, 1, 5, 7, 19, 59):
        own = torch.randn(3, vectors.shape[1], generator=generator)
        with torch.no_grad():
            found = SingleGenePredictor(model, graph, vectors, row)(own)
            for i, one in enumerate(own):
                everyone = vectors.clone()
                everyone[row] = one
                wanted = model(everyone, graph, torch.tensor([row]))
                torch.testing.assert_close(found.level[i], wanted.level[0], rtol=1e-5, atol=1e-5)
                torch.testing.assert_close(
                    found.residual[i], wanted.residual[0], rtol=1e-5, atol=1e-5
                )


def test_its_own_old_vector_is_not_read(tangled):
    model = make_tiny(tangled)
    graph, gene_features = bundle_graph(model, tangled), len(model.readout.centre)
    own, vectors = torch.randn(2, gene_features), torch.randn(len(tangled.genes), gene_features)
    other = vectors.clone()
    other[0] = 100.0
    with torch.no_grad():
        one, two = (SingleGenePredictor(model, graph, v, 0)(own).level for v in (vectors, other))
    assert torch.equal(one, two)


def test_gradients_reach_the_vector(tangled):
    model = make_tiny(tangled)
    gene_features = len(model.readout.centre)
    vectors = torch.randn(len(tangled.genes), gene_features)
    row = SingleGenePredictor(model, bundle_graph(model, tangled), vectors, 5).double()
    own = torch.randn(2, gene_features, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: row(x).level, own)


def test_each_copy_has_a_neighbourhood_to_itself(tangled):
    graph = bundle_graph(make_tiny(tangled), tangled)
    one, of_one, _ = single_gene_subgraph(graph, 5, 1, layers=1)
    copies, rows, places = single_gene_subgraph(graph, 5, 4, layers=1)
    assert rows[places].tolist() == [5] * 4
    assert rows.tolist() == of_one.tolist() * 4
    for key, index in copies.edge_index_dict.items():
        assert index.shape[1] == 4 * one[key].edge_index.shape[1]


def test_a_gene_alone_is_what_it_is_in_the_whole_graph(tangled):
    """Its own pathways twice, none but itself in one, and expression that goes with messages."""
    ids = tangled.genes["gene_id"].tolist()
    sets = {**tangled.gene_sets, "KEGG:alone": (ids[3],), "KEGG:again": tuple(ids[:8])}
    bundle = dataclasses.replace(tangled, gene_sets=sets)
    config = gs.override(gs.load_preset("quick"), [*SMALL, "model.smallest_set=1"])
    model = make_model(bundle, config, measured_genes=ids[::2]).eval()
    generator = torch.Generator().manual_seed(2)
    model.graph.measured.normal_(generator=generator)
    graph = bundle_graph(model, bundle)
    width = model.config.width
    everyone = torch.randn(len(ids), width, generator=generator)
    for key in (("pathway", "contains", "gene"), ("gene", "member_of", "pathway")):
        graph[key].edge_index = graph[key].edge_index.repeat(1, 2)
    for row in (0, 3, 5, 19, 59):
        own = 5 * torch.randn(4, width, generator=generator)
        with torch.no_grad():
            found = GeneAmongOthers(model.graph, everyone, graph, row)(own)
            for i, one in enumerate(own):
                wanted = model.graph(everyone.index_copy(0, torch.tensor([row]), one[None]), graph)
                torch.testing.assert_close(found[i], wanted[0][row], rtol=1e-5, atol=1e-5)


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


def test_a_spliced_gene_has_the_vector_of_the_full_pass_in_a_window_of_its_own(tiny_bundle):
    genes = tiny_bundle.genes.copy()
    wanted = [int(np.flatnonzero(genes["strand"] == strand)[3]) for strand in "+-"]
    exons = genes["exons"].map(tuple).tolist()
    for row in wanted:
        start, end = int(genes["start"][row]), int(genes["end"][row])
        pieces = [(start, start + 50), (start + 90, end - 41), (end - 20, end)]
        exons[row] = sum(pieces[:: 1 if genes["strand"][row] == "+" else -1], ())
    bundle = dataclasses.replace(tiny_bundle, genes=genes.assign(exons=exons))
    model = make_tiny(bundle)
    both = [encode_genes(model, one)[wanted] for one in (bundle, tiny_bundle)]
    parts = [vectors.split(list(model.readout.parts.values()), 1) for vectors in both]
    at = list(model.readout.parts).index("codons")
    assert (parts[0][at] - parts[1][at]).abs().amax(1).min() > 1e-3
    explainer = Explainer(model, bundle, vectors=both[0])
    for row, found in zip(wanted, parts[0][at], strict=True):
        window = explainer.window(bundle.genes["gene_id"][row])
        channels = model.encoder.channels(window.tokens, window.phase)
        torch.testing.assert_close(codon_fractions(channels, window.loci())[0], found)

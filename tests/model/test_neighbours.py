"""A part of the graph says what the whole says; a sample of it is a part of the part."""

import pytest
import torch
from test_graph import WIDTH, genes, network

from genesplice.config import ModelConfig
from genesplice.data.windows import make_graph
from genesplice.model.graph import GeneGraph, cut_neighbourhood

N_GENES = 60
IDS = [f"g{i}" for i in range(N_GENES)]


def control():
    """A sparse random network with a complex, overlapping sets, and genes without anything."""
    generator = torch.Generator().manual_seed(3)
    pairs = torch.randint(0, N_GENES - 10, (70, 2), generator=generator).tolist()
    edges = {(f"g{a}", f"g{b}"): (a + b) % 3 - 1 for a, b in pairs}
    edges |= {("haem", f"g{b}"): 1 for b in (3, 9, 27)}
    sets = {
        f"KEGG:{i}": tuple(IDS[j] for j in torch.randperm(50, generator=generator)[: 3 + i])
        for i in range(5)
    }
    return make_graph(genes(IDS), network([(*key, sign) for key, sign in edges.items()]), sets)


def make(layers):
    torch.manual_seed(0)
    known = {"regulators": IDS[:20], "effectors": ["haem"], "pathways": ["KEGG:1", "KEGG:3"]}
    model = GeneGraph(ModelConfig(width=WIDTH, heads=2, graph_layers=layers), **known).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@torch.no_grad()
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_all_neighbours_are_the_whole_graph(layers):
    model = make(layers)
    graph = model.bind(control())
    x = torch.randn(N_GENES, WIDTH)
    whole = model(x, graph)[0]
    sizes = []
    for rows in (torch.tensor([7]), torch.tensor([55]), torch.tensor([30, 2, 9]), torch.arange(60)):
        part = cut_neighbourhood(graph, rows, layers)
        told = model(x[part.genes], part.graph)[0][part.rows]
        torch.testing.assert_close(told, whole[rows])
        assert [part.graph["gene"].ids[i] for i in part.rows] == [IDS[i] for i in rows]
        assert torch.equal(part.graph["gene"].knowledge, graph["gene"].knowledge[part.genes])
        sizes.append(len(part.genes))
    # A gene without edges needs nobody, and all genes need all.
    assert sizes[1] == 1
    assert sizes[3] == N_GENES
    assert (sizes[0] > 1) == (layers > 0)


@torch.no_grad()
def test_what_was_cut_off_does_not_matter():
    """The test above would miss a graph that says nothing: one layer less is not the same."""
    model = make(2)
    graph = model.bind(control())
    x, rows = torch.randn(N_GENES, WIDTH), torch.arange(10)
    part = cut_neighbourhood(graph, rows, 1)
    told = model(x[part.genes], part.graph)[0][part.rows]
    assert not torch.allclose(told, model(x, graph)[0][rows], atol=1e-3)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_a_sample_takes_as_many_edges_as_it_may(most):
    graph = make(1).bind(control())
    rows = torch.arange(50)
    everything = cut_neighbourhood(graph, rows, 1).graph
    generator = torch.Generator().manual_seed(1)
    part = cut_neighbourhood(graph, rows, 1, most=most, generator=generator)
    for key in everything.edge_types:
        full = _pairs(everything, key)
        some = _pairs(part.graph, key)
        assert set(some) <= set(full)
        # Everything above is full; pathways that nobody listens to are left out.
        heard = {target for _, target in some}
        for target in heard:
            degree = sum(pair[1] == target for pair in full)
            assert sum(pair[1] == target for pair in some) == min(most, degree)
        if key[2] == "gene":
            assert heard == {target for _, target in full}


def test_samples_differ_and_repeat():
    graph = make(1).bind(control())
    key = ("pathway", "contains", "gene")
    draws = []
    for seed in (0, 0, 1):
        generator = torch.Generator().manual_seed(seed)
        part = cut_neighbourhood(graph, torch.arange(50), 1, most=1, generator=generator)
        draws.append(_pairs(part.graph, key))
    assert draws[0] == draws[1] != draws[2]


def _pairs(graph, key):
    source, target = graph[key].edge_index.tolist()
    kinds = graph[key[0]].ids, graph[key[2]].ids
    return sorted((kinds[0][a], kinds[1][b]) for a, b in zip(source, target, strict=True))

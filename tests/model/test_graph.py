"""The graph informs genes that have edges, by sign and by name, whatever the order of the genes."""

import pandas as pd
import pytest
import torch

from genesplice.config import ModelConfig
from genesplice.data.network import NETWORK_COLUMNS
from genesplice.data.windows import make_graph
from genesplice.model.graph import GeneGraph

IDS = [f"g{i}" for i in range(6)]
EDGES = [("g0", "g1", 1), ("g0", "g2", -1), ("g1", "g2", 0), ("haem", "g1", -1), ("haem", "g3", 1)]
SETS = {"KEGG:a": ("g0", "g3"), "COG:b": ("g1", "g2", "g3"), "GO:c": ("g5",)}
WIDTH = 8


def genes(ids) -> pd.DataFrame:
    return pd.DataFrame({"gene_id": ids})


def network(edges) -> pd.DataFrame:
    rows = [(source, target, sign, "regulates", "test") for source, target, sign in edges]
    return pd.DataFrame(rows, columns=list(NETWORK_COLUMNS)).astype({"sign": "int8"})


def graph_of(edges=EDGES, sets=SETS, ids=IDS):
    return make_graph(genes(ids), network(edges), sets)


def make(layers=2, **known) -> GeneGraph:
    torch.manual_seed(0)
    names = {"regulators": ["g0", "g1"], "effectors": ["haem"], "pathways": ["COG:b", "KEGG:a"]}
    model = GeneGraph(
        ModelConfig(width=WIDTH, heads=2, graph_layers=layers), **(names | known)
    ).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.5)
        if name.startswith("identity"):
            parameter.data[0] = 0
    return model


def vectors(seed=0) -> torch.Tensor:
    return torch.randn(len(IDS), WIDTH, generator=torch.Generator().manual_seed(seed))


def with_another_g0() -> torch.Tensor:
    return torch.cat([vectors(1)[:1], vectors()[1:]])


@torch.no_grad()
def run(model, graph, x=None):
    return model(vectors() if x is None else x, model.bind(graph))


def reached(changed) -> list[str]:
    return [gene_id for gene_id, row in zip(IDS, changed, strict=True) if bool(row.any())]


# --- who is told what ---


def test_a_gene_without_edges_keeps_its_own_vector():
    x = vectors()
    told, _ = run(make(), graph_of(), x)
    assert torch.equal(told[4], x[4])
    assert torch.equal(told[5], x[5])
    for row in range(4):
        assert float((told[row] - x[row]).abs().max()) > 0.1


def test_without_network_and_pathways_nothing_changes():
    x = vectors()
    told, attention = run(make(), graph_of([], {}), x)
    assert torch.equal(told, x)
    assert all(len(edges.weight) == 0 for layer in attention for edges in layer.values())


def test_without_layers_nothing_changes():
    told, attention = run(make(0), graph_of(), vectors())
    assert torch.equal(told, vectors())
    assert attention == []


def test_a_message_goes_from_source_to_target_and_on_through_pathways():
    x, changed = vectors(), with_another_g0()
    for edges, sets, expected in (
        (EDGES, {}, ["g0", "g1", "g2"]),
        ([("g1", "g0", 1)], {}, ["g0"]),
        ([], SETS, ["g0", "g3"]),
    ):
        graph = graph_of(edges, sets)
        before, after = (run(make(1), graph, value)[0] for value in (x, changed))
        assert reached(after != before) == expected


def test_a_second_layer_reaches_the_neighbours_of_neighbours():
    x, changed = vectors(), with_another_g0()
    chain = graph_of([("g0", "g1", 1), ("g1", "g2", 1), ("g2", "g3", 1)], {})
    for layers, expected in ((1, ["g0", "g1"]), (2, ["g0", "g1", "g2"])):
        before, after = (run(make(layers), chain, value)[0] for value in (x, changed))
        assert reached(after != before) == expected


@torch.no_grad()
def test_a_message_is_the_weighted_sum_that_the_paper_writes():
    model = make(1, pathways=(), effectors=()).double()
    x, graph = vectors().double(), graph_of([("g0", "g2", 1), ("g1", "g2", -1)], {})
    graph = graph.apply(lambda part: part.double() if part.is_floating_point() else part)
    told, _ = model(x, model.bind(graph))
    layer = model.layers[0]
    conv, identity = layer.regulates, model.identity["gene"].weight
    target = conv.lin_r(layer.gene_norm(x[2]))
    scores, values = [], []
    for source, sign in ((0, 0), (1, 1)):
        value = conv.lin_l(layer.source_norm(x[source] + identity[source + 1]))
        total = torch.nn.functional.leaky_relu(target + value + conv.lin_edge.weight[:, sign], 0.2)
        scores.append([float(conv.att[0, h] @ total.view(2, 4)[h]) for h in range(2)])
        values.append(value.view(2, 4))
    weight = torch.tensor(scores, dtype=torch.float64).softmax(0)
    expected = sum(weight[i][:, None] * values[i] for i in range(2)).flatten()
    torch.testing.assert_close(told[2], x[2] + expected)


# --- order, signs and names ---


def test_the_order_of_the_genes_does_not_matter():
    order = torch.tensor([3, 5, 0, 4, 2, 1])
    x, model = vectors(), make()
    told, _ = run(model, graph_of(), x)
    shuffled, _ = run(model, graph_of(ids=[IDS[i] for i in order]), x[order])
    torch.testing.assert_close(shuffled, told[order], atol=1e-5, rtol=1e-4)


def test_the_order_of_the_edges_does_not_matter():
    model = make()
    told, backwards = (run(model, graph_of(edges))[0] for edges in (EDGES, EDGES[::-1]))
    torch.testing.assert_close(backwards, told, atol=1e-5, rtol=1e-4)


def test_the_sign_of_an_edge_matters():
    model = make()
    told = {}
    for sign in (1, -1, 0):
        edges = [("g0", "g2", sign), ("g1", "g2", 1)]
        told[sign] = run(model, graph_of(edges, {}))[0][2]
    for one, other in ((1, -1), (1, 0), (-1, 0)):
        assert float((told[one] - told[other]).abs().max()) > 1e-3


def test_a_learned_name_counts_only_for_its_node():
    named, x = make(1), vectors()
    before, _ = run(named, graph_of(), x)
    with torch.no_grad():
        named.identity["gene"].weight[2] += vectors(1)[0]
    after, _ = run(named, graph_of(), x)
    assert reached(after != before) == ["g2"]


def test_names_that_were_never_met_work_and_start_from_zero():
    model = make()
    bound = model.bind(graph_of())
    assert bound["gene"].identity.tolist() == [1, 2, 0, 0, 0, 0]
    assert bound["effector"].identity.tolist() == [1]
    assert bound["pathway"].identity.tolist() == [1, 2]
    sets = {"KEGG:new": ("g0", "g3"), "COG:b": SETS["COG:b"]}
    edges = [*EDGES, ("zinc", "g4", 1)]
    strange = model.bind(graph_of(edges, sets))
    assert strange["pathway"].identity.tolist() == [1, 0]
    assert strange["effector"].identity.tolist() == [1, 0]
    told, _ = run(model, graph_of(edges, sets))
    assert told.isfinite().all()
    assert float((told[4] - vectors()[4]).abs().max()) > 0.01


def test_binding_leaves_the_graph_as_it_was():
    graph = graph_of()
    make().bind(graph)
    assert "identity" not in graph["gene"]


def test_unknown_names_get_no_gradient():
    model = make(1, pathways=["KEGG:a"])
    model(vectors(), model.bind(graph_of()))[0].square().sum().backward()
    for table in model.identity.values():
        assert not table.weight.grad[0].any()
        assert table.weight.grad[1:].any()


# --- attention ---


def test_attention_sums_to_one_over_each_targets_edges():
    _, attention = run(make(), graph_of())
    assert len(attention) == 2
    for layer in attention:
        assert set(layer) == {"member_of", "regulates", "effects", "contains"}
        for edges in layer.values():
            target = edges.edge_index[1]
            total = torch.zeros(len(IDS)).index_add(0, target, edges.weight)
            torch.testing.assert_close(total[target.unique()], torch.ones(len(target.unique())))


@pytest.mark.parametrize("n_edges", [1, 3])
def test_a_single_edge_has_all_of_the_attention(n_edges):
    edges = [(f"g{i}", "g5", 1) for i in range(n_edges)]
    weight = run(make(1), graph_of(edges, {}))[1][0]["regulates"].weight
    assert float(weight.sum()) == pytest.approx(1)
    assert (float(weight[0]) == 1) == (n_edges == 1)


# --- what is known of a gene, as the kernel path reads it ---


def test_knowledge_is_edges_and_memberships_by_name():
    model, graph = make(), graph_of()
    known = model.bind(graph)["gene"].knowledge
    assert model.knowledge_parts == {"regulators": 6, "COG": 1, "KEGG": 1}
    assert known.dtype == torch.int8
    # g0, g1 act; their signs; haem acts; its sign; COG:b; KEGG:a.
    assert known.tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 1],
        [1, 0, 1, 0, 1, -1, 1, 0],
        [1, 1, -1, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]


def test_two_edges_of_opposite_sign_have_none():
    graph = graph_of(edges=[("g0", "g1", 1), ("g0", "g1", -1), ("g9", "g1", 1)])
    assert make().bind(graph)["gene"].knowledge[1].tolist() == [1, 0, 0, 0, 0, 0, 1, 0]

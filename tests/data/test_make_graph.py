"""The graph: who points at whom, with which sign, down to nothing at all."""

import pandas as pd
import pytest
import torch

from genesplice.data.network import NETWORK_COLUMNS
from genesplice.data.windows import make_graph

GENES = pd.DataFrame({"gene_id": ["lacI", "lacZ", "crp", "araB"]})
SETS = {
    "KEGG:ko2": ("lacZ", "araB", "gone"),
    "COG:Sugar": ("lacZ",),
    "GO:1": ("lacI", "lacZ"),
    "KEGG:ko1": ("crp",),
}
ACTIVATES, REPRESSES, UNKNOWN = [1, 0, 0], [0, 1, 0], [0, 0, 1]


def network(*edges) -> pd.DataFrame:
    rows = [(source, target, sign, "regulates", "") for source, target, sign in edges]
    return pd.DataFrame(rows, columns=list(NETWORK_COLUMNS)).astype({"sign": "int8"})


EDGES = network(
    ("lacI", "lacZ", -1),
    ("crp", "lacZ", 1),
    ("cAMP", "crp", 1),
    ("Arabinose", "araB", 0),
    ("crp", "crp", 0),
    ("cAMP", "lacZ", -1),
    ("lacI", "nowhere", 1),
    ("ghost", "nowhere", 1),
)


def pairs(graph, *kind):
    """Edges by the names of their ends."""
    source, target = graph[kind[0]].ids, graph[kind[2]].ids
    return [(source[a], target[b]) for a, b in graph[kind].edge_index.T.tolist()]


def test_nodes_are_all_genes_in_order_then_what_is_no_gene_sorted():
    graph = make_graph(GENES, EDGES, SETS)
    assert graph["gene"].ids == ["lacI", "lacZ", "crp", "araB"]
    assert graph["effector"].ids == ["Arabinose", "cAMP"]
    assert graph["pathway"].ids == ["COG:Sugar", "KEGG:ko1", "KEGG:ko2"]
    assert [graph[kind].num_nodes for kind in ("gene", "effector", "pathway")] == [4, 2, 3]


def test_edges_point_from_regulator_to_target_and_carry_their_sign():
    graph = make_graph(GENES, EDGES, SETS)
    kind = ("gene", "regulates", "gene")
    assert pairs(graph, *kind) == [("lacI", "lacZ"), ("crp", "lacZ"), ("crp", "crp")]
    assert graph[kind].edge_index.tolist() == [[0, 2, 2], [1, 1, 2]]
    assert graph[kind].edge_attr.tolist() == [REPRESSES, ACTIVATES, UNKNOWN]
    kind = ("effector", "regulates", "gene")
    expected = [("cAMP", "crp"), ("Arabinose", "araB"), ("cAMP", "lacZ")]
    assert pairs(graph, *kind) == expected
    assert graph[kind].edge_attr.tolist() == [ACTIVATES, UNKNOWN, REPRESSES]


def test_genes_are_members_of_pathways_and_pathways_contain_them_back():
    graph = make_graph(GENES, EDGES, SETS)
    member = pairs(graph, "gene", "member_of", "pathway")
    assert member == [
        ("lacZ", "COG:Sugar"), ("crp", "KEGG:ko1"), ("lacZ", "KEGG:ko2"), ("araB", "KEGG:ko2"),
    ]  # fmt: skip
    assert pairs(graph, "pathway", "contains", "gene") == [(set_, gene) for gene, set_ in member]


def test_only_chosen_collections_become_pathways():
    assert make_graph(GENES, EDGES, SETS, ("GO",))["pathway"].ids == ["GO:1"]
    assert make_graph(GENES, EDGES, SETS, ())["pathway"].ids == []
    assert make_graph(GENES, EDGES, {"KEGGish:1": ("crp",)})["pathway"].ids == []


def test_sets_of_the_wrong_size_are_no_nodes():
    ids = GENES["gene_id"].tolist()
    sets = {f"KEGG:{n}": tuple(ids[:n]) for n in range(1, len(ids) + 1)}
    sets["KEGG:strangers"] = ("who", "ever", "this", "is")
    graph = make_graph(GENES, EDGES, sets, smallest_set=2, largest_set=3)
    assert graph["pathway"].ids == ["KEGG:2", "KEGG:3"]
    assert graph["gene", "member_of", "pathway"].edge_index.shape == (2, 5)


@pytest.mark.parametrize(("edges", "sets"), [(network(), {}), (EDGES, {}), (network(), SETS)])
def test_empty_network_and_sets_give_empty_edges_of_the_right_kind(edges, sets):
    graph = make_graph(GENES, edges, sets)
    graph.validate()
    assert graph["gene"].num_nodes == 4
    assert len(graph.edge_types) == 4
    for kind in graph.edge_types:
        index = graph[kind].edge_index
        assert (index.dtype, index.shape[0]) == (torch.int64, 2)
        if kind[1] == "regulates":
            assert graph[kind].edge_attr.shape == (index.shape[1], 3)
            assert graph[kind].edge_attr.dtype == torch.float32
            assert (index.shape[1] > 0) == (len(edges) > 0)
        else:
            assert (index.shape[1] > 0) == (len(sets) > 0)


def test_order_of_the_genes_moves_the_rows_and_no_edge():
    turned = GENES[::-1].reset_index(drop=True)
    for kind in (("gene", "regulates", "gene"), ("gene", "member_of", "pathway")):
        first, second = make_graph(GENES, EDGES, SETS), make_graph(turned, EDGES, SETS)
        assert pairs(first, *kind) == pairs(second, *kind)
        assert not torch.equal(first[kind].edge_index, second[kind].edge_index)


def test_tiny_control_becomes_a_graph_with_its_planted_edges(tiny_bundle):
    graph = make_graph(tiny_bundle.genes, tiny_bundle.network, tiny_bundle.gene_sets)
    graph.validate()
    truth = tiny_bundle.manifest["truth"]["targets"]
    got = dict(
        zip(
            pairs(graph, "gene", "regulates", "gene"),
            graph["gene", "regulates", "gene"].edge_attr.tolist(),
            strict=True,
        )
    )
    assert got == {
        (edge["regulator"], target): ACTIVATES if edge["sign"] > 0 else REPRESSES
        for target, edge in truth.items()
    }
    assert graph["effector"].ids == []


def test_ecoli_graph_holds_every_edge_once(ecoli):
    graph = make_graph(ecoli.genes, ecoli.network, ecoli.gene_sets)
    graph.validate()
    genes, effectors = (
        graph[kind, "regulates", "gene"].edge_index.shape[1] for kind in ("gene", "effector")
    )
    assert genes + effectors == len(ecoli.network)
    assert "FMN" in graph["effector"].ids
    assert ("b0344", "COG:Carbohydrate transport and metabolism") in set(
        pairs(graph, "gene", "member_of", "pathway")
    )
    for kind in ("gene", "effector"):
        assert (graph[kind, "regulates", "gene"].edge_attr.sum(dim=1) == 1).all()

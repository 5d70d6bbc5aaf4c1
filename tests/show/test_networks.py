"""Networks: signs, weights, kinds and room for labels; neighbours node by node."""

from itertools import combinations

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from tiny_explorers import network
from tiny_figures import polygons, trace

from genesplice.errors import InputError
from genesplice.show.explorers import Click, NetworkExplorer
from genesplice.show.figures import change_path
from genesplice.show.networks import graph_layout, pathway_graph
from genesplice.show.theme import gene_labels

NODES = pd.DataFrame({"id": ["r1", "r2", "g1", "g2", "p1"]})
NODES["label"] = ["crp", "lacI", "<lacZ>", "lacY", "COG:Carbohydrate transport and metabolism"]
NODES["kind"] = ["regulator", "regulator", "gene", "gene", "pathway"]
NODES["value"] = [1.0, 0.5, 0.25, np.nan, 0.0]
EDGES = pd.DataFrame({"source": ["r1", "r2", "r1", "g1"], "target": ["g1", "g1", "g2", "p1"]})
EDGES = EDGES.assign(sign=[1, -1, 0, -1], weight=[1.0, 0.1, 0.6, 0.3])
EDGES["kind"] = ["regulates", "regulates", "regulates", "member_of"]


def random_graph(n_genes: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    ids = [f"r{i}" for i in range(6)] + [f"g{i}" for i in range(n_genes)] + ["p0", "p1"]
    kinds = ["regulator"] * 6 + ["gene"] * n_genes + ["pathway"] * 2
    nodes = pd.DataFrame({"id": ids, "label": ids, "kind": kinds})
    rows = [
        (f"r{rng.integers(6)}", f"g{i}", int(rng.integers(-1, 2)), rng.uniform(), "regulates")
        for i in range(n_genes)
    ]
    rows += [(f"g{i}", f"p{i % 2}", 0, rng.uniform(), "member_of") for i in range(n_genes)]
    edges = pd.DataFrame(rows, columns=["source", "target", "sign", "weight", "kind"])
    return nodes.assign(value=rng.uniform(size=len(ids))), edges


def node_traces(figure):
    return [one for one in figure.data if one.hovertext is not None]


def places(figure) -> dict[str, tuple[float, float]]:
    """Where each node was drawn, by the id in its hover text."""
    return {
        text.split("<br>")[1]: (x, y)
        for one in node_traces(figure)
        for x, y, text in zip(one.x, one.y, one.hovertext, strict=True)
    }


def strokes(figure) -> dict[tuple[str, str], object]:
    """The trace of each edge, by the nodes at its two ends."""
    at = {place: node for node, place in places(figure).items()}
    found = {}
    for one in figure.data:
        if one.hoverinfo == "skip":
            for x, y in polygons(one):
                found[at[x[0], y[0]], at[x[1], y[1]]] = one
    return found


# ---- layout


def test_the_layout_fills_the_square_and_keeps_the_order_of_the_springs():
    nodes, edges = random_graph(60, seed=2)
    ids = nodes["id"].tolist()
    xy = graph_layout(ids, edges)
    np.testing.assert_array_equal([xy.min(axis=0), xy.max(axis=0)], [[-1, -1], [1, 1]])
    assert min(abs(a[0] - b[0]) for a, b in combinations(xy, 2)) >= 0.5 / 67  # by rank alone
    graph = nx.Graph()
    graph.add_nodes_from(sorted(ids))
    pairs = zip(edges["source"], edges["target"], strict=True)
    graph.add_edges_from(sorted({tuple(sorted(pair)) for pair in pairs}))
    springs = nx.spring_layout(graph, seed=0, k=2.2 / np.sqrt(len(graph)), iterations=200)
    for axis in (0, 1):
        by_spring = sorted(ids, key=lambda node: springs[node][axis])
        assert by_spring == sorted(ids, key=lambda node: xy[ids.index(node)][axis])
    joined = {frozenset(pair) for pair in graph.edges}
    distance = {
        frozenset((ids[i], ids[j])): np.hypot(*(xy[i] - xy[j]))
        for i, j in combinations(range(len(ids)), 2)
    }
    near = np.mean([d for pair, d in distance.items() if pair in joined])
    assert near < 0.8 * np.mean([d for pair, d in distance.items() if pair not in joined])


def test_neither_loops_nor_the_order_of_nodes_change_the_layout():
    ids = NODES["id"].tolist()
    first = graph_layout(ids, EDGES)
    loop = pd.concat([EDGES, EDGES.iloc[:1].assign(target="r1")])
    np.testing.assert_array_equal(graph_layout(ids, loop), first)
    np.testing.assert_array_equal(graph_layout(ids[::-1], EDGES), first[::-1])
    np.testing.assert_array_equal(graph_layout(["r1"], EDGES.iloc[:0]), [[0, 0]])


# ---- pathway_graph


def test_nodes_are_drawn_by_kind_and_value_where_the_layout_put_them():
    figure = pathway_graph(NODES, EDGES, value_name="<u>")
    ids = sorted(NODES["id"])
    expected = dict(zip(ids, map(tuple, graph_layout(ids, EDGES)), strict=True))
    assert places(figure) == expected
    traces = {one.name: one for one in node_traces(figure)}
    assert set(traces) == {"regulator", "gene", "pathway"}
    assert len({(one.marker.symbol, one.marker.color) for one in traces.values()}) == 3
    size = {
        text: size
        for one in traces.values()
        for text, size in zip(one.hovertext, one.marker.size, strict=True)
    }
    assert size == {
        "<b>crp</b><br>r1<br>regulator, &lt;u&gt; 1": 26.0,
        "<b>lacI</b><br>r2<br>regulator, &lt;u&gt; 0.5": 19.5,
        "<b>&lt;lacZ&gt;</b><br>g1<br>gene, &lt;u&gt; 0.25": 16.25,
        "<b>lacY</b><br>g2<br>gene, &lt;u&gt; not known": 13.0,
        "<b>COG:Carbohydrate transport and metabolism</b><br>p1<br>pathway, &lt;u&gt; 0": 13.0,
    }
    assert traces["pathway"].text[0].count("<br>") <= 1
    assert traces["pathway"].text[0].endswith("…")
    assert "Regulators, genes and pathways" in figure.layout.title.text
    fewer = pathway_graph(NODES.iloc[:4], EDGES.iloc[:3])
    assert "pathway" not in {one.name for one in fewer.data}
    assert ">Regulators and genes<" in fewer.layout.title.text


def label_boxes(figure) -> list[tuple[float, float, float, float]]:
    """What the labels cover, in pixels of the narrow screen (300 x 400, axes from -1.4 to 1.4)."""
    boxes = []
    for one in node_traces(figure):
        for x, y, text, side, size in zip(
            one.x, one.y, one.text, one.textposition, one.marker.size, strict=True
        ):
            if text:
                rows = text.split("<br>")
                wide, high = max(map(len, rows)) * 6.4, len(rows) * 14.0
                px, py, r = x * 300 / 2.8, -y * 400 / 2.8, size / 2 + 2
                vertical, horizontal = side.split()
                left = {"left": px - r - wide, "right": px + r, "center": px - wide / 2}[horizontal]
                top = {"bottom": py + r, "top": py - r - high, "middle": py - high / 2}[vertical]
                boxes.append((left, top, left + wide, top + high))
    return boxes


@pytest.mark.parametrize("n_genes", [4, 30, 100])
def test_no_two_labels_overlap_on_a_narrow_screen(n_genes):
    boxes = label_boxes(pathway_graph(*random_graph(n_genes, seed=n_genes)))
    assert len(boxes) >= 8
    for a, b in combinations(boxes, 2):
        assert min(a[2] - b[0], b[2] - a[0], a[3] - b[1], b[3] - a[1]) < 1e-6
    assert min(box[0] for box in boxes) >= -162
    assert max(box[2] for box in boxes) <= 162


def test_every_edge_joins_its_nodes_with_the_style_of_its_sign_and_weight():
    figure = pathway_graph(NODES, EDGES)
    assert len(label_boxes(figure)) == 5
    drawn = strokes(figure)
    assert {ends: one.name for ends, one in drawn.items()} == {
        ("r1", "g1"): "activates",
        ("r2", "g1"): "represses",
        ("r1", "g2"): "regulates, sign unknown",
        ("g1", "p1"): "member of",
    }
    styles = {(one.line.color, one.line.dash, one.marker.symbol) for one in drawn.values()}
    assert [len(set(part)) for part in zip(*styles, strict=True)] == [4, 4, 4]
    widths = {ends: one.line.width for ends, one in drawn.items()}
    assert widths["r1", "g1"] == 5.0  # 1.0 of 1.0
    assert widths["r2", "g1"] == 1.0  # 0.1
    assert widths["r1", "g2"] == pytest.approx(1 + 4 * 2 / 3)  # 0.6, third class
    assert widths["g1", "p1"] == pytest.approx(1 + 4 / 3)  # 0.3, second class
    head = drawn["r1", "g1"].marker
    assert list(np.asarray(head.size) > 0) == [False, True, False]
    assert head.standoff[1] == 16.25 / 2 + 1  # g1 is 16.25 pixels wide
    zero = strokes(pathway_graph(NODES, EDGES.assign(weight=0.0)))
    assert {one.line.width for one in zero.values()} == {1.0}


def test_styles_are_in_the_legend_once_and_no_edges_are_fine():
    figure = pathway_graph(*random_graph(50, seed=0))
    shown = [one.name for one in figure.data if one.hoverinfo == "skip" and one.showlegend]
    assert sorted(shown) == ["activates", "member of", "regulates, sign unknown", "represses"]
    bare = pathway_graph(NODES, EDGES.iloc[:0])
    assert len(places(bare)) == 5
    assert "5 nodes, 0 edges" in bare.layout.title.text


@pytest.mark.parametrize(
    ("nodes", "edges", "match"),
    [
        (NODES.iloc[:0], EDGES, "0 rows in nodes"),
        (NODES.drop(columns="value"), EDGES, "also value"),
        (pd.concat([NODES, NODES.iloc[:1]]), EDGES, "1 of 6 rows of nodes repeat a id"),
        (NODES.assign(kind="operon"), EDGES, "kind 'operon' in nodes, expected regulator, gene"),
        (NODES.replace(1.0, np.inf), EDGES, "1 of 5 value of nodes not finite"),
        (NODES, EDGES.drop(columns="sign"), "edges with columns .* expected also sign"),
        (NODES, EDGES.replace("r2", "r9"), "1 of 4 edges such as r9 → g1, expected only ends"),
        (NODES, EDGES.replace("member_of", "binds"), "kind 'binds' in edges, expected regulates"),
        (NODES, EDGES.assign(sign=[1, -1, 0, 2]), "sign '2' in edges, expected 1, -1, 0"),
        (NODES, EDGES.replace(0.1, np.nan), "1 of 4 weight of edges not finite"),
    ],
)
def test_graphs_that_cannot_be_drawn_are_refused(nodes, edges, match):
    with pytest.raises(InputError, match=match):
        pathway_graph(nodes, edges)


def test_without_a_network_there_is_a_sentence():
    figure = pathway_graph(NODES.iloc[:0], EDGES.iloc[:0])
    explorer = NetworkExplorer(pd.DataFrame({"name": []}), pd.DataFrame({"source": []}))
    assert explorer.figure == figure
    assert not explorer.controls
    assert "These data have no network around these genes;" in figure.layout.title.text
    assert figure.layout.height < 80
    assert not figure.layout.xaxis.visible


# ---- NetworkExplorer: the whole network, its nodes, three signs, neighbours, the node, dots

ALL, NEAR, PICKED, DOTS = 1, 5, 6, 7
SIGNS = {1: "activates", -1: "represses", 0: "regulates, sign unknown"}


def test_neighbours_of_each_node():
    nodes, edges = network()
    explorer = NetworkExplorer(nodes, edges)
    labels = gene_labels(nodes.index, nodes["name"])
    drawn = explorer.figure.data[ALL]
    at = {node: (drawn.x[i], drawn.y[i]) for i, node in enumerate(nodes.index)}
    assert explorer.controls["node"].start == 0  # most neighbours
    for node, label in zip(nodes.index, labels, strict=True):
        figure = explorer.figure_at(node=label)
        n_out, n_in = (edges["source"] == node).sum(), (edges["target"] == node).sum()
        assert f"regulates {n_out}, regulated by {n_in}" in figure.layout.annotations[0].text
        for sign, name in SIGNS.items():
            expected = [
                [at[edge.source], at[edge.target]]
                for edge in edges.itertuples()
                if node in (edge.source, edge.target)
                and edge.sign == sign
                and edge.source != edge.target
            ]
            found = [list(zip(x, y, strict=True)) for x, y in polygons(trace(figure, name))]
            assert found == expected
        assert (figure.data[PICKED].x[0], figure.data[PICKED].y[0]) == at[node]
        assert label not in (figure.data[NEAR].customdata or ())
    assert set(explorer.figure.data[NEAR].customdata) == {labels[i] for i in (1, 3, 4, 5)}
    assert "itself included" in explorer.figure_at(node=labels[1]).layout.annotations[0].text


def test_dots_on_edges_have_their_weight_and_lead_to_the_other_end():
    nodes, edges = network()
    explorer = NetworkExplorer(nodes, edges, weight_label="attention")
    labels = explorer.controls["node"].options
    shown = explorer.figure_at(node=labels[0])
    dots, near, picked = (shown.data[i] for i in (DOTS, NEAR, PICKED))
    assert list(dots.customdata) == [labels[i] for i in (3, 4, 5, 1)]
    assert dots.hovertext[0] == "genA → genD, activates<br>attention: 0.5"
    assert "attention" not in dots.hovertext[2]
    np.testing.assert_allclose(dots.marker.size, 7 + 13 * np.sqrt([1, 0.25, 0, 0.5]))
    for x, name in zip(dots.x, dots.customdata, strict=True):
        end = near.x[list(near.customdata).index(name)]
        assert x == pytest.approx(0.4 * picked.x[0] + 0.6 * end)
    assert Click(trace=DOTS, control="node") in explorer.clicks


def test_names_of_neighbours_do_not_cover_one_another():
    ids = [f"neighbour{i}" for i in range(30)]
    nodes = pd.DataFrame(index=["hub", *ids])
    explorer = NetworkExplorer(nodes, pd.DataFrame({"source": "hub", "target": ids}))
    figure = explorer.figure_at(node="hub")
    near, every = figure.data[5], figure.data[1]
    high, wide = (np.ptp(one) for one in (every.y, every.x))
    boxes = []
    for x, y, text, side in zip(near.x, near.y, near.text, near.textposition, strict=True):
        if text:
            vertical, horizontal = side.split()
            px, py, w = x / wide * 2 / 2.12 * 520, -y / high * 2 / 2.12 * 520, 6.4 * len(text)
            left = {"left": px - 7 - w, "right": px + 7, "center": px - w / 2}[horizontal]
            top = {"bottom": py + 7, "top": py - 21, "middle": py - 7}[vertical]
            boxes.append((left, top, left + w, top + 14))
    assert 6 <= len(boxes) <= 24
    for a, b in combinations(boxes, 2):
        assert min(a[2] - b[0], b[2] - a[0], a[3] - b[1], b[3] - a[1]) < 1e-6


def test_a_network_has_one_layout_and_no_loose_ends():
    nodes, edges = network()
    every = NetworkExplorer(nodes, edges).figure.data[ALL]
    layout = graph_layout(nodes.index.tolist(), edges)
    np.testing.assert_allclose(np.column_stack([every.x, every.y]), layout)
    alone = NetworkExplorer(nodes.iloc[:1], edges.iloc[:0])
    assert "regulates 0, regulated by 0" in alone.figure.layout.annotations[0].text
    for nodes_, edges_, match in (
        (nodes, edges.replace("b0006", "b0099"), "→ b0099, expected only ends"),
        (nodes, edges.assign(sign=7), "sign '7' in edges"),
        (nodes, edges[["source"]], "edges with columns source"),
        (nodes.iloc[:0], edges, "0 rows in nodes"),
    ):
        with pytest.raises(InputError, match=match):
            NetworkExplorer(nodes_, edges_)


def test_gene_sets_are_no_regulators():
    nodes = pd.DataFrame(index=["a", "b", "KEGG:x"])
    edges = pd.DataFrame({
        "source": ["a", "KEGG:x"], "target": ["b", "b"], "sign": [1, 0],
        "kind": ["regulates", "contains"],
    })  # fmt: skip
    explorer = NetworkExplorer(nodes, edges)
    title = explorer.figure_at(node="b").layout.annotations[0].text
    assert "regulates 0, regulated by 1; 1 gene sets" in title
    assert "member of" in str(explorer.figure_at(node="b").data[7].hovertext)
    assert any("member of a gene set" in str(trace.name) for trace in explorer.figure.data)


def test_a_path_of_change_draws_every_part_and_what_is_missing():
    parts = ["embedding", "kernel", *["pathway"] * 8, "regulator"]
    values = [0.1, -0.3, *np.arange(1, 9) / 100, -0.2]
    names = ["g", "g", *(f"set {i}" for i in range(8)), "crp"]
    table = pd.DataFrame({"part": parts, "name": names, "value": values})
    figure = change_path(table, "g A>T", missing=0.04)
    (drawn,) = figure.data
    labels, link = list(drawn.node.label), drawn.link
    # Embedding, kernel, the six largest by size, and the other three together.
    first = ["", "its own embedding +0.1", "kernel: like training genes -0.3", "crp -0.2"]
    assert labels[:4] == first
    assert labels[4:] == [f"set {i} +0.0{i + 1}" for i in (7, 6, 5, 4, 3)] + ["3 others +0.06"]
    ways = list(zip(link.source, link.target, link.value, link.customdata, strict=True))
    for i, value in enumerate([0.1, -0.3, -0.2, 0.08, 0.07, 0.06, 0.05, 0.04, 0.06]):
        assert ways[i] == (0, 1 + i, pytest.approx(abs(value)), pytest.approx(value))
        assert (link.color[i] == link.color[0]) == (value > 0)
    assert "g A&gt;T changes the level by -0.080." in figure.layout.title.text
    assert "50.0% is missing" in figure.layout.title.text
    flat = change_path(table.assign(value=0.0), "g A>T", missing=0.0)
    assert "nothing is missing" in flat.layout.title.text
    # On a telephone a name has the width of the plot.
    assert max(map(len, labels)) * 7 < 300

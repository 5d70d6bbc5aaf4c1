"""The graph of regulators, genes and pathways: signs, weights, kinds and room for labels."""

from itertools import combinations

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from genesplice.errors import InputError
from genesplice.show.figures import pathway_graph
from genesplice.show.graphs import graph_layout


@pytest.fixture
def nodes() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": ["r1", "r2", "g1", "g2", "p1"],
            "label": ["crp", "lacI", "lacZ", "lacY", "COG:Carbohydrate transport and metabolism"],
            "kind": ["regulator", "regulator", "gene", "gene", "pathway"],
            "value": [1.0, 0.5, 0.25, np.nan, 0.0],
        }
    )


@pytest.fixture
def edges() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "source": ["r1", "r2", "r1", "g1"],
            "target": ["g1", "g1", "g2", "p1"],
            "sign": [1, -1, 0, 0],
            "weight": [1.0, 0.1, 0.6, 0.3],
            "kind": ["regulates", "regulates", "regulates", "member_of"],
        }
    )


def random_graph(n_genes: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    ids = [f"r{i}" for i in range(6)] + [f"g{i}" for i in range(n_genes)] + ["p0", "p1"]
    kinds = ["regulator"] * 6 + ["gene"] * n_genes + ["pathway"] * 2
    nodes = pd.DataFrame(
        {"id": ids, "label": ids, "kind": kinds, "value": rng.uniform(size=len(ids))}
    )
    rows = [
        (f"r{rng.integers(6)}", f"g{i}", int(rng.integers(-1, 2)), rng.uniform(), "regulates")
        for i in range(n_genes)
    ]
    rows += [(f"g{i}", f"p{i % 2}", 0, rng.uniform(), "member_of") for i in range(n_genes)]
    return nodes, pd.DataFrame(rows, columns=["source", "target", "sign", "weight", "kind"])


def places(figure) -> dict[str, tuple[float, float]]:
    """Where each node was drawn, by the id in its hover text."""
    found = {}
    for trace in figure.data:
        if trace.hovertext is not None:
            for x, y, text in zip(trace.x, trace.y, trace.hovertext, strict=True):
                found[text.split("<br>")[1]] = (x, y)
    return found


def strokes(figure) -> dict[tuple[str, str], object]:
    """The trace of each edge, by the nodes at its two ends."""
    at = {place: node for node, place in places(figure).items()}
    found = {}
    for trace in figure.data:
        if trace.hoverinfo == "skip":
            ends = list(zip(trace.x, trace.y, strict=True))
            for i in range(0, len(ends), 3):
                assert np.isnan(ends[i + 2][0])
                found[(at[ends[i]], at[ends[i + 1]])] = trace
    return found


# ---- layout


def test_the_layout_fills_the_box_and_nothing_else(nodes, edges):
    at = np.array(list(graph_layout(nodes, edges).values()))
    assert at.min() == -1.0
    assert at.max() == 1.0
    np.testing.assert_array_equal(at.min(axis=0), [-1, -1])
    np.testing.assert_array_equal(at.max(axis=0), [1, 1])


def test_no_two_nodes_share_a_place():
    at = graph_layout(*random_graph(60, seed=1))
    assert len(at) == 68
    gaps = [abs(a[0] - b[0]) for a, b in combinations(at.values(), 2)]
    assert min(gaps) >= 0.5 / 67  # ranks alone keep them this far apart


def test_each_axis_keeps_the_order_of_the_springs():
    nodes, edges = random_graph(20, seed=2)
    graph = nx.Graph()
    graph.add_nodes_from(sorted(nodes["id"]))
    pairs = {tuple(sorted(p)) for p in zip(edges["source"], edges["target"], strict=True)}
    graph.add_edges_from(sorted(pairs))
    springs = nx.spring_layout(graph, seed=5, k=2.2 / np.sqrt(len(graph)), iterations=200)
    drawn = graph_layout(nodes, edges, seed=5)
    for axis in (0, 1):
        by_spring = sorted(graph, key=lambda node: springs[node][axis])
        by_drawn = sorted(graph, key=lambda node: drawn[node][axis])
        assert by_spring == by_drawn


def test_neighbours_are_nearer_than_strangers():
    nodes, edges = random_graph(40, seed=3)
    at = graph_layout(nodes, edges)
    joined = {frozenset(p) for p in zip(edges["source"], edges["target"], strict=True)}
    distance = {
        frozenset(pair): np.hypot(*np.subtract(at[pair[0]], at[pair[1]]))
        for pair in combinations(at, 2)
    }
    near = np.mean([d for pair, d in distance.items() if pair in joined])
    far = np.mean([d for pair, d in distance.items() if pair not in joined])
    assert near < 0.8 * far


def test_the_seed_decides_the_layout(nodes, edges):
    assert graph_layout(nodes, edges, seed=1) == graph_layout(nodes, edges, seed=1)
    assert graph_layout(nodes, edges, seed=1) != graph_layout(nodes, edges, seed=2)


def test_one_node_stands_in_the_middle(nodes, edges):
    assert graph_layout(nodes.iloc[:1], edges.iloc[:0]) == {"r1": (0.0, 0.0)}


def test_a_node_that_regulates_itself_is_placed_like_any_other(nodes, edges):
    loop = pd.concat([edges, edges.iloc[:1].assign(target="r1")])
    assert graph_layout(nodes, loop) == graph_layout(nodes, edges)


# ---- nodes


def test_kinds_differ_in_symbol_and_colour(nodes, edges):
    traces = {t.name: t for t in pathway_graph(nodes, edges).data if t.hovertext is not None}
    assert list(traces) == ["regulator", "gene", "pathway"]
    assert len({t.marker.symbol for t in traces.values()}) == 3
    assert len({t.marker.color for t in traces.values()}) == 3


def test_a_kind_without_nodes_has_no_trace(nodes, edges):
    figure = pathway_graph(nodes.iloc[:4], edges.iloc[:3])
    assert "pathway" not in {trace.name for trace in figure.data}


def test_every_node_is_drawn_where_the_layout_put_it(nodes, edges):
    assert places(pathway_graph(nodes, edges, seed=4)) == graph_layout(nodes, edges, seed=4)


def test_size_grows_with_the_value(nodes, edges):
    sizes = {}
    for trace in pathway_graph(nodes, edges).data:
        if trace.hovertext is not None:
            ids = [text.split("<br>")[1] for text in trace.hovertext]
            sizes.update(zip(ids, trace.marker.size, strict=True))
    assert sizes == {"r1": 26.0, "r2": 19.5, "g1": 16.25, "g2": 13.0, "p1": 13.0}


def test_hover_has_label_id_kind_and_value(nodes, edges):
    figure = pathway_graph(nodes, edges, value_name="attention")
    hover = [text for trace in figure.data for text in trace.hovertext or ()]
    assert "<b>lacZ</b><br>g1<br>gene, attention 0.25" in hover
    assert "<b>lacY</b><br>g2<br>gene, attention not known" in hover


def test_long_labels_are_broken_and_cut_but_whole_on_hover(nodes, edges):
    pathway = next(t for t in pathway_graph(nodes, edges).data if t.name == "pathway")
    assert pathway.text[0].count("<br>") <= 1
    assert pathway.text[0].endswith("…")
    assert "COG:Carbohydrate transport and metabolism" in pathway.hovertext[0]


def test_labels_are_shown_not_interpreted(nodes, edges):
    figure = pathway_graph(nodes.assign(label="<b>&"), edges, value_name="<u>")
    for trace in figure.data:
        for text in trace.hovertext or ():
            assert text.startswith("<b>&lt;b&gt;&amp;</b>")
            assert "&lt;u&gt;" in text


def label_boxes(figure) -> list[tuple[float, float, float, float]]:
    """What the labels cover, in pixels of the narrow screen (300 x 400, axes from -1.4 to 1.4)."""
    boxes = []
    for trace in figure.data:
        for x, y, text, side, size in zip(
            trace.x,
            trace.y,
            trace.text or [""] * len(trace.x),
            trace.textposition or [None] * len(trace.x),
            np.broadcast_to(trace.marker.size, len(trace.x)),
            strict=True,
        ):
            if not text:
                continue
            rows = text.split("<br>")
            wide, high = max(map(len, rows)) * 6.4, len(rows) * 14.0
            px, py, r = x * 300 / 2.8, -y * 400 / 2.8, size / 2 + 2
            left = {"left": px - r - wide, "right": px + r, "center": px - wide / 2}
            top = {"bottom": py + r, "top": py - r - high, "middle": py - high / 2}
            vertical, horizontal = side.split()
            corner = (left[horizontal], top[vertical])
            boxes.append((*corner, corner[0] + wide, corner[1] + high))
    return boxes


@pytest.mark.parametrize("n_genes", [4, 30, 100])
def test_no_two_labels_overlap_on_a_narrow_screen(n_genes):
    boxes = label_boxes(pathway_graph(*random_graph(n_genes, seed=n_genes)))
    assert len(boxes) >= 8
    for a, b in combinations(boxes, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart or np.isclose(min(a[2] - b[0], b[2] - a[0], a[3] - b[1], b[3] - a[1]), 0)


def test_labels_do_not_leave_a_narrow_screen():
    for left, _, right, _ in label_boxes(pathway_graph(*random_graph(30, seed=9))):
        assert left >= -162
        assert right <= 162


def test_small_graphs_label_every_node(nodes, edges):
    assert len(label_boxes(pathway_graph(nodes, edges))) == 5


# ---- edges


def test_every_edge_joins_its_nodes_with_the_style_of_its_sign(nodes, edges):
    drawn = strokes(pathway_graph(nodes, edges))
    names = {ends: trace.name for ends, trace in drawn.items()}
    assert names == {
        ("r1", "g1"): "activates",
        ("r2", "g1"): "represses",
        ("r1", "g2"): "regulates, sign unknown",
        ("g1", "p1"): "member of",
    }


def test_signs_differ_in_colour_dash_and_head(nodes, edges):
    traces = {t.name: t for t in strokes(pathway_graph(nodes, edges)).values()}
    assert len({t.line.color for t in traces.values()}) == 4
    assert len({t.line.dash for t in traces.values()}) == 4
    heads = {name: t.marker.symbol for name, t in traces.items() if "markers" in t.mode}
    assert heads == {
        "activates": "arrow",
        "represses": "line-ew",
        "regulates, sign unknown": "arrow-wide",
    }


def test_heads_sit_at_the_target_and_clear_of_its_marker(nodes, edges):
    trace = strokes(pathway_graph(nodes, edges))[("r1", "g1")]
    assert list(np.asarray(trace.marker.size) > 0) == [False, True, False]
    assert trace.marker.standoff[1] == 16.25 / 2 + 1  # g1 is 16.25 pixels wide
    assert trace.marker.angleref == "previous"


def test_width_grows_with_the_weight_in_four_classes(nodes, edges):
    width = {ends: trace.line.width for ends, trace in strokes(pathway_graph(nodes, edges)).items()}
    assert width[("r1", "g1")] == 5.0  # 1.0 of 1.0
    assert width[("r2", "g1")] == 1.0  # 0.1
    assert width[("r1", "g2")] == pytest.approx(1 + 4 * 2 / 3)  # 0.6, third class
    assert width[("g1", "p1")] == pytest.approx(1 + 4 / 3)  # 0.3, second class


def test_weights_that_are_all_zero_are_thin(nodes, edges):
    figure = pathway_graph(nodes, edges.assign(weight=0.0))
    assert {trace.line.width for trace in strokes(figure).values()} == {1.0}


def test_each_style_is_in_the_legend_once():
    figure = pathway_graph(*random_graph(50, seed=0))
    shown = [t.name for t in figure.data if t.hoverinfo == "skip" and t.showlegend]
    assert sorted(shown) == sorted(set(shown))
    assert set(shown) == {"activates", "represses", "regulates, sign unknown", "member of"}


def test_the_sign_of_a_membership_does_not_matter(nodes, edges):
    figure = pathway_graph(nodes, edges.assign(sign=[1, -1, 0, -1]))
    assert strokes(figure)[("g1", "p1")].name == "member of"


def test_a_graph_without_edges_is_drawn(nodes, edges):
    figure = pathway_graph(nodes, edges.iloc[:0])
    assert len(places(figure)) == 5
    assert "5 nodes, 0 edges" in figure.layout.title.text


# ---- order and bad input


def test_row_order_has_no_influence():
    nodes, edges = random_graph(30, seed=6)
    first = pathway_graph(nodes, edges).to_json()
    shuffled = pathway_graph(
        nodes.sample(frac=1, random_state=1), edges.sample(frac=1, random_state=2)
    )
    assert shuffled.to_json() == first


def test_the_input_is_left_as_it_was(nodes, edges):
    before = nodes.copy(), edges.copy()
    pathway_graph(nodes, edges)
    pd.testing.assert_frame_equal(nodes, before[0])
    pd.testing.assert_frame_equal(edges, before[1])


@pytest.mark.parametrize("column", ["source", "target", "sign", "weight", "kind"])
def test_edges_without_a_column_are_refused(nodes, edges, column):
    with pytest.raises(InputError, match=f"edges without columns {column}"):
        pathway_graph(nodes, edges.drop(columns=column))


def test_bad_nodes_are_refused(nodes, edges):
    with pytest.raises(InputError, match="0 rows in nodes"):
        pathway_graph(nodes.iloc[:0], edges.iloc[:0])
    with pytest.raises(InputError, match="also value"):
        pathway_graph(nodes.drop(columns="value"), edges)
    with pytest.raises(InputError, match="found 5 different node ids, expected 6"):
        pathway_graph(pd.concat([nodes, nodes.iloc[:1]]), edges)
    with pytest.raises(InputError, match="node kind 'operon', expected regulator, gene, pathway"):
        pathway_graph(nodes.assign(kind="operon"), edges)
    with pytest.raises(InputError, match="1 of 5 values of node value not finite"):
        pathway_graph(nodes.replace(1.0, np.inf), edges)


def test_bad_edges_are_refused(nodes, edges):
    with pytest.raises(InputError, match="found 1 of 4 edges with an end not in nodes, expected 0"):
        pathway_graph(nodes, edges.replace("r2", "r9"))
    with pytest.raises(InputError, match="edge kind 'binds', expected regulates or member_of"):
        pathway_graph(nodes, edges.replace("member_of", "binds"))
    with pytest.raises(InputError, match=r"edge signs .* expected -1, 0 or 1"):
        pathway_graph(nodes, edges.assign(sign=[1, -1, 0, 2]))
    with pytest.raises(InputError, match="1 of 4 values of edge weight not finite"):
        pathway_graph(nodes, edges.replace(0.1, np.nan))

"""Explorers: what each option shows, spelt out in loops, and the live widget beside it."""

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from tiny_explorers import GENES, HOSTILE, NAMES, SEQUENCES, make_explorers, network, profiles

from genesplice.errors import InputError
from genesplice.show.explorer import (
    EXPLORER_MIME,
    HEADLESS_VARIABLE,
    PLOTLY_MIME,
    gene_labels,
    heading,
    is_live,
    shorten,
)
from genesplice.show.explorers import (
    AttributionExplorer,
    Binding,
    Click,
    Control,
    Explorer,
    NetworkExplorer,
    ProfileExplorer,
    ScatterExplorer,
)
from genesplice.show.theme import BASE_COLOURS, safe

EXPLORERS = make_explorers()
GENE = Control(name="gene", kind="select", label="Gene", options=("a", "b"))


def small(**options) -> Explorer:
    figure = go.Figure(go.Scatter(x=[1.0, 2.0], y=[0.0, 0.0], customdata=["a", "b"]))
    rows = np.array([[1.0, 2.0], [3.0, 4.0]])
    binding = Binding(path="y", rows=rows, controls=("gene",), traces=(0,))
    given = {"controls": [GENE], "bindings": [binding], "clicks": [Click(trace=0, control="gene")]}
    return Explorer(figure, **{**given, **options})


def test_the_figure_starts_where_the_controls_do() -> None:
    figure = go.Figure(go.Scatter(y=[9.0]))
    start = Control(name="gene", kind="select", label="Gene", options=("a", "b"), start=1)
    binding = Binding(path="y", rows=[[1.0], [2.0]], controls=("gene",), traces=(0,))
    explorer = Explorer(figure, [start], [binding])
    assert explorer.figure.data[0].y == (2.0,)
    assert figure.data[0].y == (9.0,)
    assert explorer.figure_at(gene="a").data[0].y == (1.0,)
    with pytest.raises(InputError, match="gene = 'c', expected one of a, b"):
        explorer.figure_at(gene="c")
    with pytest.raises(InputError, match="colour = 'a', expected one of gene"):
        explorer.figure_at(colour="a")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"controls": [GENE, GENE]}, "two controls of one name"),
        ({"clicks": [Click(trace=1, control="gene")]}, "a click on trace 1"),
        ({"clicks": [Click(trace=0, control="x")]}, "for 'x'"),
        (
            {"bindings": [Binding(path="y", rows=[0, 0], controls=("gene",), traces=(0,))] * 2},
            "two bindings of y",
        ),
        (
            {
                "bindings": [Binding(path="height", rows=[1, 2], controls=("gene",))],
                "narrow": {"height": 5},
            },
            "height both bound and changed when narrow",
        ),
    ],
)
def test_an_explorer_that_contradicts_itself_is_refused(options: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        small(**options)


def test_three_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HEADLESS_VARIABLE, "1")
    assert not is_live()
    bundle = small()._repr_mimebundle_()
    assert set(bundle) == {"text/plain", PLOTLY_MIME, EXPLORER_MIME}
    assert bundle["text/plain"] == "Explorer (Gene)"
    assert bundle[PLOTLY_MIME]["config"]["showSendToCloud"] is False
    assert bundle[EXPLORER_MIME]["clicks"] == [{"trace": 0, "control": "gene"}]
    json.dumps(bundle, allow_nan=False)


@pytest.mark.parametrize("name", EXPLORERS)
def test_payloads_are_plain_json_and_the_same_each_time(name: str) -> None:
    payload = EXPLORERS[name].to_payload()
    text = json.dumps(payload, allow_nan=False)
    assert text == json.dumps(make_explorers()[name].to_payload(), allow_nan=False)
    assert len(text) < 40_000
    for control in payload["controls"]:
        assert len(control["options"]) > control["start"]


def test_a_live_widget_shows_what_figure_at_gives() -> None:
    explorer = EXPLORERS["profile"]
    widget = explorer.to_widget()
    select, figure = widget.children[0].children[0], widget.children[1]
    assert select.value == "genA (b0000)"
    select.value = "genD (b0003)"
    wanted = explorer.figure_at(gene="genD (b0003)")
    for shown, expected in zip(figure.data, wanted.data, strict=True):
        np.testing.assert_array_equal(np.array(shown.y), np.array(expected.y))
    assert figure.layout.annotations[1].text == wanted.layout.annotations[1].text
    assert figure._config["showSendToCloud"] is False

    click = {
        "event_type": "plotly_click",
        "points": {"trace_indexes": [0], "point_indexes": [5], "xs": [0], "ys": [0]},
        "device_state": None,
        "selector": None,
    }
    figure._js2py_pointsCallback = click
    assert select.value == "genF (b0005)"
    wanted = explorer.figure_at(gene="genF (b0005)")
    np.testing.assert_array_equal(figure.data[2].y, wanted.data[2].y)


def test_every_kind_of_control_has_a_widget() -> None:
    slider = Control(name="w", kind="slider", label="Window", options=("1", "2", "3"), start=1)
    toggle = Control(name="t", kind="toggle", label="Logarithm", options=("off", "on"))
    rows = np.arange(6.0).reshape(3, 2)
    explorer = Explorer(
        go.Figure(go.Scatter(y=[0.0], customdata=["on"])),
        [slider, toggle],
        [Binding(path="height", rows=rows * 10 + 100, controls=("w", "t"))],
        [Click(trace=0, control="t")],
    )
    widget = explorer.to_widget()
    (window, log), figure = widget.children[0].children, widget.children[1]
    assert figure.layout.height == 120
    log.value = True
    assert figure.layout.height == 130
    window.value = "3"
    assert figure.layout.height == 150
    log.value = False
    assert figure.layout.height == 140
    figure._js2py_pointsCallback = {
        "event_type": "plotly_click",
        "points": {"trace_indexes": [0], "point_indexes": [0], "xs": [0], "ys": [0]},
        "device_state": None,
        "selector": None,
    }
    assert log.value is True


def test_labels() -> None:
    assert gene_labels(pd.Index(["a", "b"])) == ("a", "b")
    names = pd.Series({"a": "lacZ", "b": None, "c": "c", "d": ""})
    assert gene_labels(pd.Index(["a", "b", "c", "d", "e"]), names) == (
        "lacZ (a)",
        "b",
        "c",
        "d",
        "e",
    )
    assert shorten("abcdef", 4) == "abc…"
    assert shorten("abcd", 4) == "abcd"
    assert heading("<i>a</i>", "r = 1") == "<b>&lt;i&gt;a&lt;/i&gt;</b><br>r = 1"
    assert heading("a") == "<b>a</b>"


def test_profile_of_each_gene() -> None:
    observed, predicted = profiles()
    explorer = EXPLORERS["profile"]
    for row, label in enumerate(gene_labels(GENES, NAMES)):
        figure = explorer.figure_at(gene=label)
        np.testing.assert_allclose(figure.data[2].y, observed.iloc[row], atol=0.005)
        np.testing.assert_allclose(figure.data[3].y, predicted.iloc[row], atol=0.005)
        assert figure.data[1].x[0] == pytest.approx(observed.iloc[row].mean())
        assert figure.data[1].y[0] == pytest.approx(predicted.iloc[row].mean())
        told = figure.layout.annotations[1].text
        both = pd.concat([observed.iloc[row], predicted.iloc[row]], axis=1).dropna()
        expected = "flat" if row == 4 else f"r = {both.corr().iloc[0, 1]:.2f}"
        assert told.endswith(expected)
    assert "<img" not in explorer.figure_at(gene=f"{HOSTILE} (b0001)").layout.annotations[1].text
    assert list(explorer.figure.data[0].customdata) == list(gene_labels(GENES, NAMES))


def test_profile_refuses_what_does_not_fit() -> None:
    observed, predicted = profiles()
    with pytest.raises(InputError, match="0 genes x 20 conditions"):
        ProfileExplorer(observed.iloc[:0], {})
    with pytest.raises(InputError, match="no b0011 in what model predicts"):
        ProfileExplorer(observed, {"model": predicted.iloc[:-1]})
    with pytest.raises(InputError, match="start 'b9999'"):
        ProfileExplorer(observed, {"model": predicted}, start="b9999")
    shuffled = predicted.iloc[::-1, ::-1]
    same = ProfileExplorer(observed, {"model": shuffled}, start="b0003").figure
    np.testing.assert_array_equal(same.data[3].y, np.round(predicted.loc["b0003"], 2))
    few = ProfileExplorer(observed.iloc[:, :3], {}).figure
    assert few.layout.xaxis2.ticktext == ("condition 0", "condition 1", "condition 2")


def test_map_is_coloured_by_numbers_and_by_categories() -> None:
    explorer = EXPLORERS["scatter"]
    observed, _ = profiles()
    figure = explorer.figure_at(column="level")
    np.testing.assert_allclose(figure.data[0].marker.color, observed.mean(axis=1), rtol=1e-6)
    assert figure.data[0].marker.cmin == pytest.approx(observed.mean(axis=1).min())
    figure = explorer.figure_at(column="fold")
    bar = figure.data[0].marker.colorbar
    assert bar.ticktext == (*(f"fold {i}" for i in range(6)), "other")
    assert figure.data[0].marker.color.tolist() == [i % 8 if i % 8 < 6 else 6 for i in range(12)]
    scale = figure.data[0].marker.colorscale
    assert [stop[0] for stop in scale][::2] == pytest.approx([i / 7 for i in range(7)])
    assert scale[0][1] == scale[1][1] != scale[2][1]
    assert len({stop[1] for stop in scale}) == 7
    assert figure.data[0].hovertext[1].startswith(safe(HOSTILE))

    assert np.isnan(explorer.figure.data[1].x[0])
    marked = explorer.figure_at(find="genD (b0003)")
    assert marked.data[1].x[0] == marked.data[0].x[3]
    assert marked.data[1].text == ("genD (b0003)",)


def test_map_takes_gaps_and_refuses_what_is_missing() -> None:
    points = pd.DataFrame({"x": [0.0, 1.0], "y": [0.0, 1.0]}, index=["a", "b"])
    columns = pd.DataFrame({"n": [np.nan, 1.0], "c": [None, "k"], "b": [True, False]}, points.index)
    explorer = ScatterExplorer(points, columns)
    assert explorer.figure_at(column="c").data[0].marker.colorbar.ticktext == ("k", "unknown")
    assert explorer.figure_at(column="b").data[0].marker.colorbar.ticktext == ("False", "True")
    assert explorer.figure_at(column="n").data[0].marker.cmax == 2.0
    with pytest.raises(InputError, match="no row for b in columns"):
        ScatterExplorer(points, columns.iloc[:1])
    with pytest.raises(InputError, match="2 points, 2 coordinates and 0 columns"):
        ScatterExplorer(points, columns[[]])


def test_attributions_base_by_base() -> None:
    explorer = EXPLORERS["attribution"]
    labels = gene_labels(GENES[:4], NAMES)
    for row, label in enumerate(labels):
        figure = explorer.figure_at(gene=label)
        assert list(figure.data[1].text) == list(SEQUENCES[row])
        assert list(figure.data[1].marker.color) == [BASE_COLOURS[b] for b in SEQUENCES[row]]
        np.testing.assert_array_equal(figure.data[0].y, figure.data[1].y)
    assert explorer.figure.data[1].x.dtype == np.float64

    windows = explorer.controls["window"].options
    assert windows[0] == "-80 to -21"
    assert windows[-1] == "-40 to +19"
    for option in windows:
        low, high = (float(word) for word in option.split(" to "))
        figure = explorer.figure_at(window=option)
        assert figure.layout.xaxis2.range == (low - 0.5, high + 0.5)
        assert high - low + 1 == 60
        assert (figure.layout.shapes[0].x0, figure.layout.shapes[0].x1) == (low - 0.5, high + 0.5)

    # Half-open -35 to -29 covers bases -35 … -30, so half a base beyond them on either side.
    strokes = explorer.figure_at(gene=labels[0]).data[2]
    np.testing.assert_array_equal(strokes.x, [-35.5, -29.5, np.nan, -33.5, -20.5, np.nan])
    np.testing.assert_array_equal(strokes.y, [0, 0, np.nan, -1, -1, np.nan])
    named = explorer.figure_at(gene=labels[0]).data[3]
    assert named.text == ("-35", safe(shorten(HOSTILE, 24)))
    assert explorer.figure_at(gene=labels[1]).data[3].text == ()
    assert explorer.figure.layout.annotations[0].text.endswith("delta 0.01")


def test_attributions_of_short_stretches_and_wrong_ones() -> None:
    table = pd.DataFrame(np.ones((1, 5)), index=["a"], columns=range(5))
    tiny = AttributionExplorer(table, ["ANTrN"])
    assert tiny.controls["window"].options == ("+0 to +4",)
    assert list(tiny.figure.data[1].text) == ["A", "N", "T", "N", "N"]
    with pytest.raises(InputError, match="a sequence of 4 bp for a, expected 5"):
        AttributionExplorer(table, ["ACGT"])
    with pytest.raises(InputError, match="2 sequences, expected 1"):
        AttributionExplorer(table, ["ACGTA"] * 2)
    with pytest.raises(InputError, match="positions that are not one apart"):
        AttributionExplorer(table.set_axis([0, 1, 2, 3, 5], axis=1), ["ACGTA"])
    with pytest.raises(InputError, match="a window of 0 bp"):
        AttributionExplorer(table, ["ACGTA"], window_bp=0)
    with pytest.raises(InputError, match="start 'b'"):
        AttributionExplorer(table, ["ACGTA"], start="b")
    with pytest.raises(InputError, match="1 genes x 0 positions"):
        AttributionExplorer(table.iloc[:, :0], [""])


def test_neighbours_of_each_node() -> None:
    explorer = EXPLORERS["network"]
    nodes, edges = network()
    labels = gene_labels(nodes.index, nodes["name"])
    drawn = explorer.figure.data[1]
    places = {node: (drawn.x[i], drawn.y[i]) for i, node in enumerate(nodes.index)}
    assert explorer.controls["node"].options[explorer.controls["node"].start] == labels[0]
    for node, label in zip(nodes.index, labels, strict=True):
        figure = explorer.figure_at(node=label)
        n_out, n_in = (edges["source"] == node).sum(), (edges["target"] == node).sum()
        assert f"regulates {n_out}, regulated by {n_in}" in figure.layout.annotations[0].text
        for trace, sign in ((2, 1), (3, -1), (4, 0)):
            touching = edges[
                ((edges["source"] == node) | (edges["target"] == node))
                & (edges["sign"] == sign)
                & (edges["source"] != edges["target"])
            ]
            expected = []
            for edge in touching.itertuples():
                expected += [places[edge.source][0], places[edge.target][0], np.nan]
            np.testing.assert_array_equal(np.array(figure.data[trace].x, dtype=float), expected)
        assert (figure.data[6].x[0], figure.data[6].y[0]) == places[node]
        near = {one for one in labels if one in (figure.data[5].customdata or ())}
        assert label not in near
    assert set(explorer.figure.data[5].customdata) == {labels[i] for i in (1, 3, 4, 5)}
    assert "itself included" in explorer.figure_at(node=labels[1]).layout.annotations[0].text


def test_network_places_its_nodes_the_same_each_time_and_refuses_loose_ends() -> None:
    nodes, edges = network()
    first, second = (NetworkExplorer(nodes, edges, seed=3).figure for _ in range(2))
    np.testing.assert_array_equal(first.data[1].x, second.data[1].x)
    placed = nodes.assign(x=np.arange(12.0), y=0.0)
    assert NetworkExplorer(placed, edges).figure.data[1].x.tolist() == list(range(12))
    alone = NetworkExplorer(nodes.iloc[:1], edges.iloc[:0], start="b0000")
    assert "regulates 0, regulated by 0" in alone.figure.layout.annotations[0].text
    with pytest.raises(InputError, match="an edge to 'b0099'"):
        NetworkExplorer(nodes, edges.replace("b0006", "b0099"))
    with pytest.raises(InputError, match="sign 7 of an edge"):
        NetworkExplorer(nodes, edges.assign(sign=7))
    with pytest.raises(InputError, match="edges with columns source"):
        NetworkExplorer(nodes, edges[["source"]])
    with pytest.raises(InputError, match="0 nodes"):
        NetworkExplorer(nodes.iloc[:0], edges)
    with pytest.raises(InputError, match="start 'zzz'"):
        NetworkExplorer(nodes, edges, start="zzz")


def test_dots_on_edges_say_their_weight_and_lead_to_the_other_end() -> None:
    nodes, edges = network()
    explorer = NetworkExplorer(nodes, edges, weight_label="attention")
    label = explorer.controls["node"].options[0]
    shown = explorer.figure_at(node=label)
    dots, others = shown.data[7], shown.data[5]
    assert len(dots.x) == 4
    assert list(dots.customdata) == [explorer.controls["node"].options[i] for i in (3, 4, 5, 1)]
    assert dots.hovertext[0] == "genA → genD, activates<br>attention: 0.5"
    assert "attention" not in dots.hovertext[2]
    sizes = dict(zip(dots.customdata, dots.marker.size, strict=True))
    assert max(sizes, key=sizes.get) == dots.customdata[0]
    assert sizes[dots.customdata[1]] == pytest.approx(7 + 13 * 0.5)
    assert sizes[dots.customdata[2]] == 7
    centre = shown.data[6].x[0], shown.data[6].y[0]
    for x, y, name in zip(dots.x, dots.y, dots.customdata, strict=True):
        end = list(others.customdata).index(name)
        assert x == pytest.approx(0.4 * centre[0] + 0.6 * others.x[end])
        assert y == pytest.approx(0.4 * centre[1] + 0.6 * others.y[end])
    assert Click(trace=7, control="node") in explorer.clicks

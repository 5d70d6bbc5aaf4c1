"""Explorers: what each option shows, spelt out in loops, in a payload and in a live widget."""

import base64
import itertools
import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_explorers import (
    GENES,
    HOSTILE,
    NAMES,
    SEQUENCES,
    conservation,
    context,
    make_explorers,
    profiles,
    scan,
    scan_explorer,
    tracks,
)  # fmt: skip
from tiny_figures import polygons, trace

from genesplice.errors import InputError
from genesplice.results import Conservation
from genesplice.show.explorer import (
    EXPLORER_MIME,
    HEADLESS_VARIABLE,
    PLOTLY_MIME,
    is_live,
)  # fmt: skip
from genesplice.show.explorers import (
    AttentionExplorer,
    AttributionExplorer,
    Binding,
    Click,
    ContextExplorer,
    Control,
    CurveExplorer,
    Explorer,
    ProfileExplorer,
    Recompute,
    ScanExplorer,
    ScatterExplorer,
    TrackExplorer,
    bind,
)  # fmt: skip
from genesplice.show.theme import BASE_COLOURS, gene_labels, safe, short

EXPLORERS = make_explorers()
GENE = Control(name="gene", kind="select", label="Gene", options=("a", "b", "c"))
SIDE = Control(name="side", kind="toggle", label="Other side", options=("off", "on"))


# ---- controls, bindings, payloads


def unpack(value: object, palette: list[str] | None = None) -> object:
    """A value of a payload, as the page reads it."""
    if palette:
        return [palette[int(digit)] for digit in value]
    if not (isinstance(value, dict) and "bdata" in value):
        return value
    return np.frombuffer(base64.b64decode(value["bdata"]), dtype="<" + value["dtype"])


@given(arrays(np.float64, st.integers(0, 9), elements=st.floats(-1e5, 1e5)), st.integers(0, 3))
def test_arrays_travel_as_bytes_rounded_or_to_the_last_bit(values, decimals) -> None:
    one = Control(name="g", kind="select", label="G", options=("a",))
    for kept, dtype in ((decimals, "f4"), (None, "f8")):
        (binding,) = bind(one, lambda at: {"data[0].y": values}, kept)
        (packed,) = binding.to_payload()["rows"]
        assert packed["dtype"] == dtype
        error, of_f4 = (0, 0) if kept is None else (0.5000001 * 10.0**-decimals, 2.0**-24)
        np.testing.assert_allclose(unpack(packed), values, atol=error, rtol=of_f4)


@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "f4", "f8", "i8", "u4", "b1", ">f4"])
def test_numbers_that_plotly_cannot_read_become_floats(kind: str) -> None:
    values = np.array([0, 1], dtype=kind)
    (packed,) = Binding(("height",), (), [values]).to_payload()["rows"]
    assert packed["dtype"] == (kind[-2:] if kind[-2:] in ("i1", "i2", "i4", "f4") else "f8")
    np.testing.assert_array_equal(unpack(packed), values)


def test_a_value_for_every_combination_of_options_in_python_and_in_the_payload() -> None:
    table = np.arange(3 * 2 * 4, dtype=np.float64).reshape(3, 2, 4)

    def change(gene: int, side: int) -> dict:
        same = table[gene, side]
        return {
            "data[0].y": same,
            "data[1].y": same,
            "data[0].x": np.arange(gene + 1) / 3,
            "data[0].text": ["ACGT"[i] for i in (gene, side, 3, 3, 3, 3)],
            "title.text": f"{gene}{side}",
            "height": 100.0 * gene,
        }

    bindings = bind((GENE, SIDE), change, decimals=2)
    assert ("data[0].y", "data[1].y") in [one.paths for one in bindings]  # travels once
    assert ["palette" in one.to_payload() for one in bindings].count(True) == 1
    for paths, _, rows in bindings:
        one = next(one for one in bindings if one.paths == paths)
        payload = json.loads(json.dumps(one.to_payload(), allow_nan=False))
        for index, (i, j) in enumerate(itertools.product(range(3), range(2))):
            expected = change(i, j)[paths[0]]
            for found in (rows[index], unpack(payload["rows"][index], payload.get("palette"))):
                if isinstance(expected, np.ndarray):
                    np.testing.assert_allclose(found, np.round(expected, 2))
                else:
                    assert found == expected


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"options": ()}, "0 options of 'g'"),
        ({"options": ("a", "a")}, "2 options of 'g', 1 of them different"),
        ({"options": ("a",), "kind": "toggle"}, "1 options of toggle 'g', expected 2"),
        ({"options": ("a", "b"), "start": 2}, "'g' starting at 2, expected 0 to 1"),
    ],
)
def test_a_control_that_makes_no_sense_is_refused(options: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Control(**{"name": "g", "kind": "select", "label": "G", **options})


def small(**options) -> Explorer:
    figure = go.Figure(go.Scatter(x=[1.0, 2.0], y=[0.0, 0.0], customdata=["a", "b"]))
    rows = np.arange(6.0).reshape(3, 2)
    given = {"controls": [GENE], "bindings": bind(GENE, lambda at: {"data[0].y": rows[at]})}
    return Explorer(figure, **{**given, "clicks": [Click(trace=0, control="gene")], **options})


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"controls": [GENE, GENE]}, "two controls of one name"),
        ({"clicks": [Click(trace=1, control="gene")]}, "a click on trace 1"),
        ({"clicks": [Click(trace=0, control="x")]}, "for 'x'"),
        ({"bindings": bind(GENE, lambda at: {"height": at}) * 2}, "height changed twice"),
        (
            {"bindings": bind(GENE, lambda at: {"height": at}), "narrow": {"height": 5}},
            "height changed twice, expected one binding, or a value when narrow",
        ),
        ({"bindings": [Binding(("height",), ("x",), [1])]}, "height bound to x, expected one of"),
        ({"bindings": [Binding(("height",), ("gene",), [1])]}, "1 values for height, expected 3"),
    ],
)
def test_an_explorer_that_contradicts_itself_is_refused(options: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        small(**options)


def test_the_figure_starts_where_the_controls_do() -> None:
    start = Control(name="gene", kind="select", label="Gene", options=("a", "b"), start=1)
    figure = go.Figure(go.Scatter(y=[9.0]))
    explorer = Explorer(figure, [start], bind(start, lambda at: {"data[0].y": [at + 1.0]}))
    assert explorer.figure.data[0].y == (2.0,)
    assert figure.data[0].y == (9.0,)
    assert explorer.figure_at(gene="a").data[0].y == (1.0,)
    with pytest.raises(InputError, match="gene = 'c', expected one of a, b"):
        explorer.figure_at(gene="c")
    with pytest.raises(InputError, match="colour = 'a', expected one of gene"):
        explorer.figure_at(colour="a")


def test_what_a_notebook_stores(monkeypatch: pytest.MonkeyPatch) -> None:
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
    text = json.dumps(EXPLORERS[name].to_payload(), allow_nan=False)
    assert text == json.dumps(make_explorers()[name].to_payload(), allow_nan=False)
    assert len(text) < 55_000
    assert EXPLORERS[name].figure.layout.template.layout.font.size == 13


# ---- live


def click(figure: go.FigureWidget, point: int) -> None:
    figure._js2py_pointsCallback = {
        "event_type": "plotly_click",
        "points": {"trace_indexes": [0], "point_indexes": [point], "xs": [0], "ys": [0]},
        "device_state": None,
        "selector": None,
    }


def parts(explorer: Explorer) -> tuple[dict, object, go.FigureWidget]:
    """Controls by label, the message, and the figure of the live face."""
    row, figure = explorer.to_widget().children
    *controls, message = row.children
    return {one.description: one for one in controls}, message, figure


def assert_drawn(shown: go.FigureWidget, expected: go.Figure) -> None:
    for one, other in zip(shown.data, expected.data, strict=True):
        for path in ("x", "y", "text", "z", "cells.values"):
            if path in one and one[path] is not None:
                assert str(one[path]) == str(other[path])
    texts = [[note.text for note in figure.layout.annotations] for figure in (shown, expected)]
    assert texts[0] == texts[1]


def test_a_live_widget_shows_what_figure_at_gives() -> None:
    explorer = EXPLORERS["profile"]
    controls, _, figure = parts(explorer)
    assert controls["Gene"].value == "genA (b0000)"
    controls["Gene"].value = "genD (b0003)"
    assert_drawn(figure, explorer.figure_at(gene="genD (b0003)"))
    assert figure._config["showSendToCloud"] is False
    click(figure, 5)
    assert controls["Gene"].value == "genF (b0005)"
    assert_drawn(figure, explorer.figure_at(gene="genF (b0005)"))


def test_every_kind_of_control_has_a_widget() -> None:
    window = Control(name="w", kind="slider", label="Window", options=("1", "2", "3"), start=1)
    log = Control(name="t", kind="toggle", label="Logarithm", options=("off", "on"))
    bindings = bind((window, log), lambda w, t: {"height": 100 + 20 * w + 10 * t})
    figure = go.Figure(go.Scatter(y=[0.0], customdata=["on"]))
    explorer = Explorer(figure, [window, log], bindings, [Click(trace=0, control="t")])
    controls, _, figure = parts(explorer)
    assert figure.layout.height == 120
    steps = (("Logarithm", True, 130), ("Window", "3", 150), ("Logarithm", False, 140))
    for label, value, height in steps:
        controls[label].value = value
        assert figure.layout.height == height
    click(figure, 0)
    assert controls["Logarithm"].value is True


@pytest.mark.slow
def test_what_was_not_given_is_computed_once_in_a_live_kernel() -> None:
    asked = []

    def compute(gene: str) -> Explorer:
        asked.append(gene)
        if gene == "b0009":
            raise InputError(f"gene {gene} <i>", "one that is there")
        return scan_explorer(gene)

    explorer = ScanExplorer(
        *scan(["b0003"]), names=NAMES, recompute=Recompute(compute, {"gene": NAMES})
    )
    controls, message, figure = parts(explorer)
    assert controls["Gene"].options[0] == "genD (b0003)"
    assert len(controls["Gene"].options) == len(NAMES)
    window = next(one for label, one in controls.items() if label.startswith("Window"))
    window.value = "-60 to -1"
    for _ in range(2):
        controls["Gene"].value = "genF (b0005)"
        assert_drawn(figure, scan_explorer("b0005").figure)
        assert figure.layout.xaxis2.range == (-60.5, -0.5)  # the other controls stay
        controls["Gene"].value = "genD (b0003)"
        assert_drawn(figure, explorer.figure)
    assert asked == ["b0005"]
    controls["Gene"].value = "genJ (b0009)"
    assert "gene b0009 &lt;i&gt;" in message.value
    assert_drawn(figure, explorer.figure)
    controls["Gene"].value = "genF (b0005)"
    assert message.value == ""


def test_a_figure_can_be_recomputed_by_controls_of_its_own() -> None:
    def plot(context_bp: int, side: str) -> go.Figure:
        return go.Figure(go.Scatter(y=[float(context_bp), len(side)]))

    recompute = Recompute(plot, {"context_bp": [512, 2048], "side": ["up", "down"]})
    explorer = Explorer(plot(512, "up"), recompute=recompute)
    controls, _, figure = parts(explorer)
    assert list(controls) == ["Context bp", "Side"]
    controls["Context bp"].value = "2048"
    controls["Side"].value = "down"
    assert list(figure.data[0].y) == [2048.0, 4.0]
    controls["Context bp"].value, controls["Side"].value = "512", "up"
    assert list(figure.data[0].y) == [512.0, 2.0]
    assert explorer.to_payload()["controls"] == []


def test_a_report_says_what_only_a_kernel_can_show() -> None:
    payload = EXPLORERS["scan"].to_payload()
    assert payload["note"] == "Gene: 2 of 12 computed here, others where a kernel runs."
    assert payload["controls"][0]["options"] == ["genA (b0000)", "genD (b0003)"]
    assert EXPLORERS["profile"].to_payload()["note"] == ""
    own = Explorer(go.Figure(), recompute=Recompute(lambda n: go.Figure(), {"n": [1, 2]}))
    assert own.note() == "N: only 1 computed here, others where a kernel runs."


# ---- the explorers


def test_profile_of_each_gene() -> None:
    observed, predicted = profiles()
    explorer = EXPLORERS["profile"]
    for row, label in enumerate(gene_labels(GENES, NAMES)):
        figure = explorer.figure_at(gene=label)
        for name, table in (("observed", observed), ("model", predicted)):
            np.testing.assert_allclose(trace(figure, name).y, table.iloc[row], atol=0.005)
        marked = figure.data[1]
        means = [observed.iloc[row].mean(), predicted.iloc[row].mean()]
        np.testing.assert_allclose([marked.x[0], marked.y[0]], means)
        both = pd.concat([observed.iloc[row], predicted.iloc[row]], axis=1).dropna()
        fit = "flat" if row == 4 else f"r = {both.corr().iloc[0, 1]:.2f}"
        assert figure.layout.annotations[1].text.endswith(fit)
    assert "<img" not in explorer.figure_at(gene=f"{HOSTILE} (b0001)").layout.annotations[1].text
    assert list(explorer.figure.data[0].customdata) == list(gene_labels(GENES, NAMES))


def test_profile_takes_any_order_and_refuses_what_does_not_fit() -> None:
    observed, predicted = profiles()
    with pytest.raises(InputError, match="0 genes x 20 conditions"):
        ProfileExplorer(observed.iloc[:0], {})
    with pytest.raises(InputError, match="no b0011 in what model predicts"):
        ProfileExplorer(observed, {"model": predicted.iloc[:-1]})
    same = ProfileExplorer(observed, {"model": predicted.iloc[::-1, ::-1]})
    same = same.figure_at(gene="b0003")
    shown = trace(same, "model").y
    np.testing.assert_allclose(shown, np.round(predicted.loc["b0003"], 2))
    few = ProfileExplorer(observed.iloc[:, :3], {}).figure
    assert few.layout.xaxis2.ticktext == ("condition 0", "condition 1", "condition 2")


def test_map_is_coloured_by_numbers_and_by_categories() -> None:
    explorer = EXPLORERS["scatter"]
    observed, _ = profiles()
    marker = explorer.figure_at(column="level").data[0].marker
    np.testing.assert_allclose(marker.color, observed.mean(axis=1), rtol=1e-6)
    assert marker.cmin == pytest.approx(observed.mean(axis=1).min())
    points = explorer.figure_at(column="fold").data[0]
    assert points.marker.colorbar.ticktext == (*(f"fold {i}" for i in range(6)), "other")
    assert points.marker.color.tolist() == [i % 8 if i % 8 < 6 else 6 for i in range(12)]
    scale = points.marker.colorscale
    assert [stop[0] for stop in scale][::2] == pytest.approx([i / 7 for i in range(7)])
    assert scale[0][1] == scale[1][1] != scale[2][1]
    assert len({stop[1] for stop in scale}) == 7
    assert points.hovertext[1].startswith(safe(HOSTILE))
    assert np.isnan(explorer.figure.data[1].x[0])
    marked = explorer.figure_at(find="genD (b0003)")
    assert (marked.data[1].x[0], marked.data[1].text) == (points.x[3], ("genD (b0003)",))


def test_a_name_of_a_site_that_would_cover_another_is_left_to_the_mouse() -> None:
    values = pd.DataFrame(np.ones((1, 200)), index=["g"], columns=np.arange(-100, 100))
    sites = pd.DataFrame({"gene_id": "g", "start": range(-90, -78, 2), "end": range(-60, -48, 2)})
    sites["name"] = [f"Regulator{i}" for i in range(6)]
    explorer = AttributionExplorer(values, ["A" * 200], motifs=sites)
    names = trace(explorer.figure_at(gene="g"), "names of sites")
    assert list(names.hovertext) == sites["name"].to_list()
    assert list(names.text) == [*sites["name"][:3], "", "", ""]
    apart = AttributionExplorer(values, ["A" * 200], motifs=sites, window_bp=10)
    assert "" not in trace(apart.figure_at(gene="g"), "names of sites").text
    figure = EXPLORERS["scan"].figure
    assert figure.data[8].colorbar.title.text == "log ratio"


def test_map_takes_gaps_and_refuses_what_is_missing() -> None:
    points = pd.DataFrame({"x": [0.0, 1.0], "y": [0.0, 1.0]}, index=["a", "b"])
    columns = pd.DataFrame({"n": [np.nan, 1.0], "c": [None, "k"], "b": [True, False]}, points.index)
    explorer = ScatterExplorer(points, columns)
    for column, ticks in (("c", ("k", "unknown")), ("b", ("False", "True"))):
        assert explorer.figure_at(column=column).data[0].marker.colorbar.ticktext == ticks
    assert explorer.figure_at(column="n").data[0].marker.cmax == 2.0
    with pytest.raises(InputError, match="no row for b in columns"):
        ScatterExplorer(points, columns.iloc[:1])
    with pytest.raises(InputError, match="2 points, 2 coordinates, 0 columns"):
        ScatterExplorer(points, columns[[]])


def test_attributions_base_by_base() -> None:
    explorer = EXPLORERS["attribution"]
    labels = gene_labels(GENES[:4], NAMES)
    for sequence, label in zip(SEQUENCES, labels, strict=True):
        overview, bars = explorer.figure_at(gene=label).data[:2]
        assert list(bars.text) == list(sequence)
        assert list(bars.marker.color) == [BASE_COLOURS[b] for b in sequence]
        np.testing.assert_array_equal(overview.y, bars.y)
        assert bars.x.dtype == np.float64
    windows = explorer.controls["window"].options
    assert (windows[0], windows[-1]) == ("-80 to -21", "-40 to +19")
    for option in windows:
        low, high = (float(word) for word in option.split(" to "))
        layout = explorer.figure_at(window=option).layout
        assert layout.xaxis2.range == (low - 0.5, high + 0.5)
        assert high - low + 1 == 60
        assert (layout.shapes[0].x0, layout.shapes[0].x1) == (low - 0.5, high + 0.5)
    # Half-open -35 to -29 covers bases -35 … -30, so half a base beyond them on either side.
    figure = explorer.figure_at(gene=labels[0])
    strokes = [(list(x), list(y)) for x, y in polygons(trace(figure, "sites"))]
    assert strokes == [([-35.5, -29.5], [0, 0]), ([-33.5, -20.5], [-1, -1])]
    assert trace(figure, "names of sites").text == ("-35", short(HOSTILE, 24))
    assert trace(explorer.figure_at(gene=labels[1]), "names of sites").text == ()
    assert explorer.figure.layout.annotations[0].text.endswith("delta 0.01")


def test_conservation_and_columns_follow_the_gene_under_its_bars() -> None:
    explorer = EXPLORERS["attribution"]
    for at, label in enumerate(explorer.controls["gene"].options):
        figure, found = explorer.figure_at(gene=label), conservation(100, at)
        for group, name in ((0, "near"), (2, "far")):
            pale, dark = (
                trace(figure, f"{name} relatives that {what}")
                for what in ("are aligned", "have this base")
            )
            assert list(pale.y) == found.aligned[:, group].tolist()
            assert list(dark.y) == found.same[:, group].tolist()
            assert list(pale.x) == list(dark.x) == list(range(-80, 20))
    assert not [one.name for one in explorer.figure.data if "middle" in str(one.name)]
    first, second = (
        trace(explorer.figure_at(gene=label), "alignment columns").y
        for label in explorer.controls["gene"].options[:2]
    )
    assert list(first) != list(second)
    layout = explorer.figure.layout
    panels = [layout.yaxis, layout.yaxis2, layout.yaxis3, layout.yaxis4, layout.yaxis5]
    assert panels[0].domain[1] == 1
    for upper, lower in itertools.pairwise(panels):
        assert upper.domain[0] > lower.domain[1]
    assert layout.xaxis2.anchor == "y5"
    assert [list(one.ticktext) for one in panels[3:]] == [["near"], ["far"]]
    assert [one.range for one in panels[3:]] == [(0, 3), (0, 5)]
    assert not layout.xaxis2.title.text.endswith("no relatives")
    assert EXPLORERS["scan"].figure.layout.xaxis2.title.text.endswith("no relatives")
    scanned = ScanExplorer(*scan(["b0000"]), conservation=[conservation(80)]).figure
    names = ("yaxis2", "yaxis3", "yaxis4", "yaxis5", "yaxis6")
    panels = [scanned.layout[name].domain for name in names]
    panels.append(next(one for one in scanned.data if one.type == "table").domain.y)
    assert all(upper[0] > lower[1] for upper, lower in itertools.pairwise(panels))
    assert scanned.layout.xaxis2.anchor == "y6"


def test_a_score_is_one_area_in_its_usual_range() -> None:
    table = pd.DataFrame(np.ones((2, 50)), index=["a", "b"], columns=range(50))
    none, values = np.zeros((50, 0)), np.random.default_rng(1).normal(0, 3, (2, 50))
    found = [Conservation({}, none, none, one, (HOSTILE, -2.0, 4.0)) for one in values]
    explorer = AttributionExplorer(table, ["ACGTA" * 10] * 2, conservation=found)
    for label, own in zip(explorer.controls["gene"].options, values, strict=True):
        figure = explorer.figure_at(gene=label)
        assert list(figure.data[-1].y) == np.clip(own, -2, 4).astype(np.float32).tolist()
        assert list(figure.data[-1].x) == list(range(50))
    axis = explorer.figure.layout.yaxis3
    assert (axis.range, list(axis.ticktext)) == ((-2, 4), [short(HOSTILE, 12)])
    assert "<img" not in explorer.figure.to_json()
    assert not explorer.figure.layout.xaxis2.title.text.endswith("no relatives")


def test_attributions_of_short_sequences_and_wrong_ones() -> None:
    table = pd.DataFrame(np.ones((1, 5)), index=["a"], columns=range(5))
    tiny = AttributionExplorer(table, ["ANTrN"])
    assert tiny.controls["window"].options == ("+0 to +4",)
    assert list(tiny.figure.data[1].text) == ["A", "N", "T", "N", "N"]
    for sequences, change, match in (
        (["ACGT"], {}, r"1 sequences of \[4\] bp, expected 1 of 5"),
        (["ACGTA"] * 2, {}, "2 sequences"),
        (["ACGTA"], {"window_bp": 0}, "a window of 0 bp"),
    ):
        with pytest.raises(InputError, match=match):
            AttributionExplorer(table, sequences, **change)
    with pytest.raises(InputError, match="positions that are not one apart"):
        AttributionExplorer(table.set_axis([0, 1, 2, 3, 5], axis=1), ["ACGTA"])
    with pytest.raises(InputError, match="1 genes x 0 positions"):
        AttributionExplorer(table.iloc[:, :0], [""])


def test_a_scan_shows_letters_substitutions_and_the_strongest_of_each_gene() -> None:
    scans, hexamers = scan(["b0000", "b0003"])
    for gene, label in (("b0000", "genA (b0000)"), ("b0003", "genD (b0003)")):
        figure = EXPLORERS["scan"].figure_at(gene=label)
        mine = scans[scans["gene_id"] == gene].set_index("position_bp")
        ratios = mine[["to_A", "to_C", "to_G", "to_T"]]
        mean = -ratios.sum(axis=1) / 3
        letters = {}
        for base in "ACGT":
            for x, y in polygons(trace(figure, base)):
                letters[round((x.min() + x.max()) / 2)] = (base, y[np.argmax(abs(y))])
        assert {p: base for p, (base, _) in letters.items()} == mine["ref"].to_dict()
        for position, (_, height) in letters.items():
            assert height == pytest.approx(mean[position], abs=1e-4)
        heat = trace(figure, "substitutions")
        for x, y, z in zip(heat.x, heat.y, heat.z, strict=True):
            assert z == pytest.approx(ratios.loc[x, f"to_{y}"], abs=1e-3)
        rows = list(zip(*figure.data[-1].cells["values"], strict=True))
        ordered = ratios.stack().sort_values()
        assert len(rows) == 8
        for (at, change, value), ((position, to), ratio) in zip(
            rows, ordered.items(), strict=False
        ):
            expected = (f"{position:+d}", f"{mine['ref'][position]} → {to[-1]}", f"{ratio:.2f}")
            assert (at, change, value) == expected
        assert list(trace(figure, "sites").x[:2]) == [-35.5, -29.5]
    uneven = scans[(scans["gene_id"] == "b0000") | (scans["position_bp"] > -10)]
    short_one = ScanExplorer(uneven, hexamers).figure_at(gene="b0003")
    assert list(short_one.data[1].text[:50]) == ["N"] * 50
    with pytest.raises(InputError, match="160 of 320 rows of scans repeat a gene_id and position"):
        ScanExplorer(pd.concat([scans, scans]), hexamers)
    with pytest.raises(InputError, match="expected also to_T"):
        ScanExplorer(scans.drop(columns="to_T"), hexamers)


def test_context_metric_by_metric_and_control_by_control() -> None:
    scores, slopes = context()
    explorer = EXPLORERS["context"]
    for metric in ("level_r2", "profile_r"):
        figure = explorer.figure_at(metric=metric)
        mine = scores[scores["metric"] == metric]
        line, band = trace(figure, "score"), trace(figure, "interval")
        np.testing.assert_allclose([line.x, line.y], mine[["context_bp", "value"]].T)
        np.testing.assert_allclose(band.y, [*mine["ci_high"], *mine["ci_low"][::-1]])
        dots = trace(figure, "slope")
        steps = slopes[slopes["metric"] == metric]
        assert [one.strip() for one in dots.y] == [short(one, 20) for one in steps["source"]]
        assert list(dots.text) == list(steps["answer"])
        np.testing.assert_allclose(dots.x, steps["slope"])
        np.testing.assert_allclose(dots.x - dots.error_x.arrayminus, steps["ci_low"])
        np.testing.assert_allclose(dots.x + dots.error_x.array, steps["ci_high"])
        assert figure.layout.yaxis.title.text == metric.replace("_", " ")
    assert {shape.x0 for shape in explorer.figure.layout.shapes} == {0, 0.01}
    left, right = (explorer.figure.layout[axis].domain for axis in ("xaxis", "xaxis2"))
    assert right[0] - left[1] >= 0.19, "names of controls stand between the panels"
    assert explorer.figure.layout.annotations[1].x == right[0]
    with pytest.raises(InputError, match="1 of 7 rows of scores repeat a metric and context_bp"):
        ContextExplorer(pd.concat([scores, scores.iloc[:1]]), slopes, 0.01)
    with pytest.raises(InputError, match="expected also answer"):
        ContextExplorer(scores, slopes.drop(columns="answer"), 0.01)


FRACTION = np.linspace(0, 1, 5)


def curve(shift: float) -> pd.DataFrame:
    columns = ("deletion", "insertion", "random_deletion", "random_insertion")
    lines = {column: FRACTION + shift * i for i, column in enumerate(columns)}
    return pd.DataFrame({"fraction": FRACTION} | lines)


def test_curves_follow_the_gene() -> None:
    names = pd.Series({"b1": "one", "b2": "two"})
    explorer = CurveExplorer({"b1": curve(0.1), "b2": curve(0.2)}, names=names)
    figure = explorer.figure_at(gene="two (b2)")
    for panel, column in (("x", "deletion"), ("x2", "insertion")):
        for name, prefix in (("by attribution", ""), ("in random order", "random_")):
            (one,) = [t for t in figure.data if (t.xaxis, t.name) == (panel, name)]
            np.testing.assert_allclose(one.y, curve(0.2)[prefix + column], atol=1e-4)
            np.testing.assert_array_equal(one.x, FRACTION)
    with pytest.raises(InputError, match="0 genes with curves"):
        CurveExplorer({})
    with pytest.raises(InputError, match="other fractions for b2"):
        CurveExplorer({"b1": curve(0.1), "b2": curve(0.1).assign(fraction=FRACTION * 2)})


def attention() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for gene, position in itertools.product(("b1", "b2"), (-64, 0)):
        for (level, size), head in itertools.product((("bins", 16), ("regions", 1024)), range(2)):
            for token, weight in enumerate(rng.dirichlet(np.ones(4))):
                start = (token - 2) * size
                rows.append((gene, position, level, 0, head, start, start + size, weight))
    columns = ["gene_id", "position_bp", "level", "layer", "head", "start_bp", "end_bp", "weight"]
    return pd.DataFrame(rows, columns=columns)


def test_attention_is_shown_as_it_is_and_heads_are_averaged() -> None:
    table = attention()
    rolled = [
        (gene, path, start, start + 16, 1 / 96)
        for gene in ("b1", "b2")
        for path in ("bins", "summaries", "regions")
        for start in range(-256, 256, 16)
    ]
    rolled = pd.DataFrame(rolled, columns=["gene_id", "path", "start_bp", "end_bp", "weight"])
    heads = pd.DataFrame([("b2", "regions", 0, 1, -0.25)],
                         columns=["gene_id", "level", "layer", "head", "effect"])  # fmt: skip
    explorer = AttentionExplorer(table, rolled, heads=heads)
    choice = {"gene": "b2", "level": "regions, layer 1", "position": "-64"}
    mine = table.query("gene_id == 'b2' and level == 'regions' and position_bp == -64")
    one = explorer.figure_at(**choice, head="head 2")
    bars = trace(one, "attention")
    np.testing.assert_allclose(bars.y, mine[mine["head"] == 1]["weight"], atol=1e-5)
    np.testing.assert_allclose(bars.x, [-1536, -512, 512, 1536])
    assert bars.width == 1024
    assert "changes by -0.250" in one.layout.annotations[0].text
    mean = explorer.figure_at(**choice, head="mean of heads")
    expected = mine.groupby("start_bp")["weight"].mean()
    np.testing.assert_allclose(trace(mean, "attention").y, expected, atol=1e-5)
    assert mean.layout.shapes[0].x0 == -64
    pooled = [trace(mean, f"through {path}").y for path in ("bins", "summaries", "regions")]
    np.testing.assert_allclose(pooled, 8 / 96, atol=1e-5)  # eight of 16 bp in a pool of 128
    with pytest.raises(InputError, match="no attention for"):
        AttentionExplorer(table.iloc[:-4], rolled)


# ---- tracks


def test_tracks_are_drawn_bin_by_bin_upwards_and_downwards() -> None:
    explorer, bins = EXPLORERS["tracks"], tracks()[0]
    assert explorer.controls["track"].options == ("chip", HOSTILE)
    for locus, label in (("b0000", "genA (b0000)"), ("b0001", f"{HOSTILE} (b0001)")):
        for track in ("chip", HOSTILE):
            figure = explorer.figure_at(gene=label, track=track)
            mine = bins[(bins["locus"] == locus) & (bins["track"] == track)]
            for first, sign, strands in ((0, 1, ".+"), (2, -1, "-")):
                part = mine[mine["strand"].isin(list(strands))]
                for at, what in ((first, "measured"), (first + 1, "predicted")):
                    drawn = figure.data[at]
                    assert drawn.name == what
                    np.testing.assert_array_equal(drawn.x, part["start"] + 64)
                    np.testing.assert_array_equal(drawn.y, sign * part[what])
                    np.testing.assert_array_equal(drawn.customdata, part[what])
            known = mine.dropna()
            text = figure.layout.annotations[0].text
            assert ("− strand downwards" in text) == (track == HOSTILE)
            held = [x for x in figure.data[6].x if np.isfinite(x)]
            if locus == "b0001":
                assert "none held out" in text
                assert held == []
            else:
                r = np.corrcoef(known["measured"], known["predicted"])[0, 1]
                assert f"r = {r:.2f} over {len(known)} held-out bins" in text
                assert held == [-1000 + 8 * 128, -1000 + 16 * 128]


def test_genes_of_a_locus_lie_on_their_strand_and_end_in_an_arrow() -> None:
    explorer = EXPLORERS["tracks"]
    figure = explorer.figure_at(gene="genA (b0000)")
    others, own, ends = figure.data[4], figure.data[5], figure.data[7]
    reach = max(abs(tracks()[0]["start"]))
    assert [*own.x[:2], *own.y[:2]] == [0, 700, 0, 0]
    assert [*others.x[:2], *others.y[:2]] == [650, reach, -1, -1]
    assert [*ends.x, *ends.y] == [700, 650, 0, -1]
    assert list(ends.marker.symbol) == ["triangle-right", "triangle-left"]
    assert figure.data[8].text[0] == "genA"


def test_tracks_that_say_nothing_or_twice_are_refused() -> None:
    bins, genes = tracks()
    with pytest.raises(InputError, match="repeat a locus and track and strand and start"):
        TrackExplorer(pd.concat([bins, bins]), genes)
    with pytest.raises(InputError, match="also predicted"):
        TrackExplorer(bins.drop(columns="predicted"), genes)
    flat = TrackExplorer(bins.assign(predicted=1.0), genes)
    assert "flat over" in flat.figure.layout.annotations[0].text

"""Checks and their limits: lights with words, the worst first, every number to be found."""

import numpy as np
import pandas as pd
import pytest

from genesplice.errors import InputError
from genesplice.show.figures import completeness_bars, leakage_table

# ---- completeness_bars


@pytest.fixture
def relative() -> pd.Series:
    return pd.Series({"g1": 0.01, "g2": -0.20, "g3": 0.05, "g4": 0.07})


@pytest.fixture
def delta() -> pd.Series:
    return pd.Series({"g4": 0.5, "g3": 0.1, "g2": -0.9, "g1": 0.02})


def parts(figure) -> dict:
    return {trace.name: trace for trace in figure.data}


def labels(figure) -> list[str]:
    return list(figure.layout.yaxis.ticktext)


def test_genes_are_parted_at_the_limit_and_the_limit_is_within(delta, relative):
    found = parts(completeness_bars(delta, relative))
    assert list(found["beyond the limit"].hovertext) == ["g2", "g4"]
    assert list(found["within the limit"].hovertext) == ["g3", "g1"]
    np.testing.assert_array_equal(found["beyond the limit"].x, [0.20, 0.07])
    np.testing.assert_array_equal(found["within the limit"].x, [0.05, 0.01])


def test_hover_has_the_miss_of_the_same_gene(delta, relative):
    found = parts(completeness_bars(delta, relative))
    assert list(found["beyond the limit"].customdata) == [-0.9, 0.5]
    assert list(found["within the limit"].customdata) == [0.1, 0.02]
    assert "log₂(TPM+1)" in found["within the limit"].hovertemplate


def test_the_worst_gene_is_on_top_beside_its_bar(delta, relative):
    figure = completeness_bars(delta, relative)
    assert labels(figure) == ["g2", "g4", "g3", "g1"]
    low, high = figure.layout.yaxis.range
    assert low > high
    at = dict(zip(figure.layout.yaxis.tickvals, labels(figure), strict=True))
    for trace in figure.data:
        assert [at[y] for y in trace.y] == list(trace.hovertext)


def test_the_line_stands_at_the_limit(delta, relative):
    figure = completeness_bars(delta, relative, threshold=0.15)
    line = figure.layout.shapes[0]
    assert line.x0 == line.x1 == 0.15
    assert figure.layout.annotations[0].text == "limit 15.0%"
    assert list(parts(figure)["beyond the limit"].hovertext) == ["g2"]


def test_the_limit_is_in_view_even_when_all_genes_are_far_below(delta, relative):
    low, high = completeness_bars(delta, relative / 1000).layout.xaxis.range
    assert low == 0
    assert high > 0.05


def test_being_beyond_is_hatched_as_well_as_coloured(delta, relative):
    found = parts(completeness_bars(delta, relative))
    inside, beyond = found["within the limit"].marker, found["beyond the limit"].marker
    assert inside.color != beyond.color
    assert beyond.pattern.shape == "/"
    assert not inside.pattern.shape


def test_the_subtitle_counts_what_is_within(delta, relative):
    title = completeness_bars(delta, relative).layout.title.text
    assert "2 of 4 genes within 5.0% of the prediction" in title


def test_both_parts_are_there_when_one_is_empty(delta, relative):
    found = parts(completeness_bars(delta, relative * 0))
    assert len(found["beyond the limit"].x) == 0
    assert len(found["within the limit"].x) == 4


def test_names_are_labels_beside_ids(delta, relative):
    figure = completeness_bars(delta, relative, names=pd.Series({"g2": "<lacZ>", "g9": "x"}))
    assert labels(figure) == ["&lt;lacZ&gt; (g2)", "g4", "g3", "g1"]


def test_many_genes_are_drawn_without_labels_in_less_room():
    series = pd.Series(0.01, index=[f"g{i:03d}" for i in range(61)])
    crowded = completeness_bars(series, series)
    assert not crowded.layout.yaxis.ticktext
    assert crowded.layout.yaxis.title.text == "genes"
    roomy = completeness_bars(series[:60], series[:60])
    assert len(labels(roomy)) == 60
    assert crowded.layout.height < roomy.layout.height


def test_completeness_order_has_no_influence(delta, relative):
    first = completeness_bars(delta, relative).to_json()
    assert completeness_bars(delta[::-1], relative[::-1]).to_json() == first


def test_bad_completeness_is_refused(delta, relative):
    with pytest.raises(InputError, match="0 values of delta"):
        completeness_bars(delta[:0], relative[:0])
    with pytest.raises(InputError, match="found 4 genes of delta, expected 3 as in both series"):
        completeness_bars(delta, relative[:3])
    with pytest.raises(InputError, match="found 4 genes of relative delta, expected 3"):
        completeness_bars(delta[:3], relative)
    with pytest.raises(InputError, match="1 of 4 values of relative delta not finite"):
        completeness_bars(delta, relative.replace(0.01, np.inf))


# ---- leakage_table


def check(name: str, status: str, **fields) -> dict:
    return {
        "check": name,
        "value": 0.0,
        "unit": "share of genes",
        "threshold": "red above 0",
        "status": status,
        "why": "because",
    } | fields


@pytest.fixture
def leakage() -> dict:
    return {
        "status": "red",
        "checks": [
            check("operon_mates", "green"),
            check("copies", "amber", value=0.02345),
            check("relatives", "green", value=12345, unit="genes", threshold=None),
            check("samples", "red", value=None),
        ],
    }


def cells(figure) -> list[tuple[str, str]]:
    return list(zip(*figure.data[0].cells["values"], strict=True))


def test_checks_are_drawn_worst_first_otherwise_in_their_order(leakage):
    names = [text.split("</b>")[0].removeprefix("<b>") for _, text in cells(leakage_table(leakage))]
    assert names == ["samples", "copies", "operon mates", "relatives"]


def test_a_light_has_a_word_and_a_shape_beside_its_colour(leakage):
    figure = leakage_table(leakage)
    assert [status for status, _ in cells(figure)] == [
        "<b>■ red</b>",
        "<b>▲ amber</b>",
        "<b>● green</b>",
        "<b>● green</b>",
    ]
    colours = figure.data[0].cells.fill.color[0]
    assert len(set(colours)) == 3
    assert colours[2] == colours[3]


def test_each_check_has_value_unit_limit_and_reason(leakage):
    found = [text for _, text in cells(leakage_table(leakage))]
    assert found == [
        "<b>samples</b>: not measured; limit: red above 0. Why: because",
        "<b>copies</b>: 0.02345 share of genes; limit: red above 0. Why: because",
        "<b>operon mates</b>: 0 share of genes; limit: red above 0. Why: because",
        "<b>relatives</b>: 12,345 genes. Why: because",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, "0.1235 u"),
        (1234567.0, "1,234,567 u"),
        (np.float32(0.5), "0.5 u"),
        (np.int64(4200), "4,200 u"),
        (True, "True u"),
        ("none stated", "none stated u"),
        (float("nan"), "not measured"),
        (None, "not measured"),
    ],
)
def test_values_are_rounded_but_never_left_out(value, shown):
    one = {"status": "green", "checks": [check("c", "green", value=value, unit="u")]}
    assert cells(leakage_table(one))[0][1].startswith(f"<b>c</b>: {shown};")


def test_the_overall_light_is_in_the_subtitle(leakage):
    assert "overall: ■ red" in leakage_table(leakage).layout.title.text


def test_longer_reasons_get_more_room(leakage):
    short = leakage_table(leakage).layout.height
    leakage["checks"][0]["why"] = "word " * 60
    longer = leakage_table(leakage).layout.height
    assert longer - short >= 17 * (300 // 39 - 1)


def test_checks_are_shown_not_interpreted(leakage):
    leakage["checks"] = [check("<b>&", "green", value="<i>", why="<script>", unit="%{x}")]
    text = cells(leakage_table(leakage))[0][1]
    assert text.startswith("<b>&lt;b&gt;&amp;</b>: &lt;i&gt; &#37;{x}")
    assert "&lt;script&gt;" in text


def test_the_leakage_is_left_as_it_was(leakage):
    before = [dict(check) for check in leakage["checks"]]
    leakage_table(leakage)
    assert leakage["checks"] == before


def test_a_real_leakage_is_drawn(tiny_bundle):
    figure = leakage_table(tiny_bundle.leakage)
    assert len(cells(figure)) == len(tiny_bundle.leakage["checks"])


def test_bad_leakages_are_refused(leakage):
    with pytest.raises(InputError, match="leakage checks with columns none"):
        leakage_table({"status": "green"})
    with pytest.raises(InputError, match="leakage checks with columns none"):
        leakage_table({"status": "green", "checks": []})
    with pytest.raises(InputError, match="status 'None' in the leakage, expected green"):
        leakage_table({"checks": leakage["checks"]})
    with pytest.raises(InputError, match="status 'yellow' in the leakage"):
        leakage_table({"status": "red", "checks": [check("c", "yellow")]})
    broken = [{k: v for k, v in check("c", "red").items() if k != "why"}]
    with pytest.raises(InputError, match="expected also why"):
        leakage_table({"status": "red", "checks": broken})

"""One point a gene: every gene where its numbers say, the crowd and the groups counted."""

import re

import numpy as np
import pandas as pd
import pytest

from genesplice.errors import InputError
from genesplice.show.figures import embedding_map, predicted_observed
from genesplice.show.theme import GREY, OKABE_ITO, SYMBOLS


@pytest.fixture
def predictions() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    observed = rng.uniform(0, 14, 80)
    return pd.DataFrame(
        {
            "gene_id": [f"b{i:02d}" for i in range(80)],
            "observed": observed,
            "predicted": 3 + 0.5 * observed + rng.normal(0, 1, 80),
            "fold": np.arange(80) % 5,
        }
    )


def gene_of(text: str) -> str:
    return re.search(r"\((.*?)\)", text).group(1)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of values without ties."""
    out = np.empty(len(values))
    for rank, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        out[i] = rank
    return out


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / np.sqrt((x @ x) * (y @ y)))


# ---- predicted_observed


def test_each_gene_stands_at_its_two_levels(predictions):
    points = predicted_observed(predictions).data[0]
    drawn = pd.DataFrame(
        {"observed": points.x, "predicted": points.y}, index=[gene_of(t) for t in points.text]
    )
    expected = predictions.set_index("gene_id")
    np.testing.assert_array_equal(drawn["observed"], expected.loc[drawn.index, "observed"])
    np.testing.assert_allclose(
        drawn["predicted"], expected.loc[drawn.index, "predicted"], rtol=1e-6
    )
    assert set(drawn.index) == set(expected.index)


def test_colour_counts_the_genes_nearby(predictions):
    points = predicted_observed(predictions).data[0]
    table = predictions.set_index("gene_id")
    for text, count in zip(points.text, points.marker.color, strict=True):
        here = table.loc[gene_of(text)]
        near = 0
        for other in table.itertuples():
            d2 = (other.observed - here.observed) ** 2 + (other.predicted - here.predicted) ** 2
            near += d2 <= 0.3**2
        assert count == near


def test_crowded_points_lie_on_top(predictions):
    crowd = predicted_observed(predictions).data[0].marker.color
    assert list(crowd) == sorted(crowd)


def test_the_subtitle_has_the_three_numbers(predictions):
    x, y = predictions["observed"].to_numpy(), predictions["predicted"].to_numpy()
    r2 = 1 - sum((x - y) ** 2) / sum((x - x.mean()) ** 2)
    title = predicted_observed(predictions).layout.title.text
    assert f"Spearman {pearson(ranks(x), ranks(y)):.3f}" in title
    assert f"Pearson {pearson(x, y):.3f}" in title
    assert f"R² {r2:.3f}" in title
    assert "80 genes" in title


def test_a_perfect_prediction_lies_on_the_line(predictions):
    figure = predicted_observed(predictions.assign(predicted=predictions["observed"]))
    assert "Spearman 1.000, Pearson 1.000" in figure.layout.title.text
    np.testing.assert_allclose(figure.data[0].x, figure.data[0].y, rtol=1e-6)


def test_the_identity_line_crosses_the_whole_square(predictions):
    figure = predicted_observed(predictions)
    line = figure.data[1]
    np.testing.assert_array_equal(line.x, line.y)
    assert list(line.x) == list(figure.layout.xaxis.range) == list(figure.layout.yaxis.range)
    assert line.x[0] < predictions[["observed", "predicted"]].min().min()
    assert line.x[1] > predictions[["observed", "predicted"]].max().max()


def test_both_axes_have_one_scale_and_units(predictions):
    layout = predicted_observed(predictions).layout
    assert layout.yaxis.scaleanchor == "x"
    assert layout.xaxis.title.text == "observed level, log₂(TPM+1)"
    assert layout.yaxis.title.text == "predicted level, log₂(TPM+1)"


@pytest.mark.parametrize("column", ["observed", "predicted"])
def test_flat_values_have_no_correlation(predictions, column):
    title = predicted_observed(predictions.assign(**{column: 5.0})).layout.title.text
    assert "Spearman" not in title
    assert "80 genes" in title


def test_a_single_gene_is_drawn(predictions):
    figure = predicted_observed(predictions.iloc[:1].assign(predicted=lambda t: t["observed"]))
    assert len(figure.data[0].x) == 1
    low, high = figure.layout.xaxis.range
    assert low < figure.data[0].x[0] < high


def test_names_and_folds_are_on_hover(predictions):
    named = predicted_observed(predictions.assign(name="<lacZ>"))
    by_gene = {gene_of(text): text for text in named.data[0].text}
    assert by_gene["b07"] == "<b>&lt;lacZ&gt;</b> (b07), fold 2"
    plain = {gene_of(text): text for text in predicted_observed(predictions).data[0].text}
    assert plain["b07"] == "<b>b07</b> (b07), fold 2"


def test_prediction_order_has_no_influence(predictions):
    first = predicted_observed(predictions).to_json()
    assert predicted_observed(predictions.sample(frac=1, random_state=4)).to_json() == first


def test_bad_predictions_are_refused(predictions):
    with pytest.raises(InputError, match="0 rows in predictions"):
        predicted_observed(predictions.iloc[:0])
    with pytest.raises(InputError, match="also fold"):
        predicted_observed(predictions.drop(columns="fold"))
    with pytest.raises(InputError, match="found 81 rows of predictions, expected 80"):
        predicted_observed(pd.concat([predictions, predictions.iloc[:1]]))
    predictions.loc[0, "predicted"] = np.nan
    with pytest.raises(InputError, match="1 of 80 values of predicted not finite"):
        predicted_observed(predictions)


# ---- embedding_map


@pytest.fixture
def xy() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "gene_id": list("abcdef"),
            "x": [0.0, 1, 2, 3, 4, 5],
            "y": [5.0, 4, 3, 2, 1, 0],
            "group": ["big", "big", "big", "two", "two", "one"],
        }
    )


def test_each_gene_is_drawn_once_in_its_group(xy):
    drawn = {
        gene_of(text): (trace.name, x, y)
        for trace in embedding_map(xy).data
        for text, x, y in zip(trace.text, trace.x, trace.y, strict=True)
    }
    assert drawn == {
        "a": ("big (3)", 0, 5),
        "b": ("big (3)", 1, 4),
        "c": ("big (3)", 2, 3),
        "d": ("two (2)", 3, 2),
        "e": ("two (2)", 4, 1),
        "f": ("one (1)", 5, 0),
    }


def test_groups_differ_in_colour_and_symbol_the_largest_first(xy):
    traces = embedding_map(xy).data
    assert [trace.name for trace in traces] == ["big (3)", "two (2)", "one (1)"]
    assert [trace.marker.color for trace in traces] == list(OKABE_ITO[:3])
    assert [trace.marker.symbol for trace in traces] == list(SYMBOLS[:3])


def test_groups_of_one_size_are_sorted_by_name(xy):
    figure = embedding_map(xy.assign(group=list("zzyyxx")))
    assert [trace.name for trace in figure.data] == ["x (2)", "y (2)", "z (2)"]


def test_small_groups_become_other_in_grey_beneath(xy):
    traces = embedding_map(xy, max_groups=1).data
    assert [trace.name for trace in traces] == ["other (3)", "big (3)"]
    assert traces[0].marker.color == GREY
    assert {text.split("<br>")[1] for text in traces[0].text} == {"two", "one"}


def test_genes_without_a_group_are_other(xy):
    figure = embedding_map(xy.assign(group=["big", "big", "big", None, np.nan, "one"]))
    assert [trace.name for trace in figure.data] == ["other (2)", "big (3)", "one (1)"]
    assert all(text.endswith("no group") for text in figure.data[0].text)


def test_groups_may_be_numbers_or_categories(xy):
    numbers = embedding_map(xy.assign(group=[1, 1, 1, 0, 0, 2]))
    assert [trace.name for trace in numbers.data] == ["1 (3)", "0 (2)", "2 (1)"]
    categories = embedding_map(xy.assign(group=xy["group"].astype("category")))
    assert categories.to_json() == embedding_map(xy).to_json()


def test_axes_are_named(xy):
    layout = embedding_map(xy, axes=("PC 1 (31 %)", "<PC 2>")).layout
    assert layout.xaxis.title.text == "PC 1 (31 %)"
    assert layout.yaxis.title.text == "&lt;PC 2&gt;"


def test_groups_and_names_are_shown_not_interpreted(xy):
    trace = embedding_map(xy.assign(group="<g>", name="<n>")).data[0]
    assert trace.name == "&lt;g&gt; (6)"
    assert trace.text[0] == "<b>&lt;n&gt;</b> (a)<br>&lt;g&gt;"


def test_embedding_order_has_no_influence(xy):
    first = embedding_map(xy).to_json()
    assert embedding_map(xy.sample(frac=1, random_state=2)).to_json() == first


def test_bad_embeddings_are_refused(xy):
    with pytest.raises(InputError, match="0 rows in xy"):
        embedding_map(xy.iloc[:0])
    with pytest.raises(InputError, match="also group"):
        embedding_map(xy.drop(columns="group"))
    with pytest.raises(InputError, match="1 of 6 values of y not finite"):
        embedding_map(xy.replace({"y": {0.0: np.inf}}))
    for n in (0, 9):
        with pytest.raises(InputError, match=f"max_groups {n}, expected 1 to 8"):
            embedding_map(xy, max_groups=n)

"""Expression across conditions: the heat map keeps every value, the profile every pair."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import leaves_list, linkage

from genesplice.errors import InputError
from genesplice.show.figures import condition_heatmap, profile


@pytest.fixture
def residual() -> pd.DataFrame:
    """Twelve genes in two groups over eight conditions, dealt in turn."""
    rng = np.random.default_rng(0)
    up = np.where(np.arange(8) % 2 == 0, 3.0, -3.0)
    rows = [(up if i % 2 == 0 else -up) + rng.normal(0, 0.2, 8) for i in range(12)]
    return pd.DataFrame(
        rows, index=[f"g{i:02d}" for i in range(12)], columns=[f"c{i}" for i in range(8)]
    )


def drawn(figure) -> pd.DataFrame:
    heat = figure.data[0]
    return pd.DataFrame(heat.z, index=list(heat.y), columns=list(heat.x))


# ---- condition_heatmap


def test_every_cell_holds_its_own_value(residual):
    table = drawn(condition_heatmap(residual))
    assert sorted(table.index) == sorted(residual.index)
    assert sorted(table.columns) == sorted(residual.columns)
    pd.testing.assert_frame_equal(
        table.loc[residual.index, residual.columns], residual.astype(np.float32), check_names=False
    )


def test_alike_genes_and_conditions_are_neighbours(residual):
    table = drawn(condition_heatmap(residual))
    groups = [int(gene[1:]) % 2 for gene in table.index]
    halves = [int(condition[1:]) % 2 for condition in table.columns]
    assert sum(a != b for a, b in itertools.pairwise(groups)) == 1
    assert sum(a != b for a, b in itertools.pairwise(halves)) == 1


def test_optimal_leaves_lie_closer_than_those_of_the_tree(residual):
    rng = np.random.default_rng(1)
    noise = pd.DataFrame(rng.normal(size=(30, 6)), index=[f"g{i:02d}" for i in range(30)])
    noise.columns = list("abcdef")
    values = noise.to_numpy()

    def path(order):
        return sum(np.linalg.norm(values[a] - values[b]) for a, b in itertools.pairwise(order))

    ours = [noise.index.get_loc(gene) for gene in drawn(condition_heatmap(noise)).index]
    assert path(ours) < path(list(leaves_list(linkage(values, method="ward"))))


def test_the_genes_that_vary_most_are_chosen():
    table = pd.DataFrame(
        [[0, 1, 0], [0, 9, 0], [5, 5, 5], [0, 4, 0]],
        index=["little", "most", "none", "much"],
        columns=["a", "b", "c"],
        dtype=float,
    )
    figure = condition_heatmap(table, max_genes=2)
    assert set(figure.data[0].y) == {"most", "much"}
    assert "the 2 of 4 genes that vary most, 3 conditions" in figure.layout.title.text.replace(
        '</span><br><span style="font-size:13px">', " "
    )


def test_ties_are_chosen_by_name():
    table = pd.DataFrame([[0.0, 1.0]] * 4, index=list("dbca"), columns=["x", "y"])
    assert set(condition_heatmap(table, max_genes=2).data[0].y) == {"a", "b"}


def test_the_colours_are_symmetric_and_end_at_the_99th_percentile(residual):
    residual.iloc[0, 0] = 500.0  # one of 96 values: an outlier takes no colours from the rest
    heat = condition_heatmap(residual).data[0]
    assert heat.zmin == -heat.zmax
    assert heat.zmax == pytest.approx(np.percentile(np.abs(residual), 99))
    assert heat.zmax < 100


def test_a_table_of_zeros_is_drawn():
    zeros = pd.DataFrame(0.0, index=list("abc"), columns=list("xyz"))
    heat = condition_heatmap(zeros).data[0]
    assert (heat.zmin, heat.zmax) == (-1.0, 1.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (5, 1)])
def test_small_tables_are_drawn_whole(shape):
    values = np.arange(np.prod(shape), dtype=float).reshape(shape)
    table = pd.DataFrame(values, index=list("abcde")[: shape[0]], columns=list("vwxyz")[: shape[1]])
    figure = drawn(condition_heatmap(table))
    assert figure.shape == shape
    np.testing.assert_array_equal(figure.loc[table.index, table.columns], values)


def test_missing_values_stay_missing(residual):
    residual.iloc[3, 2] = np.nan
    table = drawn(condition_heatmap(residual))
    assert np.isnan(table.loc["g03", "c2"])
    assert table.isna().sum().sum() == 1
    assert condition_heatmap(residual).data[0].hoverongaps is False


def test_names_stand_beside_ids(residual):
    names = pd.Series({"g00": "lacZ", "g01": "<b>"})
    labels = set(condition_heatmap(residual, names=names).data[0].y)
    assert {"lacZ (g00)", "&lt;b&gt; (g01)", "g02"} <= labels


def test_ids_that_look_like_numbers_stay_labels(residual):
    numbered = residual.set_axis([str(i) for i in range(12)]).set_axis(
        [str(i) for i in range(8)], axis=1
    )
    layout = condition_heatmap(numbered).layout
    assert layout.xaxis.type == layout.yaxis.type == "category"


def test_labels_are_hidden_where_there_is_no_room():
    wide = pd.DataFrame(np.eye(61), index=[f"g{i}" for i in range(61)])
    wide.columns = [f"c{i}" for i in range(61)]
    crowded = condition_heatmap(wide).layout
    assert crowded.xaxis.showticklabels is crowded.yaxis.showticklabels is False
    assert crowded.yaxis.title.text == "genes"
    roomy = condition_heatmap(wide.iloc[:60, :60]).layout
    assert roomy.xaxis.showticklabels is roomy.yaxis.showticklabels is True


def test_each_labelled_gene_and_each_letter_of_a_condition_gets_room(residual):
    height = condition_heatmap(residual).layout.height
    assert height - condition_heatmap(residual, max_genes=10).layout.height == 2 * 15
    longer = residual.rename(columns={"c0": "c0" + "x" * 10})
    assert condition_heatmap(longer).layout.height - height == 60


def test_heatmap_order_is_independent_of_the_input(residual):
    first = condition_heatmap(residual).to_json()
    for seed in range(3):
        shuffled = residual.sample(frac=1, random_state=seed)
        shuffled = shuffled.sample(frac=1, axis=1, random_state=seed)
        assert condition_heatmap(shuffled).to_json() == first


def test_hover_has_the_unit(residual):
    assert "log₂(TPM+1)" in condition_heatmap(residual).data[0].hovertemplate


def test_bad_tables_are_refused(residual):
    with pytest.raises(InputError, match="found 0 genes x 8 conditions, expected at least 1 x 1"):
        condition_heatmap(residual.iloc[:0])
    with pytest.raises(InputError, match="found 12 genes x 0 conditions"):
        condition_heatmap(residual.iloc[:, :0])
    with pytest.raises(InputError, match="found 12 different genes, expected 13, all unique"):
        condition_heatmap(pd.concat([residual, residual.iloc[:1]]))
    with pytest.raises(InputError, match="found 8 different conditions, expected 9, all unique"):
        condition_heatmap(pd.concat([residual, residual.iloc[:, :1]], axis=1))
    with pytest.raises(InputError, match="found max_genes 0, expected at least 1"):
        condition_heatmap(residual, max_genes=0)
    with pytest.raises(InputError, match="found 0 infinite and 0 finite of 96 residuals"):
        condition_heatmap(residual * np.nan)
    residual.iloc[0, 0] = -np.inf
    with pytest.raises(InputError, match="found 1 infinite and 95 finite of 96 residuals"):
        condition_heatmap(residual)


# ---- profile


@pytest.fixture
def observed() -> pd.Series:
    return pd.Series({"b": 2.0, "a": 5.0, "d": -1.0, "c": 2.0})


@pytest.fixture
def predicted() -> pd.Series:
    return pd.Series({"a": 4.0, "b": 1.0, "c": 0.5, "d": 0.0})


def traces(figure) -> dict:
    return {trace.name: trace for trace in figure.data}


def test_conditions_rise_with_the_observed_value_ties_by_name(observed, predicted):
    found = traces(profile(observed, predicted))
    assert list(found["observed"].text) == ["d", "b", "c", "a"]
    assert list(found["observed"].y) == [-1.0, 2.0, 2.0, 5.0]
    assert list(found["predicted"].text) == ["d", "b", "c", "a"]
    assert list(found["predicted"].y) == [0.0, 1.0, 0.5, 4.0]


def test_both_values_of_a_condition_stand_on_one_line(observed, predicted):
    found = traces(profile(observed, predicted))
    np.testing.assert_array_equal(found["observed"].x, found["predicted"].x)
    x, y = found["between"].x.reshape(-1, 3), found["between"].y.reshape(-1, 3)
    np.testing.assert_array_equal(x[:, 0], x[:, 1])
    np.testing.assert_array_equal(y[:, 0], found["observed"].y)
    np.testing.assert_array_equal(y[:, 1], found["predicted"].y)
    assert np.isnan(y[:, 2]).all()


def test_observed_and_predicted_differ_in_colour_and_symbol(observed, predicted):
    found = traces(profile(observed, predicted))
    assert found["observed"].marker.color != found["predicted"].marker.color
    assert found["observed"].marker.symbol != found["predicted"].marker.symbol


def test_the_correlation_is_pearsons(observed, predicted):
    x, y = observed.sort_index().to_numpy(), predicted.sort_index().to_numpy()
    x, y = x - x.mean(), y - y.mean()
    r = (x @ y) / np.sqrt((x @ x) * (y @ y))
    assert f"Pearson {r:.2f} over 4 conditions" in profile(observed, predicted).layout.title.text


def test_a_flat_prediction_has_no_correlation(observed, predicted):
    flat = profile(observed, predicted * 0).layout.title.text
    assert "flat, so without a correlation; 4 conditions" in flat
    assert "Pearson" not in flat


def test_two_conditions_have_no_correlation(observed, predicted):
    title = profile(observed[["a", "b"]], predicted[["a", "b"]]).layout.title.text
    assert "2 conditions" in title
    assert "Pearson" not in title
    assert "flat" not in title


def test_series_order_has_no_influence(observed, predicted):
    first = profile(observed, predicted).to_json()
    assert profile(observed[::-1], predicted[::-1]).to_json() == first


def test_gene_and_unit_are_shown_not_interpreted(observed, predicted):
    figure = profile(observed, predicted, gene="<lacZ>", unit="z & score")
    assert "One gene across conditions: &lt;lacZ&gt;" in figure.layout.title.text
    assert figure.layout.yaxis.title.text == "z &amp; score"
    assert "z &amp; score" in traces(figure)["observed"].hovertemplate


def test_few_conditions_are_named_on_the_axis_many_only_on_hover():
    def axis(n):
        series = pd.Series(np.arange(n, dtype=float), index=[f"c{i:02d}" for i in range(n)])
        return profile(series, series).layout.xaxis

    assert len(axis(30).ticktext) == 30
    assert not axis(31).ticktext


def test_bad_profiles_are_refused(observed, predicted):
    with pytest.raises(InputError, match="0 values of observed"):
        profile(observed[:0], predicted[:0])
    with pytest.raises(InputError, match="found 4 conditions of observed, expected 3"):
        profile(observed, predicted.drop("a"))
    with pytest.raises(InputError, match="found 4 conditions of predicted, expected 3"):
        profile(observed.drop("a"), predicted)
    with pytest.raises(InputError, match="1 of 4 values of predicted not finite"):
        profile(observed, predicted.replace(4.0, np.nan))
    with pytest.raises(InputError, match="4 different labels of observed, expected 5"):
        profile(pd.concat([observed, observed[:1]]), predicted)

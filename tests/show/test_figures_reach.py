"""Reach: scores against context as they were measured, attention against distance by loops."""

import numpy as np
import pandas as pd
import pytest

from genesplice.errors import InputError
from genesplice.show.figures import attention_by_distance, context_dial

# ---- context_dial


@pytest.fixture
def dial() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "context_bp": [8192, 512, 2048, 512, 8192, 2048],
            "value": [0.66, 0.60, 0.63, 0.61, 0.59, 0.60],
            "ci_low": [0.64, 0.58, 0.62, 0.60, 0.57, 0.55],
            "ci_high": [0.69, 0.61, 0.65, 0.63, 0.60, 0.66],
            "model": ["real", "real", "real", "ablation", "ablation", "ablation"],
        }
    )


def arms(figure) -> dict:
    return {trace.name: trace for trace in figure.data if trace.name}


def bands(figure) -> list:
    return [trace for trace in figure.data if trace.fill == "toself"]


def test_each_arm_rises_through_its_contexts(dial):
    found = arms(context_dial(dial))
    assert list(found) == ["real", "ablation"]
    np.testing.assert_array_equal(found["real"].x, [512.0, 2048.0, 8192.0])
    np.testing.assert_array_equal(found["real"].y, [0.60, 0.63, 0.66])
    np.testing.assert_array_equal(found["ablation"].y, [0.61, 0.60, 0.59])


def test_the_band_goes_along_the_upper_and_back_along_the_lower_end(dial):
    band = bands(context_dial(dial))[0]
    np.testing.assert_array_equal(band.x, [512, 2048, 8192, 8192, 2048, 512])
    np.testing.assert_allclose(band.y, [0.61, 0.65, 0.69, 0.64, 0.62, 0.58])


def test_hover_has_value_interval_arm_and_context(dial):
    trace = arms(context_dial(dial, metric="level_spearman"))["real"]
    np.testing.assert_allclose(trace.customdata, [[0.58, 0.61], [0.62, 0.65], [0.64, 0.69]])
    assert "<b>real</b>" in trace.hovertemplate
    assert "bp" in trace.hovertemplate
    assert "level_spearman" in trace.hovertemplate


def test_arms_differ_in_colour_and_symbol_and_share_them_with_their_band(dial):
    figure = context_dial(dial)
    real, ablation = arms(figure).values()
    assert real.line.color != ablation.line.color
    assert real.marker.symbol != ablation.marker.symbol
    assert [band.fillcolor for band in bands(figure)] == [real.line.color, ablation.line.color]
    assert [band.legendgroup for band in bands(figure)] == ["real", "ablation"]


def test_the_context_axis_is_logarithmic_with_a_tick_at_each_context(dial):
    axis = context_dial(dial).layout.xaxis
    assert axis.type == "log"
    assert axis.tickvals == (512.0, 2048.0, 8192.0)
    assert axis.ticktext == ("512", "2,048", "8,192")
    assert axis.title.text == "context (bp, log scale)"


def test_without_a_model_there_is_one_arm_with_the_name_of_the_metric(dial):
    one = dial[dial["model"] == "real"].drop(columns="model")
    figure = context_dial(one, metric="profile_r")
    assert list(arms(figure)) == ["profile_r"]
    assert figure.layout.yaxis.title.text == "profile r"


def test_missing_intervals_draw_a_band_of_no_width(dial):
    band = bands(context_dial(dial.assign(ci_low=None, ci_high=None)))[0]
    np.testing.assert_array_equal(band.y[:3], band.y[:2:-1])


def test_a_single_context_is_a_point(dial):
    found = arms(context_dial(dial[dial["context_bp"] == 512]))
    assert [list(trace.x) for trace in found.values()] == [[512.0], [512.0]]


def test_dial_order_has_no_influence(dial):
    first = context_dial(dial).to_json()
    assert context_dial(dial.sample(frac=1, random_state=0)).to_json() == first


def test_arm_names_are_shown_not_interpreted(dial):
    figure = context_dial(dial.replace("real", "<real>%{x}"))
    trace = arms(figure)["&lt;real&gt;&#37;{x}"]
    assert trace.hovertemplate.startswith("<b>&lt;real&gt;&#37;{x}</b>")


def test_bad_dials_are_refused(dial):
    with pytest.raises(InputError, match="0 rows in metrics"):
        context_dial(dial.iloc[:0])
    with pytest.raises(InputError, match="also ci_low"):
        context_dial(dial.drop(columns="ci_low"))
    with pytest.raises(InputError, match="found context of 0 bp, expected at least 1"):
        context_dial(dial.replace(512, 0))
    with pytest.raises(InputError, match="found 7 rows of metrics, expected 6"):
        context_dial(pd.concat([dial, dial.iloc[:1]]))
    with pytest.raises(InputError, match="1 of 3 values of value not finite"):
        context_dial(dial.replace(0.63, np.nan))


# ---- attention_by_distance


@pytest.fixture
def pairs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    distance = rng.integers(-20_000, 20_001, 3000)
    distance[:20] = 0
    return np.exp(-np.abs(distance) / 3000) + 0.01 * rng.uniform(size=3000), distance


def curves(figure) -> dict:
    return {trace.name: trace for trace in figure.data}


def test_bins_equal_a_loop(pairs):
    weights, distance = pairs
    n_bins = 9
    found = curves(attention_by_distance(weights, distance, n_bins=n_bins))
    reach = [abs(int(d)) for d in distance]
    low, high = min(d for d in reach if d > 0), max(reach)
    ratio = (high / low) ** (1 / n_bins)
    sums, counts = [0.0] * n_bins, [0] * n_bins
    for weight, d in zip(weights, reach, strict=True):
        i = 0
        while i < n_bins - 1 and d >= low * ratio ** (i + 1) * (1 + 1e-9 * (i + 1) / n_bins):
            i += 1
        sums[i] += weight
        counts[i] += 1
    filled = [i for i in range(n_bins) if counts[i]]
    mean = found["mean weight"]
    np.testing.assert_allclose(mean.x, [low * ratio ** (i + 0.5) for i in filled], rtol=1e-6)
    np.testing.assert_allclose(mean.y, [sums[i] / counts[i] for i in filled])
    assert list(mean.customdata) == [counts[i] for i in filled]
    share = found["share within distance"]
    running = np.cumsum(sums) / sum(weights)
    np.testing.assert_allclose(share.y, [running[i] for i in filled])
    np.testing.assert_allclose(share.x, [low * ratio ** (i + 1) for i in filled], rtol=1e-6)


def test_every_pair_is_counted_once(pairs):
    found = curves(attention_by_distance(*pairs))
    assert sum(found["mean weight"].customdata) == 3000
    assert found["share within distance"].y[-1] == pytest.approx(1.0)
    assert (np.diff(found["share within distance"].y) >= 0).all()


@pytest.mark.parametrize("mass", [0.1, 0.5, 0.9, 0.999])
def test_the_mark_is_the_least_distance_that_holds_the_mass(pairs, mass):
    weights, distance = pairs
    figure = attention_by_distance(weights, distance, mass=mass)
    mark = figure.layout.shapes[0].x0
    reach = np.abs(distance)
    assert weights[reach <= mark].sum() >= mass * weights.sum()
    assert weights[reach < mark].sum() < mass * weights.sum()
    assert f"{mass:.0%} of it within {mark:,.0f} bp" in figure.layout.title.text


def test_attention_without_a_preference_is_flat():
    distance = np.arange(1, 5001)
    found = curves(attention_by_distance(np.full(5000, 0.25), distance))
    np.testing.assert_allclose(found["mean weight"].y, 0.25)
    np.testing.assert_allclose(found["no preference"].y, 0.25)


def test_attention_to_near_bases_falls_below_the_mean(pairs):
    found = curves(attention_by_distance(*pairs))
    mean, line = found["mean weight"], found["no preference"].y[0]
    assert line == pytest.approx(pairs[0].mean())
    assert mean.y[0] > line > mean.y[-1]


def test_upstream_and_downstream_count_alike(pairs):
    weights, distance = pairs
    first = attention_by_distance(weights, distance).to_json()
    assert attention_by_distance(weights, -distance).to_json() == first


def test_integers_and_short_floats_are_welcome():
    figure = attention_by_distance(np.array([3, 1], dtype=np.int32), np.array([16.0, 64.0], "f4"))
    found = curves(figure)
    assert found["mean weight"].x.dtype == np.float64
    assert found["mean weight"].y.tolist() == [3.0, 1.0]


def test_one_distance_is_one_bin():
    found = curves(attention_by_distance(np.array([1.0, 3.0]), np.array([128, -128])))
    assert list(found["mean weight"].y) == [2.0]
    assert list(found["share within distance"].y) == [1.0]


def test_a_share_of_almost_everything_is_found():
    weights = np.full(7, 0.1)
    figure = attention_by_distance(weights, np.arange(1, 8), mass=float(np.nextafter(1, 0)))
    assert figure.layout.shapes[0].x0 == 7.0


def test_pair_order_has_no_influence(pairs):
    weights, distance = pairs
    order = np.random.default_rng(1).permutation(len(weights))
    first = curves(attention_by_distance(weights, distance))
    other = curves(attention_by_distance(weights[order], distance[order]))
    for name, trace in first.items():
        np.testing.assert_allclose(other[name].y, trace.y, rtol=1e-12)


def test_axes_have_units(pairs):
    layout = attention_by_distance(*pairs).layout
    assert layout.xaxis.title.text == "distance (bp, log scale)"
    assert layout.xaxis.type == "log"
    assert layout.yaxis.title.text == "mean weight"
    assert layout.yaxis2.title.text == "share of weight"


def test_the_two_panels_do_not_overlap(pairs):
    layout = attention_by_distance(*pairs).layout
    assert layout.yaxis2.domain[1] < layout.yaxis.domain[0]
    assert layout.xaxis.anchor == "y2"


def test_bad_attention_is_refused(pairs):
    weights, distance = pairs
    with pytest.raises(InputError, match="found 2,999 weights, expected 3,000 as in distance_bp"):
        attention_by_distance(weights[1:], distance)
    with pytest.raises(InputError, match="0 values of weights"):
        attention_by_distance(weights[:0], distance[:0])
    with pytest.raises(InputError, match="weights from -1 to"):
        attention_by_distance(np.r_[-1.0, weights[1:]], distance)
    with pytest.raises(InputError, match="weights from 0 to 0, expected 0 or more, not all 0"):
        attention_by_distance(weights * 0, distance)
    with pytest.raises(InputError, match="largest distance 0 bp"):
        attention_by_distance(weights, distance * 0)
    with pytest.raises(InputError, match="1 of 3,000 values of weights not finite"):
        attention_by_distance(np.r_[np.nan, weights[1:]], distance)
    with pytest.raises(InputError, match="found 0 bins, expected at least 1"):
        attention_by_distance(weights, distance, n_bins=0)
    for mass in (0.0, 1.0):
        with pytest.raises(InputError, match=f"mass {mass:g}, expected between 0 and 1"):
            attention_by_distance(weights, distance, mass=mass)

"""Learning curves and scores: smoothing by loops, intervals as measured, order by value."""

import itertools

import numpy as np
import pandas as pd
import pytest

from genesplice.errors import InputError
from genesplice.results import Metric, read_metrics, write_metrics
from genesplice.show.figures import learning_curves, metric_bars
from genesplice.show.theme import OKABE_ITO

# ---- learning_curves


@pytest.fixture
def log() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for step in range(1, 41):
        rows.append((step, "loss", "train", 2 / step + rng.normal(0, 0.1)))
        rows.append((step, "learning_rate", "train", 1e-3 * min(step / 10, 1)))
        if step % 10 == 0:
            rows.append((step, "loss", "val", 2.2 / step))
            rows.append((step, "accuracy", "val", step / 40))
    return pd.DataFrame(rows, columns=["step", "metric", "split", "value"])


def curves(figure) -> dict[tuple[str, str], object]:
    """Traces by the title of their axis and their own name."""
    titles = {
        axis.plotly_name.replace("axis", ""): axis.title.text for axis in figure.select_yaxes()
    }
    return {(titles[trace.yaxis], trace.name): trace for trace in figure.data}


def test_the_thick_line_is_the_exponential_mean_without_bias(log):
    found = curves(learning_curves(log, smoothing=0.8))[("loss", "train, smoothed")]
    train = log[(log["metric"] == "loss") & (log["split"] == "train")]
    total = weight = 0.0
    for y, value in zip(found.y, train["value"], strict=True):
        total = 0.8 * total + 0.2 * value  # Adam's moving average ...
        weight = 0.8 * weight + 0.2
        assert y == pytest.approx(total / weight)  # ... with its correction of the start


def test_the_pale_line_is_what_was_logged(log):
    raw = curves(learning_curves(log))[("loss", "train, each step")]
    train = log[(log["metric"] == "loss") & (log["split"] == "train")]
    np.testing.assert_array_equal(raw.x, train["step"])
    np.testing.assert_array_equal(raw.y, train["value"])
    assert raw.x.dtype == np.float64
    assert raw.opacity < 0.5
    assert raw.showlegend is False


def test_no_smoothing_draws_the_values_themselves(log):
    found = curves(learning_curves(log, smoothing=0.0))
    np.testing.assert_allclose(
        found[("loss", "train, smoothed")].y, found[("loss", "train, each step")].y
    )


def test_validation_is_drawn_as_it_is_with_markers(log):
    val = curves(learning_curves(log, smoothing=0.99))[("loss", "val")]
    np.testing.assert_array_equal(val.x, [10, 20, 30, 40])
    np.testing.assert_allclose(val.y, 2.2 / np.array([10, 20, 30, 40]))
    assert val.mode == "lines+markers"


def test_the_learning_rate_is_at_the_bottom_and_not_smoothed(log):
    figure = learning_curves(log)
    panels = [figure.layout[name].title.text for name in ("yaxis", "yaxis2", "yaxis3")]
    assert panels == ["accuracy", "loss", "learning rate"]
    tops = [figure.layout[name].domain[1] for name in ("yaxis", "yaxis2", "yaxis3")]
    assert tops == sorted(tops, reverse=True)
    rate = curves(figure)[("learning rate", "train")]
    np.testing.assert_allclose(rate.y, [1e-3 * min(step / 10, 1) for step in range(1, 41)])
    assert rate.showlegend is False


def test_panels_share_the_steps_and_do_not_overlap(log):
    layout = learning_curves(log).layout
    assert layout.xaxis.title.text == "optimiser step"
    assert layout.xaxis.anchor == "y3"
    assert "xaxis2" not in layout
    domains = [layout.yaxis.domain, layout.yaxis2.domain, layout.yaxis3.domain]
    for upper, lower in itertools.pairwise(domains):
        assert lower[1] < upper[0]
    heights = [top - bottom for bottom, top in domains]
    np.testing.assert_allclose(heights, heights[0])
    assert domains[0][1] == 1.0
    assert domains[2][0] == pytest.approx(0.0)


def test_each_panel_adds_its_height(log):
    one = learning_curves(log[log["metric"] == "loss"])
    assert learning_curves(log).layout.height - one.layout.height == 2 * 190
    assert one.layout.xaxis.anchor == "y"


def test_each_split_is_in_the_legend_once(log):
    shown = [trace.name for trace in learning_curves(log).data if trace.showlegend]
    assert sorted(shown) == ["train, smoothed", "val"]


def test_splits_differ_in_colour_and_symbol(log):
    more = pd.concat([log, log[log["split"] == "val"].assign(split="test")])
    found = curves(learning_curves(more))
    traces = [found[("loss", name)] for name in ("train, smoothed", "val", "test")]
    assert len({trace.line.color for trace in traces}) == 3
    assert len({trace.marker.symbol for trace in traces}) == 3


def test_a_loss_that_is_not_a_number_leaves_a_gap(log):
    log.loc[log.index[log["metric"] == "loss"][5], "value"] = np.nan
    found = curves(learning_curves(log))
    assert np.isnan(found[("loss", "train, each step")].y).sum() == 1
    assert np.isfinite(found[("loss", "train, smoothed")].y).all()


def test_log_order_has_no_influence(log):
    first = learning_curves(log).to_json()
    assert learning_curves(log.sample(frac=1, random_state=0)).to_json() == first


def test_metric_names_are_shown_not_interpreted(log):
    figure = learning_curves(log.replace("loss", "<b>%{x}"))
    assert "&lt;b&gt;&#37;{x}" in [
        axis.title.text for axis in (figure.layout.yaxis, figure.layout.yaxis2)
    ]
    assert all("<b>" not in trace.hovertemplate for trace in figure.data)


def test_bad_logs_are_refused(log):
    with pytest.raises(InputError, match="0 rows in log"):
        learning_curves(log.iloc[:0])
    with pytest.raises(InputError, match="also split"):
        learning_curves(log.drop(columns="split"))
    with pytest.raises(InputError, match="split 'valid', expected train, val, test"):
        learning_curves(log.replace("val", "valid"))
    for smoothing in (-0.1, 1.0):
        with pytest.raises(InputError, match=f"smoothing {smoothing:g}"):
            learning_curves(log, smoothing=smoothing)


# ---- metric_bars


def records() -> list[Metric]:
    values = {
        "level_spearman": {"ours": 0.70, "ridge": 0.66, "gbm": 0.68, "mean": 0.0},
        "profile_r": {"ours": 0.39, "ridge": 0.40, "mean": -0.1},
    }
    out = []
    for metric, models in values.items():
        for model, value in models.items():
            has_interval = model != "mean"
            low, high = (value - 0.02, value + 0.03) if has_interval else (None, None)
            out.append(Metric(metric, value, low, high, 3923, model, "test"))
            out.append(Metric(metric, value / 2, low, high, 800, model, "test", fold=0))
            out.append(Metric(metric, value + 0.1, low, high, 3000, model, "train"))
    return out


@pytest.fixture
def metrics() -> pd.DataFrame:
    return pd.DataFrame(records())


def labels(figure, number: str = "") -> list[str]:
    return list(figure.layout[f"yaxis{number}"].ticktext)


def bars(figure) -> list:
    return [trace for trace in figure.data if trace.type == "bar"]


def test_models_are_sorted_the_best_on_top(metrics):
    figure = metric_bars(metrics, "level_spearman")
    assert labels(figure) == ["ours", "gbm", "ridge", "mean"]
    np.testing.assert_array_equal(bars(figure)[0].x, [0.70, 0.68, 0.66, 0.0])
    np.testing.assert_array_equal(bars(figure)[0].y, [0, 1, 2, 3])
    low, high = figure.layout.yaxis.range
    assert low > high  # place 0 is at the top


def test_whiskers_end_at_the_interval(metrics):
    bar = bars(metric_bars(metrics, "level_spearman"))[0]
    np.testing.assert_allclose(bar.x[:3] - bar.error_x.arrayminus[:3], [0.68, 0.66, 0.64])
    np.testing.assert_allclose(bar.x[:3] + bar.error_x.array[:3], [0.73, 0.71, 0.69])
    assert bar.error_x.array[3] == bar.error_x.arrayminus[3] == 0.0
    assert bar.error_x.symmetric is False


def test_values_are_written_behind_their_whiskers(metrics):
    figure = metric_bars(metrics, "profile_r")
    text = next(trace for trace in figure.data if trace.type == "scatter")
    assert [t.strip() for t in text.text] == ["0.400", "0.390", "-0.100"]
    np.testing.assert_allclose(text.x, [0.43, 0.42, 0.0])  # behind the axis for a negative bar


def test_the_model_of_interest_is_blue_and_bold_the_others_grey(metrics):
    figure = metric_bars(metrics, "level_spearman", highlight="ours")
    assert labels(figure)[0] == "<b>ours</b>"
    colours = list(bars(figure)[0].marker.color)
    assert colours[0] == OKABE_ITO[0]
    assert len(set(colours[1:])) == 1
    red, green, blue = (int(colours[1][i : i + 2], 16) for i in (1, 3, 5))
    assert red == green == blue


def test_several_models_may_be_highlighted(metrics):
    figure = metric_bars(metrics, "level_spearman", highlight=["ours", "gbm"])
    assert labels(figure) == ["<b>ours</b>", "<b>gbm</b>", "ridge", "mean"]


def test_each_metric_has_its_panel_in_the_order_asked_for(metrics):
    figure = metric_bars(metrics, ["profile_r", "level_spearman"])
    assert figure.layout.xaxis.title.text == "profile r"
    assert figure.layout.xaxis2.title.text == "level spearman"
    assert labels(figure) == ["ridge", "ours", "mean"]
    assert labels(figure, "2") == ["ours", "gbm", "ridge", "mean"]
    assert [(bar.xaxis, bar.yaxis) for bar in bars(figure)] == [("x", "y"), ("x2", "y2")]
    assert figure.layout.yaxis2.domain[1] < figure.layout.yaxis.domain[0]


def test_every_bar_is_as_thick_whatever_the_panel(metrics):
    layout = metric_bars(metrics, ["profile_r", "level_spearman"]).layout
    first = (layout.yaxis.domain[1] - layout.yaxis.domain[0]) / 3
    second = (layout.yaxis2.domain[1] - layout.yaxis2.domain[0]) / 4
    assert first == pytest.approx(second)


def test_only_the_split_and_fold_asked_for_are_drawn(metrics):
    train = metric_bars(metrics, "level_spearman", split="train")
    np.testing.assert_allclose(bars(train)[0].x, [0.8, 0.78, 0.76, 0.1])
    fold = metric_bars(metrics, "level_spearman", fold=0)
    np.testing.assert_allclose(bars(fold)[0].x, [0.35, 0.34, 0.33, 0.0])


def test_hover_has_interval_and_count(metrics):
    bar = bars(metric_bars(metrics, "level_spearman"))[0]
    np.testing.assert_allclose(bar.customdata[0], [0.68, 0.73, 3923])
    assert bar.hovertext[0] == "ours"
    assert "%{customdata[2]:,}" in bar.hovertemplate


def test_the_axis_has_room_for_the_text_and_begins_at_zero_or_below(metrics):
    axis = metric_bars(metrics, "level_spearman").layout.xaxis
    assert axis.range[0] == 0.0
    assert axis.range[1] > 0.73
    assert metric_bars(metrics, "profile_r").layout.xaxis.range[0] < -0.1


def test_scores_that_are_all_zero_are_drawn(metrics):
    zeros = metrics.assign(value=0.0, ci_low=None, ci_high=None)
    assert metric_bars(zeros, "profile_r").layout.xaxis.range[1] == 1.0


def test_what_metrics_json_holds_can_be_drawn(tmp_path, metrics):
    write_metrics(tmp_path / "metrics.json", records())
    again = pd.DataFrame(read_metrics(tmp_path / "metrics.json"))
    assert metric_bars(again, "profile_r").to_json() == metric_bars(metrics, "profile_r").to_json()


def test_metric_order_has_no_influence_and_ties_go_by_name(metrics):
    tied = metrics.assign(value=0.5)
    assert labels(metric_bars(tied, "level_spearman")) == ["gbm", "mean", "ours", "ridge"]
    first = metric_bars(metrics, "profile_r").to_json()
    assert metric_bars(metrics.sample(frac=1, random_state=3), "profile_r").to_json() == first


def test_model_names_are_shown_not_interpreted(metrics):
    figure = metric_bars(metrics.replace("ours", "<i>ours"), "profile_r", highlight="<i>ours")
    assert "<b>&lt;i&gt;ours</b>" in labels(figure)
    assert "&lt;i&gt;ours" in bars(figure)[0].hovertext


def test_bad_metrics_are_refused(metrics):
    with pytest.raises(InputError, match="0 rows in metrics"):
        metric_bars(metrics.iloc[:0], "profile_r")
    with pytest.raises(InputError, match="also n"):
        metric_bars(metrics.drop(columns="n"), "profile_r")
    with pytest.raises(
        InputError, match=r"found 0 of 21 records of r2 \(split test, fold pooled\)"
    ):
        metric_bars(metrics, "r2")
    with pytest.raises(InputError, match=r"0 of 21 records of profile_r \(split test, fold 7\)"):
        metric_bars(metrics, "profile_r", fold=7)
    with pytest.raises(InputError, match="no record of model 'theirs'"):
        metric_bars(metrics, "profile_r", highlight="theirs")
    with pytest.raises(InputError, match="found 0 metrics to draw"):
        metric_bars(metrics, [])


def test_two_seeds_of_one_model_are_refused(metrics):
    seeds = pd.concat([metrics.assign(seed=0), metrics.assign(seed=1)])
    with pytest.raises(InputError, match=r"found 2 records of profile_r for model .* expected 1"):
        metric_bars(seeds, "profile_r")
    assert bars(metric_bars(seeds[seeds["seed"] == 1], "profile_r"))

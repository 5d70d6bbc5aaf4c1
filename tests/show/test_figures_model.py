"""Figures of training, scores and checks: the values drawn are those of the table."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import leaves_list, linkage
from tiny_figures import ids, polygons, row_labels, trace

from genesplice.errors import InputError
from genesplice.results import Metric, read_metrics, write_metrics
from genesplice.show import figures
from genesplice.show.figures import influence_sentence
from genesplice.show.theme import BLUE


def refused(figure, match: str, *args, **options) -> None:
    with pytest.raises(InputError, match=match):
        figure(*args, **options)


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
    titles = {one.plotly_name.replace("axis", ""): one.title.text for one in figure.select_yaxes()}
    return {(titles[one.yaxis], one.name): one for one in figure.data}


def test_training_is_smoothed_without_bias_and_the_rest_is_as_logged(log):
    figure = figures.learning_curves(log, smoothing=0.8)
    found = curves(figure)
    train = log[(log["metric"] == "loss") & (log["split"] == "train")]
    raw = found["loss", "train, each step"]
    np.testing.assert_array_equal([raw.x, raw.y], [train["step"], train["value"]])
    total = weight = 0.0
    for y, value in zip(found["loss", "train, smoothed"].y, train["value"], strict=True):
        total = 0.8 * total + 0.2 * value  # Adam's moving average ...
        weight = 0.8 * weight + 0.2
        assert y == pytest.approx(total / weight)  # ... with its correction of the start
    val = found["loss", "val"]
    np.testing.assert_allclose([val.x, val.y], [[10, 20, 30, 40], 2.2 / np.array([10, 20, 30, 40])])
    rate = found["learning rate", "train"]
    np.testing.assert_allclose(rate.y, [1e-3 * min(step / 10, 1) for step in range(1, 41)])
    shown = [one.name for one in figure.data if one.showlegend]
    assert sorted(shown) == ["train, smoothed", "val"]
    plain = curves(figures.learning_curves(log, smoothing=0.0))
    np.testing.assert_allclose(plain["loss", "train, smoothed"].y, raw.y)


def test_panels_stand_below_one_another_the_learning_rate_last(log):
    figure = figures.learning_curves(log)
    axes = sorted(figure.select_yaxes(), key=lambda axis: -axis.domain[1])
    assert [axis.title.text for axis in axes] == ["accuracy", "loss", "learning rate"]
    for upper, lower in itertools.pairwise(axes):
        assert lower.domain[1] < upper.domain[0]
        assert np.ptp(lower.domain) == pytest.approx(np.ptp(upper.domain))
    one = figures.learning_curves(log[log["metric"] == "loss"])
    assert figure.layout.height - one.layout.height == 2 * 190


def test_a_loss_that_is_not_a_number_leaves_a_gap(log):
    log.loc[log.index[log["metric"] == "loss"][5], "value"] = np.nan
    found = curves(figures.learning_curves(log))
    assert np.isnan(found["loss", "train, each step"].y).sum() == 1
    assert np.isfinite(found["loss", "train, smoothed"].y).all()


def test_logs_that_cannot_be_drawn_are_refused(log):
    refused(figures.learning_curves, "0 rows in log", log.iloc[:0])
    refused(figures.learning_curves, "also split", log.drop(columns="split"))
    valid = log.replace("val", "valid")
    refused(figures.learning_curves, "split 'valid' in log, expected train, val, test", valid)
    for smoothing in (-0.1, 1.0):
        refused(figures.learning_curves, f"smoothing {smoothing:g}", log, smoothing=smoothing)


# ---- metric_bars


def test_models_have_names_for_people_and_no_name_is_cut():
    names = ["genesplice_random", "gbm_dna", "a_name_that_is_longer_than_a_line", "x"]
    table = pd.DataFrame({"model": names, "value": [0.4, 0.3, 0.2, 0.1], "metric": "r"})
    table = table.assign(ci_low=None, ci_high=None, n=3, split="test", fold=None)
    figure = figures.metric_bars(table, "r", highlight="gbm_dna")
    assert list(figure.layout.yaxis.ticktext) == [
        "random weights", "<b>boosting: DNA and<br>relatives</b>",
        "a_name_that_is_longer_<br>than_a_line", "x",
    ]  # fmt: skip
    assert "<b>random weights</b>" in trace(figure, "r", "bar").hovertext[0]
    assert "whiskers" not in figure.layout.title.text, "there are none"
    short = figures.metric_bars(table.iloc[[0, 3]], "r")
    two_px = 4 * 32 - 2 * 28
    assert figure.layout.height + 18 - short.layout.height in (two_px, two_px + 18, two_px + 19)
    half = figures.metric_bars(table.assign(ci_low=[0.1, None, None, None], ci_high=0.5), "r")
    assert "whiskers" in half.layout.title.text


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


METRICS = pd.DataFrame(records())


def bar_table(figure, metric: str) -> pd.DataFrame:
    """What a panel draws: value and ends of the whisker by model, from the top."""
    bar = trace(figure, metric, "bar")
    rows = row_labels(figure, bar.yaxis.replace("y", "yaxis"))
    ends = [bar.x, bar.x - bar.error_x.arrayminus, bar.x + bar.error_x.array]
    table = pd.DataFrame(np.transpose(ends), columns=["value", "low", "high"])
    return table.set_index(pd.Index([rows[y] for y in bar.y]))


def test_models_are_sorted_and_have_their_intervals():
    figure = figures.metric_bars(METRICS, ["profile_r", "level_spearman"], highlight="ours")
    expected = {"<b>ours</b>": 0.70, "gbm": 0.68, "ridge": 0.66, "mean": 0.0}
    table = bar_table(figure, "level_spearman")
    assert table["value"].to_dict() == pytest.approx(expected)
    assert list(table.index) == list(expected)
    np.testing.assert_allclose(table["low"], [0.68, 0.66, 0.64, 0.0])
    np.testing.assert_allclose(table["high"], [0.73, 0.71, 0.69, 0.0])
    assert list(bar_table(figure, "profile_r").index) == ["ridge", "<b>ours</b>", "mean"]
    bar = trace(figure, "level_spearman", "bar")
    assert bar.hovertext[0] == "<b>ours</b><br>level_spearman 0.700 [0.680, 0.730]<br>n = 3,923"
    assert list(bar.marker.color).count(BLUE) == 1
    upper, lower = figure.layout.yaxis.domain, figure.layout.yaxis2.domain
    assert lower[1] < upper[0]
    assert np.ptp(upper) / 3 == pytest.approx(np.ptp(lower) / 4)  # bars are as thick in both
    assert figure.layout.xaxis.range[0] < -0.1


def test_values_are_written_behind_their_whiskers():
    figure = figures.metric_bars(METRICS, "profile_r")
    text = trace(figure, "values")
    assert [t.strip() for t in text.text] == ["0.400", "0.390", "-0.100"]
    np.testing.assert_allclose(text.x, [0.43, 0.42, 0.0])  # behind the axis for a negative bar


def test_only_the_split_and_fold_asked_for_are_drawn(tmp_path):
    train = bar_table(
        figures.metric_bars(METRICS, "level_spearman", split="train"), "level_spearman"
    )
    np.testing.assert_allclose(train["value"], [0.8, 0.78, 0.76, 0.1])
    fold = bar_table(figures.metric_bars(METRICS, "level_spearman", fold=0), "level_spearman")
    np.testing.assert_allclose(fold["value"], [0.35, 0.34, 0.33, 0.0])
    tied = bar_table(figures.metric_bars(METRICS.assign(value=0.5), "profile_r"), "profile_r")
    assert list(tied.index) == ["mean", "ours", "ridge"]
    zeros = METRICS.assign(value=0.0, ci_low=None, ci_high=None)
    assert figures.metric_bars(zeros, "profile_r").layout.xaxis.range[1] == 1.0
    write_metrics(tmp_path / "metrics.json", records())
    again = pd.DataFrame(read_metrics(tmp_path / "metrics.json"))
    first = figures.metric_bars(METRICS, "profile_r")
    assert figures.metric_bars(again, "profile_r").to_json() == first.to_json()


def test_an_ablation_of_several_seeds_is_their_mean_with_a_dot_for_each():
    """As notebook 3 has them: ablations have more seeds than methods that need none."""
    ablation = METRICS[METRICS["model"] == "ours"].assign(model="genesplice_no_graph")
    seeds = [ablation.assign(seed=s, value=ablation["value"] + 0.02 * s) for s in (0, 1)]
    both = pd.concat([METRICS, *seeds], ignore_index=True)
    figure = figures.metric_bars(both, "level_spearman")
    table = bar_table(figure, "level_spearman")
    assert table.loc["genesplice_no_graph", "value"] == pytest.approx(0.71)
    np.testing.assert_allclose(table.loc["genesplice_no_graph", ["low", "high"]], [0.68, 0.73])
    dots = trace(figure, "seeds")
    np.testing.assert_allclose(sorted(dots.x), [0.70, 0.72])
    assert {row_labels(figure)[y] for y in dots.y} == {"genesplice_no_graph"}
    assert "genesplice_no_graph, seed 1: 0.720" in dots.hovertext


def test_metrics_that_cannot_be_drawn_are_refused():
    bars = figures.metric_bars
    refused(bars, "0 rows in metrics", METRICS.iloc[:0], "profile_r")
    refused(bars, "also n", METRICS.drop(columns="n"), "profile_r")
    refused(bars, r"0 of 21 records of r2 \(split test, fold pooled\)", METRICS, "r2")
    refused(bars, r"records of profile_r \(split test, fold 7\)", METRICS, "profile_r", fold=7)
    refused(bars, "model 'theirs'", METRICS, "profile_r", highlight="theirs")
    refused(bars, "no metric", METRICS, [])
    twice = pd.concat([METRICS.assign(seed=0)] * 2)
    refused(bars, "repeat a metric and model and seed", twice, "profile_r")


# ---- condition_heatmap


@pytest.fixture
def residual() -> pd.DataFrame:
    """Twelve genes in two groups over eight conditions, dealt in turn."""
    rng = np.random.default_rng(0)
    up = np.where(np.arange(8) % 2 == 0, 3.0, -3.0)
    rows = [(up if i % 2 == 0 else -up) + rng.normal(0, 0.2, 8) for i in range(12)]
    index, columns = [f"g{i:02d}" for i in range(12)], [f"c{i}" for i in range(8)]
    return pd.DataFrame(rows, index=index, columns=columns)


def heat_table(figure) -> pd.DataFrame:
    heat = figure.data[0]
    return pd.DataFrame(heat.z, index=list(heat.y), columns=list(heat.x))


def test_every_cell_holds_its_own_value_and_alike_ones_are_neighbours(residual):
    residual.iloc[3, 2] = np.nan
    table = heat_table(figures.condition_heatmap(residual))
    pd.testing.assert_frame_equal(
        table.loc[residual.index, residual.columns], residual.astype(np.float32), check_names=False
    )
    for labels in (table.index, table.columns):
        groups = [int(label[1:]) % 2 for label in labels]
        assert sum(a != b for a, b in itertools.pairwise(groups)) == 1


def test_optimal_leaves_lie_closer_than_those_of_the_tree():
    values = np.random.default_rng(1).normal(size=(30, 6))
    noise = pd.DataFrame(values, index=[f"g{i:02d}" for i in range(30)], columns=list("abcdef"))

    def path(order):
        return sum(np.linalg.norm(values[a] - values[b]) for a, b in itertools.pairwise(order))

    order = noise.index.get_indexer(heat_table(figures.condition_heatmap(noise)).index)
    assert path(order) < path(list(leaves_list(linkage(values, method="ward"))))


def test_the_genes_that_vary_most_are_chosen_ties_by_name():
    values = {"little": [0, 1, 0], "most": [0, 9, 0], "none": [5, 5, 5], "much": [0, 4, 0]}
    table = pd.DataFrame(values, index=list("abc"), dtype=float).T
    figure = figures.condition_heatmap(table, max_genes=2)
    assert set(heat_table(figure).index) == {"most", "much"}
    assert "the 2 of 4 genes that vary most" in figure.layout.title.text
    tied = pd.DataFrame([[0.0, 1.0]] * 4, index=list("dbca"), columns=["x", "y"])
    assert set(heat_table(figures.condition_heatmap(tied, max_genes=2)).index) == {"a", "b"}


def test_the_colours_are_symmetric_and_end_at_the_99th_percentile(residual):
    residual.iloc[0, 0] = 500.0  # one of 96 values: an outlier takes no colours from the rest
    heat = figures.condition_heatmap(residual).data[0]
    assert heat.zmax == -heat.zmin == pytest.approx(np.percentile(np.abs(residual), 99))
    flat = figures.condition_heatmap(residual * 0).data[0]
    assert (flat.zmin, flat.zmax) == (-1.0, 1.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (5, 1)])
def test_small_tables_are_drawn_whole_and_numbers_stay_labels(shape):
    values = np.arange(np.prod(shape), dtype=float).reshape(shape)
    index, columns = [f"{i}" for i in range(shape[0])], [f"{i}" for i in range(shape[1])]
    figure = figures.condition_heatmap(pd.DataFrame(values, index=index, columns=columns))
    np.testing.assert_array_equal(heat_table(figure).loc[index, columns], values)
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "category"


def test_labels_have_names_and_room_or_are_hidden(residual):
    names = pd.Series({"g00": "lacZ", "g01": "<b>"})
    labels = set(heat_table(figures.condition_heatmap(residual, names=names)).index)
    assert {"lacZ (g00)", "&lt;b&gt; (g01)", "g02"} <= labels
    height = figures.condition_heatmap(residual).layout.height
    assert height - figures.condition_heatmap(residual, max_genes=10).layout.height == 2 * 15
    longer = residual.rename(columns={"c0": "c0" + "x" * 10})
    assert figures.condition_heatmap(longer).layout.height - height == 60
    wide = pd.DataFrame(np.eye(61)).rename(index="g{}".format).rename(columns="c{}".format)
    crowded = figures.condition_heatmap(wide).layout
    assert crowded.xaxis.showticklabels is crowded.yaxis.showticklabels is False
    roomy = figures.condition_heatmap(wide.iloc[:60, :60]).layout
    assert roomy.xaxis.showticklabels is roomy.yaxis.showticklabels is True


def test_tables_that_cannot_be_drawn_are_refused(residual):
    heatmap = figures.condition_heatmap
    for table in (
        residual.iloc[:0], residual.iloc[:, :0], pd.concat([residual, residual.iloc[:1]]),
        pd.concat([residual, residual.iloc[:, :1]], axis=1),
    ):  # fmt: skip
        refused(heatmap, r"\d+ genes x \d conditions, empty or repeated", table)
    refused(heatmap, "found max_genes 0, expected at least 1", residual, max_genes=0)
    refused(heatmap, "found 0 infinite and 0 finite of 96 residuals", residual * np.nan)
    residual.iloc[0, 0] = -np.inf
    refused(heatmap, "found 1 infinite and 95 finite of 96 residuals", residual)


# ---- predicted_observed


@pytest.fixture
def predictions() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"gene_id": [f"b{i:02d}" for i in range(80)], "fold": np.arange(80) % 5})
    table["observed"] = rng.uniform(0, 14, 80)
    return table.assign(predicted=3 + 0.5 * table["observed"] + rng.normal(0, 1, 80), name="<n>")


def test_each_gene_stands_at_its_two_levels_in_the_colour_of_its_crowd(predictions):
    figure = figures.predicted_observed(predictions)
    points = trace(figure, "genes")
    assert list(points.marker.color) == sorted(points.marker.color)  # the crowd on top
    table = predictions.set_index("gene_id")
    seen = set()
    for x, y, count, text in zip(
        points.x, points.y, points.marker.color, points.hovertext, strict=True
    ):
        gene = text.split("(")[1][:3]
        one = table.loc[gene]
        seen.add(gene)
        assert (x, y) == (one.observed, pytest.approx(one.predicted, rel=1e-6))
        assert text.startswith(f"<b>&lt;n&gt;</b> ({gene}), fold {one.fold}<br>observed {x:.2f},")
        square = (table["observed"] - x) ** 2 + (table["predicted"] - one.predicted) ** 2
        assert count == (square <= 0.3**2).sum()
    assert len(seen) == 80
    line = trace(figure, "identity")
    assert list(line.x) == list(line.y) == list(figure.layout.xaxis.range)
    assert list(figure.layout.xaxis.range) == list(figure.layout.yaxis.range)


def test_the_subtitle_has_the_three_numbers(predictions):
    def pearson(a, b):
        a, b = a - a.mean(), b - b.mean()
        return float((a @ b) / np.sqrt((a @ a) * (b @ b)))

    x, y = (predictions[name] for name in ("observed", "predicted"))
    r2 = 1 - sum((x - y) ** 2) / sum((x - x.mean()) ** 2)
    title = figures.predicted_observed(predictions).layout.title.text
    assert f"Spearman {pearson(x.rank(), y.rank()):.3f}" in title
    assert f"Pearson {pearson(x, y):.3f}, R² {r2:.3f}, 80 genes" in title
    for column in ("observed", "predicted"):
        flat = figures.predicted_observed(predictions.assign(**{column: 5.0})).layout.title.text
        assert "Spearman" not in flat
        assert "80 genes" in flat
    alone = figures.predicted_observed(predictions.iloc[:1])
    low, high = alone.layout.xaxis.range
    assert low < trace(alone, "genes").x[0] < high


def test_predictions_that_cannot_be_drawn_are_refused(predictions):
    scatter = figures.predicted_observed
    refused(scatter, "also fold", predictions.drop(columns="fold"))
    refused(scatter, "80 of 160 rows of predictions repeat", pd.concat([predictions] * 2))
    refused(
        scatter, "80 of 80 observed of predictions not finite", predictions.assign(observed=np.nan)
    )


# ---- context_curve

CONTEXT = pd.DataFrame({"context_bp": [8192, 512, 2048, 512, 8192, 2048]})
CONTEXT["value"] = [0.66, 0.60, 0.63, 0.61, 0.59, 0.60]
CONTEXT["ci_low"] = [0.64, 0.58, 0.62, 0.60, 0.57, 0.55]
CONTEXT["ci_high"] = [0.69, 0.61, 0.65, 0.63, 0.60, 0.66]
CONTEXT["model"] = ["real", "real", "real", "ablation", "ablation", "ablation"]


def test_each_condition_runs_through_its_lengths_within_its_band():
    figure = figures.context_curve(CONTEXT, metric="profile_r")
    real, ablation = trace(figure, "real"), trace(figure, "ablation")
    np.testing.assert_array_equal([real.x, real.y], [[512, 2048, 8192], [0.60, 0.63, 0.66]])
    np.testing.assert_array_equal(ablation.y, [0.61, 0.60, 0.59])
    assert real.hovertext[0] == "<b>real</b>, 512 bp<br>0.600 [0.580, 0.610]"
    assert (real.line.color, real.marker.symbol) != (ablation.line.color, ablation.marker.symbol)
    band = trace(figure, "interval of real")
    np.testing.assert_array_equal(band.x, [512, 2048, 8192, 8192, 2048, 512])
    np.testing.assert_allclose(band.y, [0.61, 0.65, 0.69, 0.64, 0.62, 0.58])
    assert band.fillcolor == real.line.color
    axis = figure.layout.xaxis
    assert (axis.type, axis.tickvals) == ("log", (512.0, 2048.0, 8192.0))
    assert axis.ticktext == ("512", "2,048", "8,192")
    assert figure.layout.yaxis.title.text == "profile r"
    one = CONTEXT[CONTEXT["model"] == "real"].drop(columns="model")
    assert trace(figures.context_curve(one, metric="profile_r"), "profile_r").y[0] == 0.60
    bare = figures.context_curve(one.assign(ci_low=None, ci_high=None))
    band = trace(bare, "interval of score")
    np.testing.assert_array_equal(band.y[:3], band.y[:2:-1])


def test_contexts_that_cannot_be_drawn_are_refused():
    refused(figures.context_curve, "also ci_low", CONTEXT.drop(columns="ci_low"))
    refused(figures.context_curve, "context of 0 bp, expected at least 1", CONTEXT.replace(512, 0))
    twice = pd.concat([CONTEXT, CONTEXT.iloc[:1]])
    refused(figures.context_curve, "1 of 7 rows of metrics repeat a model and context_bp", twice)
    refused(figures.context_curve, "1 of 6 value of metrics", CONTEXT.replace(0.63, np.nan))


def test_a_learning_curve_counts_examples():
    table = CONTEXT.rename(columns={"context_bp": "n"})
    figure = figures.sample_curve(table, metric="auroc")
    real = trace(figure, "real")
    assert real.hovertext[0] == "<b>real</b>, 512 examples<br>0.600 [0.580, 0.610]"
    assert figure.layout.xaxis.title.text == "examples learned from (log scale)"


def test_one_or_two_models_of_one_metric_have_room():
    table = pd.DataFrame({"metric": "auroc", "value": [0.6, 0.7], "model": ["a", "b"], "n": 9})
    table = table.assign(ci_low=0.5, ci_high=0.8, split="test", fold=None)
    for n in (1, 2):
        assert len(figures.metric_bars(table.iloc[:n], "auroc").data[0].x) == n


# ---- completeness_bars

RELATIVE = pd.Series({"g1": 0.01, "g2": -0.20, "g3": 0.05, "g4": 0.07})
DELTA = pd.Series({"g4": 0.5, "g3": 0.1, "g2": -0.9, "g1": 0.02})


def test_genes_are_parted_at_the_limit_the_worst_on_top():
    figure = figures.completeness_bars(DELTA, RELATIVE, names=pd.Series({"g2": "<lacZ>"}))
    rows = row_labels(figure)
    assert list(rows.values()) == ["&lt;lacZ&gt; (g2)", "g4", "g3", "g1"]
    drawn = {}
    for name in ("beyond the limit", "within the limit"):
        bar = trace(figure, name)
        for x, y, miss, text in zip(bar.x, bar.y, bar.customdata, bar.hovertext, strict=True):
            assert rows[y] == text
            drawn[text] = (name.split()[0], x, miss)
    assert drawn == {
        "&lt;lacZ&gt; (g2)": ("beyond", 0.20, -0.9),
        "g4": ("beyond", 0.07, 0.5),
        "g3": ("within", 0.05, 0.1),
        "g1": ("within", 0.01, 0.02),
    }
    beyond = trace(figure, "beyond the limit").marker
    assert (beyond.pattern.shape, beyond.pattern.bgcolor) == ("/", beyond.color)
    assert "2 of 4 genes within 5.0% of the prediction" in figure.layout.title.text
    far = figures.completeness_bars(DELTA, RELATIVE / 1000, threshold=0.15)
    assert far.layout.shapes[0].x0 == far.layout.shapes[0].x1 == 0.15
    assert far.layout.xaxis.range[1] > 0.15
    assert len(trace(far, "beyond the limit").x) == 0


def test_many_genes_are_drawn_without_labels_in_less_room():
    series = pd.Series(0.01, index=[f"g{i:03d}" for i in range(61)])
    crowded = figures.completeness_bars(series, series).layout
    assert not crowded.yaxis.ticktext
    roomy = figures.completeness_bars(series[:60], series[:60]).layout
    assert len(roomy.yaxis.ticktext) == 60
    assert crowded.height < roomy.height


def test_genes_predicted_as_an_empty_sequence_is_are_counted():
    some = figures.completeness_bars(DELTA, RELATIVE.replace(0.01, np.nan))
    assert list(row_labels(some).values()) == ["g2", "g4", "g3"]
    text = some.layout.title.text
    assert "1 of 3 genes within" in text
    assert "; 1 more" in text
    none = figures.completeness_bars(DELTA, RELATIVE * np.nan)
    assert "These data have no prediction other than that" in none.layout.title.text
    assert not none.data


def test_series_that_do_not_belong_together_are_refused():
    bars = figures.completeness_bars
    refused(bars, "0 rows in delta", DELTA[:0], RELATIVE[:0])
    refused(bars, r"4 genes of delta, 3 .* expected the same genes \(3 are", DELTA, RELATIVE[:3])
    refused(bars, "1 of 4 values of relative delta not", DELTA, RELATIVE.replace(0.01, np.inf))


# ---- class_scores


def test_a_class_has_its_models_below_one_another_and_the_best_class_is_on_top():
    rows = [
        ("auroc_start", "genesplice", 0.6, 0.5, 0.7), ("auroc_start", "column", 0.9, 0.8, 1.0),
        ("auroc_codon_12_3", "genesplice", 0.8, 0.7, 0.85), ("auroc_stop", "column", 0.7, 0.6, 0.8),
        ("auroc_codon_12_3", "column", 0.4, None, None),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["metric", "model", "value", "ci_low", "ci_high"])
    figure = figures.class_scores(table.iloc[::-1])
    assert list(figure.layout.yaxis.ticktext) == [
        "codon positions 1 and 2", "start codons", "stop codons",
    ]  # fmt: skip
    ours, column = trace(figure, "genesplice"), trace(figure, "alignment column")
    assert figure.data[0] is ours
    at = {round(y): (x, y) for x, y in zip(ours.x, ours.y, strict=True)}
    assert {row: x for row, (x, _) in at.items()} == {0: 0.8, 1: 0.6}
    below = dict(zip(np.round(column.y), zip(column.x, column.y, strict=True), strict=True))
    assert {row: x for row, (x, _) in below.items()} == {0: 0.4, 1: 0.9, 2: 0.7}
    assert below[1][1] - at[1][1] == pytest.approx(0.24)
    i = list(ours.x).index(0.6)
    np.testing.assert_allclose((ours.error_x.array[i], ours.error_x.arrayminus[i]), 0.1)
    assert column.error_x.array[list(column.x).index(0.4)] == 0
    (line,) = figure.layout.shapes
    assert (line.x0, line.x1) == (0.5, 0.5)
    refused(figures.class_scores, "repeat a metric and model", pd.concat([table, table]))


# ---- leakage_table


def check(name: str, status: str, **fields) -> dict:
    one = {"check": name, "value": 0.0, "unit": "share of genes", "threshold": "red above 0"}
    return one | {"status": status, "why": "because"} | fields


CHECKS = [
    check("operon_mates", "green"),
    check("copies", "amber", value=0.02345),
    check("relatives", "green", value=12345, unit="genes", threshold=None),
    check("samples", "red", value=None),
]


def cells(figure) -> list[tuple[str, str]]:
    return list(zip(*figure.data[0].cells["values"], strict=True))


def test_checks_are_drawn_worst_first_with_value_limit_and_reason(tiny_bundle):
    figure = figures.leakage_table({"status": "red", "checks": CHECKS})
    assert cells(figure) == [
        ("<b>■ red</b>", "<b>samples</b>: not measured; limit: red above 0. Why: because"),
        (
            "<b>▲ amber</b>",
            "<b>copies</b>: 2.345 % of genes; limit: red above 0. Why: because",
        ),
        (
            "<b>● green</b>",
            "<b>operon mates</b>: 0 % of genes; limit: red above 0. Why: because",
        ),
        ("<b>● green</b>", "<b>relatives</b>: 12,345 genes. Why: because"),
    ]
    assert "overall: ■ red" in figure.layout.title.text
    assert len(set(figure.data[0].cells.fill.color[0])) == 3
    long = [CHECKS[0] | {"why": "word " * 60}, *CHECKS[1:]]
    longer = figures.leakage_table({"status": "red", "checks": long})
    (_, narrow), *_, (_, wide) = longer.layout.meta["heights"]
    assert narrow - figure.layout.meta["heights"][0][1] >= 17 * (300 // 39 - 1)
    assert wide == longer.layout.height < narrow - 17 * (300 // 39 - 300 // 110 - 1)
    real = figures.leakage_table(tiny_bundle.leakage)
    assert len(cells(real)) == len(tiny_bundle.leakage["checks"])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, "0.1235 u"),
        (1234567.0, "1,234,567 u"),
        (np.float32(0.5), "0.5 u"),
        (np.int64(4200), "4,200 u"),
        (True, "True u"),
        ("none stated", "none stated u"),
        ("<i>%{x}", "&lt;i&gt;&#37;{x} u"),
        (float("nan"), "not measured"),
    ],
)
def test_values_are_rounded_but_never_left_out(value, shown):
    one = {"status": "green", "checks": [check("c", "green", value=value, unit="u")]}
    assert cells(figures.leakage_table(one))[0][1].startswith(f"<b>c</b>: {shown};")


def test_leakage_reports_that_cannot_be_drawn_are_refused():
    table = figures.leakage_table
    refused(table, "leakage checks with columns none", {"status": "green", "checks": []})
    refused(table, "status 'None' in the leakage, expected red, amber", {"checks": CHECKS})
    refused(table, "status 'yellow'", {"status": "red", "checks": [check("c", "yellow")]})
    broken = [{k: v for k, v in CHECKS[0].items() if k != "why"}]
    refused(table, "expected also why", {"status": "red", "checks": broken})


# ---- learning rates and influence


def test_the_proposed_rates_are_shaded_under_both_curves():
    loss = 2 + np.cos(np.arange(40))
    curve = pd.DataFrame({"learning_rate": np.geomspace(1e-5, 1, 40), "loss": loss})
    curve["smoothed"] = loss / 2
    figure = figures.rate_range(curve[::-1], 1e-4, 1e-2)
    (shape,) = figure.layout.shapes
    assert (shape.x0, shape.x1, figure.layout.xaxis.type) == (1e-4, 1e-2, "log")
    for name, column in (("each step", "loss"), ("smoothed", "smoothed")):
        one = trace(figure, name)
        np.testing.assert_array_equal([one.x, one.y], curve[["learning_rate", column]].T)
    refused(figures.rate_range, r"bounds 1 and 0\.1", curve, 1.0, 0.1)
    refused(figures.rate_range, "smoothed", curve.drop(columns="smoothed"), 0.1, 1.0)


def test_schedules_run_over_the_steps_and_the_chosen_one_is_thick():
    rows = [(name, step, 0.1 * step) for name in ("b", "a", "<i>") for step in (2, 0, 1)]
    rates = pd.DataFrame(rows, columns=["schedule", "step", "learning_rate"])
    figure = figures.rate_schedules(rates, highlight=["a"])
    drawn = {one.name: one for one in figure.data}
    assert set(drawn) == {"b", "a", "&lt;i&gt;"}
    assert len({one.line.color for one in figure.data}) == 3
    assert drawn["a"].line.width > drawn["b"].line.width == drawn["&lt;i&gt;"].line.width
    for one in figure.data:
        np.testing.assert_allclose([one.x, one.y], [[0, 1, 2], [0, 0.1, 0.2]])
    refused(figures.rate_schedules, "highlight 'c', expected b, a, <i>", rates, highlight=["c"])
    refused(figures.rate_schedules, "step", rates.drop(columns="step"))


def test_influences_stand_on_their_bands_and_only_those_above_are_full():
    table = pd.DataFrame({"id": ["a", "<b>b</b>", "c", "d"], "n_edges": [3, 4, 5, 6], "p": 0.5})
    table["mean"] = [0.1, 2.0, 0.5, -1.0]
    table["null_low"], table["null_high"] = [-0.5, -0.4, -0.3, -2.0], [0.5, 0.4, 0.6, 0.0]
    low = np.linspace(-0.1, -0.9, 12)
    others = table.loc[[3] * 12].assign(id=ids(12), mean=low)
    table = pd.concat([table, others], ignore_index=True)
    figure = figures.influence_bars(table, names=pd.Series({"c": "crp"}))
    dots = trace(figure, "this graph")
    rows = [row_labels(figure)[y] for y in dots.y]
    assert rows == ["&lt;b&gt;b&lt;/b&gt;", "crp", "a", *ids(12)]
    assert list(dots.x) == [2.0, 0.5, 0.1, *low]
    assert list(dots.marker.symbol) == ["diamond", *["diamond-open"] * 14]
    bands = [list(x) for x, _ in polygons(trace(figure, "random graphs, middle 95 %"))]
    assert bands == [[-0.4, 0.4], [-0.3, 0.6], [-0.5, 0.5], *[[-2.0, 0.0]] * 12]
    assert "1 of 16 nodes of the graph" in figure.layout.title.text
    none = figures.influence_bars(table.iloc[:0], title="Pathways")
    assert "These data have no pathways of these genes;" in none.layout.title.text
    said = influence_sentence(table, "pathways")
    assert said == "1 of 16 pathways above their band of random graphs"
    chance = influence_sentence(table.assign(chance_above=0.126), "sets")
    assert chance.endswith("graphs (2 expected by chance)")
    refused(figures.influence_bars, "also p", table.drop(columns="p"))
    refused(figures.influence_bars, "not finite", table.assign(mean=np.nan))


def test_parts_end_where_the_prediction_is():
    table = pd.DataFrame(
        {"sequence": [-2.0, 1.0], "near": [1.0, 0.5], "middle": [0.5, 0.0], "far": [0.0, -0.25]}
    ).assign(change=[-0.5, 1.3], gene_id=["b", "a"])
    figure = figures.part_bars(table)
    bars = [one for one in figure.data if one.type == "bar"]
    assert [one.name for one in bars] == ["sequence", "near", "middle", "far"]
    assert [list(one.x) for one in bars] == [table[one.name].tolist()[::-1] for one in bars]
    assert figure.layout.barmode == "relative"
    assert list(figure.data[-1].x) == [1.3, -0.5]
    alone = figures.part_bars(table[["gene_id", "sequence", "change"]])
    assert len(alone.data) == 2
    assert "no relatives are read" in alone.layout.title.text
    with pytest.raises(InputError, match="expected also change"):
        figures.part_bars(table[["gene_id", "sequence"]])

"""Figures of data, training and scores: heat maps, curves, bars with intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr, spearmanr

from genesplice.results import label
from genesplice.show import theme as th
from genesplice.show.theme import require, require_table, row_texts, safe

_SPLITS = {
    "train": (th.BLUE, "circle"), "val": (th.VERMILLION, "diamond"), "test": (th.GREEN, "square")
}  # fmt: skip
_CROWD_RADIUS = 0.3  # log2(TPM+1)


def condition_heatmap(
    residual: pd.DataFrame,
    *,
    max_genes: int = 150,
    names: pd.Series | None = None,
    title: str = "Genes across conditions",
) -> go.Figure:
    """Draw how genes differ between conditions, rows and columns in order of similarity.

    The genes whose values spread most over conditions are shown. Both orders come from Ward's
    hierarchical clustering with optimal leaf order, after sorting by label: the order of the
    input has no influence. The colours end at the 99th percentile of the absolute values.

    Parameters
    ----------
    residual
        Genes x conditions, in log2(TPM+1) around each gene's level. NaN is left blank and
        counts as 0 in the clustering.
    max_genes
        Genes to show.
    names
        Gene name by gene_id, for labels; ids without a name keep the id alone.

    Raises
    ------
    InputError
        An empty table, labels that repeat, infinities, no value at all, or `max_genes` below 1.
    """
    is_fine = residual.size and residual.index.is_unique and residual.columns.is_unique
    found = f"{len(residual)} genes x {residual.shape[1]} conditions, empty or repeated"
    require(is_fine, found, "at least 1 x 1, all different")
    require(max_genes >= 1, f"max_genes {max_genes}", "at least 1")
    table = residual.sort_index(axis=0).sort_index(axis=1).astype(np.float64)
    n_infinite, n_finite = (int(f(table).to_numpy().sum()) for f in (np.isinf, np.isfinite))
    found = f"{n_infinite:,} infinite and {n_finite:,} finite of {table.size:,} residuals"
    require(n_finite and not n_infinite, found, "0 infinite and at least 1 finite")
    spread = table.std(axis=1, ddof=0).fillna(0.0).sort_values(ascending=False, kind="stable")
    table = table.loc[sorted(spread.index[:max_genes])]
    filled = table.fillna(0.0).to_numpy()
    table = table.iloc[_similarity_order(filled), _similarity_order(filled.T)]
    limit = float(np.nanpercentile(np.abs(table.to_numpy()), 99)) or 1.0
    n_genes, n_conditions = table.shape
    has_x, has_y = n_conditions <= th.LABELS_MAX, n_genes <= th.LABELS_MAX
    height = 120 + (15 * n_genes if has_y else max(300, 3 * n_genes))
    height += 6 * max(map(len, map(str, table.columns))) if has_x else 0
    shown = f"the {n_genes:,} of {len(residual):,} genes that vary most, {n_conditions:,} "
    figure = th.blank_figure(height, title, f"{shown}conditions; colour: residual in log₂(TPM+1)")
    figure.add_heatmap(
        z=table.to_numpy(np.float32), x=[safe(condition) for condition in table.columns],
        y=[safe(label) for label in th.gene_labels(table.index, names)], zmin=-limit, zmax=limit,
        colorscale=th.DIVERGING, colorbar=th.COLOUR_BAR, hoverongaps=False,
        hovertemplate="<b>%{y}</b><br>%{x}<br>residual %{z:.2f} log₂(TPM+1)<extra></extra>",
    )  # fmt: skip
    shared = {"type": "category", "ticks": "", "showgrid": False, "tickfont_size": 10}
    x_title, y_title = "conditions by similarity", "" if has_y else "genes"
    figure.update_xaxes(shared, showticklabels=has_x, title_text=x_title, tickangle=-90)
    figure.update_yaxes(shared, showticklabels=has_y, title_text=y_title)
    return figure.update_yaxes(tickmode="linear", dtick=1)


def _similarity_order(values: np.ndarray) -> np.ndarray:
    """Order of rows in which neighbours are alike: Ward's tree, leaves ordered optimally."""
    if len(values) < 3:
        return np.arange(len(values))
    distances = pdist(values)
    return leaves_list(optimal_leaf_ordering(linkage(distances, method="ward"), distances))


def learning_curves(
    log: pd.DataFrame, *, smoothing: float = 0.9, title: str = "Learning curves"
) -> go.Figure:
    """Draw a panel for each metric over the steps, and the learning rate at the bottom.

    Training values are drawn pale with an exponential mean over them; validation and test values
    are few and stay as they are, with markers. The order of rows does not matter.

    Parameters
    ----------
    log
        Columns step, metric, split (train, val, test), value. Rows of the metric learning_rate
        go to the last panel. NaN leaves a gap.
    smoothing
        Weight of the past in the exponential mean, in [0, 1).

    Raises
    ------
    InputError
        Missing columns, no rows, another split, or `smoothing` out of range.
    """
    require_table(log, "log", ["step", "metric", "split", "value"], among={"split": _SPLITS})
    require(0 <= smoothing < 1, f"smoothing {smoothing:g}", "0 or more and below 1")
    metrics = sorted(set(log["metric"]), key=lambda name: (name == "learning_rate", name))
    n = len(metrics)
    figure = make_subplots(n, 1, shared_xaxes=True, vertical_spacing=0.07 if n > 1 else 0)
    th.blank_figure(70 + 190 * n, title, figure=figure)
    log = log.assign(split=pd.Categorical(log["split"], list(_SPLITS)))
    log, seen = log.sort_values(["step", "value"], kind="stable"), set()
    for (metric, split), part in log.groupby(["metric", "split"], observed=True):
        (colour, symbol), row = _SPLITS[split], metrics.index(metric) + 1
        x, values, is_rate = part["step"], part["value"].astype(float), metric == "learning_rate"
        hover = f"{split}, step %{{x:,}}<br>{safe(metric)} %{{y:.4g}}"
        name, shared = split, {"legendgroup": split, "hover": hover}
        if split == "train" and not is_rate:
            raw = {"name": "train, each step", "opacity": 0.35, "showlegend": False}
            figure.add_trace(th.line(x, values, colour, width=1, **raw, **shared), row, 1)
            # Without the bias of its start; NaN are passed over.
            values = values.ewm(alpha=1 - smoothing, adjust=True, ignore_na=True).mean()
            name = "train, smoothed"
        new = not is_rate and split not in seen
        look = {"mode": "lines" if split == "train" else "lines+markers", "showlegend": new}
        marker, colour = {"symbol": symbol, "size": 6}, th.MUTED if is_rate else colour
        trace = th.line(x, values, colour, name=name, marker=marker, **look, **shared)
        figure.add_trace(trace, row, 1)
        seen |= {split} if new else set()
    for row, metric in enumerate(metrics, 1):
        figure.update_yaxes(title_text=th.words(metric, 22), exponentformat="power", row=row)
    return figure.update_xaxes(tickformat="~s").update_xaxes(title_text="optimiser step", row=n)


def metric_bars(
    metrics: pd.DataFrame,
    metric: str | Sequence[str],
    *,
    highlight: str | Sequence[str] = (),
    split: str = "test",
    fold: int | None = None,
    title: str = "Scores on held-out genes",
) -> go.Figure:
    """Draw models as horizontal bars with 95 % intervals, the best on top, a panel a metric.

    A model with several seeds has the mean of its values and of its limits, and a dot for each
    seed. Models of `highlight` are blue with a bold name, all others grey. Ties are sorted by
    name, so the order of rows does not matter.

    Parameters
    ----------
    metrics
        Records of metrics.json: metric, value, ci_low, ci_high, n, model, split, fold, seed.
        Empty intervals draw no whisker.
    metric
        One name or several.
    split, fold
        Which records to draw; fold None takes those that pool all folds.

    Raises
    ------
    InputError
        Missing columns, a metric without a record, a highlighted model that is not there, or two
        records of a metric for one model and seed.
    """
    ends = ["value", "ci_low", "ci_high", "n"]
    require_table(metrics, "metrics", ["metric", *ends, "model", "split", "fold"])
    chosen = [metric] if isinstance(metric, str) else list(metric)
    bold = {highlight} if isinstance(highlight, str) else set(highlight)
    is_fold = metrics["fold"].isna() if fold is None else metrics["fold"] == fold
    rows = metrics[is_fold & (metrics["split"] == split) & metrics["metric"].isin(chosen)]
    rows = rows.assign(seed=rows["seed"].astype(object) if "seed" in rows else None)
    where = f"(split {split}, fold {'pooled' if fold is None else fold})"
    lost = [name for name in chosen if name not in set(rows["metric"])] if chosen else ["no metric"]
    none = f"0 of {len(metrics):,} records of {', '.join(lost[:1])} {where}"
    require(not lost, none, "at least 1")
    unique = ["metric", "model", "seed"]
    rows = require_table(rows, f"records {where}", [], unique=unique, finite=["value"])
    missing = ", ".join(map(repr, sorted(bold - set(rows["model"]))))
    require(not missing, f"no record of model {missing} {where}", "the highlighted model")
    rows = rows.astype(dict.fromkeys(ends, np.float64))
    tables = [rows[rows["metric"] == name] for name in chosen]
    shown = {one: th.text_lines(label(one), 22, 2) for one in rows["model"].unique()}
    row_px = 32.0 if max(map(len, shown.values())) > 1 else 28.0
    heights = [row_px * table["model"].nunique() for table in tables]
    gap = 66.0 / (sum(heights) + 66 * (len(chosen) - 1)) if len(chosen) > 1 else 0.0
    figure = make_subplots(len(chosen), 1, row_heights=heights, vertical_spacing=gap)
    body = sum(heights) + 66 * len(chosen) + 10
    has_ends = rows[["ci_low", "ci_high"]].notna().any(axis=None)
    th.blank_figure(body, title, "whiskers: 95 % intervals" if has_ends else "", figure)
    for row, (name, seeds) in enumerate(zip(chosen, tables, strict=True), 1):
        table = seeds.groupby("model", sort=True)[ends].mean().reset_index()
        table = table.sort_values("value", ascending=False, kind="stable", ignore_index=True)
        value, down, up = th.whiskers(table)
        y, is_bold = table.index.to_numpy(np.float64), table["model"].isin(bold)
        at: dict[str, Any] = {"row": row, "col": 1, "showlegend": False}
        about = "<b>{model}</b><br>{metric} {value:.3f} [{ci_low:.3f}, {ci_high:.3f}]<br>"
        error = {"symmetric": False, "array": up, "arrayminus": down}
        figure.add_bar(
            orientation="h", name=safe(name), x=value, y=y, width=0.62, hoverinfo="text",
            marker_color=np.where(is_bold, th.BLUE, "#C4C4C4"),
            error_x=error | {"color": th.INK, "thickness": 1.2, "width": 3},
            hovertext=row_texts(
                table.assign(metric=name, model=table["model"].map(label)), about + "n = {n:,.0f}"
            ), **at,
        )  # fmt: skip
        many = seeds[seeds.duplicated("model", keep=False)]
        if len(many):
            place = pd.Index(table["model"]).get_indexer(many["model"]).astype(np.float64)
            figure.add_scatter(
                name="seeds", x=many["value"].to_numpy(), y=place, mode="markers", hoverinfo="text",
                marker={"size": 5, "color": "white", "line": {"color": th.INK, "width": 1}},
                hovertext=row_texts(many, "{model}, seed {seed}: {value:.3f}"), **at,
            )  # fmt: skip
        figure.add_scatter(
            name="values", x=np.maximum(value + up, 0.0), y=y, text=[f" {v:.3f}" for v in value],
            mode="text", textposition="middle right", textfont={"size": 12, "color": th.INK},
            hoverinfo="skip", cliponaxis=False, **at,
        )  # fmt: skip
        low, high = min(0.0, float((value - down).min())), max(0.0, float((value + up).max()))
        span = [low * 1.05, low + (high - low) * 1.22 if high > low else 1.0]
        figure.update_xaxes(title_text=th.words(name), range=span, row=row)
        labels = ["<br>".join(shown[model]) for model in table["model"]]
        labels = [f"<b>{a}</b>" if b else a for a, b in zip(labels, is_bold, strict=True)]
        th.name_rows(figure, labels, row=row)
    return figure


def class_scores(
    metrics: pd.DataFrame, *, reference: float = 0.5, title: str = "Known classes"
) -> go.Figure:
    """Draw a row for each class, ours and what it is compared with below one another.

    Classes are sorted by our value, the best on top; the dotted line is the reference.

    Parameters
    ----------
    metrics
        metric (the class, with or without `auroc_`), model, value, ci_low and ci_high.

    Raises
    ------
    InputError
        Missing columns, no rows, or two of a class and model.
    """
    columns = ["metric", "model", "value", "ci_low", "ci_high"]
    table = require_table(metrics, "classes", columns, unique=columns[:2], finite=["value"])
    table = table.assign(model=table["model"].map(label)).sort_values(columns[:2], kind="stable")
    wide = table.pivot(index="metric", columns="model", values="value")
    models = sorted(wide.columns, key=lambda name: (name != "genesplice", name))
    wide = wide.sort_index().sort_values(models[0], ascending=False, kind="stable")
    figure = th.blank_figure(
        96 + (14 + 12 * len(models)) * len(wide), title, "AUROC; lines: 95 % intervals"
    )
    for i, model in enumerate(models):
        part = table[table["model"] == model]
        value, down, up = th.whiskers(part)
        y = wide.index.get_indexer(part["metric"]) + 0.24 * (i - (len(models) - 1) / 2)
        error = {"symmetric": False, "array": up, "arrayminus": down, "thickness": 1.4, "width": 0}
        about = "<b>{metric}</b>, {model}<br>{value:.3f} [{ci_low:.3f}, {ci_high:.3f}]"
        colour = th.BLUE if model == "genesplice" else (th.ORANGE, th.MUTED)[i % 2 - 1]
        figure.add_scatter(
            name=safe(model), x=value, y=y, mode="markers", hoverinfo="text",
            marker={"size": 9, "symbol": th.SYMBOLS[i % 8], "color": colour},
            error_x=error | {"color": colour}, hovertext=row_texts(part, about),
        )  # fmt: skip
    figure.add_vline(x=reference, line=th.DOTTED)
    names = [str(one).removeprefix("auroc_") for one in wide.index]
    names = [th.words(label(one), 24) for one in names]
    th.name_rows(figure, names)
    return figure.update_xaxes(title_text="AUROC")


def predicted_observed(
    predictions: pd.DataFrame, *, title: str = "Predicted against observed level"
) -> go.Figure:
    """Draw predicted against observed level, one point a gene, with the line of identity.

    Colour is the number of genes within 0.3 log2(TPM+1) of a point; the crowded points lie on
    top. The subtitle has Spearman's and Pearson's correlation and R² over the points drawn. The
    order of rows does not matter.

    Parameters
    ----------
    predictions
        Columns gene_id, observed, predicted (log2(TPM+1), means over conditions), fold. A column
        name, if there, is shown on hover. Held-out genes only, or the figure flatters.

    Raises
    ------
    InputError
        Missing columns, no rows, a gene twice, or values that are not finite.
    """
    axes = ["observed", "predicted"]
    columns = ["gene_id", *axes, "fold"]
    table = require_table(predictions, "predictions", columns, unique=["gene_id"], finite=axes)
    table = table.sort_values("gene_id", kind="stable")
    table = table if "name" in table.columns else table.assign(name=table["gene_id"])
    xy = table[axes].to_numpy()
    crowd = cKDTree(xy).query_ball_point(xy, _CROWD_RADIUS, return_length=True)
    table = table.assign(crowd=crowd.astype(np.float64))
    (x, y), subtitle = xy.T, f"{len(table):,} genes; colour: genes within 0.3"
    if min(np.ptp(x), np.ptp(y)) > 0:
        r2 = 1 - ((x - y) ** 2).sum() / ((x - x.mean()) ** 2).sum()
        fit = f"Spearman {spearmanr(x, y).statistic:.3f}, Pearson {pearsonr(x, y).statistic:.3f}"
        subtitle = f"{fit}, R² {r2:.3f}, {subtitle}"
    table = table.sort_values("crowd", kind="stable")
    figure = th.blank_figure(450, title, subtitle)
    scale = {"colorscale": th.SEQUENTIAL, "cmin": 0, "cmax": float(table["crowd"].max())}
    about = "<b>{name}</b> ({gene_id}), fold {fold}<br>observed {observed:.2f}, predicted "
    figure.add_scatter(
        name="genes", x=table["observed"].to_numpy(), y=table["predicted"].to_numpy(np.float32),
        mode="markers", marker={"size": 5, "color": table["crowd"].to_numpy(), **scale},
        hovertext=row_texts(table, about + "{predicted:.2f} log₂(TPM+1)"), hoverinfo="text",
        marker_colorbar=th.COLOUR_BAR, showlegend=False,
    )  # fmt: skip
    low, high = xy.min(), xy.max()
    pad = 0.03 * (high - low) or 0.5
    ends, axis = np.array([low - pad, high + pad]), "{} level, log₂(TPM+1)".format
    identity = {"dash": "dash", "name": "identity", "showlegend": False}
    figure.add_trace(th.line(ends, ends, th.INK, width=1, **identity))
    figure.update_xaxes(title_text=axis("observed"), range=ends, constrain="domain")
    figure.update_yaxes(title_text=axis("predicted"), range=ends, constrain="domain")
    return figure.update_yaxes(scaleanchor="x")


def rate_range(
    curve: pd.DataFrame, low: float, high: float, *, title: str = "Learning-rate range test"
) -> go.Figure:
    """Draw the loss of a run whose rate rises, and the rates that are proposed.

    Parameters
    ----------
    curve
        Columns learning_rate, loss and smoothed, a row a step.
    low, high
        Bounds of the shaded interval.

    Raises
    ------
    InputError
        Missing columns, no rows, or bounds that do not rise from above 0.
    """
    require_table(curve, "curve", ["learning_rate", "loss", "smoothed"])
    require(0 < low < high, f"bounds {low:g} and {high:g}", "0 < low < high")
    curve = curve.sort_values("learning_rate", kind="stable")
    figure = th.blank_figure(360, title)
    figure.add_vrect(x0=low, x1=high, fillcolor=th.BLUE, opacity=0.12, line_width=0)
    said = {"hover": "rate %{x:.2e}<br>%{y:.3f} bits a base"}
    x, raw, smooth = curve["learning_rate"].to_numpy(), curve["loss"], curve["smoothed"]
    figure.add_trace(th.line(x, raw, th.GREY, width=1, name="each step", **said))
    figure.add_trace(th.line(x, smooth, th.INK, name="smoothed", **said))
    figure.update_xaxes(title_text="learning rate", type="log", exponentformat="power")
    return figure.update_yaxes(title_text="training bits per base")


def rate_schedules(
    rates: pd.DataFrame, *, highlight: Sequence[str] = (), title: str = "Learning-rate schedules"
) -> go.Figure:
    """Draw the rate of every schedule over the steps, those of `highlight` thick.

    Parameters
    ----------
    rates
        Columns schedule, step and learning_rate. Colours follow the names.

    Raises
    ------
    InputError
        Missing columns, no rows, or a highlighted schedule that is not there.
    """
    require_table(rates, "rates", ["schedule", "step", "learning_rate"])
    missing = ", ".join(map(repr, sorted(set(highlight) - set(rates["schedule"]))))
    names = ", ".join(map(str, rates["schedule"].unique()))
    require(not missing, f"highlight {missing}", names)
    figure, n = th.blank_figure(420, title), len(th.COLOURS)
    for i, (name, part) in enumerate(rates.sort_values("step", kind="stable").groupby("schedule")):
        look = {"dash": th.DASHES[i // n % 3], "width": 4 if name in highlight else 1.5}
        look["hover"] = f"{safe(name)}<br>step %{{x:,}}, rate %{{y:.2e}}"
        x, y = part["step"].to_numpy(), part["learning_rate"]
        figure.add_trace(th.line(x, y, th.COLOURS[i % n], name=safe(name), **look))
    figure.update_xaxes(title_text="optimiser step", tickformat="~s")
    return figure.update_yaxes(title_text="learning rate", exponentformat="power")

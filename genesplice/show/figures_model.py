"""Figures of training, scores and checks: curves, bars with intervals, heat maps, tables."""

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

from genesplice.errors import InputError
from genesplice.show.theme import (
    BLUE,
    COLOUR_BAR,
    COLOURS,
    DIVERGING,
    GREEN,
    INK,
    MUTED,
    SEQUENTIAL,
    SYMBOLS,
    VERMILLION,
    blank_figure,
    gene_labels,
    name_rows,
    require_table,
    row_texts,
    safe,
    short,
    whiskers,
)

_SPLITS = {"train": (BLUE, "circle"), "val": (VERMILLION, "diamond"), "test": (GREEN, "square")}
_LABELS_MAX = 60  # rows or columns that are still named on an axis
_CROWD_RADIUS = 0.3  # log2(TPM+1)


def words(name: object, n_characters: int = 30) -> str:
    """A metric's name for an axis: cut, safe, without underscores."""
    return short(name, n_characters).replace("_", " ")


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
    if not (residual.index.is_unique and residual.columns.is_unique) or residual.empty:
        found = f"{len(residual)} genes x {residual.shape[1]} conditions, empty or repeated"
        raise InputError(found, "at least 1 x 1, all different")
    if max_genes < 1:
        raise InputError(f"max_genes {max_genes}", "at least 1")
    table = residual.sort_index(axis=0).sort_index(axis=1).astype(np.float64)
    n_infinite, n_known = int(np.isinf(table.to_numpy()).sum()), int(table.notna().sum().sum())
    if n_infinite or not n_known:
        found = f"{n_infinite:,} infinite and {n_known - n_infinite:,} finite of {table.size:,}"
        raise InputError(f"{found} residuals", "0 infinite and at least 1 finite")
    spread = table.std(axis=1, ddof=0).fillna(0.0)
    kept = spread.sort_values(ascending=False, kind="stable").index[:max_genes]
    table = table.loc[sorted(kept)]
    filled = table.fillna(0.0).to_numpy()
    table = table.iloc[_similarity_order(filled), _similarity_order(filled.T)]
    limit = float(np.nanpercentile(np.abs(table.to_numpy()), 99)) or 1.0
    n_genes, n_conditions = table.shape
    is_named = {"x": n_conditions <= _LABELS_MAX, "y": n_genes <= _LABELS_MAX}
    label_px = 6 * max(map(len, map(str, table.columns))) if is_named["x"] else 0
    shown = (
        f"the {n_genes:,} of {len(residual):,} genes that vary most, {n_conditions:,} conditions"
    )
    figure = blank_figure(
        120 + (15 * n_genes if is_named["y"] else max(300, 3 * n_genes)) + label_px,
        title,
        f"{shown}; colour: residual in log₂(TPM+1)",
    )
    figure.add_heatmap(
        z=table.to_numpy(np.float32), x=[safe(condition) for condition in table.columns],
        y=[safe(label) for label in gene_labels(table.index, names)], zmin=-limit, zmax=limit,
        colorscale=DIVERGING, colorbar=COLOUR_BAR, hoverongaps=False,
        hovertemplate="<b>%{y}</b><br>%{x}<br>residual %{z:.2f} log₂(TPM+1)<extra></extra>",
    )  # fmt: skip
    for axis, name, text in (("x", "xaxis", "conditions by similarity"), ("y", "yaxis", "genes")):
        text = "" if axis == "y" and is_named["y"] else text
        figure.update_layout({name: {"type": "category", "ticks": "", "showgrid": False}})
        figure.update_layout({name: {"showticklabels": is_named[axis], "title_text": text}})
    figure.update_xaxes(tickangle=-90, tickfont_size=10)
    return figure.update_yaxes(tickmode="linear", dtick=1, tickfont_size=10)


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
    require_table(log, "log", ["step", "metric", "split", "value"])
    if not 0 <= smoothing < 1:
        raise InputError(f"smoothing {smoothing:g}", "0 or more and below 1")
    if unknown := set(log["split"]) - set(_SPLITS):
        raise InputError(f"split {min(map(str, unknown))!r}", ", ".join(_SPLITS))
    metrics = sorted(set(log["metric"]), key=lambda name: (name == "learning_rate", name))
    n = len(metrics)
    figure = make_subplots(n, 1, shared_xaxes=True, vertical_spacing=0.07 if n > 1 else 0)
    blank_figure(70 + 190 * n, title, figure=figure)
    log = log.sort_values(["step", "value"], kind="stable")
    seen = {"learning_rate"}
    for row, metric in enumerate(metrics, 1):
        is_rate = metric == "learning_rate"
        for split, (colour, symbol) in _SPLITS.items():
            part = log[(log["metric"] == metric) & (log["split"] == split)]
            if part.empty:
                continue
            values, is_raw = part["value"].astype(np.float64), split == "train" and not is_rate
            hover = f"{split}, step %{{x:,}}<br>{safe(metric)} %{{y:.4g}}<extra></extra>"
            shared: dict[str, Any] = {"x": part["step"].to_numpy(np.float64), "row": row, "col": 1}
            shared |= {"legendgroup": split, "hovertemplate": hover}
            if is_raw:
                figure.add_scatter(
                    **shared, name=f"{split}, each step", y=values.to_numpy(), mode="lines",
                    line={"color": colour, "width": 1}, opacity=0.35, showlegend=False,
                )  # fmt: skip
                # Without the bias of its start; NaN are passed over.
                values = values.ewm(alpha=1 - smoothing, adjust=True, ignore_na=True).mean()
            figure.add_scatter(
                **shared, name=f"{split}, smoothed" if is_raw else split, y=values.to_numpy(),
                mode="lines" if split == "train" else "lines+markers",
                line={"color": MUTED if is_rate else colour, "width": 2},
                marker={"symbol": symbol, "size": 6}, showlegend=not is_rate and split not in seen,
            )  # fmt: skip
            seen |= set() if is_rate else {split}
        figure.update_yaxes(title_text=words(metric, 22), exponentformat="power", row=row)
    figure.update_xaxes(tickformat="~s")
    return figure.update_xaxes(title_text="optimiser step", row=n)


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
    needed = ["metric", "value", "ci_low", "ci_high", "n", "model", "split", "fold"]
    require_table(metrics, "metrics", needed)
    chosen = [metric] if isinstance(metric, str) else list(metric)
    bold = [highlight] if isinstance(highlight, str) else list(highlight)
    is_fold = metrics["fold"].isna() if fold is None else metrics["fold"] == fold
    rows = metrics[is_fold & (metrics["split"] == split) & metrics["metric"].isin(chosen)]
    rows = rows.assign(seed=rows["seed"].astype(object) if "seed" in rows else None)
    where = f"split {split}, fold {'pooled' if fold is None else fold}"
    lost = [name for name in chosen if name not in set(rows["metric"])] if chosen else ["no metric"]
    if lost:
        found = f"0 of {len(metrics):,} records of {lost[0]}"
        raise InputError(f"{found} ({where})", "at least 1")
    require_table(
        rows, f"records ({where})", [], unique=["metric", "model", "seed"], finite=["value"]
    )
    if missing := set(bold) - set(rows["model"]):
        raise InputError(f"no record of model {min(missing)!r} ({where})", "the highlighted model")
    ends = ["value", "ci_low", "ci_high", "n"]
    rows = rows.astype(dict.fromkeys(ends, np.float64))
    tables = [rows[rows["metric"] == name] for name in chosen]
    heights = [28.0 * table["model"].nunique() for table in tables]
    gap = 66.0 / (sum(heights) + 66 * (len(chosen) - 1))
    figure = make_subplots(len(chosen), 1, row_heights=heights, vertical_spacing=gap)
    blank_figure(sum(heights) + 66 * len(chosen) + 10, title, "whiskers: 95 % intervals", figure)
    for row, (name, seeds) in enumerate(zip(chosen, tables, strict=True), 1):
        table = seeds.groupby("model", sort=True)[ends].mean().reset_index()
        table = table.sort_values("value", ascending=False, kind="stable", ignore_index=True)
        value, down, up = whiskers(table)
        is_bold = table["model"].isin(bold)
        at: dict[str, Any] = {"row": row, "col": 1, "showlegend": False}
        about = "<b>{model}</b><br>{metric} {value:.3f} [{ci_low:.3f}, {ci_high:.3f}]<br>"
        error = {"symmetric": False, "array": up, "arrayminus": down}
        figure.add_bar(
            orientation="h", name=safe(name), x=value, y=table.index.to_numpy(np.float64),
            width=0.62,
            marker_color=np.where(is_bold, BLUE, "#C4C4C4"), hoverinfo="text",
            error_x=error | {"color": INK, "thickness": 1.2, "width": 3},
            hovertext=row_texts(table.assign(metric=name), about + "n = {n:,.0f}"), **at,
        )  # fmt: skip
        many = seeds[seeds.duplicated("model", keep=False)]
        if len(many):
            place = pd.Index(table["model"]).get_indexer(many["model"]).astype(np.float64)
            figure.add_scatter(
                name="seeds", x=many["value"].to_numpy(), y=place, mode="markers", hoverinfo="text",
                marker={"size": 5, "color": "white", "line": {"color": INK, "width": 1}},
                hovertext=row_texts(many, "{model}, seed {seed}: {value:.3f}"), **at,
            )  # fmt: skip
        figure.add_scatter(
            name="values", x=np.maximum(value + up, 0.0), y=table.index.to_numpy(np.float64),
            mode="text", text=[f" {v:.3f}" for v in value], textposition="middle right",
            textfont={"size": 12, "color": INK}, hoverinfo="skip", cliponaxis=False, **at,
        )  # fmt: skip
        low, high = min(0.0, float((value - down).min())), max(0.0, float((value + up).max()))
        span = [low * 1.05, low + (high - low) * 1.22 if high > low else 1.0]
        figure.update_xaxes(title_text=words(name), range=span, row=row)
        labels = [short(model, 22) for model in table["model"]]
        labels = [f"<b>{a}</b>" if b else a for a, b in zip(labels, is_bold, strict=True)]
        name_rows(figure, labels, row=row)
    return figure


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
        Missing columns, no rows, values that are not finite, or a gene that repeats.
    """
    pair = ["observed", "predicted"]
    columns = ["gene_id", *pair, "fold"]
    table = require_table(predictions, "predictions", columns, unique=["gene_id"], finite=pair)
    table = table.sort_values("gene_id", kind="stable")
    table = table.assign(name=table.get("name", table["gene_id"]))
    tree = cKDTree(table[pair].to_numpy())
    table["crowd"] = tree.query_ball_point(tree.data, _CROWD_RADIUS, return_length=True)
    x, y = table["observed"], table["predicted"]
    subtitle = f"{len(table):,} genes; colour: genes within {_CROWD_RADIUS} log₂(TPM+1)"
    if len(table) > 2 and min(np.ptp(x), np.ptp(y)) > 0:
        r2 = 1 - ((x - y) ** 2).sum() / ((x - x.mean()) ** 2).sum()
        fit = f"Spearman {spearmanr(x, y).statistic:.3f}, Pearson {pearsonr(x, y).statistic:.3f}"
        subtitle = f"{fit}, R² {r2:.3f}, {subtitle}"
    table = table.sort_values("crowd", kind="stable")
    figure = blank_figure(450, title, subtitle)
    scale = {"colorscale": SEQUENTIAL, "cmin": 0, "cmax": float(table["crowd"].max())}
    about = "<b>{name}</b> ({gene_id}), fold {fold}<br>observed {observed:.2f}, predicted "
    figure.add_scatter(
        name="genes", x=table["observed"].to_numpy(), y=table["predicted"].to_numpy(np.float32),
        mode="markers", marker={"size": 5, "color": table["crowd"].to_numpy(), **scale},
        hovertext=row_texts(table, about + "{predicted:.2f} log₂(TPM+1)"), hoverinfo="text",
        marker_colorbar=COLOUR_BAR, showlegend=False,
    )  # fmt: skip
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    pad = 0.03 * (high - low) or 0.5
    ends = np.array([low - pad, high + pad])
    figure.add_scatter(
        name="identity", x=ends, y=ends, mode="lines", hoverinfo="skip", showlegend=False,
        line={"color": INK, "width": 1, "dash": "dash"},
    )  # fmt: skip
    figure.update_xaxes(title_text="observed level, log₂(TPM+1)", range=ends, constrain="domain")
    figure.update_yaxes(title_text="predicted level, log₂(TPM+1)", range=ends, constrain="domain")
    return figure.update_yaxes(scaleanchor="x")


def context_curve(
    metrics: pd.DataFrame,
    *,
    metric: str = "score",
    title: str = "Score against context length",
) -> go.Figure:
    """Draw a score against context length, a line per context condition, bands for intervals.

    A line that climbs from left to right while its ablation stays flat says that context helps;
    two lines within each other's bands say that it does not show here.

    Parameters
    ----------
    metrics
        Columns context_bp, value, ci_low, ci_high and, for several conditions, model.
    metric
        Name of the value, for the axis.

    Raises
    ------
    InputError
        Missing columns, no rows, context below 1 bp, or two values for a condition and length.
    """
    table = metrics if "model" in metrics.columns else metrics.assign(model=metric)
    needed = ["context_bp", "value", "ci_low", "ci_high"]
    keys = ["model", "context_bp"]
    table = require_table(table, "metrics", needed, unique=keys, finite=needed[:2])
    if (lowest := table["context_bp"].min()) < 1:
        raise InputError(f"context of {lowest:g} bp", "at least 1 (the axis is logarithmic)")
    figure = blank_figure(360, title, "bands: 95 % intervals")
    table = table.astype({"ci_low": np.float64, "ci_high": np.float64}).sort_values(keys)
    for i, (model, part) in enumerate(table.groupby("model")):
        value, down, up = whiskers(part)
        x, colour, name = part["context_bp"].to_numpy(), COLOURS[i % len(COLOURS)], safe(model)
        figure.add_scatter(
            x=np.concatenate([x, x[::-1]]), y=np.concatenate([value + up, (value - down)[::-1]]),
            mode="lines", line_width=0, fill="toself", fillcolor=colour, opacity=0.16,
            hoverinfo="skip", legendgroup=name, showlegend=False, name=f"interval of {name}",
        )  # fmt: skip
        about = "<b>{model}</b>, {context_bp:,.0f} bp<br>{value:.3f} [{ci_low:.3f}, {ci_high:.3f}]"
        figure.add_scatter(
            name=short(model, 36), legendgroup=name, x=x, y=value, mode="lines+markers",
            line={"color": colour, "width": 2}, hovertext=row_texts(part, about), hoverinfo="text",
            marker={"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 8},
        )  # fmt: skip
    ticks = sorted(set(table["context_bp"]))
    names = [f"{tick:,.0f}" for tick in ticks]
    figure.update_xaxes(type="log", tickmode="array", tickvals=ticks, ticktext=names)
    figure.update_xaxes(title_text="context length (bp, log scale)")
    return figure.update_yaxes(title_text=words(metric))

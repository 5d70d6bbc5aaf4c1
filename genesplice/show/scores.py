"""Figures of how well it went: learning curves, and scores of models with intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError
from genesplice.show.theme import (
    INK,
    MUTED,
    OKABE_ITO,
    blank_figure,
    check_columns,
    intervals,
    safe,
    short,
)

_SPLIT_STYLES = {
    "train": (OKABE_ITO[0], "circle"),
    "val": (OKABE_ITO[3], "diamond"),
    "test": (OKABE_ITO[2], "square"),
}


def _panels(n: int, gap: float) -> list[list[float]]:
    """Domains of n panels stacked from the top, `gap` of the height between two."""
    each = (1.0 - gap * (n - 1)) / n
    return [[max(0.0, 1.0 - each - i * (each + gap)), 1.0 - i * (each + gap)] for i in range(n)]


def _smooth(values: pd.Series, smoothing: float) -> pd.Series:
    """Exponential mean without the bias of its start; NaN are passed over."""
    return values.ewm(alpha=1.0 - smoothing, adjust=True, ignore_na=True).mean()


def learning_curves(
    log: pd.DataFrame,
    *,
    smoothing: float = 0.9,
    title: str = "Learning curves",
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
    check_columns(log, ("step", "metric", "split", "value"), "log")
    if not 0 <= smoothing < 1:
        raise InputError(f"smoothing {smoothing:g}", "0 or more and below 1")
    if unknown := set(log["split"]) - set(_SPLIT_STYLES):
        raise InputError(f"split {sorted(map(str, unknown))[0]!r}", ", ".join(_SPLIT_STYLES))
    metrics = sorted(set(log["metric"]), key=lambda name: (name == "learning_rate", name))
    figure = blank_figure(70 + 190 * len(metrics), title)
    has_legend: set[str] = set()
    for i, (metric, domain) in enumerate(zip(metrics, _panels(len(metrics), 0.07), strict=True)):
        axis = f"y{i + 1}" if i else "y"
        is_rate = metric == "learning_rate"
        for split, (colour, symbol) in _SPLIT_STYLES.items():
            part = log[(log["metric"] == metric) & (log["split"] == split)]
            part = part.sort_values(["step", "value"], kind="stable")
            if part.empty:
                continue
            is_raw = split == "train" and not is_rate
            shared: dict[str, Any] = {
                "x": part["step"].to_numpy(np.float64),
                "yaxis": axis,
                "legendgroup": split,
                "hovertemplate": f"{split}, step %{{x:,}}<br>{safe(metric)} %{{y:.4g}}"
                "<extra></extra>",
            }
            values = part["value"].astype(np.float64)
            if is_raw:
                figure.add_scatter(
                    **shared,
                    name=f"{split}, each step",
                    y=values.to_numpy(),
                    mode="lines",
                    line={"color": colour, "width": 1},
                    opacity=0.35,
                    showlegend=False,
                )
                values = _smooth(values, smoothing)
            figure.add_scatter(
                **shared,
                name=f"{split}, smoothed" if is_raw else split,
                y=values.to_numpy(),
                mode="lines" if split == "train" else "lines+markers",
                line={"color": MUTED if is_rate else colour, "width": 2},
                marker={"symbol": symbol, "size": 6},
                showlegend=not is_rate and split not in has_legend,
            )
            if not is_rate:
                has_legend.add(split)
        number = str(i + 1) if i else ""
        settings = {
            "domain": domain,
            "title": {"text": short(metric, 22).replace("_", " ")},
            "exponentformat": "power",
        }
        figure.update_layout({f"yaxis{number}": settings})
    last = f"y{len(metrics)}" if len(metrics) > 1 else "y"
    figure.update_xaxes(title={"text": "optimiser step"}, anchor=last, tickformat="~s")
    return figure


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

    Models of `highlight` are blue with a bold name, all others grey. Ties are sorted by name, so
    the order of rows does not matter.

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
        Missing columns, a metric without a record, a highlighted model that is not there, or more
        than one record for a model (several seeds: choose one, or average before).
    """
    needed = ("metric", "value", "ci_low", "ci_high", "n", "model", "split", "fold")
    check_columns(metrics, needed, "metrics")
    wanted = [metric] if isinstance(metric, str) else list(metric)
    chosen = [highlight] if isinstance(highlight, str) else list(highlight)
    is_fold = metrics["fold"].isna() if fold is None else metrics["fold"] == fold
    rows = metrics[is_fold & (metrics["split"] == split) & metrics["metric"].isin(wanted)]
    where = f"split {split}, fold {'pooled' if fold is None else fold}"
    for name in wanted:
        models = rows.loc[rows["metric"] == name, "model"]
        if models.empty:
            raise InputError(f"0 of {len(metrics):,} records of {name} ({where})", "at least 1")
        if models.duplicated().any():
            twice, count = models.value_counts().index[0], int(models.value_counts().iloc[0])
            raise InputError(f"{count} records of {name} for model {twice} ({where})", "1")
    if not wanted:
        raise InputError("0 metrics to draw", "at least 1")
    if lost := set(chosen) - set(rows["model"]):
        raise InputError(
            f"no record of model {sorted(lost)[0]!r} ({where})", "the highlighted model"
        )
    n_models = [int((rows["metric"] == name).sum()) for name in wanted]
    figure = blank_figure(
        10 + sum(28 * n + 66 for n in n_models), title, "whiskers: 95 % intervals"
    )
    domains = _stacked(np.array([28.0 * n for n in n_models]), 66.0)
    for i, (name, domain) in enumerate(zip(wanted, domains, strict=True)):
        table = rows[rows["metric"] == name].sort_values("model", kind="stable")
        table = table.sort_values("value", ascending=False, kind="stable")
        value, down, up = intervals(table)
        is_chosen = table["model"].isin(chosen).to_numpy()
        number = str(i + 1) if i else ""
        place = np.arange(len(table), dtype=np.float64)
        labels = [
            f"<b>{short(model, 22)}</b>" if bold else short(model, 22)
            for model, bold in zip(table["model"], is_chosen, strict=True)
        ]
        figure.add_bar(
            orientation="h",
            name=safe(name),
            x=value,
            y=place,
            width=0.62,
            xaxis=f"x{number}",
            yaxis=f"y{number}",
            marker={"color": np.where(is_chosen, OKABE_ITO[0], "#C4C4C4").tolist()},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": up,
                "arrayminus": down,
                "color": INK,
                "thickness": 1.2,
                "width": 3,
            },
            customdata=np.column_stack([value - down, value + up, table["n"].to_numpy(np.float64)]),
            hovertext=[safe(model) for model in table["model"]],
            hovertemplate=f"<b>%{{hovertext}}</b><br>{safe(name)} %{{x:.3f}} "
            "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<br>n = %{customdata[2]:,}<extra></extra>",
            showlegend=False,
        )
        figure.add_scatter(
            x=np.maximum(value + up, 0.0),
            y=place,
            xaxis=f"x{number}",
            yaxis=f"y{number}",
            mode="text",
            text=[f" {v:.3f}" for v in value],
            textposition="middle right",
            textfont={"size": 12, "color": INK},
            hoverinfo="skip",
            cliponaxis=False,
            showlegend=False,
        )
        low, high = min(0.0, float((value - down).min())), max(0.0, float((value + up).max()))
        figure.update_layout(
            {
                f"xaxis{number}": {
                    "anchor": f"y{number}",
                    "title": {"text": short(name, 30).replace("_", " ")},
                    "range": [low * 1.05, low + (high - low) * 1.22 if high > low else 1.0],
                },
                f"yaxis{number}": {
                    "anchor": f"x{number}",
                    "domain": domain,
                    "tickmode": "array",
                    "tickvals": place.tolist(),
                    "ticktext": labels,
                    "range": [len(table) - 0.5, -0.5],
                    "showgrid": False,
                    "ticks": "",
                },
            }
        )
    return figure


def _stacked(heights: np.ndarray, gap: float) -> list[list[float]]:
    """Domains of panels of given pixel heights from the top, `gap` pixels between two."""
    total = heights.sum() + gap * (len(heights) - 1)
    tops = 1.0 - np.concatenate([[0.0], np.cumsum(heights + gap)[:-1]]) / total
    bottoms = np.maximum(tops - heights / total, 0.0)
    return [[float(bottom), float(top)] for bottom, top in zip(bottoms, tops, strict=True)]

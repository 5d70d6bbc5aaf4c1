"""Figures of the context verdict: slopes, scores, dose-response and mass against distance."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError
from genesplice.show.figures_model import context_curve
from genesplice.show.theme import BLUE, COLOURS, GREY, INK, blank_figure, require_table, safe, short


def slope_bars(
    slopes: Sequence[Mapping[str, Any]],
    smallest_effect: float,
    *,
    title: str = "Change per doubling of context",
) -> go.Figure:
    """Draw each slope with its limits, compared with 0 and the smallest effect of interest.

    An interval wholly left of the dotted line is a no; one wholly right of 0 that reaches the
    dotted line is a yes.

    Raises
    ------
    InputError
        Without slopes, or with missing fields.
    """
    table = pd.DataFrame([dict(slope) for slope in slopes])
    require_table(table, "slopes", ("metric", "slope", "ci_low", "ci_high", "minimum_detectable"))
    names = [short(name, 30).replace("_", " ") for name in table["metric"]]
    figure = blank_figure(
        170 + 46 * len(table), title, "limits of the rule; dotted: smallest effect of interest"
    )
    figure.add_scatter(
        x=table["slope"].to_numpy(np.float64),
        y=names,
        mode="markers",
        marker={"size": 10, "color": BLUE},
        error_x={
            "array": (table["ci_high"] - table["slope"]).to_numpy(np.float64),
            "arrayminus": (table["slope"] - table["ci_low"]).to_numpy(np.float64),
        },
        customdata=table[["ci_low", "ci_high", "minimum_detectable"]].to_numpy(np.float64),
        hovertemplate="%{y}: %{x:+.4f} [%{customdata[0]:+.4f}, %{customdata[1]:+.4f}]<br>"
        "minimum detectable: %{customdata[2]:.4f}<extra></extra>",
        showlegend=False,
    )
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    figure.add_vline(x=smallest_effect, line={"color": INK, "width": 1, "dash": "dot"})
    figure.update_xaxes(title={"text": "change per doubling"})
    figure.update_yaxes(type="category")
    return figure


def context_scores(
    conditions: Sequence[Mapping[str, Any]],
    metrics: pd.DataFrame,
    metric: str = "level_r2",
    *,
    title: str = "Score against context",
) -> go.Figure:
    """Draw the conditions' score over all held-out genes against their context (mean over seeds).

    Raises
    ------
    InputError
        If no condition has a record of the metric.
    """
    context = {
        condition["name"]: condition["context_bp"]
        for condition in conditions
        if not condition["is_reference"]
    }
    rows = metrics[
        metrics["model"].isin(context) & (metrics["metric"] == metric) & metrics["fold"].isna()
    ]
    if rows.empty:
        raise InputError(f"no record of {metric} for any condition", "at least one")
    mean = rows.groupby("model")[["value", "ci_low", "ci_high"]].mean().reset_index()
    mean["context_bp"] = mean["model"].map(context)
    return context_curve(mean.drop(columns="model"), metric=metric, title=title)


def dose_figure(
    shares: pd.DataFrame, *, title: str = "Everything beyond a distance shuffled"
) -> go.Figure:
    """Draw what is left of the prediction once everything further than a distance is shuffled.

    A model that reads the gene's surroundings only is at 1 from the left on; one that depends on
    distal sequence climbs to 1 where that lies.

    Raises
    ------
    InputError
        Missing columns distance_bp and share, or no rows.
    """
    require_table(shares, "shares", ("distance_bp", "share"))
    shares = shares.sort_values("distance_bp")
    figure = blank_figure(320, title, "share that is left")
    figure.add_scatter(
        x=[f"{distance:,}" for distance in shares["distance_bp"]],
        y=shares["share"].to_numpy(np.float64),
        mode="lines+markers",
        line={"color": BLUE, "width": 2},
        hovertemplate="beyond %{x} bp shuffled: %{y:.1%} left<extra></extra>",
        showlegend=False,
    )
    figure.update_xaxes(title={"text": "kept around the gene (bp)"}, type="category")
    figure.update_yaxes(title={"text": "share left"}, tickformat=".0%", range=[-0.02, 1.05])
    return figure


def mass_figure(mass: pd.DataFrame, *, title: str = "Where the evidence lies") -> go.Figure:
    """Draw the cumulated share of gradient and of perturbation against distance.

    Raises
    ------
    InputError
        Missing columns high_bp, gradient and perturbation, or no rows.
    """
    require_table(mass, "mass", ("high_bp", "gradient", "perturbation"))
    mass = mass.sort_values("high_bp")
    figure = blank_figure(340, title, "dotted: 90 %")
    for i, name in enumerate(("gradient", "perturbation")):
        figure.add_scatter(
            name=name,
            x=["gene", *(f"{high:,}" for high in mass["high_bp"].iloc[1:])],
            y=mass[name].cumsum().to_numpy(np.float64),
            mode="lines+markers",
            line={"color": COLOURS[i], "width": 2},
            hovertemplate=f"{safe(name)} within %{{x}} bp: %{{y:.1%}}<extra></extra>",
        )
    figure.add_hline(y=0.9, line={"color": INK, "width": 1, "dash": "dot"})
    figure.update_xaxes(title={"text": "within (bp of the gene)"}, type="category")
    figure.update_yaxes(title={"text": "share"}, tickformat=".0%", range=[0, 1.05])
    return figure

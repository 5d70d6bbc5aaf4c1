"""Figures of reach: what longer context adds to a score, and how far attention looks."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Real

from genesplice.errors import InputError
from genesplice.show.theme import (
    INK,
    MUTED,
    OKABE_ITO,
    SYMBOLS,
    blank_figure,
    check_columns,
    check_finite,
    check_lengths,
    intervals,
    safe,
    short,
)


def context_dial(
    metrics: pd.DataFrame,
    *,
    metric: str = "score",
    title: str = "What longer context adds",
) -> go.Figure:
    """Draw a score against the bases of context the model may see, a line an arm.

    A line that climbs from left to right while its null ablation stays flat says that context helps;
    two lines within each other's bands say that it does not show here.

    Parameters
    ----------
    metrics
        Columns context_bp, value, ci_low, ci_high and, for several arms, model.
    metric
        Name of the value, for the axis.

    Raises
    ------
    InputError
        Missing columns, no rows, context below 1 bp, or two values for one arm and context.
    """
    check_columns(metrics, ("context_bp", "value", "ci_low", "ci_high"), "metrics")
    table = metrics if "model" in metrics.columns else metrics.assign(model=metric)
    context = check_finite(table["context_bp"].to_numpy(), "context_bp")
    if context.min() < 1:
        raise InputError(f"context of {context.min():g} bp", "at least 1 (the axis is logarithmic)")
    if table.duplicated(["model", "context_bp"]).any():
        n_different = len(table.drop_duplicates(["model", "context_bp"]))
        check_lengths(len(table), "rows of metrics", n_different, "their arms and contexts")
    figure = blank_figure(360, title, "bands: 95 % intervals")
    for i, (model, part) in enumerate(table.groupby("model", sort=True)):
        part = part.sort_values("context_bp")
        value, down, up = intervals(part)
        x = part["context_bp"].to_numpy(np.float64)
        colour, symbol = OKABE_ITO[i % len(OKABE_ITO)], SYMBOLS[i % len(SYMBOLS)]
        figure.add_scatter(
            x=np.concatenate([x, x[::-1]]),
            y=np.concatenate([value + up, (value - down)[::-1]]),
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=colour,
            opacity=0.16,
            hoverinfo="skip",
            legendgroup=safe(model),
            showlegend=False,
        )
        figure.add_scatter(
            name=short(model, 36),
            legendgroup=safe(model),
            x=x,
            y=value,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"symbol": symbol, "size": 8},
            customdata=np.column_stack([value - down, value + up]),
            hovertemplate=f"<b>{safe(model)}</b>, %{{x:,}} bp<br>{safe(metric)} %{{y:.3f}} "
            f"[%{{customdata[0]:.3f}}, %{{customdata[1]:.3f}}]<extra></extra>",
        )
    ticks = sorted(set(context.tolist()))
    figure.update_xaxes(
        type="log",
        title={"text": "context (bp, log scale)"},
        tickmode="array",
        tickvals=ticks,
        ticktext=[f"{tick:,.0f}" for tick in ticks],
    )
    figure.update_yaxes(title={"text": short(metric, 30).replace("_", " ")})
    return figure


def attention_by_distance(
    weights: Real[np.ndarray, " edges"],
    distance_bp: Real[np.ndarray, " _"],
    *,
    n_bins: int = 24,
    mass: float = 0.9,
    title: str = "How far attention reaches",
) -> go.Figure:
    """Draw mean attention and its cumulative share against the distance it bridges.

    Above: the mean weight of the pairs in each distance bin, beside the mean over all pairs,
    which is what attention without a preference would give. Below: the share of all weight that
    lies within a distance, with the distance that holds `mass` of it.

    Parameters
    ----------
    weights
        Attention of pairs (query, key), not negative; pool large maps before.
    distance_bp
        Distance of the same pairs in bp. The sign is dropped; 0 is shown in the first bin.
    n_bins
        Bins that grow geometrically from the smallest distance above 0 to the largest.
    mass
        Share whose distance is marked, in (0, 1).

    Raises
    ------
    InputError
        Different lengths, no pairs, NaN, negative or all-zero weights, no distance above 0,
        no bins, or a share outside (0, 1).
    """
    weights, reach = check_finite(weights, "weights"), np.abs(check_finite(distance_bp, "distance"))
    check_lengths(len(weights), "weights", len(reach), "distance_bp")
    if (weights < 0).any() or not weights.any():
        raise InputError(
            f"weights from {weights.min():g} to {weights.max():g}", "0 or more, not all 0"
        )
    if not reach.any():
        raise InputError("largest distance 0 bp", "more than 0")
    if n_bins < 1:
        raise InputError(f"{n_bins} bins", "at least 1")
    if not 0 < mass < 1:
        raise InputError(f"mass {mass:g}", "between 0 and 1")
    low, high = float(reach[reach > 0].min()), float(reach.max())
    edges = (
        np.geomspace(low, high * (1 + 1e-9), n_bins + 1) if high > low else np.array([low, 2 * low])
    )
    bins = np.clip(np.searchsorted(edges, reach, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(bins, minlength=len(edges) - 1)
    sums = np.bincount(bins, weights=weights, minlength=len(edges) - 1)
    filled = counts > 0
    centres = np.sqrt(edges[:-1] * edges[1:])[filled]
    order = np.argsort(reach, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    reach_of_mass = float(reach[order][min(np.searchsorted(share, mass), len(share) - 1)])
    cumulative = np.cumsum(sums)[filled] / weights.sum()

    figure = blank_figure(
        400,
        title,
        f"{mass:.0%} of it within {reach_of_mass:,.0f} bp; {len(weights):,} pairs",
    )
    figure.add_scatter(
        name="mean weight",
        x=centres,
        y=sums[filled] / counts[filled],
        mode="lines+markers",
        line={"color": OKABE_ITO[0], "width": 2},
        customdata=counts[filled],
        hovertemplate="%{x:,.0f} bp: mean weight %{y:.3g}<br>%{customdata:,} pairs<extra></extra>",
    )
    figure.add_scatter(
        name="no preference",
        x=np.array([low, high]),
        y=np.full(2, weights.mean()),
        mode="lines",
        line={"color": MUTED, "width": 1.5, "dash": "dash"},
        hovertemplate="mean over all pairs: %{y:.3g}<extra></extra>",
    )
    figure.add_scatter(
        name="share within distance",
        x=edges[1:][filled],
        y=cumulative,
        yaxis="y2",
        mode="lines+markers",
        line={"color": OKABE_ITO[3], "width": 2},
        marker={"symbol": "square"},
        hovertemplate="within %{x:,.0f} bp: %{y:.1%}<extra></extra>",
    )
    figure.add_vline(x=reach_of_mass, line={"color": INK, "width": 1, "dash": "dot"})
    figure.update_xaxes(
        type="log",
        title={"text": "distance (bp, log scale)"},
        tickformat="~s",
        dtick=1 if high > 100 * low else None,
        anchor="y2",
    )
    figure.update_layout(
        yaxis={"domain": [0.5, 1.0], "title": {"text": "mean weight"}, "rangemode": "tozero"},
        yaxis2={
            "domain": [0.0, 0.42],
            "title": {"text": "share of weight"},
            "range": [0, 1.04],
            "tickformat": ".0%",
        },
    )
    return figure

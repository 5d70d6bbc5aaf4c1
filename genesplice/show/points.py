"""Figures with one point a gene: predicted against observed, and the model's space."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.spatial import cKDTree
from scipy.stats import pearsonr, spearmanr

from genesplice.errors import InputError
from genesplice.show.theme import (
    GREY,
    INK,
    OKABE_ITO,
    SEQUENTIAL,
    SYMBOLS,
    blank_figure,
    check_columns,
    check_finite,
    check_lengths,
    safe,
    short,
)

_CROWD_RADIUS = 0.3  # log2(TPM+1)


def _crowd(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Points within `radius` of each point, itself included."""
    tree = cKDTree(np.column_stack([x, y]))
    return tree.query_ball_point(tree.data, radius, return_length=True)


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
    check_columns(predictions, ("gene_id", "observed", "predicted", "fold"), "predictions")
    n_genes = predictions["gene_id"].nunique()
    check_lengths(len(predictions), "rows of predictions", n_genes, "their different genes")
    table = predictions.sort_values("gene_id", kind="stable")
    observed = check_finite(table["observed"].to_numpy(), "observed")
    predicted = check_finite(table["predicted"].to_numpy(), "predicted")
    density = _crowd(observed, predicted, _CROWD_RADIUS)
    order = np.argsort(density, kind="stable")
    subtitle = f"{n_genes:,} genes"
    if n_genes > 2 and np.ptp(observed) > 0 and np.ptp(predicted) > 0:
        r2 = 1 - ((observed - predicted) ** 2).sum() / ((observed - observed.mean()) ** 2).sum()
        subtitle = (
            f"Spearman {spearmanr(observed, predicted).statistic:.3f}, "
            f"Pearson {pearsonr(observed, predicted).statistic:.3f}, R² {r2:.3f}, {n_genes:,} genes"
        )
    low, high = min(observed.min(), predicted.min()), max(observed.max(), predicted.max())
    pad = 0.03 * (high - low) or 0.5
    ends = np.array([low - pad, high + pad])
    subtitle += f"; colour: genes within {_CROWD_RADIUS} log₂(TPM+1)"
    figure = blank_figure(450, title, subtitle)
    figure.add_scatter(
        name="genes",
        x=observed[order],
        y=predicted[order].astype(np.float32),
        mode="markers",
        marker={
            "size": 5,
            "color": density[order],
            "colorscale": SEQUENTIAL,
            "cmin": 0,
            "cmax": float(density.max()),
            "colorbar": {
                "orientation": "h",
                "thickness": 10,
                "len": 0.9,
                "x": 0.5,
                "yref": "container",
                "y": 0.01,
                "yanchor": "bottom",
                "outlinewidth": 0,
            },
        },
        text=[
            f"<b>{safe(name)}</b> ({safe(gene)}), fold {safe(fold)}"
            for name, gene, fold in zip(
                table.get("name", table["gene_id"]).iloc[order],
                table["gene_id"].iloc[order],
                table["fold"].iloc[order],
                strict=True,
            )
        ],
        hovertemplate="%{text}<br>observed %{x:.2f}, predicted %{y:.2f} log₂(TPM+1)<extra></extra>",
        showlegend=False,
    )
    figure.add_scatter(
        name="identity",
        x=ends,
        y=ends,
        mode="lines",
        line={"color": INK, "width": 1, "dash": "dash"},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.update_xaxes(title={"text": "observed level, log₂(TPM+1)"}, range=ends.tolist())
    figure.update_yaxes(
        title={"text": "predicted level, log₂(TPM+1)"},
        range=ends.tolist(),
        scaleanchor="x",
        constrain="domain",
    )
    figure.update_xaxes(constrain="domain")
    return figure


def embedding_map(
    xy: pd.DataFrame,
    *,
    axes: tuple[str, str] = ("component 1", "component 2"),
    max_groups: int = 7,
    title: str = "Genes in the model's space",
) -> go.Figure:
    """Draw genes as points in a plane, one colour and symbol a group.

    The largest groups get a colour; those beyond `max_groups` and rows without a group are drawn
    first, in grey, as "other". Neither the order of rows nor of groups matters.

    Parameters
    ----------
    xy
        Columns gene_id, x, y, group; a column name, if there, is shown on hover.
    axes
        What x and y are, with units where they have one.
    max_groups
        Groups with a colour of their own, at most 8.

    Raises
    ------
    InputError
        Missing columns, no rows, places that are not finite, or `max_groups` outside 1 to 8.
    """
    check_columns(xy, ("gene_id", "x", "y", "group"), "xy")
    if not 1 <= max_groups <= len(SYMBOLS):
        raise InputError(f"max_groups {max_groups}", f"1 to {len(SYMBOLS)}")
    for column in "xy":
        check_finite(xy[column].to_numpy(), column)
    table = xy.sort_values(["gene_id", "x", "y"], kind="stable")
    names = table["name"] if "name" in table.columns else table["gene_id"]
    table = table.assign(name=names, has_group=table["group"].notna())
    table["group"] = table["group"].astype(object).where(table["has_group"], "no group").astype(str)
    counts = table.loc[table["has_group"], "group"].value_counts()
    largest = sorted(counts.index, key=lambda group: (-counts[group], group))[:max_groups]
    is_other = ~table["group"].isin(largest) | ~table["has_group"]

    figure = blank_figure(500, title, f"{len(table):,} genes")
    drawn = [("other", table[is_other], GREY, "circle")] if is_other.any() else []
    drawn += [
        (group, table[(table["group"] == group) & ~is_other], colour, symbol)
        for group, colour, symbol in zip(largest, OKABE_ITO, SYMBOLS, strict=False)
    ]
    for group, part, colour, symbol in drawn:
        figure.add_scatter(
            name=f"{short(group, 36)} ({len(part):,})",
            x=part["x"].to_numpy(np.float64),
            y=part["y"].to_numpy(np.float64),
            mode="markers",
            marker={
                "color": colour,
                "symbol": symbol,
                "size": 6,
                "opacity": 0.5 if colour == GREY else 0.8,
            },
            text=[
                f"<b>{safe(name)}</b> ({safe(gene)})<br>{safe(group)}"
                for name, gene, group in zip(
                    part["name"], part["gene_id"], part["group"], strict=True
                )
            ],
            hovertemplate="%{text}<br>%{x:.3g}, %{y:.3g}<extra></extra>",
        )
    figure.update_xaxes(title={"text": short(axes[0], 40)})
    figure.update_yaxes(title={"text": short(axes[1], 40)})
    return figure

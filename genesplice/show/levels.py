"""Figures of expression across conditions: many genes as a heat map, one gene as a profile."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr

from genesplice.errors import InputError
from genesplice.show.theme import (
    DIVERGING,
    GREY,
    INK,
    MUTED,
    OKABE_ITO,
    blank_figure,
    check_lengths,
    check_series,
    gene_labels,
    safe,
    short,
)

_LABELS_MAX = 60  # rows or columns that are still named on the axis


def _similarity_order(values: np.ndarray) -> np.ndarray:
    """Order of rows in which neighbours are alike: Ward's tree, leaves ordered optimally."""
    if len(values) < 3:
        return np.arange(len(values))
    distances = pdist(values)
    return leaves_list(optimal_leaf_ordering(linkage(distances, method="ward"), distances))


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
    if residual.empty:
        raise InputError(
            f"{len(residual)} genes x {residual.shape[1]} conditions", "at least 1 x 1"
        )
    for axis, labels in (("genes", residual.index), ("conditions", residual.columns)):
        if not labels.is_unique:
            raise InputError(
                f"{labels.nunique():,} different {axis}", f"{len(labels):,}, all unique"
            )
    if max_genes < 1:
        raise InputError(f"max_genes {max_genes}", "at least 1")
    table = residual.sort_index(axis=0).sort_index(axis=1).astype(np.float64)
    n_infinite, n_known = int(np.isinf(table.to_numpy()).sum()), int(table.notna().sum().sum())
    if n_infinite or not n_known:
        raise InputError(
            f"{n_infinite:,} infinite and {n_known - n_infinite:,} finite of {table.size:,} "
            "residuals",
            "0 infinite and at least 1 finite",
        )
    spread = table.std(axis=1, ddof=0).fillna(0.0)
    table = table.loc[spread.sort_values(ascending=False, kind="stable").index[:max_genes]]
    table = table.sort_index()
    filled = table.fillna(0.0).to_numpy()
    table = table.iloc[_similarity_order(filled), _similarity_order(filled.T)]
    limit = float(np.nanpercentile(np.abs(table.to_numpy()), 99)) or 1.0
    genes = [safe(label) for label in gene_labels(table.index, names)]
    has_gene_labels = len(genes) <= _LABELS_MAX
    has_condition_labels = table.shape[1] <= _LABELS_MAX
    label_px = 6 * max(map(len, map(str, table.columns))) if has_condition_labels else 0
    figure = blank_figure(
        120 + (15 * len(genes) if has_gene_labels else max(300, 3 * len(genes))) + label_px,
        title,
        f"the {len(genes):,} of {len(residual):,} genes that vary most, "
        f"{table.shape[1]:,} conditions; colour: residual in log₂(TPM+1)",
    )
    figure.add_heatmap(
        z=table.to_numpy(np.float32),
        x=[safe(condition) for condition in table.columns],
        y=genes,
        zmin=-limit,
        zmax=limit,
        colorscale=DIVERGING,
        colorbar={
            "orientation": "h",
            "thickness": 10,
            "len": 0.9,
            "x": 0.5,
            "yref": "container",
            "y": 0.01,
            "yanchor": "bottom",
            "outlinewidth": 0,
        },
        hoverongaps=False,
        hovertemplate="<b>%{y}</b><br>%{x}<br>residual %{z:.2f} log₂(TPM+1)<extra></extra>",
    )
    figure.update_xaxes(
        type="category",
        title={"text": "conditions, alike ones side by side"},
        showticklabels=has_condition_labels,
        ticks="",
        showgrid=False,
        tickangle=-90,
        tickfont={"size": 10},
    )
    figure.update_yaxes(
        type="category",
        title={"text": "" if has_gene_labels else "genes"},
        showticklabels=has_gene_labels,
        tickmode="linear",
        dtick=1,
        ticks="",
        showgrid=False,
        tickfont={"size": 10},
    )
    return figure


def profile(
    observed: pd.Series,
    predicted: pd.Series,
    *,
    gene: str = "",
    unit: str = "log₂(TPM+1)",
    title: str = "One gene across conditions",
) -> go.Figure:
    """Draw one gene over all conditions, observed and predicted, sorted by what was observed.

    Sorting by the observed value makes the black points rise: a model that knows the gene rises
    with them, one that does not stays flat. The order of either series does not matter.

    Parameters
    ----------
    observed, predicted
        Values by condition, over the same conditions.
    gene, unit
        For title and axis.

    Raises
    ------
    InputError
        Empty series, values that are not finite, repeated or different conditions.
    """
    observed = check_series(observed, "observed")
    predicted = check_series(predicted, "predicted")
    n_shared = len(observed.index.intersection(predicted.index))
    for what, series in (("observed", observed), ("predicted", predicted)):
        check_lengths(len(series), f"conditions of {what}", n_shared, "both series")
    observed = observed.sort_index().sort_values(kind="stable")
    predicted = predicted.loc[observed.index]
    subtitle = f"{len(observed):,} conditions"
    if len(observed) > 2 and np.ptp(observed) > 0 and np.ptp(predicted) > 0:
        r = pearsonr(observed.to_numpy(), predicted.to_numpy()).statistic
        subtitle = f"Pearson {r:.2f} over {subtitle}"
    elif len(observed) > 2:
        subtitle = f"flat, so without a correlation; {subtitle}"
    figure = blank_figure(340, f"{title}: {gene}" if gene else title, subtitle)
    conditions = [safe(condition) for condition in observed.index]
    rank = np.arange(len(observed), dtype=np.float64)
    figure.add_scatter(
        name="between",
        x=np.column_stack([rank, rank, np.full(len(rank), np.nan)]).ravel(),
        y=np.column_stack([observed, predicted, np.full(len(rank), np.nan)]).ravel(),
        mode="lines",
        line={"color": GREY, "width": 1},
        hoverinfo="skip",
        showlegend=False,
    )
    for name, values, colour, symbol in (
        ("observed", observed, INK, "circle"),
        ("predicted", predicted, OKABE_ITO[3], "diamond"),
    ):
        figure.add_scatter(
            name=name,
            x=rank,
            y=values.to_numpy(np.float64),
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 6},
            text=conditions,
            hovertemplate=f"%{{text}}<br>{name} %{{y:.2f}} {safe(unit)}<extra></extra>",
        )
    is_labelled = len(conditions) <= _LABELS_MAX // 2
    figure.update_xaxes(
        title={"text": "conditions, by observed value"},
        tickmode="array",
        tickvals=rank.tolist() if is_labelled else [],
        ticktext=[short(c, 24) for c in observed.index] if is_labelled else [],
        tickangle=-90,
        tickfont={"size": 10, "color": MUTED},
        showgrid=False,
    )
    figure.update_yaxes(title={"text": short(unit, 30)})
    return figure

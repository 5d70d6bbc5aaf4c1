"""Every figure of GeneSplice under one roof, and those of explanations and of context.

A figure is a noun: a function of plain tables and arrays that returns a plotly figure. The same
input always gives the same figure, text from users is shown and never interpreted, and heights
are fixed while widths follow the page.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.results import label
from genesplice.show import theme as th
from genesplice.show.figures_genome import (
    change_path,
    expression_map,
    fold_map,
    leakage_table,
    relatives_map,
)  # fmt: skip
from genesplice.show.figures_model import (
    class_scores,
    condition_heatmap,
    learning_curves,
    metric_bars,
    predicted_observed,
    rate_range,
    rate_schedules,
)  # fmt: skip
from genesplice.show.networks import pathway_graph
from genesplice.show.theme import THEME

__all__ = [
    "THEME", "change_path", "class_scores", "completeness_bars",
    "condition_heatmap", "context_curve", "context_scores", "dose_figure", "expression_map",
    "fold_map", "influence_bars", "leakage_table", "learning_curves", "mass_figure", "metric_bars",
    "part_bars", "pathway_graph", "predicted_observed", "rate_range", "rate_schedules",
    "relatives_map", "sample_curve", "slope_bars",
]  # fmt: skip


def completeness_bars(
    delta: pd.Series,
    relative: pd.Series,
    *,
    threshold: float = 0.05,
    names: pd.Series | None = None,
    title: str = "Do attributions add up?",
) -> go.Figure:
    """Draw by how much each gene's attributions miss the prediction they should sum to.

    Genes beyond the threshold are hatched as well as coloured; the worst are on top. Those whose
    prediction is that of the baseline have nothing to add up to, and are counted instead.

    Parameters
    ----------
    delta
        Sum of attributions minus (prediction − baseline prediction), by gene_id, log2(TPM+1).
    relative
        The same as a share of |prediction − baseline prediction|; the sign is dropped. NaN where
        that is 0.
    threshold
        Share up to which attributions count as complete.
    names
        Gene name by gene_id, for labels.

    Raises
    ------
    InputError
        Empty series, values that are not finite, or series over different genes.
    """
    delta, is_flat = th.require_series(delta, "delta"), relative.isna()
    if len(relative) and is_flat.all():
        return th.left_out("prediction other than that of an empty sequence", title)
    relative = th.require_series(relative[~is_flat], "relative delta")
    delta = delta.drop(is_flat.index[is_flat], errors="ignore")
    found = f"{len(delta):,} genes of delta, {len(relative):,} of relative delta"
    both = f"the same genes ({len(delta.index.intersection(relative.index)):,} are in both)"
    th.require(set(delta.index) == set(relative.index), found, both)
    relative = relative.abs().sort_index().sort_values(ascending=False, kind="stable")
    plain, n = th.gene_labels(relative.index, names), len(relative)
    is_named, is_within = n <= th.LABELS_MAX, relative <= threshold
    table = pd.DataFrame({"x": relative, "delta": delta.loc[relative.index]})
    table = table.assign(y=np.arange(n, dtype=float), label=[th.safe(label) for label in plain])
    subtitle = f"{is_within.sum():,} of {n:,} genes within {threshold:.1%} of the prediction"
    if is_flat.any():
        subtitle += f"; {is_flat.sum():,} more predicted as an empty sequence is"
    figure = th.blank_figure(90 + (22 if is_named else 6) * n, title, subtitle)
    for word, part, colour, pattern in (
        ("within the limit", table[is_within], th.BLUE, ""),
        ("beyond the limit", table[~is_within], th.VERMILLION, "/"),
    ):
        hatch = {"shape": pattern, "bgcolor": colour, "fgcolor": "white"}
        figure.add_bar(
            x=part["x"], y=part["y"], name=word, orientation="h", width=0.7,
            customdata=part["delta"], hovertext=part["label"].to_list(),
            marker={"color": colour, "pattern": hatch},
            hovertemplate="<b>%{hovertext}</b><br>off by %{x:.2%}, "
            "%{customdata:.3g} log₂(TPM+1)<extra></extra>",
        )  # fmt: skip
    figure.add_vline(
        x=threshold, line={"color": th.INK, "width": 1.5, "dash": "dash"},
        annotation={"text": f"limit {threshold:.1%}", "font_size": 12, "yanchor": "bottom"},
        annotation_position="top left",
    )  # fmt: skip
    ends, axis = [0, 1.12 * max(threshold, relative.max())], "|missing| / |prediction − baseline|"
    figure.update_xaxes(title_text=axis, tickformat=".1%", range=ends, nticks=6)
    th.name_rows(figure, [th.short(label, 24) for label in plain] if is_named else [])
    figure.update_yaxes(range=[n - 0.5, -0.5], title_text="" if is_named else "genes")
    return figure


def part_bars(
    table: pd.DataFrame, *, names: pd.Series | None = None, title: str = "Sequence or relatives?"
) -> go.Figure:
    """Draw what the sequence, and the alignment columns of each group, add to each prediction.

    Bars to the right raise it, bars to the left lower it; the diamond, where all of them together
    should end, is the prediction less that of the baseline; the largest are on top.

    Parameters
    ----------
    table
        From `part_table`: gene_id, sequence, near, middle and far if columns are read, change.
    names
        Gene name by gene_id, for labels.

    Raises
    ------
    InputError
        A column that is missing, no genes, one gene twice, or values that are not finite.
    """
    parts = [part for part in ("sequence", "near", "middle", "far") if part in table]
    given, key = ["gene_id", "sequence", "change"], {"key": np.abs, "ascending": False}
    finite = [*parts, "change"]
    table = th.require_table(table, "parts", given, unique=["gene_id"], finite=finite)
    table = table.sort_values("gene_id").sort_values("change", kind="stable", **key)
    said = "relatives by group" if len(parts) > 1 else "no relatives are read"
    figure = th.blank_figure(120 + 26 * len(table), title, said, barmode="relative")
    labels = th.gene_labels(table["gene_id"], names)
    table = table.assign(label=labels, y=np.arange(len(table), dtype=float))
    for i, part in enumerate(parts):
        hover = th.row_texts(table, f"<b>{{label}}</b><br>{part}: {{{part}:+.3g}} log₂(TPM+1)")
        look = {"bgcolor": th.COLOURS[i], "fgcolor": "white", "size": 6}
        figure.add_bar(
            x=table[part], y=table["y"], name=part, orientation="h", width=0.7, hovertext=hover,
            hoverinfo="text", marker_color=th.COLOURS[i],
            marker_pattern={"shape": ("", "/", "x", ".")[i], **look},
        )  # fmt: skip
    figure.add_scatter(
        x=table["change"], y=table["y"], mode="markers", name="prediction − baseline",
        marker={"symbol": "diamond", "size": 9, "color": th.INK}, hoverinfo="text",
        hovertext=th.row_texts(table, "<b>{label}</b><br>prediction − baseline: {change:+.3g}"),
    )  # fmt: skip
    figure.update_xaxes(title_text="log₂(TPM+1)", zeroline=True, zerolinecolor=th.INK)
    th.name_rows(figure, [th.short(label, 24) for label in labels])
    return figure


def influence_sentence(table: pd.DataFrame, what: str) -> str:
    """How many nodes of a `pathway_influence` ("pathways") do better than random graphs."""
    if table.empty:
        return f"these data have no {what} of these genes"
    above = int((table["mean"] > table["null_high"]).sum())
    said = f"{above} of {len(table)} {what} above their band of random graphs"
    if "chance_above" in table:
        said += f" ({len(table) * table['chance_above'].iloc[0]:.0f} expected by chance)"
    return said


def influence_bars(
    table: pd.DataFrame, *, names: pd.Series | None = None, title: str = "Nodes of the graph"
) -> go.Figure:
    """Draw the 15 largest means of nodes on the middle 95 % of random graphs.

    A node above its band is drawn in full colour, any other hollow: it does no better than random
    edges would. Of an empty table there is a sentence.

    Parameters
    ----------
    table
        From `pathway_influence`: id, n_edges, mean, null_low, null_high, p.
    names
        Label by id; the column `name` if None, and the id where it has none.
    title
        What the nodes are: "Pathways".

    Raises
    ------
    InputError
        A column that is missing, or values that are not finite.
    """
    if table.empty:
        return th.left_out(f"{title.lower()} of these genes", title)
    limits = ["mean", "null_low", "null_high"]
    table = th.require_table(table, "influence", ["id", "n_edges", *limits, "p"], finite=limits)
    text = influence_sentence(table, title.lower())
    shown = table.sort_values("mean", ascending=False).head(15)
    called = shown["name"] if names is None and "name" in shown else shown["id"]
    labels = [str(one if names is None else names.get(one, one)) for one in called]
    figure = th.blank_figure(90 + 26 * len(shown), title, text, margin={"b": 78})
    y, (low, high) = np.arange(len(shown), dtype=float), (shown[one] for one in limits[1:])
    band = {"name": "random graphs, middle 95 %", "width": 13, "opacity": 0.55}
    bands = th.broken_lines(low, high), th.broken_lines(y, y)
    figure.add_trace(th.line(*bands, th.GREY, **band))
    about = "<b>{label}</b><br>{mean:+.3g}, random {null_low:+.3g} to {null_high:+.3g}<br>"
    about += "{n_edges:.0f} edges, p = {p:.2g}"
    symbols = np.where(shown["mean"] > high, "diamond", "diamond-open")
    figure.add_scatter(
        x=shown["mean"].to_numpy(), y=y, mode="markers", name="this graph", hoverinfo="text",
        marker={"size": 11, "symbol": symbols, "color": th.BLUE},
        marker_line={"color": th.BLUE, "width": 2},
        hovertext=th.row_texts(shown.assign(label=labels), about),
    )  # fmt: skip
    figure.update_xaxes(title_text="towards what was observed", zeroline=True, zerolinecolor=th.INK)
    th.name_rows(figure, [th.short(label, 20) for label in labels])
    return figure


def context_curve(
    metrics: pd.DataFrame,
    *,
    metric: str = "score",
    title: str = "Score against context length",
    unit: str = "bp",
    axis: str = "context length (bp, log scale)",
) -> go.Figure:
    """Draw a score against context length, a line per context condition, bands for intervals.

    A line that climbs from left to right while its ablation stays flat says that context helps;
    two lines within each other's bands say that it does not show here.

    Parameters
    ----------
    metrics
        Columns context_bp, value, ci_low, ci_high and, for several conditions, model.
    metric, unit, axis
        Name of the value, for its axis; unit and title of the other one.

    Raises
    ------
    InputError
        Missing columns, no rows, context below 1 bp, or two values for a condition and length.
    """
    table = metrics if "model" in metrics.columns else metrics.assign(model=metric)
    needed, keys = ["context_bp", "value", "ci_low", "ci_high"], ["model", "context_bp"]
    table = th.require_table(table, "metrics", needed, unique=keys, finite=needed[:2])
    lowest = table["context_bp"].min()
    th.require(lowest >= 1, f"context of {lowest:g} bp", "at least 1 (the axis is logarithmic)")
    figure = th.blank_figure(360, title, "bands: 95 % intervals")
    table = table.astype({"ci_low": np.float64, "ci_high": np.float64}).sort_values(keys)
    for i, (model, part) in enumerate(table.groupby("model")):
        value, down, up = th.whiskers(part)
        x, colour, name = part["context_bp"].to_numpy(), th.COLOURS[i % 8], th.safe(model)
        figure.add_trace(band(x, value - down, value + up, colour, f"interval of {name}", name))
        about = f"<b>{{model}}</b>, {{context_bp:,.0f}} {unit}<br>"
        about += "{value:.3f} [{ci_low:.3f}, {ci_high:.3f}]"
        look = {"mode": "lines+markers", "marker": {"symbol": th.SYMBOLS[i % 8], "size": 8}}
        look |= {"hovertext": th.row_texts(part.assign(model=label(model)), about)}
        look |= {"hoverinfo": "text", "legendgroup": name}
        figure.add_trace(th.line(x, value, colour, name=th.short(label(model), 36), **look))
    ticks = sorted(set(table["context_bp"]))
    names = [f"{tick:,.0f}" for tick in ticks]
    figure.update_xaxes(type="log", tickmode="array", tickvals=ticks, ticktext=names)
    figure.update_xaxes(title_text=axis)
    return figure.update_yaxes(title_text=th.words(metric))


def sample_curve(
    metrics: pd.DataFrame, *, metric: str = "score", title: str = "Learning curve"
) -> go.Figure:
    """Draw scores against `n`, the number of examples learned from, a line a model.

    Raises
    ------
    InputError
        As `context_curve`.
    """
    axis = "examples learned from (log scale)"
    table = metrics.rename(columns={"n": "context_bp"})
    return context_curve(table, metric=metric, title=title, unit="examples", axis=axis)


def band(x: Any, low: Any, high: Any, colour: str, name: str, group: str = "") -> go.Scatter:
    """The area between two lines."""
    x, y = np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]])
    more = {"fill": "toself", "fillcolor": colour, "opacity": 0.16, "showlegend": False}
    return th.line(x, y, colour, width=0, name=name, legendgroup=group, **more)


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
    scores = scores_by_context(conditions, metrics)
    scores = scores[scores["metric"] == metric].drop(columns="metric")
    th.require(len(scores), f"no record of {metric} for any condition", "at least one")
    return context_curve(scores, metric=metric, title=title)


def scores_by_context(
    conditions: Sequence[Mapping[str, Any]], metrics: pd.DataFrame
) -> pd.DataFrame:
    """Scores over all held-out genes by metric and context_bp, mean over seeds, no references."""
    context = {one["name"]: one["context_bp"] for one in conditions if not one["is_reference"]}
    rows = metrics[metrics["model"].isin(context) & metrics["fold"].isna()]
    grouped = rows.groupby(["metric", rows["model"].map(context).rename("context_bp")])
    return grouped[["value", "ci_low", "ci_high"]].mean().reset_index()


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
    limits = ["ci_low", "ci_high", "minimum_detectable"]
    table = th.require_table(pd.DataFrame(list(slopes)), "slopes", ["metric", "slope", *limits])
    value, down, up = th.whiskers(table.rename(columns={"slope": "value"}))
    subtitle = "limits of the rule; dotted: smallest effect of interest"
    figure = th.blank_figure(170 + 46 * len(table), title, subtitle)
    figure.add_scatter(
        x=value, y=[th.words(name) for name in table["metric"]], mode="markers", showlegend=False,
        marker={"size": 10, "color": th.BLUE}, error_x={"array": up, "arrayminus": down},
        customdata=table[limits].to_numpy(np.float64),
        hovertemplate="%{y}: %{x:+.4f} [%{customdata[0]:+.4f}, %{customdata[1]:+.4f}]<br>"
        "minimum detectable: %{customdata[2]:.4f}<extra></extra>",
    )  # fmt: skip
    figure.add_vline(x=0, line={"color": th.GREY, "width": 1})
    figure.add_vline(x=smallest_effect, line=th.DOTTED)
    return figure.update_xaxes(title_text="change per doubling").update_yaxes(type="category")


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
    shares = th.require_table(shares, "shares", ["distance_bp", "share"]).sort_values("distance_bp")
    figure = th.blank_figure(320, title, "share that is left")
    x, hover = [f"{one:,}" for one in shares["distance_bp"]], "beyond %{x} bp shuffled: %{y:.1%}"
    look = {"mode": "lines+markers", "showlegend": False, "hover": f"{hover} left"}
    figure.add_trace(th.line(x, shares["share"], th.BLUE, **look))
    return _share_axes(figure, "kept around the gene (bp)", "share left")


def mass_figure(mass: pd.DataFrame, *, title: str = "Where the evidence lies") -> go.Figure:
    """Draw the cumulated share of gradient and of perturbation against distance.

    Raises
    ------
    InputError
        Missing columns high_bp, gradient and perturbation, or no rows.
    """
    kinds = ["gradient", "perturbation"]
    mass = th.require_table(mass, "mass", ["high_bp", *kinds]).sort_values("high_bp")
    figure = th.blank_figure(340, title, "dotted: 90 %")
    x = ["gene", *(f"{high:,}" for high in mass["high_bp"].iloc[1:])]
    for name, colour in zip(kinds, th.COLOURS, strict=False):
        look = {"mode": "lines+markers", "hover": f"{name} within %{{x}} bp: %{{y:.1%}}"}
        figure.add_trace(th.line(x, mass[name].cumsum(), colour, name=name, **look))
    figure.add_hline(y=0.9, line=th.DOTTED)
    return _share_axes(figure, "within (bp of the gene)", "share")


def _share_axes(figure: go.Figure, x: str, y: str) -> go.Figure:
    figure.update_xaxes(title_text=x, type="category")
    return figure.update_yaxes(title_text=y, tickformat=".0%", range=[-0.02, 1.05])

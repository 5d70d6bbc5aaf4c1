"""Every figure of GeneSplice under one roof, and those of checks and learning rates.

A figure is a noun: a function of plain tables and arrays that returns a plotly figure. The same
input always gives the same figure, text from users is shown and never interpreted, and heights
are fixed while widths follow the page.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError
from genesplice.show.context import context_scores, dose_figure, mass_figure, slope_bars
from genesplice.show.figures_genome import expression_map, fold_map
from genesplice.show.figures_model import (
    condition_heatmap,
    context_curve,
    learning_curves,
    metric_bars,
    predicted_observed,
)
from genesplice.show.logo import attribution_logo
from genesplice.show.networks import pathway_graph
from genesplice.show.theme import (
    BLUE,
    COLOURS,
    DASHES,
    GREY,
    GRID,
    INK,
    THEME,
    VERMILLION,
    blank_figure,
    broken_lines,
    gene_labels,
    name_rows,
    require_series,
    require_table,
    row_texts,
    safe,
    short,
    text_lines,
)

__all__ = [
    "THEME",
    "attribution_logo",
    "completeness_bars",
    "condition_heatmap",
    "context_curve",
    "context_scores",
    "dose_figure",
    "expression_map",
    "fold_map",
    "influence_bars",
    "leakage_table",
    "learning_curves",
    "mass_figure",
    "metric_bars",
    "pathway_graph",
    "predicted_observed",
    "rate_range",
    "rate_schedules",
    "slope_bars",
]

_STATUS = {"red": ("■ red", "#F7D5C2"), "amber": ("▲ amber", "#FBE8C4")}
_STATUS["green"] = ("● green", "#D5F0E6")
_CELL_CHARACTERS = 39  # a line of the wide column on a narrow screen
_LABELS_MAX = 60  # rows that are still named on an axis


def completeness_bars(
    delta: pd.Series,
    relative: pd.Series,
    *,
    threshold: float = 0.05,
    names: pd.Series | None = None,
    title: str = "Do attributions add up?",
) -> go.Figure:
    """Draw by how much each gene's attributions miss the prediction they should sum to.

    Genes beyond the threshold are hatched as well as coloured; the worst are on top.

    Parameters
    ----------
    delta
        Sum of attributions minus (prediction − baseline prediction), by gene_id, log2(TPM+1).
    relative
        The same as a share of |prediction − baseline prediction|; the sign is dropped.
    threshold
        Share up to which attributions count as complete.
    names
        Gene name by gene_id, for labels.

    Raises
    ------
    InputError
        Empty series, values that are not finite, or series over different genes.
    """
    delta, relative = require_series(delta, "delta"), require_series(relative, "relative delta")
    if set(delta.index) != set(relative.index):
        n_shared = len(delta.index.intersection(relative.index))
        found = f"{len(delta):,} genes of delta, {len(relative):,} of relative delta"
        raise InputError(found, f"the same genes ({n_shared:,} are in both)")
    relative = relative.abs().sort_index().sort_values(ascending=False, kind="stable")
    delta, n = delta.loc[relative.index], len(relative)
    plain = gene_labels(relative.index, names)
    is_named = n <= _LABELS_MAX
    n_within = int((relative <= threshold).sum())
    subtitle = f"{n_within:,} of {n:,} genes within {threshold:.1%} of the prediction"
    figure = blank_figure(90 + (22 if is_named else 6) * n, title, subtitle)
    for word, is_part, colour, pattern in (
        ("within the limit", relative.to_numpy() <= threshold, BLUE, ""),
        ("beyond the limit", relative.to_numpy() > threshold, VERMILLION, "/"),
    ):
        figure.add_bar(
            name=word, orientation="h", x=relative.to_numpy()[is_part], width=0.7,
            y=np.flatnonzero(is_part).astype(np.float64), customdata=delta.to_numpy()[is_part],
            hovertext=[safe(plain[i]) for i in np.flatnonzero(is_part)],
            marker={"color": colour, "pattern": {"shape": pattern, "bgcolor": colour}},
            marker_pattern_fgcolor="white",
            hovertemplate="<b>%{hovertext}</b><br>off by %{x:.2%}, "
            "%{customdata:.3g} log₂(TPM+1)<extra></extra>",
        )  # fmt: skip
    figure.add_vline(
        x=threshold, line={"color": INK, "width": 1.5, "dash": "dash"},
        annotation={"text": f"limit {threshold:.1%}", "font_size": 12, "yanchor": "bottom"},
        annotation_position="top left",
    )  # fmt: skip
    ends = [0, 1.12 * max(threshold, float(relative.max()))]
    figure.update_xaxes(title_text="|missing| / |prediction − baseline|")
    figure.update_xaxes(tickformat=".1%", range=ends, nticks=6)
    name_rows(figure, [short(label, 24) for label in plain])
    if not is_named:
        figure.update_yaxes(title_text="genes", tickvals=[], ticktext=[])
    return figure


def leakage_table(leakage: Mapping[str, Any], *, title: str = "Leakage report") -> go.Figure:
    """Draw the checks of a leakage report as a table: status, value and limit, and why it matters.

    Parameters
    ----------
    leakage
        ``status`` (green, amber, red) over all, and ``checks``: records with check, value, unit,
        threshold, status, why. They are drawn worst first, otherwise in their order.

    Raises
    ------
    InputError
        No checks, a check without one of these fields, or another status.
    """
    table = pd.DataFrame(list(leakage.get("checks", ())), dtype=object)
    columns = ["check", "value", "unit", "threshold", "status", "why"]
    require_table(table, "leakage checks", columns)
    overall = str(leakage.get("status"))
    if unknown := {overall, *table["status"]} - set(_STATUS):
        raise InputError(f"status {min(map(str, unknown))!r} in the leakage", ", ".join(_STATUS))
    table = table.sort_values("status", key=lambda one: one.map(list(_STATUS).index), kind="stable")
    lines = []
    for row in table.itertuples():
        limit = "" if _is_missing(row.threshold) else f"; limit: {_amount(row.threshold, '')}"
        name = str(row.check).replace("_", " ")
        lines.append((name, f"{_amount(row.value, row.unit)}{limit}. Why: {row.why}"))
    # Rows grow with their text: the height is what they need on a narrow screen.
    n_lines = [len(text_lines(f"{name}: {text}", _CELL_CHARACTERS)) for name, text in lines]
    height = 60 + sum(17 * n + 14 for n in n_lines)
    figure = blank_figure(height, title, f"overall: {_STATUS[overall][0]}")
    status = [_STATUS[one] for one in table["status"]]
    texts = [f"<b>{safe(name)}</b>: {safe(text)}" for name, text in lines]
    font = {"size": 12, "color": INK}
    head = {"values": ["<b>status</b>", "<b>check</b>"], "fill_color": "white", "line_color": GREY}
    cells = {"values": [[f"<b>{word}</b>" for word, _ in status], texts], "line_color": GRID}
    cells |= {"fill_color": [[colour for _, colour in status], "white"]}
    shared = {"align": "left", "font": font, "height": 26}
    return figure.add_table(columnwidth=[22, 78], header=head | shared, cells=cells | shared)


def _is_missing(value: object) -> bool:
    """Whether a leakage field was left empty."""
    return value is None or (isinstance(value, float) and bool(np.isnan(value)))


def _amount(value: object, unit: object) -> str:
    """A leakage value with its unit: numbers rounded to four digits, anything else as text."""
    if _is_missing(value):
        return "not measured"
    text = str(value)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        text = f"{value:,}"
    elif isinstance(value, (float, np.floating)):
        text = f"{value:,.0f}" if abs(float(value)) >= 10_000 else f"{value:.4g}"
    return f"{text} {unit}".rstrip()


def influence_bars(
    table: pd.DataFrame,
    *,
    names: pd.Series | None = None,
    n_shown: int = 15,
    title: str = "What the graph adds",
) -> go.Figure:
    """Draw each node's mean on the middle 95 % of random graphs.

    A node above its band is drawn in full colour, any other hollow: it does no better than random
    edges would.

    Parameters
    ----------
    table
        From `pathway_influence`: id, n_edges, mean, null_low, null_high, p.
    names
        Label by id; the column `name` if None, and the id where it has none.
    n_shown
        The largest means.

    Raises
    ------
    InputError
        A column that is missing, no rows, or values that are not finite.
    """
    band = ["mean", "null_low", "null_high"]
    table = require_table(table, "influence", ["id", "n_edges", *band, "p"], finite=band)
    n_above = int((table["mean"] > table["null_high"]).sum())
    text = f"{n_above} of {len(table)} above their band of random graphs"
    if "chance_above" in table:
        text += f"; {len(table) * table['chance_above'].iloc[0]:.0f} are by chance"
    shown = table.sort_values("mean", ascending=False).head(n_shown)
    called = shown["name"] if names is None and "name" in shown else shown["id"]
    labels = [str(one if names is None else names.get(one, one)) for one in called]
    figure = blank_figure(90 + 26 * len(shown), title, text, margin={"b": 78})
    y = np.arange(len(shown), dtype=np.float64)
    figure.add_scatter(
        x=broken_lines(shown["null_low"], shown["null_high"]), y=broken_lines(y, y), mode="lines",
        name="random graphs, middle 95 %", line={"color": GREY, "width": 13}, opacity=0.55,
        hoverinfo="skip",
    )  # fmt: skip
    about = "<b>{label}</b><br>{mean:+.3g}, random {null_low:+.3g} to {null_high:+.3g}<br>"
    is_above = shown["mean"] > shown["null_high"]
    figure.add_scatter(
        x=shown["mean"].to_numpy(), y=y, mode="markers", name="this graph", hoverinfo="text",
        marker={"size": 11, "symbol": np.where(is_above, "diamond", "diamond-open"), "color": BLUE},
        marker_line={"color": BLUE, "width": 2},
        hovertext=row_texts(shown.assign(label=labels), about + "{n_edges:.0f} edges, p = {p:.2g}"),
    )  # fmt: skip
    figure.update_xaxes(title_text="towards what was observed", zeroline=True, zerolinecolor=INK)
    name_rows(figure, [short(label, 20) for label in labels])
    return figure


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
    if not 0 < low < high:
        raise InputError(f"bounds {low:g} and {high:g}", "0 < low < high")
    curve = curve.sort_values("learning_rate", kind="stable").astype(np.float64)
    figure = blank_figure(360, title)
    figure.add_vrect(x0=low, x1=high, fillcolor=BLUE, opacity=0.12, line_width=0)
    for column, name, colour in (("loss", "each step", GREY), ("smoothed", "smoothed", INK)):
        figure.add_scatter(
            x=curve["learning_rate"].to_numpy(), y=curve[column].to_numpy(), name=name,
            mode="lines", line={"color": colour, "width": 1 if colour == GREY else 2},
            hovertemplate="rate %{x:.2e}<br>%{y:.3f} bits a base<extra></extra>",
        )  # fmt: skip
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
    if missing := set(highlight) - set(rates["schedule"]):
        names = ", ".join(map(str, rates["schedule"].unique()))
        raise InputError(f"highlight {min(missing)!r}", names)
    figure = blank_figure(420, title)
    for i, (name, part) in enumerate(rates.sort_values("step", kind="stable").groupby("schedule")):
        line = {"color": COLOURS[i % len(COLOURS)], "width": 4 if name in highlight else 1.5}
        figure.add_scatter(
            x=part["step"].to_numpy(np.float64), y=part["learning_rate"].to_numpy(np.float64),
            mode="lines", name=safe(name), line=line | {"dash": DASHES[i // len(COLOURS) % 3]},
            hovertemplate=f"{safe(name)}<br>step %{{x:,}}, rate %{{y:.2e}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="optimiser step", tickformat="~s")
    return figure.update_yaxes(title_text="learning rate", exponentformat="power")

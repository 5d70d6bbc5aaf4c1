"""Figures of checks and their limits: the leakage report, attributions that must add up."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError
from genesplice.show.theme import (
    GREY,
    INK,
    OKABE_ITO,
    blank_figure,
    check_columns,
    check_lengths,
    check_series,
    gene_labels,
    safe,
    short,
    text_lines,
)

_STATUS = {
    "green": ("● green", "#D5F0E6", 0),
    "amber": ("▲ amber", "#FBE8C4", 1),
    "red": ("■ red", "#F7D5C2", 2),
}
_CELL_CHARACTERS = 39  # a line of the wide column on a narrow screen


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
    delta, relative = check_series(delta, "delta"), check_series(relative, "relative delta").abs()
    n_shared = len(delta.index.intersection(relative.index))
    for what, series in (("delta", delta), ("relative delta", relative)):
        check_lengths(len(series), f"genes of {what}", n_shared, "both series")
    relative = relative.sort_index().sort_values(ascending=False, kind="stable")
    delta = delta.loc[relative.index]
    is_over = relative.to_numpy() > threshold
    plain = gene_labels(relative.index, names)
    labels = [safe(label) for label in plain]
    is_labelled = len(labels) <= 60
    figure = blank_figure(
        90 + (22 if is_labelled else 6) * len(labels),
        title,
        f"{int((~is_over).sum()):,} of {len(labels):,} genes within {threshold:.1%} "
        "of the prediction",
    )
    place = np.arange(len(labels), dtype=np.float64)
    for word, is_part, colour, pattern in (
        ("within the limit", ~is_over, OKABE_ITO[0], ""),
        ("beyond the limit", is_over, OKABE_ITO[3], "/"),
    ):
        figure.add_bar(
            name=word,
            orientation="h",
            x=relative.to_numpy()[is_part],
            y=place[is_part],
            width=0.7,
            marker={
                "color": colour,
                "pattern": {"shape": pattern, "fgcolor": "white", "bgcolor": colour},
            },
            customdata=delta.to_numpy()[is_part],
            hovertext=[label for label, keep in zip(labels, is_part, strict=True) if keep],
            hovertemplate="<b>%{hovertext}</b><br>off by %{x:.2%}, "
            "%{customdata:.3g} log₂(TPM+1)<extra></extra>",
        )
    figure.add_vline(
        x=threshold,
        line={"color": INK, "width": 1.5, "dash": "dash"},
        annotation={"text": f"limit {threshold:.1%}", "font": {"size": 12}, "yanchor": "bottom"},
        annotation_position="top left",
    )
    figure.update_xaxes(
        title={"text": "|missing| / |prediction − baseline|"},
        tickformat=".1%",
        range=[0, 1.12 * max(threshold, float(relative.max()))],
        nticks=6,
    )
    figure.update_yaxes(
        tickmode="array",
        tickvals=place.tolist() if is_labelled else [],
        ticktext=[short(label, 24) for label in plain] if is_labelled else [],
        title={"text": "" if is_labelled else "genes"},
        range=[len(labels) - 0.5, -0.5],
        showgrid=False,
        ticks="",
    )
    return figure


def leakage_table(leakage: Mapping[str, Any], *, title: str = "Leakage report") -> go.Figure:
    """Draw the leakage's checks as a table: light and word, what was found, and why it matters.

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
    checks = list(leakage.get("checks", ()))
    table = pd.DataFrame(checks, dtype=object)  # a column's type must not change its values
    check_columns(table, ("check", "value", "unit", "threshold", "status", "why"), "leakage checks")
    overall = str(leakage.get("status"))
    for status in [overall, *table["status"]]:
        if status not in _STATUS:
            raise InputError(f"status {status!r} in the leakage", ", ".join(_STATUS))
    table = table.assign(rank=[-_STATUS[status][2] for status in table["status"]])
    table = table.sort_values("rank", kind="stable")
    found = []
    for row in table.itertuples():
        limit = "" if _is_missing(row.threshold) else f"; limit: {_amount(row.threshold, '')}"
        name = str(row.check).replace("_", " ")
        found.append((name, f"{_amount(row.value, row.unit)}{limit}. Why: {row.why}"))
    # Rows grow with their text: the height is what they need on a narrow screen.
    n_lines = [len(text_lines(f"{name}: {text}", _CELL_CHARACTERS)) for name, text in found]
    figure = blank_figure(
        60 + sum(17 * n + 14 for n in n_lines), title, f"overall: {_STATUS[overall][0]}"
    )
    figure.add_table(
        columnwidth=[22, 78],
        header={
            "values": ["<b>status</b>", "<b>check</b>"],
            "align": "left",
            "fill": {"color": "white"},
            "line": {"color": GREY},
            "font": {"size": 12, "color": INK},
            "height": 26,
        },
        cells={
            "values": [
                [f"<b>{_STATUS[s][0]}</b>" for s in table["status"]],
                [f"<b>{safe(name)}</b>: {safe(text)}" for name, text in found],
            ],
            "align": "left",
            "fill": {"color": [[_STATUS[s][1] for s in table["status"]], "white"]},
            "line": {"color": "#D9D9D9"},
            "font": {"size": 12, "color": INK},
            "height": 26,
        },
    )
    return figure


def _is_missing(value: object) -> bool:
    """Whether a leakage field was left empty."""
    return value is None or (isinstance(value, (float, np.floating)) and bool(np.isnan(value)))


def _amount(value: object, unit: object) -> str:
    """A leakage value with its unit: numbers rounded to four digits, anything else as text."""
    if _is_missing(value):
        return "not measured"
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        text = f"{value:,}"
    elif isinstance(value, (float, np.floating)):
        text = f"{value:,.0f}" if abs(float(value)) >= 10_000 else f"{value:.4g}"
    else:
        text = str(value)
    return f"{text} {unit}".rstrip()

"""One look for every figure: colours, template, text from users, and checks of what is drawn."""

import html
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError

# Okabe and Ito (2008), in the order in which groups take them: the pale ones come last.
OKABE_ITO = (
    "#0072B2",  # blue
    "#E69F00",  # orange
    "#009E73",  # bluish green
    "#D55E00",  # vermillion
    "#CC79A7",  # reddish purple
    "#56B4E9",  # sky blue
    "#000000",  # black
    "#F0E442",  # yellow
)
SYMBOLS = (
    "circle",
    "square",
    "diamond",
    "cross",
    "triangle-up",
    "x",
    "triangle-down",
    "star",
)
BASE_COLOURS = {"A": "#009E73", "C": "#0072B2", "G": "#E69F00", "T": "#D55E00"}
INK, MUTED, GRID, GREY = "#222222", "#595959", "#E6E6E6", "#A6A6A6"
# Written out: plotly.py and plotly.js give different colours to one scale name.
DIVERGING = [[0.0, "#00507D"], [0.25, "#56A5CF"], [0.5, "#F7F7F7"], [0.75, "#EE9A5B"]]
DIVERGING = [*DIVERGING, [1.0, "#A84300"]]
SEQUENTIAL = [[0.0, "#BBD7EA"], [0.35, "#4F9CCB"], [0.7, "#0072B2"], [1.0, "#00304D"]]

NARROW_PX = 300.0  # plotting width left on a 390-pixel telephone once the axis has its labels
_TITLE_CHARACTERS, _SUBTITLE_CHARACTERS = 38, 54  # what such a screen shows in one line
_LINE_PX = 18.2  # 1.3 times the font size of the title

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_AXIS = {
    "automargin": True,
    "gridcolor": GRID,
    "gridwidth": 1,
    "linecolor": GREY,
    "showline": True,
    "tickfont": {"size": 12, "color": MUTED},
    "ticks": "outside",
    "ticklen": 4,
    "tickcolor": GREY,
    "title": {"font": {"size": 13, "color": INK}, "standoff": 8},
    "zeroline": False,
}

THEME = go.layout.Template(
    layout={
        "autosize": True,
        "colorway": list(OKABE_ITO),
        "font": {
            "family": _FONT,
            "size": 13,
            "color": INK,
        },
        "height": 400,
        "hoverlabel": {
            "align": "left",
            "bgcolor": "white",
            "font": {"family": _FONT, "size": 12, "color": INK},
        },
        "hovermode": "closest",
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "xref": "container",
            "y": 0.005,
            "yanchor": "bottom",
            "yref": "container",
            "font": {"size": 12},
            "itemsizing": "constant",
        },
        "margin": {"l": 12, "r": 12, "t": 40, "b": 12},
        "modebar": {"bgcolor": "rgba(255,255,255,0)", "color": GREY, "activecolor": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "title": {
            "x": 0.0,
            "xanchor": "left",
            "xref": "container",
            "pad": {"l": 12, "t": 14},
            "yref": "container",
            "y": 1.0,
            "yanchor": "top",
            "font": {"size": 17, "color": INK},
        },
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
)


def safe(text: object) -> str:
    """Turn text from users into text that plotly shows letter by letter.

    Plotly reads tags and entities in every label, `%{x}` in hover templates, and `$...$` as a
    formula where a page carries MathJax; all are neutralised. Different texts stay different.
    """
    escaped = html.escape(str(text))
    return escaped.replace("$", "&#36;").replace("%{", "&#37;{")


def short(text: object, n_characters: int) -> str:
    """Cut a user's text to `n_characters`, the last an ellipsis, and make it `safe`.

    For labels on an axis, where a long one would leave no room for the plot; the hover text has
    it whole.
    """
    plain = str(text)
    return safe(plain if len(plain) <= n_characters else plain[: n_characters - 1] + "…")


def text_lines(text: str, width: int, max_lines: int | None = None) -> list[str]:
    """Break a user's text into lines of at most `width` characters, each made `safe`.

    What does not fit into `max_lines` is cut and ends in an ellipsis.
    """
    lines = textwrap.wrap(str(text), width, max_lines=max_lines, placeholder=" …")
    return [safe(line) for line in lines]


def gene_labels(gene_ids: pd.Index, names: pd.Series | None = None) -> tuple[str, ...]:
    """Label genes as `lacZ (b0344)`, or by their id where the name is missing or the same.

    Parameters
    ----------
    gene_ids
        What to label.
    names
        Gene name by gene_id; it may know more genes or fewer.

    Raises
    ------
    InputError
        If `names` has two rows for one gene_id.
    """
    if names is None:
        return tuple(map(str, gene_ids))
    check_lengths(names.index.nunique(), "different gene_id in names", len(names), "its rows")
    return tuple(
        str(gene) if pd.isna(name) or str(name) in ("", str(gene)) else f"{name} ({gene})"
        for gene, name in zip(gene_ids, names.reindex(gene_ids), strict=True)
    )


def text_on(colour: str) -> str:
    """Choose white or ink, whichever has the higher contrast (WCAG 2.2) on a #RRGGBB colour."""

    def luminance(hex_colour: str) -> float:
        parts = np.array([int(hex_colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    on_white = 1.05 / (luminance(colour) + 0.05)
    on_ink = (luminance(colour) + 0.05) / (luminance(INK) + 0.05)
    return "white" if on_white >= on_ink else INK


def blank_figure(body_px: int, title: str, subtitle: str = "", **layout: object) -> go.Figure:
    """Return a figure without traces that carries the theme, a title and room for both.

    Parameters
    ----------
    body_px
        Pixels below the title. The figure is that much and its title high, so that a page can
        reserve the room; its width is the container's.
    title, subtitle
        Plain text, broken into lines that fit a narrow screen. Either may be empty.
    **layout
        Further plotly layout settings.
    """
    lines = text_lines(title, _TITLE_CHARACTERS)
    sub_lines = text_lines(subtitle, _SUBTITLE_CHARACTERS)
    lines = [f'<span style="font-size:17px;color:{INK}">{line}</span>' for line in lines]
    lines += [f'<span style="font-size:13px">{line}</span>' for line in sub_lines]
    top_px = 26 + math.ceil(_LINE_PX * len(lines))
    figure = go.Figure()
    figure.update_layout(
        template=THEME,
        height=body_px + top_px,
        margin={"t": top_px},
        # Plotly lifts a title of several lines: half a line of padding brings it back.
        title={
            "text": "<br>".join(lines),
            "font": {"size": 14, "color": MUTED},
            "pad": {"t": 14 if len(lines) == 1 else 22},
        },
    )
    figure.update_layout(**layout)
    return figure


def broken_lines(*columns: np.ndarray) -> np.ndarray:
    """Interleave equally long columns and a NaN: the path plotly draws as separate strokes."""
    gap = np.full(len(columns[0]), np.nan)
    return np.column_stack([*(np.asarray(c, dtype=np.float64) for c in columns), gap]).ravel()


def check_columns(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Refuse a table that is empty or lacks one of `columns`.

    Raises
    ------
    InputError
        Naming the columns that are missing and those that are there.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        there = ", ".join(map(str, table.columns)) or "none"
        raise InputError(f"{what} with columns {there}", f"also {', '.join(missing)}")
    if table.empty:
        raise InputError(f"0 rows in {what}", "at least 1")


def check_lengths(first: int, first_what: str, second: int, second_what: str) -> None:
    """Refuse two counts that should be one, naming both.

    Raises
    ------
    InputError
        If the counts differ.
    """
    if first != second:
        raise InputError(f"{first:,} {first_what}", f"{second:,} as in {second_what}")


def check_finite(values: Sequence[Any] | np.ndarray, what: str) -> np.ndarray:
    """Return `values` as float64; refuse none at all, and NaN or infinity among them.

    Raises
    ------
    InputError
        Naming how many of how many are not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise InputError(f"0 values of {what}", "at least 1")
    n_bad = int((~np.isfinite(array)).sum())
    if n_bad:
        raise InputError(f"{n_bad:,} of {array.size:,} values of {what} not finite", "none")
    return array


def check_series(series: pd.Series, what: str) -> pd.Series:
    """Return a series as float64, refusing an empty one, NaN, and an index that repeats itself.

    Raises
    ------
    InputError
        Naming what is wrong and how many times.
    """
    values = check_finite(series.to_numpy(), what)
    n_unique = series.index.nunique()
    if n_unique != len(series):
        raise InputError(f"{n_unique:,} different labels of {what}", f"{len(series):,}, all unique")
    return pd.Series(values, index=series.index)


def intervals(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns value, ci_low and ci_high as value, distance down and distance up.

    An interval that is not there has the distances 0.

    Raises
    ------
    InputError
        If a value is not finite.
    """
    value = check_finite(table["value"].to_numpy(), "value")
    low = pd.to_numeric(table["ci_low"]).to_numpy(np.float64)
    high = pd.to_numeric(table["ci_high"]).to_numpy(np.float64)
    return value, np.nan_to_num(value - low), np.nan_to_num(high - value)

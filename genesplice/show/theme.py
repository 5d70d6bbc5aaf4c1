"""One look for every figure: colours, a plotly template, text from users, checks of tables.

The template is plotly's default from here on: figures of notebooks have the look as well.
"""

import html
import math
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io

from genesplice.errors import InputError, require

# Okabe and Ito (2008), in the order in which groups take them: the pale ones come last.
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, "#000000", "#F0E442")
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x", "triangle-down", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
BASE_COLOURS = {"A": GREEN, "C": BLUE, "G": ORANGE, "T": VERMILLION}
INK, MUTED, GRID, GREY = "#222222", "#595959", "#E6E6E6", "#A6A6A6"
# Written out: plotly.py and plotly.js give different colours to one scale name.
DIVERGING = [[0.0, "#00507D"], [0.25, "#56A5CF"], [0.5, "#F7F7F7"], [0.75, "#EE9A5B"],
             [1.0, "#A84300"]]  # fmt: skip
SEQUENTIAL = [[0.0, "#BBD7EA"], [0.35, "#4F9CCB"], [0.7, BLUE], [1.0, "#00304D"]]

NARROW_PX = 300.0  # plotting width left on a 390-pixel telephone once the axis has its labels
LABELS_MAX = 60  # rows or columns that are still named on an axis
_TITLE_CHARACTERS, _SUBTITLE_CHARACTERS = 38, 50  # what such a screen shows in one line
_LINE_PX = 18.2  # 1.3 times the font size of the title

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
THEME = go.layout.Template()
THEME.layout.update(
    autosize=True, height=400, colorway=COLOURS, hovermode="closest",
    paper_bgcolor="white", plot_bgcolor="white", margin={"l": 12, "r": 12, "t": 40, "b": 12},
    font={"family": _FONT, "size": 13, "color": INK},
    hoverlabel={"align": "left", "bgcolor": "white", "font_size": 12, "font_color": INK},
    modebar={"bgcolor": "rgba(255,255,255,0)", "color": GREY, "activecolor": INK},
    legend={"orientation": "h", "x": 0, "xanchor": "left", "xref": "container", "y": 0.005,
            "yanchor": "bottom", "yref": "container", "font_size": 12, "itemsizing": "constant"},
    title={"x": 0.0, "xanchor": "left", "xref": "container", "y": 1.0, "yanchor": "top",
           "yref": "container", "pad": {"l": 12, "t": 14}, "font": {"size": 17, "color": INK}},
)  # fmt: skip
for _axis in (THEME.layout.xaxis, THEME.layout.yaxis):
    _axis.update(
        automargin=True, gridcolor=GRID, gridwidth=1, linecolor=GREY, showline=True, zeroline=False,
        zerolinecolor=GREY, ticks="outside", ticklen=4, tickcolor=GREY,
        tickfont={"size": 12, "color": MUTED},
        title={"font": {"size": 13, "color": INK}, "standoff": 8},
    )  # fmt: skip
plotly.io.templates["genesplice"] = THEME
plotly.io.templates.default = "genesplice"

# Below the plot, where a narrow screen has room.
COLOUR_BAR = {
    "orientation": "h", "thickness": 10, "len": 0.9, "x": 0.5, "outlinewidth": 0,
    "yref": "container", "y": 0.01, "yanchor": "bottom",
}  # fmt: skip
PANEL_TITLE = {
    "xref": "paper", "yref": "paper", "showarrow": False, "align": "left", "x": 0,
    "xanchor": "left", "yanchor": "bottom", "font": {"size": 13, "color": INK},
}  # fmt: skip
DOTTED = {"color": INK, "width": 1, "dash": "dot"}


def safe(text: object) -> str:
    """Turn text from users into text that plotly shows letter by letter.

    Plotly reads tags and entities in every label, `%{x}` in hover templates, and `$...$` as a
    formula where a page carries MathJax; all are neutralised. Different texts stay different.
    """
    escaped = html.escape(str(text))
    return escaped.replace("$", "&#36;").replace("%{", "&#37;{")


def short(text: object, n_characters: int) -> str:
    """Cut a user's text to `n_characters`, the last an ellipsis, and make it `safe`."""
    plain = str(text)
    return safe(plain if len(plain) <= n_characters else plain[: n_characters - 1] + "…")


def words(name: object, n_characters: int = 30) -> str:
    """A metric's name for an axis: cut, safe, without underscores."""
    return short(name, n_characters).replace("_", " ")


def text_lines(text: object, width: int, max_lines: int | None = None) -> list[str]:
    """Break a user's text into lines of at most `width` characters, each made `safe`.

    What does not fit into `max_lines` is cut and ends in an ellipsis.
    """
    lines = textwrap.wrap(str(text), width, max_lines=max_lines, placeholder=" …")
    return [safe(line) for line in lines]


def stepped(colours: Sequence[str]) -> dict[str, Any]:
    """Colour scale and its ends for a marker that is coloured by codes from 0."""
    edges = np.linspace(0, 1, len(colours) + 1).repeat(2)[1:-1].tolist()
    scale = [list(stop) for stop in zip(edges, np.repeat(colours, 2).tolist(), strict=True)]
    return {"colorscale": scale, "cmin": -0.5, "cmax": len(colours) - 0.5}


def row_texts(table: pd.DataFrame, template: str) -> list[str]:
    """Fill a format string from each row of a table: numbers as it says, any other text `safe`."""
    rows = (
        {name: v if isinstance(v, (int, float)) else safe(v) for name, v in row.items()}
        for row in table.to_dict("records")
    )
    return [template.format(**row) for row in rows]


def gene_labels(gene_ids: Iterable[object], names: pd.Series | None = None) -> tuple[str, ...]:
    """Label genes as `lacZ (b0344)`, or by their id where the name is missing or the same.

    `names` is by gene_id and may know more genes or fewer.

    Raises
    ------
    InputError
        If `names` has two rows for one gene_id.
    """
    if names is None:
        return tuple(map(str, gene_ids))
    n = names.index.nunique()
    require(n == len(names), f"{len(names):,} names of {n:,} different gene_id", "one for each")
    known = names.reindex(gene_ids := list(gene_ids))
    return tuple(
        str(gene) if pd.isna(name) or str(name) in ("", str(gene)) else f"{name} ({gene})"
        for gene, name in zip(gene_ids, known, strict=True)
    )


def text_on(colour: str) -> str:
    """White or ink, whichever has the higher contrast (WCAG 2.2) on one of `COLOURS`."""
    return "white" if colour in (BLUE, "#000000") else INK


def blank_figure(
    body_px: float | int,
    title: str,
    subtitle: str = "",
    figure: go.Figure | None = None,
    **layout: object,
) -> go.Figure:
    """Return `figure` (or an empty one) with the theme, a title and room for both.

    Parameters
    ----------
    body_px
        Pixels below the title. The figure is that much and its title high, so that a page can
        reserve the room; its width is the container's.
    title, subtitle
        Plain text, broken into lines that fit a narrow screen. Either may be empty.
    """
    figure = go.Figure() if figure is None else figure
    lines = text_lines(title, _TITLE_CHARACTERS)
    sub_lines = text_lines(subtitle, _SUBTITLE_CHARACTERS)
    lines = [f'<span style="font-size:17px;color:{INK}">{line}</span>' for line in lines]
    lines += [f'<span style="font-size:13px">{line}</span>' for line in sub_lines]
    top_px = 26 + math.ceil(_LINE_PX * len(lines))
    # Plotly lifts a title of several lines: half a line of padding brings it back.
    pad = {"t": 14 if len(lines) == 1 else 22}
    title_of = {"text": "<br>".join(lines), "font": {"size": 14, "color": MUTED}, "pad": pad}
    figure.update_layout(height=body_px + top_px, margin={"t": top_px}, title=title_of)
    return figure.update_layout(**layout)


def left_out(what: str, title: str = "") -> go.Figure:
    """A sentence in place of a figure: the data have nothing to draw, and the page goes on."""
    said = f"These data have no {what}; this section is left out."
    hidden: dict[str, Any] = {"xaxis_visible": False, "yaxis_visible": False}
    return blank_figure(8, title, said, **hidden)


def stack_panels(figure: go.Figure, panels: Mapping[str, tuple[int, int]]) -> int:
    """Put y axes (and "table") below one another: height and gap above, in pixels; their sum."""
    total = top = sum(height + gap for height, gap in panels.values())
    for name, (height, gap) in panels.items():
        top -= gap
        domain = [max(0.0, (top - height) / total), top / total]
        if name == "table":
            figure.update_traces(domain_y=domain, selector={"type": "table"})
        else:
            figure.update_layout({f"{name}_domain": domain})
        top -= height
    return total


def name_rows(figure: go.Figure, labels: Sequence[str], **where: object) -> None:
    """Label the y axis with one row per label, the first on top; plotly text already."""
    rows = np.arange(len(labels), dtype=np.float64)
    figure.update_yaxes(
        tickmode="array", tickvals=rows, ticktext=labels, range=[len(labels) - 0.5, -0.5],
        showgrid=False, ticks="", **where,
    )  # fmt: skip


def broken_lines(*columns: np.ndarray | pd.Series) -> np.ndarray:
    """Interleave equally long columns and a NaN: the path plotly draws as separate strokes."""
    gap = np.full(len(columns[0]), np.nan)
    return np.column_stack([*(np.asarray(c, dtype=np.float64) for c in columns), gap]).ravel()


def refuse(is_bad: Any, what: str, expected: str = "0") -> None:
    """Refuse a table some of whose rows are bad, and count them."""
    n = int(np.sum(is_bad))
    require(not n, f"{n:,} of {len(is_bad):,} {what}", expected)


def require_table(
    table: pd.DataFrame,
    what: str,
    columns: Sequence[str],
    *,
    unique: Sequence[str] = (),
    finite: Sequence[str] = (),
    among: Mapping[str, Collection[Any]] | None = None,
) -> pd.DataFrame:
    """Give back a table that has rows and `columns`, no two rows alike in `unique`, no gaps.

    Columns of `finite` come back as float64; those of `among` hold nothing but what it lists.

    Raises
    ------
    InputError
        Naming the columns that are missing and those that are there, or counting the rows.
    """
    there = ", ".join(map(str, table.columns)) or "none"
    missing = [column for column in columns if column not in table.columns]
    require(not missing, f"{what} with columns {there}", f"also {', '.join(missing)}")
    require(len(table), f"0 rows in {what}", "at least 1")
    if unique:
        refuse(table.duplicated(list(unique)), f"rows of {what} repeat a {' and '.join(unique)}")
    table = table.astype(dict.fromkeys(finite, np.float64))
    for column in finite:
        refuse(~np.isfinite(table[column]), f"{column} of {what} not finite")
    for column, known in (among or {}).items():
        for other in set(table[column]) - set(known):
            raise InputError(f"{column} {str(other)!r} in {what}", ", ".join(map(str, known)))
    return table


def require_series(series: pd.Series, what: str) -> pd.Series:
    """Return a series as float64, refusing an empty one, NaN, and an index that repeats itself."""
    table = pd.DataFrame({"label": series.index, "values": series.to_numpy()})
    table = require_table(table, what, (), unique=["label"], finite=["values"])
    return pd.Series(table["values"].to_numpy(), index=series.index)


def whiskers(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns value, ci_low and ci_high as value, distance down and distance up.

    An interval that is not there has the distances 0.
    """
    value, low, high = table[["value", "ci_low", "ci_high"]].astype(float).to_numpy(float).T
    return value, np.nan_to_num(value - low), np.nan_to_num(high - value)


def of_trace(number: int, **values: Any) -> dict[str, Any]:
    """Properties of a trace by their paths in a figure, as bindings have them."""
    return {f"data[{number}].{name}": value for name, value in values.items()}


def line(x: Any, y: Any, colour: str, **look: Any) -> go.Scatter:
    """Make a line of some `width`, `dash` and `shape`; the rest of `look` is plotly's.

    `hover` is a template; without one the mouse passes the line.
    """
    hover = look.pop("hover", "")
    extra = "" if "<extra>" in hover else "<extra></extra>"
    said = {"hovertemplate": hover + extra} if hover else {"hoverinfo": "skip"}
    style = {"color": colour, "width": look.pop("width", 2)}
    style |= {name: look.pop(name, None) for name in ("dash", "shape")}
    x = np.asarray(x)
    x = x.tolist() if x.dtype.kind == "U" else x.astype(np.float64)
    given = {"x": x, "y": np.asarray(y, float), "mode": "lines", "line": style}
    return go.Scatter(given | said | look)

"""The explorer of maps: points coloured by a column of your choice."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError
from genesplice.show.explorer import Explorer, gene_labels
from genesplice.show.patches import Binding, Click, Control
from genesplice.show.theme import GREY, INK, MUTED, OKABE_ITO, SEQUENTIAL, THEME, safe

N_COLOURS = 6


class ScatterExplorer(Explorer):
    """A map of points coloured by a column of your choice, with a search that marks one point.

    Parameters
    ----------
    points
        Two columns, x and y, e.g. of an embedding; their names label the axes.
    columns
        What to colour by, same index. Numbers get a sequential scale; anything else is a
        category, of which the six most frequent get a colour and the others grey.
    names
        Label by index, for the search and the hover; the index is used where it has none.

    Raises
    ------
    InputError
        No points, no columns, or tables over different rows.
    """

    def __init__(
        self, points: pd.DataFrame, columns: pd.DataFrame, *, names: pd.Series | None = None
    ) -> None:
        if points.empty or columns.shape[1] == 0 or points.shape[1] < 2:
            raise InputError(
                f"{len(points)} points, {points.shape[1]} coordinates and {columns.shape[1]} "
                "columns to colour by",
                "at least 1, 2 and 1",
            )
        if len(missing := points.index.difference(columns.index)):
            raise InputError(f"no row for {missing[0]} in columns", f"all {len(points):,} points")
        labels = gene_labels(points.index, names)
        scales = [_colour_scale(columns.loc[points.index, name]) for name in columns.columns]
        places = points.iloc[:, :2].to_numpy(np.float64)
        figure = _map_figure(places, [str(name) for name in points.columns[:2]], labels)
        column = Control(
            name="column",
            kind="select",
            label="Colour by",
            options=tuple(map(str, columns.columns)),
        )
        find = Control(
            name="find", kind="select", label="Mark a point", options=("(none)", *labels)
        )
        by_column: dict[str, Any] = {"controls": ("column",), "traces": (0,)}
        bindings = [
            Binding(path="marker.color", rows=np.stack([s["values"] for s in scales]), **by_column),
            *(
                Binding(path=f"marker.{key}", rows=[s[key] for s in scales], **by_column)
                for key in ("colorscale", "cmin", "cmax")
            ),
            *(
                Binding(path=f"marker.colorbar.{key}", rows=[s[key] for s in scales], **by_column)
                for key in ("tickmode", "tickvals", "ticktext")
            ),
            Binding(
                path="hovertext",
                rows=[
                    [f"{safe(a)}<br>{safe(b)}" for a, b in zip(labels, s["shown"], strict=True)]
                    for s in scales
                ],
                **by_column,
            ),
            *(
                Binding(
                    path=axis,
                    rows=np.concatenate([[[np.nan]], places[:, [i]]]),
                    controls=("find",),
                    traces=(1,),
                )
                for i, axis in enumerate("xy")
            ),
            Binding(
                path="text",
                rows=[[""], *([safe(label)] for label in labels)],
                controls=("find",),
                traces=(1,),
            ),
        ]
        narrow = {"height": 520}
        super().__init__(figure, [column, find], bindings, [Click(trace=0, control="find")], narrow)


def _map_figure(places: np.ndarray, axes: list[str], labels: tuple[str, ...]) -> go.Figure:
    """Draw all points in one trace, and an empty one for the marked point."""
    figure = go.Figure(layout={"template": THEME, "height": 560, "margin": {"t": 16, "b": 60}})
    figure.add_scatter(
        x=places[:, 0],
        y=places[:, 1],
        mode="markers",
        marker={
            "size": 7,
            "opacity": 0.85,
            "colorbar": {"thickness": 12, "outlinewidth": 0, "tickfont": {"color": MUTED}},
        },
        customdata=list(labels),
        hoverinfo="text",
        showlegend=False,
    )
    figure.add_scatter(
        mode="markers+text",
        marker={"size": 16, "color": "rgba(0,0,0,0)", "line": {"color": INK, "width": 2.5}},
        textposition="top center",
        textfont={"size": 13, "color": INK},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.update_layout(
        xaxis={"title": {"text": safe(axes[0])}}, yaxis={"title": {"text": safe(axes[1])}}
    )
    return figure


def _colour_scale(column: pd.Series) -> dict[str, Any]:
    """Work out what plotly needs to colour points by a column, and the text of each point."""
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if is_number:
        values = column.to_numpy(np.float64)
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        return {
            "values": values.astype(np.float32),
            "colorscale": SEQUENTIAL,
            "cmin": low,
            "cmax": high if high > low else low + 1.0,
            "tickmode": "auto",
            "tickvals": None,
            "ticktext": None,
            "shown": [f"{column.name}: {value:.4g}" for value in values],
        }
    texts = column.astype(object).where(column.notna(), "unknown").astype(str)
    frequent = texts.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    kept = list(frequent.index[:N_COLOURS])
    names = kept + (["other"] if len(frequent) > N_COLOURS else [])
    colours = [*OKABE_ITO[: len(kept)], GREY][: len(names)]
    edges = np.repeat(np.arange(len(names) + 1) / len(names), 2)[1:-1]
    codes = texts.map({name: code for code, name in enumerate(kept)}).fillna(len(kept))
    return {
        "values": codes.to_numpy(np.float32),
        "colorscale": [
            [float(edge), colours[position // 2]] for position, edge in enumerate(edges)
        ],
        "cmin": -0.5,
        "cmax": len(names) - 0.5,
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [safe(name) for name in names],
        "shown": [f"{column.name}: {text}" for text in texts],
    }

"""What regulators or pathways add to predictions, each on the band of random ones."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.show.theme import (
    GREY,
    INK,
    OKABE_ITO,
    blank_figure,
    broken_lines,
    check_columns,
    check_finite,
    safe,
    short,
)

_ROW_PX = 26


def influence_bars(
    table: pd.DataFrame,
    *,
    names: pd.Series | None = None,
    n_shown: int = 15,
    title: str = "What the graph adds",
) -> go.Figure:
    """Draw each node's mean on the middle 95 % of random graphs.

    A node above its band is drawn in full colour, any other hollow: it does no better than random
    ties would.

    Parameters
    ----------
    table
        From `influence_with_band`: id, n_edges, mean, null_low, null_high, p.
    names
        Label by id; the id is used where it has none.
    n_shown
        The largest means.

    Raises
    ------
    InputError
        A column that is missing, no rows, or values that are not finite.
    """
    check_columns(table, ["id", "n_edges", "mean", "null_low", "null_high", "p"], "influence")
    shown = table.sort_values("mean", ascending=False).head(n_shown)
    mean, low, high = (
        check_finite(shown[column].to_numpy(), column)
        for column in ("mean", "null_low", "null_high")
    )
    is_above = mean > high
    count = int((table["mean"] > table["null_high"]).sum())
    by_chance = ""
    if "chance_above" in table:
        by_chance = f"; {len(table) * table['chance_above'].iloc[0]:.0f} are by chance"
    figure = blank_figure(
        90 + _ROW_PX * len(shown),
        title,
        f"{count} of {len(table)} above their band of random graphs{by_chance}",
        margin={"b": 78},
    )
    y = np.arange(len(shown), dtype=np.float64)
    figure.add_scatter(
        x=broken_lines(low, high),
        y=broken_lines(y, y),
        mode="lines",
        name="random graphs, middle 95 %",
        line={"color": GREY, "width": 13},
        opacity=0.55,
        hoverinfo="skip",
    )
    plain = [str(one if names is None else names.get(one, one)) for one in shown["id"]]
    hover = [
        f"<b>{safe(label)}</b><br>{value:+.3g}, random {a:+.3g} to {b:+.3g}<br>"
        f"{int(n)} edges, p = {p:.2g}"
        for label, value, a, b, n, p in zip(
            plain, mean, low, high, shown["n_edges"], shown["p"], strict=True
        )
    ]
    figure.add_scatter(
        x=mean,
        y=y,
        mode="markers",
        name="this graph",
        marker={
            "size": 11,
            "symbol": np.where(is_above, "diamond", "diamond-open").tolist(),
            "color": OKABE_ITO[0],
            "line": {"color": OKABE_ITO[0], "width": 2},
        },
        hovertext=hover,
        hoverinfo="text",
    )
    figure.update_xaxes(
        title={"text": "towards what was observed"}, zeroline=True, zerolinecolor=INK
    )
    figure.update_yaxes(
        tickmode="array",
        tickvals=y.tolist(),
        ticktext=[short(label, 20) for label in plain],
        range=[len(shown) - 0.5, -0.5],
        showgrid=False,
        ticks="",
    )
    return figure

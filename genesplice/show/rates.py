"""Figures of learning rates: a range test, and schedules side by side."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError
from genesplice.show.theme import GREY, INK, OKABE_ITO, blank_figure, check_columns, safe

DASHES = ("solid", "dash", "dot")


def rate_range(
    curve: pd.DataFrame, low: float, high: float, *, title: str = "Learning-rate range test"
) -> go.Figure:
    """Draw the loss of a run whose rate rises, and the rates that are proposed.

    Parameters
    ----------
    curve
        Columns learning_rate, loss and smoothed, a row a step.
    low, high
        Bounds of the shaded stretch.

    Raises
    ------
    InputError
        Missing columns, no rows, or bounds that do not rise from above 0.
    """
    check_columns(curve, ("learning_rate", "loss", "smoothed"), "curve")
    if not 0 < low < high:
        raise InputError(f"bounds {low:g} and {high:g}", "0 < low < high")
    curve = curve.sort_values("learning_rate", kind="stable")
    figure = blank_figure(360, title)
    figure.add_vrect(x0=low, x1=high, fillcolor=OKABE_ITO[0], opacity=0.12, line={"width": 0})
    shared = {"x": curve["learning_rate"].to_numpy(np.float64), "mode": "lines"}
    hover = "rate %{x:.2e}<br>%{y:.3f} bits a base<extra></extra>"
    figure.add_scatter(
        **shared,
        y=curve["loss"].to_numpy(np.float64),
        name="each step",
        line={"color": GREY, "width": 1},
        hovertemplate=hover,
    )
    figure.add_scatter(
        **shared,
        y=curve["smoothed"].to_numpy(np.float64),
        name="smoothed",
        line={"color": INK, "width": 2},
        hovertemplate=hover,
    )
    figure.update_xaxes(title={"text": "learning rate"}, type="log", exponentformat="power")
    figure.update_yaxes(title={"text": "training bits per base"})
    return figure


def rate_schedules(
    rates: pd.DataFrame, *, highlight: Sequence[str] = (), title: str = "Learning-rate schedules"
) -> go.Figure:
    """Draw the rate of every schedule over the steps, those of `highlight` thick.

    Parameters
    ----------
    rates
        Columns schedule, step and learning_rate. Colours follow the order of first appearance.

    Raises
    ------
    InputError
        Missing columns, no rows, or a highlighted schedule that is not there.
    """
    check_columns(rates, ("schedule", "step", "learning_rate"), "rates")
    names = list(dict.fromkeys(rates["schedule"]))
    if missing := [name for name in highlight if name not in names]:
        raise InputError(f"highlight {missing[0]!r}", ", ".join(map(str, names)))
    figure = blank_figure(420, title)
    for i, name in enumerate(names):
        part = rates[rates["schedule"] == name].sort_values("step", kind="stable")
        figure.add_scatter(
            x=part["step"].to_numpy(np.float64),
            y=part["learning_rate"].to_numpy(np.float64),
            mode="lines",
            name=safe(str(name)),
            line={
                "color": OKABE_ITO[i % len(OKABE_ITO)],
                "width": 4 if name in highlight else 1.5,
                "dash": DASHES[i // len(OKABE_ITO) % len(DASHES)],
            },
            hovertemplate=f"{safe(str(name))}<br>step %{{x:,}}, rate %{{y:.2e}}<extra></extra>",
        )
    figure.update_xaxes(title={"text": "optimiser step"}, tickformat="~s")
    figure.update_yaxes(title={"text": "learning rate"}, exponentformat="power")
    return figure

"""The bench as a small offline page: the table, and time and memory over length."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from benchmarks.rows import LENGTHS, BenchRow, Measurements
from genesplice.show.report import write_page

MARKS = {True: "met", False: "missed", None: "–"}


def scaling_figure(found: Measurements) -> go.Figure:
    """CPU time and memory of one window over its length, both axes logarithmic."""
    figure = make_subplots(cols=2, subplot_titles=("CPU seconds", "MB above the model"))
    for mode, colour in (("forward", "#0072B2"), ("train", "#D55E00")):
        steps = [found[f"{mode} {length}"] for length in LENGTHS]
        for column, key in ((1, "seconds"), (2, "above_mb")):
            values = [step[key] for step in steps]
            figure.add_scatter(
                x=list(LENGTHS), y=values, name=mode, legendgroup=mode, showlegend=column == 1,
                mode="lines+markers", line_color=colour, row=1, col=column,
            )  # fmt: skip
    for mode, length in (("forward", 196_608), ("train", 98_304)):
        if peer := found.get(f"enformer parameters {mode}"):
            figure.add_scatter(
                x=[length], y=[peer["seconds"]], name=f"enformer-pytorch, {mode}", mode="markers",
                marker={"symbol": "x", "size": 10, "color": "#444"}, row=1, col=1,
            )  # fmt: skip
    figure.update_xaxes(type="log", title="window, bp")
    figure.update_yaxes(type="log")
    return figure.update_layout(height=420, margin_b=90)


def write_bench_page(
    target: Path, rows: Sequence[BenchRow], found: Measurements, machine: str
) -> Path:
    """Write the table and the figure as one self-contained HTML page."""
    table = pd.DataFrame([row.to_dict() for row in rows])
    table["met"] = [MARKS[row.met] for row in rows]
    text = (
        "Both sides of every ratio come from this one run. Random weights: equal parameters or "
        "operations are not equal accuracy, and nothing here measures accuracy."
    )
    parts = [text, table, scaling_figure(found)]
    return write_page(target, "Speed and memory", parts, facts=[machine])

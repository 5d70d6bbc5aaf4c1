"""The bench as a small offline page: the table, and time and memory over length."""

import html
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from benchmarks.rows import LENGTHS, BenchRow, Measurements

__all__ = ["render_page", "scaling_figure"]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1f24; background: #fff }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #d8dee4 }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
"""
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
    return figure.update_layout(
        template="simple_white", height=420, legend={"orientation": "h", "y": -0.25}
    )


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def render_page(rows: Sequence[BenchRow], found: Measurements, machine: str) -> str:
    """One self-contained HTML page."""
    lines = [
        f"<tr><td>{html.escape(row.name)}<td>{html.escape(row.goal)}"
        f"<td class=number>{_cell(row.measured)}<td>{html.escape(row.unit)}"
        f"<td class=number>{_cell(row.peer)}<td class=number>{_cell(row.ratio)}"
        f"<td>{MARKS[row.met]}"
        for row in rows
    ]
    heads = "".join(
        f"<th>{head}" for head in ("", "goal", "measured", "unit", "beside", "ratio", "")
    )
    figure = scaling_figure(found).to_html(
        full_html=False, include_plotlyjs=False, div_id="scaling", config={"responsive": True}
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:">
<title>Bench</title><style>{STYLE}</style>
<h1>Speed and memory</h1>
<p>{html.escape(machine)} Both sides of every ratio come from this one run. Random weights: equal
parameters or operations are not equal accuracy, and nothing here speaks of accuracy.</p>
<div class="wide"><table><thead><tr>{heads}<tbody>{"".join(lines)}</table></div>
<script>{get_plotlyjs()}</script>{figure}</html>
"""

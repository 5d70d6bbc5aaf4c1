"""What stands along a sequence: letters as polygons, sites and genes in lanes, conservation."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.results import Conservation
from genesplice.show import theme as th
from genesplice.show.theme import broken_lines, safe, short

SITE_LANES, _CHARACTER_PX = 3, 6.2  # of the names of sites


def _arc(radius: float, first: float, last: float, n_points: int = 17) -> np.ndarray:
    """Points of a circle around the middle of the unit square; angles in degrees."""
    angle = np.deg2rad(np.linspace(first, last, n_points))
    return np.round(0.5 + radius * np.column_stack([np.cos(angle), np.sin(angle)]), 6)


def _fill(*parts: np.ndarray) -> np.ndarray:
    """Join parts of an outline and widen it until it touches both sides of the unit square."""
    outline = np.vstack(parts)
    return outline / [outline[:, 0].max(), 1.0]


_A = [[0, 0.39, 0.5, 0.5, 0.36, 0.64, 0.5, 0.5, 0.61, 1, 0.79, 0.7, 0.3, 0.21]]
_A += [[0, 1, 1, 0.8, 0.37, 0.37, 0.8, 1, 1, 0, 0, 0.22, 0.22, 0]]
_G_BAR = [[0.99, 0.99, 0.55, 0.55, 0.81, 0.81], [0.2, 0.53, 0.53, 0.38, 0.38, 0.3]]
_T = [[0, 1, 1, 0.6, 0.6, 0.4, 0.4, 0], [1, 1, 0.83, 0.83, 0, 0, 0.83, 0.83]]
# Outlines in the unit square, without holes: the hole of the A hangs on a slit from its apex.
LETTERS = {
    "A": np.array(_A).T,
    "C": _fill(_arc(0.5, 36.0, 324.0), _arc(0.31, 324.0, 36.0)),
    "G": _fill(_arc(0.5, 36.0, 324.0), np.array(_G_BAR).T, _arc(0.31, 320.0, 36.0)),
    "T": np.array(_T).T,
}


def letter_paths(
    x: np.ndarray, tokens: np.ndarray, height: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Polygons of the letters A C G T, kept apart by NaN: x (float64) and y.

    Each base that is there and is not 0 high has one.
    """
    paths = {}
    for token, (base, outline) in enumerate(LETTERS.items()):
        at = np.flatnonzero((tokens == token) & (height != 0))
        gap = np.full((len(at), 1), np.nan)
        letter_x = x[at, None] - 0.45 + 0.9 * outline[:, 0]
        letter_y = height[at, None] * outline[:, 1]
        path = np.hstack([letter_x, gap]).ravel(), np.hstack([letter_y, gap]).ravel()
        paths[base] = path[0], path[1].astype(np.float32)
    return paths


def site_lanes(
    low: Iterable[float], high: Iterable[float], n_lanes: int | None = None
) -> list[int]:
    """Give each interval, sorted by its low end, the first lane in which it is free.

    With `n_lanes` there are no more of them: where all are taken, the one that is free first.
    """
    free, lanes = [-math.inf] * (n_lanes or 0), []
    for left, right in zip(low, high, strict=True):
        lane = next((n for n, end in enumerate(free) if end <= left), len(free))
        if lane == len(free):
            lane = int(np.argmin(free)) if n_lanes else lane
            free += [] if n_lanes else [-math.inf]
        free[lane] = right
        lanes.append(lane)
    return lanes


def free_names(
    names: Sequence[str], lanes: np.ndarray, middle: np.ndarray, window_bp: float | int
) -> list[str]:
    """Names (plotly text) that a narrow screen has room for in their lane, "" for the others."""
    shown, ends = list[str](), dict[float, float]()
    for lane, at, name in zip(lanes, middle, names, strict=True):
        reach = len(html.unescape(name)) * _CHARACTER_PX / 2 * window_bp / th.NARROW_PX
        is_free = ends.get(lane, -math.inf) <= at - reach
        shown.append(name if is_free else "")
        ends |= {lane: at + reach} if is_free else {}
    return shown


def site_values(motifs: pd.DataFrame | None, gene_id: object, window_bp: int) -> dict[str, Any]:
    """Lay a gene's sites into lanes: strokes of trace 2, names of trace 3.

    A name that would run into the one before it in its lane is left to the hover text.
    """
    if motifs is None:
        return {}
    mine = motifs[motifs["gene_id"] == gene_id].sort_values(["start", "end"], kind="stable")
    low, high = (mine[edge].to_numpy(np.float64) - 0.5 for edge in ("start", "end"))
    lanes = -np.array(site_lanes(low, high, SITE_LANES), dtype=np.float64)
    names = [th.short(name, 24) for name in mine["name"]]
    middle = (low + high) / 2
    texts = {"text": free_names(names, lanes, middle, window_bp), "hovertext": names}
    strokes = th.of_trace(2, x=broken_lines(low, high), y=broken_lines(lanes, lanes))
    return strokes | th.of_trace(3, x=middle, y=lanes - 0.45, **texts)


def gene_lanes(genes: pd.DataFrame, locus: object, reach: float) -> dict[str, Any]:
    """Strokes of the genes of a locus (traces 4 and 5), where they end (7) and names (8)."""
    mine = genes[genes["locus"] == locus].sort_values("start", kind="stable")
    low, high = (mine[edge].to_numpy(np.float64).clip(-reach, reach) for edge in ("start", "end"))
    is_minus, is_it = (mine["strand"] == "-").to_numpy(), (mine["gene_id"] == locus).to_numpy()
    y, middle = -is_minus.astype(np.float64), (low + high) / 2
    out: dict[str, Any] = {}
    for trace, own in ((4, ~is_it), (5, is_it)):
        ends = broken_lines(low[own], high[own])
        out |= th.of_trace(trace, x=ends, y=broken_lines(y[own], y[own]))
    names = [th.short(name, 16) for name in mine["name"]]
    about = mine.assign(size=mine["end"] - mine["start"])
    heads = {"marker.symbol": [f"triangle-{'left' if one else 'right'}" for one in is_minus]}
    heads["hovertext"] = th.row_texts(about, "{name} ({gene_id}), {strand} strand, {size:,} bp")
    out |= th.of_trace(7, x=np.where(is_minus, low, high), y=y, **heads)
    shown = free_names(names, y, middle, 2.3 * reach)
    return out | th.of_trace(8, x=middle, y=y + 0.45, text=shown)


def add_conservation(figure: go.Figure, x: np.ndarray, found: Conservation, axis: str) -> list[str]:
    """Add two areas for each group of relatives on a y axis of its own; the names of these axes.

    The dark one is how many have the base that is there, the pale one how many are aligned; of a
    score there is one area. Where the axes lie is up to the caller; `axis` is the x axis.
    """
    panels: list[tuple[str, float, float, dict[str, str]]] = [
        (group, 0, size, {f"{group} relatives that are aligned": "#BFE3D8",
                          f"{group} relatives that have this base": th.GREEN})
        for group, size in _shown(found)
    ]  # fmt: skip
    if found.score is not None:
        name, low, high = found.score
        panels.append((name, min(low, 0), max(high, 0), {name: th.GREEN}))
    axes, areas = [], iter(conservation_areas(found))
    for number, (name, low, high, shades) in enumerate(panels, len([*figure.select_yaxes()]) + 1):
        for what, colour in shades.items():
            of = f"of {high} {what.replace(' that', '')}" if found.score is None else safe(name)
            look = {"width": 0, "fill": "tozeroy", "fillcolor": colour, "showlegend": False}
            look |= {"hover": f"%{{x:+d}} bp: %{{y}} {of}", "name": safe(what)}
            look |= {"xaxis": axis, "yaxis": f"y{number}", "shape": "hvh"}
            figure.add_trace(th.line(x, next(areas), colour, **look))
        axes.append(f"yaxis{number}")
        look = {"tickvals": [(low + high) / 2], "ticktext": [short(name, 12)], "ticks": ""}
        look |= {"range": [low, high], "fixedrange": True, "showgrid": False}
        figure.update_layout({axes[-1]: look})
    return axes


def conservation_areas(found: Conservation) -> list[np.ndarray]:
    """Heights of the areas of `add_conservation`, group by group; of a score in its usual range."""
    if found.score is not None:
        return [np.clip(found.information, *found.score[1:]).astype(np.float32)]
    kept = [list(found.sizes).index(group) for group, _ in _shown(found)]
    both = found.aligned, found.same
    return [counts[:, group].astype(np.int16) for group in kept for counts in both]


def _shown(found: Conservation) -> list[tuple[str, int]]:
    return [(group, size) for group, size in found.sizes.items() if size]

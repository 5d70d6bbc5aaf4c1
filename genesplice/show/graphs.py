"""The figure of relations: regulators, genes and pathways as a signed, weighted graph."""

import html
from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError
from genesplice.show.theme import (
    INK,
    NARROW_PX,
    blank_figure,
    broken_lines,
    check_columns,
    check_finite,
    check_lengths,
    safe,
    text_lines,
)

# Symbol, colour and word for each kind of node: none of them relies on another.
_NODE_KINDS = {
    "regulator": ("diamond", "#E69F00"),
    "gene": ("circle", "#56B4E9"),
    "pathway": ("square", "#009E73"),
}
# Name, colour, dash, head at the target. Biology's own signs: an arrow, and a bar for repression.
_EDGE_STYLES: dict[object, tuple[str, str, str, str | None]] = {
    1: ("activates", "#0072B2", "solid", "arrow"),
    -1: ("represses", "#D55E00", "dash", "line-ew"),
    0: ("regulates, sign unknown", "#666666", "dashdot", "arrow-wide"),
    "member_of": ("member of", "#A6A6A6", "dot", None),
}
_N_WIDTHS, _WIDTHS_PX = 4, (1.0, 5.0)
_BODY_PX, _PLOT_PX = 500, 400
_EDGE = 1.4  # axes end here: room for the labels of the outermost nodes
_CHARACTER_PX, _LINE_PX, _MARGIN_PX = 6.4, 14.0, 12.0
_SIDES = ("bottom center", "top center", "middle right", "middle left")


def graph_layout(
    nodes: pd.DataFrame, edges: pd.DataFrame, *, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Place nodes by a seeded spring layout, spread out; the order of rows has no influence.

    Springs crowd the middle and leave the corners empty, so each coordinate is the mean of the
    spring's and of its rank among all nodes: neighbours stay neighbours, and find room.

    Parameters
    ----------
    nodes, edges
        As in `pathway_graph`.
    seed
        Of the starting positions.

    Returns
    -------
    x and y by node id, from -1 to 1.
    """
    graph = nx.Graph()
    graph.add_nodes_from(sorted(nodes["id"].astype(str)))
    pairs = zip(edges["source"].astype(str), edges["target"].astype(str), strict=True)
    graph.add_edges_from(sorted({tuple(sorted(pair)) for pair in pairs if pair[0] != pair[1]}))
    k = 2.2 / np.sqrt(len(graph))
    springs = nx.spring_layout(graph, seed=seed, k=k, iterations=200)
    if len(graph) == 1:
        return dict.fromkeys(map(str, graph), (0.0, 0.0))
    places = np.array([springs[node] for node in graph], dtype=np.float64)
    low, high = places.min(axis=0), places.max(axis=0)
    scaled = (places - low) / np.where(high > low, high - low, 1.0) * 2 - 1
    ranks = places.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    spread = (scaled + ranks / (len(graph) - 1) * 2 - 1) / 2
    return {str(node): (float(x), float(y)) for node, (x, y) in zip(graph, spread, strict=True)}


def _label_sides(
    places: np.ndarray, sizes: np.ndarray, labels: Sequence[Sequence[str]], rank: np.ndarray
) -> list[str | None]:
    """Side of its node on which each label is free of the others on a narrow screen, or None.

    Labels choose in the order of `rank`, highest first; markers are in the way of all labels.
    """
    at = np.column_stack([places[:, 0] * NARROW_PX, -places[:, 1] * _PLOT_PX]) / (2 * _EDGE)
    taken = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(at, sizes / 2 - 2, strict=True)]
    sides: list[str | None] = [None] * len(places)
    for i in sorted(range(len(places)), key=lambda i: (-rank[i], i)):
        wide = max((len(html.unescape(line)) for line in labels[i]), default=0) * _CHARACTER_PX
        high = len(labels[i]) * _LINE_PX
        x, y, r = at[i][0], at[i][1], sizes[i] / 2 + 2
        corners = {
            "bottom center": (x - wide / 2, y + r),
            "top center": (x - wide / 2, y - r - high),
            "middle right": (x + r, y - high / 2),
            "middle left": (x - r - wide, y - high / 2),
        }
        for side in _SIDES:
            left, top = corners[side]
            box = (left, top, left + wide, top + high)
            is_free = all(
                box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]
                for j, other in enumerate(taken)
                if j != i
            )
            if is_free and max(-left, box[2]) <= NARROW_PX / 2 + _MARGIN_PX:
                sides[i] = side
                taken.append(box)
                break
    return sides


def _check_graph(nodes: pd.DataFrame, edges: pd.DataFrame) -> None:
    """Refuse repeated nodes, unknown kinds or signs, and edges that lead nowhere."""
    check_columns(nodes, ("id", "label", "kind", "value"), "nodes")
    if missing := {"source", "target", "sign", "weight", "kind"} - set(edges.columns):
        raise InputError(f"edges without columns {', '.join(sorted(missing))}", "all of them")
    n_unique = nodes["id"].astype(str).nunique()
    check_lengths(n_unique, "different node ids", len(nodes), "the rows of nodes")
    check_finite(nodes["value"].fillna(0.0).to_numpy(), "node value")
    if unknown := set(nodes["kind"]) - set(_NODE_KINDS):
        raise InputError(f"node kind {sorted(map(str, unknown))[0]!r}", ", ".join(_NODE_KINDS))
    ids = set(nodes["id"])
    lost = ~(edges["source"].isin(ids) & edges["target"].isin(ids))
    if lost.any():
        raise InputError(
            f"{int(lost.sum()):,} of {len(edges):,} edges with an end not in nodes", "0"
        )
    if unknown_kind := set(edges["kind"]) - {"regulates", "member_of"}:
        found = sorted(map(str, unknown_kind))[0]
        raise InputError(f"edge kind {found!r}", "regulates or member_of")
    if not edges["sign"].isin([-1, 0, 1]).all():
        raise InputError(f"edge signs {sorted(set(edges['sign']))}", "-1, 0 or 1")
    if len(edges):
        check_finite(edges["weight"].to_numpy(), "edge weight")


def _add_edges(
    figure: go.Figure,
    edges: pd.DataFrame,
    at: dict[str, tuple[float, float]],
    radius_px: dict[str, float],
) -> None:
    """Draw edges: one trace for each style and width class, thickest weights last."""
    strength = edges["weight"].abs().to_numpy(np.float64)
    top = strength.max() if strength.max() > 0 else 1.0
    classes = np.minimum((strength / top * _N_WIDTHS).astype(int), _N_WIDTHS - 1)
    styles = [
        s if k == "regulates" else k for s, k in zip(edges["sign"], edges["kind"], strict=True)
    ]
    widths = np.linspace(*_WIDTHS_PX, _N_WIDTHS)
    for style, (name, colour, dash, head) in _EDGE_STYLES.items():
        is_style = np.array([s == style for s in styles], dtype=bool)
        is_first = True
        for width_class in np.unique(classes[is_style]):
            part = edges[is_style & (classes == width_class)]
            sources = np.array([at[str(s)] for s in part["source"]])
            targets = np.array([at[str(t)] for t in part["target"]])
            width = float(widths[width_class])
            reach = np.array([radius_px[str(t)] for t in part["target"]])
            none = np.zeros(len(part))
            marker: dict[str, Any] = {"size": 0.0}
            if head is not None:
                marker = {
                    "symbol": head,
                    "angleref": "previous",
                    "standoff": np.column_stack([none, reach + 1, none]).ravel(),
                    "size": np.tile([0.0, 9.0 + width, 0.0], len(part)),
                    "opacity": 1,
                    "color": colour,
                    "line": {"color": colour, "width": 2.5 if head == "line-ew" else 0},
                }
            figure.add_scatter(
                name=name,
                legendgroup=name,
                showlegend=is_first,
                x=broken_lines(sources[:, 0], targets[:, 0]),
                y=broken_lines(sources[:, 1], targets[:, 1]),
                mode="lines" if head is None else "lines+markers",
                line={"color": colour, "dash": dash, "width": width},
                marker=marker,
                hoverinfo="skip",
            )
            is_first = False


def pathway_graph(
    nodes: pd.DataFrame,
    edges: pd.DataFrame,
    *,
    seed: int = 0,
    value_name: str = "value",
    title: str = "Regulators, genes and pathways",
) -> go.Figure:
    """Draw a signed, weighted graph of regulators, genes and pathways.

    Kinds of nodes differ in symbol and colour, signs in colour, dash and head (arrow: activates,
    bar: represses), attention is the width of an edge in four classes, `value` the size of a
    node. A label that finds no room on a narrow screen is left to the hover text; regulators and
    pathways choose before genes, large nodes before small ones. The order of rows does not
    matter.

    Parameters
    ----------
    nodes
        Columns id (unique), label, kind (regulator, gene, pathway), value (NaN: not known).
    edges
        Columns source, target (ids), sign (+1, -1, 0 = unknown), weight (attention), kind
        (regulates, member_of; the sign of the latter is not used). No rows is fine.
    seed
        Of the layout.
    value_name
        What `value` is, with its unit, for the hover text.

    Raises
    ------
    InputError
        Missing columns, no nodes, repeated ids, edges to nodes that are not there, other kinds
        or signs.
    """
    _check_graph(nodes, edges)
    nodes = nodes.sort_values("id", kind="stable")
    edges = edges.sort_values(["source", "target", "kind", "sign", "weight"], kind="stable")
    at = graph_layout(nodes, edges, seed=seed)
    size = nodes["value"].abs().fillna(0.0).to_numpy(np.float64)
    size = 13.0 + 13.0 * size / (size.max() if size.max() > 0 else 1.0)
    ids = nodes["id"].astype(str).tolist()
    labels = [text_lines(label, 16, 2) for label in nodes["label"]]
    rank = size + 100.0 * (nodes["kind"] != "gene").to_numpy()
    sides = _label_sides(np.array([at[node] for node in ids]), size, labels, rank)
    radius_px = dict(zip(ids, (size / 2).tolist(), strict=True))

    figure = blank_figure(
        _BODY_PX,
        title,
        f"{len(nodes):,} nodes, {len(edges):,} edges; width of an edge: attention",
    )
    if len(edges):
        _add_edges(figure, edges, at, radius_px)
    for kind, (symbol, colour) in _NODE_KINDS.items():
        is_kind = (nodes["kind"] == kind).to_numpy()
        part = nodes[is_kind]
        if part.empty:
            continue
        figure.add_scatter(
            name=kind,
            x=np.array([at[str(n)][0] for n in part["id"]]),
            y=np.array([at[str(n)][1] for n in part["id"]]),
            mode="markers+text",
            marker={
                "symbol": symbol,
                "color": colour,
                "size": size[is_kind],
                "opacity": 1,
                "line": {"color": INK, "width": 1},
            },
            text=[
                "<br>".join(lines) if side is not None else ""
                for lines, side, keep in zip(labels, sides, is_kind, strict=True)
                if keep
            ],
            textposition=[
                side or "middle center" for side, keep in zip(sides, is_kind, strict=True) if keep
            ],
            textfont={"size": 11, "color": INK},
            cliponaxis=False,
            hovertext=[
                f"<b>{safe(label)}</b><br>{safe(node)}<br>{kind}, {safe(value_name)} "
                + (f"{value:.3g}" if np.isfinite(value) else "not known")
                for node, label, value in zip(part["id"], part["label"], part["value"], strict=True)
            ],
            hoverinfo="text",
        )
    figure.update_xaxes(visible=False, range=[-_EDGE, _EDGE])
    figure.update_yaxes(visible=False, range=[-_EDGE, _EDGE])
    return figure

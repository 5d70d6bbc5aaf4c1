"""The explorer of a network: pick a node, see what it regulates and what regulates it."""

from collections import defaultdict

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError
from genesplice.show.explorer import Explorer, gene_labels, heading, shorten
from genesplice.show.graphs import graph_layout
from genesplice.show.patches import Binding, Click, Control
from genesplice.show.theme import GREY, INK, OKABE_ITO, THEME, broken_lines, check_columns, safe

_SIGNS = {1: ("activates", OKABE_ITO[0], "solid"), -1: ("represses", OKABE_ITO[3], "dash")}
_SIGNS[0] = ("sign unknown", OKABE_ITO[2], "dot")
N_LABELS = 24


class NetworkExplorer(Explorer):
    """Pick a node, by search or by a click: its neighbours, and the sign of every edge.

    Edges point from source to target with an arrow head; sign is told by colour and by dash.

    Parameters
    ----------
    nodes
        Indexed by id; optional columns `name`, and `x` and `y` (else a seeded spring layout).
    edges
        `source`, `target` (ids of nodes) and, optionally, `sign` (+1, -1, 0 = unknown) and `weight`
        (attention or attribution): the dot on an edge grows with it, and its hover text has it.
        A click on the dot goes to the other end.
    start
        Node shown first; left out, the one with most neighbours.
    weight_label
        What the weights are, for the hover text.
    seed
        Of the layout.

    Raises
    ------
    InputError
        No nodes, repeated ids, an edge that leads to no node, or an unknown sign.
    """

    def __init__(
        self,
        nodes: pd.DataFrame,
        edges: pd.DataFrame,
        *,
        start: str | None = None,
        weight_label: str = "weight",
        seed: int = 0,
    ) -> None:
        ids, signed = _check_network(nodes, edges)
        places = _places(nodes, ids, edges, seed)
        labels = gene_labels(nodes.index, nodes.get("name"))
        neighbours = _neighbours(ids, signed)
        most = max(range(len(ids)), key=lambda node: (len(neighbours[node]), -node))
        if start is not None and start not in nodes.index:
            raise InputError(f"start {start!r}", "one of the nodes")
        node = Control(
            name="node",
            kind="select",
            label="Node",
            options=labels,
            start=most if start is None else ids[str(start)],
        )
        most_edges = max(len(edges) for edges in neighbours.values())
        figure = _network_figure(places, signed, labels, max(1, most_edges))
        by_node = ("node",)
        bindings = [
            Binding(path=axis, rows=places[:, [i]], controls=by_node, traces=(6,))
            for i, axis in enumerate("xy")
        ]
        for offset, sign in enumerate(_SIGNS):
            drawn = [_strokes(places, neighbours[at], sign) for at in range(len(ids))]
            for i, axis in enumerate("xy"):
                rows = [stroke[i] for stroke in drawn]
                bindings.append(
                    Binding(path=axis, rows=rows, controls=by_node, traces=(2 + offset,))
                )
        around = [_around(at, neighbours[at]) for at in range(len(ids))]
        for i, axis in enumerate("xy"):
            rows = [places[near, i] for near in around]
            bindings.append(Binding(path=axis, rows=rows, controls=by_node, traces=(5,)))
        short = [safe(shorten(label.split(" (")[0], 16)) for label in labels]
        bindings += [
            Binding(
                path="text",
                rows=[
                    [short[one] if rank < N_LABELS else "" for rank, one in enumerate(near)]
                    for near in around
                ],
                controls=by_node,
                traces=(5,),
            ),
            Binding(path="text", rows=[[one] for one in short], controls=by_node, traces=(6,)),
            Binding(
                path="annotations[0].text",
                rows=[_describe(labels[at], at, neighbours[at]) for at in range(len(ids))],
                controls=by_node,
            ),
        ]
        known = [abs(edge[3]) for edge in signed if not np.isnan(edge[3])]
        largest = max(known, default=0.0) or 1.0
        dots = [_dots(places, at, neighbours[at], largest) for at in range(len(ids))]
        bindings += [
            Binding(path=path, rows=[dot[i] for dot in dots], controls=by_node, traces=(7,))
            for i, path in enumerate(("x", "y", "marker.size"))
        ]
        bindings += [
            Binding(
                path="customdata",
                rows=[[labels[_other(at, edge)] for edge in _drawn(neighbours[at])]
                      for at in range(len(ids))],
                controls=by_node,
                traces=(7,),
            ),
            Binding(
                path="hovertext",
                rows=[[_say_edge(edge, short, weight_label) for edge in _drawn(neighbours[at])]
                      for at in range(len(ids))],
                controls=by_node,
                traces=(7,),
            ),
        ]  # fmt: skip
        clicks = [Click(trace=trace, control="node") for trace in (1, 5, 7)]
        bindings.append(
            Binding(
                path="customdata",
                rows=[[labels[one] for one in near] for near in around],
                controls=by_node,
                traces=(5,),
            )
        )
        super().__init__(figure, [node], bindings, clicks, {"height": 560})


Edge = tuple[int, int, int, float]


def _check_network(nodes: pd.DataFrame, edges: pd.DataFrame) -> tuple[dict[str, int], list[Edge]]:
    """Give node ids with their positions, and edges as (source, target, sign, weight)."""
    if nodes.empty or not nodes.index.is_unique:
        raise InputError(
            f"{len(nodes):,} nodes, {nodes.index.nunique():,} different ids", "at least 1, unique"
        )
    ids = {str(node): at for at, node in enumerate(nodes.index)}
    if edges.empty:
        return ids, []
    check_columns(edges, ["source", "target"], "edges")
    signs = edges["sign"] if "sign" in edges else pd.Series(0, index=edges.index)
    unknown = set(signs) - set(_SIGNS)
    if unknown:
        raise InputError(f"sign {sorted(map(str, unknown))[0]} of an edge", "+1, -1 or 0")
    signed = []
    weights = edges["weight"] if "weight" in edges else pd.Series(np.nan, index=edges.index)
    columns = edges["source"], edges["target"], signs, weights
    for source, target, sign, weight in zip(*columns, strict=True):
        for end in (source, target):
            if str(end) not in ids:
                raise InputError(f"an edge to {end!r}", "only ends that are nodes")
        signed.append((ids[str(source)], ids[str(target)], int(sign), float(weight)))
    return ids, signed


def _places(nodes: pd.DataFrame, ids: dict[str, int], edges: pd.DataFrame, seed: int) -> np.ndarray:
    if {"x", "y"} <= set(nodes.columns):
        return nodes[["x", "y"]].to_numpy(np.float64)
    table = pd.DataFrame({"id": list(ids)})
    ends = edges if len(edges) else pd.DataFrame({"source": [], "target": []})
    laid = graph_layout(table, ends, seed=seed)
    return np.array([laid[node] for node in ids], dtype=np.float64)


def _neighbours(ids: dict[str, int], edges: list[Edge]) -> dict[int, list[Edge]]:
    found: dict[int, list[Edge]] = defaultdict(list)
    for at in ids.values():
        found[at] = []
    for edge in edges:
        found[edge[0]].append(edge)
        if edge[1] != edge[0]:
            found[edge[1]].append(edge)
    return found


def _around(at: int, edges: list[Edge]) -> list[int]:
    """Neighbours of a node, each once, without itself."""
    ends = [end for source, target, *_ in edges for end in (source, target) if end != at]
    return list(dict.fromkeys(ends))


def _strokes(places: np.ndarray, edges: list[Edge], sign: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges of one sign as separate strokes that stop short of their target's marker."""
    pairs = np.array([(s, t) for s, t, one, _ in edges if one == sign and s != t], dtype=int)
    if len(pairs) == 0:
        return np.empty(0), np.empty(0)
    sources, targets = places[pairs[:, 0]], places[pairs[:, 1]]
    x = broken_lines(sources[:, 0], targets[:, 0])
    return x, broken_lines(sources[:, 1], targets[:, 1])


def _drawn(edges: list[Edge]) -> list[Edge]:
    return [edge for edge in edges if edge[0] != edge[1]]


def _other(at: int, edge: Edge) -> int:
    return edge[1] if edge[0] == at else edge[0]


def _dots(
    places: np.ndarray, at: int, edges: list[Edge], largest: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the dots of a node's edges lie, nearer to the other end, and how large they are."""
    drawn = _drawn(edges)
    ends = np.array([_other(at, edge) for edge in drawn], dtype=int)
    x, y = (0.4 * places[at, i] + 0.6 * places[ends, i] for i in (0, 1))
    weight = np.nan_to_num(np.array([abs(edge[3]) for edge in drawn], dtype=np.float64))
    return x, y, 7 + 13 * np.sqrt(weight / largest)


def _say_edge(edge: Edge, short: list[str], weight_label: str) -> str:
    source, target, sign, weight = edge
    said = "" if np.isnan(weight) else f"<br>{safe(weight_label)}: {weight:.3g}"
    return f"{short[source]} → {short[target]}, {_SIGNS[sign][0]}{said}"


def _describe(label: str, at: int, edges: list[Edge]) -> str:
    n_out = sum(source == at for source, *_ in edges)
    n_in = sum(target == at for _, target, *_ in edges)
    itself = ", itself included" if any(s == t for s, t, *_ in edges) else ""
    return heading(label, f"regulates {n_out:,}, regulated by {n_in:,}{itself}")


def _network_figure(
    places: np.ndarray, edges: list[Edge], labels: tuple[str, ...], n_strokes: int
) -> go.Figure:
    """Draw the whole network faintly, and empty traces for what is picked."""
    figure = go.Figure(layout={"template": THEME, "height": 620})
    pairs = np.array([(s, t) for s, t, *_ in edges if s != t], dtype=int).reshape(-1, 2)
    figure.add_scatter(
        x=broken_lines(places[pairs[:, 0], 0], places[pairs[:, 1], 0]),
        y=broken_lines(places[pairs[:, 0], 1], places[pairs[:, 1], 1]),
        mode="lines",
        line={"color": "#DEDEDE", "width": 0.8},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_scatter(
        x=places[:, 0],
        y=places[:, 1],
        mode="markers",
        marker={"size": 8, "color": GREY, "line": {"color": "white", "width": 0.8}},
        customdata=list(labels),
        hovertext=[safe(label) for label in labels],
        hoverinfo="text",
        showlegend=False,
    )
    for name, colour, dash in _SIGNS.values():
        figure.add_scatter(
            mode="lines+markers",
            name=name,
            line={"color": colour, "width": 1.8, "dash": dash},
            marker={
                "symbol": "arrow",
                "angleref": "previous",
                "size": [0, 11, 0] * n_strokes,
                "color": colour,
                "standoff": 6,
                "opacity": 1,
                "line": {"width": 0},
            },
            hoverinfo="skip",
        )
    figure.add_scatter(
        mode="markers+text",
        marker={"size": 10, "color": OKABE_ITO[5], "line": {"color": INK, "width": 1}},
        textposition="top center",
        textfont={"size": 11, "color": INK},
        hoverinfo="text",
        showlegend=False,
    )
    figure.add_scatter(
        mode="markers+text",
        marker={
            "size": 17,
            "symbol": "diamond",
            "color": OKABE_ITO[1],
            "line": {"color": INK, "width": 1.5},
        },
        textposition="top center",
        textfont={"size": 14, "color": INK},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_scatter(
        mode="markers",
        marker={"color": "white", "line": {"color": INK, "width": 1.5}},
        hoverinfo="text",
        showlegend=False,
    )
    hidden = {"visible": False}
    figure.update_layout(
        xaxis=hidden,
        yaxis=hidden,
        margin={"t": 52, "b": 44},
        annotations=[
            {
                "xref": "paper",
                "yref": "paper",
                "x": 0,
                "y": 1.01,
                "xanchor": "left",
                "yanchor": "bottom",
                "align": "left",
                "showarrow": False,
                "font": {"size": 13, "color": INK},
            }
        ],
    )
    return figure

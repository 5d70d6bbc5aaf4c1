"""Networks of genes: a figure with regulators, genes and pathways, and an explorer node by node."""

import html
from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.show import theme as th
from genesplice.show.explorer import Click, Control, Explorer, bind, panel_title
from genesplice.show.theme import GREY, INK, require_table, row_texts, safe, short

# Symbol and colour for each kind of node: neither relies on the other.
_NODE_KINDS = {
    "regulator": ("diamond", th.ORANGE),
    "gene": ("circle", th.SKY),
    "pathway": ("square", th.GREEN),
}
# Name, colour, dash, head at the target. Biology's own signs: an arrow, and a bar for repression.
_EDGE_STYLES: dict[Any, tuple[str, str, str, str]] = {
    1: ("activates", th.BLUE, "solid", "arrow"),
    -1: ("represses", th.VERMILLION, "dash", "line-ew"),
    0: ("regulates, sign unknown", "#666666", "dashdot", "arrow-wide"),
    "member_of": ("member of", GREY, "dot", ""),
}
_SIGNS = (1, -1, 0)
_WIDTHS_PX = np.linspace(1.0, 5.0, 4)
_BODY_PX, _PLOT_PX = 500, 400
_MAP_PX = (520.0, 520.0)  # of an explorer: a narrow screen has less, names are on hover there
_EDGE = 1.4  # axes end here: room for the labels of the outermost nodes
_CHARACTER_PX, _LINE_PX, _MARGIN_PX = 6.4, 14.0, 12.0
_HALO = "0 0 2px white, 0 0 3px white, 0 0 4px white"
N_LABELS = 24
_NO_NETWORK = "network around these genes"


def graph_layout(nodes: Sequence[str], edges: pd.DataFrame) -> np.ndarray:
    """Lay nodes out by seeded springs, spread out; the order of nodes and edges has no influence.

    Springs crowd the middle and leave the corners empty, so each coordinate is the mean of the
    spring's and of its rank among all nodes: neighbours stay neighbours, and find room.

    Parameters
    ----------
    edges
        Columns source and target.

    Returns
    -------
    x and y of each node, from -1 to 1.
    """
    graph = nx.Graph()
    graph.add_nodes_from(ordered := sorted(nodes))
    pairs = zip(edges["source"].astype(str), edges["target"].astype(str), strict=True)
    graph.add_edges_from(sorted({(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]}))
    if len(graph) == 1:
        return np.zeros((1, 2))
    springs = nx.spring_layout(graph, seed=0, k=2.2 / np.sqrt(len(graph)), iterations=200)
    xy = np.array([springs[node] for node in ordered], dtype=np.float64)
    low, high = xy.min(axis=0), xy.max(axis=0)
    scaled = (xy - low) / np.where(high > low, high - low, 1.0) * 2 - 1
    ranks = xy.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    spread = (scaled + ranks / (len(graph) - 1) * 2 - 1) / 2
    return spread[pd.Index(ordered).get_indexer(nodes)]


def _strokes(xy: np.ndarray, sources: np.ndarray, targets: np.ndarray) -> tuple[Any, Any]:
    x, y = (th.broken_lines(xy[sources, i], xy[targets, i]) for i in (0, 1))
    return x, y


def _require_ends(edges: pd.DataFrame, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of sources and targets among the ids of nodes."""
    index = pd.Index(ids)
    ends = [index.get_indexer(edges[end].astype(str)) for end in ("source", "target")]
    is_lost = np.minimum(*ends) < 0
    such = "".join(f"{one.source} → {one.target}" for one in edges[is_lost].head(1).itertuples())
    th.refuse(is_lost, f"edges such as {such}", "only ends that are nodes")
    return ends[0], ends[1]


def pathway_graph(
    nodes: pd.DataFrame,
    edges: pd.DataFrame,
    *,
    value_name: str = "value",
    title: str = "",
) -> go.Figure:
    """Draw a signed, weighted graph of regulators, genes and pathways; no nodes: a sentence.

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
    value_name
        What `value` is, with its unit, for the hover text.
    title
        Empty: the kinds of nodes that are there.

    Raises
    ------
    InputError
        Missing columns, repeated ids, edges to nodes that are not there, other kinds
        or signs.
    """
    columns = ["id", "label", "kind", "value"]
    if nodes.empty and edges.empty:
        return th.left_out(_NO_NETWORK, title)
    filled, kinds = nodes.fillna({"value": 0.0}), {"kind": _NODE_KINDS}
    require_table(filled, "nodes", columns, unique=["id"], finite=["value"], among=kinds)
    nodes = nodes.assign(id=nodes["id"].astype(str)).sort_values("id", kind="stable")
    columns = ["source", "target", "kind", "sign", "weight"]
    if len(edges):
        known = {"kind": ("regulates", "member_of"), "sign": _SIGNS}
        edges = require_table(edges, "edges", columns, finite=["weight"], among=known)
        edges = edges.sort_values(columns, kind="stable")
    else:
        edges = pd.DataFrame(columns=columns)
    ids = nodes["id"].tolist()
    ends = _require_ends(edges, ids)
    xy = graph_layout(ids, edges)
    value = nodes["value"].abs().fillna(0.0).to_numpy(np.float64)
    sizes = 13.0 + 13.0 * value / (value.max() or 1.0)
    labels = [th.text_lines(label, 16, 2) for label in nodes["label"]]
    sides = _label_sides(xy, sizes, labels, sizes + 100.0 * (nodes["kind"] != "gene").to_numpy())
    values = [f"{value:.3g}" if np.isfinite(value) else "not known" for value in nodes["value"]]
    texts = nodes.assign(value=values, value_name=value_name, label=nodes["label"].astype(str))
    hover = row_texts(texts, "<b>{label}</b><br>{id}<br>{kind}, {value_name} {value}")
    shown = ["<br>".join(one) if side else "" for one, side in zip(labels, sides, strict=True)]
    counts = f"{len(nodes):,} nodes, {len(edges):,} edges; width of an edge: attention"
    there = [f"{kind}s" for kind in _NODE_KINDS if (nodes["kind"] == kind).any()]
    listed = " and ".join([", ".join(there[:-1]), there[-1]] if there[1:] else there)
    figure = th.blank_figure(_BODY_PX, title or listed.capitalize(), counts)
    _add_edges(figure, edges, xy, ends, sizes / 2)
    for kind, (symbol, colour) in _NODE_KINDS.items():
        mine = np.flatnonzero(nodes["kind"] == kind)
        if not len(mine):
            continue
        marker = {"symbol": symbol, "color": colour, "size": sizes[mine], "opacity": 1}
        figure.add_scatter(
            name=kind, x=xy[mine, 0], y=xy[mine, 1], mode="markers+text", hoverinfo="text",
            marker=marker | {"line": {"color": INK, "width": 1}}, cliponaxis=False,
            text=[shown[i] for i in mine], hovertext=[hover[i] for i in mine],
            textposition=[sides[i] or "middle center" for i in mine],
            textfont={"size": 11, "color": INK, "shadow": _HALO},
        )  # fmt: skip
    axis = {"visible": False, "range": [-_EDGE, _EDGE]}
    return figure.update_xaxes(axis).update_yaxes(axis)


def _label_sides(
    xy: np.ndarray,
    sizes: np.ndarray,
    labels: Sequence[Sequence[str]],
    rank: np.ndarray,
    edge: float = _EDGE,
    wide_px: float = th.NARROW_PX,
    high_px: float | int = _PLOT_PX,
) -> list[str]:
    """Side of its node on which each label is free of the others, or "".

    Labels choose in the order of `rank`, highest first; markers are in the way of all labels. The
    axes go from -`edge` to `edge`, by default as wide as on a narrow screen.
    """
    at = np.column_stack([xy[:, 0] * wide_px, -xy[:, 1] * high_px]) / (2 * edge)
    radius = sizes[:, None] / 2
    taken = np.hstack([at - radius + 2, at + radius - 2])  # left, top, right, bottom
    sides = [""] * len(xy)
    for i in np.argsort(-rank, kind="stable"):
        wide = max((len(html.unescape(line)) for line in labels[i]), default=0) * _CHARACTER_PX
        high, (x, y), r = len(labels[i]) * _LINE_PX, at[i], sizes[i] / 2 + 2
        corners = {
            "bottom center": (x - wide / 2, y + r),
            "top center": (x - wide / 2, y - r - high),
            "middle right": (x + r, y - high / 2),
            "middle left": (x - r - wide, y - high / 2),
        }
        others = np.delete(taken, i, axis=0)
        for side, (left, top) in corners.items():
            box = np.array([left, top, left + wide, top + high])
            hits = (others[:, :2] < box[2:]).all(axis=1) & (others[:, 2:] > box[:2]).all(axis=1)
            if not hits.any() and max(-left, box[2]) <= wide_px / 2 + _MARGIN_PX:
                sides[i], taken = side, np.vstack([taken, box])
                break
    return sides


def _add_edges(
    figure: go.Figure, edges: pd.DataFrame, xy: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray], radius_px: np.ndarray,
) -> None:  # fmt: skip
    """Draw edges: one trace for each style and width class, thickest weights last."""
    strength = edges["weight"].abs().to_numpy(np.float64)
    n = len(_WIDTHS_PX)
    classes = np.minimum(strength / (strength.max(initial=0.0) or 1.0) * n, n - 1).astype(int)
    style_of = np.where(edges["kind"] == "member_of", "member_of", edges["sign"]).astype(str)
    for style, (name, colour, dash, head) in _EDGE_STYLES.items():
        is_style = style_of == str(style)
        for number, width_class in enumerate(np.unique(classes[is_style])):
            mine = np.flatnonzero(is_style & (classes == width_class))
            width = float(_WIDTHS_PX[width_class])
            marker: dict[str, Any] = {"size": 0.0}
            if head:
                standoff = np.zeros((len(mine), 3))
                standoff[:, 1] = radius_px[ends[1][mine]] + 1
                marker = {
                    "symbol": head, "angleref": "previous", "standoff": standoff.ravel(),
                    "size": np.tile([0.0, 9.0 + width, 0.0], len(mine)), "opacity": 1,
                    "color": colour, "line": {"color": colour, "width": 2.5 * (head == "line-ew")},
                }  # fmt: skip
            figure.add_trace(th.line(
                *_strokes(xy, ends[0][mine], ends[1][mine]), colour, name=name, width=width,
                dash=dash, showlegend=number == 0, mode="lines+markers" if head else "lines",
                legendgroup=name, marker=marker,
            ))  # fmt: skip


class NetworkExplorer(Explorer):
    """Pick a node, by search or by a click: its neighbours, and the sign of every edge.

    Edges point from source to target with an arrow head; the sign is a colour and a dash. Without
    nodes it is a sentence.

    Parameters
    ----------
    nodes
        Indexed by id; optionally a column `name`.
    edges
        `source`, `target` (ids of nodes) and, optionally, `kind` (`member_of` and `contains` are of
        gene sets, all others regulate), `sign` (+1, -1, 0 = unknown) and `weight`
        (attention or attribution): the dot on an edge grows with it, and its hover text has it.
        A click on the dot goes to the other end.
    weight_label
        What the weights are, for the hover text.

    Raises
    ------
    InputError
        Repeated ids, an edge that leads to no node, or an unknown sign.
    """

    def __init__(
        self, nodes: pd.DataFrame, edges: pd.DataFrame, *, weight_label: str = "weight"
    ) -> None:
        ids = list(nodes.index.astype(str))
        if not ids and edges.empty:
            super().__init__(th.left_out(_NO_NETWORK))
            return
        require_table(pd.DataFrame({"id": ids}), "nodes", ["id"], unique=["id"])
        edges = edges if len(edges) else pd.DataFrame(columns=["source", "target"])
        edges = edges.assign(sign=edges.get("sign", 0), weight=edges.get("weight", np.nan))
        if len(edges):
            require_table(edges, "edges", ["source", "target"], among={"sign": _SIGNS})
        ends = _require_ends(edges, ids)
        of_set = np.isin(edges.get("kind", pd.Series("", edges.index)), ("member_of", "contains"))
        xy = graph_layout(ids, edges)
        labels = th.gene_labels(nodes.index, nodes.get("name"))
        names = [short(label.split(" (")[0], 16) for label in labels]
        sign, weight = (edges[name].to_numpy(np.float64) for name in ("sign", "weight"))
        largest = np.nanmax(np.abs(weight), initial=0.0) or 1.0
        touching = [np.flatnonzero((ends[0] == at) | (ends[1] == at)) for at in range(len(ids))]
        most = int(np.argmax([len(one) for one in touching]))
        node = Control(name="node", kind="select", label="Node", options=labels, start=most)

        def label_sides(at: int, near: list[int]) -> list[str]:
            """Where each neighbour's name has room, of the first `N_LABELS`."""
            spots, some = np.array([at, *near]), slice(1, 1 + N_LABELS)
            low, high = xy.min(axis=0), xy.max(axis=0)
            place = (xy[spots] - (low + high) / 2) / np.maximum(high - low, 1e-9) * 2
            sizes = np.array([17.0, *[10.0] * len(near)])
            words = [[names[at]], *([names[one]] for one in near)]
            found = _label_sides(place, sizes, words, -np.arange(len(spots)), 1.06, *_MAP_PX)
            return found[some] + [""] * max(0, len(near) - N_LABELS)

        def tell(edge: int) -> str:
            value = f"<br>{safe(weight_label)}: {weight[edge]:.3g}"
            ways = f"{names[ends[0][edge]]} → {names[ends[1][edge]]}, "
            style = _EDGE_STYLES["member_of" if of_set[edge] else sign[edge]][0]
            return ways + style + ("" if np.isnan(weight[edge]) else value)

        def pick(at: int) -> dict[str, Any]:
            mine = touching[at]
            drawn = mine[ends[0][mine] != ends[1][mine]]
            other = np.where(ends[0][drawn] == at, ends[1][drawn], ends[0][drawn])
            near = list(dict.fromkeys(other.tolist()))
            sides = list(zip(near, label_sides(at, near), strict=True))
            by_sign = [drawn[sign[drawn] == one] for one in _SIGNS]
            strokes = [_strokes(xy, ends[0][part], ends[1][part]) for part in by_sign]
            dots = 0.4 * xy[at] + 0.6 * xy[other]
            places = [*strokes, *(place.T for place in (xy[near], xy[[at]], dots))]
            itself = ", itself included" if len(drawn) < len(mine) else ""
            n_sets, regulating = int(of_set[mine].sum()), mine[~of_set[mine]]
            n_out, n_in = (int((end[regulating] == at).sum()) for end in ends)
            text = f"regulates {n_out:,}, regulated by {n_in:,}{itself}"
            text += f"; {n_sets:,} gene sets" if n_sets else ""
            sizes = 7 + 13 * np.sqrt(np.nan_to_num(abs(weight[drawn])) / largest)
            shown = dict[str, Any]()
            for i, (x, y) in enumerate(places, 2):
                shown |= th.of_trace(i, x=x, y=y)
            return shown | {
                "data[5].text": [names[one] if side else "" for one, side in sides],
                "data[5].textposition": [side or "top center" for _, side in sides],
                "data[5].customdata": [labels[one] for one in near],
                "data[6].text": [names[at]],
                "data[7].marker.size": sizes,
                "data[7].customdata": [labels[one] for one in other],
                "data[7].hovertext": [tell(edge) for edge in drawn.tolist()],
                "annotations[0].text": panel_title(labels[at], text),
            }

        figure = _network_figure(xy, ends, labels, max(map(len, touching)))
        if of_set.any():
            unknown = f"{_EDGE_STYLES[0][0]}, or {_EDGE_STYLES['member_of'][0]} a gene set"
            figure.update_traces(name=unknown, selector={"name": _EDGE_STYLES[0][0]})
        clicks = [Click(trace=trace, control="node") for trace in (1, 5, 7)]
        super().__init__(figure, [node], bind(node, pick), clicks, {"height": 560})


def _network_figure(
    xy: np.ndarray, ends: tuple[np.ndarray, np.ndarray], labels: Sequence[str], n_strokes: int
) -> go.Figure:
    """Draw the whole network faintly, and empty traces for what is picked."""
    figure = go.Figure(layout={"height": 620, "margin": {"t": 52, "b": 44}})
    all_edges = th.line(*_strokes(xy, *ends), "#DEDEDE", width=0.8, showlegend=False)
    figure.add_trace(all_edges)
    figure.add_scatter(
        x=xy[:, 0], y=xy[:, 1], mode="markers", customdata=list(labels), hoverinfo="text",
        marker={"size": 8, "color": GREY, "line": {"color": "white", "width": 0.8}},
        hovertext=[safe(label) for label in labels], showlegend=False,
    )  # fmt: skip
    for sign in _SIGNS:
        name, colour, dash, _ = _EDGE_STYLES[sign]
        marker = {"symbol": "arrow", "angleref": "previous", "standoff": 6, "opacity": 1}
        marker |= {"size": [0, 11, 0] * n_strokes, "color": colour, "line_width": 0}
        look = {"dash": dash, "mode": "lines+markers", "marker": marker}
        figure.add_trace(th.line([], [], colour, width=1.8, name=name, **look))
    for mode, marker, size, hover in (
        ("markers+text", {"size": 10, "symbol": "circle", "color": th.SKY}, 11, "text"),
        ("markers+text", {"size": 17, "symbol": "diamond", "color": th.ORANGE}, 14, "skip"),
        ("markers", {"color": "white", "line_width": 1.5}, 11, "text"),
    ):
        figure.add_scatter(
            mode=mode, textposition="top center", hoverinfo=hover, showlegend=False,
            marker=marker | {"line_color": INK},
            textfont={"size": size, "color": INK, "shadow": _HALO},
        )  # fmt: skip
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return figure.add_annotation(th.PANEL_TITLE | {"y": 1.01})

"""The explorer of attention: what a position listens to, at each level and in all of them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError
from genesplice.show.explorer import Explorer, gene_labels, heading
from genesplice.show.patches import Binding, Control
from genesplice.show.theme import GREY, INK, OKABE_ITO, THEME, check_columns, safe

ALL_HEADS = "mean of heads"
POOL_BP = 128
_PATTERNS = ("", "/", "x")


class AttentionExplorer(Explorer):
    """Pick gene, level, head and position: the exact weights with which it listens around itself.

    Below, the same for the start of the gene with all levels rolled into one: which bases it can
    have heard, through bins alone, through summaries, or through regions.

    Parameters
    ----------
    attention
        gene_id, position_bp (who listens, from the TSS), level, layer, head, start_bp and end_bp
        (of what it listens to), weight. Levels in the order in which the model runs them.
    rolled
        gene_id, path, start_bp, end_bp, weight.
    heads
        gene_id, level, layer, head, effect: the change of the prediction without that head.
    names
        Gene name by gene_id, for labels.

    Raises
    ------
    InputError
        A column that is missing, or a gene without some position, level, layer or head.
    """

    def __init__(
        self,
        attention: pd.DataFrame,
        rolled: pd.DataFrame,
        *,
        heads: pd.DataFrame | None = None,
        names: pd.Series | None = None,
    ) -> None:
        place = ["gene_id", "position_bp", "level", "layer", "head"]
        check_columns(attention, [*place, "start_bp", "end_bp", "weight"], "attention")
        check_columns(rolled, ["gene_id", "path", "start_bp", "end_bp", "weight"], "rolled-up")
        genes = pd.Index(attention["gene_id"].unique())
        positions = sorted(attention["position_bp"].unique())
        layers = list(dict.fromkeys(zip(attention["level"], attention["layer"], strict=True)))
        n_heads = int(attention["head"].max()) + 1
        parts = {key: part for key, part in attention.groupby(place, sort=False)}
        labels = gene_labels(genes, names)
        controls = [
            Control(name="gene", kind="select", label="Gene", options=labels),
            Control(
                name="level",
                kind="select",
                label="Level and layer",
                options=tuple(f"{level}, layer {layer + 1}" for level, layer in layers),
            ),
            Control(
                name="head",
                kind="slider",
                label="Head",
                options=(ALL_HEADS, *(f"head {head + 1}" for head in range(n_heads))),
            ),
            Control(
                name="position",
                kind="slider",
                label="Who listens, bp from the start of transcription",
                options=tuple(f"{position:+d}" for position in positions),
                start=int(np.argmin(np.abs(positions))),
            ),
        ]
        x, y, told = [], [], []
        for gene, label in zip(genes, labels, strict=True):
            for level, layer in layers:
                for head in range(-1, n_heads):
                    told.append(heading(label, _effect(heads, gene, level, layer, head)))
                    for position in positions:
                        middle, weight = _weights(
                            parts, (gene, position, level, layer), head, n_heads
                        )
                        x.append(middle)
                        y.append(weight)
        everything = tuple(control.name for control in controls)
        sizes = attention.drop_duplicates("level").set_index("level")
        widths = (sizes["end_bp"] - sizes["start_bp"]).to_dict()
        reach = attention.groupby("level").agg(low=("start_bp", "min"), high=("end_bp", "max"))
        bindings = [
            Binding(path="x", rows=x, controls=everything, traces=(0,)),
            Binding(path="y", rows=y, controls=everything, traces=(0,), decimals=5),
            Binding(
                path="width",
                rows=np.array([float(widths[level]) for level, _ in layers]),
                controls=("level",),
                traces=(0,),
            ),
            Binding(
                path="xaxis.range",
                rows=np.array([reach.loc[level].to_numpy(np.float64) for level, _ in layers]),
                controls=("level",),
            ),
            Binding(path="annotations[0].text", rows=told, controls=("gene", "level", "head")),
            Binding(
                path="shapes[0].x0",
                rows=np.array(positions, np.float64),
                controls=("position",),
            ),
            Binding(
                path="shapes[0].x1",
                rows=np.array(positions, np.float64),
                controls=("position",),
            ),
        ]
        paths = list(dict.fromkeys(rolled["path"]))
        grid, pooled = _pool(rolled, genes, paths)
        figure = _figure(paths, grid)
        for number in range(len(paths)):
            bindings.append(
                Binding(
                    path="y", rows=pooled[:, number], controls=("gene",), traces=(1 + number,),
                    decimals=5,
                )
            )  # fmt: skip
        super().__init__(figure, controls, bindings, narrow={"height": 640})


def _weights(parts: dict, key: tuple, head: int, n_heads: int) -> tuple[np.ndarray, np.ndarray]:
    """Middles and weights of what one head listens to; of their mean for head -1."""
    chosen = range(n_heads) if head < 0 else (head,)
    try:
        tables = [parts[*key, one] for one in chosen]
    except KeyError as error:
        raise InputError(f"no attention for {error.args[0]}", "one for every choice") from error
    table = tables[0] if len(tables) == 1 else pd.concat(tables)
    summed = table.groupby(["start_bp", "end_bp"])["weight"].sum() / len(tables)
    edges = np.array(summed.index.to_list(), np.float64)
    return edges.mean(axis=1), summed.to_numpy(np.float64)


def _effect(
    heads: pd.DataFrame | None, gene: object, level: object, layer: object, head: int
) -> str:
    if heads is None or head < 0:
        return f"{safe(level)}: exact weights, they sum to 1"
    here = heads[
        (heads["gene_id"] == gene)
        & (heads["level"] == level)
        & (heads["layer"] == layer)
        & (heads["head"] == head)
    ]
    if here.empty:
        return f"{safe(level)}: exact weights, they sum to 1"
    return f"silenced, this head changes the prediction by {here['effect'].iloc[0]:+.3f}"


def _pool(
    rolled: pd.DataFrame, genes: pd.Index, paths: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Middles of pools of bases, and weights (genes, paths, pools)."""
    pool = np.floor_divide(rolled["start_bp"].to_numpy(), POOL_BP)
    first, last = int(pool.min()), int(pool.max())
    weights = np.zeros((len(genes), len(paths), last - first + 1))
    at_gene = genes.get_indexer(rolled["gene_id"])
    at_path = pd.Index(paths).get_indexer(rolled["path"])
    kept = at_gene >= 0
    place = at_gene[kept], at_path[kept], (pool - first)[kept]
    np.add.at(weights, place, rolled["weight"].to_numpy()[kept])
    return (np.arange(first, last + 1) + 0.5) * POOL_BP, weights


def _figure(paths: Sequence[str], grid: np.ndarray) -> go.Figure:
    figure = go.Figure(layout={"template": THEME, "height": 560, "barmode": "stack"})
    figure.add_bar(
        marker={"color": OKABE_ITO[0], "line": {"width": 0}},
        hovertemplate="%{x:+,.0f} bp: %{y:.4f}<extra></extra>",
        showlegend=False,
    )
    for number, path in enumerate(paths):
        figure.add_bar(
            x=grid,
            xaxis="x2",
            yaxis="y2",
            width=POOL_BP,
            name=f"through {safe(path)}",
            marker={
                "color": OKABE_ITO[number % len(OKABE_ITO)],
                "line": {"width": 0},
                "pattern": {
                    "shape": _PATTERNS[number % len(_PATTERNS)],
                    "fillmode": "overlay",
                    "fgcolor": "white",
                    "fgopacity": 0.6,
                    "size": 6,
                },
            },
            hovertemplate=f"%{{x:+,.0f}} bp: %{{y:.4f}}<extra>through {safe(path)}</extra>",
        )
    over = {"xref": "paper", "yref": "paper", "showarrow": False, "align": "left"}
    over |= {"x": 0, "xanchor": "left", "yanchor": "bottom", "font": {"size": 13, "color": INK}}
    figure.update_layout(
        margin={"t": 52, "b": 92},
        xaxis={"anchor": "y", "title": {"text": "bp from the start of transcription"}},
        yaxis={"domain": [0.6, 1], "title": {"text": "weight"}, "rangemode": "tozero"},
        xaxis2={"anchor": "y2", "title": {"text": "bp from the start of transcription"}},
        yaxis2={"domain": [0, 0.32], "title": {"text": f"weight in {POOL_BP} bp"}},
        shapes=[
            {
                "type": "line",
                "xref": "x",
                "yref": "y domain",
                "y0": 0,
                "y1": 1,
                "line": {"color": GREY, "width": 1.5, "dash": "dot"},
            }
        ],
        annotations=[
            {**over, "y": 1.01},
            {**over, "y": 0.34, "text": "<b>All levels rolled up</b>, for the start"},
        ],
    )
    return figure

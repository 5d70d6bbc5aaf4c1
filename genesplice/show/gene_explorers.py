"""The explorer of profiles: one gene across conditions, observed and predicted."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError
from genesplice.show.explorer import Explorer, gene_labels, heading
from genesplice.show.patches import Binding, Click, Control
from genesplice.show.theme import INK, OKABE_ITO, THEME, safe

N_TICK_LABELS = 12
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


class ProfileExplorer(Explorer):
    """Pick a gene, by search or by a click: its profile over conditions, observed and predicted.

    Parameters
    ----------
    observed
        Genes x conditions, log2(TPM+1) or residuals; indexed by gene_id, columns are conditions
        in the order to draw. NaN is a gap.
    predicted
        Model name → a table of the same genes and conditions (any order).
    names
        Gene name by gene_id, for labels; ids are used where it has none.
    points
        What the map of genes shows: two columns, x and y, indexed by gene_id. Left out, it is
        each gene's mean observed against its mean predicted by the first model.
    start
        gene_id shown first; left out, the first one.
    unit
        What the values are, for the axes.

    Raises
    ------
    InputError
        No genes, a table that lacks some of them, an unknown `start`.
    """

    def __init__(
        self,
        observed: pd.DataFrame,
        predicted: Mapping[str, pd.DataFrame],
        *,
        names: pd.Series | None = None,
        points: pd.DataFrame | None = None,
        start: str | None = None,
        unit: str = "log2(TPM+1)",
    ) -> None:
        if observed.empty:
            raise InputError(f"{len(observed)} genes x {observed.shape[1]} conditions", "some")
        tables = {model: _aligned(table, observed, model) for model, table in predicted.items()}
        if points is None:
            first, table = next(iter(tables.items()), ("observed", observed))
            means = {f"mean observed, {unit}": observed.mean(axis=1)}
            means[f"mean predicted by {first}, {unit}"] = table.mean(axis=1)
            points = pd.DataFrame(means)
        places = points.reindex(observed.index).to_numpy(np.float64)
        labels = gene_labels(observed.index, names)
        at_start = _position(observed.index, start)
        gene = Control(name="gene", kind="select", label="Gene", options=labels, start=at_start)
        figure = _profile_figure(observed, tables, list(points.columns[:2]), places, labels, unit)
        bindings = [
            Binding(path="x", rows=places[:, [0]], controls=("gene",), traces=(1,)),
            Binding(path="y", rows=places[:, [1]], controls=("gene",), traces=(1,)),
            Binding(
                path="annotations[1].text",
                rows=[
                    _describe_gene(label, observed.to_numpy()[row], tables, row)
                    for row, label in enumerate(labels)
                ],
                controls=("gene",),
            ),
        ]
        for offset, table in enumerate([observed, *tables.values()]):
            rows = table.to_numpy(np.float64)
            bindings.append(
                Binding(path="y", rows=rows, controls=("gene",), traces=(2 + offset,), decimals=2)
            )
        narrow = {
            "xaxis.domain": [0, 1],
            "yaxis.domain": [0.6, 1],
            "xaxis2.domain": [0, 1],
            "yaxis2.domain": [0, 0.4],
            "annotations[1].x": 0,
            "annotations[1].y": 0.415,
            "height": 820,
        }
        super().__init__(figure, [gene], bindings, [Click(trace=0, control="gene")], narrow)


def _aligned(table: pd.DataFrame, observed: pd.DataFrame, model: str) -> pd.DataFrame:
    genes = observed.index.difference(table.index)
    conditions = observed.columns.difference(table.columns)
    if len(genes) or len(conditions):
        lacking = [*genes[:1], *conditions[:1]][0]
        raise InputError(
            f"no {lacking} in what {model} predicts ({len(genes):,} genes and "
            f"{len(conditions):,} conditions are missing)",
            f"{len(observed):,} genes x {observed.shape[1]:,} conditions, as observed",
        )
    return table.loc[observed.index, observed.columns]


def _position(index: pd.Index, start: str | None) -> int:
    if start is None:
        return 0
    if start not in index:
        raise InputError(f"start {start!r}", "one of the ids shown")
    return int(index.get_loc(start))  # type: ignore[arg-type]


def _describe_gene(
    label: str, observed: np.ndarray, tables: Mapping[str, pd.DataFrame], row: int
) -> str:
    """Name the gene, and the correlation of each model with what was observed."""
    parts = []
    for model, table in tables.items():
        predicted = table.to_numpy(np.float64)[row]
        both = np.isfinite(observed) & np.isfinite(predicted)
        if both.sum() > 2 and observed[both].std() > 1e-9 and predicted[both].std() > 1e-9:
            r = np.corrcoef(observed[both], predicted[both])[0, 1]
            parts.append(f"{safe(model)} r = {r:.2f}")
        else:
            parts.append(f"{safe(model)}: flat")
    return heading(label, ", ".join(parts))


def _profile_figure(
    observed: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    axes: list[str],
    places: np.ndarray,
    labels: tuple[str, ...],
    unit: str,
) -> go.Figure:
    """Draw the map of genes on the left and an empty profile on the right."""
    conditions = [safe(condition) for condition in observed.columns]
    x = np.arange(len(conditions), dtype=np.float64)
    figure = go.Figure(layout={"template": THEME, "height": 460})
    figure.add_scatter(
        x=places[:, 0],
        y=places[:, 1],
        mode="markers",
        marker={"size": 6, "color": OKABE_ITO[5], "opacity": 0.6},
        customdata=list(labels),
        hovertext=[safe(label) for label in labels],
        hoverinfo="text",
        showlegend=False,
    )
    figure.add_scatter(
        mode="markers",
        marker={
            "size": 13,
            "color": OKABE_ITO[3],
            "symbol": "diamond",
            "line": {"color": "white", "width": 1.5},
        },
        hoverinfo="skip",
        showlegend=False,
    )
    for number, name in enumerate(["observed", *tables]):
        colour = INK if number == 0 else OKABE_ITO[(number - 1) % len(OKABE_ITO)]
        figure.add_scatter(
            x=x,
            xaxis="x2",
            yaxis="y2",
            name=safe(name),
            mode="markers" if number == 0 else "lines",
            marker={"size": 6, "color": colour},
            line={"color": colour, "width": 2, "dash": _DASHES[(number - 1) % len(_DASHES)]},
            hovertext=conditions,
            hovertemplate="%{hovertext}<br>%{y:.2f}<extra>" + safe(name) + "</extra>",
        )
    n = len(conditions)
    ticks = {"tickvals": x, "ticktext": conditions} if n <= N_TICK_LABELS else {"tickvals": []}
    told = "condition" if n <= N_TICK_LABELS else f"{n} conditions"
    over = {"xref": "paper", "yref": "paper", "showarrow": False, "align": "left"}
    over |= {"xanchor": "left", "yanchor": "bottom", "font": {"size": 13, "color": INK}}
    figure.update_layout(
        margin={"t": 52, "b": 88},
        xaxis={"domain": [0, 0.42], "title": {"text": safe(axes[0])}},
        yaxis={"domain": [0, 1], "title": {"text": safe(axes[1])}},
        xaxis2={"domain": [0.53, 1], "anchor": "y2", "title": {"text": told}, **ticks},
        yaxis2={"domain": [0, 1], "anchor": "x2", "title": {"text": safe(unit)}},
        annotations=[
            {**over, "x": 0, "y": 1.02, "text": f"{len(labels):,} genes: click one"},
            {**over, "x": 0.53, "y": 1.02},
        ],
    )
    return figure

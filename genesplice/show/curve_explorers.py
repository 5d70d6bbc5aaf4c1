"""The explorer of deletion and insertion: whether the prediction follows the attribution."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError
from genesplice.show.explorer import Explorer, gene_labels, heading
from genesplice.show.patches import Binding, Control
from genesplice.show.theme import GREY, INK, MUTED, OKABE_ITO, THEME, check_columns, safe

_COLUMNS = ("fraction", "deletion", "insertion", "random_deletion", "random_insertion")
_PANELS = ("bases taken away", "bases put back")


class CurveExplorer(Explorer):
    """Pick a gene: its prediction as bases are taken away, and put back, by attribution.

    Beside each curve, dashed, is the one of random order: the solid line should fall faster on the
    left and rise faster on the right.

    Parameters
    ----------
    curves
        gene_id → a table with the columns `fraction`, `deletion`, `insertion`, `random_deletion`
        and `random_insertion`, all over the same fractions.
    names
        Gene name by gene_id, for labels.
    notes
        A line by gene_id to stand with the gene.

    Raises
    ------
    InputError
        No genes, a column that is missing, or genes over different fractions.
    """

    def __init__(
        self,
        curves: Mapping[str, pd.DataFrame],
        *,
        names: pd.Series | None = None,
        notes: pd.Series | None = None,
    ) -> None:
        if not curves:
            raise InputError("0 genes with curves", "at least 1")
        for gene_id, table in curves.items():
            check_columns(table, _COLUMNS, f"the curves of {gene_id}")
        fraction = next(iter(curves.values()))["fraction"].to_numpy(np.float64)
        for gene_id, table in curves.items():
            if not np.array_equal(table["fraction"], fraction):
                raise InputError(f"other fractions for {gene_id}", "those of the first gene")
        labels = gene_labels(pd.Index(curves), names)
        gene = Control(name="gene", kind="select", label="Gene", options=labels)
        rows = {
            column: np.stack([table[column].to_numpy(np.float64) for table in curves.values()])
            for column in _COLUMNS[1:]
        }
        bindings = [
            Binding(path="y", rows=rows[column], controls=("gene",), traces=(trace,), decimals=4)
            for trace, column in enumerate(
                ("deletion", "random_deletion", "insertion", "random_insertion")
            )
        ]
        told = [
            heading(label, "" if notes is None else safe(notes.get(gene_id, "")))
            for label, gene_id in zip(labels, curves, strict=True)
        ]
        bindings.append(Binding(path="annotations[0].text", rows=told, controls=("gene",)))
        narrow = {
            "xaxis.domain": [0, 1],
            "yaxis.domain": [0.6, 1],
            "xaxis2.domain": [0, 1],
            "yaxis2.domain": [0, 0.4],
            "height": 640,
        }
        super().__init__(_figure(fraction), [gene], bindings, narrow=narrow)


def _figure(fraction: np.ndarray) -> go.Figure:
    figure = go.Figure(layout={"template": THEME, "height": 380})
    for panel in range(len(_PANELS)):
        axes = {"xaxis": f"x{panel + 1}".rstrip("1"), "yaxis": f"y{panel + 1}".rstrip("1")}
        for name, colour, dash in (
            ("by attribution", OKABE_ITO[0], "solid"),
            ("in random order", MUTED, "dash"),
        ):
            figure.add_scatter(
                x=fraction,
                mode="lines+markers",
                name=name,
                legendgroup=name,
                showlegend=panel == 0,
                line={"color": colour, "dash": dash, "width": 2},
                marker={"size": 5, "color": colour},
                hovertemplate="%{x:.0%} of the bases: %{y:.2f}<extra>" + name + "</extra>",
                **axes,
            )
    zero = {"zeroline": True, "zerolinecolor": GREY, "nticks": 6}
    figure.update_layout(
        margin={"t": 56, "b": 96},
        xaxis={"domain": [0, 0.45], "title": {"text": _PANELS[0]}, "tickformat": ".0%"},
        yaxis={**zero, "title": {"text": "share of the prediction left"}},
        xaxis2={
            "domain": [0.55, 1],
            "anchor": "y2",
            "title": {"text": _PANELS[1]},
            "tickformat": ".0%",
        },
        yaxis2={**zero, "anchor": "x2", "title": {"text": "share reached"}},
        annotations=[
            {
                "xref": "paper",
                "yref": "paper",
                "x": 0,
                "y": 1.02,
                "xanchor": "left",
                "yanchor": "bottom",
                "align": "left",
                "showarrow": False,
                "font": {"size": 13, "color": INK},
            }
        ],
    )
    return figure

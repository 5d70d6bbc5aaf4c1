"""The explorer along a promoter: attributions of one gene, seen through a window that slides."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError
from genesplice.show.explorer import Explorer, gene_labels, heading, shorten
from genesplice.show.patches import Binding, Control
from genesplice.show.theme import (
    BASE_COLOURS,
    GREY,
    INK,
    MUTED,
    OKABE_ITO,
    THEME,
    broken_lines,
    safe,
    text_lines,
)

STAMP = "rgba(168,67,0,0.85)"

_LANES = 3
_LETTERS = tuple("ACGTN")
_COLOURS = (*BASE_COLOURS.values(), GREY)


class AttributionExplorer(Explorer):
    """Pick a gene and slide a window along its promoter: what each base adds to the prediction.

    Above, the whole stretch; below, the window base by base, each bar with its letter; where
    motifs are given, they lie under the bars.

    Parameters
    ----------
    attributions
        Genes x positions: the attribution of the base that is there, sense strand, in the unit
        of the prediction. Indexed by gene_id; columns are positions (bp) relative to the start of
        transcription, ascending, one apart.
    sequences
        One per gene, as long as there are positions, letters ACGTN.
    names
        Gene name by gene_id, for labels.
    motifs
        Known or found sites: gene_id, start, end (relative as the columns, half-open), name.
    notes
        A line by gene_id to stand with the gene, such as its completeness delta.
    stamps
        What to print across the bars, by gene_id: why a gene's attribution is not to be believed.
        Genes that are not in it carry no stamp.
    window_bp
        Width of the window; the slider moves by a quarter of it.
    start
        gene_id shown first; left out, the first one.

    Raises
    ------
    InputError
        No genes, positions that are not one apart, a sequence of another length, or an unknown
        `start`.
    """

    def __init__(
        self,
        attributions: pd.DataFrame,
        sequences: Sequence[str],
        *,
        names: pd.Series | None = None,
        motifs: pd.DataFrame | None = None,
        notes: pd.Series | None = None,
        stamps: pd.Series | None = None,
        window_bp: int = 60,
        start: str | None = None,
    ) -> None:
        positions = _check_positions(attributions, sequences)
        genes = attributions.index
        if start is not None and start not in genes:
            raise InputError(f"start {start!r}", "one of the ids shown")
        labels = gene_labels(genes, names)
        windows = _windows(positions, window_bp)
        around_tss = int(np.argmin(np.abs(windows.mean(axis=1) + window_bp / 4)))
        gene = Control(
            name="gene",
            kind="select",
            label="Gene",
            options=labels,
            start=0 if start is None else int(genes.get_loc(start)),  # type: ignore[arg-type]
        )
        window = Control(
            name="window",
            kind="slider",
            label="Window, bp from the start of transcription",
            options=tuple(f"{low + 0.5:+.0f} to {high - 0.5:+.0f}" for low, high in windows),
            start=around_tss,
        )
        values = attributions.to_numpy(np.float32)
        codes = np.stack([_codes(sequence) for sequence in sequences])
        by_gene = ("gene",)
        bindings = [
            Binding(path="y", rows=values, controls=by_gene, traces=(0, 1)),
            Binding(
                path="marker.color", rows=codes, controls=by_gene, traces=(1,), palette=_COLOURS
            ),
            Binding(path="text", rows=codes, controls=by_gene, traces=(1,), palette=_LETTERS),
            Binding(
                path="annotations[0].text",
                rows=[
                    _heading(label, gene_id, notes)
                    for label, gene_id in zip(labels, genes, strict=True)
                ],
                controls=by_gene,
            ),
            Binding(
                path="annotations[1].text",
                rows=[_stamp(gene_id, stamps) for gene_id in genes],
                controls=by_gene,
            ),
            Binding(path="xaxis2.range", rows=windows, controls=("window",)),
            Binding(path="shapes[0].x0", rows=windows[:, 0], controls=("window",)),
            Binding(path="shapes[0].x1", rows=windows[:, 1], controls=("window",)),
        ]
        figure = _attribution_figure(positions, with_motifs=motifs is not None)
        if motifs is not None:
            sites = [_sites(motifs, gene_id) for gene_id in genes]
            targets = ((2, "x"), (2, "y"), (3, "x"), (3, "y"), (3, "text"))
            for (trace, path), rows in zip(targets, zip(*sites, strict=True), strict=True):
                bindings.append(
                    Binding(path=path, rows=list(rows), controls=by_gene, traces=(trace,))
                )
        narrow = {"data[1].textfont.size": 8, "height": 540, "annotations[1].font.size": 22}
        super().__init__(figure, [gene, window], bindings, narrow=narrow)


def _check_positions(attributions: pd.DataFrame, sequences: Sequence[str]) -> np.ndarray:
    if attributions.empty:
        raise InputError(f"{len(attributions)} genes x {attributions.shape[1]} positions", "some")
    positions = attributions.columns.to_numpy(np.float64)
    if len(positions) > 1 and not np.allclose(np.diff(positions), 1.0):
        raise InputError("positions that are not one apart", "-200, -199, … as columns")
    if len(sequences) != len(attributions):
        raise InputError(f"{len(sequences)} sequences", f"{len(attributions)}, one per gene")
    for gene_id, sequence in zip(attributions.index, sequences, strict=True):
        if len(sequence) != len(positions):
            raise InputError(
                f"a sequence of {len(sequence)} bp for {gene_id}",
                f"{len(positions)}, as many as positions",
            )
    return positions


def _windows(positions: np.ndarray, window_bp: int) -> np.ndarray:
    """Edges of every window, half a base outside its first and last base."""
    if window_bp < 1:
        raise InputError(f"a window of {window_bp} bp", "at least 1")
    first, last = positions[0] - 0.5, positions[-1] + 0.5
    if window_bp >= last - first:
        return np.array([[first, last]])
    step = max(1, window_bp // 4)
    starts = np.arange(first, last - window_bp, step)
    starts = np.append(starts, last - window_bp)
    return np.stack([starts, starts + window_bp], axis=1)


def _codes(sequence: str) -> np.ndarray:
    return np.array(["ACGTN".find(base) % 5 for base in sequence.upper()], dtype=np.int8)


def _heading(label: str, gene_id: object, notes: pd.Series | None) -> str:
    note = "" if notes is None or gene_id not in notes.index else str(notes[gene_id])
    return heading(label, safe(note))


def _stamp(gene_id: object, stamps: pd.Series | None) -> str:
    if stamps is None or gene_id not in stamps.index:
        return ""
    first, *why = str(stamps[gene_id]).split(": ", 1)
    lines = [line for part in why for line in text_lines(part, 44, 3)]
    small = "".join(f'<br><span style="font-size:13px">{line}</span>' for line in lines)
    return f"<b>{safe(first.upper())}</b>{small}"


def _sites(
    motifs: pd.DataFrame, gene_id: object
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Lay a gene's motifs into lanes: x and y of the strokes, x and y and text of the names."""
    mine = motifs[motifs["gene_id"] == gene_id].sort_values(["start", "end"], kind="stable")
    free = np.full(_LANES, -np.inf)
    lanes = np.zeros(len(mine))
    for i, site in enumerate(mine.itertuples()):
        open_lanes = np.flatnonzero(free <= site.start)
        lane = int(open_lanes[0]) if len(open_lanes) else int(np.argmin(free))
        free[lane], lanes[i] = site.end, -lane
    low, high = (mine[edge].to_numpy(np.float64) - 0.5 for edge in ("start", "end"))
    names = [safe(shorten(str(name), 24)) for name in mine["name"]]
    strokes = broken_lines(low, high), broken_lines(lanes, lanes)
    return (*strokes, (low + high) / 2, lanes - 0.45, names)


def _attribution_figure(positions: np.ndarray, *, with_motifs: bool) -> go.Figure:
    figure = go.Figure(layout={"template": THEME, "height": 540 if with_motifs else 480})
    figure.add_scatter(
        x=positions,
        mode="lines",
        line={"color": MUTED, "width": 1, "shape": "hvh"},
        fill="tozeroy",
        fillcolor="rgba(86,180,233,0.35)",
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_bar(
        x=positions,
        xaxis="x2",
        yaxis="y2",
        marker={"line": {"width": 0}},
        textposition="outside",
        textfont={"size": 12, "family": "ui-monospace, Menlo, Consolas, monospace", "color": INK},
        textangle=0,
        cliponaxis=True,
        hovertemplate="%{x:+d} bp: %{text}<br>%{y:.4f}<extra></extra>",
        showlegend=False,
    )
    bottom = 0.26 if with_motifs else 0.0
    if with_motifs:
        under = {"xaxis": "x2", "yaxis": "y3", "hoverinfo": "skip", "showlegend": False}
        figure.add_scatter(mode="lines", line={"color": OKABE_ITO[4], "width": 5}, **under)
        # Names have a trace of their own: on a line, plotly.js loses the texts of thinned points.
        figure.add_scatter(
            mode="text", textfont={"size": 11, "color": INK}, cliponaxis=False, **under
        )
        figure.update_layout(
            yaxis3={
                "domain": [0, 0.21],
                "anchor": "x2",
                "range": [-_LANES + 0.05, 0.3],
                "visible": False,
                "fixedrange": True,
            }
        )
    figure.update_layout(
        bargap=0.12,
        margin={"t": 48, "b": 52},
        xaxis={"anchor": "y", "fixedrange": True, "range": [positions[0], positions[-1]]},
        yaxis={"domain": [0.74, 1], "fixedrange": True, "nticks": 4},
        xaxis2={
            "anchor": "y3" if with_motifs else "y2",
            "title": {"text": "bp from the start of transcription"},
        },
        yaxis2={
            "domain": [bottom, 0.6],
            "anchor": "x2",
            "title": {"text": "attribution"},
            "zeroline": True,
            "zerolinecolor": GREY,
        },
        shapes=[
            {
                "type": "rect",
                "xref": "x",
                "yref": "y domain",
                "y0": 0,
                "y1": 1,
                "line": {"color": INK, "width": 1.5},
                "fillcolor": "rgba(0,0,0,0)",
            },
            {
                "type": "line",
                "xref": "x2",
                "yref": "y2 domain",
                "x0": -0.5,
                "x1": -0.5,
                "y0": 0,
                "y1": 1,
                "line": {"color": GREY, "width": 1, "dash": "dot"},
            },
        ],
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
            },
            {
                "xref": "paper",
                "yref": "paper",
                "x": 0.5,
                "y": 0.6,
                "yanchor": "top",
                "showarrow": False,
                "font": {"size": 34, "color": STAMP},
                "bgcolor": "rgba(255,255,255,0.85)",
            },
        ],
    )
    return figure

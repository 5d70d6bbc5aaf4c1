"""Explorers along a promoter: attributions, substitutions and attention of one gene at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError
from genesplice.show.explorer import Control, Explorer, Recompute, bind
from genesplice.show.logo import LETTERS, letter_paths, site_lanes
from genesplice.show.theme import (
    BASE_COLOURS,
    DIVERGING,
    GREY,
    GRID,
    INK,
    MUTED,
    PANEL_TITLE,
    PURPLE,
    THEME,
    broken_lines,
    gene_labels,
    require_table,
    safe,
    short,
    text_lines,
)

FROM_TSS = "bp from the start of transcription"
_LANES = 3
_STAMP = "rgba(168,67,0,0.85)"


def gene_control(ids: Sequence[Any] | pd.Index, names: pd.Series | None = None) -> Control:
    """Make the control that picks a gene; `names` is by gene_id."""
    return Control(name="gene", kind="select", label="Gene", options=gene_labels(ids, names))


def panel_title(label: str, detail: str = "") -> str:
    """Write the text over a panel: a user's label in bold and a line that is plotly text."""
    return f"<b>{short(label, 34)}</b>" + (f"<br>{detail}" if detail else "")


class AttributionExplorer(Explorer):
    """Pick a gene and slide a window along its promoter: what each base adds to the prediction.

    Above, all positions; below, the window base by base, each bar with its letter; where sites
    are given, they lie under the bars.

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
    substitutions
        Genes x positions x ACGT: drawn as a heat map under the letters, the strongest as a table.
    window_bp
        Width of the window; the slider moves by a quarter of it.
    recompute
        Computes further genes in a live kernel.

    Raises
    ------
    InputError
        No genes, positions that are not one apart, or a sequence of another length.
    """

    value_name = "attribution"

    def __init__(
        self,
        attributions: pd.DataFrame,
        sequences: Sequence[str],
        *,
        names: pd.Series | None = None,
        motifs: pd.DataFrame | None = None,
        notes: pd.Series | None = None,
        stamps: pd.Series | None = None,
        substitutions: np.ndarray | None = None,
        window_bp: int = 60,
        recompute: Recompute | None = None,
    ) -> None:
        positions = _check_positions(attributions, sequences)
        genes = list(attributions.index)
        gene = gene_control(genes, names)
        windows = _windows(positions, window_bp)
        around_tss = int(np.argmin(np.abs(windows.mean(axis=1) + window_bp / 4)))
        window = Control(
            name="window",
            kind="slider",
            label=f"Window, {FROM_TSS}",
            options=tuple(f"{low + 0.5:+.0f} to {high - 0.5:+.0f}" for low, high in windows),
            start=around_tss,
        )
        values = attributions.to_numpy(np.float32)
        notes = pd.Series(dtype=object) if notes is None else notes
        stamps = pd.Series(dtype=object) if stamps is None else stamps

        def pick(at: int) -> dict[str, Any]:
            bases = [base if base in "ACGT" else "N" for base in sequences[at].upper()]
            note, value = safe(notes.get(genes[at], "")), values[at]
            shown = {
                "data[0].y": value,
                "data[1].y": value,
                "data[1].text": bases,
                "data[1].marker.color": [BASE_COLOURS.get(base, GREY) for base in bases],
                "annotations[0].text": panel_title(gene.options[at], note),
                "annotations[1].text": _stamp(stamps.get(genes[at], "")),
            }
            return shown | _site_values(motifs, genes[at])

        def slide(at: int) -> dict[str, Any]:
            low, high = windows[at]
            return {"xaxis2.range": [low, high], "shapes[0].x0": low, "shapes[0].x1": high}

        figure = _locus_figure(positions, self.value_name, motifs is not None)
        bindings = bind(gene, pick) + bind(window, slide)
        narrow: dict[str, Any] = {"data[1].textfont.size": 8, "annotations[1].font.size": 22}
        if substitutions is not None:
            _add_substitutions(figure, positions)
            tokens = [np.array(["ACGT".find(b) % 5 for b in s.upper()]) for s in sequences]
            letters = [letter_paths(positions, *one) for one in zip(tokens, values, strict=True)]
            strongest = [
                _strongest(*one, positions) for one in zip(substitutions, tokens, strict=True)
            ]
            bindings += bind(gene, lambda at: _letter_values(letters[at]), decimals=4)
            bindings += bind(gene, lambda at: {"data[8].z": substitutions[at].ravel()}, decimals=3)
            bindings += bind(
                gene,
                lambda at: {"data[9].cells.values": strongest[at]},
            )  # fmt: skip
        super().__init__(figure, [gene, window], bindings, narrow=narrow, recompute=recompute)


class ScanExplorer(AttributionExplorer):
    """Pick a gene and slide along its promoter: which base the model would miss, and for what.

    Letters are as high as the mean of minus the log ratios of the three substitutions; below
    them the −10 and −35 hexamers, every substitution as a heat map, and the strongest as a table.

    Parameters
    ----------
    scans
        gene_id, position_bp (from the start of transcription, on the sense strand), ref, to_A,
        to_C, to_G and to_T: log ratios, 0 or NaN for the base that is there.
    hexamers
        gene_id, start, end (half-open, as position_bp) and name.
    names, notes, window_bp, recompute
        As in `AttributionExplorer`.

    Raises
    ------
    InputError
        A column that is missing, or a position of a gene that comes twice.
    """

    value_name = "mean −log ratio"

    def __init__(self, scans: pd.DataFrame, hexamers: pd.DataFrame, **options: Any) -> None:
        columns = [f"to_{base}" for base in "ACGT"]
        at = ["gene_id", "position_bp"]
        require_table(scans, "scans", [*at, "ref", *columns], unique=at, finite=["position_bp"])
        genes = scans["gene_id"].unique()
        positions = np.arange(scans["position_bp"].min(), scans["position_bp"].max() + 1)
        every = pd.MultiIndex.from_product([genes, positions], names=at)
        table = scans.set_index(at).reindex(every)
        ratios = table[columns].to_numpy(np.float64).reshape(len(genes), len(positions), 4)
        mean = pd.DataFrame(-np.nansum(ratios, axis=2) / 3, index=genes, columns=positions)
        letters = table["ref"].fillna("N").to_numpy(str).reshape(len(genes), -1)
        sequences = ["".join(one) for one in letters]
        super().__init__(mean, sequences, motifs=hexamers, substitutions=ratios, **options)


def _check_positions(attributions: pd.DataFrame, sequences: Sequence[str]) -> np.ndarray:
    if attributions.empty:
        raise InputError(f"{len(attributions)} genes x {attributions.shape[1]} positions", "some")
    positions = attributions.columns.to_numpy(np.float64)
    if len(positions) > 1 and not np.allclose(np.diff(positions), 1.0):
        raise InputError("positions that are not one apart", "-200, -199, … as columns")
    lengths = [len(sequence) for sequence in sequences]
    if lengths != [len(positions)] * len(attributions):
        found = f"{len(lengths)} sequences of {sorted(set(lengths))} bp"
        raise InputError(found, f"{len(attributions)} of {len(positions)}")
    return positions


def _windows(positions: np.ndarray, window_bp: int) -> np.ndarray:
    """Edges of every window, half a base outside its first and last base."""
    if window_bp < 1:
        raise InputError(f"a window of {window_bp} bp", "at least 1")
    first, last = positions[0] - 0.5, positions[-1] + 0.5
    if window_bp >= last - first:
        return np.array([[first, last]])
    starts = np.arange(first, last - window_bp, max(1, window_bp // 4))
    starts = np.append(starts, last - window_bp)
    return np.stack([starts, starts + window_bp], axis=1)


def _stamp(text: str) -> str:
    first, *why = str(text).split(": ", 1)
    lines = [line for part in why for line in text_lines(part, 44, 3)]
    small = "".join(f'<br><span style="font-size:13px">{line}</span>' for line in lines)
    return f"<b>{safe(first.upper())}</b>{small}" if text else ""


def _site_values(motifs: pd.DataFrame | None, gene_id: object) -> dict[str, Any]:
    """Lay a gene's sites into lanes: strokes of trace 2, names of trace 3."""
    if motifs is None:
        return {}
    mine = motifs[motifs["gene_id"] == gene_id].sort_values(["start", "end"], kind="stable")
    low, high = (mine[edge].to_numpy(np.float64) - 0.5 for edge in ("start", "end"))
    lanes = -np.array(site_lanes(low, high, _LANES), dtype=np.float64)
    return {
        "data[2].x": broken_lines(low, high),
        "data[2].y": broken_lines(lanes, lanes),
        "data[3].x": (low + high) / 2,
        "data[3].y": lanes - 0.45,
        "data[3].text": [short(name, 24) for name in mine["name"]],
    }


def _letter_values(letters: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    return {
        f"data[{4 + i}].{axis}": letters[base][j]
        for i, base in enumerate(LETTERS)
        for j, axis in enumerate("xy")
    }


def _strongest(ratios: np.ndarray, tokens: np.ndarray, positions: np.ndarray) -> list[list[str]]:
    """Columns of the table: the substitutions with the lowest log ratio, lowest first."""
    known = np.where(np.isnan(ratios) | (np.arange(4) == tokens[:, None]), np.inf, ratios)
    order = [i for i in np.argsort(known, axis=None, kind="stable")[:8] if known.flat[i] < np.inf]
    rows, columns = np.unravel_index(np.array(order, dtype=int), known.shape)
    return [
        [f"{positions[row]:+.0f}" for row in rows],
        [f"{'ACGTN'[tokens[i]]} → {'ACGT'[base]}" for i, base in zip(rows, columns, strict=True)],
        [f"{known[row, base]:.2f}" for row, base in zip(rows, columns, strict=True)],
    ]  # fmt: skip


def _locus_figure(positions: np.ndarray, value_name: str, has_sites: bool) -> go.Figure:
    """Overview (trace 0), bars of the window (1), strokes (2) and names (3) of sites."""
    figure = go.Figure(layout={"template": THEME, "height": 540 if has_sites else 480})
    figure.add_scatter(
        x=positions, mode="lines", line={"color": MUTED, "width": 1, "shape": "hvh"},
        fill="tozeroy", fillcolor="rgba(86,180,233,0.35)", hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    figure.add_bar(
        x=positions, xaxis="x2", yaxis="y2", marker_line_width=0, textposition="outside",
        textfont={"size": 12, "family": "ui-monospace, Menlo, Consolas, monospace", "color": INK},
        textangle=0, cliponaxis=True, showlegend=False, name=value_name,
        hovertemplate="%{x:+d} bp: %{text}<br>%{y:.4f}<extra></extra>",
    )  # fmt: skip
    under = {"xaxis": "x2", "yaxis": "y3", "hoverinfo": "skip", "showlegend": False}
    if has_sites:
        figure.add_scatter(mode="lines", line={"color": PURPLE, "width": 5}, name="sites", **under)
        # Names have a trace of their own: on a line, plotly.js loses the texts of thinned points.
        names = {"textfont": {"size": 11, "color": INK}, "name": "names of sites"}
        figure.add_scatter(mode="text", cliponaxis=False, **names, **under)
        figure.update_layout(yaxis3={"domain": [0, 0.21], "anchor": "x2", "visible": False})
        figure.update_layout(yaxis3={"range": [-_LANES + 0.05, 0.3], "fixedrange": True})
    figure.update_layout(
        bargap=0.12,
        margin={"t": 48, "b": 52},
        xaxis={"anchor": "y", "fixedrange": True, "range": [positions[0], positions[-1]]},
        yaxis={"domain": [0.74, 1], "fixedrange": True, "nticks": 4},
        xaxis2={"anchor": "y3" if has_sites else "y2", "title_text": FROM_TSS},
        yaxis2={"domain": [0.26 if has_sites else 0, 0.6], "anchor": "x2", "zeroline": True},
        yaxis2_title_text=value_name,
    )
    window = {"type": "rect", "xref": "x", "yref": "y domain", "y0": 0, "y1": 1}
    tss = {"type": "line", "xref": "x2", "yref": "y2 domain", "x0": -0.5, "x1": -0.5}
    figure.add_shape(window | {"line": {"color": INK, "width": 1.5}})
    figure.add_shape(tss | {"y0": 0, "y1": 1, "line": {"color": GREY, "width": 1, "dash": "dot"}})
    figure.add_annotation(PANEL_TITLE | {"y": 1.02})
    figure.add_annotation(
        xref="paper", yref="y2 domain", x=0.5, y=1, yanchor="top", showarrow=False,
        font={"size": 34, "color": _STAMP}, bgcolor="rgba(255,255,255,0.85)",
    )  # fmt: skip
    return figure


def _add_substitutions(figure: go.Figure, positions: np.ndarray) -> None:
    """Letters (traces 4 to 7) over the bars, every substitution (8), the strongest (9)."""
    for base, colour in BASE_COLOURS.items():
        figure.add_scatter(
            name=base, mode="lines", fill="toself", fillcolor=colour, hoverinfo="skip",
            line={"width": 0.8, "color": colour}, xaxis="x2", yaxis="y2", showlegend=False,
        )  # fmt: skip
    figure.update_traces(opacity=0, textposition="none", selector={"type": "bar"})
    figure.add_heatmap(
        x=np.repeat(positions, 4), y=list("ACGT") * len(positions), xaxis="x2", yaxis="y4",
        name="substitutions", zmid=0, colorscale=DIVERGING, hoverongaps=False,
        colorbar={"thickness": 8, "len": 0.13, "y": 0.395, "outlinewidth": 0, "nticks": 3},
        hovertemplate="%{x:+d} bp → %{y}: %{z:.3f}<extra></extra>",
    )  # fmt: skip
    figure.add_table(
        domain={"x": [0, 1], "y": [0, 0.27]},
        header={"values": ["position", "strongest", "log ratio"], "align": "left"},
        cells={"align": "left", "fill_color": "white", "line_color": GRID, "height": 22},
    )
    figure.update_layout(
        height=920,
        yaxis={"domain": [0.89, 1]},
        yaxis2={"domain": [0.57, 0.84]},
        yaxis3={"domain": [0.47, 0.56]},
        yaxis4={"domain": [0.35, 0.46], "anchor": "x2", "type": "category", "showgrid": False},
        xaxis2={"anchor": "y4"},
    )

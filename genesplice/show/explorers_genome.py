"""Explorers along the genome: attributions and substitutions of a promoter, tracks of a locus."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.config.model import SUMMARY_BP
from genesplice.results import Conservation
from genesplice.show import logo
from genesplice.show import theme as th
from genesplice.show.explorer import Control, Explorer, Recompute, bind, gene_control, panel_title
from genesplice.show.theme import PANEL_TITLE, broken_lines, line, require, require_table, safe

FROM_TSS = "bp from the gene's start"
_STAMP = "rgba(168,67,0,0.85)"


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
    conservation
        Of each gene how relatives conserve these bases: drawn below (`add_conservation`). Without
        it the axis says so.
    by_column
        Genes x positions: attribution of alignment columns, a line over the bars.
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
        conservation: Sequence[Conservation] | None = None,
        by_column: np.ndarray | None = None,
        window_bp: int = 60,
        recompute: Recompute | None = None,
    ) -> None:
        positions = _check_positions(attributions, sequences)
        genes = list(attributions.index)
        gene, windows = gene_control(genes, names), _windows(positions, window_bp)
        window = Control(
            name="window", kind="slider", label=f"Window, {FROM_TSS}",
            options=tuple(f"{low + 0.5:+.0f} to {high - 0.5:+.0f}" for low, high in windows),
            start=int(np.argmin(np.abs(windows.mean(axis=1) + window_bp / 4))),
        )  # fmt: skip
        values = attributions.to_numpy(np.float32)
        notes, stamps = ({} if one is None else one for one in (notes, stamps))
        colours = [*th.BASE_COLOURS.values(), th.GREY]
        tokens = [np.array(["ACGTN".find(b) % 5 for b in s.upper()], np.int8) for s in sequences]

        def pick(at: int) -> dict[str, Any]:
            note = safe(notes.get(genes[at], ""))
            return {
                "data[0].y": values[at], "data[1].y": values[at],
                "data[1].text": ["ACGTN"[token] for token in tokens[at]],
                "data[1].marker.color": [colours[token] for token in tokens[at]],
                "annotations[0].text": panel_title(gene.options[at], note),
                "annotations[1].text": _stamp(stamps.get(genes[at], "")),
                **logo.site_values(motifs, genes[at], window_bp),
            }  # fmt: skip

        def slide(at: int) -> dict[str, Any]:
            low, high = windows[at].tolist()
            return {"xaxis2.range": [low, high], "shapes[0].x0": low, "shapes[0].x1": high}

        figure = _locus_figure(positions, self.value_name, motifs is not None)
        if conservation is None:
            figure.update_layout(xaxis2_title_text=f"{FROM_TSS}; no relatives")
        panels = {"yaxis": (110, 0), "yaxis2": (150, 62)}
        if motifs is not None:
            panels["yaxis3"] = (92, 22)
        bindings = bind(gene, pick) + bind(window, slide)
        narrow: dict[str, Any] = {"data[1].textfont.size": 8, "annotations[1].font.size": 22}
        if substitutions is not None:
            _add_substitutions(figure, positions)

            def letters(at: int) -> dict[str, Any]:
                paths = logo.letter_paths(positions, tokens[at], values[at])
                shown = dict[str, Any]()
                for i, (x, y) in enumerate(paths.values(), 4):
                    shown |= th.of_trace(i, x=x, y=y)
                return shown

            def change(at: int) -> dict[str, Any]:
                strongest = _strongest(substitutions[at], tokens[at], positions)
                return {"data[8].z": substitutions[at].ravel(), "data[9].cells.values": strongest}

            bindings += bind(gene, letters, decimals=4) + bind(gene, change, decimals=3)
            panels |= {"yaxis2": (220, 40), "yaxis3": (74, 24), "yaxis4": (90, 8)}
        if by_column is not None:
            n, look = len(figure.data), {"width": 1.5, "name": "alignment columns", "shape": "hvh"}
            look |= {"hover": "%{x:+d} bp, alignment column: %{y:.4f}", "showlegend": False}
            figure.add_trace(line(positions, [], th.INK, xaxis="x2", yaxis="y2", **look))
            columns = by_column.astype(np.float32)
            bindings += bind(gene, lambda at: {f"data[{n}].y": columns[at]})
        if conservation is not None:
            first = len(figure.data)
            axes = logo.add_conservation(figure, positions, conservation[0], "x2")
            panels |= {axis: (24, 4 if i else 12) for i, axis in enumerate(axes)}

            def conserve(at: int) -> dict[str, Any]:
                areas = logo.conservation_areas(conservation[at])
                return {f"data[{i}].y": area for i, area in enumerate(areas, first)}

            bindings += bind(gene, conserve)
        figure.update_xaxes(selector={"anchor": "y2"}, anchor=list(panels)[-1].replace("axis", ""))
        if substitutions is not None:
            panels["table"] = (220, 66)
        figure.update_layout(height=th.stack_panels(figure, panels) + 100)
        if substitutions is not None:
            low, high = figure.layout.yaxis4.domain
            figure.data[8].colorbar.update(y=(low + high) / 2, len=1.2 * (high - low))
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
    **options
        `names`, `notes`, `window_bp` and `recompute` of `AttributionExplorer`.

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


class TrackExplorer(Explorer):
    """Pick a gene and a track: what was measured around it, and predicted of held-out bins.

    The area is measured, the line predicted; of a track with strands + is drawn upwards and -
    downwards. Below lie the genes, on their strand, and the bins that the models held out: nothing
    is predicted elsewhere.

    Parameters
    ----------
    bins, genes
        What `genesplice.track_loci` gives; `bins` also of several tracks.
    names
        Gene name by gene_id, for labels.

    Raises
    ------
    InputError
        A column that is missing, no rows, or a bin of a track that comes twice.
    """

    def __init__(
        self, bins: pd.DataFrame, genes: pd.DataFrame, *, names: pd.Series | None = None
    ) -> None:
        at = ["locus", "track", "strand", "start"]
        require_table(bins, "bins", [*at, "measured", "predicted"], unique=at)
        require_table(genes, "genes", ["locus", "gene_id", "name", "start", "end", "strand"])
        loci, tracks = bins["locus"].unique().tolist(), bins["track"].unique().tolist()
        gene = gene_control(loci, names)
        track = Control(name="track", kind="select", label="Track", options=tuple(tracks))
        reach, bin_bp = float(bins["start"].abs().max()), float(SUMMARY_BP)
        figure = go.Figure(layout={"margin": {"t": 56, "b": 96}})
        area = {"fill": "tozeroy", "fillcolor": "rgba(86,180,233,0.45)", "width": 1}
        for first in (True, False):
            for name, colour, look in (
                ("measured", th.SKY, area),
                ("predicted", th.VERMILLION, {}),
            ):
                hover = {"hover": f"%{{x:,}} bp: {name} %{{customdata:.2f}}", "name": name}
                look = look | hover | {"shape": "hvh"}
                figure.add_trace(line([], [], colour, showlegend=first, **look))
        under: dict[str, Any] = {"yaxis": "y2", "showlegend": False}
        for colour, width, name in ((th.MUTED, 7, "genes"), (th.INK, 9, "the gene")):
            figure.add_trace(line([], [], colour, width=width, name=name, **under))
        figure.add_trace(line([], [], th.GREEN, width=7, name="held out", **under))
        figure.add_scatter(mode="markers", hoverinfo="text", marker_color=th.INK, **under)
        figure.add_scatter(mode="text", hoverinfo="skip", textfont_size=11, **under)
        figure.update_layout(
            xaxis={"anchor": "y2", "title_text": f"{FROM_TSS}, + strand",
                   "range": [-reach, reach], "tickformat": ",d", "nticks": 6},
            yaxis={"title_text": "times the mean (peaks: share)", "zeroline": True, "nticks": 5},
            yaxis2={"tickvals": [0, -1, -2], "ticktext": ["+ genes", "− genes", "held out"],
                    "range": [-2.5, 0.9], "showgrid": False, "fixedrange": True, "ticks": ""},
        )  # fmt: skip
        figure.add_annotation(PANEL_TITLE | {"y": 1.02})

        def draw(at_gene: int, at_track: int) -> dict[str, Any]:
            mine = bins[(bins["locus"] == loci[at_gene]) & (bins["track"] == tracks[at_track])]
            known = mine.dropna(subset=["measured", "predicted"])
            x, y = known["measured"], known["predicted"]
            fit = f"r = {x.corr(y):.2f}" if min(x.std(), y.std()) > 1e-9 else "flat"
            note = f"{fit} over {len(known)} held-out bins here" if len(known) else "none held out"
            note += "; − strand downwards" * bool((mine["strand"] == "-").any())
            out: dict[str, Any] = {"annotations[0].text": panel_title(gene.options[at_gene], note)}
            for i, sign in enumerate((1, -1)):
                part = mine[(mine["strand"] == "-") == (sign < 0)].sort_values("start")
                for j, what in enumerate(("measured", "predicted"), 2 * i):
                    values = part[what].to_numpy(np.float32)
                    x = part["start"].to_numpy(np.float64) + bin_bp / 2
                    out |= th.of_trace(j, x=x, y=sign * values, customdata=values)
            held = mine["start"][mine["predicted"].notna()].unique()
            held = np.sort(held).astype(np.float64)
            low = held[np.diff(held, prepend=-np.inf) > bin_bp]
            high = held[np.diff(held, append=np.inf) > bin_bp] + bin_bp
            y = np.full(len(low), -2.0)
            return out | th.of_trace(6, x=broken_lines(low, high), y=broken_lines(y, y))

        bindings = bind([gene, track], draw)
        bindings += bind(gene, lambda at: logo.gene_lanes(genes, loci[at], reach))
        panels = {"yaxis": (230, 0), "yaxis2": (110, 14)}
        figure.update_layout(height=th.stack_panels(figure, panels) + 160)
        super().__init__(figure, [gene, track], bindings)


def _check_positions(attributions: pd.DataFrame, sequences: Sequence[str]) -> np.ndarray:
    n, n_positions = attributions.shape
    require(attributions.size, f"{n} genes x {n_positions} positions", "some")
    positions = attributions.columns.to_numpy(np.float64)
    is_fine = np.allclose(np.diff(positions), 1.0)
    require(is_fine, "positions that are not one apart", "-200, -199, … as columns")
    lengths = [len(sequence) for sequence in sequences]
    found = f"{len(lengths)} sequences of {sorted(set(lengths))} bp"
    require(lengths == [n_positions] * n, found, f"{n} of {n_positions}")
    return positions


def _windows(positions: np.ndarray, window_bp: int) -> np.ndarray:
    """Edges of every window, half a base outside its first and last base."""
    require(window_bp >= 1, f"a window of {window_bp} bp", "at least 1")
    first, last = positions[0] - 0.5, positions[-1] + 0.5
    if window_bp >= last - first:
        return np.array([[first, last]])
    starts = np.arange(first, last - window_bp, max(1, window_bp // 4))
    starts = np.append(starts, last - window_bp)
    return np.stack([starts, starts + window_bp], axis=1)


def _stamp(text: str) -> str:
    first, *why = str(text).split(": ", 1)
    lines = [one for part in why for one in th.text_lines(part, 44, 3)]
    small = "".join(f'<br><span style="font-size:13px">{one}</span>' for one in lines)
    return f"<b>{safe(first.upper())}</b>{small}" if text else ""


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
    figure = go.Figure()
    area = {"fill": "tozeroy", "fillcolor": "rgba(86,180,233,0.35)", "showlegend": False}
    figure.add_trace(line(positions, [], th.MUTED, width=1, shape="hvh", **area))
    font = {"size": 12, "family": "ui-monospace, Menlo, Consolas, monospace", "color": th.INK}
    figure.add_bar(
        x=positions, xaxis="x2", yaxis="y2", marker_line_width=0, textangle=0,
        textposition="outside", textfont=font, cliponaxis=True, showlegend=False, name=value_name,
        hovertemplate="%{x:+d} bp: %{text}<br>%{y:.4f}<extra></extra>",
    )  # fmt: skip
    if has_sites:
        under: dict[str, Any] = {"xaxis": "x2", "yaxis": "y3", "showlegend": False}
        figure.add_trace(line([], [], th.PURPLE, width=5, name="sites", **under))
        # Names have a trace of their own: on a line, plotly.js loses the texts of thinned points.
        names = {"textfont": {"size": 11, "color": th.INK}, "name": "names of sites"}
        figure.add_scatter(mode="text", cliponaxis=False, hoverinfo="text", **names, **under)
        figure.update_layout(yaxis3={"anchor": "x2", "visible": False, "fixedrange": True})
        figure.update_layout(yaxis3_range=[-logo.SITE_LANES + 0.05, 0.3])
    figure.update_layout(
        bargap=0.12,
        margin={"t": 48, "b": 52},
        xaxis={"anchor": "y", "fixedrange": True, "range": [positions[0], positions[-1]]},
        yaxis={"fixedrange": True, "nticks": 4},
        xaxis2={"anchor": "y2", "title_text": FROM_TSS},
        yaxis2={"anchor": "x2", "zeroline": True, "title_text": value_name},
    )
    window = {"type": "rect", "xref": "x", "yref": "y domain", "y0": 0, "y1": 1}
    figure.add_shape(window | {"line": {"color": th.INK, "width": 1.5}})
    tss = {"type": "line", "xref": "x2", "yref": "y2 domain", "x0": -0.5, "x1": -0.5}
    figure.add_shape(tss | {"y0": 0, "y1": 1, "line": th.DOTTED | {"color": th.GREY}})
    figure.add_annotation(PANEL_TITLE | {"y": 1.02})
    return figure.add_annotation(
        xref="paper", yref="y2 domain", x=0.5, y=1, yanchor="top", showarrow=False,
        font={"size": 34, "color": _STAMP}, bgcolor="rgba(255,255,255,0.85)",
    )  # fmt: skip


def _add_substitutions(figure: go.Figure, positions: np.ndarray) -> None:
    """Letters (traces 4 to 7) over the bars, every substitution (8), the strongest (9)."""
    for base in logo.LETTERS:
        # Without a stroke, letters narrower than a pixel fade away.
        colour, look = th.BASE_COLOURS[base], {"fill": "toself", "name": base, "showlegend": False}
        letter = line([], [], colour, width=0.8, fillcolor=colour, xaxis="x2", yaxis="y2", **look)
        figure.add_trace(letter)
    figure.update_traces(opacity=0, textposition="none", selector={"type": "bar"})
    figure.add_heatmap(
        x=np.repeat(positions, 4), y=list("ACGT") * len(positions), xaxis="x2", yaxis="y4",
        name="substitutions", zmid=0, colorscale=th.DIVERGING, hoverongaps=False,
        colorbar={"thickness": 8, "outlinewidth": 0, "nticks": 3,
                  "title": {"text": "log ratio", "side": "right", "font_size": 11}},
        hovertemplate="%{x:+d} bp → %{y}: %{z:.3f}<extra></extra>",
    )  # fmt: skip
    figure.add_table(
        domain={"x": [0, 1]},
        header={"values": ["position", "strongest", "log ratio"], "align": "left"},
        cells={"align": "left", "fill_color": "white", "line_color": th.GRID, "height": 22},
    )
    figure.update_layout(yaxis4={"anchor": "x2", "type": "category", "showgrid": False})

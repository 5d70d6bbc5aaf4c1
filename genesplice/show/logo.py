"""The sequence logo of attributions: letters as polygons, motifs in lanes of their own."""

import html
from collections.abc import Sequence
from typing import Literal

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Integer

from genesplice.errors import InputError
from genesplice.show.theme import (
    BASE_COLOURS,
    GREY,
    GRID,
    INK,
    MUTED,
    NARROW_PX,
    OKABE_ITO,
    blank_figure,
    broken_lines,
    check_finite,
    check_lengths,
    safe,
    short,
)

MotifHit = tuple[int, int, str, float]

MAX_BASES = 20_000  # beyond this a page carries megabytes for letters that no screen resolves
_LABEL_PX, _LANE_PX, _LOGO_PX = 6.6, 34, 250


def _arc(radius: float, first: float, last: float, n_points: int = 17) -> np.ndarray:
    """Points of a circle around the middle of the unit box; angles in degrees."""
    angle = np.deg2rad(np.linspace(first, last, n_points))
    return np.round(0.5 + radius * np.column_stack([np.cos(angle), np.sin(angle)]), 6)


def _fill(*parts: np.ndarray) -> np.ndarray:
    """Join parts of an outline and widen it until it touches both sides of the unit box."""
    outline = np.vstack(parts)
    return outline / [outline[:, 0].max(), 1.0]


_G_BAR = np.array(
    [(0.99, 0.2), (0.99, 0.53), (0.55, 0.53), (0.55, 0.38), (0.81, 0.38), (0.81, 0.3)]
)
# Outlines in the unit box, without holes: the hole of the A hangs on a slit from its apex.
LETTERS: dict[str, np.ndarray] = {
    "A": np.column_stack(
        [
            [0, 0.39, 0.5, 0.5, 0.36, 0.64, 0.5, 0.5, 0.61, 1, 0.79, 0.7, 0.3, 0.21],
            [0, 1, 1, 0.8, 0.37, 0.37, 0.8, 1, 1, 0, 0, 0.22, 0.22, 0],
        ]
    ),
    "C": _fill(_arc(0.5, 36.0, 324.0), _arc(0.31, 324.0, 36.0)),
    "G": _fill(_arc(0.5, 36.0, 324.0), _G_BAR, _arc(0.31, 320.0, 36.0)),
    "T": np.array(
        [(0, 1), (1, 1), (1, 0.83), (0.6, 0.83), (0.6, 0), (0.4, 0), (0.4, 0.83), (0, 0.83)]
    ),
}
_BOX = np.array([(0, 0), (0, 1), (1, 1), (1, 0)])


def _glyphs(
    outline: np.ndarray, left: np.ndarray, width: float, height: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Place one outline many times: x (float64) and y of polygons kept apart by NaN."""
    x = left[:, None] + width * outline[None, :, 0]
    y = height[:, None] * outline[None, :, 1]
    gap = np.full((len(left), 1), np.nan)
    return (
        np.hstack([x, gap]).ravel(),
        np.hstack([y, gap]).ravel().astype(np.float32),
    )


def label_lanes(
    spans: Sequence[tuple[float, float]],
    labels: Sequence[str],
    window: tuple[float, float],
    width_px: float = NARROW_PX,
) -> tuple[list[int], list[float]]:
    """Give each labelled box a lane and its label a place so that nothing overlaps.

    Boxes are taken from left to right and put into the first lane in which both the box and its
    label, at the size it has when `window` is `width_px` pixels wide, are free. Labels are
    centred on their box and pushed inside the window where they would leave it.

    Parameters
    ----------
    spans
        Left and right end of each box, in the unit of `window`.
    labels
        One text per box, before escaping.
    window
        Left and right end of what is shown.
    width_px
        Pixels that the window has on the narrowest screen that matters.

    Returns
    -------
    Lanes from 0 on, and the x of each label's middle, in the order of `spans`.
    """
    per_px = (window[1] - window[0]) / width_px
    lanes, middles = [0] * len(spans), [0.0] * len(spans)
    free_from: list[float] = []
    for i in sorted(range(len(spans)), key=lambda i: (*spans[i], labels[i])):
        half = (len(labels[i]) * _LABEL_PX / 2 + 3) * per_px
        middle = sum(spans[i]) / 2
        middles[i] = min(max(middle, window[0] + half), max(window[1] - half, window[0] + half))
        left, right = min(spans[i][0], middles[i] - half), max(spans[i][1], middles[i] + half)
        lane = next((n for n, end in enumerate(free_from) if end <= left), len(free_from))
        if lane == len(free_from):
            free_from.append(right)
        free_from[lane] = right
        lanes[i] = lane
    return lanes, middles


def _clip(start: int, end: int, window: tuple[float, float]) -> tuple[float, float] | None:
    """Part of a 0-based half-open interval inside the window, drawn around base centres."""
    left, right = max(start - 0.5, window[0]), min(end - 0.5, window[1])
    return (left, right) if left < right else None


def _add_gene(
    figure: go.Figure,
    window: tuple[float, float],
    tss: int | None,
    body: tuple[int, int] | None,
    strand: str,
    gene: str,
) -> None:
    """Draw gene body and transcription start into lane 0 (y from -0.5 to 0.5) of the lower axis."""
    shown = None if body is None else _clip(*body, window)
    if body is not None and shown is not None:
        figure.add_scatter(
            x=np.array([shown[0], shown[0], shown[1], shown[1], shown[0]]),
            y=np.array([-0.3, 0.05, 0.05, -0.3, -0.3]),
            yaxis="y2",
            mode="lines",
            fill="toself",
            fillcolor="#DDDDDD",
            line={"color": MUTED, "width": 1},
            hoveron="fills",
            name=f"{safe(gene) or 'gene'}: {body[0]:,}-{body[1]:,} bp, {strand} strand",
            hoverinfo="name",
            hoverlabel={"namelength": -1},
            showlegend=False,
        )
        _, middles = label_lanes([shown], [gene[:24]], window)
        figure.add_scatter(
            x=np.array(middles),
            y=np.array([-0.125]),
            yaxis="y2",
            mode="text",
            text=[f"<i>{short(gene, 24)}</i>"],
            textfont={"size": 12, "color": INK},
            hoverinfo="skip",
            showlegend=False,
        )
    if tss is not None and window[0] <= tss <= window[1]:
        direction = -1.0 if strand == "-" else 1.0
        tip = tss + direction * 0.05 * (window[1] - window[0])
        figure.add_scatter(
            x=np.array([tss, tss, tip], dtype=np.float64),
            y=np.array([-0.3, 0.4, 0.4]),
            yaxis="y2",
            mode="lines+markers",
            line={"color": INK, "width": 1.5},
            marker={
                "color": INK,
                "size": [0, 0, 9],
                "opacity": 1,
                "symbol": "triangle-left" if strand == "-" else "triangle-right",
            },
            hovertext=f"TSS at {tss:,} bp",
            hoverinfo="text",
            showlegend=False,
        )
        figure.add_vline(x=float(tss), line={"color": MUTED, "width": 1, "dash": "dot"})


def _add_motifs(
    figure: go.Figure,
    window: tuple[float, float],
    hits: Sequence[MotifHit],
    first_lane: int,
) -> int:
    """Draw motif boxes with their labels from `first_lane` downwards; return the lanes used."""
    clipped = [_clip(hit[0], hit[1], window) for hit in hits]
    spans = [span for span in clipped if span is not None]
    shown = [hit for hit, span in zip(hits, clipped, strict=True) if span is not None]
    if not shown:
        return 0
    names = [short(hit[2], 24) for hit in shown]
    lanes, middles = label_lanes(spans, [html.unescape(name) for name in names], window)
    left, right = np.array(spans).T
    top = -(np.array(lanes, dtype=np.float64) + first_lane) + 0.42
    bottom = top - 0.3
    figure.add_scatter(
        x=broken_lines(left, left, right, right, left),
        y=broken_lines(bottom, top, top, bottom, bottom),
        yaxis="y2",
        mode="lines",
        fill="toself",
        fillcolor="#CC79A7",
        line={"color": "#8C3F68", "width": 1},
        hoverinfo="skip",
        name="motif",
        showlegend=False,
    )
    figure.add_scatter(
        x=np.array(middles),
        y=bottom - 0.27,
        yaxis="y2",
        mode="text",
        text=names,
        textfont={"size": 11, "color": INK},
        hovertext=[
            f"<b>{safe(name)}</b><br>{start:,}-{end:,} bp<br>score {score:.3g}"
            for start, end, name, score in shown
        ],
        hoverinfo="text",
        showlegend=False,
    )
    return max(lanes) + 1


def attribution_logo(
    attributions: Float[np.ndarray, "length 4"],
    tokens: Integer[np.ndarray, " _"],
    start: int = 0,
    *,
    coordinates: Literal["tss", "genome"] = "tss",
    contig: str = "",
    tss: int | None = None,
    gene_body: tuple[int, int] | None = None,
    strand: Literal["+", "-"] = "+",
    gene: str = "",
    motifs: Sequence[MotifHit] = (),
    max_motifs: int = 30,
    max_letters: int = 1_000,
    unit: str = "log₂(TPM+1)",
    title: str = "Attributions",
) -> go.Figure:
    """Draw attributions as a logo: the base that is there, as high as its attribution.

    Each letter is a polygon centred on its position, four filled traces in the order A C G T, so
    that a zoom stays sharp; negative ones hang upside down. More than `max_letters` bases are
    bars in two colours by sign, as their letters could not be told apart. Below: the gene body,
    its start as a bent arrow, and motif hits in as many lanes as labels need on a narrow screen.

    Parameters
    ----------
    attributions
        One row a base, columns A C G T. Only the column of the base that is there is drawn.
    tokens
        The bases: A=0 C=1 G=2 T=3; N=4 leaves its place empty.
    start
        Position of the first base; row i stands at ``start + i``.
    coordinates
        What positions count from: the TSS (then `tss` is 0 unless given) or the 0-based genome
        coordinate on `contig`. All other positions are in the same coordinate.
    gene_body, motifs
        0-based half-open intervals; what lies outside the window is not drawn. Of more hits than
        `max_motifs` the highest scores are kept, and the subtitle says so.
    strand
        Direction of the gene on this axis. For attributions read along the gene it is "+".
    unit
        Unit of the attributions.

    Raises
    ------
    InputError
        No bases or more than 20,000, tokens of another length or beyond 4, attributions that are
        not finite, a motif or gene body that ends where it starts, a motif score not finite.
    """
    values = check_finite(attributions, "attributions")
    check_lengths(len(tokens), "tokens", len(values), "attributions")
    if len(values) > MAX_BASES:
        raise InputError(f"{len(values):,} bases of attributions", f"at most {MAX_BASES:,}")
    if tokens.min() < 0 or tokens.max() > 4:
        raise InputError(f"tokens from {tokens.min()} to {tokens.max()}", "0 to 4 (A C G T N)")
    if bad := [hit for hit in motifs if hit[1] <= hit[0]]:
        raise InputError(f"motif {bad[0][2]!r} from {bad[0][0]} to {bad[0][1]}", "end > start")
    if motifs:
        check_finite([hit[3] for hit in motifs], "motif score")
    if gene_body is not None and gene_body[1] <= gene_body[0]:
        raise InputError(f"gene body from {gene_body[0]} to {gene_body[1]}", "end > start")
    tss = 0 if tss is None and coordinates == "tss" else tss
    window = (start - 0.5, start + len(values) - 0.5)
    x = start + np.arange(len(values), dtype=np.float64)
    is_known = tokens < 4
    height = np.where(is_known, values[np.arange(len(values)), np.minimum(tokens, 3)], 0.0)

    by_score = sorted(motifs, key=lambda hit: (-hit[3], hit[0], hit[1], hit[2]))[:max_motifs]
    left_out = f"{len(by_score)} of {len(motifs)} motif hits, the highest scores"
    figure = blank_figure(
        _LOGO_PX, title, left_out if len(by_score) < len(motifs) else "", hovermode="x"
    )
    if len(values) <= max_letters:
        drawn = [
            (base, LETTERS[base], BASE_COLOURS[base], tokens == token)
            for token, base in enumerate("ACGT")
        ]
    else:
        drawn = [
            ("raises the prediction", _BOX, OKABE_ITO[0], height > 0),
            ("lowers it", _BOX, OKABE_ITO[3], height < 0),
        ]
    for name, outline, colour, is_part in drawn:
        at = np.flatnonzero(is_part & (height != 0))
        glyph_x, glyph_y = _glyphs(outline, x[at] - 0.45, 0.9, height[at])
        figure.add_scatter(
            name=name,
            x=glyph_x,
            y=glyph_y,
            mode="lines",
            fill="toself",
            fillcolor=colour,
            # Without a stroke, letters narrower than a pixel fade away.
            line={"width": 0.8, "color": colour},
            hoverinfo="skip",
        )
    figure.add_scatter(
        x=x,
        y=height.astype(np.float32),
        mode="lines",
        line={"width": 0},
        text=list("".join("ACGTN"[token] for token in tokens)),
        hovertemplate=f"%{{x:,}} bp, %{{text}}<br>%{{y:.3g}} {safe(unit)}<extra></extra>",
        showlegend=False,
    )
    has_gene = tss is not None or gene_body is not None
    if has_gene:
        _add_gene(figure, window, tss, gene_body, strand, gene)
    n_lanes = int(has_gene) + _add_motifs(figure, window, by_score, int(has_gene))
    _arrange(figure, n_lanes)
    place = "position from the TSS"
    if coordinates == "genome":
        place = f"position on {short(contig, 20)}" if contig else "position"
    figure.update_xaxes(
        title={"text": f"{place} (bp, 0-based)"},
        range=list(window),
        tickformat=",d",
        nticks=7,
        showgrid=False,
    )
    figure.update_layout(yaxis={"title": {"text": f"attribution, {short(unit, 20)}"}})
    figure.add_shape(
        type="line", x0=0, x1=1, xref="x domain", y0=0, y1=0, line={"color": INK, "width": 1}
    )
    return figure


def _arrange(figure: go.Figure, n_lanes: int) -> None:
    """Stack logo and lanes: every lane has the same number of pixels, the figure grows."""
    lanes_px = n_lanes * _LANE_PX
    gap_px = 10 if n_lanes else 0
    plot_px = _LOGO_PX + lanes_px + gap_px
    figure.update_layout(height=plot_px + figure.layout.margin.t + 90)
    figure.update_layout(
        yaxis={"domain": [(lanes_px + gap_px) / plot_px, 1.0], "gridcolor": GRID},
        yaxis2={
            "domain": [0.0, lanes_px / plot_px if n_lanes else 0.0],
            "range": [-n_lanes + 0.5, 0.5],
            "visible": False,
            "fixedrange": True,
        },
        xaxis={"anchor": "y2" if n_lanes else "y", "linecolor": GREY},
    )

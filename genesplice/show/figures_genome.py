"""Figures along the genome: expression, folds, and the sequence logo of attributions."""

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float, Integer

from genesplice.errors import InputError
from genesplice.show.theme import (
    BASE_COLOURS,
    BLUE,
    COLOURS,
    GREY,
    INK,
    MUTED,
    NARROW_PX,
    PURPLE,
    VERMILLION,
    blank_figure,
    broken_lines,
    name_rows,
    require_series,
    require_table,
    row_texts,
    safe,
    short,
    text_on,
)

MAX_BASES = 20_000  # beyond this a page carries megabytes for letters that no screen resolves
_RING_LABELS_MAX = 80  # blocks that a ring still has room to number on a narrow screen
_LABEL_PX, _LANE_PX, _LOGO_PX = 6.6, 34, 250


def _natural(name: object) -> list[tuple[int, int, str]]:
    """Sort key that puts chr2 before chr10."""
    parts = re.split(r"(\d+)", str(name))
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def _round_step(least: float) -> float:
    """Smallest of 1, 2, 5 times a power of ten that is `least` or more."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))


def expression_map(
    genes: pd.DataFrame,
    level: pd.Series,
    fold: pd.Series | None = None,
    *,
    n_windows: int = 100,
    title: str = "Expression along the genome",
) -> go.Figure:
    """Draw each gene as a bar at its locus: height is its level, + strand up, − strand down.

    A bar is as wide as the gene, so zooming in shows gene bodies. The dark lines are means over
    the genes of each window, per strand. Genes of the table that have no level are left out and
    counted in the subtitle. Neither the order of rows nor of `level` changes the figure.

    Parameters
    ----------
    genes
        Columns gene_id, name, contig, start, end, strand (0-based half-open). Contigs are laid
        end to end in natural order (chr2 before chr10), each as long as its last gene reaches.
    level
        log2(TPM+1) by gene_id, not negative: downwards means the − strand here.
    fold
        Fold by gene_id: one trace a fold. Without it one trace a strand.
    n_windows
        Windows of equal length for the means; 0 draws no lines.

    Raises
    ------
    InputError
        Levels that are negative, not finite, repeated, or of genes that the table or `fold`
        does not have.
    """
    columns = ["gene_id", "name", "contig", "start", "end", "strand"]
    require_table(genes, "genes", columns, unique=["gene_id"])
    level = require_series(level, "level")
    if (level < 0).any():
        raise InputError(f"{int((level < 0).sum()):,} negative values of level", "log2(TPM+1) >= 0")
    word, by = ("strand", genes.set_index("gene_id")["strand"]) if fold is None else ("fold", fold)
    if not by.index.is_unique or n_windows < 0:
        raise InputError(
            f"{n_windows} windows, {word} by {len(by):,} genes", "0 or more, each once"
        )
    for what, known in (("genes", genes["gene_id"]), (word, by.dropna().index)):
        if n_unknown := int((~level.index.isin(known)).sum()):
            raise InputError(f"{n_unknown:,} of {len(level):,} genes of level not in {what}", "0")
    lengths = genes.groupby("contig")["end"].max().astype(np.float64)
    lengths = lengths.loc[sorted(lengths.index, key=_natural)]
    offsets, total = lengths.cumsum() - lengths, float(lengths.sum())
    table = genes.set_index("gene_id").loc[level.index].rename_axis("gene_id").reset_index()
    table = table.assign(
        level=level.to_numpy(),
        x=table["start"] + table["contig"].map(offsets),
        height=level.to_numpy() * np.where(table["strand"] == "-", -1.0, 1.0),
        group=by.loc[level.index].to_numpy(),
    )
    table = table.sort_values(["x", "end", "gene_id"], kind="stable")
    count = f"{len(level):,} of {len(genes):,} genes have a level"
    subtitle = f"{count}; bars up are on the + strand, bars down on the − strand"
    figure = blank_figure(340, title, subtitle, barmode="overlay", bargap=0)
    about = "<b>{name}</b> ({gene_id})<br>{contig}:{start:,}-{end:,} bp, {strand}<br>{level:.2f}"
    for i, (group, part) in enumerate(table.groupby("group", sort=True)):
        figure.add_bar(
            name=f"{word} {safe(group)}", offset=0, x=part["x"].to_numpy(np.float64),
            width=(part["end"] - part["start"]).to_numpy(np.float64),
            y=part["height"].to_numpy(np.float32), hovertext=row_texts(part, about),
            marker={"color": COLOURS[i % len(COLOURS)], "line_width": 0},
            hovertemplate=f"%{{hovertext}} log₂(TPM+1), {word} {safe(group)}<extra></extra>",
        )  # fmt: skip
    edges = np.linspace(0.0, total, n_windows + 1)
    window = np.minimum(np.searchsorted(edges, table["x"], side="right"), n_windows) - 1
    for strand in "+-" if n_windows else "":
        on_strand = (table["strand"] == "-").to_numpy() == (strand == "-")
        means = table["height"][on_strand].groupby(window[on_strand]).mean()
        figure.add_scatter(
            name=f"mean, {strand} strand", x=((edges[:-1] + edges[1:]) / 2)[means.index],
            y=means.to_numpy(np.float32), mode="lines", line={"color": INK, "width": 1.5},
            showlegend=False, hoverinfo="skip",
        )  # fmt: skip
    names = [short(name, 20) for name in lengths.index]
    figure.update_xaxes(range=[0.0, total], showgrid=False, title_text="contigs end to end")
    if len(names) == 1:
        text = f"position on {names[0]} (bp, 0-based)"
        figure.update_xaxes(title_text=text, tickformat="~s", nticks=8)
    else:
        figure.update_xaxes(tickvals=(offsets + lengths / 2).tolist(), ticktext=names)
    for border in offsets.iloc[1:]:
        figure.add_vline(x=float(border), line={"color": GREY, "width": 1, "dash": "dot"})
    step = _round_step(max(float(level.max()), 1.0) / 4)
    marks = np.arange(0, float(level.max()) + 1e-9, step)
    ticks = np.concatenate([-marks[:0:-1], marks])
    figure.update_yaxes(tickvals=ticks, ticktext=[f"{abs(tick):g}" for tick in ticks])
    figure.update_yaxes(title_text="level, log₂(TPM+1)", zeroline=True, zerolinecolor=INK)
    return figure


def fold_map(
    blocks: pd.DataFrame, *, is_circular: bool = False, title: str = "Folds along the genome"
) -> go.Figure:
    """Draw the blocks of the split in the colour of their fold, a bar for each contig.

    A single circular contig is a ring that starts at the top and runs clockwise; one with
    more than 80 blocks shows numbers on hover only. The order of rows does not matter.

    Parameters
    ----------
    blocks
        Columns block, contig, start, end, fold (bp, 0-based half-open). A block across the origin
        of a circular contig has its end beyond the contig's length.

    Raises
    ------
    InputError
        Missing columns, no rows, a block without a fold, or one that ends where it starts.
    """
    columns = ["block", "contig", "start", "end", "fold"]
    require_table(blocks, "blocks", columns)
    if n_empty := int((blocks["end"] <= blocks["start"]).sum()):
        raise InputError(f"{n_empty:,} of {len(blocks):,} blocks without a base", "end > start")
    if n_lost := int(blocks["fold"].isna().sum()):
        raise InputError(f"{n_lost:,} of {len(blocks):,} blocks without a fold", "0")
    table = blocks.sort_values(["contig", "start", "block"], kind="stable")
    table = table.assign(length=(table["end"] - table["start"]).astype(np.float64))
    contigs = sorted(table["contig"].unique(), key=_natural)
    is_ring = is_circular and len(contigs) == 1
    n_folds, total = table["fold"].nunique(), table["length"].sum()
    subtitle = f"{len(table):,} blocks, {n_folds:,} folds, {total / 1e6:,.2f} Mb"
    body_px = 420 if is_ring else 140 + 34 * len(contigs)
    figure = blank_figure(body_px, title, subtitle, barmode="overlay")
    figure.update_layout(uniformtext={"minsize": 9, "mode": "hide"})
    degrees = 360 / float(table["end"].max() - table["start"].min())
    for i, (fold, part) in enumerate(table.groupby("fold", sort=True)):
        colour = COLOURS[i % len(COLOURS)]
        start, length = part["start"].to_numpy(np.float64), part["length"].to_numpy()
        middle = (start + length / 2) * degrees
        about = "block {block}, fold {fold}<br>{contig}:{start:,}-{end:,} bp"
        shared: dict[str, Any] = {"name": f"fold {safe(fold)}", "hoverinfo": "text"}
        shared |= {"hovertext": row_texts(part, about)}
        shared |= {"marker": {"color": colour, "line": {"color": "white", "width": 1}}}
        if is_ring:
            width = length * degrees
            figure.add_barpolar(r=np.ones(len(part)), theta=middle, width=width, **shared)
            if len(table) <= _RING_LABELS_MAX:
                figure.add_scatterpolar(
                    r=np.full(len(part), 0.85), theta=middle, mode="text",
                    text=[f"<b>{safe(fold)}</b>"] * len(part), hoverinfo="skip", showlegend=False,
                    textfont={"color": text_on(colour), "size": 11},
                )  # fmt: skip
        else:
            figure.add_bar(
                orientation="h", base=start, x=length, width=0.7, text=[safe(fold)] * len(part),
                y=part["contig"].map(contigs.index).to_numpy(np.float64), textposition="inside",
                insidetextanchor="middle", textangle=0,
                insidetextfont={"color": text_on(colour)}, **shared,
            )  # fmt: skip
    if not is_ring:
        span = [min(0.0, float(table["start"].min())), float(table["end"].max())]
        text = "position on the contig (bp, 0-based)"
        figure.update_xaxes(title_text=text, tickformat="~s", nticks=8, range=span)
        name_rows(figure, [short(contig, 20) for contig in contigs])
        return figure
    ticks = np.arange(0, 360 / degrees, _round_step(36 / degrees))
    figure.update_polars(
        domain={"x": [0.08, 0.92], "y": [0.07, 0.93]}, hole=0.55,
        radialaxis={"visible": False, "range": [0, 1]},
        angularaxis={"direction": "clockwise", "rotation": 90, "showgrid": False,
                     "tickfont": {"size": 12, "color": MUTED}, "linecolor": GREY},
    )  # fmt: skip
    names = [f"{tick / 1e6:g}" for tick in ticks]
    figure.update_polars(angularaxis={"tickvals": ticks * degrees, "ticktext": names})
    return figure.add_annotation(
        text=f"{short(contigs[0], 20)}<br>position in Mb", x=0.5, y=0.5, xref="paper",
        yref="paper", showarrow=False, font={"size": 13, "color": MUTED},
    )  # fmt: skip


def _arc(radius: float, first: float, last: float, n_points: int = 17) -> np.ndarray:
    """Points of a circle around the middle of the unit square; angles in degrees."""
    angle = np.deg2rad(np.linspace(first, last, n_points))
    return np.round(0.5 + radius * np.column_stack([np.cos(angle), np.sin(angle)]), 6)


def _fill(*parts: np.ndarray) -> np.ndarray:
    """Join parts of an outline and widen it until it touches both sides of the unit square."""
    outline = np.vstack(parts)
    return outline / [outline[:, 0].max(), 1.0]


_A = [[0, 0.39, 0.5, 0.5, 0.36, 0.64, 0.5, 0.5, 0.61, 1, 0.79, 0.7, 0.3, 0.21]]
_A += [[0, 1, 1, 0.8, 0.37, 0.37, 0.8, 1, 1, 0, 0, 0.22, 0.22, 0]]
_G_BAR = [[0.99, 0.99, 0.55, 0.55, 0.81, 0.81], [0.2, 0.53, 0.53, 0.38, 0.38, 0.3]]
_T = [[0, 1, 1, 0.6, 0.6, 0.4, 0.4, 0], [1, 1, 0.83, 0.83, 0, 0, 0.83, 0.83]]
# Outlines in the unit square, without holes: the hole of the A hangs on a slit from its apex.
LETTERS = {
    "A": np.array(_A).T,
    "C": _fill(_arc(0.5, 36.0, 324.0), _arc(0.31, 324.0, 36.0)),
    "G": _fill(_arc(0.5, 36.0, 324.0), np.array(_G_BAR).T, _arc(0.31, 320.0, 36.0)),
    "T": np.array(_T).T,
}
_SQUARE = np.array([(0, 0), (0, 1), (1, 1), (1, 0)])


def _glyphs(outline: np.ndarray, middle: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, ...]:
    """Set one outline many times: x (float64) and y of polygons kept apart by NaN."""
    gap = np.full((len(middle), 1), np.nan)
    x = middle[:, None] - 0.45 + 0.9 * outline[:, 0]
    y = height[:, None] * outline[:, 1]
    return np.hstack([x, gap]).ravel(), np.hstack([y, gap]).ravel().astype(np.float32)


def letter_paths(
    x: np.ndarray, tokens: np.ndarray, height: np.ndarray
) -> dict[str, tuple[np.ndarray, ...]]:
    """Polygons of the letters A C G T: x and y of each base that is there and is not 0 high."""
    at = {base: np.flatnonzero((tokens == i) & (height != 0)) for i, base in enumerate(LETTERS)}
    return {base: _glyphs(LETTERS[base], x[mine], height[mine]) for base, mine in at.items()}


def site_lanes(
    low: Iterable[float], high: Iterable[float], n_lanes: int | None = None
) -> list[int]:
    """Give each interval, sorted by its low end, the first lane in which it is free.

    With `n_lanes` there are no more of them: where all are taken, the one that is free first.
    """
    free, lanes = [-math.inf] * (n_lanes or 0), []
    for left, right in zip(low, high, strict=True):
        lane = next((n for n, end in enumerate(free) if end <= left), len(free))
        if lane == len(free):
            lane = int(np.argmin(free)) if n_lanes else lane
            free += [] if n_lanes else [-math.inf]
        free[lane] = right
        lanes.append(lane)
    return lanes


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
    motifs: Sequence[tuple[int, int, str, float]] = (),
    max_motifs: int = 30,
    max_letters: int = 1_000,
    unit: str = "log₂(TPM+1)",
    title: str = "Attributions",
) -> go.Figure:
    """Draw attributions as a logo: the base that is there, as high as its attribution.

    Each letter is a polygon centred on its position, so that a zoom stays sharp; negative ones
    hang upside down. More than `max_letters` bases are bars in two colours by sign, as their
    letters could not be told apart. Below: the gene body, its start as a bent arrow, and motif
    hits in as many lanes as labels need on a narrow screen.

    Parameters
    ----------
    attributions
        One row a base, columns A C G T. Only the column of the base that is there is drawn.
    tokens
        The bases: A=0 C=1 G=2 T=3; N=4 is left empty.
    start
        Position of the first base; row i stands at ``start + i``.
    coordinates
        What positions count from: the TSS (then `tss` is 0 unless given) or the 0-based genome
        coordinate on `contig`. All other positions are in the same coordinate.
    gene_body, motifs
        0-based half-open intervals (a motif with name and score); what lies outside the window is
        not drawn. Of more hits than `max_motifs` the highest scores are kept, and the subtitle
        says so.
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
    if not 1 <= len(attributions) == len(tokens) <= MAX_BASES:
        found = f"{len(attributions):,} bases of attributions and {len(tokens):,} tokens"
        raise InputError(found, f"1 to {MAX_BASES:,}, as many of both")
    if not np.isfinite(attributions).all():
        raise InputError("attributions that are not finite", "numbers")
    if tokens.min() < 0 or tokens.max() > 4:
        raise InputError(f"tokens from {tokens.min()} to {tokens.max()}", "0 to 4 (A C G T N)")
    hits = pd.DataFrame(list(motifs), columns=["start", "end", "name", "score"])
    spans = [(*hit[:3],) for hit in motifs]
    spans += [] if gene_body is None else [(*gene_body, "the gene")]
    if bad := [span for span in spans if span[1] <= span[0]]:
        raise InputError(f"{bad[0][2]!r} from {bad[0][0]} to {bad[0][1]}", "end > start")
    if not np.isfinite(hits["score"].astype(float)).all():
        raise InputError("a motif score that is not finite", "numbers")
    tss = 0 if tss is None and coordinates == "tss" else tss
    window = (start - 0.5, start + len(tokens) - 0.5)
    x = start + np.arange(len(tokens), dtype=np.float64)
    height = np.pad(attributions, ((0, 0), (0, 1)))[np.arange(len(tokens)), tokens]
    kept = hits.sort_values(["score", "start", "end", "name"], ascending=[False, True, True, True])
    kept = kept.head(max_motifs)
    left_out = f"{len(kept)} of {len(hits)} motif hits, the highest scores"
    subtitle = left_out if len(kept) < len(hits) else ""
    if len(tokens) <= max_letters:
        drawn = {
            base: (BASE_COLOURS[base], path)
            for base, path in letter_paths(x, tokens, height).items()
        }
    else:
        drawn = {
            name: (colour, _glyphs(_SQUARE, x[sign * height > 0], height[sign * height > 0]))
            for name, colour, sign in (
                ("raises the prediction", BLUE, 1), ("lowers it", VERMILLION, -1)
            )
        }  # fmt: skip
    figure = blank_figure(_LOGO_PX, title, subtitle, hovermode="x")
    for name, (colour, path) in drawn.items():
        # Without a stroke, letters narrower than a pixel fade away.
        figure.add_scatter(
            name=name, x=path[0], y=path[1], mode="lines", fill="toself", fillcolor=colour,
            line={"width": 0.8, "color": colour}, hoverinfo="skip",
        )  # fmt: skip
    figure.add_scatter(
        x=x, y=height.astype(np.float32), mode="lines", line={"width": 0}, showlegend=False,
        text=["ACGTN"[token] for token in tokens],
        hovertemplate=f"%{{x:,}} bp, %{{text}}<br>%{{y:.3g}} {safe(unit)}<extra></extra>",
    )  # fmt: skip
    has_gene = int(tss is not None or gene_body is not None)
    if has_gene:
        _add_gene(figure, window, tss, gene_body, strand, gene)
    n_lanes = has_gene + _add_motifs(figure, window, kept, has_gene)
    lanes_px = n_lanes * (_LANE_PX) + (10 if n_lanes else 0)
    top = (lanes_px - 10) / (_LOGO_PX + lanes_px) if n_lanes else 0.0
    under = {"domain": [0.0, top], "range": [0.5 - n_lanes, 0.5], "visible": False}
    where = "position from the TSS"
    if coordinates == "genome":
        where = f"position on {short(contig, 20)}" if contig else "position"
    figure.update_layout(
        height=_LOGO_PX + lanes_px + figure.layout.margin.t + 90,
        yaxis={"domain": [lanes_px / (_LOGO_PX + lanes_px), 1.0], "zeroline": True},
        yaxis_title_text=f"attribution, {short(unit, 20)}",
        yaxis_zerolinecolor=INK, yaxis2={**under, "fixedrange": True},
        xaxis={"anchor": "y2" if n_lanes else "y", "range": window, "tickformat": ",d"},
    )  # fmt: skip
    return figure.update_xaxes(title_text=f"{where} (bp, 0-based)", nticks=7, showgrid=False)


def _add_gene(
    figure: go.Figure,
    window: tuple[float, float],
    tss: int | None,
    body: tuple[int, int] | None,
    strand: str,
    gene: str,
) -> None:
    """Draw gene body and transcription start into lane 0 (y from -0.5 to 0.5) of the lower axis."""
    low, high = np.clip(np.array(body or (0, 0)) - 0.5, *window)
    if low < high and body:
        name = f"{safe(gene) or 'gene'}: {body[0]:,}-{body[1]:,} bp, {strand} strand"
        figure.add_scatter(
            x=np.array([low, low, high, high, low]), y=np.array([-0.3, 0.05, 0.05, -0.3, -0.3]),
            yaxis="y2", mode="lines", fill="toself", fillcolor="#DDDDDD", showlegend=False,
            line={"color": MUTED, "width": 1}, hoveron="fills", name=name, hoverinfo="name",
            hoverlabel={"namelength": -1},
        )  # fmt: skip
        half = (min(len(gene), 24) * _LABEL_PX / 2 + 3) * (window[1] - window[0]) / NARROW_PX
        middle = np.clip(
            (low + high) / 2, window[0] + half, max(window[1] - half, window[0] + half)
        )
        figure.add_scatter(
            x=np.array([middle]), y=np.array([-0.125]), yaxis="y2", mode="text", hoverinfo="skip",
            text=[f"<i>{short(gene, 24)}</i>"], textfont={"size": 12}, showlegend=False,
        )  # fmt: skip
    if tss is not None and window[0] <= tss <= window[1]:
        direction, symbol = (-1, "triangle-left") if strand == "-" else (1, "triangle-right")
        tip = tss + direction * 0.05 * (window[1] - window[0])
        figure.add_scatter(
            x=np.array([tss, tss, tip], dtype=np.float64), y=np.array([-0.3, 0.4, 0.4]),
            yaxis="y2", mode="lines+markers", line={"color": INK, "width": 1.5}, showlegend=False,
            marker={"color": INK, "size": [0, 0, 9], "opacity": 1, "symbol": symbol},
            hovertext=f"TSS at {tss:,} bp", hoverinfo="text", name="TSS",
        )  # fmt: skip
        figure.add_vline(x=float(tss), line={"color": MUTED, "width": 1, "dash": "dot"})


def _add_motifs(
    figure: go.Figure, window: tuple[float, float], hits: pd.DataFrame, first_lane: int
) -> int:
    """Draw motif hits with their labels from `first_lane` downwards; return the lanes used."""
    edges = [hits[end].to_numpy(np.float64) - 0.5 for end in ("start", "end")]
    hits = hits.assign(low=edges[0].clip(*window), high=edges[1].clip(*window))
    hits = hits[hits["low"] < hits["high"]].sort_values(["low", "high", "name"], kind="stable")
    if hits.empty:
        return 0
    names = [short(name, 24) for name in hits["name"]]
    low, high = hits["low"].to_numpy(), hits["high"].to_numpy()
    per_px = (window[1] - window[0]) / NARROW_PX
    half = np.array([len(html.unescape(name)) * _LABEL_PX / 2 + 3 for name in names]) * per_px
    left = window[0] + half
    middle = np.clip((low + high) / 2, left, np.maximum(window[1] - half, left))
    ends = np.minimum(low, middle - half), np.maximum(high, middle + half)
    order = np.argsort(ends[0], kind="stable")
    lanes = np.empty(len(hits))
    lanes[order] = site_lanes(ends[0][order], ends[1][order])
    top = 0.42 - lanes - first_lane
    figure.add_scatter(
        x=broken_lines(low, low, high, high, low), yaxis="y2", mode="lines", fill="toself",
        y=broken_lines(top - 0.3, top, top, top - 0.3, top - 0.3), fillcolor=PURPLE,
        line={"color": "#8C3F68", "width": 1}, hoverinfo="skip", name="motif", showlegend=False,
    )  # fmt: skip
    about = "<b>{name}</b><br>{start:,}-{end:,} bp<br>score {score:.3g}"
    figure.add_scatter(
        x=middle, y=top - 0.57, yaxis="y2", mode="text", text=names, hoverinfo="text",
        textfont={"size": 11}, hovertext=row_texts(hits, about), name="motif names", showlegend=False,
    )  # fmt: skip
    return int(lanes.max()) + 1

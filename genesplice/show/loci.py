"""Figures along the whole genome: expression gene by gene, and folds block by block."""

import math
import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError
from genesplice.show.theme import (
    GREY,
    INK,
    MUTED,
    OKABE_ITO,
    blank_figure,
    check_columns,
    check_lengths,
    check_series,
    safe,
    short,
    text_on,
)

_RING_LABELS_MAX = 80  # blocks that a ring still has room to number on a narrow screen


def _natural(name: object) -> list[tuple[int, int, str]]:
    """Sort key that puts chr2 before chr10."""
    parts = re.split(r"(\d+)", str(name))
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def _lay_out(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Offset and length (bp) per contig when contigs are laid end to end in natural order."""
    lengths = table.groupby("contig")["end"].max()
    lengths = lengths.loc[sorted(lengths.index, key=_natural)].astype(np.float64)
    return lengths.cumsum() - lengths, lengths


def _position_axis(offsets: pd.Series, lengths: pd.Series) -> dict[str, object]:
    """Describe the x axis for contigs laid end to end: bases for one, names for several."""
    end = float(lengths.sum())
    if len(lengths) == 1:
        name = short(lengths.index[0], 20)
        return {
            "title": {"text": f"position on {name} (bp, 0-based)"},
            "tickformat": "~s",
            "range": [0.0, end],
            "nticks": 8,
        }
    return {
        "title": {"text": "contigs end to end"},
        "tickmode": "array",
        "tickvals": (offsets + lengths / 2).tolist(),
        "ticktext": [short(name, 20) for name in lengths.index],
        "range": [0.0, end],
    }


def _round_step(least: float) -> float:
    """Smallest of 1, 2, 5 times a power of ten that is `least` or more."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))


def _level_ticks(top: float) -> tuple[list[float], list[str]]:
    """Ticks for a mirrored axis: the same numbers upwards and downwards."""
    step = _round_step(max(top, 1.0) / 4)
    marks = np.arange(0, top + 1e-9, step)
    values = [*(-marks[:0:-1]), *marks]
    return [float(v) for v in values], [f"{abs(v):g}" for v in values]


def expression_map(
    genes: pd.DataFrame,
    level: pd.Series,
    fold: pd.Series | None = None,
    *,
    n_windows: int = 100,
    title: str = "Expression along the genome",
) -> go.Figure:
    """Draw each gene as a bar at its place: height is its level, + strand up, − strand down.

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
    check_columns(genes, ("gene_id", "name", "contig", "start", "end", "strand"), "genes")
    level = check_series(level, "level")
    if (level < 0).any():
        raise InputError(f"{int((level < 0).sum()):,} negative values of level", "log2(TPM+1) >= 0")
    if genes["gene_id"].duplicated().any():
        n_unique = genes["gene_id"].nunique()
        raise InputError(f"{n_unique:,} different gene_id in genes", f"{len(genes):,}, all unique")
    if n_windows < 0:
        raise InputError(f"{n_windows} windows", "0 or more")
    known_ids = {"genes": genes["gene_id"]}
    if fold is not None:
        check_lengths(fold.index.nunique(), "different gene_id in fold", len(fold), "its rows")
        known_ids["fold"] = fold.dropna().index
    for what, known in known_ids.items():
        if not (is_known := level.index.isin(known)).all():
            n_unknown = int((~is_known).sum())
            raise InputError(f"{n_unknown:,} of {len(level):,} genes of level not in {what}", "0")
    offsets, lengths = _lay_out(genes)
    table = genes.set_index("gene_id").loc[level.index]
    table = table.assign(
        level=level,
        x=table["start"] + table["contig"].map(offsets).astype(np.float64),
        sign=np.where(table["strand"] == "-", -1.0, 1.0),
        group=table["strand"] if fold is None else fold.loc[level.index],
    )
    table = table.sort_index(kind="stable").sort_values(["x", "end"], kind="stable")

    figure = blank_figure(
        340,
        title,
        f"{len(level):,} of {len(genes):,} genes have a level; bars up are on the + strand, "
        "bars down on the − strand",
        barmode="overlay",
        bargap=0,
    )
    for i, (group, part) in enumerate(table.groupby("group", sort=True)):
        word = "fold" if fold is not None else "strand"
        figure.add_bar(
            name=f"{word} {safe(group)}",
            x=part["x"].to_numpy(np.float64),
            width=(part["end"] - part["start"]).to_numpy(np.float64),
            offset=0,
            y=(part["level"] * part["sign"]).to_numpy(np.float32),
            marker={"color": OKABE_ITO[i % len(OKABE_ITO)], "line": {"width": 0}},
            hovertext=[
                f"<b>{safe(row.name)}</b> ({safe(row.Index)})<br>{safe(row.contig)}:"
                f"{row.start:,}-{row.end:,} bp, {safe(row.strand)}<br>{row.level:.2f}"
                for row in part.itertuples()
            ],
            hovertemplate=f"%{{hovertext}} log₂(TPM+1), {word} {safe(group)}<extra></extra>",
        )
    if n_windows:
        edges = np.linspace(0.0, float(lengths.sum()), n_windows + 1)
        window = np.clip(np.searchsorted(edges, table["x"], side="right") - 1, 0, n_windows - 1)
        centres = (edges[:-1] + edges[1:]) / 2
        for sign, strand in ((1.0, "+"), (-1.0, "−")):
            on_strand = (table["sign"] == sign).to_numpy()
            means = (table["level"] * sign)[on_strand].groupby(window[on_strand]).mean()
            figure.add_scatter(
                name=f"mean, {strand} strand",
                x=centres[means.index],
                y=means.to_numpy(np.float32),
                mode="lines",
                line={"color": INK, "width": 1.5},
                showlegend=False,
                hoverinfo="skip",
            )
    ticks, labels = _level_ticks(float(level.max()))
    figure.update_xaxes(**_position_axis(offsets, lengths), showgrid=False)
    figure.update_yaxes(
        title={"text": "level, log₂(TPM+1)"}, tickmode="array", tickvals=ticks, ticktext=labels
    )
    figure.add_hline(y=0, line={"color": INK, "width": 1})
    for offset in offsets.iloc[1:]:
        figure.add_vline(x=float(offset), line={"color": GREY, "width": 1})
    return figure


def fold_map(
    blocks: pd.DataFrame,
    *,
    is_circular: bool = False,
    title: str = "Folds along the genome",
) -> go.Figure:
    """Draw which block of the genome went to which fold.

    A circular genome of one contig is a ring, read clockwise from the top; otherwise each contig
    is a bar. Blocks carry their fold's number, so that colour is not needed to read it; a ring of
    more than 80 blocks shows it on hover only. The order of rows does not matter.

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
    check_columns(blocks, ("block", "contig", "start", "end", "fold"), "blocks")
    n_empty = int((blocks["end"] <= blocks["start"]).sum())
    if n_empty:
        raise InputError(f"{n_empty:,} of {len(blocks):,} blocks without a base", "end > start")
    if n_lost := int(blocks["fold"].isna().sum()):
        raise InputError(f"{n_lost:,} of {len(blocks):,} blocks without a fold", "0")
    table = blocks.sort_values(["contig", "start", "block"], kind="stable")
    contigs = sorted(table["contig"].unique(), key=_natural)
    is_ring = is_circular and len(contigs) == 1
    total = float((table["end"] - table["start"]).sum())
    n_folds = table["fold"].nunique()
    subtitle = f"{len(table):,} blocks, {n_folds:,} folds, {total / 1e6:,.2f} Mb"
    body_px = 420 if is_ring else 140 + 34 * len(contigs)
    figure = blank_figure(body_px, title, subtitle, barmode="overlay")
    length = float(table["end"].max() - table["start"].min())
    folds = sorted(table["fold"].unique())
    ink = {fold: text_on(OKABE_ITO[i % len(OKABE_ITO)]) for i, fold in enumerate(folds)}
    for i, (fold, part) in enumerate(table.groupby("fold", sort=True)):
        start, end = part["start"].to_numpy(np.float64), part["end"].to_numpy(np.float64)
        shared = {
            "name": f"fold {safe(fold)}",
            "marker": {
                "color": OKABE_ITO[i % len(OKABE_ITO)],
                "line": {"color": "white", "width": 1},
            },
            "customdata": part[["start", "end"]].to_numpy(np.int64),
            "hovertext": [
                f"block {safe(b)}, fold {safe(fold)}<br>{safe(c)}:"
                for b, c in zip(part["block"], part["contig"], strict=True)
            ],
            "hovertemplate": "%{hovertext}%{customdata[0]:,}-%{customdata[1]:,} bp<extra></extra>",
        }
        if is_ring:
            figure.add_barpolar(
                r=np.ones(len(part)),
                theta=(start + end) / 2 / length * 360,
                width=(end - start) / length * 360,
                **shared,
            )
        else:
            figure.add_bar(
                orientation="h",
                base=start,
                x=end - start,
                y=[float(contigs.index(contig)) for contig in part["contig"]],
                width=0.7,
                text=[safe(fold)] * len(part),
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                insidetextfont={"color": ink[fold]},
                **shared,
            )
    if is_ring and len(table) <= _RING_LABELS_MAX:
        figure.add_scatterpolar(
            r=np.full(len(table), 0.85),
            theta=((table["start"] + table["end"]) / 2 / length * 360).to_numpy(np.float64),
            mode="text",
            text=[f"<b>{safe(fold)}</b>" for fold in table["fold"]],
            textfont={"color": [ink[fold] for fold in table["fold"]], "size": 11},
            hoverinfo="skip",
            showlegend=False,
        )
    if is_ring:
        ticks = np.arange(0, length, _round_step(length / 10))
        figure.update_polars(
            domain={"x": [0.08, 0.92], "y": [0.07, 0.93]},
            hole=0.55,
            radialaxis={"visible": False, "range": [0, 1]},
            angularaxis={
                "direction": "clockwise",
                "rotation": 90,
                "tickmode": "array",
                "tickvals": (ticks / length * 360).tolist(),
                "ticktext": [f"{tick / 1e6:g}" for tick in ticks],
                "tickfont": {"size": 12, "color": MUTED},
                "showgrid": False,
                "linecolor": GREY,
            },
        )
        figure.add_annotation(
            text=f"{short(contigs[0], 20)}<br>position in Mb",
            x=0.5,
            y=0.5,
            xref="paper",
            yref="paper",
            showarrow=False,
            font={"size": 13, "color": MUTED},
        )
    else:
        figure.update_xaxes(
            title={"text": "position on the contig (bp, 0-based)"},
            tickformat="~s",
            nticks=8,
            range=[min(0.0, float(table["start"].min())), float(table["end"].max())],
        )
        figure.update_layout(uniformtext={"minsize": 9, "mode": "hide"})
        figure.update_yaxes(
            tickmode="array",
            tickvals=[float(i) for i in range(len(contigs))],
            ticktext=[short(contig, 20) for contig in contigs],
            range=[len(contigs) - 0.5, -0.5],
            showgrid=False,
        )
    return figure

"""Figures along the genome: expression gene by gene, and folds block by block."""

import math
import re
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError
from genesplice.show.theme import (
    COLOURS,
    GREY,
    INK,
    MUTED,
    blank_figure,
    name_rows,
    require_series,
    require_table,
    row_texts,
    safe,
    short,
    text_on,
)

_RING_LABELS_MAX = 80  # blocks that a ring still has room to number on a narrow screen


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

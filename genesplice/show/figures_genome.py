"""Figures of data: along the genome, the path of one changed base, and what leaks between folds."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.show import theme as th

_RING_LABELS_MAX = 80  # blocks that a ring still has room to number on a narrow screen
_STATUS = {
    "red": ("■ red", "#F7D5C2"), "amber": ("▲ amber", "#FBE8C4"), "green": ("● green", "#D5F0E6")
}  # fmt: skip
_TABLE_PX = (500, 700, 850)  # widths that a report knows the height of a table for


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

    A bar is as wide as the gene, so zooming in shows gene bodies; a spliced gene has a bar for each
    coding exon, with thin lines at half the height between them. The dark lines are means over
    the genes of each window, per strand. Genes of the table that have no level are left out and
    counted in the subtitle. Neither the order of rows nor of `level` changes the figure.

    Parameters
    ----------
    genes
        Columns gene_id, name, contig, start, end, strand (0-based half-open). Contigs are laid
        end to end in natural order (chr2 before chr10), each as long as its last gene reaches.
        Where there are `exons`, these are start, end, start, end, … of the coding ones.
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
    th.require_table(genes, "genes", columns, unique=["gene_id"])
    level, table = th.require_series(level, "level"), genes.set_index("gene_id", drop=False)
    n_below = int((level < 0).sum())
    th.require(not n_below, f"{n_below:,} negative values of level", "log2(TPM+1) >= 0")
    word, by = ("strand", table["strand"]) if fold is None else ("fold", fold.dropna())
    found = f"{n_windows} windows, {word} by {len(by):,} genes"
    th.require(by.index.is_unique and n_windows >= 0, found, "0 or more, each once")
    for what, known in (("genes", table.index), (word, by.index)):
        th.refuse(~level.index.isin(known), f"genes of level not in {what}")
    lengths = genes.groupby("contig")["end"].max().astype(np.float64)
    lengths = lengths.loc[sorted(lengths.index, key=_natural)]
    offsets, total = lengths.cumsum() - lengths, float(lengths.sum())
    table = table.loc[level.index].rename_axis(None).assign(level=level, group=by)
    table["x"] = (table["start"] + table["contig"].map(offsets)).astype(np.float64)
    table["height"] = table["level"] * np.where(table["strand"] == "-", -1.0, 1.0)
    table = table.sort_values(["x", "end", "gene_id"], kind="stable")
    count = f"{len(level):,} of {len(genes):,} genes have a level"
    subtitle = f"{count}; bars up are on the + strand, bars down on the − strand"
    exons = table["exons"] if "exons" in table else [()] * len(table)
    whole = zip(table["start"], table["end"], strict=True)
    table["part"] = [
        np.sort(own if len(own) > 2 else span).reshape(-1, 2)
        for own, span in zip(exons, whole, strict=True)
    ]
    spliced = table[table["part"].map(len) > 1]
    subtitle += "; thin lines within a gene are not translated" if len(spliced) else ""
    parts = table.explode("part")
    figure = th.blank_figure(340, title, subtitle, barmode="overlay", bargap=0)
    about = "<b>{name}</b> ({gene_id})<br>{contig}:{start:,}-{end:,} bp, {strand}<br>{level:.2f}"
    for i, (group, part) in enumerate(parts.groupby("group", sort=True)):
        low, high = np.stack(part["part"].tolist()).T.astype(np.float64)
        figure.add_bar(
            name=f"{word} {th.safe(group)}", offset=0,
            x=(part["x"] - part["start"] + low).to_numpy(), width=high - low,
            y=part["height"].to_numpy(np.float32), hovertext=th.row_texts(part, about),
            marker={"color": th.COLOURS[i % len(th.COLOURS)], "line_width": 0},
            hovertemplate=f"%{{hovertext}} log₂(TPM+1), {word} {th.safe(group)}<extra></extra>",
        )  # fmt: skip
    if len(spliced):
        gaps = [
            (gene.x + low - gene.start, gene.x + high - gene.start, gene.height / 2)
            for gene in spliced.itertuples()
            for low, high in np.array([gene.start, *gene.part.ravel(), gene.end]).reshape(-1, 2)
            if low < high
        ]
        low, high, y = np.array(gaps).T
        look = {"name": "introns", "showlegend": False, "width": 1}
        figure.add_trace(th.line(th.broken_lines(low, high), th.broken_lines(y, y), th.INK, **look))
    edges = np.linspace(0.0, total, n_windows + 1)
    window = np.minimum(np.searchsorted(edges, table["x"], side="right"), n_windows) - 1
    for strand in "+-" if n_windows else "":
        means = table["height"].groupby([(table["strand"] == "-") == (strand == "-"), window])
        means = means.mean().get(True, pd.Series(dtype=float))
        x = ((edges[:-1] + edges[1:]) / 2)[means.index.astype(int)]
        mean = {"name": f"mean, {strand} strand", "showlegend": False}
        figure.add_trace(th.line(x, means, th.INK, width=1.5, **mean))
    names = [th.short(name, 20) for name in lengths.index]
    figure.update_xaxes(range=[0.0, total], showgrid=False, title_text="contigs end to end")
    if len(names) == 1:
        text = f"position on {names[0]} (bp, 0-based)"
        figure.update_xaxes(title_text=text, tickformat="~s", nticks=8)
    else:
        figure.update_xaxes(tickvals=(offsets + lengths / 2).tolist(), ticktext=names)
    for border in offsets.iloc[1:]:
        figure.add_vline(x=float(border), line={"color": th.GREY, "width": 1, "dash": "dot"})
    step = _round_step(max(float(level.max()), 1.0) / 4)
    marks = np.arange(0, float(level.max()) + 1e-9, step)
    ticks = np.concatenate([-marks[:0:-1], marks])
    figure.update_yaxes(tickvals=ticks, ticktext=[f"{abs(tick):g}" for tick in ticks])
    figure.update_yaxes(title_text="level, log₂(TPM+1)", zeroline=True, zerolinecolor=th.INK)
    return figure


def relatives_map(windows: pd.DataFrame, *, title: str = "Relatives along the genome") -> go.Figure:
    """Draw how much of each window of the genome every relative has, and how alike it is.

    One row a relative (or group of them), the nearest on top. Colour is identity; where less than
    a tenth is aligned there is none.

    Parameters
    ----------
    windows
        Columns name, start, aligned, identity (`genesplice.data.relatives.Relatives.along`).
    """
    th.require_table(windows, "windows", ["name", "start", "aligned", "identity"])
    shown = windows.assign(identity=windows["identity"].where(windows["aligned"] >= 0.1))
    # Weighted by what is aligned: the nearest first, whatever the order of rows.
    equal = (windows["identity"] * windows["aligned"]).groupby(windows["name"]).sum()
    means = windows.groupby("name")["aligned"].mean()
    identity = equal / windows.groupby("name")["aligned"].sum()
    names = list(identity.sort_index().sort_values(ascending=False, kind="stable").index)
    wide = shown.pivot(index="name", columns="start", values="identity").loc[names]
    share = shown.pivot(index="name", columns="start", values="aligned").loc[names]
    subtitle = f"{len(names):,} rows; {means.min():.0%} to {means.max():.0%} of the genome aligned"
    figure = th.blank_figure(120 + 22 * len(names), title, subtitle)
    figure.add_heatmap(
        x=wide.columns.to_numpy(np.float64), y=list(range(len(names))), z=wide.to_numpy(),
        customdata=share.to_numpy(), colorscale=th.SEQUENTIAL, hoverongaps=False,
        colorbar=th.COLOUR_BAR | {"title": {"text": "identity"}, "tickformat": ".0%"},
        text=[[th.safe(name)] * wide.shape[1] for name in names],
        hovertemplate="%{text}<br>at %{x:,} bp: %{customdata:.0%} aligned, %{z:.0%} the same"
        "<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text="position (bp, 0-based)", tickformat="~s", nticks=8)
    th.name_rows(figure, [th.words(name, 24) for name in names])
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
    th.require_table(blocks, "blocks", ["block", "contig", "start", "end", "fold"])
    length = (blocks["end"] - blocks["start"]).astype(np.float64)
    th.refuse(~(length > 0), "blocks without a base", "end > start")
    th.refuse(blocks["fold"].isna(), "blocks without a fold")
    table = blocks.assign(length=length).sort_values(["contig", "start", "block"], kind="stable")
    contigs = sorted(table["contig"].unique(), key=_natural)
    is_ring = is_circular and len(contigs) == 1
    n_folds, total = table["fold"].nunique(), table["length"].sum()
    subtitle = f"{len(table):,} blocks, {n_folds:,} folds, {total / 1e6:,.2f} Mb"
    body_px = 420 if is_ring else 140 + 34 * len(contigs)
    figure = th.blank_figure(body_px, title, subtitle, barmode="overlay")
    figure.update_layout(uniformtext={"minsize": 9, "mode": "hide"})
    degrees = 360 / float(table["end"].max() - table["start"].min())
    about = "block {block}, fold {fold}<br>{contig}:{start:,}-{end:,} bp"
    for i, (fold, part) in enumerate(table.groupby("fold", sort=True)):
        colour, n_blocks = th.COLOURS[i % len(th.COLOURS)], len(part)
        start, length = part["start"].to_numpy(np.float64), part["length"].to_numpy()
        middle, font = (start + length / 2) * degrees, {"color": th.text_on(colour)}
        shared: dict[str, Any] = {"name": f"fold {th.safe(fold)}", "hoverinfo": "text"}
        shared |= {"hovertext": th.row_texts(part, about)}
        shared |= {"marker": {"color": colour, "line": {"color": "white", "width": 1}}}
        if is_ring:
            figure.add_barpolar(r=np.ones(n_blocks), theta=middle, width=length * degrees, **shared)
        else:
            figure.add_bar(
                orientation="h", base=start, x=length, width=0.7, text=[th.safe(fold)] * n_blocks,
                y=part["contig"].map(contigs.index).to_numpy(np.float64), textposition="inside",
                insidetextanchor="middle", textangle=0, insidetextfont=font, **shared,
            )  # fmt: skip
        if is_ring and len(table) <= _RING_LABELS_MAX:
            figure.add_scatterpolar(
                r=np.full(n_blocks, 0.85), theta=middle, mode="text",
                text=[f"<b>{th.safe(fold)}</b>"] * n_blocks,
                hoverinfo="skip", showlegend=False, textfont=font | {"size": 11},
            )  # fmt: skip
    if not is_ring:
        span = [min(0.0, float(table["start"].min())), float(table["end"].max())]
        text = "position on the contig (bp, 0-based)"
        figure.update_xaxes(title_text=text, tickformat="~s", nticks=8, range=span)
        th.name_rows(figure, [th.short(contig, 20) for contig in contigs])
        return figure
    ticks = np.arange(0, 360 / degrees, _round_step(36 / degrees))
    figure.update_polars(
        domain={"x": [0.08, 0.92], "y": [0.07, 0.93]}, hole=0.55,
        radialaxis={"visible": False, "range": [0, 1]},
        angularaxis={"direction": "clockwise", "rotation": 90, "showgrid": False,
                     "tickfont": {"size": 12, "color": th.MUTED}, "linecolor": th.GREY,
                     "tickvals": ticks * degrees, "ticktext": [f"{t / 1e6:g}" for t in ticks]},
    )  # fmt: skip
    middle = {"x": 0.5, "y": 0.5, "xanchor": "center", "yanchor": "middle", "align": "center"}
    text = f"{th.short(contigs[0], 20)}<br>position in Mb"
    return figure.add_annotation(th.PANEL_TITLE | middle, text=text, font_color=th.MUTED)


def change_path(
    table: pd.DataFrame, change: str, *, missing: float, title: str = "From one base to the level"
) -> go.Figure:
    """Draw by what way a changed base changes the level of its gene: a band for each part.

    Parameters
    ----------
    table
        part (embedding, kernel, regulator, effector or pathway), name and value, log2(TPM + 1);
        the six largest of the last three are named.
    missing
        The sum of the values less the change of the prediction.
    """
    table = th.require_table(table, "path", ["part", "name", "value"], finite=["value"])
    own = {"embedding": "its own embedding", "kernel": "kernel: like training genes"}
    table = table.iloc[np.lexsort((table["part"], table["value"], -table["value"].abs()))]
    is_own = table["part"].isin(own)
    order = table[~is_own]
    rows = [(own[one.part], one.value) for one in table[is_own].sort_values("part").itertuples()]
    rows += order.head(6)[["name", "value"]].itertuples(index=False, name=None)
    if len(order) > 6:
        rows.append((f"{len(order) - 6} others", order["value"].iloc[6:].sum()))
    values, total = [value for _, value in rows], table["value"].sum()
    colours = [f"rgba({'0,114,178' if value >= 0 else '230,159,0'},0.45)" for value in values]
    link = {
        "source": [0] * len(rows),
        "target": [*range(1, 1 + len(rows))],
        "value": [max(abs(value), 1e-9) for value in values],
        "color": colours,
        "customdata": values,
        "hovertemplate": "%{customdata:+.4f} log₂(TPM+1)<extra></extra>",
    }
    # What the bands come from stands above: beside its node it would lie under their names.
    names = ["", *(f"{th.safe(th.short(name, 28))} {value:+.2g}" for name, value in rows)]
    node = {"label": names, "color": th.GREY, "pad": 18, "thickness": 12}
    after = total - missing
    share = f"{abs(missing) / abs(after):.1%}" if abs(after) > 1e-6 else "nothing"
    subtitle = f"{change} changes the level by {after:+.3f}. "
    subtitle += f"Blue up, orange down; {share} is missing."
    hidden = {"xaxis_visible": False, "yaxis_visible": False}
    figure = th.blank_figure(150 + 34 * len(rows), title, subtitle, **hidden)
    return figure.add_sankey(node=node | {"hovertemplate": "%{label}<extra></extra>"}, link=link)


def leakage_table(leakage: Mapping[str, Any], *, title: str = "Leakage report") -> go.Figure:
    """Draw the checks of a leakage report as a table: status, value and limit, and why it matters.

    Parameters
    ----------
    leakage
        ``status`` (green, amber, red) over all, and ``checks``: records with check, value, unit,
        threshold, status, why. They are drawn worst first, otherwise in their order.

    Raises
    ------
    InputError
        No checks, a check without one of these fields, or another status.
    """
    table = pd.DataFrame(list(leakage.get("checks", ())), dtype=object)
    columns = ["check", "value", "unit", "threshold", "status", "why"]
    th.require_table(table, "leakage checks", columns, among={"status": _STATUS})
    overall = str(leakage.get("status"))
    th.require(overall in _STATUS, f"status {overall!r} in the leakage", ", ".join(_STATUS))
    table = table.sort_values("status", key=lambda one: one.map(list(_STATUS).index), kind="stable")
    limits = ["" if pd.isna(one) else f"; limit: {_amount(one, '')}" for one in table["threshold"]]
    names = [str(one).replace("_", " ") for one in table["check"]]
    amounts = map(_amount, table["value"], table["unit"])
    lines = [f"{a}{b}. Why: {c}" for a, b, c in zip(amounts, limits, table["why"], strict=True)]
    texts = [
        f"<b>{th.safe(name)}</b>: {th.safe(one)}" for name, one in zip(names, lines, strict=True)
    ]
    full = [f"{name}: {one}" for name, one in zip(names, lines, strict=True)]

    def height(width: float | int) -> int:
        """Rows grow with their text, which has 78 % of the width, in letters of 6 px."""
        wrapped = (len(th.text_lines(one, int(0.13 * width))) for one in full)
        return 60 + sum(17 * n + 14 for n in wrapped)

    figure = th.blank_figure(height(_TABLE_PX[-1]), title, f"overall: {_STATUS[overall][0]}")
    above = figure.layout.height - height(_TABLE_PX[-1])
    # A report takes the height of the widest that it has room for.
    heights = [[0, above + height(th.NARROW_PX)]]
    heights += [[width, above + height(width)] for width in _TABLE_PX]
    figure.update_layout(meta={"heights": heights})
    status, colours = zip(*(_STATUS[one] for one in table["status"]), strict=True)
    shared: dict[str, Any] = {"align": "left", "font": {"size": 12, "color": th.INK}, "height": 26}
    head: dict[str, Any] = {"values": ["<b>status</b>", "<b>check</b>"], "fill_color": "white"}
    cells: dict[str, Any] = {
        "values": [[f"<b>{word}</b>" for word in status], texts],
        "line_color": th.GRID,
    }
    cells |= {"fill_color": [list(colours), "white"]} | shared
    head |= {"line_color": th.GREY} | shared
    return figure.add_table(columnwidth=[22, 78], header=head, cells=cells)


def _amount(value: Any, unit: object) -> str:
    """A leakage value with its unit: numbers rounded to four digits, anything else as text."""
    if pd.isna(value):
        return "not measured"
    unit, text = str(unit), str(value)
    if unit.startswith("share of ") and isinstance(value, (float, np.floating)):
        value, unit = 100 * value, f"% of {unit.removeprefix('share of ')}"
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        text = f"{value:,}"
    elif isinstance(value, (float, np.floating)):
        text = f"{value:,.0f}" if abs(float(value)) >= 10_000 else f"{value:.4g}"
    return f"{text} {unit}".rstrip()

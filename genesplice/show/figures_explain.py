"""What explains a prediction: deletion curves, attention, and the page of attributions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.results import Attribution
from genesplice.show import explorer as ex
from genesplice.show import theme as th
from genesplice.show.explorers_genome import FROM_TSS, AttributionExplorer
from genesplice.show.figures import completeness_bars, part_bars
from genesplice.show.theme import BLUE, PANEL_TITLE, line, require, require_table, safe

ALL_HEADS = "mean of heads"
POOL_BP = 128
SHOWN_BP = (512, 128)
"""Bases before and after the TSS that are drawn; the tables have the whole window."""


def attribution_explorer(
    found: Sequence[Attribution],
    *,
    checks: pd.DataFrame | None = None,
    sites: pd.DataFrame | None = None,
    shown_bp: tuple[int, int] = SHOWN_BP,
    is_exact: bool = False,
    recompute: ex.Recompute | None = None,
) -> AttributionExplorer:
    """Attributions around the start, each with its verdict; what is not faithful is stamped.

    Parameters
    ----------
    checks
        From `faithfulness_table`, indexed by gene_id; a gene without a row is stamped "not
        checked".
    sites
        From `motif_sites`.
    is_exact
        They are what attributions are checked against: no stamp.
    """
    low, high = -shown_bp[0], shown_bp[1]
    genes = [one.gene_id for one in found]
    verdicts = pd.Series("exact" if is_exact else "not checked", index=genes)
    if checks is not None:
        verdicts.update(checks["verdict"])
    values, sequences, predicted, kept = {}, [], {}, []
    columns: list[np.ndarray] = []
    for one in found:
        part = slice(low - one.offset_bp, high - one.offset_bp)
        values[one.gene_id] = one.values[part]
        sequences.append("".join("ACGTN"[min(token, 4)] for token in one.tokens[part]))
        said = "" if np.isnan(one.output) else f"predicted {one.target} {one.output:.2f}, "
        predicted[one.gene_id] = said
        kept += [] if one.conservation is None else [one.conservation.part(part)]
        columns += [] if one.by_group is None else [one.by_group[part].sum(1)]
    return AttributionExplorer(
        pd.DataFrame.from_dict(values, orient="index", columns=range(low, high)),
        sequences,
        names=pd.Series({one.gene_id: one.name for one in found}),
        motifs=sites,
        notes=pd.Series(predicted) + verdicts.str.split(":").str[0],
        stamps=verdicts[~verdicts.isin(["faithful", "exact"])],
        conservation=kept or None,
        by_column=np.array(columns) if columns else None,
        recompute=recompute,
    )


def attribution_parts(
    found: Sequence[Attribution],
    *,
    checks: pd.DataFrame | None = None,
    curves: Mapping[str, pd.DataFrame] | None = None,
    sites: pd.DataFrame | None = None,
    parts_of: pd.DataFrame | None = None,
    shown_bp: tuple[int, int] = SHOWN_BP,
    is_exact: bool = False,
    promises_sum: bool = True,
) -> list[Any]:
    """Explorer, checks and curves of some attributions, with a sentence before each.

    Without `promises_sum` it is not shown how far they are from adding up. `parts_of` is a
    `part_table`: drawn where alignment columns are read.
    """
    names = pd.Series({one.gene_id: one.name for one in found})
    parts: list[Any] = [
        "## Along the promoter\n\nEach bar is what one base adds to the prediction, in its unit. "
        "Choose a gene, then slide the window. A stamp across the bars means that a check below "
        "was not passed: then the picture says nothing about the model. " + _of_relatives(found),
        attribution_explorer(
            found, checks=checks, sites=sites, shown_bp=shown_bp, is_exact=is_exact
        ),
    ]
    if parts_of is not None and "near" in parts_of:
        parts += [
            "## Sequence or relatives?\n\nThe model reads bases and alignment columns; their "
            "attributions together end at the diamond. The reference is an empty sequence with "
            "nothing aligned.",
            part_bars(parts_of, names=names),
        ]
    delta = pd.Series({one.gene_id: one.delta for one in found})
    relative = pd.Series({one.gene_id: one.relative_delta for one in found}).clip(upper=99)
    if promises_sum and np.isfinite(delta).all() and relative.notna().any():
        parts += [
            "## Do they add up?\n\nThe sum of all bases should be the prediction less that for an "
            "empty sequence; beyond 5 % it has not converged.",
            completeness_bars(delta, relative, names=names),
        ]
    if curves:
        notes = checks["verdict"].str.split(":").str[0] if checks is not None else None
        parts += [
            "## Does the prediction follow?\n\nBases are taken away, or put back, in the order of "
            "their attribution. If the attribution is true of the model, the solid line leaves the "
            "dashed one, which is random order.",
            CurveExplorer(curves, names=names, notes=notes),
        ]
    if checks is not None:
        last = [column for column in checks.columns if column != "verdict"] + ["verdict"]
        shown = checks[last].reset_index().rename(columns=lambda name: str(name).replace("_", " "))
        parts += [
            "## Every check\n\n`missing`: share of the prediction that is not accounted for. "
            "Gains: area between the curves and random order, above 0. `ism spearman`: rank "
            "agreement with exact mutagenesis around the start, at least 0.5. `random spearman`: "
            "the same method on a model with other weights, at most 0.3.",
            shown,
        ]
    return parts


def _of_relatives(found: Sequence[Attribution]) -> str:
    if any(one.conservation is None for one in found):
        return "The data have no relatives: no conservation is shown."
    if any(one.conservation and one.conservation.score for one in found):
        return "Below: how conserved each base is, by the score. The model does not read it."
    said = "Below: how many near, middle and far relatives are aligned (pale) and have the base "
    said += "that is there (dark)."
    if all(one.by_group is None for one in found):
        return f"{said} The model does not read them."
    return f"{said} The line over the bars is what the alignment column of the base adds."


def lead_of(checks: pd.DataFrame | None, n_genes: int) -> str:
    """One sentence on how much of it can be believed."""
    if checks is None or not len(checks):
        return f"{n_genes} genes, none of them checked: no picture here carries its own evidence."
    n, n_faithful = len(checks), int((checks["verdict"] == "faithful").sum())
    if n_faithful == n:
        return f"All {n} attributions pass every check that was made."
    passed = f"{n_faithful} of {n} attributions pass every check"
    return f"{passed}; those that do not are stamped, and should not be read."


class CurveExplorer(ex.Explorer):
    """Pick a gene: its prediction as bases are taken away, and put back, by attribution.

    With each curve, dashed, goes the one of random order: the solid line should fall faster on the
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
        require(curves, "0 genes with curves", "at least 1")
        columns = ("deletion", "random_deletion", "insertion", "random_insertion")
        fraction = next(iter(curves.values()))["fraction"].to_numpy(np.float64)
        for gene_id, table in curves.items():
            require_table(table, f"the curves of {gene_id}", ["fraction", *columns])
            is_same = np.array_equal(table["fraction"], fraction)
            require(is_same, f"other fractions for {gene_id}", "those of the first gene")
        genes, notes = list(curves), {} if notes is None else notes
        gene, figure = ex.gene_control(genes, names), ex.two_panels(380, "", "")
        for number, column in enumerate(columns):
            is_random = column.startswith("random")
            colour, name = (th.MUTED, "in random order") if is_random else (BLUE, "by attribution")
            look: dict[str, Any] = {"dash": "dash" if is_random else "solid", "name": name}
            look |= {"mode": "lines+markers", "marker": {"size": 5}}
            look |= {"legendgroup": name, "showlegend": number < 2}
            look["hover"] = "%{x:.0%} of the bases: %{y:.2f}<extra>" + name + "</extra>"
            figure.add_trace(line(fraction, [], colour, **look), 1, 1 + number // 2)
        for col, (x, y) in enumerate((("taken away", "left"), ("put back", "reached")), 1):
            figure.update_xaxes(title_text=f"bases {x}", tickformat=".0%", col=col)
            figure.update_yaxes(title_text=f"share of the prediction {y}", col=col)
        figure.update_yaxes(zeroline=True, nticks=6)

        def draw(at: int) -> dict[str, Any]:
            table, note = curves[genes[at]], safe(notes.get(genes[at], ""))
            lines = {f"data[{i}].y": table[c].to_numpy(np.float64) for i, c in enumerate(columns)}
            return lines | {"annotations[0].text": ex.panel_title(gene.options[at], note)}

        bindings = ex.bind(gene, draw, decimals=4)
        super().__init__(figure, [gene], bindings, narrow=ex.stacked_panels(640))


class AttentionExplorer(ex.Explorer):
    """Pick gene, level, head and position: the exact weights with which it attends around itself.

    Below, attention rollout for the start of the gene: through which bases it can have received
    anything, through bins alone, through summaries, or through regions.

    Parameters
    ----------
    attention
        gene_id, position_bp (of the query, from the TSS), level, layer, head, start_bp and end_bp
        (of what it attends to), weight. Levels in the order in which the model runs them.
    rolled
        gene_id, path, start_bp, end_bp, weight.
    heads
        gene_id, level, layer, head, effect: the change of the prediction without that head.
    names
        Gene name by gene_id, for labels.

    Raises
    ------
    InputError
        A column that is missing, or a gene without some position, level, layer or head.
    """

    def __init__(
        self,
        attention: pd.DataFrame,
        rolled: pd.DataFrame,
        *,
        heads: pd.DataFrame | None = None,
        names: pd.Series | None = None,
        recompute: ex.Recompute | None = None,
    ) -> None:
        keys = ["gene_id", "level", "layer", "head", "position_bp"]
        require_table(attention, "attention", [*keys, "start_bp", "end_bp", "weight"])
        require_table(rolled, "rollout", ["gene_id", "path", "start_bp", "end_bp", "weight"])
        genes = list(attention["gene_id"].unique())
        layers = list(dict.fromkeys(zip(attention["level"], attention["layer"], strict=True)))
        positions = sorted(attention["position_bp"].unique())
        n_heads = int(attention["head"].max()) + 1
        levels = tuple(f"{level}, layer {layer + 1}" for level, layer in layers)
        of_heads = (ALL_HEADS, *(f"head {head + 1}" for head in range(n_heads)))
        gene = ex.gene_control(genes, names)
        level = ex.Control(name="level", kind="select", label="Level and layer", options=levels)
        head = ex.Control(name="head", kind="slider", label="Head", options=of_heads)
        position = ex.Control(
            name="position", kind="slider", label=f"Query position, {FROM_TSS}",
            options=tuple(f"{one:+d}" for one in positions),
            start=int(np.argmin(np.abs(positions))),
        )  # fmt: skip
        weights = dict(iter(attention.groupby(keys, sort=False)))
        effects = {} if heads is None else heads.set_index(keys[:-1])["effect"].to_dict()
        spans = attention.groupby("level").agg({"start_bp": "min", "end_bp": "max"}).astype(float)
        first = attention.drop_duplicates("level").set_index("level")
        widths = (first["end_bp"] - first["start_bp"]).astype(float)
        paths = list(dict.fromkeys(rolled["path"]))
        middles, pooled = _pool(rolled, genes, paths)

        def attend(g: int, layer: int, h: int, p: int) -> dict[str, Any]:
            chosen = range(n_heads) if h == 0 else (h - 1,)
            where = [(genes[g], *layers[layer], one, positions[p]) for one in chosen]
            lost = [key for key in where if key not in weights][:1]
            require(not lost, f"no attention for {lost}", "some for every choice")
            table = pd.concat([weights[key] for key in where])
            summed = table.groupby(["start_bp", "end_bp"])["weight"].sum() / len(where)
            edges = summed.index.to_frame().to_numpy(np.float64)
            return {"data[0].x": edges.mean(axis=1), "data[0].y": summed.to_numpy(np.float64)}

        def describe(g: int, layer: int, h: int) -> dict[str, Any]:
            effect = effects.get((genes[g], *layers[layer], h - 1))
            detail = f"{safe(layers[layer][0])}: exact weights, they sum to 1"
            if effect is not None:
                detail = f"without this head the prediction changes by {effect:+.3f}"
            return {"annotations[0].text": ex.panel_title(gene.options[g], detail)}

        def zoom(layer: int) -> dict[str, Any]:
            name = layers[layer][0]
            return {"data[0].width": widths[name], "xaxis.range": spans.loc[name].to_list()}

        def mark(p: int) -> dict[str, Any]:
            return dict.fromkeys(("shapes[0].x0", "shapes[0].x1"), float(positions[p]))

        def rollout(g: int) -> dict[str, Any]:
            return {f"data[{1 + i}].y": pooled[g, i] for i in range(len(paths))}

        controls = [gene, level, head, position]
        bindings = ex.bind(controls, attend, decimals=5) + ex.bind(controls[:3], describe)
        bindings += ex.bind(level, zoom) + ex.bind(position, mark)
        bindings += ex.bind(gene, rollout, decimals=5)
        figure = _attention_figure(paths, middles)
        super().__init__(figure, controls, bindings, narrow={"height": 640}, recompute=recompute)


def _pool(
    rolled: pd.DataFrame, genes: Sequence[Any], paths: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Middles of pools of bases, and weights (genes, paths, pools)."""
    table = rolled.assign(pool=rolled["start_bp"] // POOL_BP)
    pools = range(int(table["pool"].min()), int(table["pool"].max()) + 1)
    every = pd.MultiIndex.from_product([genes, paths, pools])
    summed = table.groupby(["gene_id", "path", "pool"])["weight"].sum()
    weights = summed.reindex(every, fill_value=0.0).to_numpy(np.float64)
    return (np.array(pools) + 0.5) * POOL_BP, weights.reshape(len(genes), len(paths), -1)


def _attention_figure(paths: Sequence[str], middles: np.ndarray) -> go.Figure:
    """Weights of one query above (trace 0), the rollout below (a trace per path)."""
    figure = go.Figure(layout={"height": 560, "barmode": "stack"})
    bars = {"": {"showlegend": False, "name": "attention", "marker": {"color": th.COLOURS[0]}}}
    hatch = {"fillmode": "overlay", "size": 6, "fgcolor": "white", "fgopacity": 0.6}
    for i, path in enumerate(paths):
        marker = {"color": th.COLOURS[i % 8], "pattern": {"shape": ("", "/", "x")[i % 3], **hatch}}
        below = {"x": middles, "xaxis": "x2", "yaxis": "y2", "width": POOL_BP, "marker": marker}
        bars[f"through {safe(path)}"] = {"name": f"through {safe(path)}", **below}
    for name, bar in bars.items():
        hover = f"%{{x:+,.0f}} bp: %{{y:.4f}}<extra>{name}</extra>"
        figure.add_bar(**bar, marker_line_width=0, hovertemplate=hover)
    figure.update_layout(
        margin={"t": 52, "b": 92},
        xaxis={"anchor": "y", "title_text": FROM_TSS},
        yaxis={"domain": [0.6, 1], "title_text": "weight", "rangemode": "tozero"},
        xaxis2={"anchor": "y2", "title_text": FROM_TSS},
        yaxis2={"domain": [0, 0.32], "title_text": f"weight in {POOL_BP} bp"},
    )
    start = {"color": th.GREY, "width": 1.5, "dash": "dot"}
    figure.add_shape(type="line", xref="x", yref="y domain", y0=0, y1=1, line=start)
    figure.add_annotation(PANEL_TITLE | {"y": 1.01})
    text = "<b>Attention rollout</b> for the start"
    return figure.add_annotation(PANEL_TITLE | {"y": 0.34, "text": text})

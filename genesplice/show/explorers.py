"""Every explorer under one roof: figures that answer to a choice, a slider or a click.

They take plain tables and arrays. Displayed in JupyterLab they are live; in a report they respond
without a kernel; in print they show their first state. `Explorer` and `bind` make new ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError
from genesplice.show.explorer import Binding, Click, Control, Explorer, Recompute, bind
from genesplice.show.explorers_genome import (
    AttributionExplorer,
    ScanExplorer,
    gene_control,
    panel_title,
)
from genesplice.show.figures_explain import AttentionExplorer, CurveExplorer
from genesplice.show.networks import NetworkExplorer
from genesplice.show.theme import (
    BLUE,
    COLOURS,
    DASHES,
    GREY,
    INK,
    MUTED,
    SEQUENTIAL,
    SKY,
    THEME,
    VERMILLION,
    gene_labels,
    require_table,
    safe,
    short,
    stacked_panels,
    two_panels,
)

__all__ = [
    "AttentionExplorer",
    "AttributionExplorer",
    "Binding",
    "Click",
    "ContextExplorer",
    "Control",
    "CurveExplorer",
    "Explorer",
    "NetworkExplorer",
    "ProfileExplorer",
    "Recompute",
    "ScanExplorer",
    "ScatterExplorer",
    "bind",
]

N_TICK_LABELS = 12
N_CATEGORIES = 6


class ProfileExplorer(Explorer):
    """Pick a gene, by search or by a click: its profile over conditions, observed and predicted.

    Parameters
    ----------
    observed
        Genes x conditions, log2(TPM+1) or residuals; indexed by gene_id, columns are conditions
        in the order to draw. NaN is a gap.
    predicted
        Model name → a table of the same genes and conditions (any order).
    names
        Gene name by gene_id, for labels; ids are used where it has none.
    points
        What the map of genes shows: two columns, x and y, indexed by gene_id. Left out, it is
        each gene's mean observed against its mean predicted by the first model.
    unit
        What the values are, for the axes.
    recompute
        Computes further genes in a live kernel.

    Raises
    ------
    InputError
        No genes, or a table that lacks some of them.
    """

    def __init__(
        self,
        observed: pd.DataFrame,
        predicted: Mapping[str, pd.DataFrame],
        *,
        names: pd.Series | None = None,
        points: pd.DataFrame | None = None,
        unit: str = "log2(TPM+1)",
        recompute: Recompute | None = None,
    ) -> None:
        if observed.empty:
            raise InputError(f"{len(observed)} genes x {observed.shape[1]} conditions", "some")
        tables = {model: _aligned(table, observed, model) for model, table in predicted.items()}
        if points is None:
            first, table = next(iter(tables.items()), ("observed", observed))
            means = {f"mean observed, {unit}": observed.mean(axis=1)}
            points = pd.DataFrame(
                means | {f"mean predicted by {first}, {unit}": table.mean(axis=1)}
            )
        values = [table.to_numpy(np.float64) for table in (observed, *tables.values())]
        xy = points.reindex(observed.index).to_numpy(np.float64)
        gene = gene_control(observed.index, names)
        figure = two_panels(460, f"{len(observed):,} genes: click one", "")
        _add_points(figure, xy, gene.options, 1, color=SKY, opacity=0.6, size=6)
        marked = {"size": 13, "color": VERMILLION, "symbol": "diamond", "line_color": "white"}
        figure.add_scatter(mode="markers", marker=marked, hoverinfo="skip", showlegend=False)
        conditions = [safe(condition) for condition in observed.columns]
        for number, name in enumerate(["observed", *tables]):
            colour = COLOURS[(number - 1) % len(COLOURS)] if number else INK
            figure.add_scatter(
                x=np.arange(len(conditions), dtype=np.float64), name=safe(name), row=1, col=2,
                mode="lines" if number else "markers", marker={"size": 6, "color": colour},
                line={"color": colour, "width": 2, "dash": DASHES[(number - 1) % len(DASHES)]},
                hovertext=conditions,
                hovertemplate="%{hovertext}<br>%{y:.2f}<extra>" + safe(name) + "</extra>",
            )  # fmt: skip
        is_named = len(conditions) <= N_TICK_LABELS
        figure.update_xaxes(title_text=safe(points.columns[0]), col=1)
        figure.update_yaxes(title_text=safe(points.columns[1]), col=1)
        figure.update_xaxes(
            title_text="condition" if is_named else f"{len(conditions)} conditions",
            tickvals=list(range(len(conditions))) if is_named else [], ticktext=conditions, col=2,
        )  # fmt: skip
        figure.update_yaxes(title_text=safe(unit), col=2)

        def mark(at: int) -> dict[str, Any]:
            fits = ", ".join(
                f"{safe(model)} {_correlation(values[0][at], table[at])}"
                for model, table in zip(tables, values[1:], strict=True)
            )
            title = panel_title(gene.options[at], fits)
            return {"data[1].x": xy[at, :1], "data[1].y": xy[at, 1:], "annotations[1].text": title}

        def draw(at: int) -> dict[str, Any]:
            return {f"data[{2 + number}].y": table[at] for number, table in enumerate(values)}

        bindings = bind(gene, mark) + bind(gene, draw, decimals=2)
        clicks = [Click(trace=0, control="gene")]
        super().__init__(figure, [gene], bindings, clicks, stacked_panels(820), recompute)


def _add_points(
    figure: go.Figure, xy: np.ndarray, labels: Sequence[str], column: int | None, **marker: Any
) -> None:
    """One point a gene, whose label a click gives."""
    figure.add_scatter(
        x=xy[:, 0], y=xy[:, 1], mode="markers", marker=marker, customdata=list(labels),
        hovertext=[safe(label) for label in labels], hoverinfo="text", showlegend=False,
        row=column, col=column,
    )  # fmt: skip


def _aligned(table: pd.DataFrame, observed: pd.DataFrame, model: str) -> pd.DataFrame:
    genes = observed.index.difference(table.index)
    conditions = observed.columns.difference(table.columns)
    if len(genes) or len(conditions):
        lacking = [*genes[:1], *conditions[:1]][0]
        raise InputError(
            f"no {lacking} in what {model} predicts ({len(genes):,} genes and "
            f"{len(conditions):,} conditions are missing)",
            f"{len(observed):,} genes x {observed.shape[1]:,} conditions, as observed",
        )
    return table.loc[observed.index, observed.columns]


def _correlation(observed: np.ndarray, predicted: np.ndarray) -> str:
    both = np.isfinite(observed) & np.isfinite(predicted)
    x, y = observed[both], predicted[both]
    if len(x) < 3 or min(x.std(), y.std()) <= 1e-9:
        return "flat"
    return f"r = {np.corrcoef(x, y)[0, 1]:.2f}"


class ScatterExplorer(Explorer):
    """A map of points coloured by a column of your choice, with a search that marks one point.

    Parameters
    ----------
    points
        Two columns, x and y, e.g. of an embedding; their names label the axes.
    columns
        What to colour by, same index. Numbers get a sequential scale; anything else is a
        category, of which the six most frequent get a colour and the others grey.
    names
        Label by index, for the search and the hover; the index is used where it has none.

    Raises
    ------
    InputError
        No points, no columns, or tables over different rows.
    """

    def __init__(
        self, points: pd.DataFrame, columns: pd.DataFrame, *, names: pd.Series | None = None
    ) -> None:
        if points.empty or columns.shape[1] == 0 or points.shape[1] < 2:
            found = f"{points.shape[0]} points, {points.shape[1]} coordinates"
            raise InputError(f"{found}, {columns.shape[1]} columns to colour by", "1, 2 and 1")
        if len(missing := points.index.difference(columns.index)):
            raise InputError(f"no row for {missing[0]} in columns", f"all {len(points):,} points")
        labels = gene_labels(points.index, names)
        scales = [_colour_scale(columns.loc[points.index, name]) for name in columns.columns]
        xy = points.iloc[:, :2].to_numpy(np.float64)
        figure = go.Figure(layout={"template": THEME, "height": 560, "margin": {"t": 16, "b": 60}})
        figure.update_xaxes(title_text=safe(points.columns[0]))
        figure.update_yaxes(title_text=safe(points.columns[1]))
        bar = {"thickness": 12, "outlinewidth": 0, "tickfont_color": MUTED}
        _add_points(figure, xy, labels, None, size=7, opacity=0.85, colorbar=bar)
        ring = {"size": 16, "color": "rgba(0,0,0,0)", "line": {"color": INK, "width": 2.5}}
        figure.add_scatter(
            mode="markers+text", marker=ring, textposition="top center", hoverinfo="skip",
            textfont={"size": 13, "color": INK}, showlegend=False,
        )  # fmt: skip
        options = tuple(map(str, columns.columns))
        column = Control(name="column", kind="select", label="Colour by", options=options)
        options = ("(none)", *labels)
        find = Control(name="find", kind="select", label="Mark a point", options=options)
        nowhere = np.array([np.nan])

        def colour(at: int) -> dict[str, Any]:
            shown, marker = scales[at]
            lines = [f"{safe(a)}<br>{safe(b)}" for a, b in zip(labels, shown, strict=True)]
            return {f"data[0].marker.{name}": value for name, value in marker.items()} | {
                "data[0].hovertext": lines
            }

        def mark(at: int) -> dict[str, Any]:
            x, y = (xy[at - 1, [i]] if at else nowhere for i in (0, 1))
            text = [safe(labels[at - 1]) if at else ""]
            return {"data[1].x": x, "data[1].y": y, "data[1].text": text}

        bindings = bind(column, colour) + bind(find, mark)
        clicks = [Click(trace=0, control="find")]
        super().__init__(figure, [column, find], bindings, clicks, {"height": 520})


def _colour_scale(column: pd.Series) -> tuple[list[str], dict[str, Any]]:
    """The text of each point, and the marker's properties, to colour points by a column."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        values = column.to_numpy(np.float64)
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        shown = [f"{column.name}: {value:.4g}" for value in values]
        marker = {"color": values.astype(np.float32), "colorscale": SEQUENTIAL, "cmin": low}
        ticks: dict[str, Any] = {"tickmode": "auto", "tickvals": None, "ticktext": None}
        marker["cmax"] = high if high > low else low + 1.0
    else:
        texts = column.astype(object).where(column.notna(), "unknown").astype(str)
        frequent = texts.value_counts().sort_index().sort_values(ascending=False, kind="stable")
        named = list(frequent.index[:N_CATEGORIES])
        codes = pd.Index(named).get_indexer(texts).astype(np.float32)
        codes[codes < 0] = len(named)
        is_cut = len(frequent) > N_CATEGORIES
        categories = [*named, "other"] if is_cut else named
        colours = [*COLOURS[: len(named)], GREY][: len(categories)]
        edges = np.linspace(0, 1, len(colours) + 1).tolist()
        steps = zip(edges, edges[1:], colours, strict=False)
        scale = [[edge, colour] for low, high, colour in steps for edge in (low, high)]
        shown = [f"{column.name}: {text}" for text in texts]
        marker = {"color": codes, "colorscale": scale, "cmin": -0.5, "cmax": len(colours) - 0.5}
        ticks = {"tickmode": "array", "tickvals": list(range(len(colours)))}
        ticks["ticktext"] = [safe(name) for name in categories]
    return shown, marker | {f"colorbar.{name}": value for name, value in ticks.items()}


class ContextExplorer(Explorer):
    """Pick a metric: its score against context length, and its slope control by control.

    Parameters
    ----------
    scores
        metric, context_bp, value, ci_low, ci_high: one row per metric and context length.
    slopes
        source (the data's name, or a simulated control's), metric, slope per doubling, ci_low,
        ci_high and answer.
    smallest_effect
        Change per doubling that matters: the dotted line.
    recompute
        Computes further settings in a live kernel.

    Raises
    ------
    InputError
        A column that is missing, no rows, or two rows of a metric and a context length or source.
    """

    def __init__(
        self,
        scores: pd.DataFrame,
        slopes: pd.DataFrame,
        smallest_effect: float,
        *,
        recompute: Recompute | None = None,
    ) -> None:
        unique = ["metric", "context_bp"]
        ends = ["ci_low", "ci_high"]
        require_table(scores, "scores", [*unique, "value", *ends], unique=unique)
        unique = ["metric", "source"]
        require_table(slopes, "slopes", [*unique, "slope", *ends, "answer"], unique=unique)
        every = list(dict.fromkeys([*scores["metric"], *slopes["metric"]]))
        metric = Control(name="metric", kind="select", label="Metric", options=tuple(every))
        sources = [f"{short(one, 20)} " for one in dict.fromkeys(slopes["source"])]
        figure = two_panels(420, "<b>Score by context length</b>", "", showlegend=False)
        figure.add_scatter(
            mode="lines", fill="toself", fillcolor=BLUE, opacity=0.16, line_width=0,
            hoverinfo="skip", name="interval", row=1, col=1,
        )  # fmt: skip
        figure.add_scatter(
            mode="lines+markers", line={"color": BLUE, "width": 2}, marker_size=8, name="score",
            hovertemplate="%{x:,} bp: %{y:.3f}<extra></extra>", row=1, col=1,
        )  # fmt: skip
        figure.add_scatter(
            mode="markers+text", marker={"size": 10, "color": BLUE}, textposition="top center",
            textfont={"size": 12, "color": INK}, error_x={"color": INK, "thickness": 1.4},
            hovertemplate="%{y}: %{x:+.4f}<extra></extra>", name="slope", row=1, col=2,
        )  # fmt: skip
        figure.add_vline(x=0, line={"color": GREY, "width": 1}, col=2)
        figure.add_vline(x=smallest_effect, line={"color": INK, "width": 1, "dash": "dot"}, col=2)
        context = sorted(scores["context_bp"].unique())
        labels = [f"{one / 1024:g} kb" if one >= 1024 else f"{one:g}" for one in context]
        figure.update_xaxes(type="log", title_text="context length (bp)", col=1)
        figure.update_xaxes(tickmode="array", tickvals=context, ticktext=labels, col=1)
        figure.update_xaxes(title_text="change per doubling", col=2)
        order = {"categoryorder": "array", "categoryarray": sources[::-1]}
        figure.update_yaxes(type="category", **order, col=2)

        def draw(at: int) -> dict[str, Any]:
            mine = scores[scores["metric"] == every[at]].sort_values("context_bp")
            x, value, low, high = mine[["context_bp", "value", *ends]].to_numpy(np.float64).T
            steps = slopes[slopes["metric"] == every[at]]
            slope = steps["slope"].to_numpy(np.float64)
            return {
                "data[0].x": np.concatenate([x, x[::-1]]),
                "data[0].y": np.concatenate([high, low[::-1]]),
                "data[1].x": x,
                "data[1].y": value,
                "data[2].x": slope,
                "data[2].y": [f"{short(one, 20)} " for one in steps["source"]],
                "data[2].text": [safe(one) for one in steps["answer"]],
                "data[2].error_x.array": steps["ci_high"].to_numpy(np.float64) - slope,
                "data[2].error_x.arrayminus": slope - steps["ci_low"].to_numpy(np.float64),
                "yaxis.title.text": safe(every[at].replace("_", " ")),
                "annotations[1].text": panel_title(
                    every[at].replace("_", " "), "control by control"
                ),
            }

        narrow = stacked_panels(760)
        super().__init__(figure, [metric], bind(metric, draw), (), narrow, recompute)

    @classmethod
    def of(
        cls,
        conditions: Sequence[Mapping[str, Any]],
        metrics: pd.DataFrame,
        judged: Mapping[str, Mapping[str, Any]],
        smallest_effect: float,
    ) -> "ContextExplorer":
        """Explore what the context verdict has measured.

        Parameters
        ----------
        conditions
            Context conditions: name, context_bp and is_reference.
        metrics
            Records of metrics.json, whose models are the conditions; means over seeds are shown.
        judged
            Source → a verdict: its answer, and its slopes by metric.
        """
        context = {one["name"]: one["context_bp"] for one in conditions if not one["is_reference"]}
        rows = metrics[metrics["model"].isin(context) & metrics["fold"].isna()]
        rows = rows.assign(context_bp=rows["model"].map(context))
        groups = rows.groupby(["metric", "context_bp"])[["value", "ci_low", "ci_high"]]
        slopes = [
            {**slope, "source": source, "answer": one["answer"]}
            for source, one in judged.items()
            for slope in one["slopes"]
        ]
        known = {slope["metric"] for slope in slopes}
        scores = groups.mean().reset_index()
        scores = scores[scores["metric"].isin(known)] if known else scores
        return cls(scores, pd.DataFrame(slopes), smallest_effect)

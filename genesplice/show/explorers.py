"""Every explorer under one roof: figures that answer to a choice, a slider or a click.

They take plain tables and arrays. Displayed in JupyterLab they are live; in a report they respond
without a kernel; in print they show their first state. `Explorer` and `bind` make new ones.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.errors import InputError
from genesplice.show import explorer as ex
from genesplice.show import theme as th
from genesplice.show.explorer import Binding, Click, Control, Explorer, Recompute, bind
from genesplice.show.explorers_genome import AttributionExplorer, ScanExplorer, TrackExplorer
from genesplice.show.figures import band
from genesplice.show.figures_explain import AttentionExplorer, CurveExplorer
from genesplice.show.networks import NetworkExplorer
from genesplice.show.theme import BLUE, COLOURS, INK, line, require, require_table, safe, short

__all__ = [
    "AttentionExplorer", "AttributionExplorer", "Binding", "Click", "ContextExplorer", "Control",
    "CurveExplorer", "Explorer", "NetworkExplorer", "ProfileExplorer", "Recompute", "ScanExplorer",
    "ScatterExplorer", "TrackExplorer", "bind",
]  # fmt: skip

N_TICK_LABELS = 12
N_CATEGORIES = 6
UNIT = "log2(TPM+1)"


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
        recompute: Recompute | None = None,
    ) -> None:
        found = f"{len(observed)} genes x {observed.shape[1]} conditions"
        require(not observed.empty, found, "some")
        tables = {model: _aligned(table, observed, model) for model, table in predicted.items()}
        if points is None:
            first, table = next(iter(tables.items()), ("observed", observed))
            names_of = f"mean observed, {UNIT}", f"mean predicted by {first}, {UNIT}"
            means = observed.mean(axis=1), table.mean(axis=1)
            points = pd.DataFrame(dict(zip(names_of, means, strict=True)))
        values = [table.to_numpy(np.float64) for table in (observed, *tables.values())]
        xy = points.reindex(observed.index).to_numpy(np.float64)
        gene = ex.gene_control(observed.index, names)
        figure = ex.two_panels(460, f"{len(observed):,} genes: click one", "")
        _add_points(figure, xy, gene.options, 1, color=th.SKY, opacity=0.6, size=6)
        marked = {"size": 13, "color": th.VERMILLION, "symbol": "diamond", "line_color": "white"}
        figure.add_scatter(mode="markers", marker=marked, hoverinfo="skip", showlegend=False)
        conditions, n = [safe(condition) for condition in observed.columns], observed.shape[1]
        for i, name in enumerate(map(safe, ["observed", *tables]), -1):
            colour, dash = (COLOURS[i % 8], th.DASHES[i % 5]) if i >= 0 else (INK, "solid")
            hover = {"hover": f"%{{hovertext}}<br>%{{y:.2f}}<extra>{name}</extra>"}
            look = {"mode": "lines" if i >= 0 else "markers", "marker": {"size": 6}, **hover}
            at = line(range(n), [], colour, dash=dash, name=name, hovertext=conditions, **look)
            figure.add_trace(at, 1, 2)
        is_named = n <= N_TICK_LABELS
        for axes, title in zip((figure.update_xaxes, figure.update_yaxes), points, strict=False):
            axes(title_text=safe(title), col=1)
        figure.update_xaxes(
            title_text="condition" if is_named else f"{n} conditions",
            tickvals=list(range(n)) if is_named else [], ticktext=conditions, col=2,
        )  # fmt: skip
        figure.update_yaxes(title_text=UNIT, col=2)

        def mark(at: int) -> dict[str, Any]:
            fits = ", ".join(
                f"{safe(model)} {_correlation(values[0][at], table[at])}"
                for model, table in zip(tables, values[1:], strict=True)
            )
            title = ex.panel_title(gene.options[at], fits)
            return {"data[1].x": xy[at, :1], "data[1].y": xy[at, 1:], "annotations[1].text": title}

        def draw(at: int) -> dict[str, Any]:
            return {f"data[{2 + number}].y": table[at] for number, table in enumerate(values)}

        bindings = bind(gene, mark) + bind(gene, draw, decimals=2)
        clicks = [Click(trace=0, control="gene")]
        super().__init__(figure, [gene], bindings, clicks, ex.stacked_panels(820), recompute)


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
    lacking = "".join(map(str, [*genes, *conditions][:1]))
    counts = f"{len(genes):,} genes and {len(conditions):,} conditions are missing"
    expected = f"{len(observed):,} genes x {observed.shape[1]:,} conditions, as observed"
    require(not lacking, f"no {lacking} in what {model} predicts ({counts})", expected)
    return table.loc[observed.index, observed.columns]


def _correlation(observed: np.ndarray, predicted: np.ndarray) -> str:
    x, y = np.array([observed, predicted])[:, np.isfinite(observed) & np.isfinite(predicted)]
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
        found = f"{points.shape[0]} points, {points.shape[1]} coordinates"
        is_fine = len(points) and columns.shape[1] and points.shape[1] >= 2
        require(is_fine, f"{found}, {columns.shape[1]} columns to colour by", "1, 2 and 1")
        missing = "".join(map(str, points.index.difference(columns.index)[:1]))
        require(not missing, f"no row for {missing} in columns", f"all {len(points):,} points")
        labels = th.gene_labels(points.index, names)
        scales = [_colour_scale(columns.loc[points.index, name]) for name in columns.columns]
        xy = points.iloc[:, :2].to_numpy(np.float64)
        figure = go.Figure(layout={"height": 560, "margin": {"t": 16, "b": 60}})
        figure.update_xaxes(title_text=safe(points.columns[0]))
        figure.update_yaxes(title_text=safe(points.columns[1]))
        bar = {"thickness": 12, "outlinewidth": 0, "tickfont_color": th.MUTED}
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
        xy_or_none = np.vstack([[np.nan, np.nan], xy])

        def colour(at: int) -> dict[str, Any]:
            shown, marker = scales[at]
            lines = [f"{safe(a)}<br>{safe(b)}" for a, b in zip(labels, shown, strict=True)]
            marker = {f"data[0].marker.{name}": value for name, value in marker.items()}
            return {"data[0].hovertext": lines, **marker}

        def mark(at: int) -> dict[str, Any]:
            x, y = xy_or_none[at, :1], xy_or_none[at, 1:]
            text = [safe(options[at]) if at else ""]
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
        texts = [f"{value:.4g}" for value in values]
        marker: dict[str, Any] = {"colorscale": th.SEQUENTIAL, "cmin": low}
        marker["cmax"] = high if high > low else low + 1.0
        ticks: dict[str, Any] = {"tickmode": "auto", "tickvals": None, "ticktext": None}
    else:
        texts = column.astype(object).where(column.notna(), "unknown").astype(str)
        frequent = texts.value_counts().sort_index().sort_values(ascending=False, kind="stable")
        categories = list(frequent.index[:N_CATEGORIES])
        values, n = pd.Index(categories).get_indexer(texts), len(categories)
        values = np.where(values < 0, n, values)
        categories += ["other"] if len(frequent) > n else []
        marker = th.stepped([*COLOURS[:n], th.GREY][: len(categories)])
        ticks = {"tickmode": "array", "tickvals": list(range(len(categories)))}
        ticks["ticktext"] = [safe(name) for name in categories]
    marker["color"] = values.astype(np.float32)
    shown = [f"{column.name}: {text}" for text in texts]
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
        ends, unique = ["ci_low", "ci_high"], ["metric", "context_bp"]
        require_table(scores, "scores", [*unique, "value", *ends], unique=unique)
        unique = ["metric", "source"]
        require_table(slopes, "slopes", [*unique, "slope", *ends, "answer"], unique=unique)
        every = list(dict.fromkeys([*scores["metric"], *slopes["metric"]]))
        metric = Control(name="metric", kind="select", label="Metric", options=tuple(every))
        figure = ex.two_panels(420, "<b>Score by context length</b>", "", showlegend=False)
        figure.update_layout(xaxis_domain=[0, 0.4], xaxis2_domain=[0.6, 1])  # room for the sources
        figure.layout.annotations[1].x = 0.6
        figure.add_trace(band(np.empty(0), [], [], BLUE, "interval"), 1, 1)
        look = {"mode": "lines+markers", "marker_size": 8, "hover": "%{x:,} bp: %{y:.3f}"}
        figure.add_trace(line([], [], BLUE, name="score", **look), 1, 1)
        figure.add_scatter(
            mode="markers+text", marker={"size": 10, "color": BLUE}, textposition="top center",
            textfont={"size": 12, "color": INK}, error_x={"color": INK, "thickness": 1.4},
            hovertemplate="%{y}: %{x:+.4f}<extra></extra>", name="slope", row=1, col=2,
        )  # fmt: skip
        figure.add_vline(x=0, line={"color": th.GREY, "width": 1}, col=2)
        figure.add_vline(x=smallest_effect, line=th.DOTTED, col=2)
        context = sorted(scores["context_bp"].unique())
        ticks = [f"{one / 1024:g} kb" if one >= 1024 else f"{one:g}" for one in context]
        figure.update_xaxes(type="log", title_text="context length (bp)", col=1)
        figure.update_xaxes(tickmode="array", tickvals=context, ticktext=ticks, col=1)
        figure.update_xaxes(title_text="change per doubling", col=2)
        sources = [f"{short(one, 20)} " for one in dict.fromkeys(slopes["source"])][::-1]
        order = {"categoryorder": "array", "categoryarray": sources}
        figure.update_yaxes(type="category", **order, col=2)

        def draw(at: int) -> dict[str, Any]:
            mine = scores[scores["metric"] == every[at]].sort_values("context_bp")
            x, value, low, high = mine[["context_bp", "value", *ends]].to_numpy(np.float64).T
            area, steps = band(x, low, high, BLUE, ""), slopes[slopes["metric"] == every[at]]
            slope, down, up = th.whiskers(steps.rename(columns={"slope": "value"}))
            name = every[at].replace("_", " ")
            return {
                "data[0].x": area.x, "data[0].y": area.y, "data[1].x": x, "data[1].y": value,
                "data[2].x": slope,
                "data[2].y": [f"{short(one, 20)} " for one in steps["source"]],
                "data[2].text": [safe(one) for one in steps["answer"]],
                "data[2].error_x.array": up, "data[2].error_x.arrayminus": down,
                "yaxis.title.text": safe(name),
                "annotations[1].text": ex.panel_title(name, "control by control"),
            }  # fmt: skip

        narrow = ex.stacked_panels(760)
        super().__init__(figure, [metric], bind(metric, draw), (), narrow, recompute)


# --- the live face; ipywidgets take long to load ---


class LiveExplorer:
    """Widgets of an explorer, and the figure that follows them; `widget` is what is displayed.

    What the explorer does not have is computed by its `recompute` when it is chosen.
    """

    def __init__(self, explorer: Explorer) -> None:
        import ipywidgets

        self.explorer = self.shown = explorer
        self.figure = go.FigureWidget(explorer.figure)
        self.figure._config = dict(ex.FIGURE_CONFIG)
        self.message = ipywidgets.HTML()
        self.controls = {control.name: control for control in explorer.live_controls()}
        self.choice = {name: one.options[one.start] for name, one in self.controls.items()}
        self.widgets = {name: _make_widget(control) for name, control in self.controls.items()}
        for name, widget in self.widgets.items():
            widget.observe(lambda event, name=name: self._observe(name, event["new"]), "value")
        for trace, name in explorer.clicks:
            self.figure.data[trace].on_click(
                lambda trace, points, _, name=name: self._click(name, trace, points.point_inds)
            )
        layout = {"flex_flow": "row wrap", "overflow": "visible"}
        row = ipywidgets.HBox([*self.widgets.values(), self.message], layout=layout)
        self.widget = ipywidgets.VBox([row, self.figure])

    def _observe(self, name: str, new: Any) -> None:
        """Bring the figure to what is chosen after control `name` has changed."""
        options = self.controls[name].options
        option = options[int(new)] if isinstance(new, bool) else new
        if option not in options:  # a search that is not finished
            return
        self.choice[name] = option
        before, recompute = self.shown, self.explorer.recompute
        if recompute is not None and name in recompute.values:
            self.message.value = "computing …"
            try:
                self.shown = self.explorer.holding(self.choice)
            except InputError as error:
                self.message.value = html.escape(str(error))
                return
            self.message.value = ""
        with self.figure.batch_update():
            if self.shown is before:
                self.shown.apply(self.figure, self.choice, name)
                return
            figure = go.Figure(self.shown.figure)
            self.shown.apply(figure, self.choice)
            for old, drawn in zip(self.figure.data, figure.data, strict=True):
                old.update(drawn.to_plotly_json(), overwrite=True)
            self.figure.layout.update(figure.layout.to_plotly_json(), overwrite=True)

    def _click(self, name: str, trace: Any, points: list[int]) -> None:
        control = self.controls[name]
        for named in [trace.customdata[point] for point in points[:1]]:
            option = str(named if isinstance(named, str) else named[0])
            if option in control.options:
                position = bool(control.options.index(option))
                self.widgets[name].value = position if control.kind == "toggle" else option


def _make_widget(control: Control) -> Any:
    import ipywidgets

    start, label = control.options[control.start], control.label
    if control.kind == "toggle":
        return ipywidgets.Checkbox(value=bool(control.start), description=label, indent=False)
    shared: dict[str, Any] = {"options": control.options, "value": start, "description": label}
    shared["style"] = {"description_width": "initial"}
    if control.kind == "slider":
        return ipywidgets.SelectionSlider(**shared)
    return ipywidgets.Combobox(**shared, ensure_option=True, continuous_update=False)

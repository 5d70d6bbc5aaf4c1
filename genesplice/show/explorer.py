"""A figure with controls that works live, on paper and in a file without a kernel.

One definition, three faces. Displayed in JupyterLab it is a live widget; stored in a notebook it
is the figure in its first state; and beside that figure lies a compact payload from which
`runtime.js` makes the report's figure respond. All three apply the same bindings.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.basedatatypes import BaseFigure
from plotly.io.json import to_json_plotly

from genesplice.errors import InputError
from genesplice.show.patches import Binding, Click, Control
from genesplice.show.theme import safe

EXPLORER_MIME = "application/vnd.genesplice.explorer+json"
PLOTLY_MIME = "application/vnd.plotly.v1+json"
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
HEADLESS_VARIABLE = "GENESPLICE_HEADLESS"
"""Set in the kernels of the runner: nobody is there to move a widget."""

FIGURE_CONFIG = {"displaylogo": False, "responsive": True, "showSendToCloud": False}
"""plotly.js offers to upload a chart to its maker's cloud unless told not to."""


class Explorer:
    """A plotly figure, controls, and what each option of a control changes in the figure.

    Give it as the last expression of a cell. Options are worked out beforehand, so what a report
    carries grows with options x changed values: show tens of thousands of numbers, not millions.

    Parameters
    ----------
    figure
        Copied; brought to the first state of the controls.
    controls
        In the order in which they stand above the figure.
    bindings
        What the controls change. No two may change the same property.
    clicks
        Traces whose points set a control when they are clicked.
    narrow
        Layout properties (or `data[1].…` of a trace) for a container under 600 px, e.g. panels
        below one another instead of side by side; the report goes back to the figure's own ones
        when it is wider. A property that a binding changes cannot be here.

    Raises
    ------
    InputError
        If a binding or a click does not fit the figure or the controls.
    """

    def __init__(
        self,
        figure: go.Figure,
        controls: Sequence[Control],
        bindings: Sequence[Binding],
        clicks: Sequence[Click] = (),
        narrow: Mapping[str, Any] | None = None,
    ) -> None:
        self.controls = {control.name: control for control in controls}
        if len(self.controls) != len(controls):
            raise InputError("two controls of one name", "a name of its own for each")
        self.bindings, self.clicks = tuple(bindings), tuple(clicks)
        self.narrow = dict(narrow or {})
        self._check(len(figure.data))
        self.start = {name: control.start for name, control in self.controls.items()}
        self.figure = go.Figure(figure)
        self._apply(self.figure, self.start, self.bindings)

    def _check(self, n_traces: int) -> None:
        changed: set[tuple[int | None, str]] = set()
        for binding in self.bindings:
            binding.check(self.controls, n_traces)
            for target in binding.traces or (None,):
                if (target, binding.path) in changed:
                    raise InputError(f"two bindings of {binding.path}", "one for each property")
                changed.add((target, binding.path))
        for click in self.clicks:
            if click.control not in self.controls or not 0 <= click.trace < n_traces:
                raise InputError(
                    f"a click on trace {click.trace} for {click.control!r}",
                    f"one of {n_traces} traces and a control among {', '.join(self.controls)}",
                )
        both = [path for path in self.narrow if (None, path) in changed]
        if both:
            raise InputError(f"{both[0]} both bound and changed when narrow", "one of the two")

    def _apply(
        self, figure: BaseFigure, state: Mapping[str, int], bindings: Sequence[Binding]
    ) -> None:
        for binding in bindings:
            value = binding.value(state, self.controls)
            for target in [figure.data[trace] for trace in binding.traces] or [figure.layout]:
                target[binding.path] = value

    def figure_at(self, **options: str) -> go.Figure:
        """Give the figure as it is for some options, the other controls at their start.

        `explorer.figure_at(gene="lacZ")`.

        Raises
        ------
        InputError
            For a control or an option that is not there.
        """
        state = dict(self.start)
        for name, option in options.items():
            if name not in self.controls or option not in self.controls[name].options:
                there = self.controls[name].options[:5] if name in self.controls else self.controls
                raise InputError(f"{name} = {option!r}", f"one of {', '.join(there)} …")
            state[name] = self.controls[name].options.index(option)
        figure = go.Figure(self.figure)
        self._apply(figure, state, self.bindings)
        return figure

    def to_payload(self) -> dict[str, Any]:
        """Give what a report needs besides the figure, as JSON without NaN."""
        payload = {
            "version": 1,
            "controls": [control.to_payload() for control in self.controls.values()],
            "bindings": [binding.to_payload() for binding in self.bindings],
            "clicks": [{"trace": click.trace, "control": click.control} for click in self.clicks],
            "narrow": self.narrow,
        }
        return json.loads(to_json_plotly(payload))

    def to_widget(self) -> Any:
        """Make the live face: ipywidgets above a plotly FigureWidget."""
        import ipywidgets

        figure = go.FigureWidget(self.figure)
        figure._config = FIGURE_CONFIG
        state, widgets = dict(self.start), {}

        def change(name: str, position: int) -> None:
            state[name] = position
            touched = [binding for binding in self.bindings if name in binding.controls]
            with figure.batch_update():
                self._apply(figure, state, touched)

        for name, control in self.controls.items():
            widgets[name] = _make_widget(control)
            widgets[name].observe(_observer(control, change), "value")
        for click in self.clicks:
            handler = _click_handler(self.controls[click.control], widgets[click.control])
            figure.data[click.trace].on_click(handler)
        row = ipywidgets.HBox(
            list(widgets.values()), layout={"flex_flow": "row wrap", "overflow": "visible"}
        )
        return ipywidgets.VBox([row, figure])

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        figure = json.loads(self.figure.to_json()) | {"config": FIGURE_CONFIG}
        names = ", ".join(control.label for control in self.controls.values())
        bundle = {
            "text/plain": f"{type(self).__name__} ({names})",
            PLOTLY_MIME: figure,
            EXPLORER_MIME: self.to_payload(),
        }
        if is_live():
            widget = self.to_widget()
            view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
            bundle[WIDGET_MIME] = view
        return bundle


def gene_labels(gene_ids: pd.Index, names: pd.Series | None = None) -> tuple[str, ...]:
    """Label genes as `lacZ (b0344)`, or by their id where the name is missing or the same."""
    if names is None:
        return tuple(map(str, gene_ids))
    known = names.reindex(gene_ids)
    return tuple(
        str(gene) if pd.isna(name) or str(name) in ("", str(gene)) else f"{name} ({gene})"
        for gene, name in zip(gene_ids, known, strict=True)
    )


def shorten(text: str, n_characters: int) -> str:
    """Cut a text that is longer, and say so with an ellipsis."""
    return text if len(text) <= n_characters else text[: n_characters - 1] + "…"


def heading(label: str, detail: str = "") -> str:
    """Write the text over a panel: a user's label in bold, cut to a narrow screen, and a line.

    `detail` is plotly text already: see `theme.safe`.
    """
    bold = f"<b>{safe(shorten(label, 34))}</b>"
    return f"{bold}<br>{detail}" if detail else bold


def is_live() -> bool:
    """Whether a kernel runs this and somebody may be looking: not under the runner."""
    if os.environ.get(HEADLESS_VARIABLE):
        return False
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _make_widget(control: Control) -> Any:
    import ipywidgets

    style, start = {"description_width": "initial"}, control.options[control.start]
    if control.kind == "toggle":
        return ipywidgets.Checkbox(
            value=bool(control.start), description=control.label, indent=False
        )
    if control.kind == "slider":
        return ipywidgets.SelectionSlider(
            options=control.options, value=start, description=control.label, style=style
        )
    return ipywidgets.Combobox(
        options=control.options,
        value=start,
        description=control.label,
        ensure_option=True,
        continuous_update=False,
        style=style,
    )


def _observer(control: Control, change: Any) -> Any:
    positions = {option: position for position, option in enumerate(control.options)}

    def observe(event: Mapping[str, Any]) -> None:
        value = event["new"]
        position = int(value) if isinstance(value, bool) else positions.get(value)
        if position is not None:
            change(control.name, position)

    return observe


def _click_handler(control: Control, widget: Any) -> Any:
    def clicked(trace: Any, points: Any, selector: Any) -> None:
        for point in points.point_inds[:1]:
            named = trace.customdata[point]
            option = str(named if isinstance(named, str) else named[0])
            if option in control.options:
                position = control.options.index(option)
                widget.value = bool(position) if control.kind == "toggle" else option

    return clicked

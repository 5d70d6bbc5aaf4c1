"""The live face of an explorer: ipywidgets above a plotly FigureWidget."""

import html
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ipywidgets
import plotly.graph_objects as go

from genesplice.errors import InputError

if TYPE_CHECKING:
    from genesplice.show.explorer import Control, Explorer


class LiveExplorer:
    """Widgets of an explorer, and the figure that follows them; `widget` is what is displayed.

    What the explorer does not have is computed by its `recompute` when it is chosen.
    """

    def __init__(self, explorer: "Explorer", config: Mapping[str, Any]) -> None:
        self.explorer = self.shown = explorer
        self.figure = go.FigureWidget(explorer.figure)
        self.figure._config = dict(config)
        self.message = ipywidgets.HTML()
        controls = explorer.live_controls()
        self.choice = {control.name: control.options[control.start] for control in controls}
        self.widgets = {control.name: _make_widget(control) for control in controls}
        for control in controls:
            self.widgets[control.name].observe(self._observer(control), "value")
            for click in explorer.clicks:
                if click.control == control.name:
                    self.figure.data[click.trace].on_click(self._clicked(control))
        layout = {"flex_flow": "row wrap", "overflow": "visible"}
        row = ipywidgets.HBox([*self.widgets.values(), self.message], layout=layout)
        self.widget = ipywidgets.VBox([row, self.figure])

    def _observer(self, control: "Control") -> Callable[[Mapping[str, Any]], None]:
        def observe(event: Mapping[str, Any]) -> None:
            new = event["new"]
            option = control.options[int(new)] if isinstance(new, bool) else new
            if option in control.options:  # a search that is not finished is none of them
                self.choice[control.name] = option
                self._follow(control.name)

        return observe

    def _follow(self, name: str) -> None:
        """Bring the figure to what is chosen after control `name` has changed."""
        recompute, before = self.explorer.recompute, self.shown
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
            else:
                figure = go.Figure(self.shown.figure)
                self.shown.apply(figure, self.choice)
                self._redraw(figure)

    def _redraw(self, figure: go.Figure) -> None:
        for old, new in zip(self.figure.data, figure.data, strict=True):
            old.update(new.to_plotly_json(), overwrite=True)
        self.figure.layout.update(figure.layout.to_plotly_json(), overwrite=True)

    def _clicked(self, control: "Control") -> Callable[[Any, Any, Any], None]:
        def clicked(trace: Any, points: Any, selector: Any) -> None:
            for point in points.point_inds[:1]:
                named = trace.customdata[point]
                option = str(named if isinstance(named, str) else named[0])
                if option in control.options:
                    is_toggle, position = control.kind == "toggle", control.options.index(option)
                    self.widgets[control.name].value = bool(position) if is_toggle else option

        return clicked


def _make_widget(control: "Control") -> Any:
    start, label = control.options[control.start], control.label
    if control.kind == "toggle":
        return ipywidgets.Checkbox(value=bool(control.start), description=label, indent=False)
    style = {"description_width": "initial"}
    shared: dict[str, Any] = {"options": control.options, "value": start, "style": style}
    if control.kind == "slider":
        return ipywidgets.SelectionSlider(**shared, description=label)
    shared |= {"ensure_option": True, "continuous_update": False}
    return ipywidgets.Combobox(**shared, description=label)

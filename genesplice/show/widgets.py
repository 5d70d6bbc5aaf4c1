"""The live face of an explorer: ipywidgets above a plotly FigureWidget."""

import html
from collections.abc import Mapping
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


def _make_widget(control: "Control") -> Any:
    start, label = control.options[control.start], control.label
    if control.kind == "toggle":
        return ipywidgets.Checkbox(value=bool(control.start), description=label, indent=False)
    shared: dict[str, Any] = {"options": control.options, "value": start, "description": label}
    shared["style"] = {"description_width": "initial"}
    if control.kind == "slider":
        return ipywidgets.SelectionSlider(**shared)
    return ipywidgets.Combobox(**shared, ensure_option=True, continuous_update=False)

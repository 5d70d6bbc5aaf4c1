"""Explorers: figures that answer to a choice, a slider or a click.

One explorer, three faces. In JupyterLab it is a live widget; stored in a notebook it is the figure
in its first state; and with that figure goes a compact payload from which `runtime.js` makes the
report's figure respond. All three apply the same bindings.
"""

import base64
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.basedatatypes import BaseFigure
from plotly.io.json import to_json_plotly
from plotly.subplots import make_subplots

from genesplice.show.theme import PANEL_TITLE, gene_labels, require, short

EXPLORER_MIME = "application/vnd.genesplice.explorer.v3+json"
PLOTLY_MIME = "application/vnd.plotly.v1+json"
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
HEADLESS_VARIABLE = "GENESPLICE_HEADLESS"
"""Set in the kernels of the runner: nobody is there to move a widget."""

FIGURE_CONFIG = {"displaylogo": False, "responsive": True, "showSendToCloud": False}
"""plotly.js offers to upload a chart to its maker's cloud by default."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """Something a reader can set: one of `options`, by position.

    Attributes
    ----------
    name
        How bindings and clicks refer to it.
    kind
        "select" (a searchable list), "slider" (options in an order that means something) or
        "toggle" (two options: off and on).
    options
        One text per option, all different; user data is shown letter by letter.
    start
        Position of the option that the figure shows first.
    """

    name: str
    kind: Literal["select", "slider", "toggle"]
    label: str
    options: tuple[str, ...]
    start: int = 0

    def __post_init__(self) -> None:
        n, n_different = len(self.options), len(set(self.options))
        found = f"{n:,} options of {self.name!r}, {n_different:,} of them different"
        require(0 < n == n_different, found, "at least 1, all different")
        require(self.kind != "toggle" or n == 2, f"{n} options of toggle {self.name!r}", "2")
        within = 0 <= self.start < n
        require(within, f"{self.name!r} starting at {self.start}", f"0 to {n - 1}")

    def position(self, option: str | None) -> int:
        """Give the position of an option; of the first state where it is none of them."""
        return self.options.index(option) if option in self.options else self.start


class Click(NamedTuple):
    """A click on a point of `trace` sets `control` to the option that its customdata names.

    The point's customdata (its first item, where there are several) is the option's text; a point
    with another text does nothing.
    """

    trace: int
    control: str


class Binding(NamedTuple):
    """Properties of a figure that share one value for every option.

    Attributes
    ----------
    paths
        As plotly writes them: `data[1].marker.color` of a trace, `xaxis.range` of the layout.
    controls
        The controls they depend on.
    rows
        A value per combination of options, the last control running fastest. One-dimensional
        arrays (of different lengths, too) travel as bytes, anything else as JSON.
    """

    paths: tuple[str, ...]
    controls: tuple[str, ...]
    rows: Sequence[Any]

    def to_payload(self) -> dict[str, Any]:
        """Give the binding as JSON, arrays as plotly.js takes them: base64 of little endians.

        Lists of up to ten different texts become strings of digits, positions in `palette`.
        """
        rows, palette = [_packed(row) for row in self.rows], dict[str, str]()
        texts = [text for row in rows if isinstance(row, list) for text in row]
        if all(isinstance(row, list) for row in rows) and all(isinstance(t, str) for t in texts):
            palette = {text: str(digit) for digit, text in enumerate(sorted(set(texts)))}
        if 0 < len(palette) <= min(10, len(texts) / 4):
            rows = ["".join(palette[text] for text in row) for row in rows]
            return {**self._asdict(), "rows": rows, "palette": list(palette)}
        return {**self._asdict(), "rows": rows}


def _packed(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    kind = value.dtype.str[1:]
    kind = kind if kind in ("i1", "i2", "i4", "f4") else "f8"
    packed = np.ascontiguousarray(value, dtype=f"<{kind}").tobytes()
    return {"dtype": kind, "bdata": base64.b64encode(packed).decode("ascii")}


def bind(
    controls: Control | Sequence[Control],
    change: Callable[..., Mapping[str, Any]],
    decimals: int | None = None,
) -> list[Binding]:
    """Bind all that `change` gives: what the figure looks like for every combination of options.

    Parameters
    ----------
    change
        Called with the position of each control's option; returns path → value, always of the
        same paths (see `Binding`).
    decimals
        Round arrays to so many and keep them in 32 bits, where 64 are not worth their room.
    """
    controls = (controls,) if isinstance(controls, Control) else tuple(controls)
    states = [change(*at) for at in np.ndindex(*(len(control.options) for control in controls))]
    paths: dict[tuple[int, ...], list[str]] = {}  # one binding where values are the same objects
    for path in states[0]:
        paths.setdefault(tuple(id(state[path]) for state in states), []).append(path)

    def kept(value: Any) -> Any:
        if isinstance(value, np.ndarray) and decimals is not None:
            return np.round(value, decimals).astype(np.float32)
        return value.item() if isinstance(value, np.generic) else value

    names = tuple(control.name for control in controls)
    return [
        Binding(tuple(same), names, [kept(state[same[0]]) for state in states])
        for same in paths.values()
    ]


class Recompute:
    """How a live kernel works out what an explorer was not given beforehand.

    >>> AttributionExplorer(table, sequences, recompute=Recompute(explain, {"gene": names}))

    In JupyterLab the control "gene" has all options; one that the explorer does not have is
    computed when it is chosen. A report has those that were given, and says so.

    Parameters
    ----------
    function
        Called with a keyword argument per control; returns an explorer like the one it belongs
        to, or a figure.
    controls
        Name → options. A Series of names by gene_id: the function gets the gene_id. Anything
        else: it gets the item. A name that is no control of the explorer is a control in a live
        kernel only, and the explorer shows its first option.
    """

    def __init__(
        self,
        function: Callable[..., "Explorer | go.Figure"],
        controls: Mapping[str, "Sequence[Any] | pd.Series"],
    ) -> None:
        self.function = function
        self.values: dict[str, dict[str, Any]] = {}
        for name, options in controls.items():
            names = options if isinstance(options, pd.Series) else None
            keys = list(options) if names is None else names.index.tolist()
            texts = gene_labels(keys, names)
            self.values[name] = dict(zip(texts, keys, strict=True))
        self._known: dict[tuple[str, ...], Explorer] = {}

    def __call__(self, choice: Mapping[str, str]) -> "Explorer":
        """Give the explorer for a choice (control → option), computed once."""
        key = tuple(choice[name] for name in self.values)
        if key not in self._known:
            given = {name: values[choice[name]] for name, values in self.values.items()}
            made = self.function(**given)
            self._known[key] = made if isinstance(made, Explorer) else Explorer(made)
        return self._known[key]


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
        From `bind`: what the controls change. No two may change the same property.
    clicks
        Traces whose points set a control when they are clicked.
    narrow
        Properties (as paths of `Binding`) for a container under 600 px, e.g. panels below one
        another; the report goes back to the figure's own ones when it is wider. A property that a
        binding changes cannot be here.
    recompute
        What a live kernel may compute besides.

    Raises
    ------
    InputError
        If a binding or a click does not fit the figure or the controls.
    """

    def __init__(
        self,
        figure: go.Figure,
        controls: Sequence[Control] = (),
        bindings: Sequence[Binding] = (),
        clicks: Sequence[Click] = (),
        narrow: Mapping[str, Any] | None = None,
        recompute: Recompute | None = None,
    ) -> None:
        self.controls = {control.name: control for control in controls}
        is_one = len(self.controls) == len(controls)
        require(is_one, "two controls of one name", "a name of its own for each")
        self.bindings, self.clicks = tuple(bindings), tuple(clicks)
        self.narrow, self.recompute = dict(narrow or {}), recompute
        paths = [path for binding in self.bindings for path in binding.paths] + list(self.narrow)
        twice = [path for path in paths if paths.count(path) > 1][:1]
        expected = "one binding, or a value when narrow"
        require(not twice, f"{', '.join(twice)} changed twice", expected)
        known, n_traces = ", ".join(self.controls), len(figure.data)
        for (path, *_), names, rows in self.bindings:
            unknown = ", ".join(sorted(set(names) - set(self.controls)))
            require(not unknown, f"{path} bound to {unknown}", f"one of {known}")
            n = int(np.prod(self._sizes(names)))
            require(len(rows) == n, f"{len(rows)} values for {path}", f"{n}")
        for trace, control in self.clicks:
            is_fine = control in self.controls and 0 <= trace < n_traces
            expected = f"one of {n_traces} traces and a control among {known}"
            require(is_fine, f"a click on trace {trace} for {control!r}", expected)
        self.figure = go.Figure(figure)
        self.apply(self.figure, {})

    def _sizes(self, names: Sequence[str]) -> tuple[int, ...]:
        return tuple(len(self.controls[name].options) for name in names)

    def apply(self, figure: BaseFigure, choice: Mapping[str, str], changed: str = "") -> None:
        """Bring a figure to a choice (control → option); an option not here counts as the start.

        With `changed`, only what depends on that control is set.
        """
        for paths, names, rows in self.bindings:
            if changed and changed not in names:
                continue
            at = tuple(self.controls[name].position(choice.get(name)) for name in names)
            value = rows[int(np.ravel_multi_index(at, self._sizes(names)))]
            for path in paths:
                figure[path if path.startswith("data[") else f"layout.{path}"] = value

    def holding(self, choice: Mapping[str, str]) -> "Explorer":
        """Give the explorer that has a choice: this one, or one that `recompute` makes."""
        for name, values in (self.recompute.values if self.recompute else {}).items():
            own = self.controls[name].options if name in self.controls else (next(iter(values)),)
            if self.recompute and choice[name] not in own:
                return self.recompute(choice)
        return self

    def figure_at(self, **options: str) -> go.Figure:
        """Give the figure for some options, the other controls at their start.

        `explorer.figure_at(gene="lacZ (b0344)")`.

        Raises
        ------
        InputError
            For a control or an option that is not there.
        """
        for name, option in options.items():
            known = self.controls[name].options if name in self.controls else tuple(self.controls)
            is_known = name in self.controls and option in known
            require(is_known, f"{name} = {option!r}", f"one of {', '.join(known[:5])} …")
        figure = go.Figure(self.figure)
        self.apply(figure, options)
        return figure

    def to_payload(self) -> dict[str, Any]:
        """Give what a report needs besides the figure, as JSON without NaN."""
        payload = {
            "controls": [vars(control) for control in self.controls.values()],
            "bindings": [binding.to_payload() for binding in self.bindings],
            "clicks": [click._asdict() for click in self.clicks],
            "narrow": self.narrow,
            "note": self.note(),
        }
        return json.loads(to_json_plotly(payload))

    def note(self) -> str:
        """Say what a report lacks that a live kernel could compute; empty for nothing."""
        lines = []
        for control in self.live_controls():
            own, n = self.controls.get(control.name), len(control.options)
            here = len(own.options) if own else 1
            shown = f"{here:,} of {n:,}" if own else f"only {control.options[0]}"
            if n > here:
                lines.append(f"{control.label}: {shown} computed here, others where a kernel runs.")
        return " ".join(lines)

    def live_controls(self) -> list[Control]:
        """Controls of the live face: with every option that can be computed."""
        wide = dict(self.controls)
        for name, values in (self.recompute.values if self.recompute else {}).items():
            label = name.replace("_", " ").capitalize()
            own = self.controls.get(name)
            label, start = (own.label, own.start) if own else (label, 0)
            kind: Any = "slider" if own and own.kind == "slider" else "select"
            options = tuple(dict.fromkeys((*(own.options if own else ()), *values)))
            wide[name] = Control(name=name, kind=kind, label=label, options=options, start=start)
        return list(wide.values())

    def to_widget(self) -> Any:
        """Make the live face: ipywidgets above a plotly FigureWidget."""
        from genesplice.show.explorers import LiveExplorer

        return LiveExplorer(self).widget

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        names = ", ".join(control.label for control in self.controls.values())
        bundle = {
            "text/plain": f"{type(self).__name__} ({names})",
            PLOTLY_MIME: json.loads(str(self.figure.to_json())) | {"config": FIGURE_CONFIG},
            EXPLORER_MIME: self.to_payload(),
        }
        if is_live():
            view = {"version_major": 2, "version_minor": 0}
            bundle[WIDGET_MIME] = view | {"model_id": self.to_widget().model_id}
        return bundle


def is_live() -> bool:
    """Whether a kernel runs this and somebody may be looking: not under the runner."""
    if os.environ.get(HEADLESS_VARIABLE):
        return False
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def gene_control(ids: Sequence[Any] | pd.Index, names: pd.Series | None = None) -> Control:
    """Make the control that picks a gene; `names` is by gene_id."""
    return Control(name="gene", kind="select", label="Gene", options=gene_labels(ids, names))


def panel_title(label: str, detail: str = "") -> str:
    """Write the text over a panel: a user's label in bold and a line that is plotly text."""
    return f"<b>{short(label, 34)}</b>" + (f"<br>{detail}" if detail else "")


def two_panels(height: int, left: str, right: str, **layout: object) -> go.Figure:
    """Two panels side by side under panel titles (annotations 0 and 1), plotly text already."""
    figure = make_subplots(1, 2, column_widths=[0.45, 0.55], horizontal_spacing=0.12)
    figure.update_layout(height=height, margin={"t": 56, "b": 92}, **layout)
    for text, x in ((left, 0), (right, figure.layout.xaxis2.domain[0])):
        figure.add_annotation(PANEL_TITLE | {"x": x, "y": 1.02, "text": text})
    return figure


def stacked_panels(height: int) -> dict[str, object]:
    """The same panels below one another: what an explorer changes on a narrow screen."""
    return {
        "xaxis.domain": [0, 1], "yaxis.domain": [0.6, 1], "xaxis2.domain": [0, 1],
        "yaxis2.domain": [0, 0.4], "annotations[1].x": 0, "annotations[1].y": 0.415,
        "height": height,
    }  # fmt: skip

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
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.basedatatypes import BaseFigure
from plotly.io.json import to_json_plotly

from genesplice.errors import InputError
from genesplice.show.theme import gene_labels

EXPLORER_MIME = "application/vnd.genesplice.explorer+json"
PLOTLY_MIME = "application/vnd.plotly.v1+json"
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
HEADLESS_VARIABLE = "GENESPLICE_HEADLESS"
"""Set in the kernels of the runner: nobody is there to move a widget."""

FIGURE_CONFIG = {"displaylogo": False, "responsive": True, "showSendToCloud": False}
"""plotly.js offers to upload a chart to its maker's cloud by default."""

_INTEGERS = (np.int8, np.int16, np.int32)
_PALETTE_MAX = 100


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
        if n != n_different or not n:
            found = f"{n:,} options of {self.name!r}, {n_different:,} of them different"
            raise InputError(found, "at least 1, all different")
        if self.kind == "toggle" and n != 2:
            raise InputError(f"{n} options of toggle {self.name!r}", "2")
        if not 0 <= self.start < n:
            raise InputError(f"{self.name!r} starting at {self.start}", f"0 to {n - 1}")

    def position(self, option: str | None) -> int:
        """Give the position of an option; of the first state where it is none of them."""
        return self.options.index(option) if option in self.options else self.start


@dataclass(frozen=True)
class Click:
    """A click on a point of `trace` sets `control` to the option that its customdata names.

    The point's customdata (its first item, where there are several) is the option's text; a point
    with another text does nothing.
    """

    trace: int
    control: str


@dataclass(frozen=True, eq=False)
class Binding:
    """Properties of a figure that share one value for every option.

    Attributes
    ----------
    paths
        As plotly writes them: `data[1].marker.color` of a trace, `xaxis.range` of the layout.
    controls
        The controls they depend on.
    rows
        A value per combination of options, the last control running fastest. One-dimensional
        arrays (of different lengths, too) travel as bytes, texts as they are.
    decimals
        Keep numbers of arrays to so many decimals, as integers of the smallest type they fit.
    """

    paths: tuple[str, ...]
    controls: tuple[str, ...]
    rows: Sequence[Any]
    decimals: int | None = None

    def value(self, positions: Sequence[int], sizes: Sequence[int]) -> Any:
        """Give the value for the positions of its controls, as plotly takes it."""
        found = self.rows[int(np.ravel_multi_index(tuple(positions), tuple(sizes)))]
        if isinstance(found, np.ndarray) and self.decimals is not None:
            return np.round(found, self.decimals)
        return found.item() if isinstance(found, np.generic) else found

    def to_payload(self) -> dict[str, Any]:
        """Give the binding as JSON, numbers as base64 of little-endian integers or floats."""
        common = {"paths": self.paths, "controls": self.controls}
        if all(isinstance(row, np.ndarray) for row in self.rows):
            packed = pack(np.concatenate(self.rows), self.decimals)
            return common | packed | {"lengths": [len(row) for row in self.rows]}
        if all(isinstance(row, list) and all(isinstance(x, str) for x in row) for row in self.rows):
            texts = [text for row in self.rows for text in row]
            palette = sorted(set(texts))
            if len(palette) <= min(_PALETTE_MAX, len(texts) / 4):
                codes = pack(pd.Index(palette).get_indexer(pd.Index(texts)))
                lengths = [len(row) for row in self.rows]
                return common | codes | {"lengths": lengths, "palette": palette}
        return common | {"values": list(self.rows)}


def pack(numbers: np.ndarray, decimals: int | None = None) -> dict[str, Any]:
    """Pack numbers: `{"type": "i2", "scale": 100, "data": base64}`.

    With `decimals`, they become integers (value x scale), NaN the smallest one of the type.
    Without, float64 stays float64: positions on a chromosome need it.

    Raises
    ------
    InputError
        For infinity, or numbers too large for 32 bits at that many decimals.
    """
    numbers = np.asarray(numbers)
    if numbers.dtype.kind not in "buif":
        raise InputError(f"an array of {numbers.dtype}", "numbers, or a list")
    if decimals is None and numbers.dtype.kind == "f":
        return _bytes(numbers.astype(np.float32 if numbers.itemsize <= 4 else np.float64))
    scale = 10 ** (decimals or 0)
    scaled = np.round(numbers.astype(np.float64) * scale)
    largest = float(np.nanmax(np.abs(scaled), initial=0.0))
    for kind in _INTEGERS:
        if largest <= np.iinfo(kind).max:
            packed = np.where(np.isnan(scaled), np.iinfo(kind).min, np.nan_to_num(scaled))
            return _bytes(packed.astype(kind)) | {"scale": scale}
    raise InputError(f"a value of {largest / scale:g}", "smaller, or fewer decimals")


def _bytes(numbers: np.ndarray) -> dict[str, Any]:
    little = np.ascontiguousarray(numbers, dtype=numbers.dtype.newbyteorder("<"))
    text = base64.b64encode(little.tobytes()).decode("ascii")
    return {"type": f"{numbers.dtype.kind}{numbers.dtype.itemsize}", "data": text}


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
    """
    controls = (controls,) if isinstance(controls, Control) else tuple(controls)
    states = [change(*at) for at in np.ndindex(*(len(control.options) for control in controls))]
    paths: dict[tuple[int, ...], list[str]] = {}  # one binding where values are the same objects
    for path in states[0]:
        paths.setdefault(tuple(id(state[path]) for state in states), []).append(path)
    names = tuple(control.name for control in controls)
    return [
        Binding(tuple(same), names, [state[same[0]] for state in states], decimals)
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
            if isinstance(options, pd.Series):
                keys, texts = options.index.tolist(), list(gene_labels(options.index, options))
            else:
                keys, texts = list(options), list(map(str, options))
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
        if len(self.controls) != len(controls):
            raise InputError("two controls of one name", "a name of its own for each")
        self.bindings, self.clicks = tuple(bindings), tuple(clicks)
        self.narrow, self.recompute = dict(narrow or {}), recompute
        self._check(len(figure.data))
        self.figure = go.Figure(figure)
        self.apply(self.figure, {})

    def _check(self, n_traces: int) -> None:
        paths = [path for binding in self.bindings for path in binding.paths] + list(self.narrow)
        if twice := [path for path in paths if paths.count(path) > 1]:
            raise InputError(f"{twice[0]} changed twice", "one binding, or a value when narrow")
        for binding in self.bindings:
            if unknown := set(binding.controls) - set(self.controls):
                known = ", ".join(self.controls)
                raise InputError(f"{binding.paths[0]} bound to {min(unknown)}", f"one of {known}")
            n = int(np.prod([len(self.controls[name].options) for name in binding.controls]))
            if len(binding.rows) != n:
                raise InputError(f"{len(binding.rows)} values for {binding.paths[0]}", f"{n}")
        for click in self.clicks:
            if click.control not in self.controls or not 0 <= click.trace < n_traces:
                expected = (
                    f"one of {n_traces} traces and a control among {', '.join(self.controls)}"
                )
                raise InputError(f"a click on trace {click.trace} for {click.control!r}", expected)

    def apply(self, figure: BaseFigure, choice: Mapping[str, str], changed: str = "") -> None:
        """Bring a figure to a choice (control → option); an option not here counts as the start.

        With `changed`, only what depends on that control is set.
        """
        at = {name: one.position(choice.get(name)) for name, one in self.controls.items()}
        for binding in self.bindings:
            if changed and changed not in binding.controls:
                continue
            sizes = [len(self.controls[name].options) for name in binding.controls]
            value = binding.value([at[name] for name in binding.controls], sizes)
            for path in binding.paths:
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
            if name not in self.controls or option not in known:
                raise InputError(f"{name} = {option!r}", f"one of {', '.join(known[:5])} …")
        figure = go.Figure(self.figure)
        self.apply(figure, options)
        return figure

    def to_payload(self) -> dict[str, Any]:
        """Give what a report needs besides the figure, as JSON without NaN."""
        payload = {
            "version": 2,
            "controls": [vars(control) for control in self.controls.values()],
            "bindings": [binding.to_payload() for binding in self.bindings],
            "clicks": [vars(click) for click in self.clicks],
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
            own = wide.get(name)
            options = tuple(dict.fromkeys((*(own.options if own else ()), *values)))
            label, start = name.replace("_", " ").capitalize(), 0
            if own:
                label, start = own.label, own.start
            kind = own.kind if own and own.kind == "slider" else "select"
            wide[name] = Control(name=name, kind=kind, label=label, options=options, start=start)
        return list(wide.values())

    def to_widget(self) -> Any:
        """Make the live face: ipywidgets above a plotly FigureWidget."""
        from genesplice.show.widgets import LiveExplorer  # ipywidgets take long to load

        return LiveExplorer(self, FIGURE_CONFIG).widget

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

"""Controls of an explorer, what each of their options changes in a figure, and its compact form.

A `Binding` ties one property of a figure (`y` of trace 1, `title.text` of the layout) to one or
more controls and holds its value for every option. JupyterLab applies it in Python
(`Binding.value`), a report in JavaScript (`runtime.js`) from what `Binding.to_payload` gives.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from genesplice.errors import InputError

_INTEGERS = (np.int8, np.int16, np.int32)


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
    label
        What stands beside it.
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
        if len(set(self.options)) != len(self.options) or not self.options:
            raise InputError(
                f"{len(self.options):,} options of {self.name!r}, {len(set(self.options)):,} "
                "of them different",
                "at least 1, all different",
            )
        if self.kind == "toggle" and len(self.options) != 2:
            raise InputError(f"{len(self.options)} options of toggle {self.name!r}", "2")
        if not 0 <= self.start < len(self.options):
            raise InputError(
                f"{self.name!r} starting at {self.start}", f"0 to {len(self.options) - 1}"
            )

    def to_payload(self) -> dict[str, Any]:
        """Give the control as plain JSON."""
        return {
            "name": self.name,
            "kind": self.kind,
            "label": self.label,
            "options": list(self.options),
            "start": self.start,
        }


@dataclass(frozen=True, kw_only=True)
class Click:
    """A click on a point of `trace` sets `control` to the option that its customdata names.

    The point's customdata (its first item, where there are several) is the option's text; a point
    with another text does nothing.
    """

    trace: int
    control: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Binding:
    """One property of a figure and its value for every option.

    Attributes
    ----------
    path
        The property, as plotly writes it: `y`, `marker.color`, `xaxis.range`, `shapes[0].x0`.
    rows
        The values, one per option: an array whose first axes are the options of `controls`, in
        their order, and whose last axis (if any) is the value; or a list with any JSON value per
        option (per combination, the last control running fastest); or a list of one-dimensional
        arrays of different lengths.
    controls
        The controls it depends on.
    traces
        Which traces it changes; empty for the layout.
    decimals
        Keep numbers to so many decimals, as integers of the smallest type they fit. None keeps
        what `rows` has: float64 where it is float64.
    palette
        What integers in `rows` stand for, by position: letters, colours. None for plain numbers.
    """

    path: str
    rows: Any
    controls: tuple[str, ...]
    traces: tuple[int, ...] = ()
    decimals: int | None = None
    palette: tuple[str, ...] | None = None

    def check(self, controls: Mapping[str, Control], n_traces: int) -> None:
        """Refuse a binding that does not fit the controls or the figure.

        Raises
        ------
        InputError
            For an unknown control, a trace that is not there, or another number of values.
        """
        unknown = [name for name in self.controls if name not in controls]
        if unknown or not self.controls:
            raise InputError(
                f"{self.path} bound to {', '.join(unknown) or 'nothing'}",
                f"controls among {', '.join(controls)}",
            )
        outside = [trace for trace in self.traces if not 0 <= trace < n_traces]
        if outside:
            raise InputError(f"{self.path} of trace {outside[0]}", f"0 to {n_traces - 1}")
        sizes = tuple(len(controls[name].options) for name in self.controls)
        if isinstance(self.rows, np.ndarray):
            found, expected = self.rows.shape[: len(sizes)], sizes
        else:
            found, expected = (len(self.rows),), (int(np.prod(sizes)),)
        if found != expected:
            raise InputError(
                f"values {' x '.join(map(str, found))} for {self.path}",
                f"{' x '.join(map(str, expected))}, the options of {', '.join(self.controls)}",
            )

    def value(self, state: Mapping[str, int], controls: Mapping[str, Control]) -> Any:
        """Give the value for a state (control name → position), as plotly takes it."""
        index = tuple(state[name] for name in self.controls)
        if isinstance(self.rows, np.ndarray):
            found = self.rows[index]
        else:
            sizes = tuple(len(controls[name].options) for name in self.controls)
            found = self.rows[int(np.ravel_multi_index(index, sizes))]
        if self.palette is not None:
            return [self.palette[code] for code in np.atleast_1d(found)]
        if isinstance(found, np.ndarray):
            return np.round(found, self.decimals) if self.decimals is not None else found
        return found.item() if isinstance(found, np.generic) else found

    def to_payload(self) -> dict[str, Any]:
        """Give the binding as JSON, numbers as base64 of little-endian integers or floats."""
        common = {"path": self.path, "controls": list(self.controls), "traces": list(self.traces)}
        if self.palette is not None:
            common["palette"] = list(self.palette)
        if isinstance(self.rows, np.ndarray):
            n_axes = len(self.controls)
            kind = "scalars" if self.rows.ndim == n_axes else "rows"
            packed = encode_array(self.rows, self.decimals)
            return (
                common | {"kind": kind, "length": int(np.prod(self.rows.shape[n_axes:]))} | packed
            )
        if self.rows and all(isinstance(row, np.ndarray) for row in self.rows):
            lengths = np.array([len(row) for row in self.rows], dtype=np.int32)
            packed = encode_array(np.concatenate(self.rows), self.decimals)
            return common | {"kind": "ragged", "lengths": lengths.tolist()} | packed
        return common | {"kind": "values", "values": list(self.rows)}


def encode_array(values: np.ndarray, decimals: int | None = None) -> dict[str, Any]:
    """Pack numbers: `{"type": "i2", "scale": 100, "data": base64}`.

    With `decimals`, they become integers (value x scale), NaN the smallest one of the type.
    Without, float64 stays float64: positions on a chromosome need it.

    Raises
    ------
    InputError
        For infinity, or numbers too large for 32 bits at that many decimals.
    """
    numbers = np.asarray(values)
    if decimals is not None:
        scaled = np.round(numbers.astype(np.float64) * 10.0**decimals)
        largest = float(np.nanmax(np.abs(scaled), initial=0.0))
        for kind in _INTEGERS:
            if largest <= np.iinfo(kind).max:
                missing = np.isnan(scaled)
                packed = np.where(missing, np.iinfo(kind).min, np.where(missing, 0, scaled))
                return _pack(packed.astype(kind)) | {"scale": 10**decimals}
        raise InputError(f"a value of {largest / 10**decimals:g}", "smaller, or fewer decimals")
    if numbers.dtype.kind in "bui":
        low, high = (int(numbers.min()), int(numbers.max())) if numbers.size else (0, 0)
        for kind in _INTEGERS:
            if np.iinfo(kind).min < low and high <= np.iinfo(kind).max:
                return _pack(numbers.astype(kind)) | {"scale": 1}
        numbers = numbers.astype(np.float64)
    if numbers.dtype.kind != "f":
        raise InputError(f"an array of {numbers.dtype}", "numbers, or a list")
    return _pack(numbers.astype(np.float64 if numbers.dtype.itemsize > 4 else np.float32))


def decode_rows(payload: dict[str, Any]) -> np.ndarray:
    """Read back the numbers of a payload, flat, as float64: what `runtime.js` does."""
    packed = np.frombuffer(base64.b64decode(payload["data"]), dtype="<" + payload["type"])
    numbers = packed.astype(np.float64)
    if "scale" in payload:
        numbers[packed == np.iinfo(packed.dtype).min] = np.nan
        numbers /= payload["scale"]
    return numbers


def _pack(numbers: np.ndarray) -> dict[str, Any]:
    little = np.ascontiguousarray(numbers, dtype=numbers.dtype.newbyteorder("<"))
    return {
        "type": f"{numbers.dtype.kind}{numbers.dtype.itemsize}",
        "data": base64.b64encode(little.tobytes()).decode("ascii"),
    }

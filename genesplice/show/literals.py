"""Types of notebook parameters: read from an annotation, checked, parsed from text, spelt out.

Accepted are `int`, `float`, `bool`, `str`, `list[...]` of these, `Literal[...]`, and any of them
`| None`: what papermill can write into a notebook as a literal.
"""

import ast
import math
import types
import typing
from typing import Any, Literal

Value = int | float | bool | str | list[Any] | None
"""What a parameter can be."""

_TYPES: dict[str, Any] = {"int": int, "float": float, "bool": bool, "str": str, "None": type(None)}
_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
_WORDS |= {type(None): "none"}


def read_type(node: ast.expr) -> Any:
    """Evaluate an annotation made of the known words, `|`, `list[...]` and `Literal[...]`.

    Raises
    ------
    ValueError
        If it is made of anything else.
    """
    if isinstance(node, ast.Constant) and node.value is None:
        return type(None)
    if isinstance(node, ast.Name) and node.id in _TYPES:
        return _TYPES[node.id]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return read_type(node.left) | read_type(node.right)
    if isinstance(node, ast.Subscript):
        word = ast.unparse(node.value).removeprefix("typing.")
        if word == "Literal":
            values = ast.literal_eval(node.slice)
            return Literal[values if isinstance(values, tuple) else (values,)]
        if word == "list":
            return list[read_type(node.slice)]  # type: ignore[misc]
    raise ValueError(f"unknown type {ast.unparse(node)}")


def fits_type(value: object, kind: Any) -> bool:
    """Whether a Python value is of a type; True is no integer, and 1 is a number."""
    if len(_alternatives(kind)) > 1:
        return any(fits_type(value, one) for one in _alternatives(kind))
    if typing.get_origin(kind) is Literal:
        return any(value == one and type(value) is type(one) for one in typing.get_args(kind))
    if typing.get_origin(kind) is list:
        inner = typing.get_args(kind)[0]
        return isinstance(value, list) and all(fits_type(one, inner) for one in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind


def parse_value(text: str, kind: Any) -> Value:
    """Read what somebody typed as a value of a type; text is the last thing tried.

    Lists are separated by commas, with or without brackets; empty text is an empty list. NaN and
    infinity are no numbers here.

    Raises
    ------
    ValueError
        If the text is not of the type.
    """
    for one in sorted(_alternatives(kind), key=lambda alternative: alternative is str):
        try:
            return _parse_one(text.strip(), one)
        except ValueError:
            continue
    raise ValueError(f"{text!r} is not {describe_type(kind)}")


def describe_type(kind: Any) -> str:
    """Say in words what a type accepts: `an integer or none`."""
    if len(_alternatives(kind)) > 1:
        return " or ".join(describe_type(one) for one in _alternatives(kind))
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) is list:
        return f"{describe_type(typing.get_args(kind)[0])}, several separated by commas"
    return _WORDS[kind]


def spell_type(kind: Any) -> str:
    """Write a type as an annotation: `int | None`."""
    if len(_alternatives(kind)) > 1:
        return " | ".join(spell_type(one) for one in _alternatives(kind))
    if kind is type(None):
        return "None"
    if typing.get_args(kind):
        return str(kind).replace("typing.", "")
    return kind.__name__


def _alternatives(kind: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if is_union else (kind,)


def _parse_one(text: str, kind: Any) -> Value:
    if typing.get_origin(kind) is list:
        inner, inside = typing.get_args(kind)[0], text.removeprefix("[").removesuffix("]")
        return [parse_value(piece, inner) for piece in inside.split(",")] if inside.strip() else []
    if kind is float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(text)
        return value
    if kind in (int, str):
        return kind(text)
    if kind is bool:
        choices: dict[str, Value] = {"true": True, "false": False}
    elif kind is type(None):
        choices = {"none": None, "null": None}
    else:
        choices = {str(value).lower(): value for value in typing.get_args(kind)}
    if text.lower() not in choices:
        raise ValueError(text)
    return choices[text.lower()]

"""Parameters cells: read without executing, checked before a run."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_notebooks import code, md, write_notebook

from genesplice.errors import InputError
from genesplice.runtime import say_seconds
from genesplice.show.notebooks import check_parameters, list_notebooks, select_notebook

CELL = """\
# What a reader may want to change
seed: int = 0  # of everything random
rate: float = 1e-3
graph: bool = True
preset: str = "quick"
limit: int | None = None  # genes; None for all
folds: list[int] = [0, 1]
mode: Literal["dense", "windowed"] = "dense"
shift: int = -3
"""


def write(tmp_path: Path, *cells: str, name: str = "01_a.ipynb") -> Path:
    return write_notebook(tmp_path / name, *(code(cell, "parameters") for cell in cells))


def typed(folder: Path, annotation: str, default: object, text: str) -> object:
    """What a notebook with `x: annotation = default` is given for `-p x=text`."""
    write(folder, f"x: {annotation} = {default!r}")
    return check_parameters(list_notebooks(folder), {"x": text})["01_a"]["x"]


def test_a_parameters_cell_is_read_with_types_and_help(tmp_path: Path) -> None:
    write(tmp_path, CELL)
    (notebook,) = list_notebooks(tmp_path)
    found = {name: (info.default, info.spelt) for name, info in notebook.parameters.items()}
    assert found == {
        "seed": (0, "int"),
        "rate": (1e-3, "float"),
        "graph": (True, "bool"),
        "preset": ("quick", "str"),
        "limit": (None, "int | None"),
        "folds": ([0, 1], "list[int]"),
        "mode": ("dense", "Literal['dense', 'windowed']"),
        "shift": (-3, "int"),
    }
    assert notebook.parameters["seed"].help == "of everything random"
    assert notebook.parameters["limit"].help == "genes; None for all"
    assert notebook.parameters["rate"].help == ""


def test_notebooks_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_notebook(tmp_path / "02_b.ipynb", md("no heading"), code("1"), code("  "))
    write_notebook(tmp_path / "01_a.ipynb", md("## small\n\n# The *story* #"), code("1"))
    write_notebook(tmp_path / "10_graph_fine-tuning.ipynb", md("text"))
    (tmp_path / ".ipynb_checkpoints").mkdir()
    listed = list_notebooks(tmp_path)
    assert [notebook.stem for notebook in listed] == ["01_a", "02_b", "10_graph_fine-tuning"]
    assert [notebook.title for notebook in listed] == ["The *story*", "B", "Graph fine tuning"]
    assert [notebook.n_cells for notebook in listed] == [1, 1, 0]
    assert listed[0].parameters == {}


@pytest.mark.parametrize(
    ("cell", "match"),
    [
        ("seed = 3", r"'seed = 3' in the parameters cell, expected annotated literals"),
        ("seed: int", "annotated literals"),
        ("seed: int = 1 + 2", "annotated literals"),
        ("seed: int = other", "annotated literals"),
        ("table: dict[str, int] = {}", "annotated literals"),
        ("import os", "annotated literals"),
        ("seed: len('a') = 1", "annotated literals"),
        ("seed: np.ndarray = 1", "annotated literals"),
        ("a.b: int = 3", "annotated literals"),
        ('seed: int = "3"', "seed = '3', expected int"),
        ("seed: int = True", "seed = True, expected int"),
        ("folds: list[int] = [1, 'a']", "expected list\\[int\\]"),
        ("seed: int = (", r"line 1 of the parameters cell: '\(' was never closed"),
    ],
)
def test_a_cell_that_is_no_list_of_literals_is_refused(
    tmp_path: Path, cell: str, match: str
) -> None:
    path = write(tmp_path, cell)
    with pytest.raises(InputError, match=match) as raised:
        list_notebooks(tmp_path)
    assert str(raised.value).startswith(str(path))


def test_what_is_no_notebook_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no notebook, .*\.ipynb: .* with --notebooks$"):
        list_notebooks(tmp_path)
    for text in ("", "{", "[]", '{"cells": 3}'):
        (tmp_path / "01.ipynb").write_text(text)
        with pytest.raises(InputError, match="not a notebook"):
            list_notebooks(tmp_path)


def test_what_is_read_must_be_there_unless_it_is_made(tmp_path: Path) -> None:
    cell = 'data_dir: str = "data/own"\nseed: str = ""  # a word'
    notebooks = list_notebooks(write(tmp_path / "notebooks", cell).parent)
    assert check_parameters(notebooks, {"data_dir": "data/own", "seed": "-1"})["01_a"]
    with pytest.raises(InputError, match="found -p data_dir=data/b, expected one that is there"):
        check_parameters(notebooks, {"data_dir": "data/b"})
    (tmp_path / "data" / "b").mkdir(parents=True)
    for text in ("data/b", str(tmp_path / "data" / "b"), ""):
        assert check_parameters(notebooks, {"data_dir": text})["01_a"] == {"data_dir": text}


def test_values_are_typed_per_notebook(tmp_path: Path) -> None:
    write(tmp_path, "seed: int = 0\nscale: float = 1.0")
    write(tmp_path, 'seed: str = "a"\nfolds: list[int] = []', name="02_b.ipynb")
    notebooks = list_notebooks(tmp_path)
    assert check_parameters(notebooks, {"seed": "3", "folds": "0,2", "scale": "1e2"}) == {
        "01_a": {"seed": 3, "scale": 100.0},
        "02_b": {"seed": "3", "folds": [0, 2]},
    }
    assert check_parameters(notebooks, {}) == {"01_a": {}, "02_b": {}}
    with pytest.raises(InputError, match="unknown parameter 'sede': did you mean 'seed'"):
        check_parameters(notebooks, {"sede": "3"})
    with pytest.raises(InputError, match="unknown parameter 'zzz': there are: folds, scale, seed"):
        check_parameters(notebooks, {"zzz": "3"})
    with pytest.raises(InputError, match="scale = 'big', expected float"):
        check_parameters(notebooks, {"scale": "big"})
    with pytest.raises(InputError, match="-p run_dir=here, expected no value"):
        check_parameters(notebooks, {"run_dir": "here"})


@pytest.mark.parametrize(
    ("text", "annotation", "default", "value"),
    [
        ("3", "int", 0, 3),
        (" -3 ", "int", 0, -3),
        ("1_000", "int", 0, 1000),
        ("3", "float", 0, 3.0),
        ("TRUE", "bool", False, True),
        ("false", "bool", False, False),
        ("none", "int | None", 1, None),
        ("7", "int | None", None, 7),
        ("None", "str | None", "", None),
        ("3", "str", "", "3"),
        ("", "list[int]", [1], []),
        ("[1, 2]", "list[int]", [], [1, 2]),
        ("lacZ,b0001", "list[str]", [], ["lacZ", "b0001"]),
        ("none", "list[int] | None", [1], None),
        ("dense", "Literal['dense', 'x']", "x", "dense"),
        ("2", "Literal[1, 2]", 1, 2),
        ("3", "int | str", "", 3),
        ("three", "int | str", 0, "three"),
    ],
)
def test_text_becomes_a_value(
    tmp_path: Path, text: str, annotation: str, default: object, value: object
) -> None:
    found = typed(tmp_path, annotation, default, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation", "default"),
    [
        ("3.0", "int", 0),
        ("", "int", 0),
        ("nan", "float", 0.0),
        ("inf", "float", 0.0),
        ("1", "bool", False),
        ("x", "int | None", None),
        ("1,x", "list[int]", []),
        ("dens", "Literal['dense', 'windowed']", "dense"),
    ],
)
def test_text_of_another_type_is_refused(
    tmp_path: Path, text: str, annotation: str, default: object
) -> None:
    with pytest.raises(InputError, match="found x = ") as raised:
        typed(tmp_path, annotation, default, text)
    assert str(raised.value) == f"found x = {text!r}, expected {annotation}"


@settings(max_examples=30)
@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
def test_what_python_prints_is_read_back(tmp_path_factory, value: float | bool) -> None:
    folder = tmp_path_factory.mktemp("one")
    assert typed(folder, type(value).__name__, type(value)(), str(value)) == value


def test_a_notebook_is_found_by_the_start_of_its_name(tmp_path: Path) -> None:
    for name in ("01_data.ipynb", "02_graph.ipynb", "02_graph_more.ipynb"):
        write(tmp_path, name=name)
    notebooks = list_notebooks(tmp_path)
    for only, stem in (
        ("01", "01_data"),
        ("02_graph", "02_graph"),
        ("more", "02_graph_more"),
        ("01_data.ipynb", "01_data"),
    ):
        assert select_notebook(notebooks, only).stem == stem
    with pytest.raises(InputError, match="'02', which fits 02_graph, 02_graph_more"):
        select_notebook(notebooks, "02")
    with pytest.raises(InputError, match="'9', expected one of 01_data"):
        select_notebook(notebooks, "9")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0:00"), (0.4, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3725, "1:02:05")],
)
def test_durations_are_said_like_a_clock(seconds: float, said: str) -> None:
    assert say_seconds(seconds) == said

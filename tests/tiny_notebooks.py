"""Notebooks written by the tests, and notebooks run without a kernel."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import IPython.display
import nbformat
import pytest


def md(source: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_markdown_cell(source, id=cell_id(source))


def code(source: str, *tags: str, outputs: Sequence[dict] = ()) -> nbformat.NotebookNode:
    cell = nbformat.v4.new_code_cell(source, id=cell_id(source))
    cell.outputs = [nbformat.from_dict(output) for output in outputs]
    if tags:
        cell.metadata["tags"] = list(tags)
    return cell


def cell_id(source: str) -> str:
    """Ids from the text, so that the same notebook is the same file."""
    return f"cell-{sum(source.encode()) % 100_000}-{len(source)}"


def write_notebook(path: Path, *cells: nbformat.NotebookNode) -> Path:
    notebook = nbformat.v4.new_notebook(
        cells=list(cells),
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        },
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def run_cells(path: Path, patch: pytest.MonkeyPatch, given: dict[str, Any]) -> list[Any]:
    """Run the cells of a notebook in this process, with those of `given` that it takes.

    Given back is what it shows: values that cells end with, and what they display.
    """
    names, shown = dict[str, Any](), list[Any]()
    patch.setattr(IPython.display, "display", shown.append)
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type != "code":
            continue
        tree = ast.parse(cell.source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        where = f"{path.stem}, cell {number}"
        exec(compile(tree, where, "exec"), names)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), where, "eval"), names))
        if "parameters" in cell.metadata.get("tags", []):
            names |= {name: value for name, value in given.items() if name in names}
    return shown


PARAMETERS = 'preset: str = "quick"\nseed: int = 0  # of everything random\nrun_dir: str = ""'

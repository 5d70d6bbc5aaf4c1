"""Notebooks written by the tests."""

from collections.abc import Sequence
from pathlib import Path

import nbformat


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


PARAMETERS = 'preset: str = "quick"\nseed: int = 0  # of everything random\nrun_dir: str = ""'

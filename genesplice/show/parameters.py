"""The notebooks of a folder and their parameters, read without executing anything.

papermill only warns about a misspelt parameter and goes on with the default, and cannot read
`int | None` or `Literal`; so the parameters cell is parsed here, and checked before a run starts.
"""

import ast
import difflib
import io
import re
import tokenize
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import nbformat

from genesplice.errors import InputError
from genesplice.show.literals import (
    Value,
    describe_type,
    fits_type,
    parse_value,
    read_type,
    spell_type,
)


class ParameterInfo(NamedTuple):
    """One line of a parameters cell: `name: type = default  # help`."""

    default: Value
    type: Any
    help: str

    @property
    def type_name(self) -> str:
        """The annotation as its author wrote it, e.g. `int | None`."""
        return spell_type(self.type)


class NotebookInfo(NamedTuple):
    """A notebook, its title (the first heading) and what can be set in it.

    `n_cells` counts code cells that hold code.
    """

    stem: str
    title: str
    path: Path
    parameters: dict[str, ParameterInfo]
    n_cells: int


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook of format 4, cells without an id included.

    Raises
    ------
    InputError
        If the file is missing or not a notebook.
    """
    try:
        source = path.read_text(encoding="utf-8")
        notebook = nbformat.reader.reads(source)
        return notebook if notebook.nbformat == 4 else nbformat.convert(notebook, 4)
    except FileNotFoundError:
        raise InputError("no such notebook", path=path) from None
    except (ValueError, AttributeError, nbformat.reader.NotJSONError) as error:
        raise InputError(f"not a notebook ({_first_line(error)})", path=path) from None


def read_parameters(notebook: nbformat.NotebookNode, path: Path) -> dict[str, ParameterInfo]:
    """Read the cells tagged `parameters`, by name, in their order; `path` is for messages.

    Raises
    ------
    InputError
        If such a cell holds something else than annotated literals of the annotated type.
    """
    parameters: dict[str, ParameterInfo] = {}
    for cell in notebook.cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            parameters |= _parse_cell(cell.source, path)
    return parameters


def list_notebooks(folder: Path) -> list[NotebookInfo]:
    """List the notebooks of `folder` in the order in which they run, by file name.

    Hidden files and checkpoints are left out.

    Raises
    ------
    InputError
        If there is no notebook, or a parameters cell holds something else than annotated literals.
    """
    paths = sorted(path for path in folder.glob("*.ipynb") if not path.name.startswith("."))
    if not paths:
        raise InputError("no notebook", "files ending in .ipynb", path=folder)
    return [_read_info(path) for path in paths]


def select_notebook(notebooks: Iterable[NotebookInfo], only: str) -> NotebookInfo:
    """Find the one notebook whose name begins with, or contains, `only`.

    Raises
    ------
    InputError
        If none or several fit.
    """
    wanted, everything = Path(only).stem if only.endswith(".ipynb") else only, list(notebooks)
    for fits in (str.__eq__, str.startswith, str.__contains__):
        found = [notebook for notebook in everything if fits(notebook.stem, wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"notebook {only!r}, which fits {', '.join(n.stem for n in found)}", "one of them"
            )
    raise InputError(f"notebook {only!r}", "one of " + ", ".join(n.stem for n in everything))


def check_parameters(
    notebooks: Iterable[NotebookInfo],
    given: Mapping[str, str],
    reserved: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Value]]:
    """Turn parameters typed on a command line into typed values, per notebook.

    A parameter may exist in only some of the notebooks; it is given to those that declare it.

    Parameters
    ----------
    given
        Names and values as typed: `{"seed": "3", "folds": "0,1"}`.
    reserved
        Names that are set in another way, and the hint to give instead.

    Returns
    -------
    dict
        Notebook stem → name → value, for every notebook, with only the names that were given.

    Raises
    ------
    InputError
        For a name that no notebook declares ("did you mean …") and for a value of another type.
    """
    everything = list(notebooks)
    known = sorted({name for notebook in everything for name in notebook.parameters})
    for name in given:
        if reserved and name in reserved:
            raise InputError(f"-p {name}={given[name]}", reserved[name])
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise InputError(f"unknown parameter {name!r}: {hint}")
    return {
        notebook.stem: {
            name: _parse_value(name, text, notebook.parameters[name])
            for name, text in given.items()
            if name in notebook.parameters
        }
        for notebook in everything
    }


def _read_info(path: Path) -> NotebookInfo:
    notebook = read_notebook(path)
    title, n_cells = "", 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and not title:
            heading = re.search(r"^#\s+(.+?)\s*#*\s*$", cell.source, flags=re.MULTILINE)
            title = heading.group(1) if heading else ""
        elif cell.cell_type == "code":
            n_cells += bool(cell.source.strip())
    parameters = read_parameters(notebook, path)
    fallback = re.sub(r"[_-]+", " ", re.sub(r"^\d+[_-]*", "", path.stem)).strip()
    title = title or (fallback or path.stem).capitalize()
    return NotebookInfo(path.stem, title, path, parameters, n_cells)


def _parse_cell(source: str, path: Path) -> dict[str, ParameterInfo]:
    """Parse a parameters cell. Lines count within the cell."""
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise InputError(
            f"line {error.lineno} of the parameters cell: {error.msg}", path=path
        ) from None
    comments = _comments(source)
    parameters: dict[str, ParameterInfo] = {}
    for statement in body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring
        line = source.splitlines()[statement.lineno - 1].strip()
        refused = InputError(
            f"{line!r} in the parameters cell", "annotated literals, `name: int = 0`", path=path
        )
        if not isinstance(statement, ast.AnnAssign) or statement.value is None:
            raise refused
        if not isinstance(statement.target, ast.Name):
            raise refused
        name = statement.target.id
        try:
            default = ast.literal_eval(statement.value)
            kind = read_type(statement.annotation)
        except (ValueError, TypeError):
            raise refused from None
        if not fits_type(default, kind):
            raise InputError(f"{name} = {default!r}", describe_type(kind), path=path)
        comment = comments.get(statement.end_lineno or 0, "")
        parameters[name] = ParameterInfo(default, kind, comment)
    return parameters


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        t.start[0]: t.string.lstrip("# ").rstrip() for t in tokens if t.type == tokenize.COMMENT
    }


def _parse_value(name: str, text: str, info: ParameterInfo) -> Value:
    try:
        return parse_value(text, info.type)
    except ValueError:
        raise InputError(f"{name} = {text!r}", describe_type(info.type)) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

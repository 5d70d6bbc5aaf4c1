"""One notebook: what can be set in it, read without executing, and its execution by papermill.

papermill only warns about a misspelt parameter and goes on with the default, and its
`inspect_notebook` skips every line that it does not understand, such as `limit: int | None = 3`;
so the parameters cell is parsed here, and checked before a run starts.
"""

import ast
import datetime
import io
import itertools
import re
import tokenize
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import nbformat

from genesplice.config import read_value
from genesplice.errors import InputError, did_you_mean, require
from genesplice.runtime import n_cores

Value = int | float | bool | str | list[Any] | None
"""What a parameter can be."""

_TYPES = {"int": int, "float": float, "bool": bool, "str": str, "list": list, "Literal": Literal}
_MESSAGE_CHARACTERS = 300
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class ParameterInfo(NamedTuple):
    """A line of a parameters cell, `name: type = default  # help`; `spelt` is the type as text."""

    default: Value
    type: Any
    spelt: str
    help: str


class NotebookInfo(NamedTuple):
    """A notebook, its title (the first heading) and what can be set in it.

    `n_cells` counts code cells that hold code. `needs` are the notebooks, by stem, whose results it
    reads: all before it, unless its metadata has `genesplice.needs`, the beginnings of their names.
    `seconds`, from `genesplice.seconds`, are what it takes as a rule, by preset, and `replaced`
    (`genesplice.replaced`) those of its needs that published weights take the place of.
    """

    stem: str
    title: str
    path: Path
    parameters: dict[str, ParameterInfo]
    n_cells: int
    needs: tuple[str, ...] = ()
    seconds: Mapping[str, float] = MappingProxyType({})
    replaced: Mapping[str, tuple[str, ...]] = MappingProxyType({})


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook of format 4, cells without an id included.

    Raises
    ------
    InputError
        If the file is missing or not a notebook.
    """
    try:
        notebook = nbformat.reader.reads(path.read_text(encoding="utf-8"))
        return notebook if notebook.nbformat == 4 else nbformat.convert(notebook, 4)
    except FileNotFoundError:
        raise InputError("no such notebook", path=path) from None
    except (ValueError, AttributeError, nbformat.reader.NotJSONError) as error:
        raise InputError(f"not a notebook ({one_line(str(error))})", path=path) from None


def list_notebooks(folder: Path) -> list[NotebookInfo]:
    """List the notebooks of `folder` in the order in which they run, by file name.

    Hidden files and checkpoints are left out.

    Raises
    ------
    InputError
        If there is no notebook, a parameters cell holds something else than annotated literals, or
        a notebook needs one that is not before it.
    """
    paths = sorted(path for path in folder.glob("*.ipynb") if not path.name.startswith("."))
    if not paths:
        where = "start this in the project's folder, or name theirs with --notebooks"
        raise InputError("no notebook", f"files ending in .ipynb: {where}", path=folder)
    found: list[NotebookInfo] = []
    for path in paths:
        notebook = read_notebook(path)
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        heading = re.search(r"^#\s+(.+?)\s*#*\s*$", text, flags=re.MULTILINE)
        words = re.sub(r"[_-]+", " ", re.sub(r"^\d+[_-]*", "", path.stem)).strip()
        title = heading.group(1) if heading else (words or path.stem).capitalize()
        n_cells = sum(is_code(cell) for cell in notebook.cells)
        needs, about = [one.stem for one in found], notebook.metadata.get("genesplice", {})

        def find(names: Sequence[str], stems: Sequence[str], path: Path = path) -> tuple[str, ...]:
            before = f"one of {', '.join(stems) or 'no notebook'} before it"
            fits = [[stem for stem in stems if stem.startswith(one)] for one in names]
            for name, one in zip(names, fits, strict=True):
                require(len(one) == 1, f"it needs notebook {name!r}", before, path)
            return tuple(stem for one in fits for stem in one)

        own = tuple(needs) if about.get("needs") is None else find(about["needs"], needs)
        replaced = {str(k): find(names, own) for k, names in about.get("replaced", {}).items()}
        seconds = {str(preset): float(one) for preset, one in about.get("seconds", {}).items()}
        parameters = read_parameters(notebook, path)
        one = path.stem, title, path, parameters, n_cells, own, seconds, replaced
        found.append(NotebookInfo(*one))
    return found


def select_notebook(notebooks: Iterable[NotebookInfo], only: str) -> NotebookInfo:
    """Find the one notebook whose name is, begins with, or contains `only`.

    Raises
    ------
    InputError
        If none or several fit.
    """
    name, everything = only.removesuffix(".ipynb"), list(notebooks)
    for fits in (str.__eq__, str.startswith, str.__contains__):
        found = [notebook for notebook in everything if fits(notebook.stem, name)]
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(notebook.stem for notebook in found)
            raise InputError(f"notebook {only!r}, which fits {listed}", "one of them")
    raise InputError(f"notebook {only!r}", "one of " + ", ".join(n.stem for n in everything))


def read_parameters(notebook: nbformat.NotebookNode, path: Path) -> dict[str, ParameterInfo]:
    """Read the cells tagged `parameters`, by name, in their order; `path` is for messages.

    Types are `int`, `float`, `bool`, `str`, `list[...]`, `Literal[...]` and unions of them.

    Raises
    ------
    InputError
        If such a cell holds something else than annotated literals of the annotated type.
    """
    parameters: dict[str, ParameterInfo] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code" or "parameters" not in cell.metadata.get("tags", []):
            continue
        try:
            body = ast.parse(cell.source).body
        except SyntaxError as error:
            what = f"line {error.lineno} of the parameters cell: {error.msg}"
            raise InputError(what, path=path) from None
        tokens = tokenize.generate_tokens(io.StringIO(cell.source).readline)
        comments = {t.start[0]: t.string for t in tokens if t.type == tokenize.COMMENT}
        for statement in body:
            try:
                if not isinstance(statement, ast.AnnAssign):
                    raise ValueError(statement)
                name, spelt = ast.unparse(statement.target), ast.unparse(statement.annotation)
                default = ast.literal_eval(statement.value or statement.target)
                kind = _read_type(statement.annotation)
                if not name.isidentifier():
                    raise ValueError(name)
            except (ValueError, TypeError):
                line = cell.source.splitlines()[statement.lineno - 1].strip()
                literals = "annotated literals, `name: int = 0`"
                raise InputError(f"{line!r} in the parameters cell", literals, path=path) from None
            if not _fits(default, kind):
                raise InputError(f"{name} = {default!r}", spelt, path=path)
            comment = comments.get(statement.end_lineno or 0, "").lstrip("# ").rstrip()
            parameters[name] = ParameterInfo(default, kind, spelt, comment)
    return parameters


RESERVED = {"preset": "--preset", "run_dir": "no value: every run has a folder of its own"}
"""What runs set themselves, and the hint to whoever types it."""
READ = ("data_dir", "fasta", "annotation", "expression", "tracks", "table", "vcf")
"""What names a file or folder that is read, `tracks` several, as seen from where kernels work."""


def check_parameters(
    notebooks: Iterable[NotebookInfo], given: Mapping[str, str], preset: str | None = None
) -> dict[str, dict[str, Value]]:
    """Turn parameters typed on a command line into typed values, per notebook.

    Parameters
    ----------
    given
        Names and values as typed: `{"seed": "3", "folds": "0,1"}`. One may exist in only some of
        the notebooks; it is given to those that declare it.
    preset
        Every notebook that has one must know this one.

    Returns
    -------
    dict
        Notebook stem → name → value, for every notebook, with only the names that were given.

    Raises
    ------
    InputError
        For a name that no notebook declares ("did you mean …") or that runs set themselves, and for
        a value of another type, a seed below 0, or a file to read (no default) that is not there.
    """
    notebooks = list(notebooks)
    declared = {notebook.stem: notebook.parameters for notebook in notebooks}
    known = sorted({name for parameters in declared.values() for name in parameters})
    for name, text in given.items():
        if name in RESERVED:
            raise InputError(f"-p {name}={text}", RESERVED[name])
        if name not in known:
            raise InputError(f"unknown parameter {name!r}: {did_you_mean(name, known)}")
    typed: dict[str, dict[str, Value]] = {}
    for stem, parameters in declared.items():
        if preset is not None and "preset" in parameters:
            _parse("preset", preset, parameters["preset"])
        own = {name: text.strip() for name, text in given.items() if name in parameters}
        typed[stem] = {name: _parse(name, text, parameters[name]) for name, text in own.items()}
    for notebook in notebooks:
        folder, values = notebook.path.resolve().parents[1], typed[notebook.stem]
        seed = values.get("seed")
        require(not isinstance(seed, int) or seed >= 0, f"-p seed={seed}", "0 or more")
        for name in (name for name in READ if values.get(name)):
            info, text = notebook.parameters[name], str(values[name])
            files = [] if text == info.default else text.split() if name == "tracks" else [text]
            missing = [file for file in files if not (folder / file).exists()]
            require(not missing, f"-p {name}={text}", f"one that is there: {info.help or 'a path'}")
    return typed


# --- notebooks as tasks of a run ---


class Task(NamedTuple):
    """A notebook and its parameters; `name` is its stem, or a combination's name in a sweep.

    `needs` are tasks that must be done first, if they are of the same run, `replaced` those of them
    that published weights take the place of, `threads` those of its kernel; where `gives_way`,
    those come first that others wait for.
    """

    name: str
    notebook: NotebookInfo
    values: dict[str, Value]
    needs: tuple[str, ...] = ()
    threads: int | None = None
    gives_way: bool = False
    replaced: tuple[str, ...] = ()


HasWeights = Callable[[Task], bool]


class Order:
    """Which tasks of a run can begin, those first that most of the run's time waits for.

    Parameters
    ----------
    records
        Of the manifest, by name; their `state` is read as it changes.
    has_weights
        Whether there are published weights for the data of a task; None: never.
    seconds
        What tasks take, by name, where it is known.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        records: Mapping[str, Mapping[str, Any]],
        has_weights: HasWeights | None,
        seconds: Mapping[str, float],
    ) -> None:
        by_name = {task.name: task for task in tasks}
        self.records = {name: records[name] for name in by_name}
        self._has_weights = cache(
            lambda name: has_weights is not None and has_weights(by_name[name])
        )
        self.left: dict[str, float] = {}
        """Seconds from a task's begin to the end of the last one that waits for it."""
        for task in reversed(tasks):
            waiting = (one for one in tasks if task.name in {*one.needs} - {*one.replaced})
            after = max((self.left.get(one.name, 0.0) for one in waiting), default=0.0)
            self.left[task.name] = seconds.get(task.name, 0.0) + after

    def lacking(self, task: Task) -> list[str]:
        """What must be done before this task, by name."""
        own = (name for name in sorted(task.needs) if name in self.records)
        lacking = [name for name in own if self.records[name]["state"] != "done"]
        # Whether there are weights is asked when all else is done: the data may be made by it.
        is_free = lacking and {*lacking} <= {*task.replaced} and self._has_weights(task.name)
        return [] if is_free else lacking

    def ready(self, waiting: Iterable[Task]) -> list[Task]:
        """Those that can begin."""
        ready = [task for task in waiting if not self.lacking(task)]
        return sorted(ready, key=lambda task: self.left[task.name], reverse=True)


def make_run_directory(parent: Path, label: str) -> Path:
    """Create `parent/<time>-<label>`, with `-2`, `-3` … behind it where that exists already."""
    parent.mkdir(parents=True, exist_ok=True)
    stem = f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{label}"
    for number in itertools.count(1):
        directory = parent / (stem if number == 1 else f"{stem}-{number}")
        with suppress(FileExistsError):
            directory.mkdir()
            break
    return directory


def share_cores(tasks: Sequence[Task], at_once: int) -> list[Task]:
    """Threads for each task: all cores where no other can run beside it, else its share of them.

    They depend on the tasks alone, never on which happen to run: a thread more or less changes
    the last digits of a result.
    """
    before: dict[str, set[str]] = {}
    for task in tasks:
        before[task.name] = set(task.needs).union(*(before.get(one, ()) for one in task.needs))
    shared = []
    for task in tasks:
        others = before.keys() - before[task.name] - {task.name}
        has_company = any(task.name not in before[other] for other in others)
        threads = n_cores() // at_once if has_company else n_cores()
        is_last = not any(task.name in other.needs for other in tasks)
        gives_way = has_company and is_last
        shared.append(task._replace(threads=max(1, threads), gives_way=gives_way))
    return shared


def make_task(
    name: str, notebook: NotebookInfo, typed: Mapping[str, Value], preset: str, run_dir: Path
) -> Task:
    """The task of running a notebook with these values and what every run gives."""
    values: dict[str, Value] = {"preset": preset, "run_dir": str(run_dir.resolve()), **typed}
    values = {k: v for k, v in values.items() if k in notebook.parameters}
    replaced = notebook.replaced.get(preset, ())
    return Task(name, notebook, values, notebook.needs, replaced=replaced)


# --- small things ---


def is_code(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell holds code that runs."""
    return cell.cell_type == "code" and bool(cell.source.strip())


def one_line(text: str) -> str:
    """The first line of a message, without colours, cut to what fits a screen."""
    line = (_ANSI.sub("", text).strip().splitlines() or [""])[0]
    return line if len(line) <= _MESSAGE_CHARACTERS else line[: _MESSAGE_CHARACTERS - 1] + "…"


def _read_type(annotation: ast.expr) -> Any:
    """What an annotation made of known names, `|`, `list[...]` and `Literal[...]` stands for."""
    match annotation:
        case ast.Name(name) if name in _TYPES:
            return _TYPES[name]
        case ast.Constant(value):
            return value
        case ast.Tuple(parts):
            return tuple(map(_read_type, parts))
        case ast.Subscript(name, inner):
            return _read_type(name)[_read_type(inner)]
        case ast.BinOp(left, ast.BitOr(), right):
            return _read_type(left) | _read_type(right)
    raise ValueError(f"unknown type {ast.unparse(annotation)}")


def _fits(value: object, kind: Any) -> bool:
    """Whether a value is of a type; True is no integer, and 1 is a number."""
    inner = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if typing.get_origin(kind) is list and isinstance(value, list):
        return all(_fits(item, inner[0]) for item in value)
    return type(value) is kind or (kind is float and type(value) is int) or value in inner


def _parse(name: str, text: str, info: ParameterInfo) -> Value:
    """Read what somebody typed as a value of the parameter's type."""
    try:
        return read_value(text, info.type, name)
    except InputError:
        raise InputError(f"{name} = {text!r}", info.spelt) from None

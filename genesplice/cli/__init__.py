"""The command line: `genesplice VERB`. Paths on stdout, progress on stderr.

Exit codes: 0 done, 1 the work failed, 2 wrong usage or input, 130 interrupted, 143 ended from
outside (SIGTERM).
"""

import contextlib
import importlib
import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import genesplice as gs
from genesplice.config import PRESETS, Config, load_preset, override
from genesplice.errors import GeneSpliceError, require
from genesplice.runtime import (
    atomic_file,
    claimed,
    is_taken,
    keep_freed_memory,
    require_file,
    require_folder,
    require_free,
    write_manifest,
)
from genesplice.runtime import tell as say

if TYPE_CHECKING:
    from genesplice.data.bundle import Bundle
    from genesplice.predict.models import Models, Needs
    from genesplice.results import Metric

app = typer.Typer(
    name="genesplice",
    help="Does longer DNA context help predict expression on your data? Measure it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SHOWN = ("level_spearman", "level_r2", "profile_r")
STARTED = time.monotonic()
HELD = contextlib.ExitStack()
"""What a verb holds until it ends."""


class _Watched:
    """A text stream that knows its last line, and when something was last written."""

    def __init__(self, target: Any) -> None:
        self.target, self.line = target, "genesplice: at work"
        self.last_write = self.began = time.monotonic()

    def write(self, text: str) -> int:
        self.last_write = time.monotonic()
        if text.strip():
            self.line, self.began = text.strip().splitlines()[-1], self.last_write
        return int(self.target.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)


@contextlib.contextmanager
def never_silent(every_s: float = 15.0, still: Callable[[], str] = str) -> Iterator[None]:
    """Where nothing was said for so long, say the last line of stderr again, and for how long.

    `still` says what is at work, where that need not be what spoke last.
    """
    stream, is_over = _Watched(sys.stderr), threading.Event()

    def watch() -> None:
        while not is_over.wait(min(1.0, every_s / 4)):
            now = time.monotonic()
            if now - stream.last_write >= every_s:
                stream.last_write = now
                said = still() or stream.line
                stream.target.write(f"{said}; no news for {now - stream.began:.0f} s\n")
                stream.target.flush()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    sys.stderr = stream  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stderr = stream.target
        is_over.set()
        thread.join()


def claim(out: Path) -> Path:
    """See that `out` can be written and that nobody else does, for as long as the verb runs.

    Until then the verb is never silent for long.
    """
    require_folder(out.parent)
    HELD.enter_context(claimed(out))
    HELD.enter_context(never_silent())
    return out


def claim_folder(context: Any, out: Path) -> Path:
    """See, too, that `out` is a new folder, or one to be replaced."""
    require_free(claim(out), overwrite=context.params["overwrite"])
    return out


def claim_file(context: Any, out: Path) -> Path:
    """See, too, that `out` is a new file, or one to be replaced."""
    require_file(claim(out), overwrite=context.params["overwrite"])
    return out


def claim_run(context: Any, out: Path) -> Path:
    """See, too, that `out` is a new folder, or one to go on in; of several processes the first."""
    require_folder(claim(out))
    goes_on = context.params["resume"] or os.environ.get("RANK", "0") != "0"
    is_free = goes_on or not is_taken(out)
    require(is_free, f"{out} exists and is not empty", "a new folder, or --resume")
    return out


def reads(text: str, *besides: str, or_folder: bool = False) -> Any:
    """An option for a file, or several, that must be there before any work, or one of `besides`."""
    wanted = "a file or a folder" if or_folder else "a file"

    def check(value: Any) -> Any:
        several = value if isinstance(value, list | tuple) else [value]
        for one in (one for one in several if one is not None and str(one) not in besides):
            # Of a track there may be two: PLUS.bw,MINUS.bw.
            for path in [one] if isinstance(one, Path) else map(Path, one.split(",")):
                is_fine = path.exists() and (or_folder or not path.is_dir())
                require(is_fine, "a folder" if path.is_dir() else "no such file", wanted, path)
        return value

    return typer.Option(callback=check, help=text)


Data = Annotated[Path, typer.Option("--data", help="A folder that `prepare` wrote.")]
Out = Annotated[Path, typer.Option("--out", callback=claim_folder, help="A new folder to write.")]
OutFile = Annotated[Path, typer.Option("--out", callback=claim_file, help="A new file to write.")]
Folder = Annotated[Path, typer.Argument(help="A data folder, or the one file of it.")]
NewFolder = Annotated[Path, typer.Argument(callback=claim_folder, help="The folder to write.")]
NewFile = Annotated[Path, typer.Argument(callback=claim_file, help="The file to write.")]
RunOut = Annotated[
    Path,
    typer.Option("--out", callback=claim_run, help="A new folder; with --resume that of the run."),
]
Reports = Annotated[
    Path, typer.Option("--out", callback=require_folder, help="Folder of runs and reports.")
]
ModelDir = Annotated[
    Path, typer.Option("--model", help="A folder that `finetune` wrote, or one fold's in it.")
]
OtherGenome = Annotated[bool, typer.Option("--other-genome", help="A model of another genome too.")]
Preset = Annotated[str, typer.Option("--preset", help=f"One of {', '.join(PRESETS)}.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, repeatable.")]
# Eager: known when the place to write is looked at.
Resume = Annotated[
    bool, typer.Option("--resume", is_eager=True, help="Go on with the run in --out.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", is_eager=True, help="Replace what is there.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.callback(invoke_without_command=True)
def start(version: Annotated[bool, typer.Option("--version", help="Say it.")] = False) -> None:
    """Before the verb."""
    if version:
        print(f"genesplice {gs.__version__}")
        raise typer.Exit


def emit(result: dict[str, Any], as_json: bool) -> None:
    """Print the result for a machine, or its paths for a person."""
    if as_json:
        print(json.dumps(result, default=str))
        return
    for value in result.values():
        for item in value if isinstance(value, list) else [value]:
            print(item)


def command_line() -> str:
    """What was typed, as manifests record it."""
    return "genesplice " + shlex.join(sys.argv[1:])


def write_receipt(
    folder: Path, metrics: "Sequence[Metric] | None" = None, has_model: bool = True, **about: Any
) -> None:
    """Write metrics, if there are any, and the manifest; `about` is as in `write_manifest`."""
    from genesplice.model.attention import backend_name

    if metrics is not None:
        gs.write_metrics(folder / "metrics.json", metrics)
    about |= {"command": command_line(), "started": STARTED}
    write_manifest(folder, backend=backend_name() if has_model else None, **about)


def write_cards(
    out: Path,
    stage: str,
    metrics: Sequence["Metric"],
    config: Config,
    bundle: "Bundle | None" = None,
    **about: Any,
) -> None:
    """Write metrics, manifest, and the card of a model or of each fold: the folder can be pushed.

    A card has data with licences and digests, the command, the first of the metrics, and the
    licence. `about` is as in `write_receipt`, `data` are the bundle's unless it has others.
    """
    from genesplice.results import model_card

    data = bundle.data_sha256 if bundle else about["data"]
    named = [
        f"{one['name']} (licence: {one.get('licence') or 'not stated'}; sha256 {one['sha256']})"
        for one in (bundle.manifest["inputs"] if bundle else ())
    ] or [f"{name} (sha256 {digest})" for name, digest in data.items()]
    genome = bundle.genome.description if bundle else ""
    made_by = f"`{command_line()}`, GeneSplice {gs.__version__}"
    for folder in sorted(out.glob("fold*_seed*")) or [out]:
        with atomic_file(folder / "README.md") as partial:
            text = model_card(folder.name, stage, made_by, metrics, genome, named)
            partial.write_text(text, encoding="utf-8")
    write_receipt(out, metrics, **{"data": data, "config": config.to_dict(), **about})


def read_config(preset: str, assignments: list[str] | None) -> Config:
    """The preset with each `--set` applied."""
    return override(load_preset(preset), assignments or [])


def open_with_data(
    verb: str, folders: Path | list[Path], data: Path, needs: "Needs", is_other_allowed: bool
) -> "tuple[Models, Bundle]":
    """Models and the data that they are used on; say which model predicts what."""
    from genesplice.data.bundle import load_bundle

    models = gs.open_models(folders, needs=needs, follow=needs != "expression")
    bundle, said = models.adopt(load_bundle(data), is_other_allowed=is_other_allowed)
    for sentence in said:
        say(f"{verb}: {sentence}")
    return models, bundle


def show_scores(records: Sequence["Metric"], n_genes: int) -> None:
    """Print scores of all folds together on stderr, the best level first, then differences.

    A model with several seeds is there with their mean, and without an interval. A line without
    colour is written where stderr is no terminal, or with `NO_COLOR`.
    """
    from rich.console import Console
    from rich.table import Table

    cells: dict[str, dict[str, list[Metric]]] = {}
    for record in records:
        metric = record.metric.removesuffix("_difference")
        if metric in SHOWN and record.fold is None and record.split == "test":
            cells.setdefault(record.model, {}).setdefault(metric, []).append(record)
    table = Table("model", *SHOWN, title=f"{n_genes} held-out genes, 95 % intervals over blocks")

    def value(model: str) -> float:
        found = cells[model].get(SHOWN[0], [])
        return sum(one.value for one in found) / len(found) if found else float("-inf")

    names = sorted(cells, key=lambda name: (" - " in name, -value(name)))
    for name, following in zip(names, [*names[1:], ""], strict=True):
        shown = (_cell(cells[name].get(metric, []), " - " in name) for metric in SHOWN)
        read = gs.label(name)
        read += f" ({name})" if read != name and " - " not in name else ""
        table.add_row(read, *shown, end_section=" - " in following and " - " not in name)
    width = None if sys.stderr.isatty() else 120
    Console(file=sys.stderr, width=width, highlight=False).print(table)


def _cell(found: Sequence["Metric"], is_difference: bool) -> str:
    if not found:
        return "–"
    mean, sign = sum(one.value for one in found) / len(found), "+" if is_difference else ""
    if len(found) > 1:
        return f"{mean:{sign}.3f} (mean of {len(found)} seeds)"
    low, high = found[0].ci_low, found[0].ci_high
    return f"{mean:{sign}.3f}" + ("" if low is None else f" [{low:{sign}.3f}, {high:{sign}.3f}]")


# Their verbs appear in the help in this order.
for part in ("stages", "explain", "notebooks"):
    importlib.import_module(f"genesplice.cli.{part}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what is behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def system_failure(error: BaseException) -> str | None:
    """What the system refused (a full disk, a folder that may not be written), else None.

    Libraries that write weights and tables wrap the system's error.
    """
    for one in _chain(error):
        lines = str(one).splitlines()
        if isinstance(one, OSError) and one.strerror:
            # h5py's own words for a full disk are several lines.
            is_one_line = one.strerror.isprintable()
            why = one.strerror if is_one_line else os.strerror(one.errno or 0)
            return why if one.filename is None else f"{one.filename}: {why}"
        if lines and (isinstance(one, OSError) or "os error" in lines[0]):
            return f"writing or reading failed: {lines[0]}"
    return None


UNCLOSED = ("decrement id ref count", "Error closing BGZFile")
"""What h5py and pysam say of a file that cannot be closed, on a full disk."""


def _print(kind: type[BaseException], error: Any, trace: Any) -> None:
    """Print an error, but not that a file could not be closed: why is said already."""
    if not any(words in str(error) for words in UNCLOSED):
        sys.__excepthook__(kind, error, trace)


SIGNALS: list[int] = []
"""Those that were received."""


def _receive(number: int, _: object) -> None:
    """End as by Ctrl-C, and take half-written files away: a batch system's end is SIGTERM."""
    SIGNALS.append(number)
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; every expected error is one line and an exit code."""
    if sys.getfilesystemencoding() == "ascii":
        # Arrow takes no path with an umlaut then: begin again with UTF-8, whatever the locale.
        words = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, words, {**os.environ, "PYTHONUTF8": "1"})
    keep_freed_memory()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _receive)
    sys.excepthook = _print
    sys.unraisablehook = lambda at: _print(at.exc_type, at.exc_value, at.exc_traceback)
    try:
        with HELD:
            # Called as such, typer would put a hook of its own in the place of ours.
            program = typer.main.get_command(app)
            verbs = list(getattr(program, "commands", {}).values())
            for verb in verbs:
                verb.rich_markup_mode = None  # of a table of options rich cuts the names
                verbs += getattr(verb, "commands", {}).values()
            program()
    except GeneSpliceError as error:
        say(f"genesplice: {error}")
        raise SystemExit(error.exit_code) from None
    except BaseException as error:
        # Of Ctrl-C typer makes an exit, and numpy an error with no more than a cause; while a
        # checkpoint is written, closing the file fails too.
        if any(isinstance(one, KeyboardInterrupt) for one in _chain(error)):
            is_ended = SIGNALS[-1:] == [signal.SIGTERM]
            say(f"genesplice: {'ended from outside' if is_ended else 'interrupted'}")
            raise SystemExit(143 if is_ended else 130) from None
        failure = system_failure(error) if isinstance(error, Exception) else None
        if failure is None:
            raise
        say(f"genesplice: {failure}")
        raise SystemExit(1) from None

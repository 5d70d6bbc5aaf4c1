"""The command line: `genesplice VERB`. Paths on stdout, progress on stderr.

Exit codes: 0 done, 1 the work failed, 2 wrong usage or input, 130 interrupted.
"""

import contextlib
import importlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from genesplice.config import PRESETS, Config, load_preset, override
from genesplice.errors import GeneSpliceError

if TYPE_CHECKING:
    from genesplice.data.bundle import Bundle
    from genesplice.predict.models import Models, Needs

app = typer.Typer(
    name="genesplice",
    help="Does longer DNA context help predict expression on your data? Measure it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


HELD = contextlib.ExitStack()
"""What a verb holds until it ends."""


def claim(out: Path) -> Path:
    """See that `out` can be written and that nobody else does, for as long as the verb runs.

    Until then the verb is never silent for long.
    """
    from genesplice.runtime import claimed, never_silent

    HELD.enter_context(claimed(out))
    HELD.enter_context(never_silent())
    return out


Data = Annotated[Path, typer.Option("--data", help="A folder that `prepare` wrote.")]
Out = Annotated[
    Path, typer.Option("--out", callback=claim, help="Where to write; must not exist yet.")
]
ModelDir = Annotated[
    Path, typer.Option("--model", help="A folder that `finetune` wrote, or one fold's in it.")
]
OtherGenome = Annotated[
    bool, typer.Option("--other-genome", help="Take a model of another genome all the same.")
]
Preset = Annotated[str, typer.Option("--preset", help=f"One of {', '.join(PRESETS)}.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, repeatable.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is in --out.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def say(text: str) -> None:
    """One line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)


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


def read_config(preset: str, assignments: list[str] | None) -> Config:
    """The preset with each `--set` applied."""
    return override(load_preset(preset), assignments or [])


def open_with_data(
    verb: str,
    folders: Path | list[Path],
    data: Path,
    *,
    needs: "Needs",
    is_other_allowed: bool,
    follow: bool = True,
) -> "tuple[Models, Bundle]":
    """Models and the data that they are used on; say which model predicts what."""
    from genesplice.data.bundle import load_bundle
    from genesplice.predict.models import open_models

    models = open_models(folders, needs=needs, follow=follow)
    bundle, said = models.adopt(load_bundle(data), is_other_allowed=is_other_allowed)
    for sentence in said:
        say(f"{verb}: {sentence}")
    return models, bundle


# Their verbs appear in the help in this order.
for part in ("stages", "explain", "variants", "notebooks"):
    importlib.import_module(f"genesplice.cli.{part}")


def system_failure(error: BaseException | None) -> str | None:
    """What the system refused (a full disk, a folder that may not be written), else None.

    Libraries that write weights and tables wrap the system's error.
    """
    while error is not None:
        lines = str(error).splitlines()
        if isinstance(error, OSError) and error.strerror:
            return (
                error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
            )
        if lines and (isinstance(error, OSError) or "os error" in lines[0]):
            return f"writing or reading failed: {lines[0]}"
        error = error.__cause__ or error.__context__
    return None


def _end_interrupted() -> NoReturn:
    say("genesplice: interrupted")
    raise SystemExit(130) from None


def main() -> None:
    """Run the command line; every expected error is one line and an exit code."""
    from genesplice.runtime import keep_freed_memory

    if sys.getfilesystemencoding() == "ascii":
        # Arrow takes no path with an umlaut then: begin again with UTF-8, whatever the locale.
        words = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, words, {**os.environ, "PYTHONUTF8": "1"})
    keep_freed_memory()
    try:
        with HELD:
            app()
    except GeneSpliceError as error:
        say(f"genesplice: {error}")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        _end_interrupted()
    except Exception as error:
        # Ctrl-C while a checkpoint was written: closing the file fails as well.
        context: BaseException | None = error
        while context is not None:
            if isinstance(context, KeyboardInterrupt):
                _end_interrupted()
            context = context.__context__
        failure = system_failure(error)
        if failure is None:
            raise
        say(f"genesplice: {failure}")
        raise SystemExit(1) from None

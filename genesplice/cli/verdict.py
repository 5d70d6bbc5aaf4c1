"""The verb that answers the question."""

import time
from pathlib import Path
from typing import Annotated

import typer

from genesplice.cli.options import (
    Data,
    Json,
    Out,
    Preset,
    Resume,
    Set,
    app,
    command_line,
    emit,
    read_config,
    say,
)
from genesplice.errors import InputError, WorkError

__all__: list[str] = []


@app.command()
def verdict(
    data: Data,
    out: Out,
    preset: Preset = "quick",
    assignments: Set = None,
    ray: Annotated[str | None, typer.Option(help="A Ray cluster: HOST:PORT or auto.")] = None,
    claims: Annotated[
        list[Path] | None, typer.Option(help="metrics.json of other stages, repeatable.")
    ] = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Say whether longer context helps: yes, no or cannot tell.

    Four planted worlds are judged first; while they do not come out as planted there is no verdict.
    """
    from genesplice.data.bundle import load_bundle
    from genesplice.results import read_metrics
    from genesplice.training.context_verdict import REFUSED, judge_context, write_report

    config, started = read_config(preset, assignments), time.monotonic()
    for path in claims or ():
        if not path.is_file():
            raise InputError(f"no file {path}", "a metrics.json")
    others = [metric for path in claims or () for metric in read_metrics(path)]
    report = judge_context(load_bundle(data), config, out, resume=resume, ray=ray, tell=say)
    page = write_report(
        report, load_bundle(data), config, out, command=command_line(), started=started,
        others=others,
    )  # fmt: skip
    say(f"verdict: {report.verdict['answer']}. {report.verdict['sentence']}")
    names = ("verdict.json", "metrics.json", "manifest.json")
    emit({"page": page, "files": [out / name for name in names]}, as_json)
    if report.verdict["answer"] == REFUSED:
        raise WorkError(str(report.verdict["sentence"]))

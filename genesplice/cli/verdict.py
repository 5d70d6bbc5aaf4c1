"""The verb that answers the question, and the one that asks whether it can."""

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
    ablations: Annotated[
        list[Path] | None, typer.Option(help="metrics.json of other stages, repeatable.")
    ] = None,
    controls_dir: Annotated[
        Path | None,
        typer.Option("--controls", help="Folder that keeps simulated controls for others."),
    ] = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Say whether longer context helps: yes, no or cannot tell.

    Four simulated controls are judged first; while they do not come out as planted there is no verdict.
    """
    from genesplice.context.verdict import REFUSED, judge_context, write_report
    from genesplice.data.bundle import load_bundle
    from genesplice.results import read_metrics

    config, started = read_config(preset, assignments), time.monotonic()
    for path in ablations or ():
        if not path.is_file():
            raise InputError(f"no file {path}", "a metrics.json")
    others = [metric for path in ablations or () for metric in read_metrics(path)]
    report = judge_context(
        load_bundle(data), config, out, resume=resume, ray=ray, controls=controls_dir, tell=say
    )
    page = write_report(
        report, load_bundle(data), config, out, command=command_line(), started=started,
        others=others,
    )  # fmt: skip
    say(f"verdict: {report.verdict['answer']}. {report.verdict['sentence']}")
    names = ("verdict.json", "metrics.json", "manifest.json")
    emit({"page": page, "files": [out / name for name in names]}, as_json)
    if report.verdict["answer"] == REFUSED:
        raise WorkError(str(report.verdict["sentence"]))


@app.command()
def controls(
    out: Out,
    count: Annotated[int, typer.Option(min=1, help="Seeds.")] = 20,
    first: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    preset: Preset = "quick",
    assignments: Set = None,
    ray: Annotated[str | None, typer.Option(help="A Ray cluster: HOST:PORT or auto.")] = None,
    as_json: Json = False,
) -> None:
    """Judge the four simulated controls of many seeds: yes, no, no and no is right.

    Seeds that are in OUT already, with the same settings and versions, are not run again.
    """
    from genesplice.context.controls import count_answers
    from genesplice.context.rule import ANSWERS
    from genesplice.context.verdict import make_runner
    from genesplice.runtime import write_json, write_manifest

    config, started = read_config(preset, assignments), time.monotonic()
    seeds = range(first, first + count)
    records = count_answers(config, out, make_runner(config, ray, say), seeds, tell=say)
    for one in records:
        said = ", ".join(f"{answer} {one[answer]}" for answer in ANSWERS)
        say(f"{one['control']}: must be {one['expected']}; {said}")
    write_json(out / "verdict_controls.json", {"controls": records, "made_by": command_line()})
    write_manifest(out, command=command_line(), started=started, config=config.to_dict())
    emit({"controls": out / "verdict_controls.json"}, as_json)

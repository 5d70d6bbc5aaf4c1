"""Verbs that measure."""

from pathlib import Path
from typing import Annotated

import typer

from genesplice.cli.options import Json, app, command_line, emit, say

__all__: list[str] = []


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="The JSON file; a page of the same name beside it.")],
    peers: Annotated[bool, typer.Option("--peers", help="Run enformer-pytorch too.")] = False,
    as_json: Json = False,
) -> None:
    """Measure speed and memory beside peers, both sides in one run."""
    from genesplice.bench import write_bench

    emit({"bench": write_bench(out, with_peers=peers, command=command_line(), tell=say)}, as_json)

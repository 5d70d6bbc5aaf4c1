"""The verbs about variants."""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from genesplice.cli.options import Data, Json, Overwrite, app, command_line, emit, say
from genesplice.errors import InputError

__all__: list[str] = []

Models = Annotated[
    list[Path], typer.Option("--model", help="Folder of pretrain or finetune; repeatable.")
]


@app.command()
def variants(
    model: Models,
    data: Data,
    vcf: Annotated[Path, typer.Option(help="VCF, plain or compressed.")],
    out: Annotated[Path, typer.Option(help="VCF to write; .vcf.gz is bgzip with an index.")],
    window: Annotated[int, typer.Option(help="Bases read for the masked-base ratio.")] = 2048,
    level_window: Annotated[int, typer.Option(help="Bases read for the change of level.")] = 4096,
    max_length: Annotated[int, typer.Option(help="Longest allele that is scored.", min=1)] = 64,
    abstain: Annotated[float, typer.Option(help="Strands that differ so are no answer.")] = 0.5,
    percentile: Annotated[bool, typer.Option(help="Compare with matched random ones.")] = True,
    seed: Annotated[int, typer.Option(help="Draws the matched random variants.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Score the variants of a VCF, and write all its records back with the scores."""
    from genesplice.data.bundle import load_bundle
    from genesplice.explain.variants.annotate import Settings, annotate_vcf, beside, flag_metrics
    from genesplice.explain.variants.models import open_models
    from genesplice.model.attention import backend_name
    from genesplice.results import write_metrics
    from genesplice.runtime import file_sha256, write_json, write_manifest

    started = time.monotonic()
    if out.resolve() == vcf.resolve():
        raise InputError(f"--out {out}", "another file than --vcf")
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists", "a new file (or --overwrite)")
    bundle, models = load_bundle(data), open_models(model)
    settings = Settings(window, max_length, abstain, level_window, percentile, seed)
    done = annotate_vcf(models, bundle, vcf, out, settings=settings, progress=say)
    for name, count in done.flags.most_common():
        say(f"variants: {name}: {count}")
    write_metrics(beside(out, ".metrics.json"), flag_metrics(done))
    with tempfile.TemporaryDirectory() as scratch:
        manifest = write_manifest(
            Path(scratch),
            command=command_line(),
            started=started,
            config=settings._asdict(),
            seeds={"matched": seed},
            data=bundle.data_sha256 | {vcf.name: file_sha256(vcf)},
            backend=backend_name(),
            extra=models.record,
        )
    write_json(beside(out, ".manifest.json"), manifest)
    more = [beside(out, ".metrics.json"), beside(out, ".manifest.json")]
    emit({"files": [*done.files, *more]}, as_json)

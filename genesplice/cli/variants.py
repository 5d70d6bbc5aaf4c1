"""The verbs about variants."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from genesplice.cli import Data, Json, Out, Overwrite, app, command_line, emit, say
from genesplice.errors import InputError

Models = Annotated[
    list[Path], typer.Option("--model", help="Folder of pretrain or finetune; repeatable.")
]


@app.command()
def variants(
    model: Models,
    data: Data,
    out: Annotated[Path, typer.Option(help="VCF to write; .vcf.gz is bgzip with an index.")],
    vcf: Annotated[Path | None, typer.Option(help="VCF, plain or compressed.")] = None,
    measured: Annotated[
        Path | None, typer.Option(help="contig, position, ref, alt, value: score against it.")
    ] = None,
    classes: Annotated[
        int, typer.Option(help="Genes for the figures of known classes; 0 leaves them out.", min=0)
    ] = 0,
    haplotypes: Annotated[
        str, typer.Option(help="A sample: its phased alleles are scored beside one another.")
    ] = "",
    window: Annotated[int, typer.Option(help="Bases read for the masked-base ratio.")] = 2048,
    level_window: Annotated[int, typer.Option(help="Bases read for the change of level.")] = 4096,
    max_length: Annotated[int, typer.Option(help="Longest allele that is scored.", min=1)] = 64,
    abstain: Annotated[float, typer.Option(help="Strands that differ so are no answer.")] = 0.5,
    percentile: Annotated[bool, typer.Option(help="Compare with matched random ones.")] = True,
    seed: Annotated[int, typer.Option(help="Draws the matched random variants.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Score the variants of a VCF, and write all its records back with the scores.

    What else is asked for (--measured, --classes) goes into OUT.metrics.json; --vcf is not needed
    for it.
    """
    from genesplice.data.bundle import adopt_knowledge, load_bundle
    from genesplice.results import write_metrics
    from genesplice.runtime import file_sha256, write_json
    from genesplice.variants.annotate import Settings, annotate_vcf, beside, flag_metrics
    from genesplice.variants.benchmarks import class_figures, measured_figures
    from genesplice.variants.models import open_models

    started = time.monotonic()
    if vcf is None and measured is None and not classes:
        raise InputError("no --vcf, --measured or --classes", "one of them")
    if vcf is not None and out.resolve() == vcf.resolve():
        raise InputError(f"--out {out}", "another file than --vcf")
    if not overwrite and (out.exists() or beside(out, ".metrics.json").exists()):
        raise InputError(f"{out} exists", "a new file (or --overwrite)")
    models = open_models(model)
    bundle = adopt_knowledge(load_bundle(data), *models.level_paths)
    settings = Settings(window, max_length, abstain, level_window, percentile, seed, haplotypes)
    files: list[Path] = []
    metrics, digests = [], {}
    if vcf is not None:
        digests[vcf.name] = file_sha256(vcf)
        done = annotate_vcf(models, bundle, vcf, out, settings=settings, progress=say)
        for name, count in done.flags.most_common():
            say(f"variants: {name}: {count}")
        files += done.files
        metrics += flag_metrics(done)
    if measured is not None:
        table = beside(out, ".measured.tsv")
        metrics += measured_figures(models, bundle, measured, table, settings)
        digests[measured.name] = file_sha256(measured)
        files.append(table)
    if classes:
        metrics += class_figures(models, bundle, n_genes=classes, seed=seed)
    manifest = _manifest(
        started, settings._asdict() | {"classes": classes}, seed, bundle.data_sha256 | digests,
        models.record,
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    write_metrics(beside(out, ".metrics.json"), metrics)
    write_json(beside(out, ".manifest.json"), manifest)
    more = [beside(out, ".metrics.json"), beside(out, ".manifest.json")]
    emit({"files": [*files, *more]}, as_json)


def _manifest(
    started: float,
    config: dict[str, object],
    seed: int,
    data: dict[str, str],
    extra: dict[str, object],
) -> dict[str, object]:
    """What a manifest holds, for files that have no folder of their own."""
    from genesplice.model.attention import backend_name
    from genesplice.runtime import write_manifest

    with tempfile.TemporaryDirectory() as scratch:
        return write_manifest(
            Path(scratch),
            command=command_line(),
            started=started,
            config=config,
            seeds={"matched": seed},
            data=data,
            backend=backend_name(),
            extra=extra,
        )


@app.command()
def scan(
    model: Models,
    data: Data,
    out: Out,
    region: Annotated[str, typer.Option(help="contig:start-end (1-based), contig, or all.")],
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Score every single-base substitution of a region: tables and a track.

    What is done is kept in OUT.parts until all is: the same command goes on where it was stopped.
    """
    from genesplice.data.bundle import load_bundle
    from genesplice.model.attention import backend_name
    from genesplice.results import write_metrics
    from genesplice.runtime import atomic_directory, write_manifest
    from genesplice.variants.comb import EVERY_BP
    from genesplice.variants.likelihood import MaskedBases
    from genesplice.variants.models import open_models
    from genesplice.variants.scan import CORE_BP, parse_region, scan_metrics, scan_regions

    started, bundle = time.monotonic(), load_bundle(data)
    regions, models = parse_region(region, bundle.genome), open_models(model)
    if models.masked is None:
        raise InputError("no masked-base model", "--model DIR of a folder that pretrain wrote")
    score = MaskedBases(models.masked)
    parts = out.with_name(f"{out.name}.parts")
    with atomic_directory(out, overwrite=overwrite) as scratch:
        files = scan_regions(score, bundle.genome, regions, parts, scratch, progress=say)
        metrics = scan_metrics(score, bundle.genome, regions)
        write_metrics(scratch / "metrics.json", metrics)
        write_manifest(
            scratch,
            command=command_line(),
            started=started,
            config={"region": region, "core_bp": CORE_BP, "hidden_every_bp": EVERY_BP},
            data=bundle.data_sha256,
            backend=backend_name(),
            extra=models.record,
        )
    shutil.rmtree(parts, ignore_errors=True)
    emit({"files": [out / file.name for file in files] + [out / "metrics.json"]}, as_json)

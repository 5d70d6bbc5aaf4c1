"""The verbs about variants."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from genesplice import cli
from genesplice.errors import InputError

Models = Annotated[
    list[Path], typer.Option("--model", help="Folder of pretrain or finetune; repeatable.")
]


@cli.app.command()
def variants(
    model: Models,
    data: cli.Data,
    out: Annotated[
        Path, typer.Option(callback=cli.claim, help="VCF to write; .vcf.gz is bgzip with an index.")
    ],
    vcf: Annotated[Path | None, typer.Option(help="VCF, plain or compressed.")] = None,
    measured: Annotated[
        Path | None, typer.Option(help="contig, position, ref, alt, value: score against it.")
    ] = None,
    classes: Annotated[
        int, typer.Option(help="Genes for the figures of known classes; 0 leaves them out.", min=0)
    ] = 0,
    window: Annotated[int, typer.Option(help="Bases read for the masked-base ratio.")] = 2048,
    level_window: Annotated[int, typer.Option(help="Bases read for the change of level.")] = 4096,
    max_length: Annotated[int, typer.Option(help="Longest allele that is scored.", min=1)] = 64,
    abstain: Annotated[float, typer.Option(help="Strands that differ so are no answer.")] = 0.5,
    percentile: Annotated[bool, typer.Option(help="Compare with matched random ones.")] = True,
    seed: Annotated[int, typer.Option(help="Draws the matched random variants.")] = 0,
    other_genome: cli.OtherGenome = False,
    overwrite: cli.Overwrite = False,
    as_json: cli.Json = False,
) -> None:
    """Score the variants of a VCF, and write all its records back with the scores.

    Tables next to OUT have more: both strands, all models, the consequence by the annotation.
    What else is asked for (--measured, --classes) goes into OUT.metrics.json; --vcf is not needed
    for it.
    """
    from genesplice.data.tables import on_disk
    from genesplice.results import write_metrics
    from genesplice.runtime import file_sha256
    from genesplice.variants.annotate import Settings, annotate_vcf, flag_metrics
    from genesplice.variants.benchmarks import class_benchmarks, measured_benchmark
    from genesplice.variants.vcf import beside, read_header

    if vcf is None and measured is None and not classes:
        raise InputError("no --vcf, --measured or --classes", "one of them")
    if vcf is not None and out.resolve() == vcf.resolve():
        raise InputError(f"--out {out}", "another file than --vcf")
    records, receipt = beside(out, ".metrics.json"), beside(out, ".manifest.json")
    if not overwrite and (out.exists() or records.exists()):
        raise InputError(f"{out} exists", "a new file (or --overwrite)")
    if vcf is not None:
        read_header(vcf)
    models, bundle = cli.open_with_data(
        "variants", model, data, needs=None, is_other_allowed=other_genome
    )
    settings = Settings(window, max_length, abstain, level_window, percentile, seed)
    files: list[Path] = []
    metrics = []
    contigs_renamed: Mapping[str, str] = {}
    if vcf is not None:
        done = annotate_vcf(models, bundle, vcf, out, settings=settings, progress=cli.say)
        for name, count in done.flags.most_common():
            cli.say(f"variants: {name}: {count}")
        files += done.files
        metrics += flag_metrics(done)
        contigs_renamed = done.renamed
    if measured is not None:
        files.append(beside(out, ".measured.tsv"))
        metrics += measured_benchmark(models, bundle, measured, files[-1], settings)
    if classes:
        metrics += class_benchmarks(models, bundle, n_genes=classes, seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_metrics(records, metrics)
    cli.write_receipt(
        out.parent,
        name=receipt.name,
        config=settings._asdict() | {"classes": classes},
        seeds={"matched": seed},
        data=bundle.data_sha256
        | {file.name: file_sha256(on_disk(file)) for file in (vcf, measured) if file},
        extra=models.record | {"contigs_renamed": contigs_renamed},
    )
    cli.emit({"files": [*files, records, receipt]}, as_json)


@cli.app.command()
def scan(
    model: Models,
    data: cli.Data,
    out: cli.Out,
    region: Annotated[str, typer.Option(help="contig:start-end (1-based), contig, or all.")],
    other_genome: cli.OtherGenome = False,
    overwrite: cli.Overwrite = False,
    as_json: cli.Json = False,
) -> None:
    """Score every single-base substitution of a region: tables and a track.

    What is done is kept in OUT.parts until all is: the same command goes on where it was stopped.
    """
    from genesplice.results import write_metrics
    from genesplice.runtime import atomic_directory
    from genesplice.variants.likelihood import STRIDE_BP, MaskedBases
    from genesplice.variants.scan import CORE_BP, parse_region, scan_metrics, scan_regions

    models, bundle = cli.open_with_data(
        "scan", model, data, needs="masked bases", is_other_allowed=other_genome
    )
    regions = parse_region(region, bundle.genome)
    assert models.masked is not None
    score = MaskedBases(models.masked)
    parts = out.with_name(f"{out.name}.parts")
    with atomic_directory(out, overwrite=overwrite) as scratch:
        files = scan_regions(score, bundle.genome, regions, parts, scratch, progress=cli.say)
        metrics = scan_metrics(score, bundle.genome, regions)
        write_metrics(scratch / "metrics.json", metrics)
        config = {"region": region, "core_bp": CORE_BP, "hidden_every_bp": STRIDE_BP}
        cli.write_receipt(scratch, config=config, data=bundle.data_sha256, extra=models.record)
    shutil.rmtree(parts, ignore_errors=True)
    cli.emit({"files": [out / file.name for file in files] + [out / "metrics.json"]}, as_json)


@cli.app.command()
def design(
    model: Models,
    data: cli.Data,
    gene: Annotated[str, typer.Option(help="Name or id, such as lacZ.")],
    towards: Annotated[str, typer.Option(help="up or down.")],
    out: cli.Out,
    edits: Annotated[int, typer.Option(help="Most substitutions.", min=1)] = 5,
    protect: Annotated[
        list[str] | None, typer.Option(help="contig:start-end not to be edited; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the random edits it is compared with.")] = 0,
    other_genome: cli.OtherGenome = False,
    overwrite: cli.Overwrite = False,
    as_json: cli.Json = False,
) -> None:
    """Edit a gene's promoter towards a higher or lower predicted level, compared with chance.

    Writes steps.tsv, designed.fasta, metrics.json. It is a model's proposal and no measurement.
    """
    from genesplice.predict.gene_output import resolve_genes
    from genesplice.results import write_metrics
    from genesplice.runtime import atomic_directory
    from genesplice.variants import design as search
    from genesplice.variants.levels import LevelModel
    from genesplice.variants.scan import parse_region

    models, bundle = cli.open_with_data(
        "design", model, data, needs="expression", is_other_allowed=other_genome, follow=False
    )
    bundle.require_expression()
    (gene_id,) = resolve_genes(bundle, [gene])
    models = models.of_gene(bundle, gene_id)
    protected = [
        part for text in protect or () for part in parse_region(text, bundle.genome, "--protect")
    ]
    positions = search.editable_positions(bundle, gene_id, protected=protected)
    levels = search.PromoterLevels([LevelModel(m, bundle) for m in models.levels], bundle, gene_id)
    found = search.design(levels, towards, positions, n_edits=edits, seed=seed, progress=cli.say)
    split = search.split_of(bundle, gene_id, models.level_paths)
    with atomic_directory(out, overwrite=overwrite) as scratch:
        table = search.step_table(levels, found, bundle)
        table.to_csv(scratch / "steps.tsv", sep="\t", index=False, float_format="%.6g")
        (scratch / "designed.fasta").write_text(
            search.design_fasta(levels, found), encoding="utf-8"
        )
        write_metrics(scratch / "metrics.json", search.design_metrics(found, split, seed=seed))
        config = {"gene_id": gene_id, "towards": towards, "edits": edits}
        cli.write_receipt(
            scratch,
            config=config | {"protect": protect or []},
            seeds={"random_edits": seed},
            data=bundle.data_sha256,
            extra=models.record,
        )
    files = ("steps.tsv", "designed.fasta", "metrics.json", "manifest.json")
    cli.emit({"files": [out / name for name in files]}, as_json)

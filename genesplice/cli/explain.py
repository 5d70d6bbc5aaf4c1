"""The verbs that ask trained models: what a prediction rests on, and what variants do."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import genesplice as gs
from genesplice import cli
from genesplice.errors import InputError, require
from genesplice.runtime import atomic_directory, file_sha256, require_file

if TYPE_CHECKING:
    import pandas as pd

    from genesplice.explain.attention import AttentionTables
    from genesplice.explain.faithfulness import Explanation
    from genesplice.show.report import Part

    Page = tuple[str, str, list[Part], dict[str, pd.DataFrame]]

N_SHOWN, N_SHOWN_ATTENTION = 100, 8
"""Genes on a page; the tables have all of them."""
METHOD = (
    "ig, saliency, inputxgradient, deeplift, gradientshap, occlusion, ablation, ism or attention"
)


@cli.app.command()
def explain(
    model: cli.ModelDir,
    data: cli.Data,
    genes: Annotated[str, typer.Option(help="Names or ids, such as b0344,recA; all; or fold:0.")],
    out: cli.Out,
    method: Annotated[str, typer.Option(help=f"{METHOD}.")] = "ig",
    condition: Annotated[str | None, typer.Option(help="Explain its residual; else level.")] = None,
    steps: Annotated[int, typer.Option(help="Steps or samples of a gradient method.", min=2)] = 32,
    window: Annotated[int, typer.Option(help="Bases around the start that are read.")] = 8192,
    upstream: Annotated[int, typer.Option(help="ism: bases before the start.")] = 300,
    downstream: Annotated[int, typer.Option(help="ism: bases after it.")] = 100,
    known_sites: Annotated[
        bool, typer.Option(help="Measure attribution on promoter hexamers and regulators' sites.")
    ] = False,
    other_genome: cli.OtherGenome = False,
    overwrite: cli.Overwrite = False,
    as_json: cli.Json = False,
) -> None:
    """Show which bases a gene's prediction rests on: tables, checks, and a page (index.html).

    Of a folder with all folds each gene is explained by the mean of the models that held it out
    (attention: by the first of them). Mutagenesis (`--method ism`) keeps what it has done in
    OUT.parts until it is finished: the same command goes on where it was stopped.
    """
    from genesplice.explain.attribution import METHODS, EnsembleExplainer
    from genesplice.predict.gene_output import is_group
    from genesplice.show.report import write_page

    require(method in (*METHODS, "ism", "attention"), f"--method {method}", METHOD)
    if known_sites and method not in METHODS:
        raise InputError(f"--known-sites with --method {method}", f"one of {', '.join(METHODS)}")
    unfinished = out.with_name(f"{out.name}.parts")
    models, bundle = cli.open_with_data("explain", model, data, "expression", other_genome)
    bundle.require_expression()
    chosen = gs.resolve_genes(bundle, genes.split(","))
    explainer = EnsembleExplainer(models, bundle, chosen, window_bp=window)
    if method == "attention":
        tables = gs.attention_of(explainer, chosen, condition=condition)
        table, metrics, page = tables.weights, [], _attention_page(tables, bundle.names)
    else:
        found = gs.explain_genes(
            explainer, chosen, method=method, condition=condition, steps=steps,
            is_checked=not is_group(genes), has_known_sites=known_sites,
            upstream_bp=upstream, downstream_bp=downstream,
            unfinished=unfinished, report=cli.say,
        )  # fmt: skip
        page = _explanation_page(found, (upstream, downstream))
        table, metrics = found.table, found.metrics
    title, lead, parts, more = page
    facts = [f"model {model}", f"data {data}"]
    footer = "The tables that it shows are in the same folder."
    with atomic_directory(out, overwrite=overwrite) as scratch:
        table.to_parquet(scratch / "attributions.parquet", index=False)
        for name, one in {"attributions.tsv": table, **more}.items():
            one.to_csv(scratch / name, sep="\t", index=False)
        file = scratch / "index.html"
        write_page(file, title, parts, facts=facts, lead=[lead], footer=footer)
        cli.write_receipt(scratch, metrics, data=bundle.data_sha256, extra=models.record)
    shutil.rmtree(unfinished, ignore_errors=True)
    names = ["attributions.parquet", "attributions.tsv", "metrics.json", *more, "index.html"]
    cli.emit({"files": [out / name for name in names]}, as_json)


def _explanation_page(made: Explanation, span_bp: tuple[int, int]) -> Page:
    """Title, lead and parts of the page of attributions, and further tables by file name."""
    from genesplice.explain.attribution import METHODS
    from genesplice.show.figures_explain import SHOWN_BP, attribution_parts, lead_of

    n_genes, target = len(made.attributions), made.attributions[0].target
    title = f"{made.method[0].upper()}{made.method[1:]} of {n_genes} genes: {target}"
    shown = made.attributions[:N_SHOWN]
    is_exact = made.method not in {method.label for method in METHODS.values()}
    parts = attribution_parts(
        shown,
        checks=made.checks,
        curves={one.gene_id: made.curves[one.gene_id] for one in shown if made.curves},
        sites=made.sites,
        parts_of=None if is_exact else made.parts.head(N_SHOWN),
        shown_bp=span_bp if is_exact else SHOWN_BP,
        is_exact=is_exact,
        promises_sum=any(m.label == made.method and m.promises_sum for m in METHODS.values()),
    )
    lead = (
        "Every base was changed to each of the other three and the prediction made again: exact, "
        "and therefore what other methods are compared with."
        if is_exact
        else lead_of(made.checks, n_genes)
    )
    more = {} if made.checks is None else {"checks.tsv": made.checks.reset_index()}
    if "near" in made.parts:
        more["parts.tsv"] = made.parts
    if made.known_sites is not None:
        more["known_sites.tsv"] = made.known_sites
        parts += [
            "## On known sites\n\nIs attribution larger on a known site than on random intervals "
            "of the same gene's upstream region? AUROC, 0.5 by chance; `control` is the same model "
            "with permuted weights, `genesplice columns` the attribution of alignment columns, and "
            "`column` their information in bits, without a model.",
            made.known_sites,
        ]
    return title, lead, parts, more


def _attention_page(made: AttentionTables, names: pd.Series) -> Page:
    """The same of attention."""
    genes = made.weights["gene_id"].unique()
    few = [part[part["gene_id"].isin(genes[:N_SHOWN_ATTENTION])] for part in made]
    grouped = made.heads.groupby(["level", "layer", "head"], sort=False)["effect"]
    heads = grouped.agg(mean_change="mean", mean_size=lambda x: x.abs().mean()).reset_index()
    heads[["layer", "head"]] += 1
    parts: list[Part] = [
        "## What attends to what\n\nExact rows, recomputed from queries and keys. Choose a gene, a "
        "level, a head and a position. Under the bars: the attention rollout, which bases the "
        "start can draw on through all levels.",
        gs.explorers.AttentionExplorer(few[0], few[1], heads=few[2], names=names),
        "## What counts\n\nAttention is not explanation. A head counts if the prediction changes "
        "when it is ablated: the largest changes over these genes.",
        heads.sort_values("mean_size", ascending=False).head(12),
    ]
    lead = "Attention shows what a token draws on; which head counts, only head ablation can show."
    more = {"heads.tsv": made.heads, "rollout.tsv": made.rollout}
    return f"Attention of {len(genes)} genes", lead, parts, more


# --- variants ---

Models = Annotated[
    list[Path], typer.Option("--model", help="Folder of pretrain or finetune; repeatable.")
]


@cli.app.command()
def variants(
    model: Models,
    data: cli.Data,
    out: Annotated[
        Path,
        typer.Option(callback=cli.claim_file, help="VCF to write; .vcf.gz is bgzip with an index."),
    ],
    vcf: Annotated[Path | None, cli.reads("VCF, plain or compressed.")] = None,
    measured: Annotated[
        Path | None, cli.reads("contig, position, ref, alt, value: score against it.")
    ] = None,
    classes: Annotated[
        int, typer.Option(help="Genes for the figures of known classes; 0 leaves them out.", min=0)
    ] = 0,
    sites: Annotated[
        Path | None, cli.reads("BED of known sites, name = class; with --classes.")
    ] = None,
    genes: Annotated[
        Path | None, cli.reads("Genes, one a line, such as essential ones; with --classes.")
    ] = None,
    relatives: Annotated[
        Literal["all", "far", "none", "added"],
        typer.Option(help="Whom the ratio reads; added: all less none."),
    ] = "all",
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

    Tables next to OUT have more: both strands, all models, the consequence by the annotation. A
    --model that `finetune --tracks` wrote gives the change of each track.
    What else is asked for (--measured, --classes) goes into OUT.metrics.json; --vcf is not needed
    for it.
    """
    from genesplice.data.tables import on_disk
    from genesplice.variants import measured as known_effects
    from genesplice.variants.annotate import Settings, annotate_vcf, flag_metrics
    from genesplice.variants.classes import read_gene_list
    from genesplice.variants.likelihood import MaskedBases
    from genesplice.variants.vcf import beside, read_header

    require(vcf or measured or classes, "no --vcf, --measured or --classes", "one of them")
    for flag, file in {"--sites": sites, "--genes": genes}.items():
        require(file is None or classes, f"{flag} without --classes", "how many of each kind")
    if vcf is not None:
        require(out.resolve() != vcf.resolve(), f"--out {out}", "another file than --vcf")
        read_header(vcf)
    records, receipt = beside(out, ".metrics.json"), beside(out, ".manifest.json")
    require_file(records, overwrite=overwrite)
    needs: Literal["masked bases"] | None = None if relatives == "all" else "masked bases"
    models, bundle = cli.open_with_data("variants", model, data, needs, other_genome)
    settings = Settings(window, max_length, abstain, level_window, percentile, seed, relatives)
    known = None if sites is None else known_effects.read_sites(sites, bundle)
    listed = () if genes is None else read_gene_list(genes, bundle)
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
        metrics += known_effects.measured_benchmark(models, bundle, measured, files[-1], settings)
    if classes:
        metrics += gs.class_benchmarks(
            models,
            bundle,
            n_genes=classes,
            listed=listed,
            relatives=relatives,
            seed=seed,
            progress=cli.say,
        )
    if known is not None and models.masked is not None:
        cli.say(f"variants: {len(known)} known sites")
        score = MaskedBases(models.masked, relatives)
        table = known_effects.site_table(score, bundle, known, n_sites=classes, seed=seed)
        metrics += known_effects.site_metrics(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    gs.write_metrics(records, metrics)
    given = (file for file in (vcf, measured, sites, genes) if file)
    data_sha256 = bundle.data_sha256 | {file.name: file_sha256(on_disk(file)) for file in given}
    about: dict[str, Any] = {
        "config": settings._asdict() | {"classes": classes},
        "seeds": {"matched": seed},
    }
    about["extra"] = models.record | {"contigs_renamed": contigs_renamed}
    cli.write_receipt(out.parent, name=receipt.name, data=data_sha256, **about)
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
    from genesplice.variants.alleles import contig_names
    from genesplice.variants.likelihood import STRIDE_BP, MaskedBases
    from genesplice.variants.scan import CORE_BP, parse_region, scan_metrics, scan_regions

    models, bundle = cli.open_with_data("scan", model, data, "masked bases", other_genome)
    regions = parse_region(region, contig_names(bundle))
    assert models.masked is not None
    score = MaskedBases(models.masked)
    parts = out.with_name(f"{out.name}.parts")
    with atomic_directory(out, overwrite=overwrite) as scratch:
        files = scan_regions(score, bundle.genome, regions, parts, scratch, progress=cli.say)
        metrics = scan_metrics(score, bundle.genome, regions)
        config = {"region": region, "core_bp": CORE_BP, "hidden_every_bp": STRIDE_BP}
        about: dict[str, Any] = {"config": config, "extra": models.record}
        cli.write_receipt(scratch, metrics, data=bundle.data_sha256, **about)
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
    from genesplice.variants import design as search
    from genesplice.variants.alleles import contig_names
    from genesplice.variants.levels import LevelModel
    from genesplice.variants.scan import parse_region

    models, bundle = cli.open_with_data("design", model, data, "expression", other_genome)
    bundle.require_expression()
    (gene_id,) = gs.resolve_genes(bundle, [gene])
    models = models.of_gene(bundle, gene_id)
    names = contig_names(bundle)
    protected = [part for text in protect or () for part in parse_region(text, names, "--protect")]
    positions = search.editable_positions(bundle, gene_id, protected=protected)
    levels = search.PromoterLevels([LevelModel(m, bundle) for m in models.levels], bundle, gene_id)
    found = search.design(levels, towards, positions, n_edits=edits, seed=seed, progress=cli.say)
    is_unseen = gene_id in models.held_out_by(bundle) or gene_id not in bundle.observed.index
    with atomic_directory(out, overwrite=overwrite) as scratch:
        table = search.step_table(levels, found, bundle)
        table.to_csv(scratch / "steps.tsv", sep="\t", index=False, float_format="%.6g")
        (scratch / "designed.fasta").write_text(
            search.design_fasta(levels, found), encoding="utf-8"
        )
        metrics = search.design_metrics(found, "test" if is_unseen else "train", seed=seed)
        config = {"gene_id": gene_id, "towards": towards, "edits": edits, "protect": protect or []}
        about: dict[str, Any] = {"seeds": {"random_edits": seed}, "extra": models.record}
        cli.write_receipt(scratch, metrics, config=config, data=bundle.data_sha256, **about)
    files = ("steps.tsv", "designed.fasta", "metrics.json", "manifest.json")
    cli.emit({"files": [out / name for name in files]}, as_json)

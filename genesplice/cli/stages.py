"""The stages, one by one: from files to a model, and the verdict on longer context."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import genesplice as gs
from genesplice import cli
from genesplice.errors import InputError, WorkError, require
from genesplice.runtime import atomic_directory, is_taken, require_folder, write_json, write_table

if TYPE_CHECKING:
    from genesplice.data.bundle import Bundle
    from genesplice.results import Metric

Evidence = Annotated[str, typer.Option(help="Such as binding or curated, if the file lacks it.")]


@cli.app.command()
def prepare(
    out: cli.Out,
    recipe: Annotated[str | None, typer.Option(help="A data set that is fetched for you.")] = None,
    fasta: Annotated[Path | None, cli.reads("Genome: FASTA or GenBank.")] = None,
    annotation: Annotated[Path | None, cli.reads("GFF3, GTF or GenBank.")] = None,
    expression: Annotated[Path | None, cli.reads("Table, h5ad, folder.", or_folder=True)] = None,
    expression_unit: Annotated[
        str | None, typer.Option(help="tpm, rpkm, fpkm, log2tpm or counts.")
    ] = None,
    samples: Annotated[Path | None, cli.reads("sample, condition, deleted.")] = None,
    relatives: Annotated[
        Path | None,
        cli.reads("Folder of genomes, a MAF file, or recipe: its own.", "recipe", or_folder=True),
    ] = None,
    conservation: Annotated[Path | None, cli.reads("Or a bigWig of phyloP.")] = None,
    tracks: Annotated[
        list[str] | None, cli.reads("bigWig (PLUS.bw,MINUS.bw) or BED, repeatable.")
    ] = None,
    blacklist: Annotated[Path | None, cli.reads("BED: no track counts there.")] = None,
    network: Annotated[Path | None, cli.reads("Edges: source, target[, sign, …].")] = None,
    gene_sets: Annotated[Path | None, cli.reads("GMT, GAF or two columns.")] = None,
    obo: Annotated[Path | None, cli.reads("Gene Ontology: names, ancestors.")] = None,
    operons: Annotated[
        str | None, typer.Option(help="none, distance or a file [distance, unless spliced].")
    ] = None,
    tss: Annotated[Path | None, cli.reads("Transcription starts: table or BED.")] = None,
    network_evidence: Evidence = "",
    gene_set_evidence: Evidence = "",
    circular: Annotated[list[str] | None, typer.Option(help="Circular contig, repeatable.")] = None,
    allow_missing: Annotated[bool, typer.Option(help="Over 5 % of genes left out.")] = False,
    block_bp: Annotated[int | None, typer.Option(min=1, help="Length of a block [100000].")] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="Number of folds [5].")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set.")] = None,
    overwrite: cli.Overwrite = False,
    as_json: cli.Json = False,
) -> None:
    """Turn a recipe, or your own files, into a data folder."""
    # What was typed goes on under the same names.
    given = {name: value for name, value in locals().items() if value is not None}
    from genesplice.data.prepare import prepare_files, prepare_recipe

    del given["as_json"]
    brought = ("relatives", "conservation", "tracks", "blacklist")
    usual = ("recipe", "out", "overwrite", *brought)
    own = [name for name, value in given.items() if value not in ("", False)]
    flags = [f"--{name.replace('_', '-')}" for name in own if name not in usual]
    if recipe is not None:
        require(not flags, f"--recipe together with {', '.join(flags)}", "one or the other")
        parts = {name: given[name] for name in brought if name in given}
        bundle = prepare_recipe(recipe, out, **parts, overwrite=overwrite, progress=cli.say)
    else:
        missing = [flag for flag in ("--fasta", "--annotation") if flag not in flags]
        require(not missing, f"no {', '.join(missing)}", "both, or --recipe ecoli")
        if folds is not None:
            given["n_folds"] = given.pop("folds")
        bundle = prepare_files(**given, progress=cli.say)
    status = bundle.leakage["status"]
    checks = [one["check"] for one in bundle.leakage["checks"] if one["status"] == status]
    why = "" if status == "green" else f" (see leakage.json: {', '.join(checks)})"
    n_genes, n_samples = len(bundle.genes), bundle.expression.n_obs
    cli.say(f"prepare: {n_genes} genes, {n_samples} samples, leakage {status}{why}")
    cli.emit({"data": bundle.path}, as_json)


shared = typer.Typer(no_args_is_help=True)
cli.app.add_typer(shared, name="bundle", help="A data folder as one file: export, verify, open.")


@shared.command()
def export(
    data: cli.Folder, file: cli.NewFile, overwrite: cli.Overwrite = False, as_json: cli.Json = False
) -> None:
    """Write a data folder as one ZIP file, with the sha256 of every file in it."""
    cli.emit({"file": gs.export_bundle(data, file, overwrite=overwrite)}, as_json)


@shared.command()
def verify(data: cli.Folder) -> None:
    """See that every file of a data folder, or of one file, is what it was; else name the first."""
    cli.say(f"bundle: {gs.verify_bundle(data)} files are as they were written")


@shared.command("open")
def open_file(
    file: cli.Folder,
    out: cli.NewFolder,
    overwrite: cli.Overwrite = False,
    as_json: cli.Json = False,
) -> None:
    """Unpack what `bundle export` wrote, checked, into a data folder."""
    cli.emit({"data": gs.open_bundle(file, out, overwrite=overwrite).path}, as_json)


@cli.app.command()
def baselines(
    data: cli.Data,
    out: cli.Out,
    overwrite: cli.Overwrite = False,
    seed: Annotated[int, typer.Option(help="Seed of boosting and of the intervals.")] = 0,
    as_json: cli.Json = False,
) -> None:
    """Measure what simple methods reach on the held-out genes, and each against the best."""
    from genesplice.data.bundle import load_bundle
    from genesplice.evaluate.metrics import differences, score

    bundle = load_bundle(data)
    with atomic_directory(out, overwrite=overwrite) as scratch:
        predictions = gs.run_baselines(bundle, seed=seed, progress=cli.say)
        predictions.to_parquet(scratch / "predictions.parquet", index=False)
        metrics = score(predictions, bundle.block_of, seed=seed)
        pooled = [m for m in metrics if m.metric == "level_spearman" and m.fold is None]
        if pooled:
            best = max(pooled, key=lambda metric: metric.value).model
            metrics += differences(predictions, bundle.block_of, model=best)
        about: dict[str, Any] = {"seeds": {"baselines": seed}, "data": bundle.data_sha256}
        about["extra"] = {"leakage": bundle.leakage["status"]}
        cli.write_receipt(scratch, metrics, has_model=False, **about)
    if not as_json:
        cli.show_scores(metrics, predictions["gene_id"].nunique())
    cli.emit({"metrics": out / "metrics.json", "predictions": out / "predictions.parquet"}, as_json)


@cli.app.command()
def pretrain(
    out: cli.RunOut,
    data: Annotated[Path | None, typer.Option(help="A folder that `prepare` wrote.")] = None,
    fasta: Annotated[list[Path] | None, cli.reads("Or a genome, repeatable.")] = None,
    circular: Annotated[list[str] | None, typer.Option(help="Circular contig of it.")] = None,
    annotation: Annotated[Path | None, cli.reads("GFF3 or GTF of it.")] = None,
    preset: cli.Preset = "quick",
    assignments: cli.Set = None,
    resume: cli.Resume = False,
    as_json: cli.Json = False,
) -> None:
    """Pre-train an encoder on the genome: masked bases and contrastive views."""
    config = cli.read_config(preset, assignments)  # before torch, which takes its time
    from genesplice.data.bundle import load_bundle
    from genesplice.training.corpus import genome_source, read_genes, read_genomes
    from genesplice.training.loops import is_first_process
    from genesplice.training.pretraining import pretrain_source

    settings = config.pretrain
    if data is not None and not fasta and not annotation:
        bundle = load_bundle(data)
        result, digests = gs.pretrain(bundle, config, out, resume=resume), bundle.data_sha256
    elif fasta and data is None:
        is_fine = annotation is None or len(fasta) == 1
        require(is_fine, f"--annotation with {len(fasta)} FASTA files", "one")
        is_new = not out.exists()
        genome, digests = read_genomes(fasta, circular or (), out, resume=resume)
        held_out = settings.holdout_fold, settings.validation_blocks
        genes = None
        try:
            if annotation:
                genome, genes, digest = read_genes(annotation, genome)
                digests = digests | {annotation.name: digest}
            source = genome_source(genome, *held_out, block_bp=settings.block_bp, genes=genes)
            result = pretrain_source(source, config, out, resume=resume)
        except InputError:
            if is_new and not is_taken(out):
                shutil.rmtree(out, ignore_errors=True)
            raise
    else:
        found = "--data with --fasta or --annotation" if data else "no --data, --fasta"
        raise InputError(found, "a folder, or files")
    if not is_first_process():
        return
    seeds, extra = {"pretrain": settings.seed}, {"held_out": result.held_out}
    more: dict[str, Any] = {"seeds": seeds, "extra": extra, "data": digests}
    cli.write_cards(out, "pretrain", result.metrics, config, **more)
    cli.emit({"model": out, "metrics": out / "metrics.json"}, as_json)


@cli.app.command()
def finetune(
    data: cli.Data,
    out: cli.RunOut,
    init: Annotated[str | None, typer.Option(help="Folder of `pretrain`, or ecoli-k12.")] = None,
    network: Annotated[Path | None, cli.reads("Your edges in place of the data's.")] = None,
    gene_sets: Annotated[Path | None, cli.reads("Your GMT, GAF or two columns.")] = None,
    tracks: Annotated[bool, typer.Option("--tracks", help="Predict the data's tracks.")] = False,
    preset: cli.Preset = "quick",
    assignments: cli.Set = None,
    resume: cli.Resume = False,
    as_json: cli.Json = False,
) -> None:
    """Train sequence, network and pathways to predict expression of held-out genes.

    The encoder keeps the sizes that it was pre-trained with. One that was pre-trained on another
    genome is taken, and said to be one. With --tracks coverage and peaks of held-out blocks are
    predicted instead, from sequence alone.
    """
    from genesplice.predict import find_pretrained

    config = cli.read_config(preset, assignments)
    encoder = None if init is None else find_pretrained(init)
    import pandas as pd

    from genesplice.config import replace
    from genesplice.data.bundle import load_bundle
    from genesplice.data.knowledge import OWN, own_files, replace_knowledge, trained_on
    from genesplice.evaluate.metrics import fold_profiles
    from genesplice.evaluate.reliability import gene_strata, strata_metrics

    if is_taken(out):
        require(any(out.glob("fold*_seed*")), f"no run in {out}", "a run to resume")
    bundle = load_bundle(data)
    seeds = {f"finetune_{i}": seed for i, seed in enumerate(config.finetune.seeds)}
    if tracks:
        require(not (network or gene_sets), "--tracks with --network or --gene-sets", "one of them")
        metrics = gs.finetune_tracks(bundle, config, out, init=encoder, resume=resume)
        more: dict[str, Any] = {"seeds": seeds, "extra": {"init": init, "tracks": True}}
        cli.write_cards(out, "tracks", metrics, config, bundle, **more)
        page = write_track_page(out, bundle, metrics)
        files = {"metrics": out / "metrics.json", "genes": out / "genes.parquet", "page": page}
        cli.emit(files, as_json)
        return
    if network is not None or gene_sets is not None:
        names = config.model.gene_set_collections
        bundle = replace_knowledge(
            bundle, network=network, gene_sets=gene_sets, collections=names, tell=cli.say
        )
        cli.say(
            f"finetune: {len(bundle.network)} edges, {len(bundle.gene_sets)} gene sets, "
            f"leakage {bundle.leakage['status']}"
        )
        config = replace(config, model={"gene_set_collections": (*names, OWN)})
    if encoder is not None and (other := trained_on(encoder, bundle.genome)):
        cli.say(f"finetune: the encoder was pre-trained on {other}, not on this genome")
    result = gs.finetune(bundle, config, out, init=encoder, resume=resume)
    predictions = result.predictions
    if config.finetune.baselines:
        held_out = sorted(predictions["fold"].unique())
        simple = gs.run_baselines(bundle, folds=held_out, progress=cli.say)
        simple = simple.astype({"gene_id": str, "condition": str, "model": str})
        predictions = pd.concat([predictions, simple], ignore_index=True)
    write_table(out / "predictions.parquet", predictions)
    write_table(out / "history.parquet", result.history)
    cli.say(f"finetune: scoring {predictions['gene_id'].nunique()} held-out genes")
    profiles, blocks = fold_profiles(bundle.observed, bundle.fold_of), bundle.block_of
    metrics = gs.to_metrics(gs.compare(predictions, bundle))
    metrics += strata_metrics(predictions, gene_strata(bundle), blocks, train_profile=profiles)
    metrics += gs.coverage_metrics(predictions, blocks) + result.costs
    extra = {"init": init, "network": network, "gene_sets": gene_sets}
    extra["leakage"] = bundle.leakage["status"]
    more = {"seeds": seeds, "extra": extra, "data": bundle.data_sha256 | own_files(bundle)}
    cli.write_cards(out, "finetune", metrics, config, bundle, **more)
    if not as_json:
        cli.show_scores(metrics, predictions["gene_id"].nunique())
    cli.emit({"models": sorted(out.glob("fold*_seed*")), "metrics": out / "metrics.json"}, as_json)


def write_track_page(folder: Path, bundle: "Bundle", metrics: "list[Metric]") -> Path:
    """Say the scores of `finetune --tracks`, and write its report with tracks around genes."""
    import pandas as pd

    from genesplice.results import judge
    from genesplice.show.report import Part, write_page

    for one in metrics:
        ends = "" if one.ci_low is None else f" [{one.ci_low:.3f}, {one.ci_high:.3f}]"
        cli.say(f"{one.metric}, {one.model}: {one.value:.3f}{ends}")
    own = dict.fromkeys(m.metric for m in metrics if " - " not in m.model)
    names = [name for name in own if not name.startswith("track_gene")]
    table = gs.metrics_frame(metrics)
    bars = gs.figures.metric_bars(
        table, names, highlight="genesplice", title="Bins of held-out blocks"
    )
    rest = table[~table["metric"].isin(names)][["metric", "model", "value", "ci_low", "ci_high"]]
    rest = rest.assign(model=rest["model"].map(gs.label)).round(3)
    parts: list[Part] = ["## Scores on held-out blocks", bars]
    parts += ["**Genes, and what is ahead of what.** Means over exons; 95 % intervals.", rest]
    genes = pd.read_parquet(folder / "genes.parquet")
    chosen = genes[genes["track"].isin(genes["track"].head(1))].sort_values("observed")["gene_id"]
    if len(chosen):
        text = "From the least to the most covered gene of the first track. Nothing is predicted "
        parts += ["## Measured and predicted\n\n" + text + "where no model held the bin out."]
        tables = gs.track_loci(bundle, folder, chosen.iloc[:: -(-len(chosen) // 12)].tolist())
        parts += [gs.explorers.TrackExplorer(*tables, names=bundle.names)]
    asked = [m for m in metrics if m.metric == f"{names[0]}_difference"] if names else []
    pairs = [(m, m.model.partition(" - ")[2]) for m in asked]
    lead = [judge(f"Ahead of {gs.label(other)}", one).sentence for one, other in pairs]
    return write_page(folder / "index.html", f"Tracks of {bundle.name}", parts, lead=lead)


@cli.app.command()
def predict(
    model: cli.ModelDir,
    data: cli.Data,
    out: cli.OutFile,
    genes_at_once: Annotated[
        int | None, typer.Option(help="For a graph that does not fit: genes read together.", min=1)
    ] = None,
    other_genome: cli.OtherGenome = False,
    overwrite: cli.Overwrite = False,
    as_json: cli.Json = False,
) -> None:
    """Predict every annotated gene in every condition: genes x conditions as Parquet.

    Of a folder with all folds a measured gene is predicted by the models that held it out.
    """
    models, bundle = cli.open_with_data("predict", model, data, "expression", other_genome)
    values = gs.predict_expression(models, bundle, genes_at_once=genes_at_once)
    write_table(out, values.reset_index())
    cli.emit({"predictions": out}, as_json)


@cli.app.command()
def verdict(
    data: cli.Data,
    out: cli.RunOut,
    preset: cli.Preset = "quick",
    assignments: cli.Set = None,
    ray: Annotated[str | None, typer.Option(help="A Ray cluster: HOST:PORT or auto.")] = None,
    ablations: Annotated[
        list[Path] | None, cli.reads("metrics.json of other stages, repeatable.")
    ] = None,
    controls_dir: Annotated[
        Path | None,
        typer.Option("--controls", help="Folder that remembers passed controls, for yours."),
    ] = None,
    resume: cli.Resume = False,
    as_json: cli.Json = False,
) -> None:
    """Say whether longer context helps: yes, no or cannot tell.

    Four simulated controls are judged first: unless all come out as planted, there is no verdict.
    Those that passed before with this code and these settings are not run again, all but one.
    """
    config = cli.read_config(preset, assignments)
    require_folder(controls_dir or out)
    from genesplice.context.verdict import REFUSED
    from genesplice.data.bundle import load_bundle

    others = [metric for path in ablations or () for metric in gs.read_metrics(path)]
    bundle = load_bundle(data)
    report = gs.context_test(
        bundle, config, out, resume=resume, ray=ray, controls=controls_dir, progress=cli.say
    )
    page = gs.write_report(
        report, bundle, config, out, command=cli.command_line(), started=cli.STARTED, others=others
    )
    cli.say(f"verdict: {report.verdict['sentence']}")
    files = [out / f"{name}.json" for name in ("verdict", "metrics", "manifest")]
    cli.emit({"page": page, "files": files}, as_json)
    if report.verdict["answer"] == REFUSED:
        raise WorkError(str(report.verdict["sentence"]))


@cli.app.command()
def controls(
    out: Annotated[Path, typer.Option(callback=cli.claim, help="A folder, new or with seeds.")],
    count: Annotated[int, typer.Option(min=1, help="Seeds.")] = 20,
    first: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    preset: cli.Preset = "quick",
    assignments: cli.Set = None,
    ray: Annotated[str | None, typer.Option(help="A Ray cluster: HOST:PORT or auto.")] = None,
    as_json: cli.Json = False,
) -> None:
    """Judge the four simulated controls of many seeds: yes, no, no and no is right.

    Seeds that are in OUT already, with the same settings and versions, are not run again.
    """
    config = cli.read_config(preset, assignments)
    require_folder(out)
    is_own = not is_taken(out) or any(out.glob("seed*"))
    require(is_own, f"{out} without a folder of any seed", "a new folder, or one of controls")
    from genesplice.context.controls import count_answers
    from genesplice.context.rule import ANSWERS
    from genesplice.context.verdict import make_runner

    seeds = range(first, first + count)
    records = count_answers(config, out, make_runner(config, ray, cli.say), seeds, progress=cli.say)
    for one in records:
        said = ", ".join(f"{answer} {one[answer]}" for answer in ANSWERS)
        cli.say(f"{one['control']}: must be {one['expected']}; {said}")
    write_json(out / "verdict_controls.json", {"controls": records, "made_by": cli.command_line()})
    cli.write_receipt(out, config=config.to_dict(), has_model=False)
    cli.emit({"controls": out / "verdict_controls.json"}, as_json)

"""The verb that edits a promoter."""

import time
from pathlib import Path
from typing import Annotated

import typer

from genesplice.cli.options import Data, Json, Out, Overwrite, app, command_line, emit, say

__all__: list[str] = []


@app.command()
def design(
    model: Annotated[
        list[Path], typer.Option("--model", help="Folder of finetune; repeatable (seeds, folds).")
    ],
    data: Data,
    gene: Annotated[str, typer.Option(help="Name or id, such as lacZ.")],
    towards: Annotated[str, typer.Option(help="up, down, or a level in log2(TPM+1).")],
    out: Out,
    protect: Annotated[
        list[str] | None,
        typer.Option(help="Not to be edited: a BED, or contig:start-end; repeatable."),
    ] = None,
    edits: Annotated[int, typer.Option(help="Most substitutions.", min=1)] = 5,
    beam: Annotated[int, typer.Option(help="Sequences kept a step; 1 is greedy.", min=1)] = 1,
    upstream: Annotated[int, typer.Option(help="Bases before the start.", min=14)] = 200,
    screen: Annotated[
        int, typer.Option(help="Edits of a sequence that are predicted, best by gradient.", min=1)
    ] = 64,
    keep_genes: Annotated[bool, typer.Option(help="Leave the bases of other genes alone.")] = True,
    window: Annotated[int, typer.Option(help="Bases around the start that are read.")] = 4096,
    seed: Annotated[int, typer.Option(help="Draws the random edits beside it.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Edit a gene's promoter towards a wanted level: every step, and what it is worth.

    Writes steps.tsv, designed.fasta, metrics.json. It is a model's proposal and no measurement.
    """
    from genesplice.data.bundle import load_bundle
    from genesplice.data.knowledge import adopt_knowledge
    from genesplice.errors import InputError
    from genesplice.explain.attribution import Explainer, resolve_genes
    from genesplice.explain.variants import design as search
    from genesplice.explain.variants import design_checks as checks
    from genesplice.explain.variants import design_places
    from genesplice.explain.variants.checks import ContigNames
    from genesplice.explain.variants.models import open_models, trained_on
    from genesplice.model.attention import backend_name
    from genesplice.results import write_metrics
    from genesplice.runtime import atomic_directory, file_sha256, write_manifest

    started, aim = time.monotonic(), search.parse_aim(towards)
    models = open_models(model, follow=False)
    bundle = adopt_knowledge(load_bundle(data), *models.level_paths)
    if not models.levels:
        raise InputError("no expression model", "--model DIR of a folder that finetune wrote")
    (chosen,) = resolve_genes(bundle, [gene])
    design_places.check_reach(upstream, window)
    names = ContigNames(bundle.genome, bundle.manifest.get("contig_aliases"))
    protected = design_places.protected_regions(protect or [], bundle.genome, names)
    places = design_places.editable_places(
        bundle, chosen, upstream_bp=upstream, protected=protected, keep_genes=keep_genes
    )
    explainers = [Explainer(one, bundle, window_bp=window) for one in models.levels]
    levels = search.GeneLevels(explainers, chosen)
    say(f"design: {len(places)} of {upstream} bases before {levels.window.name} may be edited")
    found = search.design(
        levels, aim, places, n_edits=edits, beam=beam, n_screened=screen, progress=say
    )
    training = trained_on(bundle, models.level_paths)
    checked = checks.check_design(
        explainers, found, places, training, upstream_bp=upstream, seed=seed
    )
    with atomic_directory(out, overwrite=overwrite) as scratch:
        table = checks.step_table(levels, found)
        table.to_csv(scratch / "steps.tsv", sep="\t", index=False, float_format="%.6g")
        (scratch / "designed.fasta").write_text(checks.design_fasta(levels, found, upstream))
        write_metrics(scratch / "metrics.json", checks.design_metrics(found, checked, seed=seed))
        beds = {p.name: file_sha256(p) for p in map(Path, protect or []) if p.is_file()}
        write_manifest(
            scratch,
            command=command_line(),
            started=started,
            config={
                "gene_id": chosen, "towards": towards, "edits": edits, "beam": beam,
                "upstream_bp": upstream, "screen": screen, "keep_genes": keep_genes,
                "window_bp": window, "protect": protect or [], "n_editable": len(places),
            },
            seeds={"random_edits": seed},
            data=bundle.data_sha256 | beds,
            backend=backend_name(),
            extra=models.record
            | {
                "nearest_promoter": checked.bases.gene_id,
                "nearest_gene_before": checked.before.gene_id,
                "nearest_gene": checked.after.gene_id,
            },
        )  # fmt: skip
    files = ("steps.tsv", "designed.fasta", "metrics.json", "manifest.json")
    emit({"files": [out / name for name in files]}, as_json)

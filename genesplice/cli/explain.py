"""The verb that explains."""

import shutil
import time
from typing import Annotated

import typer

from genesplice.cli import (
    Data,
    Json,
    ModelDir,
    OtherGenome,
    Out,
    Overwrite,
    app,
    command_line,
    emit,
    open_with_data,
    say,
)
from genesplice.errors import InputError

METHOD = (
    "ig, saliency, inputxgradient, deeplift, gradientshap, occlusion, ablation, ism or attention"
)


@app.command()
def explain(
    model: ModelDir,
    data: Data,
    genes: Annotated[str, typer.Option(help="Names or ids, such as b0344,recA; all; or fold:0.")],
    out: Out,
    method: Annotated[str, typer.Option(help=f"{METHOD}.")] = "ig",
    condition: Annotated[str | None, typer.Option(help="Explain its residual; else level.")] = None,
    steps: Annotated[int, typer.Option(help="Steps or samples of a gradient method.", min=2)] = 32,
    window: Annotated[int, typer.Option(help="Bases around the start that are read.")] = 8192,
    upstream: Annotated[int, typer.Option(help="ism: bases before the start.")] = 300,
    downstream: Annotated[int, typer.Option(help="ism: bases after it.")] = 100,
    known_sites: Annotated[
        bool, typer.Option(help="Measure attribution on promoter hexamers and regulators' sites.")
    ] = False,
    other_genome: OtherGenome = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show which bases a gene's prediction rests on: tables, checks, and a page (index.html).

    Of a folder with all folds each gene is explained by the mean of the models that held it out
    (attention: by the first of them). Mutagenesis (`--method ism`) keeps what it has done in
    OUT.parts until it is finished: the same command goes on where it was stopped.
    """
    from genesplice.cli.explanation import write_attention, write_explanation
    from genesplice.explain.attention import attention_of
    from genesplice.explain.attribution import METHODS
    from genesplice.explain.faithfulness import explain_genes
    from genesplice.predict.ensemble import EnsembleExplainer
    from genesplice.predict.gene_output import is_group, resolve_genes
    from genesplice.runtime import atomic_directory, write_manifest

    if method not in (*METHODS, "ism", "attention"):
        raise InputError(f"--method {method}", METHOD)
    if known_sites and method not in METHODS:
        raise InputError(f"--known-sites with --method {method}", f"one of {', '.join(METHODS)}")
    started, unfinished = time.monotonic(), out.with_name(f"{out.name}.parts")
    models, bundle = open_with_data(
        "explain", model, data, needs="expression", is_other_allowed=other_genome, follow=False
    )
    chosen = resolve_genes(bundle, genes.split(","))
    explainer = EnsembleExplainer(models, bundle, chosen, window_bp=window)
    facts = [f"model {model}", f"data {data}"]
    if method == "attention":
        tables = attention_of(explainer, chosen, condition=condition)
    else:
        found = explain_genes(
            explainer,
            chosen,
            method=method,
            condition=condition,
            steps=steps,
            is_checked=not is_group(genes),
            has_known_sites=known_sites,
            upstream_bp=upstream,
            downstream_bp=downstream,
            unfinished=unfinished,
            report=say,
        )
    with atomic_directory(out, overwrite=overwrite) as scratch:
        if method == "attention":
            names = write_attention(
                scratch, tables, bundle.genes.set_index("gene_id")["name"], facts=facts
            )
        else:
            span_bp = upstream, downstream
            names = write_explanation(scratch, found, span_bp=span_bp, facts=facts)
        write_manifest(
            scratch,
            command=command_line(),
            started=started,
            data=bundle.data_sha256,
            extra=models.record,
        )
    shutil.rmtree(unfinished, ignore_errors=True)
    emit({"files": [out / name for name in names]}, as_json)

"""The verb that explains."""

import shutil
import time
from typing import Annotated

import typer

from genesplice.cli import Data, Json, ModelDir, Out, Overwrite, app, command_line, emit
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
        bool, typer.Option(help="Measure attribution on promoter boxes and regulators' sites.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show which bases a gene's prediction rests on: tables, checks, and a page (index.html).

    Mutagenesis (`--method ism`) keeps what it has done in OUT.parts until it is finished: the same
    command goes on where it was stopped.
    """
    from genesplice.cli.explained import explain_genes, write_explanation
    from genesplice.data.bundle import adopt_knowledge, load_bundle
    from genesplice.explain.methods import METHODS
    from genesplice.predict.expression import load_model
    from genesplice.predict.gene_output import Explainer, is_group, resolve_genes
    from genesplice.runtime import atomic_directory, write_manifest

    if method not in (*METHODS, "ism", "attention"):
        raise InputError(f"--method {method}", METHOD)
    started, bundle = time.monotonic(), adopt_knowledge(load_bundle(data), model)
    if known_sites and method not in METHODS:
        raise InputError(f"--known-sites with --method {method}", f"one of {', '.join(METHODS)}")
    chosen = resolve_genes(bundle, genes.split(","))
    explainer = Explainer(load_model(model), bundle, window_bp=window)
    parts = out.with_name(f"{out.name}.parts")
    made = explain_genes(
        explainer,
        chosen,
        method,
        condition=condition,
        steps=steps,
        is_checked=not is_group(genes),
        has_known_sites=known_sites,
        span_bp=(upstream, downstream),
        unfinished=parts,
    )
    with atomic_directory(out, overwrite=overwrite) as scratch:
        names = write_explanation(scratch, made, facts=[f"model {model}", f"data {data}"])
        write_manifest(scratch, command=command_line(), started=started, data=bundle.data_sha256)
    shutil.rmtree(parts, ignore_errors=True)
    emit({"files": [out / name for name in names]}, as_json)

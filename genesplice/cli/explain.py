"""The verb that explains."""

import time
from typing import Annotated

import typer

from genesplice.cli.options import (
    Data,
    Json,
    ModelDir,
    Out,
    Overwrite,
    app,
    command_line,
    emit,
    say,
)
from genesplice.errors import InputError

__all__: list[str] = []

METHOD = (
    "ig, saliency, inputxgradient, deeplift, gradientshap, occlusion, ablation, ism or attention"
)


@app.command()
def explain(
    model: ModelDir,
    data: Data,
    genes: Annotated[str, typer.Option(help="Names or ids, such as b0344,recA; or all.")],
    out: Out,
    method: Annotated[str, typer.Option(help=f"{METHOD}.")] = "ig",
    condition: Annotated[str | None, typer.Option(help="Explain its residual; else level.")] = None,
    steps: Annotated[int, typer.Option(help="Steps or samples of a gradient method.", min=2)] = 32,
    window: Annotated[int, typer.Option(help="Bases around the start that are read.")] = 8192,
    upstream: Annotated[int, typer.Option(help="ism: bases before the start.")] = 300,
    downstream: Annotated[int, typer.Option(help="ism: bases after it.")] = 100,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show which bases a gene's prediction rests on.

    Mutagenesis (`--method ism`) keeps what it has done in OUT.parts until it is finished: the same
    command goes on where it was stopped.
    """
    import shutil

    import pandas as pd

    from genesplice.data.bundle import load_bundle
    from genesplice.evaluate.prediction import load_model
    from genesplice.explain.attention import gene_attention, head_ablation
    from genesplice.explain.attribution import (
        Explainer,
        attribution_table,
        completeness_metrics,
        resolve_genes,
    )
    from genesplice.explain.faithfulness import faithfulness_metrics, judge
    from genesplice.explain.methods import METHODS
    from genesplice.explain.mutagenesis import scan_genes
    from genesplice.results import write_metrics
    from genesplice.runtime import atomic_directory, write_manifest

    if method not in (*METHODS, "ism", "attention"):
        raise InputError(f"--method {method}", METHOD)
    started, bundle = time.monotonic(), load_bundle(data)
    everything = genes.strip().lower() == "all"
    chosen = (
        list(bundle.genes["gene_id"]) if everything else resolve_genes(bundle, genes.split(","))
    )
    explainer = Explainer(load_model(model), bundle, window_bp=window)
    parts = out.with_name(f"{out.name}.parts")
    metrics, more = [], {}
    if method == "ism":
        span = {"upstream_bp": upstream, "downstream_bp": downstream}
        table = scan_genes(explainer, chosen, parts, condition=condition, progress=say, **span)
    elif method == "attention":
        table = pd.concat([gene_attention(explainer, g) for g in chosen], ignore_index=True)
        heads = [head_ablation(explainer, g, condition=condition) for g in chosen]
        more["heads.tsv"] = pd.concat(heads, ignore_index=True)
    else:
        found = [
            explainer.explain(gene_id, method=method, condition=condition, steps=steps)
            for gene_id in chosen
        ]
        table = attribution_table(found)
        metrics = completeness_metrics(found)
        if not everything:
            judged = [judge(explainer, one) for one in found]
            for one in judged:
                say(f"explain: {one.name}: {one.verdict}")
            metrics += faithfulness_metrics(judged)
    with atomic_directory(out, overwrite=overwrite) as scratch:
        for name, extra in more.items():
            extra.to_csv(scratch / name, sep="\t", index=False)
        table.to_parquet(scratch / "attributions.parquet", index=False)
        table.to_csv(scratch / "attributions.tsv", sep="\t", index=False)
        write_metrics(scratch / "metrics.json", metrics)
        write_manifest(scratch, command=command_line(), started=started, data=bundle.data_sha256)
    shutil.rmtree(parts, ignore_errors=True)
    names = ("attributions.parquet", "attributions.tsv", "metrics.json", *more)
    emit({"files": [out / name for name in names]}, as_json)

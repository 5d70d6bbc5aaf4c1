"""The verb that explains: tables, metrics, and the page that shows them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genesplice import cli
from genesplice.errors import InputError, require

if TYPE_CHECKING:
    import pandas as pd

    from genesplice.explain.attention import AttentionTables
    from genesplice.explain.faithfulness import Explanation
    from genesplice.results import Metric
    from genesplice.show.report import Part

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
    from genesplice.explain.attention import attention_of
    from genesplice.explain.attribution import METHODS
    from genesplice.explain.faithfulness import explain_genes
    from genesplice.predict.ensemble import EnsembleExplainer
    from genesplice.predict.gene_output import is_group, resolve_genes
    from genesplice.runtime import atomic_directory

    require(method in (*METHODS, "ism", "attention"), f"--method {method}", METHOD)
    if known_sites and method not in METHODS:
        raise InputError(f"--known-sites with --method {method}", f"one of {', '.join(METHODS)}")
    unfinished = out.with_name(f"{out.name}.parts")
    models, bundle = cli.open_with_data(
        "explain", model, data, needs="expression", is_other_allowed=other_genome, follow=False
    )
    bundle.require_expression()
    chosen = resolve_genes(bundle, genes.split(","))
    explainer = EnsembleExplainer(models, bundle, chosen, window_bp=window)
    facts = [f"model {model}", f"data {data}"]
    if method == "attention":
        tables = attention_of(explainer, chosen, condition=condition)
    else:
        found = explain_genes(
            explainer, chosen, method=method, condition=condition, steps=steps,
            is_checked=not is_group(genes), has_known_sites=known_sites,
            upstream_bp=upstream, downstream_bp=downstream,
            unfinished=unfinished, report=cli.say,
        )  # fmt: skip
    with atomic_directory(out, overwrite=overwrite) as scratch:
        if method == "attention":
            names = _write_attention(scratch, tables, bundle.names, facts=facts)
        else:
            span_bp = upstream, downstream
            names = _write_explanation(scratch, found, span_bp=span_bp, facts=facts)
        cli.write_receipt(scratch, data=bundle.data_sha256, extra=models.record)
    shutil.rmtree(unfinished, ignore_errors=True)
    cli.emit({"files": [out / name for name in names]}, as_json)


def _write_explanation(
    folder: Path, made: Explanation, *, span_bp: tuple[int, int], facts: Sequence[str]
) -> list[str]:
    """Write tables, metrics and page of attributions; their names."""
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
    if made.known_sites is not None:
        more["known_sites.tsv"] = made.known_sites
        parts += [
            "## On known sites\n\nIs attribution larger on a known site than on random intervals "
            "of the same gene's upstream region? AUROC, 0.5 by chance; `control` is the same model "
            "with permuted weights.",
            made.known_sites,
        ]
    return _write(folder, title, lead, parts, made.table, more, made.metrics, facts)


def _write_attention(
    folder: Path, made: AttentionTables, names: pd.Series, *, facts: Sequence[str]
) -> list[str]:
    """Write tables and page of attention; their names."""
    from genesplice.show.explorers import AttentionExplorer

    genes = made.weights["gene_id"].unique()
    few = [part[part["gene_id"].isin(genes[:N_SHOWN_ATTENTION])] for part in made]
    grouped = made.heads.groupby(["level", "layer", "head"], sort=False)["effect"]
    heads = grouped.agg(mean_change="mean", mean_size=lambda x: x.abs().mean()).reset_index()
    heads[["layer", "head"]] += 1
    parts: list[Part] = [
        "## What attends to what\n\nExact rows, recomputed from queries and keys. Choose a gene, a "
        "level, a head and a position. Under the bars: the attention rollout, which bases the "
        "start can draw on through all levels.",
        AttentionExplorer(few[0], few[1], heads=few[2], names=names),
        "## What counts\n\nAttention is not explanation. A head counts if the prediction changes "
        "when it is ablated: the largest changes over these genes.",
        heads.sort_values("mean_size", ascending=False).head(12),
    ]
    lead = "Attention shows what a token draws on; which head counts, only head ablation can show."
    more = {"heads.tsv": made.heads, "rollout.tsv": made.rollout}
    title = f"Attention of {len(genes)} genes"
    return _write(folder, title, lead, parts, made.weights, more, [], facts)


def _write(
    folder: Path,
    title: str,
    lead: str,
    parts: list[Part],
    table: pd.DataFrame,
    more: dict[str, pd.DataFrame],
    metrics: list[Metric],
    facts: Sequence[str],
) -> list[str]:
    from genesplice.results import write_metrics
    from genesplice.show.report import write_page

    table.to_parquet(folder / "attributions.parquet", index=False)
    for name, one in {"attributions.tsv": table, **more}.items():
        one.to_csv(folder / name, sep="\t", index=False)
    write_metrics(folder / "metrics.json", metrics)
    footer = "The tables that it shows are in the same folder."
    write_page(folder / "index.html", title, parts, facts=facts, lead=[lead], footer=footer)
    return ["attributions.parquet", "attributions.tsv", "metrics.json", *more, "index.html"]

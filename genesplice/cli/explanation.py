"""What `genesplice explain` writes: tables, metrics, and the page that shows them."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from genesplice.explain.attention import AttentionTables
from genesplice.explain.attribution import METHODS
from genesplice.explain.faithfulness import Explanation
from genesplice.results import Metric, write_metrics
from genesplice.show.explorers import AttentionExplorer
from genesplice.show.figures_explain import SHOWN_BP, attribution_parts, lead_of
from genesplice.show.report import Part, write_page

N_SHOWN, N_SHOWN_ATTENTION = 100, 8
"""Genes on a page; the tables have all of them."""


def write_explanation(
    folder: Path, made: Explanation, *, span_bp: tuple[int, int], facts: Sequence[str]
) -> list[str]:
    """Write tables, metrics and page of attributions; their names."""
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


def write_attention(
    folder: Path, made: AttentionTables, names: pd.Series, *, facts: Sequence[str]
) -> list[str]:
    """Write tables and page of attention; their names."""
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
    table.to_parquet(folder / "attributions.parquet", index=False)
    for name, one in {"attributions.tsv": table, **more}.items():
        one.to_csv(folder / name, sep="\t", index=False)
    write_metrics(folder / "metrics.json", metrics)
    footer = "The tables that it shows are in the same folder."
    write_page(folder / "index.html", title, parts, facts=facts, lead=[lead], footer=footer)
    return ["attributions.parquet", "attributions.tsv", "metrics.json", *more, "index.html"]

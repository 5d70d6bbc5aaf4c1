"""What `genesplice explain` makes: tables, checks, and the page that shows them."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from genesplice.cli import say
from genesplice.explain.attention import gene_attention, head_ablation, roll_up
from genesplice.explain.attribution import attribution_table, completeness_metrics
from genesplice.explain.faithfulness import (
    curve_table,
    curves,
    faithfulness_metrics,
    faithfulness_table,
    judge,
    randomised,
)
from genesplice.explain.methods import METHODS, attribute_gene
from genesplice.explain.motifs import MotifScanner, measure_known_sites, motif_sites
from genesplice.explain.mutagenesis import attribution_of_table, scan_genes
from genesplice.predict.gene_output import Explainer
from genesplice.results import Attribution, Metric, write_metrics
from genesplice.show.explained import SHOWN_BP, attribution_parts, lead_of
from genesplice.show.explorers import AttentionExplorer
from genesplice.show.report import Part, write_page

LISTENERS_BP = (-256, -64, 0, 64, 256)
N_ATTENTION = 8
SECONDS_BETWEEN_LINES = 10
N_SHOWN = 100
"""Genes on a page; the tables have all of them."""


class Explanation(NamedTuple):
    """What is written: `table` for every base, further tables by file name, and the page."""

    title: str
    lead: str
    table: pd.DataFrame
    more: dict[str, pd.DataFrame]
    metrics: list[Metric]
    parts: list[Part]


def explain_genes(
    explainer: Explainer,
    genes: Sequence[str],
    method: str,
    *,
    condition: str | None,
    steps: int,
    is_checked: bool,
    has_known_sites: bool = False,
    span_bp: tuple[int, int],
    unfinished: Path,
) -> Explanation:
    """Explain genes by one of `METHODS`, "ism" or "attention".

    Parameters
    ----------
    is_checked
        Judge every attribution: deletion, insertion, mutagenesis, and a model with other weights.
    has_known_sites
        Measure attribution on known sites, beside the model with permuted weights.
    span_bp, unfinished
        Of mutagenesis: bases before and after the start, and where it keeps what it has done.
    """
    target = condition or "level"
    if method == "attention":
        return _attention(explainer, genes, condition)
    if method == "ism":
        table = scan_genes(
            explainer, genes, unfinished, condition=condition, progress=say,
            upstream_bp=span_bp[0], downstream_bp=span_bp[1],
        )  # fmt: skip
        found = attribution_of_table(table[table["gene_id"].isin(genes[:N_SHOWN])])
        title = f"In-silico mutagenesis of {len(genes)} genes: {target}"
        lead = (
            "Every base was changed to each of the other three and the prediction made again: "
            "exact, and therefore what other methods are held against."
        )
        parts = attribution_parts(
            found, sites=_sites(explainer, found, span_bp), shown_bp=span_bp, is_exact=True
        )
        return Explanation(title, lead, table, {}, [], parts)
    options: dict[str, Any] = {"method": method, "condition": condition, "steps": steps}
    found = _explain_each(explainer, genes, options, "explain")
    metrics = completeness_metrics(found) if METHODS[method].promises_sum else []
    checks, drawn, control = None, {}, []
    if is_checked or has_known_sites:
        other = Explainer(
            randomised(explainer.model), explainer.bundle, window_bp=explainer.window_bp,
            vectors=explainer.vectors,
        )  # fmt: skip
        control = _explain_each(other, genes, options, "explain with permuted weights")
    if is_checked:
        judged = []
        for one, ablation in zip(found, control, strict=True):
            drawn[one.gene_id] = curves(explainer, one, condition=condition)
            judged.append(
                judge(
                    explainer, one, condition=condition, drawn=drawn[one.gene_id], control=ablation
                )
            )
            say(f"explain: {one.name}: {judged[-1].verdict}")
        metrics += faithfulness_metrics(judged)
        checks = faithfulness_table(judged)
    known = None
    if has_known_sites:
        of_sites, known = measure_known_sites(
            explainer.bundle, found, control, upstream_bp=span_bp[0]
        )
        metrics += of_sites
    shown = found[:N_SHOWN]
    parts = attribution_parts(
        shown,
        checks=checks,
        curves={gene_id: curve_table(one) for gene_id, one in list(drawn.items())[:N_SHOWN]},
        sites=_sites(explainer, shown, SHOWN_BP),
        promises_sum=METHODS[method].promises_sum,
    )
    more = {} if checks is None else {"checks.tsv": checks.reset_index()}
    if known is not None:
        more["known_sites.tsv"] = known
        parts += [
            "## On known sites\n\nIs attribution larger on a known site than on random stretches "
            "of the same gene's upstream? AUROC, 0.5 by chance; `control` is the same model with "
            "permuted weights.",
            known,
        ]
    title = f"{METHODS[method].label.capitalize()} of {len(genes)} genes: {target}"
    return Explanation(
        title, lead_of(checks, len(found)), attribution_table(found), more, metrics, parts
    )


def _explain_each(
    explainer: Explainer, genes: Sequence[str], options: dict[str, Any], label: str
) -> list[Attribution]:
    found: list[Attribution] = []
    started = told = time.monotonic()
    for gene_id in genes:
        found.append(attribute_gene(explainer, gene_id, **options))
        now = time.monotonic()
        if now - told >= SECONDS_BETWEEN_LINES:
            told, rest = now, (now - started) / len(found) * (len(genes) - len(found))
            say(f"{label}: {len(found)} of {len(genes)} genes, {rest:.0f} s left")
    return found


def _attention(explainer: Explainer, genes: Sequence[str], condition: str | None) -> Explanation:
    table = pd.concat(
        [gene_attention(explainer, g, positions_bp=LISTENERS_BP) for g in genes], ignore_index=True
    )
    rolled = pd.concat([roll_up(explainer, g) for g in genes], ignore_index=True)
    heads = pd.concat(
        [head_ablation(explainer, g, condition=condition) for g in genes], ignore_index=True
    )
    names = explainer.bundle.genes.set_index("gene_id")["name"]
    shown = genes[:N_ATTENTION]
    few = [part[part["gene_id"].isin(shown)] for part in (table, rolled, heads)]
    parts: list[Part] = [
        "## What listens to what\n\nExact rows, recomputed from queries and keys. Choose a gene, "
        "a level, a head and who listens. Under the bars: which bases the start can have heard "
        "when all levels are rolled up.",
        AttentionExplorer(few[0], few[1], heads=few[2], names=names),
        "## What counts\n\nAttention is not explanation. A head counts if the prediction changes "
        "when it falls silent: the largest changes over these genes.",
        _loudest(heads),
    ]
    lead = "Attention says what is listened to; which head counts, only silencing it can say."
    more = {"heads.tsv": heads, "rolled.tsv": rolled}
    return Explanation(f"Attention of {len(genes)} genes", lead, table, more, [], parts)


def _loudest(heads: pd.DataFrame) -> pd.DataFrame:
    grouped = heads.groupby(["level", "layer", "head"], sort=False)["effect"]
    table = grouped.agg(mean_change="mean", mean_size=lambda x: x.abs().mean()).reset_index()
    table[["layer", "head"]] += 1
    return table.sort_values("mean_size", ascending=False).head(12)


def _sites(
    explainer: Explainer, found: Sequence[Attribution], span_bp: tuple[int, int]
) -> pd.DataFrame | None:
    if not explainer.bundle.motifs:
        return None
    scan = MotifScanner(explainer.bundle.motifs).scan
    return motif_sites(found, scan, upstream_bp=span_bp[0], downstream_bp=span_bp[1])


def write_explanation(folder: Path, made: Explanation, *, facts: Sequence[str]) -> list[str]:
    """Write tables, metrics and page; their names."""
    made.table.to_parquet(folder / "attributions.parquet", index=False)
    made.table.to_csv(folder / "attributions.tsv", sep="\t", index=False)
    write_metrics(folder / "metrics.json", made.metrics)
    for name, table in made.more.items():
        table.to_csv(folder / name, sep="\t", index=False)
    write_page(
        folder / "index.html", made.title, made.parts, facts=facts, lead=[made.lead],
        footer="The tables that it shows are in the same folder.",
    )  # fmt: skip
    return ["attributions.parquet", "attributions.tsv", "metrics.json", *made.more, "index.html"]

"""Explain genes, and check the attributions: deletion, insertion, mutagenesis, a random model.

Faithful is what passes every check that was made; the limits are the constants below.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from genesplice.data.relatives import GROUPS
from genesplice.errors import require
from genesplice.evaluate.bootstrap import rank_agreement
from genesplice.explain.attribution import COMPLETE, METHODS, attribute_gene, attribution_table
from genesplice.explain.motifs import MotifScanner, measure_known_sites, motif_sites
from genesplice.explain.mutagenesis import (
    Curves,
    attribution_of_table,
    deletion_insertion,
    mutate,
    scan_genes,
)
from genesplice.model.genesplice import GeneSplice
from genesplice.predict.gene_output import Explainer, resolve_genes
from genesplice.results import Attribution, Metric
from genesplice.runtime import Countdown, side_by_side

ISM_AGREEMENT = 0.5
"""Least rank correlation with mutagenesis around the start."""
RANDOM_AGREEMENT = 0.3
"""Most rank correlation with the same method on a model with other weights."""
BETTER_THAN_RANDOM = 0.0
"""Least gain of deleting by rank over deleting at random, and of inserting likewise."""
SITES_BP = {"upstream_bp": 512, "downstream_bp": 128}
"""Around the TSS, where motif sites are looked for."""
Report = Callable[[str], None]


class Faithfulness(NamedTuple):
    """The checks of one attribution; None where one was not made.

    A gain is the area between a curve and that of random order. `relative_delta` is nan where the
    prediction is that of the baseline.
    """

    gene_id: str
    name: str
    method: str
    relative_delta: float
    promises_sum: bool
    deletion_auc: float
    insertion_auc: float
    deletion_gain: float
    insertion_gain: float
    ism_spearman: float | None
    random_spearman: float | None

    @property
    def failures(self) -> list[str]:
        """Which checks it does not pass, in words."""
        found = []
        if self.promises_sum and np.isnan(self.relative_delta):
            found.append("the prediction is that of the baseline, there is nothing to explain")
        elif self.promises_sum and not self.relative_delta <= COMPLETE:
            found.append(f"{self.relative_delta:.0%} of the prediction is missing")
        for name, gain in (("deletion", self.deletion_gain), ("insertion", self.insertion_gain)):
            if not gain > BETTER_THAN_RANDOM:
                found.append(f"{name} is no better than at random")
        if self.ism_spearman is not None and not self.ism_spearman >= ISM_AGREEMENT:
            found.append(f"rank agreement with mutagenesis is {self.ism_spearman:.2f}")
        if self.random_spearman is not None and not self.random_spearman <= RANDOM_AGREEMENT:
            found.append(f"a model with other weights gives the same ({self.random_spearman:.2f})")
        return found

    @property
    def verdict(self) -> str:
        """The stamp of a figure: "faithful", or "not faithful" and why."""
        return f"not faithful: {'; '.join(self.failures)}" if self.failures else "faithful"


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Attributions of several genes, and the evidence for and against them.

    Attributes
    ----------
    method
        Its name in reports.
    attributions
        One a gene.
    table
        One row a base: from `attribution_table`, or `mutation_table` for in-silico mutagenesis.
    sites
        From `motif_sites`.
    metrics
        Completeness, every check, attribution on known sites.
    checks
        From `faithfulness_table`; None where nothing was checked.
    curves
        gene_id to deletion and insertion curves, a column each (see `Curves`).
    known_sites
        From `measure_known_sites`, where that was asked for.
    """

    method: str
    attributions: list[Attribution]
    table: pd.DataFrame
    sites: pd.DataFrame
    metrics: list[Metric] = dataclasses.field(default_factory=list)
    checks: pd.DataFrame | None = None
    curves: dict[str, pd.DataFrame] = dataclasses.field(default_factory=dict)
    known_sites: pd.DataFrame | None = None

    @property
    def parts(self) -> pd.DataFrame:
        """What the sequence and each group of relatives add to each gene (`part_table`)."""
        return part_table(self.attributions)


def explain_genes(
    explainer: Explainer,
    genes: Sequence[str],
    *,
    method: str = "ig",
    condition: str | None = None,
    steps: int = 32,
    is_checked: bool = True,
    has_known_sites: bool = False,
    upstream_bp: int = 300,
    downstream_bp: int = 100,
    unfinished: Path | None = None,
    report: Report = lambda message: None,
) -> Explanation:
    """Explain genes by one of `METHODS`, or by in-silico mutagenesis ("ism").

    Parameters
    ----------
    genes
        Ids or names, "all", or "fold:0".
    condition
        Explain the residual in it; None: the level.
    is_checked
        Check every attribution: deletion, insertion, mutagenesis, and a model with other weights.
    has_known_sites
        Measure attribution on known sites, compared with the model with permuted weights.
    upstream_bp, downstream_bp
        Around the TSS: bases that mutagenesis changes, and where known sites are looked for.
    unfinished
        Folder in which mutagenesis keeps finished genes, to go on where it was stopped.
    report
        Gets a line of progress now and then.

    Raises
    ------
    InputError
        For an unknown gene, method or condition.
    WorkError
        If the method is not valid for this model.
    """
    genes = resolve_genes(explainer.bundle, genes)
    scan = MotifScanner(explainer.bundle.motifs).scan
    if method == "ism":
        span = {"upstream_bp": upstream_bp, "downstream_bp": downstream_bp}
        table = scan_genes(explainer, genes, unfinished, condition=condition, report=report, **span)
        found = [with_conservation(explainer, one) for one in attribution_of_table(table)]
        sites = motif_sites(found, scan, **span, genes=explainer.bundle.genes)
        return Explanation("in-silico mutagenesis", found, table, sites)
    require(method in METHODS, f"method '{method}'", f"one of {', '.join(METHODS)}, ism")
    options: dict[str, Any] = {"method": method, "condition": condition, "steps": steps}
    random_model = explainer.changed(randomised) if is_checked or has_known_sites else None
    controls: dict[str, Attribution] = {}
    curves: dict[str, Curves] = {}
    checks: dict[str, Faithfulness] = {}
    countdown = Countdown(len(genes), "explain: genes", report)

    def explain(gene_id: str) -> Attribution:
        found, control = attribute_gene(explainer, gene_id, **options), None
        found = with_conservation(explainer, found)
        if random_model is not None:
            controls[gene_id] = control = attribute_gene(random_model, gene_id, **options)
        if is_checked:
            curves[gene_id] = drawn = deletion_insertion(explainer, found, condition=condition)
            about: dict[str, Any] = {"control": control, "curves": drawn, "condition": condition}
            checks[gene_id] = check_attribution(explainer, found, **about)
            report(f"explain: {found.name}: {checks[gene_id].verdict}")
        countdown.step()
        return found

    is_threaded = METHODS[method].is_threaded
    found = side_by_side(explain, genes) if is_threaded else [explain(gene) for gene in genes]
    metrics = completeness_metrics(found) if METHODS[method].promises_sum else []
    metrics += part_metrics(found)
    checked, known_sites = [checks[gene] for gene in genes if gene in checks], None
    if is_checked:
        metrics += faithfulness_metrics(checked)
    if has_known_sites:
        control = [controls[gene] for gene in genes]
        of_sites, known_sites = measure_known_sites(
            explainer.bundle, found, control, upstream_bp=upstream_bp
        )
        metrics += of_sites
    tables = {gene: pd.DataFrame(curves[gene]._asdict()) for gene in genes if gene in curves}
    sites = motif_sites(found, scan, **SITES_BP, genes=explainer.bundle.genes)
    return Explanation(
        METHODS[method].label, found, attribution_table(found), sites, metrics, curves=tables,
        checks=faithfulness_table(checked) if is_checked else None, known_sites=known_sites,
    )  # fmt: skip


def randomised(model: GeneSplice, seed: int = 0) -> GeneSplice:
    """The same architecture with every weight's entries permuted, so that sizes stay.

    Source: Adebayo et al., Sanity checks for saliency maps, 2018, section 3.
    """
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in other.parameters():
            flat = weight.flatten()
            weight.copy_(flat[torch.randperm(len(flat), generator=generator)].view_as(weight))
    return other.eval()


def check_attribution(
    explainer: Explainer,
    found: Attribution,
    *,
    condition: str | None = None,
    ism_bp: int = 64,
    control: Attribution | None = None,
    curves: Curves | None = None,
) -> Faithfulness:
    """Make the checks of one attribution.

    Parameters
    ----------
    ism_bp
        Mutagenesis goes this far to either side of the TSS; 0 leaves that check out.
    control
        The same gene and method on a model with other weights (`randomised`), or one trained on
        shuffled labels.
    curves
        From `deletion_insertion`, where they are at hand already.
    """
    curves = curves or deletion_insertion(explainer, found, condition=condition)
    ism = random = None
    if ism_bp:
        mutated = mutate(
            explainer, found.gene_id, upstream_bp=ism_bp, downstream_bp=ism_bp, condition=condition
        )
        low = mutated.offset_bp - found.offset_bp
        ism = rank_agreement(found.values[low : low + 2 * ism_bp], mutated.importance)
    if control is not None:
        random = abs(rank_agreement(found.values, control.values))
    is_sum = any(m.promises_sum for m in METHODS.values() if m.label == found.method)
    about = found.gene_id, found.name, found.method, found.relative_delta
    deletion, insertion, of_random, to_random = map(curves.area, Curves._fields[1:])
    gains = of_random - deletion, insertion - to_random
    return Faithfulness(*about, is_sum, deletion, insertion, *gains, ism, random)


def faithfulness_table(checked: Sequence[Faithfulness]) -> pd.DataFrame:
    """One row a gene, indexed by gene_id: what was measured, and the verdict in words."""
    numbers = ["missing", *Faithfulness._fields[-4:]]
    rows = [(one.gene_id, one.name, one.verdict, one.relative_delta, *one[-4:]) for one in checked]
    table = pd.DataFrame(rows, columns=["gene_id", "name", "verdict", *numbers])
    return table.set_index("gene_id").astype(dict.fromkeys(numbers, float))


def faithfulness_metrics(checked: Sequence[Faithfulness]) -> list[Metric]:
    """The share of genes that are faithful, and per gene every figure that was measured."""
    share = float(np.mean([not one.failures for one in checked])) if checked else 0.0
    values = [("faithful_share", share, len(checked))]
    for one in checked:
        measured = zip(Faithfulness._fields[5:], one[5:], strict=True)
        values += [(f"{name}:{one.gene_id}", x, 1) for name, x in measured if x is not None]
    return [Metric(name, x, None, None, n, "genesplice", "explained") for name, x, n in values]


# --- what is said of attributions beside the checks ---


def with_conservation(explainer: Explainer, found: Attribution) -> Attribution:
    """The same with how its bases are conserved, where the data have relatives or a score."""
    gene = explainer.bundle.genes.set_index("gene_id").loc[found.gene_id]
    low, n = found.offset_bp, len(found.tokens)
    is_minus = gene["strand"] == "-"
    start = int(gene["tss"]) + (1 - low - n if is_minus else low)
    at = gene["contig"], start, start + n, gene["strand"]
    return found._replace(conservation=explainer.bundle.conservation(*at))


def part_table(attributions: Sequence[Attribution]) -> pd.DataFrame:
    """What the sequence and each group of relatives add to the prediction, a row a gene.

    Columns: gene_id, name, sequence, and near, middle and far where columns are read; change (the
    prediction less that of the baseline) and missing (what the parts lack of it).
    """
    rows = []
    for one in attributions:
        parts = {"gene_id": one.gene_id, "name": one.name, "sequence": float(one.values.sum())}
        if one.by_group is not None:
            parts |= dict(zip(GROUPS, one.by_group.sum(0).tolist(), strict=True))
        change = one.output - one.baseline_output
        rows.append(parts | {"change": change, "missing": -one.delta})
    return pd.DataFrame(rows)


def part_metrics(attributions: Sequence[Attribution]) -> list[Metric]:
    """Mean share of absolute attribution on the sequence and on each group of relatives."""
    read = [(one.values, one.by_group) for one in attributions if one.by_group is not None]
    sizes = [np.abs(np.column_stack(both)).sum(0) for both in read]
    shares = [size / size.sum() for size in sizes if size.sum() > 0]
    mean = np.mean(shares, axis=0).tolist() if shares else ()
    return [
        Metric(f"attribution_share_{part}", x, None, None, len(shares), "genesplice", "explained")
        for part, x in zip(("sequence", *GROUPS), mean, strict=False)
    ]


def completeness_metrics(attributions: Sequence[Attribution]) -> list[Metric]:
    """Per gene |delta| / |output - baseline|, and the median over genes.

    Genes whose prediction is that of the baseline have no such share and are left out.
    """
    relative = {one.gene_id: one.relative_delta for one in attributions}
    known = {gene_id: value for gene_id, value in relative.items() if np.isfinite(value)}
    if not known:
        return []
    counted = [("completeness_delta", float(np.median(list(known.values()))), len(known))]
    counted += [(f"completeness_delta:{gene_id}", value, 1) for gene_id, value in known.items()]
    return [Metric(name, x, None, None, n, "genesplice", "explained") for name, x, n in counted]

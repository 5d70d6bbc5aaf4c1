"""Known sites upstream of explained genes: promoter boxes, and those of regulators of the network.

The question of every row: is attribution larger on the site than on random stretches of the same
gene's upstream, beside what is usual at that distance from the start? Asked of the model, and of
the same model with permuted weights: what is above 0.5 there too is no finding.

Only genes that are first of their operon are asked: what lies before another is the coding sequence
of the gene before. A motif finds sites by chance as well, and of a regulator whose targets have no
more of them than shuffled sequence has, no model can point at the true ones: counts are given.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from genesplice.data.bundle import Bundle
from genesplice.evaluate.regions import first_of_operon
from genesplice.explain.boxes import (
    BoxScanner,
    motif_counts,
    regulator_motifs,
    regulator_targets,
    score_table,
    upstream,
)
from genesplice.explain.motifs import MotifScanner, Scanner
from genesplice.explain.sites import SiteScore, site_metrics, site_scores, site_table
from genesplice.results import Attribution, Metric

__all__ = ["BOXES", "KnownSites", "known_site_scores", "known_sites", "measure_known_sites"]

BOXES = "-10 and -35 boxes"
BOX_REACH_BP = 20, 120
"""From a -10 box to the start of translation; further away there are no more than by chance."""
CONTROL = "permuted_weights"


class KnownSites(NamedTuple):
    """Whose sites are looked for upstream of which genes, and how."""

    targets: dict[str, list[str]]
    scanners: dict[str, Scanner]
    sequences: dict[str, UInt8[np.ndarray, " upstream"]]


def known_sites(
    bundle: Bundle, found: Sequence[Attribution], *, upstream_bp: int = 300
) -> KnownSites:
    """Those of `BOXES`, and of the regulators with motifs, among explained genes."""
    is_first = first_of_operon(bundle)
    genes = [one.gene_id for one in found if is_first.get(one.gene_id, True)]
    sequences = {one.gene_id: upstream(one, upstream_bp) for one in found}
    bases = np.concatenate([sequences[gene_id] for gene_id in genes] or [np.arange(4)])
    share = np.bincount(bases[bases < 4], minlength=4) + 1
    background = tuple((share / share.sum()).tolist())
    scanners: dict[str, Scanner] = {
        regulator: MotifScanner(motifs, background=background)
        for regulator, motifs in regulator_motifs(bundle).items()
    }
    scanners[BOXES] = BoxScanner(reach_bp=BOX_REACH_BP)
    known = regulator_targets(bundle) | {BOXES: genes}
    asked = set(genes)
    targets = {name: [gene for gene in known[name] if gene in asked] for name in scanners}
    return KnownSites(targets, scanners, {gene_id: sequences[gene_id] for gene_id in genes})


def known_site_scores(
    known: KnownSites, found: Sequence[Attribution], *, upstream_bp: int = 300, seed: int = 0
) -> list[SiteScore]:
    """Scores of `BOXES`, if there are ten genes with a pair, and of regulators with ten targets."""
    table = site_table(found, known.targets, known.scanners, upstream_bp=upstream_bp, seed=seed)
    return site_scores(table, seed=seed)


def measure_known_sites(
    bundle: Bundle,
    found: Sequence[Attribution],
    control: Sequence[Attribution],
    *,
    upstream_bp: int = 300,
    seed: int = 0,
) -> tuple[list[Metric], pd.DataFrame]:
    """Records, and one row a regulator (see `score_table`), with counts of sites.

    `motif_auroc` is the mean over regulators, `motif_auroc:NAME` one of them, `box_auroc` that of
    the promoter's boxes; of "genesplice" and of "permuted_weights". `motif_auroc_enriched` is the
    mean over the regulators of whose targets more have a site than of 97.5 % of shuffled ones.

    Parameters
    ----------
    found, control
        The same genes explained by the model, and by one with permuted weights.
    """
    known = known_sites(bundle, found, upstream_bp=upstream_bp)
    scored = [
        known_site_scores(known, some, upstream_bp=upstream_bp, seed=seed)
        for some in (found, control)
    ]
    asked = {one.regulator for one in scored[0]}
    counts = motif_counts(
        known.sequences,
        known.targets,
        {name: scanner for name, scanner in known.scanners.items() if name in asked},
        seed=seed,
    )
    enriched = set(counts.loc[counts["found"] > counts["null_high"], "regulator"])
    metrics = []
    for name, scores in zip(("genesplice", CONTROL), scored, strict=True):
        of_motifs = [one for one in scores if one.regulator != BOXES]
        metrics += site_metrics(of_motifs, model=name)
        metrics += [
            metric._replace(metric="motif_auroc_enriched")
            for metric in site_metrics(
                [s for s in of_motifs if s.regulator in enriched], model=name
            )
            if metric.metric == "motif_auroc"
        ]
        metrics += [
            metric._replace(metric="box_auroc")
            for metric in site_metrics([s for s in scores if s.regulator == BOXES], model=name)
            if metric.metric != "motif_auroc"
        ]
    return metrics, score_table(scored[0], scored[1], counts)

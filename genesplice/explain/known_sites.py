"""Known sites upstream of explained genes: promoter boxes, and those of regulators of the network.

The question of every row: is attribution larger on the site than on random stretches of the same
gene's upstream? Asked of the model, and of the same model with permuted weights, which must not.
"""

from collections.abc import Sequence

import pandas as pd

from genesplice.data.bundle import Bundle
from genesplice.explain.boxes import BoxScanner, regulator_motifs, regulator_targets, score_table
from genesplice.explain.motifs import MotifScanner, Scanner
from genesplice.explain.sites import SiteScore, site_metrics, site_scores, site_table
from genesplice.results import Attribution, Metric

__all__ = ["BOXES", "known_site_scores", "measure_known_sites"]

BOXES = "-10 and -35 boxes"
CONTROL = "permuted_weights"


def known_site_scores(
    bundle: Bundle, found: Sequence[Attribution], *, upstream_bp: int = 300, seed: int = 0
) -> list[SiteScore]:
    """Scores of `BOXES`, if there are ten genes with a pair, and of regulators with ten targets."""
    genes = [one.gene_id for one in found]
    scanners: dict[str, Scanner] = {
        regulator: MotifScanner(motifs) for regulator, motifs in regulator_motifs(bundle).items()
    }
    targets = {name: who for name, who in regulator_targets(bundle).items() if name in scanners}
    table = site_table(
        found,
        {**targets, BOXES: genes},
        {**scanners, BOXES: BoxScanner()},
        upstream_bp=upstream_bp,
        seed=seed,
    )
    return site_scores(table, seed=seed)


def measure_known_sites(
    bundle: Bundle,
    found: Sequence[Attribution],
    control: Sequence[Attribution],
    *,
    upstream_bp: int = 300,
    seed: int = 0,
) -> tuple[list[Metric], pd.DataFrame]:
    """Records, and one row a regulator (see `score_table`).

    `motif_auroc` is the mean over regulators, `motif_auroc:NAME` one of them, `box_auroc` that of
    the promoter's boxes; of "genesplice" and of "permuted_weights".

    Parameters
    ----------
    found, control
        The same genes explained by the model, and by one with permuted weights.
    """
    scored = [
        known_site_scores(bundle, some, upstream_bp=upstream_bp, seed=seed)
        for some in (found, control)
    ]
    metrics = []
    for name, scores in zip(("genesplice", CONTROL), scored, strict=True):
        metrics += site_metrics([one for one in scores if one.regulator != BOXES], model=name)
        metrics += [
            metric._replace(metric="box_auroc")
            for metric in site_metrics(
                [one for one in scores if one.regulator == BOXES], model=name
            )
            if metric.metric != "motif_auroc"
        ]
    return metrics, score_table(*scored)

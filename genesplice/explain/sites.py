"""Whether attributions point at the sites of the regulators that are known to act there."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.metrics import roc_auc_score

from genesplice.evaluate.bootstrap import interval
from genesplice.explain.motifs import Scanner
from genesplice.results import Attribution, Metric, MotifHit

__all__ = ["SiteScore", "site_metrics", "site_scores", "site_table"]

MIN_TARGETS = 10
FEWEST_FREE, SMOOTH_BP, SMALLEST_USUAL = 5, 21, 1e-3


class SiteScore(NamedTuple):
    """How well attribution tells one regulator's sites from random ones upstream of its targets.

    `auroc` is 0.5 by chance; the interval is a bootstrap over targets.
    """

    regulator: str
    n_targets: int
    n_sites: int
    auroc: float
    ci_low: float | None
    ci_high: float | None


def site_table(
    attributions: Sequence[Attribution],
    targets: Mapping[str, Sequence[str]],
    scanners: Mapping[str, Scanner],
    *,
    upstream_bp: int = 300,
    n_random: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Attribution on known sites and on random stretches of the same width and the same gene.

    A site's value is the mean absolute attribution of its bases, each as a share of what is usual
    at its distance from the start: attribution grows towards it, and sites are not anywhere. What
    is usual is the mean over all `attributions` but for the sites. Of sites that overlap the best
    one is taken. Random stretches lie in the same `upstream_bp` before the TSS and overlap no site
    of that regulator. Columns: regulator, gene_id, is_site, value.

    Parameters
    ----------
    targets
        Regulator to the ids of its targets.
    scanners
        Regulator to the scanner of its motifs; `BoxScanner` for the promoter itself.
    """
    generator = np.random.default_rng(seed)
    by_gene = {found.gene_id: _upstream(found, upstream_bp) for found in attributions}
    rows = []
    for regulator, scanner in scanners.items():
        mine = [gene_id for gene_id in targets.get(regulator, ()) if gene_id in by_gene]
        hits = {gene_id: _apart(scanner.scan(by_gene[gene_id][0])) for gene_id in mine}
        usual = _usual({gene_id: size for gene_id, (_, size) in by_gene.items()}, hits)
        for gene_id in mine:
            size = by_gene[gene_id][1]
            size = size / usual[len(usual) - len(size) :]
            for start, end, is_site in _stretches(hits[gene_id], len(size), n_random, generator):
                value = float(size[start:end].mean())
                rows.append((regulator, gene_id, is_site, value))
    return pd.DataFrame(rows, columns=["regulator", "gene_id", "is_site", "value"])


def _upstream(found: Attribution, upstream_bp: int) -> tuple[np.ndarray, np.ndarray]:
    low, high = max(-found.offset_bp - upstream_bp, 0), -found.offset_bp
    return found.tokens[low:high], np.abs(found.values[low:high])


def _apart(hits: Sequence[MotifHit]) -> list[MotifHit]:
    """The best of hits that overlap, by start."""
    kept: list[MotifHit] = []
    for hit in sorted(hits, key=lambda one: (-one.score, one.start)):
        if all(hit.end <= other.start or other.end <= hit.start for other in kept):
            kept.append(hit)
    return sorted(kept)


def _usual(
    sizes: Mapping[str, np.ndarray], hits: Mapping[str, Sequence[MotifHit]]
) -> Float[np.ndarray, " upstream"]:
    """Mean size of an attribution at each distance from the start, 1 over all; without the hits.

    Every gene counts the same. Places that are free in fewer than five genes have what their
    neighbours have; then the mean is taken over `SMOOTH_BP`.
    """
    length = max((len(size) for size in sizes.values()), default=0)
    table = np.full((len(sizes), length), np.nan)
    for row, (gene_id, size) in zip(table, sizes.items(), strict=True):
        mean = size.mean() if len(size) else 0.0
        if mean > 0:
            row[length - len(size) :] = size / mean
            for hit in hits.get(gene_id, ()):
                row[length - len(size) + hit.start : length - len(size) + hit.end] = np.nan
    free = np.isfinite(table).sum(0)
    known = np.flatnonzero(free >= FEWEST_FREE)
    if not len(known):
        return np.ones(length)
    mean = np.nansum(table, 0)[known] / free[known]
    filled = np.pad(np.interp(np.arange(length), known, mean), SMOOTH_BP // 2, mode="edge")
    smooth = np.convolve(filled, np.full(SMOOTH_BP, 1 / SMOOTH_BP), mode="valid")
    return np.maximum(smooth, SMALLEST_USUAL)


def _stretches(
    hits: Sequence[MotifHit], length: int, n_random: int, generator: np.random.Generator
) -> list[tuple[int, int, bool]]:
    """Each site, followed by random stretches of its width."""
    is_taken = np.zeros(length, bool)
    for hit in hits:
        is_taken[hit.start : hit.end] = True
    before = np.concatenate([[0], np.cumsum(is_taken)])
    found = []
    for hit in hits:
        width = hit.end - hit.start
        free = np.flatnonzero(before[width:] == before[: length + 1 - width])
        found.append((hit.start, hit.end, True))
        for start in generator.choice(free, n_random) if len(free) else ():
            found.append((int(start), int(start) + width, False))
    return found


def site_scores(
    table: pd.DataFrame,
    *,
    min_targets: int = MIN_TARGETS,
    n_resamples: int = 200,
    seed: int = 0,
) -> list[SiteScore]:
    """AUROC of every regulator with sites upstream of at least `min_targets` of its targets.

    Values are ranked within each gene first, so that a gene with large attributions throughout
    says no more than another.
    """
    ranked = table.assign(value=table.groupby(["regulator", "gene_id"])["value"].rank(pct=True))
    scores = []
    for regulator, part in ranked.groupby("regulator"):
        kinds = part.groupby("gene_id")["is_site"].nunique()
        genes = kinds.index[kinds == 2]
        if len(genes) < min_targets:
            continue
        groups = [part[part["gene_id"] == gene_id] for gene_id in genes]
        generator = np.random.default_rng(seed)
        drawn = [_auroc(groups)]
        for _ in range(n_resamples):
            picked = generator.integers(0, len(groups), len(groups))
            drawn.append(_auroc([groups[i] for i in picked]))
        sites = int(sum(group["is_site"].sum() for group in groups))
        ends = interval(np.array(drawn), len(groups), (0.0, 1.0))
        scores.append(SiteScore(str(regulator), len(genes), sites, drawn[0], *ends))
    return sorted(scores, key=lambda one: -one.auroc)


def _auroc(groups: Sequence[pd.DataFrame]) -> float:
    is_site = np.concatenate([group["is_site"].to_numpy(bool) for group in groups])
    value = np.concatenate([group["value"].to_numpy() for group in groups])
    return float(roc_auc_score(is_site, value))


def site_metrics(scores: Sequence[SiteScore], *, model: str = "genesplice") -> list[Metric]:
    """One record a regulator, and their mean with its interval over regulators."""
    records = [
        Metric(
            f"motif_auroc:{one.regulator}", one.auroc, one.ci_low, one.ci_high, one.n_targets,
            model, "explained",
        )
        for one in scores
    ]  # fmt: skip
    if not scores:
        return records
    values = np.array([one.auroc for one in scores])
    generator = np.random.default_rng(0)
    drawn = values[generator.integers(0, len(values), (2000, len(values)))].mean(1)
    ends = interval(np.array([values.mean(), *drawn]), len(values), (0.0, 1.0))
    mean = float(values.mean())
    return [
        Metric("motif_auroc", mean, *ends, len(values), model, "explained"),
        *records,
    ]

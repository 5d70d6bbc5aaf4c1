"""Whether attributions point at the sites of the regulators that are known to act there."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from Bio.motifs import Motif
from jaxtyping import Float, UInt8
from sklearn.metrics import roc_auc_score

from genesplice.data.ablation import dinucleotide_shuffle
from genesplice.data.bundle import Bundle
from genesplice.data.motifs import find_promoter
from genesplice.data.splits import first_of_operon
from genesplice.evaluate.bootstrap import resampled
from genesplice.results import Attribution, Metric, MotifHit

LETTERS = "ACGT"
PSEUDOCOUNT = 0.01
# Steps of the score per position, of its distribution. 1,000 take twelve times as long; of 12 real
# motifs they give 0.92 to 1.11 of the rate that was asked for, 100 give 0.93 to 1.15.
SCORE_STEPS = 100


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


Scan = Callable[[UInt8[np.ndarray, " length"]], list[MotifHit]]
"""From a sequence to its sites, by start: `MotifScanner.scan`, or `find_promoter`."""


class MotifScanner:
    """Scan sequences for a set of motifs at one false-positive rate per position.

    Parameters
    ----------
    motifs
        Name to probabilities over A, C, G, T, one row a position.
    false_positive_rate
        Of a random sequence with the `background` frequencies, on one strand.
    background
        Frequencies of A, C, G, T.
    """

    def __init__(
        self,
        motifs: Mapping[str, Float[np.ndarray, "length 4"]],
        *,
        false_positive_rate: float = 1e-4,
        background: tuple[float, float, float, float] = (0.25, 0.25, 0.25, 0.25),
    ) -> None:
        frequency = dict(zip(LETTERS, background, strict=True))
        self.matrices = {}
        for name, probabilities in motifs.items():
            counts = {base: list(probabilities[:, i]) for i, base in enumerate(LETTERS)}
            motif = Motif(alphabet=LETTERS, counts=counts)
            scores = motif.counts.normalize(pseudocounts=PSEUDOCOUNT).log_odds(frequency)
            distribution = scores.distribution(background=frequency, precision=SCORE_STEPS)
            self.matrices[name] = (scores, distribution.threshold_fpr(false_positive_rate))

    def scan(self, tokens: UInt8[np.ndarray, " length"]) -> list[MotifHit]:
        """Hits on both strands, by start; a window with an N has none."""
        sequence = "".join("ACGTNN"[token] for token in tokens)
        hits = []
        for name, (scores, threshold) in self.matrices.items():
            width = scores.length
            if len(sequence) < width:
                continue
            for strand, matrix in (("+", scores), ("-", scores.reverse_complement())):
                found = np.atleast_1d(matrix.calculate(sequence))
                for start in np.flatnonzero(np.nan_to_num(found, nan=-np.inf) >= threshold):
                    hit = MotifHit(
                        int(start), int(start) + width, name, float(found[start]), strand
                    )
                    hits.append(hit)
        return sorted(hits)


def motif_sites(
    found: Sequence[Attribution], scan: Scan, *, upstream_bp: int, downstream_bp: int
) -> pd.DataFrame:
    """Hits around the start of each gene; `start` and `end` count from its TSS, sense strand.

    Columns: gene_id, start, end, name, score, strand.
    """
    rows = []
    for one in found:
        low = max(-one.offset_bp - upstream_bp, 0)
        for hit in scan(one.tokens[low : -one.offset_bp + downstream_bp]):
            first = low + one.offset_bp
            rows.append((one.gene_id, hit.start + first, hit.end + first, *hit[2:]))
    return pd.DataFrame(rows, columns=["gene_id", "start", "end", "name", "score", "strand"])


# Gene names of regulators whose motifs go by another name.
ALIASES = {"h_ns": "hns", "ihf": "ihfa", "frur": "cra", "ntrc": "glng"}


def regulator_motifs(bundle: Bundle) -> dict[str, dict[str, Float[np.ndarray, "_ 4"]]]:
    """Motifs of each regulator of the network, by its gene's name in lower case.

    A motif "CRP_25-12" belongs to the gene "crp". Motifs of no regulator are left out.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    known = set(regulator_targets(bundle))
    for name, matrix in bundle.motifs.items():
        stem = str(name).rsplit("_", 1)[0].lower()
        regulator = ALIASES.get(stem, stem)
        if regulator in known:
            found.setdefault(regulator, {})[str(name)] = matrix
    return found


def regulator_targets(bundle: Bundle) -> dict[str, list[str]]:
    """Targets of each regulator, by its gene's name in lower case; itself left out."""
    names = bundle.genes.set_index("gene_id")["name"].astype(str).str.lower().to_dict()
    found: dict[str, list[str]] = {}
    for edge in bundle.network.itertuples(index=False):
        if edge.source != edge.target and edge.source in names:
            found.setdefault(names[edge.source], []).append(str(edge.target))
    return {regulator: sorted(set(targets)) for regulator, targets in found.items()}


def motif_counts(
    sequences: Mapping[str, UInt8[np.ndarray, " length"]],
    targets: Mapping[str, Sequence[str]],
    scans: Mapping[str, Scan],
    *,
    n_shuffles: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """How many of a regulator's targets have its site, beside what chance gives.

    Columns: regulator, n_targets, found (targets with a site), expected, null_low and null_high
    (mean and middle 95 % over dinucleotide shuffles of the same sequences), elsewhere (share of
    the other genes with a site).

    Parameters
    ----------
    sequences
        gene_id → what is searched, such as the 300 bp before the TSS, sense strand.
    """
    rows = []
    for regulator, scan in scans.items():
        mine = [gene for gene in targets.get(regulator, ()) if gene in sequences]
        if not mine:
            continue
        generator = np.random.default_rng(seed)
        found = sum(bool(scan(sequences[gene])) for gene in mine)
        null = [
            sum(bool(scan(dinucleotide_shuffle(sequences[gene], generator))) for gene in mine)
            for _ in range(n_shuffles)
        ]
        others = [gene for gene in sequences if gene not in set(mine)]
        elsewhere = np.mean([bool(scan(sequences[g])) for g in others]) if others else 0.0
        low, high = np.quantile(null, [0.025, 0.975])
        rows.append(
            (regulator, len(mine), found, float(np.mean(null)), low, high, float(elsewhere))
        )
    columns = ["regulator", "n_targets", "found", "expected", "null_low", "null_high", "elsewhere"]
    return pd.DataFrame(rows, columns=columns)


def score_table(
    scores: Sequence[SiteScore], control: Sequence[SiteScore], counts: pd.DataFrame | None = None
) -> pd.DataFrame:
    """One row a regulator: AUROC of attribution on its sites, and of a model with other weights.

    Columns: regulator, n_targets, n_sites, auroc, ci_low, ci_high, control (NaN where it was not
    measured); with `counts` from `motif_counts` also found, expected, null_low, null_high and
    elsewhere.
    """
    by_name = {one.regulator: one.auroc for one in control}
    rows = [(*one, by_name.get(one.regulator, np.nan)) for one in scores]
    table = pd.DataFrame(rows, columns=[*SiteScore._fields, "control"])
    if counts is None:
        return table
    return table.merge(counts.drop(columns="n_targets"), on="regulator", how="left")


def upstream(found: Attribution, upstream_bp: int) -> UInt8[np.ndarray, " length"]:
    """The bases before an explained gene's start."""
    return found.tokens[max(-found.offset_bp - upstream_bp, 0) : -found.offset_bp]


MIN_TARGETS = 10
FEWEST_FREE, SMOOTH_BP, SMALLEST_USUAL = 5, 21, 1e-3


def site_table(
    attributions: Sequence[Attribution],
    targets: Mapping[str, Sequence[str]],
    scans: Mapping[str, Scan],
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
    scans
        Regulator to what finds its sites.
    """
    generator = np.random.default_rng(seed)
    by_gene = {found.gene_id: _upstream(found, upstream_bp) for found in attributions}
    rows = []
    for regulator, scan in scans.items():
        mine = [gene_id for gene_id in targets.get(regulator, ()) if gene_id in by_gene]
        hits = {gene_id: _apart(scan(by_gene[gene_id][0])) for gene_id in mine}
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
        auroc = resampled(
            partial(_auroc, groups), np.arange(len(groups)),
            n_bootstrap=n_resamples, seed=seed, limits=(0.0, 1.0),
        )  # fmt: skip
        sites = int(sum(group["is_site"].sum() for group in groups))
        scores.append(SiteScore(str(regulator), len(genes), sites, *auroc))
    return sorted(scores, key=lambda one: -one.auroc)


def _auroc(groups: Sequence[pd.DataFrame], rows: np.ndarray) -> float:
    is_site = np.concatenate([groups[row]["is_site"].to_numpy(bool) for row in rows])
    value = np.concatenate([groups[row]["value"].to_numpy() for row in rows])
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
    mean = resampled(
        lambda rows: float(values[rows].mean()),
        np.arange(len(values)), n_bootstrap=2000, limits=(0.0, 1.0),
    )  # fmt: skip
    return [
        Metric("motif_auroc", *mean, len(values), model, "explained"),
        *records,
    ]


HEXAMERS = "-10 and -35 hexamers"
CONTROL = "permuted_weights"


class KnownSites(NamedTuple):
    """Whose sites are looked for upstream of which genes, and how."""

    targets: dict[str, list[str]]
    scans: dict[str, Scan]
    sequences: dict[str, UInt8[np.ndarray, " upstream"]]


def known_sites(
    bundle: Bundle, found: Sequence[Attribution], *, upstream_bp: int = 300
) -> KnownSites:
    """Those of `HEXAMERS`, and of the regulators with motifs, among explained genes."""
    is_first = first_of_operon(bundle.genome, bundle.genes, bundle.splits)
    genes = [one.gene_id for one in found if is_first.get(one.gene_id, True)]
    sequences = {one.gene_id: upstream(one, upstream_bp) for one in found}
    bases = np.concatenate([sequences[gene_id] for gene_id in genes] or [np.arange(4)])
    share = np.bincount(bases[bases < 4], minlength=4) + 1
    background = tuple((share / share.sum()).tolist())
    scans: dict[str, Scan] = {
        regulator: MotifScanner(motifs, background=background).scan
        for regulator, motifs in regulator_motifs(bundle).items()
    }
    scans[HEXAMERS] = find_promoter
    known = regulator_targets(bundle) | {HEXAMERS: genes}
    asked = set(genes)
    targets = {name: [gene for gene in known[name] if gene in asked] for name in scans}
    return KnownSites(targets, scans, {gene_id: sequences[gene_id] for gene_id in genes})


def known_site_scores(
    known: KnownSites, found: Sequence[Attribution], *, upstream_bp: int = 300, seed: int = 0
) -> list[SiteScore]:
    """Scores of `HEXAMERS` (ten genes with a pair or more), and of regulators with ten targets."""
    table = site_table(found, known.targets, known.scans, upstream_bp=upstream_bp, seed=seed)
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

    `motif_auroc` is the mean over regulators, `motif_auroc:NAME` one of them, `hexamer_auroc` that of
    the promoter's hexamers; of "genesplice" and of "permuted_weights". `motif_auroc_enriched` is the
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
        {name: scan for name, scan in known.scans.items() if name in asked},
        seed=seed,
    )
    enriched = set(counts.loc[counts["found"] > counts["null_high"], "regulator"])
    metrics = []
    for name, scores in zip(("genesplice", CONTROL), scored, strict=True):
        of_motifs = [one for one in scores if one.regulator != HEXAMERS]
        metrics += site_metrics(of_motifs, model=name)
        metrics += [
            metric._replace(metric="motif_auroc_enriched")
            for metric in site_metrics(
                [s for s in of_motifs if s.regulator in enriched], model=name
            )
            if metric.metric == "motif_auroc"
        ]
        metrics += [
            metric._replace(metric="hexamer_auroc")
            for metric in site_metrics([s for s in scores if s.regulator == HEXAMERS], model=name)
            if metric.metric != "motif_auroc"
        ]
    return metrics, score_table(scored[0], scored[1], counts)

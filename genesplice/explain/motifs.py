"""Motif sites, and whether attributions point at the known sites of regulators and promoters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from Bio.motifs import Motif
from jaxtyping import Float, UInt8

from genesplice.data.bundle import Bundle
from genesplice.data.coding import exons_of
from genesplice.data.features import find_promoter
from genesplice.data.knowledge import dinucleotide_shuffle
from genesplice.data.splits import first_of_operon
from genesplice.evaluate.bootstrap import interval, make_draws, ranking_draws, resampled
from genesplice.explain.attribution import FEWEST_GENES, SMALLEST_USUAL, usual_of_letters
from genesplice.results import Attribution, Metric, MotifHit

LETTERS = "ACGT"
PSEUDOCOUNT = 0.01
SCORE_STEPS = 1000
"""Steps per position of the distribution of a score."""
# Gene names of regulators whose motifs go by another name.
ALIASES = {"h_ns": "hns", "ihf": "ihfa", "frur": "cra", "ntrc": "glng"}
HEXAMERS = "-10 and -35 hexamers"
CONTROL, OF_COLUMNS, COLUMN = "permuted_weights", "genesplice_columns", "column"
MIN_TARGETS, N_RESAMPLES = 10, 200
SMOOTH_BP = 21

Scan = Callable[[UInt8[np.ndarray, " length"]], list[MotifHit]]
"""From a sequence to its sites, by start: `MotifScanner.scan`, or `find_promoter`."""


def score_threshold(
    scores: Float[np.ndarray, "length 4"], background: Sequence[float], rate: float
) -> float:
    """The score that at most `rate` of random positions reach, or only the best one does.

    From the distribution over a grid of scores: Biopython's own takes 14 s of CPU for the 97 motifs
    of *E. coli* at a tenth of the steps, this a fifth of one.
    """
    lowest = scores.min(1, keepdims=True)
    step = max(float(np.ptp(scores, 1).max()) / SCORE_STEPS, 1e-9)
    chance = np.ones(1)
    for shifts in np.rint((scores - lowest) / step).astype(int):
        longer = np.zeros(len(chance) + shifts.max())
        for shift, share in zip(shifts.tolist(), background, strict=True):
            longer[shift : shift + len(chance)] += share * chance
        chance = longer
    reached = chance[::-1].cumsum()[::-1]
    first = min(int((reached > rate).sum()), len(chance) - 1)
    # What is rounded down by half a step at each position still counts.
    return float(lowest.sum()) + (first - len(scores) / 2) * step


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
            table = np.array([scores[base] for base in LETTERS]).T
            threshold = score_threshold(table, background, false_positive_rate)
            self.matrices[name] = scores, threshold

    def scan(self, tokens: UInt8[np.ndarray, " length"]) -> list[MotifHit]:
        """Hits on both strands, by start; a window with an N has none."""
        sequence = "".join("ACGTNN"[token] for token in tokens)
        hits = []
        for name, (matrix, threshold) in self.matrices.items():
            width = matrix.length
            if len(sequence) < width:
                continue
            for strand, oriented in (("+", matrix), ("-", matrix.reverse_complement())):
                scores = np.atleast_1d(oriented.calculate(sequence))
                for start in np.flatnonzero(np.nan_to_num(scores, nan=-np.inf) >= threshold):
                    score = float(scores[start])
                    hits.append(MotifHit(int(start), int(start) + width, name, score, strand))
        return sorted(hits)


def motif_sites(
    found: Sequence[Attribution],
    scan: Scan,
    *,
    upstream_bp: int,
    downstream_bp: int,
    genes: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Hits around the start of each gene; `start` and `end` count from its TSS, sense strand.

    Columns: gene_id, start, end, name, score, strand. With the table of `genes` the coding exons of
    spliced ones are among them, cut to what is around the start: "exon 1", "exon 2", …, no score.
    """
    rows, named = [], {one.gene_id for one in found}
    spliced = () if genes is None else genes[genes["exons"].map(len) > 2].itertuples()
    for gene in (gene for gene in spliced if gene.gene_id in named):
        edges = exons_of(gene) - gene.tss
        edges = edges if gene.strand == "+" else 1 - edges[:, ::-1]
        for number, (low, high) in enumerate(edges.clip(-upstream_bp, downstream_bp).tolist(), 1):
            if low < high:
                rows.append((gene.gene_id, low, high, f"exon {number}", np.nan, "+"))
    for one in found:
        low = max(-one.offset_bp - upstream_bp, 0)
        for hit in scan(one.tokens[low : -one.offset_bp + downstream_bp]):
            first = low + one.offset_bp
            rows.append((one.gene_id, hit.start + first, hit.end + first, *hit[2:]))
    return pd.DataFrame(rows, columns=["gene_id", "start", "end", "name", "score", "strand"])


def regulator_motifs(bundle: Bundle) -> dict[str, dict[str, Float[np.ndarray, "_ 4"]]]:
    """Motifs of each regulator of the network, by its gene's name in lower case.

    A motif "CRP_25-12" belongs to the gene "crp". Motifs of no regulator are left out.
    """
    motifs: dict[str, dict[str, np.ndarray]] = {}
    known = set(regulator_targets(bundle))
    for name, matrix in bundle.motifs.items():
        stem = str(name).rsplit("_", 1)[0].lower()
        regulator = ALIASES.get(stem, stem)
        if regulator in known:
            motifs.setdefault(regulator, {})[str(name)] = matrix
    return motifs


def regulator_targets(bundle: Bundle) -> dict[str, list[str]]:
    """Targets of each regulator, by its gene's name in lower case; itself left out."""
    names = bundle.genes.set_index("gene_id")["name"].astype(str).str.lower()
    edges = bundle.network[bundle.network["source"] != bundle.network["target"]]
    regulator = edges["source"].map(names).rename("regulator")
    targets = edges["target"].astype(str).groupby(regulator, sort=False).unique()
    return {str(name): sorted(some) for name, some in targets.items()}


def motif_counts(
    sequences: Mapping[str, UInt8[np.ndarray, " length"]],
    targets: Mapping[str, Sequence[str]],
    scans: Mapping[str, Scan],
    *,
    n_shuffles: int = 20,
) -> pd.DataFrame:
    """How many of a regulator's targets have its site, compared with chance.

    Columns: regulator, n_targets, found (targets with a site), expected, null_low and null_high
    (mean and middle 95 % over dinucleotide shuffles of the same sequences), elsewhere (share of
    the other genes with a site).

    Parameters
    ----------
    sequences
        gene_id to what is searched, such as the 300 bp before the TSS, sense strand.
    """
    rows = []
    for regulator, scan in scans.items():
        mine = [gene for gene in targets.get(regulator, ()) if gene in sequences]
        if not mine:
            continue
        generator = np.random.default_rng(0)
        null = [
            sum(bool(scan(dinucleotide_shuffle(sequences[gene], generator))) for gene in mine)
            for _ in range(n_shuffles)
        ]
        has_site = {gene: bool(scan(tokens)) for gene, tokens in sequences.items()}
        found = sum(has_site[gene] for gene in mine)
        others = [has_site[gene] for gene in sequences if gene not in set(mine)]
        elsewhere = float(np.mean(others)) if others else 0.0
        low, high = np.quantile(null, [0.025, 0.975])
        rows.append((regulator, len(mine), found, float(np.mean(null)), low, high, elsewhere))
    columns = ["regulator", "n_targets", "found", "expected", "null_low", "null_high", "elsewhere"]
    return pd.DataFrame(rows, columns=columns)


def site_table(
    attributions: Sequence[Attribution],
    targets: Mapping[str, Sequence[str]],
    scans: Mapping[str, Scan],
    *,
    upstream_bp: int = 300,
    n_random: int = 10,
) -> pd.DataFrame:
    """Attribution on known sites and on random intervals of the same width and the same gene.

    A site's value is the mean absolute attribution of its bases, each divided by what is usual at
    its distance from the start and then of its letter: attribution grows towards the start, and is
    larger on some letters whatever is learned; sites are not anywhere, and rich in A and T. Usual
    is the mean over all `attributions` but for the sites. Of sites that overlap the best is taken.
    Random intervals lie in the same `upstream_bp` before the TSS and overlap no site of that
    regulator. Columns: regulator, gene_id, is_site, value.

    Parameters
    ----------
    targets, scans
        Regulator to the ids of its targets, and to what finds its sites.
    """
    generator = np.random.default_rng(0)
    at = {one.gene_id: upstream(one, upstream_bp) for one in attributions}
    tokens = {one.gene_id: one.tokens[at[one.gene_id]] for one in attributions}
    sizes = {one.gene_id: np.abs(one.values[at[one.gene_id]]) for one in attributions}
    rows = []
    for regulator, scan in scans.items():
        mine = [gene_id for gene_id in targets.get(regulator, ()) if gene_id in sizes]
        hits = {gene_id: _without_overlaps(scan(tokens[gene_id])) for gene_id in mine}
        usual = _usual(sizes, hits)
        scaled = {one: size / usual[len(usual) - len(size) :] for one, size in sizes.items()}
        of_letter = usual_of_letters(scaled, tokens, hits)
        for gene_id in mine:
            size = scaled[gene_id] / of_letter[tokens[gene_id]]
            for start, end, is_site in _intervals(hits[gene_id], len(size), n_random, generator):
                rows.append((regulator, gene_id, is_site, float(size[start:end].mean())))
    return pd.DataFrame(rows, columns=["regulator", "gene_id", "is_site", "value"])


def upstream(found: Attribution, upstream_bp: int) -> slice:
    """Where the bases before an explained gene's start are."""
    return slice(max(-found.offset_bp - upstream_bp, 0), -found.offset_bp)


def _without_overlaps(hits: Sequence[MotifHit]) -> list[MotifHit]:
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

    Every gene counts the same. Positions that are free in fewer than five genes have what their
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
    known = np.flatnonzero(free >= FEWEST_GENES)
    if not len(known):
        return np.ones(length)
    mean = np.nansum(table, 0)[known] / free[known]
    filled = np.pad(np.interp(np.arange(length), known, mean), SMOOTH_BP // 2, mode="edge")
    smooth = np.convolve(filled, np.full(SMOOTH_BP, 1 / SMOOTH_BP), mode="valid")
    return np.maximum(smooth, SMALLEST_USUAL)


def _intervals(
    hits: Sequence[MotifHit], length: int, n_random: int, generator: np.random.Generator
) -> list[tuple[int, int, bool]]:
    """Each site, followed by random intervals of its width that overlap no site."""
    is_taken = np.zeros(length, bool)
    for hit in hits:
        is_taken[hit.start : hit.end] = True
    before = np.concatenate([[0], np.cumsum(is_taken)])
    intervals = []
    for hit in hits:
        width = hit.end - hit.start
        free = np.flatnonzero(before[width:] == before[: length + 1 - width])
        intervals.append((hit.start, hit.end, True))
        for start in generator.choice(free, n_random) if len(free) else ():
            intervals.append((int(start), int(start) + width, False))
    return intervals


def site_scores(table: pd.DataFrame, *, min_targets: int = MIN_TARGETS) -> pd.DataFrame:
    """How well attribution separates a regulator's sites from random intervals; best first.

    Columns: regulator (with sites upstream of at least `min_targets` targets), n_targets, n_sites,
    auroc (0.5 by chance), ci_low and ci_high (bootstrap over targets). Values are ranked within
    each gene first, so that one with large attributions throughout counts no more than another.
    """
    ranked = table.assign(value=table.groupby(["regulator", "gene_id"])["value"].rank(pct=True))
    rows = []
    for regulator, part in ranked.groupby("regulator"):
        kinds = part.groupby("gene_id")["is_site"].nunique()
        genes = kinds.index[kinds == 2]
        if len(genes) < min_targets:
            continue
        part = part[part["gene_id"].isin(genes)]
        is_site, value = part["is_site"].to_numpy(bool), part["value"].to_numpy()
        draws = make_draws(len(genes), N_RESAMPLES, 0)
        auroc, _ = ranking_draws(is_site, value, genes.get_indexer(part["gene_id"]), draws)
        limits = interval(auroc, len(genes), (0.0, 1.0))
        rows.append((str(regulator), len(genes), int(is_site.sum()), auroc[0], *limits))
    columns = ["regulator", "n_targets", "n_sites", "auroc", "ci_low", "ci_high"]
    scores = pd.DataFrame(rows, columns=columns)
    return scores.sort_values("auroc", ascending=False, kind="stable", ignore_index=True)


def measure_known_sites(
    bundle: Bundle,
    found: Sequence[Attribution],
    control: Sequence[Attribution],
    *,
    upstream_bp: int = 300,
) -> tuple[list[Metric], pd.DataFrame]:
    """Attribution on the promoter's hexamers and on sites of regulators, with a control.

    Only first genes of operons are searched. Records: `motif_auroc` is the mean over regulators
    with ten targets, `motif_auroc:NAME` one of them, `hexamer_auroc` that of the promoter;
    `motif_auroc_enriched` is the mean over regulators of whose targets more have a site than of
    97.5 % of shuffled ones. All of "genesplice" and of "permuted_weights"; with relatives also of
    "column", the information of the alignment column without a model, and of "genesplice_columns",
    the attribution of columns where the model reads them.

    The table has one row a regulator: columns of `site_scores` and `motif_counts`, and the AUROC
    of each other score there is (nan for a regulator that it has none for).

    Parameters
    ----------
    found, control
        The same genes explained by the model, and by one with permuted weights.
    """
    is_first = first_of_operon(bundle.genome, bundle.genes, bundle.splits)
    first = [one for one in found if is_first.get(one.gene_id, True)]
    sequences = {one.gene_id: one.tokens[upstream(one, upstream_bp)] for one in first}
    bases = np.concatenate([*sequences.values()] or [np.arange(4)])
    share = np.bincount(bases[bases < 4], minlength=4) + 1
    background = tuple((share / share.sum()).tolist())
    scans: dict[str, Scan] = {
        regulator: MotifScanner(motifs, background=background).scan
        for regulator, motifs in regulator_motifs(bundle).items()
    }
    scans[HEXAMERS] = find_promoter
    known = regulator_targets(bundle) | {HEXAMERS: list(sequences)}
    targets = {name: [gene for gene in known[name] if gene in sequences] for name in scans}
    of_columns = [
        one._replace(values=one.by_group.sum(1)) for one in found if one.by_group is not None
    ]
    alone = [
        one._replace(values=one.conservation.information)
        for one in found
        if one.conservation is not None
    ]
    beside = {CONTROL: list(control), OF_COLUMNS: of_columns, COLUMN: alone}
    beside = {model: some for model, some in beside.items() if some}
    scores, *others = (
        site_scores(site_table(some, targets, scans, upstream_bp=upstream_bp))
        for some in (found, *beside.values())
    )
    scored = {name: scan for name, scan in scans.items() if name in set(scores["regulator"])}
    counts = motif_counts(sequences, targets, scored)
    enriched = set(counts.loc[counts["found"] > counts["null_high"], "regulator"])
    metrics = []
    for model, table in zip(("genesplice", *beside), (scores, *others), strict=True):
        motifs = table[table["regulator"] != HEXAMERS]
        metrics += _mean_auroc("motif_auroc", motifs, model)
        for row in table.itertuples():
            name = "hexamer_auroc" if row.regulator == HEXAMERS else f"motif_auroc:{row.regulator}"
            ends = (row.auroc, row.ci_low, row.ci_high, row.n_targets)
            metrics.append(Metric(name, *ends, model, "explained"))
        is_enriched = motifs["regulator"].isin(enriched)
        metrics += _mean_auroc("motif_auroc_enriched", motifs[is_enriched], model)
    for at, (model, table) in enumerate(zip(beside, others, strict=True), start=6):
        auroc = scores["regulator"].map(table.set_index("regulator")["auroc"])
        scores.insert(at, "control" if model == CONTROL else model, auroc.astype(float))
    return metrics, scores.merge(counts.drop(columns="n_targets"), on="regulator", how="left")


def _mean_auroc(name: str, scores: pd.DataFrame, model: str) -> list[Metric]:
    """The mean over regulators with its interval; nothing without any."""
    if scores.empty:
        return []
    values = scores["auroc"].to_numpy()
    options: dict[str, Any] = {"n_bootstrap": 2000, "limits": (0.0, 1.0)}
    mean = resampled(lambda rows: float(values[rows].mean()), np.arange(len(values)), **options)
    return [Metric(name, *mean, len(values), model, "explained")]

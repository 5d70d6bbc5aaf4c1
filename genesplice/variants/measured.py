"""Variants whose effect was measured, known sites, and whether the scores find them.

Spearman's rho, the share of right signs, and the AUROC of the upper half of the values against the
lower half; with scores that need no network (GC, distance to a TSS, counts, alignment columns, and
BLOSUM62 of amino acids).

Sites, such as promoter boxes, come from a BED file: a score that knows them finds a change inside
of one less likely than a change beside it.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from genesplice.baselines.features import CountModel
from genesplice.data.assay import read_measured
from genesplice.data.bundle import Bundle
from genesplice.data.genome import Genome
from genesplice.data.tables import bed_rows
from genesplice.errors import InputError, require
from genesplice.evaluate.bootstrap import rank_agreement, resampled
from genesplice.results import Metric
from genesplice.runtime import atomic_file
from genesplice.variants.alleles import (
    MAX_LENGTH_BP,
    Allele,
    check_record,
    contig_names,
    survey_file,
)
from genesplice.variants.annotate import Models, Settings, column_ratio, ready
from genesplice.variants.classes import (
    auroc_metric,
    base_changes,
    base_scores,
    known_scores,
    matched_auroc,
    neighbour_counts,
)
from genesplice.variants.consequence import Consequences
from genesplice.variants.levels import Levels, TrackChanges, strongest
from genesplice.variants.likelihood import (
    WINDOW_BP,
    Hidden,
    MaskedBases,
    allele_likelihoods,
    window_start,
)
from genesplice.variants.vcf import NEEDED, table_records

CONTEXT_BP, FLANK_BP, LONGEST_BP = 64, 8, 100
BLOSUM62 = "blosum62"
"""Substitution of amino acids: Henikoff and Henikoff, PNAS 89, 1992, as Biopython has it."""


def score_measured(
    table: pd.DataFrame,
    bundle: Bundle,
    masked: MaskedBases | None = None,
    levels: Levels | None = None,
    tracks: TrackChanges | None = None,
    *,
    max_length_bp: int = MAX_LENGTH_BP,
    window_bp: int = WINDOW_BP,
) -> pd.DataFrame:
    """The table with a column for each score, and `flag` where a row could not be scored."""
    genome, names = bundle.genome, contig_names(bundle)
    checked = [check_record(record, names, max_length_bp)[0] for record in table_records(table)]
    alleles = [one for one in checked if isinstance(one, Allele)]
    scores: dict[str, list[Any]] = {}
    if masked is not None:
        found = allele_likelihoods(masked, genome, alleles, window_bp=window_bp)
        scores["llr"] = [one.mean for one in found]
    if levels is not None:
        most = [strongest(changes) for changes in levels(alleles)]
        scores["dlevel"] = [0.0 if one is None else one.mean for one in most]
    if tracks is not None:
        changes = np.array(tracks(alleles)).reshape(len(alleles), len(tracks.labels))
        scores |= {f"dtrack:{label}": list(changes[:, i]) for i, label in enumerate(tracks.labels)}
    counts = neighbour_counts(genome)
    scores["gc"] = [np.isin(a.alt, (1, 2)).sum() - np.isin(a.ref, (1, 2)).sum() for a in alleles]
    scores["tss_distance"] = [_to_tss(bundle, one) for one in alleles]
    scores[counts.name] = [_count_ratio(counts, genome, one) for one in alleles]
    exchanges = Consequences(genome, bundle.genes).exchanged
    scores[BLOSUM62] = [0.0 if a.growth_bp else _similarity(exchanges(a)) for a in alleles]
    if bundle.conserved_by is not None:
        # 0 where columns, or a score, say nothing of a change.
        ratios = np.array([column_ratio(bundle, one) for one in alleles], float)
        scores["column"] = np.nan_to_num(ratios).tolist()
    is_scored = np.array([isinstance(one, Allele) for one in checked], bool)
    out = table.assign(flag=[None if isinstance(one, Allele) else one for one in checked])
    for name, values in scores.items():
        out[name] = np.nan
        out.loc[is_scored, name] = np.array(values, float)
    return out


def _similarity(exchanged: Sequence[tuple[str, str]]) -> float:
    """How much less alike proteins are by BLOSUM62 than to themselves; 0 where nothing changes."""
    matrix = _blosum()
    return float(sum(matrix[old][new] - matrix[old][old] for old, new in exchanged))


@cache
def _blosum() -> Any:
    from Bio.Align import substitution_matrices

    return substitution_matrices.load("BLOSUM62")


def _to_tss(bundle: Bundle, allele: Allele) -> float:
    """Bases to the nearest TSS of the contig."""
    contig, genes = bundle.genome.contig(allele.contig), bundle.genes
    apart = np.abs(genes.loc[genes["contig"] == allele.contig, "tss"] - allele.start)
    if contig.is_circular:
        apart = np.minimum(apart % contig.length, -apart % contig.length)
    return float(apart.min()) if len(apart) else float(contig.length)


def _count_ratio(model: CountModel, genome: Genome, allele: Allele) -> float:
    """Ratio log p(alt) - log p(ref), each base from its neighbours."""
    left = genome.fetch(allele.contig, allele.start - CONTEXT_BP, allele.start)
    right = genome.fetch(allele.contig, allele.end, allele.end + CONTEXT_BP)
    totals = []
    for middle in (allele.ref, allele.alt):
        tokens = np.concatenate([left, middle, right])
        at = np.arange(CONTEXT_BP, CONTEXT_BP + len(middle))
        totals.append(np.log(model.probabilities(tokens)[at, np.minimum(middle, 3)]).sum())
    return float(totals[1] - totals[0])


def measured_metrics(scored: pd.DataFrame, seed: int = 0, path: Path | None = None) -> list[Metric]:
    """The figures of every score; `model` is the score's name. `path` names the file.

    Raises
    ------
    InputError
        If fewer than ten rows could be scored.
    """
    columns = [name for name in scored.columns if name not in (*NEEDED, "value", "flag")]
    kept = scored[scored["flag"].isna()]
    if len(kept) < 10:
        raise InputError(f"{len(kept)} measured variants that are scored", "10 or more", path=path)
    value = kept["value"].to_numpy(float)
    is_high, metrics = value > np.median(value), list[Metric]()
    for model in columns:
        x, every = kept[model].to_numpy(float), np.arange(len(value))
        metrics += _measured("measured_spearman", rank_agreement, x, value, model, seed)
        metrics += _measured("measured_sign_accuracy", _same_sign, x, value, model, seed)
        found = auroc_metric("measured_auroc", is_high, x, every, model=model, seed=seed)
        metrics += [one._replace(n=len(value), split="measured") for one in found]
    return metrics


def _measured(
    name: str, measure: Callable[..., float], x: np.ndarray, y: np.ndarray, model: str, seed: int
) -> list[Metric]:
    found = resampled(
        lambda i: measure(x[i], y[i]), np.arange(len(y)), seed=seed, limits=(-1.0, 1.0)
    )
    record = Metric(name, *found, len(y), model, "measured", None, seed)
    return [record] if np.isfinite(record.value) else []


def _same_sign(x: Float[np.ndarray, " rows"], y: Float[np.ndarray, " rows"]) -> float:
    """Share of rows with the sign of `y`, where it has one."""
    is_same = (np.sign(x) == np.sign(y))[y != 0]
    return float(is_same.mean()) if len(is_same) else float("nan")


def measured_benchmark(
    models: Models, bundle: Bundle, path: Path, out: Path, settings: Settings
) -> list[Metric]:
    """Score a measured table, write it to `out` as TSV, and give its figures."""
    table = read_measured(path).reset_index(drop=True)
    survey_file(table_records(table), bundle, path)
    masked, levels, tracks = ready(models, bundle, settings)
    scored = score_measured(
        table, bundle, masked, levels, tracks,
        max_length_bp=settings.max_length_bp, window_bp=settings.window_bp,
    )  # fmt: skip
    metrics = measured_metrics(scored, seed=settings.seed, path=path)
    with atomic_file(out) as partial:
        scored.to_csv(partial, sep="\t", index=False)
    return metrics


# --- known sites ---


def read_sites(path: Path, bundle: Bundle) -> pd.DataFrame:
    """Read a BED file: contig, start, end, name (the class of a site; "site" where it has none).

    Raises
    ------
    InputError
        For a line that is no BED, a contig or position that the genome lacks, a site of no base or
        of more than `LONGEST_BP` (with the line), and a file without a site.
    """
    names, rows = contig_names(bundle), []
    for line, cells in bed_rows(path, 3, "BED: contig, start, end, name"):
        contig, start, end = names.find(cells[0]), int(cells[1]), int(cells[2])
        if contig is None:
            raise InputError(f"contig {cells[0]!r}", "one of the genome's", path=path, line=line)
        most = f"at most {contig.length}, the length of {contig.name}"
        require(end <= contig.length, f"end {end}", most, path, line)
        size, wanted = end - start, f"1 to {LONGEST_BP}"
        require(0 < size <= LONGEST_BP, f"a site of {size} bp", wanted, path, line)
        name = cells[3].strip() if len(cells) > 3 else ""
        rows.append((contig.name, start, end, name or "site"))
    require(rows, "no site", "BED", path)
    return pd.DataFrame(rows, columns=["contig", "start", "end", "name"]).drop_duplicates()


def site_table(
    score: MaskedBases, bundle: Bundle, sites: pd.DataFrame, *, n_sites: int = 100, seed: int = 0
) -> pd.DataFrame:
    """Every substitution in `n_sites` sites of each class and `FLANK_BP` on both sides of them.

    Flanks are bases of no site of any class. Columns: site (its number), name, is_site, ref, alt,
    llr, llr_counts, llr_column. A base is hidden alone.
    """
    genome, generator = bundle.genome, np.random.default_rng([seed, 31])
    is_site = np.zeros(genome.length, bool)
    for site in sites.itertuples():
        is_site[genome.indices(site.contig, site.start, site.end)[0]] = True
    order = pd.Series(generator.permutation(len(sites)), index=sites.index)
    rank = order.groupby(sites["name"]).rank()
    counts = neighbour_counts(genome)

    def score_sites() -> Iterator[tuple]:
        for site in sites[rank <= n_sites].itertuples():
            low = window_start((site.start + site.end) // 2, WINDOW_BP)
            tokens, columns, near = _around(genome, is_site, site, low)
            rows = [Hidden(tokens, np.array([at]), columns) for at in near]
            logs = base_scores(score, counts, rows)
            for at, is_inside in near.items():
                ref = int(tokens[at])
                for alt, _, *letters, _, _ in base_changes(ref, None, 0, {}):
                    ratios = (each[at, alt] - each[at, ref] for each in logs)
                    yield str(site.Index), site.name, is_inside, *letters, *ratios

    names = ["site", "name", "is_site", "ref", "alt", "llr", "llr_counts", "llr_column"]
    return pd.DataFrame(score_sites(), columns=names)


def _around(
    genome: Genome, is_site: np.ndarray, site: tuple, low: int
) -> tuple[np.ndarray, np.ndarray, dict[int, bool]]:
    """Tokens and columns of a window; its bases in the site (True) and beside it (False)."""
    contig, start, end = site[1:4]
    window = contig, low, low + WINDOW_BP
    index, is_inside = genome.indices(*window)
    known = is_site[index] & is_inside
    near = {
        at - low: start <= at < end
        for at in range(start - FLANK_BP, end + FLANK_BP)
        if is_inside[at - low] and (start <= at < end or not known[at - low])
    }
    return genome.fetch(*window), genome.fetch_columns(*window), near


def site_metrics(table: pd.DataFrame, *, seed: int = 0) -> list[Metric]:
    """`auroc_sites_NAME` of every class, by every score of `SCORES`; units are sites."""
    metrics = []
    for name, part in table.groupby("name"):
        both = part[part["is_site"]], part[~part["is_site"]]
        for model in known_scores(table):
            metrics += matched_auroc(f"auroc_sites_{name}", *both, model, seed, unit="site")
    return metrics

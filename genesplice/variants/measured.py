"""Scores beside what was measured: variants with a value each.

The same figures for each score: Spearman's rho, the share of right signs (0.5 by chance), and the
AUROC of the upper half of the values against the lower half; intervals by resampling the variants.
Beside the models stand scores that need no network: the change of GC content, the distance to the
nearest TSS, and the ratio of the two-sided count model.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from genesplice.baselines.count_models import CountModel, fit_count_model
from genesplice.data.bundle import Bundle
from genesplice.data.tables import read_table
from genesplice.errors import InputError
from genesplice.evaluate.bootstrap import resampled
from genesplice.results import Metric
from genesplice.variants.alleles import Allele
from genesplice.variants.auroc import N_BOOTSTRAP, auroc, spearman
from genesplice.variants.checks import ContigNames, check_record
from genesplice.variants.levels import Levels, strongest
from genesplice.variants.likelihood import MaskedBases, allele_likelihoods
from genesplice.variants.vcf import Record

NEEDED = ("contig", "position", "ref", "alt", "value")
CONTEXT_BP = 64


def read_measured(path: Path) -> pd.DataFrame:
    """Read contig, position (from 1), ref, alt, value from a TSV, CSV or Parquet file.

    Raises
    ------
    InputError
        For a missing column, and a position or value that is no number.
    """
    table = read_table(path)
    missing = [name for name in NEEDED if name not in table.columns]
    if missing:
        raise InputError(f"no column {missing[0]}", ", ".join(NEEDED), path=path)
    for name, kind in (("position", "int64"), ("value", "float64")):
        numbers = pd.to_numeric(table[name], errors="coerce")
        if numbers.isna().any():
            row = int(np.flatnonzero(numbers.isna())[0])
            raise InputError(
                f"{name} {table[name].iloc[row]!r}", "a number", path=path, line=row + 2
            )
        table[name] = numbers.astype(kind)
    return table[list(NEEDED)]


def score_measured(
    table: pd.DataFrame,
    bundle: Bundle,
    *,
    masked: MaskedBases | None = None,
    levels: Levels | None = None,
) -> pd.DataFrame:
    """The table with a column for each score, and `flag` where a row could not be scored."""
    names = ContigNames(bundle.genome, bundle.manifest.get("contig_aliases"))
    found: list[Allele | str] = []
    for row in table.itertuples():
        columns = (row.contig, str(row.position), ".", row.ref, row.alt, ".", ".", ".")
        found += check_record(Record(0, columns), names)[:1]
    alleles = [one for one in found if isinstance(one, Allele)]
    is_scored = np.array([isinstance(one, Allele) for one in found])
    scores: dict[str, np.ndarray] = {}
    if masked is not None:
        told = allele_likelihoods(masked, bundle.genome, alleles)
        scores["llr"] = np.array([one.mean for one in told])
    if levels is not None:
        most = [strongest(changes) for changes in levels(alleles)]
        scores["dlevel"] = np.array([0.0 if one is None else one.mean for one in most])
    counts = fit_count_model(
        bundle.genome, [(c.name, 0, c.length) for c in bundle.genome.contigs], 4, 4
    )
    scores["gc"] = np.array([_gc(one.alt) - _gc(one.ref) for one in alleles], float)
    scores["tss_distance"] = np.array([_to_tss(bundle, one) for one in alleles], float)
    scores[counts.name] = np.array([_count_ratio(counts, bundle, one) for one in alleles], float)
    out = table.assign(flag=[None if isinstance(one, Allele) else one for one in found])
    for name, values in scores.items():
        column = np.full(len(table), np.nan)
        column[is_scored] = values
        out[name] = column
    return out


def _gc(bases: np.ndarray) -> int:
    return int(((bases == 1) | (bases == 2)).sum())


def _to_tss(bundle: Bundle, allele: Allele) -> float:
    """Bases to the nearest TSS of the contig."""
    genes = bundle.genes
    tss = genes.loc[genes["contig"] == allele.contig, "tss"].to_numpy()
    contig = bundle.genome.contig(allele.contig)
    if not len(tss):
        return float(contig.length)
    apart = np.abs(tss - allele.start)
    if contig.is_circular:
        apart = np.minimum(apart % contig.length, -apart % contig.length)
    return float(apart.min())


def _count_ratio(model: CountModel, bundle: Bundle, allele: Allele) -> float:
    """Ratio log p(alt) - log p(ref) of all bases around, each from its neighbours."""
    left, right = (
        bundle.genome.fetch(allele.contig, allele.start - CONTEXT_BP, allele.start),
        bundle.genome.fetch(allele.contig, allele.end, allele.end + CONTEXT_BP),
    )
    totals = []
    for middle in (allele.ref, allele.alt):
        tokens = np.concatenate([left, middle, right])
        told = model.probabilities(tokens)
        at = np.arange(CONTEXT_BP, CONTEXT_BP + len(middle))
        totals.append(np.log(told[at, np.minimum(tokens[at], 3)]).sum())
    return float(totals[1] - totals[0])


def measured_metrics(scored: pd.DataFrame, *, seed: int = 0) -> list[Metric]:
    """The figures of every score; `model` is the score's name.

    Raises
    ------
    InputError
        If fewer than ten rows could be scored.
    """
    columns = [name for name in scored.columns if name not in (*NEEDED, "flag")]
    kept = scored[scored["flag"].isna()]
    if len(kept) < 10:
        raise InputError(f"{len(kept)} measured variants that can be scored", "10 or more")
    value, unit = kept["value"].to_numpy(float), np.arange(len(kept))
    is_high = value > np.median(value)
    has_sign = value != 0
    metrics = []
    for name in columns:
        x = kept[name].to_numpy(float)
        is_right = np.sign(x) == np.sign(value)
        measures = {
            "measured_spearman": lambda i, x=x: spearman(x[i], value[i]),
            "measured_sign_accuracy": lambda i, ok=is_right: _share(ok[i][has_sign[i]]),
            "measured_auroc": lambda i, x=x: auroc(is_high[i], x[i]),
        }
        for metric, measure in measures.items():
            found = resampled(measure, unit, n_bootstrap=N_BOOTSTRAP, seed=seed, limits=(-1.0, 1.0))
            if np.isfinite(found[0]):
                metrics.append(Metric(metric, *found, len(kept), name, "measured", None, seed))
    return metrics


def _share(is_right: np.ndarray) -> float:
    return float(is_right.mean()) if len(is_right) else float("nan")

"""Sites that are known from elsewhere, such as promoter boxes, against what lies around them.

A score that knows them finds a change inside of one less likely than a change beside it.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from genesplice.baselines.count_models import CONTEXTS, fit_count_model
from genesplice.data.bundle import Bundle
from genesplice.data.genome import Genome
from genesplice.data.relatives import column_log_counts
from genesplice.data.tables import numbered_lines
from genesplice.errors import InputError
from genesplice.results import Metric
from genesplice.variants.alleles import contig_names
from genesplice.variants.classes import BASES, SCORES, matched_auroc
from genesplice.variants.likelihood import (
    WINDOW_BP,
    Hidden,
    MaskedBases,
    substitutions,
    window_start,
)

FLANK_BP = 8
LONGEST_BP = 100


def read_sites(path: Path, bundle: Bundle) -> pd.DataFrame:
    """Read a BED file: contig, start, end, name (the class of a site; "site" where it has none).

    Raises
    ------
    InputError
        For a line that is no BED, a contig or position that the genome lacks, a site of no base or
        of more than `LONGEST_BP` (with the line), and a file without a site.
    """
    names, rows = contig_names(bundle), []
    for line, text in numbered_lines(path):
        if not text.strip() or text.startswith(("#", "track", "browser")):
            continue
        cells = text.split("\t")

        def refuse(found: str, expected: str, line: int = line) -> InputError:
            return InputError(found, expected, path=path, line=line)

        if len(cells) < 3 or not (cells[1].isdecimal() and cells[2].isdecimal()):
            raise refuse(repr(text[:60]), "BED: contig, start and end, between tabs")
        contig, start, end = names.find(cells[0]), int(cells[1]), int(cells[2])
        if contig is None:
            raise refuse(f"contig {cells[0]!r}", "one of the genome's")
        if end > contig.length:
            raise refuse(f"end {end}", f"at most {contig.length}, the length of {contig.name}")
        if not 0 < end - start <= LONGEST_BP:
            raise refuse(f"a site of {end - start} bp", f"1 to {LONGEST_BP}")
        name = cells[3].strip() if len(cells) > 3 else ""
        rows.append((contig.name, start, end, name or "site"))
    if not rows:
        raise InputError("no site", "BED", path=path)
    return pd.DataFrame(rows, columns=["contig", "start", "end", "name"]).drop_duplicates()


def site_table(
    score: MaskedBases, bundle: Bundle, sites: pd.DataFrame, *, n_sites: int = 100, seed: int = 0
) -> pd.DataFrame:
    """Every substitution in `n_sites` sites of each class and `FLANK_BP` on both sides of them.

    Flanks are bases of no site of any class. Columns: gene_id (number of the site, the unit of
    intervals), name, is_site, ref, alt, llr, llr_counts, llr_column. A base is hidden alone.
    """
    genome, generator = bundle.genome, np.random.default_rng([seed, 31])
    is_site = np.zeros(genome.length, bool)
    for site in sites.itertuples():
        is_site[genome.indices(site.contig, site.start, site.end)[0]] = True
    order = pd.Series(generator.permutation(len(sites)), index=sites.index)
    rank = order.groupby(sites["name"]).rank()
    contigs = [(contig.name, 0, contig.length) for contig in genome.contigs]
    counts = fit_count_model(genome, contigs, *CONTEXTS[-1])

    def rows() -> Iterator[tuple]:
        for site in sites[rank <= n_sites].itertuples():
            low = window_start((site.start + site.end) // 2, WINDOW_BP)
            tokens, columns, near = _around(genome, is_site, site, low)
            hidden = [Hidden(tokens, np.array([at]), columns) for at in near]
            logs = np.log(counts.probabilities(tokens)), column_log_counts(columns)
            for row, change in zip(hidden, substitutions(score, hidden), strict=True):
                at = int(row.positions[0])
                ref = int(tokens[at])
                for alt in range(4):
                    if ref < 4 and alt != ref:
                        ratios = (each[at, alt] - each[at, ref] for each in logs)
                        what = str(site.Index), site.name, near[at], BASES[ref], BASES[alt]
                        yield *what, float(change[:, 0, alt].mean()), *ratios

    names = ["gene_id", "name", "is_site", "ref", "alt", "llr", "llr_counts", "llr_column"]
    return pd.DataFrame(rows(), columns=names)


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
    return [
        metric._replace(model=model)
        for name, part in table.groupby("name")
        for model, column in SCORES.items()
        if table[column].any()
        for metric in matched_auroc(
            f"auroc_sites_{name}", part[part["is_site"]], part[~part["is_site"]], column, seed
        )
    ]


def site_benchmark(
    score: MaskedBases, bundle: Bundle, path: Path, *, n_sites: int, seed: int = 0
) -> list[Metric]:
    """The figures of the sites in a BED file, which `read_sites` reads."""
    table = site_table(score, bundle, read_sites(path, bundle), n_sites=n_sites, seed=seed)
    return site_metrics(table, seed=seed)

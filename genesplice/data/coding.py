"""Whether coding sequences begin and end as such, which judges an annotation by its genome."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from Bio.Data.CodonTable import unambiguous_dna_by_id

from genesplice.data.genome import Genome, decode
from genesplice.errors import InputError

MIN_JUDGED_CDS = 20
REFUSED_BELOW, DOUBTED_BELOW = 0.5, 0.9
SPLICED_SHARE = 0.01
"""Eukaryotes have more spliced genes than this, prokaryotes fewer."""
RANDOM_ODDS = 0.05
"""Dinucleotides of all real genomes are further from those of independent bases."""

Intervals = dict[str, set[tuple[int, int, str]]]


def union_bp(intervals: list[tuple[int, int]]) -> int:
    """Add up intervals without counting a base twice."""
    total, covered = 0, 0
    for start, end in sorted(intervals):
        total += max(0, end - max(start, covered))
        covered = max(covered, end)
    return total


def judge_coding(
    coding: Intervals, genes: pd.DataFrame, genome: Genome, path: Path | None = None
) -> dict[str, Any]:
    """Count coding sequences that begin with a start codon and end with a stop codon.

    Parameters
    ----------
    coding
        By gene, the start, end and `transl_table` ("" if not said) of its complete coding
        intervals. Genes of one interval are judged. A stop codon may follow, as in GTF. Without
        `transl_table` it is 11, or 1 where more than `SPLICED_SHARE` of the genes are spliced.

    Returns
    -------
    dict
        `n` genes judged, `share` of them that begin and end right, the two shares `start` and
        `stop`, and `text`, which says so, "" where nothing was judged.

    Raises
    ------
    InputError
        If the share is below `REFUSED_BELOW` in `MIN_JUDGED_CDS` genes or more, unless the
        genome is made of independent random bases: such a sequence has no reading frames.
    """
    ends = np.array(list(_ends(coding, genes, genome)), dtype=bool).reshape(-1, 2)
    if not len(ends):
        return {"n": 0, "text": ""}
    (start, stop), share = ends.mean(axis=0).tolist(), float(ends.all(axis=1).mean())
    text = (
        f"{share:.0%} of {len(ends)} coding sequences begin with a start and end with a stop codon"
    )
    if share < DOUBTED_BELOW and len(ends) >= MIN_JUDGED_CDS:
        parts = f"{text} (start {start:.0%}, stop {stop:.0%})"
        usual = "another assembly or version, strand, 0- or 1-based coordinates, or genetic code"
        text = f"warning: {parts}: {usual}?"
        if share < REFUSED_BELOW:
            if not _is_random(genome):
                raise InputError(
                    parts, f"{DOUBTED_BELOW:.0%} or more: usually it is {usual}", path=path
                )
            text = f"warning: {parts}: not judged, the genome is random bases"
    return {"n": len(ends), "share": share, "start": start, "stop": stop, "text": text}


def _ends(coding: Intervals, genes: pd.DataFrame, genome: Genome) -> Iterator[tuple[bool, bool]]:
    """Whether each complete unspliced coding sequence begins right, and whether it ends right."""
    spliced = sum(len(intervals) > 1 for intervals in coding.values())
    usual = "1" if spliced > SPLICED_SHARE * len(coding) else "11"
    for gene in genes.itertuples():
        if len(coding.get(gene.gene_id, ())) != 1:
            continue
        ((start, end, code),) = coding[gene.gene_id]
        if not gene.start <= start < end <= gene.end or end - start < 6:
            continue
        flank = (0, 3) if gene.strand == "+" else (3, 0)
        tokens = genome.fetch(gene.contig, start - flank[0], end + flank[1], gene.strand)
        first, last, after = (decode(tokens[where]) for where in _CODONS)
        known = code.isdigit() and int(code) in unambiguous_dna_by_id
        table = unambiguous_dna_by_id[int(code if known else usual)]
        yield first in table.start_codons, bool({last, after} & set(table.stop_codons))


_CODONS = slice(0, 3), slice(-6, -3), slice(-3, None)


def _is_random(genome: Genome, at_most: int = 10_000_000) -> bool:
    """Whether neighbouring bases are independent of each other, as in a made-up genome."""
    tokens = np.asarray(genome.tokens[:at_most])
    pairs = np.histogram2d(tokens[:-1], tokens[1:], bins=5, range=[[0, 5], [0, 5]])[0][:4, :4]
    independent = np.outer(pairs.sum(axis=1), pairs.sum(axis=0)) / max(1, pairs.sum())
    allowed = RANDOM_ODDS * independent + 4 * np.sqrt(independent)
    return bool((np.abs(pairs - independent) <= allowed).all())

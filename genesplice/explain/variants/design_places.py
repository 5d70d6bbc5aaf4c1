"""Which bases before a gene may be edited."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from genesplice.data.bundle import Bundle
from genesplice.data.genome import Genome
from genesplice.data.tables import numbered_lines
from genesplice.errors import InputError
from genesplice.explain.explainer import GRID_BP
from genesplice.explain.variants.checks import ContigNames
from genesplice.explain.variants.scan import Region, parse_region

__all__ = ["check_reach", "editable_places", "protected_regions"]

UPSTREAM_BP = 200
EDGE_BP = 256


def editable_places(
    bundle: Bundle,
    gene_id: str,
    *,
    upstream_bp: int = UPSTREAM_BP,
    protected: Sequence[Region] = (),
    keep_genes: bool = True,
) -> Int64[np.ndarray, " places"]:
    """Bases before a gene's start that may be edited, as distances from it, ascending.

    N is left out, and what lies in `protected`; with `keep_genes` also what lies in another gene.

    Raises
    ------
    InputError
        If nothing is left.
    """
    gene = bundle.genes.set_index("gene_id").loc[gene_id]
    is_plus, contig = gene["strand"] == "+", bundle.genome.contig(gene["contig"])
    distance = np.arange(-upstream_bp, 0)
    at = gene["start"] + distance if is_plus else gene["end"] - 1 - distance
    is_free = bundle.genome.fetch(contig.name, int(at.min()), int(at.max()) + 1) < 4
    is_free = is_free if is_plus else is_free[::-1].copy()
    if contig.is_circular:
        at = at % contig.length
    kept = list(protected)
    if keep_genes:
        others = bundle.genes[bundle.genes["gene_id"] != gene_id]
        spans = others[["contig", "start", "end"]].itertuples(index=False)
        kept += [Region(str(c), int(s), int(e)) for c, s, e in spans]
    for region in kept:
        if region.contig == contig.name:
            is_free &= ~_is_inside(at, region, contig.length if contig.is_circular else None)
    if not is_free.any():
        raise InputError(
            f"no base of the {upstream_bp} before {gene['name']} that may be edited",
            "one that is neither protected, nor of another gene, nor N",
        )
    return distance[is_free]


def check_reach(upstream_bp: int, window_bp: int) -> None:
    """See whether the window holds what is edited, and 256 bp before it.

    Raises
    ------
    InputError
        If it does not.
    """
    # The start lies within half a step of the grid from the middle.
    most = window_bp // 2 - GRID_BP // 2 - EDGE_BP
    if upstream_bp > most:
        raise InputError(
            f"{upstream_bp} bases before the start", f"at most {most} in a window of {window_bp} bp"
        )


def _is_inside(
    at: Int64[np.ndarray, " places"], region: Region, turn: int | None
) -> Bool[np.ndarray, " places"]:
    inside = (at >= region.start) & (at < region.end)
    if turn is not None:
        # A gene over the origin ends beyond the contig, or begins before it.
        for moved in (at + turn, at - turn):
            inside |= (moved >= region.start) & (moved < region.end)
    return inside


def protected_regions(
    values: Sequence[str], genome: Genome, names: ContigNames | None = None
) -> list[Region]:
    """Read each of `values`: a BED file, or `contig:start-end` (1-based, both ends in).

    Raises
    ------
    InputError
        If one is neither, or a line of a BED has no contig of the genome and no stretch of it.
    """
    known, found = names or ContigNames(genome), list[Region]()
    for value in values:
        path = Path(value)
        if path.is_file():
            found += _read_bed(path, known)
            continue
        try:
            found += parse_region(value, genome)
        except InputError:
            raise InputError(
                f"--protect {value}", "a BED file, or contig:start-end of the data"
            ) from None
    return found


def _read_bed(path: Path, names: ContigNames) -> list[Region]:
    found = []
    for number, text in numbered_lines(path):
        if not text.strip() or text.startswith(("#", "track", "browser")):
            continue
        columns = text.split("\t") if "\t" in text else text.split()
        contig = names.find(columns[0])
        if contig is None:
            raise InputError(
                f"contig {columns[0]!r}", "a contig of the data", path=path, line=number
            )
        numbers = columns[1:3]
        if len(numbers) < 2 or not all(n.isdecimal() for n in numbers):
            raise InputError(
                repr(text[:40]), "contig, start, end (0-based, half-open)", path=path, line=number
            )
        low, high = (int(n) for n in numbers)
        if not low < high <= contig.length:
            raise InputError(
                f"{low}-{high}", f"start < end <= {contig.length}", path=path, line=number
            )
        found.append(Region(contig.name, low, high))
    return found

"""Transcription start sites that were measured, in place of annotated starts of genes."""

from pathlib import Path

import numpy as np
import pandas as pd

from genesplice.data.annotation import Annotation
from genesplice.data.genome import Genome
from genesplice.data.tables import (
    LINE,
    WHOLE_NUMBER,
    bed_rows,
    counted,
    find_columns,
    line_of,
    plain_suffix,
    read_table,
)
from genesplice.errors import InputError

COLUMNS = {
    "gene": ("gene", "gene_id", "locus_tag", "name"),
    "position": ("position", "pos", "tss", "start"),
    "strand": ("strand",),
    "contig": ("contig", "chrom", "chr", "seqid"),
}
STRANDS = {"+": "+", "-": "-", "1": "+", "-1": "-", "forward": "+", "reverse": "-", "": ""}


def place_tss(path: Path, reading: Annotation, genome: Genome) -> tuple[pd.DataFrame, list[str]]:
    """Genes with the `tss` of a file, and what became of it; genes that it lacks keep theirs.

    The file is BED (the name is the gene; its 5' end counts) or a table with gene, position (from
    1) and, if given, strand and contig. Of several sites of a gene the one nearest to its
    annotated start is taken.

    Raises
    ------
    InputError
        For no whole number, a strand or contig that is not the gene's, a position outside of the
        contig or behind the gene's end (with the line), and where most names are no genes.
    """
    sites = _read_bed(path) if plain_suffix(path) == ".bed" else _read_sites(path)
    genes = reading.genes.set_index("gene_id")
    chosen: dict[str, tuple[int, int]] = {}
    lost, n_more = [], 0
    for site in sites.itertuples():

        def refuse(found: str, expected: str, line: object = site.Index) -> InputError:
            return InputError(found, expected, path=path, line=line_of(sites, line))

        gene_id = reading.aliases.get(site.gene.lower())
        if gene_id is None:
            lost.append(site.gene)
            continue
        gene, contig = genes.loc[gene_id], genome.contig(genes.at[gene_id, "contig"])
        if not WHOLE_NUMBER.fullmatch(site.position):
            raise refuse(f"position {site.position!r}", "a whole number")
        strand = STRANDS.get(site.strand.lower(), site.strand) or gene["strand"]
        name = reading.contig_aliases.get(site.contig, site.contig) or contig.name
        if (name, strand) != (contig.name, gene["strand"]):
            place = f"{contig.name}, strand {gene['strand']}, as in the annotation"
            raise refuse(f"gene {site.gene!r} on {name}, strand {strand}", place)
        position = int(site.position) - 1
        if not 0 <= position < contig.length:
            expected = f"1 to {contig.length}, the length of {contig.name}"
            raise refuse(f"position {site.position} of gene {site.gene!r}", expected)
        ahead = (gene["tss"] - position) * (1 if strand == "+" else -1)
        if contig.is_circular:
            ahead = (ahead + contig.length // 2) % contig.length - contig.length // 2
        if -ahead >= gene["end"] - gene["start"]:
            raise refuse(f"a site of gene {site.gene!r} behind its end", "upstream or inside of it")
        n_more += gene_id in chosen
        chosen[gene_id] = min(chosen.get(gene_id, (abs(ahead), position)), (abs(ahead), position))
    if 2 * len(lost) > len(sites):
        found = f"{len(lost)} of {len(sites)} names that are no genes ({', '.join(lost[:3])})"
        expected = f"such as {', '.join(reading.genes['gene_id'][:3])}"
        raise InputError(found, expected, path=path)
    placed = {gene: position for gene, (_, position) in chosen.items()}
    tss = reading.genes["gene_id"].map(placed).fillna(reading.genes["tss"]).astype(np.int64)
    notes = [
        f"transcription starts of {len(placed)} of {len(genes)} genes from {path.name}; the others "
        "keep the annotated start",
        counted(f"names in {path.name} that are no genes", lost),
    ]
    if n_more:
        notes.append(f"{n_more} further sites left out: the one nearest to the gene counts")
    return reading.genes.assign(tss=tss), notes


def _read_sites(path: Path) -> pd.DataFrame:
    table = read_table(path)
    columns = find_columns(table, COLUMNS, path=path, optional=("strand", "contig"))
    sites = pd.DataFrame("", table.index, list(COLUMNS))
    for part, column in columns.items():
        sites[part] = table[column].str.strip()
    return sites


def _read_bed(path: Path) -> pd.DataFrame:
    rows: dict[int, dict[str, str]] = {}
    for number, cells in bed_rows(path, 6, "BED: 6 with name and strand"):
        contig, start, end, gene, _, strand = cells[:6]
        first = end if strand == "-" else str(int(start) + 1)
        rows[number] = dict(zip(COLUMNS, (gene, first, strand, contig), strict=True))
    if not rows:
        raise InputError("no site", "BED", path=path)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(LINE)

"""Measurements from files: a table of all samples or a file of each; their genes; measured TSSs."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from genesplice.data import tables
from genesplice.data.annotation import Annotation
from genesplice.data.expression import (
    DELETED,
    TOOL_NAME,
    ExpressionUnit,
    Measurements,
    read_matrix,
)
from genesplice.data.genome import Genome
from genesplice.errors import InputError, require

TOOL_FILES = ("ReadsPerGene.out.tab", "quant.genes.sf", "quant.sf", "abundance.tsv")
"""Tables of one sample: STAR, Salmon (by gene, by transcript), kallisto."""

NO_GENE = re.compile(r"__\w+|N_(unmapped|multimapping|noFeature|ambiguous)|ERCC-\d+")
"""Rows that counting tools and spike-ins add to a table of genes."""
MISSING_SHARE = 0.05
MISSING = ("na", "n/a", "nan", "null")
"""What programs write, in any case, where a condition is missing."""
SPREADSHEET_DATE = re.compile(r"\d{1,2}-[A-Z][a-z]{2}|[A-Z][a-z]{2}-\d{2}|\d{4}-\d\d-\d\d( .*)?")
TSS_COLUMNS = {
    "gene": ("gene", "gene_id", "locus_tag", "name"),
    "position": ("position", "pos", "tss", "start"),
    "strand": ("strand",),
    "contig": ("contig", "chrom", "chr", "seqid"),
}
STRANDS = {"+": "+", "-": "-", "1": "+", "-1": "-", "forward": "+", "reverse": "-", "": ""}


def read_measurements(
    path: Path, unit: ExpressionUnit, samples: Path | None = None
) -> Measurements:
    """Read values as they are written.

    TSV, CSV (either may be compressed) and Parquet have genes in rows, gene ids in the first
    column and one column per sample; h5ad has samples in rows (obs) and genes in columns (var).
    What counting tools write is known by its header: `ANNOTATION_COLUMNS` (featureCounts, merged
    tables, GCT) are no samples, of a table of one sample (`MEASURES`) the column of the unit is
    read, and two columns without a header (htseq-count) are one sample. Of STAR's three columns
    the one is read that fits the strands of the reads. A folder has a file a sample: see
    `sample_files`.

    Parameters
    ----------
    unit
        `tpm`, `rpkm` or `fpkm` (scaled to TPM within each sample), `log2tpm` (log2(TPM+1)) or
        `counts` (reads or fragments per gene, also estimated ones). The unit is never guessed.
    samples
        Table whose first column is the sample id, with a column `condition`; replicates share a
        condition. Without it (and without `condition` in an h5ad) each sample is its own. A column
        `deleted` may have the genes that a sample lacks (`name_deleted`).

    Raises
    ------
    InputError
        For a wrong header, a cell that is missing or not a number (with the line), a gene or a
        sample twice, and a sample that the sample table lacks.
    """
    if unit not in get_args(ExpressionUnit):
        raise InputError(f"expression unit {unit!r}", ", ".join(get_args(ExpressionUnit)))
    measured = _read_folder(path, unit) if path.is_dir() else read_matrix(path, unit)
    if samples is not None:
        obs, more = _read_samples(samples, list(measured.values), path)
        measured = measured._replace(obs=obs, notes=(*measured.notes, *more))
    return measured


def sample_files(path: Path) -> dict[str, Path]:
    """The file of each sample of a folder, by the sample's name; of a file itself, under "".

    The files of a folder are those of `TOOL_FILES`, else all tables in it; of folders in it the
    first of `TOOL_FILES` that each has. A sample is called after its folder, or its file up to the
    first dot (up to the last one where the first is not enough).

    Raises
    ------
    InputError
        If a folder has none, or two of one sample.
    """
    if not path.is_dir():
        return {"": path}
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    candidates = [
        one for one in entries if one.is_file() and tables.plain_suffix(one) in tables.SEPARATORS
    ]
    candidates = [one for one in candidates if _is_of_tool(one, *TOOL_FILES)] or candidates
    short = [TOOL_NAME.sub("", table.name.split(".")[0]) for table in candidates]
    long = [re.sub(r"\.\w+(\.b?gz)?$", "", table.name) for table in candidates]
    named = list(zip(short if len(set(short)) == len(short) else long, candidates, strict=True))
    for folder in entries:
        inside = sorted(folder.iterdir()) if folder.is_dir() else []
        own = (one for tool in TOOL_FILES for one in inside if _is_of_tool(one, tool))
        named += [(folder.name, one) for one in own][:1]
    files: dict[str, Path] = {}
    for sample, one in named:
        if files.setdefault(sample, one) != one:
            found = f"{files[sample].relative_to(path)} and {one.relative_to(path)}"
            raise InputError(f"{found} of sample {sample!r}", "one file a sample", path=path)
    expected = f"a table a sample, or folders with {', '.join(TOOL_FILES)}"
    require(files, "a folder without a table", expected, path)
    return files


def _is_of_tool(path: Path, *tools: str) -> bool:
    return path.name.removesuffix(".gz").endswith(tools)


def _read_folder(folder: Path, unit: ExpressionUnit) -> Measurements:
    files, notes = sample_files(folder), Counter[str]()
    read = {sample: read_matrix(file, unit) for sample, file in files.items()}
    genes = next(iter(read.values())).values.index
    for sample, one in read.items():
        found = f"{len(one.values.columns)} samples"
        require(len(one.values.columns) <= 1, found, "one in each file of a folder", files[sample])
        others = genes.symmetric_difference(one.values.index)
        found = f"{len(others)} genes ({tables.some(others, 3)}) that not all files have"
        require(not len(others), found, "the same genes in all files", files[sample])
        # Without the file's and the sample's name files say the same.
        notes.update(re.sub(r"^[^:]*: (one sample, [^:]*(: )?)?", "", text) for text in one.notes)
    del notes[""]
    values = {sample: one.values.iloc[:, 0].reindex(genes) for sample, one in read.items()}
    own = [one.lengths.reindex(genes) for one in read.values() if one.lengths is not None]
    used = {file.relative_to(folder).parts[0] for file in files.values()}
    left_out = [one.name for one in sorted(folder.iterdir()) if one.name not in used]
    said = [f"{folder.name}: {text} ({n} of {len(files)} files)" for text, n in notes.items()]
    if left_out:
        said.append(tables.counted(f"{folder.name}: left out, no table of a sample", left_out))
    return Measurements(
        pd.DataFrame(values),
        lengths=pd.concat(own, axis=1).mean(axis=1) if len(own) == len(read) else None,
        notes=(tables.counted(f"{folder.name}: samples, a file each", files), *said),
    )


def _read_samples(
    path: Path, names: list[str], expression_path: Path
) -> tuple[pd.DataFrame, list[str]]:
    table = tables.read_table(path)
    parts = {part: (part,) for part in ("condition", DELETED)}
    columns = tables.find_columns(table, parts, path=path, optional=(DELETED,))
    condition, key = columns["condition"], table.columns[0]
    table = table.apply(lambda cells: cells.str.strip())
    require(key != condition, f"{condition!r} as first column", "the sample id first", path, 1)
    tables.refuse_twice(table[key], "sample", path)
    tables.refuse_empty(table, condition, "condition", "a condition", path)
    for row, name in table[condition][table[condition].str.lower().isin(MISSING)].items():
        raise InputError(
            f"condition {name!r}", "a name", path=path, line=tables.line_of(table, row)
        )
    lines = {sample: tables.line_of(table, row) for row, sample in table[key].items()}
    table = table.set_index(key).rename(columns={name: part for part, name in columns.items()})
    missing = [name for name in names if name not in table.index]
    of = f"{len(missing)} of the {len(names)} samples in {expression_path.name}"
    expected = f"sample ids such as {tables.some(table.index[:3])} in both"
    require(not missing, f"no row for {of} ({tables.some(missing, 3)})", expected, path)
    others = table.index.difference(names, sort=False)
    said = tables.counted(f"{path.name}: left out, no sample of {expression_path.name}", others)
    table = table.loc[names]
    table.attrs[tables.LINE] = lines
    return table, [said] * bool(len(others))


def name_deleted(obs: pd.DataFrame | None, reading: Annotation, path: Path) -> pd.DataFrame | None:
    """`obs` with the genes of its column `deleted`, if it has one, by their ids, ";" between.

    They are ids or names, with "," or ";" between; a cell may be empty.

    Raises
    ------
    InputError
        For a gene that the annotation lacks.
    """
    if obs is None or DELETED not in obs:
        return obs
    known, cells = reading.aliases, list[str]()
    for sample, cell in obs[DELETED].astype(object).fillna("").items():
        names = [name.strip() for name in re.split("[;,]", str(cell)) if name.strip()]
        unknown = [name for name in names if name.lower() not in known]
        if unknown:
            found = f"deleted gene {unknown[0]!r} of sample {sample!r}"
            expected = "ids or names of the annotation's genes with ; between, or an empty cell"
            line = obs.attrs.get(tables.LINE, {}).get(sample)
            raise InputError(found, expected, path=path, line=line)
        cells.append(";".join(dict.fromkeys(known[name.lower()] for name in names)))
    return obs.assign(**{DELETED: cells})


# --- genes of a table, by their names in the annotation ---


def match_genes(
    table: pd.DataFrame, reading: Annotation, path: Path, allow_missing: bool
) -> tuple[dict[str, str], dict[str, Any]]:
    """Gene ids of measured genes, and an account of rows matched by which key or left out, why.

    Too many left out are refused: always if that is most, else unless `allow_missing`.
    """
    ids, aliases = set(reading.genes["gene_id"]), reading.aliases

    def find(name: str) -> str | None:
        return name if name in ids else aliases.get(name.lower())

    written = table.index.tolist()
    matches = {name: gene for name in written if (gene := find(name)) is not None}
    taken: dict[str, str] = {}
    for name, gene in matches.items():
        if taken.setdefault(gene, name) != name:
            found = f"two rows for gene {gene!r} ({taken[gene]!r} and {name!r})"
            raise InputError(found, "each gene once", path=path)
    # What is left may be an id with a version, or R's name for a row of a name that is taken.
    stems = {name: find(name.rsplit(".", 1)[0]) for name in written if name not in matches}
    for name, stem in stems.items():
        if stem is not None and stem not in taken:
            matches[name], taken[stem] = stem, name
    matches = {name: matches[name] for name in written if name in matches}
    lost = [name for name in written if name not in matches]
    if 2 * len(lost) > len(written) or not written:
        expected = f"gene ids such as {', '.join(reading.genes['gene_id'][:3])}"
        if 2 * sum(find(str(name)) is not None for name in table.columns) > len(table.columns):
            expected = "genes in rows: transpose the table"
        first = tables.some(lost, 3)
        found = f"{len(lost)} of {len(written)} genes that the annotation lacks ({first})"
        raise InputError(found, expected, path=path)
    called = reading.genes.set_index("gene_id")["name"].str.lower()

    def key(name: str, gene: str) -> str:
        name = name.lower()
        if name == gene.lower():
            return "id"
        if name not in aliases or name == re.sub(r"\.\d+$", "", gene.lower()):
            return "id without version"
        return "name" if name == called[gene] else "synonym"

    def reason(name: str) -> str:
        if SPREADSHEET_DATE.fullmatch(name):
            return "dates that a spreadsheet made of names"
        if NO_GENE.fullmatch(name):
            return "spike-ins and counters"
        return "of a gene that has a row" if stems[name] else "not in the annotation"

    reasons = pd.Series(lost, map(reason, lost), dtype=object).groupby(level=0, sort=False)
    groups = {why: {"n": len(names), "first": names.tolist()[:5]} for why, names in reasons}
    account = {
        "rows": len(written),
        "matched": dict(Counter(key(name, gene) for name, gene in matches.items())),
        "left_out": groups,
    }
    others = {why: group for why, group in groups.items() if why != "spike-ins and counters"}
    n_lost = sum(group["n"] for group in others.values())
    lines = "; ".join(f"{why}: {counted_group(group)}" for why, group in others.items())
    is_fine = n_lost <= MISSING_SHARE * (n_lost + len(matches)) or allow_missing
    found = f"{n_lost} of {n_lost + len(matches)} genes left out ({lines})"
    require(is_fine, found, f"at most {MISSING_SHARE:.0%} (or --allow-missing)", path)
    return matches, account


def counted_group(group: Mapping[str, Any]) -> str:
    """How many names a group of the account has, and the first of them."""
    more = ", …" if group["n"] > len(group["first"]) else ""
    return f"{group['n']} ({', '.join(group['first'])}{more})"


# --- transcription start sites, in place of annotated starts of genes ---


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
    sites = _read_bed(path) if tables.plain_suffix(path) == ".bed" else _read_sites(path)
    genes = reading.genes.set_index("gene_id")
    chosen: dict[str, tuple[int, int]] = {}
    lost, n_more = [], 0
    for site in sites.itertuples():
        at = path, tables.line_of(sites, site.Index)
        gene_id = reading.aliases.get(site.gene.lower())
        if gene_id is None:
            lost.append(site.gene)
            continue
        gene, contig = genes.loc[gene_id], genome.contig(genes.at[gene_id, "contig"])
        is_whole = tables.WHOLE_NUMBER.fullmatch(site.position)
        require(is_whole, f"position {site.position!r}", "a whole number", *at)
        strand = STRANDS.get(site.strand.lower(), site.strand) or gene["strand"]
        name = reading.contig_aliases.get(site.contig, site.contig) or contig.name
        is_there = (name, strand) == (contig.name, gene["strand"])
        expected = f"{contig.name}, strand {gene['strand']}, as in the annotation"
        require(is_there, f"gene {site.gene!r} on {name}, strand {strand}", expected, *at)
        position, found = int(site.position) - 1, f"position {site.position} of gene {site.gene!r}"
        expected = f"1 to {contig.length}, the length of {contig.name}"
        require(0 <= position < contig.length, found, expected, *at)
        ahead = (gene["tss"] - position) * (1 if strand == "+" else -1)
        if contig.is_circular:
            ahead = (ahead + contig.length // 2) % contig.length - contig.length // 2
        found = f"a site of gene {site.gene!r} behind its end"
        require(-ahead < gene["end"] - gene["start"], found, "upstream or inside of it", *at)
        n_more += gene_id in chosen
        chosen[gene_id] = min(chosen.get(gene_id, (abs(ahead), position)), (abs(ahead), position))
    found = f"{len(lost)} of {len(sites)} names that are no genes ({', '.join(lost[:3])})"
    expected = f"such as {', '.join(reading.genes['gene_id'][:3])}"
    require(2 * len(lost) <= len(sites), found, expected, path)
    placed = {gene: position for gene, (_, position) in chosen.items()}
    tss = reading.genes["gene_id"].map(placed).fillna(reading.genes["tss"]).astype(np.int64)
    notes = [
        f"transcription starts of {len(placed)} of {len(genes)} genes from {path.name}; the others "
        "keep the annotated start",
        tables.counted(f"names in {path.name} that are no genes", lost),
    ]
    if n_more:
        notes.append(f"{n_more} further sites left out: the one nearest to the gene counts")
    return reading.genes.assign(tss=tss), notes


def _read_sites(path: Path) -> pd.DataFrame:
    table = tables.read_table(path)
    columns = tables.find_columns(table, TSS_COLUMNS, path=path, optional=("strand", "contig"))
    sites = pd.DataFrame("", table.index, list(TSS_COLUMNS))
    for part, column in columns.items():
        sites[part] = table[column].str.strip()
    return sites


def _read_bed(path: Path) -> pd.DataFrame:
    rows: dict[int, dict[str, str]] = {}
    for number, cells in tables.bed_rows(path, 6, "BED: 6 with name and strand"):
        contig, start, end, gene, _, strand = cells[:6]
        first = end if strand == "-" else str(int(start) + 1)
        rows[number] = dict(zip(TSS_COLUMNS, (gene, first, strand, contig), strict=True))
    require(rows, "no site", "BED", path)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(tables.LINE)

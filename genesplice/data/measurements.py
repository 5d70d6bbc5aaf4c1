"""Measurements from files: one table of all samples, or a folder with a file of each."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import anndata as ad
import pandas as pd

from genesplice.data.expression import (
    TOOL_NAME,
    ExpressionUnit,
    Measurements,
    make_expression,
    read_matrix,
)
from genesplice.data.tables import (
    SEPARATORS,
    counted,
    find_columns,
    line_of,
    plain_suffix,
    read_table,
    refuse_empty,
    some,
)
from genesplice.errors import InputError

TOOL_FILES = ("ReadsPerGene.out.tab", "quant.genes.sf", "quant.sf", "abundance.tsv")
"""Tables of one sample: STAR, Salmon (by gene, by transcript), kallisto."""


def read_expression(
    path: Path,
    unit: ExpressionUnit,
    samples: Path | None = None,
    lengths: Mapping[str, float | int] | None = None,
) -> ad.AnnData:
    """Read expression as log2(TPM+1): `read_measurements`, then `make_expression`.

    Raises
    ------
    InputError
        For a wrong header, a cell that is missing or not a number (with the line), a gene or a
        sample twice, negative values, values that cannot be in the stated unit, a sample that
        the sample table lacks, and counts of genes without a length.
    """
    values, obs, own, _ = read_measurements(path, unit, samples)
    lengths = lengths if own is None else own.to_dict()
    return make_expression(values, unit, obs, lengths=lengths, path=path)


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
        condition. Without it (and without `condition` in an h5ad) each sample is its own.

    Raises
    ------
    InputError
        As `read_expression`.
    """
    if unit not in get_args(ExpressionUnit):
        raise InputError(f"expression unit {unit!r}", ", ".join(get_args(ExpressionUnit)))
    measured = _read_folder(path, unit) if path.is_dir() else read_matrix(path, unit)
    if samples is not None:
        measured = measured._replace(obs=_read_samples(samples, list(measured.values), path))
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
    tables = [one for one in entries if one.is_file() and plain_suffix(one) in SEPARATORS]
    tables = [one for one in tables if _is_of_tool(one, *TOOL_FILES)] or tables
    short = [TOOL_NAME.sub("", table.name.split(".")[0]) for table in tables]
    long = [re.sub(r"\.\w+(\.b?gz)?$", "", table.name) for table in tables]
    named = list(zip(short if len(set(short)) == len(short) else long, tables, strict=True))
    for folder in entries:
        inside = sorted(folder.iterdir()) if folder.is_dir() else []
        own = (one for tool in TOOL_FILES for one in inside if _is_of_tool(one, tool))
        named += [(folder.name, one) for one in own][:1]
    files: dict[str, Path] = {}
    for sample, one in named:
        if files.setdefault(sample, one) != one:
            found = f"{files[sample].relative_to(path)} and {one.relative_to(path)}"
            raise InputError(f"{found} of sample {sample!r}", "one file a sample", path=path)
    if not files:
        expected = f"a table a sample, or folders with {', '.join(TOOL_FILES)}"
        raise InputError("a folder without a table", expected, path=path)
    return files


def _is_of_tool(path: Path, *tools: str) -> bool:
    return path.name.removesuffix(".gz").endswith(tools)


def _read_folder(folder: Path, unit: ExpressionUnit) -> Measurements:
    files, notes = sample_files(folder), Counter[str]()
    read = {sample: read_matrix(file, unit) for sample, file in files.items()}
    genes = next(iter(read.values())).values.index
    for sample, one in read.items():
        if len(one.values.columns) > 1:
            found = f"{len(one.values.columns)} samples"
            raise InputError(found, "one in each file of a folder", path=files[sample])
        others = genes.symmetric_difference(one.values.index)
        if len(others):
            found = f"{len(others)} genes ({some(others, 3)}) that not all files have"
            raise InputError(found, "the same genes in all files", path=files[sample])
        # Without the file's and the sample's name files say the same.
        notes.update(re.sub(r"^[^:]*: (one sample, [^:]*(: )?)?", "", text) for text in one.notes)
    del notes[""]
    values = {sample: one.values.iloc[:, 0].reindex(genes) for sample, one in read.items()}
    own = [one.lengths.reindex(genes) for one in read.values() if one.lengths is not None]
    used = {file.relative_to(folder).parts[0] for file in files.values()}
    left_out = [one.name for one in sorted(folder.iterdir()) if one.name not in used]
    said = [f"{folder.name}: {text} ({n} of {len(files)} files)" for text, n in notes.items()]
    if left_out:
        said.append(counted(f"{folder.name}: left out, no table of a sample", left_out))
    return Measurements(
        pd.DataFrame(values),
        lengths=pd.concat(own, axis=1).mean(axis=1) if len(own) == len(read) else None,
        notes=(counted(f"{folder.name}: samples, a file each", files), *said),
    )


def _read_samples(path: Path, names: list[str], expression_path: Path) -> pd.DataFrame:
    table = read_table(path)
    condition = find_columns(table, {"condition": ("condition",)}, path=path)["condition"]
    key = table.columns[0]
    if key == condition:
        raise InputError(f"{condition!r} as first column", "the sample id first", path=path, line=1)
    twice = table[key][table[key].duplicated()]
    if len(twice):
        found, line = f"sample {twice.iloc[0]!r} twice", line_of(table, twice.index[0])
        raise InputError(found, "each sample once", path=path, line=line)
    refuse_empty(table, condition, "condition", "a condition", path)
    table = table.set_index(key).rename(columns={condition: "condition"})
    missing = [name for name in names if name not in table.index]
    if missing:
        raise InputError(
            f"no row for {len(missing)} of the {len(names)} samples in {expression_path.name} "
            f"({some(missing, 3)})",
            f"sample ids such as {some(table.index[:3])} in both",
            path=path,
        )
    return table.loc[names]

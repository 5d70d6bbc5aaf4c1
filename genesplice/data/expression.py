"""Expression tables as AnnData: samples x genes, log2(TPM+1), with a condition per sample."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import anndata as ad
import numpy as np
import pandas as pd
from jaxtyping import Float

from genesplice.data.tables import (
    find_columns,
    line_of_row,
    numbered_lines,
    open_input,
    plain_suffix,
    read_table,
)
from genesplice.errors import InputError

ExpressionUnit = Literal["tpm", "log2tpm", "counts"]
MILLION = 1e6
HIGHEST_LOG2_TPM = 21.0
"""log2(10^6 + 1) is 19.9: nothing above this can be log2(TPM+1)."""
HIGHEST_TPM_SUM = 1.5e6
"""TPM of one sample add up to 10^6, or less for a subset of genes."""


def read_expression(
    path: Path,
    unit: ExpressionUnit,
    samples: Path | None = None,
    lengths: Mapping[str, float] | None = None,
) -> ad.AnnData:
    """Read expression as log2(TPM+1).

    TSV, CSV (either may be gzipped) and Parquet have genes in rows, gene ids in the first
    column and one column per sample; h5ad has samples in rows (obs) and genes in columns (var).

    Parameters
    ----------
    unit
        `tpm`, `log2tpm` (log2(TPM+1)) or `counts` (reads or fragments per gene, also estimated
        ones). The unit is never guessed.
    samples
        Table whose first column is the sample id, with a column `condition`; replicates share a
        condition. Without it (and without `condition` in an h5ad) each sample is its own.
    lengths
        Transcribed length of each gene in bp; needed for counts.

    Raises
    ------
    InputError
        For a wrong header, a cell that is missing or not a number (with the line), a gene or a
        sample twice, negative values, values that cannot be in the stated unit, a sample that
        the sample table lacks, and counts of genes without a length.
    """
    path = Path(path)
    if unit not in get_args(ExpressionUnit):
        raise InputError(f"expression unit {unit!r}", "tpm, log2tpm or counts")
    if plain_suffix(path) == ".h5ad":
        table, obs = _read_h5ad(path)
    else:
        table, obs = _read_genes_by_samples(path), None
    if samples is not None:
        obs = _read_samples(Path(samples), list(table.columns), path)
    elif obs is None:
        obs = pd.DataFrame({"condition": table.columns}, index=table.columns)
    return make_expression(table, unit, obs, lengths=lengths, path=path)


def make_expression(
    table: pd.DataFrame,
    unit: ExpressionUnit,
    obs: pd.DataFrame,
    *,
    lengths: Mapping[str, float] | None = None,
    path: Path | None = None,
) -> ad.AnnData:
    """Check values against their unit and turn genes x samples into AnnData.

    Parameters
    ----------
    obs
        One row per column of `table`, in any order, with a column `condition`.

    Raises
    ------
    InputError
        As `read_expression`.
    """
    for axis, names in (("gene", table.index), ("sample", table.columns)):
        twice = names[names.duplicated()]
        if len(twice):
            raise InputError(f"{axis} {twice[0]!r} twice", f"each {axis} once", path=path)
    values = table.to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        where = f"gene {table.index[row]!r}, sample {table.columns[column]!r}"
        raise InputError(f"no finite number for {where}", "a value in every cell", path=path)
    log_tpm = _to_log2_tpm(values, unit, table, lengths, path)
    obs = obs.loc[table.columns].copy()
    obs.index = obs.index.astype(str)
    obs["condition"] = obs["condition"].astype(str)
    var = pd.DataFrame(index=pd.Index(table.index.astype(str), name="gene_id"))
    obs.index.name = "sample"
    return ad.AnnData(X=np.ascontiguousarray(log_tpm.T, dtype=np.float32), obs=obs, var=var)


def condition_means(expression: ad.AnnData) -> pd.DataFrame:
    """Average log2(TPM+1) over the replicates of each condition.

    Genes are rows in the order of `var`, conditions columns in order of first appearance.
    """
    table = pd.DataFrame(
        np.asarray(expression.X, dtype=np.float64),
        index=expression.obs["condition"].astype(str).to_numpy(),
        columns=expression.var_names,
    )
    means = table.groupby(level=0, sort=False).mean().T
    means.index.name, means.columns.name = "gene_id", "condition"
    return means


def _read_genes_by_samples(path: Path) -> pd.DataFrame:
    table = read_table(path, dtype=None)
    key = table.columns[0]
    numbers = table.drop(columns=key)
    numbers.columns = numbers.columns.astype(str)
    for column in numbers.columns:
        if not pd.api.types.is_numeric_dtype(numbers[column]) or numbers[column].isna().any():
            raise _bad_cell(path, numbers[column], numbers.columns.get_loc(column) + 1)
    ids = table[key]
    if ids.isna().any() or pd.api.types.is_float_dtype(ids):
        raise InputError(
            "no gene ids in the first column", "gene ids, then a column per sample", path=path
        )
    ids = ids.astype(str)
    if (twice := ids[ids.duplicated()]).size:
        line = line_of_row(path, int(twice.index[0]))
        raise InputError(f"gene {twice.iloc[0]!r} twice", "each gene once", path=path, line=line)
    numbers.index = pd.Index(ids, name="gene_id")
    return numbers


def _bad_cell(path: Path, cells: pd.Series, column: int) -> InputError:
    numeric = pd.to_numeric(cells, errors="coerce")
    row = int(np.flatnonzero(numeric.isna())[0])
    value = cells.iloc[row]
    found = "an empty cell" if pd.isna(value) else repr(str(value))
    line = line_of_row(path, row)
    if line is not None:
        separator = "," if plain_suffix(path) == ".csv" else "\t"
        text = next((text for number, text in numbered_lines(path) if number == line), "")
        written = text.split(separator)
        if pd.isna(value) and len(written) > column and written[column].strip():
            found = repr(written[column].strip())
    return InputError(f"{found} for sample {cells.name!r}", "a number", path=path, line=line)


def _read_h5ad(path: Path) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    with open_input(path):
        pass
    try:
        with warnings.catch_warnings():
            # `make_expression` says so in one line, as an error.
            warnings.filterwarnings("ignore", message=".*names are not unique")
            data = ad.read_h5ad(path)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError("no AnnData file", "h5ad", path=path) from error
    if data.X is None or 0 in data.shape:
        raise InputError("an AnnData without values", "X with samples x genes", path=path)
    dense = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X)
    table = pd.DataFrame(dense.T, index=data.var_names, columns=data.obs_names)
    return table, data.obs if "condition" in data.obs else None


def _read_samples(path: Path, wanted: list[str], expression_path: Path) -> pd.DataFrame:
    table = read_table(path)
    condition = find_columns(table, {"condition": ("condition",)}, path=path)["condition"]
    key = table.columns[0]
    if key == condition:
        raise InputError(f"{condition!r} as first column", "the sample id first", path=path, line=1)
    twice = table[key][table[key].duplicated()]
    if len(twice):
        raise InputError(
            f"sample {twice.iloc[0]!r} twice",
            "each sample once",
            path=path,
            line=line_of_row(path, int(twice.index[0])),
        )
    empty = table.index[table[condition].str.strip() == ""]
    if len(empty):
        line = line_of_row(path, int(empty[0]))
        raise InputError("an empty condition", "a condition", path=path, line=line)
    table = table.set_index(key).rename(columns={condition: "condition"})
    missing = [name for name in wanted if name not in table.index]
    if missing:
        raise InputError(
            f"no row for {len(missing)} of the {len(wanted)} samples in {expression_path.name} "
            f"({', '.join(missing[:3])})",
            f"sample ids such as {', '.join(map(str, table.index[:3]))} in both",
            path=path,
        )
    return table.loc[wanted]


def _to_log2_tpm(
    values: Float[np.ndarray, "genes samples"],
    unit: ExpressionUnit,
    table: pd.DataFrame,
    lengths: Mapping[str, float] | None,
    path: Path | None,
) -> Float[np.ndarray, "genes samples"]:
    if values.min() < 0:
        row, column = np.argwhere(values < 0)[0]
        where = f"gene {table.index[row]!r}, sample {table.columns[column]!r}"
        raise InputError(f"{values[row, column]:g} for {where}", "values >= 0", path=path)
    if unit == "log2tpm":
        if values.max() > HIGHEST_LOG2_TPM:
            raise InputError(
                f"values up to {values.max():g} with unit log2tpm",
                f"log2(TPM+1), at most {HIGHEST_LOG2_TPM:g}",
                path=path,
            )
        return values
    if unit == "counts":
        values = _counts_to_tpm(values, table, lengths, path)
    elif values.sum(axis=0).max() > HIGHEST_TPM_SUM:
        at = int(np.argmax(values.sum(axis=0)))
        raise InputError(
            f"sample {table.columns[at]!r} adding up to {values[:, at].sum():.3g} with unit tpm",
            "at most 1e6 (counts are unit counts)",
            path=path,
        )
    elif values.max() <= HIGHEST_LOG2_TPM and len(values) > 1:
        raise InputError(
            f"values up to only {values.max():g} with unit tpm",
            "TPM (logarithms are unit log2tpm)",
            path=path,
        )
    return np.log2(values + 1)


def _counts_to_tpm(
    values: Float[np.ndarray, "genes samples"],
    table: pd.DataFrame,
    lengths: Mapping[str, float] | None,
    path: Path | None,
) -> Float[np.ndarray, "genes samples"]:
    if lengths is None:
        raise InputError("counts without gene lengths", "an annotation, or tpm", path=path)
    unknown = [gene for gene in table.index if not lengths.get(gene, 0) > 0]
    if unknown:
        raise InputError(
            f"no length for {len(unknown)} genes ({', '.join(unknown[:3])})",
            "a length of 1 bp or more for every gene with counts",
            path=path,
        )
    per_base = values / np.array([lengths[gene] for gene in table.index], dtype=float)[:, None]
    totals = per_base.sum(axis=0)
    if totals.min() == 0:
        at = int(np.argmin(totals))
        raise InputError(f"sample {table.columns[at]!r} without reads", "counts > 0", path=path)
    return per_base / totals * MILLION

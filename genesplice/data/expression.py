"""Expression tables as AnnData: samples x genes, log2(TPM+1), with a condition per sample."""

import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from jaxtyping import Float

from genesplice.data import tables
from genesplice.errors import InputError, require

ExpressionUnit = Literal["tpm", "rpkm", "fpkm", "log2tpm", "counts"]
MILLION = 1e6
HIGHEST_LOG2_TPM = 21.0
"""log2(10^6 + 1) is 19.9: nothing above this can be log2(TPM+1)."""
HIGHEST_TPM_SUM = 1.5e6
"""TPM of one sample add up to 10^6, or less for a subset of genes."""
SAME_SUM = 1e-3
"""Relative distance from 10^6 within which sums of samples are those of TPM."""
MIN_JUDGED_GENES = 20
"""Whole numbers, and sums of samples, mean nothing in fewer genes."""
LEAST_SHARE = 0.01
"""TPM of a sample add up to more than this share of what those of the others do."""
DELETED = "deleted"
"""Column of `obs`: ids of the genes that the strain of a sample lacks, with ";" between."""
SILENT_TPM, SILENT_SHARE = 1.0, 0.1
"""A deleted gene is measured below either: TPM, and share of its median in other samples."""


ANNOTATION_COLUMNS = frozenset({
    "chr", "start", "end", "strand", "length", "effectivelength", "eff_length", "effective_length",
    "width", "gene_length", "gene_name", "gene_symbol", "symbol", "description", "gene_biotype",
    "gene_type", "biotype", "transcript_id", "transcript_id(s)", "entrezid", "entrez_id",
})  # fmt: skip
"""Columns, lower case, that counting tools write between gene ids and samples."""
LENGTH_COLUMNS = (
    "effectivelength", "eff_length", "effective_length", "gene_length", "length",
)  # fmt: skip
MEASURES = {"tpm": ("tpm",), "counts": ("numreads", "est_counts", "expected_count"), "log2tpm": ()}
MEASURES |= dict.fromkeys(("rpkm", "fpkm"), ("fpkm", "rpkm"))
"""Columns of tables of one sample (Salmon, kallisto, RSEM) by unit."""
OTHER_MEASURES = ("isopct",)
TOOL_NAME = re.compile("[_-]?(ReadsPerGene|quant|abundance)$")
"""What tools call the table of one sample."""
STAR = ("both strands", "read's strand", "other strand")
"""The columns of STAR's ReadsPerGene.out.tab, which has no header, after the genes."""
STRANDED = 0.9


class Measurements(NamedTuple):
    """Values as they were measured: genes x samples, and what else the file says.

    `obs` has a row per sample with a `condition`, or is None; `lengths` is the length in bp of
    each gene as the file has it, or None; `notes` say how the file was read, if not plainly.
    """

    values: pd.DataFrame
    obs: pd.DataFrame | None = None
    lengths: pd.Series | None = None
    notes: tuple[str, ...] = ()


def read_matrix(path: Path, unit: ExpressionUnit) -> Measurements:
    """Read one file: `genesplice.data.measurements.read_measurements` says which there are."""
    is_h5ad = tables.plain_suffix(path) == ".h5ad"
    return _read_h5ad(path) if is_h5ad else _read_genes_by_samples(path, unit)


def make_expression(
    table: pd.DataFrame,
    unit: ExpressionUnit,
    obs: pd.DataFrame | None = None,
    *,
    lengths: Mapping[str, float | int] | None = None,
    path: Path | None = None,
) -> ad.AnnData:
    """Check values against their unit and turn genes x samples into AnnData.

    Parameters
    ----------
    obs
        One row per column of `table`, in any order, with a column `condition`; None = each
        sample is its own condition.
    lengths
        Transcribed length of each gene in bp; needed for counts.

    Raises
    ------
    InputError
        For a gene or a sample twice, negative values, values that cannot be in the stated unit, and
        counts of genes without a length.
    """
    tables.refuse_twice(pd.Series(table.index), "gene", path)
    tables.refuse_twice(pd.Series(table.columns), "sample", path)
    if obs is None:
        obs = pd.DataFrame({"condition": table.columns}, index=table.columns)
    log_tpm = _to_log2_tpm(table, unit, lengths, path)
    obs = obs.loc[table.columns].copy()
    obs.index = obs.index.astype(str)
    obs["condition"] = obs["condition"].astype(str)
    var = pd.DataFrame(index=pd.Index(table.index.astype(str), name="gene_id"))
    obs.index.name = "sample"
    return ad.AnnData(X=np.ascontiguousarray(log_tpm.T, dtype=np.float32), obs=obs, var=var)


def hide_deleted(
    expression: ad.AnnData, *, is_derived: bool = False
) -> tuple[ad.AnnData, list[str]]:
    """Make missing (NaN) what was measured of genes that are deleted, and say how much that is.

    What samples lack stands in `obs["deleted"]`; a gene that all of them lack is no measured gene.

    Parameters
    ----------
    is_derived
        Deletions were derived from names of strains: one that the measurement contradicts (see
        `SILENT_TPM`) is dropped. Else it is only said.
    """
    if DELETED not in expression.obs:
        return expression, []
    genes, samples = expression.var_names, expression.obs_names
    is_deleted = np.array([genes.isin(ids.split(";")) for ids in expression.obs[DELETED]])
    tpm = pd.DataFrame(np.exp2(np.asarray(expression.X, dtype=np.float64)) - 1)
    usual = tpm.mask(is_deleted).median().fillna(0).to_numpy()
    is_loud = is_deleted & (tpm.to_numpy() > np.maximum(SILENT_TPM, SILENT_SHARE * usual))
    hidden = is_deleted & ~is_loud if is_derived else is_deleted
    n_samples, n_genes = (int(hidden.any(axis=axis).sum()) for axis in (1, 0))
    notes = [
        f"deleted genes: {hidden.sum()} measurements are missing, no targets ({n_genes} genes in "
        f"{n_samples} of {len(samples)} samples)"
    ]
    if is_loud.any():
        what = f"measured over {SILENT_TPM:g} TPM and {SILENT_SHARE:.0%} of the gene's median"
        fate = "not taken as deleted" if is_derived else "missing all the same"
        loud = [f"{genes[column]} in {samples[row]}" for row, column in np.argwhere(is_loud)]
        notes.append(tables.counted(f"deleted genes that are {what}, {fate}", loud))
    expression = expression.copy()
    expression.X = np.where(hidden, np.float32(np.nan), expression.X)
    if is_derived:
        expression.obs[DELETED] = [";".join(genes[row]) for row in hidden]
    if (is_nowhere := hidden.all(axis=0)).any():
        notes.append(tables.counted("deleted in all samples, no measured genes", genes[is_nowhere]))
        expression = expression[:, ~is_nowhere].copy()
    return expression, notes


def fill_missing(observed: pd.DataFrame) -> pd.DataFrame:
    """Genes x conditions to learn from: what is missing is what is expected without a profile.

    That is the gene's level plus the genes' mean of (observed - level) in the condition.
    """
    level = observed.mean(axis=1)
    profile = observed.sub(level, axis=0).mean()
    expected = np.add.outer(level.to_numpy(), profile.to_numpy())
    return observed.where(observed.notna(), expected)


def no_expression() -> ad.AnnData:
    """No sample and no gene: what a bundle holds where nothing was measured."""
    obs = pd.DataFrame({"condition": []}, index=pd.Index([], name="sample"), dtype=str)
    var = pd.DataFrame(index=pd.Index([], dtype=str, name="gene_id"))
    return ad.AnnData(X=np.empty((0, 0), dtype=np.float32), obs=obs, var=var)


def condition_means(expression: ad.AnnData) -> pd.DataFrame:
    """Average log2(TPM+1) over the replicates of each condition; NaN where all are missing.

    Genes are rows in the order of `var`, conditions columns in order of first appearance.
    """
    values = np.asarray(expression.X, dtype=np.float64)
    conditions = expression.obs["condition"].astype(str).to_numpy()
    table = pd.DataFrame(values, conditions, expression.var_names)
    means = table.groupby(level=0, sort=False).mean().T
    means.index.name, means.columns.name = "gene_id", "condition"
    return means


def _read_genes_by_samples(path: Path, unit: ExpressionUnit) -> Measurements:
    sample = TOOL_NAME.sub("", path.name.split(".")[0]) or path.resolve().parent.name
    table = tables.read_table(path, names=lambda row, _: _counts_without_header(row, sample),
                       row_names=True)  # fmt: skip
    ids, *columns = table.columns
    tables.refuse_empty(table, ids, "gene id", "gene ids, then a column per sample", path)
    genes = table[ids].str.strip()
    is_fine = not genes.map(tables.is_number).all() or genes.str.fullmatch("[0-9]+").all()
    require(is_fine, "no gene ids in the first column", "gene ids, then a column per sample", path)
    tables.refuse_twice(genes, "gene", path)
    require(all(columns), "a column without a name", "the name of each sample", path, 1)
    lower = {column: str(column).strip().lower() for column in columns}
    others = [column for column in columns if lower[column] in ANNOTATION_COLUMNS]
    chosen = [column for column in columns if column not in others]
    measures = {*OTHER_MEASURES, *(name for names in MEASURES.values() for name in names)}
    index = pd.Index(genes, name="gene_id")
    notes = [f"{path.name}: columns that are no samples: {tables.some(others)}"] if others else []
    if "separated" in table.attrs:
        notes.append(f"{path.name}: {table.attrs['separated']}")
    if len(chosen) > 1 and all(lower[column] in measures for column in chosen):
        ours = [column for column in chosen if lower[column] in MEASURES[unit]]
        expected = f"one of them in unit {unit}"
        require(len(ours) == 1, f"columns {tables.some(chosen)} of one sample", expected, path, 1)
        notes.append(f"{path.name}: one sample, {sample!r}: column {ours[0]!r}")
        chosen = ours
    elif tuple(chosen) == STAR:
        chosen, library = _star_column(table, path)
        notes.append(f"{path.name}: one sample, {sample!r}: STAR's column {chosen[0]!r}, {library}")
    elif chosen == [sample]:
        notes.append(f"{path.name}: one sample, {sample!r}")
    require(chosen, f"no sample among {tables.some(columns)}", "a column per sample", path)
    length = next((c for name in LENGTH_COLUMNS for c in others if lower[c] == name), None)
    lengths = None if length is None else pd.Series(_numbers(table[[length]], path)[:, 0], index)
    is_one = len(chosen) == 1 and (chosen[0] in STAR or lower[chosen[0]] in measures)
    names = [sample] if is_one else chosen
    values = pd.DataFrame(_numbers(table[chosen], path), index, names)
    return Measurements(values, lengths=lengths, notes=tuple(notes))


def _counts_without_header(row: list[str], sample: str) -> tuple[str, ...]:
    if len(row) == 4 and row[0] == "N_unmapped":
        return ("gene", *STAR)
    return ("gene", sample) if len(row) == 2 and tables.is_number(row[1]) else ()


def _star_column(table: pd.DataFrame, path: Path) -> tuple[list[str], str]:
    """The column of a library's kind, and which that is: all or half of its reads on one strand."""
    counts = _numbers(table.loc[~table["gene"].str.startswith("N_"), list(STAR)], path)
    _, forward, backward = counts.sum(axis=0)
    share = forward / max(1.0, forward + backward)
    if abs(share - 0.5) > STRANDED - 0.5:
        return [STAR[1 if share > 0.5 else 2]], "a stranded library"
    if min(forward, backward) > STRANDED * max(forward, backward):
        return [STAR[0]], "an unstranded library"
    found = f"{max(share, 1 - share):.0%} of STAR's counts on one strand"
    expected = (
        f"over {STRANDED:.0%} on one (stranded) or nearly half (unstranded); else gene and the "
        "column that is right, in a table of two columns"
    )
    raise InputError(found, expected, path=path)


def _numbers(cells: pd.DataFrame, path: Path) -> Float[np.ndarray, "genes samples"]:
    with suppress(ValueError):
        numbers = cells.to_numpy(dtype=object).astype(np.float64)
        if (np.isfinite(numbers) & (numbers >= 0)).all():
            return numbers
    is_fine = cells.map(lambda cell: tables.is_number(cell) and float(cell) >= 0)
    row, column = np.argwhere(~is_fine.to_numpy())[0]
    cell, line = cells.iat[row, column].strip(), tables.line_of(cells, cells.index[row])
    found = f"{cell!r}" if cell else "an empty cell"
    found += f" for sample {cells.columns[column]!r}"
    expected = "a number" + " >= 0" * tables.is_number(cell)
    expected += " with a point, or semicolons between columns" * ("," in cell)
    raise InputError(found, expected, path=path, line=line)


def _read_h5ad(path: Path) -> Measurements:
    file = tables.readable(path)
    try:
        with warnings.catch_warnings():
            # `make_expression` says so in one line, as an error.
            warnings.filterwarnings("ignore", message=".*names are not unique")
            data = ad.read_h5ad(file)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError("no AnnData file", "h5ad", path=path) from error
    if data.X is None or 0 in data.shape:
        raise InputError("an AnnData without values", "X with samples x genes", path=path)
    dense = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X)
    values = pd.DataFrame(dense.T, index=data.var_names, columns=data.obs_names)
    if "condition" not in data.obs:
        return Measurements(values)
    missing = data.obs_names[data.obs["condition"].isna()]
    if len(missing):
        raise InputError(f"no condition for sample {missing[0]!r}", "a condition", path=path)
    return Measurements(values, data.obs)


def _to_log2_tpm(
    table: pd.DataFrame,
    unit: ExpressionUnit,
    lengths: Mapping[str, float | int] | None,
    path: Path | None,
) -> Float[np.ndarray, "genes samples"]:
    values = table.to_numpy(dtype=np.float64)

    def refuse(is_wrong: np.ndarray, found: str, expected: str) -> None:
        if is_wrong.any():
            row, column = np.argwhere(is_wrong)[0]
            cell = f"gene {table.index[row]!r}, sample {table.columns[column]!r}"
            found = found.format(value=values[row, column])
            raise InputError(f"{found} for {cell}", expected, path=path)

    refuse(~np.isfinite(values), "no finite number", "a value in every cell")
    refuse(values < 0, "{value:g}", "values >= 0")
    check_unit(table, unit, path)
    values = values / _gene_lengths(table, lengths, path) if unit == "counts" else values
    totals = values.sum(axis=0)
    sample = table.columns[int(np.argmin(totals))]
    require(totals.min() > 0, f"sample {sample!r} without reads", f"{unit} > 0", path)
    if unit == "log2tpm":
        return values
    values = values if unit == "tpm" else values / totals * MILLION
    return np.log2(values + 1)


def check_unit(table: pd.DataFrame, unit: ExpressionUnit, path: Path | None = None) -> None:
    """Judge values, genes x samples, by their sums, maxima and whole numbers.

    Raises
    ------
    InputError
        If they cannot be in `unit`.
    """
    values = table.to_numpy(dtype=np.float64)
    highest, many = np.nanmax(values), len(values) >= MIN_JUDGED_GENES
    is_log = unit == "log2tpm"
    sums = (np.exp2(values) - 1 if is_log and highest < 64 else values).sum(axis=0)
    is_whole = many and highest > 0 and bool((values == np.floor(values)).all())
    is_million = many and bool((np.abs(sums / MILLION - 1) < SAME_SUM).all())
    found = expected = ""
    bases = {"natural logarithms": np.e, "logarithms to base 10": 10.0}
    others = [
        name
        for name, base in bases.items()
        if is_log and many and not is_million and highest <= HIGHEST_LOG2_TPM
        and (np.abs((base**values - 1).sum(axis=0) / MILLION - 1) < SAME_SUM).all()
    ]  # fmt: skip
    if others:
        found, expected = others[0], "log2(TPM+1), or TPM: of these they are the logarithms"
    elif is_log and highest > HIGHEST_LOG2_TPM:
        found, expected = f"values up to {highest:g}", f"at most {HIGHEST_LOG2_TPM:g}"
    elif unit in ("tpm", "log2tpm") and sums.max() > HIGHEST_TPM_SUM * (2 if is_log else 1):
        found = f"sample {table.columns[int(np.argmax(sums))]!r} adding up to {sums.max():.3g}"
        expected = "at most 1e6 (counts are unit counts)"
    elif unit in ("tpm", "log2tpm") and many and 0 < sums.min() < LEAST_SHARE * np.median(sums):
        found = f"sample {table.columns[int(np.argmin(sums))]!r} adding up to {sums.min():.3g}"
        expected = f"about {np.median(sums):.3g}, as others do, or no such column"
    elif (
        not is_log
        and highest <= HIGHEST_LOG2_TPM
        and (many and not is_whole if unit == "counts" else len(values) > 1)
    ):
        found = f"values up to only {highest:g}"
        expected = f"{unit.upper()} (logarithms are unit log2tpm)"
    elif unit == "counts" and is_million:
        found, expected = "samples that add up to 1e6", "reads per gene (TPM are unit tpm)"
    elif unit != "counts" and is_whole and not is_million:
        found, expected = "whole numbers", f"{unit.upper()} (counts are unit counts)"
    require(not found, f"{found} with unit {unit}", expected, path)


def _gene_lengths(
    table: pd.DataFrame, lengths: Mapping[str, float | int] | None, path: Path | None
) -> Float[np.ndarray, "genes 1"]:
    if lengths is None:
        raise InputError("counts without gene lengths", "an annotation, or tpm", path=path)
    unknown = [gene for gene in table.index if not lengths.get(gene, 0) > 0]
    expected = "a length of 1 bp or more for every gene with counts"
    require(
        not unknown,
        f"no length for {len(unknown)} genes ({tables.some(unknown, 3)})",
        expected,
        path,
    )
    return np.array([[float(lengths[gene])] for gene in table.index])

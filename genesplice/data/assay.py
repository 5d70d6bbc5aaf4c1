"""A table of sequences that were measured, each with a value or a class, and who is held out.

Tables (TSV, CSV, Parquet) with a column of sequences and one of values, FASTA with a table of
labels or headers `NAME|LABEL`, and folders `[SPLIT/]CLASS/*.txt` are read. Sequences that are alike
are held out together, unless a column says which are.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64, UInt8

from genesplice.data import tables
from genesplice.data.genome import ALPHABET, IUPAC_AMBIGUOUS, N, decode, encode, read_fasta
from genesplice.data.genome import reverse_complement as other_strand
from genesplice.data.leakage import RELATIVE, row_leakage
from genesplice.data.similarity import sequence_clusters
from genesplice.data.splits import cluster_folds, given_folds
from genesplice.errors import InputError, require
from genesplice.runtime import file_sha256

Kind = Literal["class", "value"]
NAMES: dict[str, tuple[str, ...]] = {
    "sequence": ("sequence", "seq", "dna", "dna_sequence", "promoter_sequence", "sequences"),
    "value": (
        "label", "class", "target", "y", "value", "activity", "expression", "strength", "score",
        "labels", "category", "measurement", "log2fc", "mean_expression",
    ),
    "id": ("id", "name", "sequence_id", "seq_id", "seqid", "oligo", "gene", "gene_id"),
    "split": ("split", "fold", "set", "partition", "subset"),
}  # fmt: skip
"""Names of columns that are recognised, lower case, best first."""
CHANGE = ("position", "ref", "alt", "value")
MISSING = ("", "na", "nan", "n/a", "none", "null")
SHORTEST_BP, MOST_CLASSES, HEADERLESS_BP, LEAST_CHANGES = 4, 20, 12, 10
_DNA = frozenset(ALPHABET + IUPAC_AMBIGUOUS)


@dataclass(frozen=True)
class Assay:
    """Sequences with a value or class, and their folds.

    `rows` has `id, length_bp, value, cluster, fold, is_validation, same`: `value` is a number, of
    classes their index in `classes`, NaN where nothing was measured; `fold` -1 is never held out;
    rows of one number in `same` are one sequence. `tokens` are N behind a sequence's end.
    """

    name: str
    rows: pd.DataFrame = field(repr=False)
    tokens: UInt8[np.ndarray, "sequences length"] = field(repr=False)
    classes: tuple[str, ...]
    n_folds: int
    leakage: dict[str, int | str]
    notes: tuple[str, ...]
    data_sha256: dict[str, str]

    @property
    def is_measured(self) -> Bool[np.ndarray, " sequences"]:
        """Rows with a value."""
        return self.rows["value"].notna().to_numpy()

    def held_out(self, fold: int) -> Int64[np.ndarray, " test"]:
        """Measured rows of a fold."""
        return np.flatnonzero(self.is_measured & (self.rows["fold"] == fold).to_numpy())

    def training(self, fold: int) -> Int64[np.ndarray, " training"]:
        """Measured rows of the other folds, without those whose very sequence is held out."""
        is_other = self.is_measured & (self.rows["fold"] != fold).to_numpy()
        same = self.rows["same"].to_numpy()
        return np.flatnonzero(is_other & ~np.isin(same, same[self.held_out(fold)]))

    def reversed_tokens(self) -> UInt8[np.ndarray, "sequences length"]:
        """Every sequence's other strand, from the first base on."""
        turned = np.full_like(self.tokens, N)
        for row, length in enumerate(self.rows["length_bp"]):
            turned[row, :length] = other_strand(self.tokens[row, :length])
        return turned


def read_assay(
    path: Path,
    labels: Path | None = None,
    *,
    sequence: str | None = None,
    value: str | None = None,
    split: str | None = None,
    kind: Kind | None = None,
    n_folds: int = 5,
    seed: int = 0,
) -> Assay:
    """Read a table of sequences and deal it to folds.

    Parameters
    ----------
    labels
        Of a FASTA file: a table of its names, with a column of values.
    sequence, value, split
        Columns; None: those with a name of `NAMES`, else the one that holds sequences, and the
        only other one. `split` "clusters" passes a column over. Of train, (val) and test the last
        is held out; of numbers or other names each in turn.
    kind
        None: whole numbers with at most `MOST_CLASSES` different ones, and text, are classes.

    Raises
    ------
    InputError
        For a column that cannot be found, letters that are no DNA, one sequence with two values, a
        class of one member, nothing to tell apart, too few clusters, a split that holds out
        nothing (with the line, where there is one).
    """
    table, digests = _read(path, labels)
    columns = _columns(table, path, sequence=sequence, value=value, split=split)
    notes = [f"{part}: column {column!r}" for part, column in columns.items()]
    texts = {part: table[column].astype(str).str.strip() for part, column in columns.items()}
    cells = texts["sequence"].str.upper()
    tokens = [_encoded(text, line, table, path) for line, text in cells.items()]
    values, classes = _values(texts["value"], kind, path)
    ids = texts["id"] if "id" in texts else [str(number) for number in range(1, len(table) + 1)]
    parts = texts["split"].str.lower() if "split" in texts else ""
    rows = pd.DataFrame({"id": ids, "value": values, "split": parts}, index=table.index)
    rows = rows.assign(length_bp=list(map(len, tokens)), same=_same(tokens))
    is_kept = _without_repeats(rows, cells, path)
    rows, tokens = rows[is_kept], list(itertools.compress(tokens, is_kept))
    if lost := int((~is_kept).sum()):
        notes.append(f"left out: {lost} rows that repeat a sequence and its value")
    if n_unknown := int(rows["value"].isna().sum()):
        notes.append(f"without a value: {n_unknown} rows, which are predicted, not learned from")
    lengths = rows["length_bp"]
    what = f"{len(classes)} classes ({tables.some(classes)})" if classes else "numbers"
    notes.append(f"{len(rows)} sequences of {lengths.min()} to {lengths.max()} bp, {what}")
    rows = rows.assign(cluster=sequence_clusters(tokens, rows["same"].to_numpy(), RELATIVE))
    if "split" in columns:
        fold, is_validation, n_folds = given_folds(rows["split"], path)
    else:
        fold, is_validation = cluster_folds(rows, n_folds, seed, path), np.zeros(len(rows), bool)
    fold = np.where(rows["value"].isna(), -1, fold)
    rows = rows.assign(fold=fold, is_validation=is_validation).drop(columns="split")
    leakage = row_leakage(rows, n_folds, is_given="split" in columns)
    notes.append(str(leakage["sentence"]))
    filled = np.full((len(tokens), int(lengths.max())), N, np.uint8)
    for row, one in enumerate(tokens):
        filled[row, : len(one)] = one
    name, rows = path.name.split(".")[0], rows.reset_index(drop=True)
    made = Assay(name, rows, filled, classes, n_folds, leakage, tuple(notes), digests)
    for number in range(n_folds):
        known = rows["value"].iloc[made.training(number)]
        is_fine = len(known) >= 3 and known.nunique() > 1 and len(made.held_out(number))
        found = f"{len(known)} rows with {known.nunique()} different values beside fold {number}"
        require(is_fine, found, "3 rows with 2 to learn from, and 1 held out", path)
    return made


# --- reading ---


def _read(path: Path, labels: Path | None) -> tuple[pd.DataFrame, dict[str, str]]:
    """The table as text, whatever it comes from, and sha256 of the files."""
    if path.is_dir():
        return _read_folder(path)
    with tables.open_text(path) as opened:
        is_fasta = opened.read(1) == ">"
    digests = {one.name: file_sha256(one) for one in (path, labels) if one is not None}
    if not is_fasta:
        require(labels is None, f"--labels with the table {path.name}", "a FASTA file with it")
        return tables.read_table(path, names=_headerless), digests
    genome = read_fasta(path)
    texts = {c.name: decode(genome.fetch(c.name, 0, c.length)) for c in genome.contigs}
    table = pd.DataFrame({"id": list(texts), "sequence": list(texts.values())})
    if labels is None:
        lacking = next((name for name in texts if "|" not in name), None)
        found = f"sequence {lacking!r} without a label"
        require(lacking is None, found, "--labels TABLE, or headers NAME|LABEL", path)
        return table.assign(value=table["id"].str.rsplit("|", n=1).str[1]), digests
    given = tables.read_table(labels)
    column = tables.find_columns(given, {"id": NAMES["id"]}, path=labels)["id"]
    given = given.assign(**{column: given[column].str.strip()})
    is_known = given[column].isin(texts)
    found = f"names without a sequence ({tables.some(given[column][~is_known], 3)})"
    require(2 * is_known.sum() > len(given), found, f"those of {path.name}", labels)
    given = given.rename(columns={column: "id"})
    return given[is_known].merge(table, on="id", how="outer").fillna(""), digests


def _read_folder(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Files of one sequence each: their folder is the class, the folder above it the split."""
    files = sorted(path.rglob("*.txt"))
    depths = {len(file.relative_to(path).parts) for file in files}
    found = f"{len(files)} .txt files"
    require(depths in ({2}, {3}), found, "[SPLIT/]CLASS/NAME.txt, one sequence each", path)
    rows = {"id": [file.stem for file in files], "label": [file.parent.name for file in files]}
    if depths == {3}:
        rows["split"] = [file.parent.parent.name for file in files]
    texts = ["".join(text for _, text in tables.numbered_lines(file)) for file in files]
    digest = hashlib.sha256("\n".join(map(str, zip(files, texts, strict=True))).encode())
    return pd.DataFrame(rows).assign(sequence=texts), {path.name: digest.hexdigest()}


def _is_dna(text: str) -> bool:
    return len(text) >= HEADERLESS_BP and _DNA.issuperset(text.strip().upper())


def _headerless(header: list[str], comments: Sequence[str]) -> list[str]:
    """Names of the columns of a table whose first row is no header: it holds a sequence."""
    if not any(map(_is_dna, header)):
        return []
    names = [f"column {number}" for number in range(1, len(header) + 1)]
    names[list(map(_is_dna, header)).index(True)] = "sequence"
    return names


def _columns(table: pd.DataFrame, path: Path, **chosen: str | None) -> dict[str, str]:
    """Which column plays each part."""
    columns: dict[str, str] = {}
    for part, name in chosen.items():
        if name is not None and not (part == "split" and name == "clusters"):
            columns |= tables.find_columns(table, {part: (name.lower(),)}, path=path)
    free = table.drop(columns=list(columns.values()))
    passed = ("split",) if chosen["split"] == "clusters" else ()
    wanted = {part: names for part, names in NAMES.items() if part not in (*columns, *passed)}
    columns |= tables.find_columns(free, wanted, path=path, optional=list(wanted))
    if "sequence" not in columns:
        free = table.drop(columns=list(columns.values()))
        named = [str(name) for name, cells in free.items() if cells.head(20).map(_is_dna).all()]
        found = f"{len(named)} columns of sequences (header: {tables.some(table.columns, 8)})"
        require(len(named) == 1, found, "one, or --sequence NAME", path)
        columns["sequence"] = named[0]
    if "value" not in columns:
        rest = [str(name) for name in table.columns if name not in columns.values()]
        found = (
            f"{len(rest)} columns that may be the value (header: {tables.some(table.columns, 8)})"
        )
        require(len(rest) == 1, found, "one, or --value NAME", path)
        columns["value"] = rest[0]
    return columns


def _encoded(text: str, line: object, table: pd.DataFrame, path: Path) -> np.ndarray:
    """Tokens of a sequence."""
    at = tables.line_of(table, line)
    tokens = encode(text, path, at)
    found = f"a sequence of {len(tokens)} bp, {text[:20]!r}"
    expected = f"at least {SHORTEST_BP} bases A, C, G, T"
    require((tokens < N).sum() >= SHORTEST_BP, found, expected, path, at)
    return tokens


def _values(texts: pd.Series, kind: Kind | None, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers, or classes as their numbers, and the names of these; NaN where nothing is given."""
    values, known = np.full(len(texts), np.nan), texts[~texts.str.lower().isin(MISSING)]
    where = ~texts.str.lower().isin(MISSING).to_numpy()
    is_numeric = known.map(tables.is_number)
    numbers = pd.to_numeric(known[is_numeric])
    few = numbers.nunique() <= MOST_CLASSES and bool((numbers % 1 == 0).all())
    if kind == "value" or (kind is None and 2 * len(numbers) > len(known) and not few):
        if not is_numeric.all():
            at = known.index[~is_numeric][0]
            found, line = f"{known.loc[at]!r} among numbers", tables.line_of(texts.to_frame(), at)
            raise InputError(found, "a number", path=path, line=line)
        require(numbers.nunique() > 1, f"{numbers.nunique()} different values", "two or more", path)
        values[where] = numbers
        return values, ()
    counts = known.value_counts()
    require(len(counts) > 1, f"{len(counts)} classes", "two or more", path)
    if counts.min() < 2:
        name = counts.index[-1]
        at = known.index[known == name][0]
        expected = "two or more of every class" + ", or --kind value" * bool(is_numeric.all())
        line = tables.line_of(texts.to_frame(), at)
        raise InputError(f"class {name!r} of one member", expected, path=path, line=line)
    classes = sorted(counts.index, key=(lambda one: (float(one), one)) if is_numeric.all() else str)
    values[where] = pd.Index(classes).get_indexer(known)
    return values, tuple(map(str, classes))


def _same(tokens: Sequence[np.ndarray]) -> Int64[np.ndarray, " sequences"]:
    """A number for each different sequence; a sequence and its other strand have one."""
    keys = (min(one.tobytes(), other_strand(one).tobytes()) for one in tokens)
    return pd.factorize(pd.Series(list(keys), dtype=object))[0].astype(np.int64)


def _without_repeats(rows: pd.DataFrame, cells: pd.Series, path: Path) -> np.ndarray:
    """Which rows are kept: of rows with one sequence, value and split the first."""
    keys = rows.assign(text=cells)
    measured = keys[keys["value"].notna()]
    first = measured.groupby("text")["value"].transform("first")
    if (first != measured["value"]).any():
        at = measured.index[(first != measured["value"]).to_numpy()][0]
        text = measured.at[at, "text"]
        before = measured.index[(measured["text"] == text).to_numpy()][0]
        lines = [tables.line_of(rows, one) for one in (before, at)]
        expected = "one value a sequence: take the mean of replicates first"
        found = f"a sequence with two values (lines {lines[0]} and {lines[1]})"
        raise InputError(found, expected, path=path, line=lines[1])
    return ~keys.duplicated(["text", "value", "split"]).to_numpy()


# --- measured changes ---


def read_measured(path: Path, of: str = "contig") -> pd.DataFrame:
    """Read changed bases: contig (or another name `of`), position (from 1), ref, alt, value.

    Rows keep their line (see `data.tables.line_of`).

    Raises
    ------
    InputError
        For a missing column, and a position or value that is no number.
    """
    table = tables.read_table(path)
    names = [of, *CHANGE]
    if missing := [name for name in names if name not in table.columns]:
        raise InputError(f"no column {missing[0]}", ", ".join(names), path=path, line=1)
    for name, kind in (("position", "int64"), ("value", "float64")):
        numbers = pd.to_numeric(table[name], errors="coerce")
        is_whole = numbers.between(1, 2**53) & (numbers % 1 == 0)
        for label in table.index[~(is_whole if kind == "int64" else np.isfinite(numbers))]:
            found = f"{name} {table[name][label]!r}"
            expected = "a whole number from 1" if kind == "int64" else "a number"
            raise InputError(found, expected, path=path, line=tables.line_of(table, label))
        table[name] = numbers.astype(kind)
    return table[names]


def add_changes(assay: Assay, path: Path) -> tuple[Assay, pd.DataFrame]:
    """The assay with a row without a value for each changed sequence, and what was measured.

    Changes keep the length, and their sequence is held out by a fold that does not learn from the
    changed one; others are left out. They have `id, position, ref, alt, observed, fold, unit`, and
    `original` and `row`: the rows of the assay before and after the change.

    Raises
    ------
    InputError
        As `read_measured`, for a sequence that the assay lacks or has twice and bases that are not
        there (with the line), fewer than `LEAST_CHANGES`, and more than two classes.
    """
    n_classes, rows, tokens = len(assay.classes), assay.rows, list[np.ndarray]()
    require(n_classes <= 2, f"changes of {n_classes} classes", "two classes, or values", path)
    table, where = read_measured(path, "id"), pd.Series(np.arange(len(rows)), rows["id"])
    originals = list[int]()
    for label, (name, position, ref, alt, _) in table.iterrows():
        line, at = tables.line_of(table, label), slice(position - 1, position - 1 + len(ref))
        same = np.atleast_1d(where.get(str(name).strip(), ()))
        expected = f"one, in the table of {assay.name}"
        require(len(same) == 1, f"{len(same)} sequences {name!r}", expected, path, line)
        one, length = assay.tokens[same[0]].copy(), rows["length_bp"][same[0]]
        there = decode(one[at]) if at.stop <= length else ""
        expected = f"ref {there or 'within the sequence'}, and alt as long"
        is_fine = there == ref.upper() and len(ref) == len(alt) > 0
        require(is_fine, f"{ref}>{alt} at position {position}", expected, path, line)
        one[at] = encode(alt)
        tokens.append(one)
        originals.append(int(same[0]))
    changed = rows.iloc[originals].assign(value=np.nan, fold=-1, is_validation=False)
    ends = zip([*assay.tokens, *tokens], [*rows["length_bp"], *changed["length_bp"]], strict=True)
    same = _same([one[:length] for one, length in ends])
    learned = [set(same[assay.training(number)]) for number in range(assay.n_folds)]
    folds = rows["fold"].to_numpy()[originals]
    pairs = zip(folds, same[len(rows) :], strict=True)
    is_kept = np.array([fold >= 0 and key not in learned[fold] for fold, key in pairs], bool)
    n, n_lost = int(is_kept.sum()), int((~is_kept).sum())
    note = f"{n} measured changes of held-out sequences"
    require(n >= LEAST_CHANGES, f"{note}, {n_lost} of others", f"{LEAST_CHANGES} or more", path)
    lost = f"; left out: {n_lost}, never held out, or learned from as they are changed"
    both = pd.concat([rows, changed[is_kept]], ignore_index=True)
    both["same"] = same[np.r_[np.ones(len(rows), bool), is_kept]]
    table = table.rename(columns={"value": "observed"})
    table = table.assign(fold=folds, unit=originals, original=originals)[is_kept]
    made = replace(
        assay,
        rows=both,
        tokens=np.concatenate([assay.tokens, np.stack(tokens)[is_kept]]),
        notes=(*assay.notes, note + lost * bool(n_lost)),
        data_sha256={**assay.data_sha256, path.name: file_sha256(path)},
    )
    return made, table.assign(row=np.arange(len(rows), len(both)))

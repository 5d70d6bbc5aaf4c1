"""A table of sequences that were measured, each with a value or a class, and who is held out.

Tables (TSV, CSV, Parquet) with a column of sequences and one of values, FASTA with a table of
labels or headers `NAME|LABEL`, and folders `[SPLIT/]CLASS/*.txt` are read. Sequences that are alike
are held out together, unless a column says which are.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64, UInt8

from genesplice.data.genome import ALPHABET, IUPAC_AMBIGUOUS, N, decode, encode, read_fasta
from genesplice.data.genome import reverse_complement as other_strand
from genesplice.data.leakage import RELATIVE
from genesplice.data.similarity import sequence_clusters
from genesplice.data.tables import (
    find_columns,
    is_number,
    line_of,
    numbered_lines,
    open_text,
    read_table,
    some,
)
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
TRAINING, VALIDATION = ("train", "training"), ("val", "valid", "validation", "dev")
MISSING = ("", "na", "nan", "n/a", "none", "null")
SHORTEST_BP, MOST_CLASSES, MOST_SPLITS, HEADERLESS_BP = 4, 20, 20, 12
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
    lengths, what = rows["length_bp"], f"{len(classes)} classes ({some(classes)})"
    notes.append(
        f"{len(rows)} sequences of {lengths.min()} to {lengths.max()} bp, "
        + (what if classes else "numbers")
    )
    rows = rows.assign(cluster=sequence_clusters(tokens, rows["same"].to_numpy(), RELATIVE))
    if "split" in columns:
        fold, is_validation, n_folds = _given_folds(rows["split"], path)
    else:
        fold, is_validation = _cluster_folds(rows, n_folds, seed, path), np.zeros(len(rows), bool)
    fold = np.where(rows["value"].isna(), -1, fold)
    rows = rows.assign(fold=fold, is_validation=is_validation).drop(columns="split")
    leakage = _leakage(rows, n_folds, is_given="split" in columns)
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
    with open_text(path) as opened:
        is_fasta = opened.read(1) == ">"
    digests = {one.name: file_sha256(one) for one in (path, labels) if one is not None}
    if not is_fasta:
        require(labels is None, f"--labels with the table {path.name}", "a FASTA file with it")
        return read_table(path, names=_headerless), digests
    genome = read_fasta(path)
    texts = {c.name: decode(genome.fetch(c.name, 0, c.length)) for c in genome.contigs}
    table = pd.DataFrame({"id": list(texts), "sequence": list(texts.values())})
    if labels is None:
        lacking = next((name for name in texts if "|" not in name), None)
        found = f"sequence {lacking!r} without a label"
        require(lacking is None, found, "--labels TABLE, or headers NAME|LABEL", path)
        return table.assign(value=table["id"].str.rsplit("|", n=1).str[1]), digests
    given = read_table(labels)
    column = find_columns(given, {"id": NAMES["id"]}, path=labels)["id"]
    given = given.assign(**{column: given[column].str.strip()})
    is_known = given[column].isin(texts)
    if 2 * is_known.sum() <= len(given):
        found = f"names without a sequence ({some(given[column][~is_known], 3)})"
        raise InputError(found, f"those of {path.name}", path=labels)
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
    texts = ["".join(text for _, text in numbered_lines(file)) for file in files]
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
            columns |= find_columns(table, {part: (name.lower(),)}, path=path)
    free = table.drop(columns=list(columns.values()))
    passed = ("split",) if chosen["split"] == "clusters" else ()
    wanted = {part: names for part, names in NAMES.items() if part not in (*columns, *passed)}
    columns |= find_columns(free, wanted, path=path, optional=list(wanted))
    if "sequence" not in columns:
        free = table.drop(columns=list(columns.values()))
        named = [str(name) for name, cells in free.items() if cells.head(20).map(_is_dna).all()]
        found = f"{len(named)} columns of sequences (header: {some(table.columns, 8)})"
        require(len(named) == 1, found, "one, or --sequence NAME", path)
        columns["sequence"] = named[0]
    if "value" not in columns:
        rest = [str(name) for name in table.columns if name not in columns.values()]
        found = f"{len(rest)} columns that may be the value (header: {some(table.columns, 8)})"
        require(len(rest) == 1, found, "one, or --value NAME", path)
        columns["value"] = rest[0]
    return columns


def _encoded(text: str, line: object, table: pd.DataFrame, path: Path) -> np.ndarray:
    """Tokens of a sequence."""
    at = line_of(table, line)
    try:
        tokens = encode(text)
    except InputError as error:
        raise InputError(error.found, error.expected, path=path, line=at) from None
    if (tokens < N).sum() < SHORTEST_BP:
        expected = f"at least {SHORTEST_BP} bases A, C, G, T"
        found = f"a sequence of {len(tokens)} bp, {text[:20]!r}"
        raise InputError(found, expected, path=path, line=at)
    return tokens


def _values(texts: pd.Series, kind: Kind | None, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers, or classes as their numbers, and the names of these; NaN where nothing is given."""
    values, known = np.full(len(texts), np.nan), texts[~texts.str.lower().isin(MISSING)]
    where = ~texts.str.lower().isin(MISSING).to_numpy()
    is_numeric = known.map(is_number)
    numbers = pd.to_numeric(known[is_numeric])
    few = numbers.nunique() <= MOST_CLASSES and bool((numbers % 1 == 0).all())
    if kind == "value" or (kind is None and 2 * len(numbers) > len(known) and not few):
        if not is_numeric.all():
            at = known.index[~is_numeric][0]
            found, line = f"{known.loc[at]!r} among numbers", line_of(texts.to_frame(), at)
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
        line = line_of(texts.to_frame(), at)
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
        lines = [line_of(rows, one) for one in (before, at)]
        expected = "one value a sequence: take the mean of replicates first"
        found = f"a sequence with two values (lines {lines[0]} and {lines[1]})"
        raise InputError(found, expected, path=path, line=lines[1])
    return ~keys.duplicated(["text", "value", "split"]).to_numpy()


# --- folds ---


def _given_folds(
    parts: pd.Series, path: Path
) -> tuple[Int64[np.ndarray, " sequences"], Bool[np.ndarray, " sequences"], int]:
    """Folds by a column: of train, (val) and test the last, else each part in turn."""
    names = sorted(set(parts), key=lambda one: (float(one), one) if is_number(one) else (0.0, one))
    if "" in names:
        line = line_of(parts.to_frame(), parts.index[(parts == "").to_numpy()][0])
        raise InputError("an empty split", "a name in every row", path=path, line=line)
    is_validation = parts.isin(VALIDATION).to_numpy()
    tested = names
    if set(names) & set(TRAINING):
        tested = [name for name in names if name not in TRAINING + VALIDATION]
    require(len(names) > 1 and tested, f"a split of {some(names)} only", "two parts or more", path)
    require(len(tested) <= MOST_SPLITS, f"a split of {len(tested)} parts", f"{MOST_SPLITS}", path)
    fold = {name: number for number, name in enumerate(tested)}
    return parts.map(fold).fillna(-1).to_numpy(np.int64), is_validation, len(tested)


def _cluster_folds(
    rows: pd.DataFrame, n_folds: int, seed: int, path: Path
) -> Int64[np.ndarray, " sequences"]:
    """Whole clusters to folds, each with about as many rows, and as many of a class or size."""
    measured = rows[rows["value"].notna()]
    stratum = measured["value"].rank(pct=True).mul(5).round()
    clusters = stratum.groupby(measured["cluster"])
    count, first = clusters.size().to_numpy(), clusters.first().to_numpy()
    found = f"{len(count)} clusters of similar sequences in {len(measured)} rows"
    require(len(count) >= n_folds, found, f"{n_folds}, one a fold, or --split COLUMN", path)
    generator = np.random.default_rng(seed)
    load, fold = np.zeros(n_folds, np.int64), np.zeros(len(count), np.int64)
    for one in np.lexsort((generator.random(len(count)), first, -count)):
        lowest = np.flatnonzero(load == load.min())
        fold[one] = generator.choice(lowest)
        load[fold[one]] += count[one]
    of = pd.Series(fold, clusters.size().index)
    return rows["cluster"].map(of).fillna(-1).to_numpy(np.int64)


def _leakage(rows: pd.DataFrame, n_folds: int, *, is_given: bool) -> dict[str, int | str]:
    """How many held-out rows have their very sequence, or one like it, among the others."""
    measured = rows[rows["value"].notna()]
    counts = {"same": 0, "cluster": 0}
    for fold in range(n_folds):
        is_test = measured["fold"] == fold
        for key in counts:
            counts[key] += int(measured[key][is_test].isin(measured[key][~is_test]).sum())
    n = int((measured["fold"] >= 0).sum())
    how = "the given split" if is_given else f"{n_folds} folds of clusters of similar sequences"
    sentence = (
        f"leakage: of {n} held-out rows in {how}, {counts['same']} have the identical sequence (on "
        f"either strand) and {counts['cluster']} a similar one among the others"
    )
    if counts["same"]:
        sentence += "; identical ones are left out of training"
    return {
        "held_out": n,
        "identical": counts["same"],
        "similar": counts["cluster"],
        "sentence": sentence,
    }

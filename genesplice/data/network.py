"""Regulatory edges and gene sets, matched to the genes of the annotation."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from genesplice.data.leakage import evidence_of
from genesplice.data.tables import (
    find_columns,
    line_of,
    numbered_lines,
    plain_suffix,
    read_table,
    refuse_empty,
    unique_owners,
)
from genesplice.errors import InputError

NETWORK_COLUMNS = ("source", "target", "sign", "kind", "provenance")
SIGNS = {
    "+": 1, "1": 1, "+1": 1, "1.0": 1, "activator": 1, "activation": 1, "activates": 1,
    "-": -1, "-1": -1, "-1.0": -1, "repressor": -1, "repression": -1, "represses": -1,
    "": 0, "0": 0, "0.0": 0, "?": 0, "+-": 0, "-+": 0, "dual": 0, "unknown": 0,
}  # fmt: skip
EDGE_NAMES = {
    "source": ("source", "regulator", "tf", "from"),
    "target": ("target", "gene_id", "gene", "to"),
    "sign": ("sign", "effect", "mode", "mor", "weight"),
    "provenance": ("provenance", "evidence", "database"),
}
SET_NAMES = {"gene": ("gene", "gene_id"), "set": ("set", "pathway", "term", "gene_set", "go")}


class NetworkReading(NamedTuple):
    """Edges, and what became of the names that are no genes."""

    edges: pd.DataFrame
    unmatched_regulators: tuple[str, ...]
    unmatched_targets: tuple[str, ...]


class GeneSetReading(NamedTuple):
    """Gene sets, the evidence they declare ("" for none), and the names that matched no gene."""

    gene_sets: dict[str, tuple[str, ...]]
    evidence: str
    unmatched: tuple[str, ...]


def gene_aliases(genes: pd.DataFrame) -> dict[str, str]:
    """Map lower-case gene ids and names to gene ids; a name that two genes share is left out."""
    ids = genes["gene_id"]
    names = unique_owners(zip(genes["name"].astype(str), ids, strict=True))
    return names | unique_owners(zip(ids, ids, strict=True))


def read_network(
    path: Path, genes: pd.DataFrame, aliases: Mapping[str, str] | None = None
) -> NetworkReading:
    """Read regulator→target edges: columns `source, target, sign, kind, provenance`.

    The table (TSV, CSV, Parquet) has two to four columns with a header: source (or regulator,
    tf), target (or gene, gene_id), and optionally sign (or effect, mor, weight: numbers count by
    their sign) and provenance (or evidence).

    A name is matched to a gene by id, name or alias whatever its case. A regulator made of
    several genes ("flhD;flhC") gives one edge from each. A regulator that is no gene (a
    metabolite, a tRNA) keeps its name as source; an edge to a target that is no gene is left
    out. `sign` is 1, -1, or 0 for both or unknown; where one regulator has edges of both
    signs to one target, they become one edge of sign 0. `provenance` is the declared evidence,
    empty where the file declares none.

    Raises
    ------
    InputError
        For a missing column, an unknown sign or an empty name (with the line), or when fewer
        than half of the targets are genes.
    """
    path = Path(path)
    table = read_table(path)
    columns = find_columns(table, EDGE_NAMES, path=path, optional=("sign", "provenance"))
    table = table.rename(columns={name: part for part, name in columns.items()})
    for part in ("source", "target"):
        refuse_empty(table, part, part, "a name", path)
    edges = pd.DataFrame("", table.index, ["source", "target", "sign", "provenance"])
    edges.update(table)
    edges = edges.apply(lambda column: column.str.strip())
    weights = np.sign(pd.to_numeric(edges["sign"], errors="coerce"))
    signs = edges["sign"].str.lower().map(SIGNS).fillna(weights)
    if signs.isna().any():
        wrong = signs.index[signs.isna()][0]
        raise InputError(
            f"effect {table['sign'][wrong]!r}",
            "+, -, +- or ? (or 1, -1, 0, or nothing)",
            path=path,
            line=line_of(table, wrong),
        )
    reading = make_network(edges.assign(sign=signs), aliases or gene_aliases(genes))
    _refuse_strangers(reading.unmatched_targets, edges["target"].nunique(), "targets", genes, path)
    return reading


def make_network(
    edges: pd.DataFrame,
    aliases: Mapping[str, str],
    complexes: Mapping[str, tuple[str, ...]] | None = None,
) -> NetworkReading:
    """Match names to genes and merge edges that say the same.

    Parameters
    ----------
    edges
        Columns `source, target, sign, provenance`, names as written.
    aliases
        Lower-case name to gene_id.
    complexes
        Regulators that stand for several genes, by lower-case name to gene names.
    """
    complexes = complexes or {}
    merged: dict[tuple[str, str], tuple[set[int], dict[str, None]]] = {}
    lost_sources: Counter[str] = Counter()
    lost_targets: Counter[str] = Counter()
    columns = (edges[name] for name in ("source", "target", "sign", "provenance"))
    for source, target, sign, provenance in zip(*columns, strict=True):
        gene = aliases.get(target.lower())
        if gene is None:
            lost_targets[target] += 1
            continue
        parts = complexes.get(source.lower()) or tuple(re.split(r"\s*;\s*", source))
        ids = [aliases.get(part.lower()) for part in parts]
        if None in ids:
            lost_sources[source] += 1
            ids = [source]
        for regulator in ids:
            signs, declared = merged.setdefault((str(regulator), gene), (set(), {}))
            signs.add(int(sign))
            declared[provenance] = None
    rows = [
        (source, target, signs.pop() if len(signs) == 1 else 0, "regulates", "; ".join(declared))
        for (source, target), (signs, declared) in merged.items()
    ]
    frame = pd.DataFrame(rows, columns=list(NETWORK_COLUMNS)).astype({"sign": "int8"})
    return NetworkReading(frame, tuple(lost_sources), tuple(lost_targets))


def read_gene_sets(
    path: Path, genes: pd.DataFrame, aliases: Mapping[str, str] | None = None
) -> GeneSetReading:
    """Read gene sets from GMT, GAF or a two-column TSV (gene, set; with a header).

    Names are matched to genes by id, name or alias whatever their case; what matches none is
    left out, and so are sets that end up empty. From GAF, annotations with NOT are left out,
    and so are those whose evidence is expression (IEP, HEP); the other codes are the evidence.

    Raises
    ------
    InputError
        For lines that do not fit the format, and when fewer than half of the names are genes.
    """
    path = Path(path)
    codes: set[str] = set()
    readers = {".gmt": lambda: ((name, gene) for name, ids in _gmt_lines(path) for gene in ids),
               ".gaf": lambda: _gaf_pairs(path, codes)}  # fmt: skip
    pairs = readers.get(plain_suffix(path), lambda: _table_pairs(path))()
    aliases = aliases or gene_aliases(genes)
    members: dict[str, dict[str, None]] = {}
    lost: Counter[str] = Counter()
    names: set[str] = set()
    for set_name, gene in pairs:
        names.add(gene)
        if (gene_id := aliases.get(gene.lower())) is None:
            lost[gene] += 1
        else:
            members.setdefault(set_name, {})[gene_id] = None
    _refuse_strangers(lost, len(names), "names", genes, path)
    sets = {name: tuple(ids) for name, ids in members.items()}
    return GeneSetReading(sets, "; ".join(sorted(codes)), tuple(lost))


def _refuse_strangers(
    lost: Collection[str], n_names: int, what: str, genes: pd.DataFrame, path: Path
) -> None:
    if 2 * len(lost) > n_names or not n_names:
        raise InputError(
            f"{len(lost)} of {n_names} {what} that are no genes ({', '.join(list(lost)[:3])})",
            f"gene ids or names such as {', '.join(genes['gene_id'][:3])}",
            path=path,
        )


def write_gmt(path: Path, gene_sets: Mapping[str, Collection[str]]) -> None:
    """Write gene sets as GMT; the second column is the collection (the name up to its colon)."""
    lines = [
        "\t".join([name, name.split(":", 1)[0], *members]) for name, members in gene_sets.items()
    ]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def read_gmt(path: Path) -> dict[str, tuple[str, ...]]:
    """Read what `write_gmt` wrote, as it is; a file without lines is no sets.

    Raises
    ------
    InputError
        For a line of fewer than three columns, and a set that is there twice.
    """
    return dict(_gmt_lines(Path(path))) if Path(path).stat().st_size else {}


def _gmt_lines(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    seen: set[str] = set()
    for number, text in numbered_lines(path):
        if not text.strip():
            continue
        name, *fields = (field.strip() for field in text.split("\t"))
        genes = tuple(dict.fromkeys(field for field in fields[1:] if field))
        if not genes or not name:
            found = f"{len(fields) + 1} tab-separated columns"
            raise InputError(found, "name, description, genes", path=path, line=number)
        if name in seen:
            raise InputError(f"set {name!r} twice", "each set once", path=path, line=number)
        seen.add(name)
        yield name, genes


def _gaf_pairs(path: Path, codes: set[str]) -> Iterator[tuple[str, str]]:
    """GO id and gene of every line that counts; its evidence code is added to `codes`."""
    for number, text in numbered_lines(path):
        if not text.strip() or text.startswith("!"):
            continue
        fields = text.split("\t")
        if len(fields) < 15:
            raise InputError(f"{len(fields)} columns", "GAF's 17", path=path, line=number)
        if not fields[4].strip():
            raise InputError("an empty GO id", "GO:…", path=path, line=number)
        if "NOT" not in fields[3].split("|") and evidence_of(fields[6]) != "expression":
            codes.add(fields[6])
            yield fields[4].strip(), fields[2]


def _table_pairs(path: Path) -> Iterable[tuple[str, str]]:
    table = read_table(path)
    if len(table.columns) != 2:
        raise InputError(f"{len(table.columns)} columns", "2 (gene, set)", path=path, line=1)
    columns = find_columns(table, SET_NAMES, path=path)
    for part, column in columns.items():
        table[column] = table[column].str.split().str.join(" ")
        refuse_empty(table, column, part, "a name", path)
    return zip(table[columns["set"]], table[columns["gene"]], strict=True)

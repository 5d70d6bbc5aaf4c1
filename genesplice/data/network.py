"""Regulatory edges, as databases write them, matched to the genes of the annotation."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from genesplice.data import tables
from genesplice.errors import InputError, require

NETWORK_COLUMNS = ("source", "target", "sign", "kind", "provenance")
SIGNS = {
    "+": 1, "1": 1, "+1": 1, "1.0": 1, "activator": 1, "activation": 1, "activates": 1,
    "-": -1, "-1": -1, "-1.0": -1, "repressor": -1, "repression": -1, "represses": -1,
    "": 0, "0": 0, "0.0": 0, "?": 0, "+-": 0, "-+": 0, "dual": 0, "unknown": 0,
}  # fmt: skip
EDGE_NAMES = {
    "source": ("source", "regulator", "tf", "regulatorname", "regulatorygene", "protein1",
               "node1", "from"),
    "target": ("target", "gene_id", "gene", "regulatedname", "targetgene", "protein2", "node2",
               "to"),
    "sign": ("sign", "effect", "mode", "mor", "function", "weight"),
    "provenance": ("provenance", "evidence", "database", "confidencelevel"),
}  # fmt: skip
LAYOUTS = {
    "STRING": ("combined_score",),
    "DoRothEA": ("tf", "confidence", "target", "mor"),
    "RegulonDB": ("regulatorname", "regulatedname"),
    "GENIE3 or GRNBoost2": ("importance",),
    "GENIE3": ("regulatorygene", "targetgene", "weight"),
    "decoupleR (CollecTRI), weights are signs": ("source", "target", "weight"),
    "decoupleR, mor is the sign": ("source", "target", "mor"),
}
"""What writes a table of edges, by columns that it has."""
CHANNELS = {
    "neighborhood": "neighborhood", "fusion": "fusion", "cooccur": "sequence (co-occurrence)",
    "homology": "homology", "coexpression": "coexpression", "experiment": "experiments",
    "database": "database", "textmining": "textmining",
}  # fmt: skip
"""Part of the name of a column of STRING, and the evidence that it is."""
STRING_LEAST = 0.4
"""What STRING calls medium confidence."""
DOROTHEA_KEPT = ("A", "B", "C")
"""Levels of several kinds of evidence; D, E have one, be it expression (Garcia-Alonso 2019)."""
CONFIDENCE = {"c": "confirmed", "s": "strong", "w": "weak"}
PROTEINS = {"ihf": ("ihfA", "ihfB"), "hu": ("hupA", "hupB"), "h-ns": ("hns",), "bccp": ("accB",),
            "hipab": ("hipA", "hipB"), "csqr": ("yihW",)}  # fmt: skip
"""Regulators that RegulonDB names by their protein: the genes of its subunits."""


class NetworkReading(NamedTuple):
    """Edges, the names that are no genes, and how the file was read."""

    edges: pd.DataFrame
    unmatched_regulators: tuple[str, ...]
    unmatched_targets: tuple[str, ...]
    notes: tuple[str, ...] = ()


def gene_aliases(genes: pd.DataFrame) -> dict[str, str]:
    """Map lower-case gene ids and names to gene ids; a name that two genes share is left out."""
    ids = genes["gene_id"]
    names = tables.unique_owners(zip(genes["name"].astype(str), ids, strict=True))
    return names | tables.unique_owners(zip(ids, ids, strict=True))


def read_network(path: Path, genes: pd.DataFrame, aliases: Mapping[str, str]) -> NetworkReading:
    """Read regulator→target edges: columns `source, target, sign, kind, provenance`.

    The table has a source, a target and optionally a sign and a provenance, by any of
    `EDGE_NAMES`, or in this order without a header. `LAYOUTS` of databases are known by their
    columns. STRING is undirected (edges both ways, from `STRING_LEAST` on); of DoRothEA the
    levels `DOROTHEA_KEPT` are read; RegulonDB may name its columns in comments; YEASTRACT's
    matrix has regulators in rows, targets in columns, and 0 or 1.

    A name is matched to a gene by id, name or alias whatever its case. A regulator made of
    several genes ("flhD;flhC", "FlhDC", "GadE-RcsB") gives one edge from each. A regulator that
    is no gene (a metabolite, a tRNA) keeps its name as source; an edge to a target that is no
    gene is left out. `sign` is 1, -1, or 0 for both or unknown; where one regulator has edges of
    both signs to one target, they become one edge of sign 0. `provenance` is the declared
    evidence, empty where the file declares none.

    Raises
    ------
    InputError
        For a missing column, an unknown sign or an empty name (with the line), or when fewer
        than half of the targets are genes.
    """
    table = tables.read_table(path, names=partial(_columns_without_header, aliases), blanks=True)
    notes = [table.attrs["separated"]] if "separated" in table.attrs else []
    is_matrix = len(table.columns) > 3 and {"target", "sign"}.isdisjoint(table.columns)
    if is_matrix and table.iloc[:, 1:].isin(["0", "1", ""]).all(axis=None):
        notes.append("matrix of YEASTRACT: regulators in rows, targets in columns, no signs")
        pairs = table.melt(table.columns[0], var_name="target", value_name="sign")
        edges = pairs[pairs["sign"] == "1"].set_axis(["source", "target", "sign"], axis=1)
        edges = edges.assign(sign="", provenance="")
    else:
        edges = _edges(table, path, notes)
    weights = np.sign(pd.to_numeric(edges["sign"], errors="coerce"))
    signs = edges["sign"].str.lower().map(SIGNS).fillna(weights)
    if signs.isna().any():
        wrong, expected = signs.index[signs.isna()][0], "+, -, +- or ? (or 1, -1, 0, or nothing)"
        found, line = f"effect {edges['sign'][wrong]!r}", tables.line_of(table, wrong)
        raise InputError(found, expected, path=path, line=line)
    is_regulondb = any("RegulonDB" in note for note in notes)
    reading = make_network(edges.assign(sign=signs), aliases, PROTEINS if is_regulondb else None)
    refuse_strangers(reading.unmatched_targets, edges["target"].nunique(), "targets", genes, path)
    notes = [f"{path.name}: {note}" for note in notes]
    notes.append(tables.counted("regulators that are no genes keep their name", reading[1]))
    notes.append(tables.counted("targets that are no genes are left out", reading[2]))
    return reading._replace(notes=tuple(notes))


def _columns_without_header(
    aliases: Mapping[str, str], row: list[str], comments: list[str]
) -> list[str]:
    """Columns of a table that begins with an edge; RegulonDB numbers them in its comments."""
    if re.match(r"\s*\d+\)", row[0]):
        return []
    numbered = (re.match(r"#+\s*\(\d+\)\s*(.+)", line) for line in comments)
    texts = [found[1].strip().lower() for found in numbered if found]
    if len(texts) == len(row):
        parts = list(map(_regulondb_part, texts))
        return [part if parts.index(part) == i else texts[i] for i, part in enumerate(parts)]
    cells = [cell.strip().lower() for cell in row]
    known = {name for names in EDGE_NAMES.values() for name in names}
    is_edge = known.isdisjoint(cells) and not aliases.keys().isdisjoint(cells[:2])
    return list(EDGE_NAMES)[: len(row)] if is_edge and 2 <= len(row) <= 4 else []


def _regulondb_part(text: str) -> str:
    """Column that RegulonDB describes as, say, "Gene regulated by the TF (regulated gene)"."""
    if re.search(r"\bid\b|identifier|pmid", text):
        return text
    words = {"effect|function": "function", "evidence type|confidence": "confidencelevel",
             "evidence": "evidence", "gene": "regulatedname",
             "tf|factor|regulator": "regulatorname"}  # fmt: skip
    return next((part for pattern, part in words.items() if re.search(pattern, text)), text)


def _edges(table: pd.DataFrame, path: Path, notes: list[str]) -> pd.DataFrame:
    """Columns `source, target, sign, provenance` as text; what a layout means is in `notes`."""
    table = table.rename(columns=lambda name: re.sub(r"^(\s*\d+\)|#)\s*", "", str(name)).strip())
    lower = {name.lower(): name for name in table}
    columns = tables.find_columns(table, EDGE_NAMES, path=path, optional=("sign", "provenance"))
    layout = next((name for name, has in LAYOUTS.items() if lower.keys() >= {*has}), "")
    for part in ("source", "target"):
        tables.refuse_empty(table, columns[part], part, "a name", path)
    edges = pd.DataFrame("", table.index, list(EDGE_NAMES))
    for part, column in columns.items():
        edges[part] = table[column].str.strip()
    n_edges = len(edges)
    if layout == "STRING":
        edges = string_edges(edges, table.rename(columns=str.lower), path)
        layout += f", undirected, scores of {STRING_LEAST * 1000:.0f} of 1000 or more"
    elif layout == "DoRothEA":
        level = table[lower["confidence"]].str.strip()
        edges = edges.assign(provenance="curated (DoRothEA " + level + ")")
        edges = edges[level.isin(DOROTHEA_KEPT)]
        layout += f", levels {', '.join(DOROTHEA_KEPT)}, mor is the sign"
    elif layout == "RegulonDB":
        if "regulatorgenename" in lower:
            genes = table[lower["regulatorgenename"]].str.strip()
            edges["source"] = genes.where(genes != "", edges["source"])
        declared = edges["provenance"].str.lower()
        codes = declared.str.findall(r"\[([\w-]+)\|").str.join("; ").str.upper()
        level = declared.replace(CONFIDENCE)
        curated = ("curated (RegulonDB, " + level + ")").where(level != "", "curated (RegulonDB)")
        is_level = level.isin(["", *CONFIDENCE.values()])
        edges["provenance"] = codes.where(codes != "", curated.where(is_level, level))
    elif "GENIE3" in layout:
        layout += ", weights are no signs, inferred from expression"
        edges = edges.assign(sign="", provenance="expression (GENIE3 or GRNBoost2)")
    elif columns.get("sign", "").lower() == "weight":
        weights = pd.to_numeric(edges["sign"], errors="coerce")
        if (weights >= 0).all() and not weights.isin([0, 1]).all():
            layout, edges["sign"] = "weights without a minus are scores, no signs", ""
    if len(edges) < n_edges:
        layout += f": {len(edges)} of {n_edges} edges"
    if layout:
        notes.append(layout if layout.startswith("weights") else f"layout of {layout}")
    turned = edges.rename(columns={"source": "target", "target": "source"})
    return pd.concat([edges, turned]) if layout.startswith("STRING") else edges


def string_edges(edges: pd.DataFrame, table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Edges of STRING, with the channels that they rest on as provenance.

    `edges` has `source` and `target` of the rows of `table`, whose columns are STRING's.
    """
    score = pd.to_numeric(table["combined_score"], errors="coerce")
    if score.isna().any():
        line = tables.line_of(table, score.index[score.isna()][0])
        raise InputError("a combined_score that is no number", "0 to 1000", path=path, line=line)
    is_kept = score >= STRING_LEAST * (1000 if score.max() > 1 else 1)
    edges, table = edges[is_kept].assign(sign=""), table[is_kept]
    for column in ("source", "target"):
        edges[column] = edges[column].str.replace(r"^\d+\.", "", regex=True)
    channels = {name: kind for name in table for part, kind in CHANNELS.items() if part in name}
    edges["provenance"] = "" if channels else "combined score, coexpression among its channels"
    for kind in dict.fromkeys(channels.values()):
        here = table[[name for name in channels if channels[name] == kind]]
        has = here.apply(pd.to_numeric, errors="coerce").gt(0).any(axis=1)
        joined = edges["provenance"].where(edges["provenance"] == "", edges["provenance"] + "; ")
        edges["provenance"] = edges["provenance"].where(~has, joined + kind)
    return edges


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
        regulators = _genes_of(source, aliases, complexes)
        if not regulators:
            lost_sources[source] += 1
        for regulator in regulators or [source]:
            signs, declared = merged.setdefault((regulator, gene), (set(), {}))
            signs.add(int(sign))
            declared[provenance] = None
    rows = [
        (source, target, signs.pop() if len(signs) == 1 else 0, "regulates", "; ".join(declared))
        for (source, target), (signs, declared) in merged.items()
    ]
    frame = pd.DataFrame(rows, columns=list(NETWORK_COLUMNS)).astype({"sign": "int8"})
    return NetworkReading(frame, tuple(lost_sources), tuple(lost_targets))


def _genes_of(
    name: str, aliases: Mapping[str, str], complexes: Mapping[str, tuple[str, ...]]
) -> list[str]:
    """Genes that a regulator is made of, or none: "araC", "flhD;flhC", "FlhDC", "Abf1p"."""
    operon = re.fullmatch(r"([A-Za-z]{3})([A-Z]{2,4})", name)
    for parts in (
        complexes.get(name.lower()) or re.split(r"[;,/]", name),
        re.split("[-_]", name.removeprefix("COMPLEX:")),
        [operon[1] + letter for letter in operon[2]] if operon else (),
        [name.removesuffix("p")],
    ):
        ids = [aliases.get(part.strip().lower(), "") for part in parts]
        if ids and all(ids):
            return ids
    return []


def refuse_strangers(
    lost: Collection[str], n_names: int, what: str, genes: pd.DataFrame, path: Path
) -> None:
    """Raise an `InputError` if most of the names are no genes."""
    require(n_names, f"no {what}", "at least one", path)
    found = f"{len(lost)} of {n_names} {what} that are no genes ({', '.join(list(lost)[:3])})"
    expected = f"gene ids or names such as {', '.join(genes['gene_id'][:3])}"
    require(2 * len(lost) <= n_names, found, expected, path)


# --- binding sites of regulators: matrices of transcription factors ---


def read_meme(path: Path) -> dict[str, Float[np.ndarray, "length 4"]]:
    """Read motifs as probabilities, rows are positions and columns A, C, G, T.

    A motif keeps its name; the alternative name after it is dropped. Rows are divided by their
    sum, so that they add up to 1 beyond the digits written in the file.

    Raises
    ------
    InputError
        If the file is no MEME text, holds another alphabet, names a motif twice, or a row is
        not four probabilities that add up to 1 within 0.02.

    Source: Bailey et al. 2015, "The MEME Suite", minimal motif format.
    """
    motifs: dict[str, list[list[float]]] = {}
    rows: list[list[float]] | None = None
    in_matrix = has_version = False
    for number, text in tables.numbered_lines(path):
        words = text.split()
        if text.startswith("MEME version"):
            has_version = True
        elif text.startswith("ALPHABET"):
            letters = text.split("=", 1)[-1].strip()
            require(letters == "ACGT", f"alphabet {letters!r}", "ACGT", path, number)
        elif words and words[0] == "MOTIF":
            if len(words) < 2 or words[1] in motifs:
                what = "a motif without a name" if len(words) < 2 else f"motif {words[1]!r} twice"
                raise InputError(what, "each motif once", path=path, line=number)
            rows, in_matrix = motifs.setdefault(words[1], []), False
        elif text.startswith("letter-probability matrix"):
            require(rows is not None, "a matrix", "a MOTIF line before it", path, number)
            in_matrix = True
        elif in_matrix and rows is not None and words:
            row = [one for one in map(tables.as_number, words) if one is not None]
            if tables.as_number(words[0]) is None and (words[0][0].isalpha() or words[0][0] == "-"):
                in_matrix = False
                continue
            is_fine = len(row) == len(words) == 4 and min(row) >= 0 and abs(sum(row) - 1) <= 0.02
            expected = "four probabilities that add up to 1"
            require(is_fine, f"the row {' '.join(words)[:60]!r}", expected, path, number)
            rows.append(row)
    require(has_version, "no 'MEME version' line", "MEME motif text", path)
    empty = [name for name, matrix in motifs.items() if not matrix]
    found = f"motif {empty[0]!r} without a matrix" if empty else "no motif"
    require(not empty and motifs, found, "a letter-probability matrix", path)
    arrays = {name: np.array(matrix, dtype=np.float64) for name, matrix in motifs.items()}
    return {name: array / array.sum(axis=1, keepdims=True) for name, array in arrays.items()}


def write_meme(path: Path, motifs: Mapping[str, Float[np.ndarray, "length 4"]]) -> None:
    """Write motifs so that `read_meme` gives them back (6 decimals)."""
    lines = ["MEME version 4", "", "ALPHABET= ACGT", "", "strands: + -", ""]
    for name, matrix in motifs.items():
        lines += [f"MOTIF {name}", "", f"letter-probability matrix: alength= 4 w= {len(matrix)}"]
        lines += ["  " + "\t".join(f"{value:.6f}" for value in row) for row in matrix] + [""]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")

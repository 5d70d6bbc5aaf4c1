"""Gene sets from GMT, GAF with OBO, and tables: matched to genes, under names that people read."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from genesplice.data import tables
from genesplice.data.leakage import evidence_of
from genesplice.data.network import refuse_strangers
from genesplice.errors import require
from genesplice.runtime import atomic_file

SET_NAMES = {"gene": ("gene", "gene_id"), "set": ("set", "pathway", "term", "gene_set", "go")}
GAF_IDS = ("DB_Object_ID", "DB_Object_Symbol", "DB_Object_Synonym")
KEGG_ID = re.compile(r"(?:KEGG:)?(?:path:)?(?:ko|[a-z]{3,4})(\d{5})")


class GeneSetReading(NamedTuple):
    """Gene sets, and the evidence they declare ("" for none).

    `names` has what people read for ids of sets where it is known, `notes` how the file was read.
    """

    gene_sets: dict[str, tuple[str, ...]]
    evidence: str
    names: dict[str, str]
    notes: tuple[str, ...]


class _Term(NamedTuple):
    """A term of GO: its name, and what it is, or is part of."""

    name: str
    parents: tuple[str, ...]


def read_gene_sets(
    path: Path, genes: pd.DataFrame, aliases: Mapping[str, str], obo: Path | None = None
) -> GeneSetReading:
    """Read gene sets from GMT, GAF or two columns (gene, set; in any order if without a header).

    Names are matched to genes by id, name or alias whatever their case; what matches none is
    left out, and so are sets that end up empty. Of GAF's three columns with names of a gene the
    one that matches most is read. Annotations with NOT are left out, and so are those whose
    evidence is expression (IEP, HEP); the other codes are the evidence.

    Parameters
    ----------
    obo
        The Gene Ontology: its terms get their names, and the genes of terms that are them, or
        part of them.

    Raises
    ------
    InputError
        For lines that do not fit the format, and when fewer than half of the names are genes.
    """
    evidence, words, notes = "", dict[str, str](), list[str]()
    if tables.plain_suffix(path) == ".gmt":
        lines = list(_gmt_lines(path))
        words = {name: text for name, text, _ in lines}
        pairs = [(name, gene) for name, _, ids in lines for gene in ids]
    elif tables.plain_suffix(path) == ".gaf":
        pairs, evidence = _gaf_pairs(path, aliases, notes)
    else:
        pairs = list(_table_pairs(path, aliases))
    terms = read_obo(obo) if obo is not None else {}
    members: dict[str, dict[str, None]] = defaultdict(dict)
    lost: Counter[str] = Counter()
    for name, gene in pairs:
        gene_id = aliases.get(gene.lower()) or aliases.get(re.sub("^[a-z]+:", "", gene.lower()))
        if gene_id is None:
            lost[gene] += 1
            continue
        for term in _with_ancestors(name, terms):
            members[term][gene_id] = None
    refuse_strangers(lost, len({gene for _, gene in pairs}), "names", genes, path)
    if terms:
        notes.append("genes of a GO term are those of the terms below it (is_a, part_of)")
    notes.append(tables.counted("names in gene sets that are no genes are left out", lost))
    sets = {name: tuple(ids) for name, ids in members.items()}
    words |= {name: term.name for name, term in terms.items()}
    names = {name: known for name in sets if (known := set_name(name, words.get(name, "")))}
    return GeneSetReading(sets, evidence, names, tuple(notes))


def set_name(name: str, words: str = "") -> str:
    """What people read for the id of a set, "" if that is not known or the id is a name.

    Parameters
    ----------
    words
        What the file with the set says of it.

    Source: names of pathways as of https://www.kegg.jp/kegg/pathway.html, of COG's categories as
    of Galperin et al. 2021, both in `set_names.tsv`.
    """
    kegg = KEGG_ID.fullmatch(name)
    known = _known_names().get(kegg[1] if kegg else name, "")
    is_id = re.fullmatch(r"[A-Za-z-]+[:_]?[A-Za-z-]*[0-9]+", name)
    is_said = is_id and words not in (name, name.split(":", 1)[0]) and "://" not in words
    return known or (words if is_said else "")


@cache
def _known_names() -> dict[str, str]:
    lines = Path(__file__).with_name("set_names.tsv").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


def read_obo(path: Path) -> dict[str, _Term]:
    """Read the terms of an OBO file, those by an alternative id too.

    Raises
    ------
    InputError
        If there are none.
    """
    terms: dict[str, _Term] = {}
    for stanza in "\n".join(text for _, text in tables.numbered_lines(path)).split("\n[")[1:]:
        tags = re.findall(r"^(\w+): ([^!{\n]*[^!{\s])", stanza, flags=re.MULTILINE)
        values: dict[str, list[str]] = defaultdict(list)
        for tag, value in tags:
            values[tag].append(value)
        if not stanza.startswith("Term]") or not values["id"]:
            continue
        parts = (v.split()[1] for v in values["relationship"] if v.startswith("part_of "))
        parents = *(v.split()[0] for v in values["is_a"]), *parts
        for name in (*values["id"], *values["alt_id"]):
            terms[name] = _Term((values["name"] or [""])[0], parents)
    require(terms, "no [Term]", "an ontology in OBO", path)
    return terms


def _with_ancestors(name: str, terms: Mapping[str, _Term]) -> list[str]:
    found = {name: None}
    for term in (queue := [name]):
        for parent in terms[term].parents if term in terms else ():
            if parent not in found:
                found[parent] = None
                queue.append(parent)
    return list(found)


def write_gmt(
    path: Path, gene_sets: Mapping[str, Collection[str]], names: Mapping[str, str] | None = None
) -> None:
    """Write gene sets as GMT; the second column is the name, else the collection."""
    called = names or {}
    lines = [
        "\t".join([name, called.get(name) or name.split(":", 1)[0], *members])
        for name, members in gene_sets.items()
    ]
    with atomic_file(path) as partial:
        partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def read_gmt(path: Path) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Read what `write_gmt` wrote: sets, and by their ids the names of those that have one.

    A file without lines is no sets.

    Raises
    ------
    InputError
        For a line of fewer than three columns, and a set that is there twice.
    """
    lines = list(_gmt_lines(path)) if path.stat().st_size else []
    names = {name: words for name, words, _ in lines if words != name.split(":", 1)[0]}
    return {name: ids for name, _, ids in lines}, names


def _gmt_lines(path: Path) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    seen: set[str] = set()
    for number, text in tables.numbered_lines(path):
        if not text.strip():
            continue
        name, *fields = (field.strip() for field in text.split("\t"))
        genes = tuple(dict.fromkeys(field for field in fields[1:] if field))
        expected = "name, description, genes"
        require(genes and name, f"{len(fields) + 1} tab-separated columns", expected, path, number)
        require(name not in seen, f"set {name!r} twice", "each set once", path, number)
        seen.add(name)
        yield name, fields[0], genes


def _gaf_pairs(
    path: Path, aliases: Mapping[str, str], notes: list[str]
) -> tuple[list[tuple[str, str]], str]:
    """GO id and gene of every line that counts, and the codes of their evidence."""
    rows: list[tuple[str, tuple[str, ...]]] = []
    codes: set[str] = set()
    n_denied = n_expression = 0
    for number, text in tables.numbered_lines(path):
        if not text.strip() or text.startswith("!"):
            continue
        fields = text.split("\t")
        require(len(fields) >= 15, f"{len(fields)} columns", "GAF's 17", path, number)
        require(fields[4].strip(), "an empty GO id", "GO:…", path, number)
        if "NOT" in fields[3].split("|"):
            n_denied += 1
        elif evidence_of(fields[6]) == "expression":
            n_expression += 1
        else:
            codes.add(fields[6])
            synonyms = fields[10].split("|")
            known = next((name for name in synonyms if name.lower() in aliases), synonyms[0])
            rows.append((fields[4].strip(), (fields[1], fields[2], known)))
    matched = [sum(names[i].lower() in aliases for _, names in rows) for i in range(len(GAF_IDS))]
    best = max((1, 0, 2), key=matched.__getitem__)
    notes.append(f"{path.name}: genes by {GAF_IDS[best]}, {matched[best]} of {len(rows)} lines")
    notes.append(f"{path.name}: left out, NOT: {n_denied}; evidence expression: {n_expression}")
    return [(term, names[best]) for term, names in rows], "; ".join(sorted(codes))


def _table_pairs(path: Path, aliases: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    def without_header(row: list[str], _: list[str]) -> list[str]:
        is_gene = [re.sub("^[a-z]+:", "", cell.strip().lower()) in aliases for cell in row]
        if sorted(is_gene) != [False, True]:
            return []
        return ["gene", "set"] if is_gene[0] else ["set", "gene"]

    table = tables.read_table(path, names=without_header)
    require(len(table.columns) == 2, f"{len(table.columns)} columns", "2 (gene, set)", path, 1)
    columns = tables.find_columns(table, SET_NAMES, path=path)
    for part, column in columns.items():
        table[column] = table[column].str.split().str.join(" ")
        tables.refuse_empty(table, column, part, "a name", path)
    return zip(table[columns["set"]], table[columns["gene"]], strict=True)

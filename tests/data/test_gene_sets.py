"""Gene sets: formats, names that people read, ancestors, and what is refused."""

import os
import subprocess
import sys

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_files import refusal, write

from genesplice.data.gene_sets import (
    read_gene_sets,
    read_gmt,
    read_obo,
    set_name,
    write_gmt,
)
from genesplice.data.network import gene_aliases

GENES = pd.DataFrame(
    {"gene_id": ["b1", "b2", "b3", "b4", "b5"], "name": ["lacI", "lacZ", "flhD", "flhC", "lacZ"]}
)


def gaf(gene="lacI", term="GO:1", evidence="IDA", relation="enables") -> str:
    fields = ["DB", "id", gene, relation, term, "ref", evidence, *"abcdefghij"]
    return "\t".join(fields) + "\n"


# --- formats ---


def test_names_that_are_no_genes_are_told(tmp_path):
    path = write(tmp_path / "s.gmt", "a\t\tb1\tb2\tno\nb\t\tno\n")
    reading = read_gene_sets(path, GENES, gene_aliases(GENES))
    assert reading.gene_sets == {"a": ("b1", "b2")}
    assert reading.notes == ("names in gene sets that are no genes are left out: 1 (no)",)
    assert reading.evidence == ""


def test_gaf_leaves_out_what_is_denied_or_seen_in_expression(tmp_path):
    text = (
        gaf("b1", "GO:1")
        + gaf("b2", "GO:1", evidence="IEP")
        + gaf("b3", "GO:1", evidence="HEP")
        + gaf("b4", "GO:1", relation="NOT|enables")
        + gaf("b5", "GO:1", evidence="IEA")
    )
    reading = read_gene_sets(write(tmp_path / "s.gaf", text), GENES, gene_aliases(GENES))
    assert reading.gene_sets == {"GO:1": ("b1", "b5")}
    assert reading.evidence == "IDA; IEA"


def test_blanks_in_set_names_do_not_break_the_written_sets(tmp_path):
    text = 'gene,set\nb1, a b\nb2,a b \nb3,"a\tb"\nb4,"a\nb"\n'
    sets = read_gene_sets(write(tmp_path / "s.csv", text), GENES, gene_aliases(GENES)).gene_sets
    assert sets == {"a b": ("b1", "b2", "b3", "b4")}


set_names = st.from_regex(r"[A-Z]{2,5}:[a-z0-9 ]{0,8}[a-z0-9]", fullmatch=True)
set_members = st.lists(st.from_regex(r"[a-z][0-9]{1,3}", fullmatch=True), min_size=1, unique=True)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(set_names, set_members.map(tuple), max_size=5))
def test_gmt_gives_back_what_was_written(tmp_path_factory, sets):
    path = tmp_path_factory.mktemp("gmt") / "s.gmt"
    write_gmt(path, sets)
    assert read_gmt(path)[0] == sets


def test_letters_of_any_alphabet_survive_any_locale(tmp_path):
    code = (
        "from genesplice.data.gene_sets import *; from pathlib import Path; import sys; "
        "p = Path(sys.argv[1]); write_gmt(p, *read_gmt(p))"
    )
    path = write(tmp_path / "s.gmt", "\ufeffβ-oxidation\tx\tb1\tb2\n")
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, str(path)], env=env, check=True)
    assert read_gmt(path)[0] == {"β-oxidation": ("b1", "b2")}


def test_ecoli_gene_sets_hold_known_genes(ecoli):
    genes = set(ecoli.genes["gene_id"])
    assert all(set(members) <= genes for members in ecoli.gene_sets.values())
    assert min(len(members) for members in ecoli.gene_sets.values()) >= 3
    assert "b0344" in ecoli.gene_sets["COG:Carbohydrate transport and metabolism"]
    assert {name.split(":")[0] for name in ecoli.gene_sets} == {"GO", "KEGG", "COG"}


# --- names that people read ---


@pytest.mark.parametrize(
    ("name", "words", "read"),
    [
        ("KEGG:ko00010", "", "Glycolysis / Gluconeogenesis"),
        ("eco02030", "", "Bacterial chemotaxis"),
        ("path:map00020", "KEGG", "Citrate cycle (TCA cycle)"),
        ("COG:J", "", "Translation, ribosomal structure and biogenesis"),
        ("GO:0006096", "glycolytic process", "glycolytic process"),
        ("R-HSA-70171", "Glycolysis", "Glycolysis"),
        ("GO:0006096", "http://x.org/GO:0006096", ""),
        ("GO:0006096", "GO", ""),
        ("KEGG:ko99999", "", ""),
        ("heat shock", "from a paper", ""),
    ],
)
def test_ids_have_the_names_that_people_read(name, words, read):
    assert set_name(name, words) == read


def test_names_of_sets_are_written_beside_them(tmp_path):
    sets, names = {"GO:1": ("b1",), "KEGG:a": ("b2", "b3")}, {"GO:1": "growth"}
    write_gmt(tmp_path / "s.gmt", sets, names)
    assert read_gmt(tmp_path / "s.gmt") == (sets, names)
    assert read_gene_sets(tmp_path / "s.gmt", GENES, gene_aliases(GENES)).names == names


OBO = """format-version: 1.2
[Term]
id: GO:1
name: growth ! of cells
alt_id: GO:11
is_a: GO:2 {source="x"} ! whole
relationship: part_of GO:3 ! part
relationship: regulates GO:4 ! not followed

[Term]
id: GO:2
name: whole
is_a: GO:5 ! root

[Term]
id: GO:3
name: part

[Term]
id: GO:5
name: root

[Typedef]
id: part_of
name: part of
"""


@pytest.mark.parametrize("written", ["GO:1", "GO:11"])
def test_ontology_gives_names_and_the_genes_of_terms_below(tmp_path, written):
    obo = write(tmp_path / "go.obo", OBO)
    path = write(tmp_path / "s.gaf", gaf("b1", written) + gaf("b2", "GO:2") + gaf("b3", "GO:9"))
    reading = read_gene_sets(path, GENES, gene_aliases(GENES), obo=obo)
    assert reading.gene_sets == {
        written: ("b1",), "GO:2": ("b1", "b2"), "GO:3": ("b1",), "GO:5": ("b1", "b2"),
        "GO:9": ("b3",),
    }  # fmt: skip
    assert reading.names == {written: "growth", "GO:2": "whole", "GO:3": "part", "GO:5": "root"}
    assert refusal(read_obo, write(tmp_path / "bad.obo", "x\n")).found == "no [Term]"


@pytest.mark.parametrize(
    ("at", "name", "said"),
    [
        (1, "b1", "DB_Object_ID"),
        (2, "laci", "DB_Object_Symbol"),
        (10, "x|lacI", "DB_Object_Synonym"),
    ],
)
def test_gaf_is_read_by_the_column_that_matches_most(tmp_path, at, name, said):
    fields = ["DB", "id", "symbol", "", "GO:1", "ref", "IDA", "", "P", "", "syn", *"abcdef"]
    fields[at] = name
    line = "\t".join(fields) + "\n"
    text = line + line.replace("IDA", "IEP") + line.replace("\t\tGO:1", "\tNOT|x\tGO:1")
    reading = read_gene_sets(write(tmp_path / "s.gaf", text), GENES, gene_aliases(GENES))
    assert reading.gene_sets == {"GO:1": ("b1",)}
    assert reading.notes[0] == f"s.gaf: genes by {said}, 1 of 1 lines"
    assert reading.notes[1] == "s.gaf: left out, NOT: 1; evidence expression: 1"


def test_links_of_kegg_need_no_header(tmp_path):
    for text in ("eco:b1\tpath:eco00010\n", "path:eco00010\teco:b1\n"):
        reading = read_gene_sets(write(tmp_path / "s.tsv", text), GENES, gene_aliases(GENES))
        assert reading.gene_sets == {"path:eco00010": ("b1",)}

"""Edges: names matched to genes, signs merged, and what is refused."""

import gzip

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_files import write

from genesplice.data.leakage import evidence_of
from genesplice.data.network import (
    NETWORK_COLUMNS,
    gene_aliases,
    make_network,
    read_network,
)

GENES = pd.DataFrame(
    {"gene_id": ["b1", "b2", "b3", "b4", "b5"], "name": ["lacI", "lacZ", "flhD", "flhC", "lacZ"]}
)


def rows(edges):
    assert tuple(edges.columns) == NETWORK_COLUMNS
    return [tuple(row) for row in edges[["source", "target", "sign"]].itertuples(index=False)]


def network(tmp_path, text, name="n.tsv"):
    return read_network(write(tmp_path / name, text), GENES, gene_aliases(GENES))


# --- names ---


def test_names_match_whatever_their_case_and_shared_names_match_nothing():
    assert gene_aliases(GENES) == {
        "laci": "b1", "flhd": "b3", "flhc": "b4",
        "b1": "b1", "b2": "b2", "b3": "b3", "b4": "b4", "b5": "b5",
    }  # fmt: skip


def test_id_of_one_gene_wins_over_the_name_of_another():
    genes = pd.DataFrame({"gene_id": ["a", "b"], "name": ["b", "x"]})
    assert gene_aliases(genes)["b"] == "b"


# --- edges ---


def test_edges_point_from_regulator_to_target_with_their_sign(tmp_path):
    reading = network(tmp_path, "source\ttarget\tsign\nlacI\tb2\t-\nb3\tLACI\t+\nB4\tb2\t\n")
    assert rows(reading.edges) == [("b1", "b2", -1), ("b3", "b1", 1), ("b4", "b2", 0)]
    assert set(reading.edges["kind"]) == {"regulates"}
    assert set(reading.edges["provenance"]) == {""}
    assert (reading.unmatched_regulators, reading.unmatched_targets) == ((), ())


@pytest.mark.parametrize(
    "header",
    [
        "regulator,gene_id,effect,evidence",
        "TF,gene,Mode,database",
        "from,to,sign,provenance",
        "source,target,weight,evidence",
        "source,target,mor,evidence",
    ],
)
def test_columns_go_by_other_names(tmp_path, header):
    reading = network(tmp_path, f"{header}\nb1,b2,-,binding of TFs\n", "n.csv")
    assert reading.edges.to_dict("records") == [
        {"source": "b1", "target": "b2", "sign": -1, "kind": "regulates",
         "provenance": "binding of TFs"}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "sign"),
    [("+", 1), ("Activator", 1), ("1", 1), ("-", -1), ("repressor", -1), ("-1.0", -1),
     ("+-", 0), ("?", 0), ("dual", 0), (" ", 0), ("0", 0), ("0.7", 1), ("-2.5e-1", -1)],
)  # fmt: skip
def test_signs_are_read_in_words_and_numbers(tmp_path, written, sign):
    reading = network(tmp_path, f"source\ttarget\tsign\nb1\tb2\t{written}\n")
    assert rows(reading.edges) == [("b1", "b2", sign)]


def test_both_signs_of_one_pair_become_one_edge_of_sign_0(tmp_path):
    text = "tf,gene,sign,evidence\nb1,b2,+,chip\nlacI,b2,-,motif\nb1,b3,+,x\nb1,b3,+,x\n"
    reading = network(tmp_path, text, "n.csv")
    assert rows(reading.edges) == [("b1", "b2", 0), ("b1", "b3", 1)]
    assert reading.edges["provenance"].tolist() == ["chip; motif", "x"]


def test_complex_gives_an_edge_from_each_of_its_genes(tmp_path):
    reading = network(tmp_path, "tf\tgene\nflhD;flhC\tb2\nflhD ; nobody\tb2\n")
    assert rows(reading.edges) == [("b3", "b2", 0), ("b4", "b2", 0), ("flhD ; nobody", "b2", 0)]
    assert reading.unmatched_regulators == ("flhD ; nobody",)


def test_named_complexes_stand_for_their_genes():
    edges = pd.DataFrame({"source": ["FlhDC"], "target": ["b2"], "sign": [1], "provenance": ["p"]})
    reading = make_network(edges, gene_aliases(GENES), {"flhdc": ("flhD", "flhC")})
    assert rows(reading.edges) == [("b3", "b2", 1), ("b4", "b2", 1)]


def test_regulator_that_is_no_gene_keeps_its_name_and_such_a_target_is_left_out(tmp_path):
    reading = network(tmp_path, "tf\tgene\nppGpp\tb2\nb1\tb3\nb1\tnothing\n")
    assert rows(reading.edges) == [("ppGpp", "b2", 0), ("b1", "b3", 0)]
    assert reading.unmatched_regulators == ("ppGpp",)
    assert reading.unmatched_targets == ("nothing",)


def test_given_aliases_replace_those_of_the_genes(tmp_path):
    path = write(tmp_path / "n.tsv", "tf\tgene\nECK1\tECK2\n")
    edges = read_network(path, GENES, {"eck1": "b1", "eck2": "b2"}).edges
    assert rows(edges) == [("b1", "b2", 0)]


# --- as databases write them ---


REGULONDB = """## LICENSE\tall rights
# Columns:
# (1) Transcription Factor (TF) ID
# (2) Transcription Factor (TF) Name
# (3) Gene ID
# (4) Gene regulated by the TF (regulated gene)
# (5) Regulatory effect of the TF on the regulated gene (+ activator, - repressor, ? unknown)
# (6) Evidence that supports the existence of the regulatory interaction
# (7) Evidence Type [Weak, Strong, Confirmed]
T1\tLacI\tG1\tlacI\t-\t[BCE|W|Binding of cellular extracts],[BPP|S|Binding of protein]\tStrong
T2\tFlhDC\tG2\tb5\t+-\t[GEA|W|Gene expression analysis]\tWeak
T3\tIHF\tG3\tb2\t?\t\t
"""


@pytest.mark.parametrize(
    ("name", "text", "edges", "evidence", "said"),
    [
        ("c.csv", "source,target,weight\nlacI,b2,-1\nlacI,b3,1.0\n",
         [("b1", "b2", -1), ("b1", "b3", 1)], ["unknown"] * 2, "weights are signs"),
        ("c.csv", "source,target,weight\nlacI,b2,0.1\nlacI,b3,1\n",
         [("b1", "b2", 0), ("b1", "b3", 0)], ["unknown"] * 2, "scores, no signs"),
        ("c.csv", "source,target,mor,resources\nCOMPLEX:flhD_flhC,b2,-1,x\n",
         [("b3", "b2", -1), ("b4", "b2", -1)], ["unknown"] * 2, "mor is the sign"),
        ("d.csv", "tf,confidence,target,mor\nlacI,A,b2,-1\nlacI,C,b3,1\nlacI,D,b4,1\n",
         [("b1", "b2", -1), ("b1", "b3", 1)], ["curated"] * 2, "levels A, B, C, mor"),
        ("r.tsv", REGULONDB, [("b1", "b1", -1), ("b3", "b5", 0), ("b4", "b5", 0), ("IHF", "b2", 0)],
         ["binding", "expression", "expression", "curated"], "layout of RegulonDB"),
        ("r.tsv", "# x\ty\n1)regulatorId\t2)regulatorName\t3)RegulatorGeneName\t4)regulatedId\t"
         "5)regulatedName\t6)function\t7)confidenceLevel\nR\tLacI\tflhD;flhC\tG\tb2\t-+\tC\n"
         "R\tppGpp\t\tG\tb2\t-\tW\n",
         [("b3", "b2", 0), ("b4", "b2", 0), ("ppGpp", "b2", -1)], ["curated"] * 3, "RegulonDB"),
        ("s.txt", "protein1 protein2 combined_score\n511145.b1 511145.b2 900\n"
         "511145.b2 511145.b1 900\n511145.b1 511145.b3 399\n",
         [("b1", "b2", 0), ("b2", "b1", 0)], ["expression"] * 2, "2 of 3 edges"),
        ("s.txt", "protein1 protein2 fusion coexpression experimental textmining_transferred "
         "combined_score\n1.b1 1.b2 0 0 500 0 500\n1.b1 1.b3 1 3 0 0 400\n1.b1 1.b4 9 0 0 0 400\n",
         [("b1", "b2", 0), ("b1", "b3", 0), ("b1", "b4", 0),
          ("b2", "b1", 0), ("b3", "b1", 0), ("b4", "b1", 0)],
         ["curated", "expression", "sequence"] * 2, "scores of 400 of 1000"),
        ("s.tsv", "#node1\tnode2\tdatabase_annotated\tcombined_score\nlacI\tflhD\t0.5\t0.41\n"
         "lacI\tflhC\t0.5\t0.39\n", [("b1", "b3", 0), ("b3", "b1", 0)], ["curated"] * 2, "1 of 2"),
        ("y.csv", ";b2;b3;b4;\nLacIp;1;0;1;\nflhD;0;1;0;\n",
         [("b1", "b2", 0), ("b3", "b3", 0), ("b1", "b4", 0)], ["unknown"] * 3, "YEASTRACT"),
        ("y.tsv", "LacIp;b2\nflhD;b3\n", [("b1", "b2", 0), ("b3", "b3", 0)], ["unknown"] * 2,
         "semicolons"),
        ("p.csv", "b1,b2,-\nb9,b3,+\n", [("b1", "b2", -1), ("b9", "b3", 1)], ["unknown"] * 2,
         "keep their name: 1 (b9)"),
        ("g.tsv", "TF\ttarget\timportance\nb1\tb2\t7.5\n", [("b1", "b2", 0)], ["expression"],
         "inferred from expression"),
        ("g.csv", "regulatoryGene,targetGene,weight\nb1,b2,0.5\n", [("b1", "b2", 0)],
         ["expression"], "weights are no signs"),
    ],
)  # fmt: skip
def test_layouts_of_databases_are_known_and_named(tmp_path, name, text, edges, evidence, said):
    reading = network(tmp_path, text, name)
    assert rows(reading.edges) == edges
    assert [evidence_of(declared) for declared in reading.edges["provenance"]] == evidence
    assert said in " | ".join(reading.notes)


def test_proteins_of_regulondb_stand_for_the_genes_of_their_subunits(tmp_path):
    genes = pd.DataFrame({"gene_id": ["b1", "b2", "b3"], "name": ["ihfA", "ihfB", "x"]})
    text = "regulatorName\tregulatedName\tfunction\nIHF\tx\t+\nihf\tx\t-\n"
    edges = read_network(write(tmp_path / "r.tsv", text), genes, gene_aliases(genes)).edges
    assert rows(edges) == [("b1", "b3", 0), ("b2", "b3", 0)]


def test_parquet_and_gzip_read_the_same(tmp_path):
    table = pd.DataFrame({"source": ["b1", "b2"], "target": ["b2", "b3"], "sign": [1, -1]})
    table.to_parquet(tmp_path / "n.parquet")
    text = table.to_csv(sep="\t", index=False)
    write(tmp_path / "n.tsv.gz", gzip.compress(text.encode()))
    for name in ("n.parquet", "n.tsv.gz"):
        assert rows(read_network(tmp_path / name, GENES, gene_aliases(GENES)).edges) == [
            ("b1", "b2", 1),
            ("b2", "b3", -1),
        ]


names = st.sampled_from(["b1", "b2", "LACI", "flhD;flhC", "ppGpp"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(names, st.sampled_from(["b1", "b2", "b3"]), st.sampled_from("+-?")), min_size=1
    )
)
def test_each_pair_is_there_once_with_the_sign_all_its_edges_share(tmp_path_factory, edges):
    text = "source\ttarget\tsign\n" + "".join("\t".join(edge) + "\n" for edge in edges)
    path = write(tmp_path_factory.mktemp("network") / "n.tsv", text)
    expected: dict[tuple[str, str], set[int]] = {}
    for source, target, sign in edges:
        parts = {"LACI": ["b1"], "flhD;flhC": ["b3", "b4"]}.get(source, [source])
        for part in parts:
            expected.setdefault((part, target), set()).add({"+": 1, "-": -1, "?": 0}[sign])
    edges = read_network(path, GENES, gene_aliases(GENES)).edges
    got = {(source, target): sign for source, target, sign in rows(edges)}
    assert got == {
        pair: next(iter(signs)) if len(signs) == 1 else 0 for pair, signs in expected.items()
    }


# --- the real network ---


def test_ecoli_signs_are_those_of_regulondb(ecoli):
    ids = ecoli.genes.set_index("name")["gene_id"]
    signs = ecoli.network.set_index(["source", "target"])["sign"]
    published = {"lacI": -1, "hns": -1, "crp": 0, "rpoD": 1}
    assert {name: signs[ids[name], ids["lacZ"]] for name in published} == published
    published = {"fnr": 1, "ihfA": 1, "ihfB": 1, "fis": -1}
    assert {name: signs[ids[name], ids["narG"]] for name in published} == published


def test_ecoli_edges_end_in_genes_and_complexes_were_taken_apart(ecoli):
    genes = set(ecoli.genes["gene_id"])
    assert set(ecoli.network["target"]) <= genes
    effectors = set(ecoli.network["source"]) - genes
    assert {"FMN", "L-tryptophan"} <= effectors
    assert not any(";" in name for name in effectors)
    assert not ecoli.network.duplicated(["source", "target"]).any()
    both = ecoli.genes.set_index("name")["gene_id"].loc[["flhD", "flhC"]]
    targets = [set(ecoli.network.query("source == @gene")["target"]) for gene in both]
    assert targets[0] & targets[1]

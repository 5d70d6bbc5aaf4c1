"""The user's own edges and gene sets by one flag each, and what the model remembers of them."""

import json

import pandas as pd
import pytest
from command_line import refuse, succeed

from genesplice.data.bundle import load_bundle
from genesplice.data.knowledge import adopt_knowledge, own_files, replace_knowledge
from genesplice.errors import InputError
from genesplice.predict.expression import bundle_graph, predict_expression
from genesplice.predict.models import load_model
from genesplice.runtime import file_sha256

pytestmark = pytest.mark.slow

SETTINGS = [
    "model.width=16", "model.heads=2", "model.base_width=0", "model.region_layers=1",
    "model.summary_layers=1", "finetune.core_bp=65536", "finetune.flank_bp=1024",
    "finetune.head_steps=3", "finetune.kernel=false", "finetune.fewest_genes=1",
]  # fmt: skip
SMALL = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture(scope="module")
def mine(tiny_bundle, tmp_path_factory):
    """Five edges of one regulator, and two sets: one of a known collection, one of no other."""
    folder = tmp_path_factory.mktemp("mine")
    genes = tiny_bundle.genes["gene_id"].tolist()
    edges = [(genes[0], gene, "+") for gene in genes[1:5]] + [("cAMP", genes[7], "-")]
    table = pd.DataFrame(edges, columns=["source", "target", "sign"])
    table.to_csv(folder / "edges.tsv", sep="\t", index=False)
    sets = {"KEGG:mine": genes[:6], "heat shock": genes[3:12]}
    lines = ["\t".join([name, "", *members]) + "\n" for name, members in sets.items()]
    (folder / "sets.gmt").write_text("".join(lines))
    return folder / "edges.tsv", folder / "sets.gmt"


def test_each_replaces_what_it_should(tiny_bundle, mine):
    edges, sets = mine
    one = replace_knowledge(tiny_bundle, network=edges)
    two = replace_knowledge(tiny_bundle, gene_sets=sets)
    assert one.gene_sets == tiny_bundle.gene_sets
    assert two.network.equals(tiny_bundle.network)
    assert one.network["sign"].tolist() == [1, 1, 1, 1, -1]
    assert list(two.gene_sets) == ["KEGG:mine", "own:heat shock"]
    assert own_files(one) == {"network": file_sha256(edges)}
    assert own_files(two) == {"gene_sets": file_sha256(sets)}
    assert own_files(tiny_bundle) == {}


def test_the_leakage_judges_what_is_there_now(tiny_bundle, mine, tmp_path):
    edges, sets = mine
    leaking = pd.read_csv(edges, sep="\t").assign(evidence="co-expression")
    leaking.to_csv(tmp_path / "leak.tsv", sep="\t", index=False)
    status = {
        name: {check["check"]: check["status"] for check in bundle.leakage["checks"]}
        for name, bundle in {
            "before": tiny_bundle,
            "leak": replace_knowledge(tiny_bundle, network=tmp_path / "leak.tsv"),
            "sets": replace_knowledge(tiny_bundle, gene_sets=sets),
        }.items()
    }
    edge, member = "edges whose evidence is expression", "gene sets whose evidence is expression"
    assert (status["before"][edge], status["leak"][edge], status["sets"][edge]) == (
        "green", "red", "green",
    )  # fmt: skip
    assert (status["before"][member], status["sets"][member]) == ("green", "amber")
    assert replace_knowledge(tiny_bundle, network=tmp_path / "leak.tsv").leakage["status"] == "red"


def test_finetune_predict_and_explain_know_it(tiny_bundle, mine, tmp_path):
    edges, sets = mine
    out, data = tmp_path / "out", tiny_bundle.path
    answer = succeed("finetune", "--data", data, "--out", out, *SMALL,
                     "--network", edges, "--gene-sets", sets)  # fmt: skip
    assert "5 edges, 2 gene sets, leakage amber" in answer.err
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["data_sha256"]["network"] == file_sha256(edges)
    assert manifest["data_sha256"]["gene_sets"] == file_sha256(sets)
    assert manifest["leakage"] == "amber"
    folder = out / "fold0_seed0"
    model = load_model(folder)
    assert sorted(model.graph.known["pathway"]) == ["KEGG:mine", "own:heat shock"]
    assert list(model.graph.known["effector"]) == ["cAMP"]
    bundle = adopt_knowledge(load_bundle(data), folder)
    graph = bundle_graph(model, bundle)
    assert graph["gene", "regulates", "gene"].edge_index.shape[1] == 4
    assert graph["pathway", "contains", "gene"].edge_index.shape[1] == 15
    for more in ([], ["--genes-at-once", "13", "--overwrite"]):
        succeed("predict", "--model", folder, "--data", data, "--out", tmp_path / "p.pq", *more)
        told = pd.read_parquet(tmp_path / "p.pq").set_index("gene_id")
        wanted = predict_expression(model, bundle)
        pd.testing.assert_frame_equal(told, wanted, check_column_type=False, atol=1e-4)
        other = predict_expression(model, load_bundle(data))
        assert abs(told - other).max(axis=None) > 1e-3
    gene = tiny_bundle.genes["gene_id"][2]
    succeed("explain", "--model", folder, "--data", data, "--genes", gene, "--window", "2048",
            "--method", "saliency", "--out", tmp_path / "why")  # fmt: skip
    (explained,) = set(pd.read_parquet(tmp_path / "why" / "attributions.parquet")["gene_id"])
    assert explained == gene


def test_a_model_of_the_bundles_own_adopts_nothing(tiny_bundle, tmp_path):
    assert adopt_knowledge(tiny_bundle, tmp_path) is tiny_bundle


def test_a_wrong_file_is_refused_before_anything_is_written(tiny_bundle, tmp_path):
    (tmp_path / "sets.gmt").write_text("one\tcolumn\n")
    words = ["--data", tiny_bundle.path, "--out", tmp_path / "out", "--gene-sets"]
    assert "sets.gmt" in refuse("finetune", *words, tmp_path / "sets.gmt", *SMALL)
    assert not (tmp_path / "out").exists()


def test_models_of_different_networks_do_not_answer_together(tiny_bundle, tmp_path):
    folders = [tmp_path / name for name in ("one", "same", "other", "none")]
    for number, folder in enumerate(folders):
        folder.mkdir()
        edges = tiny_bundle.network.iloc[: 5 + number // 2]
        if folder.name != "none":
            edges.to_parquet(folder / "network.parquet", index=False)
    found = adopt_knowledge(tiny_bundle, *folders[:2])
    assert len(found.network) == 5
    for other in folders[2:]:
        with pytest.raises(InputError, match="trained with different networks or gene sets"):
            adopt_knowledge(tiny_bundle, folders[0], other)
    assert adopt_knowledge(tiny_bundle) is tiny_bundle

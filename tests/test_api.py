"""The face of the package: complete, documented, quick to import, and its own small tables."""

import ast
import dataclasses
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import genesplice as gs
from genesplice.context.verdict import VerdictReport
from genesplice.results import Metric

SOURCE = Path(gs.__file__)


def metric(name, value, model="genesplice", **more):
    about = {"ci_low": value - 0.1, "ci_high": value + 0.1, "n": 9, "split": "test"}
    return Metric(name, value, model=model, **{**about, **more})


@pytest.mark.parametrize("name", [name for name in gs.__all__ if name != "__version__"])
def test_what_the_face_offers_is_there_typed_and_documented(name):
    value = getattr(gs, name)
    assert value.__doc__, name
    if inspect.isfunction(value):
        signature = inspect.signature(value)
        assert signature.return_annotation is not inspect.Signature.empty
        for parameter in signature.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty, parameter


def test_type_checkers_see_what_is_loaded_lazily():
    tree = ast.parse(SOURCE.read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {}
    for statement in block.body:
        for alias in statement.names:
            seen[alias.name] = f"{statement.module}"
    assert set(seen) == set(gs.__all__) - {"__version__"}
    assert set(gs.__all__) <= set(dir(gs))
    for name, module in seen.items():
        value = getattr(gs, name)
        assert module in (getattr(value, "__module__", ""), value.__name__.rpartition(".")[0])
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = gs.nonsense


def test_importing_the_face_loads_nothing_heavy():
    code = "import sys, genesplice; print([m for m in ('torch', 'pandas') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


def test_relative_paths_are_those_of_the_project(tmp_path, monkeypatch, tiny_bundle):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").symlink_to(tiny_bundle.path)
    monkeypatch.chdir(tmp_path / "notebooks")
    assert gs.open_run("reports/x") == tmp_path / "reports" / "x"
    assert (tmp_path / "reports" / "x").is_dir()
    assert gs.load_bundle("data/mine").name == tiny_bundle.name
    assert not (tmp_path / "notebooks" / "data").exists()
    monkeypatch.chdir("/")
    monkeypatch.setenv("GENESPLICE_PROJECT", str(tmp_path))
    assert gs.load_bundle("data/mine").name == tiny_bundle.name
    assert gs.project_path(tmp_path / "x") == tmp_path / "x"


def test_what_another_notebook_left_is_found_in_the_newest_run_that_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = gs.open_run()
    assert gs.find_output(run, "pretrained", missing_ok=True) is None
    with pytest.raises(gs.InputError, match=r"no pretrained in .*expected genesplice run first"):
        gs.find_output(run, "pretrained")
    for name in ("20260101-000000-quick", "20260202-000000-quick"):
        for fold in ("fold1_seed0", "fold0_seed0"):
            (tmp_path / "reports" / "runs" / name / "finetuned" / fold).mkdir(parents=True)
    (tmp_path / "reports" / "runs" / "20260303-000000-quick").mkdir()
    newest = tmp_path / "reports" / "runs" / "20260202-000000-quick"
    found = gs.find_output(run, "finetuned/fold*_seed0")
    assert found.resolve() == newest / "finetuned" / "fold0_seed0"
    (run / "finetuned" / "fold4_seed0").mkdir(parents=True)
    assert gs.find_output(run, "finetuned/fold*_seed0").name == "fold4_seed0"


def test_settings_are_changed_by_section():
    config = gs.configure(
        "quick", "model.width=64", pretrain={"seed": 3, "steps": None}, finetune={"folds": (0, 2)}
    )
    assert (config.model.width, config.pretrain.seed, config.finetune.folds) == (64, 3, (0, 2))
    assert config.pretrain.steps == gs.load_preset("quick").pretrain.steps
    with pytest.raises(gs.InputError, match="did you mean 'seed'"):
        gs.configure("quick", pretrain={"sede": 3})


def test_data_are_prepared_by_recipe_or_from_files(tmp_path):
    with pytest.raises(gs.InputError, match="recipe 'ecolli'"):
        gs.prepare("ecolli", out=tmp_path / "out")
    with pytest.raises(gs.InputError, match="no such folder"):
        gs.load_bundle(tmp_path / "nowhere")
    files = {"fasta": tmp_path / "g.fa", "annotation": tmp_path / "g.gff"}
    with pytest.raises(gs.InputError, match=r"e\.tsv: found no such file"):
        gs.prepare(
            out=tmp_path / "out", expression=tmp_path / "e.tsv", expression_unit="tpm", **files
        )


def test_a_difference_that_was_not_measured_is_not_run():
    records = [metric("probe_mean_difference", 0.3, "genesplice - random_weights")]
    asked = "Pre-training", records, "genesplice - random_weights"
    assert gs.judge_difference(*asked, "probe_mean_difference").answer == "yes"
    nothing = gs.judge_difference(*asked, "retrieval_difference")
    assert nothing.answer == "not run"
    assert "no retrieval_difference of genesplice - random_weights" in nothing.sentence


def test_tables_of_metrics():
    records = [
        metric("probe_gc", 0.7), metric("probe_gc", 0.5, "kmers"),
        metric("probe_gc_difference", 0.2, "genesplice - kmers"),
        metric("level", 0.8, seed=0), metric("level", 0.6, seed=1), metric("level", 0.1, fold=0),
    ]  # fmt: skip
    table = gs.metric_table(records, "probe_", "genesplice")
    assert table["metric"].tolist() == ["probe_gc", "probe_gc_difference"]
    assert list(table.columns) == ["metric", "model", "value", "ci_low", "ci_high", "n"]
    methods = gs.describe_methods(["mean", "gbm_dna"])
    assert methods.index.tolist() == ["mean", "boosting: DNA and relatives"]
    assert methods.iloc[1].startswith("k-mers, codon use and conservation")
    named = [metric("probe_gc", 0.7, "genesplice - genesplice_random")]
    assert gs.metric_table(named, "", "_random")["model"].tolist() == [
        "genesplice - random weights"
    ]
    levels = gs.metric_table(records, "level", "genesplice")
    assert levels["value"].tolist() == [0.8, 0.6], "a single fold beside all folds"
    assert gs.metric_table(records[-1:], "level")["value"].tolist() == [0.1]
    wide = gs.pivot_metrics(records, "probe_")
    assert wide.loc["gc"].to_dict() == {"genesplice": 0.7, "kmers": 0.5}
    by_region = metric("probe_difference_coding", 0.1, "genesplice - kmers")
    assert gs.pivot_metrics([*records, by_region], "probe_").equals(wide)
    assert gs.pivot_metrics(records).loc["level", "genesplice"] == pytest.approx(0.7)
    again = gs.to_metrics(pd.DataFrame(records))
    assert again == records
    assert [type(one.fold) for one in again] == [type(one.fold) for one in records]


def predictions(bundle, model, seed, noise):
    generator = np.random.default_rng(seed)
    observed = bundle.observed.loc[bundle.test_genes(0)]
    rows = observed.stack().rename("observed").reset_index()
    rows.columns = ["gene_id", "condition", "observed"]
    rows["predicted"] = rows["observed"] + generator.normal(0, noise, len(rows))
    return rows.assign(fold=0, model=model, seed=seed)


def test_ablations_of_several_seeds_are_compared_and_drawn(tiny_bundle):
    parts = [predictions(tiny_bundle, "genesplice", 0, 0.1), predictions(tiny_bundle, "mean", 0, 2)]
    parts += [predictions(tiny_bundle, "genesplice_rewired", seed, 1.0) for seed in (0, 1)]
    table = pd.concat(parts, ignore_index=True)
    scores = gs.compare(table, tiny_bundle, n_bootstrap=50)
    gs.figures.metric_bars(scores, ["level_spearman"], highlight="genesplice")
    assert gs.best_simple_model(scores) == "mean"
    wide = gs.pivot_metrics(scores).T
    assert wide.loc["genesplice", "level_r2"] > wide.loc["genesplice_rewired", "level_r2"]
    means = gs.gene_means(table, tiny_bundle, "genesplice").set_index("gene_id")
    gene = tiny_bundle.test_genes(0)[0]
    assert means.loc[gene, "observed"] == pytest.approx(tiny_bundle.observed.loc[gene].mean())
    assert means.loc[gene, "name"] == tiny_bundle.names[gene]


def test_profiles_and_residuals_are_what_they_say(tiny_bundle):
    observed, genes = tiny_bundle.observed, list(tiny_bundle.observed.index[:3])
    residual = gs.residuals(tiny_bundle)
    assert np.allclose(residual.mean(axis=0), 0)
    assert np.allclose(residual.mean(axis=1), 0)
    expected = gs.expected_profiles(tiny_bundle, genes)
    for gene in genes:
        train = observed.loc[tiny_bundle.train_genes(int(tiny_bundle.fold_of[gene]))]
        others = train.sub(train.mean(axis=1), axis=0).mean()
        assert np.allclose(expected.loc[gene], observed.loc[gene].mean() + others)
    spread = gs.level_and_spread(tiny_bundle)
    assert spread.iloc[:, 0].tolist() == observed.mean(axis=1).tolist()


def test_nearest_promoters_share_no_base(tiny_bundle):
    generator = np.random.default_rng(0)
    ids = tiny_bundle.genes["gene_id"]
    embeddings = pd.DataFrame(generator.normal(size=(len(ids), 5)), index=pd.Index(ids))
    gene = ids[4]
    z = (embeddings - embeddings.mean()) / embeddings.std()
    cosine = {
        other: float(z.loc[other] @ z.loc[gene])
        / float(np.linalg.norm(z.loc[other]) * np.linalg.norm(z.loc[gene]))
        for other in ids
    }
    tss = tiny_bundle.genes.set_index("gene_id")["tss"]
    apart = [other for other in ids if abs(tss[other] - tss[gene]) >= 1024]
    best = max(apart, key=cosine.get)
    table = gs.nearest_genes(embeddings, tiny_bundle, [gene], count=3)
    name = tiny_bundle.names
    assert table[name[gene]].iloc[0] == f"{name[best]} ({cosine[best]:.2f})"
    assert len(table) == 3
    assert gs.neighbour_bars(embeddings, tiny_bundle, gene).data
    groups = gs.gene_groups(tiny_bundle)
    assert list(groups.columns) == ["strand", "function", "kind"]


def test_shares_of_attribution_are_of_the_window_that_was_read():
    at = np.arange(-2048, 2048)
    table = pd.DataFrame({"gene_id": "g", "position_bp": at, "value": np.where(at < 0, -3.0, 1.0)})
    share = gs.attribution_shares(table)["g"]
    assert [(one.left, one.right) for one in share.index] == [
        (-2048, -1024), (-1024, -512), (-512, -256), (-256, -128), (-128, -64), (-64, 0),
        (0, 64), (64, 256), (256, 1024), (1024, 2048),
    ]  # fmt: skip
    sizes = [(one.right - one.left) * (3 if one.right <= 0 else 1) for one in share.index]
    assert share.tolist() == pytest.approx([size / sum(sizes) for size in sizes])


def test_well_known_genes_come_first(tiny_bundle):
    names = tiny_bundle.genes["name"].where(tiny_bundle.genes.index != 7, "recA")
    bundle = dataclasses.replace(tiny_bundle, genes=tiny_bundle.genes.assign(name=names))
    known, *others = gs.well_known_genes(bundle, bundle.observed.index, 3)
    assert bundle.names[known] == "recA"
    level = bundle.observed.mean(axis=1)
    assert others == list(level.drop(known).nlargest(2).index)


def test_a_bundle_is_described(tiny_bundle, tmp_path):
    counts = gs.describe_bundle(tiny_bundle)
    assert counts["measured genes"] == len(tiny_bundle.observed)
    assert counts["bases"] == tiny_bundle.genome.length
    assert list(gs.list_inputs(tiny_bundle).columns) == ["name", "source", "licence", "sha256"]
    written = json.loads(gs.write_summary(tmp_path / "s.json", path=Path("x"), n=3).read_text())
    assert written == {"path": "x", "n": 3}


def test_the_environment_keeps_threads_from_spinning():
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_scores_and_slopes_of_a_verdict_are_explored(tiny_bundle):
    slope = {"metric": "level_r2", "slope": 0.03, "ci_low": 0.01, "ci_high": 0.06}
    verdict = {
        "answer": "yes", "slopes": [slope],
        "conditions": [
            {"name": "context_512", "context_bp": 512, "is_reference": False},
            {"name": "short_cnn", "context_bp": 33, "is_reference": True},
        ],
        "controls": {"controls": [{"control": "distal", "answer": "no", "slopes": [slope]}]},
    }  # fmt: skip
    records = [
        metric("level_r2", value, "context_512", seed=seed) for seed, value in ((0, 0.2), (1, 0.4))
    ]
    records += [
        metric("level_r2", 0.9, "short_cnn"),
        metric("level_r2", 0.7, "context_512", fold=0),
    ]
    report = VerdictReport(verdict, records, pd.DataFrame(), pd.DataFrame(), pd.DataFrame())
    scores, slopes = gs.context_tables(report)
    assert scores[["metric", "context_bp"]].to_numpy().tolist() == [["level_r2", 512]]
    assert scores["value"].tolist() == [pytest.approx(0.3)]
    assert slopes["source"].tolist() == ["these data", "control: distal"]
    assert slopes["answer"].tolist() == ["yes", "no"]
    assert gs.explorers.ContextExplorer(scores, slopes, 0.02).figure.data
    assert gs.describe_rule(gs.configure()).loc["seeds"].startswith("numbers 0")

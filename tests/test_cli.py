"""The command line: results on stdout, progress on stderr, and exit codes that mean something."""

import contextlib
import gzip
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from command_line import Answer, call, refuse, succeed
from safetensors.torch import load_file

from genesplice.api import describe_bundle
from genesplice.cli import app, show_scores
from genesplice.config import load_preset, override
from genesplice.data.bundle import load_bundle
from genesplice.data.gene_sets import write_gmt
from genesplice.data.genome import decode
from genesplice.data.simulate import make_bundle
from genesplice.errors import InputError
from genesplice.evaluate.metrics import PREDICTION_COLUMNS
from genesplice.predict.expression import predict_expression
from genesplice.predict.models import load_model, open_models
from genesplice.results import Metric, read_metrics
from genesplice.runtime import file_sha256
from genesplice.variants.scan import scan_promoter

ROOT = Path(__file__).resolve().parent.parent
VERBS = (
    "prepare", "baselines", "pretrain", "finetune", "predict", "explain", "run", "sweep",
    "report", "list", "lab", "doctor",
)  # fmt: skip
SETTINGS = [
    "model.width=16", "model.heads=2", "model.base_width=0", "model.region_layers=1",
    "model.summary_layers=1", "pretrain.window_bp=2048", "pretrain.batch_windows=2",
    "pretrain.steps=3", "finetune.core_bp=65536", "finetune.flank_bp=1024",
    "finetune.head_steps=3", "finetune.epochs=1", "pretrain.measure_windows=4",
    "pretrain.probe_sites=20", "finetune.validation_blocks=0.4", "finetune.fewest_genes=1",
]  # fmt: skip
SMALL = [word for setting in SETTINGS for word in ("--set", setting)]
MANIFEST = {"command", "versions", "seeds", "config", "config_sha256", "data_sha256", "backend",
            "git_commit", "seconds"}  # fmt: skip
RECORD = ["metric", "value", "ci_low", "ci_high", "n", "model", "split", "fold", "seed"]


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# --- a small control as the user's own files, and what each stage makes of it ---


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    control = make_bundle(
        tmp_path_factory.mktemp("control") / "w", genome_bp=600_000, n_conditions=4
    )
    folder = tmp_path_factory.mktemp("files")
    names = ("g.fa", "g.gff3.gz", "tpm.tsv", "samples.tsv", "edges.tsv", "sets.gmt")
    kinds = ("fasta", "annotation", "expression", "samples", "network", "gene-sets")
    made = {kind: folder / name for kind, name in zip(kinds, names, strict=True)}
    made["fasta"].write_text(f">chr\n{decode(np.asarray(control.genome.tokens))}\n")
    with gzip.open(made["annotation"], "wt") as handle:
        handle.write("##gff-version 3\n")
        for gene in control.genes.itertuples():
            attributes = f"ID={gene.gene_id};Name={gene.name};gene_biotype=protein_coding"
            handle.write(f"chr\tx\tgene\t{gene.start + 1}\t{gene.end}\t.\t{gene.strand}\t.\t"
                         f"{attributes}\n")  # fmt: skip
    values = control.expression
    tpm = pd.DataFrame(np.exp2(values.X.T) - 1, index=values.var_names, columns=values.obs_names)
    (tpm * (1e6 / tpm.sum()).min()).to_csv(made["expression"], sep="\t")
    values.obs.to_csv(made["samples"], sep="\t")
    control.network[["source", "target", "sign"]].to_csv(made["network"], sep="\t", index=False)
    write_gmt(made["gene-sets"], control.gene_sets)
    return made


def flags(files: dict[str, Path]) -> list[str | Path]:
    named = [word for kind, path in files.items() for word in (f"--{kind}", path)]
    return [*named, "--expression-unit", "tpm"]


@pytest.fixture(scope="module")
def prepared(files, tmp_path_factory) -> tuple[Path, Answer]:
    out = tmp_path_factory.mktemp("cli") / "data"
    return out, succeed("prepare", *flags(files), "--circular", "chr", "--out", out)


@pytest.fixture(scope="module")
def data(prepared) -> Path:
    return prepared[0]


@pytest.fixture(scope="module")
def pretrained(data) -> tuple[Path, Answer]:
    out = data.parent / "pretrained"
    return out, succeed("pretrain", "--data", data, "--out", out, "--json", *SMALL)


@pytest.fixture(scope="module")
def finetuned(data, pretrained) -> tuple[Path, Answer]:
    out = data.parent / "finetuned"
    words = ["--data", data, "--out", out, "--init", pretrained[0], "--set", "finetune.seeds=0,3"]
    return out, succeed("finetune", *words, *SMALL)


@pytest.fixture(scope="module")
def model(finetuned) -> Path:
    return finetuned[0] / "fold0_seed0"


# --- the stages ---


def test_prepare_writes_a_bundle_and_prints_its_path(prepared, files):
    out, answer = prepared
    bundle = load_bundle(out)
    assert answer.out == f"{out}\n"
    status = bundle.leakage["status"]
    checks = [one["check"] for one in bundle.leakage["checks"] if one["status"] == status]
    assert status == "amber"
    why = f"leakage amber (see leakage.json: {', '.join(checks)})"
    assert f"prepare: 60 genes, 8 samples, {why}" in answer.err.splitlines()
    assert (len(bundle.genes), bundle.expression.n_obs) == (60, 8)
    assert len(bundle.network) > 0
    assert "KEGG:ko00001" in bundle.gene_sets
    assert bundle.genome.contigs[0].is_circular
    inputs = {record["name"]: record["sha256"] for record in bundle.manifest["inputs"]}
    assert inputs == {path.name: file_sha256(path) for path in files.values()}


def test_prepare_takes_the_size_of_blocks_folds_and_evidence(files, tmp_path):
    words = ["--block-bp", "20000", "--folds", "3", "--allow-missing"]
    declared = ["--network-evidence", "ChIP-seq", "--gene-set-evidence", "coexpression"]
    succeed("prepare", *flags(files), *words, *declared, "--out", tmp_path / "data")
    bundle = load_bundle(tmp_path / "data")
    assert (bundle.n_folds, len(bundle.blocks)) == (3, 30)
    checks = {record["check"]: record["status"] for record in bundle.leakage["checks"]}
    assert checks["edges whose evidence is expression"] == "green"
    assert checks["gene sets whose evidence is expression"] == "red"
    assert all(
        " ".join(pair) in bundle.manifest["command"]
        for pair in (words[:2], words[4:], declared[2:])
    )
    (tmp_path / "phylop.bw").touch()
    both = "--relatives", tmp_path, "--conservation", tmp_path / "phylop.bw"
    said = refuse("prepare", "--recipe", "ecoli", *both, "--out", tmp_path / "recipe")
    assert said.endswith("--relatives together with --conservation, expected one or the other")
    said = refuse("prepare", "--recipe", "ecoli", "--folds", "3", "--out", tmp_path / "recipe")
    assert "--recipe together with --folds" in said
    more = ("--circular", "chr1", "--operons", "none", "--allow-missing", "--name", "mine")
    said = refuse("prepare", "--recipe", "ecoli", *more, "--out", tmp_path / "out")
    assert "--recipe together with --operons, --circular, --allow-missing, --name, exp" in said


def test_pretrain_prints_one_object_with_json(pretrained):
    out, answer = pretrained
    assert json.loads(answer.out) == {"model": str(out), "metrics": str(out / "metrics.json")}
    assert "pretrain: step 3/3" in answer.err
    found = {(m.model, m.metric) for m in read_metrics(out / "metrics.json")}
    for name in ("genesplice", "count_one_sided", "count_two_sided"):
        assert {(name, "bits_per_base"), (name, "masked_top_1")} <= found
    assert ("genesplice - random_weights", "probe_mean_difference") in found


def test_finetune_prints_its_models_and_scores(finetuned, data):
    out, answer = finetuned
    models = [out / "fold0_seed0", out / "fold0_seed3"]
    assert answer.out.splitlines() == [*map(str, models), str(out / "metrics.json")]
    assert "genesplice: fold 0 seed 3 in" in answer.err
    assert "held-out genes, 95 % intervals over blocks" in answer.err
    assert "(mean of 2 seeds)" in answer.err
    table = pd.read_parquet(out / "predictions.parquet")
    assert list(table.columns) == [*PREDICTION_COLUMNS, "low", "high"]
    assert set(table["seed"]) == {0, 3}
    assert set(table["gene_id"]) == set(load_bundle(data).test_genes(0))
    assert set(pd.read_parquet(out / "history.parquet")["seed"]) == {0, 3}


@pytest.mark.slow
def test_fine_tuning_starts_from_the_pretrained_encoder(pretrained, data, tmp_path):
    words = ["--data", data, "--out", tmp_path / "out", "--init", pretrained[0]]
    succeed("finetune", *words, *SMALL, "--set", "finetune.learning_rate=0")
    tuned = load_model(tmp_path / "out" / "fold0_seed0").state_dict()
    before = load_file(pretrained[0] / "model.safetensors")
    names = [name for name in before if name.startswith("encoder.")]
    assert len(names) > 20
    for name in names:
        assert torch.equal(before[name], tuned[name]), name


def test_every_manifest_says_how_to_do_it_again(pretrained, finetuned, data):
    bundle = load_bundle(data)
    for out, verb in ((pretrained[0], "pretrain"), (finetuned[0], "finetune")):
        manifest = json.loads((out / "manifest.json").read_text())
        assert set(manifest) >= MANIFEST
        assert manifest["command"].startswith(f"genesplice {verb} --data ")
        config = override(load_preset("quick"), SETTINGS).to_dict()
        assert manifest["config"]["model"]["width"] == config["model"]["width"] == 16
        assert manifest["data_sha256"] == bundle.data_sha256
        assert manifest["backend"]
        assert manifest["seconds"] > 0
        assert manifest["versions"]["genesplice"] == "0.1.0"
    assert manifest["seeds"] == {"finetune_0": 0, "finetune_1": 3}
    assert manifest["init"] == str(pretrained[0])
    prepared = json.loads((data / "manifest.json").read_text())
    assert set(prepared) >= MANIFEST
    assert prepared["command"].startswith("genesplice prepare --fasta ")


def test_a_model_card_says_data_command_scores_and_licence(pretrained, finetuned, data):
    (pre, _), (tuned, _) = pretrained, finetuned
    fold = tuned / "fold0_seed0"
    inputs = json.loads((data / "manifest.json").read_text())["inputs"]
    for folder, metrics, word in ((pre, pre, "pretrain"), (fold, tuned, "finetune")):
        card = (folder / "README.md").read_text()
        assert card.startswith("---\nlibrary_name: genesplice\nlicense: mit\n")
        assert f"# {folder.name}\n" in card
        assert f"**Made by** `genesplice {word} " in card
        rows = json.loads((metrics / "metrics.json").read_text())
        own = [m for m in rows if " - " not in m["model"]]
        first = ([m for m in own if m["fold"] is None] or own)[0]
        assert f"| `{first['metric']}` | " in card
        assert f"| {first['value']:.3f} | " in card
        assert "**Licence.** Of the weights: MIT." in card
    for one in inputs:
        assert f"{one['name']} (licence: " in card
        assert one["sha256"] in card
    assert {"config.json", "model.safetensors", "README.md"} <= {p.name for p in fold.iterdir()}


def test_every_metric_is_one_record_of_nine_keys(pretrained, finetuned):
    for out in (pretrained[0], finetuned[0]):
        records = json.loads((out / "metrics.json").read_text())
        assert records
        for record in records:
            assert list(record) == RECORD
            assert isinstance(record["value"], float)
            # Only what a run cost is told of training; every metric is of held-out genes.
            trained = record["metric"] == "cpu_seconds"
            is_held_out = record["split"] == "test" or record["split"].startswith("held_out:")
            assert record["split"] == "train" if trained else is_held_out
    assert {record["model"] for record in records} == {"genesplice", "genesplice_ensemble"}
    assert {(r["fold"], r["seed"]) for r in records} >= {(0, 0), (0, 3)}
    measured = {(r["metric"], r["split"]) for r in records}
    assert ("interval_coverage", "test") in measured
    assert ("profile_r", "held_out:operon_first") in measured
    # Three genes are too few.
    assert ("level_spearman", "held_out:in_network") not in measured


@pytest.mark.slow
def test_predict_writes_every_gene_in_every_condition(model, data, tmp_path):
    answer = succeed("predict", "--model", model, "--data", data, "--out", tmp_path / "p.parquet")
    assert answer.out == f"{tmp_path / 'p.parquet'}\n"
    found = pd.read_parquet(tmp_path / "p.parquet").set_index("gene_id")
    bundle = load_bundle(data)
    assert list(found.index) == list(bundle.genes["gene_id"])
    assert list(found.columns) == list(bundle.observed.columns)
    expected = predict_expression(load_model(model), bundle)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_predict_takes_the_folder_with_all_folds(finetuned, data, tmp_path):
    run, out = finetuned[0], tmp_path / "p.parquet"
    answer = succeed("predict", "--model", run, "--data", data, "--out", out)
    bundle, found = load_bundle(data), pd.read_parquet(out).set_index("gene_id")
    n_own = len(bundle.test_genes(0))
    assert f"predict: 2 models (fold0_seed0, fold0_seed3): {n_own} genes by those" in answer.err
    each = [predict_expression(load_model(run / f"fold0_seed{seed}"), bundle) for seed in (0, 3)]
    np.testing.assert_allclose(found, (each[0] + each[1]) / 2, rtol=1e-4)
    kept = pd.read_parquet(run / "predictions.parquet")
    kept = kept[kept["model"] == "genesplice_ensemble"]
    kept = kept.pivot(index="gene_id", columns="condition", values="predicted")
    np.testing.assert_allclose(found.loc[kept.index, kept.columns], kept, rtol=1e-4)


@pytest.mark.slow
def test_explain_takes_the_folder_with_all_folds(finetuned, data, tmp_path):
    gene, shown = load_bundle(data).test_genes(0)[0], []
    for name in ("", "fold0_seed0", "fold0_seed3"):
        out = tmp_path / f"why_{name}"
        span = ["--upstream", "2", "--downstream", "1", "--window", "2048", "--method", "ism"]
        words = ["--model", finetuned[0] / name, "--data", data, "--out", out, *span]
        succeed("explain", "--genes", gene, *words)
        shown.append(pd.read_parquet(out / "attributions.parquet")["to_A"])
    np.testing.assert_allclose(shown[0], (shown[1] + shown[2]) / 2, atol=1e-6)
    manifest = json.loads((tmp_path / "why_" / "manifest.json").read_text())
    assert len(manifest["expression_models"]) == 2


@pytest.fixture(scope="module")
def other_data(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("other") / "other"
    return make_bundle(out, genome_bp=600_000, n_conditions=4, seed=9).path


@pytest.mark.slow
def test_a_genome_with_genes_is_enough_for_all_that_reads_sequence_alone(
    files, model, data, tmp_path
):
    named = {kind: path for kind, path in files.items() if kind not in ("expression", "samples")}
    words = [word for kind, path in named.items() for word in (f"--{kind}", path)]
    bare, pre = tmp_path / "bare", tmp_path / "pre"
    answer = succeed("prepare", *words, "--circular", "chr", "--out", bare)
    told = "no expression: enough to pretrain, scan and score variants, and no more"
    assert told in answer.err.splitlines()
    assert "prepare: 60 genes, 0 samples, leakage" in answer.err
    bundle, whole = load_bundle(bare), load_bundle(data)
    assert bundle.expression.shape == (0, 0)
    assert told in bundle.manifest["notes"]
    assert bundle.manifest["expression_rows"] == {"rows": 0, "matched": {}, "left_out": {}}
    assert bundle.manifest["counts"]["measured_genes"] == 0
    assert describe_bundle(bundle)["conditions"] == 0
    for name in ("splits.parquet", "genes.parquet", "network.parquet"):
        assert bundle.data_sha256[name] == whole.data_sha256[name]
    checks = {record["check"]: record for record in bundle.leakage["checks"]}
    assert len(checks) == len(whole.leakage["checks"]) - 1
    assert "duplicated samples" not in checks
    assert checks["copies in other folds"]["unit"] == "share of genes"
    smallest = bundle.fold_of.value_counts(normalize=True).min()
    assert checks["genes in the smallest fold"]["value"] == pytest.approx(smallest, abs=1e-4)

    more = ["--set", "pretrain.measure_expression=true"]
    succeed("pretrain", "--data", bare, "--out", pre, *SMALL, *more)
    both = ["--model", pre, "--data", bare]
    succeed("scan", *both, "--region", "chr:1000-1010", "--out", tmp_path / "scan")
    assert len(pd.read_parquet(tmp_path / "scan" / "scan.parquet")) == 11
    ref = decode(bundle.genome.fetch("chr", 4, 5))
    fields = "CHROM POS ID REF ALT QUAL FILTER INFO".replace(" ", "\t")
    site = f"chr\t5\t.\t{ref}\t{'ACGT'['ACGT'.index(ref) - 1]}\t.\t.\t."
    (tmp_path / "v.vcf").write_text(f"##fileformat=VCFv4.2\n#{fields}\n{site}\n")
    words = ["--vcf", tmp_path / "v.vcf", "--out", tmp_path / "scored.vcf"]
    succeed("variants", *both, *words)
    scored = (tmp_path / "scored.vcf").read_text()
    assert "GS_LLR=" in scored
    assert "GS_DLEVEL" not in scored

    found = scan_promoter(pre, bundle, "g0003", upstream_bp=4, downstream_bp=2)
    assert len(found.table) == 6
    with pytest.raises(InputError, match="a bundle without expression"):
        scan_promoter(pre, bundle)

    # A gene that was measured where the model was trained is predicted by who held it out.
    models, own = open_models(model), bundle.fold_of.index[bundle.fold_of == 0]
    assert models.held_out_by(bundle) == dict.fromkeys(own, (0,))
    before = everything(tmp_path)
    run = ["--data", bare, "--out", tmp_path / "out"]
    for words in (
        ["baselines"],
        ["finetune", "--init", pre, *SMALL],
        ["verdict"],
        ["explain", "--model", model, "--genes", "g0003", "--method", "attention"],
        ["design", "--model", model, "--gene", "g0003", "--towards", "up"],
    ):
        line = "a bundle without expression, expected expression: prepare it with --expression"
        assert refuse(*words, *run) == f"genesplice: {bare}: found {line}"
    assert everything(tmp_path) == before
    succeed("predict", "--model", model, *run)
    found = pd.read_parquet(tmp_path / "out").set_index("gene_id")
    pd.testing.assert_frame_equal(found, predict_expression(load_model(model), whole))


@pytest.mark.slow
def test_data_of_another_genome_are_refused(finetuned, pretrained, other_data, tmp_path):
    out, run = tmp_path / "out", finetuned[0]
    site = ["--region", f"{load_bundle(other_data).genome.contigs[0].name}:1000-1010"]
    gene = ["--genes", "g0003", "--method", "attention"]
    fields = "CHROM POS ID REF ALT QUAL FILTER INFO".replace(" ", "\t")
    (tmp_path / "v.vcf").write_text(f"##fileformat=VCFv4.2\n#{fields}\n")
    for words in (
        ["predict", "--model", run],
        ["explain", "--model", run / "fold0_seed0", *gene],
        ["variants", "--model", run, "--vcf", tmp_path / "v.vcf"],
        ["scan", "--model", pretrained[0], *site],
        ["design", "--model", run, "--gene", "g0003", "--towards", "up"],
    ):
        line = refuse(*words, "--data", other_data, "--out", out)
        assert "a model of another genome, chr (600,000 bp)" in line
        assert str(other_data) in line
        assert "or --other-genome" in line
    assert everything(tmp_path) == ["v.vcf"]
    words = ["--data", other_data, "--out", out, "--other-genome"]
    answer = succeed("predict", "--model", run / "fold0_seed0", *words)
    assert "only what is read from sequence carries over" in answer.err


@pytest.mark.slow
def test_an_encoder_of_another_genome_is_taken_and_told(pretrained, other_data, data, tmp_path):
    words = ["finetune", "--init", pretrained[0], *SMALL]
    words += ["--set", "finetune.head_steps=1", "--set", "finetune.epochs=0"]
    words += ["--set", "finetune.kernel=false", "--set", "finetune.baselines=false"]
    told = "finetune: the encoder was pre-trained on chr (600,000 bp), not on this genome"
    answer = succeed(*words, "--data", other_data, "--out", tmp_path / "other")
    assert told in answer.err
    assert told not in succeed(*words, "--data", data, "--out", tmp_path / "own").err


@pytest.mark.slow
def test_explain_writes_one_row_a_base(model, data, tmp_path):
    words = ["--model", model, "--data", data, "--out", tmp_path / "why", "--steps", "2"]
    answer = succeed("explain", "--genes", "g0003, SYN5", *words, "--json")
    assert [Path(path).name for path in json.loads(answer.out)["files"]] == [
        "attributions.parquet", "attributions.tsv", "metrics.json", "checks.tsv", "index.html"
    ]  # fmt: skip
    table = pd.read_parquet(tmp_path / "why" / "attributions.parquet")
    assert table.groupby("gene_id").size().to_dict() == {"g0003": 8192, "g0005": 8192}
    assert everything(tmp_path) == sorted(
        ["why", *(f"why/{n}" for n in ("attributions.parquet", "attributions.tsv", "checks.tsv",
                                       "index.html", "manifest.json", "metrics.json"))]
    )  # fmt: skip
    checks = pd.read_csv(tmp_path / "why" / "checks.tsv", sep="\t")
    assert checks["gene_id"].tolist() == ["g0003", "g0005"]
    assert checks["random_spearman"].between(0, 1).all()
    page = (tmp_path / "why" / "index.html").read_text()
    assert "default-src &#39;none&#39;" in page
    assert page.count('<figure class="plot"') == 3
    for verdict in checks["verdict"]:
        assert verdict.split(":")[0] in page
    for record in json.loads((tmp_path / "why" / "metrics.json").read_text()):
        assert list(record) == RECORD
    text = pd.read_csv(tmp_path / "why" / "attributions.tsv", sep="\t")
    np.testing.assert_allclose(text["value"], table["value"])
    measured = {m.metric for m in read_metrics(tmp_path / "why" / "metrics.json")}
    assert measured >= {"completeness_delta", "faithful_share", "ism_spearman:g0003"}


def test_mutagenesis_writes_every_change(model, data, tmp_path):
    words = ["--model", model, "--data", data, "--out", tmp_path / "ism", "--window", "2048"]
    span = ["--upstream", "6", "--downstream", "3"]
    succeed("explain", "--genes", "g0003,g0004", "--method", "ism", *span, *words)
    table = pd.read_parquet(tmp_path / "ism" / "attributions.parquet")
    assert table["position_bp"].tolist() == 2 * list(range(-6, 3))
    for row in table.itertuples():
        assert getattr(row, f"to_{row.base}") == 0
    assert "syn3 (g0003)" in (tmp_path / "ism" / "index.html").read_text()
    assert not (tmp_path / "ism.parts").exists()


@pytest.mark.slow
def test_attention_is_written_with_what_each_head_does(model, data, tmp_path):
    words = ["--model", model, "--data", data, "--out", tmp_path / "heard", "--window", "2048"]
    succeed("explain", "--genes", "g0003", "--method", "attention", *words)
    table = pd.read_parquet(tmp_path / "heard" / "attributions.parquet")
    rows = table.groupby(["position_bp", "level", "layer", "head"])["weight"].sum()
    np.testing.assert_allclose(rows, 1, 1e-4)
    rolled = pd.read_csv(tmp_path / "heard" / "rollout.tsv", sep="\t")
    assert rolled["weight"].sum() == pytest.approx(1)
    assert "syn3 (g0003)" in (tmp_path / "heard" / "index.html").read_text()
    heads = pd.read_csv(tmp_path / "heard" / "heads.tsv", sep="\t")
    assert set(heads["level"]) == set(table["level"])


@pytest.mark.slow
def test_baselines_score_simple_methods(data, tmp_path):
    answer = succeed("baselines", "--data", data, "--out", tmp_path / "out", "--json", "--seed", 2)
    table = pd.read_parquet(json.loads(answer.out)["predictions"])
    assert list(table.columns) == list(PREDICTION_COLUMNS)
    assert len(set(table["model"])) > 3
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["seeds"] == {"baselines": 2}
    assert manifest["leakage"] == load_bundle(data).leakage["status"]
    metrics = read_metrics(tmp_path / "out" / "metrics.json")
    assert {m.model for m in metrics if " - " not in m.model} == set(table["model"])
    assert "held-out genes, 95 %" not in answer.err
    # Each is held against the best one.
    levels = {m.model: m.value for m in metrics if m.metric == "level_spearman" and m.fold is None}
    best = max(levels, key=lambda name: levels[name])
    against = {m.model for m in metrics if m.metric == "level_spearman_difference"}
    assert against == {f"{best} - {other}" for other in set(table["model"]) - {best}}


def test_scores_are_shown_with_intervals_best_first_and_differences_last(capsys):
    def record(model, value, low=None, high=None, metric="level_spearman", fold=None, seed=0):
        return Metric(metric, value, low, high, 60, model, "test", fold, seed)

    records = [
        record("mean", -0.01, -0.02, 0.0),
        record("genesplice", 0.5, 0.4, 0.6, seed=0),
        record("genesplice", 0.7, 0.6, 0.8, seed=1),
        record("genesplice", 0.9, fold=0),
        record("ridge", 0.55, 0.5, 0.6),
        record("ridge", 0.25, metric="profile_r"),
        record("gbm_dna", 0.52),
        record("genesplice - gbm_dna", 0.05, -0.01, 0.1, "level_spearman_difference"),
    ]
    show_scores(records, 60)
    lines = capsys.readouterr().err.splitlines()
    assert "60 held-out genes" in lines[0]
    rows = [line.strip("│ ").replace("│", " ").split("  ") for line in lines if "│" in line]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert rows == [
        ["genesplice", "0.600 (mean of 2 seeds)", "–", "–"],
        ["ridge", "0.550 [0.500, 0.600]", "–", "0.250"],
        ["boosting: DNA and relatives (gbm_dna)", "0.520", "–", "–"],
        ["mean", "-0.010 [-0.020, 0.000]", "–", "–"],
        ["genesplice - boosting: DNA and relatives", "+0.050 [-0.010, +0.100]", "–", "–"],
    ]


# --- what is refused, in one line, before anything is written ---


def test_a_folder_in_use_is_refused(pretrained, data, tmp_path):
    (tmp_path / "mine").touch()
    for verb in ("pretrain", "baselines"):
        assert "exists and is not empty" in refuse(verb, "--data", data, "--out", tmp_path)
    assert everything(tmp_path) == ["mine"]
    line = refuse("pretrain", "--data", data, "--out", pretrained[0], "--resume")
    assert "was begun with other settings" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-p", "seeed=3"], "unknown parameter 'seeed': did you mean 'seed'?"),
        (["-p", "seed"], "found -p seed, expected key=value"),
        (["-p", "seed=three"], "seed = 'three'"),
        (["--only", "99"], "notebook '99'"),
        (["--resume", "nothing"], "nothing"),
        (["--resume", ""], "found run '', expected a run under"),
        (["--only", ""], "notebook '', which fits 01_"),
        (["-p", "seed=-1"], "found -p seed=-1, expected 0 or more"),
        (["-p", "data_dir=data/nowhere"], "found -p data_dir=data/nowhere, expected one that is"),
        (["-p", "vcf=nowhere.vcf"], "found -p vcf=nowhere.vcf, expected one that is there: a VCF"),
        (["-p", "tracks=README.md no.bw"], "found -p tracks=README.md no.bw, expected one that"),
    ],
)
def test_run_checks_before_it_runs(words, message, tmp_path):
    notebooks = ROOT / "notebooks"
    line = refuse("run", *words, "--notebooks", notebooks, "--out", tmp_path / "out")
    assert message in line
    assert everything(tmp_path) == []


def test_sweep_and_report_check_before_they_run(tmp_path):
    notebook = ROOT / "notebooks" / "03_graph_finetuning.ipynb"
    out = ["--out", tmp_path / "out"]
    assert "did you mean 'seed'" in refuse("sweep", notebook, "-p", "seeed=1,2", *out)
    assert "preset 'x'" in refuse("sweep", notebook, "-p", "seed=1,2", "--preset", "x", *out)
    refuse("report", "latest", *out)
    assert everything(tmp_path) == []


def test_a_missing_option_is_wrong_usage():
    for words in (["pretrain"], ["predict", "--out", "x"], ["nonsense"], ["list", "--nonsense"]):
        answer = call(*words)
        assert answer.code == 2
        assert answer.out == ""
        assert "Traceback" not in answer.err


# --- the process as a shell sees it ---


def process(*words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "genesplice", *words],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        cwd=ROOT,
        check=False,
    )


@pytest.mark.slow
def test_a_misspelt_parameter_ends_the_process_with_2(tmp_path):
    found = process("run", "-p", "seeed=3", "--out", str(tmp_path / "out"))
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == ("genesplice: unknown parameter 'seeed': did you mean 'seed'?\n")
    assert everything(tmp_path) == []


def test_an_unknown_unit_ends_the_process_with_2(files, tmp_path):
    words = [*map(str, flags(files)[:-1]), "rpk", "--out", str(tmp_path / "out")]
    found = process("prepare", *words)
    assert found.returncode == 2, found.stderr
    assert "expression unit 'rpk', expected tpm, rpkm, fpkm, log2tpm, counts" in found.stderr
    assert everything(tmp_path) == []


def test_help_lists_the_verbs_without_loading_torch():
    code = "import sys, genesplice.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    found = process("--help", COLUMNS="100")
    assert found.returncode == 0
    assert found.stderr == ""
    for verb in VERBS:
        assert re.search(rf"\b{verb}\b", found.stdout), verb


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("pretrain --data data --set model.widht=8", "unknown key 'widht'"),
        ("finetune --data data --set model.widht=8", "unknown key 'widht'"),
        ("finetune --data data --init nowhere", "found no folder nowhere"),
        ("verdict --data data --set model.widht=8", "unknown key 'widht'"),
        ("controls --set model.widht=8", "unknown key 'widht'"),
    ],
)
def test_wrong_settings_are_refused_before_torch_is_loaded(tmp_path, words, line):
    code = (
        "import atexit, sys; from genesplice.cli import main; "
        "atexit.register(lambda: print('torch' in sys.modules)); main()"
    )
    command = [sys.executable, "-c", code, *words.split(), "--out", "out"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (found.returncode, found.stdout) == (2, "False\n"), found.stderr
    assert line in found.stderr


def test_the_version_is_said():
    found = process("--version")
    assert (found.returncode, found.stdout) == (0, f"genesplice {version('genesplice')}\n")


@pytest.mark.parametrize("verb", ["prepare", "variants", "finetune"])
def test_help_has_every_option_whole_in_80_columns(verb):
    shown = process(verb, "--help", COLUMNS="80").stdout
    assert "…" not in re.sub(r", …\]", "", shown)
    for parameter in typer.main.get_command(app).commands[verb].params:
        for name in (*parameter.opts, *parameter.secondary_opts):
            assert re.search(rf"{name}[ ,\n]", shown), name
    assert max(map(len, shown.splitlines())) <= 80
    if verb == "prepare":
        assert "none, distance or a file [distance, unless" in shown


def test_without_a_verb_there_is_help():
    found = process()
    assert found.returncode == 2
    assert "Usage: " in found.stdout + found.stderr


def on_a_terminal(*words: str, **environment: str) -> str:
    """All that the process writes to a terminal."""
    ours, theirs = pty.openpty()
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    command = [sys.executable, "-m", "genesplice", *words]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
        env=plain | {"TERM": "xterm-256color"} | environment,
    ):  # fmt: skip
        os.close(theirs)
        written = b""
        # Linux ends a terminal that nobody holds with an error.
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 65536):
                written += piece
        os.close(ours)
    return written.decode()


def test_no_color_means_no_color():
    color = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7])[;m\d]*")
    assert color.search(on_a_terminal("--help"))
    assert not color.search(on_a_terminal("--help", NO_COLOR="1"))


def test_list_and_doctor_parse():
    found = succeed("list", "--notebooks", ROOT / "notebooks", "--json")
    notebooks = json.loads(found.out)
    assert [n["name"] for n in notebooks] == sorted(p.stem for p in ROOT.glob("notebooks/*.ipynb"))
    assert all(notebook["parameters"] for notebook in notebooks)
    text = succeed("list", "--notebooks", ROOT / "notebooks").out
    for notebook in notebooks:
        assert f"{notebook['name']}  {notebook['title']}" in text
    checks = json.loads(succeed("doctor", "--json").out)
    assert {"name", "found", "is_fine", "is_fatal"} == set(checks[0])
    assert {check["name"] for check in checks} >= {"torch", "cores", "memory", "flash-attn"}


def test_doctor_fails_where_nothing_can_run(monkeypatch):
    monkeypatch.setattr("genesplice.runtime.RECORDED_PACKAGES", ("torch", "no-such-package"))
    answer = call("doctor")
    assert answer.code == 1
    assert "note no-such-package: not installed" in answer.out


@pytest.mark.slow
def test_interrupted_is_130(data, tmp_path):
    out = tmp_path / "out"
    words = ["--data", str(data), "--out", str(out), *SMALL, "--set", "pretrain.steps=100000"]
    command = [sys.executable, "-m", "genesplice", "pretrain", *words]
    more = ["--set", "pretrain.checkpoint_minutes=0.0001"]
    with subprocess.Popen(
        [*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        for _ in range(1200):
            if (out / "checkpoints" / "last.ckpt").exists() or child.poll() is not None:
                break
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        stdout, stderr = child.communicate(timeout=60)
    assert child.returncode == 130, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert not (out / "model.safetensors").exists()
    assert not (out / "metrics.json").exists()

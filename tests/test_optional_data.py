"""FASTA, annotation and expression are enough: what is optional is left out, in a sentence."""

import functools
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
from tiny_notebooks import run_cells
from tiny_runs import write_passed_controls

import genesplice as gs
from genesplice import api
from genesplice.data.bundle import Bundle
from genesplice.show.explorer import Explorer
from genesplice.show.report import Headline
from genesplice.variants.classes import class_benchmarks

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
EXPLAINED = "g0009"  # has a regulator, and is in a gene set
LEFT_OUT = "this section is left out"
SMALL = (
    "model.width=16 model.heads=2 model.base_width=4 model.region_layers=1 model.summary_layers=1 "
    "pretrain.window_bp=2048 pretrain.view_windows=2 pretrain.queue=1024 finetune.fewest_genes=1 "
    "finetune.core_bp=32768 finetune.flank_bp=1024 finetune.head_steps=5 "
    "verdict.contexts_bp=512,2048 verdict.core_bp=32768 verdict.width=16 verdict.workers=1 "
    "verdict.perturbation_genes=2 verdict.control_domains=10 verdict.control_epochs=1 "
    "verdict.control_contexts_bp=512,2048 verdict.control_seeds=0,1 "
    "verdict.control_smallest_effect=100"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `prepare` needs, made up, and the network and the sets that it may have besides."""
    folder = tmp_path_factory.mktemp("mine")
    made = gs.make_own_files(folder, n_sequences=60)
    truth = gs.load_bundle(folder / "made_up")
    truth.network[["source", "target", "sign"]].to_csv(folder / "edges.tsv", sep="\t", index=False)
    lines = ["\t".join([name, "", *genes]) + "\n" for name, genes in truth.gene_sets.items()]
    (folder / "sets.gmt").write_text("".join(lines))
    named = ("fasta", "annotation", "expression", "expression_unit", "circular", "block_bp")
    optional = {
        "table": made["table"],
        "network": folder / "edges.tsv",
        "gene_sets": folder / "sets.gmt",
    }
    return {name: made[name] for name in named} | optional


def prepare(files: dict[str, Any], out: Path, *optional: str) -> Bundle:
    absent = {"network", "gene_sets", "table"} - set(optional)
    return gs.prepare(**{name: one for name, one in files.items() if name not in absent}, out=out)


def show(patch: pytest.MonkeyPatch, run: Path, numbers: str, **given: Any) -> dict[str, list[Any]]:
    """Number of a notebook to what it shows, in the smallest setting."""

    def configure(preset: str = "quick", settings: str = "", **sections: Any) -> Any:
        return api.configure(preset, f"{settings} {SMALL}", **sections)

    def few_genes(*of: Any, **more: Any) -> Any:
        return class_benchmarks(*of, **more | {"n_genes": 2})

    patch.setattr(gs, "configure", configure)
    patch.setattr(gs, "class_benchmarks", few_genes)
    patch.setattr(gs, "prepare", functools.partial(api.prepare, block_bp=8000))
    given |= {"run_dir": str(run), "genes": EXPLAINED, "steps": 3, "epochs": 1, "ig_steps": 2}
    paths = [path for path in NOTEBOOKS if path.stem[1] in numbers]
    return {path.stem[1]: run_cells(path, patch, given) for path in paths}


def left_out(shown: list[Any]) -> list[str]:
    """Titles of what is a sentence in place of a figure."""
    figures = [one.figure if isinstance(one, Explorer) else one for one in shown]
    titles = (str(one.layout.title.text) for one in figures if isinstance(one, go.Figure))
    plain = (re.sub("<.*?>", "", title.replace("<br>", " ")) for title in titles)
    return [title for title in plain if LEFT_OUT in title]


def headline(shown: list[Any]) -> str:
    (found,) = (one.text for one in shown if isinstance(one, Headline))
    return found


def test_three_files_are_enough_for_all_notebooks(files, tmp_path, monkeypatch):
    bundle = prepare(files, tmp_path / "data")
    assert bundle.network.empty
    assert not bundle.gene_sets
    assert bundle.relatives is None
    controls = write_passed_controls(tmp_path / "passed", SMALL)
    given = {"data_dir": str(bundle.path), "controls_dir": str(controls), "init": ""}
    given |= {name: str(files[name]) for name in ("fasta", "annotation", "expression", "table")}
    shown = show(monkeypatch, tmp_path / "run", "1234567", **given)
    assert {number: len(left_out(one)) for number, one in shown.items() if left_out(one)} == {
        "3": 2, "4": 3,
    }  # fmt: skip
    said = {number: headline(one) for number, one in shown.items()}
    assert "no pathways of these genes; these data have no regulators of these genes" in said["4"]
    influence = pd.read_parquet(tmp_path / "run" / "explained" / "influence.parquet")
    assert influence.empty
    assert {"kind", "id", "mean", "p"} <= set(influence.columns)
    assert pd.read_parquet(tmp_path / "run" / "attention_edges.parquet").empty
    verdict = json.loads((tmp_path / "run" / "verdict" / "verdict.json").read_text())
    assert said["6"] == verdict["sentence"]


@pytest.mark.parametrize(
    ("kind", "missing", "n_left_out"), [("network", "pathways", 1), ("gene_sets", "regulators", 3)]
)
def test_one_of_network_and_gene_sets_is_enough(
    files, tmp_path, monkeypatch, kind, missing, n_left_out
):
    bundle = prepare(files, tmp_path / "data", kind)
    shown = show(monkeypatch, tmp_path / "run", "34", data_dir=str(bundle.path))
    assert f"these data have no {missing} of these genes" in headline(shown["4"])
    assert len(left_out([*shown["3"], *shown["4"]])) == n_left_out

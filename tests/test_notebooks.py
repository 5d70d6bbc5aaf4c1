"""Every notebook through the users' own runner, and every report as a colleague opens it."""

import ast
import html
import json
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from genesplice.cli.notebooks import publish_results
from genesplice.data.bundle import load_bundle
from genesplice.evaluate.metrics import METRICS, fold_profiles, score
from genesplice.results import read_metrics
from genesplice.show.notebooks import list_notebooks

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def sources(path: Path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_story_on_the_face_of_the_package(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata.kernelspec.name == "python3"
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
            assert len(cell.source.splitlines()) <= 12, cell.source
    nodes = [node for source in sources(path) for node in ast.walk(ast.parse(source))]
    assert sum(isinstance(node, ast.Import | ast.ImportFrom) for node in nodes) <= 3
    assert not any(isinstance(node, ast.ClassDef) for node in nodes)
    (own,) = (ast.parse(cell.source).body for cell in tagged)
    parameters = {node.target.id for node in own if isinstance(node, ast.AnnAssign)}
    for node in (node for node in nodes if isinstance(node, ast.Assign)):
        names, value = ({one.id for one in ast.walk(part) if isinstance(one, ast.Name)}
                        for part in (ast.Tuple(node.targets), node.value))  # fmt: skip
        assert names & parameters <= value, f"a parameter is forgotten: {ast.unparse(node)}"
    calls = [ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)]
    assert "gs.explorers.Recompute" in calls, "nothing is computed live"
    assert any("assert" in source for source in sources(path)[-1:])


def test_notebooks_need_those_whose_files_they_read():
    """What a notebook writes or reads in the folder of the run is a name in its code."""
    owner, needed = {}, {}
    for info in list_notebooks(ROOT / "notebooks"):
        nodes = [node for source in sources(info.path) for node in ast.walk(ast.parse(source))]
        paths = [n for n in nodes if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div)]
        elsewhere = {n.right for n in paths if ast.unparse(n.left) != "run"}
        constants = [n for n in nodes if isinstance(n, ast.Constant) and n not in elsewhere]
        texts = {str(n.value).split("/")[0] for n in constants}
        needed[info.stem] = {owner[text] for text in texts & owner.keys()}
        joined = [n for n in nodes if isinstance(n, ast.BinOp) and ast.unparse(n.left) == "run"]
        for node in joined:
            owner.setdefault(ast.literal_eval(node.right), info.stem)
        assert needed[info.stem] <= set(info.needs), info.stem
    assert {"pretrained", "finetuned", "metrics.json"} <= owner.keys()
    names = {name[:2]: {one[:2] for one in needs} for name, needs in needed.items()}
    assert names["03"] == {"02"}
    assert names["05"] == {"02", "03"}
    assert names["06"] == set(), "the verdict would depend on what happens to be done"


def test_every_notebook_was_done(tiny_run):
    manifest = json.loads((tiny_run.run_dir / "manifest.json").read_text())
    assert not tiny_run.failures
    assert [Path(report).stem for report in tiny_run.reports] == [path.stem for path in NOTEBOOKS]
    assert manifest["state"] == "done"


def test_what_the_notebooks_leave(tiny_run, tiny_bundle):
    run = tiny_run.run_dir
    predictions = pd.read_parquet(run / "predictions.parquet")
    assert set(predictions["gene_id"]) == set(tiny_bundle.test_genes(0))
    assert {m.metric for m in read_metrics(run / "metrics.json")} >= {"level_r2", "profile_r"}
    assert (run / "pretrained" / "model.safetensors").exists()
    assert len(pd.read_parquet(run / "explained" / "attributions.parquet")) > 0
    influence = pd.read_parquet(run / "explained" / "influence.parquet")
    assert set(influence["kind"]) == {"pathway", "regulator"}
    explained = {m.metric for m in read_metrics(run / "explained" / "metrics.json")}
    assert explained >= {"completeness_delta", "faithful_share"}


def test_the_verdict_is_in_its_report_the_index_and_the_results(tiny_run, tmp_path):
    run = tiny_run.run_dir
    verdict = json.loads((run / "verdict" / "verdict.json").read_text())
    assert verdict["answer"] in ("yes", "no", "cannot tell")
    # So small a run teaches little: where fewer than two lengths learned, there is no slope.
    lengths = [one for one in verdict["conditions"] if not one["is_reference"]]
    learned = [one for one in lengths if one["reason"] is None]
    metrics = {"level_r2", "profile_r"} if len(learned) > 1 else set()
    assert {slope["metric"] for slope in verdict["slopes"]} == metrics
    said = html.escape(verdict["sentence"], quote=False)
    for page in ("index.html", "06_context_verdict.html", "verdict/verdict.html"):
        assert said in html.unescape((run / page).read_text()).replace("&", "&amp;"), page
    assert "shorter than the context under test" in (run / "06_context_verdict.html").read_text()
    results = json.loads(publish_results(run, tmp_path).read_text())
    assert results["verdict"] == verdict
    answers = {row["hypothesis"]: row["answer"] for row in results["claims"]}
    assert (answers["longer context"] == "not measured") == (not verdict["slopes"])
    assert answers["hierarchical attention"] == "not measured"
    explained = {row["metric"] for row in results["faithfulness"]}
    assert "completeness_delta" in explained
    assert {row["split"] for row in results["variants"]} <= {"genome", "measured"}


def test_the_notebooks_numbers_are_in_the_predictions(tiny_run, tiny_bundle):
    bundle = load_bundle(tiny_bundle.path)
    predictions = pd.read_parquet(tiny_run.run_dir / "predictions.parquet")
    again = score(
        predictions,
        bundle.splits.set_index("gene_id")["block"],
        train_profile=fold_profiles(bundle.observed, bundle.fold_of),
    )
    written = read_metrics(tiny_run.run_dir / "metrics.json")
    mine = [metric for metric in written if metric.model == "genesplice"]
    assert again == [m for m in mine if m.split == "test" and m.metric in METRICS]
    (cost,) = [metric for metric in mine if metric.split == "train"]
    assert cost.metric == "cpu_seconds"
    assert cost.value > 0
    strata = {metric.split for metric in mine} - {"test", "train"}
    assert strata == {"held_out:operon_first", "held_out:nearest_train_below_0.1"}


@pytest.mark.browser
@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("stem", ["index", *(path.stem for path in NOTEBOOKS)])
def test_a_report_opens_offline(tiny_run, browser, stem, width):
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    page = context.new_page()
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on(
        "console", lambda message: errors.append(message.text) if message.type == "error" else 0
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    report = tiny_run.run_dir / f"{stem}.html"
    page.goto(report.as_uri())
    # Figures are drawn when they come into view.
    for y in range(0, page.evaluate("document.body.scrollHeight"), 600):
        page.evaluate(f"scrollTo(0, {y})")
        page.wait_for_timeout(30)
    page.wait_for_function(
        "[...document.querySelectorAll('.plotly-graph-div, .js-plotly-plot')]"
        ".every(f => f.querySelector('svg.main-svg'))",
        timeout=20_000,
    )
    n_figures = page.evaluate("document.querySelectorAll('.js-plotly-plot').length")
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert errors == []
    assert n_figures >= {"index": 0, "06_context_verdict": 2}.get(stem, 3)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()

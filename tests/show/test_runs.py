"""Run directories and manifests on disk, without a kernel."""

import json
import shlex
from pathlib import Path

import pytest
from command_line import call
from tiny_notebooks import code, md, write_notebook

from genesplice.cli.notebooks import publish_results
from genesplice.errors import InputError
from genesplice.evaluate.reliability import SHORTER
from genesplice.results import Metric, write_metrics
from genesplice.show.notebooks import NotebookInfo, Task, list_notebooks, make_run_directory
from genesplice.show.runner import (
    expected_seconds,
    find_run,
    iter_runs,
    make_manifest,
    read_manifest,
    save_manifest,
)


@pytest.fixture
def notebooks(tmp_path: Path) -> list[NotebookInfo]:
    for stem in ("01_a", "02_b", "03_c"):
        write_notebook(tmp_path / "notebooks" / f"{stem}.ipynb", md(f"# {stem}"), code("1"))
    return list_notebooks(tmp_path / "notebooks")


def make_run(
    out: Path, notebooks: list[NotebookInfo], done: dict[str, float], preset: str = "quick"
) -> Path:
    directory = make_run_directory(out / "runs", preset)
    tasks = [Task(notebook.stem, notebook, {}) for notebook in notebooks]
    manifest = make_manifest(directory, tasks, ["genesplice", "run"], preset=preset, given={})
    for record in manifest["notebooks"]:
        if record["stem"] in done:
            record |= {"state": "done", "seconds": done[record["stem"]]}
    save_manifest(directory, manifest)
    return directory


def test_a_directory_is_never_given_twice(tmp_path: Path) -> None:
    made = [make_run_directory(tmp_path, "quick") for _ in range(3)]
    assert len(set(made)) == 3
    assert all(path.is_dir() and path.name.split("-")[2] == "quick" for path in made)


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (["done", "done"], "done"),
        (["done", "not run"], "running"),
        (["done", "running"], "running"),
        (["failed", "not run"], "failed"),
        (["interrupted", "not run"], "interrupted"),
    ],
)
def test_the_state_of_a_run_follows_from_its_notebooks(
    tmp_path: Path, notebooks: list[NotebookInfo], states: list[str], state: str
) -> None:
    directory = make_run(tmp_path, notebooks[:2], {})
    manifest = read_manifest(directory)
    for record, one in zip(manifest["notebooks"], states, strict=True):
        record |= {"state": one, "seconds": 1.5}
    save_manifest(directory, manifest)
    assert read_manifest(directory)["state"] == state
    assert read_manifest(directory)["seconds"] == 3.0
    assert {"python", "genesplice", "plotly"} <= set(read_manifest(directory)["versions"])


def test_what_is_no_run_is_refused_or_skipped(
    tmp_path: Path, notebooks: list[NotebookInfo]
) -> None:
    run = make_run(tmp_path, notebooks, {})
    for name, text in (("a", None), ("b", "{"), ("c", "{}"), ("d", "[]")):
        folder = tmp_path / "runs" / name
        folder.mkdir()
        if text is not None:
            (folder / "manifest.json").write_text(text)
        with pytest.raises(InputError, match=r"no manifest.json|not JSON|no notebooks in it"):
            read_manifest(folder)
    assert [directory for directory, _ in iter_runs(tmp_path)] == [run]
    assert list(iter_runs(tmp_path / "nowhere")) == []


def test_a_run_is_found_by_name_path_or_as_the_latest(
    tmp_path: Path, notebooks: list[NotebookInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is none yet"):
        find_run(tmp_path, "latest")
    first, second = (make_run(tmp_path, notebooks, {}) for _ in range(2))
    assert find_run(tmp_path, first.name) == first
    assert find_run(tmp_path, "latest") == second
    assert find_run(Path("elsewhere"), str(first)) == first
    with pytest.raises(InputError, match=f"2 of them, the latest {second.name}.*did you mean"):
        find_run(tmp_path, first.name + "x")


def test_durations_come_from_the_newest_run_of_the_same_preset(
    tmp_path: Path, notebooks: list[NotebookInfo]
) -> None:
    make_run(tmp_path, notebooks, {"01_a": 10.0, "02_b": 20.0})
    make_run(tmp_path, notebooks, {"01_a": 11.0})
    make_run(tmp_path, notebooks, {"01_a": 500.0, "03_c": 500.0}, preset="full")
    assert expected_seconds(tmp_path, "quick") == {"01_a": 11.0, "02_b": 20.0}
    assert expected_seconds(tmp_path, "standard") == {}


PAIR = "genesplice - genesplice"


def metric(value: float, model: str) -> Metric:
    return Metric("profile_r", value, None, None, 10, model, "test")


def test_results_are_gathered_from_a_finished_run(
    tmp_path: Path, notebooks: list[NotebookInfo]
) -> None:
    run = make_run(tmp_path, notebooks, {notebook.stem: 1.0 for notebook in notebooks})
    for name in ("baselines", "finetune"):
        (run / name).mkdir()
    write_metrics(run / "baselines" / "metrics.json", [metric(0.3, "ridge")])
    write_metrics(run / "finetune" / "metrics.json", [metric(0.3, "ridge"), metric(0.4, "gs")])
    slope = Metric("profile_r_per_doubling", 0.012, 0.001, 0.025, 9, "context", "test")
    gain = Metric("profile_r_difference", 0.03, 0.02, 0.04, 9, f"{PAIR}_rewired", "test")
    write_metrics(run / "metrics.json", [slope, gain])
    nonsense = Metric("auroc_nonsense", 0.9, 0.8, 1.0, 50, "genesplice", "genome")
    faithful = Metric("faithful_share", 1.0, None, None, 3, "genesplice", "explained")
    for name, one in (("variants", nonsense), ("explained", faithful)):
        (run / name).mkdir()
        write_metrics(run / name / "metrics.json", [one])
    verdict = {"answer": "no", "rule": {"smallest_effect": 0.02}}
    (run / "verdict.json").write_text(json.dumps(verdict))
    (run / "finetune" / "bench.json").write_text('{"rows": [{"name": "speed"}]}')
    target = publish_results(run, tmp_path / "deep" / "results")
    results = json.loads(target.read_text())
    assert target == tmp_path / "deep" / "results" / "results.json"
    assert set(results) == {
        "metrics",
        "claims",
        "verdict",
        "variants",
        "faithfulness",
        "bench",
        "reliability",
        "made_by",
    }
    assert [(m["model"], m["value"]) for m in results["metrics"]] == [
        ("ridge", 0.3), ("genesplice", 1.0), ("gs", 0.4), ("context", 0.012), (gain.model, 0.03),
        ("genesplice", 0.9),
    ]  # fmt: skip
    assert results["verdict"] == verdict
    assert results["bench"] == [{"name": "speed"}]
    assert results["variants"] == [nonsense._asdict()]
    assert results["faithfulness"] == [faithful._asdict()]
    # Of what all notebooks measured, whichever was done first.
    claims = {(row["control"], row["metric"]): row for row in results["claims"]}
    assert claims["genesplice_rewired", "profile_r"]["value"] == 0.03
    assert claims["genesplice_rewired", "profile_r"]["command"] == "genesplice run"
    assert claims[SHORTER, "profile_r"]["answer"] == "helps"
    assert claims["genesplice_random_sets", "profile_r"]["command"] is None
    answers = {row["answer"] for row in results["claims"]}
    assert answers == {"helps", "cannot tell", "not measured"}
    assert results["reliability"] == {}
    assert results["made_by"] == "genesplice run"

    (run / "finetune" / "verdict.json").write_text(json.dumps(verdict))
    assert publish_results(run, tmp_path) == tmp_path / "results.json"
    for name, text, match in (
        ("verdict.json", '{"answer": "yes"}', "a second verdict, expected one"),
        ("verdict.json", "[]", "list, expected an object"),
        ("ablations.json", "3", "int, expected a list of records"),
        ("ablations.json", "{", "not JSON"),
    ):
        path = run / "finetune" / name
        path.write_text(text)
        with pytest.raises(InputError, match=match):
            publish_results(run, tmp_path)
        path.unlink()


def test_only_a_finished_run_is_published(tmp_path: Path, notebooks: list[NotebookInfo]) -> None:
    run = make_run(tmp_path, notebooks, {"01_a": 1.0})
    with pytest.raises(InputError, match="a run that is running, expected one that is done"):
        publish_results(run, tmp_path)
    assert not (tmp_path / "results.json").exists()


@pytest.mark.slow
def test_the_command_that_goes_on_says_where_reports_are(tmp_path):
    folder = write_notebook(
        tmp_path / "notebooks" / "01_try.ipynb",
        md("# Try"),
        code('run_dir: str = ""', "parameters"),
        code("assert False, 'stops here'"),
    ).parent
    answer = call("run", "--notebooks", folder, "--out", tmp_path / "own")
    assert answer.code == 1
    (line,) = [line for line in answer.err.splitlines() if "to go on from there" in line]
    words = shlex.split(line)
    assert words[words.index("--out") + 1] == str(tmp_path / "own")
    assert words[words.index("--notebooks") + 1] == str(folder)
    assert Path(words[words.index("--resume") + 1]).parent == tmp_path / "own" / "runs"

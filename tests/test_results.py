"""What was measured, gathered: of the committed files, and of others in their place."""

import json
from pathlib import Path

import pytest

from benchmarks.results import (
    INGREDIENTS,
    MARKERS,
    RESULTS,
    ROOT,
    fill,
    gather,
    read_verdict,
    tables,
)
from genesplice.evaluate.reliability import claim_records
from genesplice.results import Metric

KEYS = {
    "metrics", "claims", "verdict", "variants", "faithfulness", "bench", "reliability", "made_by",
}  # fmt: skip
STEM = "finetune_relatives"


def test_results_and_readme_are_those_of_the_measured_files() -> None:
    results = gather()
    committed = json.loads((RESULTS / "results.json").read_text())
    assert committed == json.loads(json.dumps(results)), "python -m benchmarks.results"
    readme = (ROOT / "README.md").read_text()
    assert fill(readme, results) == readme, "python -m benchmarks.results"
    assert all(readme.count(marker) == 1 for marker in MARKERS)


def test_every_part_is_there_and_says_where_it_is_from() -> None:
    results = gather()
    assert set(results) == KEYS
    for part in ("metrics", "variants", "faithfulness"):
        for row in results[part]:
            assert set(row) >= set(Metric._fields)
            assert row["from"] in results["made_by"]
    names = {row["metric"] for row in results["metrics"]}
    assert names >= {"level_spearman", "profile_r", "bits_per_base", "probe_mean"}
    assert {row["hypothesis"] for row in results["claims"]} == set(INGREDIENTS)
    for row in results["claims"]:
        is_measured = row["answer"] != "not measured"
        values = [row[name] for name in ("value", "ci_low", "ci_high", "command", "from")]
        assert all((value is not None) == is_measured for value in values), row
        assert row["control"]
    assert results["verdict"]["answer"] in ("yes", "no", "cannot tell")
    assert {"smallest_effect", "n_runs"} <= set(results["verdict"]["rule"])
    assert results["bench"][0]["name"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The measured files, where they can be changed."""
    for path in RESULTS.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change(folder: Path, stem: str, records: list[dict]) -> None:
    path = folder / f"{stem}.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"metrics": content["metrics"] + records}))


def records(name: str, model: str, value: float, seed: int | None, folds: tuple) -> list[dict]:
    ends = (value - 0.01, value + 0.01, 99)
    return [Metric(name, value, *ends, model, "test", fold, seed)._asdict() for fold in folds]


def keep_one_seed(folder: Path) -> None:
    """As a run of one seed writes it, whose only ablation is of the relatives."""
    path = folder / f"{STEM}.json"
    content, kept = json.loads(path.read_text()), ("genesplice", "genesplice_exchanged_relatives")
    rows = [row for row in content["metrics"] if set(row["model"].split(" - ")) <= set(kept)]
    content["metrics"] = [row for row in rows if row["seed"] in (0, None)]
    path.write_text(json.dumps(content))


def test_five_seeds_and_more_ablations_take_the_place_of_one_seed(folder: Path) -> None:
    keep_one_seed(folder)
    text = tables(gather(folder))
    assert "| GeneSplice, one seed | 0.8" in text
    assert "| gene network (without relatives) |" in text
    folds, more = (None, 0, 1, 2, 3, 4), []
    for metric in ("level_spearman", "profile_r"):
        for seed in range(1, 5):
            more += records(metric, "genesplice", 0.5, seed, folds)
        more += records(metric, "genesplice_ensemble", 0.9, 0, folds)
        more += records(metric, "genesplice_rewired", 0.4, 0, folds)
        pair = "genesplice - genesplice_rewired"
        more += records(f"{metric}_difference", pair, 0.07, None, (None,))
        pair = "genesplice_ensemble - mean_gbm_ridge_everything"
        more += records(f"{metric}_difference", pair, -0.03, None, (None,))
    change(folder, STEM, more)
    results = gather(folder)
    network = [row for row in results["claims"] if row["hypothesis"] == "graph attention"]
    assert {row["from"] for row in network if row["value"] is not None} == {STEM}
    assert {row["value"] for row in network} == {0.07}
    text = tables(results)
    assert "| GeneSplice, mean of 5 seeds | 0.900 (0.890 to 0.910) |" in text
    assert "| difference | -0.030 (-0.040 to -0.020) worse |" in text
    assert "| gene network | a rewired" in text
    assert "| pathways (without relatives) |" in text


def test_what_no_file_has_is_not_measured(folder: Path) -> None:
    for path in folder.glob("*.json"):
        if path.stem not in ("finetune_standard", "verdict_standard"):
            path.unlink()
    results = gather(folder)
    assert results["bench"] == results["variants"] == results["faithfulness"] == []
    (relatives, other) = (
        row for row in results["claims"] if row["control"].endswith("_no_relatives")
    )
    assert relatives["answer"] == other["answer"] == "not measured"
    assert "| GeneSplice, one seed | not measured | not measured |" in tables(results)
    assert results["reliability"] == {}
    (folder / "reliability.json").write_text('{"made_by": "a command", "share": 0.9}')
    assert gather(folder)["reliability"]["share"] == 0.9


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(0.02, 0.04, "helps"), (0.001, 0.009, "does not help"), (-0.02, 0.04, "cannot tell"),
     (-0.05, -0.02, "hurts"), (-0.001, -0.0001, "does not help")],
)  # fmt: skip
def test_what_a_claim_answers(low: float, high: float, answer: str) -> None:
    runs = [
        Metric("profile_r", value, None, None, 9, model, "test", fold, 0)
        for model, value in (("genesplice", 0.5 + low), ("genesplice_rewired", 0.5))
        for fold in range(3)
    ]
    pair = "genesplice - genesplice_rewired"
    runs.append(Metric("profile_r_difference", (low + high) / 2, low, high, 9, pair, "test"))
    claims = claim_records([run._asdict() for run in runs], {}, "a command")
    (row,) = (one for one in claims if one["value"] is not None)
    assert (row["control"], row["answer"]) == ("genesplice_rewired", answer)
    assert row["command"] == "a command"


def test_an_earlier_verdict_has_todays_names() -> None:
    verdict = read_verdict(json.loads((RESULTS / "verdict_standard.json").read_text()))
    assert {"conditions", "controls", "distance_dependence"} <= set(verdict)
    assert not {"arms", "worlds", "instruments", "metrics"} & set(verdict)
    assert "depends_beyond" in verdict["distance_dependence"]
    assert all("arms" not in text and "listens" not in text for text in verdict["disagreements"])

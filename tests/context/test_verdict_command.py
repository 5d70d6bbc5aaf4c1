"""`genesplice verdict` from end to end: refusal, then an answer, on a small control."""

import json
import re
import shutil

import pandas as pd
import pytest
from command_line import call

from genesplice.results import read_metrics

pytestmark = pytest.mark.slow

SETTINGS = [
    "finetune.fewest_genes=1",
    "verdict.contexts_bp=512,4096", "verdict.core_bp=32768", "verdict.epochs=1", "verdict.width=16",
    "verdict.seeds=0,1", "verdict.control_domains=10", "verdict.control_contexts_bp=512,8192",
    "verdict.control_epochs=1", "verdict.control_seeds=0", "verdict.control_folds=0,1",
    "verdict.validation_blocks=0", "verdict.perturbation_genes=2", "verdict.references=short_cnn",
    "verdict.reference_bp=4096",
]  # fmt: skip
SMALL = [word for setting in SETTINGS for word in ("--set", setting)]


def run(*words, verb="verdict"):
    """Exit code, stdout and stderr of `genesplice verdict …`."""
    return call(verb, *words, *SMALL)


@pytest.fixture(scope="module", autouse=True)
def out(tmp_path_factory):
    """A folder of a verdict; what passes is remembered for nobody else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield tmp_path_factory.mktemp("verdict") / "out"


def test_there_is_no_verdict_until_the_controls_have_passed(out, tiny_bundle):
    code, printed, told = run("--data", tiny_bundle.path, "--out", out, "--json")
    assert code == 1, told
    verdict = json.loads((out / "verdict.json").read_text())
    assert verdict["answer"] == "refused"
    assert "No verdict: the simulated controls did not pass" in told
    assert [w["expected"] for w in verdict["controls"]["controls"]] == ["yes", "no", "no", "no"]
    assert verdict["controls"]["failures"] == {}
    for one in verdict["controls"]["controls"]:
        assert [slope["metric"] for slope in one["slopes"]] == ["level_r2"]
        assert {slope["n_runs"] for slope in one["slopes"]} == {2}
    assert json.loads(printed)["page"] == str(out / "verdict.html")
    assert not (out / "tasks").exists()
    assert "No verdict" in (out / "verdict.html").read_text()


@pytest.mark.parametrize(
    "changed",
    [
        {"versions": {"torch": "0.1"}},
        {"source_sha256": "of other code"},
        {"failures": {"distal-context_512-fold0-seed0": "died (signal 9)"}},
    ],
)
def test_a_record_of_other_code_or_of_failed_tasks_does_not_count(out, tiny_bundle, changed):
    record = json.loads((out / "controls.json").read_text())
    (out / "controls.json").write_text(json.dumps({**record, "passed": True, **changed}))
    code, _, told = run("--data", tiny_bundle.path, "--out", out, "--resume")
    assert code == 1
    assert "controls: 16 of 16 tasks are there already" in told
    again = json.loads((out / "controls.json").read_text())
    assert all(again[name] == record[name] for name in changed)


def test_once_they_have_the_conditions_are_judged(out, tiny_bundle):
    record = json.loads((out / "controls.json").read_text())
    (out / "controls.json").write_text(json.dumps({**record, "passed": True}))
    code, printed, told = run("--data", tiny_bundle.path, "--out", out, "--resume")
    assert code == 0, told
    assert printed.splitlines()[0] == str(out / "verdict.html")
    verdict = json.loads((out / "verdict.json").read_text())
    assert verdict["answer"] in ("yes", "no", "cannot tell")
    # One pass over so little teaches nothing: no slope rests on such conditions.
    assert verdict["slopes"] == []
    assert "two context conditions that learned something" in verdict["sentence"]
    assert verdict["context_under_test_bp"] == 4096
    assert all(one["is_excluded"] for one in verdict["conditions"])
    reasons = {one["name"]: one["reason"] for one in verdict["conditions"]}
    assert "worse than their mean" in reasons["context_512"]
    assert reasons["short_cnn"] is None
    assert verdict["distance_dependence"]["n_genes"] == 2
    assert "s of CPU so far" in told


def test_the_files_are_those_of_the_contract(out, tiny_bundle):
    metrics = read_metrics(out / "metrics.json")
    models = {m.model for m in metrics}
    assert models == {"context_512", "context_4096", "short_cnn", "context"}
    slopes = {m.metric: m for m in metrics if m.model == "context"}
    verdict = json.loads((out / "verdict.json").read_text())
    for one in verdict["slopes"]:
        record = slopes[f"{one['metric']}_per_doubling"]
        assert (record.value, record.ci_low) == (one["slope"], one["ci_low"])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["data_sha256"] == tiny_bundle.data_sha256
    assert manifest["config"]["verdict"]["smallest_effect"] == verdict["rule"]["smallest_effect"]
    predictions = pd.read_parquet(out / "predictions.parquet")
    assert set(predictions["seed"]) == {0, 1}
    ablations = pd.read_csv(out / "ablations.tsv", sep="\t")
    records = json.loads((out / "ablations.json").read_text())
    assert [row["answer"] for row in records] == ablations["answer"].tolist()
    assert records[-1]["effect"] is None
    # No slope, no answer of the table.
    assert ablations.loc[ablations["hypothesis"] == "longer context", "answer"].eq("not run").all()


def test_the_page_is_one_file_that_loads_nothing(out):
    page = (out / "verdict.html").read_text()
    text = re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.DOTALL)
    assert "default-src &#39;none&#39;" in text
    assert not re.search(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)\s*=""", text)
    assert "4,096" in text
    assert text.count("shorter than the context under test") == 1
    verdict = json.loads((out / "verdict.json").read_text())
    assert verdict["sentence"][:40] in text


def test_finished_tasks_are_not_run_again(out, tiny_bundle):
    before = {p: p.stat().st_mtime_ns for p in (out / "tasks").iterdir()}
    code, _, told = run("--data", tiny_bundle.path, "--out", out, "--resume")
    assert code == 0
    assert "conditions: 6 of 6 tasks are there already" in told
    assert {p: p.stat().st_mtime_ns for p in (out / "tasks").iterdir()} == before


def test_controls_are_kept_for_another_verdict_and_counted(out, tiny_bundle, tmp_path):
    kept = tmp_path / "seed0"
    shutil.copytree(out, kept)
    record = json.loads((kept / "controls.json").read_text())
    code, _, told = run("--out", tmp_path, "--count", 1, verb="controls")
    assert code == 0
    assert "passed before" in told
    counts = json.loads((tmp_path / "verdict_controls.json").read_text())
    for one, judged in zip(counts["controls"], record["controls"], strict=True):
        assert (one["control"], one["n"]) == (judged["control"], 1)
        assert one[judged["answer"]] == 1
    assert "genesplice controls" in counts["made_by"]
    shutil.copytree(out, tmp_path / "seed7")
    assert run("--out", tmp_path, "--first", 7, "--count", 1, verb="controls")[0] == 0
    assert not (tmp_path / "seed1").exists()
    # It is not as planted when it is run again: a record says so, and none is left that passed.
    new = tmp_path / "new"
    code, _, told = run("--data", tiny_bundle.path, "--out", new, "--controls", kept)
    assert code == 1
    assert 'controls: "distal" is run again, the others passed before' in told
    assert 'controls: "distal" did not come out as planted: all are run again' in told
    assert "controls: 4 of 16 tasks are there already" in told
    assert not json.loads((new / "controls.json").read_text())["passed"]


def test_a_used_folder_needs_resume(out, tiny_bundle):
    code, _, told = run("--data", tiny_bundle.path, "--out", out)
    assert code == 2
    assert "exists and is not empty" in told

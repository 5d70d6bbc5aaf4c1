"""Controls that passed are not all run again: one is, and all where it does not pass."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest

import genesplice as gs
from genesplice.context import controls
from genesplice.context.controls import check_controls, control_environment, read_controls
from genesplice.context.verdict import control_table, controls_sentence
from genesplice.data.bundle import load_bundle
from genesplice.data.simulate import CONTROLS
from genesplice.runtime import processor, versions
from genesplice.training.sweeps import CPU_SECONDS, SweepResult

SETTINGS = [
    "finetune.fewest_genes=1",
    "verdict.control_domains=10", "verdict.control_contexts_bp=512,8192",
    "verdict.control_seeds=0,1,2", "verdict.width=16",
]  # fmt: skip


@pytest.fixture(scope="module")
def config():
    return gs.override(gs.load_preset("quick"), SETTINGS)


class Oracle:
    """Runs tasks without training: predicts as a model would that learned what was planted."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.is_blind = False

    def __call__(self, tasks, folder, label):
        tables = []
        for task in tasks:
            kind, name = task.name.split("-")[:2]
            bundle, settings = load_bundle(task.arguments["data"]), task.arguments["config"]
            (fold,), (seed,) = settings.finetune.folds, settings.finetune.seeds
            observed = bundle.observed.loc[bundle.test_genes(fold)]
            is_lost = kind == "distal" and (name == "context_512" or self.is_blind)
            known = 0.2 if is_lost else 1.0
            noise = np.random.default_rng([seed, len(name)]).normal(0, 0.05, (len(observed), 1))
            guess = observed.mean(axis=None) + known * (observed - observed.mean(axis=None))
            table = (guess + noise).stack().rename("predicted").reset_index()
            table.columns = ["gene_id", "condition", "predicted"]
            about = {"fold": fold, "seed": seed, "model": name, "task": task.name, CPU_SECONDS: 1.0}
            tables.append(table.assign(observed=observed.stack().to_numpy(), **about))
        kinds = {task.name.split("-")[0]: None for task in tasks}
        self.ran += list(kinds)
        return SweepResult(pd.concat(tables, ignore_index=True), {}, float(len(tasks)))


@pytest.fixture
def oracle():
    return Oracle()


def check(config, out, oracle, kept, said=None):
    del oracle.ran[:]
    return check_controls(
        config, out, oracle, kept=kept, progress=(said if said is not None else []).append
    )


@pytest.fixture(scope="module")
def first(config, tmp_path_factory):
    """A folder where all passed once: `out` of that verdict, and what it left in `kept`."""
    folder = tmp_path_factory.mktemp("first")
    check(config, folder / "out", Oracle(), folder / "kept")
    return folder


@pytest.fixture
def kept(first, tmp_path):
    shutil.copytree(first / "kept", tmp_path / "kept")
    return tmp_path / "kept"


@pytest.mark.slow
def test_they_take_turns_and_every_verdict_says_which_are_old(
    config, oracle, kept, first, tmp_path
):
    began = json.loads((first / "out" / "controls.json").read_text())
    assert (began["passed"], began["reused"]) == (True, [])
    assert json.loads((kept / "controls.json").read_text()) == began
    assert controls_sentence(began).startswith("In simulated controls 0.02 per doubling")
    assert set(control_table(began)["run"]) == {"now"}
    # What is in the folder of a verdict already is a part of it.
    assert check(config, first / "out", oracle, kept) == began
    assert oracle.ran == []

    made = {one["control"]: one["made"]["when"] for one in began["controls"]}
    for number, name in enumerate([*CONTROLS, "distal"], 1):
        record = check(config, tmp_path / str(number), oracle, kept)
        assert oracle.ran == [name]
        assert record["passed"]
        assert record["reused"] == [one for one in CONTROLS if one != name]
        assert record["cpu_seconds"] == 6.0
        assert record["steps"] == began["steps"] > 0
        now = {one["control"]: one["made"]["when"] for one in record["controls"]}
        assert {one for one in CONTROLS if now[one] != made[one]} == {name}
        made = now
    table = control_table(record).set_index("what decides")
    assert table.loc["distal", "run"] == "now"
    assert table.loc["network", "run"] == made["network"][:10]
    assert table["is"].tolist() == table["must be"].tolist()
    said = controls_sentence(record)
    assert 'Run again for this verdict: control "distal", the one that had passed' in said
    version = versions()
    libraries = ", ".join(f"{one} {version[one]}" for one in ("genesplice", "python", "torch"))
    assert f'Not run again: control "network", which passed on {made["network"][:10]} with' in said
    assert f"{libraries}, on {processor()}" in said


@pytest.mark.slow
def test_one_that_does_not_come_out_as_planted_has_all_run_again(config, oracle, kept, tmp_path):
    before, oracle.is_blind, said = (kept / "controls.json").read_bytes(), True, []
    record = check(config, tmp_path / "1", oracle, kept, said)
    assert oracle.ran == ["distal", *CONTROLS]
    assert (record["passed"], record["reused"]) == (False, [])
    assert record["controls"][0]["answer"] != "yes"
    assert 'controls: "distal" did not come out as planted: all are run again' in said
    assert (kept / "controls.json").read_bytes() == before


def test_on_another_processor_the_positive_control_is_the_first(config, oracle, kept, tmp_path):
    record = json.loads((kept / "controls.json").read_text())
    for number, one in enumerate(record["controls"]):
        one["made"] |= {"processor": "another", "when": f"2026-01-0{5 - number}"}
    (kept / "controls.json").write_text(json.dumps(record))
    check(config, tmp_path / "2", oracle, kept)
    assert oracle.ran == ["distal"]
    check(config, tmp_path / "3", oracle, kept)
    assert oracle.ran == ["promoter"]


@pytest.mark.parametrize(
    "changed",
    [
        {"source_sha256": "of other code"},
        {"settings_sha256": "of other settings"},
        {"versions": versions() | {"torch": "0.1"}},
        {"versions": versions() | {"genesplice": "0.0.1"}},
        {"versions": {}},
        {"failures": {"distal-context_512-fold0-seed0": "died"}},
    ],
)
def test_a_record_of_something_else_counts_for_nothing(config, kept, changed):
    path, environment = kept / "controls.json", control_environment(config)
    record = json.loads(path.read_text())
    assert read_controls(path, environment) == record
    path.write_text(json.dumps(record | changed))
    assert read_controls(path, environment) is None
    assert read_controls(kept / "nothing.json", environment) is None


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{"passed": False}, {"seed": 3}])
def test_one_that_did_not_pass_or_of_another_seed_is_none_to_begin_from(
    config, oracle, kept, tmp_path, changed
):
    path = kept / "controls.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    check(config, tmp_path / "1", oracle, kept)
    assert oracle.ran == list(CONTROLS)
    assert json.loads(path.read_text())["seed"] == 0


@pytest.mark.slow
def test_what_cannot_be_remembered_is_judged_all_the_same(config, oracle, tmp_path):
    (tmp_path / "file").write_text("")
    assert check(config, tmp_path / "0", oracle, tmp_path / "file" / "kept")["passed"]
    assert oracle.ran == list(CONTROLS)


def test_builds_and_python_do_not_count_and_what_decides_does(config):
    environment = control_environment(config)
    quick, standard = gs.load_preset("quick"), gs.load_preset("standard")
    assert controls.control_settings(quick) == controls.control_settings(standard)
    assert controls.control_settings(quick) != controls.control_settings(gs.load_preset("full"))
    deeper = dataclasses.replace(quick, model=dataclasses.replace(quick.model, head_dropout=0.3))
    assert controls.control_settings(deeper) == controls.control_settings(quick)  # it is set to 0
    ranked = dataclasses.replace(quick, model=dataclasses.replace(quick.model, profile_rank=3))
    assert controls.control_settings(ranked) != controls.control_settings(quick)
    assert controls.source_sha256("genesplice.context.rule") != environment["source_sha256"]
    assert controls.source_sha256("genesplice.errors") == controls.source_sha256(
        "genesplice.errors", "genesplice.no"
    )


def test_a_builder_s_suffix_is_no_other_version(config, kept):
    path = kept / "controls.json"
    record = json.loads(path.read_text())
    torch = record["versions"]["torch"].partition("+")[0]
    record["versions"] |= {"torch": f"{torch}+other", "python": "3.0"}
    path.write_text(json.dumps(record))
    assert read_controls(path, control_environment(config)) == record


def test_the_record_that_is_shipped_is_one_of_controls_that_passed():
    if not controls.SHIPPED.exists():
        pytest.skip("none is shipped: `make controls`")
    record = json.loads(controls.SHIPPED.read_text())
    assert record["passed"]
    assert record["failures"] == {}
    assert record["seed"] == 0
    assert {one["control"]: one["answer"] for one in record["controls"]} == CONTROLS
    assert all(one["made"].keys() >= {"when", "processor", "system", "versions"}
               for one in record["controls"])  # fmt: skip

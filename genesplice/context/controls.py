"""Can the context test say yes and no? It is run on simulated controls, whose truth is planted.

Controls do not depend on the data. Those that have passed with the same code, libraries and
settings are not all run again: they are read from a record, which the package brings for `quick`
and `standard` and which each passed verdict leaves in a folder of this user. One of them is run
again each time: the one that passed longest ago on a processor like this one, and at first the
positive control, which alone shows that models learn here. Where it does not come out as planted,
all four are run.
"""

import ast
import contextlib
import datetime
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from genesplice.config import Config, replace
from genesplice.config.model import REGION_BP
from genesplice.context import conditions
from genesplice.context.rule import ANSWERS, Decision
from genesplice.data.bundle import load_bundle
from genesplice.data.simulate import CONTROLS, ELEMENT_DISTANCE_BP, ControlName, make_control
from genesplice.errors import InputError
from genesplice.runtime import atomic_file, processor, tell, versions, write_json
from genesplice.training.sweeps import Progress, SweepResult

PLANTED_METRIC = "level_r2"
"""What the controls decide by: the level."""
DECIDING = ("genesplice", "numpy", "torch", "torch-geometric", "lightning")
"""Packages whose versions the controls' answers depend on."""
OF_DATA = (
    "contexts_bp", "core_bp", "epochs", "folds", "seeds", "references", "reference_bp",
    "smallest_effect", "relatives", "perturbation_genes", "workers", "threads",
)  # fmt: skip
"""Settings of the verdict that they do not depend on."""
OF_RUNS = ("folds", "seeds", "ablations", "ablation_seeds", "baselines")
"""Settings of fine-tuning that say what is run, not how."""
SHIPPED = Path(__file__).with_name("controls.json")
"""The record that the package brings (`make controls`)."""
NAME = "controls.json"


def kept_folder(config: Config) -> Path:
    """Where controls that passed with these settings are remembered for this user."""
    return platformdirs.user_cache_path("genesplice") / "controls" / control_settings(config)[:12]


def genome_alone(config: Config) -> Config:
    """The settings for simulated controls, which have no relatives."""
    return replace(config, verdict={"relatives": False})


def control_settings(config: Config) -> str:
    """Digest of all settings that the controls' answers depend on."""
    config = genome_alone(config)
    verdict = {k: v for k, v in config.to_dict()["verdict"].items() if k not in OF_DATA}
    any_context = conditions.ContextCondition("context", "hierarchical", 512, False)
    plan = conditions.ConditionPlan((any_context,), REGION_BP, 0, 0)
    epochs = config.verdict.control_epochs
    own = conditions.condition_config(config, plan, any_context, fold=0, seed=0, epochs=epochs)
    settings = own.to_dict()
    finetune = {k: v for k, v in settings["finetune"].items() if k not in OF_RUNS}
    parts = {"verdict": verdict, "model": settings["model"], "finetune": finetune}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def control_environment(config: Config) -> dict[str, Any]:
    """What controls have to be judged in to say anything of conditions that are run now."""
    return {
        "versions": versions(),
        "source_sha256": source_sha256(conditions.__name__, make_control.__module__),
        "settings_sha256": control_settings(config),
    }


def source_sha256(*modules: str) -> str:
    """Hex digest of the names and bytes of modules of this package and of all that they import.

    Two states of a source tree have one version. Settings are not followed: what they hold is
    digested by value.
    """
    root, digest = Path(__file__).resolve().parents[2], hashlib.sha256()
    waiting, sources = [*modules], dict[str, bytes]()
    while waiting:
        name = waiting.pop()
        path = root / name.replace(".", "/")
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in sources or name == "genesplice.config" or not path.exists():
            continue
        sources[name] = path.read_bytes()
        for node in ast.walk(ast.parse(sources[name])):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("genesplice."):
                waiting += [str(node.module), *(f"{node.module}.{one.name}" for one in node.names)]
    for name, source in sorted(sources.items()):
        digest.update(name.encode())
        digest.update(source)
    return digest.hexdigest()


def read_controls(path: Path, environment: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record that `check_controls` wrote, if it holds for these settings, sources and versions.

    A record of tasks that failed holds for nothing: they are run again.
    """
    if not path.exists():
        return None
    record, now = json.loads(path.read_text(encoding="utf-8")), environment["versions"]
    if record["failures"] or any(
        _public(record["versions"].get(name, "")) != _public(now[name]) for name in DECIDING
    ):
        return None
    digests = ("source_sha256", "settings_sha256")
    return record if all(record[name] == environment[name] for name in digests) else None


def _public(version: str) -> str:
    """A version without what a builder appended (`2.9.1+cpu`)."""
    return version.partition("+")[0]


def check_controls(
    config: Config,
    out: Path,
    runner: conditions.Runner,
    *,
    seed: int = 0,
    kept: Path | None = None,
    progress: Progress = tell,
) -> dict[str, Any]:
    """Judge the four controls and write `controls.json`: versions, settings, answers and `passed`.

    A record that is in `out` and holds (see `read_controls`) is taken as it is. Of one that is in
    `kept` or came with the package, and passed, one control is run again; all are, if that one does
    not come out as planted. `made` of a control says when, on which processor and with which
    versions it was run, and `reused` of the record which were not run now. All controls are made
    with `seed`. A control whose tasks failed has not passed.
    """
    out.mkdir(parents=True, exist_ok=True)
    config = genome_alone(config)
    environment = control_environment(config)
    own = read_controls(out / NAME, environment)
    if own is not None:
        progress(f"controls: {'passed' if own['passed'] else 'not passed'} before, in {out}")
        return own
    paths = () if kept is None else (kept / NAME, SHIPPED)
    found = [read_controls(path, environment) for path in paths]
    before = next((one for one in found if one and one["passed"] and one["seed"] == seed), None)
    names: list[ControlName] = list(CONTROLS)
    if before is not None:
        again = longest_ago(before["controls"])
        progress(f'controls: "{again}" is run again, the others passed before')
        record = _judge(config, environment, out, runner, [again], seed, progress)
        (new,) = record["controls"]
        controls = [new if one["control"] == again else one for one in before["controls"]]
        reused = [one["control"] for one in controls if one is not new]
        record |= {"controls": controls, "reused": reused}
        if not record["passed"]:
            progress(f'controls: "{again}" did not come out as planted: all are run again')
            before = None
    if before is None:
        record = _judge(config, environment, out, runner, names, seed, progress)
    write_json(out / NAME, record)
    if kept is not None and record["passed"]:
        # Who cannot keep it runs them again.
        with contextlib.suppress(OSError), atomic_file(kept / NAME) as partial:
            write_json(partial, record)
    return record


def longest_ago(controls: Sequence[Mapping[str, Any]]) -> ControlName:
    """Which control is run again: none of this processor's first, then the oldest."""
    here = processor()

    def age(one: Mapping[str, Any]) -> str:
        return str(one["made"]["when"]) if one["made"]["processor"] == here else ""

    return min(controls, key=age)["control"]  # type: ignore[no-any-return]


def _judge(
    config: Config,
    environment: Mapping[str, Any],
    out: Path,
    runner: conditions.Runner,
    kinds: Sequence[ControlName],
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Run controls of these kinds and apply the rule to each."""
    settings, tasks, plans, bundles = config.verdict, [], {}, {}
    key = json.dumps(environment, sort_keys=True)
    where = out / f"controls-{hashlib.sha256(key.encode()).hexdigest()[:8]}-{seed}"
    for kind in kinds:
        folder = where / kind
        if (folder / "manifest.json").exists():
            bundles[kind] = load_bundle(folder)
        else:
            bundles[kind] = make_control(folder, kind, seed, settings.control_domains)
        contexts = settings.control_contexts_bp
        plans[kind] = conditions.plan_conditions(config, bundles[kind], contexts)
        tasks += conditions.condition_tasks(
            bundles[kind], config, plans[kind], where / "runs", folds=settings.control_folds,
            seeds=settings.control_seeds, epochs=settings.control_epochs, prefix=f"{kind}-",
        )  # fmt: skip
    swept: SweepResult = runner(tasks, where / "tasks", "controls")
    made = {
        "when": datetime.datetime.now().isoformat(timespec="milliseconds"),
        "processor": processor(),
        "system": platform.system(),
        "versions": environment["versions"],
    }
    answers, smallest = [], settings.control_smallest_effect
    for kind in kinds:
        is_own = [name.startswith(f"{kind}-") for name in swept.table.get("task", [])]
        table = swept.table[is_own] if len(swept.table) else swept.table
        try:
            asked = table, bundles[kind], plans[kind], config, [PLANTED_METRIC]
            decision = conditions.judge_conditions(*asked, smallest_effect=smallest)
        except InputError as error:
            decision = Decision("cannot tell", (), f"Cannot tell: {error}.")
        about = {"control": kind, "expected": CONTROLS[kind], "made": made}
        answers.append(about | decision.to_dict())
        progress(f'controls: "{kind}": {decision.answer} (expected {CONTROLS[kind]})')
    epochs = settings.control_epochs
    steps = (conditions.condition_steps(bundles[k].genome, config, plans[k], epochs) for k in kinds)
    return {
        "passed": all(one["answer"] == one["expected"] for one in answers),
        **environment, "seed": seed, "smallest_effect": smallest,
        "element_distance_bp": list(ELEMENT_DISTANCE_BP), "controls": answers, "reused": [],
        "steps": max(steps), "failures": swept.failures, "cpu_seconds": round(swept.cpu_seconds, 1),
    }  # fmt: skip


def count_answers(
    config: Config,
    out: Path,
    runner: conditions.Runner,
    seeds: Sequence[int],
    *,
    progress: Progress = tell,
) -> list[dict[str, Any]]:
    """How often each control comes out as what, over controls made with each of `seeds`.

    One record a control: `control`, `expected`, `n`, a count for each of `ANSWERS`, and `seeds`,
    the answer and slope of each. What belongs to a seed lies in its own folder in `out`, and is
    not run again.
    """
    answers: dict[str, list[dict[str, Any]]] = {kind: [] for kind in CONTROLS}
    for seed in seeds:
        record = check_controls(config, out / f"seed{seed}", runner, seed=seed, progress=progress)
        for one in record["controls"]:
            slope = one["slopes"][0] if one["slopes"] else {}
            limits = {name: slope.get(name) for name in ("slope", "ci_low", "ci_high")}
            answers[one["control"]].append({"seed": seed, "answer": one["answer"], **limits})
    records = []
    for kind, expected in CONTROLS.items():
        given = [one["answer"] for one in answers[kind]]
        counts = {answer: given.count(answer) for answer in ANSWERS} | {"n": len(given)}
        about: dict[str, Any] = {"control": kind, "expected": expected}
        records.append(about | counts | {"seeds": answers[kind]})
    return records

"""Can the test say yes and no? The context verdict on controls whose truth is planted."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from genesplice.config import Config
from genesplice.context.conditions import (
    ConditionPlan,
    condition_steps,
    condition_tasks,
    plan_conditions,
)
from genesplice.context.rule import ANSWERS, Decision, Rule, block_scores, decide
from genesplice.data.bundle import Bundle, load_bundle
from genesplice.data.simulate import CONTROLS, ELEMENT_DISTANCE_BP, make_control
from genesplice.errors import InputError
from genesplice.evaluate.metrics import fold_profiles
from genesplice.runtime import source_sha256, versions, write_json
from genesplice.training.sweeps import SweepResult, Task

Runner = Callable[[Sequence[Task], Path, str], SweepResult]
"""Runs tasks, keeps their tables in a folder and tells of it under a label."""

PLANTED_METRIC = "level_r2"
"""What the controls decide by: the level."""
DECIDING = ("config", "data", "evaluate", "model", "training")
"""The parts of this package that the controls' answers depend on."""


def control_settings(config: Config) -> str:
    """Digest of all settings that the controls' answers depend on."""
    settings = config.to_dict()
    verdict = {
        name: value
        for name, value in settings["verdict"].items()
        if name not in ("contexts_bp", "core_bp", "epochs", "folds", "seeds", "references",
                        "reference_bp", "smallest_effect", "perturbation_genes", "workers",
                        "threads")
    }  # fmt: skip
    parts = {"verdict": verdict, "model": settings["model"], "finetune": settings["finetune"]}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def read_controls(path: Path, config: Config) -> dict[str, Any] | None:
    """The record that `check_controls` wrote, if it holds for these settings, sources and versions.

    A record of tasks that failed holds for nothing: they are run again.
    """
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    holds = not record["failures"] and control_environment(config).items() <= record.items()
    return record if holds else None


def control_environment(config: Config) -> dict[str, Any]:
    """What controls have to be judged in to say anything of conditions that are run now."""
    return {
        "versions": versions(),
        "source_sha256": source_sha256(*DECIDING),
        "settings_sha256": control_settings(config),
    }


def check_controls(
    config: Config, out: Path, runner: Runner, *, seed: int = 0, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Judge the four controls and write `controls.json`: versions, settings, answers and `passed`.

    A record that is there and holds (see `read_controls`) is taken as it is. All controls are made
    with `seed`. A control whose tasks failed has not passed.
    """
    out.mkdir(parents=True, exist_ok=True)
    found = read_controls(out / "controls.json", config)
    if found is not None:
        tell(f"controls: {'passed' if found['passed'] else 'not passed'} before, in {out}")
        return found
    settings, tasks, plans, bundles = config.verdict, [], {}, {}
    environment = control_environment(config)
    key = json.dumps(environment, sort_keys=True)
    where = out / f"controls-{hashlib.sha256(key.encode()).hexdigest()[:8]}-{seed}"
    for kind in CONTROLS:
        folder = where / kind
        bundle = (
            load_bundle(folder)
            if (folder / "manifest.json").exists()
            else make_control(folder, kind, seed, settings.control_domains)
        )
        bundles[kind] = bundle
        plans[kind] = plan_conditions(config, bundle.genome, settings.control_contexts_bp)
        tasks += condition_tasks(
            bundle, config, plans[kind], where / "runs", folds=settings.control_folds,
            seeds=settings.control_seeds, epochs=settings.control_epochs, prefix=f"{kind}-",
        )  # fmt: skip
    swept = runner(tasks, where / "tasks", "controls")
    answers = []
    for kind, expected in CONTROLS.items():
        is_own = [name.startswith(f"{kind}-") for name in swept.table.get("task", [])]
        table = swept.table[is_own] if len(swept.table) else swept.table
        try:
            decision = judge_conditions(
                table, bundles[kind], plans[kind], config, [PLANTED_METRIC],
                smallest_effect=settings.control_smallest_effect,
            )  # fmt: skip
        except InputError as error:
            decision = Decision("cannot tell", (), f"Cannot tell: {error}.")
        answers.append(
            {
                "control": kind,
                "expected": expected,
                "answer": decision.answer,
                "sentence": decision.sentence,
                "slopes": [slope._asdict() for slope in decision.slopes],
            }
        )
        tell(f"controls: {kind}: {decision.answer} (expected {expected})")
    record = {
        "passed": all(one["answer"] == one["expected"] for one in answers),
        **environment,
        "seed": seed,
        "smallest_effect": settings.control_smallest_effect,
        "element_distance_bp": list(ELEMENT_DISTANCE_BP),
        "controls": answers,
        "steps": max(
            condition_steps(bundles[kind].genome, config, plans[kind], settings.control_epochs)
            for kind in CONTROLS
        ),
        "failures": swept.failures,
        "cpu_seconds": round(swept.cpu_seconds, 1),
    }
    write_json(out / "controls.json", record)
    return record


def count_answers(
    config: Config,
    out: Path,
    runner: Runner,
    seeds: Sequence[int],
    *,
    tell: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """How often each control comes out as what, over controls made with each of `seeds`.

    One record a control: `control`, `expected`, `n`, a count for each of `ANSWERS`, and `seeds`,
    the answer and slope of each. What belongs to a seed lies in its own folder in `out`, and is
    not run again.
    """
    answers: dict[str, list[dict[str, Any]]] = {kind: [] for kind in CONTROLS}
    for seed in seeds:
        found = check_controls(config, out / f"seed{seed}", runner, seed=seed, tell=tell)
        for one in found["controls"]:
            slope = one["slopes"][0] if one["slopes"] else {}
            limits = {name: slope.get(name) for name in ("slope", "ci_low", "ci_high")}
            answers[one["control"]].append({"seed": seed, "answer": one["answer"], **limits})
    records = []
    for kind, expected in CONTROLS.items():
        given = [one["answer"] for one in answers[kind]]
        counts: dict[str, Any] = {answer: given.count(answer) for answer in ANSWERS}
        counts |= {"n": len(given), "seeds": answers[kind]}
        records.append({"control": kind, "expected": expected, **counts})
    return records


def judge_conditions(
    predictions: pd.DataFrame,
    bundle: Bundle,
    plan: ConditionPlan,
    config: Config,
    metrics: Sequence[str] | None = None,
    *,
    smallest_effect: float | None = None,
) -> Decision:
    """The rule on the predictions of all conditions; runs that one of them lacks are left out.

    `smallest_effect` in place of the settings': controls have one of their own.

    Raises
    ------
    InputError
        If no run is complete, or the rule cannot be applied to those that are.
    """
    complete = complete_runs(predictions, plan)
    scores = block_scores(
        complete,
        bundle.splits.set_index("gene_id")["block"],
        fold_profiles(bundle.observed, bundle.fold_of),
        plan.context_of,
    )
    settings = config.verdict
    smallest = settings.smallest_effect if smallest_effect is None else smallest_effect
    return decide(scores, Rule(smallest, settings.alpha, settings.power), metrics)


def complete_runs(predictions: pd.DataFrame, plan: ConditionPlan) -> pd.DataFrame:
    """Rows of the context conditions, of those folds and seeds that all of them have.

    Raises
    ------
    InputError
        If there is none.
    """
    wanted = set(plan.context_of)
    if len(predictions):
        rows = predictions[predictions["model"].isin(wanted)]
        count = rows.groupby(["fold", "seed"])["model"].nunique()
        whole = count[count == len(wanted)].index
        complete = rows[pd.MultiIndex.from_frame(rows[["fold", "seed"]]).isin(whole)]
        # Every seed must be there in every fold.
        seeds = [set(part["seed"]) for _, part in complete.groupby("fold")]
        shared = set.intersection(*seeds) if seeds else set()
        if shared:
            return complete[complete["seed"].isin(shared)]
    raise InputError("no fold and seed that all context conditions have", "one at least")

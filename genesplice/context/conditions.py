"""Context conditions: one network with different context lengths, everything else equal.

All conditions of a verdict see the same windows in the same order and take as many optimiser steps;
the encoder runs at full size whatever its context, so that parameters and cost are equal too. It
learns from sequence alone: with network and gene sets in the loss from the first step it learned
nothing of *E. coli*. Then the kernel path is solved on its gene features, the network and the gene
sets. A condition has no counts of 4-mers and codons: these would answer for the sequence near the
gene, and drown few genes in many channels.

Can the test say yes and no? It is run on simulated controls whose truth is planted as well.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from genesplice.config import Config
from genesplice.config.model import REGION_BP, ArchName
from genesplice.context.rule import ANSWERS, Decision, Rule, block_scores, decide
from genesplice.data.bundle import Bundle, load_bundle
from genesplice.data.genome import Genome
from genesplice.data.simulate import CONTROLS, ELEMENT_DISTANCE_BP, make_control
from genesplice.errors import InputError
from genesplice.evaluate.metrics import fold_profiles
from genesplice.model.genesplice import make_encoder
from genesplice.model.references import DilatedCnn
from genesplice.runtime import source_sha256, versions, write_json
from genesplice.training.finetuning import finetune_fold
from genesplice.training.folds import epoch_steps
from genesplice.training.sweeps import Progress, SweepResult, Task

NEVER = 1e6
"""Minutes between checkpoints: a condition that dies in its passes is run again from the start."""
SIZES = (
    "width", "heads", "bin_bp", "bin_layers", "summary_layers", "region_layers", "decoder_layers",
    "graph_layers",
)  # fmt: skip
"""What a condition's network has from the settings of the verdict."""
PLANTED_METRIC = "level_r2"
"""What the controls decide by: the level."""
DECIDING = ("config", "data", "evaluate", "model", "training")
"""The parts of this package that the controls' answers depend on."""
OF_DATA = (
    "contexts_bp", "core_bp", "epochs", "folds", "seeds", "references", "reference_bp",
    "smallest_effect", "perturbation_genes", "workers", "threads",
)  # fmt: skip
"""Settings of the verdict that they do not depend on."""
Runner = Callable[[Sequence[Task], Path, str], SweepResult]
"""Runs tasks, keeps their tables in a folder and reports progress under a label."""


class ContextCondition(NamedTuple):
    """One row of the verdict: an architecture and how many bases an output of it may depend on.

    `is_reference` marks other architectures, which do not enter the slope.
    """

    name: str
    arch: ArchName
    context_bp: int
    is_reference: bool


class ConditionPlan(NamedTuple):
    """The conditions of a genome and the windows of all of them (references have their own)."""

    conditions: tuple[ContextCondition, ...]
    core_bp: int
    flank_bp: int

    @property
    def context_of(self) -> dict[str, int]:
        """Context of the conditions that enter the slope."""
        return {one.name: one.context_bp for one in self.conditions if not one.is_reference}

    @property
    def longest(self) -> ContextCondition:
        """The context under test."""
        tested = (one for one in self.conditions if not one.is_reference)
        return max(tested, key=lambda one: one.context_bp)


def plan_conditions(
    config: Config, genome: Genome, contexts_bp: Sequence[int], references: Sequence[ArchName] = ()
) -> ConditionPlan:
    """Conditions for a genome: contexts beyond the longest contig become the whole of it."""
    settings = config.verdict
    whole = max(contig.length for contig in genome.contigs)
    inside = [context for context in contexts_bp if context < whole]
    conditions = [
        ContextCondition(f"context_{context}", "hierarchical", context, False) for context in inside
    ]
    core_bp, flank_bp = settings.core_bp, _up(max(inside, default=0) // 2)
    if len(inside) < len(contexts_bp):
        conditions.append(ContextCondition("context_whole", "hierarchical", whole, False))
        core_bp, flank_bp = _up(whole), 0
    for arch in references:
        conditions.append(ContextCondition(arch, arch, _input_length(config, arch), True))
    return ConditionPlan(tuple(conditions), core_bp, flank_bp)


def condition_config(
    config: Config,
    plan: ConditionPlan,
    condition: ContextCondition,
    *,
    fold: int,
    seed: int,
    epochs: int,
) -> Config:
    """The settings of one run of one condition.

    The genome alone: what is shuffled beyond a distance must not stay readable in the columns of
    its relatives.
    """
    settings, is_whole = config.verdict, condition.name == "context_whole"
    is_limited = not (condition.is_reference or is_whole)
    model = dataclasses.replace(
        config.model, **{name: getattr(settings, name) for name in SIZES}, base_width=0,
        arch=condition.arch, context_bp=condition.context_bp if is_limited else None,
        annotation=True, relatives=False, composition=False, dropout=0.0, head_dropout=0.0,
    )  # fmt: skip
    core_bp, flank_bp, batch_windows = plan.core_bp, plan.flank_bp, 1
    if condition.is_reference:
        core_bp, flank_bp = settings.reference_bp, _up(settings.reference_bp // 4)
        # As many genes a step, and as many steps, as the others.
        batch_windows = -(-plan.core_bp // core_bp)
    finetune = dataclasses.replace(
        config.finetune, folds=(fold,), seeds=(seed,),
        core_bp=core_bp, flank_bp=flank_bp, batch_windows=batch_windows,
        mode="full", kernel=True, head_steps=settings.head_steps, epochs=0, sequence_epochs=epochs,
        learning_rate=settings.learning_rate, sequence_rate=settings.learning_rate,
        validation_blocks=settings.validation_blocks, checkpoint_minutes=NEVER,
    )  # fmt: skip
    return dataclasses.replace(config, model=model, finetune=finetune)


def run_condition(data: Path, config: Config, out: Path, condition: str) -> pd.DataFrame:
    """Train one condition on one fold with one seed; its rows of `predictions.parquet`.

    The model stays in `out`, with the log of the run in a `.log` next to it.
    """
    (fold,), (seed,) = config.finetune.folds or (), config.finetune.seeds
    out.parent.mkdir(parents=True, exist_ok=True)
    log = out.with_name(f"{out.name}.log")
    with log.open("w") as handle, contextlib.redirect_stderr(handle):
        run = finetune_fold(load_bundle(data), config, fold=fold, seed=seed, out=out, resume=True)
    return run.predictions.assign(model=condition)


def condition_tasks(
    bundle: Bundle,
    config: Config,
    plan: ConditionPlan,
    out: Path,
    *,
    folds: Sequence[int],
    seeds: Sequence[int],
    epochs: int,
    prefix: str = "",
) -> list[Task]:
    """One task for each condition, fold and seed; they cost about the same."""
    tasks = []
    for fold in folds:
        for seed in seeds:
            for condition in plan.conditions:
                name = f"{prefix}{condition.name}-fold{fold}-seed{seed}"
                own = condition_config(config, plan, condition, fold=fold, seed=seed, epochs=epochs)
                arguments = {"data": bundle.path.resolve(), "config": own}
                arguments |= {"out": out.resolve() / name, "condition": condition.name}
                tasks.append(Task(name, run_condition, arguments))
    return tasks


def condition_steps(genome: Genome, config: Config, plan: ConditionPlan, epochs: int) -> int:
    """Optimiser steps of one run of a context condition."""
    own = condition_config(config, plan, plan.longest, fold=0, seed=0, epochs=epochs)
    return epochs * epoch_steps(genome, own.finetune)


def _up(length: int) -> int:
    """The next multiple of a region."""
    return -(-length // REGION_BP) * REGION_BP


def _input_length(config: Config, arch: ArchName) -> int:
    """How many bases an output of a reference architecture depends on."""
    settings = config.verdict
    sizes = dataclasses.replace(
        config.model, arch=arch, context_bp=None, width=settings.width, heads=settings.heads,
        bin_bp=settings.bin_bp, base_width=0,
    )  # fmt: skip
    encoder = make_encoder(sizes)
    if isinstance(encoder, DilatedCnn):
        return encoder.receptive_field_bp
    return settings.reference_bp + 2 * _up(settings.reference_bp // 4)


# --- simulated controls ---


def control_settings(config: Config) -> str:
    """Digest of all settings that the controls' answers depend on."""
    settings = config.to_dict()
    verdict = {name: one for name, one in settings["verdict"].items() if name not in OF_DATA}
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
    config: Config,
    out: Path,
    runner: Runner,
    *,
    seed: int = 0,
    progress: Progress = print,
) -> dict[str, Any]:
    """Judge the four controls and write `controls.json`: versions, settings, answers and `passed`.

    A record that is there and holds (see `read_controls`) is taken as it is. All controls are made
    with `seed`. A control whose tasks failed has not passed.
    """
    out.mkdir(parents=True, exist_ok=True)
    before = read_controls(out / "controls.json", config)
    if before is not None:
        progress(f"controls: {'passed' if before['passed'] else 'not passed'} before, in {out}")
        return before
    settings, tasks, plans, bundles = config.verdict, [], {}, {}
    environment = control_environment(config)
    key = json.dumps(environment, sort_keys=True)
    where = out / f"controls-{hashlib.sha256(key.encode()).hexdigest()[:8]}-{seed}"
    for kind in CONTROLS:
        folder = where / kind
        bundles[kind] = (
            load_bundle(folder)
            if (folder / "manifest.json").exists()
            else make_control(folder, kind, seed, settings.control_domains)
        )
        plans[kind] = plan_conditions(config, bundles[kind].genome, settings.control_contexts_bp)
        tasks += condition_tasks(
            bundles[kind], config, plans[kind], where / "runs", folds=settings.control_folds,
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
        answers.append({"control": kind, "expected": expected, **decision.to_dict()})
        progress(f"controls: {kind}: {decision.answer} (expected {expected})")
    epochs = settings.control_epochs
    steps = [condition_steps(bundles[k].genome, config, plans[k], epochs) for k in CONTROLS]
    record = {
        "passed": all(one["answer"] == one["expected"] for one in answers),
        **environment, "seed": seed, "smallest_effect": settings.control_smallest_effect,
        "element_distance_bp": list(ELEMENT_DISTANCE_BP), "controls": answers, "steps": max(steps),
        "failures": swept.failures, "cpu_seconds": round(swept.cpu_seconds, 1),
    }  # fmt: skip
    write_json(out / "controls.json", record)
    return record


def count_answers(
    config: Config, out: Path, runner: Runner, seeds: Sequence[int], *, progress: Progress = print
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
    profile = fold_profiles(bundle.observed, bundle.fold_of)
    scores = block_scores(complete, bundle.block_of, profile, plan.context_of)
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
        is_whole = count.eq(len(wanted)).unstack(fill_value=False)
        is_whole = is_whole[is_whole.any(axis=1)]
        # Every seed must be there in every fold.
        seeds = is_whole.columns[is_whole.all()]
        if is_whole.size and len(seeds):
            return rows[rows["fold"].isin(is_whole.index) & rows["seed"].isin(seeds)]
    raise InputError("no fold and seed that all context conditions have", "one at least")

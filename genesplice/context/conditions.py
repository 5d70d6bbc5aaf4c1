"""Context conditions: one network with different context lengths, everything else equal.

All conditions of a verdict see the same cores of windows in the same order and take as many
optimiser steps; their networks have equal parameters. Beside a core each encodes as far as its
context reaches from the core's genes: what lies beyond changes nothing, and costs. The encoder
learns from sequence alone: with network and gene sets in the loss from the first step it learned
nothing of *E. coli*. Then the kernel path is solved on its gene features, the network and the gene
sets. A condition has no counts of 4-mers and codons: these would answer for the sequence near the
gene, and drown few genes in many channels.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from genesplice.config import Config
from genesplice.config.model import REGION_BP, ArchName
from genesplice.context.rule import Decision, Rule, block_scores, decide
from genesplice.data.bundle import Bundle, load_bundle
from genesplice.data.genome import Genome
from genesplice.errors import InputError
from genesplice.evaluate.metrics import fold_profiles
from genesplice.model.genesplice import make_encoder
from genesplice.model.references import DilatedCnn
from genesplice.training.finetuning import finetune_fold
from genesplice.training.folds import epoch_steps
from genesplice.training.sweeps import SweepResult, Task

NEVER = 1e6
"""Minutes between checkpoints: a condition that dies in its passes is run again from the start."""
AROUND_GENE_BP = 1024
"""More than what is read of a gene before its start and behind its end."""
SIZES = (
    "width", "heads", "bin_bp", "bin_layers", "summary_layers", "region_layers", "decoder_layers",
    "graph_layers",
)  # fmt: skip
"""What a condition's network has from the settings of the verdict."""
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
    """The conditions of a genome and the windows of all of them (references have their own).

    `flank_bp` is that of the longest context, `gene_bp` the length of the longest gene.
    """

    conditions: tuple[ContextCondition, ...]
    core_bp: int
    flank_bp: int
    gene_bp: int

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
    config: Config, bundle: Bundle, contexts_bp: Sequence[int], references: Sequence[ArchName] = ()
) -> ConditionPlan:
    """Conditions for a genome: contexts beyond the longest contig become the whole of it."""
    settings = config.verdict
    whole = max(contig.length for contig in bundle.genome.contigs)
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
    gene_bp = int((bundle.genes["end"] - bundle.genes["start"]).max())
    return ConditionPlan(tuple(conditions), core_bp, flank_bp, gene_bp)


def condition_config(
    config: Config,
    plan: ConditionPlan,
    condition: ContextCondition,
    *,
    fold: int,
    seed: int,
    epochs: int,
) -> Config:
    """The settings of one run of one condition."""
    settings, is_whole = config.verdict, condition.name == "context_whole"
    is_limited = not (condition.is_reference or is_whole)
    model = dataclasses.replace(
        config.model, **{name: getattr(settings, name) for name in SIZES}, base_width=0,
        arch=condition.arch, context_bp=condition.context_bp if is_limited else None,
        annotation=True, relatives=settings.relatives, composition=False,
        dropout=0.0, head_dropout=0.0,
    )  # fmt: skip
    seen_bp = plan.gene_bp + AROUND_GENE_BP + condition.context_bp // 2
    core_bp, flank_bp, batch_windows = plan.core_bp, min(plan.flank_bp, _up(seen_bp)), 1
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
    for fold, seed, condition in product(folds, seeds, plan.conditions):
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

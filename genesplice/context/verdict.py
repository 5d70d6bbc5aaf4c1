"""Does longer context help here? Controls first, then the conditions, then distance dependence.

The answer comes from the context conditions alone, by the rule of `genesplice.context.rule`.
Perturbation and gradient ask one trained model how far away the sequence lies that it depends on;
where they point another way, that is said with the answer.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from genesplice.config import Config
from genesplice.context.conditions import (
    ConditionPlan,
    condition_steps,
    condition_tasks,
    plan_conditions,
)
from genesplice.context.controls import Runner, check_controls, judge_conditions
from genesplice.context.perturbation import (
    distance_bands,
    dose_response,
    field_bp,
    kept_share,
    mass_by_distance,
    share_without_sequence,
)
from genesplice.context.report import VerdictReport
from genesplice.context.rule import ANSWERS, FEWEST_SLOPES, Decision
from genesplice.data.bundle import Bundle
from genesplice.errors import InputError
from genesplice.evaluate.metrics import fold_profiles, score
from genesplice.evaluate.reliability import COST
from genesplice.predict.gene_output import Explainer
from genesplice.predict.models import load_fold
from genesplice.results import Metric
from genesplice.training.loops import begin_run
from genesplice.training.sweeps import CPU_SECONDS, SweepResult, Task, run_tasks, run_tasks_on_ray

FLAT = 1e-3
"""Predicted levels that vary less than this share of the measured ones are constant."""
REFUSED = "refused"
"""The answer where the simulated controls have not passed."""
KEPT = 0.9
"""A model that keeps so much of its predictions does not depend on what was shuffled."""
FIELD = 0.9
BLIND = 0.99
"""A model that keeps so much of its predictions when all sequence is shuffled can say no *no*."""
LARGEST_WINDOW_BP = 65_536
"""What the second and third instrument read of a longer context."""

Tell = Callable[[str], None]


def make_runner(config: Config, ray: str | None = None, tell: Tell = print) -> Runner:
    """What runs tasks: a pool of processes here, or the Ray cluster at the address `ray`."""
    settings = config.verdict

    def runner(tasks: Sequence[Task], folder: Path, label: str) -> SweepResult:
        shared: dict[str, Any] = {"threads": settings.threads, "tell": tell, "label": label}
        if ray is not None:
            return run_tasks_on_ray(tasks, folder, ray, **shared)
        return run_tasks(tasks, folder, workers=settings.workers, **shared)

    return runner


def context_test(
    bundle: Bundle,
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    ray: str | None = None,
    controls: Path | None = None,
    tell: Tell = print,
) -> VerdictReport:
    """Run the simulated controls and the context conditions in `out` and apply the rule.

    Tables of tasks stay in `out`: with `resume` only what is missing is run. Until the controls
    have passed with these settings and versions the answer is `REFUSED` and no condition is run.
    They do not depend on the data: `controls` is a folder where they are kept for several verdicts,
    else `out`.

    Raises
    ------
    InputError
        If `out` is in use and `resume` is False, or was begun with other settings; or a fold does
        not exist.
    """
    begin_run(out, config, resume, bundle.data_sha256)
    settings, runner = config.verdict, make_runner(config, ray, tell)
    folds = tuple(range(bundle.n_folds)) if settings.folds is None else settings.folds
    for fold in folds:
        bundle.test_genes(fold)  # raises for a fold that is not there
    truth = check_controls(config, controls or out, runner, tell=tell)
    plan = plan_conditions(config, bundle.genome, settings.contexts_bp, settings.references)
    if not truth["passed"]:
        wrong = [one for one in truth["controls"] if one["answer"] != one["expected"]]
        listed = ", ".join(
            f"{one['control']} {one['answer']} in place of {one['expected']}" for one in wrong
        )
        decision = Decision(
            REFUSED, (), f"No verdict: the simulated controls did not pass ({listed})."
        )
        empty = pd.DataFrame()
        verdict = verdict_record(decision, config, plan, truth, SweepResult(empty, {}, 0.0))
        return VerdictReport(verdict, [], empty, empty, empty)
    tasks = condition_tasks(
        bundle, config, plan, out / "runs", folds=folds, seeds=settings.seeds,
        epochs=settings.epochs,
    )  # fmt: skip
    swept = runner(tasks, out / "tasks", "conditions")
    metrics: list[Metric] = []
    untrained = without_learning(swept.table, plan)
    learned = tuple(one for one in plan.conditions if one.name not in untrained)
    try:
        if untrained and len(plan.context_of) - len(untrained) < 2:
            listed = "; ".join(f"{name} {reason}" for name, reason in untrained.items())
            raise InputError(listed, "two context conditions that learned something")
        decision = judge_conditions(swept.table, bundle, plan._replace(conditions=learned), config)
    except InputError as error:
        decision = Decision(ANSWERS[2], (), f"Cannot tell: {error}.")
    if len(swept.table):
        metrics = score(
            swept.table,
            bundle.splits.set_index("gene_id")["block"],
            train_profile=fold_profiles(bundle.observed, bundle.fold_of),
        )
    metrics += [
        Metric(f"{s.metric}_per_doubling", s.slope, s.ci_low, s.ci_high, s.n, "context", "test")
        for s in decision.slopes
    ]
    is_condition = swept.table.get("model", pd.Series(dtype=object)).isin(plan.context_of)
    if is_condition.any():
        spent = swept.table[is_condition].groupby("task")[CPU_SECONDS].max().sum()
        metrics.append(Metric(COST, float(spent), None, None, 1, "context", "train"))
    steps = condition_steps(bundle.genome, config, plan, settings.epochs), truth["steps"]
    decision = question_steps(decision, *steps)
    verdict = verdict_record(decision, config, plan, truth, swept, untrained)
    verdict |= dict(zip(("steps", "control_steps"), steps, strict=True))
    dose, mass, blind = pd.DataFrame(), pd.DataFrame(), None
    model = out / "runs" / f"{plan.longest.name}-fold{folds[0]}-seed{settings.seeds[0]}"
    if settings.perturbation_genes and (model / "model.safetensors").exists():
        tell(
            f"distance dependence: {settings.perturbation_genes} held-out genes of fold {folds[0]}"
        )
        dose, mass, blind = _measure(bundle, model, plan, folds[0], settings.perturbation_genes)
    decision = question_no(decision, blind)
    verdict |= {"answer": decision.answer, "sentence": decision.sentence}
    contexts = min(plan.context_of.values()), plan.longest.context_bp
    verdict |= compare_distance_dependence(decision.answer, dose, mass, *contexts, blind)
    return VerdictReport(verdict, metrics, swept.table, dose, mass)


def _measure(
    bundle: Bundle, model: Path, plan: ConditionPlan, fold: int, n_genes: int
) -> tuple[pd.DataFrame, pd.DataFrame, float | None]:
    """Dose-response and mass by distance of held-out genes, and what needs no sequence.

    Nothing, and None, where no gene is short enough for their window.
    """
    window_bp = max(min(plan.longest.context_bp, LARGEST_WINDOW_BP) // 2048, 1) * 2048
    explainer = Explainer(load_fold(model), bundle, window_bp=window_bp)
    edges = distance_bands(window_bp)
    genes = bundle.genes.set_index("gene_id")
    # A gene that is longer than the window has nothing beyond itself.
    test = [
        gene
        for gene in bundle.test_genes(fold)
        if genes.loc[gene, "end"] - genes.loc[gene, "start"] < window_bp // 4
    ]
    chosen = np.random.default_rng([fold, 17]).permutation(test)[:n_genes].tolist()
    if not chosen:
        return pd.DataFrame(), pd.DataFrame(), None
    dose, mass = (work(explainer, chosen, edges) for work in (dose_response, mass_by_distance))
    return dose, mass, share_without_sequence(explainer, chosen)


def without_learning(predictions: pd.DataFrame, plan: ConditionPlan) -> dict[str, str]:
    """Context conditions that have learned nothing, and why: a slope must not rest on them.

    Their predicted levels are constant over the held-out genes of a run, or further from the
    measured ones than the mean is, over all runs.
    """
    reasons: dict[str, str] = {}
    for name in plan.context_of:
        rows = predictions[predictions["model"] == name] if len(predictions) else predictions
        if rows.empty:
            continue
        levels = rows.groupby(["fold", "seed", "gene_id"])[["observed", "predicted"]].mean()
        runs = levels.groupby(["fold", "seed"])
        spread = runs.std(ddof=0)
        error = (levels["predicted"] - levels["observed"]) ** 2
        total = (levels["observed"] - runs["observed"].transform("mean")) ** 2
        if (spread["predicted"] < FLAT * spread["observed"]).any():
            reasons[name] = "predicts the same level for all genes"
        elif error.sum() > total.sum():
            reasons[name] = "predicts levels worse than their mean does"
    return reasons


def question_steps(decision: Decision, steps: int, control_steps: int) -> Decision:
    """Take a *no* back whose conditions took fewer steps than those that found what was planted."""
    if decision.answer != "no" or steps >= control_steps:
        return decision
    sentence = (
        f"Cannot tell whether longer context helps: the conditions took {steps} steps, and those "
        f"that had to find a planted element took {control_steps} (verdict.epochs)."
    )
    return decision._replace(answer="cannot tell", sentence=sentence)


def question_no(decision: Decision, kept_without_sequence: float | None) -> Decision:
    """Take a *no* back where `BLIND` or more of the predictions is left without any sequence.

    Where that was not measured (None), the sentence says so.
    """
    if decision.answer != "no":
        return decision
    if kept_without_sequence is None:
        sentence = (
            f"{decision.sentence.rstrip('.')}; whether the predictions need any sequence was not "
            "measured (verdict.perturbation_genes)."
        )
        return decision._replace(sentence=sentence)
    if kept_without_sequence < BLIND:
        return decision
    sentence = (
        f"Cannot tell whether longer context helps: {kept_without_sequence:.1%} of the differences "
        "between predictions is left when all sequence is shuffled, so that no context could have "
        "changed them."
    )
    return decision._replace(answer=ANSWERS[2], sentence=sentence)


def compare_distance_dependence(
    answer: str,
    dose: pd.DataFrame,
    mass: pd.DataFrame,
    shortest_bp: int,
    longest_bp: int,
    kept_without_sequence: float | None = None,
) -> dict[str, Any]:
    """Distance dependence by three methods, and where they contradict `answer` or each other.

    A model depends on distal sequence if less than `KEPT` of its predictions is left once
    everything beyond the shortest context is shuffled, or if `FIELD` of the mass of gradient or
    perturbation lies farther out. Mass is counted in shares: for a model that needs no sequence it
    means nothing (None). Dependence is no gain: only the conditions measure one. Nothing is said
    of what lies outside of the window.
    """
    if dose.empty or mass.empty:
        return {"distance_dependence": None, "disagreements": []}
    half = shortest_bp // 2
    shares = kept_share(dose)
    near = shares[shares["distance_bp"] <= half]
    kept = float(near["share"].iloc[-1]) if len(near) else 1.0
    is_blind = kept_without_sequence is not None and kept_without_sequence >= BLIND
    half_window = int(mass["high_bp"].max())
    found: dict[str, Any] = {
        "window_bp": 2 * half_window,
        "kept_without_sequence": kept_without_sequence,
        "kept_beyond_shortest": kept,
        "field_gradient_bp": field_bp(mass, "gradient", FIELD),
        "field_perturbation_bp": field_bp(mass, "perturbation", FIELD),
        "n_genes": int(dose["gene_id"].nunique()),
    }
    depends = {
        "dose-response": kept < KEPT,
        "gradient": None if is_blind else found["field_gradient_bp"] > half,
        "perturbation": None if is_blind else found["field_perturbation_bp"] > half,
    }
    found["depends_beyond"] = depends
    disagreements = []
    sides = [[name for name, does in depends.items() if does is side] for side in (True, False)]
    if all(sides):
        far, near = (" and ".join(side) for side in sides)
        disagreements.append(
            f"The methods disagree about the model of the longest context: {far} found that it "
            f"depends on sequence further than {half} bp, {near} did not."
        )
    within = (
        f", within the {half_window} bp that were measured" if 2 * half_window < longest_bp else ""
    )
    for name, does in depends.items():
        if answer == "yes" and does is False:
            disagreements.append(
                f"The conditions say yes, but {name} finds that the model of the longest context "
                f"hardly depends on anything further than {half} bp{within}."
            )
        if answer == "no" and does:
            disagreements.append(
                f"The conditions say no, but {name} finds that the model of the longest context "
                f"depends on sequence further than {half} bp: it gains nothing by it."
            )
    return {"distance_dependence": found, "disagreements": disagreements}


def verdict_record(
    decision: Decision,
    config: Config,
    plan: ConditionPlan,
    controls: dict[str, Any],
    swept: SweepResult,
    untrained: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """What `verdict.json` holds; runs are counted as the rule counts them.

    `untrained` conditions, and references that read less than the context under test, are excluded.
    """
    settings, tested = config.verdict, plan.longest.context_bp
    n_runs = min((slope.n_runs for slope in decision.slopes), default=0)
    return {
        "answer": decision.answer,
        "sentence": decision.sentence,
        "rule": {
            "smallest_effect": settings.smallest_effect,
            "alpha": settings.alpha,
            "power": settings.power,
            "n_runs": n_runs,
            "counts_shared_variance": n_runs >= FEWEST_SLOPES,
        },
        "slopes": [slope._asdict() for slope in decision.slopes],
        "context_under_test_bp": tested,
        "conditions": [
            {
                **one._asdict(),
                "is_excluded": one.name in untrained
                or (one.is_reference and one.context_bp < tested),
                "reason": untrained.get(one.name),
            }
            for one in plan.conditions
        ],
        "controls": controls,
        "failures": swept.failures,
        "cpu_seconds": round(swept.cpu_seconds + controls["cpu_seconds"], 1),
        "distance_dependence": None,
        "disagreements": [],
    }

"""Does an ingredient help? Each hypothesis with its ablation controls: yes, no or cannot tell.

An ablation is the same model with the ingredient in question destroyed. A hypothesis is as good as
its strongest ablation: where the model does not beat one of them, the ingredient has shown nothing.
"""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t as student

from genesplice.errors import InputError
from genesplice.results import Metric, to_metrics

Answer = Literal["yes", "no", "cannot tell"]
ABLATION_COLUMNS = (
    "hypothesis", "metric", "model", "ablation", "effect", "ci_low", "ci_high", "n_runs", "seeds",
    "cpu_seconds", "answer",
)  # fmt: skip
COST = "cpu_seconds"
NOT_RUN: Literal["not run"] = "not run"
ENOUGH_RUNS = 3
SHORTER = "the same network with a shorter context"


class Hypothesis(NamedTuple):
    """What is asked, of which model, and the names of its ablations in the records.

    Without ablations the effect is per doubling of context, from records `<metric>_per_doubling`.
    """

    name: str
    model: str
    ablations: tuple[str, ...]


HYPOTHESES: tuple[Hypothesis, ...] = (
    Hypothesis("longer context", "context", ()),
    Hypothesis(
        "hierarchical attention",
        "genesplice",
        ("genesplice_local_only", "genesplice_permuted_regions"),
    ),
    Hypothesis("adaptive schedule", "genesplice", ("genesplice_constant_rate",)),
    Hypothesis("graph attention", "genesplice", ("genesplice_rewired", "genesplice_no_network")),
    Hypothesis(
        "pre-training",
        "genesplice",
        ("genesplice_random_encoder", "genesplice_shuffled_pretraining"),
    ),
    Hypothesis("pathway knowledge", "genesplice", ("genesplice_random_sets", "genesplice_no_sets")),
)
"""The question itself and the five proposals."""


def answer_from_interval(
    low: float | None, high: float | None, smallest_effect: float = 0.0
) -> Answer:
    """*yes* above 0 where the effect may matter, *no* where it is below what matters, or neither.

    Parameters
    ----------
    low, high
        95 % interval of a difference, more is better; without one nobody can tell.
    smallest_effect
        The smallest effect of interest.
    """
    if low is None or high is None:
        return "cannot tell"
    if low > 0 and high >= smallest_effect:
        return "yes"
    return "no" if high < smallest_effect else "cannot tell"


class Judgement(NamedTuple):
    """What was asked, the answer ("not run" without a record), and why, in a sentence."""

    hypothesis: str
    answer: Answer | Literal["not run"]
    sentence: str


def judge(hypothesis: str, difference: Metric, *, is_lower_better: bool = False) -> Judgement:
    """Answer from the interval of the difference between a model and its ablation.

    Raises
    ------
    InputError
        If the metric is not a difference.
    """
    if not difference.metric.endswith("_difference"):
        raise InputError(f"metric {difference.metric!r}", "a difference from an ablation")
    low, high = difference.ci_low, difference.ci_high
    interval, ends = "no interval", (low, high)
    if low is not None and high is not None:
        interval = f"{low:+.4f} to {high:+.4f}"
        ends = (-high, -low) if is_lower_better else (low, high)
    answer = answer_from_interval(*ends)
    name = difference.metric.removesuffix("_difference")
    sentence = (
        f"{hypothesis}: {answer}. {name} of {difference.model}: {difference.value:+.4f} "
        f"({interval}, n = {difference.n:,}; {'lower' if is_lower_better else 'higher'} is better)."
    )
    return Judgement(hypothesis, answer, sentence)


def ablation_table(
    metrics: Iterable[Metric] | pd.DataFrame,
    *,
    hypotheses: Sequence[Hypothesis] = HYPOTHESES,
    names: Sequence[str] = ("level_spearman", "profile_r"),
    context_names: Sequence[str] = ("level_r2", "profile_r"),
    smallest_effect: float = 0.01,
    min_seeds: int = 2,
    context_answer: str | None = None,
) -> pd.DataFrame:
    """One row for each hypothesis, ablation and metric (columns `ABLATION_COLUMNS`).

    The effect is model less ablation: a record `<metric>_difference` of "MODEL - ABLATION" where
    there is one (`evaluate.metrics.paired_difference`), else the mean over the folds and seeds
    that both have. Its 95 % interval is the wider one, at either end, of that record (which genes
    were held out) and of Student's t over runs (how training went; of three runs or more). The
    answer is that of `answer_from_interval`, "cannot tell" with fewer than `min_seeds` seeds and
    three runs, and "not run" where model or ablation has no records. `cpu_seconds` is what the
    runs of model and ablation together took to train, from records of that name, and None where
    one of them lacks them.

    Parameters
    ----------
    metrics
        Records as in metrics.json, or a table of them.
    context_answer
        What the context verdict said at last: where it took a *no* back, so does the row.

    Raises
    ------
    InputError
        If `smallest_effect` is not above 0.
    """
    if smallest_effect <= 0:
        raise InputError(f"smallest_effect {smallest_effect:g}", "above 0")
    if isinstance(metrics, pd.DataFrame):
        metrics = to_metrics(metrics)
    records, rows = list(metrics), []
    for one in hypotheses:
        of_metrics = names if one.ablations else context_names
        for ablation, name in product(one.ablations or (SHORTER,), of_metrics):
            if one.ablations:
                effect = _difference(records, one.model, ablation, name)
                is_thin = effect.n_seeds < min_seeds and effect.n_runs < ENOUGH_RUNS
                cost = _cost(records, one.model, ablation)
            else:
                effect, is_thin = _slope(records, one.model, name), False
                cost = _cost(records, one.model)
            answer: str = answer_from_interval(effect.low, effect.high, smallest_effect)
            if is_thin or (
                not one.ablations and answer == "no" and context_answer == "cannot tell"
            ):
                answer = "cannot tell"
            if effect.value is None:
                answer, cost = NOT_RUN, None
            rows.append((one.name, name, one.model, ablation, *effect, cost, answer))
    return pd.DataFrame(rows, columns=list(ABLATION_COLUMNS))


class _Effect(NamedTuple):
    """A difference with its interval, and the runs and seeds behind it."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n_runs: int = 0
    n_seeds: int = 0


def _difference(records: Sequence[Metric], model: str, ablation: str, name: str) -> _Effect:
    runs = {
        which: {(m.fold, m.seed): m.value for m in records if (m.metric, m.model) == (name, which)}
        for which in (model, ablation)
    }
    common = sorted(set(runs[model]) & set(runs[ablation]), key=str)
    # Folds one by one where they are there; pooled values would count them twice.
    by_fold = [key for key in common if key[0] is not None] or common
    change = np.array([runs[model][key] - runs[ablation][key] for key in by_fold])
    of_pair = f"{name}_difference", f"{model} - {ablation}", None
    paired = [m for m in records if (m.metric, m.model, m.fold) == of_pair]
    if not paired and not by_fold:
        return _Effect()
    value = paired[-1].value if paired else float(change.mean())
    ends = [end for end in paired[-1][2:4] if end is not None] if paired else []
    if len(change) >= (ENOUGH_RUNS if paired else 2):
        half = student.ppf(0.975, len(change) - 1) * change.std(ddof=1) / np.sqrt(len(change))
        ends += [float(value - half), float(value + half)]
    low, high = (min(ends), max(ends)) if ends else (None, None)
    return _Effect(value, low, high, len(by_fold), len({seed for _, seed in by_fold}))


def _slope(records: Sequence[Metric], model: str, name: str) -> _Effect:
    """Change per doubling of context, and the runs of all context conditions."""
    slopes = [m for m in records if (m.metric, m.model) == (f"{name}_per_doubling", model)]
    if not slopes:
        return _Effect()
    runs = {
        (m.model, m.fold, m.seed)
        for m in records
        if m.metric == name and m.model.startswith("context_") and m.fold is not None
    }
    return _Effect(*slopes[-1][1:4], len(runs), len({seed for _, _, seed in runs}))


def _cost(records: Sequence[Metric], *models: str) -> float | None:
    spent = [[m.value for m in records if (m.metric, m.model) == (COST, one)] for one in models]
    return sum(map(sum, spent)) if all(spent) else None


def judge_difference(
    hypothesis: str,
    metrics: Sequence[Metric],
    pair: str,
    metric: str,
    *,
    is_lower_better: bool = False,
) -> Judgement:
    """Judge a hypothesis by the record of a difference, such as "model - ablation".

    "not run" where nothing was measured: a genome without usable probe tasks has no probes.
    """
    for one in metrics:
        if (one.model, one.metric) == (pair, metric):
            return judge(hypothesis, one, is_lower_better=is_lower_better)
    sentence = f"{hypothesis}: {NOT_RUN}. These data have no {metric} of {pair}."
    return Judgement(hypothesis, NOT_RUN, sentence)

"""The claims of the project, each beside its ablations, from the records of metrics.json.

An ablation is the same model with the claimed ingredient destroyed. A claim is as good as its strongest
ablation: where the model does not beat one of them, the ingredient has shown nothing.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t as student

from genesplice.errors import InputError
from genesplice.results import Metric

CLAIM_COLUMNS = (
    "claim", "metric", "model", "ablation", "effect", "ci_low", "ci_high", "n_runs", "seeds",
    "cpu_seconds", "verdict",
)  # fmt: skip
COST = "cpu_seconds"
NOT_RUN = "not run"
ENOUGH_RUNS = 3


class Claim(NamedTuple):
    """What is claimed, for which model, and the names of its ablations in the records."""

    name: str
    model: str
    ablations: tuple[str, ...]


CLAIMS: tuple[Claim, ...] = (
    Claim("longer context", "context", ()),
    Claim(
        "hierarchical attention",
        "genesplice",
        ("genesplice_local_only", "genesplice_permuted_regions"),
    ),
    Claim("adaptive schedule", "genesplice", ("genesplice_constant_rate",)),
    Claim("graph attention", "genesplice", ("genesplice_rewired", "genesplice_no_network")),
    Claim(
        "pre-training",
        "genesplice",
        ("genesplice_random_encoder", "genesplice_shuffled_pretraining"),
    ),
    Claim("pathway knowledge", "genesplice", ("genesplice_random_sets", "genesplice_no_sets")),
)
"""The five proposals and the question itself, whose effect is per doubling of context (records
`<metric>_per_doubling` of model "context", as the context verdict writes them)."""


def claims_table(
    metrics: Iterable[Metric],
    *,
    claims: Sequence[Claim] = CLAIMS,
    names: Sequence[str] = ("level_spearman", "profile_r"),
    context_names: Sequence[str] = ("level_r2", "profile_r"),
    smallest_effect: float = 0.01,
    min_seeds: int = 2,
    context_answer: str | None = None,
) -> pd.DataFrame:
    """One row for each claim, ablation and metric (columns `CLAIM_COLUMNS`).

    The effect is model less ablation: a record `<metric>_difference` of "MODEL - ABLATION" where there is
    one (`genesplice.evaluate.paired_difference`), else the mean over the folds and seeds that both
    have. Its 95 % interval is the wider one, at either end, of that record (which genes were held
    out) and of Student's t over runs (how training went; of three runs or more). Verdicts: "yes"
    where it lies above 0, "no" where it lies below `smallest_effect`, "cannot tell" otherwise or with
    fewer than `min_seeds` seeds and three runs, "not run" where model or ablation has no records.
    `cpu_seconds` is what the runs of model and ablation together took to train, from records of that
    name, and None where one of them lacks them.
    `context_answer` is what the context verdict said at last: where it was no *no*, neither is a
    row.

    Raises
    ------
    InputError
        If `smallest_effect` is not above 0.
    """
    if smallest_effect <= 0:
        raise InputError(f"smallest_effect {smallest_effect:g}", "above 0")
    records = list(metrics)
    rows = []
    for claim in claims:
        if not claim.ablations:
            rows += [
                _context_row(records, claim, name, smallest_effect, context_answer)
                for name in context_names
            ]
        for ablation in claim.ablations:
            for name in names:
                effect = _difference(records, claim.model, ablation, name)
                cost = _cost(records, claim.model, ablation)
                rows.append(_row(claim, name, ablation, effect, cost, smallest_effect, min_seeds))
    return pd.DataFrame(rows, columns=list(CLAIM_COLUMNS))


class _Effect(NamedTuple):
    value: float
    low: float | None
    high: float | None
    n_runs: int
    n_seeds: int


def _difference(records: Sequence[Metric], model: str, ablation: str, name: str) -> _Effect | None:
    runs = {
        which: {(m.fold, m.seed): m.value for m in records if (m.metric, m.model) == (name, which)}
        for which in (model, ablation)
    }
    common = sorted(set(runs[model]) & set(runs[ablation]), key=str)
    # Folds one by one where they are there; pooled values would count them twice.
    by_fold = [key for key in common if key[0] is not None] or common
    seeds = {key[1] for key in by_fold}
    change = np.array([runs[model][key] - runs[ablation][key] for key in by_fold])
    paired = [
        m
        for m in records
        if (m.metric, m.model, m.fold) == (f"{name}_difference", f"{model} - {ablation}", None)
    ]
    if not paired and not by_fold:
        return None
    value = paired[-1].value if paired else float(change.mean())
    ends = [end for end in paired[-1][2:4] if end is not None] if paired else []
    if len(change) >= (ENOUGH_RUNS if paired else 2):
        half = student.ppf(0.975, len(change) - 1) * change.std(ddof=1) / np.sqrt(len(change))
        ends += [float(value - half), float(value + half)]
    low, high = (min(ends), max(ends)) if ends else (None, None)
    return _Effect(value, low, high, len(by_fold), len(seeds))


def _cost(records: Sequence[Metric], *models: str) -> float | None:
    spent = [[m.value for m in records if (m.metric, m.model) == (COST, one)] for one in models]
    return sum(map(sum, spent)) if all(spent) else None


def _row(
    claim: Claim,
    name: str,
    ablation: str,
    effect: _Effect | None,
    cost: float | None,
    smallest_effect: float,
    min_seeds: int,
) -> tuple:
    if effect is None:
        return (claim.name, name, claim.model, ablation, None, None, None, 0, 0, None, NOT_RUN)
    verdict = _verdict(effect.low, effect.high, smallest_effect)
    if effect.n_seeds < min_seeds and effect.n_runs < ENOUGH_RUNS:
        verdict = "cannot tell"
    return (
        claim.name, name, claim.model, ablation, effect.value, effect.low, effect.high,
        effect.n_runs, effect.n_seeds, cost, verdict,
    )  # fmt: skip


def _context_row(
    records: Sequence[Metric], claim: Claim, name: str, smallest_effect: float, answer: str | None
) -> tuple:
    ablation = "the same network with a shorter context"
    found = [m for m in records if (m.metric, m.model) == (f"{name}_per_doubling", claim.model)]
    if not found:
        return (claim.name, name, claim.model, ablation, None, None, None, 0, 0, None, NOT_RUN)
    one = found[-1]
    runs = {
        (m.model, m.fold, m.seed)
        for m in records
        if m.metric == name and m.model.startswith("context_") and m.fold is not None
    }
    seeds = {seed for _, _, seed in runs}
    verdict = _verdict(one.ci_low, one.ci_high, smallest_effect)
    if verdict == "no" and answer == "cannot tell":
        verdict = answer
    return (
        claim.name, name, claim.model, ablation, one.value, one.ci_low, one.ci_high,
        len(runs), len(seeds), _cost(records, claim.model), verdict,
    )  # fmt: skip


def _verdict(low: float | None, high: float | None, smallest_effect: float) -> str:
    if low is None or high is None:
        return "cannot tell"
    if low > 0 and high >= smallest_effect:
        return "yes"
    return "no" if high < smallest_effect else "cannot tell"

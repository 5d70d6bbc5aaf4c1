"""Answers and the ablation table, from records as metrics.json has them."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from genesplice.errors import InputError
from genesplice.evaluate.reliability import (
    ABLATION_COLUMNS,
    COST,
    HYPOTHESES,
    ablation_table,
)
from genesplice.results import Metric, answer_from_interval, judge


def difference(low, high, value=0.1):
    return Metric("probe_mean_difference", value, low, high, 1200, "a - b", "test", 0, 0)


@pytest.mark.parametrize(
    ("low", "high", "higher", "lower"),
    [
        (0.1, 0.3, "yes", "no"),
        (-0.3, -0.1, "no", "yes"),
        (-0.1, 0.3, "cannot tell", "cannot tell"),
        (0.0, 0.3, "cannot tell", "cannot tell"),
        (None, None, "cannot tell", "cannot tell"),
    ],
)
def test_the_interval_decides(low, high, higher, lower):
    assert answer_from_interval(low, high) == higher
    assert judge("it", difference(low, high)).answer == higher
    assert judge("it", difference(low, high), is_lower_better=True).answer == lower


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (0.001, 0.01, "yes"),
        (0.001, 0.009, "no"),
        (-0.1, 0.009, "no"),
        (-0.1, 0.01, "cannot tell"),
        (0.0, 0.02, "cannot tell"),
    ],
)
def test_an_effect_that_is_too_small_to_matter_is_none(low, high, answer):
    assert answer_from_interval(low, high, 0.01) == answer


def test_the_sentence_says_why():
    judged = judge("Masked bases", difference(0.05, 0.2))
    assert judged.hypothesis == "Masked bases"
    assert judged.sentence == (
        "Masked bases: yes. probe_mean of a - b: +0.1000 (+0.0500 to +0.2000, n = 1,200; "
        "higher is better)."
    )
    assert "(no interval" in judge("x", difference(None, None)).sentence


def test_what_is_no_difference_is_refused():
    with pytest.raises(InputError, match="metric 'probe_mean', expected a difference"):
        judge("x", difference(0.1, 0.2)._replace(metric="probe_mean"))
    with pytest.raises(InputError, match="smallest_effect 0, expected above 0"):
        ablation_table([], smallest_effect=0.0)


def records(model, values, metric="level_spearman"):
    """One record for each (fold, seed)."""
    return [
        Metric(metric, value, value - 0.1, value + 0.1, 100, model, "test", fold, seed)
        for (fold, seed), value in values.items()
    ]


def runs(mean, spread=0.01, n_folds=3, n_seeds=2, seed=0):
    generator = np.random.default_rng(seed)
    return {
        (f, s): mean + generator.normal(0, spread) for f in range(n_folds) for s in range(n_seeds)
    }


def paired(ablation, value, low, high):
    name = f"genesplice - {ablation}"
    return Metric("level_spearman_difference", value, low, high, 100, name, "test")


def row_of(metrics, hypothesis, ablation=None, metric="level_spearman", **options):
    table = ablation_table(metrics, **options).set_index(["hypothesis", "metric"])
    rows = table.loc[[(hypothesis, metric)]]
    rows = rows if ablation is None else rows[rows["ablation"] == ablation]
    assert len(rows) == 1
    return rows.iloc[0]


def test_without_records_nothing_was_run():
    table = ablation_table([])
    assert tuple(table.columns) == ABLATION_COLUMNS
    assert set(table["answer"]) == {"not run"}
    assert set(table["hypothesis"]) == set(HYPOTHESES)
    assert table["effect"].isna().all()


def test_the_effect_is_paired_over_folds_and_seeds():
    mine, ablation = runs(0.6, seed=1), runs(0.5, seed=2)
    metrics = records("genesplice", mine) + records("genesplice_rewired", ablation)
    metrics += records("genesplice", {(None, 0): 0.9})
    row = row_of(metrics, "graph attention", "genesplice_rewired")
    change = np.array([mine[key] - ablation[key] for key in mine])
    limits = ttest_rel(list(mine.values()), list(ablation.values())).confidence_interval(0.95)
    assert row["effect"] == pytest.approx(change.mean())
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((limits.low, limits.high))
    assert (row["n_runs"], row["seeds"], row["answer"]) == (6, 2, "yes")
    # A table of the same records says the same.
    shuffled = pd.DataFrame(metrics).sample(frac=1, random_state=0)
    again = row_of(shuffled, "graph attention", "genesplice_rewired")
    pd.testing.assert_series_equal(again, row)


def test_a_paired_difference_is_preferred():
    metrics = records("genesplice", runs(0.6)) + records("genesplice_rewired", runs(0.5))
    metrics.append(paired("genesplice_rewired", 0.001, -0.004, 0.006))
    row = row_of(metrics, "graph attention", "genesplice_rewired")
    assert (row["effect"], row["ci_low"], row["ci_high"]) == (0.001, -0.004, 0.006)
    assert row["answer"] == "no"


@pytest.mark.parametrize(
    ("mean", "spread", "n_seeds", "answer"),
    [
        (0.50, 0.001, 3, "no"),
        (0.50, 0.100, 2, "cannot tell"),
        (0.60, 0.001, 1, "yes"),
        (0.40, 0.001, 3, "no"),
        (0.60, 0.001, 3, "yes"),
    ],
)
def test_answers(mean, spread, n_seeds, answer):
    sizes = {"spread": spread, "n_seeds": n_seeds}
    # Three folds of one seed are three runs.
    metrics = records("genesplice", runs(mean, seed=3, **sizes))
    metrics += records("genesplice_random_sets", runs(0.5, seed=4, **sizes))
    row = row_of(metrics, "pathway knowledge", "genesplice_random_sets")
    assert row["answer"] == answer


def test_one_run_has_no_interval():
    metrics = records("genesplice", {(0, 0): 0.6})
    metrics += records("genesplice_no_network", {(0, 0): 0.4})
    row = row_of(metrics, "graph attention", "genesplice_no_network")
    assert row["effect"] == pytest.approx(0.2)
    assert pd.isna(row["ci_low"])
    assert row["answer"] == "cannot tell"


def test_one_seed_of_two_folds_is_not_enough():
    metrics = records("genesplice", runs(0.6, 1e-4, n_folds=2, n_seeds=1))
    metrics += records("genesplice_rewired", runs(0.5, 1e-4, n_folds=2, n_seeds=1, seed=1))
    row = row_of(metrics, "graph attention", "genesplice_rewired")
    assert (row["n_runs"], row["seeds"], row["answer"]) == (2, 1, "cannot tell")


def test_runs_that_disagree_widen_what_resampled_genes_are_sure_of():
    mine = {(f, 0): 0.5 + change for f, change in enumerate([0.007, -0.001, 0.0, 0.010, 0.023])}
    metrics = records("genesplice", mine)
    metrics += records("genesplice_random_encoder", dict.fromkeys(mine, 0.5))
    metrics.append(paired("genesplice_random_encoder", 0.008, 0.004, 0.012))
    row = row_of(metrics, "pre-training", "genesplice_random_encoder")
    assert row["ci_low"] < 0 < 0.012 < row["ci_high"]
    assert row["answer"] == "cannot tell"


def test_a_comparison_costs_what_its_model_and_its_ablation_took():
    metrics = records("genesplice", runs(0.6)) + records("genesplice_rewired", runs(0.5))
    costs = {("genesplice", 0): 10.0, ("genesplice", 1): 11.0, ("genesplice_rewired", 0): 4.5}
    metrics += [
        Metric(COST, spent, None, None, 1, model, "train", 0, seed)
        for (model, seed), spent in costs.items()
    ]
    assert row_of(metrics, "graph attention", "genesplice_rewired")[COST] == 25.5
    assert np.isnan(row_of(metrics, "graph attention", "genesplice_no_network")[COST])


def test_context_is_read_from_its_slope():
    conditions = {"context_512": 0.3, "context_8192": 0.4}
    metrics = [m for c, v in conditions.items() for m in records(c, runs(v), metric="level_r2")]
    metrics.append(Metric("level_r2_per_doubling", 0.025, 0.012, 0.038, 100, "context", "test"))
    row = row_of(metrics, "longer context", metric="level_r2")
    assert (row["effect"], row["answer"]) == (0.025, "yes")
    assert (row["n_runs"], row["seeds"]) == (12, 2)


@pytest.mark.parametrize("answer", ["cannot tell", "no"])
def test_a_no_that_was_taken_back_is_none(answer):
    slope = Metric("level_r2_per_doubling", 0.0, -0.001, 0.001, 20, "context", "test")
    row = row_of([slope], "longer context", metric="level_r2", context_answer=answer)
    assert row["answer"] == answer

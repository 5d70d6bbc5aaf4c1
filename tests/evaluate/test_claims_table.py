"""The table of claims, from records as metrics.json has them."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from genesplice.errors import InputError
from genesplice.evaluate.ablation_table import CLAIM_COLUMNS, CLAIMS, COST, claims_table
from genesplice.results import Metric


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


def row_of(table, claim, ablation, metric="level_spearman"):
    found = table[
        (table["claim"] == claim) & (table["ablation"] == ablation) & (table["metric"] == metric)
    ]
    assert len(found) == 1
    return found.iloc[0]


def test_without_records_nothing_was_run():
    table = claims_table([])
    assert tuple(table.columns) == CLAIM_COLUMNS
    assert set(table["verdict"]) == {"not run"}
    assert set(table["claim"]) == {claim.name for claim in CLAIMS}
    assert table["effect"].isna().all()


def test_the_effect_is_paired_over_folds_and_seeds():
    mine, ablation = runs(0.6, seed=1), runs(0.5, seed=2)
    metrics = records("genesplice", mine) + records("genesplice_rewired", ablation)
    metrics += records("genesplice", {(None, 0): 0.9})
    row = row_of(claims_table(metrics), "graph attention", "genesplice_rewired")
    change = np.array([mine[key] - ablation[key] for key in mine])
    limits = ttest_rel(list(mine.values()), list(ablation.values())).confidence_interval(0.95)
    assert row["effect"] == pytest.approx(change.mean())
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((limits.low, limits.high))
    assert (row["n_runs"], row["seeds"], row["verdict"]) == (6, 2, "yes")


def test_a_paired_difference_is_preferred():
    metrics = records("genesplice", runs(0.6)) + records("genesplice_rewired", runs(0.5))
    name = "genesplice - genesplice_rewired"
    metrics.append(Metric("level_spearman_difference", 0.001, -0.004, 0.006, 100, name, "test"))
    row = row_of(claims_table(metrics), "graph attention", "genesplice_rewired")
    assert (row["effect"], row["ci_low"], row["ci_high"]) == (0.001, -0.004, 0.006)
    assert row["verdict"] == "no"


@pytest.mark.parametrize(
    ("mean", "spread", "n_seeds", "verdict"),
    [
        (0.50, 0.001, 3, "no"),
        (0.50, 0.100, 2, "cannot tell"),
        (0.60, 0.001, 1, "yes"),
        (0.40, 0.001, 3, "no"),
        (0.60, 0.001, 3, "yes"),
    ],
)
def test_verdicts(mean, spread, n_seeds, verdict):
    sizes = {"spread": spread, "n_seeds": n_seeds}
    # Three folds of one seed are three runs.
    metrics = records("genesplice", runs(mean, seed=3, **sizes))
    metrics += records("genesplice_random_sets", runs(0.5, seed=4, **sizes))
    row = row_of(claims_table(metrics), "pathway knowledge", "genesplice_random_sets")
    assert row["verdict"] == verdict


def test_one_run_has_no_interval():
    metrics = records("genesplice", {(0, 0): 0.6})
    metrics += records("genesplice_no_network", {(0, 0): 0.4})
    row = row_of(claims_table(metrics), "graph attention", "genesplice_no_network")
    assert row["effect"] == pytest.approx(0.2)
    assert row["ci_low"] is None or np.isnan(row["ci_low"])
    assert row["verdict"] == "cannot tell"


def test_context_is_read_from_its_slope():
    arms = {"context_512": 0.3, "context_8192": 0.4}
    metrics = [m for arm, v in arms.items() for m in records(arm, runs(v), metric="level_r2")]
    metrics.append(Metric("level_r2_per_doubling", 0.025, 0.012, 0.038, 100, "context", "test"))
    table = claims_table(metrics)
    row = table[(table["claim"] == "longer context") & (table["metric"] == "level_r2")].iloc[0]
    assert (row["effect"], row["verdict"]) == (0.025, "yes")
    assert (row["n_runs"], row["seeds"]) == (12, 2)


def test_nothing_smallest_effect_is_refused():
    with pytest.raises(InputError, match="smallest_effect 0, expected above 0"):
        claims_table([], smallest_effect=0.0)


def test_a_comparison_costs_what_its_model_and_its_ablation_took():
    metrics = records("genesplice", runs(0.6)) + records("genesplice_rewired", runs(0.5))
    costs = {("genesplice", 0): 10.0, ("genesplice", 1): 11.0, ("genesplice_rewired", 0): 4.5}
    metrics += [
        Metric(COST, spent, None, None, 1, model, "train", 0, seed)
        for (model, seed), spent in costs.items()
    ]
    table = claims_table(metrics)
    assert row_of(table, "graph attention", "genesplice_rewired")[COST] == 25.5
    assert np.isnan(row_of(table, "graph attention", "genesplice_no_network")[COST])


def test_one_seed_of_two_folds_is_not_enough():
    metrics = records("genesplice", runs(0.6, 1e-4, n_folds=2, n_seeds=1))
    metrics += records("genesplice_rewired", runs(0.5, 1e-4, n_folds=2, n_seeds=1, seed=1))
    row = row_of(claims_table(metrics), "graph attention", "genesplice_rewired")
    assert (row["n_runs"], row["seeds"], row["verdict"]) == (2, 1, "cannot tell")


def test_runs_that_disagree_widen_what_resampled_genes_are_sure_of():
    mine = {(f, 0): 0.5 + change for f, change in enumerate([0.007, -0.001, 0.0, 0.010, 0.023])}
    metrics = records("genesplice", mine)
    metrics += records("genesplice_random_encoder", dict.fromkeys(mine, 0.5))
    name = "genesplice - genesplice_random_encoder"
    metrics.append(Metric("level_spearman_difference", 0.008, 0.004, 0.012, 100, name, "test"))
    row = row_of(claims_table(metrics), "pre-training", "genesplice_random_encoder")
    assert row["ci_low"] < 0 < 0.012 < row["ci_high"]
    assert row["verdict"] == "cannot tell"


@pytest.mark.parametrize(("answer", "verdict"), [("cannot tell", "cannot tell"), ("no", "no")])
def test_a_no_that_was_taken_back_is_none(answer, verdict):
    slope = Metric("level_r2_per_doubling", 0.0, -0.001, 0.001, 20, "context", "test")
    table = claims_table([slope], context_answer=answer)
    row = table[(table["claim"] == "longer context") & (table["metric"] == "level_r2")].iloc[0]
    assert row["verdict"] == verdict

"""Conformal intervals: their definition in a loop, their promise on exchangeable genes."""

import numpy as np
import pandas as pd
import pytest

from genesplice.evaluate.reliability import add_intervals, conformal_width, coverage_metrics


def table(observed, predicted, *, fold=0, model="m", seed=0, prefix="g"):
    """Long table from genes x conditions."""
    n_genes, n_conditions = observed.shape
    return pd.DataFrame(
        {
            "gene_id": np.repeat([f"{prefix}{i}" for i in range(n_genes)], n_conditions),
            "condition": np.tile([f"c{i}" for i in range(n_conditions)], n_genes),
            "fold": fold,
            "model": model,
            "seed": seed,
            "observed": observed.ravel().astype(np.float32),
            "predicted": predicted.ravel().astype(np.float32),
        }
    )


def noisy(seed, n_genes, scales, **about):
    """Predictions whose errors are as large as `scales` says, a number for each condition."""
    generator = np.random.default_rng(seed)
    predicted = generator.normal(5, 2, (n_genes, len(scales)))
    return table(predicted + generator.normal(0, scales, predicted.shape), predicted, **about)


@pytest.mark.parametrize("n_genes", [9, 10, 19, 40])
def test_the_width_is_the_smallest_that_keeps_the_promise(n_genes):
    errors = np.random.default_rng(n_genes).exponential(size=n_genes)
    width = conformal_width(errors, 0.9)
    # A further gene is as likely in each of the n + 1 gaps between sorted errors.
    promised = {e: np.sum(errors <= e) / (n_genes + 1) for e in errors}
    assert width == min(e for e, share in promised.items() if share >= 0.9)


def test_too_few_genes_promise_nothing():
    assert np.isnan(conformal_width(np.ones(8), 0.9))
    assert np.isnan(conformal_width(np.ones(0), 0.9))
    assert conformal_width(np.ones(9), 0.9) == 1


def test_each_condition_run_and_fold_has_its_own_width():
    parts = [
        (noisy(1, 200, [1.0, 4.0], fold=0), noisy(2, 20, [1.0, 4.0], fold=0)),
        (noisy(3, 200, [0.1, 0.2], fold=1), noisy(4, 20, [0.1, 0.2], fold=1)),
        (noisy(5, 200, [9.0, 9.0], model="n"), noisy(6, 20, [9.0, 9.0], model="n")),
    ]
    calibration, predictions = (
        pd.concat(side, ignore_index=True) for side in zip(*parts, strict=True)
    )
    both = add_intervals(predictions, calibration)
    for mine, held_out in parts:
        alone = add_intervals(held_out, mine)
        keys = ["fold", "model"]
        same = both.merge(held_out[keys].drop_duplicates(), on=keys)
        pd.testing.assert_frame_equal(same, alone)
        for condition, rows in alone.groupby("condition"):
            errors = mine[mine["condition"] == condition].eval("abs(observed - predicted)")
            half = (rows["high"] - rows["low"]) / 2
            np.testing.assert_allclose(half, conformal_width(errors.to_numpy(float)), rtol=1e-5)
            np.testing.assert_allclose((rows["high"] + rows["low"]) / 2, rows["predicted"], 1e-5)


def test_nine_of_ten_exchangeable_genes_lie_inside():
    # With 99 calibration genes the coverage is 0.9 exactly, in the mean over calibrations.
    covered = []
    for seed in range(60):
        told = add_intervals(noisy(seed, 200, [0.5, 3.0]), noisy(1000 + seed, 99, [0.5, 3.0]))
        covered.append(told.eval("low <= observed <= high").groupby(told["condition"]).mean())
    assert np.mean(covered, axis=0) == pytest.approx([0.9, 0.9], abs=0.015)


def test_without_calibration_there_is_no_interval():
    predictions = noisy(0, 5, [1.0])
    told = add_intervals(predictions, noisy(1, 50, [1.0], model="another"))
    assert told["low"].isna().all()
    assert told["high"].isna().all()
    assert coverage_metrics(told, pd.Series(0, index=told["gene_id"].unique())) == []
    nothing = add_intervals(predictions, predictions.iloc[:0])
    pd.testing.assert_frame_equal(nothing, told)


def test_coverage_is_counted():
    observed = np.array([[0.0, 0.0], [0.0, 5.0], [5.0, 5.0], [0.0, 0.0]])
    frame = table(observed, np.zeros((4, 2))).assign(low=-1.0, high=2.0)
    frame["fold"] = frame["gene_id"].map({"g0": 0, "g1": 0, "g2": 1, "g3": 1})
    blocks = pd.Series({"g0": 0, "g1": 1, "g2": 2, "g3": 3})
    found = {(m.metric, m.fold): m for m in coverage_metrics(frame, blocks)}
    assert found["interval_coverage", None].value == 5 / 8
    assert found["interval_coverage", 0].value == 3 / 4
    assert found["interval_coverage", 1].value == 1 / 2
    assert found["interval_width", None].value == 3
    assert found["interval_nominal", None].value == 0.9
    assert found["interval_coverage", None].n == 4
    low, high = found["interval_coverage", 1][2:4]
    assert (low, high) == (0, 1)


def test_the_interval_of_coverage_resamples_blocks():
    # In one block all genes lie inside, in the other none: no coverage is sure.
    observed = np.repeat([0.0, 9.0], 50)[:, None]
    frame = table(observed, np.zeros((100, 1))).assign(low=-1.0, high=1.0)
    blocks = pd.Series([0] * 50 + [1] * 50, index=[f"g{i}" for i in range(100)])
    coverage = coverage_metrics(frame, blocks)[0]
    assert coverage[1:4] == (0.5, 0.0, 1.0)

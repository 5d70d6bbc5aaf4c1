"""Ratios over resampled blocks against repeating every unit as often as its block was drawn."""

import numpy as np
import pytest

from genesplice.evaluate.bootstrap import make_draws, ratio_draws, to_metric


def test_every_draw_is_the_ratio_of_repeated_units():
    generator = np.random.default_rng(0)
    above, below = generator.normal(size=(30, 2)), generator.uniform(1, 2, (30, 2))
    block = generator.integers(0, 5, 30)
    draws = make_draws(5, 25, seed=3)
    found = ratio_draws(above, below, block, draws)
    assert found.shape == (26, 2)
    for row, counts in enumerate(draws):
        units = [u for u in range(30) for _ in range(counts[block[u]])]
        for column in range(2):
            expected = sum(above[u, column] for u in units) / sum(below[u, column] for u in units)
            assert found[row, column] == pytest.approx(expected, rel=1e-12)


def test_row_0_is_the_value_and_the_rest_are_as_many_blocks():
    draws = make_draws(7, 100, seed=0)
    assert (draws[0] == 1).all()
    assert (draws.sum(axis=1) == 7).all()
    assert len(np.unique(draws[1:], axis=0)) > 50
    np.testing.assert_array_equal(draws, make_draws(7, 100, seed=0))
    assert len(make_draws(1, 100, seed=0)) == len(make_draws(7, 0, seed=0)) == 1


def test_a_draw_without_a_denominator_is_left_out():
    block = np.array([0, 1])
    draws = np.array([[1, 1], [2, 0], [0, 2], [1, 1]])
    ratios = ratio_draws(np.array([[3.0], [0.0]]), np.array([[4.0], [0.0]]), block, draws)[:, 0]
    assert np.isnan(ratios[2])
    metric = to_metric("share", ratios, 2, n_blocks=2, model="m", fold=1, seed=5)
    assert metric == ("share", 0.75, 0.75, 0.75, 2, "m", "test", 1, 5)


def test_the_interval_are_two_quantiles_and_there_may_be_none():
    values = np.concatenate([[0.5], np.arange(1001) / 1000])
    metric = to_metric("x", values, 9, n_blocks=10**9, model="m", split="train")
    assert (metric.ci_low, metric.ci_high) == pytest.approx((0.025, 0.975))
    alone = to_metric("x", np.array([0.5]), 9, n_blocks=9, model="m")
    assert (alone.value, alone.ci_low, alone.ci_high) == (0.5, None, None)

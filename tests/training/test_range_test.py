"""The proposal on curves whose answer is known, and the run that makes one."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_runs import config, with_other_blocks

from genesplice.errors import InputError
from genesplice.training.range_test import propose_bounds, range_test, smooth
from genesplice.training.source import bundle_source


def make_curve(smoothed):
    rates = 10.0 ** np.linspace(-5, 0, len(smoothed))
    return pd.DataFrame({"learning_rate": rates, "smoothed": smoothed})


def test_the_bounds_are_where_the_curve_falls_and_where_it_is_lowest():
    # Flat up to 1e-4, then in a straight line (over log rates) down to 1e-1, then up.
    x = np.linspace(-5, 0, 501)
    curve = make_curve(np.where(x < -4, 2.0, np.where(x < -1, 2 - (x + 4) / 3, 1 + 5 * (x + 1))))
    low, high, why = propose_bounds(curve)
    assert low == pytest.approx(10**-3.7, rel=0.03)
    assert high == pytest.approx(0.1 / 3, rel=0.03)
    assert f"{low:.1e} to {high:.1e}" in why
    assert "fell by 1.000 bits" in why


def test_the_bounds_are_never_the_wrong_way_round():
    curve = make_curve(np.array([2.0, 2.0, 1.0, 3.0, 4.0]))
    low, high, _ = propose_bounds(curve)
    assert high == 2 * low


def test_a_loss_that_never_fell_is_refused():
    with pytest.raises(InputError, match="a loss that never fell"):
        propose_bounds(make_curve(np.linspace(2, 3, 20)))


def test_smoothing_is_the_weighted_mean_of_what_was():
    losses = np.random.default_rng(0).normal(size=30)
    found = smooth(losses)
    for step in range(30):
        weights = 0.9 ** np.arange(step, -1, -1)
        assert found[step] == pytest.approx(np.average(losses[: step + 1], weights=weights))


def test_the_rate_rises_evenly_and_the_run_ends_when_it_falls_apart(tiny_bundle):
    source = bundle_source(tiny_bundle, 0)
    state = torch.random.get_rng_state()
    found = range_test(source, config(), steps=30, lowest=1e-4, highest=100.0)
    assert torch.equal(torch.random.get_rng_state(), state)
    rates = found.curve["learning_rate"].to_numpy()
    np.testing.assert_allclose(rates[1:] / rates[:-1], (1e6) ** (1 / 29))
    assert rates[0] == pytest.approx(1e-4)
    assert 5 < len(rates) < 30
    assert found.curve["loss"].iloc[-1] > found.curve["loss"].min() + 1
    assert 1e-4 <= found.low < found.high < 100
    again = range_test(
        bundle_source(with_other_blocks(tiny_bundle, [0]), 0), config(), steps=30, lowest=1e-4,
        highest=100.0,
    )  # fmt: skip
    assert again.curve.equals(found.curve)


@pytest.mark.parametrize(("steps", "lowest", "highest"), [(9, 1e-4, 1), (20, 0, 1), (20, 1, 1)])
def test_what_cannot_rise_is_refused(tiny_bundle, steps, lowest, highest):
    with pytest.raises(InputError, match="10 steps, and rates that rise"):
        range_test(
            bundle_source(tiny_bundle, 0), config(), steps=steps, lowest=float(lowest),
            highest=float(highest),
        )  # fmt: skip

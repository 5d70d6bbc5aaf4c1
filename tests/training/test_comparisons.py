"""Equal budgets, chosen by validation blocks and judged by held-out ones; rates worth trying."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_genomes import with_operons
from tiny_runs import config, with_other_blocks

from genesplice.errors import InputError
from genesplice.training.comparisons import (
    compare_contrast,
    compare_schedules,
    propose_bounds,
    range_test,
    trial_config,
)
from genesplice.training.corpus import bundle_source
from genesplice.training.pretraining import pretrain, train_model

pytestmark = pytest.mark.slow


def short(*more):
    return trial_config(config("pretrain.probe_sites=20", *more), steps=3)


def test_the_constant_rate_has_as_many_trials_as_all_schedules_together(tiny_bundle):
    found = compare_schedules(
        tiny_bundle, short(), schedules=["cosine", "one_cycle"], rates=[30.0, 1e-3], n_windows=4
    )
    trials = found.trials.groupby("schedule")
    assert trials.size().to_dict() == {"constant": 4, "cosine": 2, "one_cycle": 2}
    assert set(trials["is_best"].sum()) == {1}
    null = trials.get_group("constant")["learning_rate"].to_numpy()
    assert null[1:] / null[:-1] == pytest.approx([30_000 ** (1 / 3)] * 3)
    assert (null[0], null[-1]) == pytest.approx((1e-3, 30))
    # Such a rate makes it worse.
    assert found.trials.loc[found.trials["is_best"], "learning_rate"].max() < 30
    by_name = {(m.model, m.metric): m for m in found.metrics}
    difference = by_name["cosine - constant", "bits_per_base_difference"]
    own, null = (by_name[name, "bits_per_base"].value for name in ("cosine", "constant"))
    assert difference.value == pytest.approx(own - null)
    assert {(m.fold, m.split) for m in found.metrics} == {(0, "test")}


def test_held_out_blocks_choose_nothing(tiny_bundle):
    settings = dict(schedules=["cosine"], rates=[1e-3], n_windows=2)
    honest = compare_schedules(tiny_bundle, short(), **settings)
    again = compare_schedules(with_other_blocks(tiny_bundle, [0]), short(), **settings)
    assert honest.trials.equals(again.trials)
    assert honest.metrics != again.metrics


def test_a_trial_is_a_run_without_a_folder(tiny_bundle, tmp_path):
    settings = config("pretrain.steps=3")
    model, history = train_model(bundle_source(tiny_bundle, 0), settings)
    whole = pretrain(tiny_bundle, settings, tmp_path / "out")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert history.equals(whole.history)


def test_contrast_is_judged_on_held_out_genes(tiny_bundle):
    metrics = compare_contrast(with_operons(tiny_bundle), short())
    names = {m.model for m in metrics}
    assert {"contrastive", "masked_only", "contrastive - masked_only"} <= names
    found = {m.metric for m in metrics if m.model == "contrastive - masked_only"}
    assert {"probe_mean_difference", "retrieval_at_10_difference"} <= found


def test_what_cannot_be_compared_is_refused(tiny_bundle):
    none = short("pretrain.holdout_fold=none")
    with pytest.raises(InputError, match="a fold to measure on"):
        compare_schedules(tiny_bundle, none, schedules=["cosine"], rates=[1e-3])
    with pytest.raises(InputError, match="0 rates"):
        compare_schedules(tiny_bundle, short(), schedules=["cosine"], rates=[])
    with pytest.raises(InputError, match="a weight above 0"):
        compare_contrast(tiny_bundle, short(), weight=0.0)
    plain = dataclasses.replace(short().pretrain, validation_blocks=0.0)
    with pytest.raises(InputError, match=r"validation_blocks 0\.0"):
        compare_schedules(
            tiny_bundle, dataclasses.replace(short(), pretrain=plain), schedules=[], rates=[1e-3]
        )


# --- range test ---


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


def test_the_rate_rises_evenly_and_the_run_ends_when_it_falls_apart(tiny_bundle):
    source = bundle_source(tiny_bundle, 0)
    state = torch.random.get_rng_state()
    found = range_test(source, config(), steps=30, lowest=1e-4, highest=100.0)
    assert torch.equal(torch.random.get_rng_state(), state)
    rates = found.curve["learning_rate"].to_numpy()
    np.testing.assert_allclose(rates[1:] / rates[:-1], (1e6) ** (1 / 29))
    assert rates[0] == pytest.approx(1e-4)
    assert 5 < len(rates) < 30
    losses = found.curve["loss"].to_numpy()
    for step, smoothed in enumerate(found.curve["smoothed"]):
        weights = 0.9 ** np.arange(step, -1, -1)
        assert smoothed == pytest.approx(np.average(losses[: step + 1], weights=weights))
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

"""The rate falls when validation gets no better, in a broken run as in an unbroken one."""

import numpy as np
import pytest
import torch
from tiny_runs import config

from genesplice.training.pretraining import pretrain
from genesplice.training.validation import PLATEAU_FACTOR, PLATEAU_PATIENCE
from genesplice.training.views import StepMaker

SETTINGS = config(
    "pretrain.schedule=plateau", "pretrain.validation_blocks=0.2", "pretrain.validation_every=2",
    "pretrain.patience=6", "pretrain.steps=30", "pretrain.learning_rate=0.3",
    "pretrain.contrastive_weight=0", "pretrain.checkpoint_minutes=0.0000001",
)  # fmt: skip


def rates_by_hand(looks):
    """The rate of every step from the values of the looks after each second one."""
    rates, rate, best, in_vain = [], 0.3, np.inf, 0
    for value in looks:
        rates += [rate, rate]
        in_vain = 0 if value < best else in_vain + 1
        best = min(best, value)
        if in_vain == PLATEAU_PATIENCE:
            rate, in_vain = rate * PLATEAU_FACTOR, 0
    return rates


@pytest.fixture(scope="module")
def whole(tiny_bundle, tmp_path_factory):
    return pretrain(tiny_bundle, SETTINGS, tmp_path_factory.mktemp("plateau") / "out")


def test_the_rate_falls_after_looks_in_vain(whole):
    rows = whole.history
    looks = rows[(rows["split"] == "val") & (rows["metric"] == "bits_per_base")]["value"]
    rates = rows[rows["metric"] == "learning_rate"]["value"]
    assert rates.tolist() == pytest.approx(rates_by_hand(looks))
    # Random bases cannot be told: with such a rate it only gets worse.
    assert rates.iloc[-1] < 0.15


@pytest.mark.parametrize("broken_at", [5, 8])
def test_a_broken_run_goes_on_as_if_nothing_had_been(
    whole, tiny_bundle, tmp_path, monkeypatch, broken_at
):
    make = StepMaker.__call__

    def break_down(self, number):
        if number == broken_at:
            raise OSError("no more power")
        return make(self, number)

    monkeypatch.setattr(StepMaker, "__call__", break_down)
    with pytest.raises(OSError, match="no more power"):
        pretrain(tiny_bundle, SETTINGS, tmp_path / "out")
    monkeypatch.undo()
    again = pretrain(tiny_bundle, SETTINGS, tmp_path / "out", resume=True)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert again.history.equals(whole.history)

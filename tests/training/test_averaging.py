"""The mean of the weights against the sum that defines it, in float64."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import config

from genesplice.training.pretraining import pretrain
from genesplice.training.schedules import WeightAverage


def run(decay, n_steps):
    """A weight that is another number after every step; what the mean becomes."""
    model = torch.nn.Linear(1, 1, bias=False).double()
    average, values = WeightAverage(model, decay), []
    average.begin()
    for step in range(1, n_steps + 1):
        values.append(float(torch.randn((), generator=torch.Generator().manual_seed(step))))
        with torch.no_grad():
            model.weight.fill_(values[-1])
        for _ in range(2):  # the second time there is nothing new to take
            average.update(step)
    return model, average, values


@pytest.mark.parametrize(("decay", "n_steps"), [(0.999, 1), (0.999, 30), (0.6, 30), (0.0, 4)])
def test_the_mean_is_the_weighted_sum_of_all_steps(decay, n_steps):
    _, average, values = run(decay, n_steps)
    keep = [min(decay, (step - 1) / (step + 8)) for step in range(1, n_steps + 1)]
    expected, weights = 0.0, []
    for place, value in enumerate(values):
        weight = 1 - keep[place]
        for later in keep[place + 1 :]:
            weight *= later
        weights.append(weight)
        expected += weight * value
    assert sum(weights) == pytest.approx(1, abs=1e-12)
    assert float(average.mean[0]) == pytest.approx(expected, abs=1e-12)


def test_the_mean_is_lent_and_given():
    model, average, values = run(0.9, 10)
    mean = float(average.mean[0])
    assert mean != pytest.approx(values[-1], abs=1e-3)
    with average.applied():
        assert model.weight.item() == mean
    assert model.weight.item() == values[-1]
    average.apply()
    assert model.weight.item() == mean


def test_the_mean_is_what_is_saved(tiny_bundle, tmp_path):
    last = pretrain(tiny_bundle, config("pretrain.ema_decay=0"), tmp_path / "last")
    mean = pretrain(tiny_bundle, config(), tmp_path / "mean")
    # What is averaged does not change what is trained.
    assert last.history.equals(mean.history)
    saved = load_file(tmp_path / "mean" / "model.safetensors")
    changed = [n for n, w in last.model.state_dict().items() if not torch.equal(w, saved[n])]
    assert len(changed) > 10
    # Of five steps, each later one counts more: 1/13 or more of the last is in it.
    name = "encoder.norm.bias"
    assert torch.allclose(saved[name], last.model.state_dict()[name], atol=5e-3)

"""Schedules are their formulas; the mean is its sum; the rate falls on a plateau."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import config

from genesplice.config import PretrainConfig
from genesplice.errors import InputError
from genesplice.training.batches import StepMaker
from genesplice.training.pretraining import pretrain
from genesplice.training.schedules import (
    PLATEAU_FACTOR,
    PLATEAU_PATIENCE,
    SCHEDULES,
    MuonAdamW,
    average_weights,
    make_optimizer,
    schedule_factors,
)

pytestmark = pytest.mark.slow

RATE = 0.25


def written_out(name: str, step: int, steps: int) -> float:
    """The formulas, at the middle of the step."""
    done = (step + 0.5) / steps
    if name in ("constant", "plateau"):
        return 1.0
    if name in ("triangular", "triangular2", "exp_range"):
        cycle, height = divmod(8 * done, 2)
        height = min(height, 2 - height)
        shrink = {"triangular": 1, "triangular2": 0.5**cycle, "exp_range": 10**-done}[name]
        return 0.1 + 0.9 * height * shrink
    if name == "warm_restarts":
        begins, ends = next(ends for ends in ((0, 1), (1, 3), (3, 7)) if 7 * done < ends[1])
        return math.cos(math.pi / 2 * (7 * done - begins) / (ends - begins)) ** 2
    if name == "cosine":
        if done < 0.1:
            return 10 * done
        return math.cos(math.pi / 2 * (done - 0.1) / 0.9) ** 2
    if done < 0.3:
        share = math.sin(math.pi / 2 * done / 0.3) ** 2
        return 0.04 * (1 - share) + share
    share = math.sin(math.pi / 2 * (done - 0.3) / 0.7) ** 2
    return (1 - share) + 0.0004 * share


def make(name: str, *phases: tuple[int, float], lowest: float = 0.1):
    settings = PretrainConfig(schedule=name, weight_decay=0.0, validation_blocks=0.1)
    weight = torch.nn.Parameter(torch.zeros(1))
    made = make_optimizer([weight], settings, RATE, phases, lowest=lowest)
    return made["optimizer"], made["lr_scheduler"]["scheduler"]


def rates(optimizer, schedule, count: int) -> list[float]:
    seen = []
    for _ in range(count):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


@pytest.mark.parametrize("steps", [5, 70, 1000])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_its_formula(name, steps):
    expected = [written_out(name, step, steps) for step in range(steps)]
    assert schedule_factors(name, steps) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_rate_is_zero_or_above_the_peak(name):
    for steps in (1, 2, 3, 7, 11, 501):
        factors = schedule_factors(name, steps)
        assert len(factors) == steps
        assert 0 < factors.min() <= factors.max() <= 1 + 1e-12
    assert len(schedule_factors(name, 0)) == 0


@pytest.mark.parametrize("name", ["triangular", "triangular2", "exp_range"])
def test_cycles_begin_where_they_are_told_to(name):
    factors = schedule_factors(name, 4000, lowest=0.25)
    assert factors.min() == pytest.approx(0.25, abs=0.001)
    seen = rates(*make(name, (40, 1.0), lowest=0.25), 40)
    assert seen == pytest.approx(RATE * schedule_factors(name, 40, lowest=0.25))


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_phase_is_the_same_shape_at_its_share_of_the_peak(name):
    seen = rates(*make(name, (10, 1.0), (0, 0.5), (5, 0.3), (5, 0.1)), 20)
    phases = ((10, 1.0), (5, 0.3), (5, 0.1))
    expected = [RATE * share * schedule_factors(name, steps) for steps, share in phases]
    assert seen == pytest.approx(np.concatenate(expected))
    assert rates(*make(name, (0, 1.0), (6, 1.0)), 6) == rates(*make(name, (6, 1.0)), 6)
    # Beyond the end it stays.
    assert rates(*make(name, (4, 1.0)), 10)[4:] == [seen_last(name)] * 6


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 3, 1, 4), (7, 2, 1, 2)])
def test_muon_turns_a_momentum_into_an_orthogonal_step(shape):
    generator = torch.Generator().manual_seed(3)
    weight = torch.nn.Parameter(torch.randn(shape, generator=generator))
    bias = torch.nn.Parameter(torch.randn(5, generator=generator))
    optimizer = MuonAdamW([weight, bias], RATE, weight_decay=0.1, matrices=[weight], scale=0.6)
    momentum = torch.zeros(shape)
    for _ in range(3):
        before, gradient = weight.detach().clone(), torch.randn(shape, generator=generator)
        weight.grad, bias.grad = gradient.clone(), torch.randn(5, generator=generator)
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        moved = (before * (1 - 0.1 * RATE) - weight.detach()).flatten(1)
        u, sizes, v = torch.linalg.svd(
            (0.05 * gradient + 0.95 * momentum).flatten(1), full_matrices=False
        )
        rows, columns = moved.shape
        # In the singular vectors of the momentum a step is diagonal, its entries about alike.
        stretched = u.T @ moved @ v.T / (RATE * 0.6 * max(rows, columns) ** 0.5)
        off = stretched - torch.diag(stretched.diagonal())
        assert off.abs().max() < 1e-4
        is_large = sizes > 0.1 * sizes.max()
        assert ((stretched.diagonal() > 0.6) & (stretched.diagonal() < 1.3))[is_large].all()


def test_what_is_no_matrix_of_muon_moves_by_adamw():
    generator = torch.Generator().manual_seed(4)
    start = torch.randn(4, 3, generator=generator)
    ours, torchs, matrix = (torch.nn.Parameter(start.clone()) for _ in range(3))
    one = MuonAdamW([ours, matrix], RATE, weight_decay=0.1, matrices=[matrix], scale=0.2)
    other = torch.optim.AdamW([torchs], RATE, weight_decay=0.1)
    none = MuonAdamW([matrix], RATE, weight_decay=0.1, matrices=[matrix], scale=0.0)
    assert len(one.param_groups) == 2
    assert len(none.param_groups) == 1
    for _ in range(4):
        ours.grad = torchs.grad = torch.randn(4, 3, generator=generator)
        one.step()
        other.step()
    torch.testing.assert_close(ours, torchs)
    # Without a gradient nothing moves it.
    assert torch.equal(matrix, start)


def test_a_closure_sees_all_weights_of_the_optimizer():
    weight, matrix = (torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    optimizer = MuonAdamW([weight, matrix], RATE, weight_decay=0.0, matrices=[matrix], scale=0.2)

    def closure():
        optimizer.zero_grad()
        loss = (weight.sum() + matrix.sum()).square()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 64
    optimizer.step(closure)
    expected = 2 * (weight.sum() + matrix.sum())
    closure()
    torch.testing.assert_close(matrix.grad, torch.full((2, 2), expected.item()))


def seen_last(name: str) -> float:
    return rates(*make(name, (4, 1.0)), 4)[-1]


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_interrupted_schedule_goes_on_as_if_nothing_had_been(name):
    phases = (12, 1.0), (8, 0.5)
    whole = rates(*make(name, *phases), 20)
    optimizer, schedule = make(name, *phases)
    first = rates(optimizer, schedule, 9)
    states = optimizer.state_dict(), schedule.state_dict()
    optimizer, schedule = make(name, *phases)
    optimizer.load_state_dict(states[0])
    schedule.load_state_dict(states[1])
    assert first + rates(optimizer, schedule, 11) == whole


def test_an_unknown_schedule_is_refused_at_once():
    with pytest.raises(InputError, match=r"schedule 'cosin'; did you mean 'cosine'\?"):
        schedule_factors("cosin", 10)
    with pytest.raises(InputError, match="schedule 'linear'"):
        schedule_factors("linear", 10)


# --- the running mean ---


@pytest.mark.parametrize(("decay", "n_steps"), [(0.999, 1), (0.999, 30), (0.6, 30), (0.0, 4)])
def test_the_mean_is_the_weighted_sum_of_all_steps(decay, n_steps):
    model = torch.nn.Linear(1, 1, bias=False).double()
    average, values = average_weights(model, decay), []
    for step in range(1, n_steps + 1):
        values.append(float(torch.randn((), generator=torch.Generator().manual_seed(step))))
        with torch.no_grad():
            model.weight.fill_(values[-1])
        average.update_parameters(model)
    keep = [min(decay, (step - 1) / (step + 8)) for step in range(1, n_steps + 1)]
    weights = [(1 - keep[i]) * math.prod(keep[i + 1 :]) for i in range(n_steps)]
    assert sum(weights) == pytest.approx(1, abs=1e-12)
    expected = sum(w * v for w, v in zip(weights, values, strict=True))
    assert average.module.weight.item() == pytest.approx(expected, abs=1e-12)


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


# --- plateaus ---

SETTINGS = config(
    "pretrain.schedule=plateau", "pretrain.validation_blocks=0.2", "pretrain.validation_every=2",
    "pretrain.patience=6", "pretrain.steps=30", "pretrain.learning_rate=0.3",
    "pretrain.contrastive_weight=0", "pretrain.checkpoint_minutes=0.0000001",
)  # fmt: skip


def rates_by_hand(values):
    """The rate of every step from the validation losses after each second one."""
    seen, rate, best, in_vain = [], 0.3, np.inf, 0
    for value in values:
        seen += [rate, rate]
        in_vain = 0 if value < best else in_vain + 1
        best = min(best, value)
        if in_vain == PLATEAU_PATIENCE:
            rate, in_vain = rate * PLATEAU_FACTOR, 0
    return seen


@pytest.fixture(scope="module")
def whole(tiny_bundle, tmp_path_factory):
    return pretrain(tiny_bundle, SETTINGS, tmp_path_factory.mktemp("plateau") / "out")


def test_the_rate_falls_after_validation_in_vain(whole):
    rows = whole.history
    values = rows[(rows["split"] == "val") & (rows["metric"] == "bits_per_base")]["value"]
    seen = rows[rows["metric"] == "learning_rate"]["value"]
    assert seen.tolist() == pytest.approx(rates_by_hand(values))
    # Random bases cannot be predicted: with such a rate it only gets worse.
    assert seen.iloc[-1] < 0.15


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

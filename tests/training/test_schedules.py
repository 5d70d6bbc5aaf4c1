"""Each schedule is its formula, and depends on nothing but the step."""

import math

import pytest
import torch

from genesplice.errors import InputError
from genesplice.training.schedules import SCHEDULES, make_schedule, schedule_factor

RATE = 0.25


def written_out(name: str, step: int, steps: int) -> float:
    """The formulas, at the middle of the step."""
    done = (step + 0.5) / steps
    if name in ("constant", "plateau"):
        return 1.0
    if name in ("triangular", "triangular2", "exp_range"):
        cycle, place = divmod(8 * done, 2)
        height = min(place, 2 - place)
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


def make(name: str, steps: int, *later: tuple[int, float]):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    return optimizer, make_schedule(optimizer, name, steps, *later)


def rates(optimizer, schedule, count: int) -> list[float]:
    found = []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 1001])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_its_formula(name, steps):
    for step in range(steps):
        expected = written_out(name, step, steps)
        assert schedule_factor(name, step, steps) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_optimizer_gets_the_factor_times_the_peak(name):
    found = rates(*make(name, 20), 20)
    expected = [RATE * written_out(name, step, 20) for step in range(20)]
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_rate_is_zero_or_above_the_peak(name):
    for steps in (1, 2, 3, 10, 500):
        factors = [schedule_factor(name, step, steps) for step in range(steps)]
        assert min(factors) > 0
        assert max(factors) <= 1


@pytest.mark.parametrize(
    ("name", "mode", "gamma"),
    [("triangular", "triangular", 1.0), ("triangular2", "triangular2", 1.0),
     ("exp_range", "exp_range", 0.1 ** (1 / 160))],
)  # fmt: skip
def test_cycles_are_those_of_torch(name, mode, gamma):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    torchs = torch.optim.lr_scheduler.CyclicLR(
        optimizer, 0.03 * RATE, RATE, step_size_up=20, mode=mode, gamma=gamma, cycle_momentum=False
    )
    # Half steps: a factor is that of the middle of its step.
    found = rates(optimizer, torchs, 160)[1::2]
    expected = [RATE * schedule_factor(name, step, 80, lowest=0.03) for step in range(80)]
    assert found == pytest.approx(expected, abs=1e-9)


def test_restarts_are_those_of_torch():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    torchs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=20, T_mult=2)
    found = rates(optimizer, torchs, 140)[1::2]
    expected = [RATE * schedule_factor("warm_restarts", step, 70) for step in range(70)]
    assert found == pytest.approx(expected, abs=1e-9)


def test_cycles_begin_where_they_are_told_to():
    for name in ("triangular", "triangular2", "exp_range"):
        factors = [schedule_factor(name, step, 4000, lowest=0.25) for step in range(4000)]
        assert min(factors) == pytest.approx(0.25, abs=0.001)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
        found = rates(optimizer, make_schedule(optimizer, name, 40, lowest=0.25), 40)
        assert found == [RATE * schedule_factor(name, s, 40, lowest=0.25) for s in range(40)]


def test_the_peaks_are_where_they_should_be():
    factors = {name: [schedule_factor(name, s, 1000) for s in range(1000)] for name in SCHEDULES}
    peak = {name: values.index(max(values)) for name, values in factors.items()}
    assert peak["cosine"] in (99, 100)
    assert peak["one_cycle"] in (299, 300)
    assert peak["triangular2"] in (124, 125)
    assert peak["warm_restarts"] in (0, 143, 429)
    tops = [factors["triangular2"][at] for at in (125, 375, 625, 875)]
    assert tops == pytest.approx([1, 0.55, 0.325, 0.2125], abs=0.01)
    assert factors["one_cycle"][0] == pytest.approx(1 / 25, rel=0.01)
    assert factors["one_cycle"][-1] == pytest.approx(1 / 2500, rel=0.01)
    assert factors["cosine"][-1] < 1e-5


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_interrupted_schedule_goes_on_as_if_nothing_had_been(name):
    whole = rates(*make(name, 12, (8, 0.5)), 20)
    optimizer, schedule = make(name, 12, (8, 0.5))
    first = rates(optimizer, schedule, 9)
    states = optimizer.state_dict(), schedule.state_dict()
    optimizer, schedule = make(name, 12, (8, 0.5))
    optimizer.load_state_dict(states[0])
    schedule.load_state_dict(states[1])
    assert first + rates(optimizer, schedule, 11) == whole


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_later_phase_is_the_same_shape_at_its_share(name):
    found = rates(*make(name, 10, (5, 0.3), (4, 0.1)), 19)
    expected = [
        share * schedule_factor(name, step, steps)
        for steps, share in ((10, 1.0), (5, 0.3), (4, 0.1))
        for step in range(steps)
    ]
    assert found == pytest.approx([RATE * factor for factor in expected], abs=1e-12)


def test_a_phase_of_no_steps_is_skipped():
    assert rates(*make("cosine", 0, (6, 1.0)), 6) == rates(*make("cosine", 6), 6)
    assert rates(*make("cosine", 6, (0, 0.5)), 6) == rates(*make("cosine", 6), 6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_beyond_the_end_the_last_rate_stays_finite(name):
    found = rates(*make(name, 4), 10)
    assert all(0 <= rate <= RATE for rate in found)
    assert schedule_factor(name, 10_000, 4) == schedule_factor(name, 4, 4)


def test_an_unknown_schedule_is_refused_at_once():
    with pytest.raises(InputError, match=r"schedule 'cosin'; did you mean 'cosine'\?"):
        schedule_factor("cosin", 0, 10)
    with pytest.raises(InputError, match="schedule 'linear'"):
        make("linear", 10)

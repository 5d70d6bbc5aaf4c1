import numpy as np
import pandas as pd
import pytest

from genesplice.errors import InputError
from genesplice.show.figures import rate_range, rate_schedules


@pytest.fixture
def curve():
    rates = np.geomspace(1e-5, 1, 40)
    loss = 2 + np.cos(np.arange(40))
    return pd.DataFrame({"learning_rate": rates, "loss": loss, "smoothed": loss / 2})


@pytest.fixture
def rates():
    rows = [(name, step, 0.1 * step) for name in ("b", "a", "<i>") for step in (2, 0, 1)]
    return pd.DataFrame(rows, columns=["schedule", "step", "learning_rate"])


def test_the_proposed_rates_are_shaded_under_both_curves(curve):
    figure = rate_range(curve, 1e-4, 1e-2)
    (shape,) = figure.layout.shapes
    assert (shape.x0, shape.x1) == (1e-4, 1e-2)
    assert figure.layout.xaxis.type == "log"
    np.testing.assert_array_equal(figure.data[0].y, curve["loss"])
    np.testing.assert_array_equal(figure.data[1].y, curve["smoothed"])
    for trace in figure.data:
        np.testing.assert_array_equal(trace.x, curve["learning_rate"])


def test_schedules_run_over_the_steps_and_the_chosen_one_is_thick(rates):
    figure = rate_schedules(rates, highlight=["a"])
    assert [trace.name for trace in figure.data] == ["b", "a", "&lt;i&gt;"]
    assert len({trace.line.color for trace in figure.data}) == 3
    widths = [trace.line.width for trace in figure.data]
    assert widths[1] > widths[0] == widths[2]
    for trace in figure.data:
        assert list(trace.x) == [0, 1, 2]
        assert list(trace.y) == pytest.approx([0, 0.1, 0.2])


def test_what_cannot_be_drawn_is_refused(curve, rates):
    with pytest.raises(InputError, match=r"bounds 1 and 0\.1"):
        rate_range(curve, 1.0, 0.1)
    with pytest.raises(InputError, match="smoothed"):
        rate_range(curve.drop(columns="smoothed"), 0.1, 1.0)
    with pytest.raises(InputError, match="highlight 'c', expected b, a, <i>"):
        rate_schedules(rates, highlight=["c"])
    with pytest.raises(InputError, match="step"):
        rate_schedules(rates.drop(columns="step"))

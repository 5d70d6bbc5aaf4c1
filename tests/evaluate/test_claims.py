import pytest

from genesplice.errors import InputError
from genesplice.evaluate.ablations import judge
from genesplice.results import Metric


def difference(low, high, value=0.1):
    return Metric("probe_mean_difference", value, low, high, 1200, "a - b", "test", 0, 0)


@pytest.mark.parametrize(
    ("low", "high", "higher", "lower"),
    [
        (0.1, 0.3, "helps", "does not help"),
        (-0.3, -0.1, "does not help", "helps"),
        (-0.1, 0.3, "cannot tell", "cannot tell"),
        (0.0, 0.3, "cannot tell", "cannot tell"),
        (None, None, "cannot tell", "cannot tell"),
    ],
)
def test_the_interval_decides(low, high, higher, lower):
    assert judge("it", difference(low, high)).answer == higher
    assert judge("it", difference(low, high), is_lower_better=True).answer == lower


def test_the_sentence_says_why():
    found = judge("Masked bases", difference(0.05, 0.2))
    assert found.claim == "Masked bases"
    assert found.sentence == (
        "Masked bases: helps. probe_mean of a - b: +0.1000 (+0.0500 to +0.2000, n = 1,200; "
        "higher is better)."
    )
    assert "(no interval" in judge("x", difference(None, None)).sentence


def test_what_is_no_difference_is_refused():
    with pytest.raises(InputError, match="metric 'probe_mean', expected a difference"):
        judge("x", difference(0.1, 0.2)._replace(metric="probe_mean"))

"""One sentence for a claim: it helps, it does not, or nobody can tell from these data."""

from typing import Literal, NamedTuple

from genesplice.errors import InputError
from genesplice.results import Metric

Answer = Literal["helps", "does not help", "cannot tell"]


class Claim(NamedTuple):
    """What was claimed, the answer, and the sentence that says why."""

    claim: str
    answer: Answer
    sentence: str


def judge(claim: str, difference: Metric, *, is_lower_better: bool = False) -> Claim:
    """Answer from the interval of a difference between a model and its null ablation.

    It helps if the whole interval lies on the better side of 0, it does not if the whole interval
    lies on the other, and one cannot tell if 0 is inside or there is no interval.

    Raises
    ------
    InputError
        If the metric is not a difference.
    """
    if not difference.metric.endswith("_difference"):
        raise InputError(f"metric {difference.metric!r}", "a difference to a null ablation")
    low, high = difference.ci_low, difference.ci_high
    answer: Answer = "cannot tell"
    if low is not None and high is not None:
        better, worse = (high < 0, low > 0) if is_lower_better else (low > 0, high < 0)
        answer = "helps" if better else "does not help" if worse else "cannot tell"
    name = difference.metric.removesuffix("_difference")
    interval = "no interval" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"
    sentence = (
        f"{claim}: {answer}. {name} of {difference.model}: {difference.value:+.4f} ({interval}, "
        f"n = {difference.n:,}; {'lower' if is_lower_better else 'higher'} is better)."
    )
    return Claim(claim, answer, sentence)

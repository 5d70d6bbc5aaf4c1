"""Figures and page of the verdict, from plain values."""

import numpy as np
import pandas as pd
import pytest

from genesplice.context.verdict import VerdictReport, hypothesis_table, write_verdict_page
from genesplice.errors import InputError
from genesplice.results import Metric
from genesplice.show.figures import context_scores, dose_figure, mass_figure, slope_bars

SLOPES = [
    {
        "metric": "level_r2",
        "slope": 0.03,
        "ci_low": 0.01,
        "ci_high": 0.06,
        "minimum_detectable": 0.02,
    },
    {
        "metric": "profile_r",
        "slope": -0.01,
        "ci_low": -0.03,
        "ci_high": 0.0,
        "minimum_detectable": 0.04,
    },
]
ARMS = [
    {"name": "context_512", "context_bp": 512, "is_reference": False, "is_excluded": False},
    {"name": "context_4096", "context_bp": 4096, "is_reference": False, "is_excluded": False},
    {"name": "short_cnn", "context_bp": 33, "is_reference": True, "is_excluded": True},
]
METRICS = pd.DataFrame(
    [
        ("level_r2", 0.2, 0.1, 0.3, 9, "context_512", "test", None, 0),
        ("level_r2", 0.4, 0.3, 0.5, 9, "context_512", "test", None, 1),
        ("level_r2", 0.5, 0.4, 0.6, 9, "context_4096", "test", None, 0),
        ("level_r2", 0.9, 0.8, 1.0, 9, "short_cnn", "test", None, 0),
    ],
    columns=["metric", "value", "ci_low", "ci_high", "n", "model", "split", "fold", "seed"],
)
VERDICT = {
    "answer": "yes", "sentence": "Longer <context> helps.", "slopes": SLOPES, "conditions": ARMS,
    "rule": {"smallest_effect": 0.02, "alpha": 0.05, "power": 0.8, "n_runs": 2,
             "counts_shared_variance": False}, "failures": {"a-task": "died"},
    "disagreements": ["The conditions say yes, but gradient does not."], "cpu_seconds": 12.0,
    "controls": {"controls": [
        {"control": "distal", "expected": "yes", "answer": "yes", "sentence": "It helps.",
         "made": {"when": "2026-11-02T10:00:00.000"}},
    ], "reused": [], "smallest_effect": 0.02, "element_distance_bp": [1024, 3312]},
}  # fmt: skip

NOT_RUN = {
    "hypothesis": "graph <b>", "metric": "profile_r", "model": "genesplice",
    "ablation": "genesplice_rewired", "effect": np.nan, "ci_low": np.nan, "ci_high": np.nan,
    "n_runs": 0, "seeds": 0, "cpu_seconds": np.nan, "answer": "not run",
}  # fmt: skip


def test_slopes_are_drawn_with_their_limits():
    figure = slope_bars(SLOPES, 0.02)
    points = figure.data[0]
    assert list(points.x) == [0.03, -0.01]
    np.testing.assert_allclose(points.error_x.array, [0.03, 0.01])
    np.testing.assert_allclose(points.error_x.arrayminus, [0.02, 0.02])
    assert {shape.x0 for shape in figure.layout.shapes} == {0, 0.02}
    with pytest.raises(InputError):
        slope_bars([], 0.02)


def test_the_dial_has_the_mean_over_seeds_and_no_reference():
    line = next(trace for trace in context_scores(ARMS, METRICS).data if trace.mode != "lines")
    assert list(line.x) == [512, 4096]
    np.testing.assert_allclose(line.y, [0.3, 0.5])
    with pytest.raises(InputError, match="no record of profile_r for any condition"):
        context_scores(ARMS, METRICS, "profile_r")


def test_dose_and_mass_are_drawn():
    dose = dose_figure(pd.DataFrame({"distance_bp": [0, 1024], "share": [0.25, 1.0]}))
    assert list(dose.data[0].x) == ["0", "1,024"]
    assert list(dose.data[0].y) == [0.25, 1.0]
    table = pd.DataFrame(
        {"high_bp": [0, 128], "gradient": [0.75, 0.25], "perturbation": [0.5, 0.5]}
    )
    figure = mass_figure(table)
    assert [list(trace.y) for trace in figure.data] == [[0.75, 1.0], [0.5, 1.0]]
    with pytest.raises(InputError):
        mass_figure(table.drop(columns="gradient"))


def report(**changes):
    dose = mass = pd.DataFrame()
    metrics = [Metric(*row) for row in METRICS.itertuples(index=False)]
    return VerdictReport(VERDICT | changes, metrics, pd.DataFrame(), dose, mass)


def test_the_page_says_everything_and_interprets_nothing(tmp_path):
    ablations = pd.DataFrame([NOT_RUN])
    path = write_verdict_page(tmp_path / "v.html", report(), ablations, "my <i>data")
    page = path.read_text()
    for text in (
        "Longer &lt;context&gt; helps.", "my &lt;i&gt;data", "graph &lt;b&gt;", "not run",
        "The conditions say yes, but gradient does not.", "Task a-task died",
        "no: shorter than the context under test", "Complete runs of each context: 2.",
    ):  # fmt: skip
        assert text in page, text
    again = write_verdict_page(tmp_path / "w.html", report(), ablations, "my <i>data")
    assert again.read_text() == page


def test_a_refusal_has_a_page_too(tmp_path):
    refused = report(answer="refused", slopes=[], failures={}, disagreements=[])
    page = write_verdict_page(tmp_path / "v.html", refused).read_text()
    assert "Longer &lt;context&gt; helps." in page
    assert "refused. Longer" not in page, "the sentence says it"
    assert "Hypotheses" not in page


def test_hypotheses_have_their_answer_first_and_blanks_where_nothing_was_run():
    was_run = {
        **NOT_RUN, "hypothesis": "graph attention", "effect": 0.02, "ci_low": -0.001,
        "ci_high": 0.041, "n_runs": 5, "cpu_seconds": 1234.5, "answer": "yes",
    }  # fmt: skip
    table = hypothesis_table(pd.DataFrame([was_run, NOT_RUN]))
    assert table.to_numpy().tolist() == [
        ["graph attention", "yes", "rewired", "profile_r", "+0.0200", "-0.0010 to +0.0410", "5",
         "1,234"],
        ["graph <b>", "not run", "rewired", "profile_r", "", "", "", ""],
    ]  # fmt: skip

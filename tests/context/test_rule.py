"""The rule: slopes against numpy, errors in loops, and its error rates on simulated tables."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from genesplice.context.rule import ANSWERS, Rule, block_scores, decide, fit_slope
from genesplice.errors import InputError
from genesplice.evaluate.metrics import fold_profiles, score

CONTEXTS = (512, 4096, 32_768, 262_144)
RULE = Rule(smallest_effect=0.02, n_bootstrap=400)


def make_scores(
    seed, *, slope=0.0, contexts=CONTEXTS, n_folds=5, n_seeds=1, n_blocks=9, metrics=("level_r2",),
    block_noise=0.05, training_noise=0.01, rising=None, shared=0.0,
):  # fmt: skip
    """Blocks differ in difficulty, conditions in seed variance; `rising` metrics have the slope.

    `shared` is the correlation of seed variance between neighbouring contexts of a run.
    """
    generator = np.random.default_rng(seed)
    hard = generator.normal(0.4, 0.2, (n_folds, 1, n_blocks))
    genes = generator.integers(40, 100, (n_folds, 1, n_blocks))
    conditions = np.arange(len(contexts))
    place = np.meshgrid(conditions, np.arange(n_folds), np.arange(n_seeds), np.arange(n_blocks),
                        indexing="ij")  # fmt: skip
    condition, fold, run, block = (part.ravel() for part in place)
    context = np.array(contexts)[condition]
    tables = []
    for metric in metrics:
        effect = slope if rising is None or metric in rising else 0.0
        size = len(conditions), n_folds, n_seeds, n_blocks
        noise = generator.normal(0, training_noise, (*size[:3], 1))
        for before, after in itertools.pairwise(range(len(conditions))):
            noise[after] = shared * noise[before] + np.sqrt(1 - shared**2) * noise[after]
        value = hard + noise
        value = (value + generator.normal(0, block_noise, size)).ravel()
        value += effect * np.log2(context / contexts[0])
        columns = {
            "metric": metric, "model": condition, "context_bp": context, "fold": fold, "seed": run,
            "block": fold * n_blocks + block, "value": value,
            "n": np.broadcast_to(genes, size).ravel(),
        }  # fmt: skip
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


# --- the slope and its errors ---


def test_the_slope_is_least_squares_over_all_genes():
    scores = make_scores(1, slope=0.03, n_seeds=2)
    mean = [
        np.average(part["value"], weights=part["n"]) for _, part in scores.groupby("context_bp")
    ]
    expected = np.polyfit(np.log2(CONTEXTS), mean, 1)[0]
    assert fit_slope(scores, RULE).slope == pytest.approx(expected, abs=1e-12)


def test_without_noise_the_slope_is_exact():
    scores = make_scores(2, slope=0.03, block_noise=0, training_noise=0)
    found = fit_slope(scores, RULE)
    assert found.slope == pytest.approx(0.03, abs=1e-12)
    assert found.se == pytest.approx(0, abs=1e-12)
    assert found.ci_low == pytest.approx(found.ci_high)


def test_the_order_of_rows_does_not_matter():
    scores = make_scores(3, n_seeds=2)
    assert fit_slope(scores.sample(frac=1, random_state=0), RULE) == fit_slope(scores, RULE)


def block_slopes(scores):
    """Slope of each block's mean over seeds, and its weight, one block at a time."""
    slopes, weights = [], []
    for _, part in scores.groupby(["fold", "block"]):
        mean = part.groupby("context_bp")["value"].mean()
        slopes.append(np.polyfit(np.log2(mean.index), mean, 1)[0])
        weights.append(part["n"].iloc[0])
    return np.array(slopes), np.array(weights)


def test_block_error_is_that_of_a_weighted_mean():
    scores = make_scores(4, n_blocks=40, block_noise=0.2, training_noise=0)
    slopes, weights = block_slopes(scores)
    mean = np.average(slopes, weights=weights)
    share = weights / weights.sum()
    expected = np.sqrt((share**2 * (slopes - mean) ** 2).sum())
    found = fit_slope(scores, Rule(0.02, n_bootstrap=20_000))
    assert found.se_blocks == pytest.approx(expected, rel=0.03)


def run_residuals(runs):
    """Two-way residuals of conditions x runs, in loops."""
    left = np.zeros_like(runs)
    for a in range(runs.shape[0]):
        for r in range(runs.shape[1]):
            left[a, r] = runs[a, r] - runs[a].mean() - runs[:, r].mean() + runs.mean()
    return left


@pytest.mark.parametrize(("n_folds", "n_seeds", "key"), [(1, 3, "seed"), (4, 2, "fold")])
def test_training_error_comes_from_runs(n_folds, n_seeds, key):
    scores = make_scores(5, n_folds=n_folds, n_seeds=n_seeds, training_noise=0.1)
    runs = np.array(
        [
            [np.average(p["value"], weights=p["n"]) for _, p in part.groupby(key)]
            for _, part in scores.groupby("context_bp")
        ]
    )
    n_contexts, n_runs = runs.shape
    df = (n_contexts - 1) * (n_runs - 1)
    variance = (run_residuals(runs) ** 2).sum() / df
    x = np.log2(CONTEXTS) - np.log2(CONTEXTS).mean()
    expected = np.sqrt(variance / (x**2).sum() / n_runs)
    found = fit_slope(scores, RULE)
    assert found.se_training == pytest.approx(expected, rel=1e-9)
    if key == "fold":
        assert found.se == max(found.se_blocks, found.se_training)
    else:
        assert found.se == pytest.approx(np.hypot(found.se_blocks, found.se_training))
        assert found.df == min(8, df)


def test_one_run_is_judged_by_what_is_left_beside_the_line():
    scores = make_scores(6, n_folds=1, n_seeds=1, training_noise=0.05)
    mean = np.array(
        [np.average(p["value"], weights=p["n"]) for _, p in scores.groupby("context_bp")]
    )
    x = np.log2(CONTEXTS)
    coefficients, covariance = np.polyfit(x, mean, 1, cov=True)
    found = fit_slope(scores, RULE)
    assert found.slope == pytest.approx(coefficients[0])
    assert found.se_training == pytest.approx(np.sqrt(covariance[0, 0]), rel=1e-6)


def test_limits_are_those_of_student():
    found = fit_slope(make_scores(7, n_seeds=2, n_folds=1), RULE, n_metrics=2)
    assert found.ci_low == pytest.approx(found.slope - student.ppf(0.975, found.df) * found.se)
    assert found.ci_high == pytest.approx(found.slope + student.ppf(0.975, found.df) * found.se)
    seen = student.ppf(0.975, found.df) + student.ppf(0.8, found.df)
    assert found.minimum_detectable == pytest.approx(seen * found.se)


# --- the answer ---


def test_the_three_answers():
    quiet = {"block_noise": 0.01, "training_noise": 0.001}
    yes = decide(make_scores(8, slope=0.05, **quiet), RULE)
    no = decide(make_scores(8, slope=0.0, **quiet), RULE)
    unclear = decide(make_scores(8, n_folds=1, training_noise=0.5), RULE)
    assert (yes.answer, no.answer, unclear.answer) == ANSWERS
    assert "helps here: level_r2 +0.05" in yes.sentence
    assert "does not help here" in no.sentence
    assert "0.02 per doubling would have mattered" in no.sentence
    assert f"{unclear.slopes[0].minimum_detectable:.4f}" in unclear.sentence


def test_real_but_too_small_to_matter_is_a_no():
    quiet = {"block_noise": 0.002, "training_noise": 0.0002}
    found = decide(make_scores(9, slope=0.005, **quiet), RULE)
    assert found.slopes[0].ci_low > 0
    assert found.answer == "no"


def test_harm_is_a_no():
    quiet = {"block_noise": 0.01, "training_noise": 0.001}
    assert decide(make_scores(10, slope=-0.05, **quiet), RULE).answer == "no"


def test_one_rising_metric_is_enough_and_names_itself():
    quiet = {"block_noise": 0.01, "training_noise": 0.001}
    scores = make_scores(
        11, slope=0.05, metrics=("level_r2", "profile_r"), rising=("profile_r",), **quiet
    )
    found = decide(scores, RULE)
    assert found.answer == "yes"
    assert "profile_r" in found.sentence
    assert "level_r2" not in found.sentence
    assert decide(scores, RULE, ["level_r2"]).answer == "no"


# --- error rates, over 200 simulated experiments each ---

DESIGNS = {
    "one fold, two seeds": {"n_folds": 1, "n_seeds": 2},
    "one run of each condition": {"n_folds": 1, "n_seeds": 1},
    "five folds, three seeds": {
        "n_folds": 5, "n_seeds": 3, "contexts": tuple(512 * 4**i for i in range(6)),
    },
}  # fmt: skip
METRICS = ("level_r2", "profile_r")


def answers(n=200, **sizes):
    rule = Rule(smallest_effect=0.02, n_bootstrap=200)
    return [decide(make_scores(1000 + i, metrics=METRICS, **sizes), rule).answer for i in range(n)]


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("training_noise", [0.0, 0.05])
def test_a_yes_without_any_effect_is_said_in_at_most_one_of_twenty(design, training_noise):
    found = answers(**DESIGNS[design], training_noise=training_noise, block_noise=0.1)
    assert found.count("yes") <= 10


@pytest.mark.slow
@pytest.mark.parametrize("slope", [0.0, 0.02])
def test_luck_that_neighbouring_contexts_share_does_not_deceive(slope):
    sizes = DESIGNS["five folds, three seeds"] | {"shared": 0.8, "slope": slope}
    found = answers(**sizes, training_noise=0.2, block_noise=0.1)
    # One of twenty, and two standard errors of 200 experiments.
    assert found.count("no" if slope else "yes") <= 16


@pytest.mark.slow
@pytest.mark.parametrize("rising", [("level_r2",), ("profile_r",)])
def test_the_smallest_effect_of_interest_is_seen_in_four_of_five(rising):
    sizes = DESIGNS["five folds, three seeds"]
    found = answers(**sizes, slope=0.02, rising=rising, training_noise=0.04, block_noise=0.2)
    assert found.count("yes") >= 160
    assert found.count("no") <= 10


@pytest.mark.slow
def test_no_is_said_wrongly_in_at_most_one_of_twenty():
    sizes = DESIGNS["one fold, two seeds"]
    found = answers(**sizes, slope=0.02, training_noise=0.02, block_noise=0.05)
    assert found.count("no") <= 10


@pytest.mark.slow
def test_the_minimum_detectable_effect_would_have_been_seen():
    sizes = {"n_folds": 5, "n_seeds": 1, "training_noise": 0.05, "block_noise": 0.1}
    minimum_detectable = np.median(
        [fit_slope(make_scores(i, **sizes), RULE).minimum_detectable for i in range(50)]
    )
    rule = Rule(smallest_effect=minimum_detectable, n_bootstrap=200)
    found = [
        decide(make_scores(i, slope=minimum_detectable, **sizes), rule).answer for i in range(100)
    ]
    assert found.count("yes") >= 70


# --- from predictions to scores ---


def predictions_of(bundle, fold, seed=0):
    """Two conditions that predict the truth with noise."""
    generator = np.random.default_rng(seed)
    observed = bundle.observed.loc[bundle.test_genes(fold)]
    tables = []
    for condition, noise in (("short", 2.0), ("long", 0.5)):
        predicted = observed + generator.normal(0, noise, observed.shape)
        predicted += generator.normal(0, noise, (len(observed), 1))
        long = observed.stack().rename("observed").reset_index()
        long.columns = ["gene_id", "condition", "observed"]
        long["predicted"] = predicted.stack().to_numpy()
        tables.append(long.assign(fold=fold, model=condition, seed=seed))
    return pd.concat(tables, ignore_index=True)


def test_block_scores_add_up_to_the_metrics(tiny_bundle):
    blocks = tiny_bundle.splits.set_index("gene_id")["block"]
    profile = fold_profiles(tiny_bundle.observed, tiny_bundle.fold_of)
    predictions = predictions_of(tiny_bundle, 0)
    table = block_scores(predictions, blocks, profile, {"short": 512, "long": 4096})
    assert set(table["context_bp"]) == {512, 4096}
    measured = {
        (m.model, m.metric): m.value
        for m in score(predictions, blocks, train_profile=profile, n_bootstrap=0)
    }
    for (condition, metric), part in table.groupby(["model", "metric"]):
        value = np.average(part["value"], weights=part["n"])
        assert value == pytest.approx(measured[condition, metric], abs=1e-9)


def test_arms_without_a_context_are_left_out(tiny_bundle):
    blocks = tiny_bundle.splits.set_index("gene_id")["block"]
    profile = fold_profiles(tiny_bundle.observed, tiny_bundle.fold_of)
    table = block_scores(predictions_of(tiny_bundle, 1), blocks, profile, {"long": 4096})
    assert set(table["model"]) == {"long"}
    with pytest.raises(InputError, match="no predictions of any condition, expected one of other"):
        block_scores(predictions_of(tiny_bundle, 1), blocks, profile, {"other": 1})


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[1:], "no score of context 512, seed 0 on block 0 of fold 0"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "two scores of one context"),
        (lambda t: t.assign(value=np.nan), "a score that is not finite"),
        (lambda t: t.assign(n=np.arange(len(t)) + 1), "conditions that scored different genes"),
        (lambda t: t[t["context_bp"] <= 4096], "2 contexts with 1 fold and 1 seed"),
        (lambda t: t[t["block"] == 0], "1 block of held-out genes"),
    ],
)
def test_incomplete_tables_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        fit_slope(change(make_scores(12, n_folds=1)), RULE)


def test_unknown_metrics_are_refused():
    with pytest.raises(InputError, match="no scores of 'level'"):
        decide(make_scores(13), RULE, ["level"])
    with pytest.raises(InputError, match="no scores"):
        decide(make_scores(13), RULE, [])

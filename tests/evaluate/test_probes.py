"""Probes on planted labels, against guessing, left-out blocks and scikit-learn's own score."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from genesplice.data.features import standardise
from genesplice.errors import InputError
from genesplice.evaluate.bootstrap import make_draws
from genesplice.evaluate.probes import STRENGTHS, balanced_accuracy, predict_labels, probe_metrics

N_BLOCKS, N_FOLDS = 15, 5


def make_sites(n=300, seed=0):
    """Sites of a task with two labels and of one with three."""
    generator = np.random.default_rng(seed)
    parts = []
    for task, labels in (("coding", ("coding", "intergenic")), ("frame", ("1", "2", "3"))):
        block = generator.integers(0, N_BLOCKS, n)
        parts.append(pd.DataFrame({
            "task": task, "label": generator.choice(labels, n), "block": block,
            "fold": block % N_FOLDS,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def planted(sites, strength, seed=1):
    """Features of which one column leans towards the label."""
    values = np.random.default_rng(seed).normal(size=(len(sites), 6))
    values[:, 0] += strength * pd.factorize(sites["label"])[0]
    return values


def by_name(metrics):
    return {(m.model, m.metric): m for m in metrics}


def test_planted_labels_are_told_and_noise_is_not():
    sites = make_sites()
    found = by_name(
        probe_metrics(
            {"planted": planted(sites, 8.0), "noise": planted(sites, 0.0)}, sites, fold=2,
            references=("noise",),
        )
    )  # fmt: skip
    assert found["planted", "probe_coding"].value > 0.97
    assert found["planted", "probe_frame"].value > 0.97
    noise = found["noise", "probe_coding"]
    assert noise.ci_low < 0.5 < noise.ci_high
    difference = found["planted - noise", "probe_mean_difference"]
    expected = found["planted", "probe_mean"].value - found["noise", "probe_mean"].value
    assert difference.value == pytest.approx(expected)
    assert difference.ci_low > 0.2
    n = (sites["fold"] == 2).sum()
    assert found["planted", "probe_mean"].n == difference.n == n
    assert {(m.fold, m.split) for m in found.values()} == {(2, "test")}


def test_held_out_labels_and_other_folds_are_kept_apart():
    sites = make_sites()
    features = {"m": planted(sites, 1.0)}
    first = by_name(probe_metrics(features, sites, fold=2))
    # Labels of the held-out fold change the score, and no guess: the score of opposite
    # answers is the opposite.
    flipped = sites.copy()
    here = (sites["fold"] == 2) & (sites["task"] == "coding")
    swap = {"coding": "intergenic", "intergenic": "coding"}
    flipped.loc[here, "label"] = sites.loc[here, "label"].map(swap)
    second = by_name(probe_metrics(features, flipped, fold=2))
    assert second["m", "probe_coding"].value == pytest.approx(1 - first["m", "probe_coding"].value)


def test_the_score_is_that_of_scikit_learn_in_every_draw():
    generator = np.random.default_rng(3)
    label, guess = generator.integers(0, 3, 60), generator.integers(0, 3, 60)
    block = np.arange(60) % 4
    draws = make_draws(4, 20, seed=0)
    found = balanced_accuracy(guess, label, block, draws)
    for row, counts in enumerate(draws):
        units = np.repeat(np.arange(60), counts[block])
        assert found[row] == pytest.approx(balanced_accuracy_score(label[units], guess[units]))


def test_the_strength_is_chosen_by_left_out_blocks():
    generator = np.random.default_rng(0)
    values, block = generator.normal(size=(200, 30)), np.arange(200) % 10
    label = (values[:, :3].sum(axis=1) + generator.normal(size=200) > 0).astype(np.int64)
    new = generator.normal(size=(50, 30))
    from sklearn.model_selection import GroupKFold

    scores = []
    for strength in STRENGTHS:
        guess = np.empty(200, int)
        for rest, left_out in GroupKFold(4).split(values, label, block):
            model = LogisticRegression(
                C=strength, class_weight="balanced", tol=1e-3, max_iter=2000
            ).fit(values[rest], label[rest])
            guess[left_out] = model.predict(values[left_out])
        scores.append(balanced_accuracy_score(label, guess))
    best = LogisticRegression(
        C=STRENGTHS[int(np.argmax(scores))], class_weight="balanced", tol=1e-3, max_iter=2000
    ).fit(values, label)
    np.testing.assert_array_equal(predict_labels(values, label, block, new), best.predict(new))


def test_the_scale_of_a_feature_does_not_matter():
    sites = make_sites()
    values = planted(sites, 2.0)
    found = probe_metrics({"m": values}, sites, fold=0)
    scaled = probe_metrics({"m": values * 10.0 ** np.arange(-3, 3) + 7}, sites, fold=0)
    assert [m.value for m in found] == pytest.approx([m.value for m in scaled])
    is_train = (sites["fold"] != 0).to_numpy()
    np.testing.assert_allclose(standardise(values, is_train)[is_train].std(axis=0), 1)


def test_a_task_that_lacks_a_label_is_left_out():
    sites = make_sites()
    is_gone = (sites["fold"] == 1) & (sites["label"] == "3")
    found = by_name(probe_metrics({"m": planted(sites, 1)[~is_gone]}, sites[~is_gone], fold=1))
    assert set(found) == {("m", "probe_coding"), ("m", "probe_mean")}


def test_a_small_genome_has_no_interval():
    sites = make_sites()
    sites = sites[sites["block"].isin([0, 1, 2])]
    found = probe_metrics({"m": planted(sites, 1.0)}, sites, fold=0)
    assert all(m.ci_low is None and m.ci_high is None for m in found)


def test_what_cannot_be_probed_is_refused():
    sites = make_sites()
    values = planted(sites, 1.0)
    with pytest.raises(InputError, match=r"references \['k'\] among \['m'\]"):
        probe_metrics({"m": values}, sites, fold=0, references=("k",))
    with pytest.raises(InputError, match=r"features 'm', expected 600 rows"):
        probe_metrics({"m": values[1:]}, sites, fold=0)
    with pytest.raises(InputError, match="rows of finite numbers"):
        probe_metrics({"m": values * np.inf}, sites, fold=0)
    assert probe_metrics({"m": values}, sites, fold=7) == []

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import r2_score

from genesplice.errors import InputError
from genesplice.evaluate.metrics import (
    METRICS,
    PREDICTION_COLUMNS,
    compare,
    fold_profiles,
    paired_difference,
    score,
)
from genesplice.results import Metric, read_metrics, write_metrics

N_GENES, N_CONDITIONS, N_FOLDS = 60, 7, 3
GENES = pd.Index([f"g{i:02d}" for i in range(N_GENES)], name="gene_id")
CONDITIONS = pd.Index([f"c{i}" for i in range(N_CONDITIONS)], name="condition")
block_of = pd.Series(np.arange(N_GENES) // 5, index=GENES)
fold_of = block_of % N_FOLDS


def make_observed(seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    level = generator.normal(6, 2, (N_GENES, 1))
    profile = generator.normal(0, 0.5, N_CONDITIONS)
    values = level + profile + generator.normal(0, 1, (N_GENES, N_CONDITIONS))
    return pd.DataFrame(values.astype(np.float32), index=GENES, columns=CONDITIONS)


def make_predicted(observed: pd.DataFrame, noise: float, seed: int = 1) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    return observed + noise * generator.normal(size=observed.shape).astype(np.float32)


def table(
    observed: pd.DataFrame,
    predicted: pd.DataFrame | np.ndarray,
    model: str = "m",
    seed: int = 0,
    folds: pd.Series = fold_of,
) -> pd.DataFrame:
    """The long table, written out cell by cell."""
    predicted = pd.DataFrame(predicted, index=observed.index, columns=observed.columns)
    rows = [
        (gene, condition, folds[gene], model, seed, observed.loc[gene, condition], value)
        for gene in observed.index
        for condition, value in predicted.loc[gene].items()
    ]
    frame = pd.DataFrame(rows, columns=list(PREDICTION_COLUMNS))
    return frame.astype({"observed": np.float32, "predicted": np.float32})


def values(metrics: list[Metric], fold: int | None = None, model: str = "m") -> dict[str, float]:
    return {m.metric: m.value for m in metrics if m.fold == fold and m.model == model}


def by_loops(frame: pd.DataFrame, scored_fold: int | None = None) -> dict[str, float]:
    """DESIGN's definitions in plain Python numbers, one term at a time."""
    observed: dict = defaultdict(dict)
    predicted: dict = defaultdict(dict)
    fold = {}
    for row in frame[frame["observed"].notna()].itertuples(index=False):
        observed[row.gene_id][row.condition] = float(row.observed)
        predicted[row.gene_id][row.condition] = float(row.predicted)
        fold[row.gene_id] = row.fold
    conditions = sorted({condition for row in observed.values() for condition in row})

    def mean(numbers):
        return math.fsum(numbers) / len(numbers)

    def pearson(x, y):
        mx, my = mean(x), mean(y)
        xy = math.fsum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
        xx, yy = math.fsum((a - mx) ** 2 for a in x), math.fsum((b - my) ** 2 for b in y)
        return 0.0 if math.sqrt(xx / len(x)) < 1e-4 else xy / math.sqrt(xx * yy)

    def ranks(x):
        return [sum(b < a for b in x) + (sum(b == a for b in x) + 1) / 2 for a in x]

    level = {gene: mean(list(row.values())) for gene, row in observed.items()}
    level_hat = {gene: mean(list(row.values())) for gene, row in predicted.items()}
    m = {
        (f, c): mean(
            [row[c] - level[g] for g, row in observed.items() if fold[g] != f and c in row]
        )
        for f in set(fold.values())
        for c in conditions
    }
    genes = [g for g in observed if scored_fold is None or fold[g] == scored_fold]
    off = {g: mean([m[fold[g], c] for c in observed[g]]) for g in genes}
    expected = {g: {c: m[fold[g], c] - off[g] for c in observed[g]} for g in genes}
    y = {g: [observed[g][c] - level[g] - e for c, e in expected[g].items()] for g in genes}
    x = {g: [predicted[g][c] - level_hat[g] - e for c, e in expected[g].items()] for g in genes}
    level_mean = mean([level[g] for g in genes])
    sse = math.fsum((level[g] - level_hat[g]) ** 2 for g in genes)
    sst = math.fsum((level[g] - level_mean) ** 2 for g in genes)
    return {
        "level_spearman": pearson(
            ranks([level_hat[g] for g in genes]), ranks([level[g] for g in genes])
        ),
        "level_r2": 1 - sse / sst,
        "profile_r": mean([pearson(x[g], y[g]) for g in genes]),
        "profile_r_overall": pearson(
            [v for g in genes for v in x[g]], [v for g in genes for v in y[g]]
        ),
    }


# --- the definitions ---


def with_gaps(observed: pd.DataFrame) -> pd.DataFrame:
    """Some values are missing, of some genes most of them."""
    drawn = np.random.default_rng(8).random(observed.shape)
    share = np.where(np.arange(len(observed)) % 7, 0.1, 0.7)[:, None]
    return observed.mask((drawn < share) & (np.arange(observed.shape[1]) > 1))


@pytest.mark.parametrize("has_gaps", [False, True])
@pytest.mark.parametrize("noise", [0.1, 1.0, 5.0])
def test_against_the_definitions_written_as_loops(noise, has_gaps):
    observed = make_observed()
    predicted = make_predicted(observed, noise)
    frame = table(with_gaps(observed) if has_gaps else observed, predicted)
    assert has_gaps == frame["observed"].isna().any()
    metrics = score(frame, block_of, n_bootstrap=0)
    for fold in (None, 0, 1, 2):
        expected = by_loops(frame, fold)
        assert list(values(metrics, fold)) == list(METRICS)
        for name, value in values(metrics, fold).items():
            assert value == pytest.approx(expected[name], abs=1e-12), (name, fold)


def test_against_scipy_and_scikit_learn():
    observed = make_observed(3)
    predicted = make_predicted(observed, 2.0)
    got = values(score(table(observed, predicted), block_of, n_bootstrap=0))
    y_level, x_level = observed.astype(float).mean(axis=1), predicted.astype(float).mean(axis=1)
    profile = fold_profiles(observed, fold_of).loc[fold_of].set_axis(GENES)
    y = observed.astype(float).sub(y_level, axis=0) - profile
    x = predicted.astype(float).sub(x_level, axis=0) - profile
    assert got["level_spearman"] == pytest.approx(spearmanr(x_level, y_level).statistic, abs=1e-12)
    assert got["level_r2"] == pytest.approx(r2_score(y_level, x_level), abs=1e-12)
    each = [pearsonr(x.loc[g], y.loc[g]).statistic for g in GENES]
    assert got["profile_r"] == pytest.approx(np.mean(each), abs=1e-12)
    overall = pearsonr(x.to_numpy().ravel(), y.to_numpy().ravel()).statistic
    assert got["profile_r_overall"] == pytest.approx(overall, abs=1e-12)


def test_perfect_prediction_is_one_everywhere():
    observed = make_observed()
    for metric in score(table(observed, observed), block_of, n_bootstrap=50):
        assert metric.value == pytest.approx(1, abs=1e-12)
        assert metric.ci_low == pytest.approx(1, abs=1e-12)
        assert metric.ci_high == pytest.approx(1, abs=1e-12)


def test_level_and_profile_are_told_apart():
    observed = make_observed()
    own_level = observed.mean(axis=1)
    shifted = observed.add(np.linspace(-9, 9, N_GENES), axis=0)
    got = values(score(table(observed, shifted), block_of, n_bootstrap=0))
    assert got["profile_r"] == pytest.approx(1, abs=1e-5)
    assert got["level_r2"] < 0
    profile = fold_profiles(observed, fold_of).loc[fold_of].set_axis(GENES)
    mirrored = (2 * profile - observed).add(2 * own_level, axis=0)
    got = values(score(table(observed, mirrored), block_of, n_bootstrap=0))
    assert got["level_r2"] == pytest.approx(1, abs=1e-6)
    assert got["profile_r"] == pytest.approx(-1, abs=1e-5)
    assert got["profile_r_overall"] == pytest.approx(-1, abs=1e-5)


def test_flat_prediction_has_no_profile():
    observed = make_observed()
    profile = fold_profiles(observed, fold_of).loc[fold_of].set_axis(GENES)
    flat = profile.add(observed.mean(axis=1), axis=0)
    metrics = score(table(observed, flat), block_of, n_bootstrap=20)
    for metric in metrics:
        if metric.metric.startswith("profile"):
            assert (metric.value, metric.ci_low, metric.ci_high) == (0, 0, 0)


def test_levels_that_differ_by_rounding_are_one_level():
    observed = make_observed()
    rounding = np.random.default_rng(0).normal(0, 1e-7, observed.shape)
    nearly = observed.sub(observed.mean(axis=1), axis=0) + 5 + rounding
    metrics = score(table(observed, nearly), block_of, n_bootstrap=20)
    (rho,) = [m.value for m in metrics if m.metric == "level_spearman" and m.fold is None]
    assert rho == 0


def test_one_flat_gene_counts_as_zero_and_stays_in_the_mean():
    observed = make_observed()
    profile = fold_profiles(observed, fold_of)
    predicted = observed.astype(float)
    predicted.loc["g00"] = 3 + profile.loc[fold_of["g00"]]
    metrics = score(table(observed, predicted), block_of, n_bootstrap=0)
    record = next(m for m in metrics if m.metric == "profile_r" and m.fold is None)
    assert record.value == pytest.approx((N_GENES - 1) / N_GENES, abs=1e-6)
    assert record.n == N_GENES


def test_gene_whose_observed_profile_is_flat_is_left_out_of_the_mean():
    observed = make_observed().astype(float)
    profile = fold_profiles(observed, fold_of)
    train_profile = profile.copy()
    observed.loc["g07"] = 5 + profile.loc[fold_of["g07"]]
    metrics = score(table(observed, observed), block_of, train_profile=train_profile, n_bootstrap=0)
    record = next(m for m in metrics if m.metric == "profile_r" and m.fold is None)
    assert record.n == N_GENES - 1
    assert record.value == pytest.approx(1, abs=1e-6)


def test_mean_of_other_folds_scores_zero_within_a_fold_and_not_above_it_pooled():
    observed = make_observed()
    predicted = observed.astype(float)
    for fold in range(N_FOLDS):
        outside = observed[fold_of != fold]
        predicted[fold_of == fold] = outside.mean(axis=0).to_numpy()[None]
    metrics = score(table(observed, predicted), block_of, n_bootstrap=0)
    for fold in range(N_FOLDS):
        got = values(metrics, fold)
        assert got["level_spearman"] == 0
        assert got["profile_r"] == 0
        assert got["level_r2"] <= 0
    assert values(metrics)["level_spearman"] <= 0


def test_n_counts_genes_or_entries():
    observed = make_observed()
    for metric in score(table(observed, observed), block_of, n_bootstrap=0):
        n_genes = N_GENES if metric.fold is None else int((fold_of == metric.fold).sum())
        per_gene = N_CONDITIONS if metric.metric == "profile_r_overall" else 1
        assert metric.n == n_genes * per_gene
        assert metric.split == "test"
        assert metric.seed == 0


# --- invariants ---


def test_order_of_rows_and_kind_of_column_do_not_change_a_bit():
    observed = make_observed()
    frame = table(observed, make_predicted(observed, 1.0))
    expected = score(frame, block_of, n_bootstrap=30)
    shuffled = frame.sample(frac=1, random_state=5).reset_index(drop=True)
    assert score(shuffled, block_of.sample(frac=1, random_state=6), n_bootstrap=30) == expected
    categorical = shuffled.astype({"model": "category"})
    for column, names in (("gene_id", GENES), ("condition", CONDITIONS)):
        backwards = pd.CategoricalDtype([*names[::-1], "never seen"])
        categorical[column] = categorical[column].astype(backwards)
    assert score(categorical, block_of, n_bootstrap=30) == expected
    assert score(frame[list(PREDICTION_COLUMNS[::-1])], block_of, n_bootstrap=30) == expected


def test_another_model_or_seed_changes_nothing():
    observed = make_observed()
    alone = table(observed, make_predicted(observed, 1.0))
    other = table(observed, make_predicted(observed, 3.0, seed=9), model="a")
    fewer = table(observed[:40], make_predicted(observed, 1.0, seed=2)[:40], model="z")
    again = table(observed, make_predicted(observed, 1.0, seed=7), seed=1)
    expected = score(alone, block_of, n_bootstrap=30)
    got = score(pd.concat([other, again, alone, fewer]), block_of, n_bootstrap=30)
    assert [m for m in got if m.model == "m" and m.seed == 0] == expected
    assert {(m.model, m.seed) for m in got} == {("a", 0), ("m", 0), ("m", 1), ("z", 0)}


def test_recomputed_from_parquet_alone(tmp_path: Path):
    observed = make_observed()
    frame = table(observed, make_predicted(observed, 1.0)).astype({"gene_id": "category"})
    frame.to_parquet(tmp_path / "predictions.parquet", index=False)
    metrics = score(frame, block_of, n_bootstrap=100)
    write_metrics(tmp_path / "metrics.json", metrics)
    again = score(pd.read_parquet(tmp_path / "predictions.parquet"), block_of, n_bootstrap=100)
    assert again == metrics == read_metrics(tmp_path / "metrics.json")


@settings(max_examples=20, deadline=None)
@given(
    offset=st.lists(st.integers(-8, 8), min_size=N_CONDITIONS, max_size=N_CONDITIONS),
    gain=st.sampled_from([0.25, 2.0, 64.0]),
)
def test_what_all_genes_share_and_the_unit_do_not_matter(offset, gain):
    observed = make_observed().round(2)
    predicted = make_predicted(observed, 1.0)
    expected = values(score(table(observed, predicted), block_of, n_bootstrap=0))
    shift = np.array(offset, dtype=np.float64)
    moved = table(gain * (observed + shift), gain * (predicted + shift))
    for name, value in values(score(moved, block_of, n_bootstrap=0)).items():
        assert value == pytest.approx(expected[name], abs=1e-4), name


def test_fold_record_is_that_of_the_fold_alone_with_its_profile():
    observed = make_observed()
    frame = table(observed, make_predicted(observed, 1.0))
    together = values(score(frame, block_of, n_bootstrap=0), fold=1)
    profiles = fold_profiles(observed, fold_of)
    alone = score(frame[frame["fold"] == 1], block_of, train_profile=profiles, n_bootstrap=0)
    assert values(alone, fold=1) == pytest.approx(together, abs=1e-12)
    assert values(alone) == values(alone, fold=1)


def test_given_profiles_are_those_of_the_whole_table():
    observed = make_observed()
    frame = table(observed, make_predicted(observed, 1.0))
    profiles = fold_profiles(observed, fold_of)[CONDITIONS[::-1]]
    given_back = score(frame, block_of, train_profile=profiles, n_bootstrap=0)
    assert given_back == score(frame, block_of, n_bootstrap=0)


def test_stratum_keeps_the_profile_of_the_whole_table():
    observed = make_observed()
    frame = table(observed, make_predicted(observed, 1.0))
    some = GENES[::3]
    got = score(frame, block_of, genes=some, n_bootstrap=0)
    kept = frame[frame["gene_id"].isin(some)]
    profiles = fold_profiles(observed, fold_of)
    expected = score(kept, block_of, train_profile=profiles, n_bootstrap=0)
    assert got == expected
    assert score(frame, block_of, genes=pd.Index(["nobody"])) == []


# --- profiles ---


def test_fold_profile_does_not_know_its_own_fold():
    observed = make_observed()
    profiles = fold_profiles(observed, fold_of)
    changed = observed.copy()
    changed[fold_of == 1] = changed[fold_of == 1].to_numpy()[::-1] * 3 + 1
    after = fold_profiles(changed, fold_of)
    pd.testing.assert_series_equal(profiles.loc[1], after.loc[1], check_exact=True)
    assert not np.allclose(profiles.loc[0], after.loc[0])


def test_profiles_refuse_what_is_missing():
    observed = make_observed()
    with pytest.raises(InputError, match="gene 'g59' without a fold"):
        fold_profiles(observed, fold_of.drop("g59"))
    with pytest.raises(InputError, match="genes of fold 0 only"):
        fold_profiles(observed, fold_of * 0)


# --- edges ---


def test_one_condition_has_levels_only():
    observed = make_observed()[["c0"]]
    metrics = score(table(observed, make_predicted(observed, 1.0)), block_of, n_bootstrap=5)
    assert {m.metric for m in metrics} == {"level_spearman", "level_r2"}


def test_two_conditions_have_profiles_of_plus_or_minus_one():
    observed = make_observed(1)[["c0", "c1"]]
    frame = table(observed, make_predicted(observed, 1.0))
    got = values(score(frame, block_of, n_bootstrap=0))
    assert got == pytest.approx(by_loops(frame), abs=1e-12)
    assert (got["profile_r"] * N_GENES) % 1 == pytest.approx(0, abs=1e-9)


def test_no_interval_from_one_block_or_no_resamples():
    observed = make_observed()
    frame = table(observed, make_predicted(observed, 1.0))
    for metrics in (score(frame, block_of * 0), score(frame, block_of, n_bootstrap=0)):
        assert {(m.ci_low, m.ci_high) for m in metrics} == {(None, None)}


def test_a_single_gene_has_no_correlation_across_genes():
    observed = make_observed()
    frame = table(observed, make_predicted(observed, 1.0))
    metrics = score(frame, block_of, genes=pd.Index(["g11"]), n_bootstrap=10)
    assert {m.metric for m in metrics} == {"profile_r", "profile_r_overall"}
    assert {m.ci_low for m in metrics} == {None}


def test_interval_holds_the_value_and_follows_the_seed():
    observed = make_observed()
    frame = table(observed, make_predicted(observed, 1.0))
    first, second, third = (score(frame, block_of, seed=seed) for seed in (0, 0, 1))
    assert first == second
    assert first != third
    for metric in first:
        assert metric.ci_low <= metric.value <= metric.ci_high
        assert metric.ci_high - metric.ci_low > 0
    assert [m.value for m in first] == [m.value for m in third]


def broken(change: str) -> pd.DataFrame:
    observed = make_observed()
    frame = table(observed, observed)
    if change == "column":
        return frame.drop(columns="fold")
    if change == "empty":
        return frame[:0]
    if change == "nan":
        return frame.assign(predicted=frame["predicted"].mask(frame.index == 9))
    if change == "infinite":
        return frame.assign(observed=frame["observed"].mask(frame.index == 9, np.inf))
    if change == "nowhere":
        return frame.assign(observed=frame["observed"].mask(frame["gene_id"] == "g01"))
    if change == "missing":
        return frame.drop(index=8)
    if change == "twice":
        return pd.concat([frame, frame[8:9]])
    if change == "torn":
        return frame.assign(fold=frame["fold"].mask(frame.index == 8, 2))
    return frame[frame["fold"] == 2]


def test_what_was_not_measured_counts_nowhere():
    observed = with_gaps(make_observed())
    frame = table(observed, make_predicted(make_observed(), 1.0))
    is_gap = frame["observed"].isna()
    other = frame.assign(predicted=frame["predicted"].mask(is_gap, 99.0))
    both = pd.concat([frame, other.assign(model="other")])
    metrics = score(both, block_of, n_bootstrap=20)
    assert values(metrics, model="m") == values(metrics, model="other")
    n = {m.metric: m.n for m in metrics if m.fold is None}
    assert n["profile_r_overall"] == (~is_gap).sum()
    for record in paired_difference(both, "m", "other", block_of, n_bootstrap=20):
        assert (record.value, record.ci_low, record.ci_high) == (0, 0, 0)
    # What is expected in each condition has no profile, wherever there are gaps.
    flat = fold_profiles(observed, fold_of).loc[fold_of].set_axis(GENES)
    flat = flat.add(np.arange(N_GENES), axis=0)
    metrics = values(score(table(observed, flat), block_of, n_bootstrap=0))
    assert metrics["profile_r"] == metrics["profile_r_overall"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("column", "without column 'fold', expected gene_id, condition, fold"),
        ("empty", "no predictions"),
        ("nan", r"model 'm', seed 0: a value of 'predicted' of gene 'g01', expected a finite"),
        ("infinite", "a value of 'observed' of gene 'g01'"),
        ("nowhere", "gene 'g01' without a measurement, expected one or more each"),
        ("missing", "gene 'g01' 0 times in condition 'c1', expected once"),
        ("twice", "gene 'g01' 2 times in condition 'c1'"),
        ("torn", "gene 'g01' in two folds"),
        ("one fold", "genes of fold 2 only, expected two folds or more, or .* train_profile"),
    ],
)
def test_bad_tables_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        score(broken(change), block_of)


def test_missing_blocks_and_profiles_are_refused():
    observed = make_observed()
    frame = table(observed, observed)
    with pytest.raises(InputError, match="gene 'g33' without a block"):
        score(frame, block_of.drop("g33"))
    profiles = fold_profiles(observed, fold_of)
    with pytest.raises(InputError, match="train_profile without fold 2"):
        score(frame, block_of, train_profile=profiles[:2])
    with pytest.raises(InputError, match="no training mean of condition 'c4'"):
        score(frame, block_of, train_profile=profiles.drop(columns="c4"))


# --- two models on the same genes ---


def test_difference_is_the_difference_of_the_scores():
    observed = make_observed()
    frame = pd.concat(
        [
            table(observed, make_predicted(observed, 1.0), model="a"),
            table(observed, make_predicted(observed, 2.0, seed=4), model="b"),
        ]
    )
    scores = score(frame, block_of, n_bootstrap=0)
    a, b = values(scores, model="a"), values(scores, model="b")
    differences = paired_difference(frame, "a", "b", block_of)
    assert [d.metric for d in differences] == [f"{name}_difference" for name in METRICS]
    for name, record in zip(METRICS, differences, strict=True):
        assert record.value == pytest.approx(a[name] - b[name], abs=1e-12)
        assert record.ci_low <= record.value <= record.ci_high
        assert (record.model, record.fold, record.seed) == ("a - b", None, None)
    back = paired_difference(frame, "b", "a", block_of)
    for one, other in zip(differences, back, strict=True):
        assert (one.value, one.ci_low) == pytest.approx((-other.value, -other.ci_high), abs=1e-12)


def test_pairing_takes_out_what_both_models_share():
    observed = make_observed()
    a = make_predicted(observed, 2.0)
    b = a + make_predicted(observed * 0, 0.05, seed=3)
    frame = pd.concat([table(observed, a, model="a"), table(observed, b, model="b")])
    unpaired = {m.metric: m for m in score(frame, block_of) if m.model == "a" and m.fold is None}
    for record in paired_difference(frame, "a", "b", block_of):
        single = unpaired[record.metric.removesuffix("_difference")]
        assert record.ci_high - record.ci_low < 0.3 * (single.ci_high - single.ci_low)


def test_a_model_does_not_differ_from_itself():
    observed = make_observed()
    frame = table(observed, make_predicted(observed, 1.0))
    for record in paired_difference(frame, "m", "m", block_of, n_bootstrap=50):
        assert (record.value, record.ci_low, record.ci_high) == (0, 0, 0)


def test_seeds_are_averaged():
    observed = make_observed()
    seeds = [table(observed, make_predicted(observed, 1.0, seed=s), "a", s) for s in (1, 2, 3)]
    frame = pd.concat([*seeds, table(observed, make_predicted(observed, 2.0), model="b")])
    scores = score(frame, block_of, n_bootstrap=0)
    pooled = pd.DataFrame([m for m in scores if m.fold is None])
    mean = pooled.groupby(["model", "metric"])["value"].mean()
    for record in paired_difference(frame, "a", "b", block_of, n_bootstrap=0):
        name = record.metric.removesuffix("_difference")
        assert record.value == pytest.approx(mean["a", name] - mean["b", name], abs=1e-12)


def test_only_common_genes_count_and_the_wider_run_gives_the_profile():
    observed = make_observed()
    a = table(observed, make_predicted(observed, 1.0), model="a")
    b = table(observed, make_predicted(observed, 2.0), model="b")
    one_fold = b[b["fold"] == 1]
    got = paired_difference(pd.concat([a, one_fold]), "a", "b", block_of, n_bootstrap=0)
    scores = score(pd.concat([a, b]), block_of, n_bootstrap=0)
    first, second = values(scores, 1, "a"), values(scores, 1, "b")
    for record in got:
        name = record.metric.removesuffix("_difference")
        assert record.value == pytest.approx(first[name] - second[name], abs=1e-12)
    assert got[0].n == (fold_of == 1).sum()
    profiles = fold_profiles(observed, fold_of)
    frame = pd.concat([a[a["fold"] == 1], one_fold])
    again = paired_difference(frame, "a", "b", block_of, train_profile=profiles, n_bootstrap=0)
    assert [m.value for m in again] == pytest.approx([m.value for m in got], abs=1e-12)


def test_models_that_cannot_be_paired_are_refused():
    observed = make_observed()
    a = table(observed, observed, model="a")
    with pytest.raises(InputError, match="no predictions of model 'b', expected one of a"):
        paired_difference(a, "a", "b", block_of)
    halves = pd.concat([a[:70], table(observed, observed, model="b")[70:]])
    with pytest.raises(InputError, match="no gene that a and b both predicted"):
        paired_difference(halves, "a", "b", block_of)
    other_folds = table(observed, observed, model="b", folds=(block_of + 1) % N_FOLDS)
    with pytest.raises(InputError, match="other folds, conditions or observed"):
        paired_difference(pd.concat([a, other_folds]), "a", "b", block_of)
    other_gaps = table(with_gaps(observed), observed, model="b")
    with pytest.raises(InputError, match="other folds, conditions or observed"):
        paired_difference(pd.concat([a, other_gaps]), "a", "b", block_of)
    other_truth = table(observed + 1, observed, model="b")
    with pytest.raises(InputError, match="other folds, conditions or observed"):
        paired_difference(pd.concat([a, other_truth]), "a", "b", block_of)


# --- one table for a notebook ---


def test_comparison_is_scores_and_differences_with_the_bundles_profiles(tiny_bundle):
    observed = tiny_bundle.observed
    folds, blocks = tiny_bundle.fold_of, tiny_bundle.splits.set_index("gene_id")["block"]
    frame = pd.concat(
        [
            table(observed, make_predicted(observed, noise), model=model, folds=folds)
            for model, noise in (("genesplice", 0.5), ("ridge", 2.0))
        ]
    )
    # With one fold only, m[c] of the bundle is needed.
    frame = frame[frame["fold"] == 0]
    compared = compare(frame, tiny_bundle, n_bootstrap=50, seed=1)
    about = {"train_profile": fold_profiles(observed, folds), "n_bootstrap": 50}
    expected = score(frame, blocks, seed=1, **about)
    expected += paired_difference(frame, "genesplice", "ridge", blocks, **about)
    pd.testing.assert_frame_equal(compared, pd.DataFrame(expected))

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from tiny_genomes import make_relatives

from genesplice.baselines.features import kmer_codon_features
from genesplice.baselines.methods import BASELINES, RELATED, available_baselines, run_baselines
from genesplice.baselines.ridge import fit_ridge
from genesplice.data.bundle import Bundle
from genesplice.data.expression import fill_missing
from genesplice.data.features import standardise
from genesplice.data.simulate import make_bundle
from genesplice.errors import InputError
from genesplice.evaluate.metrics import (
    METRICS,
    PREDICTION_COLUMNS,
    fold_profiles,
    paired_difference,
    score,
)
from genesplice.results import Metric


def with_values(bundle: Bundle, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Bundle:
    """`bundle` with its samples' values (genes x samples) changed."""
    expression = bundle.expression.copy()
    values = pd.DataFrame(expression.X.T, index=expression.var_names)
    expression.X = change(values).to_numpy(dtype=np.float32).T.copy()
    return replace(bundle, expression=expression)


def predicted(frame: pd.DataFrame, model: str) -> pd.DataFrame:
    """Genes x conditions of one model."""
    part = frame[frame["model"] == model].astype({"gene_id": str, "condition": str})
    return part.pivot(index="gene_id", columns="condition", values="predicted")


def blocks_of(bundle: Bundle) -> pd.Series:
    return bundle.splits.set_index("gene_id")["block"]


def pooled(metrics: list[Metric]) -> pd.DataFrame:
    frame = pd.DataFrame([m for m in metrics if m.fold is None])
    return frame.pivot(index="model", columns="metric", values="value")


@pytest.fixture(scope="module")
def tiny_bundle(tiny_bundle: Bundle) -> Bundle:
    """With relatives, so that there are features for every baseline."""
    return replace(tiny_bundle, relatives=make_relatives(tiny_bundle, 6))


@pytest.fixture(scope="module")
def everything(tiny_bundle: Bundle) -> pd.DataFrame:
    return run_baselines(tiny_bundle)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Large enough that what was planted can be learnt."""
    out = tmp_path_factory.mktemp("controls") / "planted"
    return make_bundle(out, seed=1, n_genes=300, n_conditions=12, genome_bp=450_000)


# --- nothing of the held-out genes enters ---


@pytest.mark.slow
def test_held_out_expression_never_enters(tiny_bundle: Bundle, everything: pd.DataFrame):
    """Every baseline, every fold: other labels for the held-out genes, the same bits."""
    for fold in range(tiny_bundle.n_folds):
        held_out = tiny_bundle.test_genes(fold)

        def shuffle(values: pd.DataFrame, held_out: pd.Index = held_out) -> pd.DataFrame:
            generator = np.random.default_rng(0)
            values = values.copy()
            values.loc[held_out] = generator.permuted(values.loc[held_out], axis=1)[::-1] * 5 + 3
            return values

        got = run_baselines(with_values(tiny_bundle, shuffle), folds=[fold])
        expected = everything[everything["fold"] == fold].reset_index(drop=True)
        assert set(got["model"]) == set(BASELINES)
        assert (got["observed"] != expected["observed"]).mean() > 0.9
        for column in ("gene_id", "condition", "model"):
            assert (got[column] == expected[column]).all()
        assert got["predicted"].to_numpy().tobytes() == expected["predicted"].to_numpy().tobytes()


def test_training_expression_does_enter(tiny_bundle: Bundle, everything: pd.DataFrame):
    train = tiny_bundle.train_genes(0)

    def shuffle(values: pd.DataFrame) -> pd.DataFrame:
        values = values.copy()
        values.loc[train] = values.loc[train].to_numpy()[::-1] + 1
        return values

    got = run_baselines(with_values(tiny_bundle, shuffle), folds=[0])
    expected = everything[everything["fold"] == 0]
    for model in BASELINES:
        assert (predicted(got, model) != predicted(expected, model)).to_numpy().any(), model


def test_what_is_missing_is_no_target(tiny_bundle: Bundle):
    """A gene to learn from and one to predict, each deleted in a condition."""
    learned, asked = tiny_bundle.train_genes(0)[3], tiny_bundle.test_genes(0)[1]
    condition = tiny_bundle.expression.obs["condition"].astype(str).to_numpy()
    first, *_, last = tiny_bundle.observed.columns
    rows = pd.Index(condition)

    def delete(values: pd.DataFrame) -> pd.DataFrame:
        values = values.set_axis(rows, axis=1)
        values.loc[learned, first] = np.nan
        values.loc[asked, last] = np.nan
        return values

    bundle = with_values(tiny_bundle, delete)
    assert bundle.observed.isna().to_numpy().sum() == 2
    expected = fill_missing(bundle.observed.loc[tiny_bundle.train_genes(0)]).at[learned, first]

    def fill(values: pd.DataFrame) -> pd.DataFrame:
        values = values.set_axis(rows, axis=1)
        values.loc[learned, first] = np.float32(expected)
        return values

    got = run_baselines(bundle, folds=[0])
    filled = run_baselines(with_values(tiny_bundle, fill), folds=[0])
    np.testing.assert_allclose(got["predicted"], filled["predicted"], atol=1e-3)
    whole = run_baselines(tiny_bundle, folds=[0])
    assert (got["predicted"] - whole["predicted"]).abs().max() > 0.05
    is_missing = got["observed"].isna()
    assert set(got["gene_id"][is_missing]) == {asked}
    assert set(got["condition"][is_missing]) == {last}
    assert is_missing.sum() == got["model"].nunique()


@pytest.mark.slow
def test_held_out_expression_never_enters_on_real_data(ecoli: Bundle):
    models = ["nearest_copy", "gbm_kmer_codon", "ridge_regulators"]
    held_out = ecoli.test_genes(2)

    def reverse(values: pd.DataFrame) -> pd.DataFrame:
        values = values.copy()
        values.loc[held_out] = values.loc[held_out].to_numpy()[::-1]
        return values

    expected = run_baselines(ecoli, models=models, folds=[2])
    got = run_baselines(with_values(ecoli, reverse), models=models, folds=[2])
    assert not got["observed"].equals(expected["observed"])
    assert got["predicted"].to_numpy().tobytes() == expected["predicted"].to_numpy().tobytes()


# --- each method against its definition ---


def test_mean_by_loops(tiny_bundle: Bundle, everything: pd.DataFrame):
    observed = tiny_bundle.observed
    got = predicted(everything, "mean")
    for fold in range(tiny_bundle.n_folds):
        train = [g for g in observed.index if tiny_bundle.fold_of[g] != fold]
        for condition in observed.columns:
            expected = sum(float(observed.loc[g, condition]) for g in train) / len(train)
            values = got.loc[tiny_bundle.test_genes(fold), condition]
            assert values.nunique() == 1
            assert values.iloc[0] == pytest.approx(expected, abs=1e-5)


def test_ridge_is_level_plus_profile_plus_residual(tiny_bundle: Bundle, everything: pd.DataFrame):
    """The same numbers from scikit-learn, with the penalties that were chosen."""
    observed, fold = tiny_bundle.observed, 1
    is_train = observed.index.isin(tiny_bundle.train_genes(fold))
    features = standardise(kmer_codon_features(tiny_bundle).to_numpy(), is_train)
    values = observed.to_numpy()
    level = values.mean(axis=1)
    profile = fold_profiles(observed, tiny_bundle.fold_of).loc[fold].to_numpy()
    residual = values - level[:, None] - profile
    block = blocks_of(tiny_bundle).loc[observed.index].to_numpy()
    fits = fit_ridge(
        features[is_train], [level[is_train, None], residual[is_train]], block[is_train]
    )
    expected = profile[None]
    for fit, target in zip(fits, (level[:, None], residual), strict=True):
        model = Ridge(alpha=fit.penalty).fit(features[is_train], target[is_train])
        expected = expected + model.predict(features[~is_train]).reshape(-1, target.shape[1])
    got = predicted(everything, "ridge_kmer_codon")
    got = got.loc[observed.index[~is_train], observed.columns]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_boosting_changes_the_level_only_and_the_mean_is_in_the_middle(everything: pd.DataFrame):
    ridge, gbm, both = (
        predicted(everything, f"{m}_all") for m in ("ridge", "gbm", "mean_gbm_ridge")
    )
    np.testing.assert_allclose(both, (ridge + gbm) / 2, rtol=0, atol=1e-5)
    centred = [table.sub(table.mean(axis=1), axis=0) for table in (ridge, gbm)]
    np.testing.assert_allclose(*centred, rtol=0, atol=1e-5)
    assert np.abs(ridge - gbm).to_numpy().max() > 0.01


def test_only_a_red_leakage_is_said(tiny_bundle: Bundle):
    warning = "baselines: leakage red (edges): scores on these folds do not mean what they say"
    for status in ("red", "amber"):
        checks = [{"check": "edges", "status": status}, {"check": "sets", "status": "green"}]
        bundle = replace(tiny_bundle, leakage={"status": status, "checks": checks})
        said: list[str] = []
        run_baselines(bundle, folds=[0], models=["mean"], progress=said.append)
        assert said == [warning] * (status == "red")


def test_copy_takes_the_leakages_relative(tiny_bundle: Bundle):
    gene = tiny_bundle.test_genes(0)[0]
    ablation = tiny_bundle.train_genes(0)[7]
    unmeasured = tiny_bundle.genes["gene_id"].iloc[-1]
    observed = tiny_bundle.observed

    def copied(nearest: str, similarity: float) -> pd.Series:
        table = tiny_bundle.similarity.copy()
        row = table["gene_id"] == gene
        table.loc[row, ["nearest_gene_id", "similarity"]] = [nearest, np.float32(similarity)]
        bundle = replace(tiny_bundle, similarity=table)
        frame = run_baselines(bundle, folds=[0], models=["nearest_copy"])
        return predicted(frame, "nearest_copy").loc[gene, observed.columns]

    np.testing.assert_allclose(copied(ablation, 0.9), observed.loc[ablation], atol=1e-5)
    by_features = copied("", 0.0)
    for nearest, similarity in ((ablation, RELATED / 2), (unmeasured, 0.9)):
        pd.testing.assert_series_equal(copied(nearest, similarity), by_features)


def test_copy_falls_back_to_the_nearest_composition(tiny_bundle: Bundle):
    table = tiny_bundle.similarity.assign(nearest_gene_id="", similarity=np.float32(0))
    bundle = replace(tiny_bundle, similarity=table)
    got = predicted(run_baselines(bundle, models=["nearest_copy"]), "nearest_copy")
    observed = bundle.observed
    raw = kmer_codon_features(bundle).to_numpy()
    for fold in range(bundle.n_folds):
        is_train = observed.index.isin(bundle.train_genes(fold))
        features = standardise(raw, is_train)
        for gene in bundle.test_genes(fold):
            at = observed.index.get_loc(gene)
            distance = [
                float(((features[at] - features[other]) ** 2).sum()) if is_train[other] else np.inf
                for other in range(len(observed))
            ]
            expected = observed.iloc[int(np.argmin(distance))]
            np.testing.assert_allclose(got.loc[gene, observed.columns], expected, atol=1e-5)


# --- planted truth ---


def test_planted_regulators_and_pathway_are_found_and_decoys_are_not(control: Bundle):
    frame = run_baselines(control, models=["mean", "ridge_regulators", "ridge_kegg", "ridge_go"])
    truth = control.manifest["truth"]
    targets, members = pd.Index(list(truth["targets"])), pd.Index(truth["pathway"])

    def profile_r(model: str, genes: pd.Index | None = None) -> float:
        part = frame[frame["model"] == model]
        metrics = pooled(score(part, blocks_of(control), genes=genes, n_bootstrap=0))
        return metrics.loc[model, "profile_r"]

    assert profile_r("ridge_regulators", targets.difference(members)) > 0.9
    assert profile_r("ridge_kegg", members.difference(targets)) > 0.9
    assert abs(profile_r("ridge_go")) < 0.1
    assert profile_r("mean") == 0
    for record in paired_difference(frame, "ridge_regulators", "ridge_go", blocks_of(control)):
        if record.metric.startswith("profile"):
            assert record.ci_low > 0


def test_planted_promoter_is_found_by_kmers(control: Bundle):
    frame = run_baselines(control, models=["ridge_kmer_codon", "gbm_kmer_codon", "ridge_go"])
    metrics = pooled(score(frame, blocks_of(control), n_bootstrap=0))
    assert metrics.loc["gbm_kmer_codon", "level_r2"] > 0.5
    assert metrics.loc["ridge_kmer_codon", "level_r2"] > 0.3
    assert metrics.loc["ridge_go", "level_r2"] < 0.1


def test_all_is_no_worse_than_its_parts(control: Bundle):
    parts = ["ridge_kmer_codon", "ridge_regulators", "ridge_kegg"]
    frame = run_baselines(control, models=[*parts, "ridge_all"])
    metrics = pooled(score(frame, blocks_of(control), n_bootstrap=0))
    for name in ("level_r2", "profile_r", "profile_r_overall"):
        assert metrics.loc["ridge_all", name] > metrics.loc[parts, name].max() - 0.1


# --- the table ---


def test_each_held_out_value_once_per_model(tiny_bundle: Bundle, everything: pd.DataFrame):
    observed = tiny_bundle.observed
    assert tuple(everything.columns) == PREDICTION_COLUMNS
    assert everything["observed"].dtype == everything["predicted"].dtype == np.float32
    assert len(everything) == len(BASELINES) * observed.size
    assert not everything.duplicated(["gene_id", "condition", "model"]).any()
    for model, part in everything.groupby("model", observed=True):
        assert part["fold"].tolist() == tiny_bundle.fold_of.loc[part["gene_id"]].tolist(), model
        wide = part.astype({"gene_id": str, "condition": str}).pivot(
            index="gene_id", columns="condition", values="observed"
        )
        np.testing.assert_array_equal(
            wide.loc[observed.index, observed.columns], observed.astype(np.float32)
        )
    unmeasured = tiny_bundle.genes["gene_id"].iloc[-1]
    assert unmeasured not in set(everything["gene_id"])


def test_metrics_from_the_parquet_file_alone(
    tiny_bundle: Bundle, everything: pd.DataFrame, tmp_path: Path
):
    everything.to_parquet(tmp_path / "predictions.parquet", index=False)
    again = pd.read_parquet(tmp_path / "predictions.parquet")
    blocks = blocks_of(tiny_bundle)
    metrics = score(everything, blocks, n_bootstrap=50)
    assert score(again, blocks, n_bootstrap=50) == metrics
    as_text = again.astype({"gene_id": str, "condition": str, "model": str})
    assert score(as_text, blocks, n_bootstrap=50) == metrics
    assert {m.model for m in metrics} == set(BASELINES)


def test_some_models_and_folds_are_the_same_rows(tiny_bundle: Bundle, everything: pd.DataFrame):
    told: list[str] = []
    names = ["gbm_all", "mean"]
    got = run_baselines(tiny_bundle, models=names, folds=[3, 1, 3], progress=told.append)
    rows = everything["model"].isin(names) & everything["fold"].isin([1, 3])
    keys = ["model", "gene_id", "condition"]
    text = {key: str for key in keys}
    expected = everything[rows].astype(text).sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(got.astype(text).sort_values(keys, ignore_index=True), expected)
    assert got["model"].unique().tolist() == names
    assert any("fold 3" in line and "boosting" in line for line in told)


def test_seed_is_recorded_and_moves_boosting_only(tiny_bundle: Bundle, everything: pd.DataFrame):
    names = ["ridge_kmer_codon", "gbm_kmer_codon"]
    got = run_baselines(tiny_bundle, models=names, seed=5)
    assert set(got["seed"]) == {5}
    pd.testing.assert_frame_equal(
        predicted(got, "ridge_kmer_codon"), predicted(everything, "ridge_kmer_codon")
    )
    assert not predicted(got, "gbm_kmer_codon").equals(predicted(everything, "gbm_kmer_codon"))


def test_one_fold_is_scored_with_the_bundles_profiles(
    tiny_bundle: Bundle, everything: pd.DataFrame
):
    blocks = blocks_of(tiny_bundle)
    names = ["mean", "ridge_regulators"]
    alone = run_baselines(tiny_bundle, models=names, folds=[2])
    profiles = fold_profiles(tiny_bundle.observed, tiny_bundle.fold_of)
    got = {
        (m.model, m.metric): m.value
        for m in score(alone, blocks, train_profile=profiles, n_bootstrap=0)
        if m.fold == 2
    }
    expected = {
        (m.model, m.metric): m.value
        for m in score(everything, blocks, n_bootstrap=0)
        if m.fold == 2 and m.model in names
    }
    assert got == pytest.approx(expected, abs=1e-6)


# --- other data, and bad input ---


@pytest.fixture
def sparse_control(tiny_bundle: Bundle) -> Bundle:
    """Two conditions, no network, no gene sets, RNA genes and genes of odd length."""
    genes = tiny_bundle.genes.copy()
    genes.loc[::4, "biotype"] = "tRNA"
    genes.loc[1::4, "biotype"] = ""
    genes.loc[2::4, "end"] -= (genes["end"] - genes["start"] - 1)[2::4] % 3
    expression = tiny_bundle.expression
    two = expression.obs["condition"].isin(expression.obs["condition"].unique()[:2])
    return replace(
        tiny_bundle,
        genes=genes,
        expression=expression[two, 5:].copy(),
        network=tiny_bundle.network[:0],
        gene_sets={},
        relatives=None,
    )


def test_two_conditions_without_network_and_gene_sets(sparse_control: Bundle):
    without = "regulators", "kegg", "go", "conservation", "dna", "everything"
    expected = {name for name in BASELINES if not name.endswith(without)}
    told: list[str] = []
    frame = run_baselines(sparse_control, progress=told.append)
    assert set(available_baselines(sparse_control)) == expected
    # What is the same method on the same features is fitted once, and asked for all the same.
    fitted = expected - {"ridge_all", "gbm_all"}
    assert set(frame["model"]) == fitted
    assert "baselines: ridge_all is ridge_kmer_codon in this bundle" in told
    assert "baselines: gbm_all is gbm_kmer_codon in this bundle" in told
    assert "ridge_regulators, ridge_kegg, ridge_go, gbm_conservation" in told[0]
    assert len(frame) == len(fitted) * sparse_control.observed.size
    metrics = score(frame, blocks_of(sparse_control), n_bootstrap=20)
    assert np.isfinite([m.value for m in metrics]).all()
    assert {m.metric for m in metrics} == set(METRICS)
    names = "ridge_kmer_codon", "ridge_all"
    asked = run_baselines(sparse_control, models=names)
    ridge, everything = (predicted(asked, name) for name in names)
    np.testing.assert_allclose(ridge, everything, atol=1e-6)


def test_one_condition(sparse_control: Bundle):
    expression = sparse_control.expression
    one = expression.obs["condition"] == expression.obs["condition"].iloc[0]
    bundle = replace(sparse_control, expression=expression[one].copy())
    frame = run_baselines(bundle)
    assert np.isfinite(frame["predicted"]).all()
    metrics = score(frame, blocks_of(bundle), n_bootstrap=0)
    assert {m.metric for m in metrics} == {"level_spearman", "level_r2"}


def test_all_is_available_whatever_there_is(tiny_bundle: Bundle):
    assert available_baselines(tiny_bundle) == tuple(BASELINES)
    no_go = {name: genes for name, genes in tiny_bundle.gene_sets.items() if name[:3] != "GO:"}
    assert "ridge_go" not in available_baselines(replace(tiny_bundle, gene_sets=no_go))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": ["ridge_keg"]}, "baseline 'ridge_keg', expected some of mean, nearest_copy"),
        ({"models": []}, "no baselines, expected some of mean"),
        ({"models": ["mean", "ridge_go"]}, "'ridge_go' on a bundle without go, expected mean, "),
        ({"folds": [5]}, "fold 5, expected 0 to 4"),
        ({"folds": []}, "no folds, expected some of 0 to 4"),
    ],
)
def test_what_is_not_there_is_refused(sparse_control: Bundle, arguments, message):
    with pytest.raises(InputError, match=message):
        run_baselines(sparse_control, **arguments)


def test_a_fold_without_measured_genes_is_refused(tiny_bundle: Bundle):
    others = tiny_bundle.expression[:, tiny_bundle.train_genes(0)].copy()
    with pytest.raises(InputError, match=r"fold 0 with .* training and 0 held-out genes"):
        run_baselines(replace(tiny_bundle, expression=others), models=["mean"])


# --- the real thing ---

PUBLISHED = {
    # The table of the design document, measured once on other folds of the same kind:
    # level_spearman, level_r2, profile_r, profile_r_overall.
    "ridge_kmer_codon": (0.54, 0.33, 0.30, 0.29),
    "gbm_kmer_codon": (0.595, 0.40, None, None),
    "ridge_regulators": (None, None, 0.21, 0.37),
    "ridge_kegg": (None, None, 0.10, 0.21),
    "ridge_go": (None, None, 0.17, 0.24),
    "gbm_all": (0.678, 0.495, 0.398, 0.463),
    "mean_gbm_ridge_all": (0.692, None, None, None),
    "gbm_conservation": (0.723, 0.54, 0.241, None),
    "gbm_dna": (0.769, 0.61, 0.344, None),
    "mean_gbm_ridge_everything": (0.783, 0.63, 0.412, None),
}


@pytest.mark.slow
def test_ecoli_reaches_the_published_table(ecoli: Bundle):
    """No value more than 0.02 below; up to 0.04 above (penalties by block, sampled features)."""
    frame = run_baselines(ecoli, models=["mean", "nearest_copy", *PUBLISHED])
    metrics = score(frame, blocks_of(ecoli))
    table = pooled(metrics)
    for model, row in PUBLISHED.items():
        for name, value in zip(METRICS, row, strict=True):
            if value is not None:
                assert -0.02 < table.loc[model, name] - value < 0.04, (model, name)
    assert table.loc["mean", "profile_r"] == 0
    assert table.loc["mean", "level_spearman"] < 0.05
    # A copy of the most similar training gene must not come near a fit: that would be a leak.
    assert table.loc["nearest_copy", "level_spearman"] < 0.35
    assert table.loc["nearest_copy", "profile_r"] < 0.15
    for metric in metrics:
        assert metric.ci_low <= metric.value <= metric.ci_high or metric.value == 0

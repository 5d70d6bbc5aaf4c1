"""Strata hold the right genes; conformal intervals keep their promise on exchangeable genes."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from genesplice.evaluate.metrics import fold_profiles, score
from genesplice.evaluate.reliability import (
    FEWEST_FOR_SPREAD,
    STRATUM_METRICS,
    add_intervals,
    conformal_width,
    coverage_metrics,
    expected_errors,
    gene_strata,
    strata_metrics,
)

FAMILIES = [
    ["nearest_train_below_0.1", "nearest_train_0.1_to_0.5", "nearest_train_from_0.5"],
    ["in_gene_set", "in_no_gene_set"],
    ["in_network", "not_in_network"],
    ["operon_first", "operon_inner"],
]


@pytest.fixture
def changed(tiny_bundle):
    """Three genes on + and three on - in two operons; a relative, a copy; a set and an edge."""
    genes = tiny_bundle.genes
    chosen = [genes.index[genes["strand"] == strand][:3] for strand in "+-"]
    ids = [genes.loc[rows].sort_values("start")["gene_id"].tolist() for rows in chosen]
    operon = {gene: f"operon{i}" for i, part in enumerate(ids) for gene in part}
    splits = tiny_bundle.splits.assign(
        operon=[operon.get(gene, f"alone-{gene}") for gene in tiny_bundle.splits["gene_id"]]
    )
    first, second = ids[0][:2]
    near = {first: 0.5, second: 0.1}
    similarity = tiny_bundle.similarity.assign(
        similarity=[near.get(gene, 0.099) for gene in tiny_bundle.similarity["gene_id"]]
    )
    bundle = dataclasses.replace(
        tiny_bundle,
        splits=splits,
        similarity=similarity,
        gene_sets={"GO:x": (first, "unheard of")},
        network=tiny_bundle.network.iloc[:1].assign(source="cAMP", target=second),
    )
    return bundle, ids


def test_every_gene_is_where_it_belongs(changed):
    bundle, (plus, minus) = changed
    strata = gene_strata(bundle)
    assert list(strata["nearest_train_from_0.5"]) == [plus[0]]
    assert list(strata["nearest_train_0.1_to_0.5"]) == [plus[1]]
    assert list(strata["in_gene_set"]) == [plus[0]]
    assert list(strata["in_network"]) == [plus[1]]
    # An operon on the other strand is read from its right end.
    assert set(strata["operon_inner"]) == {*plus[1:], *minus[:2]}


def test_an_operon_across_the_origin_begins_before_it(tiny_bundle):
    contig = next(one for one in tiny_bundle.genome.contigs if one.is_circular)
    genes = tiny_bundle.genes[tiny_bundle.genes["contig"] == contig.name]
    first, last = genes.iloc[0]["gene_id"], genes.iloc[-1]["gene_id"]
    for strand, wanted in (("+", last), ("-", first)):
        operon = tiny_bundle.splits["operon"].where(
            ~tiny_bundle.splits["gene_id"].isin([first, last]), "across"
        )
        table = tiny_bundle.genes.copy()
        table.loc[table["gene_id"].isin([first, last]), "strand"] = strand
        bundle = dataclasses.replace(
            tiny_bundle, genes=table, splits=tiny_bundle.splits.assign(operon=operon)
        )
        both = {first, last} & set(gene_strata(bundle)["operon_first"])
        assert both == {wanted} & set(bundle.expression.var_names)


@pytest.mark.parametrize("strand", ["+", "-"])
def test_the_annotated_tss_decides_which_gene_is_first(changed, strand):
    """A gene inside of the other one whose transcript begins before it, on either strand."""
    bundle, operons = changed
    outer, inner = operons["+-".index(strand)][:2]
    genes = bundle.genes.set_index("gene_id", drop=False)
    step = -1 if strand == "+" else 1
    genes.loc[outer, ["start", "end", "tss"]] = 300, 900, 300 if strand == "+" else 899
    genes.loc[inner, ["start", "end", "tss"]] = 400, 800, genes.loc[outer, "tss"] + 30 * step
    splits = bundle.splits.assign(operon=bundle.splits["gene_id"])
    splits.loc[splits["gene_id"].isin([outer, inner]), "operon"] = "both"
    bundle = dataclasses.replace(bundle, genes=genes.reset_index(drop=True), splits=splits)
    assert list(gene_strata(bundle)["operon_inner"]) == [outer]


def test_families_hold_every_measured_gene_once(tiny_bundle):
    strata = gene_strata(tiny_bundle)
    assert sorted(strata) == sorted(name for family in FAMILIES for name in family)
    for family in FAMILIES:
        genes = np.concatenate([strata[name] for name in family])
        assert sorted(genes) == sorted(tiny_bundle.expression.var_names)


def test_numbers_are_those_of_the_stratum(tiny_bundle):
    observed = tiny_bundle.observed
    noise = np.random.default_rng(0).normal(0, 1, observed.shape)
    frame = pd.DataFrame(
        {
            "gene_id": np.repeat(observed.index.to_numpy(), observed.shape[1]),
            "condition": np.tile(observed.columns.to_numpy(), len(observed)),
            "model": "m",
            "seed": 3,
            "observed": observed.to_numpy().ravel(),
            "predicted": (observed.to_numpy() + noise).ravel(),
        }
    )
    frame["fold"] = frame["gene_id"].map(tiny_bundle.fold_of)
    blocks = tiny_bundle.splits.set_index("gene_id")["block"]
    profile = fold_profiles(observed, tiny_bundle.fold_of)
    strata = {
        "half": observed.index[::2],
        "too few": observed.index[:9],
        "nobody": pd.Index([], dtype=object),
    }
    found = strata_metrics(frame, strata, blocks, train_profile=profile, n_bootstrap=50)
    wanted = [
        metric._replace(split="held_out:half")
        for metric in score(
            frame, blocks, genes=strata["half"], train_profile=profile, n_bootstrap=50
        )
        if metric.fold is None and metric.metric in STRATUM_METRICS
    ]
    assert found == wanted
    assert [metric.n for metric in found] == [len(strata["half"])] * 2


def table(observed, predicted, *, fold=0, model="m", seed=0, prefix="g"):
    """Long table from genes x conditions."""
    n_genes, n_conditions = observed.shape
    return pd.DataFrame(
        {
            "gene_id": np.repeat([f"{prefix}{i}" for i in range(n_genes)], n_conditions),
            "condition": np.tile([f"c{i}" for i in range(n_conditions)], n_genes),
            "fold": fold,
            "model": model,
            "seed": seed,
            "observed": observed.ravel().astype(np.float32),
            "predicted": predicted.ravel().astype(np.float32),
        }
    )


def noisy(seed, n_genes, scales, **about):
    """Predictions whose errors are as large as `scales` says, a number for each condition."""
    generator = np.random.default_rng(seed)
    predicted = generator.normal(5, 2, (n_genes, len(scales)))
    return table(predicted + generator.normal(0, scales, predicted.shape), predicted, **about)


@pytest.mark.parametrize("n_genes", [9, 10, 19, 40])
def test_the_width_is_the_smallest_that_keeps_the_promise(n_genes):
    errors = np.random.default_rng(n_genes).exponential(size=n_genes)
    width = conformal_width(errors, 0.9)
    # A further gene is as likely in each of the n + 1 gaps between sorted errors.
    promised = {e: np.sum(errors <= e) / (n_genes + 1) for e in errors}
    assert width == min(e for e, share in promised.items() if share >= 0.9)


def test_too_few_genes_promise_nothing():
    assert np.isnan(conformal_width(np.ones(8), 0.9))
    assert np.isnan(conformal_width(np.ones(0), 0.9))
    assert conformal_width(np.ones(9), 0.9) == 1


def halves(told):
    return ((told["high"] - told["low"]) / 2).to_numpy(float)


@pytest.mark.parametrize("count", [40, 200])
def test_each_condition_run_and_fold_has_its_own_width(count):
    parts = [
        (noisy(1, count, [1.0, 4.0], fold=0), noisy(2, 20, [1.0, 4.0], fold=0)),
        (noisy(3, count, [0.1, 0.2], fold=1), noisy(4, 20, [0.1, 0.2], fold=1)),
        (noisy(5, count, [9.0, 9.0], model="n"), noisy(6, 20, [9.0, 9.0], model="n")),
    ]
    calibration, predictions = (
        pd.concat(side, ignore_index=True) for side in zip(*parts, strict=True)
    )
    both = add_intervals(predictions, calibration)
    for mine, held_out in parts:
        alone = add_intervals(held_out, mine)
        keys = ["fold", "model"]
        same = both.merge(held_out[keys].drop_duplicates(), on=keys)
        pd.testing.assert_frame_equal(same, alone)
        for condition, rows in alone.groupby("condition"):
            np.testing.assert_allclose((rows["high"] + rows["low"]) / 2, rows["predicted"], 1e-5)
            errors = mine[mine["condition"] == condition].eval("abs(observed - predicted)")
            width = conformal_width(errors.to_numpy(float))
            if count < FEWEST_FOR_SPREAD:
                np.testing.assert_allclose(halves(rows), width, rtol=1e-5)
            else:
                # Errors do not depend on the gene: what is expected of one hardly does.
                assert np.median(halves(rows)) == pytest.approx(width, rel=0.25)


def uneven(seed, n_genes):
    """Genes whose errors are four times as large where they are little expressed."""
    generator = np.random.default_rng(seed)
    level = generator.uniform(0, 10, (n_genes, 1))
    error = np.exp(-level / 10 * np.log(4)) * generator.normal(0, 2, (n_genes, 3))
    return table(level + error, np.repeat(level, 3, axis=1))


def test_an_interval_is_as_wide_as_the_gene_is_hard_to_predict():
    held_out, calibration = uneven(0, 4000), uneven(1, 300)
    told = add_intervals(held_out, calibration)
    low, high = (told["predicted"] < 2).to_numpy(), (told["predicted"] > 8).to_numpy()
    assert np.mean(halves(told)[low]) / np.mean(halves(told)[high]) == pytest.approx(3, rel=0.2)
    inside = told.eval("low <= observed <= high").to_numpy()
    assert [inside[part].mean() for part in (low, high)] == pytest.approx([0.9, 0.9], abs=0.04)
    # The same for all would be too narrow for one and too wide for the other.
    errors = calibration.eval("abs(observed - predicted)").to_numpy(float)
    same = held_out.eval("abs(observed - predicted)").to_numpy() <= conformal_width(errors)
    assert same[low].mean() < 0.85 < 0.97 < same[high].mean()


def test_expected_errors_are_those_that_the_other_parts_show():
    genes = np.arange(100.0)
    known = pd.DataFrame({"level": genes, "varies": np.nan, "error": np.exp(0.01 * genes)})
    beyond = pd.DataFrame({"level": [50.0, 1000.0], "varies": [np.nan, np.nan]})
    expected, own = expected_errors(beyond, known)
    np.testing.assert_allclose(expected, np.exp([0.5, 0.99]), rtol=1e-6)
    np.testing.assert_allclose(own, known["error"], rtol=1e-6)
    # One part's own errors do not move what is expected of it.
    wrong = known.assign(error=known["error"].where(genes >= 20, 100.0))
    again = expected_errors(beyond, wrong)[1]
    np.testing.assert_allclose(again[:20], own[:20], rtol=1e-6)
    assert (np.abs(again[20:] / own[20:] - 1) > 0.01).any()


@pytest.mark.slow
def test_nine_of_ten_exchangeable_genes_lie_inside():
    # With 99 calibration genes the coverage is 0.9 exactly, in the mean over calibrations.
    covered = []
    for seed in range(60):
        told = add_intervals(noisy(seed, 200, [0.5, 3.0]), noisy(1000 + seed, 99, [0.5, 3.0]))
        covered.append(told.eval("low <= observed <= high").groupby(told["condition"]).mean())
    assert np.mean(covered, axis=0) == pytest.approx([0.9, 0.9], abs=0.015)


def test_without_calibration_there_is_no_interval():
    predictions = noisy(0, 5, [1.0])
    told = add_intervals(predictions, noisy(1, 50, [1.0], model="another"))
    assert told["low"].isna().all()
    assert told["high"].isna().all()
    assert coverage_metrics(told, pd.Series(0, index=told["gene_id"].unique())) == []
    nothing = add_intervals(predictions, predictions.iloc[:0])
    pd.testing.assert_frame_equal(nothing, told)


def test_what_was_not_measured_neither_calibrates_nor_is_covered():
    calibration, held_out = uneven(1, 300), uneven(0, 40)
    gaps = [np.random.default_rng(2).random(len(one)) < 0.2 for one in (calibration, held_out)]
    unknown = calibration.assign(observed=calibration["observed"].mask(gaps[0]))
    told = add_intervals(held_out, unknown)
    pd.testing.assert_frame_equal(told, add_intervals(held_out, calibration[~gaps[0]]))
    blocks = pd.Series(0, index=held_out["gene_id"].unique())
    missing = told.assign(observed=told["observed"].mask(gaps[1]))
    assert coverage_metrics(missing, blocks) == coverage_metrics(told[~gaps[1]], blocks)


def test_coverage_is_counted():
    observed = np.array([[0.0, 0.0], [0.0, 5.0], [5.0, 5.0], [0.0, 0.0]])
    frame = table(observed, np.zeros((4, 2))).assign(low=-1.0, high=2.0)
    frame["fold"] = frame["gene_id"].map({"g0": 0, "g1": 0, "g2": 1, "g3": 1})
    blocks = pd.Series({"g0": 0, "g1": 1, "g2": 2, "g3": 3})
    found = {(m.metric, m.fold): m for m in coverage_metrics(frame, blocks)}
    assert found["interval_coverage", None].value == 5 / 8
    assert found["interval_coverage", 0].value == 3 / 4
    assert found["interval_coverage", 1].value == 1 / 2
    assert found["interval_width", None].value == 3
    assert found["interval_nominal", None].value == 0.9
    assert found["interval_coverage", None].n == 4
    low, high = found["interval_coverage", 1][2:4]
    assert (low, high) == (0, 1)


def test_the_interval_of_coverage_resamples_blocks():
    # In one block all genes lie inside, in the other none: no coverage is sure.
    observed = np.repeat([0.0, 9.0], 50)[:, None]
    frame = table(observed, np.zeros((100, 1))).assign(low=-1.0, high=1.0)
    blocks = pd.Series([0] * 50 + [1] * 50, index=[f"g{i}" for i in range(100)])
    coverage = coverage_metrics(frame, blocks)[0]
    assert coverage[1:4] == (0.5, 0.0, 1.0)

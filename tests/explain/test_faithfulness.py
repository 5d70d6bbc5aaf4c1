"""The checks tell attributions that are true of the model from others."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from tiny_models import make_tiny, make_vectors

from genesplice.errors import InputError
from genesplice.evaluate.bootstrap import rank_agreement
from genesplice.explain.attribution import attribute_gene
from genesplice.explain.faithfulness import (
    Faithfulness,
    check_attribution,
    completeness_metrics,
    explain_genes,
    faithfulness_metrics,
    faithfulness_table,
    randomised,
)
from genesplice.explain.mutagenesis import Curves, deletion_insertion
from genesplice.predict.gene_output import Explainer
from genesplice.results import write_metrics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def explainer(tiny_bundle):
    model = make_tiny(tiny_bundle, "model.context_bp=1024")
    vectors = make_vectors(model, tiny_bundle)
    return Explainer(model, tiny_bundle, window_bp=2048, vectors=vectors)


@pytest.fixture(scope="module")
def found(explainer):
    return attribute_gene(explainer, "g0004", steps=24)


def test_curves_are_predictions_along_the_way(explainer, found):
    drawn = deletion_insertion(explainer, found, n_points=5, n_random=1)
    function = explainer.forward_function("g0004")
    with torch.no_grad():
        full = float(function(function.bases))
        none = float(function(torch.full_like(function.bases, 0.25)))
        towards = np.sign(full - none)
        order = sorted(range(2048), key=lambda i: -found.values[i] * towards)
        for at, share in enumerate((0, 0.25, 0.5, 0.75, 1)):
            without = function.bases.clone()
            without[0, order[: round(share * 2048)]] = 0.25
            wanted = (float(function(without)) - none) / (full - none)
            assert drawn.deletion[at] == pytest.approx(wanted, abs=1e-3)
            only = torch.full_like(function.bases, 0.25)
            first = order[: round(share * 2048)]
            only[0, first] = function.bases[0, first]
            wanted = (float(function(only)) - none) / (full - none)
            assert drawn.insertion[at] == pytest.approx(wanted, abs=1e-3)
    assert drawn.deletion[[0, -1]] == pytest.approx([1, 0], abs=1e-3)
    assert drawn.random_insertion[[0, -1]] == pytest.approx([0, 1], abs=1e-3)


def test_areas():
    fraction = np.array([0, 0.5, 1.0])
    line, early, late = (np.array(v) for v in ([1, 0.5, 0], [1.0, 0, 0], [0, 1.0, 1]))
    drawn = Curves(fraction, early, late, line, line[::-1].copy())
    areas = [drawn.area(name) for name in Curves._fields[1:]]
    assert areas == pytest.approx([0.25, 0.75, 0.5, 0.5])


def test_good_attributions_gain_and_reversed_ones_lose(explainer, found):
    good = check_attribution(explainer, found, ism_bp=0)
    bad = check_attribution(explainer, found._replace(values=-found.values), ism_bp=0)
    assert min(good.deletion_gain, good.insertion_gain) > 0.1
    assert max(bad.deletion_gain, bad.insertion_gain) < -0.1


def test_shuffled_attributions_are_not_faithful(explainer, found):
    judged = check_attribution(explainer, found, ism_bp=24)
    assert judged.ism_spearman is not None
    wrong = np.random.default_rng(0).permutation(found.values)
    unfaithful = check_attribution(explainer, found._replace(values=wrong), ism_bp=24)
    assert judged.ism_spearman > unfaithful.ism_spearman
    assert unfaithful.failures
    assert unfaithful.verdict.startswith("not faithful: ")


def test_other_weights_give_other_attributions(explainer, found, tiny_bundle):
    other = randomised(explainer.model)
    for one, two in zip(explainer.model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one.flatten().sort().values, two.flatten().sort().values)
    control = Explainer(other, tiny_bundle, window_bp=2048, vectors=explainer.vectors)
    judged = check_attribution(
        explainer, found, ism_bp=0, control=attribute_gene(control, "g0004", steps=8)
    )
    assert judged.ism_spearman is None
    assert judged.random_spearman < 0.3
    same = check_attribution(explainer, found, ism_bp=0, control=found)
    assert same.random_spearman == pytest.approx(1)
    assert "a model with other weights gives the same (1.00)" in same.verdict


def test_genes_are_explained_side_by_side_as_one_by_one(explainer, tiny_bundle):
    other = Explainer(
        randomised(explainer.model), tiny_bundle, window_bp=2048, vectors=explainer.vectors
    )
    genes, before, lines = ["g0004", "syn5", "g0006"], torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        made = explain_genes(explainer, genes, steps=4, report=lines.append)
    finally:
        torch.set_num_threads(before)
    assert [one.gene_id for one in made.attributions] == ["g0004", "g0005", "g0006"]
    assert sum("faithful" in line for line in lines) == 3
    assert len(made.table) == 3 * 2048
    assert set(made.sites["gene_id"]) <= set(made.checks.index)
    for one in made.attributions:
        alone = attribute_gene(explainer, one.gene_id, steps=4)
        np.testing.assert_allclose(one.values, alone.values, atol=1e-5)
        control = attribute_gene(other, one.gene_id, steps=4)
        expected = check_attribution(explainer, alone, control=control)
        row = made.checks.loc[one.gene_id]
        assert row["ism_spearman"] == pytest.approx(expected.ism_spearman, abs=1e-3)
        assert row["random_spearman"] == pytest.approx(expected.random_spearman, abs=1e-3)
        curves = made.curves[one.gene_id]
        expected = deletion_insertion(explainer, alone).deletion
        assert curves["deletion"].to_numpy() == pytest.approx(expected, abs=1e-3)
    names = {metric.metric for metric in made.metrics}
    assert {"completeness_delta", "faithful_share", "ism_spearman:g0004"} <= names


def test_a_prediction_that_is_the_baselines_explains_nothing_and_breaks_nothing(
    explainer, tmp_path
):
    """All N, which is the baseline: no share of the change is missing, and JSON stays finite."""
    genome = explainer.bundle.genome
    unknown = dataclasses.replace(genome, tokens=np.full_like(genome.tokens, 4))
    bundle = dataclasses.replace(explainer.bundle, genome=unknown)
    blind = Explainer(explainer.model, bundle, window_bp=2048, vectors=explainer.vectors)
    made = explain_genes(blind, ["g0004"], steps=2)
    assert np.isnan(made.attributions[0].relative_delta)
    assert "nothing to explain" in made.checks["verdict"].item()
    assert not any(metric.metric.startswith("completeness") for metric in made.metrics)
    write_metrics(tmp_path / "metrics.json", made.metrics)
    assert completeness_metrics([]) == []


def test_without_checks_there_are_attributions_and_sites_only(explainer):
    made = explain_genes(explainer, ["g0004"], steps=2, is_checked=False)
    assert made.checks is None
    assert made.curves == {}
    assert {m.metric.split(":")[0] for m in made.metrics} == {"completeness_delta"}
    exact = explain_genes(explainer, ["g0004"], method="ism", upstream_bp=4, downstream_bp=4)
    assert exact.table["position_bp"].tolist() == list(range(-4, 4))
    assert len(exact.attributions[0].values) == 8
    with pytest.raises(InputError, match="method 'magic', expected one of ig, saliency"):
        explain_genes(explainer, ["g0004"], method="magic")


def test_ranks_are_correlated():
    one, other = np.array([1.0, 5, 2, 2]), np.array([0.0, 3, 4, 1])
    expected = np.corrcoef(rankdata(one), rankdata(other))[0, 1]
    assert rank_agreement(one, other) == pytest.approx(expected)
    assert rank_agreement(one, np.zeros(4)) == 0


def test_every_failure_is_named_and_counted():
    good = Faithfulness("a", "A", "m", 0.01, True, 0.2, 0.8, 0.3, 0.3, 0.9, 0.1)
    assert good.verdict == "faithful"
    for change, word in (
        ({"relative_delta": 0.2}, "20% of the prediction is missing"),
        ({"relative_delta": float("nan")}, "nothing to explain"),
        ({"deletion_gain": 0.0}, "deletion"),
        ({"insertion_gain": -0.1}, "insertion"),
        ({"ism_spearman": 0.4}, "mutagenesis is 0.40"),
        ({"random_spearman": 0.5}, "other weights"),
    ):
        bad = good._replace(**change)
        assert bad.failures
        assert word in bad.verdict
    assert not good._replace(relative_delta=9.0, promises_sum=False).failures
    metrics = faithfulness_metrics([good, good._replace(gene_id="b", deletion_gain=0.0)])
    assert metrics[0].metric == "faithful_share"
    assert metrics[0].value == 0.5
    assert {m.metric for m in metrics} >= {"ism_spearman:a", "deletion_auc:b"}


def test_the_table_has_a_row_and_a_verdict_for_each(explainer, found):
    drawn = deletion_insertion(explainer, found)
    judged = check_attribution(explainer, found, curves=drawn, ism_bp=0)
    assert judged.deletion_auc == drawn.area("deletion")
    table = faithfulness_table([judged])
    assert table.index.tolist() == [found.gene_id]
    assert table["verdict"].tolist() == [judged.verdict]
    assert table["ism_spearman"].isna().all()
    assert faithfulness_table([]).empty

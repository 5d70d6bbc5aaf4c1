"""The checks tell attributions that are true of the model from others."""

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from tiny_models import make_tiny, make_vectors

from genesplice.explain.faithfulness import (
    Curves,
    Faithfulness,
    checked_attributions,
    curve_table,
    curves,
    faithfulness_metrics,
    faithfulness_table,
    judge,
    randomised,
    rank_agreement,
)
from genesplice.explain.methods import attribute_gene
from genesplice.predict.gene_output import Explainer


@pytest.fixture(scope="module")
def explainer(tiny_bundle):
    model = make_tiny(tiny_bundle, "model.context_bp=1024")
    vectors = make_vectors(model, tiny_bundle)
    return Explainer(model, tiny_bundle, window_bp=2048, vectors=vectors)


@pytest.fixture(scope="module")
def found(explainer):
    return attribute_gene(explainer, "g0004", steps=24)


def test_curves_are_predictions_along_the_way(explainer, found):
    drawn = curves(explainer, found, n_places=5, n_random=1)
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
    assert drawn.deletion_auc == pytest.approx(0.25)
    assert drawn.insertion_auc == pytest.approx(0.75)
    assert drawn.deletion_gain == pytest.approx(0.25)
    assert drawn.insertion_gain == pytest.approx(0.25)


def test_good_attributions_gain_and_reversed_ones_lose(explainer, found):
    good = curves(explainer, found)
    bad = curves(explainer, found._replace(values=-found.values))
    assert good.deletion_gain > 0.1
    assert good.insertion_gain > 0.1
    assert bad.deletion_gain < -0.1
    assert bad.insertion_gain < -0.1


def test_shuffled_attributions_are_not_faithful(explainer, found):
    judged = judge(explainer, found, ism_bp=24)
    assert judged.ism_spearman is not None
    wrong = np.random.default_rng(0).permutation(found.values)
    unfaithful = judge(explainer, found._replace(values=wrong), ism_bp=24)
    assert judged.ism_spearman > unfaithful.ism_spearman
    assert not unfaithful.is_faithful
    assert unfaithful.verdict.startswith("not faithful: ")


def test_other_weights_give_other_attributions(explainer, found, tiny_bundle):
    other = randomised(explainer.model)
    for one, two in zip(explainer.model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one.flatten().sort().values, two.flatten().sort().values)
    control = Explainer(other, tiny_bundle, window_bp=2048, vectors=explainer.vectors)
    judged = judge(explainer, found, ism_bp=0, control=attribute_gene(control, "g0004", steps=8))
    assert judged.ism_spearman is None
    assert judged.random_spearman < 0.3
    same = judge(explainer, found, ism_bp=0, control=found)
    assert same.random_spearman == pytest.approx(1)
    assert "a model with other weights gives the same (1.00)" in same.verdict


def test_genes_are_checked_side_by_side_as_one_by_one(explainer, tiny_bundle):
    other = Explainer(
        randomised(explainer.model), tiny_bundle, window_bp=2048, vectors=explainer.vectors
    )
    genes, before = ["g0004", "g0005", "g0006"], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        checked = checked_attributions(explainer, genes, other=other, steps=4)
    finally:
        torch.set_num_threads(before)
    assert [one.attribution.gene_id for one in checked] == genes
    for one in checked:
        alone = attribute_gene(explainer, one.attribution.gene_id, steps=4)
        np.testing.assert_allclose(one.attribution.values, alone.values, atol=1e-5)
        control = attribute_gene(other, one.attribution.gene_id, steps=4)
        judged = judge(explainer, alone, control=control)
        assert one.judged.ism_spearman == pytest.approx(judged.ism_spearman, abs=1e-3)
        assert one.judged.random_spearman == pytest.approx(judged.random_spearman, abs=1e-3)
        assert one.drawn.deletion == pytest.approx(curves(explainer, alone).deletion, abs=1e-3)


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
        ({"relative_delta": float("nan")}, "missing"),
        ({"deletion_gain": 0.0}, "deletion"),
        ({"insertion_gain": -0.1}, "insertion"),
        ({"ism_spearman": 0.4}, "mutagenesis is 0.40"),
        ({"random_spearman": 0.5}, "other weights"),
    ):
        bad = good._replace(**change)
        assert not bad.is_faithful
        assert word in bad.verdict
    assert good._replace(relative_delta=9.0, promises_sum=False).is_faithful
    metrics = faithfulness_metrics([good, good._replace(gene_id="b", deletion_gain=0.0)])
    assert metrics[0].metric == "faithful_share"
    assert metrics[0].value == 0.5
    assert {m.metric for m in metrics} >= {"ism_spearman:a", "deletion_auc:b"}


def test_the_table_has_a_row_and_a_verdict_for_each(explainer, found):
    drawn = curves(explainer, found)
    judged = judge(explainer, found, drawn=drawn, ism_bp=0)
    assert judged.deletion_auc == drawn.deletion_auc
    table = faithfulness_table([judged])
    assert table.index.tolist() == [found.gene_id]
    assert table["verdict"].tolist() == [judged.verdict]
    assert table["ism_spearman"].isna().all()
    assert curve_table(drawn).shape == (len(drawn.fraction), 5)
    assert faithfulness_table([]).empty

"""Attributions add up, are integrals of gradients, and lie on the sense strand."""

import copy
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

import genesplice as gs
from genesplice.data.genome import decode, encode
from genesplice.data.genome import reverse_complement as other_strand
from genesplice.errors import InputError
from genesplice.explain.attribution import (
    attribute_gene,
    attribution_table,
)
from genesplice.explain.faithfulness import completeness_metrics
from genesplice.predict.expression import predict_expression
from genesplice.predict.gene_output import Explainer, resolve_genes
from genesplice.training.finetuning import make_model

pytestmark = pytest.mark.slow

SETTINGS = [
    "model.width=16", "model.heads=2", "model.base_width=16", "model.region_layers=1",
    "model.summary_layers=1", "model.context_bp=1024", "model.bin_window=8",
]  # fmt: skip


def make(bundle):
    torch.manual_seed(0)
    model = make_model(bundle, gs.override(gs.load_preset("quick"), SETTINGS)).eval()
    model.expression_head.fit(torch.from_numpy(bundle.observed.to_numpy(dtype=np.float32)))
    return model


@pytest.fixture(scope="module")
def coding(tiny_bundle):
    """The small control with a start codon where every gene starts, and an N here and there."""
    tokens = np.array(tiny_bundle.genome.tokens)
    tokens[::1000] = 4
    for gene in tiny_bundle.genes.itertuples():
        if gene.strand == "+":
            tokens[gene.tss : gene.tss + 3] = encode("ATG")
        else:
            tokens[gene.tss - 2 : gene.tss + 1] = other_strand(encode("ATG"))
    genome = dataclasses.replace(tiny_bundle.genome, tokens=tokens)
    return dataclasses.replace(tiny_bundle, genome=genome)


@pytest.fixture(scope="module")
def explainer(coding):
    return Explainer(make(coding), coding, window_bp=4096)


def genes_on(bundle, strand: str) -> list[str]:
    return bundle.genes.query("strand == @strand")["gene_id"].tolist()


# --- the window ---


@pytest.mark.parametrize("strand", ["+", "-"])
def test_the_start_codon_is_at_position_zero(explainer, coding, strand):
    for gene_id in genes_on(coding, strand)[:3]:
        found = attribute_gene(explainer, gene_id, steps=2)
        table = attribution_table([found]).set_index("position_bp")
        assert "".join(table.loc[[0, 1, 2], "base"]) == "ATG"
        assert np.array_equal(table["value"].to_numpy(), found.values)


def test_the_tokens_are_the_sense_strand(explainer, coding):
    for gene in coding.genes.itertuples():
        window = explainer.window(gene.gene_id)
        low = gene.tss + window.offset_bp
        if gene.strand == "-":
            low = gene.tss - (window.offset_bp + 4095)
        expected = coding.genome.fetch("chr", low, low + 4096, gene.strand)
        assert np.array_equal(window.tokens[0].numpy(), expected)
        assert 1024 <= window.start <= 3072
        assert window.end - window.start == gene.end - gene.start


def test_what_is_explained_is_what_is_predicted(explainer, coding):
    predicted = predict_expression(explainer.model, coding)
    level = predicted.mean(axis=1)
    head = explainer.model.expression_head.condition_mean.numpy()
    for gene_id in coding.genes["gene_id"]:
        window = explainer.window(gene_id)
        channels = explainer.model.encoder.channels(window.tokens, window.phase)[..., :4]
        with torch.no_grad():
            output = float(explainer.forward_function(window, None)(channels))
            residual = float(explainer.forward_function(window, "condition_2")(channels))
        assert output == pytest.approx(level[gene_id] - head.mean(), abs=1e-4)
        expected = predicted.loc[gene_id, "condition_2"] - head[2] - output
        assert residual == pytest.approx(expected, abs=1e-4)


# --- integrated gradients ---


@pytest.mark.parametrize("baseline", ["uniform", "masked"])
@pytest.mark.parametrize("condition", [None, "condition_3"])
def test_attributions_add_up(explainer, coding, baseline, condition):
    for strand in "+-":
        gene_id = genes_on(coding, strand)[1]
        # The zero vector lies in a bend of the layer norms: more steps.
        steps = {"uniform": 64, "masked": 192}[baseline]
        found = attribute_gene(
            explainer, gene_id, condition=condition, baseline=baseline, steps=steps
        )
        change = found.output - found.baseline_output
        assert abs(change) > 1e-4
        assert found.values.sum() - change == pytest.approx(found.delta, abs=1e-5)
        assert abs(found.delta) < 0.02 * np.abs(found.values).sum()
        assert found.target == (condition or "level")
        assert found.baseline == baseline


def in_float64(function):
    return copy.deepcopy(function).double()


def by_a_loop(function, bases, baseline, places, shares) -> np.ndarray:
    """Equation 1 as a sum over places between 0 and 1, one gradient at a time."""
    total = torch.zeros_like(bases)
    for place, share in zip(places, shares, strict=True):
        point = baseline + place * (bases - baseline)
        point.requires_grad_()
        (gradient,) = torch.autograd.grad(function(point).sum(), point)
        total += share * gradient
    return ((bases - baseline) * total)[0].sum(-1).numpy()


@pytest.fixture(scope="module")
def small(explainer, coding):
    return Explainer(explainer.model, coding, window_bp=2048)


def integrand(small, gene_id, condition, level):
    """The model in float64, the bases it reads, and the baseline."""
    window = small.window(gene_id)
    bases = small.model.encoder.channels(window.tokens, window.phase)[..., :4].double()
    function = in_float64(small.forward_function(window, condition))
    return function, bases, torch.full_like(bases, level)


@pytest.mark.parametrize(("baseline", "level"), [("uniform", 0.25), ("masked", 0.0)])
@pytest.mark.parametrize("condition", [None, "condition_5"])
def test_they_are_the_weighted_sum_of_gradients(small, coding, baseline, level, condition):
    gene_id = genes_on(coding, "-")[2]
    found = attribute_gene(small, gene_id, condition=condition, baseline=baseline, steps=8)
    places, shares = np.polynomial.legendre.leggauss(8)
    parts = integrand(small, gene_id, condition, level)
    expected = by_a_loop(*parts, (places + 1) / 2, shares / 2)
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(found.values, expected, atol=1e-4 * scale)


def test_they_come_close_to_the_integral(small, coding):
    gene_id = genes_on(coding, "-")[2]
    places = (np.arange(256) + 0.5) / 256
    expected = by_a_loop(*integrand(small, gene_id, None, 0.25), places, np.full(256, 1 / 256))
    coarse, fine = (
        np.abs(attribute_gene(small, gene_id, steps=steps).values - expected).sum()
        for steps in (8, 64)
    )
    assert fine < 0.05 * np.abs(expected).sum()
    assert fine < coarse / 3


def test_only_what_the_gene_can_see_counts(explainer, coding):
    for gene_id in (genes_on(coding, "+")[4], genes_on(coding, "-")[4]):
        found, window = attribute_gene(explainer, gene_id, steps=4), explainer.window(gene_id)
        # Segments reach from 512 before the start to 64 beyond the end; half the context is 512.
        low, high = window.start - 512 - 512 - 16, window.end + 64 + 512 + 16
        far = np.ones(4096, bool)
        far[max(low, 0) : high] = False
        assert far.sum() > 500
        assert not found.values[far].any()
        near = found.values[window.start - 100 : window.end]
        assert (near != 0).mean() > 0.95


def test_an_n_says_nothing_against_a_uniform_baseline(explainer, coding):
    found = attribute_gene(explainer, genes_on(coding, "+")[3], steps=4)
    assert (found.tokens == 4).sum() >= 4
    assert not found.values[found.tokens == 4].any()


def test_the_residuals_of_all_conditions_cancel(small, coding):
    gene_id = genes_on(coding, "-")[0]
    values = [
        attribute_gene(small, gene_id, condition=condition, steps=2).values
        for condition in small.model.conditions
    ]
    assert np.abs(np.sum(values, axis=0)).max() < 1e-4 * np.abs(values).max()


def test_the_size_of_the_batches_does_not_matter(explainer, coding):
    gene_id = genes_on(coding, "+")[0]
    one, other = (attribute_gene(explainer, gene_id, steps=6, batch_steps=n) for n in (1, 6))
    scale = np.abs(one.values).max()
    np.testing.assert_allclose(one.values, other.values, atol=1e-4 * scale)


# --- what is asked for, and what comes out ---


def test_genes_are_found_by_id_or_name_in_any_case(tiny_bundle):
    assert resolve_genes(tiny_bundle, ["g0003", " SYN5 ", "G0007"]) == ["g0003", "g0005", "g0007"]
    assert resolve_genes(tiny_bundle, []) == []
    assert resolve_genes(tiny_bundle, ["syn5", "g0003", "g0005"]) == ["g0005", "g0003"]


@pytest.mark.parametrize("name", ["nobody", "", " "])
def test_an_unknown_gene_is_refused(tiny_bundle, name):
    message = rf"gene '{name.strip()}', expected an id or name in .*genes\.parquet"
    with pytest.raises(InputError, match=message):
        resolve_genes(tiny_bundle, ["g0003", name])


@pytest.mark.parametrize("window_bp", [0, -2048, 1000, 1024, 3072])
def test_a_window_off_the_grid_is_refused(explainer, coding, window_bp):
    message = rf"window_bp {window_bp}, expected a multiple of 2048 bp"
    with pytest.raises(InputError, match=message):
        Explainer(explainer.model, coding, window_bp=window_bp)


def test_an_unknown_condition_is_refused(explainer, coding):
    message = "condition 'moon', expected one of condition_0, condition_1"
    with pytest.raises(InputError, match=message):
        attribute_gene(explainer, "g0003", condition="moon")


def test_several_genes_make_one_table(small):
    found = [attribute_gene(small, gene_id, steps=2) for gene_id in ("g0003", "g0005")]
    table = attribution_table(found)
    assert list(table.columns) == ["gene_id", "name", "target", "position_bp", "base", "value"]
    assert table.groupby("gene_id").size().to_dict() == {"g0003": 2048, "g0005": 2048}
    assert table.query("gene_id == 'g0003'")["name"].unique() == ["syn3"]
    first = table.query("gene_id == 'g0003'")
    assert "".join(first["base"]) == decode(found[0].tokens)
    assert first["position_bp"].is_monotonic_increasing
    pd.testing.assert_series_equal(
        first["position_bp"].diff().dropna().astype(int).rename(None),
        pd.Series(1, index=first.index[1:]),
    )
    per_gene = {m.metric: m for m in completeness_metrics(found)}
    deltas = [per_gene[f"completeness_delta:{f.gene_id}"].value for f in found]
    assert deltas == [f.relative_delta for f in found]
    assert per_gene["completeness_delta"].value == pytest.approx(np.mean(deltas))
    assert per_gene["completeness_delta"].n == 2

"""Mutagenesis that recomputes little says what a slow loop over substitutions says."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import make_tiny, make_vectors

from genesplice.errors import InputError
from genesplice.explain.mutagenesis import (
    VariantOutput,
    attribution_of_table,
    mutate,
    mutation_table,
    scan_genes,
)
from genesplice.model.incremental import IncrementalEncoder, splice
from genesplice.predict.gene_output import Explainer

HIERARCHIES = {
    "all": (),
    "no bases": ("model.base_width=0", "model.bin_layers=2", "model.summary_layers=2"),
    "near": ("model.context_bp=2048",),
    "bins only": ("model.context_bp=450",),
    "no layers": ("model.bin_layers=0", "model.decoder_layers=0"),
    "two fused": ("model.decoder_layers=2", "model.annotation=false"),
}


@pytest.fixture(scope="module")
def holes(tiny_bundle):
    """The small control with unknown bases, whole bins of them too."""
    tokens = np.array(tiny_bundle.genome.tokens)
    tokens[::997] = 4
    for start in range(0, len(tokens), 3000):
        tokens[start : start + 40] = 4
    return dataclasses.replace(
        tiny_bundle, genome=dataclasses.replace(tiny_bundle.genome, tokens=tokens)
    )


def explain(bundle, *settings, window_bp=4096) -> Explainer:
    model = make_tiny(bundle, *settings)
    vectors = make_vectors(model, bundle, seed=3)
    return Explainer(model, bundle, window_bp=window_bp, vectors=vectors)


@pytest.mark.slow
@pytest.mark.parametrize("settings", HIERARCHIES.values(), ids=HIERARCHIES)
def test_bins_and_bases_of_a_changed_window_are_those_of_a_full_pass(holes, settings):
    explainer = explain(holes, *settings)
    # In float64 only the rotations are rounded.
    encoder = explainer.model.encoder.double()
    function = explainer.forward_function("g0004").double()
    inputs = torch.cat([function.bases, function.annotation], -1)
    generator = torch.Generator().manual_seed(2)
    for first, last in ((100, 140), (0, 30), (200, 256)):
        spliced = IncrementalEncoder(encoder, inputs.detach(), function.is_real, with_bases=True)
        for low in (0, 1003, first * 16 + 5, 4096 - 40):
            bases = torch.rand(3, 40, 4, generator=generator, dtype=torch.float64)
            whole = inputs.repeat(3, 1, 1)
            whole[:, low : low + 40, :4] = bases
            with torch.no_grad():
                found = spliced.encode((first, last), low, bases)
                wanted = encoder.encode(whole, function.is_real.expand(3, -1), with_bases=True)
            torch.testing.assert_close(found.bins, wanted.bins[:, first:last], rtol=0, atol=5e-6)
            assert torch.equal(found.is_real, wanted.is_real[:, first:last])
            if encoder.base_width:
                expected = wanted.bases[:, first * 16 : last * 16]
                torch.testing.assert_close(found.bases, expected, rtol=0, atol=5e-6)


@pytest.mark.slow
@pytest.mark.parametrize("condition", [None, "condition_2"])
@pytest.mark.parametrize(
    "settings",
    [(), ("model.base_width=0",), ("model.arch=short_cnn",)],
    ids=["bases", "bins", "no hierarchy"],
)
def test_effects_are_those_of_a_loop_over_substitutions(holes, settings, condition):
    explainer = explain(holes, *settings)
    gene_id = holes.genes.query("strand == '-'")["gene_id"].iloc[2]
    found = mutate(explainer, gene_id, upstream_bp=7, downstream_bp=4, condition=condition)
    function = explainer.forward_function(gene_id, condition).double()
    window = function.window
    with torch.no_grad():
        reference = float(function(function.bases))
        for place in range(11):
            for base in range(4):
                token = int(found.tokens[place])
                if token == 4:
                    assert np.isnan(found.effects[place, base])
                    continue
                changed = function.bases.clone()
                changed[0, window.start - 7 + place] = torch.eye(4, dtype=torch.float64)[base]
                wanted = float(function(changed)) - reference
                assert found.effects[place, base] == pytest.approx(wanted, abs=5e-5), (place, base)
                assert (wanted == 0) == (base == token)
    assert found.output == pytest.approx(reference, abs=1e-4)
    assert np.abs(np.nan_to_num(found.effects)).max() > 1e-4


def test_the_error_is_a_hundred_thousandth_of_the_prediction(tiny_bundle):
    explainer = explain(tiny_bundle, window_bp=16384)
    function = explainer.forward_function("g0010")
    output = VariantOutput(function)
    low = function.window.start - 20
    bases = torch.eye(4)[torch.randint(0, 4, (6, 24), generator=torch.Generator().manual_seed(1))]
    fast, slow = output(low, bases), output.in_full(low, bases)
    assert float(slow.std()) > 0
    assert float((fast - slow).abs().max()) <= 1e-5 * float(slow.abs().max())


def test_places_are_on_the_sense_strand(holes):
    explainer = explain(holes)
    for strand in "+-":
        gene = holes.genes.query("strand == @strand").iloc[3]
        found = mutate(explainer, gene.gene_id, upstream_bp=10, downstream_bp=5)
        low, high = (
            (gene.tss - 10, gene.tss + 5) if strand == "+" else (gene.tss - 4, gene.tss + 11)
        )
        assert np.array_equal(found.tokens, holes.genome.fetch("chr", int(low), int(high), strand))
        table = mutation_table(found)
        assert table["position_bp"].tolist() == list(range(-10, 5))
        known = found.tokens < 4
        expected = -np.array([row.sum() / 3 for row in found.effects[known]])
        (attribution,) = attribution_of_table(table)
        np.testing.assert_allclose(attribution.values[known], expected)
        assert not found.importance[~known].any()


def test_a_stretch_outside_the_window_is_refused(holes):
    explainer = explain(holes)
    for upstream, downstream in ((5000, 10), (10, -10), (10, 5000)):
        with pytest.raises(InputError, match="an interval inside its window"):
            mutate(explainer, "g0004", upstream_bp=upstream, downstream_bp=downstream)


@pytest.mark.slow
def test_a_scan_goes_on_where_it_stopped(tiny_bundle, tmp_path):
    explainer, size = explain(tiny_bundle), {"upstream_bp": 4, "downstream_bp": 4}
    genes = ["g0001", "g0002", "g0003"]
    whole = scan_genes(explainer, genes, tmp_path / "whole", **size)
    scan_genes(explainer, genes[:2], tmp_path / "parts", **size)
    marked = tmp_path / "parts" / "g0001.parquet"
    before = marked.stat().st_mtime_ns
    lines = []
    again = scan_genes(explainer, genes, tmp_path / "parts", report=lines.append, **size)
    assert marked.stat().st_mtime_ns == before
    pd.testing.assert_frame_equal(whole, again)
    assert whole.groupby("gene_id").size().to_dict() == dict.fromkeys(genes, 8)
    for other, stretch in ((explainer, {}), (explain(tiny_bundle, window_bp=2048), size)):
        with pytest.raises(InputError, match=r"a scan with -4 to \+4 bp, level, window 4096 bp"):
            scan_genes(other, genes, tmp_path / "parts", **stretch)


def test_splicing_covers_every_overlap():
    old, new = torch.arange(10.0).view(1, 10, 1), -torch.ones(2, 3, 1)
    for at in range(8):
        for low in range(10):
            for high in range(low + 1, 11):
                expected = old.repeat(2, 1, 1)
                expected[:, at : at + 3] = -1
                assert torch.equal(splice(old, new, at, low, high), expected[:, low:high])

"""Promoters one at a time, what an encoder has read, and which embedding a model gives."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_genomes import SMALL, make_encoder

import genesplice as gs
from genesplice.data.knowledge import keep_genome
from genesplice.errors import InputError
from genesplice.model.genesplice import PretrainingModel
from genesplice.predict.expression import embed_genes, encode_genes
from genesplice.predict.pretrained import (
    check_views_held_out,
    embed_promoters,
    encoder_sentence,
    principal_components,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("base_width", [0, 4])
def test_promoters_are_read_on_the_sense_strand(tiny_bundle, base_width):
    encoder = make_encoder(base_width)
    found = embed_promoters(encoder, tiny_bundle, upstream_bp=256, downstream_bp=64, batch_bp=3072)
    assert list(found.index) == list(tiny_bundle.genes["gene_id"])
    assert encoder.training
    encoder.eval()
    for gene in tiny_bundle.genes.itertuples():
        if gene.strand == "+":
            tokens = tiny_bundle.genome.fetch("chr", gene.start - 512, gene.start + 512)
        else:
            tokens = tiny_bundle.genome.fetch("chr", gene.end - 512, gene.end + 512, "-")
        with torch.no_grad():
            output = encoder(torch.from_numpy(tokens)[None], with_bases=base_width > 0)
        expected = [output.bins[0, 16:36].mean(0)]
        if base_width:
            expected.append(output.bases[0, 256:576].mean(0))
        np.testing.assert_allclose(found.loc[gene.gene_id], torch.cat(expected), atol=1e-5)


def test_some_genes_in_another_order_have_the_same_vectors(tiny_bundle):
    encoder = make_encoder(4).eval()
    some = pd.Index(tiny_bundle.genes["gene_id"][[7, 3, 30]])
    found = embed_promoters(encoder, tiny_bundle, some)
    assert list(found.index) == list(some)
    assert not encoder.training
    np.testing.assert_allclose(found, embed_promoters(encoder, tiny_bundle).loc[some], atol=1e-6)
    assert embed_promoters(encoder, tiny_bundle, some[:0]).shape == (0, 20)


def test_what_cannot_be_embedded_is_refused(tiny_bundle):
    with pytest.raises(InputError, match=r"gene 'nobody', expected one of the genes of synthetic"):
        embed_promoters(make_encoder(4), tiny_bundle, pd.Index(["nobody"]))
    with pytest.raises(InputError, match=r"a promoter of 250 \+ 64 bp in 1024 bp, expected mult"):
        embed_promoters(make_encoder(4), tiny_bundle, upstream_bp=250, downstream_bp=64)
    with pytest.raises(InputError, match=r"a promoter of 1024 \+ 512 bp"):
        embed_promoters(make_encoder(4), tiny_bundle, upstream_bp=1024)


@pytest.mark.parametrize("genes_of", ["model", "pre-training", "encoder"])
def test_one_embedding_a_gene_whatever_the_model(tiny_bundle, genes_of):
    settings = gs.override(gs.load_preset("quick"), SMALL)
    ids = tiny_bundle.genes["gene_id"].tolist()
    if genes_of == "model":
        model = gs.GeneSplice(settings.model, list(tiny_bundle.observed.columns))
        embedded = embed_genes(model, tiny_bundle, core_bp=16_384, flank_bp=4_096)
        expected = encode_genes(model, tiny_bundle, core_bp=16_384, flank_bp=4_096).numpy()
    else:
        model = PretrainingModel(settings.model, 8)
        embedded = embed_genes(
            model if genes_of == "pre-training" else model.encoder, tiny_bundle, window_bp=2048
        )
        expected = embed_promoters(model.encoder, tiny_bundle, window_bp=2048).to_numpy()
    assert embedded.index.tolist() == ids
    np.testing.assert_array_equal(embedded, expected)
    assert np.ptp(embedded.to_numpy(), axis=0).max() > 0


def test_principal_components_are_uncorrelated_and_ordered():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(40, 2)) @ generator.normal(size=(2, 6))
    vectors = pd.DataFrame(values, index=[f"g{i}" for i in range(40)])
    vectors[6] = 1.0
    points = principal_components(vectors)
    assert list(points.columns) == ["x", "y"]
    assert list(points.index) == list(vectors.index)
    assert points["x"].var() > points["y"].var() > 0
    assert abs(points["x"].corr(points["y"])) < 1e-6


def encoder(folder, holdout_fold=0, views=("strand",), weight=0.1):
    settings = {"holdout_fold": holdout_fold, "views": views, "contrastive_weight": weight}
    (folder / "run.json").write_text(json.dumps({"pretrain": settings}))
    return folder


def test_which_held_out_folds_an_encoder_has_read(tmp_path):
    assert "random weights" in encoder_sentence(tmp_path, [0])
    init = encoder(tmp_path)
    assert "without the sequence of fold 0" in encoder_sentence(init, [0])
    told = encoder_sentence(init, [0, 1, 2])
    assert "of fold 0 it has read nothing" in told
    assert "folds 1, 2" in told
    assert "in fold 3." in encoder_sentence(init, [3])
    assert "folds 0, 1" in encoder_sentence(encoder(tmp_path, holdout_fold=None), [0, 1])


def test_held_out_genes_must_not_have_been_told_their_operon(tiny_bundle, tmp_path):
    init, genome = encoder(tmp_path, views=("strand", "regulon")), tiny_bundle.genome
    check_views_held_out(init, [0], genome)
    with pytest.raises(InputError, match=r"views of regulon for held-out fold 1"):
        check_views_held_out(init, [0, 1], genome)
    other = dataclasses.replace(genome, tokens=np.roll(genome.tokens, 1))
    keep_genome(init, genome)
    check_views_held_out(init, [0, 1], other)
    with pytest.raises(InputError, match=r"views of regulon"):
        check_views_held_out(init, [0, 1], genome)
    check_views_held_out(encoder(tmp_path, views=("operon",), weight=0.0), [1], genome)
    check_views_held_out(encoder(tmp_path), [0, 1, 2], genome)
    check_views_held_out(None, [0, 1], genome)

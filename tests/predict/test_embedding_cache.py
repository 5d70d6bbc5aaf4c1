"""Kept vectors are those that would be computed, and no others."""

import dataclasses

import numpy as np
import pytest
import torch

import genesplice as gs
from genesplice.predict.expression import (
    cache_embeddings,
    cached_embeddings,
    embedding_digest,
    encode_genes,
)
from genesplice.predict.models import load_model
from genesplice.training.finetuning import finetune, make_model

SIZES = 131_072, 8_192
SMALL = [
    "model.width=16", "model.heads=2", "model.base_width=4", "model.region_layers=1",
    "finetune.head_steps=2", "finetune.folds=0", "finetune.fewest_genes=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def tuned(tiny_bundle, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned")
    finetune(tiny_bundle, gs.override(gs.load_preset("quick"), SMALL), out)
    return out


def test_a_loaded_model_takes_what_its_run_kept(tiny_bundle, tuned):
    model = load_model(tuned / "fold0_seed0")
    (kept,) = (tuned / "vectors").iterdir()
    assert kept.stem == embedding_digest(model, tiny_bundle, *SIZES)
    found = encode_genes(model, tiny_bundle)
    model.cache_folder = None
    torch.testing.assert_close(found, encode_genes(model, tiny_bundle), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_it_is_taken_and_not_computed(tiny_bundle, tuned, tmp_path):
    model = load_model(tuned / "fold0_seed0")
    honest = encode_genes(model, tiny_bundle)
    model.cache_folder = tmp_path
    assert torch.allclose(encode_genes(model, tiny_bundle), honest, atol=1e-5)
    assert not list(tmp_path.iterdir())
    digest = embedding_digest(model, tiny_bundle, *SIZES)
    cache_embeddings(tmp_path, digest, honest + 1)
    assert torch.equal(encode_genes(model, tiny_bundle), honest + 1)
    # Other windows are other vectors.
    other = encode_genes(model, tiny_bundle, core_bp=65_536)
    assert torch.allclose(other, honest, atol=0.5)
    # What is not whole counts as not there.
    (tmp_path / f"{digest}.safetensors").write_bytes(b"half")
    assert cached_embeddings(tmp_path, digest) is None
    assert torch.allclose(encode_genes(model, tiny_bundle), honest, atol=1e-5)


def test_the_digest_tells_all_that_vectors_depend_on(tiny_bundle):
    config = gs.override(gs.load_preset("quick"), SMALL)
    torch.manual_seed(0)
    model = make_model(tiny_bundle, config)
    digests = [embedding_digest(model, tiny_bundle, *SIZES)]
    assert embedding_digest(model, tiny_bundle, *SIZES) == digests[0]
    digests.append(embedding_digest(model, tiny_bundle, 65_536, 8_192))
    tokens = np.array(tiny_bundle.genome.tokens)
    tokens[77] = (tokens[77] + 1) % 4
    genome = dataclasses.replace(tiny_bundle.genome, tokens=tokens)
    digests.append(embedding_digest(model, dataclasses.replace(tiny_bundle, genome=genome), *SIZES))
    genes = tiny_bundle.genes.copy()
    genes.loc[genes.index[3], "start"] += 3
    digests.append(embedding_digest(model, dataclasses.replace(tiny_bundle, genes=genes), *SIZES))
    with torch.no_grad():
        next(iter(model.expression_head.parameters())).add_(1)
        assert embedding_digest(model, tiny_bundle, *SIZES) == digests[0]
        next(iter(model.encoder.parameters())).view(-1)[0].add_(1e-3)
    digests.append(embedding_digest(model, tiny_bundle, *SIZES))
    changed = dataclasses.replace(config, model=dataclasses.replace(config.model, bin_window=8))
    torch.manual_seed(0)
    digests.append(embedding_digest(make_model(tiny_bundle, changed), tiny_bundle, *SIZES))
    assert len(set(digests)) == len(digests)

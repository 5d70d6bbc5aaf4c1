"""Reference architectures: the same contract as the hierarchical encoder, their own reach."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genesplice.config import ModelConfig
from genesplice.errors import InputError
from genesplice.model.genesplice import GeneSplice, PretrainingModel, make_encoder
from genesplice.model.references import DilatedCnn, ShortCnn, relative_basis, shift_rows
from genesplice.model.sequence import MASK_TOKEN, N_TOKEN

ARMS = ("short_cnn", "dilated_cnn", "plain_attention", "kmer_tokens", "enformer_like")
SMALL = ModelConfig(width=16, heads=2, dropout=0.0, annotation=False, base_width=4)
GLOBAL = ("plain_attention", "kmer_tokens", "enformer_like")


def make(arch, **changes):
    torch.manual_seed(0)
    return make_encoder(dataclasses.replace(SMALL, arch=arch, **changes)).eval()


def sequence(length=2048, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 4, (batch, length), generator=generator, dtype=torch.uint8)


def reach(encoder, length=4096):
    """First and last base that the bin in the middle depends on, by the gradient."""
    tokens = sequence(length)
    inputs = encoder.channels(tokens, None).detach().requires_grad_()
    is_real = torch.ones(1, length // encoder.bin_bp, dtype=torch.bool)
    middle = length // encoder.bin_bp // 2
    encoder.encode(inputs, is_real).bins[0, middle].square().sum().backward()
    seen = inputs.grad[0].abs().sum(1).nonzero()[:, 0]
    return int(seen[0]), int(seen[-1])


@pytest.mark.parametrize("arch", ["hierarchical", *ARMS])
@pytest.mark.parametrize("annotation", [False, True])
def test_every_arm_does_every_job(arch, annotation):
    config = dataclasses.replace(SMALL, arch=arch, annotation=annotation)
    tokens = sequence(batch=2)
    pretraining = PretrainingModel(config, 8).eval()
    logits = pretraining.base_logits(pretraining.encode(tokens))
    assert logits.shape == (2, 2048, 4)
    model = GeneSplice(config, ["x", "y"]).eval()
    place = torch.tensor([300, 900]), torch.tensor([800, 1800])
    phase = torch.zeros(2, 2, 2048, dtype=torch.uint8)
    window, strand = torch.tensor([0, 1]), torch.tensor([1, -1], dtype=torch.int8)
    vectors = model.gene_features(tokens, phase, window, *place, strand)
    assert vectors.shape == (2, len(model.readout.centre))
    assert vectors.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("arch", ARMS)
def test_the_rest_of_the_batch_does_not_matter(arch):
    encoder, tokens = make(arch), sequence(batch=3)
    together = encoder(tokens).bins
    for row in range(3):
        alone = encoder(tokens[row : row + 1]).bins
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("arch", ARMS)
def test_unknown_and_masked_bases_are_finite(arch):
    encoder, tokens = make(arch), sequence()
    tokens[0, 100:900] = N_TOKEN
    tokens[0, 1000:1100] = MASK_TOKEN
    out = encoder(tokens)
    assert out.bins.isfinite().all()
    assert not out.is_real[0, 7:56].any()
    assert not out.bins[0, 7:56].any()
    assert encoder(torch.full_like(tokens, N_TOKEN)).bins.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("arch", ARMS)
def test_a_masked_base_is_hidden(arch):
    encoder, tokens = make(arch), sequence()
    other = tokens.clone()
    other[0, 777] = (other[0, 777] + 1) % 4
    assert not torch.equal(encoder(tokens).bins, encoder(other).bins)
    tokens[0, 777] = other[0, 777] = MASK_TOKEN
    assert torch.equal(encoder(tokens).bins, encoder(other).bins)


def test_how_far_each_sees():
    assert reach(make("short_cnn")) == (2048 - 14, 2063 + 14)
    dilated = make("dilated_cnn")
    assert dilated.margin_bp == 4 + 2 * 511
    assert reach(dilated) == (2048 - dilated.margin_bp, 2063 + dilated.margin_bp)
    for arch in GLOBAL:
        assert reach(make(arch)) == (0, 4095)


def test_the_reach_of_convolutions_is_what_it_says():
    class NarrowCnn(DilatedCnn):
        dilations = (1, 3)

    for encoder in (ShortCnn(SMALL), NarrowCnn(SMALL)):
        first, last = reach(encoder.eval())
        assert (2048 - first, last - 2063) == (encoder.margin_bp, encoder.margin_bp)


def test_a_k_mer_selects_its_own_vector():
    encoder = make("kmer_tokens")
    tokens = sequence(1024)
    channels = encoder.channels(tokens, None)[:, :6]
    index = 0
    for base in tokens[0, :6].tolist():
        index = index * 4 + base
    product = channels[0, 0]
    for place in range(1, 6):
        product = (product[:, None] * channels[0, place]).flatten()
    assert product.argmax() == index
    torch.testing.assert_close(encoder.embed(product), encoder.embed.weight[:, index])


@torch.no_grad()
def test_a_hidden_base_leaves_the_mean_of_what_its_token_could_be():
    encoder = make("kmer_tokens", base_width=4)
    encoder.blocks = torch.nn.ModuleList()
    encoder.norm = torch.nn.Identity()
    seen = []
    for base in (*range(4), MASK_TOKEN):
        tokens = sequence(1024)
        tokens[0, 8] = base
        seen.append(encoder(tokens, with_bases=True).bases[0])
    mean = torch.stack(seen[:4]).mean(0)
    place = encoder.spread(encoder.hidden.weight[:, 2]) - encoder.spread.bias
    torch.testing.assert_close(seen[4][6:12], mean[6:12] + place.view(6, 4))
    # Nothing else than its own token hears of it without attention.
    assert torch.equal(seen[4][:6], mean[:6])
    assert torch.equal(seen[4][12:], mean[12:])


@pytest.mark.slow
def test_k_mers_learn_single_hidden_bases():
    """A word of eight bases, repeated: nothing that is hidden is unknown."""
    config = dataclasses.replace(SMALL, arch="kmer_tokens", base_width=8)
    torch.manual_seed(0)
    model = PretrainingModel(config, 8)
    word = torch.tensor([0, 1, 0, 2, 3, 3, 1, 2], dtype=torch.uint8)
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    for _ in range(100):
        start = int(torch.randint(8, (), generator=generator))
        tokens = word.repeat(130)[start : start + 1024][None]
        hidden = torch.rand(tokens.shape, generator=generator) < 0.17
        logits = model.base_logits(model.encode(tokens.masked_fill(hidden, MASK_TOKEN)))
        loss = torch.nn.functional.cross_entropy(logits[hidden], tokens[hidden].long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item() / 0.6931)
    assert sum(losses[-10:]) / 10 < 1.0, losses[::10]


@given(length=st.integers(1, 12), seed=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_shifted_scores_by_loops(length, seed):
    generator = torch.Generator().manual_seed(seed)
    by_offset = torch.randn(1, 2, length, 2 * length - 1, generator=generator)
    shifted = shift_rows(by_offset)
    for i in range(length):
        for j in range(length):
            wanted = by_offset[:, :, i, j - i + length - 1]
            assert torch.equal(shifted[:, :, i, j], wanted)


def test_the_basis_knows_distance_and_side():
    basis = relative_basis(9, 8, torch.device("cpu"))
    assert basis.shape == (17, 8)
    assert torch.equal(basis[:, :4], basis.flip(0)[:, :4])
    assert torch.equal(basis[:, 4:], -basis.flip(0)[:, 4:])
    assert (basis[8, :4] == 1).all()
    half_life = 3
    torch.testing.assert_close(basis[8 + half_life, 0], torch.tensor(0.5))
    with pytest.raises(ValueError, match="6 basis"):
        relative_basis(4, 6, torch.device("cpu"))


@pytest.mark.parametrize("arch", ARMS)
def test_the_dial_belongs_to_the_hierarchy(arch):
    with pytest.raises(InputError, match=r"context_bp 4096 with model.arch"):
        dataclasses.replace(SMALL, arch=arch, context_bp=4096)


@pytest.mark.parametrize("arch", ARMS)
def test_a_wrong_length_is_refused(arch):
    with pytest.raises(InputError, match="1000 bp, expected a multiple of 1024"):
        make(arch)(sequence(1000))

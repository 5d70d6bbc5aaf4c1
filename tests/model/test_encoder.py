"""What the encoder promises: exact context; chunks, batches and padding that do not matter."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genesplice.config import ModelConfig
from genesplice.errors import InputError
from genesplice.model.attention import plan_context
from genesplice.model.encoder import HierarchicalEncoder, displace
from genesplice.model.sequence import MASK_TOKEN, N_TOKEN

SMALL = {
    "bin_bp": 16, "width": 16, "heads": 2, "bin_layers": 1, "summary_layers": 1,
    "region_layers": 1, "decoder_layers": 1, "bin_window": 4, "summary_window": 2, "dropout": 0.0,
}  # fmt: skip


def make(
    seed=0, chunk_bp=16384, checkpointing=False, recompute_above=0, **changes
) -> HierarchicalEncoder:
    torch.manual_seed(seed)
    encoder = HierarchicalEncoder(ModelConfig(**(SMALL | changes))).eval()
    encoder.chunk_bp, encoder.checkpointing = chunk_bp, checkpointing
    encoder.recompute_above = recompute_above
    # Off zero, so that nothing cancels by luck.
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return encoder


def sequence(length=4096, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 4, (batch, length), generator=generator, dtype=torch.uint8)


def input_gradient(encoder, tokens, bins: slice) -> torch.Tensor:
    """Gradient mass of some output bins on every base."""
    inputs = encoder.channels(tokens, None).detach().requires_grad_()
    is_real = (tokens != N_TOKEN).view(len(tokens), -1, encoder.bin_bp).any(-1)
    out = encoder.encode(inputs, is_real).bins[:, bins]
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    (out * weight).sum().backward()
    return inputs.grad.abs().sum((0, 2))


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    context_bp=st.sampled_from([256, 512, 1000, 1500, 2048, 3000, 4096, 6000, 8192]),
    bin_bp=st.sampled_from([4, 8, 16, 32]),
    bin_layers=st.integers(0, 2),
    summary_layers=st.integers(1, 2),
    decoder_layers=st.integers(0, 1),
    chunk_bp=st.sampled_from([1024, 2048, 100_000]),
    place=st.integers(0, 255),
)
def test_nothing_beyond_the_context_is_seen(
    context_bp, bin_bp, bin_layers, summary_layers, decoder_layers, chunk_bp, place
):
    encoder = make(
        context_bp=context_bp, bin_bp=bin_bp, bin_layers=bin_layers, chunk_bp=chunk_bp,
        summary_layers=summary_layers, decoder_layers=decoder_layers,
    )  # fmt: skip
    index = place * 32 // bin_bp
    gradient = input_gradient(encoder, sequence(8192), slice(index, index + 1))
    first, last = index * bin_bp - context_bp // 2, (index + 1) * bin_bp + context_bp // 2
    assert float(gradient[: max(first, 0)].sum()) == 0
    assert float(gradient[last:].sum()) == 0
    assert float(gradient[index * bin_bp : (index + 1) * bin_bp].min()) > 0


def test_the_context_is_used_and_not_only_bounded():
    """A wider dial reaches further: at least half of what was promised, on each side."""
    for context_bp in (512, 2048, 8192):
        encoder = make(context_bp=context_bp, bin_window=32, summary_window=32)
        gradient = input_gradient(encoder, sequence(16384), slice(512, 513))
        seen = gradient.nonzero()[:, 0]
        reach = min(8192 - int(seen.min()), int(seen.max()) - 8207)
        assert reach >= context_bp // 4, context_bp


def test_without_a_dial_every_base_is_seen():
    gradient = input_gradient(make(), sequence(8192), slice(3, 4))
    assert float(gradient.min()) > 0


def test_equal_parameters_whatever_the_context():
    sizes = {sum(p.numel() for p in make(context_bp=c).parameters()) for c in (None, 256, 4096)}
    assert len(sizes) == 1


def test_stem_sees_every_base_at_any_bin():
    for bin_bp in (4, 8, 16, 32, 128):
        gradient = input_gradient(make(bin_bp=bin_bp, context_bp=1024), sequence(2048), slice(None))
        assert float(gradient.min()) > 0, bin_bp


@pytest.mark.parametrize("chunk_bp", [16, 1024, 1040, 2048, 3000, 8192])
def test_chunks_do_not_matter(chunk_bp):
    tokens = sequence(7168, batch=3)
    whole = make(chunk_bp=1 << 20)(tokens)
    parts = make(chunk_bp=chunk_bp)(tokens)
    for a, b in zip(whole[:4], parts[:4], strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def base_gradient(encoder, tokens, position: int) -> torch.Tensor:
    """Gradient mass of one base's output vector on every base."""
    inputs = encoder.channels(tokens, None).detach().requires_grad_()
    is_real = (tokens != N_TOKEN).view(len(tokens), -1, encoder.bin_bp).any(-1)
    out = encoder.encode(inputs, is_real, with_bases=True).bases[:, position]
    (out * torch.linspace(-1, 2, out.shape[1])).sum().backward()
    return inputs.grad.abs().sum((0, 2))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    context_bp=st.sampled_from([512, 1500, 4096]),
    bin_bp=st.sampled_from([4, 16, 32]),
    chunk_bp=st.sampled_from([1024, 2048, 100_000]),
    position=st.integers(0, 8191),
)
def test_the_base_path_keeps_the_context(context_bp, bin_bp, chunk_bp, position):
    encoder = make(base_width=8, context_bp=context_bp, bin_bp=bin_bp, chunk_bp=chunk_bp)
    gradient = base_gradient(encoder, sequence(8192), position)
    assert float(gradient[: max(position - context_bp // 2, 0)].sum()) == 0
    assert float(gradient[position + context_bp // 2 + 1 :].sum()) == 0
    assert float(gradient[position]) > 0


def test_a_base_sees_through_the_bins():
    gradient = base_gradient(make(base_width=8), sequence(8192), 100)
    assert float(gradient.min()) > 0


@torch.no_grad()
@pytest.mark.parametrize("chunk_bp", [16, 1040, 3000])
def test_chunks_do_not_matter_to_bases(chunk_bp):
    tokens = sequence(4096, batch=3)
    tokens[1, 1000:1500] = N_TOKEN
    whole = make(base_width=8, chunk_bp=1 << 20)(tokens, with_bases=True)
    parts = make(base_width=8, chunk_bp=chunk_bp)(tokens, with_bases=True)
    torch.testing.assert_close(whole.bases, parts.bases, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(whole.bins, parts.bins, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_padding_changes_no_base():
    encoder, tokens = make(base_width=8), sequence(3072)
    tokens[:, 2500:] = N_TOKEN
    more = torch.cat([tokens, torch.full((1, 2048), N_TOKEN, dtype=torch.uint8)], 1)
    a, b = (encoder(x, with_bases=True).bases[:, :2480] for x in (tokens, more))
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_the_rest_of_the_batch_does_not_matter():
    encoder, tokens = make(), sequence(2048, batch=4)
    tokens[2, 500:900] = N_TOKEN
    together = encoder(tokens).bins
    for row in range(4):
        torch.testing.assert_close(
            together[row], encoder(tokens[[row]]).bins[0], atol=2e-5, rtol=1e-4
        )


def test_padding_with_n_changes_nothing():
    """A contig's end: however much N follows, the bins before it are the same."""
    encoder, tokens = make(), sequence(3072)
    tokens[:, 2500:] = N_TOKEN
    more = torch.cat([tokens, torch.full((1, 5120), N_TOKEN, dtype=torch.uint8)], 1)
    real = 2500 // 16
    torch.testing.assert_close(
        encoder(tokens).bins[:, :real], encoder(more).bins[:, :real], atol=2e-5, rtol=1e-4
    )


def test_a_window_moved_by_whole_regions_gives_the_same_bins():
    """With all of its context inside, a place is encoded the same wherever its window starts."""
    encoder = make(context_bp=4096)
    tokens = sequence(16384)
    one, two = encoder(tokens[:, :12288]).bins, encoder(tokens[:, 2048:14336]).bins
    inside = slice(5120 // 16, 8192 // 16)
    moved = slice(inside.start - 128, inside.stop - 128)
    torch.testing.assert_close(one[:, inside], two[:, moved], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_all_n_is_finite_and_zero():
    out = make()(torch.full((1, 2048), N_TOKEN, dtype=torch.uint8))
    assert not out.is_real.any()
    assert float(out.bins.abs().max()) == 0
    assert not any(part.isnan().any() for part in out[:4])


def test_all_n_gradients_are_finite():
    encoder = make().train()
    encoder(torch.full((1, 2048), N_TOKEN, dtype=torch.uint8)).bins.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@torch.no_grad()
def test_a_masked_bin_is_still_a_bin():
    tokens = sequence(1024)
    tokens[:, 160:320] = MASK_TOKEN
    out = make()(tokens)
    assert out.is_real.all()
    assert float(out.bins[:, 10:20].abs().min(dim=-1).values.max()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("chunk_bp", [1024, 4096, 10_000])
@pytest.mark.parametrize("base_width", [0, 8])
def test_checkpointing_changes_no_gradient(chunk_bp, base_width):
    grads = []
    for checkpointing in (False, True):
        encoder = make(checkpointing=checkpointing, chunk_bp=chunk_bp, base_width=base_width)
        out = encoder.train()(sequence(4096, batch=3), with_bases=True)
        loss = out.bins.square().sum() + (out.summaries[:, 3] * out.regions[:, 1]).sum()
        if base_width:
            loss = loss + out.bases[1, 77:3000].square().sum()
        loss.backward()
        grads.append([p.grad for p in encoder.parameters()])
    for plain, again in zip(*grads, strict=True):
        torch.testing.assert_close(plain, again, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("recompute_above", "n_more"), [(0, 1), (2 * 4096, 0)])
def test_small_windows_are_kept_and_large_ones_computed_again(recompute_above, n_more):
    encoder = make(checkpointing=True, recompute_above=recompute_above, chunk_bp=4096).train()
    calls = []
    encoder.stem.register_forward_hook(lambda *_: calls.append(1))
    out = encoder(sequence(4096))
    assert out.bins[0].numel() <= 2 * 4096
    before = len(calls)
    out.bins.square().sum().backward()
    assert len(calls) - before == n_more * before


def test_context_plan_never_promises_more_than_it_keeps():
    for context_bp in range(128, 20_000, 97):
        plan = plan_context(ModelConfig(context_bp=context_bp), stem_bp=6)
        assert plan.receptive_bp is not None
        assert plan.receptive_bp <= context_bp // 2


def test_too_small_a_context_names_both_numbers():
    with pytest.raises(InputError, match=r"context_bp 64, expected at least \d+"):
        make(context_bp=64)


@pytest.mark.parametrize("length", [0, 1000, 1025])
def test_a_wrong_length_is_refused(length):
    with pytest.raises(InputError, match=f"{length} bp, expected a multiple of 1024"):
        make()(torch.zeros(1, length, dtype=torch.uint8))


@torch.no_grad()
def test_ablations_of_the_hierarchy_have_the_weights_and_lack_what_they_are_named_after():
    torch.manual_seed(1)
    tokens = torch.randint(0, 4, (1, 6144), dtype=torch.uint8)
    far = tokens.clone()
    far[:, 5120:] = (far[:, 5120:] + 1) % 4
    changed = {}
    for name in ("whole", "local_only", "permuted_regions"):
        encoder = make(hierarchy=name, base_width=8)
        before, after = (encoder(some, with_bases=True) for some in (tokens, far))
        moved = (after.bins - before.bins).abs().amax(2)[0]
        changed[name] = (moved > 1e-6).view(6, -1).any(1)
        assert torch.equal(before.bins, encoder(tokens, with_bases=True).bins)
    assert changed["whole"].all()
    # Four bins in each of two layers, and the base path: nothing comes from further away.
    assert changed["local_only"].tolist() == [False, False, False, False, True, True]
    assert changed["permuted_regions"].all()


@pytest.mark.parametrize("n_regions", [2, 3, 7])
def test_no_region_is_heard_at_its_own_place(n_regions):
    for is_training in (False, True):
        order = displace(n_regions, is_random=is_training)
        assert sorted(order.tolist()) == list(range(n_regions))
        assert (order != torch.arange(n_regions)).all()

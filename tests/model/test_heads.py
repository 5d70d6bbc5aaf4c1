"""What the heads promise: residuals of mean 0, scales from training genes, unit vectors."""

import numpy as np
import pytest
import torch

from genesplice.model.heads import ContrastiveHead, ExpressionHead, MaskedBaseHead

WIDTH, N_GENES, N_CONDITIONS = 8, 50, 6


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def observed(seed=0):
    """Levels, a profile that all genes share, and two profiles of a few."""
    level = random(N_GENES, 1, seed=seed) * 2 + 6
    shared = random(N_CONDITIONS, seed=seed + 1)
    own = random(N_GENES, 2, seed=seed + 2) @ random(2, N_CONDITIONS, seed=seed + 3)
    return level + shared + own


def make(rank=4, n_conditions=N_CONDITIONS):
    torch.manual_seed(0)
    return ExpressionHead(WIDTH, n_conditions, rank).eval()


@torch.no_grad()
@pytest.mark.parametrize("is_fitted", [False, True])
@pytest.mark.parametrize("rank", [1, 4, 100])
def test_residuals_have_mean_zero_over_conditions(rank, is_fitted):
    head = make(rank)
    if is_fitted:
        head.fit(observed())
    residual = head(random(20, WIDTH)).residual
    assert residual.shape == (20, N_CONDITIONS)
    assert float(residual.mean(1).abs().max()) < 1e-5
    assert float(residual.abs().max()) > 1e-2


@torch.no_grad()
def test_expression_is_level_and_condition_mean_and_residual():
    head = make()
    head.fit(observed())
    prediction = head(random(20, WIDTH))
    values = head.expression(prediction).numpy()
    for gene in range(20):
        for condition in range(N_CONDITIONS):
            expected = (
                float(prediction.level[gene])
                + float(head.condition_mean[condition])
                + float(prediction.residual[gene, condition])
            )
            assert values[gene, condition] == pytest.approx(expected, abs=1e-5)
    # The level is the mean over conditions.
    np.testing.assert_allclose(values.mean(1), prediction.level, atol=1e-5)


def test_fit_takes_means_and_scales_by_the_definitions():
    head, table = make(), observed().double().numpy()
    head.fit(observed())
    level = table.mean(axis=1)
    shared = (table - level[:, None]).mean(axis=0)
    residual = table - level[:, None] - shared
    assert float(head.level_mean) == pytest.approx(level.mean(), rel=1e-5)
    assert float(head.level_std) == pytest.approx(level.std(ddof=1), rel=1e-5)
    np.testing.assert_allclose(head.condition_mean, shared, atol=1e-5)
    assert float(head.residual_std) == pytest.approx(residual.std(ddof=1), rel=1e-5)


@torch.no_grad()
def test_profiles_span_the_leading_residuals():
    head, table = make(rank=4), observed()
    head.fit(table)
    level = table.mean(1, keepdim=True)
    residual = (table - level - (table - level).mean(0)).double()
    profiles = head.condition_profiles.double()
    projection = profiles @ torch.linalg.pinv(profiles)
    # Two profiles were put in: they hold all of the residual.
    torch.testing.assert_close(residual @ projection, residual, atol=1e-4, rtol=1e-4)
    best = make(rank=1)
    best.fit(table)
    direction = torch.linalg.svd(residual, full_matrices=False)[2][0]
    found = torch.nn.functional.normalize(best.condition_profiles[:, 0].double(), dim=0)
    assert abs(float(found @ direction)) == pytest.approx(1, abs=1e-5)


def test_fit_looks_at_nothing_but_its_genes():
    one, other = make(), make()
    one.fit(observed()[:30])
    changed = observed()
    changed[30:] += 100
    other.fit(changed[:30])
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    other.fit(changed)
    assert float(other.level_mean) > float(one.level_mean) + 10


@torch.no_grad()
def test_the_network_predicts_standardised_values():
    head = make()
    before = head(random(20, WIDTH))
    head.level_mean.fill_(7)
    head.level_std.fill_(3)
    head.residual_std.fill_(0.5)
    after = head(random(20, WIDTH))
    torch.testing.assert_close(after.level, before.level * 3 + 7)
    torch.testing.assert_close(after.residual, before.residual * 0.5)


@pytest.mark.parametrize(
    "table",
    [
        torch.full((5, N_CONDITIONS), 3.0),
        torch.arange(6.0)[None],
        torch.arange(12.0).reshape(2, 6),
        torch.arange(5.0)[:, None].expand(5, N_CONDITIONS),
    ],
    ids=["constant", "one gene", "two genes", "levels only"],
)
def test_tables_that_say_little_leave_finite_numbers(table):
    head = make(rank=4)
    head.fit(table.contiguous())
    assert all(value.isfinite().all() for value in head.state_dict().values())
    assert float(head.level_std) > 0
    assert float(head.residual_std) > 0
    values = head.expression(head(random(3, WIDTH)))
    assert values.isfinite().all()


def test_one_condition_has_no_residual():
    head = make(n_conditions=1)
    head.fit(random(10, 1))
    assert not head(random(3, WIDTH)).residual.any()


def test_the_masked_base_head_unfolds_bins_in_order():
    torch.manual_seed(0)
    head, bins = MaskedBaseHead(WIDTH, 16), random(2, 5, WIDTH)
    logits = head(bins)
    assert logits.shape == (2, 80, 4)
    changed = bins.clone()
    changed[1, 3] += random(WIDTH, seed=1)
    differs = (head(changed) != logits).any(-1)
    expected = torch.zeros(2, 80, dtype=torch.bool)
    expected[1, 48:64] = True
    assert torch.equal(differs, expected)


def test_the_contrastive_head_gives_unit_vectors_whatever_the_order_of_summaries():
    torch.manual_seed(0)
    head, summaries = ContrastiveHead(WIDTH, 5), random(7, 8, WIDTH)
    is_real = torch.ones(7, 8, dtype=torch.bool)
    found = head(head.pool(summaries, is_real))
    assert found.shape == (7, 5)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(7))
    turned = head(head.pool(summaries.flip(1), is_real))
    torch.testing.assert_close(turned, found, atol=1e-6, rtol=1e-5)


def test_the_contrastive_head_leaves_out_what_is_not_real():
    torch.manual_seed(0)
    head, summaries = ContrastiveHead(WIDTH, 5), random(3, 8, WIDTH)
    is_real = torch.ones(3, 8, dtype=torch.bool)
    expected = summaries.mean(1)
    torch.testing.assert_close(head.pool(summaries, is_real), expected)
    is_real[1, 3:] = False
    expected[1] = summaries[1, :3].mean(0)
    torch.testing.assert_close(head.pool(summaries, is_real), expected)
    is_real[2] = False
    assert head(head.pool(summaries, is_real)).isfinite().all()


def test_the_contrastive_head_forgets_what_all_stretches_share():
    torch.manual_seed(0)
    head, pooled = ContrastiveHead(WIDTH, 5), random(40, WIDTH)
    found = head(pooled * torch.linspace(0.01, 1, WIDTH) + 20)
    torch.testing.assert_close(found, head(pooled), atol=1e-3, rtol=1e-3)
    assert (found @ found.T).min() < 0
    assert head(pooled[:1]).isfinite().all()

"""Every draw against units repeated as often as their block was drawn; coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, rankdata, spearmanr
from sklearn.metrics import r2_score

from genesplice.evaluate.bootstrap import (
    CHUNK,
    interval,
    make_draws,
    ratio_draws,
    resampled_metrics,
    summarise,
    to_metric,
)

N_BLOCKS = 6


def make_tables(seed: int, n_genes: int = 40, n_conditions: int = 5, rounded: int | None = None):
    generator = np.random.default_rng(seed)
    observed = generator.normal(6, 2, (n_genes, 1)) + generator.normal(size=(n_genes, n_conditions))
    predicted = 0.6 * observed + generator.normal(size=observed.shape)
    if rounded is not None:
        observed, predicted = observed.round(rounded), predicted.round(rounded)
    condition_mean = generator.normal(size=(2, n_conditions))[generator.integers(0, 2, n_genes)]
    block = generator.permutation(np.arange(n_genes) % N_BLOCKS)
    return observed, predicted, condition_mean, block


def by_repeating_genes(observed, predicted, condition_mean, block, counts):
    """One resample: every gene written down as often as its block was drawn."""
    rows = np.repeat(np.arange(len(block)), counts[block])
    y, x = observed[rows], predicted[rows]
    y_level, x_level = y.mean(axis=1), x.mean(axis=1)
    y = y - y_level[:, None] - condition_mean[rows]
    x = x - x_level[:, None] - condition_mean[rows]
    return {
        "level_spearman": spearmanr(x_level, y_level).statistic,
        "level_r2": r2_score(y_level, x_level),
        "profile_r": np.mean([pearsonr(a, b).statistic for a, b in zip(x, y, strict=True)]),
        "profile_r_overall": pearsonr(x.ravel(), y.ravel()).statistic,
    }


@pytest.mark.parametrize("rounded", [None, 0], ids=["distinct", "ties"])
def test_every_draw_is_the_table_with_repeated_genes(rounded):
    observed, predicted, condition_mean, block = make_tables(0, rounded=rounded)
    counts = make_draws(N_BLOCKS, 40, seed=1)[1:]
    got = resampled_metrics(summarise(observed, predicted, condition_mean, block), counts)
    for draw, row in enumerate(counts):
        expected = by_repeating_genes(observed, predicted, condition_mean, block, row)
        for name, value in expected.items():
            assert got[name][draw] == pytest.approx(value, abs=1e-10), (name, draw)


@settings(max_examples=40, deadline=None)
@given(
    x=st.lists(st.integers(0, 4), min_size=8, max_size=8),
    y=st.lists(st.integers(0, 4), min_size=8, max_size=8),
    counts=st.lists(st.integers(0, 3), min_size=8, max_size=8),
)
def test_ranks_with_any_ties_and_any_repeats(x, y, counts):
    repeated_x, repeated_y = np.repeat(x, counts), np.repeat(y, counts)
    genes = summarise(
        np.array(y, dtype=np.float64)[:, None], np.array(x, dtype=np.float64)[:, None],
        np.zeros((8, 1)), np.arange(8),
    )  # fmt: skip
    got = resampled_metrics(genes, np.array([counts]))["level_spearman"][0]
    if len(set(repeated_y.tolist())) < 2:
        assert np.isnan(got)
    elif len(set(repeated_x.tolist())) < 2:
        assert got == 0
    else:
        expected = np.corrcoef(rankdata(repeated_x), rankdata(repeated_y))[0, 1]
        assert got == pytest.approx(expected, abs=1e-12)


def test_all_ones_is_the_value_itself():
    tables = make_tables(2)
    got = resampled_metrics(summarise(*tables), np.ones((1, N_BLOCKS), dtype=np.int64))
    expected = by_repeating_genes(*tables, np.ones(N_BLOCKS, dtype=np.int64))
    assert {name: value[0] for name, value in got.items()} == pytest.approx(expected, abs=1e-12)


def test_draws_do_not_depend_on_their_neighbours():
    tables = make_tables(3)
    genes = summarise(*tables)
    counts = make_draws(N_BLOCKS, CHUNK + 7, seed=0)[1:]
    together = resampled_metrics(genes, counts)
    alone = resampled_metrics(genes, counts[-3:])
    for name, value in together.items():
        assert value.shape == (CHUNK + 7,)
        np.testing.assert_allclose(value[-3:], alone[name], rtol=0, atol=1e-12)


def test_counts_are_resamples_of_all_blocks():
    counts = make_draws(N_BLOCKS, 2000, seed=0)[1:]
    assert (counts.sum(axis=1) == N_BLOCKS).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(N_BLOCKS), abs=0.1)
    # With replacement, a block is missing from about (1 - 1/6)^6 of the resamples.
    assert (counts == 0).mean() == pytest.approx((1 - 1 / N_BLOCKS) ** N_BLOCKS, abs=0.02)
    assert np.array_equal(counts, make_draws(N_BLOCKS, 2000, seed=0)[1:])
    assert not np.array_equal(counts, make_draws(N_BLOCKS, 2000, seed=1)[1:])


def test_large_offsets_do_not_cost_digits():
    observed, predicted, condition_mean, block = make_tables(4)
    counts = make_draws(N_BLOCKS, 10, seed=0)[1:]
    near = resampled_metrics(summarise(observed, predicted, condition_mean, block), counts)
    far = summarise(observed + 1e6, predicted + 1e6, condition_mean, block)
    for name, value in resampled_metrics(far, counts).items():
        np.testing.assert_allclose(value, near[name], rtol=0, atol=1e-6)


def test_block_labels_may_be_anything_in_order():
    observed, predicted, condition_mean, block = make_tables(5)
    counts = make_draws(N_BLOCKS, 10, seed=0)[1:]
    numbers = resampled_metrics(summarise(observed, predicted, condition_mean, block), counts)
    named = np.array([f"block {b}" for b in block], dtype=object)
    names = resampled_metrics(summarise(observed, predicted, condition_mean, named), counts)
    for name, value in numbers.items():
        assert np.array_equal(value, names[name])


def test_dependent_genes_give_a_wider_interval_than_independent_ones():
    """Planted: blocks that share an error. Resampling genes would promise too much."""
    generator = np.random.default_rng(0)
    n_blocks, per_block = 30, 20
    block = np.repeat(np.arange(n_blocks), per_block)
    sign = np.repeat(generator.choice([-1.0, 1.0], n_blocks), per_block)
    observed = generator.normal(size=(block.size, 6))
    predicted = sign[:, None] * observed
    zero = np.zeros_like(observed)

    def width(labels):
        genes = summarise(observed, predicted, zero, labels)
        counts = make_draws(len(np.unique(labels)), 500, seed=0)[1:]
        return np.ptp(np.quantile(resampled_metrics(genes, counts)["profile_r"], [0.025, 0.975]))

    by_block, by_gene = width(block), width(np.arange(block.size))
    # Standard error of a mean of 30 signs, and of 600.
    assert by_block == pytest.approx(2 * 1.96 * sign.std() / np.sqrt(n_blocks), rel=0.15)
    assert by_gene == pytest.approx(2 * 1.96 * sign.std() / np.sqrt(block.size), rel=0.15)


@pytest.mark.parametrize("n_blocks", [3, 9, 46])
def test_intervals_of_few_blocks_hold_what_they_promise(n_blocks):
    generator, held = np.random.default_rng(0), []
    for trial in range(600):
        blocks = generator.normal(size=n_blocks)
        counts = make_draws(n_blocks, 300, seed=trial)[1:]
        drawn = np.concatenate([[blocks.mean()], counts @ blocks / n_blocks])
        low, high = interval(drawn, n_blocks)
        held.append(low <= 0 <= high)
    assert 0.92 <= np.mean(held) <= 0.975


def test_every_draw_is_the_ratio_of_repeated_units():
    generator = np.random.default_rng(0)
    above, below = generator.normal(size=(30, 2)), generator.uniform(1, 2, (30, 2))
    block = generator.integers(0, 5, 30)
    draws = make_draws(5, 25, seed=3)
    found = ratio_draws(above, below, block, draws)
    assert found.shape == (26, 2)
    for row, counts in enumerate(draws):
        units = [u for u in range(30) for _ in range(counts[block[u]])]
        for column in range(2):
            expected = sum(above[u, column] for u in units) / sum(below[u, column] for u in units)
            assert found[row, column] == pytest.approx(expected, rel=1e-12)


def test_row_0_is_the_value_and_the_rest_are_as_many_blocks():
    draws = make_draws(7, 100, seed=0)
    assert (draws[0] == 1).all()
    assert (draws.sum(axis=1) == 7).all()
    assert len(np.unique(draws[1:], axis=0)) > 50
    np.testing.assert_array_equal(draws, make_draws(7, 100, seed=0))
    assert len(make_draws(1, 100, seed=0)) == len(make_draws(7, 0, seed=0)) == 1


def test_a_draw_without_a_denominator_is_left_out():
    block = np.array([0, 1])
    draws = np.array([[1, 1], [2, 0], [0, 2], [1, 1]])
    ratios = ratio_draws(np.array([[3.0], [0.0]]), np.array([[4.0], [0.0]]), block, draws)[:, 0]
    assert np.isnan(ratios[2])
    metric = to_metric("share", ratios, 2, n_blocks=2, model="m", fold=1, seed=5)
    assert metric == ("share", 0.75, 0.75, 0.75, 2, "m", "test", 1, 5)


def test_the_interval_are_two_quantiles_and_there_may_be_none():
    values = np.concatenate([[0.5], np.arange(1001) / 1000])
    metric = to_metric("x", values, 9, n_blocks=10**9, model="m", split="train")
    assert (metric.ci_low, metric.ci_high) == pytest.approx((0.025, 0.975))
    alone = to_metric("x", np.array([0.5]), 9, n_blocks=9, model="m")
    assert (alone.value, alone.ci_low, alone.ci_high) == (0.5, None, None)

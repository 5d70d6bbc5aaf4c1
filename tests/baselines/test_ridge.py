import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV

from genesplice.baselines.ridge import PENALTIES, fit_ridge
from genesplice.errors import InputError


def make_data(n_genes: int = 48, n_features: int = 9, n_targets: int = 4, seed: int = 0):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(n_genes, n_features)) + generator.normal(size=n_features)
    truth = generator.normal(size=(n_features, n_targets))
    targets = features @ truth + 3 * generator.normal(size=(n_genes, n_targets)) + 7
    return features, targets, np.arange(n_genes) // 6


@pytest.mark.parametrize("n_features", [9, 80], ids=["few features", "more features than genes"])
def test_left_out_blocks_against_refits_one_by_one(n_features):
    features, targets, blocks = make_data(n_features=n_features)
    (fit,) = fit_ridge(features, [targets], blocks)
    for penalty, got in zip(PENALTIES, fit.block_mse, strict=True):
        squared = 0.0
        for block in np.unique(blocks):
            out = blocks == block
            model = Ridge(alpha=penalty).fit(features[~out], targets[~out])
            squared += ((model.predict(features[out]) - targets[out]) ** 2).sum()
        assert got == pytest.approx(squared / targets.size, rel=1e-8)
    assert fit.penalty == PENALTIES[int(np.argmin(fit.block_mse))]


@pytest.mark.parametrize("n_features", [1, 9, 80])
def test_coefficients_against_scikit_learn(n_features):
    features, targets, blocks = make_data(n_features=n_features)
    (fit,) = fit_ridge(features, [targets], blocks)
    model = Ridge(alpha=fit.penalty).fit(features, targets)
    np.testing.assert_allclose(fit.coefficients, model.coef_.T, rtol=0, atol=1e-10)
    np.testing.assert_allclose(fit.intercept, model.intercept_, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fit.predict(features), model.predict(features), atol=1e-9)


def test_single_gene_blocks_are_the_leave_one_out_of_ridgecv():
    features, targets, _ = make_data()
    for blocks in (np.arange(48), np.zeros(48, dtype=int)):
        (fit,) = fit_ridge(features, [targets], blocks)
        model = RidgeCV(alphas=PENALTIES, store_cv_results=True).fit(features, targets)
        assert fit.penalty == model.alpha_
        expected = model.cv_results_.mean(axis=(0, 1))
        np.testing.assert_allclose(fit.block_mse, expected, rtol=1e-8)


def test_each_group_of_targets_has_its_own_penalty():
    features, targets, blocks = make_data()
    noise = np.random.default_rng(1).normal(size=(48, 2))
    signal, nothing = fit_ridge(features, [targets, noise], blocks)
    assert signal.penalty < nothing.penalty
    (alone,) = fit_ridge(features, [targets], blocks)
    np.testing.assert_allclose(signal.coefficients, alone.coefficients, atol=1e-12)
    np.testing.assert_allclose(signal.block_mse, alone.block_mse, rtol=1e-12)


def test_leaving_out_blocks_sees_through_what_neighbours_share():
    """Planted: features and target that are shared inside a block, and unrelated across blocks."""
    generator = np.random.default_rng(2)
    blocks = np.repeat(np.arange(40), 8)
    features = np.repeat(generator.normal(size=(40, 60)), 8, axis=0)
    features += 0.01 * generator.normal(size=features.shape)
    target = np.repeat(generator.normal(size=(40, 1)), 8, axis=0)
    (by_block,) = fit_ridge(features, [target], blocks)
    (by_gene,) = fit_ridge(features, [target], np.arange(320))
    assert by_gene.block_mse.min() < 0.05 * target.var()
    assert by_block.block_mse.min() > 0.8 * target.var()
    assert by_block.penalty > 100 * by_gene.penalty


def test_order_of_genes_and_features_does_not_matter():
    features, targets, blocks = make_data()
    (fit,) = fit_ridge(features, [targets], blocks)
    generator = np.random.default_rng(3)
    rows, columns = generator.permutation(48), generator.permutation(9)
    (other,) = fit_ridge(features[rows][:, columns], [targets[rows]], blocks[rows])
    assert other.penalty == fit.penalty
    np.testing.assert_allclose(other.coefficients, fit.coefficients[columns], atol=1e-10)


def test_constant_repeated_and_no_features():
    features, targets, blocks = make_data()
    (fit,) = fit_ridge(features, [targets], blocks)
    constant = np.concatenate([features, np.full((48, 1), 5.0)], axis=1)
    (other,) = fit_ridge(constant, [targets], blocks)
    np.testing.assert_allclose(other.coefficients[:-1], fit.coefficients, atol=1e-10)
    np.testing.assert_allclose(other.coefficients[-1], 0, atol=1e-12)
    twice = np.concatenate([features, features], axis=1)
    (double,) = fit_ridge(twice, [targets], blocks)
    np.testing.assert_allclose(double.coefficients[:9], double.coefficients[9:], atol=1e-8)
    (empty,) = fit_ridge(features[:, :0], [targets], blocks)
    np.testing.assert_allclose(empty.predict(features[:2, :0]), np.tile(targets.mean(0), (2, 1)))


def test_planted_coefficients_are_found_without_noise():
    features, _, _ = make_data(n_genes=600)
    truth = np.arange(9.0)[:, None]
    (fit,) = fit_ridge(features, [features @ truth + 2], np.arange(600) // 50)
    assert fit.penalty == PENALTIES[0]
    np.testing.assert_allclose(fit.coefficients, truth, atol=0.05)


def test_too_few_genes_are_refused():
    with pytest.raises(InputError, match="2 training genes, expected at least 3"):
        fit_ridge(np.zeros((2, 1)), [np.zeros((2, 1))], np.array([0, 1]))

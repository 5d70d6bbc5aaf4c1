"""The kernel path against the formula written out, and what it knows of a graph."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.gaussian_process.kernels import Matern as GaussianProcessKernel

from genesplice.model.kernel import KernelPath, KernelSettings, mix_kernel

PARTS, KNOWLEDGE = {"bins": 5, "kmers": 3}, {"regulators": 4, "KEGG": 2}
N, C = 30, 6


def control(seed=0, n_genes=N):
    generator = torch.Generator().manual_seed(seed)
    gene_features = torch.randn(n_genes, 8, generator=generator)
    known = torch.randint(-1, 2, (n_genes, 6), generator=generator).to(torch.int8)
    return gene_features, known


def make(seed=0):
    gene_features, known = control(seed)
    path = KernelPath(PARTS, KNOWLEDGE, C, N)
    path.set_support(gene_features, known)
    generator = torch.Generator().manual_seed(seed + 1)
    weights = torch.randn(N, generator=generator), torch.randn(N, C, generator=generator)
    for_level = KernelSettings((0.4, 0.3, 0.2, 0.1), 0.25, 1.5)
    path.set_solution("level", weights[0], for_level, 7.0)
    for_residual = KernelSettings((0.1, 0.0, 0.5, 0.4), 1.0, 0.5)
    path.set_solution("residual", weights[1], for_residual, 0.0)
    return path, gene_features, known, weights


def written_out(path, x, known, row):
    """The kernel of gene x with every remembered one, part by part, in float64."""
    values = known.double().numpy()
    support = path.support.double().numpy()
    theirs = path.support_knowledge.double().numpy()
    centre, spread = theirs.mean(0), theirs.std(0, ddof=1)
    theirs, mine = (theirs - centre) / spread, (values - centre) / spread
    edges = np.cumsum([0, 5, 3])
    blocks = [(x.double().numpy()[a:b], support[:, a:b]) for a, b in itertools.pairwise(edges)]
    blocks += [(mine[:4], theirs[:, :4]), (mine[4:], theirs[:, 4:])]
    scale = path.scale[row].double().numpy()
    weight, inverse_scale = float(path.mixture_weight[row]), float(path.inverse_length_scale[row])
    kernel = np.zeros(N)
    for j in range(N):
        inner = sum(s * (a @ b[j]) / len(a) for s, (a, b) in zip(scale, blocks, strict=True))
        squared = sum(
            s * ((a - b[j]) ** 2).sum() / len(a) for s, (a, b) in zip(scale, blocks, strict=True)
        )
        r = inverse_scale * np.sqrt(3 * squared)
        kernel[j] = (1 - weight) * inner + weight * (1 + r) * np.exp(-r)
    return kernel


def test_it_is_the_formula():
    path, _, _, (level, residual) = make()
    x, known = control(5, 4)
    found = path(x, known.float())
    for gene in range(4):
        one = written_out(path, x[gene], known[gene], 0) @ level.double().numpy() + 7
        two = written_out(path, x[gene], known[gene], 1) @ residual.double().numpy()
        assert float(found.level[gene]) == pytest.approx(one, rel=1e-4)
        np.testing.assert_allclose(found.residual[gene], two, rtol=1e-3, atol=1e-4)


def test_the_stationary_part_is_one_for_a_gene_with_itself():
    x = torch.randn(7, 4, dtype=torch.float64)
    inner, own = x @ x.T, (x * x).sum(1)
    kernel = mix_kernel(inner, own, own, 1.0, 2.0)
    torch.testing.assert_close(kernel.diagonal(), torch.ones(7, dtype=torch.float64))
    wanted = GaussianProcessKernel(length_scale=0.5, nu=1.5)(x.numpy())
    np.testing.assert_allclose(kernel, wanted, atol=1e-5)
    torch.testing.assert_close(mix_kernel(inner, own, own, 0.0, 2.0), inner)


def test_what_is_known_of_few_genes_is_not_used():
    gene_features, known = control()
    known[:, 1] = 0
    known[:4, 1] = 1
    path = KernelPath(PARTS, KNOWLEDGE, C, N)
    path.set_support(gene_features, known)
    assert path.knowledge_spread[1].isinf()
    crossed = path.inner_products(gene_features, known.float())
    other = known.clone()
    other[:, 1] = 1
    assert torch.equal(path.inner_products(gene_features, other.float()), crossed)


def test_each_part_has_a_mean_square_of_one_over_the_training_genes():
    path, gene_features, known, _ = make()
    scaled = (gene_features - gene_features.mean(0)) / gene_features.std(0)
    path.set_support(scaled, known)
    own = path.inner_products(scaled, known.float()).diagonal(dim1=1, dim2=2)
    expected = torch.full((4,), (N - 1) / N)
    torch.testing.assert_close(own.mean(1), expected, atol=1e-4, rtol=1e-4)


def test_gradients_reach_the_sequence_part():
    path, *_ = make()
    x, known = control(5, 2)
    x.requires_grad_()
    path(x, known.float()).level.sum().backward()
    assert (x.grad.abs().sum(1) > 0).all()


def test_it_is_saved_with_the_weights():
    path, *_ = make()
    again = KernelPath(PARTS, KNOWLEDGE, C, N)
    again.load_state_dict(path.state_dict())
    x, known = control(5, 4)
    assert torch.equal(again(x, known.float()).residual, path(x, known.float()).residual)

"""The kernel path on a model: its own formula, nothing of the held-out genes, an honest mix."""

import pytest
import torch

import genesplice as gs
from genesplice.baselines.ridge import choose_mix, fit_kernel_path, make_kernel
from genesplice.explain.pathways import PROFILE, GraphOutput
from genesplice.model.heads import Prediction
from genesplice.predict.expression import bundle_graph
from genesplice.training.finetuning import make_model
from genesplice.training.folds import FoldData


@pytest.fixture
def control(tiny_bundle):
    """A model with random vectors of all genes, and its training rows and values."""
    settings = ["model.width=16", "model.heads=2", "model.base_width=0"]
    data = FoldData.read(tiny_bundle, 0.0, 0)
    torch.manual_seed(0)
    config = gs.override(gs.load_preset("quick"), settings)
    model = make_model(tiny_bundle, config, n_support=len(data.both.rows)).eval()
    gene_features = torch.randn(len(tiny_bundle.genes), len(model.readout.centre))
    model.readout.fit(gene_features[data.both.rows])
    model.expression_head.fit(data.both.observed)
    return model, bundle_graph(model, tiny_bundle), gene_features, data.both, data.block


def test_what_is_left_out_is_a_fit_without_the_block(control):
    model, graph, gene_features, (rows, observed), blocks = control
    chosen, left_out = fit_kernel_path(*control)
    out = torch.from_numpy(blocks == blocks[0])
    level = observed.mean(1)
    parts = model.kernel.inner_products(*model.kernel_inputs(gene_features, graph, rows))
    settings = chosen[0]
    kernel = make_kernel(parts.double(), settings)
    inside = kernel[~out][:, ~out] + settings.penalty * torch.eye(int((~out).sum()))
    weights = torch.linalg.solve(inside, (level - level.mean())[~out].double())
    expected = kernel[out][:, ~out] @ weights + level.mean()
    torch.testing.assert_close(left_out.level[out], expected.float(), atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_with_the_whole_mix_the_model_is_its_kernel_path(control):
    model, graph, gene_features, *_ = control
    fit_kernel_path(*control)
    neural = model.predict_neural(gene_features, graph)[0]
    kernel = model.kernel(*model.kernel_inputs(gene_features, graph))
    for mix, one, two in ((0.0, neural, neural), (1.0, kernel, kernel), (0.25, neural, kernel)):
        model.mix.fill_(mix)
        found = model(gene_features, graph)
        torch.testing.assert_close(found.level, one.level + mix * (two.level - one.level))
        wanted = one.residual + mix * (two.residual - one.residual)
        torch.testing.assert_close(found.residual, wanted)


def test_residuals_have_mean_zero_over_conditions(control):
    model, graph, gene_features, *_ = control
    fit_kernel_path(*control)
    with torch.no_grad():
        found = model.kernel(*model.kernel_inputs(gene_features, graph))
    assert float(found.residual.abs().max()) > 0.01
    assert float(found.residual.mean(1).abs().max()) < 1e-4


def test_the_mix_is_the_better_one():
    generator = torch.Generator().manual_seed(0)
    truth = Prediction(*(torch.randn(*size, generator=generator) for size in ((200,), (200, 5))))

    def off(by):
        return Prediction(
            *(part + by * torch.randn(part.shape, generator=generator) for part in truth)
        )

    assert choose_mix(off(0.1), off(2.0), truth) == (0.0, 0.0)
    assert choose_mix(off(2.0), off(0.1), truth) == (1.0, 1.0)
    assert choose_mix(off(1.0), off(1.0), truth) == (0.5, 0.5)
    empty = Prediction(torch.zeros(0), torch.zeros(0, 5))
    assert choose_mix(empty, empty, empty) == (0.5, 0.5)


@pytest.mark.parametrize(("target", "part"), [("level", "level"), (PROFILE, "residual")])
def test_half_of_a_prediction_is_that_half(control, target, part):
    model, graph, gene_features, (rows, _), _ = control
    fit_kernel_path(*control)
    model.mix.copy_(torch.tensor([0.7, 0.4]))
    with torch.no_grad():
        whole = getattr(model(gene_features, graph, rows), part)
        half = model.predict_target(part, gene_features, graph, rows)
        torch.testing.assert_close(half, whole)
        output = GraphOutput(model, graph, gene_features, rows, target)
        expected = whole.sum() if target == "level" else whole.norm(dim=1).sum()
        torch.testing.assert_close(output(*output.full_masks())[0], expected)
        assert output.compared is not None

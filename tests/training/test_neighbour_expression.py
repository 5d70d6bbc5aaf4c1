"""Expression in the graph, and parts of the graph: nothing held out ever enters."""

import numpy as np
import pytest
import torch
from test_finetuning import config, with_other_labels

from genesplice.data.knowledge import without_gene_sets, without_network
from genesplice.errors import InputError
from genesplice.predict.expression import bundle_graph, predict_expression
from genesplice.predict.models import load_model
from genesplice.training.ablations import ablate_finetuning
from genesplice.training.finetuning import finetune, finetune_fold, make_model
from genesplice.training.folds import FoldData, GeneTargets, draw_genes, hide_measured

FEW = ["finetune.core_bp=65536", "finetune.epochs=1", "finetune.kernel=false"]
MEASURED = "model.neighbour_expression=true"
PARTS = ["finetune.graph_genes=20", "finetune.neighbours=2"]
VALIDATED = "finetune.validation_blocks=0.4"


def fold(bundle, out, *more):
    return finetune_fold(bundle, config(*FEW, *more), fold=0, seed=0, out=out)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [[MEASURED], PARTS, [MEASURED, *PARTS]], ids=["measured", "parts", "both"]
)
def test_held_out_labels_change_nothing(tiny_bundle, tmp_path, more):
    honest = fold(tiny_bundle, tmp_path / "a", VALIDATED, *more)
    other = with_other_labels(tiny_bundle, tiny_bundle.test_genes(0))
    again = fold(other, tmp_path / "b", VALIDATED, *more)
    for name, value in honest.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    predicted = ["predicted", "low", "high"]
    assert honest.predictions[predicted].equals(again.predictions[predicted])
    assert honest.predictions["low"].notna().all()


@pytest.mark.slow
def test_the_graph_holds_the_expression_of_genes_that_are_learned_from(tiny_bundle, tmp_path):
    model = fold(tiny_bundle, tmp_path / "a", VALIDATED, MEASURED).model
    data = FoldData.read(tiny_bundle, 0.4, 0)
    training, validation = data.training_ids, data.validation_ids
    measured = bundle_graph(model, tiny_bundle)["gene"].measured
    known = tiny_bundle.genes["gene_id"][measured[:, 0].bool().numpy()]
    assert len(validation) > 0
    assert set(known) == set(training)
    assert not measured[~measured[:, 0].bool()].any()
    # Level and profile weights, on about one scale.
    level = tiny_bundle.observed.loc[training].mean(axis=1)
    row = {gene: i for i, gene in enumerate(tiny_bundle.genes["gene_id"])}
    predicted = measured[[row[gene] for gene in training], 1].numpy()
    np.testing.assert_allclose(predicted, (level - level.mean()) / level.std(), atol=1e-4)
    again = load_model(tmp_path / "a")
    one, two = (predict_expression(m, tiny_bundle) for m in (model, again))
    assert one.equals(two)


def wild(bundle):
    """A model of large random weights that holds random expression of the training genes."""
    training = FoldData.read(bundle, 0.1, 0).training_ids
    torch.manual_seed(0)
    model = make_model(
        bundle, config(MEASURED, "model.graph_layers=2"), measured_genes=list(training)
    )
    for parameter in (*model.graph.parameters(), *model.expression_head.parameters()):
        torch.nn.init.normal_(parameter, std=0.5)
    model.graph.measured.normal_()
    return model.eval(), list(training)


@torch.no_grad()
def test_what_is_hidden_changes_nothing(tiny_bundle):
    model, training = wild(tiny_bundle)
    vectors = torch.randn(len(tiny_bundle.genes), len(model.readout.centre))
    row = {gene: i for i, gene in enumerate(tiny_bundle.genes["gene_id"])}
    hidden = torch.tensor([row[gene] for gene in training[::2]])
    graph = bundle_graph(model, tiny_bundle)
    before = model(vectors, hide_measured(graph, hidden)).level
    assert not torch.allclose(before, model(vectors, graph).level)
    model.graph.measured[::2] += 3
    again = bundle_graph(model, tiny_bundle)
    assert torch.equal(model(vectors, hide_measured(again, hidden)).level, before)
    model.graph.measured[1::2] += 3
    last = bundle_graph(model, tiny_bundle)
    predicted = model(vectors, hide_measured(last, hidden)).level
    assert not torch.allclose(predicted[hidden], before[hidden])
    assert graph["gene"].measured[hidden].any(), "the graph itself was changed"


@torch.no_grad()
def test_no_gene_receives_its_own_expression(tiny_bundle):
    model, training = wild(tiny_bundle)
    vectors = torch.randn(len(tiny_bundle.genes), len(model.readout.centre))
    alone = without_gene_sets(without_network(tiny_bundle))
    assert len(training) > 20
    graph = bundle_graph(model, alone)
    before = model(vectors, graph).level
    model.graph.measured.add_(3)
    assert torch.equal(model(vectors, bundle_graph(model, alone)).level, before)


def test_the_draw_keeps_genes_and_values_together():
    genes = GeneTargets(torch.arange(100, 140), torch.arange(40.0)[:, None])
    torch.manual_seed(0)
    one, two = draw_genes(genes, 0.25), draw_genes(genes, 0.25)
    assert len(one.rows) == len(two.rows) == 10
    assert torch.equal(one.observed[:, 0] + 100, one.rows.float())
    assert not torch.equal(one.rows, two.rows)
    assert len(draw_genes(genes, 0.001).rows) == 1
    assert torch.equal(draw_genes(genes, 7.0).rows, genes.rows)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["model.graph_layers=2"]])
def test_all_genes_with_all_neighbours_is_the_whole_graph(tiny_bundle, tmp_path, more):
    same = ["model.dropout=0", "model.head_dropout=0", *more]
    whole = fold(tiny_bundle, tmp_path / "a", *same).predictions["predicted"]
    parts = fold(tiny_bundle, tmp_path / "b", *same, "finetune.graph_genes=1000")
    np.testing.assert_allclose(parts.predictions["predicted"], whole, atol=1e-3)
    vectors = torch.randn(len(tiny_bundle.genes), len(parts.model.readout.centre))
    one, two = (
        predict_expression(parts.model, tiny_bundle, vectors=vectors, genes_at_once=size)
        for size in (None, 7)
    )
    np.testing.assert_allclose(one, two, atol=1e-4)


@pytest.mark.slow
def test_the_ablation_without_it_is_compared(tiny_bundle, tmp_path):
    settings = config(*FEW, MEASURED, "finetune.ablations=no_expression")
    table = finetune(tiny_bundle, settings, tmp_path / "predicted").predictions
    plain = finetune(tiny_bundle, config(*FEW), tmp_path / "plain").predictions
    by_model = {name: part["predicted"].to_numpy() for name, part in table.groupby("model")}
    np.testing.assert_array_equal(by_model["genesplice_no_expression"], plain["predicted"])
    assert not np.allclose(by_model["genesplice"], plain["predicted"])
    with pytest.raises(InputError, match="no_expression"):
        ablate_finetuning(tiny_bundle, config(), None, "no_expression", 0)


def test_neighbours_need_genes():
    with pytest.raises(InputError, match=r"finetune\.neighbours 3 with"):
        config("finetune.neighbours=3")

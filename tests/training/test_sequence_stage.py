"""An encoder that was not pre-trained learns expression from sequence alone."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_finetuning import config

from genesplice.data.simulate import make_control
from genesplice.errors import InputError
from genesplice.training.ablations import ablate_finetuning
from genesplice.training.finetuning import finetune_fold, make_model
from genesplice.training.folds import (
    NO_WINDOWS,
    FoldData,
    GeneTargets,
    GenomePasses,
    SequenceStage,
    epoch_steps,
)

pytestmark = pytest.mark.slow

TWO = "finetune.sequence_epochs=2"
ALONE = "finetune.head_steps=0", "finetune.epochs=0", "finetune.validation_blocks=0.3"


def test_it_finds_what_lies_in_promoters(tmp_path):
    control = make_control(tmp_path / "control", "promoter", 0, 12)
    settings = config(
        *ALONE, "finetune.sequence_epochs=40", "finetune.core_bp=98304",
        "model.composition=false", "model.dropout=0", "model.head_dropout=0",
        "finetune.checkpoint_minutes=100",
    )  # fmt: skip
    found = finetune_fold(control, settings, fold=0, seed=0, out=tmp_path / "run")
    rows = found.history[found.history["metric"] == "sequence_level_error"]
    errors = {split: part["value"].to_numpy() for split, part in rows.groupby("split")}
    assert errors["train"][0] == pytest.approx(1, abs=0.35)
    assert errors["val"].min() < 0.5
    # Nothing else took a step: the kernel path alone answers.
    assert found.model.mix.tolist() == [1.0, 1.0]
    assert not (tmp_path / "run" / "sequence").exists()


def test_the_heads_learn_after_it(tiny_bundle, tmp_path):
    settings = config("finetune.sequence_epochs=2", "finetune.epochs=1")
    found = finetune_fold(tiny_bundle, settings, fold=0, seed=0, out=tmp_path / "run")
    alone = 2 * epoch_steps(tiny_bundle.genome, settings.finetune)
    rows = found.history.groupby("metric")["step"].agg(["min", "max"])
    assert rows.loc["sequence_level_error"].tolist() == [0, alone]
    assert rows.loc["level_error", "min"] == alone


def test_the_heads_learn_from_what_it_left(tiny_bundle, tmp_path):
    ways = {"without": ("finetune.epochs=0",), "with": ("finetune.epochs=0", TWO)}
    found = {
        name: finetune_fold(tiny_bundle, config(*more), fold=0, seed=0, out=tmp_path / name)
        for name, more in ways.items()
    }
    encoders = [one.model.encoder.state_dict() for one in found.values()]
    assert any(not torch.equal(value, encoders[1][name]) for name, value in encoders[0].items())
    vectors = [one.vectors for one in found.values()]
    assert not torch.allclose(*vectors)
    # The scales are those of the vectors that the heads learned from.
    rows = tiny_bundle.genes["gene_id"].isin(tiny_bundle.train_genes(0)).to_numpy()
    assert found["with"].model.readout.standardise(vectors[1][rows]).mean(0).abs().max() < 1


def test_network_and_gene_sets_do_not_enter(tiny_bundle, tmp_path):
    settings = config(*ALONE, TWO)
    ablations = tiny_bundle, ablate_finetuning(tiny_bundle, settings, None, "sequence_only", 0)[0]
    one, other = (
        finetune_fold(bundle, settings, fold=0, seed=0, out=tmp_path / str(i))
        for i, bundle in enumerate(ablations)
    )
    assert torch.equal(one.vectors, other.vectors)
    assert not one.predictions["predicted"].equals(other.predictions["predicted"])


@pytest.mark.parametrize("n_genes", [8, 40])
def test_targets_are_scaled_as_features_are(tiny_bundle, n_genes):
    """With a map that is right for all genes the loss is 0, in large batches up to a shift."""
    settings = config(*ALONE, TWO, "finetune.profile_weight=0")
    model, generator = make_model(tiny_bundle, settings), torch.Generator().manual_seed(0)
    n_all, width = len(tiny_bundle.genes), sum(model.readout.parts.values())
    features = torch.randn(n_all, width, generator=generator)
    rows = torch.arange(0, n_all, 2)
    level = features[rows, 0]
    training = GeneTargets(rows, level[:, None] + torch.tensor([[-1.0, 0.0, 1.0]]))
    data = FoldData(training, training, training, np.zeros(0), pd.Index([]), pd.Index([]))
    passes = GenomePasses(tiny_bundle, settings.finetune, fold=0, seed=0)
    module = SequenceStage(model, settings, data, features, passes)
    # The highest genes: a batch that differs from the others.
    chosen = rows[level.argsort(descending=True)[:n_genes]]
    batch = NO_WINDOWS._replace(gene=chosen)
    model.gene_features = lambda *_: features[chosen]
    model.readout.fit(features[rows])
    spread = features[rows, 0].std() if n_genes < 16 else features[chosen, 0].std(correction=0)
    with torch.no_grad():
        module.head.level.weight[0, 0] = spread / level.std()
    assert module.training_step(batch, 0).item() == pytest.approx(0, abs=1e-5)


def test_a_window_without_training_genes_teaches_nothing(tmp_path):
    control = make_control(tmp_path / "control", "nothing", 0, 12)
    settings = config(*ALONE, "finetune.sequence_epochs=1", "finetune.core_bp=1024")
    passes = GenomePasses(control, settings.finetune, fold=0, seed=0)
    known = set(control.genes.index[control.genes["gene_id"].isin(control.train_genes(0))])
    assert any(not known & set(passes(step).gene.tolist()) for step in range(passes.steps))
    found = finetune_fold(control, settings, fold=0, seed=0, out=tmp_path / "run")
    assert all(torch.isfinite(value).all() for value in found.model.encoder.state_dict().values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("finetune.sequence_epochs=-1",), "sequence_epochs -1"),
        (("finetune.head_steps=0", "finetune.epochs=0"), "head_steps 0"),
        ((*ALONE, "finetune.sequence_epochs=2", "finetune.kernel=false"), "head_steps 0"),
        (
            ("finetune.mode=lora", "finetune.epochs=1", "finetune.sequence_epochs=2"),
            "mode lora with finetune.sequence_epochs 2",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        config(*settings)

"""An encoder that was not pre-trained learns expression from sequence alone."""

import pytest
import torch
from safetensors.torch import load_file
from test_finetuning import config

from genesplice.data.worlds import make_world
from genesplice.errors import InputError
from genesplice.training.finetuning import finetune_fold, make_model
from genesplice.training.passes import GenomePasses, epoch_steps

ALONE = "finetune.head_steps=0", "finetune.epochs=0", "finetune.validation_blocks=0.3"


def test_it_finds_what_lies_in_promoters(tmp_path):
    world = make_world(tmp_path / "world", "promoter", 0, 12)
    settings = config(
        *ALONE, "finetune.sequence_epochs=40", "finetune.core_bp=98304",
        "model.composition=false", "model.dropout=0", "model.head_dropout=0",
        "finetune.checkpoint_minutes=100",
    )  # fmt: skip
    found = finetune_fold(world, settings, fold=0, seed=0, out=tmp_path / "run")
    rows = found.history[found.history["metric"] == "sequence_level_error"]
    errors = {split: part["value"].to_numpy() for split, part in rows.groupby("split")}
    assert errors["train"][0] == pytest.approx(1, abs=0.35)
    assert errors["val"].min() < 0.5
    # Nothing else took a step: the kernel path alone answers.
    assert found.model.mix.tolist() == [1.0, 1.0]
    kept = load_file(tmp_path / "run" / "sequence" / "encoder.safetensors")
    assert all(torch.equal(value, kept[n]) for n, value in found.model.encoder.state_dict().items())


def test_the_heads_learn_after_it(tiny_bundle, tmp_path):
    settings = config("finetune.sequence_epochs=2", "finetune.epochs=1")
    found = finetune_fold(tiny_bundle, settings, fold=0, seed=0, out=tmp_path / "run")
    alone = 2 * epoch_steps(tiny_bundle.genome, settings.finetune)
    rows = found.history.groupby("metric")["step"].agg(["min", "max"])
    assert rows.loc["sequence_level_error"].tolist() == [0, alone]
    assert rows.loc["level_error", "min"] == alone
    torch.manual_seed(0)
    fresh = make_model(tiny_bundle, settings).encoder.state_dict()
    learned = load_file(tmp_path / "run" / "sequence" / "encoder.safetensors")
    assert any(not torch.equal(value, learned[name]) for name, value in fresh.items())


def test_a_window_without_training_genes_teaches_nothing(tmp_path):
    world = make_world(tmp_path / "world", "nothing", 0, 12)
    settings = config(*ALONE, "finetune.sequence_epochs=1", "finetune.core_bp=1024")
    passes = GenomePasses(world, settings.finetune, fold=0, seed=0)
    known = set(world.genes.index[world.genes["gene_id"].isin(world.train_genes(0))])
    assert any(not known & set(passes(step).gene.tolist()) for step in range(passes.steps))
    found = finetune_fold(world, settings, fold=0, seed=0, out=tmp_path / "run")
    assert all(torch.isfinite(value).all() for value in found.model.encoder.state_dict().values())


@pytest.mark.parametrize(
    ("settings", "told"),
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
def test_settings_that_contradict_each_other_are_refused(settings, told):
    with pytest.raises(InputError, match=told):
        config(*settings)

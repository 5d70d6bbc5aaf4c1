"""Every arm gets the same budget, is chosen by validation blocks and judged by held-out ones."""

import dataclasses

import pytest
import torch
from tiny_genomes import with_operons
from tiny_runs import config, with_other_blocks

from genesplice.errors import InputError
from genesplice.training.comparisons import compare_contrast, compare_schedules, trial_config
from genesplice.training.pretraining import pretrain, train_model
from genesplice.training.source import bundle_source


def short(*more):
    return trial_config(config("pretrain.probe_sites=20", *more), steps=3)


def test_the_constant_rate_has_as_many_trials_as_all_schedules_together(tiny_bundle):
    found = compare_schedules(
        tiny_bundle, short(), schedules=["cosine", "one_cycle"], rates=[30.0, 1e-3], n_windows=4
    )
    trials = found.trials.groupby("schedule")
    assert trials.size().to_dict() == {"constant": 4, "cosine": 2, "one_cycle": 2}
    assert set(trials["is_best"].sum()) == {1}
    null = trials.get_group("constant")["learning_rate"].to_numpy()
    assert null[1:] / null[:-1] == pytest.approx([30_000 ** (1 / 3)] * 3)
    assert (null[0], null[-1]) == pytest.approx((1e-3, 30))
    # Such a rate makes it worse.
    assert found.trials.loc[found.trials["is_best"], "learning_rate"].max() < 30
    by_name = {(m.model, m.metric): m for m in found.metrics}
    difference = by_name["cosine - constant", "bits_per_base_difference"]
    own, null = (by_name[name, "bits_per_base"].value for name in ("cosine", "constant"))
    assert difference.value == pytest.approx(own - null)
    assert {(m.fold, m.split) for m in found.metrics} == {(0, "test")}


def test_held_out_blocks_choose_nothing(tiny_bundle):
    settings = dict(schedules=["cosine"], rates=[1e-3], n_windows=2)
    honest = compare_schedules(tiny_bundle, short(), **settings)
    again = compare_schedules(with_other_blocks(tiny_bundle, [0]), short(), **settings)
    assert honest.trials.equals(again.trials)
    assert honest.metrics != again.metrics


def test_a_trial_is_a_run_without_a_folder(tiny_bundle, tmp_path):
    settings = config("pretrain.steps=3")
    model, history = train_model(bundle_source(tiny_bundle, 0), settings)
    whole = pretrain(tiny_bundle, settings, tmp_path / "out")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert history.equals(whole.history)


def test_contrast_is_judged_on_held_out_genes(tiny_bundle):
    metrics = compare_contrast(with_operons(tiny_bundle), short())
    names = {m.model for m in metrics}
    assert {"contrastive", "masked_only", "contrastive - masked_only"} <= names
    found = {m.metric for m in metrics if m.model == "contrastive - masked_only"}
    assert {"probe_mean_difference", "retrieval_at_10_difference"} <= found


def test_what_cannot_be_compared_is_refused(tiny_bundle):
    none = short("pretrain.holdout_fold=none")
    with pytest.raises(InputError, match="a fold to measure on"):
        compare_schedules(tiny_bundle, none, schedules=["cosine"], rates=[1e-3])
    with pytest.raises(InputError, match="0 rates"):
        compare_schedules(tiny_bundle, short(), schedules=["cosine"], rates=[])
    with pytest.raises(InputError, match="a weight above 0"):
        compare_contrast(tiny_bundle, short(), weight=0.0)
    plain = dataclasses.replace(short().pretrain, validation_blocks=0.0)
    with pytest.raises(InputError, match=r"validation_blocks 0\.0"):
        compare_schedules(
            tiny_bundle, dataclasses.replace(short(), pretrain=plain), schedules=[], rates=[1e-3]
        )

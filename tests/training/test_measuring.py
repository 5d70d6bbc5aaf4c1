"""What an encoder is measured by, on a genome with operons and RNA genes."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_genomes import with_operons
from tiny_runs import config, with_genome, with_other_blocks

from genesplice.errors import InputError
from genesplice.evaluate.probes import TASKS
from genesplice.training.corpus import bundle_source
from genesplice.training.evaluation import (
    make_untrained,
    measure,
    measure_bases,
    measure_expression,
    measure_vectors,
)
from genesplice.training.pretraining import pretrain

SETTINGS = ["pretrain.measure_windows=12", "pretrain.probe_sites=40"]


@pytest.fixture(scope="module")
def control(tiny_bundle):
    return with_operons(tiny_bundle)


def measured(bundle, model, settings):
    pretraining = settings.pretrain
    source = bundle_source(bundle, pretraining.holdout_fold, pretraining.validation_blocks)
    return {
        (m.model, m.metric): m for m in measure({"genesplice": model}, bundle, source, settings)
    }


@pytest.mark.slow
def test_everything_is_there_beside_its_ablation(control):
    settings = config(*SETTINGS, "pretrain.seed=3")
    found = measured(control, make_untrained(settings), settings)
    for name in ("genesplice", "count_one_sided", "count_two_sided"):
        for metric in ("bits_per_base", "masked_top_1"):
            assert (name, metric) in found
            assert (name, f"{metric}_coding") in found
            assert (name, f"{metric}_intergenic") in found
    tasks = {f"probe_{task}" for task in [*TASKS, "mean"]}
    for name in ("genesplice", "random_weights", "kmers", "one_hot"):
        # No terminus is known here.
        assert {m for n, m in found if n == name and "probe" in m} <= tasks - {"probe_replichore"}
        assert (name, "probe_frame") in found
    for metric in ("retrieval_at_1", "retrieval_at_10", "alignment", "uniformity"):
        for name in ("genesplice", "random_weights"):
            assert (name, metric) in found
    assert {(m.split, m.fold, m.seed) for m in found.values()} == {("test", 0, 3)}


@pytest.mark.slow
def test_an_untrained_model_is_no_better_than_its_ablation(control):
    settings = config(*SETTINGS)
    found = measured(control, make_untrained(settings), settings)
    differences = [m for (n, _), m in found.items() if n == "genesplice - random_weights"]
    assert {m.metric for m in differences} >= {
        "probe_mean_difference", "retrieval_at_10_difference"
    }  # fmt: skip
    assert all((m.value, m.ci_low, m.ci_high) == (0, 0, 0) for m in differences)


def test_the_ablation_is_the_same_every_time_and_takes_no_random_numbers():
    settings = config("pretrain.seed=5")
    state = torch.random.get_rng_state()
    one, two = (make_untrained(settings).state_dict() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    other = make_untrained(config("pretrain.seed=6")).state_dict()
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


def test_count_models_learn_from_training_blocks_only(control):
    settings = config(*SETTINGS)
    model = make_untrained(settings)

    def bits(bundle):
        found = measure_bases({"genesplice": model}, bundle, bundle_source(bundle, 0), settings)
        return {m.model: m.value for m in found if m.metric == "bits_per_base"}

    honest = bits(control)
    # Held-out blocks of one letter: who had counted them would tell them.
    tokens = np.array(control.genome.tokens)
    for block in control.blocks[control.blocks["fold"] == 0].itertuples():
        tokens[np.arange(block.start, block.end) % len(tokens)] = 0
    assert bits(with_genome(control, tokens))["count_two_sided"] > 1.5
    changed = bits(with_other_blocks(control, [1, 2, 3, 4]))
    assert changed["genesplice"] == honest["genesplice"]
    assert changed["count_one_sided"] != honest["count_one_sided"]


@pytest.mark.slow
def test_expression_is_told_from_frozen_vectors_by_training_genes(control):
    settings = config(*SETTINGS, "pretrain.measure_expression=true")
    models = {"genesplice": make_untrained(settings), "ablation": make_untrained(settings)}
    metrics = measure_expression(models, control, settings)
    found = {(m.model, m.metric): m for m in metrics if m.fold == 0}
    everywhere = {(m.model, m.metric): m for m in metrics if m.fold is None}
    assert len(found) + len(everywhere) == len(metrics)
    assert everywhere.keys() == found.keys()
    assert everywhere["genesplice", "level_r2"].n == len(control.observed)
    names = {"genesplice", "ablation", "kmers_and_codons"}
    assert {name for name, metric in found if metric == "profile_r"} == names
    assert found["genesplice", "level_r2"].n == len(control.test_genes(0))
    same = found["genesplice - ablation", "level_spearman_difference"]
    assert (same.value, same.ci_low, same.ci_high) == (0, 0, 0)
    assert found["genesplice - kmers_and_codons", "profile_r_difference"].value != 0
    # Labels of held-out genes say nothing but the score.
    expression = control.expression.copy()
    is_test = expression.var_names.isin(control.test_genes(0))
    expression.X[:, is_test] = expression.X[:, is_test] * -2 + 1
    other = dataclasses.replace(control, expression=expression)
    again = measure_expression(models, other, settings)
    turned = {(m.model, m.metric): m for m in again if m.fold == 0}
    for name in names:
        value = found[name, "level_spearman"].value
        assert turned[name, "level_spearman"].value == pytest.approx(-value, abs=1e-9)


def test_without_a_held_out_fold_there_are_bits_only(control):
    settings = config(*SETTINGS, "pretrain.holdout_fold=none")
    model = make_untrained(settings)
    found = measured(control, model, settings)
    assert {metric.split("_")[0] for _, metric in found} == {"bits", "masked"}
    assert {(m.split, m.fold) for m in found.values()} == {("train", None)}
    with pytest.raises(InputError, match=r"holdout_fold none, expected a fold to measure on"):
        measure_vectors({"genesplice": model}, control, settings)


@pytest.mark.slow
def test_what_a_genome_lacks_is_left_out(control):
    settings = config(*SETTINGS)
    splits = control.splits.assign(operon=control.splits["gene_id"])
    lonely = dataclasses.replace(control, splits=splits)
    found = measure_vectors({"genesplice": make_untrained(settings)}, lonely, settings)
    assert not any("retrieval" in m.metric or "operon" in m.metric for m in found)
    assert any(m.metric == "probe_coding" for m in found)


@pytest.mark.slow
def test_pretraining_ends_with_it_unless_told_otherwise(control, tmp_path):
    settings = config(*SETTINGS, "pretrain.measure=true", "pretrain.steps=1")
    result = pretrain(control, settings, tmp_path / "out")
    source = bundle_source(control, 0)
    assert result.metrics == measure({"genesplice": result.model}, control, source, settings)
    assert result.held_out == source.record
    bits = next(m for m in result.metrics if m.metric == "bits_per_base")
    assert np.isfinite(bits.value)
    plain = pretrain(control, config("pretrain.steps=1"), tmp_path / "plain")
    assert [m.metric for m in plain.metrics] == ["bits_per_base", "masked_top_1"]

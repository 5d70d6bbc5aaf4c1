"""Ablations of pre-training read the same bases, and differ in what they are named after."""

import numpy as np
import pytest
from tiny_genomes import with_operons
from tiny_runs import config

from genesplice.config.training import PretrainAblationName
from genesplice.errors import InputError
from genesplice.training.pretrain_ablations import make_ablation
from genesplice.training.pretraining import pretrain
from genesplice.training.source import bundle_source
from genesplice.training.views import StepMaker

NAMES = PretrainAblationName.__args__
SETTINGS = ["pretrain.measure_windows=12", "pretrain.probe_sites=40", "pretrain.measure=true"]
SETTINGS += ["pretrain.measure_expression=true"]


@pytest.fixture(scope="module")
def source(tiny_bundle):
    return bundle_source(tiny_bundle, 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_ablation_reads_as_many_bases(source, name):
    settings = config("pretrain.steps=300", "pretrain.views_every=3")
    _, ablation = make_ablation(source, settings, name)
    bases, wanted = (
        StepMaker(source, one).bases * one.pretrain.steps for one in (ablation, settings)
    )
    assert bases == pytest.approx(wanted, rel=0.01)
    assert ablation.pretrain.ablations == ()
    rate, peak = ablation.pretrain.learning_rate, settings.pretrain.learning_rate
    assert rate == peak if name != "constant_rate" else 0.4 * peak < rate < 0.7 * peak


def test_each_leaves_out_what_it_is_named_after(source):
    settings = config()
    made = {name: make_ablation(source, settings, name)[1] for name in NAMES}
    assert not made["masked_only"].pretrain.active_views
    assert made["constant_rate"].pretrain.schedule == "constant"
    assert {name: one.model.arch for name, one in made.items()} == {
        "masked_only": "hierarchical", "constant_rate": "hierarchical",
        "shuffled_genome": "hierarchical", "local_only": "hierarchical",
        "permuted_regions": "hierarchical", "kmer_tokens": "kmer_tokens",
        "dilated_cnn": "dilated_cnn",
    }  # fmt: skip
    other = ("local_only", "permuted_regions")
    assert {
        n: one.model.hierarchy for n, one in made.items() if one.model.hierarchy != "whole"
    } == {name: name for name in other}
    assert made["dilated_cnn"].model.width == settings.model.base_width
    same = [name for name in NAMES if name != "masked_only"]
    assert all(made[name].pretrain.active_views for name in same)


def test_a_shuffled_genome_keeps_dinucleotides_and_held_out_blocks(source):
    shuffled = make_ablation(source, config(), "shuffled_genome")[0].genome
    held_out = np.zeros(source.genome.length, bool)
    for _, start, end in source.held_out:
        held_out[np.arange(start, end) % source.genome.length] = True
    honest = np.array(source.genome.tokens)
    assert (shuffled.tokens[held_out] == honest[held_out]).all()
    assert (shuffled.tokens[~held_out] != honest[~held_out]).mean() > 0.5
    for _, start, end in source.training:
        rows = np.arange(start, end) % source.genome.length
        pairs = [
            np.bincount(tokens[rows[:-1]].astype(int) * 5 + tokens[rows[1:]], minlength=25)
            for tokens in (honest, shuffled.tokens)
        ]
        assert (pairs[0] == pairs[1]).all()


def test_ablations_are_trained_and_measured_beside_the_model(tiny_bundle, tmp_path):
    control, ablations = with_operons(tiny_bundle), ("kmer_tokens", "dilated_cnn")
    settings = config(*SETTINGS, f"pretrain.ablations={','.join(ablations)}", "pretrain.steps=2")
    first = pretrain(control, settings, tmp_path / "out")
    found = {(m.model, m.metric): m.value for m in first.metrics}
    for name in ablations:
        assert (tmp_path / "out" / "ablations" / name / "model.safetensors").exists()
        assert found[name, "bits_per_base"] != found["genesplice", "bits_per_base"]
        assert found[f"genesplice - {name}", "bits_per_base_difference"] == pytest.approx(
            found["genesplice", "bits_per_base"] - found[name, "bits_per_base"], abs=1e-9
        )
        assert (name, "probe_mean") in found
        assert (f"genesplice - {name}", "probe_mean_difference") in found
        assert (f"genesplice - {name}", "retrieval_at_10_difference") in found
        assert (f"genesplice - {name}", "profile_r_difference") in found
    assert ("genesplice - random_weights", "probe_mean_difference") in found
    # A finished run is read back, ablations too.
    again = pretrain(control, settings, tmp_path / "out", resume=True)
    assert again.metrics == first.metrics


def test_ablations_that_nobody_measures_are_refused():
    with pytest.raises(InputError, match="ablations where they are measured"):
        config("pretrain.ablations=masked_only")

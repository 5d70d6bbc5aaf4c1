"""Alignment columns of relatives as input: both strands, subsets, and what is hidden."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_genomes import with_columns
from tiny_models import SMALL, make_tiny, make_vectors
from tiny_runs import config
from tiny_variants import make_masked

import genesplice as gs
from genesplice.errors import InputError
from genesplice.model.genesplice import PretrainingModel, reverse_complement
from genesplice.model.sequence import MASK_TOKEN, InputChannels, reverse_columns
from genesplice.predict.expression import predict_expression
from genesplice.predict.gene_output import Explainer
from genesplice.predict.models import open_models
from genesplice.predict.pretrained import base_log_probabilities, encoder_features
from genesplice.training.batches import drop_relatives
from genesplice.training.corpus import for_genome
from genesplice.training.finetuning import finetune
from genesplice.training.pretraining import pretrain
from genesplice.variants.alleles import Allele
from genesplice.variants.levels import LevelModel, Levels
from genesplice.variants.likelihood import Hidden, MaskedBases, allele_likelihoods

RELATIVES = "model.relatives=true"


@pytest.fixture(scope="module")
def bundle(tiny_bundle):
    return with_columns(tiny_bundle)


@pytest.fixture(scope="module")
def masked():
    torch.manual_seed(0)
    model = PretrainingModel(gs.override(gs.load_preset("quick"), [*SMALL, RELATIVES]).model, 8)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def window(bundle, start=3072, length=2048):
    interval = "chr", start, start + length
    parts = bundle.genome.fetch(*interval), bundle.genome.fetch_columns(*interval)
    return [torch.from_numpy(part)[None] for part in parts]


def test_channels_are_shares_of_the_aligned_and_how_many_they_are():
    columns = torch.tensor([[[[3, 0, 0, 1, 0], [0, 0, 0, 0, 2], [0, 0, 0, 0, 0]]]]).to(torch.uint8)
    tokens = torch.full((1, 1), MASK_TOKEN, dtype=torch.uint8)
    channels = InputChannels(relatives=True)(tokens, columns=columns)[0, 0]
    near, middle, far = [0.75, 0, 0, 0.25, 0, 0.8], [0, 0, 0, 0, 1, 2 / 3], [0.0] * 6
    wanted = torch.tensor([0.0] * 4 + near + middle + far)
    torch.testing.assert_close(channels, wanted)


def test_the_other_strand_is_that_of_the_genome(bundle):
    interval = "chr", 3072, 5120
    forward, backward = (bundle.genome.fetch_columns(*interval, strand) for strand in "+-")
    found = reverse_columns(torch.from_numpy(forward)[None])[0]
    assert torch.equal(found, torch.from_numpy(backward))


def test_none_at_all_is_the_same_as_nothing_aligned(masked, bundle):
    tokens, columns = window(bundle)
    with torch.no_grad():
        without = masked.encode(tokens).bins
        assert torch.equal(masked.encode(tokens, torch.zeros_like(columns)).bins, without)
        assert torch.equal(masked.encode(tokens, columns[:, :, :0]).bins, without)
        assert torch.equal(masked.reading().encode(tokens, columns).bins, without)
        everything = masked.encode(tokens, columns).bins
        assert not torch.allclose(everything, without)
        far = columns.clone()
        far[:, :, :2] = 0
        assert torch.equal(masked.reading(2).encode(tokens, columns).bins,
                           masked.encode(tokens, far).bins)  # fmt: skip
        assert torch.equal(masked.encode(tokens, columns).bins, everything)


def test_the_answer_is_the_same_on_either_strand(masked, bundle):
    tokens, columns = window(bundle)
    with torch.no_grad():
        here = base_log_probabilities(masked, tokens, columns, is_strand_averaged=True)
        there = base_log_probabilities(
            masked, reverse_complement(tokens), reverse_columns(columns), is_strand_averaged=True
        )
    torch.testing.assert_close(there.flip(1, 2), here, atol=1e-4, rtol=1e-4)


def test_genes_are_the_same_from_the_other_strand(bundle):
    model = make_tiny(bundle, RELATIVES)
    tokens, columns = window(bundle, 1024, 8192)
    phase = torch.zeros(1, 2, 8192, dtype=torch.uint8)
    row, strand = torch.zeros(2, dtype=torch.long), torch.tensor([1, -1], dtype=torch.int8)
    start, end = torch.tensor([1200, 3001]), torch.tensor([2300, 4444])
    with torch.no_grad():
        vectors = model.gene_features(tokens, phase, row, start, end, strand, columns=columns)
        mirrored = model.gene_features(
            reverse_complement(tokens), phase, row, 8192 - end, 8192 - start, -strand,
            columns=reverse_columns(columns),
        )  # fmt: skip
        without = model.gene_features(tokens, phase, row, start, end, strand)
    torch.testing.assert_close(mirrored, vectors, atol=1e-4, rtol=1e-3)
    assert float((without - vectors).abs().max()) > 1e-3


def test_probes_read_the_columns(masked, bundle):
    genes = bundle.genes.head(6)
    sites = genes[["contig", "strand"]].assign(position=genes["tss"])
    plain = dataclasses.replace(bundle.genome, columns=None)
    with_them = encoder_features(masked.encoder, bundle, sites)
    without = encoder_features(masked.encoder, dataclasses.replace(bundle, genome=plain), sites)
    alone = encoder_features(masked.reading().encoder, bundle, sites)
    assert np.abs(with_them - without).max() > 1e-3
    np.testing.assert_array_equal(alone, without)


def test_a_window_encoded_once_gives_what_whole_passes_give(masked, bundle):
    tokens, columns = (part[0].numpy() for part in window(bundle))
    rows = [Hidden(tokens, np.arange(at, at + 2), columns) for at in (700, 701, 1400)]
    score = MaskedBases(masked)
    alone = [score([row])[0] for row in rows]
    for one, two in zip(score(rows), alone, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)


@pytest.mark.slow
def test_the_ratio_reads_all_relatives_some_or_none(masked, bundle):
    tokens, columns = (part[0].numpy() for part in window(bundle))
    far = columns.copy()
    far[:, :-1] = 0

    def read(relatives, columns=columns):
        (found,) = MaskedBases(masked, relatives)([Hidden(tokens, np.arange(700, 703), columns)])
        return found

    np.testing.assert_allclose(read("none"), read("all", columns[:, :0]), atol=1e-5)
    np.testing.assert_allclose(read("far"), read("all", far), atol=1e-5)
    np.testing.assert_allclose(read("added"), read("all") - read("none"), atol=1e-5)
    assert all(np.abs(read("all") - read(other)).max() > 1e-4 for other in ("far", "none"))
    with pytest.raises(InputError, match="relatives added, and a model that reads none, expected"):
        MaskedBases(make_masked(), "added")


@pytest.mark.slow
def test_ratios_of_both_strands_read_the_columns(masked, bundle):
    genome, score = bundle.genome, MaskedBases(masked)
    ref = genome.fetch("chr", 5000, 5001)
    new = (ref + 1) % 4
    inserted, nothing = np.array([0, 2, 1], np.uint8), np.zeros(0, np.uint8)
    alleles = [
        Allele("chr", 5000, ref, new),
        Allele("chr", 5000, nothing, inserted),
        Allele("chr", 5000, genome.fetch("chr", 5000, 5003), nothing),
    ]
    plain = dataclasses.replace(genome, columns=None)
    with_them, without = (allele_likelihoods(score, g, alleles) for g in (genome, plain))
    for one, two in zip(with_them, without, strict=True):
        assert abs(one.mean - two.mean) > 1e-4


def test_levels_of_a_substitution_are_what_the_explainer_says(bundle):
    model = make_tiny(bundle, RELATIVES)
    vectors = make_vectors(model, bundle, seed=3)
    levels = Levels([LevelModel(model, bundle, gene_features=vectors)], bundle)
    ref = bundle.genome.fetch("chr", 5000, 5001)
    allele = Allele("chr", 5000, ref, (ref + 2) % 4)
    explainer = Explainer(model, bundle, window_bp=4096, vectors=vectors)
    found = levels([allele])[0]
    assert found
    for change, (row, tss) in zip(found, levels.genes_around(allele), strict=True):
        tokens, phase, columns = levels.sequence(
            5000 // 1024 * 1024 - 1024, "+" if levels.is_plus[row] else "-", allele.undone, False
        )[:3]
        low = 5000 // 1024 * 1024 - 1024
        (start, end), *exons = levels.edges(row, tss, low, allele.undone, False)
        own = explainer.window(change.gene_id)._replace(
            tokens=torch.from_numpy(tokens)[None], phase=torch.from_numpy(phase)[None],
            columns=torch.from_numpy(columns)[None], start=start, end=end,
            exons=torch.tensor(exons),
        )  # fmt: skip
        function = explainer.forward_function(own)
        with torch.no_grad():
            level = float(function(function.bases))
        assert change.levels[0] == pytest.approx(level, abs=1e-4)


def test_the_gradient_of_a_prediction_reaches_bases_and_columns(bundle):
    model = make_tiny(bundle, RELATIVES)
    explainer = Explainer(model, bundle, window_bp=4096, vectors=make_vectors(model, bundle))
    function = explainer.forward_function(bundle.genes["gene_id"].iloc[3])
    assert function.annotation.shape[2] == 18
    function.annotation.requires_grad_()
    function(function.bases).sum().backward()
    assert float(function.annotation.grad.abs().max()) > 0


def test_relatives_are_left_out_by_group_in_part_and_altogether():
    columns = torch.full((400, 64, 3, 5), 6, dtype=torch.uint8)
    assert torch.equal(drop_relatives(columns, 0.0, np.random.default_rng(0)), columns)
    kept = drop_relatives(columns, 0.3, np.random.default_rng(0)).float().mean((1, 3)) / 6
    assert float(kept.max()) <= 1
    is_gone = (kept == 0).float().mean()
    assert 0.47 < float(is_gone) < 0.55  # 1 - 0.7 * 0.7
    assert 0.3 < float((kept == 0).all(1).float().mean()) < 0.36  # 0.3 + 0.7 * 0.3 ** 3
    assert 0.1 < float(((kept > 0) & (kept < 1)).float().mean()) < 0.2  # 0.49 * 0.3


@pytest.mark.slow
def test_masked_bases_are_learned_from_columns_and_the_model_serves_without(tiny_bundle, tmp_path):
    # Random bases: nothing but the columns says what is hidden.
    genome = tiny_bundle.genome
    tokens = np.random.default_rng(0).integers(0, 4, genome.length).astype(np.uint8)
    columns = np.zeros((3, genome.length, 5), np.uint8)
    columns[1, np.arange(genome.length), tokens] = 4
    known = dataclasses.replace(genome, tokens=tokens, columns=columns)
    read = dataclasses.replace(tiny_bundle, genome=known)
    settings = config(
        "pretrain.steps=150", "pretrain.learning_rate=0.02", "pretrain.batch_windows=1",
        "model.dropout=0", "pretrain.contrastive_weight=0", "pretrain.relatives_dropped=0.1",
        "model.base_width=16", RELATIVES,
    )  # fmt: skip
    metrics = pretrain(read, settings, tmp_path / "out").metrics
    bits = {m.model: m.value for m in metrics if m.metric == "bits_per_base"}
    assert bits["genesplice"] < 0.3
    assert bits["genome_alone"] > 1.9
    assert bits["far_relatives"] > 1.9


@pytest.mark.slow
def test_settings_read_relatives_where_there_are_any(bundle, tiny_bundle, tmp_path):
    asked = config(RELATIVES)
    plain = tiny_bundle.genome
    assert for_genome(asked, bundle.genome) is asked
    assert not for_genome(asked, plain).model.relatives
    # An encoder that has learned with relatives reads that there are none.
    for name, init in (("with", asked), ("without", config())):
        pretrain(bundle, init, tmp_path / name)
        found = for_genome(asked, plain, tmp_path / name)
        assert found.model.relatives == (name == "with")


@pytest.mark.slow
def test_a_fold_is_finetuned_with_and_without_the_columns(bundle, tmp_path):
    settings = config(
        RELATIVES, "model.base_width=0", "finetune.core_bp=65536", "finetune.flank_bp=1024",
        "finetune.head_steps=4",
        "finetune.ablations=exchanged_relatives,far_relatives,no_relatives",
    )  # fmt: skip
    pretrain(bundle, settings, tmp_path / "init")
    found = finetune(bundle, settings, tmp_path / "out", init=tmp_path / "init").predictions
    by_model = {
        name: part.set_index(["gene_id", "condition"])["predicted"]
        for name, part in found.groupby("model")
    }
    assert set(by_model) == {
        "genesplice", "genesplice_exchanged_relatives", "genesplice_far_relatives",
        "genesplice_no_relatives",
    }  # fmt: skip
    for name, values in by_model.items():
        assert np.isfinite(values).all()
        if name != "genesplice":
            assert float((values - by_model["genesplice"]).abs().max()) > 1e-4
    explained = explain_with(tmp_path / "out", bundle)
    assert np.isfinite(explained).all()


def explain_with(folder, bundle):
    """What a fold predicts of its genes when it is read back."""
    models = open_models(folder)
    return predict_expression(models.levels[0], bundle).to_numpy()

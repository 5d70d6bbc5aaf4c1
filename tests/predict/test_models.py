"""Which model predicts which gene, and whose genome a model was trained on."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from tiny_models import make_tiny

import genesplice as gs
from genesplice.data.genome import Contig, Genome
from genesplice.data.knowledge import keep_genome, trained_on
from genesplice.errors import InputError
from genesplice.explain.attention import attention_of
from genesplice.explain.attribution import EnsembleExplainer
from genesplice.explain.faithfulness import explain_genes
from genesplice.explain.mutagenesis import mutate
from genesplice.predict.expression import predict_expression
from genesplice.predict.gene_output import Explainer
from genesplice.predict.models import Models, load_fold, open_models

pytestmark = pytest.mark.slow

NAMES = ("fold0_seed0", "fold0_seed1", "fold1_seed0", "fold10_seed0")


@pytest.fixture(scope="module")
def run(tiny_bundle, tmp_path_factory):
    """What finetune leaves of folds 0 (two seeds), 1 and 10, and one fold that was not finished."""
    out = tmp_path_factory.mktemp("run")
    for seed, name in enumerate(NAMES):
        make_tiny(tiny_bundle, seed=seed).save_pretrained(out / name)
        (out / name / "inputs.json").write_text(json.dumps(tiny_bundle.data_sha256))
        keep_genome(out / name, tiny_bundle.genome)
    (out / "fold2_seed0").mkdir()
    return out


@pytest.fixture(scope="module")
def models(run):
    return open_models(run)


@pytest.fixture(scope="module")
def apart(run, tiny_bundle):
    """What each model predicts alone."""
    return [predict_expression(load_fold(run / name), tiny_bundle) for name in NAMES]


def other_genome(genome: Genome) -> Genome:
    tokens = np.array(genome.tokens)
    tokens[5] = (tokens[5] + 1) % 4
    return dataclasses.replace(genome, tokens=tokens)


def test_a_run_is_opened_with_all_folds_in_order(run, models):
    assert [path.name for path in models.level_paths] == list(NAMES)
    assert isinstance(gs.load_model(run), Models)
    alone = gs.load_model(run / NAMES[2])
    assert alone.cache_folder == run.resolve() / "vectors"
    assert isinstance(gs.load_model(str(run)), Models)


def test_held_out_genes_are_predicted_by_models_that_held_them_out(models, apart, tiny_bundle):
    found = predict_expression(models, tiny_bundle)
    assert found.index.tolist() == tiny_bundle.genes["gene_id"].tolist()
    wanted = sum(apart) / 4
    fold0, fold1 = tiny_bundle.test_genes(0), tiny_bundle.test_genes(1)
    wanted.loc[fold0] = (apart[0].loc[fold0] + apart[1].loc[fold0]) / 2
    wanted.loc[fold1] = apart[2].loc[fold1]
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-4)
    sentence = models.describe(tiny_bundle)
    n_own = len(fold0) + len(fold1)
    assert (
        f"4 models (fold0_seed0, fold0_seed1, fold1_seed0, …): {n_own} genes by those" in sentence
    )
    assert f"{len(tiny_bundle.genes) - n_own} genes by the mean of all 4" in sentence


def test_with_other_folds_no_gene_counts_as_held_out(models, apart, tiny_bundle):
    files = {**tiny_bundle.manifest["files"], "splits.parquet": "other"}
    other = dataclasses.replace(tiny_bundle, manifest={**tiny_bundle.manifest, "files": files})
    assert models.held_out_by(other) == {}
    found = predict_expression(models, other)
    pd.testing.assert_frame_equal(found, sum(apart) / 4, rtol=1e-4)
    assert models.of_gene(other, tiny_bundle.test_genes(1)[0]).levels == models.levels


def test_one_gene_has_its_own_models(models, tiny_bundle):
    (gene, *_), (other, *_) = tiny_bundle.test_genes(0), tiny_bundle.test_genes(2)
    own = models.of_gene(tiny_bundle, gene)
    assert [path.name for path in own.level_paths] == ["fold0_seed0", "fold0_seed1"]
    assert own.levels == models.levels[:2]
    assert len(models.of_gene(tiny_bundle, other).levels) == 4


def test_attributions_of_an_ensemble_are_the_mean(models, tiny_bundle):
    gene = tiny_bundle.test_genes(0)[0]
    both = EnsembleExplainer(models, tiny_bundle, [gene], window_bp=2048)
    each = [Explainer(one, tiny_bundle, window_bp=2048) for one in models.levels[:2]]
    assert len(both.parts) == 2
    found, *single = (
        explain_genes(one, [gene], steps=4, is_checked=False).table["value"].to_numpy()
        for one in (both, *each)
    )
    np.testing.assert_allclose(found, (single[0] + single[1]) / 2, atol=1e-5)
    assert np.abs(single[0] - single[1]).max() > 1e-3
    span = {"upstream_bp": 6, "downstream_bp": 3}
    mean, *single = (mutate(one, gene, **span) for one in (both, *each))
    np.testing.assert_allclose(mean.effects, (single[0].effects + single[1].effects) / 2, atol=1e-6)
    assert mean.output == pytest.approx((single[0].output + single[1].output) / 2, abs=1e-5)
    checked = explain_genes(both, [gene], steps=2)
    assert checked.checks is not None
    assert checked.checks["random_spearman"].between(0, 1).all()


def test_a_gene_of_one_model_and_attention_of_the_first(models, tiny_bundle):
    genes = [tiny_bundle.test_genes(fold)[0] for fold in (1, 0)]
    explainer = EnsembleExplainer(models, tiny_bundle, genes, window_bp=2048)
    assert [len(explainer.of(gene)) for gene in genes] == [1, 2]
    assert explainer.of(genes[0])[0].model is models.levels[2]
    found = attention_of(explainer, genes).heads
    for gene, model in zip(genes, (models.levels[2], models.levels[0]), strict=True):
        alone = attention_of(Explainer(model, tiny_bundle, window_bp=2048), [gene]).heads
        mine = found[found["gene_id"] == gene].reset_index(drop=True)
        pd.testing.assert_frame_equal(mine, alone)


def test_a_model_of_another_genome_is_refused(models, run, tiny_bundle):
    other = dataclasses.replace(tiny_bundle, genome=other_genome(tiny_bundle.genome))
    with pytest.raises(InputError, match=r"a model of another genome, .* --other-genome"):
        models.adopt(other)
    bundle, said = models.adopt(other, is_other_allowed=True)
    assert bundle is other
    assert sum("is a model of" in line for line in said) == 4
    assert any("only what is read from sequence carries over" in line for line in said)
    same, said = models.adopt(tiny_bundle)
    assert same is tiny_bundle
    assert said == [models.describe(tiny_bundle)]


def test_the_genome_is_known_by_its_bases(tmp_path):
    tokens = np.random.default_rng(0).integers(0, 4, 900).astype(np.uint8)
    contigs = (Contig("a", 0, 600, False), Contig("b", 600, 300, True))
    genome = Genome(tokens, contigs)
    assert trained_on(tmp_path, genome) is None
    keep_genome(tmp_path, genome)
    assert trained_on(tmp_path, genome) == ""
    swapped = np.concatenate([tokens[600:], tokens[:600]])
    renamed = Genome(swapped, (Contig("2", 0, 300, False), Contig("1", 300, 600, False)))
    assert trained_on(tmp_path, renamed) == ""
    assert trained_on(tmp_path, Genome(tokens[:600], contigs[:1])) == ""
    assert trained_on(tmp_path, other_genome(genome)) == "a and 1 more (900 bp)"
    assert trained_on(tmp_path, Genome(tokens, (Contig("a", 0, 900, False),)))


def test_folders_that_say_nothing_of_a_genome_are_told(tiny_bundle, tmp_path):
    make_tiny(tiny_bundle).save_pretrained(tmp_path / "m")
    _, said = open_models(tmp_path / "m", needs="expression").adopt(tiny_bundle)
    assert f"{tmp_path / 'm'} does not say which genome it was trained on" in said
    assert "one model, m: it held 0 of" in said[-1]


def test_what_is_needed_is_asked_for(run, tmp_path):
    with pytest.raises(InputError, match="no masked-base model"):
        open_models(run, needs="masked bases")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="no expression model"):
        open_models(tmp_path, needs="expression")

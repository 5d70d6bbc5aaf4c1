"""Bundles: what is written comes back, and a folder is a whole bundle or none."""

import json
import shutil
import time

import numpy as np
import pandas as pd
import pytest

from genesplice.data.bundle import FILES, BundleParts, load_bundle, write_bundle
from genesplice.data.genome import Contig, Genome
from genesplice.errors import InputError
from genesplice.runtime import file_sha256


def parts_of(bundle, **changes) -> BundleParts:
    """The parts of a bundle, to write it again."""
    parts = BundleParts(
        name=bundle.name,
        genome=bundle.genome,
        genes=bundle.genes,
        expression=bundle.expression,
        network=bundle.network,
        gene_sets=bundle.gene_sets,
        motifs=bundle.motifs,
        operons={},
        inputs=[{"name": "reads.tsv", "sha256": "ab12"}],
        notes=["a note"],
        gene_set_evidence="planted",
    )
    return parts._replace(**changes)


def written(bundle, out, overwrite=False, changes=None, **kwargs):
    parts = parts_of(bundle, **(changes or {}))
    kwargs = {"block_bp": 8000} | kwargs
    return write_bundle(
        parts, out, command="test", started=time.monotonic(), overwrite=overwrite, **kwargs
    )


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle.path, tmp_path / "copy")


# --- what comes back ---


def test_bundle_gives_back_what_was_written(tiny_bundle, tmp_path):
    got = written(tiny_bundle, tmp_path / "new")
    assert np.array_equal(got.genome.tokens, tiny_bundle.genome.tokens)
    assert got.genome.contigs == tiny_bundle.genome.contigs
    pd.testing.assert_frame_equal(got.genes, tiny_bundle.genes)
    pd.testing.assert_frame_equal(got.network, tiny_bundle.network)
    pd.testing.assert_frame_equal(got.expression.to_df(), tiny_bundle.expression.to_df())
    assert got.expression.obs["condition"].tolist() == (
        tiny_bundle.expression.obs["condition"].tolist()
    )
    assert got.gene_sets == tiny_bundle.gene_sets
    assert list(got.motifs) == list(tiny_bundle.motifs)
    assert sorted(path.name for path in got.path.iterdir()) == sorted([*FILES, "manifest.json"])


def test_circles_and_soft_masks_survive(tiny_bundle, tmp_path):
    contigs = (Contig("chr", 0, 100_000, True), Contig("plasmid", 100_000, 20_000, False))
    genes = tiny_bundle.genes.query("end <= 100_000")
    masked = np.array([[5, 9], [100_003, 100_007]])
    got = written(
        tiny_bundle,
        tmp_path / "new",
        changes={
            "genome": Genome(tiny_bundle.genome.tokens, contigs, masked),
            "genes": genes,
            "expression": tiny_bundle.expression[:, genes["gene_id"]].copy(),
        },
    )
    assert got.genome.contigs == contigs
    assert got.genome.soft_masked.tolist() == masked.tolist()


def test_bundle_without_network_sets_and_motifs_is_a_bundle(tiny_bundle, tmp_path):
    nothing = {"network": tiny_bundle.network[:0], "gene_sets": {}, "motifs": {}}
    got = written(tiny_bundle, tmp_path / "new", changes=nothing)
    assert (len(got.network), got.gene_sets, got.motifs) == (0, {}, {})
    assert got.manifest["counts"]["edges"] == got.manifest["counts"]["regulators"] == 0


def test_genome_is_a_memory_map_that_cannot_be_written_to(tiny_bundle):
    assert isinstance(tiny_bundle.genome.tokens, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        tiny_bundle.genome.tokens[0] = 1


def test_bundle_may_be_given_as_text(tiny_bundle):
    assert load_bundle(str(tiny_bundle.path)).name == tiny_bundle.name


# --- folds ---


def test_every_measured_gene_is_tested_once_and_never_trained_on(tiny_bundle):
    measured = tiny_bundle.expression.var_names
    tested = []
    for fold in range(tiny_bundle.n_folds):
        test, train = tiny_bundle.test_genes(fold), tiny_bundle.train_genes(fold)
        assert not set(test) & set(train)
        assert set(test) | set(train) == set(measured)
        assert (tiny_bundle.fold_of[test] == fold).all()
        assert train.tolist() == [gene for gene in measured if gene in set(train)]
        tested += test.tolist()
    assert sorted(tested) == sorted(measured)
    assert tiny_bundle.n_folds == 5


def test_folds_cover_unmeasured_genes_but_are_not_tested_on_them(tiny_bundle):
    unmeasured = set(tiny_bundle.genes["gene_id"]) - set(tiny_bundle.expression.var_names)
    assert len(unmeasured) == 1
    assert unmeasured < set(tiny_bundle.fold_of.index)
    for fold in range(5):
        assert not unmeasured & set(tiny_bundle.test_genes(fold))


@pytest.mark.parametrize("fold", [-1, 5])
def test_there_is_no_such_fold(tiny_bundle, fold):
    for genes in (tiny_bundle.test_genes, tiny_bundle.train_genes):
        with pytest.raises(InputError, match=f"fold {fold}, expected 0 to 4"):
            genes(fold)


def test_observed_is_the_mean_over_replicates(tiny_bundle):
    data = tiny_bundle.expression
    assert tiny_bundle.observed.shape == (data.n_vars, data.obs["condition"].nunique())
    condition, gene = tiny_bundle.observed.columns[3], data.var_names[5]
    mine = (data.obs["condition"] == condition).to_numpy()
    assert mine.sum() == 2
    by_hand = data[mine, gene].X.astype(float).mean()
    assert tiny_bundle.observed.loc[gene, condition] == pytest.approx(by_hand)


def test_same_seed_same_folds(tiny_bundle, tmp_path):
    one, two, other = (
        written(tiny_bundle, tmp_path / f"b{i}", seed=seed) for i, seed in enumerate((1, 1, 2))
    )
    assert one.data_sha256 == two.data_sha256
    assert one.data_sha256["splits.parquet"] != other.data_sha256["splits.parquet"]
    assert one.data_sha256["genome.npy"] == other.data_sha256["genome.npy"]


# --- manifest ---


def test_manifest_says_how_to_make_it_again(tiny_bundle, tmp_path):
    got = written(tiny_bundle, tmp_path / "new", n_folds=3, seed=7)
    manifest = json.loads((got.path / "manifest.json").read_text())
    assert manifest == got.manifest
    assert manifest["config"] == {"block_bp": 8000, "n_folds": 3}
    assert manifest["seeds"] == {"folds": 7}
    assert manifest["data_sha256"] == {"reads.tsv": "ab12"}
    assert manifest["notes"] == ["a note"]
    assert (manifest["format"], manifest["format_version"]) == ("genesplice-bundle", 2)
    assert manifest["counts"] == {
        "contigs": 1, "bases": 120_000, "genes": 60, "measured_genes": 59, "samples": 16,
        "deleted_measurements": 0,
        "conditions": 8, "edges": 15, "regulators": 2, "gene_sets": 3, "motifs": 2,
        "relatives": 0, "tracks": 0, "blocks": len(got.blocks), "folds": 3,
    }  # fmt: skip


def test_manifest_has_the_checksum_of_every_file(tiny_bundle):
    assert set(tiny_bundle.data_sha256) == set(FILES)
    for name, digest in tiny_bundle.data_sha256.items():
        assert file_sha256(tiny_bundle.path / name) == digest


# --- whole or not there ---


def test_folder_that_is_not_empty_is_kept(tiny_bundle, tmp_path):
    out = tmp_path / "taken"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"taken exists and is not empty, expected a new folder"):
        written(tiny_bundle, out)
    with pytest.raises(InputError, match=r"taken exists, and genesplice did not write it"):
        written(tiny_bundle, out, overwrite=True)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    (out / "mine.txt").unlink()
    written(tiny_bundle, out)
    (out / "more.txt").touch()
    assert written(tiny_bundle, out, overwrite=True).name == "synthetic"
    assert not (out / "more.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_file_in_the_place_of_the_folder_is_kept(tiny_bundle, tmp_path):
    out = tmp_path / "taken"
    out.write_text("mine")
    with pytest.raises(InputError, match=r"taken is a file, expected a folder to write to"):
        written(tiny_bundle, out, overwrite=True)
    assert out.read_text() == "mine"


def test_empty_folder_is_written_to(tiny_bundle, tmp_path):
    (tmp_path / "new").mkdir()
    assert written(tiny_bundle, tmp_path / "new").n_folds == 5


def test_failed_work_leaves_nothing_and_keeps_what_was_there(tiny_bundle, tmp_path):
    out = tmp_path / "new"
    with pytest.raises(InputError, match="blocks with genes"):
        written(tiny_bundle, out, block_bp=100_000)
    assert list(tmp_path.iterdir()) == []
    first = written(tiny_bundle, out)
    with pytest.raises(InputError, match="blocks with genes"):
        written(tiny_bundle, out, overwrite=True, block_bp=100_000)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert load_bundle(out).data_sha256 == first.data_sha256


def test_interrupted_writing_leaves_nothing(tiny_bundle, tmp_path):
    def interrupt(text):
        if text == "writing the bundle":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(tiny_bundle, tmp_path / "new", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_motif_that_cannot_be_written_leaves_nothing(tiny_bundle, tmp_path):
    with pytest.raises(TypeError):
        written(tiny_bundle, tmp_path / "new", changes={"motifs": {"m": None}})
    assert list(tmp_path.iterdir()) == []


def test_measured_gene_without_annotation_is_refused(tiny_bundle, tmp_path):
    genes = tiny_bundle.genes.query("gene_id != 'g0007'")
    with pytest.raises(InputError, match="measured gene 'g0007' without annotation"):
        written(tiny_bundle, tmp_path / "new", changes={"genes": genes})
    assert list(tmp_path.iterdir()) == []


# --- what is no bundle ---


@pytest.mark.parametrize("name", FILES)
def test_incomplete_bundle_is_refused(copy, name):
    (copy / name).unlink()
    with pytest.raises(InputError, match=rf"copy: found no {name}, expected a complete bundle"):
        load_bundle(copy)


@pytest.mark.parametrize("name", [name for name in FILES if name != "gene_sets.gmt"])
def test_half_copied_bundle_is_refused(copy, name):
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"copy: found a damaged {name}, expected a whole bundle"):
        load_bundle(copy)

"""Variants through tracks: against written-out passes, on both strands, in files, and refused."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import call
from safetensors.torch import save_file
from tiny_files import random_genome
from tiny_variants import letters, line, other, snv, write_lines

import genesplice as gs
from genesplice.config import load_preset, override
from genesplice.data.genome import Contig, Genome, reverse_complement
from genesplice.data.knowledge import keep_genome
from genesplice.errors import InputError
from genesplice.model.genesplice import make_encoder
from genesplice.model.heads import TrackModel
from genesplice.predict.models import load_tracks
from genesplice.variants.alleles import Allele, normalise
from genesplice.variants.levels import TrackChanges

ROWS = [
    {"name": "chip", "kind": "coverage", "strand": "+"},
    {"name": "chip", "kind": "coverage", "strand": "-"},
    {"name": "peaks", "kind": "peaks", "strand": "."},
]
W = 4096


def save_run(folder, genome, *, folds=2, with_encoder=True):
    """A folder as `finetune --tracks` leaves it, with weights that answer to what is read."""
    sizes = ("model.width=16", "model.heads=2", "model.base_width=0", "model.relatives=false")
    config = override(load_preset("quick"), sizes)
    for fold in range(folds):
        torch.manual_seed(fold)
        encoder = make_encoder(config.model) if with_encoder else None
        model = TrackModel(encoder, torch.tensor([row["kind"] == "peaks" for row in ROWS]))
        torch.nn.init.normal_(model.head.out.weight)
        path = folder / f"fold{fold}_seed0"
        path.mkdir(parents=True)
        (path / "run.json").write_text(json.dumps(config.to_dict()))
        (path / "tracks.json").write_text(json.dumps({"tracks": ROWS, "means": [1, 1, 1]}))
        save_file({k: v.contiguous() for k, v in model.state_dict().items()},
                  path / "model.safetensors")  # fmt: skip
        keep_genome(path, genome)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_bundle):
    return save_run(tmp_path_factory.mktemp("tracks") / "run", tiny_bundle.genome)


def spelt_out(found, before, after, low, allele):
    """The change by whole passes: sums over bins of each model, the mean of both strands."""
    lowest, highest = allele.start - 512 - low, allele.end + 512 - low
    bins = [b for b in range(W // 128) if 128 * b < highest and 128 * (b + 1) > lowest]
    changes = []
    for model in found.models:
        sums = []
        for tokens in (before, after):
            strands = []
            for one in (tokens, reverse_complement(tokens)):
                given = torch.from_numpy(one)[None]
                with torch.no_grad():
                    encoded = model.encoder(given).bins
                    raw = model.head(model.bases(given), encoded)[0]
                raw[:, 2] = raw[:, 2].sigmoid()
                strands.append(raw.double().numpy())
            back = strands[1][::-1][:, [1, 0, 2]]
            sums.append(((strands[0] + back) / 2)[bins].sum(0))
        changes.append(np.log2(1 + sums[1]) - np.log2(1 + sums[0]))
    return np.mean(changes, 0)


@pytest.mark.slow
def test_the_change_is_that_of_whole_passes(run, tiny_bundle):
    found, genome = load_tracks(run), tiny_bundle.genome
    assert found.tracks.labels == ["chip+", "chip-", "peaks"]
    changes = TrackChanges(found, genome)
    ref = letters(genome, 40_000)
    swap = normalise(genome, "chr", 40_000, ref, other(ref))
    more = normalise(
        genome, "chr", 41_000, letters(genome, 41_000), letters(genome, 41_000) + "ACGGT"
    )
    at = 60_028  # what is lost reaches into one bin more
    fewer = normalise(genome, "chr", at, letters(genome, at, 7), letters(genome, at))
    assert fewer.start % 128 + 6 > 128
    assert [one.kind for one in (swap, more, fewer)] == ["snv", "insertion", "deletion"]
    every = changes([swap, more, fewer])
    for allele, values in zip((swap, more, fewer), every, strict=True):
        low = round((allele.start - W / 2) / 1024) * 1024
        before = genome.fetch("chr", low, low + W)
        whole = np.concatenate([
            genome.fetch("chr", low - 100, allele.start), allele.alt,
            genome.fetch("chr", allele.end, low + W + 100),
        ])  # fmt: skip
        right = spelt_out(found, before, whole[100 : 100 + W], low, allele)
        left = spelt_out(found, before, whole[-100 - W : -100], low, allele)
        np.testing.assert_allclose(values, (left + right) / 2, atol=1e-5)
        assert np.abs(values).min() > 1e-5
        (alone,) = changes([allele])
        np.testing.assert_allclose(alone, values, atol=1e-6)
    assert changes([]) == []


@pytest.mark.parametrize("with_encoder", [True, False])
def test_on_the_other_strand_the_tracks_change_places(tmp_path, with_encoder):
    length = 12 * 1024
    tokens = random_genome(length, seed=5).tokens
    genome, turned = (
        Genome(one, (Contig("c", 0, length, True),)) for one in (tokens, reverse_complement(tokens))
    )
    found = load_tracks(save_run(tmp_path / "run", genome, with_encoder=with_encoder))
    rng = np.random.default_rng(1)
    for size, new in ((1, 1), (0, 4), (6, 0), (2, 5)):
        start = 5 * 1024 + 100 + int(rng.integers(200))
        alt = rng.integers(0, 4, new).astype(np.uint8)
        one = Allele("c", start, np.array(tokens[start : start + size]), alt)
        if size == new:
            one = one._replace(alt=(one.ref + 1) % 4)
        mirror = Allele(
            "c", length - one.end, reverse_complement(one.ref), reverse_complement(one.alt)
        )
        (here,), (there,) = (
            TrackChanges(found, genome)([one]),
            TrackChanges(found, turned)([mirror]),
        )
        np.testing.assert_allclose(there, here[[1, 0, 2]], atol=1e-5)
        assert abs(here[0] - here[1]) > 1e-6


def test_a_vcf_and_its_tables_have_the_changes(run, tiny_bundle, tmp_path):
    genome = tiny_bundle.genome
    deletion = line("chr", 30_100, letters(genome, 30_100, 5), letters(genome, 30_100))
    wrong = line("chr", 50_000, other(letters(genome, 50_000)), letters(genome, 50_000))
    vcf = write_lines(
        tmp_path / "in.vcf", [snv(genome, 20_000), deletion, wrong, snv(genome, 70_000)]
    )
    out = tmp_path / "out.vcf"
    answer = call(
        "variants", "--model", run, "--data", tiny_bundle.path, "--vcf", vcf, "--out", out
    )
    assert answer.code == 0, answer.err
    table = pd.read_parquet(tmp_path / "out.parquet")
    scored = gs.score_variants(run, tiny_bundle, vcf)
    columns = ["dtrack:chip+", "dtrack:chip-", "dtrack:peaks"]
    np.testing.assert_allclose(table[columns], scored.table[columns], atol=1e-6)
    assert table["flag"].tolist() == [None, None, "ref_mismatch", None]
    assert table.loc[2, [*columns, "dtrack", "track"]].isna().all()
    text = out.read_text().splitlines()
    assert sum("ID=GS_DTRACK" in row or "ID=GS_TRACK" in row for row in text) == 2
    records = [row.split("\t")[7] for row in text if not row.startswith("#")]
    assert records[2] == "GS_FLAG=ref_mismatch"
    for at in (0, 1, 3):
        row = table.loc[at]
        most = max(columns, key=lambda name: abs(row[name]))
        assert row["track"] == most.removeprefix("dtrack:")
        assert row["dtrack"] == row[most]
        info = dict(item.split("=") for item in records[at].split(";"))
        assert float(info["GS_DTRACK"]) == pytest.approx(row[most], rel=1e-4)
        assert info["GS_TRACK"] == row["track"]
    manifest = json.loads((tmp_path / "out.manifest.json").read_text())
    assert len(manifest["track_models"]) == 2


@pytest.mark.slow
def test_measured_variants_are_compared_with_the_changes(run, tiny_bundle, tmp_path):
    genome = tiny_bundle.genome
    rows = [("chr", at + 1, letters(genome, at), other(letters(genome, at)), at % 7)
            for at in range(20_000, 20_600, 50)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["contig", "position", "ref", "alt", "value"])
    table.to_csv(tmp_path / "m.tsv", sep="\t", index=False)
    answer = call("variants", "--model", run / "fold0_seed0", "--data", tiny_bundle.path,
                  "--measured", tmp_path / "m.tsv", "--out", tmp_path / "o.vcf")  # fmt: skip
    assert answer.code == 0, answer.err
    scored = pd.read_csv(tmp_path / "o.measured.tsv", sep="\t")
    own = gs.score_variants(run / "fold0_seed0", tiny_bundle, table).table
    for name in ("dtrack:chip+", "dtrack:peaks"):
        np.testing.assert_allclose(scored[name], own[name], atol=1e-6)
    metrics = json.loads((tmp_path / "o.metrics.json").read_text())
    assert {"dtrack:chip+", "dtrack:chip-", "dtrack:peaks"} <= {m["model"] for m in metrics}


def test_which_relatives_are_read_is_asked_of_a_masked_base_model(run, tiny_bundle, tmp_path):
    (tmp_path / "m.tsv").write_text("contig\tposition\tref\talt\tvalue\nchr\t9\tA\tC\t1\n")
    answer = call("variants", "--model", run / "fold0_seed0", "--data", tiny_bundle.path,
                  "--measured", tmp_path / "m.tsv", "--out", tmp_path / "o.vcf",
                  "--relatives", "none")  # fmt: skip
    assert answer.code == 2
    assert answer.err.strip() == (
        "genesplice: found no masked-base model, expected --model DIR of a folder that "
        "pretrain wrote"
    )
    assert not list(tmp_path.glob("o.*"))


def test_what_cannot_be_read_is_refused_in_one_line(run, tiny_bundle, tmp_path):
    with pytest.raises(InputError, match="two models of tracks"):
        gs.open_models([run, run])
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "fold1_seed0" / "model.safetensors").unlink()
    with pytest.raises(
        InputError, match=r"no model.safetensors, expected a folder that finetune --tracks"
    ):
        gs.open_models(broken)
    shutil.rmtree(broken / "fold1_seed0")
    about = broken / "fold0_seed0" / "tracks.json"
    about.write_text('{"tracks": ["chip"], "means": [1]}')
    with pytest.raises(InputError, match="a model that cannot be read"):
        gs.open_models(broken)
    shutil.copytree(run / "fold1_seed0", broken / "fold1_seed0")
    rows = json.dumps({"tracks": [row | {"name": "x"} for row in ROWS]})
    about.write_text(rows.replace('"x"', '"y"', 1))
    with pytest.raises(InputError, match="models of different tracks"):
        gs.open_models(broken)
    strange = Genome(random_genome(4096).tokens, (Contig("c", 0, 4096, False),))
    alien = save_run(tmp_path / "alien", strange)
    vcf = write_lines(tmp_path / "in.vcf", [snv(tiny_bundle.genome, 20_000)])
    out = tmp_path / "out.vcf"
    answer = call(
        "variants", "--model", alien, "--data", tiny_bundle.path, "--vcf", vcf, "--out", out
    )
    assert answer.code == 2
    assert "a model of another genome" in answer.err
    assert not out.exists()

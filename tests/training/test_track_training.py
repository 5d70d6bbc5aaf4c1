"""Tracks learned from sequence: losses, windows on both strands, planted motifs, the ridge."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import pearsonr
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score, roc_auc_score
from tiny_files import random_genome

from genesplice.baselines.features import SMOOTHED_BINS, smoothed_kmers
from genesplice.baselines.methods import predict_tracks
from genesplice.baselines.ridge import ridge_on_bins
from genesplice.cli.stages import write_track_page
from genesplice.config import load_preset, override
from genesplice.data.features import kmer_codes
from genesplice.data.genome import Contig, Genome, N
from genesplice.data.tracks import BIN_BP, Tracks, bin_blocks, write_tracks
from genesplice.data.windows import TrackWindows
from genesplice.errors import InputError
from genesplice.evaluate.bootstrap import make_draws, pearson_draws, ranking_draws
from genesplice.model.genesplice import make_encoder
from genesplice.model.heads import TrackHead, track_loss
from genesplice.training.pretraining import pretrain
from genesplice.training.tracks import encode_bins, finetune_tracks


def small_config(*settings):
    common = ["model.width=16", "model.heads=2", "model.base_width=0", "model.relatives=false",
              "finetune.core_bp=8192", "finetune.flank_bp=1024"]  # fmt: skip
    return override(load_preset("quick"), [*common, *settings])


# --- the loss ---


def test_the_loss_is_what_the_paper_spells_out_less_its_minimum():
    rng = np.random.default_rng(0)
    y, p = rng.gamma(1.0, 1.0, (2, 1, 7, 3))
    y[0, 2, 1] = np.nan
    y[0, :, 2] = (y[0, :, 2] > 1).astype(float)
    is_peaks = torch.tensor([False, False, True])
    found = float(track_loss(torch.tensor(p), torch.tensor(y), is_peaks))
    total = 0.0
    for track in range(2):
        bins = [b for b in range(7) if not np.isnan(y[0, b, track])]
        s_y, s_p = (sum(x[0, b, track] for b in bins) for x in (y, p))
        multinomial = sum(
            y[0, b, track] * np.log(y[0, b, track] / s_y / (p[0, b, track] / s_p)) for b in bins
        )
        poisson = s_p - s_y - s_y * np.log(s_p / s_y)
        total += (multinomial + 0.2 * poisson) / len(bins)
    share = 1 / (1 + np.exp(-p[0, :, 2]))
    total -= np.mean(y[0, :, 2] * np.log(share) + (1 - y[0, :, 2]) * np.log(1 - share))
    assert found == pytest.approx(total / 3, rel=1e-4)


def test_the_loss_is_least_where_all_is_right_and_nothing_is_learned_of_what_is_missing():
    y = torch.rand(1, 9, 2) + 0.1
    y[0, 4] = torch.nan
    p = torch.nn.Parameter(y.nan_to_num(5.0))
    none = torch.tensor([False, False])
    loss = track_loss(p, y, none).detach()
    assert float(loss) == pytest.approx(0, abs=1e-5)
    assert float(track_loss(2 * p, y, none).detach()) > 0.02
    track_loss(p.flip(1), y, none).backward()
    assert (p.grad[0, 4] == 0).all()
    assert torch.isfinite(p.grad).all()
    assert float(track_loss(p, torch.full_like(y, torch.nan), none).detach()) == pytest.approx(
        0, abs=1e-5
    )


# --- measures ---


def test_draws_are_those_of_scipy_and_sklearn():
    rng = np.random.default_rng(1)
    x, y, block = rng.normal(size=200).round(1), rng.normal(size=200), np.arange(200) // 20
    is_case = rng.random(200) < 0.2
    draws = make_draws(10, 60, 0)
    pearson, (auroc, auprc) = (
        pearson_draws(x, y, block, draws), ranking_draws(is_case, x, block, draws)
    )  # fmt: skip
    for i in (0, 7, 60):
        weight = draws[i][block]
        rows = np.repeat(np.arange(200), weight)
        assert pearson[i] == pytest.approx(pearsonr(x[rows], y[rows]).statistic)
        assert auroc[i] == pytest.approx(roc_auc_score(is_case[rows], x[rows]))
        assert auprc[i] == pytest.approx(average_precision_score(is_case[rows], x[rows]))


# --- the simple method ---


def test_kmers_are_counted_in_the_bin_and_around_it():
    genome = Genome(random_genome(3000, seed=4).tokens, (Contig("c", 0, 3000, False),))
    found = smoothed_kmers(genome, genome.contigs[0], 512, 1024, BIN_BP)
    assert found.shape == (4, 256 * len(SMOOTHED_BINS))
    for row in range(4):
        for i, width in enumerate(SMOOTHED_BINS):
            low = 512 + (row - width // 2) * BIN_BP
            tokens = genome.fetch("c", low, low + width * BIN_BP + 3)
            code = kmer_codes(tokens, 4)
            counts = np.bincount(code[code >= 0], minlength=256) / width
            np.testing.assert_allclose(found[row, 256 * i : 256 * (i + 1)], counts)


def test_the_ridge_is_that_of_sklearn_and_never_sees_the_fold_that_it_predicts():
    rng = np.random.default_rng(0)
    x, fold = rng.normal(size=(300, 6)) * [1, 2, 3, 4, 5, 0], np.arange(300) % 3
    y = (x[:, :1] + rng.normal(size=(300, 1)))[:, None, :].repeat(2, 1)
    y[fold == 2] = 1e6
    parts = [(x[:100], y[:100], fold[:100]), (x[100:], y[100:], fold[100:])]
    coefficients, intercept = ridge_on_bins(parts, [2, 0])[0]
    train = fold != 2
    scale = x[train].std(0)
    scale[5] = 1
    errors = []
    for alpha in 10 ** (np.arange(25) / 4):
        inner = Ridge(alpha).fit(x[fold == 1] / x[fold == 1].std(0).clip(1e-9), y[fold == 1, 0, 0])
        guess = inner.predict(x[fold == 0] / x[fold == 1].std(0).clip(1e-9))
        errors.append(((guess - y[fold == 0, 0, 0]) ** 2).sum())
    alpha = 10 ** (np.argmin(errors) / 4)
    model = Ridge(alpha).fit(x[train] / scale, y[train, 0, 0])
    np.testing.assert_allclose(x @ coefficients[:, 0] + intercept[0], model.predict(x / scale))


def test_the_ridge_of_each_fold_learns_from_all_other_folds(tmp_path, tiny_bundle):
    bundle = planted(tiny_bundle, tmp_path)
    means = {fold: np.ones(2) for fold in range(bundle.n_folds)}
    block_of = bin_blocks(bundle.genome, bundle.blocks)
    fold_of = np.where(block_of < 0, -1, bundle.blocks["fold"].to_numpy()[block_of])
    before = predict_tracks(bundle, means)
    assert (np.isfinite(before[0]) == (fold_of >= 0)).all()
    for changed in (0, bundle.n_folds - 1, -1):
        values = np.array(bundle.tracks.values)
        values[0, fold_of == changed] += 100
        other = dataclasses.replace(bundle, tracks=bundle.tracks._replace(values=values))
        differs = (predict_tracks(other, means) != before)[0]
        for fold in means:
            assert differs[fold_of == fold].any() == (fold != changed and changed >= 0)


# --- windows and the head ---


def stranded(seed=0):
    """A circular contig whose last bin is short, with a + and a - track."""
    genome = Genome(random_genome(20_100, seed=seed).tokens, (Contig("c", 0, 20_100, True),))
    values = np.random.default_rng(seed).random((2, 158), np.float32)
    table = pd.DataFrame({"name": ["t", "t"], "kind": "coverage", "strand": ["+", "-"]})
    return genome, Tracks(values, table)


def test_a_window_read_backwards_has_the_same_targets_the_other_way_round():
    genome, tracks = stranded()
    learned = np.arange(158) % 5 != 0
    cache = np.random.default_rng(1).random((2, 158 * 8, 3)).astype(np.float16)
    windows = TrackWindows(genome, tracks, learned, np.ones(2), 8192, 1024, cache)
    assert len(windows.windows) == 3
    seen = np.zeros(158, int)
    for window in windows.windows:
        forward, backward = (windows.read(window, is_reverse=way) for way in (False, True))
        tokens = forward.tokens[0].numpy()
        turned = np.array([N if t == N else 3 - t for t in tokens[::-1]])
        np.testing.assert_array_equal(backward.tokens[0], turned)
        np.testing.assert_array_equal(backward.observed[0], forward.observed[0].flip(0, 1))
        for at in range(forward.observed.shape[1]):
            first = window.start + at * BIN_BP
            is_core = window.core_start <= first < window.core_end and 0 <= first < 20_100
            is_known = is_core and learned[first // BIN_BP]
            truth = tracks.values[:, first // BIN_BP] if is_known else [np.nan, np.nan]
            np.testing.assert_array_equal(forward.observed[0, at], truth)
            if is_known:
                seen[first // BIN_BP] += 1
            if 0 <= first < 20_100:
                own = slice(first // BIN_BP * 8, first // BIN_BP * 8 + 8)
                here, mirror = slice(8 * at, 8 * at + 8), forward.bins.shape[1] - 8 * at
                np.testing.assert_array_equal(forward.bins[0, here], cache[0, own])
                found = backward.bins[0, mirror - 8 : mirror].flip(0)
                np.testing.assert_array_equal(found, cache[1, own])
    np.testing.assert_array_equal(seen, learned)


def test_bins_of_the_encoder_are_those_of_its_windows(tmp_path, tiny_bundle):
    config, genome = small_config(), tiny_bundle.genome
    torch.manual_seed(0)
    encoder = make_encoder(config.model).eval()
    cache = encode_bins(encoder, tiny_bundle, config, tmp_path / "bins.npy")
    contig = genome.contigs[0]
    tokens = genome.fetch(contig.name, 8192 - 1024, 2 * 8192 + 1024)
    with torch.no_grad():
        forward = encoder(torch.from_numpy(tokens)[None]).bins[0]
        back = encoder(torch.from_numpy(genome.fetch(contig.name, 8192 - 1024, 17_408, "-"))[None])
    first = 8192 // encoder.bin_bp
    np.testing.assert_allclose(cache[0, first : first + 512], forward[64:576], atol=2e-3)
    np.testing.assert_allclose(
        cache[1, first : first + 512], back.bins[0].flip(0)[64:576], atol=2e-3
    )


def test_the_head_reads_a_motif_on_either_strand_alike():
    torch.manual_seed(0)
    head = TrackHead(0, 16, torch.tensor([False])).eval()
    with torch.no_grad():
        head.out.weight.normal_()
        head.detect.weight[:, 32:] = head.detect.weight[:, :32]
        head.spread.weight.copy_((head.spread.weight + head.spread.weight.flip(2)) / 2)
    bases = torch.eye(4)[torch.randint(0, 4, (1, 1024))]
    empty = torch.zeros(1, 64, 0)
    with torch.no_grad():
        forward, back = head(bases, empty), head(bases.flip(1, 2), empty)
    torch.testing.assert_close(forward, back.flip(1))
    assert forward.std() > 0


# --- all of it ---


def planted(tiny_bundle, tmp_path):
    """The tiny bundle with peaks and coverage where TTGACAAT or its complement stands."""
    rng, genome = np.random.default_rng(0), tiny_bundle.genome
    tokens = np.array(genome.tokens)
    motif = np.array(["ACGT".index(base) for base in "TTGACAATGC"], np.uint8)
    values = rng.poisson(3, len(tokens)).astype(float)
    peaks = []
    for at in range(700, len(tokens) - 700, 700):
        start = at + int(rng.integers(0, 300))
        tokens[start : start + 10] = motif if rng.random() < 0.5 else 3 - motif[::-1]
        values[start - 60 : start + 70] += 60
        peaks.append(start)
    changed = dataclasses.replace(genome, tokens=tokens)
    name, folder = genome.contigs[0].name, tmp_path / "tracks"
    folder.mkdir()
    bed = tmp_path / "peaks.bed"
    bed.write_text("".join(f"{name}\t{p - 40}\t{p + 50}\n" for p in peaks))
    write_tracks([bed], changed, tiny_bundle.blocks, folder)
    edges = np.arange(0, len(tokens), BIN_BP)
    means = np.add.reduceat(values, edges) / np.diff([*edges, len(tokens)])
    row = np.load(folder / "tracks.npy")
    table = pd.DataFrame({"name": ["chip", "peaks"], "kind": ["coverage", "peaks"], "strand": "."})
    tracks = Tracks(np.stack([means.astype(np.float32), row[0]]), table)
    return dataclasses.replace(tiny_bundle, genome=changed, tracks=tracks)


@pytest.mark.slow
def test_a_planted_motif_is_learned_above_the_ridge(tmp_path, tiny_bundle):
    bundle = planted(tiny_bundle, tmp_path)
    config = small_config("finetune.folds=0", "finetune.track_steps=400")
    metrics = finetune_tracks(bundle, config, tmp_path / "out")
    value = {(m.metric, m.model): m for m in metrics}
    gain = value["track_pearson_chip_difference", "genesplice - kmer_ridge"]
    assert gain.value > 0.2
    assert gain.ci_low is None or gain.ci_low > 0
    assert value["track_auroc_peaks", "genesplice"].value > 0.9
    assert value["track_auprc_peaks", "genesplice"].value > 0.5
    assert ("track_gene_pearson_chip", "genesplice") in value
    predicted = np.load(tmp_path / "out" / "predicted.npy")
    held_out = bundle.blocks[bundle.blocks["fold"] == 0]
    inside = np.zeros(predicted.shape[1], bool)
    for block in held_out.itertuples():
        inside[-(-block.start // BIN_BP) : block.end // BIN_BP] = True
    assert np.isfinite(predicted[:, inside]).all()
    assert np.isnan(predicted).any()
    measured = np.load(tmp_path / "out" / "measured.npy")
    (mean, _) = json.loads((tmp_path / "out/fold0_seed0/tracks.json").read_text())["means"]
    known = np.array(bundle.tracks.values[0])
    small = known < 30 * mean
    np.testing.assert_allclose(measured[0, small], known[small] / mean, rtol=1e-5)
    assert (measured[1] == bundle.tracks.values[1]).all()
    page = write_track_page(tmp_path / "out", bundle, metrics).read_text()
    for text in ("Tracks of synthetic", "Ahead of ridge on smoothed k-mers: ", "Measured and pred"):
        assert text in page


@pytest.mark.slow
def test_nothing_of_the_held_out_fold_is_read(tmp_path, tiny_bundle):
    bundle = planted(tiny_bundle, tmp_path)
    config = small_config("finetune.folds=0", "finetune.track_steps=3")
    one = tmp_path / "one"
    finetune_tracks(bundle, config, one)
    values = np.array(bundle.tracks.values)
    starts = bundle.blocks.set_index("block")
    for block in starts[starts["fold"] == 0].itertuples():
        values[:, block.start // BIN_BP + 1 : block.end // BIN_BP] *= 7
    other = dataclasses.replace(bundle, tracks=bundle.tracks._replace(values=values))
    finetune_tracks(other, config, tmp_path / "other")
    np.testing.assert_array_equal(
        np.load(one / "predicted.npy"), np.load(tmp_path / "other" / "predicted.npy")
    )
    about = [json.loads((tmp_path / name / "fold0_seed0" / "tracks.json").read_text())
             for name in ("one", "other")]  # fmt: skip
    assert about[0] == about[1]


@pytest.mark.slow
def test_bins_of_an_encoder_are_scaled_by_those_of_training_blocks(tmp_path, tiny_bundle):
    bundle, encoded = planted(tiny_bundle, tmp_path), tmp_path / "encoder"
    config = small_config(
        "finetune.folds=0", "finetune.track_steps=2", "finetune.validation_blocks=0",
        "pretrain.steps=1", "pretrain.window_bp=2048", "pretrain.contrastive_weight=0",
        "pretrain.measure=false",
    )  # fmt: skip
    model = pretrain(bundle, config, encoded).model
    metrics = finetune_tracks(bundle, config, tmp_path / "out", init=encoded)
    models = {m.model for m in metrics if " - " not in m.model}
    assert models == {"genesplice", "bases_only", "kmer_ridge"}
    cache = encode_bins(model.encoder, bundle, config, tmp_path / "bins.npy")
    block_of = bin_blocks(bundle.genome, bundle.blocks)
    is_seen = (block_of >= 0) & (bundle.blocks["fold"].to_numpy()[block_of] != 0)
    seen = is_seen.repeat(8)  # of 16 bp each
    weights = load_file(tmp_path / "out" / "fold0_seed0" / "model.safetensors")
    own = cache[:, seen].reshape(-1, 16).astype(np.float64)
    np.testing.assert_allclose(weights["head.centre"], own.mean(0), atol=1e-3)
    np.testing.assert_allclose(weights["head.scale"], own.std(0) + 1e-3, atol=1e-3)
    everything = cache.reshape(-1, 16).astype(np.float64)
    assert np.abs(everything.mean(0) - own.mean(0)).max() > 3e-3


def test_what_cannot_be_done_is_refused(tmp_path, tiny_bundle):
    with pytest.raises(InputError, match="a bundle without tracks, expected tracks: prepare it"):
        finetune_tracks(tiny_bundle, small_config(), tmp_path / "out")
    bundle = planted(tiny_bundle, tmp_path)
    with pytest.raises(InputError, match="fold 9, expected 0 to"):
        finetune_tracks(bundle, small_config("finetune.folds=9"), tmp_path / "out")
    assert not (tmp_path / "out").exists()

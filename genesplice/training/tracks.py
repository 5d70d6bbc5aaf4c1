"""Tracks from sequence: coverage and peaks of held-out blocks, beside a ridge regression.

The bins of a pre-trained encoder are encoded once, on both strands, and kept on disk while a head
learns from them and from the bases (`genesplice.model.heads.TrackHead`); without one it learns from
the bases alone. Then, with `finetune.epochs`, encoder and head learn together. The means that
coverage is divided by, weights and the choice of the best pass come from training blocks alone.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from safetensors.torch import save_file
from torch import Tensor

from genesplice import runtime
from genesplice.baselines.methods import predict_tracks
from genesplice.config import Config, replace
from genesplice.data.bundle import Bundle
from genesplice.data.knowledge import keep_genome
from genesplice.data.tracks import BIN_BP, Tracks, bin_blocks, exon_means, n_bins, scale_targets
from genesplice.data.windows import TrackBatch, TrackWindows, Window, make_batch, tile_windows
from genesplice.errors import InputError, require
from genesplice.evaluate.metrics import track_metrics
from genesplice.model.genesplice import make_encoder, reverse_complement
from genesplice.model.heads import TrackModel, track_loss
from genesplice.model.sequence import SequenceEncoder, reverse_columns
from genesplice.predict.models import ABOUT_TRACKS, TRACK_VALUES
from genesplice.predict.pretrained import check_views_held_out
from genesplice.results import Metric
from genesplice.training.corpus import for_genome
from genesplice.training.finetuning import fold_inputs, freeze_parameters
from genesplice.training.folds import Learner
from genesplice.training.loops import begin_run, check_run
from genesplice.training.pretraining import load_encoder_weights
from genesplice.training.schedules import make_optimizer

KMERS, ALONE = "kmer_ridge", "bases_only"
HEAD_ALONE = {"epochs": 0, "mode": "head"}
MEASURED, DONE = TRACK_VALUES
Cache = Float[np.ndarray, "2 bins width"]


@torch.no_grad()
def encode_bins(encoder: SequenceEncoder, bundle: Bundle, config: Config, path: Path) -> Cache:
    """Vectors of all bins of the genome on each strand, in + coordinates, in a file."""
    genome, settings, per = bundle.genome, config.finetune, BIN_BP // encoder.bin_bp
    total = sum(map(n_bins, genome.contigs)) * per
    shape, device = (2, total, encoder.width), next(encoder.parameters()).device
    cache = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    windows = tile_windows(genome, settings.core_bp, settings.flank_bp)
    progress = runtime.Countdown(len(windows), "encoding windows", runtime.tell)

    def read(window: Window) -> None:
        batch, (own, at) = make_batch(genome, [window]), window.core_bins(genome)
        tokens, columns = batch.tokens, batch.columns
        for strand in range(2):
            if strand:
                tokens, columns = reverse_complement(tokens), reverse_columns(columns)
            bins = encoder(tokens.to(device), columns=columns.to(device)).bins[0]
            bins = bins.flip(0) if strand else bins
            found = bins[at.start * per : at.stop * per].float().cpu().numpy()
            cache[strand, own.start * per : own.stop * per] = found
        progress.step()

    encoder.eval()
    runtime.side_by_side(read, windows, device)
    return cache


class Phase(NamedTuple):
    """Steps, the windows they learn from, and those that are left out to choose the best pass."""

    steps: int
    learned: TrackWindows
    unseen: TrackWindows


class TrackStage(Learner):
    """The head learns while the encoder stands still, then both; one phase after the other."""

    def __init__(self, phases: list[Phase], *parts: Any, **more: Any) -> None:
        super().__init__(*parts, **more)
        self.phases = phases

    def _at(self, step: int) -> tuple[Phase, int]:
        """The phase of a step, and its number there."""
        for phase in self.phases[:-1]:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        return self.phases[-1], step

    def make(self, step: int) -> TrackBatch:
        """The window of one step."""
        phase, at = self._at(step)
        return phase.learned(at)

    def _loss(self, batch: TrackBatch) -> Float[Tensor, ""]:
        return track_loss(self.model(*batch[:3]), batch.observed, self.model.head.is_peaks)

    def training_step(self, batch: TrackBatch, batch_idx: int) -> Float[Tensor, ""]:
        """The loss of a window."""
        loss = self._loss(batch)
        self.history.add(self.global_step, "track_loss", "train", loss.detach())
        return loss

    @torch.no_grad()
    def validate(self, step: int) -> float:
        """Mean loss of the windows that are left out."""
        self.model.eval()
        unseen = self._at(step - 1)[0].unseen
        parts = (unseen(number) for number in range(len(unseen.windows)))
        batches = (TrackBatch(*(part.to(self.device) for part in one)) for one in parts)
        loss = float(np.mean([float(self._loss(batch)) for batch in batches]))
        self.model.train()
        self.history.add(step, "track_loss", "val", loss)
        return loss

    def is_validated(self, step: int) -> bool:
        """After every pass."""
        return step % len(self.phases[0].learned.windows) == 0

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """A schedule for each phase."""
        settings = self.config.finetune
        peaks = 1.0, settings.joint_rate
        phases = [(one.steps, peak) for one, peak in zip(self.phases, peaks, strict=False)]
        weights = self.model.parameters()
        return make_optimizer(weights, settings, settings.sequence_rate, phases)


def _divided(bundle: Bundle, fold: int, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bins of training, validation (a share of the training blocks) and held-out blocks."""
    block_of, fold_of = bin_blocks(bundle.genome, bundle.blocks), bundle.blocks["fold"].to_numpy()
    others = np.flatnonzero(fold_of != fold)
    order = np.random.default_rng([fold, 11]).permutation(others)
    unseen = np.isin(block_of, order[: round(share * len(others))])
    is_other = (block_of >= 0) & (fold_of[block_of] != fold)
    return is_other & ~unseen, is_other & unseen, (block_of >= 0) & ~is_other


def _means(tracks: Tracks, learned: np.ndarray) -> Float[np.ndarray, " tracks"]:
    """Of the bins that may be seen; 1 of peaks."""
    means = np.array([np.nanmean(row[learned], dtype=np.float64) for row in tracks.values])
    return np.where(tracks.is_peaks, 1.0, means)


def train_fold(
    bundle: Bundle,
    config: Config,
    *,
    fold: int,
    seed: int,
    out: Path,
    init: Path | None,
    cache: Cache | None,
    resume: bool = False,
) -> Float[np.ndarray, "tracks held_out_bins"]:
    """Train on all folds but `fold` and predict its bins, times the training mean.

    `out` keeps weights, settings, scales and the history.
    """
    assert bundle.tracks is not None
    tracks, settings = bundle.tracks, config.finetune
    checkpoint = begin_run(out, config, resume, fold_inputs(bundle, init))
    training, unseen, held_out = _divided(bundle, fold, settings.validation_blocks)
    means = _means(tracks, training | unseen)
    torch.manual_seed(seed)
    encoder = make_encoder(config.model) if cache is not None or settings.epochs else None
    model = TrackModel(encoder, torch.from_numpy(tracks.is_peaks))
    if encoder is not None and init is not None:
        load_encoder_weights(encoder, init)
        freeze_parameters(model, config)
    if cache is not None:
        seen = np.flatnonzero(np.repeat(training, cache.shape[1] // len(training)))
        sample = cache[:, seen[:: max(1, len(seen) // 20_000)]].reshape(-1, cache.shape[2])
        model.head.centre.copy_(torch.from_numpy(sample.mean(0, dtype=np.float32)))
        model.head.scale.copy_(torch.from_numpy(sample.std(0, dtype=np.float32) + 1e-3))

    def windows(seen: np.ndarray, kept: Cache | None, is_random: bool = False) -> TrackWindows:
        sizes, key = (settings.core_bp, settings.flank_bp), (fold, seed) if is_random else None
        return TrackWindows(bundle.genome, tracks, seen, means, *sizes, kept, key)

    phases = []
    if cache is not None or encoder is None:
        both = windows(training, cache, is_random=True), windows(unseen, cache)
        phases.append(Phase(settings.track_steps, *both))
    if settings.epochs:
        both = windows(training, None, is_random=True), windows(unseen, None)
        phases.append(Phase(settings.epochs * len(both[0].windows), *both))
    stage = TrackStage(phases, model, config, seed, is_chosen=bool(unseen.any()))
    steps, name = sum(one.steps for one in phases), f"tracks fold {fold} seed {seed}"
    stage.run(steps, stage.make, model, out / "checkpoints", checkpoint, name)
    own = windows(held_out, None if settings.epochs else cache)
    predicted = predict_bins(model, own)[:, held_out]
    history = stage.history.to_frame().assign(fold=fold, seed=seed)
    runtime.write_table(out / "history.parquet", history)
    with runtime.atomic_file(out / "model.safetensors") as partial:
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, partial)
    keep_genome(out, bundle.genome)
    rows = tracks.table.to_dict("records")
    runtime.write_json(out / ABOUT_TRACKS, {"tracks": rows, "means": means.tolist()})
    _save(out / DONE, predicted)
    return predicted


def _save(path: Path, values: np.ndarray) -> None:
    with runtime.atomic_file(path) as partial, partial.open("wb") as handle:
        np.save(handle, values)


@torch.no_grad()
def predict_bins(model: TrackModel, windows: TrackWindows) -> Float[np.ndarray, "tracks bins"]:
    """The mean of both strands for the bins of all windows, NaN elsewhere; peaks as shares."""
    device, tracks = model.head.filters.device, windows.tracks
    out = np.full(tracks.values.shape, np.nan, np.float32)
    model.eval()
    for window in windows.windows:
        own, at = window.core_bins(windows.genome)
        strands = []
        for is_reverse in (False, True):
            batch = windows.read(window, is_reverse=is_reverse)
            found = model(*(part.to(device) for part in batch[:3]))[0].T
            found = torch.where(model.head.is_peaks[:, None], found.sigmoid(), found)
            values = found.float().cpu().numpy()
            strands.append(values[tracks.other_strand, ::-1] if is_reverse else values)
        out[:, own] = np.mean(strands, axis=0)[:, at]
    return out


def finetune_tracks(
    bundle: Bundle, config: Config, out: Path, *, init: Path | None = None, resume: bool = False
) -> list[Metric]:
    """Train every fold and seed of `config.finetune`, and measure the mean over seeds.

    Rows: `genesplice`; with a pre-trained encoder `bases_only`, the same head without it; and
    `kmer_ridge`. `out` gets `predicted.npy` (tracks x bins, times the training mean, each bin by
    the models that held it out), `measured.npy` in the same unit, `genes.parquet` (means over
    exons, measured and predicted) and a folder a fold and seed.

    Raises
    ------
    InputError
        For a bundle without tracks, a fold that there is none of, and as `finetune`.
    """
    tracks, settings = bundle.tracks, config.finetune
    if tracks is None:
        wanted = "tracks: prepare it with --tracks"
        raise InputError("a bundle without tracks", wanted, path=bundle.path)
    config = for_genome(config, bundle.genome, init)
    held_out = tuple(range(bundle.n_folds)) if settings.folds is None else settings.folds
    for fold in held_out:
        require(0 <= fold < bundle.n_folds, f"fold {fold}", f"0 to {bundle.n_folds - 1}")
    check_views_held_out(init, held_out, bundle.genome)
    models: dict[str, np.ndarray] = {"genesplice": np.full(tracks.values.shape, np.nan, np.float32)}
    if init is not None:
        models[ALONE] = models["genesplice"].copy()
    observed, means = models["genesplice"].copy(), {}
    out.mkdir(parents=True, exist_ok=True)
    with runtime.scratch_folder(out / "bins") as scratch:
        cache: Cache | None = None
        for fold in held_out:
            training, unseen, own = _divided(bundle, fold, settings.validation_blocks)
            means[fold] = _means(tracks, training | unseen)
            observed[:, own] = scale_targets(tracks.values[:, own], tracks.is_peaks, means[fold])
            for label, values in models.items():
                is_alone, found = label == ALONE, []
                folder = out / "ablations" / label if is_alone else out
                plain = replace(config, finetune=HEAD_ALONE) if is_alone else config
                start = None if is_alone else init
                for seed in settings.seeds:
                    where = folder / f"fold{fold}_seed{seed}"
                    if resume and (where / DONE).exists():
                        check_run(where, plain, fold_inputs(bundle, start))
                        found.append(np.load(where / DONE))
                        continue
                    if start is not None and cache is None:
                        encoder = make_encoder(config.model)
                        load_encoder_weights(encoder, start)
                        cache = encode_bins(encoder, bundle, config, scratch / "bins.npy")
                    run: dict[str, Any] = {"fold": fold, "seed": seed, "resume": resume}
                    run |= {"init": start, "cache": None if is_alone else cache}
                    found.append(train_fold(bundle, plain, out=where, **run))
                values[:, own] = np.mean(found, axis=0)
    models[KMERS] = predict_tracks(bundle, means)
    others = scale_targets(tracks.values, tracks.is_peaks, means[held_out[0]])
    _save(out / MEASURED, np.where(np.isfinite(observed), observed, others))
    _save(out / DONE, models["genesplice"])
    block_of = bin_blocks(bundle.genome, bundle.blocks)
    labels, is_peaks = tracks.labels, tracks.is_peaks
    metrics = track_metrics(observed, models, labels, is_peaks, block_of)
    return metrics + _gene_metrics(bundle, observed, models, out)


def _gene_metrics(
    bundle: Bundle, observed: np.ndarray, models: dict[str, np.ndarray], out: Path
) -> list[Metric]:
    """The same of genes: log2(1 + mean over exons) of coverage, on the track of their strand."""
    tracks, genes = bundle.tracks, bundle.genes
    assert tracks is not None
    strands = (["+", "-", "."] if one == "." else [one] for one in tracks.table["strand"])
    is_far = np.array([np.isin(genes["strand"], own) for own in strands])
    is_far &= ~tracks.is_peaks[:, None]

    def means(values: np.ndarray) -> np.ndarray:
        found = np.log2(1 + np.maximum(exon_means(values, bundle.genome, genes), 0))
        return np.where(is_far, found, np.nan)

    truth, guesses = means(observed), {name: means(values) for name, values in models.items()}
    rows = [
        pd.DataFrame({"gene_id": genes["gene_id"], "track": label, "observed": truth[i],
                      "predicted": guesses["genesplice"][i]})
        for i, label in enumerate(tracks.labels)
    ]  # fmt: skip
    runtime.write_table(out / "genes.parquet", pd.concat(rows).dropna())
    block = pd.factorize(bundle.block_of.loc[genes["gene_id"]])[0]
    return track_metrics(truth, guesses, tracks.labels, tracks.is_peaks, block, prefix="track_gene")

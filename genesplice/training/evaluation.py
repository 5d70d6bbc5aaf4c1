"""How well a pre-trained encoder restores hidden bases."""

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from genesplice.baselines.features import CONTEXTS, CountModel, fit_count_model, kmer_codon_features
from genesplice.baselines.methods import run_baselines
from genesplice.config import Config
from genesplice.config.model import RELATIVE_GROUPS, ModelConfig
from genesplice.data.bundle import Bundle
from genesplice.data.features import region_masks
from genesplice.data.genome import Genome
from genesplice.data.windows import Window, make_random_windows
from genesplice.errors import InputError
from genesplice.evaluate.bootstrap import N_BOOTSTRAP, make_draws, ratio_draws, to_metric
from genesplice.evaluate.metrics import fold_profiles, paired_difference, score
from genesplice.evaluate.probes import make_probe_sites, probe_metrics
from genesplice.evaluate.retrieval import do_not_overlap, mates, retrieval_metrics, whitened
from genesplice.model import sequence
from genesplice.model.genesplice import GeneSplice, PretrainingModel
from genesplice.predict import pretrained
from genesplice.predict.expression import encode_genes
from genesplice.results import Metric
from genesplice.runtime import side_by_side, tell
from genesplice.training.batches import mask_bases
from genesplice.training.corpus import Interval, Source

RANDOM_WEIGHTS = "random_weights"
GENOME_ALONE, FAR_RELATIVES = "genome_alone", "far_relatives"
"""The measured model with fewer alignment columns than it can read."""
Models = Mapping[str, PretrainingModel]
"""By name; the first is the one that is measured, the others are compared with it."""
SITE_BP = 1000
"""Bases of genome for every site of a task: a small genome has fewer sites to tell apart."""
KMERS = "kmers"
PROMOTER_BP = 1024
"""Read round each TSS; promoters that share a base of it are not compared."""


def measure(models: Models, bundle: Bundle, source: Source, config: Config) -> list[Metric]:
    """All of the below, as large as `pretrain.measure_windows` and `pretrain.probe_sites` say.

    The first of the models is compared with the others, its ablations, and with random weights.
    Where no fold is held out there are bits only: everything else would be judged by what was
    trained on. What a bundle lacks (RNA genes, operons of two, expression) is left out.
    """
    started, steps = time.monotonic(), "measure: {} ({:.0f} s so far)".format
    tell(steps("bits per base", 0))
    metrics = measure_bases(models, bundle, source, config)
    if config.pretrain.holdout_fold is not None:
        tell(steps("probes and retrieval", time.monotonic() - started))
        models = {**models, RANDOM_WEIGHTS: make_untrained(config)}
        metrics += measure_vectors(models, bundle, config)
        if config.pretrain.measure_expression and bundle.is_measured:
            tell(steps("expression from frozen embeddings", time.monotonic() - started))
            metrics += measure_expression(models, bundle, config)
    tell(f"measure: {time.monotonic() - started:.0f} s")
    return metrics


def measure_bases(models: Models, bundle: Bundle, source: Source, config: Config) -> list[Metric]:
    """Bits per base and top-1 by region, with ablations and count models of training intervals.

    Ablations are asked on the bundle's own genome, whatever they have read.
    """
    counts = [fit_count_model(source.genome, source.training, *sides) for sides in CONTEXTS]
    models, n_windows = with_subsets(models, source.genome), config.pretrain.measure_windows
    about: dict[str, Any] = {"counts": counts, "regions": region_masks(bundle)}
    return held_out_bits(models, source, config, n_windows=n_windows, **about)


def held_out_bits(models: Models, source: Source, config: Config, **more: Any) -> list[Metric]:
    """`masked_base_metrics` of what is held out, in windows as long as those of pre-training."""
    about: dict[str, Any] = {"window_bp": config.pretrain.window_bp, "seed": config.pretrain.seed}
    about |= {"fold": source.record["fold"], **more}
    return masked_base_metrics(models, source.genome, source.held_out, **about)


def with_subsets(models: Models, genome: Genome) -> dict[str, PretrainingModel]:
    """Beside a first model that reads relatives: the same with the far ones only, and with none.

    What is held out has relatives too: bits with them are not those of the genome alone.
    """
    (name, first), *others = models.items()
    if genome.columns is None or not first.config.relatives:
        return dict(models)
    subsets = {GENOME_ALONE: first.reading(), FAR_RELATIVES: first.reading(RELATIVE_GROUPS - 1)}
    return {name: first, **subsets, **dict(others)}


def make_untrained(config: Config) -> PretrainingModel:
    """The ablation that has learned nothing: the same sizes, random weights of `pretrain.seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.pretrain.seed)
        return PretrainingModel(config.model, config.pretrain.contrastive_width)


def measure_vectors(models: Models, bundle: Bundle, config: Config) -> list[Metric]:
    """Probes and retrieval of several models, on the same sites, genes and resamples.

    The first of `models` is compared with all others, and in probes with words and one-hot bases.

    Raises
    ------
    InputError
        If no fold is held out.
    """
    settings, fold = config.pretrain, config.pretrain.holdout_fold
    if fold is None:
        raise InputError("pretrain.holdout_fold none", "a fold to measure on")
    others = list(models)[1:]
    generator = np.random.default_rng([settings.seed, 17])
    n_sites = min(settings.probe_sites, bundle.genome.length // SITE_BP)
    sites = make_probe_sites(bundle, generator, n_sites=n_sites)
    read = partial(pretrained.encoder_features, bundle=bundle, sites=sites)
    features = {name: read(model.encoder) for name, model in models.items()}
    words = pretrained.reference_features(bundle.genome, sites)
    metrics = probe_metrics(
        features | words, sites, fold=fold, references=[*words, *others], seed=settings.seed
    )
    splits = bundle.splits.set_index("gene_id")
    genes, *training = (
        splits.index[splits["fold"] == one] for one in (fold, *sorted(set(splits["fold"]) - {fold}))
    )
    is_shown = do_not_overlap(bundle, genes, PROMOTER_BP)
    if (mates(splits["operon"], genes) & is_shown).any():
        embed = partial(
            pretrained.embed_promoters, bundle=bundle, genes=splits.index, window_bp=PROMOTER_BP
        )
        vectors = {name: embed(model.encoder) for name, model in models.items()}
        vectors[KMERS] = pretrained.promoter_kmers(bundle, splits.index, PROMOTER_BP)
        apart = partial(do_not_overlap, bundle, window_bp=PROMOTER_BP)
        operon = splits["operon"]
        metrics += retrieval_metrics(
            {name: whitened(v, training, operon, apart) for name, v in vectors.items()},
            operon, genes, blocks=splits["block"], is_shown=is_shown,
            references=[*others, KMERS], fold=fold, seed=settings.seed,
        )  # fmt: skip
    return metrics


NO_ENCODER = "kmers_and_codons"
METRICS = ("level_spearman", "level_r2", "profile_r")


def read_genes(model: PretrainingModel, bundle: Bundle, config: Config) -> pd.DataFrame:
    """One row for every measured gene: what a readout gives of the encoder's hidden states.

    The genome is read in pieces as long as the windows of pre-training: attention over all tokens
    says less of windows that are longer than any it has learned from, and costs more.
    """
    reader = GeneSplice(model.config, conditions=list(bundle.observed.columns))
    settings = config.finetune
    length = settings.core_bp + 2 * settings.flank_bp
    piece_bp = math.gcd(length, config.pretrain.window_bp)
    reader.encoder = _InPieces(model.config, model.encoder, piece_bp)
    vectors = encode_genes(reader, bundle, core_bp=settings.core_bp, flank_bp=settings.flank_bp)
    table = pd.DataFrame(vectors.cpu().numpy(), index=bundle.genes["gene_id"])
    return table.loc[bundle.observed.index]


class _InPieces(sequence.SequenceEncoder):
    """An encoder that reads every window as pieces of `piece_bp`, side by side."""

    def __init__(
        self, sizes: ModelConfig, encoder: sequence.SequenceEncoder, piece_bp: int
    ) -> None:
        super().__init__(sizes, encoder.base_width)
        self.encoder, self.piece_bp = encoder, piece_bp

    def encode(
        self, inputs: sequence.Inputs, is_real: sequence.IsReal, with_bases: bool = False
    ) -> sequence.EncoderOutput:
        """The pieces' levels, one after the other."""
        pieces = inputs.reshape(-1, self.piece_bp, inputs.shape[2])
        real = is_real.reshape(len(pieces), -1)
        read = self.encoder.encode(pieces, real, with_bases=with_bases)
        bins, summaries, regions = (x.reshape(len(inputs), -1, x.shape[2]) for x in read[:3])
        bases = None if read.bases is None else read.bases.reshape(*inputs.shape[:2], -1)
        return sequence.EncoderOutput(bins, summaries, regions, is_real, bases, inputs)


def measure_expression(models: Models, bundle: Bundle, config: Config) -> list[Metric]:
    """`METRICS` on held-out genes, and differences of the first model.

    Level is the mean of ridge and boosting, profile is ridge's. Records of the difference have the
    names of the metrics with `_difference`, for "MODEL - OTHER". All are measured on the genes of
    `pretrain.holdout_fold`, whose sequence no encoder has read, and, without a fold, for those of
    all folds: each is held out from the ridge and the boosting, and the encoder has read the
    sequence of the others, never their expression.
    """
    fold, seed = config.pretrain.holdout_fold, config.pretrain.seed
    tables = {name: read_genes(model, bundle, config) for name, model in models.items()}
    tables[NO_ENCODER] = kmer_codon_features(bundle)
    predictions = run_baselines(bundle, models=[], extra=tables, seed=seed)
    profile = fold_profiles(bundle.observed, bundle.fold_of)
    rules: dict[str, Any] = {"blocks": bundle.block_of, "train_profile": profile, "seed": seed}
    scored = score(predictions, **rules)
    metrics = [m for m in scored if m.metric in METRICS and m.fold in (fold, None)]
    first, *others = tables
    wanted = {f"{name}_difference" for name in METRICS}
    for part, rows in ((fold, predictions[predictions["fold"] == fold]), (None, predictions)):
        for other in others:
            pairs = paired_difference(rows, first, other, **rules)
            metrics += [m._replace(fold=part, seed=seed) for m in pairs if m.metric in wanted]
    return metrics


BATCH_BP = 65_536
EVERY_BP = 32
LIMITS = {"bits_per_base": (0.0, np.inf), "masked_top_1": (0.0, 1.0)}


def masked_base_metrics(
    models: Models,
    genome: Genome,
    intervals: Sequence[Interval],
    *,
    window_bp: int,
    n_windows: int = 64,
    seed: int = 0,
    fold: int | None = None,
    is_strand_averaged: bool = True,
    counts: Sequence[CountModel] = (),
    regions: Mapping[str, Bool[np.ndarray, " genome"]] | None = None,
) -> list[Metric]:
    """Bits per base and top-1 of masked single bases, with intervals over blocks.

    One base in `EVERY_BP` is masked at random; each is predicted from everything else in its
    window, read on both strands with `is_strand_averaged`. What is resampled are the `intervals`
    that windows were drawn from, such as held-out blocks; the windows where all lie in one.

    Parameters
    ----------
    models, counts
        Encoders by name, and count models that predict the same bases (they see the masked
        neighbours of a masked base too). For each but the first encoder,
        `bits_per_base_difference` says how many bits fewer (below 0) or more the first needs,
        resampled together; also by region. `GENOME_ALONE`, where it is there, is compared with
        count models as well.
    regions
        Masks over `Genome.tokens` by name: each gives `bits_per_base_NAME` and
        `masked_top_1_NAME` over its bases, where there are any.
    """
    generator = np.random.default_rng([seed, 7])
    windows = make_random_windows(intervals, window_bp, n_windows, generator)
    tokens = torch.from_numpy(np.stack([genome.fetch(w.contig, w.start, w.end) for w in windows]))
    columns = np.stack([genome.fetch_columns(w.contig, w.start, w.end) for w in windows])
    is_target = mask_bases(tokens, 1 / EVERY_BP, 1, generator)
    about_targets = torch.from_numpy(columns), is_target, is_strand_averaged
    log_probs = {
        name: _target_log_probs(model, tokens, *about_targets) for name, model in models.items()
    }
    rows, hits = tokens.numpy(), is_target.numpy()
    for counted in counts:
        parts = [counted.probabilities(row)[hit] for row, hit in zip(rows, hits, strict=True)]
        log_probs[counted.name] = np.log2(np.concatenate(parts))
    unit, n_units = _units(windows, intervals, genome)
    block = unit[np.nonzero(hits)[0]]
    read = [genome.indices(w.contig, w.start, w.end)[0] for w in windows]
    position = np.stack(read)[hits]
    kinds = {"": np.ones(len(position), bool)}
    kinds |= {f"_{name}": mask[position] for name, mask in (regions or {}).items()}
    draws = make_draws(n_units, N_BOOTSTRAP, seed)
    wanted = rows[hits]
    split = "train" if fold is None else "test"
    about: dict[str, Any] = {"n_blocks": n_units, "split": split, "fold": fold, "seed": seed}
    metrics, bits = [], {}
    for name, values in log_probs.items():
        cost = -values[np.arange(len(wanted)), wanted]
        measured = np.stack([cost, values.argmax(1) == wanted], axis=1)
        for suffix, is_kind in kinds.items():
            if not is_kind.any():
                continue
            here = np.ones((int(is_kind.sum()), 2))
            ratios = ratio_draws(measured[is_kind], here, block[is_kind], draws)
            for (metric, limits), ratio in zip(LIMITS.items(), ratios.T, strict=True):
                count: dict[str, Any] = {"n": len(here), "limits": limits}
                metrics.append(to_metric(metric + suffix, ratio, model=name, **count, **about))
            bits[name, suffix] = ratios[:, 0], len(here)
    label, *_ = models
    pairs = [(label, *key) for key in bits if key[0] != label]
    if GENOME_ALONE in models:  # count models read no relatives either
        counted_names = {counted.name for counted in counts}
        pairs += [(GENOME_ALONE, *key) for key in bits if key[0] in counted_names]
    for ours, name, suffix in pairs:
        (mine, n), pair = bits[ours, suffix], f"{ours} - {name}"
        less, metric = mine - bits[name, suffix][0], f"bits_per_base_difference{suffix}"
        metrics.append(to_metric(metric, less, n, model=pair, **about))
    return metrics


def _units(
    windows: Sequence[Window], intervals: Sequence[Interval], genome: Genome
) -> tuple[Int64[np.ndarray, " windows"], int]:
    """Which unit of resampling each window belongs to, and how many there are."""

    def lies_in(window: Window, contig: str, start: int, end: int) -> bool:
        ahead = (window.start - start) % genome.contig(contig).length
        return contig == window.contig and ahead < end - start

    inside = [[lies_in(window, *interval) for interval in intervals] for window in windows]
    units, unit = np.unique(np.argmax(inside, axis=1), return_inverse=True)
    if len(units) > 1:
        return unit.astype(np.int64), len(units)
    return np.arange(len(windows)), len(windows)


@torch.no_grad()
def _target_log_probs(
    model: PretrainingModel,
    tokens: UInt8[Tensor, "windows length"],
    columns: sequence.Columns,
    is_target: Bool[Tensor, "windows length"],
    is_strand_averaged: bool,
) -> Float[np.ndarray, "targets 4"]:
    """log2 of the probabilities at the targets; the model is left in the mode it came in."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    size = max(1, BATCH_BP // tokens.shape[1])

    def predict(first: int) -> Float[np.ndarray, "targets 4"]:
        rows = slice(first, first + size)
        hidden = tokens[rows].masked_fill(is_target[rows], sequence.MASK_TOKEN).to(device)
        logs = pretrained.base_log_probabilities(
            model, hidden, columns[rows].to(device), is_strand_averaged=is_strand_averaged
        )
        return logs.cpu()[is_target[rows]].double().numpy() / np.log(2)

    parts = side_by_side(predict, range(0, len(tokens), size), device)
    model.train(was_training)
    return np.concatenate(parts)

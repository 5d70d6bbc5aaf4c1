"""What an encoder has learned, beside what needs no learning: counts, words, random weights.

=====================  =============================================================================
`bits_per_base`        masked single bases of held-out blocks, over all and by region, beside count
                       models of the training blocks (`genesplice.training.scoring`)
`probe_TASK`           linear probes on frozen vectors, beside 4-mers, one-hot bases, and an
                       encoder of the same sizes with random weights (`genesplice.evaluate.probes`)
`retrieval_at_K`,      operon mates among the promoters of held-out genes, beside random weights and
`alignment`, …         4-mers (`genesplice.evaluate.retrieval`)
`level_spearman`, …    expression from frozen vectors, where `pretrain.measure_expression` asks for
                       it (`genesplice.training.frozen`)
=====================  =============================================================================

Twins (`genesplice.training.pretrain_twins`) stand beside the model in all of it.

Count models and probes learn from training blocks; everything is scored on the held-out fold.
"""

import sys
import time
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch

from genesplice.config import Config
from genesplice.data.bundle import Bundle
from genesplice.errors import InputError
from genesplice.evaluate.count_models import CONTEXTS, fit_count_model
from genesplice.evaluate.embedding import embed_promoters, promoter_kmers
from genesplice.evaluate.probe_features import encoder_features, reference_features
from genesplice.evaluate.probe_sites import make_probe_sites
from genesplice.evaluate.probes import probe_metrics
from genesplice.evaluate.regions import region_masks
from genesplice.evaluate.retrieval import (
    do_not_overlap,
    mate_pairs,
    retrieval_metrics,
    whitened,
)
from genesplice.model.genesplice import PretrainingModel
from genesplice.results import Metric
from genesplice.training.frozen import measure_expression
from genesplice.training.scoring import masked_base_metrics
from genesplice.training.source import Source

__all__ = ["RANDOM_WEIGHTS", "make_untrained", "measure", "measure_bases", "measure_vectors"]

RANDOM_WEIGHTS = "random_weights"
SITE_BP = 1000
"""Bases of genome for every site of a task: a small genome has fewer sites to tell apart."""
KMERS = "kmers"
PROMOTER_BP = 1024
"""Read round each TSS; promoters that share a base of it are not compared."""


def measure(
    model: PretrainingModel,
    bundle: Bundle,
    source: Source,
    config: Config,
    twins: Mapping[str, PretrainingModel] | None = None,
) -> list[Metric]:
    """All of the above, as large as `pretrain.measure_windows` and `pretrain.probe_sites` say.

    Where no fold is held out there are bits only: everything else would be judged by what was
    trained on. What a genome lacks (RNA genes, operons of two) is left out.
    """
    started = time.monotonic()
    twins = twins or {}
    metrics = measure_bases(model, bundle, source, config, twins)
    if config.pretrain.holdout_fold is not None:
        models = {"genesplice": model, **twins, RANDOM_WEIGHTS: make_untrained(config)}
        metrics += measure_vectors(models, bundle, config)
        if config.pretrain.measure_expression:
            metrics += measure_expression(models, bundle, config)
    print(f"measure: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return metrics


def measure_bases(
    model: PretrainingModel,
    bundle: Bundle,
    source: Source,
    config: Config,
    twins: Mapping[str, PretrainingModel] | None = None,
) -> list[Metric]:
    """Bits per base and top-1 by region, beside twins and count models of the training intervals.

    Twins are asked on the bundle's own genome, whatever they have read.
    """
    settings, fold = config.pretrain, config.pretrain.holdout_fold
    counts = [fit_count_model(source.genome, source.training, *sides) for sides in CONTEXTS]
    return masked_base_metrics(
        model,
        source.genome,
        source.held_out,
        window_bp=settings.window_bp,
        n_windows=settings.measure_windows,
        fold=fold,
        seed=settings.seed,
        split="train" if fold is None else "test",
        counts=counts,
        others=twins,
        regions=region_masks(bundle),
    )


def make_untrained(config: Config) -> PretrainingModel:
    """The twin that has learned nothing: the same sizes, random weights of `pretrain.seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.pretrain.seed)
        return PretrainingModel(config.model, config.pretrain.contrastive_width)


def measure_vectors(
    models: Mapping[str, PretrainingModel], bundle: Bundle, config: Config
) -> list[Metric]:
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
    features = {
        name: encoder_features(model.encoder, bundle, sites) for name, model in models.items()
    }
    words = reference_features(bundle.genome, sites)
    metrics = probe_metrics(
        features | words, sites, fold=fold, references=[*words, *others], seed=settings.seed
    )
    splits = bundle.splits.set_index("gene_id")
    genes, *training = (
        splits.index[splits["fold"] == one] for one in (fold, *sorted(set(splits["fold"]) - {fold}))
    )
    is_shown = do_not_overlap(bundle, genes, PROMOTER_BP)
    one, two = mate_pairs(splits["operon"], genes)
    if is_shown[one, two].any():
        vectors = {
            name: embed_promoters(model.encoder, bundle, splits.index, window_bp=PROMOTER_BP)
            for name, model in models.items()
        }
        vectors[KMERS] = promoter_kmers(bundle, splits.index, PROMOTER_BP)
        apart = partial(do_not_overlap, bundle, window_bp=PROMOTER_BP)
        metrics += retrieval_metrics(
            {name: whitened(v, training, splits["operon"], apart) for name, v in vectors.items()},
            splits["operon"],
            genes,
            blocks=splits["block"],
            is_shown=is_shown,
            references=[*others, KMERS],
            fold=fold,
            seed=settings.seed,
        )
    return metrics

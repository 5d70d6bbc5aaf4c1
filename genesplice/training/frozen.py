"""What frozen vectors of an encoder say of expression, through ridge and boosting alone.

No network, no gene sets, no training of the encoder: genes are read by `GeneReadout` (promoter,
start, body by codon position, 3' end; beside them k-mers, codon use and length), and simple methods
do the rest. Beside it: k-mers and codon use without an encoder, and an encoder of random weights.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from genesplice.config import Config
from genesplice.data.bundle import Bundle
from genesplice.errors import InputError
from genesplice.evaluate.baselines import run_baselines
from genesplice.evaluate.features import kmer_codon_features
from genesplice.evaluate.metrics import fold_profiles, paired_difference, score
from genesplice.evaluate.prediction import encode_genes
from genesplice.model.genesplice import GeneSplice, PretrainingModel
from genesplice.results import Metric

__all__ = ["measure_expression", "read_genes"]

NO_ENCODER = "kmers_and_codons"
METRICS = ("level_spearman", "level_r2", "profile_r")


def read_genes(model: PretrainingModel, bundle: Bundle, config: Config) -> pd.DataFrame:
    """One row for every measured gene: what a readout gives of the encoder's hidden states."""
    reader = GeneSplice(model.config, conditions=list(bundle.observed.columns))
    reader.encoder = model.encoder
    settings = config.finetune
    vectors = encode_genes(reader, bundle, core_bp=settings.core_bp, flank_bp=settings.flank_bp)
    table = pd.DataFrame(vectors.cpu().numpy(), index=bundle.genes["gene_id"])
    return table.loc[bundle.observed.index]


def measure_expression(
    models: Mapping[str, PretrainingModel], bundle: Bundle, config: Config
) -> list[Metric]:
    """`METRICS` on held-out genes, and differences of the first model.

    Level is the mean of ridge and boosting, profile is ridge's. Records of the difference have the
    names of the metrics with `_difference`, for "MODEL - OTHER". All are told for the genes of
    `pretrain.holdout_fold`, whose sequence no encoder has read, and, without a fold, for those of
    all folds: each is held out from the ridge and the boosting, and the encoder has read the
    sequence of the others, never their expression.

    Raises
    ------
    InputError
        If no fold is held out.
    """
    fold, seed = config.pretrain.holdout_fold, config.pretrain.seed
    if fold is None:
        raise InputError("pretrain.holdout_fold none", "a fold to measure on")
    tables = {name: read_genes(model, bundle, config) for name, model in models.items()}
    tables[NO_ENCODER] = kmer_codon_features(bundle)
    predictions = run_baselines(bundle, models=[], extra=tables, seed=seed)
    rules: dict[str, Any] = {
        "blocks": bundle.splits.set_index("gene_id")["block"],
        "train_profile": fold_profiles(bundle.observed, bundle.fold_of),
        "seed": seed,
    }
    scored = score(predictions, **rules)
    found = [m for m in scored if m.metric in METRICS and m.fold in (fold, None)]
    first, *others = tables
    wanted = {f"{name}_difference" for name in METRICS}
    for part, rows in ((fold, predictions[predictions["fold"] == fold]), (None, predictions)):
        for other in others:
            pairs = paired_difference(rows, first, other, **rules)
            found += [m._replace(fold=part, seed=seed) for m in pairs if m.metric in wanted]
    return found

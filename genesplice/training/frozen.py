"""What frozen vectors of an encoder say of expression, through ridge and boosting alone.

No network, no gene sets, no training of the encoder: genes are read by `GeneReadout` (promoter,
start, body by codon position, 3' end; beside them k-mers, codon use and length), and simple methods
do the rest. Beside it: k-mers and codon use without an encoder, and an encoder of random weights.
"""

from collections.abc import Mapping

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
    """`METRICS` on the genes of `pretrain.holdout_fold`, and differences of the first model.

    Level is the mean of ridge and boosting, profile is ridge's. Records of the difference have the
    names of the metrics with `_difference`, for "MODEL - OTHER".

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
    predictions = run_baselines(bundle, folds=[fold], models=[], extra=tables, seed=seed)
    blocks = bundle.splits.set_index("gene_id")["block"]
    profiles = fold_profiles(bundle.observed, bundle.fold_of)
    scored = score(predictions, blocks, train_profile=profiles, seed=seed)
    found = [m for m in scored if m.metric in METRICS and m.fold == fold]
    first, *others = tables
    for other in others:
        pairs = paired_difference(
            predictions, first, other, blocks, train_profile=profiles, seed=seed
        )
        wanted = {f"{name}_difference" for name in METRICS}
        found += [m._replace(fold=fold, seed=seed) for m in pairs if m.metric in wanted]
    return found

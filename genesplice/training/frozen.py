"""What frozen vectors of an encoder say of expression, through ridge and boosting alone.

No network, no gene sets, no training of the encoder: genes are read by `GeneReadout` (promoter,
start, body by codon position, 3' end; beside them k-mers, codon use and length), and simple methods
do the rest. Beside it: k-mers and codon use without an encoder, and an encoder of random weights.
"""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from jaxtyping import Bool, Float
from torch import Tensor

from genesplice.config import Config
from genesplice.data.bundle import Bundle
from genesplice.errors import InputError
from genesplice.evaluate.baselines import run_baselines
from genesplice.evaluate.features import kmer_codon_features
from genesplice.evaluate.metrics import fold_profiles, paired_difference, score
from genesplice.evaluate.prediction import encode_genes
from genesplice.model.genesplice import GeneSplice, PretrainingModel
from genesplice.model.sequence import EncoderOutput, SequenceEncoder
from genesplice.results import Metric

__all__ = ["measure_expression", "read_genes"]

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
    reader.encoder = _InPieces(model.encoder, math.gcd(length, config.pretrain.window_bp))
    vectors = encode_genes(reader, bundle, core_bp=settings.core_bp, flank_bp=settings.flank_bp)
    table = pd.DataFrame(vectors.cpu().numpy(), index=bundle.genes["gene_id"])
    return table.loc[bundle.observed.index]


class _InPieces(SequenceEncoder):
    """An encoder that reads every window as pieces of `piece_bp`, side by side."""

    def __init__(self, encoder: SequenceEncoder, piece_bp: int) -> None:
        super().__init__(
            bin_bp=encoder.bin_bp,
            width=encoder.width,
            annotation=encoder.channels.annotation,
            base_width=encoder.base_width,
        )
        self.encoder, self.piece_bp = encoder, piece_bp

    def levels(
        self,
        inputs: Float[Tensor, "batch length channels"],
        is_real: Bool[Tensor, "batch bins"],
        *,
        with_bases: bool = False,
    ) -> EncoderOutput:
        """The pieces' levels, one after the other."""
        pieces = inputs.reshape(-1, self.piece_bp, inputs.shape[2])
        real = is_real.reshape(len(pieces), -1)
        found = self.encoder.levels(pieces, real, with_bases=with_bases)
        n_windows = len(inputs)

        def join(part: Float[Tensor, "pieces tokens width"]) -> Tensor:
            return part.reshape(n_windows, -1, part.shape[2])

        bases = None if found.bases is None else join(found.bases)
        coarse = join(found.summaries), join(found.regions)
        return EncoderOutput(join(found.bins), *coarse, is_real, bases)


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

"""Ablations of fine-tuning: everything as it was, but for one claimed ingredient.

=================  ==================================================================
`rewired`          a network of the same degrees and signs that means nothing
`no_network`       no network
`random_sets`      gene sets of the same sizes and overlaps, of other genes
`no_sets`          no gene sets
`sequence_only`    neither network nor gene sets: DNA, and where the genes are
`random_encoder`   an encoder that was never pre-trained
`no_expression`    a graph that tells nobody's expression (where `model.neighbour_expression` is on)
=================  ==================================================================

The encoder of these was pre-trained as an ablation (`pretrain.ablations`, under the same name unless said
otherwise), and lies in `ablations` of the folder that pre-training wrote:

======================  =============================================================
`local_only`            summaries and regions hear nothing, at the same cost
`permuted_regions`      bins hear the regions of other places, at the same cost
`constant_rate`         pre-trained at a rate that does not change
`shuffled_pretraining`  pre-trained on a shuffled genome (`shuffled_genome`)
======================  =============================================================
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from genesplice.config import Config
from genesplice.config.training import AblationName, PretrainAblationName
from genesplice.data.ablation import (
    random_gene_sets,
    rewired_network,
    without_gene_sets,
    without_network,
)
from genesplice.data.bundle import Bundle
from genesplice.errors import InputError

ENSEMBLE = "genesplice_ensemble"
_PRETRAINED: dict[AblationName, PretrainAblationName] = {
    "local_only": "local_only",
    "permuted_regions": "permuted_regions",
    "constant_rate": "constant_rate",
    "shuffled_pretraining": "shuffled_genome",
}
_MAKE: dict[AblationName, Callable[[Bundle, int], Bundle]] = {
    "rewired": rewired_network,
    "no_network": lambda bundle, seed: without_network(bundle),
    "random_sets": random_gene_sets,
    "no_sets": lambda bundle, seed: without_gene_sets(bundle),
    "sequence_only": lambda bundle, seed: without_gene_sets(without_network(bundle)),
}


def make_ablation(bundle: Bundle, name: AblationName, seed: int) -> Bundle:
    """The data of an ablation; each seed destroys in another way."""
    return _MAKE[name](bundle, seed) if name in _MAKE else bundle


def ablation_encoder(name: AblationName, init: Path | None) -> Path | None:
    """The folder of the pre-trained encoder that an ablation starts from, where the model's is `init`.

    Raises
    ------
    InputError
        If the ablation's encoder is not there.
    """
    if name == "random_encoder":
        return None
    if name not in _PRETRAINED:
        return init
    trained = _PRETRAINED[name]
    folder = None if init is None else init / "ablations" / trained
    if folder is None or not (folder / "model.safetensors").exists():
        raise InputError(
            f"finetune.ablations {name} without its encoder",
            f"--init of a folder that pretrain wrote with pretrain.ablations={trained}",
            path=folder,
        )
    return folder


def make_ablation_config(config: Config, name: AblationName) -> Config:
    """The settings of an ablation: the model's own, but for what the ablation leaves out.

    Raises
    ------
    InputError
        If it would leave out what is not there.
    """
    if name in ("local_only", "permuted_regions"):
        return dataclasses.replace(config, model=dataclasses.replace(config.model, hierarchy=name))
    if name != "no_expression":
        return config
    if not config.model.neighbour_expression:
        raise InputError(
            "finetune.ablations no_expression", "model.neighbour_expression=true with it"
        )
    return dataclasses.replace(
        config, model=dataclasses.replace(config.model, neighbour_expression=False)
    )


def ablation_label(name: AblationName) -> str:
    """What an ablation's predictions are called."""
    return f"genesplice_{name}"


def add_ensemble(predictions: pd.DataFrame, model: str = "genesplice") -> pd.DataFrame:
    """Add the mean over the seeds of `model`, as a model of its own, where there are several."""
    mine = predictions[predictions["model"] == model]
    if mine["seed"].nunique() < 2:
        return predictions
    keys = ["gene_id", "condition", "fold"]
    mean = mine.groupby(keys, sort=False, observed=True)[["observed", "predicted"]].mean()
    mean = mean.astype("float32").reset_index().assign(model=ENSEMBLE, seed=0)
    return pd.concat([predictions, mean[predictions.columns]], ignore_index=True)

"""Null twins of fine-tuning: everything as it was, but for one claimed ingredient.

=================  ==================================================================
`rewired`          a network of the same degrees and signs that means nothing
`no_network`       no network
`random_sets`      gene sets of the same sizes and overlaps, of other genes
`no_sets`          no gene sets
`sequence_only`    neither network nor gene sets: DNA, and where the genes are
`random_encoder`   an encoder that was never pre-trained
`no_expression`    a graph that tells nobody's expression (where `model.neighbour_expression` is on)
=================  ==================================================================
"""

import dataclasses
from collections.abc import Callable

import pandas as pd

from genesplice.config import Config
from genesplice.config.finetune import TwinName
from genesplice.data.bundle import Bundle
from genesplice.errors import InputError
from genesplice.evaluate.nulls import (
    random_gene_sets,
    rewired_network,
    without_gene_sets,
    without_network,
)

__all__ = ["ENSEMBLE", "add_ensemble", "make_twin", "make_twin_config", "twin_label"]

ENSEMBLE = "genesplice_ensemble"
_MAKE: dict[TwinName, Callable[[Bundle, int], Bundle]] = {
    "rewired": rewired_network,
    "no_network": lambda bundle, seed: without_network(bundle),
    "random_sets": random_gene_sets,
    "no_sets": lambda bundle, seed: without_gene_sets(bundle),
    "sequence_only": lambda bundle, seed: without_gene_sets(without_network(bundle)),
    "random_encoder": lambda bundle, seed: bundle,
    "no_expression": lambda bundle, seed: bundle,
}


def make_twin(bundle: Bundle, name: TwinName, seed: int) -> Bundle:
    """The data of a twin; each seed destroys in another way."""
    return _MAKE[name](bundle, seed)


def make_twin_config(config: Config, name: TwinName) -> Config:
    """The settings of a twin: the model's own, but for what the twin leaves out.

    Raises
    ------
    InputError
        If it would leave out what is not there.
    """
    if name != "no_expression":
        return config
    if not config.model.neighbour_expression:
        raise InputError("finetune.twins no_expression", "model.neighbour_expression=true with it")
    return dataclasses.replace(
        config, model=dataclasses.replace(config.model, neighbour_expression=False)
    )


def twin_label(name: TwinName) -> str:
    """What a twin's predictions are called."""
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

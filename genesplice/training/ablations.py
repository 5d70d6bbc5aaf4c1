"""Ablations: everything as it was, but for one claimed ingredient.

Of pre-training, the same bases are read:

==================  ===========================================================
`masked_only`       no contrastive views, and more steps for what they read
`constant_rate`     the rate does not change: the mean of what the schedule gives
`shuffled_genome`   every training block in random order of its dinucleotides
`local_only`        no summaries and regions, at the same cost
`permuted_regions`  bins receive the regions of other positions
`kmer_tokens`       6-mer tokens that predict each of their bases (`genesplice.model.references`)
`dilated_cnn`       dilated convolutions of the base path's width, as GPN
==================  ===========================================================

Of fine-tuning:

======================  ==================================================================
`rewired`               a network of the same degrees and signs that means nothing
`no_network`            no network
`random_sets`           gene sets of the same sizes and overlaps, of other genes
`no_sets`               no gene sets
`sequence_only`         neither network nor gene sets: DNA, and where the genes are
`random_encoder`        an encoder that was never pre-trained
`exchanged_relatives`   alignment columns of another gene of the strand, about as long
`far_relatives`         alignment columns of the far relatives only
`no_relatives`          no alignment columns
`no_expression`         a graph without expression (where `model.neighbour_expression` is on)
`local_only`, `permuted_regions`, `constant_rate`, `shuffled_pretraining`
                        an encoder that was pre-trained as such an ablation
======================  ==================================================================
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genesplice.config import Config, replace
from genesplice.config.training import AblationName, PretrainAblationName
from genesplice.data import knowledge
from genesplice.data.bundle import Bundle
from genesplice.data.relatives import turn_columns
from genesplice.errors import require
from genesplice.training.corpus import Source
from genesplice.training.schedules import schedule_factors

# --- of pre-training ---


def ablate_pretraining(
    source: Source, config: Config, name: PretrainAblationName
) -> tuple[Source, Config]:
    """What an ablation reads, and its settings."""
    settings, base_width = config.pretrain, config.model.base_width or config.model.width
    config = replace(config, pretrain={"ablations": ()})
    if name == "masked_only":
        return source, masked_only(config)
    if name == "shuffled_genome":
        return _shuffled(source, settings.seed), config
    if name == "constant_rate":
        steps, lowest = settings.steps, settings.lowest_rate
        mean = float(schedule_factors(settings.schedule, steps, lowest=lowest).mean())
        rate = settings.learning_rate * mean
        return source, replace(config, pretrain={"schedule": "constant", "learning_rate": rate})
    changes: dict[str, dict[str, Any]] = {
        "local_only": {"hierarchy": "local_only"},
        "permuted_regions": {"hierarchy": "permuted_regions"},
        "kmer_tokens": {"arch": "kmer_tokens", "base_width": base_width},
        "dilated_cnn": {"arch": "dilated_cnn", "width": base_width},
    }
    return source, replace(config, model=changes[name])


def masked_only(config: Config) -> Config:
    """The same settings without views, and as many steps more as read what these would have."""
    without = replace(config, pretrain={"contrastive_weight": 0.0})
    more = config.pretrain.mean_batch_bp / without.pretrain.mean_batch_bp
    return replace(without, pretrain={"steps": round(config.pretrain.steps * more)})


def _shuffled(source: Source, seed: int) -> Source:
    """A genome whose training and validation blocks keep their dinucleotides and nothing else.

    Alignment columns are in random order too, each counted from the reference's base on: as many
    relatives agree with the new base as agreed with the old one somewhere else.
    """
    tokens, columns = np.array(source.genome.tokens), source.genome.columns
    turned = None if columns is None else [turn_columns(one, tokens, 1) for one in columns]
    generator = np.random.default_rng([seed, 19])
    for name, start, end in [*source.training, *source.validation]:
        # A block may lie across the origin of a circular contig.
        rows, _ = source.genome.indices(name, start, end)
        tokens[rows] = knowledge.dinucleotide_shuffle(tokens[rows], generator)
        if turned is not None:
            order = generator.permutation(rows)
            for one in turned:
                one[rows] = one[order]
    if turned is not None:
        columns = np.stack([turn_columns(one, tokens, -1) for one in turned])
    genome = dataclasses.replace(source.genome, tokens=tokens, columns=columns)
    return source._replace(genome=genome)


# --- of fine-tuning ---


class _Change(NamedTuple):
    """What an ablation changes of the data (by a seed), the model's settings, and the encoder."""

    data: Callable[[Bundle, int], Bundle] | None = None
    model: Mapping[str, Any] = {}
    encoder: PretrainAblationName | None = None


_CHANGES: dict[AblationName, _Change] = {
    "rewired": _Change(knowledge.rewired_network),
    "no_network": _Change(lambda bundle, seed: knowledge.without_network(bundle)),
    "random_sets": _Change(knowledge.random_gene_sets),
    "no_sets": _Change(lambda bundle, seed: knowledge.without_gene_sets(bundle)),
    "sequence_only": _Change(
        lambda bundle, seed: knowledge.without_gene_sets(knowledge.without_network(bundle))
    ),
    "random_encoder": _Change(),
    "exchanged_relatives": _Change(knowledge.exchanged_relatives),
    "far_relatives": _Change(lambda bundle, seed: knowledge.far_relatives(bundle)),
    "no_relatives": _Change(lambda bundle, seed: knowledge.without_relatives(bundle)),
    "no_expression": _Change(model={"neighbour_expression": False}),
    "local_only": _Change(model={"hierarchy": "local_only"}, encoder="local_only"),
    "permuted_regions": _Change(
        model={"hierarchy": "permuted_regions"}, encoder="permuted_regions"
    ),
    "constant_rate": _Change(encoder="constant_rate"),
    "shuffled_pretraining": _Change(encoder="shuffled_genome"),
}


def ablate_finetuning(
    bundle: Bundle, config: Config, init: Path | None, name: AblationName, seed: int
) -> tuple[Bundle, Config, Path | None]:
    """Data (each seed destroys in another way), settings and pre-trained encoder of an ablation.

    Encoders of ablations lie in `ablations` of the folder that pre-training wrote.

    Raises
    ------
    InputError
        If it would leave out what is not there, or its encoder is missing.
    """
    change = _CHANGES[name]
    is_there = name != "no_expression" or config.model.neighbour_expression
    require(is_there, f"finetune.ablations {name}", "model.neighbour_expression=true with it")
    if name == "random_encoder":
        init = None
    if change.encoder is not None:
        init = init and init / "ablations" / change.encoder
        found = f"finetune.ablations {name} without its encoder"
        wanted = f"--init of a folder that pretrain wrote with pretrain.ablations={change.encoder}"
        require(init and (init / "model.safetensors").exists(), found, wanted, init)
    if change.data is not None:
        bundle = change.data(bundle, seed)
    return bundle, replace(config, model=change.model), init

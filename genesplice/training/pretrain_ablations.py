"""Ablations of pre-training: the same bases read, without one ingredient or by another network.

==================  ===========================================================
`masked_only`       no contrastive views, and more steps for what they read
`constant_rate`     the rate does not change: the mean of what the schedule gives
`shuffled_genome`   every training block in random order of its dinucleotides
`local_only`        no summaries and regions, at the same cost
`permuted_regions`  bins hear the regions of other places
`kmer_tokens`       6-mer tokens that tell each of their bases (`genesplice.model.references`)
`dilated_cnn`       dilated convolutions of the base path's width, as GPN
==================  ===========================================================
"""

import dataclasses

import numpy as np

from genesplice.config import Config
from genesplice.config.training import PretrainAblationName, PretrainConfig
from genesplice.data.ablation import dinucleotide_shuffle
from genesplice.training.schedules import schedule_factor
from genesplice.training.source import Source
from genesplice.training.views import StepMaker


def make_ablation(
    source: Source, config: Config, name: PretrainAblationName
) -> tuple[Source, Config]:
    """What an ablation reads, and its settings."""
    config = dataclasses.replace(
        config, pretrain=dataclasses.replace(config.pretrain, ablations=())
    )
    sizes, settings = config.model, config.pretrain
    if name == "masked_only":
        return source, masked_only(source, config)
    if name == "constant_rate":
        settings = dataclasses.replace(
            settings, schedule="constant", learning_rate=settings.learning_rate * _mean(settings)
        )
    elif name == "shuffled_genome":
        source = _shuffled(source, settings.seed)
    elif name == "local_only":
        sizes = dataclasses.replace(sizes, hierarchy="local_only")
    elif name == "permuted_regions":
        sizes = dataclasses.replace(sizes, hierarchy="permuted_regions")
    elif name == "kmer_tokens":
        sizes = dataclasses.replace(sizes, arch=name, base_width=sizes.base_width or sizes.width)
    else:
        width = sizes.base_width or sizes.width
        sizes = dataclasses.replace(sizes, arch=name, width=width)
    return source, dataclasses.replace(config, model=sizes, pretrain=settings)


def masked_only(source: Source, config: Config) -> Config:
    """The same settings without views, and as many steps more as read what these would have."""
    without = dataclasses.replace(
        config, pretrain=dataclasses.replace(config.pretrain, contrastive_weight=0.0)
    )
    bases, fewer = (StepMaker(source, one).bases for one in (config, without))
    steps = round(config.pretrain.steps * bases / fewer)
    return dataclasses.replace(without, pretrain=dataclasses.replace(without.pretrain, steps=steps))


def _mean(settings: PretrainConfig) -> float:
    """Mean share of the peak rate; a rate that waits for plateaus has no schedule, and is 1."""
    if settings.schedule == "plateau":
        return 1.0
    steps, lowest = settings.steps, settings.lowest_rate
    factors = [schedule_factor(settings.schedule, s, steps, lowest=lowest) for s in range(steps)]
    return float(np.mean(factors))


def _shuffled(source: Source, seed: int) -> Source:
    """A genome whose training and validation blocks keep their dinucleotides and nothing else."""
    tokens = np.array(source.genome.tokens)
    generator = np.random.default_rng([seed, 19])
    for contig, start, end in [*source.training, *source.validation]:
        place = source.genome.contig(contig)
        # A block may lie across the origin of a circular contig.
        rows = place.offset + np.arange(start, end) % place.length
        tokens[rows] = dinucleotide_shuffle(tokens[rows], generator)
    return source._replace(genome=dataclasses.replace(source.genome, tokens=tokens))

"""Small settings and small genomes that the tests of pre-training share."""

import dataclasses

import numpy as np
import torch

import genesplice as gs
from genesplice.data.genome import Contig, Genome
from genesplice.training.corpus import Source

SETTINGS = [
    "model.relatives=false", "finetune.fewest_genes=1",
    "model.width=16", "model.heads=2", "model.base_width=4", "model.region_layers=1",
    "model.summary_layers=1", "pretrain.window_bp=2048", "pretrain.batch_windows=2",
    "pretrain.steps=5", "pretrain.checkpoint_minutes=0.0001", "pretrain.contrastive_width=8",
    "pretrain.measure=false", "pretrain.views_every=1", "pretrain.view_windows=2",
    "pretrain.queue=1024",
]  # fmt: skip


def config(*more):
    return gs.override(gs.load_preset("quick"), [*SETTINGS, *more])


def random_tokens(*shape, seed=0):
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.integers(0, 4, shape).astype(np.uint8))


def with_genome(bundle, tokens):
    return dataclasses.replace(bundle, genome=dataclasses.replace(bundle.genome, tokens=tokens))


def with_other_blocks(bundle, folds):
    """The same bundle with every base of some folds' blocks replaced by another one."""
    tokens = np.array(bundle.genome.tokens)
    for block in bundle.blocks[bundle.blocks["fold"].isin(folds)].itertuples():
        where = np.arange(block.start, block.end) % len(tokens)
        tokens[where] = (tokens[where] + 1) % 4
    return with_genome(bundle, tokens)


def make_source(length=40_000, soft_masked=(), **more):
    """One linear contig of random bases, all of it trained on."""
    tokens = random_tokens(length, seed=3).numpy()
    masked = np.array(soft_masked, np.int64).reshape(-1, 2)
    genome = Genome(tokens, (Contig("chr", 0, length, False),), masked)
    everything = [("chr", 0, length)]
    record = {"fold": None, "blocks": [], "validation_blocks": [], "intervals": []}
    return Source(genome, everything, [], everything, record, **more)

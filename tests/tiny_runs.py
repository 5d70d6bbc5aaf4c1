"""Small settings and small genomes that the tests of pre-training share."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

import genesplice as gs
from genesplice.context.controls import control_environment
from genesplice.data.genome import Contig, Genome
from genesplice.data.simulate import CONTROLS
from genesplice.runtime import processor, versions, write_json
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


def write_passed_controls(folder: Path, settings: str) -> Path:
    """A record of controls that came out as planted with these settings; none was trained.

    `nothing` passed longest ago: it is run again, and passes where only a huge effect is of
    interest.
    """
    chosen = gs.override(gs.load_preset("quick"), settings.split())
    slope = {"slope": 0.0, "ci_low": -0.01, "ci_high": 0.01, "minimum_detectable": 0.02}
    controls = [
        {"control": kind, "expected": answer, "answer": answer, "sentence": "",
         "made": {"when": "2026-11-01" if kind == "nothing" else "2026-11-02", "system": "Linux",
                  "processor": processor(), "versions": versions()},
         "slopes": [{"metric": "level_r2", **slope}]}
        for kind, answer in CONTROLS.items()
    ]  # fmt: skip
    folder.mkdir(parents=True)
    record = {"passed": True, "failures": {}, "steps": 0, "cpu_seconds": 0.0, "seed": 0}
    record |= {"smallest_effect": 0.02, "element_distance_bp": [1024, 3312]}
    write_json(
        folder / "controls.json", record | {"controls": controls} | control_environment(chosen)
    )
    return folder

"""Small models with random weights, whose every part answers to the sequence."""

import torch

import genesplice as gs
from genesplice.training.finetuning import make_model

SMALL = (
    "model.relatives=false", "finetune.fewest_genes=1",
    "model.width=16", "model.heads=2", "model.base_width=4", "model.region_layers=2",
    "model.summary_layers=1", "model.bin_window=4", "model.summary_window=2",
)  # fmt: skip


def make_tiny(bundle, *settings: str, seed: int = 0):
    """A model of `SMALL` sizes, in evaluation mode, with scales fitted to the bundle."""
    torch.manual_seed(seed)
    config = gs.override(gs.load_preset("quick"), [*SMALL, *settings])
    model = make_model(bundle, config).eval()
    model.expression_head.fit(torch.from_numpy(bundle.observed.to_numpy(dtype="float32")))
    return model


def make_vectors(model, bundle, seed: int = 1) -> torch.Tensor:
    """What a model might read of every gene; random."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(bundle.genes), len(model.readout.centre), generator=generator)

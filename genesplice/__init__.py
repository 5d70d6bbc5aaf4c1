"""Measure whether DNA context, networks or pre-training help predict expression on your data.

>>> import genesplice as gs
>>> bundle = gs.load_bundle("data/ecoli")
>>> values = gs.predict_expression(gs.GeneSplice.from_pretrained("model"), bundle)
"""

import importlib
import os
from typing import Any

__version__ = "0.1.0"

# OpenMP threads that spin while they wait take the cores from whatever runs beside them: on two
# shared cores a training step took up to 17 times longer. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Loaded when first asked for: `genesplice --help` need not wait for torch.
_PUBLIC = {
    "Bundle": "genesplice.data.bundle",
    "Config": "genesplice.config",
    "GeneSplice": "genesplice.model.genesplice",
    "InputError": "genesplice.errors",
    "WorkError": "genesplice.errors",
    "finetune": "genesplice.training.finetuning",
    "load_bundle": "genesplice.data.bundle",
    "load_preset": "genesplice.config",
    "override": "genesplice.config",
    "predict_expression": "genesplice.predict.expression",
    "prepare_files": "genesplice.data.prepare",
    "prepare_recipe": "genesplice.data.prepare",
    "pretrain": "genesplice.training.pretraining",
    "run_baselines": "genesplice.baselines.methods",
    "score": "genesplice.evaluate.metrics",
}
_PARTS = ("data", "evaluate", "explain", "model", "show", "training")

__all__ = [*_PUBLIC, *_PARTS, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _PARTS:
        return importlib.import_module(f"genesplice.{name}")
    raise AttributeError(f"module 'genesplice' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)

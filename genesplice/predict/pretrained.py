"""Read back what `pretrain` wrote, heads included."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from genesplice.config import ModelConfig, PretrainConfig
from genesplice.errors import InputError
from genesplice.model.genesplice import PretrainingModel


def load_pretrained(directory: Path) -> PretrainingModel:
    """Load an encoder with its masked-base and contrastive heads, ready to be asked.

    Raises
    ------
    InputError
        If the folder holds no finished run, or one that this version cannot read.
    """
    for name in ("run.json", "model.safetensors"):
        if not (directory / name).is_file():
            raise InputError(f"no {name}", "a folder that pretrain wrote", path=directory)
    try:
        settings = json.loads((directory / "run.json").read_text())
        sizes = ModelConfig(**settings["model"])
        width = PretrainConfig(**settings["pretrain"]).contrastive_width
        model = PretrainingModel(sizes, width)
        model.load_state_dict(load_file(directory / "model.safetensors"))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        first = str(error).splitlines()[0][:120]
        raise InputError(
            f"a run that cannot be read ({first})", "one of this version", path=directory
        ) from error
    return model.eval()


def encoder_sentence(init: Path, folds: Sequence[int]) -> str:
    """Which of the held-out `folds` an encoder has read; of random weights where `init` is none."""
    settings = _settings(init)
    if settings is None:
        return "The encoder has random weights: it was not pre-trained."
    held_out = settings["holdout_fold"]
    seen = [fold for fold in folds if fold != held_out]
    if not seen:
        return f"The encoder was pre-trained without the sequence of fold {held_out}."
    unseen = "" if held_out not in folds else f"; of fold {held_out} it has read nothing"
    return (
        "The encoder has read the sequence, never the expression, of the genes that are held out "
        f"in {'folds' if len(seen) > 1 else 'fold'} {', '.join(map(str, seen))}{unseen}."
    )


def refuse_told_genes(init: Path | None, folds: Sequence[int]) -> None:
    """See that no held-out gene was told its operon or regulon in pre-training.

    Raises
    ------
    InputError
        If the encoder in `init` had views of operons or regulons, and one of `folds` was not held
        out from them.
    """
    settings = None if init is None else _settings(init)
    if settings is None or not settings["contrastive_weight"]:
        return
    told = [view for view in settings["views"] if view in ("operon", "regulon")]
    seen = [fold for fold in folds if fold != settings["holdout_fold"]]
    if told and seen:
        raise InputError(
            f"an encoder with views of {' and '.join(told)} for held-out fold {seen[0]}",
            f"finetune.folds={settings['holdout_fold']}, which pre-training held out",
            path=init,
        )


def _settings(init: Path) -> dict[str, Any] | None:
    path = init / "run.json"
    return json.loads(path.read_text())["pretrain"] if path.exists() else None

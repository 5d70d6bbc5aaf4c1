"""Read back what `pretrain` wrote, heads included."""

import json
from pathlib import Path

from safetensors.torch import load_file

from genesplice.config import ModelConfig, PretrainConfig
from genesplice.errors import InputError
from genesplice.model.genesplice import PretrainingModel

__all__ = ["load_pretrained"]


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

"""Few new numbers on a frozen encoder, and checkpoints of what changed.

==========  =================================================================================
`lora`      W + up down on every matrix of the transformer blocks, of a small rank; up starts
            at 0. Source: Hu et al., LoRA, 2022, equation 3
`ia3`       keys, values and the hidden layer of the perceptrons times a vector that starts at
            1. Source: Liu et al., Few-shot parameter-efficient fine-tuning, 2022, section 3.3
==========  =================================================================================

A delta is a `model.safetensors` with the tensors that its base lacks or has otherwise, and with
adapters in place of the matrices they change; its header names the base and its sha256.

Not `peft`: with transformers and accelerate it is 155 MB and takes 2.9 s of CPU to import.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from genesplice.errors import InputError
from genesplice.model.sequence import Block
from genesplice.runtime import file_sha256

AdapterName = Literal["lora", "ia3"]
WEIGHTS = "model.safetensors"
DOWN, UP, SCALE = "down:", "up:", "scale:"


class LowRank(nn.Module):
    """A weight with `up @ down` added to it."""

    def __init__(self, weight: Float[Tensor, "out n"], rank: int) -> None:
        super().__init__()
        n_out, n_in = weight.shape
        self.down = nn.Parameter(torch.randn(rank, n_in) / n_in**0.5)
        self.up = nn.Parameter(torch.zeros(n_out, rank))

    def forward(self, weight: Float[Tensor, "out n"]) -> Float[Tensor, "out n"]:
        """The weight that is used."""
        return weight + self.up @ self.down

    def tensors(self) -> dict[str, Tensor]:
        """What a delta keeps of it."""
        return {DOWN: self.down, UP: self.up}


class Scale(nn.Module):
    """A weight whose rows (`axis` 0, outputs) or columns (1, inputs) are scaled.

    The first `n_fixed` of them stay as they are.
    """

    def __init__(self, weight: Float[Tensor, "out n"], *, axis: int, n_fixed: int = 0) -> None:
        super().__init__()
        self.axis, self.n_fixed = axis, n_fixed
        self.scale = nn.Parameter(torch.ones(weight.shape[axis] - n_fixed))

    def factors(self) -> Float[Tensor, "rows columns"]:
        """All factors, shaped so that they multiply the weight."""
        return torch.cat([self.scale.new_ones(self.n_fixed), self.scale]).unsqueeze(1 - self.axis)

    def forward(self, weight: Float[Tensor, "out n"]) -> Float[Tensor, "out n"]:
        """The weight that is used."""
        return weight * self.factors()

    def tensors(self) -> dict[str, Tensor]:
        """What a delta keeps of it."""
        return {SCALE: self.factors()}


def transformer_blocks(encoder: nn.Module) -> list[Block]:
    """The encoder's transformer blocks, in the order in which a window passes them.

    Raises
    ------
    InputError
        If it has none: a convolutional encoder.
    """
    blocks = [module for module in encoder.modules() if isinstance(module, Block)]
    if not blocks:
        raise InputError("an encoder without transformer blocks", "finetune.mode full, head, probe")
    return blocks


def add_adapters(encoder: nn.Module, name: AdapterName, rank: int = 8) -> None:
    """Put adapters on every transformer block (`lora` of `rank`); at first they change nothing."""
    adapters: list[tuple[nn.Linear, nn.Module]] = []
    for block in transformer_blocks(encoder):
        if name == "lora":
            layers = block.qkv, block.out, block.expand, block.contract
            adapters += [(layer, LowRank(layer.weight, rank)) for layer in layers]
        else:
            # Queries come first in `qkv`, and are left alone.
            n_queries = block.qkv.in_features
            adapters.append((block.qkv, Scale(block.qkv.weight, axis=0, n_fixed=n_queries)))
            adapters.append((block.contract, Scale(block.contract.weight, axis=1)))
    for layer, adapter in adapters:
        parametrize.register_parametrization(layer, "weight", adapter)


def merge_adapters(model: nn.Module) -> dict[str, Tensor]:
    """Turn weights with adapters into plain weights; give the adapters as a delta keeps them."""
    kept: dict[str, Tensor] = {}
    for name, layer in list(model.named_modules()):
        if parametrize.is_parametrized(layer, "weight"):
            (adapter,) = layer.parametrizations["weight"]  # type: ignore[index]
            for kind, value in adapter.tensors().items():
                kept[f"{kind}{name}.weight"] = value.detach().clone().contiguous()
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return kept


def save_delta(
    model: nn.Module, adapters: Mapping[str, Tensor], base: Path, directory: Path
) -> None:
    """Write `directory/model.safetensors` as the difference to `base/model.safetensors`.

    `adapters` are those of `merge_adapters`. The delta finds `base` relative to `directory`.
    """
    before, adapted = load_file(base / WEIGHTS), {key.split(":", 1)[1] for key in adapters}
    changed = {
        name: value.contiguous()
        for name, value in model.state_dict().items()
        if name not in adapted and not (name in before and torch.equal(before[name], value.cpu()))
    }
    header = {
        "format": "pt",
        "base": os.path.relpath(base, directory),
        "base_sha256": file_sha256(base / WEIGHTS),
    }
    save_file({**changed, **adapters}, directory / WEIGHTS, metadata=header)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises
    ------
    InputError
        If it is damaged or something else.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"damaged weights ({error})", "safetensors", path=path) from error


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file; those of a delta with the encoder of its base.

    Raises
    ------
    InputError
        If the file is damaged, or the base of a delta is gone, or is not what it was.
    """
    weights = read_weights(path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
    if "base" not in header:
        return weights
    base_path = path.parent / header["base"] / WEIGHTS
    if not base_path.is_file():
        raise InputError("a delta without its base", str(base_path.resolve()), path=path)
    if file_sha256(base_path) != header["base_sha256"]:
        raise InputError(
            f"another base in {base_path.resolve()}", "the one trained from", path=path
        )
    base = load_file(base_path)
    state = {name: value for name, value in base.items() if name.startswith("encoder.")}
    for key, value in weights.items():
        name = key.split(":", 1)[-1]
        if key.startswith(UP):
            state[name] = base[name] + value @ weights[DOWN + name]
        elif key.startswith(SCALE):
            state[name] = base[name] * value
        elif not key.startswith(DOWN):
            state[name] = value
    return state

"""Few new numbers on an encoder that stands still, and checkpoints of what changed.

==========  =================================================================================
`lora`      W + up down on every matrix of the transformer blocks, of a small rank; up starts
            at 0. Source: Hu et al., LoRA, 2022, equation 3
`ia3`       keys, values and the hidden layer of the perceptrons times a vector that starts at
            1. Source: Liu et al., Few-shot parameter-efficient fine-tuning, 2022, section 3.3
==========  =================================================================================

A delta is a `model.safetensors` with the tensors that its base lacks or has otherwise, and with
adapters in place of the matrices they change; its header names the base and its sha256.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from genesplice.errors import InputError
from genesplice.model.layers import Block
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

    def tensors(self, name: str) -> dict[str, Tensor]:
        """What a delta keeps of it."""
        return {DOWN + name: self.down.detach(), UP + name: self.up.detach()}


class Scale(nn.Module):
    """A weight whose rows (what comes out) or columns (what goes in) are scaled.

    The first `n_fixed` of them stay as they are.
    """

    def __init__(self, weight: Float[Tensor, "out n"], *, is_rows: bool, n_fixed: int = 0) -> None:
        super().__init__()
        self.is_rows = is_rows
        size = weight.shape[0 if is_rows else 1]
        self.scale = nn.Parameter(torch.ones(size - n_fixed))
        self.n_fixed = n_fixed

    def whole(self) -> Tensor:
        """All factors, shaped so that they multiply the weight."""
        factors = torch.cat([self.scale.new_ones(self.n_fixed), self.scale])
        return factors[:, None] if self.is_rows else factors[None, :]

    def forward(self, weight: Float[Tensor, "out n"]) -> Float[Tensor, "out n"]:
        """The weight that is used."""
        return weight * self.whole()

    def tensors(self, name: str) -> dict[str, Tensor]:
        """What a delta keeps of it."""
        return {SCALE + name: self.whole().detach().contiguous()}


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
    """Put adapters on every transformer block; until they learn, the encoder says the same.

    Parameters
    ----------
    rank
        Of `lora`.
    """
    for block in transformer_blocks(encoder):
        if name == "lora":
            for layer in (block.qkv, block.out, block.expand, block.contract):
                _put(layer, LowRank(layer.weight, rank))
        else:
            # Queries come first in `qkv`, and are left alone.
            n_queries = block.qkv.in_features
            _put(block.qkv, Scale(block.qkv.weight, is_rows=True, n_fixed=n_queries))
            _put(block.contract, Scale(block.contract.weight, is_rows=False))


def _put(layer: nn.Module, adapter: nn.Module) -> None:
    parametrize.register_parametrization(layer, "weight", adapter)


def merge_adapters(model: nn.Module) -> dict[str, Tensor]:
    """Turn weights with adapters into plain weights; give the adapters as a delta keeps them."""
    kept: dict[str, Tensor] = {}
    for name, layer, adapter in list(_adapted(model)):
        kept |= {key: value.clone() for key, value in adapter.tensors(f"{name}.weight").items()}
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return kept


def _adapted(model: nn.Module) -> Iterator[tuple[str, nn.Module, LowRank | Scale]]:
    for name, layer in model.named_modules():
        if parametrize.is_parametrized(layer, "weight"):
            (adapter,) = layer.parametrizations["weight"]  # type: ignore[index]
            yield name, layer, adapter


def save_delta(
    model: nn.Module, adapters: Mapping[str, Tensor], base: Path, directory: Path
) -> None:
    """Write `directory/model.safetensors` as what `base/model.safetensors` does not say already.

    Parameters
    ----------
    adapters
        What `merge_adapters` gave, if there were any.
    base
        A folder with weights; the delta finds it again relative to `directory`.
    """
    before, names = load_file(base / WEIGHTS), {key.split(":", 1)[1] for key in adapters}
    changed = {
        name: value.contiguous()
        for name, value in model.state_dict().items()
        if name not in names and not (name in before and torch.equal(before[name], value.cpu()))
    }
    header = {
        "format": "pt",
        "base": os.path.relpath(base, directory),
        "base_sha256": file_sha256(base / WEIGHTS),
    }
    save_file({**changed, **adapters}, directory / WEIGHTS, metadata=header)


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file; those of a delta with the encoder of its base.

    Raises
    ------
    InputError
        If the base of a delta is gone, or is not what it was.
    """
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
    weights = load_file(path)
    if "base" not in header:
        return weights
    base = path.parent / header["base"] / WEIGHTS
    if not base.is_file():
        raise InputError("a delta without its base", str(base.resolve()), path=path)
    if file_sha256(base) != header["base_sha256"]:
        raise InputError(f"another base in {base.resolve()}", "the one trained from", path=path)
    return apply_delta(load_file(base), weights)


def apply_delta(base: Mapping[str, Tensor], delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder of `base`, changed as `delta` says, and everything else that `delta` has."""
    state = {name: value for name, value in base.items() if name.startswith("encoder.")}
    for key, value in delta.items():
        name = key.split(":", 1)[-1]
        if key.startswith(UP):
            state[name] = base[name] + value @ delta[DOWN + name]
        elif key.startswith(SCALE):
            state[name] = base[name] * value
        elif not key.startswith(DOWN):
            state[name] = value
    return state

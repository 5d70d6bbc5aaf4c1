"""Few new numbers on a frozen encoder, and checkpoints of what changed.

==========  =================================================================================
`lora`      W + up down on every matrix of the transformer blocks, of a small rank; up starts
            at 0. Source: Hu et al., LoRA, 2022, equation 3
`ia3`       keys, values and the hidden layer of the perceptrons times a vector that starts at
            1. Source: Liu et al., Few-shot parameter-efficient fine-tuning, 2022, section 3.3
==========  =================================================================================

A delta is a `model.safetensors` with the tensors that its base lacks or has otherwise, and with
adapters in place of the matrices they change; its header names the base and its sha256.

What a linear head reads of a short sequence, frozen or adapted, stands below.

Not `peft`: with transformers and accelerate it is 155 MB and takes 2.9 s of CPU to import.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from genesplice.errors import InputError, require
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.sequence import N_TOKEN, Block, InputChannels, SequenceEncoder
from genesplice.runtime import atomic_file, file_sha256

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
    require(blocks, "an encoder without transformer blocks", "finetune.mode full, head, probe")
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
    with atomic_file(directory / WEIGHTS) as partial:
        save_file({**changed, **adapters}, partial, metadata=header)


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
    where = base_path.resolve()
    require(base_path.is_file(), "a delta without its base", str(where), path)
    is_same = file_sha256(base_path) == header["base_sha256"]
    require(is_same, f"another base in {where}", "the one trained from", path)
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


# --- a value or classes of a short sequence ---

Strand = tuple[Tensor, ...]


class TaskNetwork(nn.Module):
    """Features of a sequence, the mean over its strands, and a linear map of these."""

    def __init__(self, reader: nn.Module, layer: nn.Linear) -> None:
        super().__init__()
        self.reader, self.layer = reader, layer

    @torch.no_grad()
    def rescale(self, mean: Tensor, scale: float) -> None:
        """Predict (y - mean) / scale where the layer predicted y."""
        self.layer.weight.div_(scale)
        self.layer.bias.sub_(mean).div_(scale)

    def forward(self, strands: list[Strand]) -> Float[Tensor, "batch targets"]:
        """Numbers of every sequence."""
        return self.layer(torch.stack([self.reader(*one) for one in strands]).mean(0))


def linear(weight: Float[np.ndarray, "n out"], bias: Float[np.ndarray, " out"]) -> nn.Linear:
    """The layer x @ weight + bias."""
    layer = nn.Linear(*weight.shape)
    layer.weight.data = torch.from_numpy(weight.T.copy()).float()
    layer.bias.data = torch.from_numpy(bias).float()
    return layer


class Reader(nn.Module):
    """Features of one strand: mean and maximum over bins, and over means of a bin's bases.

    With `n_flat` so many bins one after another too, for sequences that are aligned.
    """

    def __init__(self, encoder: SequenceEncoder, n_flat: int) -> None:
        super().__init__()
        self.encoder, self.n_flat = encoder, n_flat
        self.n_of_bins = (n_flat + 2) * encoder.width

    def forward(self, tokens: Tensor) -> Float[Tensor, "batch features"]:
        """Encode and pool."""
        found = self.encoder(tokens, with_bases=self.encoder.base_width > 0)
        parts = [self.pooled(found.bins, found.is_real)]
        if found.bases is not None:
            bases = found.bases.unflatten(1, (-1, self.encoder.bin_bp)).mean(2)
            parts.append(self.pooled(bases, found.is_real))
        return torch.cat(parts, 1).float()

    def pooled(self, x: Tensor, is_real: Tensor) -> Tensor:
        """Of all bins that are real."""
        real = is_real[..., None]
        mean = (x * real).sum(1) / real.sum(1)
        most = x.masked_fill(~real, -torch.inf).amax(1)
        return torch.cat([x[:, : self.n_flat].flatten(1), mean, most], 1)


class Entrance(nn.Module):
    """Bins of the first `length_bp` as they are before any attention."""

    def __init__(self, encoder: HierarchicalEncoder, length_bp: int) -> None:
        super().__init__()
        self.encoder, self.length_bp = encoder, length_bp

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode no further than there."""
        return self.encoder.enter(self.encoder.channels(tokens[:, : self.length_bp]))[0]


class _Nothing(nn.Identity):
    """In place of a stem: bins are given."""

    left = right = 0


class AdaptedReader(Reader):
    """The same features from bins as they are before attention: all that adapters change.

    What bases say is taken as the encoder without adapters had it.
    """

    def __init__(self, encoder: HierarchicalEncoder, n_flat: int) -> None:
        super().__init__(encoder, n_flat)
        encoder.add_module("stem", _Nothing())
        encoder.base_path, encoder.margins = None, (0, 0)

    def forward(  # type: ignore[override]
        self, tokens: Tensor, bins: Tensor, bases: Tensor
    ) -> Tensor:
        """Run the levels of attention and pool."""
        is_real = (tokens != N_TOKEN).unflatten(1, (-1, self.encoder.bin_bp)).any(-1)
        bins = F.pad(bins, (0, 0, 0, is_real.shape[1] - bins.shape[1]))
        found = self.encoder.encode(bins, is_real)
        return torch.cat([self.pooled(found.bins, is_real), bases], 1)


class SmallCnn(nn.Module):
    """Two convolutions on bases, and the largest value in each eighth of the sequence."""

    width = 64 * 8

    def __init__(self, length_bp: int) -> None:
        super().__init__()
        self.length_bp, self.channels = length_bp, InputChannels()
        self.layers = nn.Sequential(
            nn.Conv1d(4, 64, 11, padding=5), nn.ReLU(), nn.MaxPool1d(4, ceil_mode=True),
            nn.Conv1d(64, 64, 5, padding=2), nn.ReLU(), nn.AdaptiveMaxPool1d(8), nn.Flatten(),
        )  # fmt: skip

    def forward(self, tokens: Tensor) -> Float[Tensor, "batch features"]:
        """Features of one strand."""
        return self.layers(self.channels(tokens[:, : self.length_bp]).transpose(1, 2))

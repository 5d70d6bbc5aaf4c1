"""What the bench runs: this kit's encoders and the peers, all as tokens -> numbers."""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from genesplice.config import ModelConfig
from genesplice.errors import InputError
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.genesplice import make_encoder
from genesplice.model.sequence import InputChannels

__all__ = ["MODELS", "OURS", "make_workload", "require_peers"]

OURS: dict[str, Any] = {"width": 256, "heads": 8, "annotation": False, "dropout": 0.0}
ENFORMER: dict[str, Any] = {"dim": 288, "depth": 4, "heads": 4, "dim_divisible_by": 24}


class Ours(nn.Module):
    """An encoder of this kit and a read-out of one number a bin."""

    def __init__(self, *, checkpointing: bool = False, with_bases: bool = False, **sizes: Any):
        super().__init__()
        self.encoder = make_encoder(ModelConfig(**(OURS | sizes)))
        self.with_bases = with_bases
        if isinstance(self.encoder, HierarchicalEncoder):
            self.encoder.checkpointing = checkpointing
        self.read = nn.Linear(self.encoder.base_width if with_bases else self.encoder.width, 1)

    def forward(self, tokens: UInt8[Tensor, "batch length"]) -> Float[Tensor, "batch out"]:
        """One number a bin, or a base with the base path."""
        found = self.encoder(tokens, with_bases=self.with_bases)
        return self.read(found.bases if self.with_bases else found.bins)[..., 0]


class EnformerPeer(nn.Module):
    """enformer-pytorch's trunk, with one output track."""

    def __init__(self, **sizes: Any) -> None:
        super().__init__()
        from enformer_pytorch import Enformer, EnformerConfig

        config = EnformerConfig(
            **(ENFORMER | sizes),
            output_heads={"human": 1},
            target_length=-1,
            dropout_rate=0.0,
            attn_dropout=0.0,
            pos_dropout=0.0,
        )
        self.model = Enformer(config)
        self.channels = InputChannels()

    def forward(self, tokens: UInt8[Tensor, "batch length"]) -> Float[Tensor, "batch out"]:
        """One number for every 128 bp."""
        return self.model(self.channels(tokens, None), head="human")[..., 0]


def require_peers() -> None:
    """Refuse before anything was measured.

    Raises
    ------
    InputError
        If enformer-pytorch is not installed.
    """
    if importlib.util.find_spec("enformer_pytorch") is None:
        raise InputError("--peers without enformer-pytorch", "pip install -e '.[bench]' first")


MODELS: dict[str, Callable[..., nn.Module]] = {"ours": Ours, "enformer": EnformerPeer}


def make_workload(
    name: str, length: int, sizes: dict[str, Any], *, seed: int = 0
) -> tuple[nn.Module, UInt8[Tensor, "1 length"]]:
    """A model of random weights and one window of random bases."""
    torch.manual_seed(seed)
    model = MODELS[name](**sizes)
    return model, torch.randint(0, 4, (1, length), dtype=torch.uint8)

"""Attention with Enformer's relative positions, written out (there is no fused kernel for it)."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

__all__ = ["RelativeBlock", "relative_basis"]


def relative_basis(length: int, count: int, device: torch.device) -> Float[Tensor, "offsets count"]:
    """Functions of the offset j - i = -(length - 1) … length - 1: decays and central masks.

    Half of them symmetric, half with the sign of the offset. Half-lives double from 3 tokens to
    the length; masks widen likewise.

    Source: Avsec et al., Enformer, 2021, methods, 'relative positional basis functions' (without
    its gamma functions).
    """
    if count % 4:
        raise ValueError(f"{count} basis functions: a multiple of 4 is needed")
    offset = torch.arange(-(length - 1), length, device=device, dtype=torch.float32)
    steps = torch.linspace(0, 1, count // 4, device=device)
    half_life = 3.0 * (max(length, 6) / 3.0) ** steps
    decay = torch.exp(-math.log(2) * offset.abs()[:, None] / half_life)
    mask = (offset.abs()[:, None] <= half_life).float()
    symmetric = torch.cat([decay, mask], 1)
    return torch.cat([symmetric, symmetric * offset.sign()[:, None]], 1)


def shift_rows(x: Float[Tensor, "B H T offsets"]) -> Float[Tensor, "B H T T"]:
    """From scores by offset (query i, j - i + T - 1) to scores by key (i, j)."""
    batch, heads, length, _ = x.shape
    key = torch.arange(length, device=x.device)
    place = key[None, :] - key[:, None] + length - 1
    return x.gather(3, place.expand(batch, heads, length, length))


class RelativeBlock(nn.Module):
    """Pre-norm block: content scores plus relative-position scores, then a perceptron."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.n_basis = max(4, width // 4 // 4 * 4)
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.position = nn.Linear(self.n_basis, width, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(heads, 1, self.head_width))
        self.position_bias = nn.Parameter(torch.zeros(heads, 1, self.head_width))
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], is_real: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Tokens that are not real are no keys; a row without any attends to itself."""
        batch, length, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        basis = relative_basis(length, self.n_basis, x.device)
        relative = self.position(basis).view(-1, self.heads, self.head_width).transpose(0, 1)
        content = (q + self.content_bias) @ k.transpose(2, 3)
        by_offset = (q + self.position_bias) @ relative.transpose(1, 2)
        scores = (content + shift_rows(by_offset)) / math.sqrt(self.head_width)
        allowed = is_real[:, None, :] | torch.eye(length, dtype=torch.bool, device=x.device)
        scores = scores.masked_fill(~allowed[:, None], -math.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.dropout(self.out(mixed))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))

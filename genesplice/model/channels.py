"""Input channels of every encoder: bases, and what is known of them on the strand that is read."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from genesplice.config.model import COMPLEMENT_COUNTS, RELATIVE_GROUPS

N_TOKEN = 4
MASK_TOKEN = 5
N_PHASES = 5
RELATIVE_CHANNELS = 6 * RELATIVE_GROUPS
"""Of each group shares of A, C, G, T and gaps, and how many relatives are aligned."""

Tokens = UInt8[Tensor, "batch length"]
Columns = UInt8[Tensor, "batch length groups 5"]
Inputs = Float[Tensor, "batch length channels"]


class InputChannels(nn.Module):
    """Tokens to channels: A, C, G, T one-hot, N uniform, a masked base zero.

    With `annotation`, four more: coding phase 1-3 and gene body on this strand. With `relatives`,
    six more for each group of relatives: how often A, C, G, T and a gap stand in the alignment
    column, and n / (n + 1) of the n relatives that are aligned there. Of groups that are not in
    `groups_read` they are zero, as where nothing is aligned.
    """

    base_table: Tensor
    phase_table: Tensor
    groups_read: Tensor

    def __init__(self, annotation: bool = False, relatives: bool = False) -> None:
        super().__init__()
        self.annotation, self.relatives = annotation, relatives
        self.count = 4 + (N_PHASES - 1) * annotation + RELATIVE_CHANNELS * relatives
        self.register_buffer("groups_read", torch.ones(RELATIVE_GROUPS), persistent=False)
        table = torch.cat([torch.eye(4), torch.full((1, 4), 0.25), torch.zeros(1, 4)])
        self.register_buffer("base_table", table, persistent=False)
        self.register_buffer("phase_table", torch.eye(N_PHASES)[:, 1:], persistent=False)

    def forward(
        self, tokens: Tokens, phase: Tokens | None = None, columns: Columns | None = None
    ) -> Inputs:
        """The channels; without `phase` nothing is annotated, without `columns` aligned."""
        channels = [F.embedding(tokens.int(), self.base_table)]
        if self.annotation:
            phase = torch.zeros_like(tokens) if phase is None else phase
            channels.append(F.embedding(phase.int(), self.phase_table))
        if self.relatives and columns is not None and columns.shape[2]:
            channels.append(self._frequencies(columns))
        elif self.relatives:
            channels.append(channels[0].new_zeros(*tokens.shape, RELATIVE_CHANNELS))
        return torch.cat(channels, -1)

    def _frequencies(self, columns: Columns) -> Float[Tensor, "batch length relatives"]:
        counts = columns * self.groups_read[:, None]
        aligned = counts.sum(-1, keepdim=True)
        shares = torch.cat([counts / aligned.clamp(min=1), aligned / (aligned + 1)], -1)
        return shares.flatten(2)


def conserved(
    inputs: Float[Tensor, "rows length channels"],
) -> Float[Tensor, "rows length relatives"]:
    """Of every group of relatives: how many are aligned, n / (n + 1), and how many of them agree.

    The channels are those of an encoder that reads relatives. Where a base is hidden or unknown
    none or a quarter agrees.
    """
    groups = inputs[..., -RELATIVE_CHANNELS:].unflatten(-1, (RELATIVE_GROUPS, 6))
    same = (groups[..., :4] * inputs[..., None, :4]).sum(-1)
    return torch.cat([groups[..., 5], same], -1)


def reverse_columns(columns: Columns) -> Columns:
    """Alignment columns of the other strand, 5' to 3'."""
    return columns.flip(1)[..., COMPLEMENT_COUNTS]


def fill_unknown(inputs: Inputs, left: int, right: int) -> Float[Tensor, "batch longer channels"]:
    """Add unknown bases on both ends: uniform over A, C, G, T, no annotation."""
    padded = F.pad(inputs, (0, 0, left, right))
    uniform = torch.full_like(padded[:1, :1, :4], 0.25)
    padded[:, :left, :4] = uniform
    padded[:, padded.shape[1] - right :, :4] = uniform
    return padded

"""The contrastive part of a step: vectors of stretches, what they must find, and what not.

Each view keeps the vectors of earlier steps, first in, first out: they are negatives too, at the
cost of a product. They came from slightly older weights, and no gradient goes through them.

Source: Wang et al., Cross-batch memory for embedding learning, 2020.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from genesplice.training.views import Keys


def are_related(one: Keys, other: Keys) -> Bool[Tensor, "pairs others"]:
    """Say which pairs show the same: a base of the genome in common, or a group.

    Such pairs must not be pushed apart.
    """
    start, end = one.spans[..., 0], one.spans[..., 1]
    first, last = other.spans[..., 0], other.spans[..., 1]
    meets = (start[:, None, :, None] < last[None, :, None]) & (
        first[None, :, None] < end[:, None, :, None]
    )
    found = meets.flatten(2).any(2)
    if one.groups.shape[1]:
        same = one.groups[:, None, :, None] == other.groups[None, :, None]
        found |= (same & (one.groups >= 0)[:, None, :, None]).flatten(2).any(2)
    return found


def stretch_vectors(
    summaries: Float[Tensor, "batch summaries width"],
    is_real: Bool[Tensor, "batch summaries"],
    places: Int64[Tensor, "pairs 2"],
    n_summaries: int,
) -> tuple[Float[Tensor, "pairs stretch width"], Bool[Tensor, "pairs stretch"]]:
    """The summaries of stretches, each given by its row and first summary."""
    column = places[:, 1:] + torch.arange(n_summaries, device=places.device)
    return summaries[places[:, :1], column], is_real[places[:, :1], column]


class Remembered(NamedTuple):
    """Both ends of earlier pairs, and what they showed."""

    one: Float[Tensor, "earlier width"]
    two: Float[Tensor, "earlier width"]
    keys: Keys


class Memory:
    """Up to `size` pairs of earlier steps of each view; kept in checkpoints."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.views: dict[str, Remembered] = {}

    def recall(self, view: str, device: torch.device) -> Remembered | None:
        """What is remembered of a view; nothing before the first step."""
        found = self.views.get(view)
        if found is None or found.one.device == device:
            return found
        moved = Remembered(
            found.one.to(device), found.two.to(device), Keys(*(k.to(device) for k in found.keys))
        )
        self.views[view] = moved
        return moved

    def store(
        self,
        view: str,
        one: Float[Tensor, "pairs width"],
        two: Float[Tensor, "pairs width"],
        keys: Keys,
    ) -> None:
        """Add pairs; the oldest go where there are too many."""
        if not self.size:
            return
        new = [one.detach(), two.detach(), *keys]
        before = self.recall(view, one.device)
        if before is not None:
            earlier = [before.one, before.two, *before.keys]
            new = [torch.cat(both) for both in zip(earlier, new, strict=True)]
        new = [column[-self.size :].clone() for column in new]
        self.views[view] = Remembered(new[0], new[1], Keys(new[2], new[3]))

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain tensors."""
        return {
            view: {"one": m.one, "two": m.two, "spans": m.keys.spans, "groups": m.keys.groups}
            for view, m in self.views.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.views = {
            view: Remembered(m["one"], m["two"], Keys(m["spans"], m["groups"]))
            for view, m in state.items()
        }

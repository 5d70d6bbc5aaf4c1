"""A second way from a gene to its expression: likeness to the training genes, in closed form.

    joined vector + regulators + gene sets ─ inner products by part ─ kernel ─► level, profile

The neural path (readout, graph, heads) is trained by gradient steps from few thousand genes. Kernel
ridge regression on the same inputs has one solution, and is hard to beat at that size. It is
differentiable in everything that is read of a gene.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

from genesplice.model.heads import Prediction

__all__ = ["TARGETS", "KernelPath", "mix_kernel"]

TARGETS = ("level", "residual")
FEWEST_GENES = 5
# The root of 0 has no gradient.
SMALLEST_SQUARE = 1e-8


def mix_kernel(
    inner: Float[Tensor, "genes others"],
    own: Float[Tensor, " genes"],
    others: Float[Tensor, " others"],
    share: float | Tensor,
    sharpness: float | Tensor,
) -> Float[Tensor, "genes others"]:
    """(1 - share) <x, y> + share (1 + r) exp(-r), from inner products alone.

    r is sqrt(3) sharpness |x - y|; `own` and `others` are <x, x> and <y, y>.

    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equation 4.17
    (Matern with 3/2): rougher than a Gaussian, and better here on every left-out block score.
    """
    squared = (own[:, None] + others[None, :] - 2 * inner).clamp_min(0)
    distance = (3 * squared + SMALLEST_SQUARE).sqrt() * sharpness
    return (1 - share) * inner + share * (1 + distance) * (-distance).exp()


class KernelPath(nn.Module):
    """Kernel ridge regression on the parts of what is known of a gene, solved elsewhere, kept here.

    Parameters
    ----------
    parts
        Widths of the parts of the joined vector (see `GeneReadout.parts`).
    knowledge
        Widths of the parts of what the graph says (see `GeneGraph.knowledge_parts`).
    n_support
        Training genes that it remembers.
    """

    knowledge_centre: Tensor
    knowledge_spread: Tensor
    support: Tensor
    support_knowledge: Tensor
    scale: Tensor
    share: Tensor
    sharpness: Tensor
    level_weights: Tensor
    residual_weights: Tensor
    level_mean: Tensor

    def __init__(
        self,
        parts: Mapping[str, int],
        knowledge: Mapping[str, int],
        n_conditions: int,
        n_support: int,
    ) -> None:
        super().__init__()
        self.widths = {**parts, **knowledge}
        self.names = tuple(self.widths)
        joined, known = sum(parts.values()), sum(knowledge.values())
        self.register_buffer("knowledge_centre", torch.zeros(known))
        self.register_buffer("knowledge_spread", torch.ones(known))
        self.register_buffer("support", torch.zeros(n_support, joined))
        self.register_buffer("support_knowledge", torch.zeros(n_support, known, dtype=torch.int8))
        self.register_buffer("scale", torch.zeros(len(TARGETS), len(self.names)))
        self.register_buffer("share", torch.zeros(len(TARGETS)))
        self.register_buffer("sharpness", torch.ones(len(TARGETS)))
        self.register_buffer("level_weights", torch.zeros(n_support))
        self.register_buffer("residual_weights", torch.zeros(n_support, n_conditions))
        self.register_buffer("level_mean", torch.zeros(()))

    @property
    def n_support(self) -> int:
        """Training genes that are remembered; with none nothing can be predicted."""
        return len(self.support)

    @torch.no_grad()
    def remember(
        self,
        standardised: Float[Tensor, "support joined"],
        knowledge: Int8[Tensor, "support known"],
    ) -> None:
        """Take the training genes, and the scales of what is known of them.

        What is known of fewer than five of them, or is the same for all, is not used.
        """
        self.support.copy_(standardised)
        self.support_knowledge.copy_(knowledge)
        values = knowledge.float()
        if not values.numel():
            return
        spread = values.std(0)
        is_rare = ((values != 0).sum(0) < FEWEST_GENES) | (spread <= 0)
        self.knowledge_centre.copy_(values.mean(0))
        self.knowledge_spread.copy_(spread.masked_fill(is_rare, torch.inf))

    @torch.no_grad()
    def solve(
        self,
        target: str,
        weights: Tensor,
        scale: Sequence[float],
        share: float,
        sharpness: float,
        mean: float = 0.0,
    ) -> None:
        """Take the solution for the level or the residual."""
        row = TARGETS.index(target)
        self.scale[row] = torch.tensor(scale).to(self.scale)
        self.share[row], self.sharpness[row] = share, sharpness
        if target == "level":
            self.level_weights.copy_(weights)
            self.level_mean.fill_(mean)
        else:
            self.residual_weights.copy_(weights)

    def inner_products(
        self,
        standardised: Float[Tensor, "genes joined"],
        knowledge: Float[Tensor, "genes known"],
    ) -> tuple[Float[Tensor, "parts genes support"], Float[Tensor, "parts genes"], Tensor]:
        """<x, y> of every gene with every remembered one, <x, x> and <y, y>, part by part.

        Each part is divided by its number of channels that differ between training genes.
        """
        mine = self._whole(standardised, knowledge)
        theirs = self._whole(self.support, self.support_knowledge.to(self.support))
        crossed, own, others = [], [], []
        for x, y, count in zip(mine, theirs, self._counts(), strict=True):
            crossed.append(x @ y.T / count)
            own.append((x * x).sum(1) / count)
            others.append((y * y).sum(1) / count)
        return torch.stack(crossed), torch.stack(own), torch.stack(others)

    def _whole(self, standardised: Tensor, knowledge: Tensor) -> list[Tensor]:
        known = (knowledge - self.knowledge_centre) / self.knowledge_spread
        return list(torch.cat([standardised, known], 1).split(list(self.widths.values()), 1))

    def _counts(self) -> list[float]:
        is_used = torch.isfinite(self.knowledge_spread)
        differs = torch.cat([(self.support != 0).any(0), is_used])
        counted = differs.split(list(self.widths.values()))
        return [max(float(part.sum()), 1.0) for part in counted]

    def forward(
        self,
        standardised: Float[Tensor, "genes joined"],
        knowledge: Float[Tensor, "genes known"],
    ) -> Prediction:
        """Level and residual of each gene."""
        crossed, own, others = self.inner_products(standardised, knowledge)
        found = []
        for scale, share, sharpness in zip(self.scale, self.share, self.sharpness, strict=True):
            inner = torch.einsum("p,pgs->gs", scale, crossed)
            kernel = mix_kernel(inner, scale @ own, scale @ others, share, sharpness)
            found.append(kernel)
        level = found[0] @ self.level_weights + self.level_mean
        return Prediction(level, found[1] @ self.residual_weights)

"""A second way from a gene to its expression: likeness to the training genes, in closed form.

    gene_features vector + regulators + gene sets ─ inner products by part ─ kernel ─► level, profile

The neural path (readout, graph, heads) is trained by gradient steps from few thousand genes. Kernel
ridge regression on the same inputs has one solution, and is hard to beat at that size. It is
differentiable in everything that is read of a gene.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int8, Int64
from torch import Tensor, nn

from genesplice.model.heads import Prediction

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


class Side(NamedTuple):
    """Training genes by one half of their channels, and what each channel counts for a target."""

    genes: Float[Tensor, "support channels"]
    weights: Float[Tensor, "targets channels"]

    def inner(self, target: int, mine: Float[Tensor, "genes channels"]) -> Tensor:
        """<x, y> of other genes with each of them."""
        return (self.weights[target] * mine) @ self.genes.T

    def own(self, target: int, mine: Float[Tensor, "genes channels"]) -> Tensor:
        """<x, x> of other genes."""
        return (mine * mine) @ self.weights[target]


class Compared(NamedTuple):
    """<x, y> of genes with the training genes and <x, x>, weighted for one target."""

    inner: Float[Tensor, "genes support"]
    own: Float[Tensor, " genes"]


class Remembered(NamedTuple):
    """The training genes' side of the kernel: vectors, what is known of them, weighted <y, y>.

    `used` are the channels of what is known that count for any target.
    """

    vectors: Side
    knowledge: Side
    used: Int64[Tensor, " channels"]
    squares: Float[Tensor, "targets support"]


class KernelPath(nn.Module):
    """Kernel ridge regression on the parts of what is known of a gene, solved elsewhere, kept here.

    Parameters
    ----------
    parts
        Widths of the parts of the gene_features vector (see `GeneReadout.parts`).
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
        self._kept: tuple[tuple, Remembered] | None = None
        gene_features, known = sum(parts.values()), sum(knowledge.values())
        self.register_buffer("knowledge_centre", torch.zeros(known))
        self.register_buffer("knowledge_spread", torch.ones(known))
        self.register_buffer("support", torch.zeros(n_support, gene_features))
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
        standardised: Float[Tensor, "support features"],
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
        standardised: Float[Tensor, "genes features"],
        knowledge: Float[Tensor, "genes known"],
    ) -> tuple[Float[Tensor, "parts genes support"], Float[Tensor, "parts genes"], Tensor]:
        """<x, y> of every gene with every remembered one, <x, x> and <y, y>, part by part.

        Each part is divided by its number of channels that differ between training genes.
        """
        mine = self._whole(standardised, knowledge)
        theirs = self._whole(self.support, self.support_knowledge.to(self.support))
        widths = list(self.widths.values())
        crossed, own, others = [], [], []
        for x, y, count in zip(
            mine.split(widths, 1), theirs.split(widths, 1), self._counts(), strict=True
        ):
            crossed.append(x @ y.T / count)
            own.append((x * x).sum(1) / count)
            others.append((y * y).sum(1) / count)
        return torch.stack(crossed), torch.stack(own), torch.stack(others)

    def _whole(self, standardised: Tensor, knowledge: Tensor) -> Tensor:
        known = (knowledge - self.knowledge_centre) / self.knowledge_spread
        return torch.cat([standardised, known], 1)

    def _counts(self) -> Tensor:
        is_used = torch.isfinite(self.knowledge_spread)
        differs = torch.cat([(self.support != 0).any(0), is_used])
        counted = differs.split(list(self.widths.values()))
        return torch.stack([part.sum() for part in counted]).clamp_min(1).to(self.support)

    def _remember_sides(self) -> Remembered:
        genes = self._whole(self.support, self.support_knowledge.to(self.support))
        widths = torch.tensor(list(self.widths.values()), device=genes.device)
        weights = (self.scale / self._counts()).repeat_interleave(widths, dim=1)
        squares = weights @ (genes * genes).T
        gene_features = self.support.shape[1]
        counts = torch.isfinite(self.knowledge_spread) & (weights[:, gene_features:] != 0).any(0)
        used = counts.nonzero()[:, 0]
        return Remembered(
            Side(genes[:, :gene_features].contiguous(), weights[:, :gene_features]),
            Side(genes[:, gene_features:][:, used], weights[:, gene_features:][:, used]),
            used,
            squares,
        )

    def _remembered(self) -> Remembered:
        """The side of the training genes, which no prediction changes: worked out once."""
        buffers = list(self.buffers())
        state = tuple((one.data_ptr(), one._version, one.dtype) for one in buffers)
        if self._kept is None or self._kept[0] != state:
            # Not as inference tensors, from which no gradient could be asked later.
            with torch.inference_mode(False), torch.no_grad():
                kept = self._remember_sides()
            self._kept = state, kept
        return self._kept[1]

    def forward(
        self,
        standardised: Float[Tensor, "genes features"],
        knowledge: Float[Tensor, "genes known"],
    ) -> Prediction:
        """Level and residual of each gene."""
        # Apart, so that no gradient is worked out for a half or a target that nobody asks for.
        known = self._scale(knowledge)
        level, residual = (
            self._tell(target, self.compare(target, standardised), known) for target in TARGETS
        )
        return Prediction(level, residual)

    def compare(self, target: str, standardised: Float[Tensor, "genes features"]) -> Compared:
        """Genes with each training gene by what was read of them, which no graph changes."""
        index, vectors = TARGETS.index(target), self._remembered().vectors
        return Compared(vectors.inner(index, standardised), vectors.own(index, standardised))

    def predict_target(
        self, target: str, compared: Compared, knowledge: Float[Tensor, "genes known"]
    ) -> Float[Tensor, "genes *conditions"]:
        """One of `TARGETS`, given what `compare` says of the genes for it."""
        return self._tell(target, compared, self._scale(knowledge))

    def _scale(self, knowledge: Float[Tensor, "genes known"]) -> Float[Tensor, "genes used"]:
        used = self._remembered().used
        return (knowledge[:, used] - self.knowledge_centre[used]) / self.knowledge_spread[used]

    def _tell(
        self, target: str, compared: Compared, known: Float[Tensor, "genes used"]
    ) -> Float[Tensor, "genes *conditions"]:
        index, theirs = TARGETS.index(target), self._remembered()
        kernel = mix_kernel(
            compared.inner + theirs.knowledge.inner(index, known),
            compared.own + theirs.knowledge.own(index, known),
            theirs.squares[index],
            self.share[index],
            self.sharpness[index],
        )
        if target == "level":
            return kernel @ self.level_weights + self.level_mean
        return kernel @ self.residual_weights

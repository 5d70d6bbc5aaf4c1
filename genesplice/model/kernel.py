"""Kernel ridge regression from gene features and graph knowledge, evaluated differentiably.

    gene features + regulators + gene sets ─ inner products by part ─ kernel ─► level, residual

The neural path (readout, graph, heads) is trained by gradient steps from few thousand genes. Kernel
ridge regression on the same inputs has one solution, and is hard to beat at that size. It is solved
elsewhere (`genesplice.training`); here its solution predicts.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int8, Int64
from torch import Tensor, nn

from genesplice.model.heads import Prediction

TARGETS = ("level", "residual")
FEWEST_GENES = 5
# The root of 0 has no gradient.
SMALLEST_SQUARE = 1e-8

Features = Float[Tensor, "genes features"]
Known = Float[Tensor, "genes known"]


def mix_kernel(
    inner: Float[Tensor, "genes others"],
    own: Float[Tensor, " genes"],
    others: Float[Tensor, " others"],
    mixture_weight: float | Tensor,
    inverse_length_scale: float | Tensor,
) -> Float[Tensor, "genes others"]:
    """(1 - w) <x, y> + w (1 + r) exp(-r) with mixture weight w, from inner products alone.

    r is sqrt(3) |x - y| times the inverse length-scale; `own` and `others` are <x, x> and <y, y>.

    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equation 4.17
    (Matern with 3/2): rougher than a Gaussian, and better here on every left-out block score.
    """
    squared = (own[:, None] + others[None, :] - 2 * inner).clamp_min(0)
    distance = (3 * squared + SMALLEST_SQUARE).sqrt() * inverse_length_scale
    matern = (1 + distance) * (-distance).exp()
    return (1 - mixture_weight) * inner + mixture_weight * matern


class KernelSettings(NamedTuple):
    """What decides a kernel: the weight of each part, its Matern share, and how narrow that is.

    `penalty` is against kernels whose diagonal is about 1.
    """

    scale: tuple[float, ...]
    mixture: float = 0.5
    inverse_length: float = 1.0
    penalty: float = 0.3


class InnerProducts(NamedTuple):
    """<x, y> of genes with the training genes and <x, x>, weighted for one target."""

    inner: Float[Tensor, "genes support"]
    own: Float[Tensor, " genes"]


class _Side(NamedTuple):
    """Training genes by some of their channels, and the weight of each channel for a target."""

    genes: Float[Tensor, "support channels"]
    weights: Float[Tensor, "targets channels"]

    def products(self, target: int, x: Float[Tensor, "genes channels"]) -> InnerProducts:
        weights = self.weights[target]
        return InnerProducts((weights * x) @ self.genes.T, (x * x) @ weights)


class _Support(NamedTuple):
    """What no prediction changes: features and knowledge of the training genes, weighted <y, y>.

    `used` are the channels of knowledge that count for any target.
    """

    features: _Side
    knowledge: _Side
    used: Int64[Tensor, " channels"]
    squares: Float[Tensor, "targets support"]


class KernelPath(nn.Module):
    """The solution of a kernel ridge regression, with its training genes.

    Parameters
    ----------
    parts, knowledge
        Widths of the parts of the gene features (see `GeneReadout.parts`), and of the graph's
        knowledge of a gene (see `GeneGraph.knowledge_parts`). The kernel has a scale for each.
    n_support
        Training genes; with none nothing can be predicted.
    """

    knowledge_centre: Tensor
    knowledge_spread: Tensor
    support: Tensor
    support_knowledge: Tensor
    scale: Tensor
    mixture_weight: Tensor
    inverse_length_scale: Tensor
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
        self.n_features, known = sum(parts.values()), sum(knowledge.values())
        self._cached: tuple[tuple, _Support] | None = None
        for name, value in {
            "knowledge_centre": torch.zeros(known),
            "knowledge_spread": torch.ones(known),
            "support": torch.zeros(n_support, self.n_features),
            "support_knowledge": torch.zeros(n_support, known, dtype=torch.int8),
            "scale": torch.zeros(len(TARGETS), len(self.widths)),
            "mixture_weight": torch.zeros(len(TARGETS)),
            "inverse_length_scale": torch.ones(len(TARGETS)),
            "level_weights": torch.zeros(n_support),
            "residual_weights": torch.zeros(n_support, n_conditions),
            "level_mean": torch.zeros(()),
        }.items():
            self.register_buffer(name, value)

    @property
    def n_support(self) -> int:
        """Training genes that are kept."""
        return len(self.support)

    @torch.no_grad()
    def set_support(self, standardised: Features, knowledge: Int8[Tensor, "genes known"]) -> None:
        """Take the training genes, and the scales of their knowledge.

        A channel of knowledge that fewer than five of them have, or all alike, is not used.
        """
        self.support.copy_(standardised)
        self.support_knowledge.copy_(knowledge)
        values = knowledge.float()
        if values.numel():
            spread = values.std(0)
            is_rare = ((values != 0).sum(0) < FEWEST_GENES) | (spread <= 0)
            self.knowledge_centre.copy_(values.mean(0))
            self.knowledge_spread.copy_(spread.masked_fill(is_rare, torch.inf))

    @torch.no_grad()
    def set_solution(
        self, target: str, weights: Tensor, settings: KernelSettings, mean: float
    ) -> None:
        """Take the solution for the level (less its `mean`) or the residual."""
        row = TARGETS.index(target)
        self.scale[row] = torch.tensor(settings.scale).to(self.scale)
        self.mixture_weight[row] = settings.mixture
        self.inverse_length_scale[row] = settings.inverse_length
        if target == "level":
            self.level_weights.copy_(weights)
            self.level_mean.fill_(mean)
        else:
            self.residual_weights.copy_(weights)

    def inner_products(
        self, standardised: Features, knowledge: Known
    ) -> Float[Tensor, "parts genes support"]:
        """<x, y> of every gene with every training gene, part by part.

        Each part is divided by its number of channels that differ between training genes.
        """
        widths = list(self.widths.values())
        sides = self._channels(standardised, knowledge), self._support_channels()
        parts = zip(*(side.split(widths, 1) for side in sides), self._counts(), strict=True)
        return torch.stack([x @ y.T / count for x, y, count in parts])

    def _channels(self, standardised: Tensor, knowledge: Tensor) -> Tensor:
        known = (knowledge - self.knowledge_centre) / self.knowledge_spread
        return torch.cat([standardised, known], 1)

    def _support_channels(self) -> Tensor:
        return self._channels(self.support, self.support_knowledge.to(self.support))

    def _counts(self) -> Tensor:
        is_used = torch.isfinite(self.knowledge_spread)
        differs = torch.cat([(self.support != 0).any(0), is_used])
        parts = differs.split(list(self.widths.values()))
        return torch.stack([part.sum() for part in parts]).clamp_min(1).to(self.support)

    def _make_support(self) -> _Support:
        genes, cut = self._support_channels(), self.n_features
        widths = torch.tensor(list(self.widths.values()), device=genes.device)
        weights = (self.scale / self._counts()).repeat_interleave(widths, dim=1)
        counts = torch.isfinite(self.knowledge_spread) & (weights[:, cut:] != 0).any(0)
        used = counts.nonzero()[:, 0]
        return _Support(
            _Side(genes[:, :cut].contiguous(), weights[:, :cut]),
            _Side(genes[:, cut:][:, used], weights[:, cut:][:, used]),
            used,
            weights @ (genes * genes).T,
        )

    def _sides(self) -> _Support:
        """The side of the training genes, worked out once for every state of the buffers."""
        state = tuple((one.data_ptr(), one._version, one.dtype) for one in self.buffers())
        if self._cached is None or self._cached[0] != state:
            # Not as inference tensors, from which no gradient could be asked later.
            with torch.inference_mode(False), torch.no_grad():
                self._cached = state, self._make_support()
        return self._cached[1]

    def forward(self, standardised: Features, knowledge: Known) -> Prediction:
        """Level and residual of each gene."""
        level, residual = (
            self.predict_target(target, self.compare(target, standardised), knowledge)
            for target in TARGETS
        )
        return Prediction(level, residual)

    def compare(self, target: str, standardised: Features) -> InnerProducts:
        """Genes with each training gene by their features, which no graph changes."""
        return self._sides().features.products(TARGETS.index(target), standardised)

    def predict_target(
        self, target: str, compared: InnerProducts, knowledge: Known
    ) -> Float[Tensor, "genes *conditions"]:
        """One of `TARGETS`, given `compare` of the genes for it."""
        index, support = TARGETS.index(target), self._sides()
        used = support.used
        known = (knowledge[:, used] - self.knowledge_centre[used]) / self.knowledge_spread[used]
        by_graph = support.knowledge.products(index, known)
        inner, own = compared.inner + by_graph.inner, compared.own + by_graph.own
        shape = self.mixture_weight[index], self.inverse_length_scale[index]
        kernel = mix_kernel(inner, own, support.squares[index], *shape)
        if target == "level":
            return kernel @ self.level_weights + self.level_mean
        return kernel @ self.residual_weights

"""Several models explained as one: the mean of what they predict for a gene from its window."""

import copy
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genesplice.data.bundle import Bundle
from genesplice.model.genesplice import GeneSplice
from genesplice.predict.gene_output import Explainer, GeneOutput, GeneWindow, Reference
from genesplice.predict.models import Models


class EnsembleExplainer(Explainer):
    """Several models as one: each gene is explained as the mean of those that held it out.

    Only the models that `genes` need are made ready.
    """

    def __init__(
        self, models: Models, bundle: Bundle, genes: Sequence[str], *, window_bp: int = 8192
    ) -> None:
        everyone, own = tuple(range(len(models.levels))), models.held_out_by(bundle)
        chosen = {gene_id: own.get(gene_id, everyone) for gene_id in genes}
        needed = sorted({i for members in chosen.values() for i in members})
        ready = {i: Explainer(models.levels[i], bundle, window_bp=window_bp) for i in needed}
        self._of = {gene: tuple(ready[i] for i in members) for gene, members in chosen.items()}
        self._parts, self.bundle, self.window_bp = tuple(ready.values()), bundle, window_bp
        self.row, self.track = self._parts[0].row, self._parts[0].track

    @property
    def parts(self) -> tuple[Explainer, ...]:
        """One for each model that a gene needs."""
        return self._parts

    def of(self, gene_id: str) -> tuple[Explainer, ...]:
        """Those whose mean predicts a gene: of the models that held it out, or of all."""
        return self._of[gene_id]

    def changed(self, change: Callable[[GeneSplice], GeneSplice]) -> Explainer:
        """The same with another model in place of each, which reads the same vectors."""
        other, now = copy.copy(self), {part: part.changed(change) for part in self.parts}
        other._parts = tuple(now.values())
        other._of = {gene: tuple(now[part] for part in own) for gene, own in self._of.items()}
        return other

    def forward_function(
        self, window: GeneWindow | str, condition: str | None = None
    ) -> GeneOutput:
        """A module from base channels (steps, length, 4) to the mean of the models' numbers."""
        window = self.window(window) if isinstance(window, str) else window
        outputs = [GeneOutput(part, window, condition) for part in self.of(window.gene_id)]
        return outputs[0] if len(outputs) == 1 else MeanOutput(outputs)


class MeanOutput(GeneOutput):
    """The mean of what several models predict for one gene from the same window."""

    def __init__(self, parts: Sequence[GeneOutput]) -> None:
        nn.Module.__init__(self)
        self._parts = nn.ModuleList(parts)
        self.window, self.condition = parts[0].window, parts[0].condition
        self.register_buffer("bases", parts[0].bases, persistent=False)

    @property
    def parts(self) -> Sequence[GeneOutput]:
        """One for each model."""
        return [part for part in self._parts if isinstance(part, GeneOutput)]

    def references(
        self, kind: Reference, count: int = 8, seed: int = 0
    ) -> Float[Tensor, "references length 4"]:
        """Base channels of what attributions are measured against, the same for each model."""
        return self.parts[0].references(kind, count, seed)

    def forward(self, bases: Float[Tensor, "steps length 4"]) -> Float[Tensor, " steps"]:
        """Predict for each of several sequences."""
        return torch.stack([part(bases) for part in self.parts]).mean(0)

"""Attribution methods, all from Captum, behind one function and one registry; their tables.

Several models are explained as one.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from captum import attr
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from genesplice.data.bundle import Bundle
from genesplice.data.genome import decode
from genesplice.data.relatives import GROUPS
from genesplice.errors import WorkError, require
from genesplice.model.genesplice import GeneSplice
from genesplice.model.sequence import RELATIVE_CHANNELS
from genesplice.predict.gene_output import Explainer, Reference
from genesplice.predict.models import Models
from genesplice.results import Attribution, MotifHit

GROUP_CHANNELS = RELATIVE_CHANNELS // len(GROUPS)
COMPLETE = 0.05
"""Missing share of |output - reference| up to which attributions count as complete."""
TILE_BP = 16
FEWEST_GENES, SMALLEST_USUAL = 5, 1e-3


class Settings(NamedTuple):
    """`steps` of an integral, or samples of an expectation; `batch_steps` sequences at a time."""

    steps: int = 32
    batch_steps: int = 8
    seed: int = 0


Inputs = tuple[Tensor, ...]


class Asked(NamedTuple):
    """What a method is asked: a function, its inputs, and what these are compared with.

    `inputs` are base channels (1, length, 4), and those of alignment columns where they are read.
    """

    function: nn.Module
    inputs: Inputs
    references: Float[Tensor, "references length 4"]
    settings: Settings

    def against(self, references: Float[Tensor, "references length 4"]) -> Inputs:
        """Whole references: these bases, and nothing aligned."""
        nothing = (torch.zeros_like(x).expand(len(references), -1, -1) for x in self.inputs[1:])
        return references, *nothing

    def mean(self, attribute: Callable[[Inputs], Inputs]) -> Inputs:
        """Mean over the references."""
        found = [attribute(self.against(one[None])) for one in self.references]
        return tuple(torch.stack(part).mean(0) for part in zip(*found, strict=True))


def _integrated_gradients(asked: Asked) -> Inputs:
    """Source: Sundararajan et al., Axiomatic attribution for deep networks, 2017, equation 1."""
    method, settings = attr.IntegratedGradients(asked.function), asked.settings
    options = {"n_steps": settings.steps, "internal_batch_size": settings.batch_steps}
    return asked.mean(lambda one: method.attribute(asked.inputs, one, **options))


def _saliency(asked: Asked) -> Inputs:
    """The gradient of what is there. Source: Simonyan et al., 2013, section 3."""
    gradients = attr.Saliency(asked.function).attribute(_leaves(asked.inputs), abs=True)
    return tuple(x * (there != 0) for x, there in zip(gradients, asked.inputs, strict=True))


def _input_x_gradient(asked: Asked) -> Inputs:
    return attr.InputXGradient(asked.function).attribute(_leaves(asked.inputs))


def _deeplift(asked: Asked) -> Inputs:
    """Source: Shrikumar et al., Learning important features, 2017 (the rescale rule)."""
    with warnings.catch_warnings():
        # It reports that it sets hooks, each time.
        warnings.filterwarnings("ignore", message="Setting forward, backward hooks")
        method = attr.DeepLift(asked.function)
        return asked.mean(lambda one: method.attribute(_leaves(asked.inputs), _leaves(one)))


def _gradient_shap(asked: Asked) -> Inputs:
    """Source: Erion et al., expected gradients, 2021, equation 3."""
    method, settings = attr.GradientShap(asked.function), asked.settings
    total, left = [torch.zeros_like(x) for x in asked.inputs], settings.steps
    references = asked.against(asked.references)
    with _seeded(settings.seed):
        while left > 0:
            count = min(settings.batch_steps, left)
            options = {"n_samples": count, "stdevs": 0.0}
            found = method.attribute(asked.inputs, references, **options)
            total = [x + count * more for x, more in zip(total, found, strict=True)]
            left -= count
    return tuple(x / settings.steps for x in total)


def _occlusion(asked: Asked) -> Inputs:
    """Windows of two bins, one bin apart; each base gets the mean of those over it, a base."""
    method, widths = attr.Occlusion(asked.function), (4, GROUP_CHANNELS)[: len(asked.inputs)]
    sizes, strides = (tuple((n * TILE_BP, width) for width in widths) for n in (2, 1))
    options = {"strides": strides, "perturbations_per_eval": asked.settings.batch_steps}
    values = asked.mean(lambda one: method.attribute(asked.inputs, sizes, baselines=one, **options))
    return tuple(x / (2 * TILE_BP * width) for x, width in zip(values, widths, strict=False))


def _ablation(asked: Asked) -> Inputs:
    """One bin after another, and each group's part of it; the loss is shared among its bases."""
    method, masks, first = attr.FeatureAblation(asked.function), [], 0
    widths = (4, GROUP_CHANNELS)[: len(asked.inputs)]
    for x, width in zip(asked.inputs, widths, strict=True):
        position, channel = torch.arange(x.shape[1])[:, None], torch.arange(x.shape[2])
        mask = first + position // TILE_BP + channel // width * (x.shape[1] // TILE_BP)
        masks.append(mask[None])
        first = int(mask.max()) + 1
    options = {"perturbations_per_eval": asked.settings.batch_steps, "feature_mask": tuple(masks)}
    values = asked.mean(lambda one: method.attribute(asked.inputs, baselines=one, **options))
    return tuple(x / (TILE_BP * width) for x, width in zip(values, widths, strict=True))


class Method(NamedTuple):
    """An attribution method.

    Attributes
    ----------
    label
        Its name in reports.
    run
        Gives attributions, base by base.
    promises_sum
        Attributions ought to sum to the output less the mean output of the references.
    is_fragile
        It is silently wrong where the model is not built as it expects; then attributions that do
        not sum up are refused.
    reference
        The only one it can use; None where the caller chooses.
    is_threaded
        Several genes can be explained at once: no hooks on the model, no global random state.
    """

    label: str
    run: Callable[[Asked], Inputs]
    promises_sum: bool = False
    is_fragile: bool = False
    reference: Reference | None = None
    is_threaded: bool = True


METHODS = {
    "ig": Method("integrated gradients", _integrated_gradients, promises_sum=True),
    "saliency": Method("saliency", _saliency),
    "inputxgradient": Method("input x gradient", _input_x_gradient, reference="masked"),
    "deeplift": Method(
        "DeepLift", _deeplift, promises_sum=True, is_fragile=True, is_threaded=False
    ),
    "gradientshap": Method(
        "expected gradients", _gradient_shap, True, reference="shuffle", is_threaded=False
    ),
    "occlusion": Method("occlusion", _occlusion),
    "ablation": Method("feature ablation", _ablation),
}


class Attributed(NamedTuple):
    """Attributions, their completeness delta, and the output that they are of.

    `values` of base channels, and after them of the channels of alignment columns, if any.
    """

    values: Float[Tensor, "1 length channels"]
    delta: float
    output: float


def attribute(
    function: nn.Module,
    bases: Float[Tensor, "1 length 4"],
    references: Float[Tensor, "references length 4"],
    method: str,
    settings: Settings = Settings(),  # noqa: B008 - immutable
    relatives: Float[Tensor, "1 length relatives"] | None = None,
) -> Attributed:
    """Attributions of `function` at `bases`, averaged over `references`.

    With `relatives`, channels of alignment columns, these change together with the bases, and
    every reference has nothing aligned: attributions of both sum to one change. Without, columns
    stay what they are.

    The delta is the sum of the attributions less (output - mean output of the references), for
    every method: where no sum is promised it only says how far off they are.

    Raises
    ------
    InputError
        If there is no such method.
    WorkError
        If a fragile method does not keep its promise on this function.
    """
    require(method in METHODS, f"method '{method}'", f"one of {', '.join(METHODS)}")
    chosen = METHODS[method]
    inputs = (bases,) if relatives is None else (bases, relatives)
    asked = Asked(function, inputs, references, settings)
    values = torch.cat(chosen.run(asked), -1).detach()
    with torch.no_grad():
        output = float(function(*inputs))
        parts = references.split(settings.batch_steps)
        empty = torch.cat([function(*asked.against(one)) for one in parts])
    change = output - float(empty.double().mean())
    delta = float(values.double().sum()) - change
    if chosen.is_fragile and not abs(delta) <= COMPLETE * abs(change):
        raise WorkError(
            f"{chosen.label} is not valid for this model: attributions sum to "
            f"{change + delta:.4g} where the prediction changes by {change:.4g}; "
            "it does not know all of the model's operations. Take integrated gradients"
        )
    return Attributed(values, delta, output)


def attribute_gene(
    explainer: Explainer,
    gene_id: str,
    *,
    method: str = "ig",
    condition: str | None = None,
    baseline: Reference = "uniform",
    steps: int = 32,
    batch_steps: int = 8,
    n_references: int = 8,
    seed: int = 0,
) -> Attribution:
    """Attributions of the level, or of the residual in `condition`, by one of `METHODS`.

    `baseline` "uniform" is a quarter of each base, "masked" the zero vector that pre-training
    uses for a hidden base, "shuffle" the mean over `n_references` sequences with the same
    dinucleotides. A method that knows only one reference takes that one. Where the model reads
    alignment columns the reference has none, and what each group adds is kept apart.

    Raises
    ------
    InputError
        For an unknown method or condition.
    WorkError
        If the method is not valid for this model.
    """
    require(method in METHODS, f"method '{method}'", f"one of {', '.join(METHODS)}")
    function = explainer.forward_function(gene_id, condition)
    window, reference = function.window, METHODS[method].reference or baseline
    references = function.references(reference, n_references, seed)
    settings, relatives = Settings(steps, batch_steps, seed), function.relatives
    found, delta, output = attribute(
        function, function.bases, references, method, settings, relatives
    )
    channels = found[0].numpy().astype(np.float64)
    values, groups = channels[:, :4].sum(1), None
    if relatives is not None:
        groups = channels[:, 4:].reshape(len(values), -1, GROUP_CHANNELS).sum(2)
    about = gene_id, window.name, function.target, METHODS[method].label, reference
    place = window.offset_bp, window.tokens[0].numpy()
    empty = output - (float(channels.sum()) - delta)
    return Attribution(*about, *place, values, output, empty, delta, groups)


def attribution_table(attributions: Sequence[Attribution]) -> pd.DataFrame:
    """One row a base; `position_bp` counts from the TSS along the sense strand.

    `value` is that of the base, `near`, `middle` and `far` that of the alignment column by group
    where it is read; `information` of the column in bits where the data have relatives.
    """
    tables = []
    for one in attributions:
        table = base_table(one).assign(value=one.values)
        if one.by_group is not None:
            table[list(GROUPS)] = one.by_group
        if one.conservation is not None:
            table["information"] = one.conservation.information
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def base_table(one: Any) -> pd.DataFrame:
    """One row a base of something with tokens from `offset_bp` on, of a gene and a target."""
    position = np.arange(len(one.tokens)) + one.offset_bp
    about = {"gene_id": one.gene_id, "name": one.name, "target": one.target}
    return pd.DataFrame({**about, "position_bp": position, "base": list(decode(one.tokens))})


def _leaves(inputs: Inputs) -> Inputs:
    """Copies that ask for gradients, which Captum would otherwise warn about."""
    return tuple(x.detach().clone().requires_grad_() for x in inputs)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Captum draws from the global generators; they are left as they were."""
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002


# --- several models explained as one: the mean of what they predict for a gene ---


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


def usual_of_letters(
    sizes: Mapping[str, np.ndarray],
    tokens: Mapping[str, UInt8[np.ndarray, " length"]],
    sites: Mapping[str, Sequence[MotifHit]],
) -> Float[np.ndarray, " 5"]:
    """Mean size of attributions on each letter A C G T, 1 over all, and 1 on N; without the sites.

    Every gene counts the same. Of fewer than five genes nobody can say what is usual: 1 each.
    """
    total, count = np.zeros(5), np.zeros(5)
    for gene_id, size in sizes.items():
        is_free = np.ones(len(size), bool)
        for site in sites.get(gene_id, ()):
            is_free[site.start : site.end] = False
        free, letters = size[is_free], tokens[gene_id][is_free]
        if free.any():
            total += np.bincount(letters, free / free.mean(), 5)
            count += np.bincount(letters, minlength=5)
    is_known = (count > 0) & (np.arange(5) < 4) & (len(sizes) >= FEWEST_GENES)
    usual = np.where(is_known, total / np.maximum(count, 1), 1.0)
    return np.maximum(usual, SMALLEST_USUAL)

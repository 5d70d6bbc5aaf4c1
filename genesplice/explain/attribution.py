"""Attribution methods, all from Captum, behind one function and one registry; their tables."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from captum import attr
from jaxtyping import Float
from torch import Tensor, nn

from genesplice.data.genome import decode
from genesplice.errors import InputError, WorkError
from genesplice.predict.gene_output import Explainer, Reference
from genesplice.results import Attribution, Metric

COMPLETE = 0.05
"""Missing share of |output - reference| up to which attributions count as complete."""
TILE_BP = 16


class Settings(NamedTuple):
    """`steps` of an integral, or samples of an expectation; `batch_steps` sequences at a time."""

    steps: int = 32
    batch_steps: int = 8
    seed: int = 0


def _integrated_gradients(
    function: nn.Module, bases: Tensor, references: Tensor, settings: Settings
) -> Tensor:
    """Source: Sundararajan et al., Axiomatic attribution for deep networks, 2017, equation 1."""
    method, size = attr.IntegratedGradients(function), settings.batch_steps
    return _mean_over(
        references,
        lambda one: method.attribute(bases, one, n_steps=settings.steps, internal_batch_size=size),
    )


def _saliency(function: nn.Module, bases: Tensor, references: Tensor, settings: Settings) -> Tensor:
    """The gradient of the base that is there. Source: Simonyan et al., 2013, section 3."""
    gradient = attr.Saliency(function).attribute(_leaf(bases), abs=True)
    return gradient * (bases == bases.max(-1, keepdim=True).values)


def _input_x_gradient(
    function: nn.Module, bases: Tensor, references: Tensor, settings: Settings
) -> Tensor:
    return attr.InputXGradient(function).attribute(_leaf(bases))


def _deeplift(function: nn.Module, bases: Tensor, references: Tensor, settings: Settings) -> Tensor:
    """Source: Shrikumar et al., Learning important features, 2017 (the rescale rule)."""
    with warnings.catch_warnings():
        # It reports that it sets hooks, each time.
        warnings.filterwarnings("ignore", message="Setting forward, backward hooks")
        method = attr.DeepLift(function)
        return _mean_over(references, lambda one: method.attribute(_leaf(bases), _leaf(one)))


def _gradient_shap(
    function: nn.Module, bases: Tensor, references: Tensor, settings: Settings
) -> Tensor:
    """Source: Erion et al., expected gradients, 2021, equation 3."""
    method, left = attr.GradientShap(function), settings.steps
    total = torch.zeros_like(bases)
    with _seeded(settings.seed):
        while left > 0:
            count = min(settings.batch_steps, left)
            total += count * method.attribute(bases, references, n_samples=count, stdevs=0.0)
            left -= count
    return total / settings.steps


def _occlusion(
    function: nn.Module, bases: Tensor, references: Tensor, settings: Settings
) -> Tensor:
    """Windows of two bins, one bin apart; each base gets the mean of those over it, a base."""
    method, size = attr.Occlusion(function), (2 * TILE_BP, 4)
    options = {"strides": (TILE_BP, 4), "perturbations_per_eval": settings.batch_steps}
    return _mean_over(
        references, lambda one: method.attribute(bases, size, baselines=one, **options)
    ) / (2 * TILE_BP * 4)


def _ablation(function: nn.Module, bases: Tensor, references: Tensor, settings: Settings) -> Tensor:
    """One bin after another; what the prediction loses is shared among its bases."""
    method = attr.FeatureAblation(function)
    tiles = (torch.arange(bases.shape[1]) // TILE_BP)[None, :, None].expand(1, -1, 4)
    options = {"feature_mask": tiles, "perturbations_per_eval": settings.batch_steps}
    return _mean_over(references, lambda one: method.attribute(bases, baselines=one, **options)) / (
        TILE_BP * 4
    )


class Method(NamedTuple):
    """An attribution method.

    Attributes
    ----------
    label
        Its name in reports.
    run
        From function, input and references to attributions, base by base.
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
    run: Callable[[nn.Module, Tensor, Tensor, Settings], Tensor]
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
        "expected gradients",
        _gradient_shap,
        promises_sum=True,
        reference="shuffle",
        is_threaded=False,
    ),
    "occlusion": Method("occlusion", _occlusion),
    "ablation": Method("feature ablation", _ablation),
}


class Attributed(NamedTuple):
    """Attributions, their completeness delta, and the output that they are of."""

    values: Float[Tensor, "1 length 4"]
    delta: float
    output: float


def attribute(
    function: nn.Module,
    bases: Float[Tensor, "1 length 4"],
    references: Float[Tensor, "references length 4"],
    method: str,
    settings: Settings = Settings(),  # noqa: B008 - immutable
) -> Attributed:
    """Attributions of `function` at `bases`, averaged over `references`.

    The delta is the sum of the attributions less (output - mean output of the references), for
    every method: where no sum is promised it only says how far off they are.

    Raises
    ------
    InputError
        If there is no such method.
    WorkError
        If a fragile method does not keep its promise on this function.
    """
    if method not in METHODS:
        raise InputError(f"method '{method}'", f"one of {', '.join(METHODS)}")
    chosen = METHODS[method]
    values = chosen.run(function, bases, references, settings).detach()
    with torch.no_grad():
        output = float(function(bases))
        empty = torch.cat([function(one) for one in references.split(settings.batch_steps)])
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
    dinucleotides. A method that knows only one reference takes that one.

    Raises
    ------
    InputError
        For an unknown method or condition.
    WorkError
        If the method is not valid for this model.
    """
    if method not in METHODS:
        raise InputError(f"method '{method}'", f"one of {', '.join(METHODS)}")
    function = explainer.forward_function(gene_id, condition)
    window, reference = function.window, METHODS[method].reference or baseline
    references = function.references(reference, n_references, seed)
    settings = Settings(steps, batch_steps, seed)
    by_base, delta, output = attribute(function, function.bases, references, method, settings)
    values = by_base[0].sum(-1).numpy().astype(np.float64)
    return Attribution(
        gene_id=gene_id,
        name=window.name,
        target=function.target,
        method=METHODS[method].label,
        baseline=reference,
        offset_bp=window.offset_bp,
        tokens=window.tokens[0].numpy(),
        values=values,
        output=output,
        baseline_output=output - (float(values.sum()) - delta),
        delta=delta,
    )


def attribution_table(attributions: Sequence[Attribution]) -> pd.DataFrame:
    """One row a base; `position_bp` counts from the TSS along the sense strand."""
    tables = [
        pd.DataFrame(
            {
                "gene_id": one.gene_id,
                "name": one.name,
                "target": one.target,
                "position_bp": np.arange(len(one.values)) + one.offset_bp,
                "base": list(decode(one.tokens)),
                "value": one.values,
            }
        )
        for one in attributions
    ]
    return pd.concat(tables, ignore_index=True)


def completeness_metrics(
    attributions: Sequence[Attribution], *, model: str = "genesplice"
) -> list[Metric]:
    """Per gene |delta| / |output - baseline|, and the median over genes.

    Genes whose prediction is that of the baseline have no such share and are left out.
    """
    relative = {one.gene_id: one.relative_delta for one in attributions}
    known = {gene_id: value for gene_id, value in relative.items() if np.isfinite(value)}
    if not known:
        return []
    records = {"completeness_delta": (float(np.median(list(known.values()))), len(known))}
    records |= {f"completeness_delta:{gene_id}": (value, 1) for gene_id, value in known.items()}
    return [
        Metric(name, value, None, None, n, model, "explained")
        for name, (value, n) in records.items()
    ]


def _leaf(x: Tensor) -> Tensor:
    """A copy that asks for gradients, which Captum would otherwise warn about."""
    return x.detach().clone().requires_grad_()


def _mean_over(references: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([run(one[None]) for one in references]).mean(0)


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

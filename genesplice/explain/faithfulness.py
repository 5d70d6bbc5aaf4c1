"""Is an attribution true of the model? Deletion, insertion, mutagenesis, and a random model.

A gene's attribution is called faithful only if it passes every check that was made; the limits
are the constants below.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from genesplice.explain.methods import COMPLETE, METHODS, attribute_gene
from genesplice.explain.mutagenesis import mutate
from genesplice.model.genesplice import GeneSplice
from genesplice.predict.gene_output import Explainer, GeneOutput
from genesplice.results import Attribution, Metric
from genesplice.runtime import side_by_side

ISM_AGREEMENT = 0.5
"""Least rank correlation with mutagenesis around the start."""
RANDOM_AGREEMENT = 0.3
"""Most rank correlation with the same method on a model with other weights."""
BETTER_THAN_RANDOM = 0.0
"""Least gain of deleting by rank over deleting at random, and of inserting likewise."""


class Curves(NamedTuple):
    """The prediction as bases are taken away, or put back, in the order of their attribution.

    `fraction` of the bases, from 0 to 1. Values are shares of the change from empty to full: 1 is
    the whole sequence's prediction, 0 the empty one's. Bases whose attribution points the way the
    prediction changed come first: deletion should fall early and insertion rise early. `gain` is
    the mean of (random - deletion) and of (insertion - random) along the curve.
    """

    fraction: Float[np.ndarray, " places"]
    deletion: Float[np.ndarray, " places"]
    insertion: Float[np.ndarray, " places"]
    random_deletion: Float[np.ndarray, " places"]
    random_insertion: Float[np.ndarray, " places"]

    @property
    def deletion_auc(self) -> float:
        """Area under the deletion curve; smaller is better."""
        return float(np.trapezoid(self.deletion, self.fraction))

    @property
    def insertion_auc(self) -> float:
        """Area under the insertion curve; larger is better."""
        return float(np.trapezoid(self.insertion, self.fraction))

    @property
    def deletion_gain(self) -> float:
        """How much smaller the area is than in random order."""
        return float(np.trapezoid(self.random_deletion, self.fraction)) - self.deletion_auc

    @property
    def insertion_gain(self) -> float:
        """How much larger the area is than in random order."""
        return self.insertion_auc - float(np.trapezoid(self.random_insertion, self.fraction))


class Faithfulness(NamedTuple):
    """The checks of one attribution; None where one was not made."""

    gene_id: str
    name: str
    method: str
    relative_delta: float
    promises_sum: bool
    deletion_auc: float
    insertion_auc: float
    deletion_gain: float
    insertion_gain: float
    ism_spearman: float | None
    random_spearman: float | None

    @property
    def failures(self) -> list[str]:
        """What it does not pass, in words."""
        found = []
        if self.promises_sum and not self.relative_delta <= COMPLETE:
            found.append(f"{self.relative_delta:.0%} of the prediction is missing")
        if not self.deletion_gain > BETTER_THAN_RANDOM:
            found.append("deletion is no better than at random")
        if not self.insertion_gain > BETTER_THAN_RANDOM:
            found.append("insertion is no better than at random")
        if self.ism_spearman is not None and not self.ism_spearman >= ISM_AGREEMENT:
            found.append(f"rank agreement with mutagenesis is {self.ism_spearman:.2f}")
        if self.random_spearman is not None and not self.random_spearman <= RANDOM_AGREEMENT:
            found.append(f"a model with other weights gives the same ({self.random_spearman:.2f})")
        return found

    @property
    def is_faithful(self) -> bool:
        """Whether every check that was made is passed."""
        return not self.failures

    @property
    def verdict(self) -> str:
        """The stamp of a figure: "faithful", or "not faithful" and why."""
        return "faithful" if self.is_faithful else f"not faithful: {'; '.join(self.failures)}"


def rank_agreement(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> float:
    """Spearman's correlation; 0 where either is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one, other).statistic)


def curves(
    explainer: Explainer,
    found: Attribution,
    *,
    condition: str | None = None,
    n_places: int = 11,
    n_random: int = 3,
    seed: int = 0,
) -> Curves:
    """Delete and insert bases by rank, and at random for comparison.

    A deleted base is a quarter of each. Source: Petsiuk et al., RISE, 2018, section 4.2.
    """
    function = explainer.forward_function(found.gene_id, condition)
    empty = function.references("uniform")
    known = np.flatnonzero(found.tokens < 4)
    with torch.no_grad():
        full, none = float(function(function.bases)), float(function(empty))
    scale = full - none if full != none else 1.0
    by_rank = known[np.argsort(-found.values[known] * np.sign(scale), kind="stable")]
    generator = np.random.default_rng(seed)
    shuffled = [generator.permutation(known) for _ in range(n_random)]
    fraction = np.linspace(0, 1, n_places)

    def walk(start: Tensor, goal: Tensor, orders: Sequence[np.ndarray]) -> np.ndarray:
        values = [
            _path(function, start, goal, order[: round(share * len(order))])
            for order in orders
            for share in fraction
        ]
        return (np.array(values).reshape(len(orders), -1).mean(0) - none) / scale

    bases = function.bases
    return Curves(
        fraction,
        walk(bases, empty, [by_rank]),
        walk(empty, bases, [by_rank]),
        walk(bases, empty, shuffled),
        walk(empty, bases, shuffled),
    )


@torch.no_grad()
def _path(function: GeneOutput, start: Tensor, goal: Tensor, places: np.ndarray) -> float:
    changed = start.clone()
    index = torch.from_numpy(places)
    changed[0, index] = goal[0, index]
    return float(function(changed))


def randomised(model: GeneSplice, seed: int = 0) -> GeneSplice:
    """The same architecture and scales with freshly drawn weights.

    Each weight is a permutation of the trained one's entries, so that sizes stay what they are.

    Source: Adebayo et al., Sanity checks for saliency maps, 2018, section 3.
    """
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in other.parameters():
            flat = weight.flatten()
            weight.copy_(flat[torch.randperm(len(flat), generator=generator)].view_as(weight))
    return other.eval()


def judge(
    explainer: Explainer,
    found: Attribution,
    *,
    condition: str | None = None,
    ism_bp: int = 64,
    control: Attribution | None = None,
    drawn: Curves | None = None,
    seed: int = 0,
) -> Faithfulness:
    """Make the checks of one attribution.

    Parameters
    ----------
    ism_bp
        Mutagenesis reaches this far to either side of the TSS; 0 leaves that check out.
    control
        The same gene and method on a model with other weights (`randomised`), or one trained on
        shuffled labels.
    drawn
        The attribution's `curves`, where they are at hand already.
    """
    drawn = drawn or curves(explainer, found, condition=condition, seed=seed)
    ism = random = None
    if ism_bp:
        mutated = mutate(
            explainer, found.gene_id, upstream_bp=ism_bp, downstream_bp=ism_bp, condition=condition
        )
        low = mutated.offset_bp - found.offset_bp
        near = found.values[low : low + 2 * ism_bp]
        ism = rank_agreement(near, mutated.importance)
    if control is not None:
        random = abs(rank_agreement(found.values, control.values))
    promises = {one.label: one.promises_sum for one in METHODS.values()}
    return Faithfulness(
        found.gene_id,
        found.name,
        found.method,
        found.relative_delta,
        promises.get(found.method, False),
        drawn.deletion_auc,
        drawn.insertion_auc,
        drawn.deletion_gain,
        drawn.insertion_gain,
        ism,
        random,
    )


class Checked(NamedTuple):
    """One gene's attribution, its curves, and what its checks say."""

    attribution: Attribution
    drawn: Curves
    judged: Faithfulness


def checked_attributions(
    explainer: Explainer,
    genes: Sequence[str],
    *,
    other: Explainer | None = None,
    condition: str | None = None,
    steps: int = 32,
) -> list[Checked]:
    """Integrated gradients of several genes with all checks, genes side by side.

    Parameters
    ----------
    other
        A model with other weights, for the check of `judge` that asks for one.
    """

    def check(gene_id: str) -> Checked:
        found, control = attribute_gene(explainer, gene_id, condition=condition, steps=steps), None
        if other is not None:
            control = attribute_gene(other, gene_id, condition=condition, steps=steps)
        drawn = curves(explainer, found, condition=condition)
        judged = judge(explainer, found, condition=condition, control=control, drawn=drawn)
        return Checked(found, drawn, judged)

    return side_by_side(check, genes)


def curve_table(drawn: Curves) -> pd.DataFrame:
    """Curves as columns, one row a fraction."""
    return pd.DataFrame(drawn._asdict())


def faithfulness_table(judged: Sequence[Faithfulness]) -> pd.DataFrame:
    """One row a gene, indexed by gene_id: what was measured, and the verdict in words."""
    rows = [
        {
            "gene_id": one.gene_id,
            "name": one.name,
            "verdict": one.verdict,
            "missing": one.relative_delta,
            "deletion_gain": one.deletion_gain,
            "insertion_gain": one.insertion_gain,
            "ism_spearman": one.ism_spearman,
            "random_spearman": one.random_spearman,
        }
        for one in judged
    ]
    numbers = ["missing", "deletion_gain", "insertion_gain", "ism_spearman", "random_spearman"]
    columns = ["gene_id", "name", "verdict", *numbers]
    return (
        pd.DataFrame(rows, columns=columns)
        .set_index("gene_id")
        .astype(dict.fromkeys(numbers, float))
    )


def faithfulness_metrics(
    judged: Sequence[Faithfulness], *, model: str = "genesplice"
) -> list[Metric]:
    """Per gene every figure that was measured, and the share of genes that are faithful."""
    names = (
        "deletion_auc",
        "insertion_auc",
        "deletion_gain",
        "insertion_gain",
        "ism_spearman",
        "random_spearman",
    )
    metrics = [
        Metric(f"{name}:{one.gene_id}", getattr(one, name), None, None, 1, model, "explained")
        for one in judged
        for name in names
        if getattr(one, name) is not None
    ]
    share = float(np.mean([one.is_faithful for one in judged])) if judged else 0.0
    total = Metric("faithful_share", share, None, None, len(judged), model, "explained")
    return [total, *metrics]

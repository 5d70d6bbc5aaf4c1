"""Losses, each with its known minimum."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from genesplice.model.heads import Prediction


def masked_base_loss(
    logits: Float[Tensor, "batch length 4"],
    tokens: UInt8[Tensor, "batch length"],
    is_target: Bool[Tensor, "batch length"],
    weight: Float[Tensor, "batch length"] | None = None,
    total: float | None = None,
) -> Float[Tensor, ""]:
    """Weighted mean of the targets' cross-entropy in bits per base; N is never a target.

    0 when every target is certain and right, 2 for a uniform guess; 0 with no target at all, or
    none that counts.

    Parameters
    ----------
    weight
        What each base counts; all the same where it is None.
    total
        Weight of all targets of which these are a part: the parts' losses then add up to the
        mean over all of them, however they were divided.
    """
    wanted = is_target & (tokens < 4)
    errors = F.cross_entropy(logits[wanted], tokens[wanted].long(), reduction="none")
    counted = torch.ones_like(errors) if weight is None else weight[wanted].to(errors)
    divisor = counted.sum() if total is None else errors.new_tensor(total)
    return (errors * counted).sum() / divisor.clamp_min(1e-12) / math.log(2)


def info_nce(
    one: Float[Tensor, "pairs width"],
    other: Float[Tensor, "pairs width"],
    temperature: float,
    *,
    is_related: Bool[Tensor, "pairs pairs"] | None = None,
    earlier_one: Float[Tensor, "earlier width"] | None = None,
    earlier_other: Float[Tensor, "earlier width"] | None = None,
    is_related_earlier: Bool[Tensor, "pairs earlier"] | None = None,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE: row i of each side must find row i of the other among all rows.

    log(candidates) for vectors that say nothing, 0 at best; a mean over no pairs is 0.

    Parameters
    ----------
    is_related
        Pairs that show the same thing: they are no negatives of each other. Every pair is itself.
    earlier_one, earlier_other
        Vectors of earlier steps: more negatives, of the side they are named after.
    is_related_earlier
        As `is_related`, pairs against earlier ones.

    Source: van den Oord et al., Representation learning with contrastive predictive coding,
    2018, equation 4; symmetric as in Radford et al., 2021, figure 3; earlier vectors as in Wang
    et al., Cross-batch memory for embedding learning, 2020.
    """
    if not len(one):
        return (one.sum() + other.sum()) * 0
    target: Int64[Tensor, " pairs"] = torch.arange(len(one), device=one.device)
    scores = one @ other.T / temperature
    if is_related is not None:
        itself = torch.eye(len(one), dtype=torch.bool, device=one.device)
        scores = scores.masked_fill((is_related | is_related.T) & ~itself, -torch.inf)
    losses = []
    for query, candidates, earlier in (
        (one, scores, earlier_other),
        (other, scores.T, earlier_one),
    ):
        if earlier is not None and len(earlier):
            more = query @ earlier.T / temperature
            if is_related_earlier is not None:
                more = more.masked_fill(is_related_earlier, -torch.inf)
            candidates = torch.cat([candidates, more], 1)
        losses.append(F.cross_entropy(candidates, target))
    return (losses[0] + losses[1]) / 2


def expression_errors(
    prediction: Prediction,
    level: Float[Tensor, " genes"],
    residual: Float[Tensor, "genes conditions"],
    *,
    level_std: Float[Tensor, ""],
    residual_std: Float[Tensor, ""],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean squared error of level and of residual, each in units of its own variance over genes.

    About 1 each for predicting the training mean; 0 at best.
    """
    level_error = ((prediction.level - level) / level_std).square().mean()
    residual_error = ((prediction.residual - residual) / residual_std).square().mean()
    return level_error, residual_error

"""Heads with their losses: expression level and profile, masked bases, contrast, tracks."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from genesplice.config.model import SUMMARY_BP
from genesplice.model.sequence import Columns, InputChannels, SequenceEncoder, Tokens

Conditions = Float[Tensor, "genes conditions"]
Logits = Float[Tensor, "batch length 4"]
Vectors = Float[Tensor, "pairs width"]


class Prediction(NamedTuple):
    """Predicted expression in log2(TPM + 1).

    `level` is the mean over conditions; `residual` is what is left after level and condition
    mean, and has mean 0 over conditions.
    """

    level: Float[Tensor, " genes"]
    residual: Conditions


class ExpressionHead(nn.Module):
    """Level, and a low-rank profile over conditions.

    Scales are learned from training genes by `fit` and kept as buffers: the network itself
    predicts standardised values. With `is_linear` both are linear maps.
    """

    level_mean: Tensor
    level_std: Tensor
    condition_mean: Tensor
    residual_std: Tensor

    def __init__(
        self,
        width: int,
        n_conditions: int,
        rank: int,
        dropout: float = 0.0,
        is_linear: bool = False,
    ) -> None:
        super().__init__()
        rank = min(rank, n_conditions)
        self.level, self.profile = (
            nn.Linear(width, out) if is_linear else _perceptron(width, out, dropout)
            for out in (1, rank)
        )
        self.condition_profiles = nn.Parameter(torch.randn(n_conditions, rank) / rank**0.5)
        self.register_buffer("level_mean", torch.zeros(()))
        self.register_buffer("level_std", torch.ones(()))
        self.register_buffer("condition_mean", torch.zeros(n_conditions))
        self.register_buffer("residual_std", torch.ones(()))

    def split(self, observed: Conditions) -> Prediction:
        """Measured expression as level and residual."""
        level = observed.mean(1)
        return Prediction(level, observed - level[:, None] - self.condition_mean)

    @torch.no_grad()
    def fit(self, observed: Conditions) -> None:
        """Take means, scales and the leading condition profiles from training genes.

        The profiles start as the right singular vectors of the training residual.
        """
        level = observed.mean(1)
        above = observed - level[:, None]
        self.level_mean.copy_(level.mean())
        self.level_std.copy_(level.std().clamp_min(1e-6) if len(level) > 1 else torch.ones(()))
        self.condition_mean.copy_(above.mean(0))
        residual = above - self.condition_mean
        self.residual_std.copy_(residual.std().clamp_min(1e-6))
        rank = self.condition_profiles.shape[1]
        _, scale, profiles = torch.linalg.svd(residual, full_matrices=False)
        rank = min(rank, len(scale))
        spread = scale[:rank] / max(len(observed), 2) ** 0.5 / self.residual_std
        self.condition_profiles.zero_()
        self.condition_profiles[:, :rank] = profiles[:rank].T * spread

    @torch.no_grad()
    def describe(self, observed: Conditions) -> Float[Tensor, "genes features"]:
        """Measured expression in few numbers: level, and the weights of the condition profiles.

        All have about mean 0 and spread 1 over the genes that `fit` has just seen.
        """
        level, residual = self.split(observed)
        residual, profiles = residual / self.residual_std, self.condition_profiles
        weights = residual @ profiles / profiles.square().sum(0).clamp_min(1e-6)
        return torch.cat([((level - self.level_mean) / self.level_std)[:, None], weights], 1)

    def forward(self, gene: Float[Tensor, "genes width"]) -> Prediction:
        """Predict from one vector a gene."""
        level = self.level(gene)[:, 0] * self.level_std + self.level_mean
        residual = self.profile(gene) @ self.condition_profiles.T
        residual = (residual - residual.mean(1, keepdim=True)) * self.residual_std
        return Prediction(level, residual)

    def expression(self, prediction: Prediction) -> Conditions:
        """Genes x conditions: level + condition mean + residual."""
        return prediction.level[:, None] + self.condition_mean + prediction.residual

    def errors(self, prediction: Prediction, observed: Conditions) -> tuple[Tensor, Tensor]:
        """Mean squared error of level and of residual, each over its variance between genes.

        About 1 each for predicting the training mean; 0 at best.
        """
        truth = self.split(observed)
        level_error = ((prediction.level - truth.level) / self.level_std).square().mean()
        error = ((prediction.residual - truth.residual) / self.residual_std).square().mean()
        return level_error, error


class MaskedBaseHead(nn.Module):
    """Logits over A, C, G, T for every base of every bin."""

    def __init__(self, width: int, bin_bp: int) -> None:
        super().__init__()
        self.bin_bp = bin_bp
        self.project = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 4 * bin_bp)
        )

    def forward(self, bins: Float[Tensor, "batch bins width"]) -> Logits:
        """Unfold bins to bases."""
        return self.project(bins).view(bins.shape[0], -1, 4)


class ContrastiveHead(nn.Module):
    """Intervals' summaries to unit vectors, for InfoNCE.

    Means over summaries are nearly the same everywhere; what they share would make all vectors
    alike, where InfoNCE has no slope. So they are standardised over the intervals that are
    compared.
    """

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, out_width)
        )

    def pool(
        self,
        summaries: Float[Tensor, "batch summaries width"],
        is_real: Bool[Tensor, "batch summaries"],
    ) -> Float[Tensor, "batch width"]:
        """Mean over the summaries that are real."""
        share = is_real / is_real.sum(1, keepdim=True).clamp_min(1)
        return (summaries * share[..., None].to(summaries)).sum(1)

    def forward(self, pooled: Float[Tensor, "batch width"]) -> Float[Tensor, "batch out_width"]:
        """Standardised over the batch, projected, of length 1; a batch of one says nothing."""
        apart = pooled - pooled.mean(0)
        spread = apart.square().mean(0).clamp_min(1e-8).rsqrt()
        return F.normalize(self.project(apart * spread), dim=-1)


def _perceptron(width: int, out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, 2 * width),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(2 * width, out),
    )


def masked_base_loss(
    logits: Logits,
    tokens: UInt8[Tensor, "batch length"],
    is_target: Bool[Tensor, "batch length"],
    weight: Float[Tensor, "batch length"] | None = None,
    total: float | None = None,
    shares: Logits | None = None,
) -> Float[Tensor, ""]:
    """Weighted mean of the targets' cross-entropy in bits per base; N is never a target.

    0 when every target is certain and right, 2 for a uniform guess; 0 with no target at all, or
    none that counts. With `shares` of A, C, G and T at each base these are to be predicted; the
    least is their entropy then.

    Parameters
    ----------
    weight
        Of each base; all the same where it is None.
    total
        Weight of all targets of which these are a part: the parts' losses then add up to the
        mean over all of them, however they were divided.
    """
    is_scored = is_target & (tokens < 4)
    wanted = tokens[is_scored].long() if shares is None else shares[is_scored]
    errors = F.cross_entropy(logits[is_scored], wanted, reduction="none")
    counted = torch.ones_like(errors) if weight is None else weight[is_scored].to(errors)
    divisor = counted.sum() if total is None else errors.new_tensor(total)
    return (errors * counted).sum() / divisor.clamp_min(1e-12) / math.log(2)


def info_nce(
    one: Vectors,
    other: Vectors,
    temperature: float,
    *,
    is_related: Bool[Tensor, "pairs pairs"] | None = None,
    earlier_one: Float[Tensor, "earlier width"] | None = None,
    earlier_other: Float[Tensor, "earlier width"] | None = None,
    is_related_earlier: Bool[Tensor, "pairs earlier"] | None = None,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE: row i of each side must find row i of the other among all rows.

    log(candidates) for vectors without information, 0 at best; a mean over no pairs is 0.

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
    target = torch.arange(len(one), device=one.device)
    scores = one @ other.T / temperature
    if is_related is not None:
        itself = torch.eye(len(one), dtype=torch.bool, device=one.device)
        scores = scores.masked_fill((is_related | is_related.T) & ~itself, -torch.inf)
    losses = []
    sides = (one, scores, earlier_other), (other, scores.T, earlier_one)
    for query, candidates, earlier in sides:
        if earlier is not None and len(earlier):
            more = query @ earlier.T / temperature
            if is_related_earlier is not None:
                more = more.masked_fill(is_related_earlier, -torch.inf)
            candidates = torch.cat([candidates, more], 1)
        losses.append(F.cross_entropy(candidates, target))
    return (losses[0] + losses[1]) / 2


class TrackHead(nn.Module):
    """Tracks in bins of 128 bp, from an encoder's bins and the bases themselves.

    Filters over the bases, read on both strands, find what a frozen encoder has not learned to
    tell apart; both go through one hidden layer, the strongest of a track's bin counts, and a
    convolution spreads it over the neighbours: fragments are longer than a bin. Coverage comes out
    as times its mean, peaks as logits.

    Parameters
    ----------
    width
        Channels of the encoder's bins; 0 where there is no encoder.
    is_peaks
        Which tracks have peaks.
    """

    is_peaks: Tensor
    centre: Tensor
    scale: Tensor
    filter_bp, spread_bins = 15, 5
    n_filters, n_hidden, dropped = 32, 64, 0.2

    def __init__(self, width: int, bin_bp: int, is_peaks: Bool[Tensor, " tracks"]) -> None:
        super().__init__()
        filters, hidden = self.n_filters, self.n_hidden
        self.bin_bp, self.per_track_bin = bin_bp, SUMMARY_BP // bin_bp
        self.register_buffer("is_peaks", is_peaks)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.filters = nn.Parameter(torch.randn(filters, 4, self.filter_bp) / self.filter_bp**0.5)
        self.detect = nn.Linear(width + 2 * filters, hidden)
        self.spread = nn.Conv1d(hidden, hidden, self.spread_bins, padding=self.spread_bins // 2)
        self.dropout, self.out = nn.Dropout(self.dropped), nn.Linear(hidden, len(is_peaks))
        nn.init.zeros_(self.out.weight)
        # Where nothing is known: the mean, or a peak in a hundred bins.
        nn.init.constant_(self.out.bias, math.log(math.e - 1))
        self.out.bias.data[is_peaks] = math.log(0.01)

    def forward(
        self,
        bases: Float[Tensor, "batch length 4"],
        bins: Float[Tensor, "batch bins width"],
    ) -> Float[Tensor, "batch track_bins tracks"]:
        """Predict from what is read on one strand, 5' to 3'."""
        filters = torch.cat([self.filters, self.filters.flip(1, 2)])
        found = F.conv1d(bases.transpose(1, 2), filters, padding=self.filter_bp // 2)
        found = F.max_pool1d(F.gelu(found), self.bin_bp).transpose(1, 2)
        known = (bins - self.centre) / self.scale
        hidden = F.gelu(self.detect(torch.cat([known, found], -1)))
        hidden = hidden.unflatten(1, (-1, self.per_track_bin)).amax(2)
        hidden = hidden + F.gelu(self.spread(hidden.transpose(1, 2)).transpose(1, 2))
        raw = self.out(self.dropout(hidden))
        return torch.where(self.is_peaks, raw, F.softplus(raw))


class TrackModel(nn.Module):
    """An encoder, or none, and a head of tracks."""

    ALONE_BP = 16

    def __init__(self, encoder: SequenceEncoder | None, is_peaks: Bool[Tensor, " tracks"]) -> None:
        super().__init__()
        self.encoder, self.bases = encoder, InputChannels()
        sizes = (0, self.ALONE_BP) if encoder is None else (encoder.width, encoder.bin_bp)
        self.head = TrackHead(*sizes, is_peaks)

    def forward(
        self, tokens: Tokens, columns: Columns, bins: Float[Tensor, "batch bins width"]
    ) -> Float[Tensor, "batch track_bins tracks"]:
        """Predict on the strand that is read; the encoder is asked where `bins` is empty."""
        bases = self.bases(tokens)
        if self.encoder is None:
            bins = bases.new_zeros(len(bases), bases.shape[1] // self.ALONE_BP, 0)
        elif not bins.shape[1]:
            bins = self.encoder(tokens, columns=columns).bins
        return self.head(bases, bins)


def track_loss(
    predicted: Float[Tensor, "batch bins tracks"],
    observed: Float[Tensor, "batch bins tracks"],
    is_peaks: Bool[Tensor, " tracks"],
    total_weight: float = 0.2,
) -> Float[Tensor, ""]:
    r"""Mean over tracks of what a bin is off; bins whose target is NaN are left out.

    Of coverage, with totals S and s over the bins of a window and shares Q and q of them,
    :math:`\sum_b y_b \log(q_b / p_b) + 0.2\,(S - s + s \log(s / S))`: the multinomial says where,
    the Poisson term how much, 0 where both are right. Of peaks the cross-entropy of their logits.

    Source: Linder et al., Predicting RNA-seq coverage from DNA sequence as a unifying model of
    gene regulation, 2025, methods (less a constant).
    """
    is_known = torch.isfinite(observed)
    weight = is_known.to(predicted)
    count = weight.sum(1).clamp_min(1)
    y, small = observed.nan_to_num(0), 1e-6
    p = torch.where(is_peaks, torch.ones_like(predicted), predicted) + small
    total_p, total_y = (p * weight).sum(1) + small, (y * weight).sum(1) + small
    where = torch.xlogy(y, (y + small) / p * (total_p / total_y)[:, None]) * weight
    amount = total_p - total_y + torch.xlogy(total_y, total_y / total_p)
    coverage = (where.sum(1) + total_weight * amount) / count
    logits = torch.where(is_peaks, predicted, torch.zeros_like(predicted))
    errors = F.binary_cross_entropy_with_logits(logits, y.clamp(0, 1), reduction="none")
    return torch.where(is_peaks, (errors * weight).sum(1) / count, coverage).mean()

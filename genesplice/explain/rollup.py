"""Attention of all levels in one view: what a gene's start hears, from which bases, by which way.

Attention of a layer says where its tokens listen; a prediction has gone through several layers at
four levels. Rolled up, each token passes half of its weight on to what it listened to and keeps
half (the residual connection), layer after layer, down to the bins. Where a sum or a merge joins
several vectors, they share the weight by the length of what each adds.
"""

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from genesplice.explain.attention import attention_rows, splice_window
from genesplice.explain.explainer import Explainer
from genesplice.explain.incremental import SplicedEncoder, Stack
from genesplice.model.layers import Merge

__all__ = ["PATHS", "roll_up"]

PATHS = ("bins", "summaries", "regions")
"""The highest level that a weight went through on its way."""
TILE_ROWS = 256


@torch.no_grad()
def roll_up(explainer: Explainer, gene_id: str, *, position_bp: int = 0) -> pd.DataFrame:
    """Where the token at `position_bp` from a gene's TSS gets what it knows; all weights sum to 1.

    Columns: gene_id, path (of `PATHS`), start_bp and end_bp (from the TSS, sense strand,
    half-open), weight. Tokens without weight are left out. Weights say what could have been heard
    and not what mattered: silence heads, or take attributions, for that.

    Source: Abnar and Zuidema, Quantifying attention flow in transformers, 2020, equation 1 (the
    mean over heads); sums are shared out as in Kobayashi et al., Attention is not only a weight,
    2020.

    Raises
    ------
    WorkError
        If the encoder is not the hierarchical one.
    InputError
        If the position is outside of the window.
    """
    function, spliced, row = splice_window(explainer, gene_id, position_bp)
    bin_bp = explainer.model.config.bin_bp
    start = torch.zeros(function.is_real.shape[1], dtype=torch.float64)
    start[row] = 1
    by_path = _follow(spliced, start)
    tables = []
    for path, weight in zip(PATHS, by_path, strict=True):
        token = weight.nonzero()[:, 0]
        first = token * bin_bp + function.window.offset_bp
        columns = {
            "gene_id": gene_id,
            "path": path,
            "start_bp": first.numpy(),
            "end_bp": (first + bin_bp).numpy(),
            "weight": weight[token].numpy(),
        }
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def _follow(
    spliced: SplicedEncoder, start: Float[Tensor, " bins"]
) -> tuple[Tensor, Tensor, Tensor]:
    """The weight of each bin by path."""
    encoder, per_summary = spliced.encoder, spliced.per_summary
    fused = _back(spliced.last, start)
    shares = _sum_shares(spliced) * fused
    on_summaries = shares[1].unflatten(0, (-1, per_summary)).sum(1)
    on_regions = shares[2].unflatten(0, (len(spliced.regions.output[0]), -1)).sum(1)

    def to_bins(summaries: Tensor) -> Tensor:
        heard = _back(spliced.summaries, summaries)
        return _unmerge(encoder.to_summaries, spliced.first.output, spliced.is_real, heard)

    told = _unmerge(
        encoder.to_regions,
        spliced.summaries.output,
        spliced.summary_real,
        _back(spliced.regions, on_regions),
    )
    ways = shares[0], to_bins(on_summaries), to_bins(told)
    local, by_summaries, by_regions = (_back(spliced.first, way) for way in ways)
    return local, by_summaries, by_regions


def _back(stack: Stack, weight: Float[Tensor, " tokens"]) -> Float[Tensor, " tokens"]:
    """From what a stack gives to what entered it."""
    for layer in reversed(range(len(stack.clean))):
        heard = torch.zeros_like(weight)
        for low in range(0, len(weight), TILE_ROWS):
            part = weight[low : low + TILE_ROWS]
            if bool(part.any()):
                rows = attention_rows(stack, layer, low, low + len(part)).mean(0)
                heard += part @ rows.double()
        weight = (weight + heard) / 2
    return weight


def _sum_shares(spliced: SplicedEncoder) -> Float[Tensor, "3 bins"]:
    """How much of a fused bin is its own, its summary's and its region's vector."""
    encoder, n_bins = spliced.encoder, spliced.is_real.shape[1]
    down = encoder.from_summaries.weight
    summaries = spliced.summaries.output[0] @ down.T
    regions = spliced.regions.output[0] @ encoder.from_regions.weight.T @ down.T
    size = torch.stack(
        [
            spliced.first.output[0].norm(dim=1),
            summaries.norm(dim=1).repeat_interleave(n_bins // len(summaries)),
            regions.norm(dim=1).repeat_interleave(n_bins // len(regions)),
        ]
    ).double()
    # A level that the context dial shuts off runs on zeros and says nothing of the sequence.
    size[1] *= float(encoder.context.sees_summaries)
    size[2] *= float(encoder.context.sees_regions)
    return size / size.sum(0).clamp_min(1e-30)


def _unmerge(
    merge: Merge,
    x: Float[Tensor, "1 tokens width"],
    is_real: Bool[Tensor, "1 tokens"],
    weight: Float[Tensor, " merged"],
) -> Float[Tensor, " tokens"]:
    """Share the weight of merged tokens among their parts."""
    parts = (merge.norm(x) * is_real[..., None])[0].unflatten(0, (-1, merge.factor))
    by_part = merge.project.weight.unflatten(1, (merge.factor, -1))
    size = torch.einsum("mfw,ofw->mfo", parts, by_part).norm(dim=-1).double()
    share = size / size.sum(1, keepdim=True).clamp_min(1e-30)
    return (share * weight[:, None]).flatten()

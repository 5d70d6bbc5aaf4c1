"""Attention of all levels in one view: what a gene's start hears, from which bases, by which way.

Attention of a layer says where its tokens listen; a prediction has gone through several layers at
four levels. Rolled up, each token passes half of its weight on to what it listened to and keeps
half (the residual connection), layer after layer, down to the bins. Where a sum or a merge joins
several vectors, they share the weight by the length of what each adds.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from genesplice.config.model import REGION_BP, SUMMARY_BP
from genesplice.errors import InputError, WorkError
from genesplice.explain.incremental import SplicedEncoder, Stack
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.layers import Block, Merge
from genesplice.predict.gene_output import Explainer, GeneOutput

LEVELS = ("bins", "summaries", "regions", "fused")


def attention_rows(
    stack: Stack, layer: int, low: int, high: int
) -> Float[Tensor, "heads rows tokens"]:
    """The weights with which tokens low … high hear every token of their level; rows sum to 1.

    Raises
    ------
    InputError
        If there is no such layer or row.
    """
    length = stack.is_real.shape[1]
    if not (0 <= layer < len(stack.clean) and 0 <= low < high <= length):
        raise InputError(
            f"layer {layer}, rows {low} to {high}", f"{len(stack.clean)} layers of {length} tokens"
        )
    clean = stack.clean[layer]
    q, k = clean.q[0, :, low:high], clean.k[0]
    distance = (torch.arange(low, high)[:, None] - torch.arange(length)[None, :]).abs()
    allowed = stack.is_real[0][None, :] | (distance == 0)
    if stack.half is not None:
        allowed &= distance <= stack.half
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    return scores.masked_fill(~allowed, -math.inf).softmax(-1)


def _hierarchy(explainer: Explainer) -> HierarchicalEncoder:
    encoder = explainer.model.encoder
    if not isinstance(encoder, HierarchicalEncoder):
        raise WorkError(f"{type(encoder).__name__} has no levels of attention")
    return encoder


@torch.no_grad()
def splice_window(
    explainer: Explainer, gene_id: str, position_bp: int = 0
) -> tuple[GeneOutput, SplicedEncoder, int]:
    """A gene's window with everything its levels computed, and the bin at `position_bp` in it.

    Raises
    ------
    WorkError
        If the encoder is not the hierarchical one.
    InputError
        If the position, counted from the TSS, is outside of the window.
    """
    encoder = _hierarchy(explainer)
    function = explainer.forward_function(gene_id)
    at, length = function.window.start + position_bp, function.window.tokens.shape[1]
    if not 0 <= at < length:
        low = function.window.offset_bp
        raise InputError(f"position {position_bp} bp", f"{low} to {low + length - 1} for {gene_id}")
    inputs = torch.cat([function.bases, function.annotation], -1)
    spliced = SplicedEncoder(encoder, inputs, function.is_real, (0, function.is_real.shape[1]))
    return function, spliced, at // encoder.bin_bp


def gene_attention(
    explainer: Explainer, gene_id: str, *, positions_bp: Sequence[int] = (0,)
) -> pd.DataFrame:
    """What tokens around a gene's start listen to, at every level, layer and head.

    One row for each token that gets any weight from the token over one of `positions_bp` (from the
    TSS). Columns: gene_id, position_bp, level, layer, head, start_bp and end_bp (from the TSS,
    sense strand, half-open), weight.

    Raises
    ------
    WorkError
        If the encoder is not the hierarchical one.
    InputError
        If a position is outside of the window.
    """
    tables = []
    for position in positions_bp:
        function, spliced, _ = splice_window(explainer, gene_id, position)
        found = _rows_of_levels(function, spliced, function.window.start + position)
        found.insert(0, "position_bp", position)
        tables.append(found)
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "gene_id", gene_id)
    return table


def _rows_of_levels(function: GeneOutput, spliced: SplicedEncoder, at: int) -> pd.DataFrame:
    """Exact rows of the tokens over base `at` of the window."""
    bin_bp = spliced.encoder.bin_bp
    stacks = (spliced.first, spliced.summaries, spliced.regions, spliced.last)
    tables = []
    for level, stack, size in zip(
        LEVELS, stacks, (bin_bp, SUMMARY_BP, REGION_BP, bin_bp), strict=True
    ):
        for layer in range(len(stack.clean)):
            weights = attention_rows(stack, layer, at // size, at // size + 1)[:, 0]
            head, token = weights.nonzero(as_tuple=True)
            start = token * size + function.window.offset_bp
            columns = {
                "level": level,
                "layer": layer,
                "head": head.numpy(),
                "start_bp": start.numpy(),
                "end_bp": (start + size).numpy(),
                "weight": weights[head, token].detach().double().numpy(),
            }
            tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


@torch.no_grad()
def head_ablation(
    explainer: Explainer, gene_id: str, *, condition: str | None = None
) -> pd.DataFrame:
    """How the prediction for a gene changes when one head after another falls silent.

    Columns: gene_id, level, layer, head, effect (prediction without the head less with it). Other
    genes keep their vectors. The model is left as it was.

    Raises
    ------
    WorkError
        If the encoder is not the hierarchical one.
    """
    encoder = _hierarchy(explainer)
    function = explainer.forward_function(gene_id, condition)
    reference = float(function(function.bases))
    parts = (
        encoder.bin_blocks,
        encoder.summary_blocks,
        encoder.region_blocks,
        encoder.decoder_blocks,
    )
    rows = [
        (gene_id, level, layer, head, _without(function, block, head) - reference)
        for level, blocks in zip(LEVELS, parts, strict=True)
        for layer, block in enumerate(_blocks(blocks))
        for head in range(block.heads)
    ]
    return pd.DataFrame(rows, columns=["gene_id", "level", "layer", "head", "effect"])


def _blocks(blocks: nn.ModuleList) -> Iterator[Block]:
    for block in blocks:
        assert isinstance(block, Block)
        yield block


def _without(function: GeneOutput, block: Block, head: int) -> float:
    with _silenced(block, head):
        return float(function(function.bases))


@contextmanager
def _silenced(block: Block, head: int) -> Iterator[None]:
    width = block.out.in_features // block.heads
    columns = block.out.weight[:, head * width : (head + 1) * width]
    kept = columns.clone()
    try:
        columns.zero_()
        yield
    finally:
        columns.copy_(kept)


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

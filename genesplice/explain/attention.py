"""Attention of all levels: what a gene's start attends to, from which bases, and which heads count.

Attention of a layer says where its tokens attend; a prediction has gone through several layers at
four levels. In the rollout each token passes half of its weight on to what it attended to and keeps
half (the residual connection), layer after layer, down to the bins. Where a sum or a merge joins
several vectors, they share the weight by the length of what each adds.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from genesplice.config.model import REGION_BP, SUMMARY_BP
from genesplice.errors import WorkError, require
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.incremental import IncrementalEncoder, Level
from genesplice.model.sequence import Block, Merge
from genesplice.predict.gene_output import Explainer, GeneOutput, resolve_genes

LEVELS = ("bins", "summaries", "regions", "fused")
PATHS = ("bins", "summaries", "regions")
"""The highest level that a weight went through on its way."""
POSITIONS_BP = (-256, -64, 0, 64, 256)
TILE_ROWS = 256


class AttentionTables(NamedTuple):
    """Of several genes: `gene_attention`, `attention_rollout` and `head_ablation`."""

    weights: pd.DataFrame
    rollout: pd.DataFrame
    heads: pd.DataFrame


def attention_of(
    explainer: Explainer, genes: Sequence[str], *, condition: str | None = None
) -> AttentionTables:
    """What tokens around the starts of genes attend to, and which heads the prediction needs.

    Attention is shown of `POSITIONS_BP` from the TSS; the rollout is that of the TSS.

    Of several models each gene has the first of its own: heads of two models are not the same.

    Parameters
    ----------
    genes
        Ids or names, "all", or "fold:0".
    condition
        Of head ablation: predict the residual in it; None: the level.

    Raises
    ------
    WorkError
        If the encoder is not the hierarchical one.
    InputError
        For an unknown gene or condition, or a position outside of the window.
    """
    own = {gene: explainer.of(gene)[0] for gene in resolve_genes(explainer.bundle, genes)}
    parts = (
        [gene_attention(one, gene, positions_bp=POSITIONS_BP) for gene, one in own.items()],
        [attention_rollout(one, gene) for gene, one in own.items()],
        [head_ablation(one, gene, condition=condition) for gene, one in own.items()],
    )
    return AttentionTables(*(pd.concat(part, ignore_index=True) for part in parts))


def attention_rows(
    level: Level, layer: int, low: int, high: int
) -> Float[Tensor, "heads rows tokens"]:
    """The weights with which tokens low to high attend to all of their level; rows sum to 1.

    Worked out from queries and keys: the fused kernel keeps none.

    Raises
    ------
    InputError
        If there is no such layer or row.
    """
    length, n_layers = level.is_real.shape[1], len(level.blocks)
    is_there = 0 <= layer < n_layers and 0 <= low < high <= length
    found = f"layer {layer}, rows {low} to {high}"
    require(is_there, found, f"{n_layers} layers of {length} tokens")
    _, q, k, _ = level.states[layer]
    distance = (torch.arange(low, high)[:, None] - torch.arange(length)[None, :]).abs()
    allowed = level.is_real[0][None, :] | (distance == 0)
    if level.half_window is not None:
        allowed &= distance <= level.half_window
    scores = q[0, :, low:high] @ k[0].transpose(1, 2) / math.sqrt(q.shape[-1])
    return scores.masked_fill(~allowed, -math.inf).softmax(-1)


def _hierarchy(explainer: Explainer) -> HierarchicalEncoder:
    encoder = explainer.model.encoder
    if not isinstance(encoder, HierarchicalEncoder):
        raise WorkError(f"{type(encoder).__name__} has no levels of attention")
    return encoder


@torch.no_grad()
def encode_levels(
    explainer: Explainer, gene_id: str, position_bp: int = 0
) -> tuple[GeneOutput, IncrementalEncoder, int]:
    """A gene's window with all of its levels computed, and which of its bases is `position_bp`.

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
    low = function.window.offset_bp
    wanted = f"{low} to {low + length - 1} for {gene_id}"
    require(0 <= at < length, f"position {position_bp} bp", wanted)
    inputs = torch.cat([function.bases, function.annotation], -1)
    return function, IncrementalEncoder(encoder, inputs, function.is_real), at


@torch.no_grad()
def gene_attention(
    explainer: Explainer, gene_id: str, *, positions_bp: Sequence[int] = (0,)
) -> pd.DataFrame:
    """What tokens around a gene's start attend to, at every level, layer and head.

    One row for each token that gets any weight from the token over one of `positions_bp` (from the
    TSS). Columns: gene_id, position_bp, level, layer, head, start_bp and end_bp (from the TSS,
    sense strand, half-open), weight.

    Raises
    ------
    WorkError, InputError
        As `encode_levels`.
    """
    tables = []
    for position in positions_bp:
        function, encoded, at = encode_levels(explainer, gene_id, position)
        levels = (encoded.first, encoded.summaries, encoded.regions, encoded.last)
        bin_bp = encoded.encoder.bin_bp
        sizes_bp = (bin_bp, SUMMARY_BP, REGION_BP, bin_bp)
        for name, level, size in zip(LEVELS, levels, sizes_bp, strict=True):
            for layer in range(len(level.blocks)):
                weights = attention_rows(level, layer, at // size, at // size + 1)[:, 0]
                head, token = weights.nonzero(as_tuple=True)
                query = {"gene_id": gene_id, "position_bp": position}
                columns = query | {"level": name, "layer": layer, "head": head.numpy()}
                tables.append(_intervals(columns, token, size, function, weights[head, token]))
    return pd.concat(tables, ignore_index=True)


def _intervals(
    columns: dict, token: Tensor, size_bp: int, function: GeneOutput, weight: Tensor
) -> pd.DataFrame:
    """A row a token, where it lies from the TSS, and its weight."""
    start = (token * size_bp + function.window.offset_bp).numpy()
    weights = weight.double().numpy()
    return pd.DataFrame(columns | {"start_bp": start, "end_bp": start + size_bp, "weight": weights})


@torch.no_grad()
def head_ablation(
    explainer: Explainer, gene_id: str, *, condition: str | None = None
) -> pd.DataFrame:
    """How the prediction for a gene changes when one head after another gives zeros.

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
    rows = []
    for level, part in zip(LEVELS, ("bin", "summary", "region", "decoder"), strict=True):
        for layer, block in enumerate(getattr(encoder, f"{part}_blocks")):
            assert isinstance(block, Block)
            for head in range(block.heads):
                with _ablated(block, head):
                    effect = float(function(function.bases)) - reference
                rows.append((gene_id, level, layer, head, effect))
    return pd.DataFrame(rows, columns=["gene_id", "level", "layer", "head", "effect"])


@contextmanager
def _ablated(block: Block, head: int) -> Iterator[None]:
    width = block.out.in_features // block.heads
    columns = block.out.weight[:, head * width : (head + 1) * width]
    kept = columns.clone()
    try:
        columns.zero_()
        yield
    finally:
        columns.copy_(kept)


@torch.no_grad()
def attention_rollout(explainer: Explainer, gene_id: str, *, position_bp: int = 0) -> pd.DataFrame:
    """Which bins the token at `position_bp` from a gene's TSS can draw on; weights sum to 1.

    Columns: gene_id, path (of `PATHS`), start_bp and end_bp (from the TSS, sense strand,
    half-open), weight. Tokens without weight are left out. Weights say what could have been used
    and not what mattered: for that, ablate heads or take attributions.

    Source: Abnar and Zuidema, Quantifying attention flow in transformers, 2020, equation 1 (the
    mean over heads); sums are shared out as in Kobayashi et al., Attention is not only a weight,
    2020.

    Raises
    ------
    WorkError, InputError
        As `encode_levels`.
    """
    function, encoded, at = encode_levels(explainer, gene_id, position_bp)
    encoder, n_bins = encoded.encoder, encoded.is_real.shape[1]
    start = torch.zeros(n_bins, dtype=torch.float64)
    start[at // encoder.bin_bp] = 1
    local, on_summaries, on_regions = _sum_shares(encoded) * _through(encoded.last, start)
    on_summaries = on_summaries.unflatten(0, (-1, encoded.per_summary)).sum(1)
    on_regions = on_regions.unflatten(0, (-1, encoded.per_summary * encoded.per_region)).sum(1)
    merges = (encoder.to_summaries, encoded.first), (encoder.to_regions, encoded.summaries)
    on_regions = _unmerge(*merges[1], _through(encoded.regions, on_regions))
    ways = [local] + [
        _unmerge(*merges[0], _through(encoded.summaries, weight))
        for weight in (on_summaries, on_regions)
    ]
    tables = []
    for path, way in zip(PATHS, ways, strict=True):
        weight = _through(encoded.first, way)
        token = weight.nonzero()[:, 0]
        columns = {"gene_id": gene_id, "path": path}
        tables.append(_intervals(columns, token, encoder.bin_bp, function, weight[token]))
    return pd.concat(tables, ignore_index=True)


def _through(level: Level, weight: Float[Tensor, " tokens"]) -> Float[Tensor, " tokens"]:
    """From what a level gives back to what entered it."""
    for layer in reversed(range(len(level.blocks))):
        received = torch.zeros_like(weight)
        for low in range(0, len(weight), TILE_ROWS):
            part = weight[low : low + TILE_ROWS]
            if bool(part.any()):
                rows = attention_rows(level, layer, low, low + len(part)).mean(0)
                received += part @ rows.double()
        weight = (weight + received) / 2
    return weight


def _sum_shares(encoded: IncrementalEncoder) -> Float[Tensor, "3 bins"]:
    """How much of a fused bin is its own, its summary's and its region's vector."""
    encoder, n_bins = encoded.encoder, encoded.is_real.shape[1]
    down = encoder.from_summaries.weight
    vectors = (
        encoded.first.output[0],
        encoded.summaries.output[0] @ down.T,
        encoded.regions.output[0] @ encoder.from_regions.weight.T @ down.T,
    )
    size = torch.stack([x.norm(dim=1).repeat_interleave(n_bins // len(x)) for x in vectors])
    # A level that the context length shuts off runs on zeros and holds nothing of the sequence.
    seen = torch.tensor([True, encoder.context.sees_summaries, encoder.context.sees_regions])
    size = size.double() * seen[:, None]
    return size / size.sum(0).clamp_min(1e-30)


def _unmerge(
    merge: Merge, level: Level, weight: Float[Tensor, " merged"]
) -> Float[Tensor, " tokens"]:
    """Share the weight of merged tokens among their parts, the tokens of `level`."""
    real: Bool[Tensor, "1 tokens 1"] = level.is_real[..., None]
    parts = (merge.norm(level.output) * real)[0].unflatten(0, (-1, merge.factor))
    by_part = merge.project.weight.unflatten(1, (merge.factor, -1))
    size = torch.einsum("mfw,ofw->mfo", parts, by_part).norm(dim=-1).double()
    share = size / size.sum(1, keepdim=True).clamp_min(1e-30)
    return (share * weight[:, None]).flatten()

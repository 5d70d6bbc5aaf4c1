"""Attention that fused kernels never show: exact rows from queries and keys, and heads cut off."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from genesplice.errors import InputError, WorkError
from genesplice.explain.explainer import Explainer, GeneOutput
from genesplice.explain.incremental import SplicedEncoder, Stack
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.layers import Block
from genesplice.model.sequence import REGION_BP, SUMMARY_BP

__all__ = ["LEVELS", "attention_rows", "gene_attention", "head_ablation", "splice_window"]

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
        encoder.fused_blocks,
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

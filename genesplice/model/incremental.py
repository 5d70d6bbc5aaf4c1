"""A window encoded once, and again with some bases changed: what a change touches, exactly.

Of the windowed levels these are the tokens around the changed bases, with queries, keys and values
of all others as they were; summaries and regions are few; of what leads down again it is the bins
that are read. In the graph it is one gene: what all others send is worked out once.
"""

from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATv2Conv

from genesplice.errors import WorkError
from genesplice.model.attention import attend, make_plan, rope
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.graph import MESSAGES, GeneGraph, Genes, GraphLayer
from genesplice.model.sequence import Block, EncoderOutput, fill_unknown

Span = tuple[int, int]
SMALLEST_MASS = 1e-16
"""Added to a sum of attention weights, as PyG does."""


class State(NamedTuple):
    """What enters a block, and its queries and keys (both rotated) and values."""

    x: Float[Tensor, "batch tokens width"]
    q: Float[Tensor, "batch heads tokens head_width"]
    k: Float[Tensor, "batch heads tokens head_width"]
    v: Float[Tensor, "batch heads tokens head_width"]


class Level(NamedTuple):
    """One level over all of its tokens, `half_window` to each side (None: all).

    `output` is what the next level receives: 0 for tokens that are not real.
    """

    blocks: nn.ModuleList
    half_window: int | None
    is_real: Bool[Tensor, "batch tokens"]
    states: list[State]
    output: Float[Tensor, "batch tokens width"]


def run_level(
    blocks: nn.ModuleList,
    x: Float[Tensor, "batch tokens width"],
    is_real: Bool[Tensor, "batch tokens"],
    half_window: int | None,
) -> Level:
    """Run all tokens of one level and keep what every block attends with."""
    plan, states = make_plan(is_real, half_window), []
    for block in blocks:
        assert isinstance(block, Block)
        states.append(State(x, *block.project(x, rope(x.shape[1], block.head_width, x.device))))
        x = block.finish(x, attend(*states[-1][1:], plan))
    return Level(blocks, half_window, is_real, states, x * is_real[..., None])


def rerun(
    level: Level, new: Float[Tensor, "variants changed width"], at: int, wanted: Span | None = None
) -> tuple[int, Float[Tensor, "variants span width"]]:
    """What a level gives where `new` tokens from `at` on change it, and where that begins.

    With `wanted` no more than these tokens; `level.states` may then be empty, if `new` is all that
    they attend to.
    """
    n_tokens = level.is_real.shape[1]
    half = n_tokens if level.half_window is None else min(level.half_window, n_tokens)
    for number, block in enumerate(level.blocks):
        assert isinstance(block, Block)
        old = level.states[number] if level.states else (None,) * 4
        reach = half * (len(level.blocks) - 1 - number)
        low, high = (0, n_tokens) if wanted is None else (wanted[0] - reach, wanted[1] + reach)
        low, high = max(at - half, low, 0), min(at + new.shape[1] + half, high, n_tokens)
        left, right = max(low - half, 0), min(high + half, n_tokens)
        rotations = rope(n_tokens, block.head_width, new.device)[at : at + new.shape[1]]
        q, k, v = block.project(new, rotations)
        i, j = torch.arange(low, high)[:, None], torch.arange(left, right)
        allowed = ((i - j).abs() <= half) & level.is_real[0, left:right].cpu() | (i == j)
        mixed = F.scaled_dot_product_attention(
            splice(old[1], q, at, low, high, dim=2),
            splice(old[2], k, at, left, right, dim=2),
            splice(old[3], v, at, left, right, dim=2),
            attn_mask=None if allowed.all() else allowed.to(new.device),
        )
        new, at = block.finish(splice(old[0], new, at, low, high), mixed), low
    return at, new * level.is_real[:, at : at + new.shape[1], None]


def splice(
    old: Float[Tensor, "1 *tokens"] | None,
    new: Float[Tensor, "variants *changed"],
    at: int,
    low: int,
    high: int,
    *,
    dim: int = 1,
) -> Float[Tensor, "variants *span"]:
    """Tokens low to high of `old` (along `dim`) in every variant, its `new` ones from `at` on."""
    first = min(max(at, low), high)
    last = max(min(at + new.shape[dim], high), first)
    inner = new.narrow(dim, first - at if last > first else 0, last - first)
    if old is None or (first, last) == (low, high):
        return inner
    outer = old.expand(len(new), *old.shape[1:])
    parts = outer.narrow(dim, low, first - low), inner, outer.narrow(dim, last, high - last)
    return torch.cat(parts, dim)


class IncrementalEncoder:
    """One strand of one window under `encoder`, all levels at hand, to be encoded with changes.

    Parameters
    ----------
    inputs
        Channels of the unchanged window.
    with_bases
        Give vectors at 1 bp too, where the encoder has any.

    Raises
    ------
    WorkError
        If regions are permuted: what a change touches is not near it.
    """

    def __init__(
        self,
        encoder: HierarchicalEncoder,
        inputs: Float[Tensor, "1 length channels"],
        is_real: Bool[Tensor, "1 bins"],
        *,
        with_bases: bool = False,
    ) -> None:
        if encoder.permutes_regions:
            raise WorkError("permuted regions: what a change touches is not near it")
        self.encoder, self.is_real = encoder, is_real
        self.path = encoder.base_path if with_bases else None
        self.left, self.right = encoder.margins
        self.padded = fill_unknown(inputs, self.left, self.right)
        self.bases: list[Tensor] = []
        self.per_summary, self.per_region = encoder.to_summaries.factor, encoder.to_regions.factor
        context = encoder.context
        if encoder.base_path is not None:
            spare = self.left - encoder.base_path.down_bp, self.right - encoder.base_path.down_bp
            inner = self.padded[:, spare[0] : self.padded.shape[1] - spare[1]]
            self.bases = encoder.base_path.down_states(inner)
        entered = encoder.first_bins(self.padded, self.bases[-1] if self.bases else None)
        entered = entered * is_real[..., None]
        self.first = run_level(encoder.bin_blocks, entered, is_real, context.bin_half)
        real = is_real.unflatten(1, (-1, self.per_summary)).any(-1)
        merged = encoder.to_summaries(self.first.output, is_real)[0]
        if not context.sees_summaries:
            merged, real = torch.zeros_like(merged), torch.ones_like(real)
        self.summaries = run_level(encoder.summary_blocks, merged, real, context.summary_half)
        regions, real = encoder.to_regions(self.summaries.output, real)
        if not context.sees_regions:
            regions, real = torch.zeros_like(regions), torch.ones_like(real)
        self.regions = run_level(encoder.region_blocks, regions, real, context.region_half)

    @cached_property
    def last(self) -> Level:
        """Bins with what they receive from summaries and regions, unchanged."""
        fused = self.first.output + self._from_coarse(self.summaries.output, self.regions.output)
        blocks, half = self.encoder.decoder_blocks, self.encoder.context.bin_half
        return run_level(blocks, fused * self.is_real[..., None], self.is_real, half)

    def _from_coarse(self, summaries: Tensor, regions: Tensor) -> Tensor:
        """What every bin receives from its summary and its region."""
        down = self.encoder.from_regions(regions).repeat_interleave(self.per_region, 1)
        return self.encoder.from_summaries(summaries + down).repeat_interleave(self.per_summary, 1)

    def encode(
        self, bins: Span, low_bp: int, bases: Float[Tensor, "variants changed 4"]
    ) -> EncoderOutput:
        """`bins` of each variant, in which `bases` replaces what starts at `low_bp`.

        Bins count from the first of them; there are no summaries or regions. Whether a bin is
        real cannot change.
        """
        encoder, bin_bp, n_bins = self.encoder, self.encoder.bin_bp, self.is_real.shape[1]
        # Up: the bins whose stem sees the change, those that attend to them, and so on.
        at, fine = self._down_again(low_bp, bases)
        size = bases.shape[1] if fine is None else fine.shape[1]
        stem = encoder.stem
        low = max(min(at, low_bp - stem.right) // bin_bp, 0)
        high = min(-(-max(at + size, low_bp + bases.shape[1] + stem.left) // bin_bp), n_bins)
        span = low * bin_bp, high * bin_bp
        channels = self._channels(low_bp, bases, span[0], span[1] + self.left + self.right)
        near = None if fine is None else splice(self.bases[-1], fine, at, *span)
        entered = encoder.first_bins(channels, near) * self.is_real[:, low:high, None]
        first, changed = rerun(self.first, entered, low)
        summaries, regions = self.summaries.output, self.regions.output
        if encoder.context.sees_summaries:
            begin = first // self.per_summary * self.per_summary
            end = -(-(first + changed.shape[1]) // self.per_summary) * self.per_summary
            whole = splice(self.first.output, changed, first, begin, end)
            real = self.is_real[:, begin:end].expand(len(whole), -1)
            merged = encoder.to_summaries(whole, real)[0]
            summary, merged = rerun(self.summaries, merged, begin // self.per_summary)
            summaries = splice(summaries, merged, summary, 0, summaries.shape[1])
        if encoder.context.sees_regions:
            real = self.summaries.is_real.expand(len(summaries), -1)
            regions = rerun(self.regions, encoder.to_regions(summaries, real)[0], 0)[1]
        # Down: the bins asked for, what the base path reads around them, what they attend to.
        wide = 0 if self.path is None else -(-self.path.up_bp // bin_bp)
        start, stop = max(bins[0] - wide, 0), min(bins[1] + wide, n_bins)
        reach = len(encoder.decoder_blocks) * encoder.context.bin_half
        below, above = max(start - reach, 0), min(stop + reach, n_bins)
        x = splice(self.first.output, changed, first, below, above)
        x = x + self._from_coarse(summaries, regions)[:, below:above]
        level = Level(encoder.decoder_blocks, encoder.context.bin_half, self.is_real, [], x)
        x = x * self.is_real[:, below:above, None]
        fused = encoder.norm(rerun(level, x, below, (start, stop))[1])
        fused = fused * self.is_real[:, start:stop, None]
        track = None
        if self.path is not None and fine is not None:
            missing = wide - (bins[0] - start), wide - (stop - bins[1])
            real = self.is_real[:, start:stop, None].repeat_interleave(bin_bp, 1)
            near = splice(self.bases[-1], fine, at, start * bin_bp, stop * bin_bp) * real
            near = F.pad(near, (0, 0, *(bin_bp * count for count in missing)))
            track = self.path.up(near, F.pad(fused, (0, 0, *missing)))
            spare = wide * bin_bp - self.path.up_bp
            track = track[:, spare : track.shape[1] - spare]
        edges_bp = self.left + bins[0] * bin_bp, self.left + bins[1] * bin_bp
        real = self.is_real[:, bins[0] : bins[1]].expand(len(bases), -1)
        inputs, empty = self._channels(low_bp, bases, *edges_bp), fused[:, :0]
        fused = fused[:, bins[0] - start : bins[1] - start]
        return EncoderOutput(fused, empty, empty, real, track, inputs)

    def _down_again(self, low_bp: int, bases: Tensor) -> tuple[int, Tensor | None]:
        """Where vectors at 1 bp begin to change, and those that do."""
        path, size = self.encoder.base_path, bases.shape[1]
        if path is None:
            return low_bp, None
        new = self._channels(low_bp, bases, low_bp + self.left, low_bp + size + self.left)
        at = low_bp + path.down_bp
        for (layer, margin), old in zip(path.down_layers, self.bases[:-1], strict=True):
            low, high = max(at - 2 * margin, 0), min(at + new.shape[1], old.shape[1] - 2 * margin)
            new, at = layer(splice(old, new, at, low, high + 2 * margin)), low
        return at, new

    def _channels(self, low_bp: int, bases: Tensor, low: int, high: int) -> Tensor:
        """Padded channels from `low` to `high` with `bases` from `low_bp` of the window on."""
        changed = splice(self.padded[..., :4], bases, low_bp + self.left, low, high)
        rest = self.padded[:, low:high, 4:].expand(len(bases), -1, -1)
        return torch.cat([changed, rest], -1)


# --- one gene in the graph ---


class GeneAmongOthers:
    """What one gene is after a single graph layer, as a function of its own vector.

    The same as the whole graph gives, where nothing else changes: what the other genes send, and
    what they add to each pathway's attention, is worked out once.

    Parameters
    ----------
    gene
        Vectors of all genes, as `GeneGraph.forward` takes them; that of `row` is not read.
    graph
        From `GeneGraph.bind`.

    Attributes
    ----------
    sources
        Kind and nodes of what `receive` tells apart.
    """

    @torch.no_grad()
    def __init__(self, exchange: GeneGraph, gene: Genes, graph: HeteroData, row: int) -> None:
        (layer,) = exchange.layers
        assert isinstance(layer, GraphLayer)
        self.layer = layer
        sender, self.own_measured = gene, 0 * gene[row]
        if exchange.measured_row:
            measured = exchange.from_measured(graph["gene"].measured.to(gene))
            sender, self.own_measured = gene + measured, measured[row]
        regulator, effector, pathway = (
            exchange.identity[kind](graph[kind].identity)
            for kind in ("gene", "effector", "pathway")
        )
        self.own_regulator = regulator[row]
        source, target = graph[MESSAGES["regulates"]].edge_index
        into = target == row
        at = source[into]
        self.is_own, self.sources = at == row, [("regulator", at)]
        self.regulators = _heads(layer.regulates, layer.source_norm(sender[at] + regulator[at]))
        self.signs = graph[MESSAGES["regulates"]].edge_attr[into].to(gene)
        source, target = graph[MESSAGES["effects"]].edge_index
        into = target == row
        self.sources.append(("effector", source[into]))
        self.effectors = _heads(layer.effects, effector[source[into]])
        self.effector_signs = graph[MESSAGES["effects"]].edge_attr[into].to(gene)
        source, target = graph[MESSAGES["contains"]].edge_index
        # A pathway may be there more than once; it is informed once.
        self.sources.append(("pathway", source[target == row]))
        nodes, self.pathway = source[target == row].unique(return_inverse=True)
        self.identity = pathway[nodes]
        self._gather_members(graph, sender, nodes, row)

    def _gather_members(
        self, graph: HeteroData, sender: Genes, nodes: Int64[Tensor, " nodes"], row: int
    ) -> None:
        """Attention of the gene's pathways to their other members, before it is normalised."""
        layer = self.layer.member_of
        source, target = graph[MESSAGES["member_of"]].edge_index
        number = torch.full((int(graph["pathway"].num_nodes),), -1)
        number[nodes] = torch.arange(len(nodes))
        number = number[target]
        self.times = torch.bincount(number[(number >= 0) & (source == row)], minlength=len(nodes))
        kept = (number >= 0) & (source != row)
        number, message = number[kept], _heads(layer, self.layer.gene_norm(sender[source[kept]]))
        self.query = layer.lin_r(self.identity).view(len(nodes), *message.shape[1:])
        logits = _logits(layer, message, self.query[number])
        index = number[:, None].expand_as(logits)
        lowest = logits.new_full((len(nodes), logits.shape[1]), -torch.inf)
        self.top = lowest.scatter_reduce(0, index, logits, "amax")
        weight = (logits - self.top[number]).exp()
        self.mass = torch.zeros_like(self.top).index_add(0, number, weight)
        sums = message.new_zeros(len(nodes), *message.shape[1:])
        self.total = sums.index_add(0, number, weight[..., None] * message)

    def __call__(self, own: Float[Tensor, "variants width"]) -> Float[Tensor, "variants width"]:
        """The gene's vector after the layer, for each vector it might have before."""
        return own + sum(received.sum(1) for received in self.receive(own))

    def receive(
        self, own: Float[Tensor, "variants width"]
    ) -> list[Float[Tensor, "variants sources width"]]:
        """What it receives from each of its regulators, effectors and pathways (`sources`)."""
        layer, x = self.layer, self.layer.gene_norm(own)
        sent = own + self.own_measured
        regulators = self.regulators.expand(len(own), *self.regulators.shape)
        if self.is_own.any():
            itself = _heads(layer.regulates, layer.source_norm(sent + self.own_regulator))
            regulators = torch.where(self.is_own[:, None, None], itself[:, None], regulators)
        pathways = _heads(layer.contains, self._inform_pathways(layer.gene_norm(sent)))
        return [
            _receive(layer.regulates, regulators, x, self.signs),
            _receive(layer.effects, self.effectors[None], x, self.effector_signs),
            _receive(layer.contains, pathways[:, self.pathway], x),
        ]

    def _inform_pathways(
        self, member: Float[Tensor, "variants width"]
    ) -> Float[Tensor, "variants pathways width"]:
        layer, message = self.layer.member_of, _heads(self.layer.member_of, member)[:, None]
        logits = _logits(layer, message, self.query)
        top = torch.maximum(self.top, logits.detach())
        mine = self.times[:, None] * (logits - top).exp()
        others = (self.top - top).exp()
        total = others[..., None] * self.total + mine[..., None] * message
        out = total / (others * self.mass + mine + SMALLEST_MASS)[..., None]
        return self.layer.pathway_norm(self.identity + out.flatten(-2))


def _heads(layer: GATv2Conv, x: Float[Tensor, "*many width"]) -> Float[Tensor, "*many heads part"]:
    return layer.lin_l(x).unflatten(-1, (layer.heads, layer.out_channels))


def _logits(
    layer: GATv2Conv, message: Tensor, query: Tensor, signs: Tensor | None = None
) -> Float[Tensor, "*many heads"]:
    x = message + query
    if signs is not None:
        x = x + layer.lin_edge(signs).unflatten(-1, (layer.heads, layer.out_channels))
    return (F.leaky_relu(x, layer.negative_slope) * layer.att[0]).sum(-1)


def _receive(
    layer: GATv2Conv,
    message: Float[Tensor, "some sources heads part"],
    x: Float[Tensor, "variants width"],
    signs: Tensor | None = None,
) -> Float[Tensor, "variants sources width"]:
    """What a gene with each of several vectors receives from each of the sources."""
    query = layer.lin_r(x).unflatten(-1, (1, layer.heads, layer.out_channels))
    weight = _logits(layer, message, query, signs).softmax(1)
    return (weight[..., None] * message).flatten(2)

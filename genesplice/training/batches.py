"""What one step of pre-training reads: windows with hidden bases, and the pairs among them."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from genesplice.config import Config, PretrainConfig
from genesplice.config.model import SUMMARY_BP
from genesplice.config.training import ViewName
from genesplice.errors import require
from genesplice.model.heads import Vectors
from genesplice.model.sequence import Columns, Tokens
from genesplice.training.corpus import Source
from genesplice.training.views import GeneSites, Loci, Side, View, check_lengths, make_loci

Mask = Bool[Tensor, "batch length"]


class Rows(NamedTuple):
    """Windows of one length that are encoded together; no `weight`: every base counts 1.

    `columns` are None where they are neither read nor a target.
    """

    tokens: Tokens
    is_target: Mask
    weight: Float[Tensor, "batch length"] | None
    columns: Columns | None

    def part(self, rows: slice) -> "Rows":
        """Some of the windows."""
        weight, columns = (None if each is None else each[rows] for each in self[2:])
        return Rows(self.tokens[rows], self.is_target[rows], weight, columns)

    def shares(self) -> Float[Tensor, "batch length 4"]:
        """Of A, C, G and T at each base, in the relatives of all groups and the genome itself."""
        counts = F.one_hot(self.tokens.clamp(max=4).long(), 5)[..., :4].float()
        if self.columns is not None:
            counts = counts + self.columns[..., :4].sum(2)
        return counts / counts.sum(-1, keepdim=True).clamp(min=1)

    @staticmethod
    def join(parts: "list[Rows]") -> "Rows":
        """All windows of the parts; weights and columns have all of them or none."""
        tokens, targets, *rest = zip(*parts, strict=True)
        weight, columns = (None if each[0] is None else torch.cat(each) for each in rest)
        return Rows(torch.cat(tokens), torch.cat(targets), weight, columns)


class Keys(NamedTuple):
    """What each pair shows, to know which pairs show the same (see `genesplice.training.views`)."""

    spans: Int64[Tensor, "pairs sides 2"]
    groups: Int64[Tensor, "pairs groups"]


def are_related(one: Keys, other: Keys) -> Bool[Tensor, "pairs others"]:
    """Say which pairs show the same: a base of the genome in common, or a group.

    Such pairs must not be pushed apart.
    """
    start, end = one.spans[:, None, :, None].unbind(-1)
    first, last = other.spans[None, :, None].unbind(-1)
    related = ((start < last) & (first < end)).flatten(2).any(2)
    if one.groups.shape[1]:
        mine = one.groups[:, None, :, None]
        related |= ((mine == other.groups[None, :, None]) & (mine >= 0)).flatten(2).any(2)
    return related


class Pairs(NamedTuple):
    """Intervals of 1,024 bp that belong together: row of the encoded rows, and first summary."""

    view: ViewName
    rows: int
    one: Int64[Tensor, "pairs 2"]
    two: Int64[Tensor, "pairs 2"]
    keys: Keys


class StepBatch(NamedTuple):
    """The part of a step that one process computes at once.

    `number` counts batches over the run; `target_weight` is that of all targets of the optimiser
    step, in all of its batches and all processes.
    """

    number: int
    rows: tuple[Rows, ...]
    pairs: tuple[Pairs, ...]
    target_weight: float


# --- masks ---


def mask_bases(
    tokens: Tokens, fraction: float, span_bp: int, generator: np.random.Generator
) -> Mask:
    """Choose about `fraction` of the positions, in spans of `span_bp`; never an N."""
    shape = tuple(tokens.shape)
    begins = generator.random(shape) < 1 - (1 - fraction) ** (1 / span_bp)
    chosen = begins.copy()
    for offset in range(1, min(span_bp, shape[1])):
        chosen[:, offset:] |= begins[:, :-offset]
    return torch.from_numpy(chosen) & (tokens < 4)


def mask_bins(tokens: Tokens, fraction: float, bin_bp: int, generator: np.random.Generator) -> Mask:
    """Choose about `fraction` of the bins and hide all of their bases but N.

    Nothing is left inside a bin to copy from. The last bin may be cut short.
    """
    rows, length = tokens.shape
    chosen = generator.random((rows, -(-length // bin_bp))) < fraction
    return torch.from_numpy(np.repeat(chosen, bin_bp, axis=1)[:, :length]) & (tokens < 4)


def make_masks(
    tokens: Tokens, settings: PretrainConfig, bin_bp: int, generator: np.random.Generator
) -> Mask:
    """Choose targets: each row takes one of `settings.masks`, all equally likely.

    With one kind nothing is drawn for the choice.
    """
    kinds, fraction, span_bp = settings.masks, settings.masked_fraction, settings.span_bp
    draws = {
        "single": lambda: mask_bases(tokens, fraction, 1, generator),
        "span": lambda: mask_bases(tokens, fraction, span_bp, generator),
        "bin": lambda: mask_bins(tokens, fraction, bin_bp, generator),
    }
    if len(kinds) == 1:
        return draws[kinds[0]]()
    pick = torch.from_numpy(generator.integers(0, len(kinds), len(tokens)))
    chosen = torch.zeros_like(tokens, dtype=torch.bool)
    for index, kind in enumerate(kinds):
        chosen |= draws[kind]() & (pick == index)[:, None]
    return chosen


def drop_relatives(columns: Columns, fraction: float, generator: np.random.Generator) -> Columns:
    """Leave relatives out of alignment columns: another subset in every window.

    Every group of a window is left out with the chance of `fraction`; of those that stay, a share
    of the relatives, drawn evenly from 0 to 1, is left out at every base for itself in as many
    windows. With the same chance once more a window is left with none at all.
    """
    n_windows, _, n_groups, _ = columns.shape
    if not fraction:
        return columns
    kept = generator.random((n_windows, n_groups)) >= fraction
    kept &= generator.random((n_windows, 1)) >= fraction
    is_thinned = generator.random((n_windows, n_groups)) < fraction
    share = np.where(is_thinned, generator.random((n_windows, n_groups)), 1.0) * kept
    counts = columns.numpy()
    if is_thinned.any():
        counts = generator.binomial(counts, share[:, None, :, None]).astype(np.uint8)
    else:
        counts = counts * kept[:, None, :, None].astype(np.uint8)
    return torch.from_numpy(counts)


# --- steps ---


class StepMaker:
    """Batches by number: a function of the seed and the number alone.

    An optimiser step is drawn whole and then divided among `accumulate` batches and `processes`,
    so that neither changes what is read. `process` is this one's number.

    Raises
    ------
    InputError
        If the windows or gene pairs of a batch cannot be divided evenly among the processes, a
        window is longer than every interval, a view of genes finds none, or columns are to be
        predicted that there are none of, or that the model reads.
    """

    def __init__(
        self, source: Source, config: Config, *, process: int = 0, processes: int = 1
    ) -> None:
        self.source, self.config = source, config
        self.process, self.processes = process, processes
        check_lengths(source, config.pretrain)
        reads, is_column = config.model.relatives, config.pretrain.target == "column"
        has_columns = source.genome.columns is not None
        require(has_columns or not is_column, "pretrain.target=column", "data with relatives")
        found = "pretrain.target=column of a model that reads the columns"
        require(not (is_column and reads), found, "model.relatives=false")
        self.sites = GeneSites(source, config.pretrain.active_views)
        sizes = {"view_windows": config.pretrain.active_views, "view_genes": self.sites.views}
        for name in ["batch_windows", *(name for name, is_read in sizes.items() if is_read)]:
            found = f"{config.pretrain.shown(name)} for {processes} processes"
            is_even = getattr(config.pretrain, name) % processes == 0
            require(is_even, found, f"a multiple of {processes}")
        self._drawn: tuple[int, list[Loci], list[list[Rows]]] | None = None

    def __call__(self, number: int) -> StepBatch:
        """Give this process's part of batch `number`."""
        step, batch = divmod(number, self.config.pretrain.accumulate)
        if self._drawn is None or self._drawn[0] != step:
            self._drawn = step, *self._draw(step)
        _, sets, rows_of = self._drawn
        total = sum(
            float(r.is_target.sum() if r.weight is None else r.weight[r.is_target].double().sum())
            for of_set in rows_of
            for r in of_set
        )
        n_parts = self.config.pretrain.accumulate * self.processes
        part = batch * self.processes + self.process
        # Sets of one length go through the encoder together: the loci, and the pairs of genes.
        groups: list[list[Rows]] = [[], []]
        pairs: list[Pairs] = []
        for index, (loci, of_set) in enumerate(zip(sets, rows_of, strict=True)):
            group, size = min(index, 1), len(of_set[0].tokens) // n_parts
            inside = slice(part * size, (part + 1) * size)
            begin = sum(len(rows.tokens) for rows in groups[group])
            groups[group] += [rows.part(inside) for rows in of_set]
            pairs += [_number_pairs(view, group, begin, size, inside) for view in loci.views]
        joined = tuple(Rows.join(group) for group in groups if group)
        return StepBatch(number, joined, tuple(pairs), total)

    def _draw(self, step: int) -> tuple[list[Loci], list[list[Rows]]]:
        """All that an optimiser step reads, before it is divided."""
        settings = self.config.pretrain
        generator = np.random.default_rng([settings.seed, step])
        is_contrasted = bool(settings.active_views) and step % settings.views_every == 0
        views = settings.active_views if is_contrasted else ()
        n_windows = max(settings.batch_windows, settings.view_windows if is_contrasted else 0)
        count = n_windows * settings.accumulate
        sets = [make_loci(self.source, settings, count, generator, views)]
        n_pairs, n_parts = settings.view_genes * settings.accumulate, settings.accumulate
        for view in self.sites.views if is_contrasted else ():
            sets.append(self.sites.draw(view, n_pairs, generator, n_parts * self.processes))
        return sets, [[self._mask(side, generator) for side in loci.sides] for loci in sets]

    def _mask(self, side: Side, generator: np.random.Generator) -> Rows:
        """Choose targets, and what each base counts in the loss: less in a soft-masked repeat.

        Repeats are the same sequence many times over: learned first, and at the cost of the rest.

        Source: Benegas et al., DNA language models are powerful predictors of genome-wide variant
        effects, 2023 (repeats count 0.1).
        """
        settings, weight = self.config.pretrain, None
        is_target = make_masks(side.tokens, settings, self.config.model.bin_bp, generator)
        if len(self.source.genome.soft_masked) and settings.repeat_weight != 1:
            weight = torch.where(side.is_repeat, settings.repeat_weight, 1.0)
        columns = side.columns if settings.target == "column" else None
        if self.config.model.relatives and side.columns.shape[2]:
            columns = drop_relatives(side.columns, settings.relatives_dropped, generator)
        return Rows(side.tokens, is_target, weight, columns)


def _number_pairs(view: View, rows: int, begin: int, size: int, inside: slice) -> Pairs:
    """Pairs of one part: rows are counted from `begin`, `size` of them a side."""
    item = np.arange(size)[:, None]

    def ends(side: int, offsets: np.ndarray) -> Tensor:
        row, summary = np.broadcast_arrays(begin + side * size + item, offsets // SUMMARY_BP)
        return torch.from_numpy(np.stack([row, summary], -1).reshape(-1, 2))

    spans, groups = view.spans[inside], view.groups[inside]
    shown = spans.reshape(-1, *spans.shape[2:]), groups.repeat(spans.shape[1], axis=0)
    keys = Keys(*map(torch.from_numpy, shown))
    one, two = ends(0, view.offsets_one), ends(view.side, view.offsets_two)
    return Pairs(view.name, rows, one, two, keys)


# --- vectors of pairs, and those of earlier steps ---


def interval_summaries(
    summaries: Float[Tensor, "batch summaries width"],
    is_real: Bool[Tensor, "batch summaries"],
    starts: Int64[Tensor, "pairs 2"],
    n_summaries: int,
) -> tuple[Float[Tensor, "pairs interval width"], Bool[Tensor, "pairs interval"]]:
    """The summaries of intervals, each given by its row and first summary."""
    column = starts[:, 1:] + torch.arange(n_summaries, device=starts.device)
    return summaries[starts[:, :1], column], is_real[starts[:, :1], column]


def retrieval_at_1(
    one: Vectors, two: Vectors, is_related: Bool[Tensor, "pairs pairs"]
) -> Float[Tensor, ""]:
    """Share of the pairs whose first end has its second nearest, among those it must find it in."""
    if not len(one):
        return one.new_zeros(())
    own = torch.arange(len(one), device=one.device)
    others = is_related & (own[:, None] != own)
    nearest = (one @ two.T).masked_fill(others, -torch.inf).argmax(1)
    return (nearest == own).float().mean()


class Queue:
    """Up to `size` pairs of earlier steps of each view; kept in checkpoints."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.views: dict[str, list[Tensor]] = {}

    def get(self, view: str, device: torch.device) -> tuple[Vectors, Vectors, Keys] | None:
        """Both ends of earlier pairs of a view, and what they showed; None before the first."""
        if view not in self.views:
            return None
        one, two, *keys = self.views[view] = [x.to(device) for x in self.views[view]]
        return one, two, Keys(*keys)

    def add(self, view: str, one: Vectors, two: Vectors, keys: Keys) -> None:
        """Add pairs; the oldest go where there are too many."""
        if not self.size:
            return
        columns = [one.detach(), two.detach(), *keys]
        before = self.views.get(view, [x[:0] for x in columns])
        both = (torch.cat(pair) for pair in zip(before, columns, strict=True))
        self.views[view] = [column[-self.size :].clone() for column in both]

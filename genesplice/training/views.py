"""What one step reads: windows with hidden bases, and which of their stretches belong together.

Views of a locus, for any genome:

- `strand`: the window, and the reverse complement of the sequence a small shift away. Every
  1,024-bp stretch must find itself on the other strand, in another place of its window.
- `neighbour`: the window, and the one that follows it. Stretches one window apart belong together.

Those made of genes are in `genesplice.training.gene_views`.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from genesplice.config import Config
from genesplice.config.model import REGION_BP, SUMMARY_BP
from genesplice.config.training import ViewName
from genesplice.data.genome import Genome
from genesplice.data.windows import Window, make_random_windows
from genesplice.errors import InputError
from genesplice.model.genesplice import reverse_complement
from genesplice.training.gene_views import GenePairs, GeneSites
from genesplice.training.masking import base_weights, make_masks
from genesplice.training.source import Source


class Rows(NamedTuple):
    """Windows of one length that are encoded together; no `weight`: every base counts 1."""

    tokens: UInt8[Tensor, "batch length"]
    is_target: Bool[Tensor, "batch length"]
    weight: Float[Tensor, "batch length"] | None


class Keys(NamedTuple):
    """What each pair shows, to know which pairs show the same.

    `spans` are half-open stretches of the genome; `groups` are numbers of genes, operons or
    regulators, -1 where there are fewer.
    """

    spans: Int64[Tensor, "pairs sides 2"]
    groups: Int64[Tensor, "pairs groups"]


class Pairs(NamedTuple):
    """Stretches of 1,024 bp that belong together: row of the encoded rows, and first summary."""

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


class _Side(NamedTuple):
    """One look at every item of a step: an item's stretches begin at `offsets` (bp)."""

    tokens: UInt8[Tensor, "items length"]
    is_repeat: Bool[Tensor, "items length"]


class _View(NamedTuple):
    """Which sides of which set hold the two ends of every pair; `spans` by item and stretch."""

    name: ViewName
    one: int
    two: int
    offsets_one: Int64[np.ndarray, " stretches"]
    offsets_two: Int64[np.ndarray, " stretches"]
    spans: Int64[np.ndarray, "items stretches sides 2"]
    groups: Int64[np.ndarray, "items groups"]


class Loci(NamedTuple):
    """Sides of equally many items and length, and the views between them."""

    sides: list[_Side]
    views: list[_View]


def global_place(genome: Genome, contig: str, start: int) -> int:
    """Number a contig's positions so that no two contigs share one, round the origin too."""
    return 2 * genome.contig(contig).offset + start


def make_loci(
    source: Source,
    config: Config,
    count: int,
    generator: np.random.Generator,
    views: Collection[ViewName],
) -> Loci:
    """Draw `count` loci of the training blocks, each read on a random strand."""
    settings, genome = config.pretrain, source.genome
    length = settings.window_bp
    shift = 0
    if "strand" in views:
        shift = int(generator.integers(0, settings.shift_bp // SUMMARY_BP + 1)) * SUMMARY_BP
    span = max(length + shift, 2 * length if "neighbour" in views else 0)
    windows = make_random_windows(source.training, span, count, generator)
    is_flipped = generator.random(count) < 0.5
    tokens = torch.from_numpy(_fetch(genome, windows, is_flipped))
    is_repeat = torch.from_numpy(_fetch_repeats(genome, windows, is_flipped))
    first = np.array([global_place(genome, w.contig, w.start) for w in windows])
    sides = [_Side(tokens[:, :length], is_repeat[:, :length])]
    found: list[_View] = []
    if "strand" in views:
        shared = np.arange((length - shift) // REGION_BP) * REGION_BP
        # From the other end of the window: it is read backwards there.
        behind = length - shared - REGION_BP
        other = slice(shift, shift + length)
        two = reverse_complement(tokens[:, other]), is_repeat[:, other].flip(1)
        sides.append(_Side(*two))
        spans = _spans(first, is_flipped, shared + shift, span, REGION_BP)
        found.append(_View("strand", 0, 1, shared + shift, behind, spans, _no_groups(count)))
    if "neighbour" in views:
        sides.append(_Side(tokens[:, length : 2 * length], is_repeat[:, length : 2 * length]))
        every = np.arange(0, length, REGION_BP)
        # Everything in both windows is one locus.
        spans = _spans(first, is_flipped, np.zeros(len(every), np.int64), span, 2 * length)
        view = _View("neighbour", 0, len(sides) - 1, every, every, spans, _no_groups(count))
        found.append(view)
    return Loci(sides, found)


def _fetch(genome: Genome, windows: list[Window], is_flipped: np.ndarray) -> np.ndarray:
    strands = np.where(is_flipped, "-", "+")
    rows = zip(windows, strands, strict=True)
    return np.stack([genome.fetch(w.contig, w.start, w.end, strand) for w, strand in rows])


def _fetch_repeats(genome: Genome, windows: list[Window], is_flipped: np.ndarray) -> np.ndarray:
    if not len(genome.soft_masked):
        return np.zeros((len(windows), windows[0].end - windows[0].start), bool)
    rows = [genome.fetch_soft_masked(w.contig, w.start, w.end) for w in windows]
    return np.stack([r[::-1] if f else r for r, f in zip(rows, is_flipped, strict=True)])


def _spans(
    first: np.ndarray, is_flipped: np.ndarray, offsets: np.ndarray, span_bp: int, size_bp: int
) -> np.ndarray:
    """Where stretches of loci lie in the genome, whichever strand was read."""
    ahead = first[:, None] + offsets
    behind = first[:, None] + span_bp - offsets - size_bp
    start = np.where(is_flipped[:, None], behind, ahead)
    return np.stack([start, start + size_bp], -1)[:, :, None]


def _no_groups(count: int) -> np.ndarray:
    return np.empty((count, 0), np.int64)


def _gene_loci(pairs: GenePairs) -> Loci:
    sides = [
        _Side(torch.from_numpy(tokens), torch.from_numpy(repeats))
        for tokens, repeats in ((pairs.one, pairs.is_repeat_one), (pairs.two, pairs.is_repeat_two))
    ]
    start = np.zeros(1, np.int64)
    return Loci(sides, [_View(pairs.view, 0, 1, start, start, pairs.spans[:, None], pairs.groups)])


class _Step(NamedTuple):
    """All that an optimiser step reads, before it is divided."""

    sets: list[Loci]
    masks: list[list[Tensor]]
    weights: list[list[Tensor]] | None
    target_weight: float


class StepMaker:
    """Batches by number: a function of the seed and the number alone.

    An optimiser step is drawn whole and then divided among `accumulate` batches and `processes`,
    so that neither changes what is read. `process` is this one's number.

    Raises
    ------
    InputError
        If the windows or gene pairs of a batch cannot be divided evenly among the processes, or a
        view of genes finds none.
    """

    def __init__(
        self, source: Source, config: Config, *, process: int = 0, processes: int = 1
    ) -> None:
        self.source, self.config = source, config
        self.process, self.processes = process, processes
        self.sites = GeneSites(source, config.pretrain.active_views)
        settings = config.pretrain
        sizes = {"batch_windows": settings.batch_windows}
        sizes |= {"view_windows": settings.view_windows} if settings.active_views else {}
        sizes |= {"view_genes": settings.view_genes} if self.sites.views else {}
        for name, value in sizes.items():
            if value % processes:
                raise InputError(
                    f"pretrain.{name} {value} for {processes} processes",
                    f"a multiple of {processes}",
                )
        self._drawn: tuple[int, _Step] | None = None

    @property
    def bases(self) -> float:
        """Bases that one batch of all processes encodes, on average."""
        settings = self.config.pretrain
        plain, length = settings.batch_windows, settings.window_bp
        if not settings.active_views:
            return float(plain * length)
        sides = 1 + sum(name in settings.active_views for name in ("strand", "neighbour"))
        contrasted = sides * max(plain, settings.view_windows) * length
        contrasted += 2 * len(self.sites.views) * settings.view_genes * REGION_BP
        return plain * length + (contrasted - plain * length) / settings.views_every

    def __call__(self, number: int) -> StepBatch:
        """Give this process's part of batch `number`."""
        step, batch = divmod(number, self.config.pretrain.accumulate)
        if self._drawn is None or self._drawn[0] != step:
            self._drawn = step, self._draw(step)
        n_parts = self.config.pretrain.accumulate * self.processes
        return self._part(self._drawn[1], number, batch * self.processes + self.process, n_parts)

    def _draw(self, step: int) -> _Step:
        settings = self.config.pretrain
        generator = np.random.default_rng([settings.seed, step])
        is_contrasted = bool(settings.active_views) and step % settings.views_every == 0
        views = settings.active_views if is_contrasted else ()
        n_windows = max(settings.batch_windows, settings.view_windows if is_contrasted else 0)
        count = n_windows * settings.accumulate
        sets = [make_loci(self.source, self.config, count, generator, views)]
        n_parts = settings.accumulate * self.processes
        for view in self.sites.views if is_contrasted else ():
            pairs = self.sites.draw(view, settings.view_genes * settings.accumulate, generator)
            kept = len(pairs.one) // n_parts * n_parts
            sets.append(_gene_loci(pairs.first(kept)))
        masks = [[self._masks(side.tokens, generator) for side in loci.sides] for loci in sets]
        weights = None
        if len(self.source.genome.soft_masked) and settings.repeat_weight != 1:
            weights = [
                [base_weights(side.is_repeat, settings.repeat_weight) for side in loci.sides]
                for loci in sets
            ]
        total = sum(
            float(mask.sum() if weights is None else weights[i][j][mask].double().sum())
            for i, of_set in enumerate(masks)
            for j, mask in enumerate(of_set)
        )
        return _Step(sets, masks, weights, total)

    def _masks(self, tokens: Tensor, generator: np.random.Generator) -> Tensor:
        settings = self.config.pretrain
        return make_masks(
            tokens,
            settings.masks,
            generator,
            fraction=settings.masked_fraction,
            span_bp=settings.span_bp,
            bin_bp=self.config.model.bin_bp,
        )

    def _part(self, step: _Step, number: int, part: int, n_parts: int) -> StepBatch:
        # Sets of one length go through the encoder together: the loci, and the pairs of genes.
        rows: list[list[tuple[Tensor, Tensor, Tensor | None]]] = [[], []]
        pairs: list[Pairs] = []
        for index, loci in enumerate(step.sets):
            where = min(index, 1)
            size = len(loci.sides[0].tokens) // n_parts
            inside = slice(part * size, (part + 1) * size)
            begin = sum(len(tokens) for tokens, _, _ in rows[where])
            for side, (look, mask) in enumerate(zip(loci.sides, step.masks[index], strict=True)):
                weight = None if step.weights is None else step.weights[index][side][inside]
                rows[where].append((look.tokens[inside], mask[inside], weight))
            pairs += [_number_pairs(view, where, begin, size, inside) for view in loci.views]
        return StepBatch(
            number, tuple(_join(group) for group in rows if group), tuple(pairs), step.target_weight
        )


def _number_pairs(view: _View, rows: int, begin: int, size: int, inside: slice) -> Pairs:
    item = np.arange(size)[:, None]

    def places(side: int, offsets: np.ndarray) -> Tensor:
        row, summary = np.broadcast_arrays(begin + side * size + item, offsets // SUMMARY_BP)
        return torch.from_numpy(np.stack([row, summary], -1).reshape(-1, 2))

    spans, groups = view.spans[inside], view.groups[inside]
    keys = Keys(
        torch.from_numpy(spans.reshape(-1, *spans.shape[2:])),
        torch.from_numpy(groups.repeat(spans.shape[1], axis=0)),
    )
    one, two = places(view.one, view.offsets_one), places(view.two, view.offsets_two)
    return Pairs(view.name, rows, one, two, keys)


def _join(group: list[tuple[Tensor, Tensor, Tensor | None]]) -> Rows:
    tokens, masks, weights = zip(*group, strict=True)
    is_weighted = weights[0] is not None
    return Rows(torch.cat(tokens), torch.cat(masks), torch.cat(weights) if is_weighted else None)

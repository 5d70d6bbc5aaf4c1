"""What an allele does to the predicted level of every gene around it, and to tracks.

All genes whose TSS lies well inside of a window around the allele are predicted from it, on their
sense strand, with and without the allele; the features of all other genes are held fixed. An
insertion or deletion moves one side of the sequence: the one without the gene's TSS (shift
compensation), so that start and promoter stay in their bins. Coding phases move with their bases;
inserted bases have that of the base before them.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from genesplice.data.bundle import Bundle
from genesplice.data.coding import exons_read
from genesplice.data.genome import Genome, reverse_columns, reverse_complement
from genesplice.data.tracks import BIN_BP
from genesplice.data.windows import annotation_track, fetch_track
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.genesplice import GeneSplice, mix_paths
from genesplice.model.heads import Prediction
from genesplice.model.incremental import IncrementalEncoder
from genesplice.model.readout import GeneLoci, bins_read
from genesplice.model.sequence import N_TOKEN, EncoderOutput
from genesplice.predict.expression import bundle_graph, encode_genes
from genesplice.predict.gene_output import SingleGenePredictor
from genesplice.predict.models import TrackModels
from genesplice.runtime import side_by_side
from genesplice.variants.alleles import Allele
from genesplice.variants.likelihood import BATCH_BP, edited, edited_window, window_start

WINDOW_BP = 4096
KERNEL_ROWS = 256
MARGIN_BP = REACH_BP = 512
"""Bases between a TSS that is predicted and the nearer end of the window, at least."""


class GeneChange(NamedTuple):
    """What an allele does to one gene; each tuple has one entry a model.

    `distance_bp` is from the TSS to the allele on the sense strand, negative upstream.
    `condition` is where the residual changes most in the mean over the models, by `dresidual`.
    """

    gene_id: str
    distance_bp: int
    levels: tuple[float, ...]
    changes: tuple[float, ...]
    condition: str
    dresidual: float

    @property
    def mean(self) -> float:
        """Mean change over the models."""
        return float(np.mean(self.changes))

    @property
    def spread(self) -> float:
        """Standard deviation of the change over the models."""
        return float(np.std(self.changes))

    @property
    def agreement(self) -> float:
        """Share of the models with the sign that most have; 1 for a single model."""
        _, count = np.unique(np.sign(self.changes), return_counts=True)
        return float(count.max() / len(self.changes))


def strongest(changes: Sequence[GeneChange]) -> GeneChange | None:
    """The gene that changes most."""
    return max(changes, key=lambda one: abs(one.mean), default=None)


class Locus(NamedTuple):
    """A gene (row of the bundle's) in one of several sequences, on its sense strand.

    `exons` has start and end of each.
    """

    gene: int
    sequence: int
    start: int
    end: int
    exons: list[list[int]]


class Window(NamedTuple):
    """What is read of one strand; `changed` is where it differs from sequence `like`."""

    tokens: UInt8[np.ndarray, " window"]
    phase: UInt8[np.ndarray, " window"]
    columns: UInt8[np.ndarray, "window groups 5"]
    like: int | None = None
    changed: tuple[int, int] = (0, 0)


Features = Float[Tensor, "loci features"]
Values = Float[np.ndarray, "loci columns"]


class LevelModel:
    """One fine-tuned model, with the features of all genes of the bundle."""

    def __init__(
        self,
        model: GeneSplice,
        bundle: Bundle,
        *,
        gene_features: Float[Tensor, "genes features"] | None = None,
    ) -> None:
        self.model = model.eval()
        self.graph = bundle_graph(model, bundle)
        self.gene_features = encode_genes(model, bundle) if gene_features is None else gene_features
        # Messages need no knowledge, which is large; what other genes send is always the same.
        self.bare = self.graph.clone()
        del self.bare["gene"].knowledge
        with torch.no_grad():
            self.known = self.model.readout(self.gene_features)

    def __call__(self, sequences: Sequence[Window], loci: Sequence[Locus]) -> Values:
        """Level, then the residual in every condition, of each gene from the sequence it is in."""
        return self.predict(
            torch.tensor([locus.gene for locus in loci]), self.encode(sequences, loci)
        )

    @torch.no_grad()
    def encode(self, sequences: Sequence[Window], loci: Sequence[Locus]) -> Features:
        """The features of every gene in its sequence.

        A sequence that is another one with some bases exchanged costs only what these touch.
        """
        encoder, features = self.model.encoder, torch.zeros(len(loci), self.gene_features.shape[1])
        with_bases, here = encoder.base_width > 0, defaultdict[int, list[int]](list)
        for i, locus in enumerate(loci):
            here[locus.sequence].append(i)
        families: dict[int, list[int]] = {}
        if isinstance(encoder, HierarchicalEncoder) and not encoder.permutes_regions:
            for i, one in enumerate(sequences):
                if one.like is not None:
                    families.setdefault(one.like, [one.like]).append(i)
        spliced = {i for family in families.values() for i in family}
        whole = [i for i in range(len(sequences)) if i not in spliced]
        size = max(1, BATCH_BP // len(sequences[0].tokens))

        def genes(rows: Sequence[int], first_bp: int = 0) -> GeneLoci:
            own = [(row, loci[i]) for row, number in enumerate(rows) for i in here[number]]
            row, start, end = torch.tensor([[row, *one[2:4]] for row, one in own]).T
            exons = [[i, *edges] for i, (_, one) in enumerate(own) for edges in one.exons]
            shift = torch.tensor([0, first_bp, first_bp])
            return GeneLoci(row, start - first_bp, end - first_bp, torch.tensor(exons) - shift)

        def read(encoded: EncoderOutput, rows: Sequence[int], first_bp: int = 0) -> None:
            own = [i for number in rows for i in here[number]]
            features[own] = self.model.readout.pool(encoded, genes(rows, first_bp))

        def encode(rows: Sequence[int]) -> None:
            parts = zip(*(sequences[i][:3] for i in rows), strict=True)
            inputs = [torch.from_numpy(np.stack(part)) for part in parts]
            if rows[0] not in spliced:
                return read(encoder(*inputs, with_bases=with_bases), rows)
            assert isinstance(encoder, HierarchicalEncoder)
            channels, length = encoder.channels(*inputs), inputs[0].shape[1]
            is_real = (inputs[0][:1] != N_TOKEN).view(1, -1, encoder.bin_bp).any(-1)
            window = IncrementalEncoder(encoder, channels[:1], is_real, with_bases=with_bases)
            for changed, i in zip(channels, rows, strict=True):
                bins = bins_read(genes([i]), length=length, bin_bp=encoder.bin_bp)
                low, high = sequences[i].changed
                encoded = window.encode(bins, low, changed[None, low:high, :4])
                read(encoded, [i], bins[0] * encoder.bin_bp)
            return None

        parts = [whole[i : i + size] for i in range(0, len(whole), size)]
        side_by_side(encode, [*parts, *families.values()])
        return features

    @torch.no_grad()
    def predict(self, genes: Int64[Tensor, " loci"], features: Features) -> Values:
        """Level and residuals of each gene with the features it has here.

        The graph is run gene by gene, on its neighbourhood; everything else on all at once.
        """
        informed = self.model.readout(features)

        def inform(gene: int) -> None:
            own = (genes == gene).nonzero()[:, 0]
            row = SingleGenePredictor(self.model, self.bare, self.known, gene)
            informed[own] = row.informed(informed[own])

        side_by_side(inform, genes.unique().tolist())
        level, residual = self.model.expression_head(informed)
        if self.model.kernel.n_support:
            knowledge = self.graph["gene"].knowledge[genes].to(features)
            for first in range(0, len(genes), KERNEL_ROWS):
                some = slice(first, first + KERNEL_ROWS)
                inputs = self.model.readout.standardise(features[some])
                kernel = self.model.kernel(inputs, knowledge[some])
                mixed = mix_paths(Prediction(level[some], residual[some]), kernel, self.model.mix)
                level[some], residual[some] = mixed
        return torch.cat([level[:, None], residual], 1).double().numpy()


class Levels:
    """Changes of the level by several models, from windows of `window_bp` around each allele."""

    def __init__(
        self, models: Sequence[LevelModel], bundle: Bundle, *, window_bp: int = WINDOW_BP
    ) -> None:
        window_start(0, window_bp)  # raises for a window that cannot be
        self.models, self.genome, self.window_bp = tuple(models), bundle.genome, window_bp
        self.genes, self.track = bundle.genes, annotation_track(bundle.genome, bundle.genes)
        self.is_plus = (bundle.genes["strand"] == "+").to_numpy()
        self.from_tss = [
            np.concatenate([[[gene.start, gene.end]], exons_read(gene)]) - gene.tss
            for gene in bundle.genes.itertuples()
        ]
        by_contig = bundle.genes.reset_index(drop=True).groupby("contig", observed=True)["tss"]
        self.tss = {str(name): tss for name, tss in by_contig}

    def genes_around(self, allele: Allele) -> list[tuple[int, int]]:
        """Rows of the genes that are predicted for an allele, and their TSS in its window."""
        low, contig = window_start(allele.start, self.window_bp), self.genome.contig(allele.contig)
        tss = self.tss.get(allele.contig, pd.Series(dtype=int)) - low
        tss = tss % contig.length if contig.is_circular else tss
        tss = tss[(tss >= MARGIN_BP) & (tss < self.window_bp - MARGIN_BP)]
        return list(zip(tss.index.tolist(), tss.tolist(), strict=True))

    def __call__(self, alleles: Sequence[Allele]) -> list[list[GeneChange]]:
        """The genes around each allele, in the order of the bundle's table."""
        numbers: dict[tuple, int] = {}
        sequences, loci, known = list[Window](), list[Locus](), dict[tuple, int]()

        def place(low: int, allele: Allele, gene: int, tss: int, *, is_changed: bool) -> int:
            strand, high = "+" if self.is_plus[gene] else "-", low + self.window_bp
            moves_left = bool(allele.growth_bp and allele.start <= tss + low)
            letters = (allele.start, allele.end, allele.alt.tobytes(), moves_left)
            key = (allele.contig, low, strand, letters if is_changed else None)
            if (*key, gene) not in known:
                if key not in numbers:
                    numbers[key] = len(numbers)
                    window = self.sequence(low, strand, allele, moves_left)
                    if is_changed and not allele.growth_bp:
                        at = allele.start - low if strand == "+" else high - allele.end
                        changed = at, at + len(allele.alt)
                        window = window._replace(like=numbers[*key[:3], None], changed=changed)
                    sequences.append(window)
                (start, end), *exons = self.edges(gene, tss, low, allele, moves_left)
                known[*key, gene] = len(loci)
                loci.append(Locus(gene, numbers[key], start, end, exons))
            return known[*key, gene]

        pairs = []
        for allele in alleles:
            low, own = window_start(allele.start, self.window_bp), []
            for gene, tss in self.genes_around(allele):
                before = place(low, allele.undone, gene, tss, is_changed=False)
                after = place(low, allele, gene, tss, is_changed=True)
                distance = (allele.start - low - tss) * (1 if self.is_plus[gene] else -1)
                own.append((gene, distance, before, after))
            pairs.append(own)
        if not loci:
            return [[] for _ in alleles]
        values = np.stack([model(sequences, loci) for model in self.models])
        return [[self._change(values, *one) for one in own] for own in pairs]

    def sequence(self, low: int, strand: str, allele: Allele, moves_left: bool) -> Window:
        """The window from `low` with the allele."""
        high = low + self.window_bp

        def phases(start: int, end: int) -> np.ndarray:
            track = fetch_track(self.genome, self.track, allele.contig, start, end)
            return track[int(strand == "-")]

        # Phases of new bases: those of the ones they replace, then of the base before.
        old = phases(allele.start - 1, allele.end)
        new = np.concatenate([old[1:], np.full(len(allele.alt), old[0])])[: len(allele.alt)]
        phase = edited(phases, allele, new, low, high, moves_left=moves_left)
        tokens, columns = edited_window(self.genome, allele, low, high, moves_left=moves_left)
        if strand == "+":
            return Window(tokens, phase, columns)
        return Window(reverse_complement(tokens), phase[::-1].copy(), reverse_columns(columns))

    def edges(
        self, gene: int, tss: int, low: int, allele: Allele, moves_left: bool
    ) -> list[list[int]]:
        """Start and end of a gene, then of its exons, in the sequence on its sense strand.

        An edge inside of what is replaced lies behind the new bases.
        """
        edges, is_plus = self.from_tss[gene] + tss + low, self.is_plus[gene]
        moved = np.maximum(edges + allele.growth_bp, allele.start + len(allele.alt))
        edges = np.where(edges > allele.start, moved, edges) - moves_left * allele.growth_bp
        sense = edges - low if is_plus else low + self.window_bp - edges[:, ::-1]
        return sense.tolist()

    def _change(
        self, values: Float[np.ndarray, "models loci columns"], gene: int, distance: int,
        before: int, after: int,
    ) -> GeneChange:  # fmt: skip
        changes = values[:, after] - values[:, before]
        mean = changes[:, 1:].mean(0)
        most = int(np.abs(mean).argmax())
        return GeneChange(
            self.genes["gene_id"].iloc[gene],
            distance,
            tuple(values[:, before, 0].tolist()),
            tuple(changes[:, 0].tolist()),
            str(self.models[0].model.conditions[most]),
            float(mean[most]),
        )


# --- tracks ---


class TrackChanges:
    """Changes of tracks near alleles, the mean over models: one number a track.

    log2((1 + a) / (1 + r)), a and r the sums over the bins within `REACH_BP` with the allele and
    without it, of coverage in times its mean and of the shares of peaks. Both strands are read;
    where bases are inserted or lost, once what follows moves and once what precedes.

    Source: Avsec et al., 2021 (sums over bins); Linder et al., 2025 (the ratio of their logs).
    """

    def __init__(self, found: TrackModels, genome: Genome, *, window_bp: int = WINDOW_BP) -> None:
        window_start(0, window_bp)  # raises for a window that cannot be
        self.found, self.genome, self.window_bp = found, genome, window_bp
        self.labels = found.tracks.labels

    def __call__(self, alleles: Sequence[Allele]) -> list[Float[np.ndarray, " tracks"]]:
        """The changes of every allele."""
        known, windows = dict[tuple, int](), list[tuple[np.ndarray, np.ndarray]]()
        plan = []
        for allele in alleles:
            low, rows = window_start(allele.start, self.window_bp), list[int]()
            same, moves = allele.undone, (False, True) if allele.growth_bp else (False,)
            for one, way in ((same, False), *((allele, way) for way in moves)):
                key = (one.contig, low, one is same or (one.start, one.end, one.alt.tobytes(), way))
                if key not in known:
                    known[key], window = len(windows), (low, low + self.window_bp)
                    windows.append(edited_window(self.genome, one, *window, moves_left=way))
                rows.append(known[key])
            first, last = allele.start - REACH_BP - low, allele.end + REACH_BP - low
            bins = slice(max(first // BIN_BP, 0), min(-(-last // BIN_BP), self.window_bp // BIN_BP))
            plan.append((rows, bins))
        if not plan:
            return []
        size = max(1, BATCH_BP // self.window_bp)

        def predict(at: int) -> np.ndarray:
            both = map(np.stack, zip(*windows[at : at + size], strict=True))
            return self.found.predict(*map(torch.from_numpy, both))

        values = np.concatenate(side_by_side(predict, range(0, len(windows), size)), 1)
        logs = (np.log2(1 + values[:, rows, bins].sum(2)) for rows, bins in plan)
        return [(one[:, 1:] - one[:, :1]).mean((0, 1)) for one in logs]

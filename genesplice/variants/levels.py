"""What an allele does to the predicted level of every gene around it.

Both sequences are read in one window on the 1,024-bp grid around the allele; all genes whose TSS
lies well inside of it are predicted from it, on their sense strand. The vectors of all other genes
stand still, as when a gene is explained.

An insertion or deletion moves one side of the sequence. It is the side without the gene's TSS that
moves (shift compensation): start and promoter stay in their bins, and what is seen is the change
and not a shift of the whole gene against the bins. Coding phases move with their bases; inserted
bases have that of the base before them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from genesplice.config.model import REGION_BP
from genesplice.data.bundle import Bundle
from genesplice.data.windows import annotation_track, fetch_track
from genesplice.errors import InputError
from genesplice.model.genesplice import GeneSplice, mix_paths
from genesplice.model.heads import Prediction
from genesplice.predict.expression import bundle_graph, encode_genes
from genesplice.predict.gene_output import GeneRow
from genesplice.runtime import side_by_side
from genesplice.variants.alleles import Allele
from genesplice.variants.likelihood import place_window
from genesplice.variants.splice import joined, moved, spliced

WINDOW_BP = 4096
KERNEL_ROWS = 256
MARGIN_BP = 512
"""What lies between a TSS that is predicted and the nearer end of the window, at least."""


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
        signs = np.sign(self.changes)
        return float(max(np.mean(signs == sign) for sign in (-1, 0, 1)))


def strongest(found: Sequence[GeneChange]) -> GeneChange | None:
    """The gene that changes most."""
    return max(found, key=lambda one: abs(one.mean), default=None)


class Place(NamedTuple):
    """A gene in a sequence that is read on its sense strand."""

    gene: int
    sequence: int
    start: int
    end: int


class LevelModel:
    """One fine-tuned model, and what it says of all genes of the bundle."""

    def __init__(
        self,
        model: GeneSplice,
        bundle: Bundle,
        *,
        vectors: Float[Tensor, "genes width"] | None = None,
        batch_bp: int = 32_768,
    ) -> None:
        self.model, self.batch_bp = model.eval(), batch_bp
        self.graph = bundle_graph(model, bundle)
        self.vectors = encode_genes(model, bundle) if vectors is None else vectors

    @torch.no_grad()
    def read(
        self,
        tokens: UInt8[np.ndarray, "sequences length"],
        phase: UInt8[np.ndarray, "sequences length"],
        places: Sequence[Place],
    ) -> Float[Tensor, "places width"]:
        """The vector of every gene in the sequence where it is placed."""
        found = torch.zeros(len(places), self.vectors.shape[1])
        size = max(1, self.batch_bp // tokens.shape[1])
        order = sorted(range(len(places)), key=lambda i: places[i].sequence)

        def read(first: int) -> None:
            some = [i for i in order if first <= places[i].sequence < first + size]
            encoded = self.model.encoder(
                torch.from_numpy(tokens[first : first + size]),
                torch.from_numpy(phase[first : first + size]),
                with_bases=self.model.encoder.base_width > 0,
            )
            found[some] = self.model.read_genes(
                encoded,
                torch.tensor([places[i].sequence - first for i in some]),
                torch.tensor([places[i].start for i in some]),
                torch.tensor([places[i].end for i in some]),
                torch.ones(len(some), dtype=torch.int8),
                n_windows=len(encoded.bins),
            )

        side_by_side(read, range(0, len(tokens), size))
        return found

    @torch.no_grad()
    def predict(
        self, genes: Int64[Tensor, " places"], vectors: Float[Tensor, "places width"]
    ) -> Float[np.ndarray, "places columns"]:
        """Level, then the residual in every condition, of each gene with the vector it has here.

        The graph is run gene by gene, on what is near of it; the kernel path on all at once.
        """

        def listen(gene: int) -> tuple[Tensor, Prediction]:
            mine = (genes == gene).nonzero()[:, 0]
            row = GeneRow(self.model, self.graph, self.vectors, gene)
            return mine, row.neural(vectors[mine])

        parts = side_by_side(listen, genes.unique().tolist())
        order = torch.cat([mine for mine, _ in parts])
        columns = zip(*(told for _, told in parts), strict=True)
        neural = Prediction(*(torch.cat(column)[order.argsort()] for column in columns))
        pieces = [
            self._with_kernel(
                Prediction(*(column[some] for column in neural)), vectors[some], genes[some]
            )
            for some in (
                slice(first, first + KERNEL_ROWS) for first in range(0, len(genes), KERNEL_ROWS)
            )
        ]
        level, residual = (torch.cat(column) for column in zip(*pieces, strict=True))
        return torch.cat([level[:, None], residual], 1).double().numpy()

    def _with_kernel(self, neural: Prediction, vectors: Tensor, genes: Tensor) -> Prediction:
        if not self.model.kernel.n_support:
            return neural
        known = self.graph["gene"].knowledge[genes].to(vectors)
        kernel = self.model.kernel(self.model.readout.standardise(vectors), known)
        return mix_paths(neural, kernel, self.model.mix)


class Levels:
    """Changes of the level by several models.

    Parameters
    ----------
    window_bp
        Bases that are read around an allele; a multiple of 1,024.

    Raises
    ------
    InputError
        If the window is no such multiple, or less than 2,048.
    """

    def __init__(
        self, models: Sequence[LevelModel], bundle: Bundle, *, window_bp: int = WINDOW_BP
    ) -> None:
        if window_bp % REGION_BP or window_bp < 2 * REGION_BP:
            raise InputError(
                f"a window of {window_bp} bp", f"a multiple of {REGION_BP}, twice or more"
            )
        self.models, self.bundle, self.window_bp = tuple(models), bundle, window_bp
        self.genome, self.track = bundle.genome, annotation_track(bundle.genome, bundle.genes)
        genes = bundle.genes
        self.by_contig = {
            str(name): (rows.to_numpy(), genes.loc[rows, "tss"].to_numpy())
            for name, rows in genes.groupby("contig").groups.items()
        }
        self.ids = genes["gene_id"].tolist()
        self.spans = genes[["start", "end"]].to_numpy()
        self.is_plus = (genes["strand"] == "+").to_numpy()

    def genes_around(self, allele: Allele) -> list[tuple[int, int]]:
        """Rows of the genes that are predicted for an allele, and where each TSS is read."""
        low = place_window(allele.start, self.window_bp)
        rows, tss = self.by_contig.get(allele.contig, (np.zeros(0, int), np.zeros(0, int)))
        at = tss - low
        contig = self.genome.contig(allele.contig)
        if contig.is_circular:
            at = at % contig.length
        is_inside = (at >= MARGIN_BP) & (at < self.window_bp - MARGIN_BP)
        return [(int(r), int(p)) for r, p in zip(rows[is_inside], at[is_inside], strict=True)]

    def __call__(
        self, alleles: Sequence[Allele], beside: Sequence[Sequence[Allele]] | None = None
    ) -> list[list[GeneChange]]:
        """The genes around each allele, by their place on the contig.

        Parameters
        ----------
        beside
            For each allele those of its haplotype, sorted and without overlaps: they stand in both
            sequences, as far as they lie inside the window.
        """
        sequences: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}
        numbers: dict[tuple, int] = {}
        places: list[Place] = []
        asked: list[list[tuple[int, int, int, int]]] = []
        known: dict[tuple, int] = {}

        def place(contig: str, low: int, edits: tuple[Allele, ...], gene: int, tss: int) -> int:
            strand = "+" if self.is_plus[gene] else "-"
            n_left = sum(one.start <= tss + low for one in edits) if _grow(edits) else 0
            key = (contig, low, strand, _written(edits), n_left)
            if key not in sequences:
                sequences[key] = self._sequence(contig, strand, edits, n_left, low)
                numbers[key] = len(numbers)
            start, end = self._ends(gene, tss, low, edits, n_left)
            places.append(Place(gene, numbers[key], start, end))
            return len(places) - 1

        for allele, others in zip(alleles, beside or [()] * len(alleles), strict=True):
            low, contig = place_window(allele.start, self.window_bp), allele.contig
            inside = tuple(o for o in others if low <= o.start and o.end <= low + self.window_bp)
            mine = []
            for gene, tss in self.genes_around(allele):
                before = (gene, low, _written(inside))
                if before not in known:
                    known[before] = place(contig, low, inside, gene, tss)
                changed = place(contig, low, joined(allele, inside), gene, tss)
                distance = (allele.start - low - tss) * (1 if self.is_plus[gene] else -1)
                mine.append((gene, distance, known[before], changed))
            asked.append(mine)
        if not places:
            return [[] for _ in alleles]
        tokens = np.stack([pair[0] for pair in sequences.values()])
        phase = np.stack([pair[1] for pair in sequences.values()])
        values = [self._predict(model, tokens, phase, places) for model in self.models]
        return [[self._change(values, *one) for one in mine] for mine in asked]

    def _sequence(
        self, contig: str, strand: str, edits: Sequence[Allele], n_left: int, low: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and phase of one sequence, on a strand; `n_left` of `edits` move what is left."""
        row, high = int(strand == "-"), low + self.window_bp

        def old(start: int, end: int) -> np.ndarray:
            return self.genome.fetch(contig, start, end)

        def old_phase(start: int, end: int) -> np.ndarray:
            return fetch_track(self.genome, self.track, contig, start, end)[row]

        tokens = spliced(old, [(one, one.alt) for one in edits], n_left, low, high)
        phases = [(one, _phase(one, old_phase)) for one in edits]
        phase = spliced(old_phase, phases, n_left, low, high)
        if strand == "-":
            flipped = tokens[::-1]
            tokens, phase = np.where(flipped < 4, 3 - flipped, flipped), phase[::-1]
        return tokens.astype(np.uint8), phase.astype(np.uint8)

    def _ends(
        self, gene: int, tss: int, low: int, edits: Sequence[Allele], n_left: int
    ) -> tuple[int, int]:
        """Start and end of a gene in the sequence, on its sense strand."""
        start, end = self.spans[gene].tolist()
        shift = tss + low - (start if self.is_plus[gene] else end - 1)
        start, end = (moved(edits, n_left, edge + shift) - low for edge in (start, end))
        return (
            (start, end) if self.is_plus[gene] else (self.window_bp - end, self.window_bp - start)
        )

    def _predict(
        self,
        model: LevelModel,
        tokens: UInt8[np.ndarray, "sequences length"],
        phase: UInt8[np.ndarray, "sequences length"],
        places: Sequence[Place],
    ) -> Float[np.ndarray, "places columns"]:
        genes = torch.tensor([place.gene for place in places])
        return model.predict(genes, model.read(tokens, phase, places))

    def _change(
        self, values: Sequence[np.ndarray], gene: int, distance: int, before: int, after: int
    ) -> GeneChange:
        changes = np.stack([found[after] - found[before] for found in values])
        mean = changes[:, 1:].mean(0)
        most = int(np.abs(mean).argmax())
        return GeneChange(
            self.ids[gene],
            distance,
            tuple(float(found[before, 0]) for found in values),
            tuple(float(x) for x in changes[:, 0]),
            str(self.models[0].model.conditions[most]),
            float(mean[most]),
        )


def _grow(edits: Sequence[Allele]) -> bool:
    return any(one.growth_bp for one in edits)


def _written(edits: Sequence[Allele]) -> tuple:
    return tuple((one.start, one.end, one.alt.tobytes()) for one in edits)


def _phase(allele: Allele, old: Callable[[int, int], np.ndarray]) -> UInt8[np.ndarray, " inserted"]:
    """Coding phases of new bases: those of the ones they replace, then of the base before."""
    there = old(allele.start - 1, allele.end)
    new = np.full(len(allele.alt), there[0], np.uint8)
    kept = min(len(allele.alt), len(allele.ref))
    new[:kept] = there[1 : 1 + kept]
    return new

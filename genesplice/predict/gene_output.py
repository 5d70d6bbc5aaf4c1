"""What explaining needs of a model: a gene's window, and its predicted number as a function of it.

The gene's own sequence is explained; the vectors of all other genes are held at what the model
computes for them, so that the graph is part of what is explained and its neighbours are context.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch_geometric.data import Batch, HeteroData

from genesplice.config.model import REGION_BP
from genesplice.data.bundle import Bundle
from genesplice.data.coding import exons_read
from genesplice.data.knowledge import dinucleotide_shuffle
from genesplice.data.windows import annotation_track, fetch_track
from genesplice.errors import InputError, did_you_mean, require
from genesplice.model.genesplice import GeneSplice, mix_paths
from genesplice.model.graph import cut_neighbourhood
from genesplice.model.heads import Prediction
from genesplice.model.incremental import GeneAmongOthers
from genesplice.model.readout import GeneLoci
from genesplice.model.sequence import MASK_TOKEN, N_TOKEN, RELATIVE_CHANNELS, EncoderOutput
from genesplice.predict.expression import bundle_graph, encode_genes

Reference = Literal["uniform", "masked", "shuffle"]
Bases = Float[Tensor, "steps length 4"]
References = Float[Tensor, "references length 4"]
Relatives = Float[Tensor, "steps length relatives"] | None
"""Channels of alignment columns; None: those that are there."""
Vectors = Float[Tensor, "steps features"]
Numbers = Float[Tensor, " steps"]


def single_gene_subgraph(
    graph: HeteroData, row: int, n_copies: int, *, layers: int
) -> tuple[HeteroData, Tensor, Tensor]:
    """`n_copies` of the neighbourhood of gene `row`, in which each gene receives as in `graph`.

    Returns
    -------
    graph
        Bound as `graph` is.
    rows
        Which row of `graph` each of its genes is a copy of.
    at
        Where the copies of `row` are.
    """
    part = cut_neighbourhood(graph, torch.tensor([row]), layers)
    at = part.rows + torch.arange(n_copies) * len(part.genes)
    return Batch.from_data_list([part.graph] * n_copies), part.genes.repeat(n_copies), at


class SingleGenePredictor(nn.Module):
    """The prediction for gene `row`, given its vector.

    Parameters
    ----------
    graph
        From `bundle_graph`.
    vectors
        Features of all genes (`encode_genes`); those of `row` are not read.
    """

    vectors: Tensor

    def __init__(
        self,
        model: GeneSplice,
        graph: HeteroData,
        vectors: Float[Tensor, "genes features"],
        row: int,
    ) -> None:
        super().__init__()
        self.model, self.graph, self.row = model, graph, row
        self.register_buffer("vectors", vectors, persistent=False)
        self._copies: dict[int, tuple[HeteroData, Tensor, Tensor]] = {}
        self._alone: dict[torch.dtype, GeneAmongOthers] = {}

    def forward(self, own: Float[Tensor, "variants features"]) -> Prediction:
        """Predict the gene once for each vector it might have."""
        if len(self.model.graph.layers) != 1:
            return self.model(*self._among_others(own))
        informed = self.among_others(own.dtype)(self.model.readout(own))
        neural = self.model.expression_head(informed)
        if not self.model.kernel.n_support:
            return neural
        known = self.graph["gene"].knowledge[[self.row]].expand(len(own), -1).to(own)
        solved = self.model.kernel(self.model.readout.standardise(own), known)
        return mix_paths(neural, solved, self.model.mix)

    def informed(self, own: Float[Tensor, "variants width"]) -> Float[Tensor, "variants width"]:
        """After the graph; here `vectors` are what the readout makes of features."""
        if len(self.model.graph.layers) != 1:
            everyone, graph, at = self._among_others(own)
            return self.model.graph(everyone, graph)[0][at]
        return GeneAmongOthers(self.model.graph, self.vectors, self.graph, self.row)(own)

    def among_others(self, dtype: torch.dtype) -> GeneAmongOthers:
        """The gene in a graph of one layer, with vectors of that type."""
        if dtype not in self._alone:
            with torch.no_grad():
                genes = self.model.readout(self.vectors)
            self._alone[dtype] = GeneAmongOthers(self.model.graph, genes, self.graph, self.row)
        return self._alone[dtype]

    def _among_others(
        self, own: Float[Tensor, "variants features"]
    ) -> tuple[Float[Tensor, "genes features"], HeteroData, Tensor]:
        n_copies = len(own)
        if n_copies not in self._copies:
            layers = len(self.model.graph.layers)
            self._copies[n_copies] = single_gene_subgraph(
                self.graph, self.row, n_copies, layers=layers
            )
        graph, rows, at = self._copies[n_copies]
        everyone = self.vectors[rows].index_copy(0, at, own)
        if own.dtype != torch.float32:
            graph = graph.clone().apply(lambda x: x.to(own.dtype) if x.is_floating_point() else x)
        return everyone, graph, at


class GeneWindow(NamedTuple):
    """One gene's window on its sense strand.

    Entry 0 of `tokens` lies `offset_bp` from the TSS; `start` and `end` of the gene and of its
    exons (`genesplice.data.coding.exons_read`) count from it.
    """

    row: int
    gene_id: str
    name: str
    offset_bp: int
    start: int
    end: int
    tokens: UInt8[Tensor, "1 length"]
    phase: UInt8[Tensor, "1 length"]
    exons: Int64[Tensor, "exons 2"]
    columns: UInt8[Tensor, "1 length groups 5"]

    def loci(self, rows: int = 1, first_bp: int = 0) -> GeneLoci:
        """The gene in each of several rows that begin `first_bp` into the window."""
        row, exons = torch.arange(rows), self.exons - first_bp
        number = row.repeat_interleave(len(exons))[:, None]
        start, end = (torch.full((rows,), bp - first_bp) for bp in (self.start, self.end))
        return GeneLoci(row, start, end, torch.cat([number, exons.repeat(rows, 1)], 1))


def is_group(names: str) -> bool:
    """Whether "all" or a fold is meant, not genes by name."""
    return any(
        word == "all" or word.startswith("fold:")
        for word in (part.strip().lower() for part in names.split(","))
    )


def resolve_genes(bundle: Bundle, names: Sequence[str]) -> list[str]:
    """Gene ids for ids or names (any case), "all", or the measured genes of "fold:0"; each once.

    Raises
    ------
    InputError
        For a name that no gene has, or a fold that does not exist.
    """
    ids, chosen = bundle.genes["gene_id"].tolist(), list[str]()
    pairs = [*zip(bundle.genes["name"].astype(str), ids, strict=True), *zip(ids, ids, strict=True)]
    known = {name.lower(): (name, gene_id) for name, gene_id in pairs}
    for name in (name.strip() for name in names):
        group = name.lower()
        if group == "all":
            chosen += ids
        elif is_group(group):
            number = group.removeprefix("fold:")
            require(number.isdecimal(), f"genes '{name}'", "a fold, such as fold:0")
            chosen += bundle.test_genes(int(number)).tolist()
        elif group in known:
            chosen.append(known[group][1])
        else:
            near = did_you_mean(name, [written for written, _ in known.values()], "")
            hint = f": {near}" if near else f", such as {pairs[0][0]}"
            expected = f"an id or name in {bundle.path}/genes.parquet{hint}"
            raise InputError(f"gene '{name}'", expected)
    return list(dict.fromkeys(chosen))


class Explainer:
    """A model with everything computed once that explaining several genes shares.

    Parameters
    ----------
    window_bp
        Bases explained, the TSS in the middle; a multiple of 2,048.
    vectors
        Features of every gene (`encode_genes`), where they are at hand already.

    Raises
    ------
    InputError
        If `window_bp` is not such a multiple.
    """

    def __init__(
        self,
        model: GeneSplice,
        bundle: Bundle,
        *,
        window_bp: int = 8192,
        vectors: Float[Tensor, "genes features"] | None = None,
    ) -> None:
        is_whole = window_bp > 0 and window_bp % (2 * REGION_BP) == 0
        require(is_whole, f"window_bp {window_bp}", f"a multiple of {2 * REGION_BP} bp")
        self.model, self.bundle, self.window_bp = model.eval(), bundle, window_bp
        self.graph = bundle_graph(model, bundle)
        self.vectors = encode_genes(model, bundle) if vectors is None else vectors
        self.track = annotation_track(bundle.genome, bundle.genes)
        self.row = {gene_id: i for i, gene_id in enumerate(bundle.genes["gene_id"])}

    @property
    def parts(self) -> tuple["Explainer", ...]:
        """One for each model."""
        return (self,)

    def of(self, gene_id: str) -> tuple["Explainer", ...]:
        """Those whose mean predicts a gene."""
        return (self,)

    def changed(self, change: Callable[[GeneSplice], GeneSplice]) -> "Explainer":
        """The same with another model in place of each, which reads the same vectors."""
        model = change(self.model)
        return Explainer(model, self.bundle, window_bp=self.window_bp, vectors=self.vectors)

    def window(self, gene_id: str) -> GeneWindow:
        """The window of `gene_id`, on its own strand; on the 1,024-bp grid."""
        row = self.row[gene_id]
        gene = self.bundle.genes.iloc[row]
        middle = round(int(gene.tss) / REGION_BP) * REGION_BP
        low, high = middle - self.window_bp // 2, middle + self.window_bp // 2
        tokens = self.bundle.genome.fetch(gene.contig, low, high, gene.strand)
        columns = self.bundle.genome.fetch_columns(gene.contig, low, high, gene.strand)
        phase = fetch_track(self.bundle.genome, self.track, gene.contig, low, high)
        exons = exons_read(gene)
        if gene.strand == "+":
            sense_phase, start, end = phase[0], gene.start - low, gene.end - low
            exons = exons - low
        else:
            sense_phase, start, end = phase[1][::-1].copy(), high - gene.end, high - gene.start
            exons = high - exons[:, ::-1]
        about = row, gene_id, str(gene["name"]), -int(start), int(start), int(end)
        bases, coding, others = (
            torch.from_numpy(each)[None] for each in (tokens, sense_phase, columns)
        )
        return GeneWindow(*about, bases, coding, torch.from_numpy(exons), others)

    def forward_function(
        self, window: GeneWindow | str, condition: str | None = None
    ) -> "GeneOutput":
        """A module from base channels (steps, length, 4) to the gene's predicted number.

        Of several models it is the mean of those of the gene.
        """
        window = self.window(window) if isinstance(window, str) else window
        outputs = [GeneOutput(part, window, condition) for part in self.of(window.gene_id)]
        return outputs[0] if len(outputs) == 1 else MeanOutput(outputs)


class GeneOutput(nn.Module):
    """One gene's level, or its residual in `condition`, from the bases of its window.

    Raises
    ------
    InputError
        For a condition that the model does not predict.
    """

    annotation: Tensor
    bases: Tensor

    def __init__(self, explainer: Explainer, window: GeneWindow, condition: str | None) -> None:
        super().__init__()
        self.model, self.window, self.condition = explainer.model, window, condition
        self.row = SingleGenePredictor(
            explainer.model, explainer.graph, explainer.vectors, window.row
        )
        conditions = list(self.model.conditions)
        if condition is not None and condition not in conditions:
            raise InputError(f"condition '{condition}'", f"one of {', '.join(conditions[:5])}, …")
        self.column = None if condition is None else conditions.index(condition)
        channels = self.model.encoder.channels(window.tokens, window.phase, window.columns)
        self.register_buffer("bases", channels[..., :4], persistent=False)
        self.register_buffer("annotation", channels[..., 4:], persistent=False)
        reads_relatives = self.model.encoder.channels.relatives and window.columns.shape[2] > 0
        self.n_relatives = RELATIVE_CHANNELS * reads_relatives
        bins = window.tokens.view(1, -1, self.model.config.bin_bp)
        self.is_real = (bins != N_TOKEN).any(-1)

    @property
    def parts(self) -> Sequence["GeneOutput"]:
        """One for each model."""
        return (self,)

    @property
    def relatives(self) -> Float[Tensor, "1 length relatives"] | None:
        """Channels of the alignment columns; None where there are none or they are not read."""
        return self.annotation[..., -self.n_relatives :] if self.n_relatives else None

    @property
    def target(self) -> str:
        """What is explained: the level, or the name of a condition."""
        return "level" if self.condition is None else self.condition

    def references(self, kind: Reference, count: int = 8, seed: int = 0) -> References:
        """Base channels of what attributions are measured against (see `Reference`)."""
        tokens = self.window.tokens
        if kind == "shuffle":
            generator = np.random.default_rng([seed, self.window.row])
            drawn = [dinucleotide_shuffle(tokens[0].numpy(), generator) for _ in range(count)]
            tokens = torch.from_numpy(np.stack(drawn))
        else:
            tokens = torch.full_like(tokens, N_TOKEN if kind == "uniform" else MASK_TOKEN)
        phase = self.window.phase.expand(len(tokens), -1)
        return self.model.encoder.channels(tokens, phase)[..., :4].to(self.bases)

    def forward(self, bases: Bases, relatives: Relatives = None) -> Numbers:
        """Predict for each of several sequences, with other alignment columns if any are given."""
        return self.pick(self.row(self.features(bases, relatives)))

    def features(self, bases: Bases, relatives: Relatives = None) -> Vectors:
        """The gene's vector for each of several sequences."""
        steps, encoder = bases.shape[0], self.model.encoder
        others = self.annotation.expand(steps, -1, -1)
        if relatives is not None and self.n_relatives:
            others = torch.cat([others[..., : -self.n_relatives], relatives], -1)
        inputs = torch.cat([bases, others], -1)
        is_real = self.is_real.expand(steps, -1)
        return self.read_vectors(encoder.encode(inputs, is_real, with_bases=encoder.base_width > 0))

    def read(self, encoded: EncoderOutput, first_bp: int = 0) -> Numbers:
        """Predict from encoded bins, the first of which starts `first_bp` into the window."""
        return self.pick(self.row(self.read_vectors(encoded, first_bp)))

    def read_vectors(self, encoded: EncoderOutput, first_bp: int = 0) -> Vectors:
        """The gene's vector from encoded bins, the first of which starts at `first_bp`."""
        return self.model.readout.pool(encoded, self.window.loci(len(encoded.bins), first_bp))

    def pick(self, prediction: Prediction) -> Numbers:
        """The number that is explained."""
        return prediction.level if self.column is None else prediction.residual[:, self.column]


class MeanOutput(GeneOutput):
    """The mean of what several models predict for one gene from the same window."""

    def __init__(self, parts: Sequence[GeneOutput]) -> None:
        nn.Module.__init__(self)
        self._parts = nn.ModuleList(parts)
        self.window, self.condition = parts[0].window, parts[0].condition
        self.register_buffer("bases", parts[0].bases, persistent=False)

    @property
    def parts(self) -> Sequence[GeneOutput]:
        """One for each model."""
        return [part for part in self._parts if isinstance(part, GeneOutput)]

    @property
    def relatives(self) -> Relatives:
        """Channels of the alignment columns, the same for each model that reads them."""
        return next((x for part in self.parts if (x := part.relatives) is not None), None)

    def references(self, kind: Reference, count: int = 8, seed: int = 0) -> References:
        """Base channels of what attributions are measured against, the same for each model."""
        return self.parts[0].references(kind, count, seed)

    def forward(self, bases: Bases, relatives: Relatives = None) -> Numbers:
        """Predict for each of several sequences, with other alignment columns if any are given."""
        return torch.stack([part(bases, relatives) for part in self.parts]).mean(0)

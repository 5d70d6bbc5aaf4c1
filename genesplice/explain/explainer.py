"""What explaining needs of a model: a gene's window, and its predicted number as a function of it.

The gene's own sequence is explained; the vectors of all other genes are held at what the model
computes for them, so that the graph is part of what is explained and its neighbours are context.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from genesplice.data.bundle import Bundle
from genesplice.data.windows import annotation_track, fetch_track
from genesplice.errors import InputError
from genesplice.evaluate.nulls import dinucleotide_shuffle
from genesplice.evaluate.prediction import bundle_graph, encode_genes
from genesplice.explain.methods import METHODS, Reference, Settings, attribute
from genesplice.explain.rows import GeneRow
from genesplice.model.genesplice import GeneSplice
from genesplice.model.heads import Prediction
from genesplice.model.sequence import MASK_TOKEN, N_TOKEN, EncoderOutput
from genesplice.results import Attribution

__all__ = ["Explainer", "GeneOutput", "GeneWindow", "is_group", "resolve_genes"]

GRID_BP = 1024


class GeneWindow(NamedTuple):
    """One gene's window on its sense strand.

    Entry 0 of `tokens` lies `offset_bp` from the TSS; `start` and `end` of the gene count from it.
    """

    row: int
    gene_id: str
    name: str
    offset_bp: int
    start: int
    end: int
    tokens: UInt8[Tensor, "1 length"]
    phase: UInt8[Tensor, "1 length"]


def is_group(names: str) -> bool:
    """Say whether "all" or a fold is meant, not genes by name."""
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
    ids = {gene_id.lower(): gene_id for gene_id in bundle.genes["gene_id"]}
    by_name = {
        str(name).lower(): gene_id
        for name, gene_id in zip(bundle.genes["name"], bundle.genes["gene_id"], strict=True)
    }
    known = by_name | ids
    found = []
    for name in names:
        group = name.strip().lower()
        if group == "all":
            found += bundle.genes["gene_id"].tolist()
            continue
        if is_group(group):
            number = group.removeprefix("fold:")
            if not number.isdecimal():
                raise InputError(f"genes '{name.strip()}'", "a fold, such as fold:0")
            found += bundle.test_genes(int(number)).tolist()
            continue
        if name.strip().lower() not in known:
            raise InputError(
                f"gene '{name.strip()}'", f"an id or name in {bundle.path}/genes.parquet"
            )
        found.append(known[name.strip().lower()])
    return list(dict.fromkeys(found))


class Explainer:
    """A model with everything computed once that explaining several genes shares.

    Parameters
    ----------
    window_bp
        Bases explained, the TSS in the middle; a multiple of 2,048.
    vectors
        What the model says of every gene (`encode_genes`), where that is at hand already.

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
        vectors: Float[Tensor, "genes joined"] | None = None,
    ) -> None:
        if window_bp <= 0 or window_bp % (2 * GRID_BP):
            raise InputError(f"window_bp {window_bp}", f"a multiple of {2 * GRID_BP} bp")
        self.model, self.bundle, self.window_bp = model.eval(), bundle, window_bp
        self.graph = bundle_graph(model, bundle)
        self.vectors = encode_genes(model, bundle) if vectors is None else vectors
        self.track = annotation_track(bundle.genome, bundle.genes)
        self.row = {gene_id: i for i, gene_id in enumerate(bundle.genes["gene_id"])}

    def window(self, gene_id: str, *, shift_bp: int = 0) -> GeneWindow:
        """The window of `gene_id`, on its own strand; `shift_bp` off the 1,024-bp grid."""
        row = self.row[gene_id]
        gene = self.bundle.genes.iloc[row]
        middle = round(int(gene.tss) / GRID_BP) * GRID_BP + shift_bp
        low, high = middle - self.window_bp // 2, middle + self.window_bp // 2
        tokens = self.bundle.genome.fetch(gene.contig, low, high, gene.strand)
        phase = fetch_track(self.bundle.genome, self.track, gene.contig, low, high)
        if gene.strand == "+":
            sense_phase, start, end = phase[0], gene.start - low, gene.end - low
        else:
            sense_phase, start, end = phase[1][::-1].copy(), high - gene.end, high - gene.start
        return GeneWindow(
            row,
            gene_id,
            str(gene["name"]),
            -int(start),
            int(start),
            int(end),
            torch.from_numpy(tokens)[None],
            torch.from_numpy(sense_phase)[None],
        )

    def forward_function(
        self, window: GeneWindow | str, condition: str | None = None
    ) -> "GeneOutput":
        """A module from base channels (steps, length, 4) to the gene's predicted number."""
        place = self.window(window) if isinstance(window, str) else window
        return GeneOutput(self, place, condition)

    def explain(
        self,
        gene_id: str,
        *,
        method: str = "ig",
        condition: str | None = None,
        baseline: Reference = "uniform",
        steps: int = 32,
        batch_steps: int = 8,
        n_references: int = 8,
        seed: int = 0,
    ) -> Attribution:
        """Attributions of the level, or of the residual in `condition`, by one of `METHODS`.

        `baseline` "uniform" is a quarter of each base, "masked" the zero vector that pre-training
        uses for a hidden base, "shuffle" the mean over `n_references` sequences with the same
        dinucleotides. A method that knows only one reference takes that one.

        Raises
        ------
        InputError
            For an unknown method or condition.
        WorkError
            If the method is not valid for this model.
        """
        if method not in METHODS:
            raise InputError(f"method '{method}'", f"one of {', '.join(METHODS)}")
        function = self.forward_function(gene_id, condition)
        window, reference = function.window, METHODS[method].reference or baseline
        references = function.references(reference, n_references, seed)
        settings = Settings(steps, batch_steps, seed)
        found, delta, output = attribute(function, function.bases, references, method, settings)
        values = found[0].sum(-1).numpy().astype(np.float64)
        return Attribution(
            gene_id=gene_id,
            name=window.name,
            target=function.target,
            method=METHODS[method].label,
            baseline=reference,
            offset_bp=window.offset_bp,
            tokens=window.tokens[0].numpy(),
            values=values,
            output=output,
            baseline_output=output - (float(values.sum()) - delta),
            delta=delta,
        )


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
        self.row = GeneRow(explainer.model, explainer.graph, explainer.vectors, window.row)
        conditions = list(self.model.conditions)
        if condition is not None and condition not in conditions:
            raise InputError(f"condition '{condition}'", f"one of {', '.join(conditions[:5])}, …")
        self.column = None if condition is None else conditions.index(condition)
        channels = self.model.encoder.channels(window.tokens, window.phase)
        self.register_buffer("bases", channels[..., :4], persistent=False)
        self.register_buffer("annotation", channels[..., 4:], persistent=False)
        bins = window.tokens.view(1, -1, self.model.config.bin_bp)
        self.is_real = (bins != N_TOKEN).any(-1)

    @property
    def target(self) -> str:
        """What is explained: the level, or the name of a condition."""
        return "level" if self.condition is None else self.condition

    def references(
        self, kind: Reference, count: int = 8, seed: int = 0
    ) -> Float[Tensor, "references length 4"]:
        """Base channels of what attributions are measured against (see `Explainer.explain`)."""
        tokens = self.window.tokens
        if kind == "shuffle":
            generator = np.random.default_rng([seed, self.window.row])
            drawn = [dinucleotide_shuffle(tokens[0].numpy(), generator) for _ in range(count)]
            tokens = torch.from_numpy(np.stack(drawn))
        else:
            tokens = torch.full_like(tokens, N_TOKEN if kind == "uniform" else MASK_TOKEN)
        phase = self.window.phase.expand(len(tokens), -1)
        return self.model.encoder.channels(tokens, phase)[..., :4].to(self.bases)

    def forward(self, bases: Float[Tensor, "steps length 4"]) -> Float[Tensor, " steps"]:
        """Predict for each of several sequences."""
        steps, encoder = bases.shape[0], self.model.encoder
        inputs = torch.cat([bases, self.annotation.expand(steps, -1, -1)], -1)
        is_real = self.is_real.expand(steps, -1)
        encoded = encoder.encode(inputs, is_real, with_bases=encoder.base_width > 0)
        return self.read(encoded)

    def read(self, encoded: EncoderOutput, first_bp: int = 0) -> Float[Tensor, " steps"]:
        """Predict from encoded bins, the first of which starts `first_bp` into the window."""
        return self.pick(self.row(self.read_vectors(encoded, first_bp)))

    def read_vectors(
        self, encoded: EncoderOutput, first_bp: int = 0
    ) -> Float[Tensor, "steps joined"]:
        """The gene's vector from encoded bins, the first of which starts at `first_bp`."""
        steps = len(encoded.bins)
        return self.model.read_genes(
            encoded,
            torch.arange(steps),
            torch.full((steps,), self.window.start - first_bp),
            torch.full((steps,), self.window.end - first_bp),
            torch.ones(steps, dtype=torch.int8),
            n_windows=steps,
        )

    def pick(self, prediction: Prediction) -> Float[Tensor, " steps"]:
        """The number that is explained."""
        return prediction.level if self.column is None else prediction.residual[:, self.column]

"""In-silico mutagenesis: what each base change does to a prediction, exactly, and by what way.

A window is encoded once. A variant computes anew only the tokens around its changed bases, the
regions (they are few), and the bins that the readout of the gene uses.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from genesplice.errors import WorkError, require
from genesplice.explain.attribution import base_table
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.incremental import IncrementalEncoder, splice
from genesplice.model.readout import bins_read
from genesplice.predict.gene_output import Explainer, GeneOutput, resolve_genes
from genesplice.predict.models import claim_parts
from genesplice.results import Attribution
from genesplice.runtime import Countdown, write_table

STEP_BP = 8
Changed = Float[Tensor, "variants changed 4"]
Numbers = Float[Tensor, " variants"]
TO_BASES = [f"to_{base}" for base in "ACGT"]


class VariantOutput:
    """The predicted number of a gene for variants of an interval of its window.

    Exact for every encoder; under the hierarchical one only what a change touches is recomputed.
    """

    def __init__(self, function: GeneOutput) -> None:
        self.function, encoder = function, function.model.encoder
        self.incremental: IncrementalEncoder | None = None
        if isinstance(encoder, HierarchicalEncoder) and not encoder.permutes_regions:
            inputs = torch.cat([function.bases, function.annotation], -1)
            window, has_bases = function.window, encoder.base_width > 0
            length = window.tokens.shape[1]
            self.bins = bins_read(window.loci(), length=length, bin_bp=encoder.bin_bp)
            with torch.no_grad():
                self.incremental = IncrementalEncoder(
                    encoder, inputs, function.is_real, with_bases=has_bases
                )

    @torch.no_grad()
    def __call__(self, low_bp: int, bases: Changed) -> Numbers:
        """Predict with `bases` in place of what starts at `low_bp` of the window."""
        if self.incremental is None:
            return self.in_full(low_bp, bases)
        first_bp = self.bins[0] * self.function.model.config.bin_bp
        return self.function.read(self.incremental.encode(self.bins, low_bp, bases), first_bp)

    @torch.no_grad()
    def in_full(self, low_bp: int, bases: Changed) -> Numbers:
        """The same by encoding the whole window for each variant."""
        length = self.function.bases.shape[1]
        return self.function(splice(self.function.bases, bases, low_bp, 0, length))


class Mutagenesis(NamedTuple):
    """What every single-base change does to one predicted number of one gene.

    `effects[i, b]` is the prediction with base b at position i less the one without (`output`); 0
    for the base that is there, nan where it is an N. Position 0 lies `offset_bp` from the TSS,
    sense strand.
    """

    gene_id: str
    name: str
    target: str
    offset_bp: int
    tokens: UInt8[np.ndarray, " length"]
    effects: Float[np.ndarray, "length 4"]
    output: float

    @property
    def importance(self) -> Float[np.ndarray, " length"]:
        """How much the base that is there adds, compared with the other three; 0 for N."""
        return np.nan_to_num(-self.effects.sum(1) / 3)


def mutate(
    explainer: Explainer,
    gene_id: str,
    *,
    upstream_bp: int = 300,
    downstream_bp: int = 100,
    condition: str | None = None,
) -> Mutagenesis:
    """Replace every base from `upstream_bp` before the TSS to `downstream_bp` after it.

    Raises
    ------
    InputError
        If the interval is empty or leaves the explainer's window.
    """
    window = explainer.window(gene_id)
    low, high = window.start - upstream_bp, window.start + downstream_bp
    found = f"-{upstream_bp} to +{downstream_bp} bp of {window.name}"
    ends = f"{window.offset_bp} to {window.offset_bp + explainer.window_bp} bp"
    is_inside = 0 <= low < high <= explainer.window_bp
    require(is_inside, found, f"an interval inside its window, {ends}")
    function = explainer.forward_function(window, condition)
    outputs = [VariantOutput(part) for part in function.parts]
    tokens = window.tokens[0, low:high]
    own = function.bases[:, low : low + 1]
    reference = float(np.mean([float(one(low, own)) for one in outputs]))
    effects = torch.zeros(high - low, 4, dtype=torch.float64)
    effects[tokens > 3] = torch.nan
    # Cut where bins are cut, so that a batch touches as few of them as it can.
    edges = sorted({low, high, *range(low - low % STEP_BP + STEP_BP, high, STEP_BP)})
    for first, last in itertools.pairwise(edges):
        here = window.tokens[0, first:last, None]
        at, base = ((torch.arange(4) != here) & (here < 4)).nonzero(as_tuple=True)
        variants = function.bases[:, first:last].repeat(len(at), 1, 1)
        variants[torch.arange(len(at)), at] = torch.eye(4)[base]
        if len(at):
            predicted = torch.stack([one(first, variants).double() for one in outputs]).mean(0)
            effects[first - low + at, base] = predicted - reference
    what = gene_id, window.name, function.target, -upstream_bp
    return Mutagenesis(*what, tokens.numpy(), effects.numpy(), reference)


def mutation_table(found: Mutagenesis) -> pd.DataFrame:
    """One row a base: the change of the prediction for each base that could stand there."""
    return base_table(found).join(pd.DataFrame(found.effects, columns=TO_BASES))


def attribution_of_table(table: pd.DataFrame) -> list[Attribution]:
    """The importance of each base (see `Mutagenesis`) for every gene of a mutation table.

    There is no sum that it should keep to: outputs and delta are nan.
    """
    found, nan = [], float("nan")
    for gene_id, part in table.groupby("gene_id", sort=False):
        name, target, offset_bp = part[["name", "target", "position_bp"]].iloc[0]
        tokens = np.array(["ACGTN".index(base) for base in part["base"]], dtype=np.uint8)
        effects = part[TO_BASES].to_numpy(np.float64)
        one = Mutagenesis(str(gene_id), name, target, int(offset_bp), tokens, effects, nan)
        names = *one[:3], "in-silico mutagenesis", "the other three bases"
        found.append(Attribution(*names, one.offset_bp, tokens, one.importance, nan, nan, nan))
    return found


def scan_genes(
    explainer: Explainer,
    genes: Sequence[str],
    out: Path | None = None,
    *,
    upstream_bp: int = 300,
    downstream_bp: int = 100,
    condition: str | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> pd.DataFrame:
    """`mutate` for many genes; `out` keeps a file a gene, and what is there is not redone.

    Raises
    ------
    InputError
        If `out` holds a scan with another model, window, interval or condition.
    """
    if out:
        what = f"-{upstream_bp} to +{downstream_bp} bp, {condition or 'level'}, "
        what += f"window {explainer.window_bp} bp, "
        claim_parts(out, what, (part.model for part in explainer.parts))
    span = {"upstream_bp": upstream_bp, "downstream_bp": downstream_bp}
    tables = []
    for gene_id in Countdown(len(genes), "explain: genes", report).over(genes):
        file = out / f"{gene_id}.parquet" if out else None
        if file and file.exists():
            tables.append(pd.read_parquet(file))
            continue
        tables.append(mutation_table(mutate(explainer, gene_id, condition=condition, **span)))
        if file:
            write_table(file, tables[-1])
    return pd.concat(tables, ignore_index=True)


# --- many bases at a time ---


class Curves(NamedTuple):
    """The prediction as bases are deleted, or inserted, in the order of their attribution.

    `fraction` of the bases, from 0 to 1. Values are shares of the change from empty to full: 1 is
    the whole sequence's prediction, 0 the empty one's. Bases whose attribution points the way the
    prediction changed come first: deletion should fall early and insertion rise early.
    """

    fraction: Float[np.ndarray, " points"]
    deletion: Float[np.ndarray, " points"]
    insertion: Float[np.ndarray, " points"]
    random_deletion: Float[np.ndarray, " points"]
    random_insertion: Float[np.ndarray, " points"]

    def area(self, name: str) -> float:
        """Area under a curve; small for a good deletion, large for a good insertion."""
        return float(np.trapezoid(getattr(self, name), self.fraction))


def deletion_insertion(
    explainer: Explainer,
    found: Attribution,
    *,
    condition: str | None = None,
    n_points: int = 11,
    n_random: int = 3,
) -> Curves:
    """Delete and insert bases by rank, and at random for comparison.

    A deleted base is a quarter of each. Source: Petsiuk et al., RISE, 2018, section 4.2.
    """
    function = explainer.forward_function(found.gene_id, condition)
    bases, empty = function.bases, function.references("uniform")
    known = np.flatnonzero(found.tokens < 4)
    with torch.no_grad():
        full, none = float(function(bases)), float(function(empty))
    scale = full - none if full != none else 1.0
    by_rank = known[np.argsort(-found.values[known] * np.sign(scale), kind="stable")]
    generator = np.random.default_rng(0)
    shuffled = [generator.permutation(known) for _ in range(n_random)]
    fraction = np.linspace(0, 1, n_points)

    @torch.no_grad()
    def walk(start: Tensor, goal: Tensor, orders: Sequence[np.ndarray]) -> np.ndarray:
        values = []
        for order in orders:
            for share in fraction:
                changed = start.clone()
                at = torch.from_numpy(order[: round(share * len(order))])
                changed[0, at] = goal[0, at]
                values.append(float(function(changed)))
        return (np.array(values).reshape(len(orders), -1).mean(0) - none) / scale

    ways = [([by_rank], bases, empty), ([by_rank], empty, bases)]
    ways += [(shuffled, bases, empty), (shuffled, empty, bases)]
    return Curves(fraction, *(walk(start, goal, orders) for orders, start, goal in ways))


# --- from one base to the level ---


class ChangePath(NamedTuple):
    """By what way a changed base changes the predicted level of its gene.

    `table` has a row for every part: `part` (embedding, regulator, effector, pathway or kernel),
    `id`, `name` and `value`, log2(TPM + 1). Values sum to `after - before` up to `delta`.
    """

    gene_id: str
    name: str
    change: str
    before: float
    after: float
    delta: float
    table: pd.DataFrame


def path_of_change(
    explainer: Explainer, gene_id: str, change: tuple[int, str] | None = None, *, steps: int = 32
) -> ChangePath:
    """Follow one base change from the gene's embedding through the graph to its level.

    The kernel path's share is exact: its prediction with and without. What is left comes through
    the neural path: the gene's own embedding after the readout, and what it receives from each
    regulator, effector and pathway, which attend to the changed embedding; integrated gradients of
    the head along the straight line between both share it out.

    Parameters
    ----------
    change
        Distance from the TSS on the sense strand, bp, and the new base; None: of all within 64 bp
        of the TSS the one that changes the level most.

    Raises
    ------
    WorkError
        If the model has no graph layer, or several.
    """
    model = explainer.model
    if len(model.graph.layers) != 1:
        raise WorkError(f"{len(model.graph.layers)} graph layers: a path is followed through one")
    (gene_id,) = resolve_genes(explainer.bundle, [gene_id])
    if change is None:
        found = mutate(explainer, gene_id, upstream_bp=64, downstream_bp=64)
        at, base = np.unravel_index(np.nanargmax(np.abs(found.effects)), found.effects.shape)
        change = int(at) + found.offset_bp, "ACGT"[base]
    function = explainer.forward_function(gene_id)
    window, index = function.window, change[0] - function.window.offset_bp
    is_fine = change[1] in tuple("ACGT") and 0 <= index < explainer.window_bp
    require(is_fine, f"{change[1]} at {change[0]:+d} bp", "A, C, G or T within the window")
    old, row = "ACGTN"[int(window.tokens[0, index])], function.row
    bases = function.bases.repeat(2, 1, 1)
    bases[1, index] = torch.eye(4)["ACGT".index(change[1])]
    with torch.no_grad():
        features = function.features(bases)
        before, after = row(features).level.tolist()
        kernel, weight = torch.zeros(2), 0.0
        if model.kernel.n_support:
            known = explainer.graph["gene"].knowledge[[window.row] * 2].to(features)
            kernel = model.kernel(model.readout.standardise(features), known).level
            weight = float(model.mix[0])
        alone, own = row.among_others(features.dtype), model.readout(features)
        received = alone.receive(own)
    parts = torch.cat([own[:, None], *received], 1)
    informed = parts.sum(1)
    line = informed[0] + (torch.arange(steps)[:, None] + 0.5) / steps * (informed[1] - informed[0])
    line.requires_grad_()
    (gradient,) = torch.autograd.grad(model.expression_head(line).level.sum(), line)
    shares = (1 - weight) * (parts[1] - parts[0]) @ gradient.mean(0)
    rows = [("embedding", gene_id)]
    for kind, nodes in alone.sources:
        ids = explainer.graph["gene" if kind == "regulator" else kind].ids
        rows += [(kind, ids[node]) for node in nodes.tolist()]
    table = pd.DataFrame(rows, columns=["part", "id"]).assign(value=shares.double().tolist())
    if weight:
        added = weight * float(kernel[1] - kernel[0])
        table.loc[len(table)] = ["kernel", gene_id, added]
    labels = explainer.bundle.labels
    table = table.assign(name=table["id"].map(labels).fillna(table["id"]))
    delta = float(table["value"].sum()) - (after - before)
    text = f"{old}>{change[1]} at {change[0]:+d} bp"
    return ChangePath(gene_id, window.name, text, before, after, delta, table)

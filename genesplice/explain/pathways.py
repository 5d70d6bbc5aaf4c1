"""Which regulators, pathways and genes a prediction depends on, with random graphs.

Every message along an edge, and what the kernel path knows by it, is scaled by a mask of 1;
Captum's integrated gradients take the masks from 0 (no graph at all) to 1. What an edge is given is
its share of what the graph adds to the predictions. The same is done on graphs of random sets of
the same sizes and a network rewired under the same degrees: a bar inside their band is no evidence
of biology.
"""

import copy
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from captum.attr import IntegratedGradients
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.explain.algorithm.utils import set_masks

from genesplice.data.bundle import Bundle
from genesplice.data.knowledge import random_gene_sets, rewired_network
from genesplice.errors import WorkError, require
from genesplice.model.genesplice import GeneSplice
from genesplice.model.graph import MESSAGES, GraphLayer, cut_neighbourhood
from genesplice.model.kernel import InnerProducts
from genesplice.predict.expression import bundle_graph, edge_table
from genesplice.predict.gene_output import Explainer, resolve_genes
from genesplice.runtime import side_by_side

PROFILE = "profile"
"""Explain every gene's residual along one direction over conditions: predicted, or observed."""
Kind = Literal["regulator", "pathway", "gene"]
# By which edges each kind sends: a gene to pathways, and as a regulator to other genes.
SENDS: dict[str, tuple[str, ...]] = {
    "regulator": ("regulates", "effects"),
    "pathway": ("contains",),
    "gene": ("member_of",),
}


class EdgeAttribution(NamedTuple):
    """What every edge adds to the summed prediction of some genes.

    `table` has the columns source, target, kind (of the edge), sign and value. The values sum to
    `output - without_graph` up to `delta`.
    """

    table: pd.DataFrame
    output: float
    without_graph: float
    delta: float

    @property
    def relative_delta(self) -> float:
        """|delta| over what the graph adds; nan where that is 0."""
        added = abs(self.output - self.without_graph)
        return abs(self.delta) / added if added else float("nan")

    @property
    def completeness(self) -> str:
        """How far the values are from adding up, in words."""
        if self.output == self.without_graph:
            return "The graph adds nothing to these genes."
        return f"Of what the graph adds, {self.relative_delta:.1%} is missing."


class _Received(nn.Module):
    """Stands for a layer whose messages are known: they are scaled as one."""

    def __init__(self, messages: Tensor, attention: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.messages, self.attention, self.scale = messages, attention, torch.ones(1)

    def forward(self, *_: Any) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As the layer, whatever it is given."""
        return self.scale * self.messages, self.attention


class GraphOutput(nn.Module):
    """The summed prediction of some genes as a function of masks on the edges of the graph.

    Parameters
    ----------
    graph
        From `bundle_graph`.
    vectors
        The features of every gene's sequence.
    rows
        Genes whose predictions are summed.
    target
        "level", a condition, or `PROFILE`.
    along
        With `PROFILE`: a direction over conditions for each chosen gene, such as what was observed;
        left out, what the model predicts.
    kinds
        Of the edges that have a mask each (all, left out); those of another kind have one together.

    Raises
    ------
    InputError
        For a condition that the model does not predict.
    """

    vectors: Tensor

    def __init__(
        self,
        model: GeneSplice,
        graph: HeteroData,
        vectors: Float[Tensor, "genes features"],
        rows: Int64[Tensor, " chosen"],
        target: str = "level",
        along: Float[Tensor, "chosen conditions"] | None = None,
        kinds: Sequence[str] = tuple(MESSAGES),
    ) -> None:
        super().__init__()
        conditions = list(model.conditions)
        wanted = f"level, {PROFILE}, or one of {', '.join(conditions[:5])}, …"
        require(target in ("level", PROFILE, *conditions), f"target '{target}'", wanted)
        # A copy: masks stay on its layers, and nobody else's model changes.
        self.model = copy.deepcopy(model).eval()
        self.exchange = self.model.graph
        self.graph, self.rows = graph, rows
        self.column = conditions.index(target) if target in conditions else None
        self.register_buffer("vectors", vectors, persistent=False)
        self.part = "level" if target == "level" else "residual"
        self.compared: InnerProducts | None = None
        if model.kernel.n_support:
            # What the kernel path gives for the sequence is the same whatever the masks.
            with torch.no_grad():
                inputs = self.model.kernel_inputs(vectors, graph, rows)
                self.compared = self.model.kernel.compare(self.part, inputs[0])
        self.kinds = [kind for kind, key in MESSAGES.items() if graph[key].edge_index.shape[1]]
        self.one_by_one = [kind for kind in self.kinds if kind in kinds]
        self._keep_members()
        self.along: Tensor | None = None
        if target == PROFILE:
            if along is None:
                with torch.no_grad():
                    along = self._predict(self.full_masks())
            self.along = along / along.norm(dim=1, keepdim=True).clamp_min(1e-12)

    def full_masks(self) -> tuple[Float[Tensor, "1 edges"], ...]:
        """The graph as it is: a one for each edge, or for a kind whose edges go together."""
        sizes = {kind: self.n_edges(kind) if kind in self.one_by_one else 1 for kind in self.kinds}
        return tuple(torch.ones(1, size) for size in sizes.values())

    def n_edges(self, kind: str) -> int:
        """Edges of a kind."""
        return int(self.graph[MESSAGES[kind]].edge_index.shape[1])

    @torch.no_grad()
    def _keep_members(self) -> None:
        """What pathways receive from their genes: nothing else changes it in a single exchange."""
        layers = self.exchange.layers
        if "member_of" not in self.kinds or "member_of" in self.one_by_one or len(layers) != 1:
            return
        (layer,), found = layers, list[Any]()
        assert isinstance(layer, GraphLayer)
        hook = layer.member_of.register_forward_hook(lambda *call: found.extend(call[2]))
        self.model.predict_neural(self.vectors, self.graph)
        hook.remove()
        layer.member_of = _Received(*found)

    def forward(self, *masks: Tensor) -> Float[Tensor, " steps"]:
        """The prediction for each row of the masks, one tensor (steps, edges) a kind."""
        steps = (tuple(m[i : i + 1] for m in masks) for i in range(len(masks[0])))
        return torch.stack([self._number(step) for step in steps])

    def _number(self, masks: tuple[Tensor, ...]) -> Tensor:
        predicted = self._predict(masks)
        if self.along is not None:
            return (predicted * self.along).sum()
        return predicted.sum() if self.column is None else predicted[:, self.column].sum()

    def _predict(self, masks: tuple[Tensor, ...]) -> Tensor:
        pairs = zip(self.kinds, masks, strict=True)
        kept = {kind: mask[0].expand(self.n_edges(kind)) for kind, mask in pairs}
        for kind, mask in kept.items():
            index = self.graph[MESSAGES[kind]].edge_index
            for layer in self.exchange.layers:
                assert isinstance(layer, GraphLayer)
                messages = getattr(layer, kind)
                if isinstance(messages, _Received):
                    messages.scale = mask[:1]
                else:
                    set_masks(messages, mask, index, apply_sigmoid=False)
        graph = copy.copy(self.graph)  # shallow: what is set below is of the copy alone
        graph["gene"].knowledge = self.exchange.masked_knowledge(graph, kept)
        return self.model.predict_target(self.part, self.vectors, graph, self.rows, self.compared)


def edge_attribution(output: GraphOutput, *, steps: int = 16) -> EdgeAttribution:
    """Integrated gradients of the edge masks, from no graph to the whole one.

    A graph without edges adds nothing, and has no rows.

    Raises
    ------
    WorkError
        If the model has no graph layers.
    """
    if not len(output.exchange.layers):
        raise WorkError("there is no graph in this model, and nothing that it could have received")
    table, full = _share_out(output, steps), output.full_masks()
    if not output.kinds:
        return EdgeAttribution(table, 0.0, 0.0, 0.0)
    with torch.no_grad():
        at_full, at_empty = float(output(*full)), float(output(*map(torch.zeros_like, full)))
    delta = float(table["value"].sum()) - (at_full - at_empty)
    return EdgeAttribution(table, at_full, at_empty, delta)


def _share_out(output: GraphOutput, steps: int) -> pd.DataFrame:
    """`EdgeAttribution.table` of the edges that have a mask each, whatever is missing."""
    if not output.one_by_one:
        none = {"source": object, "target": object, "kind": object, "sign": int, "value": float}
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in none.items()})
    # From no graph: Captum's own reference is zero.
    method, options = IntegratedGradients(output), {"n_steps": steps, "internal_batch_size": 1}
    shares = zip(output.kinds, method.attribute(output.full_masks(), **options), strict=True)
    tables = [
        edge_table(output.graph, kind, values[0].detach())
        for kind, values in shares
        if kind in output.one_by_one
    ]
    return pd.concat(tables, ignore_index=True)


def explain_edges(
    explainer: Explainer, genes: Sequence[str], *, condition: str | None = None, steps: int = 16
) -> EdgeAttribution:
    """What every edge adds to the summed level of some genes, or residual in `condition`.

    Edges that are too far from the genes to add anything are left out.

    Raises
    ------
    InputError
        For an unknown gene or condition.
    WorkError
        If the model has no graph layers.
    """
    rows = torch.tensor([explainer.row[g] for g in resolve_genes(explainer.bundle, genes)])
    model = explainer.model
    part = cut_neighbourhood(explainer.graph, rows, len(model.graph.layers))
    vectors = explainer.vectors[part.genes]
    output = GraphOutput(model, part.graph, vectors, part.rows, condition or "level")
    return edge_attribution(output, steps=steps)


def influence(edges: pd.DataFrame, kind: Kind, genes: Sequence[str] = ()) -> pd.DataFrame:
    """What each node of a kind adds: one row a node, largest first.

    Columns: id, n_edges, value (sum over its edges), mean (of what one edge adds) and size (mean
    of its absolute value, by which they are ordered).

    Parameters
    ----------
    genes
        Count edges into these genes only; a model with one exchange gives others nothing. Not for
        the kind "gene", whose edges lead into pathways.
    """
    table = edges[edges["kind"].isin(SENDS[kind])]
    if genes and kind != "gene":
        table = table[table["target"].isin(set(genes))]
    values = table.groupby("source")["value"]
    out = values.agg(n_edges="size", value="sum", mean="mean")
    out = out.assign(size=table["value"].abs().groupby(table["source"]).mean())
    out = out.reset_index(names="id")
    return out.sort_values(["size", "id"], ascending=[False, True], ignore_index=True)


def pathway_influence(
    explainer: Explainer,
    genes: Sequence[str],
    kind: Kind = "pathway",
    *,
    steps: int = 16,
    n_random: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """How far each node moves measured genes towards what was observed, with random graphs.

    The `mean` of `influence` along each gene's observed profile (its residual over conditions). A
    pathway keeps its learned vector, its size and its overlaps, and gets random members of the
    same collections; a regulator keeps how many targets of each sign it has, and gets others. Any
    node moves whatever it is tied to; only one whose ties are right moves it the right way. Say it
    of held-out genes: what was trained on follows every node.

    No rows where no edge of `kind` is near the genes. Ordered by mean, largest first. Further
    columns: name (as people read it), null_low and null_high (the middle 95 % of random graphs),
    null_mean, and p (share of random graphs, the real one counted in, that do at least as well).

    Raises
    ------
    InputError
        If there is no measured gene, or no random graph.
    """
    model, bundle = explainer.model, explainer.bundle
    measured = [gene_id for gene_id in genes if gene_id in bundle.observed.index]
    found = f"{len(measured)} measured genes and {n_random} random graphs"
    require(measured and n_random >= 1, found, "at least 1 of each")
    rows = torch.tensor([explainer.row[gene_id] for gene_id in measured])
    observed = bundle.observed.loc[measured, list(model.conditions)]
    above = torch.from_numpy(observed.sub(observed.mean(axis=1), axis=0).to_numpy(np.float32))
    # The condition means are those of the training genes.
    along = (above - model.expression_head.condition_mean).nan_to_num(0)

    def measure(data: Bundle) -> pd.DataFrame:
        part = cut_neighbourhood(bundle_graph(model, data), rows, len(model.graph.layers))
        vectors = explainer.vectors[part.genes]
        output = GraphOutput(model, part.graph, vectors, part.rows, PROFILE, along, SENDS[kind])
        edges = _share_out(output, steps)
        return influence(edges, kind, measured).set_index("id")

    table = measure(bundle)
    ablation = rewired_network if kind == "regulator" else random_gene_sets
    seeds = range(seed, seed + (n_random if len(table) else 1))
    drawn = side_by_side(lambda one: measure(ablation(bundle, one))["mean"], seeds)
    # A node whose random ties lead to none of the genes adds nothing there.
    null = np.stack([one.reindex(table.index).fillna(0.0).to_numpy() for one in drawn])
    table["null_low"], table["null_high"] = np.quantile(null, [0.025, 0.975], axis=0)
    table["null_mean"] = null.mean(0)
    table["chance_above"] = _chance_above(null)
    table["p"] = (1 + (null >= table["mean"].to_numpy()).sum(0)) / (1 + n_random)
    table = table.sort_values("mean", ascending=False).reset_index()
    return table.assign(name=table["id"].map(bundle.labels).fillna(table["id"]))


def _chance_above(null: Float[np.ndarray, "graphs nodes"]) -> float:
    """Share of nodes that one random graph has above the band of the others."""
    if len(null) < 2 or not null.size:
        return 1.0
    bands = [np.quantile(np.delete(null, i, 0), 0.975, axis=0) for i in range(len(null))]
    return float(np.mean([graph > band for graph, band in zip(null, bands, strict=True)]))

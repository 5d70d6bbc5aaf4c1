"""One gene's prediction as a function of its own vector, everything else held still.

The graph of a whole genome is far too much to run for each of a million substitutions. What one
gene hears lies close by: its regulators, its pathways and what these hear. Only that part is kept,
and unchanged neighbours are shared by all variants of the gene wherever that is exact.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from genesplice.model.genesplice import GeneSplice
from genesplice.model.heads import Prediction

__all__ = ["GeneRow", "copy_neighbourhood", "neighbourhood"]


def neighbourhood(graph: HeteroData, row: int, hops: int) -> dict[str, Tensor]:
    """Edges from every node to gene `row` along the arrows, by type; -1 beyond `hops`."""
    distance = {kind: torch.full((int(graph[kind].num_nodes),), -1) for kind in graph.node_types}
    distance["gene"][row] = 0
    for hop in range(1, hops + 1):
        reached = [
            (source, index[0][distance[target][index[1]] == hop - 1])
            for (source, _, target), index in graph.edge_index_dict.items()
        ]
        for source, nodes in reached:
            distance[source][nodes[distance[source][nodes] < 0]] = hop
    return distance


def copy_neighbourhood(
    graph: HeteroData, row: int, n_copies: int, *, layers: int
) -> tuple[HeteroData, Tensor, Tensor]:
    """A graph with `n_copies` of gene `row`, each hearing what the gene hears in `graph`.

    With one layer of exchange, neighbours that do not change are there once: they only speak to
    the gene, or to its own copies of its pathways. With more layers they listen to it as well, so
    that each copy has a neighbourhood to itself.

    Returns
    -------
    graph
        Bound as `graph` is.
    rows
        Which row of `graph` each of its genes is a copy of.
    places
        Where the copies of `row` are.
    """
    distance = neighbourhood(graph, row, 2 * layers)
    out, rows, place = HeteroData(), {}, {}
    for kind, hops in distance.items():
        is_own = hops >= 0 if layers > 1 else hops == (0 if kind == "gene" else 1)
        own, shared = is_own.nonzero()[:, 0], ((hops >= 0) & ~is_own).nonzero()[:, 0]
        rows[kind] = torch.cat([shared, own.repeat(n_copies)])
        # Of node i in copy c: first[i] + c * step[i]; -1 where it is not near.
        first = torch.full((int(graph[kind].num_nodes),), -1)
        step = torch.zeros_like(first)
        first[shared] = torch.arange(len(shared))
        first[own] = len(shared) + torch.arange(len(own))
        step[own] = len(own)
        place[kind] = first, step
        for name, value in graph[kind].items():
            if isinstance(value, Tensor) and value.shape[:1] == (graph[kind].num_nodes,):
                out[kind][name] = value[rows[kind]]
        out[kind].num_nodes = len(rows[kind])
    copies = torch.arange(n_copies)[:, None]
    for key, index in graph.edge_index_dict.items():
        kept = _spoken(place, key, index)
        ends = []
        for kind, nodes in ((key[0], index[0][kept]), (key[2], index[1][kept])):
            first, step = place[kind]
            ends.append((first[nodes] + copies * step[nodes]).flatten())
        out[key].edge_index = torch.stack(ends)
        for name, value in graph[key].items():
            if name != "edge_index" and isinstance(value, Tensor):
                out[key][name] = value[kept].repeat(n_copies, *[1] * (value.dim() - 1))
    first, step = place["gene"]
    return out, rows["gene"], first[row] + torch.arange(n_copies) * step[row]


def _spoken(place: Mapping[str, tuple[Tensor, Tensor]], key: tuple, index: Tensor) -> Tensor:
    """Edges that end at a node with copies; what a shared node hears does not matter."""
    source, _, target = key
    has_copies = place[target][1][index[1]] > 0
    return (has_copies & (place[source][0][index[0]] >= 0)).nonzero()[:, 0]


class GeneRow(nn.Module):
    """The prediction for gene `row`, given its vector.

    Parameters
    ----------
    graph
        From `bundle_graph`.
    vectors
        What the model says of all genes; that of `row` is not read.
    """

    vectors: Tensor

    def __init__(
        self, model: GeneSplice, graph: HeteroData, vectors: Float[Tensor, "genes joined"], row: int
    ) -> None:
        super().__init__()
        self.model, self.graph, self.row = model, graph, row
        self.register_buffer("vectors", vectors, persistent=False)
        self._copies: dict[int, tuple[HeteroData, Tensor, Tensor]] = {}

    def forward(self, own: Float[Tensor, "variants joined"]) -> Prediction:
        """Predict the gene once for each vector it might have."""
        everyone, graph, places = self._among_others(own)
        return self.model(everyone, graph, places)

    def neural(self, own: Float[Tensor, "variants joined"]) -> Prediction:
        """The same without the kernel path, which hears nothing of other genes."""
        everyone, graph, places = self._among_others(own)
        return self.model.predict_neural(everyone, graph, places)[0]

    def _among_others(
        self, own: Float[Tensor, "variants joined"]
    ) -> tuple[Float[Tensor, "genes joined"], HeteroData, Tensor]:
        n_copies = len(own)
        if n_copies not in self._copies:
            layers = len(self.model.graph.layers)
            self._copies[n_copies] = copy_neighbourhood(
                self.graph, self.row, n_copies, layers=layers
            )
        graph, rows, places = self._copies[n_copies]
        everyone = self.vectors[rows].index_copy(0, places, own)
        return everyone, _in_dtype(graph, own.dtype), places


def _in_dtype(graph: HeteroData, dtype: torch.dtype) -> HeteroData:
    if dtype == torch.float32:
        return graph
    return graph.clone().apply(lambda x: x.to(dtype) if x.is_floating_point() else x)

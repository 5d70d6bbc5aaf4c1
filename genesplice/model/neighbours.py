"""What some genes hear of the graph, cut out of it: for graphs that are too large for one step.

With all neighbours taken, predictions are those of the whole graph. With at most `most` edges of a
type into each node they are an estimate, and a step costs the same however large the graph is.

Source: Hamilton et al., Inductive representation learning on large graphs, 2017, algorithm 2.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torch_geometric.data import HeteroData

__all__ = ["Neighbourhood", "cut_neighbourhood"]

INTO_GENES = (
    ("gene", "regulates", "gene"),
    ("effector", "regulates", "gene"),
    ("pathway", "contains", "gene"),
)
INTO_PATHWAYS = (("gene", "member_of", "pathway"),)


class Neighbourhood(NamedTuple):
    """A part of a bound graph.

    `genes` are the rows of its genes in the whole graph, `rows` those of the genes asked for in
    this part, in the order in which they were asked for.
    """

    graph: HeteroData
    genes: Int64[Tensor, " part"]
    rows: Int64[Tensor, " asked"]


def cut_neighbourhood(
    graph: HeteroData,
    rows: Int64[Tensor, " asked"],
    layers: int,
    *,
    most: int | None = None,
    generator: torch.Generator | None = None,
) -> Neighbourhood:
    """Cut out all that `layers` graph layers carry to the genes `rows`.

    A layer carries from regulators, effectors and pathways to a gene, and before that from all its
    genes to each of these pathways.

    Parameters
    ----------
    graph
        From `GeneGraph.bind`.
    most
        Edges of a type into one node that are taken, drawn at random; None = all.
    """
    reached = {kind: torch.zeros(graph[kind].num_nodes, dtype=torch.bool) for kind in _kinds(graph)}
    done = {kind: torch.zeros_like(mask) for kind, mask in reached.items()}
    edges = {
        key: torch.zeros(graph[key].edge_index.shape[1], dtype=torch.bool)
        for key in (*INTO_GENES, *INTO_PATHWAYS)
    }
    reached["gene"][rows] = True
    for _ in range(layers):
        for keys in (INTO_GENES, INTO_PATHWAYS):
            fresh = {key[2]: reached[key[2]] & ~done[key[2]] for key in keys}
            for kind, mask in fresh.items():
                done[kind] |= mask
            for key in keys:
                index = graph[key].edge_index
                taken = _take(index[1], fresh[key[2]], most, generator)
                edges[key] |= taken
                reached[key[0]][index[0, taken]] = True
    part = _cut(graph, reached, edges)
    return Neighbourhood(part, reached["gene"].nonzero()[:, 0], _places(reached["gene"])[rows])


def _kinds(graph: HeteroData) -> list[str]:
    return [str(kind) for kind in graph.node_types]


def _places(mask: Bool[Tensor, " nodes"]) -> Int64[Tensor, " nodes"]:
    """Where each node that is kept comes to lie."""
    return mask.cumsum(0) - 1


def _take(
    target: Int64[Tensor, " edges"],
    is_wanted: Bool[Tensor, " nodes"],
    most: int | None,
    generator: torch.Generator | None,
) -> Bool[Tensor, " edges"]:
    """Edges into wanted nodes, at most `most` into each."""
    taken = is_wanted[target]
    if most is None or not bool(taken.any()):
        return taken
    place = taken.nonzero()[:, 0]
    place = place[torch.randperm(len(place), generator=generator)]
    order = target[place].argsort(stable=True)
    place = place[order]
    _, count = target[place].unique_consecutive(return_counts=True)
    first = (count.cumsum(0) - count).repeat_interleave(count)
    kept = torch.zeros_like(taken)
    kept[place[torch.arange(len(place)) - first < most]] = True
    return kept


def _cut(
    graph: HeteroData, nodes: dict[str, Tensor], edges: dict[tuple[str, str, str], Tensor]
) -> HeteroData:
    part = HeteroData()
    for kind, mask in nodes.items():
        for name, value in graph[kind].items():
            if isinstance(value, Tensor):
                part[kind][name] = value[mask]
        part[kind].ids = [graph[kind].ids[i] for i in mask.nonzero()[:, 0].tolist()]
        part[kind].num_nodes = int(mask.sum())
    for key, mask in edges.items():
        source, target = graph[key].edge_index[:, mask]
        part[key].edge_index = torch.stack(
            [_places(nodes[key[0]])[source], _places(nodes[key[2]])[target]]
        )
        if "edge_attr" in graph[key]:
            part[key].edge_attr = graph[key].edge_attr[mask]
    return part

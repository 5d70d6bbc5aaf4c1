"""Graph attention over genes, their regulators and their pathways."""

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int8, Int64
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATv2Conv

from genesplice.config.model import ModelConfig

INTO_GENES = (
    ("gene", "regulates", "gene"),
    ("effector", "regulates", "gene"),
    ("pathway", "contains", "gene"),
)
INTO_PATHWAYS = (("gene", "member_of", "pathway"),)
MESSAGES = {
    "regulates": INTO_GENES[0],
    "effects": INTO_GENES[1],
    "contains": INTO_GENES[2],
    "member_of": INTO_PATHWAYS[0],
}
N_SIGNS = 3


Genes = Float[Tensor, "genes width"]
Edges = Float[Tensor, " edges"]
Known = Float[Tensor, "genes known"]


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
    reached = {
        str(kind): torch.zeros(graph[kind].num_nodes, dtype=torch.bool) for kind in graph.node_types
    }
    done = {kind: torch.zeros_like(mask) for kind, mask in reached.items()}
    edges = {
        key: torch.zeros(graph[key].edge_index.shape[1], dtype=torch.bool)
        for key in (*INTO_GENES, *INTO_PATHWAYS)
    }

    def draw(target: Int64[Tensor, " edges"], is_target: Bool[Tensor, " nodes"]) -> Tensor:
        """Which edges into some nodes are taken."""
        taken = is_target[target]
        if most is None or not bool(taken.any()):
            return taken
        edge = taken.nonzero()[:, 0]
        edge = edge[torch.randperm(len(edge), generator=generator)]
        edge = edge[target[edge].argsort(stable=True)]
        _, count = target[edge].unique_consecutive(return_counts=True)
        first = (count.cumsum(0) - count).repeat_interleave(count)
        kept = torch.zeros_like(taken)
        kept[edge[torch.arange(len(edge)) - first < most]] = True
        return kept

    reached["gene"][rows] = True
    for _ in range(layers):
        for keys in (INTO_GENES, INTO_PATHWAYS):
            fresh = {key[2]: reached[key[2]] & ~done[key[2]] for key in keys}
            for kind, mask in fresh.items():
                done[kind] |= mask
            for key in keys:
                index = graph[key].edge_index
                taken = draw(index[1], fresh[key[2]])
                edges[key] |= taken
                reached[key[0]][index[0, taken]] = True
    bare = copy.copy(graph)
    for kind in reached:
        del bare[kind].ids  # a list, which PyG does not cut
    part = bare.edge_subgraph(edges).subgraph(reached)
    for kind, mask in reached.items():
        part[kind].ids = list(itertools.compress(graph[kind].ids, mask.tolist()))
        part[kind].num_nodes = int(mask.sum())
    genes = reached["gene"]
    return Neighbourhood(part, genes.nonzero()[:, 0], (genes.cumsum(0) - 1)[rows])


class EdgeAttention(NamedTuple):
    """Attention on every edge of one type: mean over heads; sums to 1 over a target's edges."""

    edge_index: Int64[Tensor, "2 edges"]
    weight: Float[Tensor, " edges"]


class GraphLayer(nn.Module):
    """Pathways receive from their genes, then genes from regulators, effectors and pathways.

    Source: Brody et al., How attentive are graph attention networks?, 2022, equation 7:
    the weight of j for i is softmax_j(a . LeakyReLU(W [x_i, x_j, edge])).
    """

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__()
        width, part = sizes.width, sizes.width // sizes.heads
        options = {"heads": sizes.heads, "add_self_loops": False}

        def attention(edge_dim: int | None) -> GATv2Conv:
            layer = GATv2Conv((width, width), part, edge_dim=edge_dim, **options)
            # It would be added to genes without any edge as well.
            layer.register_parameter("bias", None)
            return layer

        self.gene_norm = nn.LayerNorm(width)
        self.source_norm = nn.LayerNorm(width)
        self.pathway_norm = nn.LayerNorm(width)
        self.member_of = attention(None)
        self.contains = attention(None)
        self.regulates = attention(N_SIGNS)
        self.effects = attention(N_SIGNS)
        self.dropout = nn.Dropout(sizes.head_dropout)

    def forward(
        self,
        gene: Genes,
        regulator: Genes,
        effector: Float[Tensor, "effectors width"],
        pathway: Float[Tensor, "pathways width"],
        graph: HeteroData,
        measured: Genes | None = None,
    ) -> tuple[Tensor, Tensor, dict[str, EdgeAttention]]:
        """Return the genes and pathways after one exchange, and the attention on each edge.

        `regulator` is added to a gene where it acts on others: its learned identity. So is
        `measured`, in messages to pathways too: a gene receives its own in no other way.
        """
        x = self.gene_norm(gene)
        sender = gene if measured is None else gene + measured
        member = x if measured is None else self.gene_norm(sender)
        source = self.source_norm(sender + regulator)
        attention: dict[str, EdgeAttention] = {}

        def message(name: str, ends: tuple[Tensor, Tensor]) -> Tensor:
            key = MESSAGES[name]
            edges, layer = graph[key], getattr(self, name)
            signs = edges.edge_attr if key[1] == "regulates" else None
            out, (index, weight) = layer(ends, edges.edge_index, signs, True)
            attention[name] = EdgeAttention(index, weight.mean(-1))
            return out

        pathway = self.pathway_norm(pathway + message("member_of", (member, pathway)))
        received = message("regulates", (source, x)) + message("effects", (effector, x))
        received = received + message("contains", (pathway, x))
        return gene + self.dropout(received), pathway, attention


class GeneGraph(nn.Module):
    """Gene vectors informed by the network.

    Regulators, effectors and pathways that were there in training have learned vectors, found
    by name; one that the model never met starts from zero, and a gene without any edge keeps
    its own vector.

    Parameters
    ----------
    measured_genes, n_measured
        Genes whose expression goes into their messages, and the numbers that describe it.
        Source: Shi et al., Masked label prediction (UniMP), 2021, section 3.2; here a gene's own
        numbers are added to its messages to others only.
    """

    measured: Tensor

    def __init__(
        self,
        sizes: ModelConfig,
        regulators: Sequence[str] = (),
        effectors: Sequence[str] = (),
        pathways: Sequence[str] = (),
        measured_genes: Sequence[str] = (),
        n_measured: int = 0,
    ) -> None:
        super().__init__()
        width = sizes.width
        named = {"gene": regulators, "effector": effectors, "pathway": pathways}
        self.known = {
            kind: {one: i + 1 for i, one in enumerate(ids)} for kind, ids in named.items()
        }
        tables = {kind: nn.Embedding(len(ids) + 1, width, 0) for kind, ids in self.known.items()}
        self.identity = nn.ModuleDict(tables)
        for table in tables.values():
            nn.init.normal_(table.weight[1:], std=0.3)
        layers = (GraphLayer(sizes) for _ in range(sizes.graph_layers))
        self.layers = nn.ModuleList(layers)
        self.measured_row = {name: i for i, name in enumerate(measured_genes)}
        if n_measured:
            self.from_measured = nn.Linear(n_measured + 1, width, bias=False)
            self.register_buffer("measured", torch.zeros(len(self.measured_row), n_measured))

    def bind(self, graph: HeteroData) -> HeteroData:
        """Return `graph` with the model's own numbering of its nodes.

        `identity` is the row of each node's learned vector, 0 where it has none; `knowledge` of a
        gene marks the known regulators, effectors and pathways that it has an edge from, and the
        sign (see `knowledge_parts`). `measured` of a gene is 1 and its expression, or all 0.
        """
        bound = graph.clone()
        for kind, known in self.known.items():
            rows = [known.get(name, 0) for name in graph[kind].ids]
            bound[kind].identity = torch.tensor(rows, dtype=torch.long)
        bound["gene"].knowledge = self._knowledge(bound)
        if self.measured_row:
            row = torch.tensor([self.measured_row.get(name, -1) for name in graph["gene"].ids])
            described = torch.cat([torch.ones(len(self.measured), 1), self.measured.cpu()], 1)
            bound["gene"].measured = described[row] * (row >= 0)[:, None]
        return bound

    @property
    def knowledge_parts(self) -> dict[str, int]:
        """Channels of `knowledge`: whether and with which sign each regulator and effector acts on
        the gene, then membership in the pathways of each collection.
        """
        parts = {"regulators": 2 * (len(self.known["gene"]) + len(self.known["effector"]))}
        for name in self.known["pathway"]:
            collection = name.split(":", 1)[0]
            parts[collection] = parts.get(collection, 0) + 1
        return parts

    def masked_knowledge(self, graph: HeteroData, masks: Mapping[str, Edges]) -> Known:
        """`knowledge` of a bound graph whose edges are weighted by their masks.

        The masks of "regulates", "effects" and "contains" edges; without a mask all edges of that
        kind count as 0. Of several edges between two nodes the mean counts.
        """
        weights = []
        for name, copies in (("regulates", 2), ("effects", 2), ("contains", 1)):
            n_edges = graph[MESSAGES[name]].edge_index.shape[1]
            mask = masks.get(name, torch.zeros(n_edges))
            count = self._table(graph, name, torch.ones_like(mask)).clamp_min(1)
            weights += [self._table(graph, name, mask) / count] * copies
        weight = torch.cat(weights, 1)
        return graph["gene"].knowledge.to(weight) * weight

    def _knowledge(self, graph: HeteroData) -> Int8[Tensor, "genes known"]:
        tables = []
        for name in ("regulates", "effects"):
            edges = graph[MESSAGES[name]]
            sign = edges.edge_attr[:, 0] - edges.edge_attr[:, 1]
            table = self._table(graph, name, sign)
            tables += [self._table(graph, name, sign + 2) > 0, table.sign()]
        n_edges = graph[MESSAGES["contains"]].edge_index.shape[1]
        tables.append(self._table(graph, "contains", torch.ones(n_edges)) > 0)
        return torch.cat([table.to(torch.int8) for table in tables], 1)

    def _table(self, graph: HeteroData, name: str, value: Edges) -> Float[Tensor, "genes nodes"]:
        """Sums over edges by gene and known node; nodes without a learned vector have no column."""
        key = MESSAGES[name]
        source, gene = graph[key].edge_index
        table = value.new_zeros(int(graph["gene"].num_nodes), len(self.known[key[0]]) + 1)
        node = graph[key[0]].identity[source]
        return table.index_put((gene, node), value, accumulate=True)[:, 1:]

    def forward(
        self, gene: Genes, graph: HeteroData
    ) -> tuple[Genes, list[dict[str, EdgeAttention]]]:
        """Pass gene vectors through every layer; `graph` comes from `bind`."""
        regulator, effector, pathway = (
            self.identity[kind](graph[kind].identity) for kind in ("gene", "effector", "pathway")
        )
        measured = self.from_measured(graph["gene"].measured) if self.measured_row else None
        attentions = []
        for layer in self.layers:
            gene, pathway, attention = layer(gene, regulator, effector, pathway, graph, measured)
            attentions.append(attention)
        return gene, attentions

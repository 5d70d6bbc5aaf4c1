"""Graph attention over genes, their regulators and their pathways."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int8, Int64
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATv2Conv

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


N_SIGNS = 3


class EdgeAttention(NamedTuple):
    """Attention on every edge of one type: mean over heads; sums to 1 over a target's edges."""

    edge_index: Int64[Tensor, "2 edges"]
    weight: Float[Tensor, " edges"]


class GraphLayer(nn.Module):
    """Pathways listen to their genes, then genes to regulators, effectors and pathways.

    Source: Brody et al., How attentive are graph attention networks?, 2022, equation 7:
    the weight of j for i is softmax_j(a . LeakyReLU(W [x_i, x_j, edge])).
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()

        def attention(edge_dim: int | None) -> GATv2Conv:
            layer = GATv2Conv(
                (width, width),
                width // heads,
                heads=heads,
                edge_dim=edge_dim,
                add_self_loops=False,
            )
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
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        gene: Float[Tensor, "genes width"],
        regulator: Float[Tensor, "genes width"],
        effector: Float[Tensor, "effectors width"],
        pathway: Float[Tensor, "pathways width"],
        graph: HeteroData,
        measured: Float[Tensor, "genes width"] | None = None,
    ) -> tuple[Tensor, Tensor, dict[str, EdgeAttention]]:
        """Return the genes and pathways after one exchange, and the attention on each edge.

        `regulator` is added to a gene where it acts on others: its learned identity. So is
        `measured`, where it tells pathways too: a gene does not hear of itself in any other way.
        """
        x = self.gene_norm(gene)
        telling = gene if measured is None else gene + measured
        member = x if measured is None else self.gene_norm(telling)
        source = self.source_norm(telling + regulator)
        attention: dict[str, EdgeAttention] = {}

        def message(name: str, layer: GATv2Conv, key: tuple, ends: tuple, edge_attr=None) -> Tensor:
            out, (index, weight) = layer(
                ends, graph[key].edge_index, edge_attr, return_attention_weights=True
            )
            attention[name] = EdgeAttention(index, weight.mean(-1))
            return out

        told = message(
            "member_of", self.member_of, ("gene", "member_of", "pathway"), (member, pathway)
        )
        pathway = self.pathway_norm(pathway + told)
        key = ("gene", "regulates", "gene")
        heard = message("regulates", self.regulates, key, (source, x), graph[key].edge_attr)
        key = ("effector", "regulates", "gene")
        heard = heard + message("effects", self.effects, key, (effector, x), graph[key].edge_attr)
        key = ("pathway", "contains", "gene")
        heard = heard + message("contains", self.contains, key, (pathway, x))
        return gene + self.dropout(heard), pathway, attention


def _table(
    n_rows: int, n_columns: int, row: Tensor, identity: Tensor, value: Tensor
) -> Float[Tensor, "rows columns"]:
    """Add up edges by row and known node; nodes without a learned vector (0) have no column."""
    table = torch.zeros(n_rows, n_columns + 1, dtype=value.dtype)
    return table.index_put((row, identity), value, accumulate=True)[:, 1:]


class GeneGraph(nn.Module):
    """Gene vectors informed by the network.

    Regulators, effectors and pathways that were there in training have learned vectors, found
    by name; one that the model never met starts from zero, and a gene without any edge keeps
    its own vector.

    Parameters
    ----------
    measured_genes, n_measured
        Genes whose expression is told, and the numbers it is told in; of others nothing is told.
        Source: Shi et al., Masked label prediction (UniMP), 2021, section 3.2; here a gene's own
        numbers are added to what it says to others only.
    """

    measured: Tensor

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        *,
        regulators: Sequence[str] = (),
        effectors: Sequence[str] = (),
        pathways: Sequence[str] = (),
        dropout: float = 0.0,
        measured_genes: Sequence[str] = (),
        n_measured: int = 0,
    ) -> None:
        super().__init__()
        self.known = {
            "gene": {name: i + 1 for i, name in enumerate(regulators)},
            "effector": {name: i + 1 for i, name in enumerate(effectors)},
            "pathway": {name: i + 1 for i, name in enumerate(pathways)},
        }
        self.identity = nn.ModuleDict(
            {
                kind: nn.Embedding(len(ids) + 1, width, padding_idx=0)
                for kind, ids in self.known.items()
            }
        )
        for table in self.identity.values():
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight[1:], std=0.3)
        self.layers = nn.ModuleList(GraphLayer(width, heads, dropout) for _ in range(layers))
        self.measured_row = {name: i for i, name in enumerate(measured_genes)}
        if n_measured:
            self.tell = nn.Linear(n_measured + 1, width, bias=False)
            self.register_buffer("measured", torch.zeros(len(self.measured_row), n_measured))

    def bind(self, graph: HeteroData) -> HeteroData:
        """Return `graph` with what the model knows its nodes by.

        `identity` is the row of each node's learned vector, 0 where it has none; `knowledge` of a
        gene says which known regulators, effectors and pathways it has an edge from, and of which
        sign (see `knowledge_parts`). `measured` of a gene is 1 and its expression, or all 0.
        """
        bound = graph.clone()
        for kind, known in self.known.items():
            rows = [known.get(name, 0) for name in graph[kind].ids]
            bound[kind].identity = torch.tensor(rows, dtype=torch.long)
        bound["gene"].knowledge = self._knowledge(bound)
        if self.measured_row:
            place = torch.tensor([self.measured_row.get(name, -1) for name in graph["gene"].ids])
            told = torch.cat([torch.ones(len(self.measured), 1), self.measured.cpu()], 1)
            bound["gene"].measured = told[place] * (place >= 0)[:, None]
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

    def masked_knowledge(
        self, graph: HeteroData, masks: Mapping[str, Float[Tensor, " edges"]]
    ) -> Float[Tensor, "genes known"]:
        """`knowledge` of a bound graph whose edges count as much as their masks say.

        The masks of "regulates", "effects" and "contains" edges; of a kind that is not given every
        edge counts nothing. Of several edges between two nodes the mean counts.
        """
        kept = []
        for kind, name, count in (("gene", "regulates", 2), ("effector", "effects", 2)):
            source, target = graph[kind, "regulates", "gene"].edge_index
            kept += [self._kept(graph, kind, target, source, masks.get(name))] * count
        pathway, gene = graph["pathway", "contains", "gene"].edge_index
        kept.append(self._kept(graph, "pathway", gene, pathway, masks.get("contains")))
        shares = torch.cat(kept, 1)
        return graph["gene"].knowledge.to(shares) * shares

    def _kept(
        self, graph: HeteroData, kind: str, gene: Tensor, node: Tensor, mask: Tensor | None
    ) -> Float[Tensor, "genes known"]:
        mask = torch.zeros(len(gene)) if mask is None else mask
        where = int(graph["gene"].num_nodes), len(self.known[kind]), gene
        identity = graph[kind].identity[node]
        return _table(*where, identity, mask) / _table(
            *where, identity, torch.ones_like(mask)
        ).clamp_min(1)

    def _knowledge(self, graph: HeteroData) -> Int8[Tensor, "genes known"]:
        n_genes = int(graph["gene"].num_nodes)
        tables = []
        for kind in ("gene", "effector"):
            edges, count = graph[kind, "regulates", "gene"], len(self.known[kind])
            source, target = edges.edge_index
            sign = edges.edge_attr[:, 0] - edges.edge_attr[:, 1]
            acts = _table(n_genes, count, target, graph[kind].identity[source], sign + 2)
            total = _table(n_genes, count, target, graph[kind].identity[source], sign)
            tables += [(acts > 0).to(torch.int8), total.sign().to(torch.int8)]
        pathway, gene = graph["pathway", "contains", "gene"].edge_index
        count = len(self.known["pathway"])
        ones = torch.ones(len(gene))
        member = _table(n_genes, count, gene, graph["pathway"].identity[pathway], ones)
        tables.append((member > 0).to(torch.int8))
        return torch.cat(tables, 1)

    def forward(
        self, gene: Float[Tensor, "genes width"], graph: HeteroData
    ) -> tuple[Float[Tensor, "genes width"], list[dict[str, EdgeAttention]]]:
        """Pass gene vectors through every layer; `graph` comes from `bind`."""
        regulator, effector, pathway = (
            self.identity[kind](graph[kind].identity) for kind in ("gene", "effector", "pathway")
        )
        measured = self.tell(graph["gene"].measured) if self.measured_row else None
        seen = []
        for layer in self.layers:
            gene, pathway, attention = layer(gene, regulator, effector, pathway, graph, measured)
            seen.append(attention)
        return gene, seen

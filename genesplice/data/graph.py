"""Network and gene sets as one heterogeneous graph for torch-geometric."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch_geometric.data import HeteroData


def make_graph(
    genes: pd.DataFrame,
    network: pd.DataFrame,
    gene_sets: Mapping[str, Sequence[str]],
    collections: Sequence[str] = ("KEGG", "COG"),
    *,
    smallest_set: int = 1,
    largest_set: int | None = None,
) -> HeteroData:
    """Build the graph that `genesplice.model.graph` reads.

    Nodes: `gene` (every row of `genes`, in that order), `effector` (regulators that are no genes:
    metabolites, complexes) and `pathway` (gene sets whose name starts with one of `collections`
    and a colon, and that have `smallest_set` to `largest_set` genes). Edges: (gene | effector)
    regulates gene, with `edge_attr` one-hot over activates, represses, both or unknown; gene
    member_of pathway, and pathway contains gene.
    Each node type carries its names as `ids`. Empty networks and sets give empty edges.
    """
    row = {gene_id: i for i, gene_id in enumerate(genes["gene_id"])}
    most = len(genes) if largest_set is None else largest_set
    pathways = sorted(
        name
        for name, members in gene_sets.items()
        if name.split(":", 1)[0] in collections
        and smallest_set <= sum(gene_id in row for gene_id in members) <= most
    )
    known = network[network["target"].isin(row)]
    by_gene = known["source"].isin(row)
    effectors = sorted(set(known.loc[~by_gene, "source"]))
    effector_row = {name: i for i, name in enumerate(effectors)}

    graph = HeteroData()
    for kind, ids in (
        ("gene", list(genes["gene_id"])),
        ("effector", effectors),
        ("pathway", pathways),
    ):
        graph[kind].ids = ids
        graph[kind].num_nodes = len(ids)
    for kind, part, source_row in (
        ("gene", known[by_gene], row),
        ("effector", known[~by_gene], effector_row),
    ):
        edges = graph[kind, "regulates", "gene"]
        edges.edge_index = _edge_index(
            part["source"].map(source_row).tolist(), part["target"].map(row).tolist()
        )
        sign = part["sign"].to_numpy(dtype=np.int64)
        edges.edge_attr = torch.from_numpy(
            np.stack([sign > 0, sign < 0, sign == 0], axis=1).astype(np.float32)
        )
    pairs = [
        (row[gene_id], i)
        for i, name in enumerate(pathways)
        for gene_id in gene_sets[name]
        if gene_id in row
    ]
    member, pathway = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    graph["gene", "member_of", "pathway"].edge_index = _edge_index(member, pathway)
    graph["pathway", "contains", "gene"].edge_index = _edge_index(pathway, member)
    return graph


def _edge_index(source: Sequence[int], target: Sequence[int]) -> torch.Tensor:
    pair = np.stack([np.asarray(source, np.int64), np.asarray(target, np.int64)])
    return torch.from_numpy(pair)

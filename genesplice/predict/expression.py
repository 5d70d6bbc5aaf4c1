"""Run a model over a bundle: gene embeddings (cached), predictions, attention over the graph."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch_geometric.data import HeteroData

from genesplice.config import ModelConfig
from genesplice.data.bundle import Bundle
from genesplice.data.windows import (
    Window,
    annotation_track,
    group_windows,
    make_batch,
    make_graph,
    tile_windows,
)
from genesplice.model.genesplice import GeneSplice, PretrainingModel
from genesplice.model.graph import MESSAGES, cut_neighbourhood
from genesplice.model.heads import Prediction
from genesplice.model.sequence import SequenceEncoder
from genesplice.predict.models import VECTORS, Models
from genesplice.predict.pretrained import embed_promoters
from genesplice.runtime import atomic_file, side_by_side

GENE_COLUMNS = ["contig", "start", "end", "strand", "tss", "exons"]
"""Of a gene, what its window and its annotation channel depend on."""


def embedding_digest(model: GeneSplice, bundle: Bundle, core_bp: int, flank_bp: int) -> str:
    """Digest of encoder, sizes, genome, genes and windows: the same digest, the same embeddings."""
    digest = hashlib.sha256()
    sizes = {"model": dataclasses.asdict(model.config), "core_bp": core_bp, "flank_bp": flank_bp}
    contigs = [contig._asdict() for contig in bundle.genome.contigs]
    digest.update(json.dumps([sizes, contigs], sort_keys=True, default=str).encode())
    digest.update(np.ascontiguousarray(bundle.genome.tokens).data)
    if model.config.relatives and bundle.genome.columns is not None:
        digest.update(np.ascontiguousarray(bundle.genome.columns).data)
    genes = bundle.genes[GENE_COLUMNS].assign(exons=bundle.genes["exons"].map(tuple))
    digest.update(pd.util.hash_pandas_object(genes).to_numpy().tobytes())
    for name, weight in sorted(model.encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:24]


def cached_embeddings(folder: Path, digest: str) -> Float[Tensor, "genes features"] | None:
    """The embeddings in `folder` under this digest; None where nothing whole is there."""
    try:
        return load_file(folder / f"{digest}.safetensors")[VECTORS]
    except (FileNotFoundError, SafetensorError):
        return None


def cache_embeddings(folder: Path, digest: str, vectors: Float[Tensor, "genes features"]) -> None:
    """Write embeddings to `folder` under their digest, where they are not there yet."""
    target = folder / f"{digest}.safetensors"
    if not target.exists():
        with atomic_file(target) as partial:
            save_file({VECTORS: vectors.cpu().contiguous()}, partial)


def bundle_graph(model: GeneSplice, bundle: Bundle) -> HeteroData:
    """The bundle's network and gene sets, bound to the nodes that `model` knows."""
    return model.graph.bind(pathway_graph(bundle, model.config))


def pathway_graph(bundle: Bundle, sizes: ModelConfig) -> HeteroData:
    """The bundle's network and the gene sets that `sizes` asks for."""
    return make_graph(
        bundle.genes,
        bundle.network,
        bundle.gene_sets,
        sizes.gene_set_collections,
        smallest_set=sizes.smallest_set,
        largest_set=sizes.largest_set,
    )


@torch.no_grad()
def encode_genes(
    model: GeneSplice,
    bundle: Bundle,
    *,
    core_bp: int = 131_072,
    flank_bp: int = 8_192,
    batch_windows: int = 1,
) -> Float[Tensor, "genes features"]:
    """Gene features of every row of `bundle.genes`, in one pass over the genome.

    A model of `load_model` takes them from its embedding cache, where that has them for the same
    weights, genome and windows. It is left in the mode (training or not) that it came in.
    """
    device = next(model.parameters()).device
    if model.cache_folder is not None:
        digest = embedding_digest(model, bundle, core_bp, flank_bp)
        cached = cached_embeddings(model.cache_folder, digest)
        if cached is not None:
            return cached.to(device)
    was_training = model.training
    model.eval()
    track = annotation_track(bundle.genome, bundle.genes)
    windows = tile_windows(bundle.genome, core_bp, flank_bp)
    vectors = torch.zeros(len(bundle.genes), len(model.readout.centre), device=device)

    def read(group: list[Window]) -> None:
        batch = make_batch(bundle.genome, group, bundle.genes, track)
        if len(batch.gene):
            tokens, phase, gene, *interval = (part.to(device) for part in batch)
            vectors[gene] = model.gene_features(tokens, phase, *interval)

    side_by_side(read, group_windows(windows, batch_windows), device)
    model.train(was_training)
    return vectors


def embed_genes(
    model: GeneSplice | PretrainingModel | SequenceEncoder, bundle: Bundle, **windows: Any
) -> pd.DataFrame:
    """One embedding a gene, by `gene_id`: what the model takes from the sequence.

    Of a `GeneSplice` its gene features, in one pass over the genome (`encode_genes`; the graph
    comes later); of an encoder, alone or with its pre-training heads, the mean over each promoter
    (`embed_promoters`). `windows` is passed on.
    """
    if isinstance(model, GeneSplice):
        values = encode_genes(model, bundle, **windows).cpu().numpy()
        return pd.DataFrame(values, index=pd.Index(bundle.genes["gene_id"], name="gene_id"))
    encoder = model.encoder if isinstance(model, PretrainingModel) else model
    return embed_promoters(encoder, bundle, **windows)


@torch.no_grad()
def predict_expression(
    model: GeneSplice | Models,
    bundle: Bundle,
    *,
    vectors: Float[Tensor, "genes features"] | None = None,
    genes_at_once: int | None = None,
    genes: Sequence[str] | pd.Index | None = None,
    **windows: Any,
) -> pd.DataFrame:
    """Genes x conditions in log2(TPM + 1), for every annotated gene, measured or not, or `genes`.

    `vectors` are those of `encode_genes` where they are at hand; else `windows` is passed on to it.
    `genes_at_once` are read from their own part of the graph, for graphs that do not fit: the
    numbers are the same to rounding.

    Of several models a measured gene has the mean of those that held it out, every other gene the
    mean of all.
    """
    if isinstance(model, Models):
        assert vectors is None, "each model has vectors of its own"
        each = [
            predict_expression(one, bundle, genes_at_once=genes_at_once, genes=genes, **windows)
            for one in model.levels
        ]
        values = np.mean(each, axis=0)
        row = pd.Index(each[0].index)
        for gene_id, members in model.held_out_by(bundle).items():
            if gene_id not in row:
                continue
            at = row.get_loc(gene_id)
            values[at] = np.mean([each[i].to_numpy()[at] for i in members], axis=0)
        return pd.DataFrame(values, index=row, columns=each[0].columns)
    was_training = model.training
    if vectors is None:
        vectors = encode_genes(model, bundle, **windows)
    model.eval()
    graph = bundle_graph(model, bundle).to(str(vectors.device))
    annotated = pd.Index(bundle.genes["gene_id"], name="gene_id")
    wanted = annotated if genes is None else pd.Index(genes, name="gene_id")
    rows = torch.from_numpy(annotated.get_indexer(wanted)).to(vectors.device)
    if genes_at_once is None:
        prediction = model(vectors, graph, rows)
    else:
        parts = []
        for some in rows.split(genes_at_once):
            part = cut_neighbourhood(graph, some, len(model.graph.layers))
            parts.append(model(vectors[part.genes], part.graph, part.rows))
        prediction = Prediction(*(torch.cat(values) for values in zip(*parts, strict=True)))
    values = model.expression_head.expression(prediction).cpu().numpy()
    model.train(was_training)
    return pd.DataFrame(values, index=wanted, columns=model.conditions)


def prediction_table(
    predicted: pd.DataFrame, observed: pd.DataFrame, fold: pd.Series, *, model: str, seed: int
) -> pd.DataFrame:
    """The rows of `predictions.parquet` for the genes of `predicted`.

    Parameters
    ----------
    predicted, observed
        Genes x conditions, log2(TPM + 1); `observed` may hold more genes, in any order.
    fold
        Held-out fold of each gene.
    """
    aligned = observed.loc[predicted.index, predicted.columns]
    n_genes, n_conditions = predicted.shape
    return pd.DataFrame(
        {
            "gene_id": np.repeat(predicted.index.to_numpy(), n_conditions),
            "condition": np.tile(predicted.columns.to_numpy(), n_genes),
            "fold": np.repeat(fold.loc[predicted.index].to_numpy(), n_conditions),
            "model": model,
            "seed": seed,
            "observed": aligned.to_numpy(dtype=np.float32).ravel(),
            "predicted": predicted.to_numpy(dtype=np.float32).ravel(),
        }
    )


@torch.no_grad()
def attention_edges(model: GeneSplice, bundle: Bundle, **windows: Any) -> pd.DataFrame:
    """Every edge of the graph with the attention that the last graph layer gives it.

    Columns source, target, kind (regulates, effects, member_of, contains), sign (+1, -1, or 0
    where it is both, unknown or has no meaning) and weight: the share of the target's attention
    within its kind, averaged over heads. Empty for a model without graph layers.
    """
    graph = bundle_graph(model, bundle)
    _, layers = model.predict(encode_genes(model, bundle, **windows), graph)
    tables = [edge_table(graph, kind, layers[-1][kind].weight) for kind in MESSAGES if layers]
    columns = ["source", "target", "kind", "sign", "value"]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    return table.rename(columns={"value": "weight"})


def edge_table(graph: HeteroData, kind: str, values: Float[Tensor, " edges"]) -> pd.DataFrame:
    """Source, target, kind and sign of every edge of one kind, and a value for each."""
    source, _, target = key = MESSAGES[kind]
    edges, sign = graph[key], np.zeros(len(values), np.int64)
    if "edge_attr" in edges:
        sign = (edges.edge_attr[:, 0] - edges.edge_attr[:, 1]).long().numpy()
    rows, columns = edges.edge_index.numpy()
    ends = {
        "source": np.array(graph[source].ids, object)[rows],
        "target": np.array(graph[target].ids, object)[columns],
    }
    return pd.DataFrame({**ends, "kind": kind, "sign": sign, "value": values.double().numpy()})


def gene_means(predictions: pd.DataFrame, bundle: Bundle, model: str) -> pd.DataFrame:
    """Observed and predicted level of every held-out gene: gene_id, fold, name and both."""
    mine = predictions[predictions["model"] == model]
    mean = mine.groupby(["gene_id", "fold"], observed=True)[["observed", "predicted"]].mean()
    mean = mean.reset_index()
    return mean.assign(name=mean["gene_id"].map(bundle.names))


def regulator_edges(
    model: GeneSplice, bundle: Bundle, genes: Sequence[str], *, count: int = 12
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Nodes and edges, with their attention, of the `count` genes with most regulators.

    Nodes are indexed by id, with name, label, kind ("regulator" or "gene") and value (the
    measured level); edges are those of `attention_edges` that regulate them.
    """
    edges = attention_edges(model, bundle)
    edges = edges[(edges["kind"] == "regulates") & edges["target"].isin(list(genes))]
    edges = edges[edges["source"] != edges["target"]]
    edges = edges[edges["target"].isin(edges["target"].value_counts().index[:count])]
    nodes = pd.DataFrame(index=pd.Index(sorted({*edges["source"], *edges["target"]}), name="id"))
    nodes["name"] = nodes.index.map(bundle.names)
    is_regulator = nodes.index.isin(edges["source"])
    nodes["kind"] = np.where(is_regulator, "regulator", "gene")
    nodes["value"] = nodes.index.map(bundle.observed.mean(axis=1))
    return nodes.assign(label=nodes["name"]), edges

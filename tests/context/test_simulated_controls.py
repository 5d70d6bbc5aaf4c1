"""What was planted is found by a model that has learned it, and not by one with other weights."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from tiny_models import make_tiny

from genesplice.data.simulate import make_bundle
from genesplice.explain.faithfulness import randomised
from genesplice.explain.pathways import (
    PROFILE,
    GraphOutput,
    edge_attribution,
    influence,
    pathway_influence,
)
from genesplice.predict.expression import bundle_graph
from genesplice.predict.gene_output import Explainer

N_DECOYS = 6


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    """160 genes, 2 kb each."""
    out = tmp_path_factory.mktemp("controls") / "planted"
    return make_bundle(out, seed=3, n_genes=160, genome_bp=320_000, n_conditions=12)


@pytest.fixture(scope="module")
def network(control):
    """The control with as many edges again from regulators that do nothing, and decoy pathways."""
    generator = np.random.default_rng(1)
    genes = list(control.observed.index)
    planted = control.network
    decoys = pd.DataFrame(
        {
            "source": np.repeat(genes[2:4], len(planted) // 2),
            "target": generator.choice(genes[4:], 2 * (len(planted) // 2), replace=False),
            "sign": generator.choice([1, -1], 2 * (len(planted) // 2)).astype(np.int8),
            "kind": "regulates",
            "provenance": "decoy",
        }
    )
    size = len(control.gene_sets["KEGG:ko00001"])
    sets = {
        f"KEGG:decoy{i}": tuple(sorted(generator.choice(genes, size, replace=False)))
        for i in range(N_DECOYS)
    }
    return dataclasses.replace(
        control,
        network=pd.concat([planted, decoys], ignore_index=True),
        gene_sets=control.gene_sets | sets,
    )


@pytest.fixture(scope="module")
def listener(network):
    """A graph that has learned the profiles; the genes' own vectors say nothing of them."""
    model = make_tiny(network, "model.width=32", "model.base_width=0")  # not about bases
    # One vector for all: from zero, the head's norm would make any message as large as any other.
    gene_features = len(model.readout.centre)
    same = 3 * torch.randn(1, gene_features, generator=torch.Generator().manual_seed(0))
    vectors = same.repeat(len(network.genes), 1)
    graph = bundle_graph(model, network)
    place = network.genes["gene_id"].reset_index(drop=True)
    rows = torch.tensor([int(place[place == g].index[0]) for g in network.observed.index])
    observed = network.observed.to_numpy(np.float32)
    above = observed - observed.mean(1, keepdims=True)
    residual = torch.from_numpy(above - above.mean(0))
    parameters = [*model.graph.parameters(), *model.expression_head.parameters()]
    order = torch.from_numpy(np.random.default_rng(5).permutation(len(rows)))
    train, test = order[:110], order[110:]
    optimiser = torch.optim.AdamW(parameters, 5e-3, weight_decay=0.1)
    for _ in range(120):
        optimiser.zero_grad()
        loss = (model(vectors, graph, rows[train]).residual - residual[train]).square().mean()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.5 * float(residual.var())
    return model, vectors, rows, [network.observed.index[int(i)] for i in test]


def edge_auroc(model, network, vectors, rows):
    output = GraphOutput(model, bundle_graph(model, network), vectors, rows, PROFILE)
    table = edge_attribution(output, steps=8).table
    table = table[table["kind"] == "regulates"].merge(
        network.network[["source", "target", "provenance"]], on=["source", "target"]
    )
    return roc_auc_score(table["provenance"] == "planted", table["value"].abs())


def test_planted_edges_stand_out(listener, network):
    model, vectors, rows, _ = listener
    assert edge_auroc(model, network, vectors, rows) >= 0.9
    drawn = [edge_auroc(randomised(model, seed), network, vectors, rows) for seed in range(8)]
    assert abs(np.mean(drawn) - 0.5) < 0.2


@pytest.mark.slow
def test_the_planted_pathway_ranks_first(listener, network):
    model, vectors, rows, held_out = listener
    explainer = Explainer(model, network, vectors=vectors)
    table = pathway_influence(explainer, held_out, steps=4, n_random=10)
    first = table.iloc[0]
    assert first["id"] == "KEGG:ko00001"
    assert first["mean"] > 2 * first["null_high"]
    assert first["p"] == pytest.approx(1 / 11)
    ranks = []
    for seed in range(8):
        other = randomised(model, seed)
        output = GraphOutput(other, bundle_graph(other, network), vectors, rows, PROFILE)
        found = influence(edge_attribution(output, steps=4).table, "pathway")
        ranks.append(found["id"].tolist().index("KEGG:ko00001"))
    # Of eight pathways; by chance the mean of eight ranks is 3.5 with a deviation of 0.8.
    assert 1.5 < np.mean(ranks) < 5.5

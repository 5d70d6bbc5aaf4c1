"""What the graph adds is shared among its edges; random sets and rewired networks are the band."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import SMALL, make_tiny, make_vectors

import genesplice as gs
from genesplice.api import edge_attributions
from genesplice.baselines.ridge import fit_kernel_path
from genesplice.errors import InputError, WorkError
from genesplice.explain.mutagenesis import mutate, path_of_change
from genesplice.explain.pathways import (
    PROFILE,
    GraphOutput,
    _chance_above,
    _share_out,
    edge_attribution,
    explain_edges,
    influence,
    pathway_influence,
)
from genesplice.predict.expression import bundle_graph
from genesplice.predict.gene_output import Explainer
from genesplice.training.finetuning import make_model


@pytest.fixture(scope="module")
def model(tiny_bundle):
    return make_tiny(tiny_bundle)


@pytest.fixture(scope="module")
def vectors(model, tiny_bundle):
    return make_vectors(model, tiny_bundle)


@pytest.fixture(scope="module")
def explainer(model, tiny_bundle, vectors):
    return Explainer(model, tiny_bundle, window_bp=2048, vectors=vectors)


def receivers(bundle):
    """Two members of the planted pathway and two targets of planted regulators."""
    truth = bundle.manifest["truth"]
    return [*truth["pathway"][:2], *list(truth["targets"])[:2]]


def make_output(model, bundle, vectors, genes=None, target="level"):
    rows = torch.tensor([int(gene[1:]) for gene in genes or receivers(bundle)])
    return GraphOutput(model, bundle_graph(model, bundle), vectors, rows, target)


def test_full_masks_are_the_model_and_empty_ones_a_model_without_edges(model, tiny_bundle, vectors):
    bare = dataclasses.replace(tiny_bundle, network=tiny_bundle.network.iloc[:0], gene_sets={})
    with torch.no_grad():
        for target, read in (
            ("level", lambda p: p.level.sum()),
            ("condition_3", lambda p: p.residual[:, 3].sum()),
            (PROFILE, lambda p: p.residual.norm(dim=1).sum()),
        ):
            output = make_output(model, tiny_bundle, vectors, target=target)
            full = output.full_masks()
            plain = model(vectors, bundle_graph(model, tiny_bundle), output.rows)
            assert float(output(*full)) == pytest.approx(float(read(plain)), abs=1e-5)
            if target == PROFILE:
                continue
            alone = model(vectors, bundle_graph(model, bare), output.rows)
            empty = tuple(torch.zeros_like(mask) for mask in full)
            assert float(output(*empty)) == pytest.approx(float(read(alone)), abs=1e-5)


@pytest.mark.parametrize("target", ["level", "condition_3", PROFILE])
def test_shares_sum_to_what_the_graph_adds(model, tiny_bundle, vectors, target):
    found = edge_attribution(make_output(model, tiny_bundle, vectors, target=target), steps=32)
    assert found.relative_delta < 0.02
    total = found.table["value"].sum()
    assert total == pytest.approx(found.output - found.without_graph + found.delta, abs=1e-6)


@pytest.mark.parametrize("kinds", [("contains",), ("regulates", "effects"), ("member_of",)])
def test_edges_that_go_together_change_nothing_for_the_others(model, tiny_bundle, vectors, kinds):
    rows = torch.tensor([int(gene[1:]) for gene in receivers(tiny_bundle)])
    place = model, bundle_graph(model, tiny_bundle), vectors, rows
    some = GraphOutput(*place, kinds=kinds)
    sizes = [mask.shape[1] for mask in some.full_masks()]
    there = [kind for kind in kinds if kind in some.kinds]
    assert sum(size > 1 for size in sizes) <= len(there) < len(sizes)
    shares, every = (_share_out(one, 4) for one in (some, GraphOutput(*place)))
    assert set(shares["kind"]) == set(there)
    expected = every[every["kind"].isin(kinds)].reset_index(drop=True)
    pd.testing.assert_frame_equal(shares, expected, atol=1e-6)
    with torch.no_grad():
        assert float(some(*some.full_masks())) == pytest.approx(
            float(model(vectors, place[1], rows).level.sum()), abs=1e-5
        )


def test_an_edge_has_the_slope_of_its_mask(model, tiny_bundle, vectors):
    output = make_output(model, tiny_bundle, vectors).double()
    output.graph.apply(lambda x: x.double() if x.is_floating_point() else x)
    full = tuple(mask.double().requires_grad_() for mask in output.full_masks())
    slopes = torch.autograd.grad(output(*full).sum(), full)
    at = output.kinds.index("contains")
    for edge in (0, 5, 11):
        moved = [mask.detach().clone() for mask in full]
        moved[at][0, edge] += 1e-5
        up = float(output(*moved).detach())
        moved[at][0, edge] -= 2e-5
        down = float(output(*moved).detach())
        assert float(slopes[at][0, edge]) == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-9)


def test_the_model_is_left_as_it_was(model, tiny_bundle, vectors):
    graph = bundle_graph(model, tiny_bundle)
    with torch.no_grad():
        before = model(vectors, graph).level
        edge_attribution(make_output(model, tiny_bundle, vectors), steps=2)
        torch.testing.assert_close(model(vectors, graph).level, before, rtol=0, atol=0)


def test_edges_into_other_genes_get_nothing_from_one_exchange(model, tiny_bundle, vectors):
    table = edge_attribution(make_output(model, tiny_bundle, vectors), steps=2).table
    into = table[table["kind"].isin(["regulates", "contains"])]
    elsewhere = into[~into["target"].isin(receivers(tiny_bundle))]
    assert len(elsewhere)
    assert (elsewhere["value"] == 0).all()
    signs = table[table["kind"] == "regulates"].merge(
        tiny_bundle.network, on=["source", "target"], suffixes=("", "_told")
    )
    assert len(signs) == len(tiny_bundle.network)
    assert (signs["sign"] == signs["sign_told"]).all()


def test_influence_is_counted_by_hand(model, tiny_bundle, vectors):
    genes = list(tiny_bundle.genes["gene_id"])
    found = edge_attribution(make_output(model, tiny_bundle, vectors, genes), steps=2)
    table = influence(found.table, "pathway")
    assert set(table["id"]) == {"KEGG:ko00001", "COG:Decoy", "GO:0000001"}
    for row in table.itertuples():
        edges = found.table[(found.table["kind"] == "contains") & (found.table["source"] == row.id)]
        assert row.n_edges == len(tiny_bundle.gene_sets[row.id]) == len(edges)
        assert row.value == pytest.approx(edges["value"].sum())
        assert row.mean == pytest.approx(edges["value"].mean())
        assert row.size == pytest.approx(np.abs(edges["value"]).mean())
    assert table["size"].is_monotonic_decreasing
    few = influence(found.table, "pathway", tiny_bundle.gene_sets["COG:Decoy"][:3])
    assert few.set_index("id").loc["COG:Decoy", "n_edges"] == 3
    assert set(influence(found.table, "regulator")["id"]) == {"g0000", "g0001"}
    assert influence(found.table, "gene")["n_edges"].sum() == table["n_edges"].sum()


@pytest.mark.slow
def test_bands_are_those_of_random_graphs(explainer, tiny_bundle):
    genes = list(tiny_bundle.genes["gene_id"])
    for kind in ("pathway", "regulator"):
        table = pathway_influence(explainer, genes, kind, steps=2, n_random=3, seed=5)
        assert (table["null_low"] <= table["null_mean"]).all()
        assert (table["null_mean"] <= table["null_high"]).all()
        assert set(table["p"] * 4) <= {1.0, 2.0, 3.0, 4.0}
        again = pathway_influence(explainer, genes, kind, steps=2, n_random=3, seed=5)
        pd.testing.assert_frame_equal(table, again)


def test_genes_without_an_edge_of_the_kind_have_no_rows(explainer, tiny_bundle):
    lonely = dataclasses.replace(tiny_bundle, network=tiny_bundle.network.iloc[:0])
    alone = Explainer(explainer.model, lonely, window_bp=2048, vectors=explainer.vectors)
    genes = list(tiny_bundle.genes["gene_id"])
    options = {"steps": 2, "n_random": 2}
    none = pathway_influence(alone, genes, "regulator", **options)
    some = pathway_influence(alone, genes, "pathway", **options)
    assert none.empty
    assert len(some)
    pd.testing.assert_series_equal(none.dtypes, some.dtypes)


def test_a_graph_without_edges_adds_nothing(explainer, tiny_bundle):
    bare = dataclasses.replace(tiny_bundle, network=tiny_bundle.network.iloc[:0], gene_sets={})
    alone = Explainer(explainer.model, bare, window_bp=2048, vectors=explainer.vectors)
    found, some = (
        explain_edges(one, receivers(tiny_bundle), steps=2) for one in (alone, explainer)
    )
    assert found.table.empty
    pd.testing.assert_index_equal(found.table.columns, some.table.columns)
    assert np.isnan(found.relative_delta)
    assert found.completeness == "The graph adds nothing to these genes."
    assert some.completeness == f"Of what the graph adds, {some.relative_delta:.1%} is missing."
    nodes, edges, said = edge_attributions(alone, receivers(tiny_bundle))
    assert (len(nodes), len(edges), said) == (0, 0, found.completeness)


def test_the_condition_mean_is_that_of_the_training_genes(explainer, tiny_bundle):
    """Held-out genes that all do the same in one condition have that in their profile."""
    genes = list(tiny_bundle.genes["gene_id"][:6])
    changed = tiny_bundle.expression.copy()
    changed.X = np.array(changed.X)
    rows = np.flatnonzero(~changed.var_names.isin(genes))
    changed.X[:, rows] += np.random.default_rng(0).normal(size=(changed.n_obs, len(rows)))
    other = dataclasses.replace(tiny_bundle, expression=changed)
    options = {"steps": 2, "n_random": 1}
    same = Explainer(explainer.model, other, window_bp=2048, vectors=explainer.vectors)
    pd.testing.assert_frame_equal(
        pathway_influence(explainer, genes, **options), pathway_influence(same, genes, **options)
    )


def test_where_a_gene_is_deleted_nothing_was_observed(explainer, tiny_bundle):
    genes = list(tiny_bundle.genes["gene_id"][:6])
    changed = tiny_bundle.expression.copy()
    changed.X = np.array(changed.X)
    changed.X[:2, changed.var_names.get_loc(genes[0])] = np.nan
    other = dataclasses.replace(tiny_bundle, expression=changed)
    assert other.observed.isna().to_numpy().any()
    gaps = Explainer(explainer.model, other, window_bp=2048, vectors=explainer.vectors)
    assert np.isfinite(pathway_influence(gaps, genes, steps=2, n_random=1)["mean"]).all()


def test_edges_of_genes_by_name(explainer, model, tiny_bundle, vectors):
    genes = receivers(tiny_bundle)
    expected = edge_attribution(make_output(model, tiny_bundle, vectors, genes), steps=2)
    named = tiny_bundle.genes.set_index("gene_id").loc[genes, "name"]
    found = explain_edges(explainer, list(named), steps=2)
    key = ["kind", "source", "target"]
    near, every = (one.table.groupby(key)["value"].sum() for one in (found, expected))
    np.testing.assert_allclose(near, every[near.index], atol=1e-5)
    # What is left out is too far to add anything.
    assert not every.drop(near.index).any()
    assert len(near) < len(every)
    assert found.output == pytest.approx(expected.output, abs=1e-5)


def test_gene_sets_beside_genes_are_called_by_their_names(explainer, tiny_bundle):
    named = dataclasses.replace(tiny_bundle, set_names={"KEGG:ko00001": "Light of the moon"})
    other = Explainer(explainer.model, named, window_bp=2048, vectors=explainer.vectors)
    nodes, edges, _ = edge_attributions(other, receivers(tiny_bundle))
    assert "contains" in set(edges["kind"])
    expected = tiny_bundle.names.reindex(nodes.index).fillna({"KEGG:ko00001": "Light of the moon"})
    assert nodes["name"].dropna().to_dict() == expected.dropna().to_dict()
    assert "Light of the moon" in set(nodes["name"])


def test_what_cannot_be_explained_is_refused(model, tiny_bundle, vectors, explainer):
    with pytest.raises(InputError, match="target 'moon', expected level, profile"):
        make_output(model, tiny_bundle, vectors, target="moon")
    flat = make_tiny(tiny_bundle, "model.graph_layers=0")
    with pytest.raises(WorkError, match="no graph in this model"):
        edge_attribution(make_output(flat, tiny_bundle, vectors))
    with pytest.raises(InputError, match="0 measured genes and 20 random"):
        pathway_influence(explainer, [], "pathway")


def test_the_share_above_a_band_by_chance_is_that_of_the_quantile():
    generator = np.random.default_rng(0)
    for n_graphs, expected in ((8, 0.123), (50, 0.042)):
        found = _chance_above(generator.normal(size=(n_graphs, 4000)))
        # One of n against the others: the band has one graph less.
        assert found == pytest.approx(expected, rel=0.25)
    assert _chance_above(np.zeros((1, 5))) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("mix", [0.0, 0.6])
def test_a_changed_base_is_followed_to_the_level(tiny_bundle, vectors, mix):
    gene = receivers(tiny_bundle)[0]
    model = make_tiny(tiny_bundle) if mix == 0 else make_tiny_with_kernel(tiny_bundle, vectors, mix)
    explainer = Explainer(model, tiny_bundle, window_bp=2048, vectors=vectors)
    exact = mutate(explainer, gene, upstream_bp=64, downstream_bp=64)
    found = path_of_change(explainer, gene, steps=128)
    assert found.gene_id == gene
    # The strongest of all changes, and its very effect, which the parts share.
    largest = np.nanmax(np.abs(exact.effects))
    assert abs(found.after - found.before) == pytest.approx(largest, rel=1e-3)
    assert found.table["value"].sum() == pytest.approx(found.after - found.before, rel=2e-2)
    assert found.delta == pytest.approx(
        found.table["value"].sum() - found.after + found.before, abs=1e-9
    )
    # One part for each node that it has an edge from, the pathway by its name.
    graph = bundle_graph(model, tiny_bundle)
    row = tiny_bundle.genes["gene_id"].tolist().index(gene)
    into = sum(int((i[1] == row).sum()) for k, i in graph.edge_index_dict.items() if k[2] == "gene")
    counts = found.table["part"].value_counts()
    assert counts["embedding"] == 1
    assert counts.drop(["embedding", "kernel"], errors="ignore").sum() == into > 0
    assert counts.get("kernel", 0) == (mix > 0)
    if mix:
        # All by the kernel path, as it is without the other.
        model.mix.fill_(1.0)
        alone = path_of_change(explainer, gene, parsed(found.change)).table
        of_kernel = alone.set_index("part")["value"]["kernel"]
        assert alone["value"].sum() == pytest.approx(of_kernel)
        kernel = found.table.set_index("part")["value"]["kernel"]
        assert kernel == pytest.approx(mix * of_kernel, rel=1e-4)


def parsed(change: str) -> tuple[int, str]:
    what, where = change.split(" at ")
    return int(where.removesuffix(" bp")), what[-1]


def make_tiny_with_kernel(bundle, vectors, mix):
    config = gs.override(gs.load_preset("quick"), [*SMALL])
    torch.manual_seed(0)
    genes = bundle.observed.index
    model = make_model(bundle, config, n_support=len(genes)).eval()
    observed = torch.from_numpy(bundle.observed.to_numpy(np.float32))
    rows = torch.from_numpy(pd.Index(bundle.genes["gene_id"]).get_indexer(genes))
    model.expression_head.fit(observed)
    model.readout.fit(vectors[rows])
    blocks = bundle.block_of.loc[genes].to_numpy()
    fit_kernel_path(model, bundle_graph(model, bundle), vectors, (rows, observed), blocks)
    model.mix.fill_(mix)
    return model


def test_a_path_needs_one_graph_layer_and_a_base(tiny_bundle, vectors, explainer):
    with pytest.raises(InputError, match=r"X at -5 bp, expected A, C, G or T within the window"):
        path_of_change(explainer, "g0003", (-5, "X"))
    with pytest.raises(InputError, match=r"\+5000 bp"):
        path_of_change(explainer, "g0003", (5000, "A"))
    deep = make_tiny(tiny_bundle, "model.graph_layers=2")
    with pytest.raises(WorkError, match="2 graph layers"):
        path_of_change(Explainer(deep, tiny_bundle, window_bp=2048, vectors=vectors), "g0003")

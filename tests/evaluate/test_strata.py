"""Strata of held-out genes: which gene is where, and that their numbers are those of its genes."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from genesplice.evaluate.metrics import fold_profiles, score
from genesplice.evaluate.reliability import STRATUM_METRICS, gene_strata, strata_metrics

FAMILIES = [
    ["nearest_train_below_0.1", "nearest_train_0.1_to_0.5", "nearest_train_from_0.5"],
    ["in_gene_set", "in_no_gene_set"],
    ["in_network", "not_in_network"],
    ["operon_first", "operon_inner"],
]


@pytest.fixture
def changed(tiny_bundle):
    """Three genes on + and three on - in two operons; a relative, a copy; a set and an edge."""
    genes = tiny_bundle.genes
    chosen = [genes.index[genes["strand"] == strand][:3] for strand in "+-"]
    ids = [genes.loc[rows].sort_values("start")["gene_id"].tolist() for rows in chosen]
    operon = {gene: f"operon{i}" for i, part in enumerate(ids) for gene in part}
    splits = tiny_bundle.splits.assign(
        operon=[operon.get(gene, f"alone-{gene}") for gene in tiny_bundle.splits["gene_id"]]
    )
    first, second = ids[0][:2]
    near = {first: 0.5, second: 0.1}
    similarity = tiny_bundle.similarity.assign(
        similarity=[near.get(gene, 0.099) for gene in tiny_bundle.similarity["gene_id"]]
    )
    bundle = dataclasses.replace(
        tiny_bundle,
        splits=splits,
        similarity=similarity,
        gene_sets={"GO:x": (first, "unheard of")},
        network=tiny_bundle.network.iloc[:1].assign(source="cAMP", target=second),
    )
    return bundle, ids


def test_every_gene_is_where_it_belongs(changed):
    bundle, (plus, minus) = changed
    strata = gene_strata(bundle)
    assert list(strata["nearest_train_from_0.5"]) == [plus[0]]
    assert list(strata["nearest_train_0.1_to_0.5"]) == [plus[1]]
    assert list(strata["in_gene_set"]) == [plus[0]]
    assert list(strata["in_network"]) == [plus[1]]
    # An operon on the other strand is read from its right end.
    assert set(strata["operon_inner"]) == {*plus[1:], *minus[:2]}


def test_an_operon_across_the_origin_begins_before_it(tiny_bundle):
    contig = next(one for one in tiny_bundle.genome.contigs if one.is_circular)
    genes = tiny_bundle.genes[tiny_bundle.genes["contig"] == contig.name]
    first, last = genes.iloc[0]["gene_id"], genes.iloc[-1]["gene_id"]
    for strand, wanted in (("+", last), ("-", first)):
        operon = tiny_bundle.splits["operon"].where(
            ~tiny_bundle.splits["gene_id"].isin([first, last]), "across"
        )
        table = tiny_bundle.genes.copy()
        table.loc[table["gene_id"].isin([first, last]), "strand"] = strand
        bundle = dataclasses.replace(
            tiny_bundle, genes=table, splits=tiny_bundle.splits.assign(operon=operon)
        )
        both = {first, last} & set(gene_strata(bundle)["operon_first"])
        assert both == {wanted} & set(bundle.expression.var_names)


@pytest.mark.parametrize("strand", ["+", "-"])
def test_the_annotated_tss_decides_which_gene_is_first(changed, strand):
    """A gene inside of the other one whose transcript begins before it, on either strand."""
    bundle, operons = changed
    outer, inner = operons["+-".index(strand)][:2]
    genes = bundle.genes.set_index("gene_id", drop=False)
    step = -1 if strand == "+" else 1
    genes.loc[outer, ["start", "end", "tss"]] = 300, 900, 300 if strand == "+" else 899
    genes.loc[inner, ["start", "end", "tss"]] = 400, 800, genes.loc[outer, "tss"] + 30 * step
    splits = bundle.splits.assign(operon=bundle.splits["gene_id"])
    splits.loc[splits["gene_id"].isin([outer, inner]), "operon"] = "both"
    bundle = dataclasses.replace(bundle, genes=genes.reset_index(drop=True), splits=splits)
    assert list(gene_strata(bundle)["operon_inner"]) == [outer]


def test_families_hold_every_measured_gene_once(tiny_bundle):
    strata = gene_strata(tiny_bundle)
    assert sorted(strata) == sorted(name for family in FAMILIES for name in family)
    for family in FAMILIES:
        genes = np.concatenate([strata[name] for name in family])
        assert sorted(genes) == sorted(tiny_bundle.expression.var_names)


def test_numbers_are_those_of_the_stratum(tiny_bundle):
    observed = tiny_bundle.observed
    noise = np.random.default_rng(0).normal(0, 1, observed.shape)
    frame = pd.DataFrame(
        {
            "gene_id": np.repeat(observed.index.to_numpy(), observed.shape[1]),
            "condition": np.tile(observed.columns.to_numpy(), len(observed)),
            "model": "m",
            "seed": 3,
            "observed": observed.to_numpy().ravel(),
            "predicted": (observed.to_numpy() + noise).ravel(),
        }
    )
    frame["fold"] = frame["gene_id"].map(tiny_bundle.fold_of)
    blocks = tiny_bundle.splits.set_index("gene_id")["block"]
    profile = fold_profiles(observed, tiny_bundle.fold_of)
    strata = {
        "half": observed.index[::2],
        "too few": observed.index[:9],
        "nobody": pd.Index([], dtype=object),
    }
    found = strata_metrics(frame, strata, blocks, train_profile=profile, n_bootstrap=50)
    wanted = [
        metric._replace(split="held_out:half")
        for metric in score(
            frame, blocks, genes=strata["half"], train_profile=profile, n_bootstrap=50
        )
        if metric.fold is None and metric.metric in STRATUM_METRICS
    ]
    assert found == wanted
    assert [metric.n for metric in found] == [len(strata["half"])] * 2

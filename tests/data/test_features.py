"""Regions against a loop over bases."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from tiny_genomes import make_genes, make_genome

from genesplice.data.features import (
    PROMOTER_DISTANCE_BP,
    principal_basis,
    region_masks,
    standardise,
    upstream_mask,
)
from genesplice.data.splits import first_of_operon

ROWS = [
    ("a1", "c0", 300, 600, "+", "protein_coding"),
    ("a2", "c0", 620, 920, "+", "protein_coding"),
    ("b1", "c0", 880, 1300, "-", "protein_coding"),
    ("t", "c0", 1500, 1576, "+", "tRNA"),
    ("odd", "c0", 1700, 1800, "+", "protein_coding"),
    ("n", "c0", 1900, 1950, "-", "ncRNA"),
    ("wrap", "c0", 2890, 3040, "+", "protein_coding"),
    ("x", "c1", 30, 90, "+", "rRNA"),
    ("y", "c1", 200, 260, "-", "protein_coding"),
]
OPERONS = {"a1": "A", "a2": "A", "b1": "B", "t": "T", "odd": "O", "n": "N", "wrap": "W",
           "x": "X", "y": "X"}  # fmt: skip


@pytest.fixture
def control(tiny_bundle):
    genes = make_genes(*ROWS)
    splits = pd.DataFrame({"gene_id": list(OPERONS), "operon": list(OPERONS.values())})
    genome = make_genome(3000, 400, circular=("c0",))
    return dataclasses.replace(tiny_bundle, genome=genome, genes=genes, splits=splits)


def covered(control):
    """For every base of all contigs, the genes over it."""
    found = [[] for _ in range(control.genome.length)]
    for gene in control.genes.itertuples():
        contig = control.genome.contig(gene.contig)
        for place in range(gene.start, gene.end):
            found[contig.offset + place % contig.length].append(gene)
    return found


def before(control, gene):
    """Bases at promoter distance before a gene, over all contigs."""
    contig = control.genome.contig(gene.contig)
    step = -1 if gene.strand == "+" else 1
    for distance in range(PROMOTER_DISTANCE_BP[0], PROMOTER_DISTANCE_BP[1] + 1):
        place = gene.tss + step * distance
        if contig.is_circular:
            yield contig.offset + place % contig.length
        elif 0 <= place < contig.length:
            yield contig.offset + place


def test_each_base_is_where_the_annotation_says(control):
    over = covered(control)
    first = {"a1", "b1", "t", "odd", "n", "wrap", "x", "y"}
    upstream = {
        p for g in control.genes.itertuples() if g.gene_id in first for p in before(control, g)
    }
    masks = region_masks(control)
    assert set(masks) == {"coding", "intergenic", "rna", "promoter"}
    for place, genes in enumerate(over):
        framed = {g.strand for g in genes
                  if g.biotype == "protein_coding" and (g.end - g.start) % 3 == 0}  # fmt: skip
        is_coding = bool(framed) and len({g.strand for g in genes}) == 1
        assert masks["coding"][place] == is_coding, place
        assert masks["intergenic"][place] == (not genes), place
        assert masks["rna"][place] == any(g.biotype in ("tRNA", "rRNA") for g in genes), place
        assert masks["promoter"][place] == (not genes and place in upstream), place
    assert all(mask.any() for mask in masks.values())


def test_the_first_of_an_operon_is_the_farthest_upstream(control):
    found = first_of_operon(control.genome, control.genes, control.splits)
    assert list(found.index) == list(control.genes["gene_id"])
    # x and y are of one operon by name only: they lie on two strands.
    assert list(found[~found].index) == ["a2"]
    flipped = control.genes.assign(strand=control.genes["strand"].map({"+": "-", "-": "+"}))
    flipped["tss"] = np.where(flipped["strand"] == "+", flipped["start"], flipped["end"] - 1)
    found = first_of_operon(control.genome, flipped, control.splits)
    assert list(found[~found].index) == ["a1"]


@pytest.mark.parametrize(("strand", "first"), [("+", "end"), ("-", "start")])
def test_an_operon_may_run_across_the_origin(control, strand, first):
    genes = make_genes(
        ("end", "c0", 2700, 2800, strand, "protein_coding"),
        ("start", "c0", 10, 200, strand, "protein_coding"),
    )
    splits = pd.DataFrame({"gene_id": ["end", "start"], "operon": "one"})
    found = first_of_operon(control.genome, genes, splits)
    assert list(found[found].index) == [first]


def test_upstream_ends_with_a_linear_contig_and_goes_round_a_circle(control):
    genes = control.genes.set_index("gene_id", drop=False)
    for gene_id, expected in (("x", 30), ("a1", 200), ("y", 140)):
        gene = genes.loc[[gene_id]]
        mask = upstream_mask(control.genome, gene, 1, 200)
        strand = int(gene["strand"].iloc[0] == "-")
        assert mask[strand].sum() == expected
        assert not mask[1 - strand].any()
    near = make_genes(("o", "c0", 50, 80, "+", "protein_coding"))
    mask = upstream_mask(control.genome, near, 20, 100)[0]
    assert sorted(np.flatnonzero(mask)) == [*range(31), *range(2950, 3000)]


def test_components_are_those_of_most_variance():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(50, 8)) @ generator.normal(size=(8, 8))
    values[:, 3] = 2.0
    scaled = standardise(values, np.ones(50, bool))
    centre, basis = principal_basis(values, 8)
    np.testing.assert_allclose((values - centre) @ basis, scaled, atol=1e-12)
    centre, basis = principal_basis(values, 3)
    left, singular, _ = np.linalg.svd(scaled, full_matrices=False)
    found = np.abs((values - centre) @ basis)
    np.testing.assert_allclose(found, np.abs(left[:, :3] * singular[:3]), atol=1e-10)

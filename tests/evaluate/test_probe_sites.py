"""Every drawn site is what its label says, looked up base by base in the annotation."""

import dataclasses

import numpy as np
import pytest
from tiny_genomes import with_operons

from genesplice.data.features import PROMOTER_DISTANCE_BP
from genesplice.data.genome import decode
from genesplice.data.splits import first_of_operon
from genesplice.evaluate.probes import REPLICATION, SITE_COLUMNS, TASKS, make_probe_sites

ORIGIN, TERMINUS = 90_000, 30_000


@pytest.fixture(scope="module")
def control(tiny_bundle):
    return with_operons(tiny_bundle)


@pytest.fixture
def replication(monkeypatch):
    monkeypatch.setitem(REPLICATION, "chr", (ORIGIN, TERMINUS))


@pytest.fixture
def sites(control, replication):
    return make_probe_sites(control, np.random.default_rng(0), n_sites=120)


def genes_over(control, position):
    table = control.genes
    length = control.genome.length
    return table[(position - table["start"]) % length < table["end"] - table["start"]]


def only(control, site):
    """The one gene over a site."""
    genes = genes_over(control, site.position)
    assert len(genes) == 1, site
    return next(genes.itertuples())


def rows(sites, task, label):
    found = list(sites[(sites["task"] == task) & (sites["label"] == label)].itertuples())
    assert found
    return found


def test_there_are_sites_of_every_task_and_label(sites):
    assert tuple(sites.columns) == SITE_COLUMNS
    counts = sites.groupby(["task", "label"]).size()
    for task, labels in TASKS.items():
        for label in labels:
            assert counts[task, label] >= 10, (task, label)
    assert (counts <= 70).all()
    for task in ("coding", "strand", "start_codon"):
        assert len(set(counts[task])) == 1


def test_coding_strand_and_frame(control, sites):
    for site in rows(sites, "coding", "coding"):
        assert only(control, site).biotype == "protein_coding"
    for site in rows(sites, "coding", "intergenic"):
        assert genes_over(control, site.position).empty
    for label, same in (("sense", True), ("antisense", False)):
        for site in rows(sites, "strand", label):
            assert (only(control, site).strand == site.strand) == same
    for phase in (1, 2, 3):
        for site in rows(sites, "frame", str(phase)):
            gene = only(control, site)
            first = gene.start if gene.strand == "+" else gene.end - 1
            assert abs(site.position - first) % 3 + 1 == phase
            assert (gene.end - gene.start) % 3 == 0
            assert gene.strand == site.strand


def codon(control, site):
    if site.strand == "+":
        return decode(control.genome.fetch("chr", site.position, site.position + 3))
    return decode(control.genome.fetch("chr", site.position - 2, site.position + 1, "-"))


def test_start_codons_are_starts_and_others_look_like_them(control, sites):
    starts = {(g.tss % control.genome.length, g.strand) for g in control.genes.itertuples()}
    words = {}
    for label in ("start", "other"):
        found = rows(sites, "start_codon", label)
        words[label] = sorted(codon(control, site) for site in found)
        assert all(word in ("ATG", "GTG", "TTG") for word in words[label])
        for site in found:
            assert ((site.position, site.strand) in starts) == (label == "start")
    assert words["start"] == words["other"]


def test_promoters_lie_before_operons(control, sites):
    first = control.genes[first_of_operon(control.genome, control.genes, control.splits).to_numpy()]
    for site in rows(sites, "promoter", "promoter"):
        assert genes_over(control, site.position).empty
        own = first[first["strand"] == site.strand]
        ahead = (own["tss"] - site.position) * (1 if site.strand == "+" else -1)
        distance = ahead % control.genome.length
        assert distance.between(*PROMOTER_DISTANCE_BP).any()
    for site in rows(sites, "promoter", "other"):
        ahead = (first["tss"] - site.position) * np.where(first["strand"] == "+", 1, -1)
        is_near = (ahead % control.genome.length).between(1, 300).any()
        assert not genes_over(control, site.position).empty or not is_near


def test_operons_rna_and_replichores(control, sites):
    is_first = first_of_operon(control.genome, control.genes, control.splits)
    tss = control.genes.set_index("gene_id")["tss"] % control.genome.length
    for label, wanted in (("first", True), ("inner", False)):
        for site in rows(sites, "operon", label):
            gene = only(control, site)
            assert tss[gene.gene_id] == site.position
            assert is_first[gene.gene_id] == wanted
            assert (gene.strand, gene.biotype) == (site.strand, "protein_coding")
    for label, kinds in (("rna", {"tRNA", "rRNA"}), ("protein", {"protein_coding"})):
        for site in rows(sites, "rna", label):
            gene = only(control, site)
            assert gene.biotype in kinds
            assert gene.strand == site.strand
    for label, strands in (("leading", "+-"), ("lagging", "-+")):
        for site in rows(sites, "replichore", label):
            # + leads from the origin at 90 kb over 120 kb = 0 to the terminus at 30 kb.
            is_ahead = (site.position - ORIGIN) % control.genome.length < 60_000
            assert site.strand == strands[0 if is_ahead else 1]


def test_sites_lie_in_their_block_and_fold(control, sites):
    blocks = control.blocks.set_index("block")
    for site in sites.itertuples():
        block = blocks.loc[site.block]
        assert block["fold"] == site.fold
        place = (site.position - block["start"]) % control.genome.length
        assert 128 <= place < block["end"] - block["start"] - 128
    assert sites["fold"].nunique() == control.n_folds


def test_the_draw_depends_on_the_generator_only(control, sites):
    again, other = (
        make_probe_sites(control, np.random.default_rng(seed), n_sites=120) for seed in (0, 1)
    )
    assert again.equals(sites)
    assert not other.equals(sites)


def test_starts_are_those_of_coding_sequences_not_of_transcripts(control):
    genes = control.genes
    later = [
        (gene.start + 9, gene.end) if gene.strand == "+" else (gene.start, gene.end - 9)
        for gene in genes.itertuples()
    ]
    shifted = dataclasses.replace(control, genes=genes.assign(exons=later))
    made = make_probe_sites(shifted, np.random.default_rng(0))
    found = {(one.position, one.strand) for one in made[made["task"] == "operon"].itertuples()}
    size = control.genome.length
    firsts = {((g.tss + 9 if g.strand == "+" else g.tss - 9) % size, g.strand)
              for g in genes[genes["biotype"] == "protein_coding"].itertuples()}  # fmt: skip
    assert found
    assert found <= firsts


def test_tasks_without_sites_are_left_out(tiny_bundle):
    found = make_probe_sites(tiny_bundle, np.random.default_rng(0), n_sites=40)
    assert "replichore" not in set(found["task"])
    # No RNA genes, and every gene is alone in its operon.
    assert {"rna", "operon"}.isdisjoint(found["task"])
    assert {"coding", "strand", "frame"} <= set(found["task"])
    bare = dataclasses.replace(tiny_bundle, genes=tiny_bundle.genes[:0])
    assert make_probe_sites(bare, np.random.default_rng(0), n_sites=40).empty

"""Measured transcription starts: both strands, tables and BED, and what does not fit the genes."""

import pytest
from tiny_files import gene_table, random_genome, refusal, write

from genesplice.data.annotation import Annotation
from genesplice.data.measurements import place_tss

GENOME = random_genome(3000, 2000)
GENES = gene_table(
    GENOME, (100, 400, "+"), (600, 900, "-"), (1200, 1500, "+"), (500, 800, "-", "c1")
)
NAMES = {gene: gene for gene in GENES["gene_id"]} | {"laci": "g0"}
READING = Annotation(GENES, NAMES, {"chr1": "c0"}, (), {}, [], frozenset())


def place(tmp_path, text, name="t.tsv", reading=READING, genome=GENOME):
    genes, notes = place_tss(write(tmp_path / name, text), reading, genome)
    return genes.set_index("gene_id")["tss"].to_dict(), notes


AT = {"g0": 60, "g1": 940, "g2": 1200, "g3": 799}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.tsv", "gene\tposition\nLacI\t61\ng1\t941\n"),
        ("t.csv", "locus_tag,tss,strand,contig\ng0,61,+,chr1\ng1,941,reverse,c0\n"),
        ("t.csv", "gene;pos;strand\ng0;61;forward\ng0;51;forward\ng1;941;-1\n"),
        ("t.bed", "track x\nchr1\t60\t61\tg0\t0\t+\nc0\t940\t941\tg1\t.\t-\n"),
        ("t.bed", "c0\t60\t75\tg0\t0\t+\nc0\t925\t941\tg1\t.\t-\n"),
    ],
)
def test_sites_are_placed_on_both_strands_and_other_genes_keep_theirs(tmp_path, name, text):
    found, notes = place(tmp_path, text, name)
    assert found == AT
    assert notes[0].startswith(f"transcription starts of 2 of 4 genes from {name}")
    assert ("1 further sites" in notes[-1]) == ("51" in text)


def test_sites_across_the_origin_of_a_circle_are_upstream(tmp_path):
    circle = random_genome(3000, 2000, circular=True)
    assert place(tmp_path, "gene\tposition\ng0\t2990\n", genome=circle)[0]["g0"] == 2989
    assert refusal(place_tss, tmp_path / "t.tsv", READING, GENOME).found.endswith("behind its end")


@pytest.mark.parametrize(
    ("name", "text", "line", "found", "expected"),
    [
        ("t.tsv", "gene\tposition\ng0\t61.5\n", 2, "position '61.5'", "a whole number"),
        ("t.tsv", "gene\tposition\tstrand\ng0\t61\t-\n", 2, "'g0' on c0, strand -", "strand +"),
        ("t.tsv", "gene\tposition\tcontig\ng0\t61\tc1\n", 2, "'g0' on c1, strand +", "c0"),
        ("t.tsv", "gene\tposition\ng0\t0\n", 2, "position 0 of gene 'g0'", "1 to 3000"),
        ("t.tsv", "gene\tposition\ng0\t401\n", 2, "'g0' behind its end", "upstream"),
        ("t.tsv", "gene\tposition\ng1\t600\n", 2, "'g1' behind its end", "upstream"),
        ("t.tsv", "gene\tposition\nx\t9\ny\t9\ng0\t9\n", None, "2 of 3 names", "such as g0"),
        ("t.tsv", "gene\tend\ng0\t9\n", 1, "no column 'position'", "pos or tss"),
        ("t.bed", "c0\t60\t61\tg0\n", 1, "4 tab-separated columns", "BED"),
        ("t.bed", "# c0\n", None, "no site", "BED"),
    ],
)
def test_sites_that_do_not_fit_the_genes_are_refused(tmp_path, name, text, line, found, expected):
    error = refusal(place_tss, write(tmp_path / name, text), READING, GENOME)
    assert (error.line, found in error.found, expected in error.expected) == (line, True, True)

"""Genes from GFF3 and GTF: coordinates, strands, circles, contig names, and what is refused."""

import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_files import gene_table, random_genome, refusal, write

from genesplice.data.annotation import GENE_COLUMNS, make_genes, parse_annotation
from genesplice.data.genome import Contig, Genome, decode, encode
from genesplice.errors import InputError

LENGTH = 1000
GENOME = random_genome(LENGTH)
CIRCLE = random_genome(LENGTH, circular=True)
REGION = f"c0\tx\tregion\t1\t{LENGTH}\t.\t.\t.\tID=c0;Is_circular=true\n"


def line(start, end, strand="+", attributes="ID=g", kind="gene", contig="c0") -> str:
    return f"{contig}\tsource\t{kind}\t{start}\t{end}\t.\t{strand}\t.\t{attributes}\n"


def parse(tmp_path, text, genome=GENOME, name="a.gff3"):
    return parse_annotation(write(tmp_path / name, text), genome)


def only(genes):
    assert len(genes) == 1
    return next(genes.itertuples())


# --- coordinates ---


def test_one_based_closed_becomes_zero_based_half_open(tmp_path):
    genome = Genome(encode("CCATGAAATAGC"), (Contig("c0", 0, 12, False),))
    gene = only(parse(tmp_path, line(3, 11), genome).genes)
    assert (gene.start, gene.end, gene.tss) == (2, 11, 2)
    assert decode(genome.fetch("c0", gene.start, gene.end)) == "ATGAAATAG"


def test_tss_of_a_gene_on_minus_is_its_last_base_on_the_contig(tmp_path):
    genome = Genome(encode("CCCTATTTCATC"), (Contig("c0", 0, 12, False),))
    gene = only(parse(tmp_path, line(3, 11, "-"), genome).genes)
    assert (gene.start, gene.end, gene.tss) == (2, 11, 10)
    assert decode(genome.fetch("c0", gene.start, gene.end, "-")) == "ATGAAATAG"
    assert decode(genome.fetch("c0", gene.tss - 2, gene.tss + 1, "-")) == "ATG"


def test_genes_are_sorted_by_the_genomes_contigs_then_by_start(tmp_path):
    genome = random_genome(500, 500)
    text = (
        line(10, 20, attributes="ID=late", contig="c1")
        + line(300, 400, attributes="ID=second")
        + line(5, 50, attributes="ID=first")
        + line(5, 10, attributes="ID=overlaps")
    )
    genes = parse(tmp_path, text, genome).genes
    assert genes["gene_id"].tolist() == ["overlaps", "first", "second", "late"]
    assert tuple(genes.columns) == GENE_COLUMNS
    assert genes.index.tolist() == [0, 1, 2, 3]


# --- circles ---


@pytest.mark.parametrize(("strand", "tss"), [("+", 990), ("-", 1030 - 1)])
@pytest.mark.parametrize(
    "text",
    [
        line(991, 1030, "{0}"),
        line(991, 1000, "{0}", "ID=g;part=1") + line(1, 30, "{0}", "ID=g;part=2"),
        line(1, 30, "{0}", "ID=g;part=2") + line(991, 1000, "{0}", "ID=g;part=1"),
    ],
)
def test_gene_across_the_origin_ends_beyond_the_contig(tmp_path, text, strand, tss):
    reading = parse(tmp_path, REGION + text.format(strand))
    gene = only(reading.genes)
    assert (gene.start, gene.end, gene.tss, gene.strand) == (990, 1030, tss, strand)
    assert reading.circular == ("c0",)
    around = CIRCLE.fetch("c0", gene.start, gene.end)
    assert np.array_equal(around, np.concatenate([CIRCLE.tokens[990:], CIRCLE.tokens[:30]]))


def test_circle_may_be_declared_after_its_genes_or_by_the_genome(tmp_path):
    for text, genome in ((line(991, 1030) + REGION, GENOME), (line(991, 1030), CIRCLE)):
        assert only(parse(tmp_path, text, genome).genes).end == 1030


def test_parts_that_are_near_each_other_span_the_stretch_between_them(tmp_path):
    text = line(100, 120, "+", "ID=g;part=1") + line(180, 200, "+", "ID=g;part=2")
    for genome in (GENOME, CIRCLE):
        gene = only(parse(tmp_path, text, genome).genes)
        assert (gene.start, gene.end) == (99, 200)


def test_part_on_another_strand_is_left_out_and_told(tmp_path):
    text = line(100, 120, "-", "ID=g;part=1") + line(180, 300, "+", "ID=g;part=2")
    reading = parse(tmp_path, text)
    gene = only(reading.genes)
    assert (gene.start, gene.end, gene.strand) == (179, 300, "+")
    assert any("gene g" in note and "left out" in note for note in reading.notes)


# --- names ---


def test_id_is_locus_tag_before_gene_id_before_id(tmp_path):
    text = (
        line(1, 9, attributes="ID=gene-x1;locus_tag=b0001;gene=thrL;gene_synonym=ECK0001,JW4367")
        + line(11, 19, attributes="ID=gene:ENSG1;Name=abc")
        + line(21, 29, attributes="ID=plain")
    )
    reading = parse(tmp_path, text)
    assert reading.genes["gene_id"].tolist() == ["b0001", "ENSG1", "plain"]
    assert reading.genes["name"].tolist() == ["thrL", "abc", "plain"]
    for alias in ("b0001", "thrl", "eck0001", "jw4367", "gene-x1"):
        assert reading.aliases[alias] == "b0001"


def test_name_that_two_genes_claim_is_no_alias_but_ids_win_over_synonyms(tmp_path):
    text = (
        line(1, 9, attributes="ID=a;gene=same;gene_synonym=b")
        + line(11, 19, attributes="ID=b;gene=same")
        + line(21, 29, attributes="ID=c.2")
    )
    aliases = parse(tmp_path, text).aliases
    assert "same" not in aliases
    assert aliases["b"] == "b"
    assert aliases["c"] == aliases["c.2"] == "c.2"


def test_biotype_is_what_the_file_says_else_coding_where_there_is_a_cds(tmp_path):
    text = (
        line(1, 9, attributes="ID=a;gene_biotype=tRNA")
        + line(11, 19, attributes="ID=b")
        + line(11, 19, attributes="Parent=b", kind="CDS")
        + line(21, 29, attributes="ID=c")
        + line(31, 39, attributes="ID=d", kind="pseudogene")
        + line(41, 49, attributes="ID=e", kind="ncRNA_gene")
        + line(51, 59, attributes="ID=no", kind="exon")
    )
    genes = parse(tmp_path, text).genes.set_index("gene_id")
    expected = {"a": "tRNA", "b": "protein_coding", "c": "gene", "d": "pseudogene", "e": "gene"}
    assert genes["biotype"].to_dict() == expected


def test_transcribed_length_counts_each_base_of_the_exons_once(tmp_path):
    text = (
        line(1, 400, attributes="ID=gene1")
        + line(1, 400, attributes="ID=t1;Parent=gene1", kind="mRNA")
        + line(1, 400, attributes="ID=t2;Parent=gene1", kind="mRNA")
        + line(1, 100, attributes="Parent=t1", kind="exon")
        + line(51, 150, attributes="Parent=t2", kind="exon")
        + line(301, 400, attributes="Parent=t2", kind="exon")
        + line(60, 90, attributes="Parent=t1", kind="CDS")
        + line(501, 600, attributes="ID=gene2")
        + line(501, 560, attributes="Parent=gene2", kind="CDS")
        + line(701, 800, attributes="ID=gene3")
    )
    assert parse(tmp_path, text).lengths == {"gene1": 250, "gene2": 60, "gene3": 100}


def test_without_gene_lines_genes_are_the_spans_of_their_transcripts(tmp_path):
    text = line(101, 130, attributes='gene_id "a"', kind="CDS")
    text += line(161, 190, attributes='gene_id "a"', kind="CDS")
    reading = parse(tmp_path, text, name="a.gtf")
    assert only(reading.genes)[1:8] == ("a", "a", "c0", 100, 190, "+", 100)
    assert reading.lengths == {"a": 60}
    assert reading.notes == ["no gene lines: genes are the spans of their transcripts"]


# --- as other tools write it ---


def ids(reading):
    return reading.genes["gene_id"].tolist()


def test_rna_features_without_a_gene_are_genes(tmp_path):
    """Prokka and Bakta write no gene lines, or none for RNA."""
    prokka = line(1, 60, attributes="ID=x_1;locus_tag=x_1;gene=dnaA", kind="CDS")
    rna = line(101, 180, "-", "ID=x_2;locus_tag=x_2", kind="tRNA")
    rna += line(201, 300, attributes="ID=x_3;locus_tag=x_3", kind="tmRNA")
    gene = line(1, 60, attributes="ID=gene-x_1;locus_tag=x_1;gene=dnaA")
    for text in (prokka + rna, gene + prokka + rna):
        genes = parse(tmp_path, text).genes
        assert genes["gene_id"].tolist() == ["x_1", "x_2", "x_3"]
        assert genes["biotype"].tolist() == ["protein_coding", "tRNA", "tmRNA"]
        assert genes["name"].tolist() == ["dnaA", "x_2", "x_3"]
        assert genes["tss"].tolist() == [0, 179, 200]


def test_coding_sequences_with_an_id_only_are_genes_and_products_no_names(tmp_path):
    text = "".join(
        line(a, b, attributes=f"ID={name};Name=hypothetical protein", kind="CDS")
        for name, a, b in (("r1", 1, 60), ("r2", 101, 160), ("r2", 181, 240))
    )
    reading = parse(tmp_path, text)
    assert reading.genes["name"].tolist() == ids(reading) == ["r1", "r2"]
    assert reading.lengths == {"r1": 60, "r2": 120}


def test_transcripts_without_a_gene_are_genes_with_their_exons(tmp_path):
    text = line(1, 300, attributes="ID=t1", kind="mRNA")
    text += line(1, 90, attributes="ID=e1;Parent=t1", kind="exon")
    text += line(201, 300, attributes="ID=e2;Parent=t1", kind="exon")
    reading = parse(tmp_path, text)
    assert (ids(reading), reading.lengths) == (["t1"], {"t1": 190})
    assert reading.notes[1:] == ["no CDS lines: 0 of 1 genes read as coding sequences"]


def test_ninth_column_may_be_the_bare_id(tmp_path):
    """BRAKER and AUGUSTUS write a GTF in which genes have no attributes."""
    text = line(1, 60, attributes="g1") + line(1, 60, attributes="g1.t1", kind="transcript")
    text += line(1, 60, attributes='transcript_id "g1.t1"; gene_id "g1";', kind="CDS")
    reading = parse(tmp_path, text, name="braker.gtf")
    assert ids(reading) == ["g1"]
    assert reading.genes["biotype"].tolist() == ["protein_coding"]


@pytest.mark.slow
def test_a_line_takes_little_memory_whatever_its_attributes_say(tmp_path):
    said = "; ".join(f'key_{i} "value_{i}_%d"' for i in range(12))
    lines = [line(1, 90_000, attributes='gene_id "g"')]
    for i in range(4000):
        own = f'gene_id "g"; transcript_id "t{i // 50}"; exon_number "{i}"; '
        own += said.replace("%d", str(i))
        lines += [line(9 * i + 1, 9 * i + 6, attributes=own, kind=kind) for kind in ("exon", "CDS")]
    path = write(tmp_path / "a.gtf", "".join(lines))
    genome = random_genome(90_000)
    tracemalloc.start()
    try:
        reading = parse_annotation(path, genome)
        highest = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reading.lengths == {"g": 24_000}
    assert highest < 600 * len(lines)


def test_one_gene_id_at_two_loci_is_the_longest_and_told(tmp_path):
    genome = random_genome(60_000)
    rows = [(1, 900, 1), (500, 1400, 2), (54_001, 54_300, 3)]
    text = "".join(
        line(a, b, attributes=f'gene_id "g"; transcript_id "g.{n}";', kind=kind)
        for a, b, n in rows
        for kind in ("transcript", "exon")
    )
    reading = parse(tmp_path, text, genome, "u.gtf")
    assert only(reading.genes)[4:6] == (0, 1400)
    assert "gene g: at 2 loci, all but the longest left out" in reading.notes


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path, end):
    text = "\ufeff##gff-version 3\n" + REGION + line(3, 11)
    assert ids(parse(tmp_path, text.replace("\n", end))) == ["g"]


def test_only_the_bare_directive_ends_the_annotation(tmp_path):
    comment = "##FASTA sequence of the protein\n##MKV\n"
    assert ids(parse(tmp_path, line(3, 11) + comment + line(21, 29, attributes="ID=h"))) == [
        "g", "h",
    ]  # fmt: skip
    assert ids(parse(tmp_path, line(3, 11) + "##FASTA\n>c0\nACGT\n")) == ["g"]


@pytest.mark.parametrize("bad", [{"strand": "?"}, {"strand": "."}, {"contig": "scaffold_9"}])
def test_genes_without_a_position_are_left_out_and_named_while_they_are_few(tmp_path, bad):
    good = "".join(line(10 * i + 1, 10 * i + 9, attributes=f"ID=g{i}") for i in range(3))
    reading = parse(tmp_path, good + line(500, 600, attributes="ID=odd", **bad))
    assert ids(reading) == ["g0", "g1", "g2"]
    assert any("left out" in note and "odd" in note for note in reading.notes)
    with pytest.raises(InputError, match=r"a\.gff3:\d+: found (a gene on strand|contig)"):
        parse(tmp_path, line(1, 9) + line(500, 600, attributes="ID=odd", **bad))


@pytest.mark.parametrize("name", ["c0", "C0.2"])
@pytest.mark.parametrize("text", ["##sequence-region {} 1 988\n", "{}" + REGION[2:]])
def test_annotation_of_another_assembly_is_refused_with_both_lengths(tmp_path, name, text):
    text = text.format(name).replace("1000", "988") + line(3, 11, contig=name)
    error = refusal(parse_annotation, write(tmp_path / "a.gff", text), GENOME)
    assert (error.line, error.found) == (1, f"contig {name!r} of 988 bp")
    assert error.expected.startswith("1000 bp, the length of c0 in the genome")


# --- contigs under another name ---


@pytest.mark.parametrize(
    ("written", "in_genome"),
    [
        ("chr1", "1"),
        ("1", "chr1"),
        ("NC_1.2", "NC_1"),
        ("nc_1", "NC_1.3"),
        ("chrM", "MT"),
        ("NC_1.2", "gi|556|ref|NC_1.2|"),
    ],
)
def test_contig_names_are_matched_across_conventions(tmp_path, written, in_genome):
    genome = Genome(
        GENOME.tokens, (Contig("other", 0, 400, False), Contig(in_genome, 400, 600, False))
    )
    reading = parse(tmp_path, line(3, 11, contig=written), genome)
    assert only(reading.genes).contig == in_genome
    assert reading.contig_aliases == {written: in_genome}


def test_declared_length_finds_the_contig_of_another_name(tmp_path):
    text = "##sequence-region U00096.3 1 600\n" + line(3, 11, contig="U00096.3")
    reading = parse(tmp_path, text, random_genome(400, 600))
    assert reading.contig_aliases == {"U00096.3": "c1"}
    error = refusal(
        parse_annotation, write(tmp_path / "b.gff", text), random_genome(600, 600, circular=True)
    )
    assert error.found == "contig 'U00096.3', which the genome lacks"


def test_two_contigs_of_the_file_never_become_one_of_the_genome(tmp_path):
    genome = Genome(GENOME.tokens, (Contig("chr1", 0, LENGTH, False),))
    text = line(3, 11, contig="1", attributes="ID=a") + line(3, 11, contig="1.1", attributes="ID=b")
    error = refusal(parse_annotation, write(tmp_path / "a.gff", text), genome)
    assert (error.line, error.found) == (2, "contig '1.1', which the genome lacks")


# --- what is refused ---


def test_gene_table_with_an_id_twice_is_refused():
    table = gene_table(GENOME, (0, 9, "+"), (10, 19, "-")).assign(gene_id="g")
    with pytest.raises(InputError, match="gene 'g' twice, expected each gene_id once"):
        make_genes(table, GENOME)


field = st.one_of(
    st.sampled_from(["c0", "gene", "CDS", "region", "1", "20", "0", "+", "-", ".", "ID=g", ""]),
    st.text("aID=;%\"' ²٣9-", max_size=8),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(field, min_size=8, max_size=10), min_size=1, max_size=4))
def test_any_fields_are_read_or_refused_in_one_line(tmp_path_factory, rows):
    text = "".join("\t".join(row) + "\n" for row in rows)
    path = write(tmp_path_factory.mktemp("gff") / "a.gff", text)
    with suppress(InputError):
        assert len(parse_annotation(path, GENOME).genes)
        return
    assert "expected" in str(refusal(parse_annotation, path, GENOME))


@settings(max_examples=60, deadline=None)
@given(st.text("²٣19x. -", max_size=4), st.text("²٣19x. -", max_size=4))
def test_any_coordinates_are_read_or_refused_in_one_line(tmp_path_factory, start, end):
    path = write(tmp_path_factory.mktemp("gff") / "a.gff", line(start, end))
    with suppress(InputError):
        assert len(parse_annotation(path, GENOME).genes) == 1
        return
    assert refusal(parse_annotation, path, GENOME).line == 1


# --- the real annotation ---


def test_ecoli_lacz_starts_with_atg_at_its_tss_on_minus(ecoli):
    gene = only(ecoli.genes.query("gene_id == 'b0344'"))
    assert (gene.name, gene.strand) == ("lacZ", "-")
    assert (gene.start, gene.end, gene.tss) == (363_230, 366_305, 366_304)
    assert decode(ecoli.genome.fetch(gene.contig, gene.tss - 2, gene.tss + 1, "-")) == "ATG"
    spelled = decode(ecoli.genome.fetch(gene.contig, gene.start, gene.end, "-"))
    assert spelled.startswith("ATGACCATGATTACGGATTCACTGGCCGTCGTTTTACAACGTCGTGAC")


def test_ecoli_thr_operon_is_where_it_is_published(ecoli):
    genes = ecoli.genes.set_index("gene_id")
    published = {
        "b0001": ("thrL", 190, 255),
        "b0002": ("thrA", 337, 2799),
        "b0003": ("thrB", 2801, 3733),
    }
    for gene_id, (name, first, last) in published.items():
        gene = genes.loc[gene_id]
        assert (gene["name"], gene["strand"]) == (name, "+")
        assert (gene["start"] + 1, gene["end"]) == (first, last)


@pytest.mark.parametrize("strand", ["+", "-"])
def test_ecoli_coding_genes_open_and_close_a_reading_frame(ecoli, strand):
    genes = ecoli.genes.query("biotype == 'protein_coding' and strand == @strand")
    assert len(genes) > 1900
    spelled = [
        decode(ecoli.genome.fetch(gene.contig, gene.start, gene.end, strand))
        for gene in genes.itertuples()
    ]
    starts = np.mean([gene[:3] in {"ATG", "GTG", "TTG"} for gene in spelled])
    stops = np.mean([gene[-3:] in {"TAA", "TAG", "TGA"} for gene in spelled])
    whole = np.mean([len(gene) % 3 == 0 for gene in spelled])
    assert min(starts, stops, whole) > 0.98

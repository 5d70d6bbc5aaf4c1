"""Coding sequences tell an annotation of this genome from one of another."""

import numpy as np
import pytest
from Bio.Seq import Seq
from tiny_files import write

from genesplice.data.annotation import parse_annotation
from genesplice.data.coding import coding_sequence, codon_meanings, exons_of, is_open, judge_coding
from genesplice.data.genome import Contig, Genome, decode, encode, reverse_complement
from genesplice.data.windows import annotation_track
from genesplice.errors import InputError

N, STEP, GENE = 40, 300, 90


def organism(start="ATG", stop="TAA", wrong=0, chances=(0.4, 0.2, 0.1, 0.3)):
    """A genome in which pairs of equal bases are frequent, with genes on both strands."""
    random = np.random.default_rng(3)
    tokens = np.repeat(random.choice(4, N * STEP, p=chances), 2)[: N * STEP].astype(np.uint8)
    for i in range(wrong, N):
        gene = tokens[STEP * i + 100 : STEP * i + 100 + GENE]
        if i % 2:
            gene[:] = reverse_complement(gene)
        gene[:3], gene[-3:] = encode(start), encode(stop)
        if i % 2:
            gene[:] = reverse_complement(gene)
    return Genome(tokens, (Contig("c", 0, tokens.size, False),))


def judged(tmp_path, genome, shift=0, swap=False, gtf=False, extra="", grow=(0, 0), n=N):
    lines = []
    for i in range(n):
        first, last = STEP * i + 101 + shift - grow[0], STEP * i + 100 + GENE + shift + grow[1]
        strand = "+-"[(i + swap) % 2]
        cds = (first, last - 3) if strand == "+" else (first + 3, last)
        names = f'gene_id "g{i}";' if gtf else f"ID=g{i}"
        of = names if gtf else f"Parent=g{i}{extra}"
        lines.append(f"c\tx\tgene\t{first}\t{last}\t.\t{strand}\t.\t{names}")
        start, end = cds if gtf else (first, last)
        lines.append(f"c\tx\tCDS\t{start}\t{end}\t.\t{strand}\t0\t{of}")
    path = write(tmp_path / "genes", "\n".join([*lines, ""]))
    reading = parse_annotation(path, genome)
    return judge_coding(reading.genes, reading.partial, genome, path)


@pytest.mark.parametrize(
    ("genome", "options"),
    [
        (organism(), {}),
        (organism(), {"gtf": True}),
        (organism("GTG", "TGA"), {}),
        (organism("ATA", "AGA"), {"extra": ";transl_table=2"}),
    ],
)
def test_right_annotation_is_confirmed(tmp_path, genome, options):
    found = judged(tmp_path, genome, **options)
    assert (found["n"], found["share"]) == (N, 1)
    assert found["text"].startswith("100% of 40 coding sequences begin with a start and end with")


@pytest.mark.parametrize(
    ("genome", "options"),
    [
        (organism(), {"shift": 1}),
        (organism(), {"shift": -37}),
        (organism(), {"swap": True}),
        (organism("ATG", "TGA"), {"extra": ";transl_table=4"}),
        (organism(wrong=30), {}),
    ],
)
def test_shift_strand_code_and_assembly_that_are_wrong_are_refused(tmp_path, genome, options):
    with pytest.raises(
        InputError, match=r"^\S+genes: found \d+% of 40 .*stop \d+%\), expected"
    ) as e:
        judged(tmp_path, genome, **options)
    for word in ("another assembly", "strand", "0- or 1-based", "genetic code"):
        assert word in str(e.value)


@pytest.mark.parametrize("grow", [(1, 0), (0, 1), (-1, 0), (1, 1)])
@pytest.mark.parametrize("gtf", [False, True])
def test_starts_or_ends_that_are_shifted_leave_no_reading_frame_and_are_refused(
    tmp_path, grow, gtf
):
    with pytest.raises(InputError, match=r"^\S+genes: found no reading frame in 40 of 40 ") as e:
        judged(tmp_path, organism(), grow=grow, gtf=gtf)
    assert "(g0, g1, g2, … (40 in all)), expected one in most: usually it is 0- or" in str(e.value)
    assert judged(tmp_path, organism(), grow=grow, gtf=gtf, n=19) == {"n": 0, "text": ""}
    random = np.random.default_rng(0).integers(0, 4, 300_000).astype(np.uint8)
    made_up = Genome(random, (Contig("c", 0, random.size, False),))
    assert judged(tmp_path, made_up, grow=grow, gtf=gtf) == {"n": 0, "text": ""}


def test_half_of_the_genes_may_lack_a_frame_also_where_no_coding_sequences_are_written(tmp_path):
    def read(n_odd):
        lines = [f"c\tx\tgene\t{STEP * i + 101 - (i < n_odd)}\t{STEP * i + 190}\t.\t+\t.\tID=g{i};"
                 "biotype=protein_coding\n" for i in range(N)]  # fmt: skip
        return parse_annotation(write(tmp_path / "g.gff3", "".join(lines)), organism())

    assert sum(map(bool, read(20).genes["exons"])) == 20
    with pytest.raises(InputError, match="found no reading frame in 21 of 40 coding"):
        read(21)


def test_doubtful_annotations_are_told_and_few_genes_or_random_bases_not_judged(tmp_path):
    assert judged(tmp_path, organism(wrong=10))["text"].startswith("warning: 75% of 40")
    assert judged(tmp_path, organism(), shift=1, extra=";partial=true") == {"n": 0, "text": ""}
    random = np.random.default_rng(0).integers(0, 4, 300_000).astype(np.uint8)
    made_up = judged(tmp_path, Genome(random, (Contig("c", 0, random.size, False),)))
    assert made_up["share"] < 0.2
    assert made_up["text"].endswith("not judged, the genome is random bases")


def test_the_share_of_spliced_genes_sets_the_code(tmp_path):
    text = "c\tx\tgene\t101\t190\t.\t+\t.\tID=g0\nc\tx\tCDS\t101\t130\t.\t+\t0\tParent=g0\n"
    spliced = text + "c\tx\tCDS\t161\t190\t.\t+\t0\tParent=g0\n"
    single = (
        text.replace("g0", "g1").replace("130", "190").replace("101", "701").replace("190", "790")
    )
    genome = organism("GTG")
    for lines, n, share, code in ((single, 1, 1, 11), (spliced + single, 2, 0, 1)):
        reading = parse_annotation(write(tmp_path / "g.gff3", lines), genome)
        found = judge_coding(reading.genes, reading.partial, genome)
        assert (found["n"], found["share"]) == (n, share)
        assert set(reading.genes["genetic_code"]) == {code}


# --- an organism written by hand, and what Biopython makes of its proteins ---

FILLER = "TTGACAGGTACCTTA"


class Chromosome:
    """Sequences laid one after another with filler between them; coordinates from 1."""

    def __init__(self, name):
        self.name, self.text, self.lines = name, FILLER, []

    def add(self, gene, strand, parts, *, gap="GTAAGTCCACAG", phase=0, more="", of=None, ids="{0}"):
        """A gene whose coding sequence is `parts`, joined through an intron `gap`."""
        sense, spans = "", []
        for part in parts:
            sense += gap if spans else ""
            spans.append((len(sense), len(sense) + len(part)))
            sense += part
        first, size = len(self.text), len(sense)
        self.text += (sense if strand == "+" else str(Seq(sense).reverse_complement())) + FILLER
        if strand == "-":
            spans = [(size - b, size - a) for a, b in spans]
        self.line("gene", first, first + size, strand, f"ID={gene}")
        self.cds(gene, strand, [(first + a, first + b) for a, b in spans], phase, more, of, ids)
        return first

    def cds(self, gene, strand, spans, phase=0, more="", of=None, ids="{0}"):
        for i, (start, end) in enumerate(spans):
            own = phase if i == 0 else 0  # files with zeros everywhere are common
            names = f"ID=cds-{ids.format(gene, i)};Parent={of or gene}{more}"
            self.line("CDS", start, end, strand, names, own)

    def line(self, kind, start, end, strand, names, phase="."):
        fields = (self.name, "x", kind, start + 1, end, ".", strand, phase, names)
        self.lines.append("\t".join(map(str, fields)))


def protein(gene, genome, code):
    return str(Seq(decode(coding_sequence(genome, gene))).translate(table=code))


def by_hand(tmp_path, *chromosomes, circular=()):
    contigs, offset = [], 0
    for one in chromosomes:
        contigs.append(Contig(one.name, offset, len(one.text), one.name in circular))
        offset += len(one.text)
    genome = Genome(encode("".join(one.text for one in chromosomes)), tuple(contigs))
    text = "\n".join(line for one in chromosomes for line in one.lines) + "\n"
    reading = parse_annotation(write(tmp_path / "a.gtf", text), genome)
    return reading, genome, {gene.gene_id: gene for gene in reading.genes.itertuples()}


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize("ids", ["{0}", "{0}-{1}"])
def test_spliced_genes_read_as_their_proteins_whatever_is_said_of_inner_phases(
    tmp_path, strand, ids
):
    one = Chromosome("chrI")
    first = one.add("split", strand, ["AT", "GAAATGG", "CTTTAA"], ids=ids)
    one.add("whole", strand, ["ATGTGGTAA"], ids=ids)
    reading, genome, genes = by_hand(tmp_path, one)
    split = genes["split"]
    assert (protein(split, genome, 1), protein(genes["whole"], genome, 1)) == ("MKWL*", "MW*")
    exons = [(0, 2), (14, 21), (33, 39)]
    if strand == "-":
        exons = [(39 - b, 39 - a) for a, b in exons]
    assert exons_of(split).tolist() == [[first + a, first + b] for a, b in exons]
    assert (split.genetic_code, reading.partial, reading.notes) == (1, frozenset(), [])
    track = annotation_track(genome, reading.genes)[int(strand == "-"), first : first + 39]
    sense = track if strand == "+" else track[::-1]
    expected = [1, 2, *[4] * 12, 3, 1, 2, 3, 1, 2, 3, *[4] * 12, 1, 2, 3, 1, 2, 3]
    assert sense.tolist() == expected


def test_the_longest_transcript_is_read_and_never_a_union(tmp_path):
    one = Chromosome("chrI")
    first = one.add("g", "+", ["ATGGCA", "TGGTAA"], of="t1")  # exons at 0-6 and 18-24
    one.cds("g", "+", [(first, first + 24)], of="t2", ids="{0}x")  # reads through, 24 bp
    one.cds("g", "+", [(first + 3, first + 24)], of="t3,t4", ids="{0}y")
    for n in (1, 2, 3, 4):
        one.line("mRNA", first, first + 24, "+", f"ID=t{n};Parent=g")
    _, genome, genes = by_hand(tmp_path, one)
    assert exons_of(genes["g"]).tolist() == [[first, first + 24]]
    one.lines = [line for line in one.lines if "cds-gx" not in line]
    _, genome, genes = by_hand(tmp_path, one)
    assert exons_of(genes["g"]).tolist() == [[first + 3, first + 24]]
    one.lines = [line for line in one.lines if "cds-gy" not in line]
    _, genome, genes = by_hand(tmp_path, one)
    assert protein(genes["g"], genome, 11) == "MAW*"


@pytest.mark.parametrize("strand", ["+", "-"])
def test_partial_genes_are_read_from_their_first_whole_codon_to_their_last(tmp_path, strand):
    one = Chromosome("c")
    first = one.add("p", strand, ["C", "AATGGGC", "TTCA"], phase=2, more=";partial=true")
    odd = one.add("odd", strand, ["ATGGCATA"])
    reading, genome, genes = by_hand(tmp_path, one)
    assert protein(genes["p"], genome, 11) == "MGF"
    assert first < min(genes["p"].exons)
    assert max(genes["p"].exons) < odd
    assert reading.partial == {"p"}
    assert genes["odd"].exons == ()
    assert any("no codons: odd" in note for note in reading.notes)


def test_codes_are_those_of_the_file_and_mitochondria_have_none_of_their_own(tmp_path):
    nuclear, mito, plasmid = Chromosome("chrI"), Chromosome("chrM"), Chromosome("NC_1")
    nuclear.add("n", "+", ["ATGTGATAA"], more=";transl_table=4")
    mito.add("m", "-", ["ATGTGATAA"], more=";transl_table=3")
    mito.add("unsaid", "+", ["ATGTGATAA"])
    plasmid.line("region", 0, 30, "+", "ID=r;genome=mitochondrion")
    plasmid.add("named", "+", ["ATGTGATAA"])
    reading, genome, genes = by_hand(tmp_path, nuclear, mito, plasmid)
    codes = {gene.gene_id: gene.genetic_code for gene in genes.values()}
    assert codes == {"n": 4, "m": 3, "unsaid": 0, "named": 0}
    assert {protein(genes[name], genome, codes[name]) for name in "nm"} == {"MW*"}
    assert any("codon features: unsaid, named" in note for note in reading.notes)
    opened = [is_open(coding_sequence(genome, gene), gene.genetic_code) for gene in genes.values()]
    assert opened == [True, True, False, False]
    nuclear.lines[1] = nuclear.lines[1].replace("=4", "=7")
    with pytest.raises(InputError, match=r"a\.gtf:2: found transl_table '7', expected a genetic"):
        by_hand(tmp_path, nuclear)


@pytest.mark.parametrize(("strand", "sense"), [("+", "MKWL*"), ("-", "LKPFH")])
def test_genes_across_the_origin_and_with_a_frameshift_are_read_in_order(tmp_path, strand, sense):
    one = Chromosome("c")
    one.text = "TGGCTTTAA" + 8 * FILLER + "ATGAAA"
    size = len(one.text)
    one.line("gene", size - 6, size + 9, strand, "ID=o")
    one.cds("o", strand, [(size - 6, size), (0, 9)][:: 1 if strand == "+" else -1])
    _, genome, genes = by_hand(tmp_path, one, circular=("c",))
    assert protein(genes["o"], genome, 11) == sense
    assert genes["o"].exons == (size - 6, size + 9)


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize("ids", ["{0}", "{0}-{1}"])
def test_programmed_frameshifts_forward_and_back_keep_their_frames(tmp_path, strand, ids):
    one = Chromosome("c")
    for name, sense, parts in (
        ("prfB", "ATGTGACCATTTTTAA", [(0, 3), (4, 16)]),
        ("insB", "ATGGCACCATTTTAA", [(0, 6), (5, 14)]),
    ):
        first, n = len(one.text), len(sense)
        one.text += (sense if strand == "+" else str(Seq(sense).reverse_complement())) + FILLER
        if strand == "-":
            parts = [(n - b, n - a) for a, b in parts]
        one.line("gene", first, first + n, strand, f"ID={name}")
        one.cds(name, strand, [(first + a, first + b) for a, b in parts], ids=ids)
    _, genome, genes = by_hand(tmp_path, one)
    assert protein(genes["prfB"], genome, 11) == "MDHF*"
    assert protein(genes["insB"], genome, 11) == str(Seq("ATGGCAACCATTTTA").translate())


def test_trans_spliced_sequences_are_not_guessed(tmp_path):
    one = Chromosome("c")
    first = one.add("rps12", "+", ["ATGGCA", "TTTTAA"])
    one.lines[-1] = one.lines[-1].replace("\t+\t", "\t-\t")
    one.add("nad1", "-", ["ATGGCA", "TTTTAA"], more=";exception=trans-splicing")
    reading, genome, genes = by_hand(tmp_path, one)
    assert [gene.exons for gene in genes.values()] == [(), ()]
    assert "no codons: rps12, nad1" in reading.notes[-1]
    track = annotation_track(genome, reading.genes)
    assert set(track[0, first : first + 24]) == {4}


def test_gtf_gives_the_same_coding_sequences_as_gff3(tmp_path):
    """The stop codon has lines of its own there, and may be split by an intron as well."""
    one = Chromosome("chrI")
    start = one.add("g", "-", ["AT", "GGCATTTT", "AA"])
    sense, genome, genes = by_hand(tmp_path, one)
    assert protein(genes["g"], genome, 1) == "MAF*"
    kept = [("CDS", start + 34, start + 36), ("CDS", start + 15, start + 22)]
    stops = [("stop_codon", start + 14, start + 15), ("stop_codon", start, start + 2)]
    one.lines = []
    one.line("gene", start, start + 36, "-", 'gene_id "g";')
    for kind, a, b in kept + stops:
        one.line(kind, a, b, "-", 'gene_id "g"; transcript_id "t";', 0)
    reading, genome, genes = by_hand(tmp_path, one)
    assert genes["g"].exons == sense.genes["exons"][0]
    assert reading.lengths == {"g": 9}
    one.lines = [line for line in one.lines if "stop_codon" not in line]
    one.lines += [line.replace("CDS", "stop_codon") for line in one.lines[-1:]]
    _, genome, genes = by_hand(tmp_path, one)
    assert protein(genes["g"], genome, 1) == "MAF"


def test_files_without_coding_sequences_have_open_frames_or_what_they_call_coding(tmp_path):
    one = Chromosome("c")
    for name, parts in (("open", "ATGGCATAA"), ("shut", "ATGTAATAA"), ("odd", "ATGGTAA")):
        one.add(name, "-", [parts])
    one.lines = [line for line in one.lines if "\tgene\t" in line]
    reading, _, genes = by_hand(tmp_path, one)
    assert {name for name, gene in genes.items() if len(gene.exons)} == {"open"}
    assert reading.notes == ["no CDS lines: 1 of 3 genes read as coding sequences"]
    one.lines = [line + ";gene_biotype=protein_coding" for line in one.lines]
    _, _, genes = by_hand(tmp_path, one)
    assert {name for name, gene in genes.items() if len(gene.exons)} == {"open", "shut"}


def test_codons_mean_what_their_code_says():
    assert len(codon_meanings(11)) == len(codon_meanings(3)) == 64
    assert [codon_meanings(11)[codon] for codon in ("ATG", "TGA", "TAA", "CTT")] == list("M**L")
    assert [codon_meanings(3)[codon] for codon in ("ATA", "TGA", "TAA", "CTT")] == list("MW*T")
    assert codon_meanings(0) == {}


def test_bundles_keep_exons_and_codes(tiny_bundle):
    genes = tiny_bundle.genes
    assert tiny_bundle.manifest["format_version"] == 2
    whole = [(row.start, row.end) for row in genes.itertuples() if (row.end - row.start) % 3 == 0]
    assert [tuple(exons) for exons in genes["exons"] if len(exons)] == whole
    assert set(genes["genetic_code"]) == {11}


@pytest.mark.parametrize(
    ("second", "exons"),
    [
        ((400, 700), [[0, 300], [400, 700]]),
        ((299, 602), [[0, 300], [299, 602]]),
        ((298, 601), [[0, 300], [298, 601]]),
        ((297, 600), [[297, 600]]),
        ((294, 594), [[0, 300]]),
    ],
)
def test_sequences_that_overlap_by_more_than_a_slip_are_two(tmp_path, second, exons):
    """Without transcripts: one or two bases are a programmed frameshift, more another isoform."""
    genome = Genome(np.resize(encode("ATGC"), 900), (Contig("c", 0, 900, False),))
    start, end = second
    lines = ["c\tx\tgene\t1\t700\t.\t+\t.\tID=g", "c\tx\tCDS\t1\t300\t.\t+\t0\tParent=g",
             f"c\tx\tCDS\t{start + 1}\t{end}\t.\t+\t0\tParent=g", ""]  # fmt: skip
    reading = parse_annotation(write(tmp_path / "g.gff3", "\n".join(lines)), genome)
    assert exons_of(reading.genes.iloc[0]).tolist() == exons

"""Consequences of a small spliced gene, beside its translation by Biopython."""

import numpy as np
import pytest
from Bio.Seq import Seq
from tiny_genomes import make_genes

from genesplice.data.genome import Contig, Genome, encode
from genesplice.variants.alleles import Allele, normalise
from genesplice.variants.consequence import Consequences

FIRST, SECOND, INTRON = "ATGAAATGGCACG", "GTTGCGAATTATAA", "GTAAGTCATCTAACAG"
"""M K W H G|G C E L stop; one codon is half in each exon."""
TSS, START, END, LENGTH = 230, 240, 300, 600
RNA = (480, 530)
rng = np.random.default_rng(4)
BEFORE, BEHIND = ("".join(rng.choice(list("ACGT"), n)) for n in (START - 1, LENGTH))
DNA = (BEFORE + "C" + FIRST + INTRON + SECOND + "CC" + BEHIND)[:LENGTH]
EXONS = [(START, START + 13), (START + 29, START + 43)]


class Gene:
    """The contig as it is, on the other strand, or cut elsewhere where it is a circle."""

    def __init__(self, *, is_minus=False, is_leader=False, turn=0, code=1, exons=EXONS):
        self.is_minus, self.turn = is_minus, turn
        genes = make_genes(
            ("g", "c", TSS, END, "+", "protein_coding"), ("rna", "c", *RNA, "-", "tRNA")
        )
        genes["exons"], genes["genetic_code"] = [sum(exons, ()), ()], code
        if is_leader:
            genes["start"] = [START, RNA[0]]
        dna = DNA[turn:] + DNA[:turn]
        if is_minus:
            genes["strand"] = ["-", "+"]
            genes["exons"] = [
                tuple(LENGTH - edge for one in exons for edge in one[::-1]) for exons in (exons, ())
            ]
            start, end = LENGTH - genes["end"], LENGTH - genes["start"]
            genes = genes.assign(start=start, end=end, tss=LENGTH - 1 - genes["tss"])
            dna = str(Seq(dna).reverse_complement())
        # A gene over the origin ends beyond the contig.
        edge = turn if is_minus else -turn
        moved = (genes["start"] + edge) % LENGTH - genes["start"]
        genes["exons"] = [
            tuple(x + by for x in own) for own, by in zip(genes["exons"], moved, strict=True)
        ]
        for name in ("start", "end", "tss"):
            genes[name] += moved
        genes["tss"] %= LENGTH
        self.genome = Genome(encode(dna), (Contig("c", 0, LENGTH, bool(turn)),))
        self.find = Consequences(self.genome, genes)

    def __call__(self, at: int, ref: str, alt: str) -> str:
        """The consequence of a change that is written for the contig as it is."""
        allele = self.allele(at, ref, alt)
        name, gene = self.find(allele)
        assert gene == {"intergenic": None}.get(name, "g") or gene == "rna"
        return name

    def allele(self, at: int, ref: str, alt: str) -> Allele:
        assert DNA[at : at + len(ref)] == ref
        if self.is_minus:
            at, ref, alt = (
                LENGTH - at - len(ref),
                *(str(Seq(x).reverse_complement()) for x in (ref, alt)),
            )
        at = (at + (self.turn if self.is_minus else -self.turn)) % LENGTH
        return normalise(self.genome, "c", at, ref, alt)


VIEWS = {
    "plus": {}, "minus": {"is_minus": True}, "circle": {"turn": START + 5},
    "circle, minus": {"turn": START + 35, "is_minus": True},
    "promoter at the origin": {"turn": 235},
    "leader": {"is_leader": True},
    "leader over the origin": {"turn": 235, "is_leader": True},
    "leader over the origin, minus": {"turn": 235, "is_leader": True, "is_minus": True},
}  # fmt: skip


def of_substitution(at: int, base: str, code: int) -> str:
    """Written out: what Biopython translates, and where it lies."""
    low, high = EXONS[0][1], EXONS[1][0]
    if low <= at < high:
        return "splice_region" if at < low + 2 or at >= high - 2 else "intron"
    if EXONS[0][0] <= at < EXONS[1][1]:
        dna = DNA[:at] + base + DNA[at + 1 :]
        old, new = (
            str(Seq("".join(x[a:b] for a, b in EXONS)).translate(table=code)) for x in (DNA, dna)
        )
        if old[0] != new[0]:
            return "start_lost"
        if new[-1] != "*":
            return "stop_lost"
        if "*" in new[:-1]:
            return "nonsense"
        return "synonymous" if old == new else "missense"
    if TSS <= at < END or RNA[0] <= at < RNA[1]:
        return "noncoding"
    is_upstream = TSS - 200 <= at < TSS or RNA[1] <= at < RNA[1] + 200
    return "upstream" if is_upstream else "intergenic"


EDGES = (START - 210, START - 10, RNA[0], RNA[1], RNA[1] + 50, RNA[1] + 200 - LENGTH)


@pytest.mark.parametrize("view", VIEWS)
def test_every_substitution_is_what_a_translation_says(view):
    code = 1 if len(view) % 2 else 4
    gene, seen = Gene(**VIEWS[view], code=code), set()
    around = [*range(START - 2, END + 2), *(at + near for at in EDGES for near in range(-2, 3))]
    for at in sorted({at % LENGTH for at in around}):
        for base in "ACGT".replace(DNA[at], ""):
            wanted = of_substitution(at, base, code)
            if gene.turn and wanted == "intergenic" and (at - RNA[1]) % LENGTH < 200:
                wanted = "upstream"
            assert gene(at, DNA[at], base) == wanted, (at, base)
            seen.add(wanted)
    rest = set() if gene.turn else {"intergenic"}
    assert seen >= rest | {
        "splice_region", "intron", "start_lost", "stop_lost", "nonsense", "missense", "synonymous",
        "noncoding", "upstream",
    }  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
def test_amino_acids_that_are_exchanged_are_those_of_a_translation(view):
    gene, n_exchanged = Gene(**VIEWS[view]), 0
    old = str(Seq("".join(DNA[a:b] for a, b in EXONS)).translate())
    for at in range(START - 2, END + 2):
        for base in "ACGT".replace(DNA[at], ""):
            dna = DNA[:at] + base + DNA[at + 1 :]
            new = str(Seq("".join(dna[a:b] for a, b in EXONS)).translate())
            wanted = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
            assert gene.find.exchanged(gene.allele(at, DNA[at], base)) == wanted, (at, base)
            n_exchanged += bool(wanted)
    assert n_exchanged > 50
    at = START + 3  # two codons at once: K W by N R
    both = gene.allele(at, "AAATGG", "AATCGG")
    assert gene.find.exchanged(both) == [("K", "N"), ("W", "R")]
    assert gene.find.exchanged(gene.allele(START, "A", "T")) == [("M", "L")]


CHANGES = [
    ("two bases of one codon: Lys to Ser", 3, "AAA", "AGC", "missense"),
    ("two bases, Leu by another codon", 37, "TTA", "CTG", "synonymous"),
    ("two codons, of which one becomes a stop", 5, "ATGG", "CTGA", "nonsense"),
    ("one base of an exon and the first of the intron", 12, "GG", "CC", "splice_region"),
    ("ATG becomes GTG", 0, "A", "G", "start_lost"),
    ("a base before the start and its A", -1, "CA", "TT", "start_lost"),
    ("a stop becomes another one", 41, "A", "G", "synonymous"),
    ("a base more", 6, "T", "TC", "frameshift"),
    ("a codon more", 5, "A", "AGCC", "inframe"),
    ("a stop codon more", 5, "A", "ATAA", "nonsense"),
    ("a codon less", 5, "ATGG", "A", "inframe"),
    ("four bases for one", 6, "TGGC", "A", "inframe"),
    ("the start codon away", -1, "CATG", "C", "start_lost"),
    ("the start and what is before it", -4, DNA[236:242], DNA[236], "start_lost"),
    ("the end of the stop codon and what follows", 40, DNA[280:286], DNA[280], "stop_lost"),
    ("a base before the start codon", -1, "C", "CT", "noncoding"),
    ("a base behind the stop codon", 42, "A", "AG", "noncoding"),
    ("an A before ATG: the codon is still there", 0, "A", "AA", "noncoding"),
    ("a base between exon and intron", 12, "G", "GC", "splice_region"),
    ("a base in the middle of the intron", 20, INTRON[7], INTRON[7] + "G", "intron"),
    ("from one exon into the intron", 10, DNA[250:256], DNA[250], "splice_region"),
    ("the whole intron", 12, "G" + INTRON, "G", "splice_region"),
    ("the second exon and a base before it", 27, DNA[267:290], DNA[267], "splice_region"),
    ("the second exon", 28, DNA[268:290], DNA[268], "stop_lost"),
    ("the last bases upstream", -14, DNA[226:229], DNA[226], "upstream"),
    ("all of the gene", -15, DNA[225:310], DNA[225], "splice_region"),
]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("change", CHANGES, ids=[change[0] for change in CHANGES])
def test_longer_changes(view, change):
    _, at, ref, alt, wanted = change
    assert Gene(**VIEWS[view])(START + at, ref, alt) == wanted


@pytest.mark.parametrize("is_minus", [False, True])
def test_a_stop_codon_that_the_file_leaves_out_is_read(is_minus):
    gene = Gene(is_minus=is_minus, exons=[EXONS[0], (EXONS[1][0], EXONS[1][1] - 3)])
    assert gene(START + 40, "T", "C") == "stop_lost"
    assert gene(START + 41, "A", "G") == "synonymous"
    assert gene(START + 39, "A", "C") == "missense"


def test_a_frame_that_slips_has_no_intron():
    gene = Gene(exons=[(START, START + 12), (START + 13, START + 16)])
    assert gene(START + 12, "G", "C") == "coding"
    assert (gene(START + 11, "C", "T"), gene(START + 15, "A", "G")) == ("synonymous", "synonymous")


def test_an_unknown_genetic_code_says_no_amino_acid():
    gene = Gene(code=0)
    assert {gene(START + at, DNA[START + at], "T") for at in (0, 4, 8)} == {"coding"}
    assert gene(START + 6, "T", "TC") == "frameshift"


def test_the_worst_of_several_genes_is_told():
    genome = Genome(encode(DNA), (Contig("c", 0, LENGTH, False),))
    rows = [(name, "c", TSS, END, "+", "tRNA") for name in ("one", "two", "three")]
    genes = make_genes(*rows)
    genes["exons"] = [(), sum(EXONS, ()), sum(EXONS, ())]
    find = Consequences(genome, genes)
    wanted = {
        START + 7: ("nonsense", "two"),
        END - 1: ("noncoding", "one"),
        590: ("intergenic", None),
    }
    for at, one in wanted.items():
        alt = "A" if DNA[at] != "A" else "C"
        assert find(normalise(genome, "c", at, DNA[at], alt)) == one


def test_a_gene_begins_where_it_is_annotated_if_its_transcription_starts_inside():
    genes = make_genes(("g", "c", TSS, END, "+", "tRNA")).assign(tss=TSS + 20)
    genome = Genome(encode(DNA), (Contig("c", 0, LENGTH, False),))
    find = Consequences(genome, genes)
    wanted = {TSS: "noncoding", TSS - 200: "upstream", TSS - 201: "intergenic"}
    for at, name in wanted.items():
        alt = "A" if DNA[at] != "A" else "C"
        assert find(normalise(genome, "c", at, DNA[at], alt))[0] == name

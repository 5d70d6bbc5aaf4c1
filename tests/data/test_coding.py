"""Coding sequences tell an annotation of this genome from one of another."""

import numpy as np
import pytest
from tiny_files import write

from genesplice.data.annotation import parse_annotation
from genesplice.data.coding import judge_coding
from genesplice.data.genome import Contig, Genome, encode, reverse_complement
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


def judged(tmp_path, genome, shift=0, swap=False, gtf=False, extra=""):
    lines = []
    for i in range(N):
        first, last = STEP * i + 101 + shift, STEP * i + 100 + GENE + shift
        strand = "+-"[(i + swap) % 2]
        cds = (first, last - 3) if strand == "+" else (first + 3, last)
        names = f'gene_id "g{i}";' if gtf else f"ID=g{i}"
        of = names if gtf else f"Parent=g{i}{extra}"
        lines.append(f"c\tx\tgene\t{first}\t{last}\t.\t{strand}\t.\t{names}")
        start, end = cds if gtf else (first, last)
        lines.append(f"c\tx\tCDS\t{start}\t{end}\t.\t{strand}\t0\t{of}")
    path = write(tmp_path / "genes", "\n".join([*lines, ""]))
    reading = parse_annotation(path, genome)
    return judge_coding(reading.coding, reading.genes, genome, path)


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


def test_doubtful_annotations_are_told_and_few_genes_or_random_bases_not_judged(tmp_path):
    assert judged(tmp_path, organism(wrong=10))["text"].startswith("warning: 75% of 40")
    assert judged(tmp_path, organism(), shift=1, extra=";partial=true") == {"n": 0, "text": ""}
    random = np.random.default_rng(0).integers(0, 4, 300_000).astype(np.uint8)
    made_up = judged(tmp_path, Genome(random, (Contig("c", 0, random.size, False),)))
    assert made_up["share"] < 0.2
    assert made_up["text"].endswith("not judged, the genome is random bases")


def test_spliced_genes_are_left_out_and_set_the_code(tmp_path):
    text = "c\tx\tgene\t101\t190\t.\t+\t.\tID=g0\nc\tx\tCDS\t101\t130\t.\t+\t0\tParent=g0\n"
    spliced = text + "c\tx\tCDS\t161\t190\t.\t+\t0\tParent=g0\n"
    single = (
        text.replace("g0", "g1").replace("130", "190").replace("101", "701").replace("190", "790")
    )
    genome = organism("GTG")
    for lines, share in ((single, 1), (spliced + single, 0)):
        reading = parse_annotation(write(tmp_path / "g.gff3", lines), genome)
        found = judge_coding(reading.coding, reading.genes, genome)
        assert (found["n"], found["share"]) == (1, share)

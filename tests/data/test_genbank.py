"""GenBank and GFF3 of one genome give the same genes, names and bases."""

import gzip
import io

import pandas as pd
import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqFeature import BeforePosition, CompoundLocation, SeqFeature, SimpleLocation
from Bio.SeqRecord import SeqRecord
from tiny_files import random_genome, refusal, write

from genesplice.data.annotation import parse_annotation
from genesplice.data.genome import decode, read_fasta

GENOME = random_genome(6000, 3000, seed=4)
BASES = {
    contig.name: decode(GENOME.fetch(contig.name, 0, contig.length)) for contig in GENOME.contigs
}
PLACES = {
    "a": ("c0", "+", [(99, 402)], "CDS"),
    "b": ("c0", "-", [(1400, 1520), (1000, 1180)], "CDS"),
    "c": ("c0", "+", [(5900, 6000), (0, 50)], "CDS"),
    "d": ("c0", "-", [(2000, 2076)], "tRNA"),
    "e": ("c1", "+", [(300, 900)], "pseudo"),
    "f": ("c1", "+", [(1000, 1100), (1200, 1400)], "CDS"),
    "g": ("c1", "-", [(2000, 2302)], "partial"),
}
"""Gene: contig, strand, parts in the order of transcription, and what it is."""


def genbank() -> str:
    records = []
    for contig in GENOME.contigs:
        circle = {
            "molecule_type": "DNA",
            "topology": "circular" if contig.name == "c0" else "linear",
        }
        record = SeqRecord(Seq(BASES[contig.name]), contig.name, annotations=circle)
        record.features.append(SeqFeature(SimpleLocation(0, contig.length, 1), "source"))
        for gene, (name, strand, parts, kind) in PLACES.items():
            if name != contig.name:
                continue
            sign = 1 if strand == "+" else -1
            marks = {"locus_tag": [f"L_{gene}"], "gene": [f"gen{gene.upper()}"],
                     "gene_synonym": [f"old{gene}; older{gene}"]}  # fmt: skip
            pieces = [SimpleLocation(start, end, sign) for start, end in parts]
            if kind == "partial":
                pieces = [SimpleLocation(BeforePosition(2000), 2302, -1)]
            joined = pieces[0] if len(pieces) == 1 else CompoundLocation(pieces)
            first, last = min(p[0] for p in parts), max(p[1] for p in parts)
            whole = joined if gene == "c" else SimpleLocation(first, last, sign)
            extra = {"pseudo": [""]} if kind == "pseudo" else {}
            record.features.append(SeqFeature(whole, "gene", qualifiers=marks | extra))
            if kind == "tRNA":
                record.features.append(SeqFeature(joined, "tRNA", qualifiers=marks))
            else:
                table = {"transl_table": ["4"], "codon_start": ["2" if kind == "partial" else "1"]}
                record.features.append(SeqFeature(joined, "CDS", qualifiers=marks | table | extra))
        records.append(record)
    text = io.StringIO()
    SeqIO.write(records, text, "genbank")
    return text.getvalue()


def gff() -> str:
    lines = ["##gff-version 3"]
    for contig in GENOME.contigs:
        circle = ";Is_circular=true" if contig.name == "c0" else ""
        lines.append(
            f"{contig.name}\tx\tregion\t1\t{contig.length}\t.\t+\t.\tID=r{contig.name}{circle}"
        )
    for gene, (name, strand, parts, kind) in PLACES.items():
        names = f"locus_tag=L_{gene};gene=gen{gene.upper()}"
        own = f"ID=gene-L_{gene};{names};gene_synonym=old{gene},older{gene};gene_biotype="
        own += {"tRNA": "tRNA", "pseudo": "pseudogene"}.get(kind, "protein_coding")
        first, last = min(p[0] for p in parts), max(p[1] for p in parts)
        spans = [(first, last)] if gene != "c" else parts
        own += ";part=1" * (len(spans) > 1)
        type_ = "pseudogene" if kind == "pseudo" else "gene"
        lines += [f"{name}\tx\t{type_}\t{s + 1}\t{e}\t.\t{strand}\t.\t{own}" for s, e in spans]
        child, done = ("tRNA", "exon") if kind == "tRNA" else ("CDS",), 0
        for start, end in parts:
            phase = "." if kind == "tRNA" else ((kind == "partial") - done) % 3
            done += end - start
            for number, one in enumerate(child):
                parent = f"rna-{gene}" if number else f"gene-L_{gene}"
                text = f"ID={'rna' if one == 'tRNA' else one}-{gene};Parent={parent};{names}"
                text += ";transl_table=4" * (kind != "tRNA") + ";pseudo=true" * (kind == "pseudo")
                text += ";partial=true" * (kind == "partial")
                lines.append(f"{name}\tx\t{one}\t{start + 1}\t{end}\t.\t{strand}\t{phase}\t{text}")
    return "\n".join([*lines, ""])


def test_both_dialects_of_one_genome_read_the_same(tmp_path):
    flat = parse_annotation(write(tmp_path / "g.gbff", genbank()), GENOME)
    lines = parse_annotation(write(tmp_path / "g.gff3", gff()), GENOME)
    pd.testing.assert_frame_equal(flat.genes, lines.genes)
    assert flat.genes["exons"].map(len).tolist() == [2, 4, 0, 2, 0, 4, 2]
    assert flat.lengths == lines.lengths
    assert (flat.circular, flat.partial) == (lines.circular, lines.partial) == (("c0",), {"L_g"})
    for gene in PLACES:
        for name in (f"l_{gene}", f"gen{gene}", f"old{gene}", f"older{gene}"):
            assert flat.aliases[name] == lines.aliases[name] == f"L_{gene}"


def test_sequence_of_genbank_is_a_genome(tmp_path):
    path = write(tmp_path / "g.gb.gz", gzip.compress(genbank().encode()))
    genome = read_fasta(path)
    assert genome.contigs == GENOME.contigs
    assert (genome.tokens == GENOME.tokens).all()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            lambda text: text.replace("ORIGIN", "CONTIG      join(U1:1..9)\n//\nxx"),
            "without a sequence",
        ),
        (lambda text: text[:60], "no GenBank file (Premature"),
        (lambda text: text.replace("100..402", "402..100"), "invalid location '402..100'"),
        (lambda text: text.replace("100..402", "U1.1:100..402"), "at no place that can be read"),
        (lambda text: text[:-300], "2760 of 3000 bases of 'c1'"),
    ],
)
def test_genbank_that_is_not_whole_or_guesses_is_refused(tmp_path, change, found):
    assert found in refusal(read_fasta, write(tmp_path / "g.gbk", change(genbank()))).found


@pytest.mark.parametrize("number", [0, 1])
def test_letter_that_is_no_dna_is_refused_with_its_line_in_the_file(tmp_path, number):
    lines = genbank().splitlines()
    at = [i for i, line in enumerate(lines) if line.startswith("ORIGIN")][number] + 3
    lines[at] = lines[at][:15] + "j" + lines[at][16:]
    error = refusal(read_fasta, write(tmp_path / "g.gbk", "\n".join(lines) + "\n"))
    assert (error.found, error.line) == ("the letter 'j'", at + 1)


def test_record_of_another_length_is_refused(tmp_path):
    other = random_genome(6001, 3000, seed=4)
    error = refusal(parse_annotation, write(tmp_path / "g.gbk", genbank()), other)
    assert (error.line, error.found) == (1, "contig 'c0' of 6000 bp")

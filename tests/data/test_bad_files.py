"""Every kind of bad file, the command that meets it, and the one line with which it is refused."""

import gzip
import shutil
from pathlib import Path

import pytest
from command_line import call
from tiny_files import write
from tiny_inputs import BASES, IDS, NETWORK, SAMPLES, fasta, inputs, table
from tiny_models import make_tiny
from tiny_variants import COLUMNS, HEADER, save_masked

PREPARE = (
    "prepare --fasta genome.fa --annotation genes.gff3 --expression tpm.tsv "
    "--expression-unit tpm --out out"
)
PRETRAIN = "pretrain --data data --out out --set"
EXPLAIN = "explain --model tuned --data data --out out --genes"
SCAN = "scan --data data --out out --model pre --region"
DESIGN = "design --data data --out out --towards up --model tuned --gene"


def gene(start=1, end=9, strand="+", names="ID=g", kind="gene", contig="chr1") -> str:
    return f"{contig}\tx\t{kind}\t{start}\t{end}\t.\t{strand}\t.\t{names}\n"


ZIP = b"PK\x03\x04aaaaaa"
CUT = gzip.compress(fasta().encode())[:-12]
DAMAGED = CUT[:2000] + b"\0" + CUT[2001:]
CIRCLE = gene(1, 24000, names="Is_circular=true", kind="region")
FEATURE_COUNTS = "Geneid\tChr\tStart\tEnd\tStrand\tLength\ts1\nb0000\tc\t1\t2\t+\t{}\t7\n"
SALMON = "Name\tLength\tEffectiveLength\tTPM\tNumReads\na\t300\t100\t25.5\t30\n"
GAF = "DB\tid\tb0000\tenables\t{}\tref\t{}\t" + "\t".join("abcdefghij") + "\n"
VCF = "\n".join([*HEADER, COLUMNS, ""])
OTHER_CONTIG = VCF.replace("#CHROM", "##contig=<ID=chr,length=99>\n#CHROM")
MEASURED = "contig\tposition\tref\talt\tvalue\n"
GENBANK = "LOCUS       chr1             10 bp    DNA     linear   BCT 01-JAN-2020\n"
FORMAT = '{"format": "genesplice-bundle"'
CONTIG = '[{"name": "chr", "offset": 0, "length": %s, "is_circular": true}]'

# Command, then the text of the file and the line it is refused with, which begins with its name.
FILES: dict[str, list[tuple[str | bytes, str]]] = {
    f"{PREPARE} --fasta": [
        ("", "g.fa: found an empty file, expected data"),
        ("\n\n", "g.fa: found no FASTA record, expected at least one contig"),
        (BASES, "g.fa:1: found no FASTA record, expected a line that starts with '>'"),
        (fasta(bases=BASES[:100] + "X" + BASES[101:]),
         "g.fa:3: found the letter 'X', expected DNA (A, C, G, T, N or IUPAC)"),
        (">c\nACGT\n>d\nACGU\n",
         "g.fa:4: found the letter 'U', expected DNA (A, C, G, T, N or IUPAC)"),
        (">c\nAC-T\n", "g.fa:2: found the letter '-', expected DNA (A, C, G, T, N or IUPAC)"),
        (">c\nACéT\n", "g.fa:2: found the letter 'é', expected DNA (A, C, G, T, N or IUPAC)"),
        (b">c\nAC\xe9T\n", "g.fa:2: found bytes that are not UTF-8, expected text"),
        (">\nACGT\n", "g.fa:1: found a contig without a name, expected >NAME"),
        (">c\nACGT\n>c other\nACGT\n", "g.fa:3: found contig 'c' twice, expected each contig once"),
        (">c\nNN\n>d\nNRY\n", "g.fa: found no base but N, expected A, C, G or T"),
        (">c\n>d\nACGT\n", "g.fa:1: found contig 'c' without sequence, expected DNA letters"),
        (ZIP, "g.zip: found a zip archive, expected the file in it, plain or gzipped: unzip it"),
        (CUT, "g.fa.gz: found a truncated or damaged gzip stream, expected a complete file"),
        (DAMAGED, "g.fa.gz: found a truncated or damaged gzip stream, expected a complete file"),
        (GENBANK,
         "g.gbk: found no GenBank file (Premature end of line during sequence data), expected "
         "GenBank"),
        (GENBANK + "ORIGIN\n        1 acgtac\n//\n",
         "g.gbk:1: found 6 of 10 bases of 'chr1', expected a whole file"),
        ("LOCUS chr1\n",
         "g.gbk: found 1 LOCUS lines and 0 records, expected a record a line"),
        ("LOCUS       chr1\nORIGIN\n        1 acgt\n//\n",
         "g.gbk:1: found 4 of ? bases of 'chr1', expected a whole file"),
        (f"{GENBANK}FEATURES             Location/Qualifiers\n     gene            3.4.5\n"
         "ORIGIN\n        1 acgtacgtac\n//\n",
         "g.gbk:1: found a gene of 'chr1' at no place that can be read, expected places such as "
         "complement(3..9)"),
    ],
    f"{PREPARE} --annotation": [
        ("", "g.gff: found an empty file, expected data"),
        ("##gff-version 3\n",
         "g.gff: found no gene, expected lines of type gene with an ID or gene_id"),
        ("chr1 x gene 1 9 . + . ID=g\n",
         "g.gff:1: found 1 tab-separated fields, expected 9 (GFF3 or GTF)"),
        ("chr1\t0\t9\tg\t.\t+\n",
         "g.bed:1: found 6 tab-separated fields, expected 9 (GFF3 or GTF)"),
        ("# c\n" + gene(contig="c7"),
         "g.gff:2: found contig 'c7', which the genome lacks, expected chr1"),
        ("##sequence-region chr1 1 23000\n" + gene(),
         "g.gff:1: found contig 'chr1' of 23000 bp, expected 24000 bp, the length of chr1 in "
         "the genome (another version, or a FASTA cut short?)"),
        (gene() + gene(21, 29),
         "g.gff:2: found gene 'g' a second time (first on line 1), expected each gene once"),
        (gene(names="note=x"),
         "g.gff:1: found a gene without an id, expected locus_tag, gene_id or ID"),
        (gene(names='gene_id ""'),
         "g.gtf:1: found a gene without an id, expected locus_tag, gene_id or ID"),
        (gene(0, 9),
         "g.gff:1: found a gene at 0-9, expected 1 <= start <= end <= 24000, the length of chr1"),
        (gene(23990, 24001),
         "g.gff:1: found a gene at 23990-24001, expected 1 <= start <= end <= 24000, the "
         "length of chr1 (if its ends join: --circular chr1)"),
        (gene(24001, 24002),
         "g.gff:1: found a gene at 24001-24002, expected 1 <= start <= end <= 24000, the "
         "length of chr1 (another version, or a FASTA cut short?)"),
        (CIRCLE + gene(23990, 48001),
         "g.gff:2: found a gene at 23990-48001, expected 1 <= start <= end <= 24000, the "
         "length of chr1"),
        (gene("x"), "g.gff:1: found coordinates 'x'-'9', expected whole numbers, start <= end"),
        (gene("²"), "g.gff:1: found coordinates '²'-'9', expected whole numbers, start <= end"),
        (gene(1, "9" * 5000),
         "g.gff:1: found coordinates '1'-'99999999999999999999', expected whole numbers, start <= "
         "end"),
        *[(gene() + gene(9, 1, names="Parent=g", kind=kind),
           "g.gff:2: found coordinates '9'-'1', expected whole numbers, start <= end")
          for kind in ("gene", "CDS", "exon", "mRNA", "stop_codon")],
        (gene(strand="."), "g.gff:1: found a gene on strand '.', expected '+' or '-'"),
        (gene(strand="1"), "g.gff:1: found a gene on strand '1', expected '+' or '-'"),
        (gene().encode() + b"\xff\n", "g.gff:2: found bytes that are not UTF-8, expected text"),
    ],
    f"{PREPARE} --expression": [
        ("", "e.tsv: found an empty file, expected data"),
        ("gene\ts1\n", "e.tsv: found a header and no rows, expected at least one row"),
        ("gene,s1\na,5\n",
         "e.tsv:1: found the header 'gene,s1', expected two or more columns separated by tabs"),
        ("gene\ts1\na\t5\n",
         "e.csv:1: found the header 'gene\\ts1', expected two or more columns separated by commas"),
        ("gene\ts1\ts1\na\t1\t2\n",
         "e.tsv:1: found column 's1' more than once, expected each column once"),
        ("gene\ts1\na\t5\nb\t6\n\na\t7\n",
         "e.tsv:5: found gene 'a' twice, expected each gene once"),
        ("gene\ts1\n\na\t5\n\nb\thigh\n",
         "e.tsv:5: found 'high' for sample 's1', expected a number"),
        ("gene\ts1\ts2\na\t5\t\nb\t1\t2\n",
         "e.tsv:2: found an empty cell for sample 's2', expected a number"),
        ("gene\ts1\na\t1,5\n",
         "e.tsv:2: found '1,5' for sample 's1', expected a number with a point, or semicolons "
         "between columns"),
        ("gene\ts1\na\t5\nb\t1.\x005\n",
         "e.tsv:3: found '1.\\x005' for sample 's1', expected a number"),
        ("gene\ts1\na\t5\nb\tinf\n", "e.tsv:3: found 'inf' for sample 's1', expected a number"),
        ("gene\ts1\nb0000\t50\nb0001\t-0.5\n",
         "e.tsv:3: found '-0.5' for sample 's1', expected a number >= 0"),
        ("gene\ts1\ts2\nb0000\t50\t0\nb0001\t60\t0\n",
         "e.tsv: found sample 's2' without reads, expected tpm > 0"),
        ("s1\ts2\n1.5\t3\n",
         "e.tsv: found no gene ids in the first column, expected gene ids, then a column per "
         "sample"),
        ("gene\ts1\na\t5\n\t6\n",
         "e.tsv:3: found an empty gene id, expected gene ids, then a column per sample"),
        ("gene\ts1\na\t5\nb\t6\t7\n",
         "e.tsv:3: found 3 columns, expected 2 as in the header (from R, write it with "
         "col.names=NA)"),
        (b"gene\ts1\na\t5\n\xe9\t6\n", "e.tsv:3: found bytes that are not UTF-8, expected text"),
        ('gene\ts1\n"a\t5\n', "e.tsv:2: found no table (unexpected end of data), expected a table"),
        (ZIP, "e.xlsx: found a name ending in .xlsx, expected .tsv, .csv or .parquet"),
        ("x",
         "e.parquet: found no Parquet table (Could not open Parquet input source '<Buffer>': "
         "Parquet file size is 1 bytes, smaller than the minimum file footer (8 by), expected "
         "Parquet"),
        ("x", "e.h5ad: found no AnnData file, expected h5ad"),
        (ZIP, "e.tsv: found a zip archive, expected the file in it, plain or gzipped: unzip it"),
        ("gene\tLength\tChr\na\t300\tc0\n",
         "e.tsv: found no sample among Length, Chr, expected a column per sample"),
        ("#1.2\n2\t2\nName\tDescription\n",
         "e.gct: found 0 rows, expected 2, as the file says"),
        ("#1.2\n2\t1\nName\tDescription\ts1\nb0000\tx\t5.5\n",
         "e.gct: found 1 rows, expected 2, as the file says"),
        ("gene\ts1\t\ts2\nb0000\t5\t6\t7\n",
         "e.tsv:1: found a column without a name, expected the name of each sample"),
        ("gene\ts1\ts1 \nb0000\t5\t6\n",
         "e.tsv:1: found column 's1' more than once, expected each column once"),
        (table([*IDS, IDS[3]]), "e.tsv:42: found gene 'b0003' twice, expected each gene once"),
        (table([*IDS, "gen7"]),
         "e.tsv: found two rows for gene 'b0007' ('b0007' and 'gen7'), expected each gene once"),
        (table([f"ENSG{i}" for i in range(40)]),
         "e.tsv: found 40 of 40 genes that the annotation lacks (ENSG0, ENSG1, ENSG2, … (40 in "
         "all)), expected gene ids such as b0000, b0001, b0002"),
        (table([*IDS[:36], *"abcd"]),
         "e.tsv: found 4 of 40 genes left out (not in the annotation: 4 (a, b, c, d)), "
         "expected at most 5% (or --allow-missing)"),
        (table(["1-Mar", "2-Mar", "3-Mar", *IDS[3:]]),
         "e.tsv: found 3 of 40 genes left out (dates that a spreadsheet made of names: 3 "
         "(1-Mar, 2-Mar, 3-Mar)), expected at most 5% (or --allow-missing)"),
        (table(["s1", "s2"], IDS),
         "e.tsv: found 2 of 2 genes that the annotation lacks (s1, s2), expected genes in "
         "rows: transpose the table"),
        (table(scale=15),
         "e.tsv: found values up to only 14.946 with unit tpm, expected TPM (logarithms are "
         "unit log2tpm)"),
        (table().replace("\n", "\t.01\n").replace("s4\t.01", "s4\tpadj"),
         "e.tsv: found sample 'padj' adding up to 0.4 with unit tpm, expected about 2.07e+03, as "
         "others do, or no such column"),
        (table(samples=("s1", "s2")).replace("\n", "\t0\n").replace("s2\t0", "s2\ts3"),
         "e.tsv: found sample 's3' without reads, expected tpm > 0"),
        (table(scale=200_000),
         "e.tsv: found sample 's2' adding up to 4.33e+06 with unit tpm, expected at most 1e6 "
         "(counts are unit counts)"),
    ],
    f"{PREPARE} --expression-unit log2tpm --expression": [
        ("gene\ts1\na\t23\nb\t1\n",
         "e.tsv: found values up to 23 with unit log2tpm, expected at most 21"),
        ("gene\ts1\ts2\nb0000\t9\t0\nb0001\t7\t0\n",
         "e.tsv: found sample 's2' without reads, expected log2tpm > 0"),
        ("gene\ts1\ts2\nb0000\t9\t1\nb0001\t7\t-1e-3\n",
         "e.tsv:3: found '-1e-3' for sample 's2', expected a number >= 0"),
        (SALMON,
         "quant.sf:1: found columns TPM, NumReads of one sample, expected one of them in unit "
         "log2tpm"),
    ],
    f"{PREPARE} --expression-unit counts --expression": [
        ("gene\ts1\ts2\nb0000\t5\t0\nb0001\t9\t0\n",
         "e.tsv: found sample 's2' without reads, expected counts > 0"),
        (table().replace("b0001\t", "b0001\t-"),
         "e.tsv:3: found '-31.871' for sample 's1', expected a number >= 0"),
        (FEATURE_COUNTS.format(0),
         "c.txt: found no length for 1 genes (b0000), expected a length of 1 bp or more for "
         "every gene with counts"),
        (FEATURE_COUNTS.format("x"), "c.txt:2: found 'x' for sample 'Length', expected a number"),
    ],
    f"{PREPARE} --expression-unit rpkm --expression": [
        ("gene\ts1\ts2\nb0000\t99\t0\nb0001\t9\t0\n",
         "e.tsv: found sample 's2' without reads, expected rpkm > 0"),
    ],
    f"{PREPARE} --samples": [
        ("", "s.tsv: found an empty file, expected data"),
        ("sample\tcondition\n", "s.tsv: found a header and no rows, expected at least one row"),
        ("sample\tgroup\ns1\tx\n",
         "s.tsv:1: found no column 'condition' (header: sample, group), expected a column "
         "named condition"),
        ("condition\tid\nx\ts1\n",
         "s.tsv:1: found 'condition' as first column, expected the sample id first"),
        ("id\tcondition\ns1\tx\n\ns1\ty\n",
         "s.tsv:4: found sample 's1' twice, expected each sample once"),
        ("id\tcondition\ns1\tx\ns2\t \n",
         "s.tsv:3: found an empty condition, expected a condition"),
        ("id\tcondition\tCondition\ns1\tx\ty\n",
         "s.tsv:1: found two columns 'condition', expected one of them"),
        ("id\tcondition\ns1\tnan\ns2\tNaN\n",
         "s.tsv:2: found condition 'nan', expected a name"),
        ("id,condition\ns1,x\n",
         "s.tsv:1: found the header 'id,condition', expected two or more columns separated by "
         "tabs"),
        ("id\tcondition\tDeleted\ns1\tx\tgen1; old2\ns2\tx\tgen1,lacZZ\n",
         "s.tsv: found no row for 2 of the 4 samples in tpm.tsv (s3, s4), expected sample ids such "
         "as s1, s2 in both"),
        ("id\tcondition\tDeleted\ns1\tx\tgen1; old2\n\ns2\tx\tgen1,lacZZ\ns3\tx\t\ns4\tx\t\n",
         "s.tsv:4: found deleted gene 'lacZZ' of sample 's2', expected ids or names of the "
         "annotation's genes with ; between, or an empty cell"),
        (SAMPLES[:-8],
         "s.tsv: found no row for 1 of the 4 samples in tpm.tsv (s4), expected sample ids such "
         "as s1, s2, s3 in both"),
        (SAMPLES.upper(),
         "s.tsv: found no row for 4 of the 4 samples in tpm.tsv (s1, s2, s3, … (4 in all)), "
         "expected sample ids such as S1, S2, S3 in both"),
    ],
    f"{PREPARE} --network": [
        ("", "n.tsv: found an empty file, expected data"),
        ("source\ttarget\n", "n.tsv: found a header and no rows, expected at least one row"),
        ("source\ttarget\ta\tsign\nb1\n", "n.tsv:2: found an empty target, expected a name"),
        ("source\tsign\nb1\t+\n",
         "n.tsv:1: found no column 'target' (header: source, sign), expected a column named "
         "target or gene_id or gene or regulatedname or targetgene or protein2 or node2 or to"),
        ("a\tb\nx\ty\n",
         "n.tsv:1: found no column 'source' (header: a, b), expected a column named source or "
         "regulator or tf or regulatorname or regulatorygene or protein1 or node1 or from"),
        (NETWORK + "gen5\tgen6\tup\t\n",
         "n.tsv:4: found effect 'up', expected +, -, +- or ? (or 1, -1, 0, or nothing)"),
        ("source\ttarget\nb0001\tb0002\n \tb0002\n",
         "n.tsv:3: found an empty source, expected a name"),
        ("protein1 protein2 combined_score\nb1 b2 x\n",
         "n.tsv:2: found a combined_score that is no number, expected 0 to 1000"),
        ("source\ttarget\nb1\tb2\t+\n",
         "n.tsv:2: found 3 columns, expected 2 as in the header (from R, write it with "
         "col.names=NA)"),
        ("source\ttarget\nb1\tx\nb1\ty\nb1\tb0002\n",
         "n.tsv: found 2 of 3 targets that are no genes (x, y), expected gene ids or names "
         "such as b0000, b0001, b0002"),
        ("source,target\nb1,b2\n",
         "n.tsv:1: found the header 'source,target', expected two or more columns separated by "
         "tabs"),
    ],
    f"{PREPARE} --gene-sets": [
        ("", "s.gmt: found an empty file, expected data"),
        ("\n", "s.gmt: found no names, expected at least one"),
        ("a\t\tb0001\nb\twords\n",
         "s.gmt:2: found 2 tab-separated columns, expected name, description, genes"),
        ("a\t\tb0001\n\na\t\tb0002\n", "s.gmt:3: found set 'a' twice, expected each set once"),
        ("a\t\tb0001\tx\ty\n",
         "s.gmt: found 2 of 3 names that are no genes (x, y), expected gene ids or names such "
         "as b0000, b0001, b0002"),
        ("!gaf-version: 2.2\na\tb\n", "s.gaf:2: found 2 columns, expected GAF's 17"),
        (GAF.format(" ", "IDA"), "s.gaf:1: found an empty GO id, expected GO:…"),
        (GAF.format("GO:1", "IEP"), "s.gaf: found no names, expected at least one"),
        ("gene\tset\tmore\nb1\ta\tx\n", "s.tsv:1: found 3 columns, expected 2 (gene, set)"),
        ("gene\tname\nb1\ta\n",
         "s.tsv:1: found no column 'set' (header: gene, name), expected a column named set or "
         "pathway or term or gene_set or go"),
        ("gene\tset\nb1\ta\n\nb2\t\n", "s.tsv:4: found an empty set, expected a name"),
        ("<x/>", "s.xml: found a name ending in .xml, expected .tsv, .csv or .parquet"),
    ],
    f"{PREPARE} --operons": [
        ("operon\tgene\no1\tx\n",
         "o.tsv: found no gene in any line, expected such as b0000, b0001, b0002, … (40 in all)"),
    ],
    f"{PREPARE} --tss": [
        ("gene_id\tposition\tstrand\nb0000\tx\t+\n",
         "t.tsv:2: found position 'x', expected a whole number"),
        ("gene\ttss\nb0000\t99999\n",
         "t.tsv:2: found position 99999 of gene 'b0000', expected 1 to 24000, the length of chr1"),
        ("chr1\t1\t2\n",
         "t.bed:1: found 3 tab-separated columns, expected BED: 6 with name and strand"),
        ("chr1\t140\t139\tb0000\t0\t+\n",
         "t.bed:1: found coordinates '140'-'139', expected whole numbers, start <= end"),
        ("chr1\t1.0\t2\tb0000\t0\t+\n",
         "t.bed:1: found coordinates '1.0'-'2', expected whole numbers, start <= end"),
    ],
    f"{PREPARE} --gene-sets sets.gmt --obo": [
        ("[Term]\nname: a\n", "g.obo: found no [Term], expected an ontology in OBO"),
    ],
    "pretrain --out out --fasta": [
        (BASES, "g.fa:1: found no FASTA record, expected a line that starts with '>'"),
        (">c\nACXT\n", "g.fa:2: found the letter 'X', expected DNA (A, C, G, T, N or IUPAC)"),
        (">a\n>b\nAC\n", "g.fa:1: found contig 'a' without sequence, expected DNA letters"),
        (">a\nAC\n>a\nAC\n", "g.fa:3: found contig 'a' twice, expected each contig once"),
        (CUT, "g.fa.gz: found a truncated or damaged gzip stream, expected a complete file"),
    ],
    "pretrain --fasta genome.fa --out out --annotation": [
        (gene("x"), "g.gff:1: found coordinates 'x'-'9', expected whole numbers, start <= end"),
    ],
    # Headers are read before models are opened.
    "variants --model none --data none --out out.vcf --vcf": [
        ("", "v.vcf: found an empty file, expected data"),
        ("chrom\tpos\n1\t2\n",
         "v.vcf:1: found 'chrom\\tpos', expected a VCF, whose first line is "
         "##fileformat=VCFv4.2 or the like"),
        (f"{COLUMNS}\nc\t1\n",
         "v.vcf:1: found no ##fileformat line before #CHROM, expected a VCF, whose first line "
         "is ##fileformat=VCFv4.2 or the like"),
        (VCF.replace("#CHROM\t", "#CHROM "),
         "v.vcf:3: found columns separated by blanks, expected #CHROM POS ID REF ALT QUAL "
         "FILTER INFO, separated by tabs"),
        (f"{HEADER[0]}\n#CHROM\tPOS\n",
         "v.vcf:2: found '#CHROM\\tPOS', expected #CHROM POS ID REF ALT QUAL FILTER INFO, "
         "separated by tabs"),
        (f"{HEADER[0]}\n", "v.vcf: found no #CHROM line, expected a VCF header"),
        (b"BCF\2\2\xff\xff",
         "v.bcf: found a binary file, expected VCF (of a BCF: bcftools view makes one)"),
    ],
    "variants --model pre --data data --out out.vcf --vcf": [
        (VCF + "c 1 . A C . . .\n",
         "v.vcf:4: found columns separated by blanks, expected 8, separated by tabs"),
        (VCF + "c\t5\t.\tA\tC\t.\t.\n", "v.vcf:4: found 7 columns, expected 8, separated by tabs"),
        (VCF + "#CHROM\tPOS\nc\t5\n", "v.vcf:5: found 2 columns, expected 8, separated by tabs"),
        (VCF + "c\tfive\t.\tA\tC\t.\t.\t.\n",
         "v.vcf:4: found POS 'five', expected a whole number below 10^18"),
        (VCF + "c\t-5\t.\tA\tC\t.\t.\t.\n",
         "v.vcf:4: found POS '-5', expected a whole number below 10^18"),
        (VCF + f"c\t{10**18}\t.\tA\tC\t.\t.\t.\n",
         "v.vcf:4: found POS '1000000000000000000', expected a whole number below 10^18"),
        (VCF.encode() + b"c\t5\t\xe9\tA\tC\t.\t.\t.\n",
         "v.vcf:4: found bytes that are not UTF-8, expected text"),
        (gzip.compress(VCF.encode() + bytes(range(97, 123)) * 99)[:-9],
         "v.vcf.gz: found a truncated or damaged gzip stream, expected a complete file"),
        (OTHER_CONTIG + "chr\t5\t.\tA\tC\t.\t.\t.\n",
         "v.vcf:3: found contig 'chr' of 99 bp, expected 120000 bp, the length of chr in the data "
         "(another version?)"),
        (VCF + "".join(f"chr\t{i}\t.\tA\tC\t.\t.\t.\n" for i in range(1, 99)),
         "v.vcf: found 79 of 98 REF alleles that are not those of data, expected at most 5%; "
         "the file is likely of another assembly"),
    ],
    "variants --model pre --data data --out out --measured": [
        ("", "m.tsv: found an empty file, expected data"),
        (MEASURED, "m.tsv: found a header and no rows, expected at least one row"),
        (MEASURED.replace("value", "score") + "chr\t5\tA\tC\t1\n",
         "m.tsv:1: found no column value, expected contig, position, ref, alt, value"),
        (MEASURED + "chr\t5\tA\tC\tmuch\n", "m.tsv:2: found value 'much', expected a number"),
        (MEASURED + "chr\t5\tA\tC\tinf\n", "m.tsv:2: found value 'inf', expected a number"),
        (MEASURED + "chr\tfive\tA\tC\t1\n",
         "m.tsv:2: found position 'five', expected a whole number from 1"),
        (MEASURED + "chr\t5.5\tA\tC\t1\n",
         "m.tsv:2: found position '5.5', expected a whole number from 1"),
        (MEASURED + "chr\t-5\tA\tC\t1\n",
         "m.tsv:2: found position '-5', expected a whole number from 1"),
        (MEASURED + "chr\tinf\tA\tC\t1\n",
         "m.tsv:2: found position 'inf', expected a whole number from 1"),
        (MEASURED + "".join(f"chr\t{i}\tA\tC\t1\n" for i in range(1, 99)),
         "m.tsv: found 79 of 98 REF alleles that are not those of data, expected at most 5%; "
         "the file is likely of another assembly"),
        (MEASURED + "chr\t5\tA\tN\t1\n",
         "m.tsv: found 0 measured variants that are scored, expected 10 or more"),
    ],
    "finetune --data data --out out --network": [
        ("tf\tgene\nx\ty\n",
         "n.tsv: found 1 of 1 targets that are no genes (y), expected gene ids or names such "
         "as g0000, g0001, g0002"),
    ],
    "finetune --data data --out out --gene-sets": [
        ("a\tb\n", "s.gmt:1: found 2 tab-separated columns, expected name, description, genes"),
    ],
    "verdict --data data --out out --ablations": [
        ("{", "m.json: found no list of metrics, expected a metrics.json"),
        ("[{}]", "m.json: found no list of metrics, expected a metrics.json"),
        (b"\xff", "m.json: found no list of metrics, expected a metrics.json"),
    ],
}  # fmt: skip
# Command, a file of the folder it reads, what is in its place, and the line.
FOLDERS: dict[str, list[tuple[str, str | bytes | None, str]]] = {
    "predict --model tuned --out out.parquet --data data": [
        ("manifest.json", None,
         "data: found no manifest.json, expected a bundle made by genesplice prepare"),
        ("manifest.json", "{", "data: found a damaged manifest.json, expected JSON"),
        ("manifest.json", b"\xff", "data: found a damaged manifest.json, expected JSON"),
        ("manifest.json", "[]",
         "data: found a manifest of something else, expected format 'genesplice-bundle'"),
        ("manifest.json", FORMAT + "}",
         "data: found bundle format None, expected 2: prepare it again with this version"),
        ("manifest.json", FORMAT + ', "format_version": 9}',
         "data: found bundle format 9, expected 2: prepare it again with this version"),
        ("manifest.json", FORMAT + ', "format_version": 2}',
         "data: found a damaged manifest.json, expected a whole bundle: prepare it again"),
        *[("contigs.json", contigs,
           "data: found a damaged contigs.json, expected a whole bundle: prepare it again")
          for contigs in ("[]", CONTIG % 99, CONTIG % 240_000, "{")],
    ],
    "predict --data data --out out.parquet --model tuned": [
        ("config.json", None,
         "tuned: found no config.json or run.json, expected a folder that finetune or pretrain "
         "wrote"),
        ("config.json", "{",
         "tuned: found a model that cannot be read (Expecting property name enclosed in double "
         "quotes: line 1 column 2 (char 1)), expected one of this version"),
        ("model.safetensors", None,
         "tuned: found no model.safetensors, expected a folder that finetune wrote"),
        ("model.safetensors", "x",
         "tuned/model.safetensors: found damaged weights (Error while deserializing header: "
         "header too small), expected safetensors"),
    ],
    "scan --data data --out out --region chr:1-9 --model pre": [
        ("run.json", None,
         "pre: found no config.json or run.json, expected a folder that finetune or pretrain "
         "wrote"),
        ("run.json", "{",
         "pre: found a model that cannot be read (Expecting property name enclosed in double "
         "quotes: line 1 column 2 (char 1)), expected one of this version"),
        ("run.json", "{}",
         "pre: found a model that cannot be read ('model'), expected one of this version"),
        ("model.safetensors", None,
         "pre: found no model.safetensors, expected a folder that pretrain wrote"),
        ("model.safetensors", "x",
         "pre/model.safetensors: found damaged weights (Error while deserializing header: "
         "header too small), expected safetensors"),
    ],
    "finetune --data data --out out --set finetune.fewest_genes=1 --init pre": [
        *[("run.json", text, "pre: found a damaged run.json, expected one of this version")
          for text in ("{", "[]", "{}", '{"pretrain": 5}', '{"pretrain": {}}', b"\xff")],
        ("model.safetensors", None,
         "pre: found no model.safetensors, expected a folder that pretrain wrote"),
        ("model.safetensors", "x",
         "pre/model.safetensors: found damaged weights (Error while deserializing header: "
         "header too small), expected safetensors"),
    ],
}  # fmt: skip
WORDS = [
    (f"{PREPARE} --circular plasmid", "found --circular 'plasmid', expected chr1"),
    (f"{PREPARE} --operons yes", "found --operons yes, expected none, distance or a file"),
    (f"{PREPARE} --relatives genome.fa",
     "genome.fa: found a file, expected a folder of FASTA files, one a genome, or a .maf"),
    ("pretrain --fasta genome.fa --annotation genes.gff3 --out out",
     "found 1 blocks with genes (blocks of about 100000 bp), expected at least 5, one per fold: "
     "--set pretrain.block_bp smaller, or pretrain.holdout_fold=none"),
    ("pretrain --fasta genome.fa --out out",
     "found 1 blocks of about 100000 bp, expected at least 5, one per fold: "
     "--set pretrain.block_bp smaller, or pretrain.holdout_fold=none"),
    (f"{EXPLAIN} g0001 --model nowhere",
     "found no folder nowhere, expected a folder that finetune wrote"),
    ("predict --data data --out out --model nowhere",
     "found no folder nowhere, expected a folder that finetune wrote"),
    (f"{SCAN} chr:1-9 --model nowhere",
     "found no folder nowhere, expected a folder that pretrain wrote, or published weights: "
     "ecoli-k12"),
    ("variants --data data --out out.vcf --classes 1 --model nowhere",
     "found no folder nowhere, expected a folder that finetune or pretrain wrote, or published "
     "weights: ecoli-k12"),
    (f"{DESIGN} sym3",
     "found gene 'sym3', expected an id or name in data/genes.parquet: did you mean 'syn3'?"),
    (f"{DESIGN} G00003",
     "found gene 'G00003', expected an id or name in data/genes.parquet: did you mean 'g0003'?"),
    (f"{PREPARE} --fasta nowhere.fa", "nowhere.fa: found no such file, expected a file"),
    (f"{PREPARE} --fasta data", "data: found a folder, expected a file"),
    (f"{PREPARE} --samples nowhere.tsv", "nowhere.tsv: found no such file, expected a file"),
    (f"{PREPARE} --network nowhere.tsv", "nowhere.tsv: found no such file, expected a file"),
    (f"{PREPARE} --network edges.tsv --network-evidence good",
     "found evidence 'good', expected such as expression, curated, orthology, binding, "
     "sequence, simulated"),
    (f"{PREPARE} --block-bp 5000 --folds 9",
     "found 5 blocks with genes (blocks of about 5000 bp), expected at least 9, one per fold: "
     "--block-bp smaller or --folds fewer"),
    (f"{PREPARE} --recipe ecoli",
     "found --recipe together with --fasta, --annotation, --expression, --expression-unit, "
     "expected one or the other"),
    (f"{PREPARE} --out data",
     "found data exists and is not empty, expected a new folder (or --overwrite)"),
    (f"{PREPARE} --out genome.fa", "found genome.fa is a file, expected a folder to write to"),
    ("prepare --out out --fasta genome.fa",
     "found no --annotation, expected both, or --recipe ecoli"),
    ("prepare --out out", "found no --fasta, --annotation, expected both, or --recipe ecoli"),
    ("prepare --fasta genome.fa --annotation genes.gff3 --out out --samples tpm.tsv",
     "found no --expression, --expression-unit, expected --expression with --expression-unit, or "
     "neither and no --samples"),
    (PREPARE.replace(" --expression-unit tpm", ""),
     "found no --expression-unit, expected --expression with --expression-unit, or neither and "
     "no --samples"),
    ("prepare --out out --recipe ecolli", "found recipe 'ecolli', expected 'ecoli' or 'human'"),
    ("baselines --out out --data nowhere",
     "nowhere: found no such folder, expected a bundle made by genesplice prepare"),
    (f"{SCAN} chr:5", "found --region chr:5, expected all, contig, or contig:start-end"),
    (f"{SCAN} chr:9-5", "found --region chr:9-5, expected start <= end within 1-120000"),
    (f"{SCAN} chr:1-120001", "found --region chr:1-120001, expected start <= end within 1-120000"),
    (f"{SCAN} x:1-5", "found contig 'x', expected chr"),
    (f"{SCAN} chr:1-9 --model tuned --model pre --model pre",
     "found two pre-trained models, pre and pre, expected one"),
    ("scan --data data --out out --region all --model tuned",
     "found no masked-base model, expected --model DIR of a folder that pretrain wrote"),
    (f"{DESIGN} nobody",
     "found gene 'nobody', expected an id or name in data/genes.parquet, such as syn0"),
    (f"{DESIGN} g0003 --towards sideways", "found --towards sideways, expected up or down"),
    (f"{DESIGN} g0003 --protect chr",
     "found no base of the 200 before syn3 that may be edited, expected one that is neither "
     "protected, nor of another gene, nor N"),
    (f"{DESIGN} g0003 --protect chr:9-5",
     "found --protect chr:9-5, expected start <= end within 1-120000"),
    ("variants --model pre --data data --out out.vcf",
     "found no --vcf, --measured or --classes, expected one of them"),
    ("variants --model pre --data data --out out --measured nowhere.tsv",
     "nowhere.tsv: found no such file, expected a file"),
    (f"{PRETRAIN} model.widht=8", "--set model.widht: unknown key 'widht'; did you mean 'width'?"),
    (f"{PRETRAIN} model.width=20",
     "found model.width 20 with model.heads 4, expected a width that is an even multiple of heads"),
    (f"{PRETRAIN} pretrain.learning_rate=nan",
     "found --set pretrain.learning_rate=nan, expected a value of type float"),
    (f"{PRETRAIN} pretrain.holdout_fold=9",
     "found pretrain.holdout_fold 9, expected one of [0, 1, 2, 3, 4], or none"),
    (f"{PRETRAIN} pretrain.steps=2 --preset quikc",
     "found preset 'quikc', expected one of quick, standard, full"),
    (f"{PRETRAIN} pretrain.steps=2 --fasta genome.fa",
     "found --data with --fasta or --annotation, expected a folder, or files"),
    ("pretrain --out out", "found no --data, --fasta, expected a folder, or files"),
    ("pretrain --out out --fasta genome.fa --fasta genome.fa",
     "found two FASTA files named genome, expected different names"),
    ("finetune --data data --out out --set finetune.fewest_genes=1 --set finetune.folds=9",
     "found fold 9, expected 0 to 4"),
    ("finetune --data data --out out",
     "data: found 59 measured genes, expected at least 200 (finetune.fewest_genes)"),
    ("finetune --data data --out data",
     "found data exists and is not empty, expected a new folder, or --resume"),
    ("finetune --data data --out data --resume", "found no run in data, expected a run to resume"),
    (f"{EXPLAIN} g0001,nobody",
     "found gene 'nobody', expected an id or name in data/genes.parquet, such as syn0"),
    (f"{EXPLAIN} g0001,",
     "found gene '', expected an id or name in data/genes.parquet, such as syn0"),
    (f"{EXPLAIN} fold:9", "found fold 9, expected 0 to 4"),
    (f"{EXPLAIN} g0001 --method lime",
     "found --method lime, expected ig, saliency, inputxgradient, deeplift, gradientshap, "
     "occlusion, ablation, ism or attention"),
    (f"{EXPLAIN} g0001 --condition moon --steps 2",
     "found condition 'moon', expected one of condition_0, condition_1, condition_2, "
     "condition_3, condition_4, …"),
    (f"{EXPLAIN} g0001 --window 1000", "found window_bp 1000, expected a multiple of 2048 bp"),
    ("verdict --data data --out out --ablations nowhere.json",
     "nowhere.json: found no such file, expected a file"),
    ("verdict --data data --out out --preset quikc",
     "found preset 'quikc', expected one of quick, standard, full"),
    ("report nowhere",
     "found run 'nowhere', expected a run under reports/runs (there is none yet)"),
]  # fmt: skip


def flat(groups) -> list:
    return [(command, *case) for command, cases in groups.items() for case in cases]


@pytest.fixture(scope="module")
def whole(tiny_bundle, tmp_path_factory):
    """Data and models that are whole."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "data").symlink_to(tiny_bundle.path)
    save_masked(folder / "pre", "model.base_width=0")
    make_tiny(tiny_bundle).save_pretrained(folder / "tuned")
    return folder


@pytest.fixture
def here(whole, tmp_path, monkeypatch):
    """The working folder: with them, and with the files of a small organism."""
    inputs(tmp_path, "network", "gene_sets")
    for folder in whole.iterdir():
        (tmp_path / folder.name).symlink_to(folder.resolve())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(command: str, line: str) -> None:
    """The command ends with 2 and this line, and nothing else is said or written."""
    before = sorted(Path().iterdir())
    answer = call(*command.split())
    *progress, last = answer.err.splitlines()
    assert last == f"genesplice: {line}"
    assert (answer.code, answer.out) == (2, "")
    assert not any(text.startswith("genesplice:") or "Error" in text for text in progress)
    assert sorted(Path().iterdir()) == before


def test_of_swapped_files_only_the_error_is_said(here):
    words = "prepare --fasta genes.gff3 --annotation genome.fa --out out"
    answer = call(*words.split())
    assert answer.code == 2
    said = "genes.gff3:1: found no FASTA record, expected a line that starts with '>'"
    assert answer.err.splitlines() == ["reading the genome", f"genesplice: {said}"]


@pytest.mark.parametrize(("command", "text", "line"), flat(FILES))
def test_a_bad_file_is_refused(here, command, text, line):
    name = line.split(":")[0]
    write(here / name, text)
    refused(f"{command} {name}", line)


@pytest.mark.parametrize(("command", "file", "text", "line"), flat(FOLDERS))
def test_a_damaged_folder_is_refused(here, command, file, text, line):
    folder = here / command.split()[-1]
    source = folder.resolve()
    folder.unlink()
    shutil.copytree(source, folder)
    (folder / file).unlink()
    if text is not None:
        write(folder / file, text)
    refused(command, line)


@pytest.mark.parametrize(("command", "line"), WORDS)
def test_bad_words_are_refused(here, command, line):
    refused(command, line)

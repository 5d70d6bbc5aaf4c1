"""A random small organism, written as each tool writes it, is read back as it was made.

Coordinates, names, exons and sets are the same to the letter; log2(TPM+1) to 1e-5 (float32).
"""

import csv
import gzip
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from tiny_files import write
from tiny_inputs import read_expression

from genesplice.data.annotation import parse_annotation
from genesplice.data.coding import exons_of
from genesplice.data.expression import condition_means
from genesplice.data.gene_sets import read_gene_sets
from genesplice.data.genome import Contig, Genome, decode, encode, read_fasta
from genesplice.data.measurements import read_measurements
from genesplice.data.network import gene_aliases, read_network
from genesplice.variants.vcf import read_header, read_records

SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=12, deadline=None, derandomize=True)


class Gene(NamedTuple):
    """`exons` and `coding` are contig positions in ascending order; `coding` may be empty."""

    gene_id: str
    name: str
    contig: str
    strand: str
    exons: np.ndarray
    coding: np.ndarray

    @property
    def span(self) -> tuple[int, int]:
        return int(self.exons[0]), int(self.exons[-1]) + 1

    @property
    def stop(self) -> np.ndarray:
        return self.coding[-3:] if self.strand == "+" else self.coding[:3]


class Organism(NamedTuple):
    genome: Genome
    genes: list[Gene]


def make_organism(seed: int, is_spliced: bool, has_utr: bool) -> Organism:
    """One to three contigs; genes on both strands, some overlap, some cross the origin."""
    random = np.random.default_rng(seed)
    contigs, genes, offset = [], list[Gene](), 0
    for c in range(random.integers(1, 4)):
        length, is_circular = int(random.integers(1500, 4000)), bool(random.integers(2))
        name = f"NC_{c:03d}.{random.integers(1, 4)}"
        contigs.append(Contig(name, offset, length, is_circular))
        offset, at = offset + length, int(random.integers(0, 50))
        while at + 500 < length or (is_circular and at < length and not is_spliced):
            number = len(genes)
            sizes = random.integers(33, 90, 2 * random.integers(1, 4) - 1 if is_spliced else 1)
            edges = at + np.cumsum([0, *sizes])
            exons = np.concatenate([np.arange(a, b) for a, b in list(pairwise(edges))[::2]])
            first, last = random.integers(0, 9, 2) if has_utr else (0, 0)
            coding = exons[first : len(exons) - last]
            coding = coding[: len(coding) // 3 * 3]
            exons = exons if has_utr else coding
            is_rna = random.random() < 0.2
            kept = coding[:0] if is_rna else coding
            strand = str(random.choice(["+", "-"]))
            genes.append(Gene(f"SYN_{number:05d}", f"syn{number}", name, strand, exons, kept))
            at = int(exons[-1]) + int(random.integers(-20, 200))
    tokens = random.integers(0, 4, offset).astype(np.uint8)
    return Organism(Genome(tokens, tuple(contigs)), genes)


def intervals(positions: np.ndarray) -> list[tuple[int, int]]:
    """Runs of positions, 0-based half-open."""
    runs = np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1)
    return [(int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]


def feature(gene: Gene, kind: str, start: int, end: int, attributes: str, phase="."):
    where = f"{gene.contig}\tx\t{kind}\t{start + 1}\t{end}\t.\t{gene.strand}\t{phase}"
    return f"{where}\t{attributes}"


def cds(gene: Gene, attributes: str, *, without_stop: bool = False) -> list[str]:
    """A line per coding exon, with its phase."""
    positions = np.setdiff1d(gene.coding, gene.stop) if without_stop else gene.coding
    parts, done, lines = intervals(positions), 0, []
    for start, end in parts if gene.strand == "+" else parts[::-1]:
        lines.append(feature(gene, "CDS", start, end, attributes, -done % 3))
        done += end - start
    return lines


def parts(gene: Gene, kind: str, attributes: str, positions: np.ndarray | None = None) -> list[str]:
    positions = gene.exons if positions is None else positions
    return [feature(gene, kind, a, b, attributes) for a, b in intervals(positions)]


def circle(contig: Contig) -> str:
    return ";Is_circular=true" * contig.is_circular


def regions(organism: Organism, kind: str = "region") -> Iterable[str]:
    yield "##gff-version 3"
    for contig in organism.genome.contigs:
        name, length = contig.name, contig.length
        yield f"##sequence-region {name} 1 {length}"
        if kind:
            yield f"{name}\tx\t{kind}\t1\t{length}\t.\t.\t.\tID={kind}:{name}{circle(contig)}"


def sequences(organism: Organism) -> Iterable[str]:
    yield "##FASTA"
    for contig in organism.genome.contigs:
        yield f">{contig.name}"
        yield decode(organism.genome.fetch(contig.name, 0, contig.length))


def ncbi(organism: Organism) -> Iterable[str]:
    yield from regions(organism)
    for gene in organism.genes:
        own, biotype = gene.gene_id, "protein_coding" if len(gene.coding) else "tRNA"
        names = f"Name={gene.name};gbkey=Gene;gene={gene.name};locus_tag={own}"
        yield feature(gene, "gene", *gene.span, f"ID=gene-{own};{names};gene_biotype={biotype}")
        kind = "mRNA" if len(gene.coding) else "tRNA"
        yield feature(gene, kind, *gene.span, f"ID=rna-{own};Parent=gene-{own};locus_tag={own}")
        yield from parts(gene, "exon", f"Parent=rna-{own};locus_tag={own}")
        more = f"gene={gene.name};locus_tag={own};product=5%27-kinase%3B putative;transl_table=11"
        yield from cds(gene, f"ID=cds-{own};Parent=rna-{own};{more}")


def ensembl(organism: Organism) -> Iterable[str]:
    yield from regions(organism, "chromosome")
    for gene in organism.genes:
        own, biotype = gene.gene_id, "protein_coding" if len(gene.coding) else "tRNA"
        kind = ("gene", "mRNA") if len(gene.coding) else ("ncRNA_gene", "tRNA")
        names = f"Name={gene.name};biotype={biotype};gene_id={own};logic_name=ena"
        yield feature(gene, kind[0], *gene.span, f"ID=gene:{own};{names}")
        names = f"Parent=gene:{own};biotype={biotype};transcript_id={own}-1"
        yield feature(gene, kind[1], *gene.span, f"ID=transcript:{own}-1;{names}")
        yield from parts(gene, "exon", f"Parent=transcript:{own}-1;Name={own}-1-E1;rank=1")
        yield from cds(gene, f"ID=CDS:{own}-1;Parent=transcript:{own}-1;protein_id={own}-1")
        yield "###"


def sgd(organism: Organism) -> Iterable[str]:
    yield from regions(organism, "chromosome")
    for gene in organism.genes:
        own, kind = gene.gene_id, "gene" if len(gene.coding) else "tRNA_gene"
        names = f"ID={own};Name={own};gene={gene.name};Alias={gene.name},old{own}"
        yield feature(gene, kind, *gene.span, f"{names};Note=a%20note;dbxref=SGD:S0")
        yield from cds(gene, f"Parent={own}_mRNA;Name={own}_CDS;orf_classification=Verified")
        kind = "mRNA" if len(gene.coding) else "tRNA"
        yield feature(gene, kind, *gene.span, f"ID={own}_{kind};Name={own}_{kind};Parent={own}")
        if kind == "tRNA":
            yield from parts(gene, "noncoding_exon", f"Parent={own}_tRNA;Name={own}_noncoding_exon")
    yield from sequences(organism)


def prokka(organism: Organism) -> Iterable[str]:
    yield from regions(organism, "")
    for gene in organism.genes:
        names = f"ID={gene.gene_id};Name={gene.name};gene={gene.name};locus_tag={gene.gene_id}"
        kind = "CDS" if len(gene.coding) else "tRNA"
        yield feature(gene, kind, *gene.span, f"{names};product=hypothetical protein", 0)
    yield from sequences(organism)


def bakta(organism: Organism) -> Iterable[str]:
    yield from regions(organism)
    yield "# Annotated with Bakta"
    for gene in organism.genes:
        names = f"ID={gene.gene_id};Name=a product;locus_tag={gene.gene_id};product=a product"
        kind = "CDS" if len(gene.coding) else "tRNA"
        yield feature(gene, kind, *gene.span, f"{names};Dbxref=SO:0001217;gene={gene.name}", 0)
    yield from sequences(organism)


def gtf(organism: Organism, biotype: str = "gene_biotype", version: str = "") -> Iterable[str]:
    yield "#!genome-build synthetic"
    for gene in organism.genes:
        own, type_ = gene.gene_id + version, "protein_coding" if len(gene.coding) else "tRNA"
        names = f'gene_id "{own}"; gene_name "{gene.name}"; {biotype} "{type_}"; level 2;'
        yield feature(gene, "gene", *gene.span, names)
        names += f' transcript_id "{own}.t1"; tag "basic"; tag "CCDS";'
        yield feature(gene, "transcript", *gene.span, names)
        yield from parts(gene, "exon", names)
        yield from cds(gene, names, without_stop=True)
        yield from parts(gene, "stop_codon", names, gene.stop)


def gencode(organism: Organism) -> Iterable[str]:
    return gtf(organism, "gene_type", ".3")


# Writer; whether genes may be spliced, and have UTRs; whether it declares circles.
ANNOTATIONS: list[tuple[Callable[[Organism], Iterable[str]], bool, bool, bool]] = [
    (ncbi, True, True, True),
    (ncbi, False, False, True),
    (ensembl, True, True, True),
    (sgd, True, False, True),
    (prokka, False, False, False),
    (bakta, False, False, True),
    (gtf, True, True, False),
    (gencode, True, True, False),
]


@pytest.mark.parametrize(("dialect", "is_spliced", "has_utr", "has_circles"), ANNOTATIONS)
@few
@given(seed=SEEDS, end=st.sampled_from(["\n", "\r\n"]), is_packed=st.booleans())
def test_genes_come_back(
    tmp_path_factory, dialect, is_spliced, has_utr, has_circles, seed, end, is_packed
):
    organism = make_organism(seed, is_spliced, has_utr)
    text = end.join([*dialect(organism), ""]).encode()
    path = tmp_path_factory.mktemp("annotation") / "genes.gff"
    write(path, gzip.compress(text) if is_packed else text)
    contigs = organism.genome.contigs
    circular = [contig.name for contig in contigs if contig.is_circular]
    flat = tuple(contig._replace(is_circular=False) for contig in contigs)
    genome = Genome(organism.genome.tokens, flat) if has_circles else organism.genome
    reading = parse_annotation(path, genome)
    assert set(reading.circular) == set(circular)
    found = reading.genes.set_index("gene_id")
    version = ".3" * (dialect is gencode)
    assert set(found.index) == {gene.gene_id + version for gene in organism.genes}
    for gene in organism.genes:
        row, (start, end_) = found.loc[gene.gene_id + version], gene.span
        assert (row["name"], row["contig"], row["strand"]) == (gene.name, gene.contig, gene.strand)
        assert (row["start"], row["end"]) == (start, end_)
        assert row["tss"] == (start if gene.strand == "+" else end_ - 1)
        assert (row["biotype"] == "protein_coding") == bool(len(gene.coding))
        coding = intervals(gene.coding)[:: 1 if gene.strand == "+" else -1]
        assert exons_of(row).tolist() == list(map(list, coding))
        assert reading.lengths[gene.gene_id + version] == len(gene.exons)
        assert reading.aliases[gene.name] == gene.gene_id + version


# --- sequences ---


@few
@given(
    st.lists(st.text("ACGTNacgtnRYryK", min_size=1, max_size=90), min_size=1, max_size=4),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.integers(1, 70),
    st.sampled_from(["plain", "gzip", "two members", "bgzip"]),
    st.sampled_from(["", "\ufeff"]),
)
def test_sequences_come_back(tmp_path_factory, contigs, end, width, packed, mark):
    path = tmp_path_factory.mktemp("fasta") / "g.fa"
    pieces = [
        end.join([f">c{i} Île-de-Ré", *(text[k : k + width] for k in range(0, len(text), width))])
        for i, text in enumerate(contigs)
    ]
    content = (mark + end.join([*pieces, ""])).encode()
    if packed == "bgzip":
        with pysam.BGZFile(str(path), "wb") as handle:
            handle.write(content)
    else:
        half = len(content) // 2 if packed == "two members" else 0
        halves = [content[:half], content[half:]]
        write(path, content if packed == "plain" else b"".join(map(gzip.compress, halves)))
    genome = read_fasta(path)
    assert [contig.name for contig in genome.contigs] == [f"c{i}" for i in range(len(contigs))]
    for contig, text in zip(genome.contigs, contigs, strict=True):
        assert np.array_equal(genome.fetch(contig.name, 0, len(text)), encode(text))
        lower = [letter.islower() for letter in text]
        assert genome.fetch_soft_masked(contig.name, 0, len(text)).tolist() == lower


# --- expression ---


class Measured(NamedTuple):
    """Genes x samples in each unit, and what belongs to them."""

    counts: pd.DataFrame
    lengths: dict[str, float]
    conditions: dict[str, str]

    def to(self, unit: str) -> pd.DataFrame:
        per_bp = self.counts.div(pd.Series(self.lengths), axis=0)
        tpm = per_bp / per_bp.sum() * 1e6
        rpkm = per_bp * 1e9 / self.counts.sum()
        return {"counts": self.counts, "tpm": tpm, "rpkm": rpkm, "log2tpm": np.log2(tpm + 1)}[unit]


def make_measured(seed: int) -> Measured:
    random = np.random.default_rng(seed)
    n_genes, n_samples = random.integers(3, 40), random.integers(1, 7)
    genes = [f"SYN_{i:05d}" for i in random.permutation(int(n_genes))]
    samples = [f"s{i}" for i in range(n_samples)]
    counts = random.negative_binomial(0.7, 0.001, (n_genes, n_samples)) + random.integers(0, 2)
    counts[0] += 1000
    table = pd.DataFrame(counts.astype(float), pd.Index(genes, name="gene"), samples)
    lengths = dict(zip(genes, random.integers(90, 3000, n_genes).astype(float), strict=True))
    conditions = {sample: str(random.choice(["warm", "cold"])) for sample in samples}
    return Measured(table, lengths, conditions)


def with_description(table: pd.DataFrame, name: str) -> pd.DataFrame:
    table = table.rename_axis(index="gene_id").reset_index()
    table.insert(1, name, "syn")
    return table


def write_gct(path: Path, table: pd.DataFrame) -> None:
    body = with_description(table, "Description").to_csv(sep="\t", index=False)
    write(path, f"#1.2\n{table.shape[0]}\t{table.shape[1]}\n{body}")


MATRICES: dict[str, Callable[[Path, pd.DataFrame], object]] = {
    "e.tsv": lambda path, table: table.to_csv(path, sep="\t"),
    "e.csv": lambda path, table: table.to_csv(path),
    "semicolons.csv": lambda path, table: table.to_csv(path, sep=";", decimal=","),
    "e.csv.gz": lambda path, table: table.to_csv(path),
    "windows.txt": lambda path, table: table.to_csv(
        path, sep="\t", encoding="utf-8-sig", lineterminator="\r\n"
    ),
    "r.tsv": lambda path, table: table.to_csv(
        path, sep="\t", index_label=False, quoting=csv.QUOTE_NONNUMERIC
    ),
    "e.parquet": lambda path, table: table.to_parquet(path),
    "plain.parquet": lambda path, table: table.reset_index().to_parquet(path),
    "e.h5ad": lambda path, table: ad.AnnData(table.T).write_h5ad(path),
    "sparse.h5ad": lambda path, table: ad.AnnData(
        csr_matrix(table.T), pd.DataFrame(index=table.columns), pd.DataFrame(index=table.index)
    ).write_h5ad(path),
    "e.gct": write_gct,
    "salmon.merged.gene_tpm.tsv": lambda path, table: with_description(table, "gene_name").to_csv(
        path, sep="\t", index=False
    ),
}


def agrees(path: Path, unit: str, measured: Measured, samples: Path | None = None) -> ad.AnnData:
    """Read with the lengths of the genes, and compare."""
    found = read_expression(path, unit, samples, measured.lengths)
    expected = measured.to("log2tpm")[list(found.obs_names)]
    assert found.var_names.tolist() == expected.index.tolist()
    np.testing.assert_allclose(found.X.T, expected, rtol=1e-6)
    return found


@pytest.mark.parametrize("name", MATRICES)
@few
@given(seed=SEEDS, unit=st.sampled_from(["counts", "tpm", "rpkm", "log2tpm"]))
def test_expression_comes_back(tmp_path_factory, name, seed, unit):
    folder, measured = tmp_path_factory.mktemp("expression"), make_measured(seed)
    MATRICES[name](folder / name, measured.to(unit))
    rows = [f"{s}\t{c}" for s, c in sorted(measured.conditions.items(), key=lambda x: x[1])]
    samples = write(folder / "s.tsv", "\n".join(["id\tCondition", "other\tx", *rows, ""]))
    found = agrees(folder / name, unit, measured, samples)
    assert found.obs["condition"].to_dict() == measured.conditions
    means = condition_means(found)
    for condition in means:
        own = [sample for sample, c in measured.conditions.items() if c == condition]
        mean = measured.to("log2tpm")[own].mean(axis=1)
        np.testing.assert_allclose(means[condition], mean, rtol=1e-6)


def feature_counts(measured: Measured) -> tuple[str, str]:
    table = measured.counts.rename_axis("Geneid")
    where = {"Chr": "c1;c1", "Start": "1;9", "End": "5;20", "Strand": "+;+"}
    for at, (name, value) in enumerate(where.items()):
        table.insert(at, name, value)
    table.insert(4, "Length", pd.Series(measured.lengths))
    return "counts.txt", '# Program:featureCounts v2; Command:"a" "b"\n' + table.to_csv(sep="\t")


def one_sample(measured: Measured, **columns: str) -> str:
    """Columns by name: "length", or a unit of the first sample."""
    table = pd.DataFrame(index=measured.counts.index.rename("id"))
    for name, kind in columns.items():
        own = pd.Series(measured.lengths) if kind == "length" else measured.to(kind)["s0"]
        table[name] = own
    return table.to_csv(sep="\t")


TOOLS: dict[str, tuple[tuple[str, ...], Callable[[Measured], tuple[str, str]]]] = {
    "featureCounts": (("counts",), feature_counts),
    "htseq-count": (("counts",), lambda m: (
        "s0.tsv", m.counts["s0"].to_csv(sep="\t", header=False))),
    "Salmon": (("counts", "tpm"), lambda m: ("quant.sf", one_sample(
        m, Length="length", EffectiveLength="length", TPM="tpm", NumReads="counts"))),
    "kallisto": (("counts", "tpm"), lambda m: ("abundance.tsv", one_sample(
        m, length="length", eff_length="length", est_counts="counts", tpm="tpm"))),
    "RSEM": (("counts", "tpm", "fpkm"), lambda m: ("s0.genes.results", one_sample(
        m, length="length", effective_length="length", expected_count="counts", TPM="tpm",
        FPKM="rpkm"))),
}  # fmt: skip


@pytest.mark.parametrize(
    ("tool", "unit"), [(tool, unit) for tool, (units, _) in TOOLS.items() for unit in units]
)
@few
@given(seed=SEEDS)
def test_tables_of_counting_tools_come_back(tmp_path_factory, tool, unit, seed):
    measured = make_measured(seed)
    name, text = TOOLS[tool][1](measured)
    folder = tmp_path_factory.mktemp("tool") / "s0"
    folder.mkdir()
    path = write(folder / name, text)
    found = agrees(path, unit, measured)
    assert read_measurements(path, unit).notes[0].startswith(f"{name}: ")
    n_samples = measured.counts.shape[1] if tool == "featureCounts" else 1
    assert found.n_obs == n_samples


# --- networks, gene sets, variants ---

GENES = pd.DataFrame({"gene_id": [f"SYN_{i}" for i in range(9)],
                      "name": [f"syn{chr(65 + i)}" for i in range(9)]})  # fmt: skip
ROW = st.integers(0, 8)


def called(row: int, how: int) -> str:
    """A gene by its id, its name, or either in other letters."""
    gene_id, name = GENES.iloc[row]
    return [gene_id, name, gene_id.lower(), name.upper()][how]


@few
@given(
    st.dictionaries(st.tuples(ROW, ROW), st.sampled_from([1, -1, 0]), min_size=1),
    st.sampled_from(["source,target,sign", "tf,gene,effect", "from,to,mode"]),
    st.sampled_from([("n.tsv", "\t"), ("n.csv", ","), ("n.csv", ";"), ("n.txt.gz", "\t")]),
    st.integers(0, 3),
)
def test_edges_come_back(tmp_path_factory, edges, header, kind, how):
    name, separator = kind
    lines = [header, *(f"{called(a, how)},{called(b, how)},{'?+-'[sign]}"
                       for (a, b), sign in edges.items()), ""]  # fmt: skip
    text = "\n".join(lines).replace(",", separator).encode()
    path = tmp_path_factory.mktemp("network") / name
    write(path, gzip.compress(text) if "gz" in name else text)
    found = read_network(path, GENES, gene_aliases(GENES)).edges
    pairs = found.set_index(["source", "target"])["sign"].to_dict()
    assert pairs == {(f"SYN_{a}", f"SYN_{b}"): sign for (a, b), sign in edges.items()}


@few
@given(
    st.dictionaries(
        st.sampled_from(["GO:9999991", "GO:9999992", "GO:9999993"]),
        st.lists(ROW, min_size=1, unique=True),
        min_size=1,
    ),
    st.integers(0, 3),
)
def test_gene_sets_come_back(tmp_path_factory, sets, how):
    folder = tmp_path_factory.mktemp("sets")
    named = {name: [called(row, how) for row in rows] for name, rows in sets.items()}
    pairs = [(gene, name) for name, genes in named.items() for gene in genes]
    fields = "DB\tP1\t{}\tenables\t{}\tref\tIDA\t" + "\t".join("abcdefghij")
    gmt = ["\t".join([name, "", *genes]) for name, genes in named.items()]
    write(folder / "s.gmt", "\r\n".join(gmt))
    write(folder / "s.gmt.gz", gzip.compress("\n".join(gmt).encode()))
    write(folder / "s.gaf", "\n".join(["!gaf 2.2", *(fields.format(*pair) for pair in pairs), ""]))
    write(folder / "s.csv", "\n".join(["gene,term", *map(",".join, pairs), ""]))
    expected = {name: tuple(f"SYN_{row}" for row in rows) for name, rows in sets.items()}
    for path in sorted(folder.iterdir()):
        assert read_gene_sets(path, GENES, gene_aliases(GENES)).gene_sets == expected, path.name


ALLELE = st.text("ACGT", min_size=1, max_size=4)
VARIANT = st.tuples(st.sampled_from(["c1", "c2"]), st.integers(1, 10**9).map(str), ALLELE, ALLELE)


@few
@given(st.lists(VARIANT, max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_variants_come_back(tmp_path_factory, variants, end):
    folder = tmp_path_factory.mktemp("vcf")
    head = ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    rows = [(contig, at, ".", ref, alt, ".", ".", ".") for contig, at, ref, alt in variants]
    content = end.join([*head, *map("\t".join, rows), ""]).encode()
    write(folder / "plain.vcf", content)
    write(folder / "gzip.vcf.gz", gzip.compress(content))
    with pysam.BGZFile(str(folder / "bgzip.vcf.gz"), "wb") as handle:
        handle.write(content)
    for path in folder.iterdir():
        assert read_header(path) == (head[:1], head[1])
        assert [record.columns for record in read_records(path)] == rows

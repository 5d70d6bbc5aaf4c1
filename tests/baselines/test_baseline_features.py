from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from genesplice.baselines.features import gene_set_features, kmer_codon_features, regulator_features
from genesplice.data.bundle import Bundle
from genesplice.data.coding import whole_gene
from genesplice.data.features import standardise
from genesplice.data.genome import Contig, Genome, decode, encode

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


def control(
    bundle: Bundle,
    sequence: str,
    genes: list[tuple[str, int, int, str, str]],
    *,
    is_circular: bool = False,
    measured: list[str] | None = None,
) -> Bundle:
    """`bundle` with another genome and other genes (id, start, end, strand, biotype)."""
    genome = Genome(encode(sequence), (Contig("x", 0, len(sequence), is_circular),))
    rows = [
        {
            "gene_id": gene, "name": gene, "contig": "x", "start": start, "end": end,
            "strand": strand, "tss": start if strand == "+" else end - 1, "biotype": biotype,
        }
        for gene, start, end, strand, biotype in genes
    ]  # fmt: skip
    rows = [row | {"exons": whole_gene(row), "genetic_code": 11} for row in rows]
    measured = measured or [gene[0] for gene in genes]
    expression = ad.AnnData(
        X=np.zeros((2, len(measured)), dtype=np.float32),
        obs=pd.DataFrame({"condition": ["a", "b"]}, index=["s1", "s2"]),
        var=pd.DataFrame(index=pd.Index(measured, name="gene_id")),
    )
    return replace(bundle, genome=genome, genes=pd.DataFrame(rows), expression=expression)


def random_sequence(n: int, seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), n))


def counts(text: str, k: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for i in range(len(text) - k + 1):
        found[text[i : i + k]] = found.get(text[i : i + k], 0) + 1
    return found


# --- k-mers and codons ---


def test_kmers_and_codons_against_counting_letters(tiny_bundle: Bundle):
    table = kmer_codon_features(tiny_bundle)
    assert list(table.index) == list(tiny_bundle.observed.index)
    assert table.shape[1] == 256 + 64 + 3
    genome = tiny_bundle.genome
    twice = decode(np.asarray(genome.tokens)) * 3
    for gene in tiny_bundle.genes.set_index("gene_id").loc[table.index[:30]].itertuples():
        at = genome.length
        if gene.strand == "+":
            upstream = twice[at + gene.start - 300 : at + gene.start]
            body = twice[at + gene.start : at + gene.end]
        else:
            upstream = twice[at + gene.end : at + gene.end + 300][::-1].translate(COMPLEMENT)
            body = twice[at + gene.start : at + gene.end][::-1].translate(COMPLEMENT)
        row = table.loc[gene.Index]
        expected = counts(upstream, 4)
        assert sum(expected.values()) == 297
        for word, n in expected.items():
            assert row[f"kmer:{word}"] == n
        assert row.filter(like="kmer:").sum() == 297
        codons = [body[i : i + 3] for i in range(0, len(body), 3)]
        is_orf = len(body) % 3 == 0 and not {"TAA", "TAG", "TGA"} & set(codons[:-1])
        assert row["gene:is_orf"] == is_orf
        assert row["gene:log2_length"] == pytest.approx(np.log2(len(body)))
        assert row["gene:gc"] == pytest.approx((body.count("G") + body.count("C")) / len(body))


def test_codon_use_of_one_open_reading_frame(tiny_bundle: Bundle):
    frame = "ATG" + "AAA" * 3 + "CTG" * 4 + "TAA"
    sequence = random_sequence(400) + frame + random_sequence(400, 1)
    genes = [("orf", 400, 400 + len(frame), "+", "protein_coding")]
    row = kmer_codon_features(control(tiny_bundle, sequence, genes)).loc["orf"]
    codons = row.filter(like="codon:")
    assert row["gene:is_orf"] == 1
    assert codons[codons > 0].to_dict() == pytest.approx(
        {"codon:AAA": 3 / 9, "codon:ATG": 1 / 9, "codon:CTG": 4 / 9, "codon:TAA": 1 / 9}
    )


@pytest.mark.parametrize(
    ("body", "biotype", "is_orf"),
    [
        ("ATGAAATAA", "protein_coding", 1),
        ("ATGAAAAAA", "protein_coding", 1),
        ("ATGAAATA", "protein_coding", 0),
        ("ATGTAGAAATAA", "protein_coding", 0),
        ("ATGAAATAA", "tRNA", 0),
        ("ATGAAATAA", "rRNA", 0),
        ("ATGAAATAA", "ncRNA", 0),
        ("ATGAAATAA", "transcribed_pseudogene", 0),
    ],
)
def test_what_counts_as_an_open_reading_frame(tiny_bundle: Bundle, body, biotype, is_orf):
    sequence = random_sequence(400) + body + random_sequence(400, 1)
    genes = [("g", 400, 400 + len(body), "+", biotype)]
    row = kmer_codon_features(control(tiny_bundle, sequence, genes)).loc["g"]
    assert row["gene:is_orf"] == is_orf
    assert row.filter(like="codon:").sum() == pytest.approx(is_orf)


@pytest.mark.parametrize(("strand", "code", "is_orf"), [("+", 4, 1), ("-", 4, 1), ("+", 1, 0)])
def test_a_spliced_gene_is_counted_without_its_introns_and_by_its_own_code(
    tiny_bundle: Bundle, strand, code, is_orf
):
    exons, intron = ("ATGTG", "ACCGTAA"), "GTAAGTTTTTTTTAG"
    body = exons[0] + intron + exons[1]
    if strand == "-":
        body = body[::-1].translate(COMPLEMENT)
    edges = [(400, 405), (420, 427)] if strand == "+" else [(422, 427), (400, 407)]
    sequence = random_sequence(400) + body + random_sequence(400, 1)
    bundle = control(tiny_bundle, sequence, [("g", 400, 427, strand, "protein_coding")])
    spliced = bundle.genes.assign(exons=[sum(edges, ())], genetic_code=code)
    row = kmer_codon_features(replace(bundle, genes=spliced)).loc["g"]
    assert row["gene:is_orf"] == is_orf
    expected = {f"codon:{codon}": is_orf / 4 for codon in ("ATG", "TGA", "CCG", "TAA")}
    codons = row.filter(like="codon:")
    assert codons[list(expected)].to_dict() == expected
    assert codons.sum() == is_orf
    assert row["gene:log2_length"] == pytest.approx(np.log2(12))
    assert row["gene:gc"] == pytest.approx(5 / 12)


def test_codons_and_kmers_with_n_are_not_counted(tiny_bundle: Bundle):
    sequence = "A" * 150 + "N" + "C" * 149 + "ATGNAACCCNNNTAA" + "G" * 100
    genes = [("g", 300, 315, "+", "protein_coding")]
    row = kmer_codon_features(control(tiny_bundle, sequence, genes)).loc["g"]
    assert row["kmer:AAAA"] == 147
    assert row["kmer:CCCC"] == 146
    assert row.filter(like="kmer:").sum() == 293
    codons = row.filter(like="codon:")
    assert codons[codons > 0].to_dict() == pytest.approx(
        {"codon:ATG": 1 / 3, "codon:CCC": 1 / 3, "codon:TAA": 1 / 3}
    )
    assert row["gene:gc"] == pytest.approx(4 / 11)


def test_a_gene_of_n_only_is_finite(tiny_bundle: Bundle):
    genes = [("g", 50, 80, "-", "protein_coding")]
    row = kmer_codon_features(control(tiny_bundle, "N" * 600, genes)).loc["g"]
    assert np.isfinite(row).all()
    assert row["gene:gc"] == 0.5
    assert row.filter(like="kmer:").sum() == row.filter(like="codon:").sum() == 0


@pytest.mark.parametrize("is_circular", [True, False])
def test_upstream_wraps_on_a_circle_and_ends_on_a_line(tiny_bundle: Bundle, is_circular):
    sequence = random_sequence(900)
    genes = [("first", 100, 160, "+", "protein_coding"), ("last", 700, 760, "-", "protein_coding")]
    table = kmer_codon_features(control(tiny_bundle, sequence, genes, is_circular=is_circular))
    for gene, upstream in {
        "first": sequence[700:] + sequence[:100],
        "last": (sequence[760:] + sequence[:160])[::-1].translate(COMPLEMENT),
    }.items():
        if not is_circular:
            upstream = sequence[:100] if gene == "first" else upstream[-140:]
        expected = counts(upstream, 4)
        got = table.loc[gene].filter(like="kmer:")
        got.index = got.index.str.removeprefix("kmer:")
        assert got[got > 0].to_dict() == expected


def test_reverse_complement_of_the_genome_changes_nothing(tiny_bundle: Bundle):
    expected = kmer_codon_features(tiny_bundle)
    genome, genes = tiny_bundle.genome, tiny_bundle.genes
    turned = Genome(genome.fetch("chr", 0, genome.length, "-"), genome.contigs)
    flipped = genes.assign(
        start=genome.length - genes["end"],
        end=genome.length - genes["start"],
        tss=genome.length - 1 - genes["tss"],
        strand=genes["strand"].map({"+": "-", "-": "+"}),
        exons=genes["exons"].map(lambda edges: genome.length - np.flip(edges)),
    )
    got = kmer_codon_features(replace(tiny_bundle, genome=turned, genes=flipped))
    pd.testing.assert_frame_equal(got, expected, check_exact=True)


# --- regulators ---


def with_network(bundle: Bundle, edges: list[tuple[str, str, int]]) -> Bundle:
    network = pd.DataFrame(edges, columns=["source", "target", "sign"])
    return replace(bundle, network=network.assign(kind="regulates", provenance="test"))


def test_regulators_and_signs(tiny_bundle: Bundle):
    genes = tiny_bundle.observed.index
    unmeasured = tiny_bundle.genes["gene_id"].iloc[-1]
    assert unmeasured not in genes
    bundle = with_network(
        tiny_bundle,
        [
            ("crp", genes[0], 1),
            ("crp", genes[1], -1),
            ("crp", genes[2], 0),
            ("FMN", genes[2], 0),
            ("ghost", unmeasured, 1),
        ],
    )
    table = regulator_features(bundle)
    assert list(table.columns) == ["regulates:FMN", "regulates:crp", "sign:crp"]
    assert table.loc[genes[:4], "regulates:crp"].tolist() == [1, 1, 1, 0]
    assert table.loc[genes[:4], "sign:crp"].tolist() == [1, -1, 0, 0]
    assert table["regulates:FMN"].sum() == 1
    two = regulator_features(bundle, min_targets=2)
    assert list(two.columns) == ["regulates:crp", "sign:crp"]


def test_a_network_without_signs_and_no_network(tiny_bundle: Bundle):
    genes = tiny_bundle.observed.index
    table = regulator_features(with_network(tiny_bundle, [("a", genes[0], 0), ("a", genes[5], 0)]))
    assert list(table.columns) == ["regulates:a"]
    assert regulator_features(with_network(tiny_bundle, [])).shape == (len(genes), 0)


def test_planted_targets_are_in_the_table(tiny_bundle: Bundle):
    table = regulator_features(tiny_bundle)
    for gene, edge in tiny_bundle.manifest["truth"]["targets"].items():
        assert table.loc[gene, f"regulates:{edge['regulator']}"] == 1
        assert table.loc[gene, f"sign:{edge['regulator']}"] == edge["sign"]


# --- gene sets ---


def test_gene_sets_by_prefix_and_size(tiny_bundle: Bundle):
    genes = list(tiny_bundle.observed.index)
    unmeasured = tiny_bundle.genes["gene_id"].iloc[-1]
    bundle = replace(
        tiny_bundle,
        gene_sets={
            "KEGG:b": (*genes[:3], unmeasured),
            "KEGG:a": tuple(genes[1:4]),
            "KEGG:same as b": tuple(genes[2::-1]),
            "KEGG:small": (genes[0],),
            "KEGG:everybody": tuple(genes),
            "KEGG:nobody": (unmeasured,),
            "GO:1": tuple(genes[:20]),
        },
    )
    table = gene_set_features(bundle, "KEGG:")
    assert list(table.columns) == ["KEGG:a", "KEGG:b"]
    assert table.index[table["KEGG:b"] == 1].tolist() == genes[:3]
    assert set(np.unique(table)) == {0, 1}
    assert list(gene_set_features(bundle).columns) == ["GO:1", "KEGG:a", "KEGG:b"]
    assert list(gene_set_features(bundle, min_genes=4).columns) == ["GO:1"]
    assert "KEGG:small" in gene_set_features(bundle, min_genes=1)
    assert gene_set_features(bundle, "COG:").shape == (len(genes), 0)


# --- all of them ---


@pytest.mark.parametrize(
    "features",
    [kmer_codon_features, regulator_features, gene_set_features],
    ids=lambda f: f.__name__,
)
def test_expression_decides_nothing(tiny_bundle: Bundle, features):
    expression = tiny_bundle.expression.copy()
    expression.X = np.random.default_rng(0).random(expression.shape, dtype=np.float32)
    expected = features(tiny_bundle)
    got = features(replace(tiny_bundle, expression=expression))
    pd.testing.assert_frame_equal(got, expected, check_exact=True)
    order = tiny_bundle.expression.var_names[::-1]
    backwards = features(replace(tiny_bundle, expression=tiny_bundle.expression[:, order].copy()))
    assert list(backwards.index) == list(order)
    pd.testing.assert_frame_equal(
        backwards.loc[expected.index, expected.columns], expected, check_exact=True
    )


def test_standardise_knows_the_training_genes_only():
    generator = np.random.default_rng(0)
    values = generator.normal(3, 2, (50, 4))
    is_train = np.arange(50) < 30
    values[is_train, 2] = 1.0
    scaled = standardise(values, is_train)
    np.testing.assert_allclose(scaled[is_train].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(scaled[is_train].std(axis=0), [1, 1, 0, 1], atol=1e-12)
    assert (scaled[:, 2] == 0).all()
    changed = values.copy()
    changed[~is_train] *= 100
    np.testing.assert_array_equal(standardise(changed, is_train)[is_train], scaled[is_train])


def test_ecoli_features(ecoli: Bundle):
    table = kmer_codon_features(ecoli)
    assert table.shape == (len(ecoli.observed), 323)
    assert np.isfinite(table.to_numpy()).all()
    assert table.loc["b0002", "codon:ATG"] > 0
    # The TGA in the middle of fdhF (b4079) is read as selenocysteine.
    assert table.loc["b4079", "gene:is_orf"] == 0
    coding = ecoli.genes.set_index("gene_id").loc[table.index, "biotype"] == "protein_coding"
    assert table.loc[coding, "gene:is_orf"].mean() > 0.99
    regulators = regulator_features(ecoli)
    assert {"regulates:b3357", "sign:b3357"} <= set(regulators)  # crp
    # lacZ (b0344): CRP acts both ways there, H-NS represses; LacI has too few targets to count.
    columns = ["regulates:b3357", "sign:b3357", "regulates:b1237", "sign:b1237"]
    assert regulators.loc["b0344", columns].tolist() == [1, 0, 1, -1]
    assert "regulates:b0345" in regulator_features(ecoli, min_targets=1)

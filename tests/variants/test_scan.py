"""A scan against scores one by one; promoters; random substitutions; the command."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pysam
import pytest
from command_line import call
from tiny_variants import make_masked, save_masked

from genesplice.data.genome import Contig, Genome, encode
from genesplice.errors import InputError
from genesplice.predict.models import Models
from genesplice.results import read_metrics
from genesplice.variants.alleles import ContigNames, Region, contig_names
from genesplice.variants.likelihood import STRIDE_BP, Hidden, MaskedBases
from genesplice.variants.scan import (
    CORE_BP,
    FLANK_BP,
    parse_region,
    random_substitutions,
    scan_core,
    scan_promoter,
    scan_regions,
)


@pytest.fixture(scope="module")
def score():
    return MaskedBases(make_masked("model.base_width=0"))


def test_a_scan_hides_every_32nd_base_of_its_core(score, tiny_bundle):
    genome = tiny_bundle.genome
    start = 2 * CORE_BP + 100
    found = scan_core(score, genome, Region("chr", start, start + 3)).reset_index()
    assert found["position"].tolist() == [start + 1, start + 2, start + 3]
    low = 2 * CORE_BP - FLANK_BP
    window = "chr", low, low + CORE_BP + 2 * FLANK_BP
    tokens, columns = genome.fetch(*window), genome.fetch_columns(*window)
    for i, row in found.iterrows():
        first = 2 * CORE_BP + (start + i) % STRIDE_BP - low
        positions = np.arange(first, FLANK_BP + CORE_BP, STRIDE_BP)
        (log_probs,) = score([Hidden(tokens, positions, columns)])
        at = int(np.flatnonzero(positions == start + i - low)[0])
        change = log_probs[:, at] - log_probs[:, at, "ACGT".index(row["ref"]), None]
        np.testing.assert_allclose(
            [row[f"to_{base}"] for base in "ACGT"], change.mean(0), atol=1e-4
        )
        spread = np.abs(change[0] - change[1]).max()
        assert row["strand_spread"] == pytest.approx(spread, abs=1e-4)
        assert row[f"to_{row['ref']}"] == 0


def test_a_region_does_not_change_its_scores(score, tiny_bundle, tmp_path):
    genome, edge = tiny_bundle.genome, 3 * CORE_BP
    regions = [Region("chr", edge - 20, edge + 20)]
    out = tmp_path / "out"
    out.mkdir()
    scan_regions(score, genome, regions, tmp_path / "parts", out)
    whole = pd.read_parquet(out / "scan.parquet")
    assert whole["position"].tolist() == list(range(edge - 19, edge + 21))
    part = scan_core(score, genome, Region("chr", edge - 5, edge))
    same = whole[whole["position"].isin(part["position"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(same, part, atol=1e-4, check_exact=False)
    # The texts say the same, and tabix finds them by place.
    text = pd.read_csv(out / "scan.tsv.gz", sep="\t")
    np.testing.assert_allclose(text["to_A"], whole["to_A"], rtol=1e-3, atol=1e-4)
    with pysam.TabixFile(str(out / "mean_llr.bedgraph.gz")) as handle:
        (line,) = handle.fetch("chr", edge, edge + 1)
    contig, start, end, value = line.split("\t")
    assert (contig, int(start), int(end)) == ("chr", edge, edge + 1)
    row = whole[whole["position"] == edge + 1].iloc[0]
    mean = sum(row[f"to_{base}"] for base in "ACGT") / 3
    assert float(value) == pytest.approx(mean, rel=1e-3)
    with pysam.TabixFile(str(out / "scan.tsv.gz")) as handle:
        assert len(list(handle.fetch("chr", edge - 3, edge + 3))) == 6


def test_a_scan_goes_on_where_it_was_stopped(score, tiny_bundle, tmp_path, monkeypatch):
    parts, out = tmp_path / "parts", tmp_path / "out"
    out.mkdir()
    regions = [Region("chr", CORE_BP - 4, CORE_BP + 4)]
    scan_regions(score, tiny_bundle.genome, regions, parts, out)
    first = (out / "scan.tsv.gz").read_bytes()
    (parts / f"chr_{CORE_BP}_{CORE_BP + 4}.parquet").unlink()
    done = []
    whole = scan_core

    def counted(*arguments):
        done.append(arguments[2])
        return whole(*arguments)

    monkeypatch.setattr("genesplice.variants.scan.scan_core", counted)
    scan_regions(score, tiny_bundle.genome, regions, parts, out)
    assert done == [Region("chr", CORE_BP, CORE_BP + 4)]
    assert (out / "scan.tsv.gz").read_bytes() == first
    another = MaskedBases(make_masked("model.base_width=0", seed=4))
    with pytest.raises(InputError, match="a scan with model"):
        scan_regions(another, tiny_bundle.genome, regions, parts, out)


def test_regions_are_read(tiny_bundle):
    names = contig_names(tiny_bundle)
    assert parse_region("all", names) == parse_region("chr", names) == [Region("chr", 0, 120_000)]
    assert parse_region("chr:1,001-1,100", names) == [Region("chr", 1000, 1100)]


def test_a_contig_of_a_region_may_be_called_as_in_a_vcf():
    genome = Genome(
        np.zeros(90, np.uint8), (Contig("NC_000913.3", 0, 90, True),), np.zeros((0, 2), np.int64)
    )
    names, told = ContigNames(genome, {"U00096.3": "NC_000913.3"}), []
    for text, low, high in (
        ("NC_000913:11-20", 10, 20), ("U00096.3:11-20", 10, 20), ("nc_000913", 0, 90),
    ):  # fmt: skip
        assert parse_region(text, names, tell=told.append) == [Region("NC_000913.3", low, high)]
    assert told == [
        "--region NC_000913:11-20: NC_000913 is NC_000913.3",
        "--region U00096.3:11-20: U00096.3 is NC_000913.3",
        "--region nc_000913: nc_000913 is NC_000913.3",
    ]
    with pytest.raises(InputError, match=r"found contig 'NC_000914', expected NC_000913\.3"):
        parse_region("NC_000914:11-20", names)


def test_random_substitutions_are_sorted_and_have_their_own_base(tiny_bundle):
    genome = tiny_bundle.genome
    table = random_substitutions(genome, Region("chr", 500, 560), 60)
    assert table["position"].tolist() == list(range(501, 561))
    assert "".join(table["ref"]) == "".join("ACGT"[t] for t in genome.fetch("chr", 500, 560))
    fewer = random_substitutions(genome, Region("chr", 500, 560), 20, seed=1)["position"]
    assert fewer.is_unique
    assert fewer.is_monotonic_increasing
    many = random_substitutions(genome, Region("chr", 0, 3000), 3000)
    counts = (many["ref"] + many["alt"]).value_counts()
    assert len(counts) == 12
    assert counts.min() > 0.6 * counts.max()
    tokens = np.array(genome.tokens)
    tokens[10:20] = 4
    with pytest.raises(InputError, match="5 known bases"):
        random_substitutions(dataclasses.replace(genome, tokens=tokens), Region("chr", 5, 20), 6)


@pytest.mark.parametrize("strand", "+-")
def test_a_promoter_is_scanned_on_its_own_strand(score, tiny_bundle, strand):
    genes = tiny_bundle.genes[tiny_bundle.genes["strand"] == strand]
    gene = genes.iloc[len(genes) // 2]
    # A promoter of consensus hexamers, 30 and 53 bases before the start.
    tokens, planted = np.array(tiny_bundle.genome.tokens), {-53: "TTGACA", -30: "TATAAT"}
    for distance, hexamer in planted.items():
        at = gene.tss + distance if strand == "+" else gene.tss - distance - 5
        tokens[at : at + 6] = encode(hexamer) if strand == "+" else 3 - encode(hexamer)[::-1]
    genome = dataclasses.replace(tiny_bundle.genome, tokens=tokens)
    bundle = dataclasses.replace(tiny_bundle, genome=genome)
    found = scan_promoter(
        Models(score.model, None, (), ()), bundle, gene["name"], upstream_bp=100, downstream_bp=20
    )
    assert (found.gene_id, found.offset_bp, len(found.tokens)) == (gene.gene_id, -100, 120)
    assert [hit[:3] for hit in found.hexamers] == [(-53, -47, "-35"), (-30, -24, "-10")]
    assert found.table["distance_bp"].tolist() == list(range(-100, 20))
    assert "".join(found.table["ref"]) == "".join("ACGT"[t] for t in found.tokens)
    # One base against the scan of the genome's own strand.
    row = found.table.iloc[70]
    position = int(gene.tss) + (-30 if strand == "+" else 30)
    plain = scan_core(score, genome, Region("chr", position, position + 1)).iloc[0]
    flip = str.maketrans("ACGT", "ACGT" if strand == "+" else "TGCA")
    assert (row["position"], row["ref"]) == (position + 1, plain["ref"].translate(flip))
    for base in "ACGT":
        assert row[f"to_{base}"] == pytest.approx(plain[f"to_{base.translate(flip)}"], abs=1e-4)


def test_the_default_promoter_is_that_of_the_most_active_gene(score, tiny_bundle):
    found = scan_promoter(
        Models(score.model, None, (), ()), tiny_bundle, upstream_bp=10, downstream_bp=5
    )
    assert found.gene_id == tiny_bundle.observed.mean(axis=1).idxmax()


def test_the_command(tiny_bundle, tmp_path):
    model = save_masked(tmp_path / "pre", "model.base_width=0")
    words = ["--model", model, "--data", tiny_bundle.path]
    answer = call("scan", *words, "--region", "chr:101-110", "--out", tmp_path / "scan")
    assert answer.code == 0, answer.err
    assert len(pd.read_parquet(tmp_path / "scan" / "scan.parquet")) == 10
    manifest = json.loads((tmp_path / "scan" / "manifest.json").read_text())
    assert manifest["config"]["hidden_every_bp"] == 32
    names = {m.metric for m in read_metrics(tmp_path / "scan" / "metrics.json")}
    assert names == {"llr_shared_mask_r", "llr_shared_mask_rmse"}
    assert not (tmp_path / "scan.parts").exists()

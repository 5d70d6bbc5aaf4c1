"""A scan against scores one by one; known classes; measured values; what the commands write."""

import json

import numpy as np
import pandas as pd
import pysam
import pytest
from sklearn.metrics import roc_auc_score
from tiny_models import make_tiny
from tiny_variants import call, letters, make_masked, other, save_masked

from genesplice.baselines.count_models import fit_count_model
from genesplice.data.genome import encode
from genesplice.data.splits import first_of_operon
from genesplice.errors import InputError
from genesplice.evaluate.bootstrap import resampled
from genesplice.explain.mutagenesis import mutate
from genesplice.predict.gene_output import Explainer
from genesplice.results import read_metrics
from genesplice.variants.auroc import auroc, auroc_metric, spearman
from genesplice.variants.classes import (
    box_levels,
    class_metrics,
    class_table,
    find_promoter,
    translate,
)
from genesplice.variants.comb import EVERY_BP
from genesplice.variants.likelihood import Hidden, MaskedBases
from genesplice.variants.measured import measured_metrics, read_measured, score_measured
from genesplice.variants.scan import (
    CORE_BP,
    FLANK_BP,
    Region,
    parse_region,
    read_scan,
    scan_core,
    scan_regions,
)


@pytest.fixture(scope="module")
def score():
    return MaskedBases(make_masked("model.base_width=0"))


# --- scan ---


def test_a_scan_hides_every_32nd_base_of_its_core(score, tiny_bundle):
    genome = tiny_bundle.genome
    start = 2 * CORE_BP + 100
    found = scan_core(score, genome, Region("chr", start, start + 3)).reset_index()
    assert found["position"].tolist() == [start + 1, start + 2, start + 3]
    low = 2 * CORE_BP - FLANK_BP
    tokens = genome.fetch("chr", low, low + CORE_BP + 2 * FLANK_BP)
    for i, row in found.iterrows():
        first = 2 * CORE_BP + (start + i) % EVERY_BP - low
        places = np.arange(first, FLANK_BP + CORE_BP, EVERY_BP)
        (told,) = score([Hidden(tokens, places)])
        at = int(np.flatnonzero(places == start + i - low)[0])
        change = told[:, at] - told[:, at, "ACGT".index(row["ref"]), None]
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
    text = read_scan(out / "scan.tsv.gz")
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
    genome = tiny_bundle.genome
    assert parse_region("all", genome) == parse_region("chr", genome) == [
        Region("chr", 0, 120_000)
    ]  # fmt: skip
    assert parse_region("chr:1,001-1,100", genome) == [Region("chr", 1000, 1100)]
    for text in ("chr:5", "chr:9-5", "chr:0-5", "chr:1-120001", "chr:a-b"):
        with pytest.raises(InputError, match="--region"):
            parse_region(text, genome)
    with pytest.raises(InputError, match="contig 'x'"):
        parse_region("x:1-5", genome)


# --- intervals ---


def test_auroc_and_spearman_are_those_of_other_libraries():
    generator = np.random.default_rng(0)
    is_case, value = generator.random(200) < 0.3, generator.integers(0, 20, 200).astype(float)
    assert auroc(is_case, value) == pytest.approx(roc_auc_score(is_case, value))
    other_value = value + generator.normal(0, 5, 200)
    expected = pd.Series(value).corr(pd.Series(other_value), method="spearman")
    assert spearman(value, other_value) == pytest.approx(expected)
    assert spearman(value, np.ones(200)) == 0
    assert np.isnan(auroc(np.ones(3, bool), np.ones(3)))
    assert auroc_metric("x", np.ones(3, bool), np.ones(3), np.arange(3)) == []


def test_an_interval_is_wider_over_few_units():
    generator = np.random.default_rng(1)
    unit = np.repeat(np.arange(20), 50)
    value = generator.normal(0, 1, 20)[unit] + generator.normal(0, 0.1, 1000)
    mean = lambda rows: float(value[rows].mean())  # noqa: E731
    found, low, high = resampled(mean, unit)
    assert found == pytest.approx(value.mean())
    assert low < found < high
    _, near_low, near_high = resampled(mean, np.arange(1000))
    assert high - low > 3 * (near_high - near_low)
    assert resampled(mean, np.zeros(1000))[1:] == (None, None)


# --- known classes ---


def test_a_planted_promoter_is_found():
    generator = np.random.default_rng(0)
    upstream = generator.integers(0, 4, 200).astype(np.uint8)
    upstream[100:106], upstream[123:129] = encode("TTGACA"), encode("TATAAT")
    assert find_promoter(upstream) == (100, 123, 12)


def test_codons():
    assert translate("ATG") == "M"
    assert translate("TGA") == translate("TAA") == "*"


def test_every_row_of_the_table_is_what_it_says(score, tiny_bundle):
    table = class_table(score, tiny_bundle, n_genes=2)
    genes = tiny_bundle.genes.set_index("gene_id")
    assert set(table["gene_id"]) <= set(genes.index)
    for gene_id, part in table.groupby("gene_id"):
        gene = genes.loc[gene_id]
        sense = tiny_bundle.genome.fetch("chr", int(gene.start), int(gene.end), gene.strand)
        start = part[part["place"] == "start"]
        assert len(start) == 9
        assert start["ref"].tolist() == [b for b in ("ACGT"[t] for t in sense[:3]) for _ in "xyz"]
        assert set(start["codon_position"]) == {1, 2, 3}
        assert (part["ref"] != part["alt"]).all()
        assert (part.loc[part["place"].isin(["box", "flank"]), "codon_position"] == 0).all()
        boxes = (part["place"] == "box").sum()
        assert boxes in (0, 36)
    # About one change in 24 makes a stop.
    body = table[table["place"] == "body"]
    assert 0.02 < body["is_nonsense"].astype(bool).mean() < 0.08
    assert not (body["is_nonsense"].astype(bool) & body["is_synonymous"].astype(bool)).any()
    third = table[(table["place"] == "body") & (table["codon_position"] == 3)]
    second = table[(table["place"] == "body") & (table["codon_position"] == 2)]
    assert third["is_synonymous"].mean() > 0.5
    assert second["is_synonymous"].mean() < 0.1


def test_planted_classes_are_told_apart_and_random_ones_are_not():
    generator = np.random.default_rng(0)
    rows = []
    for gene in range(30):
        for place, position, same, count in (
            ("start", 1, False, 9), ("stop", 2, False, 9), ("stop", 3, True, 1),
            ("body", 1, False, 40), ("body", 3, True, 40), ("box", 0, None, 20),
            ("nonsense", 2, False, 5),
            ("flank", 0, None, 20),
        ):  # fmt: skip
            for _ in range(count):
                ref, alt = generator.choice(list("ACGT"), 2, replace=False)
                rows.append((f"g{gene}", place, position, ref, alt, same))
    columns = ["gene_id", "place", "codon_position", "ref", "alt", "is_synonymous"]
    table = pd.DataFrame(rows, columns=columns)
    table["is_nonsense"] = table["place"] == "nonsense"
    table["place"] = table["place"].replace("nonsense", "body")
    noise = generator.normal(0, 0.1, len(table))
    harm = table["place"].map({"start": 3.0, "stop": 3.0, "box": 1.0, "flank": 0.0, "body": 0.0})
    harm += 1.0 * table["is_nonsense"]
    harm += (table["is_synonymous"] == False).astype(float)  # noqa: E712
    found = {m.metric: m for m in class_metrics(table.assign(llr=noise - harm))}
    assert {name for name in found} == {
        "auroc_start", "auroc_stop", "auroc_start_stop", "auroc_codon_12_3",
        "auroc_nonsynonymous", "auroc_nonsense", "auroc_boxes",
    }  # fmt: skip
    assert all(one.value > 0.99 for one in found.values())
    assert found["auroc_stop"].n == 270
    flat = {m.metric: m for m in class_metrics(table.assign(llr=noise))}
    assert all(one.ci_low - 0.02 < 0.5 < one.ci_high + 0.02 for one in flat.values())
    # A composition that differs is no signal: ratios that follow the two bases alone.
    of_pair = table["ref"].map(ord) * 7.0 + table["alt"].map(ord)
    composed = class_metrics(table.assign(llr=of_pair, llr_counts=noise - harm))
    assert all(abs(m.value - 0.5) < 0.01 for m in composed if m.model == "genesplice")
    assert [m.value for m in composed if m.model == "count_two_sided"] == [
        m.value for m in class_metrics(table.assign(llr=noise - harm))
    ]


def test_boxes_by_the_predicted_level_are_those_of_mutagenesis(tiny_bundle):
    explainer = Explainer(make_tiny(tiny_bundle), tiny_bundle, window_bp=2048)
    size, loss = box_levels(explainer, n_genes=1)
    assert (size.metric, loss.metric) == ("auroc_boxes_level_size", "auroc_boxes_level")
    assert size.n == loss.n == 36
    # The gene again, all of its upstream by itself.
    is_first, measured = (
        first_of_operon(tiny_bundle.genome, tiny_bundle.genes, tiny_bundle.splits),
        set(tiny_bundle.expression.var_names),
    )
    usable = [gene_id for gene_id in is_first.index[is_first] if gene_id in measured]
    gene_id = str(np.random.default_rng(0).permutation(np.array(usable))[0])
    window = explainer.window(gene_id)
    upstream = window.tokens[0, window.start - 250 : window.start].numpy()
    box_35, box_10, _ = find_promoter(upstream)
    effects = mutate(explainer, gene_id, upstream_bp=250, downstream_bp=0)
    is_box, change = [], []
    for place in range(box_35 - 8, min(box_10 + 14, 250)):
        for alt in range(4):
            if alt != effects.tokens[place]:
                is_box.append(place in (*range(box_35, box_35 + 6), *range(box_10, box_10 + 6)))
                change.append(effects.effects[place, alt])
    for metric, value in ((size, np.abs(change)), (loss, -np.array(change))):
        assert metric.value == pytest.approx(roc_auc_score(is_box, value), abs=2e-3)


# --- measured values ---


@pytest.fixture(scope="module")
def measured(tiny_bundle):
    genome = tiny_bundle.genome
    rows = []
    counts = fit_count_model(genome, [("chr", 0, genome.length)], 4, 4)
    for start in range(500, 700, 5):
        ref = letters(genome, start)
        alt = other(ref, 1 + start % 3)
        tokens = genome.fetch("chr", start - 64, start + 65)
        changed = tokens.copy()
        changed[64] = "ACGT".index(alt)
        own = np.log(counts.probabilities(tokens)[64])
        value = own["ACGT".index(alt)] - own["ACGT".index(ref)]
        rows.append(("chr", start + 1, ref, alt, float(value)))
    return pd.DataFrame(rows, columns=["contig", "position", "ref", "alt", "value"])


def test_measured_values_are_met_by_what_made_them(score, tiny_bundle, measured):
    # The count model's own ratio, measured: it is found again, whole.
    scored = score_measured(measured, tiny_bundle, masked=score)
    found = {(m.model, m.metric): m for m in measured_metrics(scored)}
    counts = fit_count_model(tiny_bundle.genome, [("chr", 0, 120_000)], 4, 4).name
    assert {model for model, _ in found} == {"llr", "gc", "tss_distance", counts}
    assert found[counts, "measured_spearman"].value == pytest.approx(1)
    assert found[counts, "measured_sign_accuracy"].value == 1
    assert found[counts, "measured_auroc"].value == 1
    assert abs(found["llr", "measured_spearman"].value) < 0.6
    low, high = (getattr(found["llr", "measured_spearman"], f"ci_{end}") for end in ("low", "high"))
    assert low < found["llr", "measured_spearman"].value < high
    gc = scored.apply(lambda r: (r["alt"] in "GC") - (r["ref"] in "GC"), axis=1)
    assert np.array_equal(scored["gc"], gc)
    tss = tiny_bundle.genes["tss"].to_numpy()
    assert scored["tss_distance"][0] == np.abs(tss - 500).min()


def test_rows_that_cannot_be_scored_are_kept_and_named(score, tiny_bundle, measured):
    wrong = pd.concat([measured, measured.head(1).assign(ref="N"), measured.head(1).assign(
        contig="x")], ignore_index=True)  # fmt: skip
    scored = score_measured(wrong, tiny_bundle, masked=score)
    assert scored["flag"].tolist()[-2:] == ["n_in_window", "unknown_contig"]
    assert scored["llr"].isna().sum() == 2
    assert measured_metrics(scored)[0].n == len(measured)
    with pytest.raises(InputError, match="5 measured variants"):
        measured_metrics(scored.head(5))


def test_a_measured_file_is_checked(tmp_path, measured):
    path = tmp_path / "m.tsv"
    measured.to_csv(path, sep="\t", index=False)
    pd.testing.assert_frame_equal(read_measured(path), measured, atol=1e-6, check_exact=False)
    measured.drop(columns="value").to_csv(path, sep="\t", index=False)
    with pytest.raises(InputError, match="no column value"):
        read_measured(path)
    measured.assign(value="much").to_csv(path, sep="\t", index=False)
    with pytest.raises(InputError, match="value 'much'") as caught:
        read_measured(path)
    assert caught.value.line == 2


# --- the commands ---


def test_the_commands(tiny_bundle, measured, tmp_path):
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

    measured.to_csv(tmp_path / "m.tsv", sep="\t", index=False)
    more = ["--measured", tmp_path / "m.tsv", "--classes", "1", "--out", tmp_path / "figures"]
    answer = call("variants", *words, *more)
    assert answer.code == 0, answer.err
    names = {m.metric for m in read_metrics(tmp_path / "figures.metrics.json")}
    assert names >= {"measured_spearman", "auroc_start_stop", "auroc_nonsynonymous"}
    assert len(pd.read_csv(tmp_path / "figures.measured.tsv", sep="\t")) == len(measured)
    answer = call("variants", *words, "--out", tmp_path / "none")
    assert answer.code == 2
    assert "no --vcf, --measured or --classes" in answer.err

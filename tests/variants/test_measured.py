"""Measured values: what made them is found, and the command."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from Bio.Align import substitution_matrices
from command_line import call, succeed
from tiny_genomes import make_relatives
from tiny_variants import letters, make_masked, other, save_masked

from genesplice.baselines.features import fit_count_model
from genesplice.data.assay import read_measured
from genesplice.errors import InputError
from genesplice.results import read_metrics
from genesplice.variants.alleles import check_record, contig_names
from genesplice.variants.consequence import Consequences
from genesplice.variants.likelihood import MaskedBases
from genesplice.variants.measured import measured_metrics, score_measured
from genesplice.variants.vcf import table_records

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def score():
    return MaskedBases(make_masked("model.base_width=0"))


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
    assert {model for model, _ in found} == {"llr", "gc", "tss_distance", counts, "blosum62"}
    assert found[counts, "measured_spearman"].value == pytest.approx(1)
    assert found[counts, "measured_sign_accuracy"].value == 1
    assert found[counts, "measured_auroc"].value == 1
    assert abs(found["llr", "measured_spearman"].value) < 0.6
    low, high = (getattr(found["llr", "measured_spearman"], f"ci_{end}") for end in ("low", "high"))
    assert low < found["llr", "measured_spearman"].value < high
    matrix = substitution_matrices.load("BLOSUM62")
    exchanges = Consequences(tiny_bundle.genome, tiny_bundle.genes).exchanged
    names = contig_names(tiny_bundle)
    alleles = [check_record(record, names)[0] for record in table_records(measured)]
    pairs = [exchanges(allele) for allele in alleles]
    assert max(map(len, pairs)) == 1
    wanted = [sum(matrix[a, b] - matrix[a, a] for a, b in one) for one in pairs]
    assert scored["blosum62"].tolist() == wanted
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


def test_a_measured_row_is_read_as_far_as_a_record_of_a_vcf(tiny_bundle, measured, tmp_path):
    model = save_masked(tmp_path / "pre", "model.base_width=0")
    bases = letters(tiny_bundle.genome, 800, 2)
    both = "chr", 801, bases, "".join(map(other, bases)), 0.0
    rows = pd.concat([measured, pd.DataFrame([both], columns=measured.columns)])
    rows.to_csv(tmp_path / "m.tsv", sep="\t", index=False)
    words = ["--model", model, "--data", tiny_bundle.path, "--measured", tmp_path / "m.tsv"]
    tables = {}
    for name, limits in {"usual": [], "own": ["--window", "4096", "--max-length", "1"]}.items():
        succeed("variants", *words, *limits, "--out", tmp_path / name)
        tables[name] = pd.read_csv(tmp_path / f"{name}.measured.tsv", sep="\t")
    assert tables["usual"]["flag"].isna().all()
    assert tables["own"]["flag"].tolist()[-1] == "too_long"
    assert (tables["usual"]["llr"] != tables["own"]["llr"])[:-1].all()


def test_a_measured_file_comes_back(tmp_path, measured):
    path = tmp_path / "m.tsv"
    measured.to_csv(path, sep="\t", index=False)
    pd.testing.assert_frame_equal(
        read_measured(path).reset_index(drop=True), measured, atol=1e-6, check_exact=False
    )


def test_the_command(tiny_bundle, measured, tmp_path):
    model = save_masked(tmp_path / "pre", "model.base_width=0")
    words = ["--model", model, "--data", tiny_bundle.path]
    measured.to_csv(tmp_path / "m.tsv", sep="\t", index=False)
    (tmp_path / "listed.txt").write_text("\n".join(tiny_bundle.genes["name"][::2]))
    more = ["--measured", tmp_path / "m.tsv", "--classes", "2", "--out", tmp_path / "figures"]
    more += ["--genes", tmp_path / "listed.txt"]
    answer = call("variants", *words, *more)
    assert answer.code == 0, answer.err
    names = {m.metric for m in read_metrics(tmp_path / "figures.metrics.json")}
    assert names >= {"measured_spearman", "auroc_start_stop", "auroc_nonsynonymous"}
    assert "auroc_nonsense_listed" in names
    assert len(pd.read_csv(tmp_path / "figures.measured.tsv", sep="\t")) == len(measured)
    answer = call("variants", *words, "--out", tmp_path / "none")
    assert answer.code == 2
    assert "no --vcf, --measured or --classes" in answer.err
    more = ["--measured", tmp_path / "m.tsv", "--genes", tmp_path / "listed.txt"]
    answer = call("variants", *words, *more, "--out", tmp_path / "none")
    assert answer.code == 2
    assert "--genes without --classes" in answer.err


def test_the_column_is_among_the_scores(score, tiny_bundle, measured):
    relatives = make_relatives(tiny_bundle, 6)
    genome = dataclasses.replace(tiny_bundle.genome, columns=relatives.columns)
    bundle = dataclasses.replace(tiny_bundle, genome=genome, relatives=relatives)
    scored = score_measured(measured, bundle, masked=score)
    for row in scored.itertuples():
        counts = relatives.columns[:, row.position - 1].sum(0) + 0.25
        wanted = np.log(counts["ACGT".index(row.alt)] / counts["ACGT".index(row.ref)])
        assert row.column == pytest.approx(wanted if counts.sum() > 1.25 else 0)

"""Expression tables: formats, units, replicates, and everything that is refused."""

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_files import refusal, write
from tiny_inputs import read_expression

from genesplice.data.expression import (
    DELETED,
    STAR,
    check_unit,
    condition_means,
    fill_missing,
    hide_deleted,
    make_expression,
)
from genesplice.data.measurements import read_measurements, sample_files
from genesplice.errors import InputError

TABLE = pd.DataFrame(
    [[10.0, 0.0, 30.5], [500.0, 1000.0, 7.0]],
    index=pd.Index(["b", "a"], name="gene"),
    columns=["s1", "s2", "s3"],
)
TSV = "gene\ts1\ts2\ts3\nb\t10\t0\t30.5\na\t500\t1000\t7\n"


def read(tmp_path, text=TSV, unit="tpm", name="e.tsv", **kwargs):
    return read_expression(write(tmp_path / name, text), unit, **kwargs)


def obs_of(table, conditions=None):
    return pd.DataFrame({"condition": conditions or list(table.columns)}, index=table.columns)


# --- formats ---


def test_genes_by_samples_become_samples_by_genes_in_log2(tmp_path):
    data = read(tmp_path)
    assert data.shape == (3, 2)
    assert data.obs_names.tolist() == ["s1", "s2", "s3"]
    assert data.var_names.tolist() == ["b", "a"]
    assert data.X.dtype == np.float32
    np.testing.assert_allclose(data.X.T, np.log2(TABLE + 1), rtol=1e-6)


def test_semicolons_and_decimal_commas_are_read_and_said(tmp_path):
    text = TSV.replace("\t", ";").replace("30.5", "30,5")
    path = write(tmp_path / "e.csv", text)
    values, _, _, notes = read_measurements(path, "tpm")
    np.testing.assert_array_equal(values, TABLE)
    assert notes == ("e.csv: columns separated by semicolons, decimal commas",)
    error = refusal(read_measurements, write(path, text.replace("1000", "1000.5")), "tpm")
    assert (error.line, error.found) == (3, "'1000.5' beside decimal commas")


@pytest.mark.parametrize(("base", "named"), [(np.e, "natural logarithms"), (10, "to base 10")])
def test_other_logarithms_are_known_by_their_sums(base, named):
    tpm = np.random.default_rng(0).lognormal(3, 2, (50, 3))
    tpm = pd.DataFrame(tpm / tpm.sum(axis=0) * 1e6)
    check_unit(np.log2(tpm + 1), "log2tpm")
    with pytest.raises(InputError, match=f"{named} with unit log2tpm"):
        check_unit(np.log(tpm + 1) / np.log(base), "log2tpm")


def test_gene_ids_made_of_digits_stay_names(tmp_path):
    data = read(tmp_path, "entrez\ts1\n7157\t900\n672\t30\n")
    assert data.var_names.tolist() == ["7157", "672"]


# --- as counting tools write it ---

FEATURE_COUNTS = """# Program:featureCounts v2.0.3; Command:"featureCounts" "-o" "c.txt"
Geneid\tChr\tStart\tEnd\tStrand\tLength\ts1\ts2
a\tc0\t1\t300\t+\t300\t30\t10
b\tc0\t400\t999\t-\t600\t60\t80
"""


def test_counts_are_divided_by_the_lengths_in_their_own_table(tmp_path):
    data = read(tmp_path, FEATURE_COUNTS, "counts", lengths={"a": 1.0, "b": 9.0})
    np.testing.assert_allclose(data.X[0], np.log2(500_001), rtol=1e-6)


@pytest.mark.parametrize("column", ["width", "gene_length"])
def test_lengths_by_other_names_are_no_sample(tmp_path, column):
    text = f"gene\t{column}\ts1\na\t100\t7\nb\t300\t21\n"
    table = read_measurements(write(tmp_path / "e.tsv", text), "counts")
    assert table.values.columns.tolist() == ["s1"]
    assert table.notes == (f"e.tsv: columns that are no samples: {column}",)


def test_blanks_around_names_do_not_matter(tmp_path):
    samples = write(tmp_path / "s.tsv", "id\tcondition\ns1 \twarm \n s2\twarm\ns3\tcold\n")
    data = read(tmp_path, TSV.replace("\ts2", "\t s2 ").replace("a\t", "a \t"), samples=samples)
    assert data.var_names.tolist() == ["b", "a"]
    assert data.obs["condition"].to_dict() == {"s1": "warm", "s2": "warm", "s3": "cold"}
    assert read_measurements(tmp_path / "e.tsv", "tpm", samples).notes == ()


def test_names_that_look_like_numbers_or_nothing_stay_names(tmp_path):
    data = read(tmp_path, "gene\ts1\n0001\t900\nNA\t30\nnan\t5\n")
    assert data.var_names.tolist() == ["0001", "NA", "nan"]


# --- units ---


def test_log2tpm_is_kept_as_it_is(tmp_path):
    data = read(tmp_path, "gene\ts1\ts2\na\t0\t3.5\nb\t14.25\t1\n", "log2tpm")
    assert data.X.tolist() == [[0, 14.25], [3.5, 1]]


def test_counts_become_tpm_by_length_then_by_depth(tmp_path):
    text = "gene\ts1\ts2\nshort\t10\t20\nlong\t100\t200\n"
    data = read(tmp_path, text, "counts", lengths={"short": 100.0, "long": 1000.0})
    np.testing.assert_allclose(data.X, np.log2(500_000 + 1), rtol=1e-6)
    data = read(tmp_path, text, "counts", lengths={"short": 100.0, "long": 100.0})
    expected = np.log2(1e6 * np.array([1, 10]) / 11 + 1)
    np.testing.assert_allclose(data.X, [expected, expected], rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(arrays(np.int64, (4, 3), elements=st.integers(1, 100_000)), st.floats(1, 1000))
def test_counts_do_not_depend_on_depth_and_add_up_to_a_million(counts, depth):
    table = pd.DataFrame(counts.astype(float), index=list("abcd"), columns=["x", "y", "z"])
    lengths = {"a": 300.0, "b": 900.0, "c": 1200.0, "d": 60.0}
    once = make_expression(table, "counts", obs_of(table), lengths=lengths)
    more = make_expression(table * depth, "counts", obs_of(table), lengths=lengths)
    np.testing.assert_allclose(more.X, once.X, atol=1e-4)
    np.testing.assert_allclose((2.0 ** once.X.astype(float) - 1).sum(axis=1), 1e6, rtol=1e-4)


@pytest.mark.parametrize("unit", ["rpkm", "fpkm"])
def test_rpkm_is_scaled_to_a_million_within_each_sample(tmp_path, unit):
    data = read(tmp_path, "gene\ts1\ts2\na\t30\t5\nb\t90\t35\n", unit)
    expected = np.log2(1e6 * np.array([[0.25, 0.75], [0.125, 0.875]]) + 1)
    np.testing.assert_allclose(data.X, expected, rtol=1e-6)


GENERATOR = np.random.default_rng(4)
READS = GENERATOR.negative_binomial(0.5, 0.001, (60, 3)).astype(float)
PER_KB = (READS + 0.5) / GENERATOR.uniform(0.3, 3, (60, 1))
TPM = PER_KB / PER_KB.sum(axis=0) * 1e6
MADE = {"counts": READS, "estimated counts": READS + 0.25, "rpkm": PER_KB, "tpm": TPM,
        "rounded tpm": TPM.round(), "log2tpm": np.log2(TPM + 1), "log2 counts": np.log2(READS + 1),
        "log2 large": np.log2(TPM * 9 + 1)}  # fmt: skip


@pytest.mark.parametrize(
    ("made", "unit", "found"),
    [
        ("counts", "counts", None),
        ("estimated counts", "counts", None),
        ("tpm", "tpm", None),
        ("rounded tpm", "tpm", None),
        ("rpkm", "rpkm", None),
        ("tpm", "fpkm", None),
        ("log2tpm", "log2tpm", None),
        ("counts", "tpm", "whole numbers"),
        ("counts", "rpkm", "whole numbers"),
        ("counts", "log2tpm", "values up to"),
        ("tpm", "counts", "samples that add up to 1e6"),
        ("rounded tpm", "counts", "samples that add up to 1e6"),
        ("tpm", "log2tpm", "values up to"),
        ("rpkm", "log2tpm", "values up to"),
        ("log2tpm", "tpm", "values up to only"),
        ("log2tpm", "rpkm", "values up to only"),
        ("log2 counts", "counts", "values up to only"),
        ("log2 large", "log2tpm", "adding up to 9e\\+06"),
    ],
)
def test_units_are_judged_by_sums_whole_numbers_and_maxima(made, unit, found):
    values = pd.DataFrame(MADE[made], [f"g{i}" for i in range(60)], ["x", "y", "z"])
    if found is None:
        return check_unit(values, unit)
    with pytest.raises(InputError, match=f"{found}.* with unit {unit}, expected"):
        check_unit(values, unit)


def test_counts_of_genes_without_length_and_samples_without_reads_are_refused(tmp_path):
    path = write(tmp_path / "e.tsv", "gene\ts1\ts2\na\t5\t0\nb\t9\t0\n")
    error = refusal(read_expression, path, "counts", lengths={"a": 5.0})
    assert error.found == "no length for 1 genes (b)"
    error = refusal(read_expression, path, "counts", lengths={"a": 5.0, "b": 0.0})
    assert error.found == "no length for 1 genes (b)"
    error = refusal(read_expression, path, "counts", lengths={"a": 5.0, "b": 5.0})
    assert error.found == "sample 's2' without reads"


# --- replicates and conditions ---


def test_replicates_are_averaged_in_log_space_in_order_of_appearance():
    table = pd.DataFrame([[1.0, 4.0, 3.0, 8.0]], index=["g"], columns=["r1", "x", "r2", "r3"])
    data = make_expression(table, "log2tpm", obs_of(table, ["rich", "poor", "rich", "rich"]))
    means = condition_means(data)
    assert means.columns.tolist() == ["rich", "poor"]
    assert means.loc["g"].tolist() == [4.0, 4.0]
    assert (means.index.name, means.columns.name) == ("gene_id", "condition")


def test_sample_table_gives_conditions_in_any_order_and_may_know_more_samples(tmp_path):
    samples = write(
        tmp_path / "s.csv", "id,batch,Condition\ns3,2,cold\ns9,1,no\ns1,1,warm\ns2,1,cold\n"
    )
    data = read(tmp_path, samples=samples)
    notes = read_measurements(tmp_path / "e.tsv", "tpm", samples).notes
    assert notes == ("s.csv: left out, no sample of e.tsv: 1 (s9)",)
    assert data.obs["condition"].tolist() == ["warm", "cold", "cold"]
    assert data.obs["batch"].tolist() == ["1", "1", "2"]
    assert condition_means(data).columns.tolist() == ["warm", "cold"]


def test_h5ad_keeps_its_conditions_unless_a_table_says_otherwise(tmp_path):
    data = ad.AnnData(TABLE.T.astype(np.float32), obs=obs_of(TABLE, ["x", "y", "y"]))
    data.write_h5ad(tmp_path / "e.h5ad")
    read_back = read_expression(tmp_path / "e.h5ad", "tpm")
    assert read_back.obs["condition"].tolist() == ["x", "y", "y"]
    samples = write(tmp_path / "s.tsv", "id\tcondition\ns1\tp\ns2\tq\ns3\tq\n")
    read_back = read_expression(tmp_path / "e.h5ad", "tpm", samples)
    assert read_back.obs["condition"].tolist() == ["p", "q", "q"]


# --- genes that a sample lacks ---


def strains(**deleted):
    """Three genes of 100 TPM in six samples, but 2 TPM of `a` and 11 TPM of `b` in s1."""
    names = [f"s{i}" for i in range(6)]
    table = pd.DataFrame(100.0, ["a", "b", "c"], names)
    table.loc["a", "s1"], table.loc["b", "s1"] = 2.0, 11.0
    obs = obs_of(table, ["x", "x", "y", "y", "z", "z"])
    obs[DELETED] = [deleted.get(name, "") for name in names]
    return make_expression(np.log2(table + 1), "log2tpm", obs)


@pytest.mark.parametrize("is_derived", [False, True])
def test_measurements_of_deleted_genes_are_missing(is_derived):
    data = strains(s1="a;b", s2="a;nowhere_measured", s3="a", s4="a")
    data.X[2:5, 0] = 0
    before = data.X.copy()
    hidden, notes = hide_deleted(data, is_derived=is_derived)
    # 11 TPM are over a tenth of the gene's 100 TPM elsewhere.
    cells = [(1, 0), (2, 0), (3, 0), (4, 0)] + [(1, 1)] * (not is_derived)
    expected = before.copy()
    for cell in cells:
        expected[cell] = np.nan
    np.testing.assert_array_equal(hidden.X, expected)
    np.testing.assert_array_equal(data.X, before)
    n_genes = 1 if is_derived else 2
    assert notes[0].startswith(f"deleted genes: {len(cells)} measurements are missing")
    assert f"({n_genes} genes in 4 of 6 samples)" in notes[0]
    fate = "not taken as deleted" if is_derived else "missing all the same"
    assert notes[1:] == [f"deleted genes that are measured over 1 TPM and 10% of the gene's median,"
                         f" {fate}: 1 (b in s1)"]  # fmt: skip
    kept = ["", "a", "a", "a", "a", ""] if is_derived else data.obs[DELETED].tolist()
    assert hidden.obs[DELETED].tolist() == kept
    means = condition_means(hidden)
    assert means.loc["a"].isna().tolist() == [False, True, False]
    assert means.at["a", "x"] == pytest.approx(before[0, 0])


def test_a_gene_that_all_samples_lack_is_not_measured():
    hidden, notes = hide_deleted(strains(**{f"s{i}": "c" for i in range(6)}))
    assert hidden.var_names.tolist() == ["a", "b"]
    assert np.isfinite(hidden.X).all()
    assert notes[-1] == "deleted in all samples, no measured genes: 1 (c)"


def test_without_deleted_genes_nothing_is_missing():
    data = strains()
    hidden, notes = hide_deleted(data)
    np.testing.assert_array_equal(hidden.X, data.X)
    assert notes == [
        "deleted genes: 0 measurements are missing, no targets (0 genes in 0 of 6 samples)"
    ]
    del data.obs[DELETED]
    assert hide_deleted(data) == (data, [])


def test_what_is_missing_is_filled_with_what_is_expected():
    generator = np.random.default_rng(0)
    whole = pd.DataFrame(generator.normal(5, 2, (30, 6)))
    pd.testing.assert_frame_equal(fill_missing(whole), whole)
    gaps = whole.mask(generator.random(whole.shape) < 0.1)
    level = {g: np.mean([v for v in gaps.loc[g] if v == v]) for g in gaps.index}
    for c in gaps:
        known = [gaps.at[g, c] - level[g] for g in gaps.index if gaps.at[g, c] == gaps.at[g, c]]
        for g in gaps.index:
            wanted = level[g] + np.mean(known) if np.isnan(gaps.at[g, c]) else gaps.at[g, c]
            assert fill_missing(gaps).at[g, c] == pytest.approx(wanted)


# --- what is refused ---


def test_separators_at_the_ends_of_all_lines_do_no_harm(tmp_path):
    data = read(tmp_path, "gene\ts1\ts2\nb\t10\t30\t\na\t500\t7\t\n")
    np.testing.assert_allclose(data.X, np.log2([[11, 501], [31, 8]]), rtol=1e-6)


def test_truncated_binary_tables_are_refused(tmp_path):
    TABLE.to_parquet(tmp_path / "e.parquet")
    ad.AnnData(TABLE.T.astype(np.float32)).write_h5ad(tmp_path / "e.h5ad")
    for path in list(tmp_path.iterdir()):
        path.write_bytes(path.read_bytes()[:-200])
        assert "found no " in str(refusal(read_expression, path, "tpm"))


def test_h5ad_with_a_gene_twice_or_without_values_is_refused(tmp_path):
    data = ad.AnnData(TABLE.T.astype(np.float32))
    data.var_names = ["a", "a"]
    data.write_h5ad(tmp_path / "twice.h5ad")
    error = refusal(read_expression, tmp_path / "twice.h5ad", "tpm")
    assert error.found == "gene 'a' twice"
    ad.AnnData(obs=obs_of(TABLE)).write_h5ad(tmp_path / "empty.h5ad")
    error = refusal(read_expression, tmp_path / "empty.h5ad", "tpm")
    assert error.found == "an AnnData without values"
    data = ad.AnnData(TABLE.T.astype(np.float32), obs=obs_of(TABLE, ["x", None, "y"]))
    data.write_h5ad(tmp_path / "pooled.h5ad")
    error = refusal(read_expression, tmp_path / "pooled.h5ad", "tpm")
    assert error.found == "no condition for sample 's2'"
    error = refusal(read_expression, write(tmp_path / "e.tsv", b"PK\x03\x04" + b"x" * 9), "tpm")
    assert error.found == "a zip archive"


# --- a file a sample ---

GENES = ["a", "b", "c"]


def star(counts, other=0.02) -> str:
    """STAR's table of a library with a share of its reads on the other strand."""
    rows = [f"N_{word}\t9\t{90 * i}\t99" for i, word in enumerate(
        ("unmapped", "multimapping", "noFeature", "ambiguous"))]  # fmt: skip
    rows += [f"{gene}\t{n}\t{n * (1 - other):.0f}\t{n * other:.0f}"
             for gene, n in zip(GENES, counts, strict=True)]  # fmt: skip
    return "\n".join([*rows, ""])


@pytest.mark.parametrize(
    ("other", "column", "library"),
    [(0.02, 1, "a stranded"), (0.97, 2, "a stranded"), (0.49, 0, "an unstranded")],
)
def test_column_of_star_is_that_of_its_strands(tmp_path, other, column, library):
    counts = np.array([1000, 3000, 500])
    values, _, _, notes = read_measurements(
        write(tmp_path / "SRR1_ReadsPerGene.out.tab", star(counts, other)), "counts"
    )
    expected = (counts, np.round(counts * (1 - other)), np.round(counts * other))[column]
    assert values.loc[GENES, "SRR1"].tolist() == expected.tolist()
    assert notes[0].endswith(f"'SRR1': STAR's column {STAR[column]!r}, {library} library")


@pytest.mark.parametrize("other", [0.15, 0.4, 0.7])
def test_star_of_neither_kind_is_refused(tmp_path, other):
    path = write(tmp_path / "ReadsPerGene.out.tab", star([1000, 3000, 500], other))
    error = refusal(read_measurements, path, "counts")
    assert error.found == f"{max(other, 1 - other):.0%} of STAR's counts on one strand"


HTSEQ = "a\t10\nb\t{n}\nc\t30\n__no_feature\t5\n"
SALMON = "Name\tLength\tEffectiveLength\tTPM\tNumReads\na\t9\t{n}\t1.5\t7\nb\t9\t5\t{n}\t2.5\n"
FOLDERS = {
    "files": ({"s1.counts.txt": HTSEQ, "s2.counts.txt": HTSEQ, "notes.pdf": "x"}, "counts"),
    "dots": ({"s.1.tsv": HTSEQ, "s.2.tsv": HTSEQ}, "counts"),
    "Salmon": ({"s1/quant.sf": SALMON, "s2/quant.sf": SALMON, "s2/lib.json": "{}", "logs/a": "x"},
               "tpm"),
    "STAR": ({"s1/s1_ReadsPerGene.out.tab": star([5, 1000, 9]), "s1/s1_SJ.out.tab": "x",
              "s2/ReadsPerGene.out.tab": star([5, 2000, 9])}, "counts"),
    "STAR's files": ({"s1_ReadsPerGene.out.tab": star([5, 1000, 9]), "s1_SJ.out.tab": "x",
                      "s2_ReadsPerGene.out.tab": star([5, 2000, 9])}, "counts"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOLDERS)
def test_folder_of_samples_is_the_tables_side_by_side(tmp_path, kind):
    files, unit = FOLDERS[kind]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, text.replace("{n}", str(sum(map(ord, name)))))
    values, _, lengths, notes = read_measurements(tmp_path, unit)
    names = ["s.1", "s.2"] if kind == "dots" else ["s1", "s2"]
    assert list(values) == names
    for name, path in sample_files(tmp_path).items():
        alone = read_measurements(path, unit)
        assert values[name].tolist() == alone.values.iloc[:, 0].tolist()
    assert notes[0] == f"{tmp_path.name}: samples, a file each: 2 ({', '.join(names)})"
    left_out = {"files": "notes.pdf", "Salmon": "logs", "STAR's files": "s1_SJ.out.tab"}
    assert left_out.get(kind, "") in notes[-1]
    assert ("left out" in notes[-1]) == (kind in left_out)
    if kind == "Salmon":
        each = [sum(map(ord, name)) for name in ("s1/quant.sf", "s2/quant.sf")]
        assert lengths["a"] == np.mean(each)
        assert f"{tmp_path.name}: column 'TPM' (2 of 2 files)" in notes
    else:
        assert lengths is None


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"s1.txt": HTSEQ, "s2.txt": HTSEQ.replace("b", "d")}, "2 genes (b, d) that not all"),
        ({"s1.tsv": "gene\tx\ty\na\t1\t2\n"}, "2 samples"),
        ({"s1.quant.sf": SALMON, "s1/quant.sf": SALMON}, "s1.quant.sf and s1/quant.sf of sample"),
        ({"x.pdf": "x"}, "a folder without a table"),
    ],
)
def test_folders_that_are_no_samples_are_refused(tmp_path, files, found):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, text.replace("{n}", "8"))
    with pytest.raises(InputError, match=re.escape(found)):
        read_measurements(tmp_path, "counts")


def test_table_without_a_file_is_refused_by_gene_and_sample():
    table = TABLE.copy()
    table.loc["a", "s2"] = np.nan
    with pytest.raises(InputError, match="no finite number for gene 'a', sample 's2'"):
        make_expression(table, "tpm", obs_of(table))
    table = TABLE.set_axis(["s", "s", "t"], axis=1)
    with pytest.raises(InputError, match="sample 's' twice, expected each sample once"):
        make_expression(table, "tpm", obs_of(TABLE))


cell = st.one_of(st.sampled_from(["", "NA", "1", "22.5", "-1", "1e400", "x", '"', "a"]), st.text())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(cell, min_size=1, max_size=4), min_size=1, max_size=4))
@example([["", "", "", "0\r0"]])
def test_any_cells_are_read_or_refused_in_one_line(tmp_path_factory, rows):
    text = "gene\ts1\ts2\n" + "".join("\t".join(row) + "\n" for row in rows)
    path = tmp_path_factory.mktemp("table") / "e.tsv"
    write(path, text.encode("utf-8", "surrogatepass"))
    try:
        data = read_expression(path, "counts", lengths=dict.fromkeys("ax1", 5.0))
    except InputError:
        error = refusal(read_expression, path, "counts", lengths=dict.fromkeys("ax1", 5.0))
        assert error.expected
    else:
        assert np.isfinite(data.X).all()


# --- the real table ---


def test_ecoli_has_278_samples_in_163_conditions(ecoli):
    assert ecoli.expression.shape == (278, 3923)
    assert ecoli.expression.obs["condition"].nunique() == 163
    assert ecoli.observed.shape == (3923, 163)
    values = ecoli.expression.X
    assert np.nanmin(values) >= 0
    assert np.nanmax(values) < 20
    tpm = np.nansum(2.0 ** values.astype(float) - 1, axis=1)
    assert np.median(tpm) == pytest.approx(1e6, rel=0.1)


def test_ecoli_replicates_agree_more_than_conditions_do(ecoli):
    data = ecoli.expression
    r = np.corrcoef(data.X[:, np.isfinite(data.X).all(axis=0)])
    same = data.obs["condition"].to_numpy()[:, None] == data.obs["condition"].to_numpy()[None]
    upper = np.triu(np.ones_like(same), k=1)
    assert r[same & upper].mean() > 0.97 > r[~same & upper].mean()


def test_ecoli_has_no_targets_where_a_gene_is_deleted(ecoli):
    ids = ecoli.genes.set_index("name")["gene_id"]
    lacks = ecoli.expression.obs[DELETED].str.split(";")
    is_missing = pd.DataFrame(np.isnan(ecoli.expression.X), lacks.index, ecoli.observed.index)
    for sample, genes in lacks.items():
        assert is_missing.columns[is_missing.loc[sample]].tolist() == sorted(
            filter(None, genes), key=ecoli.observed.index.get_loc
        )
    assert lacks["fur__delfur_fe2__1"] == [ids["fur"]]
    assert set(lacks["efeU__menFentCubiC_ale36__1"]) == set(ids[["menF", "entC", "ubiC"]])
    assert {ids["ompR"], ids["araB"]} < set(lacks["ompr__bw_delompr_nacl__1"])
    assert lacks["pgi__pgi_ale2__1"] == [ids["pgi"]]
    assert lacks["control__wt_glc__1"] == [""]
    # Parts of a gene: crp without an activating region is still there.
    assert lacks["crp__delar1_glyc__1"] == [""]
    assert ecoli.observed.loc[ids["fur"]].isna().sum() == 2


def test_ecoli_ribosome_is_expressed_far_above_lacz(ecoli):
    lacz = ecoli.observed.loc["b0344"]
    ribosome = ecoli.observed.loc["b3342"]
    assert lacz.median() < ribosome.median() - 4

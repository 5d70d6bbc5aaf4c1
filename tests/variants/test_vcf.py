"""VCF in, VCF out: nothing is lost, nothing is moved, htslib reads it."""

import dataclasses
import gzip
import json

import numpy as np
import pandas as pd
import pysam
import pytest
import torch
from command_line import call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_genomes import make_relatives
from tiny_models import make_tiny
from tiny_variants import (
    COLUMNS,
    HEADER,
    letters,
    line,
    make_masked,
    other,
    random_lines,
    save_masked,
    snv,
    write_lines,
)

from genesplice.data.features import region_masks
from genesplice.data.genome import Contig, Genome, encode
from genesplice.errors import InputError
from genesplice.predict.models import Models, open_models
from genesplice.results import read_metrics
from genesplice.variants.alleles import ContigNames, normalise, survey
from genesplice.variants.annotate import (
    CHUNK,
    Settings,
    annotate_vcf,
    flag_metrics,
    region_of,
    region_track,
    score_variants,
)
from genesplice.variants.consequence import REGIONS, Consequences
from genesplice.variants.scan import Region, random_substitutions
from genesplice.variants.vcf import (
    FIELDS,
    Record,
    annotated,
    index,
    read_header,
    read_records,
    write_vcf,
)

pytestmark = pytest.mark.slow

# Without the random variants that percentiles are among.
QUICK = Settings(with_percentile=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Models:
    return Models(make_masked("model.base_width=0"), tmp_path_factory.mktemp("m"), (), ())


def body(path) -> list[str]:
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return [line for line in text.decode().splitlines() if not line.startswith("#")]


def without_ours(text: str) -> str:
    columns = text.split("\t")
    kept = [item for item in columns[7].split(";") if not item.startswith("GS_")]
    return "\t".join([*columns[:7], ";".join(kept) or ".", *columns[8:]])


# --- the text of records ---

WORDS = st.text("abcXYZ019_.-+", min_size=1, max_size=8)
ALTS = st.lists(
    st.sampled_from(["A", "C", "GT", "<DEL>", "*", "A[c:9[", "]c:9]A", "acg", "R", "TTTT."]),
    min_size=1,
    max_size=3,
).map(",".join)
LINES = st.tuples(
    st.sampled_from(["chr", "elsewhere", "c.1"]),
    st.integers(0, 10**6).map(str),
    WORDS,
    st.sampled_from(["A", "ac", ".", "N", "GGGG", "?"]),
    st.one_of(ALTS, st.just(".")),
    st.sampled_from([".", "29.0", "1e3"]),
    st.sampled_from([".", "PASS", "q10;s50"]),
    st.sampled_from([".", "AF=0.123456789", "DB;AF=0.5;X=1,2", "UNDECLARED=a b"]),
    st.just("GT:DP"),
    st.sampled_from(["0|1:3", "./.", ".", "1/1:7"]),
).map("\t".join)


@settings(max_examples=30, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(lines=st.lists(LINES, max_size=6), is_packed=st.booleans(), ends=st.sampled_from("\n\r"))
def test_every_record_of_a_random_file_comes_back_in_order(
    models, tiny_bundle, tmp_path, lines, is_packed, ends
):
    source = tmp_path / "in.vcf"
    end = "\r\n" if ends == "\r" else "\n"
    columns = f"{COLUMNS}\tFORMAT\tS1"
    source.write_bytes((end.join([*HEADER, columns, *lines]) + end).encode())
    out = tmp_path / ("out.vcf.gz" if is_packed else "out.vcf")
    names = ContigNames(tiny_bundle.genome)
    found = survey(read_records(source), names)
    is_elsewhere = found.n_records and found.unknown.total() == found.n_records
    if is_elsewhere or found.is_of_another_genome:
        what = "no variant on a contig of" if is_elsewhere else "REF alleles that are not those of"
        with pytest.raises(InputError, match=what):
            annotate_vcf(models, tiny_bundle, source, out, settings=QUICK)
        return
    done = annotate_vcf(models, tiny_bundle, source, out, settings=QUICK)
    assert [without_ours(text) for text in body(out)] == lines
    assert done.n_records == len(lines)
    assert done.n_alleles == sum(len(text.split("\t")[4].split(",")) for text in lines)
    assert sum(done.flags.values()) == done.n_alleles
    for text in body(out):
        assert "GS_FLAG=" in text or "GS_LLR=" in text


def test_values_go_to_the_end_of_info_and_replace_older_ones():
    record = Record(1, tuple(line("c", 3, "A", "C,G", info="AF=.1,.2;GS_LLR=9,9;DB").split("\t")))
    found = annotated(record, {"GS_LLR": ["-1.5", None], "GS_FLAG": [None, None]})
    assert found.split("\t")[7] == "AF=.1,.2;DB;GS_LLR=-1.5,."
    assert annotated(record, {}).split("\t")[7] == "AF=.1,.2;DB"
    bare = Record(1, tuple(line("c", 3, "A", "C").split("\t")))
    assert annotated(bare, {"GS_FLAG": [None]}).split("\t")[7] == "."
    odd = annotated(bare, {"GS_GENE": ["a;b,c=d e%"]})
    assert odd.split("\t")[7] == "GS_GENE=a%3Bb%2Cc%3Dd%20e%25"


def test_a_line_is_a_record():
    record = Record(7, tuple(line("c", 3, "A", "C,<DEL>", name="rs1").split("\t")))
    assert (record.contig, record.position, record.name, record.ref) == ("c", 3, "rs1", "A")
    assert record.alts == ("C", "<DEL>")
    assert Record(7, tuple(line("c", 3, "A", ".").split("\t"))).alts == ()


# --- what the models write ---


@pytest.fixture(scope="module")
def scored(models, tiny_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    lines = random_lines(tiny_bundle.genome, np.random.default_rng(5), 30)
    with pysam.BGZFile(str(folder / "in.vcf.gz"), "wb") as handle:
        handle.write(("\n".join([*HEADER, COLUMNS, *lines]) + "\n").encode())
    out = folder / "out.vcf.gz"
    return lines, out, annotate_vcf(models, tiny_bundle, folder / "in.vcf.gz", out, settings=QUICK)


def test_htslib_reads_back_what_was_written(scored):
    lines, out, done = scored
    assert {path.name for path in done.files} == {
        "out.vcf.gz", "out.vcf.gz.tbi", "out.tsv", "out.parquet"
    }  # fmt: skip
    table = pd.read_parquet(out.with_name("out.parquet"))
    with pysam.VariantFile(str(out)) as handle:
        assert handle.header.info["GS_LLR"].number == "A"
        assert handle.header.info["GS_LLR"].type == "Float"
        records = list(handle)
    assert len(records) == len(lines) == len(table)
    for record, text, row in zip(records, lines, table.itertuples(), strict=True):
        assert str(record.pos) == text.split("\t")[1] == str(row.position)
        if row.flag == "abstains":
            assert tuple(record.info["GS_FLAG"]) == ("abstains",)
            assert "GS_LLR" not in record.info
        else:
            assert record.info["GS_LLR"][0] == pytest.approx(row.llr, rel=1e-4)


def test_tabix_finds_records_by_place(scored):
    lines, out, _ = scored
    low, high = 20_000, 80_000
    inside = [text for text in lines if low < int(text.split("\t")[1]) <= high]
    with pysam.TabixFile(str(out)) as handle:
        found = [without_ours(text) for text in handle.fetch("chr", low, high)]
    # Those that begin before and reach in are found too.
    assert set(inside) <= set(found)
    assert len(found) - len(inside) <= 2


def test_the_tables_say_the_same(scored):
    _, out, _ = scored
    parquet = pd.read_parquet(out.with_name("out.parquet"))
    text = pd.read_csv(out.with_name("out.tsv"), sep="\t")
    assert list(text.columns) == list(parquet.columns)
    np.testing.assert_allclose(text["llr"], parquet["llr"], rtol=1e-5)
    np.testing.assert_allclose(
        parquet["llr"], (parquet["llr_forward"] + parquet["llr_reverse"]) / 2, rtol=1e-9
    )
    assert set(parquet["kind"]) == {"snv", "insertion", "deletion"}
    assert set(parquet["region"]) <= {"coding", "promoter", "intergenic", "other"}


def test_a_second_run_over_its_own_output_changes_nothing(scored, models, tiny_bundle, tmp_path):
    _, out, _ = scored
    annotate_vcf(models, tiny_bundle, out, tmp_path / "again.vcf.gz", settings=QUICK)
    assert body(tmp_path / "again.vcf.gz") == body(out)
    assert read_header(tmp_path / "again.vcf.gz") == read_header(out)


def test_alleles_of_a_record_keep_their_places(models, tiny_bundle, tmp_path):
    ref = letters(tiny_bundle.genome, 700)
    alts = f"<DEL>,{other(ref)},*,{other(ref, 2)}"
    source = write_lines(tmp_path / "in.vcf", [line("chr", 700, ref, alts)])
    annotate_vcf(
        models,
        tiny_bundle,
        source,
        tmp_path / "out.vcf",
        settings=Settings(abstain=99.0, with_percentile=False),
    )
    with pysam.VariantFile(str(tmp_path / "out.vcf")) as handle:
        (record,) = handle
    assert record.info["GS_FLAG"] == ("symbolic", ".", "symbolic", ".")
    ratios = record.info["GS_LLR"]
    assert (ratios[0], ratios[2]) == (None, None)
    table = pd.read_parquet(tmp_path / "out.parquet")
    np.testing.assert_allclose([ratios[1], ratios[3]], table["llr"].dropna(), rtol=1e-4)
    assert table["record"].tolist() == [1] * 4


def test_plain_gzip_and_two_samples_of_one_name_come_back(models, tiny_bundle, tmp_path):
    text = snv(tiny_bundle.genome, 900) + "\tGT\t0/1\t1/1"
    source, out = tmp_path / "in.vcf", tmp_path / "o.vcf.gz"
    lines = [*HEADER, f"{COLUMNS}\tFORMAT\tA\tA", text]
    # Packed, whatever the name says.
    source.write_bytes(gzip.compress(("\r\n".join(lines) + "\r\n").encode()))
    annotate_vcf(models, tiny_bundle, source, out, settings=QUICK)
    assert [without_ours(one) for one in body(out)] == [text]
    with pysam.TabixFile(str(out)) as handle:
        assert len(list(handle.fetch("chr", 899, 901))) == 1


@pytest.mark.parametrize(("position", "suffix"), [(2**29, "csi"), (2**50, None)])
def test_far_positions_are_indexed_by_csi(models, tiny_bundle, tmp_path, position, suffix):
    lines = [line("chr", -1, "N", "A"), snv(tiny_bundle.genome, 9), line("big", position, "A", "C")]
    source, out, said = write_lines(tmp_path / "in.vcf", lines), tmp_path / "o.vcf.gz", []
    out.with_name("o.vcf.gz.tbi").write_text("of an older file")
    done = annotate_vcf(models, tiny_bundle, source, out, settings=QUICK, progress=said.append)
    indices = [path.name for path in tmp_path.glob("o.vcf.gz.*")]
    assert indices == ([f"o.vcf.gz.{suffix}"] if suffix else [])
    assert indices == [path.name for path in done.files if path.name in indices]
    assert any("what an index holds" in text for text in said) is (suffix is None)
    if suffix:
        with pysam.TabixFile(str(out), index=str(done.files[-1])) as handle:
            assert len(list(handle.fetch("big", position - 5, position + 5))) == 1


def test_an_unsorted_file_keeps_its_order_and_has_no_index(models, tiny_bundle, tmp_path):
    lines = [snv(tiny_bundle.genome, start) for start in (900, 100, 500)]
    source = write_lines(tmp_path / "in.vcf", lines)
    said = []
    done = annotate_vcf(
        models, tiny_bundle, source, tmp_path / "o.vcf.gz", settings=QUICK, progress=said.append
    )
    assert [without_ours(text) for text in body(tmp_path / "o.vcf.gz")] == lines
    assert not (tmp_path / "o.vcf.gz.tbi").exists()
    assert any("no index" in text for text in said)
    assert len(done.files) == 3


def test_a_file_without_variants_is_written_back_and_told(models, tiny_bundle, tmp_path):
    said: list[str] = []
    for name, lines in (("none.vcf", []), ("one.vcf", [snv(tiny_bundle.genome, 40_000)])):
        source = write_lines(tmp_path / name, lines)
        out = tmp_path / f"o.{name}"
        annotate_vcf(models, tiny_bundle, source, out, settings=QUICK, progress=said.append)
        assert len(body(out)) == len(lines)
    assert said == ["variants: 0 variants in none.vcf"]


def test_contigs_one_after_another_are_sorted(tmp_path):
    source = write_lines(tmp_path / "in.vcf", [])
    for contigs, is_sorted in (("aab", True), ("aba", False)):
        with write_vcf(tmp_path / f"{contigs}.vcf.gz", source, list(FIELDS)) as writer:
            for i, contig in enumerate(contigs):
                writer.write(Record(i, tuple(line(contig, i, "A", "C").split("\t"))), {})
        assert writer.is_sorted is is_sorted
    with pysam.TabixFile(str(index(tmp_path / "aab.vcf.gz"))[: -len(".tbi")]) as handle:
        assert handle.contigs == ["a", "b"]


def test_a_failure_leaves_no_half_file(tmp_path):
    source = write_lines(tmp_path / "in.vcf", [])
    with pytest.raises(RuntimeError, match="stop"), write_vcf(tmp_path / "o.vcf", source, []):
        raise RuntimeError("stop")
    assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]


def test_a_long_file_is_never_in_memory(models, tiny_bundle, tmp_path, monkeypatch):
    # No more than a chunk of records is read ahead of what is written.
    ahead, reader, writer = [], read_records, annotated
    alive = {"read": 0, "written": 0}

    def reading(path):
        alive["read"] = alive["written"] = 0
        for record in reader(path):
            alive["read"] += 1
            yield record

    def writing(record, values):
        ahead.append(alive["read"] - alive["written"])
        alive["written"] += 1
        return writer(record, values)

    monkeypatch.setattr("genesplice.variants.vcf.read_records", reading)
    monkeypatch.setattr("genesplice.variants.vcf.annotated", writing)
    lines = [line("nowhere", i, "A", "C") for i in range(5 * CHUNK + 2)]
    lines += [line("chr", 0, letters(tiny_bundle.genome, 0), "*")]
    source = write_lines(tmp_path / "in.vcf", lines)
    done = annotate_vcf(models, tiny_bundle, source, tmp_path / "o.vcf", settings=QUICK)
    assert done.flags == {"unknown_contig": len(lines) - 1, "symbolic": 1}
    assert len(ahead) == len(lines)
    assert max(ahead) == CHUNK


def test_flags_are_counted(scored, models, tiny_bundle, tmp_path):
    lines = [line("nowhere", 1, "A", "C"), line("chr", 9, "N", "<DEL>,*"), line("chr", 9, ".", ".")]
    source = write_lines(tmp_path / "in.vcf", lines)
    found = flag_metrics(
        annotate_vcf(models, tiny_bundle, source, tmp_path / "o.vcf", settings=QUICK)
    )
    values = {m.metric: m.value for m in found if m.value}
    assert values == {
        "variants_records": 3, "variants_flag:unknown_contig": 1, "variants_flag:symbolic": 2,
        "variants_flag:no_ref": 1,
    }  # fmt: skip
    assert {m.n for m in found} == {4}


# --- the command ---


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return save_masked(tmp_path_factory.mktemp("models") / "pre", "model.base_width=0")


def test_the_command_writes_files_and_prints_them(pretrained, tiny_bundle, tmp_path):
    lines = [snv(tiny_bundle.genome, start) for start in (100, 900)]
    source = write_lines(tmp_path / "in.vcf", lines)
    words = ["--model", pretrained, "--data", tiny_bundle.path, "--vcf", source]
    answer = call("variants", *words, "--out", tmp_path / "o.vcf.gz", "--json")
    assert answer.code == 0, answer.err
    names = [path.rsplit("/", 1)[1] for path in json.loads(answer.out)["files"]]
    assert sorted(names) == sorted(p.name for p in tmp_path.iterdir() if p != source)
    assert "variants: scored:" in answer.err
    manifest = json.loads((tmp_path / "o.manifest.json").read_text())
    assert manifest["masked_base_model"] == str(pretrained)
    assert manifest["data_sha256"].keys() >= {"in.vcf", "genome.npy"}
    assert manifest["config"]["window_bp"] == 2048
    counted = {m.metric: m.value for m in read_metrics(tmp_path / "o.metrics.json")}
    assert counted["variants_records"] == 2
    answer = call("variants", *words, "--out", tmp_path / "o.vcf.gz")
    assert (answer.code, answer.out) == (2, "")
    assert "exists, expected a new file (or --overwrite)" in answer.err
    assert call("variants", *words, "--out", source, "--overwrite").code == 2


def test_a_vcf_of_another_genome_is_refused_before_anything_is_written(
    pretrained, tiny_bundle, tmp_path
):
    lines = [
        line("chr", start + 1, letters(tiny_bundle.genome, start), "*") for start in range(100, 200)
    ]
    source = write_lines(tmp_path / "in.vcf", lines)
    words = ["--model", pretrained, "--data", tiny_bundle.path, "--vcf", source]
    answer = call("variants", *words, "--out", tmp_path / "o.vcf")
    assert answer.code == 2
    *_, text = answer.err.splitlines()
    assert "too far right" in text
    assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]


def test_a_vcf_with_none_of_the_contigs_is_refused(pretrained, tiny_bundle, tmp_path):
    source = write_lines(tmp_path / "in.vcf", [line(name, 9, "A", "C") for name in ("chr1", "p")])
    words = ["--model", pretrained, "--data", tiny_bundle.path, "--vcf", source]
    answer = call("variants", *words, "--out", tmp_path / "o.vcf")
    assert (answer.code, answer.out) == (2, "")
    found = f"no variant on a contig of {tiny_bundle.path}: all are on chr1, p"
    *_, last = answer.err.splitlines()
    assert last == f"genesplice: {source}: found {found}, expected contigs chr"
    assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]


def test_a_contig_of_another_name_is_reported(pretrained, tiny_bundle, tmp_path):
    ref = letters(tiny_bundle.genome, 100)
    source = write_lines(tmp_path / "in.vcf", [line("CHR", 100, ref, other(ref))])
    answer = call("variants", "--model", pretrained, "--data", tiny_bundle.path, "--vcf", source,
                  "--no-percentile", "--out", tmp_path / "o.vcf")  # fmt: skip
    assert answer.code == 0
    assert "variants: contigs that the data call otherwise: CHR is chr\n" in answer.err
    manifest = json.loads((tmp_path / "o.manifest.json").read_text())
    assert manifest["contigs_renamed"] == {"CHR": "chr"}


@pytest.mark.parametrize("n_swapped", [2, 8])
def test_swapped_alleles_are_reported(models, tiny_bundle, tmp_path, n_swapped):
    # An insertion and substitutions; a few such records in a file that is right are told only.
    lines = [snv(tiny_bundle.genome, start) for start in range(100, 1000, 100)]
    ref = letters(tiny_bundle.genome, 50)
    swapped = [line("chr", 50, ref + other(letters(tiny_bundle.genome, 51)), f"<DEL>,{ref}")]
    for start in range(1100, 1000 + 100 * n_swapped, 100):
        ref = letters(tiny_bundle.genome, start)
        swapped.append(line("chr", start, other(ref, start // 100 % 3 + 1), ref))
    source, said = write_lines(tmp_path / "in.vcf", swapped[:1] + lines + swapped[1:]), []
    words = models, tiny_bundle, source, tmp_path / "o.vcf"
    if n_swapped == 8:
        with pytest.raises(InputError, match=r"8 of 17 REF alleles.*REF and ALT look swapped"):
            annotate_vcf(*words, settings=QUICK)
        return
    assert annotate_vcf(*words, settings=QUICK, progress=said.append).flags["ref_mismatch"] == 3
    assert "variants: records whose REF and ALT look swapped: 2" in said


def test_folders_are_told_apart(pretrained, tmp_path):
    found = open_models([pretrained])
    assert (found.masked_path, found.levels) == (pretrained, ())
    assert found.record["expression_models"] == []
    with pytest.raises(InputError, match=r"no config\.json or run\.json"):
        open_models([tmp_path])
    with pytest.raises(InputError, match="two pre-trained models"):
        open_models([pretrained, pretrained])
    with pytest.raises(InputError, match="no --model"):
        open_models([])


# --- all of it in one file ---


@pytest.fixture(scope="module")
def model(tiny_bundle):
    return make_tiny(tiny_bundle)


def test_all_fields_of_a_file(model, tiny_bundle, tmp_path):
    lines = [snv(tiny_bundle.genome, start) for start in (900, 30_000, 60_000)]
    lines += [line("chr", 70_000, letters(tiny_bundle.genome, 70_000, 3), "T")]
    lines += [snv(tiny_bundle.genome, 119_000), line("chr", 119_500, "N", "<DEL>")]
    source = write_lines(tmp_path / "in.vcf", lines)
    models = Models(make_masked("model.base_width=0"), tmp_path, (model,), (tmp_path,))
    done = annotate_vcf(models, tiny_bundle, source, tmp_path / "o.vcf.gz",
                        settings=Settings(abstain=99.0))  # fmt: skip
    table = pd.read_parquet(tmp_path / "o.parquet")
    genes = pd.read_parquet(tmp_path / "o.genes.parquet")
    assert done.n_alleles == len(table) == len(lines)
    with pysam.VariantFile(str(tmp_path / "o.vcf.gz")) as handle:
        for record, row in zip(handle, table.itertuples(), strict=True):
            if row.flag == "symbolic":
                assert set(record.info) == {"GS_FLAG"}
                continue
            mine = genes[genes["record"] == row.record]
            assert len(mine) == row.n_genes
            if row.n_genes:
                most = mine.loc[mine["dlevel"].abs().idxmax()]
                assert record.info["GS_GENE"] == (most["gene_id"],)
                assert record.info["GS_DLEVEL"][0] == pytest.approx(most["dlevel"], rel=1e-4)
            if row.kind == "snv":
                assert 0 <= record.info["GS_PCT"][0] <= 100
    # The change of the profile is named too.
    assert set(genes["condition"]) <= set(tiny_bundle.observed.columns)
    assert (genes["level"] > 0).any()
    assert {m.metric for m in done.metrics} == {"llr_shared_mask_r", "llr_shared_mask_rmse"}


def test_without_a_masked_base_model_there_is_no_ratio(model, tiny_bundle, tmp_path):
    source = write_lines(tmp_path / "in.vcf", [snv(tiny_bundle.genome, 40_000)])
    models = Models(None, None, (model,), (tmp_path,))
    annotate_vcf(models, tiny_bundle, source, tmp_path / "o.vcf")
    with pysam.VariantFile(str(tmp_path / "o.vcf")) as handle:
        (record,) = handle
        assert set(handle.header.info) & {"GS_LLR", "GS_PCT"} == set()
    assert set(record.info) == {"GS_DLEVEL", "GS_GENE"}
    assert pd.read_parquet(tmp_path / "o.parquet")["llr"].isna().all()


def test_relatives_give_their_own_ratio(model, tiny_bundle, tmp_path):
    bundle = dataclasses.replace(tiny_bundle, relatives=make_relatives(tiny_bundle, 6))
    starts = (40_000, 40_500, 41_000)
    lines = [snv(bundle.genome, start) for start in starts]
    lines.append(f"chr\t{bundle.genome.length + 500}\t.\tA\tC\t.\t.\t.")
    source = write_lines(tmp_path / "in.vcf", lines)
    models = Models(None, None, (model,), (tmp_path,))
    annotate_vcf(models, bundle, source, tmp_path / "o.vcf", settings=QUICK)
    with pysam.VariantFile(str(tmp_path / "o.vcf")) as handle:
        *scored, beyond = handle
        assert beyond.info["GS_FLAG"] == ("outside_contig",)
        assert "GS_CONS" not in beyond.info
        kept = pd.read_parquet(tmp_path / "o.parquet")["conservation"]
        assert kept.isna().tolist() == [False, False, False, True]
        for start, record in zip(starts, scored, strict=True):
            had = bundle.relatives.bases[:, start]
            new, old = ((had == "ACGT".index(base)).sum() for base in (record.alts[0], record.ref))
            expected = np.log((new + 0.25) / (old + 0.25))
            assert record.info["GS_CONS"][0] == pytest.approx(expected, rel=1e-4)


def test_models_that_disagree_withhold_the_change(model, tiny_bundle, tmp_path):
    against = make_tiny(tiny_bundle)
    with torch.no_grad():
        # The same, upside down.
        for name, weight in against.named_parameters():
            if "level" in name:
                weight.neg_()
    source = write_lines(tmp_path / "in.vcf", [snv(tiny_bundle.genome, 40_000)])
    models = Models(None, None, (model, against), (tmp_path, tmp_path))
    done = annotate_vcf(models, tiny_bundle, source, tmp_path / "o.vcf")
    assert done.flags == {"models_disagree": 1}
    with pysam.VariantFile(str(tmp_path / "o.vcf")) as handle:
        (record,) = handle
    assert set(record.info) == {"GS_GENE", "GS_FLAG"}
    row = pd.read_parquet(tmp_path / "o.parquet").iloc[0]
    assert row["agreement"] == 0.5


def test_every_base_is_in_one_class(tiny_bundle):
    track, masks = region_track(tiny_bundle), region_masks(tiny_bundle)
    assert set(np.unique(track)) <= set(range(len(REGIONS)))
    assert np.array_equal(track == REGIONS.index("promoter"), masks["promoter"])
    assert np.array_equal(track == REGIONS.index("coding"), masks["coding"])
    place = int(np.flatnonzero(masks["promoter"])[0])
    assert region_of(tiny_bundle.genome, track, "chr", place) == "promoter"


@pytest.mark.parametrize(
    ("position", "ref", "alt", "start"),
    [(0, "AA", "A", 20), (22, "AAA", "A", 20), (0, "A", "AA", 20)],
)
def test_an_indel_at_the_origin_has_the_class_of_its_own_base(position, ref, alt, start):
    # A run of A over the origin of a circle: the leftmost placement lies before it.
    genome = Genome(encode("AAGATCCGTCCGTTGCCGTGAAAA"), (Contig("c", 0, 24, True),))
    found = normalise(genome, "c", position, ref, alt)
    track = (np.arange(24) // 18 * 3).astype(np.uint8)
    assert found.start == start
    assert region_of(genome, track, "c", found.start) == "promoter"
    assert region_of(genome, track, "c", 24) == region_of(genome, track, "c", 0) == "other"
    line = dataclasses.replace(genome, contigs=(Contig("c", 0, 24, False),))
    assert region_of(line, track, "c", 24) == "promoter"


def test_a_table_is_scored_like_a_vcf(models, model, tiny_bundle, tmp_path):
    both = models._replace(levels=(model,), level_paths=(tmp_path,))
    table = random_substitutions(tiny_bundle.genome, Region("chr", 500, 5000), 5)
    found = score_variants(both, tiny_bundle, table, settings=QUICK)
    lines = [line(row.contig, row.position - 1, row.ref, row.alt) for row in table.itertuples()]
    source = write_lines(tmp_path / "x.vcf", lines)
    again = score_variants(both, tiny_bundle, source, settings=QUICK)
    pd.testing.assert_frame_equal(again.table, found.table)
    done = annotate_vcf(both, tiny_bundle, source, tmp_path / "o.vcf", settings=QUICK)
    for suffix, part in (("", found.table), (".genes", found.genes)):
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"o{suffix}.parquet"), part)
    assert flag_metrics(done) == found.metrics
    assert found.genes["dlevel"].abs().max() > 0
    genome, find = tiny_bundle.genome, Consequences(tiny_bundle.genome, tiny_bundle.genes)
    alleles = [normalise(genome, row.contig, row.position - 1, row.ref, row.alt)
               for row in table.itertuples()]  # fmt: skip
    columns = found.table[["consequence", "consequence_gene"]]
    assert [tuple(row) for row in columns.itertuples(index=False)] == [*map(find, alleles)]
    with pytest.raises(InputError, match="no column alt"):
        score_variants(both, tiny_bundle, table.drop(columns="alt"))

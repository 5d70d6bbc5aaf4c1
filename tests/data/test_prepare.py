"""From the user's files to a bundle, or to one line that says what is wrong with them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_files import write, write_truncated
from tiny_inputs import ALL, BASES, IDS, N_GENES, STARTS, gff, inputs, table

from genesplice.data.bundle import load_bundle
from genesplice.data.genome import decode
from genesplice.data.knowledge import replace_knowledge
from genesplice.data.prepare import prepare_files, prepare_recipe
from genesplice.errors import InputError
from genesplice.runtime import file_sha256


def prepared(tmp_path: Path, *parts: str, unit="tpm", options=None, **texts: str | bytes):
    files = inputs(tmp_path / "in", *parts, **texts)
    return prepare_files(
        **files, expression_unit=unit, out=tmp_path / "out" / "mine", block_bp=2000,
        **(options or {}),
    )  # fmt: skip


# --- what comes out ---


def test_relatives_are_kept_with_the_bundle(tmp_path, monkeypatch):
    pytest.importorskip("mappy")
    monkeypatch.setenv("GENESPLICE_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(2)
    other = np.array(list(BASES))
    changed = rng.random(len(other)) < 0.1
    other[changed] = rng.choice(list("ACGT"), changed.sum())
    (tmp_path / "relatives").mkdir()
    for name, sequence in (("cousin.fa", other), ("strain.fa", other.copy())):
        if name == "strain.fa":
            sequence = np.array(list(BASES))
            sequence[::200] = "A"
        write(tmp_path / "relatives" / name, f">x\n{''.join(sequence)}\n")
    bundle = prepared(tmp_path, options={"relatives": tmp_path / "relatives"})
    table = bundle.relatives.table.set_index("name")
    assert table["group"].to_dict() == {"strain": "left out", "cousin": "near"}
    row = bundle.relatives.bases[list(table.index).index("cousin")]
    letters = np.array(list("ACGT--"))[row]
    assert (letters == other).mean() > 0.98
    assert bundle.relatives.columns[0].sum() == (row <= 4).sum()
    assert bundle.leakage["checks"][-1]["status"] == "amber"
    assert bundle.manifest["counts"]["relatives"] == 2
    assert {"cousin.fa", "strain.fa"} < set(bundle.manifest["data_sha256"])
    assert "--relatives" in bundle.manifest["command"]
    (tmp_path / "out" / "mine" / "columns.npy").unlink()
    with pytest.raises(InputError, match=r"no columns\.npy"):
        load_bundle(tmp_path / "out" / "mine")


def test_all_files_become_one_bundle(tmp_path):
    bundle = prepared(tmp_path, *ALL)
    assert bundle.name == "mine"
    assert decode(bundle.genome.fetch("chr1", 0, 24_000)) == BASES
    assert bundle.genome.contigs[0].is_circular
    assert bundle.genes["gene_id"].tolist() == IDS
    assert bundle.genes["start"].tolist() == [start - 1 for start in STARTS]
    assert bundle.observed.columns.tolist() == ["warm", "cold"]
    assert bundle.expression.var_names.tolist() == IDS
    edges = bundle.network[["source", "target", "sign"]]
    assert edges.to_numpy().tolist() == [["b0000", "b0001", 1], ["b0002", "b0003", -1]]
    assert bundle.gene_sets == {"GO:1": ("b0000", "b0001", "b0002")}
    assert bundle.leakage["status"] != "red"
    assert load_bundle(tmp_path / "out" / "mine").data_sha256 == bundle.data_sha256


def test_names_are_resolved_later_as_they_were_at_first(tmp_path):
    whole = prepared(tmp_path / "whole", *ALL)
    files = inputs(tmp_path / "more", "network", "gene_sets")
    later = replace_knowledge(
        prepared(tmp_path / "bare"), network=files["network"], gene_sets=files["gene_sets"],
        collections=("GO",),
    )  # fmt: skip
    assert later.network.equals(whole.network)
    assert later.gene_sets["GO:1"] == whole.gene_sets["GO:1"] == ("b0000", "b0001", "b0002")


def test_operons_and_transcription_starts_are_those_of_files(tmp_path):
    files = {
        "operons": write(tmp_path / "operons.tsv", "b0000\top\ngen1\top\n"),
        "tss": write(tmp_path / "tss.tsv", "gene\tposition\ngen0\t141\n"),
    }
    bundle = prepared(tmp_path, options=files)
    operons = bundle.splits.set_index("gene_id")["operon"]
    assert operons[IDS[:3]].tolist() == ["op", "op", "b0002"]
    assert bundle.genes["tss"].tolist()[:2] == [140, STARTS[1] + 298]
    assert {"operons.tsv", "tss.tsv"} < set(bundle.manifest["data_sha256"])
    assert "--operons" in bundle.manifest["command"]
    alone = prepared(tmp_path / "none", options={"operons": "none"})
    assert alone.splits["operon"].tolist() == IDS


def test_folder_of_samples_is_in_the_manifest_file_by_file(tmp_path):
    files = inputs(tmp_path / "in")
    for n, sample in enumerate(("s1", "s2"), 1):
        rows = [f"{gene}\t{n * i}\t{n * i}\t0" for i, gene in enumerate(IDS, 1)]
        (tmp_path / "star" / sample).mkdir(parents=True)
        text = "\n".join(["N_unmapped\t5\t5\t5", *rows, ""])
        write(tmp_path / "star" / sample / "ReadsPerGene.out.tab", text)
    files |= {"expression": tmp_path / "star", "expression_unit": "counts"}
    bundle = prepare_files(**files, out=tmp_path / "mine", block_bp=2000)
    assert bundle.expression.obs_names.tolist() == ["s1", "s2"]
    names = [f"star/{sample}/ReadsPerGene.out.tab" for sample in ("s1", "s2")]
    assert set(names) < set(bundle.manifest["data_sha256"])
    assert any("STAR's column" in note and "(2 of 2" in note for note in bundle.manifest["notes"])
    assert bundle.manifest["expression_rows"]["left_out"] == {
        "spike-ins and counters": {"n": 1, "first": ["N_unmapped"]}
    }


def test_deleted_genes_of_samples_are_no_measurements(tmp_path):
    text = "sample\tdeleted\tcondition\ns1\tgen1;old2\twarm\ns2\tb0001\twarm\n"
    text += "s3\t\tcold\ns4\t gen5 , b0005\tcold\ns9\tno such gene\tother\n"
    said = []
    bundle = prepared(tmp_path, samples=text, options={"progress": said.append})
    missing = np.argwhere(np.isnan(bundle.expression.X)).tolist()
    assert missing == [[0, 1], [0, 2], [1, 1], [3, 5]]
    assert bundle.expression.obs["deleted"].tolist() == ["b0001;b0002", "b0001", "", "b0005"]
    assert bundle.manifest["counts"]["deleted_measurements"] == 4
    note = "deleted genes: 4 measurements are missing, no targets (3 genes in 3 of 4 samples)"
    assert note in bundle.manifest["notes"]
    assert note in said
    assert np.argwhere(bundle.observed.isna()).tolist() == [[1, 0]]


@pytest.mark.slow
def test_pipes_are_read_like_files(tmp_path):
    plain = prepared(tmp_path, options={"name": "mine"})
    folder = tmp_path / "in"
    code = "from genesplice.data.prepare import prepare_files as f; import sys; "
    code += "f(sys.argv[1], '/dev/stdin', sys.argv[2], 'tpm', out=sys.argv[3], block_bp=2000)"
    words = [folder / "genome.fa", folder / "tpm.tsv", tmp_path / "piped"]
    text = (folder / "genes.gff3").read_bytes()
    subprocess.run([sys.executable, "-c", code, *words], input=text, check=True)
    piped = load_bundle(tmp_path / "piped")
    assert piped.data_sha256 == plain.data_sha256
    digests = piped.manifest["data_sha256"]
    assert digests["stdin"] == plain.manifest["data_sha256"]["genes.gff3"]


def test_evidence_may_be_declared_where_the_files_do_not(tmp_path):
    def statuses(folder, **options):
        edges = "regulator\tgene\ngen0\tgen1\n"
        bundle = prepared(tmp_path / folder, "gene_sets", network=edges, options=options)
        checks = {record["check"]: record["status"] for record in bundle.leakage["checks"]}
        return [checks[f"{what} whose evidence is expression"] for what in ("edges", "gene sets")]

    assert statuses("none") == ["amber", "amber"]
    declared = {"network_evidence": "ChIP-seq", "gene_set_evidence": "coexpression"}
    assert statuses("declared", **declared) == ["green", "red"]
    with pytest.raises(InputError, match="evidence 'good', expected such as expression, curated"):
        statuses("wrong", network_evidence="good")


def test_three_files_are_enough(tmp_path):
    bundle = prepared(tmp_path, options={"name": "other"})
    assert (bundle.name, len(bundle.network), bundle.gene_sets) == ("other", 0, {})
    assert bundle.observed.columns.tolist() == ["s1", "s2", "s3", "s4"]


def test_manifest_names_every_file_with_its_checksum(tmp_path):
    bundle = prepared(tmp_path, *ALL)
    expected = {name: file_sha256(tmp_path / "in" / name) for name, _ in ALL.values()}
    assert bundle.manifest["data_sha256"] == expected
    assert bundle.manifest["expression_unit"] == "tpm"
    for name in expected:
        assert name in bundle.manifest["command"]


def test_steps_are_told_in_order(tmp_path):
    told = []
    prepared(tmp_path, options={"progress": told.append})
    assert told[:3] == ["reading expression", "reading the genome", "reading the annotation"]
    assert told.index("writing the bundle") < told.index("genes matched: 40 of 40 (id 40)")
    assert told[-1] == "genes matched: 40 of 40 (id 40)"


# --- names that differ between files ---


@pytest.mark.parametrize("unit", ["tpm", "counts"])
@pytest.mark.parametrize(
    ("key", "rename"),
    [
        ("id", lambda i: IDS[i].upper()),
        ("name", lambda i: f"gen{i}"),
        ("synonym", lambda i: f"OLD{i}"),
        ("id without version", lambda i: f"{IDS[i].upper()}.2"),
    ],
)
def test_genes_are_found_by_name_synonym_and_id_without_version(tmp_path, unit, key, rename):
    named = prepared(tmp_path, unit=unit, expression=table([rename(i) for i in range(N_GENES)]))
    assert named.expression.var_names.tolist() == IDS
    account = {"rows": 40, "matched": {key: 40}, "left_out": {}}
    assert named.manifest["expression_rows"] == account
    assert f"genes matched: 40 of 40 ({key} 40)" in named.manifest["notes"]
    by_id = prepared(tmp_path / "ids", unit=unit)
    assert np.array_equal(named.expression.X, by_id.expression.X)


def test_genes_that_match_nothing_are_left_out_and_counted(tmp_path):
    ids = [*IDS[:30], *(f"tRNA{i}" for i in range(10))]
    with pytest.raises(
        InputError, match=r"10 of 40 genes left out .not in the ann.*--allow-missing"
    ):
        prepared(tmp_path, expression=table(ids))
    assert not (tmp_path / "out").exists()
    bundle = prepared(tmp_path, expression=table(ids), options={"allow_missing": True})
    assert bundle.expression.var_names.tolist() == IDS[:30]
    assert "--allow-missing" in bundle.manifest["command"]
    assert "genes matched: 30 of 40 (id 30)" in bundle.manifest["notes"]
    first = [f"tRNA{i}" for i in range(5)]
    lost = {"not in the annotation": {"n": 10, "first": first}}
    assert bundle.manifest["expression_rows"]["left_out"] == lost


@pytest.mark.parametrize(("n_lost", "is_refused"), [(2, False), (3, True)])
def test_more_than_one_gene_in_twenty_is_left_out_on_demand_only(tmp_path, n_lost, is_refused):
    extra = ["__no_feature", "N_unmapped", *(f"ERCC-{i:05d}" for i in range(30))]
    text = table([*IDS[n_lost:], *(f"x{i}" for i in range(n_lost)), *extra])
    if is_refused:
        with pytest.raises(InputError, match="3 of 40 genes left out"):
            prepared(tmp_path, expression=text)
    else:
        assert prepared(tmp_path, expression=text).expression.n_vars == 38


def test_what_is_left_out_is_said_while_it_is_done(tmp_path):
    told = []
    ids = ["gen0", "1-Mar", "9-Sep", *IDS[3:], "ERCC-00002", "__no_feature", "gen0.1"]
    bundle = prepared(tmp_path, unit="counts", expression=table(ids),
                      options={"progress": told.append, "allow_missing": True})  # fmt: skip
    assert bundle.expression.var_names.tolist() == [IDS[0], *IDS[3:]]
    assert told[-4:] == [
        "genes matched: 38 of 43 (name 1, id 37)",
        "genes left out, dates that a spreadsheet made of names: 2 (1-Mar, 9-Sep)",
        "genes left out, spike-ins and counters: 2 (ERCC-00002, __no_feature)",
        "genes left out, of a gene that has a row: 1 (gen0.1)",
    ]
    assert set(told[-4:]) < set(bundle.manifest["notes"])


def test_share_of_coding_sequences_that_begin_and_end_right_is_told(tmp_path):
    told = []
    cds = gff().replace("\tgene\t", "\tCDS\t").replace("ID=gene-", "ID=cds-")
    bundle = prepared(tmp_path, annotation=gff() + cds, options={"progress": told.append})
    found = bundle.manifest["coding"]
    assert (found["n"], found["share"] < 0.5) == (40, True)
    assert found["text"] in told
    assert found["text"].endswith("the genome is random bases")


def test_contig_names_are_matched_and_noted(tmp_path):
    told = []
    bundle = prepared(tmp_path, annotation=gff("1"), options={"progress": told.append})
    assert set(bundle.genes["contig"]) == {"chr1"}
    assert bundle.manifest["contig_aliases"] == {"1": "chr1"}
    assert "contigs of genes.gff3 by other names in the genome: 1 (1 is chr1)" in told


def test_circle_may_be_declared_by_the_user(tmp_path):
    straight = prepared(tmp_path, annotation=gff(is_circular=False))
    assert not straight.genome.contigs[0].is_circular
    options = {"circular": ("chr1",)}
    round_one = prepared(tmp_path / "b", annotation=gff(is_circular=False), options=options)
    assert round_one.genome.contigs[0].is_circular
    with pytest.raises(InputError, match="--circular 'plasmid', expected chr1"):
        prepared(tmp_path / "c", options={"circular": ("plasmid",)})


def test_counts_are_divided_by_the_length_of_the_exons(tmp_path):
    exon = f"chr1\tx\tCDS\t{STARTS[0]}\t{STARTS[0] + 29}\t.\t+\t0\tlocus_tag={IDS[0]}\n"
    ids, text = IDS, "gene\ts1\n" + "".join(f"{gene}\t10\n" for gene in IDS)
    bundle = prepared(tmp_path, unit="counts", annotation=gff() + exon, expression=text)
    tpm = 2.0 ** bundle.observed["s1"] - 1
    assert tpm[ids[0]] / tpm[ids[1]] == pytest.approx(10, rel=1e-3)
    assert tpm.sum() == pytest.approx(1e6, rel=1e-3)


# --- what is refused leaves nothing behind ---

OTHER_NAMES = table([f"ENSG{i}" for i in range(N_GENES)])


@pytest.mark.parametrize("part", list(ALL))
def test_missing_and_truncated_files_leave_nothing(tmp_path, part):
    files = inputs(tmp_path, *ALL)
    options = {"expression_unit": "tpm", "out": tmp_path / "out", "block_bp": 2000}
    with pytest.raises(InputError, match="no such file, expected a file"):
        prepare_files(**files | {part: tmp_path / "nowhere.tsv"}, **options)
    name, text = ALL[part]
    noise = "#" + "".join(np.random.default_rng(0).permutation(list("0123456789abcdef" * 99)))
    cut = write_truncated(tmp_path / f"{name}.gz", text + noise)
    with pytest.raises(InputError, match="truncated or damaged gzip stream, expected a complete"):
        prepare_files(**files | {part: cut}, **options)
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_empty_and_doubled_names_of_sets_do_not_break_the_bundle(tmp_path):
    files = inputs(tmp_path)
    sets = write(tmp_path / "sets.csv", "gene,set\n" + "".join(f"b000{i}, a \n" for i in range(4)))
    options = {"expression_unit": "tpm", "block_bp": 2000, "gene_sets": sets}
    assert list(prepare_files(**files, out=tmp_path / "one", **options).gene_sets) == ["a"]
    write(sets, sets.read_text() + "".join(f"b000{i},a\n" for i in range(4)))
    assert list(prepare_files(**files, out=tmp_path / "two", **options).gene_sets) == ["a"]
    write(sets, sets.read_text() + "b0004,\n")
    with pytest.raises(InputError, match=r"sets\.csv:10: found an empty set, expected a name"):
        prepare_files(**files, out=tmp_path / "three", **options)
    assert not (tmp_path / "three").exists()


def test_taken_folder_is_refused_before_any_work(tmp_path):
    out = tmp_path / "out" / "mine"
    out.mkdir(parents=True)
    (out / "thesis.txt").write_text("mine")
    told = []
    with pytest.raises(InputError, match=r"mine exists and is not empty, expected a new folder"):
        prepared(tmp_path, options={"progress": told.append})
    assert told == []
    assert (out / "thesis.txt").read_text() == "mine"


def test_overwriting_with_a_bad_file_keeps_the_good_bundle(tmp_path):
    good = prepared(tmp_path)
    with pytest.raises(InputError, match="the annotation lacks"):
        prepared(tmp_path, expression=OTHER_NAMES, options={"overwrite": True})
    assert load_bundle(good.path).data_sha256 == good.data_sha256
    assert [path.name for path in good.path.parent.iterdir()] == ["mine"]
    again = prepared(tmp_path, expression=table(scale=500), options={"overwrite": True})
    assert again.data_sha256["expression.h5ad"] != good.data_sha256["expression.h5ad"]


# --- recipes and the command line ---


def test_recipe_refuses_a_taken_folder_before_any_work(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not empty"):
        prepare_recipe("ecoli", tmp_path, cache=tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

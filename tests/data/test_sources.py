"""The recipe: a pinned wheel, read as a zip and never imported, and what it is turned into."""

import http.server
import io
import lzma
import os
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_files import random_genome

from genesplice.data import sources
from genesplice.data.genome import decode, read_fasta
from genesplice.data.prepare import prepare_recipe
from genesplice.data.sources import (
    MEMBERS,
    PROTEINS,
    RECIPES,
    WHEEL,
    WHEEL_SHA256,
    default_cache,
    fetch_relatives,
    fetch_wheel,
    prepare_ecoli,
)
from genesplice.data.tables import read_table
from genesplice.errors import InputError, WorkError
from genesplice.runtime import file_sha256

TRAP = "import pathlib\npathlib.Path(__file__).with_name('imported').touch()\nraise SystemExit(9)\n"
CONTIG = "NC_000913.3"
BASES = decode(random_genome(24_000, seed=3).tokens)
NAMES = ["lacI", "lacZ", "ihfA", "ihfB", "flhD", "flhC", "crp", "araB"]
IDS = [f"b{i:04d}" for i in range(1, len(NAMES) + 1)]


def genes_of_the_control() -> pd.DataFrame:
    """Eight genes, a pseudogene b0100 in two pieces, and b0200, which the GFF lacks."""
    rows = [(gene, 1000 * i, 1000 * i + 600, "+", name, f"op{i // 2}", "Transport")
            for i, (gene, name) in enumerate(zip(IDS, NAMES, strict=True))]  # fmt: skip
    rows += [
        ("b0100_1", 10_000, 10_100, "-", "crl_1", "crl", "No COG Annotation"),
        ("b0100_2", 10_150, 10_400, "-", "crl_2", "crl", "No COG Annotation"),
        ("b0200", 12_000, 12_300, "+", "ygdT", "ygdT", "Transport"),
    ]
    columns = ["", "start", "end", "strand", "gene_name", "operon", "COG"]
    return pd.DataFrame(rows, columns=columns).assign(accession=CONTIG)


def members() -> dict[str, str]:
    """What a small pymodulon would hold."""
    genes = genes_of_the_control()
    gff = f"{CONTIG}\tRefSeq\tregion\t1\t24000\t.\t+\t.\tID=c;Is_circular=true\n"
    for gene in genes[:8].itertuples():
        gff += f"{CONTIG}\tRefSeq\tgene\t{gene.start + 1}\t{gene.end}\t.\t+\t.\t"
        gff += f"ID=gene-{gene[1]};gene={gene.gene_name};locus_tag={gene[1]};"
        gff += "gene_biotype=protein_coding\n"
    gff += f"{CONTIG}\tRefSeq\tpseudogene\t10001\t10400\t.\t-\t.\tID=x;gene=crl;locus_tag=b0100\n"
    measured = pd.Index([*IDS[:7], "b0100_1", "b0200"])
    values = np.random.default_rng(0).uniform(0, 14, (len(measured), 4))
    samples = ["p__wt__1", "p__wt__2", "q__wt__1", "q__ko__1"]
    table = pd.DataFrame({"project": list("ppqq"), "condition": ["wt", "wt", "wt", "ko"]}, samples)
    table["Strain"] = "MG1655"
    table["Strain Description"] = "E. coli K-12 MG1655"
    eggnog = "# emapper\n"
    for gene, terms in (
        ("b0001", "GO:1,GO:2"),
        ("b0002", "GO:1"),
        ("b0003", "GO:1"),
        ("b9", "GO:1"),
    ):
        fields = [gene, *"abcde", terms, "ec", "ko:K1", "ko00010,map00010", *"fghijkl"]
        eggnog += "\t".join(fields) + "\n"
    trn = "regulator,gene_id,effect\n" + "".join(
        f"{regulator},{gene},{effect}\n"
        for regulator, gene, effect in [
            ("lacI", "b0002", "-"), ("crp", "b0002", "+-"), ("ihf", "b0008", "+"),
            ("flhD;flhC", "b0008", "?"), ("FMN", "b0001", "-"), ("crl", "b0007", "+"),
        ]
    )  # fmt: skip
    row = "0.7 0.1 0.1 0.1\n"
    meme = f"MEME version 4\n\nMOTIF CRP_1\nletter-probability matrix:\n{row}"
    return {
        "genome.fasta": f">{CONTIG} E. coli\n{BASES}\n",
        "genome.gff3": gff,
        "log_tpm.csv": pd.DataFrame(values, measured, samples).to_csv(),
        "sample_table.csv": table.to_csv(),
        "gene_table.csv": genes.to_csv(index=False),
        "trn.csv": trn,
        "eggNOG_annotations.txt": eggnog,
        "SwissRegulon_e_coli.meme": meme,
    }


def write_wheel(folder, **changes):
    """A wheel with the same layout whose code must never run."""
    folder.mkdir(parents=True, exist_ok=True)
    info = "pymodulon-0.2.1.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        for name, text in (members() | changes).items():
            if text is not None:
                archive.writestr(MEMBERS[name], text)
        archive.writestr("pymodulon/__init__.py", TRAP)
        archive.writestr("pymodulon/data/ecoli/M.csv", "an iModulon matrix\n")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: pymodulon\nVersion: 0.2.1\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return folder / WHEEL


@pytest.fixture
def pinned(tmp_path, monkeypatch):
    """Recipe parts of a small wheel, whose checksum is made the pinned one."""

    def parts(**changes):
        wheel = write_wheel(tmp_path / "cache", **changes)
        monkeypatch.setattr(sources, "WHEEL_SHA256", file_sha256(wheel))
        monkeypatch.setattr(sources, "RELATIVES_SUMMARY", tmp_path / "none.xz")
        return prepare_ecoli(wheel.parent)

    return parts


@pytest.fixture
def offline(monkeypatch):
    """No index but a closed port of this machine."""
    for name in [name for name in os.environ if name.upper().startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return monkeypatch


# --- getting the wheel ---


def test_changed_file_in_the_cache_is_refused_and_kept(tmp_path, offline):
    wheel = write_wheel(tmp_path)
    before = wheel.read_bytes()
    with pytest.raises(InputError) as caught:
        fetch_wheel(tmp_path)
    error = str(caught.value)
    assert error.startswith(f"{wheel}: found a wheel with sha256 {file_sha256(wheel)[:16]}…")
    assert f"expected {WHEEL_SHA256[:16]}… (delete {wheel} to fetch it again)" in error
    assert "\n" not in error
    assert wheel.read_bytes() == before


def test_changed_download_is_refused_and_not_kept(tmp_path, offline):
    elsewhere = write_wheel(tmp_path / "elsewhere")
    offline.delenv("PIP_INDEX_URL")
    offline.setenv("PIP_NO_INDEX", "1")
    offline.setenv("PIP_FIND_LINKS", str(elsewhere.parent))
    told = []
    with pytest.raises(InputError, match="refused, nothing was kept"):
        fetch_wheel(tmp_path / "cache", told.append)
    assert list((tmp_path / "cache").iterdir()) == []
    assert told == ["downloading pymodulon==0.2.1 (50 MB) with pip, once"]


def test_download_with_the_pinned_checksum_is_kept_and_not_fetched_again(tmp_path, offline):
    elsewhere = write_wheel(tmp_path / "elsewhere")
    offline.setattr(sources, "WHEEL_SHA256", file_sha256(elsewhere))
    offline.delenv("PIP_INDEX_URL")
    offline.setenv("PIP_NO_INDEX", "1")
    offline.setenv("PIP_FIND_LINKS", str(elsewhere.parent))
    got = fetch_wheel(tmp_path / "cache")
    assert got == tmp_path / "cache" / WHEEL
    assert got.read_bytes() == elsewhere.read_bytes()
    elsewhere.unlink()
    told = []
    assert fetch_wheel(tmp_path / "cache", told.append) == got
    assert told == []
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [WHEEL]


def test_without_network_one_line_says_what_to_do(tmp_path, offline):
    with pytest.raises(WorkError) as caught:
        fetch_wheel(tmp_path / "cache")
    error = str(caught.value)
    assert error.startswith("pip could not download pymodulon==0.2.1 (")
    assert error.endswith(
        f"connect to the network and run again, or put {WHEEL} into {tmp_path / 'cache'} by hand"
    )
    assert "\n" not in error
    assert caught.value.exit_code == 1
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_is_where_the_environment_says_else_with_the_data(monkeypatch, tmp_path):
    monkeypatch.setenv("GENESPLICE_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("GENESPLICE_CACHE")
    assert default_cache().parts[-2:] == ("data", "cache")


# --- reading it ---


def test_wheel_is_read_as_a_zip_and_never_imported(pinned, tmp_path):
    before = list(sys.path)
    assert pinned().name == "ecoli"
    assert "pymodulon" not in sys.modules
    assert sys.path == before
    assert not list(tmp_path.rglob("imported"))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [WHEEL]


def test_inputs_are_the_wheel_and_the_files_read_and_no_imodulons(pinned):
    inputs = pinned().inputs
    assert [record["name"] for record in inputs] == [WHEEL, *MEMBERS.values()]
    assert {record["licence"] for record in inputs} == {"MIT"}
    assert all(len(record["sha256"]) == 64 for record in inputs)
    counts = {record["name"]: record["counts"] for record in inputs}
    assert counts[MEMBERS["genome.fasta"]] == {"lines": 2}


def test_genes_come_from_the_gff_and_pieces_replace_a_split_pseudogene(pinned):
    parts = pinned()
    genes = parts.genes.set_index("gene_id")
    assert genes.index.tolist() == [*IDS, "b0100_1", "b0100_2", "b0200"]
    assert parts.genome.contigs[0].is_circular
    assert genes.loc["b0002", ["name", "start", "end", "tss"]].tolist() == [
        "lacZ",
        1000,
        1600,
        1000,
    ]
    assert genes.loc["b0100_1", ["start", "end", "tss", "biotype"]].tolist() == [
        10_000, 10_100, 10_099, "pseudogene",
    ]  # fmt: skip
    assert genes.loc["b0200", "biotype"] == "protein_coding"
    assert any("2 measured genes are not in genome.gff3" in note for note in parts.notes)


def test_conditions_are_told_apart_by_project(pinned):
    expression = pinned().expression
    assert expression.shape == (4, 9)
    assert expression.obs["condition"].tolist() == ["p__wt", "p__wt", "q__wt", "q__ko"]


@pytest.mark.parametrize(
    ("description", "lacking"),
    [
        ("Escherichia coli K-12 MG1655 del_crp", ["b0007"]),
        ("Escherichia coli K-12 MG1655 del_lacZ del_ihfA", ["b0002", "b0003"]),
        ("Escherichia coli EEP_flhD_flhC.36.86.1", ["b0005", "b0006"]),
        ("Escherichia coli FPS lacI.1.5.1", ["b0001"]),
        ("Escherichia coli K-12 MG1655 crp_delAr1delAr2", []),
        ("Escherichia coli PARENT", ["b0002"]),
    ],
)
def test_deleted_genes_are_read_from_the_strain_and_checked(
    pinned, monkeypatch, description, lacking
):
    monkeypatch.setattr(sources, "PARENT", {"PARENT": "del_lacZ"})
    changed = members()
    samples = pd.read_csv(io.StringIO(changed["sample_table.csv"]), index_col=0)
    values = pd.read_csv(io.StringIO(changed["log_tpm.csv"]), index_col=0)
    samples.loc["q__ko__1", "Strain Description"] = description
    values.loc[lacking, "q__ko__1"] = 0.0
    told = {"sample_table.csv": samples.to_csv(), "log_tpm.csv": values.to_csv()}
    parts = pinned(**told)
    missing = np.argwhere(np.isnan(parts.expression.X)).tolist()
    assert missing == [[3, parts.expression.var_names.get_loc(gene)] for gene in lacking]
    assert parts.expression.obs["deleted"].tolist() == ["", "", "", ";".join(lacking)]
    assert any(f"deleted genes: {len(lacking)} measurements" in note for note in parts.notes)
    # Deleted by name, but expressed as ever.
    values.loc[lacking, "q__ko__1"] = values.loc[lacking].max(axis=1)
    parts = pinned(**told | {"log_tpm.csv": values.to_csv()})
    assert np.isfinite(parts.expression.X).all()
    if lacking:
        assert f"not taken as deleted: {len(lacking)} ({lacking[0]} in q__ko__1" in parts.notes[-6]


def test_regulators_stand_for_their_genes(pinned):
    parts = pinned()
    edges = parts.network[["source", "target", "sign"]].to_numpy().tolist()
    assert sorted(edges) == sorted(
        [
            ["b0001", "b0002", -1], ["b0007", "b0002", 0], ["b0003", "b0008", 1],
            ["b0004", "b0008", 1], ["b0005", "b0008", 0], ["b0006", "b0008", 0],
            ["FMN", "b0001", -1], ["b0100_1", "b0007", 1], ["b0100_2", "b0007", 1],
        ]
    )  # fmt: skip
    assert set(parts.network["provenance"]) == {"RegulonDB (curated), trn.csv of pymodulon 0.2.1"}
    assert "regulators that are no genes keep their name: FMN" in parts.notes
    assert PROTEINS["ihf"] == ("ihfA", "ihfB")


def test_gene_sets_hold_three_genes_or_more_and_operons_known_genes(pinned):
    parts = pinned()
    assert parts.gene_sets == {
        "COG:Transport": (*IDS, "b0200"),
        "GO:1": ("b0001", "b0002", "b0003"),
        "KEGG:ko00010": ("b0001", "b0002", "b0003"),
    }
    assert "gene sets of fewer than 3 genes are left out: 1" in parts.notes
    assert parts.operons["b0001"] == parts.operons["b0002"] == "op0"
    assert set(parts.operons) == set(parts.genes["gene_id"])
    assert list(parts.motifs) == ["CRP_1"]


@pytest.mark.parametrize("name", MEMBERS)
def test_wheel_without_a_file_is_refused(pinned, tmp_path, name):
    with pytest.raises(
        InputError, match=r"\.whl: found no usable wheel .*, expected the published"
    ):
        pinned(**{name: None})


def test_wheel_that_is_no_zip_is_refused(tmp_path, monkeypatch):
    (tmp_path / WHEEL).write_bytes(b"<html>not found</html>")
    monkeypatch.setattr(sources, "WHEEL_SHA256", file_sha256(tmp_path / WHEEL))
    with pytest.raises(InputError, match="no usable wheel"):
        prepare_ecoli(tmp_path)


def test_measured_gene_that_no_table_knows_is_refused(pinned):
    table = members()["log_tpm.csv"].replace("b0200", "b7777")
    with pytest.raises(InputError, match="measured gene 'b7777' in no annotation"):
        pinned(**{"log_tpm.csv": table})


# --- the real wheel ---


@pytest.mark.skipif(not (default_cache() / WHEEL).is_file(), reason="the wheel is not in the cache")
def test_recipe_gives_the_prepared_ecoli(ecoli):
    parts = RECIPES["ecoli"](None, None)
    assert "pymodulon" not in sys.modules
    assert np.array_equal(parts.genome.tokens, ecoli.genome.tokens)
    assert parts.genome.contigs == ecoli.genome.contigs
    pd.testing.assert_frame_equal(parts.genes, ecoli.genes)
    pd.testing.assert_frame_equal(parts.network, ecoli.network)
    assert np.array_equal(parts.expression.X, ecoli.expression.X, equal_nan=True)
    assert parts.gene_sets == ecoli.gene_sets
    assert parts.notes == ecoli.manifest["notes"]
    assert len(ecoli.relatives.table) == 18
    assert np.array_equal(parts.relatives.columns, ecoli.relatives.columns)


def test_ecoli_manifest_has_the_pinned_checksum(ecoli):
    assert ecoli.manifest["data_sha256"][WHEEL] == WHEEL_SHA256
    assert set(MEMBERS.values()) < set(ecoli.manifest["data_sha256"])


# --- relatives from the archive ---


@pytest.fixture
def archive(tmp_path, offline):
    """Genomes behind a port of this machine: sequences by accession, what was asked, and lost."""
    records = {"N_1": random_genome(900, seed=1), "N_2": random_genome(500, seed=2),
               "N_3": random_genome(700, seed=3)}  # fmt: skip
    asked, lost = [], set()

    class Records(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.path.partition("&id=")[2]
            asked.append(wanted)
            text = "".join(
                f">{name} words\n{decode(records[name].tokens).lower()}\n\n"
                for name in wanted.split(",")
            )
            self.send_response(404 if wanted in lost else 200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Records)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    offline.setattr(sources, "ARCHIVE", f"http://127.0.0.1:{server.server_port}/?db=x&id=")
    pinned = []
    for name, accessions in (("First", "N_1"), ("Second", "N_3,N_2")):
        (tmp_path / "x.fa").write_text(
            "".join(f">{one}\n{decode(records[one].tokens)}\n" for one in accessions.split(","))
        )
        pinned.append((name, accessions, read_fasta(tmp_path / "x.fa").digest))
    table = pd.DataFrame(pinned, columns=["name", "records", "sha256"])
    table.to_csv(tmp_path / "pinned.tsv", sep="\t", index=False)
    offline.setattr(sources, "RELATIVES_TABLE", tmp_path / "pinned.tsv")
    yield records, asked, lost
    server.shutdown()
    server.server_close()
    thread.join()


def test_genomes_of_the_archive_are_fetched_once_and_go_on_where_they_stopped(tmp_path, archive):
    records, asked, lost = archive
    lost.add("N_3,N_2")
    said = []
    folder, notes = fetch_relatives(tmp_path, said.append)
    assert folder is None
    assert notes == said[-1:]
    assert "HTTP Error 404" in said[-1]
    assert "1 of 2 genomes are there, and the summary is used" in said[-1]
    lost.clear()
    folder, notes = fetch_relatives(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["First.fna", "Second.fna"]
    assert asked == ["N_1", "N_3,N_2", "N_3,N_2"]
    second = read_fasta(folder / "Second.fna")
    assert [contig.name for contig in second.contigs] == ["N_3", "N_2"]
    np.testing.assert_array_equal(second.tokens[700:], records["N_2"].tokens)
    assert fetch_relatives(tmp_path) == (folder, notes)
    assert len(asked) == 3


def test_other_sequences_than_the_pinned_ones_are_refused_and_not_kept(tmp_path, archive):
    records, _, _ = archive
    records["N_1"] = random_genome(900, seed=4)
    with pytest.raises(InputError, match=r"First\.fna: found N_1 of sha256 .*…, which was pinned"):
        fetch_relatives(tmp_path)
    assert list((tmp_path / "ecoli_relatives").iterdir()) == []


def test_without_the_archive_the_recipe_goes_on_with_its_summary(tmp_path, pinned, offline):
    pinned()
    offline.setattr(sources, "ARCHIVE", "http://127.0.0.1:9/?id=")
    said = []
    given = {"relatives": Path("recipe"), "cache": tmp_path / "cache", "progress": said.append}
    # The small genome has too few blocks for five folds; that is found behind this.
    with pytest.raises(InputError, match="1 blocks with genes"):
        prepare_recipe("ecoli", tmp_path / "out", **given)
    (line,) = [one for one in said if "the archive cannot be reached" in one]
    assert "0 of 18 genomes are there" in line
    assert not (tmp_path / "out").exists()
    assert fetch_relatives(tmp_path)[0] is None


def test_the_pinned_genomes_are_those_of_the_summary():
    pinned = read_table(sources.RELATIVES_TABLE)
    packed = io.BytesIO(lzma.decompress(sources.RELATIVES_SUMMARY.read_bytes()))
    text = str(np.load(packed, allow_pickle=False)["table"])
    table = pd.read_csv(io.StringIO(text), sep="\t")
    assert list(pinned["sha256"]) == list(table["sha256"])
    assert list(pinned["name"]) == list(table["name"])
    assert sources.ARCHIVE.startswith("https://eutils.ncbi.nlm.nih.gov/")

"""The human recipe: small files in the formats of the archives, behind a port of this machine."""

import gzip
import hashlib
import http.server
import io
import sys
import threading
import zipfile

import numpy as np
import pandas as pd
import pytest
from tiny_files import random_genome

from genesplice.cli import main
from genesplice.data import sources
from genesplice.data.archives import SUMS, fetch_checked, fetch_file, write_string_edges
from genesplice.data.bundle import load_bundle
from genesplice.data.genome import decode
from genesplice.data.prepare import prepare_recipe
from genesplice.data.tables import read_table
from genesplice.errors import InputError, WorkError

N_CHROMOSOMES, GENES_EACH, CHROMOSOME_BP = 10, 4, 160_000
TISSUES = ("Adipose - Subcutaneous", "Brain - Cortex", "Whole Blood")
CHANNELS = "neighborhood fusion cooccurence coexpression experimental database textmining"
NUMBERS = range(N_CHROMOSOMES * GENES_EACH)


def gene(number: int, version: str = "") -> str:
    return f"ENSG{number:011d}{version}"


def protein(number: int) -> str:
    return f"9606.ENSP{number:011d}"


def genome() -> str:
    contigs = {f"chr{i + 1}": random_genome(CHROMOSOME_BP, seed=i) for i in range(N_CHROMOSOMES)}
    contigs |= {"chrM": random_genome(3_000, seed=90), "KI270728.1": random_genome(2_000, seed=91)}
    return "".join(f">{name} 1\n{decode(one.tokens)}\n" for name, one in contigs.items())


def annotation() -> str:
    """Version 9 of all genes, of two exons."""
    lines = ["##description: evidence-based annotation", "##provider: GENCODE"]
    for number in NUMBERS:
        contig, at = number // GENES_EACH + 1, number % GENES_EACH
        start, strand = 10_000 + 40_000 * at, "+-"[number % 2]
        own = (
            f'gene_id "{gene(number, ".9")}"; gene_type "protein_coding"; gene_name "SYM{number}";'
        )
        of = f'{own} transcript_id "ENST{number:011d}.1";'
        spans = [("gene", 0, 1_800, own), ("transcript", 0, 1_800, of)]
        spans += [
            (kind, first, first + 600, of) for kind in ("exon", "CDS") for first in (0, 1_200)
        ]
        for kind, first, last, words in spans:
            phase = "0" if kind == "CDS" else "."
            place = f"{start + first + 1}\t{start + last}"
            lines.append(f"chr{contig}\tHAVANA\t{kind}\t{place}\t.\t{strand}\t{phase}\t{words}")
    return "\n".join(lines) + "\n"


def tissues() -> str:
    """Version 5 of all genes but the last, and of three that were retired since."""
    rows = [*NUMBERS[:-1], 700, 701, 702]
    lines = ["#1.2", f"{len(rows)}\t{len(TISSUES)}", "\t".join(["Name", "Description", *TISSUES])]
    for number in rows:
        values = [f"{number * 10.5 + column}" for column in range(len(TISSUES))]
        lines.append("\t".join([gene(number, ".5"), f"SYM{number}", *values]))
    return "\n".join(lines) + "\n"


LINKS = {
    # pair: neighborhood, fusion, cooccurence, coexpression, experimental, database, textmining
    (0, 1): (0, 0, 0, 950, 0, 0, 0, 950),
    (0, 2): (0, 0, 0, 300, 800, 0, 0, 850),
    (3, 4): (0, 0, 0, 0, 500, 0, 550, 762),
    (3, 5): (0, 0, 0, 600, 450, 0, 400, 853),
    (6, 7): (0, 0, 0, 0, 0, 900, 0, 900),
    (6, 999): (0, 0, 0, 0, 0, 900, 0, 900),
}


def links() -> str:
    """Both ways, as STRING has them."""
    lines = [f"protein1 protein2 {CHANNELS} combined_score"]
    for (one, other), scores in LINKS.items():
        for pair in ((one, other), (other, one)):
            lines.append(" ".join([*map(protein, pair), *map(str, scores)]))
    return "\n".join(lines) + "\n"


def proteins() -> str:
    lines = ["#string_protein_id\talias\tsource"]
    for number in NUMBERS:
        lines += [f"{protein(number)}\tSYM{number}\tEnsembl_HGNC_symbol",
                  f"{protein(number)}\t{gene(number)}\tEnsembl_gene"]  # fmt: skip
    return "\n".join(lines) + "\n"


def pathways() -> bytes:
    """Two pathways of one name, and one of too few genes."""
    sets = {"R-HSA-109581": ("Apoptosis", range(4)), "R-HSA-2": ("Apoptosis", range(4, 9)),
            "R-HSA-3": ("Small", range(2))}  # fmt: skip
    text = "".join(
        "\t".join([name, key, *(f"SYM{n}" for n in members)]) + "\n"
        for key, (name, members) in sets.items()
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("ReactomePathways.gmt", text)
    return packed.getvalue()


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """What the archives have, by part."""
    texts = {"fasta": genome(), "annotation": annotation(), "expression": tissues(),
             "network": links(), "proteins": proteins()}  # fmt: skip
    packed = {part: gzip.compress(text.encode(), mtime=0) for part, text in texts.items()}
    return packed | {"gene_sets": pathways()}


class Server:
    """Files by name, what was asked, and how often a connection is to break after some bytes."""

    def __init__(self):
        self.files, self.asked, self.breaks, self.etags = {}, [], {}, True
        self.ranges = True
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.answer(is_head=True)

            def do_GET(self):
                self.answer(is_head=False)

            def answer(self, is_head):
                name = self.path.rpartition("/")[2]
                outer.asked.append((self.command, name, self.headers["Range"]))
                body = outer.files.get(name)
                if body is None:
                    self.send_error(404)
                    return
                etag = f'"{hashlib.sha256(body).hexdigest()[:12]}"'
                start = 0
                if outer.ranges and self.headers["Range"] and self.headers["If-Range"] == etag:
                    start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                    if start >= len(body):
                        self.send_error(416)
                        return
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                self.send_header("Content-Length", str(len(body) - start))
                if outer.etags:
                    self.send_header("ETag", etag)
                self.end_headers()
                if is_head:
                    return
                sent = body[start:]
                if outer.breaks.get(name):
                    sent = sent[: outer.breaks[name].pop(0)]
                self.wfile.write(sent)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"

    def gets(self, name):
        return [span for command, asked, span in self.asked if (command, asked) == ("GET", name)]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def archive(tmp_path, monkeypatch, server, contents):
    """The recipe's files, at their names, from the server; and where its cache is."""
    table = read_table(sources.HUMAN_TABLE)
    server.files = {row.name: contents[row.part] for row in table.itertuples()}
    table["url"] = server.url + "somewhere/" + table["name"]
    table.to_csv(tmp_path / "files.tsv", sep="\t", index=False)
    monkeypatch.setattr(sources, "HUMAN_TABLE", tmp_path / "files.tsv")
    monkeypatch.setenv("GENESPLICE_CACHE", str(tmp_path / "cache"))
    return table.set_index("part"), tmp_path / "cache" / "human"


@pytest.fixture
def prepare(tmp_path, monkeypatch, capsys):
    """Exit code and stderr of `genesplice prepare --recipe human`."""

    def run() -> tuple[int, str]:
        words = ["prepare", "--recipe", "human", "--out", str(tmp_path / "human")]
        monkeypatch.setattr(sys, "argv", ["genesplice", *words])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run


# --- a file ---


def keep(_):
    """Accept whatever came."""


def test_a_broken_connection_is_resumed_to_the_same_bytes(tmp_path, server):
    body = np.random.default_rng(0).bytes(9_000)
    server.files, server.breaks = {"x": body}, {"x": [1_000, 2_500]}
    fetch_file(server.url + "x", tmp_path / "x", keep)
    assert (tmp_path / "x").read_bytes() == body
    assert server.gets("x") == [None, "bytes=1000-", "bytes=3500-"]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_later_run_goes_on_unless_the_file_is_another_one_by_then(tmp_path, server):
    old, new = (np.random.default_rng(seed).bytes(5_000) for seed in (1, 2))
    for name, body, spans in (("same", old, [None, "bytes=700-", "bytes=700-"]),
                              ("other", new, [None, "bytes=700-", "bytes=700-"])):  # fmt: skip
        server.files, server.breaks = {name: old}, {name: [700, 0]}
        with pytest.raises(http.client.IncompleteRead):
            fetch_file(server.url + name, tmp_path / name, keep)
        assert not (tmp_path / name).exists()
        assert (tmp_path / f".{name}.partial").stat().st_size == 700
        server.files[name] = body
        fetch_file(server.url + name, tmp_path / name, keep)
        assert (tmp_path / name).read_bytes() == body
        assert server.gets(name) == spans
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "same"]


def test_a_server_without_ranges_or_versions_is_asked_from_the_start(tmp_path, server):
    body = bytes(range(250)) * 8
    for name, ranges, etags, span in (("a", False, True, "bytes=300-"), ("b", True, False, None)):
        server.files, server.breaks = {name: body}, {name: [300]}
        server.ranges, server.etags = ranges, etags
        fetch_file(server.url + name, tmp_path / name, keep)
        assert (tmp_path / name).read_bytes() == body
        assert server.gets(name) == [None, span]


def test_whole_bytes_of_a_run_that_was_killed_are_fetched_anew(tmp_path, server):
    server.files = {"x": b"all of it"}
    (tmp_path / ".x.partial").write_bytes(b"all of it")
    etag = f'"{hashlib.sha256(b"all of it").hexdigest()[:12]}"'
    (tmp_path / ".x.version").write_text(etag)
    fetch_file(server.url + "x", tmp_path / "x", keep)
    assert (tmp_path / "x").read_bytes() == b"all of it"
    assert server.gets("x") == ["bytes=9-", None]


# --- files by their checksums ---


def some_files(server) -> pd.DataFrame:
    server.files = {"a.txt": b"a" * 2_000_000, "b.txt": b"b"}
    rows = [(name, name[0], server.url + name, "CC0") for name in server.files]
    return pd.DataFrame(rows, columns=["name", "part", "url", "licence"])


def test_sizes_and_licences_are_said_before_the_first_byte(tmp_path, server):
    said = []
    records = fetch_checked(some_files(server), tmp_path, lambda text: said.append(
        (text, len(server.gets("a.txt")))))  # fmt: skip
    assert said[:3] == [
        (f"a.txt: 2.0 MB, CC0, {server.url}a.txt", 0),
        (f"b.txt: 0.0 MB, CC0, {server.url}b.txt", 0),
        (f"fetching 2 files, 2.0 MB, once, into {tmp_path}", 0),
    ]
    digest = hashlib.sha256(b"b").hexdigest()
    assert records[1] == {"name": "b.txt", "part": "b", "sha256": digest, "licence": "CC0",
                          "source": f"{server.url}b.txt", "counts": {"bytes": 1}}  # fmt: skip
    assert f"{digest}  b.txt\n" in (tmp_path / SUMS).read_text()
    n_asked = len(server.asked)
    assert fetch_checked(some_files(server), tmp_path, said.append) == records
    assert len(server.asked) == n_asked


def test_another_checksum_than_on_first_use_is_refused(tmp_path, server):
    files = some_files(server)
    fetch_checked(files, tmp_path, keep)
    (tmp_path / "b.txt").write_bytes(b"c")
    with pytest.raises(InputError, match="as on its first use") as caught:
        fetch_checked(files, tmp_path, keep)
    assert str(caught.value).endswith(f"(delete {tmp_path / 'b.txt'} to fetch it again)")
    (tmp_path / "b.txt").unlink()
    server.files["b.txt"] = b"d"
    with pytest.raises(InputError, match="nothing was kept; its line in"):
        fetch_checked(files, tmp_path, keep)
    assert sorted(path.name for path in tmp_path.iterdir()) == [SUMS, "a.txt"]
    server.files["b.txt"] = b"b"
    fetch_checked(files, tmp_path, keep)
    assert (tmp_path / "b.txt").read_bytes() == b"b"


def test_without_the_archive_one_line_says_so(tmp_path, server):
    files = some_files(server)
    del server.files["b.txt"]
    with pytest.raises(WorkError, match=r"b\.txt cannot be fetched \(HTTP Error 404") as caught:
        fetch_checked(files, tmp_path, keep)
    assert "\n" not in str(caught.value)
    assert server.gets("a.txt") == []


# --- STRING ---


def test_scores_are_combined_without_coexpression_as_string_does(tmp_path):
    (tmp_path / "links.txt").write_text(links())
    (tmp_path / "aliases.txt").write_text(proteins())
    said = write_string_edges(
        tmp_path / "links.txt", tmp_path / "aliases.txt", tmp_path / "edges.tsv"
    )
    edges = read_table(tmp_path / "edges.tsv")
    expected = set()
    for (one, other), scores in LINKS.items():
        against = 1.0
        for channel, score in zip(CHANNELS.split(), scores, strict=False):
            if channel != "coexpression":
                against *= 1 - (max(score / 1000, 0.041) - 0.041) / (1 - 0.041)
        if 1 - against * (1 - 0.041) >= 0.7 and other in NUMBERS:
            expected |= {(gene(one), gene(other)), (gene(other), gene(one))}
    assert set(zip(edges["source"], edges["target"], strict=True)) == expected
    # 950 by coexpression alone, and 853 of which 650 are left, are out.
    assert expected == {(gene(a), gene(b)) for a, b in
                        ((0, 2), (2, 0), (3, 4), (4, 3), (6, 7), (7, 6))}  # fmt: skip
    assert set(edges["provenance"]) == {"experiments", "experiments; textmining", "database"}
    assert "6 of 12 edges" in said
    assert "without coexpression; 2 more of proteins without a gene" in said


@pytest.mark.parametrize("text", [
    "protein1 protein2 combined_score\nA B 900\n",
    links().replace(" 950 ", " high ").replace(" 800 ", " high "),
    "",
])  # fmt: skip
def test_what_is_not_of_string_is_refused(tmp_path, text):
    (tmp_path / "links.txt").write_text(text)
    (tmp_path / "aliases.txt").write_text(proteins())
    with pytest.raises(InputError, match=r"links\.txt: found"):
        write_string_edges(tmp_path / "links.txt", tmp_path / "aliases.txt", tmp_path / "edges.tsv")
    assert not (tmp_path / "edges.tsv").exists()


# --- the recipe ---


def test_the_recipe_prepares_a_bundle_of_all_files(tmp_path, archive, server, prepare):
    table, cache = archive
    server.breaks[table.at["fasta", "name"]] = [100_000]
    code, said = prepare()
    assert code == 0, said
    assert len(server.gets(table.at["fasta", "name"])) == 2
    bundle = load_bundle(tmp_path / "human")
    assert bundle.name == "human"
    assert list(bundle.genes["gene_id"]) == [gene(number, ".9") for number in NUMBERS]
    assert list(bundle.observed.columns) == list(TISSUES)
    assert bundle.expression.n_vars == len(NUMBERS) - 1
    value = bundle.observed.at[gene(7, ".9"), TISSUES[2]]
    assert value == pytest.approx(np.log2(7 * 10.5 + 2 + 1), rel=1e-6)
    ends = zip(bundle.network["source"], bundle.network["target"], strict=True)
    pairs = ((0, 2), (2, 0), (3, 4), (4, 3), (6, 7), (7, 6))
    assert set(ends) == {(gene(a, ".9"), gene(b, ".9")) for a, b in pairs}
    assert set(bundle.network["sign"]) == {0}
    assert bundle.gene_sets == {
        "R-HSA-109581": tuple(gene(n, ".9") for n in range(4)),
        "R-HSA-2": tuple(gene(n, ".9") for n in range(4, 9)),
    }
    assert bundle.set_names["R-HSA-109581"] == "Apoptosis"
    assert bundle.genome.contig("chrM").is_circular
    # Whole chromosomes are held out.
    assert (bundle.blocks.groupby("contig")["fold"].nunique() == 1).all()
    assert (bundle.blocks.groupby("contig").size().drop(["chrM", "KI270728.1"]) == 2).all()
    assert bundle.n_folds == 5
    checks = {check["check"]: check["status"] for check in bundle.leakage["checks"]}
    assert checks["edges whose evidence is expression"] == "amber"
    assert checks["gene sets whose evidence is expression"] == "amber"
    account = bundle.manifest["expression_rows"]
    assert account["matched"] == {"id without version": len(NUMBERS) - 1}
    lost = f"genes left out, not in the annotation: 3 ({gene(700, '.5')}"
    assert any(note.startswith(lost) for note in bundle.manifest["notes"])
    assert lost in said
    assert "genesplice prepare --recipe human --out" in bundle.manifest["command"]
    licences = {record["name"]: record["licence"] for record in bundle.manifest["inputs"]}
    assert licences == dict(zip(table["name"], table["licence"], strict=True))
    for row in table.itertuples():
        digest = hashlib.sha256(server.files[row.name]).hexdigest()
        assert bundle.manifest["data_sha256"][row.name] == digest
        assert f"{row.name}: " in said
    size = sum(map(len, server.files.values())) / 1e6
    assert f"fetching 6 files, {size:,.1f} MB" in said
    assert not [path for path in cache.iterdir() if path.name.startswith(".")]


def test_a_changed_file_is_one_line_and_exit_2_and_nothing_is_written(
    tmp_path, archive, server, prepare
):
    table, cache = archive
    name = table.at["expression", "name"]
    cache.mkdir(parents=True)
    (cache / SUMS).write_text(f"{'0' * 64}  {name}\n")
    code, said = prepare()
    assert code == 2
    (line,) = [one for one in said.splitlines() if one.startswith("genesplice: ")]
    assert f"expected {'0' * 16}… as on its first use" in line
    assert not (tmp_path / "human").exists()
    assert not (cache / name).exists()


def test_no_archive_is_exit_1(tmp_path, archive, server, prepare):
    table, _ = archive
    del server.files[table.at["proteins", "name"]]
    code, said = prepare()
    assert code == 1
    assert "cannot be fetched (HTTP Error 404" in said
    assert not (tmp_path / "human").exists()


def test_the_recipe_names_no_relatives_of_its_own(tmp_path, archive, server):
    with pytest.raises(InputError, match="--relatives recipe with human"):
        prepare_recipe("human", tmp_path / "human", relatives="recipe")
    assert server.asked == []


def test_the_archives_are_https_and_their_licences_are_stated():
    table = read_table(sources.HUMAN_TABLE)
    assert table["url"].str.startswith("https://").all()
    assert (table["url"].str.rpartition("/")[2] == table["name"]).all()
    assert (table["licence"] != "").all()

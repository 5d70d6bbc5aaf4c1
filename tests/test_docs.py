"""README and docs: every block of code is run, or parsed where a machine lacks what it needs.

Commands run in one folder with a small organism, page after page; a command that was run before is
not run again. Small sizes are appended to what is printed.
"""

import contextlib
import gzip
import importlib.util
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from command_line import call
from test_cli import SMALL

import genesplice as gs
from genesplice.config import load_preset, override
from genesplice.data.gene_sets import write_gmt
from genesplice.data.genome import ALPHABET, decode
from genesplice.data.simulate import make_bundle, make_own_files

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", *(f"docs/{name}.md" for name in (
    "index", "own-organism", "relatives", "own-task", "tracks", "variants", "machines",
    "troubleshooting", "method", "glossary", "costs", "api", "licences",
))]  # fmt: skip
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
REFUSED = "is refused, exit code 2"
PARSED = {"installs something", "needs a GPU", "needs a cluster", "needs a network"}
ELSEWHERE = {"verdict", "sweep"}
"""Verbs that take a minute even so: tests/context and tests/show run them, and `--resume`."""
NAMES = ("lacZ", "recA", "trpE")
LENGTH = 120_000


class Block(NamedTuple):
    """A block of code; the title of its fence says that it is not simply run."""

    language: str
    title: str
    text: str

    @property
    def commands(self) -> list[str]:
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.startswith("#")]


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall((ROOT / page).read_text())]


def write_world(folder: Path) -> None:
    """The files that the pages name, of an organism with known truth, and what is done before."""
    control = make_bundle(folder / "control", genome_bp=LENGTH, n_conditions=4)
    genes, tokens = control.genes, np.asarray(control.genome.tokens)
    with gzip.open(folder / "genome.fa.gz", "wt") as handle:
        handle.write(f">chr1\n{decode(tokens)}\n")
    with gzip.open(folder / "genes.gff3.gz", "wt") as handle:
        handle.write("##gff-version 3\n")
        for gene, name in zip(genes.itertuples(), [*NAMES, *genes["name"][3:]], strict=True):
            place = f"chr1\tx\tgene\t{gene.start + 1}\t{gene.end}\t.\t{gene.strand}\t.\t"
            handle.write(f"{place}ID={gene.gene_id};Name={name};gene_biotype=protein_coding\n")
    values = control.expression
    tpm = pd.DataFrame(np.exp2(values.X.T) - 1, index=values.var_names, columns=values.obs_names)
    tpm = tpm / tpm.sum() * 1e6
    tpm.to_csv(folder / "tpm.tsv", sep="\t")
    values.obs.to_csv(folder / "samples.tsv", sep="\t")
    control.network[["source", "target", "sign"]].to_csv(
        folder / "edges.tsv", sep="\t", index=False
    )
    write_gmt(folder / "pathways.gmt", control.gene_sets)
    write_relatives(folder, tokens)
    write_tracks(folder)
    make_own_files(folder, n_sequences=30)
    strength = pd.read_csv(folder / "strength.tsv", sep="\t")
    strength.assign(fold=np.arange(30) % 2).to_csv(folder / "promoters.tsv", sep="\t", index=False)
    base = strength["sequence"].str[9]
    other = base.map({"A": "C", "C": "G", "G": "T", "T": "A"})
    changes = pd.DataFrame({"id": range(1, 31), "position": 10, "ref": base, "alt": other})
    changes.assign(value=strength["strength"]).to_csv(folder / "changes.tsv", sep="\t", index=False)
    write_variants(folder, tokens)
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")


def write_relatives(folder: Path, tokens: np.ndarray) -> None:
    (folder / "genomes").mkdir()
    generator, lines = np.random.default_rng(0), ["##maf version=1"]
    for name, share in (("near", 0.08), ("far", 0.2)):
        other = np.where(generator.random(LENGTH) < share, generator.integers(0, 4, LENGTH), tokens)
        text = decode(other.astype(np.uint8))
        (folder / "genomes" / f"{name}.fa").write_text(f">{name}\n{text}\n")
        own = f"s mine.chr1 0 5000 + {LENGTH} {decode(tokens[:5000])}"
        lines += ["", "a", own, f"s {name}.c 0 5000 + {LENGTH} {text[:5000]}"]
    (folder / "alignment.maf").write_text("\n".join([*lines, "", ""]))


def write_tracks(folder: Path) -> None:
    pybigtools = pytest.importorskip("pybigtools")
    level = np.random.default_rng(1).gamma(2, size=LENGTH // 500)
    rows = [("chr1", 500 * i, 500 * (i + 1), float(x)) for i, x in enumerate(level)]
    for name in ("chip.bw", "phylop.bw"):
        pybigtools.open(str(folder / name), "w").write({"chr1": LENGTH}, iter(rows))
    peaks = [f"chr1\t{5000 * i}\t{5000 * i + 2000}" for i in range(LENGTH // 5000)]
    (folder / "peaks.bed").write_text("\n".join([*peaks, ""]))
    (folder / "repeats.bed").write_text("chr1\t100\t400\n")


def write_variants(folder: Path, tokens: np.ndarray) -> None:
    old = {at: int(tokens[at]) for at in range(900, 1300, 25)}
    rows = [(at + 1, ALPHABET[base], ALPHABET[(base + 1) % 4]) for at, base in old.items()]
    vcf = ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    vcf += [f"chr1\t{at}\t.\t{ref}\t{alt}\t.\t.\t." for at, ref, alt in rows]
    (folder / "variants.vcf").write_text("\n".join([*vcf, ""]))
    table = pd.DataFrame(rows, columns=["position", "ref", "alt"])
    table.assign(contig="chr1", value=np.linspace(0, 1, len(rows))).to_csv(
        folder / "measured.tsv", sep="\t", index=False
    )


def more(verb: str, words: list[str]) -> list[str]:
    """What a test adds to a command to make it small."""
    if verb == "prepare":
        return ["--block-bp", "8000", "--circular", "chr1"]
    if verb in ("pretrain", "finetune"):
        tracks = ["--set", "finetune.track_steps=3"] if "--tracks" in words else []
        return [*SMALL, *tracks]
    if "--classes" in words:
        return ["--classes", "1"]
    return {"run": ["--only", "01"], "task": ["--folds", "2"]}.get(verb, [])


class World:
    """A folder, and what has been run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: set[str] = set()
        self.pages: set[str] = set()

    def run_page(self, page: str) -> None:
        """Run the blocks of a page, and those of the pages before it."""
        for one in PAGES[: PAGES.index(page) + 1]:
            if one not in self.pages:
                self.pages.add(one)
                self.run_blocks(blocks(one))

    def run_blocks(self, found: list[Block]) -> None:
        for block, following in pairwise([*found, None]):
            if block.title == REFUSED:
                assert following is not None
                self.check_failures(block, following.text.splitlines())
            elif block.language == "python":
                self.run_python(block.text)
            elif block.language == "bash" and block.title not in PARSED:
                for command in block.commands:
                    self.run_command(command)

    def run_python(self, text: str) -> None:
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(text, "a block of python", "exec"), {})
        assert out.getvalue().strip()

    def run_command(self, command: str) -> None:
        words = shlex.split(command, comments=True)
        if words[0] == "make":
            return check_target(words[1])
        assert words[0] == "genesplice", command
        if command in self.done or words[1] in ELSEWHERE or "--resume" in words:
            return None
        self.done.add(command)
        if "--out" in words:
            shutil.rmtree(self.folder / words[words.index("--out") + 1], ignore_errors=True)
        answer = self.call([*words[1:], *more(words[1], words)])
        assert answer.code == 0, f"{command}\n{answer.err}"

    def call(self, words: list[str]):
        with contextlib.chdir(self.folder):
            return call(*words)

    def check_failures(self, block: Block, lines: list[str]) -> None:
        """Each command ends with its code, and with the line of the page ("…" is anything)."""
        for command, line in zip(block.commands, lines, strict=True):
            words = shlex.split(command)[1:]
            small = more("prepare", words) if words[0] == "prepare" else []
            answer = self.call([*words, *small])
            assert answer.code == 2, answer.err
            pattern = ".*".join(map(re.escape, line.split("…")))
            assert re.fullmatch(pattern, answer.err.splitlines()[-1]), answer.err


def check_target(name: str) -> None:
    assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), name


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    pytest.importorskip("mappy")
    folder = tmp_path_factory.mktemp("docs")
    write_world(folder)
    return World(folder)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_every_block_of_a_page_runs(page: str, world: World) -> None:
    world.run_page(page)


def test_no_page_is_forgotten_and_every_fence_is_read() -> None:
    there = {"README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))}
    assert there == set(PAGES)
    for page in PAGES:
        found = blocks(page)
        fences = re.findall(r"^```\w", (ROOT / page).read_text(), flags=re.MULTILINE)
        assert len(found) == len(fences), page
        for block in found:
            assert block.language in ("bash", "python", "text")
            assert block.title in {"", REFUSED, *PARSED}


@pytest.mark.parametrize("page", PAGES)
def test_what_is_not_run_names_settings_extras_and_targets_that_exist(page: str) -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    for block in blocks(page):
        for command in block.commands if block.language == "bash" else []:
            for extras in re.findall(r"\.\[([\w,]+)\]", command):
                for extra in extras.split(","):
                    assert re.search(rf"^{extra} = \[", pyproject, flags=re.MULTILINE), extra
            if target := re.match(r"make (\w+)", command):
                check_target(target.group(1))
            settings = re.findall(r"--set ([\w.]+=[\w.,]+)(?!\S)", command)
            if settings and block.title != REFUSED:
                override(load_preset("standard"), settings)


def test_every_message_that_is_explained_is_one_that_the_code_prints() -> None:
    sources = (path.read_text() for path in (ROOT / "genesplice").rglob("*.py"))
    text = re.sub(r'"\s*\n?\s*f?"', "", "\n".join(sources))
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE)
    assert len(rows) > 15
    for row in rows:
        for part in re.split("…", row):
            for piece in re.split(r"found |, expected ", part):
                assert piece.strip() in text, piece


def test_the_api_page_has_every_public_name_once() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    listed = re.findall(r"^::: genesplice\.(\w+)$", text, flags=re.MULTILINE)
    assert sorted(listed) == sorted(set(gs.__all__) - {"__version__"})


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="no mkdocs (make dev)")
def test_the_docs_are_built_without_a_warning_and_call_nobody(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "--quiet"]
    built = subprocess.run(
        [*command, "--site-dir", str(tmp_path / "site")], cwd=ROOT, capture_output=True, text=True,
        check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    for page in (tmp_path / "site").glob("*.html"):
        loaded = re.findall(
            r'<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]+)', page.read_text()
        )
        assert not loaded, page.name
        assert "```" not in page.read_text(), page.name
    assert "predict_expression" in (tmp_path / "site" / "api.html").read_text()

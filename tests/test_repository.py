"""What is written in several places says the same; nothing is left behind by accident."""

import importlib.metadata
import inspect
import io
import json
import pkgutil
import re
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from typer.main import get_command

import genesplice
from benchmarks import licences
from genesplice.cli import app
from genesplice.data import sources

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "genesplice").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LINES_MOST, FILES_MOST = 400, 118  # goal: 100 files
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERBS = get_command(app).commands


def read(name: str) -> str:
    return (ROOT / name).read_text()


def requirements(lines) -> dict[str, Requirement]:
    """By normalised name; a name may be there once."""
    found = [Requirement(line) for line in lines]
    named = {canonicalize_name(requirement.name): requirement for requirement in found}
    assert len(named) == len(found)
    return named


def pins() -> dict[str, str]:
    lines = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    versions = {}
    for name, requirement in requirements(lines).items():
        (only,) = requirement.specifier
        assert only.operator == "==", name
        versions[name] = only.version
    return versions


def tracked() -> list[Path]:
    """Files that are committed, or would be."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()]


# --- dependencies ---


@pytest.mark.parametrize(
    "lines",
    [
        PROJECT["dependencies"],
        *(PROJECT["optional-dependencies"][name] for name in ("dev", "docs")),
    ],
    ids=["base", "dev", "docs"],
)
def test_every_dependency_is_pinned_within_its_range(lines):
    pinned = pins()
    for name, requirement in requirements(lines).items():
        assert name in pinned, name
        assert requirement.specifier.contains(pinned[name]), f"{requirement}, {pinned[name]}"


def test_flash_attention_is_an_extra_and_nowhere_else():
    extras = PROJECT["optional-dependencies"]
    assert list(requirements(extras["gpu"])) == ["flash-attn"]
    others = [line for name, lines in extras.items() if name != "gpu" for line in lines]
    elsewhere = [*requirements(PROJECT["dependencies"]), *requirements(others), *pins()]
    assert "flash-attn" not in elsewhere
    assert "flash" not in read("environment.yml")


def test_conda_installs_this_project_and_names_no_dependency_of_its_own():
    environment = yaml.safe_load(read("environment.yml"))
    assert environment["name"] == PROJECT["name"]
    assert environment["channels"] == ["conda-forge"]
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["--constraint constraints.txt", "--editable ."]}
    named = {canonicalize_name(re.split(r"[=<>~! ]", line, maxsplit=1)[0]) for line in conda}
    assert named - {"python", "pip"} <= set(requirements(PROJECT["dependencies"]))


def test_conda_and_ruff_have_a_python_that_the_project_admits():
    admitted = SpecifierSet(PROJECT["requires-python"])
    (line,) = (part for part in yaml.safe_load(read("environment.yml"))["dependencies"][:-1]
               if part.startswith("python="))  # fmt: skip
    assert admitted.contains(line.removeprefix("python="))
    lowest = tomllib.loads(read("pyproject.toml"))["tool"]["ruff"]["target-version"]
    assert PROJECT["requires-python"].startswith(f">=3.{lowest.removeprefix('py3')},")


def test_one_variable_chooses_the_build_of_torch():
    """With its own index for that one package, which has no other of the pinned versions."""
    for target in ("run", "test"):
        printed = [
            subprocess.run(
                ["make", "--dry-run", target, "VENV=nowhere", *words], cwd=ROOT, text=True,
                capture_output=True, check=True,
            ).stdout.replace("\\\n", " ") for words in ((), ("TORCH=cpu",))
        ]  # fmt: skip
        assert "whl/" not in printed[0]
        (line,) = [line for line in printed[1].splitlines() if "whl/" in line]
        assert line.endswith("--index-url https://download.pytorch.org/whl/cpu torch")
        assert {"--no-deps", "--constraint", "constraints.txt"} <= set(line.split())
        at = printed[1].index(line)
        assert printed[1].index("-m venv") < at < printed[1].index("--editable")


def test_the_version_is_the_same_everywhere():
    assert genesplice.__version__ == PROJECT["version"]
    assert yaml.safe_load(read("CITATION.cff"))["version"] == PROJECT["version"]


def test_the_page_of_licences_has_every_dependency_and_all_data():
    page, again = read("docs/licences.md"), licences.make_page()
    rows, now = (re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", one, re.MULTILINE)
                 for one in (page, again))  # fmt: skip
    recipes = {*sources.RECIPES, *sources.FILE_RECIPES}
    assert [row for row in rows if row[0] in recipes] == [row for row in now if row[0] in recipes]
    assert recipes <= {row[0] for row in rows}
    extras = PROJECT["optional-dependencies"].values()
    named = requirements({*PROJECT["dependencies"], *(one for more in extras for one in more)})
    listed, pinned = {name: more for name, *more in rows}, pins()
    for name in {*named, *pinned}:
        version, licence = listed[name]
        assert version == pinned.get(name, "not pinned")
        assert name not in pinned or licence not in (licences.NOT_INSTALLED, licences.NOTHING)
        # What is installed as it is pinned says the same again.
        if name in pinned and is_installed(name, version):
            assert (name, version, licence) in now


def is_installed(name: str, version: str) -> bool:
    try:
        return importlib.metadata.version(name) == version
    except importlib.metadata.PackageNotFoundError:
        return False


# --- modules ---


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_is_short(path):
    assert len(path.read_text().splitlines()) <= LINES_MOST


def test_no_name_is_used_that_is_nowhere_defined():
    """What ruff and mypy are told to pass over for the axes in types, such as "batch length"."""
    words = ["check", "--isolated", "--select", "F821", "--output-format", "json", "--exit-zero"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *words, "genesplice", "benchmarks", "tests"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    undefined, strings = [], {}
    for one in json.loads(done.stdout):
        name, place = one["filename"], (one["location"]["row"], one["location"]["column"] - 1)
        if name not in strings:
            tokens = tokenize.generate_tokens(io.StringIO(read(name)).readline)
            strings[name] = [(t.start, t.end) for t in tokens if t.type == tokenize.STRING]
        if not any(start <= place < end for start, end in strings[name]):
            undefined.append(f"{name}:{place[0]}: {one['message']}")
    assert strings  # axes are found, so the rest would be
    assert not undefined


def test_the_house_is_small():
    assert len(MODULES) <= FILES_MOST


def module_names() -> list[str]:
    walked = pkgutil.walk_packages(genesplice.__path__, "genesplice.")
    return ["genesplice", *(m.name for m in walked if not m.name.endswith("__main__"))]


@pytest.mark.parametrize("name", module_names())
def test_what_a_module_offers_is_there_and_explained(name):
    module = importlib.import_module(name)
    assert module.__doc__
    offered = getattr(module, "__all__", [])
    assert len(offered) == len(set(offered))
    for public in offered:
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            text = value.__doc__ or ""
            # A NamedTuple or dataclass without a docstring is given its signature.
            assert text, public
            assert not text.startswith(f"{public}("), public


def test_what_the_package_offers_is_listed():
    assert set(dir(genesplice)) == set(genesplice.__all__)
    with pytest.raises(AttributeError, match="no attribute 'prepair'"):
        _ = genesplice.prepair


# --- what people read ---


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_has_no_outputs(path):
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert cells
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)


def test_the_readme_lists_the_notebooks_there_are():
    listed = re.findall(r"^\| `(\d\d_\w+)` \|", read("README.md"), flags=re.MULTILINE)
    assert listed == [path.stem for path in NOTEBOOKS]


def test_the_readme_has_every_verb_and_no_other():
    (listed,) = re.findall(r"```text\n(genesplice .*?)```", read("README.md"), flags=re.DOTALL)
    written = []
    for line in listed.splitlines():
        names = re.split(r"  +", line)[0].removeprefix("genesplice ")
        written += names.split(" | ")
    assert sorted(written) == sorted(VERBS)
    for name in re.findall(r"(?:^|[`/])genesplice ([a-z]+)", read("README.md"), flags=re.MULTILINE):
        assert name in VERBS


def options(verb: str) -> set[str]:
    return {option for parameter in VERBS[verb].params for option in parameter.opts}


PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_uses_verbs_and_options_that_exist(page):
    lines = re.findall(r"(?:^|[\s/])genesplice ([a-z]+) (.*)$", commands(page), flags=re.MULTILINE)
    used = [(verb, o) for verb, rest in lines for o in re.findall(r"(?<!\S)(--?[a-z-]+)", rest)]
    assert page != "README.md" or {verb for verb, _ in used} >= {"prepare", "run"}
    for verb, option in used:
        assert option in options(verb), f"{verb} {option}"
    for anywhere in ("--json", "--set"):
        assert page != "README.md" or f"`{anywhere}" in read(page)
        assert any(anywhere in options(verb) for verb in VERBS)


def commands(page: str) -> str:
    """Its shell blocks, a command a line."""
    blocks = re.findall(r"^```bash[^\n]*\n(.*?)^```", read(page), flags=re.DOTALL | re.MULTILINE)
    return "\n".join(blocks).replace("\\\n", " ")


def test_the_readme_is_short():
    assert len(read("README.md").splitlines()) <= 120


def test_pages_link_to_files_that_exist():
    for path in (*PAGES, "CONTRIBUTING.md", "data/README.md", "reports/README.md"):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|<img src=\"([^\"]+)", read(path)):
            assert ((ROOT / path).parent / "".join(link)).exists(), f"{path}: {link}"


def test_the_example_report_is_whole_and_asks_for_nothing_outside_of_it():
    text = (ROOT / GALLERY).read_text(encoding="utf-8")
    assert text.rstrip().endswith("</html>")
    assert 'content="default-src &#39;none&#39;' in text
    assert not re.findall(r"<(?:script|img|link)[^>]+(?:src|href)=[\"']https?:", text)
    assert f"({GALLERY})" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_pictures_are_small():
    pictures = list((ROOT / "docs" / "images").glob("*"))
    assert {path.name for path in pictures} >= {"report.png", "explorer.png"}
    assert all(path.stat().st_size <= 150_000 for path in pictures)


def test_the_top_level_is_what_the_readme_says():
    there = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert there >= {
        "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Makefile",
        "pyproject.toml", "constraints.txt", "environment.yml", ".gitignore",
        "notebooks", "genesplice", "data", "docs", "reports", "tests", "benchmarks",
    }  # fmt: skip
    folders = {name for name in there if (ROOT / name).is_dir() and not name.startswith(".")}
    of_this_project = {"notebooks", "genesplice", "data", "docs", "reports", "tests", "benchmarks"}
    assert folders == of_this_project


# --- nothing of one machine ---

OF_ONE_MACHINE = re.compile(r"(?<![\w.])/(?:work|root|tmp|home/\w+|Users/\w+)/[\w.]")
REGISTRY = re.compile(
    r"https?://[\w.@:/-]*(?:pypi|pythonhosted|anaconda|npmjs|artifact|nexus|index-url|simple/)"
)


def test_no_file_names_a_place_on_one_machine_or_a_package_registry():
    n_read = 0
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        n_read += 1
        for pattern in (OF_ONE_MACHINE, REGISTRY):
            found = pattern.search(text)
            assert not found, f"{path.relative_to(ROOT)}: {found and found.group()}"
    assert n_read > 100


def test_these_patterns_would_find_them():
    slash = "/"
    for place in (f"{slash}work/main", f'"{slash}root/.cache"', f"={slash}home/me/data"):
        assert OF_ONE_MACHINE.search(place), place
    assert not OF_ONE_MACHINE.search("tests/work/x and ./tmp/x")
    assert REGISTRY.search("https:" + "//pypi.example.org/simple")
    assert not REGISTRY.search("https:" + "//example.org")


SUMMARY = "data/ecoli_relatives.xz"
PUBLISHED = re.compile(r"genesplice/weights/[\w-]+/model\.safetensors")
GALLERY = "docs/gallery/03_graph_finetuning.html"


def test_no_tracked_file_is_large_or_made_by_running():
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        is_made = name == SUMMARY or bool(PUBLISHED.fullmatch(name))
        largest = 6_000_000 if name == GALLERY else 10_000_000 if is_made else 2_000_000
        assert path.stat().st_size < largest, name
        is_output = re.search(r"\.(pyc|ckpt|safetensors|npy|h5ad)$", name)
        assert is_made or not is_output, name
        allowed = rf"data/README.md|{SUMMARY}|reports/(README.md|results/.*)"
        if name.startswith(("data/", "reports/")):
            assert re.fullmatch(allowed, name), name

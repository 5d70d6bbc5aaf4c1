"""What is written in several places says the same; nothing is left behind by accident."""

import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from typer.main import get_command

import genesplice
from genesplice.cli import app

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
    [PROJECT["dependencies"], PROJECT["optional-dependencies"]["dev"]],
    ids=["base", "dev"],
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
    assert PROJECT["requires-python"] == f">=3.{lowest.removeprefix('py3')}"


def test_the_version_is_the_same_everywhere():
    assert genesplice.__version__ == PROJECT["version"]
    assert yaml.safe_load(read("CITATION.cff"))["version"] == PROJECT["version"]


# --- modules ---


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_is_short(path):
    assert len(path.read_text().splitlines()) <= LINES_MOST


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
    written = set()
    for line in re.findall(r"genesplice ([a-z][a-z |A-Z]*)", read("README.md")):
        for part in line.split("|"):
            written |= {word for word in part.split()[:1] if word.islower()}
    assert set(VERBS) == written & set(VERBS)
    blocks = re.findall(r"^    (?:\S*/)?genesplice ([a-z]+)", read("README.md"), flags=re.MULTILINE)
    assert set(blocks) <= set(VERBS)


def options(verb: str) -> set[str]:
    return {option for parameter in VERBS[verb].params for option in parameter.opts}


def test_the_readme_uses_options_that_exist():
    text = read("README.md").replace("\\\n", " ")
    lines = re.findall(r"^    genesplice ([a-z]+)(.*)$", text, flags=re.MULTILINE)
    lines = [(verb, rest) for verb, rest in lines if not rest.startswith(" |")]
    used = [(verb, o) for verb, rest in lines for o in re.findall(r"(?<!\S)\[?(--?[a-z-]+)", rest)]
    assert {verb for verb, _ in used} >= {"prepare", "run"}
    for verb, option in used:
        assert option in options(verb), f"{verb} {option}"
    for anywhere in ("--json", "--set"):
        assert f"`{anywhere}" in text
        assert any(anywhere in options(verb) for verb in VERBS)


def test_the_readme_links_to_files_that_exist():
    for path in ("README.md", "CONTRIBUTING.md", "data/README.md", "reports/README.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", read(path)):
            assert ((ROOT / path).parent / link).exists(), f"{path}: {link}"


def test_the_top_level_is_what_the_readme_says():
    there = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert there >= {
        "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Makefile",
        "pyproject.toml", "constraints.txt", "environment.yml", ".gitignore",
        "notebooks", "genesplice", "data", "reports", "tests", "benchmarks",
    }  # fmt: skip
    folders = {name for name in there if (ROOT / name).is_dir() and not name.startswith(".")}
    assert folders == {"notebooks", "genesplice", "data", "reports", "tests", "benchmarks"}


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


def test_no_tracked_file_is_large_or_made_by_running():
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        is_made = name == SUMMARY or bool(PUBLISHED.fullmatch(name))
        assert path.stat().st_size < (10_000_000 if is_made else 2_000_000), name
        is_output = re.search(r"\.(pyc|ckpt|safetensors|npy|h5ad)$", name)
        assert is_made or not is_output, name
        allowed = rf"data/README.md|{SUMMARY}|reports/(README.md|results/.*)"
        if name.startswith(("data/", "reports/")):
            assert re.fullmatch(allowed, name), name

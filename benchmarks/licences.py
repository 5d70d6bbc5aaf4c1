"""Licences of dependencies and of data, as the page `docs/licences.md` has them.

`python -m benchmarks.licences` writes it anew (`make licences`). A licence is what the installed
package says of itself: its licence expression, else its classifier, else its first line on it.
"""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pandas as pd
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from genesplice.data import sources

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "licences.md"
NOT_INSTALLED, NOTHING = "not installed where this page was made", "says none"
TOP = """# Licences

GeneSplice itself: MIT (`LICENSE`). Made by `make licences` from what `constraints.txt` pins and from the recipes of data; neither is part of the package.

For known vulnerabilities of the pinned versions (needs a network): `pip install pip-audit && pip-audit --no-deps --disable-pip -r constraints.txt`.
"""  # noqa: E501


def pins() -> dict[str, str]:
    """Version of each pinned package, by its normalised name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(one.name): str(one.specifier)[2:] for one in pinned}


def direct() -> list[str]:
    """Packages that the project itself names, for any purpose."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    lines = [*project["dependencies"], *extras]
    return sorted({canonicalize_name(Requirement(line).name) for line in lines})


def licence_of(package: str) -> str:
    """What an installed package says."""
    try:
        about = metadata(package)
    except PackageNotFoundError:
        return NOT_INSTALLED
    named = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or ()
        if line.startswith("License ::") and line != "License :: OSI Approved"
    ]
    said = (about.get("License") or "").strip().partition("\n")[0]
    return about.get("License-Expression") or ", ".join(named) or said or NOTHING


def data_rows() -> list[tuple[str, str, str]]:
    """Recipe, what is fetched, and its licence."""
    human = pd.read_csv(sources.HUMAN_TABLE, sep="\t", dtype=str)
    return [
        ("ecoli", sources.WHEEL_SOURCE, sources.WHEEL_LICENCE),
        ("ecoli", sources.SUMMARY_SOURCE, sources.SUMMARY_LICENCE),
        *(("human", one.name, one.licence) for one in human.itertuples(index=False)),
    ]


def write_table(header: str, rows: list[tuple[str, ...]]) -> str:
    """Markdown: the header's columns are parted by commas."""
    names = header.split(", ")
    lines = [names, ["--"] * len(names), *rows]
    return "\n".join("| " + " | ".join(re.sub(r"\|", "/", c) for c in row) + " |" for row in lines)


def make_page() -> str:
    """The whole page."""
    pinned, own = pins(), direct()
    ours = [(name, pinned.get(name, "not pinned"), licence_of(name)) for name in own]
    others = [(name, pinned[name], licence_of(name)) for name in pinned if name not in own]
    header = "package, version, licence"
    return "\n".join(
        [
            TOP,
            "## Data\n",
            write_table("recipe, source, licence", data_rows()),
            "\n## Dependencies that the project names\n",
            write_table(header, ours),
            "\n## Dependencies of these\n",
            write_table(header, others),
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(make_page())
    print(PAGE)

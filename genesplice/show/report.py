"""One self-contained HTML file per notebook, and an index of them.

A report opens from `file://`, years later, on a machine without a network: plotly.js from the
installed package is inlined once, and a Content-Security-Policy lets only that script and
`runtime.js` (by their digests) run and nothing at all be loaded. The same notebook always gives
the same bytes.
"""

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
import nbformat
from plotly.offline import get_plotlyjs

from genesplice.runtime import versions
from genesplice.show.cells import PageBody, headlines, render_cells
from genesplice.show.parameters import read_notebook, read_parameters
from genesplice.show.progress import say_seconds

_HERE = Path(__file__).parent
_MARKS = {"done": "✓", "failed": "✗", "interrupted": "✗", "running": "…", "not run": "–"}


class IndexEntry(NamedTuple):
    """A card of the index.

    `href` is a file name beside the index, None where there is no report; `older` names the run
    that the report comes from where it is not the index's own.
    """

    name: str
    title: str
    state: str
    seconds: float | None
    headline: str | None
    message: str | None
    href: str | None
    older: str | None = None


def render_notebook(
    notebook: Path, target: Path, title: str | None = None, run: str | None = None
) -> Path:
    """Write the report of an executed notebook.

    A notebook that stopped gives a partial report with the reason on top; one that was never run
    gives its text.

    Parameters
    ----------
    notebook
        The executed notebook.
    target
        The HTML file; replaced if it exists.
    title
        Used where the notebook has no heading of level 1.
    run
        Name of the run, shown in the header.

    Raises
    ------
    InputError
        If `notebook` is not a notebook.
    """
    content = read_notebook(notebook)
    body = render_cells(content)
    outcome = content.metadata.get("genesplice", {})
    text = render_body(
        body,
        title=body.title or title or notebook.stem,
        facts=_facts(content, outcome, run),
        failure=_failure(outcome.get("failure")),
        lead=headlines(content),
        parameters=_parameters(content, notebook),
        home="index.html",
        beside="The executed notebook lies beside it in the folder of the run.",
    )
    target.write_text(text, encoding="utf-8")
    return target


def render_body(
    body: PageBody,
    *,
    title: str,
    facts: Sequence[str],
    lead: Sequence[str],
    failure: Mapping[str, Any] | None = None,
    parameters: Sequence[Mapping[str, str]] = (),
    home: str = "",
    beside: str = "",
) -> str:
    """Give the HTML of one self-contained page.

    `home` is where the link above the contents leads; without it there is none. `beside` says in
    the footer what lies beside the file.
    """
    assets = [_asset("runtime.js")]
    scripts = [get_plotlyjs(), *assets] if body.n_figures else assets
    return (
        _templates()
        .get_template("report.j2")
        .render(
            title=title,
            policy=_policy(scripts),
            css=_asset("report.css"),
            version=versions()["genesplice"],
            headings=[heading for heading in body.headings if heading.level <= 3],
            facts=facts,
            failure=failure,
            lead=lead,
            parameters=parameters,
            n_figures=body.n_figures,
            body="\n".join(body.blocks),
            scripts=scripts,
            home=home,
            beside=beside,
        )
    )


def render_index(
    target: Path,
    entries: Sequence[IndexEntry],
    manifest: Mapping[str, Any],
    run: str,
    *,
    lead: Sequence[str] = (),
) -> Path:
    """Write the page that lists the reports of a run, links relative to `target`.

    `lead` are sentences on top: what the run as a whole has answered.
    """
    cards = [
        entry._asdict()
        | {
            "href": quote(entry.href) if entry.href else None,
            "mark": _MARKS.get(entry.state, ""),
            "css_class": entry.state.replace(" ", "-"),
            "facts": [
                *([say_seconds(entry.seconds)] if entry.seconds is not None else []),
                *([f"from run {entry.older}"] if entry.older else []),
            ],
        }
        for entry in entries
    ]
    states = [entry.state for entry in entries]
    done = f"{states.count('done')} of {len(states)} done"
    facts = [manifest.get("preset") and f"preset {manifest['preset']}", run, done]
    if manifest.get("seconds"):
        facts.append(f"{say_seconds(manifest['seconds'])} altogether")
    given = manifest.get("given") or {}
    facts += [f"{name} = {value}" for name, value in given.items()]
    text = (
        _templates()
        .get_template("index.j2")
        .render(
            title="Sweep" if manifest.get("kind") == "sweep" else "Reports",
            policy=_policy([]),
            css=_asset("report.css"),
            version=versions()["genesplice"],
            facts=[fact for fact in facts if fact],
            lead=lead,
            entries=cards,
        )
    )
    target.write_text(text, encoding="utf-8")
    return target


def read_headline(notebook: Path) -> str | None:
    """Give the last headline that an executed notebook displayed; None if there is none."""
    found = headlines(read_notebook(notebook))
    return found[-1] if found else None


@functools.cache
def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined
    )


def _policy(scripts: Sequence[str]) -> str:
    """Let these scripts run, styles and images of the file itself be used, and nothing else."""
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed or chr(39) + 'none' + chr(39)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _facts(
    notebook: nbformat.NotebookNode, outcome: Mapping[str, Any], run: str | None
) -> list[str]:
    given = notebook.metadata.get("papermill", {}).get("parameters", {})
    facts = [f"preset {given['preset']}"] if "preset" in given else []
    facts += [run] if run else []
    facts += [f"{outcome['state']} in {say_seconds(outcome['seconds'])}"] if outcome else []
    return facts


def _failure(failure: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not failure:
        return None
    cell = failure["cell"]
    where = f"Cell {cell} of {failure['n_cells']}" if cell else "Before the first cell"
    return {"where": where, "message": failure["message"], "has_cell": bool(cell)}


def _parameters(notebook: nbformat.NotebookNode, path: Path) -> list[dict[str, str]]:
    """Parameters of an executed notebook: what the author declared, and what it ran with."""
    given = notebook.metadata.get("papermill", {}).get("parameters", {})
    declared = read_parameters(notebook, path)
    return [
        {"name": name, "value": repr(given.get(name, info.default)), "help": info.help}
        for name, info in declared.items()
    ]

"""Self-contained HTML: one file per notebook, an index of them, and pages without a notebook.

A page opens from `file://`, years later, on a machine without a network: plotly.js from the
installed package is inlined once, and a Content-Security-Policy lets only that script and
`runtime.js` (by their digests) run and nothing at all be loaded. The same input always gives the
same bytes.
"""

import base64
import functools
import hashlib
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
import nbformat
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from genesplice.runtime import versions
from genesplice.show.explorer import PLOTLY_MIME, WIDGET_MIME, Explorer
from genesplice.show.markup import HEADLINE_MIME, PageBody, headlines
from genesplice.show.notebooks import read_notebook, read_parameters, say_seconds

Part = str | go.Figure | Explorer | pd.DataFrame
"""What a page may consist of; a string is Markdown, and HTML in it is cleaned."""

N_DIGITS = 3
MARKS = {"done": "✓", "failed": "✗", "interrupted": "✗", "running": "…", "not run": "–"}
_HERE = Path(__file__).parent


class Headline:
    """The one sentence that a notebook found, shown on top of its report and in the index.

    Give it as the last expression of a cell: `Headline(f"Context beyond {n:,} bp adds nothing")`.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        shown = f'<p style="font-size:1.2em"><b>{html.escape(self.text)}</b></p>'
        return {"text/plain": self.text, "text/html": shown, HEADLINE_MIME: {"text": self.text}}


class IndexEntry(NamedTuple):
    """A card of the index: the manifest's record of a notebook, and where its report is.

    `href` is a file name in the index's folder, None where there is no report; `older` names the
    run that the report comes from where it is not the index's own.
    """

    record: Mapping[str, Any]
    href: str | None
    older: str | None = None


def write_page(
    target: Path,
    title: str,
    parts: Iterable[Part],
    *,
    facts: Sequence[str] = (),
    lead: Sequence[str] = (),
    footer: str = "",
) -> Path:
    """Write text, tables, figures and explorers as one HTML file that loads nothing.

    Parameters
    ----------
    parts
        In the order of the page. Headings in Markdown make the contents.
    facts
        Short remarks under the title.
    lead
        What was found, in a sentence each.
    footer
        What else lies in the folder.
    """
    cells = [
        nbformat.v4.new_markdown_cell(part)
        if isinstance(part, str)
        else nbformat.v4.new_code_cell(source="", outputs=[_display(part)])
        for part in parts
    ]
    body = PageBody(nbformat.v4.new_notebook(cells=cells))
    return _write(target, title=title, body=body, facts=facts, lead=lead, footer=footer)


def render_notebook(
    notebook: Path, target: Path, title: str | None = None, run: str | None = None
) -> Path:
    """Write the report of an executed notebook.

    A notebook that stopped gives a partial report with the reason on top; one that was never run
    gives its text. `title` is used where the notebook has no heading of level 1; `run` names the
    run in the header.

    Raises
    ------
    InputError
        If `notebook` is not a notebook.
    """
    content = read_notebook(notebook)
    lead, body = headlines(content), PageBody(content)
    given = content.metadata.get("papermill", {}).get("parameters", {})
    outcome = content.metadata.get("genesplice", {})
    facts = [f"preset {given['preset']}"] if "preset" in given else []
    facts += [run] if run else []
    facts += [f"{outcome['state']} in {say_seconds(outcome['seconds'])}"] if outcome else []
    declared = read_parameters(content, notebook)
    return _write(
        target,
        title=body.title or title or notebook.stem,
        body=body,
        facts=facts,
        lead=lead,
        failure=outcome.get("failure"),
        parameters=[
            {"name": name, "value": repr(given.get(name, one.default)), "help": one.help}
            for name, one in declared.items()
        ],
        home="index.html",
        footer="The executed notebook is in the folder of the run.",
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
    cards = []
    for entry in entries:
        record, facts = entry.record, []
        facts += [say_seconds(record["seconds"])] if record["seconds"] is not None else []
        facts += [f"from run {entry.older}"] if entry.older else []
        mark, href = MARKS.get(record["state"], ""), quote(entry.href) if entry.href else None
        cards.append({**record, "mark": mark, "href": href, "facts": facts})
    n_done = sum(entry.record["state"] == "done" for entry in entries)
    facts = [f"preset {manifest['preset']}"] if manifest.get("preset") else []
    facts += [run, f"{n_done} of {len(entries)} done"]
    facts += [f"{say_seconds(manifest['seconds'])} altogether"] if manifest.get("seconds") else []
    facts += [f"{name} = {value}" for name, value in (manifest.get("given") or {}).items()]
    title = "Sweep" if manifest.get("kind") == "sweep" else "Reports"
    footer = "Every report is one file that opens without a network."
    return _write(target, title=title, cards=cards, facts=facts, lead=lead, footer=footer)


def read_headline(notebook: Path) -> str | None:
    """Give the last headline that an executed notebook displayed; None if there is none."""
    found = headlines(read_notebook(notebook))
    return found[-1] if found else None


def _write(target: Path, *, body: PageBody | None = None, **content: Any) -> Path:
    """Fill the one template; every page of the kit is made here."""
    scripts = [] if body is None else [_asset("runtime.js")]
    if body and body.n_figures:
        scripts.insert(0, get_plotlyjs())
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    policy = (
        f"default-src 'none'; script-src {allowed or chr(39) + 'none' + chr(39)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    common = {"policy": policy, "css": _asset("report.css"), "version": versions()["genesplice"]}
    text = _template().render(body=body, scripts=scripts, **common, **content)
    target.write_text(text, encoding="utf-8")
    return target


@functools.cache
def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


@functools.cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(_HERE)
    return jinja2.Environment(loader=loader, autoescape=True).get_template("page.j2")


def _display(part: go.Figure | Explorer | pd.DataFrame) -> nbformat.NotebookNode:
    if isinstance(part, Explorer):
        data = part._repr_mimebundle_()
        data.pop(WIDGET_MIME, None)
    elif isinstance(part, go.Figure):
        data = {PLOTLY_MIME: json.loads(str(part.to_json()))}
    else:
        number = f"{{:.{N_DIGITS}g}}".format
        data = {"text/html": part.to_html(index=False, float_format=number, na_rep="–", border=0)}
    return nbformat.v4.new_output("display_data", data=data)

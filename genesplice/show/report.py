"""Self-contained HTML: one file per notebook, an index of them, and pages without a notebook.

A page opens from `file://`, years later, on a machine without a network: plotly.js from the
installed package is inlined once, and a Content-Security-Policy lets only that script and
`runtime.js` (by their digests) run and nothing at all be loaded. Everything that a notebook brings
(Markdown, tables, text) is cleaned of scripts, event handlers and addresses; figures and explorers
leave as JSON, which `runtime.js` draws. The same input always gives the same bytes.
"""

import base64
import functools
import hashlib
import html
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import bleach
import jinja2
import nbformat
import pandas as pd
import plotly.graph_objects as go
from bleach.css_sanitizer import CSSSanitizer
from markupsafe import Markup
from nbconvert.filters.ansi import strip_ansi
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors.coalescestreams import CoalesceStreamsPreprocessor
from plotly.offline import get_plotlyjs
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from genesplice.runtime import atomic_file, say_seconds, versions
from genesplice.show.explorer import EXPLORER_MIME, PLOTLY_MIME, WIDGET_MIME, Explorer
from genesplice.show.notebooks import read_notebook, read_parameters

HEADLINE_MIME = "application/vnd.genesplice.headline+json"
DEFAULT_HEIGHT_PX = 450
FOLD_LINES = 14

_TAGS = re.findall(
    r"\w+",
    "a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption "
    "figure h1 h2 h3 h4 h5 h6 hr i img input kbd li mark ol p pre q s small span strong sub "
    "summary sup table tbody td tfoot th thead tr u ul var",
)
_ATTRIBUTES = {"class", "title", "alt", "colspan", "rowspan", "scope", "span", "start", "open"}
_STYLED = {"td", "th", "tr", "span", "div"}
_STYLES = CSSSanitizer(["background-color", "color", "font-weight", "text-align", "width"])
_LONG_CELL = re.compile(r'<td(?: class="([^"]*)")?([^>]*)>(?=[^<]{41,}</td>)')
_DROPPED = re.compile(r"<(script|style)\b.*?</\1\s*>", flags=re.IGNORECASE | re.DOTALL)


class Heading(NamedTuple):
    """An entry of the page's table of contents."""

    level: int
    anchor: str
    text: str


class PageBody:
    """The cells of an executed notebook as blocks of HTML.

    Code is folded; the parameters cells are left out (the page lists parameters); what was written
    to stderr, progress bars and widgets without a kernel are left out too, except in a cell that
    failed. Cells behind a failure are marked as not run.

    `title` is the first heading of level 1 (not repeated in `blocks`); `n_figures` counts what
    `runtime.js` draws.
    """

    def __init__(self, notebook: nbformat.NotebookNode) -> None:
        self.title, self.n_figures = "", 0
        self.blocks: list[str] = []
        self.headings: list[Heading] = []
        failure = notebook.metadata.get("genesplice", {}).get("failure") or {}
        streams, number = CoalesceStreamsPreprocessor(), 0
        for position, cell in enumerate(notebook.cells):
            if cell.cell_type == "markdown":
                body = self._markdown(cell.source, cell.get("attachments"))
                self.blocks += [f'<div class="prose">{body}</div>'] if body.strip() else []
            elif cell.cell_type == "code" and (cell.source.strip() or cell.outputs):
                number += 1
                cell, _ = streams.preprocess_cell(cell, {}, position)
                if not {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", [])):
                    self.blocks.append(self._code(cell, number, failure.get("cell") or 0))

    def _code(self, cell: nbformat.NotebookNode, number: int, failed: int) -> str:
        is_failed, is_behind = number == failed, 0 < failed < number
        outputs = "".join(self._output(output, is_failed) for output in cell.outputs)
        state = " failed" if is_failed else " behind" if is_behind else "" if outputs else " silent"
        label = f"Code of cell {number}, which failed" if is_failed else "Code"
        label += ", not run" if is_behind else ""
        code = highlight(cell.source, PythonLexer(), HtmlFormatter(nowrap=True))
        fold = f'<details class="code"{" open" if is_failed else ""}>'
        fold += f"<summary>{label}</summary><pre>{code}</pre></details>"
        anchor, fold = ' id="failed-cell"' * is_failed, fold if cell.source.strip() else ""
        return f'<div class="cell{state}"{anchor}>{fold}{outputs}</div>'

    def _markdown(self, source: str, attachments: dict[str, Any] | None = None) -> str:
        return _clean(MarkdownWithMath(renderer=_Renderer(self, attachments)).render(source))

    def _output(self, output: nbformat.NotebookNode, is_failed: bool) -> str:
        if output.output_type == "stream":
            is_hidden = output.name == "stderr" and not is_failed
            return "" if is_hidden else _printed(output.text, "Printed")
        if output.output_type != "error":
            return self._data(output.data)
        return Markup(
            '<p class="error">{}: {}</p><details class="trace"><summary>Traceback</summary>'
            "<pre>{}</pre></details>"
        ).format(output.ename, output.evalue, strip_ansi("\n".join(output.traceback)))

    def _data(self, data: dict[str, Any]) -> str:
        """Give the richest form that works without a kernel and without a network."""
        if HEADLINE_MIME in data:
            return Markup('<p class="headline">{}</p>').format(data[HEADLINE_MIME].get("text", ""))
        if PLOTLY_MIME in data:
            return self._figure(data[PLOTLY_MIME], data.get(EXPLORER_MIME))
        if WIDGET_MIME in data:
            return ""
        if "text/html" in data:
            return f'<div class="scroll">{_clean(data["text/html"])}</div>'
        for kind in ("image/png", "image/jpeg", "image/svg+xml"):
            if kind in data:
                return f'<figure><img alt="" src="{_data_url(kind, data[kind])}"></figure>'
        if "text/markdown" in data:
            return f'<div class="prose">{self._markdown(data["text/markdown"])}</div>'
        return _printed(data.get("text/plain", ""), "Result")

    def _figure(self, figure: dict[str, Any], explorer: dict[str, Any] | None) -> str:
        self.n_figures += 1
        name, layout = f"figure-{self.n_figures}", figure.get("layout", {})
        template = layout.get("template", {}).get("layout", {})
        height = int(layout.get("height") or template.get("height") or DEFAULT_HEIGHT_PX)
        spec = {"data": figure.get("data", []), "layout": {**layout, "height": height}}
        spec |= {"explorer": explorer} if explorer else {}
        return (
            f'<figure class="plot" id="{name}"><div class="controls"></div>'
            f'<div class="canvas" style="height:{height}px"></div></figure>'
            f'<script type="application/json" id="{name}-data">{to_json_block(spec)}</script>'
        )


def to_json_block(value: Any) -> str:
    """Serialise for a `<script type="application/json">`: no `<` is left that could end it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return text.replace("\u2029", "\\u2029")


class _Renderer(IPythonRenderer):
    """Markdown with headings that the table of contents can point to."""

    def __init__(self, body: PageBody, attachments: dict[str, Any] | None) -> None:
        super().__init__(escape=False, exclude_anchor_links=True, attachments=attachments or {})
        self.body = body

    def heading(self, text: str, level: int, **attrs: Any) -> str:
        """Give the heading an anchor; the first of level 1 is the page's title."""
        plain = html.unescape(re.sub(r"<[^>]*>", "", text)).strip()
        if level == 1 and not self.body.title:
            self.body.title = plain
            return ""
        slug = re.sub(r"[^\w]+", "-", plain.lower()).strip("-") or "section"
        taken = {heading.anchor for heading in self.body.headings}
        numbered = (f"{slug}-{number}" for number in itertools.count(2))
        anchor = next(one for one in itertools.chain([slug], numbered) if one not in taken)
        self.body.headings.append(Heading(level, anchor, plain))
        return f'<h{level} id="{html.escape(anchor)}">{text}</h{level}>\n'

    def block_math(self, body: str) -> str:
        """Show a formula as it was typed: there is nobody to ask for MathJax."""
        return Markup('<pre class="math">{}</pre>').format(body.strip())

    def inline_math(self, body: str) -> str:
        """Show a formula as it was typed."""
        return Markup('<code class="math">{}</code>').format(body)


def _data_url(kind: str, content: str) -> str:
    if kind == "image/svg+xml":
        content = base64.b64encode(content.encode()).decode("ascii")
    return f"data:{kind};base64,{re.sub(r'[^A-Za-z0-9+/=]', '', content)}"


def _clean(markup: str) -> str:
    """Keep harmless tags and attributes; tables get a box of their own to scroll in."""
    kept = bleach.clean(
        _DROPPED.sub("", markup), tags=_TAGS, attributes=_is_harmless, css_sanitizer=_STYLES,
        protocols={"http", "https", "mailto", "data"}, strip=True,
    )  # fmt: skip
    kept = kept.replace("<table", '<div class="scroll"><table')
    kept = _LONG_CELL.sub(lambda cell: f'<td class="{cell[1] or ""} long"{cell[2]}>', kept)
    return kept.replace("</table>", "</table></div>")


def _is_harmless(tag: str, name: str, value: str) -> bool:
    if tag == "a" and name == "href":
        return not value.strip().lower().startswith("data:")
    if tag == "img" and name == "src":
        return re.match(r"data:image/(png|jpeg|gif|svg\+xml);base64,", value) is not None
    if tag == "input" and name in {"type", "disabled"}:
        return value in {"checkbox", "", "disabled"}
    if name == "id":
        return re.fullmatch(r"h[1-6]", tag) is not None
    return name in _ATTRIBUTES or (name == "style" and tag in _STYLED)


def _printed(text: str, what: str) -> str:
    """Show printed text; long text is folded."""
    plain = strip_ansi(text.replace("\r\n", "\n")).rstrip()
    if not plain.strip():
        return ""
    body, n_lines = Markup('<pre class="printed">{}</pre>').format(plain), plain.count("\n") + 1
    if n_lines <= FOLD_LINES:
        return body
    summary = f"<summary>{what}: {n_lines:,} lines</summary>"
    return f'<details class="printed">{summary}{body}</details>'


Part = str | go.Figure | Explorer | pd.DataFrame
"""What a page may consist of; a string is Markdown, and HTML in it is cleaned."""

N_DIGITS = 3
MARKS = {"done": "✓", "failed": "✗", "interrupted": "✗", "running": "…", "waiting": "–",
         "not run": "–"}  # fmt: skip


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

    Headings in Markdown make the contents; `facts` are short remarks under the title, `lead` what
    was found, in a sentence each, `footer` what else lies in the folder.
    """
    new = nbformat.v4
    cells = [
        new.new_markdown_cell(part) if isinstance(part, str)
        else new.new_code_cell(source="", outputs=[_display(part)])
        for part in parts
    ]  # fmt: skip
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
    if "state" in outcome:
        facts.append(f"{outcome['state']} in {say_seconds(outcome['seconds'])}")
    parameters = [
        {"name": name, "value": repr(given.get(name, one.default)), "help": one.help}
        for name, one in read_parameters(content, notebook).items()
    ]
    return _write(
        target, title=body.title or title or notebook.stem, body=body, facts=facts, lead=lead,
        failure=outcome.get("failure"), parameters=parameters, home="index.html",
        footer="The executed notebook is in the folder of the run.",
    )  # fmt: skip


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
    n_done = sum(entry.record["state"] == "done" for entry in entries)
    facts = [f"preset {manifest['preset']}"] if manifest.get("preset") else []
    facts += [run, f"{n_done} of {len(entries)} done"]
    times = {"clock_seconds": "on the clock", "seconds": "of notebooks"}
    facts += [
        f"{say_seconds(manifest[key])} {of}" for key, of in times.items() if manifest.get(key)
    ]
    facts += [f"{name} = {value}" for name, value in (manifest.get("given") or {}).items()]
    title = "Sweep" if manifest.get("kind") == "sweep" else "Reports"
    footer = "Every report is one file that opens without a network."
    about: dict[str, Any] = {"entries": entries, "run_state": manifest.get("state")}
    return _write(target, title=title, facts=facts, lead=lead, footer=footer, **about)


def read_headline(notebook: Path) -> str | None:
    """Give the last headline that an executed notebook displayed; None if there is none."""
    return next(reversed(headlines(read_notebook(notebook))), None)


def headlines(notebook: nbformat.NotebookNode) -> list[str]:
    """Texts of the headlines that the notebook's cells displayed, in order."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output.get("data", {}).get(HEADLINE_MIME) for output in outputs]
    return [str(one["text"]).strip() for one in shown if isinstance(one, dict) and one.get("text")]


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
    environment = jinja2.Environment(autoescape=True)
    environment.filters |= {"clock": say_seconds, "mark": MARKS.get}
    template = environment.from_string(_asset("page.j2"))
    text = template.render(body=body, scripts=scripts, **common, **content)
    with atomic_file(target) as partial:
        partial.write_text(text, encoding="utf-8")
    return target


@functools.cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _display(part: go.Figure | Explorer | pd.DataFrame) -> nbformat.NotebookNode:
    if isinstance(part, Explorer):
        data = part._repr_mimebundle_()
        data.pop(WIDGET_MIME, None)
    elif isinstance(part, go.Figure):
        data = {PLOTLY_MIME: json.loads(str(part.to_json()))}
    else:
        number = f"{{:.{N_DIGITS}g}}".format
        with pd.option_context("display.max_colwidth", None):
            text = part.to_html(index=False, float_format=number, na_rep="–", border=0)
        data = {"text/html": text}
    return nbformat.v4.new_output("display_data", data=data)

"""Cells of an executed notebook as pieces of HTML that call nobody and run nothing of their own.

Everything that a notebook brings (Markdown, tables, text) is cleaned of scripts, event handlers
and addresses; figures and explorers leave as JSON, which `runtime.js` draws.
"""

import base64
import html
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import bleach
import nbformat
from bleach.css_sanitizer import CSSSanitizer
from nbconvert.filters.ansi import strip_ansi
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from genesplice.show.explorer import EXPLORER_MIME, PLOTLY_MIME
from genesplice.show.parts import HEADLINE_MIME

DEFAULT_HEIGHT_PX = 450
FOLD_LINES = 14

_TAGS = frozenset(
    re.findall(
        r"\w+",
        "a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption "
        "figure h1 h2 h3 h4 h5 h6 hr i img input kbd li mark ol p pre q s small span strong sub "
        "summary sup table tbody td tfoot th thead tr u ul var",
    )
)
_ATTRIBUTES = frozenset({"class", "title", "alt", "colspan", "rowspan", "scope", "span"})
_ATTRIBUTES |= {"start", "open"}
_STYLES = CSSSanitizer(
    allowed_css_properties=["background-color", "color", "font-weight", "text-align", "width"]
)
_DROPPED = re.compile(r"<(script|style)\b.*?</\1\s*>", flags=re.IGNORECASE | re.DOTALL)


class Heading(NamedTuple):
    """An entry of the page's table of contents; `level` is 1 to 3."""

    level: int
    anchor: str
    text: str


class PageBody(NamedTuple):
    """What `render_cells` makes of a notebook.

    `title` is the first heading of level 1 (not repeated in `blocks`); `n_figures` counts what
    `runtime.js` draws.
    """

    title: str
    blocks: list[str]
    headings: list[Heading]
    n_figures: int


def to_json_block(value: Any) -> str:
    """Serialise for a `<script type="application/json">`: no `<` is left that could end it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return text.replace("\u2029", "\\u2029")


def headlines(notebook: nbformat.NotebookNode) -> list[str]:
    """Texts of the headlines that the notebook's cells displayed, in order."""
    found = []
    for output in _outputs(notebook.cells):
        content = output.get("data", {}).get(HEADLINE_MIME)
        if isinstance(content, dict) and str(content.get("text", "")).strip():
            found.append(str(content["text"]).strip())
    return found


def render_cells(notebook: nbformat.NotebookNode) -> PageBody:
    """Turn an executed notebook into blocks of HTML.

    Code is folded; the parameters cells are left out (the page lists parameters); what was written
    to stderr, progress bars and widgets without a kernel are left out too, except in a cell that
    failed. Cells behind a failure are marked as not run.
    """
    failure = notebook.metadata.get("genesplice", {}).get("failure") or {}
    writer = _Writer(failed_cell=failure.get("cell"))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            writer.add_markdown(cell)
        elif cell.cell_type == "code" and (cell.source.strip() or cell.outputs):
            writer.add_code(cell)
    return PageBody(writer.title, writer.blocks, writer.headings, writer.n_figures)


class _Writer:
    """Goes down a notebook and keeps count of figures, headings and cells."""

    def __init__(self, failed_cell: int | None) -> None:
        self.failed_cell, self.cell = failed_cell, 0
        self.title = ""
        self.blocks: list[str] = []
        self.headings: list[Heading] = []
        self.n_figures = 0

    def add_markdown(self, cell: nbformat.NotebookNode) -> None:
        body = self.markdown(cell.source, cell.get("attachments"))
        if body.strip():
            self.blocks.append(f'<div class="prose">{body}</div>')

    def add_code(self, cell: nbformat.NotebookNode) -> None:
        self.cell += 1
        tags = cell.metadata.get("tags", [])
        if "parameters" in tags or "injected-parameters" in tags:
            return
        is_failed = self.cell == self.failed_cell
        is_behind = self.failed_cell is not None and self.cell > self.failed_cell
        label = "Code"
        if is_failed:
            label = f"Code of cell {self.cell}, which failed"
        elif is_behind:
            label = "Code, not run"
        outputs = "".join(self.output(output, is_failed) for output in _merge(cell.outputs))
        classes = "cell failed" if is_failed else "cell behind" if is_behind else "cell"
        classes += "" if outputs or is_failed or is_behind else " silent"
        anchor = ' id="failed-cell"' if is_failed else ""
        code = highlight(cell.source, PythonLexer(), HtmlFormatter(nowrap=True))
        fold = (
            f'<details class="code"{" open" if is_failed else ""}>'
            f"<summary>{label}</summary><pre>{code}</pre></details>"
        )
        shown = fold if cell.source.strip() else ""
        self.blocks.append(f'<div class="{classes}"{anchor}>{shown}{outputs}</div>')

    def markdown(self, source: str, attachments: dict[str, dict[str, str]] | None = None) -> str:
        renderer = _Renderer(self, attachments)
        return _clean(MarkdownWithMath(renderer=renderer).render(source))

    def output(self, output: nbformat.NotebookNode, is_failed: bool) -> str:
        if output.output_type == "stream":
            if output.name == "stderr" and not is_failed:
                return ""
            return _printed(output.text, "On stderr" if output.name == "stderr" else "Printed")
        if output.output_type == "error":
            trace = html.escape(strip_ansi("\n".join(output.traceback)))
            line = html.escape(f"{output.ename}: {output.evalue}")
            return (
                f'<p class="error">{line}</p><details class="trace"><summary>Traceback</summary>'
                f"<pre>{trace}</pre></details>"
            )
        return self.data(output.data)

    def data(self, data: dict[str, Any]) -> str:
        """Render the richest form that works without a kernel and without a network."""
        if HEADLINE_MIME in data:
            text = html.escape(str(data[HEADLINE_MIME].get("text", "")))
            return f'<p class="headline">{text}</p>'
        if PLOTLY_MIME in data:
            return self.figure(data[PLOTLY_MIME], data.get(EXPLORER_MIME))
        if "application/vnd.jupyter.widget-view+json" in data:
            return ""
        if "text/html" in data:
            return f'<div class="scroll">{_clean(data["text/html"])}</div>'
        for kind in ("image/png", "image/jpeg", "image/svg+xml"):
            if kind in data:
                return f'<figure><img alt="" src="{_data_url(kind, data[kind])}"></figure>'
        if "text/markdown" in data:
            return f'<div class="prose">{self.markdown(data["text/markdown"])}</div>'
        text = data.get("text/plain", "")
        return _printed(text, "Result") if text.strip() else ""

    def figure(self, figure: dict[str, Any], explorer: dict[str, Any] | None) -> str:
        self.n_figures += 1
        name = f"figure-{self.n_figures}"
        layout = figure.get("layout", {})
        template = layout.get("template", {}).get("layout", {})
        height = int(layout.get("height") or template.get("height") or DEFAULT_HEIGHT_PX)
        spec = {"data": figure.get("data", []), "layout": {**layout, "height": height}}
        if explorer:
            spec["explorer"] = explorer
        return (
            f'<figure class="plot" id="{name}"><div class="controls"></div>'
            f'<div class="canvas" style="height:{height}px"></div></figure>'
            f'<script type="application/json" id="{name}-data">{to_json_block(spec)}</script>'
        )


class _Renderer(IPythonRenderer):
    """Markdown with headings that the table of contents can point to."""

    def __init__(
        self, writer: _Writer, attachments: dict[str, dict[str, str]] | None = None
    ) -> None:
        super().__init__(escape=False, exclude_anchor_links=True, attachments=attachments or {})
        self.writer = writer

    def heading(self, text: str, level: int, **attrs: Any) -> str:
        """Give the heading an anchor; the first of level 1 is the page's title."""
        plain = html.unescape(re.sub(r"<[^>]*>", "", text)).strip()
        if level == 1 and not self.writer.title:
            self.writer.title = plain
            return ""
        slug = re.sub(r"[^\w]+", "-", plain.lower()).strip("-") or "section"
        taken = {heading.anchor for heading in self.writer.headings}
        numbered = (f"{slug}-{number}" for number in range(2, 10_000))
        anchor = next(one for one in (slug, *numbered) if one not in taken)
        if level <= 3:
            self.writer.headings.append(Heading(level, anchor, plain))
        return f'<h{level} id="{html.escape(anchor)}">{text}</h{level}>\n'

    def block_math(self, body: str) -> str:
        """Show a formula as it was typed: there is nobody to ask for MathJax."""
        return f'<pre class="math">{html.escape(body.strip())}</pre>'

    def inline_math(self, body: str) -> str:
        """Show a formula as it was typed."""
        return f'<code class="math">{html.escape(body)}</code>'


def _data_url(kind: str, content: str) -> str:
    if kind == "image/svg+xml":
        content = base64.b64encode(content.encode()).decode("ascii")
    return f"data:{kind};base64,{html.escape(re.sub(r'[^A-Za-z0-9+/=]', '', content))}"


def _clean(markup: str) -> str:
    """Keep harmless tags and attributes; tables get a box of their own to scroll in."""
    kept = bleach.clean(
        _DROPPED.sub("", markup),
        tags=_TAGS,
        attributes=_is_harmless,
        css_sanitizer=_STYLES,
        protocols={"http", "https", "mailto", "data"},
        strip=True,
    )
    kept = kept.replace("<table", '<div class="scroll"><table')
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
    return name in _ATTRIBUTES or (name == "style" and tag in {"td", "th", "tr", "span", "div"})


def _printed(text: str, what: str) -> str:
    """Show printed text; long text is folded. Lines that were written over are left out."""
    plain = strip_ansi(text.replace("\r\n", "\n"))
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in plain.rstrip("\n").split("\n")]
    body = html.escape("\n".join(lines))
    if not body.strip():
        return ""
    if len(lines) <= FOLD_LINES:
        return f'<pre class="printed">{body}</pre>'
    return (
        f'<details class="printed"><summary>{what}: {len(lines):,} lines</summary>'
        f'<pre class="printed">{body}</pre></details>'
    )


def _merge(outputs: Sequence[nbformat.NotebookNode]) -> Iterator[nbformat.NotebookNode]:
    """Join neighbouring pieces of one stream, which come in as they were flushed."""
    pending = None
    for output in outputs:
        if output.output_type == "stream" and pending and pending.name == output.name:
            pending = nbformat.from_dict({**pending, "text": pending.text + output.text})
            continue
        if pending:
            yield pending
        pending = output if output.output_type == "stream" else None
        if pending is None:
            yield output
    if pending:
        yield pending


def _outputs(cells: Sequence[nbformat.NotebookNode]) -> Iterator[nbformat.NotebookNode]:
    for cell in cells:
        yield from cell.get("outputs", [])

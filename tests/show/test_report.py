"""Reports: complete, closed to the network, clean of what notebooks bring, the same each time."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pandas as pd
import plotly.graph_objects as go
import pytest
from tiny_explorers import HOSTILE, make_explorers
from tiny_notebooks import code, md, write_notebook

from genesplice.errors import InputError
from genesplice.show.explorer import EXPLORER_MIME, PLOTLY_MIME
from genesplice.show.report import (
    Headline,
    IndexEntry,
    PageBody,
    headlines,
    read_headline,
    render_index,
    render_notebook,
    to_json_block,
)

FIGURE = go.Figure(go.Scatter(y=[1, 2], name=HOSTILE), layout={"height": 321})
FAILURE = {"cell": 2, "n_cells": 3, "kind": "ValueError", "message": "ValueError: <b>no</b>"}


def shown(data: dict) -> dict:
    return {"output_type": "display_data", "data": data, "metadata": {}}


def stream(text: str, name: str = "stdout") -> dict:
    return {"output_type": "stream", "name": name, "text": text}


def figure_output(figure: go.Figure = FIGURE) -> dict:
    return shown({PLOTLY_MIME: json.loads(figure.to_json())})


class Page(HTMLParser):
    """Tags with attributes, scripts and text of a page, as a browser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[tuple[dict, str]] = []
        self.inside, self.seen = "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif self.inside != "style":
            self.seen += data

    @property
    def policy(self) -> str:
        return next(a["content"] for _, a in self.tags if "http-equiv" in a)


def render(tmp_path: Path, *cells: nbformat.NotebookNode, **metadata) -> Page:
    path = write_notebook(tmp_path / "01_some_story.ipynb", *cells)
    if metadata:
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata.update(metadata)
        nbformat.write(notebook, path)
    target = render_notebook(path, tmp_path / "page.html")
    return Page(target.read_text(encoding="utf-8"))


def test_a_page_is_closed_and_runs_only_its_two_scripts(tmp_path: Path) -> None:
    page = render(tmp_path, md("# Title"), code("fig", outputs=[figure_output()]))
    assert page.policy.startswith("default-src 'none'; ")
    assert "connect-src" not in page.policy
    assert "http" not in page.policy
    running = [text for attributes, text in page.scripts if "type" not in attributes]
    assert len(running) == 2
    for text in running:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in page.policy
    assert "unsafe" not in page.policy.replace("style-src 'unsafe-inline'", "")
    for tag, attributes in page.tags:
        assert "src" not in attributes
        assert tag not in {"link", "iframe", "object", "form", "base"}
        assert not any(name.startswith("on") for name in attributes)
        if "href" in attributes:
            assert attributes["href"].startswith(("#", "index.html"))


@pytest.mark.slow
def test_the_same_notebook_gives_the_same_bytes(tmp_path: Path) -> None:
    cells = [md("# Title"), code("fig", outputs=[figure_output()])]
    cells += [
        code(name, outputs=[shown(explorer._repr_mimebundle_())])
        for name, explorer in make_explorers().items()
    ]
    render(tmp_path, *cells)
    first = (tmp_path / "page.html").read_bytes()
    render(tmp_path, *cells)
    assert (tmp_path / "page.html").read_bytes() == first


def test_plotly_is_there_once_and_only_where_something_is_drawn(tmp_path: Path) -> None:
    outputs = [figure_output(), figure_output()]
    render(tmp_path, code("two", outputs=outputs))
    assert 4_000_000 < (tmp_path / "page.html").stat().st_size < 6_000_000
    page = render(tmp_path, md("# Words"))
    assert (tmp_path / "page.html").stat().st_size < 60_000
    assert len(page.scripts) == 1


def test_figures_wait_as_json_with_their_height_reserved(tmp_path: Path) -> None:
    explorer = make_explorers()["network"]
    bundle = explorer._repr_mimebundle_()
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}
    page = render(
        tmp_path,
        code("fig", outputs=[figure_output()]),
        code("live", outputs=[shown({**bundle, **view})]),
        code("tqdm", outputs=[shown({**view, "text/plain": "HBox(...)"})]),
    )
    data = [json.loads(text) for attributes, text in page.scripts if "type" in attributes]
    assert [one["layout"]["height"] for one in data] == [321, 620]
    assert "explorer" not in data[0]
    assert data[1]["explorer"] == bundle[EXPLORER_MIME]
    assert data[1]["data"] == bundle[PLOTLY_MIME]["data"]
    styles = [a["style"] for tag, a in page.tags if a.get("class") == "canvas"]
    assert styles == ["height:321px", "height:620px"]
    assert [a["id"] for t, a in page.tags if a.get("class") == "plot"] == ["figure-1", "figure-2"]
    assert "HBox" not in page.seen
    default = render(
        tmp_path, code("fig", outputs=[shown({PLOTLY_MIME: {"data": [], "layout": {}}})])
    )
    assert json.loads(default.scripts[0][1])["layout"]["height"] == 450


def test_json_cannot_end_its_script() -> None:
    value = {"name": "</script><script>alert(1)</script><!--", "line": "\u2028"}
    text = to_json_block(value)
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json_block(float("nan"))


def test_what_a_notebook_brings_is_cleaned(tmp_path: Path) -> None:
    table = pd.DataFrame({HOSTILE: [HOSTILE]}).to_html()
    evil = (
        '<p onclick="x()">kept</p><script>bad()</script><style>p{}</style><img src="http://x/y.png">'
        '<a href="javascript:bad()">link</a><iframe src="http://x"></iframe><svg onload="bad()"/>'
        '<td style="color:red;background:url(http://x)">cell</td><b id="figure-1-data">clobber</b>'
    )
    page = render(
        tmp_path,
        md(f"# Title\n\n{evil}\n\n![pixel](http://x/y.png) [ok](https://example.org)"),
        code("a", outputs=[shown({"text/html": evil}), shown({"text/html": table})]),
        code("b", outputs=[shown({"text/markdown": evil}), stream(evil)]),
        code("c", outputs=[shown({"application/javascript": "bad()", "text/plain": "<b>"})]),
    )
    inner = [(tag, a) for tag, a in page.tags if tag not in {"meta", "html", "body"}]
    for tag, attributes in inner:
        assert tag not in {"iframe", "svg", "link", "object"}
        assert not any(name.startswith("on") for name in attributes)
        if tag == "img":
            assert "src" not in attributes
        if tag == "a":
            assert not attributes.get("href", "").startswith("javascript")
        assert "url(" not in attributes.get("style", "")
        assert attributes.get("id") != "figure-1-data"
    assert len(page.scripts) == 1
    assert "kept" in page.seen
    assert HOSTILE in page.seen
    assert ("a", {"href": "https://example.org"}) in inner


def test_images_become_part_of_the_file(tmp_path: Path) -> None:
    pixel = "iVBORw0KGgoAAAANSUhEUg==\n"
    page = render(
        tmp_path,
        code("a", outputs=[shown({"image/png": pixel, "text/plain": "Figure"})]),
        code("b", outputs=[shown({"image/svg+xml": "<svg onload='x()'/>"})]),
    )
    first, second = (a["src"] for tag, a in page.tags if tag == "img")
    assert first == "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="
    assert base64.b64decode(second.removeprefix("data:image/svg+xml;base64,")).startswith(b"<svg")
    attached = md("# T\n\n![x](attachment:a.png)")
    attached.attachments = {"a.png": {"image/png": "iVBORw0KGgo="}}
    page = render(tmp_path, attached)
    assert ("img", {"src": "data:image/png;base64,iVBORw0KGgo=", "alt": "x"}) in page.tags


def test_printed_text_is_folded_where_it_is_long(tmp_path: Path) -> None:
    short = "3,923 genes\n\x1b[31mred\x1b[0m <b>\n"
    bar = "10%\r50%\r100%\nfinished\r\n"
    page = render(
        tmp_path,
        code("a", outputs=[stream("3,923 "), stream(short.removeprefix("3,923 "))]),
        code("b", outputs=[stream("".join(f"line {i}\n" for i in range(40)))]),
        code("c", outputs=[stream(bar), stream("secret warning", "stderr")]),
    )
    body = PageBody(nbformat.read(tmp_path / "01_some_story.ipynb", as_version=4)).blocks
    assert '<pre class="printed">3,923 genes\nred &lt;b&gt;</pre>' in body[0]
    assert "<summary>Printed: 40 lines</summary>" in body[1]
    assert '<pre class="printed">100%\nfinished</pre>' in body[2]
    assert "secret warning" not in page.seen


def test_headings_make_the_contents(tmp_path: Path) -> None:
    page = render(
        tmp_path,
        md("# The *title*\n\ntext\n\n## Same & same\n\n### Deeper"),
        md("## Same & same\n\n#### Too deep\n\n# A second title\n\n## ∂µ"),
    )
    anchors = [a["id"] for tag, a in page.tags if re.fullmatch("h[1-6]", tag) and "id" in a]
    assert anchors == ["same-same", "deeper", "same-same-2", "too-deep", "a-second-title", "µ"]
    links = [a["href"] for tag, a in page.tags if tag == "a" and a["href"].startswith("#")]
    assert links[0] == "#same-same"
    assert len(links) == 5
    assert ("title", {}) in page.tags
    assert page.seen.count("The title") == 2  # <title> and <h1>, not again in the text


def test_a_page_without_a_heading_takes_the_title_given(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "01_x.ipynb", md("only words"))
    text = render_notebook(
        path, tmp_path / "a.html", title="From <outside>", run="2026"
    ).read_text()
    assert "<h1>From &lt;outside&gt;</h1>" in text
    assert "<span>2026</span>" in text
    assert "<h1>01_x</h1>" in render_notebook(path, tmp_path / "a.html").read_text()


def test_parameters_are_listed_and_their_cells_left_out(tmp_path: Path) -> None:
    page = render(
        tmp_path,
        code("seed: int = 0  # of <everything>\nlimit: int | None = None", "parameters"),
        code("# Parameters\nseed = 7", "injected-parameters"),
        code("print(seed)"),
        papermill={"parameters": {"seed": 7}},
        genesplice={"state": "done", "seconds": 65.2},
    )
    codes = "".join(PageBody(nbformat.read(tmp_path / "01_some_story.ipynb", 4)).blocks)
    assert "injected" not in codes
    assert "everything" not in codes
    assert "seed7of <everything>" in page.seen.replace("\n", "")
    assert "limitNone" in page.seen
    assert "done in 1:05" in page.seen


def test_a_failed_notebook_gives_a_partial_report(tmp_path: Path) -> None:
    error = {
        "output_type": "error",
        "ename": "ValueError",
        "evalue": "<b>no</b>",
        "traceback": ["\x1b[31mTraceback\x1b[0m <frame>"],
    }
    page = render(
        tmp_path,
        md("# T"),
        code("one()", outputs=[stream("all fine so far")]),
        code("two()", outputs=[stream("a warning", "stderr"), error]),
        code("three()"),
        genesplice={"state": "failed", "seconds": 1.0, "failure": FAILURE},
    )
    assert "This report is partial" in page.seen
    assert "Cell 2 of 3: ValueError: <b>no</b>" in page.seen
    assert "all fine so far" in page.seen
    assert "a warning" in page.seen
    assert "Traceback <frame>" in page.seen
    assert ("div", {"class": "cell failed", "id": "failed-cell"}) in page.tags
    assert "Code, not run" in page.seen
    early = {**FAILURE, "cell": None, "message": "the kernel did not start"}
    page = render(
        tmp_path, code("1"), genesplice={"state": "failed", "seconds": 0, "failure": early}
    )
    assert "Before the first cell: the kernel did not start" in page.seen
    assert "Go to the cell" not in page.seen


def test_formulas_are_shown_as_typed(tmp_path: Path) -> None:
    page = render(tmp_path, md("# T\n\nlevel $r^2<1$ and\n\n$$\n\\sum_i x_i\n$$"))
    assert "r^2<1" in page.seen
    assert "\\sum_i x_i" in page.seen
    assert "mathjax" not in (tmp_path / "page.html").read_text().lower()


def test_headlines_are_found_and_shown_on_top(tmp_path: Path) -> None:
    bundles = [Headline(text)._repr_mimebundle_() for text in ("first", "last <one>")]
    cells = [code(f"{i}", outputs=[shown(bundle)]) for i, bundle in enumerate(bundles)]
    page = render(tmp_path, *cells, code("z", outputs=[shown({"text/plain": "3"})]))
    path = tmp_path / "01_some_story.ipynb"
    assert headlines(nbformat.read(path, as_version=4)) == ["first", "last <one>"]
    assert read_headline(path) == "last <one>"
    assert [a for t, a in page.tags if a.get("class") == "lead"] == [{"class": "lead"}] * 2
    assert page.seen.count("last <one>") == 2
    assert bundles[0]["text/plain"] == "first"
    assert "&lt;one&gt;" in bundles[1]["text/html"]
    render(tmp_path, md("# none"))
    assert read_headline(path) is None


def entry(title, state, seconds, href, older=None, **record) -> IndexEntry:
    record = {"headline": None, "message": None, **record}
    return IndexEntry({"title": title, "state": state, "seconds": seconds, **record}, href, older)


def test_the_index_lists_what_there_is(tmp_path: Path) -> None:
    entries = [
        entry("Data & more", "done", 62.0, "01 a=b.html", headline="It <works>"),
        entry("Graph", "failed", 3.0, "02.html", message="02, cell 3/4: no"),
        entry("Later", "not run", None, None),
        entry("Old", "done", 5.0, "04.html", older="2025-quick"),
    ]
    manifest = {"preset": "quick", "seconds": 65.0, "given": {"seed": "3"}, "kind": "run"}
    path = render_index(tmp_path / "index.html", entries, manifest, "2026-quick")
    page = Page(path.read_text())
    assert page.policy.startswith("default-src 'none'; script-src 'none';")
    assert page.scripts == []
    assert [a["href"] for tag, a in page.tags if tag == "a"] == [
        "01%20a%3Db.html",
        "02.html",
        "04.html",
    ]
    for text in ("It <works>", "02, cell 3/4: no", "✓ done", "✗ failed", "– not run", "1:02"):
        assert text in page.seen
    assert "from run 2025-quick" in page.seen
    assert "seed = 3" in page.seen
    assert "2 of 4 done" in page.seen
    assert all(a.get("class") != "lead" for _, a in page.tags)
    assert "1:05 of notebooks" in page.seen
    at_work = manifest | {"state": "running", "clock_seconds": 40.0}
    page = Page(render_index(path, entries, at_work, "2026-quick").read_text())
    assert "– waiting" in page.seen
    assert "not run" not in page.seen
    assert "0:40 on the clock1:05 of notebooks" in page.seen
    led = render_index(tmp_path / "l.html", entries, manifest, "x", lead=["Context <helps>."])
    assert Page(led.read_text()).seen.count("Context <helps>.") == 1
    sweep = render_index(tmp_path / "s.html", [], {"kind": "sweep", "preset": None}, "x")
    assert "<h1>Sweep</h1>" in sweep.read_text()


def test_what_is_no_notebook_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.ipynb").write_text("{}")
    with pytest.raises(InputError, match="not a notebook"):
        render_notebook(tmp_path / "x.ipynb", tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()

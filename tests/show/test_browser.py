"""Reports in a browser without a network: everything is drawn, everything answers."""

import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_explorers import HOSTILE, N_GENES, make_explorers
from tiny_notebooks import code, md, write_notebook

import genesplice as gs
from genesplice.show.execution import Progress
from genesplice.show.report import write_page
from genesplice.show.runner import run_notebooks

pytestmark = pytest.mark.browser

SETUP = """
import sys
sys.path.insert(0, {tests!r})
import plotly.graph_objects as go
from tiny_explorers import make_explorers
explorers = make_explorers()
"""
# What the page must do as Python does: the figure after a choice, as plain lists.
STATE = """
([at, choices]) => {
  const figure = genesplice.figures[at];
  for (const [name, position] of Object.entries(choices)) figure.set(name, position);
  const plain = (value) => {
    if (ArrayBuffer.isView(value)) return Array.from(value, plain);
    if (Array.isArray(value)) return value.map(plain);
    if (typeof value === "number" && !Number.isFinite(value)) return null;
    return value === undefined ? null : value;
  };
  const keys = (path) => path.split(/[.[\\]]+/).filter(Boolean);
  const get = (target, path) => keys(path).reduce((inside, key) => inside?.[key], target);
  const holder = (path) => (path.startsWith("data[") ? figure : figure.layout);
  const paths = figure.explorer.bindings.flatMap((binding) => binding.paths);
  return paths.map((path) => [path, plain(get(holder(path), path))]);
}
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two notebooks through a real kernel and the runner."""
    root = tmp_path_factory.mktemp("browser")
    tests = str(Path(__file__).parents[1])
    write_notebook(
        root / "notebooks" / "01_explorers.ipynb",
        md("# Explorers\n\nText."),
        code(SETUP.format(tests=tests)),
        *(
            cell
            for name in make_explorers()
            for cell in (md(f"## {name}"), code(f"explorers[{name!r}]"))
        ),
    )
    write_notebook(
        root / "notebooks" / "02_figures.ipynb",
        md("# Figures"),
        code("import numpy as np, pandas as pd, plotly.graph_objects as go"),
        code("go.Figure(go.Scatter(y=[1, 3, 2]), layout={'height': 300})"),
        *(md(f"paragraph {i}\n\n" + "words " * 200) for i in range(8)),
        code("figure = go.Figure(go.Scattergl(y=np.arange(100.)))\nfigure.show()"),
        code("go.Figure(go.Heatmap(z=np.eye(5)), layout={'title': 'last'})"),
        code(
            "grow = {'height': 200, 'meta': {'heights': [[0, 410], [700, 210]]}}\n"
            "go.Figure(go.Scatter(y=[1, 2]), layout=grow)"
        ),
        code("pd.DataFrame(np.ones((3, 40))).add_prefix('a long column name ')"),
        code("print('x' * 500)"),
    )
    result = run_notebooks(root / "notebooks", root / "reports", progress=Progress(io.StringIO()))
    assert result.failures == ()
    return root / "reports"


class Visit:
    """A page with everything that it asked for and everything that it complained about."""

    def __init__(self, browser, path: Path, width: int = 1280) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, offline=True, color_scheme="light"
        )
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self.listen)
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html.ready" if path.name != "index.html" else "html")

    def listen(self, message) -> None:
        if "GPU stall" not in message.text:  # Chromium's own remark on WebGL without a GPU
            self.complaints.append(f"{message.type}: {message.text}")

    def until(self, expression: str, seconds: float = 8.0) -> None:
        """Wait for an expression; Playwright's own way would need `eval`, which is forbidden."""
        deadline = time.monotonic() + seconds
        while not self.page.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < deadline, f"never became true: {expression}"
            self.page.wait_for_timeout(20)

    def draw_all(self) -> None:
        self.page.evaluate("genesplice.drawAll()")
        self.until("genesplice.figures.every((f) => f.canvas.querySelector('.main-svg'))")

    def overflow(self) -> int:
        return self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )

    def check(self, path: Path) -> None:
        asked = [url for url in self.requests if not url.startswith(("data:", "blob:"))]
        assert asked == [path.as_uri()]
        assert self.complaints == []


@pytest.fixture
def visit(browser) -> Iterator:
    opened: list[tuple[Visit, Path]] = []

    def open_page(path: Path, width: int = 1280) -> Visit:
        opened.append((Visit(browser, path, width), path))
        return opened[-1][0]

    yield open_page
    for one, path in opened:
        one.check(path)
        one.context.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(
    ("name", "n_figures"), [("01_explorers", len(make_explorers())), ("02_figures", 4)]
)
def test_every_figure_is_drawn_inside_the_page(
    reports: Path, visit, width: int, name: str, n_figures: int
) -> None:
    one = visit(reports / f"{name}.html", width)
    one.draw_all()
    assert one.page.locator(".plot .main-svg").count() >= n_figures
    assert one.page.evaluate("genesplice.figures.length") == n_figures
    assert one.overflow() <= 0
    for box in one.page.eval_on_selector_all(
        ".plot .svg-container", "all => all.map((one) => one.getBoundingClientRect().toJSON())"
    ):
        assert 0 <= box["left"] < box["right"] <= width
    assert one.page.evaluate("Number(document.title.length > 3)") == 1


def test_labels_and_values_of_a_table_fit_a_phone(visit, tmp_path: Path) -> None:
    table = gs.describe_rule(gs.load_preset("standard")).to_frame()
    one = visit(write_page(tmp_path / "index.html", "Rule", ["## Rule", table.to_html()]), 390)
    box = "document.querySelector('.scroll')"
    assert one.page.evaluate(f"{box}.scrollWidth - {box}.clientWidth") <= 0


def test_figures_far_below_wait_and_nothing_moves_when_they_come(reports: Path, visit) -> None:
    one = visit(reports / "02_figures.html")
    one.page.wait_for_selector("#figure-1 .main-svg")
    assert one.page.locator("#figure-3 .main-svg").count() == 0
    before = one.page.evaluate("document.documentElement.scrollHeight")
    one.page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    one.page.wait_for_selector("#figure-3 .main-svg")
    assert one.page.evaluate("document.documentElement.scrollHeight") == before


def test_the_page_patches_as_python_does(reports: Path, visit) -> None:
    one = visit(reports / "01_explorers.html")
    one.draw_all()
    rng = np.random.default_rng(0)
    for at, explorer in enumerate(make_explorers().values()):
        for _ in range(6):
            choices = {n: int(rng.integers(len(c.options))) for n, c in explorer.controls.items()}
            shown = one.page.evaluate(STATE, [at, choices])
            options = {n: explorer.controls[n].options[at] for n, at in choices.items()}
            expected = explorer.figure_at(**options)
            for path, value in shown:
                full = path if path.startswith("data[") else f"layout.{path}"
                assert_same(value, expected[full], path)
    one.page.wait_for_timeout(100)


def assert_same(found: object, expected: object, path: str) -> None:
    if isinstance(expected, np.ndarray | tuple) and np.asarray(expected).dtype.kind in "fiu":
        if isinstance(found, dict):
            found = np.frombuffer(base64.b64decode(found["bdata"]), "<" + found["dtype"])
        numbers = [np.nan if value is None else value for value in found]
        np.testing.assert_allclose(numbers, expected, rtol=1e-6, atol=1e-9, err_msg=path)
    elif isinstance(expected, tuple):
        assert (found or []) == json.loads(json.dumps(expected)), path
    else:
        assert found == expected or found == pytest.approx(expected), path


def test_a_gene_is_found_by_typing_and_by_the_keys(reports: Path, visit) -> None:
    one = visit(reports / "01_explorers.html")
    field = one.page.locator("#figure-1-gene")
    one.page.wait_for_selector("#figure-1 .main-svg")
    title = one.page.locator("#figure-1 .annotation").nth(1)
    assert "genA (b0000)" in title.text_content()
    options = one.page.locator("#figure-1-gene-list option")
    assert options.count() == N_GENES
    assert options.nth(1).get_attribute("value") == f"{HOSTILE} (b0001)"
    field.focus()
    assert field.input_value() == ""  # so that the browser offers every gene
    assert field.get_attribute("placeholder") == "genA (b0000)"
    field.fill("B0007")
    field.press("Enter")
    one.until("document.querySelectorAll('#figure-1 .annotation')[1].textContent.includes('genH')")
    assert field.input_value() == "genH (b0007)"
    field.fill("genG (b0006)")  # what a choice from the list gives
    one.until("document.querySelectorAll('#figure-1 .annotation')[1].textContent.includes('genG')")
    field.fill("zzz")
    field.press("Escape")
    assert field.input_value() == "genG (b0006)"
    field.fill("zzz")
    field.press("Enter")
    assert field.input_value() == "genG (b0006)"
    one.page.keyboard.press("Tab")
    assert one.page.locator(":focus").get_attribute("aria-label") == "next: Gene"
    one.page.keyboard.press("Enter")
    assert json.loads(one.page.locator("#figure-1").get_attribute("data-state")) == {"gene": 7}


def test_the_page_says_what_only_a_kernel_can_show(reports: Path, visit) -> None:
    one = visit(reports / "01_explorers.html")
    notes = one.page.locator(".controls .note").all_inner_texts()
    assert notes == ["Gene: 2 of 12 computed here, others where a kernel runs."]


def test_a_click_on_a_point_picks_its_gene(reports: Path, visit) -> None:
    one = visit(reports / "01_explorers.html")
    one.page.wait_for_selector("#figure-1 .points path")
    # A point that no other one covers, hovered first as a hand would.
    place = one.page.eval_on_selector_all(
        "#figure-1 .scatterlayer .trace:first-child .points path",
        """all => {
          const box = all[7].getBoundingClientRect();
          return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
        }""",
    )
    one.page.mouse.move(place["x"] + 1, place["y"] + 1)
    one.page.wait_for_timeout(200)
    one.page.mouse.click(place["x"], place["y"])
    one.until("document.querySelector('#figure-1').dataset.state")
    state = json.loads(one.page.locator("#figure-1").get_attribute("data-state"))
    assert state == {"gene": 7}
    assert one.page.locator("#figure-1-gene").input_value() == "genH (b0007)"


def test_a_click_on_an_edge_goes_to_its_other_end(reports: Path, visit) -> None:
    one = visit(reports / "01_explorers.html")
    one.draw_all()
    root = one.page.locator("#figure-4")
    root.scroll_into_view_if_needed()
    assert one.page.locator("#figure-4-node").input_value() == "genA (b0000)"
    place = one.page.eval_on_selector_all(
        "#figure-4 .scatterlayer .trace:last-child .points path",
        """all => {
          const box = all[0].getBoundingClientRect();
          return { n: all.length, x: box.x + box.width / 2, y: box.y + box.height / 2 };
        }""",
    )
    assert place["n"] == 4
    one.page.mouse.move(place["x"] + 1, place["y"] + 1)
    one.page.wait_for_timeout(200)
    one.page.mouse.click(place["x"], place["y"])
    one.until("document.querySelector('#figure-4').dataset.state")
    assert json.loads(root.get_attribute("data-state")) == {"node": 3}
    assert one.page.locator("#figure-4-node").input_value() == "genD (b0003)"
    one.until("genesplice.figures[3].canvas._fullLayout.annotations[0].text.includes('genD')")


def test_a_slider_moves_the_window(reports: Path, visit) -> None:
    one = visit(reports / "01_explorers.html", 390)
    one.draw_all()
    slider = one.page.locator("#figure-3-window")
    before = one.page.evaluate("genesplice.figures[2].layout.xaxis2.range.slice()")
    slider.focus()
    slider.press("Home")
    one.until("genesplice.figures[2].canvas._fullLayout.xaxis2.range[0] === -80.5")
    assert before[0] != -80.5
    assert one.page.locator("#figure-3 output").inner_text() == "-80 to -21"
    assert slider.get_attribute("aria-valuetext") == "-80 to -21"


def test_panels_stand_below_one_another_when_it_is_narrow(reports: Path, visit) -> None:
    one = visit(reports / "01_explorers.html")
    one.draw_all()
    domain = "genesplice.figures[0].canvas._fullLayout.xaxis2.domain[0]"
    assert one.page.evaluate(domain) > 0.5
    one.page.set_viewport_size({"width": 390, "height": 800})
    one.until(f"{domain} === 0")
    assert one.page.evaluate("genesplice.figures[0].canvas.offsetHeight") == 820
    assert one.overflow() <= 0
    one.page.set_viewport_size({"width": 1280, "height": 800})
    one.until(f"{domain} > 0.5")
    assert one.page.evaluate("genesplice.figures[0].canvas.offsetHeight") == 460


def test_a_figure_takes_the_height_that_its_width_needs(reports: Path, visit) -> None:
    one = visit(reports / "02_figures.html", 390)
    one.draw_all()
    height = "document.querySelector('#figure-4 .main-svg').getBoundingClientRect().height"
    assert one.page.evaluate(height) == 410
    toolbar = "getComputedStyle(document.querySelector('#figure-4 .modebar')).display"
    assert one.page.evaluate(toolbar) == "none"  # it would lie on the title
    one.page.set_viewport_size({"width": 1280, "height": 800})
    one.until(f"{height} === 210")
    assert one.page.evaluate(toolbar) != "none"


def test_names_that_are_markup_stay_names(reports: Path, visit) -> None:
    one = visit(reports / "01_explorers.html")
    one.draw_all()
    one.page.evaluate("genesplice.figures[0].set('gene', 1)")
    one.until("document.querySelectorAll('#figure-1 .annotation')[1].textContent.includes('<img')")
    assert one.page.locator("#figure-1 img").count() == 0


def test_nothing_is_offered_that_would_leave_the_page(reports: Path, visit) -> None:
    one = visit(reports / "01_explorers.html")
    one.draw_all()
    titles = one.page.eval_on_selector_all(".modebar-btn", "all => all.map(b => b.dataset.title)")
    assert "Download plot as a PNG" in titles
    assert not any("hare" in title or "Plotly" in title for title in titles)
    refused = one.page.evaluate(
        "fetch('https://example.org').then(() => 'loaded', () => 'refused')"
    )
    assert refused == "refused"
    assert any("Content Security Policy" in complaint for complaint in one.complaints)
    one.complaints.clear()


def test_code_opens_and_paper_has_every_figure(reports: Path, visit) -> None:
    one = visit(reports / "02_figures.html")
    button = one.page.locator("#toggle-code")
    assert one.page.locator("details.code[open]").count() == 0
    button.click()
    assert one.page.locator("details.code[open]").count() == 7
    assert one.page.locator("details.code pre").first.is_visible()
    button.click()
    assert one.page.locator("details.code[open]").count() == 0
    assert one.page.locator("#figure-3 .main-svg").count() == 0
    one.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert one.page.locator(".plot.drawn .main-svg").count() >= 3
    widths = one.page.evaluate("genesplice.figures.map((figure) => figure.layout.width)")
    assert widths == [680] * 4
    one.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert one.page.evaluate("genesplice.figures[0].layout.width") > 700


def test_the_index_leads_to_the_reports(reports: Path, visit) -> None:
    one = visit(reports / "index.html", 390)
    assert one.overflow() <= 0
    links = one.page.locator("h2 a").evaluate_all("all => all.map(a => a.href)")
    assert links == [(reports / f"{s}.html").as_uri() for s in ("01_explorers", "02_figures")]
    one.page.wait_for_timeout(50)

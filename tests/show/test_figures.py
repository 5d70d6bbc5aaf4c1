"""What every figure promises: one look, one answer, text never interpreted, drawn offline."""

import copy
import html
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs
from tiny_figures import CASES, draw

from genesplice.show import figures, theme

# A gene, contig, condition, model … that tries every door. Its text is what must be read.
NASTY = "<img src=x onerror=alert(1)><b>aac(6')</b> & $x$ %{y}"


every_figure = pytest.mark.parametrize("name", CASES)


def strings(value: object) -> Iterator[str]:
    """Every text in a figure's JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


# ---- one look


def test_every_figure_is_tried_here():
    public = {getattr(figures, name) for name in figures.__all__ if name != "THEME"}
    assert {case.figure for case in CASES.values()} == public


@every_figure
def test_figures_share_the_theme_and_reserve_their_height(name):
    figure = draw(name)
    assert type(figure) is go.Figure
    assert figure.layout.template == theme.THEME
    assert 150 <= figure.layout.height <= 1200
    assert figure.layout.width is None  # follows the page


@every_figure
def test_titles_are_short_enough_for_a_telephone(name):
    figure = CASES[name].figure(
        **{k: v for k, v in CASES[name].arguments("plain").items() if k != "title"}
    )
    lines = figure.layout.title.text.split("<br>")
    assert lines[0]
    for line in lines:
        text = html.unescape(line.split(">", 1)[1].removesuffix("</span>"))
        assert len(text) <= 54


@every_figure
def test_axes_that_can_be_seen_say_what_they_show(name):
    figure = draw(name)
    if {trace.type for trace in figure.data} & {"table", "barpolar"}:
        return
    for axis in (*figure.select_xaxes(), *figure.select_yaxes()):
        if axis.visible is not False and axis.showticklabels is not False:
            # Labels of genes, models and contigs speak for themselves.
            assert axis.title.text or axis.ticktext or axis.type == "category"


@every_figure
def test_positions_are_float64(name):
    for trace in draw(name).data:
        x = getattr(trace, "x", None)
        if x is not None and not isinstance(x[0] if len(x) else 0.0, str):
            assert np.asarray(x).dtype == np.float64


@every_figure
def test_hover_never_falls_back_to_bare_numbers(name):
    for trace in draw(name).data:
        for part in (trace.node, trace.link) if trace.type == "sankey" else (trace,):
            if trace.type != "table":
                has_text = part.hovertemplate or part.hoverinfo in ("skip", "text", "name")
                assert has_text


@every_figure
def test_nothing_needs_webgl_or_the_network(name):
    figure = draw(name)
    assert all("gl" not in trace.type for trace in figure.data)
    assert all("http" not in text for text in strings(json.loads(figure.to_json())))


# ---- one answer


@every_figure
def test_the_same_input_gives_the_same_bytes(name):
    assert draw(name).to_json() == draw(name).to_json()


@every_figure
def test_the_input_is_left_alone(name):
    arguments = CASES[name].arguments("plain")
    before = copy.deepcopy(arguments)
    CASES[name].figure(**arguments)
    for key, value in before.items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(arguments[key], value)
        elif isinstance(value, pd.Series):
            pd.testing.assert_series_equal(arguments[key], value)
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(arguments[key], value)
        else:
            assert arguments[key] == value


@every_figure
def test_the_order_of_rows_has_no_influence(name):
    arguments = CASES[name].arguments("plain")
    shuffled = {
        key: value.sample(frac=1, random_state=7)
        if isinstance(value, (pd.DataFrame, pd.Series))
        else value
        for key, value in arguments.items()
    }
    assert CASES[name].figure(**shuffled).to_json() == CASES[name].figure(**arguments).to_json()


@every_figure
def test_an_odd_index_has_no_influence(name):
    """Rows cut out of larger tables bring gaps and repeats in their index."""
    arguments = CASES[name].arguments("plain")
    odd = {
        key: value.set_axis(np.zeros(len(value), dtype=int), axis=0)
        if isinstance(value, pd.DataFrame) and key != "residual"
        else value
        for key, value in arguments.items()
    }
    assert CASES[name].figure(**odd).to_json() == CASES[name].figure(**arguments).to_json()


@every_figure
def test_figures_survive_their_json(name):
    written = json.loads(draw(name).to_json())
    assert json.loads(go.Figure(written).to_json()) == written


# ---- text from users


@every_figure
def test_no_text_from_users_is_interpreted(name):
    figure = draw(name, NASTY)
    own_tags = ("<b>", "</b>", "<i>", "</i>", "<br>", "<extra></extra>", "</span>")
    found = 0
    for text in strings(json.loads(figure.to_json())):
        found += "onerror" in text
        rest = text
        for tag in own_tags:
            rest = rest.replace(tag, "")
        rest = rest.replace(f'<span style="font-size:17px;color:{theme.INK}">', "")
        rest = rest.replace('<span style="font-size:13px">', "")
        assert "<" not in rest
        assert "$" not in rest
        assert "<b>aac" not in text
        assert "%{y}'" not in text
        if "aac" in text:
            assert "& " not in text
    assert found


# ---- in a browser


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory) -> Iterator[Any]:
    """One page with every figure, given nasty text, and the network cut."""
    parts = [
        draw(name, NASTY).to_html(
            full_html=False, include_plotlyjs=False, div_id=name, config={"responsive": True}
        )
        for name in CASES
    ]
    path = tmp_path_factory.mktemp("page") / "figures.html"
    path.write_text(
        '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<style>body { margin: 0 }</style>"
        f"<script>{get_plotlyjs()}</script>{''.join(parts)}",
        encoding="utf-8",
    )
    context = browser.new_context(viewport={"width": 390, "height": 800}, offline=True)
    tab = context.new_page()
    tab.problems, tab.requests = [], []
    tab.on("console", lambda m: tab.problems.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda error: tab.problems.append(str(error)))
    tab.on("dialog", lambda dialog: (tab.problems.append("dialog"), dialog.dismiss()))
    tab.on("request", lambda request: tab.requests.append(request.url))
    tab.goto(path.as_uri())
    tab.wait_for_function(
        "n => document.querySelectorAll('.js-plotly-plot .main-svg').length >= n",
        arg=len(CASES),
    )
    tab.wait_for_timeout(500)
    yield tab
    context.close()


@pytest.mark.browser
def test_every_figure_is_drawn_without_an_error_or_a_request(page):
    assert page.problems == []
    assert [url for url in page.requests if not url.startswith(("file:", "blob:", "data:"))] == []
    drawn = page.evaluate(
        "() => [...document.querySelectorAll('.js-plotly-plot')].map(d => [d.id,"
        " d.querySelectorAll('path, rect, image, text').length])"
    )
    assert [name for name, _ in drawn] == list(CASES)
    assert min(count for _, count in drawn) > 10


@pytest.mark.browser
def test_nasty_text_is_read_letter_by_letter(page):
    titles = page.evaluate(
        "() => [...document.querySelectorAll('.js-plotly-plot')].map("
        "d => [d.id, d.querySelector('.gtitle').textContent])"
    )
    letters = "".join(NASTY.split())
    for name, title in titles:
        assert "".join(title.replace("\u200b", "").split()).startswith(letters), name
    assert page.evaluate("() => document.querySelectorAll('.js-plotly-plot img').length") == 0


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1200])
def test_figures_fit_the_page_at_their_height(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(800)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    sizes = page.evaluate(
        "() => Object.fromEntries([...document.querySelectorAll('.js-plotly-plot')].map(d =>"
        " [d.id, [d.querySelector('.main-svg').getBoundingClientRect().width,"
        " d.querySelector('.main-svg').getBoundingClientRect().height]]))"
    )
    for name in CASES:
        assert sizes[name] == [pytest.approx(width, abs=16), draw(name, NASTY).layout.height]
    assert page.problems == []

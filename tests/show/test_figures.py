"""What every figure promises: one look, one answer, text never interpreted, drawn offline."""

import ast
import copy
import html
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from genesplice.show import figures, theme

# A gene, contig, condition, model … that tries every door. Its text is what must be read.
NASTY = "<img src=x onerror=alert(1)><b>aac(6')</b> & $x$ %{y}"


class Case(NamedTuple):
    """A figure with realistic input. `name` goes wherever a user's text may go."""

    figure: Callable[..., go.Figure]
    arguments: Callable[[str], dict[str, Any]]


def _ids(n: int) -> list[str]:
    return [f"b{i:04d}" for i in range(n)]


def _genes(name: str, n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    start = np.sort(rng.choice(4_000_000, n, replace=False))
    return pd.DataFrame(
        {
            "gene_id": _ids(n),
            "name": name,
            "contig": name,
            "start": start,
            "end": start + rng.integers(100, 2000, n),
            "strand": rng.choice(["+", "-"], n),
        }
    )


def _expression_map(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    genes = _genes(name)
    ids = genes["gene_id"]
    return {
        "genes": genes,
        "level": pd.Series(rng.uniform(0, 14, 120), index=ids),
        "fold": pd.Series(rng.integers(0, 5, 120), index=ids),
        "title": name,
    }


def _fold_map(name: str) -> dict[str, Any]:
    edges = np.arange(21) * 100_000
    return {
        "blocks": pd.DataFrame(
            {
                "block": np.arange(20),
                "contig": name,
                "start": edges[:-1],
                "end": edges[1:],
                "fold": np.arange(20) * 3 % 5,
            }
        ),
        "title": name,
    }


def _ring(name: str) -> dict[str, Any]:
    return _fold_map(name) | {"is_circular": True}


def _heatmap(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    conditions = [f"{name}{i}" for i in range(12)]
    return {
        "residual": pd.DataFrame(rng.normal(size=(40, 12)), index=_ids(40), columns=conditions),
        "max_genes": 20,
        "names": pd.Series(name, index=_ids(40)),
        "title": name,
    }


def _curves(name: str) -> dict[str, Any]:
    steps = np.arange(1, 101)
    rows = [
        (step, metric, split, scale / step)
        for metric, scale in ((name, 2.0), ("learning_rate", 1e-3))
        for split in ("train", "val")
        for step in (steps if split == "train" else steps[9::10])
    ]
    return {"log": pd.DataFrame(rows, columns=["step", "metric", "split", "value"]), "title": name}


def _bars(name: str) -> dict[str, Any]:
    return {
        "metrics": pd.DataFrame(
            {
                "metric": name,
                "value": [0.6, 0.7, -0.1],
                "ci_low": [0.5, 0.65, None],
                "ci_high": [0.65, 0.72, None],
                "n": 3923,
                "model": [name, "ridge", "mean"],
                "split": "test",
                "fold": None,
                "seed": None,
            }
        ),
        "metric": name,
        "highlight": name,
        "title": name,
    }


def _scatter(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    observed = rng.uniform(0, 14, 150)
    return {
        "predictions": pd.DataFrame(
            {
                "gene_id": _ids(150),
                "name": name,
                "observed": observed,
                "predicted": observed + rng.normal(size=150),
                "fold": np.arange(150) % 5,
            }
        ),
        "title": name,
    }


def _profile(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(4)
    conditions = [f"{name}{i}" for i in range(20)]
    return {
        "observed": pd.Series(rng.normal(size=20), index=conditions),
        "predicted": pd.Series(rng.normal(size=20), index=conditions),
        "gene": name,
        "unit": name,
    }


def _embedding(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    return {
        "xy": pd.DataFrame(
            {
                "gene_id": _ids(90),
                "name": name,
                "x": rng.normal(size=90),
                "y": rng.normal(size=90),
                "group": [name, "two", None] * 30,
            }
        ),
        "axes": (name, "PC 2"),
        "title": name,
    }


def _leakage(name: str) -> dict[str, Any]:
    check = {"check": name, "value": 0.2, "unit": name, "threshold": name, "why": name}
    checks = [check | {"status": status} for status in ("green", "amber", "red")]
    return {"leakage": {"status": "red", "checks": checks}, "title": name}


def _logo(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(6)
    return {
        "attributions": rng.normal(size=(120, 4)).astype(np.float32),
        "tokens": rng.integers(0, 5, 120).astype(np.uint8),
        "start": -80,
        "gene": name,
        "gene_body": (0, 3000),
        "motifs": [(-60, -40, name, 9.0), (-45, -30, "RpoD", 7.5)],
        "unit": name,
        "title": name,
    }


def _genome_logo(name: str) -> dict[str, Any]:
    place = {"start": 240_000_000, "coordinates": "genome", "contig": name, "strand": "-"}
    logo = _logo(name) | place | {"tss": 240_000_100, "gene_body": (239_999_000, 240_000_101)}
    return logo | {"motifs": [(240_000_050, 240_000_070, name, 1.0)], "max_letters": 100}


def _completeness(name: str) -> dict[str, Any]:
    delta = pd.Series(np.linspace(0.001, 0.1, 15), index=_ids(15))
    names = pd.Series(name, index=_ids(15))
    return {"delta": delta, "relative": delta, "names": names, "title": name}


def _graph(name: str) -> dict[str, Any]:
    nodes = pd.DataFrame(
        {
            "id": [f"{name}{i}" for i in range(8)],
            "label": name,
            "kind": ["regulator"] * 3 + ["gene"] * 3 + ["pathway"] * 2,
            "value": np.arange(8.0),
        }
    )
    ends = [(0, 3), (0, 4), (1, 4), (2, 5), (3, 6), (5, 7)]
    edges = pd.DataFrame(
        {
            "source": [f"{name}{a}" for a, _ in ends],
            "target": [f"{name}{b}" for _, b in ends],
            "sign": [1, -1, 0, 1, 0, 0],
            "weight": [0.1, 0.9, 0.4, 0.6, 0.2, 0.3],
            "kind": ["regulates"] * 4 + ["member_of"] * 2,
        }
    )
    return {"nodes": nodes, "edges": edges, "value_name": name, "title": name}


def _distance(name: str) -> dict[str, Any]:
    distance = np.arange(-5000, 5000)
    return {"weights": np.exp(-abs(distance) / 800), "distance_bp": distance, "title": name}


def _dial(name: str) -> dict[str, Any]:
    context = [512, 2048, 8192] * 2
    return {
        "metrics": pd.DataFrame(
            {
                "context_bp": context,
                "value": [0.6, 0.62, 0.64, 0.6, 0.6, 0.6],
                "ci_low": 0.58,
                "ci_high": 0.66,
                "model": [name] * 3 + ["ablation"] * 3,
            }
        ),
        "metric": name,
        "title": name,
    }


def _range(name: str) -> dict[str, Any]:
    rates = np.geomspace(1e-5, 1.0, 30)
    curve = pd.DataFrame({"learning_rate": rates, "loss": 2.0, "smoothed": 1.9})
    return {"curve": curve, "low": 1e-4, "high": 1e-2, "title": name}


def _schedules(name: str) -> dict[str, Any]:
    steps = np.arange(20)
    parts = [
        pd.DataFrame({"schedule": schedule, "step": steps, "learning_rate": 0.1 / (steps + 1)})
        for schedule in (name, "constant")
    ]
    return {"rates": pd.concat(parts), "highlight": [name], "title": name}


def _influence(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(6)
    ids = _ids(24)
    table = pd.DataFrame(
        {
            "id": ids,
            "n_edges": rng.integers(1, 90, 24),
            "mean": rng.normal(0, 1, 24),
            "null_low": rng.uniform(-1, -0.5, 24),
            "null_high": rng.uniform(0.5, 1, 24),
            "p": rng.uniform(0, 1, 24),
        }
    )
    return {"table": table, "names": pd.Series(name, index=ids), "title": name}


def _slopes(name: str) -> dict[str, Any]:
    slope = {"metric": name, "slope": 0.01, "ci_low": -0.01, "ci_high": 0.03, "visible": 0.02}
    return {
        "slopes": [slope, slope | {"metric": "profile_r"}],
        "smallest_effect": 0.01,
        "title": name,
    }


def _arms(name: str) -> dict[str, Any]:
    arms = [
        {"name": f"{name}{bp}", "context_bp": bp, "is_reference": False}
        for bp in (512, 4096, 32_768)
    ]
    metrics = pd.DataFrame({"model": [arm["name"] for arm in arms], "value": [0.1, 0.2, 0.2]})
    metrics = metrics.assign(metric="level_r2", fold=None, ci_low=0.0, ci_high=0.3)
    return {"arms": arms, "metrics": metrics, "title": name}


def _doses(name: str) -> dict[str, Any]:
    shares = pd.DataFrame({"distance_bp": [0, 512, 4096], "share": [0.3, 0.8, 1.0]})
    return {"shares": shares, "title": name}


def _mass(name: str) -> dict[str, Any]:
    shares = {"gradient": [0.6, 0.3, 0.1], "perturbation": [0.5, 0.4, 0.1]}
    table = pd.DataFrame({"low_bp": [0, 0, 128], "high_bp": [0, 128, 256]} | shares)
    return {"mass": table, "title": name}


CASES = {
    "expression_map": Case(figures.expression_map, _expression_map),
    "fold_map": Case(figures.fold_map, _fold_map),
    "fold_ring": Case(figures.fold_map, _ring),
    "condition_heatmap": Case(figures.condition_heatmap, _heatmap),
    "learning_curves": Case(figures.learning_curves, _curves),
    "metric_bars": Case(figures.metric_bars, _bars),
    "predicted_observed": Case(figures.predicted_observed, _scatter),
    "profile": Case(figures.profile, _profile),
    "embedding_map": Case(figures.embedding_map, _embedding),
    "leakage_table": Case(figures.leakage_table, _leakage),
    "attribution_logo": Case(figures.attribution_logo, _logo),
    "attribution_bars": Case(figures.attribution_logo, _genome_logo),
    "completeness_bars": Case(figures.completeness_bars, _completeness),
    "pathway_graph": Case(figures.pathway_graph, _graph),
    "attention_by_distance": Case(figures.attention_by_distance, _distance),
    "context_dial": Case(figures.context_dial, _dial),
    "influence_bars": Case(figures.influence_bars, _influence),
    "rate_range": Case(figures.rate_range, _range),
    "rate_schedules": Case(figures.rate_schedules, _schedules),
    "slope_bars": Case(figures.slope_bars, _slopes),
    "context_arms": Case(figures.context_arms, _arms),
    "dose_figure": Case(figures.dose_figure, _doses),
    "mass_figure": Case(figures.mass_figure, _mass),
}


def draw(name: str, text: str = "plain") -> go.Figure:
    case = CASES[name]
    return case.figure(**case.arguments(text))


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
        if axis.visible is not False:
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
        if trace.type != "table":
            has_text = trace.hovertemplate or trace.hoverinfo in ("skip", "text", "name")
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


# ---- layers

FIGURE_MODULES = {
    "checks",
    "figures",
    "graphs",
    "levels",
    "loci",
    "logo",
    "points",
    "reach",
    "scores",
    "theme",
}


def test_figures_know_results_only():
    allowed = {"genesplice.errors", "genesplice.results", "genesplice.show"}
    for module in Path(figures.__file__).parent.glob("*.py"):
        if module.stem not in FIGURE_MODULES:
            continue
        for node in ast.walk(ast.parse(module.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            for imported in names:
                if imported.startswith("genesplice"):
                    assert any(imported.startswith(prefix) for prefix in allowed)
                assert not imported.startswith(("torch", "anndata", "lightning"))


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
        if name != "profile":  # its title begins with its own words
            assert "".join(title.replace("\u200b", "").split()).startswith(letters)
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


@pytest.mark.browser
def test_a_logo_has_its_letters_on_screen(page):
    box = page.evaluate(
        "() => { const b = document.querySelector('#attribution_logo .scatterlayer .fills path')"
        ".getBoundingClientRect(); return [b.width, b.height] }"
    )
    assert box[0] > 100
    assert box[1] > 50

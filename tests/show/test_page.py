"""A page without a notebook: closed, complete, and honest about what is not faithful."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from tiny_explorers import HOSTILE, make_explorers

from genesplice.results import Attribution
from genesplice.show.figures_explain import attribution_explorer, attribution_parts, lead_of
from genesplice.show.report import write_page


def attribution(gene_id, name, seed=0, offset=-700):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 5, 2048).astype(np.uint8)
    values = rng.normal(size=2048)
    total = float(values.sum())
    return Attribution(
        gene_id, name, "level", "m", "b", offset, tokens, values, 7.5, 7.5 - total, 0.0
    )


FOUND = [attribution("b1", "one", 1), attribution("b2", HOSTILE, 2, -650)]
CHECKS = pd.DataFrame(
    {
        "name": ["one", HOSTILE],
        "verdict": ["faithful", "not faithful: deletion is no better than at random"],
        "missing": [0.01, 0.02],
        "deletion_gain": [0.3, -0.1],
    },
    index=pd.Index(["b1", "b2"], name="gene_id"),
)
FRACTION = np.linspace(0, 1, 5)


def curve(shift):
    columns = ("deletion", "insertion", "random_deletion", "random_insertion")
    return pd.DataFrame(
        {"fraction": FRACTION} | {c: FRACTION + shift * i for i, c in enumerate(columns)}
    )


def test_a_page_has_every_part_once_and_nothing_runs_but_its_scripts(tmp_path):
    explorer = make_explorers()["network"]
    table = pd.DataFrame({"gene": [HOSTILE, "x"], "value": [0.123456, np.nan]})
    table["note"] = ["short", "why " * 15 + "."]
    figure = go.Figure(go.Scatter(y=[1, 2]))
    parts = ["## Part\n\nSome *text*.", explorer, figure, table]
    page = write_page(
        tmp_path / "page.html", HOSTILE, parts, facts=["a fact"], lead=["found"], footer="Tables."
    ).read_text()
    assert page.count('<figure class="plot"') == 2
    assert page.count('"explorer":{') == 1
    assert '<h2 id="part">Part</h2>' in page
    assert '<a href="#part">' in page
    assert "<em>text</em>" in page
    assert "<img src=x" not in page
    assert "<td>0.123</td>" in page
    assert "<td>–</td>" in page
    assert f'<td class=" long">{"why " * 15}.</td>' in page
    assert "Tables.</footer>" in page
    assert "index.html" not in page
    assert "<summary>Code</summary>" not in page
    assert "script-src &#39;sha256-" in page
    again = write_page(
        tmp_path / "again.html", HOSTILE, parts, facts=["a fact"], lead=["found"], footer="Tables."
    )
    assert again.read_text() == page


def test_what_is_not_faithful_is_stamped():
    explorer = attribution_explorer(FOUND, checks=CHECKS)
    good = explorer.figure_at(gene="one (b1)").layout.annotations
    bad = explorer.figure_at(gene=f"{HOSTILE} (b2)").layout.annotations
    assert good[1].text == ""
    assert bad[1].text.startswith("<b>NOT FAITHFUL</b><br>")
    assert "no better than at random" in bad[1].text
    assert "predicted level 7.50, faithful" in good[0].text
    assert "<img" not in bad[0].text
    unchecked = attribution_explorer(FOUND)
    assert unchecked.figure.layout.annotations[1].text == "<b>NOT CHECKED</b>"
    exact = attribution_explorer(FOUND, is_exact=True)
    assert exact.figure.layout.annotations[1].text == ""


def test_bars_stand_where_their_bases_are():
    explorer = attribution_explorer(FOUND, checks=CHECKS)
    figure = explorer.figure_at(gene=f"{HOSTILE} (b2)")
    values = dict(zip(figure.data[1].x, figure.data[1].y, strict=True))
    for position in (-512, -35, 0, 127):
        assert values[position] == pytest.approx(FOUND[1].values[650 + position], rel=1e-6)
        base = "ACGTN"[FOUND[1].tokens[650 + position]]
        assert figure.data[1].text[position + 512] == base


def test_parts_leave_out_what_was_not_measured():
    everything = attribution_parts(
        FOUND, checks=CHECKS, curves={"b1": curve(0.1), "b2": curve(0.2)}
    )
    assert sum(not isinstance(part, str) for part in everything) == 4
    bare = [one._replace(delta=float("nan"), output=float("nan")) for one in FOUND]
    assert sum(not isinstance(part, str) for part in attribution_parts(bare, is_exact=True)) == 1


def test_a_gene_without_a_change_to_add_up_to_is_left_out_of_the_figure_of_sums():
    flat = FOUND[1]._replace(baseline_output=FOUND[1].output)
    _, _, _, figure, *_ = attribution_parts([FOUND[0], flat])
    assert "1 of 1 genes" in figure.layout.title.text
    assert sum(not isinstance(part, str) for part in attribution_parts([flat])) == 1


def test_the_lead_counts_what_can_be_believed():
    assert lead_of(CHECKS, 2).startswith("1 of 2 attributions pass")
    assert lead_of(CHECKS.iloc[:1], 1).startswith("All 1 attributions pass")
    assert "none of them checked" in lead_of(None, 9)

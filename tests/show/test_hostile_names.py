"""Names that try to be markup or code are data: in a real browser nothing of them runs."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_browser import Visit
from test_cli import call
from tiny_explorers import SEQUENCES

from genesplice.results import Metric, metrics_frame
from genesplice.show.explorers import (
    AttributionExplorer,
    ContextExplorer,
    NetworkExplorer,
    ProfileExplorer,
    ScanExplorer,
    ScatterExplorer,
)
from genesplice.show.figures_genome import leakage_table
from genesplice.show.figures_model import metric_bars
from genesplice.show.report import write_page

pytestmark = pytest.mark.browser

RUN = "window.wasRun=1"
CORPUS = (
    f"<script>{RUN}</script>",
    f'"><img src=hostile onerror="{RUN}">',
    f"</script><script>{RUN}</script>",
    f"<svg onload={RUN}>",
    f"<!--><iframe srcdoc='<script>parent.{RUN}</script>'>",
    f"[name](javascript:{RUN})",
    f"<a href=javascript:{RUN}>b</a>",
    f"' onmouseover={RUN} x='",
    "__proto__",
    "constructor",
    "\u202eanirb\u2066",
    "two\nlines\tand\x07bell",
    "=cmd()",
    f"{{{{{RUN}}}}}{{% raw %}}",
    f"%{{x}}${RUN}$ ${{{RUN}}}",
    "&lt;b&gt;\\u003cscript\\u003e",
)
GENES = pd.Index(CORPUS)
NAMES = pd.Series(CORPUS[1:] + CORPUS[:1], index=GENES)
# What is in the document of their doing, or was left of an object that all others share.
TRACES = """() => [
  window.wasRun, Object.keys(Object.prototype).length,
  ...[...document.querySelectorAll("img[src=hostile], iframe, svg[onload]")]
    .map((e) => e.outerHTML),
  ...[...document.querySelectorAll("*")].flatMap((e) => [...e.attributes])
    .filter((a) => /^on/i.test(a.name) || /^\\s*javascript:/i.test(a.value))
    .map((a) => `${a.name}=${a.value}`),
]"""


def parts() -> list:
    """Every explorer, a table and figures, with the corpus for all that has a name."""
    n, rng = len(CORPUS), np.random.default_rng(0)
    observed = pd.DataFrame(rng.normal(8, 2, (n, n)), index=GENES, columns=CORPUS)
    points = pd.DataFrame(rng.normal(size=(n, 2)), index=GENES, columns=CORPUS[:2])
    groups = pd.DataFrame({CORPUS[3]: CORPUS, CORPUS[4]: np.arange(n)}, index=GENES)
    sites = pd.DataFrame(
        [(gene, -35, -29, other) for gene, other in zip(GENES, NAMES, strict=True)],
        columns=["gene_id", "start", "end", "name"],
    )
    few = GENES[:4]
    edges = pd.DataFrame(
        [(gene, GENES[0], 1, 0.5) for gene in GENES[1:]],
        columns=["source", "target", "sign", "weight"],
    )
    ratios = [
        (gene, at, "ACGT"[at % 4], *np.where(np.arange(4) == at % 4, 0.0, -1.0))
        for gene in GENES
        for at in range(-60, 20)
    ]
    scanned = pd.DataFrame(
        ratios, columns=["gene_id", "position_bp", "ref", "to_A", "to_C", "to_G", "to_T"]
    )
    scores = pd.DataFrame({"metric": ["level_r2"] * 2, "context_bp": [512, 4096]})
    scores = scores.assign(value=0.1, ci_low=0.0, ci_high=0.2)
    slopes = pd.DataFrame({"source": CORPUS}).assign(metric="level_r2", answer="no")
    slopes = slopes.assign(slope=0.0, ci_low=-0.01, ci_high=0.01)
    metrics = [Metric("level_r2", 0.1, 0.0, 0.2, 9, name, "test") for name in CORPUS]
    about = ("check", "sentence", "unit", "why")
    checks = [
        dict.fromkeys(about, name) | {"status": "red", "value": 1, "threshold": 0}
        for name in CORPUS
    ]
    return [
        f"## Data\n\n- `{CORPUS[0]}`",
        ProfileExplorer(observed, {CORPUS[0]: observed * 0.5}, names=NAMES),
        ScatterExplorer(points, groups, names=NAMES),
        AttributionExplorer(
            pd.DataFrame(rng.normal(size=(4, 100)), index=few, columns=np.arange(-80, 20)),
            SEQUENCES, names=NAMES, motifs=sites[sites["gene_id"].isin(few)],
            notes=pd.Series(CORPUS[4:8], index=few),
        ),
        NetworkExplorer(pd.DataFrame({"name": NAMES}), edges),
        ScanExplorer(scanned, sites, names=NAMES),
        ContextExplorer(scores, slopes, 0.01),
        metric_bars(metrics_frame(metrics), ["level_r2"], highlight=CORPUS[0], title=CORPUS[1]),
        pd.DataFrame({CORPUS[0]: CORPUS, CORPUS[1]: CORPUS[::-1]}),
        leakage_table({"status": "red", "checks": checks}),
    ]  # fmt: skip


def assert_untouched(browser, path: Path, n_figures: int) -> None:
    """Nothing of the names ran, with the page's policy and where somebody took it off."""
    whole = path.read_text(encoding="utf-8")
    policy = re.search(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", whole)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[0]
    bare = path.with_name("without-policy.html")
    bare.write_text(whole.replace(policy[0], ""), encoding="utf-8")
    for page in (path, bare):
        one = Visit(browser, page)
        one.draw_all()
        one.page.evaluate(ALL_CHOICES)
        for point in one.page.locator(".plot .main-svg").all()[:n_figures]:
            point.hover(force=True, trial=False)
        one.page.wait_for_timeout(200)
        wanted = [None, 0]
        assert one.page.evaluate(TRACES) == wanted
        assert one.page.evaluate("genesplice.figures.length") == n_figures
        one.check(page)
        one.context.close()


# Each option of each control of all figures, one after the other.
ALL_CHOICES = """() => {
  for (const figure of genesplice.figures)
    for (const { name, options } of figure.explorer.controls)
      for (let i = 0; i < options.length; i++) figure.set(name, i);
}"""


def test_of_hostile_names_nothing_runs_in_a_report(browser, tmp_path):
    page = write_page(
        tmp_path / "page.html", CORPUS[0], parts(), facts=CORPUS, lead=CORPUS, footer=CORPUS[1]
    )
    assert_untouched(browser, page, 8)


def test_of_a_hostile_table_nothing_runs_in_the_report_of_a_task(browser, tmp_path):
    rng = np.random.default_rng(0)
    plain = [name for name in CORPUS if name.isprintable()]
    rows = [
        (f"{plain[i % len(plain)]}{i}", "".join(rng.choice(list("ACGT"), 40)), plain[i % 4])
        for i in range(80)
    ]
    folder = tmp_path / "<img src=hostile onerror=window.wasRun=1>"
    folder.mkdir()
    table = folder / "'><svg onload=window.wasRun=1>.tsv"
    named = pd.DataFrame(rows, columns=["id", "sequence", f"<script>{RUN}</script>"])
    named.to_csv(table, sep="\t", index=False)
    words = ["--value", f"<script>{RUN}</script>", "--folds", "2", "--kind", "class"]
    answer = call("task", "--table", table, "--out", tmp_path / "out", *words)
    assert answer.code == 0, answer.err
    assert_untouched(browser, tmp_path / "out" / "index.html", 2)

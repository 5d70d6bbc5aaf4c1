"""Names that try to be markup or code are data: in a real browser nothing of them runs."""

import io
import re
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from command_line import call, succeed
from test_browser import Visit
from test_cli import SMALL
from tiny_explorers import SEQUENCES
from tiny_notebooks import PARAMETERS, code, md, write_notebook

from genesplice.context.verdict import SAID, VerdictReport, write_verdict_page
from genesplice.data.bundle import load_bundle
from genesplice.data.gene_sets import write_gmt
from genesplice.data.simulate import make_own_files
from genesplice.results import Metric, metrics_frame
from genesplice.show.execution import Progress
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
from genesplice.show.runner import run_notebooks

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
PLAIN = [name for name in CORPUS if name.isprintable()]
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
    rows = [
        (f"{PLAIN[i % len(PLAIN)]}{i}", "".join(rng.choice(list("ACGT"), 40)), PLAIN[i % 4])
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


def verdict_report() -> VerdictReport:
    """What a verdict writes, with the corpus for all that has a name."""
    interval = {"ci_low": -0.01, "ci_high": 0.01}
    slope = interval | {"metric": "level_r2", "slope": 0.0, "minimum_detectable": 0.02}
    made = {"when": CORPUS[0], "processor": CORPUS[1], "system": CORPUS[2]}
    made |= {"versions": dict.fromkeys(SAID, CORPUS[3])}
    controls = [
        dict.fromkeys(("control", "expected", "answer", "sentence"), name) | {"made": made}
        for name in CORPUS
    ]
    conditions = [
        {"name": name, "context_bp": 512 + at, "is_reference": False, "is_excluded": False,
         "reason": name if at > 2 else None}
        for at, name in enumerate(CORPUS)
    ]  # fmt: skip
    rule = {"smallest_effect": 0.02, "alpha": 0.05, "power": 0.8, "n_runs": 2}
    verdict = {
        "answer": CORPUS[0], "sentence": CORPUS[1], "slopes": [slope], "conditions": conditions,
        "rule": rule | {"counts_shared_variance": False}, "failures": NAMES.to_dict(),
        "disagreements": CORPUS, "cpu_seconds": 1.0,
        "controls": {"controls": controls, "reused": CORPUS[:3], "smallest_effect": 0.02,
                     "element_distance_bp": [1024, 3312]},
    }  # fmt: skip
    metrics = [Metric("level_r2", 0.1, 0.0, 0.2, 9, name, "test", None, 0) for name in CORPUS]
    doses = [(name, at, 8.0 + i, 7.0 + i) for i, name in enumerate(CORPUS) for at in (0, 1024)]
    dose = pd.DataFrame(doses, columns=["gene_id", "distance_bp", "level", "full"])
    mass = {"high_bp": [0, 128], "gradient": [0.75, 0.25], "perturbation": [0.5, 0.5]}
    return VerdictReport(verdict, metrics, pd.DataFrame(), dose, pd.DataFrame(mass))


def test_of_hostile_names_nothing_runs_in_the_report_of_a_verdict(browser, tmp_path):
    columns = ("hypothesis", "metric", "model", "ablation", "answer")
    rows = [
        dict.fromkeys(columns, name)
        | {"effect": 0.1, "ci_low": 0.0, "ci_high": 0.2, "n_runs": 1, "seeds": 1, "cpu_seconds": 1}
        for name in CORPUS
    ]
    page = tmp_path / "verdict.html"
    write_verdict_page(page, verdict_report(), pd.DataFrame(rows), CORPUS[0])
    assert_untouched(browser, page, 4)


@pytest.fixture(scope="module")
def organism(tmp_path_factory) -> tuple[Path, Path]:
    """Data and a model of an organism whose genes, conditions and gene sets are called so."""
    folder = tmp_path_factory.mktemp("organism")
    make_own_files(folder, n_sequences=2)
    bundle = load_bundle(folder / "made_up")
    ids, expression = bundle.genes["gene_id"], bundle.expression
    called = {one: f"{PLAIN[at % len(PLAIN)]}{at}" for at, one in enumerate(ids)}
    annotation = folder / "genes.gff3"
    strange = re.sub(
        r"ID=(\w+);Name=(\w+)",
        lambda found: "ID={0};Name={0}".format(quote(called[found[1]])),
        annotation.read_text(),
    )
    annotation.write_text(strange)
    tpm = pd.read_csv(folder / "tpm.tsv", sep="\t", index_col=0).rename(index=called)
    tpm.to_csv(folder / "tpm.tsv", sep="\t")
    conditions = dict(zip(expression.obs["condition"].unique(), PLAIN, strict=False))
    samples = pd.read_csv(folder / "samples.tsv", sep="\t").replace({"condition": conditions})
    samples.to_csv(folder / "samples.tsv", sep="\t", index=False)
    edges = bundle.network[["source", "target", "sign"]].replace(called)
    edges.to_csv(folder / "edges.tsv", sep="\t", index=False)
    sets = zip(PLAIN, bundle.gene_sets.values(), strict=False)
    named = {f"KEGG:{name}": [called[one] for one in genes] for name, genes in sets}
    write_gmt(folder / "sets.gmt", named)
    words = ["--expression-unit", "tpm", "--block-bp", "8000", "--name", CORPUS[0]]
    kinds = {"fasta": "genome.fa", "annotation": "genes.gff3", "expression": "tpm.tsv",
             "samples": "samples.tsv", "network": "edges.tsv", "gene-sets": "sets.gmt"}  # fmt: skip
    words += [word for kind, name in kinds.items() for word in (f"--{kind}", folder / name)]
    data, model = folder / "data", folder / CORPUS[3] / "model"
    succeed("prepare", *words, "--out", data)
    assert set(load_bundle(data).genes["gene_id"]) == set(called.values())
    succeed("finetune", "--data", data, *SMALL, "--out", model)
    return data, model


def test_of_hostile_genes_nothing_runs_in_what_explains_them(browser, organism, tmp_path):
    data, model = organism
    words = ["--genes", ",".join(load_bundle(data).test_genes(0)[:2])]
    words += ["--condition", CORPUS[0], "--steps", "2", "--window", "2048"]
    succeed("explain", "--data", data, "--model", model, *words, "--out", tmp_path / "out")
    assert_untouched(browser, tmp_path / "out" / "index.html", 3)


CELLS = (
    "import genesplice as gs\nbundle = gs.load_bundle(data_dir)\nmodel = gs.load_model(folder)\n"
    "explainer = gs.Explainer(model, bundle, window_bp=2048)\nnames = bundle.names\n"
    "chosen = bundle.test_genes(0)[:3]\nprint(*names)",
    "bundle.genes",
    "gs.explorers.ProfileExplorer(bundle.observed, {}, names=names)",
    "tables = gs.attention_of(explainer, chosen)\n"
    "gs.explorers.AttentionExplorer(*tables[:2], heads=tables.heads, names=names)",
    "sets = gs.pathway_influence(explainer, chosen, 'pathway', steps=2, n_random=2)\n"
    "gs.figures.influence_bars(sets)",
    "nodes, edges, missing = gs.edge_attributions(explainer, chosen)\n"
    "gs.explorers.NetworkExplorer(nodes, edges)",
    "path = gs.path_of_change(explainer, chosen[0])\n"
    "gs.figures.change_path(path.table, path.name, missing=path.delta)",
    "gs.Headline(' '.join(names))",
)


def test_of_hostile_genes_nothing_runs_in_the_report_of_a_run(browser, organism, tmp_path):
    data, model = organism
    notebook = tmp_path / "notebooks" / "01_names.ipynb"
    typed = f'{PARAMETERS}\ndata_dir: str = ""\nfolder: str = ""\nnote: str = ""'
    write_notebook(notebook, md("# Names"), code(typed, "parameters"), *map(code, CELLS))
    given = {"data_dir": str(data), "folder": str(model / "fold0_seed0"), "note": CORPUS[2]}
    progress = Progress(io.StringIO())
    found = run_notebooks(notebook.parent, tmp_path / "out", parameters=given, progress=progress)
    assert found.failures == ()
    assert_untouched(browser, tmp_path / "out" / "01_names.html", 5)

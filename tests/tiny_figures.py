"""Every public figure with a small input, and helpers that read back what a figure draws."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.show import figures


def trace(figure: go.Figure, name: str, kind: str = "") -> Any:
    """The one trace of a name (and type)."""
    (found,) = [t for t in figure.data if t.name == name and kind in ("", t.type)]
    return found


def polygons(one: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split a trace at its gaps."""
    x, y = np.asarray(one.x, float), np.asarray(one.y, float)
    ends = np.flatnonzero(np.isnan(x))
    starts = [0, *(ends[:-1] + 1)] if len(ends) else []
    return [(x[a:b], y[a:b]) for a, b in zip(starts, ends, strict=True)]


def row_labels(figure: go.Figure, axis: str = "yaxis") -> dict[float, str]:
    """Text of each row of an axis, from the top."""
    one = figure.layout[axis]
    assert one.range is None or one.range[0] > one.range[1]
    return dict(zip(one.tickvals, one.ticktext, strict=True))


class Case(NamedTuple):
    """A figure with realistic input. `name` goes wherever a user's text may go."""

    figure: Callable[..., go.Figure]
    arguments: Callable[[str], dict[str, Any]]


def ids(n: int) -> list[str]:
    return [f"b{i:04d}" for i in range(n)]


def _expression_map(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    start = np.sort(rng.choice(4_000_000, 120, replace=False))
    genes = pd.DataFrame({"gene_id": ids(120), "name": name, "contig": name, "start": start})
    genes["end"] = start + rng.integers(100, 2000, 120)
    genes["strand"] = rng.choice(["+", "-"], 120)
    level = pd.Series(rng.uniform(0, 14, 120), index=ids(120))
    fold = pd.Series(rng.integers(0, 5, 120), index=ids(120))
    return {"genes": genes, "level": level, "fold": fold, "title": name}


def _relatives(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    rows = [
        pd.DataFrame({"start": np.arange(40) * 1_000, "aligned": rng.uniform(0, 1, 40)}).assign(
            name=who, identity=rng.uniform(0.6, 0.95, 40)
        )
        for who in (name, "middle", "far")
    ]
    return {"windows": pd.concat(rows, ignore_index=True), "title": name}


def _fold_map(name: str) -> dict[str, Any]:
    edges = np.arange(21) * 100_000
    blocks = {"block": np.arange(20), "contig": name, "start": edges[:-1], "end": edges[1:]}
    return {"blocks": pd.DataFrame(blocks | {"fold": np.arange(20) * 3 % 5}), "title": name}


def _heatmap(name: str) -> dict[str, Any]:
    conditions = [f"{name}{i}" for i in range(12)]
    values = np.random.default_rng(2).normal(size=(40, 12))
    residual = pd.DataFrame(values, index=ids(40), columns=conditions)
    return {"residual": residual, "max_genes": 20, "names": pd.Series(name, ids(40)), "title": name}


def _path(name: str) -> dict[str, Any]:
    parts = ["embedding", "kernel", "regulator", "effector", *["pathway"] * 8]
    values = np.random.default_rng(5).normal(0, 0.1, len(parts))
    table = pd.DataFrame({"part": parts, "name": name, "value": values})
    return {"table": table, "change": name, "missing": 0.01, "title": name}


def _curves(name: str) -> dict[str, Any]:
    rows = [
        (step, metric, split, scale / step)
        for metric, scale in ((name, 2.0), ("learning_rate", 1e-3))
        for split, every in (("train", 1), ("val", 10))
        for step in range(every, 101, every)
    ]
    return {"log": pd.DataFrame(rows, columns=["step", "metric", "split", "value"]), "title": name}


def _bars(name: str) -> dict[str, Any]:
    table = pd.DataFrame({"value": [0.6, 0.7, -0.1], "ci_low": [0.5, 0.65, None]})
    table = table.assign(ci_high=[0.65, 0.72, None], metric=name, n=3923, model=[name, "r", "m"])
    table = table.assign(split="test", fold=None, seed=None)
    return {"metrics": table, "metric": name, "highlight": name, "title": name}


def _classes(name: str) -> dict[str, Any]:
    table = pd.DataFrame({"metric": ["auroc_start", "auroc_stop", "auroc_start"]})
    table = table.assign(model=["genesplice", "genesplice", name], value=[0.6, 0.7, 0.4])
    return {
        "metrics": table.assign(ci_low=[0.5, None, 0.3], ci_high=[0.65, None, 0.5]),
        "title": name,
    }


def _scatter(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"gene_id": ids(150), "name": name, "observed": rng.uniform(0, 14, 150)})
    table["predicted"] = table["observed"] + rng.normal(size=150)
    return {"predictions": table.assign(fold=np.arange(150) % 5), "title": name}


def _leakage(name: str) -> dict[str, Any]:
    check = {"check": name, "value": 0.2, "unit": name, "threshold": name, "why": name}
    checks = [check | {"status": status} for status in ("green", "amber", "red")]
    return {"leakage": {"status": "red", "checks": checks}, "title": name}


def _parts(name: str) -> dict[str, Any]:
    values = np.random.default_rng(8).normal(size=(9, 4))
    table = pd.DataFrame(values, columns=["sequence", "near", "middle", "far"])
    table = table.assign(change=values.sum(1), gene_id=ids(9))
    return {"table": table, "names": pd.Series(name, ids(9)), "title": name}


def _completeness(name: str) -> dict[str, Any]:
    delta = pd.Series(np.linspace(0.001, 0.1, 15), index=ids(15))
    names = pd.Series(name, index=ids(15))
    return {"delta": delta, "relative": delta, "names": names, "title": name}


def _graph(name: str) -> dict[str, Any]:
    kinds = ["regulator"] * 3 + ["gene"] * 3 + ["pathway"] * 2
    nodes = pd.DataFrame({"id": [f"{name}{i}" for i in range(8)], "label": name, "kind": kinds})
    ends = [(0, 3), (0, 4), (1, 4), (2, 5), (3, 6), (5, 7)]
    edges = pd.DataFrame([(f"{name}{a}", f"{name}{b}") for a, b in ends])
    edges = edges.set_axis(["source", "target"], axis=1).assign(sign=[1, -1, 0, 1, 0, 0])
    edges["weight"], edges["kind"] = np.arange(6) / 6, ["regulates"] * 4 + ["member_of"] * 2
    nodes["value"] = np.arange(8.0)
    return {"nodes": nodes, "edges": edges, "value_name": name, "title": name}


def _context(name: str) -> dict[str, Any]:
    table = pd.DataFrame({"context_bp": [512, 2048, 8192] * 2, "ci_low": 0.58, "ci_high": 0.66})
    table = table.assign(value=[0.6, 0.62, 0.64] * 2, model=[name] * 3 + ["ablation"] * 3)
    return {"metrics": table, "metric": name, "title": name}


def _sizes(name: str) -> dict[str, Any]:
    given = _context(name)
    return given | {"metrics": given["metrics"].rename(columns={"context_bp": "n"})}


def _range(name: str) -> dict[str, Any]:
    rates = np.geomspace(1e-5, 1.0, 30)
    curve = pd.DataFrame({"learning_rate": rates, "loss": 2.0, "smoothed": 1.9})
    return {"curve": curve, "low": 1e-4, "high": 1e-2, "title": name}


def _schedules(name: str) -> dict[str, Any]:
    rows = [(one, step, 0.1 / (step + 1)) for one in (name, "constant") for step in range(20)]
    rates = pd.DataFrame(rows, columns=["schedule", "step", "learning_rate"])
    return {"rates": rates, "highlight": [name], "title": name}


def _influence(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(6)
    table = pd.DataFrame({"id": ids(24), "n_edges": rng.integers(1, 90, 24)})
    table = table.assign(mean=rng.normal(0, 1, 24), null_low=-0.7, null_high=0.7, p=0.5)
    return {"table": table, "names": pd.Series(name, index=ids(24)), "title": name}


def _slopes(name: str) -> dict[str, Any]:
    slope = {
        "metric": name,
        "slope": 0.01,
        "ci_low": -0.01,
        "ci_high": 0.03,
        "minimum_detectable": 0.02,
    }
    slopes = [slope, slope | {"metric": "profile_r"}]
    return {"slopes": slopes, "smallest_effect": 0.01, "title": name}


def _arms(name: str) -> dict[str, Any]:
    conditions = [
        {"name": f"{name}{bp}", "context_bp": bp, "is_reference": False}
        for bp in (512, 4096, 32_768)
    ]
    metrics = pd.DataFrame(
        {"model": [condition["name"] for condition in conditions], "value": [0.1, 0.2, 0.2]}
    )
    metrics = metrics.assign(metric="level_r2", fold=None, ci_low=0.0, ci_high=0.3)
    return {"conditions": conditions, "metrics": metrics, "title": name}


def _doses(name: str) -> dict[str, Any]:
    shares = pd.DataFrame({"distance_bp": [0, 512, 4096], "share": [0.3, 0.8, 1.0]})
    return {"shares": shares, "title": name}


def _mass(name: str) -> dict[str, Any]:
    shares = {"gradient": [0.6, 0.3, 0.1], "perturbation": [0.5, 0.4, 0.1]}
    table = pd.DataFrame({"low_bp": [0, 0, 128], "high_bp": [0, 128, 256]} | shares)
    return {"mass": table, "title": name}


CASES = {
    "expression_map": Case(figures.expression_map, _expression_map),
    "relatives_map": Case(figures.relatives_map, _relatives),
    "fold_map": Case(figures.fold_map, _fold_map),
    "fold_ring": Case(figures.fold_map, lambda name: _fold_map(name) | {"is_circular": True}),
    "condition_heatmap": Case(figures.condition_heatmap, _heatmap),
    "learning_curves": Case(figures.learning_curves, _curves),
    "metric_bars": Case(figures.metric_bars, _bars),
    "class_scores": Case(figures.class_scores, _classes),
    "predicted_observed": Case(figures.predicted_observed, _scatter),
    "leakage_table": Case(figures.leakage_table, _leakage),
    "part_bars": Case(figures.part_bars, _parts),
    "completeness_bars": Case(figures.completeness_bars, _completeness),
    "pathway_graph": Case(figures.pathway_graph, _graph),
    "context_curve": Case(figures.context_curve, _context),
    "influence_bars": Case(figures.influence_bars, _influence),
    "change_path": Case(figures.change_path, _path),
    "rate_range": Case(figures.rate_range, _range),
    "rate_schedules": Case(figures.rate_schedules, _schedules),
    "sample_curve": Case(figures.sample_curve, _sizes),
    "slope_bars": Case(figures.slope_bars, _slopes),
    "context_scores": Case(figures.context_scores, _arms),
    "dose_figure": Case(figures.dose_figure, _doses),
    "mass_figure": Case(figures.mass_figure, _mass),
}


def draw(name: str, text: str = "plain") -> go.Figure:
    case = CASES[name]
    return case.figure(**case.arguments(text))

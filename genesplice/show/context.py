"""The context verdict as figures and as one offline page: the answer, then the evidence."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from genesplice.errors import InputError
from genesplice.show.figures_model import context_curve
from genesplice.show.theme import BLUE, COLOURS, GREY, INK, blank_figure, require_table, safe, short

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1f24; background: #fff }
.answer { font-size: 1.25rem; border-left: .4rem solid #0072B2; padding: .5rem 1rem }
.warning { border-left: .4rem solid #D55E00; padding: .25rem 1rem }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #d8dee4 }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
"""
COST = "cpu_seconds"
# On the row itself: the notebook's report has no style sheet of ours for it.
GREYED = ' class=excluded style="color: #767676; background-color: #f4f4f4"'


def slope_bars(
    slopes: Sequence[Mapping[str, Any]],
    smallest_effect: float,
    *,
    title: str = "Change per doubling of context",
) -> go.Figure:
    """Draw each metric's slope with its limits, beside 0 and the smallest smallest_effect change.

    An interval wholly left of the dotted line is a no; one wholly right of 0 that reaches the
    dotted line is a yes.

    Raises
    ------
    InputError
        Without slopes, or with missing fields.
    """
    table = pd.DataFrame([dict(slope) for slope in slopes])
    require_table(table, "slopes", ("metric", "slope", "ci_low", "ci_high", "visible"))
    names = [short(name, 30).replace("_", " ") for name in table["metric"]]
    figure = blank_figure(
        170 + 46 * len(table), title, "limits of the rule; dotted: smallest_effect"
    )
    figure.add_scatter(
        x=table["slope"].to_numpy(np.float64),
        y=names,
        mode="markers",
        marker={"size": 10, "color": BLUE},
        error_x={
            "array": (table["ci_high"] - table["slope"]).to_numpy(np.float64),
            "arrayminus": (table["slope"] - table["ci_low"]).to_numpy(np.float64),
        },
        customdata=table[["ci_low", "ci_high", "visible"]].to_numpy(np.float64),
        hovertemplate="%{y}: %{x:+.4f} [%{customdata[0]:+.4f}, %{customdata[1]:+.4f}]<br>"
        "could have been seen: %{customdata[2]:.4f}<extra></extra>",
        showlegend=False,
    )
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    figure.add_vline(x=smallest_effect, line={"color": INK, "width": 1, "dash": "dot"})
    figure.update_xaxes(title={"text": "change per doubling"})
    figure.update_yaxes(type="category")
    return figure


def context_arms(
    arms: Sequence[Mapping[str, Any]],
    metrics: pd.DataFrame,
    metric: str = "level_r2",
    *,
    title: str = "Score against context",
) -> go.Figure:
    """Draw the arms' score over all held-out genes against their context (mean over seeds).

    Raises
    ------
    InputError
        If no arm has a record of the metric.
    """
    context = {arm["name"]: arm["context_bp"] for arm in arms if not arm["is_reference"]}
    rows = metrics[
        metrics["model"].isin(context) & (metrics["metric"] == metric) & metrics["fold"].isna()
    ]
    if rows.empty:
        raise InputError(f"no record of {metric} for any arm", "at least one")
    mean = rows.groupby("model")[["value", "ci_low", "ci_high"]].mean().reset_index()
    mean["context_bp"] = mean["model"].map(context)
    return context_curve(mean.drop(columns="model"), metric=metric, title=title)


def dose_figure(
    shares: pd.DataFrame, *, title: str = "Everything beyond a distance shuffled"
) -> go.Figure:
    """Draw what is left of the prediction once everything further than a distance is shuffled.

    A model that reads the gene's surroundings only is at 1 from the left on; one that depends on
    distal sequence climbs to 1 where that lies.

    Raises
    ------
    InputError
        Missing columns distance_bp and share, or no rows.
    """
    require_table(shares, "shares", ("distance_bp", "share"))
    shares = shares.sort_values("distance_bp")
    figure = blank_figure(320, title, "share that is left")
    figure.add_scatter(
        x=[f"{distance:,}" for distance in shares["distance_bp"]],
        y=shares["share"].to_numpy(np.float64),
        mode="lines+markers",
        line={"color": BLUE, "width": 2},
        hovertemplate="beyond %{x} bp shuffled: %{y:.1%} left<extra></extra>",
        showlegend=False,
    )
    figure.update_xaxes(title={"text": "kept around the gene (bp)"}, type="category")
    figure.update_yaxes(title={"text": "share left"}, tickformat=".0%", range=[-0.02, 1.05])
    return figure


def mass_figure(mass: pd.DataFrame, *, title: str = "Where the evidence lies") -> go.Figure:
    """Draw the cumulated share of gradient and of perturbation against distance.

    Raises
    ------
    InputError
        Missing columns high_bp, gradient and perturbation, or no rows.
    """
    require_table(mass, "mass", ("high_bp", "gradient", "perturbation"))
    mass = mass.sort_values("high_bp")
    figure = blank_figure(340, title, "dotted: 90 %")
    for i, name in enumerate(("gradient", "perturbation")):
        figure.add_scatter(
            name=name,
            x=["gene", *(f"{high:,}" for high in mass["high_bp"].iloc[1:])],
            y=mass[name].cumsum().to_numpy(np.float64),
            mode="lines+markers",
            line={"color": COLOURS[i], "width": 2},
            hovertemplate=f"{safe(name)} within %{{x}} bp: %{{y:.1%}}<extra></extra>",
        )
    figure.add_hline(y=0.9, line={"color": INK, "width": 1, "dash": "dot"})
    figure.update_xaxes(title={"text": "within (bp of the gene)"}, type="category")
    figure.update_yaxes(title={"text": "share"}, tickformat=".0%", range=[0, 1.05])
    return figure


def render_verdict(
    verdict: Mapping[str, Any],
    metrics: pd.DataFrame,
    shares: pd.DataFrame | None = None,
    mass: pd.DataFrame | None = None,
    ablations: pd.DataFrame | None = None,
    *,
    name: str = "",
) -> str:
    """One self-contained HTML page.

    Parameters
    ----------
    verdict
        What `verdict.json` holds.
    metrics
        Records of metrics.json; may be empty.
    shares, mass
        Of the second and third instrument, where they were used.
    ablations
        The table of `genesplice.evaluate.ablations.ablation_table`, where it was made.
    """
    parts = [
        f"<h1>Does longer context help{f' on {html.escape(name)}' if name else ''}?</h1>",
        f"<p class=answer><strong>{html.escape(str(verdict['answer']))}.</strong> "
        f"{html.escape(str(verdict['sentence']))}</p>",
    ]
    parts += [f"<p class=warning>{html.escape(text)}</p>" for text in verdict["disagreements"]]
    parts += [
        f"<p class=warning>Task {html.escape(task)} {html.escape(str(why))}</p>"
        for task, why in verdict["failures"].items()
    ]
    figures = []
    if verdict["slopes"]:
        figures.append(slope_bars(verdict["slopes"], verdict["rule"]["smallest_effect"]))
        figures.append(context_arms(verdict["arms"], metrics))
    if shares is not None and len(shares):
        figures.append(dose_figure(shares))
    if mass is not None and len(mass):
        figures.append(mass_figure(mass))
    drawn = [
        figure.to_html(
            full_html=False, include_plotlyjs=False, div_id=f"figure{i}",
            config={"responsive": True},
        )
        for i, figure in enumerate(figures)
    ]  # fmt: skip
    parts += ["<h2>Arms</h2>", arms_table(verdict, metrics)]
    parts += ["<h2>Can the ruler say yes and no?</h2>", controls_table(verdict["controls"])]
    if ablations is not None:
        parts += ["<h2>Hypotheses and their ablations</h2>", ablation_rows(ablations)]
    rule = verdict["rule"]
    parts.append(
        f"<p>Rule, agreed on before: {rule['smallest_effect']:g} per doubling matters, "
        f"alpha {rule['alpha']:g}, power {rule['power']:g}. {_luck_sentence(rule)} "
        f"Cost: {verdict['cpu_seconds']:.0f} s of CPU.</p>"
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:">
<title>Context verdict</title><style>{STYLE}</style>
<script>{get_plotlyjs()}</script>
{"".join(parts[:2])}{"".join(drawn)}{"".join(parts[2:])}</html>
"""


def arms_table(verdict: Mapping[str, Any], metrics: pd.DataFrame) -> str:
    """HTML: every arm with its input length and scores; what does not count is grey."""
    rows = []
    for arm in verdict["arms"]:
        row = {
            "arm": arm["name"],
            "input length (bp)": f"{arm['context_bp']:,}",
            "counts": "no: shorter than the context under test"
            if arm["is_excluded"]
            else "no: other architecture"
            if arm["is_reference"]
            else "yes",
        }
        if len(metrics):
            own = metrics[(metrics["model"] == arm["name"]) & metrics["fold"].isna()]
            row |= own.groupby("metric")["value"].mean().to_dict()
        rows.append(row)
    return _table(pd.DataFrame(rows), [bool(arm["is_excluded"]) for arm in verdict["arms"]])


def ablation_rows(ablations: pd.DataFrame) -> str:
    """HTML: each hypothesis with its answer first; grey is what was not run.

    `ablations` is the table of `genesplice.evaluate.ablations.ablation_table`.
    """
    wanted = (
        "hypothesis",
        "metric",
        "ablation",
        "effect",
        "ci_low",
        "ci_high",
        "n_runs",
        "answer",
        COST,
    )
    require_table(ablations, "ablations", wanted)
    rows = [
        {
            "hypothesis": row.hypothesis,
            "answer": row.answer,
            "ablation": str(row.ablation).removeprefix("genesplice_").replace("_", " "),
            "metric": row.metric,
            "effect": f"{row.effect:+.4f}" if row.n_runs else None,
            "95 % interval": _interval(row.ci_low, row.ci_high),
            "runs": f"{row.n_runs}" if row.n_runs else None,
            "CPU (s)": None if pd.isna(row.cpu_seconds) else f"{row.cpu_seconds:,.0f}",
        }
        for row in ablations.itertuples()
    ]
    return _table(pd.DataFrame(rows), (ablations["n_runs"] == 0).tolist())


def _interval(low: float | None, high: float | None) -> str | None:
    return None if pd.isna(low) or pd.isna(high) else f"{low:+.4f} to {high:+.4f}"


def _luck_sentence(rule: Mapping[str, Any]) -> str:
    if rule["counts_shared_luck"]:
        return f"Runs of each context: {rule['n_runs']}."
    return (
        f"Runs of each context: {rule['n_runs']}. With fewer than five the luck of training is "
        "taken to be each arm's own; where neighbouring contexts share it, a wrong yes or no is "
        "more likely than alpha."
    )


def controls_table(controls: Mapping[str, Any]) -> str:
    """HTML: what each simulated control must come out as, and did, and what that says nothing of."""
    rows = [
        {"what decides": w["control"], "must be": w["expected"], "is": w["answer"],
         "because": w["sentence"]}
        for w in controls["controls"]
    ]  # fmt: skip
    low, high = controls["element_distance_bp"]
    return _table(pd.DataFrame(rows)) + (
        f"<p>In controls {controls['smallest_effect']:g} per doubling matters. The planted distal element "
        f"lies {low:,} to {high:,} bp from its genes: that a model finds what acts from further "
        "away is not shown.</p>"
    )


def _table(table: pd.DataFrame, is_excluded: Sequence[bool] = ()) -> str:
    heads = "".join(f"<th>{html.escape(str(column))}" for column in table.columns)
    lines = []
    for i, row in enumerate(table.itertuples(index=False)):
        cells = []
        for value in row:
            if isinstance(value, float | np.floating):
                cells.append(f"<td class=number>{'' if np.isnan(value) else f'{value:.4g}'}")
            else:
                cells.append(f"<td>{'' if value is None else html.escape(str(value))}")
        grey = GREYED if i < len(is_excluded) and is_excluded[i] else ""
        lines.append(f"<tr{grey}>{''.join(cells)}")
    body = "".join(lines)
    return f'<div class="wide"><table><thead><tr>{heads}<tbody>{body}</table></div>'

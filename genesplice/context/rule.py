"""The rule of the context verdict, as pure functions of a table of scores.

A table has one row for each metric, context condition (`model`), fold, seed and genome block: the
block's mean score over its genes and their number. All conditions are scored on the same blocks.

The effect is the change of a metric per doubling of context: the slope of a least-squares line
over log2 of the conditions' context. Two things make it uncertain, and both count:

- **which genes were held out**: blocks are resampled, the same draw for all conditions (paired);
- **how training went**: the residuals of the conditions' scores once the condition's and the
  fold's (or seed's) own means are taken off; with a single run of each condition, those of the
  straight line.

All conditions of a run start from the same weights and see the same windows, so that neighbouring
contexts may share seed variance, which residuals of single conditions do not show. With five runs
or more the spread of their slopes is the error where its limits are wider; with fewer, seed
variance is taken to be each condition's own.

With seeds of one fold the two are added: each seed meets the same genes. With several folds the
residuals hold both, and the larger estimate counts. A sum has the smaller of the two degrees of
freedom: Welch's, estimated from as few runs, said yes too often in simulations.

The answer, written down before anything is run, with `smallest_effect` the smallest effect of
interest:

============  =====================================================================================
yes           some metric rises: its lower limit is above 0 and its upper limit not below
              `smallest_effect`
no            every metric's upper limit is below `smallest_effect`
cannot tell   anything else; `minimum_detectable` is the minimum detectable effect
============  =====================================================================================

Limits are one-sided at `alpha` divided by the number of metrics (Bonferroni): with no effect
anywhere, yes is said with probability `alpha` at most; so is no with an effect of
`smallest_effect`.
With fewer than five runs that holds where seed variance is each condition's own. Simulated with a
correlation of 0.8 between neighbouring contexts and one run of four conditions, either is said
falsely in up to 11 %.

Source: Schuirmann, A comparison of the two one-sided tests procedure, 1987.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64
from scipy.stats import t as student

from genesplice.errors import InputError, require
from genesplice.evaluate.bootstrap import make_draws, summarise
from genesplice.results import answer_from_interval

ANSWERS = ("yes", "no", "cannot tell")
FEWEST_SLOPES = 5
"""With so many runs (folds, or seeds of one fold) shared seed variance counts."""
SCORE_COLUMNS = ("metric", "model", "context_bp", "fold", "seed", "block", "value", "n")


class Rule(NamedTuple):
    """What is agreed on before a verdict is run.

    `smallest_effect` is the smallest change per doubling that matters. `power` is the probability
    with which `Slope.minimum_detectable` is detected.
    """

    smallest_effect: float
    alpha: float = 0.05
    power: float = 0.8
    n_bootstrap: int = 1000
    seed: int = 0


class Slope(NamedTuple):
    """Change of one metric per doubling of context.

    `ci_low` is the limit that a yes needs and `ci_high` the one that a no needs; with two metrics
    and an `alpha` of 5 % they are a 95 % interval.
    `se_blocks` and `se_training` are the two parts of the standard error `se`, `df` its degrees
    of freedom; `minimum_detectable` is the minimum detectable effect. `n` counts genes, `n_runs`
    the runs of each context (folds where there are several, else seeds).
    """

    metric: str
    slope: float
    ci_low: float
    ci_high: float
    se: float
    df: float
    se_blocks: float
    se_training: float
    minimum_detectable: float
    n: int
    n_runs: int


class Decision(NamedTuple):
    """The answer with the slopes it rests on, and the sentence that says it."""

    answer: str
    slopes: tuple[Slope, ...]
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        slopes = [slope._asdict() for slope in self.slopes]
        return {"answer": self.answer, "sentence": self.sentence, "slopes": slopes}


class _Scores(NamedTuple):
    """One metric as an array; `weight` is the number of genes of each block."""

    log2_context: Float[np.ndarray, " contexts"]
    value: Float[np.ndarray, "contexts seeds blocks"]
    fold: Int64[np.ndarray, " blocks"]
    weight: Float[np.ndarray, " blocks"]


def block_scores(
    predictions: pd.DataFrame,
    blocks: pd.Series,
    train_profile: pd.DataFrame,
    context_bp: Mapping[str, int],
) -> pd.DataFrame:
    """Score the conditions of a table of predictions block by block (columns `SCORE_COLUMNS`).

    `level_r2` of a gene is 1 - error² over the variance of the observed levels in its fold;
    `profile_r` its correlation over conditions, genes with a flat profile left out. Their means
    over all genes are those of `genesplice.evaluate.score`, and a mean of block means weighted
    with `n` is the mean over genes.

    Parameters
    ----------
    predictions
        As `predictions.parquet`; `model` names the condition.
    blocks
        Genome block by gene_id.
    train_profile
        m[c], folds x conditions (see `genesplice.evaluate.metrics.fold_profiles`).
    context_bp
        Context of each condition; conditions that are not in it are left out.
    """
    shape = {"index": "gene_id", "columns": "condition"}
    tables = []
    wanted = predictions[predictions["model"].isin(context_bp)]
    for (condition, fold, seed), part in wanted.groupby(["model", "fold", "seed"], observed=True):
        observed, predicted = (part.pivot(**shape, values=v) for v in ("observed", "predicted"))
        profile = train_profile.loc[fold, observed.columns].to_numpy(np.float64)
        label = blocks.loc[observed.index].to_numpy()
        truth, guess = (each.to_numpy(np.float64) for each in (observed, predicted))
        genes = summarise(truth, guess, np.broadcast_to(profile, truth.shape).copy(), label)
        spread = genes.observed_level.var()
        error = (genes.predicted_level - genes.observed_level) ** 2
        values = {"level_r2": 1 - error / spread if spread > 0 else np.full(len(error), np.nan)}
        if observed.shape[1] > 1:
            values["profile_r"] = genes.profile_r
        for metric, value in values.items():
            scored = pd.DataFrame({"block": label, "value": value}).dropna()
            means = scored.groupby("block")["value"].agg(value="mean", n="size").reset_index()
            labels = {"metric": metric, "model": condition, "fold": fold, "seed": seed}
            tables.append(means.assign(**labels, context_bp=context_bp[str(condition)]))
    require(tables, "no predictions of any condition", f"one of {', '.join(context_bp)}")
    return pd.concat(tables, ignore_index=True)[list(SCORE_COLUMNS)]


def fit_slope(scores: pd.DataFrame, rule: Rule, n_metrics: int = 1) -> Slope:
    """Change per doubling of the one metric in `scores`, with its limits.

    Raises
    ------
    InputError
        If a condition lacks a block, fold or seed that another has, or nothing shows how training
        varies: fewer than two contexts, or two of one run each.
    """
    table = _to_array(scores)
    centred = table.log2_context - table.log2_context.mean()
    contrast = centred / (centred**2).sum()
    by_block = np.tensordot(contrast, table.value.mean(1), 1)
    total = table.weight.sum()
    slope = float(by_block @ table.weight / total)
    se_blocks, df_blocks = _block_error(by_block, table.weight, rule)
    level = 1 - rule.alpha / n_metrics
    se_training, df_training, is_total = _training_error(table, contrast, level)
    if is_total:
        se, df = _wider((se_blocks, df_blocks), (se_training, df_training), level)
    else:
        se, df = float(np.hypot(se_blocks, se_training)), min(df_blocks, df_training)
    quantile = student.ppf([level, rule.power], df)
    reach, least = float(quantile[0] * se), float(quantile.sum() * se)
    n_runs = len(np.unique(table.fold)) if is_total else table.value.shape[1]
    return Slope(
        str(scores["metric"].iloc[0]), slope, slope - reach, slope + reach, se=se, df=df,
        se_blocks=se_blocks, se_training=se_training, minimum_detectable=least,
        n=int(total), n_runs=n_runs,
    )  # fmt: skip


def decide(scores: pd.DataFrame, rule: Rule, metrics: Sequence[str] | None = None) -> Decision:
    """Answer from a table with `SCORE_COLUMNS`; `metrics` None takes all that are in it.

    Raises
    ------
    InputError
        As `fit_slope`; also for a metric that is not in the table.
    """
    there = scores["metric"].unique().tolist()
    names = there if metrics is None else list(metrics)
    for name in names:
        require(name in there, f"no scores of {name!r}", f"one of {', '.join(there)}")
    require(names, "no scores", "at least one metric")
    slopes = tuple(fit_slope(scores[scores["metric"] == name], rule, len(names)) for name in names)
    each = [answer_from_interval(s.ci_low, s.ci_high, rule.smallest_effect) for s in slopes]
    rising = [slope for slope, answer in zip(slopes, each, strict=True) if answer == "yes"]
    answer = "yes" if rising else "no" if set(each) == {"no"} else "cannot tell"
    return Decision(answer, slopes, _sentence(answer, slopes, rising, rule))


def _sentence(answer: str, slopes: Sequence[Slope], rising: Sequence[Slope], rule: Rule) -> str:
    def spell(slope: Slope) -> str:
        limits = f"{slope.ci_low:+.4f} to {slope.ci_high:+.4f}"
        return f"{slope.metric} {slope.slope:+.4f} per doubling ({limits})"

    effects = "; ".join(spell(slope) for slope in rising or slopes)
    if answer == "yes":
        return f"Longer context helps here: {effects}."
    if answer == "no":
        return (
            f"Longer context does not help here: {effects}; "
            f"{rule.smallest_effect:g} per doubling would have mattered."
        )
    least = ", ".join(f"{slope.metric} {slope.minimum_detectable:.4f}" for slope in slopes)
    return (
        f"Cannot tell whether longer context helps: {effects}; minimum detectable effect "
        f"({rule.power:.0%} power): {least} per doubling; {rule.smallest_effect:g} would matter."
    )


def _block_error(
    by_block: Float[np.ndarray, " blocks"], weight: Float[np.ndarray, " blocks"], rule: Rule
) -> tuple[float, float]:
    """Standard error of the weighted mean over resampled blocks, and its degrees of freedom."""
    n_blocks = len(by_block)
    require(n_blocks >= 2, f"{n_blocks} block of held-out genes", "at least 2 to resample")
    counts = make_draws(n_blocks, rule.n_bootstrap, rule.seed)[1:]
    drawn = counts @ (by_block * weight) / (counts @ weight)
    # Resampling n values gives (n - 1) / n of the variance.
    return float(drawn.std() * np.sqrt(n_blocks / (n_blocks - 1))), n_blocks - 1.0


def _training_error(
    table: _Scores, contrast: Float[np.ndarray, " contexts"], level: float
) -> tuple[float, float, bool]:
    """Standard error from run to run, its degrees of freedom, and whether it holds the blocks too.

    Runs are folds where there are several, else seeds.
    """
    folds = np.unique(table.fold)
    n_contexts, n_seeds, _ = table.value.shape
    if len(folds) > 1:
        averaged, parts = table.value.mean(1), [table.fold == fold for fold in folds]
        means = [averaged[:, p] @ table.weight[p] / table.weight[p].sum() for p in parts]
        runs = np.stack(means, axis=1)
    else:
        runs = table.value @ table.weight / table.weight.sum()
    if runs.shape[1] > 1:
        left = runs - runs.mean(1, keepdims=True) - runs.mean(0) + runs.mean()
        df = (n_contexts - 1) * (runs.shape[1] - 1)
    else:
        centred = table.log2_context - table.log2_context.mean()
        left = runs[:, 0] - runs.mean() - centred * (contrast @ runs[:, 0])
        df = n_contexts - 2
    found = f"{n_contexts} contexts with {len(folds)} fold and {n_seeds} seed"
    wanted = "at least two contexts with two runs each, or three contexts"
    require(n_contexts >= 2 and df >= 1, found, wanted)
    n_runs = runs.shape[1]
    error = float(np.sqrt((left**2).sum() / df * (contrast**2).sum() / n_runs)), float(df)
    if n_runs >= FEWEST_SLOPES:
        slopes = contrast @ runs
        of_slopes = float(slopes.std(ddof=1) / np.sqrt(n_runs)), n_runs - 1.0
        error = _wider(error, of_slopes, level)
    return *error, len(folds) > 1


def _wider(
    one: tuple[float, float], other: tuple[float, float], level: float
) -> tuple[float, float]:
    """That of two standard errors, with their degrees of freedom, whose limits are further out."""
    return max(one, other, key=lambda error: error[0] * student.ppf(level, error[1]))


def _to_array(scores: pd.DataFrame) -> _Scores:
    runs, where = ["context_bp", "seed"], ["fold", "block"]
    is_twice = scores.duplicated([*runs, *where]).any()
    require(not is_twice, "two scores of one context, fold, seed and block", "one")
    contexts, seeds = (np.unique(scores[name].to_numpy(np.int64)) for name in runs)
    wide = scores.pivot(index=where, columns=runs, values=["value", "n"])
    every = pd.MultiIndex.from_product([contexts, seeds])
    value, weight = (wide[name].reindex(columns=every).T for name in ("value", "n"))
    for (context, seed), of_run in weight.iterrows():
        for fold, block in of_run.index[of_run.isna()]:
            raise InputError(
                f"no score of context {context}, seed {seed} on block {block} of fold {fold}",
                "the same blocks and seeds in all conditions",
            )
    is_fine = np.isfinite(value.to_numpy(float)).all() and (weight > 0).to_numpy().all()
    require(is_fine, "a score that is not finite or of no genes", "finite scores of genes")
    are_same = (weight == weight.iloc[0]).to_numpy().all()
    require(are_same, "conditions that scored different genes of a block", "the same genes")
    cube = value.to_numpy(np.float64).reshape(len(contexts), len(seeds), -1)
    fold = wide.index.get_level_values("fold").to_numpy(np.int64)
    return _Scores(np.log2(contexts), cube, fold, weight.iloc[0].to_numpy(np.float64))

"""How well held-out genes are predicted, from `predictions.parquet` alone.

observed[g, c] is the mean over replicates of log2(TPM+1); level[g] its mean over conditions;
residual[g, c] = observed[g, c] - level[g] - m[c], where m[c] is the training genes' mean of
(observed - level). The same m is taken off a prediction, with the prediction's own level. Where
`observed` is missing (NaN: the gene is deleted there), a condition counts nowhere for the gene,
and m, whose mean over all conditions is 0, is taken less its mean over those that count.

========================  =======================================================================
`level_spearman`          Spearman's rho of predicted and observed level across genes
`level_r2`                1 - SSE / SST of the level; below 0 where the genes' mean does better
`profile_r`               mean over genes of Pearson's r across conditions, predicted against
                          observed residual; a flat prediction counts as 0
`profile_r_overall`       Pearson's r of the residuals over all genes and conditions
========================  =======================================================================

Intervals are 95 % percentile intervals over resampled genome blocks: genes of one block are not
independent. The blocks of all folds are resampled together, m stays as it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int64

from genesplice.data.bundle import Bundle
from genesplice.errors import InputError, require
from genesplice.evaluate import bootstrap
from genesplice.evaluate.bootstrap import N_BOOTSTRAP, Draws, GeneStatistics
from genesplice.results import PREDICTION_COLUMNS, Metric, metrics_frame

METRICS = ("level_spearman", "level_r2", "profile_r", "profile_r_overall")
LIMITS = {name: (-np.inf if name == "level_r2" else -1.0, 1.0) for name in METRICS}


class _Run(NamedTuple):
    """One model's (and seed's) predictions as tables, genes and conditions in sorted order."""

    genes: pd.Index
    conditions: pd.Index
    fold: np.ndarray
    observed: Float[np.ndarray, "genes conditions"]
    predicted: Float[np.ndarray, "genes conditions"]

    def of(self, genes: pd.Index) -> "_Run":
        """Only the given genes (those of them that are there)."""
        kept = self.genes.isin(genes)
        tables = self.fold[kept], self.observed[kept], self.predicted[kept]
        return _Run(self.genes[kept], self.conditions, *tables)


def fold_profiles(observed: pd.DataFrame, fold_of: pd.Series) -> pd.DataFrame:
    """Compute m[c] for every fold: folds x conditions.

    Row f is the mean of (observed - level) over the genes of all *other* folds.

    Parameters
    ----------
    observed
        Genes x conditions, log2(TPM+1); NaN where a gene was not measured.
    fold_of
        Fold by gene_id; genes that `observed` lacks are ignored.

    Raises
    ------
    InputError
        If an observed gene has no fold, or all of them are in one.
    """
    ordered = observed.sort_index()
    fold = fold_of.reindex(ordered.index)
    if fold.isna().any():
        raise InputError(f"gene {fold.index[fold.isna()][0]!r} without a fold", "a fold each")
    number = fold.to_numpy(dtype=np.int64)
    means = _other_folds(ordered.to_numpy(dtype=np.float64), number)
    return pd.DataFrame(means, pd.Index(np.unique(number), name="fold"), observed.columns)


def score(
    predictions: pd.DataFrame,
    blocks: pd.Series,
    *,
    train_profile: pd.DataFrame | None = None,
    genes: pd.Index | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
    by_fold: bool = True,
    split: str = "test",
) -> list[Metric]:
    """Measure every model and seed in a table of predictions.

    Each gets the four metrics over all its folds together (`fold` None) and for each fold. What
    else is in the table does not change its numbers, and neither does the order of the
    rows; models come in alphabetical order. A metric that is not defined (one condition has no
    profile, equal levels no correlation) is left out. `n` is the number of genes, or of entries
    for `profile_r_overall`.

    Predicting each fold's mean gives a pooled `level_spearman` a little *below* 0: a fold of high
    levels has a low mean outside. Within a fold such a prediction counts as 0.

    Parameters
    ----------
    predictions
        Columns `PREDICTION_COLUMNS`, one row per gene, condition, model and seed.
    blocks
        Genome block by gene_id, the unit that is resampled.
    train_profile
        m[c], folds x conditions. None: for each fold, from the table's own genes outside it,
        which are the training genes where the table holds all folds. Pass `fold_profiles` for a
        table of fewer folds.
    genes
        Score these genes only (a stratum, say); m[c] still comes from the whole table.
    n_bootstrap
        Resamples of blocks. Where there are fewer than two blocks, or 0 resamples, the interval
        is None.
    by_fold
        Measure each fold too, not only all of them together.
    split
        What the records say they were measured on.

    Raises
    ------
    InputError
        For missing columns, an empty table, a value that is not finite (but a missing `observed`),
        a gene without any `observed`, one with conditions missing, repeated or in two folds, a gene
        without a block, and a table of one fold without `train_profile`.
    """
    metrics = []
    for (model, model_seed), run in _runs(predictions).items():
        profile = _profile_rows(run, train_profile)
        kept = np.ones(len(run.genes), bool) if genes is None else run.genes.isin(genes)
        block = bootstrap.block_labels(run.genes, blocks)
        folds: list[int | None] = [None, *(np.unique(run.fold[kept]).tolist() if by_fold else ())]
        for fold in folds:
            rows = kept if fold is None else kept & (run.fold == fold)
            if not rows.any():
                continue
            parts = run.observed, run.predicted, profile, block
            statistics = bootstrap.summarise(*(part[rows] for part in parts))
            about = {"model": str(model), "split": split, "fold": fold, "seed": int(model_seed)}
            metrics += _records([[statistics]], n_bootstrap, seed, about)
    return metrics


def paired_difference(
    predictions: pd.DataFrame,
    model_a: str,
    model_b: str,
    blocks: pd.Series,
    *,
    train_profile: pd.DataFrame | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> list[Metric]:
    """Measure `model_a` minus `model_b` on the genes that both predicted.

    Both are resampled with the same draws. Where a model has several seeds, its metric is the
    mean over them, in each draw. Records are called `level_spearman_difference` and so on, with
    model "A - B", over all folds together. m[c] is that of the run with the most genes (so a
    model of one fold can be held against one of all folds), unless `train_profile` is given.

    Raises
    ------
    InputError
        As `score`; also for a model that is not in the table, two models without a common gene,
        and models whose folds or observed values differ on the common genes.
    """
    pair, known = (model_a, model_b), sorted(map(str, predictions["model"].unique()))
    for name in pair:
        require(name in known, f"no predictions of model {name!r}", f"one of {', '.join(known)}")
    runs = _runs(predictions[predictions["model"].isin(pair)])
    widest = max(runs.values(), key=lambda run: len(run.genes))
    common = widest.genes
    for run in runs.values():
        common = common.intersection(run.genes, sort=None)
    require(len(common), f"no gene that {model_a} and {model_b} both predicted", "common genes")
    runs = {key: run.of(common) for key, run in runs.items()}
    sides = [[run for (name, _), run in runs.items() if name == model] for model in pair]
    first = sides[0][0]
    found = f"{model_a} and {model_b} with other folds, conditions or observed values"
    for run in runs.values():
        is_same = run.conditions.equals(first.conditions) and np.array_equal(run.fold, first.fold)
        both = run.observed, first.observed
        is_same = is_same and np.allclose(*both, rtol=0, atol=1e-4, equal_nan=True)
        require(is_same, found, "predictions of the same held-out genes")
    profile = _profile_rows(widest, train_profile)[widest.genes.isin(common)]
    block = bootstrap.block_labels(first.genes, blocks)
    statistics = [
        [bootstrap.summarise(first.observed, run.predicted, profile, block) for run in side]
        for side in sides
    ]
    return _records(statistics, n_bootstrap, seed, {"model": f"{model_a} - {model_b}"})


def differences(
    predictions: pd.DataFrame, blocks: pd.Series, *, model: str = "genesplice", **about: Any
) -> list[Metric]:
    """`paired_difference` of `model`, and of its ensemble, with every other model of the table.

    `about` is passed on: `train_profile`, `n_bootstrap`.
    Ablations are compared with the single model: they have no ensemble.
    """
    names = [str(name) for name in predictions["model"].unique()]
    ensemble = f"{model}_ensemble"
    records: list[Metric] = []
    for mine in (name for name in (model, ensemble) if name in names):
        for other in names:
            is_variant = other.startswith(f"{model}_")
            if other in (model, ensemble) or (is_variant and mine == ensemble):
                continue
            records += paired_difference(predictions, mine, other, blocks, **about)
    return records


def compare(
    predictions: pd.DataFrame, bundle: Bundle, *, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0
) -> pd.DataFrame:
    """Scores of every model and the paired differences of ours with the others, as one table.

    Columns are those of `Metric`: the records of `score`, then those of `differences`; m[c] comes
    from the bundle's training genes of each fold.
    """
    blocks = bundle.block_of
    profile = fold_profiles(bundle.observed, bundle.fold_of)
    about: dict[str, Any] = {"train_profile": profile, "n_bootstrap": n_bootstrap}
    records = score(predictions, blocks, seed=seed, **about)
    records += differences(predictions, blocks, **about)
    return metrics_frame(records)


def _records(
    sides: list[list[GeneStatistics]], n_bootstrap: int, seed: int, about: dict[str, Any]
) -> list[Metric]:
    """Each defined metric of the first side (the mean of its runs), minus the second's if any."""
    n_blocks = int(sides[0][0].block.max()) + 1
    draws = bootstrap.make_draws(n_blocks, n_bootstrap, seed)
    means = []
    for side in sides:
        runs = [bootstrap.resampled_metrics(statistics, draws) for statistics in side]
        means.append({name: np.mean([run[name] for run in runs], axis=0) for name in runs[0]})
    # Of all others the genes are counted.
    first, records = sides[0][0], []
    known = {"profile_r": np.isfinite(first.profile_r), "profile_r_overall": first.moments[:, 0]}
    for name, values in means[0].items():
        label, limits = name, LIMITS[name]
        if len(means) > 1:
            values, label = values - means[1][name], f"{name}_difference"
            limits = bootstrap.FREE
        if np.isfinite(values[0]):
            n = int(known[name].sum()) if name in known else len(first.block)
            about |= {"n_blocks": n_blocks, "limits": limits}
            records.append(bootstrap.to_metric(label, values, n, **about))
    return records


def _runs(predictions: pd.DataFrame) -> dict[tuple[Any, Any], _Run]:
    """Check the table and split it by model and seed."""
    for name in PREDICTION_COLUMNS:
        found = f"predictions without column {name!r}"
        require(name in predictions.columns, found, ", ".join(PREDICTION_COLUMNS))
    require(len(predictions), "no predictions", "at least one row")
    groups = dict(iter(predictions.groupby(["model", "seed"], sort=False, observed=True)))
    ordered = sorted(groups, key=lambda key: (str(key[0]), key[1]))
    return {key: _run(groups[key], f"model {key[0]!r}, seed {key[1]}") for key in ordered}


def _run(part: pd.DataFrame, where: str) -> _Run:
    # Whether strings or categories are stored.
    keys = (part[name].astype("category").astype(object) for name in ("gene_id", "condition"))
    (row, genes), (column, conditions) = (pd.factorize(key, sort=True) for key in keys)
    shape = len(genes), len(conditions)
    cell = row * shape[1] + column
    times = np.bincount(cell, minlength=shape[0] * shape[1])
    if not (times == 1).all():
        at = int(np.argmax(times != 1))
        gene, condition = genes[at // shape[1]], conditions[at % shape[1]]
        raise InputError(
            f"{where}: gene {gene!r} {times[at]} times in condition {condition!r}", "once"
        )
    tables = {}
    for name in ("observed", "predicted", "fold"):
        values = part[name].to_numpy(dtype=np.float64, na_value=np.nan)
        is_fine = np.isfinite(values) | (np.isnan(values) & (name == "observed"))
        if not is_fine.all():
            gene = part["gene_id"].iloc[int(np.argmin(is_fine))]
            raise InputError(f"{where}: a value of {name!r} of gene {gene!r}", "a finite number")
        tables[name] = np.empty(shape)
        tables[name].flat[cell] = values
    if (is_nowhere := np.isnan(tables["observed"]).all(axis=1)).any():
        found = f"{where}: gene {genes[int(np.argmax(is_nowhere))]!r} without a measurement"
        raise InputError(found, "one or more each")
    fold = tables.pop("fold")
    if (is_torn := (fold != fold[:, :1]).any(axis=1)).any():
        raise InputError(f"{where}: gene {genes[int(np.argmax(is_torn))]!r} in two folds", "one")
    return _Run(genes, conditions, fold[:, 0].astype(np.int64), **tables)


def _profile_rows(
    run: _Run, train_profile: pd.DataFrame | None
) -> Float[np.ndarray, "genes conditions"]:
    """m[c] of each gene's own fold."""
    folds, row = np.unique(run.fold, return_inverse=True)
    if train_profile is None:
        return _other_folds(run.observed, run.fold)[row]
    unknown = [fold for fold in folds.tolist() if fold not in train_profile.index]
    if unknown:
        raise InputError(f"train_profile without fold {unknown[0]}", "a row for every fold")
    if len(missing := run.conditions.difference(train_profile.columns)):
        raise InputError(f"no training mean of condition {missing[0]!r}", "one per condition")
    profile = train_profile.loc[folds.tolist(), run.conditions.tolist()]
    return profile.to_numpy(dtype=np.float64)[row]


def _other_folds(
    observed: Float[np.ndarray, "genes conditions"], fold: np.ndarray
) -> Float[np.ndarray, "folds conditions"]:
    folds = np.unique(fold)
    if len(folds) < 2:
        wanted = "two folds or more, or m[c] as train_profile"
        raise InputError(f"genes of fold {folds[0]} only", wanted)
    centred = observed - np.nanmean(observed, axis=1, keepdims=True)
    means = np.stack([np.nanmean(centred[fold != number], axis=0) for number in folds])
    return means - means.mean(axis=1, keepdims=True)


# --- tracks along the genome ---


def track_metrics(
    observed: Float[np.ndarray, "tracks units"],
    predicted: Mapping[str, Float[np.ndarray, "tracks units"]],
    labels: Sequence[str],
    is_peaks: Bool[np.ndarray, " tracks"],
    block: Int64[np.ndarray, " units"],
    *,
    prefix: str = "track",
) -> list[Metric]:
    """`track_pearson_NAME` of coverage, `track_auroc_NAME` and `track_auprc_NAME` of peaks.

    Of every model on the units (bins, genes) that all of them predicted, with intervals over
    blocks, and of the first model minus each other one in the same draws (`_difference`).

    Parameters
    ----------
    block
        Of each unit; one below 0 counts nowhere.
    """
    records: list[Metric] = []
    for i, label in enumerate(labels):
        known = np.isfinite([observed[i], *(values[i] for values in predicted.values())]).all(0)
        known &= block >= 0
        numbered, n = np.unique(block[known], return_inverse=True)[1], int(known.sum())
        if not n:
            continue
        n_blocks = int(numbered.max()) + 1
        draws, found = bootstrap.make_draws(n_blocks, N_BOOTSTRAP, 0), dict[str, dict[str, Draws]]()
        for model, values in predicted.items():
            x, y = values[i][known].astype(np.float64), observed[i][known].astype(np.float64)
            if is_peaks[i]:
                auroc, auprc = bootstrap.ranking_draws(y > 0.5, x, numbered, draws)
                found[model] = {"auroc": auroc, "auprc": auprc}
            else:
                found[model] = {"pearson": bootstrap.pearson_draws(x, y, numbered, draws)}
        first = next(iter(found))
        for model, scores in found.items():
            for name, drawn in scores.items():
                about: dict[str, Any] = {"n": n, "n_blocks": n_blocks, "seed": None}
                metric, low = f"{prefix}_{name}_{label}", -1.0 if name == "pearson" else 0.0
                if not np.isfinite(drawn[0]):
                    continue
                records.append(
                    bootstrap.to_metric(metric, drawn, model=model, limits=(low, 1.0), **about)
                )
                if model != first:
                    about |= {"model": f"{first} - {model}"}
                    change = found[first][name] - drawn
                    records.append(bootstrap.to_metric(f"{metric}_difference", change, **about))
    return records

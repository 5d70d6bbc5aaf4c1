"""Linear probes: how much of the annotation a straight cut through frozen features tells.

A multinomial logistic regression per task, on features that have mean 0 and variance 1 over the
training sites, labels weighted to equal shares. The penalty is the one that predicts left-out
*blocks* of the training folds best; held-out sites are looked at once, at the end.

=================  =================================================================================
`probe_TASK`       balanced accuracy on the held-out fold: the mean over the labels of the share of
                   their sites that are told right; 1 / number of labels by guessing
`probe_mean`       its mean over the tasks
`..._difference`   the same, minus that of a reference model on the same sites
=================  =================================================================================

Intervals are 95 % percentile intervals over resampled genome blocks of the held-out fold, the same
resamples for all tasks and models.

Source: probing, Alain & Bengio 2016; balanced accuracy, Brodersen et al. 2010.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int64
from threadpoolctl import threadpool_limits

from genesplice.data.features import standardise
from genesplice.errors import InputError
from genesplice.evaluate.bootstrap import N_BOOTSTRAP, make_draws, ratio_draws, to_metric
from genesplice.evaluate.probe_tasks import TASKS
from genesplice.results import Metric

STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-9, 0, 2))
"""scikit-learn's C (inverse penalty, against the summed loss): 10^-4.5 to 10^-0.5."""
N_SPLITS = 4


def probe_metrics(
    features: Mapping[str, Float[np.ndarray, "sites _"]],
    sites: pd.DataFrame,
    *,
    fold: int,
    references: Sequence[str] = (),
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> list[Metric]:
    """Fit one probe per model and task outside of `fold` and score it on the sites in `fold`.

    `n` is the number of held-out sites. A task is left out where a label has no site in the fold,
    none outside of it, or the sites outside lie in one block only. No task: no metrics.

    Parameters
    ----------
    features
        By model name, one row for each row of `sites`.
    sites
        As from `make_probe_sites`: task, label, block and fold are read.
    references
        Names of models; for every other one the differences to each follow, under the model's name
        "A - reference".
    n_bootstrap
        Resamples of blocks; with 0, or a fold of one block, the interval is None.
    seed
        Of the resamples.

    Raises
    ------
    InputError
        If there are no features, their rows are not those of `sites` or hold a value that is not
        finite, or a reference is not among them.
    """
    if not features or set(references) - set(features):
        raise InputError(
            f"references {list(references)} among {sorted(features)}", "features of each model"
        )
    for name, values in features.items():
        if len(values) != len(sites) or not np.isfinite(values).all():
            raise InputError(f"features {name!r}", f"{len(sites)} rows of finite numbers")
    rows_of = {task: np.flatnonzero(sites["task"] == task) for task in TASKS}
    is_held_out = (sites["fold"] == fold).to_numpy()
    label, block = sites["label"].to_numpy(), sites["block"].to_numpy()
    tasks = [task for task, rows in rows_of.items() if _is_usable(label, block, is_held_out, rows)]
    if not tasks:
        return []
    held_out_blocks = np.unique(block[is_held_out])
    draws = make_draws(len(held_out_blocks), n_bootstrap, seed)
    found: dict[str, dict[str, np.ndarray]] = {}
    with threadpool_limits(1):
        for name, values in features.items():
            scores = found[name] = {}
            for task in tasks:
                rows = rows_of[task]
                is_test = is_held_out[rows]
                scaled = standardise(values[rows].astype(np.float64), ~is_test)
                number = np.unique(label[rows], return_inverse=True)[1]
                guess = _predict(
                    scaled[~is_test], number[~is_test], block[rows][~is_test], scaled[is_test]
                )
                where = np.searchsorted(held_out_blocks, block[rows][is_test])
                scores[task] = _balanced_accuracy(guess, number[is_test], where, draws)
            scores["mean"] = np.mean(list(scores.values()), axis=0)
    count = {task: int(is_held_out[rows_of[task]].sum()) for task in tasks}
    count["mean"] = sum(count.values())
    for reference in references:
        for name in [name for name in features if name not in references]:
            found[f"{name} - {reference}"] = {
                f"{task}_difference": scores - found[reference][task]
                for task, scores in found[name].items()
            }
    return [
        to_metric(
            f"probe_{task}", scores, count[task.removesuffix("_difference")],
            n_blocks=draws.shape[1], model=name, fold=fold, seed=seed, limits=(-1.0, 1.0),
        )
        for name, by_task in found.items()
        for task, scores in by_task.items()
    ]  # fmt: skip


def _is_usable(
    label: np.ndarray, block: np.ndarray, is_held_out: Bool[np.ndarray, " sites"], rows: np.ndarray
) -> bool:
    outside = rows[~is_held_out[rows]]
    labels = [set(label[kept]) for kept in (outside, rows[is_held_out[rows]])]
    return len(labels[0]) > 1 and labels[0] == labels[1] and len(set(block[outside])) > 1


def _predict(
    values: Float[np.ndarray, "training features"],
    label: Int64[np.ndarray, " training"],
    block: np.ndarray,
    new_values: Float[np.ndarray, "test features"],
) -> Int64[np.ndarray, " test"]:
    """Labels of `new_values`, by the strength that tells left-out blocks best.

    Of equally good strengths the lowest counts, which is the heaviest penalty.
    """
    # Imported here: it takes a second.
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    def fit(rows: np.ndarray, strength: float) -> LogisticRegression:
        model = LogisticRegression(C=strength, class_weight="balanced", tol=1e-3, max_iter=2000)
        return model.fit(values[rows], label[rows])

    splitter = GroupKFold(min(N_SPLITS, len(np.unique(block))))
    splits = list(splitter.split(values, label, block))
    once, everything = np.ones((1, 1), np.int64), np.zeros(len(label), np.int64)
    best, best_score = STRENGTHS[0], -np.inf
    for strength in STRENGTHS:
        guess = np.full(len(label), -1)
        for rest, left_out in splits:
            # What is left of a small genome may lack a label: its part counts as wrong.
            if len(np.unique(label[rest])) == len(np.unique(label)):
                guess[left_out] = fit(rest, strength).predict(values[left_out])
        score = float(_balanced_accuracy(guess, label, everything, once)[0])
        if score > best_score:
            best, best_score = strength, score
    return fit(np.arange(len(label)), best).predict(new_values)


def _balanced_accuracy(
    guess: Int64[np.ndarray, " sites"],
    label: Int64[np.ndarray, " sites"],
    block: Int64[np.ndarray, " sites"],
    draws: Int64[np.ndarray, "draws blocks"],
) -> Float[np.ndarray, " draws"]:
    """Mean over labels of the share told right; NaN in a draw without one of the labels."""
    is_label = (label[:, None] == np.unique(label)).astype(np.float64)
    is_right = is_label * (guess == label)[:, None]
    return ratio_draws(is_right, is_label, block, draws).mean(axis=1)

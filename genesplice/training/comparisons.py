"""Short runs side by side: what a schedule, or a contrastive loss, is worth at equal cost.

Every trial has the same number of steps and bases. A trial is chosen by its bits on validation
blocks; the chosen ones meet on the held-out fold, on the same bases and resamples. The null ablation
of the schedules is a constant rate, tuned with as many trials as all schedules together: whoever
then picks the best schedule has had no more chances than the constant rate.

Intervals are over held-out sequence. All trials have one seed: how much another one would change
is not in them.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from genesplice.config import Config
from genesplice.config.training import PretrainScheduleName
from genesplice.data.bundle import Bundle
from genesplice.errors import InputError
from genesplice.model.genesplice import PretrainingModel
from genesplice.results import Metric
from genesplice.training.measuring import masked_base_metrics, measure_vectors
from genesplice.training.pretrain_ablations import masked_only
from genesplice.training.pretraining import train_model
from genesplice.training.source import bundle_source

NULL: PretrainScheduleName = "constant"
NO_CONTRAST = "masked_only"
VALIDATION_BLOCKS = 0.1


class ScheduleComparison(NamedTuple):
    """All trials, and metrics of each schedule's best on the held-out fold.

    Columns of `trials`: `schedule`, `learning_rate`, `bits_per_base` on validation blocks,
    `is_best` of its schedule.
    """

    trials: pd.DataFrame
    metrics: list[Metric]


def trial_config(config: Config, *, steps: int, window_bp: int = 2048) -> Config:
    """The same settings in short: `steps` steps of four windows, masked bases only, one look.

    Where views are switched on again, every fourth step has them.
    """
    settings = dataclasses.replace(
        config.pretrain,
        steps=steps,
        window_bp=window_bp,
        batch_windows=4,
        accumulate=1,
        shift_bp=min(config.pretrain.shift_bp, window_bp // 4),
        contrastive_weight=0.0,
        views_every=min(config.pretrain.views_every, 4),
        validation_blocks=config.pretrain.validation_blocks or VALIDATION_BLOCKS,
        validation_every=steps,
        ema_decay=0.0,
    )
    return dataclasses.replace(config, pretrain=settings)


def compare_schedules(
    bundle: Bundle,
    config: Config,
    *,
    schedules: Sequence[PretrainScheduleName],
    rates: Sequence[float],
    n_windows: int = 32,
) -> ScheduleComparison:
    """Train every schedule at every rate under `config` (see `trial_config`).

    The constant rate takes part whether named or not, with as many trials as the others together:
    its rates run evenly (in their logarithm) from the lowest to the highest of `rates`.

    The metrics are those of `masked_base_metrics` for the best trial of each schedule, with
    `bits_per_base_difference` of "NAME - constant": below 0 the schedule is better.

    Raises
    ------
    InputError
        If there are no rates, or the settings set no validation blocks aside or hold out no fold.
    """
    settings = config.pretrain
    if not rates or not settings.validation_blocks or settings.holdout_fold is None:
        raise InputError(
            f"{len(rates)} rates, pretrain.validation_blocks {settings.validation_blocks}, "
            f"pretrain.holdout_fold {settings.holdout_fold}",
            "a rate, blocks to choose by and a fold to measure on",
        )
    source = bundle_source(bundle, settings.holdout_fold, settings.validation_blocks)
    rows: list[tuple[str, float, float]] = []
    best: dict[str, tuple[float, PretrainingModel]] = {}
    names: list[PretrainScheduleName] = [NULL, *(name for name in schedules if name != NULL)]
    n_null = len(rates) * max(len(names) - 1, 1)
    null_rates = np.geomspace(min(rates), max(rates), n_null).tolist()
    for name in names:
        for rate in null_rates if name == NULL else rates:
            changed = dataclasses.replace(settings, schedule=name, learning_rate=rate)
            model, history = train_model(source, dataclasses.replace(config, pretrain=changed))
            bits = float(history.loc[history["split"] == "val", "value"].min())
            rows.append((name, rate, bits))
            if name not in best or bits < best[name][0]:
                best[name] = bits, model
    trials = pd.DataFrame(rows, columns=["schedule", "learning_rate", "bits_per_base"])
    lowest = trials.groupby("schedule")["bits_per_base"].transform("min")
    trials["is_best"] = trials["bits_per_base"] == lowest
    metrics: dict[tuple[str, str], Metric] = {}
    for name in names[1:]:
        found = masked_base_metrics(
            best[name][1],
            source.genome,
            source.held_out,
            window_bp=settings.window_bp,
            n_windows=n_windows,
            seed=settings.seed,
            label=name,
            fold=settings.holdout_fold,
            is_strand_averaged=False,
            others={NULL: best[NULL][1]},
        )
        metrics |= {(metric.model, metric.metric): metric for metric in found}
    return ScheduleComparison(trials, list(metrics.values()))


def compare_contrast(bundle: Bundle, config: Config, *, weight: float = 0.1) -> list[Metric]:
    """Probes and retrieval with the views of `config`, and with masked bases only.

    More steps without make up for the windows that contrasted steps encode in addition. The
    differences are those of "contrastive - masked_only" (see `measure_vectors`).

    Raises
    ------
    InputError
        If no fold is held out, or `weight` is not above 0.
    """
    settings = config.pretrain
    if settings.holdout_fold is None or weight <= 0:
        raise InputError(
            f"pretrain.holdout_fold {settings.holdout_fold} and a weight of {weight}",
            "a fold to measure on, and a weight above 0",
        )
    source = bundle_source(bundle, settings.holdout_fold, settings.validation_blocks)
    contrasted = dataclasses.replace(
        config, pretrain=dataclasses.replace(settings, contrastive_weight=weight)
    )
    arms = {"contrastive": contrasted, NO_CONTRAST: masked_only(source, contrasted)}
    models = {name: train_model(source, arm)[0] for name, arm in arms.items()}
    return measure_vectors(models, bundle, config)

"""Short runs at equal cost: which rates to try, what a schedule or a contrastive loss is worth.

Every trial has the same number of steps and bases. A trial is chosen by its bits on validation
blocks; the chosen ones meet on the held-out fold, on the same bases and resamples. The ablation of
the schedules is a constant rate, tuned with as many trials as all schedules together: whoever then
picks the best schedule has had no more chances than the constant rate.

Intervals are over held-out sequence. All trials have one seed: how much another one would change
is not in them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim.lr_scheduler import ExponentialLR

from genesplice.config import Config, replace
from genesplice.config.training import PretrainScheduleName
from genesplice.data.bundle import Bundle
from genesplice.errors import require
from genesplice.model.genesplice import PretrainingModel
from genesplice.results import Metric
from genesplice.training.ablations import masked_only
from genesplice.training.batches import StepMaker
from genesplice.training.corpus import Source, bundle_source
from genesplice.training.evaluation import held_out_bits, measure_vectors
from genesplice.training.loops import train
from genesplice.training.pretraining import PretrainingModule, begin_model, train_model

NULL: PretrainScheduleName = "constant"
NO_CONTRAST = "masked_only"
VALIDATION_BLOCKS = 0.1
SMOOTHING, FALLEN, SAFETY = 0.9, 0.1, 3.0
GIVE_UP_BITS = 1.0
"""A loss this far above the lowest one so far ends a range test."""


class RangeTest(NamedTuple):
    """The curve (`learning_rate`, `loss`, `smoothed`, a row a step), the bounds, and why."""

    curve: pd.DataFrame
    low: float
    high: float
    why: str


class _RisingRate(PretrainingModule):
    """Pre-training whose rate rises by the same factor at every step, until it falls apart."""

    lowest: float
    growth: float

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop when the loss is no number or far above the lowest."""
        bits = [row[3] for row in self.history.state_dict()["rows"] if row[1] == "bits_per_base"]
        if bits and not bits[-1] < min(bits) + GIVE_UP_BITS:
            self.trainer.should_stop = True

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, from the lowest rate up."""
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        decay = self.config.pretrain.weight_decay
        optimizer = torch.optim.AdamW(weights, lr=self.lowest, weight_decay=decay)
        rising = ExponentialLR(optimizer, self.growth)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rising, "interval": "step"}}


def range_test(
    source: Source, config: Config, *, steps: int = 80, lowest: float = 1e-5, highest: float = 0.3
) -> RangeTest:
    """Train a fresh model for at most `steps` steps, the rate rising from `lowest` to `highest`.

    Too low a rate changes nothing; too high a one undoes what was learned. Nothing is written, and
    the held-out fold is not read. (Lightning's LearningRateFinder proposes one rate, by the
    steepest slope, and writes a checkpoint; a comparison of schedules needs two bounds.)

    Raises
    ------
    InputError
        If there are fewer than ten steps, or the rates do not rise from above 0.

    Source: Smith, Cyclical learning rates for training neural networks, 2017, section 3.3.
    """
    found = f"{steps} steps from a rate of {lowest} to {highest}"
    require(steps >= 10 and 0 < lowest < highest, found, "10 steps, and rates that rise")
    accumulate, growth = config.pretrain.accumulate, (highest / lowest) ** (1 / (steps - 1))
    with torch.random.fork_rng(devices=[]):
        module = _RisingRate(begin_model(config), config)
        module.lowest, module.growth = lowest, growth
        train(module, steps, StepMaker(source, config), [module.history], accumulate=accumulate)
    rows = module.history.to_frame().pivot(index="step", columns="metric", values="value")
    rows = rows.rename(columns={"bits_per_base": "loss"})[["learning_rate", "loss"]]
    curve = rows[np.isfinite(rows["loss"])].reset_index(drop=True).rename_axis(columns=None)
    # Weights 0.9^age, which add up to 1 from the first step on.
    curve["smoothed"] = curve["loss"].ewm(alpha=1 - SMOOTHING).mean()
    return RangeTest(curve, *propose_bounds(curve))


def propose_bounds(curve: pd.DataFrame) -> tuple[float, float, str]:
    """Lowest and highest rate worth using, and the sentence that says so.

    The lowest is the first rate at which a tenth of the whole fall of the smoothed loss has
    happened; the highest is a third of the rate at which it was lowest, since a rate that is held
    does harm that one step at it does not, and at least twice the lowest.

    Raises
    ------
    InputError
        If the loss never fell.
    """
    rates, losses = curve["learning_rate"].to_numpy(), curve["smoothed"].to_numpy()
    best = int(np.argmin(losses))
    fall = float(losses[0] - losses[best])
    require(best > 0 and fall > 0, "a loss that never fell", "lower rates, or more steps")
    low = float(rates[int(np.argmax(losses <= losses[0] - FALLEN * fall))])
    safe = float(rates[best]) / SAFETY
    high = max(safe, 2 * low)
    why = (
        f"The smoothed loss fell by {fall:.3f} bits, a tenth of it by a rate of {low:.1e}, and was "
        f"lowest at {rates[best]:.1e}; a third of that is {safe:.1e}. "
        f"Proposed: {low:.1e} to {high:.1e}."
    )
    return low, high, why


class ScheduleComparison(NamedTuple):
    """All trials, and metrics of each schedule's best on the held-out fold.

    Columns of `trials`: `schedule`, `learning_rate`, `bits_per_base` on validation blocks,
    `is_best` of its schedule.
    """

    trials: pd.DataFrame
    metrics: list[Metric]


def trial_config(config: Config, *, steps: int, window_bp: int = 2048) -> Config:
    """The same settings in short: `steps` steps of four windows, masked bases, one validation.

    Where views are switched on again, every fourth step has them.
    """
    settings = config.pretrain
    changes = {
        "steps": steps, "window_bp": window_bp, "batch_windows": 4, "accumulate": 1,
        "shift_bp": min(settings.shift_bp, window_bp // 4), "contrastive_weight": 0.0,
        "views_every": min(settings.views_every, 4), "validation_every": steps, "ema_decay": 0.0,
        "validation_blocks": settings.validation_blocks or VALIDATION_BLOCKS,
    }  # fmt: skip
    return replace(config, pretrain=changes)


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
    is_fine = rates and settings.validation_blocks and settings.holdout_fold is not None
    of_blocks = settings.shown("validation_blocks"), settings.shown("holdout_fold")
    found = ", ".join([f"{len(rates)} rates", *of_blocks])
    require(is_fine, found, "a rate, blocks to choose by and a fold to measure on")
    source = bundle_source(bundle, settings.holdout_fold, settings.validation_blocks)
    rows = []
    names = [NULL, *(name for name in schedules if name != NULL)]
    n_null = len(rates) * max(len(names) - 1, 1)
    null_rates = np.geomspace(min(rates), max(rates), n_null).tolist()
    for name in names:
        for rate in null_rates if name == NULL else rates:
            own = replace(config, pretrain={"schedule": name, "learning_rate": rate})
            model, history = train_model(source, own)
            bits = float(history.loc[history["split"] == "val", "value"].min())
            rows.append((name, rate, bits, model))
    columns = ["schedule", "learning_rate", "bits_per_base", "model"]
    trials = pd.DataFrame(rows, columns=columns)
    by_schedule = trials.groupby("schedule", sort=False)["bits_per_base"]
    best = trials.loc[by_schedule.idxmin()].set_index("schedule")["model"]
    trials["is_best"] = trials["bits_per_base"] == by_schedule.transform("min")
    about: dict[str, Any] = {"n_windows": n_windows, "is_strand_averaged": False}
    metrics: dict[tuple[str, str], Metric] = {}
    for name in names[1:]:
        models: dict[str, PretrainingModel] = {name: best[name], NULL: best[NULL]}
        measured = held_out_bits(models, source, config, **about)
        metrics |= {(metric.model, metric.metric): metric for metric in measured}
    return ScheduleComparison(trials.drop(columns="model"), list(metrics.values()))


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
    found = f"{settings.shown('holdout_fold')} and a weight of {weight}"
    is_fine = settings.holdout_fold is not None and weight > 0
    require(is_fine, found, "a fold to measure on, and a weight above 0")
    source = bundle_source(bundle, settings.holdout_fold, settings.validation_blocks)
    contrasted = replace(config, pretrain={"contrastive_weight": weight})
    settings_of = {"contrastive": contrasted, NO_CONTRAST: masked_only(contrasted)}
    models = {name: train_model(source, own)[0] for name, own in settings_of.items()}
    return measure_vectors(models, bundle, config)

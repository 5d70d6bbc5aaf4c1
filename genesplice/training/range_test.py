"""Which learning rates are worth trying: a short run whose rate rises until it falls apart.

The rate grows by the same factor at every step, and the training loss is smoothed. Too low a rate
changes nothing; too high a one undoes what was learned. From the smoothed curve:

- `low`: the first rate at which a tenth of the whole fall has happened;
- `high`: a third of the rate at which the loss was lowest, since a rate that is held does harm
  that one step at it does not. At least twice `low`.

Source: Smith, Cyclical learning rates for training neural networks, 2017, section 3.3.
"""

from typing import Any, NamedTuple

import lightning
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim.lr_scheduler import LambdaLR

from genesplice.config import Config
from genesplice.errors import InputError
from genesplice.training.loops import History, StepDataset, fit, make_trainer
from genesplice.training.pretraining import PretrainingModule, begin_model
from genesplice.training.source import Source
from genesplice.training.views import StepMaker

SMOOTHING = 0.9
FALLEN = 0.1
SAFETY = 3.0
GIVE_UP_BITS = 1.0
"""A loss this far above the lowest one so far ends the run."""


class RangeTest(NamedTuple):
    """The curve (`learning_rate`, `loss`, `smoothed`, a row a step), the bounds, and why."""

    curve: pd.DataFrame
    low: float
    high: float
    why: str


class _RisingModule(PretrainingModule):
    """Pre-training whose rate rises geometrically."""

    def __init__(self, *arguments: Any, lowest: float, highest: float, steps: int) -> None:
        super().__init__(*arguments)
        self.rates = lowest, highest, steps

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, from the lowest rate up."""
        lowest, highest, steps = self.rates
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        settings = self.config.pretrain
        optimizer = torch.optim.AdamW(weights, lr=lowest, weight_decay=settings.weight_decay)
        growth = (highest / lowest) ** (1 / (steps - 1))
        scheduler = LambdaLR(optimizer, lambda step: growth**step)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class _GiveUp(lightning.Callback):
    """Stop when the loss is no number or far above the lowest."""

    def __init__(self, history: History) -> None:
        self.history, self.lowest = history, np.inf

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Look at the last loss of the history."""
        losses = [v for _, metric, _, v in self.history.rows if metric == "bits_per_base"]
        if losses:
            self.lowest = min(self.lowest, losses[-1])
            if not losses[-1] < self.lowest + GIVE_UP_BITS:
                trainer.should_stop = True


def range_test(
    source: Source,
    config: Config,
    *,
    steps: int = 80,
    lowest: float = 1e-5,
    highest: float = 0.3,
) -> RangeTest:
    """Train a fresh model for at most `steps` steps, the rate rising from `lowest` to `highest`.

    Nothing is written, and the held-out fold is not read.

    Raises
    ------
    InputError
        If there are fewer than ten steps, or the rates do not rise from above 0.
    """
    if steps < 10 or not 0 < lowest < highest:
        raise InputError(
            f"{steps} steps from a rate of {lowest} to {highest}", "10 steps, and rates that rise"
        )
    settings = config.pretrain
    with torch.random.fork_rng(devices=[]):
        model, history = begin_model(config), History()
        trainer = make_trainer(
            steps=steps,
            checkpoints=None,
            callbacks=[history, _GiveUp(history)],
            accumulate=settings.accumulate,
        )
        module = _RisingModule(model, config, history, lowest=lowest, highest=highest, steps=steps)
        maker = StepMaker(source, config)
        fit(trainer, module, StepDataset(steps * settings.accumulate, maker), None)
    rows = history.to_frame().pivot(index="step", columns="metric", values="value")
    curve = pd.DataFrame(
        {
            "learning_rate": rows["learning_rate"].to_numpy(),
            "loss": rows["bits_per_base"].to_numpy(),
        }
    )
    curve = curve[np.isfinite(curve["loss"])].reset_index(drop=True)
    curve["smoothed"] = smooth(curve["loss"].to_numpy())
    return RangeTest(curve, *propose_bounds(curve))


def smooth(losses: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " steps"]:
    """Running mean with weights 0.9^age, which add up to 1 from the first step on."""
    found, mean = np.empty(len(losses)), 0.0
    for step, loss in enumerate(losses):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * float(loss)
        found[step] = mean / (1 - SMOOTHING ** (step + 1))
    return found


def propose_bounds(curve: pd.DataFrame) -> tuple[float, float, str]:
    """Lowest and highest rate worth using, by the rules above, and the sentence that says so.

    Raises
    ------
    InputError
        If the loss never fell.
    """
    rates, losses = curve["learning_rate"].to_numpy(), curve["smoothed"].to_numpy()
    best = int(np.argmin(losses))
    fall = float(losses[0] - losses[best])
    if best == 0 or fall <= 0:
        raise InputError("a loss that never fell", "lower rates, or more steps")
    first = int(np.argmax(losses <= losses[0] - FALLEN * fall))
    low = float(rates[first])
    high = max(float(rates[best]) / SAFETY, 2 * low)
    why = (
        f"The smoothed loss fell by {fall:.3f} bits, a tenth of it by a rate of {low:.1e}, and was "
        f"lowest at {rates[best]:.1e}; a third of that is {float(rates[best]) / SAFETY:.1e}. "
        f"Proposed: {low:.1e} to {high:.1e}."
    )
    return low, high, why

"""Learning-rate schedules, and of the weights the running mean, the parts and the best ones.

A schedule is a curve of factors of the peak rate, read off torch's own scheduler. The optimiser
follows it through one or more phases: a state of one number resumes all of them.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float
from lightning import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel

from genesplice.config.training import FinetuneConfig, PretrainConfig, PretrainScheduleName
from genesplice.errors import InputError, did_you_mean
from genesplice.runtime import keep_freed_memory
from genesplice.training.loops import StepCallback

SCHEDULES: tuple[str, ...] = get_args(PretrainScheduleName)
PLATEAU = "plateau"
"""The one that needs a validation loss; its curve is constant."""
PLATEAU_FACTOR, PLATEAU_PATIENCE = 1 / 3, 2
WARM_UP, ONE_CYCLE_RISE, CYCLES, RESTARTS, EXP_RANGE_END = 0.1, 0.3, 4, 3, 0.1


def schedule_factors(name: str, steps: int, *, lowest: float = 0.1) -> Float[np.ndarray, " steps"]:
    """What the peak rate is multiplied with at each step (0 <= factor <= 1).

    torch's scheduler takes two steps for each of ours, and the factor is that of the middle: no
    rate is 0. Cycles begin at `lowest`. Warm-up is a tenth of the steps; restarts come after 1/7
    and 3/7.

    Raises
    ------
    InputError
        On an unknown name.
    """
    if name not in SCHEDULES:
        raise InputError(f"schedule '{name}'; {did_you_mean(name, SCHEDULES)}")
    if not steps or name in ("constant", PLATEAU):
        return np.ones(steps)
    optimizer, n = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0), 2 * steps
    scheduler: lr_scheduler.LRScheduler
    if name == "cosine":
        rise = max(round(WARM_UP * n), 1)
        up = lr_scheduler.LinearLR(optimizer, 1e-9, total_iters=rise)
        down = lr_scheduler.CosineAnnealingLR(optimizer, n - rise)
        scheduler = lr_scheduler.SequentialLR(optimizer, [up, down], [rise])
    elif name == "one_cycle":
        rise_share = (ONE_CYCLE_RISE * n + 1) / (n + 1)
        scheduler = lr_scheduler.OneCycleLR(
            optimizer, 1.0, n + 1, pct_start=rise_share, cycle_momentum=False,
            div_factor=25, final_div_factor=100,
        )  # fmt: skip
    elif name == "warm_restarts":
        scheduler = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 1, T_mult=2)
    else:
        cycle: dict[str, Any] = {"step_size_up": n / (2 * CYCLES), "mode": name}
        cycle |= {"gamma": EXP_RANGE_END ** (1 / n), "cycle_momentum": False}
        scheduler = lr_scheduler.CyclicLR(optimizer, lowest, 1.0, **cycle)
    factors = np.empty(n)
    optimizer.step()
    for half_step in range(n):
        factors[half_step] = optimizer.param_groups[0]["lr"]
        if isinstance(scheduler, lr_scheduler.CosineAnnealingWarmRestarts):
            # Cycles of length 1, 2, 4 fill the run whatever its number of steps.
            scheduler.step((2**RESTARTS - 1) * (half_step + 1) / n)
        else:
            scheduler.step()
    return factors[1::2]


class MuonAdamW(torch.optim.AdamW):
    """AdamW; `matrices` move by their momentum made orthogonal instead, `scale` at the rate.

    Convolutions count as matrices of a row an output. All singular values of a step are about
    equal, so that rare directions are learned as fast as common ones; `scale` is the root mean
    square of a step in units of the learning rate. (torch's own Muon takes no convolutions, comes
    with newer versions only, and would be a second optimiser.)

    Source: Jordan et al., Muon: an optimizer for hidden layers, 2024; the scale by Liu et al.,
    Muon is scalable for LLM training, 2025, section 2.2.
    """

    momentum, polynomial, iterations = 0.95, (3.4445, -4.7750, 2.0315), 5

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        *,
        weight_decay: float,
        matrices: Iterable[nn.Parameter] = (),
        scale: float = 0.0,
    ) -> None:
        chosen = {id(matrix): matrix for matrix in matrices if scale > 0}
        others = [weight for weight in parameters if id(weight) not in chosen]
        super().__init__(others, learning_rate, weight_decay=weight_decay, fused=True)
        # Nothing is scaled in bf16: Lightning may clip the gradients that a fused step takes.
        self._step_supports_amp_scaling = False
        if chosen:
            self.add_param_group({"params": [*chosen.values()], "scale": scale})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of all weights."""
        with torch.enable_grad():  # the closure clears and clips gradients of all groups
            loss = None if closure is None else closure()
        groups = self.param_groups
        self.param_groups = groups[:1]
        super().step()
        self.param_groups = groups
        for group in groups[1:]:
            alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:  # AdamW looks for "step" where it reads a checkpoint
                    state.update(step=torch.zeros(()), momentum=torch.zeros_like(weight))
                state["momentum"].lerp_(weight.grad, 1 - self.momentum)
                step = whole(weight.grad.lerp(state["momentum"], self.momentum)).flatten(1)
                step = step if step.shape[0] <= step.shape[1] else step.T
                alike.setdefault(step.shape, []).append((weight, step))
            for shape, pairs in alike.items():
                size = group["lr"] * group["scale"] * max(shape) ** 0.5
                steps = self._orthogonal(torch.stack([step for _, step in pairs]))
                for (weight, _), step in zip(pairs, steps, strict=True):
                    is_wide = weight.shape[0] <= weight.shape[1:].numel()
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    step = (step if is_wide else step.T).reshape(weight.shape)
                    weight.sub_(part_of(step, weight), alpha=size)
        return loss

    def _orthogonal(self, steps: Tensor) -> Tensor:
        """Each of the matrices with its singular values between about 0.7 and 1.2."""
        a, b, c = self.polynomial
        steps = steps / (torch.linalg.matrix_norm(steps)[:, None, None] + 1e-7)
        for _ in range(self.iterations):
            square = steps @ steps.mT
            square = torch.baddbmm(square, square, square, beta=b, alpha=c)
            steps = torch.baddbmm(steps, square, steps, beta=a)
        return steps


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    settings: PretrainConfig | FinetuneConfig,
    learning_rate: float,
    phases: Iterable[tuple[int, float]],
    *,
    lowest: float = 0.1,
    **muon: Any,
) -> OptimizerLRSchedulerConfig:
    """AdamW, its rate set at every step; with `matrices` and `scale` as `MuonAdamW` has them.

    Weights decay, and the rate changes, as `settings` say. Each of the `phases` is (steps, fraction
    of `learning_rate`) and runs through the whole schedule, whose cycles begin at `lowest` times
    the peak rate.
    """
    optimizer = MuonAdamW(parameters, learning_rate, weight_decay=settings.weight_decay, **muon)
    curve = functools.partial(schedule_factors, settings.schedule, lowest=lowest)
    factors = np.concatenate([peak * curve(steps) for steps, peak in phases]).tolist()
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: factors[min(step, len(factors) - 1)])
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def average_weights(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` that becomes the exponential mean of its weights; buffers are the last.

    At update t (from 1) the mean moves towards the weights by 1 - min(decay, (t - 1) / (t + 8)):
    the first one replaces the random weights, and a short run averages over about its last ninth
    instead of mostly over its beginning.

    Source: Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992; the
    warm-up as in TensorFlow's ExponentialMovingAverage.
    """

    def move(means: Any, weights: Any, n_averaged: Tensor | int) -> None:
        share = 1 - min(decay, float(n_averaged) / (float(n_averaged) + 9))
        torch._foreach_lerp_(means, weights, share)

    return AveragedModel(model, multi_avg_fn=move).requires_grad_(False)


# --- weights that several processes keep parts of ---


def whole(part: Tensor) -> Tensor:
    """All of a tensor that processes have parts of: they ask for it together."""
    return part.full_tensor() if isinstance(part, DTensor) else part


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """What this process keeps of a whole tensor: the same part as of `like`."""
    if not isinstance(like, DTensor):
        return tensor
    everywhere = DTensor.from_local(tensor, like.device_mesh, [Replicate()])
    return everywhere.redistribute(placements=like.placements)


class ShardedStrategy(DDPStrategy):
    """FSDP: each process keeps a part of all weights, of their mean and the optimiser's state.

    Weights of a layer come together while it runs. Checkpoints are those of a single process.

    Source: Zhao et al., PyTorch FSDP: experiences on scaling fully sharded data parallel, 2023.
    """

    def configure_ddp(self) -> None:
        """Divide the weights, in place of a copy in every process."""
        assert self.lightning_module is not None
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        for model in self.lightning_module.children():
            for layers in [one for one in model.modules() if isinstance(one, nn.ModuleList)]:
                for layer in layers:
                    fully_shard(layer, mesh=mesh)
            fully_shard(model, mesh=mesh)
        if self.root_device.type == "cpu":
            keep_freed_memory(False)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's part of it."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            for number, state in saved["state"].items():
                for name, value in state.items():
                    if value.shape == weights[number].shape:
                        state[name] = part_of(value.to(self.root_device), weights[number])
        super().load_optimizer_state_dict(checkpoint)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """Gather all parts, one tensor after another, in the memory of the first process."""

        def gather(part: DTensor) -> Tensor | None:
            tensor = whole(part)
            return tensor.cpu() if self.is_global_zero else None

        checkpoint = apply_to_collection(checkpoint, DTensor, gather)
        super().save_checkpoint(checkpoint, filepath, storage_options)

    def teardown(self) -> None:
        """Parts of the weights stay on their devices, which gather them afterwards."""
        assert self.cluster_environment is not None
        assert self.accelerator is not None
        self.optimizers, self.lr_scheduler_configs = [], []
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()


class Validation(StepCallback):
    """Measure now and then, remember the best weights, and stop when it gets no better.

    (Lightning's EarlyStopping and ModelCheckpoint want a validation loop and a file.)

    Parameters
    ----------
    measure
        A loss after a step (its number is given), on data that nothing is fitted to.
    weights
        What to remember of the state that `measure` measured.
    is_due
        Whether a step is followed by a validation pass; the last one always is.
    patience
        Validation passes without a better one before the run ends.
    is_plateau
        Multiply the learning rate with `PLATEAU_FACTOR` after `PLATEAU_PATIENCE` of them.
    """

    def __init__(
        self,
        measure: Callable[[int], float],
        weights: Callable[[], Mapping[str, Tensor]],
        is_due: Callable[[int], bool],
        *,
        patience: int | float = math.inf,
        is_plateau: bool = False,
    ) -> None:
        self.measure, self.get_weights, self.is_due = measure, weights, is_due
        self.patience, self.is_plateau = patience, is_plateau
        self.measured_at = self.in_vain = 0
        self.best = math.inf
        self.weights: dict[str, Tensor] = {}
        self.plateau: lr_scheduler.ReduceLROnPlateau | None = None
        self.plateau_state: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that had stopped does not begin again."""
        trainer.should_stop = self.in_vain >= self.patience
        if self.is_plateau:
            self.plateau = lr_scheduler.ReduceLROnPlateau(
                trainer.optimizers[0], "min", PLATEAU_FACTOR, PLATEAU_PATIENCE - 1, threshold=0
            )
            self.plateau.load_state_dict(self.plateau_state)

    def after_step(self, trainer: Trainer, outputs: Any) -> None:
        """Measure, if it is due."""
        step = trainer.global_step
        if step == self.measured_at or not (step == trainer.max_steps or self.is_due(step)):
            return
        self.measured_at = step
        # All processes must stop at the same step.
        value = trainer.strategy.broadcast(self.measure(step))
        self.in_vain += 1
        if value < self.best:
            self.best, self.in_vain = value, 0
            self.weights = {k: v.detach().clone() for k, v in self.get_weights().items()}
        if self.plateau is not None:
            self.plateau.step(value)
        trainer.should_stop = self.in_vain >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """The best weights so far, and how the search stands; nothing to be unpickled."""
        state = self.plateau.state_dict() if self.plateau else {}
        return {
            **{n: getattr(self, n) for n in ("measured_at", "in_vain", "best", "weights")},
            "plateau_state": {n: v for n, v in state.items() if isinstance(v, int | float | list)},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        vars(self).update(state_dict)

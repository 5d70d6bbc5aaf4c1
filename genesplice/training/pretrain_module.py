"""The losses of pre-training by steps: masked bases, and pairs that must find each other.

Bases are hidden in everything that is encoded, and must be predicted; intervals of 1,024 bp that
belong together must find each other among all intervals of the batch and of earlier steps. Each
view keeps the vectors of earlier steps, first in, first out: they are negatives too, at the cost of
a product. They came from slightly older weights, and no gradient goes through them.

Source: Wang et al., Cross-batch memory for embedding learning, 2020.
"""

from typing import Any, NamedTuple, cast

import lightning
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from lightning.pytorch.utilities.types import OptimizerConfig, OptimizerLRSchedulerConfig
from torch import Tensor

from genesplice.config import Config
from genesplice.config.model import REGION_BP, SUMMARY_BP
from genesplice.model.genesplice import PretrainingModel
from genesplice.model.heads import info_nce, masked_base_loss
from genesplice.model.sequence import MASK_TOKEN, EncoderOutput
from genesplice.training.batches import Keys, Pairs, Rows, StepBatch
from genesplice.training.loops import History, n_processes, process_number
from genesplice.training.schedules import PLATEAU, average_weights, make_optimizer

# --- several processes ---


def gather_rows(
    module: lightning.LightningModule, rows: Shaped[Tensor, "rows *rest"]
) -> Shaped[Tensor, "all_rows *rest"]:
    """Rows of all processes in the order of their numbers; gradients flow back to each."""
    if n_processes() == 1:
        return rows
    gathered = cast(Tensor, module.all_gather(rows, sync_grads=rows.requires_grad))
    return gathered.flatten(0, 1)


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum of a value that each process has a part of."""
    if n_processes() > 1:
        value = value.clone()
        torch.distributed.all_reduce(value)
    return value


# --- pairs ---


def are_related(one: Keys, other: Keys) -> Bool[Tensor, "pairs others"]:
    """Say which pairs show the same: a base of the genome in common, or a group.

    Such pairs must not be pushed apart.
    """
    start, end = one.spans[..., 0], one.spans[..., 1]
    first, last = other.spans[..., 0], other.spans[..., 1]
    meets = (start[:, None, :, None] < last[None, :, None]) & (
        first[None, :, None] < end[:, None, :, None]
    )
    related = meets.flatten(2).any(2)
    if one.groups.shape[1]:
        same = one.groups[:, None, :, None] == other.groups[None, :, None]
        related |= (same & (one.groups >= 0)[:, None, :, None]).flatten(2).any(2)
    return related


def interval_summaries(
    summaries: Float[Tensor, "batch summaries width"],
    is_real: Bool[Tensor, "batch summaries"],
    starts: Int64[Tensor, "pairs 2"],
    n_summaries: int,
) -> tuple[Float[Tensor, "pairs interval width"], Bool[Tensor, "pairs interval"]]:
    """The summaries of intervals, each given by its row and first summary."""
    column = starts[:, 1:] + torch.arange(n_summaries, device=starts.device)
    return summaries[starts[:, :1], column], is_real[starts[:, :1], column]


def retrieval_at_1(
    one: Float[Tensor, "pairs width"],
    two: Float[Tensor, "pairs width"],
    is_related: Bool[Tensor, "pairs pairs"],
) -> Float[Tensor, ""]:
    """Share of the pairs whose first end has its second nearest, among those it must find it in."""
    if not len(one):
        return one.new_zeros(())
    own = torch.arange(len(one), device=one.device)
    others = is_related & (own[:, None] != own)
    nearest = (one @ two.T).masked_fill(others, -torch.inf).argmax(1)
    return (nearest == own).float().mean()


class Earlier(NamedTuple):
    """Both ends of earlier pairs, and what they showed."""

    one: Float[Tensor, "earlier width"]
    two: Float[Tensor, "earlier width"]
    keys: Keys


class Queue:
    """Up to `size` pairs of earlier steps of each view; kept in checkpoints."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.views: dict[str, Earlier] = {}

    def get(self, view: str, device: torch.device) -> Earlier | None:
        """Earlier pairs of a view; None before the first step."""
        earlier = self.views.get(view)
        if earlier is not None and earlier.one.device != device:
            one, two, keys = earlier
            earlier = Earlier(one.to(device), two.to(device), Keys(*(k.to(device) for k in keys)))
            self.views[view] = earlier
        return earlier

    def add(
        self,
        view: str,
        one: Float[Tensor, "pairs width"],
        two: Float[Tensor, "pairs width"],
        keys: Keys,
    ) -> None:
        """Add pairs; the oldest go where there are too many."""
        if not self.size:
            return
        columns = [one.detach(), two.detach(), *keys]
        before = self.get(view, one.device)
        if before is not None:
            earlier = [before.one, before.two, *before.keys]
            columns = [torch.cat(both) for both in zip(earlier, columns, strict=True)]
        one, two, *kept = (column[-self.size :].clone() for column in columns)
        self.views[view] = Earlier(one, two, Keys(*kept))

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain tensors."""
        return {view: [one, two, *keys] for view, (one, two, keys) in self.views.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.views = {
            view: Earlier(one, two, Keys(*keys)) for view, (one, two, *keys) in state.items()
        }


# --- steps ---


class PretrainingModule(lightning.LightningModule):
    """The losses and the optimiser; everything random is seeded by the batch's number."""

    def __init__(self, model: PretrainingModel, config: Config) -> None:
        super().__init__()
        self.model, self.config, self.history = model, config, History()
        self.queue = Queue(config.pretrain.queue)
        self.logged: dict[str, Tensor] = {}
        if not config.pretrain.active_views:
            self.model.contrastive.requires_grad_(False)
        decay = config.pretrain.ema_decay
        self.average = average_weights(model, decay) if decay else None

    @property
    def measured(self) -> PretrainingModel:
        """The weights that are saved and scored: the running mean, where there is one."""
        return self.model if self.average is None else cast(PretrainingModel, self.average.module)

    def on_train_batch_start(self, batch: StepBatch, batch_idx: int) -> None:
        """Seed dropout by the batch, so that a resumed run draws what an unbroken one drew."""
        number = batch.number * n_processes() + process_number()
        torch.manual_seed(self.config.pretrain.seed * 1_000_003 + number)

    def training_step(self, batch: StepBatch, batch_idx: int) -> Float[Tensor, ""]:
        """Weighted sum of masked-base bits and InfoNCE over the views."""
        settings = self.config.pretrain
        encoded = [
            self.model.encode(rows.tokens.masked_fill(rows.is_target, MASK_TOKEN))
            for rows in batch.rows
        ]
        parts = zip(encoded, batch.rows, strict=True)
        bits = torch.stack([self.bits(out, rows, batch) for out, rows in parts]).sum()
        self._add("bits_per_base", bits)
        # Divided by the number of processes and of batches later, when gradients are averaged.
        loss = settings.masked_weight * bits * n_processes() * settings.accumulate
        if batch.pairs:
            loss = loss + settings.contrastive_weight * self._contrast(encoded, batch)
        if (batch.number + 1) % settings.accumulate == 0:
            self._log()
        return loss

    def bits(self, encoded: EncoderOutput, rows: Rows, batch: StepBatch) -> Tensor:
        """These rows' share of the step's mean bits over all targets."""
        total = batch.target_weight
        if encoded.bases is None:
            logits = self.model.base_logits(encoded)
            return masked_base_loss(logits, rows.tokens, rows.is_target, rows.weight, total)
        # Only targets are decoded.
        at = rows.is_target
        logits = self.model.masked_bases(encoded.bases[at])[None]
        weight = None if rows.weight is None else rows.weight[at][None]
        return masked_base_loss(logits, rows.tokens[at][None], at[at][None], weight, total)

    def _contrast(self, encoded: list[EncoderOutput], batch: StepBatch) -> Tensor:
        """Sum of the views' InfoNCE, each times its weight."""
        settings = self.config.pretrain
        total, shares = torch.zeros((), device=self.device), []
        for pairs in batch.pairs:
            ends = self._pool(encoded[pairs.rows], pairs)
            pooled = torch.cat([gather_rows(self, end) for end in ends])
            one, two = self.model.contrastive(pooled).chunk(2)
            keys = Keys(*(gather_rows(self, column) for column in pairs.keys))
            related, earlier = are_related(keys, keys), self.queue.get(pairs.view, one.device)
            value = info_nce(
                one,
                two,
                settings.temperature,
                is_related=related,
                earlier_one=None if earlier is None else earlier.one.to(one),
                earlier_other=None if earlier is None else earlier.two.to(one),
                is_related_earlier=None if earlier is None else are_related(keys, earlier.keys),
            )
            self.queue.add(pairs.view, one.float(), two.float(), keys)
            total = total + settings.active_views[pairs.view] * value
            shares.append(retrieval_at_1(one.detach(), two.detach(), related))
            if len(batch.pairs) > 1:
                self._add(f"info_nce_{pairs.view}", value / settings.accumulate)
                self._add(f"retrieval_at_1_{pairs.view}", shares[-1] / settings.accumulate)
        self._add("info_nce", total / settings.accumulate)
        self._add("retrieval_at_1", torch.stack(shares).mean() / settings.accumulate)
        return total

    def _pool(self, encoded: EncoderOutput, pairs: Pairs) -> list[Float[Tensor, "pairs width"]]:
        """One vector for each end of every pair."""
        summaries, n = encoded.summaries, REGION_BP // SUMMARY_BP
        is_real = encoded.is_real.unflatten(1, (summaries.shape[1], -1)).any(-1)
        return [
            self.model.contrastive.pool(*interval_summaries(summaries, is_real, starts, n))
            for starts in (pairs.one, pairs.two)
        ]

    def _add(self, name: str, value: Tensor) -> None:
        """Add one batch's share of a value of this step."""
        before = self.logged.get(name)
        self.logged[name] = value.detach() if before is None else before + value.detach()

    def _log(self) -> None:
        # Of the bits every process has a part; of the rest each has all.
        self.logged["bits_per_base"] = sum_over_processes(self.logged["bits_per_base"])
        for name, value in self.logged.items():
            self.history.add(self.global_step, name, "train", value)
        self.logged = {}

    def optimizer_step(self, *arguments: Any, **more: Any) -> None:
        """Take the new weights into the running mean."""
        super().optimizer_step(*arguments, **more)
        if self.average is not None:
            self.average.update_parameters(self.model)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the vectors of earlier steps."""
        checkpoint["queue"] = self.queue.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back."""
        self.queue.load_state_dict(checkpoint["queue"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig | OptimizerConfig:
        """AdamW under the chosen schedule; for `plateau` validation sets the rate."""
        settings = self.config.pretrain
        made = make_optimizer(
            [weight for weight in self.model.parameters() if weight.requires_grad],
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            schedule=settings.schedule,
            phases=((settings.steps, 1.0),),
            lowest=settings.lowest_rate,
        )
        return {"optimizer": made["optimizer"]} if settings.schedule == PLATEAU else made

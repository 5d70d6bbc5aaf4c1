"""A value or class of each sequence of a table, from what an encoder has learned of DNA.

A linear probe of the frozen encoder, or adapters in its transformer blocks (`lora`, `ia3`), or all
of its weights (`full`), which begin from the probe. Classes are learned as numbers, 1 or 0 for
each, with the squared error. Everything that is fitted or chosen comes from the other folds;
boosting, ridge and a small convolutional network learn from the same rows, and so does the same
encoder with random weights.

Source: Kumar et al., Fine-tuning can distort pretrained features, 2022 (the probe first); Hui and
Belkin, Evaluation of neural architectures trained with square loss vs cross-entropy, 2021.
"""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from genesplice.baselines.methods import BOOSTING, THREADS
from genesplice.baselines.ridge import RidgeFit, fit_ridge
from genesplice.config import FinetuneConfig, load_preset
from genesplice.config.model import REGION_BP, SUMMARY_BP
from genesplice.data.assay import Assay
from genesplice.data.features import kmer_features, principal_basis, standardise
from genesplice.data.genome import N
from genesplice.errors import require
from genesplice.evaluate.bootstrap import task_metrics
from genesplice.model import adapters
from genesplice.model.adapters import Reader, Strand, TaskNetwork
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.genesplice import make_encoder
from genesplice.model.sequence import SequenceEncoder
from genesplice.predict import find_pretrained
from genesplice.predict.pretrained import load_pretrained, window_read
from genesplice.results import Metric, judge_difference, label
from genesplice.runtime import side_by_side
from genesplice.training.loops import train
from genesplice.training.schedules import Validation, make_optimizer

Mode = Literal["probe", "lora", "ia3", "full"]
OURS, RANDOM, RIDGE, BOOSTED, CNN = (
    "genesplice", "genesplice_random", "ridge_kmers", "gbm_kmers", "cnn",
)  # fmt: skip
RATES = {"lora": 1e-3, "ia3": 3e-3, "full": 3e-4, CNN: 2e-3}
PENALTIES = tuple(10.0 ** (power / 2) for power in range(13))
KMER, N_GROUPS, MOST_BINS, MOST_FEATURES = 4, 32, 32, 512
"""Above `MOST_BINS`, or of sequences of several lengths, only means and maxima are read."""
BATCH, EPOCHS, LEAST_STEPS, PATIENCE, VALIDATION_SHARE = 128, 4, 200, 3, 0.1
BATCH_BP = 32_768
CURVE = (0.125, 0.25, 0.5)
"""Shares of the training rows of fold 0 that the learning curve is measured with."""
LEARNED_FROM_LESS = (OURS, RIDGE, BOOSTED)

Rows = Int64[np.ndarray, " _rows"]
Values = Float[np.ndarray, "_rows targets"]
Method = Callable[[Rows, Rows], Values]
Progress = Callable[[str], None]


class TaskResult(NamedTuple):
    """Scores; predictions of held-out rows, of rows without a value and of changes; what to say.

    `predictions` has `id, fold, model, seed, input_bp, row, observed, predicted`, and of classes
    `score:CLASS` for each. Rows without a value have the mean over the folds' models. Metrics of
    the split `learning_curve` have as `n` the number of sequences learned from. `changed` has
    `id, position, ref, alt, fold, model, observed, predicted, unit`: each change by the model that
    held the unchanged sequence out; metrics `change_…` are of these.
    """

    metrics: list[Metric]
    predictions: pd.DataFrame
    unmeasured: pd.DataFrame
    changed: pd.DataFrame | None
    notes: list[str]

    @property
    def metric(self) -> str:
        """Name of the metric that answers."""
        return next(m.metric for m in self.metrics if m.metric in ("auroc", "spearman", "accuracy"))

    @property
    def answers(self) -> list[str]:
        """Whether the encoder is ahead of each other method, in a sentence."""
        pairs = dict.fromkeys(m.model for m in self.metrics if " - " in m.model)
        asked = [(f"Ahead of {label(pair.partition(' - ')[2])}", pair) for pair in pairs]
        wanted = f"{self.metric}_difference"
        return [judge_difference(text, self.metrics, pair, wanted).sentence for text, pair in asked]


def run_task(
    assay: Assay,
    *,
    init: Path | str | None = None,
    mode: Mode | str = "probe",
    both_strands: bool = False,
    changes: pd.DataFrame | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> TaskResult:
    """Learn from the other folds, predict each fold, and score it beside simple methods.

    Parameters
    ----------
    init
        A folder that `pretrain` wrote, or a name of published weights; None: random weights.
    both_strands
        A sequence and its other strand are one: every method reads the mean of both.
    changes
        Measured changes, with their rows in the assay (see `data.assay.add_changes`).

    Raises
    ------
    InputError
        If a sequence is longer than what the encoder has learned to read, or the mode needs
        transformer blocks and the encoder has none.
    """
    require(mode in get_args(Mode), f"mode {mode!r}", ", ".join(get_args(Mode)))
    init = None if init is None else find_pretrained(init)
    say, lengths, limit = progress or str, assay.rows["length_bp"], window_read(init)
    found = f"sequence {assay.rows['id'].iloc[int(lengths.argmax())]!r} of {lengths.max()} bp"
    wanted = f"at most {limit} bp, the window of the encoder's training"
    require(lengths.max() <= limit, found, wanted)
    torch.manual_seed(seed)
    if init is None:
        sizes = dataclasses.replace(load_preset("quick").model, relatives=False)
        encoders = {OURS: make_encoder(sizes).eval()}
        notes = ["no --init: the encoder has random weights"]
    else:
        model = load_pretrained(init).reading()
        encoders = {OURS: model.encoder, RANDOM: make_encoder(model.config).eval()}
        notes = ["the encoder may have read these sequences in pre-training, never their values"]
    work = _Work(assay, mode, both_strands, seed)
    methods: dict[str, Method] = {}
    for name, encoder in encoders.items():
        say(f"task: {label(name)} reads {len(lengths)} sequences")
        methods[name] = work.encoder_method(encoder)
    methods |= {RIDGE: work.ridge_kmers, BOOSTED: work.boosted_kmers, CNN: work.cnn}
    jobs = [(name, fold, assay.training(fold)) for fold in range(assay.n_folds) for name in methods]
    order = np.random.default_rng(seed).permutation(jobs[0][2])
    # Of a small table shares may be the same rows, or all.
    counts = {max(3, round(share * len(order))) for share in CURVE} - {len(order)}
    some = (np.sort(order[:size]) for size in sorted(counts))
    varied = [part for part in some if assay.rows["value"].iloc[part].nunique() > 1]
    jobs += [(name, 0, part) for part in varied for name in LEARNED_FROM_LESS]
    unknown = np.flatnonzero(~assay.is_measured)

    def predict(job: tuple[str, int, Rows]) -> Values:
        name, fold, rows = job
        say(f"task: fold {fold}, {label(name)}, learns from {len(rows)} sequences")
        return methods[name](rows, np.concatenate([assay.held_out(fold), unknown]))

    plain = {RIDGE, BOOSTED} | (set(encoders) if mode == "probe" else set())
    with threadpool_limits(THREADS):
        # Those that call no trainer can be done at the same time.
        together = iter(side_by_side(predict, [job for job in jobs if job[0] in plain]))
        guesses = [next(together) if job[0] in plain else predict(job) for job in jobs]
    tables, less = list[pd.DataFrame](), list[Metric]()
    later: dict[str, list[Values]] = {name: [] for name in methods}
    own = {name: np.full(len(assay.rows), np.nan) for name in methods}
    for (name, fold, rows), guess in zip(jobs, guesses, strict=True):
        test = assay.held_out(fold)
        table = work.table(name, fold, test, guess[: len(test)])
        if fold == 0 and name in LEARNED_FROM_LESS:
            less += task_metrics(table, split="learning_curve", n=len(rows), seed=seed)
        if len(later[name]) < assay.n_folds:
            tables.append(table)
            later[name].append(guess[len(test) :])
            own[name][test] = guess[: len(test), -1]
    predictions = pd.concat(tables, ignore_index=True)
    metrics = task_metrics(predictions, OURS, seed=seed)
    for fold, part in predictions.groupby("fold"):
        metrics += task_metrics(part, fold=int(fold), seed=seed) if assay.n_folds > 1 else []
    changed, n_own = None, len(unknown) - (0 if changes is None else len(changes))
    if changes is not None:
        at, before = np.searchsorted(unknown, changes["row"]), changes["original"].to_numpy()
        after = {name: np.stack(part)[changes["fold"], at, -1] for name, part in later.items()}
        parts = [changes.assign(model=k, predicted=v - own[k][before]) for k, v in after.items()]
        changed = pd.concat(parts, ignore_index=True).drop(columns=["original", "row"])
        scores = task_metrics(changed, OURS, seed=seed)
        kept = (one for one in scores if not one.metric.startswith("r2"))
        metrics += [one._replace(metric=f"change_{one.metric}") for one in kept]
    means = ((name, np.mean(part, 0)[:n_own]) for name, part in later.items())
    tables = [work.table(name, -1, unknown[:n_own], mean) for name, mean in means]
    unmeasured = pd.concat(tables, ignore_index=True)
    return TaskResult([*metrics, *less], predictions, unmeasured, changed, notes)


class _Work:
    """The methods on one table: from rows to learn from and rows that are wanted to numbers."""

    def __init__(self, assay: Assay, mode: str, both_strands: bool, seed: int) -> None:
        self.assay, self.mode, self.seed, rows = assay, mode, seed, assay.rows
        lengths, values = rows["length_bp"].to_numpy(), rows["value"].to_numpy()
        self.longest = int(lengths.max())
        self.unit = rows["cluster"].to_numpy()
        self.targets = values[:, None]
        if assay.classes:
            self.targets = (self.targets == np.arange(len(assay.classes))).astype(np.float64)
        strands = [assay.tokens, assay.reversed_tokens()] if both_strands else [assay.tokens]
        spare = ((0, 0), (0, -self.longest % REGION_BP))
        self.strands = [torch.from_numpy(np.pad(one, spare, constant_values=N)) for one in strands]
        self.kmers = np.sum([kmer_features(one, KMER) for one in strands], axis=0)
        self.is_flat = len(set(lengths)) == 1

    # --- simple methods ---

    def ridge_kmers(self, rows: Rows, wanted: Rows) -> Values:
        values = standardise(self.kmers, np.isin(np.arange(len(self.unit)), rows))
        return self.ridge(values, rows).predict(values[wanted])

    def ridge(self, values: np.ndarray, rows: Rows) -> RidgeFit:
        groups = self.unit[rows] % N_GROUPS
        return fit_ridge(values[rows], [self.targets[rows]], groups, PENALTIES)[0]

    def boosted_kmers(self, rows: Rows, wanted: Rows) -> Values:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        values, is_class = self.assay.rows["value"].to_numpy(), bool(self.assay.classes)
        kind = HistGradientBoostingClassifier if is_class else HistGradientBoostingRegressor
        model = kind(**BOOSTING, early_stopping=False, random_state=self.seed)
        with threadpool_limits(THREADS):
            model.fit(self.kmers[rows], values[rows])
            if not is_class:
                return model.predict(self.kmers[wanted])[:, None]
            guess = np.zeros((len(wanted), len(self.assay.classes)))
            guess[:, model.classes_.astype(int)] = model.predict_proba(self.kmers[wanted])
        return guess

    def cnn(self, rows: Rows, wanted: Rows) -> Values:
        torch.manual_seed(self.seed)
        read = adapters.SmallCnn(self.longest)
        network = TaskNetwork(read, nn.Linear(read.width, self.targets.shape[1]))
        return self.trained(network, [(one,) for one in self.strands], rows, wanted, RATES[CNN])

    # --- an encoder ---

    @torch.no_grad()
    def encoder_method(self, encoder: SequenceEncoder) -> Method:
        """The mode's method on an encoder, which reads all sequences once for all folds."""
        if isinstance(encoder, HierarchicalEncoder):
            encoder.skips_padding = True
        n_bins = -(-self.longest // encoder.bin_bp)
        read = Reader(encoder, n_bins if self.is_flat and n_bins <= MOST_BINS else 0)
        parts = [self.batched(read, (one,)) for one in self.strands]
        features = torch.stack(parts).mean(0).numpy()

        def probe(rows: Rows, wanted: Rows) -> tuple[Values, nn.Linear]:
            """Predictions, and the probe as a layer of features as they are."""
            centre, basis = principal_basis(features[rows], MOST_FEATURES, self.seed)
            values = ((features - centre) @ basis).astype(np.float64)
            fit = self.ridge(values, rows)
            weight = basis @ fit.coefficients
            layer = adapters.linear(weight, fit.intercept - centre @ weight)
            return fit.predict(values[wanted]), layer

        if self.mode == "probe":
            return lambda rows, wanted: probe(rows, wanted)[0]
        inputs: list[Strand] = [(one,) for one in self.strands]
        if self.mode != "full" and isinstance(encoder, HierarchicalEncoder):
            n_units = -(-self.longest // SUMMARY_BP)
            enter = adapters.Entrance(encoder, n_units * SUMMARY_BP)
            inputs = [
                (one, self.batched(enter, (one,)), part[:, read.n_of_bins :])
                for one, part in zip(self.strands, parts, strict=True)
            ]

        def method(rows: Rows, wanted: Rows) -> Values:
            learned, _ = self.divided(rows)
            _, layer = probe(learned, wanted)
            torch.manual_seed(self.seed)
            mine = copy.deepcopy(encoder).requires_grad_(self.mode == "full")
            if self.mode != "full":
                adapters.add_adapters(mine, cast(adapters.AdapterName, self.mode))
            reader = Reader(mine, read.n_flat)
            if len(inputs[0]) > 1 and isinstance(mine, HierarchicalEncoder):
                reader = adapters.AdaptedReader(mine, read.n_flat)
            return self.trained(TaskNetwork(reader, layer), inputs, rows, wanted, RATES[self.mode])

        return method

    def batched(self, module: nn.Module, strand: Strand) -> Tensor:
        """What a module gives for all rows."""
        rows = np.arange(len(strand[0]))
        return self.in_parts(lambda some: module(*(x[some] for x in strand)), rows)

    def in_parts(
        self, work: Callable[[Tensor], Tensor], rows: Rows, device: torch.device | None = None
    ) -> Tensor:
        """What `work` gives for some rows, a few of them at a time."""
        some = torch.from_numpy(rows).split(max(1, BATCH_BP // self.longest))
        with torch.no_grad():
            return torch.cat(side_by_side(work, some, device))

    def divided(self, rows: Rows) -> tuple[Rows, Rows]:
        """Rows to learn from, and to choose the best weights by: those of a split, or clusters."""
        is_chosen = self.assay.rows["is_validation"].to_numpy()[rows]
        if not is_chosen.any():
            clusters = np.random.default_rng(self.seed).permutation(np.unique(self.unit[rows]))
            chosen = clusters[: max(1, round(VALIDATION_SHARE * len(clusters)))]
            is_chosen = np.isin(self.unit[rows], chosen)
        return (rows, rows) if is_chosen.all() else (rows[~is_chosen], rows[is_chosen])

    def trained(
        self, network: "TaskNetwork", inputs: list[Strand], rows: Rows, wanted: Rows, rate: float
    ) -> Values:
        """Train a network on most of the rows, keep its best weights, and read what is wanted."""
        learned, chosen = self.divided(rows)
        mean, scale = self.targets[learned].mean(0), self.targets[learned].std() or 1.0
        scaled = torch.from_numpy((self.targets - mean) / scale).float()
        if isinstance(network.reader, Reader):
            network.rescale(torch.from_numpy(mean).float(), float(scale))
        per_epoch = max(1, len(learned) // BATCH)
        steps = max(EPOCHS * per_epoch, LEAST_STEPS)

        def make(step: int) -> tuple[list[Strand], Tensor]:
            epoch, at = divmod(step, per_epoch)
            order = np.random.default_rng([self.seed, epoch]).permutation(learned)
            some = torch.from_numpy(order[at * BATCH : (at + 1) * BATCH])
            return [tuple(x[some] for x in one) for one in inputs], scaled[some]

        def measure(step: int) -> float:
            guess = self.read(network, inputs, chosen)
            return float(F.mse_loss(guess, scaled[torch.from_numpy(chosen)]))

        every, module = max(per_epoch, LEAST_STEPS // EPOCHS), _Training(network, rate, steps)
        validation = Validation(
            measure, network.state_dict, lambda step: step % every == 0, patience=PATIENCE
        )
        validation.best = measure(0)
        validation.weights = {k: v.detach().clone() for k, v in network.state_dict().items()}
        train(module, steps, make, [validation])
        network.load_state_dict(validation.weights)
        return self.read(network.cpu(), inputs, wanted).double().numpy() * scale + mean

    def read(self, network: "TaskNetwork", inputs: list[Strand], rows: Rows) -> Tensor:
        """What a network gives for some rows; it comes back in its mode."""
        was_training, device = network.training, next(network.parameters()).device

        def part(some: Tensor) -> Tensor:
            return network([tuple(x[some].to(device) for x in one) for one in inputs]).cpu()

        network.eval()
        found = self.in_parts(part, rows, device)
        network.train(was_training)
        return found

    def table(self, name: str, fold: int, rows: Rows, guess: Values) -> pd.DataFrame:
        """Rows of `predictions.parquet`."""
        of, classes = self.assay.rows.iloc[rows], np.array([*self.assay.classes, ""], object)
        about = {"id": of["id"].to_numpy(), "fold": fold, "model": name, "seed": self.seed,
                 "input_bp": of["length_bp"].to_numpy(), "row": rows,
                 "unit": self.unit[rows]}  # fmt: skip
        if not self.assay.classes:
            about |= {"observed": of["value"].to_numpy(), "predicted": guess[:, 0]}
            return pd.DataFrame(about)
        observed = classes[of["value"].fillna(-1).to_numpy(int)]
        scores = {f"score:{one}": guess[:, i] for i, one in enumerate(self.assay.classes)}
        predicted = classes[guess.argmax(1)] if len(guess) else classes[:0]
        return pd.DataFrame(about | {"observed": observed, "predicted": predicted} | scores)


class _Training(LightningModule):
    def __init__(self, network: TaskNetwork, rate: float, steps: int) -> None:
        super().__init__()
        self.network, self.rate, self.steps = network, rate, steps

    def training_step(self, batch: tuple[list[Strand], Tensor], batch_idx: int) -> Tensor:
        """Mean over all targets."""
        return F.mse_loss(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW in one cycle."""
        learned = [weight for weight in self.network.parameters() if weight.requires_grad]
        settings = FinetuneConfig(weight_decay=0.01, schedule="one_cycle")
        return make_optimizer(learned, settings, self.rate, [(self.steps, 1.0)])

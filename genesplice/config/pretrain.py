"""Settings of pre-training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from genesplice.config.checks import REGION_BP, SUMMARY_BP, require, require_least

ScheduleName = Literal[
    "constant", "cosine", "one_cycle", "triangular", "triangular2", "exp_range", "warm_restarts"
]
PretrainScheduleName = Literal[ScheduleName, "plateau"]
MaskName = Literal["single", "span", "bin"]
ViewName = Literal["strand", "neighbour", "gene", "operon", "regulon"]
PretrainAblationName = Literal[
    "masked_only",
    "constant_rate",
    "shuffled_genome",
    "local_only",
    "permuted_regions",
    "kmer_tokens",
    "dilated_cnn",
]
GENE_VIEWS: tuple[ViewName, ...] = ("gene", "operon", "regulon")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Masked bases and contrastive views.

    Attributes
    ----------
    batch_windows, accumulate
        Loci of one batch over all processes, and batches of one optimiser step. With a view of
        the locus (`strand`, `neighbour`) each is encoded once more for it.
    learning_rate, schedule, lowest_rate
        Peak rate, how it changes (see `genesplice.training.schedules`), and where cycles begin,
        as a share of the peak. `plateau` needs `validation_blocks`.
    masks, masked_fraction, span_bp
        Each window takes one of `masks` by chance: single bases, spans of `span_bp`, or whole
        bins.
    repeat_weight
        What a soft-masked base counts in the loss, against 1 for any other.
    views, view_weights
        What must find what (see `genesplice.training.views`), and what each counts; no weights
        are weights of 1. `contrastive_weight` 0 leaves all of it out.
    views_every, view_windows
        Steps from one that is contrasted to the next, and loci of such a step (`batch_windows`
        where that is more). Stretches must be told from others of the same step, so few large
        steps teach more than many small ones.
    view_genes
        Pairs in a batch of each view that is made of genes.
    queue
        Vectors of earlier steps that are negatives too, per view; 0 keeps none. While the encoder
        changes fast they are told by their age, and teach nothing.
    ema_decay
        Of the running mean of the weights that is saved and scored; 0 saves the last weights.
    validation_blocks, validation_every, patience
        Share of the training blocks set aside to choose the best weights by, steps between two
        looks, and looks without a better one before the run stops; 0 sets nothing aside.
    block_bp
        Size of the blocks that a genome without genes is cut into.
    measure, measure_windows, probe_sites
        Whether a run on a bundle ends with all of `genesplice.training.measuring`, on how many
        held-out windows and on how many sites of each task.
    measure_expression
        Whether that includes expression from frozen vectors, which takes minutes.
    ablations
        What else is trained to be measured too (`genesplice.training.pretrain_ablations`);
        each costs as much again.
    """

    window_bp: int = 4096
    batch_windows: int = 8
    accumulate: int = 1
    steps: int = 400
    learning_rate: float = 2e-3
    schedule: PretrainScheduleName = "cosine"
    lowest_rate: float = 0.1
    weight_decay: float = 0.01
    masks: Sequence[MaskName] = ("span",)
    masked_fraction: float = 0.17
    span_bp: int = 1
    repeat_weight: float = 0.1
    masked_weight: float = 1.0
    contrastive_weight: float = 0.1
    contrastive_width: int = 64
    views: Sequence[ViewName] = ("strand",)
    view_weights: Sequence[float] = ()
    views_every: int = 32
    view_windows: int = 8
    view_genes: int = 16
    queue: int = 0
    temperature: float = 0.1
    shift_bp: int = 256
    ema_decay: float = 0.999
    validation_blocks: float = 0.0
    validation_every: int = 100
    patience: int = 5
    holdout_fold: int | None = 0
    block_bp: int = 100_000
    checkpoint_minutes: float = 2.0
    measure: bool = True
    measure_windows: int = 64
    probe_sites: int = 200
    measure_expression: bool = False
    ablations: Sequence[PretrainAblationName] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        # Read back from JSON they are lists.
        for name in ("masks", "views", "view_weights", "ablations"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        require(
            self.window_bp % REGION_BP == 0,
            f"pretrain.window_bp {self.window_bp}",
            f"a multiple of {REGION_BP} bp",
        )
        require(
            0 < self.masked_fraction < 1,
            f"pretrain.masked_fraction {self.masked_fraction}",
            "0 < f < 1",
        )
        at_least_one = "batch_windows", "accumulate", "steps", "span_bp", "contrastive_width"
        require_least("pretrain", self, 1, *at_least_one, "view_genes", "views_every")
        require_least("pretrain", self, 1, "view_windows")
        require_least("pretrain", self, 1, "validation_every", "patience")
        require_least("pretrain", self, 1, "block_bp", "measure_windows")
        require_least("pretrain", self, 0, "probe_sites")
        weights = "weight_decay", "masked_weight", "contrastive_weight", "repeat_weight"
        require_least("pretrain", self, 0, "learning_rate", *weights, "checkpoint_minutes", "seed")
        require_least("pretrain", self, 0, "queue", "ema_decay", "validation_blocks")
        if self.holdout_fold is not None:
            require_least("pretrain", self, 0, "holdout_fold")
        require(self.temperature > 0, f"pretrain.temperature {self.temperature}", "above 0")
        require(self.ema_decay < 1, f"pretrain.ema_decay {self.ema_decay}", "0 <= decay < 1")
        require(
            self.validation_blocks < 0.5,
            f"pretrain.validation_blocks {self.validation_blocks}",
            "0 <= share < 0.5",
        )
        require(
            self.schedule != "plateau" or self.validation_blocks > 0,
            f"pretrain.schedule plateau with pretrain.validation_blocks {self.validation_blocks}",
            "validation blocks, such as 0.1",
        )
        require(
            0 < self.lowest_rate <= 1, f"pretrain.lowest_rate {self.lowest_rate}", "0 < share <= 1"
        )
        require(
            bool(self.masks), f"pretrain.masks {self.masks}", "at least one of single, span, bin"
        )
        require(
            bool(self.views) and len(set(self.views)) == len(self.views),
            f"pretrain.views {self.views}",
            "at least one view, each once",
        )
        require(
            len(self.view_weights) in (0, len(self.views))
            and all(weight >= 0 for weight in self.view_weights),
            f"pretrain.view_weights {self.view_weights} for pretrain.views {self.views}",
            "one number from 0 for each view, or none",
        )
        require(
            not self.ablations or self.measure,
            f"pretrain.ablations {self.ablations} with pretrain.measure false",
            "ablations where they are measured",
        )
        require(
            0 <= self.shift_bp < self.window_bp // 2,
            f"pretrain.shift_bp {self.shift_bp}",
            f"less than half of pretrain.window_bp {self.window_bp}",
        )
        require(
            self.window_bp > REGION_BP or self.shift_bp < SUMMARY_BP or not self.contrastive_weight,
            f"pretrain.shift_bp {self.shift_bp} with pretrain.window_bp {self.window_bp}",
            f"less than {SUMMARY_BP} bp, or windows of {2 * REGION_BP} bp",
        )

    @property
    def active_views(self) -> dict[ViewName, float]:
        """Views that count, and what they count; empty where nothing is contrasted."""
        weights = self.view_weights or (1.0,) * len(self.views)
        found = dict(zip(self.views, weights, strict=True))
        return {n: w for n, w in found.items() if w > 0 and self.contrastive_weight > 0}

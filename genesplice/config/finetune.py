"""Settings of fine-tuning."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from genesplice.config.checks import REGION_BP, require, require_least
from genesplice.config.pretrain import ScheduleName

ModeName = Literal["probe", "head", "last_n", "lora", "ia3", "full"]
AblationName = Literal[
    "rewired",
    "no_network",
    "random_sets",
    "no_sets",
    "sequence_only",
    "random_encoder",
    "no_expression",
    "local_only",
    "permuted_regions",
    "constant_rate",
    "shuffled_pretraining",
]


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Expression from sequence, network and pathways.

    Attributes
    ----------
    core_bp, flank_bp
        Each window predicts the genes whose start codon side (TSS) lies in its core and reads
        `flank_bp` more on both sides.
    sequence_epochs, sequence_rate
        Passes over the genome before anything else, in which the encoder learns from a linear map
        of its own vectors, without network and gene sets; and the learning rate of these.
    head_steps
        Steps of readout, graph and heads over all genes while the encoder stands still.
    epochs
        Passes over the genome after these, in which everything learns.
    mode
        What learns (see `genesplice.training.finetuning`); `probe` and `head` make no such passes,
        and `last_n`, `lora` and `ia3` need one at least.
    last_n, adapter_rank
        Transformer blocks that learn in `last_n`, and the rank of `lora`.
    delta
        Write weights as the difference to the pre-trained encoder, which is then needed to load
        them.
    graph_genes, neighbours
        For graphs that do not fit: training genes of one step (None: all, on the whole graph), and
        edges of a type into each node that carry to them (None: all).
    joint_rate
        The rate of these passes, as a share of `learning_rate`.
    kernel
        Solve a kernel ridge regression on the same inputs beside what is learned, and mix both.
    folds
        Held-out folds to train for; None = all.
    seeds
        One model per fold and seed.
    ablations, ablation_seeds
        Ablations to train as well (`genesplice.training.finetune_ablations`), and their seeds.
    baselines
        Fit the simple methods on the same folds too, and measure the differences.
    """

    core_bp: int = 131072
    flank_bp: int = 8192
    batch_windows: int = 1
    sequence_epochs: int = 0
    sequence_rate: float = 4e-3
    head_steps: int = 200
    epochs: int = 2
    mode: ModeName = "full"
    last_n: int = 1
    adapter_rank: int = 8
    delta: bool = False
    graph_genes: int | None = None
    neighbours: int | None = None
    learning_rate: float = 1e-3
    joint_rate: float = 0.3
    schedule: ScheduleName = "one_cycle"
    weight_decay: float = 0.05
    profile_weight: float = 1.0
    validation_blocks: float = 0.1
    checkpoint_minutes: float = 2.0
    kernel: bool = True
    folds: tuple[int, ...] | None = None
    seeds: tuple[int, ...] = (0,)
    ablations: Sequence[AblationName] = ()
    ablation_seeds: tuple[int, ...] = (0,)
    baselines: bool = False

    def __post_init__(self) -> None:
        # Read back from JSON it is a list.
        object.__setattr__(self, "ablations", tuple(self.ablations))
        for name in ("core_bp", "flank_bp"):
            require(
                getattr(self, name) % REGION_BP == 0,
                f"finetune.{name} {getattr(self, name)}",
                f"a multiple of {REGION_BP} bp",
            )
        require_least("finetune", self, 1, "core_bp", "batch_windows")
        require_least("finetune", self, 0, "sequence_epochs", "head_steps", "epochs")
        require(
            self.head_steps + self.epochs > 0 or (self.sequence_epochs > 0 and self.kernel),
            "finetune.head_steps 0 with finetune.epochs 0",
            "at least one step, or finetune.sequence_epochs with finetune.kernel",
        )
        require(
            self.mode == "full" or self.sequence_epochs == 0,
            f"finetune.mode {self.mode} with finetune.sequence_epochs {self.sequence_epochs}",
            "mode full: the encoder learns in these passes",
        )
        require_least("finetune", self, 1, "last_n", "adapter_rank")
        require_least(
            "finetune",
            self,
            1,
            *(name for name in ("graph_genes", "neighbours") if getattr(self, name) is not None),
        )
        require(
            self.neighbours is None or self.graph_genes is not None,
            f"finetune.neighbours {self.neighbours} without finetune.graph_genes",
            "both: neighbours are drawn for the genes of a step",
        )
        stands_still = self.mode in ("probe", "head")
        require(
            self.mode == "full" or stands_still == (self.epochs == 0),
            f"finetune.mode {self.mode} with finetune.epochs {self.epochs}",
            "no passes: the encoder stands still" if stands_still else "at least one pass",
        )
        at_least_zero = (
            "sequence_rate",
            "joint_rate",
            "flank_bp",
            "learning_rate",
            "weight_decay",
            "profile_weight",
        )
        require_least("finetune", self, 0, *at_least_zero, "checkpoint_minutes")
        require(
            0 <= self.validation_blocks < 0.5,
            f"finetune.validation_blocks {self.validation_blocks}",
            "0 <= fraction < 0.5",
        )
        require(len(self.seeds) > 0, "finetune.seeds ()", "at least one seed")
        for name in ("folds", "seeds", "ablation_seeds"):
            numbers = getattr(self, name) or ()
            require(min(numbers, default=0) >= 0, f"finetune.{name} {numbers}", "at least 0 each")

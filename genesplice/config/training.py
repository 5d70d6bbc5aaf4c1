"""Settings of pre-training, fine-tuning and the context question."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from genesplice.config.model import (
    REGION_BP,
    SUMMARY_BP,
    ArchName,
    Bounds,
    Count,
    Fraction,
    Natural,
    NonNegative,
    Numbers,
    OptionalCount,
    OptionalNumbers,
    Positive,
    Section,
    SmallFraction,
)

ScheduleName = Literal[
    "constant", "cosine", "one_cycle", "triangular", "triangular2", "exp_range", "warm_restarts"
]
PretrainScheduleName = Literal[ScheduleName, "plateau"]
MaskName = Literal["single", "span", "bin"]
TargetName = Literal["base", "column"]
ViewName = Literal["strand", "neighbour", "orthologue", "gene", "operon", "regulon"]
GENE_VIEWS: tuple[ViewName, ...] = ("gene", "operon", "regulon")
DistributedName = Literal["ddp", "fsdp"]
ModeName = Literal["probe", "head", "last_n", "lora", "ia3", "full"]
PretrainAblationName = Literal[
    "masked_only", "constant_rate", "shuffled_genome", "local_only", "permuted_regions",
    "kmer_tokens", "dilated_cnn",
]  # fmt: skip
AblationName = Literal[
    "rewired", "no_network", "random_sets", "no_sets", "sequence_only", "random_encoder",
    "no_expression", "local_only", "permuted_regions", "constant_rate", "shuffled_pretraining",
    "exchanged_relatives", "far_relatives", "no_relatives",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(Section):
    """Masked bases and contrastive views.

    Attributes
    ----------
    batch_windows, accumulate
        Loci of one batch over all processes, and batches of one optimiser step. With a view of
        the locus (`strand`, `neighbour`) each is encoded once more for it.
    learning_rate, schedule, lowest_rate
        Peak rate, how it changes (see `genesplice.training.schedules`), and where cycles begin,
        as a fraction of the peak. `plateau` needs `validation_blocks`.
    muon_scale
        Size of a step of the convolutions at 1 bp and of their linear maps, which Muon takes, in
        units of the learning rate; 0 leaves them to AdamW, as all other weights.
    masks, masked_fraction, span_bp
        Each window takes one of `masks` by chance: single bases, spans of `span_bp`, or whole
        bins.
    target
        What a hidden base is to be restored to: itself, or the shares of A, C, G and T that it and
        all relatives have there, for a model that reads one genome (`model.relatives=false`).
    relatives_dropped
        Chance that a window is trained on without a group of relatives, with part of it, or
        without any: so that one model serves with every subset of them and with none.
    repeat_weight
        Weight of a soft-masked base in the loss, against 1 for any other.
    views, view_weights
        Which pairs are positives (see `genesplice.training.views`), and the weight of each; no
        weights are weights of 1. `contrastive_weight` 0 leaves all of it out.
    views_every, view_windows
        Steps from one contrastive step to the next, and loci of such a step (`batch_windows`
        where that is more). Negatives come from the same step, so few large steps teach more than
        many small ones.
    view_genes
        Pairs in a batch of each view that is made of genes.
    queue
        Vectors of earlier steps that are negatives too, per view; 0 keeps none. While the encoder
        changes fast they are recognised by their age, and teach nothing.
    ema_decay
        Of the running mean of the weights that is saved and scored; 0 saves the last weights.
    validation_blocks, validation_every, patience
        Fraction of the training blocks set aside to choose the best weights by, steps between two
        validation passes, and passes without a better one before the run stops; 0 sets nothing
        aside.
    block_bp
        Size of the blocks that a genome without genes is cut into.
    measure, measure_windows, probe_sites
        Whether a run on a bundle ends with all of `genesplice.training.evaluation`, on how many
        held-out windows and on how many sites of each task.
    measure_expression
        Whether that includes expression from frozen embeddings, which takes minutes.
    distributed
        What processes of `torchrun` share: the batches (`ddp`), or weights and the optimiser's
        state too (`fsdp`). The result is the same, and either goes on from the other's checkpoint.
    ablations
        What else is trained to be measured too (`genesplice.training.ablations`);
        each costs as much again.
    """

    window_bp: Count = 4096
    batch_windows: Count = 8
    accumulate: Count = 1
    steps: Count = 400
    learning_rate: NonNegative = 2e-3
    schedule: PretrainScheduleName = "cosine"
    lowest_rate: Positive = 0.1
    weight_decay: NonNegative = 0.01
    muon_scale: NonNegative = 0.4
    masks: Sequence[MaskName] = ("span",)
    masked_fraction: Annotated[float, Bounds(0, 1, is_open=True)] = 0.25
    span_bp: Count = 1
    target: TargetName = "base"
    relatives_dropped: Fraction = 0.4
    repeat_weight: NonNegative = 0.1
    masked_weight: NonNegative = 1.0
    contrastive_weight: NonNegative = 0.1
    contrastive_width: Count = 64
    views: Sequence[ViewName] = ("strand",)
    view_weights: Sequence[float] = ()
    views_every: Count = 32
    view_windows: Count = 8
    view_genes: Count = 16
    queue: Natural = 0
    temperature: Positive = 0.1
    shift_bp: Natural = 256
    ema_decay: Fraction = 0.999
    validation_blocks: SmallFraction = 0.0
    validation_every: Count = 100
    patience: Count = 5
    holdout_fold: Annotated[int | None, Bounds(0)] = 0
    block_bp: Count = 100_000
    checkpoint_minutes: NonNegative = 2.0
    measure: bool = True
    measure_windows: Count = 64
    probe_sites: Natural = 200
    measure_expression: bool = False
    distributed: DistributedName = "ddp"
    ablations: Sequence[PretrainAblationName] = ()
    seed: Natural = 0

    def check(self) -> None:
        """Raise `InputError` where settings contradict each other."""
        self.require_regions("window_bp")
        self.require(self.lowest_rate <= 1, ["lowest_rate"], "0 < fraction <= 1")
        can_wait = self.schedule != "plateau" or self.validation_blocks > 0
        blocks = ["schedule", "validation_blocks"]
        self.require(can_wait, blocks, "validation blocks, such as 0.1")
        self.require(bool(self.masks), ["masks"], "at least one of single, span, bin")
        self.require(bool(self.views), ["views"], "at least one view")
        are_weights = len(self.view_weights) in (0, len(self.views))
        are_weights &= min(self.view_weights, default=0) >= 0
        wanted = "one number from 0 for each view, or none"
        self.require(are_weights, ["view_weights", "views"], wanted)
        is_used, wanted = self.measure or not self.ablations, "ablations where they are measured"
        self.require(is_used, ["ablations", "measure"], wanted)
        half = f"less than half of {self.shown('window_bp')}"
        self.require(self.shift_bp < self.window_bp // 2, ["shift_bp"], half)
        is_one = self.window_bp <= REGION_BP and self.shift_bp >= SUMMARY_BP
        wanted = f"less than {SUMMARY_BP} bp, or windows of {2 * REGION_BP} bp"
        is_fitting = not (is_one and self.contrastive_weight)
        self.require(is_fitting, ["shift_bp", "window_bp"], wanted)

    @property
    def active_views(self) -> dict[ViewName, float]:
        """Views with a weight above 0; empty where nothing is contrasted."""
        weights = self.view_weights or (1.0,) * len(self.views)
        pairs = zip(self.views, weights, strict=True)
        return {view: w for view, w in pairs if w > 0 and self.contrastive_weight > 0}

    @property
    def largest_batch_bp(self) -> int:
        """Bases that all processes encode in one batch, of a contrastive step where there are."""
        views, n_windows = self.active_views, self.batch_windows
        if not views:
            return n_windows * self.window_bp
        sides = 1 + sum(name in views for name in ("strand", "neighbour", "orthologue"))
        of_genes = 2 * sum(name in views for name in GENE_VIEWS) * self.view_genes * REGION_BP
        return sides * max(n_windows, self.view_windows) * self.window_bp + of_genes

    @property
    def mean_batch_bp(self) -> float:
        """The same on average."""
        plain = self.batch_windows * self.window_bp
        return plain + (self.largest_batch_bp - plain) / self.views_every


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(Section):
    """Expression from sequence, network and pathways.

    Attributes
    ----------
    core_bp, flank_bp
        Each window predicts the genes whose start codon side (TSS) lies in its core and encodes
        `flank_bp` more on both sides.
    sequence_epochs, sequence_rate
        Passes over the genome before anything else, in which the encoder learns from a linear map
        of its own vectors, without network and gene sets; and the learning rate of these.
    head_steps
        Steps of readout, graph and heads over all genes with a frozen encoder.
    track_steps
        With tracks in place of expression: steps of their head, a window each, with a frozen
        encoder, at `sequence_rate`. The settings of network, gene sets and kernel have no effect.
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
        The rate of these passes, as a fraction of `learning_rate`.
    kernel
        Solve a kernel ridge regression on the same inputs too, and mix both predictions.
    folds
        Held-out folds to train for; None = all.
    seeds
        One model per fold and seed.
    ablations, ablation_seeds
        Ablations to train as well (`genesplice.training.ablations`), and their seeds.
    baselines
        Fit the simple methods on the same folds too, and measure the differences.
    fewest_genes
        Measured genes that are needed: of fewer, held-out scores say nothing.
    """

    core_bp: Count = 131072
    flank_bp: Natural = 8192
    batch_windows: Count = 1
    sequence_epochs: Natural = 0
    sequence_rate: NonNegative = 4e-3
    head_steps: Natural = 200
    track_steps: Count = 600
    epochs: Natural = 2
    mode: ModeName = "full"
    last_n: Count = 1
    adapter_rank: Count = 8
    delta: bool = False
    graph_genes: OptionalCount = None
    neighbours: OptionalCount = None
    learning_rate: NonNegative = 1e-3
    joint_rate: NonNegative = 0.3
    schedule: ScheduleName = "one_cycle"
    weight_decay: NonNegative = 0.05
    profile_weight: NonNegative = 1.0
    validation_blocks: SmallFraction = 0.1
    checkpoint_minutes: NonNegative = 2.0
    kernel: bool = True
    folds: OptionalNumbers = None
    seeds: Numbers = (0,)
    ablations: Sequence[AblationName] = ()
    ablation_seeds: Annotated[Sequence[int], Bounds(0)] = (0,)
    baselines: bool = False
    fewest_genes: Count = 200

    def check(self) -> None:
        """Raise `InputError` where settings contradict each other."""
        self.require_regions("core_bp", "flank_bp")
        learns = self.head_steps + self.epochs > 0 or (self.sequence_epochs > 0 and self.kernel)
        wanted = "at least one step, or finetune.sequence_epochs with finetune.kernel"
        self.require(learns, ["head_steps", "epochs"], wanted)
        is_full, is_frozen = self.mode == "full", self.mode in ("probe", "head")
        wanted = "mode full: the encoder learns in these passes"
        self.require(is_full or not self.sequence_epochs, ["mode", "sequence_epochs"], wanted)
        are_both = self.neighbours is None or self.graph_genes is not None
        wanted = "both: neighbours are drawn for the genes of a step"
        self.require(are_both, ["neighbours", "graph_genes"], wanted)
        wanted = "no passes: the encoder is frozen" if is_frozen else "at least one pass"
        self.require(is_full or is_frozen == (self.epochs == 0), ["mode", "epochs"], wanted)


@dataclass(frozen=True, kw_only=True)
class VerdictConfig(Section):
    """Context conditions, simulated controls and the rule, agreed on before either is run.

    Every condition is one small network (the sizes below; everything else as in `model`) with
    another `context_bp`: equal parameters, windows and optimiser steps.

    Attributes
    ----------
    contexts_bp
        From the shortest to the longest; one that holds the longest contig is the whole of it.
    core_bp
        Core of all windows; half of the longest context is encoded on both sides.
    epochs, learning_rate
        As `sequence_epochs` and `sequence_rate` in `finetune`.
    head_steps, validation_blocks
        As in `finetune`. Without head steps the kernel path alone predicts, and `graph_layers`
        have no effect.
    smallest_effect
        Smallest effect of interest: change of a metric per doubling of context.
    alpha, power
        Of the rule (see `genesplice.context.rule`).
    folds, seeds
        As in `finetune`; None = all folds.
    references
        Other architectures that are compared; their windows are `reference_bp` long.
    control_contexts_bp, control_domains, control_epochs, control_folds, control_seeds
    control_smallest_effect
        The same for the simulated controls, each a circular contig of `control_domains` times 8 kb.
    relatives
        Conditions read alignment columns too, as far as their context reaches. Distance dependence
        is not measured then: what is shuffled stays readable in the columns.
    perturbation_genes
        Held-out genes whose distance dependence is measured; 0 leaves this out.
    workers, threads
        Processes at once (0: as many as there are cores over `threads`) and threads of each.
    """

    contexts_bp: Annotated[Sequence[int], Bounds(512)] = (512, 4096, 32_768, 131_072)
    core_bp: Count = 131_072
    width: Count = 32
    heads: Count = 2
    bin_bp: int = 32
    bin_layers: Natural = 0
    summary_layers: Count = 1
    region_layers: Count = 1
    decoder_layers: Natural = 0
    graph_layers: Natural = 1
    epochs: Count = 8
    head_steps: Natural = 0
    learning_rate: NonNegative = 4e-3
    validation_blocks: SmallFraction = 0.2
    smallest_effect: Positive = 0.02
    alpha: Annotated[float, Bounds(0, 0.5, is_open=True)] = 0.05
    power: Annotated[float, Bounds(0, 1, is_open=True)] = 0.8
    folds: OptionalNumbers = (0,)
    seeds: Numbers = (0,)
    references: Sequence[ArchName] = ()
    reference_bp: Count = 8192
    control_contexts_bp: Annotated[Sequence[int], Bounds(512)] = (512, 262_144)
    control_domains: Annotated[int, Bounds(10)] = 32
    control_epochs: Count = 48
    control_folds: Numbers = (0,)
    control_seeds: Numbers = (0, 1, 2, 3, 4)
    control_smallest_effect: Positive = 0.02
    relatives: bool = False
    perturbation_genes: Natural = 8
    workers: Natural = 0
    threads: Count = 1

    def check(self) -> None:
        """Raise `InputError` where settings contradict each other."""
        for name in ("contexts_bp", "control_contexts_bp"):
            contexts = list(getattr(self, name))
            is_rising = len(contexts) >= 2 and contexts == sorted(contexts)
            self.require(is_rising, [name], "two contexts or more, from short to long")
        self.require_regions("core_bp", "reference_bp")
        self.require_sizes(self.bin_bp, self.width, self.heads)
        self.require("hierarchical" not in self.references, ["references"], "others")

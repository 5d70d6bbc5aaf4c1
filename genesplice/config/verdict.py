"""Settings of the context verdict."""

from collections.abc import Sequence
from dataclasses import dataclass

from genesplice.config.checks import BIN_SIZES_BP, REGION_BP, require, require_least
from genesplice.config.model import ArchName


@dataclass(frozen=True, kw_only=True)
class VerdictConfig:
    """Context conditions, simulated controls and the rule that is fixed before either is run.

    A context condition is one small network (the sizes below; everything else as in `model`) with
    one `context_bp`; all of them have equal parameters, windows and optimiser steps.

    Attributes
    ----------
    contexts_bp
        From the shortest to the longest; one that holds the longest contig is the whole of it.
    core_bp
        Core of every condition's windows; half of the longest context is added on both sides.
    epochs, learning_rate
        As `sequence_epochs` and `sequence_rate` in `finetune`, for the conditions.
    head_steps, validation_blocks
        As in `finetune`, for the conditions. Without head steps the kernel path alone predicts,
        and `graph_layers` have no effect.
    smallest_effect
        The smallest change of a metric per doubling of context that matters.
    alpha, power
        Of the rule (see `genesplice.context.rule`).
    folds, seeds
        As in `finetune`; None = all folds.
    references
        Other architectures for comparison, on windows of `reference_bp`.
    control_contexts_bp, control_domains, control_epochs, control_folds, control_seeds, control_smallest_effect
        The same for the simulated controls, each a circular contig of `control_domains` times 8 kb.
    perturbation_genes
        Held-out genes whose distance dependence is measured; 0 leaves it out.
    workers, threads
        Processes at once (0: as many as there are cores over `threads`) and threads of each.
    """

    contexts_bp: Sequence[int] = (512, 4096, 32_768, 131_072)
    core_bp: int = 131_072
    width: int = 32
    heads: int = 2
    bin_bp: int = 32
    bin_layers: int = 0
    summary_layers: int = 1
    region_layers: int = 1
    fused_layers: int = 0
    graph_layers: int = 1
    epochs: int = 8
    head_steps: int = 0
    learning_rate: float = 4e-3
    validation_blocks: float = 0.2
    smallest_effect: float = 0.02
    alpha: float = 0.05
    power: float = 0.8
    folds: tuple[int, ...] | None = (0,)
    seeds: tuple[int, ...] = (0,)
    references: Sequence[ArchName] = ()
    reference_bp: int = 8192
    control_contexts_bp: Sequence[int] = (512, 262_144)
    control_domains: int = 32
    control_epochs: int = 48
    control_folds: tuple[int, ...] = (0,)
    control_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    control_smallest_effect: float = 0.02
    perturbation_genes: int = 8
    workers: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        # Read back from JSON they are lists.
        for name in ("contexts_bp", "references", "control_contexts_bp"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("contexts_bp", "control_contexts_bp"):
            contexts = tuple(getattr(self, name))
            require(
                len(contexts) >= 2 and list(contexts) == sorted(set(contexts)),
                f"verdict.{name} {contexts}",
                "two contexts or more, from short to long",
            )
            require(contexts[0] >= 512, f"verdict.{name} {contexts[0]}", "at least 512 bp")
        for name in ("core_bp", "reference_bp"):
            require(
                getattr(self, name) % REGION_BP == 0 and getattr(self, name) > 0,
                f"verdict.{name} {getattr(self, name)}",
                f"a multiple of {REGION_BP} bp",
            )
        at_least_one = "width", "heads", "summary_layers", "region_layers", "epochs"
        require_least("verdict", self, 1, *at_least_one, "control_epochs", "threads")
        require_least("verdict", self, 0, "bin_layers", "fused_layers", "graph_layers")
        require(
            self.bin_bp in BIN_SIZES_BP, f"verdict.bin_bp {self.bin_bp}", f"one of {BIN_SIZES_BP}"
        )
        require(
            self.width % (2 * self.heads) == 0,
            f"verdict.width {self.width} with verdict.heads {self.heads}",
            "a width that is an even multiple of heads",
        )
        require(
            0 <= self.validation_blocks < 0.5,
            f"verdict.validation_blocks {self.validation_blocks}",
            "0 <= fraction < 0.5",
        )
        require_least("verdict", self, 10, "control_domains")
        require_least(
            "verdict", self, 0, "head_steps", "learning_rate", "perturbation_genes", "workers"
        )
        for name in ("smallest_effect", "control_smallest_effect"):
            value = getattr(self, name)
            require(value > 0, f"verdict.{name} {value:g}", "above 0")
        for name, high in (("alpha", 0.5), ("power", 1.0)):
            value = getattr(self, name)
            require(0 < value < high, f"verdict.{name} {value:g}", f"between 0 and {high:g}")
        for name in ("seeds", "control_folds", "control_seeds"):
            require(len(getattr(self, name)) > 0, f"verdict.{name} ()", "at least one")
        for name in ("folds", "seeds", "control_folds", "control_seeds"):
            numbers = getattr(self, name) or ()
            require(min(numbers, default=0) >= 0, f"verdict.{name} {numbers}", "at least 0 each")
        require("hierarchical" not in self.references, "verdict.references hierarchical", "others")

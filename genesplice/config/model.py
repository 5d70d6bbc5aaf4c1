"""Sizes of the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from genesplice.config.checks import BIN_SIZES_BP, require, require_least

ArchName = Literal[
    "hierarchical", "short_cnn", "dilated_cnn", "plain_attention", "kmer_tokens", "enformer_like"
]

HierarchyName = Literal["whole", "local_only", "permuted_regions"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of the network.

    Attributes
    ----------
    arch
        The encoder: this kit's own, or a reference (see `genesplice.model.references`) with
        as many layers in all.
    bin_bp
        Bases per fine token; summaries are 128 bp and regions 1,024 bp whatever the bin.
    width, heads
        Channels of every token, and attention heads (at each level).
    bin_layers, summary_layers, region_layers, fused_layers
        Transformer blocks at each level; `fused_layers` run on the bins after the coarse levels
        were added back.
    bin_window, summary_window
        Half-width of windowed attention, in tokens of that level.
    context_bp
        Total width of what an output bin may depend on, half on each side; None = everything
        in the window.
    hierarchy
        `whole`; or a null ablation of as many parameters and operations: in `local_only` summaries and
        regions hear nothing, in `permuted_regions` bins hear the regions of other places.
    base_width
        Channels of the base-resolution path (1 bp); 0 leaves it out. It decides how well masked
        bases are restored, and costs more than all attention together. With `kmer_tokens`, of what
        a token says of each of its bases; the other arms have none, or their width.
    annotation
        Feed the sense-strand coding phase and gene body as extra input channels.
    composition
        Read a gene's 4-mers, codons and length beside what the encoder says of it.
    graph_layers
        Graph attention layers; 0 leaves network and pathways out.
    neighbour_expression
        Let regulators and pathways tell the measured expression of training genes too. While
        learning, what is to be predicted is hidden.
    gene_set_collections
        Which collections of gene sets become pathway nodes.
    smallest_set, largest_set
        Genes of a set that becomes a node: fewer teach nothing, and what most genes share says
        little and costs much.
    profile_rank
        Rank of the gene x condition profile.
    is_linear
        Readout and heads are linear maps of what is read of a gene.
    dropout, head_dropout
        In the encoder; in readout, graph and heads, which see few genes many times.
    """

    arch: ArchName = "hierarchical"
    bin_bp: int = 16
    width: int = 128
    heads: int = 4
    bin_layers: int = 1
    summary_layers: int = 2
    region_layers: int = 2
    fused_layers: int = 1
    bin_window: int = 32
    summary_window: int = 32
    context_bp: int | None = None
    hierarchy: HierarchyName = "whole"
    base_width: int = 0
    annotation: bool = False
    composition: bool = True
    graph_layers: int = 1
    neighbour_expression: bool = False
    gene_set_collections: Sequence[str] = ("KEGG", "COG", "GO")
    smallest_set: int = 5
    largest_set: int = 1000
    profile_rank: int = 24
    is_linear: bool = False
    dropout: float = 0.1
    head_dropout: float = 0.3

    def __post_init__(self) -> None:
        # Read back from JSON it is a list.
        object.__setattr__(self, "gene_set_collections", tuple(self.gene_set_collections))
        require(
            self.bin_bp in BIN_SIZES_BP, f"model.bin_bp {self.bin_bp}", f"one of {BIN_SIZES_BP}"
        )
        require_least("model", self, 1, "width", "heads")
        require(
            self.width % (2 * self.heads) == 0,
            f"model.width {self.width} with model.heads {self.heads}",
            "a width that is an even multiple of heads",
        )
        at_least_one = "summary_layers", "region_layers", "bin_window", "summary_window"
        require_least(
            "model", self, 1, *at_least_one, "profile_rank", "smallest_set", "largest_set"
        )
        require_least("model", self, 0, "bin_layers", "fused_layers", "graph_layers", "base_width")
        only = self.arch != "hierarchical" and self.context_bp is not None
        require(
            not only,
            f"model.context_bp {self.context_bp} with model.arch {self.arch}",
            "the context dial with model.arch hierarchical only",
        )
        require(
            self.hierarchy == "whole" or (self.arch == "hierarchical" and self.context_bp is None),
            f"model.hierarchy {self.hierarchy} with model.arch {self.arch} and model.context_bp "
            f"{self.context_bp}",
            "an ablation of the hierarchical encoder without a dial",
        )
        for name in ("dropout", "head_dropout"):
            value = getattr(self, name)
            require(0 <= value < 1, f"model.{name} {value}", "0 <= dropout < 1")
        require(
            self.context_bp is None or self.context_bp >= 4 * self.bin_bp,
            f"model.context_bp {self.context_bp}",
            f"at least four bins ({4 * self.bin_bp} bp)",
        )

"""Sizes of the network, the bin sizes that everybody shares, and what every section checks."""

import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from genesplice.errors import require

BIN_SIZES_BP = (4, 8, 16, 32, 128)
SUMMARY_BP = 128
REGION_BP = 1024
RELATIVE_GROUPS = 3
"""Near, middle and far relatives: groups of an alignment column."""
COMPLEMENT_COUNTS = [3, 2, 1, 0, 4]
"""Of A, C, G, T and gaps in an alignment column: where the other strand's counts are."""
"""Windows start, end and are moved by whole regions."""

ArchName = Literal[
    "hierarchical", "short_cnn", "dilated_cnn", "plain_attention", "kmer_tokens", "enformer_like"
]
HierarchyName = Literal["whole", "local_only", "permuted_regions"]


@dataclass(frozen=True)
class Bounds:
    """low <= value < high, or low < value with `is_open`; of a sequence every value."""

    low: int | float
    high: int | float = math.inf
    is_open: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raise `InputError` where `value`, unless it is None, lies outside."""
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        for each in values:
            is_above = each > self.low if self.is_open else each >= self.low
            require(is_above and each < self.high, f"{name} {value}", str(self))

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"{self.low:g} {'<' if self.is_open else '<='} value < {self.high:g}"
        return f"{'above' if self.is_open else 'at least'} {self.low:g}"


class NotEmpty:
    """At least one value."""

    def check(self, name: str, value: Sequence[Any]) -> None:
        """Raise `InputError` where there is none."""
        require(len(value) > 0, f"{name} {value}", f"at least one of {name.partition('.')[2]}")


Count = Annotated[int, Bounds(1)]
OptionalCount = Annotated[int | None, Bounds(1)]
Natural = Annotated[int, Bounds(0)]
NonNegative = Annotated[float, Bounds(0)]
Positive = Annotated[float, Bounds(0, is_open=True)]
Fraction = Annotated[float, Bounds(0, 1)]
SmallFraction = Annotated[float, Bounds(0, 0.5)]
Numbers = Annotated[Sequence[int], Bounds(0), NotEmpty()]
OptionalNumbers = Annotated[Sequence[int] | None, Bounds(0)]


class Section:
    """Base of the sections of `Config`, each named after its class: `ModelConfig` is `model`.

    Bounds stand in the annotations; `check` compares fields with each other. In a list a value
    stands once: two runs of one seed are one. What is drawn from (`masks`) or weighed may repeat.
    """

    def __post_init__(self) -> None:
        for key, hint in typing.get_type_hints(type(self), include_extras=True).items():
            if isinstance(value := getattr(self, key), list):  # as JSON has it
                object.__setattr__(self, key, value := tuple(value))
            for bounds in getattr(hint, "__metadata__", ()):
                bounds.check(self.name(key), value)
            is_once = not isinstance(value, tuple) or len(set(value)) == len(value)
            self.require(is_once or key in ("masks", "view_weights"), [key], "each once")
        self.check()

    def check(self) -> None:
        """Raise `InputError` where fields contradict each other."""

    def name(self, key: str) -> str:
        """`section.key`, as on the command line."""
        return f"{type(self).__name__.removesuffix('Config').lower()}.{key}"

    def shown(self, *keys: str) -> str:
        """Names and values, joined by `with`: what an error message found."""
        return " with ".join(f"{self.name(key)} {getattr(self, key)}" for key in keys)

    def require(self, condition: bool, keys: Sequence[str], expected: str) -> None:
        """Raise `InputError` that shows `keys`, unless `condition`."""
        require(condition, self.shown(*keys), expected)

    def require_regions(self, *keys: str) -> None:
        """Each must be a whole number of regions."""
        for key in keys:
            is_whole = getattr(self, key) % REGION_BP == 0
            self.require(is_whole, [key], f"a multiple of {REGION_BP} bp")

    def require_sizes(self, bin_bp: int, width: int, heads: int) -> None:
        """The sizes of an encoder must fit each other."""
        self.require(bin_bp in BIN_SIZES_BP, ["bin_bp"], f"one of {BIN_SIZES_BP}")
        is_even = width % (2 * heads) == 0
        self.require(is_even, ["width", "heads"], "a width that is an even multiple of heads")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
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
    bin_layers, summary_layers, region_layers, decoder_layers
        Transformer blocks at each level; `decoder_layers` run on the bins after the coarse levels
        were added back.
    bin_window, summary_window
        Half-width of windowed attention, in tokens of that level.
    context_bp
        Total width of what an output bin may depend on, half on each side; None = everything
        in the window.
    hierarchy
        `whole`; or an ablation with as many parameters and operations: in `local_only` summaries
        and regions receive nothing, in `permuted_regions` bins receive other regions than theirs.
    base_width
        Channels of the base-resolution path (1 bp); 0 leaves it out. It decides how well masked
        bases are restored, and costs more than all attention together. With `kmer_tokens`, the
        channels of each base of a token; the other references have none, or their width.
    annotation
        Add the sense-strand coding phase and gene body as input channels.
    relatives
        Take the alignment columns of relatives as input channels. Without them (in the data, or
        left out in training now and then) these are zero.
    composition
        Add a gene's 4-mers, codons and length to its features from the encoder.
    graph_layers
        Graph attention layers; 0 leaves network and pathways out.
    neighbour_expression
        Messages of regulators and pathways carry the measured expression of training genes too.
        In training, what is to be predicted is hidden.
    gene_set_collections
        Which collections of gene sets become pathway nodes.
    smallest_set, largest_set
        Genes of a set that becomes a node: with fewer there is nothing to learn, and a set that
        most genes share distinguishes little and costs much.
    profile_rank
        Rank of the gene x condition profile.
    is_linear
        Readout and heads are linear maps of the gene features.
    dropout, head_dropout
        In the encoder; in readout, graph and heads, which see few genes many times.
    """

    arch: ArchName = "hierarchical"
    bin_bp: int = 16
    width: Count = 128
    heads: Count = 4
    bin_layers: Natural = 1
    summary_layers: Count = 2
    region_layers: Count = 2
    decoder_layers: Natural = 1
    bin_window: Count = 32
    summary_window: Count = 32
    context_bp: int | None = None
    hierarchy: HierarchyName = "whole"
    base_width: Natural = 0
    annotation: bool = False
    relatives: bool = False
    composition: bool = True
    graph_layers: Natural = 1
    neighbour_expression: bool = False
    gene_set_collections: Sequence[str] = ("KEGG", "COG", "GO")
    smallest_set: Count = 5
    largest_set: Count = 1000
    profile_rank: Count = 24
    is_linear: bool = False
    dropout: Fraction = 0.1
    head_dropout: Fraction = 0.3

    def check(self) -> None:
        """Raise `InputError` where sizes contradict each other."""
        self.require_sizes(self.bin_bp, self.width, self.heads)
        is_own, is_limited = self.arch == "hierarchical", self.context_bp is not None
        wanted = "a context length with model.arch hierarchical only"
        self.require(is_own or not is_limited, ["context_bp", "arch"], wanted)
        is_fitting = self.hierarchy == "whole" or (is_own and not is_limited)
        wanted = "an ablation of the hierarchical encoder without a context length"
        self.require(is_fitting, ["hierarchy", "arch", "context_bp"], wanted)
        is_long = self.context_bp is None or self.context_bp >= 4 * self.bin_bp
        self.require(is_long, ["context_bp"], f"at least four bins ({4 * self.bin_bp} bp)")

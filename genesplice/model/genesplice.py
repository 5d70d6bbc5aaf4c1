"""The whole model, from bases to expression.

window ─ both strands ─ encoder ─ bins ─ readout ─ gene vectors ─ graph ─ heads ─ expression
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int8, Int64, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from genesplice.config import ModelConfig
from genesplice.model.arms import DilatedCnn, EnformerLike, KmerTokens, PlainAttention, ShortCnn
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.graph import EdgeAttention, GeneGraph
from genesplice.model.heads import ContrastiveHead, ExpressionHead, MaskedBaseHead, Prediction
from genesplice.model.readout import GeneReadout, base_weights, segment_weights
from genesplice.model.sequence import EncoderOutput, SequenceEncoder

__all__ = ["GeneSplice", "PretrainingModel", "make_encoder", "reverse_complement"]

FLAT: dict[str, Any] = {
    "plain_attention": PlainAttention,
    "kmer_tokens": KmerTokens,
    "enformer_like": EnformerLike,
}
MODEL_CARD = """---
library_name: genesplice
license: mit
tags: [genomics, gene-expression]
---
# A GeneSplice model

Predicts log2(TPM + 1) per gene and condition from DNA, a gene network and pathways.
Load it with `genesplice.GeneSplice.from_pretrained(DIR)`; `config.json` has its sizes, the
conditions it predicts and the regulators and pathways it knows. Scores on held-out genes are in
`metrics.json` where the training command wrote them. It answers for the genome and the
conditions it was trained on, and for nothing else.
"""


def reverse_complement(tokens: UInt8[Tensor, "batch length"]) -> UInt8[Tensor, "batch length"]:
    """The other strand, 5' to 3'; N and masked bases stay what they are."""
    flipped = tokens.flip(1)
    return torch.where(flipped < 4, 3 - flipped, flipped)


def make_encoder(config: ModelConfig) -> SequenceEncoder:
    """Build the encoder that `config` describes."""
    sizes: dict[str, Any] = {
        "bin_bp": config.bin_bp, "width": config.width, "annotation": config.annotation
    }  # fmt: skip
    if config.arch == "short_cnn":
        return ShortCnn(**sizes)
    if config.arch == "dilated_cnn":
        return DilatedCnn(**sizes)
    if config.arch in FLAT:
        layers = (
            config.bin_layers + config.summary_layers + config.region_layers + config.fused_layers
        )
        return FLAT[config.arch](**sizes, heads=config.heads, layers=layers, dropout=config.dropout)
    return HierarchicalEncoder(
        **sizes,
        heads=config.heads,
        bin_layers=config.bin_layers,
        summary_layers=config.summary_layers,
        region_layers=config.region_layers,
        fused_layers=config.fused_layers,
        bin_window=config.bin_window,
        summary_window=config.summary_window,
        context_bp=config.context_bp,
        base_width=config.base_width,
        dropout=config.dropout,
    )


class GeneSplice(nn.Module, PyTorchModelHubMixin, library_name="genesplice"):
    """Sequence, network and pathways to expression.

    Parameters
    ----------
    sizes
        Of the network; kept as `config`.
    conditions
        Names of the conditions, in the order of the prediction's columns.
    regulators, effectors, pathways
        Node names that get a learned vector (see `GeneGraph`).
    """

    def __init__(
        self,
        sizes: ModelConfig,
        conditions: Sequence[str],
        regulators: Sequence[str] = (),
        effectors: Sequence[str] = (),
        pathways: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.config, self.conditions = sizes, tuple(conditions)
        self.encoder = make_encoder(sizes)
        self.readout = GeneReadout(sizes.width, sizes.head_dropout, self.encoder.base_width)
        self.graph = GeneGraph(
            sizes.width,
            sizes.heads,
            sizes.graph_layers,
            regulators=regulators,
            effectors=effectors,
            pathways=pathways,
            dropout=sizes.head_dropout,
        )
        self.expression_head = ExpressionHead(
            sizes.width, len(conditions), sizes.profile_rank, sizes.head_dropout
        )

    def encode_strands(
        self,
        tokens: UInt8[Tensor, "batch length"],
        phase: UInt8[Tensor, "batch 2 length"],
    ) -> EncoderOutput:
        """Encode + strands, then - strands (each 5' to 3'), as 2 x batch rows."""
        both = torch.cat([tokens, reverse_complement(tokens)])
        return self.encoder(
            both,
            torch.cat([phase[:, 0], phase[:, 1].flip(1)]),
            with_bases=self.encoder.base_width > 0,
        )

    def gene_vectors(
        self,
        tokens: UInt8[Tensor, "batch length"],
        phase: UInt8[Tensor, "batch 2 length"],
        window: Int64[Tensor, " genes"],
        start: Int64[Tensor, " genes"],
        end: Int64[Tensor, " genes"],
        strand: Int8[Tensor, " genes"],
        *,
        is_pooled: bool = False,
    ) -> Float[Tensor, "genes width"]:
        """One vector for every gene of the windows, read on its sense strand.

        `start` and `end` count from the window's start and may lie outside; what is outside is
        not read. `is_pooled` asks for the segment means that the readout starts from.
        """
        return self.read_genes(
            self.encode_strands(tokens, phase),
            window,
            start,
            end,
            strand,
            n_windows=len(tokens),
            is_pooled=is_pooled,
        )

    def read_genes(
        self,
        encoded: EncoderOutput,
        window: Int64[Tensor, " genes"],
        start: Int64[Tensor, " genes"],
        end: Int64[Tensor, " genes"],
        strand: Int8[Tensor, " genes"],
        *,
        n_windows: int,
        is_pooled: bool = False,
    ) -> Float[Tensor, "genes width"]:
        """Gene vectors from rows as `encode_strands` orders them: + strands, then - strands."""
        places = window, start, end, strand
        length = encoded.bins.shape[1] * self.config.bin_bp
        size: dict[str, Any] = {"n_windows": n_windows, "length": length}
        at_bins = segment_weights(*places, **size, bin_bp=self.config.bin_bp)
        at_bases = base_weights(*places, **size) if encoded.bases is not None else None
        read = self.readout.pool if is_pooled else self.readout
        return read(encoded.bins, at_bins, encoded.bases, at_bases)

    def forward(
        self,
        genes: Float[Tensor, "all_genes width"],
        graph: HeteroData,
        rows: Int64[Tensor, " genes"] | None = None,
    ) -> Prediction:
        """Predict from the vectors of all genes of the graph, for `rows` of them (or all)."""
        return self.predict(genes, graph, rows)[0]

    def predict(
        self,
        genes: Float[Tensor, "all_genes width"],
        graph: HeteroData,
        rows: Int64[Tensor, " genes"] | None = None,
    ) -> tuple[Prediction, list[dict[str, EdgeAttention]]]:
        """As `forward`, with the graph's attention on every edge, one dict a layer."""
        informed, attention = self.graph(genes, graph)
        if rows is not None:
            informed = informed[rows]
        return self.expression_head(informed), attention

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **arguments: Any) -> "GeneSplice":
        """Load a local folder's safetensors; anything else goes the hub's own way."""
        weights = Path(model_id) / "model.safetensors"
        if not weights.is_file():
            return super()._from_pretrained(model_id=model_id, **arguments)
        names = inspect.signature(cls).parameters
        model = cls(**{name: arguments[name] for name in names if name in arguments})
        model.load_state_dict(load_file(weights))
        return model

    def generate_model_card(self, *args, **kwargs):
        """The card that `save_pretrained` writes beside the weights."""
        from huggingface_hub import ModelCard

        return ModelCard(MODEL_CARD)


class PretrainingModel(nn.Module):
    """An encoder with the two self-supervised heads."""

    def __init__(self, config: ModelConfig, contrastive_width: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = make_encoder(config)
        self.masked_bases: nn.Module = (
            nn.Linear(self.encoder.base_width, 4)
            if self.encoder.base_width
            else MaskedBaseHead(config.width, config.bin_bp)
        )
        self.contrastive = ContrastiveHead(config.width, contrastive_width)

    def encode(self, tokens: UInt8[Tensor, "batch length"]) -> EncoderOutput:
        """Encode masked `tokens`, at 1 bp too where there is a path for it."""
        return self.encoder(tokens, with_bases=True)

    def base_logits(self, encoded: EncoderOutput) -> Float[Tensor, "batch length 4"]:
        """Logits over A, C, G, T for every base."""
        finest = encoded.bins if encoded.bases is None else encoded.bases
        return self.masked_bases(finest)

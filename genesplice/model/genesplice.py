"""The whole model, from bases to expression.

window ─ both strands ─ encoder ─ gene features ─┬─ readout ─ graph ─ heads ─┬─ expression
                                                 └─ kernel to training genes ┘
"""

import copy
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int8, Int64, UInt8
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from genesplice.config import ModelConfig
from genesplice.model.adapters import load_weights
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.graph import EdgeAttention, GeneGraph
from genesplice.model.heads import ContrastiveHead, ExpressionHead, MaskedBaseHead, Prediction
from genesplice.model.kernel import TARGETS, InnerProducts, KernelPath
from genesplice.model.readout import GeneReadout, sense_loci
from genesplice.model.references import REFERENCES
from genesplice.model.sequence import (
    Columns,
    EncoderOutput,
    SequenceEncoder,
    Tokens,
    reverse_columns,
)

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


Phase = UInt8[Tensor, "batch 2 length"]
Features = Float[Tensor, "all_genes features"]
Rows = Int64[Tensor, " genes"]
Attention = list[dict[str, EdgeAttention]]


def reverse_complement(tokens: Tokens) -> Tokens:
    """The other strand, 5' to 3'; N and masked bases stay what they are."""
    flipped = tokens.flip(1)
    return torch.where(flipped < 4, 3 - flipped, flipped)


def make_encoder(config: ModelConfig) -> SequenceEncoder:
    """Build the encoder that `config` describes."""
    return REFERENCES.get(config.arch, HierarchicalEncoder)(config)


def mix_paths(neural: Prediction, kernel: Prediction, mix: Float[Tensor, "2"]) -> Prediction:
    """Predictions of both paths; `mix` is the kernel's weight for level and residual."""
    pairs = zip(neural, kernel, mix, strict=True)
    return Prediction(*(one + weight * (other - one) for one, other, weight in pairs))


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
    n_support
        Training genes of the kernel path; 0 leaves it out.
    measured_genes
        Training genes whose expression goes into messages, with `sizes.neighbour_expression`.

    Attributes
    ----------
    cache_folder
        Where vectors of all genes may be kept (see `genesplice.predict.expression`), for a model
        that was loaded from a folder.
    """

    mix: Tensor
    cache_folder: Path | None = None

    def __init__(
        self,
        sizes: ModelConfig,
        conditions: Sequence[str],
        regulators: Sequence[str] = (),
        effectors: Sequence[str] = (),
        pathways: Sequence[str] = (),
        n_support: int = 0,
        measured_genes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.config, self.conditions = sizes, tuple(conditions)
        self.encoder = make_encoder(sizes)
        self.readout = GeneReadout(sizes, self.encoder.base_width)
        n_measured = min(sizes.profile_rank, len(conditions)) + 1 if measured_genes else 0
        named = regulators, effectors, pathways, measured_genes
        self.graph = GeneGraph(sizes, *named, n_measured)
        shape = sizes.width, len(conditions), sizes.profile_rank
        self.expression_head = ExpressionHead(*shape, sizes.head_dropout, sizes.is_linear)
        self.kernel = KernelPath(
            self.readout.parts, self.graph.knowledge_parts, len(conditions), n_support
        )
        self.register_buffer("mix", torch.zeros(2))

    # --- sequence ---

    def gene_features(
        self,
        tokens: Tokens,
        phase: Phase,
        window: Rows,
        start: Rows,
        end: Rows,
        strand: Int8[Tensor, " genes"],
        exons: Int64[Tensor, "exons 3"] | None = None,
        columns: Columns | None = None,
    ) -> Float[Tensor, "genes features"]:
        """Features of every gene of the windows, on its sense strand (see `GeneReadout`).

        `start`, `end` and `exons` (number of the gene, start, end; without them each gene is one)
        count from the window's start and may lie outside; what is outside is left out.
        """
        n_windows, length = tokens.shape
        # + strands, then - strands, each 5' to 3'.
        both = torch.cat([tokens, reverse_complement(tokens)])
        phases = torch.cat([phase[:, 0], phase[:, 1].flip(1)])
        aligned = None
        if columns is not None and self.encoder.channels.relatives:
            aligned = torch.cat([columns, reverse_columns(columns)])
        encoded = self.encoder(both, phases, aligned, with_bases=self.encoder.base_width > 0)
        genes = sense_loci(window, start, end, strand, exons, n_windows=n_windows, length=length)
        return self.readout.pool(encoded, genes)

    # --- graph and heads ---

    def forward(
        self, gene_features: Features, graph: HeteroData, rows: Rows | None = None
    ) -> Prediction:
        """Predict from the features of all genes of the graph, for `rows` of them (or all)."""
        return self.predict(gene_features, graph, rows)[0]

    def predict(
        self, gene_features: Features, graph: HeteroData, rows: Rows | None = None
    ) -> tuple[Prediction, Attention]:
        """As `forward`, with the graph's attention on every edge, one dict a layer."""
        neural, attention = self.predict_neural(gene_features, graph, rows)
        if not self.kernel.n_support:
            return neural, attention
        inputs = self.kernel_inputs(gene_features, graph, rows)
        return mix_paths(neural, self.kernel(*inputs), self.mix), attention

    def predict_neural(
        self, gene_features: Features, graph: HeteroData, rows: Rows | None = None
    ) -> tuple[Prediction, Attention]:
        """From readout, graph and heads alone; `predict` mixes it with the kernel path."""
        informed, attention = self.graph(self.readout(gene_features), graph)
        return self.expression_head(informed if rows is None else informed[rows]), attention

    def predict_target(
        self,
        target: str,
        gene_features: Features,
        graph: HeteroData,
        rows: Rows | None = None,
        compared: InnerProducts | None = None,
    ) -> Float[Tensor, "genes *conditions"]:
        """Only the level, or only the residual, of `forward`.

        `compared` is `KernelPath.compare` of the same genes, which is worth keeping for several
        graphs.
        """
        at = TARGETS.index(target)
        neural = self.predict_neural(gene_features, graph, rows)[0][at]
        if not self.kernel.n_support:
            return neural
        standardised, known = self.kernel_inputs(gene_features, graph, rows)
        if compared is None:
            compared = self.kernel.compare(target, standardised)
        kernel = self.kernel.predict_target(target, compared, known)
        return neural + self.mix[at] * (kernel - neural)

    def kernel_inputs(
        self, gene_features: Features, graph: HeteroData, rows: Rows | None = None
    ) -> tuple[Float[Tensor, "genes features"], Float[Tensor, "genes known"]]:
        """Inputs of the kernel path: standardised features, and what the graph has of each gene."""
        known = graph["gene"].knowledge
        if rows is not None:
            gene_features, known = gene_features[rows], known[rows]
        return self.readout.standardise(gene_features), known.to(gene_features)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **arguments: Any) -> "GeneSplice":
        """Load a local folder's safetensors, a delta too; anything else goes the hub's own way."""
        weights = Path(model_id) / "model.safetensors"
        if not weights.is_file():
            return super()._from_pretrained(model_id=model_id, **arguments)
        names = inspect.signature(cls).parameters
        model = cls(**{name: arguments[name] for name in names if name in arguments})
        model.load_state_dict(load_weights(weights))
        return model

    def generate_model_card(self, *args, **kwargs):
        """The card that `save_pretrained` writes with the weights."""
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

    def encode(self, tokens: Tokens, columns: Columns | None = None) -> EncoderOutput:
        """Encode masked `tokens`, at 1 bp too where there is a path for it."""
        return self.encoder(tokens, columns=columns, with_bases=True)

    forward = encode  # whose call brings divided weights together

    def reading(self, *groups: int) -> "PretrainingModel":
        """The same weights, which read these groups of relatives only (none: the genome alone)."""
        model = copy.copy(self)
        model._modules = dict(self._modules, encoder=copy.copy(self.encoder))
        channels = copy.deepcopy(self.encoder.channels)
        channels.groups_read.zero_()[list(groups)] = 1
        model.encoder._modules = dict(self.encoder._modules, channels=channels)
        return model

    def base_logits(self, encoded: EncoderOutput) -> Float[Tensor, "batch length 4"]:
        """Logits over A, C, G, T for every base."""
        finest = encoded.bins if encoded.bases is None else encoded.bases
        return self.masked_bases(finest)

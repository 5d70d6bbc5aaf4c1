"""Attributions of several genes, as tables and as checks."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from genesplice.data.bundle import Bundle
from genesplice.data.genome import decode
from genesplice.explain.methods import attribute_gene
from genesplice.model.genesplice import GeneSplice
from genesplice.predict.gene_output import Explainer, Reference, resolve_genes
from genesplice.results import Attribution, Metric


def integrated_gradients(
    model: GeneSplice,
    bundle: Bundle,
    genes: Sequence[str],
    *,
    condition: str | None = None,
    baseline: Reference = "uniform",
    steps: int = 32,
    window_bp: int = 8192,
) -> list[Attribution]:
    """Explain several genes, given by id or name (see `Explainer.explain`)."""
    explainer = Explainer(model, bundle, window_bp=window_bp)
    return [
        attribute_gene(explainer, gene_id, condition=condition, baseline=baseline, steps=steps)
        for gene_id in resolve_genes(bundle, genes)
    ]


def attribution_table(attributions: Sequence[Attribution]) -> pd.DataFrame:
    """One row a base; `position_bp` counts from the TSS along the sense strand."""
    tables = [
        pd.DataFrame(
            {
                "gene_id": found.gene_id,
                "name": found.name,
                "target": found.target,
                "position_bp": np.arange(len(found.values)) + found.offset_bp,
                "base": list(decode(found.tokens)),
                "value": found.values,
            }
        )
        for found in attributions
    ]
    return pd.concat(tables, ignore_index=True)


def completeness_metrics(
    attributions: Sequence[Attribution], *, model: str = "genesplice"
) -> list[Metric]:
    """Per gene |delta| / |output - baseline|, and the median over genes."""
    relative = [found.relative_delta for found in attributions]
    metrics = [
        Metric(f"completeness_delta:{found.gene_id}", value, None, None, 1, model, "explained")
        for found, value in zip(attributions, relative, strict=True)
    ]
    median = float(np.median(relative))
    return [
        Metric("completeness_delta", median, None, None, len(relative), model, "explained"),
        *metrics,
    ]

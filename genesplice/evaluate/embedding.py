"""What an encoder makes of each gene's start, and how to look at it."""

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA

from genesplice.data.bundle import Bundle
from genesplice.data.windows import group_windows, make_batch, tile_windows
from genesplice.model.genesplice import reverse_complement
from genesplice.model.sequence import SequenceEncoder

__all__ = ["embed_promoters", "principal_components"]


@torch.no_grad()
def embed_promoters(
    encoder: SequenceEncoder,
    bundle: Bundle,
    *,
    upstream_bp: int = 256,
    downstream_bp: int = 64,
    core_bp: int = 65_536,
    flank_bp: int = 4_096,
) -> pd.DataFrame:
    """Mean bin vector over each gene's promoter, read on its sense strand.

    From `upstream_bp` before the TSS to `downstream_bp` after it; no annotation channel is used.
    Rows are genes by `gene_id`, in the order of `bundle.genes`.
    """
    was_training = encoder.training
    encoder.eval()
    found = np.zeros((len(bundle.genes), encoder.width), np.float32)
    for group in group_windows(tile_windows(bundle.genome, core_bp, flank_bp), 1):
        batch = make_batch(bundle.genome, group, bundle.genes)
        length = batch.tokens.shape[1]
        strands = encoder(torch.cat([batch.tokens, reverse_complement(batch.tokens)])).bins
        forward = batch.strand > 0
        tss = torch.where(forward, batch.start, length - batch.end)
        first = ((tss - upstream_bp) // encoder.bin_bp).clamp(0, strands.shape[1] - 1)
        last = ((tss + downstream_bp) // encoder.bin_bp + 1).clamp(1, strands.shape[1])
        for gene, is_forward, low, high in zip(batch.gene, forward, first, last, strict=True):
            found[gene] = strands[int(not is_forward), low:high].mean(0).numpy()
    encoder.train(was_training)
    return pd.DataFrame(found, index=pd.Index(bundle.genes["gene_id"], name="gene_id"))


def principal_components(vectors: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Columns x and y: the first two principal components of standardised columns."""
    spread = vectors.std().replace(0, 1)
    points = PCA(2, random_state=seed).fit_transform((vectors - vectors.mean()) / spread)
    return pd.DataFrame(points.astype(np.float64), index=vectors.index, columns=["x", "y"])

"""What an encoder makes of each gene's start, and how to look at it."""

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA

from genesplice.data.bundle import Bundle
from genesplice.data.features import kmer_features, site_windows
from genesplice.errors import InputError
from genesplice.model.sequence import SequenceEncoder
from genesplice.runtime import side_by_side


@torch.no_grad()
def embed_promoters(
    encoder: SequenceEncoder,
    bundle: Bundle,
    genes: pd.Index | None = None,
    *,
    upstream_bp: int = 512,
    downstream_bp: int = 512,
    window_bp: int = 1024,
    batch_bp: int = 65_536,
) -> pd.DataFrame:
    """Mean vector over each gene's promoter, read on its sense strand.

    From `upstream_bp` before the TSS to `downstream_bp` after it, in a window of its own with the
    TSS in its middle: the mean over bins and, where the encoder works at 1 bp, the mean over
    bases. No annotation channel is used. The encoder comes back in the mode that it was in.

    Parameters
    ----------
    genes
        gene_ids to embed, in this order; all of `bundle.genes` unless told otherwise.

    Raises
    ------
    InputError
        For a gene that is not in the bundle, or a promoter that is not made of whole bins inside
        of the window.
    """
    table = bundle.genes.set_index("gene_id")
    genes = table.index if genes is None else genes
    if len(missing := genes.difference(table.index)):
        raise InputError(f"gene {missing[0]!r}", f"one of the genes of {bundle.name}")
    bin_bp, middle = encoder.bin_bp, window_bp // 2
    if upstream_bp % bin_bp or downstream_bp % bin_bp or max(upstream_bp, downstream_bp) > middle:
        raise InputError(
            f"a promoter of {upstream_bp} + {downstream_bp} bp in {window_bp} bp",
            f"multiples of {bin_bp} bp, up to half of the window",
        )
    sites = table.loc[genes, ["contig", "tss", "strand"]].rename(columns={"tss": "position"})
    first, last = middle - upstream_bp, middle + downstream_bp
    device, was_training = next(encoder.parameters()).device, encoder.training
    encoder.eval()
    size = max(1, batch_bp // window_bp)

    def embed(start: int) -> np.ndarray:
        windows = site_windows(bundle.genome, sites[start : start + size], window_bp)
        found = encoder(torch.from_numpy(windows).to(device), with_bases=encoder.base_width > 0)
        means = [found.bins[:, first // bin_bp : last // bin_bp].mean(1)]
        if found.bases is not None:
            means.append(found.bases[:, first:last].mean(1))
        return torch.cat(means, 1).float().cpu().numpy()

    parts = side_by_side(embed, range(0, len(sites), size), device)
    encoder.train(was_training)
    none = np.empty((0, encoder.width + encoder.base_width), np.float32)
    return pd.DataFrame(np.concatenate([none, *parts]), index=pd.Index(genes, name="gene_id"))


def promoter_kmers(bundle: Bundle, genes: pd.Index, window_bp: int) -> pd.DataFrame:
    """4-mer counts of `window_bp` with each gene's TSS in the middle, on its sense strand."""
    table = bundle.genes.set_index("gene_id").loc[genes, ["contig", "tss", "strand"]]
    windows = site_windows(bundle.genome, table.rename(columns={"tss": "position"}), window_bp)
    return pd.DataFrame(kmer_features(windows), index=pd.Index(genes, name="gene_id"))


def principal_components(vectors: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Columns x and y: the first two principal components of standardised columns."""
    spread = vectors.std().replace(0, 1)
    points = PCA(2, random_state=seed).fit_transform((vectors - vectors.mean()) / spread)
    return pd.DataFrame(points.astype(np.float64), index=vectors.index, columns=["x", "y"])

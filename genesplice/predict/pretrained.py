"""What a pre-trained encoder knows: bases that are hidden from it, and embeddings of promoters."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from safetensors.torch import load_file
from torch import Tensor

from genesplice.config import ModelConfig, PretrainConfig
from genesplice.data.bundle import Bundle
from genesplice.data.features import kmer_features, site_windows
from genesplice.errors import InputError
from genesplice.model.genesplice import PretrainingModel, reverse_complement
from genesplice.model.sequence import SequenceEncoder
from genesplice.runtime import side_by_side


def load_pretrained(directory: Path) -> PretrainingModel:
    """Load an encoder with its masked-base and contrastive heads, ready to be asked.

    Raises
    ------
    InputError
        If the folder holds no finished run, or one that this version cannot read.
    """
    for name in ("run.json", "model.safetensors"):
        if not (directory / name).is_file():
            raise InputError(f"no {name}", "a folder that pretrain wrote", path=directory)
    try:
        settings = json.loads((directory / "run.json").read_text())
        sizes = ModelConfig(**settings["model"])
        width = PretrainConfig(**settings["pretrain"]).contrastive_width
        model = PretrainingModel(sizes, width)
        model.load_state_dict(load_file(directory / "model.safetensors"))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        first = str(error).splitlines()[0][:120]
        raise InputError(
            f"a run that cannot be read ({first})", "one of this version", path=directory
        ) from error
    return model.eval()


def encoder_sentence(init: Path, folds: Sequence[int]) -> str:
    """Which of the held-out `folds` an encoder has read; of random weights where `init` is none."""
    settings = _settings(init)
    if settings is None:
        return "The encoder has random weights: it was not pre-trained."
    held_out = settings["holdout_fold"]
    seen = [fold for fold in folds if fold != held_out]
    if not seen:
        return f"The encoder was pre-trained without the sequence of fold {held_out}."
    unseen = "" if held_out not in folds else f"; of fold {held_out} it has read nothing"
    return (
        "The encoder has read the sequence, never the expression, of the genes that are held out "
        f"in {'folds' if len(seen) > 1 else 'fold'} {', '.join(map(str, seen))}{unseen}."
    )


def check_views_held_out(init: Path | None, folds: Sequence[int]) -> None:
    """See that no held-out gene was told its operon or regulon in pre-training.

    Raises
    ------
    InputError
        If the encoder in `init` had views of operons or regulons, and one of `folds` was not held
        out from them.
    """
    settings = None if init is None else _settings(init)
    if settings is None or not settings["contrastive_weight"]:
        return
    told = [view for view in settings["views"] if view in ("operon", "regulon")]
    seen = [fold for fold in folds if fold != settings["holdout_fold"]]
    if told and seen:
        raise InputError(
            f"an encoder with views of {' and '.join(told)} for held-out fold {seen[0]}",
            f"finetune.folds={settings['holdout_fold']}, which pre-training held out",
            path=init,
        )


def _settings(init: Path) -> dict[str, Any] | None:
    path = init / "run.json"
    return json.loads(path.read_text())["pretrain"] if path.exists() else None


def base_log_probabilities(
    model: PretrainingModel, tokens: UInt8[Tensor, "batch length"], *, is_strand_averaged: bool
) -> Float[Tensor, "batch length 4"]:
    """Log-probabilities of A, C, G, T for every base, as far as the model can see.

    With `is_strand_averaged` the other strand is read too, and the mean of both strands'
    log-probabilities made to add up to 1 again: the answer is then the same on either strand.
    """
    logits = model.base_logits(model.encode(tokens)).float()
    found = F.log_softmax(logits, -1)
    if is_strand_averaged:
        other = model.base_logits(model.encode(reverse_complement(tokens))).float()
        # Read backwards, and A for T, C for G.
        found = F.log_softmax((found + F.log_softmax(other, -1).flip(1, 2)) / 2, -1)
    return found


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
    # Imported here: it takes a second.
    from sklearn.decomposition import PCA

    spread = vectors.std().replace(0, 1)
    points = PCA(2, random_state=seed).fit_transform((vectors - vectors.mean()) / spread)
    return pd.DataFrame(points.astype(np.float64), index=vectors.index, columns=["x", "y"])

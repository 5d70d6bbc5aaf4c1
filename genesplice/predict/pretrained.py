"""What a pre-trained encoder knows: bases that are hidden from it, and embeddings of promoters."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from genesplice.config import ModelConfig, PretrainConfig
from genesplice.config.model import REGION_BP
from genesplice.data.bundle import Bundle
from genesplice.data.features import (
    kmer_features,
    one_hot_features,
    site_columns,
    site_windows,
    tss_sites,
)
from genesplice.data.genome import Genome
from genesplice.data.knowledge import trained_on
from genesplice.errors import InputError, require
from genesplice.model.adapters import read_weights
from genesplice.model.genesplice import PretrainingModel, reverse_complement
from genesplice.model.sequence import Columns, EncoderOutput, SequenceEncoder, reverse_columns
from genesplice.runtime import side_by_side

ENCODER_SIZES = (
    "arch", "bin_bp", "width", "heads", "bin_layers", "summary_layers", "region_layers",
    "decoder_layers", "bin_window", "summary_window", "base_width", "annotation",
)  # fmt: skip
BINS_BP, CODON_BP, BASES_BP = 128, 3, (24, 126)
BATCH_BP = 65_536


@contextmanager
def reading(folder: Path, verb: str, *names: str) -> Iterator[None]:
    """Read a model from files that `verb` wrote.

    Raises
    ------
    InputError
        If one of them is missing, or is not of this version: which folder, and why.
    """
    for name in names:
        require((folder / name).is_file(), f"no {name}", f"a folder that {verb} wrote", folder)
    try:
        yield
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        found = f"a model that cannot be read ({str(error).splitlines()[0][:120]})"
        raise InputError(found, "one of this version", path=folder) from error


def load_pretrained(directory: Path) -> PretrainingModel:
    """Load an encoder with its masked-base and contrastive heads, ready to use.

    Raises
    ------
    InputError
        If the folder holds no finished run, or one that this version cannot read.
    """
    with reading(directory, "pretrain", "run.json", "model.safetensors"):
        settings = json.loads((directory / "run.json").read_text())
        sizes = ModelConfig(**settings["model"])
        width = PretrainConfig(**settings["pretrain"]).contrastive_width
        model = PretrainingModel(sizes, width)
        model.load_state_dict(read_weights(directory / "model.safetensors"))
    return model.eval()


def encoder_sentence(init: Path | None, folds: Sequence[int]) -> str:
    """Which of the held-out `folds` an encoder has read; of random weights where `init` is none."""
    settings = _settings(init)
    if settings is None:
        return "The encoder has random weights: it was not pre-trained."
    held_out = settings["holdout_fold"]
    seen = [str(fold) for fold in folds if fold != held_out]
    if not seen:
        return f"The encoder was pre-trained without the sequence of fold {held_out}."
    unseen = "" if held_out not in folds else f"; of fold {held_out} it has read nothing"
    return (
        "The encoder has read the sequence, never the expression, of the genes that are held out "
        f"in fold{'s' if len(seen) > 1 else ''} {', '.join(seen)}{unseen}."
    )


def check_views_held_out(init: Path | None, folds: Sequence[int], genome: Genome) -> None:
    """See that pre-training had no views of operons or regulons of held-out genes.

    An encoder that was pre-trained on another genome than `genome` had none.

    Raises
    ------
    InputError
        If the encoder in `init` had such views, and one of `folds` was not held out from them.
    """
    settings = None if init is None else _settings(init)
    if init is None or settings is None or not settings["contrastive_weight"]:
        return
    if trained_on(init, genome):
        return
    views = [view for view in settings["views"] if view in ("operon", "regulon")]
    seen = [fold for fold in folds if fold != settings["holdout_fold"]]
    if views and seen:
        raise InputError(
            f"an encoder with views of {' and '.join(views)} for held-out fold {seen[0]}",
            f"finetune.folds={settings['holdout_fold']}, which pre-training held out",
            path=init,
        )


def encoder_reads_relatives(init: Path) -> bool | None:
    """Whether the encoder in `init` has learned with alignment columns; None where nobody knows.

    Raises
    ------
    InputError
        If the record of its run is damaged.
    """
    settings = _settings(init)
    return None if settings is None else bool(settings["sizes"].get("relatives", False))


def encoder_sizes(init: Path) -> dict[str, Any]:
    """The model settings that the encoder in `init` was made with; nothing where nobody knows.

    Raises
    ------
    InputError
        If the record of its run is damaged.
    """
    sizes = {} if (settings := _settings(init)) is None else settings["sizes"]
    return {name: sizes[name] for name in ENCODER_SIZES if name in sizes}


def window_read(init: Path | None) -> int:
    """Bases of the windows that an encoder has learned from; without one those of the presets.

    Raises
    ------
    InputError
        If the record of its run is damaged.
    """
    settings = _settings(init)
    return PretrainConfig().window_bp if settings is None else int(settings["window_bp"])


def _settings(init: Path | None) -> dict[str, Any] | None:
    if init is None or not (path := init / "run.json").exists():
        return None
    try:
        record = json.loads(path.read_text())
        settings, sizes = record["pretrain"], dict(record.get("model", {}))
        known = {name: settings[name] for name in ("holdout_fold", "contrastive_weight", "views")}
        window_bp = settings.get("window_bp", PretrainConfig().window_bp)
        return known | {"window_bp": window_bp, "sizes": sizes}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"a damaged {path.name}", "one of this version", path=init) from error


def base_log_probabilities(
    model: PretrainingModel,
    tokens: UInt8[Tensor, "batch length"],
    columns: Columns | None = None,
    *,
    is_strand_averaged: bool,
) -> Float[Tensor, "batch length 4"]:
    """Log-probabilities of A, C, G, T for every base, as far as the model can see.

    With `is_strand_averaged` the other strand is read too, and the mean of both strands'
    log-probabilities made to add up to 1 again: the answer is then the same on either strand.
    """
    logits = model.base_logits(model.encode(tokens, columns)).float()
    log_probs = F.log_softmax(logits, -1)
    if is_strand_averaged:
        columns = None if columns is None else reverse_columns(columns)
        other = model.base_logits(model.encode(reverse_complement(tokens), columns)).float()
        # Read backwards, and A for T, C for G.
        both = log_probs + F.log_softmax(other, -1).flip(1, 2)
        log_probs = F.log_softmax(both / 2, -1)
    return log_probs


def embed_promoters(
    encoder: SequenceEncoder,
    bundle: Bundle,
    genes: pd.Index | None = None,
    *,
    upstream_bp: int = 512,
    downstream_bp: int = 512,
    window_bp: int = 1024,
    batch_bp: int = BATCH_BP,
) -> pd.DataFrame:
    """Mean vector over each gene's promoter, read on its sense strand.

    From `upstream_bp` before the TSS to `downstream_bp` after it, in a window of its own with the
    TSS in its middle: the mean over bins and, where the encoder works at 1 bp, the mean over
    bases. No annotation channel is used. The encoder comes back in the mode that it was in.

    Parameters
    ----------
    genes
        gene_ids to embed, in this order; None: all of `bundle.genes`.

    Raises
    ------
    InputError
        For a gene that is not in the bundle, or a promoter that is not made of whole bins inside
        of the window.
    """
    known = pd.Index(bundle.genes["gene_id"])
    genes = known if genes is None else genes
    if len(missing := genes.difference(known)):
        raise InputError(f"gene {missing[0]!r}", f"one of the genes of {bundle.name}")
    bin_bp, middle = encoder.bin_bp, window_bp // 2
    if upstream_bp % bin_bp or downstream_bp % bin_bp or max(upstream_bp, downstream_bp) > middle:
        raise InputError(
            f"a promoter of {upstream_bp} + {downstream_bp} bp in {window_bp} bp",
            f"multiples of {bin_bp} bp, up to half of the window",
        )
    first, last = middle - upstream_bp, middle + downstream_bp

    def pool(output: EncoderOutput) -> list[Tensor]:
        bases = [] if output.bases is None else [output.bases[:, first:last].mean(1)]
        return [output.bins[:, first // bin_bp : last // bin_bp].mean(1), *bases]

    sites = tss_sites(bundle, genes)
    width = encoder.width + encoder.base_width
    values = _encode_sites(encoder, bundle.genome, sites, window_bp, batch_bp, pool, width)
    return pd.DataFrame(values, index=pd.Index(genes, name="gene_id"))


def encoder_features(
    encoder: SequenceEncoder, bundle: Bundle, sites: pd.DataFrame
) -> Float[np.ndarray, "sites features"]:
    """Vectors of a frozen encoder near each site, read on the site's strand, for linear probes.

    Every site gets a window of its own of 1,024 bp with the site in its middle, so that it has the
    same position in its bin everywhere. From left to right:

    - the mean over the bins within 128 bp, and the bin that the site begins;
    - where the encoder works at 1 bp, the site's own base, and six means over bases: within 24 and
      within 126 bp, those 0, 1 and 2 beyond a multiple of three from the site. Their plain mean is
      a linear function of them; alone it would blur the reading frame.

    (Ranges chosen by left-out blocks of the training folds, with a quick encoder of E. coli; they
    are no wider than what `reference_features` count k-mers in.) No annotation
    channel is used. The encoder comes back in the mode that it was in; sites that tasks share are
    read once.
    """

    def pool(output: EncoderOutput) -> list[Tensor]:
        bins, bases = output.bins, output.bases
        middle, half = bins.shape[1] // 2, max(1, BINS_BP // encoder.bin_bp)
        near = [bins[:, middle - half : middle + half].mean(1), bins[:, middle]]
        if bases is not None:
            middle = bases.shape[1] // 2
            near.append(bases[:, middle])
            for half in BASES_BP:
                codons = bases[:, middle - half : middle + half].unflatten(1, (-1, CODON_BP))
                near.append(codons.mean(1).flatten(1))
        return near

    keys = ["contig", "position", "strand"]
    number, unique = sites.groupby(keys, sort=False).ngroup(), sites[keys].drop_duplicates()
    width = 2 * encoder.width + (1 + 2 * CODON_BP) * encoder.base_width
    values = _encode_sites(encoder, bundle.genome, unique, REGION_BP, BATCH_BP, pool, width)
    return values[number.to_numpy()].astype(np.float64)


def reference_features(
    genome: Genome, sites: pd.DataFrame
) -> dict[str, Float[np.ndarray, "sites _"]]:
    """`kmers`: 4-mers of 256 bp around each site; `one_hot`: 64 bp around it. On its strand."""
    return {
        "kmers": kmer_features(site_windows(genome, sites, 128, 128)),
        "one_hot": one_hot_features(site_windows(genome, sites, 32, 32)),
    }


@torch.no_grad()
def _encode_sites(
    encoder: SequenceEncoder,
    genome: Genome,
    sites: pd.DataFrame,
    window_bp: int,
    batch_bp: int,
    pool: Callable[[EncoderOutput], list[Tensor]],
    width: int,
) -> Float[np.ndarray, "sites features"]:
    """What `pool` takes of the hidden states around each site, `width` numbers side by side."""
    device, was_training = next(encoder.parameters()).device, encoder.training
    size, half = max(1, batch_bp // window_bp), window_bp // 2

    def encode(start: int) -> Float[np.ndarray, "batch features"]:
        part, columns = (genome, sites[start : start + size], half, window_bp - half), None
        tokens = torch.from_numpy(site_windows(*part)).to(device)
        if encoder.channels.relatives:
            columns = torch.from_numpy(site_columns(*part)).to(device)
        output = encoder(tokens, columns=columns, with_bases=encoder.base_width > 0)
        return torch.cat(pool(output), 1).float().cpu().numpy()

    encoder.eval()
    parts = side_by_side(encode, range(0, len(sites), size), device)
    encoder.train(was_training)
    return np.concatenate([np.empty((0, width), np.float32), *parts])


def promoter_kmers(bundle: Bundle, genes: pd.Index, window_bp: int) -> pd.DataFrame:
    """4-mer counts of `window_bp` with each gene's TSS in the middle, on its sense strand."""
    half = window_bp // 2
    windows = site_windows(bundle.genome, tss_sites(bundle, genes), half, window_bp - half)
    return pd.DataFrame(kmer_features(windows), index=pd.Index(genes, name="gene_id"))


def principal_components(vectors: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Columns x and y: the first two principal components of standardised columns."""
    # Imported here: it takes a second.
    from sklearn.decomposition import PCA

    spread = vectors.std().replace(0, 1)
    points = PCA(2, random_state=seed).fit_transform((vectors - vectors.mean()) / spread)
    return pd.DataFrame(points.astype(np.float64), index=vectors.index, columns=["x", "y"])

"""What an encoder said of every gene, kept beside the models that share it.

Reading a genome takes minutes, and every verb that opens a model needs the same vectors. They are
kept under a digest of all that they depend on, so that what is found is what would be computed;
a folder without them is only slower.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from genesplice.data.bundle import Bundle
from genesplice.model.genesplice import GeneSplice
from genesplice.runtime import atomic_file

__all__ = ["keep_vectors", "kept_vectors", "vectors_digest", "vectors_folder"]

NAME = "vectors"
READ = ["contig", "start", "end", "strand", "tss", "biotype"]
"""Of a gene, what its window and its annotation channel depend on."""


def vectors_folder(model: Path) -> Path:
    """Where the vectors lie of the model in folder `model`, and of those beside it."""
    return model.resolve().parent / NAME


def vectors_digest(model: GeneSplice, bundle: Bundle, core_bp: int, flank_bp: int) -> str:
    """Digest of encoder, sizes, genome, genes and windows: the same digest, the same vectors."""
    digest = hashlib.sha256()
    sizes = {"model": dataclasses.asdict(model.config), "core_bp": core_bp, "flank_bp": flank_bp}
    contigs = [contig._asdict() for contig in bundle.genome.contigs]
    digest.update(json.dumps([sizes, contigs], sort_keys=True, default=str).encode())
    digest.update(np.ascontiguousarray(bundle.genome.tokens).data)
    digest.update(pd.util.hash_pandas_object(bundle.genes[READ]).to_numpy().tobytes())
    for name, weight in sorted(model.encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:24]


def kept_vectors(folder: Path, digest: str) -> Float[Tensor, "genes joined"] | None:
    """What was kept in `folder` under this digest; None where nothing whole is there."""
    try:
        return load_file(folder / f"{digest}.safetensors")[NAME]
    except (FileNotFoundError, SafetensorError):
        return None


def keep_vectors(folder: Path, digest: str, vectors: Float[Tensor, "genes joined"]) -> None:
    """Keep vectors in `folder` under their digest, where they are not there yet."""
    target = folder / f"{digest}.safetensors"
    if not target.exists():
        with atomic_file(target) as partial:
            save_file({NAME: vectors.cpu().contiguous()}, partial)

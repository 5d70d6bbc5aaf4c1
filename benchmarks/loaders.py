"""Reading windows: this kit's tokens, and letters through pyfaidx with a dictionary."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genesplice.config import ModelConfig
from genesplice.data.genome import Contig, Genome, decode
from genesplice.data.simulate import make_bundle
from genesplice.data.windows import annotation_track, make_batch, tile_windows
from genesplice.model.genesplice import GeneSplice
from genesplice.predict.expression import encode_genes

__all__ = ["KIT", "PYFAIDX", "make_reader", "measure_public_against_bare"]

KIT, PYFAIDX = "uint8 tokens", "pyfaidx and a dictionary"
GENOME_BP, WINDOW_BP = 4_000_000, 196_608
ONE_HOT = dict(zip("ACGTN", np.vstack([np.eye(4), np.full((1, 4), 0.25)]), strict=True))

Reader = Callable[[int], Any]


@contextmanager
def make_reader(name: str, folder: Path) -> Iterator[Reader]:
    """A function from a number to the window of that number; odd ones are reverse complements."""
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, 4, GENOME_BP).astype(np.uint8)
    starts = generator.integers(0, GENOME_BP - WINDOW_BP, 1000)
    if name == KIT:
        np.save(folder / "genome.npy", tokens)
        mapped = np.load(folder / "genome.npy", mmap_mode="r")
        genome = Genome(mapped, (Contig("chr", 0, GENOME_BP, False),))

        def read(number: int) -> Any:
            start = int(starts[number % len(starts)])
            return genome.fetch("chr", start, start + WINDOW_BP, "-" if number % 2 else "+")

        yield read
        return
    from pyfaidx import Fasta

    path = folder / "genome.fa"
    letters = decode(tokens)
    lines = (letters[at : at + 60] for at in range(0, len(letters), 60))
    path.write_text(">chr\n" + "\n".join(lines) + "\n")
    with Fasta(str(path)) as fasta:

        def read_letters(number: int) -> Any:
            start = int(starts[number % len(starts)])
            window = fasta["chr"][start : start + WINDOW_BP]
            window = -window if number % 2 else window
            return np.stack([ONE_HOT[letter] for letter in window.seq.upper()])

        yield read_letters


def measure_public_against_bare(folder: Path) -> dict[str, float]:
    """CPU seconds of `encode_genes`, and of the same encoder and readout over ready batches."""
    bundle = make_bundle(folder / "bundle", n_genes=400, genome_bp=524_288)
    torch.manual_seed(0)
    model = GeneSplice(ModelConfig(width=128, heads=4), list(bundle.observed.columns)).eval()
    track = annotation_track(bundle.genome, bundle.genes)
    windows = tile_windows(bundle.genome, 131_072, 8_192)
    batches = [make_batch(bundle.genome, [window], bundle.genes, track) for window in windows]

    def bare() -> None:
        with torch.no_grad():
            for tokens, phase, _, *place in batches:
                model.gene_features(tokens, phase, *place)

    works = {"public": lambda: encode_genes(model, bundle), "bare": bare}
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(4):
        for name, work in works.items():
            gc.collect()
            began = time.process_time()
            work()
            taken[name].append(time.process_time() - began)
    # The first round warms up.
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}

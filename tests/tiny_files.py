"""Small hand-made genomes, gene tables and files that the tests of the data stage share."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from genesplice.data.annotation import make_genes
from genesplice.data.genome import Contig, Genome
from genesplice.errors import InputError


def random_genome(*lengths: int, circular: bool = False, seed: int = 0) -> Genome:
    """Contigs c0, c1, … of random bases."""
    tokens = np.random.default_rng(seed).integers(0, 4, sum(lengths)).astype(np.uint8)
    offsets = np.cumsum([0, *lengths]).tolist()
    contigs = [Contig(f"c{i}", offsets[i], n, circular) for i, n in enumerate(lengths)]
    return Genome(tokens, tuple(contigs))


def gene_table(genome: Genome, *places: tuple[Any, ...]) -> pd.DataFrame:
    """Genes g0, g1, … from (start, end, strand[, contig[, biotype]])."""
    filled = [(*place, *("c0", "protein_coding")[len(place) - 3 :]) for place in places]
    rows = [(f"g{i}", f"name{i}", c, s, e, st, b) for i, (s, e, st, c, b) in enumerate(filled)]
    columns = ["gene_id", "name", "contig", "start", "end", "strand", "biotype"]
    return make_genes(pd.DataFrame(rows, columns=columns), genome)


def spaced_genes(
    genome: Genome, every: int, length: int = 300, strand: str | None = None
) -> pd.DataFrame:
    """A gene of `length` bp in the middle of each `every` bp of each contig."""
    places = [
        (start, start + length, strand or "+-"[i % 2], contig.name)
        for contig in genome.contigs
        for i, start in enumerate(range((every - length) // 2, contig.length - length, every))
    ]
    return gene_table(genome, *places)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def write_truncated(path: Path, text: str) -> Path:
    """A gzip file without its last bytes, as an interrupted download leaves it."""
    return write(path, gzip.compress(text.encode())[:-12])


def refusal(call: Callable[..., Any], path: Path, *args: Any, **kwargs: Any) -> InputError:
    """The error of `call(path, …)`: an InputError of one line that begins with the file."""
    with pytest.raises(InputError) as caught:
        call(path, *args, **kwargs)
    error = caught.value
    where = str(path) if error.line is None else f"{path}:{error.line}"
    assert str(error) == f"{where}: found {error.found}, expected {error.expected}"
    assert "\n" not in str(error)
    assert error.exit_code == 2
    return error


def write_bigwig(path: Path, values: dict[str, Any], lengths: dict[str, int]) -> Path:
    """`values` by contig, a number a base, NaN for no entry."""
    pybigtools = pytest.importorskip("pybigtools")
    rows = [(name, i, i + 1, float(v)) for name in sorted(values)
            for i, v in enumerate(values[name]) if not np.isnan(v)]  # fmt: skip
    pybigtools.open(str(path), "w").write(dict(lengths), iter(rows))
    return path

"""In-silico mutagenesis: what each base change, or the loss of a stretch, does to a prediction."""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from genesplice.data.ablation import dinucleotide_shuffle
from genesplice.errors import InputError
from genesplice.explain.incremental import SplicedEncoder
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.readout import base_weights, segment_weights
from genesplice.predict.gene_output import Explainer, GeneOutput
from genesplice.results import Attribution
from genesplice.runtime import atomic_file

STEP_BP = 8
Progress = Callable[[str], None]


class Mutagenesis(NamedTuple):
    """What every single-base change does to one predicted number of one gene.

    `effects[i, b]` is the prediction with base b at place i less the one without (`output`); 0 for
    the base that is there, NaN where it is an N. Place 0 lies `offset_bp` from the TSS, sense
    strand.
    """

    gene_id: str
    name: str
    target: str
    offset_bp: int
    tokens: UInt8[np.ndarray, " length"]
    effects: Float[np.ndarray, "length 4"]
    output: float

    @property
    def importance(self) -> Float[np.ndarray, " length"]:
        """How much the base that is there adds, beside the mean of the other three; 0 for N."""
        return np.nan_to_num(-self.effects.sum(1) / 3)


class VariantOutput:
    """The predicted number of a gene for variants of a stretch of its window.

    Exact for every encoder; under the hierarchical one only what a change touches is recomputed.
    """

    def __init__(self, function: GeneOutput) -> None:
        self.function, encoder = function, function.model.encoder
        self.spliced: SplicedEncoder | None = None
        if isinstance(encoder, HierarchicalEncoder) and not encoder.permutes_regions:
            inputs = torch.cat([function.bases, function.annotation], -1)
            with torch.no_grad():
                self.spliced = SplicedEncoder(
                    encoder,
                    inputs,
                    function.is_real,
                    _read_bins(function),
                    with_bases=encoder.base_width > 0,
                )

    @torch.no_grad()
    def __call__(
        self, low_bp: int, bases: Float[Tensor, "variants changed 4"]
    ) -> Float[Tensor, " variants"]:
        """Predict with `bases` in place of what starts at `low_bp` of the window."""
        if self.spliced is None:
            return self.in_full(low_bp, bases)
        first_bp = self.spliced.bins[0] * self.function.model.config.bin_bp
        return self.function.read(self.spliced.encode(low_bp, bases), first_bp)

    @torch.no_grad()
    def in_full(
        self, low_bp: int, bases: Float[Tensor, "variants changed 4"]
    ) -> Float[Tensor, " variants"]:
        """The same by encoding the whole window for each variant."""
        whole = self.function.bases.repeat(len(bases), 1, 1)
        whole[:, low_bp : low_bp + bases.shape[1]] = bases
        return self.function(whole)


def _read_bins(function: GeneOutput) -> tuple[int, int]:
    """The bins of the window that the readout of its gene looks at."""
    window, bin_bp = function.window, function.model.config.bin_bp
    length = window.tokens.shape[1]
    place = (
        torch.zeros(1, dtype=torch.long),
        torch.tensor([window.start]),
        torch.tensor([window.end]),
        torch.ones(1, dtype=torch.int8),
    )
    at_bins = segment_weights(*place, n_windows=1, length=length, bin_bp=bin_bp).column
    at_bases = base_weights(*place, n_windows=1, length=length).column // bin_bp
    columns = torch.cat([at_bins, at_bases])
    return int(columns.min()), int(columns.max()) + 1


def mutate(
    explainer: Explainer,
    gene_id: str,
    *,
    upstream_bp: int = 300,
    downstream_bp: int = 100,
    condition: str | None = None,
) -> Mutagenesis:
    """Replace every base from `upstream_bp` before the TSS to `downstream_bp` after it.

    Raises
    ------
    InputError
        If the stretch is empty or leaves the explainer's window.
    """
    window = explainer.window(gene_id)
    low, high = window.start - upstream_bp, window.start + downstream_bp
    if not 0 <= low < high <= explainer.window_bp:
        raise InputError(
            f"-{upstream_bp} to +{downstream_bp} bp of {window.name}",
            f"a stretch inside its window, {window.offset_bp} to "
            f"{window.offset_bp + explainer.window_bp} bp",
        )
    function = explainer.forward_function(window, condition)
    output = VariantOutput(function)
    tokens = window.tokens[0, low:high]
    reference = float(output(low, function.bases[:, low : low + 1]))
    effects = torch.zeros(high - low, 4, dtype=torch.float64)
    effects[tokens > 3] = torch.nan
    # Cut where bins are cut, so that a batch touches as few of them as it can.
    edges = sorted({low, high, *range(low - low % STEP_BP + STEP_BP, high, STEP_BP)})
    for first, last in itertools.pairwise(edges):
        stretch = window.tokens[0, first:last]
        places, bases = _substitutions(stretch)
        if len(places):
            variants = function.bases[:, first:last].repeat(len(places), 1, 1)
            variants[torch.arange(len(places)), places] = torch.eye(4)[bases]
            found = output(first, variants).double() - reference
            effects[first - low + places, bases] = found
    return Mutagenesis(
        gene_id,
        window.name,
        function.target,
        -upstream_bp,
        tokens.numpy(),
        effects.numpy(),
        reference,
    )


def _substitutions(stretch: UInt8[Tensor, " length"]) -> tuple[Tensor, Tensor]:
    """Places and new bases of all single changes of what is no N."""
    place, base = torch.meshgrid(torch.arange(len(stretch)), torch.arange(4), indexing="ij")
    is_change = (base != stretch[:, None]) & (stretch[:, None] < 4)
    return place[is_change], base[is_change]


def mutagenesis_attribution(found: Mutagenesis) -> Attribution:
    """The importance of each base as an attribution; there is no sum that it should keep to."""
    return Attribution(
        gene_id=found.gene_id,
        name=found.name,
        target=found.target,
        method="in-silico mutagenesis",
        baseline="the other three bases",
        offset_bp=found.offset_bp,
        tokens=found.tokens,
        values=found.importance,
        output=found.output,
        baseline_output=float("nan"),
        delta=float("nan"),
    )


def mutation_table(found: Sequence[Mutagenesis]) -> pd.DataFrame:
    """One row a base: the change of the prediction for each base that could stand there."""
    tables = [
        pd.DataFrame(
            {
                "gene_id": one.gene_id,
                "name": one.name,
                "target": one.target,
                "position_bp": np.arange(len(one.tokens)) + one.offset_bp,
                "base": ["ACGTN"[min(token, 4)] for token in one.tokens],
                **{f"to_{base}": one.effects[:, i] for i, base in enumerate("ACGT")},
            }
        )
        for one in found
    ]
    return pd.concat(tables, ignore_index=True)


def attribution_of_table(table: pd.DataFrame) -> list[Attribution]:
    """The importance of each base (see `Mutagenesis`) for every gene of a mutation table."""
    found = []
    for gene_id, part in table.groupby("gene_id", sort=False):
        effects = part[[f"to_{base}" for base in "ACGT"]].to_numpy(np.float64)
        one = Mutagenesis(
            str(gene_id),
            str(part["name"].iloc[0]),
            str(part["target"].iloc[0]),
            int(part["position_bp"].iloc[0]),
            np.array(["ACGTN".index(base) for base in part["base"]], dtype=np.uint8),
            effects,
            float("nan"),
        )
        found.append(mutagenesis_attribution(one))
    return found


def scan_genes(
    explainer: Explainer,
    genes: Sequence[str],
    out: Path,
    *,
    upstream_bp: int = 300,
    downstream_bp: int = 100,
    condition: str | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """`mutate` for many genes, one file a gene under `out`; those that are there are not redone.

    A run that is stopped goes on where it was.

    Raises
    ------
    InputError
        If `out` holds a scan with another model, window, stretch or condition.
    """
    tell = progress or (lambda text: None)
    out.mkdir(parents=True, exist_ok=True)
    _claim(out, explainer, f"-{upstream_bp} to +{downstream_bp} bp, {condition or 'level'}")
    tables = []
    for done, gene_id in enumerate(genes):
        file = out / f"{gene_id}.parquet"
        if not file.exists():
            found = mutate(
                explainer,
                gene_id,
                upstream_bp=upstream_bp,
                downstream_bp=downstream_bp,
                condition=condition,
            )
            with atomic_file(file) as partial:
                mutation_table([found]).to_parquet(partial, index=False)
        tables.append(pd.read_parquet(file))
        if (done + 1) % 20 == 0:
            tell(f"ism: {done + 1} of {len(genes)} genes")
    return pd.concat(tables, ignore_index=True)


def _claim(out: Path, explainer: Explainer, what: str) -> None:
    """Note in `out` what is scanned there, or check that it is the same."""
    digest = hashlib.sha256()
    for name, value in sorted(explainer.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().contiguous().numpy().tobytes())
    mine = f"{what}, window {explainer.window_bp} bp, model {digest.hexdigest()[:16]}"
    note = out / "scan.txt"
    if note.exists() and note.read_text() != mine:
        raise InputError(f"a scan of {note.read_text()}", mine, path=out)
    note.write_text(mine)


def knock_out(
    explainer: Explainer,
    gene_id: str,
    *,
    tile_bp: int = 256,
    n_shuffles: int = 4,
    condition: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Shuffle one tile of the window after another and see what the prediction loses.

    Dinucleotides are kept. Columns: gene_id, name, start_bp and end_bp (half-open, from the TSS on
    the sense strand), distance_bp (from the TSS to the nearest base of the tile), effect (mean
    over shuffles) and size (mean of its absolute value).

    Raises
    ------
    InputError
        If the window is no whole number of tiles, or there are no shuffles.
    """
    if tile_bp < 2 or explainer.window_bp % tile_bp or n_shuffles < 1:
        raise InputError(
            f"tile_bp {tile_bp} with {n_shuffles} shuffles",
            f"a divisor of the window, {explainer.window_bp} bp, and at least 1 shuffle",
        )
    window = explainer.window(gene_id)
    function = explainer.forward_function(window, condition)
    output, generator = VariantOutput(function), np.random.default_rng([seed, window.row])
    reference = float(output(0, function.bases[:, :1]))
    rows = []
    for low in range(0, explainer.window_bp, tile_bp):
        tokens = window.tokens[0, low : low + tile_bp].numpy()
        shuffled = [dinucleotide_shuffle(tokens, generator) for _ in range(n_shuffles)]
        channels = explainer.model.encoder.channels(
            torch.from_numpy(np.stack(shuffled)),
            window.phase[:, low : low + tile_bp].expand(n_shuffles, -1),
        )
        change = (output(low, channels[..., :4]).double() - reference).numpy()
        start = low + window.offset_bp
        distance = 0 if start <= 0 < start + tile_bp else min(abs(start), abs(start + tile_bp - 1))
        rows.append((start, start + tile_bp, distance, change.mean(), np.abs(change).mean()))
    table = pd.DataFrame(rows, columns=["start_bp", "end_bp", "distance_bp", "effect", "size"])
    table.insert(0, "gene_id", gene_id)
    table.insert(1, "name", window.name)
    return table

"""In-silico mutagenesis: what each base change does to a prediction, exactly.

A window is encoded once. A variant computes anew only the tokens around its changed bases, the
regions (they are few), and the bins that the readout of the gene uses.
"""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from genesplice.data.genome import decode
from genesplice.errors import InputError, WorkError
from genesplice.model.attention import make_plan, rope
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.readout import GeneLoci, base_weights, segment_weights
from genesplice.model.sequence import EncoderOutput, fill_unknown
from genesplice.predict.gene_output import Explainer, GeneOutput
from genesplice.results import Attribution
from genesplice.runtime import atomic_file

STEP_BP = 8
TO_BASES = [f"to_{base}" for base in "ACGT"]
Span = tuple[int, int]


class Level(NamedTuple):
    """One level run over all of its tokens; `states[i]` enters block i, the last one leaves all."""

    blocks: nn.ModuleList
    half_window: int | None
    is_real: Bool[Tensor, "batch tokens"]
    states: list[Float[Tensor, "batch tokens width"]]

    @property
    def output(self) -> Float[Tensor, "batch tokens width"]:
        """What the next level receives: 0 for tokens that are not real."""
        return self.states[-1] * self.is_real[..., None]


def run_level(
    blocks: nn.ModuleList,
    x: Float[Tensor, "batch tokens width"],
    is_real: Bool[Tensor, "#batch tokens"],
    half_window: int | None,
    head_width: int,
) -> Level:
    """Attention among the real tokens of one level, `half_window` to each side (None: all)."""
    real, states = is_real.expand(len(x), -1), [x]
    plan, rotations = make_plan(real, half_window), rope(x.shape[1], head_width, x.device)
    for block in blocks:
        states.append(block(states[-1], plan, rotations))
    return Level(blocks, half_window, real, states)


def splice(
    old: Float[Tensor, "1 tokens width"],
    new: Float[Tensor, "variants changed width"],
    at: int,
    low: int,
    high: int,
) -> Float[Tensor, "variants span width"]:
    """Tokens low to high of `old` in every variant, with its `new` ones from `at` on."""
    part = old[:, low:high].repeat(len(new), 1, 1)
    first, last = max(at, low), min(at + new.shape[1], high)
    if first < last:
        part[:, first - low : last - low] = new[:, first - at : last - at]
    return part


class SplicedEncoder:
    """One strand of one window under `encoder`, all levels at hand, to be encoded with changes.

    Parameters
    ----------
    inputs
        Channels of the unchanged window.
    bins
        Which bins a later `encode` gives back.

    Raises
    ------
    WorkError
        If regions are permuted: what a change touches is not near it.
    """

    def __init__(
        self,
        encoder: HierarchicalEncoder,
        inputs: Float[Tensor, "1 length channels"],
        is_real: Bool[Tensor, "1 bins"],
        bins: Span,
        *,
        with_bases: bool = False,
    ) -> None:
        if encoder.permutes_regions:
            raise WorkError("permuted regions: what a change touches is not near it")
        self.encoder, self.is_real, self.bins = encoder, is_real, bins
        self.path = encoder.base_path if with_bases else None
        self.left, self.right = encoder.margins
        self.padded = fill_unknown(inputs, self.left, self.right)
        self.per_summary, self.per_region = encoder.to_summaries.factor, encoder.to_regions.factor
        context = encoder.context
        entered, self.fine = self._enter(self.padded, is_real)
        self.first = self._run(encoder.bin_blocks, entered, is_real, context.bin_half)
        real = is_real.unflatten(1, (-1, self.per_summary)).any(-1)
        merged = encoder.to_summaries(self.first.output, is_real)[0]
        if not context.sees_summaries:
            merged, real = torch.zeros_like(merged), torch.ones_like(real)
        self.summaries = self._run(encoder.summary_blocks, merged, real, context.summary_half)
        self.regions = self._regions(self.summaries.output)
        received = self._from_coarse(self.summaries.output, self.regions)
        fused = (self.first.output + received) * is_real[..., None]
        self.last = self._run(encoder.decoder_blocks, fused, is_real, context.bin_half)

    def _run(self, blocks: nn.ModuleList, x: Tensor, is_real: Tensor, half: int | None) -> Level:
        return run_level(blocks, x, is_real, half, self.encoder.head_width)

    def _changed(self, level: Level, new: Tensor, at: int, whole: int = 1) -> tuple[int, Tensor]:
        """What a level gives where `new` tokens from `at` on change it, in groups of `whole`."""
        n_tokens = level.is_real.shape[1]
        reach = len(level.blocks) * min(level.half_window or n_tokens, n_tokens)
        first = max(at - reach, 0) // whole * whole
        last = min(-(-(at + new.shape[1] + reach) // whole) * whole, n_tokens)
        low, high = max(first - reach, 0), min(last + reach, n_tokens)
        x = splice(level.states[0], new, at, low, high)
        ran = self._run(level.blocks, x, level.is_real[:, low:high], level.half_window)
        return first, ran.output[:, first - low : last - low]

    def _enter(
        self, x: Float[Tensor, "variants longer channels"], real: Bool[Tensor, "1 bins"]
    ) -> tuple[Tensor, Tensor | None]:
        """Bins before any attention, and vectors at 1 bp folded by bin, from padded channels."""
        encoder, path = self.encoder, self.encoder.base_path
        stop = x.shape[1] - self.right
        bins = encoder.stem(x[:, self.left - encoder.stem.left : stop + encoder.stem.right])
        if path is None:
            return bins * real[..., None], None
        fine = path.down(x[:, self.left - path.down_bp : stop + path.down_bp])
        bins = bins + path.to_bins(fine)
        return bins * real[..., None], fine.reshape(*bins.shape[:2], -1) * real[..., None]

    def _regions(self, summaries: Float[Tensor, "variants summaries width"]) -> Level:
        """All regions; zeros enter where the context shuts them off."""
        encoder, real = self.encoder, self.summaries.is_real.expand(len(summaries), -1)
        regions, real = encoder.to_regions(summaries, real)
        if not encoder.context.sees_regions:
            regions, real = torch.zeros_like(regions), torch.ones_like(real)
        return self._run(encoder.region_blocks, regions, real, encoder.context.region_half)

    def _from_coarse(self, summaries: Tensor, regions: Level) -> Tensor:
        """What every bin receives from its summary and its region."""
        down = self.encoder.from_regions(regions.output).repeat_interleave(self.per_region, 1)
        return self.encoder.from_summaries(summaries + down).repeat_interleave(self.per_summary, 1)

    def encode(self, low_bp: int, bases: Float[Tensor, "variants changed 4"]) -> EncoderOutput:
        """The chosen bins of each variant, in which `bases` replaces what starts at `low_bp`.

        Bins count from the first chosen one; there are no summaries or regions. Whether a bin is
        real cannot change.
        """
        encoder, bin_bp, n_bins = self.encoder, self.encoder.bin_bp, self.is_real.shape[1]
        # Up: the bins whose stem sees the change, those that attend to them, and so on.
        low = max((low_bp - self.right) // bin_bp, 0)
        high = min(-(-(low_bp + bases.shape[1] + self.left) // bin_bp), n_bins)
        x = self.padded[:, low * bin_bp : high * bin_bp + self.left + self.right]
        x = x.repeat(len(bases), 1, 1)
        at = low_bp - low * bin_bp + self.left
        x[:, at : at + bases.shape[1], :4] = bases
        entered, fine = self._enter(x, self.is_real[:, low:high])
        first, bins = self._changed(self.first, entered, low, self.per_summary)
        summaries = self.summaries.output.expand(len(bases), -1, -1)
        if encoder.context.sees_summaries:
            real = self.is_real[:, first : first + bins.shape[1]].expand(len(bins), -1)
            merged = encoder.to_summaries(bins, real)[0]
            at, changed = self._changed(self.summaries, merged, first // self.per_summary)
            summaries = splice(self.summaries.output, changed, at, 0, summaries.shape[1])
        received = self._from_coarse(summaries, self._regions(summaries))
        # Down: the chosen bins, what the base path reads around them, and what they attend to.
        wide = 0 if self.path is None else -(-self.path.up_bp // bin_bp)
        start, stop = max(self.bins[0] - wide, 0), min(self.bins[1] + wide, n_bins)
        reach = len(encoder.decoder_blocks) * encoder.context.bin_half
        below, above = max(start - reach, 0), min(stop + reach, n_bins)
        real = self.is_real[:, below:above]
        x = splice(self.first.output, bins, first, below, above) + received[:, below:above]
        ran = self._run(encoder.decoder_blocks, x * real[..., None], real, self.last.half_window)
        fused = (encoder.norm(ran.output) * real[..., None])[:, start - below : stop - below]
        chosen = slice(self.bins[0] - start, self.bins[1] - start)
        track = None
        if self.path is not None and fine is not None and self.fine is not None:
            missing = wide - chosen.start, wide - (stop - self.bins[1])
            edges = (splice(self.fine, fine, low, start, stop), fused)
            folded, above_bases = (F.pad(x, (0, 0, *missing)) for x in edges)
            out = self.path.up(folded.reshape(len(bases), -1, self.path.width), above_bases)
            spare = wide * bin_bp - self.path.up_bp
            track = out[:, spare : out.shape[1] - spare]
        edges_bp = self.left + self.bins[0] * bin_bp, self.left + self.bins[1] * bin_bp
        changed = splice(self.padded[..., :4], bases, low_bp + self.left, *edges_bp)
        rest = self.padded[:, edges_bp[0] : edges_bp[1], 4:].expand(len(bases), -1, -1)
        real = self.is_real[:, self.bins[0] : self.bins[1]].expand(len(bases), -1)
        inputs, empty = torch.cat([changed, rest], -1), fused[:, :0]
        return EncoderOutput(fused[:, chosen], empty, empty, real, track, inputs)


class VariantOutput:
    """The predicted number of a gene for variants of an interval of its window.

    Exact for every encoder; under the hierarchical one only what a change touches is recomputed.
    """

    def __init__(self, function: GeneOutput) -> None:
        self.function, encoder = function, function.model.encoder
        self.spliced: SplicedEncoder | None = None
        if isinstance(encoder, HierarchicalEncoder) and not encoder.permutes_regions:
            inputs = torch.cat([function.bases, function.annotation], -1)
            bins, has_bases = _read_bins(function), encoder.base_width > 0
            with torch.no_grad():
                self.spliced = SplicedEncoder(
                    encoder, inputs, function.is_real, bins, with_bases=has_bases
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
        length = self.function.bases.shape[1]
        return self.function(splice(self.function.bases, bases, low_bp, 0, length))


def _read_bins(function: GeneOutput) -> Span:
    """The bins of the window that the readout of its gene uses."""
    window, bin_bp = function.window, function.model.config.bin_bp
    length = window.tokens.shape[1]
    gene = GeneLoci(*(torch.tensor([bp]) for bp in (0, window.start, window.end)))
    at_bins = segment_weights(gene, length=length, bin_bp=bin_bp).column
    at_bases = base_weights(gene, length=length).column // bin_bp
    columns = torch.cat([at_bins, at_bases])
    return int(columns.min()), int(columns.max()) + 1


class Mutagenesis(NamedTuple):
    """What every single-base change does to one predicted number of one gene.

    `effects[i, b]` is the prediction with base b at position i less the one without (`output`); 0
    for the base that is there, nan where it is an N. Position 0 lies `offset_bp` from the TSS,
    sense strand.
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
        """How much the base that is there adds, compared with the other three; 0 for N."""
        return np.nan_to_num(-self.effects.sum(1) / 3)


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
        If the interval is empty or leaves the explainer's window.
    """
    window = explainer.window(gene_id)
    low, high = window.start - upstream_bp, window.start + downstream_bp
    if not 0 <= low < high <= explainer.window_bp:
        raise InputError(
            f"-{upstream_bp} to +{downstream_bp} bp of {window.name}",
            f"an interval inside its window, {window.offset_bp} to "
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
        here = window.tokens[0, first:last, None]
        at, base = ((torch.arange(4) != here) & (here < 4)).nonzero(as_tuple=True)
        variants = function.bases[:, first:last].repeat(len(at), 1, 1)
        variants[torch.arange(len(at)), at] = torch.eye(4)[base]
        if len(at):
            effects[first - low + at, base] = output(first, variants).double() - reference
    found = -upstream_bp, tokens.numpy(), effects.numpy(), reference
    return Mutagenesis(gene_id, window.name, function.target, *found)


def mutation_table(found: Mutagenesis) -> pd.DataFrame:
    """One row a base: the change of the prediction for each base that could stand there."""
    return pd.DataFrame(
        {
            "gene_id": found.gene_id,
            "name": found.name,
            "target": found.target,
            "position_bp": np.arange(len(found.tokens)) + found.offset_bp,
            "base": list(decode(found.tokens)),
            **{name: found.effects[:, i] for i, name in enumerate(TO_BASES)},
        }
    )


def attribution_of_table(table: pd.DataFrame) -> list[Attribution]:
    """The importance of each base (see `Mutagenesis`) for every gene of a mutation table.

    There is no sum that it should keep to: outputs and delta are nan.
    """
    found, nan = [], float("nan")
    for gene_id, part in table.groupby("gene_id", sort=False):
        name, target, offset_bp = part[["name", "target", "position_bp"]].iloc[0]
        tokens = np.array(["ACGTN".index(base) for base in part["base"]], dtype=np.uint8)
        effects = part[TO_BASES].to_numpy(np.float64)
        one = Mutagenesis(str(gene_id), name, target, int(offset_bp), tokens, effects, nan)
        names = *one[:3], "in-silico mutagenesis", "the other three bases"
        found.append(Attribution(*names, one.offset_bp, tokens, one.importance, nan, nan, nan))
    return found


def scan_genes(
    explainer: Explainer,
    genes: Sequence[str],
    out: Path | None = None,
    *,
    upstream_bp: int = 300,
    downstream_bp: int = 100,
    condition: str | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> pd.DataFrame:
    """`mutate` for many genes; `out` keeps a file a gene, and what is there is not redone.

    Raises
    ------
    InputError
        If `out` holds a scan with another model, window, interval or condition.
    """
    if out:
        _claim(out, explainer, f"-{upstream_bp} to +{downstream_bp} bp, {condition or 'level'}")
    span = {"upstream_bp": upstream_bp, "downstream_bp": downstream_bp}
    tables = []
    for done, gene_id in enumerate(genes, start=1):
        file = None if out is None else out / f"{gene_id}.parquet"
        if file is not None and file.exists():
            tables.append(pd.read_parquet(file))
        else:
            tables.append(mutation_table(mutate(explainer, gene_id, condition=condition, **span)))
            if file is not None:
                with atomic_file(file) as partial:
                    tables[-1].to_parquet(partial, index=False)
        if done % 20 == 0:
            report(f"ism: {done} of {len(genes)} genes")
    return pd.concat(tables, ignore_index=True)


def _claim(out: Path, explainer: Explainer, what: str) -> None:
    """Note in `out` what is scanned there, or check that it is the same."""
    out.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    for name, value in sorted(explainer.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().contiguous().numpy().tobytes())
    mine = f"{what}, window {explainer.window_bp} bp, model {digest.hexdigest()[:16]}"
    note = out / "scan.txt"
    if note.exists() and note.read_text() != mine:
        raise InputError(f"a scan of {note.read_text()}", mine, path=out)
    note.write_text(mine)

"""What a training run reads: a genome, which of its blocks are for what, and how much memory.

Memory and time are estimates from the settings alone: what a layer keeps for the backward pass was
counted on every preset, the rest fitted to the largest resident sizes that were measured
(`docs/costs.md`). On a GPU the batch lies there, and is not part of it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil
import torch

from genesplice.config import Config, ModelConfig, replace
from genesplice.config.model import REGION_BP, SUMMARY_BP
from genesplice.data.annotation import parse_annotation
from genesplice.data.bundle import Bundle
from genesplice.data.genome import Genome, N, cache_fasta, is_cached
from genesplice.data.splits import PRETRAIN_BLOCKS, make_blocks, make_even_blocks, make_operons
from genesplice.data.windows import free_intervals
from genesplice.errors import require
from genesplice.model.genesplice import PretrainingModel
from genesplice.predict import PUBLISHED
from genesplice.predict.pretrained import encoder_reads_relatives, encoder_sizes
from genesplice.results import Metric, read_metrics
from genesplice.runtime import GENOME, file_sha256, is_taken
from genesplice.training.loops import first_process_first, is_first_process

Interval = tuple[str, int, int]

GAP_BP = 1000


class Source(NamedTuple):
    """A genome divided into what is trained on, chosen by, and held out.

    `validation` is drawn from training blocks. `genes`, `operon` (by gene_id) and `network` are
    there where something is known; `record` says in the manifest what was held out.
    """

    genome: Genome
    training: list[Interval]
    validation: list[Interval]
    held_out: list[Interval]
    record: dict[str, Any]
    genes: pd.DataFrame | None = None
    operon: pd.Series | None = None
    network: pd.DataFrame | None = None


def for_genome(config: Config, genome: Genome, init: Path | None = None) -> Config:
    """The settings with the sizes of the encoder in `init`, and with what there is to be read.

    Without alignment columns in the data none are read; but an encoder in `init` that has learned
    with them goes on to read them: where there are none it reads that nothing is aligned.
    """
    if init is not None:
        config = replace(config, model=encoder_sizes(init))
    if genome.columns is not None or not config.model.relatives:
        return config
    if init is not None and encoder_reads_relatives(init) is not False:
        return config
    return replace(config, model={"relatives": False})


def published_encoder(bundle: Bundle) -> Path | None:
    """Published weights that were trained on this very genome, with the same blocks held out."""
    for folder in sorted(PUBLISHED.glob("*")):
        settings = json.loads((folder / "run.json").read_text())["pretrain"]
        source = bundle_source(bundle, settings["holdout_fold"], settings["validation_blocks"])
        trained = json.loads((folder / "inputs.json").read_text())
        own = source_digests(source)
        if all(own[name] == trained[name] for name in ("genome", "blocks")):
            return folder
    return None


def published_metrics(bundle: Bundle) -> list[Metric]:
    """What was measured on the fold that `published_encoder` held out; nothing without one."""
    if (folder := published_encoder(bundle)) is None:
        return []
    names = {"genesplice": folder.name, "genome_alone": f"{folder.name} alone"}
    rows = read_metrics(folder / "metrics.json")
    own = [row for row in rows if row.model in names and row.fold is not None]
    return [row._replace(model=names[row.model]) for row in own]


def source_digests(source: Source) -> dict[str, str]:
    """What a run reads, for `begin_run`: the genome and blocks."""
    contigs = [tuple(contig) for contig in source.genome.contigs]
    genome = hashlib.sha256(json.dumps([contigs, source.genome.digest]).encode())
    blocks = json.dumps([source.training, source.validation, source.held_out], default=int)
    digests = {"genome": genome.hexdigest(), "blocks": hashlib.sha256(blocks.encode()).hexdigest()}
    if source.genome.columns is not None:
        columns = np.ascontiguousarray(source.genome.columns)
        digests["relatives"] = hashlib.sha256(columns.data).hexdigest()
    return digests


def bundle_source(bundle: Bundle, fold: int | None, validation_blocks: float = 0.0) -> Source:
    """Read a bundle; `fold` is held out, and everything is trained on where it is None.

    Raises
    ------
    InputError
        If there is no such fold.
    """
    parts = divide_blocks(bundle.blocks, fold, validation_blocks)
    operon = bundle.splits.set_index("gene_id")["operon"]
    return Source(bundle.genome, *parts, bundle.genes, operon, bundle.network)


def genome_source(
    genome: Genome,
    fold: int | None,
    validation_blocks: float = 0.0,
    *,
    block_bp: int = 100_000,
    genes: pd.DataFrame | None = None,
) -> Source:
    """Read a genome that is no bundle, in blocks of about `block_bp`; none where all is trained on.

    With `genes` (as `genesplice.data.annotation.parse_annotation` gives them) blocks are cut
    between operons, which are neighbours on one strand, and views of genes have something to
    pair. Without, blocks are even. Gaps of the assembly, runs of `GAP_BP` N or more, are not read.

    Raises
    ------
    InputError
        If there is no such fold, or the genome is too small for the blocks.
    """
    operon = None if genes is None else make_operons(genes)
    if fold is None and not validation_blocks:
        known = without_gaps(genome, [(contig.name, 0, contig.length) for contig in genome.contigs])
        nothing: dict[str, Any] = {"blocks": [], "validation_blocks": [], "intervals": []}
        return Source(genome, known, [], known, {"fold": None} | nothing, genes, operon)
    if genes is None or operon is None:
        blocks = make_even_blocks(genome, block_bp)
    else:
        blocks, _ = make_blocks(genome, genes, operon, block_bp, remedy=PRETRAIN_BLOCKS)
    *parts, record = divide_blocks(blocks, fold, validation_blocks)
    training, validation, held_out = (without_gaps(genome, part) for part in parts)
    return Source(genome, training, validation, held_out, record, genes, operon)


def without_gaps(
    genome: Genome, intervals: Sequence[Interval], *, chunk_bp: int = 1 << 24
) -> list[Interval]:
    """What is left of intervals between gaps; no more than `chunk_bp` is in memory at a time."""
    known: list[Interval] = []
    for contig, start, end in intervals:
        runs: list[tuple[int, int]] = []
        for at in range(start, end, chunk_bp):
            is_unknown = genome.fetch(contig, at, min(at + chunk_bp, end)) == N
            edges = np.flatnonzero(np.diff(is_unknown, prepend=False, append=False))
            for first, last in (edges.reshape(-1, 2) + at).tolist():
                # A run may go on from the chunk before.
                begins = runs.pop()[0] if runs and runs[-1][1] == first else first
                runs.append((begins, last))
        gaps = [edge for run in runs if run[1] - run[0] >= GAP_BP for edge in run]
        bounds = [start, *gaps, end]
        pairs = zip(bounds[::2], bounds[1::2], strict=True)
        known += [(contig, first, last) for first, last in pairs if last > first]
    return known


def read_genomes(
    paths: Sequence[Path], circular: Sequence[str], out: Path, *, resume: bool
) -> tuple[Genome, dict[str, str]]:
    """Keep FASTA files as tokens in `out`; of several processes the first one does, others wait.

    Raises
    ------
    InputError
        As `genesplice.data.genome.cache_fasta`; if `out` is in use and `resume` is False;
        if a run is resumed on other files.
    """
    folder = out / GENOME

    def read() -> tuple[Genome, dict[str, str]]:
        if is_first_process() and is_taken(out):
            require(resume, f"{out} exists and is not empty", "a new folder, or --resume")
            wanted = f"those that {out} was begun with"
            require(is_cached(paths, folder), "other FASTA files", wanted)
        return cache_fasta(paths, folder, circular)

    return first_process_first(read, "read genomes")


def read_genes(path: Path, genome: Genome) -> tuple[Genome, pd.DataFrame, str]:
    """Genes of a genome of one FASTA file, the genome with its circular contigs, and a sha256.

    Raises
    ------
    InputError
        As `genesplice.data.annotation.parse_annotation`.
    """
    read = parse_annotation(path, genome)
    return genome.with_circular(read.circular), read.genes, file_sha256(path)


def divide_blocks(
    blocks: pd.DataFrame, fold: int | None, validation_blocks: float
) -> tuple[list[Interval], list[Interval], list[Interval], dict[str, Any]]:
    """Training, validation and held-out intervals, and the record of what was held out.

    Validation blocks are a share of the blocks that are not in `fold`: what chooses the weights
    must not be what they are judged by. Without a fold, all of the rest counts as held out too.

    Raises
    ------
    InputError
        If there is no such fold, or nothing would be left to train on.
    """
    folds = sorted(set(blocks["fold"]))
    is_there = fold is None or fold in folds
    require(is_there, f"pretrain.holdout_fold {fold}", f"one of {folds}, or none")
    is_held_out = blocks["fold"].to_numpy() == (-1 if fold is None else fold)
    others = np.flatnonzero(~is_held_out)
    count = max(1, round(validation_blocks * len(others))) if validation_blocks else 0
    found = f"{count} validation blocks of {len(others)}"
    require(count < len(others), found, "fewer: a smaller share, or 0")
    generator = np.random.default_rng([0 if fold is None else fold + 1, 13])
    chosen = np.sort(generator.permutation(others)[:count])
    training = free_intervals(blocks.iloc[np.setdiff1d(others, chosen)])
    held_out = free_intervals(blocks[is_held_out]) if fold is not None else []
    record = {
        "fold": fold,
        "blocks": blocks["block"][is_held_out].tolist(),
        "validation_blocks": blocks["block"].iloc[chosen].tolist(),
        "intervals": [list(interval) for interval in held_out],
    }
    return training, free_intervals(blocks.iloc[chosen]), held_out or training, record


# --- memory and time, before anything is run ---

PROGRAM = 0.75e9
"""Bytes of Python, torch and Lightning with the tables of a small genome."""
KEPT, KEPT_BASE = 92, 500
"""Bytes that the backward pass needs of a channel of a token in a layer, and of a base besides."""
BACKWARD, FORWARD = 1.7, 0.35
"""Of these bytes: at the most in training, and without gradients, of a whole window."""
COPIES = 24
"""Bytes of a weight: itself, its gradient, two moments, the running mean, the best ones."""
MEASURE, EXPRESSION = 0.25e9, 0.45e9
"""Bytes of what is measured after pre-training, and of expression from frozen embeddings there."""
EDGE, KERNEL = 44, 152
"""Bytes of a channel of an edge in graph attention, and of a pair of genes in the kernel path."""
SPEED = 4e10
"""Operations a second of one core: a processor with AVX-512 that is not busy."""
OWN_GROUP = Path("/proc/self/cgroup")
ORDERS = {90.0: "seconds", 5400.0: "minutes", 129_600.0: "hours", float("inf"): "days"}


class Need(NamedTuple):
    """What a stage needs at its peak: bytes of each part, each with what makes it smaller."""

    stage: str
    parts: Mapping[str, float]
    seconds: float

    @property
    def total(self) -> float:
        """Bytes of all parts."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        order = next(name for limit, name in ORDERS.items() if self.seconds < limit)
        return f"about {self.total / 1e9:.2g} GB, {order} of one core"


def _kept(model: ModelConfig) -> float:
    """Bytes that the backward pass needs of each base of a window."""
    bins = (model.bin_layers + model.decoder_layers) / model.bin_bp
    layers = bins + model.summary_layers / SUMMARY_BP + model.region_layers / REGION_BP
    return KEPT * (model.base_width + model.width * layers) + KEPT_BASE


def _operations(model: ModelConfig) -> float:
    """Operations of each base of a window, forward."""
    bins = (model.bin_layers + model.decoder_layers + 1) / model.bin_bp
    of_bases = 30 * model.base_width**2 + 2 * model.base_width * model.width
    return 2 * (of_bases + 12 * model.width**2 * (bins + model.summary_layers / SUMMARY_BP))


def _shared(config: Config, genome: Genome) -> dict[str, float]:
    """What every stage needs."""
    with torch.device("meta"):  # shapes without memory
        model = PretrainingModel(config.model, config.pretrain.contrastive_width)
    n_weights = sum(weight.numel() for weight in model.parameters())
    columns = 0 if genome.columns is None else genome.columns.nbytes
    return {
        "the program": PROGRAM,
        "the genome": genome.length + columns,
        "weights (model.width)": COPIES * n_weights,
    }


def pretrain_need(config: Config, genome: Genome) -> Need:
    """What pre-training needs."""
    settings = config.pretrain
    batch = settings.largest_batch_bp * _kept(config.model) * BACKWARD
    name = "a batch (pretrain.batch_windows, pretrain.view_windows, pretrain.window_bp)"
    after = MEASURE + EXPRESSION * settings.measure_expression
    parts = _shared(config, genome) | {
        name: 0 if torch.cuda.is_available() else batch,
        "what is measured after it (pretrain.measure)": after * settings.measure,
    }
    runs = settings.steps * settings.accumulate * (1 + len(settings.ablations))
    return Need(
        "pretrain", parts, runs * settings.mean_batch_bp * 3 * _operations(config.model) / SPEED
    )


def finetune_need(config: Config, bundle: Bundle) -> Need:
    """What fine-tuning needs."""
    model, settings, length = config.model, config.finetune, bundle.genome.length
    window = min(settings.core_bp, length) + 2 * settings.flank_bp
    on_gpu, trains = torch.cuda.is_available(), settings.epochs + settings.sequence_epochs > 0
    at_once = torch.get_num_threads() + settings.batch_windows * trains
    read = min(at_once * window, 2 * length) * _kept(model) * FORWARD
    sizes = [len(genes) for genes in bundle.gene_sets.values()]
    members = sum(size for size in sizes if model.smallest_set <= size <= model.largest_set)
    edges = (2 * members + len(bundle.network)) * model.width * model.graph_layers
    n_genes = len(bundle.observed) * (1 - 1 / bundle.n_folds)
    # One after the other; memory that was freed serves again, but not for one large matrix.
    one_by_one = {
        "windows (finetune.core_bp, finetune.batch_windows)": 0 if on_gpu else read,
        "the graph (model.largest_set)": 0 if on_gpu else edges * EDGE,
    }
    largest = max(one_by_one, key=lambda name: one_by_one[name])
    parts = _shared(config, bundle.genome) | {
        largest: one_by_one[largest],
        "the kernel path (finetune.kernel)": n_genes**2 * KERNEL * settings.kernel,
    }
    n_folds = bundle.n_folds if settings.folds is None else len(settings.folds)
    runs = len(settings.seeds) + len(settings.ablations) * len(settings.ablation_seeds)
    passes = 1 + 3 * settings.epochs + 3 * settings.sequence_epochs
    reading = passes * length * _operations(model)
    steps = settings.head_steps * edges * 500 + 40 * n_genes**3
    return Need("finetune", parts, n_folds * runs * (reading + steps) / SPEED)


def memory_limit(groups: Path = Path("/sys/fs/cgroup"), own: Path = OWN_GROUP) -> int:
    """Bytes that this process may have: of the machine, or by its control groups (version 2).

    `own` has the name of its group below `groups`; those above it have limits as well.
    """
    limits = [psutil.virtual_memory().total]
    with suppress(OSError):
        folder = groups / own.read_text().rpartition("::")[2].strip().lstrip("/")
        for one in [folder, *folder.parents]:
            with suppress(OSError, ValueError):  # no limit is the word `max`
                limits.append(int((one / "memory.max").read_text()))
    return min(limits)


def require_memory(need: Need) -> None:
    """Refuse what this machine cannot hold, before it is begun.

    Raises
    ------
    InputError
        With what is needed, what there is, and the settings of the largest part.
    """
    limit, largest = memory_limit(), max(need.parts, key=lambda name: need.parts[name])
    found = f"{need.stage} that needs about {need.total / 1e9:.2g} GB of memory"
    of_which = f"{need.parts[largest] / 1e9:.2g} for {largest}"
    wanted = f"at most {limit / 1e9:.2g}; make smaller: {of_which}"
    require(need.total <= limit, found, wanted)

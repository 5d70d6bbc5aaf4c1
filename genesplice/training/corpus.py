"""What a pre-training run reads: a genome, and which of its blocks are for what."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from genesplice.config import Config
from genesplice.data.annotation import parse_annotation
from genesplice.data.bundle import Bundle
from genesplice.data.genome import Genome, N, cache_fasta, is_cached
from genesplice.data.splits import make_blocks, make_even_blocks, make_operons
from genesplice.data.windows import free_intervals
from genesplice.errors import InputError
from genesplice.predict.pretrained import PUBLISHED, encoder_reads_relatives, encoder_sizes
from genesplice.results import Metric, read_metrics
from genesplice.runtime import file_sha256
from genesplice.training.loops import GENOME, first_process_first, is_first_process, is_taken

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
        model = dataclasses.replace(config.model, **encoder_sizes(init))
        config = dataclasses.replace(config, model=model)
    if genome.columns is not None or not config.model.relatives:
        return config
    if init is not None and encoder_reads_relatives(init) is not False:
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, relatives=False))


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
        record: dict[str, Any] = {
            "fold": None,
            "blocks": [],
            "validation_blocks": [],
            "intervals": [],
        }
        return Source(genome, known, [], known, record, genes, operon)
    if genes is None or operon is None:
        blocks = make_even_blocks(genome, block_bp)
    else:
        blocks, _ = make_blocks(genome, genes, operon, block_bp)
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
            if not resume:
                raise InputError(f"{out} exists and is not empty", "a new folder, or --resume")
            if not is_cached(paths, folder):
                raise InputError("other FASTA files", f"those that {out} was begun with")
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
    if fold is not None and fold not in folds:
        raise InputError(f"pretrain.holdout_fold {fold}", f"one of {folds}, or none")
    is_held_out = blocks["fold"].to_numpy() == (-1 if fold is None else fold)
    others = np.flatnonzero(~is_held_out)
    count = max(1, round(validation_blocks * len(others))) if validation_blocks else 0
    if count >= len(others):
        raise InputError(
            f"{count} validation blocks of {len(others)}", "fewer: a smaller share, or 0"
        )
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

"""Folds that are contiguous in the genome: blocks cut between operons, dealt by a seed."""

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal

import networkx as nx
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int64

from genesplice.data.coding import SPLICED_SHARE
from genesplice.data.genome import Contig, Genome
from genesplice.data.tables import counted, is_number, line_of, numbered_lines, some
from genesplice.errors import InputError, require

N_DEALS = 64
"""How many random deals are compared; the most even one is kept."""
PREPARE_BLOCKS = "--block-bp smaller or --folds fewer"
PRETRAIN_BLOCKS = "--set pretrain.block_bp smaller, or pretrain.holdout_fold=none"
"""What to change where there are too few blocks, by the verb."""
TRAINING, VALIDATION = ("train", "training"), ("val", "valid", "validation", "dev")
MOST_SPLITS = 20
UNIT = ["contig", "strand", "operon"]
"""What genes of one operon share: one name on two contigs or strands is two operons."""


def make_operons(genes: pd.DataFrame, max_gap_bp: int = 50) -> pd.Series:
    """Group neighbours on one strand with fewer than `max_gap_bp` bases between them.

    A rule of thumb for prokaryotes without an operon table; overlapping genes on one strand are
    together in any case. Index gene_id, values "operon-1", "operon-2", …

    Source: Moreno-Hagelsieb & Collado-Vides 2002: distances below 50 bp mark operon neighbours.
    """
    names: dict[str, str] = {}
    number = 0
    for _, group in genes.groupby(["contig", "strand"], sort=False):
        reach = -np.inf
        for gene in group.sort_values("start").itertuples():
            if gene.start - reach >= max_gap_bp:
                number += 1
            reach = max(reach, gene.end)
            names[gene.gene_id] = f"operon-{number}"
    return pd.Series(names, name="operon").reindex(genes["gene_id"])


def choose_operons(
    chosen: Path | str | None, genes: pd.DataFrame, aliases: Mapping[str, str]
) -> tuple[dict[str, str], str]:
    """Gene to operon as asked for, and a sentence that says how.

    Parameters
    ----------
    chosen
        "none", "distance" (`make_operons`), or a file as `read_operons` takes. None is distance,
        unless more than `SPLICED_SHARE` of the coding genes are spliced: such organisms have none.

    Raises
    ------
    InputError
        As `read_operons`.
    """
    if chosen not in (None, "none", "distance"):
        path = Path(str(chosen))
        require(path.exists(), f"--operons {path}", "none, distance or a file")
        return read_operons(path, aliases)
    n_exons = genes["exons"].str.len() // 2
    n_coding, n_spliced = int((n_exons > 0).sum()), int((n_exons > 1).sum())
    guessed = "none" if n_spliced > SPLICED_SHARE * n_coding else "distance"
    why = f" ({n_spliced} of {n_coding} coding genes are spliced)" if chosen is None else ""
    if (chosen or guessed) == "none":
        return {}, f"operons: none{why}"
    text = f"operons: neighbours on one strand with a gap below 50 bp{why}"
    return make_operons(genes).to_dict(), text


def read_operons(path: Path, aliases: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Read operons: a gene and its operon, or all genes of one operon, on a line.

    Cells are apart by tabs, else by blanks, commas or semicolons. Genes that lines connect are in
    one operon; genes of no line are on their own.

    Raises
    ------
    InputError
        For a line of three or more cells most of which are no genes, and for no gene at all.
    """
    graph, names, lost = nx.Graph(), dict[str, str](), list[str]()
    for number, text in numbered_lines(path):
        cells = text.split("\t") if "\t" in text else re.split(r"[,;\s]+", text)
        cells = [cell.strip() for cell in cells if cell.strip()]
        if not cells or text.startswith("#"):
            continue
        ids = [aliases.get(cell.lower(), "") for cell in cells]
        other = [cell for cell, gene in zip(cells, ids, strict=True) if not gene]
        known = [gene for gene in ids if gene]
        if len(cells) > 2 and 2 * len(other) > len(cells):
            found = f"{len(other)} of {len(cells)} cells that are no genes ({some(other, 3)})"
            raise InputError(found, "gene and operon, or genes", path=path, line=number)
        is_pair = len(cells) == 2 and len(known) == 1
        if known and is_pair:
            known.append(f"operon {other[0]}")
        elif number > 1 or known:
            lost += other
        nx.add_path(graph, known)
    for group in map(sorted, nx.connected_components(graph)):
        named = [one.removeprefix("operon ") for one in group if one.startswith("operon ")]
        names |= {gene: (named or group)[0] for gene in group if not gene.startswith("operon ")}
    require(names, "no gene in any line", f"such as {some(sorted(set(aliases.values())), 3)}", path)
    text = f"operons: {len(set(names.values()))} of {len(names)} genes in {path.name}"
    return names, f"{text}; {counted('names that are no genes', lost)}"


def first_of_operon(genome: Genome, genes: pd.DataFrame, splits: pd.DataFrame) -> pd.Series:
    """Whether each gene is transcribed first of its operon: True or False by gene_id.

    The first is the one whose TSS lies farthest upstream on the operon's strand; an operon of one
    name on two contigs or strands is two. A gene alone in its operon is the first. Operons may run
    across the origin of a circular contig.

    Parameters
    ----------
    genes, splits
        As in a bundle: the latter's `operon` by `gene_id`.
    """
    table = genes.merge(splits[["gene_id", "operon"]], on="gene_id", how="left")
    position = table["tss"] + _turn(genome, table, "tss")
    along = position * np.where(table["strand"] == "+", 1, -1)
    rank = along.groupby([table[key] for key in UNIT]).rank("first")
    return pd.Series((rank == 1).to_numpy(), index=pd.Index(table["gene_id"]), name="is_first")


def _turn(genome: Genome, table: pd.DataFrame, position: str) -> pd.Series:
    """The length of the circle for what lies at its start while its operon begins at its end."""
    circle = {c.name: c.length if c.is_circular else np.inf for c in genome.contigs}
    length = table["contig"].astype(object).map(circle).astype(float)
    unit = table.groupby(UNIT)[position]
    extent = unit.transform("max") - unit.transform("min")
    return length.where((extent > length / 2) & (table[position] < length / 2), 0)


def make_blocks(
    genome: Genome,
    genes: pd.DataFrame,
    operons: Mapping[str, str] | pd.Series,
    block_bp: int = 100_000,
    n_folds: int = 5,
    seed: int = 0,
    mode: Literal["auto", "block", "contig"] = "auto",
    remedy: str = PREPARE_BLOCKS,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cut the genome into blocks and deal them to folds.

    Blocks tile each contig. A cut is the middle of an interval that lies in no operon's span,
    the nearest such to each multiple of the contig's length over its number of blocks. On a
    circular contig the last block ends where the first begins: its `end` may exceed the length.

    Parameters
    ----------
    operons
        gene_id to operon; a gene that is not in it is its own operon.
    mode
        `block` deals blocks; `contig` deals whole contigs, whose blocks all get one fold;
        `auto` takes `contig` when there are at least `2 * n_folds` contigs of two blocks or
        more and none of them holds more than `1 / n_folds` of the genes.
    remedy
        What a message tells to change where there are too few blocks.

    Returns
    -------
    blocks
        `block, contig, start, end, fold`.
    splits
        `gene_id, block, fold, operon` of every gene, in the order of `genes`.

    Raises
    ------
    InputError
        If there are fewer positions to cut than folds need.
    """
    if n_folds < 2 or block_bp < 1:
        raise InputError(f"{n_folds} folds of {block_bp} bp", "at least 2 folds and 1 bp")
    operon = pd.Series(operons, dtype=object).reindex(genes["gene_id"])
    own = pd.Series(genes["gene_id"].to_numpy(), index=operon.index)
    operon = operon.where(operon.notna() & (operon != ""), own)
    spans = _operon_spans(genome, genes, operon)
    # By contig once: assemblies in a hundred thousand pieces are common.
    on_contig = dict(iter(spans.groupby("contig")))
    blocks = _blocks(
        (contig.name, _cuts(contig, on_contig.get(contig.name, spans[:0]), block_bp))
        for contig in genome.contigs
    )
    block_of, starts = np.zeros(len(genes), dtype=np.int64), genes["start"].to_numpy()
    cut = dict(iter(blocks.groupby("contig")))
    for name, at in genes.groupby("contig").indices.items():
        index = np.searchsorted(cut[name]["start"], starts[at], side="right") - 1
        block_of[at] = cut[name]["block"].to_numpy()[index]
    load = np.bincount(block_of, minlength=len(blocks))
    kind, loads, unit = _units(blocks, load, n_folds, mode)
    found = f"{np.count_nonzero(loads)} blocks with genes ({kind}s of about {block_bp} bp)"
    expected = f"at least {n_folds}, one per fold: {remedy}"
    require(np.count_nonzero(loads) >= n_folds, found, expected)
    blocks["fold"] = _deal(loads, n_folds, np.random.default_rng(seed))[unit]
    fold = blocks["fold"].to_numpy()[block_of]
    columns = {"gene_id": genes["gene_id"].to_numpy(), "block": block_of, "fold": fold}
    return blocks, pd.DataFrame(columns | {"operon": operon.to_numpy()})


def make_even_blocks(genome: Genome, block_bp: int, n_folds: int = 5) -> pd.DataFrame:
    """Blocks of a genome without genes: even pieces of each contig, dealt by their bases.

    As `make_blocks` with `mode="auto"`: whole contigs go to one fold where there are enough.

    Raises
    ------
    InputError
        If there are fewer blocks than folds.
    """
    counts = [max(1, round(contig.length / block_bp)) for contig in genome.contigs]
    blocks = _blocks(
        (contig.name, np.round(np.arange(n + 1) * contig.length / n).astype(np.int64))
        for contig, n in zip(genome.contigs, counts, strict=True)
    )
    load = (blocks["end"] - blocks["start"]).to_numpy()
    _, loads, unit = _units(blocks, load, n_folds, "auto")
    expected = f"at least {n_folds}, one per fold: {PRETRAIN_BLOCKS}"
    require(len(loads) >= n_folds, f"{len(loads)} blocks of about {block_bp} bp", expected)
    blocks["fold"] = _deal(loads, n_folds, np.random.default_rng(0))[unit]
    return blocks


def _blocks(edges: Iterable[tuple[str, Int64[np.ndarray, " edges"]]]) -> pd.DataFrame:
    rows = [(name, a, b) for name, cuts in edges for a, b in pairwise(cuts.tolist())]
    blocks = pd.DataFrame(rows, columns=["contig", "start", "end"])
    blocks.insert(0, "block", np.arange(len(blocks)))
    return blocks


def _units(
    blocks: pd.DataFrame, load: Int64[np.ndarray, " regions"], n_folds: int, mode: str
) -> tuple[str, Int64[np.ndarray, " units"], Int64[np.ndarray, " regions"]]:
    """What is dealt ("block" or "contig"), how much of the load each has, and each block's unit."""
    if mode == "auto":
        per_contig = pd.DataFrame({"contig": blocks["contig"], "load": load}).groupby("contig")
        n_long = int((per_contig.size() >= 2).sum())
        largest = per_contig["load"].sum().max() / max(1, load.sum())
        mode = "contig" if n_long >= 2 * n_folds and largest <= 1 / n_folds else "block"
    unit = blocks["block"].to_numpy()
    if mode == "contig":
        unit = pd.factorize(blocks["contig"])[0].astype(np.int64)
    return mode, np.bincount(unit, weights=load).astype(np.int64), unit


def _operon_spans(genome: Genome, genes: pd.DataFrame, operon: pd.Series) -> pd.DataFrame:
    """Span of each operon; the same name on two contigs or strands counts as two operons.

    On a circular contig an operon whose genes lie at both ends goes across the origin.
    """
    table = genes.assign(operon=operon.to_numpy())
    turn = _turn(genome, table, "start").astype(np.int64)
    table = table.assign(start=table["start"] + turn, end=table["end"] + turn)
    groups = table.groupby(UNIT, sort=False)
    return groups.agg(start=("start", "min"), end=("end", "max")).reset_index()


def _cuts(contig: Contig, spans: pd.DataFrame, block_bp: int) -> Int64[np.ndarray, " edges"]:
    """Block edges of one contig: first to last, each where no operon's span is."""
    free = _free_positions(contig, spans)
    n_blocks = max(1, round(contig.length / block_bp))
    if contig.is_circular:
        if n_blocks == 1 or free.size < 2:
            return np.array([0, contig.length], dtype=np.int64)
        ideal = np.arange(n_blocks) * contig.length / n_blocks
        extended = np.concatenate([free, [free[0] + contig.length]])
        chosen = np.unique(_nearest(extended, ideal) % contig.length)
        return np.concatenate([chosen, [chosen[0] + contig.length]])
    ideal = np.arange(1, n_blocks) * contig.length / n_blocks
    inner = np.unique(_nearest(free, ideal)) if free.size and ideal.size else np.empty(0, np.int64)
    inner = inner[(inner > 0) & (inner < contig.length)]
    return np.concatenate([[0], inner, [contig.length]]).astype(np.int64)


def _free_positions(contig: Contig, spans: pd.DataFrame) -> Int64[np.ndarray, " edges"]:
    """Middles of the intervals between merged operon spans, sorted; ends of the contig too."""
    start, end = spans["start"].to_numpy(), spans["end"].to_numpy()
    wrapped = end.max(initial=0) - contig.length
    reach = max(0, int(wrapped)) if contig.is_circular else 0
    free = [0] if reach == 0 else []
    for a, b in sorted(zip(start.tolist(), end.tolist(), strict=True)):
        if a >= reach and a > 0:
            free.append((reach + a) // 2 if reach else 0)
        reach = max(reach, b)
    return np.unique(np.array(free, dtype=np.int64))


def _nearest(
    free: Int64[np.ndarray, " edges"], ideal: Float[np.ndarray, " regions"]
) -> Int64[np.ndarray, " regions"]:
    return free[np.abs(free[None, :] - ideal[:, None]).argmin(axis=1)]


def _deal(
    loads: Int64[np.ndarray, " regions"], n_folds: int, generator: np.random.Generator
) -> Int64[np.ndarray, " regions"]:
    """Deal units to folds in random order, each to the emptiest; keep the most even of 64 deals."""
    best, best_spread, weights = None, np.inf, loads.tolist()
    for _ in range(N_DEALS):
        folds, sums = np.zeros(len(loads), dtype=np.int64), [0] * n_folds
        for unit in generator.permutation(len(loads)).tolist():
            lowest = min(sums)
            tied = [fold for fold, load in enumerate(sums) if load == lowest]
            folds[unit] = fold = tied[generator.integers(len(tied)) if len(tied) > 1 else 0]
            sums[fold] += weights[unit]
        spread = max(sums) - min(sums)
        if spread < best_spread:
            best, best_spread = folds, spread
    assert best is not None
    return best


# --- of a table of sequences ---


def given_folds(
    parts: pd.Series, path: Path
) -> tuple[Int64[np.ndarray, " sequences"], Bool[np.ndarray, " sequences"], int]:
    """Folds by a column: of train, (val) and test the last, else each part in turn."""
    names = sorted(set(parts), key=lambda one: (float(one), one) if is_number(one) else (0.0, one))
    if "" in names:
        line = line_of(parts.to_frame(), parts.index[(parts == "").to_numpy()][0])
        raise InputError("an empty split", "a name in every row", path=path, line=line)
    is_validation = parts.isin(VALIDATION).to_numpy()
    tested = names
    if set(names) & set(TRAINING):
        tested = [name for name in names if name not in TRAINING + VALIDATION]
    require(len(names) > 1 and tested, f"a split of {some(names)} only", "two parts or more", path)
    require(len(tested) <= MOST_SPLITS, f"a split of {len(tested)} parts", f"{MOST_SPLITS}", path)
    fold = {name: number for number, name in enumerate(tested)}
    return parts.map(fold).fillna(-1).to_numpy(np.int64), is_validation, len(tested)


def cluster_folds(
    rows: pd.DataFrame, n_folds: int, seed: int, path: Path
) -> Int64[np.ndarray, " sequences"]:
    """Whole clusters to folds, each with about as many rows, and as many of a class or size."""
    measured = rows[rows["value"].notna()]
    stratum = measured["value"].rank(pct=True).mul(5).round()
    clusters = stratum.groupby(measured["cluster"])
    count, first = clusters.size().to_numpy(), clusters.first().to_numpy()
    found = f"{len(count)} clusters of similar sequences in {len(measured)} rows"
    require(len(count) >= n_folds, found, f"{n_folds}, one a fold, or --split COLUMN", path)
    generator = np.random.default_rng(seed)
    load, fold = np.zeros(n_folds, np.int64), np.zeros(len(count), np.int64)
    for one in np.lexsort((generator.random(len(count)), first, -count)):
        lowest = np.flatnonzero(load == load.min())
        fold[one] = generator.choice(lowest)
        load[fold[one]] += count[one]
    of = pd.Series(fold, clusters.size().index)
    return rows["cluster"].map(of).fillna(-1).to_numpy(np.int64)

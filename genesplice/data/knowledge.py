"""A network and gene sets of the user's own in a bundle, and ablations of what is in it.

An ablation is the same data with one claimed ingredient destroyed and everything else kept.

====================  ================================  ===============================
ablation              destroyed                         kept
====================  ================================  ===============================
`rewired_network`     who regulates whom                every node's degree, its signs
`without_network`     the network                       everything else
`random_gene_sets`    which genes share a set           sizes, overlaps, coverage
`without_gene_sets`   the gene sets                     everything else
`exchanged_relatives` which gene has which columns      strand, length, bases, how conserved
`far_relatives`       columns of near and middle ones   those of far ones
`without_relatives`   the alignment columns             everything else
`shuffled_inside`     the sequence of some intervals    dinucleotides of each
====================  ================================  ===============================

Those that take a bundle give a bundle, in memory only; `manifest["ablation"]` says which it is.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64

from genesplice.data.bundle import GENE_SETS, NETWORK, Bundle
from genesplice.data.gene_sets import read_gene_sets, read_gmt, write_gmt
from genesplice.data.genome import Genome, N, Tokens, runs
from genesplice.data.leakage import judge_knowledge
from genesplice.data.network import read_network
from genesplice.data.relatives import turn_columns
from genesplice.data.tables import Progress
from genesplice.errors import require
from genesplice.runtime import file_sha256, write_json, write_table

OWN, RECORD = "own", "genome.json"
"""The collection of gene sets that are of no other collection; a model's record of its genome."""


def replace_knowledge(
    bundle: Bundle,
    *,
    network: Path | None = None,
    gene_sets: Path | None = None,
    collections: Sequence[str] = ("KEGG", "COG", "GO"),
    tell: Progress = lambda text: None,
) -> Bundle:
    """The bundle with the edges of `network`, and the sets of `gene_sets`, instead of its own.

    What is not given stays. Gene sets whose names do not begin with one of `collections` and a
    colon are called "own:NAME". The leakage judges what is there now; `tell` gets the readers'
    notes.

    Raises
    ------
    InputError
        As `genesplice.data.network.read_network` and `read_gene_sets`.
    """
    own: dict[str, dict[str, str]] = {}
    changes: dict[str, Any] = {"manifest": {**bundle.manifest, OWN: own}}
    evidence, aliases = "", dict(bundle.aliases.itertuples(index=False))
    if network is not None:
        own["network"] = {"path": str(network), "sha256": file_sha256(network)}
        found = read_network(network, bundle.genes, aliases)
        changes["network"] = found.edges
        tell("; ".join(found.notes))
    if gene_sets is not None:
        own["gene_sets"] = {"path": str(gene_sets), "sha256": file_sha256(gene_sets)}
        reading = read_gene_sets(gene_sets, bundle.genes, aliases)
        evidence = reading.evidence
        tell("; ".join(reading.notes))
        own_name = {
            name: name if name.split(":", 1)[0] in collections else f"{OWN}:{name}"
            for name in reading.gene_sets
        }
        changes["gene_sets"] = {own_name[n]: ids for n, ids in reading.gene_sets.items()}
        changes["set_names"] = {own_name[name]: words for name, words in reading.names.items()}
    leakage = judge_knowledge(
        bundle.leakage, changes.get("network"), changes.get("gene_sets"), evidence
    )
    return replace(bundle, **changes, leakage=leakage)


def own_files(bundle: Bundle) -> dict[str, str]:
    """The sha256 of what was replaced: of "network", "gene_sets", both or none."""
    return {name: record["sha256"] for name, record in bundle.manifest.get(OWN, {}).items()}


def keep_knowledge(bundle: Bundle, directory: Path) -> None:
    """Write what was replaced into a model's folder, and which genome it was trained on."""
    keep_genome(directory, bundle.genome)
    own = own_files(bundle)
    if "network" in own:
        write_table(directory / NETWORK, bundle.network)
    if "gene_sets" in own:
        write_gmt(directory / GENE_SETS, bundle.gene_sets, bundle.set_names)


def adopt_knowledge(bundle: Bundle, *directories: Path) -> Bundle:
    """The bundle with the network and gene sets that the models in `directories` were trained with.

    A model that was trained with the bundle's own has none in its folder: nothing changes.

    Raises
    ------
    InputError
        If the models were not all trained with the same.
    """
    if not directories:
        return bundle
    names = (NETWORK, GENE_SETS)
    kept = [
        {name: file_sha256(folder / name) for name in names if (folder / name).exists()}
        for folder in directories
    ]
    for folder, files in zip(directories, kept, strict=True):
        found = f"{directories[0]} and {folder}, trained with different networks or gene sets"
        require(files == kept[0], found, "models of one run")
    changes: dict[str, Any] = {}
    if NETWORK in kept[0]:
        changes["network"] = pd.read_parquet(directories[0] / NETWORK)
    if GENE_SETS in kept[0]:
        changes["gene_sets"], changes["set_names"] = read_gmt(directories[0] / GENE_SETS)
    return replace(bundle, **changes) if changes else bundle


def keep_genome(folder: Path, genome: Genome) -> None:
    """Write which genome the model in `folder` was trained on."""
    record = {"genome": genome.description, "contigs": sorted(genome.contig_digests)}
    write_json(folder / RECORD, record)


def trained_on(folder: Path, genome: Genome) -> str | None:
    """Describe the genome of the model in `folder`; "" for this `genome`, None if it is not known.

    Names of contigs do not count, and a genome counts as this one if all of its contigs are in
    this one, or the other way round.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    record = json.loads(path.read_text())
    trained, own = set(record["contigs"]), genome.contig_digests
    return "" if trained <= own or own <= trained else str(record["genome"])


# --- ablations ---

SWAPS_PER_EDGE = 10
LENGTH_CLASS = 50
"""Genes of one strand and nearly one length that exchange their columns."""
UPSTREAM_BP = 300


def rewired_network(bundle: Bundle, seed: int) -> Bundle:
    """Swap the targets of pairs of edges until nothing of who regulates whom is left.

    Only edges of one sign and kind are swapped with each other: every source keeps how many
    targets it has of each sign, every target how many sources of each sign. A swap that would make
    a new self loop, or an edge that is there already (of whatever sign), is not made. Where a
    source has nearly all targets, some of its edges stay because there is nowhere else for them.

    Source: Maslov and Sneppen, Specificity and stability in topology of protein networks, 2002.
    """
    generator = np.random.default_rng(seed)
    network = bundle.network
    source, target = network["source"].tolist(), network["target"].tolist()
    there = Counter(zip(source, target, strict=True))
    for _, part in network.reset_index(drop=True).groupby(["sign", "kind"], sort=True):
        rows = part.index.to_numpy()
        if len(rows) < 2:
            continue
        drawn = generator.integers(0, len(rows), (SWAPS_PER_EDGE * len(rows), 2))
        for i, j in rows[drawn].tolist():
            _swap(source, target, there, i, j)
    rewired = network.assign(target=target, provenance=f"rewired (seed {seed})")
    return _ablation(bundle, "rewired network", seed, network=rewired)


def _swap(source: list[str], target: list[str], there: Counter, i: int, j: int) -> None:
    """Exchange the targets of edges i and j, if that makes two edges that are not there yet."""
    old = (source[i], target[i]), (source[j], target[j])
    new = (source[i], target[j]), (source[j], target[i])
    if source[i] == source[j] or target[i] == target[j]:
        return
    if any(there[edge] for edge in new) or any(a == b for a, b in new):
        return
    there.subtract(old)
    there.update(new)
    target[i], target[j] = target[j], target[i]


def without_network(bundle: Bundle) -> Bundle:
    """The same data without a single edge."""
    return _ablation(bundle, "no network", None, network=bundle.network.iloc[:0])


def random_gene_sets(bundle: Bundle, seed: int) -> Bundle:
    """Permute the genes among the gene sets.

    Genes are permuted among those that the same collections know ("GO", "KEGG" and "COG", say):
    every set keeps its size, any two sets, of one collection or two, their overlap, and every
    collection the genes it says something about.
    """
    generator = np.random.default_rng(seed)
    known_to: dict[str, set[str]] = {}
    for name, genes in bundle.gene_sets.items():
        for gene in genes:
            known_to.setdefault(gene, set()).add(name.split(":", 1)[0])
    alike: dict[tuple[str, ...], list[str]] = {}
    for gene in sorted(known_to):
        alike.setdefault(tuple(sorted(known_to[gene])), []).append(gene)
    becomes: dict[str, str] = {}
    for group in alike.values():
        becomes.update(zip(group, generator.permutation(group).tolist(), strict=True))
    sets = {name: tuple(becomes[g] for g in genes) for name, genes in bundle.gene_sets.items()}
    return _ablation(bundle, "random gene sets", seed, gene_sets=sets)


def without_gene_sets(bundle: Bundle) -> Bundle:
    """The same data without gene sets."""
    return _ablation(bundle, "no gene sets", None, gene_sets={})


def exchanged_relatives(bundle: Bundle, seed: int) -> Bundle:
    """Give every gene, with what lies `UPSTREAM_BP` before it, the columns of another one.

    Genes of one strand exchange theirs within `LENGTH_CLASS` of nearly one length. Columns are
    counted from the reference's base on, so that as many relatives agree as before, elsewhere;
    where the other gene ends earlier nothing is aligned.
    """
    genome, genes = bundle.genome, bundle.genes
    assert genome.columns is not None
    generator = np.random.default_rng([seed, 29])
    old = np.stack([turn_columns(counts, genome.tokens, 1) for counts in genome.columns])
    new = old.copy()
    sense = [_sense_bases(bundle, gene) for gene in genes.itertuples()]
    length = (genes["end"] - genes["start"]).to_numpy()
    for strand in ("+", "-"):
        rows = np.flatnonzero((genes["strand"] == strand).to_numpy())
        rows = rows[np.argsort(length[rows], kind="stable")]
        for first in range(0, len(rows), LENGTH_CLASS):
            members = rows[first : first + LENGTH_CLASS]
            # A cycle through all of them: no gene keeps its own.
            cycle = generator.permutation(members)
            for gene, other in zip(cycle, np.roll(cycle, 1), strict=True):
                size = min(len(sense[gene]), len(sense[other]))
                new[:, sense[gene]] = 0
                new[:, sense[gene][:size]] = old[:, sense[other][:size]]
    columns = np.stack([turn_columns(counts, genome.tokens, -1) for counts in new])
    genome = replace(genome, columns=columns)
    return _ablation(bundle, "exchanged relatives", seed, genome=genome)


def _sense_bases(bundle: Bundle, gene: Any) -> Int64[np.ndarray, " bases"]:
    """Indices of a gene's bases and of those before it, along its strand; none beyond a contig."""
    before, after = (UPSTREAM_BP, 0) if gene.strand == "+" else (0, UPSTREAM_BP)
    index, is_inside = bundle.genome.indices(gene.contig, gene.start - before, gene.end + after)
    return index[is_inside][:: 1 if gene.strand == "+" else -1]


def far_relatives(bundle: Bundle) -> Bundle:
    """The same data with the far relatives only, which say least of a gene's own sequence."""
    assert bundle.genome.columns is not None
    columns = np.array(bundle.genome.columns)
    columns[:-1] = 0
    return _ablation(bundle, "far relatives", None, genome=replace(bundle.genome, columns=columns))


def without_relatives(bundle: Bundle) -> Bundle:
    """The same data without alignment columns."""
    return _ablation(bundle, "no relatives", None, genome=replace(bundle.genome, columns=None))


def shuffled_inside(
    tokens: Tokens, inside: Bool[np.ndarray, " length"], generator: np.random.Generator
) -> Tokens:
    """Shuffle each run of `inside` for itself, and keep what lies between them."""
    shuffled = np.array(tokens)
    for low, high in runs(inside).tolist():
        shuffled[low:high] = dinucleotide_shuffle(shuffled[low:high], generator)
    return shuffled


def dinucleotide_shuffle(tokens: Tokens, generator: np.random.Generator) -> Tokens:
    """Draw a sequence with the same count of every dinucleotide, all of them equally likely.

    N stay in place, and each run between them is shuffled for itself; its first and last base
    stay what they are. (tangermeme has the like, but brings numba, as large as all of this.)

    Source: Altschul and Erickson, Significance of nucleotide sequence alignments, 1985: a random
    Eulerian walk through the graph whose edges are the dinucleotides.
    """
    shuffled = np.array(tokens)
    for low, high in runs(tokens < N).tolist():
        shuffled[low:high] = _euler_walk(shuffled[low:high], generator)
    return shuffled


def _euler_walk(bases: Tokens, generator: np.random.Generator) -> np.ndarray:
    if len(bases) < 4:
        return bases
    last = int(bases[-1])
    leaving = [generator.permutation(bases[1:][bases[:-1] == base]) for base in range(N)]
    # The last way out of every base but the final one must lead to the final one in the end.
    bound = [base for base in range(N) if base != last and len(leaving[base])]
    while True:
        pick = {base: int(generator.integers(len(leaving[base]))) for base in bound}
        exit_of = {base: int(leaving[base][place]) for base, place in pick.items()}
        if all(_arrives(base, last, exit_of) for base in bound):
            break
    for base, place in pick.items():
        ways = leaving[base]
        ways[[place, -1]] = ways[[-1, place]]
    ways_out = [iter(ways.tolist()) for ways in leaving]
    walk = bytearray([bases[0]])
    for _ in range(len(bases) - 1):
        walk.append(next(ways_out[walk[-1]]))
    return np.frombuffer(walk, np.uint8)


def _arrives(base: int, last: int, exit_of: dict[int, int]) -> bool:
    for _ in range(N):
        base = base if base == last else exit_of[base]
    return base == last


def _ablation(bundle: Bundle, kind: str, seed: int | None, **parts: Any) -> Bundle:
    manifest = {**bundle.manifest, "ablation": {"kind": kind, "seed": seed}}
    return replace(bundle, manifest=manifest, **parts)

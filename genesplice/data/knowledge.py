"""What a model keeps of its data: the genome, and a network and gene sets of the user's own."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from genesplice.data.bundle import GENE_SETS, NETWORK, Bundle, Progress
from genesplice.data.gene_sets import read_gene_sets, read_gmt, read_set_names, write_gmt
from genesplice.data.genome import Genome
from genesplice.data.leakage import judge_knowledge
from genesplice.data.network import read_network
from genesplice.errors import InputError
from genesplice.runtime import file_sha256, write_json

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
    files = {"network": network, "gene_sets": gene_sets}
    own = {
        name: {"path": str(path), "sha256": file_sha256(path)}
        for name, path in files.items()
        if path is not None
    }
    changes: dict[str, Any] = {"manifest": {**bundle.manifest, OWN: own}}
    evidence = ""
    aliases = dict(bundle.aliases.itertuples(index=False))
    if network is not None:
        found = read_network(network, bundle.genes, aliases)
        changes["network"] = found.edges
        tell("; ".join(found.notes))
    if gene_sets is not None:
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
    return dataclasses.replace(bundle, **changes, leakage=leakage)


def own_files(bundle: Bundle) -> dict[str, str]:
    """The sha256 of what was replaced: of "network", "gene_sets", both or none."""
    return {name: record["sha256"] for name, record in bundle.manifest.get(OWN, {}).items()}


def keep_knowledge(bundle: Bundle, directory: Path) -> None:
    """Write what was replaced into a model's folder, and which genome it was trained on."""
    keep_genome(directory, bundle.genome)
    own = own_files(bundle)
    if "network" in own:
        bundle.network.to_parquet(directory / NETWORK, index=False)
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
        if files != kept[0]:
            raise InputError(
                f"{directories[0]} and {folder}, trained with different networks or gene sets",
                "models of one run",
            )
    changes: dict[str, Any] = {}
    if NETWORK in kept[0]:
        changes["network"] = pd.read_parquet(directories[0] / NETWORK)
    if GENE_SETS in kept[0]:
        changes["gene_sets"] = read_gmt(directories[0] / GENE_SETS)
        changes["set_names"] = read_set_names(directories[0] / GENE_SETS)
    return dataclasses.replace(bundle, **changes) if changes else bundle


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

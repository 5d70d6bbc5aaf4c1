"""A user's own edges and gene sets in place of a bundle's, kept with the models that know them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from genesplice.data.bundle import Bundle
from genesplice.data.leakage import judge_knowledge
from genesplice.data.network import parse_gene_sets, read_gmt, read_network, write_gmt
from genesplice.errors import InputError
from genesplice.runtime import file_sha256

OWN = "own"
"""The collection of gene sets that are of no other collection."""
NETWORK, GENE_SETS = "network.parquet", "gene_sets.gmt"


def replace_knowledge(
    bundle: Bundle,
    *,
    network: Path | None = None,
    gene_sets: Path | None = None,
    collections: Sequence[str] = ("KEGG", "COG", "GO"),
) -> Bundle:
    """The bundle with the edges of `network`, and the sets of `gene_sets`, instead of its own.

    What is not given stays. Gene sets whose names do not begin with one of `collections` and a
    colon are called "own:NAME". The leakage judges what is there now.

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
    evidence = None
    if network is not None:
        changes["network"] = read_network(network, bundle.genes)
    if gene_sets is not None:
        reading = parse_gene_sets(gene_sets, bundle.genes)
        evidence = reading.evidence
        changes["gene_sets"] = {
            name if name.split(":", 1)[0] in collections else f"{OWN}:{name}": members
            for name, members in reading.gene_sets.items()
        }
    leakage = judge_knowledge(
        bundle.leakage, changes.get("network"), changes.get("gene_sets"), evidence
    )
    return dataclasses.replace(bundle, **changes, leakage=leakage)


def own_files(bundle: Bundle) -> dict[str, str]:
    """The sha256 of what was replaced: of "network", "gene_sets", both or none."""
    return {name: record["sha256"] for name, record in bundle.manifest.get(OWN, {}).items()}


def keep_knowledge(bundle: Bundle, directory: Path) -> None:
    """Write what was replaced into a model's folder; nothing for a bundle as it was prepared."""
    own = own_files(bundle)
    if "network" in own:
        bundle.network.to_parquet(directory / NETWORK, index=False)
    if "gene_sets" in own:
        write_gmt(directory / GENE_SETS, bundle.gene_sets)


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
    kept = [
        {
            name: file_sha256(folder / name)
            for name in (NETWORK, GENE_SETS)
            if (folder / name).exists()
        }
        for folder in directories
    ]
    for folder, files in zip(directories, kept, strict=True):
        if files != kept[0]:
            raise InputError(
                f"{directories[0]} and {folder}, trained with different networks or gene sets",
                "models of one run",
            )
    directory = directories[0]
    changes: dict[str, Any] = {}
    if (directory / NETWORK).is_file():
        changes["network"] = pd.read_parquet(directory / NETWORK)
    if (directory / GENE_SETS).is_file():
        changes["gene_sets"] = read_gmt(directory / GENE_SETS)
    return dataclasses.replace(bundle, **changes) if changes else bundle

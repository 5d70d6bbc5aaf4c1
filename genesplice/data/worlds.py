"""Planted worlds: four truths about one kind of genome, to test the ruler of the context verdict.

Every world has the same parts: domains with or without a distal element, genes with or without a
promoter box, and a network in which every gene has one regulator that activates or represses it.
The worlds differ in what decides expression. A verdict that reads them must say yes, no, no, no.
"""

import time
from pathlib import Path
from typing import Any, Literal

import anndata as ad
import numpy as np
import pandas as pd

from genesplice.data.annotation import make_genes
from genesplice.data.bundle import Bundle, BundleParts, write_bundle
from genesplice.data.genome import Contig, Genome, encode
from genesplice.data.network import NETWORK_COLUMNS
from genesplice.errors import InputError

__all__ = ["DOMAIN_BP", "ELEMENT_DISTANCE_BP", "WORLDS", "WorldName", "make_world"]

WorldName = Literal["distal", "promoter", "network", "nothing"]
WORLDS: dict[WorldName, str] = {"distal": "yes", "promoter": "no", "network": "no", "nothing": "no"}
"""What decides expression, and what the verdict on context must be."""

DOMAIN_BP = 8192
ELEMENT_BP = 2048
"""An island of G and C only: the same on both strands, and in whichever bins it falls."""
BOX, BOX_BP, BOX_UPSTREAM_BP = "TTAATTAA", 64, 96
GENE_BP, GENE_STARTS_BP = 240, (2048, 2560, 3072)
ELEMENT_DISTANCE_BP = (GENE_STARTS_BP[0] - ELEMENT_BP // 2, GENE_STARTS_BP[-1] + GENE_BP)
"""From the element's edge to the nearest base, and from its middle to the furthest, of a gene."""
GAIN, NOISE, LEVEL = 3.0, 0.3, 6.0
N_CONDITIONS = 6
N_REGULATORS = 4


def make_world(out: Path, kind: WorldName, seed: int = 0, n_domains: int = 32) -> Bundle:
    """Write a bundle in which expression is decided by `kind`.

    One circular contig of random bases in domains of `DOMAIN_BP`. Half of the domains, by chance,
    have an island of 2 kb of G and C in their middle; six genes of 240 bp lie around it, on either
    strand by chance, none closer than 1 kb. Half of the genes have a box of 64 bp that ends 32 bp
    before the TSS. Each gene has one of four regulators, with a sign.

    `distal`: the level is higher by 3 in domains with an element. `promoter`: with a box.
    `network`: the level is higher by 3 in genes that are activated, and the profile follows the
    regulator's activity with the edge's sign. `nothing`: levels are drawn from a normal
    distribution of the same spread. `manifest["truth"]` has what was planted.

    Raises
    ------
    InputError
        For an unknown kind, or fewer than 10 domains (two for each fold).
    """
    started = time.monotonic()
    if kind not in WORLDS:
        raise InputError(f"world '{kind}'", f"one of {', '.join(WORLDS)}")
    if n_domains < 10:
        raise InputError(f"{n_domains} domains", "at least 10")
    generator = np.random.default_rng([seed, n_domains])
    length = n_domains * DOMAIN_BP
    tokens = generator.integers(0, 4, length).astype(np.uint8)
    genome = Genome(tokens, (Contig("chr", 0, length, True),))
    genes = _genes(genome, n_domains, generator)
    truth = _truth(genes, n_domains, generator)
    for domain in truth["elements"]:
        middle = domain * DOMAIN_BP + DOMAIN_BP // 2
        island = slice(middle - ELEMENT_BP // 2, middle + ELEMENT_BP // 2)
        tokens[island] = generator.choice(encode("CG"), ELEMENT_BP)
    boxed = set(truth["boxes"])
    for gene in genes[genes["gene_id"].isin(boxed)].itertuples(index=False):
        start = gene.tss - BOX_UPSTREAM_BP
        if gene.strand == "-":
            start = gene.tss + 1 + BOX_UPSTREAM_BP - BOX_BP
        tokens[start : start + BOX_BP] = np.tile(encode(BOX), BOX_BP // len(BOX))
    edges = [
        (edge["regulator"], target, edge["sign"], "regulates", "planted")
        for target, edge in truth["edges"].items()
    ]
    network = pd.DataFrame(edges, columns=list(NETWORK_COLUMNS)).astype({"sign": "int8"})
    parts = BundleParts(
        name=f"world-{kind}",
        genome=genome,
        genes=genes,
        expression=_expression(genes, truth, kind, generator),
        network=network,
        gene_sets={},
        motifs={},
        operons={},
        inputs=[],
        notes=["everything in this bundle is made up by genesplice.data.worlds"],
        gene_set_evidence="planted",
        extra={"truth": {"kind": kind, "context": WORLDS[kind], **truth}},
    )
    return write_bundle(
        parts, Path(out), command=f"genesplice.data.worlds.make_world {kind}", started=started,
        block_bp=DOMAIN_BP, seed=seed,
    )  # fmt: skip


def _genes(genome: Genome, n_domains: int, generator: np.random.Generator) -> pd.DataFrame:
    right = np.array(GENE_STARTS_BP)
    within = DOMAIN_BP // 2 + np.concatenate([-right[::-1] - GENE_BP, right])
    start = (np.arange(n_domains)[:, None] * DOMAIN_BP + within).ravel()
    table = pd.DataFrame(
        {
            "gene_id": [f"w{i:04d}" for i in range(len(start))],
            "name": [f"d{i // len(within)}g{i % len(within)}" for i in range(len(start))],
            "contig": genome.contigs[0].name,
            "start": start,
            "end": start + GENE_BP,
            "strand": generator.choice(["+", "-"], len(start)),
            "biotype": "protein_coding",
        }
    )
    return make_genes(table, genome)


def _truth(genes: pd.DataFrame, n_domains: int, generator: np.random.Generator) -> dict[str, Any]:
    ids = genes["gene_id"].tolist()
    regulators = sorted(generator.choice(ids, N_REGULATORS, replace=False).tolist())
    half = generator.permutation(np.arange(len(ids)) < len(ids) // 2)
    return {
        "elements": sorted(generator.permutation(n_domains)[: n_domains // 2].tolist()),
        "boxes": [gene for gene, has_box in zip(ids, half, strict=True) if has_box],
        "edges": {
            gene: {
                "regulator": regulators[int(generator.integers(N_REGULATORS))],
                "sign": int(generator.choice([1, -1])),
            }
            for gene in ids
        },
    }


def _expression(
    genes: pd.DataFrame, truth: dict[str, Any], kind: WorldName, generator: np.random.Generator
) -> ad.AnnData:
    ids = genes["gene_id"].to_numpy()
    domain = genes["start"].to_numpy() // DOMAIN_BP
    sign = np.array([truth["edges"][gene]["sign"] for gene in ids])
    regulators = sorted({edge["regulator"] for edge in truth["edges"].values()})
    activity = generator.normal(size=(len(regulators), N_CONDITIONS))
    own = [regulators.index(truth["edges"][gene]["regulator"]) for gene in ids]
    is_high = {
        "distal": np.isin(domain, truth["elements"]),
        "promoter": np.isin(ids, truth["boxes"]),
        "network": sign > 0,
        "nothing": generator.normal(0.5, 0.5, len(ids)),
    }[kind]
    mean = np.repeat(LEVEL + GAIN * is_high.astype(np.float64)[:, None], N_CONDITIONS, axis=1)
    if kind == "network":
        mean += sign[:, None] * activity[own]
    values = mean + generator.normal(scale=NOISE, size=mean.shape)
    conditions = [f"condition_{c}" for c in range(N_CONDITIONS)]
    obs = pd.DataFrame({"condition": conditions}, index=pd.Index(conditions, name="sample"))
    var = pd.DataFrame(index=pd.Index(ids, name="gene_id"))
    return ad.AnnData(X=np.clip(values, 0, 19).T.astype(np.float32).copy(), obs=obs, var=var)

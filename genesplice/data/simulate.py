"""Simulated controls: four truths about one kind of genome, to test the ruler of the context verdict.

Every control has the same parts: domains with or without a distal element, genes with or without a
promoter box, and a network in which every gene has one regulator that activates or represses it.
The controls differ in what decides expression. A verdict that reads them must say yes, no, no, no.
"""

import time
from pathlib import Path
from typing import Any, Literal

import anndata as ad
import numpy as np
import pandas as pd

from genesplice.data.annotation import make_genes
from genesplice.data.bundle import Bundle, BundleParts, write_bundle
from genesplice.data.genome import Contig, Genome, encode, reverse_complement
from genesplice.data.network import NETWORK_COLUMNS
from genesplice.errors import InputError

PROMOTER_MOTIF = "TTGACATATAAT"
REGULATOR_MOTIF = "TGTGATCACA"
PROMOTER_GAIN = 3.0
NOISE = 0.15


def make_bundle(
    out: Path,
    seed: int = 0,
    n_genes: int = 60,
    n_conditions: int = 8,
    n_replicates: int = 2,
    genome_bp: int = 120_000,
    is_circular: bool = True,
) -> Bundle:
    """Write a bundle whose truth is known.

    One contig of random bases; genes sit in equal slots, on either strand.

    - Level: a gene with `PROMOTER_MOTIF` 30 bp before its TSS (every other gene, by chance) has
      log2(TPM+1) higher by 3.
    - Regulators: the first two genes each have an activity per condition. Their targets
      (a quarter of the genes, + or -) follow it and carry `REGULATOR_MOTIF` 60 bp before the TSS.
    - Pathway: the members of "KEGG:ko00001" share one more activity; "GO:0000001" and
      "COG:Decoy" are random sets of the same size without any.

    The last gene is annotated and not measured. `manifest["truth"]` holds what was planted.

    Raises
    ------
    InputError
        If the genes do not fit: at least 10 genes, 1,000 bp each.
    """
    started = time.monotonic()
    if n_genes < 10 or genome_bp < 1_000 * n_genes:
        raise InputError(f"{n_genes} genes in {genome_bp} bp", "10 or more, 1,000 bp each")
    if n_conditions < 2 or n_replicates < 1:
        raise InputError(f"{n_conditions} conditions x {n_replicates} replicates", "at least 2 x 1")
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, 4, genome_bp).astype(np.uint8)
    genome = Genome(tokens, (Contig("chr", 0, genome_bp, is_circular),))
    genes = _genes(genome, n_genes, generator)
    truth = _truth(genes, generator)
    for gene in genes.itertuples(index=False):
        if gene.gene_id in truth["promoter"]:
            _plant(tokens, gene, PROMOTER_MOTIF, 30)
        if gene.gene_id in truth["targets"]:
            _plant(tokens, gene, REGULATOR_MOTIF, 60)
    edges = [
        (edge["regulator"], target, edge["sign"], "regulates", "planted")
        for target, edge in truth["targets"].items()
    ]
    network = pd.DataFrame(edges, columns=list(NETWORK_COLUMNS)).astype({"sign": "int8"})
    parts = BundleParts(
        name="synthetic",
        genome=genome,
        genes=genes,
        expression=_expression(genes, truth, n_conditions, n_replicates, generator),
        network=network,
        gene_sets={
            "COG:Decoy": tuple(truth["decoys"][0]),
            "GO:0000001": tuple(truth["decoys"][1]),
            "KEGG:ko00001": tuple(truth["pathway"]),
        },
        motifs={"promoter": _pwm(PROMOTER_MOTIF), "regulator": _pwm(REGULATOR_MOTIF)},
        operons={},
        inputs=[],
        notes=["everything in this bundle is made up by genesplice.data.simulate"],
        gene_set_evidence="planted",
        extra={"truth": truth},
    )
    return write_bundle(
        parts, Path(out), command="genesplice.data.simulate.make_bundle", started=started,
        block_bp=genome_bp // 15, seed=seed,
    )  # fmt: skip


def _genes(genome: Genome, n_genes: int, generator: np.random.Generator) -> pd.DataFrame:
    slot = genome.length // n_genes
    length = generator.integers(slot // 4, slot // 2, n_genes)
    start = np.arange(n_genes) * slot + slot // 4
    table = pd.DataFrame(
        {
            "gene_id": [f"g{i:04d}" for i in range(n_genes)],
            "name": [f"syn{i}" for i in range(n_genes)],
            "contig": genome.contigs[0].name,
            "start": start,
            "end": start + length,
            "strand": generator.choice(["+", "-"], n_genes),
            "biotype": "protein_coding",
        }
    )
    return make_genes(table, genome)


def _truth(genes: pd.DataFrame, generator: np.random.Generator) -> dict[str, Any]:
    ids = genes["gene_id"].tolist()
    measured = ids[:-1]
    shuffled = generator.permutation(measured[2:]).tolist()
    size = max(4, len(ids) // 6)
    targets = {
        gene: {"regulator": ids[i % 2], "sign": int(generator.choice([1, -1]))}
        for i, gene in enumerate(shuffled[: len(ids) // 4])
    }
    return {
        "promoter": sorted(gene for gene in ids if generator.random() < 0.5),
        "targets": targets,
        "pathway": sorted(generator.permutation(measured)[:size].tolist()),
        "decoys": [sorted(generator.permutation(measured)[:size].tolist()) for _ in range(2)],
    }


def _plant(tokens: np.ndarray, gene: Any, motif: str, upstream_bp: int) -> None:
    """Write `motif` on the gene's strand, its last base `upstream_bp` before the TSS."""
    letters = encode(motif)
    if gene.strand == "+":
        end = gene.tss - upstream_bp + 1
        tokens[end - len(letters) : end] = letters
    else:
        start = gene.tss + upstream_bp
        tokens[start : start + len(letters)] = reverse_complement(letters)


def _expression(
    genes: pd.DataFrame,
    truth: dict[str, Any],
    n_conditions: int,
    n_replicates: int,
    generator: np.random.Generator,
) -> ad.AnnData:
    ids = genes["gene_id"].tolist()[:-1]
    conditions = [f"condition_{c}" for c in range(n_conditions)]
    activity = {gene: generator.normal(size=n_conditions) for gene in (*ids[:2], "pathway")}
    mean = np.empty((len(ids), n_conditions))
    for row, gene in enumerate(ids):
        mean[row] = 6 + PROMOTER_GAIN * (gene in truth["promoter"])
        if edge := truth["targets"].get(gene):
            mean[row] += edge["sign"] * activity[edge["regulator"]]
        if gene in truth["pathway"]:
            mean[row] += activity["pathway"]
        if gene in activity:
            mean[row] += activity[gene]
    samples = [f"{c}__{r + 1}" for c in conditions for r in range(n_replicates)]
    values = np.repeat(mean, n_replicates, axis=1)
    values = np.clip(values + generator.normal(scale=NOISE, size=values.shape), 0, 19)
    obs = pd.DataFrame(
        {"condition": np.repeat(conditions, n_replicates)}, index=pd.Index(samples, name="sample")
    )
    var = pd.DataFrame(index=pd.Index(ids, name="gene_id"))
    return ad.AnnData(X=values.T.astype(np.float32).copy(), obs=obs, var=var)


def _pwm(motif: str) -> np.ndarray:
    return np.eye(4)[encode(motif)] * 0.96 + 0.01


ControlName = Literal["distal", "promoter", "network", "nothing"]
CONTROLS: dict[ControlName, str] = {
    "distal": "yes",
    "promoter": "no",
    "network": "no",
    "nothing": "no",
}
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


def make_control(out: Path, kind: ControlName, seed: int = 0, n_domains: int = 32) -> Bundle:
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
    if kind not in CONTROLS:
        raise InputError(f"control '{kind}'", f"one of {', '.join(CONTROLS)}")
    if n_domains < 10:
        raise InputError(f"{n_domains} domains", "at least 10")
    generator = np.random.default_rng([seed, n_domains])
    length = n_domains * DOMAIN_BP
    tokens = generator.integers(0, 4, length).astype(np.uint8)
    genome = Genome(tokens, (Contig("chr", 0, length, True),))
    genes = _domain_genes(genome, n_domains, generator)
    truth = _domain_truth(genes, n_domains, generator)
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
        name=f"control-{kind}",
        genome=genome,
        genes=genes,
        expression=_domain_expression(genes, truth, kind, generator),
        network=network,
        gene_sets={},
        motifs={},
        operons={},
        inputs=[],
        notes=["everything in this bundle is made up by genesplice.data.simulate"],
        gene_set_evidence="planted",
        extra={"truth": {"kind": kind, "context": CONTROLS[kind], **truth}},
    )
    return write_bundle(
        parts, Path(out), command=f"genesplice.data.simulate.make_control {kind}", started=started,
        block_bp=DOMAIN_BP, seed=seed,
    )  # fmt: skip


def _domain_genes(genome: Genome, n_domains: int, generator: np.random.Generator) -> pd.DataFrame:
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


def _domain_truth(
    genes: pd.DataFrame, n_domains: int, generator: np.random.Generator
) -> dict[str, Any]:
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


def _domain_expression(
    genes: pd.DataFrame, truth: dict[str, Any], kind: ControlName, generator: np.random.Generator
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

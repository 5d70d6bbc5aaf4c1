"""Simulated data whose truth is known: a small organism, and the controls of the context test.

`make_bundle` has promoters, regulators and a pathway at once. `make_control` has four kinds of
truth about one kind of genome: domains with or without a distal element, genes with or without a
promoter element, and a network in which every gene has one regulator that activates or represses
it. The controls differ in what decides expression. The test must say yes, no, no, no.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
from jaxtyping import Float

from genesplice.data.annotation import make_genes
from genesplice.data.bundle import Bundle, BundleParts, write_bundle
from genesplice.data.genome import Contig, Genome, decode, encode, reverse_complement
from genesplice.data.network import NETWORK_COLUMNS
from genesplice.errors import InputError, require

PROMOTER_MOTIF = "TTGACATATAAT"
REGULATOR_MOTIF = "TGTGATCACA"
GAIN, LEVEL = 3.0, 6.0
BUNDLE_NOISE, CONTROL_NOISE = 0.15, 0.3

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
PROMOTER_REPEAT, PROMOTER_BP, PROMOTER_UPSTREAM_BP = "TTAATTAA", 64, 96
GENE_BP, GENE_STARTS_BP = 240, (2048, 2560, 3072)
ELEMENT_DISTANCE_BP = (GENE_STARTS_BP[0] - ELEMENT_BP // 2, GENE_STARTS_BP[-1] + GENE_BP)
"""From the element's edge to the nearest base, and from its middle to the furthest, of a gene."""
N_CONDITIONS = 6
N_REGULATORS = 4


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
    genome = _random_genome(genome_bp, is_circular, generator)
    slot = genome_bp // n_genes
    length = generator.integers(slot // 4, slot // 2, n_genes)
    start = np.arange(n_genes) * slot + slot // 4
    numbers = range(n_genes)
    ids, names = [f"g{i:04d}" for i in numbers], [f"syn{i}" for i in numbers]
    genes = _genes(genome, ids, names, start, start + length, generator)
    truth = _bundle_truth(ids, generator)
    for gene in genes.itertuples(index=False):
        if gene.gene_id in truth["promoter"]:
            _plant(genome.tokens, gene, PROMOTER_MOTIF, 30)
        if gene.gene_id in truth["targets"]:
            _plant(genome.tokens, gene, REGULATOR_MOTIF, 60)
    mean = _bundle_means(ids[:-1], truth, n_conditions, generator)
    values = np.repeat(mean, n_replicates, axis=1)
    values += generator.normal(scale=BUNDLE_NOISE, size=values.shape)
    conditions = [f"condition_{c}" for c in range(n_conditions)]
    samples = [f"{c}__{r + 1}" for c in conditions for r in range(n_replicates)]
    return _write(
        out, started, seed,
        name="synthetic",
        command="genesplice.data.simulate.make_bundle",
        block_bp=genome_bp // 15,
        genome=genome,
        genes=genes,
        expression=_expression(values, ids[:-1], samples, np.repeat(conditions, n_replicates)),
        edges=truth["targets"],
        gene_sets={
            "COG:Decoy": tuple(truth["decoys"][0]),
            "GO:0000001": tuple(truth["decoys"][1]),
            "KEGG:ko00001": tuple(truth["pathway"]),
        },
        motifs={
            name: np.eye(4)[encode(motif)] * 0.96 + 0.01
            for name, motif in (("promoter", PROMOTER_MOTIF), ("regulator", REGULATOR_MOTIF))
        },
        truth=truth,
    )  # fmt: skip


def make_own_files(folder: Path, seed: int = 0, n_sequences: int = 240) -> dict[str, Any]:
    """Write small files as users have them, with the truth of `make_bundle` in them.

    Given are the arguments of `prepare_files` (genome, annotation, expression in TPM, samples), and
    `table`: sequences of 96 bp, half of which have `PROMOTER_MOTIF` at base 40 and a higher value.
    `tracks` is a BED file with a peak of 120 bp around that motif of each gene that has it.
    """
    shutil.rmtree(folder / "made_up", ignore_errors=True)
    bundle = make_bundle(folder / "made_up", seed)
    (contig,), generator = bundle.genome.contigs, np.random.default_rng(seed)
    (folder / "genome.fa").write_text(f">{contig.name}\n{decode(bundle.genome.tokens)}\n")
    lines = [
        f"{gene.contig}\tmade_up\tgene\t{gene.start + 1}\t{gene.end}\t.\t{gene.strand}\t.\t"
        f"ID={gene.gene_id};Name={gene.name};gene_biotype=protein_coding"
        for gene in bundle.genes.itertuples(index=False)
    ]
    (folder / "genes.gff3").write_text("\n".join(["##gff-version 3", *lines]) + "\n")
    tpm = 2 ** bundle.expression.to_df().T - 1
    tpm.rename_axis("gene").round(3).to_csv(folder / "tpm.tsv", sep="\t")
    bundle.expression.obs.rename_axis("sample").to_csv(folder / "samples.tsv", sep="\t")
    texts, has_motif = list[str](), np.arange(n_sequences) % 2 == 0
    for one in has_motif:
        text = decode(generator.integers(0, 4, 96).astype(np.uint8))
        texts.append(f"{text[:40]}{PROMOTER_MOTIF}{text[52:]}" if one else text)
    strength = GAIN * has_motif + generator.normal(size=n_sequences)
    rows = {"sequence": texts, "strength": strength.round(3)}
    pd.DataFrame(rows).to_csv(folder / "strength.tsv", sep="\t", index=False)
    has_peak = bundle.genes["gene_id"].isin(bundle.manifest["truth"]["promoter"])
    ahead = np.where(bundle.genes["strand"] == "+", -36, 36)  # where the motif is planted
    middle = (bundle.genes["tss"] + ahead)[has_peak]
    peaks = [f"{contig.name}\t{at - 60}\t{at + 60}\n" for at in middle]
    (folder / "binding.bed").write_text("".join(peaks))
    named = {"fasta": "genome.fa", "annotation": "genes.gff3", "expression": "tpm.tsv"}
    named |= {"samples": "samples.tsv", "tracks": "binding.bed", "table": "strength.tsv"}
    more = {"expression_unit": "tpm", "circular": (contig.name,), "block_bp": 8000}
    given = {part: folder / name for part, name in named.items()}
    return given | more | {"tracks": [given["tracks"]]}


def _bundle_truth(ids: list[str], generator: np.random.Generator) -> dict[str, Any]:
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


def _bundle_means(
    ids: list[str], truth: dict[str, Any], n_conditions: int, generator: np.random.Generator
) -> Float[np.ndarray, "genes conditions"]:
    activity = {gene: generator.normal(size=n_conditions) for gene in (*ids[:2], "pathway")}
    mean = np.empty((len(ids), n_conditions))
    for row, gene in enumerate(ids):
        mean[row] = LEVEL + GAIN * (gene in truth["promoter"])
        if edge := truth["targets"].get(gene):
            mean[row] += edge["sign"] * activity[edge["regulator"]]
        if gene in truth["pathway"]:
            mean[row] += activity["pathway"]
        if gene in activity:
            mean[row] += activity[gene]
    return mean


def make_control(out: Path, kind: ControlName, seed: int = 0, n_domains: int = 32) -> Bundle:
    """Write a bundle in which expression is decided by `kind`.

    One circular contig of random bases in domains of `DOMAIN_BP`. Half of the domains, by chance,
    have an island of 2 kb of G and C in their middle; six genes of 240 bp lie around it, on either
    strand by chance, none closer than 1 kb. Half of the genes have a promoter element of 64 bp
    that ends 32 bp before the TSS. Each gene has one of four regulators, with a sign.

    `distal`: the level is higher by 3 in domains with an island. `promoter`: with a promoter
    element. `network`: the level is higher by 3 in genes that are activated, and the profile
    follows the regulator's activity with the edge's sign. `nothing`: levels are drawn from a
    normal distribution of the same spread. `manifest["truth"]` has what was planted.

    Raises
    ------
    InputError
        For an unknown kind, or fewer than 10 domains (two for each fold).
    """
    started = time.monotonic()
    require(kind in CONTROLS, f"control '{kind}'", f"one of {', '.join(CONTROLS)}")
    require(n_domains >= 10, f"{n_domains} domains", "at least 10")
    generator = np.random.default_rng([seed, n_domains])
    genome = _random_genome(n_domains * DOMAIN_BP, True, generator)
    right = np.array(GENE_STARTS_BP)
    within = DOMAIN_BP // 2 + np.concatenate([-right[::-1] - GENE_BP, right])
    start = (np.arange(n_domains)[:, None] * DOMAIN_BP + within).ravel()
    ids = [f"w{i:04d}" for i in range(len(start))]
    names = [f"d{i // len(within)}g{i % len(within)}" for i in range(len(start))]
    genes = _genes(genome, ids, names, start, start + GENE_BP, generator)
    truth = _control_truth(ids, n_domains, generator)
    for domain in truth["elements"]:
        middle = domain * DOMAIN_BP + DOMAIN_BP // 2
        island = slice(middle - ELEMENT_BP // 2, middle + ELEMENT_BP // 2)
        genome.tokens[island] = generator.choice(encode("CG"), ELEMENT_BP)
    repeat = np.tile(encode(PROMOTER_REPEAT), PROMOTER_BP // len(PROMOTER_REPEAT))
    for gene in genes[genes["gene_id"].isin(truth["promoters"])].itertuples(index=False):
        first = gene.tss - PROMOTER_UPSTREAM_BP
        if gene.strand == "-":
            first = gene.tss + 1 + PROMOTER_UPSTREAM_BP - PROMOTER_BP
        genome.tokens[first : first + PROMOTER_BP] = repeat
    mean = _control_means(genes, truth, kind, generator)
    values = mean + generator.normal(scale=CONTROL_NOISE, size=mean.shape)
    conditions = [f"condition_{c}" for c in range(N_CONDITIONS)]
    return _write(
        out, started, seed,
        name=f"control-{kind}",
        command=f"genesplice.data.simulate.make_control {kind}",
        block_bp=DOMAIN_BP,
        genome=genome,
        genes=genes,
        expression=_expression(values, ids, conditions, conditions),
        edges=truth["edges"],
        truth={"kind": kind, "context": CONTROLS[kind], **truth},
    )  # fmt: skip


def _control_truth(
    ids: list[str], n_domains: int, generator: np.random.Generator
) -> dict[str, Any]:
    regulators = sorted(generator.choice(ids, N_REGULATORS, replace=False).tolist())
    half = generator.permutation(np.arange(len(ids)) < len(ids) // 2)
    return {
        "elements": sorted(generator.permutation(n_domains)[: n_domains // 2].tolist()),
        "promoters": [gene for gene, is_one in zip(ids, half, strict=True) if is_one],
        "edges": {
            gene: {
                "regulator": regulators[int(generator.integers(N_REGULATORS))],
                "sign": int(generator.choice([1, -1])),
            }
            for gene in ids
        },
    }


def _control_means(
    genes: pd.DataFrame, truth: dict[str, Any], kind: ControlName, generator: np.random.Generator
) -> Float[np.ndarray, "genes conditions"]:
    ids = genes["gene_id"].to_numpy()
    edges = [truth["edges"][gene] for gene in ids]
    sign = np.array([edge["sign"] for edge in edges])
    regulators = sorted({edge["regulator"] for edge in edges})
    activity = generator.normal(size=(len(regulators), N_CONDITIONS))
    own = [regulators.index(edge["regulator"]) for edge in edges]
    is_high = {
        "distal": np.isin(genes["start"].to_numpy() // DOMAIN_BP, truth["elements"]),
        "promoter": np.isin(ids, truth["promoters"]),
        "network": sign > 0,
        "nothing": generator.normal(0.5, 0.5, len(ids)),
    }[kind]
    mean = np.repeat(LEVEL + GAIN * is_high.astype(np.float64)[:, None], N_CONDITIONS, axis=1)
    return mean + sign[:, None] * activity[own] if kind == "network" else mean


def _random_genome(length: int, is_circular: bool, generator: np.random.Generator) -> Genome:
    tokens = generator.integers(0, 4, length).astype(np.uint8)
    return Genome(tokens, (Contig("chr", 0, length, is_circular),))


def _genes(
    genome: Genome,
    ids: list[str],
    names: list[str],
    start: np.ndarray,
    end: np.ndarray,
    generator: np.random.Generator,
) -> pd.DataFrame:
    table = pd.DataFrame({"gene_id": ids, "name": names, "start": start, "end": end})
    strand = generator.choice(["+", "-"], len(ids))
    return make_genes(table.assign(contig="chr", strand=strand, biotype="protein_coding"), genome)


def _expression(
    values: Float[np.ndarray, "genes samples"],
    ids: list[str],
    samples: list[str],
    conditions: Sequence[str] | np.ndarray,
) -> ad.AnnData:
    obs = pd.DataFrame({"condition": conditions}, index=pd.Index(samples, name="sample"))
    var = pd.DataFrame(index=pd.Index(ids, name="gene_id"))
    return ad.AnnData(X=np.clip(values, 0, 19).T.astype(np.float32).copy(), obs=obs, var=var)


def _write(
    out: Path,
    started: float,
    seed: int,
    *,
    command: str,
    block_bp: int,
    edges: Mapping[str, Mapping[str, Any]],
    truth: dict[str, Any],
    **parts: Any,
) -> Bundle:
    rows = [(e["regulator"], gene, e["sign"], "regulates", "planted") for gene, e in edges.items()]
    network = pd.DataFrame(rows, columns=list(NETWORK_COLUMNS)).astype({"sign": "int8"})
    notes = ["everything in this bundle is made up by genesplice.data.simulate"]
    nothing: dict[str, Any] = {"gene_sets": {}, "motifs": {}, "operons": {}, "inputs": []}
    made = BundleParts(**nothing | parts, network=network, notes=notes,
                       gene_set_evidence="planted", extra={"truth": truth})  # fmt: skip
    return write_bundle(
        made, Path(out), command=command, started=started, block_bp=block_bp, seed=seed
    )

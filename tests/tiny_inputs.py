"""A small organism as the files of a user: 40 genes on one contig of 24 kb."""

from collections.abc import Mapping
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from tiny_files import random_genome, write

from genesplice.data.expression import ExpressionUnit, make_expression
from genesplice.data.genome import decode
from genesplice.data.measurements import read_measurements

BASES = decode(random_genome(24_000, seed=5).tokens)
N_GENES = 40
STARTS = [500 * i + 151 for i in range(N_GENES)]
IDS = [f"b{i:04d}" for i in range(N_GENES)]


def fasta(name: str = "chr1", bases: str = BASES) -> str:
    lines = [bases[i : i + 80] for i in range(0, len(bases), 80)]
    return "\n".join([f">{name} made up", *lines, ""])


def gff(contig: str = "chr1", is_circular: bool = True, n: int = N_GENES) -> str:
    head = f"##gff-version 3\n##sequence-region {contig} 1 24000\n"
    flag = ";Is_circular=true" if is_circular else ""
    lines = [f"{contig}\tx\tregion\t1\t24000\t.\t+\t.\tID=chr{flag}"]
    for i in range(n):
        names = f"ID=gene-{IDS[i]};locus_tag={IDS[i]};gene=gen{i};gene_synonym=old{i}"
        place = f"{STARTS[i]}\t{STARTS[i] + 299}\t.\t{'+-'[i % 2]}\t."
        lines.append(f"{contig}\tx\tgene\t{place}\t{names};gene_biotype=protein_coding")
    return head + "\n".join([*lines, ""])


def table(ids=IDS, samples=("s1", "s2", "s3", "s4"), scale: float = 100) -> str:
    values = np.random.default_rng(1).uniform(1, scale, (len(ids), len(samples)))
    frame = pd.DataFrame(values.round(3), pd.Index(ids, name="gene"), samples)
    return frame.to_csv(sep="\t")


SAMPLES = "sample\tcondition\ns1\twarm\ns2\twarm\ns3\tcold\ns4\tcold\n"
NETWORK = "regulator\tgene\teffect\tevidence\ngen0\tgen1\t+\tChIP\nold2\tb0003\t-\tChIP\n"
SETS = "GO:1\twords\tb0000\tgen1\told2\tnobody\nGO:2\twords\tb0000\tb0001\n"
ALL = {
    "fasta": ("genome.fa", fasta()),
    "annotation": ("genes.gff3", gff()),
    "expression": ("tpm.tsv", table()),
    "samples": ("samples.tsv", SAMPLES),
    "network": ("edges.tsv", NETWORK),
    "gene_sets": ("sets.gmt", SETS),
}
NEEDED = ("fasta", "annotation", "expression")


def inputs(folder: Path, *parts: str, **texts: str | bytes) -> dict[str, Path]:
    """Paths of the files, written; a text given by name takes the place of the good one."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [*NEEDED, *parts, *(part for part in texts if part not in NEEDED)]
    return {part: write(folder / ALL[part][0], texts.get(part, ALL[part][1])) for part in chosen}


def read_expression(
    path: Path,
    unit: ExpressionUnit,
    samples: Path | None = None,
    lengths: Mapping[str, float | int] | None = None,
) -> ad.AnnData:
    """Expression as `prepare_files` reads it, under the names of genes that the file has."""
    values, obs, own, _ = read_measurements(path, unit, samples)
    lengths = lengths if own is None else own.to_dict()
    return make_expression(values, unit, obs, lengths=lengths, path=path)

"""Small genomes with operons, RNA genes and several contigs, for regions and probes."""

import dataclasses

import numpy as np
import pandas as pd
import torch

import genesplice as gs
from genesplice.data.coding import whole_gene
from genesplice.data.genome import Contig, Genome, encode, reverse_complement
from genesplice.data.relatives import GAP, GROUPS, UNALIGNED, Relatives
from genesplice.model.genesplice import PretrainingModel

SMALL = [
    "model.relatives=false",
    "model.width=16",
    "model.heads=2",
    "model.region_layers=1",
    "model.summary_layers=1",
]


def make_genome(*lengths, circular=(), names=None, seed=0):
    """Contigs c0, c1, … of random bases."""
    names = names or [f"c{i}" for i in range(len(lengths))]
    generator = np.random.default_rng(seed)
    contigs, offset = [], 0
    for name, length in zip(names, lengths, strict=True):
        contigs.append(Contig(name, offset, length, name in circular))
        offset += length
    return Genome(generator.integers(0, 4, offset).astype(np.uint8), tuple(contigs))


def with_operons(bundle, n_rna=8):
    """Neighbours on one strand share an operon, genes have start codons, and some are RNA."""
    genes = bundle.genes.copy()
    tokens = np.array(bundle.genome.tokens)
    for number, gene in enumerate(genes.itertuples()):
        codon = encode(("ATG", "GTG", "TTG")[number % 3])
        if gene.strand == "+":
            tokens[gene.tss : gene.tss + 3] = codon
        else:
            tokens[gene.tss - 2 : gene.tss + 1] = reverse_complement(codon)
    genes.loc[genes.index[-n_rna - 1 : -1], "biotype"] = ["tRNA", "rRNA"] * (n_rna // 2)
    genes["exons"] = [whole_gene(gene) for gene in genes.to_dict("records")]
    run = (genes["strand"] != genes["strand"].shift()).cumsum()
    splits = bundle.splits.copy()
    block = splits.set_index("gene_id")["block"].reindex(genes["gene_id"]).to_numpy()
    splits["operon"] = [f"op{r}-{b}" for r, b in zip(run, block, strict=True)]
    genome = dataclasses.replace(bundle.genome, tokens=tokens)
    return dataclasses.replace(bundle, genome=genome, genes=genes, splits=splits)


def make_genes(*rows):
    """Rows of (gene_id, contig, start, end, strand, biotype)."""
    names = ["gene_id", "contig", "start", "end", "strand", "biotype"]
    table = pd.DataFrame(rows, columns=names)
    table["name"] = table["gene_id"]
    table["tss"] = np.where(table["strand"] == "+", table["start"], table["end"] - 1)
    exons = [whole_gene(gene) for gene in table.to_dict("records")]
    return table.assign(exons=exons, genetic_code=11)


def make_relatives(bundle, n, seed=0):
    """Random rows: most bases equal, some other, some lost, long stretches not aligned."""
    rng = np.random.default_rng(seed)
    length = bundle.genome.length
    bases = np.tile(bundle.genome.tokens, (n, 1))
    is_other = rng.random((n, length)) < 0.2
    bases[is_other] = rng.integers(0, GAP + 1, is_other.sum())
    for row in bases:
        for start in rng.integers(0, length - 500, 20):
            row[start : start + 500] = UNALIGNED
    groups = [GROUPS[i * 3 // n] for i in range(n)]
    table = pd.DataFrame({"name": [f"r{i}" for i in range(n)], "group": groups})
    table = table.assign(identity=0.8, aligned=0.8)
    counts = [
        [(bases[[g == group for g in groups]] == code).sum(0) for code in range(GAP + 1)]
        for group in GROUPS
    ]
    return Relatives(bases, np.array(counts, np.uint8).transpose(0, 2, 1), table)


def with_columns(bundle, n=6, seed=0):
    """The bundle with the alignment columns of random relatives."""
    columns = make_relatives(bundle, n, seed).columns
    return dataclasses.replace(bundle, genome=dataclasses.replace(bundle.genome, columns=columns))


def make_encoder(base_width):
    """Small, with random weights."""
    torch.manual_seed(0)
    settings = [*SMALL, f"model.base_width={base_width}"]
    return PretrainingModel(gs.override(gs.load_preset("quick"), settings).model, 8).encoder

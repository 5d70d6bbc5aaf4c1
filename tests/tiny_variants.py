"""Small VCFs and masked-base models with random weights."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import genesplice as gs
from genesplice.data.genome import decode
from genesplice.model.genesplice import PretrainingModel
from genesplice.variants.vcf import Record

SIZES = ("model.relatives=false",
         "model.width=16", "model.heads=2", "model.base_width=4", "model.region_layers=1",
         "model.summary_layers=1", "pretrain.contrastive_width=8")  # fmt: skip
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
HEADER = ("##fileformat=VCFv4.3", '##INFO=<ID=AF,Number=A,Type=Float,Description="a share">')


def make_masked(*settings: str, seed: int = 0, gain: float = 8.0) -> PretrainingModel:
    """A masked-base model whose answers depend on what it reads: its logits are not flat."""
    torch.manual_seed(seed)
    config = gs.override(gs.load_preset("quick"), [*SIZES, *settings])
    model = PretrainingModel(config.model, config.pretrain.contrastive_width).eval()
    with torch.no_grad():
        for weight in model.masked_bases.parameters():
            weight.mul_(gain)
    return model


def save_masked(folder: Path, *settings: str, seed: int = 0) -> Path:
    """The same as a folder that `pretrain` could have written."""
    config = gs.override(gs.load_preset("quick"), [*SIZES, *settings])
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(config.to_dict()))
    save_file(make_masked(*settings, seed=seed).state_dict(), folder / "model.safetensors")
    return folder


def letters(genome, start: int, length: int = 1, contig: str | None = None) -> str:
    """What the genome has at a 0-based place."""
    return decode(genome.fetch(contig or genome.contigs[0].name, start, start + length))


def other(base: str, step: int = 1) -> str:
    """Another base than this one."""
    return "ACGT"[("ACGT".index(base) + step) % 4]


def snv(genome, start: int, step: int = 1, **columns: str) -> str:
    """A line with a substitution."""
    ref = letters(genome, start)
    return line(genome.contigs[0].name, start, ref, other(ref, step), **columns)


def line(contig: str, start: int, ref: str, alt: str, *, name: str = ".", info: str = ".") -> str:
    """A line of a VCF; `start` is 0-based."""
    return "\t".join([contig, str(start + 1), name, ref, alt, ".", ".", info])


def record(contig: str, start: int, ref: str, alt: str) -> Record:
    """The same as the reader gives it."""
    return Record(1, tuple(line(contig, start, ref, alt).split("\t")))


def write_lines(path: Path, lines, header=HEADER) -> Path:
    """A VCF of these records."""
    path.write_text("\n".join([*header, COLUMNS, *lines]) + "\n")
    return path


def random_lines(genome, generator: np.random.Generator, count: int) -> list[str]:
    """Substitutions, insertions and deletions in order of place."""
    contig = genome.contigs[0]
    starts = np.sort(generator.integers(10, contig.length - 80, count))
    lines = []
    for start in starts.tolist():
        kind, size = generator.integers(3), int(generator.integers(1, 6))
        more = "".join(generator.choice(list("ACGT"), size))
        if kind == 0:
            lines.append(snv(genome, start, int(generator.integers(1, 4))))
        elif kind == 1:
            ref = letters(genome, start)
            lines.append(line(contig.name, start, ref, ref + more))
        else:
            ref = letters(genome, start, size + 1)
            lines.append(line(contig.name, start, ref, ref[0]))
    return lines

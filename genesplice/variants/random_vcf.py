"""A VCF of random substitutions, to try things out on."""

from pathlib import Path

import numpy as np

from genesplice.data.genome import ALPHABET, Genome
from genesplice.errors import InputError
from genesplice.runtime import atomic_file
from genesplice.variants.scan import Region

__all__ = ["make_snv_vcf"]


def make_snv_vcf(path: Path, genome: Genome, region: Region, *, count: int, seed: int = 0) -> None:
    """Write `count` substitutions at different places of a stretch, in order of place.

    Every base other than the one that is there is equally likely.

    Raises
    ------
    InputError
        If the stretch has fewer known bases.
    """
    generator = np.random.default_rng(seed)
    tokens = genome.fetch(*region)
    known = np.flatnonzero(tokens < 4)
    if len(known) < count:
        raise InputError(f"{len(known)} known bases in {region}", f"{count} or more")
    places = np.sort(generator.choice(known, count, replace=False))
    steps = generator.integers(1, 4, count)
    length = genome.contig(region.contig).length
    with atomic_file(path) as partial, partial.open("w") as handle:
        handle.write("##fileformat=VCFv4.3\n")
        handle.write(f"##contig=<ID={region.contig},length={length}>\n")
        handle.write("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
        for place, step in zip(places.tolist(), steps.tolist(), strict=True):
            ref, alt = ALPHABET[tokens[place]], ALPHABET[(int(tokens[place]) + step) % 4]
            position = region.start + place + 1
            handle.write(f"{region.contig}\t{position}\t.\t{ref}\t{alt}\t.\t.\t.\n")

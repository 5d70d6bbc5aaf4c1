"""What kind of place a variant lies in."""

import numpy as np
from jaxtyping import UInt8

from genesplice.data.bundle import Bundle
from genesplice.data.features import region_masks
from genesplice.data.genome import Genome

REGIONS = ("other", "intergenic", "coding", "promoter")


def region_track(bundle: Bundle) -> UInt8[np.ndarray, " length"]:
    """Index into `REGIONS` for every base of the genome: one class each, promoters first.

    `other` is what `region_masks` has in none: RNA genes, pseudogenes, genes
    without a reading frame, bases of genes on both strands.
    """
    masks = region_masks(bundle)
    track = np.zeros(bundle.genome.length, np.uint8)
    for i, name in enumerate(REGIONS[1:], 1):
        track[masks[name]] = i
    return track


def region_of(genome: Genome, track: UInt8[np.ndarray, " length"], contig: str, start: int) -> str:
    """The class of one base."""
    place = genome.contig(contig)
    return REGIONS[track[place.offset + min(max(start, 0), place.length - 1)]]

"""From files to a bundle: genome, genes, expression, network, gene sets, folds, leakage."""

from genesplice.data.bundle import Bundle, load_bundle
from genesplice.data.genome import Genome, decode, encode, reverse_complement
from genesplice.data.prepare import prepare_files, prepare_recipe

__all__ = [
    "Bundle",
    "Genome",
    "decode",
    "encode",
    "load_bundle",
    "prepare_files",
    "prepare_recipe",
    "reverse_complement",
]

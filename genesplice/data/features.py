"""Features of sequence and annotation: windows around sites, k-mers, regions; and their scale."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int64, UInt8

from genesplice.data.bundle import Bundle
from genesplice.data.genome import Genome, Mask, N, Tokens, reverse_complement
from genesplice.data.splits import first_of_operon
from genesplice.data.windows import annotation_track
from genesplice.errors import InputError
from genesplice.results import MotifHit

LONGEST_K, MOST_ROWS = 8, 3000
RNA_BIOTYPES = frozenset({"tRNA", "rRNA", "Mt_tRNA", "Mt_rRNA"})
PROMOTER_DISTANCE_BP = (20, 100)
"""Before the `tss`: from the nearer to the farther base. In a bundle whose `tss` is the start codon
the transcript's leader (about 40 bp in E. coli) lies in between, and so does the -10 hexamer."""


def site_windows(
    genome: Genome, sites: pd.DataFrame, upstream_bp: int, downstream_bp: int
) -> UInt8[np.ndarray, "sites length"]:
    """Tokens around each site on its strand, 5' to 3': the site itself is base `upstream_bp`.

    Round a circular contig, N beyond the ends of a linear one.

    Parameters
    ----------
    sites
        Columns contig, position (0-based), strand, as from `make_probe_sites`.
    """
    windows = np.empty((len(sites), upstream_bp + downstream_bp), np.uint8)
    for row, interval in enumerate(_site_intervals(sites, upstream_bp, downstream_bp)):
        windows[row] = genome.fetch(*interval)
    return windows


def site_columns(
    genome: Genome, sites: pd.DataFrame, upstream_bp: int, downstream_bp: int
) -> UInt8[np.ndarray, "sites length groups 5"]:
    """Alignment columns of `site_windows`."""
    n_groups = 0 if genome.columns is None else len(genome.columns)
    columns = np.empty((len(sites), upstream_bp + downstream_bp, n_groups, 5), np.uint8)
    for row, interval in enumerate(_site_intervals(sites, upstream_bp, downstream_bp)):
        columns[row] = genome.fetch_columns(*interval)
    return columns


def _site_intervals(
    sites: pd.DataFrame, upstream_bp: int, downstream_bp: int
) -> Iterator[tuple[str, int, int, Any]]:
    columns = (sites[name].tolist() for name in ("contig", "position", "strand"))
    for contig, at, strand in zip(*columns, strict=True):
        if strand == "+":
            yield contig, at - upstream_bp, at + downstream_bp, "+"
        else:
            yield contig, at + 1 - downstream_bp, at + 1 + upstream_bp, "-"


def tss_sites(bundle: Bundle, genes: pd.Index) -> pd.DataFrame:
    """Each gene's TSS as a site: contig, position and strand by gene_id."""
    table = bundle.genes.set_index("gene_id").loc[genes, ["contig", "tss", "strand"]]
    return table.rename(columns={"tss": "position"})


def kmer_codes(
    tokens: UInt8[np.ndarray, "*rows length"], k: int, step: int = 1
) -> Int64[np.ndarray, "*rows kmers"]:
    """The k-mer that begins at every `step`-th base, as a number of base 4; -1 for one with N."""
    pieces = np.lib.stride_tricks.sliding_window_view(tokens, k, axis=-1)[..., ::step, :]
    code = np.zeros(pieces.shape[:-1], np.int64)
    for offset in range(k):
        code = code * 4 + pieces[..., offset]
    return np.where((pieces < 4).all(axis=-1), code, -1)


def codon_codes(genome: Genome) -> Int64[np.ndarray, "2 length"]:
    """The 3-mer that begins at each base and runs along + or -; -1 with N or beyond the contig."""
    codons = np.full((2, genome.length), -1, np.int64)
    for contig in genome.contigs:
        here = slice(contig.offset, contig.offset + contig.length)
        tokens = np.array(genome.tokens[here])
        for strand, read in ((0, tokens), (1, reverse_complement(tokens))):
            code = kmer_codes(np.pad(read, (0, 2), constant_values=N), 3)
            codons[strand, here] = code[:: 1 - 2 * strand]
    return codons


def kmer_names(k: int) -> list[str]:
    """All k-mers in the order of their codes."""
    return ["".join(letters) for letters in product("ACGT", repeat=k)]


def kmer_features(
    windows: UInt8[np.ndarray, "sites length"], k: int = 4
) -> Float[np.ndarray, "sites kmers"]:
    """How often each of the 4^k k-mers is in each window; k-mers with N are not counted.

    Raises
    ------
    InputError
        If `k` is not 1 to 8, or longer than a window.
    """
    n_windows, length = windows.shape
    if not 1 <= k <= min(LONGEST_K, length):
        raise InputError(f"k {k} in windows of {length} bp", "1 to 8, and no longer than a window")
    code = kmer_codes(windows, k)
    cell = (np.arange(n_windows)[:, None] * 4**k + code)[code >= 0]
    return np.bincount(cell, minlength=n_windows * 4**k).reshape(-1, 4**k).astype(np.float64)


def one_hot_features(
    windows: UInt8[np.ndarray, "sites length"],
) -> Float[np.ndarray, "sites channels"]:
    """One column for each base and letter; all four are 0 at an N."""
    return (windows[:, :, None] == np.arange(4)).reshape(len(windows), -1).astype(np.float64)


def standardise(
    values: Float[np.ndarray, "genes features"], is_train: np.ndarray
) -> Float[np.ndarray, "genes features"]:
    """Scale to mean 0 and standard deviation 1 on the training genes; constant there gives 0."""
    mean, scale = values[is_train].mean(axis=0), values[is_train].std(axis=0)
    is_constant = scale < 1e-12
    return np.where(is_constant, 0, (values - mean) / np.where(is_constant, 1, scale))


def principal_basis(
    values: Float[np.ndarray, "rows features"], most: int, seed: int = 0
) -> tuple[Float[np.ndarray, " features"], Float[np.ndarray, "features components"]]:
    """Centre and basis of features that are scaled to variance 1; a constant feature counts 0.

    (values - centre) @ basis are the scaled features, or, of more than `most`, their principal
    components of most variance, each with its own variance (from `MOST_ROWS` of the rows).

    Source: Halko, Martinsson and Tropp, Finding structure with randomness, 2011.
    """
    # Imported here: it takes a second.
    from sklearn.decomposition import PCA

    centre, scale = values.mean(axis=0), values.std(axis=0)
    factor = np.where(scale < 1e-6, 0, 1 / np.where(scale < 1e-6, 1, scale)).astype(values.dtype)
    if min(values.shape) <= most:
        return centre, np.diag(factor)
    chosen = np.random.default_rng(seed).permutation(len(values))[:MOST_ROWS]
    pca = PCA(most, svd_solver="randomized", iterated_power=3, random_state=seed)
    found = pca.fit((values[np.sort(chosen)] - centre) * factor)
    return centre, factor[:, None] * found.components_.T


def region_masks(
    bundle: Bundle, track: UInt8[np.ndarray, "2 length"] | None = None
) -> dict[str, Mask]:
    """Masks over `Genome.tokens`: `coding`, `intergenic`, `rna`, `promoter`.

    - `coding`: in a reading frame on one strand, and in no gene on the other.
    - `intergenic`: in no gene on either strand.
    - `rna`: in a tRNA or rRNA gene (see `RNA_BIOTYPES`).
    - `promoter`: the intergenic bases at `PROMOTER_DISTANCE_BP` before an operon's first gene;
      these are intergenic as well.

    Introns, untranslated bases, other RNA genes, pseudogenes, genes without a frame and bases of
    two strands' genes are in none.

    Parameters
    ----------
    track
        `annotation_track` of the bundle, where it has been made already.
    """
    genome, genes = bundle.genome, bundle.genes
    if track is None:
        track = annotation_track(genome, genes)
    is_frame = (track >= 1) & (track <= 3)
    intergenic = (track == 0).all(axis=0)
    is_rna = np.zeros(genome.length, bool)
    for gene in genes[genes["biotype"].isin(RNA_BIOTYPES)].itertuples():
        is_rna[gene_bases(genome, gene)] = True
    first = genes[first_of_operon(genome, genes, bundle.splits).to_numpy()]
    return {
        "coding": is_frame.any(axis=0) & (track == 0).any(axis=0),
        "intergenic": intergenic,
        "rna": is_rna,
        "promoter": intergenic & upstream_mask(genome, first, *PROMOTER_DISTANCE_BP).any(axis=0),
    }


def gene_bases(genome: Genome, gene: Any) -> Int64[np.ndarray, " length"]:
    """Indices into `Genome.tokens` of the bases of one row of the gene table."""
    return genome.indices(gene.contig, gene.start, gene.end)[0]


def upstream_mask(
    genome: Genome, genes: pd.DataFrame, nearest_bp: int, farthest_bp: int
) -> Bool[np.ndarray, "2 length"]:
    """Bases `nearest_bp` to `farthest_bp` before the TSS (1: next to it), for + and - genes."""
    mask = np.zeros((2, genome.length), bool)
    distance = np.arange(nearest_bp, farthest_bp + 1)
    for gene in genes.itertuples():
        contig, is_minus = genome.contig(gene.contig), gene.strand == "-"
        position = gene.tss + distance if is_minus else gene.tss - distance
        if not contig.is_circular:
            position = position[(position >= 0) & (position < contig.length)]
        mask[int(is_minus), contig.offset + position % contig.length] = True
    return mask


# --- the -10 and -35 hexamers of a promoter ---

# Consensus of each hexamer and the frequency of its base at each position; the other three bases
# share the rest. Source: Lisser and Margalit, Compilation of E. coli mRNA promoter sequences,
# 1993, table 2.
CONSENSUS = {
    "-35": ("TTGACA", (0.69, 0.79, 0.61, 0.56, 0.54, 0.54)),
    "-10": ("TATAAT", (0.77, 0.76, 0.60, 0.61, 0.56, 0.82)),
}
SPACERS_BP = range(15, 20)
MIN_BITS = 8.0
"""Of both hexamers together."""
DISTANCE_BP = 20, 120
"""From the first base of a -10 hexamer to the start of translation; farther away there are no more
than by chance."""


def _log_odds(consensus: str, frequency: tuple[float, ...]) -> Float[np.ndarray, "6 5"]:
    """Bits of A, C, G, T and N (never) at each position, against even bases."""
    table = np.repeat((1 - np.array(frequency))[:, None] / 3, 5, axis=1)
    table[np.arange(6), ["ACGT".index(base) for base in consensus]] = frequency
    bits = np.log2(table / 0.25)
    bits[:, 4] = -np.inf
    return bits


HEXAMER_BITS = {name: _log_odds(*hexamer) for name, hexamer in CONSENSUS.items()}


def find_promoter(upstream: Tokens) -> list[MotifHit]:
    """The best pair of -35 and -10 hexamers, 15 to 19 bp apart, on this strand; or nothing.

    Of equally good pairs the one nearest to the end is taken. `upstream` is the sense strand, up
    to the start of translation.
    """
    known, count = np.minimum(upstream, 4), max(len(upstream) - 5, 0)
    minus_35, minus_10 = (
        sum((row[known[i : i + count]] for i, row in enumerate(bits)), np.zeros(count))
        for bits in HEXAMER_BITS.values()
    )
    distance = len(upstream) - np.arange(count)
    minus_10[(distance < DISTANCE_BP[0]) | (distance > DISTANCE_BP[1])] = -np.inf
    best = (MIN_BITS, -1, -1)
    for spacer in SPACERS_BP:
        gap = 6 + spacer
        pair = minus_35[: max(count - gap, 0)] + minus_10[gap:]
        if len(pair):
            first = len(pair) - 1 - int(pair[::-1].argmax())
            best = max(best, (float(pair[first]), first + gap, first))
    _, second, first = best
    if second < 0:
        return []
    return [
        MotifHit(first, first + 6, "-35", float(minus_35[first]), "+"),
        MotifHit(second, second + 6, "-10", float(minus_10[second]), "+"),
    ]

"""What simple methods count: k-mers, codons, regulators, gene sets, conservation, contexts.

Every function of features gives one row per *measured* gene, in the order of `Bundle.observed`, and
reads sequence and annotation only: expression decides neither a value nor which columns there are.
Relatives bring sequence too, never expression.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int64, UInt8

from genesplice.data.bundle import Bundle
from genesplice.data.coding import coding_positions, coding_sequence, is_open
from genesplice.data.features import (
    gene_bases,
    kmer_codes,
    kmer_features,
    kmer_names,
    site_windows,
    tss_sites,
)
from genesplice.data.genome import Contig, Genome, reverse_complement
from genesplice.errors import require

KMER = 4
SMOOTHED_BINS = (1, 3, 9, 33)
UPSTREAM_BP, CONSERVED_BP, START_BP = 300, 200, 30
MIN_GENES = 10
MIN_TARGETS = 3
REGIONS = ("codon_1", "codon_2", "codon_3", "upstream")


def kmer_codon_features(bundle: Bundle) -> pd.DataFrame:
    """Count k-mers before the TSS and the gene's codon use.

    Columns, all on the sense strand:

    - `kmer:ACGT`: how often, in the `UPSTREAM_BP` bases that end right before the TSS. They wrap
      on circular contigs; k-mers with N (also beyond a linear contig's end) are not counted.
    - `codon:ATG`: share of the codons of the spliced coding sequence. All zeros where that is not
      one open reading frame (see `gene:is_orf`).
    - `gene:is_orf`: 1 for a gene with a coding sequence of known genetic code and without a stop
      codon before the last one. RNA genes, pseudogenes and unknown frames give 0.
    - `gene:log2_length` (bp) and `gene:gc` (of A, C, G, T; 0.5 for N only) of the coding sequence,
      or from start to end of a gene that has none.
    """
    genes = bundle.genes.set_index("gene_id").loc[bundle.observed.index]
    upstream = site_windows(bundle.genome, tss_sites(bundle, genes.index), UPSTREAM_BP, 0)
    codons, other = np.zeros((len(genes), 64)), np.zeros((len(genes), 3))
    for row, gene in enumerate(genes.itertuples(index=False)):
        body = coding_sequence(bundle.genome, gene)
        if is_orf := is_open(body, gene.genetic_code):
            codes = kmer_codes(body, 3, step=3)
            known = codes[codes >= 0]
            codons[row] = np.bincount(known, minlength=64) / max(1, len(known))
        elif not len(body):
            body = bundle.genome.fetch(gene.contig, gene.start, gene.end, gene.strand)
        bases = np.bincount(body, minlength=5)[:4]
        gc = (bases[1] + bases[2]) / bases.sum() if bases.sum() else 0.5
        other[row] = is_orf, np.log2(max(1, body.size)), gc
    columns = [f"kmer:{name}" for name in kmer_names(KMER)]
    columns += [f"codon:{name}" for name in kmer_names(3)]
    columns += ["gene:is_orf", "gene:log2_length", "gene:gc"]
    values = np.concatenate([kmer_features(upstream, KMER), codons, other], axis=1)
    return pd.DataFrame(values, index=bundle.observed.index, columns=columns)


def regulator_features(bundle: Bundle, *, min_targets: int | None = None) -> pd.DataFrame:
    """Mark each gene's regulators: `regulates:NAME` is 1 or 0, `sign:NAME` is 1, -1 or 0.

    The sign is 0 for an edge of both or unknown signs; a regulator without any signed edge has no
    sign column. Regulators need not be genes themselves.

    Parameters
    ----------
    min_targets
        Regulators with fewer measured targets are left out. None: 3, or 1 in a bundle of fewer
        than 100 measured genes.
    """
    genes = bundle.observed.index
    if min_targets is None:
        min_targets = MIN_TARGETS if len(genes) >= 100 else 1
    edges = bundle.network[bundle.network["target"].isin(genes)]
    n_targets = edges.groupby("source", observed=True)["target"].nunique()
    kept = sorted(n_targets.index[n_targets >= min_targets])
    edges = edges[edges["source"].isin(kept)]
    row = genes.get_indexer(edges["target"])
    column = pd.Index(kept).get_indexer(edges["source"])
    is_regulated, sign = np.zeros((len(genes), len(kept))), np.zeros((len(genes), len(kept)))
    is_regulated[row, column] = 1
    np.add.at(sign, (row, column), edges["sign"].to_numpy(dtype=np.float64))
    sign = np.sign(sign)
    has_sign = np.any(sign != 0, axis=0)
    names = [f"regulates:{name}" for name in kept]
    names += [f"sign:{name}" for name, keep in zip(kept, has_sign, strict=True) if keep]
    values = np.concatenate([is_regulated, sign[:, has_sign]], axis=1)
    return pd.DataFrame(values, index=genes, columns=names)


def gene_set_features(
    bundle: Bundle, prefix: str = "", *, min_genes: int | None = None
) -> pd.DataFrame:
    """Mark membership (1 or 0) in each gene set whose name starts with `prefix`.

    Sets with the same measured genes become one column, under the first name; a set of all
    measured genes says nothing and is left out. No such set: a table without columns.

    Parameters
    ----------
    min_genes
        Sets with fewer measured genes are left out. None: 10, or a twentieth of the measured
        genes (at least 2) in a bundle of fewer than 200.
    """
    genes = bundle.observed.index
    if min_genes is None:
        min_genes = min(MIN_GENES, max(2, len(genes) // 20))
    columns: dict[bytes, tuple[str, np.ndarray]] = {}
    for name in sorted(bundle.gene_sets):
        if not name.startswith(prefix):
            continue
        at = genes.get_indexer(pd.Index(bundle.gene_sets[name]))
        is_member = np.zeros(len(genes))
        is_member[at[at >= 0]] = 1
        if min_genes <= is_member.sum() < len(genes):
            columns.setdefault(is_member.tobytes(), (name, is_member))
    names = [name for name, _ in columns.values()]
    values = np.array([values for _, values in columns.values()]).reshape(len(names), len(genes))
    return pd.DataFrame(values.T, index=genes, columns=names)


def conservation_features(bundle: Bundle) -> pd.DataFrame:
    """How much of each gene every relative has, and how much of that is the same.

    Columns `aligned:REGION:NAME` (share of the bases that have a base of the relative) and
    `identity:REGION:NAME` (share of these that are equal; 0 where nothing is aligned), and the
    same over all relatives, `aligned:REGION` and `identity:REGION`. Regions are the three codon
    positions of the coding sequence (of a gene without one: all its bases, three times) and the
    `CONSERVED_BP` bases before the TSS. NAME is a relative, or a group where there is only a
    summary. Of a score in place of relatives: `scored:REGION` (share of the bases that have one)
    and `conservation:REGION` (their mean; 0 where none has), and a region `start` besides,
    `START_BP` bases on either side of the first coding base, or the TSS. Without either: no column.
    """
    score = bundle.conservation_score
    if bundle.relatives is None and score is None:
        return pd.DataFrame(index=bundle.observed.index)
    genes = bundle.genes.set_index("gene_id").loc[bundle.observed.index]
    regions = (*REGIONS, "start") if score else REGIONS
    bases, starts, sizes = _region_bases(bundle, genes, regions)
    if score is not None:
        found = score.values[bases].astype(np.float64)
        parts = np.stack([np.isfinite(found), np.nan_to_num(found)])
        count, total = np.add.reduceat(parts, starts, axis=1)[:, :-1] * (sizes > 0)
        values = np.stack([count / np.maximum(sizes, 1), total / np.maximum(count, 1)])
        names = [f"{kind}:{one}" for kind in ("scored", "conservation") for one in regions]
        rows = np.hstack([*values.reshape(2, len(genes), -1)])
        return pd.DataFrame(rows, index=genes.index, columns=names)
    assert bundle.relatives is not None
    columns: dict[str, np.ndarray] = {}
    total, n_relatives = np.zeros((2, len(sizes))), 0
    for name, *counts in bundle.relatives.sources(bundle.genome):
        sums = [np.add.reduceat(each[bases], starts, dtype=np.float64)[:-1] for each in counts]
        of_regions, most = np.stack(sums) * (sizes > 0), bundle.relatives.size_of(name)
        columns |= _shares(of_regions / most, sizes, f":{name}")
        total += of_regions
        n_relatives += most
    columns |= _shares(total / max(1, n_relatives), sizes, "")
    return pd.DataFrame(columns, index=genes.index)


def _region_bases(
    bundle: Bundle, genes: pd.DataFrame, regions: Sequence[str]
) -> tuple[
    Int64[np.ndarray, " bases"], Int64[np.ndarray, " starts"], Int64[np.ndarray, " regions"]
]:
    """Indices into `Genome.tokens` of all regions of all genes, where each begins, and its size."""
    parts: list[np.ndarray] = []
    for gene in genes.itertuples():
        contig = bundle.genome.contig(gene.contig)
        coding = contig.offset + (along := coding_positions(gene)) % contig.length
        whole = gene_bases(bundle.genome, gene)
        parts += [coding[k::3] if len(coding) else whole for k in range(3)]
        before = gene.tss + (-CONSERVED_BP if gene.strand == "+" else 1)
        around = [(before, before + CONSERVED_BP)]
        first = int(along[0]) if len(along) else int(gene.tss)
        around += [(first - START_BP, first + START_BP + 1)] * ("start" in regions)
        for low, high in around:
            index, is_inside = bundle.genome.indices(gene.contig, low, high)
            parts.append(index[is_inside])
    sizes = np.array([len(part) for part in parts])
    # One more base, which no region has, so that the last region ends before it.
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return np.concatenate([*parts, np.zeros(1, np.int64)]), starts, sizes


def _shares(
    counts: Float[np.ndarray, "2 regions"], sizes: np.ndarray, suffix: str
) -> dict[str, np.ndarray]:
    """From how many bases are aligned, and how many of these are the same."""
    there, equal = counts
    kinds = {"aligned": there / np.maximum(sizes, 1), "identity": equal / np.where(there, there, 1)}
    return {
        f"{kind}:{region}{suffix}": values[i :: len(REGIONS)]
        for kind, values in kinds.items()
        for i, region in enumerate(REGIONS)
    }


# --- count models of a genome: what a table of neighbouring bases knows about a hidden one ---

CONTEXTS = ((5, 0), (4, 4))
"""Contexts (left, right) that are reported, where no others are given."""
MAX_BASES = 11
"""Longest context: 4^11 contexts are 134 MB of probabilities."""
PSEUDOCOUNTS = tuple(2.0**power for power in range(-1, 11))
CHUNK_BP = 1 << 20

Interval = tuple[str, int, int]


class CountModel(NamedTuple):
    r"""Tables of probabilities, from no context at all to the longest.

    A base's probabilities given its `left` preceding and `right` following bases, counted on both
    strands, backed off to ever shorter contexts. With :math:`n_j(x)` the count of base x in the
    context of step j, :math:`n_j` their sum and :math:`c_j` a pseudocount,

    .. math:: p_j(x) = \lambda_j\, n_j(x) / n_j + (1 - \lambda_j)\, p_{j-1}(x),
              \qquad \lambda_j = n_j / (n_j + c_j), \quad p_{-1} = 1/4.

    Step by step the context loses its farthest base on both sides (on one, where the other has none
    left): 4+4, 3+3, ..., 0+0. With `right` 0 this is a Markov chain of order `left`.

    Source: contexts interpolated as in Salzberg et al. 1998 (Glimmer), with the weights of
    Dirichlet smoothing (MacKay & Peto 1995).

    A context's row in `tables` is read outwards from the base, two bits a base (A 0 ... T 3): the
    nearest left base first, then the nearest right one, and so on. The row of the next shorter
    context is therefore the same number without its last one or two bases.
    """

    left: int
    right: int
    tables: tuple[Float[np.ndarray, "_ 4"], ...]
    pseudocounts: tuple[float, ...]

    @property
    def name(self) -> str:
        """`count_one_sided` or `count_two_sided`, as the metrics call it."""
        return "count_two_sided" if self.right else "count_one_sided"

    def probabilities(self, tokens: UInt8[np.ndarray, " length"]) -> Float[np.ndarray, "length 4"]:
        """P(A), P(C), P(G), P(T) at every position, from its neighbours and never from itself.

        A position uses the longest context that holds neither an N (any token above 3) nor
        anything beyond the ends of `tokens`.
        """
        probabilities = np.empty((len(tokens), 4))
        contexts = _contexts(tokens, self.left, self.right)
        for table, (code, is_known) in zip(self.tables, contexts, strict=True):
            if is_known.all():
                np.take(table, code, axis=0, out=probabilities)
            else:
                probabilities[is_known] = table[code[is_known]]
        return probabilities


def fit_count_model(
    genome: Genome, intervals: Sequence[Interval], left: int, right: int
) -> CountModel:
    """Count contexts of A, C, G and T in `intervals`, on both strands.

    Nothing outside of the intervals is read: next to their ends contexts are shorter. The
    pseudocount of each step is the one of `PSEUDOCOUNTS` that predicts the counted bases best, each
    from the counts without itself; held-out sequence has no say in it.

    Parameters
    ----------
    intervals
        (contig, start, end), 0-based half-open.

    Raises
    ------
    InputError
        If a side is negative, the context longer than `MAX_BASES`, or there is no base to count.
    """
    is_fine = min(left, right) >= 0 and left + right <= MAX_BASES
    require(is_fine, f"{left} + {right} bases of context", f"0 to {MAX_BASES} in all")
    counts = [np.zeros(4 ** (a + b + 1), np.int64) for a, b in _steps(left, right)]
    for contig, start, end in intervals:
        for low in range(start, end, CHUNK_BP):
            high = min(low + CHUNK_BP, end)
            # Chunks overlap by the context, so that cutting an interval up does not change it.
            outer = max(low - left - right, start), min(high + left + right, end)
            tokens = genome.fetch(contig, *outer)
            first, last = low - outer[0], high - outer[0]
            mirrored = slice(len(tokens) - last, len(tokens) - first)
            strands = (tokens, slice(first, last)), (reverse_complement(tokens), mirrored)
            for strand, inner in strands:
                contexts = _contexts(strand, left, right)
                for count, (code, is_known) in zip(counts, contexts, strict=True):
                    kept = is_known[inner] & (strand[inner] < 4)
                    cell = code[inner][kept] * 4 + strand[inner][kept]
                    count += np.bincount(cell, minlength=len(count))
    require(counts[0].sum(), "no base to count", "intervals with A, C, G or T")
    tables, pseudocounts = [], []
    shorter = np.full((1, 4), 0.25)
    for count in counts:
        seen = count.reshape(-1, 4)
        shorter = np.repeat(shorter, len(seen) // len(shorter), axis=0)
        chosen = _best_pseudocount(seen, shorter)
        shorter = (seen + chosen * shorter) / (seen.sum(axis=1, keepdims=True) + chosen)
        tables.append(shorter)
        pseudocounts.append(chosen)
    return CountModel(left, right, tuple(tables), tuple(pseudocounts))


def _steps(left: int, right: int) -> list[tuple[int, int]]:
    """(left, right) of each context, the shortest first."""
    longest = max(left, right)
    return [(max(left - j, 0), max(right - j, 0)) for j in range(longest, -1, -1)]


def _contexts(
    tokens: UInt8[np.ndarray, " length"], left: int, right: int
) -> Iterator[tuple[Int64[np.ndarray, " length"], Bool[np.ndarray, " length"]]]:
    """Row of every position's context, and whether it is known whole; for each of `_steps`."""
    n = len(tokens)
    padded = np.full(left + n + right, 4, np.uint8)
    padded[left : left + n] = tokens
    code, is_known = np.zeros(n, np.int64), np.ones(n, bool)
    yield code, is_known
    for shorter, longer in zip(_steps(left, right)[:-1], _steps(left, right)[1:], strict=True):
        offsets = [-longer[0]] * (longer[0] > shorter[0]) + [longer[1]] * (longer[1] > shorter[1])
        for offset in offsets:
            neighbour = padded[left + offset : left + offset + n]
            code = code * 4 + np.minimum(neighbour, 3)
            is_known = is_known & (neighbour < 4)
        yield code, is_known


def _best_pseudocount(
    seen: Int64[np.ndarray, "contexts 4"], shorter: Float[np.ndarray, "contexts 4"]
) -> float:
    """The one of `PSEUDOCOUNTS` with the fewest bits, each base predicted by all others."""
    total = np.broadcast_to(seen.sum(axis=1, keepdims=True), seen.shape)
    is_seen = seen > 0
    times, others, guess = seen[is_seen], total[is_seen] - 1, shorter[is_seen]
    bits = [-(times * np.log2((times - 1 + c * guess) / (others + c))).sum() for c in PSEUDOCOUNTS]
    return PSEUDOCOUNTS[int(np.argmin(bits))]


def smoothed_kmers(
    genome: Genome, contig: Contig, start: int, end: int, bin_bp: int
) -> Float[np.ndarray, "bins features"]:
    """How often each k-mer begins in each bin of a part of a contig, and around it.

    For the bin and the means over `SMOOTHED_BINS` bins with it in the middle. GC is a sum of these.
    """
    reach = max(SMOOTHED_BINS) // 2 * bin_bp
    tokens = genome.fetch(contig.name, start - reach, end + reach + KMER - 1)
    code = kmer_codes(tokens, KMER)
    cell = np.arange(len(code)) // bin_bp * 4**KMER + code
    counts = np.bincount(cell[code >= 0], minlength=len(code) // bin_bp * 4**KMER)
    sums = np.pad(counts.reshape(-1, 4**KMER).cumsum(0), ((1, 0), (0, 0)))
    middle = np.arange((end - start) // bin_bp) + reach // bin_bp
    return np.hstack(
        [(sums[middle + n // 2 + 1] - sums[middle - n // 2]) / n for n in SMOOTHED_BINS]
    )

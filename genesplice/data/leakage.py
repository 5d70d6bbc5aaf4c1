"""The leakage report: what splitting by position alone does not keep apart, measured.

Each check is one record `check, value, unit, threshold, status, why`; the worst status is the
leakage's. Red means that a score on these folds would not mean what it says.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from jaxtyping import Float, Int64, UInt8, UInt64
from scipy import sparse

from genesplice.data.genome import Genome
from genesplice.errors import InputError

Status = Literal["green", "amber", "red"]

KMER = 14
MAX_KMERS = 40_000_000
SIMILARITY_MEASURE = (
    f"shared canonical {KMER}-mers of two genes (start to end, both strands, distinct, without N) "
    "over the smaller of their two numbers of them; 90 % identity gives about 0.23, 80 % about 0.04"
)
COPY = 0.5
"""Half of the 14-mers shared is about 95 % identity: to a sequence model the same gene."""
RELATIVE = 0.1
"""A tenth of the 14-mers shared is about 85 % identity; chance stays below (it is measured)."""
SAME_SAMPLE = 0.9999
"""Pearson r between two samples' log2(TPM+1): technical replicates reach about 0.999."""
Evidence = Literal[
    "expression", "unknown", "curated", "orthology", "binding", "sequence", "simulated"
]
"""What an edge or a gene set rests on, worst first."""
EVIDENCE_STATUS: dict[Evidence, Status] = {
    "expression": "red", "unknown": "amber", "curated": "amber", "orthology": "green",
    "binding": "green", "sequence": "green", "simulated": "green",
}  # fmt: skip
EVIDENCE_WORDS: dict[Evidence, tuple[str, ...]] = {
    "expression": (
        "expression", "coexpression", "co-expression", "transcriptome", "transcriptomics",
        "rna-seq", "rnaseq", "microarray", "microarrays", "northern", "rt-pcr", "qpcr",
        "imodulon", "imodulons", "wgcna", "genie3", "aracne", "gea", "gep", "iep", "hep",
    ),
    "curated": (
        "curated", "literature", "textmining", "database", "databases", "experiments",
        "regulondb", "collectri", "exp", "ida", "ipi", "imp", "igi", "htp", "hda", "hmp", "hgi",
        "tas", "nas", "ic",
    ),
    "orthology": (
        "orthology", "orthologs", "orthologues", "homology", "iso", "iba", "ibd", "ikr", "ird",
    ),
    "binding": (
        "binding", "chip", "chip-seq", "chip-chip", "chip-exo", "chipseq", "dap-seq", "emsa",
        "cut&run", "cut&tag", "gselex", "selex", "footprint", "footprinting", "bpp", "bce",
    ),
    "sequence": (
        "sequence", "motif", "motifs", "pwm", "iss", "isa", "ism", "igc", "aibscs", "hibscs",
        "neighborhood", "fusion",
    ),
    "simulated": ("simulated", "planted"),
}  # fmt: skip
"""Words that declare evidence: plain ones, GO's codes, RegulonDB's, the channels of STRING."""
EVIDENCE_OF = {word: kind for kind, words in EVIDENCE_WORDS.items() for word in words}


class Check(NamedTuple):
    """One measured way in which held-out genes may leak; `threshold` says when it is not green."""

    check: str
    value: float
    unit: str
    threshold: str
    status: Status
    why: str


class Similarity(NamedTuple):
    """For each gene its nearest gene in another fold, and how the number was got.

    `nearest` has `gene_id, nearest_gene_id, similarity`; a gene that shares nothing with any
    other fold has nearest "" and similarity 0. `chance` is the 99th percentile of the same
    number with every gene's sequence reversed (not complemented) on one side.
    """

    nearest: pd.DataFrame
    chance: float
    measure: str


def gene_similarity(genome: Genome, genes: pd.DataFrame, folds: Sequence[int]) -> Similarity:
    """Compare every gene with every gene of the other folds.

    The measure is `SIMILARITY_MEASURE`. Beyond 40 million k-mers in all genes together, only
    the k-mers whose hash falls in a fixed fraction of its range are used (stated in `measure`).

    Source: Ondov et al. 2016 (Mash); Hera et al. 2023 (FracMinHash containment).
    """
    fold = np.asarray(folds, dtype=np.int64)
    total = int((genes["end"] - genes["start"]).clip(lower=0).sum())
    scale = max(1, -(-total // MAX_KMERS))
    sequences = [
        genome.fetch(gene.contig, gene.start, gene.end) for gene in genes.itertuples(index=False)
    ]
    kmers = [canonical_kmers(sequence, scale=scale) for sequence in sequences]
    reverse = [canonical_kmers(sequence[::-1], scale=scale) for sequence in sequences]
    forward, backward = _incidence(kmers, reverse)
    best, at = _nearest(forward, forward, fold)
    by_chance, _ = _nearest(forward, backward, fold)
    ids = genes["gene_id"].to_numpy(dtype=object)
    nearest = pd.DataFrame(
        {
            "gene_id": ids,
            "nearest_gene_id": np.where(best > 0, ids[at], "").astype(object),
            "similarity": best.astype(np.float32),
        }
    )
    measure = SIMILARITY_MEASURE + (f"; a {scale}th of all k-mers, by hash" if scale > 1 else "")
    return Similarity(nearest, float(np.quantile(by_chance, 0.99)) if len(ids) else 0.0, measure)


def canonical_kmers(
    tokens: UInt8[np.ndarray, " length"], k: int = KMER, scale: int = 1
) -> UInt64[np.ndarray, " regions"]:
    """Give the distinct k-mers of a sequence, each as the smaller of itself and its complement.

    k-mers with N are left out. With `scale` s only those whose hash is in the lowest 1/s.
    """
    if tokens.size < k:
        return np.empty(0, dtype=np.uint64)
    forward = np.zeros(tokens.size - k + 1, dtype=np.uint64)
    backward = np.zeros_like(forward)
    has_n = np.zeros(forward.size, dtype=bool)
    base = tokens.astype(np.uint64)
    for i in range(k):
        piece = base[i : i + forward.size]
        has_n |= piece > 3
        forward = (forward << np.uint64(2)) | (piece & np.uint64(3))
        backward |= (np.uint64(3) - (piece & np.uint64(3))) << np.uint64(2 * i)
    codes = np.unique(np.minimum(forward, backward)[~has_n])
    if scale > 1:
        codes = codes[_hash(codes) < np.uint64(2**64 // scale)]
    return codes


def _hash(codes: UInt64[np.ndarray, " regions"]) -> UInt64[np.ndarray, " regions"]:
    """Mix bits (splitmix64's finaliser); multiplication wraps on purpose."""
    mixed = (codes ^ (codes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _incidence(
    *groups: Sequence[UInt64[np.ndarray, " _n"]],
) -> list[sparse.csr_matrix]:
    """One matrix a group, with a row for each set and ones in the columns of what is in it.

    The groups have their columns in common.
    """
    sets = [one for group in groups for one in group]
    everything = np.concatenate([*sets, np.empty(0, dtype=np.uint64)])
    # Hashed by pandas: sorting all of them takes ten times as long.
    columns, vocabulary = pd.factorize(everything)
    pointer = np.concatenate([[0], np.cumsum([len(one) for one in sets], dtype=np.int64)])
    data = np.ones(len(columns), dtype=np.int32)
    matrix = sparse.csr_matrix((data, columns, pointer), shape=(len(sets), len(vocabulary)))
    ends = np.cumsum([len(group) for group in groups])
    return [matrix[end - len(group) : end] for group, end in zip(groups, ends, strict=True)]


def _nearest(
    queries: sparse.csr_matrix, targets: sparse.csr_matrix, fold: Int64[np.ndarray, " genes"]
) -> tuple[Float[np.ndarray, " genes"], Int64[np.ndarray, " genes"]]:
    """Best containment of each query among targets of another fold, and which one it is."""
    best, at = np.zeros(len(fold)), np.zeros(len(fold), dtype=np.int64)
    shared = (queries @ targets.T).tocoo()
    other = fold[shared.row] != fold[shared.col]
    row, col, count = shared.row[other], shared.col[other], shared.data[other]
    sizes = np.minimum(queries.getnnz(axis=1)[row], targets.getnnz(axis=1)[col])
    value = count / np.maximum(1, sizes)
    order = np.lexsort((-col, value))
    best[row[order]], at[row[order]] = value[order], col[order]
    return best, at


def windows_across_folds(
    genome: Genome, genes: pd.DataFrame, splits: pd.DataFrame, window_bp: int
) -> float:
    """Share of genes whose window holds the TSS of a gene of another fold.

    The window is `window_bp` wide and centred on the gene's TSS; on circular contigs it wraps.

    Raises
    ------
    InputError
        If `window_bp` is negative.
    """
    if window_bp < 0:
        raise InputError(f"window_bp {window_bp}", "0 or more")
    if genes.empty:
        return 0.0
    fold = splits.set_index("gene_id")["fold"].reindex(genes["gene_id"]).to_numpy()
    half, n_across = window_bp / 2, 0
    for contig in genome.contigs:
        here = np.flatnonzero((genes["contig"] == contig.name).to_numpy())
        tss = genes["tss"].to_numpy()[here] % contig.length
        order = np.argsort(tss, kind="stable")
        at, labels = tss[order].astype(np.int64), fold[here][order]
        n = len(at)
        if contig.is_circular:
            if window_bp >= contig.length:
                n_across += n if len(set(labels.tolist())) > 1 else 0
                continue
            at = np.concatenate([at - contig.length, at, at + contig.length])
            labels = np.concatenate([labels] * 3)
        middle = slice(n, 2 * n) if contig.is_circular else slice(0, n)
        low = np.searchsorted(at, at[middle] - half, side="left")
        high = np.searchsorted(at, at[middle] + half, side="right")
        change = np.concatenate([[0], np.cumsum(labels[1:] != labels[:-1])])
        n_across += int((change[high - 1] > change[low]).sum()) if n else 0
    return n_across / len(genes)


def make_leakage_report(
    genome: Genome,
    genes: pd.DataFrame,
    expression: ad.AnnData,
    network: pd.DataFrame,
    gene_sets: Mapping[str, Sequence[str]],
    splits: pd.DataFrame,
    *,
    similarity: Similarity | None = None,
    gene_set_evidence: str = "",
    window_bp: int = 20_000,
) -> dict[str, Any]:
    """Measure every leak that is known of and judge it.

    Parameters
    ----------
    similarity
        From `gene_similarity`; worked out here if not given.
    gene_set_evidence
        What the gene sets declare to rest on; see `evidence_of`.
    window_bp
        Width of the context for which neighbours of other folds are counted.

    Returns
    -------
    dict
        `status` (the worst of the checks), `checks` (records), `similarity_measure`,
        `similarity_by_chance`, `window_bp`.
    """
    if similarity is None:
        similarity = gene_similarity(genome, genes, splits["fold"].tolist())
    checks = [
        *_similarity_checks(similarity, expression),
        _operon_check(splits),
        _window_check(genome, genes, splits, window_bp),
        _network_check(network),
        _gene_set_check(gene_sets, gene_set_evidence),
        _sample_check(expression),
        _balance_check(splits, expression),
    ]
    return {
        "status": _worst(check.status for check in checks),
        "checks": [check._asdict() for check in checks],
        "similarity_measure": similarity.measure,
        "similarity_by_chance": round(similarity.chance, 4),
        "window_bp": window_bp,
    }


def judge_knowledge(
    leakage: Mapping[str, Any],
    network: pd.DataFrame | None,
    gene_sets: Mapping[str, Sequence[str]] | None,
    gene_set_evidence: str = "",
) -> dict[str, Any]:
    """The leakage with another network, or other gene sets, judged; None keeps what was said."""
    found = [] if network is None else [_network_check(network)]
    if gene_sets is not None:
        found.append(_gene_set_check(gene_sets, gene_set_evidence))
    now = {check.check: check._asdict() for check in found}
    checks = [now.get(record["check"], record) for record in leakage["checks"]]
    return {**leakage, "status": _worst(c["status"] for c in checks), "checks": checks}


def _worst(statuses: Iterable[Status]) -> Status:
    order: tuple[Status, ...] = ("green", "amber", "red")
    return max(statuses, key=order.index)


def _grade(value: float, amber_above: float, red_above: float) -> Status:
    return "red" if value > red_above else "amber" if value > amber_above else "green"


def _similarity_checks(similarity: Similarity, expression: ad.AnnData) -> list[Check]:
    nearest = similarity.nearest.set_index("gene_id")["similarity"]
    measured = nearest.reindex(expression.var_names).to_numpy(dtype=float)
    copies, relatives = float((measured >= COPY).mean()), float((measured >= RELATIVE).mean())
    return [
        Check(
            "copies in other folds",
            round(copies, 4),
            "share of measured genes",
            f"similarity >= {COPY}: amber above 0.5 %, red above 5 %",
            _grade(copies, 0.005, 0.05),
            "a gene with a near copy in the training folds can be looked up instead of predicted; "
            "scores are to be given by nearest-train similarity",
        ),
        Check(
            "relatives in other folds",
            round(relatives, 4),
            "share of measured genes",
            f"similarity >= {RELATIVE}: amber above 5 %, red above 25 %",
            _grade(relatives, 0.05, 0.25),
            "recent paralogues and repeats share bases with training genes; chance alone gives "
            f"up to {similarity.chance:.3f}",
        ),
    ]


def _operon_check(splits: pd.DataFrame) -> Check:
    n_folds = splits.groupby("operon")["fold"].nunique()
    torn = n_folds.index[n_folds > 1]
    share = float(splits["operon"].isin(torn).mean())
    return Check(
        "operon mates in other folds",
        round(share, 4),
        "share of genes",
        "red above 0",
        _grade(share, 0.0, 0.0),
        "genes of one operon are transcribed together: a mate in training gives the answer away",
    )


def _window_check(
    genome: Genome, genes: pd.DataFrame, splits: pd.DataFrame, window_bp: int
) -> Check:
    share = windows_across_folds(genome, genes, splits, window_bp)
    return Check(
        "windows that hold genes of other folds",
        round(share, 4),
        f"share of genes, window of {window_bp} bp",
        "amber above 25 %",
        _grade(share, 0.25, 1.0),
        "a window sees its neighbours' bases, never their expression: it leaks only where a model "
        "is also given neighbours' expression, or is pre-trained on held-out blocks",
    )


def evidence_of(declared: str) -> Evidence:
    """The class of what is declared, such as "ChIP-seq; motif": of several, the worst.

    Terms are separated by `;` or `|`. A term is known by its words, each exactly one of
    `EVIDENCE_WORDS` whatever its case; a term without such a word is unknown.
    """
    order = list(EVIDENCE_STATUS)

    def worst(kinds: Iterable[Evidence]) -> Evidence:
        return min(kinds, key=order.index, default="unknown")

    terms = (re.findall(r"[\w&-]+", term) for term in re.split("[;|]", declared.lower()))
    return worst(worst(EVIDENCE_OF[w] for w in term if w in EVIDENCE_OF) for term in terms)


def _network_check(network: pd.DataFrame) -> Check:
    kinds = [evidence_of(declared) for declared in network["provenance"]]
    share = {kind: kinds.count(kind) / max(1, len(kinds)) for kind in EVIDENCE_STATUS}
    sentences = [
        *(["there are no edges"] if not kinds else []),
        *([f"{share['unknown']:.0%} of the edges do not declare what they rest on"]
          if share["unknown"] else []),
        *([f"{share['curated']:.0%} of the edges are curated, and curated networks contain edges "
           "seen through expression changes"] if share["curated"] else []),
    ]  # fmt: skip
    return Check(
        "edges whose evidence is expression",
        round(share["expression"], 4),
        "share of edges",
        "red above 0; amber where the declared evidence is curated or there is none",
        _worst(["green", *(EVIDENCE_STATUS[kind] for kind in kinds)]),
        "an edge inferred from the measured expression hands the answer to the graph; "
        + ("; ".join(sentences) or "every edge declares what it rests on"),
    )


def _gene_set_check(gene_sets: Mapping[str, Sequence[str]], declared: str) -> Check:
    status = EVIDENCE_STATUS[evidence_of(declared)] if gene_sets else "green"
    evidence = (declared or "not declared") if gene_sets else "none needed"
    return Check(
        "gene sets whose evidence is expression",
        float(status == "red"),
        "share of gene sets",
        "red above 0; amber where the declared evidence is curated or there is none",
        status,
        f"{len(gene_sets)} gene sets, evidence: {evidence}",
    )


def _sample_check(expression: ad.AnnData) -> Check:
    values = np.asarray(expression.X, dtype=np.float64)
    condition = expression.obs["condition"].astype(str).to_numpy()
    centred = values - values.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1)
    unit = centred / np.where(norm > 0, norm, 1)[:, None]
    r = np.triu(unit @ unit.T, k=1)
    same = np.argwhere(r > SAME_SAMPLE)
    names = expression.obs_names
    shown = ", ".join(f"{names[i]} = {names[j]}" for i, j in same[:3])
    across = sum(condition[i] != condition[j] for i, j in same)
    share = len(set(same.ravel().tolist())) / max(1, len(values))
    return Check(
        "duplicated samples",
        round(share, 4),
        "share of samples",
        f"Pearson r > {SAME_SAMPLE} with another sample: amber above 0, red above 10 %",
        _grade(share, 0.0, 0.1),
        "one measurement counted as two makes replicates look too alike and weighs a condition "
        "double; folds are of genes, so no answer crosses them"
        + (f": {len(same)} pairs, {across} across conditions ({shown})" if len(same) else ""),
    )


def _balance_check(splits: pd.DataFrame, expression: ad.AnnData) -> Check:
    measured = splits[splits["gene_id"].isin(expression.var_names)]
    sizes = measured["fold"].value_counts().reindex(splits["fold"].unique(), fill_value=0)
    smallest = float(sizes.min() / len(measured)) if len(measured) else 0.0
    fair = 1 / max(1, splits["fold"].nunique())
    return Check(
        "measured genes in the smallest fold",
        round(smallest, 4),
        "share of measured genes",
        f"amber below half, red below a tenth of the fair share ({fair:.2f})",
        _grade(-smallest, -fair / 2, -fair / 10),
        "a fold with few genes gives a score with a wide interval",
    )

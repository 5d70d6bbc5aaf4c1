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

from genesplice.data.genome import Genome
from genesplice.data.similarity import Similarity

Status = Literal["green", "amber", "red"]

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


def windows_across_folds(
    genome: Genome, genes: pd.DataFrame, splits: pd.DataFrame, window_bp: int
) -> float:
    """Share of genes whose window holds the TSS of a gene of another fold.

    The window is `window_bp` wide (not negative) and centred on the TSS; on a circle it wraps.
    """
    if genes.empty:
        return 0.0
    fold = splits.set_index("gene_id")["fold"].reindex(genes["gene_id"]).to_numpy()
    half, n_across = window_bp / 2, 0
    for name, here in genes.groupby("contig").indices.items():
        contig = genome.contig(str(name))
        tss = genes["tss"].to_numpy(dtype=np.int64)[here] % contig.length
        order = np.argsort(tss, kind="stable")
        at, labels = tss[order], fold[here][order]
        turns = (-1, 0, 1) if contig.is_circular else (0,)
        around = np.concatenate([at + turn * contig.length for turn in turns])
        labels = np.tile(labels, len(turns))
        change = np.concatenate([[0], np.cumsum(labels[1:] != labels[:-1])])
        low = np.searchsorted(around, at - half, side="left")
        high = np.searchsorted(around, at + half, side="right")
        n_across += int((change[high - 1] > change[low]).sum())
    return n_across / len(genes)


def make_leakage_report(
    genome: Genome,
    genes: pd.DataFrame,
    expression: ad.AnnData,
    network: pd.DataFrame,
    gene_sets: Mapping[str, Sequence[str]],
    splits: pd.DataFrame,
    *,
    similarity: Similarity,
    gene_set_evidence: str = "",
    window_bp: int = 20_000,
) -> dict[str, Any]:
    """Measure every leak that is known of and judge it; without expression, of all genes.

    Parameters
    ----------
    similarity
        From `genesplice.data.similarity.gene_similarity`.
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
    nearest = similarity.nearest.set_index("gene_id")["similarity"]
    kind, judged = "genes", pd.Index(genes["gene_id"])
    if expression.n_obs:
        kind, judged = "measured genes", expression.var_names
    measured = nearest.reindex(judged).to_numpy(dtype=float)
    n_folds = splits.groupby("operon")["fold"].nunique()
    checks = [
        graded(
            "copies in other folds", float((measured >= COPY).mean()), f"share of {kind}",
            0.005, 0.05, f"similarity >= {COPY}: amber above 0.5 %, red above 5 %",
            "a gene with a near copy in the training folds can be looked up instead of predicted; "
            "scores are to be given by nearest-train similarity",
        ),
        graded(
            "relatives in other folds", float((measured >= RELATIVE).mean()), f"share of {kind}",
            0.05, 0.25, f"similarity >= {RELATIVE}: amber above 5 %, red above 25 %",
            "recent paralogues and repeats share bases with training genes; chance alone gives "
            f"up to {similarity.chance:.3f}",
        ),
        graded(
            "operon mates in other folds",
            float(splits["operon"].isin(n_folds.index[n_folds > 1]).mean()), "share of genes",
            0.0, 0.0, "red above 0",
            "genes of one operon are transcribed together: a training mate gives the answer away",
        ),
        graded(
            "windows that hold genes of other folds",
            windows_across_folds(genome, genes, splits, window_bp),
            f"share of genes, window of {window_bp} bp", 0.25, 1.0, "amber above 25 %",
            "a window sees its neighbours' bases, never their expression: it leaks only where a "
            "model is also given neighbours' expression, or is pre-trained on held-out blocks",
        ),
        _network_check(network),
        _gene_set_check(gene_sets, gene_set_evidence),
        *([_sample_check(expression)] if expression.n_obs else []),
        _balance_check(splits, judged, kind),
    ]  # fmt: skip
    return {
        "status": worst_status(check.status for check in checks),
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
    checks = [] if network is None else [_network_check(network)]
    checks += [] if gene_sets is None else [_gene_set_check(gene_sets, gene_set_evidence)]
    now = {check.check: check._asdict() for check in checks}
    records = [now.get(record["check"], record) for record in leakage["checks"]]
    return {**leakage, "status": worst_status(r["status"] for r in records), "checks": records}


def worst_status(statuses: Iterable[Status]) -> Status:
    """Red before amber before green."""
    order: tuple[Status, ...] = ("green", "amber", "red")
    return max(statuses, key=order.index)


def graded(
    check: str, value: float, unit: str, amber: float, red: float, threshold: str, why: str
) -> Check:
    """A check whose value is amber above one number and red above another."""
    status: Status = "red" if value > red else "amber" if value > amber else "green"
    return Check(check, round(value, 4), unit, threshold, status, why)


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
    sentences = [] if kinds else ["there are no edges"]
    if share["unknown"]:
        sentences.append(f"{share['unknown']:.0%} of the edges do not declare what they rest on")
    if share["curated"]:
        sentences.append(f"{share['curated']:.0%} of the edges are curated, and curated networks "
                         "contain edges seen through expression changes")  # fmt: skip
    return _evidence_check(
        "edges", share["expression"], worst_status(["green", *(EVIDENCE_STATUS[k] for k in kinds)]),
        "an edge inferred from the measured expression hands the answer to the graph; "
        + ("; ".join(sentences) or "every edge declares what it rests on"),
    )  # fmt: skip


def _gene_set_check(gene_sets: Mapping[str, Sequence[str]], declared: str) -> Check:
    status = EVIDENCE_STATUS[evidence_of(declared)] if gene_sets else "green"
    evidence = (declared or "not declared") if gene_sets else "none needed"
    why = f"{len(gene_sets)} gene sets, evidence: {evidence}"
    return _evidence_check("gene sets", float(status == "red"), status, why)


def _evidence_check(what: str, value: float, status: Status, why: str) -> Check:
    threshold = "red above 0; amber where the declared evidence is curated or there is none"
    name = f"{what} whose evidence is expression"
    return Check(name, round(value, 4), f"share of {what}", threshold, status, why)


def _sample_check(expression: ad.AnnData) -> Check:
    values = np.asarray(expression.X, dtype=np.float64)
    condition = expression.obs["condition"].astype(str).to_numpy()
    centred = np.nan_to_num(values - np.nanmean(values, axis=1, keepdims=True))
    norm = np.linalg.norm(centred, axis=1)
    unit = centred / np.where(norm > 0, norm, 1)[:, None]
    same = np.argwhere(np.triu(unit @ unit.T, k=1) > SAME_SAMPLE)
    names = expression.obs_names
    shown = ", ".join(f"{names[i]} = {names[j]}" for i, j in same[:3])
    across = sum(condition[i] != condition[j] for i, j in same)
    pairs = f": {len(same)} pairs, {across} across conditions ({shown})" if len(same) else ""
    return graded(
        "duplicated samples", len(set(same.ravel().tolist())) / max(1, len(values)),
        "share of samples", 0.0, 0.1,
        f"Pearson r > {SAME_SAMPLE} with another sample: amber above 0, red above 10 %",
        "one measurement counted as two makes replicates look too alike and weighs a condition "
        f"double; folds are of genes, so no answer crosses them{pairs}",
    )  # fmt: skip


def _balance_check(splits: pd.DataFrame, judged: pd.Index, kind: str) -> Check:
    measured = splits[splits["gene_id"].isin(judged)]
    sizes = measured["fold"].value_counts().reindex(splits["fold"].unique(), fill_value=0)
    smallest = float(sizes.min() / len(measured)) if len(measured) else 0.0
    fair = 1 / max(1, splits["fold"].nunique())
    check = graded(
        f"{kind} in the smallest fold", -smallest, f"share of {kind}", -fair / 2, -fair / 10,
        f"amber below half, red below a tenth of the fair share ({fair:.2f})",
        "a fold with few genes gives a score with a wide interval",
    )  # fmt: skip
    return check._replace(value=round(smallest, 4))


def row_leakage(rows: pd.DataFrame, n_folds: int, *, is_given: bool) -> dict[str, int | str]:
    """How many held-out rows have their very sequence, or one like it, among the others."""
    measured = rows[rows["value"].notna()]
    counts = {"same": 0, "cluster": 0}
    for fold in range(n_folds):
        is_test = measured["fold"] == fold
        for key in counts:
            counts[key] += int(measured[key][is_test].isin(measured[key][~is_test]).sum())
    n = int((measured["fold"] >= 0).sum())
    how = "the given split" if is_given else f"{n_folds} folds of clusters of similar sequences"
    sentence = (
        f"leakage: of {n} held-out rows in {how}, {counts['same']} have the identical sequence (on "
        f"either strand) and {counts['cluster']} a similar one among the others"
    )
    if counts["same"]:
        sentence += "; identical ones are left out of training"
    found = {"held_out": n, "identical": counts["same"], "similar": counts["cluster"]}
    return {**found, "sentence": sentence}

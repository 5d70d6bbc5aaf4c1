"""Promoter boxes and known regulators' sites, and how many of them there are by chance."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8

from genesplice.data.bundle import Bundle
from genesplice.evaluate.nulls import dinucleotide_shuffle
from genesplice.explain.motifs import Scanner
from genesplice.explain.sites import SiteScore
from genesplice.results import Attribution, MotifHit

__all__ = [
    "BoxScanner",
    "motif_counts",
    "regulator_motifs",
    "regulator_targets",
    "score_table",
    "upstream",
]

# Share of the consensus base at each place of TTGACA and TATAAT; the rest is shared equally.
# Source: Lisser and Margalit, Compilation of E. coli mRNA promoter sequences, 1993, table 2.
BOXES = {
    "-35": ("TTGACA", (0.69, 0.79, 0.61, 0.56, 0.54, 0.54)),
    "-10": ("TATAAT", (0.77, 0.76, 0.60, 0.61, 0.56, 0.82)),
}
SPACERS_BP = range(15, 20)
# Gene names of regulators whose motifs go by another name.
ALIASES = {"h_ns": "hns", "ihf": "ihfa", "frur": "cra", "ntrc": "glng"}


class BoxScanner:
    """The best pair of -35 and -10 boxes of a stretch, 15 to 19 bp apart, if it is good enough.

    Parameters
    ----------
    least_bits
        Of log-odds of both boxes together, against even bases.
    reach_bp
        Least and most bases from the beginning of the -10 box to the end of the stretch.
    """

    def __init__(self, least_bits: float = 8.0, reach_bp: tuple[int, int] | None = None) -> None:
        self.least_bits, self.reach_bp = least_bits, reach_bp
        self.bits = {name: _box_bits(*box) for name, box in BOXES.items()}

    def scan(self, tokens: UInt8[np.ndarray, " length"]) -> list[MotifHit]:
        """The two boxes of the best pair on this strand, or nothing."""
        first, second = (_box_scores(tokens, self.bits[name]) for name in BOXES)
        width = len(self.bits["-35"])
        best: tuple[float, int, int] | None = None
        for spacer in SPACERS_BP:
            apart = width + spacer
            if len(second) <= apart:
                continue
            pair = first[: len(second) - apart] + second[apart:]
            if self.reach_bp is not None:
                before_end = len(tokens) - apart - np.arange(len(pair))
                low, high = self.reach_bp
                pair = np.where((before_end >= low) & (before_end <= high), pair, -np.inf)
            at = int(np.argmax(pair))
            if np.isfinite(pair[at]) and (best is None or pair[at] > best[0]):
                best = float(pair[at]), at, at + apart
        if best is None or best[0] < self.least_bits:
            return []
        return [
            MotifHit(start, start + width, name, float(scores[start]), "+")
            for name, start, scores in (("-35", best[1], first), ("-10", best[2], second))
        ]


def _box_bits(consensus: str, share: Sequence[float]) -> Float[np.ndarray, "6 5"]:
    """Log-odds of A, C, G, T and N (never) at each place."""
    table = np.repeat((1 - np.array(share))[:, None] / 3, 5, axis=1)
    table[np.arange(6), ["ACGT".index(base) for base in consensus]] = share
    bits = np.log2(table / 0.25)
    bits[:, 4] = -np.inf
    return bits


def _box_scores(
    tokens: UInt8[np.ndarray, " length"], bits: Float[np.ndarray, "6 5"]
) -> Float[np.ndarray, " places"]:
    known = np.minimum(tokens, 4)
    count = max(len(tokens) - len(bits) + 1, 0)
    return sum((row[known[i : i + count]] for i, row in enumerate(bits)), np.zeros(count))


def regulator_motifs(bundle: Bundle) -> dict[str, dict[str, Float[np.ndarray, "_ 4"]]]:
    """Motifs of each regulator of the network, by its gene's name in lower case.

    A motif "CRP_25-12" belongs to the gene "crp". Motifs of no regulator are left out.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    known = set(regulator_targets(bundle))
    for name, matrix in bundle.motifs.items():
        stem = str(name).rsplit("_", 1)[0].lower()
        regulator = ALIASES.get(stem, stem)
        if regulator in known:
            found.setdefault(regulator, {})[str(name)] = matrix
    return found


def regulator_targets(bundle: Bundle) -> dict[str, list[str]]:
    """Targets of each regulator, by its gene's name in lower case; itself left out."""
    names = bundle.genes.set_index("gene_id")["name"].astype(str).str.lower().to_dict()
    found: dict[str, list[str]] = {}
    for edge in bundle.network.itertuples(index=False):
        if edge.source != edge.target and edge.source in names:
            found.setdefault(names[edge.source], []).append(str(edge.target))
    return {regulator: sorted(set(targets)) for regulator, targets in found.items()}


def motif_counts(
    sequences: Mapping[str, UInt8[np.ndarray, " length"]],
    targets: Mapping[str, Sequence[str]],
    scanners: Mapping[str, Scanner],
    *,
    n_shuffles: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """How many of a regulator's targets have its site, beside what chance gives.

    Columns: regulator, n_targets, found (targets with a site), expected, null_low and null_high
    (mean and middle 95 % over dinucleotide shuffles of the same sequences), elsewhere (share of
    the other genes with a site).

    Parameters
    ----------
    sequences
        gene_id → what is searched, such as the 300 bp before the TSS, sense strand.
    """
    rows = []
    for regulator, scanner in scanners.items():
        mine = [gene for gene in targets.get(regulator, ()) if gene in sequences]
        if not mine:
            continue
        generator = np.random.default_rng(seed)
        found = sum(bool(scanner.scan(sequences[gene])) for gene in mine)
        null = [
            sum(
                bool(scanner.scan(dinucleotide_shuffle(sequences[gene], generator)))
                for gene in mine
            )
            for _ in range(n_shuffles)
        ]
        others = [gene for gene in sequences if gene not in set(mine)]
        elsewhere = np.mean([bool(scanner.scan(sequences[g])) for g in others]) if others else 0.0
        low, high = np.quantile(null, [0.025, 0.975])
        rows.append(
            (regulator, len(mine), found, float(np.mean(null)), low, high, float(elsewhere))
        )
    columns = ["regulator", "n_targets", "found", "expected", "null_low", "null_high", "elsewhere"]
    return pd.DataFrame(rows, columns=columns)


def score_table(
    scores: Sequence[SiteScore], control: Sequence[SiteScore], counts: pd.DataFrame | None = None
) -> pd.DataFrame:
    """One row a regulator: AUROC of attribution on its sites, and of a model with other weights.

    Columns: regulator, n_targets, n_sites, auroc, ci_low, ci_high, control (NaN where it was not
    measured); with `counts` from `motif_counts` also found, expected, null_low, null_high and
    elsewhere.
    """
    by_name = {one.regulator: one.auroc for one in control}
    rows = [(*one, by_name.get(one.regulator, np.nan)) for one in scores]
    table = pd.DataFrame(rows, columns=[*SiteScore._fields, "control"])
    if counts is None:
        return table
    return table.merge(counts.drop(columns="n_targets"), on="regulator", how="left")


def upstream(found: Attribution, upstream_bp: int) -> UInt8[np.ndarray, " length"]:
    """The bases before an explained gene's start."""
    return found.tokens[max(-found.offset_bp - upstream_bp, 0) : -found.offset_bp]

"""Distance dependence: how far away the sequence lies that a prediction depends on.

Dose-response: everything further than d from the gene is dinucleotide-shuffled, and the prediction
of the level is compared with that for the whole window. Mass against distance: which share of the
gradient (times input), and of the changes made by shuffling one band after the other, lies in
which distance.

Distances are to the nearest base of the gene; a base of the gene itself has distance 0.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int64, UInt8

from genesplice.data.bundle import Bundle
from genesplice.data.knowledge import shuffled_inside
from genesplice.errors import require
from genesplice.explain.attribution import attribute_gene
from genesplice.predict.gene_output import Explainer, GeneOutput
from genesplice.predict.models import load_fold

KEPT = 0.9
"""A model that keeps so much of its predictions does not depend on what was shuffled."""
FIELD = 0.9
BLIND = 0.99
"""A model that keeps so much of its predictions when all sequence is shuffled can say no *no*."""
NOTHING_KEPT = -1
"""A distance at which all of the window is shuffled."""
SAID = {"dose-response": "shuffling all beyond a distance"}
"""How a page calls a method, where not by its name."""
LARGEST_WINDOW_BP = 65_536
"""What is read of a longer context."""


def distance_bands(window_bp: int) -> list[int]:
    """Edges in bp, doubling from 128, from 0 to half of the window."""
    doubling = [128 << step for step in range(32)]
    return [0, *(edge for edge in doubling if edge < window_bp // 2), window_bp // 2]


def dose_response(
    explainer: Explainer, genes: Sequence[str], distances_bp: Sequence[int], *, n_shuffles: int = 2
) -> pd.DataFrame:
    """Predicted level with everything beyond each distance shuffled: one row a gene and distance.

    Columns gene_id, distance_bp, level (mean over `n_shuffles`) and full, the level for the
    window as it is. With a distance of `NOTHING_KEPT` the gene itself is shuffled too.

    Raises
    ------
    InputError
        Without genes or distances.
    """
    found = f"{len(genes)} genes, {len(distances_bp)} distances"
    require(len(genes) and len(distances_bp), found, "at least one each")
    rows = []
    for gene_id in genes:
        function, tokens, away, generator = _open(explainer, gene_id)
        full = _level(function, tokens)
        for distance in distances_bp:
            is_far = away > distance
            shuffled = (shuffled_inside(tokens, is_far, generator) for _ in range(n_shuffles))
            level = float(np.mean([_level(function, one) for one in shuffled]))
            rows.append((gene_id, int(distance), level, full))
    return pd.DataFrame(rows, columns=["gene_id", "distance_bp", "level", "full"])


def share_without_sequence(explainer: Explainer, genes: Sequence[str]) -> float:
    """How much of the differences between genes is left once all sequence is shuffled.

    As `kept_share`, with the gene itself shuffled too. About 1: the predictions rest on other
    things than sequence, such as a network, and no context could have changed them.

    Raises
    ------
    InputError
        Without genes.
    """
    return float(kept_share(dose_response(explainer, genes, [NOTHING_KEPT]))["share"].iloc[0])


def kept_share(doses: pd.DataFrame) -> pd.DataFrame:
    """How much of the differences between genes is left at each distance: distance_bp, share.

    1 - mean squared change over the variance of the whole predictions, not below 0; 1 everywhere
    for a model that predicts one value for all genes: it has nothing to lose.
    """
    spread = doses.groupby("gene_id")["full"].first().var(ddof=0)
    rows = []
    for distance, part in doses.groupby("distance_bp", sort=True):
        change = float(((part["level"] - part["full"]) ** 2).mean())
        share = 1 - change / spread if spread > 0 else float(change == 0)
        rows.append((distance, max(share, 0.0)))
    return pd.DataFrame(rows, columns=["distance_bp", "share"])


def mass_by_distance(
    explainer: Explainer, genes: Sequence[str], edges_bp: Sequence[int]
) -> pd.DataFrame:
    """Share of gradient and of perturbation in each band of distance, mean over the genes.

    Columns low_bp, high_bp, gradient, perturbation; the first row (0 to 0) is the gene itself,
    the others are the bands (low, high] between `edges_bp`, on both sides. Each column sums to 1;
    a gene on which nothing has any effect does not count.

    Raises
    ------
    InputError
        Without genes, or with fewer than two edges in growing order.
    """
    edges = [int(edge) for edge in edges_bp]
    are_rising = len(edges) >= 2 and edges[0] == 0 and edges == sorted(set(edges))
    found = f"{len(genes)} genes, edges {edges}"
    require(len(genes) and are_rising, found, "genes, and edges from 0 upwards")
    shares: dict[str, list[np.ndarray]] = {"gradient": [], "perturbation": []}
    for gene_id in genes:
        function, tokens, away, generator = _open(explainer, gene_id)
        band = np.searchsorted(edges, away)  # 0 is the gene; one more is beyond the last edge
        gradient = attribute_gene(explainer, gene_id, method="inputxgradient").values
        gradient = np.bincount(band, np.abs(gradient), minlength=len(edges) + 1)[:-1]
        full = _level(function, tokens)
        shuffled = (shuffled_inside(tokens, band == i, generator) for i in range(len(edges)))
        change = [abs(_level(function, one) - full) for one in shuffled]
        for name, mass in (("gradient", gradient), ("perturbation", np.array(change))):
            if mass.sum() > 0:
                shares[name].append(mass / mass.sum())
    limits = [(0, 0), *pairwise(edges)]
    table = pd.DataFrame(limits, columns=["low_bp", "high_bp"])
    for name, of_genes in shares.items():
        table[name] = np.mean(of_genes, axis=0) if of_genes else 0.0
    return table


def field_bp(mass: pd.DataFrame, column: str, share: float = 0.9) -> int:
    """The distance within which `share` of a column's mass lies: the end of that band."""
    within = mass[column].cumsum() / max(float(mass[column].sum()), 1e-300)
    band = int(np.argmax(within.to_numpy() >= share - 1e-12))
    return int(mass["high_bp"].iloc[band])


def _open(
    explainer: Explainer, gene_id: str
) -> tuple[
    GeneOutput, UInt8[np.ndarray, " length"], Int64[np.ndarray, " length"], np.random.Generator
]:
    """What predicts a gene, its bases, how far each is from it, and a generator of its own."""
    function = explainer.forward_function(gene_id)
    window, tokens = function.window, function.window.tokens[0].numpy()
    away = distances(len(tokens), window.start, window.end)
    return function, tokens, away, np.random.default_rng([0, window.row])


@torch.no_grad()
def _level(function: GeneOutput, tokens: UInt8[np.ndarray, " length"]) -> float:
    """What the model predicts for these bases, annotation left as it is."""
    encoder = function.model.encoder
    channels = encoder.channels(torch.from_numpy(tokens)[None], function.window.phase)
    return float(function(channels[..., :4]))


def distances(length: int, start: int, end: int) -> Int64[np.ndarray, " length"]:
    """Of each base to the nearest one in [start, end), 0 there."""
    position = np.arange(length)
    return np.maximum(np.maximum(start - position, position - end + 1), 0)


# --- of the model of the longest context ---


def measure_distance(
    bundle: Bundle, model: Path, context_bp: int, fold: int, n_genes: int
) -> tuple[pd.DataFrame, pd.DataFrame, float | None]:
    """Dose-response and mass by distance of held-out genes, and what needs no sequence.

    Nothing, and None, where no gene is short enough for their window.
    """
    window_bp = max(min(context_bp, LARGEST_WINDOW_BP) // 2048, 1) * 2048
    explainer = Explainer(load_fold(model), bundle, window_bp=window_bp)
    edges = distance_bands(window_bp)
    genes = bundle.genes.set_index("gene_id").loc[bundle.test_genes(fold)]
    # A gene that is longer than the window has nothing beyond itself.
    test = genes.index[genes["end"] - genes["start"] < window_bp // 4]
    chosen = np.random.default_rng([fold, 17]).permutation(test)[:n_genes].tolist()
    if not chosen:
        return pd.DataFrame(), pd.DataFrame(), None
    dose, mass = (work(explainer, chosen, edges) for work in (dose_response, mass_by_distance))
    return dose, mass, share_without_sequence(explainer, chosen)


def compare_distance_dependence(
    answer: str,
    dose: pd.DataFrame,
    mass: pd.DataFrame,
    shortest_bp: int,
    longest_bp: int,
    kept_without_sequence: float | None = None,
) -> dict[str, Any]:
    """Distance dependence by three methods, and where they contradict `answer` or each other.

    A model depends on distal sequence if less than `KEPT` of its predictions is left once
    everything beyond the shortest context is shuffled, or if `FIELD` of the mass of gradient or
    perturbation lies farther out. Mass is counted in shares: for a model that needs no sequence it
    means nothing (None). Dependence is no gain: only the conditions measure one. Nothing is said
    of what lies outside of the window.
    """
    if dose.empty or mass.empty:
        return {"distance_dependence": None, "disagreements": []}
    half = shortest_bp // 2
    shares = kept_share(dose)
    near = shares[shares["distance_bp"] <= half]
    kept = float(near["share"].iloc[-1]) if len(near) else 1.0
    is_blind = kept_without_sequence is not None and kept_without_sequence >= BLIND
    half_window = int(mass["high_bp"].max())
    record: dict[str, Any] = {
        "window_bp": 2 * half_window,
        "kept_without_sequence": kept_without_sequence,
        "kept_beyond_shortest": kept,
        "field_gradient_bp": field_bp(mass, "gradient", FIELD),
        "field_perturbation_bp": field_bp(mass, "perturbation", FIELD),
        "n_genes": int(dose["gene_id"].nunique()),
    }
    depends = {
        "dose-response": kept < KEPT,
        "gradient": None if is_blind else record["field_gradient_bp"] > half,
        "perturbation": None if is_blind else record["field_perturbation_bp"] > half,
    }
    record["depends_beyond"] = depends
    disagreements = []
    depends = {SAID.get(name, name): does for name, does in depends.items()}
    sides = [[name for name, does in depends.items() if does is side] for side in (True, False)]
    if all(sides):
        far, near = (" and ".join(side) for side in sides)
        disagreements.append(
            "The methods of distance dependence disagree about the model of the longest context: "
            f"{far} found that it depends on sequence further than {half} bp, {near} did not."
        )
    is_partial = 2 * half_window < longest_bp
    within = f", within the {half_window} bp that were measured" if is_partial else ""
    for name, does in depends.items():
        if answer == "yes" and does is False:
            disagreements.append(
                f"The conditions say yes, but {name} finds that the model of the longest context "
                f"hardly depends on anything further than {half} bp{within}."
            )
        if answer == "no" and does:
            disagreements.append(
                f"The conditions say no, but {name} finds that the model of the longest context "
                f"depends on sequence further than {half} bp: it gains nothing by it."
            )
    return {"distance_dependence": record, "disagreements": disagreements}

"""Edits of a gene's promoter towards a higher or lower predicted level, compared with chance.

    gradient of the level ─► most promising substitutions ─► predicted exactly ─► the best kept

Each step adds one substitution to every sequence that was kept. The gradient only says which
substitutions are worth a prediction; what is kept is decided by predictions. As many random edits
of the same positions, many times, are what a search has to beat. A design is a model's proposal
and no measurement.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64

from genesplice.data.bundle import Bundle, Progress
from genesplice.data.genome import decode
from genesplice.errors import require
from genesplice.predict.gene_output import Explainer
from genesplice.results import Metric
from genesplice.variants.alleles import Region
from genesplice.variants.levels import LevelModel, Locus, Window
from genesplice.variants.likelihood import BASES

N_EDITS = 5
BEAM = 4
N_SCREENED = 64
N_RANDOM = 32
UPSTREAM_BP = 200
WINDOW_BP = 4096

Edits = tuple[tuple[int, int], ...]
"""Positions in bases from the gene's start (negative upstream), and bases (0 to 3: A C G T), both
on the sense strand."""
Positions = Int64[np.ndarray, " positions"]


class Design(NamedTuple):
    """The best edits after each step, from none on, and the levels that several models predict.

    `random` are the changes by random edits, mean over models.
    """

    gene_id: str
    towards: str
    steps: tuple[Edits, ...]
    levels: Float[np.ndarray, "steps models"]
    random: Float[np.ndarray, " draws"]

    @property
    def change(self) -> float:
        """Of the last step, mean over the models."""
        return float((self.levels[-1] - self.levels[0]).mean())


def editable_positions(
    bundle: Bundle,
    gene_id: str,
    *,
    upstream_bp: int = UPSTREAM_BP,
    protected: Sequence[Region] = (),
) -> Positions:
    """Bases before a gene's start that may be edited, as distances from it, ascending.

    N is left out, and what lies in another gene or in `protected`.

    Raises
    ------
    InputError
        If nothing is left.
    """
    gene = bundle.genes.set_index("gene_id").loc[gene_id]
    contig, is_plus = bundle.genome.contig(gene["contig"]), gene["strand"] == "+"
    distance = np.arange(-upstream_bp, 0)
    at = gene["start"] + distance if is_plus else gene["end"] - 1 - distance
    others = bundle.genes.loc[bundle.genes["gene_id"] != gene_id, ["contig", "start", "end"]]
    blocked = np.zeros(contig.length, bool)
    for name, start, end in [*others.itertuples(index=False), *protected]:
        if name == contig.name:
            # A gene over the origin ends beyond the contig.
            blocked[np.arange(start, end) % contig.length] = True
    is_there = contig.is_circular | ((at >= 0) & (at < contig.length))
    at = at % contig.length
    is_free = is_there & ~blocked[at] & (bundle.genome.tokens[contig.offset + at] < 4)
    found = f"no base of the {upstream_bp} before {gene['name']} that may be edited"
    require(is_free.any(), found, "one that is neither protected, nor of another gene, nor N")
    return distance[is_free]


class PromoterLevels:
    """The level of one gene by several models, for edited versions of its window."""

    def __init__(self, models: Sequence[LevelModel], bundle: Bundle, gene_id: str) -> None:
        self.models = tuple(models)
        self.explainers = [
            Explainer(one.model, bundle, window_bp=WINDOW_BP, vectors=one.gene_features)
            for one in models
        ]
        self.window = self.explainers[0].window(gene_id)
        self.tokens = self.window.tokens[0].numpy()

    def edited(self, edits: Edits) -> np.ndarray:
        """The window with edits."""
        tokens = self.tokens.copy()
        for distance, base in edits:
            tokens[distance + self.window.start] = base
        return tokens

    def __call__(self, variants: Sequence[Edits]) -> Float[np.ndarray, "variants models"]:
        """The level with each of several sets of edits."""
        if not variants:
            return np.zeros((0, len(self.models)))
        window, phase = self.window, self.window.phase[0].numpy()
        columns = window.columns[0].numpy()
        windows = [Window(self.edited(edits), phase, columns) for edits in variants]
        place = window.start, window.end, window.exons.tolist()
        loci = [Locus(window.row, i, *place) for i in range(len(variants))]
        return np.stack([model(windows, loci)[:, 0] for model in self.models], axis=1)

    def first_order(self, edits: Edits, positions: Positions) -> Float[np.ndarray, "positions 4"]:
        """What each base at each position would change by the gradient, mean over the models."""
        window = self.window._replace(tokens=torch.from_numpy(self.edited(edits))[None])
        rows, found = torch.from_numpy(positions + window.start), np.zeros((len(positions), 4))
        for explainer in self.explainers:
            function = explainer.forward_function(window)
            bases = function.bases.clone().requires_grad_()
            (slope,) = torch.autograd.grad(function(bases).sum(), bases)
            own = (slope[0, rows] * function.bases[0, rows]).sum(-1, keepdim=True)
            found += (slope[0, rows] - own).double().numpy()
        return found / len(self.explainers)


def design(
    levels: PromoterLevels,
    towards: str,
    positions: Positions,
    *,
    n_edits: int = N_EDITS,
    beam: int = BEAM,
    n_screened: int = N_SCREENED,
    n_random: int = N_RANDOM,
    seed: int = 0,
    progress: Progress = lambda text: None,
) -> Design:
    """Add one substitution a step until nothing helps or all edits are made.

    A position is edited once. The search ends where no substitution that was tried comes closer
    than the best sequence has.

    Parameters
    ----------
    positions
        What may be edited, in bases from the gene's start.
    beam
        Sequences that are kept at each step; 1 is greedy.
    n_screened
        Substitutions of each sequence that are predicted, the best by the gradient.

    Raises
    ------
    InputError
        If one of the numbers is below 1, or `towards` is neither up nor down.
    """
    require(towards in ("up", "down"), f"--towards {towards}", "up or down")
    for name, count in (("edits", n_edits), ("beam", beam), ("screened", n_screened)):
        require(count >= 1, f"{count} {name}", "1 or more")
    sign = 1 if towards == "up" else -1
    kept: list[Edits] = [()]
    steps, found = [kept[0]], [levels([()])[0]]
    for number in range(1, n_edits + 1):
        tried = {
            tuple(sorted(more)): None
            for edits in kept
            for more in _extended(levels, edits, positions, sign, n_screened)
        }
        candidates = list(tried)
        predicted = levels(candidates)
        order = np.argsort(-sign * predicted.mean(1), kind="stable")[:beam]
        if not len(order) or sign * (predicted[order[0]] - found[-1]).mean() <= 0:
            break
        kept = [candidates[i] for i in order]
        steps.append(kept[0])
        found.append(predicted[order[0]])
        before, after = (float(level.mean()) for level in (found[0], found[-1]))
        progress(f"design: {number} of {n_edits} edits, level {before:.3f} to {after:.3f}")
    random = _random_edits(levels, positions, len(steps[-1]), n_random, seed)
    change = levels(random).mean(1) - found[0].mean()
    return Design(levels.window.gene_id, towards, tuple(steps), np.stack(found), change)


def _extended(
    levels: PromoterLevels, edits: Edits, positions: Positions, sign: int, n_screened: int
) -> list[Edits]:
    """Edits with each of the most promising further ones."""
    free = positions[~np.isin(positions, [distance for distance, _ in edits])]
    slope = sign * levels.first_order(edits, free)
    slope[np.arange(len(free)), levels.tokens[free + levels.window.start]] = -np.inf
    best = np.argsort(-slope, axis=None, kind="stable")[: min(n_screened, 3 * len(free))]
    rows, bases = np.unravel_index(best, slope.shape)
    return [(*edits, pair) for pair in zip(free[rows].tolist(), bases.tolist(), strict=True)]


def _random_edits(
    levels: PromoterLevels, positions: Positions, n_edits: int, count: int, seed: int
) -> list[Edits]:
    generator = np.random.default_rng([seed, levels.window.row])
    drawn = []
    for _ in range(count):
        chosen = np.sort(generator.permutation(positions)[:n_edits])
        turns = generator.integers(1, 4, len(chosen))
        bases = (levels.tokens[chosen + levels.window.start] + turns) % 4
        drawn.append(tuple(zip(chosen.tolist(), bases.tolist(), strict=True)))
    return drawn


def step_table(levels: PromoterLevels, found: Design, bundle: Bundle) -> pd.DataFrame:
    """Every edit of every step: step, contig, position (from 1), ref and alt (+ strand).

    With distance_bp (from the gene's start), level and model_spread (mean and standard deviation
    over models) of the whole step, and change from step 0.
    """
    gene = bundle.genes.set_index("gene_id").loc[found.gene_id]
    is_plus, contig = gene["strand"] == "+", bundle.genome.contig(gene["contig"])
    rows = []
    for step, (edits, level) in enumerate(zip(found.steps, found.levels, strict=True)):
        predicted = map(float, (level.mean(), level.std(), (level - found.levels[0]).mean()))
        of_step = tuple(predicted)
        for distance, base in edits:
            pair = [int(levels.tokens[distance + levels.window.start]), base]
            ref, alt = (BASES[token if is_plus else 3 - token] for token in pair)
            at = int(gene["start"]) + distance if is_plus else int(gene["end"]) - 1 - distance
            rows.append((step, contig.name, at % contig.length + 1, ref, alt, distance, *of_step))
    columns = ["step", "contig", "position", "ref", "alt", "distance_bp", "level", "model_spread"]
    return pd.DataFrame(rows, columns=[*columns, "change"])


def design_fasta(levels: PromoterLevels, found: Design) -> str:
    """The bases before the start, on the sense strand: as they are, and designed."""
    window, lines = levels.window, []
    for name, step in (("reference", 0), ("designed", -1)):
        tokens = levels.edited(found.steps[step])[window.start - UPSTREAM_BP : window.start]
        lines.append(
            f">{found.gene_id}_{name} {window.name} {-UPSTREAM_BP} to -1 of the start, sense "
            f"strand; predicted level {found.levels[step].mean():.4f}\n{decode(tokens)}\n"
        )
    return "".join(lines)


def design_metrics(found: Design, split: str, *, seed: int = 0) -> list[Metric]:
    """Records for metrics.json.

    The interval of `design_change` is the smallest and largest over models, that of
    `design_random_change` the middle 95 % of the draws.
    """
    changes, n = found.levels[-1] - found.levels[0], found.levels.shape[1]
    low, high = np.quantile(found.random, [0.025, 0.975])
    values: list[tuple[str, float, float | None, float | None, int]] = [
        ("design_level_before", float(found.levels[0].mean()), None, None, n),
        ("design_level", float(found.levels[-1].mean()), None, None, n),
        ("design_change", found.change, float(changes.min()), float(changes.max()), n),
        ("design_random_change", float(found.random.mean()), low, high, len(found.random)),
        ("design_edits", float(len(found.steps[-1])), None, None, len(found.steps) - 1),
    ]
    return [Metric(*value, "genesplice", split, None, seed) for value in values]

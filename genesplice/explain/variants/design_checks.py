"""What a designed promoter is worth: how sure the models are, what chance does, what it is like.

- Each model says its own change; the spread over them, and how many agree about its sign.
- The window is moved against the bins by less than one of them: a change that depends on where
  bins begin is no property of the sequence. (Both strands give the same level by construction.)
- As many random edits of the same places, many times: what a search has to beat.
- How near the designed promoter is to those of training genes, in bases and in what the model
  reads of it. Far from all of them, a prediction is a guess.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64

from genesplice.data.bundle import Bundle
from genesplice.data.genome import decode
from genesplice.data.passport import canonical_kmers
from genesplice.explain.explainer import Explainer
from genesplice.explain.variants.design import Design, Edit, GeneLevels
from genesplice.results import Metric

__all__ = ["Checked", "Likeness", "check_design", "design_fasta", "design_metrics", "step_table"]

SHIFTS_BP = (4, 8, 12)
N_RANDOM = 32
RARE_SPREAD = 1e-6


class Likeness(NamedTuple):
    """The nearest other training gene of a promoter: `value` is 1 for the same, 0 for nothing."""

    gene_id: str
    value: float


class Checked(NamedTuple):
    """What was measured of a design.

    `changes` has a row for each place of the window (the first is the usual one) and a column for
    each model; `random` the changes by random edits, mean over models. `bases` is the likeness of
    the bases before the start (shared 14-mers, both strands, over the smaller number of them),
    `before` and `after` that of what the first model reads of the whole gene (cosine of what is
    standardised over training genes); `percentile` is the share of training genes that are less
    like their own nearest than the design is.
    """

    changes: Float[np.ndarray, "places models"]
    random: Float[np.ndarray, " draws"]
    bases: Likeness
    before: Likeness
    after: Likeness
    percentile: float
    is_held_out: bool


def check_design(
    explainers: Sequence[Explainer],
    found: Design,
    places: Int64[np.ndarray, " places"],
    training: Sequence[str],
    *,
    upstream_bp: int,
    n_random: int = N_RANDOM,
    seed: int = 0,
) -> Checked:
    """Measure a design.

    Parameters
    ----------
    places
        What could be edited.
    training
        Genes whose expression a model was trained on; at least two.
    """
    edits, levels = found.best.edits, GeneLevels(explainers, found.gene_id)
    bundle = explainers[0].bundle
    changes = [np.subtract(found.best.levels, found.steps[0][0].levels)]
    for shift in SHIFTS_BP:
        moved = GeneLevels(explainers, found.gene_id, shift_bp=shift)
        before, after = moved.predict((), [(), edits])
        changes.append(after - before)
    drawn = _random_edits(levels, places, len(edits), n_random, seed)
    random = levels.predict((), drawn).mean(1) - found.steps[0][0].level
    promoters = {gene: _upstream(bundle, gene, upstream_bp) for gene in training}
    designed = _upstream(bundle, found.gene_id, upstream_bp)
    for edit in edits:
        designed[edit.distance_bp] = edit.base
    others = [gene for gene in training if gene != found.gene_id]
    before, after, percentile = _read_alike(levels, edits, others)
    return Checked(
        np.stack(changes), random, _shared_kmers(designed, promoters, others), before, after,
        percentile, found.gene_id not in set(training),
    )  # fmt: skip


def _random_edits(
    levels: GeneLevels, places: np.ndarray, n_edits: int, count: int, seed: int
) -> list[tuple[Edit, ...]]:
    generator = np.random.default_rng([seed, levels.window.row])
    drawn = []
    for _ in range(count):
        chosen = np.sort(generator.permutation(places)[:n_edits])
        turns = generator.integers(1, 4, len(chosen))
        drawn.append(tuple(
            Edit(place, (levels.base(place) + turn) % 4)
            for place, turn in zip(chosen.tolist(), turns.tolist(), strict=True)
        ))  # fmt: skip
    return drawn


def _upstream(bundle: Bundle, gene_id: str, upstream_bp: int) -> np.ndarray:
    """The bases before a gene's start, so that entry -1 is the last of them."""
    gene = bundle.genes.set_index("gene_id").loc[gene_id]
    low, high = (
        (gene["start"] - upstream_bp, gene["start"])
        if gene["strand"] == "+"
        else (gene["end"], gene["end"] + upstream_bp)
    )
    return bundle.genome.fetch(gene["contig"], int(low), int(high), gene["strand"])


def _shared_kmers(
    designed: np.ndarray, promoters: dict[str, np.ndarray], others: Sequence[str]
) -> Likeness:
    mine, best = canonical_kmers(designed), Likeness("", 0.0)
    for gene in others:
        theirs = canonical_kmers(promoters[gene])
        shared = len(np.intersect1d(mine, theirs, assume_unique=True))
        value = shared / max(min(len(mine), len(theirs)), 1)
        if value > best.value:
            best = Likeness(gene, value)
    return best


@torch.no_grad()
def _read_alike(
    levels: GeneLevels, edits: Sequence[Edit], others: Sequence[str]
) -> tuple[Likeness, Likeness, float]:
    explainer = levels.explainers[0]
    rows = torch.tensor([explainer.row[gene] for gene in others])
    known = explainer.vectors[rows]
    mine = []
    for made in ((), edits):
        function = levels.functions(made)[0]
        encoded = explainer.model.encoder(
            function.window.tokens, function.window.phase,
            with_bases=explainer.model.encoder.base_width > 0,
        )  # fmt: skip
        mine.append(function.read_vectors(encoded))
    centre, spread = known.mean(0), known.std(0)
    is_used = spread > RARE_SPREAD
    vectors = torch.cat([known, *mine])[:, is_used]
    vectors = torch.nn.functional.normalize((vectors - centre[is_used]) / spread[is_used], dim=1)
    known, mine_now = vectors[: len(known)], vectors[len(known) :]
    to_each = mine_now @ known.T
    among = known @ known.T
    among.fill_diagonal_(-1)
    nearest = among.amax(1)
    at = to_each.argmax(1).tolist()
    before, after = (
        Likeness(others[place], float(to_each[i, place])) for i, place in enumerate(at)
    )
    return before, after, float(100 * (nearest < after.value).double().mean())


def step_table(levels: GeneLevels, found: Design) -> pd.DataFrame:
    """Every sequence that was kept: one row each, step by step, best first.

    Columns: step, rank, parent_rank, is_on_path, contig, position (from 1), ref and alt (+ strand,
    as in a VCF), distance_bp (from the gene's start) and sense_edit, all of the edit that the step
    added and empty for step 0; level and model_spread (mean and standard deviation over models),
    change (from step 0), gain (from its parent).
    """
    bundle = levels.explainers[0].bundle
    gene = bundle.genes.set_index("gene_id").loc[found.gene_id]
    is_plus, contig = gene["strand"] == "+", bundle.genome.contig(gene["contig"])
    rows, start = [], found.steps[0][0].level
    for step, states in enumerate(found.steps):
        for rank, state in enumerate(states):
            row = {
                "step": step, "rank": rank, "parent_rank": state.parent,
                "is_on_path": found.path[step] == rank, "contig": contig.name, "position": None,
                "ref": None, "alt": None, "distance_bp": None, "sense_edit": None,
                "level": state.level, "change": state.level - start, "gain": 0.0,
                "model_spread": float(np.std(state.levels)),
            }  # fmt: skip
            if state.edits:
                at, base = state.edits[-1]
                place = int(gene["start"]) + at if is_plus else int(gene["end"]) - 1 - at
                pair = [levels.base(at), base]
                seen = pair if is_plus else [3 - token for token in pair]
                row |= {
                    "position": place % contig.length + 1, "ref": "ACGT"[seen[0]],
                    "alt": "ACGT"[seen[1]], "distance_bp": at,
                    "sense_edit": f"{'ACGT'[pair[0]]}>{'ACGT'[pair[1]]}",
                    "gain": state.level - found.steps[step - 1][state.parent].level,
                }  # fmt: skip
            rows.append(row)
    table = pd.DataFrame(rows)
    return table.astype({"position": "Int64", "distance_bp": "Int64"})


def design_fasta(levels: GeneLevels, found: Design, upstream_bp: int) -> str:
    """The bases before the start, on the sense strand: as they are, and designed."""
    bundle, window = levels.explainers[0].bundle, levels.window
    before = _upstream(bundle, found.gene_id, upstream_bp)
    after = before.copy()
    for edit in found.best.edits:
        after[edit.distance_bp] = edit.base
    edits = ",".join(
        f"{edit.distance_bp}{'ACGT'[levels.base(edit.distance_bp)]}>{'ACGT'[edit.base]}"
        for edit in found.best.edits
    )
    told = (("as_it_is", found.steps[0][0], before), ("designed", found.best, after))
    return "".join(
        f">{found.gene_id}_{name} {window.name} {-upstream_bp} to -1 of the start, sense strand; "
        f"predicted level {state.level:.4f}"
        + (f"; edits {edits}" if state.edits else "")
        + f"\n{decode(tokens)}\n"
        for name, state, tokens in told
    )


def design_metrics(found: Design, checked: Checked, *, seed: int = 0) -> list[Metric]:
    """What goes into metrics.json.

    Intervals: of `design_change` the smallest and largest over models and places of the window; of
    `design_random_change` the middle 95 % of the draws. `split` is "test" where no model was
    trained on the gene's expression.
    """
    n_models = len(found.best.levels)
    usual, split = checked.changes[0], "test" if checked.is_held_out else "train"
    signs = np.sign(usual)
    low, high = np.quantile(checked.random, [0.025, 0.975])
    values: dict[str, tuple[float, float | None, float | None, int]] = {
        "design_level_before": (found.steps[0][0].level, None, None, n_models),
        "design_level": (found.best.level, None, None, n_models),
        "design_change": (
            float(usual.mean()), float(checked.changes.min()), float(checked.changes.max()),
            checked.changes.size,
        ),
        "design_edits": (float(len(found.best.edits)), None, None, len(found.steps) - 1),
        "design_model_spread": (float(usual.std()), None, None, n_models),
        "design_model_agreement": (
            float(max(np.mean(signs == sign) for sign in (-1, 0, 1))), None, None, n_models
        ),
        "design_window_spread": (
            float(checked.changes.mean(1).std()), None, None, len(checked.changes)
        ),
        "design_random_change": (
            float(checked.random.mean()), float(low), float(high), len(checked.random)
        ),
        "design_nearest_promoter": (checked.bases.value, None, None, 1),
        "design_nearest_gene_before": (checked.before.value, None, None, 1),
        "design_nearest_gene": (checked.after.value, None, None, 1),
        "design_nearest_gene_percentile": (checked.percentile, None, None, 1),
    }  # fmt: skip
    return [Metric(name, *value, "genesplice", split, None, seed) for name, value in values.items()]

"""Edits of a gene's promoter towards a wanted predicted level: greedy, or with a beam.

    gradient of the level ─► the most promising substitutions ─► predicted exactly ─► the best kept

Each step adds one substitution to every sequence that was kept. The gradient only says which
substitutions are worth a prediction; what is kept is decided by predictions.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64

from genesplice.errors import InputError
from genesplice.explain.explainer import Explainer, GeneOutput
from genesplice.explain.mutagenesis import VariantOutput

__all__ = ["Aim", "Design", "Edit", "GeneLevels", "State", "design", "parse_aim"]

N_EDITS = 5
N_SCREENED = 64
NEAR_ENOUGH = 0.01
BATCH = 16


class Aim(NamedTuple):
    """Where the level should go: "up", "down", or to `value`, log2(TPM+1)."""

    towards: str
    value: float | None = None

    def distance(self, level: float) -> float:
        """How far a level is from what is wanted; lower is better, below 0 has no meaning."""
        if self.value is not None:
            return abs(level - self.value)
        return -level if self.towards == "up" else level

    def is_met(self, level: float) -> bool:
        """Within 0.01 of the wanted value; up and down have no end."""
        return self.value is not None and abs(level - self.value) <= NEAR_ENOUGH


def parse_aim(text: str) -> Aim:
    """Read `up`, `down` or a level.

    Raises
    ------
    InputError
        For anything else, and a level below 0.
    """
    if text in ("up", "down"):
        return Aim(text)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise InputError(f"--towards {text}", "up, down, or a level in log2(TPM+1)")
    return Aim(text, value)


class Edit(NamedTuple):
    """A base (0 to 3: A C G T) `distance_bp` from the gene's start, both on the sense strand."""

    distance_bp: int
    base: int


class State(NamedTuple):
    """An edited promoter: its edits in their order, and the level by each model.

    `parent` is its rank, within the step before, of what it was made from.
    """

    edits: tuple[Edit, ...]
    levels: tuple[float, ...]
    parent: int = 0

    @property
    def level(self) -> float:
        """Mean over the models."""
        return float(np.mean(self.levels))


class Design(NamedTuple):
    """What was kept at each step, best first; step 0 is the gene as it is."""

    gene_id: str
    aim: Aim
    steps: tuple[tuple[State, ...], ...]

    @property
    def best(self) -> State:
        """The designed promoter."""
        return self.steps[-1][0]

    @property
    def path(self) -> tuple[int, ...]:
        """The rank, at each step, of what the designed promoter came from."""
        ranks = [0]
        for step in self.steps[:0:-1]:
            ranks.append(step[ranks[-1]].parent)
        return tuple(ranks[::-1])


class GeneLevels:
    """The level of one gene by several models, for edited versions of its window.

    Parameters
    ----------
    explainers
        Of one bundle and one window length; one a model.
    shift_bp
        How far the window is moved against its usual place, and so against the bins.
    """

    def __init__(self, explainers: Sequence[Explainer], gene_id: str, *, shift_bp: int = 0) -> None:
        self.explainers = tuple(explainers)
        self.window = explainers[0].window(gene_id, shift_bp=shift_bp)

    def base(self, distance_bp: int) -> int:
        """The token of the unchanged sequence."""
        return int(self.window.tokens[0, distance_bp + self.window.start])

    def functions(self, edits: Iterable[Edit]) -> list[GeneOutput]:
        """One a model, with `edits` in the sequence."""
        tokens = self.window.tokens.clone()
        for edit in edits:
            tokens[0, edit.distance_bp + self.window.start] = edit.base
        window = self.window._replace(tokens=tokens)
        return [explainer.forward_function(window) for explainer in self.explainers]

    def first_order(
        self, edits: Iterable[Edit], places: Int64[np.ndarray, " places"]
    ) -> Float[np.ndarray, "places 4"]:
        """What each base at each place would change by the gradient, mean over the models."""
        found = np.zeros((len(places), 4))
        rows = torch.from_numpy(places + self.window.start)
        for function in self.functions(edits):
            bases = function.bases.clone().requires_grad_()
            (slope,) = torch.autograd.grad(function(bases).sum(), bases)
            own = (slope[0, rows] * function.bases[0, rows]).sum(-1, keepdim=True)
            found += (slope[0, rows] - own).double().numpy()
        return found / len(self.explainers)

    def predict(
        self, edits: Iterable[Edit], more: Sequence[Sequence[Edit]]
    ) -> Float[np.ndarray, "variants models"]:
        """The level with `edits` and, in turn, each of `more` in the sequence."""
        found = np.zeros((len(more), len(self.explainers)))
        order = sorted(range(len(more)), key=lambda i: min(more[i], default=Edit(0, 0)))
        for column, function in enumerate(self.functions(edits)):
            output = VariantOutput(function)
            for first in range(0, len(more), BATCH):
                some = order[first : first + BATCH]
                found[some, column] = self._batch(output, [more[i] for i in some])
        return found

    def _batch(self, output: VariantOutput, more: Sequence[Sequence[Edit]]) -> np.ndarray:
        rows = [edit.distance_bp + self.window.start for edits in more for edit in edits]
        low, high = min(rows, default=0), max(rows, default=0) + 1
        bases = output.function.bases[:, low:high].repeat(len(more), 1, 1)
        for i, edits in enumerate(more):
            for edit in edits:
                bases[i, edit.distance_bp + self.window.start - low] = torch.eye(4)[edit.base]
        return output(low, bases).double().numpy()


def design(
    levels: GeneLevels,
    aim: Aim,
    places: Int64[np.ndarray, " places"],
    *,
    n_edits: int = N_EDITS,
    beam: int = 1,
    n_screened: int = N_SCREENED,
    progress: Callable[[str], None] | None = None,
) -> Design:
    """Add one substitution a step until nothing helps, the aim is met, or all edits are made.

    A place is edited once. The search ends where no substitution that was tried comes closer than
    the best sequence has.

    Parameters
    ----------
    places
        What may be edited, in bases from the gene's start (negative upstream).
    beam
        Sequences that are kept at each step; 1 is greedy.
    n_screened
        Substitutions of each sequence that are predicted, the best by the gradient.

    Raises
    ------
    InputError
        If one of the numbers is below 1.
    """
    for name, count in (("edits", n_edits), ("beam", beam), ("screened", n_screened)):
        if count < 1:
            raise InputError(f"{count} {name}", "1 or more")
    start = State((), tuple(levels.predict((), [()])[0].tolist()))
    steps: list[tuple[State, ...]] = [(start,)]
    tell = progress or (lambda text: None)
    for number in range(1, n_edits + 1):
        found: dict[frozenset[Edit], State] = {}
        for rank, state in enumerate(steps[-1]):
            for new in _extended(levels, aim, places, state, rank, n_screened):
                found.setdefault(frozenset(new.edits), new)
        kept = sorted(found.values(), key=lambda state: aim.distance(state.level))[:beam]
        best = steps[-1][0]
        if not kept or aim.distance(kept[0].level) >= aim.distance(best.level):
            break
        steps.append(tuple(kept))
        tell(f"design: {number} of {n_edits} edits, level {start.level:.3f} to {kept[0].level:.3f}")
        if aim.is_met(kept[0].level):
            break
    return Design(levels.window.gene_id, aim, tuple(steps))


def _extended(
    levels: GeneLevels,
    aim: Aim,
    places: Int64[np.ndarray, " places"],
    state: State,
    rank: int,
    n_screened: int,
) -> list[State]:
    """A state with each of the most promising further edits."""
    taken = {edit.distance_bp for edit in state.edits}
    free = places[[place not in taken for place in places.tolist()]]
    slope = levels.first_order(state.edits, free)
    edits = [
        (aim.distance(state.level + slope[i, base]), Edit(place, base))
        for i, place in enumerate(free.tolist())
        for base in range(4)
        if base != levels.base(place)
    ]
    tried = [edit for _, edit in sorted(edits)[:n_screened]]
    told = levels.predict(state.edits, [(edit,) for edit in tried])
    return [
        State((*state.edits, edit), tuple(row.tolist()), rank)
        for edit, row in zip(tried, told, strict=True)
    ]

"""The context dial: how far each level may look so that a promise in bp is kept exactly."""

from typing import NamedTuple

from genesplice.config.model import REGION_BP, SUMMARY_BP
from genesplice.errors import InputError


class ContextPlan(NamedTuple):
    """How far each level may look so that no path leaves the promised context.

    Half-windows are in tokens of the level. `sees_summaries` / `sees_regions` False: that level
    runs on zeros, so that parameters and cost stay equal while nothing reaches it.
    `region_half` None: global. `reach_bp` bounds how far outside its own bin an output can see,
    on each side; None where it is the whole window.
    """

    bin_half: int
    summary_half: int
    region_half: int | None
    sees_summaries: bool
    sees_regions: bool
    reach_bp: int | None


def plan_context(
    context_bp: int | None,
    *,
    bin_bp: int,
    stem_bp: int,
    bin_layers: int,
    summary_layers: int,
    region_layers: int,
    bin_window: int,
    summary_window: int,
    base_bp: int = 0,
) -> ContextPlan:
    """Spend half of `context_bp` on the levels, finest first.

    Parameters
    ----------
    stem_bp
        Bases the stem reads beyond its bin on one side.
    bin_layers
        All windowed layers on bins, before and after the coarse levels.
    base_bp
        Bases that the base-resolution path looks further once the bins are done.

    Raises
    ------
    InputError
        If not even one bin on each side fits.
    """
    if context_bp is None:
        return ContextPlan(bin_window, summary_window, None, True, True, None)
    budget = context_bp // 2 - base_bp
    smallest = stem_bp + max(bin_layers, 1) * bin_bp
    if budget < smallest:
        needed = 2 * (smallest + base_bp)
        raise InputError(f"context_bp {context_bp}", f"at least {needed} for this model")
    bin_half = min(bin_window, (budget - stem_bp) // (max(bin_layers, 1) * bin_bp))
    spent = stem_bp + bin_layers * bin_half * bin_bp
    summary_cell, region_cell = SUMMARY_BP - bin_bp, REGION_BP - SUMMARY_BP
    summary_half = (budget - spent - summary_cell) // (summary_layers * SUMMARY_BP)
    if summary_half < 1:
        return ContextPlan(bin_half, summary_window, None, False, False, spent)
    summary_half = min(summary_window, summary_half)
    spent += summary_cell + summary_layers * summary_half * SUMMARY_BP
    region_half = (budget - spent - region_cell) // (region_layers * REGION_BP)
    if region_half < 1:
        return ContextPlan(bin_half, summary_half, None, True, False, spent)
    spent += region_cell + region_layers * region_half * REGION_BP
    return ContextPlan(bin_half, summary_half, region_half, True, True, spent)

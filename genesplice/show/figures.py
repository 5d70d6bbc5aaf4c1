"""Every figure of GeneSplice under one roof.

A figure is a noun: a function of plain tables and arrays that returns a plotly figure. The same
input always gives the same figure, text from users is shown and never interpreted, and heights
are fixed while widths follow the page. The functions live in modules by what they show.
"""

from genesplice.show.checks import completeness_bars, leakage_table
from genesplice.show.context import context_arms, dose_figure, mass_figure, slope_bars
from genesplice.show.graphs import pathway_graph
from genesplice.show.influence import influence_bars
from genesplice.show.levels import condition_heatmap, profile
from genesplice.show.loci import expression_map, fold_map
from genesplice.show.logo import attribution_logo
from genesplice.show.points import embedding_map, predicted_observed
from genesplice.show.rates import rate_range, rate_schedules
from genesplice.show.reach import attention_by_distance, context_dial
from genesplice.show.scores import learning_curves, metric_bars
from genesplice.show.theme import THEME

__all__ = [
    "THEME",
    "attention_by_distance",
    "attribution_logo",
    "completeness_bars",
    "condition_heatmap",
    "context_arms",
    "context_dial",
    "dose_figure",
    "embedding_map",
    "expression_map",
    "fold_map",
    "influence_bars",
    "leakage_table",
    "learning_curves",
    "mass_figure",
    "metric_bars",
    "pathway_graph",
    "predicted_observed",
    "profile",
    "rate_range",
    "rate_schedules",
    "slope_bars",
]

"""Every explorer under one roof: figures that answer to a choice, a slider or a click.

They take plain tables and arrays. Displayed in JupyterLab they are live; in a report they respond
without a kernel; in print they show their first state. `Explorer` makes new ones.
"""

from genesplice.show.attention_explorers import AttentionExplorer
from genesplice.show.curve_explorers import CurveExplorer
from genesplice.show.explorer import Explorer
from genesplice.show.gene_explorers import ProfileExplorer
from genesplice.show.graph_explorers import NetworkExplorer
from genesplice.show.locus_explorers import AttributionExplorer
from genesplice.show.map_explorers import ScatterExplorer
from genesplice.show.patches import Binding, Click, Control

__all__ = [
    "AttentionExplorer",
    "AttributionExplorer",
    "Binding",
    "Click",
    "Control",
    "CurveExplorer",
    "Explorer",
    "NetworkExplorer",
    "ProfileExplorer",
    "ScatterExplorer",
]

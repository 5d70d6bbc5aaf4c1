"""What notebooks and pages show, without what writes pages: notebooks load faster so."""

import html
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from genesplice.show.explorer import Explorer

HEADLINE_MIME = "application/vnd.genesplice.headline+json"

Part = str | go.Figure | Explorer | pd.DataFrame
"""What a page may consist of; a string is Markdown."""


class Headline:
    """The one sentence that a notebook found, shown on top of its report and in the index.

    Give it as the last expression of a cell: `Headline(f"Context beyond {n:,} bp adds nothing")`.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        shown = f'<p style="font-size:1.2em"><b>{html.escape(self.text)}</b></p>'
        return {"text/plain": self.text, "text/html": shown, HEADLINE_MIME: {"text": self.text}}

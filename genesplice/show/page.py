"""A self-contained page without a notebook: what `genesplice explain` leaves beside its tables."""

import json
from collections.abc import Sequence
from pathlib import Path

import nbformat.v4
import pandas as pd
import plotly.graph_objects as go

from genesplice.show.cells import render_cells
from genesplice.show.explorer import PLOTLY_MIME, WIDGET_MIME, Explorer
from genesplice.show.parts import Part
from genesplice.show.report import render_body

N_DIGITS = 3


def render_page(
    target: Path,
    title: str,
    parts: Sequence[Part],
    *,
    facts: Sequence[str] = (),
    lead: Sequence[str] = (),
    beside: str = "",
) -> Path:
    """Write text, tables, figures and explorers as one HTML file that loads nothing.

    Parameters
    ----------
    parts
        In the order of the page. A string is Markdown, whose headings make the contents.
    facts
        Short remarks under the title.
    lead
        What was found, in a sentence each.
    beside
        What else lies in the folder, for the footer.
    """
    cells = [
        nbformat.v4.new_markdown_cell(part)
        if isinstance(part, str)
        else nbformat.v4.new_code_cell(source="", outputs=[_display(part)])
        for part in parts
    ]
    body = render_cells(nbformat.v4.new_notebook(cells=cells))
    text = render_body(body, title=title, facts=facts, lead=lead, beside=beside)
    target.write_text(text, encoding="utf-8")
    return target


def _display(part: go.Figure | Explorer | pd.DataFrame) -> nbformat.NotebookNode:
    if isinstance(part, Explorer):
        data = part._repr_mimebundle_()
        data.pop(WIDGET_MIME, None)
    elif isinstance(part, go.Figure):
        data = {PLOTLY_MIME: json.loads(str(part.to_json()))}
    else:
        data = {"text/html": part.to_html(index=False, float_format=_number, na_rep="–", border=0)}
    return nbformat.v4.new_output("display_data", data=data)


def _number(value: float) -> str:
    return f"{value:.{N_DIGITS}g}"

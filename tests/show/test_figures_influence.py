"""Every node stands on its own band, and only what is above it is full."""

import numpy as np
import pandas as pd
import pytest

from genesplice.errors import InputError
from genesplice.show.figures import influence_bars

TABLE = pd.DataFrame(
    {
        "id": ["a", "<b>b</b>", "c", "d"],
        "n_edges": [3, 4, 5, 6],
        "mean": [0.1, 2.0, 0.5, -1.0],
        "null_low": [-0.5, -0.4, -0.3, -2.0],
        "null_high": [0.5, 0.4, 0.6, 0.0],
        "p": [0.5, 0.05, 0.1, 0.9],
    }
)


def test_bands_and_means_are_those_of_the_table():
    figure = influence_bars(TABLE, names=pd.Series({"c": "crp"}), n_shown=3)
    band, dots = figure.data
    assert list(dots.x) == [2.0, 0.5, 0.1]
    assert list(dots.marker.symbol) == ["diamond", "diamond-open", "diamond-open"]
    np.testing.assert_allclose(np.array(band.x).reshape(3, 3)[:, :2],
                               [[-0.4, 0.4], [-0.3, 0.6], [-0.5, 0.5]])  # fmt: skip
    assert list(figure.layout.yaxis.ticktext) == ["&lt;b&gt;b&lt;/b&gt;", "crp", "a"]
    assert "1 of 4 above" in figure.layout.title.text
    assert "<b>b</b>" not in dots.hovertext[0].removeprefix("<b>")
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match="also p"):
        influence_bars(TABLE.drop(columns="p"))
    with pytest.raises(InputError, match="0 rows in influence"):
        influence_bars(TABLE.iloc[:0])
    with pytest.raises(InputError, match="not finite"):
        influence_bars(TABLE.assign(mean=np.nan))

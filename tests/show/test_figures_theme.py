"""Colours, text from users, and the checks that every figure shares."""

import html
import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genesplice.errors import InputError
from genesplice.show import theme

# Wong (2011), Nature Methods 8:441, which prints Okabe and Ito's palette.
PUBLISHED = {
    "black": (0, 0, 0),
    "orange": (230, 159, 0),
    "sky blue": (86, 180, 233),
    "bluish green": (0, 158, 115),
    "yellow": (240, 228, 66),
    "blue": (0, 114, 178),
    "vermillion": (213, 94, 0),
    "reddish purple": (204, 121, 167),
}


def rgb(colour: str) -> tuple[int, int, int]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def contrast(first: str, second: str) -> float:
    """WCAG 2.2, written out."""
    luminances = []
    for colour in (first, second):
        total = 0.0
        for part, weight in zip(rgb(colour), (0.2126, 0.7152, 0.0722), strict=True):
            c = part / 255
            total += weight * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
        luminances.append(total)
    return (max(luminances) + 0.05) / (min(luminances) + 0.05)


def test_the_palette_is_the_published_one_and_has_no_colour_twice():
    assert sorted(map(rgb, theme.OKABE_ITO)) == sorted(PUBLISHED.values())


def test_each_group_has_a_symbol_of_its_own_beside_its_colour():
    assert len(set(theme.SYMBOLS)) == len(theme.SYMBOLS) == len(theme.OKABE_ITO)


def test_the_bases_take_four_different_colours_of_the_palette():
    assert sorted(theme.BASE_COLOURS) == ["A", "C", "G", "T"]
    assert len(set(theme.BASE_COLOURS.values())) == 4
    assert set(theme.BASE_COLOURS.values()) <= set(theme.OKABE_ITO)


@pytest.mark.parametrize("name", ["INK", "MUTED"])
def test_text_can_be_read_on_white(name):
    assert contrast(getattr(theme, name), "#FFFFFF") >= 4.5  # WCAG 2.2 level AA


@pytest.mark.parametrize("scale", [theme.DIVERGING, theme.SEQUENTIAL])
def test_colour_scales_are_written_out_from_zero_to_one(scale):
    positions = [position for position, _ in scale]
    assert positions[0] == 0.0
    assert positions[-1] == 1.0
    assert positions == sorted(set(positions))
    assert all(re.fullmatch("#[0-9A-F]{6}", colour) for _, colour in scale)


def test_the_diverging_scale_is_pale_in_the_middle_and_dark_at_both_ends():
    shades = [contrast(colour, "#FFFFFF") for _, colour in theme.DIVERGING]
    assert shades[2] == min(shades) < 1.1
    assert shades[0] > shades[1] > shades[2] < shades[3] < shades[4]


def test_the_sequential_scale_only_gets_darker():
    shades = [contrast(colour, "#FFFFFF") for _, colour in theme.SEQUENTIAL]
    assert shades == sorted(shades)


@pytest.mark.parametrize("colour", theme.OKABE_ITO)
def test_text_on_a_colour_is_the_better_of_white_and_ink(colour):
    chosen = {"white": "#FFFFFF", theme.INK: theme.INK}[theme.text_on(colour)]
    other = theme.INK if chosen == "#FFFFFF" else "#FFFFFF"
    assert contrast(chosen, colour) >= contrast(other, colour)
    assert contrast(chosen, colour) >= 3.0


def test_text_on_black_and_on_yellow():
    assert theme.text_on("#000000") == "white"
    assert theme.text_on("#F0E442") == theme.INK


def test_the_theme_is_white_with_one_font_and_an_explicit_height():
    layout = theme.THEME.layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == "white"
    assert layout.height == 400
    assert layout.autosize is True
    assert layout.hoverlabel.font.family == layout.font.family
    assert list(layout.colorway) == list(theme.OKABE_ITO)
    assert layout.xaxis.gridwidth == layout.yaxis.gridwidth == 1


# ---- text from users


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("lacZ", "lacZ"),
        ("<b>x</b>", "&lt;b&gt;x&lt;/b&gt;"),
        ("a & b", "a &amp; b"),
        ("&lt;", "&amp;lt;"),
        ("aac(6')", "aac(6&#x27;)"),
        ('"q"', "&quot;q&quot;"),
        ("$x^2$", "&#36;x^2&#36;"),
        ("%{y}", "&#37;{y}"),
        ("95 %", "95 %"),
        (17, "17"),
    ],
)
def test_safe_text(text, shown):
    assert theme.safe(text) == shown


@settings(deadline=None)
@given(st.text())
def test_safe_text_reads_as_it_was_written(text):
    escaped = theme.safe(text)
    assert not set("<>$\"'") & set(escaped)
    assert "%{" not in escaped
    # Every character that was escaped comes back, whatever else is in the text. (html.unescape
    # also replaces NUL and the like, which no label holds.)
    back = escaped
    for entity, letter in (
        ("&#37;{", "%{"),
        ("&#36;", "$"),
        ("&#x27;", "'"),
        ("&quot;", '"'),
        ("&gt;", ">"),
        ("&lt;", "<"),
        ("&amp;", "&"),
    ):
        back = back.replace(entity, letter)
    assert back == text


@settings(deadline=None)
@given(st.text(max_size=80), st.integers(5, 30))
def test_lines_lose_no_letter_and_keep_to_their_width(text, width):
    lines = theme.text_lines(text, width)
    assert all(len(html.unescape(line)) <= width for line in lines if "&#" not in text)
    kept = "".join("".join(html.unescape(line).split()) for line in lines)
    if "&" not in text and "\0" not in text:
        assert kept == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "shown"),
    [("abcde", "abcde"), ("abcdef", "abcd…"), ("<bcdef", "&lt;bcd…"), (123456, "1234…"), ("", "")],
)
def test_short_text_is_cut_before_it_is_escaped(text, shown):
    assert theme.short(text, 5) == shown


def test_lines_beyond_the_last_end_in_an_ellipsis():
    assert theme.text_lines("one two three four", 9, 1) == ["one two …"]
    assert theme.text_lines("one two", 9, 1) == ["one two"]


def test_lines_are_escaped_after_they_are_broken():
    assert theme.text_lines("a <b> c", 5) == ["a &lt;b&gt;", "c"]


def test_no_text_has_no_lines():
    assert theme.text_lines("", 10) == []


# ---- the blank figure


def test_a_blank_figure_has_the_theme_height_and_title():
    figure = theme.blank_figure(321, "A <title>", "and more")
    assert figure.layout.template == theme.THEME
    assert figure.layout.height == 321 + figure.layout.margin.t
    assert "A &lt;title&gt;" in figure.layout.title.text
    assert figure.layout.title.text.index("title") < figure.layout.title.text.index("and more")
    assert len(figure.data) == 0


def test_each_line_of_the_title_takes_its_room_from_the_plot():
    one = theme.blank_figure(300, "short").layout.margin.t
    two = theme.blank_figure(300, "short", "subtitle").layout.margin.t
    three = theme.blank_figure(300, "a title that is longer than a telephone is wide", "subtitle")
    assert 17 <= two - one <= 20
    assert 17 <= three.layout.margin.t - two <= 20
    assert three.layout.title.text.count("<br>") == 2


def test_a_blank_figure_without_a_title_has_no_text():
    assert theme.blank_figure(300, "").layout.title.text == ""


def test_layout_settings_go_through():
    assert theme.blank_figure(300, "t", barmode="overlay").layout.barmode == "overlay"


def test_figures_do_not_share_their_layout():
    first = theme.blank_figure(300, "t")
    first.update_xaxes(title_text="changed")
    first.layout.template.layout.height = 77
    second = theme.blank_figure(300, "t")
    assert second.layout.xaxis.title.text is None
    assert second.layout.template.layout.height == 400
    assert theme.THEME.layout.height == 400


# ---- strokes, labels, intervals


def test_broken_lines_put_a_gap_after_each_stroke():
    path = theme.broken_lines(np.array([1, 2]), np.array([3.5, 4.5]))
    np.testing.assert_array_equal(path, [1, 3.5, np.nan, 2, 4.5, np.nan])
    assert path.dtype == np.float64


def test_broken_lines_of_nothing_are_nothing():
    assert theme.broken_lines(np.zeros(0), np.zeros(0)).shape == (0,)


def test_labels_of_genes_with_and_without_names():
    names = pd.Series({"b1": "lacZ", "b2": "b2", "b3": None, "b4": "", "b9": "unused"})
    ids = pd.Index(["b3", "b1", "b2", "b4", "b5"])
    assert theme.gene_labels(ids, names) == ("b3", "lacZ (b1)", "b2", "b4", "b5")
    assert theme.gene_labels(ids) == tuple(ids)


def test_two_names_for_one_gene_are_refused():
    names = pd.Series(["lacZ", "lacY"], index=["b1", "b1"])
    with pytest.raises(InputError, match="found 1 different gene_id in names, expected 2"):
        theme.gene_labels(pd.Index(["b1"]), names)


def test_intervals_become_distances_and_missing_ones_zero():
    table = pd.DataFrame(
        {"value": [0.5, 0.2, 0.1], "ci_low": [0.4, None, 0.1], "ci_high": [0.7, None, 0.1]}
    )
    value, down, up = theme.intervals(table)
    np.testing.assert_allclose(value, [0.5, 0.2, 0.1])
    np.testing.assert_allclose(down, [0.1, 0.0, 0.0])
    np.testing.assert_allclose(up, [0.2, 0.0, 0.0])


def test_intervals_that_are_all_missing():
    table = pd.DataFrame({"value": [1.0], "ci_low": [None], "ci_high": [None]})
    assert [float(part[0]) for part in theme.intervals(table)] == [1.0, 0.0, 0.0]


def test_a_value_that_is_not_a_number_is_refused():
    table = pd.DataFrame({"value": [np.nan], "ci_low": [0.0], "ci_high": [1.0]})
    with pytest.raises(InputError, match="1 of 1 values of value not finite"):
        theme.intervals(table)


# ---- checks


def test_missing_columns_are_named_beside_those_that_are_there():
    with pytest.raises(InputError, match="genes with columns a, b, expected also c, d"):
        theme.check_columns(pd.DataFrame({"a": [1], "b": [2]}), ("a", "c", "d"), "genes")


def test_a_table_without_any_column_says_so():
    with pytest.raises(InputError, match="genes with columns none, expected also a"):
        theme.check_columns(pd.DataFrame(), ("a",), "genes")


def test_an_empty_table_is_refused():
    with pytest.raises(InputError, match="found 0 rows in genes, expected at least 1"):
        theme.check_columns(pd.DataFrame({"a": []}), ("a",), "genes")


def test_a_good_table_passes():
    theme.check_columns(pd.DataFrame({"a": [1], "more": [2]}), ("a",), "genes")


def test_different_lengths_name_both_numbers():
    with pytest.raises(InputError, match="found 1,200 tokens, expected 3 as in attributions"):
        theme.check_lengths(1200, "tokens", 3, "attributions")
    theme.check_lengths(3, "tokens", 3, "attributions")


def test_finite_values_come_back_as_float64():
    values = theme.check_finite([1, 2], "level")
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, [1.0, 2.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted(bad):
    with pytest.raises(InputError, match="found 1 of 3 values of level not finite"):
        theme.check_finite(np.array([1.0, bad, 2.0]), "level")


def test_no_values_are_refused():
    with pytest.raises(InputError, match="found 0 values of level, expected at least 1"):
        theme.check_finite(np.zeros(0), "level")


def test_a_series_keeps_its_index_and_order():
    series = theme.check_series(pd.Series([2, 1], index=["b", "a"]), "level")
    assert list(series.index) == ["b", "a"]
    assert series.dtype == np.float64


def test_a_series_with_a_repeated_label_is_refused():
    with pytest.raises(InputError, match="2 different labels of level, expected 3, all unique"):
        theme.check_series(pd.Series([1.0, 2.0, 3.0], index=["a", "b", "a"]), "level")


def test_an_empty_series_is_refused():
    with pytest.raises(InputError, match="0 values of level"):
        theme.check_series(pd.Series([], dtype=float), "level")


def test_every_public_name_is_there():
    assert all(hasattr(theme, name) for name in theme.__all__)
    assert isinstance(theme.THEME, go.layout.Template)

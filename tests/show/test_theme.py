"""Colours, text from users, and the checks that every figure shares."""

import html
import itertools
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genesplice.errors import InputError
from genesplice.show import theme

# Wong (2011), Nature Methods 8:441, which prints Okabe and Ito's palette.
PUBLISHED = [
    (0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115),
    (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
]  # fmt: skip


def rgb(colour: str) -> tuple[int, ...]:
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


def test_the_palette_is_the_published_one_and_every_group_has_its_symbol():
    assert sorted(map(rgb, theme.COLOURS)) == sorted(PUBLISHED)
    assert len(set(theme.SYMBOLS)) == len(theme.SYMBOLS) == len(theme.COLOURS)
    assert len(set(theme.BASE_COLOURS.values())) == 4
    assert set(theme.BASE_COLOURS.values()) <= set(theme.COLOURS)
    assert min(contrast(one, "#FFFFFF") for one in (theme.INK, theme.MUTED)) >= 4.5  # level AA


def test_colour_scales_are_written_out_and_ordered_by_their_shade():
    for scale in (theme.DIVERGING, theme.SEQUENTIAL):
        positions = [position for position, _ in scale]
        assert (positions[0], positions[-1]) == (0.0, 1.0)
        assert positions == sorted(set(positions))
        assert all(re.fullmatch("#[0-9A-F]{6}", colour) for _, colour in scale)
    shades = [contrast(colour, "#FFFFFF") for _, colour in theme.DIVERGING]
    assert shades[0] > shades[1] > shades[2] < shades[3] < shades[4]
    assert shades[2] < 1.1
    shades = [contrast(colour, "#FFFFFF") for _, colour in theme.SEQUENTIAL]
    assert shades == sorted(shades)


@pytest.mark.parametrize("colour", theme.COLOURS)
def test_text_on_a_colour_is_the_better_of_white_and_ink(colour):
    chosen = {"white": "#FFFFFF", theme.INK: theme.INK}[theme.text_on(colour)]
    other = theme.INK if chosen == "#FFFFFF" else "#FFFFFF"
    assert contrast(chosen, colour) >= max(3.0, contrast(other, colour))


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
    back = escaped
    for entity, letter in zip(
        ("&#37;{", "&#36;", "&#x27;", "&quot;", "&gt;", "&lt;", "&amp;"),
        ("%{", "$", "'", '"', ">", "<", "&"),
        strict=True,
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


def test_lines_are_escaped_after_they_are_broken_and_cut_ones_say_so():
    assert theme.text_lines("one two three four", 9, 1) == ["one two …"]
    assert theme.text_lines("one two", 9, 1) == ["one two"]
    assert theme.text_lines("a <b> c", 5) == ["a &lt;b&gt;", "c"]
    assert theme.text_lines("", 10) == []


def test_texts_of_rows_keep_numbers_and_neutralise_the_rest():
    table = pd.DataFrame({"name": ["<i>", None], "n": [1200, 3], "share": [0.125, np.nan]})
    assert theme.row_texts(table, "{name}: {n:,} {share:.1%}") == [
        "&lt;i&gt;: 1,200 12.5%",
        "None: 3 nan%",
    ]


def test_a_blank_figure_reserves_room_for_each_line_of_its_title():
    figure = theme.blank_figure(321, "A <title>", "and more", barmode="overlay")
    assert figure.layout.template == theme.THEME
    assert figure.layout.height == 321 + figure.layout.margin.t
    assert figure.layout.barmode == "overlay"
    assert re.search("A &lt;title&gt;.*and more", figure.layout.title.text)
    tops = [
        theme.blank_figure(300, title, subtitle).layout.margin.t
        for title, subtitle in (
            ("short", ""), ("short", "sub"), ("a title that is longer than a phone is wide", "sub"),
        )
    ]  # fmt: skip
    assert all(17 <= high - low <= 20 for low, high in itertools.pairwise(tops))
    assert theme.blank_figure(300, "").layout.title.text == ""


def test_figures_do_not_share_their_layout():
    first = theme.blank_figure(300, "t").update_xaxes(title_text="changed")
    first.layout.template.layout.height = 77
    second = theme.blank_figure(300, "t")
    assert second.layout.xaxis.title.text is None
    assert second.layout.template.layout.height == theme.THEME.layout.height == 400


def test_broken_lines_put_a_gap_after_each_stroke():
    path = theme.broken_lines(np.array([1, 2]), np.array([3.5, 4.5]))
    np.testing.assert_array_equal(path, [1, 3.5, np.nan, 2, 4.5, np.nan])
    assert path.dtype == np.float64
    assert theme.broken_lines(np.zeros(0), np.zeros(0)).shape == (0,)


def test_labels_of_genes_with_and_without_names():
    names = pd.Series({"b1": "lacZ", "b2": "b2", "b3": None, "b4": "", "b9": "unused"})
    ids = pd.Index(["b3", "b1", "b2", "b4", "b5"])
    assert theme.gene_labels(ids, names) == ("b3", "lacZ (b1)", "b2", "b4", "b5")
    assert theme.gene_labels(ids) == tuple(ids)
    with pytest.raises(InputError, match="2 names of 1 different gene_id"):
        theme.gene_labels(ids, pd.Series(["lacZ", "lacY"], index=["b1", "b1"]))


def test_intervals_become_distances_and_missing_ones_zero():
    table = pd.DataFrame({"value": [0.5, 0.2], "ci_low": [0.4, None], "ci_high": [0.7, None]})
    value, down, up = theme.whiskers(table)
    np.testing.assert_allclose([value, down, up], [[0.5, 0.2], [0.1, 0.0], [0.2, 0.0]])
    alone = table.iloc[1:].astype(object)
    assert [float(part[0]) for part in theme.whiskers(alone)] == [0.2, 0.0, 0.0]


GOOD = pd.DataFrame({"a": [1, 2], "b": [3.0, 4.0]})


@pytest.mark.parametrize(
    ("table", "match"),
    [
        (GOOD.drop(columns="b"), "genes with columns a, expected also b"),
        (pd.DataFrame(), "genes with columns none, expected also a, b"),
        (GOOD.iloc[:0], "found 0 rows in genes, expected at least 1"),
        (GOOD.assign(a=1), "1 of 2 rows of genes repeat a a, expected 0"),
        (GOOD.assign(b=[np.nan, 1]), "1 of 2 b of genes not finite"),
        (GOOD.assign(b=[np.inf, -np.inf]), "2 of 2 b of genes not finite"),
    ],
)
def test_a_table_that_cannot_be_drawn_is_refused(table, match):
    with pytest.raises(InputError, match=match):
        theme.require_table(table, "genes", ["a", "b"], unique=["a"], finite=["b"])


def test_a_good_table_comes_back_with_floats():
    table = theme.require_table(GOOD.assign(b=[3, 4]), "genes", ["a"], finite=["b"])
    assert table["b"].dtype == np.float64
    series = theme.require_series(pd.Series([2, 1], index=["b", "a"]), "level")
    assert list(series.index) == ["b", "a"]
    assert series.dtype == np.float64
    with pytest.raises(InputError, match="1 of 2 rows of level repeat a label"):
        theme.require_series(pd.Series([2, 1], index=["b", "b"]), "level")


def test_figures_that_others_make_have_the_look_as_well():
    table = pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]})
    assert table.plot.scatter(x="x", y="y", backend="plotly").layout.template == theme.THEME

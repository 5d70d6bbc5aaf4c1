"""The sequence logo: letters where and as high as their attributions, motifs side by side."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genesplice.errors import InputError
from genesplice.show.figures import attribution_logo
from genesplice.show.logo import LETTERS, MAX_BASES, label_lanes
from genesplice.show.theme import BASE_COLOURS, NARROW_PX, OKABE_ITO

SEQUENCE = "ACGTNACGTT"
TOKENS = np.array(["ACGTN".index(base) for base in SEQUENCE], dtype=np.uint8)
HEIGHTS = np.array([0.5, -0.25, 1.0, 0.125, 9.0, -2.0, 0.75, 0.0, 0.25, -0.5])


@pytest.fixture
def attributions() -> np.ndarray:
    """The planted heights at the base that is there, nonsense at the others."""
    values = np.full((len(SEQUENCE), 4), 77.0)
    for row, (base, height) in enumerate(zip(SEQUENCE, HEIGHTS, strict=True)):
        if base != "N":
            values[row, "ACGT".index(base)] = height
    return values


def polygons(trace) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split a filled trace at its gaps."""
    gaps = np.flatnonzero(np.isnan(trace.x))
    pieces, first = [], 0
    for gap in gaps:
        pieces.append((trace.x[first:gap], trace.y[first:gap]))
        first = gap + 1
    assert first == len(trace.x)
    return pieces


def letters(figure) -> dict[float, tuple[str, float, float]]:
    """Base, lowest and highest y of each letter, by the middle of its x."""
    found = {}
    for trace in figure.data[:4]:
        for x, y in polygons(trace):
            found[round((x.min() + x.max()) / 2, 6)] = (trace.name, y.min(), y.max())
    return found


def named(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def texts(figure) -> list[str]:
    return [text for trace in figure.data if trace.mode == "text" for text in trace.text]


# ---- the outlines


@pytest.mark.parametrize("base", "ACGT")
def test_letters_fill_their_box_from_floor_to_top(base):
    outline = LETTERS[base]
    assert outline[:, 1].min() == 0.0
    assert outline[:, 1].max() == 1.0
    assert outline[:, 0].min() == 0.0
    assert outline[:, 0].max() == 1.0


def shoelace(outline: np.ndarray) -> float:
    x, y = outline.T
    return abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2)


@pytest.mark.parametrize("base", "ACGT")
def test_letters_have_ink_and_holes(base):
    assert 0.2 < shoelace(LETTERS[base]) < 0.6


def covers(outline: np.ndarray, x: float, y: float) -> bool:
    """Even-odd rule by a ray to the right."""
    inside = False
    for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            inside = not inside
    return inside


def test_letters_can_be_told_apart_by_where_their_ink_is():
    middle_left, middle_right, centre = (0.08, 0.5), (0.93, 0.45), (0.5, 0.5)
    below, bar = (0.5, 0.1), (0.7, 0.45)
    ink = {
        base: tuple(
            covers(LETTERS[base], *at) for at in (middle_left, middle_right, centre, below, bar)
        )
        for base in "ACGT"
    }
    assert ink["C"] == (True, False, False, True, False)  # open to the right
    assert ink["G"] == (True, True, False, True, True)  # with its bar
    assert ink["T"] == (False, False, True, True, False)  # a stem
    assert covers(LETTERS["A"], 0.5, 0.3)  # crossbar
    assert not covers(LETTERS["A"], 0.5, 0.5)  # hole
    assert not covers(LETTERS["A"], 0.5, 0.1)  # between the legs
    assert covers(LETTERS["A"], 0.1, 0.05)  # left foot


# ---- letters


def test_each_letter_is_as_high_as_its_attribution_and_where_its_base_is(attributions):
    found = letters(attribution_logo(attributions, TOKENS, -5))
    expected = {}
    for i, (base, height) in enumerate(zip(SEQUENCE, HEIGHTS, strict=True)):
        if base != "N" and height != 0.0:
            expected[float(i - 5)] = (base, min(height, 0.0), max(height, 0.0))
    assert found == expected


def test_negative_attributions_hang_upside_down(attributions):
    figure = attribution_logo(attributions, TOKENS)
    # The A at 5 has -2: its apex, the widest gap of its feet, points down.
    x, y = polygons(figure.data[0])[1]
    assert y.max() == 0.0
    assert y.min() == -2.0
    feet = x[y == 0.0]
    apex = x[y == -2.0]
    assert np.ptp(feet) > 0.8
    assert np.ptp(apex) < 0.3


def test_letters_stay_within_their_own_base(attributions):
    for trace in attribution_logo(attributions, TOKENS, 100).data[:4]:
        for x, _ in polygons(trace):
            middle = round((x.min() + x.max()) / 2)
            assert middle - 0.5 < x.min() < x.max() < middle + 0.5


def test_the_four_letter_traces_come_first_and_filled_in_their_colours(attributions):
    traces = attribution_logo(attributions, TOKENS).data[:4]
    assert [trace.name for trace in traces] == list("ACGT")
    assert [trace.fillcolor for trace in traces] == [BASE_COLOURS[base] for base in "ACGT"]
    assert {trace.fill for trace in traces} == {"toself"}


def test_a_base_that_does_not_occur_still_has_its_trace():
    figure = attribution_logo(np.ones((3, 4)), np.zeros(3, dtype=np.uint8))
    assert [trace.name for trace in figure.data[:4]] == list("ACGT")
    assert [len(polygons(trace)) for trace in figure.data[:4]] == [3, 0, 0, 0]


def test_n_leaves_its_place_empty(attributions):
    assert 4.0 not in letters(attribution_logo(attributions, TOKENS))
    figure = attribution_logo(attributions, np.full(len(TOKENS), 4, dtype=np.uint8))
    assert letters(figure) == {}


def test_hover_has_every_position_with_base_and_value(attributions):
    hover = attribution_logo(attributions, TOKENS, -5).data[4]
    np.testing.assert_array_equal(hover.x, np.arange(-5.0, 5.0))
    np.testing.assert_array_equal(hover.y, np.where(TOKENS == 4, 0.0, HEIGHTS))
    assert "".join(hover.text) == SEQUENCE
    assert "log₂(TPM+1)" in hover.hovertemplate


def test_positions_on_a_chromosome_keep_every_base(attributions):
    start = 248_956_400
    figure = attribution_logo(attributions, TOKENS, start, coordinates="genome", contig="chr1")
    assert {trace.x.dtype for trace in figure.data} == {np.dtype(np.float64)}
    assert min(letters(figure)) == start
    np.testing.assert_array_equal(np.diff(figure.data[4].x), 1.0)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(-1000, 10**9), st.integers(0, 2**32 - 1))
def test_any_window_is_drawn_whole(length, start, seed):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 5, length).astype(np.uint8)
    values = rng.normal(size=(length, 4)).astype(np.float32)
    found = letters(attribution_logo(values, tokens, start, coordinates="genome"))
    assert set(found) == {float(start + i) for i in range(length) if tokens[i] < 4}
    for i in range(length):
        if tokens[i] < 4:
            base, low, high = found[float(start + i)]
            assert base == "ACGT"[tokens[i]]
            assert low == min(values[i, tokens[i]], 0)
            assert high == max(values[i, tokens[i]], 0)


# ---- bars


def test_long_windows_are_bars_by_sign():
    rng = np.random.default_rng(0)
    values, tokens = rng.normal(size=(50, 4)), rng.integers(0, 4, 50)
    figure = attribution_logo(values, tokens, max_letters=49)
    own = values[np.arange(50), tokens]
    up, down = figure.data[:2]
    assert (up.name, down.name) == ("raises the prediction", "lowers it")
    assert (up.fillcolor, down.fillcolor) == (OKABE_ITO[0], OKABE_ITO[3])
    for trace, sign in ((up, 1), (down, -1)):
        places = np.flatnonzero(sign * own > 0)
        boxes = polygons(trace)
        assert [len(x) for x, _ in boxes] == [4] * len(places)
        np.testing.assert_allclose([x.mean() for x, _ in boxes], places)
        ends = [y.max() if sign > 0 else y.min() for _, y in boxes]
        np.testing.assert_allclose(ends, own[places], rtol=1e-6)


def test_letters_until_exactly_the_limit():
    values, tokens = np.ones((50, 4)), np.zeros(50, dtype=np.uint8)
    assert attribution_logo(values, tokens, max_letters=50).data[0].name == "A"


def test_five_hundred_bases_stay_small():
    rng = np.random.default_rng(0)
    figure = attribution_logo(rng.normal(size=(500, 4)), rng.integers(0, 4, 500))
    assert len(figure.to_json()) < 350_000


def test_the_longest_window_stays_small():
    rng = np.random.default_rng(0)
    n = MAX_BASES
    figure = attribution_logo(rng.normal(size=(n, 4)), rng.integers(0, 4, n))
    assert len(figure.to_json()) < 2_600_000
    with pytest.raises(InputError, match="found 20,001 bases of attributions, expected at most 20"):
        attribution_logo(np.ones((n + 1, 4)), np.zeros(n + 1, dtype=np.uint8))


# ---- axes, gene, TSS


def test_the_axis_says_what_it_counts_from(attributions):
    def title(**settings):
        return attribution_logo(attributions, TOKENS, **settings).layout.xaxis.title.text

    assert title() == "position from the TSS (bp, 0-based)"
    assert title(coordinates="genome", contig="chrIon") == "position on chrIon (bp, 0-based)"
    assert title(coordinates="genome") == "position (bp, 0-based)"
    assert title(coordinates="genome", contig="<c>") == "position on &lt;c&gt; (bp, 0-based)"


def test_the_axis_shows_exactly_the_window(attributions):
    assert list(attribution_logo(attributions, TOKENS, -5).layout.xaxis.range) == [-5.5, 4.5]


def test_the_unit_is_on_axis_and_hover(attributions):
    figure = attribution_logo(attributions, TOKENS, unit="bits")
    assert figure.layout.yaxis.title.text == "attribution, bits"
    assert "bits" in figure.data[4].hovertemplate


@pytest.mark.parametrize(("strand", "side"), [("+", 1), ("-", -1)])
def test_the_tss_is_an_arrow_in_the_direction_of_the_gene(attributions, strand, side):
    figure = attribution_logo(attributions, TOKENS, -5, strand=strand)
    arrow = next(t for t in figure.data if t.hovertext == "TSS at 0 bp")
    assert list(arrow.x[:2]) == [0.0, 0.0]
    assert np.sign(arrow.x[2] - arrow.x[0]) == side
    assert arrow.marker.symbol == ("triangle-right" if side > 0 else "triangle-left")
    assert [s.x0 for s in figure.layout.shapes if s.x0 == s.x1] == [0.0]


def test_a_tss_outside_the_window_is_not_drawn(attributions):
    figure = attribution_logo(attributions, TOKENS, 50)
    assert all("TSS" not in str(trace.hovertext) for trace in figure.data)


def test_a_genome_window_has_a_tss_only_where_one_is_given(attributions):
    def arrows(**settings):
        figure = attribution_logo(attributions, TOKENS, 50, coordinates="genome", **settings)
        return [t.hovertext for t in figure.data if "TSS" in str(t.hovertext)]

    assert arrows() == []
    assert arrows(tss=52) == ["TSS at 52 bp"]


def test_the_gene_body_is_clipped_to_the_window_and_named(attributions):
    figure = attribution_logo(attributions, TOKENS, -5, gene="lacZ", gene_body=(0, 3075))
    box = named(figure, "lacZ: 0-3,075 bp, + strand")
    assert (box.x.min(), box.x.max()) == (-0.5, 4.5)
    assert "<i>lacZ</i>" in texts(figure)


def test_a_gene_body_elsewhere_is_not_drawn(attributions):
    figure = attribution_logo(attributions, TOKENS, -5, gene="lacZ", gene_body=(50, 90))
    assert "<i>lacZ</i>" not in texts(figure)


def test_nothing_below_the_logo_gives_the_logo_all_the_room(attributions):
    figure = attribution_logo(attributions, TOKENS, coordinates="genome")
    assert figure.layout.yaxis.domain == (0.0, 1.0)
    assert figure.layout.xaxis.anchor == "y"


# ---- motifs


def test_motif_boxes_cover_their_bases(attributions):
    figure = attribution_logo(attributions, TOKENS, -5, motifs=[(-3, 1, "Crp", 8.5)])
    x, _ = polygons(named(figure, "motif"))[0]
    assert (x.min(), x.max()) == (-3.5, 0.5)  # bases -3, -2, -1 and 0
    label = next(t for t in figure.data if t.mode == "text" and "Crp" in t.text)
    assert label.hovertext[0] == "<b>Crp</b><br>-3-1 bp<br>score 8.5"
    assert label.x[0] == -1.5


def test_motifs_are_clipped_to_the_window_or_left_out(attributions):
    hits = [(-20, -4, "left", 1.0), (4, 30, "right", 1.0), (60, 70, "far", 1.0)]
    figure = attribution_logo(attributions, TOKENS, -5, motifs=hits)
    spans = [(x.min(), x.max()) for x, _ in polygons(named(figure, "motif"))]
    assert sorted(spans) == [(-5.5, -4.5), (3.5, 4.5)]
    assert "far" not in texts(figure)


def test_each_lane_adds_its_pixels(attributions):
    one = attribution_logo(attributions, TOKENS, motifs=[(0, 9, "a", 1.0)])
    two = attribution_logo(attributions, TOKENS, motifs=[(0, 9, "a", 1.0), (0, 9, "b", 2.0)])
    assert two.layout.height - one.layout.height == 34
    assert two.layout.yaxis2.range[0] == one.layout.yaxis2.range[0] - 1


def test_only_the_best_hits_are_drawn_and_the_subtitle_says_so(attributions):
    hits = [(i, i + 1, f"m{i}", float(i)) for i in range(10)]
    figure = attribution_logo(attributions, TOKENS, motifs=hits, max_motifs=3)
    assert [text for text in texts(figure) if text.startswith("m")] == ["m9", "m8", "m7"]
    assert "3 of 10 motif hits, the highest scores" in figure.layout.title.text
    whole = attribution_logo(attributions, TOKENS, motifs=hits)
    assert "motif" not in whole.layout.title.text


def test_the_order_of_hits_has_no_influence(attributions):
    hits = [(0, 4, "a", 1.0), (2, 6, "b", 1.0), (1, 3, "c", 2.0)]
    first = attribution_logo(attributions, TOKENS, motifs=hits)
    assert attribution_logo(attributions, TOKENS, motifs=hits[::-1]).to_json() == first.to_json()


def test_motif_and_gene_names_are_shown_not_interpreted(attributions):
    hits = [(0, 4, "<b>&", 1.0)]
    figure = attribution_logo(attributions, TOKENS, motifs=hits, gene="<u>", gene_body=(0, 4))
    assert "&lt;b&gt;&amp;" in texts(figure)
    assert "<i>&lt;u&gt;</i>" in texts(figure)


def test_long_motif_names_are_cut_in_the_lane_and_whole_on_hover(attributions):
    name = "a" * 30
    figure = attribution_logo(attributions, TOKENS, motifs=[(0, 4, name, 1.0)])
    label = next(t for t in figure.data if t.mode == "text" and t.hovertext is not None)
    assert label.text[0] == "a" * 23 + "…"
    assert name in label.hovertext[0]


# ---- lanes


def test_boxes_that_do_not_meet_share_a_lane():
    lanes, middles = label_lanes([(0.0, 10.0), (80.0, 90.0)], ["a", "b"], (0.0, 100.0))
    assert lanes == [0, 0]
    assert middles == [5, 85]


def test_boxes_that_overlap_take_two_lanes():
    assert label_lanes([(0.0, 50.0), (40.0, 90.0)], ["a", "b"], (0.0, 100.0))[0] == [0, 1]


def test_long_labels_push_their_neighbours_into_another_lane():
    assert label_lanes([(10.0, 12.0), (20.0, 22.0)], ["a", "b"], (0.0, 100.0))[0] == [0, 0]
    assert label_lanes([(10.0, 12.0), (20.0, 22.0)], ["a" * 15, "b"], (0.0, 100.0))[0] == [0, 1]


def test_labels_at_the_border_are_pushed_inside():
    _, (left, right) = label_lanes([(0.0, 1.0), (99.0, 100.0)], ["label", "label"], (0.0, 100.0))
    half = 5 * 6.6 / 2 * 100 / NARROW_PX
    assert left - half >= 0
    assert right + half <= 100


def test_no_boxes_need_no_lanes():
    assert label_lanes([], [], (0.0, 100.0)) == ([], [])


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 950), st.integers(1, 50), st.text("abcdef", max_size=20)),
        max_size=25,
    )
)
def test_in_no_lane_do_two_labels_or_boxes_meet(boxes):
    spans = [(float(start), float(start + length)) for start, length, _ in boxes]
    names = [name for _, _, name in boxes]
    lanes, middles = label_lanes(spans, names, (0.0, 1000.0))
    per_px = 1000.0 / NARROW_PX
    for i, j in combinations(range(len(boxes)), 2):
        if lanes[i] != lanes[j]:
            continue
        for first, second in ((spans[i], spans[j]), *_label_spans(i, j, names, middles, per_px)):
            assert first[1] <= second[0] + 1e-9 or second[1] <= first[0] + 1e-9


def _label_spans(i, j, names, middles, per_px):
    """What two labels cover at 6.6 pixels a letter."""
    halves = [len(names[k]) * 6.6 / 2 * per_px for k in (i, j)]
    spans = [(middles[k] - h, middles[k] + h) for k, h in zip((i, j), halves, strict=True)]
    return [(spans[0], spans[1])]


# ---- bad input


def test_no_bases_are_refused():
    with pytest.raises(InputError, match="found 0 values of attributions"):
        attribution_logo(np.zeros((0, 4)), np.zeros(0, dtype=np.uint8))


def test_tokens_of_another_length_are_refused(attributions):
    with pytest.raises(InputError, match="found 9 tokens, expected 10 as in attributions"):
        attribution_logo(attributions, TOKENS[:-1])


@pytest.mark.parametrize(("bad", "what"), [(5, "tokens from 0 to 5"), (-1, "tokens from -1 to 4")])
def test_tokens_that_are_no_bases_are_refused(attributions, bad, what):
    tokens = TOKENS.astype(np.int64)
    tokens[-1] = bad
    with pytest.raises(InputError, match=what):
        attribution_logo(attributions, tokens)


def test_attributions_that_are_not_numbers_are_refused(attributions):
    attributions[0, 0] = np.nan
    with pytest.raises(InputError, match="1 of 40 values of attributions not finite"):
        attribution_logo(attributions, TOKENS)


def test_intervals_without_a_base_are_refused(attributions):
    with pytest.raises(InputError, match="motif 'Crp' from 5 to 5"):
        attribution_logo(attributions, TOKENS, motifs=[(5, 5, "Crp", 1.0)])
    with pytest.raises(InputError, match="gene body from 5 to 2"):
        attribution_logo(attributions, TOKENS, gene_body=(5, 2))
    with pytest.raises(InputError, match="1 of 1 values of motif score not finite"):
        attribution_logo(attributions, TOKENS, motifs=[(0, 5, "Crp", float("nan"))])

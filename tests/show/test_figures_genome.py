"""Figures along the genome: every bar, letter and motif where its table says."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_explorers import conservation
from tiny_figures import polygons, row_labels, trace

from genesplice.errors import InputError
from genesplice.show.figures_genome import expression_map, fold_map, relatives_map
from genesplice.show.logo import LETTERS, MAX_BASES, attribution_logo, site_lanes
from genesplice.show.theme import BASE_COLOURS, INK

GENES = pd.DataFrame({"gene_id": ["g1", "g2", "g3", "g4"], "name": ["aaa", "bbb", "ccc", "<i>&"]})
GENES = GENES.assign(contig="chr", start=[100, 400, 900, 1500], end=[300, 450, 1400, 2000])
GENES["strand"] = ["+", "-", "+", "-"]
LEVEL = pd.Series({"g1": 3.0, "g2": 7.5, "g3": 0.25, "g4": 12.0})
FOLD = pd.Series({"g1": 0, "g2": 1, "g3": 0, "g4": 2})


def bars(figure):
    return [one for one in figure.data if one.type in ("bar", "barpolar")]


def many_genes(n: int, seed: int) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(seed)
    start = np.sort(rng.choice(4_600_000, n, replace=False))
    genes = pd.DataFrame({"gene_id": [f"b{i:04d}" for i in range(n)], "contig": "chr"})
    genes = genes.assign(name="x", start=start, end=start + rng.integers(60, 3000, n))
    genes["strand"] = rng.choice(["+", "-"], n)
    return genes, pd.Series(rng.uniform(0, 14, n), index=genes["gene_id"])


# ---- expression_map


def test_each_bar_is_its_gene_and_its_level():
    drawn = {}
    for bar in bars(figure := expression_map(GENES, LEVEL, FOLD)):
        assert bar.offset == 0
        for x, width, y, text in zip(bar.x, bar.width, bar.y, bar.hovertext, strict=True):
            drawn[(x, x + width)] = (bar.name, y, text)
    assert drawn == {
        (100.0, 300.0): ("fold 0", 3.0, "<b>aaa</b> (g1)<br>chr:100-300 bp, +<br>3.00"),
        (400.0, 450.0): ("fold 1", -7.5, "<b>bbb</b> (g2)<br>chr:400-450 bp, -<br>7.50"),
        (900.0, 1400.0): ("fold 0", 0.25, "<b>ccc</b> (g3)<br>chr:900-1,400 bp, +<br>0.25"),
        (1500.0, 2000.0): (
            "fold 2", -12.0, "<b>&lt;i&gt;&amp;</b> (g4)<br>chr:1,500-2,000 bp, -<br>12.00"
        ),
    }  # fmt: skip
    assert figure.layout.xaxis.title.text == "position on chr (bp, 0-based)"
    assert figure.layout.barmode == "overlay"
    strands = {bar.name: list(bar.x) for bar in bars(expression_map(GENES, LEVEL))}
    assert strands == {"strand +": [100.0, 900.0], "strand -": [400.0, 1500.0]}


def test_a_spliced_gene_is_its_coding_exons_with_lines_between_them():
    contig = ["chr1", "chr1", "chr2", "chr2"]
    exons = [(110, 150, 200, 300), np.array([430, 450, 400, 420]), (900, 1400), ()]
    figure = expression_map(GENES.assign(contig=contig, exons=exons), LEVEL)
    drawn = [
        (x, x + width, y, text.split("(")[1][:2])
        for bar in bars(figure)
        for x, width, y, text in zip(bar.x, bar.width, bar.y, bar.hovertext, strict=True)
    ]
    assert sorted(drawn) == [
        (110, 150, 3.0, "g1"), (200, 300, 3.0, "g1"), (400, 420, -7.5, "g2"),
        (430, 450, -7.5, "g2"), (1350, 1850, 0.25, "g3"), (1950, 2450, -12.0, "g4"),
    ]  # fmt: skip
    thin = trace(figure, "introns")
    strokes = [(*thin.x[i : i + 2], *thin.y[i : i + 2]) for i in range(0, len(thin.x), 3)]
    assert strokes == [
        (100, 110, 1.5, 1.5), (150, 200, 1.5, 1.5), (420, 430, -3.75, -3.75)
    ]  # fmt: skip
    assert np.isnan(thin.x[2::3]).all()
    whole = expression_map(GENES.assign(contig=contig), LEVEL)
    assert trace(whole, "mean, + strand") == trace(figure, "mean, + strand")
    assert "introns" not in [one.name for one in whole.data]
    assert "not translated" in figure.layout.title.text
    assert "not translated" not in whole.layout.title.text
    # An exon on another contig is as far from its gene's start.
    moved = expression_map(GENES.assign(contig=["chr2", *"aaa"], exons=exons), LEVEL)
    assert sorted(x for x in bars(moved)[0].x if x > 2000) == [2110.0, 2200.0]


def test_genes_without_a_level_are_counted_and_folds_may_know_more():
    figure = expression_map(GENES, LEVEL.drop("g3"))
    assert sum(len(bar.x) for bar in bars(figure)) == 3
    assert "3 of 4 genes have a level" in figure.layout.title.text
    more = pd.concat([FOLD, pd.Series({"zzz": 4})])
    assert expression_map(GENES, LEVEL, more) == expression_map(GENES, LEVEL, FOLD)


def test_means_over_windows_equal_a_loop():
    genes, level = many_genes(300, seed=3)
    figure = expression_map(genes, level, n_windows=7)
    end = float(genes["end"].max())
    for strand, sign in (("+", 1), ("-", -1)):
        expected = {}
        for i in range(7):
            low, high = end * i / 7, end * (i + 1) / 7
            inside = [
                level[row.gene_id]
                for row in genes.itertuples()
                if row.strand == strand and low <= row.start < high
            ]
            if inside:
                expected[(low + high) / 2] = sign * sum(inside) / len(inside)
        drawn = trace(figure, f"mean, {strand} strand")
        np.testing.assert_allclose(drawn.x, list(expected))
        np.testing.assert_allclose(drawn.y, list(expected.values()), rtol=1e-6)
    assert all(one.type == "bar" for one in expression_map(genes, level, n_windows=0).data)


def test_contigs_lie_end_to_end_in_natural_order():
    genes = GENES.assign(contig=["chr10", "chr2", "chr2", "chrX"], strand="+")
    genes = genes.assign(start=[10, 0, 50, 5], end=[20, 40, 100, 8])
    figure = expression_map(genes, LEVEL)
    where = [text.split("(")[1][:2] for text in figure.data[0].hovertext]
    starts = dict(zip(where, figure.data[0].x, strict=True))
    assert starts == {"g2": 0.0, "g3": 50.0, "g1": 110.0, "g4": 125.0}
    axis = figure.layout.xaxis
    assert (axis.ticktext, axis.tickvals) == (("chr2", "chr10", "chrX"), (50.0, 110.0, 124.0))
    assert list(axis.range) == [0.0, 128.0]
    assert [shape.x0 for shape in figure.layout.shapes] == [100.0, 120.0]
    assert "chr10:10-20 bp" in "".join(figure.data[0].hovertext)  # within the contig, not offset


@pytest.mark.parametrize("top", [0.0, 0.3, 9.99, 13.7, 250.0])
def test_the_level_axis_counts_upwards_on_both_strands(top):
    axis = expression_map(GENES, LEVEL * 0 + top).layout.yaxis
    assert [abs(v) for v in axis.tickvals] == [float(text) for text in axis.ticktext]
    assert list(axis.tickvals) == sorted(axis.tickvals)
    assert 1 <= len(axis.tickvals) <= 11
    assert 0.0 in axis.tickvals


def test_genes_at_one_locus_keep_one_order_and_many_stay_small():
    same = GENES.assign(start=100, end=200, strand="+")
    first = expression_map(same, LEVEL)
    assert expression_map(same[::-1], LEVEL[::-1]) == first
    assert list(first.data[0].y) == [3.0, 7.5, 0.25, 12.0]
    assert len(expression_map(*many_genes(4000, seed=0)).to_json()) < 700_000


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"genes": GENES.drop(columns="strand")}, "expected also strand"),
        ({"genes": GENES.iloc[:0]}, "0 rows in genes"),
        ({"genes": pd.concat([GENES, GENES.iloc[:1]])}, "1 of 5 rows of genes repeat a gene_id"),
        ({"level": LEVEL.iloc[:0]}, "0 rows in level"),
        ({"level": LEVEL - 1}, "found 1 negative values of level"),
        ({"level": LEVEL.replace(3.0, np.nan)}, "1 of 4 values of level not finite"),
        ({"level": pd.concat([LEVEL, LEVEL.iloc[:1]])}, "1 of 5 rows of level repeat a label"),
        (
            {"level": pd.concat([LEVEL, pd.Series({"x": 1.0})])},
            "1 of 5 genes of level not in genes",
        ),
        ({"fold": FOLD.drop("g2")}, "1 of 4 genes of level not in fold"),
        ({"fold": FOLD.astype(float).replace(2.0, np.nan)}, "1 of 4 genes of level not in fold"),
        ({"fold": pd.concat([FOLD, FOLD.iloc[:1]])}, "fold by 5 genes, expected .* each once"),
        ({"n_windows": -1}, "found -1 windows"),
    ],
)
def test_genes_that_cannot_be_drawn_are_refused(change, match):
    with pytest.raises(InputError, match=match):
        expression_map(**({"genes": GENES, "level": LEVEL, "fold": FOLD} | change))


# ---- relatives_map


def test_a_window_has_the_colour_of_its_identity_where_enough_is_aligned():
    windows = pd.DataFrame(
        {
            "name": ["near", "near", "<b>far", "<b>far"],
            "start": [0, 100, 0, 100],
            "aligned": [1.0, 0.05, 0.5, 0.2],
            "identity": [0.9, 0.8, 0.7, np.nan],
        }
    )
    (one,) = relatives_map(windows).data
    assert row_labels(relatives_map(windows)) == {0.0: "near", 1.0: "&lt;b&gt;far"}
    np.testing.assert_array_equal(one.z, [[0.9, np.nan], [0.7, np.nan]])
    np.testing.assert_array_equal(one.customdata, [[1.0, 0.05], [0.5, 0.2]])
    assert list(one.x) == [0.0, 100.0]


# ---- fold_map

BLOCKS = pd.DataFrame({"block": [0, 1, 2, 3], "contig": "chr", "start": [0, 100, 250, 300]})
BLOCKS = BLOCKS.assign(end=[100, 250, 300, 400], fold=[1, 0, 1, 2])
SPANS = {(100, 250): "fold 0", (0, 100): "fold 1", (250, 300): "fold 1", (300, 400): "fold 2"}


def test_bars_lie_where_the_blocks_are_and_say_their_fold():
    figure = fold_map(BLOCKS)
    drawn = {}
    for bar in bars(figure):
        assert set(bar.text) == {bar.name.removeprefix("fold ")}
        for base, length, y in zip(bar.base, bar.x, bar.y, strict=True):
            assert row_labels(figure)[y] == "chr"
            drawn[(base, base + length)] = bar.name
    assert drawn == SPANS
    colours = {bar.name: bar.insidetextfont.color for bar in bars(figure)}
    assert (colours["fold 0"], colours["fold 1"]) == ("white", INK)  # on blue, on orange
    assert bars(figure)[0].hovertext[0] == "block 1, fold 0<br>chr:100-250 bp"
    assert "4 blocks, 3 folds, 0.00 Mb" in figure.layout.title.text


def test_a_circular_genome_is_a_ring_with_the_same_angles():
    figure = fold_map(BLOCKS, is_circular=True)
    arcs, labels = {}, {}
    for one in figure.data:
        if one.type == "barpolar":
            for middle, width in zip(one.theta, one.width, strict=True):
                arcs[((middle - width / 2) / 0.9, (middle + width / 2) / 0.9)] = one.name
        else:
            labels |= dict(zip(one.theta, one.text, strict=True))
    assert arcs == SPANS
    assert labels == {45.0: "<b>1</b>", 157.5: "<b>0</b>", 247.5: "<b>1</b>", 315.0: "<b>2</b>"}
    axis = figure.layout.polar.angularaxis
    assert (axis.direction, axis.rotation) == ("clockwise", 90)


def test_a_block_across_the_origin_goes_round():
    blocks = BLOCKS.iloc[:2].assign(start=[40, 220], end=[220, 400])
    one = trace(fold_map(blocks, is_circular=True), "fold 0")
    # The contig has 360 bp: 220-400 covers 220-360 and 0-40, half the ring.
    assert (list(one.width), list(one.theta)) == ([180.0], [310.0])
    assert "220-400 bp" in one.hovertext[0]


def test_a_crowded_ring_leaves_the_text_to_the_hover():
    start = np.arange(81) * 10
    blocks = pd.DataFrame({"block": range(81), "contig": "c", "start": start, "end": start + 10})
    figure = fold_map(blocks.assign(fold=start % 3), is_circular=True)
    assert {one.type for one in figure.data} == {"barpolar"}
    assert sum(one.width.sum() for one in figure.data) == pytest.approx(360)


@pytest.mark.parametrize("length", [1_000, 120_000, 4_641_652, 150_000_000])
def test_the_ring_has_a_readable_number_of_ticks(length):
    blocks = BLOCKS.iloc[:1].assign(end=length)
    axis = fold_map(blocks, is_circular=True).layout.polar.angularaxis
    assert 4 <= len(axis.tickvals) <= 11
    for angle, text in zip(axis.tickvals, axis.ticktext, strict=True):
        assert angle / 360 * length == pytest.approx(float(text) * 1e6)


def test_several_contigs_are_rows_in_natural_order_even_when_circular():
    long = "scaffold_" + "9" * 30
    blocks = BLOCKS.assign(contig=["chr10", "chr2", "chrX", long])
    figure = fold_map(blocks, is_circular=True)
    assert list(row_labels(figure).values()) == ["chr2", "chr10", "chrX", "scaffold_9999999999…"]
    for bar in bars(figure):
        for y, text in zip(bar.y, bar.hovertext, strict=True):
            assert row_labels(figure)[y].rstrip("…") in text
    assert any(long in text for bar in bars(figure) for text in bar.hovertext)


@pytest.mark.parametrize(
    ("blocks", "match"),
    [
        (BLOCKS.iloc[:0], "0 rows in blocks"),
        (BLOCKS.drop(columns="fold"), "also fold"),
        (BLOCKS.assign(end=[100, 100, 250, 400]), "found 2 of 4 blocks without a base"),
        (BLOCKS.assign(fold=[1, None, 0, 2]), "found 1 of 4 blocks without a fold, expected 0"),
    ],
)
def test_blocks_that_cannot_be_drawn_are_refused(blocks, match):
    with pytest.raises(InputError, match=match):
        fold_map(blocks)


# ---- attribution_logo

SEQUENCE = "ACGTNACGTT"
TOKENS = np.array(["ACGTN".index(base) for base in SEQUENCE], dtype=np.uint8)
HEIGHTS = np.array([0.5, -0.25, 1.0, 0.125, 9.0, -2.0, 0.75, 0.0, 0.25, -0.5])
# The planted heights at the base that is there, nonsense at the others.
ATTRIBUTIONS = np.where(np.eye(5)[TOKENS][:, :4] == 1, HEIGHTS[:, None], 77.0)


def logo(**options):
    given = {"attributions": ATTRIBUTIONS, "tokens": TOKENS} | options
    return attribution_logo(given.pop("attributions"), given.pop("tokens"), **given)


def letters(figure) -> dict[float, tuple[str, float, float]]:
    """Base, lowest and highest y of each letter, by the middle of its x."""
    found = {}
    for base in "ACGT":
        one = trace(figure, base)
        assert (one.fill, one.fillcolor) == ("toself", BASE_COLOURS[base])
        for x, y in polygons(one):
            middle = round((x.min() + x.max()) / 2, 6)
            assert middle - 0.5 < x.min() < x.max() < middle + 0.5
            found[middle] = (base, y.min(), y.max())
    return found


def texts(figure) -> list[str]:
    return [text for one in figure.data if one.mode == "text" for text in one.text]


def covers(outline: np.ndarray, x: float, y: float) -> bool:
    """Even-odd rule by a ray to the right."""
    inside = False
    for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            inside = not inside
    return inside


def test_letters_fill_their_square_and_can_be_told_apart_by_their_ink():
    for outline in LETTERS.values():
        np.testing.assert_array_equal([outline.min(axis=0), outline.max(axis=0)], [[0, 0], [1, 1]])
    points = [(0.08, 0.5), (0.93, 0.45), (0.5, 0.5), (0.5, 0.1), (0.7, 0.45)]
    ink = {base: [covers(LETTERS[base], *at) for at in points] for base in "CGT"}
    assert ink["C"] == [True, False, False, True, False]  # open to the right
    assert ink["G"] == [True, True, False, True, True]  # with its bar
    assert ink["T"] == [False, False, True, True, False]  # a stem
    bar_hole_gap_foot = [(0.5, 0.3), (0.5, 0.5), (0.5, 0.1), (0.1, 0.05)]
    assert [covers(LETTERS["A"], *at) for at in bar_hole_gap_foot] == [True, False, False, True]


def test_each_letter_is_as_high_as_its_attribution_and_where_its_base_is():
    figure = logo(start=-5)
    expected = {
        float(i - 5): (base, min(height, 0.0), max(height, 0.0))
        for i, (base, height) in enumerate(zip(SEQUENCE, HEIGHTS, strict=True))
        if base != "N" and height != 0.0
    }
    assert letters(figure) == expected
    hover = next(one for one in figure.data if one.hovertemplate)
    np.testing.assert_array_equal(hover.x, np.arange(-5.0, 5.0))
    np.testing.assert_array_equal(hover.y, np.where(TOKENS == 4, 0.0, HEIGHTS))
    assert "".join(hover.text) == SEQUENCE
    # The A at 0 has -2: it hangs upside down, its apex below, its feet wide apart above.
    x, y = polygons(trace(figure, "A"))[1]
    assert np.ptp(x[y == 0.0]) > 0.8 > 0.3 > np.ptp(x[y == -2.0])


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(-1000, 10**9), st.integers(0, 2**32 - 1))
def test_any_window_is_drawn_whole(length, start, seed):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 5, length).astype(np.uint8)
    values = rng.normal(size=(length, 4)).astype(np.float32)
    figure = attribution_logo(values, tokens, start)
    found = letters(figure)
    assert {one.x.dtype for one in figure.data} == {np.dtype(np.float64)}
    assert set(found) == {float(start + i) for i in range(length) if tokens[i] < 4}
    for i in np.flatnonzero(tokens < 4):
        value = values[i, tokens[i]]
        assert found[float(start + i)] == ("ACGT"[tokens[i]], min(value, 0), max(value, 0))


def test_the_axes_say_what_they_count_from_and_the_unit():
    figure = logo(start=-5, unit="bits")
    assert figure.layout.xaxis.title.text == "position from the TSS (bp)"
    assert list(figure.layout.xaxis.range) == [-5.5, 4.5]
    assert figure.layout.yaxis.title.text == "attribution, bits"
    rng = np.random.default_rng(0)
    values, tokens = rng.normal(size=(500, 4)), rng.integers(0, 4, 500)
    assert len(attribution_logo(values, tokens).to_json()) < 350_000


def test_the_tss_is_an_arrow_where_it_is_in_the_window():
    figure = logo(start=-5)
    arrow = trace(figure, "TSS")
    assert list(arrow.x[:2]) == [0.0, 0.0]
    assert arrow.x[2] > 0
    assert [shape.x0 for shape in figure.layout.shapes] == [0.0]
    assert "TSS" not in [one.name for one in logo(start=50).data]


def test_the_gene_body_is_clipped_to_the_window_and_named():
    figure = logo(start=-5, gene="<lacZ>", gene_body=(0, 3075))
    body = trace(figure, "&lt;lacZ&gt;: 0-3,075 bp")
    assert (body.x.min(), body.x.max()) == (-0.5, 4.5)
    assert "<i>&lt;lacZ&gt;</i>" in texts(figure)
    assert "<i>lacZ</i>" not in texts(logo(start=-5, gene="lacZ", gene_body=(50, 90)))


def test_coding_exons_are_boxes_on_a_line():
    exons = [(2, 4), (7, 20), (30, 40)]
    figure = logo(start=0, gene="g", gene_body=(1, 50), exons=exons)
    body = trace(figure, "g: 1-50 bp")
    assert np.isnan(body.x[5])
    boxes = [(body.x[i : i + 5].min(), body.x[i : i + 5].max()) for i in range(0, len(body.x), 6)]
    assert boxes == [(1.5, 3.5), (6.5, 9.5)]
    thin = trace(figure, "introns")
    assert [one.x[0] for one in figure.data if one.text == ("<i>g</i>",)] == [8.0]
    assert (list(thin.x), set(thin.y), thin.yaxis) == ([0.5, 9.5], {-0.125}, "y2")
    one = logo(start=0, gene="g", gene_body=(1, 50), exons=exons[:1])
    assert one == logo(start=0, gene="g", gene_body=(1, 50))


def test_motifs_cover_their_bases_and_are_clipped_to_the_window():
    hits = [
        (-3, 1, "Crp", 8.5),
        (-20, -4, "left", 1.0),
        (4, 30, "right", 1.0),
        (60, 70, "far", 1.0),
    ]
    figure = logo(start=-5, motifs=hits)
    spans = sorted((x.min(), x.max()) for x, _ in polygons(trace(figure, "motif")))
    assert spans == [(-5.5, -4.5), (-3.5, 0.5), (3.5, 4.5)]
    names = trace(figure, "motif names")
    at = dict(zip(names.text, zip(names.x, names.hovertext, strict=True), strict=True))
    assert at["Crp"] == (-1.5, "<b>Crp</b><br>-3-1 bp<br>score 8.5")
    assert set(at) == {"Crp", "left", "right"}


def test_each_lane_adds_its_pixels():
    one = logo(motifs=[(0, 9, "a", 1.0)])
    two = logo(motifs=[(0, 9, "a", 1.0), (0, 9, "b", 2.0)])
    assert two.layout.height - one.layout.height == 34
    assert two.layout.yaxis2.range[0] == one.layout.yaxis2.range[0] - 1


def test_only_the_best_hits_are_drawn_in_any_order_and_the_subtitle_says_so():
    hits = [(i, i + 1, f"m{i}", float(i)) for i in range(10)]
    figure = logo(motifs=hits, max_motifs=3)
    assert sorted(trace(figure, "motif names").text) == ["m7", "m8", "m9"]
    assert "3 of 10 motif hits, the highest scores" in figure.layout.title.text
    assert logo(motifs=hits[::-1], max_motifs=3).to_json() == figure.to_json()
    assert "motif" not in logo(motifs=hits).layout.title.text
    label = trace(logo(motifs=[(0, 4, "<" + "a" * 30, 1.0)]), "motif names")
    assert label.text[0] == "&lt;" + "a" * 22 + "…"
    assert "&lt;" + "a" * 30 in label.hovertext[0]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 950), st.integers(1, 50), st.text("abcdef", min_size=1, max_size=20)
        ),
        min_size=1,
        max_size=20,
    )
)
def test_in_no_lane_do_two_labels_or_motifs_meet_on_a_narrow_screen(hits):
    motifs = [(start, start + length, name, 1.0) for start, length, name in hits]
    figure = attribution_logo(np.ones((1000, 4)), np.zeros(1000, dtype=np.uint8), motifs=motifs)
    names, boxes = trace(figure, "motif names"), polygons(trace(figure, "motif"))
    half = np.array([len(text) for text in names.text]) * 6.6 / 2 * 1000 / 300
    assert (names.x - half).min() >= -0.5
    assert (names.x + half).max() <= 999.5
    for i, j in combinations(range(len(boxes)), 2):
        if names.y[i] == names.y[j]:
            for a, b in (
                [(x.min(), x.max()) for x, _ in (boxes[i], boxes[j])],
                [(names.x[k] - half[k], names.x[k] + half[k]) for k in (i, j)],
            ):
                assert a[1] <= b[0] + 1e-9 or b[1] <= a[0] + 1e-9


def test_lanes_are_shared_where_they_are_free_and_reused_where_there_are_no_more():
    assert site_lanes([0.0, 80.0], [10.0, 90.0]) == [0, 0]
    assert site_lanes([0.0, 40.0, 60.0], [50.0, 90.0, 70.0]) == [0, 1, 0]
    assert site_lanes([0.0, 1.0, 2.0], [50.0, 40.0, 60.0], 2) == [0, 1, 1]
    assert site_lanes([], []) == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"attributions": np.zeros((0, 4)), "tokens": TOKENS[:0]}, "0 bases of attributions"),
        ({"tokens": TOKENS[:-1]}, "10 bases of attributions and 9 tokens"),
        ({"tokens": TOKENS.astype(int) + 1}, "tokens from 1 to 5"),
        ({"tokens": TOKENS.astype(int) - 1}, "tokens from -1 to 3"),
        ({"attributions": ATTRIBUTIONS * np.nan}, "attributions that are not finite"),
        ({"motifs": [(5, 5, "Crp", 1.0)]}, "'Crp' from 5 to 5"),
        ({"gene_body": (5, 2)}, "'the gene' from 5 to 2"),
        ({"motifs": [(0, 5, "Crp", float("nan"))]}, "a motif score that is not finite"),
        (
            {"attributions": np.ones((MAX_BASES + 1, 4)), "tokens": np.zeros(MAX_BASES + 1, int)},
            "2,001 bases .* expected 1 to 2,000",
        ),
    ],
)
def test_a_logo_that_cannot_be_drawn_is_refused(change, match):
    with pytest.raises(InputError, match=match):
        logo(**change)


def test_a_logo_has_conservation_below_its_lanes():
    rng, found = np.random.default_rng(0), conservation(60, 4)
    given = rng.normal(size=(60, 4)), rng.integers(0, 4, 60).astype(np.uint8)
    plain, figure = attribution_logo(*given, -20), attribution_logo(*given, -20, conservation=found)
    areas = {one.name: one for one in figure.data if "relatives that" in str(one.name)}
    assert list(areas["far relatives that have this base"].y) == found.same[:, 2].tolist()
    assert list(areas["near relatives that are aligned"].y) == found.aligned[:, 0].tolist()
    assert list(areas["near relatives that are aligned"].x) == list(range(-20, 40))
    assert len(areas) == 4
    layout = figure.layout
    assert layout.yaxis2.domain[0] > layout.yaxis3.domain[1]
    assert layout.yaxis3.domain[0] > layout.yaxis4.domain[1]
    assert layout.xaxis.anchor == "y4"
    assert layout.height > plain.layout.height
    assert plain.layout.xaxis.anchor == "y2"
    assert plain.layout.yaxis2.domain[0] == 0

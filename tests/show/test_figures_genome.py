"""Figures along the genome: every bar, letter and motif where its table says."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_figures import polygons, row_labels, trace

from genesplice.errors import InputError
from genesplice.show.figures_genome import expression_map, fold_map, relatives_map
from genesplice.show.logo import LETTERS, letter_paths, site_lanes
from genesplice.show.theme import INK

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


# ---- letters and lanes


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


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(-1000, 10**9), st.integers(0, 2**32 - 1))
def test_each_letter_is_as_high_as_its_attribution_and_where_its_base_is(length, start, seed):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 5, length).astype(np.uint8)
    height = rng.normal(size=length) * (rng.random(length) < 0.9)
    drawn = {}
    for base, path in letter_paths(start + np.arange(length, dtype=float), tokens, height).items():
        for x, y in polygons(SimpleNamespace(x=path[0], y=path[1])):
            middle = round((x.min() + x.max()) / 2)
            assert middle - 0.5 < x.min() < x.max() < middle + 0.5
            drawn[middle] = (base, y.min(), y.max())
    high = height.astype(np.float32)
    assert drawn == {
        start + i: ("ACGT"[tokens[i]], min(high[i], 0), max(high[i], 0))
        for i in range(length)
        if tokens[i] < 4 and height[i] != 0
    }


def test_a_negative_letter_hangs_upside_down():
    x, y = letter_paths(np.zeros(1), np.zeros(1, dtype=np.uint8), np.array([-2.0]))["A"]
    # The apex of the A is below, its feet wide apart above.
    assert np.ptp(x[y == 0.0]) > 0.8 > 0.3 > np.ptp(x[y == -2.0])


def test_lanes_are_shared_where_they_are_free_and_reused_where_there_are_no_more():
    assert site_lanes([0.0, 80.0], [10.0, 90.0]) == [0, 0]
    assert site_lanes([0.0, 40.0, 60.0], [50.0, 90.0, 70.0]) == [0, 1, 0]
    assert site_lanes([0.0, 1.0, 2.0], [50.0, 40.0, 60.0], 2) == [0, 1, 1]
    assert site_lanes([], []) == []

"""Expression and folds along the genome: every bar where its gene or block is."""

import numpy as np
import pandas as pd
import pytest

from genesplice.errors import InputError
from genesplice.show.figures import expression_map, fold_map
from genesplice.show.theme import INK, OKABE_ITO


@pytest.fixture
def genes() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "gene_id": ["g1", "g2", "g3", "g4"],
            "name": ["aaa", "bbb", "ccc", "ddd"],
            "contig": "chr",
            "start": [100, 400, 900, 1500],
            "end": [300, 450, 1400, 2000],
            "strand": ["+", "-", "+", "-"],
        }
    )


@pytest.fixture
def level() -> pd.Series:
    return pd.Series({"g1": 3.0, "g2": 7.5, "g3": 0.25, "g4": 12.0})


@pytest.fixture
def fold() -> pd.Series:
    return pd.Series({"g1": 0, "g2": 1, "g3": 0, "g4": 2})


def bars(figure):
    return [trace for trace in figure.data if trace.type == "bar"]


def lines(figure):
    return {trace.name: trace for trace in figure.data if trace.type == "scatter"}


def many_genes(n: int, rng: np.random.Generator) -> pd.DataFrame:
    start = np.sort(rng.choice(4_600_000, n, replace=False))
    return pd.DataFrame(
        {
            "gene_id": [f"b{i:04d}" for i in range(n)],
            "name": [f"gene{i}" for i in range(n)],
            "contig": "NC_000913.3",
            "start": start,
            "end": start + rng.integers(60, 3000, n),
            "strand": rng.choice(["+", "-"], n),
        }
    )


# ---- expression_map


def test_each_bar_is_its_gene_and_its_level(genes, level, fold):
    drawn = {}
    for bar in bars(expression_map(genes, level, fold)):
        for x, width, y in zip(bar.x, bar.width, bar.y, strict=True):
            drawn[(x, x + width)] = (bar.name, y)
    assert drawn == {
        (100.0, 300.0): ("fold 0", 3.0),
        (400.0, 450.0): ("fold 1", -7.5),
        (900.0, 1400.0): ("fold 0", 0.25),
        (1500.0, 2000.0): ("fold 2", -12.0),
    }


def test_bars_begin_at_x_and_do_not_move_aside_for_one_another(genes, level, fold):
    figure = expression_map(genes, level, fold)
    assert all(bar.offset == 0 for bar in bars(figure))
    assert figure.layout.barmode == "overlay"


def test_without_folds_there_is_a_trace_for_each_strand(genes, level):
    figure = expression_map(genes, level)
    assert [(bar.name, list(bar.x)) for bar in bars(figure)] == [
        ("strand +", [100.0, 900.0]),
        ("strand -", [400.0, 1500.0]),
    ]


def test_folds_take_the_palette_in_their_order(genes, level, fold):
    colours = [bar.marker.color for bar in bars(expression_map(genes, level, fold))]
    assert colours == list(OKABE_ITO[:3])


def test_positions_are_float64_to_the_base(genes, level):
    far = genes.assign(start=genes["start"] + 240_000_001, end=genes["end"] + 240_000_001)
    figure = expression_map(far, level)
    for bar in bars(figure):
        assert bar.x.dtype == bar.width.dtype == np.float64
    assert sorted(x for bar in bars(figure) for x in bar.x) == sorted(map(float, far["start"]))


def test_hover_has_name_id_place_strand_level_and_fold(genes, level, fold):
    bar = bars(expression_map(genes, level, fold))[1]
    assert bar.hovertext[0] == "<b>bbb</b> (g2)<br>chr:400-450 bp, -<br>7.50"
    assert bar.hovertemplate == "%{hovertext} log₂(TPM+1), fold 1<extra></extra>"


def test_genes_without_a_level_are_left_out_and_counted(genes, level):
    figure = expression_map(genes, level.drop("g3"))
    assert sum(len(bar.x) for bar in bars(figure)) == 3
    assert "3 of 4 genes have a level" in figure.layout.title.text


def test_folds_may_know_more_genes(genes, level, fold):
    more = pd.concat([fold, pd.Series({"zzz": 4})])
    assert expression_map(genes, level, more) == expression_map(genes, level, fold)


def test_the_mean_of_a_window_is_the_mean_of_its_genes(genes, level):
    drawn = lines(expression_map(genes, level, n_windows=2))
    # The genome ends at 2000, so windows are 0-1000 and 1000-2000; genes count by their start.
    plus, minus = drawn["mean, + strand"], drawn["mean, − strand"]
    np.testing.assert_allclose(plus.x, [500.0])
    np.testing.assert_allclose(plus.y, [(3.0 + 0.25) / 2])
    np.testing.assert_allclose(minus.x, [500.0, 1500.0])
    np.testing.assert_allclose(minus.y, [-7.5, -12.0])


def test_means_over_windows_equal_a_loop():
    rng = np.random.default_rng(3)
    genes = many_genes(300, rng)
    level = pd.Series(rng.uniform(0, 14, 300), index=genes["gene_id"])
    drawn = lines(expression_map(genes, level, n_windows=7))
    end = float(genes["end"].max())
    for strand, sign, name in (("+", 1, "mean, + strand"), ("-", -1, "mean, − strand")):
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
        np.testing.assert_allclose(drawn[name].x, list(expected))
        np.testing.assert_allclose(drawn[name].y, list(expected.values()), rtol=1e-6)


def test_no_windows_draw_no_lines(genes, level):
    assert lines(expression_map(genes, level, n_windows=0)) == {}


def test_contigs_lie_end_to_end_in_natural_order(level):
    genes = pd.DataFrame(
        {
            "gene_id": ["g1", "g2", "g3", "g4"],
            "name": ["a", "b", "c", "d"],
            "contig": ["chr10", "chr2", "chr2", "chrX"],
            "start": [10, 0, 50, 5],
            "end": [20, 40, 100, 8],
            "strand": ["+", "+", "+", "+"],
        }
    )
    figure = expression_map(genes, level)
    place = dict(
        zip(
            [text.split("(")[1][:2] for text in figure.data[0].hovertext],
            figure.data[0].x,
            strict=True,
        )
    )
    assert place == {"g2": 0.0, "g3": 50.0, "g1": 110.0, "g4": 125.0}
    axis = figure.layout.xaxis
    assert axis.ticktext == ("chr2", "chr10", "chrX")
    assert axis.tickvals == (50.0, 110.0, 124.0)
    assert list(axis.range) == [0.0, 128.0]
    borders = [shape.x0 for shape in figure.layout.shapes if shape.x0 == shape.x1]
    assert borders == [100.0, 120.0]
    assert "chr10:10-20 bp" in "".join(figure.data[0].hovertext)  # within the contig, not offset


def test_the_axis_names_contig_unit_and_origin(genes, level):
    assert expression_map(genes, level).layout.xaxis.title.text == "position on chr (bp, 0-based)"


def test_the_level_axis_counts_upwards_on_both_strands(genes, level):
    axis = expression_map(genes, level).layout.yaxis
    assert axis.title.text == "level, log₂(TPM+1)"
    assert len(axis.tickvals) == len(axis.ticktext)
    assert [abs(v) for v in axis.tickvals] == [float(t) for t in axis.ticktext]
    assert list(axis.tickvals) == sorted(axis.tickvals)
    assert -10.0 in axis.tickvals
    assert 10.0 in axis.tickvals


@pytest.mark.parametrize("top", [0.0, 0.3, 1.0, 9.99, 13.7, 250.0])
def test_the_level_axis_has_few_ticks_whatever_the_height(genes, level, top):
    flat = pd.Series(top, index=level.index)
    ticks = expression_map(genes, flat).layout.yaxis.tickvals
    assert 1 <= len(ticks) <= 11
    assert 0.0 in ticks


def test_row_order_has_no_influence(fold):
    rng = np.random.default_rng(0)
    genes = many_genes(200, rng)
    level = pd.Series(rng.uniform(0, 14, 200), index=genes["gene_id"])
    fold = pd.Series(rng.integers(0, 5, 200), index=genes["gene_id"])
    first = expression_map(genes, level, fold).to_json()
    shuffled = expression_map(
        genes.sample(frac=1, random_state=1),
        level.sample(frac=1, random_state=2),
        fold.sample(frac=1, random_state=3),
    )
    assert shuffled.to_json() == first


def test_genes_at_one_place_keep_one_order(genes, level):
    ablations = genes.assign(start=100, end=200, strand="+")
    first = expression_map(ablations, level)
    assert expression_map(ablations[::-1], level[::-1]) == first
    assert list(first.data[0].y) == [3.0, 7.5, 0.25, 12.0]


def test_four_thousand_genes_stay_small():
    rng = np.random.default_rng(0)
    genes = many_genes(4000, rng)
    level = pd.Series(rng.uniform(0, 14, 4000), index=genes["gene_id"])
    fold = pd.Series(rng.integers(0, 5, 4000), index=genes["gene_id"])
    assert len(expression_map(genes, level, fold).to_json()) < 700_000


def test_names_are_shown_not_interpreted(genes, level):
    figure = expression_map(genes.assign(name="<i>&"), level)
    assert all(
        text.startswith("<b>&lt;i&gt;&amp;</b>") for t in bars(figure) for text in t.hovertext
    )


def test_genes_without_columns_are_refused(genes, level):
    with pytest.raises(InputError, match="expected also strand"):
        expression_map(genes.drop(columns="strand"), level)


def test_no_genes_and_no_levels_are_refused(genes, level):
    with pytest.raises(InputError, match="0 rows in genes"):
        expression_map(genes.iloc[:0], level)
    with pytest.raises(InputError, match="0 values of level"):
        expression_map(genes, level.iloc[:0])


def test_levels_of_unknown_genes_are_counted(genes, level, fold):
    more = pd.concat([level, pd.Series({"x": 1.0})])
    with pytest.raises(InputError, match="found 1 of 5 genes of level not in genes, expected 0"):
        expression_map(genes, more)
    with pytest.raises(InputError, match="found 1 of 4 genes of level not in fold, expected 0"):
        expression_map(genes, level, fold.drop("g2"))
    with pytest.raises(InputError, match="1 of 4 genes of level not in fold"):
        expression_map(genes, level, fold.astype(float).replace(2.0, np.nan))


def test_negative_and_missing_levels_are_refused(genes, level):
    with pytest.raises(InputError, match="found 1 negative values of level"):
        expression_map(genes, level - 1)
    with pytest.raises(InputError, match="1 of 4 values of level not finite"):
        expression_map(genes, level.replace(3.0, np.nan))


def test_repeated_genes_are_refused(genes, level, fold):
    twice = pd.concat([genes, genes.iloc[:1]])
    with pytest.raises(InputError, match="found 4 different gene_id in genes, expected 5"):
        expression_map(twice, level)
    with pytest.raises(InputError, match="found 4 different labels of level, expected 5"):
        expression_map(genes, pd.concat([level, level.iloc[:1]]))
    with pytest.raises(InputError, match="found 4 different gene_id in fold, expected 5"):
        expression_map(genes, level, pd.concat([fold, fold.iloc[:1]]))


def test_a_negative_number_of_windows_is_refused(genes, level):
    with pytest.raises(InputError, match="found -1 windows"):
        expression_map(genes, level, n_windows=-1)


# ---- fold_map


@pytest.fixture
def blocks() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "block": [0, 1, 2, 3],
            "contig": "chr",
            "start": [0, 100, 250, 300],
            "end": [100, 250, 300, 400],
            "fold": [1, 0, 1, 2],
        }
    )


def test_bars_lie_where_the_blocks_are(blocks):
    drawn = {}
    figure = fold_map(blocks)
    contig = dict(zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True))
    for bar in figure.data:
        for base, length, y in zip(bar.base, bar.x, bar.y, strict=True):
            drawn[(base, base + length)] = (bar.name, contig[y])
    assert drawn == {
        (100.0, 250.0): ("fold 0", "chr"),
        (0.0, 100.0): ("fold 1", "chr"),
        (250.0, 300.0): ("fold 1", "chr"),
        (300.0, 400.0): ("fold 2", "chr"),
    }


def test_bars_say_their_fold_in_text_that_can_be_read(blocks):
    traces = fold_map(blocks).data
    assert [list(bar.text) for bar in traces] == [["0"], ["1", "1"], ["2"]]
    assert traces[0].insidetextfont.color == "white"  # on blue
    assert traces[1].insidetextfont.color == INK  # on orange


def test_a_circular_genome_is_a_ring_with_the_same_angles(blocks):
    figure = fold_map(blocks, is_circular=True)
    arcs = {}
    for trace in figure.data[:3]:
        assert trace.type == "barpolar"
        for middle, width in zip(trace.theta, trace.width, strict=True):
            arcs[(middle - width / 2, middle + width / 2)] = trace.name
    assert arcs == {
        (90.0, 225.0): "fold 0",
        (0.0, 90.0): "fold 1",
        (225.0, 270.0): "fold 1",
        (270.0, 360.0): "fold 2",
    }
    axis = figure.layout.polar.angularaxis
    assert (axis.direction, axis.rotation) == ("clockwise", 90)


def test_the_arcs_of_a_tiled_genome_close_the_ring():
    edges = np.linspace(0, 4_641_652, 48).astype(int)
    blocks = pd.DataFrame(
        {
            "block": range(47),
            "contig": "c",
            "start": edges[:-1],
            "end": edges[1:],
            "fold": np.arange(47) % 5,
        }
    )
    figure = fold_map(blocks, is_circular=True)
    assert sum(trace.width.sum() for trace in figure.data[:5]) == pytest.approx(360)


def test_a_block_across_the_origin_goes_round():
    blocks = pd.DataFrame(
        {"block": [0, 1], "contig": "c", "start": [40, 220], "end": [220, 400], "fold": [0, 1]}
    )
    figure = fold_map(blocks, is_circular=True)
    # The contig has 360 bp: 220-400 covers 220-360 and 0-40, half the ring.
    assert list(figure.data[1].width) == [180.0]
    assert list(figure.data[1].theta) == [310.0]
    assert figure.data[1].customdata.tolist() == [[220, 400]]


def test_the_ring_shows_folds_as_text_too(blocks):
    labels = fold_map(blocks, is_circular=True).data[-1]
    assert labels.type == "scatterpolar"
    assert list(labels.text) == ["<b>1</b>", "<b>0</b>", "<b>1</b>", "<b>2</b>"]
    assert list(labels.theta) == [45.0, 157.5, 247.5, 315.0]


def test_a_crowded_ring_leaves_the_text_to_the_hover():
    n = 81
    blocks = pd.DataFrame(
        {
            "block": range(n),
            "contig": "c",
            "start": np.arange(n) * 10,
            "end": np.arange(n) * 10 + 10,
            "fold": np.arange(n) % 3,
        }
    )
    assert {trace.type for trace in fold_map(blocks, is_circular=True).data} == {"barpolar"}
    kinds = {trace.type for trace in fold_map(blocks[:80], is_circular=True).data}
    assert kinds == {"barpolar", "scatterpolar"}


@pytest.mark.parametrize("length", [1_000, 120_000, 4_641_652, 150_000_000])
def test_the_ring_has_a_readable_number_of_ticks(length):
    blocks = pd.DataFrame({"block": [0], "contig": "c", "start": [0], "end": [length], "fold": [0]})
    axis = fold_map(blocks, is_circular=True).layout.polar.angularaxis
    assert 4 <= len(axis.tickvals) <= 11
    for angle, text in zip(axis.tickvals, axis.ticktext, strict=True):
        assert angle / 360 * length == pytest.approx(float(text) * 1e6)


def test_several_contigs_are_bars_even_when_circular(blocks):
    two = pd.concat([blocks, blocks.assign(contig="plasmid")])
    figure = fold_map(two, is_circular=True)
    assert {trace.type for trace in figure.data} == {"bar"}
    assert figure.layout.height > fold_map(blocks).layout.height


def test_contigs_are_in_natural_order_from_the_top():
    blocks = pd.DataFrame(
        {
            "block": [0, 1, 2],
            "contig": ["chr10", "chr2", "chrX"],
            "start": 0,
            "end": [5, 9, 3],
            "fold": [0, 1, 0],
        }
    )
    figure = fold_map(blocks)
    axis = figure.layout.yaxis
    assert axis.ticktext == ("chr2", "chr10", "chrX")
    assert axis.tickvals == (0.0, 1.0, 2.0)
    assert axis.range[0] > axis.range[1]
    assert [(bar.name, list(bar.y)) for bar in figure.data] == [
        ("fold 0", [1.0, 2.0]),
        ("fold 1", [0.0]),
    ]


def test_a_long_contig_name_is_cut_on_the_axis_and_whole_on_hover(blocks):
    figure = fold_map(blocks.assign(contig="scaffold_" + "9" * 30))
    assert figure.layout.yaxis.ticktext == ("scaffold_" + "9" * 10 + "…",)
    assert "scaffold_" + "9" * 30 in figure.data[0].hovertext[0]


def test_the_subtitle_counts(blocks):
    assert "4 blocks, 3 folds, 0.00 Mb" in fold_map(blocks).layout.title.text


@pytest.mark.parametrize("is_circular", [True, False])
def test_block_order_has_no_influence(blocks, is_circular):
    first = fold_map(blocks, is_circular=is_circular).to_json()
    assert fold_map(blocks[::-1], is_circular=is_circular).to_json() == first


@pytest.mark.parametrize("is_circular", [True, False])
def test_hover_has_block_fold_and_place(blocks, is_circular):
    trace = fold_map(blocks, is_circular=is_circular).data[0]
    assert trace.hovertext[0] == "block 1, fold 0<br>chr:"
    assert trace.customdata.tolist() == [[100, 250]]


def test_bad_blocks_are_refused(blocks):
    with pytest.raises(InputError, match="0 rows in blocks"):
        fold_map(blocks.iloc[:0])
    with pytest.raises(InputError, match="also fold"):
        fold_map(blocks.drop(columns="fold"))
    with pytest.raises(InputError, match="found 2 of 4 blocks without a base"):
        fold_map(blocks.assign(end=[100, 100, 250, 400]))
    with pytest.raises(InputError, match="found 1 of 4 blocks without a fold, expected 0"):
        fold_map(blocks.assign(fold=[1, None, 0, 2]))

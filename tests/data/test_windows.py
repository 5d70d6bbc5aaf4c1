"""Windows: every TSS in one core, the genome's own bases, and nothing of held-out blocks."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_files import gene_table, random_genome, spaced_genes

from genesplice.config.model import REGION_BP
from genesplice.data.genome import Contig, Genome, decode, encode, reverse_complement
from genesplice.data.splits import make_blocks, make_operons
from genesplice.data.windows import (
    GENE_BODY,
    Window,
    annotation_track,
    fetch_track,
    free_intervals,
    group_windows,
    make_batch,
    make_random_windows,
    tile_windows,
)
from genesplice.errors import InputError

CORES = st.integers(1, 6).map(lambda n: n * REGION_BP)
FLANKS = st.integers(0, 4).map(lambda n: n * REGION_BP)


@st.composite
def controls(draw):
    """One to three contigs with genes anywhere, on circles also across the origin; for `build`."""
    lengths = draw(st.lists(st.integers(400, 9000), min_size=1, max_size=3))
    is_circular = draw(st.booleans())
    places = []
    for i, length in enumerate(lengths):
        for _ in range(draw(st.integers(1, 4))):
            start = draw(st.integers(0, length - 3))
            room = 300 if is_circular else min(300, length - start)
            end = start + draw(st.integers(3, room))
            places.append((start, end, draw(st.sampled_from("+-")), f"c{i}"))
    return lengths, is_circular, places


def build(control):
    lengths, is_circular, places = control
    genome = random_genome(*lengths, circular=is_circular)
    return genome, gene_table(genome, *places)


def batches(genome, windows, genes, track=None):
    """One batch for each length, as the training stage makes them."""
    for group in group_windows(windows, len(windows)):
        yield group, make_batch(genome, group, genes, track)


# --- tiles ---


@settings(max_examples=60, deadline=None)
@given(controls(), CORES, FLANKS, st.data())
def test_every_tss_is_in_exactly_one_core(control, core, flank, data):
    genome, genes = build(control)
    offset = data.draw(st.integers(0, core - 1))
    windows = tile_windows(genome, core, flank, offset_bp=offset)
    found = torch.cat([batch.gene for _, batch in batches(genome, windows, genes)])
    assert sorted(found.tolist()) == list(range(len(genes)))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(controls(), CORES, FLANKS, st.data())
def test_gene_in_its_window_spells_what_it_spells_in_the_genome(control, core, flank, data):
    genome, genes = build(control)
    offset = data.draw(st.integers(0, core - 1))
    for group, batch in batches(genome, tile_windows(genome, core, flank, offset_bp=offset), genes):
        for i, row in enumerate(batch.gene.tolist()):
            gene = next(genes.iloc[[row]].itertuples())
            window = group[batch.window[i]]
            start, end = int(batch.start[i]), int(batch.end[i])
            assert window.contig == gene.contig
            assert end - start == gene.end - gene.start
            assert int(batch.strand[i]) == (1 if gene.strand == "+" else -1)
            tss = start if gene.strand == "+" else end - 1
            assert flank <= tss < window.end - window.start - flank
            seen = batch.tokens[batch.window[i]].numpy()[max(start, 0) : max(end, 0)]
            whole = genome.fetch(gene.contig, gene.start, gene.end)
            assert np.array_equal(seen, whole[max(-start, 0) :][: len(seen)])


@settings(max_examples=60, deadline=None)
@given(controls(), CORES, FLANKS)
def test_cores_cover_every_base_once_and_begin_on_the_grid(control, core, flank):
    genome, _ = build(control)
    for contig in genome.contigs:
        windows = [w for w in tile_windows(genome, core, flank) if w.contig == contig.name]
        edges = [w.core_start for w in windows] + [windows[-1].core_end]
        assert edges[0] == 0
        assert edges[-1] < contig.length + core
        assert edges[-1] >= contig.length > edges[-2]
        if contig.is_circular:
            assert edges[-1] == contig.length
        size = windows[0].end - windows[0].start - 2 * flank
        for window, after in zip(windows, edges[1:], strict=True):
            assert window.core_end == after
            whole = window.core_start + size
            assert (window.start, window.end) == (window.core_start - flank, whole + flank)
            # Only the last one of a circle ends early: where the first began.
            is_cut = contig.is_circular and window == windows[-1]
            assert after == (contig.length if is_cut else whole)
            assert window.start % REGION_BP == window.end % REGION_BP == 0


def test_offset_moves_the_first_core_before_the_contig():
    windows = tile_windows(random_genome(5000), 2048, 1024, offset_bp=100)
    assert [w.core_start for w in windows] == [-100, 1948, 3996]
    assert windows[0] == Window("c0", -1124, 2972, -100, 1948)


@settings(max_examples=60, deadline=None)
@given(controls(), CORES, st.data())
def test_cores_go_round_a_circle_once(control, core, data):
    genome, _ = build(control)
    offset = data.draw(st.integers(0, core - 1))
    for contig in genome.contigs:
        windows = [
            w for w in tile_windows(genome, core, 0, offset_bp=offset) if w.contig == contig.name
        ]
        places = np.concatenate([np.arange(w.core_start, w.core_end) for w in windows])
        if contig.is_circular:
            assert np.array_equal(np.sort(places % contig.length), np.arange(contig.length))
            size = windows[0].end - windows[0].start
            assert len(windows) == -(-contig.length // size)


def test_core_longer_than_a_contig_shrinks_to_it():
    windows = tile_windows(random_genome(1500, 10_000), 8192, 0)
    assert [w.core_end - w.core_start for w in windows] == [2048, 8192, 8192]


@pytest.mark.parametrize(
    ("core", "flank", "offset", "message"),
    [
        (1000, 0, 0, "core_bp 1000, expected a multiple of 1024 bp"),
        (0, 0, 0, "core_bp 0, expected a multiple"),
        (-1024, 0, 0, "core_bp -1024, expected a multiple"),
        (1024, 100, 0, "flank_bp 100, expected a multiple"),
        (1024, -1024, 0, "flank_bp -1024, expected a multiple"),
        (1024, 0, 1024, "offset_bp 1024, expected 0 to 1023"),
        (1024, 0, -1, "offset_bp -1, expected 0 to 1023"),
    ],
)
def test_tiles_off_the_grid_are_refused(core, flank, offset, message):
    with pytest.raises(InputError, match=message):
        tile_windows(random_genome(5000), core, flank, offset_bp=offset)


# --- bases ---


@settings(max_examples=60, deadline=None)
@given(controls(), CORES, FLANKS)
def test_tokens_are_the_genomes_bases_and_n_beyond_linear_ends(control, core, flank):
    genome, _ = build(control)
    for group, batch in batches(genome, tile_windows(genome, core, flank), None):
        assert len(batch.gene) == 0
        assert not batch.phase.any()
        for window, tokens in zip(group, batch.tokens.numpy(), strict=True):
            contig = genome.contig(window.contig)
            whole = genome.tokens[contig.offset :][: contig.length]
            at = np.arange(window.start, window.end)
            expected = whole[at % contig.length]
            if not contig.is_circular:
                expected = np.where((at >= 0) & (at < contig.length), expected, 4)
            assert np.array_equal(tokens, expected)


def test_window_across_the_origin_reads_the_rotated_genome_with_its_genes():
    genome = random_genome(4096, circular=True)
    genes = gene_table(genome, (4000, 4200, "+"), (3990, 4150, "-"), (200, 300, "-"))
    turned = Genome(np.roll(genome.tokens, 1024), genome.contigs)
    at_home = gene_table(turned, (928, 1128, "+"), (918, 1078, "-"), (1224, 1324, "-"))
    around = make_batch(genome, [Window("c0", -1024, 1024, -1024, 1024)], genes)
    plain = make_batch(turned, [Window("c0", 0, 2048, 0, 2048)], at_home)
    assert torch.equal(around.tokens, plain.tokens)
    assert sorted(plain.start.tolist()) == [918, 928, 1224]
    # The core goes round the origin, and so do the genes in it.
    tss = torch.where(around.strand > 0, around.start, around.end - 1)
    assert sorted(zip(tss.tolist(), around.strand.tolist(), strict=True)) == [
        (928, 1),
        (1077, -1),
        (1323, -1),
    ]


def test_start_codon_is_at_the_tss_on_either_strand():
    left, right = encode("CC" * 400), encode("GG" * 400)
    gene = encode("ATGAAATTTTAG")
    tokens = np.concatenate([left, gene, right, reverse_complement(gene), left])
    genome = Genome(tokens, (Contig("c0", 0, len(tokens), False),))
    genes = gene_table(genome, (800, 812, "+"), (1612, 1624, "-"))
    window = Window("c0", 300, 300 + 2048, 300, 300 + 2048)
    batch = make_batch(genome, [window], genes, annotation_track(genome, genes))
    assert batch.start.tolist() == [500, 1312]
    tokens = batch.tokens[0].numpy()
    assert decode(tokens[500:503]) == "ATG"
    assert decode(reverse_complement(tokens[1324 - 3 : 1324])) == "ATG"
    assert batch.phase[0, 0, 500:503].tolist() == [1, 2, 3]
    assert batch.phase[0, 1, 1321:1324].tolist() == [3, 2, 1]


def test_exons_of_a_batch_are_those_of_its_genes_in_the_order_of_transcription():
    genome = random_genome(3000, circular=True)
    genes = gene_table(genome, (2900, 3050, "+"), (100, 400, "-"), (500, 505, "+"))
    exons = {"g0": (2900, 2930, 3020, 3050), "g1": (340, 400, 100, 130), "g2": ()}
    genes["exons"] = genes["gene_id"].map(exons)
    first, second = Window("c0", 0, 1024, 0, 1024), Window("c0", -1024, 0, -1024, 0)
    batch = make_batch(genome, [first, second], genes)
    assert genes["gene_id"][batch.gene.numpy()].tolist() == ["g1", "g2", "g0"]
    assert batch.exons.tolist() == [
        [0, 340, 400], [0, 100, 130], [1, 500, 505], [2, 924, 954], [2, 1044, 1074],
    ]  # fmt: skip


def test_windows_of_two_lengths_in_one_batch_are_refused():
    genome = random_genome(5000)
    windows = [Window("c0", 0, 1024, 0, 1024), Window("c0", 0, 2048, 0, 2048)]
    with pytest.raises(InputError, match=r"windows of \[1024, 2048\] bp in one batch"):
        make_batch(genome, windows)
    with pytest.raises(InputError, match="expected one length"):
        make_batch(genome, [])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 3), max_size=12), st.integers(1, 5))
def test_groups_keep_the_order_and_hold_one_length(lengths, size):
    windows = [Window("c0", i, i + n, i, i + n) for i, n in enumerate(lengths)]
    groups = group_windows(windows, size)
    assert [window for group in groups for window in group] == windows
    for group in groups:
        assert 1 <= len(group) <= size
        assert len({window.end - window.start for window in group}) == 1
    full = sum(len(group) == size for group in groups)
    changes = sum(a != b for a, b in pairwise(lengths))
    assert len(groups) - full <= changes + 1


# --- coding phase ---


def test_phase_counts_codon_positions_along_each_strand():
    genome = random_genome(30)
    track = annotation_track(genome, gene_table(genome, (3, 9, "+"), (12, 21, "-")))
    assert track[0].tolist() == [0] * 3 + [1, 2, 3, 1, 2, 3] + [0] * 21
    assert track[1].tolist() == [0] * 12 + [3, 2, 1] * 3 + [0] * 9


def test_genes_without_a_frame_are_gene_body():
    genome = random_genome(60)
    genes = gene_table(
        genome, (0, 6, "+", "c0", "tRNA"), (10, 20, "+"), (30, 36, "-", "c0", "pseudogene")
    )
    track = annotation_track(genome, genes)
    assert set(track[0, :6]) == set(track[0, 10:20]) == set(track[1, 30:36]) == {GENE_BODY}
    assert np.count_nonzero(track) == 22


def test_overlapping_genes_keep_the_later_one_and_do_not_mix_strands():
    genome = random_genome(30)
    track = annotation_track(genome, gene_table(genome, (0, 9, "+"), (5, 14, "+"), (5, 14, "-")))
    assert track[0, :14].tolist() == [1, 2, 3, 1, 2] + [1, 2, 3] * 3
    assert track[1, :14].tolist() == [0] * 5 + [3, 2, 1] * 3


def test_phase_goes_on_across_the_origin():
    genome = random_genome(20, 30, circular=True)
    track = annotation_track(genome, gene_table(genome, (25, 34, "+", "c1"), (26, 32, "-", "c1")))
    assert fetch_track(genome, track, "c1", 25, 34)[0].tolist() == [1, 2, 3] * 3
    assert fetch_track(genome, track, "c1", 26, 32)[1].tolist() == [3, 2, 1] * 2
    assert fetch_track(genome, track, "c1", -4, 2)[1].tolist() == [3, 2, 1] * 2
    assert not fetch_track(genome, track, "c0", -5, 25).any()


def test_phase_is_nothing_beyond_linear_ends():
    genome = random_genome(12)
    track = annotation_track(genome, gene_table(genome, (0, 12, "+")))
    got = fetch_track(genome, track, "c0", -3, 15)
    assert got[0].tolist() == [0] * 3 + [1, 2, 3] * 4 + [0] * 3


@settings(max_examples=60, deadline=None)
@given(controls())
def test_phase_read_along_the_strand_starts_with_the_first_codon(control):
    genome, genes = build(control)
    for row in range(len(genes)):
        alone = genes.iloc[[row]]
        gene = next(alone.itertuples())
        track = annotation_track(genome, alone)
        value = fetch_track(genome, track, gene.contig, gene.start, gene.end)
        own = value[0] if gene.strand == "+" else value[1][::-1]
        length = gene.end - gene.start
        expected = [i % 3 + 1 for i in range(length)] if length % 3 == 0 else [GENE_BODY] * length
        assert own.tolist() == expected
        assert np.count_nonzero(track) == length


# --- held-out blocks ---


def block_table(folds, contigs=None):
    n = len(folds)
    contigs = contigs or ["c0"] * n
    return pd.DataFrame(
        {"contig": contigs, "start": np.arange(n) * 1000, "end": np.arange(n) * 1000 + 1000,
         "fold": folds}
    )  # fmt: skip


def test_neighbouring_free_blocks_are_one_interval():
    blocks = block_table([0, 1, 2, 0, 0, 1])
    assert free_intervals(blocks) == [("c0", 0, 6000)]
    assert free_intervals(blocks[blocks["fold"] != 1]) == [("c0", 0, 1000), ("c0", 2000, 5000)]
    assert free_intervals(blocks.iloc[[5, 1]]) == [("c0", 1000, 2000), ("c0", 5000, 6000)]
    assert free_intervals(blocks[:0]) == []


def test_intervals_do_not_run_from_one_contig_into_the_next():
    blocks = block_table([0, 0, 0], ["c0", "c0", "c1"])
    assert free_intervals(blocks) == [("c0", 0, 2000), ("c1", 2000, 3000)]


def held_out_bases(genome, blocks, folds):
    """One flag for each base of all contigs."""
    flags = np.zeros(genome.length, dtype=bool)
    for block in blocks[blocks["fold"].isin(folds)].itertuples():
        contig = genome.contig(block.contig)
        flags[contig.offset + np.arange(block.start, block.end) % contig.length] = True
    return flags


@pytest.mark.slow
@pytest.mark.parametrize("is_circular", [True, False])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), window=st.integers(1, 4000), folds=st.sets(st.integers(0, 4)))
def test_random_windows_never_touch_held_out_blocks(is_circular, seed, window, folds):
    genome = random_genome(40_000, 20_000, circular=is_circular)
    genes = spaced_genes(genome, 900)
    blocks, _ = make_blocks(genome, genes, make_operons(genes), 4000, seed=seed)
    held_out = held_out_bases(genome, blocks, folds)
    intervals = free_intervals(blocks[~blocks["fold"].isin(folds)])
    free = np.zeros(genome.length, dtype=int)
    for name, start, end in intervals:
        contig = genome.contig(name)
        free[contig.offset + np.arange(start, end) % contig.length] += 1
    assert np.array_equal(free, ~held_out)
    if max((end - start for _, start, end in intervals), default=0) < window:
        return
    drawn = make_random_windows(intervals, window, 40, np.random.default_rng(seed))
    assert len(drawn) == 40
    for one in drawn:
        contig = genome.contig(one.contig)
        at = np.arange(one.start, one.end)
        assert len(at) == window
        assert (one.core_start, one.core_end) == (one.start, one.end)
        assert contig.is_circular or 0 <= one.start <= one.end <= contig.length
        assert not held_out[contig.offset + at % contig.length].any()


def test_every_start_is_equally_likely():
    intervals = [("a", 0, 12), ("b", 100, 102), ("c", 7, 17), ("d", 5, 8)]
    drawn = make_random_windows(intervals, 3, 30_000, np.random.default_rng(0))
    counts = pd.Series([(w.contig, w.start) for w in drawn]).value_counts()
    expected = [("a", i) for i in range(10)] + [("c", i) for i in range(7, 15)] + [("d", 5)]
    assert set(counts.index) == set(expected)
    assert counts.max() - counts.min() < 0.25 * 30_000 / len(expected)


def test_random_windows_follow_the_generator():
    intervals = [("a", 0, 5000)]
    first, again, other = (
        make_random_windows(intervals, 10, 20, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_window_longer_than_every_interval_is_refused():
    generator = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"a window of 11 bp, .* interval, 10 bp"):
        make_random_windows([("a", 0, 10), ("b", 5, 9)], 11, 1, generator)
    with pytest.raises(InputError, match="interval, 0 bp"):
        make_random_windows([], 1, 1, generator)


# --- the real genome ---


def test_ecoli_genes_are_each_in_one_core_and_lacz_points_to_its_start_codon(ecoli):
    windows = tile_windows(ecoli.genome, 131_072, 8192, offset_bp=5000)
    seen = []
    for window in windows:
        batch = make_batch(ecoli.genome, [window], ecoli.genes)
        seen += batch.gene.tolist()
        ids = ecoli.genes["gene_id"].iloc[batch.gene.tolist()].tolist()
        if "b0344" in ids:
            at = int(batch.end[ids.index("b0344")])
            assert int(batch.strand[ids.index("b0344")]) == -1
            codon = batch.tokens[0, at - 3 : at].numpy()
            assert decode(reverse_complement(codon)) == "ATG"
    assert sorted(seen) == list(range(len(ecoli.genes)))

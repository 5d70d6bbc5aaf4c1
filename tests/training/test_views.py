"""What belongs together, what is masked, what a step reads, and what it never reads."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_runs import config, make_source, random_tokens

from genesplice.config import PretrainConfig
from genesplice.data.genome import Genome, decode
from genesplice.data.genome import reverse_complement as other_strand
from genesplice.data.windows import free_intervals
from genesplice.errors import InputError
from genesplice.model.sequence import N_TOKEN
from genesplice.training.batches import (
    StepMaker,
    make_masks,
    mask_bases,
    mask_bins,
)
from genesplice.training.corpus import bundle_source, divide_blocks
from genesplice.training.views import SHORTEST_GENE_BP, GeneSites

INTERVAL = 1024


def maker(source, *more, **part):
    return StepMaker(source, config("pretrain.batch_windows=6", *more), **part)


def bases(maker):
    return maker.config.pretrain.mean_batch_bp


def intervals(batch, index=0):
    """Both ends of every pair as letters, with the bases that are hidden shown."""
    pairs = batch.pairs[index]
    tokens = batch.rows[pairs.rows].tokens.numpy()
    return [
        [decode(tokens[row, 128 * at : 128 * at + INTERVAL]) for row, at in starts.tolist()]
        for starts in (pairs.one, pairs.two)
    ]


def flipped(text):
    return text.translate(str.maketrans("ACGTN", "TGCAN"))[::-1]


def place(genome, text):
    """Where a interval lies in the genome, on either strand."""
    at = genome.find(text)
    return at if at >= 0 else genome.index(flipped(text))


@pytest.fixture(scope="module")
def source(tiny_bundle):
    return bundle_source(tiny_bundle, 0)


# --- views of a locus ---


def test_an_orthologue_is_what_relatives_have_at_the_same_place(tiny_bundle):
    # Middle relatives have the next letter everywhere but where nothing is aligned.
    genome = tiny_bundle.genome
    columns = np.zeros((3, genome.length, 5), np.uint8)
    position = np.arange(genome.length)
    columns[:, position, (genome.tokens + 1) % 4] = 3
    columns[:, 5::10] = [0, 0, 0, 0, 2]
    columns[:, 7::10] = 0
    known = dataclasses.replace(tiny_bundle, genome=dataclasses.replace(genome, columns=columns))
    settings = ("pretrain.views=orthologue", "pretrain.shift_bp=0", "model.relatives=true",
                "pretrain.relatives_dropped=0")  # fmt: skip
    make = maker(bundle_source(known, 0), *settings)
    batch = make(0)
    text = decode(genome.tokens)
    turned = "".join("ACGT"["ACGT".index(letter) - 3] for letter in text)
    ones, twos = intervals(batch)
    assert len(ones) == 12
    for one, two in zip(ones, twos, strict=True):
        at, is_ahead = place(text, one), one in text
        assert text.count(one if is_ahead else flipped(one)) == 1
        wanted = turned[at : at + INTERVAL]
        two = two if is_ahead else flipped(two)
        for offset, (letter, expected) in enumerate(zip(two, wanted, strict=True)):
            assert letter == ("N" if (at + offset) % 10 in (5, 7) else expected)
    rows = batch.rows[batch.pairs[0].rows]
    assert rows.columns[:6].any()
    assert not rows.columns[6:].any()


def test_where_a_relative_has_little_the_interval_stays_what_it_is(tiny_bundle):
    genome = tiny_bundle.genome
    columns = np.zeros((3, genome.length, 5), np.uint8)
    columns[:, ::5, 0] = 3
    sparse = dataclasses.replace(genome, columns=columns)
    make = maker(bundle_source(dataclasses.replace(tiny_bundle, genome=sparse), 0),
                 "pretrain.views=orthologue", "model.relatives=true")  # fmt: skip
    for one, two in zip(*intervals(make(0)), strict=True):
        assert one == two


def test_an_orthologue_needs_relatives(source):
    with pytest.raises(InputError, match="orthologue without relatives"):
        maker(source, "pretrain.views=orthologue")


def test_a_interval_must_find_its_own_reverse_complement(source):
    genome = decode(np.asarray(source.genome.tokens)) * 2
    strands, shifts = set(), set()
    for number in range(12):
        batch = maker(source, "pretrain.shift_bp=300")(number)
        (pairs,) = batch.pairs
        ones, twos = intervals(batch)
        # The first interval of each window begins where the other view does.
        (shift,) = {128 * int(at) for _, at in pairs.one[:: len(ones) // 6]}
        shifts.add(shift)
        assert len(ones) == 6 * ((2048 - shift) // INTERVAL)
        for one, two in zip(ones, twos, strict=True):
            assert two == flipped(one)
            strands.add(one in genome)
        assert pairs.one[:, 0].tolist() == (pairs.two[:, 0] - 6).tolist()
        assert (pairs.one[:, 1] + pairs.two[:, 1] == (2048 + shift - INTERVAL) // 128).all()
    assert strands == {True, False}
    assert shifts == {0, 128, 256}


def test_neighbours_are_one_window_apart(source):
    genome = decode(np.asarray(source.genome.tokens)) * 2
    directions = set()
    for number in range(8):
        batch = maker(source, "pretrain.views=neighbour")(number)
        ones, twos = intervals(batch)
        assert len(ones) == 6 * 2
        for one, two in zip(ones, twos, strict=True):
            step = (place(genome, two) - place(genome, one)) % source.genome.length
            directions.add(min(step, step - source.genome.length, key=abs))
    # The locus is read on either strand.
    assert directions == {2048, -2048}


def test_spans_are_where_the_intervals_lie(source):
    genome = decode(np.asarray(source.genome.tokens)) * 2
    batch = maker(source, "pretrain.views=strand,neighbour")(3)
    for index, size in ((0, INTERVAL), (1, 4096)):
        ones, _ = intervals(batch, index)
        spans = batch.pairs[index].keys.spans[:, 0]
        for one, (start, end) in zip(ones, spans.tolist(), strict=True):
            assert end - start == size
            inside = (place(genome, one) - start) % source.genome.length
            assert inside == 0 if index == 0 else inside <= size - INTERVAL


def test_windows_lie_in_the_training_blocks(source, tiny_bundle):
    trained = np.zeros(2 * source.genome.length, bool)
    blocks = tiny_bundle.blocks
    for _, start, end in free_intervals(blocks[blocks["fold"] != 0]):
        trained[start:end] = True
    genome = decode(np.asarray(source.genome.tokens)) * 2
    views = "pretrain.views=strand,neighbour,gene,regulon"
    for number in range(10):
        for rows in maker(source, views)(number).rows:
            for row in rows.tokens.numpy():
                text = decode(row).rstrip("N")
                if text not in genome:
                    text = decode(other_strand(row)).lstrip("N")
                start = genome.index(text)
                assert trained[start : start + len(text)].all()


def equal(one, other):
    for a, b in zip(one.rows, other.rows, strict=True):
        if not (torch.equal(a.tokens, b.tokens) and torch.equal(a.is_target, b.is_target)):
            return False
    pairs = zip(one.pairs, other.pairs, strict=True)
    return all(torch.equal(a.one, b.one) and torch.equal(a.two, b.two) for a, b in pairs)


def test_a_batch_depends_on_seed_and_number_only(source):
    views = "pretrain.views=strand,gene"
    once = maker(source, views)
    first = [once(number) for number in range(4)]
    again = [maker(source, views)(number) for number in reversed(range(4))][::-1]
    assert all(equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0].rows[0].tokens, first[1].rows[0].tokens)
    other = maker(source, views, "pretrain.seed=1")(0)
    assert not torch.equal(first[0].rows[0].tokens, other.rows[0].tokens)


def test_without_contrast_nothing_is_read_twice(source):
    for weight in ("pretrain.contrastive_weight=0", "pretrain.view_weights=0"):
        (rows,) = maker(source, weight)(0).rows
        assert len(rows.tokens) == 6
        assert bases(maker(source, weight)) == 6 * 2048
    assert bases(maker(source)) == 2 * 6 * 2048
    assert len(maker(source)(0).rows[0].tokens) == 12


def test_views_are_read_in_every_kth_step(source):
    views = (
        "pretrain.views=strand,gene",
        "pretrain.view_genes=4",
        "pretrain.views_every=3",
        "pretrain.view_windows=8",
    )
    every_third = maker(source, *views, "pretrain.accumulate=2")
    batches = [every_third(number) for number in range(12)]
    assert [len(batch.pairs) for batch in batches] == [2, 2, 0, 0, 0, 0] * 2
    assert [len(batch.rows[0].tokens) for batch in batches] == [16, 16, 6, 6, 6, 6] * 2
    read = sum(rows.tokens.numel() for batch in batches for rows in batch.rows)
    assert bases(every_third) == pytest.approx(read / 12)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_processes_and_batches_divide_one_step(source, accumulate):
    views = "pretrain.views=strand,neighbour,gene", f"pretrain.accumulate={accumulate}"
    whole = maker(source, *views[:1], f"pretrain.batch_windows={6 * accumulate}",
                  f"pretrain.view_genes={6 * accumulate}")(0)  # fmt: skip
    parts = [
        maker(source, *views, "pretrain.view_genes=6", process=process, processes=2)(number)
        for number in range(accumulate)
        for process in range(2)
    ]
    for index in range(2):

        def rows(batch, index=index):
            return sorted(decode(row) for row in batch.rows[index].tokens.numpy())

        together = sorted(text for part in parts for text in rows(part))
        assert together == rows(whole)
    for index in range(3):

        def couples(batch, index=index):
            return sorted(zip(*intervals(batch, index), strict=True))

        assert sorted(pair for part in parts for pair in couples(part)) == couples(whole)
    assert {part.target_weight for part in parts} == {whole.target_weight}
    assert sum(int(rows.is_target.sum()) for part in parts for rows in part.rows) == (
        whole.target_weight
    )


def test_what_cannot_be_divided_is_refused(source):
    with pytest.raises(InputError, match=r"batch_windows 6 for 4 processes, expected a multiple"):
        maker(source, processes=4)
    with pytest.raises(InputError, match=r"view_genes 16 for 3 processes"):
        maker(source, "pretrain.views=gene", "pretrain.view_windows=3", processes=3)


def test_repeats_count_less_whichever_strand_is_read():
    source = make_source(40_000, [[0, 20_000]])
    genome = decode(source.genome.tokens)
    batch = maker(source, "pretrain.repeat_weight=0.25")(0)
    (rows,) = batch.rows
    found = set()
    for row, weight in zip(rows.tokens.numpy(), rows.weight, strict=True):
        text, is_ahead = decode(row), decode(row) in genome
        start = genome.index(text if is_ahead else flipped(text))
        expected = np.where(np.arange(start, start + 2048) < 20_000, 0.25, 1.0)
        assert weight.tolist() == (expected if is_ahead else expected[::-1]).tolist()
        found.update(expected)
    assert found == {0.25, 1.0}
    assert batch.target_weight == pytest.approx(float(rows.weight[rows.is_target].sum()))
    assert maker(source, "pretrain.repeat_weight=1")(0).rows[0].weight is None
    assert maker(make_source())(0).rows[0].weight is None


# --- views of genes ---


def gene_of(tiny_bundle, source, text):
    """Genes that a interval lies in or upstream of, on its strand, and which of the two."""
    genome, genes = decode(np.asarray(source.genome.tokens)), tiny_bundle.genes
    text = text.rstrip("N")
    found = []
    for gene in genes.itertuples():
        body = genome[gene.start : gene.end]
        low, high = (
            (gene.start - INTERVAL, gene.start)
            if gene.strand == "+"
            else (gene.end, gene.end + INTERVAL)
        )
        where = np.arange(low, high) % len(genome)
        upstream = "".join(genome[i] for i in where)
        if gene.strand == "-":
            body, upstream = flipped(body), flipped(upstream)
        if text == upstream:
            found.append((gene.gene_id, "upstream"))
        elif text in body and (len(text) == INTERVAL or text == body):
            found.append((gene.gene_id, "body"))
    return found


def test_a_gene_is_what_is_upstream_and_what_is_inside(source, tiny_bundle):
    batch = maker(source, "pretrain.views=gene", "pretrain.view_genes=4")(0)
    ones, twos = intervals(batch)
    assert len(ones) == 4
    seen = set()
    for one, two in zip(ones, twos, strict=True):
        ((gene, kind),) = gene_of(tiny_bundle, source, one)
        assert kind == "upstream"
        assert gene_of(tiny_bundle, source, two) == [(gene, "body")]
        assert tiny_bundle.fold_of[gene] != 0
        seen.add(gene)
    assert len(seen) == 4


def test_genes_too_short_for_an_interval_are_not_drawn(source):
    genes = source.genes.copy()
    genes["end"] = genes["start"] + SHORTEST_GENE_BP - 1
    trained = [gene.gene_id for gene in GeneSites(source, ["gene"]).genes]
    kept = genes["gene_id"].isin(trained[:2])
    genes.loc[kept, "end"] += 1
    sites = GeneSites(source._replace(genes=genes), ["gene"])
    drawn = [sites.genes[index].gene_id for (index,) in sites.groups["gene"]]
    assert drawn == genes.loc[kept, "gene_id"].tolist()


def test_a_regulon_is_two_targets_of_one_regulator(source, tiny_bundle):
    edges = tiny_bundle.network.groupby("target")["source"].agg(set)
    for number in range(5):
        ones, twos = intervals(maker(source, "pretrain.views=regulon")(number))
        for one, two in zip(ones, twos, strict=True):
            ((first, _),) = gene_of(tiny_bundle, source, one)
            ((second, _),) = gene_of(tiny_bundle, source, two)
            assert first != second
            assert edges[first] & edges[second]
            assert {tiny_bundle.fold_of[first], tiny_bundle.fold_of[second]} <= {1, 2, 3, 4}


def test_an_operon_is_two_promoters_that_share_no_base(source, tiny_bundle):
    # Three neighbours on one strand, made one operon.
    genes = tiny_bundle.genes
    strands = "".join(genes["strand"])
    trained = (tiny_bundle.fold_of.loc[genes["gene_id"]] != 0).tolist()
    first = next(i for i in range(len(genes) - 2)
                 if strands[i : i + 3] in ("+++", "---") and all(trained[i : i + 3]))  # fmt: skip
    members = genes["gene_id"].iloc[first : first + 3].tolist()
    operon = source.operon.copy()
    operon[members] = "mine"
    other = source._replace(operon=operon)
    ones, twos = intervals(maker(other, "pretrain.views=operon")(0))
    assert len(ones) == 1
    ((one, _),), ((two, _),) = (gene_of(tiny_bundle, source, text) for text in (*ones, *twos))
    assert one != two
    assert {one, two} <= set(members)


def test_a_view_without_pairs_is_refused(source):
    with pytest.raises(InputError, match=r"no pair for pretrain\.views operon among \d+ training"):
        maker(source, "pretrain.views=operon")
    with pytest.raises(InputError, match=r"pretrain\.views gene, regulon without genes"):
        maker(make_source(), "pretrain.views=gene,regulon")
    # Where nothing is contrasted, nothing is asked for.
    maker(make_source(), "pretrain.views=gene", "pretrain.contrastive_weight=0")


def test_repeats_of_gene_views_are_read_on_their_strand(tiny_bundle):
    source = bundle_source(tiny_bundle, 0)
    genome = source.genome
    masked = np.array([[start, start + 100] for start in range(0, genome.length - 400, 400)])
    genome = Genome(genome.tokens, genome.contigs, masked)
    source = source._replace(genome=genome)
    is_masked = np.zeros(genome.length, bool)
    for start, end in masked:
        is_masked[start:end] = True
    text, strands = decode(np.asarray(genome.tokens)), set()
    settings = "pretrain.views=gene", "pretrain.view_genes=8", "pretrain.repeat_weight=0.25"
    for rows in maker(source, *settings)(0).rows:
        for row, weight in zip(rows.tokens.numpy(), rows.weight.numpy(), strict=True):
            inside = np.flatnonzero(row < 4)
            piece = decode(row[inside])
            is_plus = piece in text
            start = text.find(piece if is_plus else flipped(piece))
            if start < 0:  # round the origin, or masked bases in it
                continue
            expected = np.where(is_masked[start : start + len(piece)], 0.25, 1.0)
            assert weight[inside].tolist() == (expected if is_plus else expected[::-1]).tolist()
            strands.add(is_plus)
    assert strands == {True, False}


# --- blocks ---


def covered(intervals, length):
    starts = [np.arange(start, end) % length for _, start, end in intervals]
    return set(np.concatenate(starts).tolist()) if starts else set()


def test_validation_blocks_are_training_blocks(tiny_bundle):
    length = tiny_bundle.genome.length
    for fold in (0, 3, None):
        training, validation, held_out, record = divide_blocks(tiny_bundle.blocks, fold, 0.3)
        parts = [covered(part, length) for part in (training, validation)]
        if fold is not None:
            parts.append(covered(held_out, length))
            here = tiny_bundle.blocks.query("fold == @fold")
            assert parts[2] == covered(free_intervals(here), length)
            assert record["blocks"] == here["block"].tolist()
        assert sum(map(len, parts)) == len(set().union(*parts)) == length
        assert len(record["validation_blocks"]) == round(0.3 * (12 if fold is not None else 15))
        assert record["fold"] == fold


def test_all_blocks_cannot_be_for_validation(tiny_bundle):
    few = tiny_bundle.blocks.head(2)
    with pytest.raises(InputError, match="1 validation blocks of 1, expected fewer"):
        divide_blocks(few.assign(fold=[0, 1]), 0, 0.4)


# --- masks ---


def runs(is_chosen) -> list[tuple[int, int]]:
    """(start, length) of every run of True in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_chosen, [0]])))
    return [(int(a), int(b - a)) for a, b in edges.reshape(-1, 2)]


@pytest.mark.parametrize("span_bp", [1, 4, 16])
@pytest.mark.parametrize("fraction", [0.05, 0.12, 0.5])
def test_about_that_fraction_is_masked(fraction, span_bp):
    tokens = random_tokens(8, 50_000)
    # One base in `span_bp` is drawn on its own.
    spread = (fraction * (1 - fraction) * span_bp / tokens.numel()) ** 0.5
    for choose in (mask_bases, mask_bins):
        chosen = choose(tokens, fraction, span_bp, np.random.default_rng(1))
        assert float(chosen.float().mean()) == pytest.approx(fraction, abs=6 * spread)


@pytest.mark.parametrize("span_bp", [1, 3, 16])
def test_spans_are_at_least_that_long(span_bp):
    chosen = mask_bases(random_tokens(4, 5_000), 0.1, span_bp, np.random.default_rng(2))
    for row in chosen.numpy():
        for start, length in runs(row):
            assert length >= span_bp or start + length == len(row)
        assert min(length for _, length in runs(row)) <= span_bp


def test_bins_are_masked_whole_or_not_at_all():
    chosen = mask_bins(random_tokens(6, 2048), 0.3, 16, np.random.default_rng(2))
    by_bin = chosen.view(6, -1, 16)
    assert torch.equal(by_bin.any(2), by_bin.all(2))
    assert 0.2 < float(by_bin.any(2).float().mean()) < 0.4


@pytest.mark.parametrize("choose", [mask_bases, mask_bins])
def test_an_n_is_never_masked(choose):
    tokens = random_tokens(4, 5_000)
    tokens[:, 1000:3000:3] = N_TOKEN
    tokens[3] = N_TOKEN
    chosen = choose(tokens, 0.9, 8, np.random.default_rng(3))
    assert not chosen[tokens == N_TOKEN].any()
    assert chosen[:3].float().mean() > 0.5


def make(kinds, seed=0, rows=60):
    settings = PretrainConfig(masks=kinds, masked_fraction=0.2, span_bp=5)
    return make_masks(random_tokens(rows, 2048), settings, 16, np.random.default_rng(seed))


def test_one_kind_is_that_kind():
    tokens = random_tokens(60, 2048)
    expected = mask_bases(tokens, 0.2, 5, np.random.default_rng(0))
    assert torch.equal(make(["span"]), expected)
    assert torch.equal(make(["single"]), mask_bases(tokens, 0.2, 1, np.random.default_rng(0)))
    assert torch.equal(make(["bin"]), mask_bins(tokens, 0.2, 16, np.random.default_rng(0)))


def test_each_row_takes_one_of_the_kinds():
    kinds = []
    for row in make(["single", "span", "bin"]):
        by_bin = row.view(-1, 16)
        lengths = [length for _, length in runs(row.numpy())]
        if torch.equal(by_bin.any(1), by_bin.all(1)):
            kinds.append("bin")
        else:
            kinds.append("span" if min(lengths[:-1]) >= 5 else "single")
    counts = [kinds.count(kind) for kind in ("single", "span", "bin")]
    # 20 rows each, give or take.
    assert all(8 <= count <= 34 for count in counts), counts

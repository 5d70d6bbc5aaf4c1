"""What belongs together, what a step reads, and what it never reads."""

import numpy as np
import pytest
import torch
from tiny_runs import config, make_source

from genesplice.data.genome import decode
from genesplice.data.genome import reverse_complement as other_strand
from genesplice.data.windows import free_intervals
from genesplice.errors import InputError
from genesplice.training.source import bundle_source, divide_blocks
from genesplice.training.views import StepMaker

STRETCH = 1024


def maker(source, *more, **part):
    return StepMaker(source, config("pretrain.batch_windows=6", *more), **part)


def stretches(batch, index=0):
    """Both ends of every pair as letters, with the bases that are hidden shown."""
    pairs = batch.pairs[index]
    tokens = batch.rows[pairs.rows].tokens.numpy()
    return [
        [decode(tokens[row, 128 * at : 128 * at + STRETCH]) for row, at in places.tolist()]
        for places in (pairs.one, pairs.two)
    ]


def flipped(text):
    return text.translate(str.maketrans("ACGTN", "TGCAN"))[::-1]


def place(genome, text):
    """Where a stretch lies in the genome, on either strand."""
    at = genome.find(text)
    return at if at >= 0 else genome.index(flipped(text))


@pytest.fixture(scope="module")
def source(tiny_bundle):
    return bundle_source(tiny_bundle, 0)


# --- views of a locus ---


def test_a_stretch_must_find_its_own_reverse_complement(source):
    genome = decode(np.asarray(source.genome.tokens)) * 2
    strands, shifts = set(), set()
    for number in range(12):
        batch = maker(source, "pretrain.shift_bp=300")(number)
        (pairs,) = batch.pairs
        ones, twos = stretches(batch)
        # The first stretch of each window begins where the other view does.
        (shift,) = {128 * int(at) for _, at in pairs.one[:: len(ones) // 6]}
        shifts.add(shift)
        assert len(ones) == 6 * ((2048 - shift) // STRETCH)
        for one, two in zip(ones, twos, strict=True):
            assert two == flipped(one)
            strands.add(one in genome)
        assert pairs.one[:, 0].tolist() == (pairs.two[:, 0] - 6).tolist()
        assert (pairs.one[:, 1] + pairs.two[:, 1] == (2048 + shift - STRETCH) // 128).all()
    assert strands == {True, False}
    assert shifts == {0, 128, 256}


def test_neighbours_are_one_window_apart(source):
    genome = decode(np.asarray(source.genome.tokens)) * 2
    directions = set()
    for number in range(8):
        batch = maker(source, "pretrain.views=neighbour")(number)
        ones, twos = stretches(batch)
        assert len(ones) == 6 * 2
        for one, two in zip(ones, twos, strict=True):
            step = (place(genome, two) - place(genome, one)) % source.genome.length
            directions.add(min(step, step - source.genome.length, key=abs))
    # The locus is read on either strand.
    assert directions == {2048, -2048}


def test_spans_are_where_the_stretches_lie(source):
    genome = decode(np.asarray(source.genome.tokens)) * 2
    batch = maker(source, "pretrain.views=strand,neighbour")(3)
    for index, size in ((0, STRETCH), (1, 4096)):
        ones, _ = stretches(batch, index)
        spans = batch.pairs[index].keys.spans[:, 0]
        for one, (start, end) in zip(ones, spans.tolist(), strict=True):
            assert end - start == size
            inside = (place(genome, one) - start) % source.genome.length
            assert inside == 0 if index == 0 else inside <= size - STRETCH


def test_windows_lie_in_the_training_blocks(source, tiny_bundle):
    trained = np.zeros(2 * source.genome.length, bool)
    for _, start, end in free_intervals(tiny_bundle.blocks, [0]):
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
        assert maker(source, weight).bases == 6 * 2048
    assert maker(source).bases == 2 * 6 * 2048
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
    assert every_third.bases == pytest.approx(read / 12)


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
            return sorted(zip(*stretches(batch, index), strict=True))

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
    """Genes that a stretch lies in or upstream of, on its strand, and which of the two."""
    genome, genes = decode(np.asarray(source.genome.tokens)), tiny_bundle.genes
    text = text.rstrip("N")
    found = []
    for gene in genes.itertuples():
        body = genome[gene.start : gene.end]
        low, high = (
            (gene.start - STRETCH, gene.start)
            if gene.strand == "+"
            else (gene.end, gene.end + STRETCH)
        )
        where = np.arange(low, high) % len(genome)
        upstream = "".join(genome[i] for i in where)
        if gene.strand == "-":
            body, upstream = flipped(body), flipped(upstream)
        if text == upstream:
            found.append((gene.gene_id, "upstream"))
        elif text in body and (len(text) == STRETCH or text == body):
            found.append((gene.gene_id, "body"))
    return found


def test_a_gene_is_what_is_upstream_and_what_is_inside(source, tiny_bundle):
    batch = maker(source, "pretrain.views=gene", "pretrain.view_genes=4")(0)
    ones, twos = stretches(batch)
    assert len(ones) == 4
    seen = set()
    for one, two in zip(ones, twos, strict=True):
        ((gene, kind),) = gene_of(tiny_bundle, source, one)
        assert kind == "upstream"
        assert gene_of(tiny_bundle, source, two) == [(gene, "body")]
        assert tiny_bundle.fold_of[gene] != 0
        seen.add(gene)
    assert len(seen) == 4


def test_a_regulon_is_two_targets_of_one_regulator(source, tiny_bundle):
    edges = tiny_bundle.network.groupby("target")["source"].agg(set)
    for number in range(5):
        ones, twos = stretches(maker(source, "pretrain.views=regulon")(number))
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
    ones, twos = stretches(maker(other, "pretrain.views=operon")(0))
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


# --- blocks ---


def covered(intervals, length):
    places = [np.arange(start, end) % length for _, start, end in intervals]
    return set(np.concatenate(places).tolist()) if places else set()


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

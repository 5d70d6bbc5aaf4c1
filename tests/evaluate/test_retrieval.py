"""Retrieval, alignment and uniformity against loops over genes and repeated blocks."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from tiny_genomes import make_genome

from genesplice.errors import InputError
from genesplice.evaluate.bootstrap import interval, make_draws
from genesplice.evaluate.retrieval import (
    do_not_overlap,
    expected_hits,
    mates,
    retrieval_metrics,
    uniformity_draws,
    whitened,
)

GENES = pd.Index([f"g{i}" for i in range(24)], name="gene_id")
GROUPS = pd.Series([i // 3 for i in range(24)], GENES).astype(float)
BLOCKS = pd.Series([i // 6 for i in range(24)], GENES)


def make_vectors(strength=0.0, seed=0, width=6):
    """Mates have `strength` of their vector in common."""
    generator = np.random.default_rng(seed)
    shared = generator.normal(size=(8, width))[np.arange(24) // 3]
    return pd.DataFrame(strength * shared + generator.normal(size=(24, width)), GENES)


def by_name(metrics):
    return {(m.model, m.metric): m for m in metrics}


def retrieved(vectors, groups, k):
    """Gene by gene: (mates found, mates asked for), no ties."""
    found = {}
    for gene in GENES:
        mates = {g for g in GENES if g != gene and groups[g] == groups[gene]}
        cosine = {
            g: vectors.loc[gene] @ vectors.loc[g]
            / np.linalg.norm(vectors.loc[gene]) / np.linalg.norm(vectors.loc[g])
            for g in GENES if g != gene
        }  # fmt: skip
        nearest = sorted(cosine, key=cosine.get, reverse=True)[:k]
        found[gene] = len(mates & set(nearest)), min(len(mates), k)
    return found


@pytest.mark.parametrize("k", [1, 2, 5, 23, 50])
def test_retrieval_is_the_loop_over_genes(k):
    vectors, groups = make_vectors(0.7), GROUPS.copy()
    groups["g4"] = np.nan
    found = by_name(retrieval_metrics({"m": vectors}, groups, GENES, ks=(k,)))
    expected = retrieved(vectors, groups, k)
    hits, wanted = (sum(column) for column in zip(*expected.values(), strict=True))
    metric = found["m", f"retrieval_at_{k}"]
    assert metric.value == pytest.approx(hits / wanted)
    assert metric.n == wanted
    assert metric.ci_low is None


def test_resampled_blocks_are_repeated_genes():
    vectors = make_vectors(0.7)
    found = by_name(
        retrieval_metrics({"m": vectors}, GROUPS, GENES, blocks=BLOCKS, ks=(2,), n_bootstrap=200)
    )
    expected = retrieved(vectors, GROUPS, 2)
    values = []
    for counts in make_draws(4, 200, seed=0)[1:]:
        rows = [expected[g] for g in GENES for _ in range(counts[BLOCKS[g]])]
        values.append(sum(h for h, _ in rows) / sum(w for _, w in rows))
    metric = found["m", "retrieval_at_2"]
    low, high = interval(np.array([metric.value, *values]), 4, (0.0, 1.0))
    assert (metric.ci_low, metric.ci_high) == pytest.approx((low, high))
    assert low < metric.value < high


def test_mates_that_share_a_vector_are_found_and_noise_is_not():
    planted, noise = make_vectors(30.0), make_vectors(0.0)
    found = by_name(
        retrieval_metrics(
            {"planted": planted, "noise": noise}, GROUPS, GENES, blocks=BLOCKS, ks=(1, 2),
            references=("noise",), fold=3, seed=1,
        )
    )  # fmt: skip
    assert found["planted", "retrieval_at_1"].value == 1
    assert found["planted", "retrieval_at_2"].value == 1
    assert found["noise", "retrieval_at_2"].value < 0.4
    assert found["planted", "alignment"].value < 0.1 < 1 < found["noise", "alignment"].value
    difference = found["planted - noise", "retrieval_at_2_difference"]
    assert difference.value == pytest.approx(1 - found["noise", "retrieval_at_2"].value)
    assert difference.ci_low > 0
    assert (difference.fold, difference.seed, difference.split) == (3, 1, "test")
    assert not any(m == "alignment_difference" for _, m in found)


def test_vectors_all_alike_are_as_good_as_guessing():
    unit = np.ones((24, 1))
    hits, asked = expected_hits(unit, mates(GROUPS, GENES), 5)
    np.testing.assert_allclose(hits, 5 * 2 / 23)
    assert (asked == 2).all()


def test_a_tie_across_the_last_place_counts_its_share():
    # From gene 0: gene 1 is nearest, genes 2 and 3 are equally near, gene 4 is far.
    angle = np.array([0.0, 0.1, 0.5, -0.5, 3.0])
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    is_mate = np.zeros((5, 5), bool)
    is_mate[0, 3] = is_mate[3, 0] = True
    hits, _ = expected_hits(unit, is_mate, 2)
    assert hits[0] == pytest.approx(0.5)


def test_pairs_that_are_not_shown_are_neither_found_nor_asked_for():
    vectors = make_vectors(0.7)
    is_shown = np.random.default_rng(1).random((24, 24)) < 0.7
    is_shown &= is_shown.T
    (metric, *_) = retrieval_metrics({"m": vectors}, GROUPS, GENES, is_shown=is_shown, ks=(2,))
    hits = wanted = 0
    unit = vectors.to_numpy() / np.linalg.norm(vectors.to_numpy(), axis=1, keepdims=True)
    for i in range(24):
        shown = [j for j in range(24) if j != i and is_shown[i, j]]
        nearest = sorted(shown, key=lambda j, i=i: unit[i] @ unit[j])[-2:]
        hits += sum(j // 3 == i // 3 for j in nearest)
        wanted += min(2, sum(j // 3 == i // 3 for j in shown))
    assert metric.value == pytest.approx(hits / wanted)
    assert metric.n == wanted


def test_windows_overlap_round_a_circle_and_never_across_contigs(tiny_bundle):
    genes = pd.Index(tiny_bundle.genes["gene_id"])
    tss = tiny_bundle.genes["tss"].to_numpy()
    found = do_not_overlap(tiny_bundle, genes, 4096)
    length = tiny_bundle.genome.length
    for i, one in enumerate(tss % length):
        for j, two in enumerate(tss % length):
            apart = min(abs(one - two + turn * length) for turn in (-1, 0, 1))
            assert found[i, j] == (apart >= 4096), (i, j)
    contigs = np.where(np.arange(len(genes)) % 2, "chr", "other")
    two = with_contigs(tiny_bundle, contigs)
    assert do_not_overlap(two, genes, 4096)[::2, 1::2].all()


def with_contigs(bundle, names):
    """The same genes on two contigs."""
    genome = make_genome(bundle.genome.length, bundle.genome.length, names=("chr", "other"))
    return dataclasses.replace(bundle, genome=genome, genes=bundle.genes.assign(contig=names))


def test_mates_are_the_others_of_a_group():
    groups = GROUPS.copy()
    groups[["g0", "g7"]] = np.nan
    order = GENES[::-1]
    is_mate = mates(groups, order)
    for a, one in enumerate(order):
        for b, two in enumerate(order):
            assert is_mate[a, b] == (a != b and groups[one] == groups[two])
    assert not mates(groups, pd.Index(["g0", "g7"])).any()


def test_alignment_and_uniformity_are_their_formulas():
    vectors = make_vectors(1.0)
    found = by_name(retrieval_metrics({"m": vectors}, GROUPS, GENES))
    unit = [row / np.linalg.norm(row) for row in vectors.to_numpy()]
    pairs = [(a, b) for a in range(24) for b in range(a + 1, 24)]
    apart = {(a, b): ((unit[a] - unit[b]) ** 2).sum() for a, b in pairs}
    mates = [apart[a, b] for a, b in pairs if a // 3 == b // 3]
    assert found["m", "alignment"].value == pytest.approx(np.mean(mates))
    potential = [np.exp(-2 * apart[pair]) for pair in pairs]
    assert found["m", "uniformity"].value == pytest.approx(np.log(np.mean(potential)))
    assert found["m", "alignment"].n == len(mates)
    assert found["m", "uniformity"].n == len(pairs)


def test_uniformity_of_a_resample_never_pairs_a_gene_with_itself():
    unit = make_vectors().to_numpy()[:6]
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    block = np.array([0, 0, 1, 1, 2, 2])
    draws = make_draws(3, 10, seed=1)
    found = uniformity_draws(unit, block, draws)
    for row, counts in enumerate(draws):
        genes = [g for g in range(6) for _ in range(counts[block[g]])]
        terms = [
            np.exp(-2 * ((unit[a] - unit[b]) ** 2).sum())
            for i, a in enumerate(genes) for j, b in enumerate(genes) if i != j and a != b
        ]  # fmt: skip
        assert found[row] == pytest.approx(np.log(np.mean(terms)))


def everyone(genes):
    return np.ones((len(genes), len(genes)), bool)


def drowned_vectors(n_groups=40):
    """Mates are alike in ten columns out of forty; the others say one thing that tells nothing."""
    generator = np.random.default_rng(3)
    genes = pd.Index([f"g{i}" for i in range(3 * n_groups)], name="gene_id")
    groups = pd.Series(np.arange(len(genes)) // 3, genes)
    alike = generator.normal(size=(n_groups, 10))[groups]
    noise = 0.4 * generator.normal(size=(len(genes), 10))
    loud = generator.normal(size=(len(genes), 1)) + 0.05 * generator.normal(size=(len(genes), 30))
    return pd.DataFrame(np.hstack([alike + noise, loud]) * 3 + 100, genes), groups


def test_directions_that_most_genes_share_do_not_drown_the_others():
    vectors, groups = drowned_vectors()
    training, held_out = [vectors.index[:30], vectors.index[30:60]], vectors.index[60:]
    found = whitened(vectors, training, groups, everyone)
    assert found.index.equals(vectors.index)
    plain = (vectors - vectors.mean()) / vectors.std()
    scores = by_name(
        retrieval_metrics({"plain": plain, "whitened": found}, groups, held_out, ks=(2,))
    )
    values = [scores[name, "retrieval_at_2"].value for name in ("plain", "whitened")]
    assert values[1] > values[0] + 0.2


def test_only_training_genes_decide_what_is_made_small():
    vectors, groups = drowned_vectors()
    vectors["flat"] = 7.0
    training, held_out = [vectors.index[:30], vectors.index[30:60]], vectors.index[60:]
    first = whitened(vectors, training, groups, everyone)
    changed = vectors.copy()
    changed.loc[held_out] = np.random.default_rng(0).normal(size=(len(held_out), 41))
    again = whitened(changed, training, groups, everyone)
    pd.testing.assert_frame_equal(first.loc[vectors.index[:60]], again.loc[vectors.index[:60]])
    assert np.isfinite(again.to_numpy()).all()


def test_what_cannot_be_asked_is_refused():
    vectors = {"m": make_vectors()}
    with pytest.raises(InputError, match="k 0, expected at least 1"):
        retrieval_metrics(vectors, GROUPS, GENES, ks=(0,))
    with pytest.raises(InputError, match="no two of 3 genes in one group"):
        retrieval_metrics(vectors, GROUPS, GENES[::9])
    with pytest.raises(InputError, match="'g5' without a vector"):
        retrieval_metrics({"m": make_vectors().drop("g5")}, GROUPS, GENES)
    with pytest.raises(InputError, match="'g5' without a block"):
        retrieval_metrics(vectors, GROUPS, GENES, blocks=BLOCKS.drop("g5"))
    with pytest.raises(InputError, match="not finite"):
        retrieval_metrics({"m": make_vectors() * np.nan}, GROUPS, GENES)
    with pytest.raises(InputError, match=r"references \['n'\]"):
        retrieval_metrics(vectors, GROUPS, GENES, references=("n",))

"""Bits by region and beside count models, base by base."""

import numpy as np
import pytest
import torch
from tiny_genomes import make_genome
from tiny_runs import config

from genesplice.baselines.features import fit_count_model
from genesplice.data.windows import make_random_windows
from genesplice.evaluate.bootstrap import interval, make_draws
from genesplice.model.genesplice import PretrainingModel
from genesplice.training.batches import mask_bases
from genesplice.training.evaluation import masked_base_metrics

INTERVALS = [("c1", 0, 9000)]


@pytest.fixture(scope="module")
def genome():
    return make_genome(4000, 9000, circular=("c0", "c1"))


def constant_model(*logits):
    model = PretrainingModel(config().model, 8)
    with torch.no_grad():
        model.masked_bases.weight.zero_()
        model.masked_bases.bias.copy_(torch.tensor(logits))
    return model


def targets(genome, n_windows, seed=0):
    """(window, place in the window, place in the genome, base) of every base that is asked for."""
    generator = np.random.default_rng([seed, 7])
    windows = make_random_windows(INTERVALS, 2048, n_windows, generator)
    rows = np.stack([genome.fetch(w.contig, w.start, w.end) for w in windows])
    hits = mask_bases(torch.from_numpy(rows), 1 / 32, 1, generator).numpy()
    return rows, [
        (w, at, 4000 + (windows[w].start + at) % 9000, rows[w, at])
        for w in range(n_windows)
        for at in range(2048)
        if hits[w, at]
    ]


def by_name(metrics):
    return {(m.model, m.metric): m for m in metrics}


def test_each_model_is_scored_on_the_same_bases_and_regions(genome):
    regions = {
        "first": np.arange(13_000) < 8000,
        "third": np.arange(13_000) % 3 == 0,
        "nowhere": np.arange(13_000) < 100,
    }
    counted = fit_count_model(genome, [("c0", 0, 4000)], 2, 2)
    found = by_name(
        masked_base_metrics(
            {"genesplice": constant_model(1.0, 0.0, 0.0, 0.0)}, genome, INTERVALS,
            window_bp=2048, n_windows=6,
            counts=[counted], regions=regions, fold=3, is_strand_averaged=False,
        )
    )  # fmt: skip
    rows, asked = targets(genome, 6)
    told = np.array([np.e, 1, 1, 1]) / (np.e + 3)
    kinds = {"": lambda place: True, "_first": lambda place: place < 8000,
             "_third": lambda place: place % 3 == 0}  # fmt: skip
    for suffix, is_kind in kinds.items():
        here = [(w, at, base) for w, at, place, base in asked if is_kind(place)]
        p = [told[base] for _, _, base in here]
        q = [counted.probabilities(rows[w])[at] for w, at, _ in here]
        bits = found["genesplice", "bits_per_base" + suffix]
        assert bits.value == pytest.approx(-np.log2(p).mean(), abs=1e-6)
        assert bits.n == len(here)
        counts = found["count_two_sided", "bits_per_base" + suffix]
        right = [row[base] for row, (_, _, base) in zip(q, here, strict=True)]
        assert counts.value == pytest.approx(-np.log2(right).mean())
        top = [row.argmax() == base for row, (_, _, base) in zip(q, here, strict=True)]
        assert found["count_two_sided", "masked_top_1" + suffix].value == pytest.approx(
            np.mean(top)
        )
    assert not any(metric.endswith("_nowhere") for _, metric in found)
    assert {m.fold for m in found.values()} == {3}


def test_the_difference_is_resampled_together(genome):
    counted = fit_count_model(genome, [("c0", 0, 4000)], 1, 0)
    level, biased = constant_model(0.0, 0.0, 0.0, 0.0), constant_model(3.0, 0.0, 0.0, 3.0)
    models = {"genesplice": level, "biased": biased, "genome_alone": biased}
    found = by_name(
        masked_base_metrics(
            models, genome, INTERVALS, window_bp=2048, n_windows=8, counts=[counted]
        )
    )  # fmt: skip
    # Count models read no relatives, and are compared with what reads none as well.
    fair = found["genome_alone - count_one_sided", "bits_per_base_difference"]
    one, two = (found[m, "bits_per_base"] for m in ("genome_alone", "count_one_sided"))
    assert fair.value == pytest.approx(one.value - two.value)
    assert fair.ci_low < fair.value < fair.ci_high
    assert ("genome_alone - biased", "bits_per_base_difference") not in found
    other = found["genesplice - biased", "bits_per_base_difference"]
    assert other.value == pytest.approx(2 - found["biased", "bits_per_base"].value, abs=1e-6)
    assert other.ci_high < 0
    difference = found["genesplice - count_one_sided", "bits_per_base_difference"]
    own, counts = (found[m, "bits_per_base"] for m in ("genesplice", "count_one_sided"))
    assert own.value == pytest.approx(2, abs=1e-6)
    assert difference.value == pytest.approx(own.value - counts.value)
    # One side never changes, so that the difference moves as the other does.
    assert difference.ci_low == pytest.approx(2 - counts.ci_high, abs=1e-6)
    assert difference.ci_high == pytest.approx(2 - counts.ci_low, abs=1e-6)


def test_one_window_has_no_interval(genome):
    models = {"genesplice": constant_model(0.0, 0.0, 0.0, 0.0)}
    bits, _ = masked_base_metrics(models, genome, INTERVALS, window_bp=2048, n_windows=1)
    assert (bits.ci_low, bits.ci_high) == (None, None)


def test_held_out_blocks_are_what_is_resampled(genome):
    blocks = [("c0", 0, 3000), ("c1", -1000, 2500), ("c1", 3000, 7000)]
    model, settings = constant_model(3.0, 0.0, 0.0, 3.0), {"window_bp": 2048, "n_windows": 40}
    bits, _ = masked_base_metrics({"genesplice": model}, genome, blocks, **settings)
    generator = np.random.default_rng([0, 7])
    windows = make_random_windows(blocks, 2048, 40, generator)
    rows = torch.from_numpy(np.stack([genome.fetch(w.contig, w.start, w.end) for w in windows]))
    hits = mask_bases(rows, 1 / 32, 1, generator).numpy()
    told = np.array([np.e**3, 1, 1, np.e**3]) / (2 * np.e**3 + 2)
    of_block = [
        0 if w.contig == "c0" else 1 if w.start < 500 or w.start >= 8000 else 2 for w in windows
    ]
    cost, count = np.zeros(3), np.zeros(3)
    for row, hit, block in zip(rows.numpy(), hits, of_block, strict=True):
        cost[block] -= np.log2(told[row[hit]]).sum()
        count[block] += hit.sum()
    assert (count > 0).all()
    draws = make_draws(3, 1000, 0)
    low, high = interval(draws @ cost / (draws @ count), 3, (0.0, np.inf))
    assert bits.value == pytest.approx(cost.sum() / count.sum(), abs=1e-6)
    assert (bits.ci_low, bits.ci_high) == pytest.approx((low, high), abs=1e-6)

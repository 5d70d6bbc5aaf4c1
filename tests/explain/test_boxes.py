"""Boxes where they were planted, counts beside chance, and scores beside their control."""

import dataclasses

import numpy as np
import pandas as pd

from genesplice.data.genome import encode
from genesplice.data.motifs import find_promoter
from genesplice.explain.motifs import (
    MotifScanner,
    SiteScore,
    motif_counts,
    regulator_motifs,
    regulator_targets,
    score_table,
    site_scores,
    site_table,
    upstream,
)
from genesplice.results import Attribution


def random_tokens(length, seed):
    return np.random.default_rng(seed).integers(0, 4, length).astype(np.uint8)


def plant(tokens, at, word):
    tokens[at : at + len(word)] = encode(word)
    return tokens


def test_regulators_are_matched_by_gene_name(tiny_bundle):
    targets = regulator_targets(tiny_bundle)
    truth = tiny_bundle.manifest["truth"]["targets"]
    assert set(targets) == {"syn0", "syn1"}
    for i in (0, 1):
        wanted = {gene for gene, edge in truth.items() if edge["regulator"] == f"g000{i}"}
        assert set(targets[f"syn{i}"]) == wanted - {f"g000{i}"}
    matrix = np.full((6, 4), 0.25)
    motifs = {"Syn0_6-1": matrix, "Syn0_6-2": matrix, "Nobody_6-1": matrix}
    named = dataclasses.replace(tiny_bundle, motifs=motifs)
    assert {name: set(found) for name, found in regulator_motifs(named).items()} == {
        "syn0": {"Syn0_6-1", "Syn0_6-2"}
    }


def test_sites_are_counted_beside_shuffles():
    motif = "TGTGATCACATT"
    scanner = MotifScanner(
        {"reg": np.eye(4)[encode(motif)] * 0.96 + 0.01}, false_positive_rate=1e-6
    )
    sequences = {f"g{i}": random_tokens(300, i) for i in range(30)}
    for i in range(12):
        plant(sequences[f"g{i}"], 100 + i, motif)
    targets = {"reg": [f"g{i}" for i in range(16)] + ["unknown"], "idle": ["unknown"]}
    table = motif_counts(
        sequences, targets, {"reg": scanner.scan, "idle": scanner.scan}, n_shuffles=10
    )
    (row,) = table.itertuples()
    assert (row.regulator, row.n_targets, row.found) == ("reg", 16, 12)
    assert row.null_low <= row.expected <= row.null_high < 3
    assert row.elsewhere == 0
    pd.testing.assert_frame_equal(
        table, motif_counts(sequences, targets, {"reg": scanner.scan}, n_shuffles=10)
    )


def test_scores_stand_beside_their_control():
    scores = [SiteScore("a", 12, 15, 0.8, 0.7, 0.9), SiteScore("b", 10, 10, 0.6, 0.5, 0.7)]
    control = [SiteScore("a", 12, 15, 0.51, 0.4, 0.6)]
    table = score_table(scores, control)
    assert table["control"].tolist()[0] == 0.51
    assert np.isnan(table["control"].tolist()[1])
    counts = pd.DataFrame({"regulator": ["a"], "n_targets": [12], "found": [9]})
    assert score_table(scores, control, counts)["found"].tolist()[0] == 9


def test_attribution_on_boxes_is_scored_like_any_site():
    genes = []
    for i in range(15):
        tokens = random_tokens(600, i)
        plant(plant(tokens, 300 - 50, "TTGACA"), 300 - 27, "TATAAT")
        values = np.random.default_rng(i).normal(size=600)
        for start in (300 - 50, 300 - 27):
            values[start : start + 6] *= 8
        genes.append(
            Attribution(f"g{i}", "n", "level", "m", "b", -300, tokens, values, 1.0, 0.0, 0.0)
        )
    assert len(upstream(genes[0], 100)) == 100
    targets = {"hexamers": [one.gene_id for one in genes]}
    table = site_table(genes, targets, {"hexamers": find_promoter}, upstream_bp=100)
    (found,) = site_scores(table)
    assert found.auroc > 0.9
    shuffled = [g._replace(values=np.random.default_rng(7).permutation(g.values)) for g in genes]
    table = site_table(shuffled, targets, {"hexamers": find_promoter}, upstream_bp=100)
    assert abs(site_scores(table)[0].auroc - 0.5) < 0.2

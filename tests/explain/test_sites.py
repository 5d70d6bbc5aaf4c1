"""Planted sites with planted attributions are found, and random attributions are at chance."""

import numpy as np
import pytest

from genesplice.data.genome import encode
from genesplice.explain.motifs import MotifScanner, site_metrics, site_scores, site_table
from genesplice.results import Attribution

MOTIF = "TGTGATCACATT"
SCANNER = MotifScanner({"reg": np.eye(4)[encode(MOTIF)] * 0.96 + 0.01}, false_positive_rate=1e-6)


def genes(contrast: float, count: int = 30) -> list[Attribution]:
    """Genes with one site at -60; its bases have attributions larger by `contrast`."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        tokens = rng.integers(0, 4, 1024).astype(np.uint8)
        tokens[512 - 60 : 512 - 48] = encode(MOTIF)
        values = rng.normal(size=1024) * 10.0 ** rng.integers(-3, 3)
        values[512 - 60 : 512 - 48] *= 1 + contrast
        found.append(
            Attribution(f"g{i}", f"g{i}", "level", "m", "b", -512, tokens, values, 1.0, 0.0, 0.0)
        )
    return found


TARGETS = {"reg": [f"g{i}" for i in range(30)]}


def scores(contrast: float, **options):
    table = site_table(genes(contrast), TARGETS, {"reg": SCANNER.scan})
    return site_scores(table, **options)


def test_planted_sites_stand_out_and_others_do_not():
    (found,) = scores(5.0)
    # The motif is found on both strands: one site.
    assert sum(len(SCANNER.scan(one.tokens[212:512])) for one in genes(5.0)) > 30
    assert (found.regulator, found.n_targets, found.n_sites) == ("reg", 30, 30)
    assert found.auroc > 0.97
    assert found.ci_low <= found.auroc <= found.ci_high
    (chance,) = scores(0.0)
    assert chance.ci_low < 0.5 < chance.ci_high


def test_values_are_means_over_stretches_that_avoid_the_site():
    # Of one gene nobody can say what is usual.
    table = site_table(genes(5.0, 1), TARGETS, {"reg": SCANNER.scan}, n_random=4)
    first = genes(5.0)[0]
    mine = table[table["gene_id"] == "g0"]
    assert mine["is_site"].tolist() == [True] + [False] * 4
    site = np.abs(first.values[512 - 60 : 512 - 48]).mean()
    assert mine["value"].iloc[0] == pytest.approx(site)
    upstream = np.abs(first.values[512 - 300 : 512])
    means = [upstream[i : i + 12].mean() for i in range(289) if i + 12 <= 240 or i >= 252]
    for value in mine["value"].iloc[1:]:
        assert np.isclose(means, value).any()


def test_the_area_is_a_share_of_pairs():
    table = site_table(genes(1.0), TARGETS, {"reg": SCANNER.scan})
    (found,) = site_scores(table)
    rank = table.groupby("gene_id")["value"].rank(pct=True)
    sites, others = rank[table["is_site"]], rank[~table["is_site"]]
    pairs = [(a > b) + 0.5 * (a == b) for a in sites for b in others]
    assert found.auroc == pytest.approx(np.mean(pairs))


def test_few_targets_are_left_out_and_unknown_genes_ignored():
    assert scores(5.0, min_targets=31) == []
    assert site_metrics([]) == []
    table = site_table(
        genes(5.0), {"reg": ["g1", "nobody"], "other": ["g2"]}, {"reg": SCANNER.scan}
    )
    assert set(table["gene_id"]) == {"g1"}
    mean, one = site_metrics(scores(5.0))
    assert (mean.metric, one.metric) == ("motif_auroc", "motif_auroc:reg")
    assert mean.value == one.value

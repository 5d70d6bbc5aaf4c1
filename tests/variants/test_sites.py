"""Known sites: planted ones are found, and what is no BED is refused by its line."""

import dataclasses

import numpy as np
import pytest
from tiny_variants import make_masked

from genesplice.errors import InputError
from genesplice.variants.likelihood import MaskedBases
from genesplice.variants.measured import read_sites, site_metrics, site_table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def score():
    return MaskedBases(make_masked("model.base_width=0"))


def written(tmp_path, text):
    path = tmp_path / "sites.bed"
    path.write_text(text)
    return path


def test_conserved_sites_are_found_by_the_column_and_not_by_random_weights(
    score, tiny_bundle, tmp_path
):
    # Relatives agree in every box, and are evenly divided everywhere else.
    genome = tiny_bundle.genome
    starts = np.arange(40) * 1500 + 2000
    columns = np.ones((3, genome.length, 5), np.uint8)
    for start in starts:
        here = np.arange(start, start + 6)
        columns[:, here] = 0
        columns[0, here, genome.tokens[here]] = 9
    known = dataclasses.replace(genome, columns=columns)
    bundle = dataclasses.replace(tiny_bundle, genome=known)
    lines = [f"chr\t{start}\t{start + 6}\tbox" for start in starts]
    lines += [f"chr\t{start + 20}\t{start + 24}" for start in starts[:3]]
    sites = read_sites(written(tmp_path, "#bed\n" + "\n".join(lines) + "\n"), bundle)
    assert sites["name"].value_counts().to_dict() == {"box": 40, "site": 3}
    table = site_table(score, bundle, sites, n_sites=30)
    per_class = table.groupby("name")["site"].nunique().to_dict()
    assert per_class == {"box": 30, "site": 3}
    box = table[table["name"] == "box"]
    assert (box.groupby("site")["is_site"].sum() == 18).all()
    assert (box.groupby("site").size() == 3 * (6 + 16)).all()
    found = {(m.metric, m.model): m.value for m in site_metrics(table)}
    assert found["auroc_sites_box", "column"] == 1
    assert 0.35 < found["auroc_sites_box", "genesplice"] < 0.65
    assert found["auroc_sites_site", "column"] == pytest.approx(0.5)


def test_flanks_are_bases_of_no_other_site(score, tiny_bundle, tmp_path):
    text = "chr\t5000\t5006\ta\nchr\t5009\t5012\tb\n"
    table = site_table(score, tiny_bundle, read_sites(written(tmp_path, text), tiny_bundle))
    flanks = table[~table["is_site"]].groupby("name").size().to_dict()
    assert flanks == {"a": 3 * (16 - 3), "b": 3 * (16 - 5)}
    assert not table["llr_column"].any()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("chr 5 9", "sites.bed:1: found 1 tab-separated columns, expected BED"),
        ("chr\t5\tx", "bed:1: found coordinates '5'-'x', expected whole numbers, start <="),
        ("chr\t9\t5", "bed:1: found coordinates '9'-'5', expected whole numbers, start <="),
        ("other\t5\t9", "contig 'other'"),
        ("chr\t5\t999999999", "end 999999999, expected at most"),
        ("chr\t9\t9", "a site of 0 bp"),
        ("chr\t9\t900", "a site of 891 bp, expected 1 to 100"),
        ("#", "no site"),
    ],
)
def test_what_is_no_site_is_refused(tiny_bundle, tmp_path, line, message):
    with pytest.raises(InputError, match=message):
        read_sites(written(tmp_path, line + "\n"), tiny_bundle)

"""Promoter design: brute force, a planted promoter, protected positions, the verb."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import call
from tiny_models import make_tiny, make_vectors

from genesplice.data.genome import encode
from genesplice.errors import InputError
from genesplice.results import read_metrics
from genesplice.variants.alleles import Region
from genesplice.variants.design import (
    PromoterLevels,
    design,
    design_metrics,
    editable_positions,
    step_table,
)
from genesplice.variants.levels import LevelModel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def level_model(tiny_bundle):
    model = make_tiny(tiny_bundle)
    return LevelModel(model, tiny_bundle, gene_features=make_vectors(model, tiny_bundle))


@pytest.fixture(scope="module", params="+-")
def levels(level_model, tiny_bundle, request):
    genes = tiny_bundle.genes
    gene_id = genes.loc[genes["strand"] == request.param, "gene_id"].iloc[4]
    return PromoterLevels([level_model], tiny_bundle, gene_id)


def every_edit(levels, positions):
    """All substitutions of some positions, one each."""
    return [
        (distance, base)
        for distance in positions.tolist()
        for base in range(4)
        if base != levels.tokens[distance + levels.window.start]
    ]


@pytest.mark.parametrize("towards", ["up", "down"])
def test_a_wide_search_finds_what_brute_force_finds(levels, towards):
    positions = np.array([-35, -12, -7])
    single = every_edit(levels, positions)
    pairs = [(a, b) for a, b in itertools.combinations(single, 2) if a[0] != b[0]]
    sign = 1 if towards == "up" else -1
    found = design(levels, towards, positions, n_edits=2, beam=99, n_random=4)
    for step, tried in ((1, [(one,) for one in single]), (2, pairs)):
        level = levels(tried)[:, 0]
        best = int(np.argmax(sign * level))
        if step == len(found.steps):
            # It ended here: nothing is better.
            assert sign * level[best] <= sign * found.levels[-1, 0] + 1e-6
            break
        assert set(found.steps[step]) == set(tried[best])
        assert found.levels[step, 0] == pytest.approx(level[best], abs=1e-5)
    assert len(found.steps) > 1
    start = levels([()])[0, 0]
    assert found.levels[0, 0] == pytest.approx(start, abs=1e-6)
    assert found.change * sign > 0
    assert (sign * found.random <= sign * found.change + 1e-6).all()


def test_the_gradient_is_that_of_small_changes(levels):
    positions = np.array([-40, -10])
    slope = levels.first_order((), positions)
    (explainer,) = levels.explainers
    function = explainer.forward_function(levels.window)
    for i, distance in enumerate(positions):
        at, step = distance + levels.window.start, 1e-2
        for base in range(4):
            bases = function.bases.clone()
            bases[0, at] = (1 - step) * bases[0, at] + step * torch.eye(4)[base]
            with torch.no_grad():
                change = float(function(bases) - function(function.bases))
            assert slope[i, base] == pytest.approx(change / step, abs=2e-3)


class Planted(PromoterLevels):
    """Levels that count the bases of TATAAT 12 to 7 before the start; its gradient is exact."""

    wanted = encode("TATAAT")

    def __call__(self, variants):
        windows = [self.edited(edits) for edits in variants]
        box = slice(self.window.start - 12, self.window.start - 6)
        return np.array([[float((window[box] == self.wanted).sum())] for window in windows])

    def first_order(self, edits, positions):
        now = self((edits,))[0, 0]
        return np.array([
            [self(((*edits, (int(at), base)),))[0, 0] - now for base in range(4)]
            for at in positions
        ])  # fmt: skip


def test_a_planted_promoter_is_found_and_chance_does_not_find_it(level_model, tiny_bundle):
    levels = Planted([level_model], tiny_bundle, tiny_bundle.genes["gene_id"][4])
    found = design(levels, "up", np.arange(-60, 0), n_edits=6, beam=2)
    box = slice(levels.window.start - 12, levels.window.start - 6)
    assert (levels.edited(found.steps[-1])[box] == levels.wanted).all()
    assert found.levels[-1, 0] == 6
    assert found.change > found.random.max() + 1
    metrics = {m.metric: m for m in design_metrics(found, "test")}
    random = metrics["design_random_change"]
    assert random.ci_low <= random.value <= random.ci_high < metrics["design_change"].value
    # Where nothing is left to gain the search ends.
    assert metrics["design_edits"].value == len(found.steps) - 1 <= 6


def test_what_is_protected_or_another_genes_or_unknown_stays(tiny_bundle):
    genes = tiny_bundle.genes
    for strand in "+-":
        gene = genes[genes["strand"] == strand].iloc[4]
        at = {-d: int(gene.start) - d if strand == "+" else int(gene.end) - 1 + d
              for d in range(1, 1201)}  # fmt: skip
        keep = Region("chr", min(at[-30], at[-40]), max(at[-30], at[-40]) + 1)
        positions = editable_positions(
            tiny_bundle, gene.gene_id, upstream_bp=1200, protected=[keep]
        )
        others = genes[genes["gene_id"] != gene.gene_id]
        expected = [
            distance
            for distance in range(-1200, 0)
            if not keep.start <= at[distance] < keep.end
            and not ((others["start"] <= at[distance]) & (others["end"] > at[distance])).any()
        ]
        assert positions.tolist() == expected
        assert not set(range(-40, -29)) & set(positions.tolist())
        everything = Region("chr", 0, tiny_bundle.genome.length)
        with pytest.raises(InputError, match="no base of the 200 before"):
            editable_positions(tiny_bundle, gene.gene_id, protected=[everything])


def test_steps_are_written_as_a_vcf_would(levels, tiny_bundle):
    found = design(levels, "down", np.arange(-50, 0), n_edits=2, beam=1, n_random=2)
    table = step_table(levels, found, tiny_bundle)
    assert table.groupby("step").size().to_dict() == {1: 1, 2: 2}
    for row in table.itertuples():
        base = tiny_bundle.genome.fetch("chr", row.position - 1, row.position)[0]
        assert row.ref == "ACGT"[base] != row.alt
    for bad in ({"n_edits": 0}, {"beam": 0}, {"n_screened": 0}):
        with pytest.raises(InputError, match="expected 1 or more"):
            design(levels, "up", np.arange(-50, 0), **bad)
    with pytest.raises(InputError, match="--towards sideways"):
        design(levels, "sideways", np.arange(-50, 0))


def test_the_command(level_model, tiny_bundle, tmp_path):
    folder = tmp_path / "fold0_seed0"
    level_model.model.save_pretrained(folder)
    gene_id = tiny_bundle.test_genes(0)[0]
    words = ["design", "--model", folder, "--data", tiny_bundle.path, "--gene", gene_id,
             "--towards", "up", "--out", tmp_path / "out"]  # fmt: skip
    (folder / "inputs.json").write_text(json.dumps(tiny_bundle.data_sha256))
    answer = call(*words, "--edits", "2")
    assert answer.code == 0, answer.err
    table = pd.read_csv(tmp_path / "out" / "steps.tsv", sep="\t")
    metrics = {m.metric: m for m in read_metrics(tmp_path / "out" / "metrics.json")}
    assert metrics["design_change"].value == pytest.approx(table["change"].iloc[-1], abs=1e-4)
    assert metrics["design_change"].split == "test"
    assert (tmp_path / "out" / "designed.fasta").read_text().count(">") == 2
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["config"]["gene_id"] == gene_id
    assert call(*words).code == 2
    # Trained on the gene, or with other folds.
    other = [tiny_bundle.train_genes(0)[0] if one == gene_id else one for one in words]
    for trained_on_it, again in (({}, words), (tiny_bundle.data_sha256, other)):
        (folder / "inputs.json").write_text(json.dumps(trained_on_it))
        assert call(*again, "--overwrite", "--edits", "1").code == 0
        records = read_metrics(tmp_path / "out" / "metrics.json")
        assert {one.split for one in records} == {"train"}

"""What of an attribution is the sequence's and what the relatives', on the right strand."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_genomes import make_relatives
from tiny_models import SMALL, make_tiny, make_vectors
from torch import nn

import genesplice as gs
from genesplice.data.relatives import GROUPS
from genesplice.explain.attribution import (
    GROUP_CHANNELS,
    METHODS,
    EnsembleExplainer,
    Settings,
    attribute,
    attribute_gene,
    attribution_table,
)
from genesplice.explain.faithfulness import (
    explain_genes,
    part_metrics,
    part_table,
    with_conservation,
)
from genesplice.model.genesplice import PretrainingModel
from genesplice.predict.gene_output import Explainer, MeanOutput
from genesplice.results import Attribution

LENGTH = 48


class Sums(nn.Module):
    """A sum over bases, one over columns, and with `mix` their product."""

    def __init__(self, mix: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.of_bases = torch.randn(LENGTH, 4, generator=generator)
        self.of_columns = torch.randn(LENGTH, 3 * GROUP_CHANNELS, generator=generator)
        self.mix = mix

    def forward(self, bases, columns):
        one = (bases * self.of_bases).sum((1, 2))
        other = (columns * self.of_columns).sum((1, 2))
        return one + other + self.mix * one * other


@pytest.fixture(scope="module")
def asked():
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 4, (2, LENGTH), generator=generator)
    bases, references = torch.eye(4)[tokens[:1]], torch.eye(4)[tokens[1:]]
    return bases, torch.rand(1, LENGTH, 3 * GROUP_CHANNELS, generator=generator), references


@pytest.mark.parametrize("method", ["ig", "deeplift", "gradientshap"])
def test_a_sum_is_shared_between_bases_and_columns(asked, method):
    (bases, columns, references), function = asked, Sums()
    values, delta, output = attribute(function, bases, references, method, relatives=columns)
    of_bases, of_columns = values.split([4, 3 * GROUP_CHANNELS], -1)
    torch.testing.assert_close(
        of_bases, (bases - references) * function.of_bases, atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(of_columns, columns * function.of_columns, atol=1e-5, rtol=1e-5)
    nothing = function(references, torch.zeros_like(columns))
    assert abs(delta) < 1e-4
    assert output - float(nothing) == pytest.approx(float(values.sum()), abs=1e-4)


def test_what_both_do_together_is_shared_along_one_path(asked):
    (bases, columns, references), function = asked, Sums(mix=0.3)
    values, *_ = attribute(function, bases, references, "ig", Settings(8), columns)
    one, other = (bases - references).double(), columns.double()
    total = torch.zeros(1, LENGTH, 4 + other.shape[-1], dtype=torch.float64)
    for step in range(2000):
        share = (step + 0.5) / 2000
        at = references.double() + share * one, share * other
        a, b = (
            (x * w).sum() for x, w in zip(at, (function.of_bases, function.of_columns), strict=True)
        )
        slopes = function.of_bases * (1 + 0.3 * b), function.of_columns * (1 + 0.3 * a)
        total += torch.cat([one * slopes[0], other * slopes[1]], -1) / 2000
    torch.testing.assert_close(values.double(), total, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("method", ["ablation", "occlusion"])
def test_a_group_is_taken_away_alone(asked, method):
    (bases, columns, references), function = asked, Sums()
    values, *_ = attribute(function, bases, references, method, relatives=columns)
    by_group = values[0, :, 4:].reshape(LENGTH, 3, GROUP_CHANNELS)
    for group in range(3):
        part = slice(group * GROUP_CHANNELS, (group + 1) * GROUP_CHANNELS)
        own = (columns * function.of_columns)[0, :, part].reshape(3, 16, GROUP_CHANNELS).sum((1, 2))
        if method == "ablation":
            wanted = own / 16
        else:
            both = own[:-1] + own[1:]
            wanted = torch.stack([both[0], both.mean(), both[1]]) / 32
        found = by_group[:, group].sum(-1).view(3, 16)
        torch.testing.assert_close(found, wanted[:, None].expand(3, 16), atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def bundle(tiny_bundle):
    relatives = make_relatives(tiny_bundle, 7, 3)
    genome = dataclasses.replace(tiny_bundle.genome, columns=relatives.columns)
    return dataclasses.replace(tiny_bundle, genome=genome, relatives=relatives)


@pytest.fixture(scope="module")
def explainer(bundle):
    model = make_tiny(bundle, "model.relatives=true")
    return Explainer(model, bundle, window_bp=2048, vectors=make_vectors(model, bundle))


def gene_on(bundle, strand: str) -> str:
    """One in the middle, whose window does not wrap."""
    inside = bundle.genes["tss"].between(4096, bundle.genome.length - 4096)
    return bundle.genes[inside & (bundle.genes["strand"] == strand)]["gene_id"].iloc[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"deeplift"}))
def test_parts_of_a_gene_sum_to_the_whole_within_the_stated_error(explainer, bundle, method):
    found = attribute_gene(
        explainer, gene_on(bundle, "-"), method=method, steps=4, n_references=2, batch_steps=4
    )
    assert found.by_group.shape == (2048, 3)
    assert (np.abs(found.by_group).max(0) > 0).all()
    whole = found.values.sum() + found.by_group.sum()
    change = found.output - found.baseline_output
    assert whole - change == pytest.approx(found.delta, abs=1e-4)
    row = part_table([found]).set_index("gene_id").loc[found.gene_id]
    parts = row["sequence"] + row["near"] + row["middle"] + row["far"]
    assert parts == pytest.approx(row["change"] - row["missing"], abs=1e-4)
    assert row["far"] == pytest.approx(found.by_group[:, 2].sum())


@pytest.mark.parametrize("strand", "+-")
def test_a_column_counts_where_it_stands_on_the_sense_strand(explainer, bundle, strand):
    gene_id = gene_on(bundle, strand)
    tss = int(bundle.genes.set_index("gene_id").loc[gene_id, "tss"])
    columns = np.zeros_like(bundle.genome.columns)
    position = -37
    at = tss + position if strand == "+" else tss - position
    columns[1, at] = [0, 4, 1, 0, 0]
    alone = dataclasses.replace(
        bundle,
        genome=dataclasses.replace(bundle.genome, columns=columns),
        relatives=bundle.relatives._replace(columns=columns),
    )
    there = Explainer(explainer.model, alone, window_bp=2048, vectors=explainer.vectors)
    found = with_conservation(there, attribute_gene(there, gene_id, steps=4))
    (where,) = np.flatnonzero(np.abs(found.by_group).sum(1))
    assert where + found.offset_bp == position
    assert np.abs(found.by_group[where]).tolist()[::2] == [0, 0]
    counts = [0, 4, 1, 0, 0] if strand == "+" else [0, 1, 4, 0, 0]
    same = counts[found.tokens[where]] if found.tokens[where] < 4 else 0
    assert found.conservation.same[where].tolist() == [0, same, 0]
    assert found.conservation.aligned[where].tolist() == [0, 5, 0]
    assert np.flatnonzero(found.conservation.aligned.sum(1)).tolist() == [where]
    share = (np.array(counts[:4]) + 0.25) / 6
    bits = 2 + (share * np.log2(share)).sum()
    assert found.conservation.information[where] == pytest.approx(bits)
    assert not np.delete(found.conservation.information, where).any()
    table = attribution_table([found]).set_index("position_bp")
    assert table.loc[position, "middle"] == pytest.approx(found.by_group[where, 1])
    assert table.loc[position, "information"] == pytest.approx(bits)


def test_conservation_is_counted_base_by_base(bundle):
    relatives, genome = bundle.relatives, bundle.genome
    plus, minus = (bundle.conservation("chr", 3000, 3200, strand) for strand in "+-")
    assert plus.sizes == {"near": 3, "middle": 2, "far": 2}
    groups = relatives.table["group"].to_numpy()
    for i in range(200):
        for g, group in enumerate(plus.sizes):
            column = relatives.bases[groups == group, 3000 + i]
            own = genome.tokens[3000 + i]
            assert plus.aligned[i, g] == (column <= 4).sum()
            assert plus.same[i, g] == ((column == own) & (own < 4)).sum()
    for one, other in zip(plus[1:4], minus[1:4], strict=True):
        np.testing.assert_allclose(one[::-1], other)


def test_the_mean_of_models_reads_columns_where_one_of_them_does(explainer, bundle):
    plain = make_tiny(bundle, seed=5)
    other = Explainer(plain, bundle, window_bp=2048, vectors=make_vectors(plain, bundle))
    gene_id = gene_on(bundle, "+")
    outputs = [one.forward_function(gene_id) for one in (other, explainer)]
    mean = MeanOutput(outputs)
    assert outputs[0].relatives is None
    assert torch.equal(mean.relatives, outputs[1].relatives)
    with torch.no_grad():
        nothing = torch.zeros_like(mean.relatives)
        wanted = (outputs[0](mean.bases) + outputs[1](mean.bases, nothing)) / 2
        torch.testing.assert_close(mean(mean.bases, nothing), wanted)
        assert not torch.allclose(wanted, mean(mean.bases))
    assert issubclass(EnsembleExplainer, Explainer)


def test_without_relatives_the_sequence_is_all(explainer, tiny_bundle):
    bare = Explainer(explainer.model, tiny_bundle, window_bp=2048, vectors=explainer.vectors)
    found = explain_genes(bare, ["g0004"], steps=2, is_checked=False)
    (one,) = found.attributions
    assert one.by_group is None
    assert one.conservation is None
    assert list(found.parts.columns) == ["gene_id", "name", "sequence", "change", "missing"]
    assert not {"near", "information"} & set(found.table.columns)
    assert not any(m.metric.startswith("attribution_share") for m in found.metrics)


def test_mutagenesis_has_conservation_and_no_parts(explainer, bundle):
    gene_id = gene_on(bundle, "-")
    found = explain_genes(explainer, [gene_id], method="ism", upstream_bp=5, downstream_bp=3)
    (one,) = found.attributions
    gene = bundle.genes.set_index("gene_id").loc[gene_id]
    wanted = bundle.conservation("chr", int(gene["tss"]) - 2, int(gene["tss"]) + 6, "-")
    for a, b in zip(one.conservation[1:4], wanted[1:4], strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.by_group is None


def test_shares_are_means_over_genes():
    def one(values, by_group):
        values, by_group = np.array(values, float), np.array(by_group, float)
        return Attribution("g", "g", "level", "m", "b", 0, np.zeros(2, np.uint8), values,
                           0.0, 0.0, 0.0, by_group)  # fmt: skip

    found = [one([1, -1], [[1, 0, 0], [-1, 0, 0]]), one([0, 1], [[0, 0, 2], [0, 1, 0]]),
             one([0, 0], [[0, 0, 0]] * 2)]  # fmt: skip
    shares = {m.metric.removeprefix("attribution_share_"): m for m in part_metrics(found)}
    wanted = {"sequence": (0.5 + 0.25) / 2, "near": 0.25, "middle": 0.125, "far": 0.25}
    assert {name: m.value for name, m in shares.items()} == pytest.approx(wanted)
    assert {m.n for m in shares.values()} == {2}
    assert part_metrics([one._replace(by_group=None) for one in found]) == []
    assert isinstance(part_table(found), pd.DataFrame)


@pytest.mark.parametrize("strand", "+-")
def test_a_scan_has_the_conservation_of_its_rows(bundle, strand):
    config = gs.override(gs.load_preset("quick"), [*SMALL, "model.relatives=true"])
    masked = PretrainingModel(config.model, 8).eval()
    scan = gs.scan_promoter(masked, bundle, gene_on(bundle, strand), upstream_bp=9, downstream_bp=4)
    relatives, groups = bundle.relatives, bundle.relatives.table["group"].to_numpy()
    assert len(scan.conservation.same) == len(scan.table) == 13
    for row, same in zip(scan.table.itertuples(), scan.conservation.same, strict=True):
        at = row.position - 1
        equal = relatives.bases[:, at] == bundle.genome.tokens[at]
        assert same.tolist() == [int(equal[groups == group].sum()) for group in GROUPS]
    figure = gs.scan_explorer(scan, bundle).figure
    (area,) = [one for one in figure.data if one.name == "far relatives that have this base"]
    assert list(area.y) == scan.conservation.same[:, 2].tolist()
    assert list(area.x) == list(range(-9, 4))

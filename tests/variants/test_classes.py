"""Known classes: planted ones are found, random ones are not."""

import dataclasses
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from tiny_models import make_tiny, make_vectors
from tiny_variants import make_masked

from genesplice.data.coding import coding_sequence, codon_meanings
from genesplice.data.features import find_promoter
from genesplice.data.genome import decode
from genesplice.data.splits import first_of_operon
from genesplice.errors import InputError
from genesplice.explain.mutagenesis import mutate
from genesplice.predict.gene_output import Explainer
from genesplice.predict.models import Models
from genesplice.variants.classes import (
    auroc_metric,
    class_benchmarks,
    class_metrics,
    class_table,
    hexamer_levels,
    listed_metrics,
    read_gene_list,
)
from genesplice.variants.levels import LevelModel
from genesplice.variants.likelihood import MaskedBases

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def score():
    return MaskedBases(make_masked("model.base_width=0"))


# --- listed genes ---


def test_listed_genes_are_compared_by_the_means_of_their_premature_stops():
    rng, rows = np.random.default_rng(2), []
    for gene in range(40):
        for site in ("body", "stop"):
            for is_nonsense in (True, False, None):
                ratios = rng.normal(
                    -1.0 * (gene < 15 and site == "body" and is_nonsense is True), 1
                )
                rows.append((f"g{gene}", site, is_nonsense, ratios, rng.normal(), 0.0))
    columns = ["gene_id", "site", "is_nonsense", "llr", "llr_counts", "llr_column"]
    table = pd.DataFrame([*rows, *rows[:30:2]], columns=columns)
    listed, blocks = [f"g{i}" for i in range(15)], pd.Series({f"g{i}": i // 4 for i in range(40)})
    found = {one.model: one for one in listed_metrics(table, listed, blocks)}
    assert set(found) == {"genesplice", "count_two_sided"}
    for model, column in (("genesplice", "llr"), ("count_two_sided", "llr_counts")):
        means = {}
        for gene in blocks.index:
            own = [row for row in table.itertuples() if row.gene_id == gene]
            values = [getattr(r, column) for r in own if r.site == "body" and r.is_nonsense is True]
            means[gene] = sum(values) / len(values)
        wins = [(means[a] < means[b]) for a in listed for b in means if b not in listed]
        assert found[model].value == pytest.approx(np.mean(wins))
        assert (found[model].metric, found[model].n) == ("auroc_nonsense_listed", 15)
        assert found[model].ci_low < found[model].value < found[model].ci_high


def test_a_list_of_genes_is_read_by_any_name(tiny_bundle, tmp_path):
    genes, path = tiny_bundle.genes, tmp_path / "genes.txt"
    ids = genes["gene_id"].tolist()
    names = [*ids[:15], *genes["name"].str.upper()[15:20]]
    path.write_text("\n".join(["# essential", *(f"{name}\tx" for name in names), "", "nobody"]))
    assert read_gene_list(path, tiny_bundle) == ids[:20]
    path.write_text("\n".join([*names[:10], "nobody", "somebody"]))
    with pytest.raises(InputError, match=r"genes\.txt:11: found gene 'nobody', and 2 of 12"):
        read_gene_list(path, tiny_bundle)
    path.write_text("\n".join(names[:9]))
    with pytest.raises(InputError, match="found 9 genes, expected at least 10"):
        read_gene_list(path, tiny_bundle)


def test_auroc_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    is_case, value = generator.random(200) < 0.3, generator.integers(0, 20, 200).astype(float)
    (found,) = auroc_metric("x", is_case, value, np.arange(200) // 4)
    assert found.value == pytest.approx(roc_auc_score(is_case, value))
    assert (found.n, found.model) == (is_case.sum(), "genesplice")
    # Resamples of whole units: of few large ones the interval is wider.
    (few,) = auroc_metric("x", is_case, value, np.arange(200) // 50)
    assert found.ci_low < found.value < found.ci_high
    assert few.ci_high - few.ci_low > found.ci_high - found.ci_low
    assert auroc_metric("x", np.ones(3, bool), np.ones(3), np.arange(3)) == []


# --- known classes ---


def test_every_row_of_the_table_is_what_it_says(score, tiny_bundle):
    table = class_table(score, tiny_bundle, n_genes=2)
    genes = tiny_bundle.genes.set_index("gene_id")
    assert set(table["gene_id"]) <= set(genes.index)
    for gene_id, part in table.groupby("gene_id"):
        gene = genes.loc[gene_id]
        sense = tiny_bundle.genome.fetch("chr", int(gene.start), int(gene.end), gene.strand)
        start = part[part["site"] == "start"]
        assert len(start) == 9
        assert start["ref"].tolist() == [b for b in ("ACGT"[t] for t in sense[:3]) for _ in "xyz"]
        assert set(start["codon_position"]) == {1, 2, 3}
        assert (part["ref"] != part["alt"]).all()
        assert (part.loc[part["site"].isin(["hexamer", "flank"]), "codon_position"] == 0).all()
        assert (part["site"] == "hexamer").sum() in (0, 36)
    # About one change in 24 makes a stop.
    body = table[table["site"] == "body"]
    assert 0.02 < body["is_nonsense"].astype(bool).mean() < 0.08
    assert not (body["is_nonsense"].astype(bool) & body["is_synonymous"].astype(bool)).any()
    third = table[(table["site"] == "body") & (table["codon_position"] == 3)]
    second = table[(table["site"] == "body") & (table["codon_position"] == 2)]
    assert third["is_synonymous"].mean() > 0.5
    assert second["is_synonymous"].mean() < 0.1


@pytest.mark.parametrize("strand", ["+", "-"])
def test_codons_of_a_spliced_gene_are_those_of_its_own_sequence_and_code(
    score, tiny_bundle, strand
):
    genes = tiny_bundle.genes
    long = (genes["strand"] == strand) & (genes["end"] - genes["start"] > 800)
    one = genes[long].iloc[:1]
    start, end = int(one["start"].iloc[0]), int(one["end"].iloc[0])
    cut = (end - start - 70) % 3
    pieces = [(start, start + 100), (start + 170, end - cut)]
    if strand == "-":
        pieces = [(end - 100, end), (start + cut, end - 170)]
    one = one.assign(exons=[sum(pieces, ())], genetic_code=4)
    table = class_table(score, dataclasses.replace(tiny_bundle, genes=one), n_genes=1)
    read = decode(coding_sequence(tiny_bundle.genome, next(one.itertuples())))
    near = read[:300] + read[-300:]
    for position in (1, 2, 3):
        rows = table[table["codon_position"] == position]
        assert rows.groupby("ref").size().to_dict() == {
            base: 3 * count for base, count in Counter(near[position - 1 :: 3]).items()
        }
    codes = codon_meanings(4)
    codons = [near[i : i + 3] for i in range(0, 600, 3)]
    same = [
        codes[codon] == codes[codon[:i] + alt + codon[i + 1 :]]
        for codon in codons for i in range(3) for alt in "ACGT" if alt != codon[i]
    ]  # fmt: skip
    assert table["is_synonymous"].eq(True).sum() == sum(same)


def test_the_column_says_what_relatives_have(score, tiny_bundle):
    # Every relative has the reference, but one has the next letter at every third base.
    genome = tiny_bundle.genome
    columns = np.zeros((3, genome.length, 5), np.uint8)
    columns[2, np.arange(genome.length), genome.tokens] = 5
    columns[0, np.arange(0, genome.length, 3), (genome.tokens[::3] + 1) % 4] = 1
    known = dataclasses.replace(genome, columns=columns)
    table = class_table(score, dataclasses.replace(tiny_bundle, genome=known), n_genes=3)
    seen = np.log(1.25 / 5.25), np.log(0.25 / 5.25)
    assert set(table["llr_column"].round(9)) == {round(value, 9) for value in seen}
    on_grid = table["llr_column"] > np.log(0.5 / 5.25)
    assert 0.06 < on_grid.mean() < 0.16  # one of three changes at one of three bases
    plain = class_table(score, tiny_bundle, n_genes=3)
    assert not plain["llr_column"].any()
    assert "column" not in {metric.model for metric in class_metrics(plain)}
    assert "column" in {metric.model for metric in class_metrics(table)}


def test_planted_classes_are_told_apart_and_random_ones_are_not():
    generator = np.random.default_rng(0)
    rows = []
    for gene in range(30):
        for place, position, same, count in (
            ("start", 1, False, 9), ("stop", 2, False, 9), ("stop", 3, True, 1),
            ("body", 1, False, 40), ("body", 3, True, 40), ("hexamer", 0, None, 20),
            ("nonsense", 2, False, 5),
            ("flank", 0, None, 20),
        ):  # fmt: skip
            for _ in range(count):
                ref, alt = generator.choice(list("ACGT"), 2, replace=False)
                rows.append((f"g{gene}", place, position, ref, alt, same))
    columns = ["gene_id", "site", "codon_position", "ref", "alt", "is_synonymous"]
    table = pd.DataFrame(rows, columns=columns)
    table["is_nonsense"] = table["site"] == "nonsense"
    table["site"] = table["site"].replace("nonsense", "body")
    noise = generator.normal(0, 0.1, len(table))
    harm = table["site"].map({"start": 3.0, "stop": 3.0, "hexamer": 1.0, "flank": 0.0, "body": 0.0})
    harm += 1.0 * table["is_nonsense"]
    harm += (table["is_synonymous"] == False).astype(float)  # noqa: E712
    found = {m.metric: m for m in class_metrics(table.assign(llr=noise - harm))}
    assert {name for name in found} == {
        "auroc_start", "auroc_stop", "auroc_start_stop", "auroc_codon_12_3",
        "auroc_nonsynonymous", "auroc_nonsense", "auroc_hexamers",
    }  # fmt: skip
    assert all(one.value > 0.99 for one in found.values())
    assert found["auroc_stop"].n == 270
    flat = {m.metric: m for m in class_metrics(table.assign(llr=noise))}
    assert all(one.ci_low - 0.02 < 0.5 < one.ci_high + 0.02 for one in flat.values())
    # A composition that differs is no signal: ratios that follow the two bases alone.
    of_pair = table["ref"].map(ord) * 7.0 + table["alt"].map(ord)
    composed = class_metrics(table.assign(llr=of_pair, llr_counts=noise - harm))
    assert all(abs(m.value - 0.5) < 0.01 for m in composed if m.model == "genesplice")
    assert [m.value for m in composed if m.model == "count_two_sided"] == [
        m.value for m in class_metrics(table.assign(llr=noise - harm))
    ]


def test_classes_say_what_they_are_at(score, tiny_bundle):
    said: list[str] = []
    models = Models(score.model, None, (), ())
    metrics = class_benchmarks(models, tiny_bundle, n_genes=11, progress=said.append)
    assert said[:2] == [f"variants: known classes, gene {n} of 11" for n in (1, 11)]
    cases = {one.partition(": ")[2].partition(":")[0]: one.split()[2] for one in said[2:]}
    assert list(cases) == [
        "start", "stop", "start_stop", "nonsense", "codon_12_3", "nonsynonymous", "hexamers",
    ]  # fmt: skip
    counted = {m.metric.removeprefix("auroc_"): str(m.n) for m in metrics}
    assert counted.items() <= cases.items()
    assert counted
    listed = tiny_bundle.genes["gene_id"][::2].tolist()
    metrics = class_benchmarks(models, tiny_bundle, n_genes=3, listed=listed)
    assert {m.n for m in metrics if m.metric == "auroc_nonsense_listed"} == {3}


def test_hexamers_by_the_predicted_level_are_those_of_mutagenesis(tiny_bundle):
    model = make_tiny(tiny_bundle)
    vectors = make_vectors(model, tiny_bundle)
    level_model = LevelModel(model, tiny_bundle, gene_features=vectors)
    size, loss = hexamer_levels(level_model, tiny_bundle, n_genes=3)
    assert (size.metric, loss.metric) == ("auroc_hexamers_level_size", "auroc_hexamers_level")
    # The genes again, all of their upstream by exact mutagenesis.
    explainer = Explainer(model, tiny_bundle, window_bp=4096, vectors=vectors)
    is_first = first_of_operon(tiny_bundle.genome, tiny_bundle.genes, tiny_bundle.splits)
    measured = is_first.index.isin(tiny_bundle.expression.var_names)
    usable = np.array(is_first.index[is_first & measured])
    is_hexamer, change = [], []
    for gene_id in np.random.default_rng(0).permutation(usable)[:3].tolist():
        window = explainer.window(gene_id)
        hits = find_promoter(window.tokens[0, window.start - 250 : window.start].numpy())
        if not hits:
            continue
        effects = mutate(explainer, gene_id, upstream_bp=250, downstream_bp=0)
        inside = {at for hit in hits for at in range(hit.start, hit.end)}
        for at in range(hits[0].start - 8, min(hits[1].end + 8, 250)):
            for alt in range(4):
                if alt != effects.tokens[at]:
                    is_hexamer.append(at in inside)
                    change.append(effects.effects[at, alt])
    assert size.n == loss.n == sum(is_hexamer) > 0
    for metric, value in ((size, np.abs(change)), (loss, -np.array(change))):
        assert metric.value == pytest.approx(roc_auc_score(is_hexamer, value), abs=2e-3)

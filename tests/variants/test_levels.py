"""Changes of level against the explainer's own full passes; percentiles against counting."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pysam
import pytest
import torch
from tiny_models import make_tiny, make_vectors
from tiny_variants import (
    letters,
    line,
    make_masked,
    other,
    save_masked,
    snv,
    write_lines,
)

from genesplice.data.features import region_masks
from genesplice.errors import InputError
from genesplice.predict.gene_output import Explainer, GeneWindow
from genesplice.variants.alleles import Allele, normalise
from genesplice.variants.annotate import Settings, annotate_vcf
from genesplice.variants.comb import agreement, spread_out, substitutions
from genesplice.variants.levels import GeneChange, LevelModel, Levels, strongest
from genesplice.variants.likelihood import Hidden, MaskedBases, place_window
from genesplice.variants.matched import EDGE_BP, Matched, length_class
from genesplice.variants.models import Models, open_models
from genesplice.variants.regions import REGIONS, region_of, region_track

W = 4096


@pytest.fixture(scope="module")
def vectors(model, tiny_bundle):
    return make_vectors(model, tiny_bundle, seed=3)


@pytest.fixture(scope="module")
def model(tiny_bundle):
    return make_tiny(tiny_bundle)


@pytest.fixture(scope="module")
def levels(model, tiny_bundle, vectors):
    return Levels([LevelModel(model, tiny_bundle, vectors=vectors)], tiny_bundle)


def one_by_one(model, bundle, vectors, window: GeneWindow) -> float:
    """The level of one gene from one sequence, by the explainer."""
    explainer = Explainer(model, bundle, window_bp=W, vectors=vectors)
    function = explainer.forward_function(window)
    with torch.no_grad():
        return float(function(function.bases))


def whole_window(levels, allele, gene, tss, bundle) -> tuple[GeneWindow, int]:
    """The gene's window around an allele, unchanged, on its sense strand."""
    low = place_window(allele.start, W)
    row = bundle.genes.iloc[gene]
    tokens = bundle.genome.fetch("chr", low, low + W, row.strand)
    phase = levels._sequence("chr", row.strand, (), 0, low)[1]
    start = tss if row.strand == "+" else W - 1 - tss
    end = start + int(row.end - row.start)
    window = GeneWindow(gene, row.gene_id, "", -start, start, end,
                        torch.from_numpy(tokens)[None], torch.from_numpy(phase)[None])  # fmt: skip
    return window, low


def test_every_gene_of_a_substitution_is_what_a_full_pass_says(levels, model, tiny_bundle, vectors):
    genome = tiny_bundle.genome
    alleles = [
        normalise(genome, "chr", s, letters(genome, s), other(letters(genome, s)))
        for s in (3, 40_000, 119_990)
    ]
    found = levels(alleles)
    strands = set()
    for allele, changes in zip(alleles, found, strict=True):
        around = levels.genes_around(allele)
        assert [tiny_bundle.genes["gene_id"][gene] for gene, _ in around] == [
            one.gene_id for one in changes
        ]
        for (gene, tss), one in zip(around, changes, strict=True):
            window, low = whole_window(levels, allele, gene, tss, tiny_bundle)
            before = one_by_one(model, tiny_bundle, vectors, window)
            tokens, at = window.tokens.clone(), allele.start - low
            strand = tiny_bundle.genes["strand"][gene]
            strands.add(strand)
            if strand == "+":
                tokens[0, at] = int(allele.alt[0])
            else:
                tokens[0, W - 1 - at] = 3 - int(allele.alt[0])
            after = one_by_one(model, tiny_bundle, vectors, window._replace(tokens=tokens))
            assert one.levels[0] == pytest.approx(before, abs=1e-4)
            assert one.mean == pytest.approx(after - before, abs=1e-4)
            sign = 1 if strand == "+" else -1
            assert one.distance_bp == sign * (at - tss)
    assert strands == {"+", "-"}
    assert max(abs(one.mean) for changes in found for one in changes) > 5e-4


@pytest.mark.parametrize("offset", [-60, 70])
@pytest.mark.parametrize("change", ["insertion", "deletion"])
def test_the_side_without_the_tss_moves(levels, tiny_bundle, offset, change):
    genome, size = tiny_bundle.genome, 7
    for strand in "+-":
        genes = tiny_bundle.genes
        gene = int(np.flatnonzero(genes["strand"] == strand)[3])
        start = int(genes["tss"][gene]) + offset
        nothing, more = np.zeros(0, np.uint8), genome.fetch("chr", start, start + size)
        made = (nothing, more) if change == "insertion" else (more, nothing)
        allele = Allele("chr", start, *made)
        low = place_window(start, W)
        tss = dict(levels.genes_around(allele))[gene]
        n_left = int(offset < 0)
        old = levels._sequence("chr", strand, (), 0, low)
        new = levels._sequence("chr", strand, (allele,), n_left, low)
        assert len(new[0]) == len(new[1]) == W
        before = levels._ends(gene, tss, low, (), 0)
        after = levels._ends(gene, tss, low, (allele,), n_left)
        # The first base of the gene, and all on its side of the change, stay where they are.
        assert after[0] == before[0]
        at = allele.start - low if strand == "+" else W - (allele.end - low)
        length = len(allele.ref)
        is_first = at > before[0]
        kept = slice(0, at) if is_first else slice(at + length, W)
        for i in (0, 1):
            assert np.array_equal(old[i][kept], new[i][kept])
        # The whole: the bases of the changed genome.
        tokens = np.concatenate([
            genome.fetch("chr", start - 500, start), allele.alt,
            genome.fetch("chr", allele.end, allele.end + 500),
        ])  # fmt: skip
        if strand == "-":
            tokens = (3 - tokens)[::-1]
        text, pattern = new[0].tobytes(), tokens.astype(np.uint8).tobytes()
        assert pattern in text


def test_a_gene_in_which_bases_are_lost_ends_earlier(levels, tiny_bundle):
    gene = int(np.flatnonzero(tiny_bundle.genes["strand"] == "+")[3])
    row = tiny_bundle.genes.iloc[gene]
    start = int(row.start) + 100
    nothing, lost = np.zeros(0, np.uint8), tiny_bundle.genome.fetch("chr", start, start + 30)
    allele, low = Allele("chr", start, lost, nothing), place_window(start, W)
    tss = int(row.start) - low
    assert levels._ends(gene, tss, low, (allele,), 0) == (tss, tss + row.end - row.start - 30)
    # A deletion over the very end.
    late = Allele("chr", int(row.end) - 10, lost, nothing)
    low = place_window(late.start, W)
    tss = int(row.start) - low
    assert levels._ends(gene, tss, low, (late,), 0) == (tss, tss + row.end - row.start - 10)


def test_a_reading_frame_moves_with_its_bases(levels, tiny_bundle):
    gene = int(np.flatnonzero(tiny_bundle.genes["strand"] == "+")[3])
    start = int(tiny_bundle.genes["start"][gene]) + 100
    low = place_window(start, W)
    at = start - low
    allele = Allele("chr", start, np.zeros(0, np.uint8), np.array([0, 1], np.uint8))
    old = levels._sequence("chr", "+", (), 0, low)[1]
    new = levels._sequence("chr", "+", (allele,), 0, low)[1]
    assert new[at : at + 2].tolist() == [old[at - 1]] * 2
    assert np.array_equal(new[at + 2 :], old[at:-2])


def test_models_are_averaged_and_their_signs_counted(model, tiny_bundle, vectors):
    readers = [LevelModel(m, tiny_bundle, vectors=vectors)
               for m in (model, make_tiny(tiny_bundle, seed=9))]  # fmt: skip
    ref = letters(tiny_bundle.genome, 40_000)
    allele = normalise(tiny_bundle.genome, "chr", 40_000, ref, other(ref))
    both = Levels(readers, tiny_bundle)([allele])[0]
    for i, reader in enumerate(readers):
        alone = Levels([reader], tiny_bundle)([allele])[0]
        np.testing.assert_allclose(
            [one.changes[i] for one in both], [one.mean for one in alone], atol=1e-6
        )
    change = GeneChange("g", 5, (1.0, 1.0, 2.0), (0.5, -0.1, 0.2), "c", 0.1)
    assert change.agreement == pytest.approx(2 / 3)
    assert change.mean == pytest.approx(0.2)
    assert change.spread == pytest.approx(np.std([0.5, -0.1, 0.2]))
    weaker = change._replace(changes=(-0.1,))
    assert strongest([weaker, change]) is change
    assert strongest([]) is None


def test_a_kernel_path_is_mixed_in_as_by_the_whole_model(tiny_bundle):
    rows = torch.arange(8)
    model = make_tiny(tiny_bundle)
    other = type(model)(
        model.config, conditions=list(model.conditions), regulators=[], effectors=[], pathways=[],
        n_support=8,
    ).eval()  # fmt: skip
    other.expression_head.fit(torch.from_numpy(tiny_bundle.observed.to_numpy(dtype="float32")))
    vectors = make_vectors(other, tiny_bundle)
    reader = LevelModel(other, tiny_bundle, vectors=vectors)
    inputs = other.kernel_inputs(vectors, reader.graph, rows)
    other.kernel.remember(inputs[0], inputs[1].to(torch.int8))
    other.kernel.solve("level", torch.randn(8), [1.0] * len(other.kernel.names), 0.5, 1.0, 2.0)
    other.mix.fill_(0.75)
    genes = torch.tensor([3, 9, 3, 20])
    own = make_vectors(other, tiny_bundle, seed=5)[:4]
    found = reader.predict(genes, own)
    for i, gene in enumerate(genes.tolist()):
        everyone = vectors.clone()
        everyone[gene] = own[i]
        with torch.no_grad():
            wanted = other(everyone, reader.graph, torch.tensor([gene]))
        assert found[i, 0] == pytest.approx(float(wanted.level), abs=1e-4)
        np.testing.assert_allclose(found[i, 1:], wanted.residual[0], atol=1e-4)
    assert np.abs(found[0] - found[2]).max() > 1e-3


def test_what_cannot_be_a_window_is_refused(model, tiny_bundle, vectors):
    reader = LevelModel(model, tiny_bundle, vectors=vectors)
    with pytest.raises(InputError, match="a window of 1000 bp"):
        Levels([reader], tiny_bundle, window_bp=1000)
    empty = Levels([reader], tiny_bundle)
    assert empty([]) == []


# --- classes of places, many hidden bases, percentiles ---


def test_every_base_is_in_one_class(tiny_bundle):
    track, masks = region_track(tiny_bundle), region_masks(tiny_bundle)
    assert set(np.unique(track)) <= set(range(len(REGIONS)))
    assert np.array_equal(track == REGIONS.index("promoter"), masks["promoter"])
    assert np.array_equal(track == REGIONS.index("coding"), masks["coding"])
    place = int(np.flatnonzero(masks["promoter"])[0])
    assert region_of(tiny_bundle.genome, track, "chr", place) == "promoter"


def test_hidden_bases_keep_their_distance():
    order = np.random.default_rng(0).permutation(500)
    chosen = spread_out(order, 500, 32)
    assert np.diff(chosen).min() >= 32
    assert order[0] in chosen
    # Nothing more would fit.
    assert all(np.abs(chosen - place).min() < 32 for place in range(500) if place not in chosen)


@pytest.fixture(scope="module")
def score():
    return MaskedBases(make_masked("model.base_width=0"))


def test_ratios_to_the_base_that_is_there(score, tiny_bundle):
    tokens = tiny_bundle.genome.fetch("chr", 0, 2048)
    tokens[700] = 4
    row = Hidden(tokens, np.array([300, 700, 1300]))
    (change,) = substitutions(score, [row])
    (told,) = score([row])
    assert np.isnan(change[:, 1]).all()
    for i in (0, 2):
        own = tokens[row.places[i]]
        assert (change[:, i, own] == 0).all()
        np.testing.assert_allclose(change[:, i] + told[:, i, own, None], told[:, i])
    metrics = {m.metric: m.value for m in agreement(score, [row], [change])}
    assert metrics["llr_shared_mask_r"] > 0.5
    alone = substitutions(score, [Hidden(tokens, row.places[:1])])[0]
    exact = agreement(score, [Hidden(tokens, row.places[:1])], [alone])
    assert {m.metric: round(m.value, 6) for m in exact} == {
        "llr_shared_mask_r": 1, "llr_shared_mask_rmse": 0
    }  # fmt: skip


def test_a_percentile_counts_matched_variants(score, tiny_bundle):
    track = region_track(tiny_bundle)
    matched = Matched(score, tiny_bundle.genome, track, n_windows=40)
    key = "coding", "A", "C"
    among = matched.found[key]
    assert len(among) > 20
    assert np.array_equal(among, np.sort(among))
    snv = Allele("chr", 5, np.array([0], np.uint8), np.array([1], np.uint8))
    for ratio in (among[3], among.min() - 1, among.max() + 1, np.median(among) + 0.01):
        wanted = 100 * (np.mean(among < ratio) + np.mean(among == ratio) / 2)
        assert matched.percentile(snv, "coding", float(ratio)) == pytest.approx(wanted)
    assert {m.metric for m in matched.metrics} == {"llr_shared_mask_r", "llr_shared_mask_rmse"}
    # Of several bases at once, and of a class that is not there, nothing is said.
    mnv = Allele("chr", 5, np.array([0, 1], np.uint8), np.array([1, 0], np.uint8))
    assert matched.percentile(mnv, "coding", 0.0) is None
    matched.found["other", "A", "C"] = np.zeros(3)
    assert matched.percentile(snv, "other", 0.0) is None
    assert EDGE_BP < 1024


def test_insertions_are_matched_by_length_when_they_are_asked_for(score, tiny_bundle):
    track = region_track(tiny_bundle)
    matched = Matched(score, tiny_bundle.genome, track, n_windows=1, n_indels=20)
    nothing = np.zeros(0, np.uint8)
    allele = Allele("chr", 5, nothing, np.array([0, 1, 2], np.uint8))
    assert not any(key[1] == "insertion" for key in matched.found)
    assert matched.percentile(allele, "coding", -1e9) == 0
    assert matched.percentile(allele, "coding", 1e9) == 100
    assert len(matched.found["coding", "insertion", "2-5"]) == 20
    names = [length_class(Allele("c", 0, nothing, np.zeros(n, np.uint8))) for n in (1, 2, 5, 6, 64)]
    assert names == ["1-1", "2-5", "2-5", "6-64", "6-64"]


# --- all of it in one file ---


def test_all_fields_of_a_file(model, tiny_bundle, tmp_path):
    lines = [snv(tiny_bundle.genome, start) for start in (900, 30_000, 60_000)]
    lines += [line("chr", 70_000, letters(tiny_bundle.genome, 70_000, 3), "T")]
    lines += [snv(tiny_bundle.genome, 119_000), line("chr", 119_500, "N", "<DEL>")]
    source = write_lines(tmp_path / "in.vcf", lines)
    models = Models(make_masked("model.base_width=0"), tmp_path, (model,), (tmp_path,))
    done = annotate_vcf(models, tiny_bundle, source, tmp_path / "o.vcf.gz",
                        settings=Settings(abstain=99.0))  # fmt: skip
    table = pd.read_parquet(tmp_path / "o.parquet")
    genes = pd.read_parquet(tmp_path / "o.genes.parquet")
    assert done.n_alleles == len(table) == len(lines)
    with pysam.VariantFile(str(tmp_path / "o.vcf.gz")) as handle:
        for record, row in zip(handle, table.itertuples(), strict=True):
            if row.flag == "symbolic":
                assert set(record.info) == {"GS_FLAG"}
                continue
            mine = genes[genes["record"] == row.record]
            assert len(mine) == row.n_genes
            if row.n_genes:
                most = mine.loc[mine["dlevel"].abs().idxmax()]
                assert record.info["GS_GENE"] == (most["gene_id"],)
                assert record.info["GS_DLEVEL"][0] == pytest.approx(most["dlevel"], rel=1e-4)
            if row.kind == "snv":
                assert 0 <= record.info["GS_PCT"][0] <= 100
    # The change of the profile is named too.
    assert set(genes["condition"]) <= set(tiny_bundle.observed.columns)
    assert (genes["level"] > 0).any()
    assert {m.metric for m in done.metrics} == {"llr_shared_mask_r", "llr_shared_mask_rmse"}


def test_without_a_masked_base_model_there_is_no_ratio(model, tiny_bundle, tmp_path):
    source = write_lines(tmp_path / "in.vcf", [snv(tiny_bundle.genome, 40_000)])
    models = Models(None, None, (model,), (tmp_path,))
    annotate_vcf(models, tiny_bundle, source, tmp_path / "o.vcf")
    with pysam.VariantFile(str(tmp_path / "o.vcf")) as handle:
        (record,) = handle
        assert set(handle.header.info) & {"GS_LLR", "GS_PCT"} == set()
    assert set(record.info) == {"GS_DLEVEL", "GS_GENE"}
    assert pd.read_parquet(tmp_path / "o.parquet")["llr"].isna().all()


def test_models_that_disagree_withhold_the_change(model, tiny_bundle, tmp_path):
    against = make_tiny(tiny_bundle)
    with torch.no_grad():
        # The same, upside down.
        for name, weight in against.named_parameters():
            if "level" in name:
                weight.neg_()
    source = write_lines(tmp_path / "in.vcf", [snv(tiny_bundle.genome, 40_000)])
    models = Models(None, None, (model, against), (tmp_path, tmp_path))
    done = annotate_vcf(models, tiny_bundle, source, tmp_path / "o.vcf")
    assert done.flags == {"models_disagree": 1}
    with pysam.VariantFile(str(tmp_path / "o.vcf")) as handle:
        (record,) = handle
    assert set(record.info) == {"GS_GENE", "GS_FLAG"}
    row = pd.read_parquet(tmp_path / "o.parquet").iloc[0]
    assert row["agreement"] == 0.5


def test_the_model_that_fine_tuning_began_from_is_found(model, tmp_path):
    pretrained = save_masked(tmp_path / "pre", "model.base_width=0")
    folder = tmp_path / "run" / "fold0_seed0"
    model.save_pretrained(folder)
    assert open_models([folder]).masked is None
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"init": str(pretrained)}))
    found = open_models([folder])
    assert found.masked_path == pretrained
    assert len(found.levels) == 1
    assert open_models([folder], follow=False).masked is None
    with pytest.raises(InputError, match=r"such as .*fold0_seed0"):
        open_models([tmp_path / "run"])
    bundle_free = dataclasses.asdict(found.levels[0].config)
    assert bundle_free["width"] == 16

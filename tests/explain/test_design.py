"""Designed promoters against exhaustive search by full passes; their files against the genome."""

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import make_tiny, make_vectors
from tiny_variants import call, save_masked

from genesplice.data.genome import encode
from genesplice.errors import InputError
from genesplice.explain.explainer import Explainer
from genesplice.explain.variants.design import (
    Design,
    Edit,
    GeneLevels,
    State,
    design,
    parse_aim,
)
from genesplice.explain.variants.design_checks import (
    check_design,
    design_fasta,
    design_metrics,
    step_table,
)
from genesplice.explain.variants.design_places import (
    check_reach,
    editable_places,
    protected_regions,
)
from genesplice.explain.variants.models import trained_on
from genesplice.explain.variants.scan import Region
from genesplice.results import read_metrics

W = 2048
EVERY = 10**6


@pytest.fixture(scope="module")
def explainers(tiny_bundle):
    models = [make_tiny(tiny_bundle, seed=seed) for seed in (0, 9)]
    return [
        Explainer(model, tiny_bundle, window_bp=W, vectors=make_vectors(model, tiny_bundle, seed=3))
        for model in models
    ]


def gene_on(bundle, strand: str, number: int = 3) -> str:
    genes = bundle.genes
    return str(genes["gene_id"][genes["strand"] == strand].iloc[number])


def full_pass(explainers, gene_id, edits) -> float:
    """Mean level, every window encoded whole."""
    told = []
    for explainer in explainers:
        window = explainer.window(gene_id)
        tokens = window.tokens.clone()
        for edit in edits:
            tokens[0, window.start + edit.distance_bp] = edit.base
        function = explainer.forward_function(window._replace(tokens=tokens))
        with torch.no_grad():
            told.append(float(function(function.bases)))
    return float(np.mean(told))


def every_edit(levels, places) -> list[Edit]:
    return [Edit(p, b) for p in places.tolist() for b in range(4) if b != levels.base(p)]


# --- the search ---


@pytest.mark.parametrize(("towards", "best_of"), [("up", max), ("down", min)])
def test_the_first_edit_is_the_best_of_all_by_full_passes(
    explainers, tiny_bundle, towards, best_of
):
    gene_id = gene_on(tiny_bundle, "-")
    levels, places = GeneLevels(explainers, gene_id), np.array([-40, -21, -7])
    found = design(levels, parse_aim(towards), places, n_edits=1, n_screened=EVERY)
    wanted = best_of(full_pass(explainers, gene_id, [one]) for one in every_edit(levels, places))
    assert found.best.level == pytest.approx(wanted, abs=1e-4)
    assert full_pass(explainers, gene_id, found.best.edits) == pytest.approx(wanted, abs=1e-4)
    assert found.steps[0][0].level == pytest.approx(full_pass(explainers, gene_id, []), abs=1e-4)
    assert len(found.best.levels) == 2


def test_a_beam_that_keeps_all_finds_the_best_pair(explainers, tiny_bundle):
    gene_id = gene_on(tiny_bundle, "+")
    levels, places = GeneLevels(explainers, gene_id), np.array([-30, -18])
    wide = design(levels, parse_aim("up"), places, n_edits=2, beam=EVERY, n_screened=EVERY)
    pairs = itertools.product(*(every_edit(levels, np.array([place])) for place in places))
    best = max(full_pass(explainers, gene_id, pair) for pair in pairs)
    # One pair is made in two orders, and kept once.
    assert [len(step) for step in wide.steps] == [1, 6, 9]
    assert wide.best.level == pytest.approx(best, abs=1e-4)
    assert {edit.distance_bp for edit in wide.best.edits} == {-30, -18}


def test_the_gradient_chooses_what_is_tried(explainers, tiny_bundle):
    levels = GeneLevels(explainers, gene_on(tiny_bundle, "+"))
    places = np.arange(-60, 0)
    slope = levels.first_order((), places)
    # Of the base that is there, nothing; of a quarter of a step, a quarter of the change.
    own = [levels.base(place) for place in places.tolist()]
    np.testing.assert_allclose(slope[np.arange(60), own], 0, atol=1e-9)
    exact = np.zeros_like(slope)
    edits = every_edit(levels, places)
    told = levels.predict((), [(edit,) for edit in edits]).mean(1) - levels.predict((), [()]).mean()
    for edit, value in zip(edits, told, strict=True):
        exact[edit.distance_bp + 60, edit.base] = value
    assert np.corrcoef(slope.ravel(), exact.ravel())[0, 1] > 0.9
    few = design(levels, parse_aim("up"), places, n_edits=1, n_screened=1)
    most = np.unravel_index(slope.argmax(), slope.shape)
    assert few.best.edits == (Edit(int(places[most[0]]), int(most[1])),)


def test_it_stops_at_a_wanted_level_and_where_nothing_helps(explainers, tiny_bundle):
    gene_id = gene_on(tiny_bundle, "+")
    levels, places = GeneLevels(explainers, gene_id), np.arange(-80, 0)
    start = full_pass(explainers, gene_id, [])
    one = design(levels, parse_aim("up"), places, n_edits=1)
    aim = parse_aim(f"{one.best.level:.4f}")
    assert aim.is_met(one.best.level)
    met = design(levels, aim, places, n_edits=6, n_screened=EVERY)
    assert abs(met.best.level - aim.value) <= 0.01
    assert len(met.steps) - 1 <= 2
    there = design(levels, parse_aim(str(start)), places[:3], n_edits=4)
    assert (len(there.steps), there.best.edits) == (1, ())
    # Every place is edited once, however many edits there could be.
    few = design(levels, parse_aim("up"), places[-1:], n_edits=5, n_screened=EVERY)
    assert len(few.best.edits) <= 1


def test_the_path_is_that_of_parents():
    steps = (
        (State((), (1.0,)),),
        (State((Edit(-1, 0),), (2.0,), 0), State((Edit(-2, 1),), (1.5,), 0)),
        (
            State((Edit(-2, 1), Edit(-9, 2)), (4.0,), 1),
            State((Edit(-1, 0), Edit(-9, 2)), (3.0,), 0),
        ),
    )
    assert Design("g", parse_aim("up"), steps).path == (0, 1, 0)


def test_what_cannot_be_asked_for(explainers, tiny_bundle):
    levels = GeneLevels(explainers, gene_on(tiny_bundle, "+"))
    assert design(levels, parse_aim("up"), np.zeros(0, np.int64)).best.edits == ()
    with pytest.raises(InputError, match="0 beam, expected 1 or more"):
        design(levels, parse_aim("up"), np.array([-5]), beam=0)
    for text in ("left", "-2", "nan", "inf"):
        with pytest.raises(InputError, match=f"--towards {text}"):
            parse_aim(text)
    check_reach(1280, 4096)
    with pytest.raises(InputError, match="at most 1280 in a window of 4096 bp"):
        check_reach(1281, 4096)


# --- what may be edited ---


def test_protected_places_and_other_genes_are_left_alone(tiny_bundle):
    for strand in "+-":
        gene_id = gene_on(tiny_bundle, strand)
        gene = tiny_bundle.genes.set_index("gene_id").loc[gene_id]
        free = editable_places(tiny_bundle, gene_id, upstream_bp=100, keep_genes=False)
        assert free.tolist() == list(range(-100, 0))
        # The twenty bases next to the start, in the genome's own terms.
        low = gene["start"] - 20 if strand == "+" else gene["end"]
        near = Region("chr", int(low), int(low) + 20)
        left = editable_places(
            tiny_bundle, gene_id, upstream_bp=100, keep_genes=False, protected=[near]
        )
        assert left.tolist() == list(range(-100, -20))
        elsewhere = [near._replace(contig="other")]
        assert len(editable_places(tiny_bundle, gene_id, upstream_bp=100, keep_genes=False,
                                   protected=elsewhere)) == 100  # fmt: skip
        far = editable_places(tiny_bundle, gene_id, upstream_bp=1500)
        assert 0 < len(far) < 1500
        at = gene["start"] + far if strand == "+" else gene["end"] - 1 - far
        others = tiny_bundle.genes[tiny_bundle.genes["gene_id"] != gene_id]
        for other in others.itertuples():
            assert not ((at >= other.start) & (at < other.end)).any()


def test_a_stretch_over_the_origin_is_protected_on_both_sides(tiny_bundle):
    length = tiny_bundle.genome.contig("chr").length
    genes = tiny_bundle.genes.copy()
    moved = genes.index[genes["strand"] == "+"][0]
    genes.loc[moved, ["start", "end", "tss"]] = [30, 900, 30]
    bundle = dataclasses.replace(tiny_bundle, genes=genes)
    gene_id = str(genes["gene_id"][moved])
    regions = [Region("chr", length - 10, length), Region("chr", 0, 5)]
    left = editable_places(bundle, gene_id, upstream_bp=60, keep_genes=False, protected=regions)
    assert left.tolist() == [*range(-60, -40), *range(-25, 0)]


def test_protected_regions_are_read(tiny_bundle, tmp_path):
    bed = tmp_path / "x.bed"
    bed.write_text("track name=x\n# note\nchr\t10\t20\tbox\n\nchr 30 31\n")
    found = protected_regions([str(bed), "chr:101-110"], tiny_bundle.genome)
    assert found == [("chr", 10, 20), ("chr", 30, 31), ("chr", 100, 110)]
    for text, message in (
        ("chr\t10\n", "expected contig, start, end"),
        ("chr\tx\t20\n", "expected contig, start, end"),
        ("chr\t20\t20\n", "20-20, expected start < end"),
        ("chr\t1\t999999999\n", "expected start < end <="),
        ("nine\t1\t2\n", "contig 'nine'"),
    ):
        bed.write_text("# first\n" + text)
        with pytest.raises(InputError, match=message) as caught:
            protected_regions([str(bed)], tiny_bundle.genome)
        assert (caught.value.path, caught.value.line) == (bed, 2)
    with pytest.raises(InputError, match="--protect nowhere:1-2"):
        protected_regions(["nowhere:1-2"], tiny_bundle.genome)


# --- what is written of it ---


@pytest.fixture(scope="module", params="+-")
def made(request, explainers, tiny_bundle):
    gene_id = gene_on(tiny_bundle, request.param)
    levels = GeneLevels(explainers, gene_id)
    places = editable_places(tiny_bundle, gene_id, upstream_bp=60, keep_genes=False)
    found = design(levels, parse_aim("down"), places, n_edits=3, beam=2, n_screened=12)
    return levels, places, found


def test_the_steps_are_changes_of_the_genome(made, explainers, tiny_bundle):
    levels, _, found = made
    table = step_table(levels, found)
    assert table.groupby("step").size().tolist() == [1, 2, 2, 2]
    assert table.groupby("step")["is_on_path"].sum().tolist() == [1] * 4
    path = table[table["is_on_path"]]
    assert path["level"].is_monotonic_decreasing
    np.testing.assert_allclose(path["gain"].cumsum(), path["change"], atol=1e-9)
    # The same changes, made in a genome of its own.
    tokens = np.array(tiny_bundle.genome.tokens)
    for row in path.iloc[1:].itertuples():
        assert "ACGT"[tokens[row.position - 1]] == row.ref
        tokens[row.position - 1] = "ACGT".index(row.alt)
    genome = dataclasses.replace(tiny_bundle.genome, tokens=tokens)
    bundle = dataclasses.replace(tiny_bundle, genome=genome)
    changed = [Explainer(one.model, bundle, window_bp=W, vectors=one.vectors) for one in explainers]
    assert full_pass(changed, found.gene_id, []) == pytest.approx(found.best.level, abs=1e-4)


def test_the_sequences_differ_where_they_were_edited(made):
    levels, _, found = made
    first, before, second, after = design_fasta(levels, found, 60).splitlines()
    assert first.startswith(f">{found.gene_id}_as_it_is ")
    assert second.startswith(f">{found.gene_id}_designed ")
    differ = np.flatnonzero(encode(before) != encode(after)) - 60
    assert sorted(edit.distance_bp for edit in found.best.edits) == differ.tolist()
    for edit in found.best.edits:
        assert "ACGT".index(after[edit.distance_bp]) == edit.base
        assert f"{edit.distance_bp}{before[edit.distance_bp]}>{after[edit.distance_bp]}" in second


def test_a_design_is_checked(made, explainers, tiny_bundle):
    levels, places, found = made
    training = list(tiny_bundle.train_genes(0))
    checked = check_design(explainers, found, places, training, upstream_bp=60, n_random=8)
    np.testing.assert_allclose(
        checked.changes[0], np.subtract(found.best.levels, found.steps[0][0].levels)
    )
    assert checked.changes.shape == (4, 2)
    # The window is another, the sequence around the gene's start the same.
    moved = GeneLevels(explainers, found.gene_id, shift_bp=12)
    kept = levels.window.tokens[0, levels.window.start - 500 : levels.window.start + 300]
    same = moved.window.tokens[0, moved.window.start - 500 : moved.window.start + 300]
    assert torch.equal(kept, same)
    assert moved.window.start == levels.window.start + (
        -12 if gene_strand(tiny_bundle, found) == "+" else 12
    )
    assert len(checked.random) == 8
    assert found.best.level - found.steps[0][0].level < checked.random.min()
    again = check_design(explainers, found, places, training, upstream_bp=60, n_random=8)
    np.testing.assert_array_equal(again.random, checked.random)
    assert checked.is_held_out == (found.gene_id not in training)
    values = {m.metric: m for m in design_metrics(found, checked)}
    change = values["design_change"]
    assert change.ci_low == checked.changes.min() <= change.value <= change.ci_high
    assert values["design_edits"].value == 3
    assert values["design_model_spread"].value == pytest.approx(np.std(checked.changes[0]))
    assert all(m.split == ("test" if checked.is_held_out else "train") for m in values.values())


def gene_strand(bundle, found) -> str:
    return str(bundle.genes.set_index("gene_id").loc[found.gene_id, "strand"])


def test_the_nearest_training_gene_by_words_and_by_what_is_read(made, explainers, tiny_bundle):
    levels, places, found = made
    training = [gene for gene in tiny_bundle.genes["gene_id"] if gene != found.gene_id]
    checked = check_design(explainers, found, places, training, upstream_bp=60, n_random=1)

    def words(text: str) -> set[str]:
        flipped = text[::-1].translate(str.maketrans("ACGT", "TGCA"))
        pairs = ((text[i : i + 14], flipped[len(text) - 14 - i :][:14]) for i in range(47))
        return {min(pair) for pair in pairs}

    designed = words(design_fasta(levels, found, 60).splitlines()[3])
    best = 0.0
    for gene_id in training:
        one = GeneLevels(explainers, gene_id)
        theirs = words("".join("ACGT"[one.base(place)] for place in range(-60, 0)))
        best = max(best, len(designed & theirs) / min(len(designed), len(theirs)))
    assert checked.bases.value == pytest.approx(best)
    # A gene with the very vector of this one is its nearest, and nothing is nearer.
    explainer = explainers[0]
    function = levels.functions(found.best.edits)[0]
    with torch.no_grad():
        encoded = explainer.model.encoder(
            function.window.tokens, function.window.phase, with_bases=True
        )
        mine = function.read_vectors(encoded)
    vectors = explainer.vectors.clone()
    twin = training[4]
    vectors[explainer.row[twin]] = mine[0]
    known = Explainer(explainer.model, tiny_bundle, window_bp=W, vectors=vectors)
    again = check_design([known, explainers[1]], found, places, training,
                         upstream_bp=60, n_random=1)  # fmt: skip
    assert again.after.gene_id == twin
    assert again.after.value == pytest.approx(1, abs=1e-5)
    assert again.percentile == 100


def test_genes_that_a_model_was_trained_on(tiny_bundle, tmp_path):
    measured = list(tiny_bundle.expression.var_names)
    first = trained_on(tiny_bundle, [tmp_path / "fold0_seed3"])
    assert first == list(tiny_bundle.train_genes(0))
    assert trained_on(tiny_bundle, [tmp_path / "fold0_seed0", tmp_path / "fold1_seed0"]) == measured
    assert trained_on(tiny_bundle, [tmp_path / "other"]) == measured


# --- the command ---


@pytest.fixture(scope="module")
def folder(tiny_bundle, tmp_path_factory):
    where = tmp_path_factory.mktemp("run") / "fold0_seed0"
    make_tiny(tiny_bundle, "model.base_width=0").save_pretrained(where)
    return where


def test_the_command(folder, tiny_bundle, tmp_path):
    gene_id = gene_on(tiny_bundle, "+")
    gene = tiny_bundle.genes.set_index("gene_id").loc[gene_id]
    bed = tmp_path / "keep.bed"
    bed.write_text(f"chr\t{gene['start'] - 30}\t{gene['start']}\n")
    words = ["--model", folder, "--data", tiny_bundle.path, "--window", "2048"]
    answer = call(
        "design", *words, "--gene", gene_id, "--towards", "up", "--protect", bed, "--edits", "2",
        "--beam", "2", "--upstream", "90", "--out", tmp_path / "out", "--no-keep-genes",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "60 of 90 bases" in answer.err
    steps = pd.read_csv(tmp_path / "out" / "steps.tsv", sep="\t")
    assert steps["distance_bp"].dropna().between(-90, -31).all()
    level = read_metrics(tmp_path / "out" / "metrics.json")[1]
    assert level.metric == "design_level"
    assert level.value == pytest.approx(steps["level"][steps["is_on_path"]].iloc[-1], rel=1e-5)
    designed = (tmp_path / "out" / "designed.fasta").read_text().splitlines()
    assert len(designed) == 4
    assert sum(a != b for a, b in zip(designed[1], designed[3], strict=True)) == steps["step"].max()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["config"]["n_editable"] == 60
    assert "keep.bed" in manifest["data_sha256"]
    assert len(answer.out.splitlines()) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--gene": "nothing"}, "gene 'nothing'"),
        ({"--towards": "sideways"}, "--towards sideways"),
        ({"--protect": "nowhere.bed"}, "--protect nowhere.bed"),
        ({"--protect": "chr"}, "that may be edited"),
        ({"--upstream": "700"}, "700 bases before the start, expected at most"),
    ],
)
def test_wrong_usage_is_one_line(folder, tiny_bundle, tmp_path, change, message):
    words = {"--model": folder, "--data": tiny_bundle.path, "--gene": gene_on(tiny_bundle, "+"),
             "--towards": "up", "--out": tmp_path / "out", "--window": "2048"} | change  # fmt: skip
    answer = call("design", *itertools.chain(*words.items()))
    assert answer.code == 2
    lines = [line for line in answer.err.splitlines() if not line.startswith("design: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_pretrained_model_has_no_level(tiny_bundle, tmp_path):
    model = save_masked(tmp_path / "pre", "model.base_width=0")
    answer = call("design", "--model", model, "--data", tiny_bundle.path, "--gene", "x",
                  "--towards", "up", "--out", tmp_path / "out")  # fmt: skip
    assert answer.code == 2
    assert "no expression model" in answer.err

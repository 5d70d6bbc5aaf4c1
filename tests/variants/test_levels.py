"""Changes of level against the explainer's own full passes."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from tiny_models import make_tiny, make_vectors
from tiny_variants import letters, other, save_masked

from genesplice.errors import InputError
from genesplice.model.kernel import KernelSettings
from genesplice.predict.gene_output import Explainer, GeneWindow
from genesplice.predict.models import open_models
from genesplice.variants.alleles import Allele, normalise
from genesplice.variants.levels import GeneChange, LevelModel, Levels, strongest
from genesplice.variants.likelihood import window_start

W = 4096


@pytest.fixture(scope="module")
def vectors(model, tiny_bundle):
    return make_vectors(model, tiny_bundle, seed=3)


@pytest.fixture(scope="module")
def model(tiny_bundle):
    made = make_tiny(tiny_bundle)
    # What bases say to bins is large against rounding.
    made.encoder.stem.patch.weight.data *= 8
    return made


@pytest.fixture(scope="module")
def levels(model, tiny_bundle, vectors):
    return Levels([LevelModel(model, tiny_bundle, gene_features=vectors)], tiny_bundle)


def one_by_one(model, bundle, vectors, window: GeneWindow) -> float:
    """The level of one gene from one sequence, by the explainer."""
    explainer = Explainer(model, bundle, window_bp=W, vectors=vectors)
    function = explainer.forward_function(window)
    with torch.no_grad():
        return float(function(function.bases))


def whole_window(levels, allele, gene, tss, bundle) -> tuple[GeneWindow, int]:
    """The gene's window around an allele, unchanged, on its sense strand."""
    low = window_start(allele.start, W)
    row = bundle.genes.iloc[gene]
    tokens = bundle.genome.fetch("chr", low, low + W, row.strand)
    _, phase, columns, *_ = levels.sequence(low, row.strand, allele.undone, False)
    start = tss if row.strand == "+" else W - 1 - tss
    end = start + int(row.end - row.start)
    first = row.start if row.strand == "+" else row.end
    edges = list(row.exons) or [row.start, row.end]
    exons = [sorted(start + abs(edge - first) for edge in edges[i : i + 2])
             for i in range(0, len(edges), 2)]  # fmt: skip
    window = GeneWindow(gene, row.gene_id, "", -start, start, end, torch.from_numpy(tokens)[None],
                        torch.from_numpy(phase)[None], torch.tensor(exons),
                        torch.from_numpy(columns)[None])  # fmt: skip
    return window, low


def with_introns(gene) -> tuple[int, ...]:
    """The bases from the 120th to the 70th before the end are an intron."""
    first, last = (gene.start, gene.end - 120), (gene.end - 70, gene.end)
    return (*first, *last) if gene.strand == "+" else (*last, *first)


@pytest.mark.parametrize("is_spliced", [False, True])
def test_every_gene_of_a_substitution_is_what_a_full_pass_says(
    levels, model, tiny_bundle, vectors, is_spliced
):
    genome = tiny_bundle.genome
    if is_spliced:
        genes = tiny_bundle.genes
        genes = genes.assign(exons=[with_introns(gene) for gene in genes.itertuples()])
        tiny_bundle = dataclasses.replace(tiny_bundle, genes=genes)
        levels = Levels([LevelModel(model, tiny_bundle, gene_features=vectors)], tiny_bundle)
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
        low = window_start(start, W)
        tss = dict(levels.genes_around(allele))[gene]
        moves_left = offset < 0
        old = levels.sequence(low, strand, allele.undone, False)
        new = levels.sequence(low, strand, allele, moves_left)
        assert len(new[0]) == len(new[1]) == W
        before = levels.edges(gene, tss, low, allele.undone, False)[0]
        after = levels.edges(gene, tss, low, allele, moves_left)[0]
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
    allele, low = Allele("chr", start, lost, nothing), window_start(start, W)
    tss = int(row.start) - low
    whole = [tss, tss + int(row.end - row.start)]
    assert levels.edges(gene, tss, low, allele.undone, False) == [whole, whole]
    assert levels.edges(gene, tss, low, allele, False) == 2 * [[tss, whole[1] - 30]]
    # A deletion over the very end.
    late = Allele("chr", int(row.end) - 10, lost, nothing)
    low = window_start(late.start, W)
    tss = int(row.start) - low
    whole = [tss, tss + int(row.end - row.start)]
    assert levels.edges(gene, tss, low, late, False) == 2 * [[tss, whole[1] - 10]]


def test_a_reading_frame_moves_with_its_bases(levels, tiny_bundle):
    gene = int(np.flatnonzero(tiny_bundle.genes["strand"] == "+")[3])
    start = int(tiny_bundle.genes["start"][gene]) + 100
    low = window_start(start, W)
    at = start - low
    allele = Allele("chr", start, np.zeros(0, np.uint8), np.array([0, 1], np.uint8))
    old = levels.sequence(low, "+", allele.undone, False).phase
    new = levels.sequence(low, "+", allele, False).phase
    assert new[at : at + 2].tolist() == [old[at - 1]] * 2
    assert np.array_equal(new[at + 2 :], old[at:-2])


def test_models_are_averaged_and_their_signs_counted(model, tiny_bundle, vectors):
    readers = [LevelModel(m, tiny_bundle, gene_features=vectors)
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
    reader = LevelModel(other, tiny_bundle, gene_features=vectors)
    inputs = other.kernel_inputs(vectors, reader.graph, rows)
    other.kernel.set_support(inputs[0], inputs[1].to(torch.int8))
    solved = KernelSettings((1.0,) * len(other.kernel.widths), 0.5, 1.0)
    other.kernel.set_solution("level", torch.randn(8), solved, 2.0)
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
    reader = LevelModel(model, tiny_bundle, gene_features=vectors)
    with pytest.raises(InputError, match="a window of 1000 bp"):
        Levels([reader], tiny_bundle, window_bp=1000)
    empty = Levels([reader], tiny_bundle)
    assert empty([]) == []


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
    whole = open_models(tmp_path / "run")
    assert (whole.level_paths, whole.masked_path) == ((folder,), pretrained)
    bundle_free = dataclasses.asdict(found.levels[0].config)
    assert bundle_free["width"] == 16

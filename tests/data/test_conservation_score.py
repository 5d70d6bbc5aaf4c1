"""One number a base in place of relatives: against written-out loops, and what is refused."""

import dataclasses

import numpy as np
import pytest
from tiny_files import random_genome, write_bigwig
from tiny_genomes import make_relatives
from tiny_inputs import inputs

from genesplice.baselines.features import CONSERVED_BP, START_BP, conservation_features
from genesplice.baselines.methods import available_baselines
from genesplice.data import export_bundle, open_bundle
from genesplice.data.alignments import write_conservation
from genesplice.data.bundle import BundleParts, load_bundle
from genesplice.data.coding import coding_positions
from genesplice.data.genome import Contig, Genome
from genesplice.data.prepare import _with_tracks, prepare_files, prepare_recipe
from genesplice.data.sources import SUMMARY_SOURCE
from genesplice.errors import InputError

LENGTH = 24_000
COMPLEMENT = {"+": 1, "-": -1}


def scores(seed=0, length=LENGTH):
    """Like phyloP: below and above 0; a tenth of the bases and a whole gene have none."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0.5, 2, length).astype(np.float32)
    values[rng.random(length) < 0.1] = np.nan
    values[600:1100] = np.nan
    return values


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The file calls the contig "1"; genes are on both strands of a circle."""
    folder = tmp_path_factory.mktemp("score")
    file = write_bigwig(folder / "yeast.phyloP.bw", {"1": scores()}, {"1": LENGTH})
    said = list[str]()
    bundle = prepare_files(
        **inputs(folder / "in", "samples"), expression_unit="tpm", conservation=file,
        out=folder / "out", n_folds=2, block_bp=6000, progress=said.append,
    )  # fmt: skip
    return bundle, said


def test_every_base_has_its_number(prepared):
    bundle, said = prepared
    score = load_bundle(bundle.path).conservation_score
    np.testing.assert_array_equal(score.values, scores())
    assert (score.name, bundle.relatives, bundle.genome.columns) == ("yeast.phyloP", None, None)
    known = scores()[np.isfinite(scores())]
    assert [score.low, score.high] == pytest.approx(np.percentile(known, [1, 99]), rel=1e-5)
    line = f"conservation: yeast.phyloP of {len(known) / LENGTH:.1%} of the bases"
    assert sum(text.startswith(line) for text in said) == 1
    assert any(text.startswith(line) for text in bundle.manifest["notes"])
    assert f"--conservation {bundle.path.parent / 'yeast.phyloP.bw'} " in bundle.manifest["command"]
    assert [one["part"] for one in bundle.manifest["inputs"]].count("conservation") == 1


@pytest.mark.parametrize("start", [500, -30, LENGTH - 20])
def test_an_interval_is_read_along_its_strand_and_round_the_circle(prepared, start):
    bundle, values = prepared[0], scores()
    for strand, step in COMPLEMENT.items():
        found = bundle.conservation("chr1", start, start + 150, strand)
        wanted = []
        for position in list(range(start, start + 150))[::step]:
            value = float(values[position % LENGTH])
            wanted.append(0.0 if np.isnan(value) else value)
        assert found.information.tolist() == wanted
        assert found.score[0] == "yeast.phyloP"
        assert found.part(slice(3, 9)).information.tolist() == wanted[3:9]


def test_beyond_a_linear_contig_there_is_none(prepared):
    bundle = prepared[0]
    contig = bundle.genome.contigs[0]._replace(is_circular=False)
    genome = dataclasses.replace(bundle.genome, contigs=(contig,))
    found = bundle.conservation_score.conservation(genome, "chr1", -5, 5, "-").information
    assert not found[5:].any()
    assert found[:5].tolist() == np.nan_to_num(scores()[4::-1]).tolist()


def test_features_are_those_of_a_loop_over_bases(prepared):
    bundle, values = prepared[0], scores()
    table = conservation_features(bundle)
    assert list(table.index) == list(bundle.observed.index)
    assert len(table.columns) == 10
    for gene in bundle.genes.itertuples():
        step = COMPLEMENT[gene.strand]
        coding = coding_positions(gene).tolist()
        whole = list(range(gene.start, gene.end))
        regions = {f"codon_{k + 1}": coding[k::3] if coding else whole for k in range(3)}
        regions["upstream"] = [gene.tss - step * d for d in range(1, CONSERVED_BP + 1)]
        first = coding[0] if coding else gene.tss
        regions["start"] = [first + d for d in range(-START_BP, START_BP + 1)]
        for name, positions in regions.items():
            total = count = 0
            for position in positions:
                value = float(values[position % LENGTH])
                if not np.isnan(value):
                    total, count = total + value, count + 1
            row = table.loc[gene.gene_id]
            assert row[f"scored:{name}"] == pytest.approx(count / len(positions))
            assert row[f"conservation:{name}"] == pytest.approx(total / count if count else 0)
    assert (table["scored:codon_1"] == 0).any()
    assert {"gbm_conservation", "gbm_dna"} <= set(available_baselines(bundle))


def test_an_allele_counts_by_the_bases_that_change(prepared):
    score, values = prepared[0].conserved_by, scores()
    known = np.flatnonzero(np.isfinite(values))
    a, b = known[10], known[20]
    at, hole = np.array([a, b]), np.array([700, 701])
    ref, one, both = (np.array(x, np.uint8) for x in ([0, 1], [0, 2], [3, 2]))
    none = np.zeros(0, np.uint8)
    assert score.log_ratio(at, ref, one) == pytest.approx(-values[b])
    assert score.log_ratio(at, ref, both) == pytest.approx(-(values[a] + values[b]) / 2)
    assert score.log_ratio(at, ref, none) == pytest.approx(-(values[a] + values[b]) / 2)
    assert score.log_ratio(np.array([a, 700]), ref, both) == pytest.approx(-values[a])
    assert score.log_ratio(hole, ref, both) is None
    assert score.log_ratio(at[:0], none, ref) is None


def test_a_shared_file_has_it_too(prepared, tmp_path):
    export_bundle(prepared[0].path, tmp_path / "b.zip")
    opened = open_bundle(tmp_path / "b.zip", tmp_path / "b")
    np.testing.assert_array_equal(opened.conservation_score.values, scores())


def test_a_long_genome_is_ranked_by_some_of_it_and_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("genesplice.data.alignments.CHUNK_BP", 1000)
    monkeypatch.setattr("genesplice.data.alignments.MOST_RANKED", 500)
    genome = random_genome(2500, 700, circular=False)
    values = {"c0": scores(1, 2500), "c1": scores(2, 700)}
    file = write_bigwig(tmp_path / "s.bw", values, {"c0": 2500, "c1": 700})
    write_conservation(file, genome, tmp_path, None)
    found = np.load(tmp_path / "conservation.npy")
    np.testing.assert_array_equal(found, np.concatenate([values["c0"], values["c1"]]))


def test_a_small_contig_without_values_is_named(tmp_path):
    tokens = random_genome(2000).tokens
    genome = Genome(tokens, (Contig("big", 0, 1950, False), Contig("small", 1950, 50, False)))
    file = write_bigwig(tmp_path / "s.bw", {"big": scores(1, 1950)}, {"big": 1950})
    notes = write_conservation(file, genome, tmp_path, None)
    assert notes[0] == "contigs without a value of s: 1 (small)"
    assert np.isnan(np.load(tmp_path / "conservation.npy")[1950:]).all()


LENGTHS = {"c0": 2000, "c1": 900}
WRONG = {
    "another assembly": ({"c0": 2001, "c1": 900}, {}, r"'c0' of 2001 bp, expected 2000 bp"),
    "unknown": ({"x": 1234}, {"x": scores(1, 1234)}, r"contig 'x', which the genome lacks"),
    "no data": ({"c0": 2000}, {"c0": scores(1, 2000)}, r"no value on c1, expected values on"),
    "infinite": (LENGTHS, {"c0": np.full(2000, np.inf)}, r"values that are no numbers"),
    "constant": (LENGTHS, {"c0": np.ones(2000), "c1": np.ones(900)}, r"the value 1 nearly every"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_right_is_refused(tmp_path, case):
    lengths, values, message = WRONG[case]
    values = values or {name: scores(1, length) for name, length in lengths.items()}
    file = write_bigwig(tmp_path / "s.bw", values, lengths)
    with pytest.raises(InputError, match=message) as raised:
        write_conservation(file, random_genome(2000, 900), tmp_path, None)
    assert "s.bw" in str(raised.value)


def test_nothing_half_written_is_left(tmp_path):
    file = write_bigwig(tmp_path / "s.bw", {"chr1": scores()[:-1]}, {"chr1": LENGTH - 1})
    given = {**inputs(tmp_path / "in"), "expression_unit": "tpm", "out": tmp_path / "out"}
    both = {"relatives": tmp_path, "conservation": file}
    with pytest.raises(InputError, match=rf"'chr1' of {LENGTH - 1} bp, expected {LENGTH} bp"):
        prepare_files(**given, conservation=file, n_folds=2, block_bp=6000)
    with pytest.raises(InputError, match="--relatives together with --conservation"):
        prepare_files(**given, **both)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "s.bw"]


def test_it_stands_in_place_of_what_a_recipe_brings(tiny_bundle, tmp_path):
    bundle, length = tiny_bundle, tiny_bundle.genome.length
    names = ("genome", "genes", "expression", "network", "gene_sets")
    brought = {"name": "sum.xz", "sha256": "0", "source": SUMMARY_SOURCE, "licence": "none"}
    parts = BundleParts(
        "tiny", *(getattr(bundle, name) for name in names), {}, {},
        inputs=[brought | {"name": "genome.fa", "source": "archive"}, brought],
        notes=["relatives: a summary", "other"], relatives=make_relatives(bundle, 3),
    )  # fmt: skip
    file = write_bigwig(tmp_path / "s.bw", {"chr": np.arange(9.0)}, {"chr": length})
    made = _with_tracks(parts, [], None, file)
    assert (made.relatives, made.conservation) == (None, file)
    assert [one["name"] for one in made.inputs] == ["genome.fa", "s.bw"]
    assert made.notes == ["other"]
    assert _with_tracks(parts, [], None, None) == parts._replace(tracks=[])


def test_first_bytes_are_looked_at_before_the_work(tmp_path):
    (tmp_path / "s.bw").write_text("fixedStep chrom=chr1\n")
    with pytest.raises(InputError, match=r"s\.bw: found no bigWig \(by its first bytes\)"):
        prepare_recipe("ecoli", tmp_path / "out", conservation=tmp_path / "s.bw")

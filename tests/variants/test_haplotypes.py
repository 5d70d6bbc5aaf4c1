"""Alleles of one haplotype together: against genomes that were edited beforehand."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import make_tiny, make_vectors
from tiny_variants import COLUMNS, HEADER, call, letters, line, make_masked, other, save_masked, snv

from genesplice.errors import InputError
from genesplice.variants.alleles import Allele, normalise
from genesplice.variants.annotate import Settings, annotate_vcf
from genesplice.variants.haplotypes import ALL, calls, find_sample, with_haplotypes
from genesplice.variants.levels import LevelModel, Levels
from genesplice.variants.likelihood import MaskedBases, allele_likelihoods
from genesplice.variants.models import Models
from genesplice.variants.splice import moved, spliced
from genesplice.variants.vcf import Record

NOTHING = np.zeros(0, np.uint8)
DECLARED = (
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="g">',
    '##FORMAT=<ID=PS,Number=1,Type=Integer,Description="p">',
    "##contig=<ID=chr>",
)


# --- the bases of a haplotype ---

EDITS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 4), st.lists(st.integers(0, 3), max_size=5)),
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(edits=EDITS, low=st.integers(100, 130), size=st.integers(0, 80), n_left=st.integers(0, 5))
def test_a_haplotype_reads_like_a_contig_that_was_edited(edits, low, size, n_left):
    genome = np.random.default_rng(1).integers(0, 4, 400).astype(np.uint8)
    alleles, at = [], 120
    for gap, length, new in edits:
        start = at + gap + 1
        alleles.append(Allele("c", start, genome[start : start + length], np.array(new, np.uint8)))
        at = start + length
    n_left = min(n_left, len(alleles))
    pieces, at = [], 0
    for one in alleles:
        pieces += [genome[at : one.start], one.alt]
        at = one.end
    edited = np.concatenate([*pieces, genome[at:]])
    before = sum(one.growth_bp for one in alleles[:n_left])
    found = spliced(
        lambda a, b: genome[a:b], [(one, one.alt) for one in alleles], n_left, low, low + size
    )
    assert np.array_equal(found, edited[low + before : low + before + size])
    # A base that no allele touches is found where it was moved to.
    for place in range(100, 200):
        if not any(one.start <= place < one.end for one in alleles):
            assert edited[moved(alleles, n_left, place + 1) - 1 + before] == genome[place]


# --- scores ---


@pytest.fixture(scope="module")
def score():
    return MaskedBases(make_masked("model.base_width=0"))


@pytest.fixture(scope="module")
def levels(tiny_bundle):
    model = make_tiny(tiny_bundle)
    return Levels(
        [LevelModel(model, tiny_bundle, vectors=make_vectors(model, tiny_bundle, seed=3))],
        tiny_bundle,
    )


def allele_at(genome, start: int, step: int = 1) -> Allele:
    ref = letters(genome, start)
    return normalise(genome, "chr", start, ref, other(ref, step))


def edited(bundle, alleles):
    """The same control, in which these substitutions are what the genome has."""
    tokens = np.array(bundle.genome.tokens)
    for one in alleles:
        tokens[one.start] = one.alt[0]
    return dataclasses.replace(bundle, genome=dataclasses.replace(bundle.genome, tokens=tokens))


def test_scores_beside_others_are_those_of_a_genome_that_has_them(score, levels, tiny_bundle):
    genome = tiny_bundle.genome
    beside = [allele_at(genome, start, 2) for start in (39_980, 40_003, 40_400, 41_200)]
    mine = [allele_at(genome, 40_000), allele_at(genome, 40_300, 3)]
    control = edited(tiny_bundle, beside)
    found = allele_likelihoods(score, genome, mine, beside=[beside] * 2)
    alone = allele_likelihoods(score, genome, mine)
    wanted = allele_likelihoods(score, control.genome, mine)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert np.abs(np.subtract(found, alone)).max() > 1e-3
    reader = levels.models[0]
    there = Levels([LevelModel(reader.model, control, vectors=reader.vectors)], control)
    told, truth, plain = levels(mine, [beside] * 2), there(mine), levels(mine)
    for changes, right, old in zip(told, truth, plain, strict=True):
        assert [one.gene_id for one in changes] == [one.gene_id for one in right]
        for one, two, three in zip(changes, right, old, strict=True):
            assert one.levels[0] == pytest.approx(two.levels[0], abs=1e-4)
            assert one.mean == pytest.approx(two.mean, abs=1e-5)
            assert one.levels[0] != three.levels[0]
    # Beyond the window nothing is heard.
    far = [[allele_at(genome, 60_000)]] * 2
    assert levels(mine, far) == plain
    assert allele_likelihoods(score, genome, mine, beside=far) == alone


def test_insertions_and_deletions_beside_it_move_what_is_not_the_gene(levels, score, tiny_bundle):
    genome = tiny_bundle.genome
    allele, cut = allele_at(genome, 40_000), genome.fetch("chr", 40_050, 40_060)
    beside = (
        Allele("chr", 39_900, NOTHING, np.array([0, 1, 2], np.uint8)),
        Allele("chr", 40_050, cut, NOTHING),
    )
    (changes,) = levels([allele], [beside])
    (deleted,) = levels([beside[1]], [(beside[0], allele)])
    (undeleted,) = levels([beside[1]], [(beside[0],)])
    (changed,) = levels([allele], [(beside[0],)])
    assert len(changes) == len(changed) > 0
    # In whichever order they come, all of them together are the same sequence.
    for a, b, c, d in zip(changed, deleted, undeleted, changes, strict=True):
        assert a.mean + b.mean == pytest.approx(c.mean + d.mean, abs=1e-4)
    text = "".join("ACGT"[base] for base in genome.fetch("chr", 39_800, 40_200))
    whole = text[:100] + "ACG" + text[100:200] + "ACGT"[allele.alt[0]] + text[201:250] + text[260:]
    tokens, _ = levels._sequence("chr", "+", joined(allele, beside), 1, 38_912)
    assert whole in "".join("ACGT"[base] for base in tokens)
    (ratio,) = allele_likelihoods(score, genome, [allele], beside=[beside])
    (alone,) = allele_likelihoods(score, genome, [allele])
    assert ratio.mean != pytest.approx(alone.mean, abs=1e-4)


# --- which alleles these are ---


def sampled(start: int, genotype: str, ref: str = "A", alt: str = "C", extra: str = "") -> Record:
    names = "GT:PS" if extra else "GT"
    columns = line("chr", start, ref, alt).split("\t")
    return Record(1, (*columns, names, genotype + (f":{extra}" if extra else "")))


@pytest.mark.parametrize(
    ("genotype", "extra", "found"),
    [
        ("0|1", "", {".|2": 1}),
        ("1|2", "77", {"77|1": 1, "77|2": 2}),
        ("1|0", ".", {".|1": 1}),
        ("0/1", "77", {}),
        ("1/1", "", {ALL: 1}),
        ("2|2", "9", {ALL: 2}),
        ("1", "", {ALL: 1}),
        ("0|0", "", {}),
        ("./.", "", {}),
        (".|1", "", {".|2": 1}),
        ("|0|1", "", {".|2": 1}),
        ("0|0|2", "", {".|3": 2}),
    ],
)
def test_genotypes(genotype, extra, found):
    assert calls(sampled(5, genotype, alt="C,G", extra=extra), 9) == found


def test_genotypes_that_are_none():
    for genotype, message in (("a|b", "GT 'a|b'"), ("0|3", "at most 1, the number of ALTs")):
        with pytest.raises(InputError, match=message.replace("|", r"\|")):
            calls(sampled(5, genotype), 9)
    assert calls(Record(1, tuple(line("chr", 5, "A", "C").split("\t"))), 9) == {}


ROWS = st.lists(
    st.tuples(
        st.integers(0, 60),
        st.sampled_from(["0|1", "1|0", "1|1", "0/1", "1", "0|0", "1|2"]),
        st.sampled_from(["", "7", "8"]),
        st.booleans(),
        st.integers(1, 3),
    ),
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(rows=ROWS)
def test_what_stands_beside_a_record_is_what_a_slow_loop_finds(rows):
    position, records = 100, []
    for step, genotype, extra, _, _ in rows:
        position += step
        records.append(sampled(position, genotype, alt="C,G", extra=extra))
    shape = {id(record): row[3:] for record, row in zip(records, rows, strict=True)}

    def check(record):
        is_scored, length = shape[id(record)]
        ref = np.zeros(length, np.uint8)
        first = Allele("chr", record.position, ref, NOTHING) if is_scored else "symbolic"
        return [first, Allele("chr", record.position, ref, ref + np.uint8(2))]

    reach, found = 40, list(with_haplotypes(iter(records), check, 9, 40, Path("x.vcf")))
    assert [record for record, _, _ in found] == records
    for i, (record, alleles, beside) in enumerate(found):
        mine = calls(record, 9)
        for number, (allele, told) in enumerate(zip(alleles, beside, strict=True), 1):
            name = next((h for h, n in mine.items() if n == number), None)
            if name is None or isinstance(allele, str):
                assert told is None
                continue
            kept = []
            for j, one in enumerate(records):
                theirs = calls(one, 9)
                carried = theirs.get(name) or theirs.get(ALL)
                if i == j or not carried or abs(one.position - record.position) > reach:
                    continue
                candidate = check(one)[carried - 1]
                if isinstance(candidate, str):
                    continue
                spans = [range(x.start, x.end) for x in (allele, *kept)]
                if not any(
                    set(span) & set(range(candidate.start, candidate.end)) for span in spans
                ):
                    kept.append(candidate)
            assert told.name == name
            assert [x.start for x in told.alleles] == [x.start for x in kept]
            assert [len(x.alt) for x in told.alleles] == [len(x.alt) for x in kept]


def test_only_what_is_near_is_kept():
    pulled = []

    def records():
        for i in range(5000):
            pulled.append(i)
            yield sampled(10 * i, "0|1")

    def check(record):
        return [Allele("chr", record.position, np.zeros(1, np.uint8), np.ones(1, np.uint8))]

    ahead, most = [], 0
    for number, (_, _, (beside,)) in enumerate(
        with_haplotypes(records(), check, 9, 200, Path("x"))
    ):
        ahead.append(len(pulled) - number)
        most = max(most, len(beside.alleles))
    assert number == 4999
    assert max(ahead) <= 22
    assert most == 40


def test_records_must_be_sorted():
    def check(record):
        return [Allele("chr", record.position, np.zeros(1, np.uint8), np.ones(1, np.uint8))]

    back = [sampled(50, "0|1"), sampled(40, "0|1")]
    with pytest.raises(InputError, match="chr:41 after a later place"):
        list(with_haplotypes(back, check, 9, 100, Path("x.vcf")))
    away = Record(1, ("b", *sampled(9, "0|1").columns[1:]))
    with pytest.raises(InputError, match="sorted by contig"):
        list(with_haplotypes([back[1], away, back[0]], check, 9, 100, Path("x.vcf")))


# --- a file ---


@pytest.fixture(scope="module")
def phased(tiny_bundle, tmp_path_factory):
    genome = tiny_bundle.genome
    genotypes = ("0|1:5", "0|1:5", "1|0:5", "0/1:.", "1|1:.", "0|1:6")
    starts = (40_000, 40_010, 40_020, 40_030, 40_040, 40_050)
    lines = [
        snv(genome, start) + f"\tGT:PS\t0|0:.\t{genotype}"
        for start, genotype in zip(starts, genotypes, strict=True)
    ]
    lines.append(line("chr", 40_060, "N", "<DEL>") + "\tGT:PS\t0|0:.\t0|1:5")
    path = tmp_path_factory.mktemp("phased") / "in.vcf"
    header = [*HEADER, *DECLARED, f"{COLUMNS}\tFORMAT\tmother\tchild"]
    path.write_text("\n".join([*header, *lines]) + "\n")
    return path, lines


def test_a_file_in_the_background_of_a_sample(phased, score, levels, tiny_bundle, tmp_path):
    path, lines = phased
    reader = levels.models[0]
    models = Models(score.model, tmp_path, (reader.model,), (tmp_path,))
    wanted = Settings(abstain=99.0, with_percentile=False)
    for name, sample in (("plain", ""), ("held", "child")):
        annotate_vcf(models, tiny_bundle, path, tmp_path / f"{name}.vcf.gz",
                     settings=wanted._replace(sample=sample), vectors=[reader.vectors])  # fmt: skip
    with pysam.VariantFile(str(tmp_path / "held.vcf.gz")) as handle:
        assert (handle.header.info["GS_HAP"].number, handle.header.info["GS_HAP"].type) == (
            "A", "String"
        )  # fmt: skip
        assert handle.header.info["GS_HAP_N"].type == "Integer"
        records = list(handle)
    assert [f"{r.pos}" for r in records] == [text.split("\t")[1] for text in lines]
    told = [(r.info.get("GS_HAP"), r.info.get("GS_HAP_N")) for r in records]
    assert told == [
        (("5|2",), (2,)), (("5|2",), (2,)), (("5|1",), (1,)), (None, None), (("all",), (0,)),
        (("6|2",), (1,)), (None, None),
    ]  # fmt: skip
    plain, held = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("plain", "held"))
    assert set(held.columns) - set(plain.columns) == {"haplotype", "n_beside"}
    is_same = np.isclose(plain["llr"], held["llr"], atol=1e-9)
    assert is_same.tolist() == [False, False, False, True, True, False, False]
    genome = tiny_bundle.genome
    control = edited(tiny_bundle, [allele_at(genome, 40_010), allele_at(genome, 40_040)])
    (ratio,) = allele_likelihoods(score, control.genome, [allele_at(genome, 40_000)])
    assert held["llr"][0] == pytest.approx(ratio.mean, abs=1e-5)
    with pysam.VariantFile(str(tmp_path / "plain.vcf.gz")) as handle:
        assert "GS_HAP" not in handle.header.info


def test_the_command(phased, tiny_bundle, tmp_path):
    path, _ = phased
    model = save_masked(tmp_path / "pre", "model.base_width=0")
    words = ["variants", "--model", model, "--data", tiny_bundle.path, "--vcf", path,
             "--no-percentile", "--out", tmp_path / "o.vcf"]  # fmt: skip
    answer = call(*words, "--haplotypes", "father")
    assert answer.code == 2
    assert answer.err.splitlines() == [
        f"genesplice: {path}: found sample 'father', expected mother, child"
    ]
    assert not (tmp_path / "o.vcf").exists()
    assert call(*words, "--haplotypes", "child").code == 0
    assert "GS_HAP=5|2;GS_HAP_N=2" in (tmp_path / "o.vcf").read_text()
    bare = tmp_path / "bare.vcf"
    bare.write_text("\n".join([*HEADER, COLUMNS]) + "\n")
    with pytest.raises(InputError, match="a VCF with samples"):
        find_sample(bare, "child")

"""Alleles: common ends go, repeats are known, every refusal has its flag."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_variants import HEADER, letters, line, other, record, write_lines

from genesplice.data.genome import Contig, Genome, decode, encode
from genesplice.errors import InputError
from genesplice.variants.alleles import (
    FLAGS,
    REPEAT_BP,
    Allele,
    ContigNames,
    check_record,
    kind_of_alt,
    normalise,
    refuse_another_genome,
    survey,
)
from genesplice.variants.vcf import Record, contig_lengths


def genome_of(*sequences: str, circular: bool = False) -> Genome:
    lengths = [len(s) for s in sequences]
    offsets = np.cumsum([0, *lengths]).tolist()
    contigs = [Contig(f"c{i}", offsets[i], n, circular) for i, n in enumerate(lengths)]
    return Genome(encode("".join(sequences)), tuple(contigs))


def apply(sequence: str, allele: Allele) -> str:
    return sequence[: allele.start] + decode(allele.alt) + sequence[allele.end :]


@settings(max_examples=200, deadline=None)
@given(
    st.text("AC", min_size=20, max_size=40),
    st.integers(5, 14),
    st.integers(1, 5),
    st.text("ACG", min_size=1, max_size=5),
)
def test_an_allele_makes_the_sequence_that_its_record_makes(sequence, start, size, alt):
    genome, ref = genome_of(sequence), sequence[start : start + size]
    if alt == ref:
        with pytest.raises(InputError, match="equal to REF"):
            normalise(genome, "c0", start, ref, alt)
        return
    found = normalise(genome, "c0", start, ref, alt)
    wanted = sequence[:start] + alt + sequence[start + size :]
    assert apply(sequence, found) == wanted
    assert decode(found.ref) == sequence[found.start : found.end]
    if len(found.ref) and len(found.alt):
        assert found.ref[0] != found.alt[0]
        assert found.ref[-1] != found.alt[-1]
        assert found.shift_bp == 0
        return
    # All placements, by trying every one.
    size = max(len(found.ref), len(found.alt))
    if len(found.ref):
        same = [i for i in range(len(sequence) - size + 1)
                if sequence[:i] + sequence[i + size :] == wanted]  # fmt: skip
    else:
        same = [i for i in range(len(sequence) + 1)
                if sequence[:i] + wanted[i : i + size] + sequence[i:] == wanted]  # fmt: skip
    assert found.start == same[0]
    assert found.shift_bp == same[-1] - same[0]


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 30), st.integers(1, 2), st.data())
def test_one_deletion_of_a_repeat_is_one_allele_wherever_it_is_written(copies, unit, data):
    repeat = "CA"[:unit] * copies
    genome = genome_of("GATTGTTG" * 3 + repeat + "GTTGGATT" * 3)
    first = 24
    starts = range(first, first + len(repeat) - unit + 1)
    places = [data.draw(st.sampled_from(starts)) for _ in range(2)]
    found = [
        normalise(genome, "c0", p - 1, letters(genome, p - 1, unit + 1), letters(genome, p - 1))
        for p in places
    ]
    assert [(a.start, a.shift_bp, decode(a.ref)) for a in found] == [
        (first, len(repeat) - unit, repeat[:unit])
    ] * 2


def test_kinds():
    genome = genome_of("ACGTACGTACGTACGTACGT")
    kinds = {
        ("C", "T"): "snv", ("CG", "TA"): "mnv", ("CG", "TG"): "snv", ("C", "CT"): "insertion",
        ("CGT", "C"): "deletion", ("CGT", "AA"): "complex",
    }  # fmt: skip
    for (ref, alt), kind in kinds.items():
        found = normalise(genome, "c0", 1, ref, alt)
        assert found.kind == kind
        assert found.growth_bp == len(alt) - len(ref)
    spelled = {
        "A": "bases", "acgtN": "bases", ".": "no_alt", "": "no_alt", "<DEL>": "symbolic",
        "*": "symbolic", "A[c0:5[": "breakend", "]c0:5]A": "breakend", "A.": "breakend",
        "AR": "bad_allele", "A-": "bad_allele",
    }  # fmt: skip
    assert {alt: kind_of_alt(alt) for alt in spelled} == spelled


def test_a_repeat_is_followed_so_far_and_no_further():
    genome = genome_of("G" * 10 + "A" * 1000 + "G" * 10)
    found = normalise(genome, "c0", 500, "AA", "A")
    assert (found.start, found.shift_bp) == (500 - REPEAT_BP, 2 * REPEAT_BP)


# --- flags ---


@pytest.fixture(scope="module")
def genome() -> Genome:
    generator = np.random.default_rng(1)
    one, two = ("".join(generator.choice(list("ACGT"), n)) for n in (600, 400))
    return genome_of(one[:300] + "N" + one[301:], two)


def flag(genome, start, ref, alt, contig="c0", **options):
    names = ContigNames(genome)
    return check_record(record(contig, start, ref, alt), names, **options)


def test_each_reason_has_its_flag(genome):
    def at(start, n=1):
        return letters(genome, start, n)

    cases = {
        "unknown_contig": flag(genome, 5, "A", "C", contig="nowhere"),
        "outside_contig": flag(genome, 598, at(598, 2) + "A", "A"),
        "no_ref": flag(genome, 50, ".", "A"),
        "ref_mismatch": flag(genome, 50, other(at(50)), at(50)),
        "no_alt": flag(genome, 50, at(50), "."),
        "symbolic": flag(genome, 50, at(50), "<DUP>"),
        "breakend": flag(genome, 50, at(50), f"{at(50)}[c1:7["),
        "bad_allele": flag(genome, 50, at(50), "Q"),
        "same_allele": flag(genome, 50, at(50, 2), at(50, 2).lower()),
        "too_long": flag(genome, 50, at(50, 9), at(50), max_length_bp=7),
        "n_in_window": flag(genome, 290, at(290), other(at(290))),
    }
    assert set(cases) == set(FLAGS) - {"abstains", "models_disagree"}
    for name, found in cases.items():
        assert found == [name], name
    assert flag(genome, -1, "N", "A") == ["outside_contig"]
    assert flag(genome, 5, "Q", "A") == ["bad_allele"]
    assert flag(genome, 50, at(50), "NA") == ["n_in_window"]
    # What is symbolic stays so, whatever its REF.
    assert flag(genome, 300, "N", "<DEL>") == flag(genome, 9, ".", "*") == ["symbolic"]


def test_alleles_of_one_record_are_judged_one_by_one(genome):
    ref = letters(genome, 50)
    found = flag(genome, 50, ref.lower(), f"{other(ref)},<DEL>,*,{ref}A")
    assert [one if isinstance(one, str) else one.kind for one in found] == [
        "snv", "symbolic", "symbolic", "insertion"
    ]  # fmt: skip


def test_close_to_an_end_or_to_an_n(genome):
    # Beyond the end of a linear contig there is no N to be close to.
    assert isinstance(flag(genome, 3, letters(genome, 3), other(letters(genome, 3)))[0], Allele)
    for start, is_far in ((235, True), (236, False), (364, False), (365, True)):
        ref = letters(genome, start)
        found = flag(genome, start, ref, other(ref))
        assert (found == ["n_in_window"]) != is_far, start


def test_contigs_answer_to_their_other_names():
    genome = dataclasses.replace(
        genome_of("ACGT", "ACGT", "ACGT", "ACGT"),
        contigs=tuple(
            Contig(name, 4 * i, 4, False)
            for i, name in enumerate(["NC_000913.3", "chr1", "p.1", "p.2"])
        ),
    )
    names = ContigNames(genome, {"U00096.3": "NC_000913.3", "gone": "not there"})
    found = {
        name: getattr(names.find(name), "name", None)
        for name in ("NC_000913.3", "NC_000913", "U00096.3", "1", "CHR1", "p", "p.1", "gone", "2")
    }
    assert found == {
        "NC_000913.3": "NC_000913.3", "NC_000913": "NC_000913.3", "U00096.3": "NC_000913.3",
        "1": "chr1", "CHR1": "chr1", "p": None, "p.1": "p.1", "gone": None, "2": None,
    }  # fmt: skip


# --- a VCF of another genome ---


def snvs(genome, shift=0, count=40, contig=None):
    for start in range(20, 20 + 2 * count, 2):
        ref = letters(genome, start)
        yield Record(1, tuple(line(contig or "c0", start + shift, ref, other(ref)).split("\t")))


@pytest.mark.parametrize(
    ("shift", "cause"), [(-1, "POS is 0-based"), (1, "too far right"), (7, "another assembly")]
)
def test_the_cause_of_many_mismatches_is_named(genome, tmp_path, shift, cause):
    found = survey(snvs(genome, shift), ContigNames(genome))
    assert found.n_records == found.n_compared == 40
    with pytest.raises(InputError, match=cause) as caught:
        refuse_another_genome(found, tmp_path / "x.vcf", tmp_path)
    assert f"{found.n_mismatches} of 40" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_contig_taken_for_another_is_named():
    genome = genome_of("ACGGTCA" * 20, "TTGACCA" * 20)
    genome = dataclasses.replace(
        genome, contigs=(Contig("chr1", 0, 140, False), Contig("chr2", 140, 140, False))
    )
    wrong = (
        Record(1, tuple(line("2", i, letters(genome, i, contig="chr1"), "*").split("\t")))
        for i in range(50)
    )
    found = survey(wrong, ContigNames(genome))
    assert "contig naming" in found.cause
    assert "(2)" in found.cause


@pytest.mark.parametrize(
    ("count", "wrong", "is_refused"),
    [(40, 2, False), (40, 3, True), (60, 3, False), (4, 2, False)],
)
def test_up_to_5_percent_and_up_to_two_may_mismatch(genome, tmp_path, count, wrong, is_refused):
    good = list(snvs(genome, 0, count))
    bad = [r._replace(columns=(*r.columns[:3], other(r.ref), *r.columns[4:])) for r in good]
    found = survey([*bad[:wrong], *good[wrong:]], ContigNames(genome))
    assert found.n_mismatches == wrong
    assert found.is_of_another_genome == is_refused
    if not is_refused:
        refuse_another_genome(found, tmp_path, tmp_path)


def test_unknown_contigs_and_missing_refs_are_no_mismatches(genome):
    records = [record("far", 3, "A", "C"), record("c0", 3, ".", "C"), record("c0", 300, "N", "C")]
    found = survey(records, ContigNames(genome))
    assert (found.n_records, found.n_compared, found.n_mismatches) == (3, 0, 0)
    assert found.unknown == {"far": 1}
    assert not found.is_of_another_genome


def test_lengths_that_a_header_declares_are_those_of_contigs_with_records(genome, tmp_path):
    length = genome.contigs[0].length
    lines = ["##contig=<length=9,note=\"ID\",ID=c0>", "##contig=<ID=far,length=7>",
             "##contig=<ID=bare>", "##contig=<ID=C0,length=8>"]  # fmt: skip
    path = write_lines(tmp_path / "v.vcf", [], [*HEADER, *lines])
    lengths = contig_lengths(path)
    assert lengths == {"c0": (9, 3), "far": (7, 4), "C0": (8, 6)}
    names = ContigNames(genome)
    for name, count in (("far", 0), ("C0", 40)):
        found = survey(snvs(genome, contig=name), names, path, lengths)
        assert found.n_compared == count
    message = rf"v.vcf:3: found contig 'c0' of 9 bp, expected {length} bp, the length of c0"
    with pytest.raises(InputError, match=message):
        survey(snvs(genome), names, path, lengths)

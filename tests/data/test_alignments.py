"""Alignments that others made: every base is under the one it was written under."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from tiny_files import random_genome
from tiny_inputs import BASES, inputs

from genesplice.data import relatives as module
from genesplice.data.alignments import read_maf
from genesplice.data.genome import ALPHABET, decode
from genesplice.data.prepare import prepare_files
from genesplice.data.relatives import GAP, GROUPS, UNALIGNED
from genesplice.errors import InputError

COMPLEMENT = str.maketrans("ACGTacgtN-", "TGCAtgcaN-")
GENOME = random_genome(700, 300)
ROW = "ACGT-N"


def text_of(codes: np.ndarray) -> str:
    """Letters of a row of the matrix; what is unaligned inside of a block is an N."""
    return "".join(ROW[code] for code in codes)


def s_line(source: str, start: int, strand: str, length: int, text: str) -> str:
    return f"s {source}  {start} {sum(x != '-' for x in text)} {strand} {length} {text}\n"


def make_truth(seed: int) -> np.ndarray:
    """What a relative has at each base of the genome: changed, lost and unknown ones."""
    rng = np.random.default_rng(seed)
    truth = np.array(GENOME.tokens)
    change = rng.random(len(truth))
    other = change < 0.1 * (1 + seed)
    truth[other] = (truth[other] + rng.integers(1, 4, other.sum())) % 4
    truth[change > 0.95] = GAP
    truth[(change > 0.94) & (change <= 0.95)] = UNALIGNED
    return truth.astype(np.uint8)


def write_blocks(truths: dict[str, np.ndarray], prefix: str = "ref.", seed: int = 0) -> str:
    """Blocks of 1 to 40 bases, some left out, on either strand, with insertions of relatives."""
    rng, out = np.random.default_rng(seed), ["##maf version=1 scoring=none\n"]
    for contig in GENOME.contigs:
        start = 0
        while start < contig.length:
            end = min(start + int(rng.integers(1, 41)), contig.length)
            at = np.arange(contig.offset + start, contig.offset + end)
            own = decode(GENOME.tokens[at])
            rows = {name: text_of(truth[at]) for name, truth in truths.items()}
            if rng.random() < 0.5:
                cut = int(rng.integers(0, len(own) + 1))
                own = f"{own[:cut]}---{own[cut:]}"
                rows = {name: f"{row[:cut]}ga-{row[cut:]}" for name, row in rows.items()}
            there, strand = start, "+"
            if rng.random() < 0.5:
                there, strand = contig.length - end, "-"
                own = own[::-1].translate(COMPLEMENT)
                rows = {name: row[::-1].translate(COMPLEMENT) for name, row in rows.items()}
            if rng.random() < 0.85:
                out.append("a score=1\n")
                out.append(s_line(prefix + contig.name, there, strand, contig.length, own))
                for name, row in rows.items():
                    out.append(s_line(f"{name}.chr.7", 5, "+-"[start % 2], 90_000, row.lower()))
                    out.append(f"i {name}.chr.7 C 0 C 0\n")
                out.append("e other.chr1 5 0 + 900 I\n\n")
            else:
                for truth in truths.values():
                    truth[at] = UNALIGNED
            start = end
    return "".join(out)


@pytest.mark.parametrize("prefix", ["ref.", "GCF_1.2.", ""])
def test_every_base_is_what_the_file_has_under_it(tmp_path: Path, prefix: str) -> None:
    truths = {"near": make_truth(0), "far": make_truth(3)}
    text = write_blocks(truths, prefix)
    with gzip.open(tmp_path / "x.maf.gz", "wt") as out:
        out.write(text)
    said: list[str] = []
    found = read_maf(tmp_path / "x.maf.gz", GENOME, progress=said.append)
    assert list(found.table["name"]) == ["near", "far"]
    assert list(found.table["group"]) == list(GROUPS[:2])
    for row, name in zip(found.bases, found.table["name"], strict=True):
        np.testing.assert_array_equal(row, truths[name])
        is_base = truths[name] < GAP
        same = is_base & (truths[name] == GENOME.tokens)
        line = found.table.set_index("name").loc[name]
        assert line["aligned"] == pytest.approx(is_base.mean())
        assert line["identity"] == pytest.approx(same.sum() / is_base.sum())
        assert (line["contigs"], line["length_bp"], line["file"]) == (1, 90_000, "x.maf.gz")
    for group in range(2):
        for at in (0, 123, 650, 720, 999):
            wanted = [int(found.bases[group, at] == code) for code in range(5)]
            assert found.columns[group, at].tolist() == wanted
    assert sum("of the genome aligned at" in line for line in said) == 2


def maf(tmp_path: Path, *blocks: list[tuple]) -> Path:
    """A file with blocks of (source, start, strand, length, text)."""
    lines = ["a\n" + "".join(s_line(*row) for row in block) for block in blocks]
    (tmp_path / "x.maf").write_text("\n".join(lines))
    return tmp_path / "x.maf"


OWN = ("ref.c0", 100, "+", 700, decode(GENOME.tokens[100:110]))


def changed(n: int) -> str:
    """The ten bases from 100 on, the first n of them others."""
    tokens = np.array(GENOME.tokens[100:110])
    tokens[:n] = (tokens[:n] + 1) % 4
    return decode(tokens)


def test_of_several_rows_the_best_and_of_several_blocks_the_first_count(tmp_path: Path) -> None:
    rows = [("a.x", 0, "+", 50, changed(3)), ("a.y", 0, "-", 60, changed(1))]
    rows += [("a.x", 20, "+", 50, changed(2)), ("Anc0.z", 0, "+", 9, changed(0)[:9] + "-")]
    wider = ("ref.c0", 95, "+", 700, decode(GENOME.tokens[95:110]))
    again = ("a.x", 0, "+", 50, decode(GENOME.tokens[95:100]) + changed(0))
    nobody = [("b.q", 0, "+", 10, "ACGTACGTAC")]
    said: list[str] = []
    path = maf(tmp_path, [OWN, *rows], [wider, again], nobody)
    found = read_maf(path, GENOME, progress=said.append)
    assert list(found.table["name"]) == ["a"]
    assert decode(found.bases[0, 95:100]) == decode(GENOME.tokens[95:100])
    assert decode(found.bases[0, 100:110]) == changed(1)
    assert (found.bases[0] < UNALIGNED).sum() == 15
    assert found.table["contigs"].tolist() == [2]
    assert "relatives: x.maf: 1 blocks without the genome's contigs" in said
    assert any("2 second rows of a species in a block" in line for line in said)
    assert any("10 bases of a relative in a second block" in line for line in said)
    assert any("1 inferred ancestors, left out: Anc0" in line for line in said)


def test_the_reference_is_no_relative_of_itself(tmp_path: Path) -> None:
    paralogue = ("ref.c1", 0, "+", 300, decode(GENOME.tokens[700:710]))
    elsewhere = ("ref.unplaced", 0, "+", 40, changed(0))
    found = read_maf(
        maf(tmp_path, [OWN, paralogue, elsewhere, ("a.x", 0, "+", 50, changed(1))]), GENOME
    )
    assert list(found.table["name"]) == ["a"]
    # Both copies of the genome in the block have the relative's bases.
    assert decode(found.bases[0, 700:710]) == decode(found.bases[0, 100:110]) == changed(1)


NOBODY = [("ref.c9", 0, "+", 700, "ACGT"), ("a.x", 0, "+", 9, "ACGT")]
GOOD = [OWN, ("a.x", 0, "+", 50, changed(1))]


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([NOBODY], r"x\.maf: found none of its contigs \(ref\.c9 of 700 bp, a\.x of 9 bp\), exp"),
        ([[("ref.c0", 0, "+", 701, "ACGT")]], "none of its contigs"),
        ([[OWN]], "no species beside the genome"),
        ([[OWN, ("a.x", 0, "+", 50, "ACGT")]], r"x\.maf:3: found 4 columns, expected 10"),
        ([[OWN, ("a.x", 45, "+", 50, changed(1))]], r":3: found a\.x from 45 to 55, expected at"),
        ([[OWN, ("a.x", 0, "+", 50, "ACGTXCGTAC")]], r":3: found 'X' at position 5, expected a D"),
        (
            [[(*OWN[:4], changed(4)), GOOD[1]]],
            r":2: found 4 of 10 bases of ref\.c0 that are others",
        ),
        (
            [GOOD, [("ref.c1", 0, "+", 299, "ACGT")]],
            r":6: found ref\.c1 of 299 bp, expected 300 as",
        ),
    ],
)
def test_what_is_no_alignment_of_this_genome_is_refused(
    tmp_path: Path, blocks: list, expected: str
) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        read_maf(maf(tmp_path, *blocks), GENOME)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("s a.x 0 10 + 50", "x.maf:3: found 's a.x 0 10 \\+ 50', expected s SOURCE"),
        ("s a.x 0 ten + 50 ACGTACGTAC", "expected s SOURCE"),
        ("s a.x 0 9 + 50 ACGTACGTAC", "found 10 bases of a.x, expected 9, its size"),
        (">x", "a line that begins with '>x'"),
    ],
)
def test_lines_that_are_not_mafs_are_refused(tmp_path: Path, line: str, expected: str) -> None:
    (tmp_path / "x.maf").write_text("a\n" + s_line(*OWN) + line + "\n")
    with pytest.raises(InputError, match=expected):
        read_maf(tmp_path / "x.maf", GENOME)


def test_more_relatives_than_can_be_counted_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RELATIVES", 1)
    rows = [("a.x", 0, "+", 50, changed(1)), ("b.x", 0, "+", 50, changed(2))]
    with pytest.raises(InputError, match=r"x\.maf: found 2 relatives, expected at most 1"):
        read_maf(maf(tmp_path, [OWN, *rows]), GENOME)


def test_an_alignment_is_part_of_the_data(tmp_path: Path) -> None:
    other = BASES[40:100].translate(str.maketrans("A", "C"))
    rows = [("me.chr1", 40, "+", 24_000, BASES[40:100]), ("you.1", 0, "+", 60, other)]
    path = maf(tmp_path, rows)
    files = inputs(tmp_path / "in")
    bundle = prepare_files(
        **files, expression_unit="tpm", relatives=path, out=tmp_path / "out", block_bp=2000
    )
    relatives = bundle.relatives
    assert relatives is not None
    assert [ALPHABET[code] for code in relatives.bases[0, 40:100]] == list(other)
    assert (np.asarray(bundle.genome.columns)[0, 40:100].sum(1) == 1).all()
    assert not np.asarray(bundle.genome.columns)[:, 100:].any()
    (given,) = [one for one in bundle.manifest["inputs"] if one["part"] == "relatives"]
    assert given["name"] == "x.maf"
    found = bundle.conservation("chr1", 40, 100)
    assert found is not None
    assert found.same[:, 0].tolist() == [
        int(a == b) for a, b in zip(BASES[40:100], other, strict=True)
    ]

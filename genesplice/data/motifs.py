"""Binding sites: matrices of transcription factors (MEME text), and the -10 and -35 hexamers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from genesplice.data.tables import numbered_lines
from genesplice.errors import InputError
from genesplice.results import MotifHit

# Consensus of each hexamer and the frequency of its base at each position; the other three bases
# share the rest. Source: Lisser and Margalit, Compilation of E. coli mRNA promoter sequences,
# 1993, table 2.
CONSENSUS = {
    "-35": ("TTGACA", (0.69, 0.79, 0.61, 0.56, 0.54, 0.54)),
    "-10": ("TATAAT", (0.77, 0.76, 0.60, 0.61, 0.56, 0.82)),
}
SPACERS_BP = range(15, 20)
MIN_BITS = 8.0
DISTANCE_BP = 20, 120
"""From a -10 hexamer to the start of translation; farther away there are no more than by chance."""


def read_meme(path: Path) -> dict[str, Float[np.ndarray, "length 4"]]:
    """Read motifs as probabilities, rows are positions and columns A, C, G, T.

    A motif keeps its name; the alternative name after it is dropped. Rows are divided by their
    sum, so that they add up to 1 beyond the digits written in the file.

    Raises
    ------
    InputError
        If the file is no MEME text, holds another alphabet, names a motif twice, or a row is
        not four probabilities that add up to 1 within 0.02.

    Source: Bailey et al. 2015, "The MEME Suite", minimal motif format.
    """
    path = Path(path)
    motifs: dict[str, list[list[float]]] = {}
    rows: list[list[float]] | None = None
    in_matrix = has_version = False
    for number, text in numbered_lines(path):
        words = text.split()
        if text.startswith("MEME version"):
            has_version = True
        elif text.startswith("ALPHABET"):
            letters = text.split("=", 1)[-1].strip()
            if letters != "ACGT":
                raise InputError(f"alphabet {letters!r}", "ACGT", path=path, line=number)
        elif words and words[0] == "MOTIF":
            if len(words) < 2 or words[1] in motifs:
                what = "a motif without a name" if len(words) < 2 else f"motif {words[1]!r} twice"
                raise InputError(what, "each motif once", path=path, line=number)
            rows, in_matrix = motifs.setdefault(words[1], []), False
        elif text.startswith("letter-probability matrix"):
            if rows is None:
                raise InputError("a matrix", "a MOTIF line before it", path=path, line=number)
            in_matrix = True
        elif in_matrix and rows is not None and words:
            if (words[0][0].isalpha() or words[0].startswith("-")) and not _is_number(words[0]):
                in_matrix = False
            else:
                rows.append(_row(words, path, number))
    if not has_version:
        raise InputError("no 'MEME version' line", "MEME motif text", path=path)
    empty = [name for name, matrix in motifs.items() if not matrix]
    if empty or not motifs:
        what = f"motif {empty[0]!r} without a matrix" if empty else "no motif"
        raise InputError(what, "a letter-probability matrix", path=path)
    return {name: _normalised(matrix) for name, matrix in motifs.items()}


def write_meme(path: Path, motifs: Mapping[str, Float[np.ndarray, "length 4"]]) -> None:
    """Write motifs so that `read_meme` gives them back (6 decimals)."""
    lines = ["MEME version 4", "", "ALPHABET= ACGT", "", "strands: + -", ""]
    for name, matrix in motifs.items():
        lines += [f"MOTIF {name}", "", f"letter-probability matrix: alength= 4 w= {len(matrix)}"]
        lines += ["  " + "\t".join(f"{value:.6f}" for value in row) for row in matrix] + [""]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _is_number(word: str) -> bool:
    """Whether a word reads as a number; -0.1 and nan do, and are refused as probabilities."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def _row(words: list[str], path: Path, number: int) -> list[float]:
    try:
        row = [float(word) for word in words]
    except ValueError:
        row = []
    if len(row) != 4 or min(row) < 0 or not abs(sum(row) - 1) <= 0.02:
        raise InputError(
            f"the row {' '.join(words)[:60]!r}",
            "four probabilities that add up to 1",
            path=path,
            line=number,
        )
    return row


def _normalised(matrix: list[list[float]]) -> Float[np.ndarray, "length 4"]:
    array = np.array(matrix, dtype=np.float64)
    return array / array.sum(axis=1, keepdims=True)


def _log_odds(consensus: str, frequency: tuple[float, ...]) -> Float[np.ndarray, "6 5"]:
    """Bits of A, C, G, T and N (never) at each position, against even bases."""
    table = np.repeat((1 - np.array(frequency))[:, None] / 3, 5, axis=1)
    table[np.arange(6), ["ACGT".index(base) for base in consensus]] = frequency
    bits = np.log2(table / 0.25)
    bits[:, 4] = -np.inf
    return bits


HEXAMER_BITS = {name: _log_odds(*hexamer) for name, hexamer in CONSENSUS.items()}


def find_promoter(
    upstream: UInt8[np.ndarray, " length"],
    *,
    min_bits: float = MIN_BITS,
    distance_bp: tuple[int, int] = DISTANCE_BP,
) -> list[MotifHit]:
    """The best pair of -35 and -10 hexamers, 15 to 19 bp apart, on this strand; or nothing.

    Of equally good pairs the one nearest to the end is taken.

    Parameters
    ----------
    upstream
        Sense strand, up to the start of translation.
    min_bits
        Of both hexamers together.
    distance_bp
        Least and most bases from the first base of the -10 hexamer to the end of `upstream`.
    """
    known, count = np.minimum(upstream, 4), max(len(upstream) - 5, 0)
    minus_35, minus_10 = (
        sum((row[known[i : i + count]] for i, row in enumerate(bits)), np.zeros(count))
        for bits in HEXAMER_BITS.values()
    )
    distance = len(upstream) - np.arange(count)
    minus_10[(distance < distance_bp[0]) | (distance > distance_bp[1])] = -np.inf
    best = (min_bits, -1, -1)
    for spacer in SPACERS_BP:
        gap = 6 + spacer
        pair = minus_35[: max(count - gap, 0)] + minus_10[gap:]
        if len(pair):
            first = len(pair) - 1 - int(pair[::-1].argmax())
            best = max(best, (float(pair[first]), first + gap, first))
    _, second, first = best
    if second < 0:
        return []
    return [
        MotifHit(first, first + 6, "-35", float(minus_35[first]), "+"),
        MotifHit(second, second + 6, "-10", float(minus_10[second]), "+"),
    ]

"""Position probability matrices of transcription factors, in MEME's minimal text format."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from genesplice.data.tables import numbered_lines
from genesplice.errors import InputError


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
    path.write_text("\n".join(lines) + "\n")


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

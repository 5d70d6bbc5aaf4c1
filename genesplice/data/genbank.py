"""GenBank flat files, given as the features of GFF3 and the letters of FASTA."""

import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from Bio import BiopythonWarning, SeqIO
from Bio.Seq import UndefinedSequenceError
from Bio.SeqFeature import ExactPosition, SeqFeature
from Bio.SeqRecord import SeqRecord

from genesplice.data.tables import numbered_lines, open_text
from genesplice.errors import InputError

COPIED = ("locus_tag", "gene", "old_locus_tag", "transl_table", "product")


def is_genbank(path: Path) -> bool:
    """Whether a file begins as GenBank's do."""
    with open_text(path) as handle:
        return handle.read(6) == "LOCUS "


def read_records(path: Path) -> list[tuple[int, SeqRecord]]:
    """Records, each with the line that it begins on.

    Raises
    ------
    InputError
        If it cannot be read as GenBank.
    """
    heads = [(n, text.split()) for n, text in numbered_lines(path) if text.startswith("LOCUS ")]
    try:
        with open_text(path) as handle, warnings.catch_warnings():
            warnings.simplefilter("ignore", BiopythonWarning)
            records = list(SeqIO.parse(handle, "genbank"))
    except (ValueError, AssertionError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise InputError(f"no GenBank file ({reason})", "GenBank", path=path) from error
    if len(heads) != len(records):
        found = f"{len(heads)} LOCUS lines and {len(records)} records"
        raise InputError(found, "a record a line", path=path)
    for (line, words), record in zip(heads, records, strict=True):
        if [str(len(record))] != words[2:3]:
            found = f"{len(record)} of {(*words[2:3], '?')[0]} bases of {record.id!r}"
            raise InputError(found, "a whole file", path=path, line=line)
        for feature in record.features:
            if feature.location is None:
                found = f"a {feature.type} of {record.id!r} at no place that can be read"
                raise InputError(found, "places such as complement(3..9)", path=path, line=line)
    return [(line, record) for (line, _), record in zip(heads, records, strict=True)]


def as_fasta(path: Path) -> io.StringIO:
    """The sequences, named by accession and version, each line on the line that it has in the file.

    Raises
    ------
    InputError
        As `read_records`, and for a record without a sequence.
    """
    text, names, is_sequence = io.StringIO(), dict[int, str](), False
    for line, record in read_records(path):
        names[line] = str(record.id)
        try:
            str(record.seq)
        except UndefinedSequenceError:
            found, expected = f"record {record.id!r} without a sequence", "ORIGIN, or a FASTA file"
            raise InputError(found, expected, path=path, line=line) from None
    for line, words in numbered_lines(path):
        is_sequence = is_sequence and not words.startswith("//")
        text.write(f">{names[line]}" if line in names else "")
        text.write(re.sub(r"[\s\d]", "", words) * is_sequence + "\n")
        is_sequence = is_sequence or words.startswith("ORIGIN")
    text.seek(0)
    return text


def read_features(
    path: Path,
    lengths: dict[str, tuple[int, int]],
    circles: list[tuple[str, int]],
    organelles: list[tuple[str, int]],
) -> Iterator[tuple[Any, ...]]:
    """What a `Feature` of `genesplice.data.coding` is made of, as GFF3 would have it.

    Joined locations become one feature a part; RNA has its exons. The line is the record's first.

    Parameters
    ----------
    lengths, circles, organelles
        Get the declared length of each record, circular records and mitochondria, with the line.

    Raises
    ------
    InputError
        As `read_records`.
    """
    for line, record in read_records(path):
        name = str(record.id)
        lengths[name] = (len(record), line)
        if record.annotations.get("topology") == "circular":
            circles.append((name, line))
        marks = record.features[0].qualifiers if record.features else {}
        if any("mitochondri" in text for text in marks.get("organelle", ())):
            organelles.append((name, line))
        for kind, *rest in _record_features(record):
            yield line, name, kind, *rest


def _record_features(record: SeqRecord) -> Iterator[tuple[Any, ...]]:
    described = {_key(f): f for f in record.features if f.type.endswith(("RNA", "CDS"))}
    for number, feature in enumerate(record.features):
        kind, key = feature.type, _key(feature)
        if not (kind in ("gene", "CDS") or kind.endswith("RNA")) or not key:
            continue
        marks = feature.qualifiers
        attributes = {name: list(marks[name]) for name in COPIED if name in marks}
        synonyms = "; ".join(marks.get("gene_synonym", ())).split("; ")
        attributes |= {"gene_synonym": synonyms, "Name": marks.get("gene", [key])}
        is_pseudo = "pseudo" in marks or "pseudogene" in marks
        if is_pseudo:
            attributes["pseudo"] = ["true"]
        if not all(isinstance(edge, ExactPosition) for part in feature.location.parts
                   for edge in (part.start, part.end)):  # fmt: skip
            attributes["partial"] = ["true"]
        if "trans_splicing" in marks:
            attributes["exception"] = ["trans-splicing"]
        if kind == "gene":
            child = described.get(key)
            biotype = None if child is None else child.type.replace("CDS", "protein_coding")
            if biotype == "mRNA":
                biotype = "protein_coding"
            biotype = "pseudogene" if is_pseudo else biotype
            attributes |= {"ID": [f"gene-{key}"], "gene_biotype": [biotype or ""]}
            kind = "pseudogene" if is_pseudo else kind
        else:
            attributes |= {"ID": [f"{kind}-{number}"], "Parent": [f"gene-{key}"]}
        parts = feature.location.parts
        if len(parts) > 1:
            attributes["part"] = ["joined"]
        phase, done = int(marks.get("codon_start", ["1"])[0]) - 1, 0
        for part in parts:
            place = int(part.start), int(part.end), {1: "+", -1: "-"}.get(part.strand, ".")
            yield kind, *place, (phase - done) % 3 if kind == "CDS" else 0, attributes
            if kind.endswith("RNA"):
                yield "exon", *place, 0, attributes | {"Parent": attributes["ID"], "ID": []}
            done += place[1] - place[0]


def _key(feature: SeqFeature) -> str:
    marks = feature.qualifiers
    return str((marks.get("locus_tag") or marks.get("gene") or [""])[0])

"""Public archives: their files fetched and checked; GenBank as GFF3 and FASTA, STRING, Reactome."""

import http.client
import io
import os
import re
import shutil
import urllib.error
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from Bio import BiopythonWarning, SeqIO
from Bio.Seq import UndefinedSequenceError
from Bio.SeqFeature import ExactPosition, SeqFeature
from Bio.SeqRecord import SeqRecord

from genesplice.data.network import string_edges
from genesplice.data.tables import Progress, numbered_lines, open_text, unique_owners
from genesplice.errors import InputError, WorkError, require
from genesplice.runtime import atomic_file, claimed, file_sha256

TIMEOUT_S = 20
SUMS = "SHA256SUMS"
"""What files of a folder were on their first use, as `sha256sum --check` reads it."""
STRING_CHANNELS = ("neighborhood", "fusion", "cooccurence", "experimental", "database",
                   "textmining")  # fmt: skip
"""All but coexpression, spelt as STRING does."""
STRING_PRIOR, STRING_HIGH = 0.041, 0.7
"""What every channel scores by chance, and what STRING calls high confidence."""
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
            # Biopython takes 9..3 for a gene across the origin.
            warnings.filterwarnings("error", "Attempting to fix invalid location")
            records = list(SeqIO.parse(handle, "genbank"))
    except (ValueError, AssertionError, IndexError, BiopythonWarning) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise InputError(f"no GenBank file ({reason})", "GenBank", path=path) from error
    found = f"{len(heads)} LOCUS lines and {len(records)} records"
    require(len(heads) == len(records), found, "a record a line", path)
    for (line, words), record in zip(heads, records, strict=True):
        found = f"{len(record)} of {(*words[2:3], '?')[0]} bases of {record.id!r}"
        require([str(len(record))] == words[2:3], found, "a whole file", path, line)
        for feature in record.features:
            if feature.location is None or any(part.ref for part in feature.location.parts):
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
            biotype = described[key].type if key in described else ""
            biotype = "protein_coding" if biotype in ("CDS", "mRNA") else biotype
            kind, biotype = ("pseudogene", "pseudogene") if is_pseudo else (kind, biotype)
            attributes |= {"ID": [f"gene-{key}"], "gene_biotype": [biotype]}
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


# --- files of an archive ---


def input_record(about: dict[str, Any], source: str, licence: str, **counts: int) -> dict[str, Any]:
    """What a manifest says of a file; `about` has its name and sha256."""
    return about | {"source": source, "licence": licence, "counts": counts}


def fetch_file(url: str, path: Path, accept: Callable[[Path], None]) -> None:
    """Fetch a file, going on where this try or one of an earlier run broke off.

    Of another version (ETag, Last-Modified) it begins anew. `accept` raises where the whole file
    is not what it should be; nothing is kept then.

    Raises
    ------
    OSError, http.client.HTTPException
        If no more can be got; what came stays beside `path` for the next time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    begun, version = (path.with_name(f".{path.name}.{what}") for what in ("partial", "version"))
    while True:
        before = begun.stat().st_size if begun.exists() else 0
        try:
            _fetch_rest(url, begun, version)
            break
        except (OSError, http.client.HTTPException) as error:
            if before and getattr(error, "code", 0) == 416:  # a range behind the end
                begun.unlink()
            elif not begun.exists() or begun.stat().st_size <= before:
                raise
    try:
        accept(begun)
        os.replace(begun, path)
    finally:
        begun.unlink(missing_ok=True)
        version.unlink(missing_ok=True)


def _fetch_rest(url: str, begun: Path, version: Path) -> None:
    headers = {}
    if begun.exists() and version.exists():
        headers = {"Range": f"bytes={begun.stat().st_size}-", "If-Range": version.read_text()}
    with _opened(url, headers=headers) as given:
        if given.status != http.HTTPStatus.PARTIAL_CONTENT:
            version.unlink(missing_ok=True)
            begun.write_bytes(b"")
            if said := given.headers["ETag"] or given.headers["Last-Modified"]:
                version.write_text(said)
        with begun.open("ab") as out:
            shutil.copyfileobj(given, out)
        if given.length:
            raise http.client.IncompleteRead(b"", given.length)


@contextmanager
def _opened(url: str, **how: Any) -> Iterator[http.client.HTTPResponse]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **how), timeout=TIMEOUT_S) as given:
            yield given
    except urllib.error.HTTPError as error:
        error.close()
        raise


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise WorkError(f"{url} cannot be fetched ({error}): the same command goes on") from error


def _size(url: str) -> int:
    with _reaching(url), _opened(url, method="HEAD") as given:
        return int(given.headers["Content-Length"] or 0)


def _say_size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size else "size not said"


def fetch_checked(files: pd.DataFrame, folder: Path, tell: Progress) -> list[dict[str, Any]]:
    """Fetch what a folder lacks of `files` (`name, part, url, licence`), and give their records.

    Where they come from, their licences and sizes are said before the first one is fetched.

    Raises
    ------
    InputError
        If a file, there or fetched, has another sha256 than on its first use (`SUMS`).
    WorkError
        If a file cannot be fetched, or another process is fetching.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sums, records = folder / SUMS, []
    with claimed(folder):
        lines = sums.read_text(encoding="utf-8").splitlines() if sums.exists() else []
        known = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
        missing = [row for row in files.itertuples() if not (folder / row.name).exists()]
        sizes = [_size(row.url) for row in missing]
        for row, size in zip(missing, sizes, strict=True):
            tell(f"{row.name}: {_say_size(size)}, {row.licence}, {row.url}")
        if missing:
            tell(f"fetching {len(missing)} files, {_say_size(sum(sizes))}, once, into {folder}")
        for row in files.itertuples():
            path = folder / row.name

            def check(file: Path, path: Path = path) -> None:
                digest = file_sha256(file)
                if digest != known.setdefault(path.name, digest):
                    advice = f"nothing was kept; its line in {sums} deleted, this one is taken"
                    if file == path:
                        advice = f"delete {path} to fetch it again"
                    expected = f"{known[path.name][:16]}… as on its first use ({advice})"
                    raise InputError(f"sha256 {digest[:16]}…", expected, path=path)

            if path.exists():
                check(path)
            else:
                tell(f"fetching {row.name}")
                with _reaching(row.url):
                    fetch_file(row.url, path, check)
            with atomic_file(sums) as partial:
                text = "".join(f"{digest}  {name}\n" for name, digest in known.items())
                partial.write_text(text, encoding="utf-8")
            about = {"name": row.name, "part": row.part, "sha256": known[row.name]}
            records.append(input_record(about, row.url, row.licence, bytes=path.stat().st_size))
    return records


# --- STRING and Reactome ---


def write_string_edges(links: Path, names: Path, out: Path) -> str:
    """Write STRING's edges of high confidence without coexpression, and say how many they are.

    From `protein.links.detailed` and `protein.aliases`; `out` has source and target by Ensembl id
    and, as provenance, the channels. Their score is combined anew, of `STRING_CHANNELS`.

    Raises
    ------
    InputError
        If `links` is not such a table.

    Source: von Mering et al. 2005; combine_subscores.py of string-db.org.
    """
    rows = (text.split("\t") for _, text in numbered_lines(names))
    genes = unique_owners((re.sub(r"^\d+\.", "", row[0]), row[1]) for row in rows
                          if len(row) > 1 and re.fullmatch(r"ENS[A-Z]*G\d+", row[1]))  # fmt: skip
    types = {"protein1": "str", "protein2": "str"} | dict.fromkeys(STRING_CHANNELS, "float32")
    kept, n_edges = [], 0
    with open_text(links) as handle:
        try:
            for table in pd.read_csv(handle, sep=" ", usecols=[*types], dtype=types,
                                     chunksize=10**6):  # fmt: skip
                scores = (table[[*STRING_CHANNELS]] / 1000).clip(lower=STRING_PRIOR)
                against = (1 - (scores - STRING_PRIOR) / (1 - STRING_PRIOR)).prod(axis=1)
                table["combined_score"] = (1 - against * (1 - STRING_PRIOR)).round(3)
                n_edges, high = n_edges + len(table), table[table["combined_score"] >= STRING_HIGH]
                ends = pd.DataFrame({"source": high["protein1"], "target": high["protein2"]})
                kept.append(string_edges(ends, high, links))
        except ValueError as error:
            said = str(error).splitlines()[0][:120]
            raise InputError(said, "STRING's protein.links.detailed", path=links) from error
    edges = pd.concat(kept)
    for end in ("source", "target"):
        edges[end] = edges[end].str.lower().map(genes)
    whole = edges[["source", "target", "provenance"]].dropna()
    with atomic_file(out) as partial:
        whole.to_csv(partial, sep="\t", index=False)
    return (
        f"{links.name}: {len(whole)} of {n_edges} edges, those of {STRING_HIGH * 1000:.0f} of 1000 "
        f"or more without coexpression; {len(edges) - len(whole)} more of proteins without a gene"
    )


def write_reactome_sets(path: Path, out: Path) -> None:
    """Write Reactome's zipped GMT with its ids as ids: two pathways may have one name.

    Raises
    ------
    InputError
        If there is none in the zip.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            lines = archive.read("ReactomePathways.gmt").decode().splitlines()
    except (zipfile.BadZipFile, zlib.error, KeyError, UnicodeDecodeError) as error:
        raise InputError(str(error), "ReactomePathways.gmt in a zip", path=path) from error
    cells = (line.split("\t") for line in lines)
    with atomic_file(out) as partial:
        turned = ("\t".join([*row[1:2], row[0], *row[2:]]) for row in cells)
        partial.write_text("".join(line + "\n" for line in turned), encoding="utf-8")

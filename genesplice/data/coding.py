"""Coding sequences: the exons and the genetic code of a gene, read from an annotation.

A gene has one coding sequence, that of its longest transcript. The gene table keeps it as `exons`:
start, end, start, end, … (0-based half-open, as the gene's own `start` and `end`) in the order of
transcription, from the first whole codon to the last. It has none where there is no reading frame.
`genetic_code` is NCBI's number, 0 where it is not known.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import pandas as pd
from Bio.Data.CodonTable import CodonTable, unambiguous_dna_by_id
from jaxtyping import Int64, UInt8

from genesplice.data.genome import Genome, decode, encode, reverse_complement
from genesplice.data.tables import some
from genesplice.errors import InputError, require

MIN_JUDGED_CDS = 20
REFUSED_BELOW, DOUBTED_BELOW = 0.5, 0.9
STANDARD, BACTERIAL, UNKNOWN = 1, 11, 0
SPLICED_SHARE = 0.01
"""Eukaryotes have more spliced genes than this, prokaryotes fewer."""
RANDOM_ODDS = 0.05
"""Dinucleotides of all real genomes are further from those of independent bases."""
SLIPPAGE_BP = 2
"""Parts of one coding sequence overlap by no more (programmed frameshifts)."""
BIOTYPE_KEYS = ("gene_biotype", "biotype", "gene_type")
GENE_KEYS = ("locus_tag", "gene_id")
NAME_KEYS = ("gene_synonym", "Alias", "ID", "gene_id", "Name", "gene", "old_locus_tag")
KEPT = frozenset({
    *BIOTYPE_KEYS, *GENE_KEYS, *NAME_KEYS, "Parent", "transcript_id", "gene_name", "part",
    "transl_table", "pseudo", "exception", "tag", "partial", "start_range", "end_range",
})  # fmt: skip
"""The attributes that something is read from; millions of lines have many more."""
GFF3_PAIR = re.compile(r"\s*[^\s=;]+=")
GTF_PAIR = re.compile(r'([^\s";]+)\s+(?:"([^"]*)"|([^\s";]+))')


class Feature(NamedTuple):
    """A line of an annotation; 0-based half-open, attributes may have several values."""

    number: int
    contig: str
    kind: str
    start: int
    end: int
    strand: str
    phase: int
    attributes: dict[str, list[str]]

    def get(self, *keys: str) -> str | None:
        """The first value of the first key that has one."""
        return next((v[0] for k in keys if (v := self.attributes.get(k)) and v[0]), None)

    @property
    def is_partial(self) -> bool:
        """Whether the file says that the sequence goes on beyond it."""
        named = {"start_range", "end_range"} & self.attributes.keys()
        tags = {"cds_start_NF", "cds_end_NF"} & set(self.attributes.get("tag", ()))
        return bool(named or tags or self.get("partial") not in (None, "00", "false"))


class Coding(NamedTuple):
    """A coding sequence: exons as in the gene table, `transl_table` as written ("" if not)."""

    exons: tuple[int, ...] = ()
    code: str = ""
    is_partial: bool = False

    @property
    def bp(self) -> int:
        """Bases of all exons."""
        return sum(self.exons[1::2]) - sum(self.exons[::2])


def read_attributes(kind: str, text: str) -> dict[str, list[str]]:
    """The ninth column of GFF3 (`key=value,value;`), of GTF (`key "value";`), or a bare id.

    Of exons that have a parent neither id nor name, which are theirs alone.
    """
    if GFF3_PAIR.match(text):
        cut = (pair.partition("=") for pair in text.split(";"))
        pairs = [
            (key.strip(), [unquote(v) if "%" in v else v for v in words.strip().split(",")])
            for key, _, words in cut
        ]
    else:
        pairs = [(key, [quoted or plain]) for key, quoted, plain in GTF_PAIR.findall(text)]
        if not pairs and text.strip() not in ("", "."):
            pairs = [("ID", [text.strip().rstrip(";")])]
    attributes: dict[str, list[str]] = {}
    for key, values in pairs:
        if key in KEPT:
            attributes.setdefault(key, []).extend(map(sys.intern, values))
    if kind == "exon" and "Parent" in attributes:
        return {key: attributes[key] for key in attributes if key not in ("ID", "Name")}
    return attributes


def exonic_bp(features: Iterable[Feature]) -> int:
    """Bases of the exons, else of the coding sequences, without counting a base twice; else 0."""
    spans: dict[str, list[tuple[int, int]]] = {"exon": [], "CDS": []}
    for line in features:
        if line.kind in spans:
            spans[line.kind].append((line.start, line.end))
    total, covered = 0, 0
    for start, end in sorted(spans["exon"] or spans["CDS"]):
        total += max(0, end - max(start, covered))
        covered = max(covered, end)
    return total


def add_coding(
    path: Path,
    rows: Sequence[dict[str, Any]],
    features: Mapping[str, Sequence[Feature]],
    above: Collection[str | None],
    genome: Genome,
    mitochondria: Collection[str],
) -> tuple[frozenset[str], list[str]]:
    """Put `exons`, `genetic_code` and the transcribed `length` into the rows of genes.

    A biotype is put in where there is none.

    A gene without CDS lines is one exon where the file calls it protein-coding, and in a file
    without any CDS lines where it reads as an open frame. Without `transl_table` the code is 11,
    or 1 where more than `SPLICED_SHARE` of the genes are spliced, and not known in mitochondria.

    Parameters
    ----------
    features
        Exon, CDS and stop_codon lines by gene_id, of all transcripts.
    above
        IDs of the gene lines, which are no transcripts.

    Returns
    -------
    partial
        gene_id of those whose coding sequence is not all there.
    notes
        What was left without a reading frame or a genetic code.

    Raises
    ------
    InputError
        For a `transl_table` that NCBI does not have, and where most of `MIN_JUDGED_CDS` or more
        coding sequences have no reading frame, unless the genome is random bases.
    """
    read, no_code = dict[str, Coding](), list[str]()
    for row in rows:
        gene_id, lines = row["gene_id"], features.get(row["gene_id"], ())
        cds = [line for line in lines if line.kind == "CDS"]
        for line in cds:
            code, expected = line.get("transl_table") or "", "a genetic code of NCBI"
            is_known = not code or genetic_code(code)
            require(is_known, f"transl_table {code[:20]!r}", expected, path, line.number)
        span = row["end"] - row["start"]
        row["length"] = exonic_bp(lines) or span
        row["biotype"] = row["biotype"] or ("protein_coding" if cds else "gene")
        if may_code(row["biotype"]) and cds and not any(line.get("pseudo") for line in cds):
            contig = genome.contig(row["contig"])
            circle_bp = contig.length if contig.is_circular else None
            kept = [line for line in lines if line.kind != "exon"]
            found = (_join(group, row, circle_bp) for group in _transcripts(kept, above))
            # Of equally long ones the first in the file.
            read[gene_id] = max(found, key=lambda one: one.bp, default=Coding())
        elif row["biotype"] == "protein_coding" and not cds and row["length"] == span:
            read[gene_id] = Coding(whole_gene(row))
    no_frame = [gene_id for gene_id, own in read.items() if not own.exons]
    if 2 * len(no_frame) > len(read) >= MIN_JUDGED_CDS and not _is_random(genome):
        lacking = f"no reading frame in {len(no_frame)} of {len(read)} coding sequences"
        expected = "one in most: usually it is 0- or 1-based coordinates, or another strand"
        raise InputError(f"{lacking} ({some(no_frame, 3)})", expected, path=path)
    n_spliced = sum(len(one.exons) > 2 for one in read.values())
    usual = STANDARD if n_spliced > SPLICED_SHARE * len(read) else BACTERIAL
    for row in rows:
        own = read.get(row["gene_id"], Coding())
        row |= {"exons": own.exons, "genetic_code": int(own.code or usual)}
        if row["contig"] in mitochondria and own.exons and not own.code:
            row["genetic_code"] = UNKNOWN
            no_code.append(row["gene_id"])
        if row["biotype"] == "gene" and not any(features.values()):
            exons = whole_gene(row | {"biotype": "protein_coding"})
            gene = SimpleNamespace(**row | {"exons": exons})
            row["exons"] = exons if is_open(coding_sequence(genome, gene), usual) else ()
    notes, has_cds = [], any(line.kind == "CDS" for lines in features.values() for line in lines)
    if not has_cds:
        n_read = sum(bool(row["exons"]) for row in rows)
        notes.append(f"no CDS lines: {n_read} of {len(rows)} genes read as coding sequences")
    if no_frame:
        notes.append(
            "coding sequences without a reading frame (their length, their strand, trans-splicing) "
            f"have no codons: {some(no_frame)}"
        )
    if no_code:
        notes.append(
            "genes of mitochondria without transl_table have an unknown genetic code and no codon "
            f"features: {some(no_code)}"
        )
    return frozenset(gene for gene, own in read.items() if own.is_partial), notes


def may_code(biotype: str | None) -> bool:
    """Whether a biotype may be protein-coding; an empty or unknown one may."""
    name = str(biotype or "").lower()
    return name == "mrna" or not ("rna" in name or "pseudo" in name)


def _transcripts(
    features: Sequence[Feature], above: Collection[str | None]
) -> Iterable[list[Feature]]:
    """Lines by transcript. Without one they are one sequence where they hardly overlap."""
    groups: dict[str, list[Feature]] = defaultdict(list)
    own: dict[str, list[Feature]] = defaultdict(list)
    for line in features:
        parents = line.attributes.get("Parent") or line.attributes.get("transcript_id")
        for parent in parents or [""]:
            if not parent or parent in above:
                own[line.get("ID") or f"line {line.number}"].append(line)
            else:
                groups[parent].append(line)
    reached = -1
    for line in sorted((line for lines in own.values() for line in lines), key=lambda x: x.start):
        if line.start < reached - SLIPPAGE_BP:
            return [*groups.values(), *own.values()]
        reached = max(reached, line.end)
    return [*groups.values(), [line for lines in own.values() for line in lines]]


def _join(lines: Sequence[Feature], gene: Mapping[str, Any], circle_bp: int | None) -> Coding:
    """The lines of one transcript in the order of transcription, cut to whole codons.

    Nothing where they lie outside of the gene or on another strand (trans-splicing), or where
    the length is no multiple of three though nothing says that it is partial.
    """
    is_minus = gene["strand"] == "-"
    parts: list[tuple[int, int]] = []
    coding = [line for line in lines if line.kind == "CDS"]
    ordered = []
    for line in lines:
        if line.kind != "CDS" and any(one.start <= line.start < one.end for one in coding):
            continue  # A stop codon that the coding sequence has already.
        turn = circle_bp if circle_bp is not None and line.start < gene["start"] else 0
        ordered.append((line.start + turn, line.end + turn, line))
        is_inside = gene["start"] <= ordered[-1][0] and ordered[-1][1] <= gene["end"]
        is_there = (line.contig, line.strand) == (gene["contig"], gene["strand"])
        if not (is_inside and is_there) or "trans" in (line.get("exception") or ""):
            return Coding()
    if not coding:
        return Coding()
    ordered.sort(key=lambda one: (-one[1], -one[0]) if is_minus else one[:2])
    for start, end, _ in ordered:
        if parts and (parts[-1][0] == end if is_minus else parts[-1][1] == start):
            start, end = min(start, parts[-1][0]), max(end, parts.pop()[1])
        parts.append((start, end))
    skipped = ordered[0][2].phase
    is_partial = skipped > 0 or any(line.is_partial for line in lines)
    left_over = (sum(end - start for start, end in parts) - skipped) % 3
    if left_over and not is_partial:
        return Coding()
    parts = _without(parts, skipped, is_minus)
    parts = _without(parts[::-1], left_over, not is_minus)[::-1]
    code = next((code for line in coding if (code := line.get("transl_table"))), "")
    return Coding(tuple(edge for part in parts for edge in part), code, is_partial)


def _without(parts: list[tuple[int, int]], bases: int, at_end: bool) -> list[tuple[int, int]]:
    """Parts without their first `bases`, which lie at the first part's end or at its start."""
    parts = list(parts)
    while parts and bases:
        (start, end), *rest = parts
        cut = min(bases, end - start)
        first = (start, end - cut) if at_end else (start + cut, end)
        parts, bases = [first] * (end - start > cut) + rest, bases - cut
    return parts


def whole_gene(gene: Mapping[str, Any]) -> tuple[int, ...]:
    """Exons of a protein-coding gene of which nothing but the interval is known."""
    start, end = int(gene["start"]), int(gene["end"])
    is_frame = gene["biotype"] == "protein_coding" and end > start and (end - start) % 3 == 0
    return (start, end) if is_frame else ()


def exons_of(gene: Any) -> Int64[np.ndarray, "exons 2"]:
    """Start and end of each coding exon of a row of the gene table, as it is transcribed."""
    return np.asarray(gene.exons, np.int64).reshape(-1, 2)


def exons_read(gene: Any) -> Int64[np.ndarray, "exons 2"]:
    """As `exons_of`; of a gene that has none the whole gene, from its first base."""
    exons = exons_of(gene)
    return exons if len(exons) else np.array([[gene.start, gene.end]], np.int64)


def coding_positions(gene: Any) -> Int64[np.ndarray, " bases"]:
    """The contig positions of the coding bases in the order in which they are read."""
    step = -1 if gene.strand == "-" else 1
    parts = [np.arange(start, end)[::step] for start, end in exons_of(gene).tolist()]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def coding_sequence(genome: Genome, gene: Any) -> UInt8[np.ndarray, " bases"]:
    """Tokens of the spliced coding sequence in reading direction; whole codons, or nothing."""
    contig = genome.contig(gene.contig)
    tokens = np.array(genome.tokens[contig.offset + coding_positions(gene) % contig.length])
    return reverse_complement(tokens[::-1]) if gene.strand == "-" else tokens


def genetic_code(number: int | str) -> CodonTable | None:
    """NCBI's table of this number: stop codons, start codons, codon to amino acid."""
    return unambiguous_dna_by_id.get(int(number)) if str(number).isdigit() else None


def codon_meanings(number: int) -> dict[str, str]:
    """Amino acid of each codon by its letters, "*" for stop codons; empty for an unknown code."""
    table = genetic_code(number)
    return {} if table is None else table.forward_table | dict.fromkeys(table.stop_codons, "*")


def is_open(tokens: UInt8[np.ndarray, " bases"], code: int) -> bool:
    """Whether there are codons, of a known genetic code, and no stop codon before the last."""
    table = genetic_code(code)
    if table is None or not len(tokens):
        return False
    codons = tokens.reshape(-1, 3)[:-1]
    return not any((codons == encode(stop)).all(1).any() for stop in table.stop_codons)


def judge_coding(
    genes: pd.DataFrame, partial: Iterable[str], genome: Genome, path: Path | None = None
) -> dict[str, Any]:
    """Count coding sequences that begin with a start codon and end with a stop codon.

    Those of `partial` genes and of unknown genetic code are not judged. A stop codon may follow,
    as in GTF.

    Returns
    -------
    dict
        `n` genes judged, `share` of them that begin and end right, the two shares `start` and
        `stop`, and `text`, which says so, "" where nothing was judged.

    Raises
    ------
    InputError
        If the share is below `REFUSED_BELOW` in `MIN_JUDGED_CDS` genes or more, unless the
        genome is made of independent random bases: such a sequence has no reading frames.
    """
    judged = genes[~genes["gene_id"].isin(list(partial)) & (genes["genetic_code"] != UNKNOWN)]
    judged = judged[judged["exons"].map(len) > 0]
    ends = np.array([_ends(genome, gene) for gene in judged.itertuples()]).reshape(-1, 2)
    if not len(ends):
        return {"n": 0, "text": ""}
    (start, stop), share = ends.mean(axis=0).tolist(), float(ends.all(axis=1).mean())
    right = f"{share:.0%} of {len(ends)} coding sequences"
    text = f"{right} begin with a start and end with a stop codon"
    if share < DOUBTED_BELOW and len(ends) >= MIN_JUDGED_CDS:
        parts = f"{text} (start {start:.0%}, stop {stop:.0%})"
        usual = "another assembly or version, strand, 0- or 1-based coordinates, or genetic code"
        text = f"warning: {parts}: {usual}?"
        if share < REFUSED_BELOW:
            expected = f"{DOUBTED_BELOW:.0%} or more: usually it is {usual}"
            require(_is_random(genome), parts, expected, path)
            text = f"warning: {parts}: not judged, the genome is random bases"
    return {"n": len(ends), "share": share, "start": start, "stop": stop, "text": text}


def _ends(genome: Genome, gene: Any) -> tuple[bool, bool]:
    """Whether a coding sequence begins right, and whether it ends right."""
    table, tokens = genetic_code(gene.genetic_code), coding_sequence(genome, gene)
    assert table is not None
    after = int(coding_positions(gene)[-1]) + (1 if gene.strand == "+" else -3)
    beyond = genome.fetch(gene.contig, after, after + 3, gene.strand)
    genome.forget()
    last = {decode(tokens[-3:]), decode(beyond)}
    return decode(tokens[:3]) in table.start_codons, bool(last & set(table.stop_codons))


def _is_random(genome: Genome, at_most: int = 10_000_000) -> bool:
    """Whether neighbouring bases are independent of each other, as in a made-up genome."""
    tokens = np.asarray(genome.tokens[:at_most])
    pairs = np.histogram2d(tokens[:-1], tokens[1:], bins=5, range=[[0, 5], [0, 5]])[0][:4, :4]
    independent = np.outer(pairs.sum(axis=1), pairs.sum(axis=0)) / max(1, pairs.sum())
    allowed = RANDOM_ODDS * independent + 4 * np.sqrt(independent)
    return bool((np.abs(pairs - independent) <= allowed).all())
